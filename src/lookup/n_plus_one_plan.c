/*
 * n_plus_one_plan.c
 *		What the plan of a repeated statement tells about it: relations, the
 *		columns compared with parameters, columns of the result.
 *
 * This is for the call to use instead, so what is not a plain look-up in one
 * relation is only marked as opaque.  Plans are read, never changed, and no
 * catalog is asked: an error here would fail a user's statement.
 */
#include "postgres.h"

#include "lookup/n_plus_one_internal.h"

#include "access/transam.h"
#include "catalog/pg_class.h"
#include "common/compat.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "utils/builtins.h"

/* ---------------------------------------------------------------------
 * Relations
 */

/* A table with rows, and none of the system's. */
static inline bool
is_table(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_RELATION && rte->relid >= FirstNormalObjectId &&
		(rte->relkind == RELKIND_RELATION || rte->relkind == RELKIND_PARTITIONED_TABLE ||
		 rte->relkind == RELKIND_MATVIEW || rte->relkind == RELKIND_FOREIGN_TABLE);
}

/* The table that a plan writes to, or InvalidOid. */
Oid
perfopt_loop_written(PlannedStmt *plan)
{
	Index		index = perfopt_result_relation(plan);

	if (index == 0 || index > list_length(plan->rtable))
		return InvalidOid;
	return ((RangeTblEntry *) list_nth(plan->rtable, index - 1))->relid;
}

/* Are functions called that are none of the system's? */
static bool
calls_function(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid >= FirstNormalObjectId)
		return true;
	if (IsA(node, RangeTblFunction))
		return calls_function(((RangeTblFunction *) node)->funcexpr, context);
	return expression_tree_walker(node, calls_function, context);
}

/* Is there an OFFSET, at the top or in a subquery? */
static bool
has_offset(Plan *plan)
{
	if (plan == NULL)
		return false;
	if (IsA(plan, Limit) && ((Limit *) plan)->limitOffset)
		return true;
	if (IsA(plan, SubqueryScan) && has_offset(((SubqueryScan *) plan)->subplan))
		return true;
	return has_offset(outerPlan(plan)) || has_offset(innerPlan(plan));
}

void
perfopt_loop_relations(PlannedStmt *plan, PlanRelations *relations)
{
	ListCell   *lc;

	memset(relations, 0, sizeof(*relations));
	relations->pages = has_offset(plan->planTree);
	relations->calls = calls_function((Node *) plan->planTree->targetlist, NULL) ||
		(IsA(plan->planTree, FunctionScan) &&
		 calls_function((Node *) ((FunctionScan *) plan->planTree)->functions, NULL));
	relations->locks = plan->rowMarks != NIL || plan->hasModifyingCTE;
	foreach(lc, plan->rtable)
	{
		RangeTblEntry *rte = lfirst(lc);

		if (!is_table(rte))
			continue;
		relations->reads = true;
		if (relations->count < PLAN_RELATIONS)
			relations->relids[relations->count] = rte->relid;
		if (relations->count <= PLAN_RELATIONS)
			relations->count++;
	}

	if (plan->commandType == CMD_INSERT && IsA(plan->planTree, ModifyTable))
	{
		Plan	   *rows = outerPlan(plan->planTree);
		Index		index = perfopt_result_relation(plan);
		RangeTblEntry *rte = index > 0 && index <= list_length(plan->rtable) ?
		list_nth(plan->rtable, index - 1) : NULL;

		relations->single_insert = rte && is_table(rte) && rows &&
			rte->relkind != RELKIND_FOREIGN_TABLE &&
			IsA(rows, Result) && outerPlan(rows) == NULL && !plan->hasModifyingCTE;
	}
}

/* ---------------------------------------------------------------------
 * Shape
 */

typedef struct ShapeContext
{
	PlannedStmt *plan;
	const char *source;
	LoopShape  *shape;
	Scan	   *scan;			/* the one at the bottom */
} ShapeContext;

/*
 * The column of the scanned relation that an expression of a plan is, or 0; so
 * always 0 where no scan was understood.
 */
static AttrNumber
resolve_column(ShapeContext *context, Plan *plan, Node *expr)
{
	while (expr && context->scan)
	{
		Var		   *var;

		if (IsA(expr, RelabelType))
		{
			expr = (Node *) ((RelabelType *) expr)->arg;
			continue;
		}
		if (!IsA(expr, Var))
			return 0;
		var = (Var *) expr;
		if (var->varno == OUTER_VAR)
		{
			TargetEntry *entry;

			plan = plan ? outerPlan(plan) : NULL;
			if (plan == NULL || var->varattno < 1 ||
				var->varattno > list_length(plan->targetlist))
				return 0;
			entry = list_nth(plan->targetlist, var->varattno - 1);
			expr = (Node *) entry->expr;
			continue;
		}
		if (var->varno == INDEX_VAR)
		{
			IndexOnlyScan *scan = (IndexOnlyScan *) context->scan;
			TargetEntry *entry;

			if (!IsA(scan, IndexOnlyScan) || var->varattno < 1 ||
				var->varattno > list_length(scan->indextlist))
				return 0;
			entry = list_nth(scan->indextlist, var->varattno - 1);
			expr = (Node *) entry->expr;
			continue;
		}
		if (var->varno == context->scan->scanrelid && var->varattno > 0)
			return var->varattno;
		return 0;
	}
	return 0;
}

