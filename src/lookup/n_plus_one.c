/*
 * n_plus_one.c
 *		Finds statements that are run again and again where one would do:
 *		look-ups for each row of a result (N+1), the same look-up over and over
 *		(cacheable), INSERTs of one row each (batchable).
 *
 * The monitor tells of each statement whose executor has run.  All that is
 * remembered is in this backend, of fixed size, for two levels: what the client
 * sends, and what functions run.
 *
 * A streak is a statement (query identifier, role, function, depth) that is run
 * repeatedly.  It counts runs, rows, time, and runs whose parameters are novel:
 * none of the last few runs had them.
 *
 * A source is a statement that returned perfopt.n_plus_one_min_runs rows or
 * more.  When a source runs, each streak notes where its counters are, so that
 * what has run since is known for each pair of streak and source.  Nothing has
 * to be decided in advance: loops may be nested (a statement of the inner loop's
 * streak is run between two of the outer one's, and its source is itself a
 * streak) and interleaved, and a streak may have begun long before.
 *
 * When as many runs as the source has rows have come since, or at least half of
 * them, that is a loop.  Half, because an application that keeps objects by
 * identity asks once for each of them, and a page may show only a part; no more
 * than a tenth over, because a statement that goes on was not run for the rows.
 * A loop is told to the shared table as soon as it is one, and taken back, and
 * counted as a miss, when it goes on too long.  A source with many runs that
 * each return a few rows (the middle one of three nested loops) is found as the
 * streak that it is: its rows since the outermost source ran are counted.
 *
 * What belongs to a loop
 *
 * A client's loop runs within one transaction block, or outside of any: what
 * different users send through one pooled connection, each in a block of its
 * own, is none.  Outside of a block a silence of perfopt.n_plus_one_max_gap ends
 * all loops.  A function's loop runs within one statement of the client.
 *
 * Time
 *
 * From the start of a client's statement to the start of its next one, round
 * trip and all, is lost by the former; a gap counts for perfopt.n_plus_one_max_gap
 * at most.  The last run's time is not known when it is told, which leaves out
 * one run, as the statement used instead would take one.  In functions it is the
 * time from the end of the statement before to the end of this one.
 *
 * Never looked at are statements of referential integrity, of other processes
 * than clients' backends, those without a query identifier, and those that read
 * no table and call no function but the system's.
 */
#include "postgres.h"

#include "lookup/n_plus_one_internal.h"

#include "access/xact.h"
#include "common/compat.h"
#include "common/settings.h"
#include "common/shmem.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "monitor/monitor.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "utils/portal.h"
#include "utils/timestamp.h"

#define NUM_STREAKS		16
#define NUM_SOURCES		8

/* Parameter sets of a streak that are remembered. */
#define NUM_RECENT		8

/*
 * Rows of the first fetch with which a client's portal is a source; one with
 * fewer was asked for no more than that.
 */
#define CURSOR_ROWS		10

/* A longer loop is told in steps. */
#define EACH_RUN_UNTIL	1000
#define RUNS_A_STEP		64

/* What a client's loop stays within. */
typedef struct Unit
{
	bool		block;			/* in a transaction block */
	LocalTransactionId xact;
} Unit;

typedef struct Totals
{
	uint32		runs;
	uint32		novel;			/* with parameters not used lately */
	uint32		irregular;		/* after a statement not run before it lately */
	uint64		rows;
	uint64		lost_ns;
} Totals;

typedef struct Source
{
	uint64		queryid;		/* 0: no source */
	Oid			role;
	int			depth;
	Unit		unit;
	QueryDesc  *open;			/* only compared: may have returned more */
	uint64		rows;
	uint64		ran;			/* when, as number of the statement */
	char text[	LOOP_TEXT];		/* in functions */
} Source;

/* What the shared table was told of a streak's loop. */
typedef struct Told
{
	bool		is;
	LoopKey		key;
	LoopPlace	place;
	int			source;			/* number of the source, or NONE */
	int			middle;			/* of the streak that is the source, or NONE */
	Totals		base;			/* where the loop begins */
	Totals		counted;		/* what was told */
	uint64		source_rows;	/* likewise */

	/* the last loop with a source, also when it is over */
	int			last_source;
	bool		missed;			/* it was none */
	LoopKey		last_key;
	LoopPlace	last_place;
} Told;

