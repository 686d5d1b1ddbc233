/*
 * benchmark.c
 *		perfopt.benchmark(): how long a statement takes, and what it uses.
 *
 * There are `repeat` rounds of `iterations` runs each, after runs that warm up
 * and do not count; a first one is always made, in which memory is watched.
 * Mean, deviation and quantiles are over all runs; how far the medians of the
 * rounds lie apart says how steady the machine was.  When all that would take
 * longer than max_time, each round gets its part of the time and ends earlier.
 */
#include "postgres.h"

#include "bench/bench_internal.h"

#include <math.h>

#include "access/htup_details.h"
#include "common/settings.h"
#include "funcapi.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(perfopt_benchmark);

typedef struct Benchmark
{
	BenchStatement statement;
	int			iterations;
	int			repeat;
	int			warmup;
	int64		max_time;		/* ns */

	BenchSamples times;			/* ns */
	BenchSamples medians;		/* of the rounds */
	bool		stopped;		/* by max_time */
	int64		generic;		/* runs with a generic plan */
	double		rows;
	BufferUsage buffers;
	uint64		wal_bytes;
	BenchMemory memory;
} Benchmark;

/* After a tenth of the time no more are made. */
static void
warm_up(Benchmark *bench, int64 started)
{
	BenchLook	look = {
		.prepare = bench_memory_watch,.look = bench_memory_end,.arg = &bench->memory
	};
	BenchRun	run;

	bench->statement.warming = true;
	bench_run(&bench->statement, NULL, &look, &run);
	for (int i = 1; i < bench->warmup; i++)
	{
		if (bench_now() - started > bench->max_time / 10)
			break;
		bench_run(&bench->statement, NULL, NULL, &run);
	}
	bench->statement.warming = false;
	bench->statement.run = 0;
}

static void
count(Benchmark *bench, const BenchRun *run)
{
	BufferUsage none = {0};

	bench_samples_add(&bench->times, run->ns);
	bench->generic += bench->statement.generic;
	bench->rows += run->rows;
	bench->wal_bytes += run->wal.wal_bytes;
	BufferUsageAccumDiff(&bench->buffers, &run->buffers, &none);
}

static void
run_rounds(Benchmark *bench)
{
	BenchProgress progress = {.function = bench->statement.function,.started = bench_now()};
	int64		total = (int64) bench->iterations * bench->repeat;
	int64		now;

	warm_up(bench, progress.started);
	now = bench_now();
	for (int round = 0; round < bench->repeat && !bench->stopped; round++)
	{
		/* what is left, in equal parts */
		int64		left = progress.started + bench->max_time - now;
		int64		until = now + left / (bench->repeat - round);
		int64		first = bench->times.num;

		for (int i = 0; i < bench->iterations; i++)
		{
			BenchRun	run;

			if (i > 0 && now >= until)
				break;
			if (bench->times.num > 0 && now - progress.started >= bench->max_time)
				break;
			bench_run(&bench->statement, NULL, NULL, &run);
			count(bench, &run);
			now = bench_now();
			bench_progress(&progress, now, bench->times.num, total);
		}
		if (bench->times.num > first)
			bench_samples_add(&bench->medians,
							  bench_median(bench->times.values + first,
										   bench->times.num - first));
		bench->stopped = now - progress.started >= bench->max_time;
	}
	bench->stopped = bench->times.num < total;
	if (bench->stopped)
		ereport(NOTICE,
				(errmsg("%s: max_time is over after " INT64_FORMAT " of " INT64_FORMAT " runs",
						bench->statement.function, bench->times.num, total)));
}

static const char *
plans_used(const Benchmark *bench)
{
	return bench->generic == bench->times.num ? "generic" :
		bench->generic == 0 ? "custom" : "mixed";
}

/* The largest distance between medians of rounds, in percent of the median. */
static double
spread(const BenchSamples *medians, double median)
{
	double		min = medians->values[0];
	double		max = min;

	for (int64 i = 1; i < medians->num; i++)
	{
		min = Min(min, medians->values[i]);
		max = Max(max, medians->values[i]);
	}
	return median > 0 ? rint((max - min) / median * 10000) / 100 : 0;
}

