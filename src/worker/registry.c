/*
 * registry.c
 *		The databases that have a worker, shared by the launcher, the workers
 *		and every backend; and perfopt.start_worker(), which puts one there.
 *
 * LOCKING
 * One LWLock guards the whole registry.  It is held for a look or an update,
 * never while waiting, and never together with the pool's.
 *
 * An entry is made (UNUSED -> WANTED) by the launcher or by a backend that
 * commits CREATE EXTENSION.  The launcher alone takes it to STARTING and back
 * to UNUSED.  From STARTING on it belongs to the process that holds its
 * ticket: only that process moves it on, and its exit gives the entry back.
 * A process that comes too late, its ticket superseded, leaves without
 * touching anything.  So a launcher that was restarted need not know what its
 * predecessor had started.
 *
 * latch points into the PGPROC of the attached process.  It is set and cleared
 * by that process under the lock, and used by others under the lock, so it is
 * never used after the process has gone.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "worker/worker_internal.h"

Registry   *worker_registry = NULL;

static bool start_at_commit = false;

static Size
holds_offset(void)
{
	return MAXALIGN(add_size(offsetof(Registry, databases),
							 mul_size(perfopt_max_databases, sizeof(DatabaseEntry))));
}

static Size
registry_size(void)
{
	return add_size(holds_offset(), mul_size(MaxBackends, sizeof(DatabaseHold)));
}

static void
registry_attach(void *area, LWLockPadded *locks, bool found)
{
	worker_registry = area;
	if (found)
		return;

	memset(worker_registry, 0, registry_size());
	worker_registry->lock = &locks[0].lock;
	ConditionVariableInit(&worker_registry->changed);
	worker_registry->num_databases = perfopt_max_databases;
	worker_registry->num_holds = MaxBackends;
	worker_registry->holds = (DatabaseHold *) ((char *) area + holds_offset());
}

void
worker_registry_init(void)
{
	static const PerfoptShmemPart part = {
		.name = "worker",
		.num_locks = 1,
		.area_size = registry_size,
		.init = registry_attach
	};

	perfopt_shmem_register(&part);
}

/* The entry of a database, or NULL.  The caller holds the lock. */
DatabaseEntry *
worker_find_database(Oid dboid)
{
	for (int i = 0; i < worker_registry->num_databases; i++)
	{
		DatabaseEntry *entry = &worker_registry->databases[i];

		if (entry->state != DATABASE_UNUSED && entry->dboid == dboid)
			return entry;
	}
	return NULL;
}

/*
 * A new entry, WANTED at once, or NULL when all are in use.  The caller holds
 * the lock exclusively and has looked whether there is one.
 */
DatabaseEntry *
worker_add_database(Oid dboid)
{
	for (int i = 0; i < worker_registry->num_databases; i++)
	{
		DatabaseEntry *entry = &worker_registry->databases[i];

		if (entry->state == DATABASE_UNUSED)
		{
			memset(entry, 0, sizeof(*entry));
			entry->dboid = dboid;
			entry->state = DATABASE_WANTED;
			return entry;
		}
	}
	return NULL;
}

/* Is a command running that wants the database for itself?  Lock held. */
bool
worker_database_held(Oid dboid)
{
	for (int i = 0; i < worker_registry->num_holds; i++)
		if (worker_registry->holds[i].dboid == dboid)
			return true;
	return false;
}

void
worker_wake_launcher_locked(void)
{
	if (worker_registry->launcher_latch)
		SetLatch(worker_registry->launcher_latch);
}

void
worker_wake_launcher(void)
{
	LWLockAcquire(worker_registry->lock, LW_SHARED);
	worker_wake_launcher_locked();
	LWLockRelease(worker_registry->lock);
}

/* Copy a message, cut at the end of a character if it is too long. */
void
worker_copy_message(char *to, size_t size, const char *message)
{
	int			len = pg_mbcliplen(message, strlen(message), size - 1);

	memcpy(to, message, len);
	to[len] = '\0';
}

/* The caller holds the lock. */
void
worker_stats_error(WorkerStats *stats, const char *message)
{
	stats->errors++;
	stats->last_error_at = GetCurrentTimestamp();
	worker_copy_message(stats->last_error, sizeof(stats->last_error), message);
}

/*
 * The transaction that created the extension is visible to others now: have
 * the launcher look.  When all entries are in use, it has to forget that this
 * database lacked the extension: then its scan says in the log that there is no
 * room, and it probes the database as soon as there is.
 */
static void
start_worker_at_end(XactEvent event, void *arg)
{
	DatabaseEntry *entry;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (!start_at_commit)
		return;
	start_at_commit = false;
	if (event == XACT_EVENT_ABORT)
		return;

	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	entry = worker_find_database(MyDatabaseId);
	if (entry == NULL)
		worker_registry->probe_all |= worker_add_database(MyDatabaseId) == NULL;
	else if (entry->state == DATABASE_ABSENT)
		entry->state = DATABASE_WANTED;
	else if (DATABASE_HAS_PROCESS(entry->state))
		entry->probe_again = true;
	else
		entry->retry_at = 0;
	worker_wake_launcher_locked();
	LWLockRelease(worker_registry->lock);
}

PG_FUNCTION_INFO_V1(perfopt_start_worker);

/* start_worker() */
Datum
perfopt_start_worker(PG_FUNCTION_ARGS)
{
	static bool registered = false;

	if (!perfopt_shmem_ready() && creating_extension)
	{
		ereport(WARNING,
				(errmsg("perfopt is not loaded via \"shared_preload_libraries\""),
				 errdetail("Until it is, nothing is measured and no background worker runs."),
				 errhint("Set \"shared_preload_libraries = 'pg_stat_statements, perfopt'\" in postgresql.conf and restart the server.")));
		PG_RETURN_VOID();
	}
	perfopt_require_preload();

	if (!registered)
	{
		RegisterXactCallback(start_worker_at_end, NULL);
		registered = true;
	}
	start_at_commit = true;
	PG_RETURN_VOID();
}
