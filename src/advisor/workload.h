/*
 * workload.h
 *		The statements that this database runs, and what its tables are written.
 *		Private to src/advisor.
 *
 * Only the worker has it, in its own memory; nothing is shared.
 */
#ifndef PERFOPT_WORKLOAD_H
#define PERFOPT_WORKLOAD_H

#include "advisor/advisor_internal.h"

/*
 * An index that makes a statement much faster is worth it where it saves a
 * thousandth of what one processor does, whatever others do meanwhile.
 */
#define FAST_MS_PER_HOUR	3600.0

typedef struct WorkloadStatement
{
	PerfoptQueryKey key;
	double		ms;				/* recently */
	double		calls;
	double		cost;			/* of its plan as things are, over its samples */
	List	   *candidates;		/* IndexSpec * */
	List	   *known;			/* perfopt_candidates_statistics() of them */
	int			num_samples;
	PlanSample *samples[SAMPLE_SETS];
	bool		one_burst;		/* they are of, or some of them */
	double		costs[SAMPLE_SETS]; /* negative: not priced */
} WorkloadStatement;

typedef struct Workload
{
	double		ms;				/* of all statements, sampled or not */
	double		hours;			/* that they were run in, weighted alike */
	int			num;
	WorkloadStatement *statements;	/* the heaviest first */
	bool		cut_short;
} Workload;

/*
 * A round begins, and ends: what was not seen in it is forgotten.  Loading takes
 * the statements that matter, plans them as things are, and learns which indexes
 * may help them; between two of them out_of_time is asked.
 */
extern void perfopt_workload_begin(void);
extern void perfopt_workload_load(Workload *workload, bool (*out_of_time) (void *arg),
								  void *arg);
extern void perfopt_workload_end(void);

/* Rows recently written to the table, as its statistics count them. */
extern void perfopt_workload_writes(Oid relid, TableWrites *writes);

#endif							/* PERFOPT_WORKLOAD_H */
