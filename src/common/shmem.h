/*
 * shmem.h
 *		Shared memory: every capability registers its part, one request and
 *		one startup hook serve them all.
 */
#ifndef PERFOPT_SHMEM_H
#define PERFOPT_SHMEM_H

#include "postgres.h"

#include "storage/lwlock.h"

/*
 * One capability's part of shared memory.  The struct is kept by reference:
 * make it static const.
 */
typedef struct PerfoptShmemPart
{
	const char *name;			/* tranche and area are called perfopt_<name> */
	int			num_locks;		/* LWLocks the part uses, 0 or more */

	/* Bytes of the area handed to init(). */
	Size		(*area_size) (void);

	/* Bytes needed beside the area (hash tables made in init), or NULL. */
	Size		(*extra_size) (void);

	/*
	 * Called in every process that attaches, under AddinShmemInitLock.  found
	 * is false exactly once after a server start: then fill the area.  Make
	 * hash tables here too.
	 */
	void		(*init) (void *area, LWLockPadded *locks, bool found);
} PerfoptShmemPart;

/* Call from _PG_init of the capability, while preloading. */
extern void perfopt_shmem_register(const PerfoptShmemPart *part);

/* Install the hooks; called once, after all parts are registered. */
extern void perfopt_shmem_install(void);

/* Is the shared memory there, that is, was the library preloaded? */
extern bool perfopt_shmem_ready(void);

/*
 * Raise OBJECT_NOT_IN_PREREQUISITE_STATE with the hint to preload the library
 * unless shared memory is there.
 */
extern void perfopt_require_preload(void);

#endif							/* PERFOPT_SHMEM_H */
