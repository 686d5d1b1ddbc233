/*
 * hooks.c
 *		Where statements are measured: hooks of planner, executor, utility
 *		commands and the server log.
 *
 * What is measured, and under which query identifier, follows
 * pg_stat_statements, so that the text it keeps belongs to our rows:
 *
 * - A planned statement counts when its executor ends, with the time spent in
 *   ExecutorRun and ExecutorFinish.  That time comes from a timer in the
 *   QueryDesc that both extensions share, so a successful statement costs no
 *   further look at the clock.  A cursor or a portal fetched from in pieces is
 *   one call.
 * - A utility command counts as a whole, and what it runs (EXPLAIN ANALYZE,
 *   CREATE TABLE AS, CALL, DO, FETCH) is nested in it.  EXECUTE and PREPARE
 *   are transparent: the prepared statement counts.
 * - perfopt.track = top leaves out what is nested in another statement, be it
 *   in a function, a utility command or the planner.
 * - Parallel workers count nothing; their leader does.
 *
 * Unlike pg_stat_statements, statements that fail count too, with the time
 * until the error and its SQLSTATE class.  For that, each hook that runs
 * something pushes a frame on a stack of what is being run in this backend;
 * an error is recorded by the frames it unwinds, each under its own query.
 * FATAL does not unwind, so the log hook records it for all frames.
 *
 * Statements without an identifier, as with compute_query_id = off, are all
 * counted under queryid 0, but only at top level: a nested one is part of what
 * it is nested in.  To the same row go errors outside of any frame: in the
 * parser, when waiting for locks before a plan is run, in the commit, in a
 * failed transaction.  Nothing but the log hook sees those, with two
 * consequences: they are counted only if they reach the server log
 * (log_min_messages at its default or lower), and their time is counted from
 * the start of the client's message.
 */
#include "postgres.h"

#include "monitor/monitor_internal.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "common/compat.h"
#include "common/settings.h"
#include "common/shmem.h"
#include "miscadmin.h"
#include "optimizer/planner.h"
#include "tcop/utility.h"
#include "utils/elog.h"

/*
 * Something that is being run.  Lives on the C stack of the hook that runs it.
 */
typedef struct Frame
{
	struct Frame *outer;
	bool		measured;
	bool		in_executor;	/* it runs a statement */
	PerfoptQueryKey key;
	QueryDesc  *query;			/* whose timer tells the elapsed time, or NULL */
	instr_time	start;			/* else this; zero if it was not looked at */
} Frame;

static Frame *innermost = NULL;
static int	nesting_level = 0;
static int	executor_level = 0; /* frames that run statements */

static const PerfoptStatementObserver *observer = NULL;

/* This process measures nothing. */
static bool stopped = false;

/*
 * Start of the client's message in which a frame at top level failed last; so
 * that the log hook does not count that error again.
 */
static TimestampTz counted_failure_of = 0;

static planner_hook_type prev_planner_hook = NULL;
static ExecutorStart_hook_type prev_ExecutorStart = NULL;
static ExecutorRun_hook_type prev_ExecutorRun = NULL;
static ExecutorFinish_hook_type prev_ExecutorFinish = NULL;
static ExecutorEnd_hook_type prev_ExecutorEnd = NULL;
static ProcessUtility_hook_type prev_ProcessUtility = NULL;
static emit_log_hook_type prev_emit_log_hook = NULL;

/* Is a statement measured that starts here and now? */
static inline bool
is_measured(uint64 queryid)
{
	if (perfopt_track == PERFOPT_TRACK_NONE || stopped)
		return false;
	if (nesting_level > 0 &&
		(perfopt_track == PERFOPT_TRACK_TOP || queryid == 0))
		return false;
	return !IsParallelWorker() && perfopt_shmem_ready();
}

static inline void
set_key(PerfoptQueryKey *key, uint64 queryid, Oid role)
{
	key->database = MyDatabaseId;
	key->role = role;
	key->queryid = queryid;
}

/* ---------------------------------------------------------------------
 * Frames
 */

