/*
 * n_plus_one_tell.c
 *		What sessions tell the shared table of their loops: that one began, each
 *		further run, that it was none after all.
 *
 * A loop is told as soon as it is one, so that it is seen while its session is
 * idle or still at it.
 */
#include "postgres.h"

#include "lookup/n_plus_one_internal.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/guc.h"

/*
 * A longer loop is told in steps; a session that exits within one leaves less than
 * a step untold.
 */
#define EACH_RUN_UNTIL	1000
#define RUNS_A_STEP		64

/* The loop is now so long, for so many rows of its source. */
static void
tell(Streak *streak, const Totals *loop, int64 loops, uint64 source_rows, const LoopShape *shape)
{
	Told	   *told = &streak->told;
	LoopCounts	counts = {
		.loops = loops,
		.certain = told->certain ? loops : 0,
		.runs = (int64) loop->runs - told->counted.runs,
		.rows = (int64) (loop->rows - told->counted.rows),
		.source_rows = (int64) (source_rows - told->source_rows),
		.lost_ns = (int64) (loop->lost_ns - told->counted.lost_ns)
	};

	perfopt_loop_add(&told->place, &told->key, &counts, shape,
					 GetCurrentStatementStartTimestamp());
	told->counted = *loop;
	told->source_rows = source_rows;
}

void
perfopt_loop_begin(Level *level, Streak *streak, LoopKind kind, const LoopOrigin *origin,
				   const Totals *base, QueryDesc *query)
{
	Told	   *told = &streak->told;
	Totals		loop = perfopt_totals_since(&streak->totals, base);
	LoopShape	shape;

	memset(&told->place, 0, sizeof(told->place));
	memset(&told->counted, 0, sizeof(told->counted));
	told->source_rows = 0;
	told->is = true;
	told->certain = level->of_functions || streak->unit.block;
	told->source = told->middle = NONE;
	told->base = *base;
	told->began = level->statements;
	told->key.database = MyDatabaseId;
	told->key.role = streak->role;
	told->key.function = streak->function;
	told->key.kind = kind;
	told->key.source_queryid = origin->queryid;
	told->key.queryid = level->queryids[streak - level->streaks];
	strlcpy(told->key.application_name, application_name ? application_name : "", NAMEDATALEN);
	if (query)
		perfopt_loop_shape(query->plannedstmt, query->sourceText, &shape);
	else
	{
		memset(&shape, 0, sizeof(shape));
		shape.flags = SHAPE_OPAQUE;
	}
	if (level->of_functions)
	{
		strlcpy(shape.statement, streak->statement, LOOP_TEXT);
		strlcpy(shape.source_text, origin->statement, LOOP_TEXT);
	}
	tell(streak, &loop, 1, origin->rows, &shape);
}

/* Another run of a loop that was told. */
void
perfopt_loop_go_on(Streak *streak, uint64 source_rows)
{
	Totals		loop = perfopt_totals_since(&streak->totals, &streak->told.base);

	if (loop.runs <= EACH_RUN_UNTIL || loop.runs % RUNS_A_STEP == 0 || loop.runs == source_rows)
		tell(streak, &loop, 0, source_rows, NULL);
}

/* The loop is over, and is as long as it was at that time. */
void
perfopt_loop_end_at(Streak *streak, const Totals *end)
{
	Totals		loop = perfopt_totals_since(end, &streak->told.base);

	if (loop.runs != streak->told.counted.runs)
		tell(streak, &loop, 0, streak->told.source_rows, NULL);
	streak->told.is = false;
}

/* The loop, if there is one, is over: tell what was left to the next step. */
void
perfopt_loop_finish(Streak *streak)
{
	if (streak->told.is)
		perfopt_loop_end_at(streak, &streak->totals);
}

/* It was none. */
void
perfopt_loop_take_back(Streak *streak)
{
	Told	   *told = &streak->told;
	LoopCounts	counts = {
		.loops = -1,
		.certain = told->certain ? -1 : 0,
		.misses = 1,
		.runs = -(int64) told->counted.runs,
		.rows = -(int64) told->counted.rows,
		.source_rows = -(int64) told->source_rows,
		.lost_ns = -(int64) told->counted.lost_ns
	};

	perfopt_loop_add(&told->place, &told->key, &counts, NULL,
					 GetCurrentStatementStartTimestamp());
	told->is = false;
	told->missed = true;
}

/*
 * The source of a loop runs again, and since it last ran the statement has run,
 * too, but not in a loop.
 */
void
perfopt_loop_miss(Streak *streak)
{
	Told	   *told = &streak->told;
	LoopCounts	counts = {.misses = 1};

	if (!told->missed)
		perfopt_loop_add(&told->last_place, &told->last_key, &counts, NULL, 0);
	told->missed = false;
}
