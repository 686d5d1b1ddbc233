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

#include "access/stratnum.h"
#include "access/transam.h"
#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "executor/execdesc.h"
#include "executor/executor.h"
#include "executor/instrument.h"
#include "miscadmin.h"
#include "nodes/pathnodes.h"
#include "optimizer/pathnode.h"
#include "optimizer/plancat.h"
#include "optimizer/planner.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#if PG_VERSION_NUM >= 160000
#include "nodes/queryjumble.h"
#endif
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/hsearch.h"
#include "utils/pg_locale.h"
#include "utils/relcache.h"
#if PG_VERSION_NUM < 160000
#include "utils/queryjumble.h"
#endif

#if PG_VERSION_NUM < 150000
#error "perfopt needs PostgreSQL 15 or later"
#endif

/* 18 has it as C11 does, before the declaration. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
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

/* All rows of a query that was started. */
#if PG_VERSION_NUM >= 180000
#define PERFOPT_EXECUTOR_RUN(queryDesc)	ExecutorRun(queryDesc, ForwardScanDirection, 0)
#else
#define PERFOPT_EXECUTOR_RUN(queryDesc)	ExecutorRun(queryDesc, ForwardScanDirection, 0, true)
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

/* 19 replaced the hook that sees what is known of a relation to be planned. */
#if PG_VERSION_NUM >= 190000
#define perfopt_relation_hook		build_simple_rel_hook
typedef build_simple_rel_hook_type perfopt_relation_hook_type;
#define PERFOPT_RELATION_HOOK_ARGS \
	PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte_arg
#define PERFOPT_RELATION_HOOK_PASS	root, rel, rte_arg
#else
#define perfopt_relation_hook		get_relation_info_hook
typedef get_relation_info_hook_type perfopt_relation_hook_type;
#define PERFOPT_RELATION_HOOK_ARGS \
	PlannerInfo *root, Oid relid_arg, bool inhparent_arg, RelOptInfo *rel
#define PERFOPT_RELATION_HOOK_PASS	root, relid_arg, inhparent_arg, rel
#endif

/* 16 knows when an index was last scanned, while it has the statistics. */
#if PG_VERSION_NUM >= 160000
#define PERFOPT_LAST_SCAN_SQL(index)	"pg_stat_get_lastscan(" index ")"
#else
#define PERFOPT_LAST_SCAN_SQL(index)	"NULL::timestamptz"
#endif

/* 18 has foreign keys that nothing is checked by. */
#if PG_VERSION_NUM >= 180000
#define PERFOPT_KEY_ENFORCED_SQL(key)	key ".conenforced"
#else
#define PERFOPT_KEY_ENFORCED_SQL(key)	"true"
#endif

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

/* 19 tells signal handlers who sent the signal. */
#if PG_VERSION_NUM >= 190000
#define PERFOPT_SIGNAL_PASS	postgres_signal_arg, pg_siginfo
#else
#define PERFOPT_SIGNAL_PASS	postgres_signal_arg
#endif

/* 18 dropped PortalRun's run_once. */
#if PG_VERSION_NUM >= 180000
#define PERFOPT_PORTAL_RUN(portal, count, top, dest, altdest, completion) \
	PortalRun(portal, count, top, dest, altdest, completion)
#else
#define PERFOPT_PORTAL_RUN(portal, count, top, dest, altdest, completion) \
	PortalRun(portal, count, top, true, dest, altdest, completion)
#endif

/*
 * From 17 on a background worker can connect as a role without LOGIN.  Zero
 * where it cannot.
 */
#if PG_VERSION_NUM >= 170000
#define PERFOPT_BYPASS_ROLELOGINCHECK	BGWORKER_BYPASS_ROLELOGINCHECK
#else
#define PERFOPT_BYPASS_ROLELOGINCHECK	0
#endif

/*
 * The setting with the widest reach of those that end what takes too long.  17
 * brought one for whole transactions, which ends every kind of process.
 */
#if PG_VERSION_NUM >= 170000
#define PERFOPT_WIDEST_TIMEOUT	"transaction_timeout"
#else
#define PERFOPT_WIDEST_TIMEOUT	"statement_timeout"
#endif

/* 16 has one function for all classes of objects. */
#if PG_VERSION_NUM >= 160000
#define perfopt_object_ownercheck(classid, objectid, roleid) \
	object_ownercheck(classid, objectid, roleid)
#else
static inline bool
perfopt_object_ownercheck(Oid classid, Oid objectid, Oid roleid)
{
	switch (classid)
	{
		case RelationRelationId:
			return pg_class_ownercheck(objectid, roleid);
		case DatabaseRelationId:
			return pg_database_ownercheck(objectid, roleid);
		case ExtensionRelationId:
			return pg_extension_ownercheck(objectid, roleid);
		case ProcedureRelationId:
			return pg_proc_ownercheck(objectid, roleid);
		default:
			elog(ERROR, "no ownership check for class %u", classid);
			return false;
	}
}
#endif

