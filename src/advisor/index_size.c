/*
 * index_size.c
 *		How large an index that does not exist would be when freshly built: a
 *		btree here, others in files of their own.
 *
 * The estimate follows what CREATE INDEX does (nbtsort.c): leaf pages are
 * filled to the fill factor, inner pages to 70 %, and rows with equal keys share
 * "posting list" tuples of at most about a tenth of a page where the operator
 * classes allow deduplication.  The entries come from a sample of the table.
 * Keys that are frequent in it are taken to have their share of the rows, the
 * others are estimated (distinct_keys.c).  Leaf pages are then filled with tuples
 * drawn from these, by the rules of the build.
 *
 * Without a sample the tuples are taken to have the width that statistics tell,
 * and no key to be there twice.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include <math.h>

#include "access/itup.h"
#include "access/nbtree.h"
#include "catalog/pg_am.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "storage/bufpage.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* Of a page, without the line pointer that is kept for its high key. */
#define PAGE_SPACE \
	((int) (BLCKSZ - SizeOfPageHeaderData - MAXALIGN(sizeof(BTPageOpaqueData)) - \
			sizeof(ItemIdData)))
#define LINE			((int) sizeof(ItemIdData))
#define INNER_SPARE		(BLCKSZ * (100 - BTREE_NONLEAF_FILLFACTOR) / 100)
#define HEAP_TID		((int) MAXALIGN(sizeof(ItemPointerData)))

/* The build's limits of posting list tuples, and of any. */
#define POSTING_MAX \
	((int) MAXALIGN_DOWN(MAXALIGN_DOWN(BLCKSZ * 10 / 100) - sizeof(ItemIdData)))
#define TUPLE_MAX		((PAGE_SPACE + LINE - 3 * LINE) / 3 - HEAP_TID)

/* A key that the sample has so often is frequent. */
#define FREQUENT		8

/* Keys drawn to fill pages with. */
#define DRAWS			20000

/* Full posting lists of a key that are put into pages one by one. */
#define POSTINGS_FILLED	40

typedef struct FrequentKey
{
	double		rows;
	int			size;			/* of a tuple with this key alone */
} FrequentKey;

/* The index's keys, as the sample tells. */
typedef struct Keys
{
	int			num_frequent;
	FrequentKey *frequent;
	double		rare_rows;
	double		rare_keys;
	int			num_rare;		/* in the sample */
	int		   *rare_sizes;
	RowsOfKey	rows_of_rare;
	double		together;		/* rows that a rare key has in a row */
	double		first_distinct; /* values of the first column */
} Keys;

/*
 * Filling pages
 */
typedef struct PageFill
{
	int			spare;			/* a page is full with less than this free */
	double		pages;			/* finished ones */
	double		tuples;
	int			free;
	int			on_page;
	int			last;			/* size of the last tuple */
	int			last_posting;	/* ... of the posting list in it */
} PageFill;

static void
fill_start(PageFill *fill, int spare)
{
	memset(fill, 0, sizeof(*fill));
	fill->spare = spare;
	fill->free = PAGE_SPACE;
}

/*
 * A finished page's last tuple becomes its high key, without the posting list,
 * and the first tuple of the next page.
 */
static void
fill_add(PageFill *fill, int size, int posting)
{
	int			space = fill->free - LINE;

	if (fill->on_page >= 2 &&
		(space < size + HEAP_TID || space + fill->last_posting < fill->spare))
	{
		fill->pages++;
		fill->free = PAGE_SPACE - fill->last - LINE;
		fill->on_page = 1;
	}
	fill->free -= size + LINE;
	fill->on_page++;
	fill->tuples++;
	fill->last = size;
	fill->last_posting = posting;
}

static double
fill_pages(const PageFill *fill)
{
	return fill->pages + (fill->on_page == 0 ? 0 :
						  Min(1, (double) (PAGE_SPACE - fill->free) / (PAGE_SPACE - fill->spare)));
}

