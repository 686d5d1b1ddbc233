/*
 * store.c
 *		Entries in shared memory.
 *
 * The memory is one area of perfopt.cache_size, mapped in every process as long
 * as the server runs.  Most of it is blocks of equal size; an entry is a chain
 * of them.  A chain need not be contiguous: an entry is only ever copied in and
 * out, so nothing asks for one address.  In return there is no fragmentation:
 * whatever is evicted makes room for whatever comes, of any size.
 *
 * Entries are found by the hash of their key: it leads to a bucket of seven
 * slots, one of which may be the entry's.  A full bucket gives up its least
 * valuable entry for a new one.  There is one entry for a hash; keys with the
 * same hash take it from each other, and whoever reads compares the whole key.
 *
 * Which entries stay follows hyperbolic caching (Blankstein, Sen, Freedman:
 * Hyperbolic Caching: Flexible Caching for Web Applications, USENIX ATC 2017):
 * an entry is worth the time it has saved per byte and time in the cache.  The
 * least valuable one of a random sample is evicted, one that has expired before
 * all others.
 *
 * LOCKING
 *
 * Readers take no lock.  Each slot has a version, odd while the slot is changed.
 * A reader notes the version, copies what the slot points to, and looks at the
 * version again: when it has changed, the copy is worthless.  Blocks are given
 * back only after the slot that pointed to them was changed, so whoever reads
 * blocks that have got another owner finds a changed version.  Until he has
 * found out, he may read anything, but always mapped memory: numbers of blocks
 * and sizes are checked before they are followed.
 *
 * bucket->mutex, a spinlock, is held to change slots of the bucket, for some
 * stores.  hashes[] of the bucket are hints for readers and belong to the slots.
 * A slot's hits and refresh_claimed_at are atomic and may be counted for the
 * entry that had the slot before.
 *
 * part->lock, an LWLock, guards the part's list of free blocks; there are
 * several parts, and any part's blocks may be given back to any other.  next[]
 * of a block belongs to the block's owner: a free list, the slot it hangs on, or
 * the backend that has taken it and not yet put it anywhere.
 *
 * Never are two of these held at the same time, and nothing between taking
 * blocks and handing them on raises an error or processes interrupts, so none
 * are lost.
 *
 * Admitted races: when many put at the same time, one may find all blocks in
 * the hands of others, and fails.  Of two who put the same key, the last one
 * wins, which need not have the newer result; that costs misses only.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "common/pg_prng.h"
#include "common/shmem.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define BLOCK_SIZE		256
#define NO_BLOCK		PG_UINT32_MAX
#define BUCKET_SLOTS	7		/* so that a bucket is eight cache lines */
#define NUM_PARTS		16

/* How many entries to compare, and how far to look for them, to evict one. */
#define SAMPLE_ENTRIES	24
#define SAMPLE_BUCKETS	256

/* What a value counts as that was given, not computed: a short query. */
#define GIVEN_COST_NS	1000000

/* How often a reader tries again when a slot changes while he copies. */
#define READ_ATTEMPTS	4

typedef struct StoreSlot
{
	pg_atomic_uint64 version;	/* odd: being changed */
	uint32		first;			/* block, or NO_BLOCK: empty */
	uint32		size;			/* of the entry */
	uint64		cost_ns;
	TimestampTz filled_at;
	TimestampTz expires_at;
	pg_atomic_uint64 refresh_claimed_at;	/* a TimestampTz */
	pg_atomic_uint64 hits;
	Oid			database;
	Oid			role;
} StoreSlot;

typedef struct StoreBucket
{
	uint64		hashes[BUCKET_SLOTS];	/* 0: empty */
	slock_t		mutex;
	StoreSlot	slots[BUCKET_SLOTS];
} StoreBucket;

typedef struct StorePart
{
	LWLock	   *lock;
	uint32		first_free;
	uint32		num_free;
	char		pad[PG_CACHE_LINE_SIZE - sizeof(LWLock *) - 2 * sizeof(uint32)];
} StorePart;

typedef struct Store
{
	uint32		num_buckets;
	uint32		num_blocks;
	pg_atomic_uint64 entries;
	pg_atomic_uint64 bytes;
	char		pad[PG_CACHE_LINE_SIZE - 2 * sizeof(uint32) - 2 * sizeof(pg_atomic_uint64)];
	StorePart	parts[NUM_PARTS];
} Store;

