/*
 * stop_points.c
 *		Named points at which a test can make a process wait, fail or die.
 *		Nothing of this file is in a release build.
 *
 * Locking: the array is guarded by its LWLock.  The count of set points is
 * read without a lock on the fast path; a process that misses a point set at
 * that very moment just passes it, and tests set points before they start
 * what should stop there.
 */
#include "postgres.h"

#include "common/stop_points.h"

#ifdef PERFOPT_STOP_POINTS

#include <signal.h>

#include "common/shmem.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/wait_event.h"

#define MAX_POINTS 8

typedef enum StopAction
{
	STOP_WAIT,
	STOP_ERROR,
	STOP_FATAL,
	STOP_KILL,
	STOP_PASS					/* later ones pass; who waits keeps waiting */
} StopAction;

typedef struct StopPoint
{
	char		name[NAMEDATALEN];	/* empty: unused */
	StopAction	action;
	int			waiters;		/* processes waiting there now */
	int			hits;			/* times it was reached */
} StopPoint;

typedef struct StopPoints
{
	LWLock	   *lock;
	pg_atomic_uint32 num_set;
	StopPoint	points[MAX_POINTS];
} StopPoints;

static StopPoints *shared = NULL;

static Size
stop_points_size(void)
{
	return sizeof(StopPoints);
}

static void
stop_points_attach(void *area, LWLockPadded *locks, bool found)
{
	shared = area;
	if (!found)
	{
		memset(shared, 0, sizeof(*shared));
		shared->lock = &locks[0].lock;
		pg_atomic_init_u32(&shared->num_set, 0);
	}
}

void
perfopt_stop_points_init(void)
{
	static const PerfoptShmemPart part = {
		.name = "stop_points",
		.num_locks = 1,
		.area_size = stop_points_size,
		.init = stop_points_attach
	};

	perfopt_shmem_register(&part);
}

/* The caller holds the lock. */
static StopPoint *
find_point(const char *name)
{
	for (int i = 0; i < MAX_POINTS; i++)
		if (strcmp(shared->points[i].name, name) == 0)
			return &shared->points[i];
	return NULL;
}

static void
count_waiter(const char *name, int delta)
{
	StopPoint  *point;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	point = find_point(name);
	if (point)
		point->waiters += delta;
	LWLockRelease(shared->lock);
}

void
perfopt_stop_point(const char *name)
{
	StopPoint  *point;
	StopAction	action = STOP_WAIT;

	if (shared == NULL || pg_atomic_read_u32(&shared->num_set) == 0)
		return;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	point = find_point(name);
	if (point)
	{
		point->hits++;
		action = point->action;
	}
	LWLockRelease(shared->lock);
	if (point == NULL)
		return;

	switch (action)
	{
		case STOP_ERROR:
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("stopped at \"%s\"", name)));
			break;
		case STOP_FATAL:
			ereport(FATAL,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("stopped at \"%s\"", name)));
			break;
		case STOP_KILL:
			kill(MyProcPid, SIGKILL);
			break;
		case STOP_PASS:
			break;
		case STOP_WAIT:
			count_waiter(name, 1);
			PG_TRY();
			{
				for (;;)
				{
					bool		set;

					LWLockAcquire(shared->lock, LW_SHARED);
					set = find_point(name) != NULL;
					LWLockRelease(shared->lock);
					if (!set)
						break;
					(void) WaitLatch(MyLatch,
									 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
									 20, PG_WAIT_EXTENSION);
					ResetLatch(MyLatch);
					CHECK_FOR_INTERRUPTS();
				}
			}
			PG_FINALLY();
			{
				count_waiter(name, -1);
			}
			PG_END_TRY();
			break;
	}
}

PG_FUNCTION_INFO_V1(perfopt_stop_point_set);
PG_FUNCTION_INFO_V1(perfopt_stop_point_clear);
PG_FUNCTION_INFO_V1(perfopt_stop_point_waiters);
PG_FUNCTION_INFO_V1(perfopt_stop_point_hits);

/* stop_point_set(name text, action text): wait, error, fatal or kill. */
Datum
perfopt_stop_point_set(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *action = text_to_cstring(PG_GETARG_TEXT_PP(1));
	static const char *const names[] = {"wait", "error", "fatal", "kill", "pass"};
	int			code = -1;
	StopPoint  *point;

	perfopt_require_preload();
	for (int i = 0; i < (int) lengthof(names); i++)
		if (strcmp(action, names[i]) == 0)
			code = i;
	if (code < 0 || name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bad stop point \"%s\" or action \"%s\"", name, action)));

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	point = find_point(name);
	if (point == NULL)
	{
		point = find_point("");
		if (point)
		{
			memset(point, 0, sizeof(*point));
			strlcpy(point->name, name, NAMEDATALEN);
			pg_atomic_fetch_add_u32(&shared->num_set, 1);
		}
	}
	if (point)
		point->action = code;
	LWLockRelease(shared->lock);
	if (point == NULL)
		elog(ERROR, "all stop points are in use");
	PG_RETURN_VOID();
}

/* stop_point_clear(name text): lets the waiters go on. */
Datum
perfopt_stop_point_clear(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	StopPoint  *point;

	perfopt_require_preload();
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	point = name[0] ? find_point(name) : NULL;
	if (point)
	{
		point->name[0] = '\0';
		pg_atomic_fetch_sub_u32(&shared->num_set, 1);
	}
	LWLockRelease(shared->lock);
	PG_RETURN_BOOL(point != NULL);
}

static Datum
point_count(FunctionCallInfo fcinfo, bool hits)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	StopPoint  *point;
	int			count = 0;

	perfopt_require_preload();
	LWLockAcquire(shared->lock, LW_SHARED);
	point = name[0] ? find_point(name) : NULL;
	if (point)
		count = hits ? point->hits : point->waiters;
	LWLockRelease(shared->lock);
	PG_RETURN_INT32(count);
}

/* stop_point_waiters(name text): processes waiting there now. */
Datum
perfopt_stop_point_waiters(PG_FUNCTION_ARGS)
{
	return point_count(fcinfo, false);
}

/* stop_point_hits(name text): times it was reached since it was set. */
Datum
perfopt_stop_point_hits(PG_FUNCTION_ARGS)
{
	return point_count(fcinfo, true);
}

#endif							/* PERFOPT_STOP_POINTS */
