/*
 * lookup.c
 *		Finds an entry in this backend's memory or in shared memory, and says
 *		whether it holds for the reader.
 *
 * This is the path of every hit.  An entry found in this backend's memory is
 * neither copied nor is anything allocated for it.
 *
 * The order of the checks matters in one place: definitions are looked at after
 * the relations are locked, as somebody who held such a lock may have changed
 * them before he released it.  From then on they stay as they are until the end
 * of the transaction.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Copies from shared memory, until the next look-up. */
static MemoryContext copies = NULL;
static bool copies_used = false;

/* What does not depend on locks held. */
static CacheVerdict
verdict_before_locks(const CacheEntry *entry)
{
	const CacheRingState *rings = cache_entry_rings(entry);

	if (entry->expires_at != DT_NOEND && entry->expires_at <= GetCurrentTimestamp())
		return CACHE_VERDICT_EXPIRED;
	if (cache_definitions_marked())
		return CACHE_VERDICT_OWN_DDL;
	for (int i = 0; i < entry->num_rings; i++)
		if (cache_ring_marked(rings[i].ring))
			return CACHE_VERDICT_OWN_WRITES;
	return CACHE_VERDICT_HIT;
}

static CacheVerdict
verdict_after_locks(const CacheEntry *entry, const CacheReader *reader)
{
	const CacheDefinitionState *definitions = cache_entry_definitions(entry);
	const CacheRingState *rings = cache_entry_rings(entry);

	for (int i = 0; i < entry->num_definitions; i++)
		if (!cache_definition_is_current(definitions[i]))
			return CACHE_VERDICT_OBSOLETE;
	for (int i = 0; i < entry->num_rings; i++)
		if (!cache_ring_is_hit(rings[i], reader))
			return CACHE_VERDICT_STALE;
	return CACHE_VERDICT_HIT;
}

CacheVerdict
cache_entry_verdict(const CacheEntry *entry, const CacheReader *reader)
{
	CacheVerdict verdict = verdict_before_locks(entry);

	return verdict == CACHE_VERDICT_HIT ? verdict_after_locks(entry, reader) : verdict;
}

static CacheVerdict
lock_and_judge(const CacheEntry *entry, const CacheReader *reader)
{
	CacheVerdict verdict = verdict_before_locks(entry);
	const Oid  *relations = cache_entry_relations(entry);

	if (verdict != CACHE_VERDICT_HIT)
		return verdict;

	/*
	 * Cheap when this transaction has the lock already, as it only counts up
	 * then.  Invalidation messages are processed when it has not.
	 */
	for (int i = 0; i < entry->num_relations; i++)
		LockRelationOid(relations[i], AccessShareLock);
	return verdict_after_locks(entry, reader);
}

static void
count_hit(const CacheEntry *entry, bool local)
{
	cache_count(CACHE_COUNT_HITS, 1);
	if (local)
		cache_count(CACHE_COUNT_LOCAL_HITS, 1);
	cache_count(CACHE_COUNT_SAVED_NS, entry->cost_ns);
}

const CacheEntry *
cache_lookup(const CacheKey *key, const CacheReader *reader, CacheBypass *bypass)
{
	CacheVerdict verdict = CACHE_VERDICT_HIT;
	const CacheEntry *entry;
	CacheEntry *copy;

	*bypass = CACHE_BYPASS_NONE;
	if (copies_used)
	{
		MemoryContextReset(copies);
		copies_used = false;
	}

	entry = cache_local_get(key);
	if (entry)
	{
		verdict = lock_and_judge(entry, reader);
		if (verdict == CACHE_VERDICT_HIT)
		{
			count_hit(entry, true);
			return entry;
		}

		/* What others have put since then may be better. */
		if (verdict != CACHE_VERDICT_OWN_WRITES && verdict != CACHE_VERDICT_OWN_DDL)
			cache_local_remove(key);
	}

	if (verdict != CACHE_VERDICT_OWN_WRITES && verdict != CACHE_VERDICT_OWN_DDL)
	{
		if (copies == NULL)
			copies = AllocSetContextCreate(TopMemoryContext, "perfopt cache look-up",
										   ALLOCSET_DEFAULT_SIZES);
		copies_used = true;
		copy = cache_store_get(key, copies);
		if (copy)
		{
			verdict = lock_and_judge(copy, reader);
			if (verdict == CACHE_VERDICT_HIT)
			{
				cache_local_put(copy);
				count_hit(copy, false);
				return copy;
			}

			/*
			 * One that is only stale may still be true for the snapshots of
			 * others.
			 */
			if (verdict == CACHE_VERDICT_EXPIRED || verdict == CACHE_VERDICT_OBSOLETE)
				(void) cache_store_remove(key);
		}
	}

	switch (verdict)
	{
		case CACHE_VERDICT_HIT: /* there is none */
			break;
		case CACHE_VERDICT_EXPIRED:
			cache_count(CACHE_COUNT_EXPIRED, 1);
			break;
		case CACHE_VERDICT_STALE:
		case CACHE_VERDICT_OBSOLETE:
			cache_count(CACHE_COUNT_INVALIDATED, 1);
			break;
		case CACHE_VERDICT_OWN_WRITES:
			*bypass = CACHE_BYPASS_OWN_WRITES;
			break;
		case CACHE_VERDICT_OWN_DDL:
			*bypass = CACHE_BYPASS_OWN_DDL;
			break;
	}
	return NULL;
}