static inline void
enter_frame(Frame *frame, uint64 queryid, bool measured)
{
	frame->outer = innermost;
	frame->measured = measured;
	frame->in_executor = false;
	frame->query = NULL;
	INSTR_TIME_SET_ZERO(frame->start);

	/*
	 * The role as it is now: an error in a SECURITY DEFINER function leaves
	 * another one behind.
	 */
	set_key(&frame->key, queryid, GetUserId());
	innermost = frame;
	nesting_level++;
}

static inline void
leave_frame(Frame *frame)
{
	innermost = frame->outer;
	nesting_level--;
	if (frame->in_executor)
		executor_level--;
}

static ErrorClass
error_class(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):
			return ERROR_CLASS_CONNECTION;
		case MAKE_SQLSTATE('2', '2', '0', '0', '0'):
			return ERROR_CLASS_DATA;
		case MAKE_SQLSTATE('2', '3', '0', '0', '0'):
			return ERROR_CLASS_CONSTRAINT;
		case MAKE_SQLSTATE('2', '5', '0', '0', '0'):
			return ERROR_CLASS_TRANSACTION_STATE;
		case MAKE_SQLSTATE('2', '6', '0', '0', '0'):
			return ERROR_CLASS_STATEMENT_NAME;
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):
			return ERROR_CLASS_ROLLBACK;
		case MAKE_SQLSTATE('4', '2', '0', '0', '0'):
			return ERROR_CLASS_SYNTAX_OR_ACCESS;
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):
			return ERROR_CLASS_RESOURCES;
		case MAKE_SQLSTATE('5', '4', '0', '0', '0'):
			return ERROR_CLASS_LIMIT;
		case MAKE_SQLSTATE('5', '5', '0', '0', '0'):
			return ERROR_CLASS_OBJECT_STATE;
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):
			return ERROR_CLASS_INTERVENTION;
		case MAKE_SQLSTATE('P', '0', '0', '0', '0'):
			return ERROR_CLASS_PLPGSQL;
		case MAKE_SQLSTATE('X', 'X', '0', '0', '0'):
			return ERROR_CLASS_INTERNAL;
		default:
			return ERROR_CLASS_OTHER;
	}
}

static void
record_failure(Frame *frame, int sqlerrcode)
{
	uint64		ns = 0;

	if (!frame->measured)
		return;
	if (frame->query)
		ns = perfopt_query_timer_read_running(frame->query);
	else if (!INSTR_TIME_IS_ZERO(frame->start))
	{
		instr_time	elapsed;

		INSTR_TIME_SET_CURRENT(elapsed);
		INSTR_TIME_SUBTRACT(elapsed, frame->start);
		ns = perfopt_instr_ns(elapsed);
	}
	perfopt_latency_add(&frame->key, ns, 0, error_class(sqlerrcode));
}

/*
 * An error is unwinding this frame.  Frames further in have been left already.
 */
static void
fail_frame(Frame *frame)
{
	leave_frame(frame);
	if (nesting_level == 0)
		counted_failure_of = GetCurrentStatementStartTimestamp();
	record_failure(frame, geterrcode());
}

/* ---------------------------------------------------------------------
 * Planned statements
 */