/* Pages a tuple takes when all are like this one. */
static double
pages_per_tuple(int size, int posting, int spare)
{
	PageFill	fill;

	fill_start(&fill, spare);
	for (int i = 0; i < 2000; i++)
		fill_add(&fill, size, posting);
	return fill_pages(&fill) / 2000;
}

/*
 * Keys
 */
/* Entries, in this order, that have the same hash as the one at start. */
static int
run_length(const IndexEntry *entries, int num, int start)
{
	int			end = start + 1;

	while (end < num && entries[end].hash == entries[start].hash)
		end++;
	return end - start;
}

/* ... and those with the same hash of the first column. */
static int
first_run_length(const IndexEntry *entries, int num, int start)
{
	int			end = start + 1;

	while (end < num && entries[end].first_hash == entries[start].first_hash)
		end++;
	return end - start;
}

static bool
is_frequent(const IndexEntry *frequent, int num, const IndexEntry *entry)
{
	return bsearch(entry, frequent, num, sizeof(IndexEntry), perfopt_by_hash) != NULL;
}

/*
 * How many rows with the same rare key stand together in the table: blocks of
 * which all rows are known tell.  A block's first and last ones may go on in
 * the next one, so what counts is the number of changes.
 */
static double
rows_together(IndexEntries *entries, const IndexEntry *frequent, int num_frequent)
{
	double		rows = 0;
	double		keys = 0;
	int			start = 0;

	for (int i = 0; i < entries->num_whole; i++)
	{
		IndexEntry *block = &entries->whole[start];
		int			num = i + 1 - start;
		int			rare = 0;
		int			distinct = 0;

		if (i + 1 < entries->num_whole && entries->whole[i + 1].block == block->block)
			continue;
		start = i + 1;
		qsort(block, num, sizeof(IndexEntry), perfopt_by_hash);
		for (int j = 0; j < num; j++)
		{
			if (is_frequent(frequent, num_frequent, &block[j]))
				continue;
			rare++;
			distinct += j == 0 || block[j].hash != block[j - 1].hash;
		}
		rows += Max(rare - 1, 0);
		keys += Max(distinct - 1, 0);
	}
	return rows <= 0 ? 1 : rows / Max(keys, 1);
}

static double
first_distinct(IndexEntries *entries, double tuples)
{
	KeyCounts	counts = {0};
	int			run;

	qsort(entries->entries, entries->num, sizeof(IndexEntry), perfopt_by_first_hash);
	for (int i = 0; i < entries->num; i += run)
	{
		run = first_run_length(entries->entries, entries->num, i);
		perfopt_count_key(&counts, run);
	}
	return perfopt_estimate_keys(&counts, tuples, NULL);
}

static void
analyze_keys(IndexEntries *entries, double tuples, Keys *keys)
{
	double		scale = Max(tuples / Max(entries->num, 1), 1);
	int			frequent = scale < 1.001 ? 1 : FREQUENT;
	KeyCounts	counts = {0};
	IndexEntry *frequent_entries = palloc(sizeof(IndexEntry) * Max(entries->num, 1));
	int			run;

	memset(keys, 0, sizeof(*keys));
	keys->first_distinct = first_distinct(entries, tuples);
	keys->frequent = palloc(sizeof(FrequentKey) * Max(entries->num, 1));
	keys->rare_sizes = palloc(sizeof(int) * Max(entries->num, 1));
	qsort(entries->entries, entries->num, sizeof(IndexEntry), perfopt_by_hash);
	for (int i = 0; i < entries->num; i += run)
	{
		run = run_length(entries->entries, entries->num, i);
		if (run >= frequent)
		{
			FrequentKey *key = &keys->frequent[keys->num_frequent];

			frequent_entries[keys->num_frequent++] = entries->entries[i];

			key->rows = run * scale;
			key->size = entries->entries[i].size;
			continue;
		}
		perfopt_count_key(&counts, run);
		keys->rare_sizes[keys->num_rare++] = entries->entries[i].size;
	}
	keys->rare_rows = counts.rows * scale;
	keys->together = rows_together(entries, frequent_entries, keys->num_frequent);
	keys->rare_keys = perfopt_estimate_keys(&counts, keys->rare_rows / keys->together,
											&keys->rows_of_rare);
	pfree(frequent_entries);
}

