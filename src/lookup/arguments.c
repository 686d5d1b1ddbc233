/*
 * arguments.c
 *		What callers write as text: aggregates, orders and filters.
 *
 * The server's parser reads them, each standing alone.  Of aggregates and
 * orders only a few kinds of nodes are taken, and the statement is written
 * anew from those, every name quoted; so whatever they contain, it can be no
 * more than an aggregate over columns, or a column to sort by.
 *
 * A filter is SQL of the caller's own.  It goes into the statement as it is,
 * once it is known to be one expression, and in parentheses, so that it cannot
 * end the WHERE that it is in.
 */
#include "postgres.h"

#include "lookup/lookup_internal.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/query_params.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "nodes/value.h"
#include "parser/parser.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* ---------------------------------------------------------------------
 * Parsing
 */

/*
 * Text that is the tail of a SELECT: its target list, and perhaps clauses.
 * Parsing only; nothing is looked up.
 */
static SelectStmt *
parse_select(const char *text)
{
	ErrorContextCallback callback;
	List	   *list;

	callback.callback = perfopt_error_in_text;
	callback.arg = unconstify(char *, text);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	list = raw_parser(text, RAW_PARSE_PLPGSQL_EXPR);
	error_context_stack = callback.previous;
	return castNode(SelectStmt, linitial_node(RawStmt, list)->stmt);
}

/* Nothing beside a target, and what the caller will look at. */
static bool
is_simple_select(SelectStmt * select)
{
	return list_length(select->targetList) == 1 &&
		select->distinctClause == NIL && select->intoClause == NULL &&
		select->fromClause == NIL && select->whereClause == NULL &&
		select->groupClause == NIL && select->havingClause == NULL &&
		select->windowClause == NIL && select->valuesLists == NIL &&
		select->limitOffset == NULL && select->limitCount == NULL &&
		select->lockingClause == NIL && select->withClause == NULL &&
		select->op == SETOP_NONE;
}

/* The parts of a column's name, 0 if the node is none. */
static int
column_reference(Node *node, const char **first, const char **second)
{
	ColumnRef  *ref;
	ListCell   *lc;

	if (node == NULL || !IsA(node, ColumnRef))
		return 0;
	ref = (ColumnRef *) node;
	foreach(lc, ref->fields)
	{
		if (!IsA(lfirst(lc), String))
			return 0;
	}
	if (list_length(ref->fields) > 2)
		return 0;
	*first = strVal(linitial(ref->fields));
	*second = list_length(ref->fields) == 2 ? strVal(lsecond(ref->fields)) : NULL;
	return list_length(ref->fields);
}

/* ---------------------------------------------------------------------
 * Aggregates
 */

typedef struct AggregateParse
{
	const LookupPath *path;
	const char *text;
	int			level;			/* -1: not known yet */
} AggregateParse;

pg_noreturn static void
bad_aggregate(const char *text)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("invalid aggregate: \"%s\"", text),
			 errhint("Write an aggregate function over columns, as in count(*), sum(total_cents), count(DISTINCT status) AS statuses, or string_agg(status, ', ' ORDER BY id). Conditions belong into filter.")));
}

static int
level_named(const LookupPath *path, const char *name)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int l = 0; l < path->num_levels; l++)
	{
		if (strcmp(path->levels[l].name, name) == 0)
			return l;
		appendStringInfo(&names, "%s%s", l > 0 ? ", " : "", path->levels[l].alias);
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("table \"%s\" is not one of those that are looked up", name),
			 errhint("Those are: %s.", names.data)));
	return -1;					/* not reached */
}

