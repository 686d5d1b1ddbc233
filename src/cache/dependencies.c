/*
 * dependencies.c
 *		What a statement reads, as its plan says; and whether this backend is in
 *		the middle of a statement that writes.
 *
 * While an entry is computed, every statement this backend executes, also
 * inside of functions, goes through the ExecutorStart hook, which adds the
 * tables of its plan.  Functions that run in parallel workers would not be
 * seen here, so plans that call any but the server's own do not get workers.
 *
 * By key: when each scan of a table has a condition "key column = value", or
 * IN a list of values, only writes of those values matter.  A plan node that this file does not know may
 * read anything of the plan's tables.
 *
 * Rows are marked by a trigger that fires at the end of a statement, after
 * triggers whose names come first.  What a function sees that is called
 * meanwhile may be rows written but not marked yet: neither hit nor fill is
 * possible until the outermost statement that writes has fired its triggers.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "access/hash.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "common/compat.h"
#include "common/shmem.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pg_list.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "replication/logicalworker.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

static CacheDependencies *collector = NULL;

/* The outermost statement that writes, and in which subtransaction it began. */
static const void *writing_statement = NULL;
static int	writing_level;

static ExecutorStart_hook_type prev_ExecutorStart = NULL;
static ExecutorFinish_hook_type prev_ExecutorFinish = NULL;
static ProcessUtility_hook_type prev_ProcessUtility = NULL;

/* ---------------------------------------------------------------------
 * Keys
 */

typedef struct Walk
{
	CacheDependencies *deps;
	PlannedStmt *plan;
	ParamListInfo params;
	bool	   *scanned;		/* by range table index - 1: seen by us */
	Bitmapset  *whole;			/* range table indexes read as a whole */
	List	   *keys;			/* of KeyRead */
	bool		opaque;			/* a node we do not know */
} Walk;

/* A scan that reads only rows with some values of a key column. */
typedef struct KeyRead
{
	Index		rti;
	List	   *rings;			/* of each value; none for NULL */
} KeyRead;

/* A scan for more values than this reads the whole table, for all we know. */
#define MAX_KEYS_READ	64

static Node *
strip_relabel(Node *node)
{
	while (node && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return node;
}

/* A value that is the same throughout the execution; false if it is none. */
static bool
constant_value(Walk *walk, Node *node, Datum *value, bool *isnull)
{
	node = strip_relabel(node);
	if (node == NULL)
		return false;
	if (IsA(node, Const))
	{
		*value = ((Const *) node)->constvalue;
		*isnull = ((Const *) node)->constisnull;
		return true;
	}
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXTERN &&
		walk->params != NULL)
	{
		Param	   *param = (Param *) node;
		ParamExternData workspace;
		ParamExternData *external;

		if (param->paramid <= 0 || param->paramid > walk->params->numParams)
			return false;
		if (walk->params->paramFetch)
			external = walk->params->paramFetch(walk->params, param->paramid, true, &workspace);
		else
			external = &walk->params->params[param->paramid - 1];
		if (external == NULL || external->ptype != param->paramtype)
			return false;
		*value = external->value;
		*isnull = external->isnull;
		return true;
	}
	return false;
}

/* The column of the scan's own table that the node is, or InvalidAttrNumber. */
static AttrNumber
scanned_column(Scan *scan, Node *node)
{
	Var		   *var = (Var *) strip_relabel(node);

	if (var && IsA(var, Var) && var->varno == INDEX_VAR && IsA(scan, IndexOnlyScan))
	{
		TargetEntry *entry = get_tle_by_resno(((IndexOnlyScan *) scan)->indextlist,
											  var->varattno);

		var = entry ? (Var *) strip_relabel((Node *) entry->expr) : NULL;
	}
	if (var == NULL || !IsA(var, Var) || var->varno != scan->scanrelid ||
		var->varlevelsup != 0 || var->varattno <= 0)
		return InvalidAttrNumber;
	return var->varattno;
}

/*
 * Is "column op value" an equality under which equal values have equal hashes,
 * namely that by which the trigger hashes the column?
 */
