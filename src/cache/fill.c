/*
 * fill.c
 *		Answer a call from the cache, or compute its result and what that
 *		depends on, and publish it.
 *
 * Everything that an entry is said to depend on is read before it is computed
 * or while it is, and compared at the end: then rings say whether the rows are
 * what the snapshot saw, and whether definitions have changed meanwhile is
 * looked at last.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "common/compat.h"
#include "common/stop_points.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/inval.h"
#include "utils/memutils.h"

/* A random part of the result is what it asks for. */
extern PGDLLIMPORT int GinFuzzySearchLimit;

CacheBypass
cache_usable(CacheReader *reader)
{
	if (!perfopt_cache_enabled || GinFuzzySearchLimit > 0)
		return CACHE_BYPASS_SETTING;
	if (cache_collecting() != NULL)
		return CACHE_BYPASS_NESTED;
	if (cache_write_in_progress())
		return CACHE_BYPASS_OWN_WRITES;
	return cache_reader_init(reader);
}

/* Why it may not be published, or NONE when it has been. */
static CacheBypass
publish(CacheEntrySpec *spec, CacheDependencies *deps, const CacheReader *reader,
		uint64 epoch)
{
	CacheRingState *states;
	CacheEntry *entry;
	bool		stored;

	if (deps->refusal != CACHE_BYPASS_NONE)
		return deps->refusal;
	if (cache_definitions_marked())
		return CACHE_BYPASS_OWN_DDL;
	for (int i = 0; i < deps->num_rings; i++)
		if (cache_ring_marked(deps->rings[i]))
			return CACHE_BYPASS_OWN_WRITES;
	if (deps->num_rings > CACHE_MAX_DEPENDENCIES ||
		deps->num_definitions > CACHE_MAX_DEPENDENCIES ||
		deps->num_relations > CACHE_MAX_DEPENDENCIES ||
		(spec->data == NULL && spec->data_len > 0) ||
		spec->data_len > cache_store_max_entry())
		return CACHE_BYPASS_OVERSIZED;

	states = palloc((deps->num_rings + 1) * sizeof(CacheRingState));
	for (int i = 0; i < deps->num_rings; i++)
	{
		states[i].ring = deps->rings[i];
		if (!cache_ring_can_fill(deps->rings[i], reader, &states[i].seq))
			return CACHE_BYPASS_CONCURRENT_WRITE;
	}

	entry = cache_entry_build(spec, states, deps->num_rings, deps);
	if (entry->size > cache_store_max_entry())
		return CACHE_BYPASS_OVERSIZED;

	PERFOPT_STOP_POINT("cache-publish");
	if (!cache_definitions_unchanged(epoch))
		return CACHE_BYPASS_CONCURRENT_DDL;
	stored = cache_store_put(entry);
	if (stored)
		cache_local_put(entry);
	pfree(entry);
	return stored ? CACHE_BYPASS_NONE : CACHE_BYPASS_OVERSIZED;
}

CacheBypass
cache_fill(CacheEntrySpec *spec, CacheDependencies *deps,
		   const CacheReader *reader, CacheCompute compute, void *arg)
{
	CacheDependencies *previous;
	CacheBypass reason;
	instr_time	start;
	instr_time	took;
	uint64		epoch;
	bool		calm;

	calm = cache_definitions_begin(&epoch);
	AcceptInvalidationMessages();
	cache_dependencies_add_definition(deps, cache_definition_of_entries(GetUserId()));

	INSTR_TIME_SET_CURRENT(start);
	previous = cache_collect(deps);
	PG_TRY();
	{
		PERFOPT_STOP_POINT("cache-compute");
		compute(arg, spec);
	}
	PG_FINALLY();
	{
		cache_collect(previous);
	}
	PG_END_TRY();
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, start);
	spec->cost_ns = perfopt_instr_ns(took);

	reason = calm ? publish(spec, deps, reader, epoch) : CACHE_BYPASS_CONCURRENT_DDL;
	if (reason == CACHE_BYPASS_NONE)
		cache_count(CACHE_COUNT_FILLS, 1);
	else
		cache_count_bypass(reason);
	return reason;
}

/* After an error, the lease ends with the transaction. */
void
cache_answer(const CacheFaceMethods *face, void *call)
{
	const CacheEntry *entry;
	CacheReader reader;
	CacheKey	key;
	CacheLease	lease;
	CacheBypass bypass = cache_usable(&reader);

	if (bypass == CACHE_BYPASS_NONE)
		bypass = face->key(call, &key);
	if (bypass == CACHE_BYPASS_NONE)
	{
		entry = cache_lookup(&key, &reader, &bypass);
		if (entry)
		{
			TimestampTz expires_at = entry->expires_at;

			if (face->take(call, entry))
			{
				if (face->refresh)
					face->refresh(call, &key, &reader, expires_at);
				return;
			}
		}
	}
	if (bypass != CACHE_BYPASS_NONE)
	{
		cache_count_bypass(bypass);
		face->run(call);
		return;
	}

	cache_count(CACHE_COUNT_MISSES, 1);
	if (face->prepare)
		face->prepare(call);
	entry = cache_lease_or_wait(&lease, &key, &reader);
	if (entry == NULL || !face->take(call, entry))
		face->fill(call, &key, &reader);
	cache_lease_release(&lease);
}
