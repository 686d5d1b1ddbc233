/*
 * monitor.h
 *		Latency by (database, role, query), for capabilities that read it.
 */
#ifndef PERFOPT_MONITOR_H
#define PERFOPT_MONITOR_H

#include "postgres.h"

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

#endif							/* PERFOPT_MONITOR_H */