static bool
hash_of_equality(Oid relid, AttrNumber attnum, Oid opno, Oid collation,
				 Datum value, uint32 *hash)
{
	HeapTuple	tuple;
	Oid			type;
	Oid			column_collation;
	TypeCacheEntry *column;
	Oid			left;
	Oid			right;
	Oid			function;

	tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attnum));
	if (!HeapTupleIsValid(tuple))
		return false;
	type = ((Form_pg_attribute) GETSTRUCT(tuple))->atttypid;
	column_collation = ((Form_pg_attribute) GETSTRUCT(tuple))->attcollation;
	ReleaseSysCache(tuple);
	if (collation != column_collation)
		return false;

	column = lookup_type_cache(type, TYPECACHE_HASH_PROC_FINFO);
	if (!OidIsValid(column->hash_proc_finfo.fn_oid) ||
		get_op_opfamily_strategy(opno, column->hash_opf) != HTEqualStrategyNumber)
		return false;
	op_input_types(opno, &left, &right);
	if (get_opfamily_proc(column->hash_opf, left, left, HASHSTANDARD_PROC) !=
		column->hash_proc_finfo.fn_oid)
		return false;
	function = get_opfamily_proc(column->hash_opf, right, right, HASHSTANDARD_PROC);
	if (!OidIsValid(function))
		return false;
	*hash = DatumGetUInt32(OidFunctionCall1Coll(function, collation, value));
	return true;
}

/* column op value */
static bool
key_of_value(Oid relid, AttrNumber attnum, Oid opno, Oid collation,
			 Datum value, KeyRead *key)
{
	uint32		hash;

	if (!hash_of_equality(relid, attnum, opno, collation, value, &hash))
		return false;
	key->rings = lappend_int(key->rings, (int) cache_ring_of_key(relid, attnum, hash));
	return true;
}

/* column op ANY (array) */
static bool
key_of_values(Oid relid, AttrNumber attnum, ScalarArrayOpExpr *op,
			  Datum value, KeyRead *key)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	int16		typlen;
	bool		typbyval;
	char		typalign;
	Datum	   *values;
	bool	   *nulls;
	int			num;

	if (ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) > MAX_KEYS_READ)
		return false;
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &typlen, &typbyval, &typalign);
	deconstruct_array(array, ARR_ELEMTYPE(array), typlen, typbyval, typalign,
					  &values, &nulls, &num);
	for (int i = 0; i < num; i++)
	{
		if (!nulls[i] &&
			!key_of_value(relid, attnum, op->opno, op->inputcollid, values[i], key))
			return false;
	}
	return true;
}

/* Does the condition restrict the scan to some values of a key column? */
static bool
key_of_clause(Walk *walk, Scan *scan, Oid relid, Node *clause, KeyRead *key)
{
	bool		is_any = IsA(clause, ScalarArrayOpExpr) && ((ScalarArrayOpExpr *) clause)->useOr;
	List	   *args;
	Oid			opno;
	AttrNumber	attnum;
	Node	   *other;
	Datum		value;
	bool		isnull;

	if (is_any)
	{
		args = ((ScalarArrayOpExpr *) clause)->args;
		opno = ((ScalarArrayOpExpr *) clause)->opno;
	}
	else if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
	{
		args = ((OpExpr *) clause)->args;
		opno = ((OpExpr *) clause)->opno;
	}
	else
		return false;

	attnum = scanned_column(scan, linitial(args));
	other = lsecond(args);
	if (attnum == InvalidAttrNumber && !is_any)
	{
		attnum = scanned_column(scan, lsecond(args));
		other = linitial(args);
		opno = get_commutator(opno);
	}
	if (attnum == InvalidAttrNumber || !OidIsValid(opno) || !op_strict(opno) ||
		!cache_relation_tracks_key(relid, attnum) ||
		!constant_value(walk, other, &value, &isnull))
		return false;

	key->rings = NIL;
	if (isnull)
		return true;			/* no row passes, whatever is written */
	if (is_any)
		return key_of_values(relid, attnum, (ScalarArrayOpExpr *) clause, value, key);
	return key_of_value(relid, attnum, opno, ((OpExpr *) clause)->inputcollid, value, key);
}

static bool
key_of_clauses(Walk *walk, Scan *scan, Oid relid, List *clauses, KeyRead *key)
{
	ListCell   *lc;

	foreach(lc, clauses)
	{
		if (key_of_clause(walk, scan, relid, lfirst(lc), key))
			return true;
	}
	return false;
}

