/*
 * stats.c
 *		Counters of the cache.
 *
 * There are several sets of counters, each on cache lines of its own; a backend
 * counts in the one its number leads to, and a reader adds all of them up.  So
 * backends do not take each other's cache lines away at each hit.
 *
 * LOCKING
 *
 * None: the counters are atomic.  Counting while they are reset may survive the
 * reset, and the sums of different counters are not of the same instant.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "common/compat.h"
#include "common/shmem.h"
#include "port/atomics.h"
#include "utils/timestamp.h"

#define NUM_SETS	64

typedef union CounterSet
{
	pg_atomic_uint64 counters[CACHE_NUM_COUNTERS];
	char		pad[TYPEALIGN(PG_CACHE_LINE_SIZE, CACHE_NUM_COUNTERS * sizeof(pg_atomic_uint64))];
} CounterSet;

typedef struct CacheStats
{
	pg_atomic_uint64 since;		/* TimestampTz of the last reset */
	char		pad[PG_CACHE_LINE_SIZE - sizeof(pg_atomic_uint64)];
	CounterSet	sets[NUM_SETS];
} CacheStats;

static CacheStats *stats = NULL;

static const char *const bypass_names[CACHE_NUM_BYPASSES] =
{
	[CACHE_BYPASS_NONE] = "none",
	[CACHE_BYPASS_SERIALIZABLE] = "serializable",
	[CACHE_BYPASS_PARALLEL_WORKER] = "parallel worker",
	[CACHE_BYPASS_RECOVERY] = "recovery",
	[CACHE_BYPASS_SNAPSHOT_TOO_OLD] = "snapshot too old",
	[CACHE_BYPASS_OWN_WRITES] = "own writes",
	[CACHE_BYPASS_OWN_DDL] = "own ddl",
	[CACHE_BYPASS_UNTRACKED] = "untracked table",
	[CACHE_BYPASS_SETTING] = "switched off",
	[CACHE_BYPASS_NESTED] = "nested",
	[CACHE_BYPASS_OVERSIZED] = "oversized",
	[CACHE_BYPASS_CONCURRENT_WRITE] = "concurrent write",
	[CACHE_BYPASS_CONCURRENT_DDL] = "concurrent ddl"
};

static Size
stats_size(void)
{
	return sizeof(CacheStats);
}

static void
stats_init(void *area, LWLockPadded *locks, bool found)
{
	stats = area;
	if (found)
		return;
	pg_atomic_init_u64(&stats->since, (uint64) GetCurrentTimestamp());
	for (int set = 0; set < NUM_SETS; set++)
		for (int i = 0; i < CACHE_NUM_COUNTERS; i++)
			pg_atomic_init_u64(&stats->sets[set].counters[i], 0);
}

static const PerfoptShmemPart stats_part = {
	.name = "cache_stats",
	.area_size = stats_size,
	.init = stats_init
};

void
cache_stats_init(void)
{
	perfopt_shmem_register(&stats_part);
}

void
cache_count(CacheCounter counter, uint64 by)
{
	CounterSet *set = &stats->sets[perfopt_my_proc_number() % NUM_SETS];

	pg_atomic_fetch_add_u64(&set->counters[counter], by);
}

uint64
cache_counter_read(CacheCounter counter)
{
	uint64		sum = 0;

	for (int set = 0; set < NUM_SETS; set++)
		sum += pg_atomic_read_u64(&stats->sets[set].counters[counter]);
	return sum;
}

void
cache_counters_reset(void)
{
	for (int set = 0; set < NUM_SETS; set++)
		for (int i = 0; i < CACHE_NUM_COUNTERS; i++)
			pg_atomic_write_u64(&stats->sets[set].counters[i], 0);
	pg_atomic_write_u64(&stats->since, (uint64) GetCurrentTimestamp());
}

TimestampTz
cache_counters_since(void)
{
	return (TimestampTz) pg_atomic_read_u64(&stats->since);
}

const char *
cache_bypass_name(CacheBypass reason)
{
	Assert(reason >= 0 && reason < CACHE_NUM_BYPASSES);
	return bypass_names[reason];
}
