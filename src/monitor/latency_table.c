/*
 * latency_table.c
 *		The shared table of latencies by (database, role, query).
 *
 * There is a fixed array of slots, one a row, and a hash table that finds the
 * slot of a key.  Each slot has two sets of counters: "interval", what came
 * since the last sample, and "total", everything before.  A row is the sum of
 * both.  Statements only ever add to the interval.  A sample moves the interval
 * into the total and keeps a copy: that copy is the delta, exactly, so there
 * are no baselines to compare with and no generations to tell a new row from
 * an old one.  The interval's histogram has 32-bit counts; before they could
 * overflow, for want of anybody taking samples, it is moved by itself.
 *
 * When all slots are used, a new query takes the slot of one that was idle
 * (CLOCK: a hand goes round; a row used again since the hand last passed gets
 * a second chance; new rows start without one, so that queries seen once only
 * displace each other).  What the displaced row had counted is folded into the
 * row of other queries of its database, key (database, 0, 0), interval into
 * interval and total into total: sums over a database stay exact, in views and
 * in the history.  A database that has no such row yet gets the victim's slot
 * for it.  Should the rows of others themselves fill the table, they are folded
 * into the reserved row (0, 0, 0).
 *
 * LOCKING
 *
 * table->lock, an LWLock, guards which slot belongs to which key: the hash
 * table, clock_hand, used, dropped and stats_reset.  It is taken exclusively
 * to give a slot to a key or take it away, and shared to look a key up or to
 * read the table as a whole.
 *
 * slot->mutex, a spinlock, guards everything in the slot.  key and in_use are
 * changed under both locks, so either is enough to read them.  Spinlocks are
 * taken one at a time, and after the LWLock when both are held.
 *
 * The hot path is a statement seen before: a small table local to the backend
 * remembers which slot its key had.  The backend takes the slot's spinlock and
 * checks that the slot is still that key's; whoever takes a slot away needs
 * the same spinlock, so nothing is added to the wrong row or lost.  Only when
 * the check fails is the LWLock taken.  A slot that is not in use belongs to
 * the holder of the exclusive LWLock, who may read and clear it without the
 * spinlock.
 *
 * Copying or merging a slot is done under its spinlock.  That is 3 kB, some
 * hundred nanoseconds, longer than usual for a spinlock, but it happens once
 * an interval or a look at the view, and it is what makes deltas exact.
 *
 * Nothing is allocated, and no error raised, while the LWLock is held: an error
 * is itself something to be counted, which may need the lock.
 *
 * Admitted race: a query folded into the row of others while a sample is being
 * taken may miss it, when that row was visited before; its delta is in the
 * next sample then.
 */
#include "postgres.h"

#include "monitor/monitor_internal.h"

#include "common/compat.h"
#include "common/settings.h"
#include "common/shmem.h"
#include "common/test_clock.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/spin.h"
#include "utils/memutils.h"

typedef struct LatencySlot
{
	slock_t		mutex;			/* guards all that follows */
	bool		in_use;
	bool		referenced;		/* added to since the clock hand passed */
	PerfoptQueryKey key;
	instr_time	interval_start;
	uint64		dropped;		/* queries folded into this row of others */

	/* since the last sample; histogram[i] <= interval.calls <= UINT32_MAX */
	LatencySums interval;
	uint32		interval_histogram[HISTOGRAM_BUCKETS];

	/* before it */
	LatencySums total;
	uint64		total_histogram[HISTOGRAM_BUCKETS];
} LatencySlot;

typedef struct LatencyTable
{
	LWLock	   *lock;			/* guards the rest; set once */
	int			used;			/* slots in use, the reserved one left out */
	int			clock_hand;
	uint64		dropped;		/* queries folded into a row of others */
	TimestampTz stats_reset;

	/* perfopt_max_queries slots, and the one of key (0, 0, 0) */
	LatencySlot slots[FLEXIBLE_ARRAY_MEMBER];
} LatencyTable;

typedef struct IndexEntry
{
	PerfoptQueryKey key;
	int			slot;
} IndexEntry;

StaticAssertDecl(sizeof(PerfoptQueryKey) == 2 * sizeof(Oid) + sizeof(uint64),
				 "PerfoptQueryKey is hashed as bytes and must have no padding");

/* Where this backend's queries were last seen; verified at each use. */
#define LOCAL_CACHE_SIZE	128