/* A node that reads a table: by key, or as a whole. */
static void
add_scan(Walk *walk, Scan *scan)
{
	RangeTblEntry *rte = rt_fetch(scan->scanrelid, walk->plan->rtable);
	KeyRead		key = {.rti = scan->scanrelid};
	List	   *conditions = NIL;	/* that all rows meet which it returns */

	if (rte->rtekind != RTE_RELATION)
		return;
	walk->scanned[scan->scanrelid - 1] = true;
	switch (nodeTag(scan))
	{
		case T_IndexScan:
			conditions = ((IndexScan *) scan)->indexqualorig;
			break;
		case T_IndexOnlyScan:
			conditions = ((IndexOnlyScan *) scan)->indexqual;
			break;
		case T_BitmapHeapScan:
			conditions = ((BitmapHeapScan *) scan)->bitmapqualorig;
			break;
		case T_SeqScan:
			break;
		default:
			walk->whole = bms_add_member(walk->whole, scan->scanrelid);
			return;
	}
	if (key_of_clauses(walk, scan, rte->relid, conditions, &key) ||
		key_of_clauses(walk, scan, rte->relid, scan->plan.qual, &key))
	{
		KeyRead    *copy = palloc(sizeof(KeyRead));

		*copy = key;
		walk->keys = lappend(walk->keys, copy);
	}
	else
		walk->whole = bms_add_member(walk->whole, scan->scanrelid);
}

static void walk_plan(Walk *walk, Plan *plan);

static void
walk_plans(Walk *walk, List *plans)
{
	ListCell   *lc;

	foreach(lc, plans)
		walk_plan(walk, lfirst(lc));
}

static void
walk_plan(Walk *walk, Plan *plan)
{
	if (plan == NULL)
		return;
	check_stack_depth();
	switch (nodeTag(plan))
	{
		case T_SeqScan:
		case T_SampleScan:
		case T_IndexScan:
		case T_IndexOnlyScan:
		case T_BitmapHeapScan:
		case T_TidScan:
		case T_TidRangeScan:
			add_scan(walk, (Scan *) plan);
			break;
		case T_Append:
			walk_plans(walk, ((Append *) plan)->appendplans);
			break;
		case T_MergeAppend:
			walk_plans(walk, ((MergeAppend *) plan)->mergeplans);
			break;
		case T_SubqueryScan:
			walk_plan(walk, ((SubqueryScan *) plan)->subplan);
			break;
		case T_BitmapAnd:		/* their heap scan says what they read */
		case T_BitmapOr:
		case T_BitmapIndexScan:
		case T_Result:
		case T_ProjectSet:
		case T_RecursiveUnion:
		case T_FunctionScan:
		case T_ValuesScan:
		case T_TableFuncScan:
		case T_CteScan:
		case T_WorkTableScan:
		case T_NestLoop:
		case T_MergeJoin:
		case T_HashJoin:
		case T_Material:
		case T_Memoize:
		case T_Sort:
		case T_IncrementalSort:
		case T_Group:
		case T_Agg:
		case T_WindowAgg:
		case T_Unique:
		case T_Gather:
		case T_GatherMerge:
		case T_Hash:
		case T_SetOp:
		case T_Limit:
			break;
		case T_NamedTuplestoreScan:
			/* rows of a statement that is still writing */
			cache_dependencies_refuse(walk->deps, CACHE_BYPASS_OWN_WRITES, InvalidOid);
			break;
		default:
			walk->opaque = true;
			break;
	}
	walk_plan(walk, outerPlan(plan));
	walk_plan(walk, innerPlan(plan));
}

static bool
holds_rows(RangeTblEntry *rte)
{
	return rte->rtekind == RTE_RELATION &&
		(rte->relkind == RELKIND_RELATION || rte->relkind == RELKIND_MATVIEW);
}

