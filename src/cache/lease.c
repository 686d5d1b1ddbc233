/*
 * lease.c
 *		After a miss, one computes the entry while the others wait for it.
 *
 * LOCKING
 *
 * The one who computes holds a heavyweight lock of the transaction, named by
 * the hash of the key.  So the server releases it after an error, a cancel, or
 * the end of the process.  Nobody ever waits for this lock: those who do not
 * get it look every few milliseconds whether the entry has come, or the lock
 * is free.
 *
 * The deadlock detector does not see such a wait, so nothing may be waited for
 * that could wait for us.  He who computes never waits for another lease.  Who
 * has written in his transaction does not wait, for he may hold what the other
 * one needs.  Who may still hold a lock otherwise gives up when he sees the
 * other one waiting for some lock.
 *
 * Two keys with the same hash wait for each other: one of them needlessly.  As
 * hashes can be made to collide, nobody waits for a session of another role:
 * that one's result would be of no use, as its key names the session's role.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "access/xact.h"
#include "common/compat.h"
#include "common/stop_points.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define FIRST_WAIT_MS		1
#define LONGEST_WAIT_MS		20

/* From then on, look whether the other one waits for a lock. */
#define PATIENCE_MS			1000

/*
 * This many may come to nothing, each taking as long as the query does, before
 * those who wait compute for themselves.
 */
#define MAX_LEADERS			2

/* SQL's advisory locks have 1 and 2 there. */
#define LEASE_LOCK_CLASS	4

static LOCKTAG held_tag;

static void
lease_tag(LOCKTAG *tag, uint64 hash)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, LEASE_LOCK_CLASS);
}

/* The transaction that computes, or an invalid one. */
static VirtualTransactionId
leader_of(const LOCKTAG *tag)
{
	VirtualTransactionId leader;
	VirtualTransactionId *conflicts;
	int			count;

	SetInvalidVirtualTransactionId(leader);
	conflicts = GetLockConflicts(tag, ExclusiveLock, &count);
	if (count > 0)
		leader = conflicts[0];
	return leader;
}

/*
 * Does it wait for a heavyweight lock?  Read without a lock: an answer that is
 * out of date costs a computation or one more round.
 */
static bool
waits_for_lock(VirtualTransactionId leader)
{
	PGPROC	   *proc = perfopt_vxid_proc(leader);

	return proc != NULL && ((volatile PGPROC *) proc)->waitLock != NULL;
}

/* Has its session logged in as another role than ours?  Not, when it has ended. */
static bool
is_of_another_role(VirtualTransactionId leader)
{
	PGPROC	   *proc = perfopt_vxid_proc(leader);

	return proc != NULL && proc->roleId != MyProc->roleId;
}

/* Somebody has published since then, but for other snapshots than ours. */
static bool
published_since(const CacheKey *key, TimestampTz start)
{
	CacheEntry *entry = cache_store_get(key, CurrentMemoryContext);
	bool		result = entry != NULL && entry->filled_at >= start;

	if (entry)
		pfree(entry);
	return result;
}

const CacheEntry *
cache_lease_or_wait(CacheLease *lease, const CacheKey *key,
					const CacheReader *reader)
{
	const CacheEntry *entry;
	CacheBypass bypass = CACHE_BYPASS_NONE;
	VirtualTransactionId last_leader;
	TimestampTz start = 0;
	long		wait_ms = FIRST_WAIT_MS;
	int			leaders = 0;
	int			without_leader = 0;
	LOCKTAG		tag;

	PERFOPT_STOP_POINT("cache-lease");
	lease->hash = key->hash;
	lease->held = false;
	if (perfopt_lock_held_by_me(&held_tag, ExclusiveLock))
		return NULL;

	SetInvalidVirtualTransactionId(last_leader);
	lease_tag(&tag, key->hash);
	for (;;)
	{
		VirtualTransactionId leader;

		if (perfopt_lock_acquire(&tag, ExclusiveLock, true))
		{
			lease->held = true;
			held_tag = tag;

			/* It may have come just before we got the lock. */
			entry = cache_lookup(key, reader, &bypass);
			if (entry != NULL || bypass != CACHE_BYPASS_NONE ||
				(start != 0 && published_since(key, start)))
				cache_lease_release(lease);
			return entry;
		}

		if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
			return NULL;
		leader = leader_of(&tag);
		if (VirtualTransactionIdIsValid(leader) && is_of_another_role(leader))
			return NULL;
		if (VirtualTransactionIdIsValid(leader) &&
			!VirtualTransactionIdEquals(leader, last_leader))
		{
			if (++leaders > MAX_LEADERS)
				return NULL;
			last_leader = leader;
		}
		/* Nobody has it, and we do not get it: the lock table is full. */
		if (VirtualTransactionIdIsValid(leader))
			without_leader = 0;
		else if (++without_leader > MAX_LEADERS)
			return NULL;
		if (start == 0)
		{
			start = GetCurrentTimestamp();
			cache_count(CACHE_COUNT_WAITS, 1);
		}
		else if (VirtualTransactionIdIsValid(leader) &&
				 TimestampDifferenceExceeds(start, GetCurrentTimestamp(), PATIENCE_MS) &&
				 waits_for_lock(leader))
			return NULL;

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 wait_ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		wait_ms = Min(wait_ms * 2, LONGEST_WAIT_MS);

		entry = cache_lookup(key, reader, &bypass);
		if (entry != NULL || bypass != CACHE_BYPASS_NONE)
			return entry;
	}
}

void
cache_lease_release(CacheLease *lease)
{
	LOCKTAG		tag;

	if (!lease->held)
		return;
	lease_tag(&tag, lease->hash);
	LockRelease(&tag, ExclusiveLock, false);
	lease->held = false;
}
