/*
 * testing.c
 *		Two duties, a job entry and SQL functions for the tests of this folder.  Nothing of
 *		this file is in a release build.
 *
 * The duties run when asked to.  "test" evaluates the text kept in the table
 * public.duty_script, if there is one, as a statement, and rests and does it again as
 * long as that says true; "test_writes" does the same and is left out where nothing
 * can be written.
 */
#include "postgres.h"

#include "worker/worker_internal.h"

#ifdef PERFOPT_STOP_POINTS

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"

static const int never = 0;

static bool
run_statement(const char *sql)
{
	bool		again;
	bool		isnull;

	SPI_connect();
	again = SPI_execute(sql, false, 0) == SPI_OK_SELECT && SPI_processed > 0 &&
		SPI_gettypeid(SPI_tuptable->tupdesc, 1) == BOOLOID &&
		DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return again;
}

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
	SPI_finish();
	while (script && run_statement(script))
		(void) perfopt_duty_rest();

	/* something for the tick's context to free */
	memset(palloc(256 * 1024), 0, 256 * 1024);

	perfopt_duty_next_transaction();
}

static const PerfoptDuty test_duty = {
	.name = "test",.interval_ms = &never,.writes = false,.run = run_script
};

static const PerfoptDuty test_writes_duty = {
	.name = "test_writes",.interval_ms = &never,.writes = true,.run = run_script
};

/* An entry that runs its argument twice. */
static void
run_twice(const char *payload, PerfoptJobOutcome *outcome)
{
	for (int i = 0; i < 2; i++)
		outcome->rows += perfopt_job_run_statement(payload);
	strlcpy(outcome->message, "ran twice", sizeof(outcome->message));
}

void
worker_testing_init(void)
{
	perfopt_job_entry_register("test_twice", run_twice);
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

PG_FUNCTION_INFO_V1(perfopt_test_job_submit);
PG_FUNCTION_INFO_V1(perfopt_test_job_wait);
PG_FUNCTION_INFO_V1(perfopt_test_job_cancel);
PG_FUNCTION_INFO_V1(perfopt_test_job_release);

static const char *const state_names[] = {
	"none", "queued", "starting", "running", "done", "failed", "cancelled", "lost"
};

static PerfoptJob
job_from_text(const text *handle)
{
	PerfoptJob	job;
	char	   *string = text_to_cstring(handle);

	if (sscanf(string, "%d." UINT64_FORMAT, &job.slot, &job.generation) != 2)
		elog(ERROR, "bad job \"%s\"", string);
	return job;
}

/*
 * job_submit(capability text, entry text, payload text, role regrole,
 *			  settings text, timeout_ms int, cancel_with_submitter bool,
 *			  fair_to_roles bool)
 */
Datum
perfopt_test_job_submit(PG_FUNCTION_ARGS)
{
	PerfoptJobSpec spec = {
		.capability = text_to_cstring(PG_GETARG_TEXT_PP(0)),
		.entry = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1)),
		.payload = text_to_cstring(PG_GETARG_TEXT_PP(2)),
		.database = MyDatabaseId,
		.role = PG_GETARG_OID(3),
		.settings = PG_ARGISNULL(4) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(4)),
		.timeout_ms = PG_GETARG_INT32(5),
		.cancel_with_submitter = PG_GETARG_BOOL(6),
		.fair_to_roles = PG_GETARG_BOOL(7)
	};
	PerfoptJob	job = perfopt_job_submit(&spec);

	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%d." UINT64_FORMAT,
											  job.slot, job.generation)));
}

/* job_wait(job text, timeout_ms int) returns "state sqlstate rows message" */
Datum
perfopt_test_job_wait(PG_FUNCTION_ARGS)
{
	PerfoptJobOutcome outcome;
	PerfoptJobState state = perfopt_job_wait(job_from_text(PG_GETARG_TEXT_PP(0)),
											 PG_GETARG_INT32(1), &outcome);

	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s %s " UINT64_FORMAT " %s",
											  state_names[state],
											  unpack_sql_state(outcome.sqlerrcode),
											  outcome.rows, outcome.message)));
}

/* job_cancel(job text) */
Datum
perfopt_test_job_cancel(PG_FUNCTION_ARGS)
{
	perfopt_job_cancel(job_from_text(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/* job_release(job text) */
Datum
perfopt_test_job_release(PG_FUNCTION_ARGS)
{
	perfopt_job_release(job_from_text(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

#endif							/* PERFOPT_STOP_POINTS */
