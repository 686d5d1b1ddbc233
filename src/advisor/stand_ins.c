/*
 * stand_ins.c
 *		What stands in for parameters without values, of statements handed to
 *		perfopt.advise().
 *
 * A generic plan takes a column's values to be as frequent as each other, and
 * no pattern to begin with fixed text.  Both is far from what happens where
 * values are skewed, or patterns are prefixes; and the server plans with values
 * where that pays.  So, from the statistics of a column that the caller may read
 * all of:
 *
 * - a parameter that a column is compared with for equality is the most common
 *   value, if that is far more frequent than others, in a second planning;
 * - a pattern that is put together as a prefix is ($1 || '%', 'x' || $1) begins
 *   nearly as some value of the column does, with so much that few others do.  Of
 *   an expression that is what it is for values of the column; its functions are
 *   called as those of an index would be for a sample (see index_sample.c).
 *
 * A pattern that is nothing but a parameter may begin with a wildcard, so nothing
 * is taken for granted of it, but the caller is told.
 */
#include "postgres.h"

#include <ctype.h>

#include "advisor/advisor_internal.h"
#include "advisor/index_facts.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/transam.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_statistic.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* A value is skewed that is so many times as frequent as values on average. */
#define SKEWED				5.0

/* Parameters that get a value. */
#define MAX_PARAMS			100

/* Values that a prefix is taken from, and the part of them that may have it. */
#define MAX_VALUES			100
#define FEW_VALUES			0.01

/* They may take so long, should they be of an expression. */
#define EVALUATE_MS			500

/* Nobody has to be told of patterns of tables with fewer pages. */
#define MIN_PAGES			10

/*
 * Columns and their statistics
 */
static Node *
without_relabel(Node *node)
{
	while (node && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return node;
}

/* Of a table, or InvalidOid. */
static Oid
table_of(const Query *query, const Var *var)
{
	const RangeTblEntry *rte;

	if (var->varlevelsup != 0 || var->varattno <= 0 || var->varno > list_length(query->rtable))
		return InvalidOid;
	rte = rt_fetch(var->varno, query->rtable);
	return rte->rtekind == RTE_RELATION && rte->relid >= FirstNormalObjectId ?
		rte->relid : InvalidOid;
}

/* NULL: there are none, or they would tell more than the caller may know. */
static HeapTuple
statistics_of(Oid relid, AttrNumber attnum)
{
	Relation	relation = try_relation_open(relid, NoLock);
	HeapTuple	tuple = NULL;

	if (relation == NULL)
		return NULL;
	if (perfopt_may_sample(relation))
	{
		/* a partitioned table has those of its whole only */
		tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(relid),
								Int16GetDatum(attnum), BoolGetDatum(false));
		if (!HeapTupleIsValid(tuple))
			tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(relid),
									Int16GetDatum(attnum), BoolGetDatum(true));
	}
	relation_close(relation, NoLock);
	return tuple;
}

static double
rows_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	double		rows = 0;

	if (HeapTupleIsValid(tuple))
	{
		rows = ((Form_pg_class) GETSTRUCT(tuple))->reltuples;
		ReleaseSysCache(tuple);
	}
	return rows;
}

/*
 * Values for a second planning
 */
typedef struct CommonValues
{
	Query	   *query;			/* that is walked */
	ParamListInfo params;		/* or NULL, as long as there is no value */
} CommonValues;

/* False: no value is far more frequent than others. */
static bool
most_common(Oid relid, AttrNumber attnum, Datum *value)
{
	HeapTuple	tuple = statistics_of(relid, attnum);
	Form_pg_statistic form;
	AttStatsSlot slot;
	double		distinct;
	bool		found = false;

	if (tuple == NULL)
		return false;
	form = (Form_pg_statistic) GETSTRUCT(tuple);
	distinct = form->stadistinct < 0 ? -form->stadistinct * rows_of(relid) : form->stadistinct;
	if (distinct > 0 && get_attstatsslot(&slot, tuple, STATISTIC_KIND_MCV, InvalidOid,
										 ATTSTATSSLOT_VALUES | ATTSTATSSLOT_NUMBERS))
	{
		if (slot.nvalues > 0 && slot.nnumbers > 0 &&
			slot.numbers[0] > SKEWED * (1 - form->stanullfrac) / distinct)
		{
			int16		len;
			bool		byval;

			get_typlenbyval(slot.valuetype, &len, &byval);
			*value = datumCopy(slot.values[0], byval, len);
			found = true;
		}
		free_attstatsslot(&slot);
	}
	ReleaseSysCache(tuple);
	return found;
}

