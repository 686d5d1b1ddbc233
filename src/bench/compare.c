/*
 * compare.c
 *		perfopt.compare(): which of two statements is faster, and is that more
 *		than noise?
 *
 * A machine is faster now and slower then, neighbouring runs resemble each
 * other, and where memory happens to lie makes a difference that lasts.  So:
 *
 *	- Statements alternate, A B B A, which cancels what drifts evenly.  Each four
 *	  give one ratio, and a round's ratio is the median of its fours.
 *	- The rounds, and not the runs, are what the test counts: in each, both
 *	  statements are prepared anew, and who comes first changes from round to
 *	  round.  That more runs are made in a round does not make chance look certain.
 *	- The logarithms of the rounds' ratios are symmetric around zero when both
 *	  statements take as long.  Wilcoxon's signed-rank test says how probable they
 *	  are then; below 5 % the difference is called significant.
 *
 * With fewer than MIN_ROUNDS rounds no outcome would be that improbable.
 */
#include "postgres.h"

#include "bench/bench_internal.h"

#include <math.h>

#include "access/htup_details.h"
#include "common/settings.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(perfopt_compare);

#define MIN_ROUNDS	6
#define MAX_ROUNDS	1000
#define ALPHA		0.05

typedef struct Side
{
	BenchStatement statement;
	char	   *sql;
	BenchSamples times;			/* ns */
} Side;

typedef struct Comparison
{
	Side		a;
	Side		b;
	BenchPlanMode mode;
	int			iterations;
	int			repeat;
	int			warmup;
	int64		max_time;		/* ns */
	int64		started;

	BenchSamples rounds;		/* logarithms of b / a */
	bool		stopped;
	MemoryContext scratch;		/* one round's */
} Comparison;

static double
run_one(Side *side)
{
	BenchRun	run;

	bench_run(&side->statement, NULL, NULL, &run);
	bench_samples_add(&side->times, run.ns);
	return log(Max(run.ns, 1));
}

/* Prepare both again; what each has counted goes on. */
static void
prepare_again(Comparison *c, Side *first, Side *second)
{
	Side	   *sides[] = {first, second};

	for (int i = 0; i < 2; i++)
		bench_statement_free(&sides[i]->statement);
	for (int i = 0; i < 2; i++)
	{
		int64		runs = sides[i]->statement.run;

		bench_statement_prepare(&sides[i]->statement, sides[i]->sql, c->mode);
		sides[i]->statement.run = runs;
	}
}

/* Alternating, within the time. */
static void
warm_up(Comparison *c, int64 until)
{
	Side	   *sides[] = {&c->a, &c->b};
	BenchRun	run;
	int64		runs_a = c->a.statement.run;
	int64		runs_b = c->b.statement.run;

	c->a.statement.warming = c->b.statement.warming = true;
	c->a.statement.run = c->b.statement.run = 0;
	for (int64 i = 0; i < 2 * (int64) c->warmup && bench_now() < until; i++)
		bench_run(&sides[i % 2]->statement, NULL, NULL, &run);
	c->a.statement.warming = c->b.statement.warming = false;
	c->a.statement.run = runs_a;
	c->b.statement.run = runs_b;
}

/*
 * One round, until its time is over.  When there is no time for four runs it
 * has two, and the rounds after it change their order.
 */
static void
run_round(Comparison *c, int round, int64 until, BenchProgress *progress)
{
	bool		swap = round % 2 == 1;
	Side	   *first = swap ? &c->b : &c->a;
	Side	   *second = swap ? &c->a : &c->b;
	int			fours = Max(c->iterations / 2, 1);
	BenchSamples ratios;
	MemoryContext old = CurrentMemoryContext;
	int64		now = bench_now();
	double		ratio;

	if (round > 0)
	{
		prepare_again(c, first, second);
		warm_up(c, now + (until - now) / 10);
	}
	MemoryContextSwitchTo(c->scratch);
	bench_samples_init(&ratios);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < fours; i++)
	{
		int64		before = bench_now();
		double		logs = -run_one(first);

		logs += run_one(second);
		now = bench_now();
		if (i == 0 && (c->iterations < 2 || now + (now - before) > until))
			ratio = logs;
		else
		{
			logs += run_one(second);
			logs -= run_one(first);
			ratio = logs / 2;
		}
		/* of b to a */
		bench_samples_add(&ratios, swap ? -ratio : ratio);
		now = bench_now();
		bench_progress(progress, now, c->a.times.num + c->b.times.num,
					   (int64) 2 * c->iterations * c->repeat);
		if (now >= until)
			break;
	}
	bench_samples_add(&c->rounds, bench_median(ratios.values, ratios.num));
	MemoryContextReset(c->scratch);
}

static void
compare(Comparison *c, bool check_rows, BenchSameRows *rows)
{
	BenchProgress progress = {.function = "perfopt.compare()",.started = c->started};
	int64		planned = (int64) Max(c->iterations / 2 * 2, 1) * c->repeat;

	bench_statement_prepare(&c->a.statement, c->a.sql, c->mode);
	bench_statement_prepare(&c->b.statement, c->b.sql, c->mode);
	if (check_rows)
	{
		bench_compare_rows(&c->a.statement, &c->b.statement, rows);
		c->a.statement.run = c->b.statement.run = 0;
	}
	warm_up(c, c->started + c->max_time / 10);
	for (int round = 0; round < c->repeat; round++)
	{
		int64		now = bench_now();
		int64		left = c->started + c->max_time - now;

		if (left <= 0 && round > 0)
			break;
		run_round(c, round, now + left / (c->repeat - round), &progress);
	}
	c->stopped = c->a.times.num < planned;
	if (c->rounds.num < MIN_ROUNDS)
		ereport(NOTICE,
				(errmsg_plural("perfopt.compare(): max_time is over after %d round",
							   "perfopt.compare(): max_time is over after %d rounds",
							   (int) c->rounds.num, (int) c->rounds.num),
				 errdetail("No difference can be told from noise with fewer than %d.", MIN_ROUNDS),
				 errhint("Give it more time, as in max_time => '5 min'.")));
	else if (c->stopped)
		ereport(NOTICE,
				(errmsg("perfopt.compare(): max_time is over after " INT64_FORMAT " of " INT64_FORMAT " runs of each",
						c->a.times.num, planned)));
}

