/*
 * pool.c
 *		Jobs: their slots in shared memory, what submitters do with them, and
 *		how the launcher gives them processes.
 *
 *	NONE -> QUEUED -> STARTING -> RUNNING -> DONE | FAILED | CANCELLED | LOST
 *
 * LOCKING
 * One LWLock guards all slots.  It is held for a look or an update, never
 * while waiting, and never together with the registry's.
 *
 * A slot is taken by the submitter (NONE -> QUEUED).  Only the launcher takes
 * it to STARTING.  From the moment a process has attached (pid is set) only
 * that process moves it on, the last time in its exit callback, after it has
 * left its database; a job that has ended has no process any more.  Whoever
 * ends a released job, or releases an ended one, frees the slot.
 *
 * Two numbers keep late comers out: a submitter's handle has the generation,
 * so it never sees the slot's next job; a process has the ticket of its start,
 * so it never takes a slot that was given to another in the meantime.
 *
 * Nothing is kept outside of the slots: whatever dies, nothing is left over.
 * The submitter's exit releases its jobs, the process's exit ends its job, the
 * launcher ends what never got a process, and when the server restarts after a
 * crash everything begins anew.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "common/compat.h"
#include "common/stop_points.h"
#include "common/try.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "worker/worker_internal.h"

Pool	   *worker_pool = NULL;

/* This backend's transactions, counted while it submits jobs. */
static uint64 my_xact = 1;
static bool submitted_in_xact = false;

/* In the launcher: what it has started, by slot. */
static BackgroundWorkerHandle **handles;
static uint64 *handle_tickets;

static Size
pool_size(void)
{
	return add_size(offsetof(Pool, slots),
					mul_size(perfopt_max_jobs, sizeof(JobSlot)));
}

static void
pool_attach(void *area, LWLockPadded *locks, bool found)
{
	worker_pool = area;
	if (found)
		return;

	memset(worker_pool, 0, pool_size());
	worker_pool->lock = &locks[0].lock;
	ConditionVariableInit(&worker_pool->changed);
	worker_pool->num_slots = perfopt_max_jobs;
}

void
worker_pool_init(void)
{
	static const PerfoptShmemPart part = {
		.name = "jobs",
		.num_locks = 1,
		.area_size = pool_size,
		.init = pool_attach
	};

	perfopt_shmem_register(&part);
}

/* ---- the ways of a slot; the caller holds the lock exclusively ---- */

void
worker_job_end(JobSlot *slot, PerfoptJobState state, int sqlerrcode,
			   const char *message)
{
	slot->pid = 0;
	slot->outcome.state = state;
	slot->outcome.sqlerrcode = sqlerrcode;
	worker_copy_message(slot->outcome.message, sizeof(slot->outcome.message),
						message);
	slot->state = slot->released ? PERFOPT_JOB_NONE : state;
}

static void
cancel_slot(JobSlot *slot)
{
	if (slot->state == PERFOPT_JOB_NONE || PERFOPT_JOB_ENDED(slot->state))
		return;
	slot->cancel_requested = true;
	if (slot->state == PERFOPT_JOB_QUEUED)
		worker_job_end(slot, PERFOPT_JOB_CANCELLED, ERRCODE_QUERY_CANCELED,
					   "cancelled before it began");
	else if (slot->pid != 0)
		kill(slot->pid, SIGINT);
	/* else it looks when it attaches */
}

static void
release_slot(JobSlot *slot)
{
	slot->released = true;
	slot->submitter = 0;
	if (PERFOPT_JOB_ENDED(slot->state))
		slot->state = PERFOPT_JOB_NONE;
}

/* The slot of a job, or NULL when it has none any more. */
static JobSlot *
find_slot(PerfoptJob job)
{
	JobSlot    *slot;

	if (job.slot < 0 || job.slot >= worker_pool->num_slots)
		return NULL;
	slot = &worker_pool->slots[job.slot];
	if (slot->state == PERFOPT_JOB_NONE || slot->generation != job.generation)
		return NULL;
	return slot;
}

