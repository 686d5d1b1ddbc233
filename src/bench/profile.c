/*
 * profile.c
 *		perfopt.profile(): where the time of one run goes.
 *
 * The statement runs once, with EXPLAIN ANALYZE's counters on.  They cost time
 * themselves: two readings of the clock each time a node is asked for a row,
 * which weighs most on nodes that hand on many rows one by one.
 */
#include "postgres.h"

#include "bench/profile_internal.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(perfopt_profile);

#define NUM_COLUMNS	23
#define NUM_COMMON	7			/* columns that every row has */

/* A row of the result. */
typedef struct Row
{
	double		self_ms;
	int			order;			/* among those with the same time */
	int64		permille;
	double		rest;			/* that rounding has left */
	Datum		values[NUM_COLUMNS];
	bool		nulls[NUM_COLUMNS];
} Row;

typedef struct Call
{
	BenchStatement statement;
	Profile		profile;
	MemoryContext context;
	QueryDesc  *queryDesc;
	Row		   *rows;
	int			num_rows;
} Call;

static Datum
text_array(List *words)
{
	ArrayBuildState *state = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	ListCell   *lc;

	foreach(lc, words)
		state = accumArrayResult(state, CStringGetTextDatum(lfirst(lc)), false,
								 TEXTOID, CurrentMemoryContext);
	return makeArrayResult(state, CurrentMemoryContext);
}

static Row *
add_row(Call *call, double self_ms, char *name, List *flags)
{
	Row		   *row = &call->rows[call->num_rows];

	row->order = call->num_rows++;
	row->self_ms = self_ms;
	for (int i = 0; i < NUM_COLUMNS; i++)
		row->nulls[i] = true;
	row->values[3] = CStringGetTextDatum(name);
	row->nulls[3] = false;
	if (call->profile.timing)
	{
		row->values[4] = Float8GetDatum(bench_ms(self_ms * 1e6));
		row->nulls[4] = false;
	}
	row->values[NUM_COLUMNS - 1] = text_array(flags);
	row->nulls[NUM_COLUMNS - 1] = false;
	return row;
}

static void
set_value(Row *row, int column, Datum value)
{
	row->values[column] = value;
	row->nulls[column] = false;
}

static double
two_digits(double value)
{
	return rint(value * 100) / 100;
}

static void
add_node(Call *call, int i)
{
	Profile    *profile = &call->profile;
	ProfileNode *node = &profile->nodes[i];
	PerfoptNodeCounter *counter = node->state->instrument;
	double		loops = counter->nloops;
	double		estimated = node->state->plan->plan_rows;
	double		actual = loops > 0 ? counter->ntuples / loops : 0;
	Row		   *row = add_row(call, node->self_ms, profile_node_name(node),
							  profile_node_flags(profile, i));

	set_value(row, 0, Int32GetDatum(i + 1));
	if (node->parent >= 0)
		set_value(row, 1, Int32GetDatum(node->parent + 1));
	set_value(row, 2, Int32GetDatum(node->depth));
	if (profile->timing)
	{
		set_value(row, 5, Float8GetDatum(bench_ms(node->total_ms * 1e6)));
		set_value(row, 7, Float8GetDatum(bench_ms(node->process_self_ms * 1e6)));
	}
	set_value(row, 8, Int64GetDatum((int64) loops));
	set_value(row, 9, Float8GetDatum(estimated));
	if (loops > 0)
	{
		set_value(row, 10, Float8GetDatum(two_digits(actual)));
		set_value(row, 11, Float8GetDatum(two_digits(Max(actual, 1) / Max(estimated, 1))));
	}
	set_value(row, 12, Int64GetDatum((int64) (counter->nfiltered1 + counter->nfiltered2)));
	set_value(row, 13, Int64GetDatum(node->buffers.shared_blks_hit));
	set_value(row, 14, Int64GetDatum(node->buffers.shared_blks_read));
	set_value(row, 15, Int64GetDatum(node->buffers.shared_blks_dirtied));
	set_value(row, 16, Int64GetDatum(node->buffers.shared_blks_written));
	set_value(row, 17, Int64GetDatum(node->buffers.local_blks_hit + node->buffers.local_blks_read));
	set_value(row, 18, Int64GetDatum(node->buffers.temp_blks_read));
	set_value(row, 19, Int64GetDatum(node->buffers.temp_blks_written));
	set_value(row, 20, Int64GetDatum(profile_memory_kb(node)));
	set_value(row, 21, Int64GetDatum(profile_spilled_kb(node)));
}

