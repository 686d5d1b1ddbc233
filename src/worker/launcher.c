/*
 * launcher.c
 *		The one static background worker: finds the databases that have the
 *		extension, keeps a worker running in each, and starts the pool's jobs.
 *
 * It is connected to the shared catalogs only, so no database is ever held up
 * by it.  Which databases have the extension cannot be seen from there: a
 * database is probed by starting a worker in it, which leaves at once when
 * there is no extension.  Databases are probed one after the other, and once;
 * after that CREATE EXTENSION tells us.  Only during recovery nobody can tell
 * us, so there the fruitless probes are repeated now and then.
 *
 * Locking: see registry.c.  What is in this file's static variables belongs to
 * the launcher alone, and is made anew when it restarts.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "worker/worker_internal.h"

#define SCAN_INTERVAL_MS		(60 * 1000)
#define REPROBE_INTERVAL_MS		(10 * 60 * 1000)
#define NO_SLOT_RETRY_MS		1000

extern PGDLLEXPORT void perfopt_launcher_main(Datum main_arg);

/* A worker this launcher has started, to be asked about by its handle. */
typedef struct Started
{
	BackgroundWorkerHandle *handle; /* NULL: none */
	uint64		ticket;
} Started;

static MemoryContext launcher_context;
static MemoryContext scan_context;	/* what the last scan found */
static HTAB *absent = NULL;		/* Oids probed without finding anything */
static List *to_probe = NIL;	/* Oids */
static Started *started;		/* by index of entry */
static int64 no_slot_until = 0; /* don't try to start before */
static bool no_slot_logged = false;
static bool no_entry_logged = false;

void
worker_launcher_register(void)
{
	BackgroundWorker worker = {
		.bgw_name = "perfopt launcher",
		.bgw_type = "perfopt launcher",
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_ConsistentState,
		.bgw_restart_time = WORKER_RESTART_MS / 1000,
		.bgw_library_name = "perfopt",
		.bgw_function_name = "perfopt_launcher_main"
	};

	RegisterBackgroundWorker(&worker);
}

/*
 * Start a dynamic background worker of ours.  NULL when the server has no slot
 * for it: that is said once in the log until it works again.
 */
BackgroundWorkerHandle *
worker_start_process(const char *type, const char *function,
					 Datum arg, const void *extra, Size extra_size)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_ConsistentState,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_library_name = "perfopt",
		.bgw_main_arg = arg,
		.bgw_notify_pid = MyProcPid
	};
	BackgroundWorkerHandle *handle = NULL;
	MemoryContext old;

	if (worker_clock_ms() < no_slot_until)
		return NULL;

	strlcpy(worker.bgw_name, type, BGW_MAXLEN);
	strlcpy(worker.bgw_type, type, BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, function, BGW_MAXLEN);
	Assert(extra_size <= BGW_EXTRALEN);
	memcpy(worker.bgw_extra, extra, extra_size);

	old = MemoryContextSwitchTo(launcher_context);
	if (RegisterDynamicBackgroundWorker(&worker, &handle))
		no_slot_logged = false;
	else
	{
		handle = NULL;
		no_slot_until = worker_clock_ms() + NO_SLOT_RETRY_MS;
		if (!no_slot_logged)
			ereport(LOG,
					(errmsg("perfopt could not start a background worker"),
					 errdetail("All slots for background workers are in use."),
					 errhint("Raise \"max_worker_processes\".  Until then perfopt keeps trying.")));
		no_slot_logged = true;
	}
	MemoryContextSwitchTo(old);
	return handle;
}

static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	worker_registry->launcher_pid = 0;
	worker_registry->launcher_latch = NULL;
	if (worker_last_words.sqlerrcode != 0)
		worker_stats_error(&worker_registry->launcher, worker_last_words.message);
	LWLockRelease(worker_registry->lock);
}

static void
launcher_attach(void)
{
	on_shmem_exit(launcher_exit, (Datum) 0);

	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	worker_registry->launcher_pid = MyProcPid;
	worker_registry->launcher_latch = MyLatch;
	worker_registry->launcher.started_at = GetCurrentTimestamp();
	worker_registry->launcher.ticks = 0;

	/*
	 * Starts our predecessor asked for and we cannot follow: ask again.  The
	 * new ticket makes the old start, should it still come, leave at once.
	 */
	for (int i = 0; i < worker_registry->num_databases; i++)
	{
		DatabaseEntry *entry = &worker_registry->databases[i];

		if (entry->state == DATABASE_STARTING)
		{
			entry->state = DATABASE_WANTED;
			entry->ticket = ++worker_registry->last_ticket;
		}
	}
	LWLockRelease(worker_registry->lock);
}

