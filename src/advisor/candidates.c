/*
 * candidates.c
 *		Which one- and two-column btree indexes could help a statement.
 *
 * Called from the planner while it makes the paths of a base relation, when
 * predicates have the form in which it matches them to indexes: restrictions
 * are distributed to their relations, and equalities are merged into classes.
 * Each column of the relation that could use an index is noted with its use:
 * compared for equality (with a constant, a parameter, an array or another
 * relation), compared for a range, or sorted by.  The candidates are the single
 * columns, and pairs with an equality first: equality and equality (the more
 * distinct column first, and so useful alone), equality and range, equality
 * and sort column.
 *
 * Left out: partitioned tables and inheritance parents (an index on those
 * can't be built concurrently in one statement), and tables that are read in
 * no time anyway.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/transam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_statistic.h"
#include "commands/defrem.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

/* Tables with fewer pages never get advice. */
#define MIN_TABLE_PAGES		10

/* Columns looked at of one relation. */
#define MAX_USES			16

typedef struct ColumnUse
{
	AttrNumber	attnum;
	bool		equality;
	bool		range;
	bool		sort;
} ColumnUse;

typedef struct RelationUses
{
	RelOptInfo *rel;
	int			num;
	ColumnUse	columns[MAX_USES];
} RelationUses;

/* The relation's column that an expression is, or NULL. */
static Var *
column_of(RelOptInfo *rel, Node *node)
{
	Var		   *var;

	while (node && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	if (node == NULL || !IsA(node, Var))
		return NULL;
	var = (Var *) node;
	if (var->varno != rel->relid || var->varlevelsup != 0 || var->varattno <= 0)
		return NULL;
	return var;
}

static ColumnUse *
use_of(RelationUses *uses, AttrNumber attnum)
{
	for (int i = 0; i < uses->num; i++)
		if (uses->columns[i].attnum == attnum)
			return &uses->columns[i];
	if (uses->num == MAX_USES)
		return NULL;
	memset(&uses->columns[uses->num], 0, sizeof(ColumnUse));
	uses->columns[uses->num].attnum = attnum;
	return &uses->columns[uses->num++];
}

/* The operator family a btree index on the column would have by default. */
static Oid
default_opfamily(Oid type)
{
	Oid			opclass = GetDefaultOpClass(type, BTREE_AM_OID);

	return OidIsValid(opclass) ? get_opclass_family(opclass) : InvalidOid;
}

static void
note_comparison(RelationUses *uses, PlannerInfo *root, Node *left, Node *right, Oid opno,
				Oid inputcollid)
{
	Var		   *var = column_of(uses->rel, left);
	Node	   *other = right;
	Oid			opfamily;
	int			strategy;
	ColumnUse  *use;

	if (var == NULL)
	{
		var = column_of(uses->rel, right);
		other = left;
		opno = get_commutator(opno);
	}
	if (var == NULL || !OidIsValid(opno) ||
		bms_is_member(uses->rel->relid, pull_varnos(root, other)) ||
		contain_volatile_functions(other))
		return;
	if (OidIsValid(inputcollid) && OidIsValid(var->varcollid) &&
		inputcollid != var->varcollid)
		return;
	opfamily = default_opfamily(var->vartype);
	if (!OidIsValid(opfamily))
		return;
	strategy = get_op_opfamily_strategy(opno, opfamily);
	if (strategy == 0 || (use = use_of(uses, var->varattno)) == NULL)
		return;
	if (strategy == BTEqualStrategyNumber)
		use->equality = true;
	else
		use->range = true;
}

static void
note_clauses(RelationUses *uses, PlannerInfo *root, List *clauses)
{
	ListCell   *lc;

	foreach(lc, clauses)
	{
		Expr	   *clause = lfirst_node(RestrictInfo, lc)->clause;

		if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
		{
			OpExpr	   *op = (OpExpr *) clause;

			note_comparison(uses, root, linitial(op->args), lsecond(op->args), op->opno,
							op->inputcollid);
		}
		else if (IsA(clause, ScalarArrayOpExpr) && ((ScalarArrayOpExpr *) clause)->useOr)
		{
			ScalarArrayOpExpr *op = (ScalarArrayOpExpr *) clause;

			if (column_of(uses->rel, linitial(op->args)))
				note_comparison(uses, root, linitial(op->args), lsecond(op->args), op->opno,
								op->inputcollid);
		}
	}
}

/* The relation's column in an equivalence class, if it can be indexed so. */
static Var *
column_in_class(RelOptInfo *rel, EquivalenceClass *ec)
{
	ListCell   *lc;

	if (ec->ec_has_volatile)
		return NULL;
	foreach(lc, ec->ec_members)
	{
		EquivalenceMember *em = lfirst(lc);
		Var		   *var = em->em_is_child ? NULL : column_of(rel, (Node *) em->em_expr);

		if (var && list_member_oid(ec->ec_opfamilies, default_opfamily(var->vartype)) &&
			(!OidIsValid(var->varcollid) || var->varcollid == ec->ec_collation))
			return var;
	}
	return NULL;
}

/* Columns equal to a column of another relation. */
static void
note_joins(RelationUses *uses, PlannerInfo *root)
{
	ListCell   *lc;

	foreach(lc, root->eq_classes)
	{
		EquivalenceClass *ec = lfirst(lc);
		Var		   *var;
		ColumnUse  *use;

		/* a class with a constant has made restrictions already */
		if (ec->ec_merged || ec->ec_has_const ||
			bms_membership(ec->ec_relids) != BMS_MULTIPLE)
			continue;
		var = column_in_class(uses->rel, ec);
		if (var && (use = use_of(uses, var->varattno)) != NULL)
			use->equality = true;
	}
}

/* Only the first sort column counts: an index has at most two. */
static void
note_sort(RelationUses *uses, PlannerInfo *root)
{
	Var		   *var;
	ColumnUse  *use;

	if (root->query_pathkeys == NIL)
		return;
	var = column_in_class(uses->rel, ((PathKey *) linitial(root->query_pathkeys))->pk_eclass);
	if (var && (use = use_of(uses, var->varattno)) != NULL)
		use->sort = true;
}

static double
distinct_values(Oid relid, AttrNumber attnum, double tuples)
{
	HeapTuple	tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(relid),
										Int16GetDatum(attnum), BoolGetDatum(false));
	double		distinct = 0;

	if (HeapTupleIsValid(tuple))
	{
		distinct = ((Form_pg_statistic) GETSTRUCT(tuple))->stadistinct;
		if (distinct < 0)
			distinct = -distinct * tuples;
		ReleaseSysCache(tuple);
	}
	return distinct;
}