static Node *
strip(Node *expr)
{
	while (expr && IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	return expr;
}

static bool
is_value(Node *expr)
{
	expr = strip(expr);
	return expr && (IsA(expr, Const) ||
					(IsA(expr, Param) && ((Param *) expr)->paramkind == PARAM_EXTERN));
}

/* Is it written as a parameter?  Planning may have put its value in place. */
static bool
is_parameter(ShapeContext *context, Node *expr)
{
	expr = strip(expr);
	if (IsA(expr, Param))
		return true;
	return context->source && ((Const *) expr)->location >= 0 &&
		(size_t) ((Const *) expr)->location < strlen(context->source) &&
		context->source[((Const *) expr)->location] == '$';
}

/* Columns compared with a value; whether for equality is found out later. */
static void
add_conditions(ShapeContext *context, List *quals)
{
	LoopShape  *shape = context->shape;
	ListCell   *lc;

	foreach(lc, quals)
	{
		OpExpr	   *clause = lfirst(lc);
		Node	   *left;
		Node	   *right;
		AttrNumber	column = 0;

		if (IsA(clause, OpExpr) && list_length(clause->args) == 2)
		{
			left = linitial(clause->args);
			right = lsecond(clause->args);
			if (is_value(left))
				column = resolve_column(context, NULL, right);
			else if (is_value(right))
				column = resolve_column(context, NULL, left);
		}
		if (column == 0 || shape->num_keys == SHAPE_KEYS)
			shape->flags |= SHAPE_FILTER;
		else
		{
			ShapeKey   *key = &shape->keys[shape->num_keys++];

			key->attnum = column;
			key->parameter = is_parameter(context, is_value(left) ? left : right);
			key->op = clause->opno;
			key->type = exprType(left);
		}
	}
}

static void
add_scan(ShapeContext *context, Plan *plan)
{
	LoopShape  *shape = context->shape;
	Scan	   *scan = (Scan *) plan;
	List	   *conditions = NIL;
	RangeTblEntry *rte;

	switch (nodeTag(plan))
	{
		case T_SeqScan:
		case T_TidScan:
			break;
		case T_IndexScan:
			conditions = ((IndexScan *) plan)->indexqualorig;
			break;
		case T_IndexOnlyScan:
			conditions = ((IndexOnlyScan *) plan)->recheckqual;
			break;
		case T_BitmapHeapScan:
			conditions = ((BitmapHeapScan *) plan)->bitmapqualorig;
			break;
		default:
			shape->flags |= SHAPE_OPAQUE;
			return;
	}
	if (scan->scanrelid == 0 || scan->scanrelid > list_length(context->plan->rtable))
	{
		shape->flags |= SHAPE_OPAQUE;
		return;
	}
	rte = list_nth(context->plan->rtable, scan->scanrelid - 1);
	shape->relid = rte->relid;
	context->scan = scan;

	add_conditions(context, conditions);
	add_conditions(context, plan->qual);
	if (shape->num_keys == 0)
		shape->flags |= SHAPE_OPAQUE;
}

static void
add_sort(ShapeContext *context, Sort *sort)
{
	LoopShape  *shape = context->shape;
	TargetEntry *entry;

	if (sort->numCols != 1 || sort->sortColIdx[0] < 1 ||
		sort->sortColIdx[0] > list_length(sort->plan.targetlist))
		return;
	entry = list_nth(sort->plan.targetlist, sort->sortColIdx[0] - 1);
	shape->order = resolve_column(context, &sort->plan, (Node *) entry->expr);
	shape->order_op = sort->sortOperators[0];
	shape->nulls_first = sort->nullsFirst[0];
}

static void
add_limit(ShapeContext *context, Limit *limit)
{
	Node	   *count = limit->limitCount;

	context->shape->flags |= SHAPE_LIMIT;
	if (count && IsA(count, Const) && !((Const *) count)->constisnull &&
		limit->limitOffset == NULL)
		context->shape->limit = DatumGetInt64(((Const *) count)->constvalue);
}

static void
add_column(ShapeContext *context, TargetEntry *entry)
{
	LoopShape  *shape = context->shape;
	ShapeColumn *column;
	Node	   *expr = (Node *) entry->expr;

	if (entry->resjunk || shape->num_columns < 0)
		return;
	if (shape->num_columns == SHAPE_COLUMNS)
	{
		shape->num_columns = -1;
		return;
	}
	column = &shape->columns[shape->num_columns++];
	namestrcpy(&column->name, entry->resname ? entry->resname : "column");
	column->type = exprType(expr);
	column->typmod = exprTypmod(expr);
	column->attnum = -1;
	if (IsA(expr, Aggref))
	{
		Aggref	   *aggregate = (Aggref *) expr;

		if (aggregate->aggfilter || aggregate->aggdistinct || aggregate->aggorder ||
			aggregate->aggsplit != AGGSPLIT_SIMPLE || list_length(aggregate->args) > 1)
			shape->flags |= SHAPE_COMPUTES;
		else
		{
			column->aggregate = aggregate->aggfnoid;
			if (aggregate->args == NIL)
				column->attnum = 0;
			else
			{
				column->attnum = resolve_column(context, context->plan->planTree,
												(Node *) ((TargetEntry *) linitial(aggregate->args))->expr);
				if (column->attnum == 0)
				{
					column->attnum = -1;
					shape->flags |= SHAPE_COMPUTES;
				}
			}
		}
	}
	else if (OidIsValid(entry->resorigtbl) && entry->resorigtbl == shape->relid)
		column->attnum = entry->resorigcol;
	else
		shape->flags |= SHAPE_COMPUTES;
}

static bool
has_parameter(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param))
		return ((Param *) node)->paramkind == PARAM_EXTERN;
	return expression_tree_walker(node, has_parameter, context);
}

