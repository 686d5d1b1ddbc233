/*
 * candidates.c
 *		Which indexes could help a statement.
 *
 * Called from the planner while it makes the paths of a base relation, when
 * predicates have the form in which it matches them to indexes: restrictions
 * are distributed to their relations, those common to the arms of an OR are
 * extracted, and equalities are merged into classes.  What the statement does
 * with the relation is collected: conditions that an index could meet, the
 * order it is wanted in, the columns it is read for, conditions that few rows
 * meet.  Each kind of index has a function that makes specifications of that.
 *
 * A plan sample has the statement with the constants of one run.  Statements
 * that differ in constants only are the same to the monitor, so an index that
 * depends on a constant (a partial one, or on an expression) is kept only when
 * all samples of the statement have asked for it; of a partial one rounds.c asks
 * besides that they are not of one burst.
 *
 * What is made is bounded, whatever the statement: conditions, arms of ORs and
 * specifications of one relation, and specifications in all.
 *
 * A partitioned table is looked at as a whole; with other inheritance each table
 * is, as no index of the parent has the rows of its children.  Left out are
 * tables that are read in no time anyway.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/candidates.h"

#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "common/compat.h"
#include "commands/defrem.h"
#include "catalog/pg_am.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Tables with fewer pages never get advice. */
#define MIN_TABLE_PAGES		10

/* Candidates of a statement. */
#define MAX_CANDIDATES		300

/* Columns of an order that are looked at. */
#define MAX_ORDER			4

/* Constants of a statement that are looked at. */
#define MAX_CONSTANTS		100

/*
 * The list
 */
IndexSpec *
perfopt_candidates_add(CandidateList *candidates, IndexSpec *spec)
{
	ListCell   *lc;

	foreach(lc, *candidates->specs)
	{
		IndexSpec  *kept = lfirst(lc);

		if (!perfopt_index_spec_equal(kept, spec))
			continue;
		kept->order_only = kept->order_only && spec->order_only;
		kept->any_direction = kept->any_direction && spec->any_direction;
		if (kept->arm_of == 0)
			kept->arm_of = spec->arm_of;
		kept->of_constants = kept->of_constants || spec->of_constants;
		if (kept->last_found != candidates->planning)
		{
			kept->last_found = candidates->planning;
			kept->times_found++;
		}
		pfree(spec->columns);
		pfree(spec);
		return kept;
	}
	if (list_length(*candidates->specs) >= MAX_CANDIDATES)
		return NULL;
	spec->last_found = candidates->planning;
	spec->times_found = 1;
	*candidates->specs = lappend(*candidates->specs, spec);
	return spec;
}

List *
perfopt_candidates_settle(List *specs, int plannings)
{
	List	   *settled = NIL;
	ListCell   *lc;

	foreach(lc, specs)
	{
		IndexSpec  *spec = lfirst(lc);

		if (!spec->of_constants || spec->times_found >= plannings)
			settled = lappend(settled, spec);
	}
	return settled;
}

/* The key as an index of its own, unless there is one of it already. */
static List *
add_statistics(List *known, const IndexSpec *of, const IndexColumn *key)
{
	IndexSpec  *spec = perfopt_index_spec_create(of->relid, of->am);
	ListCell   *lc;

	if (perfopt_index_spec_add_key(spec, key->expr, key->opclass, key->collation, 0) != NULL)
		return known;
	spec->statistics_only = true;
	foreach(lc, known)
		if (perfopt_index_spec_equal(lfirst(lc), spec))
		return known;
	return lappend(known, spec);
}

List *
perfopt_candidates_statistics(List *specs)
{
	List	   *known = NIL;
	ListCell   *lc;

	foreach(lc, specs)
	{
		const IndexSpec *spec = lfirst(lc);

		for (int i = 0; spec->am == BTREE_AM_OID && i < spec->num_keys; i++)
			if (spec->columns[i].expr)
				known = add_statistics(known, spec, &spec->columns[i]);
	}
	return known;
}

static bool
constants_walker(Node *node, List **constants)
{
	if (node == NULL)
		return false;
	if (IsA(node, Const))
	{
		if (!((Const *) node)->constisnull && list_length(*constants) < MAX_CONSTANTS)
			*constants = lappend(*constants, copyObject(node));
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, constants_walker, constants, 0);
	return expression_tree_walker(node, constants_walker, constants);
}

List *
perfopt_statement_constants(Query *query)
{
	List	   *constants = NIL;

	(void) constants_walker((Node *) query, &constants);
	return constants;
}

/*
 * What the statement does with the relation
 */

/* The relation's part of an equivalence class, to be sorted by; or NULL. */
static SortUse *
sort_use(const RelationUses *uses, const PathKey *pathkey)
{
	EquivalenceClass *ec = pathkey->pk_eclass;
	ListCell   *lc;

	if (ec->ec_has_volatile)
		return NULL;
	foreach(lc, ec->ec_members)
	{
		EquivalenceMember *em = lfirst(lc);
		SortUse    *use;
		bool		of_constants;
		Node	   *expr = bms_equal(em->em_relids, uses->rel->relids) ?
		perfopt_collect_key(uses, (Node *) em->em_expr, &of_constants) : NULL;
		Oid			opclass = expr ? GetDefaultOpClass(exprType(expr), BTREE_AM_OID) : InvalidOid;

		if (!OidIsValid(opclass) ||
			!list_member_oid(ec->ec_opfamilies, get_opclass_family(opclass)))
			continue;
		use = palloc0(sizeof(SortUse));
		use->expr = expr;
		use->collation = ec->ec_collation;
		use->of_constants = of_constants;
		use->options = (perfopt_pathkey_descends(pathkey) ? INDOPTION_DESC : 0) |
			(pathkey->pk_nulls_first ? INDOPTION_NULLS_FIRST : 0);
		return use;
	}
	return NULL;
}

