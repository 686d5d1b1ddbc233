/*
 * text.c
 *		Parts of the statements of look-ups.
 *
 * Every table, operator and function is named with its schema, so that the
 * caller's search_path reaches nothing but the filter, which is the caller's
 * own text.  The names made up here have blanks in them, so that a filter that
 * misspells a column does not find one of them.
 */
#include "postgres.h"

#include "lookup/lookup_internal.h"

#include "access/htup_details.h"
#include "catalog/pg_operator.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* jsonb_build_object() takes 100 arguments at most. */
#define MAX_OBJECT_PAIRS	50

void
lookup_append_operator(StringInfo sql, Oid operator)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	appendStringInfo(sql, " OPERATOR(%s.%s) ",
					 quote_identifier(get_namespace_name(form->oprnamespace)),
					 NameStr(form->oprname));
	ReleaseSysCache(tuple);
}

void
lookup_append_column(StringInfo sql, const LookupLevel *level, AttrNumber column)
{
	appendStringInfo(sql, "%s.%s", level->alias,
					 quote_identifier(get_attname(level->relid, column, false)));
}

static void
append_unnest(StringInfo sql, const LookupKey *key, int num_params)
{
	appendStringInfoString(sql, "ROWS FROM (");
	for (int i = 0; i < key->num; i++)
		appendStringInfo(sql, "%spg_catalog.unnest($%d)", i > 0 ? ", " : "", num_params + i + 1);
	appendStringInfoString(sql, ")");
}

/* The keys as a table with their ordinals. */
void
lookup_append_keys(StringInfo sql, const LookupKey *key, int num_params)
{
	append_unnest(sql, key, num_params);
	appendStringInfoString(sql, " WITH ORDINALITY AS " LOOKUP_KEYS "(");
	for (int i = 0; i < key->num; i++)
		appendStringInfo(sql, "\"perfopt key %d\", ", i + 1);
	appendStringInfoString(sql, "\"perfopt ordinal\")");
}

/*
 * In TOGETHER, the i-th column that tells which key a row belongs to.  With
 * one column it is the child's own; with more, the distinct keys are joined,
 * for there is no ANY over several columns that would use an index.
 */
void
lookup_append_group(StringInfo sql, const LookupPath *path, int i)
{
	if (path->key.num == 1)
		lookup_append_column(sql, &path->levels[0], path->levels[0].columns[0]);
	else
		appendStringInfo(sql, "\"perfopt distinct\".\"perfopt key %d\"", i + 1);
}

/* FROM: a level, joined with those above it. */
static void
append_levels(StringInfo sql, const LookupPath *path, int level)
{
	const LookupLevel *first = &path->levels[0];

	appendStringInfo(sql, " FROM %s AS %s", first->table, first->alias);
	for (int l = 1; l <= level; l++)
	{
		const LookupLevel *below = &path->levels[l];
		const LookupLevel *above = &path->levels[l - 1];

		appendStringInfo(sql, " JOIN %s AS %s ON ", below->table, below->alias);
		for (int i = 0; below->columns[i] != InvalidAttrNumber; i++)
		{
			if (i > 0)
				appendStringInfoString(sql, " AND ");
			lookup_append_column(sql, below, below->columns[i]);
			lookup_append_operator(sql, below->equals[i]);
			lookup_append_column(sql, above, below->refs[i]);
		}
	}
}

/*
 * FROM and WHERE: the rows of a level that belong to the key at hand (EACH) or
 * to any of the keys (TOGETHER).
 */
void
lookup_append_rows(StringInfo sql, const LookupPath *path, int level,
				   LookupShape shape, int num_params, const char *filter)
{
	const LookupKey *key = &path->key;
	const LookupLevel *first = &path->levels[0];

	append_levels(sql, path, level);
	if (shape == LOOKUP_TOGETHER && key->num > 1)
	{
		appendStringInfoString(sql, " JOIN (SELECT DISTINCT * FROM ");
		append_unnest(sql, key, num_params);
		appendStringInfoString(sql, " AS k(");
		for (int i = 0; i < key->num; i++)
			appendStringInfo(sql, "%s\"perfopt key %d\"", i > 0 ? ", " : "", i + 1);
		appendStringInfoString(sql, ")) AS \"perfopt distinct\" ON ");
	}
	else
		appendStringInfoString(sql, " WHERE ");
	for (int i = 0; i < key->num; i++)
	{
		if (i > 0)
			appendStringInfoString(sql, " AND ");
		lookup_append_column(sql, first, first->columns[i]);
		lookup_append_operator(sql, first->equals[i]);
		if (shape == LOOKUP_EACH)
			appendStringInfo(sql, LOOKUP_KEYS ".\"perfopt key %d\"", i + 1);
		else if (key->num == 1)
			appendStringInfo(sql, "ANY ($%d)", num_params + 1);
		else
			appendStringInfo(sql, "\"perfopt distinct\".\"perfopt key %d\"", i + 1);
	}
	/* a comment may end the text */
	if (filter)
		appendStringInfo(sql, "%s(%s\n)",
						 shape == LOOKUP_TOGETHER && key->num > 1 ? " WHERE " : " AND ", filter);
}

/* In TOGETHER: group's rows belong to the key at hand. */
void
lookup_append_match(StringInfo sql, const LookupPath *path, const char *group)
{
	for (int i = 0; i < path->key.num; i++)
	{
		if (i > 0)
			appendStringInfoString(sql, " AND ");
		appendStringInfo(sql, "%s.\"perfopt group %d\"", group, i + 1);
		lookup_append_operator(sql, path->key.num == 1 ? path->levels[0].equals[0] :
							   path->key.columns[i].equal);
		appendStringInfo(sql, LOOKUP_KEYS ".\"perfopt key %d\"", i + 1);
	}
}

/*
 * A filter in a statement of nothing else: an error in it is easier to read
 * there.
 */
char *
lookup_check_filter(const LookupPath *path, int level, const char *filter)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT");
	append_levels(&sql, path, level);
	appendStringInfo(&sql, " WHERE (%s\n)", filter);
	return sql.data;
}

/* A jsonb object of names, not quoted, and values, which are SQL. */
void
lookup_append_object(StringInfo sql, List *names, List *values)
{
	int			num = list_length(names);
	int			start = 0;

	do
	{
		int			end = Min(start + MAX_OBJECT_PAIRS, num);

		if (start > 0)
			appendStringInfoString(sql, " OPERATOR(pg_catalog.||) ");
		appendStringInfoString(sql, "pg_catalog.jsonb_build_object(");
		for (int i = start; i < end; i++)
			appendStringInfo(sql, "%s%s, %s", i > start ? ", " : "",
							 quote_literal_cstr(list_nth(names, i)), (char *) list_nth(values, i));
		appendStringInfoChar(sql, ')');
		start = end;
	} while (start < num);
}
