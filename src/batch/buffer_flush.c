/*
 * buffer_flush.c
 *		What the flusher does: one flush of rows from memory, or from the spool.
 *
 * A flush is a transaction.  What has become of its rows is posted in the
 * callback of its commit.  When it fails as a whole, because the table is gone,
 * a deferred constraint is violated, or a lock was waited for too long, each of
 * its rows is inserted in a transaction of its own, so that none suffers from
 * another one.  A row of mode lossy that still fails for a lock goes to the
 * spool, where it is tried again.
 *
 * The settings are those that the role gets when it logs in, but for those of
 * buffer_flush_settings.  They are set anew after each transaction, as triggers
 * may have changed them for the session, its role among them; other things that a
 * trigger can leave in a session go when the flusher pauses.
 *
 * A transaction has LIMIT_MS until it commits, and as long for what its commit
 * waits for before it is certain, such as the lock of NOTIFY.  From there on
 * nothing but the end of the process keeps it from waiting for the standbys it is
 * to wait for.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "batch/buffer_flush_internal.h"
#include "common/compat.h"
#include "common/stop_points.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* A flush, or a row by itself, may take so long. */
#define LIMIT_MS		60000

/* A row with which so many processes have ended is not tried again. */
#define MAX_ATTEMPTS	3

const char *const buffer_flush_settings[][2] = {
	{"application_name", "perfopt buffer"},
	{"role", "none"},
	{"row_security", "on"},
	{"lock_timeout", "1s"},
	{"idle_in_transaction_session_timeout", "0"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_deferrable", "off"},
	{"default_transaction_read_only", "off"}
};

const int	buffer_flush_num_settings = lengthof(buffer_flush_settings);

static BufferBatch *committing = NULL;	/* posted when the transaction commits */
static int	committing_first;
static int	committing_count;
static volatile sig_atomic_t in_commit = false;
static volatile sig_atomic_t cancelled_in_commit = false;

/* ---------------------------------------------------------------------
 * Transactions
 */

/*
 * It has committed here, but is it where it was to be waited for?  A wait for
 * standbys ends early with the process, or by a cancel that came too late for
 * anything else.
 */
static bool
is_in_doubt(void)
{
	return (ProcDiePending || cancelled_in_commit) && SyncRepRequested() &&
		SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0';
}

/* Callback: post at the commit, when nothing can go wrong any more. */
void
buffer_flush_at_commit(XactEvent event, void *arg)
{
	BufferBatch *batch = committing;

	if (event == XACT_EVENT_PRE_COMMIT)
	{
		/*
		 * Triggers are over, which alone can go on after a cancel: the limit
		 * that ends the process would end a wait for standbys.
		 */
		in_commit = true;
		perfopt_job_limit(0);
		CHECK_FOR_INTERRUPTS();
		/* NOTIFY waits for others that commit; see buffer_flush_sigint() */
		enable_timeout_after(STATEMENT_TIMEOUT, LIMIT_MS);
	}
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	in_commit = false;
	committing = NULL;
	perfopt_job_limit(0);
	if (event == XACT_EVENT_COMMIT && batch)
	{
		PERFOPT_STOP_POINT("buffer-verdict");
		batch->in_doubt = is_in_doubt();
	}
	if (cancelled_in_commit)
	{
		/* that was for what is over */
		cancelled_in_commit = false;
		QueryCancelPending = false;
	}
	if (event == XACT_EVENT_COMMIT && batch)
		buffer_post(batch, committing_first, committing_count,
					committing_first + committing_count == batch->num);
}

/*
 * A cancel, or the end of a timeout.  A commit can fail as long as it is in a
 * transaction that goes on, where NOTIFY waits for a lock.  From then on all it
 * waits for is standbys.
 */
void
buffer_flush_sigint(SIGNAL_ARGS)
{
	if (in_commit && !IsTransactionState())
		return;
	if (in_commit)
		cancelled_in_commit = true;
	StatementCancelHandler(PERFOPT_SIGNAL_PASS);
}

/*
 * What triggers have done to the session's settings, and to its role, is not for
 * other rows.
 */
void
buffer_flush_reset_settings(void)
{
	MemoryContext context = CurrentMemoryContext;

	StartTransactionCommand();
	SetPGVariable("session_authorization", NIL, false);
	ResetAllOptions();
	for (int i = 0; i < lengthof(buffer_flush_settings); i++)
		SetConfigOption(buffer_flush_settings[i][0], buffer_flush_settings[i][1],
						superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

static void
begin_transaction(MemoryContext context)
{
	if (GetUserId() != buffer_flusher.place.role || GetSessionUserId() != buffer_flusher.place.role)
		elog(FATAL, "buffered inserts of role with OID %u cannot be made by role with OID %u",
			 buffer_flusher.place.role, GetUserId());
	perfopt_job_limit(LIMIT_MS);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	/* what is acknowledged is on disk; more than that is the DBA's choice */
	if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
		(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
commit_transaction(MemoryContext context)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* In PG_CATCH: clean up, and return the error. */
static ErrorData *
abort_transaction(MemoryContext context)
{
	ErrorData  *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(context);
	perfopt_job_limit(0);
	RESUME_INTERRUPTS();
	return error;
}

/* Insert some rows of the batch in one transaction.  Returns its error, or NULL. */
static ErrorData *
insert_rows(BufferBatch *batch, int first, int count, const char *lock_timeout,
			MemoryContext context)
{
	ErrorData  *volatile error = NULL;

	buffer_flusher.trying = count;
	PG_TRY();
	{
		begin_transaction(context);
		if (lock_timeout)
			(void) set_config_option("lock_timeout", lock_timeout, PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_LOCAL, true, 0, false);
		batch_insert_jsonb_rows(batch->target, batch->rows + first, batch->noted + first, count,
								batch->verdicts + first);
		PERFOPT_STOP_POINT("buffer-inserted");
		committing = batch;
		committing_first = first;
		committing_count = count;
		commit_transaction(context);
	}
	PG_CATCH();
	{
		error = abort_transaction(context);
	}
	PG_END_TRY();
	buffer_flusher.trying = 0;
	buffer_flush_reset_settings();
	return error;
}

/* ---------------------------------------------------------------------
 * Rows in memory
 */

/*
 * The row's error.  A row that nobody waits for is kept: to be tried again when
 * it was for a lock; or it is counted as lost.
 */
static void
reject_row(BufferBatch *batch, int i, ErrorData *error, MemoryContext context)
{
	BatchVerdict *verdict = &batch->verdicts[i];

	verdict->action = BATCH_REJECTED;
	verdict->sqlerrcode = error->sqlerrcode;
	verdict->message = error->message;
	verdict->detail = error->detail;
	verdict->constraint = error->constraint_name;
	if (batch->noted[i])
	{
		PG_TRY();
		{
			begin_transaction(context);
			if (verdict->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			{
				buffer_spool_put_again(batch->target, batch->rows[i], verdict);
				batch->spooled = i;
			}
			else
				batch_note_rejected(batch->target, batch->rows[i], verdict);
			committing = batch;
			committing_first = i;
			committing_count = 1;
			commit_transaction(context);
		}
		PG_CATCH();
		{
			ErrorData  *note_error = abort_transaction(context);

			ereport(LOG,
					(errmsg("a buffered row for relation with OID %u is lost: %s",
							batch->target, verdict->message),
					 errdetail("It could not be kept in perfopt.rejected_rows or perfopt.insert_spool: %s", note_error->message)));
			batch->lost = i;
		}
		PG_END_TRY();
	}
	/* unless posted by the commit */
	if (i >= batch->posted)
		buffer_post(batch, i, 1, i + 1 == batch->num);
}

/*
 * Each row in a transaction of its own.  As that can take long, it ends with the
 * process's turn; rows that are left go back.
 */
static void
flush_one_by_one(BufferBatch *batch, MemoryContext context)
{
	const char *lock_timeout = NULL;
	TimestampTz start = GetCurrentTimestamp();

	for (int i = 0; i < batch->num; i++)
	{
		ErrorData  *error;

		CHECK_FOR_INTERRUPTS();
		if (buffer_flush_out_of_time() ||
			(i > 0 && TimestampDifferenceExceeds(start, GetCurrentTimestamp(), BUFFER_TURN_MS) &&
			 perfopt_jobs_waiting()))
		{
			buffer_give_back(buffer_flusher.place.owner, 0);
			break;
		}
		if (buffer_row_attempts(batch, i) >= MAX_ATTEMPTS)
		{
			error = palloc0(sizeof(ErrorData));
			error->sqlerrcode = ERRCODE_INTERNAL_ERROR;
			error->message = "the processes that inserted the row have ended";
		}
		else
			error = insert_rows(batch, i, 1, lock_timeout, context);
		if (i < batch->posted)
			continue;			/* committed */
		if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			lock_timeout = BUFFER_LATER_LOCK_TIMEOUT;
		reject_row(batch, i, error, context);
	}
}

void
buffer_flush_queue(int queue, MemoryContext context)
{
	BufferBatch *batch = buffer_take(buffer_flusher.place.owner, queue);
	char	   *name;

	if (batch == NULL)
		return;
	PERFOPT_STOP_POINT("buffer-taken");
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	name = get_rel_name(batch->target);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	debug_query_string = psprintf("buffered inserts into %s", name ? name : "a dropped table");
	pgstat_report_activity(STATE_RUNNING, debug_query_string);

	if (batch->max_attempts == 0)
		(void) insert_rows(batch, 0, batch->num, NULL, context);
	if (batch->posted < batch->num)
		flush_one_by_one(batch, context);
	PERFOPT_STOP_POINT("buffer-committed");

	debug_query_string = NULL;
	(void) pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* ---------------------------------------------------------------------
 * The spool
 */

/* Count what has become of them. */
static void
count_spool_rows(const SpoolRow *rows, int num)
{
	BufferOwner *owner = buffer_owner(buffer_flusher.place.owner);
	BufferQueue *queue = NULL;
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(buffer_owner_lock(buffer_flusher.place.owner), LW_EXCLUSIVE);
	for (int i = 0; i < num; i++)
	{
		if (queue == NULL || queue->target != rows[i].target)
		{
			int			number = buffer_find_queue(owner, rows[i].target, true);

			queue = number == BUFFER_NONE ? NULL : &owner->queues[number];
		}
		if (!rows[i].again)
			owner->spool_moved++;
		if (queue == NULL)
			continue;
		/* once for a transaction */
		if (queue->last_flush != now)
			queue->flushes++;
		queue->used_at = queue->last_flush = now;
		if (!rows[i].again)
			buffer_count_verdict(queue, BUFFER_DURABLE, &rows[i].verdict);
	}
	LWLockRelease(buffer_owner_lock(buffer_flusher.place.owner));
}

/* Move some in a transaction.  Returns its error, or NULL. */
static ErrorData *
move_spool_rows(SpoolTake take, SpoolRow *rows, int *num, MemoryContext context)
{
	ErrorData  *volatile error = NULL;

	buffer_flusher.trying_spool = take != SPOOL_MARK_ONE && take != SPOOL_MAKE_DUE;
	PG_TRY();
	{
		begin_transaction(context);
		*num = buffer_spool_move(buffer_flusher.place.role, take, rows);
		commit_transaction(context);
	}
	PG_CATCH();
	{
		error = abort_transaction(context);
	}
	PG_END_TRY();
	buffer_flusher.trying_spool = false;
	buffer_flush_reset_settings();
	return error;
}

/*
 * Move rows from the spool to their tables.  Where a transaction fails, for a
 * deferred constraint, say, rows get one each.  Where the process has ended in
 * one, each is marked as tried, in a transaction before, so that none can be
 * the end of processes for ever.
 */
void
buffer_flush_spool(MemoryContext context)
{
	static SpoolRow rows[BUFFER_MAX_FLUSH];
	static int	singles = 0;	/* still to be taken one at a time */
	static uint64 made_due = 0; /* for this request */
	BufferOwner *owner = buffer_owner(buffer_flusher.place.owner);
	int			num = 0;
	ErrorData  *error;
	int64		spooled;
	uint64		request;
	bool		requested;
	bool		more;

	LWLockAcquire(buffer_owner_lock(buffer_flusher.place.owner), LW_EXCLUSIVE);
	spooled = owner->spooled;
	request = owner->spool_request;
	requested = request > owner->spool_served;
	if (owner->spool_suspect)
	{
		owner->spool_suspect = false;
		buffer_flusher.marking_spool = true;
		singles = BUFFER_MAX_FLUSH;
	}
	LWLockRelease(buffer_owner_lock(buffer_flusher.place.owner));
	memset(&rows[0], 0, sizeof(SpoolRow));
	debug_query_string = "rows of perfopt.insert_spool";
	pgstat_report_activity(STATE_RUNNING, debug_query_string);
	if (requested && made_due != request)
	{
		error = move_spool_rows(SPOOL_MAKE_DUE, rows, &num, context);
		if (error)
			ReThrowError(error);
		made_due = request;
	}
	error = move_spool_rows(buffer_flusher.marking_spool ? SPOOL_MARK_ONE :
							singles > 0 ? SPOOL_TAKE_ONE : SPOOL_TAKE_MANY,
							rows, &num, context);
	more = error || (singles > 0 ? num == 1 : rows[0].more);
	/* one that has been tried too often is over with being marked */
	if (error == NULL && num == 1 && rows[0].marked)
		error = move_spool_rows(SPOOL_TAKE_MARKED, rows, &num, context);
	if (error && rows[0].id == 0)
		ReThrowError(error);	/* it could not even read them */
	if (error && singles > 0)
	{
		begin_transaction(context);
		buffer_spool_give_up(buffer_flusher.place.role, &rows[0], error);
		commit_transaction(context);
		num = 1;
		error = NULL;
	}
	PERFOPT_STOP_POINT("buffer-spool-committed");
	if (error)
		singles = BUFFER_MAX_FLUSH;
	else
	{
		count_spool_rows(rows, num);
		singles = more ? Max(singles - 1, 0) : 0;
	}
	buffer_flusher.marking_spool = buffer_flusher.marking_spool && singles > 0;
	debug_query_string = NULL;
	(void) pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);

	if (more)
		return;					/* after rows of a queue */
	LWLockAcquire(buffer_owner_lock(buffer_flusher.place.owner), LW_EXCLUSIVE);
	owner->spooled -= spooled;
	owner->spooled_at = GetCurrentTimestamp();
	owner->spool_served = request;
	LWLockRelease(buffer_owner_lock(buffer_flusher.place.owner));
	ConditionVariableBroadcast(&owner->flushed);
}