typedef struct CachedSlot
{
	PerfoptQueryKey key;
	int			slot;
} CachedSlot;

static CachedSlot local_cache[LOCAL_CACHE_SIZE];

static LatencyTable *table = NULL;
static HTAB *slot_index = NULL;

/* ---------------------------------------------------------------------
 * Shared memory
 */

static Size
table_size(void)
{
	return add_size(offsetof(LatencyTable, slots),
					mul_size(perfopt_max_queries + 1, sizeof(LatencySlot)));
}

static Size
index_size(void)
{
	return hash_estimate_size(perfopt_max_queries + 1, sizeof(IndexEntry));
}

static void
table_init(void *area, LWLockPadded *locks, bool found)
{
	HASHCTL		ctl = {0};

	table = area;
	if (!found)
	{
		memset(table, 0, table_size());
		table->lock = &locks[0].lock;
		table->stats_reset = GetCurrentTimestamp();
		for (int i = 0; i <= perfopt_max_queries; i++)
			SpinLockInit(&table->slots[i].mutex);
	}

	ctl.keysize = sizeof(PerfoptQueryKey);
	ctl.entrysize = sizeof(IndexEntry);
	slot_index = perfopt_shmem_init_hash("perfopt_latency_index",
										 perfopt_max_queries + 1, &ctl,
										 HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

static const PerfoptShmemPart table_part = {
	.name = "latency",
	.num_locks = 1,
	.area_size = table_size,
	.extra_size = index_size,
	.init = table_init
};

void
perfopt_latency_table_init(void)
{
	perfopt_shmem_register(&table_part);
}

/* ---------------------------------------------------------------------
 * Counters
 */

static inline bool
same_key(const PerfoptQueryKey *a, const PerfoptQueryKey *b)
{
	return a->queryid == b->queryid && a->role == b->role &&
		a->database == b->database;
}

static void
merge_sums(LatencySums *into, const LatencySums *from)
{
	if (from->calls == 0)
		return;
	if (into->calls == 0 || from->min_ns < into->min_ns)
		into->min_ns = from->min_ns;
	if (from->max_ns > into->max_ns)
		into->max_ns = from->max_ns;
	into->calls += from->calls;
	into->total_ns += from->total_ns;
	into->squares += from->squares;
	into->rows += from->rows;
	into->errors += from->errors;
	for (int i = 0; i < NUM_ERROR_CLASSES; i++)
		into->errors_by_class[i] += from->errors_by_class[i];
}

/* Needs the slot's spinlock. */
static void
move_interval_to_total(LatencySlot *slot)
{
	merge_sums(&slot->total, &slot->interval);
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		slot->total_histogram[i] += slot->interval_histogram[i];
	memset(&slot->interval, 0, sizeof(slot->interval));
	memset(slot->interval_histogram, 0, sizeof(slot->interval_histogram));
}

/* Needs the slot's spinlock. */
static inline void
add_to_slot(LatencySlot *slot, uint64 ns, uint64 rows, ErrorClass error_class)
{
	LatencySums *sums = &slot->interval;

	if (unlikely(sums->calls == PG_UINT32_MAX))
		move_interval_to_total(slot);
	if (sums->calls == 0 || ns < sums->min_ns)
		sums->min_ns = ns;
	if (ns > sums->max_ns)
		sums->max_ns = ns;
	sums->calls++;
	sums->total_ns += ns;
	sums->squares += (SquareSum) ns * ns;
	slot->interval_histogram[perfopt_histogram_bucket(ns)]++;
	if (likely(error_class == ERROR_CLASS_NONE))
		sums->rows += rows;
	else
	{
		sums->errors++;
		sums->errors_by_class[error_class]++;
	}
}

/*
 * Add to the slot if it is still the key's; takes the spinlock.
 */
static inline bool
add_if_same_key(LatencySlot *slot, const PerfoptQueryKey *key,
				uint64 ns, uint64 rows, ErrorClass error_class)
{
	bool		same;

	SpinLockAcquire(&slot->mutex);
	same = slot->in_use && same_key(&slot->key, key);
	if (same)
	{
		slot->referenced = true;
		add_to_slot(slot, ns, rows, error_class);
	}
	SpinLockRelease(&slot->mutex);
	return same;
}

/* ---------------------------------------------------------------------
 * Which slot belongs to which key
 */

/* The key's slot, or -1.  Needs the LWLock. */
static int
find_slot(const PerfoptQueryKey *key)
{
	IndexEntry *entry = hash_search(slot_index, key, HASH_FIND, NULL);

	return entry ? entry->slot : -1;
}

/* Give a slot that is not in use, and all zero, to a key.  Needs the LWLock
 * exclusively. */
static void
assign_slot(int slotno, const PerfoptQueryKey *key)
{
	LatencySlot *slot = &table->slots[slotno];
	IndexEntry *entry;
	instr_time	now;

	/* There are as many entries as slots, so this does not fail. */
	entry = hash_search(slot_index, key, HASH_ENTER_NULL, NULL);
	if (entry)
		entry->slot = slotno;

	INSTR_TIME_SET_CURRENT(now);
	SpinLockAcquire(&slot->mutex);
	slot->key = *key;
	slot->interval_start = now;
	slot->in_use = true;
	SpinLockRelease(&slot->mutex);
	if (slotno < perfopt_max_queries)
		table->used++;
}

/*
 * Take a slot away from its key.  What it has counted stays there for the
 * caller, who has to clear it.  Needs the LWLock exclusively.
 */
static void
withdraw_slot(int slotno)
{
	LatencySlot *slot = &table->slots[slotno];

	SpinLockAcquire(&slot->mutex);
	slot->in_use = false;
	SpinLockRelease(&slot->mutex);
	hash_search(slot_index, &slot->key, HASH_REMOVE, NULL);
	if (slotno < perfopt_max_queries)
		table->used--;
}

/* Needs the LWLock exclusively. */
static void
clear_slot(LatencySlot *slot)
{
	Assert(!slot->in_use);
	slot->referenced = false;
	slot->dropped = 0;
	memset(&slot->interval, 0, sizeof(slot->interval));
	memset(slot->interval_histogram, 0, sizeof(slot->interval_histogram));
	memset(&slot->total, 0, sizeof(slot->total));
	memset(slot->total_histogram, 0, sizeof(slot->total_histogram));
}

/*
 * Let the clock hand go on to the next free slot, or if there is none, to the
 * next that may be taken away.  Rows of other queries may only be taken when
 * two rounds, one that takes second chances away and one that finds who had
 * none, met nothing else.  Needs the LWLock exclusively.
 */
static int
next_slot(void)
{
	bool		full = table->used == perfopt_max_queries;

	for (uint64 step = 0;; step++)
	{
		int			slotno = table->clock_hand;
		LatencySlot *slot = &table->slots[slotno];
		bool		referenced;

		table->clock_hand = (slotno + 1) % perfopt_max_queries;
		if (!slot->in_use)
			return slotno;
		if (!full)
			continue;
		if (IS_OTHER_ROW(&slot->key) && step < 2 * (uint64) perfopt_max_queries)
			continue;

		SpinLockAcquire(&slot->mutex);
		referenced = slot->referenced;
		slot->referenced = false;
		SpinLockRelease(&slot->mutex);
		if (!referenced)
			return slotno;
	}
}

/* Fold a withdrawn slot into another one.  Needs the LWLock exclusively. */
static void
fold_slot(const LatencySlot *victim, LatencySlot *into)
{
	instr_time	older_by;

	SpinLockAcquire(&into->mutex);
	older_by = into->interval_start;
	if (into->interval.calls + victim->interval.calls > PG_UINT32_MAX)
		move_interval_to_total(into);
	merge_sums(&into->interval, &victim->interval);
	merge_sums(&into->total, &victim->total);
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
	{
		into->interval_histogram[i] += victim->interval_histogram[i];
		into->total_histogram[i] += victim->total_histogram[i];
	}
	INSTR_TIME_SUBTRACT(older_by, victim->interval_start);
	if (perfopt_instr_ns(older_by) > 0)
		into->interval_start = victim->interval_start;
	into->dropped += victim->dropped;
	into->referenced = true;
	SpinLockRelease(&into->mutex);
}

/*
 * A slot for a new key, clear and in use.  Needs the LWLock exclusively.
 */
static int
make_slot(const PerfoptQueryKey *key)
{
	for (;;)
	{
		int			slotno = next_slot();
		LatencySlot *slot = &table->slots[slotno];
		PerfoptQueryKey other_key = {0};
		int			other;

		if (!slot->in_use)
		{
			assign_slot(slotno, key);
			return slotno;
		}

		/* It is the victim: into which row goes what it has counted? */
		withdraw_slot(slotno);
		if (!IS_OTHER_ROW(&slot->key))
		{
			other_key.database = slot->key.database;
			slot->dropped = 1;
			table->dropped++;
		}
		other = find_slot(&other_key);
		if (other < 0 && other_key.database == InvalidOid)
		{
			other = perfopt_max_queries;
			assign_slot(other, &other_key);
		}
		if (other < 0)
		{
			/* This becomes the row of others, and another victim is needed. */
			assign_slot(slotno, &other_key);
			continue;
		}
		fold_slot(slot, &table->slots[other]);
		clear_slot(slot);
		assign_slot(slotno, key);
		return slotno;
	}
}

/* ---------------------------------------------------------------------
 * Adding
 */

static void
add_slowly(const PerfoptQueryKey *key, uint64 ns, uint64 rows,
		   ErrorClass error_class, CachedSlot *cached)
{
	int			slotno;

	LWLockAcquire(table->lock, LW_SHARED);
	slotno = find_slot(key);
	if (slotno < 0)
	{
		LWLockRelease(table->lock);
		LWLockAcquire(table->lock, LW_EXCLUSIVE);
		slotno = find_slot(key);
		if (slotno < 0)
		{
			LatencySlot *slot;

			/* No second chance yet for a new row. */
			slotno = make_slot(key);
			slot = &table->slots[slotno];
			SpinLockAcquire(&slot->mutex);
			add_to_slot(slot, ns, rows, error_class);
			SpinLockRelease(&slot->mutex);
			LWLockRelease(table->lock);
			cached->key = *key;
			cached->slot = slotno;
			return;
		}
	}
	(void) add_if_same_key(&table->slots[slotno], key, ns, rows, error_class);
	LWLockRelease(table->lock);
	cached->key = *key;
	cached->slot = slotno;
}

/*
 * Count one call.  rows is ignored for one that failed.
 */
void
perfopt_latency_add(const PerfoptQueryKey *key, uint64 elapsed, uint64 rows,
					ErrorClass error_class)
{
	uint64		ns = PERFOPT_STATEMENT_NS(elapsed);
	uint32		hash = (uint32) (key->queryid ^ (key->queryid >> 32)) ^ key->role;
	CachedSlot *cached = &local_cache[hash % LOCAL_CACHE_SIZE];

	/* No key is all zero, so an empty cache entry does not match. */
	if (same_key(&cached->key, key) &&
		add_if_same_key(&table->slots[cached->slot], key, ns, rows, error_class))
		return;
	add_slowly(key, ns, rows, error_class, cached);
}

/* ---------------------------------------------------------------------
 * Reading
 */

static void
read_slot(LatencySlot *slot, LatencyRow *row)
{
	SpinLockAcquire(&slot->mutex);
	row->key = slot->key;
	row->dropped = slot->dropped;
	row->sums = slot->total;
	merge_sums(&row->sums, &slot->interval);
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		row->histogram[i] = slot->total_histogram[i] + slot->interval_histogram[i];
	SpinLockRelease(&slot->mutex);
}

/*
 * Call function for every row.  No row is folded into another one while they
 * are read, so sums over all rows are right.
 *
 * The rows are copied first.  A function that raised an error under the lock
 * would have the error recorded, in add_slowly(), by somebody who waits for
 * himself.
 */
void
perfopt_latency_scan(LatencyRowFunction function, void *arg)
{
	LatencyRow *rows;
	int			count = 0;

	/* As far as it is not used, this is address space, not memory. */
	rows = MemoryContextAllocHuge(CurrentMemoryContext,
								  mul_size(perfopt_max_queries + 1, sizeof(LatencyRow)));
	LWLockAcquire(table->lock, LW_SHARED);
	for (int i = 0; i <= perfopt_max_queries; i++)
		if (table->slots[i].in_use)
			read_slot(&table->slots[i], &rows[count++]);
	LWLockRelease(table->lock);

	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		function(&rows[i], arg);
	}
	pfree(rows);
}

static void
read_cost(LatencySlot *slot, PerfoptQueryCost *cost)
{
	LatencySums sums;

	SpinLockAcquire(&slot->mutex);
	sums = slot->total;
	merge_sums(&sums, &slot->interval);
	SpinLockRelease(&slot->mutex);

	cost->calls = sums.calls;
	cost->errors = sums.errors;
	cost->rows = sums.rows;
	cost->total_ms = sums.total_ns / 1e6;
	cost->max_ms = sums.max_ns / 1e6;
}

bool
perfopt_query_cost(const PerfoptQueryKey *key, PerfoptQueryCost *cost)
{
	int			slotno;

	if (!table)
		return false;
	LWLockAcquire(table->lock, LW_SHARED);
	slotno = find_slot(key);
	if (slotno >= 0)
		read_cost(&table->slots[slotno], cost);
	LWLockRelease(table->lock);
	return slotno >= 0;
}

double
perfopt_database_total_ms(Oid database)
{
	double		total_ms = 0;

	if (!table)
		return 0;
	LWLockAcquire(table->lock, LW_SHARED);
	for (int i = 0; i < perfopt_max_queries; i++)
	{
		LatencySlot *slot = &table->slots[i];
		PerfoptQueryCost cost;

		if (!slot->in_use || slot->key.database != database)
			continue;
		read_cost(slot, &cost);
		total_ms += cost.total_ms;
	}
	LWLockRelease(table->lock);
	return total_ms;
}

LatencyInfo
perfopt_latency_info(void)
{
	LatencyInfo info;

	LWLockAcquire(table->lock, LW_SHARED);
	info.rows_used = table->used;
	info.rows_max = perfopt_max_queries;
	info.dropped = table->dropped;
	info.stats_reset = table->stats_reset;
	LWLockRelease(table->lock);
	return info;
}

/* ---------------------------------------------------------------------
 * Sampling
 */

/* How many rows of the database have counted something since the last sample. */
int
perfopt_latency_count(Oid database)
{
	int			count = 0;

	for (int i = 0; i < perfopt_max_queries; i++)
	{
		LatencySlot *slot = &table->slots[i];

		SpinLockAcquire(&slot->mutex);
		if (slot->in_use && slot->key.database == database &&
			slot->interval.calls > 0)
			count++;
		SpinLockRelease(&slot->mutex);
	}
	return count;
}

/*
 * Take a sample of the database: move intervals into totals, and hand out what
 * was moved.  Rows that do not fit into deltas are left for the next sample.
 * *interval_ms is the time since the previous sample or, if there was none, as
 * far back as there are rows.
 *
 * Allocates nothing and raises nothing: once a delta is moved, only the copy
 * in the caller's hands tells what it was.
 */
int
perfopt_latency_take(Oid database, LatencyDelta *deltas, int max_deltas,
					 double *interval_ms)
{
	int			count = 0;
	instr_time	now;
	int64		longest = 0;

	INSTR_TIME_SET_CURRENT(now);
	for (int i = 0; i < perfopt_max_queries; i++)
	{
		LatencySlot *slot = &table->slots[i];
		instr_time	elapsed = now;

		SpinLockAcquire(&slot->mutex);
		if (slot->in_use && slot->key.database == database &&
			(slot->interval.calls == 0 || count < max_deltas))
		{
			if (slot->interval.calls > 0)
			{
				LatencyDelta *delta = &deltas[count++];

				delta->key = slot->key;
				delta->sums = slot->interval;
				memcpy(delta->histogram, slot->interval_histogram,
					   sizeof(delta->histogram));
				move_interval_to_total(slot);
			}
			INSTR_TIME_SUBTRACT(elapsed, slot->interval_start);
			longest = Max(longest, perfopt_instr_ns(elapsed));
			slot->interval_start = now;
		}
		SpinLockRelease(&slot->mutex);
	}
	*interval_ms = longest / 1e6;
	return count;
}

/* ---------------------------------------------------------------------
 * Forgetting
 */

static void
forget_slots(Oid database)
{
	for (int i = 0; i <= perfopt_max_queries; i++)
	{
		LatencySlot *slot = &table->slots[i];

		if (!slot->in_use ||
			(OidIsValid(database) && slot->key.database != database))
			continue;
		withdraw_slot(i);
		clear_slot(slot);
	}
}

/* Forget all rows. */
void
perfopt_latency_reset(void)
{
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	forget_slots(InvalidOid);
	table->dropped = 0;
	table->stats_reset = GetCurrentTimestamp();
	LWLockRelease(table->lock);
}

/* Forget the rows of a database that has been dropped. */
void
perfopt_latency_forget_database(Oid database)
{
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	forget_slots(database);
	LWLockRelease(table->lock);
}