static void
add_rings(CacheDependencies *deps, PlannedStmt *plan, ParamListInfo params)
{
	Walk		walk = {.deps = deps,.plan = plan,.params = params};
	List	   *whole_relids = NIL;
	Index		rti = 0;
	ListCell   *lc;
	ListCell   *ring;

	walk.scanned = palloc0(sizeof(bool) * (list_length(plan->rtable) + 1));
	walk_plan(&walk, plan->planTree);
	walk_plans(&walk, plan->subplans);

	foreach(lc, plan->rtable)
	{
		RangeTblEntry *rte = lfirst(lc);

		rti++;

		/*
		 * Which partitions a table has depends on the snapshot while one is
		 * detached concurrently: its ring has no writers, but barriers.
		 */
		if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_PARTITIONED_TABLE)
			cache_dependencies_add_ring(deps, cache_ring_of_relation(rte->relid));
		if (!holds_rows(rte))
			continue;

		/*
		 * Not seen in the plan: the head of a tree of tables, which appears
		 * again as one of its members; or a table that was found not to
		 * matter, which is not relied on.
		 */
		if (walk.opaque || bms_is_member(rti, walk.whole) ||
			(!walk.scanned[rti - 1] && !rte->inh))
		{
			whole_relids = list_append_unique_oid(whole_relids, rte->relid);
			cache_dependencies_add_ring(deps, cache_ring_of_relation(rte->relid));
		}
	}
	foreach(lc, walk.keys)
	{
		KeyRead    *key = lfirst(lc);
		Oid			relid = rt_fetch(key->rti, plan->rtable)->relid;

		/* the ring of the table covers all keys */
		if (key->rings == NIL || list_member_oid(whole_relids, relid))
			continue;
		foreach(ring, key->rings)
			cache_dependencies_add_ring(deps, (CacheRing) lfirst_int(ring));
		cache_dependencies_add_ring(deps, cache_ring_of_all_keys(relid));
	}
}

/* ---------------------------------------------------------------------
 * Plans
 */

static bool
is_modifying(PlannedStmt *plan)
{
	return plan->commandType != CMD_SELECT || plan->hasModifyingCTE;
}

static void
add_relation_definition(CacheDependencies *deps, Oid relid)
{
	char	   *name = get_rel_name(relid);

	cache_dependencies_add_definition(deps, cache_definition_of_relation(relid));
	if (name)
	{
		/* another one of that name may come to precede it in the search path */
		cache_dependencies_add_definition(deps, cache_definition_of_relation_name(name));
		pfree(name);
	}
}

/*
 * Does it call current_setting(), in a policy for example?  Plans have no
 * walker; their text names every function.
 */
static bool
reads_settings(PlannedStmt *plan)
{
	char	   *text = nodeToString(plan);
	char		call[2][32];

	snprintf(call[0], sizeof(call[0]), ":funcid %u ", F_CURRENT_SETTING_TEXT);
	snprintf(call[1], sizeof(call[1]), ":funcid %u ", F_CURRENT_SETTING_TEXT_BOOL);
	return strstr(text, call[0]) != NULL || strstr(text, call[1]) != NULL;
}

