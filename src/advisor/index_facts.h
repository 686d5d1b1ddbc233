/*
 * index_facts.h
 *		What is known of an index that does not exist: the rows and entries it is
 *		learnt from, its size, and what a scan of it would cost.  Private to
 *		src/advisor.
 */
#ifndef PERFOPT_INDEX_FACTS_H
#define PERFOPT_INDEX_FACTS_H

#include "access/htup.h"
#include "advisor/index_spec.h"
#include "common/pg_prng.h"
#include "nodes/execnodes.h"
#include "nodes/pathnodes.h"
#include "storage/block.h"
#include "utils/relcache.h"

/* table_sample.c */

/* Rows of a table; its owner is table_sample.c, for the transaction. */
typedef struct TableSample
{
	MemoryContext context;
	Oid			relid;
	uint64		fingerprint;
	Oid			relfilenode;
	List	   *predicate;		/* that its rows meet; NIL: any */
	BlockNumber blocks_read;
	double		rows_seen;		/* in these */
	double		table_rows;		/* in all, as these tell */
	double		fraction;		/* of those seen that meet the predicate */
	int			num_rows;
	HeapTuple  *rows;			/* in the table's order */
	int			num_whole;
	HeapTuple  *whole;			/* of some blocks all, if not all were read */
} TableSample;

/* The table is locked.  NULL: it is of a kind that can't be read so. */
extern const TableSample *perfopt_table_sample(Relation relation);

/*
 * Of rows that meet a predicate only; of a table that the former has sampled.  It
 * may take the former away.
 */
extern const TableSample *perfopt_table_sample_of_rows(Relation relation, List *predicate,
													   ExprState *state, ExprContext *econtext);

/* index_sample.c */

/* An entry of the index, of a row of the sample. */
typedef struct IndexEntry
{
	uint64		hash;			/* of all its columns */
	uint64		first_hash;		/* of the first one */
	int			size;			/* aligned, without its line pointer */
	BlockNumber block;			/* of the table */
} IndexEntry;

struct GinKeys;

typedef struct IndexEntries
{
	int			num;
	IndexEntry *entries;
	int			num_whole;
	IndexEntry *whole;			/* all of some blocks, block by block; or none */
	double		rows_looked_at;
	double		fraction;		/* of these that the predicate lets in */
	bool		too_wide;		/* there is an entry that no index takes */
	bool		deduplicated;	/* equal keys are kept together */
	double		key_size;		/* averages: without included columns */
	double		first_size;		/* ... and of the first column alone */
	int			rows_formed;	/* of the sample, that the predicate was tried
								 * on */
	struct GinKeys *gin_keys;	/* in place of all these, of GIN */
	HeapTuple  *statistics;		/* of pg_statistic, a column; or NULL */
} IndexEntries;

/*
 * False: they can't be had; an expression must not be evaluated, or something
 * failed.  A negative table_rows is set to what the table's sample tells.
 */
extern bool perfopt_index_entries(Relation relation, const IndexSpec *spec,
								  double *table_rows, IndexEntries *entries);

/* For qsort(): by the hash of all columns, or of the first one and then of all. */
extern int	perfopt_by_hash(const void *a, const void *b);
extern int	perfopt_by_first_hash(const void *a, const void *b);

/* May who asks be told what the table's rows are like? */
extern bool perfopt_may_sample(Relation relation);

/* distinct_keys.c */

/* Numbers of rows that a rare key may have. */
#define MOST_ROWS_OF_KEY	256

/* What a sample has: keys, and those of them it has once and twice. */
typedef struct KeyCounts
{
	double		rows;
	double		keys;
	double		once;
	double		twice;
} KeyCounts;

/* Rows of a rare key: p(k) = (a + b / k) p(k - 1), without zero. */
typedef struct RowsOfKey
{
	double		mean;
	double		up_to[MOST_ROWS_OF_KEY];	/* probability of at most so many */
} RowsOfKey;

extern void perfopt_count_key(KeyCounts *counts, int rows);

/* Keys that the rows of the table have, in all; rows may be NULL. */
extern double perfopt_estimate_keys(const KeyCounts *counts, double total, RowsOfKey *rows);

extern double perfopt_draw_rows(const RowsOfKey *rows, pg_prng_state * random);

/* index_size.c */
typedef struct IndexSize
{
	double		tuples;			/* rows that it has */
	double		pages;
	int			tree_height;	/* -1: it is no tree */
	bool		possible;		/* false: it can't be built, of values too
								 * wide */
	double		row_entries;	/* that a row makes on average */

	/* of GIN */
	double		keys;
	double		data_pages;		/* of posting trees */
} IndexSize;

/* entries is NULL when there is no sample; otherwise they get sorted. */
extern void perfopt_index_size(Relation relation, double table_rows, const IndexSpec *spec,
							   IndexEntries *entries, IndexSize *size);

/* gin_keys.c; gin_keys.h has the rest */
typedef struct GinKeys GinKeys;

/* In the current memory context, for a table with so many rows a block. */
extern GinKeys *perfopt_gin_keys_begin(const IndexSpec *spec, double rows_of_block);

/* Keys of the next row; the number of these. */
extern int	perfopt_gin_keys_add(GinKeys *keys, Datum *values, bool *nulls);

/* Keys of a row of a block of which all rows are added so. */
extern void perfopt_gin_keys_add_whole(GinKeys *keys, Datum *values, bool *nulls,
									   BlockNumber block);

/*
 * index_size_gin.c, index_size_brin.c: what is different from a btree; the
 * tuples are known.  keys and entries are NULL when there is no sample.
 */
extern void perfopt_gin_size(Relation relation, const IndexSpec *spec, GinKeys *keys,
							 IndexSize *size);
extern void perfopt_brin_size(Relation relation, const IndexSpec *spec,
							  const IndexEntries *entries, IndexSize *size);

/* index_cost_gin.c: an amcostestimate */
extern void perfopt_gin_cost(PlannerInfo *root, IndexPath * path, double loop_count,
							 Cost *startup_cost, Cost *total_cost, Selectivity * selectivity,
							 double *correlation, double *pages);

/* index_facts.c */
typedef struct IndexFacts
{
	Oid			id;				/* of no index that exists */
	const IndexSpec *spec;
	IndexSize	size;
	HeapTuple  *statistics;		/* as in IndexEntries */
} IndexFacts;

/*
 * The table is locked.  table_rows is negative when nobody knows it.  They keep
 * until the end of the transaction.
 */
extern const IndexFacts *perfopt_index_facts(Relation relation, double table_rows,
											 const IndexSpec *spec);
extern const IndexFacts *perfopt_index_facts_by_id(Oid id);

/*
 * The same of a partition, of an index that a partitioned table would have as
 * the latter spec.
 */
extern const IndexFacts *perfopt_index_facts_on_partition(Relation partition, double table_rows,
														  const IndexSpec *spec,
														  const IndexSpec *whole);

/* partitions.c */
extern IndexSpec *perfopt_index_spec_on_partition(const IndexSpec *spec, Oid partition);
extern const IndexSpec *perfopt_index_spec_on(const IndexSpec *spec, Relation relation,
											  List *ancestors);

/* A negative table_rows is set to what the partitions have. */
extern void perfopt_partitioned_index_size(const IndexSpec *spec, double *table_rows,
										   IndexSize *size);

#endif							/* PERFOPT_INDEX_FACTS_H */