/* A column of the child, or of the table named; quoted. */
static void
append_argument(StringInfo sql, AggregateParse *parse, Node *node)
{
	const char *first;
	const char *second;
	int			num = column_reference(node, &first, &second);
	int			level = parse->path->num_levels - 1;
	Relation	rel;
	AttrNumber	column;

	if (num == 0)
		bad_aggregate(parse->text);
	if (num == 2)
		level = level_named(parse->path, first);
	if (parse->level >= 0 && parse->level != level)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("aggregate \"%s\" has columns of several tables", parse->text),
				 errhint("Each aggregate is over the rows of one table.")));
	parse->level = level;
	rel = relation_open(parse->path->levels[level].relid, NoLock);
	column = lookup_column(rel, num == 2 ? second : first);
	relation_close(rel, NoLock);
	lookup_append_column(sql, &parse->path->levels[level], column);
}

static void
append_constant(StringInfo sql, A_Const *constant)
{
	if (constant->isnull)
	{
		appendStringInfoString(sql, "NULL");
		return;
	}
	switch (nodeTag(&constant->val))
	{
		case T_Integer:
			appendStringInfo(sql, "(%d)", intVal(&constant->val));
			break;
		case T_Float:
			appendStringInfo(sql, "(%s)", castNode(Float, &constant->val)->fval);
			break;
		case T_Boolean:
			appendStringInfoString(sql, boolVal(&constant->val) ? "true" : "false");
			break;
		case T_String:
			appendStringInfoString(sql, quote_literal_cstr(strVal(&constant->val)));
			break;
		default:
			elog(ERROR, "unexpected kind of constant");
	}
}

static const char *
sort_direction(SortBy * sort)
{
	if (sort->sortby_dir == SORTBY_USING || sort->useOp != NIL)
		return NULL;
	return psprintf("%s%s",
					sort->sortby_dir == SORTBY_DESC ? " DESC" : "",
					sort->sortby_nulls == SORTBY_NULLS_FIRST ? " NULLS FIRST" :
					sort->sortby_nulls == SORTBY_NULLS_LAST ? " NULLS LAST" : "");
}

/* Has the schema aggregates of the name, and nothing that is none? */
static bool
schema_has_aggregate(const char *name, Oid schema, bool *has_other)
{
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	bool		found = false;

	*has_other = false;
	for (int i = 0; i < list->n_members; i++)
	{
		Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		if (proc->pronamespace != schema)
			continue;
		if (proc->prokind == PROKIND_AGGREGATE)
			found = true;
		else if (proc->prokind != PROKIND_WINDOW)
			*has_other = true;
	}
	ReleaseSysCacheList(list);
	return found;
}

/*
 * The schema of the aggregate.  Of a name without one, that is pg_catalog if
 * it has such an aggregate, whatever comes before it in the search_path.
 */
static Oid
aggregate_schema(AggregateParse *parse, List *name)
{
	char	   *schema_name;
	char	   *function;
	Oid			schema = InvalidOid;
	bool		found = false;
	bool		has_other = false;

	if (list_length(name) > 2)
		bad_aggregate(parse->text);
	DeconstructQualifiedName(name, &schema_name, &function);
	if (schema_name)
	{
		schema = LookupExplicitNamespace(schema_name, false);
		found = schema_has_aggregate(function, schema, &has_other);
	}
	else
	{
		List	   *path = lcons_oid(PG_CATALOG_NAMESPACE, fetch_search_path(false));
		ListCell   *lc;

		foreach(lc, path)
		{
			schema = lfirst_oid(lc);
			found = schema_has_aggregate(function, schema, &has_other);
			if (found || has_other)
				break;
		}
	}
	if (!found || has_other)
		ereport(ERROR,
				(errcode(found || has_other ? ERRCODE_WRONG_OBJECT_TYPE : ERRCODE_UNDEFINED_FUNCTION),
				 has_other ? errmsg("function %s is not an aggregate", NameListToString(name)) :
				 errmsg("aggregate %s does not exist", NameListToString(name)),
				 errhint("Write an aggregate function over columns, as in count(*) or sum(total_cents).")));
	return schema;
}