/* Make a set of Oids that lives as long as context. */
static HTAB *
make_oid_set(MemoryContext context)
{
	HASHCTL		ctl = {
		.keysize = sizeof(Oid),
		.entrysize = sizeof(Oid),
		.hcxt = context
	};

	return hash_create("perfopt databases without extension", 64, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Oids of all databases one can connect to, in context. */
static List *
connectable_databases(MemoryContext context)
{
	List	   *result = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();

	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		/* a limit below -1 marks one whose DROP was interrupted */
		if (form->datallowconn && form->datconnlimit >= -1)
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			result = lappend_oid(result, form->oid);
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(launcher_context);
	return result;
}

/*
 * Look which databases there are.  Afterwards to_probe has those never looked
 * into, absent those known to lack the extension, and entries of databases
 * that are gone are free again.
 */
static void
scan_databases(void)
{
	MemoryContext context = AllocSetContextCreate(launcher_context,
												  "perfopt database scan",
												  ALLOCSET_SMALL_SIZES);
	List	   *databases = connectable_databases(context);
	HTAB	   *all = make_oid_set(context);
	HTAB	   *still_absent = make_oid_set(context);
	List	   *candidates = NIL;
	ListCell   *lc;
	MemoryContext old = MemoryContextSwitchTo(context);

	foreach(lc, databases)
		(void) hash_search(all, &lfirst_oid(lc), HASH_ENTER, NULL);

	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < worker_registry->num_databases; i++)
	{
		DatabaseEntry *entry = &worker_registry->databases[i];

		if (entry->state == DATABASE_WANTED &&
			hash_search(all, &entry->dboid, HASH_FIND, NULL) == NULL)
			entry->state = DATABASE_UNUSED;
		else if (entry->state != DATABASE_UNUSED)
			(void) hash_search(all, &entry->dboid, HASH_REMOVE, NULL);
	}
	LWLockRelease(worker_registry->lock);

	foreach(lc, databases)
	{
		if (hash_search(all, &lfirst_oid(lc), HASH_FIND, NULL) == NULL)
			continue;			/* has an entry */
		if (absent && hash_search(absent, &lfirst_oid(lc), HASH_FIND, NULL))
			(void) hash_search(still_absent, &lfirst_oid(lc), HASH_ENTER, NULL);
		else
			candidates = lappend_oid(candidates, lfirst_oid(lc));
	}
	MemoryContextSwitchTo(old);

	if (scan_context)
		MemoryContextDelete(scan_context);
	scan_context = context;
	absent = still_absent;
	to_probe = candidates;
}

/*
 * See what has become of the workers we have started.  A worker that attached
 * keeps its entry up to date by itself, until its last moment; left to see
 * here are those that never got so far.
 */
static void
reap_workers(int64 now)
{
	for (int i = 0; i < worker_registry->num_databases; i++)
	{
		DatabaseEntry *entry = &worker_registry->databases[i];
		pid_t		pid;

		if (started[i].handle &&
			GetBackgroundWorkerPid(started[i].handle, &pid) == BGWH_STOPPED)
		{
			pfree(started[i].handle);
			started[i].handle = NULL;

			LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
			if (entry->state == DATABASE_STARTING &&
				entry->ticket == started[i].ticket)
			{
				entry->state = DATABASE_WANTED;
				entry->retry_at = now + WORKER_RESTART_MS;
				worker_stats_error(&entry->stats, "the process could not be started");
			}
			LWLockRelease(worker_registry->lock);
		}
	}

	/* Collect the answers of probes. */
	for (int i = 0; i < worker_registry->num_databases; i++)
	{
		DatabaseEntry *entry = &worker_registry->databases[i];
		Oid			dboid = InvalidOid;

		LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
		if (entry->state == DATABASE_ABSENT)
		{
			dboid = entry->dboid;
			entry->state = DATABASE_UNUSED;
		}
		LWLockRelease(worker_registry->lock);
		if (OidIsValid(dboid))
			(void) hash_search(absent, &dboid, HASH_ENTER, NULL);
	}
}

/*
 * Give the next database that was never probed an entry, unless one is being
 * probed right now.
 */
static void
next_probe(void)
{
	bool		probing = false;
	bool		full = false;

	if (to_probe == NIL)
		return;

	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < worker_registry->num_databases; i++)
	{
		DatabaseEntry *entry = &worker_registry->databases[i];

		if (entry->state != DATABASE_UNUSED && !entry->known &&
			(DATABASE_HAS_PROCESS(entry->state) ||
			 (entry->failures == 0 && !worker_database_held(entry->dboid))))
			probing = true;
	}
	while (!probing && !full && to_probe != NIL)
	{
		Oid			dboid = linitial_oid(to_probe);

		if (worker_find_database(dboid) == NULL)
		{
			full = worker_add_database(dboid) == NULL;
			probing = true;
		}
		if (!full)
			to_probe = list_delete_first(to_probe);
	}
	LWLockRelease(worker_registry->lock);

	if (full && !no_entry_logged)
		ereport(LOG,
				(errmsg("perfopt has no room for another database"),
				 errdetail("%d databases were not looked into.", list_length(to_probe)),
				 errhint("Raise \"perfopt.max_databases\", which is %d now.",
						 perfopt_max_databases)));
	no_entry_logged = full;
}

