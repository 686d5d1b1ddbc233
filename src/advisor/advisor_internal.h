/*
 * advisor_internal.h
 *		Private to src/advisor.
 *
 *		plan_samples.c	statements as they were planned, with real parameters
 *		index_spec.c	what an index is made of: built, compared, written
 *		table_sample.c	rows of a table, drawn at random
 *		index_sample.c	the entries an index would have for these
 *		gin_keys.c		the keys that a GIN index would have for them
 *		distinct_keys.c	how many keys a table has, and how many rows each
 *		index_size.c	how large an index that does not exist would be
 *		index_size_gin.c	... if it is a GIN index
 *		index_size_brin.c	... or a BRIN index
 *		index_cost_gin.c	what a scan of a GIN index would cost
 *		index_facts.c	keeps what these have found out
 *		partitions.c	indexes of partitioned tables
 *		what_if.c		what a sampled statement would cost with such indexes
 *		candidates.h	which indexes could help a statement being planned
 *		prefixed.c		and such as make existing indexes superfluous
 *		choose.c		which of these, together, save the most of a workload
 *		writes.c		what an index would cost those who write
 *		describe.c		what is told of an index that was chosen
 *		advise.c		perfopt.advise(): the same for statements handed in
 *		workload.h		statements that were run, and their weight
 *		standing.c		what earlier rounds have advised
 *		rounds.c		duty "advise": for what the monitor has counted
 *		advice_index.c	from an advice to its table and index, and back
 *		advice.c		the table of advice: what was found is written there
 *		advice_log.c	who changed an advice's status, and when
 *		requests.c		what people may ask for
 *		apply.c			duty "apply": has done what was asked for, and cleans up
 *		apply_steps.c	what that is, and what has become of it
 *		apply_partitions.c	the same for an index of a partitioned table
 *		verify.c		duty "verify": what it was good for
 *		measure.c		... by comparing latencies
 *		auto_apply.c	applies by itself, and reverts
 */
#ifndef PERFOPT_ADVISOR_INTERNAL_H
#define PERFOPT_ADVISOR_INTERNAL_H

#include "access/attnum.h"
#include "access/htup.h"
#include "advisor/index_spec.h"
#include "common/pg_prng.h"
#include "datatype/timestamp.h"
#include "monitor/monitor.h"
#include "nodes/execnodes.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "nodes/pathnodes.h"
#include "utils/array.h"
#include "utils/relcache.h"

/* plan_samples.c */

#define SAMPLE_SETS			3	/* plannings kept of one statement */
#define SAMPLE_MAX_RELS		16
#define SAMPLE_DATA_SIZE	(8192 - 320)

/* A relation of a sampled statement, and what it looked like. */
typedef struct SampledRel
{
	Oid			relid;
	uint64		fingerprint;
} SampledRel;

/* Columns kept of those that an UPDATE sets. */
#define SAMPLE_MAX_SET		16

/* One planning of a statement. */
typedef struct PlanSample
{
	PerfoptQueryKey key;
	TimestampTz captured_at;
	int32		tree_raw_size;	/* of the tree's text, with its final zero */
	int32		tree_size;		/* compressed; equal to the raw size if not */
	int32		params_size;	/* serialized, behind the tree; 0: none known */
	int32		num_rels;
	SampledRel	rels[SAMPLE_MAX_RELS];
	Oid			updated;		/* table of an UPDATE, or InvalidOid */
	int16		num_set;		/* columns it sets; negative: too many */
	int16		set[SAMPLE_MAX_SET];
	char		data[SAMPLE_DATA_SIZE];
} PlanSample;

extern void perfopt_plan_samples_init(void);

/* Keys of the database's sampled statements; palloc'd, returns their number. */
extern int	perfopt_plan_sample_keys(Oid database, PerfoptQueryKey **keys);

/* Copies the i-th sample of a statement; false when there is none. */
extern bool perfopt_plan_sample_get(const PerfoptQueryKey *key, int i,
									PlanSample *sample);

