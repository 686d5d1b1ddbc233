/*
 * index_ddl.c
 *		An index written as text: as DDL, as the definition that advice is known
 *		by, and as people read it.
 */
#include "postgres.h"

#include "advisor/index_spec.h"

#include "catalog/pg_index.h"
#include "commands/defrem.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

char *
perfopt_index_spec_name(const IndexSpec *spec, Relation relation)
{
	StringInfoData joined;

	initStringInfo(&joined);
	for (int i = 0; i < spec->num_keys; i++)
	{
		const IndexColumn *column = &spec->columns[i];
		const char *part = "expr";

		if (column->attnum != 0)
			part = NameStr(TupleDescAttr(RelationGetDescr(relation), column->attnum - 1)->attname);
		else if (IsA(column->expr, FuncExpr))
			part = get_func_name(((FuncExpr *) column->expr)->funcid);
		appendStringInfo(&joined, "%s%s", i > 0 ? "_" : "", part);
	}
	return ChooseRelationName(RelationGetRelationName(relation), joined.data, "idx",
							  RelationGetNamespace(relation), false);
}

static const char *
column_name(Relation relation, const IndexColumn *column)
{
	return quote_identifier(NameStr(TupleDescAttr(RelationGetDescr(relation),
												  column->attnum - 1)->attname));
}

static void
append_key(StringInfo ddl, const IndexSpec *spec, Relation relation,
		   const IndexColumn *column, List *context)
{
	Oid			collation;

	if (column->attnum != 0)
	{
		appendStringInfoString(ddl, column_name(relation, column));
		collation = TupleDescAttr(RelationGetDescr(relation), column->attnum - 1)->attcollation;
	}
	else
	{
		bool		call = IsA(column->expr, FuncExpr) &&
		((FuncExpr *) column->expr)->funcformat == COERCE_EXPLICIT_CALL;

		appendStringInfo(ddl, call ? "%s" : "(%s)",
						 deparse_expression(column->expr, context, false, false));
		collation = exprCollation(column->expr);
	}
	if (column->collation != collation)
		appendStringInfo(ddl, " COLLATE %s", generate_collation_name(column->collation));
	if (spec->extension)
		appendStringInfoString(ddl, " gin_trgm_ops");
	else if (column->opclass != GetDefaultOpClass(column->type, spec->am))
		appendStringInfo(ddl, " %s", generate_opclass_name(column->opclass));
	if (column->options & INDOPTION_DESC)
		appendStringInfoString(ddl, column->options & INDOPTION_NULLS_FIRST ?
							   " DESC" : " DESC NULLS LAST");
	else if (column->options & INDOPTION_NULLS_FIRST)
		appendStringInfoString(ddl, " NULLS FIRST");
}

char *
perfopt_index_spec_words(const IndexSpec *spec, Relation relation)
{
	List	   *context = deparse_context_for(RelationGetRelationName(relation), spec->relid);
	StringInfoData words;

	initStringInfo(&words);
	for (int i = 0; i < spec->num_keys; i++)
	{
		const IndexColumn *column = &spec->columns[i];

		appendStringInfo(&words, "%s%s", i == 0 ? "" : i < spec->num_keys - 1 ? ", " : " and ",
						 column->attnum != 0 ? column_name(relation, column) :
						 deparse_expression(column->expr, context, false, false));
	}
	if (spec->predicate)
		appendStringInfo(&words, " where %s",
						 deparse_expression((Node *) make_ands_explicit(spec->predicate),
											context, false, false));
	return words.data;
}

char *
perfopt_index_spec_definition(const IndexSpec *spec, Relation relation)
{
	List	   *context = deparse_context_for(RelationGetRelationName(relation), spec->relid);
	StringInfoData text;
	int			nest_level = NewGUCNestLevel();

	/* so that all names that are not the server's own get their schema */
	(void) set_config_option("search_path", "pg_catalog", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	initStringInfo(&text);
	appendStringInfo(&text, "USING %s ", quote_identifier(get_am_name(spec->am)));
	for (int i = 0; i < spec->num_columns; i++)
	{
		const IndexColumn *column = &spec->columns[i];

		appendStringInfoString(&text, i == 0 ? "(" : i == spec->num_keys ? ") INCLUDE (" : ", ");
		if (i < spec->num_keys)
			append_key(&text, spec, relation, column, context);
		else
			appendStringInfoString(&text, column_name(relation, column));
	}
	appendStringInfoChar(&text, ')');
	if (spec->fillfactor != 0)
		appendStringInfo(&text, " WITH (fillfactor = %d)", spec->fillfactor);
	if (spec->predicate)
		appendStringInfo(&text, " WHERE %s",
						 deparse_expression((Node *) make_ands_explicit(spec->predicate),
											context, false, false));
	AtEOXact_GUC(false, nest_level);
	return text.data;
}

char *
perfopt_index_spec_ddl(const IndexSpec *spec, Relation relation, const char *index_name)
{
	char	   *schema_name = get_namespace_name(RelationGetNamespace(relation));
	char	   *definition = perfopt_index_spec_definition(spec, relation);

	return relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ?
		perfopt_index_ddl_of_parent(index_name, schema_name, RelationGetRelationName(relation),
									definition) :
		perfopt_index_ddl(index_name, schema_name, RelationGetRelationName(relation), definition);
}

/* The table's name, and what follows it; btree goes without saying. */
static char *
on_table(const char *schema_name, const char *table_name, const char *definition)
{
	const char *usual = "USING btree ";

	if (strncmp(definition, usual, strlen(usual)) == 0)
		definition += strlen(usual);
	return psprintf("%s %s", quote_qualified_identifier(schema_name, table_name), definition);
}

char *
perfopt_index_ddl_of_parent(const char *index_name, const char *schema_name,
							const char *table_name, const char *definition)
{
	return psprintf("CREATE INDEX %s ON %s", quote_identifier(index_name),
					on_table(schema_name, table_name, definition));
}

char *
perfopt_index_ddl(const char *index_name, const char *schema_name, const char *table_name,
				  const char *definition)
{
	return psprintf("CREATE INDEX CONCURRENTLY %s ON %s", quote_identifier(index_name),
					on_table(schema_name, table_name, definition));
}
