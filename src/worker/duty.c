/*
 * duty.c
 *		Duties: their table, how the worker of a database runs them, and how
 *		other backends ask it to.
 *
 * LOCKING
 * The table is filled while the postmaster loads the library, and constant
 * afterwards.  Requests live in the database's entry, under the registry's
 * lock: requested is counted up by whoever asks, done is set by the worker to
 * what requested was when the run began.  A run that had begun before the
 * request does not count as its answer.
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "access/xact.h"
#include "access/xlog.h"
#include "common/settings.h"
#include "common/stop_points.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "worker/worker_internal.h"

/* A duty's transaction may take so long. */
#define DUTY_TRANSACTION_TIMEOUT_MS	60000

/*
 * A duty that works for long rests each time it has worked so long, for as long as
 * perfopt.worker_cpu_share says; but what is done soon is done at once.
 */
#define WORK_MS						10
#define REST_MS						2000	/* at most */
#define UNRESTED_MS					100

/* So often it is looked meanwhile whether a brief duty is due. */
#define LOOK_MS						100

/* ... and goes on in a new transaction after so much work. */
#define TRANSACTION_WORK_MS			1000

/* The same failure of a duty goes to the log this often. */
#define DUTY_LOG_INTERVAL_MS		(3600 * 1000)

static const PerfoptDuty *duties[WORKER_MAX_DUTIES];
static int	num_duties = 0;

/* What the worker remembers of each duty. */
typedef struct DutyRun
{
	int64		last_run;		/* by worker_clock_ms() */
	int64		logged_at;		/* 0: never */
	char		logged[WORKER_ERROR_LEN];
} DutyRun;

static DutyRun runs[WORKER_MAX_DUTIES];
static Oid	session_user_id;	/* the worker's own, between transactions */

/* The run that is going on. */
typedef struct CurrentRun
{
	int			duty;
	MemoryContext context;		/* reset when it has ended */
	double		worked_ms;		/* until working_since */
	double		transaction_at_ms;	/* ... when its transaction began */
	TimestampTz working_since;
	bool		in_rest;		/* of another one */
} CurrentRun;

static CurrentRun current = {0};

/* Duties to be woken when this backend's transaction commits. */
static bool wake_at_commit[WORKER_MAX_DUTIES];
static bool wake_any = false;

void
perfopt_duty_register(const PerfoptDuty *duty)
{
	if (num_duties == WORKER_MAX_DUTIES)
		elog(ERROR, "too many perfopt duties");
	Assert(strlen(duty->name) < NAMEDATALEN);
	duties[num_duties++] = duty;
}

int
worker_num_duties(void)
{
	return num_duties;
}

const PerfoptDuty *
worker_duty(int i)
{
	return duties[i];
}

int
worker_find_duty(const char *name)
{
	for (int i = 0; i < num_duties; i++)
		if (strcmp(duties[i]->name, name) == 0)
			return i;
	elog(ERROR, "there is no perfopt duty \"%s\"", name);
	return -1;					/* keep compiler quiet */
}

/* ---- in the worker ---- */

/* The worker begins: every duty is due one interval from now. */
void
worker_duties_start(void)
{
	int			sec_context;

	current.context = AllocSetContextCreate(TopMemoryContext, "perfopt duty",
											ALLOCSET_DEFAULT_SIZES);
	GetUserIdAndSecContext(&session_user_id, &sec_context);
	for (int i = 0; i < num_duties; i++)
		runs[i].last_run = worker_clock_ms();
}

/* When the next duty is due, or far. */
int64
worker_duties_next(int64 far)
{
	int64		next = far;

	for (int i = 0; i < num_duties; i++)
		if (*duties[i]->interval_ms > 0)
			next = Min(next, runs[i].last_run + *duties[i]->interval_ms);
	return next;
}

/*
 * Begin a transaction as the owner of the extension.  False, and no
 * transaction, when the extension is gone.
 */
