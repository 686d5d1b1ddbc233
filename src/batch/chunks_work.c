/*
 * chunks_work.c
 *		A process at work on a job: the session that called, or a helper in the
 *		background.
 *
 * All is done in steps, each a transaction of its own, whose error is caught
 * (chunks_in_transaction()).  As no step knows more than what was committed
 * before, nothing has to be put right after a crash.
 *
 * Where the procedure was called by a client, transactions are ended as VACUUM
 * does it, and statistics are reported in between: otherwise autovacuum would
 * learn of the rows only when the whole job is done.  Where it was called by
 * another procedure, SPI ends them, and a step is a subtransaction, too, so
 * that the caller's place in SPI outlives an error.
 */
#include "postgres.h"

#include "access/xact.h"
#include "batch/batch_internal.h"
#include "batch/chunks_work_internal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "worker/worker.h"

/* What is not about a chunk is tried again so often. */
#define MAX_JOB_ERRORS		5

#define WAIT_MS				100 /* between two looks at what others do */
#define FIRST_NOTICE_MS		2000
#define NOTICE_MS			5000

/* Then a helper makes way for other jobs, if some wait. */
#define HELPER_MS			10000

/* ---------------------------------------------------------------------
 * Transactions
 */
static void
start_transaction(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
}

static void
commit(ChunkWork *work)
{
	if (work->nested)
		SPI_commit();
	else
	{
		ForgetPortalSnapshots();
		CommitTransactionCommand();
		(void) pgstat_report_stat(false);
		start_transaction();
	}
}

/*
 * Run a step in what is left of this transaction, and commit.  Returns the
 * error it ended with, or NULL; in any case there is a new transaction.
 */
ErrorData *
chunks_in_transaction(ChunkWork *work, void (*step) (ChunkWork *))
{
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	volatile bool committing = false;

	/* what others have done between two statements is to be seen */
	XactIsoLevel = XACT_READ_COMMITTED;
	/* whatever default_transaction_read_only is for the role */
	XactReadOnly = false;
	PG_TRY();
	{
		if (work->nested)
			BeginInternalSubTransaction(NULL);
		PushActiveSnapshot(GetTransactionSnapshot());
		MemoryContextSwitchTo(work->context);
		chunks_connect();
		MemoryContextSwitchTo(work->context);
		CHECK_FOR_INTERRUPTS();
		step(work);
		SPI_finish();
		PopActiveSnapshot();
		if (work->nested)
			ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(work->context);
		CurrentResourceOwner = owner;
		committing = true;
		commit(work);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(work->context);
		error = CopyErrorData();
		FlushErrorState();
		if (!work->nested)
		{
			AbortCurrentTransaction();
			start_transaction();
		}
		else if (!committing)
		{
			RollbackAndReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(work->context);
			CurrentResourceOwner = owner;
			SPI_rollback();
		}
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(work->context);
	return error;
}

/* A step that no other one makes up for: its error is the end. */
void
chunks_must(ChunkWork *work, void (*step) (ChunkWork *))
{
	ErrorData  *error = chunks_in_transaction(work, step);

	if (error == NULL)
		return;
	work->error = error;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		chunks_cancelled(work);
	ReThrowError(error);
}

/* ---------------------------------------------------------------------
 * The loop
 */
static void
wait_a_little(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, WAIT_MS,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/* A helper's time is over: are there others, or is the worker off? */
static bool
should_leave(TimestampTz start, bool idle)
{
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	return !perfopt_worker_enabled ||
		((idle || TimestampDifferenceExceeds(start, GetCurrentTimestamp(), HELPER_MS)) &&
		 perfopt_jobs_waiting());
}

static void
wake_duty(ChunkWork *work)
{
	perfopt_duty_wake_at_commit(CHUNKS_DUTY);
}

/* One chunk, or the next one's cut.  False: there was nothing to do. */
static bool
do_something(ChunkWork *work, int *job_errors)
{
	MemoryContextReset(work->context);
	work->job = NULL;
	work->running = false;
	work->chunk.id = 0;
	work->error = chunks_in_transaction(work, chunks_run);
	if (work->result != STEP_LAGGING && work->result != STEP_NO_SEAT && work->result != STEP_OVER)
		work->reserved = 0;
	if (work->error == NULL && work->result == STEP_NO_CHUNK)
		work->error = chunks_in_transaction(work, chunks_cut);
	if (work->error == NULL && work->result == STEP_CHOSEN)
		work->reserved = work->chunk.id;
	if (work->error == NULL && work->result == STEP_SET_ASIDE)
	{
		chunks_must(work, chunks_check_failed);
		work->result = STEP_RAN;
		return true;
	}

	if (work->error == NULL)
	{
		if (work->result == STEP_RAN)
			*job_errors = 0;
		return work->result == STEP_RAN || work->result == STEP_CHOSEN || work->result == STEP_NOTED;
	}
	if (work->error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		chunks_cancelled(work);
	if (work->running)
		chunks_failed(work);
	else if (chunks_is_transient(work->error->sqlerrcode) && ++*job_errors < MAX_JOB_ERRORS)
		return false;
	else
		chunks_must(work, chunks_fail_job);
	work->result = STEP_RAN;
	return true;
}

void
chunks_work(int64 job_id, ChunkWorker worker)
{
	bool		helper = worker == CHUNK_HELPER;
	MemoryContext caller = CurrentMemoryContext;
	ChunkWork	work = {
		.job_id = job_id,
		.worker = worker,
		.nested = SPI_inside_nonatomic_context(),
		.context = AllocSetContextCreate(caller, "perfopt batch", ALLOCSET_DEFAULT_SIZES)
	};
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz noticed = start - (NOTICE_MS - FIRST_NOTICE_MS) * INT64CONST(1000);
	int			job_errors = 0;

	/* of CALL in a procedure, the SPI that ends transactions */
	if (work.nested && SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	commit(&work);
	chunks_lag_begin();

	for (;;)
	{
		bool		busy = do_something(&work, &job_errors);

		if (work.error == NULL &&
			(work.job == NULL || (helper && work.job->role != GetUserId())))
			chunk_no_such_job(job_id);
		if (work.error == NULL && work.result == STEP_OVER && strcmp(work.job->state, "running") != 0)
			break;
		if (helper && work.reserved == 0 &&
			(work.result == STEP_NO_SEAT || should_leave(start, !busy)))
			break;
		if (!busy)
			wait_a_little();
		if (!helper && TimestampDifferenceExceeds(noticed, GetCurrentTimestamp(), NOTICE_MS))
		{
			chunks_show_progress(&work);
			noticed = GetCurrentTimestamp();
		}
	}

	if (work.reserved != 0)
		chunks_must(&work, chunks_let_go);
	if (!helper)
		chunks_report_end(&work);
	else if (work.result != STEP_OVER && work.result != STEP_NO_SEAT)
		chunks_must(&work, wake_duty);	/* we made way: queue for another turn */
	if (work.nested)
		SPI_finish();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(work.context);
}
