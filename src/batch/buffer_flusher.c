/*
 * buffer_flusher.c
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
 * When it pauses, what triggers have left in its session, such as temporary
 * tables, goes by DISCARD ALL.
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
#include "batch/buffer_flush_internal.h"
#include "common/compat.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define ENTRY_NAME		"buffer_flush"

/* It goes when nothing was to be done for so long. */
#define LINGER_MS		5000

/* How long it works on when it is told to go. */
#define LAST_MS			2000

/* Told to go again after that, it goes at once. */
#define SECOND_MS		1000

/* A job that was about to be submitted and has not been since then. */
#define SUBMIT_MS		5000

/* Between two looks whether a flush has to end. */
#define LOOK_MS			250

typedef enum Work
{
	WORK_WAIT,
	WORK_ROWS,
	WORK_SPOOL
} Work;

BufferFlusher buffer_flusher = {.place.owner = BUFFER_NONE};

static volatile sig_atomic_t told_to_go = false;
static TimestampTz told_at = 0;

bool
buffer_in_flusher(void)
{
	return buffer_flusher.place.owner != BUFFER_NONE;
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
	for (int i = 0; i < buffer_flush_num_settings; i++)
		appendStringInfo(&settings, "%s=%s\n", buffer_flush_settings[i][0], buffer_flush_settings[i][1]);
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
 * The end of its process
 */

/* Was the time of the one who told us to go up? */
bool
buffer_flush_out_of_time(void)
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
	if (!buffer_flush_out_of_time())
		return;
	InterruptPending = true;
	ProcDiePending = true;
	SetLatch(MyLatch);
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
	int			number = buffer_flusher.place.owner;
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
		buffer_flusher.place.owner = BUFFER_NONE;
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
	if (buffer_flusher.place.owner == BUFFER_NONE)
		return;
	buffer_give_back(buffer_flusher.place.owner, buffer_flusher.trying);
	buffer_flusher_gone(buffer_flusher.place.owner, buffer_flusher.trying_spool || buffer_flusher.marking_spool);
	buffer_flusher.place.owner = BUFFER_NONE;
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
	buffer_flusher.place = place;
	LWLockRelease(buffer_owner_lock(place.owner));
	return true;
}

/* Others wait for a process: go on in another one, when it is our turn again. */
static bool
make_way(void)
{
	MemoryContext context = CurrentMemoryContext;
	BufferPlace place = buffer_flusher.place;
	BufferOwner *owner = buffer_owner(place.owner);
	PerfoptJob	job = {.slot = -1};
	ErrorData  *error;

	LWLockAcquire(buffer_owner_lock(place.owner), LW_EXCLUSIVE);
	buffer_flusher.place.owner = BUFFER_NONE;
	owner->flusher = FLUSHER_NONE;
	owner->spool_suspect = owner->spool_suspect || buffer_flusher.marking_spool;
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
	RegisterXactCallback(buffer_flush_at_commit, NULL);
	pqsignal(SIGTERM, handle_sigterm);
	pqsignal(SIGINT, buffer_flush_sigint);
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
		if (!leave && TimestampDifferenceExceeds(start, now, BUFFER_TURN_MS) && perfopt_jobs_waiting())
		{
			leave = true;
			if (!clean && make_way())
			{
				left = true;
				break;
			}
			start = now;
		}
		if (buffer_flush_out_of_time())
			break;
		switch (next_work(&queue, &wait_ms, leave, &left))
		{
			case WORK_ROWS:
				buffer_flush_queue(queue, context);
				break;
			case WORK_SPOOL:
				buffer_flush_spool(context);
				break;
			case WORK_WAIT:
				if (left)
					break;
				if (!clean)
				{
					(void) perfopt_job_run_statement("DISCARD ALL");
					buffer_flush_reset_settings();
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
