/*
 * candidates_clauses.c
 *		The conditions that a statement has on a relation, read as uses of a
 *		B-tree: comparisons with values, arrays and other relations, IS NULL,
 *		boolean columns, patterns that begin with fixed text, row comparisons,
 *		and the arms of ORs; and those that few rows meet.
 *
 * Only functions that are immutable and belong to a superuser or to the owner of
 * the table are taken into an index, as it calls them as that owner.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/candidates.h"

#include "access/stratnum.h"
#include "catalog/pg_am.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "common/compat.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/appendinfo.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/selfuncs.h"

/* Conditions looked at of one relation, or of one arm of an OR. */
#define MAX_USES			16

/* ORs looked at, and the arms that they may have. */
#define MAX_ORS				3
#define MAX_ARMS			6

/* Nodes of an expression to be indexed. */
#define MAX_NODES			20

/* Levels of partitions that are followed. */
#define MAX_DEPTH			8

/* A partial index is for at most so many of the rows. */
#define CONSTANT_SHARE		0.3
#define TEST_SHARE			0.5

/*
 * A constant that a column is compared with is one of so many values at most,
 * and so much rarer than they are on average: of values that are as frequent as
 * each other, the next run of the statement may have another one.
 */
#define MAX_VALUES			20
#define RARER				0.8

/* ... and one that so many meet leaves out rows, rather than finding some. */
#define MOST_ROWS			0.5

/*
 * Expressions
 */
typedef struct ExprShape
{
	Index		relid;
	int			nodes;
	bool		constants;
} ExprShape;

/*
 * Turn all variables into the table's, in a copy; NULL comes out where that
 * can't be.
 */
static bool
shape_walker(Node *node, ExprShape *shape)
{
	if (node == NULL)
		return false;
	if (++shape->nodes > MAX_NODES)
		return true;
	if (IsA(node, Const))
		shape->constants = true;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varno != shape->relid || var->varlevelsup != 0 || var->varattno <= 0 ||
			perfopt_var_is_nullable(var))
			return true;
	}
	return expression_tree_walker(node, shape_walker, shape);
}

static bool
turn_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		/* ruleutils looks at the latter two */
		var->varno = 1;
		var->varnosyn = 1;
		var->varattnosyn = var->varattno;
		return false;
	}
	return expression_tree_walker(node, turn_walker, context);
}

static Node *
over_table(const RelationUses *uses, Node *node, bool *constants)
{
	ExprShape	shape = {.relid = uses->rel->relid};

	if (shape_walker(node, &shape))
		return NULL;
	*constants = shape.constants;
	node = copyObject(node);
	(void) turn_walker(node, NULL);
	return node;
}

/*
 * What an index on the relation would have as its key to match this; NULL:
 * nothing.
 */