static int
compare_rests(const void *a, const void *b)
{
	double		x = (*(Row *const *) a)->rest;
	double		y = (*(Row *const *) b)->rest;

	return x > y ? -1 : x < y;
}

/* Percent with one digit, such that they add up to 100. */
static void
share_out(Call *call)
{
	Row		  **by_rest = palloc(sizeof(Row *) * call->num_rows);
	double		total = 0;
	int64		left = 1000;

	for (int i = 0; i < call->num_rows; i++)
		total += call->rows[i].self_ms;
	if (total <= 0)
		return;
	for (int i = 0; i < call->num_rows; i++)
	{
		Row		   *row = &call->rows[i];
		double		exact = row->self_ms / total * 1000;

		row->permille = (int64) floor(exact);
		row->rest = exact - row->permille;
		left -= row->permille;
		by_rest[i] = row;
	}
	qsort(by_rest, call->num_rows, sizeof(Row *), compare_rests);
	for (int i = 0; i < call->num_rows; i++)
	{
		Row		   *row = by_rest[i];

		if (left > 0)
		{
			row->permille++;
			left--;
		}
		set_value(row, 6, NumericGetDatum(int64_div_fast_to_numeric(row->permille, 1)));
	}
}

static int
compare_rows(const void *a, const void *b)
{
	const Row  *x = a;
	const Row  *y = b;

	if (x->self_ms != y->self_ms)
		return x->self_ms > y->self_ms ? -1 : 1;
	return x->order - y->order;
}

/* Called while the executor still has the plan. */
static void
look(QueryDesc *queryDesc, void *arg)
{
	Call	   *call = arg;
	Profile    *profile = &call->profile;
	MemoryContext old = MemoryContextSwitchTo(call->context);

	profile_collect(profile, queryDesc);
	profile_attribute(profile, queryDesc);
	call->rows = palloc0(sizeof(Row) * (profile->num + profile->num_triggers + 3));
	for (int i = 0; i < profile->num; i++)
		add_node(call, i);
	MemoryContextSwitchTo(old);
}

static void
add_others(Call *call)
{
	Profile    *profile = &call->profile;

	for (int i = 0; i < profile->num_triggers; i++)
	{
		ProfileTrigger *trigger = &profile->triggers[i];
		Row		   *row = add_row(call, trigger->ms, trigger->name, NIL);

		set_value(row, 8, Int64GetDatum((int64) trigger->calls));
	}
	if (profile->jit)
		add_row(call, profile->jit_ms, "JIT compilation", list_make1(profile->jit));
	add_row(call, profile->planning_ms, "Planning", NIL);
	add_row(call, profile->executor_ms, "Executor start and end", NIL);
}

Datum
perfopt_profile(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Call		call = {.statement = {.function = "perfopt.profile()"}};
	BenchLook	looking = {.look = look,.arg = &call};
	BenchRun	run;
	char	   *sql = bench_text_argument(fcinfo, 0, "sql");
	BenchPlanMode mode;

	InitMaterializedSRF(fcinfo, 0);
	call.context = CurrentMemoryContext;
	call.statement.params = bench_params(fcinfo, 1);
	call.statement.keep_changes = bench_bool_argument(fcinfo, 2, false);
	call.profile.timing = bench_bool_argument(fcinfo, 3, true);
	mode = bench_plan_mode(fcinfo, 4);
	looking.instrument = INSTRUMENT_ROWS | INSTRUMENT_BUFFERS |
		(call.profile.timing ? INSTRUMENT_TIMER : 0);

	bench_statement_prepare(&call.statement, sql, mode);
	PG_TRY();
	{
		bench_run(&call.statement, NULL, &looking, &run);
	}
	PG_FINALLY();
	{
		bench_statement_free(&call.statement);
	}
	PG_END_TRY();

	profile_finish(&call.profile, &looking);
	add_others(&call);
	if (call.profile.timing)
	{
		share_out(&call);
		qsort(call.rows, call.num_rows, sizeof(Row), compare_rows);
	}
	for (int i = 0; i < call.num_rows; i++)
		tuplestore_putvalues(result->setResult, result->setDesc,
							 call.rows[i].values, call.rows[i].nulls);
	return (Datum) 0;
}
