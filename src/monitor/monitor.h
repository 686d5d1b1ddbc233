/*
 * monitor.h
 *		Latency by (database, role, query), for capabilities that read it, and its
 *		histograms.
 */
#ifndef PERFOPT_MONITOR_H
#define PERFOPT_MONITOR_H

#include "postgres.h"

#include "executor/execdesc.h"
#include "monitor/histogram.h"

extern void perfopt_monitor_init(void);

typedef struct PerfoptQueryKey
{
	Oid			database;
	Oid			role;
	uint64		queryid;
} PerfoptQueryKey;

/* What one query has cost since its row exists. */
typedef struct PerfoptQueryCost
{
	int64		calls;
	int64		errors;
	int64		rows;
	double		total_ms;
	double		max_ms;
} PerfoptQueryCost;

/* False when there is no such row now. */
extern bool perfopt_query_cost(const PerfoptQueryKey *key, PerfoptQueryCost *cost);

/* Time of all statements of the database, other queries' row included. */
extern double perfopt_database_total_ms(Oid database);

/*
 * Somebody who is told of statements, whether they are measured or not, by the
 * same pass through the hooks.  There is room for one.
 *
 * ran: ExecutorRun has returned.  again: it had run for this query before, as a
 * cursor that is fetched from in pieces does; more: it stopped because it was
 * asked for no more rows.  nesting_level: statements and utility commands around
 * it; in_executor: one of these is a statement, not all utility commands;
 * enclosing: query identifier of the innermost of them, 0 without one.
 *
 * discard_all: the client wants a session as good as new.
 */
typedef struct PerfoptStatementObserver
{
	void		(*ran) (QueryDesc *query, bool again, bool more, int nesting_level,
						bool in_executor, uint64 enclosing);
	void		(*discard_all) (void);
} PerfoptStatementObserver;

/* Call while the library is preloaded; the struct is kept by reference. */
extern void perfopt_monitor_observe(const PerfoptStatementObserver *observer);

#endif							/* PERFOPT_MONITOR_H */