/* Blocks of one owner, linked by next[]; tail and what follows it are unset
 * when count is 0. */
typedef struct BlockChain
{
	uint32		head;
	uint32		tail;
	uint32		count;
} BlockChain;

/* The part of a slot that a reader needs, of one version. */
typedef struct SlotView
{
	uint64		version;
	uint32		first;
	uint32		size;
	uint64		cost_ns;
	TimestampTz filled_at;
	TimestampTz expires_at;
	Oid			database;
	Oid			role;
} SlotView;

/* All in one area of perfopt.cache_size, in this order. */
static Store *store = NULL;
static StoreBucket *buckets;
static uint32 *next;			/* of each block */
static char *blocks;

/* ---------------------------------------------------------------------
 * Shared memory
 */

static Size
area_size(void)
{
	return (Size) perfopt_cache_size * 1024;
}

static void
area_init(void *area, LWLockPadded *locks, bool found)
{
	/* One slot for each kB, and blocks in what remains. */
	uint32		num_buckets = perfopt_cache_size / BUCKET_SLOTS + 1;
	Size		fixed = MAXALIGN(sizeof(Store)) + num_buckets * sizeof(StoreBucket);
	uint32		num_blocks = (area_size() - fixed - MAXIMUM_ALIGNOF) / (BLOCK_SIZE + sizeof(uint32));

	store = area;
	buckets = (StoreBucket *) ((char *) area + MAXALIGN(sizeof(Store)));
	next = (uint32 *) (buckets + num_buckets);
	blocks = (char *) MAXALIGN(next + num_blocks);
	Assert(blocks + (Size) num_blocks * BLOCK_SIZE <= (char *) area + area_size());
	if (found)
		return;

	memset(area, 0, fixed);
	store->num_buckets = num_buckets;
	store->num_blocks = num_blocks;
	pg_atomic_init_u64(&store->entries, 0);
	pg_atomic_init_u64(&store->bytes, 0);

	for (uint32 b = 0; b < num_buckets; b++)
	{
		SpinLockInit(&buckets[b].mutex);
		for (int i = 0; i < BUCKET_SLOTS; i++)
		{
			StoreSlot  *slot = &buckets[b].slots[i];

			slot->first = NO_BLOCK;
			pg_atomic_init_u64(&slot->version, 0);
			pg_atomic_init_u64(&slot->refresh_claimed_at, 0);
			pg_atomic_init_u64(&slot->hits, 0);
		}
	}

	for (int i = 0; i < NUM_PARTS; i++)
	{
		StorePart  *part = &store->parts[i];
		uint32		begin = (uint64) num_blocks * i / NUM_PARTS;
		uint32		end = (uint64) num_blocks * (i + 1) / NUM_PARTS;

		part->lock = &locks[i].lock;
		part->first_free = begin;
		part->num_free = end - begin;
		for (uint32 block = begin; block < end; block++)
			next[block] = block + 1 < end ? block + 1 : NO_BLOCK;
	}
}

static const PerfoptShmemPart store_part = {
	.name = "cache_store",
	.num_locks = NUM_PARTS,
	.area_size = area_size,
	.init = area_init
};

void
cache_store_init(void)
{
	perfopt_shmem_register(&store_part);
}

Size
cache_store_max_entry(void)
{
	Size		max_kb = Min(perfopt_cache_max_entry_size, perfopt_cache_size / 8);

	return Min(max_kb * 1024, MaxAllocSize);
}

/* ---------------------------------------------------------------------
 * Blocks
 */

static inline uint32
blocks_for(Size size)
{
	return (size + BLOCK_SIZE - 1) / BLOCK_SIZE;
}

static void
append_chain(BlockChain *chain, const BlockChain *more)
{
	if (more->count == 0)
		return;
	if (chain->count == 0)
		chain->head = more->head;
	else
		next[chain->tail] = more->head;
	chain->tail = more->tail;
	chain->count += more->count;
}

/* Cut off what follows the first count blocks, one at least. */
static BlockChain
split_chain(BlockChain *chain, uint32 count)
{
	BlockChain	rest = {NO_BLOCK, chain->tail, chain->count - count};
	uint32		block = chain->head;

	Assert(count > 0 && count <= chain->count);
	for (uint32 i = 1; i < count; i++)
		block = next[block];
	if (rest.count > 0)
		rest.head = next[block];
	chain->tail = block;
	chain->count = count;
	return rest;
}

