/*
 * compat.h
 *		Differences between server versions, each behind one inline function
 *		or macro that has the newest server's signature.
 *
 * Supported: PostgreSQL 15, 16, 17, 18, and 19 where it can be had.  Code
 * outside this file does not test PG_VERSION_NUM, except where a whole struct
 * of the server has changed shape and one line says so.
 */
#ifndef PERFOPT_COMPAT_H
#define PERFOPT_COMPAT_H

#include "postgres.h"

#include "catalog/pg_class.h"
#include "executor/execdesc.h"
#include "executor/executor.h"
#include "executor/instrument.h"
#include "optimizer/planner.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/hsearch.h"

#if PG_VERSION_NUM < 150000
#error "perfopt needs PostgreSQL 15 or later"
#endif

/* 18 dropped ExecutorRun's execute_once. */
#if PG_VERSION_NUM >= 180000
#define PERFOPT_EXECUTOR_RUN_ARGS \
	QueryDesc *queryDesc, ScanDirection direction, uint64 count
#define PERFOPT_EXECUTOR_RUN_PASS	queryDesc, direction, count
#else
#define PERFOPT_EXECUTOR_RUN_ARGS \
	QueryDesc *queryDesc, ScanDirection direction, uint64 count, bool execute_once
#define PERFOPT_EXECUTOR_RUN_PASS	queryDesc, direction, count, execute_once
#endif

/* 19 hands the planner hook the ExplainState. */
#if PG_VERSION_NUM >= 190000
#define PERFOPT_PLANNER_ARGS \
	Query *parse, const char *query_string, int cursorOptions, \
	ParamListInfo boundParams, ExplainState *es
#define PERFOPT_PLANNER_PASS	parse, query_string, cursorOptions, boundParams, es
#else
#define PERFOPT_PLANNER_ARGS \
	Query *parse, const char *query_string, int cursorOptions, \
	ParamListInfo boundParams
#define PERFOPT_PLANNER_PASS	parse, query_string, cursorOptions, boundParams
#endif

/* Plan without the planner hooks of extensions. */
static inline PlannedStmt *
perfopt_standard_planner(Query *parse, const char *query_string,
						 int cursorOptions, ParamListInfo boundParams)
{
#if PG_VERSION_NUM >= 190000
	return standard_planner(parse, query_string, cursorOptions, boundParams, NULL);
#else
	return standard_planner(parse, query_string, cursorOptions, boundParams);
#endif
}

/* 16 replaced the ownership checks of each kind of object by one. */
static inline bool
perfopt_table_ownercheck(Oid relid, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, role);
#else
	return pg_class_ownercheck(relid, role);
#endif
}

/* A shared hash table that holds at most max_size entries from the start. */
static inline HTAB *
perfopt_shmem_init_hash(const char *name, long max_size, HASHCTL *ctl, int flags)
{
#if PG_VERSION_NUM >= 190000
	return ShmemInitHash(name, max_size, ctl, flags);
#else
	return ShmemInitHash(name, max_size, max_size, ctl, flags);
#endif
}

#endif							/* PERFOPT_COMPAT_H */