/*
 * Leaf pages
 */
typedef struct Leaves
{
	double		tuples;
	double		pages;
} Leaves;

static int
rows_per_posting(int key_size)
{
	return Max((POSTING_MAX - key_size) / (int) sizeof(ItemPointerData), 1);
}

static int
posting_size(int key_size, double rows)
{
	return rows < 1.5 ? key_size :
		(int) MAXALIGN(key_size + (int) (rows + 0.5) * sizeof(ItemPointerData));
}

/* All tuples of a key; pages of those that are too many are counted apart. */
static void
fill_key(PageFill *fill, int key_size, double rows, Leaves *apart)
{
	int			most = rows_per_posting(key_size);
	int			full_size = posting_size(key_size, most);
	double		full = floor(rows / most);
	double		rest = rows - full * most;

	if (full > POSTINGS_FILLED)
	{
		apart->pages += (full - POSTINGS_FILLED) *
			pages_per_tuple(full_size, full_size - key_size, fill->spare);
		apart->tuples += full - POSTINGS_FILLED;
		full = POSTINGS_FILLED;
	}
	for (int i = 0; i < full; i++)
		fill_add(fill, full_size, full_size - key_size);
	if (rest >= 0.5)
		fill_add(fill, posting_size(key_size, rest), posting_size(key_size, rest) - key_size);
}

/*
 * Tuples with posting lists.  Frequent and rare keys stand mixed in the index;
 * when there are many rare ones, only a part of these is drawn, without the
 * others.
 */
static void
deduplicated_leaves(const Keys *keys, int spare, Leaves *leaves)
{
	int			rare = (int) ceil(Min(keys->rare_keys, DRAWS));
	bool		mixed = keys->rare_keys <= DRAWS;
	int			frequent = 0;
	PageFill	fill;
	pg_prng_state random;

	memset(leaves, 0, sizeof(*leaves));
	pg_prng_seed(&random, 1);
	fill_start(&fill, spare);
	for (int i = 0; i < rare; i++)
	{
		while (mixed && frequent < (double) (i + 1) / rare * keys->num_frequent)
		{
			fill_key(&fill, keys->frequent[frequent].size, keys->frequent[frequent].rows, leaves);
			frequent++;
		}
		fill_key(&fill, keys->rare_sizes[(int) (pg_prng_double(&random) * keys->num_rare)],
				 perfopt_draw_rows(&keys->rows_of_rare, &random) * keys->together, leaves);
	}
	if (!mixed)
	{
		leaves->pages += fill_pages(&fill) * keys->rare_keys / rare;
		leaves->tuples += fill.tuples * keys->rare_keys / rare;
		fill_start(&fill, spare);
	}
	for (; frequent < keys->num_frequent; frequent++)
		fill_key(&fill, keys->frequent[frequent].size, keys->frequent[frequent].rows, leaves);
	leaves->pages += fill_pages(&fill);
	leaves->tuples += fill.tuples;
}

static void
plain_leaves(const IndexEntries *entries, double tuples, int spare, Leaves *leaves)
{
	int			draws = (int) Max(Min(tuples, DRAWS), 1);
	PageFill	fill;
	pg_prng_state random;

	pg_prng_seed(&random, 1);
	fill_start(&fill, spare);
	for (int i = 0; i < draws && entries->num > 0; i++)
		fill_add(&fill, entries->entries[(int) (pg_prng_double(&random) * entries->num)].size, 0);
	leaves->tuples = tuples;
	leaves->pages = fill_pages(&fill) * tuples / draws;
}

/*
 * The tree
 */