static bool
begin_transaction(void)
{
	Oid			owner;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (!worker_extension_exists(&owner))
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		return false;
	}
	SetUserIdAndSecContext(owner, SECURITY_LOCAL_USERID_CHANGE);
	enable_timeout_after(STATEMENT_TIMEOUT, DUTY_TRANSACTION_TIMEOUT_MS);
	MemoryContextSwitchTo(current.context);
	return true;
}

static void
commit_transaction(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	SetUserIdAndSecContext(session_user_id, 0);
	disable_timeout(STATEMENT_TIMEOUT, false);
	MemoryContextSwitchTo(current.context);
	(void) pgstat_report_stat(false);
}

static void
next_transaction(void)
{
	CHECK_FOR_INTERRUPTS();
	if (!begin_transaction())
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"perfopt\" is gone")));
	current.transaction_at_ms = current.worked_ms;
}

void
perfopt_duty_next_transaction(void)
{
	commit_transaction();
	next_transaction();
}

/* Can tables be written here and now? */
static bool
can_write(void)
{
	return !RecoveryInProgress() && !DefaultXactReadOnly;
}

/* A new message is logged at once, the same again only after a while. */
static void
log_failure(int i, const char *message)
{
	int64		now = worker_clock_ms();
	char		copy[WORKER_ERROR_LEN];

	worker_copy_message(copy, sizeof(copy), message);
	if (runs[i].logged_at != 0 && strcmp(runs[i].logged, copy) == 0 &&
		now - runs[i].logged_at < DUTY_LOG_INTERVAL_MS)
		return;
	runs[i].logged_at = now;
	strcpy(runs[i].logged, copy);
	ereport(LOG,
			(errmsg("perfopt duty \"%s\" failed in database %u: %s",
					duties[i]->name, MyDatabaseId, message),
			 errdetail("It is tried again when it is due; perfopt.workers shows further failures.")));
}

static void
show_running(int i)
{
	char		activity[NAMEDATALEN + 32];

	worker_set_state(DATABASE_RUNNING, i);
	snprintf(activity, sizeof(activity), "perfopt: duty %s", duties[i]->name);
	pgstat_report_activity(STATE_RUNNING, activity);
}

/*
 * Run one duty, whatever becomes of it.  Returns what it failed with, in the
 * run's context, or NULL.  *gone is set when the extension is no more.
 */
