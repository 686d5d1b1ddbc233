/*
 * what_if.c
 *		What a sampled statement would cost if certain indexes existed.
 *
 * The statement is planned by standard_planner() while a hook adds
 * IndexOptInfos of indexes that do not exist, complete as the server makes them
 * for real ones.  Such a plan is looked at for its cost and thrown away: it is
 * never executed and never cached.
 *
 * Planning is not harmless.  The planner evaluates functions of the
 * statement, which are written by whoever ran it, and this runs in a process
 * of a superuser.  Therefore:
 *
 * - a sample is planned as the role that ran the statement, which is made the
 *   session user too, as functions and policies may go by that; in a
 *   security-restricted operation with a locked search_path, as maintenance
 *   commands evaluate index expressions (a function that relies on its
 *   caller's search_path may fail then, and its statement is not priced);
 * - in a subtransaction that is rolled back in every case, so that nothing
 *   such a function did stays, errors end that sample only, and locks go;
 * - with a statement timeout, and since a function may catch the error of that
 *   one and carry on, with a second timeout that ends the process;
 * - should the process end meanwhile without having been told to from outside,
 *   by that timeout or by what the function has set (exit_on_error,
 *   transaction_timeout), the statement is condemned, or the worker would come
 *   back to die of it again;
 * - locks are only taken if they can be had at once, and those that the planner
 *   takes by itself, of partitions and indexes, are waited for no longer than a
 *   moment.
 *
 * A function may plan and run statements of its own.  Those must not see the
 * hypothetical indexes: what is planned for the what-if itself is recognized
 * by its list of parameters, which is made for that one call.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/candidates.h"
#include "advisor/trigrams.h"

#include "access/amapi.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/test_clock.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/paths.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/selfuncs.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "worker/worker.h"

/* Planning a sample ends after this time. */
#define SAMPLE_TIMEOUT_MS	2000

/* ... and if it doesn't, the process ends after this time. */
#define SAMPLE_DEADLINE_MS	3000

/* How long the planner may wait for a lock. */
#define SAMPLE_LOCK_TIMEOUT	"10ms"

typedef struct WhatIf
{
	ParamListInfo params;		/* identifies our planner calls */
	List	   *indexes;		/* IndexSpec *, to be added */
	List	   *hidden;			/* OIDs of indexes, to be left out */
	CandidateList *candidates;	/* where to add candidates, or NULL */
	MemoryContext context;		/* the caller's */
	List	   *offered;		/* Offered *, what the planner was shown */
} WhatIf;

void		(*perfopt_what_if_observer) (PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte) = NULL;

/* One of the indexes, under the number the planner has it by. */
typedef struct Offered
{
	Oid			id;
	int			position;		/* in the list of indexes */
} Offered;

/* Not NULL only while standard_planner() is called by what_if_plan(). */
static WhatIf *current = NULL;

/* The statement being priced. */
static PerfoptQueryKey priced;
static bool pricing = false;

/* For the session that asks, as itself? */
static bool as_caller = false;

static TimeoutId deadline = MAX_TIMEOUTS;	/* not registered yet */

static perfopt_relation_hook_type prev_relation_hook = NULL;
static set_rel_pathlist_hook_type prev_set_rel_pathlist_hook = NULL;
static get_index_stats_hook_type prev_index_stats_hook = NULL;

bool
perfopt_what_if_planning(PlannerInfo *root)
{
	return current != NULL && root->glob->boundParams == current->params;
}

bool
perfopt_what_if_guarded(void)
{
	return pricing;
}

bool
perfopt_what_if_as_caller(void)
{
	return as_caller;
}

/* A copy over another relation of the range table. */
static List *
over_relation(List *trees, Index relid)
{
	trees = copyObject(trees);
	if (relid != 1)
		ChangeVarNodes((Node *) trees, 1, relid, 0);
	return trees;
}

