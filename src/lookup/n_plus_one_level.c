/*
 * n_plus_one_level.c
 *		What a session remembers of the statements that it runs: streaks and
 *		sources, in two levels.  n_plus_one.c has the idea.
 */
#include "postgres.h"

#include "lookup/n_plus_one_internal.h"

#include "common/settings.h"

void
perfopt_level_forget(Level *level)
{
	for (int i = 0; i < level->num_streaks; i++)
		perfopt_loop_finish(&level->streaks[i]);
	level->num_streaks = 0;
	level->num_sources = 0;
	level->last = NONE;
}

/* ---------------------------------------------------------------------
 * Streaks
 */

void
perfopt_level_begin_streak(Level *level, Streak *streak, const Unit *unit)
{
	perfopt_loop_finish(streak);
	streak->unit = *unit;
	memset(&streak->totals, 0, sizeof(Totals));
	memset(streak->at, 0, sizeof(streak->at));
	memset(&streak->unwritten, 0, sizeof(Totals));
	memset(streak->recent, 0, sizeof(streak->recent));
	streak->next_recent = 0;
	streak->before[0] = streak->before[1] = NONE - 1;
	streak->after[0] = streak->after[1] = NONE - 1;
	streak->began = level->statements - 1;
	streak->irregular = level->irregular;
	streak->told.last_source = NONE;
	streak->told.not_before = 0;
}

/* Was that one of the last two neighbours?  It is now. */
static inline bool
note_neighbour(int *neighbours, int streak)
{
	if (streak == neighbours[0] || streak == neighbours[1])
		return true;
	neighbours[1] = neighbours[0];
	neighbours[0] = streak;
	return false;
}

/* Does it follow a statement that it followed lately, as in a loop? */
static inline void
note_order(Level *level, Streak *streak, int before)
{
	bool		regular = note_neighbour(streak->before, before);

	if (before != NONE)
		regular &= note_neighbour(level->streaks[before].after, streak - level->streaks);
	if (!regular)
		level->irregular++;
}

/*
 * The streak of the statement, if need be in place of the one idle longest.
 *
 * alone: the streak, if any, whose statement was the only one of the transaction
 * block just before.  Of INSERTs, such blocks are as good as none: that is how
 * objects are stored one by one, each with a commit.
 */
int
perfopt_level_streak(Level *level, uint64 queryid, Oid role, Oid function, int depth,
					 CmdType command, const Unit *unit, int alone)
{
	Streak	   *streak;
	int			idle = 0;

	for (int i = 0; i < level->num_streaks; i++)
	{
		streak = &level->streaks[i];
		if (level->queryids[i] != queryid || streak->role != role ||
			streak->function != function || streak->depth != depth)
			continue;
		if (i == alone && command == CMD_INSERT && unit->xact != streak->unit.xact)
		{
			streak->unit.block = false;
			streak->unit.xact = unit->xact;
			return i;
		}
		if (!perfopt_same_unit(&streak->unit, unit))
			perfopt_level_begin_streak(level, streak, unit);
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
	perfopt_level_begin_streak(level, streak, unit);

	/* a middle streak that goes takes nothing with it: its rows were told */
	for (int i = 0; i < level->num_streaks; i++)
		if (level->streaks[i].told.is && level->streaks[i].told.middle == idle)
			perfopt_loop_finish(&level->streaks[i]);
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

/* before: the streak of the statement before it. */
void
perfopt_level_count_run(Level *level, Streak *streak, uint64 rows, uint64 parameters, int before)
{
	streak->ran = level->statements;
	streak->totals.runs++;
	streak->totals.rows += rows;
	note_order(level, streak, before);
	if (is_novel(streak, parameters))
		streak->totals.novel++;
}

/* What this session has read from a table that it writes now was not the same. */
void
perfopt_level_note_write(Level *level, Oid relid)
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
				perfopt_loop_finish(streak);
			streak->unwritten = streak->totals;
			break;
		}
	}
}

/* ---------------------------------------------------------------------
 * Sources
 */

void
perfopt_level_add_source(Level *level, uint64 queryid, Oid role, int depth, const Unit *unit,
						 QueryDesc *query, bool open, uint64 rows)
{
	Source	   *source = NULL;
	int			number;
	bool		again;
	uint64		ran_before;

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
	ran_before = source->ran;
	source->queryid = queryid;
	source->role = role;
	source->depth = depth;
	source->unit = *unit;
	source->open = open ? query : NULL;
	source->rows = rows;
	source->statement[0] = '\0';
	if (level->of_functions)
		perfopt_loop_text(query, source->statement);
	source->ran = level->statements;
	source->irregular = level->irregular;

	/* what runs from now on is counted anew for this source */
	for (int i = 0; i < level->num_streaks; i++)
	{
		Streak	   *streak = &level->streaks[i];

		if (streak->told.is && streak->told.source == number)
		{
			perfopt_loop_finish(streak);
			streak->told.not_before = ran_before;
		}
		else if (streak->told.last_source == number)
		{
			if (!again)
				streak->told.last_source = NONE;
			else if (!unit->block && streak->totals.runs > streak->at[number].runs)
				perfopt_loop_miss(streak);
		}
		streak->at[number] = streak->totals;
	}
}

/* A cursor goes on. */
void
perfopt_level_add_rows(Level *level, uint64 queryid, QueryDesc *query, uint64 rows)
{
	for (int i = 0; i < level->num_sources; i++)
		if (level->sources[i].open == query && level->sources[i].queryid == queryid)
			level->sources[i].rows += rows;
}
