/*
 * children.c
 *		perfopt.lookup_children(): the children of each key, in the keys' order,
 *		perhaps only the first n of each.
 */
#include "postgres.h"

#include "lookup/lookup_internal.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(perfopt_lookup_children);
PG_FUNCTION_INFO_V1(perfopt_lookup_children_json);

enum
{
	ARG_PARENT, ARG_KEYS, ARG_CHILD, ARG_COLUMNS, ARG_ORDER_BY, ARG_LIMIT,
	ARG_FILTER, ARG_PARAMS, ARG_CHILD_KEY
};

typedef struct ChildrenBuild
{
	FunctionCallInfo fcinfo;
	bool		as_json;
	int			num_params;
} ChildrenBuild;

/* All that is asked for. */
typedef struct Children
{
	LookupPath	path;
	List	   *columns;		/* attribute numbers */
	List	   *names;			/* of those */
	List	   *sorts;			/* LookupSort */
	int			limit;			/* -1: none */
	const char *filter;
	int			num_params;
} Children;

static void
read_columns(Children *children, FunctionCallInfo fcinfo)
{
	Relation	rel = relation_open(children->path.levels[0].relid, NoLock);
	TupleDesc	desc = RelationGetDescr(rel);
	ListCell   *lc;

	if (PG_ARGISNULL(ARG_COLUMNS))
	{
		for (int i = 0; i < desc->natts; i++)
		{
			if (!TupleDescAttr(desc, i)->attisdropped)
				children->columns = lappend_int(children->columns, i + 1);
		}
	}
	foreach(lc, lookup_name_list(fcinfo, ARG_COLUMNS, "columns"))
		children->columns = lappend_int(children->columns, lookup_column(rel, lfirst(lc)));
	foreach(lc, children->columns)
		children->names = lappend(children->names,
								  pstrdup(NameStr(TupleDescAttr(desc, lfirst_int(lc) - 1)->attname)));
	relation_close(rel, NoLock);
}

/* Without another order it is that of the child's primary key. */
static List *
default_order(const LookupLevel *level)
{
	Relation	rel = relation_open(level->relid, NoLock);
	Oid			index = lookup_unique_index(rel, NIL);
	List	   *result = NIL;

	relation_close(rel, NoLock);
	if (OidIsValid(index))
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
		Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);

		for (int i = 0; i < form->indnkeyatts; i++)
		{
			LookupSort *sort = palloc(sizeof(LookupSort));

			sort->column = form->indkey.values[i];
			sort->direction = "";
			result = lappend(result, sort);
		}
		ReleaseSysCache(tuple);
	}
	return result;
}

static void
append_order(StringInfo sql, const Children *children)
{
	ListCell   *lc;

	foreach(lc, children->sorts)
	{
		LookupSort *sort = lfirst(lc);

		appendStringInfoString(sql, lc == list_head(children->sorts) ? " ORDER BY " : ", ");
		lookup_append_column(sql, &children->path.levels[0], sort->column);
		appendStringInfoString(sql, sort->direction);
	}
}

/* The same over what append_rows() returns, after what the text has already. */
static void
append_outer_order(StringInfo sql, const Children *children, const char *first)
{
	int			i = 0;
	ListCell   *lc;

	foreach(lc, children->sorts)
	{
		appendStringInfo(sql, "%s\"perfopt child\".\"perfopt sort %d\"%s",
						 i == 0 ? first : ", ", i + 1, ((LookupSort *) lfirst(lc))->direction);
		i++;
	}
}

/*
 * The children of the key at hand (EACH) or of all of them (TOGETHER), with
 * what they are sorted by; no more than the limit of each in EACH, numbered in
 * TOGETHER.
 */