static void
add_column(IndexOptInfo *info, Relation relation, int i, const IndexColumn *column)
{
	Expr	   *expr;

	info->indexkeys[i] = column->attnum;
	info->canreturn[i] = info->relam == BTREE_AM_OID;
	if (column->attnum != 0)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(relation), column->attnum - 1);

		expr = (Expr *) makeVar(info->rel->relid, column->attnum, att->atttypid,
								att->atttypmod, att->attcollation, 0);
	}
	else
	{
		expr = linitial(over_relation(list_make1(column->expr), info->rel->relid));
		info->indexprs = lappend(info->indexprs, expr);
	}
	info->indextlist = lappend(info->indextlist, makeTargetEntry(expr, i + 1, NULL, false));

	if (i >= info->nkeycolumns)
		return;
	info->indexcollations[i] = column->collation;
	info->opfamily[i] = column->opfamily;
	info->opcintype[i] = column->opcintype;
	if (info->relam != BTREE_AM_OID)
		return;
	info->reverse_sort[i] = (column->options & INDOPTION_DESC) != 0;
	info->nulls_first[i] = (column->options & INDOPTION_NULLS_FIRST) != 0;
}

/*
 * NULL when the index could not be built.  It is a part of the whole, that of a
 * partitioned table, or itself.
 */
static IndexOptInfo *
make_index(RelOptInfo *rel, Relation relation, const IndexSpec *spec, const IndexSpec *whole)
{
	IndexOptInfo *info = makeNode(IndexOptInfo);
	int			n = spec->num_columns;
	const IndexAmRoutine *am = GetIndexAmRoutineByAmId(spec->am, false);
	const IndexFacts *facts = spec == whole ?
	perfopt_index_facts(relation, rel->tuples, spec) :
	perfopt_index_facts_on_partition(relation, rel->tuples, spec, whole);

	if (!facts->size.possible)
		return NULL;
	info->indexoid = facts->id;
	info->reltablespace = rel->reltablespace;
	info->rel = rel;
	info->pages = (BlockNumber) Min(facts->size.pages, MaxBlockNumber);

	/* as the server has it: all rows of the table, as estimated this time */
	info->tuples = spec->predicate ? Min(facts->size.tuples, rel->tuples) : rel->tuples;
	info->tree_height = facts->size.tree_height;

	info->ncolumns = n;
	info->nkeycolumns = spec->num_keys;
	info->indexkeys = palloc(sizeof(int) * n);
	info->canreturn = palloc(sizeof(bool) * n);
	info->indexcollations = palloc(sizeof(Oid) * n);
	info->opfamily = palloc(sizeof(Oid) * n);
	info->opcintype = palloc(sizeof(Oid) * n);
	info->relam = spec->am;
	if (spec->am == BTREE_AM_OID)
	{
		info->sortopfamily = info->opfamily;
		info->reverse_sort = palloc0(sizeof(bool) * n);
		info->nulls_first = palloc0(sizeof(bool) * n);
	}
	info->opclassoptions = palloc0(sizeof(bytea *) * n);
	for (int i = 0; i < n; i++)
		add_column(info, relation, i, &spec->columns[i]);
	info->indpred = over_relation(spec->predicate, rel->relid);
	info->immediate = true;
	info->hypothetical = true;

	info->amcanorderbyop = am->amcanorderbyop;
	info->amoptionalkey = am->amoptionalkey;
	info->amsearcharray = am->amsearcharray;
	info->amsearchnulls = am->amsearchnulls;

	/* the planner makes no path of an index that does none of these */
	info->amcanparallel = am->amcanparallel && !whole->statistics_only;
	info->amhasgettuple = am->amgettuple != NULL && !whole->statistics_only;
	info->amhasgetbitmap = am->amgetbitmap != NULL && !whole->statistics_only;
	info->amcanmarkpos = am->ammarkpos != NULL && am->amrestrpos != NULL;
	info->amcostestimate = spec->am == GIN_AM_OID ? perfopt_gin_cost : am->amcostestimate;
	return info;
}