/* Makes a sample without storing it; false: the statement can't be sampled. */
extern bool perfopt_plan_sample_make(const PerfoptQueryKey *key, Query *query,
									 ParamListInfo params, PlanSample *sample);

/* Forget a sample that can't be planned any more. */
extern void perfopt_plan_sample_discard(const PlanSample *sample);

/*
 * The statement must not be planned again: nobody gets its samples, and none are
 * taken, as long as other statements do not crowd it out.
 */
extern void perfopt_plan_sample_condemn(const PerfoptQueryKey *key);

extern Query *perfopt_plan_sample_query(const PlanSample *sample);

/* Never NULL. */
extern ParamListInfo perfopt_plan_sample_params(const PlanSample *sample);

extern uint64 perfopt_relation_fingerprint(Relation relation);

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

/* what_if.c */

extern void perfopt_what_if_init(void);

typedef struct WhatIfPrice
{
	Cost		cost;
	double		rows;			/* that it returns, or writes */
	Bitmapset  *used;			/* positions in the list of indexes */
} WhatIfPrice;

/*
 * Cost of a sampled statement if there were these indexes too, IndexSpec *, and
 * if those of the list hidden, of OIDs, were not.  With candidates not NULL,
 * candidates found while planning are appended to it, as IndexSpec * in the
 * caller's memory context.  False when the sample could not be planned; if it
 * never will be, it has been discarded.
 */
extern bool perfopt_what_if_sample(const PlanSample *sample, List *indexes, List *hidden,
								   WhatIfPrice *price, List **candidates);
extern bool perfopt_what_if_cost(const PlanSample *sample, List *indexes, List *hidden,
								 Cost *cost, List **candidates);

/*
 * Is told of each base relation of what is planned for a what-if, once its rows
 * are estimated.  Set for a while by who calls perfopt_what_if_cost(); an error
 * that it raises is the sample's.
 */
extern void (*perfopt_what_if_observer) (PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte);

/*
 * The same of a statement of this session, planned as EXPLAIN would; with
 * candidates, the rights to run it are checked.  What fails is an error.
 */
extern void perfopt_what_if_query(Query *query, List *indexes, List *hidden,
								  WhatIfPrice *price, List **candidates);

/*
 * What action does is for the session that asks, which must learn nothing that
 * it may not, and stays that session whoever else's functions are called.
 */
extern void perfopt_what_if_for_caller(void (*action) (void *arg), void *arg);
extern bool perfopt_what_if_as_caller(void);

/* Become this user, as whom the session was begun, too. */
extern void perfopt_set_identity(Oid session_user, Oid user, int sec_context);

/* Do the timeouts of a what-if run, which end whatever a function does? */
extern bool perfopt_what_if_guarded(void);

/* Is the planner at work for a what-if, on this statement itself? */
extern bool perfopt_what_if_planning(PlannerInfo *root);

/* writes.c */

/* Rows that updates of some columns have changed. */
typedef struct ColumnUpdates
{
	Bitmapset  *columns;		/* over FirstLowInvalidHeapAttributeNumber */
	double		rows;
} ColumnUpdates;

/* Rows written to a table, in some time. */
typedef struct TableWrites
{
	double		inserted;
	double		updated;		/* with new entries in all indexes */
	double		hot_updated;	/* with none */
	double		deleted;
	List	   *column_updates; /* ColumnUpdates *, of those known */
} TableWrites;

/*
 * Entries that the table's indexes would get more for these if there were this
 * one too, which has that fraction of the rows.
 */
extern double perfopt_entries_written(const TableWrites *writes, const IndexSpec *spec,
									  double fraction, int other_indexes);

/* What a row costs there, in entries of a btree. */
extern double perfopt_row_writes(const IndexSpec *spec, const IndexSize *size);

/* describe.c */

/* What must be done before it can be made, in a sentence; or nothing. */
extern const char *perfopt_describe_needs(const IndexSpec *spec);


/* A list of names that are free, as those of earlier calls with it are not. */
extern char *perfopt_name_once(const IndexSpec *spec, Relation relation, List **taken);