/* The first column that it is compared with decides. */
static void
take_common(CommonValues *common, Node *column, Node *other)
{
	Var		   *var = (Var *) without_relabel(column);
	Param	   *param = (Param *) without_relabel(other);
	ParamExternData *place;
	Oid			relid;
	Datum		value;

	if (var == NULL || param == NULL || !IsA(var, Var) || !IsA(param, Param) ||
		param->paramkind != PARAM_EXTERN || param->paramid > MAX_PARAMS ||
		!OidIsValid(relid = table_of(common->query, var)) ||
		!IsBinaryCoercible(var->vartype, param->paramtype))
		return;
	if (common->params && OidIsValid(common->params->params[param->paramid - 1].ptype))
		return;
	if (!most_common(relid, var->varattno, &value))
		return;
	if (common->params == NULL)
	{
		common->params = makeParamList(MAX_PARAMS);
		memset(common->params->params, 0, sizeof(ParamExternData) * MAX_PARAMS);
	}
	/* known for estimates only, as it is to be no constant of the plan */
	place = &common->params->params[param->paramid - 1];
	place->value = value;
	place->ptype = param->paramtype;
}

static bool
common_walker(Node *node, CommonValues *common)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *outer = common->query;

		common->query = (Query *) node;
		(void) query_tree_walker((Query *) node, common_walker, common, 0);
		common->query = outer;
		return false;
	}
	if (IsA(node, OpExpr) && list_length(((OpExpr *) node)->args) == 2 &&
		get_oprrest(((OpExpr *) node)->opno) == F_EQSEL)
	{
		Node	   *left = linitial(((OpExpr *) node)->args);
		Node	   *right = lsecond(((OpExpr *) node)->args);

		take_common(common, left, right);
		take_common(common, right, left);
	}
	return expression_tree_walker(node, common_walker, common);
}

ParamListInfo
perfopt_common_params(Query *query)
{
	CommonValues common = {0};

	(void) common_walker((Node *) query, &common);
	return common.params;
}

/*
 * Patterns
 */
typedef struct Patterns
{
	Query	   *query;			/* that is mutated */
	List	   *notes;			/* char * */
} Patterns;

typedef enum PatternForm
{
	PATTERN_OTHER,				/* nothing is to be done */
	PATTERN_UNKNOWN,
	PATTERN_PREFIX,				/* of unknown text, behind what is known */
	PATTERN_WHOLE				/* ... which is all of it */
} PatternForm;

static bool
has_param(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param))
		return ((Param *) node)->paramkind == PARAM_EXTERN;
	return expression_tree_walker(node, has_param, context);
}

typedef struct OnlyColumn
{
	const Query *query;
	const Var  *column;
} OnlyColumn;

/* True: there is another one, or something that can't be looked through. */
static bool
column_walker(Node *node, OnlyColumn *only)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return true;
	if (IsA(node, Var))
	{
		if (only->column)
			return !equal(node, only->column);
		only->column = (Var *) node;
		return !OidIsValid(table_of(only->query, only->column));
	}
	return expression_tree_walker(node, column_walker, only);
}

/* The column of a table that the expression is of; NULL: it is not of one only. */
static const Var *
only_column(const Query *query, Node *expr)
{
	OnlyColumn	only = {.query = query};

	return column_walker(expr, &only) ? NULL : only.column;
}

/* What is put together begins, or ends, with this. */
static Node *
outermost_piece(Node *node, bool last)
{
	for (;;)
	{
		OpExpr	   *op = (OpExpr *) node;

		node = without_relabel(node);
		op = (OpExpr *) node;
		if (node == NULL || !IsA(node, OpExpr) || list_length(op->args) != 2)
			return node;
		set_opfuncid(op);
		if (op->opfuncid != F_TEXTCAT && op->opfuncid != F_TEXTANYCAT &&
			op->opfuncid != F_ANYTEXTCAT)
			return node;
		node = last ? lsecond(op->args) : linitial(op->args);
	}
}

/* NULL: it is no text that is known. */
static char *
fixed_text(Node *piece)
{
	Const	   *constant = (Const *) piece;

	if (piece == NULL || !IsA(piece, Const) || constant->constisnull ||
		(constant->consttype != TEXTOID && constant->consttype != VARCHAROID))
		return NULL;
	return TextDatumGetCString(constant->constvalue);
}