static void
take_from_part(StorePart *part, BlockChain *chain, uint32 wanted)
{
	BlockChain	taken = {NO_BLOCK, NO_BLOCK, 0};

	if (part->num_free == 0)	/* or nearly so, never mind */
		return;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	taken.head = part->first_free;
	taken.count = Min(wanted, part->num_free);
	if (taken.count > 0)
	{
		taken.tail = taken.head;
		for (uint32 i = 1; i < taken.count; i++)
			taken.tail = next[taken.tail];
		part->first_free = next[taken.tail];
		part->num_free -= taken.count;
	}
	LWLockRelease(part->lock);
	append_chain(chain, &taken);
}

static void
give_back(const BlockChain *chain)
{
	StorePart  *part;

	if (chain->count == 0)
		return;
	part = &store->parts[chain->head % NUM_PARTS];
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	next[chain->tail] = part->num_free > 0 ? part->first_free : NO_BLOCK;
	part->first_free = chain->head;
	part->num_free += chain->count;
	LWLockRelease(part->lock);
}

/* ---------------------------------------------------------------------
 * Bytes
 */

static void
write_bytes(const BlockChain *chain, const char *bytes, Size len)
{
	uint32		block = chain->head;

	for (Size done = 0; done < len; done += BLOCK_SIZE)
	{
		memcpy(blocks + (Size) block * BLOCK_SIZE, bytes + done, Min(BLOCK_SIZE, len - done));
		block = next[block];
	}
}

/*
 * Copy len bytes from an offset in a chain.  The chain may be changed by others
 * meanwhile: false when it is noticed here, but that it has not been is up to
 * the caller to find out.
 */
static bool
read_bytes(uint32 block, Size offset, char *into, Size len)
{
	for (; offset >= BLOCK_SIZE; offset -= BLOCK_SIZE)
	{
		if (block >= store->num_blocks)
			return false;
		block = next[block];
	}
	while (len > 0)
	{
		Size		part = Min(len, BLOCK_SIZE - offset);

		if (block >= store->num_blocks)
			return false;
		memcpy(into, blocks + (Size) block * BLOCK_SIZE + offset, part);
		block = next[block];
		into += part;
		len -= part;
		offset = 0;
	}
	return true;
}

/* ---------------------------------------------------------------------
 * Slots
 */

/* Zero is the hash of empty slots. */
static inline uint64
slot_hash(uint64 hash)
{
	return hash != 0 ? hash : 1;
}

static inline StoreBucket *
bucket_of(uint64 hash)
{
	/* of the upper half, as backends' chains are found by the lower one */
	return &buckets[((hash >> 32) * store->num_buckets) >> 32];
}

static inline bool
slot_is_unchanged(StoreSlot *slot, uint64 version)
{
	pg_read_barrier();
	return pg_atomic_read_u64(&slot->version) == version;
}

/* False when it is empty, or being changed. */
static bool
view_slot(StoreSlot *slot, SlotView *view)
{
	view->version = pg_atomic_read_u64(&slot->version);
	if (view->version & 1)
		return false;
	pg_read_barrier();
	view->first = slot->first;
	view->size = slot->size;
	view->cost_ns = slot->cost_ns;
	view->filled_at = slot->filled_at;
	view->expires_at = slot->expires_at;
	view->database = slot->database;
	view->role = slot->role;
	return slot_is_unchanged(slot, view->version) && view->first != NO_BLOCK;
}

/*
 * A copy of the entry that the view is of.  NULL when it was changed, or there
 * is no memory; the first is worth another attempt.
 */
static CacheEntry *
copy_entry(StoreSlot *slot, const SlotView *view, MemoryContext context)
{
	CacheEntry *entry = MemoryContextAllocExtended(context, view->size, MCXT_ALLOC_NO_OOM);

	if (entry == NULL)
		return NULL;
	if (read_bytes(view->first, 0, (char *) entry, view->size) &&
		slot_is_unchanged(slot, view->version) &&
		entry->size == view->size && cache_entry_is_sane(entry, view->size))
		return entry;
	pfree(entry);
	return NULL;
}

/* Needs the bucket's spinlock; it is held for this only. */
static inline void
begin_change(StoreSlot *slot)
{
	pg_atomic_write_u64(&slot->version, pg_atomic_read_u64(&slot->version) + 1);
	pg_write_barrier();
}