static ErrorData *
run_duty(int i, bool *gone)
{
	ErrorData  *volatile error = NULL;

	show_running(i);
	current.duty = i;
	current.worked_ms = current.transaction_at_ms = 0;
	current.working_since = GetCurrentTimestamp();

	PG_TRY();
	{
		if (begin_transaction())
		{
			PERFOPT_STOP_POINT("duty-begun");
			duties[i]->run();
			PERFOPT_STOP_POINT("duty-commit");
			commit_transaction();
		}
		else
			*gone = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(current.context);
		error = CopyErrorData();
		HOLD_INTERRUPTS();
		FlushErrorState();
		disable_all_timeouts(false);
		QueryCancelPending = false;
		AbortCurrentTransaction();
		SetUserIdAndSecContext(session_user_id, 0);
		MemoryContextSwitchTo(current.context);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	/* A failure while the extension goes away is none. */
	if (error)
	{
		if (begin_transaction())
			commit_transaction();
		else
			*gone = true;
	}
	return error;
}

/*
 * What a run has freed goes back to the system: glibc keeps it otherwise, as
 * soon as something small lies above it.
 */
static void
return_memory(void)
{
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}

/* Record how the run ended that serves requests up to number. */
static void
finish_run(int i, uint32 number, int sqlerrcode, const char *message)
{
	DutyRequests *requests = &worker_my_entry->duties[i];
	char text[	NAMEDATALEN + WORKER_ERROR_LEN];

	snprintf(text, sizeof(text), "%s: %s", duties[i]->name, message);
	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	requests->done = number;
	requests->sqlerrcode = sqlerrcode;
	worker_copy_message(requests->message, sizeof(requests->message), message);
	if (sqlerrcode != 0)
		worker_stats_error(&worker_my_entry->stats, text);
	LWLockRelease(worker_registry->lock);
	ConditionVariableBroadcast(&worker_registry->changed);
}

/* By time or by request; number: of the latest one. */
static bool
is_due(int i, uint32 *number, bool *requested)
{
	int			interval = *duties[i]->interval_ms;

	LWLockAcquire(worker_registry->lock, LW_SHARED);
	*number = worker_my_entry->duties[i].requested;
	*requested = *number != worker_my_entry->duties[i].done;
	LWLockRelease(worker_registry->lock);
	return *requested || (interval > 0 && worker_clock_ms() - runs[i].last_run >= interval);
}

/* False: there was nothing to do. */
static bool
run_if_due(int i, bool *gone)
{
	bool		requested;
	uint32		number;
	ErrorData  *error;

	if (!is_due(i, &number, &requested))
		return false;
	runs[i].last_run = worker_clock_ms();

	if (duties[i]->writes && !can_write())
	{
		if (requested)
			finish_run(i, number, ERRCODE_READ_ONLY_SQL_TRANSACTION,
					   "this writes, and the server or database is read-only");
		return false;
	}

	error = run_duty(i, gone);
	if (error && !*gone)
		log_failure(i, error->message);
	if (!*gone)
		finish_run(i, number, error ? error->sqlerrcode : 0,
				   error ? error->message : "");
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(current.context);
	return_memory();
	CHECK_FOR_INTERRUPTS();
	return true;
}

/*
 * Run what is due.  False when the extension is gone.
 */
bool
worker_duties_run_due(void)
{
	bool		looked = false;
	bool		gone = false;
	Oid			owner;

	for (int i = 0; i < num_duties && !gone; i++)
		looked = run_if_due(i, &gone) || looked;

	/* Nothing was due: is there still somebody to work for? */
	if (!looked && !gone)
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		gone = !worker_extension_exists(&owner);
		PopActiveSnapshot();
		CommitTransactionCommand();
		MemoryContextSwitchTo(TopMemoryContext);
	}
	(void) pgstat_report_stat(true);
	return !gone;
}

/*
 * Resting
 */
static bool
brief_one_is_due(void)
{
	uint32		number;
	bool		requested;

	for (int i = 0; i < num_duties; i++)
		if (duties[i]->brief && is_due(i, &number, &requested))
			return true;
	return false;
}

/* Those that are done soon don't wait for one that works for long. */
static void
run_brief_ones(void)
{
	CurrentRun	resting = current;
	bool		gone = false;

	commit_transaction();
	current.in_rest = true;
	current.context = AllocSetContextCreate(TopMemoryContext, "perfopt brief duty",
											ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		for (int i = 0; i < num_duties && !gone; i++)
			if (duties[i]->brief)
				(void) run_if_due(i, &gone);
	}
	PG_FINALLY();
	{
		/* also when it is cancelled between two of them */
		MemoryContextDelete(current.context);
		current = resting;
	}
	PG_END_TRY();
	show_running(current.duty);
	next_transaction();
}

/* Not on the latch, which may well be set. */
static void
rest(double ms)
{
	TimestampTz until = GetCurrentTimestamp() + (TimestampTz) (Min(ms, REST_MS) * 1000);

	for (;;)
	{
		TimestampTz left = until - GetCurrentTimestamp();

		if (brief_one_is_due())
			run_brief_ones();
		if (left <= 0)
			return;
		pg_usleep(Min(left, LOOK_MS * 1000));
		CHECK_FOR_INTERRUPTS();
	}
}

double
perfopt_duty_rest(void)
{
	MemoryContext context = CurrentMemoryContext;
	double		ms;

	CHECK_FOR_INTERRUPTS();
	ms = (GetCurrentTimestamp() - current.working_since) / 1000.0;
	if (ms < WORK_MS || current.in_rest)
		return current.worked_ms + ms;
	current.worked_ms += ms;
	if (current.worked_ms > UNRESTED_MS)
		rest(ms / perfopt_worker_cpu_share - ms);
	if (current.worked_ms - current.transaction_at_ms > TRANSACTION_WORK_MS)
		perfopt_duty_next_transaction();
	MemoryContextSwitchTo(context);
	current.working_since = GetCurrentTimestamp();
	return current.worked_ms;
}