/* With an index of a partitioned table its parts are hidden. */
static bool
is_hidden(Oid index)
{
	List	   *ancestors = get_rel_relispartition(index) ? get_partition_ancestors(index) : NIL;
	ListCell   *lc;

	foreach(lc, ancestors)
		if (list_member_oid(current->hidden, lfirst_oid(lc)))
		return true;
	return list_member_oid(current->hidden, index);
}

static void
hide_indexes(RelOptInfo *rel)
{
	ListCell   *lc;

	if (current->hidden == NIL)
		return;
	foreach(lc, rel->indexlist)
		if (is_hidden(((IndexOptInfo *) lfirst(lc))->indexoid))
		rel->indexlist = foreach_delete_current(rel->indexlist, lc);
}

/* The same index may be offered of several relations of the statement. */
static void
note_offered(Oid id, int position)
{
	Offered    *offered = palloc(sizeof(Offered));

	offered->id = id;
	offered->position = position;
	current->offered = lappend(current->offered, offered);
}

static void
what_if_relation(PERFOPT_RELATION_HOOK_ARGS)
{
	RangeTblEntry *rte;
	Relation	relation;
	List	   *ancestors = NIL;
	ListCell   *lc;

	if (prev_relation_hook)
		prev_relation_hook(PERFOPT_RELATION_HOOK_PASS);
	if (!perfopt_what_if_planning(root))
		return;
	rte = planner_rt_fetch(rel->relid, root);
	if (rte->rtekind != RTE_RELATION)
		return;

	/* planning over foreign tables may talk to another server */
	if (rel->fdwroutine)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("statements over foreign tables are not priced")));
	if (rte->inh)
		return;

	hide_indexes(rel);
	relation = table_open(rte->relid, NoLock);
	if (relation->rd_rel->relispartition && current->indexes)
		ancestors = get_partition_ancestors(rte->relid);
	foreach(lc, current->indexes)
	{
		const IndexSpec *whole = lfirst(lc);
		const IndexSpec *spec = perfopt_index_spec_on(whole, relation, ancestors);
		IndexOptInfo *info = spec ? make_index(rel, relation, spec, whole) : NULL;

		if (info)
		{
			rel->indexlist = lcons(info, rel->indexlist);
			note_offered(info->indexoid, foreach_current_index(lc));
		}
	}
	table_close(relation, NoLock);
}

/* Statistics belong to the facts. */
static void
keep_statistics(HeapTuple tuple)
{
}

static bool
has_security_quals(PlannerInfo *root, Oid relid)
{
	for (int i = 1; i < root->simple_rel_array_size; i++)
	{
		RangeTblEntry *rte = root->simple_rte_array[i];

		if (rte && rte->rtekind == RTE_RELATION && rte->relid == relid && rte->securityQuals)
			return true;
	}
	return false;
}

/*
 * Statistics of an expression that a hypothetical index has.  The server asks
 * for them by the number of the column, once to price a scan of the index, and
 * whenever it estimates a clause with the expression; for that, it does not take
 * those of a partial index.  To price a scan of BRIN, vardata comes unset.
 */