Datum
perfopt_benchmark(PG_FUNCTION_ARGS)
{
	Benchmark	bench = {.statement = {.function = "perfopt.benchmark()"}};
	TupleDesc	desc;
	Datum		values[25];
	bool		nulls[25] = {0};
	int			n = 0;
	double		runs;
	double		median;
	double		timer;
	char	   *sql;
	BenchPlanMode mode;
	int			level;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	sql = bench_text_argument(fcinfo, 0, "sql");
	bench.statement.params = bench_params(fcinfo, 1);
	bench.iterations = bench_int_argument(fcinfo, 2, "iterations", 1000, 1);
	bench.repeat = bench_int_argument(fcinfo, 3, "repeat", 10, 1);
	bench.warmup = bench_int_argument(fcinfo, 4, "warmup", 5, 0);
	bench.statement.keep_changes = bench_bool_argument(fcinfo, 5, false);
	bench.max_time = bench_time_argument(fcinfo, 6, "max_time", PG_INT64_MAX / 4);
	mode = bench_plan_mode(fcinfo, 7);
	if ((int64) bench.iterations * bench.repeat > BENCH_MAX_SAMPLES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("iterations times repeat must be at most %d", BENCH_MAX_SAMPLES)));

	bench_samples_init(&bench.times);
	bench_samples_init(&bench.medians);
	timer = bench_timer_cost();
	bench_statement_prepare(&bench.statement, sql, mode);
	level = perfopt_own_loop_enter();
	PG_TRY();
	{
		run_rounds(&bench);
	}
	PG_FINALLY();
	{
		bench_statement_free(&bench.statement);
	}
	PG_END_TRY();
	perfopt_own_loop_leave(level);

	runs = bench.times.num;
	values[n++] = Float8GetDatum(bench_ms(bench_mean(bench.times.values, bench.times.num)));
	values[n++] = Float8GetDatum(bench_ms(bench_std_dev(bench.times.values, bench.times.num)));
	nulls[n - 1] = runs < 2;
	bench_samples_sort(&bench.times);
	median = bench_quantile(bench.times.values, bench.times.num, 0.5);
	values[n++] = Float8GetDatum(bench_ms(bench.times.values[0]));
	values[n++] = Float8GetDatum(bench_ms(bench.times.values[bench.times.num - 1]));
	values[n++] = Float8GetDatum(bench_ms(median));
	values[n++] = Float8GetDatum(bench_ms(bench_quantile(bench.times.values, bench.times.num, 0.95)));
	values[n++] = Float8GetDatum(bench_ms(bench_quantile(bench.times.values, bench.times.num, 0.99)));
	values[n++] = Int64GetDatum(bench.times.num);
	values[n++] = Int32GetDatum((int32) bench.medians.num);
	values[n++] = Float8GetDatum(spread(&bench.medians, median));
	nulls[n - 1] = bench.medians.num < 2;
	values[n++] = BoolGetDatum(bench.stopped);
	values[n++] = Float8GetDatum(bench.rows / runs);
	values[n++] = Float8GetDatum(bench.buffers.shared_blks_hit / runs);
	values[n++] = Float8GetDatum(bench.buffers.shared_blks_read / runs);
	values[n++] = Float8GetDatum(bench.buffers.shared_blks_dirtied / runs);
	values[n++] = Float8GetDatum((bench.buffers.local_blks_hit + bench.buffers.local_blks_read) / runs);
	values[n++] = Float8GetDatum(bench.buffers.temp_blks_read / runs);
	values[n++] = Float8GetDatum(bench.buffers.temp_blks_written / runs);
	values[n++] = Float8GetDatum(bench.wal_bytes / runs);
	values[n++] = Int64GetDatum((int64) (bench.memory.peak + 1023) / 1024);
	values[n++] = Float8GetDatum(bench.statement.planning_ms);
	values[n++] = CStringGetTextDatum(plans_used(&bench));
	values[n++] = Float8GetDatum(bench_ms(timer));
	Assert(n == desc->natts);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
