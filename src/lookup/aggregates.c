/*
 * aggregates.c
 *		perfopt.lookup_aggregates(): for each key, aggregates of its children.
 *
 * Each table on the way from the parent to the child is aggregated on its own,
 * by key, and the results are joined; so a row counts once, however many rows
 * are below it.
 *
 * A key without rows gets what the aggregate gives over no rows, for which the
 * statement asks the aggregate itself.
 */
#include "postgres.h"

#include "lookup/lookup_internal.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(perfopt_lookup_aggregates);
PG_FUNCTION_INFO_V1(perfopt_lookup_aggregates_json);

enum
{
	ARG_PARENT, ARG_KEYS, ARG_CHILD, ARG_AGGREGATES, ARG_FILTER, ARG_PARAMS,
	ARG_CHILD_KEY, ARG_VIA
};

typedef struct AggregatesBuild
{
	FunctionCallInfo fcinfo;
	bool		as_json;
	int			num_params;
} AggregatesBuild;

/* All that is asked for. */
typedef struct Aggregates
{
	LookupPath	path;
	LookupAggregate *items;
	int			num;
	const char *filter;
	int			filter_level;
	int			num_params;
} Aggregates;

static List *
text_list(FunctionCallInfo fcinfo, int n, const char *what)
{
	Datum	   *elements;
	bool	   *nulls;
	int			num;
	List	   *result = NIL;

	if (PG_ARGISNULL(n))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &num);
	for (int i = 0; i < num; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not contain null", what)));
		result = lappend(result, TextDatumGetCString(elements[i]));
	}
	return result;
}

static void
read_aggregates(Aggregates *aggregates, FunctionCallInfo fcinfo)
{
	List	   *texts = text_list(fcinfo, ARG_AGGREGATES, "aggregates");
	ListCell   *lc;

	if (texts == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("aggregates must not be empty"),
				 errhint("Name at least one, as in '{count(*)}'.")));
	aggregates->items = palloc(list_length(texts) * sizeof(LookupAggregate));
	foreach(lc, texts)
		lookup_parse_aggregate(&aggregates->path, lfirst(lc), &aggregates->items[aggregates->num++]);
	if (!PG_ARGISNULL(ARG_FILTER))
		aggregates->filter = text_to_cstring(PG_GETARG_TEXT_PP(ARG_FILTER));
	if (aggregates->filter)
		aggregates->filter_level = lookup_parse_filter(&aggregates->path, aggregates->filter,
													   aggregates->num_params);
	else if (aggregates->num_params > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("params are given without a filter")));
}

/* The subquery that aggregates one level, if anything is asked of it. */
static void
append_level(StringInfo sql, const Aggregates *aggregates, int level, LookupShape shape)
{
	const LookupPath *path = &aggregates->path;
	bool		asked = false;

	for (int i = 0; i < aggregates->num; i++)
		asked |= aggregates->items[i].level == level;
	if (!asked)
		return;

	appendStringInfo(sql, " LEFT JOIN %s(SELECT ", shape == LOOKUP_EACH ? "LATERAL " : "");
	if (shape == LOOKUP_TOGETHER)
	{
		for (int i = 0; i < path->key.num; i++)
		{
			lookup_append_group(sql, path, i);
			appendStringInfo(sql, " AS \"perfopt group %d\", ", i + 1);
		}
		appendStringInfoString(sql, "true AS \"perfopt found\"");
	}
	else
		appendStringInfoString(sql, "true AS \"perfopt found\"");
	for (int i = 0; i < aggregates->num; i++)
	{
		if (aggregates->items[i].level == level)
			appendStringInfo(sql, ", %s AS \"perfopt value %d\"", aggregates->items[i].sql, i + 1);
	}
	lookup_append_rows(sql, path, level, shape, aggregates->num_params,
					   aggregates->filter && aggregates->filter_level <= level ?
					   aggregates->filter : NULL);
	if (shape == LOOKUP_TOGETHER)
	{
		appendStringInfoString(sql, " GROUP BY ");
		for (int i = 0; i < path->key.num; i++)
		{
			if (i > 0)
				appendStringInfoString(sql, ", ");
			lookup_append_group(sql, path, i);
		}
	}
	appendStringInfo(sql, ") AS \"perfopt level %d\" ON ", level + 1);
	if (shape == LOOKUP_TOGETHER)
	{
		char		name[64];

		snprintf(name, sizeof(name), "\"perfopt level %d\"", level + 1);
		lookup_append_match(sql, path, name);
	}
	else
		appendStringInfoString(sql, "true");
}

/* An aggregate's value for the key at hand. */
static char *
aggregate_value(const Aggregates *aggregates, int i, LookupShape shape)
{
	const LookupAggregate *item = &aggregates->items[i];
	const LookupLevel *level = &aggregates->path.levels[item->level];
	char	   *value = psprintf("\"perfopt level %d\".\"perfopt value %d\"", item->level + 1, i + 1);

	/* EACH has a row always */
	if (shape == LOOKUP_EACH || item->null_over_nothing)
		return value;
	return psprintf("CASE WHEN \"perfopt level %d\".\"perfopt found\" THEN %s"
					" ELSE (SELECT %s FROM %s AS %s WHERE false) END",
					item->level + 1, value, item->sql, level->table, level->alias);
}

