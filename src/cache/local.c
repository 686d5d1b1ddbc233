/*
 * local.c
 *		Copies of entries in this backend's own memory, above the shared level.
 *
 * A hit here copies nothing and touches no shared memory.  The copies are
 * checked at each use like those of the shared level, so nothing has to be told
 * when what they say is no longer true.
 *
 * They are found by a table of chains, sized by perfopt.cache_local_size, and
 * the least recently used ones make room for new ones.  What they are used is
 * told to the shared level now and then: its own copy must not be evicted for
 * seeming idle.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "lib/ilist.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

/* Hits that may be unknown to the shared level. */
#define HITS_BATCH	64

typedef struct LocalEntry
{
	struct LocalEntry *next;	/* in its chain */
	dlist_node	node;			/* in the order of use */
	Size		size;			/* of the whole chunk */
	uint32		hits;			/* not noted in the shared level yet */
	CacheEntry	entry;			/* the rest of it follows */
} LocalEntry;

#define LOCAL_ENTRY_OVERHEAD	offsetof(LocalEntry, entry)

StaticAssertDecl(offsetof(LocalEntry, entry) % MAXIMUM_ALIGNOF == 0,
				 "entries must be aligned");

static MemoryContext local_context = NULL;
static int	local_limit = 0;	/* kB, the setting all this was made for */
static Size local_size;			/* of all entries and the chains */
static LocalEntry **chains = NULL;	/* NULL: there is nothing */
static uint32 chains_mask;
static dlist_head by_use = DLIST_STATIC_INIT(by_use);	/* last used first */

/*
 * Start anew, with the size that the setting has now.  Nothing is made here
 * until there is something to be put.
 */
static void
forget_all(void)
{
	chains = NULL;
	local_size = 0;
	local_limit = perfopt_cache_local_size;
	dlist_init(&by_use);
	if (local_context)
		MemoryContextReset(local_context);
}

static void
make_chains(void)
{
	uint32		num = pg_nextpower2_32(Max(local_limit, 64));

	/*
	 * With blocks this small each entry is a block, so that it goes back to
	 * the system when it is freed, whatever the sizes of others.
	 */
	if (local_context == NULL)
		local_context = AllocSetContextCreate(TopMemoryContext, "perfopt cached results",
											  0, 1024, 1024);
	chains = MemoryContextAllocExtended(local_context, num * sizeof(LocalEntry *),
										MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO | MCXT_ALLOC_NO_OOM);
	chains_mask = num - 1;
	local_size = num * sizeof(LocalEntry *);
}

static inline CacheKey
key_of(const CacheEntry *entry)
{
	CacheKey	key = {cache_entry_key(entry), entry->key_len, entry->hash};

	return key;
}

/* The link that leads to the key's entry, or NULL. */
static inline LocalEntry **
find_link(const CacheKey *key)
{
	if (chains == NULL)
		return NULL;
	for (LocalEntry **link = &chains[key->hash & chains_mask]; *link; link = &(*link)->next)
	{
		const CacheEntry *entry = &(*link)->entry;

		if (entry->hash == key->hash && entry->key_len == key->len &&
			memcmp(cache_entry_key(entry), key->data, key->len) == 0)
			return link;
	}
	return NULL;
}

static void
note_hits(LocalEntry *local)
{
	CacheKey	key = key_of(&local->entry);

	if (local->hits > 0)
		cache_store_note_hits(&key, local->hits);
	local->hits = 0;
}

static void
drop(LocalEntry **link)
{
	LocalEntry *local = *link;

	note_hits(local);
	*link = local->next;
	dlist_delete(&local->node);
	local_size -= local->size;
	pfree(local);
}

const CacheEntry *
cache_local_get(const CacheKey *key)
{
	LocalEntry **link;
	LocalEntry *local;

	if (unlikely(local_limit != perfopt_cache_local_size))
		forget_all();
	link = find_link(key);
	if (link == NULL)
		return NULL;
	local = *link;
	dlist_move_head(&by_use, &local->node);
	if (++local->hits == HITS_BATCH)
		note_hits(local);
	return &local->entry;
}

void
cache_local_put(CacheEntry *entry)
{
	CacheKey	key = key_of(entry);
	Size		size = LOCAL_ENTRY_OVERHEAD + entry->size;
	Size		limit;
	LocalEntry *local;

	if (local_limit != perfopt_cache_local_size)
		forget_all();
	cache_local_remove(&key);

	/* One that is large would push out too many others. */
	limit = (Size) local_limit * 1024;
	if (size > limit / 4)
		return;
	if (chains == NULL)
		make_chains();
	if (chains == NULL)
		return;

	/* The chains are half of it at most, so there is something to drop. */
	while (local_size + size > limit)
	{
		LocalEntry *last = dlist_tail_element(LocalEntry, node, &by_use);
		CacheKey	last_key = key_of(&last->entry);

		drop(find_link(&last_key));
	}

	local = MemoryContextAllocExtended(local_context, size,
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (local == NULL)
		return;
	local->size = size;
	local->hits = 0;
	memcpy(&local->entry, entry, entry->size);
	local->next = chains[key.hash & chains_mask];
	chains[key.hash & chains_mask] = local;
	dlist_push_head(&by_use, &local->node);
	local_size += size;
}

void
cache_local_remove(const CacheKey *key)
{
	LocalEntry **link = find_link(key);

	if (link)
		drop(link);
}
