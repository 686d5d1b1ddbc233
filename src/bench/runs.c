/*
 * runs.c
 *		One run of a statement, timed around the executor.
 *
 * The time of a run is that from ExecutorStart() to ExecutorEnd(), of all hooks
 * that are there: starting the plan, all rows, triggers of the statement, and
 * freeing everything.  Rows go to a receiver that takes their columns apart and
 * throws them away.  Not in it: planning (timed on its own), locking the tables,
 * the snapshot, values stored out of line that nobody looks at, output functions
 * and sending to a client.
 *
 * Each run has a snapshot of its own, as a statement of a client would, and is in
 * an internal subtransaction that is rolled back, unless changes are to be kept.
 * This is so for every statement, as a SELECT may call functions that write; it
 * is not timed, and takes no transaction ID as long as nothing is written, so it
 * works in read-only transactions and on a standby.
 *
 * Triggers and constraints that are deferred belong to the commit, and are not
 * run when changes are rolled back; SET CONSTRAINTS ALL IMMEDIATE counts them in.
 */
#include "postgres.h"

#include "bench/bench_internal.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Nobody wants to read more. */
#define PROGRESS_FIRST_NS	(5 * INT64CONST(1000000000))
#define PROGRESS_EACH_NS	(15 * INT64CONST(1000000000))

int64
bench_now(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return perfopt_instr_ns(now);
}

double
bench_timer_cost(void)
{
	double		apart[101];

	for (int i = 0; i < lengthof(apart); i++)
	{
		int64		before = bench_now();

		apart[i] = bench_now() - before;
	}
	return bench_median(apart, lengthof(apart));
}

void
bench_progress(BenchProgress *progress, int64 now, int64 done, int64 of)
{
	if (progress->last == 0 ? now - progress->started < PROGRESS_FIRST_NS :
		now - progress->last < PROGRESS_EACH_NS)
		return;
	progress->last = now;
	ereport(NOTICE,
			(errmsg("%s: " INT64_FORMAT " of at most " INT64_FORMAT " runs after %d s",
					progress->function, done, of,
					(int) ((now - progress->started) / 1000000000))));
}

/* ---------------------------------------------------------------------
 * Rows that are thrown away
 */

static bool
discard_row(TupleTableSlot *slot, DestReceiver *self)
{
	slot_getallattrs(slot);
	return true;
}

static void
discard_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
discard_nothing(DestReceiver *self)
{
}

static DestReceiver discard = {
	discard_row, discard_startup, discard_nothing, discard_nothing, DestNone
};

/* ---------------------------------------------------------------------
 * A run
 */

static void
say_which_run(void *arg)
{
	BenchStatement *statement = arg;

	errcontext("%s " INT64_FORMAT " of %s%s%s",
			   statement->warming ? "warm-up run" : "run", statement->run,
			   statement->function, statement->label ? ", statement " : "",
			   statement->label ? statement->label : "");
}

static void
execute(BenchStatement *statement, CachedPlan *plan, DestReceiver *dest,
		BenchLook *look, BenchRun *run)
{
	PlannedStmt *stmt = linitial_node(PlannedStmt, plan->stmt_list);
	BufferUsage buffers_before;
	WalUsage	wal_before;
	QueryDesc  *queryDesc;
	int64		before;
	int64		started;
	int64		ran;
	int64		finished;
	int64		ended;

	queryDesc = CreateQueryDesc(stmt, statement->source->query_string,
								GetActiveSnapshot(), InvalidSnapshot,
								dest ? dest : &discard, statement->params, NULL,
								look ? look->instrument : 0);
	buffers_before = pgBufferUsage;
	wal_before = pgWalUsage;
	if (look == NULL)
	{
		before = bench_now();
		ExecutorStart(queryDesc, 0);
		PERFOPT_EXECUTOR_RUN(queryDesc);
		ExecutorFinish(queryDesc);
		run->rows = queryDesc->estate->es_processed;
		ExecutorEnd(queryDesc);
		run->ns = bench_now() - before;
	}
	else
	{
		before = bench_now();
		ExecutorStart(queryDesc, 0);
		started = bench_now();
		look->start = started - before;
		if (look->prepare)
		{
			look->prepare(queryDesc, look->arg);
			started = bench_now();
		}
		PERFOPT_EXECUTOR_RUN(queryDesc);
		ran = bench_now();
		ExecutorFinish(queryDesc);
		finished = bench_now();
		look->run = ran - started;
		look->finish = finished - ran;
		run->rows = queryDesc->estate->es_processed;
		look->look(queryDesc, look->arg);
		before = bench_now();
		ExecutorEnd(queryDesc);
		ended = bench_now();
		look->end = ended - before;
		run->ns = look->start + look->run + look->finish + look->end;
	}
	memset(&run->buffers, 0, sizeof(run->buffers));
	memset(&run->wal, 0, sizeof(run->wal));
	BufferUsageAccumDiff(&run->buffers, &pgBufferUsage, &buffers_before);
	WalUsageAccumDiff(&run->wal, &pgWalUsage, &wal_before);
	FreeQueryDesc(queryDesc);
}

static void
plan_and_execute(BenchStatement *statement, DestReceiver *dest,
				 BenchLook *look, BenchRun *run)
{
	ResourceOwner owner = CurrentResourceOwner;
	CachedPlan *plan;
	int64		before;
	int64		planning;

	/* with changes that are kept, this run has to see the last one's */
	CommandCounterIncrement();
	if (statement->snapshot)
	{
		PushCopiedSnapshot(statement->snapshot);
		UpdateActiveSnapshotCommandId();
	}
	else
		PushActiveSnapshot(GetTransactionSnapshot());
	before = bench_now();
	plan = GetCachedPlan(statement->source, statement->params, owner, NULL);
	planning = bench_now() - before;
	if (statement->planning_ms < 0)
		statement->planning_ms = planning / 1e6;
	if (look)
		look->planning = planning;
	statement->generic = plan == statement->source->gplan;
	if (list_length(plan->stmt_list) != 1 ||
		linitial_node(PlannedStmt, plan->stmt_list)->commandType == CMD_UTILITY)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot run what rules have made of the statement meanwhile",
						statement->function)));
	execute(statement, plan, dest, look, run);
	ReleaseCachedPlan(plan, owner);
	PopActiveSnapshot();
}

void
bench_run(BenchStatement *statement, DestReceiver *dest, BenchLook *look,
		  BenchRun *run)
{
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = say_which_run,
		.arg = statement
	};

	CHECK_FOR_INTERRUPTS();
	statement->run++;
	statement->caller_context = CurrentMemoryContext;
	statement->caller_owner = CurrentResourceOwner;
	error_context_stack = &context;
	if (statement->keep_changes)
	{
		MemoryContextSwitchTo(statement->context);
		plan_and_execute(statement, dest, look, run);
	}
	else
	{
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(statement->context);
		PG_TRY();
		{
			plan_and_execute(statement, dest, look, run);
		}
		PG_CATCH();
		{
			ErrorData  *error;

			/* leave it, as whoever catches the error knows only of his own */
			MemoryContextSwitchTo(statement->caller_context);
			error = CopyErrorData();
			FlushErrorState();
			RollbackAndReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(statement->caller_context);
			CurrentResourceOwner = statement->caller_owner;
			ReThrowError(error);
		}
		PG_END_TRY();
		RollbackAndReleaseCurrentSubTransaction();
		CurrentResourceOwner = statement->caller_owner;
	}
	MemoryContextSwitchTo(statement->caller_context);
	MemoryContextReset(statement->context);
	error_context_stack = context.previous;
}