/* The keys as one reads them: "a and lower(b)". */
extern char *perfopt_describe_keys(const IndexSpec *spec, Relation relation);

/* Is an index there for its entries only, and not for what it guarantees? */
extern bool perfopt_is_only_access_path(Oid index);

/*
 * Indexes that one like this makes superfluous: names, as char *, and the bytes
 * they take.
 */
extern List *perfopt_superseded_by(const IndexSpec *spec, Relation relation, double *bytes);

/* standing.c */

/* Indexes of advice that is open, and that was dismissed: IndexSpec *. */
extern void perfopt_standing_advice(List **open, List **dismissed);

/* Is it one of them, or as good as one? */
extern bool perfopt_is_standing(List *specs, const IndexSpec *spec);

/* prefixed.c */

/* These candidates, and others that begin as an index does that exists. */
extern List *perfopt_candidates_prefixed(List *specs);

/* rounds.c */

extern void perfopt_rounds_init(void);

/* advice.c */

/* What was found out: one row of perfopt.advice_item. */
typedef struct AdviceFound
{
	const char *kind;
	char	   *schema_name;
	char	   *table_name;
	char	   *definition;		/* known by this beside kind and table */
	char	   *index_name;		/* or NULL */
	char	   *ddl;
	char	   *undo;			/* or NULL: known only when applied, or none */
	char	   *reason;			/* sentences */
	char	   *evidence;		/* a JSON object */
	double		bytes;			/* that it takes, or frees */
	double		predicted_gain; /* share of the statement time, 0 to 1 */
} AdviceFound;

/* What one that looks for advice has found. */
typedef struct AdviceFinding
{
	const char *const *kinds;	/* that it looks for; the last one is NULL */
	List	   *found;			/* AdviceFound * */
	bool		complete;		/* what it has not found again is obsolete */
	Datum		priced_queryids;	/* else only what names one of these,
									 * bigint[] */
} AdviceFinding;

/* In a duty that writes. */
extern void perfopt_advice_store(const AdviceFinding *finding);

/*
 * Fills in schema, table, definition, index name, ddl and undo; false when
 * perfopt_index_spec_open() does not open it, or when it is not to be advised:
 * its definition is too long, or others' types or functions are in it.
 */
extern bool perfopt_advice_name_index(AdviceFound *found, const IndexSpec *spec);

/* By name, without a lock; InvalidOid when it is gone, or is no table. */
extern Oid	perfopt_advice_table(const char *schema_name, const char *table_name);

/*
 * The index that a definition is for.  NULL: the table does not have what it
 * needs, *gone tells; otherwise it can't be looked into without trusting others.
 */
extern IndexSpec *perfopt_advice_index_spec(Relation relation, const char *definition,
											bool *gone);

/* May the table's owner evaluate what it is made of? */
extern bool perfopt_advice_index_is_trusted(const IndexSpec *spec, Relation relation);

/* The name of an index that is like the wanted one, and how to drop it; or NULL. */
extern void perfopt_advice_adopt_index(Relation relation, const IndexSpec *spec,
									   char **index_name, char **undo);

/* advice_log.c */
extern const char *perfopt_advice_actor;	/* who asks; NULL: this process */

/* existing_indexes.c */

/*
 * Why an index must not be dropped after all, whatever an advice of earlier says;
 * or NULL.
 */
extern const char *perfopt_drop_objection(Relation relation, Oid index, const char *index_name);

/* apply.c */
#define ADVISOR_APPLY_DUTY	"apply"

extern void perfopt_apply_init(void);

/* verify.c */
#define ADVISOR_VERIFY_DUTY	"verify"

extern void perfopt_verify_init(void);

/* The advice is about to be applied; its statements were as before until then. */
extern void perfopt_verify_begin(int64 id, TimestampTz until);

/* auto_apply.c */
extern void perfopt_auto_apply_step(void);

#endif							/* PERFOPT_ADVISOR_INTERNAL_H */