static void
add_candidate(List **candidates, Oid relid, AttrNumber first, AttrNumber second,
			  bool order_only)
{
	AttrNumber	attnums[] = {first, second};
	IndexSpec  *spec = perfopt_index_spec_of_columns(relid, second ? 2 : 1, attnums);
	ListCell   *lc;

	if (spec == NULL)
		return;
	spec->order_only = order_only;

	/* a first column meets an equality, or is the only one */
	spec->any_direction = true;
	foreach(lc, *candidates)
	{
		if (perfopt_index_spec_equal(lfirst(lc), spec))
		{
			pfree(spec);
			return;
		}
	}
	*candidates = lappend(*candidates, spec);
}

void
perfopt_candidates_collect(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte,
						   List **candidates, MemoryContext context)
{
	RelationUses uses = {.rel = rel};
	MemoryContext old_context;
	char		relkind;

	if (rel->reloptkind != RELOPT_BASEREL || rte->rtekind != RTE_RELATION ||
		rte->inh || rte->tablesample || rte->relid < FirstNormalObjectId ||
		rel->pages < MIN_TABLE_PAGES)
		return;
	relkind = get_rel_relkind(rte->relid);
	if ((relkind != RELKIND_RELATION && relkind != RELKIND_MATVIEW) ||
		get_rel_persistence(rte->relid) == RELPERSISTENCE_TEMP)
		return;

	note_clauses(&uses, root, rel->baserestrictinfo);
	note_clauses(&uses, root, rel->joininfo);
	note_joins(&uses, root);
	note_sort(&uses, root);

	old_context = MemoryContextSwitchTo(context);
	for (int i = 0; i < uses.num; i++)
	{
		ColumnUse  *a = &uses.columns[i];

		add_candidate(candidates, rte->relid, a->attnum, 0,
					  !a->equality && !a->range);
		for (int j = 0; a->equality && j < uses.num; j++)
		{
			ColumnUse  *b = &uses.columns[j];

			if (i == j)
				continue;
			if (b->equality &&
				distinct_values(rte->relid, a->attnum, rel->tuples) <
				distinct_values(rte->relid, b->attnum, rel->tuples))
				continue;
			add_candidate(candidates, rte->relid, a->attnum, b->attnum, false);
		}
	}
	MemoryContextSwitchTo(old_context);
}