static bool
is_at_work(const JobSlot *slot)
{
	return slot->state == PERFOPT_JOB_STARTING || slot->state == PERFOPT_JOB_RUNNING;
}

/* Half of something, if that is anything: what jobs fair to roles leave to one. */
static int
share_of_role(int all)
{
	return Max(all / 2, 1);
}

/* How many jobs fair to roles has the role: at work, or waiting as well? */
static int
jobs_of_role(Oid role, bool waiting)
{
	int			jobs = 0;

	for (int i = 0; i < worker_pool->num_slots; i++)
	{
		JobSlot    *slot = &worker_pool->slots[i];

		if (slot->fair_to_roles && slot->role == role &&
			(is_at_work(slot) || (waiting && slot->state == PERFOPT_JOB_QUEUED)))
			jobs++;
	}
	return jobs;
}

/* Does it wait for nothing but a process? */
static bool
may_start(const JobSlot *slot)
{
	return slot->state == PERFOPT_JOB_QUEUED &&
		(!slot->fair_to_roles ||
		 jobs_of_role(slot->role, false) < share_of_role(perfopt_max_workers));
}

/* ---- in the submitter ---- */

/*
 * Give up jobs of this backend: all, or those submitted in the transaction
 * that has just failed, whose handles nobody has any more.
 */
static void
give_up_jobs(bool all)
{
	LWLockAcquire(worker_pool->lock, LW_EXCLUSIVE);
	for (int i = 0; i < worker_pool->num_slots; i++)
	{
		JobSlot    *slot = &worker_pool->slots[i];

		if (slot->state == PERFOPT_JOB_NONE || slot->submitter != MyProcPid ||
			(!all && slot->submitter_xact != my_xact))
			continue;
		if (slot->cancel_with_submitter)
			cancel_slot(slot);
		release_slot(slot);
	}
	LWLockRelease(worker_pool->lock);
	ConditionVariableBroadcast(&worker_pool->changed);
}

static void
submitter_exit(int code, Datum arg)
{
	give_up_jobs(true);
}

static void
submitter_xact_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (!submitted_in_xact)
		return;
	if (event == XACT_EVENT_ABORT)
		give_up_jobs(false);
	submitted_in_xact = false;
	my_xact++;
}

bool
perfopt_job_role_can_log_in(Oid role)
{
	HeapTuple	tuple;
	bool		result;

	if (PERFOPT_BYPASS_ROLELOGINCHECK != 0)
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	return result;
}

/* Refuse what can be seen not to work, rather than have the process fail. */
static void
check_spec(const PerfoptJobSpec *spec)
{
	if (strlen(spec->payload) >= PERFOPT_JOB_PAYLOAD_MAX ||
		(spec->settings && strlen(spec->settings) >= JOB_SETTINGS_MAX))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("perfopt job is too long"),
				 errdetail("At most %d bytes of statement and %d bytes of settings are possible.",
						   PERFOPT_JOB_PAYLOAD_MAX - 1, JOB_SETTINGS_MAX - 1)));
	if (spec->entry && worker_job_entry(spec->entry) == NULL)
		elog(ERROR, "there is no perfopt job entry \"%s\"", spec->entry);
	if (spec->then_duty)
		(void) worker_find_duty(spec->then_duty);
	if (!perfopt_worker_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("perfopt's background workers are turned off"),
				 errhint("Set \"perfopt.worker\" to on and reload the configuration.")));

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(spec->role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", spec->role)));
	if (!perfopt_job_role_can_log_in(spec->role))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role \"%s\" is not permitted to log in",
						GetUserNameFromId(spec->role, false)),
				 errdetail("A background worker cannot run as such a role before PostgreSQL 17."),
				 errhint("Run this as a role that has the LOGIN attribute.")));
}

