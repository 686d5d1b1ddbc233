/*
 * n_plus_one_judge.c
 *		Is what runs again and again a loop?
 *
 * All rules are here; each is asked of a streak that has just run, about what
 * has come since a source ran.
 */
#include "postgres.h"

#include "lookup/n_plus_one_internal.h"

#include "common/settings.h"

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

/* As many runs as rows, or nearly. */
static inline bool
is_complete(uint64 runs, uint64 source_rows)
{
	return runs * 10 >= source_rows * 9;
}

/*
 * Outside of a transaction block, what runs may be other people's requests.
 * These come in no order; in a loop, each statement follows one of the same one or
 * two, but for the beginning and what depends on the row.  All statements count
 * that have run since: a request's own ones are in order.
 */
static bool
is_in_order(Level *level, Streak *streak, uint64 ran, uint64 irregular)
{
	return level->of_functions || streak->unit.block ||
		level->irregular - irregular <= 3 + (level->statements - ran) / 8;
}

/*
 * Fewer runs than rows are a loop only if they directly follow the source: what
 * is run between must be run about as often, as in a loop with two look-ups.
 */
static bool
follows_source(Level *level, Streak *streak, int number, uint32 runs)
{
	uint64		between = level->statements - level->sources[number].ran;

	if (is_complete(runs, level->sources[number].rows))
		return true;
	for (int i = 0; i < level->num_streaks; i++)
	{
		uint32		others = level->streaks[i].totals.runs - level->streaks[i].at[number].runs;

		if ((uint64) others * 2 >= runs)
			between -= Min(others, between);
	}
	return between == 0;
}

/*
 * Too many for the source itself: is there a loop between, whose statement's
 * rows they are run for?  One whose runs give one row each is none: that is
 * another look-up for the same.
 */
static int
find_middle(Level *level, Streak *streak, int number, uint32 runs)
{
	for (int i = 0; i < level->num_streaks; i++)
	{
		Streak	   *middle = &level->streaks[i];
		Totals		loop;

		if (middle == streak || middle->command != CMD_SELECT ||
			!perfopt_same_unit(&middle->unit, &streak->unit) ||
			is_source(level, level->queryids[i]))
			continue;
		loop = perfopt_totals_since(&middle->totals, &middle->at[number]);
		if (loop.rows * 2 >= (uint64) loop.runs * 3 && loop.rows >= perfopt_n_plus_one_min_runs &&
			fit(runs, loop.rows) == FIT_LOOP)
			return i;
	}
	return NONE;
}

/* Of the source itself, or of the loop between. */
static uint64
rows_of_source(Level *level, int number, int middle)
{
	if (middle == NONE)
		return level->sources[number].rows;
	return level->streaks[middle].totals.rows - level->streaks[middle].at[number].rows;
}

