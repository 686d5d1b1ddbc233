/*
 * n_plus_one_advice.c
 *		Duty "n_plus_one": loops that lose enough become advice.
 */
#include "postgres.h"

#include "lookup/n_plus_one_internal.h"

#include "common/settings.h"
#include "worker/worker.h"

static void
advise(void)
{
}

void
perfopt_loop_advice_init(void)
{
	static const PerfoptDuty duty = {
		.name = "n_plus_one",
		.interval_ms = &perfopt_n_plus_one_interval,
		.writes = true,
		.run = advise
	};

	perfopt_duty_register(&duty);
}