/* *known: what it begins with for sure. */
static PatternForm
form_of(Node *pattern, char **known)
{
	Node	   *first = outermost_piece(pattern, false);
	char	   *last;
	size_t		len;

	*known = fixed_text(first);
	if (*known && (*known)[0] != '\0')
	{
		len = strcspn(*known, "%_\\");
		if (len == 0)
			return PATTERN_OTHER;
		if ((*known)[len] == '\0')
			return PATTERN_PREFIX;
		(*known)[len] = '\0';
		return PATTERN_WHOLE;
	}
	*known = "";
	last = fixed_text(outermost_piece(pattern, true));
	return last && last[0] == '%' ? PATTERN_PREFIX : PATTERN_UNKNOWN;
}

/* An expression over a column, with a value in place of that. */
typedef struct ValueOf
{
	Const	   *value;
} ValueOf;

static Node *
value_mutator(Node *node, ValueOf *of)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
		return (Node *) of->value;
	return expression_tree_mutator(node, value_mutator, of);
}

/* NULL: it is none. */
static char *
evaluate(Node *expr, ValueOf *of)
{
	Node	   *node;

	CHECK_FOR_INTERRUPTS();
	node = eval_const_expressions(NULL, value_mutator(expr, of));
	return fixed_text(without_relabel(node));
}

/* What evaluate_as_owner() is called with, and what it gives. */
typedef struct Evaluation
{
	const Var  *column;
	Node	   *expr;
	HeapTuple	statistics;
	MemoryContext result;
	List	   *values;			/* char * */
} Evaluation;

static void
evaluate_as_owner(void *arg)
{
	Evaluation *evaluation = arg;
	const Var  *column = evaluation->column;
	MemoryContext old_context;
	ValueOf		of;

	for (int kind = 0; kind < 2 && evaluation->values == NIL; kind++)
	{
		AttStatsSlot slot;
		int16		len;
		bool		byval;

		if (!get_attstatsslot(&slot, evaluation->statistics,
							  kind == 0 ? STATISTIC_KIND_HISTOGRAM : STATISTIC_KIND_MCV,
							  InvalidOid, ATTSTATSSLOT_VALUES))
			continue;
		get_typlenbyval(slot.valuetype, &len, &byval);
		for (int i = 0; i < slot.nvalues; i += 1 + slot.nvalues / MAX_VALUES)
		{
			char	   *value;

			of.value = makeConst(column->vartype, column->vartypmod, column->varcollid, len,
								 slot.values[i], false, byval);
			value = evaluate(evaluation->expr, &of);
			if (value == NULL)
				continue;
			old_context = MemoryContextSwitchTo(evaluation->result);
			evaluation->values = lappend(evaluation->values, pstrdup(value));
			MemoryContextSwitchTo(old_context);
		}
		free_attstatsslot(&slot);
	}
}

/* What the expression is for some values of that column: char *. */
static List *
values_of(Oid relid, const Var *column, Node *expr)
{
	Evaluation	evaluation = {.column = column,.expr = expr,.result = CurrentMemoryContext};
	Relation	relation;
	char	   *problem;

	if (!perfopt_expression_is_trusted(expr, InvalidOid) ||
		(evaluation.statistics = statistics_of(relid, column->varattno)) == NULL)
		return NIL;
	relation = relation_open(relid, NoLock);
	problem = perfopt_as_owner(relation, EVALUATE_MS, evaluate_as_owner, &evaluation);
	relation_close(relation, NoLock);
	ReleaseSysCache(evaluation.statistics);
	if (problem == NULL)
		return evaluation.values;
	ereport(DEBUG1,
			(errmsg_internal("perfopt: what a pattern may begin with is not known: %s", problem)));
	return NIL;
}

static int
num_beginning(List *values, const char *prefix, size_t len)
{
	int			num = 0;
	ListCell   *lc;

	foreach(lc, values)
		if (strncmp(lfirst(lc), prefix, len) == 0)
		num++;
	return num;
}

/*
 * As some value begins, but no value of the statistics: with one of these the
 * server would take it to find as much as they stand for.  NULL: no value begins
 * as it must.
 */