static inline AclResult
perfopt_function_aclcheck(Oid function, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, function, role, ACL_EXECUTE);
#else
	return pg_proc_aclcheck(function, role, ACL_EXECUTE);
#endif
}

static inline AclResult
perfopt_schema_aclcheck(Oid schema, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, schema, role, ACL_USAGE);
#else
	return pg_namespace_aclcheck(schema, role, ACL_USAGE);
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

/* 15 has no INSTR_TIME_GET_NANOSEC. */
static inline int64
perfopt_instr_ns(instr_time interval)
{
#if PG_VERSION_NUM >= 160000
	return INSTR_TIME_GET_NANOSEC(interval);
#else
	return (int64) interval.tv_sec * 1000000000 + interval.tv_nsec;
#endif
}

/*
 * The timer of a whole query
 *
 * It is shared by all extensions that want one: whoever finds none asks for
 * one that measures everything.  Up to 18, it is put into the QueryDesc after
 * the executor has started; from 19 on, it is asked for before.
 */
static inline void
perfopt_query_timer_before_start(QueryDesc *queryDesc)
{
#if PG_VERSION_NUM >= 190000
	queryDesc->query_instr_options |= INSTRUMENT_ALL;
#endif
}

static inline void
perfopt_query_timer_after_start(QueryDesc *queryDesc)
{
#if PG_VERSION_NUM < 190000
	if (queryDesc->totaltime == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(queryDesc->estate->es_query_cxt);

		queryDesc->totaltime = InstrAlloc(1, INSTRUMENT_ALL, false);
		MemoryContextSwitchTo(old);
	}
#endif
}

static inline bool
perfopt_query_has_timer(QueryDesc *queryDesc)
{
#if PG_VERSION_NUM >= 190000
	return queryDesc->query_instr != NULL;
#else
	return queryDesc->totaltime != NULL;
#endif
}

/* Time in the executor, and rows, of a query whose timer does not run. */
static inline void
perfopt_query_timer_read(QueryDesc *queryDesc, uint64 *ns, uint64 *rows)
{
#if PG_VERSION_NUM >= 190000
	*ns = perfopt_instr_ns(queryDesc->query_instr->total);
	*rows = queryDesc->estate->es_total_processed;
#else
	/* Whoever else does this too, before or after, does no harm. */
	InstrEndLoop(queryDesc->totaltime);
	*ns = (uint64) (queryDesc->totaltime->total * 1e9 + 0.5);
	/* unlike es_processed, which starts anew at each fetch */
	*rows = (uint64) queryDesc->totaltime->ntuples;
#endif
}

/* Time in the executor until now of a query that has failed. */
static inline uint64
perfopt_query_timer_read_running(QueryDesc *queryDesc)
{
	Instrumentation *timer;
	instr_time	now;
	int64		ns;

#if PG_VERSION_NUM >= 190000
	timer = queryDesc->query_instr;
	ns = perfopt_instr_ns(timer->total);
#else
	timer = queryDesc->totaltime;
	ns = (int64) (timer->total * 1e9 + 0.5) + perfopt_instr_ns(timer->counter);
#endif
	if (!INSTR_TIME_IS_ZERO(timer->starttime))
	{
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, timer->starttime);
		ns += perfopt_instr_ns(now);
	}
	return Max(ns, 0);
}

/* 17 numbers the places of processes in a variable of its own. */
static inline uint32
perfopt_my_proc_number(void)
{
#if PG_VERSION_NUM >= 170000
	return (uint32) MyProcNumber;
#else
	return (uint32) MyProc->pgprocno;
#endif
}

/* The transaction that runs, by a number of this backend's own. */
static inline LocalTransactionId
perfopt_my_local_xid(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProc->vxid.lxid;
#else
	return MyProc->lxid;
#endif
}

/* get_database_oid() */
#if PG_VERSION_NUM >= 190000
#include "catalog/pg_database.h"
#else
#include "commands/dbcommands.h"
#endif

/* 15's pg_stat_statements does not measure DEALLOCATE; later ones do. */
#if PG_VERSION_NUM >= 170000
#define PERFOPT_DEALLOCATE_IS_MEASURED	true
#else
#define PERFOPT_DEALLOCATE_IS_MEASURED	false
#endif

/* 18 can leave room in front of the tuple. */
static inline MinimalTuple
perfopt_form_minimal_tuple(TupleDesc desc, Datum *values, bool *isnull)
{
#if PG_VERSION_NUM >= 180000
	return heap_form_minimal_tuple(desc, values, isnull, 0);
#else
	return heap_form_minimal_tuple(desc, values, isnull);
#endif
}