PerfoptJob
perfopt_job_submit(const PerfoptJobSpec *spec)
{
	static bool registered = false;
	PerfoptJob	job = {.slot = -1};
	bool		too_many;

	perfopt_require_preload();
	check_spec(spec);

	if (!registered)
	{
		before_shmem_exit(submitter_exit, (Datum) 0);
		RegisterXactCallback(submitter_xact_end, NULL);
		registered = true;
	}

	LWLockAcquire(worker_pool->lock, LW_EXCLUSIVE);
	too_many = spec->fair_to_roles &&
		jobs_of_role(spec->role, true) >= share_of_role(worker_pool->num_slots);
	for (int i = 0; !too_many && i < worker_pool->num_slots && job.slot < 0; i++)
	{
		JobSlot    *slot = &worker_pool->slots[i];

		if (slot->state != PERFOPT_JOB_NONE)
			continue;

		job.slot = i;
		job.generation = ++worker_pool->last_generation;
		memset(slot, 0, offsetof(JobSlot, settings));
		slot->state = PERFOPT_JOB_QUEUED;
		slot->generation = job.generation;
		slot->submitter = MyProcPid;
		slot->submitter_xact = IsTransactionState() ? my_xact : 0;
		slot->cancel_with_submitter = spec->cancel_with_submitter;
		slot->fair_to_roles = spec->fair_to_roles;
		strlcpy(slot->capability, spec->capability, NAMEDATALEN);
		strlcpy(slot->entry, spec->entry ? spec->entry : "", NAMEDATALEN);
		strlcpy(slot->then_duty, spec->then_duty ? spec->then_duty : "", NAMEDATALEN);
		slot->database = spec->database;
		slot->role = spec->role;
		slot->timeout_ms = spec->timeout_ms;
		slot->submitted_at = GetCurrentTimestamp();
		strlcpy(slot->settings, spec->settings ? spec->settings : "",
				JOB_SETTINGS_MAX);
		strlcpy(slot->payload, spec->payload, PERFOPT_JOB_PAYLOAD_MAX);
		submitted_in_xact |= IsTransactionState();
	}
	LWLockRelease(worker_pool->lock);

	if (too_many)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many perfopt jobs of role \"%s\"",
						GetUserNameFromId(spec->role, false)),
				 errdetail("%d of them are waiting or running, half of what the queue has room for.",
						   share_of_role(worker_pool->num_slots)),
				 errhint("Try again later, or raise \"perfopt.max_jobs\".")));
	if (job.slot < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("perfopt's job queue is full"),
				 errdetail("%d jobs are waiting or running.", worker_pool->num_slots),
				 errhint("Try again later, or raise \"perfopt.max_jobs\".")));

	worker_wake_launcher();
	return job;
}

typedef struct Submission
{
	const PerfoptJobSpec *spec;
	PerfoptJob *job;
} Submission;

static void
submit(void *arg)
{
	Submission *submission = arg;

	*submission->job = perfopt_job_submit(submission->spec);
}

ErrorData *
perfopt_job_try_submit(const PerfoptJobSpec *spec, PerfoptJob *job)
{
	Submission	submission = {spec, job};

	return perfopt_try(CurrentMemoryContext, submit, &submission);
}

PerfoptJobState
perfopt_job_poll(PerfoptJob job, PerfoptJobOutcome *outcome)
{
	JobSlot    *slot;
	PerfoptJobState state = PERFOPT_JOB_NONE;

	if (outcome)
		memset(outcome, 0, sizeof(*outcome));

	LWLockAcquire(worker_pool->lock, LW_SHARED);
	slot = find_slot(job);
	if (slot)
	{
		state = slot->state;
		if (outcome)
		{
			*outcome = slot->outcome;
			outcome->state = state;
		}
	}
	LWLockRelease(worker_pool->lock);
	return state;
}