static bool
what_if_index_stats(PlannerInfo *root, Oid index, AttrNumber attnum, VariableStatData * vardata)
{
	const IndexFacts *facts;
	const IndexColumn *column;

	if (!perfopt_what_if_planning(root) ||
		(facts = perfopt_index_facts_by_id(index)) == NULL)
		return prev_index_stats_hook ?
			prev_index_stats_hook(root, index, attnum, vardata) : false;

	column = &facts->spec->columns[attnum - 1];
	if (column->expr == NULL ||
		(facts->spec->predicate && (facts->spec->am == BRIN_AM_OID || vardata->var)))
		return false;
	if (facts->statistics == NULL || facts->statistics[attnum - 1] == NULL)
		return false;
	vardata->statsTuple = facts->statistics[attnum - 1];
	vardata->freefunc = keep_statistics;

	/* as for a real one: may the role read all rows of the table? */
	vardata->acl_ok = !has_security_quals(root, facts->spec->relid) &&
		pg_class_aclcheck(facts->spec->relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
	return true;
}

static void
what_if_pathlist(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	if (prev_set_rel_pathlist_hook)
		prev_set_rel_pathlist_hook(root, rel, rti, rte);
	if (!perfopt_what_if_planning(root))
		return;
	if (perfopt_what_if_observer)
		perfopt_what_if_observer(root, rel, rte);
	perfopt_trigram_paths(root, rel);
	if (current->candidates)
		perfopt_candidates_collect(root, rel, rte, current->candidates);
}

void
perfopt_what_if_init(void)
{
	prev_relation_hook = perfopt_relation_hook;
	perfopt_relation_hook = what_if_relation;
	prev_set_rel_pathlist_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = what_if_pathlist;
	prev_index_stats_hook = get_index_stats_hook;
	get_index_stats_hook = what_if_index_stats;
}

/* Which of the indexes does the plan use? */
typedef struct UsedContext
{
	WhatIf	   *what_if;
	Bitmapset  *used;
} UsedContext;

static void
note_used(UsedContext *context, Oid id)
{
	ListCell   *lc;

	foreach(lc, context->what_if->offered)
	{
		Offered    *offered = lfirst(lc);

		if (offered->id == id)
			context->used = bms_add_member(context->used, offered->position);
	}
}

static void
note_used_in(UsedContext *context, Plan *plan)
{
	ListCell   *lc;
	List	   *children = NIL;

	if (plan == NULL)
		return;
	check_stack_depth();
	switch (nodeTag(plan))
	{
		case T_IndexScan:
			note_used(context, ((IndexScan *) plan)->indexid);
			break;
		case T_IndexOnlyScan:
			note_used(context, ((IndexOnlyScan *) plan)->indexid);
			break;
		case T_BitmapIndexScan:
			note_used(context, ((BitmapIndexScan *) plan)->indexid);
			break;
		case T_Append:
			children = ((Append *) plan)->appendplans;
			break;
		case T_MergeAppend:
			children = ((MergeAppend *) plan)->mergeplans;
			break;
		case T_BitmapAnd:
			children = ((BitmapAnd *) plan)->bitmapplans;
			break;
		case T_BitmapOr:
			children = ((BitmapOr *) plan)->bitmapplans;
			break;
		case T_SubqueryScan:
			note_used_in(context, ((SubqueryScan *) plan)->subplan);
			break;
		default:
			break;
	}
	foreach(lc, children)
		note_used_in(context, lfirst(lc));
	note_used_in(context, plan->lefttree);
	note_used_in(context, plan->righttree);
}

static void
tell_price(WhatIf *what_if, PlannedStmt *plan, WhatIfPrice *price)
{
	UsedContext context = {.what_if = what_if};
	MemoryContext old_context = MemoryContextSwitchTo(what_if->context);
	Plan	   *top = plan->planTree;
	ListCell   *lc;

	note_used_in(&context, top);
	foreach(lc, plan->subplans)
		note_used_in(&context, lfirst(lc));
	MemoryContextSwitchTo(old_context);

	price->cost = top->total_cost;
	price->rows = IsA(top, ModifyTable) ? outerPlan(top)->plan_rows : top->plan_rows;
	price->used = context.used;
}

static PlannedStmt *
what_if_plan(Query *query, WhatIf *what_if)
{
	WhatIf	   *outer = current;
	PlannedStmt *plan = NULL;

	current = what_if;
	PG_TRY();
	{
		plan = perfopt_standard_planner(query, "", CURSOR_OPT_PARALLEL_OK,
										what_if->params);
	}
	PG_FINALLY();
	{
		current = outer;
	}
	PG_END_TRY();
	return plan;
}

/*
 * Lock what the statement reads, for reading only, whatever it would do; the
 * planner opens indexes with the lock mode of their table, so that is lowered
 * too.  True: a lock can't be had now.
 */
static bool
lock_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (OidIsValid(rte->relid) && rte->rtekind != RTE_FUNCTION)
		{
			if (!ConditionalLockRelationOid(rte->relid, AccessShareLock))
				return true;
			rte->rellockmode = AccessShareLock;
		}
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, lock_walker, context,
								 QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, lock_walker, context);
}

