/*
 * index_size_gin.c
 *		How large a GIN index that does not exist would be when freshly built.
 *
 * The estimate follows what CREATE INDEX does (gininsert.c): keys and the rows
 * that have them are gathered in maintenance_work_mem and put into the index, in
 * the order of the keys, whenever that is full.  A page of keys that overflows is
 * divided into halves, so with all of it in one go pages stay half empty, and
 * later goes fill and divide them again.  Rows of a key are a compressed list in
 * its tuple, or, when that grows too large, a tree of pages of its own, which are
 * filled.  The goes are done for a part of the keys, with tuples of estimated size.
 *
 * Keys come from a sample (gin_keys.c).  Those frequent in it are taken to have
 * their share of the rows; the others are estimated (distinct_keys.c).
 */
#include "postgres.h"

#include "advisor/gin_keys.h"

#include <math.h>

#include "access/gin_private.h"
#include "access/itup.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "optimizer/paths.h"
#include "storage/bufpage.h"
#include "utils/rel.h"

#define LINE			((int) sizeof(ItemIdData))
#define PAGE_SPACE \
	((int) (BLCKSZ - SizeOfPageHeaderData - MAXALIGN(sizeof(GinPageOpaqueData))))

/* Of a compressed list of rows: its head, and the most of a part of it. */
#define LIST_HEAD		((int) offsetof(GinPostingList, bytes))
#define SEGMENT_FIRST	384
#define SEGMENT			256

/* Text has a longer head in memory than in a tuple. */
#define LONG_HEAD		(VARHDRSZ - VARHDRSZ_SHORT)

/* Keys that are put into pages, of all. */
#define KEYS_FILLED		6000

/* Keys that there must be of each number of rows, to find a surplus. */
#define EXCESS_FROM		100

/* So much memory, in kB, the server wants two processes to have to build an index. */
#define MEMORY_OF_WORKERS	(2 * 32 * 1024)

/* How full pages are that have been divided at different times. */
#define AGED_FILL		0.69

/* More goes than this leave pages as they are. */
#define MOST_GOES		200

/* A key that is put into pages. */
typedef struct FilledKey
{
	double		rows;
	double		bytes;			/* of a row in its list */
	double		phase;			/* the nearer to 1, the earlier its rows come */
	uint64		order[3];
	int			size;			/* without its list */
	int			tuple;			/* now, with its line; 0: it is not there yet */
	bool		by_value;
	bool		tree;			/* its rows have pages of their own */
} FilledKey;

typedef struct Population
{
	double		keys;			/* in all */
	double		entries;
	double		part;			/* of the keys, that is filled */
	int			num;
	FilledKey  *filled;
	double		data_pages;
	double		key_size;		/* average */
} Population;

/* Leaf pages of keys: from one key to before the next page's. */
typedef struct KeyPage
{
	int			start;
	int			used;
	struct KeyPage *next;
} KeyPage;

static int
list_size(double rows, double bytes)
{
	return LIST_HEAD + SHORTALIGN((int) ceil(Max(rows - 1, 0) * bytes));
}

static bool
needs_tree(int key_size, double rows, double bytes)
{
	return rows * bytes > GinMaxItemSize ||
		MAXALIGN(key_size + list_size(rows, bytes)) > GinMaxItemSize;
}

/* Pages of a tree with these rows. */
static double
tree_pages(double rows, double bytes)
{
	double		fits = GinDataPageMaxDataSize / SEGMENT_FIRST *
	(1 + floor((SEGMENT_FIRST - LIST_HEAD) / bytes));
	double		leaf_rows = GinDataPageMaxDataSize / SEGMENT *
	(1 + floor((SEGMENT - LIST_HEAD) / bytes));
	double		level = ceil(rows / leaf_rows);
	double		pages = level;

	if (rows <= fits)
		return 1;
	do
	{
		level = ceil(level / (GinDataPageMaxDataSize / sizeof(PostingItem)));
		pages += level;
	} while (level > 1);
	return pages;
}

/*
 * The population
 */
static int
by_rows(const void *a, const void *b)
{
	double		left = ((const FilledKey *) a)->rows;
	double		right = ((const FilledKey *) b)->rows;

	return left < right ? -1 : left > right ? 1 : 0;
}

static int
by_order(const void *a, const void *b)
{
	const FilledKey *left = a;
	const FilledKey *right = b;

	for (int i = 0; i < lengthof(left->order); i++)
		if (left->order[i] != right->order[i])
			return left->order[i] < right->order[i] ? -1 : 1;
	return 0;
}

static void
start_key(FilledKey *filled, const GinKey *key, const GinKeysSummary *summary)
{
	memset(filled, 0, sizeof(*filled));
	filled->size = key->size;
	filled->by_value = key->by_value;
	filled->phase = 1 - key->last / summary->sample_rows;
	filled->order[0] = key->order[0];
	filled->order[1] = key->order[1];

	/* those that begin the same are taken to be in no order */
	filled->order[2] = key->hash;
}

