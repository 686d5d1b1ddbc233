/*
 * advisor_internal.h
 *		Private to src/advisor.
 *
 *		plan_samples.c	statements as they were planned, with real parameters
 *		index_size.c	how large an index that does not exist would be
 *		what_if.c		what a sampled statement would cost with such indexes
 *		candidates.c	which indexes could help a statement being planned
 *		rounds.c		duty "advise": the choice over the whole workload
 *		advice.c		the table of advice: writing it, applying by hand
 *		apply.c			duty "apply": builds what was asked for, and cleans up
 */
#ifndef PERFOPT_ADVISOR_INTERNAL_H
#define PERFOPT_ADVISOR_INTERNAL_H

#include "access/attnum.h"
#include "datatype/timestamp.h"
#include "monitor/monitor.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "nodes/pathnodes.h"
#include "utils/array.h"
#include "utils/relcache.h"

/* plan_samples.c */

#define SAMPLE_SETS			3	/* plannings kept of one statement */
#define SAMPLE_MAX_RELS		16
#define SAMPLE_DATA_SIZE	(8192 - 256)

/* A relation of a sampled statement, and what it looked like. */
typedef struct SampledRel
{
	Oid			relid;
	uint32		fingerprint;
} SampledRel;

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

extern uint32 perfopt_relation_fingerprint(Relation relation);

/* index_size.c */

#define INDEX_MAX_COLUMNS	2

/* An ascending btree index with default operator classes. */
typedef struct IndexSpec
{
	Oid			relid;
	int			num_columns;
	AttrNumber	attnums[INDEX_MAX_COLUMNS]; /* unused ones are 0 */
	bool		order_only;		/* wanted for its order, not to find rows */
} IndexSpec;

typedef struct IndexSize
{
	double		pages;
	int			tree_height;
} IndexSize;

extern void perfopt_index_size(Relation relation, double tuples,
							   const IndexSpec *spec, IndexSize *size);

/* what_if.c */

extern void perfopt_what_if_init(void);

/*
 * Cost of a sampled statement with these indexes, IndexSpec *.  With candidates
 * not NULL, candidates found while planning are appended to it, as IndexSpec *
 * in the caller's memory context.  False when the sample could not be planned;
 * if it never will be, it has been discarded.
 */
extern bool perfopt_what_if_cost(const PlanSample *sample, List *indexes,
								 Cost *cost, List **candidates);

/* Is the planner at work for a what-if, on this statement itself? */
extern bool perfopt_what_if_planning(PlannerInfo *root);

/* candidates.c */

extern void perfopt_candidates_collect(PlannerInfo *root, RelOptInfo *rel,
									   RangeTblEntry *rte, List **candidates,
									   MemoryContext context);
extern bool perfopt_index_spec_equal(const IndexSpec *a, const IndexSpec *b);
extern bool perfopt_index_spec_is_prefix(const IndexSpec *a, const IndexSpec *b);

extern Relation perfopt_index_spec_open(const IndexSpec *spec);

/* Does an index exist that serves as this one would? */
extern bool perfopt_index_exists(Relation relation, const IndexSpec *spec);

/* rounds.c */

extern void perfopt_rounds_init(void);

/* advice.c */

/* What a round found out about one index. */
typedef struct AdviceFound
{
	IndexSpec	spec;
	char	   *schema_name;
	char	   *table_name;
	char	   *columns[INDEX_MAX_COLUMNS];
	char	   *index_name;
	char	   *reason;
	char	   *evidence;		/* JSON */
	double		bytes;
} AdviceFound;

/* Fill in the names; false when perfopt_index_spec_open() does not open it. */
extern bool perfopt_advice_name(AdviceFound *found);

/* Store a round's result; priced_queryids: bigint[] of what was looked at. */
extern void perfopt_advice_store(List *found, Datum priced_queryids);

extern char *perfopt_advice_index_name(Relation relation, int num_columns,
									   char **columns);
extern char *perfopt_advice_ddl(const char *index_name, const char *schema_name,
								const char *table_name, int num_columns,
								char **columns);

/*
 * The table an advice is for, unlocked, with the columns as they are now;
 * InvalidOid when it or one of its columns is gone.
 */
extern Oid	perfopt_advice_resolve(const char *schema_name, const char *table_name,
								   ArrayType *columns, IndexSpec *spec);

/* apply.c */
#define ADVISOR_APPLY_DUTY	"apply"


extern void perfopt_apply_init(void);

#endif							/* PERFOPT_ADVISOR_INTERNAL_H */