/*
 * Is the planner at work for a min() or max()?  It plans a query of its own, by
 * the order of the argument, without NULLs.
 */
static bool
is_minmax(const PlannerInfo *root)
{
	const PlannerInfo *parent = root->parent_root;

	return parent && parent->parse->hasAggs && !root->parse->hasAggs &&
		root->parse->limitCount && IsA(root->parse->limitCount, Const) &&
		list_length(root->parse->targetList) == 1 &&
		root->parse->cteList == NIL && equal(root->parse->rtable, parent->parse->rtable);
}

/* As far as the order is of this relation. */
static void
collect_order(RelationUses *uses)
{
	const int16 both = INDOPTION_DESC | INDOPTION_NULLS_FIRST;
	ListCell   *lc;

	foreach(lc, uses->root->query_pathkeys)
	{
		SortUse    *use = sort_use(uses, lfirst(lc));

		if (use == NULL)
			break;

		/* that is tried with NULLs at either end */
		if (use->options != 0 && use->options != both && is_minmax(uses->root))
			break;
		uses->order = lappend(uses->order, use);
		if (list_length(uses->order) == MAX_ORDER)
			break;
	}
}

/* Columns that are needed beside those of conditions. */
static void
collect_columns(RelationUses *uses)
{
	List	   *vars = pull_var_clause((Node *) uses->rel->reltarget->exprs,
									   PVC_RECURSE_AGGREGATES | PVC_RECURSE_WINDOWFUNCS |
									   PVC_RECURSE_PLACEHOLDERS);
	ListCell   *lc;

	foreach(lc, vars)
	{
		Var		   *var = lfirst_node(Var, lc);

		if (var->varno != uses->rel->relid)
			continue;
		if (var->varattno > 0)
			uses->read = bms_add_member(uses->read, var->varattno);
		else
			uses->reads_all = true;
	}
}

/* Keep the largest, the largest first. */
static void
note_partition(RelationUses *uses, Index partition)
{
	RelOptInfo **rels = uses->root->simple_rel_array;
	int			place = uses->num_partitions;

	if (place < MAX_PARTITIONS_ASKED)
		uses->num_partitions++;
	else if (rels[uses->partitions[--place]]->tuples >= rels[partition]->tuples)
		return;
	for (; place > 0 && rels[uses->partitions[place - 1]]->tuples < rels[partition]->tuples; place--)
		uses->partitions[place] = uses->partitions[place - 1];
	uses->partitions[place] = partition;
}

/* A partitioned table has the pages of those partitions that are read. */
static void
count_pages(RelationUses *uses, bool partitioned)
{
	PlannerInfo *root = uses->root;

	uses->pages = uses->rel->pages;
	uses->tuples = uses->rel->tuples;
	if (!partitioned)
		return;
	uses->tuples = 0;
	for (int i = 1; root->append_rel_array && i < root->simple_rel_array_size; i++)
	{
		AppendRelInfo *member = root->append_rel_array[i];
		RelOptInfo *rel = root->simple_rel_array[i];
		Index		parent = member ? member->parent_relid : 0;

		if (rel == NULL || rel->pages == 0)
			continue;
		while (parent != 0 && parent != uses->rel->relid)
			parent = root->append_rel_array[parent] ?
				root->append_rel_array[parent]->parent_relid : 0;
		if (parent == 0)
			continue;
		uses->pages += rel->pages;
		uses->tuples += rel->tuples;
		note_partition(uses, i);
	}
}

/* Can the relation have an index, and may one be worth it? */
static bool
worth_it(RelationUses *uses, RangeTblEntry *rte)
{
	HeapTuple	tuple;
	Form_pg_class form;
	bool		fits;

	if (!IS_SIMPLE_REL(uses->rel) || rte->rtekind != RTE_RELATION ||
		rte->tablesample || rte->relid < FirstNormalObjectId)
		return false;
	if (uses->rel->reloptkind == RELOPT_OTHER_MEMBER_REL)
	{
		Oid			parent = uses->root->append_rel_array[uses->rel->relid]->parent_reloid;

		/* a partition has its part of an index of the whole */
		if (OidIsValid(parent) && get_rel_relkind(parent) == RELKIND_PARTITIONED_TABLE)
			return false;
	}
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(rte->relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_class) GETSTRUCT(tuple);
	uses->relid = rte->relid;
	uses->owner = form->relowner;
	fits = form->relpersistence != RELPERSISTENCE_TEMP &&
		(rte->inh ? form->relkind == RELKIND_PARTITIONED_TABLE :
		 form->relkind == RELKIND_RELATION || form->relkind == RELKIND_MATVIEW);
	ReleaseSysCache(tuple);
	if (!fits)
		return false;
	count_pages(uses, rte->inh);
	return uses->pages >= MIN_TABLE_PAGES;
}

void
perfopt_candidates_collect(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte,
						   CandidateList *candidates)
{
	RelationUses uses = {.root = root,.rel = rel,.constants = candidates->constants};

	if (!worth_it(&uses, rte))
		return;
	perfopt_collect_clauses(&uses);
	collect_order(&uses);
	collect_columns(&uses);
	perfopt_candidates_btree(&uses, candidates);
	perfopt_candidates_gin(&uses, candidates);
	perfopt_candidates_brin(&uses, candidates);
}