/* Bytes of a row of a key, of which the sample has none next to each other. */
static double
far_bytes(double rows, double table_rows, double blocks, double together)
{
	double		distance = blocks / Max(rows, 1);
	double		far = distance < 0.5 ? 1 : distance < 6 ? 2 : distance < 800 ? 3 : 4;

	return (far + Max(together - 1, 0)) / Max(together, 1);
}

/*
 * Keys of one row each that stand beside others with more: how many of those that
 * the sample has once are too many for what it has two, three and four times, if
 * that is of the family p(k) = (a + b / k) p(k - 1).
 */
static double
excess_of_single(const GinKeysSummary *summary, int frequent_from)
{
	double		num[5] = {0};
	double		a;
	double		b;
	double		excess;

	for (int i = 0; i < summary->num_keys; i++)
		if (summary->keys[i].rows < lengthof(num))
			num[summary->keys[i].rows]++;
	if (frequent_from < lengthof(num) || Min(Min(num[2], num[3]), num[4]) < EXCESS_FROM)
		return 0;
	b = 12 * (num[3] / num[2] - num[4] / num[3]);
	a = num[3] / num[2] - b / 3;
	if (a + b / 2 < 0.1)
		return 0;
	excess = num[1] - num[2] / (a + b / 2);
	return excess > 0.5 * num[1] ? excess : 0;
}

static void
populate(const GinKeysSummary *summary, double tuples, double blocks, Population *all)
{
	double		scale = Max(tuples / Max(summary->sample_rows, 1), 1);
	int			frequent_from = scale < 1.001 ? 1 : summary->frequent;
	KeyCounts	counts = {0};
	RowsOfKey	rows_of_rare;
	FilledKey  *frequent = palloc(sizeof(FilledKey) * Max(summary->num_keys, 1));
	GinKey	  **rare = palloc(sizeof(GinKey *) * Max(summary->num_keys, 1));
	int			num_frequent = 0;
	int			num_rare = 0;
	double		rare_keys;
	double		single;
	double		sizes = 0;
	int			rare_filled;
	pg_prng_state random;

	pg_prng_seed(&random, 1);
	memset(all, 0, sizeof(*all));
	for (int i = 0; i < summary->num_keys; i++)
	{
		GinKey	   *key = &summary->keys[i];
		FilledKey  *filled = &frequent[num_frequent];

		sizes += key->size;
		if (key->rows < frequent_from)
		{
			perfopt_count_key(&counts, key->rows);
			rare[num_rare++] = key;
			continue;
		}
		start_key(filled, key, summary);
		filled->rows = key->rows * scale;
		filled->bytes = key->rows < 2 ? 1 : (double) key->bytes / (key->rows - 1);
		filled->tree = needs_tree(filled->size, filled->rows, filled->bytes);
		if (filled->tree)
			all->data_pages += tree_pages(filled->rows, filled->bytes);
		num_frequent++;
	}
	single = excess_of_single(summary, frequent_from);
	counts.rows -= single;
	counts.keys -= single;
	counts.once -= single;
	rare_keys = counts.keys <= 0 ? 0 :
		perfopt_estimate_keys(&counts, counts.rows * scale / summary->together, &rows_of_rare);
	single *= scale;
	rare_keys += single;
	all->keys = num_frequent + rare_keys;
	all->entries = summary->sample_entries * scale;
	all->key_size = sizes / Max(summary->num_keys, 1);
	all->part = Min(1, KEYS_FILLED / Max(all->keys, 1));

	/* each so many of the frequent ones, of all sizes of their lists */
	rare_filled = (int) ceil(rare_keys * all->part);
	all->filled = palloc(sizeof(FilledKey) * (num_frequent + rare_filled));
	qsort(frequent, num_frequent, sizeof(FilledKey), by_rows);
	for (int i = 0; i < num_frequent; i++)
		if (floor((i + 1) * all->part) > floor(i * all->part))
			all->filled[all->num++] = frequent[i];
	for (int i = 0; i < rare_filled; i++)
	{
		FilledKey  *filled = &all->filled[all->num++];
		GinKey	   *key = rare[(int) (pg_prng_double(&random) * num_rare)];

		start_key(filled, key, summary);
		filled->rows = 1;
		if (i >= single * all->part)
			filled->rows = perfopt_draw_rows(&rows_of_rare, &random) * summary->together;
		filled->bytes = far_bytes(filled->rows, tuples, blocks, summary->together);
		filled->tree = needs_tree(filled->size, filled->rows, filled->bytes);
		if (filled->tree)
			all->data_pages += tree_pages(filled->rows, filled->bytes) / all->part;
	}
	qsort(all->filled, all->num, sizeof(FilledKey), by_order);
	pfree(frequent);
	pfree(rare);
}

/*
 * Goes
 */

/* Of a chunk of memory, which is smaller from 16 on. */
#define CHUNK_HEAD		(PG_VERSION_NUM >= 160000 ? 8 : 16)

/* What a chunk of memory takes: its size is a power of two. */
static double
chunk(double size)
{
	double		space = 8;

	while (space < size && space < 8192)
		space *= 2;
	return Max(space, size) + CHUNK_HEAD;
}