Node *
perfopt_collect_key(const RelationUses *uses, Node *expr, bool *of_constants)
{
	bool		constants;

	while (expr && IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	*of_constants = false;
	if (expr == NULL || IsA(expr, Const) || IsA(expr, Param) ||
		!bms_is_member(uses->rel->relid, pull_varnos(uses->root, expr)) ||
		(expr = over_table(uses, expr, &constants)) == NULL)
		return NULL;
	if (IsA(expr, Var))
		return expr;
	*of_constants = constants;
	return perfopt_expression_is_trusted(expr, uses->owner) ? expr : NULL;
}

/*
 * Statistics.  A partitioned table has none unless somebody has run ANALYZE on
 * it, so those of some partitions are asked instead.
 */
static Node *
as_of_partition(const RelationUses *uses, Node *node, Index partition)
{
	AppendRelInfo *down[MAX_DEPTH];
	int			num = 0;

	for (Index i = partition; i != uses->rel->relid; i = down[num - 1]->parent_relid)
	{
		if (num == MAX_DEPTH)
			return node;
		down[num++] = uses->root->append_rel_array[i];
	}
	while (num > 0)
		node = adjust_appendrel_attrs(uses->root, node, 1, &down[--num]);
	return node;
}

/* Of clauses that all must hold. */
static Selectivity
selectivity_of(const RelationUses *uses, List *clauses)
{
	double		rows = 0;
	double		met = 0;

	if (uses->num_partitions == 0)
		return clauselist_selectivity(uses->root, clauses, 0, JOIN_INNER, NULL);
	for (int i = 0; i < uses->num_partitions; i++)
	{
		Index		partition = uses->partitions[i];
		double		tuples = Max(uses->root->simple_rel_array[partition]->tuples, 1);
		List	   *own = NIL;
		ListCell   *lc;

		foreach(lc, clauses)
			own = lappend(own, as_of_partition(uses, lfirst(lc), partition));
		rows += tuples;
		met += tuples * clauselist_selectivity(uses->root, own, 0, JOIN_INNER, NULL);
	}
	return met / rows;
}

/* Negative: unknown. */
static double
distinct_values(const RelationUses *uses, Node *expr)
{
	double		most = -1;

	for (int i = 0; i < Max(uses->num_partitions, 1); i++)
	{
		VariableStatData vardata;
		bool		is_default;
		double		distinct;

		examine_variable(uses->root, uses->num_partitions == 0 ? expr :
						 as_of_partition(uses, expr, uses->partitions[i]), 0, &vardata);
		distinct = get_variable_numdistinct(&vardata, &is_default);
		ReleaseVariableStats(vardata);
		if (!is_default)
			most = Max(most, Max(distinct, 1));
	}
	return most;
}

/* Rows found by one value of another relation. */
static Selectivity
lookup_selectivity(const RelationUses *uses, Node *expr)
{
	double		distinct = distinct_values(uses, expr);

	return distinct < 0 ? 0.005 : 1 / distinct;
}

/*
 * Conditions
 */

/* NULL: there are enough. */
static IndexUse *
add_use(List **into, UseKind kind, Node *expr, Oid collation, bool of_constants)
{
	IndexUse   *use;

	if (list_length(*into) >= MAX_USES)
		return NULL;
	use = palloc0(sizeof(IndexUse));
	use->kind = kind;
	use->expr = expr;
	use->collation = collation;
	use->of_constants = of_constants;
	use->selectivity = 1;
	*into = lappend(*into, use);
	return use;
}

static int
default_strategy(Oid opno, Oid type)
{
	Oid			opclass = GetDefaultOpClass(type, BTREE_AM_OID);

	return OidIsValid(opclass) ? get_op_opfamily_strategy(opno, get_opclass_family(opclass)) : 0;
}

/* Can it be compared with the relation? */
static bool
is_comparable(const RelationUses *uses, Node *other)
{
	return !bms_is_member(uses->rel->relid, pull_varnos(uses->root, other)) &&
		!contain_volatile_functions(other);
}

static IndexUse *
read_comparison(const RelationUses *uses, Node *left, Node *right, Oid opno, Oid collation,
				bool array, List **into)
{
	bool		of_constants;
	Node	   *key = perfopt_collect_key(uses, left, &of_constants);
	Node	   *own = left;
	Node	   *other = right;
	int			strategy;
	IndexUse   *use;

	if (key == NULL && !array)
	{
		key = perfopt_collect_key(uses, right, &of_constants);
		own = right;
		other = left;
		opno = get_commutator(opno);
	}
	if (key == NULL || !OidIsValid(opno) || !is_comparable(uses, other) ||
		(strategy = default_strategy(opno, exprType(key))) == 0)
		return NULL;
	use = add_use(into, strategy != BTEqualStrategyNumber ? USE_RANGE :
				  array ? USE_ANY_OF : USE_EQUAL, key, collation, of_constants);
	if (use)
	{
		use->others = pull_varnos(uses->root, other);
		if (use->others && strategy == BTEqualStrategyNumber)
			use->selectivity = lookup_selectivity(uses, own);
	}
	return use;
}

/* (a, b) < (1, 2): pages by key */
static IndexUse *
read_row(const RelationUses *uses, const RowCompareExpr * row, List **into)
{
	IndexUse   *use = NULL;
	int			strategy = 0;

	for (int i = 0; i < list_length(row->largs); i++)
	{
		bool		of_constants;
		Node	   *key = perfopt_collect_key(uses, list_nth(row->largs, i), &of_constants);
		Node	   *other = list_nth(row->rargs, i);
		int			own = key ? default_strategy(list_nth_oid(row->opnos, i), exprType(key)) : 0;

		if (own == 0 || own == BTEqualStrategyNumber || !is_comparable(uses, other) ||
			(use && own != strategy))
			break;
		if (use == NULL)
		{
			use = add_use(into, USE_RANGE, key, list_nth_oid(row->inputcollids, i),
						  of_constants);
			if (use == NULL)
				return NULL;
			strategy = own;
		}
		else
			use->more = lappend(use->more, key);
		use->others = bms_add_members(use->others, pull_varnos(uses->root, other));
	}
	return use;
}

/* Does it begin with text that must be there? */
static bool
begins_fixed(Oid opno, Const *pattern)
{
	char	   *prefix = TextDatumGetCString(pattern->constvalue);
	bool		fixed;

	switch (opno)
	{
		case OID_TEXT_LIKE_OP:
		case OID_BPCHAR_LIKE_OP:
			fixed = prefix[0] != '\0' && strchr("%_\\", prefix[0]) == NULL;
			break;
		case OID_TEXT_REGEXEQ_OP:
		case OID_BPCHAR_REGEXEQ_OP:
			fixed = prefix[0] == '^' && prefix[1] != '\0' &&
				strchr(".[]()*+?{}|^$\\", prefix[1]) == NULL &&
				(prefix[2] == '\0' || strchr("*?{|", prefix[2]) == NULL) &&
				strchr(prefix, '|') == NULL;
			break;
		default:				/* ^@ */
			fixed = prefix[0] != '\0';
	}
	pfree(prefix);
	return fixed;
}

static IndexUse *
read_pattern(const RelationUses *uses, Oid opno, Node *left, Node *right, Oid collation,
			 List **into)
{
	bool		of_constants;
	Node	   *key;
	Oid			type;
	IndexUse   *use;

	if ((opno != OID_TEXT_LIKE_OP && opno != OID_BPCHAR_LIKE_OP &&
		 opno != OID_TEXT_REGEXEQ_OP && opno != OID_BPCHAR_REGEXEQ_OP &&
		 opno != TextPrefixOperator) ||
		!IsA(right, Const) || ((Const *) right)->constisnull ||
		((Const *) right)->consttype != TEXTOID || !begins_fixed(opno, (Const *) right) ||
		(OidIsValid(collation) && !get_collation_isdeterministic(collation)) ||
		(key = perfopt_collect_key(uses, left, &of_constants)) == NULL)
		return NULL;
	type = getBaseType(exprType(key));
	if (type != TEXTOID && type != VARCHAROID && type != BPCHAROID)
		return NULL;
	use = add_use(into, USE_PATTERN, key, exprCollation(key), of_constants);
	if (use && !perfopt_collation_is_c(use->collation))
		use->opclass = type == TEXTOID ? TEXT_BTREE_PATTERN_OPS_OID :
			type == VARCHAROID ? VARCHAR_BTREE_PATTERN_OPS_OID : BPCHAR_BTREE_PATTERN_OPS_OID;
	return use;
}

static IndexUse *
read_test(const RelationUses *uses, Node *arg, UseKind kind, List **into)
{
	bool		of_constants;
	Node	   *key = perfopt_collect_key(uses, arg, &of_constants);

	return key && OidIsValid(GetDefaultOpClass(exprType(key), BTREE_AM_OID)) ?
		add_use(into, kind, key, exprCollation(key), of_constants) : NULL;
}

/* A boolean column as a condition, or NULL. */
static Node *
boolean_column(Node *clause)
{
	if (is_notclause(clause))
		clause = (Node *) get_notclausearg((Expr *) clause);
	else if (IsA(clause, BooleanTest) && (((BooleanTest *) clause)->booltesttype == IS_TRUE ||
										  ((BooleanTest *) clause)->booltesttype == IS_FALSE))
		clause = (Node *) ((BooleanTest *) clause)->arg;
	return IsA(clause, Var) ? clause : NULL;
}

static void
read_clause(const RelationUses *uses, RestrictInfo *rinfo, List **into)
{
	Node	   *clause = (Node *) rinfo->clause;
	IndexUse   *use = NULL;

	if (rinfo->pseudoconstant)
		return;
	if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
	{
		OpExpr	   *op = (OpExpr *) clause;
		Node	   *left = linitial(op->args);
		Node	   *right = lsecond(op->args);

		use = read_comparison(uses, left, right, op->opno, op->inputcollid, false, into);
		if (use == NULL)
			use = read_pattern(uses, op->opno, left, right, op->inputcollid, into);
	}
	else if (IsA(clause, ScalarArrayOpExpr) && ((ScalarArrayOpExpr *) clause)->useOr)
	{
		ScalarArrayOpExpr *op = (ScalarArrayOpExpr *) clause;

		use = read_comparison(uses, linitial(op->args), lsecond(op->args), op->opno,
							  op->inputcollid, true, into);
	}
	else if (IsA(clause, FuncExpr) && ((FuncExpr *) clause)->funcid == F_STARTS_WITH)
	{
		FuncExpr   *call = (FuncExpr *) clause;

		use = read_pattern(uses, TextPrefixOperator, linitial(call->args),
						   lsecond(call->args), call->inputcollid, into);
	}
	else if (IsA(clause, RowCompareExpr))
		use = read_row(uses, (RowCompareExpr *) clause, into);
	else if (IsA(clause, NullTest) && !((NullTest *) clause)->argisrow)
	{
		NullTest   *test = (NullTest *) clause;

		use = read_test(uses, (Node *) test->arg,
						test->nulltesttype == IS_NULL ? USE_ANY_OF : USE_RANGE, into);
	}
	else if (boolean_column(clause))
		use = read_test(uses, boolean_column(clause), USE_EQUAL, into);

	if (use)
	{
		use->clause = rinfo;
		if (use->others == NULL)
			use->selectivity = selectivity_of(uses, list_make1(rinfo));
	}
}

static bool
is_plain_range(const IndexUse *use)
{
	return use->kind == USE_RANGE && use->others == NULL && use->more == NIL;
}

/*
 * From and to is one range, whose selectivity is not that of two conditions;
 * and that there is a value is said by any other condition.
 */
static void
merge_ranges(const RelationUses *uses, List **into)
{
	List	   *merged = NIL;
	ListCell   *lc;

	foreach(lc, *into)
	{
		IndexUse   *use = lfirst(lc);
		List	   *clauses;
		ListCell   *other;
		bool		is_first = true;

		if (is_plain_range(use))
		{
			clauses = list_make1(use->clause);
			foreach(other, *into)
			{
				IndexUse   *second = lfirst(other);

				if (second == use || !is_plain_range(second) ||
					!equal(second->expr, use->expr))
					continue;
				clauses = lappend(clauses, second->clause);
				if (foreach_current_index(other) < foreach_current_index(lc))
					is_first = false;
			}
			if (!is_first)
				continue;
			use->selectivity = selectivity_of(uses, clauses);
			if (list_length(clauses) > 1)
				use->clause = NULL;
		}
		merged = lappend(merged, use);
	}
	*into = merged;
}

/* The arms of an OR, if there is something for an index in each. */
static void
read_or(RelationUses *uses, RestrictInfo *rinfo)
{
	List	   *arms = NIL;
	ListCell   *lc;

	if (list_length(uses->ors) == MAX_ORS ||
		list_length(((BoolExpr *) rinfo->orclause)->args) > MAX_ARMS)
		return;
	foreach(lc, ((BoolExpr *) rinfo->orclause)->args)
	{
		Node	   *arm = lfirst(lc);
		List	   *arm_uses = NIL;

		if (IsA(arm, RestrictInfo))
			read_clause(uses, (RestrictInfo *) arm, &arm_uses);
		else if (is_andclause(arm))
		{
			ListCell   *part;

			foreach(part, ((BoolExpr *) arm)->args)
				if (IsA(lfirst(part), RestrictInfo))
				read_clause(uses, lfirst(part), &arm_uses);
		}
		if (arm_uses == NIL)
			return;
		merge_ranges(uses, &arm_uses);
		arms = lappend(arms, arm_uses);
	}
	uses->ors = lappend(uses->ors, arms);
}

/* Columns equal to something of another relation. */
static void
read_classes(RelationUses *uses)
{
	int			i = -1;

	while ((i = bms_next_member(uses->rel->eclass_indexes, i)) >= 0)
	{
		EquivalenceClass *ec = list_nth(uses->root->eq_classes, i);
		ListCell   *lc;

		/* a class with a constant has made restrictions already */
		if (ec->ec_has_const || ec->ec_has_volatile ||
			bms_membership(ec->ec_relids) != BMS_MULTIPLE)
			continue;
		foreach(lc, ec->ec_members)
		{
			EquivalenceMember *em = lfirst(lc);
			bool		of_constants;
			Node	   *key;
			Oid			opclass;
			IndexUse   *use;

			if (!bms_equal(em->em_relids, uses->rel->relids))
				continue;
			key = perfopt_collect_key(uses, (Node *) em->em_expr, &of_constants);
			opclass = key ? GetDefaultOpClass(exprType(key), BTREE_AM_OID) : InvalidOid;
			if (!OidIsValid(opclass) ||
				!list_member_oid(ec->ec_opfamilies, get_opclass_family(opclass)) ||
				(use = add_use(&uses->uses, USE_EQUAL, key, ec->ec_collation,
							   of_constants)) == NULL)
				continue;
			use->others = bms_del_member(bms_copy(ec->ec_relids), uses->rel->relid);
			use->selectivity = lookup_selectivity(uses, (Node *) em->em_expr);
			break;
		}
	}
}

/*
 * Conditions for partial indexes
 */

/* Did the statement have this value before it was planned? */
static bool
was_written(const RelationUses *uses, Datum value, int16 len, bool byval)
{
	ListCell   *lc;

	foreach(lc, uses->constants)
	{
		Const	   *written = lfirst_node(Const, lc);

		if (written->constlen == len && written->constbyval == byval &&
			datumIsEqual(written->constvalue, value, byval, len))
			return true;
	}
	return false;
}

/* How many values is it?  None, if one of them was not. */
static int
num_written(const RelationUses *uses, Const *constant)
{
	Oid			element = get_element_type(constant->consttype);
	ArrayType  *array;
	Datum	   *values;
	bool	   *nulls;
	int			num;
	int16		len;
	bool		byval;
	char		align;

	if (constant->constisnull)
		return 0;
	if (!OidIsValid(element))
		return was_written(uses, constant->constvalue, constant->constlen,
						   constant->constbyval) ? 1 : 0;
	get_typlenbyvalalign(element, &len, &byval, &align);
	array = DatumGetArrayTypeP(constant->constvalue);
	deconstruct_array(array, element, len, byval, align, &values, &nulls, &num);
	for (int i = 0; i < num; i++)
		if (nulls[i] || !was_written(uses, values[i], len, byval))
			return 0;
	return num;
}

/*
 * A column that is (not) one of a few values, which the statement has.  The
 * share of rows that they had on average is returned, or 0.
 */
static double
share_of_constant(const RelationUses *uses, Oid opno, List *args, bool *unequal)
{
	Node	   *left = linitial(args);
	Node	   *right = lsecond(args);
	double		distinct;

	*unequal = false;
	while (IsA(left, RelabelType))
		left = (Node *) ((RelabelType *) left)->arg;
	if (!IsA(left, Var) || !IsA(right, Const))
		return 0;
	if (default_strategy(opno, exprType(left)) != BTEqualStrategyNumber)
	{
		Oid			negator = get_negator(opno);

		if (!OidIsValid(negator) ||
			default_strategy(negator, exprType(left)) != BTEqualStrategyNumber)
			return 0;
		*unequal = true;
	}
	distinct = distinct_values(uses, left);
	return distinct > 0 && distinct <= MAX_VALUES ?
		num_written(uses, (Const *) right) / distinct : 0;
}

static void
read_condition(RelationUses *uses, RestrictInfo *rinfo)
{
	Node	   *clause = (Node *) rinfo->clause;
	double		share = 0;
	double		most = TEST_SHARE;
	bool		unequal = false;
	bool		constants;
	Selectivity selectivity;
	RowCondition *condition;
	Node	   *expr;

	if (rinfo->pseudoconstant)
		return;
	if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
		share = share_of_constant(uses, ((OpExpr *) clause)->opno,
								  ((OpExpr *) clause)->args, &unequal);
	else if (IsA(clause, ScalarArrayOpExpr))
	{
		share = share_of_constant(uses, ((ScalarArrayOpExpr *) clause)->opno,
								  ((ScalarArrayOpExpr *) clause)->args, &unequal);
		if (((ScalarArrayOpExpr *) clause)->useOr == unequal)
			share = 0;
	}
	if (share > 0)
		most = unequal ? CONSTANT_SHARE : Min(share * RARER, CONSTANT_SHARE);
	else if (boolean_column(clause) == NULL &&
			 !(IsA(clause, NullTest) && !((NullTest *) clause)->argisrow &&
			   IsA(((NullTest *) clause)->arg, Var)))
		return;
	selectivity = selectivity_of(uses, list_make1(rinfo));
	if (selectivity > most || (expr = over_table(uses, clause, &constants)) == NULL ||
		!perfopt_expression_is_trusted(expr, uses->owner))
		return;
	condition = palloc(sizeof(RowCondition));
	condition->clause = rinfo;
	condition->expr = expr;
	condition->selectivity = selectivity;
	condition->of_constants = share > 0;
	uses->conditions = lappend(uses->conditions, condition);
}

typedef struct FilterShape
{
	const RelationUses *uses;
	bool		constants;
	bool		params;			/* or constants that were not written */
} FilterShape;

static bool
filter_walker(Node *node, FilterShape *shape)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param))
		shape->params = true;
	if (IsA(node, Const))
	{
		shape->constants = true;
		if (num_written(shape->uses, (Const *) node) == 0)
			shape->params = true;
	}
	return expression_tree_walker(node, filter_walker, shape);
}