/* ---- in other backends ---- */

static void
no_worker(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("perfopt's worker is not running in this database"),
			 perfopt_worker_enabled ?
			 errhint("The view perfopt.workers and the server log may tell why; perfopt.start_worker() asks for it.") :
			 errhint("Set \"perfopt.worker\" to on and reload the configuration.")));
}

/*
 * Count a request up and wake the worker.  Returns its number; the caller
 * holds the lock exclusively.
 */
static uint32
request_duty(DatabaseEntry *entry, int i)
{
	if (entry->latch)
		SetLatch(entry->latch);
	return ++entry->duties[i].requested;
}

/* Have the worker of the database, if there is one, run the duty soon. */
void
worker_duty_wake(Oid database, const char *name)
{
	DatabaseEntry *entry;
	int			i;

	if (name[0] == '\0')
		return;
	i = worker_find_duty(name);
	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	entry = worker_find_database(database);
	if (entry)
		(void) request_duty(entry, i);
	LWLockRelease(worker_registry->lock);
}

void
perfopt_duty_run_now(const char *name, int timeout_ms)
{
	int			i;
	DatabaseEntry *entry;
	uint32		number = 0;
	int64		until = worker_clock_ms() + timeout_ms;

	perfopt_require_preload();
	i = worker_find_duty(name);

	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	entry = worker_find_database(MyDatabaseId);
	if (entry && perfopt_worker_enabled)
		number = request_duty(entry, i);
	LWLockRelease(worker_registry->lock);
	if (number == 0)
		no_worker();

	ConditionVariablePrepareToSleep(&worker_registry->changed);
	for (;;)
	{
		bool		done = false;
		bool		lost = false;
		int			sqlerrcode = 0;
		char		message[WORKER_ERROR_LEN];
		int64		left;

		LWLockAcquire(worker_registry->lock, LW_SHARED);
		lost = entry->dboid != MyDatabaseId ||
			entry->state == DATABASE_UNUSED || entry->state == DATABASE_ABSENT;
		if (!lost && (int32) (entry->duties[i].done - number) >= 0)
		{
			done = true;
			sqlerrcode = entry->duties[i].sqlerrcode;
			strlcpy(message, entry->duties[i].message, sizeof(message));
		}
		LWLockRelease(worker_registry->lock);

		if (done && sqlerrcode != 0)
			ereport(ERROR,
					(errcode(sqlerrcode),
					 errmsg("%s", message),
					 errcontext("perfopt duty \"%s\" in the background worker", name)));
		if (done)
			break;
		if (lost)
			no_worker();

		left = until - worker_clock_ms();
		if (left <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("perfopt duty \"%s\" was not done within %d ms",
							name, timeout_ms),
					 errhint("The view perfopt.workers tells what the worker is doing.")));
		(void) ConditionVariableTimedSleep(&worker_registry->changed, left,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

static void
wake_at_end(XactEvent event, void *arg)
{
	DatabaseEntry *entry;

	if (!wake_any || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
					  event != XACT_EVENT_PREPARE))
		return;

	if (event == XACT_EVENT_COMMIT)
	{
		LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
		entry = worker_find_database(MyDatabaseId);
		for (int i = 0; entry && i < num_duties; i++)
			if (wake_at_commit[i])
				(void) request_duty(entry, i);
		LWLockRelease(worker_registry->lock);
	}
	memset(wake_at_commit, 0, sizeof(wake_at_commit));
	wake_any = false;
}

void
perfopt_duty_wake_at_commit(const char *name)
{
	static bool registered = false;
	int			i;

	if (!perfopt_shmem_ready())
		return;
	i = worker_find_duty(name);
	if (!registered)
	{
		RegisterXactCallback(wake_at_end, NULL);
		registered = true;
	}
	wake_at_commit[i] = true;
	wake_any = true;
}