static PlannedStmt *
planner(PERFOPT_PLANNER_ARGS)
{
	PlannedStmt *result;
	Frame		frame;

	/*
	 * A statement that is planned counts when it is executed.  Here it counts
	 * only if it fails: SELECT 1/0 does not get any further than this.
	 */
	enter_frame(&frame, parse->queryId, is_measured(parse->queryId));
	if (frame.measured)
		INSTR_TIME_SET_CURRENT(frame.start);
	PG_TRY();
	{
		if (prev_planner_hook)
			result = prev_planner_hook(PERFOPT_PLANNER_PASS);
		else
			result = standard_planner(PERFOPT_PLANNER_PASS);
		leave_frame(&frame);
	}
	PG_CATCH();
	{
		fail_frame(&frame);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return result;
}

static void
executor_start(QueryDesc *queryDesc, int eflags)
{
	uint64		queryid = queryDesc->plannedstmt->queryId;
	Frame		frame;

	enter_frame(&frame, queryid, is_measured(queryid));
	if (frame.measured)
		perfopt_query_timer_before_start(queryDesc);

	/*
	 * Missing privileges and read-only transactions are found here.  Such an
	 * error is recorded as taking no time: nothing has run yet, and to be
	 * more exact would take a look at the clock for every statement.
	 */
	PG_TRY();
	{
		if (prev_ExecutorStart)
			prev_ExecutorStart(queryDesc, eflags);
		else
			standard_ExecutorStart(queryDesc, eflags);
		leave_frame(&frame);
	}
	PG_CATCH();
	{
		fail_frame(&frame);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (frame.measured)
		perfopt_query_timer_after_start(queryDesc);
}

static inline void
enter_query_frame(Frame *frame, QueryDesc *queryDesc)
{
	uint64		queryid = queryDesc->plannedstmt->queryId;

	enter_frame(frame, queryid,
				perfopt_query_has_timer(queryDesc) && is_measured(queryid));
	frame->query = queryDesc;
	frame->in_executor = true;
	executor_level++;
}

static void
executor_run(PERFOPT_EXECUTOR_RUN_ARGS)
{
	Frame		frame;
	bool		again = queryDesc->already_executed;

	enter_query_frame(&frame, queryDesc);
	PG_TRY();
	{
		if (prev_ExecutorRun)
			prev_ExecutorRun(PERFOPT_EXECUTOR_RUN_PASS);
		else
			standard_ExecutorRun(PERFOPT_EXECUTOR_RUN_PASS);
		leave_frame(&frame);
	}
	PG_CATCH();
	{
		fail_frame(&frame);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (observer)
		observer->ran(queryDesc, again,
					  count != 0 && queryDesc->estate->es_processed == count,
					  nesting_level, executor_level > 0, innermost ? innermost->key.queryid : 0);
}

static void
executor_finish(QueryDesc *queryDesc)
{
	Frame		frame;

	enter_query_frame(&frame, queryDesc);
	PG_TRY();
	{
		if (prev_ExecutorFinish)
			prev_ExecutorFinish(queryDesc);
		else
			standard_ExecutorFinish(queryDesc);
		leave_frame(&frame);
	}
	PG_CATCH();
	{
		fail_frame(&frame);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
executor_end(QueryDesc *queryDesc)
{
	uint64		queryid = queryDesc->plannedstmt->queryId;

	/* EXPLAIN without ANALYZE ends an executor too, but ran nothing. */
	if (perfopt_query_has_timer(queryDesc) && is_measured(queryid) &&
		!(queryDesc->estate->es_top_eflags & EXEC_FLAG_EXPLAIN_ONLY))
	{
		PerfoptQueryKey key;
		uint64		ns;
		uint64		rows;

		set_key(&key, queryid, GetUserId());
		perfopt_query_timer_read(queryDesc, &ns, &rows);
		perfopt_latency_add(&key, ns, rows, ERROR_CLASS_NONE);
	}

	if (prev_ExecutorEnd)
		prev_ExecutorEnd(queryDesc);
	else
		standard_ExecutorEnd(queryDesc);
}

/* ---------------------------------------------------------------------
 * Utility commands
 */

static void
call_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
			 ProcessUtilityContext context, ParamListInfo params,
			 QueryEnvironment *queryEnv, DestReceiver *dest,
			 QueryCompletion *qc)
{
	if (prev_ProcessUtility)
		prev_ProcessUtility(pstmt, queryString, readOnlyTree, context, params,
							queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
}

/* The rows a utility command has returned or affected, where that is known. */
static uint64
utility_rows(const QueryCompletion *qc)
{
	if (qc == NULL)
		return 0;
	switch (qc->commandTag)
	{
		case CMDTAG_COPY:
		case CMDTAG_FETCH:
		case CMDTAG_SELECT:
		case CMDTAG_REFRESH_MATERIALIZED_VIEW:
			return qc->nprocessed;
		default:
			return 0;
	}
}

static void
measure_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *queryEnv, DestReceiver *dest,
				QueryCompletion *qc)
{
	Frame		frame;
	PlannedStmt copy;

	/*
	 * pg_stat_statements sets the identifier in the statement to zero.  A
	 * driver's prepared BEGIN or COMMIT would have lost it from the second
	 * time on, as its plan is kept; so hand on a copy.  The statement itself
	 * may be gone when a ROLLBACK returns.
	 */
	copy = *pstmt;

	enter_frame(&frame, pstmt->queryId,
				perfopt_track_utility && is_measured(pstmt->queryId) &&
				(!IsA(pstmt->utilityStmt, DeallocateStmt) ||
				 PERFOPT_DEALLOCATE_IS_MEASURED));
	if (frame.measured)
		INSTR_TIME_SET_CURRENT(frame.start);
	PG_TRY();
	{
		call_utility(&copy, queryString, readOnlyTree, context, params,
					 queryEnv, dest, qc);
		leave_frame(&frame);
	}
	PG_CATCH();
	{
		fail_frame(&frame);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (frame.measured)
	{
		instr_time	elapsed;

		INSTR_TIME_SET_CURRENT(elapsed);
		INSTR_TIME_SUBTRACT(elapsed, frame.start);
		perfopt_latency_add(&frame.key, perfopt_instr_ns(elapsed),
							utility_rows(qc), ERROR_CLASS_NONE);
	}
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *queryEnv, DestReceiver *dest,
				QueryCompletion *qc)
{
	Node	   *statement = pstmt->utilityStmt;

	if (IsA(statement, ExecuteStmt) || IsA(statement, PrepareStmt))
		call_utility(pstmt, queryString, readOnlyTree, context, params,
					 queryEnv, dest, qc);
	else if (IsA(statement, DropdbStmt))
	{
		Oid			database = get_database_oid(((DropdbStmt *) statement)->dbname, true);

		measure_utility(pstmt, queryString, readOnlyTree, context, params,
						queryEnv, dest, qc);
		if (OidIsValid(database) && perfopt_shmem_ready())
			perfopt_latency_forget_database(database);
	}
	else if (IsA(statement, DiscardStmt) && observer &&
			 ((DiscardStmt *) statement)->target == DISCARD_ALL)
	{
		measure_utility(pstmt, queryString, readOnlyTree, context, params,
						queryEnv, dest, qc);
		observer->discard_all();
	}
	else
		measure_utility(pstmt, queryString, readOnlyTree, context, params,
						queryEnv, dest, qc);
}

/* ---------------------------------------------------------------------
 * The server log
 */

/*
 * Note that locks may still be held here that the transaction's abort is going
 * to release; nobody who holds the table's lock waits for any other.
 */
static void
emit_log(ErrorData *edata)
{
	if (edata->elevel == FATAL)
	{
		for (Frame *frame = innermost; frame; frame = frame->outer)
			record_failure(frame, edata->sqlerrcode);
		innermost = NULL;
	}
	else if (edata->elevel == ERROR && MyBackendType == B_BACKEND &&
			 innermost == NULL && is_measured(0) && OidIsValid(MyDatabaseId) &&
			 counted_failure_of != GetCurrentStatementStartTimestamp())
	{
		TimestampTz start = GetCurrentStatementStartTimestamp();
		TimestampTz now = GetCurrentTimestamp();
		PerfoptQueryKey key;

		set_key(&key, 0, GetOuterUserId());
		if (OidIsValid(key.role))
			perfopt_latency_add(&key, now > start ? (now - start) * 1000 : 0, 0,
								error_class(edata->sqlerrcode));
	}

	if (prev_emit_log_hook)
		prev_emit_log_hook(edata);
}

/* From now on, nothing that this process runs is measured. */
void
perfopt_hooks_stop_measuring(void)
{
	stopped = true;
}

void
perfopt_monitor_observe(const PerfoptStatementObserver *who)
{
	if (observer)
		elog(ERROR, "statements are observed already");
	observer = who;
}

void
perfopt_hooks_init(void)
{
	prev_planner_hook = planner_hook;
	planner_hook = planner;
	prev_ExecutorStart = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	prev_ExecutorRun = ExecutorRun_hook;
	ExecutorRun_hook = executor_run;
	prev_ExecutorFinish = ExecutorFinish_hook;
	ExecutorFinish_hook = executor_finish;
	prev_ExecutorEnd = ExecutorEnd_hook;
	ExecutorEnd_hook = executor_end;
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = emit_log;
}