#define NONE	(-1)

typedef struct Streak
{
	Oid			role;
	Oid			function;
	int			depth;
	CmdType		command;
	Unit		unit;
	uint64		began;			/* number of the statement */
	uint64		ran;			/* likewise: the last one */
	Totals		totals;
	Totals		at[NUM_SOURCES];	/* when the source last ran */
	Totals		unwritten;		/* when one of its tables was last written */
	uint64		recent[NUM_RECENT];
	int			next_recent;
	int			before[2];		/* streaks that were run before it lately */
	PlanRelations relations;	/* known from the second run on */
	char text[	LOOP_TEXT];		/* in functions; likewise */
	Told		told;
} Streak;

typedef struct Level
{
	int			num_streaks;
	int			num_sources;	/* that were used at all */
	int			last;			/* streak of the statement before, or NONE */
	uint64		statements;
	TimestampTz message;		/* start of the client's last statement */
	uint64		last_ns;		/* how long that took */
	Unit		last_unit;
	instr_time	clock;			/* functions: end of the last statement */
	uint64		queryids[NUM_STREAKS];
	Streak		streaks[NUM_STREAKS];
	Source		sources[NUM_SOURCES];
} Level;

static Level client = {.last = NONE};
static Level functions = {.last = NONE};

/* ---------------------------------------------------------------------
 * Telling the shared table
 */

static void forget_at_exit(int code, Datum arg);

/* How much has come since base. */
static inline Totals
since(const Totals *totals, const Totals *base)
{
	Totals		result;

	result.runs = totals->runs - base->runs;
	result.novel = totals->novel - base->novel;
	result.irregular = totals->irregular - base->irregular;
	result.rows = totals->rows - base->rows;
	result.lost_ns = totals->lost_ns - base->lost_ns;
	return result;
}

static void
tell(Streak *streak, int64 loops, uint64 source_rows, const LoopShape *shape)
{
	Told	   *told = &streak->told;
	Totals		loop = since(&streak->totals, &told->base);
	LoopCounts	counts = {
		.loops = loops,
		.runs = (int64) loop.runs - told->counted.runs,
		.rows = (int64) (loop.rows - told->counted.rows),
		.source_rows = (int64) (source_rows - told->source_rows),
		.lost_ns = (int64) (loop.lost_ns - told->counted.lost_ns)
	};

	perfopt_loop_add(&told->place, &told->key, &counts, shape,
					 GetCurrentStatementStartTimestamp());
	told->counted = loop;
	told->source_rows = source_rows;
}

/* The loop is over: tell what was left to the next step. */
static void
finish_loop(Streak *streak)
{
	Told	   *told = &streak->told;

	if (told->is && since(&streak->totals, &told->base).runs != told->counted.runs)
		tell(streak, 0, told->source_rows, NULL);
	told->is = false;
}