static void
look_for_source(Level *level, Streak *streak, QueryDesc *query)
{
	int			best = NONE;
	int			middle = NONE;
	LoopOrigin	origin;

	for (int i = 0; i < level->num_sources; i++)
	{
		Source	   *source = &level->sources[i];
		Totals		loop = perfopt_totals_since(&streak->totals, &streak->at[i]);
		Fit			fits = fit(loop.runs, source->rows);

		if (loop.runs < perfopt_n_plus_one_min_runs || !is_distinct(&loop) ||
			source->ran < streak->told.not_before ||
			!perfopt_same_unit(&source->unit, &streak->unit) ||
			(!level->of_functions && source->role != streak->role) ||
			source->queryid == level->queryids[streak - level->streaks])
			continue;
		if (!is_in_order(level, streak, source->ran, source->irregular))
			continue;
		if (fits == FIT_LOOP && !follows_source(level, streak, i, loop.runs))
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
	{
		origin.queryid = level->sources[best].queryid;
		origin.statement = level->sources[best].statement;
	}
	else
	{
		origin.queryid = level->queryids[middle];
		origin.statement = level->streaks[middle].statement;
	}
	origin.rows = rows_of_source(level, best, middle);
	perfopt_loop_begin(level, streak, LOOP_N_PLUS_ONE, &origin, &streak->at[best], query);
	streak->told.source = best;
	streak->told.middle = middle;
	streak->told.last_source = best;
	streak->told.last_key = streak->told.key;
	streak->told.last_place = streak->told.place;
	streak->told.missed = false;
}

/*
 * Where another source ran when the loop was complete, and more than two runs have
 * followed, the loop has ended there, and what has run since is for that one.
 */
static bool
ends_at_newer_source(Level *level, Streak *streak, uint64 source_rows)
{
	Told	   *told = &streak->told;

	for (int i = 0; i < level->num_sources; i++)
	{
		if (level->sources[i].ran <= told->began ||
			streak->totals.runs - streak->at[i].runs < 3 ||
			fit(streak->at[i].runs - told->base.runs, source_rows) != FIT_LOOP)
			continue;
		told->not_before = level->sources[told->source].ran;
		perfopt_loop_end_at(streak, &streak->at[i]);
		return true;
	}
	return false;
}

/* Another run of a loop with a source: it goes on, has ended, or is none any more. */
static void
continue_loop(Level *level, Streak *streak)
{
	Told	   *told = &streak->told;
	Totals		loop = perfopt_totals_since(&streak->totals, &told->base);
	Source	   *source = &level->sources[told->source];
	uint64		source_rows = rows_of_source(level, told->source, told->middle);

	if (!is_in_order(level, streak, source->ran, source->irregular) &&
		is_complete(told->counted.runs, told->source_rows))
	{
		/* it was one until then: what follows later is something else */
		told->is = false;
		told->last_source = NONE;
	}
	else if (!is_distinct(&loop) ||
			 !is_in_order(level, streak, source->ran, source->irregular))
		perfopt_loop_take_back(streak);
	else if (fit(loop.runs, source_rows) != FIT_TOO_MANY)
		perfopt_loop_go_on(streak, source_rows);
	else if (!ends_at_newer_source(level, streak, source_rows))
		perfopt_loop_take_back(streak);
}

static bool
is_cacheable(const Streak *streak, const Totals *loop)
{
	return streak->command == CMD_SELECT && streak->relations.reads &&
		!streak->relations.locks && streak->relations.count <= PLAN_RELATIONS &&
		loop->runs >= perfopt_n_plus_one_min_runs && !is_distinct(loop);
}

static const LoopOrigin no_origin = {.statement = ""};
static const Totals nothing = {0};

static void
judge_insert(Level *level, Streak *streak, QueryDesc *query)
{
	bool		in_order = is_in_order(level, streak, streak->began, streak->irregular);

	if (streak->told.is && in_order)
		perfopt_loop_go_on(streak, 0);
	else if (streak->told.is)
		perfopt_loop_take_back(streak);
	else if (in_order)
		perfopt_loop_begin(level, streak, LOOP_INSERTS, &no_origin, &nothing, query);
}

/* The streak has just run. */
void
perfopt_loop_judge(Level *level, Streak *streak, QueryDesc *query)
{
	Totals		loop;

	if (streak->relations.single_insert)
	{
		judge_insert(level, streak, query);
		return;
	}
	if (streak->told.is && streak->told.source != NONE)
		continue_loop(level, streak);
	else if (streak->told.is)
	{
		loop = perfopt_totals_since(&streak->totals, &streak->unwritten);
		if (is_cacheable(streak, &loop))
			perfopt_loop_go_on(streak, 0);
		else
			perfopt_loop_take_back(streak);
	}
	if (streak->told.is)
		return;

	/* reading on page by page is no loop over the rows of the first page */
	if (!streak->relations.pages &&
		(streak->relations.reads || (streak->relations.calls && !level->of_functions)))
		look_for_source(level, streak, query);
	loop = perfopt_totals_since(&streak->totals, &streak->unwritten);
	if (!streak->told.is && is_cacheable(streak, &loop))
		perfopt_loop_begin(level, streak, LOOP_CACHEABLE, &no_origin, &streak->unwritten, query);
}

/*
 * A client's statement has returned rows, or changed them, and functions or
 * triggers ran a statement of their own for each of them.
 */
void
perfopt_loop_judge_functions(Level *functions, uint64 queryid, uint64 rows)
{
	LoopOrigin	origin = {.queryid = queryid,.statement = "",.rows = rows};

	for (int i = 0; i < functions->num_streaks; i++)
	{
		Streak	   *streak = &functions->streaks[i];

		if (streak->told.is || !streak->relations.reads || streak->relations.single_insert ||
			!is_distinct(&streak->totals) || fit(streak->totals.runs, rows) != FIT_LOOP)
			continue;
		perfopt_loop_begin(functions, streak, LOOP_N_PLUS_ONE, &origin, &nothing, NULL);
		perfopt_level_begin_streak(functions, streak, &streak->unit);
	}
}
