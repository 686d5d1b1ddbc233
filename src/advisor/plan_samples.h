/*
 * plan_samples.h
 *		Statements as they were planned, with their real parameter values.
 *		Private to src/advisor.
 */
#ifndef PERFOPT_PLAN_SAMPLES_H
#define PERFOPT_PLAN_SAMPLES_H

#include "datatype/timestamp.h"
#include "monitor/monitor.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "utils/relcache.h"

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

#endif							/* PERFOPT_PLAN_SAMPLES_H */