/* 17 asks for the mode or a stronger one. */
#include "storage/lock.h"
static inline bool
perfopt_lock_held_by_me(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(tag, mode, false);
#else
	return LockHeldByMe(tag, mode);
#endif
}

/* The process of a virtual transaction, or NULL. */
#if PG_VERSION_NUM >= 170000
#include "storage/procarray.h"
#else
#include "storage/sinvaladt.h"
#endif
static inline struct PGPROC *
perfopt_vxid_proc(VirtualTransactionId vxid)
{
#if PG_VERSION_NUM >= 170000
	return ProcNumberGetProc(vxid.procNumber);
#else
	return BackendIdGetProc(vxid.backendId);
#endif
}

/*
 * The next transaction ID, read without XidGenLock where 64 bits are read at
 * once: for widening IDs that were handed out before.
 */
static inline uint64
perfopt_next_full_xid(void)
{
#ifndef PG_HAVE_8BYTE_SINGLE_COPY_ATOMICITY
	return U64FromFullTransactionId(ReadNextFullTransactionId());
#elif PG_VERSION_NUM >= 170000
	pg_read_barrier();
	return *(volatile uint64 *) &TransamVariables->nextXid.value;
#else
	pg_read_barrier();
	return *(volatile uint64 *) &ShmemVariableCache->nextXid.value;
#endif
}

/*
 * Take a heavyweight lock until the end of the transaction.  False: others
 * hold it and dont_wait is set, or the lock table is full.
 */
static inline bool
perfopt_lock_acquire(const LOCKTAG *tag, LOCKMODE mode, bool dont_wait)
{
#if PG_VERSION_NUM >= 180000
	return LockAcquireExtended(tag, mode, false, dont_wait, false, NULL, false) != LOCKACQUIRE_NOT_AVAIL;
#else
	return LockAcquireExtended(tag, mode, false, dont_wait, false, NULL) != LOCKACQUIRE_NOT_AVAIL;
#endif
}

/* The first relation that a plan modifies, as index of the range table, or 0. */
static inline Index
perfopt_result_relation(PlannedStmt *plan)
{
#if PG_VERSION_NUM >= 190000
	return Max(bms_next_member(plan->resultRelationRelids, -1), 0);
#else
	return plan->resultRelations == NIL ? 0 : linitial_int(plan->resultRelations);
#endif
}

/* 19 wants to know when a tuple descriptor is complete. */
static inline void
perfopt_tuple_desc_complete(TupleDesc desc)
{
#if PG_VERSION_NUM >= 190000
	TupleDescFinalize(desc);
#endif
}

/* Make of an INSERT's planned statement one that writes nothing. */
static inline void
perfopt_clear_result_relations(PlannedStmt *plan)
{
#if PG_VERSION_NUM >= 190000
	plan->resultRelationRelids = NULL;
#else
	plan->resultRelations = NIL;
#endif
}

/* Index entries of a row that is new.  16 can leave some kinds of indexes out. */
static inline List *
perfopt_insert_index_tuples(ResultRelInfo *target, TupleTableSlot *slot, EState *estate)
{
#if PG_VERSION_NUM >= 190000
	return ExecInsertIndexTuples(target, estate, 0, slot, NIL, NULL);
#elif PG_VERSION_NUM >= 160000
	return ExecInsertIndexTuples(target, slot, estate, false, false, NULL, NIL, false);
#else
	return ExecInsertIndexTuples(target, slot, estate, false, false, NULL, NIL);
#endif
}

/* 18 can tell deferrable primary keys from others. */
#if PG_VERSION_NUM >= 180000
#define perfopt_primary_key_index(rel)	RelationGetPrimaryKeyIndex(rel, true)
#else
#define perfopt_primary_key_index(rel)	RelationGetPrimaryKeyIndex(rel)
#endif

/* 18 has foreign keys over periods, whose last column is not compared by equality. */
#if PG_VERSION_NUM >= 180000
#include "catalog/pg_constraint.h"
#include "utils/syscache.h"
#endif
static inline bool
perfopt_foreign_key_is_plain(Oid constraint)
{
#if PG_VERSION_NUM >= 180000
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	bool		is_plain;

	if (!HeapTupleIsValid(tuple))
		return false;
	is_plain = !((Form_pg_constraint) GETSTRUCT(tuple))->conperiod;
	ReleaseSysCache(tuple);
	return is_plain;
#else
	return true;
#endif
}