static void
append_rows(StringInfo sql, const Children *children, LookupShape shape)
{
	const LookupPath *path = &children->path;
	int			i = 0;
	const char *comma = "";
	ListCell   *lc;

	appendStringInfoString(sql, "SELECT ");
	if (shape == LOOKUP_TOGETHER)
	{
		for (int j = 0; j < path->key.num; j++)
		{
			appendStringInfoString(sql, comma);
			comma = ", ";
			lookup_append_group(sql, path, j);
			appendStringInfo(sql, " AS \"perfopt group %d\"", j + 1);
		}
		if (children->limit >= 0)
		{
			appendStringInfoString(sql, ", pg_catalog.row_number() OVER (PARTITION BY ");
			for (int j = 0; j < path->key.num; j++)
			{
				if (j > 0)
					appendStringInfoString(sql, ", ");
				lookup_append_group(sql, path, j);
			}
			append_order(sql, children);
			appendStringInfoString(sql, ") AS \"perfopt number\"");
		}
	}
	foreach(lc, children->columns)
	{
		appendStringInfoString(sql, comma);
		comma = ", ";
		lookup_append_column(sql, &path->levels[0], lfirst_int(lc));
		appendStringInfo(sql, " AS \"perfopt value %d\"", ++i);
	}
	i = 0;
	foreach(lc, children->sorts)
	{
		appendStringInfoString(sql, comma);
		comma = ", ";
		lookup_append_column(sql, &path->levels[0], ((LookupSort *) lfirst(lc))->column);
		appendStringInfo(sql, " AS \"perfopt sort %d\"", ++i);
	}
	lookup_append_rows(sql, path, 0, shape, children->num_params, children->filter);
	if (shape == LOOKUP_EACH && children->limit >= 0)
	{
		append_order(sql, children);
		appendStringInfo(sql, " LIMIT %d", children->limit);
	}
}

static void
append_number(StringInfo sql, const Children *children, const char *word)
{
	if (children->limit >= 0)
		appendStringInfo(sql, " %s \"perfopt child\".\"perfopt number\" OPERATOR(pg_catalog.<=) %d",
						 word, children->limit);
}

static List *
column_values(const Children *children)
{
	List	   *values = NIL;

	for (int i = 0; i < list_length(children->columns); i++)
		values = lappend(values, psprintf("\"perfopt child\".\"perfopt value %d\"", i + 1));
	return values;
}

static char *
rows_text(const Children *children, LookupShape shape)
{
	const LookupKey *key = &children->path.key;
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = 0; i < key->num; i++)
		appendStringInfo(&sql, "%s" LOOKUP_KEYS ".\"perfopt key %d\"", i > 0 ? ", " : "", i + 1);
	foreach(lc, column_values(children))
		appendStringInfo(&sql, ", %s", (char *) lfirst(lc));
	appendStringInfoString(&sql, " FROM ");
	lookup_append_keys(&sql, key, children->num_params);
	appendStringInfo(&sql, " JOIN %s(", shape == LOOKUP_EACH ? "LATERAL " : "");
	append_rows(&sql, children, shape);
	appendStringInfoString(&sql, ") AS \"perfopt child\" ON ");
	if (shape == LOOKUP_EACH)
		appendStringInfoString(&sql, "true");
	else
	{
		lookup_append_match(&sql, &children->path, "\"perfopt child\"");
		append_number(&sql, children, "AND");
	}
	appendStringInfoString(&sql, " ORDER BY " LOOKUP_ORDINAL);
	append_outer_order(&sql, children, ", ");
	return sql.data;
}

static char *
json_text(const Children *children, LookupShape shape)
{
	const LookupKey *key = &children->path.key;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT COALESCE(\"perfopt list\".\"perfopt json\", '[]'::pg_catalog.jsonb) FROM ");
	lookup_append_keys(&sql, key, children->num_params);
	appendStringInfo(&sql, " LEFT JOIN %s(SELECT ", shape == LOOKUP_EACH ? "LATERAL " : "");
	for (int i = 0; shape == LOOKUP_TOGETHER && i < key->num; i++)
		appendStringInfo(&sql, "\"perfopt child\".\"perfopt group %d\", ", i + 1);
	appendStringInfoString(&sql, "pg_catalog.jsonb_agg(");
	lookup_append_object(&sql, children->names, column_values(children));
	append_outer_order(&sql, children, " ORDER BY ");
	appendStringInfoString(&sql, ") AS \"perfopt json\" FROM (");
	append_rows(&sql, children, shape);
	appendStringInfoString(&sql, ") AS \"perfopt child\"");
	if (shape == LOOKUP_TOGETHER)
	{
		append_number(&sql, children, "WHERE");
		appendStringInfoString(&sql, " GROUP BY ");
		for (int i = 0; i < key->num; i++)
			appendStringInfo(&sql, "%s\"perfopt child\".\"perfopt group %d\"", i > 0 ? ", " : "", i + 1);
	}
	appendStringInfoString(&sql, ") AS \"perfopt list\" ON ");
	if (shape == LOOKUP_EACH)
		appendStringInfoString(&sql, "true");
	else
		lookup_append_match(&sql, &children->path, "\"perfopt list\"");
	appendStringInfoString(&sql, " ORDER BY " LOOKUP_ORDINAL);
	return sql.data;
}