void
cache_dependencies_add_plan(CacheDependencies *deps, PlannedStmt *plan,
							ParamListInfo params)
{
	MemoryContext work;
	MemoryContext old;
	ListCell   *lc;

	if (is_modifying(plan) || plan->rowMarks || cache_write_in_progress())
		cache_dependencies_refuse(deps, CACHE_BYPASS_OWN_WRITES, InvalidOid);

	cache_dependencies_add_definition(deps, cache_definition_of_database());
	cache_dependencies_add_definition(deps, cache_definition_of_cluster());

	work = AllocSetContextCreate(CurrentMemoryContext, "perfopt cache dependencies",
								 ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(work);
	if (!deps->settings_in_key && deps->refusal == CACHE_BYPASS_NONE && reads_settings(plan))
		cache_dependencies_refuse(deps, CACHE_BYPASS_SETTING, InvalidOid);
	foreach(lc, plan->relationOids)
		add_relation_definition(deps, lfirst_oid(lc));
	foreach(lc, plan->invalItems)
	{
		PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

		cache_dependencies_add_definition(deps, cache_definition_of_item(item->cacheId,
																		 item->hashValue));
	}

	foreach(lc, plan->rtable)
	{
		RangeTblEntry *rte = lfirst(lc);

		CHECK_FOR_INTERRUPTS();

		/* from 16 on, a view is a subquery that has an OID */
		if (rte->rtekind != RTE_RELATION &&
			!(rte->rtekind == RTE_SUBQUERY && OidIsValid(rte->relid)))
			continue;
		cache_dependencies_add_relation(deps, rte->relid);
		/* partitioned tables have no rows of their own */
		if (rte->rtekind == RTE_RELATION && rte->relkind != RELKIND_PARTITIONED_TABLE &&
			!cache_relation_is_tracked(rte->relid))
			cache_dependencies_refuse(deps, CACHE_BYPASS_UNTRACKED, rte->relid);
	}
	if (deps->refusal == CACHE_BYPASS_NONE)
		add_rings(deps, plan, params);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
}

CacheDependencies *
cache_collect(CacheDependencies *deps)
{
	CacheDependencies *before = collector;

	collector = deps;
	return before;
}

CacheDependencies *
cache_collecting(void)
{
	return collector;
}

/* ---------------------------------------------------------------------
 * Statements
 */

static inline void
begin_writing(const void *statement)
{
	if (writing_statement == NULL)
	{
		writing_statement = statement;
		writing_level = GetCurrentTransactionNestLevel();
	}
}

static inline void
end_writing(const void *statement)
{
	if (writing_statement == statement)
		writing_statement = NULL;
}

/* The logical replication worker writes without executing statements. */
bool
cache_write_in_progress(void)
{
	return writing_statement != NULL || IsLogicalWorker();
}

/*
 * REFRESH MATERIALIZED VIEW CONCURRENTLY changes it row by row, by statements
 * that nobody else can run.
 */
static void
mark_refreshed(PlannedStmt *plan)
{
	Index		rti = perfopt_result_relation(plan);

	if (rti > 0 && rt_fetch(rti, plan->rtable)->relkind == RELKIND_MATVIEW &&
		perfopt_shmem_ready())
		cache_definition_mark_relation(rt_fetch(rti, plan->rtable)->relid);
}

/*
 * Functions that run in a parallel worker are not seen by this backend's
 * hooks.  The plan itself, which may be a kept one, stays as it is.
 */
static void
forbid_parallel_functions(QueryDesc *queryDesc)
{
	PlannedStmt *copy;

	if (!queryDesc->plannedstmt->parallelModeNeeded || queryDesc->plannedstmt->invalItems == NIL)
		return;
	copy = palloc(sizeof(PlannedStmt));
	*copy = *queryDesc->plannedstmt;
	copy->parallelModeNeeded = false;
	queryDesc->plannedstmt = copy;
}

static void
executor_start(QueryDesc *queryDesc, int eflags)
{
	if (unlikely(collector != NULL))
		forbid_parallel_functions(queryDesc);

	if (prev_ExecutorStart)
		prev_ExecutorStart(queryDesc, eflags);
	else
		standard_ExecutorStart(queryDesc, eflags);

	if (unlikely(collector != NULL))
		cache_dependencies_add_plan(collector, queryDesc->plannedstmt, queryDesc->params);
	if (is_modifying(queryDesc->plannedstmt) && !(eflags & EXEC_FLAG_EXPLAIN_ONLY))
	{
		begin_writing(queryDesc);
		cache_mark_without_queue(queryDesc->estate);
		mark_refreshed(queryDesc->plannedstmt);
	}
}

/* Here AFTER triggers are fired. */
static void
executor_finish(QueryDesc *queryDesc)
{
	if (prev_ExecutorFinish)
		prev_ExecutorFinish(queryDesc);
	else
		standard_ExecutorFinish(queryDesc);
	end_writing(queryDesc);
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *queryEnv, DestReceiver *dest,
				QueryCompletion *qc)
{
	CopyStmt   *copy = (CopyStmt *) pstmt->utilityStmt;
	bool		copies_in = IsA(copy, CopyStmt) && copy->is_from;

	/* a utility command may read without a plan, as COPY does */
	if (unlikely(collector != NULL))
		cache_dependencies_refuse(collector, CACHE_BYPASS_OWN_WRITES, InvalidOid);

	if (copies_in)
		begin_writing(pstmt);
	if (prev_ProcessUtility)
		prev_ProcessUtility(pstmt, queryString, readOnlyTree, context, params,
							queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
	if (copies_in)
		end_writing(pstmt);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	collector = NULL;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			writing_statement = NULL;
			break;
		default:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subxid,
					  SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB &&
		writing_statement && writing_level >= GetCurrentTransactionNestLevel())
		writing_statement = NULL;
}

void
cache_dependencies_init(void)
{
	prev_ExecutorStart = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	prev_ExecutorFinish = ExecutorFinish_hook;
	ExecutorFinish_hook = executor_finish;
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}