static inline void
end_change(StoreSlot *slot)
{
	pg_write_barrier();
	pg_atomic_write_u64(&slot->version, pg_atomic_read_u64(&slot->version) + 1);
}

/*
 * The blocks that a slot has had, which are ours now, and what it counted for
 * is taken off.  Not for use under the spinlock: it walks the chain.
 */
static BlockChain
released_chain(uint32 first, uint32 size)
{
	BlockChain	chain = {first, first, 0};

	if (first == NO_BLOCK)
		return chain;
	chain.count = blocks_for(size);
	for (uint32 i = 1; i < chain.count; i++)
		chain.tail = next[chain.tail];
	pg_atomic_fetch_sub_u64(&store->entries, 1);
	pg_atomic_fetch_sub_u64(&store->bytes, size);
	return chain;
}

/*
 * Empty the slot if it still has that version, and get its blocks.
 */
static bool
withdraw(StoreBucket *bucket, int i, uint64 version, BlockChain *chain)
{
	StoreSlot  *slot = &bucket->slots[i];
	uint32		first = NO_BLOCK;
	uint32		size = 0;
	bool		same;

	SpinLockAcquire(&bucket->mutex);
	same = pg_atomic_read_u64(&slot->version) == version;
	if (same)
	{
		begin_change(slot);
		first = slot->first;
		size = slot->size;
		slot->first = NO_BLOCK;
		bucket->hashes[i] = 0;
		end_change(slot);
	}
	SpinLockRelease(&bucket->mutex);
	*chain = released_chain(first, size);
	return same && chain->count > 0;
}

static bool
remove_slot(StoreBucket *bucket, int i, uint64 version)
{
	BlockChain	chain;
	bool		removed = withdraw(bucket, i, version, &chain);

	give_back(&chain);
	return removed;
}

/* ---------------------------------------------------------------------
 * Eviction
 */

/* Nanoseconds saved per byte and microsecond; less than all when expired. */
static inline double
value_of(StoreSlot *slot, TimestampTz now)
{
	double		cost = slot->cost_ns > 0 ? slot->cost_ns : GIVEN_COST_NS;
	double		age = Max(now - slot->filled_at, 0) + 1;
	double		hits = pg_atomic_read_u64(&slot->hits);

	if (slot->expires_at <= now)
		return -1;
	return cost * hits / (age * Max(slot->size, 1));
}

/*
 * Evict the least valuable entry of a sample: those in neighbouring buckets,
 * from a random one on.  Hashes spread entries, so these are as good as any.
 * The chain gets its blocks.  False when there was nothing, or others were
 * faster.
 */
static bool
evict_one(TimestampTz now, BlockChain *chain)
{
	uint32		b = pg_prng_uint64_range(&pg_global_prng_state, 0, store->num_buckets - 1);
	StoreBucket *victim = NULL;
	int			victim_slot = 0;
	uint64		victim_version = 0;
	double		least = 0;
	int			seen = 0;
	BlockChain	freed;

	for (uint32 looked = 0; looked < store->num_buckets; looked++)
	{
		StoreBucket *bucket = &buckets[b];

		for (int i = 0; i < BUCKET_SLOTS; i++)
		{
			StoreSlot  *slot = &bucket->slots[i];
			uint64		version;
			double		value;

			if (bucket->hashes[i] == 0)
				continue;
			version = pg_atomic_read_u64(&slot->version);
			if (version & 1)
				continue;
			pg_read_barrier();
			value = value_of(slot, now);
			if (victim == NULL || value < least)
			{
				victim = bucket;
				victim_slot = i;
				victim_version = version;
				least = value;
			}
			seen++;
		}
		if (seen >= SAMPLE_ENTRIES || (seen > 0 && looked >= SAMPLE_BUCKETS))
			break;
		b = b + 1 < store->num_buckets ? b + 1 : 0;
	}

	if (victim == NULL || !withdraw(victim, victim_slot, victim_version, &freed))
		return false;
	append_chain(chain, &freed);
	cache_count(CACHE_COUNT_EVICTIONS, 1);
	return true;
}

/*
 * Take blocks, evicting others if need be.
 */
