/*
 * test_clock.c
 *		Time as a test needs it; see test_clock.h.
 */
#include "postgres.h"

#include "common/test_clock.h"
#ifdef PERFOPT_STOP_POINTS
#include "utils/guc.h"

static const char *
setting(const char *name)
{
	return GetConfigOption(name, true, false);
}

uint64
perfopt_test_statement_ns(uint64 ns)
{
	const char *ms = setting("perfopt_test.statement_ms");

	return ms && ms[0] ? (uint64) (strtod(ms, NULL) * 1e6) : ns;
}

int
perfopt_test_limit_ms(int ms)
{
	const char *patience = setting("perfopt_test.patience");

	return patience && patience[0] ? (int) (ms * strtod(patience, NULL)) : ms;
}

TimestampTz
perfopt_test_sampled_at(TimestampTz now)
{
	const char *minutes = setting("perfopt_test.minutes");

	return minutes && minutes[0] ?
		now + (TimestampTz) (strtod(minutes, NULL) * 60 * USECS_PER_SEC) : now;
}
#endif							/* PERFOPT_STOP_POINTS */