/* Do the sample's relations look as they did? */
static bool
sample_is_current(const PlanSample *sample)
{
	for (int i = 0; i < sample->num_rels; i++)
	{
		Relation	relation = try_relation_open(sample->rels[i].relid, NoLock);
		uint64		fingerprint;

		if (relation == NULL)
			return false;
		fingerprint = perfopt_relation_fingerprint(relation);
		relation_close(relation, NoLock);
		if (fingerprint != sample->rels[i].fingerprint)
			return false;
	}
	return true;
}

typedef enum SampleOutcome
{
	SAMPLE_PRICED,
	SAMPLE_BUSY,				/* a lock can't be had: another time */
	SAMPLE_USELESS				/* won't ever be planned */
} SampleOutcome;

static SampleOutcome
price_sample(const PlanSample *sample, WhatIf *what_if, WhatIfPrice *price)
{
	Query	   *query;
	PlannedStmt *plan;

	for (int i = 0; i < sample->num_rels; i++)
		if (!ConditionalLockRelationOid(sample->rels[i].relid, AccessShareLock))
			return SAMPLE_BUSY;
	if (!sample_is_current(sample))
		return SAMPLE_USELESS;

	query = perfopt_plan_sample_query(sample);
	if (lock_walker((Node *) query, NULL))
		return SAMPLE_BUSY;

	what_if->params = perfopt_plan_sample_params(sample);
	if (what_if->candidates)
		what_if->candidates->constants = perfopt_statement_constants(query);
	plan = what_if_plan(query, what_if);
	tell_price(what_if, plan, price);
	return SAMPLE_PRICED;
}

/* Timeout handler: no PL can catch FATAL. */
static void
end_process(void)
{
	InterruptPending = true;
	ProcDiePending = true;
}

/* The process ends: by the fault of the statement being priced? */
static void
condemn_priced(int code, Datum arg)
{
	if (!pricing || perfopt_worker_told_to_go())
		return;
	ereport(LOG,
			(errmsg("perfopt's process ended while it planned statement %lld",
					(long long) priced.queryid),
			 errdetail("A function that is called while planning it may have carried on after being cancelled, or have ended the process. The statement is left out of advice until the server restarts.")));
	perfopt_plan_sample_condemn(&priced);
}

static void
start_timeouts(const PlanSample *sample)
{
	if (deadline == MAX_TIMEOUTS)
	{
		before_shmem_exit(condemn_priced, (Datum) 0);
		deadline = RegisterTimeout(USER_TIMEOUT, end_process);
	}
	priced = sample->key;
	pricing = true;
	enable_timeout_after(STATEMENT_TIMEOUT, PERFOPT_LIMIT_MS(SAMPLE_TIMEOUT_MS));
	enable_timeout_after(deadline, PERFOPT_LIMIT_MS(SAMPLE_DEADLINE_MS));
}

static void
stop_timeouts(TimestampTz callers_timeout)
{
	pricing = false;
	disable_timeout(deadline, false);
	perfopt_set_statement_timeout(callers_timeout);
}

/* The transaction's abort does not restore the session's user. */
void
perfopt_set_identity(Oid session_user, Oid user, int sec_context)
{
	if (session_user != GetSessionUserId())
	{
		SetUserIdAndSecContext(user, 0);	/* the next call insists on that */
		SetSessionAuthorization(session_user, superuser_arg(session_user));
	}
	SetUserIdAndSecContext(user, sec_context);
}

