/*
 * database_worker.c
 *		The process that runs the duties in one database.
 *
 *	STARTING -> PROBING -> SLEEPING <-> RUNNING -> STOPPING
 *
 * It leaves when the extension is not or no longer there, when perfopt.worker
 * is turned off, and whenever it is told to by SIGTERM.  It keeps its entry in
 * the registry up to date until its very end, also when it ends by FATAL; what
 * becomes of the entry then is for the launcher to decide.
 *
 * Locking: see registry.c.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "common/compat.h"
#include "common/stop_points.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "worker/worker_internal.h"

/*
 * DROP EXTENSION stops the worker first, see database_commands.c.  Where the
 * extension goes another way (DROP OWNED, replication), it is noticed by
 * looking this often.
 */
#define LOOK_INTERVAL_MS		10000

extern PGDLLEXPORT void perfopt_database_worker_main(Datum main_arg);

DatabaseEntry *worker_my_entry = NULL;

static uint64 my_ticket;
static bool extension_absent = false;
static volatile sig_atomic_t told_to_go = false;

/*
 * Our very last act.  It was registered before the process joined the others,
 * so it runs after it has left them: who finds the entry without a process
 * finds the database without a connection of ours.
 */
static void
database_worker_exit(int code, Datum arg)
{
	DatabaseEntry *entry = worker_my_entry;

	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	Assert(entry->ticket == my_ticket);
	/* to make way for a command on the database is no failure */
	if (worker_last_words.sqlerrcode != 0 && !worker_database_held(entry->dboid))
		worker_stats_error(&entry->stats, worker_last_words.message);

	if (entry->state < DATABASE_SLEEPING)
	{
		entry->failures++;
		/* perhaps the database is gone: look before trying again */
		if (!extension_absent)
			worker_registry->scan_wanted = true;
	}
	if (extension_absent)
	{
		entry->known = false;
		entry->failures = 0;
		entry->state = entry->probe_again ? DATABASE_WANTED : DATABASE_ABSENT;
		entry->retry_at = 0;
	}
	else
	{
		/* turned off, it starts again as soon as it is turned on */
		entry->state = DATABASE_WANTED;
		entry->retry_at = !perfopt_worker_enabled ? 0 : worker_clock_ms() +
			Min(WORKER_RESTART_MS << Min(entry->failures, 4), WORKER_RESTART_MAX_MS);
	}
	entry->pid = 0;
	entry->latch = NULL;
	worker_wake_launcher_locked();
	LWLockRelease(worker_registry->lock);

	ConditionVariableBroadcast(&worker_registry->changed);
}

/*
 * Take possession of the entry.  False when it is no longer ours to take, or
 * somebody wants the database for himself right now.
 */
static bool
database_worker_attach(int index)
{
	DatabaseEntry *entry = &worker_registry->databases[index];
	bool		ours;

	memcpy(&my_ticket, MyBgworkerEntry->bgw_extra, sizeof(my_ticket));

	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	ours = entry->state == DATABASE_STARTING && entry->ticket == my_ticket;
	if (ours && worker_database_held(entry->dboid))
	{
		entry->state = DATABASE_WANTED;
		entry->retry_at = 0;
		ours = false;
	}
	if (ours)
	{
		entry->pid = MyProcPid;
		entry->latch = MyLatch;
		entry->state = DATABASE_PROBING;
		entry->probe_again = false;
		entry->stats.started_at = GetCurrentTimestamp();
		entry->stats.last_tick = 0;
		entry->stats.ticks = 0;
		entry->stats.cpu_ms = 0;
	}
	LWLockRelease(worker_registry->lock);

	if (!ours)
	{
		ConditionVariableBroadcast(&worker_registry->changed);
		return false;
	}
	worker_my_entry = entry;
	worker_keep_last_words();
	on_shmem_exit(database_worker_exit, (Datum) 0);
	return true;
}

/* Say what we are doing; duty counts while RUNNING. */
void
worker_set_state(DatabaseState state, int duty)
{
	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	worker_my_entry->state = state;
	worker_my_entry->running_duty = duty;
	if (state == DATABASE_SLEEPING)
	{
		/* the launcher can probe the next one */
		if (!worker_my_entry->known)
			worker_wake_launcher_locked();
		worker_my_entry->known = true;
		worker_my_entry->failures = 0;
		worker_my_entry->stats.ticks++;
		worker_my_entry->stats.last_tick = GetCurrentTimestamp();
		worker_my_entry->stats.cpu_ms = worker_cpu_ms();
	}
	LWLockRelease(worker_registry->lock);
}

/*
 * Is the extension in this database, and whose is it?  In a transaction.
 */
bool
worker_extension_exists(Oid *owner)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("perfopt"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		*owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	else
		*owner = InvalidOid;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return OidIsValid(*owner);
}

static bool
probe(void)
{
	Oid			owner;
	bool		found;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	found = worker_extension_exists(&owner);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return found;
}

/*
 * Settings the worker relies on, over whatever the database or the bootstrap
 * superuser has been given.  What it writes are measurements: waiting for
 * their WAL, or for a synchronous standby, is not worth it.
 */
static void
apply_settings(void)
{
	static const char *const settings[][2] = {
		{"application_name", "perfopt"},
		{"search_path", "pg_catalog, pg_temp"},
		{"lock_timeout", "1s"},
		{PERFOPT_WIDEST_TIMEOUT, "0"},	/* a duty has its own, see duty.c */
		{"synchronous_commit", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"row_security", "on"},
		{"jit", "off"},
		{"perfopt.track", "none"}
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_SESSION);
}

static void
handle_sigterm(SIGNAL_ARGS)
{
	told_to_go = true;
	die(PERFOPT_SIGNAL_PASS);
}

bool
perfopt_worker_told_to_go(void)
{
	return told_to_go;
}

void
perfopt_database_worker_main(Datum main_arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, handle_sigterm);
	pqsignal(SIGINT, StatementCancelHandler);
	BackgroundWorkerUnblockSignals();

	PERFOPT_STOP_POINT("worker-starting");
	if (!database_worker_attach(DatumGetInt32(main_arg)))
		proc_exit(0);
	PERFOPT_STOP_POINT("worker-attached");
	BackgroundWorkerInitializeConnectionByOid(worker_my_entry->dboid, InvalidOid, 0);
	PERFOPT_STOP_POINT("worker-connected");

	apply_settings();			/* lock_timeout is for the probe too */
	extension_absent = !probe();
	if (!extension_absent)
		worker_duties_start();

	while (!extension_absent && perfopt_worker_enabled)
	{
		int64		now;

		extension_absent = !worker_duties_run_due();
		if (extension_absent)
			break;
		worker_set_state(DATABASE_SLEEPING, -1);
		pgstat_report_activity(STATE_IDLE, NULL);

		now = worker_clock_ms();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Max(0, worker_duties_next(now + LOOK_INTERVAL_MS) - now),
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);

		/*
		 * Told to go while there was nothing to do: no error, so none is
		 * logged.
		 */
		if (ProcDiePending)
			break;
		worker_between_rounds();
	}

	worker_set_state(DATABASE_STOPPING, -1);
	PERFOPT_STOP_POINT("worker-stopping");
	proc_exit(0);
}
