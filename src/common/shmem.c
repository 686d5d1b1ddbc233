/*
 * shmem.c
 *		One request hook and one startup hook for all of perfopt's shared
 *		memory.
 *
 * Memory is reserved once, at server start, sized by settings, and never
 * grows.  Parts are registered while the postmaster preloads the library; the
 * list is inherited by every child process.  Locking is each part's own
 * business; see the heads of the files that own them.
 */
#include "postgres.h"

#include "common/shmem.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#define MAX_PARTS 16

static const PerfoptShmemPart *parts[MAX_PARTS];
static int	num_parts = 0;
static bool ready = false;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

void
perfopt_shmem_register(const PerfoptShmemPart *part)
{
	if (num_parts == MAX_PARTS)
		elog(ERROR, "too many parts of perfopt shared memory");
	parts[num_parts++] = part;
}

static char *
part_name(const PerfoptShmemPart *part)
{
	return psprintf("perfopt_%s", part->name);
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	for (int i = 0; i < num_parts; i++)
	{
		RequestAddinShmemSpace(MAXALIGN(parts[i]->area_size()));
		if (parts[i]->extra_size)
			RequestAddinShmemSpace(parts[i]->extra_size());
		if (parts[i]->num_locks > 0)
			RequestNamedLWLockTranche(part_name(parts[i]), parts[i]->num_locks);
	}
}

static void
shmem_startup(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < num_parts; i++)
	{
		const PerfoptShmemPart *part = parts[i];
		char	   *name = part_name(part);
		bool		found;
		void	   *area = ShmemInitStruct(name, part->area_size(), &found);
		LWLockPadded *locks = part->num_locks > 0 ?
		GetNamedLWLockTranche(name) : NULL;

		part->init(area, locks, found);
	}
	LWLockRelease(AddinShmemInitLock);
	ready = true;
}

void
perfopt_shmem_install(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

bool
perfopt_shmem_ready(void)
{
	return ready;
}

void
perfopt_require_preload(void)
{
	if (!ready)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("perfopt must be loaded via \"shared_preload_libraries\""),
				 errdetail("This needs perfopt's shared memory and background workers."),
				 errhint("Set \"shared_preload_libraries = 'pg_stat_statements, perfopt'\" in postgresql.conf and restart the server.")));
}
