/*
 * monitor_internal.h
 *		What the files of src/monitor share with each other and with nobody
 *		else.
 */
#ifndef PERFOPT_MONITOR_INTERNAL_H
#define PERFOPT_MONITOR_INTERNAL_H

#include "postgres.h"

#include "monitor/histogram.h"
#include "monitor/monitor.h"
#include "utils/timestamp.h"

/*
 * SQLSTATE classes counted apart, named in latency_view.c.
 */
typedef enum ErrorClass
{
	ERROR_CLASS_NONE = -1,		/* the call succeeded */
	ERROR_CLASS_CONNECTION,		/* 08 */
	ERROR_CLASS_DATA,			/* 22 */
	ERROR_CLASS_CONSTRAINT,		/* 23 */
	ERROR_CLASS_TRANSACTION_STATE,	/* 25 */
	ERROR_CLASS_STATEMENT_NAME, /* 26 */
	ERROR_CLASS_ROLLBACK,		/* 40 */
	ERROR_CLASS_SYNTAX_OR_ACCESS,	/* 42 */
	ERROR_CLASS_RESOURCES,		/* 53 */
	ERROR_CLASS_LIMIT,			/* 54 */
	ERROR_CLASS_OBJECT_STATE,	/* 55 */
	ERROR_CLASS_INTERVENTION,	/* 57 */
	ERROR_CLASS_PLPGSQL,		/* P0 */
	ERROR_CLASS_INTERNAL,		/* XX */
	ERROR_CLASS_OTHER
} ErrorClass;

#define NUM_ERROR_CLASSES	(ERROR_CLASS_OTHER + 1)

/*
 * The sum of squared latencies.  In 128-bit integers it is exact, and so is
 * the variance taken from it; merging is adding.
 */
#ifdef HAVE_INT128
typedef uint128 SquareSum;
#else
typedef double SquareSum;
#endif

/* What is summed up over calls; times are in nanoseconds. */
typedef struct LatencySums
{
	uint64		calls;			/* failed ones included */
	uint64		total_ns;
	uint64		min_ns;			/* 0 as long as there are no calls */
	uint64		max_ns;
	SquareSum	squares;
	uint64		rows;			/* of calls that succeeded */
	uint64		errors;			/* calls that failed */
	uint64		errors_by_class[NUM_ERROR_CLASSES];
} LatencySums;

/* A row as readers see it. */
typedef struct LatencyRow
{
	PerfoptQueryKey key;
	uint64		dropped;		/* queries folded into this row of others */
	LatencySums sums;
	uint64		histogram[HISTOGRAM_BUCKETS];
} LatencyRow;

/* One query's part of a sample. */
typedef struct LatencyDelta
{
	PerfoptQueryKey key;
	LatencySums sums;
	uint32		histogram[HISTOGRAM_BUCKETS];
} LatencyDelta;

typedef struct LatencyInfo
{
	int			rows_used;
	int			rows_max;
	uint64		dropped;
	TimestampTz stats_reset;
} LatencyInfo;

/* latency_table.c */
extern void perfopt_latency_table_init(void);
extern void perfopt_latency_add(const PerfoptQueryKey *key, uint64 ns, uint64 rows,
								ErrorClass error_class);

typedef void (*LatencyRowFunction) (const LatencyRow *row, void *arg);
extern void perfopt_latency_scan(LatencyRowFunction function, void *arg);

extern int	perfopt_latency_take(Oid database, LatencyDelta *deltas, int max_deltas,
								 double *interval_ms);
extern int	perfopt_latency_count(Oid database);
extern void perfopt_latency_reset(void);
extern void perfopt_latency_forget_database(Oid database);
extern LatencyInfo perfopt_latency_info(void);

/* Whether there is nothing but queries that had to make room in this row. */
#define IS_OTHER_ROW(key)	((key)->role == InvalidOid)

/* hooks.c */
extern void perfopt_hooks_init(void);
extern void perfopt_hooks_stop_measuring(void);

/* histogram_sql.c */
extern Datum perfopt_histogram_datum(const uint64 *counts);

/* sampling.c */
extern void perfopt_sampling_init(void);

#endif							/* PERFOPT_MONITOR_INTERNAL_H */