PerfoptJobState
perfopt_job_wait(PerfoptJob job, long timeout_ms, PerfoptJobOutcome *outcome)
{
	int64		until = worker_clock_ms() + timeout_ms;
	PerfoptJobState state;

	ConditionVariablePrepareToSleep(&worker_pool->changed);
	for (;;)
	{
		int64		left = timeout_ms < 0 ? -1 : until - worker_clock_ms();

		state = perfopt_job_poll(job, outcome);
		if (state == PERFOPT_JOB_NONE || PERFOPT_JOB_ENDED(state) ||
			(timeout_ms >= 0 && left <= 0))
			break;
		(void) ConditionVariableTimedSleep(&worker_pool->changed, left,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return state;
}

void
perfopt_job_cancel(PerfoptJob job)
{
	JobSlot    *slot;

	LWLockAcquire(worker_pool->lock, LW_EXCLUSIVE);
	slot = find_slot(job);
	if (slot)
		cancel_slot(slot);
	LWLockRelease(worker_pool->lock);
	ConditionVariableBroadcast(&worker_pool->changed);
}

void
perfopt_job_release(PerfoptJob job)
{
	JobSlot    *slot;

	LWLockAcquire(worker_pool->lock, LW_EXCLUSIVE);
	slot = find_slot(job);
	if (slot)
		release_slot(slot);
	LWLockRelease(worker_pool->lock);
}

bool
perfopt_jobs_waiting(void)
{
	bool		waiting = false;

	LWLockAcquire(worker_pool->lock, LW_SHARED);
	for (int i = 0; i < worker_pool->num_slots && !waiting; i++)
		waiting = may_start(&worker_pool->slots[i]);
	LWLockRelease(worker_pool->lock);
	return waiting;
}

/* ---- for a command that wants a database for itself ---- */

/*
 * Stop the jobs that are in the database, but for the caller itself.  Those on
 * their way there see the hold the caller has put on it.
 */
void
worker_pool_stop_database(Oid dboid)
{
	LWLockAcquire(worker_pool->lock, LW_EXCLUSIVE);
	for (int i = 0; i < worker_pool->num_slots; i++)
	{
		JobSlot    *slot = &worker_pool->slots[i];

		if (slot->pid != 0 && slot->pid != MyProcPid && slot->database == dboid)
		{
			slot->cancel_requested = true;
			slot->stopped_by_hold = true;
			kill(slot->pid, SIGTERM);
		}
	}
	LWLockRelease(worker_pool->lock);
}

bool
worker_pool_in_database(Oid dboid)
{
	bool		found = false;

	LWLockAcquire(worker_pool->lock, LW_SHARED);
	for (int i = 0; i < worker_pool->num_slots; i++)
		if (worker_pool->slots[i].pid != 0 &&
			worker_pool->slots[i].pid != MyProcPid &&
			worker_pool->slots[i].database == dboid)
			found = true;
	LWLockRelease(worker_pool->lock);
	return found;
}

/* ---- in the launcher ---- */

/*
 * Starts our predecessor asked for and we cannot follow: ask again, with a new
 * ticket.
 */
void
worker_pool_launcher_start(void)
{
	handles = palloc0(sizeof(BackgroundWorkerHandle *) * worker_pool->num_slots);
	handle_tickets = palloc0(sizeof(uint64) * worker_pool->num_slots);

	LWLockAcquire(worker_pool->lock, LW_EXCLUSIVE);
	for (int i = 0; i < worker_pool->num_slots; i++)
	{
		JobSlot    *slot = &worker_pool->slots[i];

		if (slot->state == PERFOPT_JOB_STARTING && slot->pid == 0)
		{
			slot->state = PERFOPT_JOB_QUEUED;
			slot->ticket = ++worker_pool->last_ticket;
		}
	}
	LWLockRelease(worker_pool->lock);
}

/* End jobs whose process has gone without ever having attached. */
void
worker_pool_reap(void)
{
	bool		ended = false;

	for (int i = 0; i < worker_pool->num_slots; i++)
	{
		JobSlot    *slot = &worker_pool->slots[i];
		char		then_duty[NAMEDATALEN] = "";
		Oid			database = InvalidOid;
		pid_t		pid;

		if (handles[i] == NULL ||
			GetBackgroundWorkerPid(handles[i], &pid) != BGWH_STOPPED)
			continue;
		pfree(handles[i]);
		handles[i] = NULL;

		LWLockAcquire(worker_pool->lock, LW_EXCLUSIVE);
		if (slot->state == PERFOPT_JOB_STARTING && slot->pid == 0 &&
			slot->ticket == handle_tickets[i])
		{
			strlcpy(then_duty, slot->then_duty, NAMEDATALEN);
			database = slot->database;
			if (slot->cancel_requested)
				worker_job_end(slot, PERFOPT_JOB_CANCELLED, ERRCODE_QUERY_CANCELED,
							   "cancelled before it began");
			else
				worker_job_end(slot, PERFOPT_JOB_LOST, 0,
							   "its process ended before it began");
			ended = true;
		}
		LWLockRelease(worker_pool->lock);
		worker_duty_wake(database, then_duty);
	}
	if (ended)
		ConditionVariableBroadcast(&worker_pool->changed);
}

/*
 * Which queued job is next: the oldest one of a capability that has the fewest
 * running, but of those fair to roles none whose role has its share.  -1 when
 * there is none, or enough are running.  Lock held.
 *
 * All loops are over perfopt.max_jobs slots, so this is quadratic in it, once
 * for each job started; starting the process costs more at any sane setting.
 */
static int
next_job(const bool *skip)
{
	int			best = -1;
	int			best_running = 0;
	int			running = 0;

	for (int i = 0; i < worker_pool->num_slots; i++)
		if (is_at_work(&worker_pool->slots[i]))
			running++;
	if (running >= perfopt_max_workers)
		return -1;

	for (int i = 0; i < worker_pool->num_slots; i++)
	{
		JobSlot    *slot = &worker_pool->slots[i];
		int			same = 0;

		if (!may_start(slot) || skip[i])
			continue;
		for (int j = 0; j < worker_pool->num_slots; j++)
		{
			JobSlot    *other = &worker_pool->slots[j];

			if (is_at_work(other) &&
				strcmp(other->capability, slot->capability) == 0)
				same++;
		}
		if (best < 0 || same < best_running ||
			(same == best_running &&
			 slot->generation < worker_pool->slots[best].generation))
		{
			best = i;
			best_running = same;
		}
	}
	return best;
}

/*
 * Give processes to queued jobs.  Returns when to come back, should nothing
 * else happen.
 */
int64
worker_pool_dispatch(int64 now)
{
	bool	   *skip = palloc0(worker_pool->num_slots * sizeof(bool));
	bool		waiting = false;

	for (;;)
	{
		int			i;
		uint64		ticket = 0;
		Oid			database = InvalidOid;
		JobSlot    *slot;
		bool		held;

		LWLockAcquire(worker_pool->lock, LW_SHARED);
		i = next_job(skip);
		if (i >= 0)
			database = worker_pool->slots[i].database;
		LWLockRelease(worker_pool->lock);
		if (i < 0)
			break;

		/* Should a hold come right after this look, the process sees it. */
		LWLockAcquire(worker_registry->lock, LW_SHARED);
		held = worker_database_held(database);
		LWLockRelease(worker_registry->lock);
		if (held)
		{
			skip[i] = true;
			waiting = true;
			continue;
		}

		slot = &worker_pool->slots[i];
		LWLockAcquire(worker_pool->lock, LW_EXCLUSIVE);
		if (slot->state == PERFOPT_JOB_QUEUED)
		{
			ticket = ++worker_pool->last_ticket;
			slot->ticket = ticket;
			slot->state = PERFOPT_JOB_STARTING;
		}
		LWLockRelease(worker_pool->lock);
		if (ticket == 0)
			continue;			/* cancelled meanwhile */

		PERFOPT_STOP_POINT("job-dispatch");
		if (handles[i])
			pfree(handles[i]);
		handle_tickets[i] = ticket;
		handles[i] = worker_start_process("perfopt job", "perfopt_job_worker_main",
										  Int32GetDatum(i), &ticket, sizeof(ticket));
		if (handles[i] == NULL)
		{
			LWLockAcquire(worker_pool->lock, LW_EXCLUSIVE);
			slot->state = PERFOPT_JOB_QUEUED;
			if (slot->cancel_requested)
				cancel_slot(slot);
			LWLockRelease(worker_pool->lock);
			ConditionVariableBroadcast(&worker_pool->changed);
			waiting = true;
			break;
		}
	}
	pfree(skip);
	return now + (waiting ? 1000 : 60 * 1000);
}
