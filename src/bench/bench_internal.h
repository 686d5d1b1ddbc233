/*
 * bench_internal.h
 *		What the files of this folder share: statements that are run to be
 *		measured, and what is made of the times.
 *
 * Everything is private to one backend and one call, so there are no locks.
 */
#ifndef PERFOPT_BENCH_INTERNAL_H
#define PERFOPT_BENCH_INTERNAL_H

#include "postgres.h"

#include "common/compat.h"
#include "executor/execdesc.h"
#include "executor/instrument.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/params.h"
#include "tcop/dest.h"
#include "utils/plancache.h"
#include "utils/resowner.h"

/* Times that one call keeps at most: 80 MB, and a round's again for its median. */
#define BENCH_MAX_SAMPLES	10000000

/* ---------------------------------------------------------------------
 * statement.c: a statement, planned and with its parameters
 */
typedef enum BenchPlanMode
{
	BENCH_PLAN_AUTO,
	BENCH_PLAN_GENERIC,
	BENCH_PLAN_CUSTOM
} BenchPlanMode;

typedef struct BenchStatement
{
	const char *function;		/* whose call it is, for messages */
	const char *label;			/* which of its statements, or NULL */
	bool		keep_changes;
	Snapshot	snapshot;		/* to run under; NULL: each has its own */

	SPIPlanPtr	plan;			/* NULL: freed */
	CachedPlanSource *source;
	ParamListInfo params;		/* or NULL */

	/* what the runs have come to */
	int64		run;			/* number of the run, from 1; 0: none yet */
	bool		warming;		/* runs do not count */
	double		planning_ms;	/* of the first plan; -1: none yet */
	bool		generic;		/* the last run's plan */

	MemoryContext context;		/* one run's memory */
	/* where the caller's things live while a subtransaction is open */
	MemoryContext caller_context;
	ResourceOwner caller_owner;
} BenchStatement;

extern BenchPlanMode bench_plan_mode(FunctionCallInfo fcinfo, int arg);
extern ParamListInfo bench_params(FunctionCallInfo fcinfo, int arg);
extern char *bench_text_argument(FunctionCallInfo fcinfo, int arg, const char *name);
extern int	bench_int_argument(FunctionCallInfo fcinfo, int arg, const char *name,
							   int if_null, int min);
extern bool bench_bool_argument(FunctionCallInfo fcinfo, int arg, bool if_null);

/* In nanoseconds. */
extern int64 bench_time_argument(FunctionCallInfo fcinfo, int arg, const char *name,
								 int64 if_null);

/* Raises an error for what cannot be measured.  bench_statement_free() is needed. */
extern void bench_statement_prepare(BenchStatement *statement, const char *sql,
									BenchPlanMode mode);
extern void bench_statement_free(BenchStatement *statement);

/* ---------------------------------------------------------------------
 * runs.c: running it
 */
typedef struct BenchRun
{
	int64		ns;				/* ExecutorStart() to ExecutorEnd() */
	uint64		rows;
	BufferUsage buffers;
	WalUsage	wal;
} BenchRun;

/* For a closer look: called after ExecutorStart() and before ExecutorEnd(), not timed. */
typedef struct BenchLook
{
	int			instrument;		/* InstrumentOption */
	void		(*prepare) (QueryDesc *queryDesc, void *arg);	/* or NULL */
	void		(*look) (QueryDesc *queryDesc, void *arg);
	void	   *arg;

	/* nanoseconds in each part; run.ns is their sum */
	int64		planning;
	int64		start;
	int64		run;
	int64		finish;
	int64		end;
} BenchLook;

/* look may be NULL; with dest NULL rows are thrown away. */
extern void bench_run(BenchStatement *statement, DestReceiver *dest,
					  BenchLook *look, BenchRun *run);

extern int64 bench_now(void);	/* ns, of a clock that only goes forward */

/* What two readings of the clock are apart, in ns. */
extern double bench_timer_cost(void);

/* Tells how far it is, now and then. */
typedef struct BenchProgress
{
	const char *function;
	int64		started;		/* ns */
	int64		last;
} BenchProgress;

extern void bench_progress(BenchProgress *progress, int64 now, int64 done, int64 of);

/* ---------------------------------------------------------------------
 * memory.c: the most that a run has
 */
typedef struct BenchMemory
{
	Size		peak;			/* bytes */
	MemoryContext context;		/* the executor's */
	int64		next;			/* not looked at again before, in ns */
} BenchMemory;

/* For BenchLook; arg is a BenchMemory. */
extern void bench_memory_watch(QueryDesc *queryDesc, void *arg);
extern void bench_memory_end(QueryDesc *queryDesc, void *arg);

/* ---------------------------------------------------------------------
 * statistics.c: what is made of the times
 */
typedef struct BenchSamples
{
	double	   *values;
	int64		num;
	int64		allocated;
} BenchSamples;

extern void bench_samples_init(BenchSamples *samples);
extern void bench_samples_add(BenchSamples *samples, double value);
extern void bench_samples_sort(BenchSamples *samples);

extern double bench_mean(const double *values, int64 num);

/* Of a sample, that is by n - 1. */
extern double bench_std_dev(const double *values, int64 num);

/* Of sorted values, interpolated as percentile_cont() does. */
extern double bench_quantile(const double *sorted, int64 num, double fraction);

/* Sorts a copy. */
extern double bench_median(const double *values, int64 num);

/* Are values symmetric around zero?  Wilcoxon's signed-rank test. */
typedef struct BenchTest
{
	double		p;				/* two-sided */
	double		center;			/* Hodges-Lehmann estimate */
	bool		has_interval;
	double		low;			/* of the 95 % confidence interval */
	double		high;
} BenchTest;

extern void bench_signed_rank_test(const double *values, int num, BenchTest *test);

/* Milliseconds to be shown: whole nanoseconds. */
extern double bench_ms(double ns);

/* ---------------------------------------------------------------------
 * same_rows.c: do two statements return the same rows?
 */
typedef struct BenchSameRows
{
	int64		rows_a;
	int64		rows_b;
	bool		same;
	char	   *difference;		/* in words, or NULL */
} BenchSameRows;

extern void bench_compare_rows(BenchStatement *a, BenchStatement *b,
							   BenchSameRows *result);

#endif							/* PERFOPT_BENCH_INTERNAL_H */
