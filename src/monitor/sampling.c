/*
 * sampling.c
 *		The duty "sample": what queries of this database have done since the
 *		last sample is written to perfopt.latency_history.
 *
 * Taking a sample empties the interval counters, so the batch taken has to be
 * written before it is forgotten.  It is kept in the worker's memory until its
 * transaction has committed.  When that fails, the next run first tries the
 * same batch again, with its own time and length; nothing new is taken before,
 * so there is never more than one batch; and as a run may fail when its
 * transaction has just committed, what is there already is not written again.
 * What is admitted: a worker that is
 * terminated between taking and committing leaves a hole in the history.  The
 * table of latencies itself has lost nothing.
 *
 * On a standby or a read-only server the duty is not run, and intervals just
 * go on.
 */
#include "postgres.h"

#include "monitor/monitor_internal.h"

#include "catalog/pg_type.h"
#include "common/settings.h"
#include "common/shmem.h"
#include "common/stop_points.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"
#include "worker/worker.h"

#define SAMPLE_NOW_TIMEOUT_MS	60000

/* The batch not yet committed; count is 0 when there is none. */
static struct
{
	MemoryContext context;
	TimestampTz sampled_at;
	double		interval_ms;
	int			count;
	LatencyDelta *deltas;
}			batch;

static void
forget_batch(void)
{
	batch.count = 0;
	batch.deltas = NULL;
	MemoryContextReset(batch.context);
}

static void
take_batch(void)
{
	int			max;

	if (batch.context == NULL)
		batch.context = AllocSetContextCreate(TopMemoryContext,
											  "perfopt latency sample",
											  ALLOCSET_DEFAULT_SIZES);
	max = perfopt_latency_count(MyDatabaseId);
	batch.deltas = MemoryContextAllocHuge(batch.context,
										  Max(max, 1) * sizeof(LatencyDelta));
	batch.sampled_at = GetCurrentTimestamp();
	batch.count = perfopt_latency_take(MyDatabaseId, batch.deltas, max,
									   &batch.interval_ms);
	if (batch.count == 0)
		forget_batch();
}

static void
execute(const char *sql, int expected, int nargs, Oid *types, Datum *values)
{
	int			result = SPI_execute_with_args(sql, nargs, types, values, NULL,
											   false, 0);

	if (result != expected)
		elog(ERROR, "SPI_execute_with_args failed: %s",
			 SPI_result_code_string(result));
}

static void
write_batch(void)
{
	Oid			types[1] = {TIMESTAMPTZOID};
	Datum		values[1];

	SPI_connect();
	values[0] = TimestampTzGetDatum(batch.sampled_at);
	execute("INSERT INTO perfopt.latency_history (sampled_at, interval_ms, role, queryid,"
			" calls, errors, rows, total_ms, max_ms, p50_ms, p95_ms, p99_ms, histogram)"
			" SELECT * FROM perfopt.sample_being_written()"
			" WHERE NOT EXISTS (SELECT FROM perfopt.latency_history WHERE sampled_at = $1)",
			SPI_OK_INSERT, 1, types, values);
	SPI_finish();
	PERFOPT_STOP_POINT("monitor_sample_written");
	perfopt_duty_next_transaction();
	PERFOPT_STOP_POINT("monitor_sample_committed");
	forget_batch();
}

/* Both statements start at the old end of an index and touch what they delete. */
static void
prune_history(void)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1];

	SPI_connect();
	values[0] = Int32GetDatum(perfopt_history_retention);
	execute("DELETE FROM perfopt.latency_history"
			" WHERE sampled_at < now() - make_interval(secs => $1)",
			SPI_OK_DELETE, 1, types, values);
	values[0] = Int32GetDatum(perfopt_history_max_rows);
	execute("DELETE FROM perfopt.latency_history"
			" WHERE id <= (SELECT max(id) FROM perfopt.latency_history) - $1",
			SPI_OK_DELETE, 1, types, values);
	SPI_finish();
}

static void
sample(void)
{
	/* What the worker itself runs would otherwise be in every sample. */
	perfopt_hooks_stop_measuring();

	if (batch.count > 0)
		write_batch();
	take_batch();
	if (batch.count > 0)
		write_batch();
	prune_history();
}

static const PerfoptDuty sample_duty = {
	.name = "sample",
	.interval_ms = &perfopt_sample_interval,
	.writes = true,
	.brief = true,
	.run = sample
};

void
perfopt_sampling_init(void)
{
	perfopt_duty_register(&sample_duty);
}

PG_FUNCTION_INFO_V1(perfopt_sql_sample_being_written);
PG_FUNCTION_INFO_V1(perfopt_sql_sample_now);

/*
 * sample_being_written(): the batch as rows, for write_batch().  Empty in any
 * other process than a worker in its duty.
 */
Datum
perfopt_sql_sample_being_written(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int n = 0; n < batch.count; n++)
	{
		const LatencyDelta *delta = &batch.deltas[n];
		const LatencySums *sums = &delta->sums;
		double		min_ms = sums->min_ns / 1e6;
		double		max_ms = sums->max_ns / 1e6;
		uint64		counts[HISTOGRAM_BUCKETS];
		Datum		values[13];
		bool		nulls[13] = {0};
		int			i = 0;

		for (int b = 0; b < HISTOGRAM_BUCKETS; b++)
			counts[b] = delta->histogram[b];

		values[i++] = TimestampTzGetDatum(batch.sampled_at);
		values[i++] = Float8GetDatum(batch.interval_ms);
		values[i++] = ObjectIdGetDatum(delta->key.role);
		values[i++] = Int64GetDatum((int64) delta->key.queryid);
		values[i++] = Int64GetDatum((int64) sums->calls);
		values[i++] = Int64GetDatum((int64) sums->errors);
		values[i++] = Int64GetDatum((int64) sums->rows);
		values[i++] = Float8GetDatum(sums->total_ns / 1e6);
		values[i++] = Float8GetDatum(max_ms);
		values[i++] = Float8GetDatum(perfopt_histogram_percentile(counts, 0.50, min_ms, max_ms));
		values[i++] = Float8GetDatum(perfopt_histogram_percentile(counts, 0.95, min_ms, max_ms));
		values[i++] = Float8GetDatum(perfopt_histogram_percentile(counts, 0.99, min_ms, max_ms));
		values[i++] = perfopt_histogram_datum(counts);
		Assert(i == lengthof(values));

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* sample_now() */
Datum
perfopt_sql_sample_now(PG_FUNCTION_ARGS)
{
	perfopt_require_preload();
	perfopt_duty_run_now(sample_duty.name, SAMPLE_NOW_TIMEOUT_MS);
	PG_RETURN_VOID();
}
