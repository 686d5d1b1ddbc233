/*
 * n_plus_one_table.c
 *		The shared table of loops that were found.
 *
 * A fixed array, perfopt.n_plus_one_max entries, one for each (database, role,
 * function, kind, source, repeated query, application_name).  Sessions add to it,
 * from the run on that makes a loop one: a statement that is part of no loop
 * never comes here.  When all entries are used, the one whose loop was seen
 * longest ago makes room, and is counted.
 *
 * LOCKING
 *
 * table->lock, an LWLock, guards which entry belongs to which key: keys,
 * generations, used, evicted.  It is taken exclusively to give an entry to a
 * key, and shared to look for a key or to read the table.
 *
 * entry->mutex, a spinlock, guards what follows it in the entry; key and
 * generation are changed under both locks.  It is taken after the LWLock when
 * both are held, one at a time.
 *
 * A session remembers the place of its loop's entry and the entry's generation,
 * a number given out once.  With these it needs the spinlock only.
 *
 * Nothing is allocated and no error raised while a lock is held.
 */
#include "postgres.h"

#include "lookup/n_plus_one_internal.h"

#include "common/settings.h"
#include "common/shmem.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

typedef struct TableEntry
{
	slock_t		mutex;
	uint64		generation;		/* 0: not in use */
	LoopEntry	loop;
} TableEntry;

typedef struct LoopTable
{
	LWLock	   *lock;			/* guards the rest; set once */
	int			used;
	uint64		generation;		/* the last one given out */
	uint64		evicted;
	TableEntry	entries[FLEXIBLE_ARRAY_MEMBER];
} LoopTable;

static LoopTable *table = NULL;

static Size
table_size(void)
{
	return add_size(offsetof(LoopTable, entries),
					mul_size(perfopt_n_plus_one_max, sizeof(TableEntry)));
}

static void
table_init(void *area, LWLockPadded *locks, bool found)
{
	table = area;
	if (found)
		return;
	memset(table, 0, table_size());
	table->lock = &locks[0].lock;
	for (int i = 0; i < perfopt_n_plus_one_max; i++)
		SpinLockInit(&table->entries[i].mutex);
}

static inline bool
same_key(const LoopKey *a, const LoopKey *b)
{
	return a->queryid == b->queryid && a->source_queryid == b->source_queryid &&
		a->role == b->role && a->database == b->database &&
		a->function == b->function && a->kind == b->kind &&
		strcmp(a->application_name, b->application_name) == 0;
}

/* Needs the LWLock. */
static int
find_entry(const LoopKey *key)
{
	for (int i = 0; i < table->used; i++)
		if (same_key(&table->entries[i].loop.key, key))
			return i;
	return -1;
}

/* Needs the LWLock exclusively. */
static int
make_entry(const LoopKey *key, TimestampTz now)
{
	TableEntry *entry;
	int			slot = 0;

	if (table->used < perfopt_n_plus_one_max)
		slot = table->used++;
	else
	{
		/* last_seen of others may just change: then another one is as good */
		for (int i = 1; i < table->used; i++)
			if (table->entries[i].loop.last_seen < table->entries[slot].loop.last_seen)
				slot = i;
		table->evicted++;
	}
	entry = &table->entries[slot];
	table->generation++;
	SpinLockAcquire(&entry->mutex);
	memset(&entry->loop, 0, sizeof(entry->loop));
	entry->generation = table->generation;
	entry->loop.key = *key;
	entry->loop.first_seen = now;
	SpinLockRelease(&entry->mutex);
	return slot;
}

/* Is the entry still the one that was meant?  Then add. */
static bool
add_to_entry(int slot, uint64 generation, const LoopCounts *counts,
			 const LoopShape *shape, TimestampTz now)
{
	TableEntry *entry = &table->entries[slot];
	bool		same;

	SpinLockAcquire(&entry->mutex);
	same = entry->generation == generation;
	if (same)
	{
		LoopEntry  *loop = &entry->loop;

		loop->counts.loops += counts->loops;
		loop->counts.certain += counts->certain;
		loop->counts.misses += counts->misses;
		loop->counts.runs += counts->runs;
		loop->counts.rows += counts->rows;
		loop->counts.source_rows += counts->source_rows;
		loop->counts.lost_ns += counts->lost_ns;
		if (now > loop->last_seen)
			loop->last_seen = now;
		if (shape)
			loop->shape = *shape;
	}
	SpinLockRelease(&entry->mutex);
	return same;
}

/*
 * Add to a loop's entry.  place is where it was before, or of generation 0; it
 * is set to where it is.  shape, if not NULL, replaces the entry's.
 */
void
perfopt_loop_add(LoopPlace *place, const LoopKey *key, const LoopCounts *counts,
				 const LoopShape *shape, TimestampTz now)
{
	int			slot;

	if (place->generation != 0 &&
		add_to_entry(place->slot, place->generation, counts, shape, now))
		return;

	/* a loop that is taken back needs no entry of its own */
	LWLockAcquire(table->lock, LW_SHARED);
	slot = find_entry(key);
	if (slot < 0 && counts->loops > 0)
	{
		LWLockRelease(table->lock);
		LWLockAcquire(table->lock, LW_EXCLUSIVE);
		slot = find_entry(key);
		if (slot < 0)
			slot = make_entry(key, now);
	}

	/*
	 * What was told to an entry that is gone was forgotten with it; only a
	 * new loop is told to another one.
	 */
	if (slot >= 0 && place->generation == 0)
	{
		place->slot = slot;
		place->generation = table->entries[slot].generation;
		(void) add_to_entry(slot, place->generation, counts, shape, now);
	}
	LWLockRelease(table->lock);
}

/* A copy of all entries, in the caller's memory context. */
int
perfopt_loop_read(LoopEntry **entries)
{
	int			count;

	*entries = MemoryContextAllocHuge(CurrentMemoryContext,
									  mul_size(perfopt_n_plus_one_max, sizeof(LoopEntry)));
	LWLockAcquire(table->lock, LW_SHARED);
	count = table->used;
	for (int i = 0; i < count; i++)
	{
		TableEntry *entry = &table->entries[i];

		SpinLockAcquire(&entry->mutex);
		(*entries)[i] = entry->loop;
		SpinLockRelease(&entry->mutex);
	}
	LWLockRelease(table->lock);
	return count;
}

void
perfopt_loop_reset(void)
{
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	for (int i = 0; i < table->used; i++)
	{
		TableEntry *entry = &table->entries[i];

		SpinLockAcquire(&entry->mutex);
		entry->generation = 0;
		SpinLockRelease(&entry->mutex);
	}
	table->used = 0;
	table->evicted = 0;
	LWLockRelease(table->lock);
}

LoopInfo
perfopt_loop_info(void)
{
	LoopInfo	info;

	LWLockAcquire(table->lock, LW_SHARED);
	info.used = table->used;
	info.max = perfopt_n_plus_one_max;
	info.evicted = table->evicted;
	LWLockRelease(table->lock);
	return info;
}

void
perfopt_loop_table_init(void)
{
	static const PerfoptShmemPart part = {
		.name = "n_plus_one",
		.num_locks = 1,
		.area_size = table_size,
		.init = table_init
	};

	perfopt_shmem_register(&part);
}