static char *
statement_text(const Aggregates *aggregates, LookupShape shape, bool as_json, List *names)
{
	const LookupKey *key = &aggregates->path.key;
	List	   *values = NIL;
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < key->num; i++)
		values = lappend(values, psprintf(LOOKUP_KEYS ".\"perfopt key %d\"", i + 1));
	for (int i = 0; i < aggregates->num; i++)
		values = lappend(values, aggregate_value(aggregates, i, shape));
	appendStringInfoString(&sql, "SELECT ");
	if (as_json)
		lookup_append_object(&sql, names, values);
	else
	{
		ListCell   *lc;

		foreach(lc, values)
			appendStringInfo(&sql, "%s%s", lc == list_head(values) ? "" : ", ", (char *) lfirst(lc));
	}
	appendStringInfoString(&sql, " FROM ");
	lookup_append_keys(&sql, key, aggregates->num_params);
	for (int l = 0; l < aggregates->path.num_levels; l++)
		append_level(&sql, aggregates, l, shape);
	appendStringInfoString(&sql, " ORDER BY " LOOKUP_ORDINAL);
	return sql.data;
}

static void
check_names(List *names)
{
	for (int i = 0; i < list_length(names); i++)
	{
		for (int j = 0; j < i; j++)
		{
			if (strcmp(list_nth(names, i), list_nth(names, j)) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("\"%s\" would be in the object more than once", (char *) list_nth(names, i)),
						 errhint("Name aggregates, as in '{\"sum(total_cents) AS total\"}'.")));
		}
	}
}

static void
build_aggregates(LookupStatement *statement, void *arg)
{
	AggregatesBuild *build = arg;
	FunctionCallInfo fcinfo = build->fcinfo;
	Aggregates	aggregates = {0};
	Oid			parent = PG_GETARG_OID(ARG_PARENT);

	lookup_path_find(&aggregates.path, parent, PG_GETARG_OID(ARG_CHILD),
					 lookup_name_list(fcinfo, ARG_CHILD_KEY, "child_key"),
					 text_list(fcinfo, ARG_VIA, "via"));
	aggregates.num_params = build->num_params;
	read_aggregates(&aggregates, fcinfo);

	statement->key = aggregates.path.key;
	statement->relids = lookup_path_relids(&aggregates.path, parent);
	for (int i = 0; i < statement->key.num; i++)
		statement->names = lappend(statement->names, (char *) statement->key.columns[i].name);
	for (int i = 0; i < aggregates.num; i++)
		statement->names = lappend(statement->names, (char *) aggregates.items[i].name);
	if (build->as_json)
		check_names(statement->names);
	for (int i = 0; i < aggregates.num; i++)
	{
		const LookupLevel *level = &aggregates.path.levels[aggregates.items[i].level];

		statement->checks = lappend(statement->checks,
									psprintf("SELECT %s FROM %s AS %s", aggregates.items[i].sql,
											 level->table, level->alias));
	}
	if (aggregates.filter)
		statement->checks = lappend(statement->checks,
									lookup_check_filter(&aggregates.path, aggregates.path.num_levels - 1,
														aggregates.filter));
	for (int i = 0; i < LOOKUP_NUM_SHAPES; i++)
		statement->sql[i] = statement_text(&aggregates, i, build->as_json, statement->names);
}

static void
lookup_aggregates(FunctionCallInfo fcinfo, bool as_json)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	AggregatesBuild build = {fcinfo, as_json};
	LookupParams params;
	LookupStatement *statement;
	LookupKeys	keys;
	StringInfoData identity;
	Oid			relids[2];
	Tuplestorestate *rows;

	if (PG_ARGISNULL(ARG_PARENT) || PG_ARGISNULL(ARG_CHILD))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("parent and child must not be null")));
	rows = lookup_result_begin(fcinfo, "Call it as SELECT * FROM perfopt.lookup_aggregates('users', ARRAY[1, 2], 'orders', '{count(*)}') AS t(id bigint, count bigint), or use perfopt.lookup_aggregates_json().");
	lookup_read_params(fcinfo, ARG_PARAMS, &params);
	build.num_params = params.num;

	relids[0] = PG_GETARG_OID(ARG_PARENT);
	relids[1] = PG_GETARG_OID(ARG_CHILD);
	lookup_identity_begin(&identity, as_json ? 'A' : 'a');
	lookup_identity_bytes(&identity, relids, sizeof(relids));
	lookup_identity_argument(&identity, fcinfo, ARG_AGGREGATES);
	lookup_identity_argument(&identity, fcinfo, ARG_FILTER);
	lookup_identity_argument(&identity, fcinfo, ARG_CHILD_KEY);
	lookup_identity_argument(&identity, fcinfo, ARG_VIA);
	statement = lookup_statement_begin(&identity, &params, build_aggregates, &build);
	PG_TRY();
	{
		if (!as_json)
			lookup_check_columns(statement, result->expectedDesc, "perfopt.lookup_aggregates()");
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
perfopt_lookup_aggregates(PG_FUNCTION_ARGS)
{
	lookup_aggregates(fcinfo, false);
	return (Datum) 0;
}

Datum
perfopt_lookup_aggregates_json(PG_FUNCTION_ARGS)
{
	lookup_aggregates(fcinfo, true);
	return (Datum) 0;
}
