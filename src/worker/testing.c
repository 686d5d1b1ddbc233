/*
 * testing.c
 *		Two duties and SQL functions for the tests of this folder.  Nothing of
 *		this file is in a release build.
 *
 * The duties run when asked to.  "test" evaluates the text kept in the table
 * public.duty_script, if there is one, as a statement; "test_writes" does the
 * same and is left out where nothing can be written.
 */
#include "postgres.h"

#include "worker/worker_internal.h"

#ifdef PERFOPT_STOP_POINTS

#include "catalog/namespace.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"

static const int never = 0;

static void
run_script(void)
{
	char	   *script = NULL;
	MemoryContext context = CurrentMemoryContext;

	SPI_connect();
	if (OidIsValid(RangeVarGetRelid(makeRangeVar("public", "duty_script", -1),
									NoLock, true)))
	{
		if (SPI_execute("SELECT script FROM public.duty_script", true, 1) == SPI_OK_SELECT &&
			SPI_processed > 0)
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			script = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
			MemoryContextSwitchTo(old);
		}
	}
	if (script)
		SPI_execute(script, false, 0);
	SPI_finish();

	/* something for the tick's context to free */
	memset(palloc(256 * 1024), 0, 256 * 1024);

	perfopt_duty_next_transaction();
}

static const PerfoptDuty test_duty = {
	.name = "test", .interval_ms = &never, .writes = false, .run = run_script
};

static const PerfoptDuty test_writes_duty = {
	.name = "test_writes", .interval_ms = &never, .writes = true, .run = run_script
};

void
worker_testing_init(void)
{
	perfopt_duty_register(&test_duty);
	perfopt_duty_register(&test_writes_duty);
}

PG_FUNCTION_INFO_V1(perfopt_test_duty_run_now);
PG_FUNCTION_INFO_V1(perfopt_test_duty_wake);

/* duty_run_now(name text, timeout_ms int) */
Datum
perfopt_test_duty_run_now(PG_FUNCTION_ARGS)
{
	perfopt_duty_run_now(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_INT32(1));
	PG_RETURN_VOID();
}

/* duty_wake(name text) */
Datum
perfopt_test_duty_wake(PG_FUNCTION_ARGS)
{
	perfopt_duty_wake_at_commit(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

#endif							/* PERFOPT_STOP_POINTS */