static bool
take_blocks(uint32 wanted, uint64 hash, TimestampTz now, BlockChain *chain)
{
	int			failures = 0;
	BlockChain	rest;

	chain->head = chain->tail = NO_BLOCK;
	chain->count = 0;
	for (int i = 0; i < NUM_PARTS && chain->count < wanted; i++)
		take_from_part(&store->parts[(hash + i) % NUM_PARTS], chain, wanted - chain->count);

	/* Each eviction brings at least one block, so this ends. */
	while (chain->count < wanted && failures < 16)
	{
		if (!evict_one(now, chain))
			failures++;
	}
	if (chain->count < wanted)
	{
		give_back(chain);
		return false;
	}
	rest = split_chain(chain, wanted);
	give_back(&rest);
	return true;
}

/* ---------------------------------------------------------------------
 * Putting
 */

/*
 * The slot for a hash: the one it has, an empty one, or the least valuable one.
 * Needs the bucket's spinlock.
 */
static int
choose_slot(StoreBucket *bucket, uint64 hash, TimestampTz now)
{
	int			chosen = 0;
	double		least = 0;

	for (int i = 0; i < BUCKET_SLOTS; i++)
		if (bucket->hashes[i] == hash)
			return i;
	for (int i = 0; i < BUCKET_SLOTS; i++)
	{
		double		value;

		if (bucket->hashes[i] == 0)
			return i;
		value = value_of(&bucket->slots[i], now);
		if (i == 0 || value < least)
		{
			chosen = i;
			least = value;
		}
	}
	return chosen;
}

bool
cache_store_put(const CacheEntry *entry)
{
	uint64		hash = slot_hash(entry->hash);
	StoreBucket *bucket = bucket_of(hash);
	TimestampTz now = GetCurrentTimestamp();
	BlockChain	chain;
	BlockChain	old;
	StoreSlot  *slot;
	uint32		old_first;
	uint32		old_size;
	uint64		old_hash;
	int			i;

	if (entry->size > cache_store_max_entry() ||
		!take_blocks(blocks_for(entry->size), hash, now, &chain))
		return false;
	write_bytes(&chain, (const char *) entry, entry->size);

	SpinLockAcquire(&bucket->mutex);
	i = choose_slot(bucket, hash, now);
	slot = &bucket->slots[i];
	old_hash = bucket->hashes[i];
	old_first = slot->first;
	old_size = slot->size;
	begin_change(slot);
	bucket->hashes[i] = hash;
	slot->first = chain.head;
	slot->size = entry->size;
	slot->cost_ns = entry->cost_ns;
	slot->filled_at = entry->filled_at;
	slot->expires_at = entry->expires_at;
	slot->database = entry->database;
	slot->role = entry->role;
	pg_atomic_write_u64(&slot->refresh_claimed_at, 0);
	pg_atomic_write_u64(&slot->hits, 1);
	end_change(slot);
	SpinLockRelease(&bucket->mutex);

	pg_atomic_fetch_add_u64(&store->entries, 1);
	pg_atomic_fetch_add_u64(&store->bytes, entry->size);
	old = released_chain(old_first, old_size);
	give_back(&old);
	if (old_hash != 0 && old_hash != hash)
		cache_count(CACHE_COUNT_EVICTIONS, 1);
	return true;
}

/* ---------------------------------------------------------------------
 * Getting
 */

/* The number of the slot that seems to have the hash, or -1. */
static inline int
find_slot(const StoreBucket *bucket, uint64 hash)
{
	for (int i = 0; i < BUCKET_SLOTS; i++)
		if (bucket->hashes[i] == hash)
			return i;
	return -1;
}

CacheEntry *
cache_store_get(const CacheKey *key, MemoryContext context)
{
	uint64		hash = slot_hash(key->hash);
	StoreBucket *bucket = bucket_of(hash);

	for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++)
	{
		int			i = find_slot(bucket, hash);
		StoreSlot  *slot;
		SlotView	view;
		CacheEntry *entry;

		if (i < 0)
			return NULL;
		slot = &bucket->slots[i];
		if (!view_slot(slot, &view))
			continue;
		entry = copy_entry(slot, &view, context);
		if (entry == NULL)
			continue;
		if (entry->key_len == key->len &&
			memcmp(cache_entry_key(entry), key->data, key->len) == 0)
		{
			pg_atomic_fetch_add_u64(&slot->hits, 1);
			return entry;
		}
		pfree(entry);
		return NULL;
	}
	return NULL;
}