static void
build_children(LookupStatement *statement, void *arg)
{
	ChildrenBuild *build = arg;
	FunctionCallInfo fcinfo = build->fcinfo;
	Children	children = {0};
	Oid			parent = PG_GETARG_OID(ARG_PARENT);

	lookup_path_find(&children.path, parent, PG_GETARG_OID(ARG_CHILD),
					 lookup_name_list(fcinfo, ARG_CHILD_KEY, "child_key"), NIL);
	children.num_params = build->num_params;
	children.limit = PG_ARGISNULL(ARG_LIMIT) ? -1 : PG_GETARG_INT32(ARG_LIMIT);
	if (children.limit < 0 && !PG_ARGISNULL(ARG_LIMIT))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("limit_per_parent must not be negative")));
	read_columns(&children, fcinfo);
	children.sorts = PG_ARGISNULL(ARG_ORDER_BY) ? default_order(&children.path.levels[0]) :
		lookup_parse_order(&children.path.levels[0], text_to_cstring(PG_GETARG_TEXT_PP(ARG_ORDER_BY)));
	if (!PG_ARGISNULL(ARG_FILTER))
	{
		children.filter = text_to_cstring(PG_GETARG_TEXT_PP(ARG_FILTER));
		lookup_parse_filter(&children.path, children.filter, children.num_params);
		statement->checks = list_make1(lookup_check_filter(&children.path, 0, children.filter));
	}
	else if (children.num_params > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("params are given without a filter")));

	statement->key = children.path.key;
	statement->relids = lookup_path_relids(&children.path, parent);
	for (int i = 0; i < statement->key.num; i++)
		statement->names = lappend(statement->names, pstrdup(i == 0 && statement->key.num == 1 ? "key" :
															 psprintf("key_%d", i + 1)));
	statement->names = list_concat(statement->names, children.names);
	for (int i = 0; i < LOOKUP_NUM_SHAPES; i++)
		statement->sql[i] = build->as_json ? json_text(&children, i) : rows_text(&children, i);
}

static void
lookup_children(FunctionCallInfo fcinfo, bool as_json)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	ChildrenBuild build = {fcinfo, as_json};
	LookupParams params;
	LookupStatement *statement;
	LookupKeys	keys;
	StringInfoData identity;
	Oid			relids[2];
	int32		limit = PG_ARGISNULL(ARG_LIMIT) ? -1 : PG_GETARG_INT32(ARG_LIMIT);
	bool		has_limit = !PG_ARGISNULL(ARG_LIMIT);
	Tuplestorestate *rows;

	if (PG_ARGISNULL(ARG_PARENT) || PG_ARGISNULL(ARG_CHILD))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("parent and child must not be null")));
	rows = lookup_result_begin(fcinfo, "Call it as SELECT * FROM perfopt.lookup_children('users', ARRAY[1, 2], 'orders', '{id}') AS t(key bigint, id bigint), or use perfopt.lookup_children_json().");
	lookup_read_params(fcinfo, ARG_PARAMS, &params);
	build.num_params = params.num;

	relids[0] = PG_GETARG_OID(ARG_PARENT);
	relids[1] = PG_GETARG_OID(ARG_CHILD);
	lookup_identity_begin(&identity, as_json ? 'C' : 'c');
	lookup_identity_bytes(&identity, relids, sizeof(relids));
	lookup_identity_bytes(&identity, &limit, sizeof(limit));
	lookup_identity_bytes(&identity, &has_limit, sizeof(has_limit));
	lookup_identity_argument(&identity, fcinfo, ARG_COLUMNS);
	lookup_identity_argument(&identity, fcinfo, ARG_ORDER_BY);
	lookup_identity_argument(&identity, fcinfo, ARG_FILTER);
	lookup_identity_argument(&identity, fcinfo, ARG_CHILD_KEY);
	statement = lookup_statement_begin(&identity, &params, build_children, &build);
	PG_TRY();
	{
		if (!as_json)
			lookup_check_columns(statement, result->expectedDesc, "perfopt.lookup_children()");
		lookup_read_keys(&statement->key, fcinfo, ARG_KEYS, false, &keys);
		lookup_statement_run(statement, &keys, &params, rows);
	}
	PG_FINALLY();
	{
		lookup_statement_end(statement);
	}
	PG_END_TRY();
}

Datum
perfopt_lookup_children(PG_FUNCTION_ARGS)
{
	lookup_children(fcinfo, false);
	return (Datum) 0;
}

Datum
perfopt_lookup_children_json(PG_FUNCTION_ARGS)
{
	lookup_children(fcinfo, true);
	return (Datum) 0;
}
