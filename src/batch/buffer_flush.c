/*
 * buffer_flush.c
 *		The flusher: the process that inserts what an owner, a role in a
 *		database, has buffered.
 *
 * It is a job, submitted by whoever finds that none is there, and connected as
 * the role.  It takes what waits in one queue after the other: at once when
 * somebody waits for a row, so that what comes during one flush makes up the
 * next one; otherwise when there are perfopt.batch_size rows, or the first of
 * them is perfopt.batch_max_wait old.  Then it stays for some seconds, as a
 * process takes longer to start than to insert, unless others wait for one.
 *
 * A flush is a transaction.  What has become of its rows is posted in the
 * callback of its commit.  When it fails as a whole, because the table is gone,
 * a deferred constraint is violated, or a lock was waited for too long, each of
 * its rows is inserted in a transaction of its own, so that none suffers from
 * another one.  A row of mode lossy that still fails for a lock goes to the
 * spool, where it is tried again.
 *
 * The settings are those that the role gets when it logs in, but for
 * job_settings.  They are set anew after each transaction, as triggers may have
 * changed them for the session, its role among them; other things that a trigger
 * can leave in a session, such as temporary tables, go by DISCARD ALL when it
 * pauses.
 *
 * A transaction has LIMIT_MS until it commits, and as long for what its commit
 * waits for before it is certain, such as the lock of NOTIFY.  From there on
 * nothing but the end of the process keeps it from waiting for the standbys it is
 * to wait for.
 *
 * Told to go by SIGTERM, as for a shutdown or DROP DATABASE, it first inserts
 * what there is, for at most LAST_MS, whatever it is doing then; a SIGTERM after
 * SECOND_MS ends it at once.
 *
 * Its capability, for the fairness of the pool, is one of its own: the long
 * jobs of run_in_batches() must not keep rows waiting.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "batch/buffer_internal.h"
#include "common/compat.h"
#include "common/stop_points.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define ENTRY_NAME		"buffer_flush"

/* It goes when nothing was to be done for so long. */
#define LINGER_MS		5000

/* While others wait for a process, it makes way after so long. */
#define TURN_MS			1000

/* A flush, or a row by itself, may take so long. */
#define LIMIT_MS		60000

/* How long it works on when it is told to go. */
#define LAST_MS			2000

/* Told to go again after that, it goes at once. */
#define SECOND_MS		1000

/* A row with which so many processes have ended is not tried again. */
#define MAX_ATTEMPTS	3

/* A job that was about to be submitted and has not been since then. */
#define SUBMIT_MS		5000