bool
cache_store_remove(const CacheKey *key)
{
	uint64		hash = slot_hash(key->hash);
	StoreBucket *bucket = bucket_of(hash);

	/* Somebody may put a new one at the same time, which then stays or not. */
	for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++)
	{
		int			i = find_slot(bucket, hash);
		SlotView	view;

		if (i < 0)
			return false;
		if (view_slot(&bucket->slots[i], &view) &&
			remove_slot(bucket, i, view.version))
			return true;
	}
	return false;
}

void
cache_store_note_hits(const CacheKey *key, uint32 hits)
{
	uint64		hash = slot_hash(key->hash);
	StoreBucket *bucket = bucket_of(hash);
	int			i = find_slot(bucket, hash);

	if (i >= 0)
		pg_atomic_fetch_add_u64(&bucket->slots[i].hits, hits);
}

bool
cache_store_claim_refresh(const CacheKey *key, TimestampTz now, int period_ms)
{
	uint64		hash = slot_hash(key->hash);
	StoreBucket *bucket = bucket_of(hash);
	int			i = find_slot(bucket, hash);
	pg_atomic_uint64 *claimed_at;
	uint64		last;

	if (i < 0)
		return false;
	claimed_at = &bucket->slots[i].refresh_claimed_at;
	last = pg_atomic_read_u64(claimed_at);
	if (last != 0 && now - (TimestampTz) last < (int64) period_ms * 1000)
		return false;
	return pg_atomic_compare_exchange_u64(claimed_at, &last, (uint64) now);
}

/* ---------------------------------------------------------------------
 * Going through all
 */

/* Does the label of that entry begin so?  Allocates nothing. */
static bool
has_prefix(const SlotView *view, const char *prefix, Size len)
{
	CacheEntry	header;
	char		bytes[256];
	Size		offset;

	if (!read_bytes(view->first, 0, (char *) &header, sizeof(header)) ||
		header.prefix_len < len)
		return false;
	offset = cache_entry_label_offset(&header);
	for (Size done = 0; done < len; done += sizeof(bytes))
	{
		Size		part = Min(sizeof(bytes), len - done);

		if (offset + done + part > view->size ||
			!read_bytes(view->first, offset + done, bytes, part) ||
			memcmp(bytes, prefix + done, part) != 0)
			return false;
	}
	return true;
}

/* InvalidOid: any.  Works in a transaction that has committed, too. */
uint64
cache_store_remove_prefix(Oid database, Oid role, const char *prefix, Size len)
{
	uint64		removed = 0;

	for (uint32 b = 0; b < store->num_buckets; b++)
	{
		StoreBucket *bucket = &buckets[b];

		for (int i = 0; i < BUCKET_SLOTS; i++)
		{
			/* One that is put while it is looked at is worth another look. */
			for (int attempt = 0; attempt < READ_ATTEMPTS && bucket->hashes[i] != 0; attempt++)
			{
				StoreSlot  *slot = &bucket->slots[i];
				SlotView	view;
				bool		matches;

				if (!view_slot(slot, &view))
					continue;
				matches = (!OidIsValid(database) || view.database == database) &&
					(!OidIsValid(role) || view.role == role) &&
					has_prefix(&view, prefix, len);
				if (!slot_is_unchanged(slot, view.version))
					continue;
				if (matches && !remove_slot(bucket, i, view.version))
					continue;
				removed += matches;
				break;
			}
		}
	}
	return removed;
}

uint64
cache_store_remove_all(Oid database, Oid role)
{
	return cache_store_remove_prefix(database, role, "", 0);
}

int
cache_store_num_slots(void)
{
	return store->num_buckets * BUCKET_SLOTS;
}

CacheEntry *
cache_store_read_slot(int slotno, MemoryContext context, uint64 *hits)
{
	StoreSlot  *slot = &buckets[slotno / BUCKET_SLOTS].slots[slotno % BUCKET_SLOTS];

	for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++)
	{
		SlotView	view;
		CacheEntry *entry;

		if (!view_slot(slot, &view))
		{
			if (slot->first == NO_BLOCK)
				return NULL;
			continue;
		}
		entry = copy_entry(slot, &view, context);
		if (entry)
		{
			*hits = pg_atomic_read_u64(&slot->hits) - 1;
			return entry;
		}
	}
	return NULL;
}

void
cache_store_usage(uint64 *entries, uint64 *bytes, uint64 *limit)
{
	*entries = pg_atomic_read_u64(&store->entries);
	*bytes = pg_atomic_read_u64(&store->bytes);
	*limit = area_size();
}