/* 16 reports errors softly where that is asked for. */
#include "utils/regproc.h"
static inline List *
perfopt_qualified_name_list(const char *text)
{
#if PG_VERSION_NUM >= 160000
	return stringToQualifiedNameList(text, NULL);
#else
	return stringToQualifiedNameList(text);
#endif
}

/* 19 knows only standard strings. */
#if PG_VERSION_NUM >= 190000
#define PERFOPT_STANDARD_CONFORMING_STRINGS	true
#else
#define PERFOPT_STANDARD_CONFORMING_STRINGS	standard_conforming_strings
#endif

/* 18 has NOT NULL constraints that are not valid: rows from before may be null. */
static inline bool
perfopt_attribute_is_not_null(TupleDesc desc, int i)
{
#if PG_VERSION_NUM >= 180000
	return TupleDescCompactAttr(desc, i)->attnullability == ATTNULLABLE_VALID;
#else
	return TupleDescAttr(desc, i)->attnotnull;
#endif
}

/* 16 tells the number with the settings. */
#include "utils/guc_tables.h"
static inline struct config_generic **
perfopt_guc_variables(int *num)
{
#if PG_VERSION_NUM >= 160000
	return get_guc_variables(num);
#else
	*num = GetNumConfigOptions();
	return get_guc_variables();
#endif
}

/* 16 asks whether the value is to be copied; 15 always did. */
#include "utils/tuplesort.h"
static inline bool
perfopt_tuplesort_getdatum(Tuplesortstate *state, bool forward, Datum *value, bool *isnull)
{
#if PG_VERSION_NUM >= 160000
	return tuplesort_getdatum(state, forward, true, value, isnull, NULL);
#else
	return tuplesort_getdatum(state, forward, value, isnull, NULL);
#endif
}

/* 18 moved what EXPLAIN is asked with. */
#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

/* What EXPLAIN ANALYZE counts of a node.  19 tells nodes' counters from others. */
#if PG_VERSION_NUM >= 190000
typedef NodeInstrumentation PerfoptNodeCounter;
typedef WorkerNodeInstrumentation PerfoptWorkerCounters;
#define perfopt_node_ms(counter)	INSTR_TIME_GET_MILLISEC((counter)->instr.total)
#define perfopt_node_buffers(counter)	(&(counter)->instr.bufusage)
#else
typedef Instrumentation PerfoptNodeCounter;
typedef WorkerInstrumentation PerfoptWorkerCounters;
#define perfopt_node_ms(counter)	((counter)->total * 1000.0)
#define perfopt_node_buffers(counter)	(&(counter)->bufusage)
#endif

/* The same of the i-th trigger of a relation. */
static inline void
perfopt_trigger_read(ResultRelInfo *relation, int i, double *ms, double *calls)
{
#if PG_VERSION_NUM >= 190000
	TriggerInstrumentation *counter = &relation->ri_TrigInstrument[i];

	*ms = INSTR_TIME_GET_MILLISEC(counter->instr.total);
	*calls = counter->firings;
#else
	Instrumentation *counter = &relation->ri_TrigInstrument[i];

	InstrEndLoop(counter);
	*ms = counter->total * 1000.0;
	*calls = counter->ntuples;
#endif
}

/* 17 gave the statistics target a field of its own. */
#include "commands/vacuum.h"
static inline void
perfopt_use_default_statistics_target(VacAttrStats * stats)
{
#if PG_VERSION_NUM >= 170000
	stats->attstattarget = -1;
#else
	stats->attr = palloc0(sizeof(FormData_pg_attribute));
	stats->attr->attstattarget = -1;
	stats->attr->attnum = 1;
#endif
}

/* Raises an error unless the current user may run the plan. */
static inline void
perfopt_check_permissions(PlannedStmt *plan)
{
#if PG_VERSION_NUM >= 160000
	(void) ExecCheckPermissions(plan->rtable, plan->permInfos, true);
#else
	(void) ExecCheckRTPerms(plan->rtable, true);
#endif
}

/* Is it of the nullable side of an outer join, above that join?  Not told before 16. */
static inline bool
perfopt_var_is_nullable(const Var *var)
{
#if PG_VERSION_NUM >= 160000
	return !bms_is_empty(var->varnullingrels);
#else
	return false;
#endif
}

static inline bool
perfopt_pathkey_descends(const PathKey *pathkey)
{
#if PG_VERSION_NUM >= 180000
	return pathkey->pk_cmptype == COMPARE_GT;
#else
	return pathkey->pk_strategy == BTGreaterStrategyNumber;
#endif
}

static inline bool
perfopt_collation_is_c(Oid collation)
{
#if PG_VERSION_NUM >= 180000
	return pg_newlocale_from_collation(collation)->collate_is_c;
#else
	return lc_collate_is_c(collation);
#endif
}

#endif							/* PERFOPT_COMPAT_H */