/* Memory that a part of the table takes, of all that has been filled. */
static double
memory_of(const Population *all, double part)
{
	double		sum = 0;

	for (int i = 0; i < all->num; i++)
	{
		const FilledKey *key = &all->filled[i];
		double		rows = key->rows * part;
		double		there = 1 - pow(1 - part, key->rows);
		double		room = 5;

		while (room < rows / Max(there, 1e-9))
			room *= 2;
		sum += there * (sizeof(GinEntryAccumulator) +
						chunk(room * sizeof(ItemPointerData)) +
						(key->by_value ? 0 : chunk(key->size - sizeof(IndexTupleData) + LONG_HEAD)));
	}
	return sum / all->part;
}

/* The part of the table that one go takes. */
static double
part_of_go(Relation relation, const Population *all)
{
	double		memory = maintenance_work_mem * 1024.0;
	double		low = 1.0 / MOST_GOES;
	double		high = 1;

	/* from 18 on, workers gather, and their results are merged: one go */
#if PG_VERSION_NUM >= 180000
	if (maintenance_work_mem >= MEMORY_OF_WORKERS && max_parallel_maintenance_workers > 0 &&
		RelationGetNumberOfBlocks(relation) >= min_parallel_table_scan_size)
		return 1;
#endif
	if (memory_of(all, 1) <= memory)
		return 1;
	for (int i = 0; i < 20; i++)
	{
		double		middle = (low + high) / 2;

		if (memory_of(all, middle) <= memory)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* The size of the key's tuple when so much of the table is in. */
static int
tuple_after(const FilledKey *key, double part)
{
	double		rows = part >= 1 ? key->rows : floor(key->rows * part + key->phase);

	if (rows < 1)
		return 0;
	if (key->tree && needs_tree(key->size, rows, key->bytes))
		return MAXALIGN(key->size) + LINE;
	return MAXALIGN(key->size + list_size(rows, key->bytes)) + LINE;
}

static KeyPage *
divide(const Population *all, KeyPage *page)
{
	int			end = page->next ? page->next->start : all->num;
	KeyPage    *right = palloc(sizeof(KeyPage));
	int			left_used = 0;
	int			i;

	for (i = page->start; i < end && left_used <= page->used / 2; i++)
		left_used += all->filled[i].tuple;
	right->start = i;
	right->used = page->used - left_used;
	right->next = page->next;
	page->used = left_used;
	page->next = right;
	return right;
}

/* Pages of keys, of those that are filled. */
static double
fill_pages(const Population *all, double part_of_go)
{
	KeyPage    *first = palloc0(sizeof(KeyPage));
	double		pages = 1;
	double		used = 0;

	for (double part = part_of_go;; part += part_of_go)
	{
		KeyPage    *page = first;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < all->num; i++)
		{
			FilledKey  *key = &all->filled[i];
			int			tuple = tuple_after(key, part);

			while (page->next && page->next->start <= i)
				page = page->next;
			if (tuple == key->tuple)
				continue;
			page->used += tuple - key->tuple;
			key->tuple = tuple;
			if (page->used > PAGE_SPACE)
			{
				divide(all, page);
				pages++;
			}
		}
		if (part >= 1)
			break;
	}

	for (KeyPage *page = first; page; page = page->next)
		used += page->used;

	/* a part of the keys need not fill a page */
	if (pages == 1 && all->part < 1)
		return used / PAGE_SPACE;

	/*
	 * in several goes pages come to be of different ages, unlike these alike
	 * ones
	 */
	return part_of_go > 0.5 ? pages : Max(pages, used / PAGE_SPACE / AGED_FILL);
}

static double
inner_pages(double leaves, double key_size)
{
	double		room = PAGE_SPACE / 2;
	double		level = leaves;
	double		pages = 0;

	while (level > 1)
	{
		level = ceil(level * (MAXALIGN((int) key_size) + LINE) / room);
		pages += level;
	}
	return pages;
}

void
perfopt_gin_size(Relation relation, const IndexSpec *spec, GinKeys *keys, IndexSize *size)
{
	size->tree_height = -1;
	if (keys)
	{
		Population	all;
		double		leaves;

		populate(perfopt_gin_keys_end(keys), size->tuples, RelationGetNumberOfBlocks(relation), &all);
		leaves = all.num == 0 ? 1 : ceil(fill_pages(&all, part_of_go(relation, &all)) / all.part);
		size->keys = Max(all.keys, 1);
		size->data_pages = ceil(all.data_pages);
		size->pages = 1 + leaves + inner_pages(leaves, all.key_size) + size->data_pages;
		size->row_entries = all.entries / Max(size->tuples, 1);
		for (int i = 0; i < all.num; i++)
			if (all.filled[i].size > GinMaxItemSize)
				size->possible = false;
	}
	else
	{
		/*
		 * a guess: ten keys a row, a tenth of them different, 4 bytes for
		 * each
		 */
		size->row_entries = 10;
		size->keys = Max(size->tuples, 1);
		size->data_pages = ceil(size->tuples * 10 * 4 / GinDataPageMaxDataSize / 2);
		size->pages = 2 + ceil(size->keys * 56 / (PAGE_SPACE / 2)) + size->data_pages;
	}
}