static char *
some_prefix(List *values, const char *known)
{
	List	   *fitting = NIL;
	ListCell   *lc;
	char	   *prefix;
	size_t		len = strlen(known);
	char	   *last;

	foreach(lc, values)
		if (strncmp(lfirst(lc), known, len) == 0 && strlen(lfirst(lc)) > len)
		fitting = lappend(fitting, lfirst(lc));
	if (fitting == NIL)
		return NULL;
	prefix = pstrdup(list_nth(fitting, list_length(fitting) / 2));
	do
		len += pg_mblen(prefix + len);
	while (prefix[len] != '\0' &&
		   num_beginning(values, prefix, len) > Max(1, list_length(values) * FEW_VALUES));
	if (prefix[len] != '\0')
		len += pg_mblen(prefix + len);
	prefix[len] = '\0';
	last = &prefix[len - 1];
	if (isascii((unsigned char) *last) && isalnum((unsigned char) *last))
		*last += strchr("9zZ", *last) ? -1 : 1;
	return prefix;
}

static char *
as_pattern(const char *prefix)
{
	StringInfoData pattern;

	initStringInfo(&pattern);
	for (const char *c = prefix; *c; c++)
	{
		if (strchr("%_\\", *c))
			appendStringInfoChar(&pattern, '\\');
		appendStringInfoChar(&pattern, *c);
	}
	appendStringInfoChar(&pattern, '%');
	return pattern.data;
}

static void
note(Patterns *patterns, Oid relid, const Var *var, const char *format)
{
	Relation	relation = try_relation_open(relid, NoLock);

	if (relation == NULL)
		return;
	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ||
		relation->rd_rel->relpages >= MIN_PAGES)
	{
		char	   *column = psprintf("%s.%s", quote_identifier(RelationGetRelationName(relation)),
									  quote_identifier(get_attname(relid, var->varattno, false)));

		patterns->notes = lappend(patterns->notes, psprintf(format, column));
	}
	relation_close(relation, NoLock);
}

/* What stands in for the pattern; NULL: nothing does. */
static Node *
stand_in(Patterns *patterns, Node *left, Node *right, bool like)
{
	char	   *known = "";
	PatternForm form = like ? form_of(right, &known) : PATTERN_PREFIX;
	const Var  *column = only_column(patterns->query, left);
	Oid			relid;
	char	   *prefix;

	if (form == PATTERN_OTHER || column == NULL || exprType(right) != TEXTOID ||
		!has_param(right, NULL) || contain_var_clause(right) || contain_subplans(right))
		return NULL;
	relid = table_of(patterns->query, column);
	if (form == PATTERN_UNKNOWN)
	{
		note(patterns, relid, column, "What a pattern without a value begins with is not known: for a B-tree for %s write it as $1 || '%%', or with a value, such as 'abc%%'.");
		return NULL;
	}
	prefix = form == PATTERN_WHOLE ? NULL :
		some_prefix(values_of(relid, column, left), known);
	if (prefix)
		note(patterns, relid, column, "The pattern of %s is taken to begin as few rows do; a generic plan would use no B-tree for it.");
	else if (known[0] != '\0')
		prefix = known;
	else
	{
		note(patterns, relid, column, "No statistics tell what a pattern of %s may begin with: write it with a value, such as 'abc%%'.");
		return NULL;
	}
	return (Node *) makeConst(TEXTOID, -1, exprCollation(right), -1,
							  CStringGetTextDatum(like ? as_pattern(prefix) : prefix),
							  false, false);
}

static Node *
pattern_mutator(Node *node, Patterns *patterns)
{
	List	   *args = NIL;
	Node	   *pattern;
	bool		like;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Query	   *outer = patterns->query;
		Query	   *mutated;

		patterns->query = (Query *) node;
		mutated = query_tree_mutator((Query *) node, pattern_mutator, patterns, 0);
		patterns->query = outer;
		return (Node *) mutated;
	}
	node = expression_tree_mutator(node, pattern_mutator, patterns);
	if (IsA(node, OpExpr))
	{
		Oid			opno = ((OpExpr *) node)->opno;

		like = opno == OID_TEXT_LIKE_OP || opno == OID_BPCHAR_LIKE_OP;
		if (like || opno == TextPrefixOperator)
			args = ((OpExpr *) node)->args;
	}
	else if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid == F_STARTS_WITH)
	{
		like = false;
		args = ((FuncExpr *) node)->args;
	}
	if (list_length(args) == 2 &&
		(pattern = stand_in(patterns, linitial(args), lsecond(args), like)) != NULL)
		lsecond(args) = pattern;
	return node;
}

Query *
perfopt_assume_patterns(Query *query, List **notes)
{
	Patterns	patterns = {0};

	query = (Query *) pattern_mutator((Node *) query, &patterns);
	*notes = patterns.notes;
	return query;
}