static void
stack_levels(double leaf_pages, int pivot, IndexSize *size)
{
	double		level = Max(1, Min(ceil(leaf_pages), MaxBlockNumber));	/* also of NaN */
	double		per_tuple = pages_per_tuple(Min(pivot, TUPLE_MAX), 0, INNER_SPARE);

	size->pages = level;
	size->tree_height = 0;
	while (level > 1)
	{
		/* whatever the pivot, an inner page has two of them at least */
		level = Min(ceil(level * per_tuple), ceil(level / 2));
		size->pages += level;
		size->tree_height++;
	}
	size->pages += 1;			/* the meta page */
}

/*
 * The average pivot: of the first tuple of a page, as many columns as tell it
 * from the one before; if none do, all keys and a heap TID.
 */
static int
pivot_size(const IndexEntries *entries, const Keys *keys, const Leaves *leaves)
{
	double		leaf_tuples = Max(leaves->tuples, 1);
	double		first = Min(keys->first_distinct / leaf_tuples, 1);
	double		all = Min((keys->num_frequent + keys->rare_keys) / leaf_tuples, 1);

	return (int) (first * entries->first_size +
				  (1 - first) * (entries->key_size + (1 - all) * HEAP_TID));
}

static void
size_of_sample(const IndexSpec *spec, IndexEntries *entries, double tuples, IndexSize *size)
{
	int			spare = BLCKSZ *
	(100 - (spec->fillfactor ? spec->fillfactor : BTREE_DEFAULT_FILLFACTOR)) / 100;
	Keys		keys;
	Leaves		leaves;

	for (int i = 0; i < entries->num; i++)
		if (entries->entries[i].size > TUPLE_MAX)
			size->possible = false;
	analyze_keys(entries, tuples, &keys);
	if (entries->deduplicated)
		deduplicated_leaves(&keys, spare, &leaves);
	else
		plain_leaves(entries, tuples, spare, &leaves);
	stack_levels(leaves.pages, pivot_size(entries, &keys, &leaves), size);
	pfree(keys.frequent);
	pfree(keys.rare_sizes);
}

static void
size_of_statistics(Relation relation, const IndexSpec *spec, double tuples, IndexSize *size)
{
	int			spare = BLCKSZ *
	(100 - (spec->fillfactor ? spec->fillfactor : BTREE_DEFAULT_FILLFACTOR)) / 100;
	double		width = sizeof(IndexTupleData);
	int			tuple_size;

	for (int i = 0; i < spec->num_columns; i++)
	{
		const IndexColumn *column = &spec->columns[i];
		int32		known = column->attnum == 0 ? 0 :
		get_attavgwidth(RelationGetRelid(relation), column->attnum);

		width += known > 0 ? known : get_typavgwidth(column->type, column->typmod);
	}
	tuple_size = Min(MAXALIGN((int) width), TUPLE_MAX);
	stack_levels(tuples * pages_per_tuple(tuple_size, 0, spare), tuple_size, size);
}

static void
btree_size(Relation relation, const IndexSpec *spec, IndexEntries *entries, IndexSize *size)
{
	if (entries)
		size_of_sample(spec, entries, size->tuples, size);
	else
		size_of_statistics(relation, spec, size->tuples, size);
}

void
perfopt_index_size(Relation relation, double table_rows, const IndexSpec *spec,
				   IndexEntries *entries, IndexSize *size)
{
	memset(size, 0, sizeof(*size));
	size->possible = entries == NULL || !entries->too_wide;
	size->row_entries = 1;
	if (entries)
	{
		/* none found means that there are few */
		double		fraction = entries->num > 0 ? entries->fraction :
		0.5 / Max(entries->rows_looked_at, 1);

		size->tuples = Max(1, table_rows * fraction);
	}
	else
		size->tuples = Max(1, spec->predicate ? table_rows * 0.1 : table_rows);

	if (spec->am == GIN_AM_OID)
		perfopt_gin_size(relation, spec, entries ? entries->gin_keys : NULL, size);
	else if (spec->am == BRIN_AM_OID)
		perfopt_brin_size(relation, spec, entries, size);
	else
		btree_size(relation, spec, entries, size);
}