static Comparison *
read_arguments(FunctionCallInfo fcinfo)
{
	Comparison *c = palloc0(sizeof(Comparison));

	c->a.sql = bench_text_argument(fcinfo, 0, "sql_a");
	c->b.sql = bench_text_argument(fcinfo, 1, "sql_b");
	c->a.statement.params = bench_params(fcinfo, 2);
	c->iterations = bench_int_argument(fcinfo, 3, "iterations", 1000, 1);
	c->repeat = bench_int_argument(fcinfo, 4, "repeat", 10, MIN_ROUNDS);
	c->warmup = bench_int_argument(fcinfo, 5, "warmup", 5, 0);
	c->b.statement.params = PG_ARGISNULL(6) ? c->a.statement.params : bench_params(fcinfo, 6);
	c->max_time = bench_time_argument(fcinfo, 7, "max_time", PG_INT64_MAX / 4);
	c->mode = bench_plan_mode(fcinfo, 8);
	if (c->repeat > MAX_ROUNDS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("repeat must be at most %d", MAX_ROUNDS)));
	if ((int64) c->iterations * c->repeat > BENCH_MAX_SAMPLES / 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("iterations times repeat must be at most %d", BENCH_MAX_SAMPLES / 2)));
	c->a.statement.function = c->b.statement.function = "perfopt.compare()";
	c->a.statement.label = "a";
	c->b.statement.label = "b";
	c->scratch = AllocSetContextCreate(CurrentMemoryContext, "perfopt compared round",
									   ALLOCSET_DEFAULT_SIZES);
	bench_samples_init(&c->a.times);
	bench_samples_init(&c->b.times);
	bench_samples_init(&c->rounds);
	c->started = bench_now();
	return c;
}

static double
percent(double value)
{
	return rint(value * 10000) / 100;
}

static double
as_ratio(double logarithm)
{
	return rint(exp(logarithm) * 10000) / 10000;
}

Datum
perfopt_compare(PG_FUNCTION_ARGS)
{
	Comparison *c;
	BenchSameRows rows = {0};
	BenchTest	test;
	TupleDesc	desc;
	Datum		values[24];
	bool		nulls[24] = {0};
	int			n = 0;
	bool		check_rows;
	bool		significant;
	int			level;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	c = read_arguments(fcinfo);
	check_rows = bench_bool_argument(fcinfo, 9, true);
	level = perfopt_own_loop_enter();
	PG_TRY();
	{
		compare(c, check_rows, &rows);
	}
	PG_FINALLY();
	{
		bench_statement_free(&c->a.statement);
		bench_statement_free(&c->b.statement);
	}
	PG_END_TRY();
	perfopt_own_loop_leave(level);

	bench_signed_rank_test(c->rounds.values, c->rounds.num, &test);
	significant = c->rounds.num >= MIN_ROUNDS && test.p < ALPHA;
	bench_samples_sort(&c->a.times);
	bench_samples_sort(&c->b.times);

	values[n++] = CStringGetTextDatum(!significant ? "neither" : test.center < 0 ? "b" : "a");
	values[n++] = Float8GetDatum(percent(1 - exp(test.center)));
	values[n++] = BoolGetDatum(significant);
	values[n++] = Float8GetDatum(test.p);
	values[n++] = Float8GetDatum(as_ratio(test.center));
	values[n++] = Float8GetDatum(as_ratio(test.low));
	nulls[n - 1] = !test.has_interval;
	values[n++] = Float8GetDatum(as_ratio(test.high));
	nulls[n - 1] = !test.has_interval;
	values[n++] = Float8GetDatum(bench_ms(bench_quantile(c->a.times.values, c->a.times.num, 0.5)));
	values[n++] = Float8GetDatum(bench_ms(bench_quantile(c->b.times.values, c->b.times.num, 0.5)));
	values[n++] = Float8GetDatum(bench_ms(bench_mean(c->a.times.values, c->a.times.num)));
	values[n++] = Float8GetDatum(bench_ms(bench_mean(c->b.times.values, c->b.times.num)));
	values[n++] = Int64GetDatum(c->a.times.num);
	values[n++] = Int32GetDatum((int32) c->rounds.num);
	values[n++] = BoolGetDatum(c->stopped);
	values[n++] = BoolGetDatum(rows.same);
	nulls[n - 1] = !check_rows;
	values[n++] = Int64GetDatum(rows.rows_a);
	nulls[n - 1] = !check_rows;
	values[n++] = Int64GetDatum(rows.rows_b);
	nulls[n - 1] = !check_rows;
	nulls[n++] = rows.difference == NULL;
	if (rows.difference)
		values[n - 1] = CStringGetTextDatum(rows.difference);
	Assert(n == desc->natts);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