/* Statements may write the same comparison of two columns either way. */
static void
turn_comparison(Node *expr)
{
	OpExpr	   *op = (OpExpr *) expr;

	if (IsA(expr, OpExpr) && list_length(op->args) == 2 && IsA(linitial(op->args), Var) &&
		IsA(lsecond(op->args), Var) && OidIsValid(get_commutator(op->opno)) &&
		linitial_node(Var, op->args)->varattno > lsecond_node(Var, op->args)->varattno)
		CommuteOpExpr(op);
}

/*
 * A condition that no key can be for, as it compares columns of the row or is of
 * no operator class.  Constants of those that most rows do not meet are searched
 * for, and so are others the next time; what leaves out some rows is rather the
 * same each time.
 */
static void
read_filter(RelationUses *uses, RestrictInfo *rinfo)
{
	FilterShape shape = {.uses = uses};
	Selectivity selectivity;
	RowCondition *filter;
	Node	   *expr;
	bool		constants;

	if (rinfo->pseudoconstant || rinfo->orclause)
		return;
	(void) filter_walker((Node *) rinfo->clause, &shape);
	if (shape.params)
		return;
	selectivity = selectivity_of(uses, list_make1(rinfo));
	if ((shape.constants && selectivity < MOST_ROWS) ||
		(expr = over_table(uses, (Node *) rinfo->clause, &constants)) == NULL ||
		!perfopt_expression_is_trusted(expr, uses->owner))
		return;
	turn_comparison(expr);
	filter = palloc(sizeof(RowCondition));
	filter->clause = rinfo;
	filter->expr = expr;
	filter->selectivity = selectivity;
	filter->of_constants = shape.constants;
	uses->filters = lappend(uses->filters, filter);
}

static int
rarer_first(const ListCell *a, const ListCell *b)
{
	Selectivity left = ((const RowCondition *) lfirst(a))->selectivity;
	Selectivity right = ((const RowCondition *) lfirst(b))->selectivity;

	return left < right ? -1 : left > right ? 1 : 0;
}

void
perfopt_collect_clauses(RelationUses *uses)
{
	ListCell   *lc;

	foreach(lc, uses->rel->baserestrictinfo)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		int			known = list_length(uses->uses) + list_length(uses->conditions);

		if (rinfo->orclause)
			read_or(uses, rinfo);
		else
			read_clause(uses, rinfo, &uses->uses);
		read_condition(uses, rinfo);
		if (list_length(uses->uses) + list_length(uses->conditions) == known)
			read_filter(uses, rinfo);
	}
	merge_ranges(uses, &uses->uses);
	list_sort(uses->conditions, rarer_first);
	list_sort(uses->filters, rarer_first);
	foreach(lc, uses->rel->joininfo)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);

		if (rinfo->orclause)
			read_or(uses, rinfo);
		else
			read_clause(uses, rinfo, &uses->uses);
	}
	read_classes(uses);
}
