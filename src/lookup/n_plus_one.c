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
 * identity asks once for each of them, and a page may show only a part, if the
 * runs directly follow their source (n_plus_one_judge.c has all rules); no more
 * than a tenth over, because a statement that goes on was not run for the rows.
 * A loop is told to the shared table as soon as it is one, and taken back, and
 * counted as a miss, when it goes on too long; unless another source ran when it
 * was complete, whose loop is what follows.  A source with many runs that
 * each return a few rows (the middle one of three nested loops) is found as the
 * streak that it is: its rows since the outermost source ran are counted.
 *
 * What belongs to a loop
 *
 * A client's loop runs within one transaction block, or outside of any: what
 * different users send through one pooled connection, each in a block of its
 * own, is none; but for INSERTs, since a client that stores objects one by one
 * does that, too.  Outside of a block a silence of perfopt.n_plus_one_max_gap ends
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
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "utils/portal.h"
#include "utils/timestamp.h"

/*
 * Rows of the first fetch with which a client's portal is a source; one with
 * fewer was asked for no more than that.
 */
#define CURSOR_ROWS		10

static Level client = {.last = NONE};
static Level functions = {.last = NONE,.of_functions = true};

static void
forget_all(void)
{
	perfopt_level_forget(&client);
	perfopt_level_forget(&functions);
}

/*
 * The unit of a client's statement.  A transaction that began outside of a block
 * stays there: a pipeline's becomes a block without a BEGIN.
 */
static Unit
unit_of_client(void)
{
	Unit		unit = {.block = IsTransactionBlock(),.xact = perfopt_my_local_xid()};

	if (unit.xact == client.last_unit.xact && !client.last_unit.block)
		unit.block = false;
	return unit;
}

/*
 * Takes the time since the statement before; a silence ends what went on.
 * Returns the streak of that statement if it had a block for itself alone, or
 * NONE.
 */
static int
enter_unit(const Unit *unit, QueryDesc *query)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	int64		max_gap = (int64) perfopt_n_plus_one_max_gap * 1000;
	int64		gap = now - client.message;
	bool		same = unit->xact == client.last_unit.xact;
	int			alone;

	if (gap > max_gap && !(unit->block && same) &&
		gap - (int64) (client.last_ns / 1000) > max_gap)
		perfopt_level_forget(&client);
	else if (client.last != NONE && gap > 0)
		client.streaks[client.last].totals.lost_ns += Min(gap, max_gap) * 1000;
	alone = !same && client.last_unit.block && client.in_last_unit == 1 ? client.last : NONE;
	client.in_last_unit = same ? client.in_last_unit + 1 : 1;
	client.message = now;
	client.last_unit = *unit;
	client.last_ns = perfopt_query_has_timer(query) ? perfopt_query_timer_read_running(query) : 0;
	return alone;
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
		perfopt_level_forget(&functions);
	functions.message = message;
}

/*
 * Notes a source of rows.  What functions or triggers have run for each of a
 * client's rows is known now; AFTER triggers are still to come.
 */
static void
note_source(Level *level, uint64 queryid, Oid role, int depth, const Unit *unit,
			QueryDesc *query, bool more, uint64 rows)
{
	CmdType		command = query->plannedstmt->commandType;

	if (command == CMD_SELECT || query->plannedstmt->hasReturning)
		perfopt_level_add_source(level, queryid, role, depth, unit, query, more, rows);
	if (level != &client)
		return;
	if (functions.message == client.message && functions.num_streaks > 0)
		perfopt_loop_judge_functions(&functions, queryid, rows);
	if (command != CMD_SELECT)
	{
		Unit		none = {0};

		begin_functions();
		perfopt_level_add_source(&functions, queryid, role, 0, &none, query, false, rows);
	}
}

static void
count_run(Level *level, Streak *streak, QueryDesc *query, uint64 rows, int before)
{
	perfopt_level_count_run(level, streak, rows, perfopt_loop_parameters(query), before);
	if (streak->totals.runs == 2)
	{
		perfopt_loop_relations(query->plannedstmt, &streak->relations);
		if (level == &functions)
			perfopt_loop_text(query, streak->statement);
	}
	if (streak->totals.runs >= perfopt_n_plus_one_min_runs)
		perfopt_loop_judge(level, streak, query);
}

static void
statement_ran(QueryDesc *query, bool again, bool more, int nesting_level, bool in_executor,
			  uint64 enclosing)
{
	CmdType		command = query->plannedstmt->commandType;
	uint64		queryid = query->plannedstmt->queryId;
	uint64		rows = query->estate->es_processed;
	Oid			role = GetUserId();
	Oid			function;
	Unit		unit = {0};
	Level	   *level = &client;
	Streak	   *streak;
	uint64		took = 0;
	int			depth = 0;
	int			before;
	int			alone = NONE;

	if (!perfopt_detect_n_plus_one || MyBackendType != B_BACKEND)
		return;

	/*
	 * Nobody but referential integrity does that; where its checks are
	 * deferred, no other statement is around them, nor around triggers'.
	 */
	if (unlikely(InNoForceRLSOperation()))
		return;
	function = perfopt_loop_function(in_executor);
	if (function != FUNCTION_NONE)
	{
		level = &functions;
		depth = nesting_level;
	}
	else if (nesting_level > 0)
	{
		/* a utility command's: FETCH is a client's statement, others are none */
		if (query->dest->mydest != DestTuplestore)
			return;
		if (queryid == 0)
			queryid = enclosing;	/* a cursor's query may have none */
	}
	if (queryid == 0)
		return;

	before = level->last;
	if (level == &client)
	{
		unit = unit_of_client();
		alone = enter_unit(&unit, query);
		client.last = NONE;
	}
	else
	{
		begin_functions();
		took = take_time_of_function();
	}
	if (unlikely(again))
	{
		perfopt_level_add_rows(level, queryid, query, rows);
		return;
	}
	level->statements++;

	level->last = perfopt_level_streak(level, queryid, role, function, depth, command, &unit, alone);
	streak = &level->streaks[level->last];
	if (streak->totals.runs > 0)
		streak->totals.lost_ns += took;
	count_run(level, streak, query, rows, before);

	if (command != CMD_SELECT)
	{
		Oid			written = perfopt_loop_written(query->plannedstmt);

		perfopt_level_note_write(&client, written);
		perfopt_level_note_write(&functions, written);
	}
	more = more && rows > 0 && (nesting_level > 0 || rows >= CURSOR_ROWS) &&
		ActivePortal && ActivePortal->queryDesc == query;
	if (more || rows >= perfopt_n_plus_one_min_runs)
		note_source(level, queryid, role, depth, &unit, query, more, rows);
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