void
lookup_parse_aggregate(const LookupPath *path, const char *text, LookupAggregate *aggregate)
{
	AggregateParse parse;
	SelectStmt *select = parse_select(text);
	ResTarget  *target;
	FuncCall   *call;
	Oid			schema;
	StringInfoData sql;
	const char *function;
	ListCell   *lc;

	parse.path = path;
	parse.text = text;

	parse.level = -1;
	if (!is_simple_select(select) || select->sortClause != NIL)
		bad_aggregate(text);
	target = linitial_node(ResTarget, select->targetList);
	if (!IsA(target->val, FuncCall) || target->indirection != NIL)
		bad_aggregate(text);
	call = (FuncCall *) target->val;
	if (call->over || call->agg_filter || call->func_variadic || call->funcformat != COERCE_EXPLICIT_CALL)
		bad_aggregate(text);
	foreach(lc, call->args)
	{
		if (IsA(lfirst(lc), A_Const) &&
			(((A_Const *) lfirst(lc))->isnull ||
			 nodeTag(&((A_Const *) lfirst(lc))->val) != T_BitString))
			continue;
		if (!IsA(lfirst(lc), ColumnRef))
			bad_aggregate(text);
	}
	schema = aggregate_schema(&parse, call->funcname);
	function = strVal(llast(call->funcname));

	initStringInfo(&sql);
	appendStringInfo(&sql, "%s(", quote_qualified_identifier(get_namespace_name(schema), function));
	if (call->agg_star)
		appendStringInfoChar(&sql, '*');
	if (call->agg_distinct)
		appendStringInfoString(&sql, "DISTINCT ");
	foreach(lc, call->args)
	{
		if (lc != list_head(call->args))
			appendStringInfoString(&sql, ", ");
		if (IsA(lfirst(lc), A_Const))
			append_constant(&sql, lfirst(lc));
		else
			append_argument(&sql, &parse, lfirst(lc));
	}
	if (call->agg_order)
	{
		appendStringInfoString(&sql, call->agg_within_group ? ") WITHIN GROUP (ORDER BY " : " ORDER BY ");
		foreach(lc, call->agg_order)
		{
			SortBy	   *sort = lfirst_node(SortBy, lc);
			const char *direction = sort_direction(sort);

			if (direction == NULL)
				bad_aggregate(text);
			if (lc != list_head(call->agg_order))
				appendStringInfoString(&sql, ", ");
			append_argument(&sql, &parse, sort->node);
			appendStringInfoString(&sql, direction);
		}
	}
	appendStringInfoChar(&sql, ')');

	aggregate->sql = sql.data;
	aggregate->name = target->name ? target->name : function;
	aggregate->level = parse.level >= 0 ? parse.level : path->num_levels - 1;
	aggregate->null_over_nothing = schema == PG_CATALOG_NAMESPACE &&
		(strcmp(function, "sum") == 0 || strcmp(function, "min") == 0 ||
		 strcmp(function, "max") == 0 || strcmp(function, "avg") == 0);
}

/* ---------------------------------------------------------------------
 * Orders
 */

List *
lookup_parse_order(const LookupLevel *level, const char *text)
{
	static const char *hint = "Write columns, each perhaps with ASC or DESC and NULLS FIRST or LAST, as in 'created_at DESC, id'.";
	SelectStmt *select = NULL;
	Relation	rel = relation_open(level->relid, NoLock);
	List	   *result = NIL;
	ListCell   *lc;

	if (text[strspn(text, " \t\n\r\f")] != '\0')
		select = parse_select(psprintf("1 ORDER BY %s", text));
	if (select == NULL || !is_simple_select(select) || select->sortClause == NIL ||
		linitial_node(ResTarget, select->targetList)->name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("invalid order_by: \"%s\"", text), errhint("%s", hint)));
	foreach(lc, select->sortClause)
	{
		SortBy	   *by = lfirst_node(SortBy, lc);
		LookupSort *sort = palloc0(sizeof(LookupSort));
		const char *first;
		const char *second;
		int			num = column_reference(by->node, &first, &second);

		sort->direction = sort_direction(by);
		if (num == 0 || sort->direction == NULL || (num == 2 && strcmp(first, level->name) != 0))
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("invalid order_by: \"%s\"", text), errhint("%s", hint)));
		sort->column = lookup_column(rel, num == 2 ? second : first);
		result = lappend(result, sort);
	}
	relation_close(rel, NoLock);
	return result;
}