static const char *const job_settings[][2] = {
	{"application_name", "perfopt buffer"},
	{"role", "none"},
	{"row_security", "on"},
	{"lock_timeout", "1s"},
	{"idle_in_transaction_session_timeout", "0"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_deferrable", "off"},
	{"default_transaction_read_only", "off"}
};

/* Between two looks whether a flush has to end. */
#define LOOK_MS			250

typedef enum Work
{
	WORK_WAIT,
	WORK_ROWS,
	WORK_SPOOL
} Work;

static BufferPlace my_place = {.owner = BUFFER_NONE};
static BufferBatch *committing = NULL;	/* posted when the transaction commits */
static int	committing_first;
static int	committing_count;
static int	trying = 0;			/* rows of the batch that are being inserted */
static bool trying_spool = false;
static bool marking_spool = false;	/* see flush_spool() */
static volatile sig_atomic_t told_to_go = false;
static volatile sig_atomic_t in_commit = false;
static volatile sig_atomic_t cancelled_in_commit = false;
static TimestampTz told_at = 0;

bool
buffer_in_flusher(void)
{
	return my_place.owner != BUFFER_NONE;
}

/* ---------------------------------------------------------------------
 * Getting a flusher
 */

/* Is one working?  One that is only on its way is not. */
bool
buffer_flusher_at_work(int owner)
{
	bool		result;

	LWLockAcquire(buffer_owner_lock(owner), LW_SHARED);
	result = buffer_owner(owner)->flusher == FLUSHER_RUNNING;
	LWLockRelease(buffer_owner_lock(owner));
	return result;
}

/* Mark it as being submitted, by us. */
static void
claim(BufferOwner *owner)
{
	owner->flusher = FLUSHER_SUBMITTED;
	owner->job.slot = -1;
	owner->submitted_at = GetCurrentTimestamp();
}

static bool
has_ended(PerfoptJob job)
{
	PerfoptJobState state = perfopt_job_poll(job, NULL);

	return state == PERFOPT_JOB_NONE || PERFOPT_JOB_ENDED(state);
}

static bool
claim_submission(const BufferPlace *place)
{
	BufferOwner *owner = buffer_owner(place->owner);
	BufferFlusherState state;
	PerfoptJob	job;
	TimestampTz submitted_at;
	bool		claimed = false;

	if (!buffer_lock_place(place))
		return false;
	state = owner->flusher;
	job = owner->job;
	submitted_at = owner->submitted_at;
	if (state == FLUSHER_NONE)
	{
		claim(owner);
		claimed = true;
	}
	LWLockRelease(buffer_owner_lock(place->owner));

	if (state != FLUSHER_SUBMITTED ||
		!(job.slot < 0 ?
		  TimestampDifferenceExceeds(submitted_at, GetCurrentTimestamp(), SUBMIT_MS) : has_ended(job)))
		return claimed;

	/* that one came to nothing */
	if (!buffer_lock_place(place))
		return false;
	if (owner->flusher == FLUSHER_SUBMITTED && owner->submitted_at == submitted_at)
	{
		claim(owner);
		claimed = true;
	}
	LWLockRelease(buffer_owner_lock(place->owner));
	return claimed;
}

/*
 * Have a flusher at work soon, if there is none.  *job is the one submitted,
 * or left as it was; the caller releases it.  Returns the error that prevented
 * it, or NULL.
 */
ErrorData *
buffer_need_flusher(const BufferPlace *place, PerfoptJob *job)
{
	PerfoptJobSpec spec = {
		.capability = "buffer",
		.entry = ENTRY_NAME,
		.payload = "buffered inserts",
		.database = place->database,
		.role = place->role,
		.fair_to_roles = true
	};
	BufferOwner *owner = buffer_owner(place->owner);
	StringInfoData settings;
	PerfoptJob	submitted;
	ErrorData  *error;

	if (!claim_submission(place))
		return NULL;
	initStringInfo(&settings);
	for (int i = 0; i < lengthof(job_settings); i++)
		appendStringInfo(&settings, "%s=%s\n", job_settings[i][0], job_settings[i][1]);
	spec.settings = settings.data;
	error = perfopt_job_try_submit(&spec, &submitted);

	/* its process may be faster than we are */
	if (buffer_lock_place(place))
	{
		if (owner->flusher == FLUSHER_SUBMITTED && owner->job.slot < 0)
		{
			if (error)
				owner->flusher = FLUSHER_NONE;
			else
				owner->job = submitted;
		}
		LWLockRelease(buffer_owner_lock(place->owner));
	}
	pfree(settings.data);
	if (error == NULL)
	{
		if (job->slot >= 0)
			perfopt_job_release(*job);
		*job = submitted;
	}
	return error;
}

/* ---------------------------------------------------------------------
 * In the flusher's process: transactions
 */

/* Was the time of the one who told us to go up? */
static bool
out_of_time(void)
{
	return told_to_go && TimestampDifferenceExceeds(told_at, GetCurrentTimestamp(), LAST_MS);
}

/*
 * Timeout handler: nobody looks at told_to_go while a transaction runs, or a
 * command that cleans up; and the exit of a process that drops its temporary
 * tables waits for standbys, too, which not even die() ends.
 */
static void
look_for_end(void)
{
	if (!out_of_time())
		return;
	InterruptPending = true;
	ProcDiePending = true;
	SetLatch(MyLatch);
}

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
static void
post_at_commit(XactEvent event, void *arg)
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
		/* NOTIFY waits for others that commit; see handle_sigint() */
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
static void
handle_sigint(SIGNAL_ARGS)
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
static void
reset_settings(void)
{
	MemoryContext context = CurrentMemoryContext;

	StartTransactionCommand();
	SetPGVariable("session_authorization", NIL, false);
	ResetAllOptions();
	for (int i = 0; i < lengthof(job_settings); i++)
		SetConfigOption(job_settings[i][0], job_settings[i][1],
						superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

static void
begin_transaction(MemoryContext context)
{
	if (GetUserId() != my_place.role || GetSessionUserId() != my_place.role)
		elog(FATAL, "buffered inserts of role with OID %u cannot be made by role with OID %u",
			 my_place.role, GetUserId());
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

	trying = count;
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
	trying = 0;
	reset_settings();
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
		if (out_of_time() ||
			(i > 0 && TimestampDifferenceExceeds(start, GetCurrentTimestamp(), TURN_MS) &&
			 perfopt_jobs_waiting()))
		{
			buffer_give_back(my_place.owner, 0);
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

static void
flush_queue(int queue, MemoryContext context)
{
	BufferBatch *batch = buffer_take(my_place.owner, queue);
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
	BufferOwner *owner = buffer_owner(my_place.owner);
	BufferQueue *queue = NULL;
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(buffer_owner_lock(my_place.owner), LW_EXCLUSIVE);
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
	LWLockRelease(buffer_owner_lock(my_place.owner));
}

/* Move some in a transaction.  Returns its error, or NULL. */
static ErrorData *
move_spool_rows(SpoolTake take, SpoolRow *rows, int *num, MemoryContext context)
{
	ErrorData  *volatile error = NULL;

	trying_spool = take != SPOOL_MARK_ONE && take != SPOOL_MAKE_DUE;
	PG_TRY();
	{
		begin_transaction(context);
		*num = buffer_spool_move(my_place.role, take, rows);
		commit_transaction(context);
	}
	PG_CATCH();
	{
		error = abort_transaction(context);
	}
	PG_END_TRY();
	trying_spool = false;
	reset_settings();
	return error;
}

/*
 * Move rows from the spool to their tables.  Where a transaction fails, for a
 * deferred constraint, say, rows get one each.  Where the process has ended in
 * one, each is marked as tried, in a transaction before, so that none can be
 * the end of processes for ever.
 */
static void
flush_spool(MemoryContext context)
{
	static SpoolRow rows[BUFFER_MAX_FLUSH];
	static int	singles = 0;	/* still to be taken one at a time */
	static uint64 made_due = 0; /* for this request */
	BufferOwner *owner = buffer_owner(my_place.owner);
	int			num = 0;
	ErrorData  *error;
	int64		spooled;
	uint64		request;
	bool		requested;
	bool		more;

	LWLockAcquire(buffer_owner_lock(my_place.owner), LW_EXCLUSIVE);
	spooled = owner->spooled;
	request = owner->spool_request;
	requested = request > owner->spool_served;
	if (owner->spool_suspect)
	{
		owner->spool_suspect = false;
		marking_spool = true;
		singles = BUFFER_MAX_FLUSH;
	}
	LWLockRelease(buffer_owner_lock(my_place.owner));
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
	error = move_spool_rows(marking_spool ? SPOOL_MARK_ONE :
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
		buffer_spool_give_up(my_place.role, &rows[0], error);
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
	marking_spool = marking_spool && singles > 0;
	debug_query_string = NULL;
	(void) pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);

	if (more)
		return;					/* after rows of a queue */
	LWLockAcquire(buffer_owner_lock(my_place.owner), LW_EXCLUSIVE);
	owner->spooled -= spooled;
	owner->spooled_at = GetCurrentTimestamp();
	owner->spool_served = request;
	LWLockRelease(buffer_owner_lock(my_place.owner));
	ConditionVariableBroadcast(&owner->flushed);
}

/* ---------------------------------------------------------------------
 * What is to be done next
 */

/* Is something of the queue due; else lower *due_at to when it is. */
static bool
queue_is_due(const BufferQueue *queue, TimestampTz now, TimestampTz *due_at)
{
	TimestampTz at;

	if (queue->target == InvalidOid || queue->first == BUFFER_NONE)
		return false;
	if (queue->acks > 0 || queue->rows >= perfopt_batch_size ||
		queue->rows == 0 ||		/* withdrawn */
		queue->flush_number > queue->done_number || told_to_go)
		return true;
	at = TimestampTzPlusMilliseconds(queue->oldest_at, perfopt_batch_max_wait);
	*due_at = Min(*due_at, at);
	return at <= now;
}

static bool
spool_is_due(const BufferOwner *owner, TimestampTz now, TimestampTz *due_at)
{
	TimestampTz at;

	if (owner->spool_request > owner->spool_served)
		return true;
	if (owner->spooled == 0 || told_to_go)	/* they are safe where they are */
		return false;
	at = TimestampTzPlusMilliseconds(owner->spooled_at, perfopt_batch_max_wait);
	if (owner->spooled >= perfopt_batch_size || at <= now)
		return true;
	*due_at = Min(*due_at, at);
	return false;
}

/*
 * What is due now, in turns.  When nothing is, *wait_ms is set, and with leave
 * and no row anywhere the flusher is not there any more.
 */
static Work
next_work(int *queue, long *wait_ms, bool leave, bool *left)
{
	int			number = my_place.owner;
	BufferOwner *owner = buffer_owner(number);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due_at = TimestampTzPlusMilliseconds(now, 1000);
	Work		work = WORK_WAIT;
	bool		empty;
	static bool spool_next = false;

	LWLockAcquire(buffer_owner_lock(number), LW_EXCLUSIVE);
	empty = owner->spool_promises == 0 && owner->spooled == 0;
	for (int i = 1; i <= BUFFER_MAX_QUEUES && work == WORK_WAIT; i++)
	{
		int			candidate = (*queue + i) % BUFFER_MAX_QUEUES;
		BufferQueue *waiting = &owner->queues[candidate];

		if (queue_is_due(waiting, now, &due_at))
		{
			work = WORK_ROWS;
			*queue = candidate;
		}
		else if (waiting->target != InvalidOid && waiting->first != BUFFER_NONE)
			empty = false;
	}
	if ((work == WORK_WAIT || spool_next) && spool_is_due(owner, now, &due_at))
		work = WORK_SPOOL;
	spool_next = work == WORK_ROWS;
	if (work == WORK_WAIT && leave && (empty || told_to_go))
	{
		*left = true;
		my_place.owner = BUFFER_NONE;
		owner->flusher = FLUSHER_NONE;
	}
	owner->flusher_sleeps = work == WORK_WAIT;
	LWLockRelease(buffer_owner_lock(number));
	*wait_ms = Max(TimestampDifferenceMilliseconds(now, due_at), 1);
	return work;
}

/* ---------------------------------------------------------------------
 * The job
 */
static void
flusher_exit(int code, Datum arg)
{
	if (my_place.owner == BUFFER_NONE)
		return;
	buffer_give_back(my_place.owner, trying);
	buffer_flusher_gone(my_place.owner, trying_spool || marking_spool);
	my_place.owner = BUFFER_NONE;
}

static void
handle_sigterm(SIGNAL_ARGS)
{
	int			save_errno = errno;

	/* the postmaster may say it twice */
	if (told_to_go && TimestampDifferenceExceeds(told_at, GetCurrentTimestamp(), SECOND_MS))
		die(PERFOPT_SIGNAL_PASS);
	if (!told_to_go)
		told_at = GetCurrentTimestamp();
	told_to_go = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/* Become the flusher of this role here; false when there is one. */
static bool
attach(void)
{
	BufferPlace place;
	BufferOwner *owner;

	if (!buffer_find_owner(MyDatabaseId, GetSessionUserId(), true, &place) ||
		!buffer_lock_place(&place))
		return false;
	owner = buffer_owner(place.owner);
	if (owner->flusher == FLUSHER_RUNNING)
	{
		LWLockRelease(buffer_owner_lock(place.owner));
		return false;
	}
	owner->flusher = FLUSHER_RUNNING;
	owner->flusher_proc = perfopt_my_proc_number();
	owner->flusher_pid = MyProcPid;
	owner->flusher_sleeps = false;
	/* who knows what is in the spool */
	if (owner->spooled == 0)
		owner->spooled = 1;
	owner->spooled_at = 0;
	my_place = place;
	LWLockRelease(buffer_owner_lock(place.owner));
	return true;
}

/* Others wait for a process: go on in another one, when it is our turn again. */
static bool
make_way(void)
{
	MemoryContext context = CurrentMemoryContext;
	BufferPlace place = my_place;
	BufferOwner *owner = buffer_owner(place.owner);
	PerfoptJob	job = {.slot = -1};
	ErrorData  *error;

	LWLockAcquire(buffer_owner_lock(place.owner), LW_EXCLUSIVE);
	my_place.owner = BUFFER_NONE;
	owner->flusher = FLUSHER_NONE;
	owner->spool_suspect = owner->spool_suspect || marking_spool;
	LWLockRelease(buffer_owner_lock(place.owner));
	StartTransactionCommand();
	error = buffer_need_flusher(&place, &job);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return error == NULL || !attach();
}

static void
flush_rows(const char *payload, PerfoptJobOutcome *outcome)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context;
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz worked_at = start;
	int			queue = 0;
	bool		clean = true;
	bool		left = false;

	/* the first block of it is kept from flush to flush */
	context = AllocSetContextCreate(caller, "perfopt insert buffer",
									0, 128 * 1024, ALLOCSET_DEFAULT_MAXSIZE);
	before_shmem_exit(flusher_exit, (Datum) 0);
	RegisterXactCallback(post_at_commit, NULL);
	pqsignal(SIGTERM, handle_sigterm);
	pqsignal(SIGINT, handle_sigint);
	if (!attach())
		return;
	enable_timeout_every(RegisterTimeout(USER_TIMEOUT, look_for_end),
						 GetCurrentTimestamp(), LOOK_MS);

	while (!left)
	{
		TimestampTz now = GetCurrentTimestamp();
		bool		idle = TimestampDifferenceExceeds(worked_at, now, LINGER_MS);
		bool		leave = told_to_go || idle || !perfopt_worker_enabled;
		long		wait_ms;

		MemoryContextSwitchTo(context);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		/* its own turn is over as soon as it has nothing to do */
		if (!leave && TimestampDifferenceExceeds(start, now, TURN_MS) && perfopt_jobs_waiting())
		{
			leave = true;
			if (!clean && make_way())
			{
				left = true;
				break;
			}
			start = now;
		}
		if (out_of_time())
			break;
		switch (next_work(&queue, &wait_ms, leave, &left))
		{
			case WORK_ROWS:
				flush_queue(queue, context);
				break;
			case WORK_SPOOL:
				flush_spool(context);
				break;
			case WORK_WAIT:
				if (left)
					break;
				if (!clean)
				{
					(void) perfopt_job_run_statement("DISCARD ALL");
					reset_settings();
					clean = true;
					continue;	/* something may have come */
				}
				if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							  wait_ms, PG_WAIT_EXTENSION) & WL_LATCH_SET)
					ResetLatch(MyLatch);
				continue;
		}
		worked_at = GetCurrentTimestamp();
		clean = false;
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

void
buffer_flush_init(void)
{
	perfopt_job_entry_register(ENTRY_NAME, flush_rows);
}