/* It was none. */
static void
take_back_loop(Streak *streak)
{
	Told	   *told = &streak->told;
	LoopCounts	counts = {
		.loops = -1,
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
static void
count_miss(Streak *streak)
{
	Told	   *told = &streak->told;
	LoopCounts	counts = {.misses = 1};

	if (!told->missed)
		perfopt_loop_add(&told->last_place, &told->last_key, &counts, NULL, 0);
	told->missed = false;
}

static void
begin_loop(Level *level, Streak *streak, LoopKind kind, uint64 source_queryid,
		   const char *source_text, uint64 source_rows, const Totals *base, QueryDesc *query)
{
	static bool at_exit = false;
	Told	   *told = &streak->told;
	LoopShape	shape;

	if (!at_exit)
	{
		before_shmem_exit(forget_at_exit, (Datum) 0);
		at_exit = true;
	}
	memset(&told->place, 0, sizeof(told->place));
	memset(&told->counted, 0, sizeof(told->counted));
	told->source_rows = 0;
	told->is = true;
	told->source = told->middle = NONE;
	told->base = *base;
	told->key.database = MyDatabaseId;
	told->key.role = streak->role;
	told->key.function = streak->function;
	told->key.kind = kind;
	told->key.source_queryid = source_queryid;
	told->key.queryid = level->queryids[streak - level->streaks];
	if (query)
		perfopt_loop_shape(query->plannedstmt, query->sourceText, &shape);
	else
	{
		memset(&shape, 0, sizeof(shape));
		shape.flags = SHAPE_OPAQUE;
	}
	if (level == &functions)
	{
		strlcpy(shape.text, streak->text, LOOP_TEXT);
		strlcpy(shape.source_text, source_text, LOOP_TEXT);
	}
	tell(streak, 1, source_rows, &shape);
}

/* Another run of a loop that was told. */
static inline void
go_on(Streak *streak, uint64 source_rows)
{
	uint32		runs = streak->totals.runs - streak->told.base.runs;

	if (runs <= EACH_RUN_UNTIL || runs % RUNS_A_STEP == 0 || runs == source_rows)
		tell(streak, 0, source_rows, NULL);
}

static void
forget(Level *level)
{
	for (int i = 0; i < level->num_streaks; i++)
		finish_loop(&level->streaks[i]);
	level->num_streaks = 0;
	level->num_sources = 0;
	level->last = NONE;
}

static void
forget_all(void)
{
	forget(&client);
	forget(&functions);
}

static void
forget_at_exit(int code, Datum arg)
{
	forget_all();
}

/* ---------------------------------------------------------------------
 * Streaks
 */

static inline bool
same_unit(const Unit *a, const Unit *b)
{
	return a->xact == b->xact || (!a->block && !b->block);
}

static void
begin_streak(Level *level, Streak *streak, const Unit *unit)
{
	finish_loop(streak);
	streak->unit = *unit;
	streak->began = level->statements;
	memset(&streak->totals, 0, sizeof(Totals));
	memset(streak->at, 0, sizeof(streak->at));
	memset(&streak->unwritten, 0, sizeof(Totals));
	memset(streak->recent, 0, sizeof(streak->recent));
	streak->next_recent = 0;
	streak->before[0] = streak->before[1] = NONE - 1;
	streak->told.last_source = NONE;
}

/* Is it run after the same statements as before, as in a loop? */
static inline void
note_before(Streak *streak, int before)
{
	if (before == streak->before[0] || before == streak->before[1])
		return;
	streak->totals.irregular++;
	streak->before[1] = streak->before[0];
	streak->before[0] = before;
}

/* The streak of the statement, if need be in place of the one idle longest. */
static inline int
find_streak(Level *level, uint64 queryid, Oid role, Oid function, int depth,
			CmdType command, const Unit *unit)
{
	Streak	   *streak;
	int			idle = 0;

	for (int i = 0; i < level->num_streaks; i++)
	{
		streak = &level->streaks[i];
		if (level->queryids[i] != queryid || streak->role != role ||
			streak->function != function || streak->depth != depth)
			continue;
		if (!same_unit(&streak->unit, unit))
			begin_streak(level, streak, unit);
		streak->unit = *unit;
		return i;
	}

	if (level->num_streaks < NUM_STREAKS)
	{
		idle = level->num_streaks++;
		level->streaks[idle].told.is = false;
	}
	else
		for (int i = 1; i < NUM_STREAKS; i++)
			if (level->streaks[i].ran < level->streaks[idle].ran)
				idle = i;
	streak = &level->streaks[idle];
	begin_streak(level, streak, unit);

	/* a middle streak that goes takes nothing with it: its rows were told */
	for (int i = 0; i < level->num_streaks; i++)
		if (level->streaks[i].told.is && level->streaks[i].told.middle == idle)
			finish_loop(&level->streaks[i]);
	level->queryids[idle] = queryid;
	streak->role = role;
	streak->function = function;
	streak->depth = depth;
	streak->command = command;
	return idle;
}

static inline bool
is_novel(Streak *streak, uint64 parameters)
{
	parameters |= 1;			/* 0 means none */
	for (int i = 0; i < NUM_RECENT; i++)
		if (streak->recent[i] == parameters)
			return false;
	streak->recent[streak->next_recent] = parameters;
	streak->next_recent = (streak->next_recent + 1) % NUM_RECENT;
	return true;
}

/* ---------------------------------------------------------------------
 * Sources
 */

static void
add_source(Level *level, uint64 queryid, Oid role, int depth, const Unit *unit,
		   QueryDesc *query, bool open, uint64 rows)
{
	Source	   *source = NULL;
	int			number;
	bool		again;

	for (int i = 0; i < level->num_sources && source == NULL; i++)
		if (level->sources[i].queryid == queryid && level->sources[i].role == role &&
			level->sources[i].depth == depth)
			source = &level->sources[i];
	if (source == NULL && level->num_sources < NUM_SOURCES)
		source = &level->sources[level->num_sources++];
	if (source == NULL)
	{
		source = &level->sources[0];
		for (int i = 1; i < NUM_SOURCES; i++)
			if (level->sources[i].ran < source->ran)
				source = &level->sources[i];
	}
	number = source - level->sources;
	again = source->queryid == queryid;
	source->queryid = queryid;
	source->role = role;
	source->depth = depth;
	source->unit = *unit;
	source->open = open ? query : NULL;
	source->rows = rows;
	source->text[0] = '\0';
	if (depth > 0)
		perfopt_loop_text(query, source->text);
	source->ran = level->statements;

	/* what runs from now on is counted anew for this source */
	for (int i = 0; i < level->num_streaks; i++)
	{
		Streak	   *streak = &level->streaks[i];

		if (streak->told.is && streak->told.source == number)
			finish_loop(streak);
		else if (streak->told.last_source == number)
		{
			if (!again)
				streak->told.last_source = NONE;
			else if (!unit->block && streak->totals.runs > streak->at[number].runs)
				count_miss(streak);
		}
		streak->at[number] = streak->totals;
	}
}

/* A cursor goes on. */
static void
add_rows_of_cursor(Level *level, uint64 queryid, QueryDesc *query, uint64 rows)
{
	for (int i = 0; i < level->num_sources; i++)
		if (level->sources[i].open == query && level->sources[i].queryid == queryid)
			level->sources[i].rows += rows;
}

/* ---------------------------------------------------------------------
 * Is it a loop?
 */

typedef enum Fit
{
	FIT_NOT_YET,
	FIT_LOOP,
	FIT_TOO_MANY
} Fit;

static inline Fit
fit(uint64 runs, uint64 source_rows)
{
	if (runs > source_rows + source_rows / 10 + 1)
		return FIT_TOO_MANY;
	if (runs < perfopt_n_plus_one_min_runs || runs * 2 < source_rows)
		return FIT_NOT_YET;
	return FIT_LOOP;
}

/* Do parameters differ?  Otherwise the same is asked again and again. */
static inline bool
is_distinct(const Totals *loop)
{
	return (uint64) loop->novel * 4 > loop->runs;
}

/* Such a statement's rows are those of its last run. */
static bool
is_source(Level *level, uint64 queryid)
{
	for (int i = 0; i < level->num_sources; i++)
		if (level->sources[i].queryid == queryid)
			return true;
	return false;
}

/*
 * Outside of a transaction block, what runs may be other people's requests.
 * These come in no order; in a loop, a statement comes after the same one or
 * two, but for the beginning and what depends on the row.
 */
static bool
is_in_order(Level *level, Streak *streak, const Totals *loop)
{
	return level != &client || streak->unit.block ||
		loop->irregular <= 3 + loop->runs / 5;
}

/*
 * And of the statements since then, as many as belong to no loop, and are not
 * run as often as this one, must not be more than its runs.  number: since that
 * source ran; NONE: since the streak began.
 */
static bool
is_on_its_own(Level *level, Streak *streak, int number, uint32 runs)
{
	uint64		foreign;

	if (level != &client || streak->unit.block)
		return true;
	foreign = level->statements - runs -
		(number == NONE ? streak->began - 1 : level->sources[number].ran);
	for (int i = 0; i < level->num_streaks; i++)
	{
		Streak	   *other = &level->streaks[i];
		uint32		others = other->totals.runs;

		if (other == streak)
			continue;
		if (number != NONE)
			others -= other->at[number].runs;
		else if (other->began + 3 < streak->began)
			continue;
		if (other->told.is || (others <= runs + runs / 10 + 1 && runs <= others + others / 10 + 1))
			foreign -= Min(others, foreign);
	}
	return foreign <= runs;
}

/*
 * Too many for the source itself: is there a loop between, whose statement's
 * rows they are run for?
 */
static int
find_middle(Level *level, Streak *streak, int number, uint32 runs)
{
	for (int i = 0; i < level->num_streaks; i++)
	{
		Streak	   *middle = &level->streaks[i];
		Totals		loop;

		if (middle == streak || middle->command != CMD_SELECT ||
			middle->depth > streak->depth || !same_unit(&middle->unit, &streak->unit) ||
			is_source(level, level->queryids[i]))
			continue;
		loop = since(&middle->totals, &middle->at[number]);
		if (loop.runs >= 2 && loop.rows >= perfopt_n_plus_one_min_runs &&
			loop.rows * 2 >= (uint64) loop.runs * 3 && fit(runs, loop.rows) == FIT_LOOP)
			return i;
	}
	return NONE;
}

static void
look_for_source(Level *level, Streak *streak, QueryDesc *query)
{
	int			best = NONE;
	int			middle = NONE;

	for (int i = 0; i < level->num_sources; i++)
	{
		Source	   *source = &level->sources[i];
		Totals		loop = since(&streak->totals, &streak->at[i]);
		Fit			fits = fit(loop.runs, source->rows);

		if (loop.runs < perfopt_n_plus_one_min_runs || !is_distinct(&loop) ||
			!same_unit(&source->unit, &streak->unit) || source->depth > streak->depth ||
			(level == &client && source->role != streak->role) ||
			source->queryid == level->queryids[streak - level->streaks])
			continue;
		if (fits != FIT_NOT_YET && !(is_in_order(level, streak, &loop) &&
									 is_on_its_own(level, streak, i, loop.runs)))
			continue;
		if (fits == FIT_LOOP && (best == NONE || middle != NONE ||
								 source->ran > level->sources[best].ran))
		{
			best = i;
			middle = NONE;
		}
		else if (fits == FIT_TOO_MANY && best == NONE)
		{
			middle = find_middle(level, streak, i, loop.runs);
			if (middle != NONE)
				best = i;
		}
	}
	if (best == NONE)
		return;
	if (middle == NONE)
		begin_loop(level, streak, LOOP_N_PLUS_ONE, level->sources[best].queryid,
				   level->sources[best].text, level->sources[best].rows, &streak->at[best], query);
	else
		begin_loop(level, streak, LOOP_N_PLUS_ONE, level->queryids[middle],
				   level->streaks[middle].text,
				   level->streaks[middle].totals.rows - level->streaks[middle].at[best].rows,
				   &streak->at[best], query);
	streak->told.source = best;
	streak->told.middle = middle;
	streak->told.last_source = best;
	streak->told.last_key = streak->told.key;
	streak->told.last_place = streak->told.place;
	streak->told.missed = false;
}

/* Another run of a loop with a source.  False: it is none any more. */
static bool
goes_on(Level *level, Streak *streak)
{
	Told	   *told = &streak->told;
	Totals		loop = since(&streak->totals, &told->base);
	uint64		source_rows;

	if (told->middle == NONE)
		source_rows = level->sources[told->source].rows;
	else
	{
		Streak	   *middle = &level->streaks[told->middle];

		source_rows = since(&middle->totals, &middle->at[told->source]).rows;
	}
	if (fit(loop.runs, source_rows) == FIT_TOO_MANY || !is_distinct(&loop) ||
		!is_in_order(level, streak, &loop))
		return false;
	go_on(streak, source_rows);
	return true;
}

static bool
is_cacheable(const Streak *streak, const Totals *loop)
{
	return streak->command == CMD_SELECT && streak->relations.reads &&
		!streak->relations.locks && streak->relations.count <= PLAN_RELATIONS &&
		loop->runs >= perfopt_n_plus_one_min_runs && !is_distinct(loop);
}

/* The streak has just run. */
static void
judge(Level *level, Streak *streak, QueryDesc *query)
{
	Totals		loop;

	if (streak->relations.single_insert)
	{
		if (!is_in_order(level, streak, &streak->totals))
		{
			if (streak->told.is)
				take_back_loop(streak);
		}
		else if (streak->told.is)
			go_on(streak, 0);
		else if (is_on_its_own(level, streak, NONE, streak->totals.runs))
		{
			static const Totals nothing = {0};

			begin_loop(level, streak, LOOP_INSERTS, 0, "", 0, &nothing, query);
		}
		return;
	}

	if (streak->told.is && streak->told.source != NONE)
	{
		if (goes_on(level, streak))
			return;
		take_back_loop(streak);
	}
	loop = since(&streak->totals, &streak->unwritten);
	if (streak->told.is)
	{
		if (is_cacheable(streak, &loop))
			go_on(streak, 0);
		else
			take_back_loop(streak);
	}
	if (!streak->told.is && level->num_sources > 0 &&
		(streak->relations.reads || (streak->relations.calls && level == &client)))
		look_for_source(level, streak, query);
	if (!streak->told.is && is_cacheable(streak, &loop))
		begin_loop(level, streak, LOOP_CACHEABLE, 0, "", 0, &streak->unwritten, query);
}

/*
 * A client's statement has returned rows, or changed them, and functions or
 * triggers ran a statement of their own for each of them.
 */
static void
judge_functions(uint64 queryid, uint64 rows)
{
	for (int i = 0; i < functions.num_streaks; i++)
	{
		Streak	   *streak = &functions.streaks[i];
		static const Totals nothing = {0};

		if (streak->told.is || !streak->relations.reads || streak->relations.single_insert ||
			!is_distinct(&streak->totals) || fit(streak->totals.runs, rows) != FIT_LOOP)
			continue;
		begin_loop(&functions, streak, LOOP_N_PLUS_ONE, queryid, "", rows, &nothing, NULL);
		begin_streak(&functions, streak, &streak->unit);
	}
}

/* What this session has read from a table that it writes now was not the same. */
static void
note_write(Level *level, Oid relid)
{
	for (int i = 0; i < level->num_streaks; i++)
	{
		Streak	   *streak = &level->streaks[i];

		if (streak->command != CMD_SELECT || streak->totals.runs < 2)
			continue;
		for (int r = 0; r < Min(streak->relations.count, PLAN_RELATIONS); r++)
		{
			if (streak->relations.relids[r] != relid)
				continue;
			if (streak->told.is && streak->told.key.kind == LOOP_CACHEABLE)
				finish_loop(streak);
			streak->unwritten = streak->totals;
			break;
		}
	}
}

/* ---------------------------------------------------------------------
 * The monitor tells of a statement
 */

/* Time since the statement before; a silence ends what went on. */
static void
take_time_of_client(const Unit *unit, QueryDesc *query)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	int64		max_gap = (int64) perfopt_n_plus_one_max_gap * 1000;
	int64		gap = now - client.message;

	if (gap > max_gap && !(unit->block && unit->xact == client.last_unit.xact) &&
		gap - (int64) (client.last_ns / 1000) > max_gap)
		forget(&client);
	else if (client.last != NONE && gap > 0)
		client.streaks[client.last].totals.lost_ns += Min(gap, max_gap) * 1000;
	client.message = now;
	client.last_unit = *unit;
	client.last_ns = perfopt_query_has_timer(query) ? perfopt_query_timer_read_running(query) : 0;
}

static uint64
take_time_of_function(void)
{
	instr_time	now;
	instr_time	elapsed;

	INSTR_TIME_SET_CURRENT(now);
	elapsed = now;
	INSTR_TIME_SUBTRACT(elapsed, functions.clock);
	functions.clock = now;
	return functions.last == NONE ? 0 : perfopt_instr_ns(elapsed);
}

/* Functions' statements belong to one of the client's. */
static void
begin_functions(void)
{
	TimestampTz message = GetCurrentStatementStartTimestamp();

	if (functions.message != message)
		forget(&functions);
	functions.message = message;
}

static void
statement_ran(QueryDesc *query, bool again, bool more, int nesting_level, bool in_executor,
			  uint64 enclosing)
{
	PlannedStmt *plan = query->plannedstmt;
	uint64		queryid = plan->queryId;
	CmdType		command = plan->commandType;
	uint64		rows = query->estate->es_processed;
	Oid			role = GetUserId();
	Oid			function = FUNCTION_NONE;
	Unit		unit = {0};
	Level	   *level = &client;
	Streak	   *streak;
	uint64		took = 0;
	int			depth = 0;
	int			before;

	if (!perfopt_detect_n_plus_one || MyBackendType != B_BACKEND)
		return;
	if (unlikely(nesting_level > 0))
	{
		/* nobody else than referential integrity does that */
		if (InNoForceRLSOperation())
			return;
		function = perfopt_loop_function(in_executor);

		/* a utility command's: FETCH is a client's statement, others are none */
		if (function == FUNCTION_NONE && query->dest->mydest != DestTuplestore)
			return;
		if (function != FUNCTION_NONE)
		{
			level = &functions;
			depth = nesting_level;
		}
		else if (queryid == 0)
			queryid = enclosing;	/* a cursor's query may have none */
	}
	if (queryid == 0)
		return;
	before = level->last;
	if (level == &client)
	{
		unit.xact = perfopt_my_local_xid();
		unit.block = IsTransactionBlock();
		take_time_of_client(&unit, query);
		client.last = NONE;
	}
	else
	{
		begin_functions();
		took = take_time_of_function();
	}
	if (unlikely(again))
	{
		add_rows_of_cursor(level, queryid, query, rows);
		return;
	}
	level->statements++;

	level->last = find_streak(level, queryid, role, function, depth, command, &unit);
	streak = &level->streaks[level->last];
	streak->ran = level->statements;
	streak->totals.runs++;
	streak->totals.rows += rows;
	note_before(streak, before);
	if (is_novel(streak, perfopt_loop_parameters(query)))
		streak->totals.novel++;
	if (streak->totals.runs > 1)
		streak->totals.lost_ns += took;
	if (streak->totals.runs == 2)
	{
		perfopt_loop_relations(plan, &streak->relations);
		if (level == &functions)
			perfopt_loop_text(query, streak->text);
	}
	if (streak->totals.runs >= perfopt_n_plus_one_min_runs)
		judge(level, streak, query);

	if (command != CMD_SELECT)
	{
		Oid			written = perfopt_loop_written(plan);

		note_write(&client, written);
		note_write(&functions, written);
	}
	more = more && rows > 0 && (nesting_level > 0 || rows >= CURSOR_ROWS) &&
		ActivePortal && ActivePortal->queryDesc == query;
	if (more || rows >= perfopt_n_plus_one_min_runs)
	{
		if (command == CMD_SELECT || plan->hasReturning)
			add_source(level, queryid, role, depth, &unit, query, more, rows);
		if (level == &client)
		{
			if (functions.message == client.message && functions.num_streaks > 0)
				judge_functions(queryid, rows);
			if (command != CMD_SELECT)
			{
				/* AFTER triggers are still to come */
				Unit		none = {0};

				begin_functions();
				add_source(&functions, queryid, role, 0, &none, query, false, rows);
			}
		}
	}
}

void
perfopt_n_plus_one_init(void)
{
	static const PerfoptStatementObserver observer = {
		.ran = statement_ran,
		.discard_all = forget_all
	};

	perfopt_loop_table_init();
	perfopt_loop_function_init();
	perfopt_loop_advice_init();
	perfopt_monitor_observe(&observer);
}