/* Start the workers that are wanted and due. */
static void
start_workers(int64 now)
{
	for (int i = 0; i < worker_registry->num_databases; i++)
	{
		DatabaseEntry *entry = &worker_registry->databases[i];
		Oid			dboid = InvalidOid;
		uint64		ticket = 0;

		LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
		if (entry->state == DATABASE_WANTED && entry->retry_at <= now &&
			!worker_database_held(entry->dboid))
		{
			dboid = entry->dboid;
			ticket = ++worker_registry->last_ticket;
			entry->ticket = ticket;
			entry->state = DATABASE_STARTING;
		}
		LWLockRelease(worker_registry->lock);
		if (!OidIsValid(dboid))
			continue;

		if (started[i].handle)
			pfree(started[i].handle);
		started[i].ticket = ticket;
		started[i].handle = worker_start_process("perfopt worker",
												 "perfopt_database_worker_main",
												 Int32GetDatum(i),
												 &ticket, sizeof(ticket));
		if (started[i].handle == NULL)
		{
			LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
			entry->state = DATABASE_WANTED;
			LWLockRelease(worker_registry->lock);
			return;
		}
	}
}

/* When something wanted is due next, or far. */
static int64
next_start(int64 far)
{
	int64		next = far;

	LWLockAcquire(worker_registry->lock, LW_SHARED);
	for (int i = 0; i < worker_registry->num_databases; i++)
	{
		DatabaseEntry *entry = &worker_registry->databases[i];

		if (entry->state == DATABASE_WANTED &&
			!worker_database_held(entry->dboid))
			next = Min(next, Max(entry->retry_at, no_slot_until));
	}
	LWLockRelease(worker_registry->lock);
	return next;
}

static void
count_tick(void)
{
	WorkerStats *stats = &worker_registry->launcher;

	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	stats->ticks++;
	stats->last_tick = GetCurrentTimestamp();
	stats->cpu_ms = worker_cpu_ms();
	LWLockRelease(worker_registry->lock);
}

void
perfopt_launcher_main(Datum main_arg)
{
	int64		next_scan = 0;
	int64		next_reprobe = worker_clock_ms() + REPROBE_INTERVAL_MS;
	bool		in_recovery;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	worker_keep_last_words();
	launcher_attach();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname("perfopt");

	launcher_context = AllocSetContextCreate(TopMemoryContext, "perfopt launcher",
											 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(launcher_context);
	started = palloc0(sizeof(Started) * worker_registry->num_databases);
	worker_pool_launcher_start();
	in_recovery = RecoveryInProgress();

	for (;;)
	{
		int64		now = worker_clock_ms();
		int64		next = now + SCAN_INTERVAL_MS;
		bool		probe_all = false;
		bool		scan;

		/*
		 * Between two rounds nothing is cut short: no error, so none is
		 * logged.
		 */
		if (ProcDiePending)
			proc_exit(1);		/* so that the postmaster starts us again */
		worker_between_rounds();

		/* What was not there may have come by replication. */
		if (in_recovery && (!RecoveryInProgress() || now >= next_reprobe))
		{
			in_recovery = RecoveryInProgress();
			next_reprobe = now + REPROBE_INTERVAL_MS;
			probe_all = true;
		}

		LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
		probe_all |= worker_registry->probe_all;
		scan = probe_all || worker_registry->scan_wanted || now >= next_scan;
		worker_registry->scan_wanted = false;
		worker_registry->probe_all = false;
		LWLockRelease(worker_registry->lock);
		if (probe_all)
			absent = NULL;
		if (scan)
		{
			scan_databases();
			next_scan = now + SCAN_INTERVAL_MS;
		}

		reap_workers(now);
		worker_pool_reap();
		if (perfopt_worker_enabled)
		{
			next_probe();
			start_workers(now);
			next = Min(next_start(next), worker_pool_dispatch(now));
		}
		count_tick();

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Max(0, Min(next, next_scan) - worker_clock_ms()),
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