static void
set_locally(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

static void
want_candidates(WhatIf *what_if, CandidateList *list, List **specs)
{
	static uint32 plannings = 0;

	if (specs == NULL)
		return;
	memset(list, 0, sizeof(*list));
	list->specs = specs;
	list->context = what_if->context;
	list->planning = ++plannings;
	what_if->candidates = list;
}

bool
perfopt_what_if_sample(const PlanSample *sample, List *indexes, List *hidden,
					   WhatIfPrice *price, List **candidates)
{
	MemoryContext caller_context = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	volatile SampleOutcome outcome = SAMPLE_USELESS;
	WhatIf		what_if = {0};
	CandidateList list;
	Oid			session_user = GetSessionUserId();
	Oid			role;
	int			sec_context;
	int			nest_level;
	TimestampTz callers_timeout = perfopt_statement_timeout();

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(sample->key.role)))
	{
		perfopt_plan_sample_discard(sample);
		return false;
	}

	what_if.indexes = indexes;
	what_if.hidden = hidden;
	what_if.context = caller_context;
	want_candidates(&what_if, &list, candidates);

	GetUserIdAndSecContext(&role, &sec_context);
	BeginInternalSubTransaction(NULL);
	nest_level = NewGUCNestLevel();
	PG_TRY();
	{
		perfopt_set_identity(sample->key.role, sample->key.role,
							 sec_context | SECURITY_LOCAL_USERID_CHANGE |
							 SECURITY_RESTRICTED_OPERATION);
		set_locally("search_path", "pg_catalog, pg_temp");
		set_locally("lock_timeout", SAMPLE_LOCK_TIMEOUT);
		start_timeouts(sample);
		outcome = price_sample(sample, &what_if, price);
	}
	PG_CATCH();
	{
		/*
		 * But for a lock, whatever it was, this sample is of no use; a
		 * request to end this process is FATAL and does not come here.
		 */
		ErrorData  *error;

		MemoryContextSwitchTo(caller_context);
		error = CopyErrorData();
		FlushErrorState();
		ereport(DEBUG1,
				(errmsg_internal("perfopt: statement %lld is not priced: %s",
								 (long long) sample->key.queryid, error->message)));
		outcome = error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ?
			SAMPLE_BUSY : SAMPLE_USELESS;
		FreeErrorData(error);
	}
	PG_END_TRY();

	stop_timeouts(callers_timeout);
	AtEOXact_GUC(false, nest_level);
	RollbackAndReleaseCurrentSubTransaction();
	perfopt_set_identity(session_user, role, sec_context);
	MemoryContextSwitchTo(caller_context);
	CurrentResourceOwner = caller_owner;

	if (outcome == SAMPLE_USELESS)
		perfopt_plan_sample_discard(sample);
	return outcome == SAMPLE_PRICED;
}

bool
perfopt_what_if_cost(const PlanSample *sample, List *indexes, List *hidden, Cost *cost,
					 List **candidates)
{
	WhatIfPrice price;

	if (!perfopt_what_if_sample(sample, indexes, hidden, &price, candidates))
		return false;
	*cost = price.cost;
	return true;
}

/*
 * For the session that asks there is nothing to guard against: it plans as
 * EXPLAIN would, as itself, and what fails is its own error.  Its rights are
 * checked with the first plan, by which candidates are found.
 */
void
perfopt_what_if_query(Query *query, ParamListInfo params, List *indexes, List *hidden,
					  WhatIfPrice *price, List **candidates)
{
	MemoryContext caller_context = CurrentMemoryContext;
	MemoryContext work = AllocSetContextCreate(caller_context, "perfopt what-if",
											   ALLOCSET_DEFAULT_SIZES);
	WhatIf		what_if = {
		.indexes = indexes,
		.hidden = hidden,
		.context = caller_context
	};
	CandidateList list;
	PlannedStmt *plan;

	want_candidates(&what_if, &list, candidates);
	MemoryContextSwitchTo(work);
	what_if.params = params ? params : makeParamList(0);
	if (candidates)
		list.constants = perfopt_statement_constants(query);
	plan = what_if_plan(copyObject(query), &what_if);
	if (candidates)
		perfopt_check_permissions(plan);
	tell_price(&what_if, plan, price);
	MemoryContextSwitchTo(caller_context);
	MemoryContextDelete(work);
}

void
perfopt_what_if_for_caller(void (*action) (void *arg), void *arg)
{
	bool		outer = as_caller;

	as_caller = true;
	PG_TRY();
	{
		action(arg);
	}
	PG_FINALLY();
	{
		as_caller = outer;
	}
	PG_END_TRY();
}