/* ---------------------------------------------------------------------
 * Filters
 */

typedef struct FilterWalk
{
	const LookupPath *path;
	int			highest;		/* parameter */
	int			level;			/* the lowest table that is named */
	bool		has_subquery;
} FilterWalk;

static bool
has_column(Oid relid, const char *name)
{
	return get_attnum(relid, name) != InvalidAttrNumber;
}

static bool
filter_walker(Node *node, void *context)
{
	FilterWalk *walk = context;

	if (node == NULL)
		return false;
	if (IsA(node, ParamRef))
		walk->highest = Max(walk->highest, ((ParamRef *) node)->number);
	else if (IsA(node, SubLink))
		walk->has_subquery = true;
	else if (IsA(node, ColumnRef))
	{
		List	   *fields = ((ColumnRef *) node)->fields;
		const char *name = IsA(linitial(fields), String) ? strVal(linitial(fields)) : "";
		bool		is_table = false;

		for (int l = 0; l < walk->path->num_levels && list_length(fields) > 1; l++)
		{
			if (strcmp(walk->path->levels[l].name, name) == 0)
			{
				walk->level = Max(walk->level, l);
				is_table = true;
			}
		}
		for (int l = 0; l < walk->path->num_levels && !is_table; l++)
		{
			if (has_column(walk->path->levels[l].relid, name))
				walk->level = Max(walk->level, l);
		}
	}
	return raw_expression_tree_walker(node, filter_walker, context);
}

/*
 * Check a filter, and tell to which level it belongs: that of the lowest table
 * it names.
 */
int
lookup_parse_filter(const LookupPath *path, const char *text, int num_params)
{
	SelectStmt *select = parse_select(text);
	FilterWalk	walk = {0};

	walk.path = path;
	if (!is_simple_select(select) || select->sortClause != NIL ||
		linitial_node(ResTarget, select->targetList)->name != NULL ||
		linitial_node(ResTarget, select->targetList)->indirection != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("filter must be one condition: \"%s\"", text),
				 errhint("Write what could stand after WHERE, as in 'status = $1', and give values in params, as in ROW('paid').")));
	filter_walker(linitial_node(ResTarget, select->targetList)->val, &walk);
	if (walk.highest != num_params)
		ereport(ERROR,
				(errcode(walk.highest > num_params ? ERRCODE_UNDEFINED_PARAMETER :
						 ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("filter has %d parameters, but %d values were given", walk.highest, num_params),
				 errhint("Give a value for each in params, as in ROW('paid', 100), in the order of $1, $2.")));
	if (walk.has_subquery && path->num_levels > 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("filter cannot have subqueries where there is a via")));
	return walk.level;
}

/* The fields of a record as parameters. */
void
lookup_read_params(FunctionCallInfo fcinfo, int n, LookupParams *params)
{
	HeapTupleHeader header;
	HeapTupleData tuple;
	TupleDesc	desc;

	memset(params, 0, sizeof(*params));
	if (PG_ARGISNULL(n))
		return;
	header = PG_GETARG_HEAPTUPLEHEADER(n);
	desc = perfopt_params_open(header, &tuple);
	params->types = palloc0((desc->natts + 1) * sizeof(Oid));
	params->values = palloc0((desc->natts + 1) * sizeof(Datum));
	params->nulls = palloc0((desc->natts + 1) * sizeof(bool));
	heap_deform_tuple(&tuple, desc, params->values, params->nulls);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);
		int			num = params->num;

		if (attr->attisdropped)
			continue;
		params->nulls[num] = params->nulls[i];
		params->values[num] = perfopt_param_of_field(attr, params->values[i], params->nulls[i],
													 &params->types[num]);
		params->num++;
	}
	ReleaseTupleDesc(desc);
}