/* The columns that an INSERT gives; others are defaults. */
static void
add_insert(ShapeContext *context, ModifyTable *modify)
{
	LoopShape  *shape = context->shape;
	ListCell   *lc;

	shape->relid = perfopt_loop_written(context->plan);
	foreach(lc, outerPlan(modify)->targetlist)
	{
		TargetEntry *entry = lfirst(lc);
		Node	   *expr = strip((Node *) entry->expr);

		if (entry->resjunk ||
			!(IsA(expr, Const) ? !((Const *) expr)->constisnull : has_parameter(expr, NULL)))
			continue;
		if (shape->num_keys == SHAPE_KEYS)
		{
			shape->flags |= SHAPE_OPAQUE;
			break;
		}
		shape->keys[shape->num_keys++].attnum = entry->resno;
	}
	if (shape->num_keys == 0)
		shape->flags |= SHAPE_OPAQUE;
	if (modify->onConflictAction == ONCONFLICT_NOTHING)
		shape->flags |= SHAPE_NOTHING;
	else if (modify->onConflictAction != ONCONFLICT_NONE)
		shape->flags |= SHAPE_UPSERT;
}

void
perfopt_loop_shape(PlannedStmt *plan, const char *source, LoopShape *shape)
{
	ShapeContext context = {.plan = plan,.source = source,.shape = shape};
	Plan	   *node = plan->planTree;
	Sort	   *sort = NULL;
	ListCell   *lc;

	memset(shape, 0, sizeof(*shape));
	if (plan->commandType == CMD_INSERT && IsA(plan->planTree, ModifyTable))
	{
		add_insert(&context, (ModifyTable *) plan->planTree);
		return;
	}
	if (plan->subplans != NIL || plan->hasModifyingCTE)
		shape->flags |= SHAPE_OPAQUE;

	while (node && context.scan == NULL && !(shape->flags & SHAPE_OPAQUE))
	{
		switch (nodeTag(node))
		{
			case T_ModifyTable:
				shape->flags |= plan->commandType == CMD_DELETE ? SHAPE_DELETE : SHAPE_UPDATE;
				break;
			case T_Limit:
				add_limit(&context, (Limit *) node);
				break;
			case T_Sort:
				sort = (Sort *) node;
				break;
			case T_Agg:
				shape->flags |= SHAPE_AGGREGATE;
				if (((Agg *) node)->numCols > 0 || ((Agg *) node)->aggsplit != AGGSPLIT_SIMPLE ||
					node->qual != NIL)
					shape->flags |= SHAPE_COMPUTES;
				break;
			case T_Result:
			case T_LockRows:
			case T_Material:
			case T_Gather:
			case T_GatherMerge:
				break;
			default:
				add_scan(&context, node);
				break;
		}
		node = outerPlan(node);
	}
	if (context.scan == NULL)
		shape->flags |= SHAPE_OPAQUE;
	if (sort)
		add_sort(&context, sort);
	if (!(shape->flags & (SHAPE_UPDATE | SHAPE_DELETE)))
		foreach(lc, plan->planTree->targetlist)
			add_column(&context, lfirst(lc));
}
