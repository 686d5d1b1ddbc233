/*
 * fetch.c
 *		perfopt.fetch_many(): rows for a list of keys, an answer for each.
 *
 * The keys are joined with the relation, so there is a row for each key; more
 * rows than keys means that some key is not unique, which only a view, a
 * foreign table or a table with inheriting ones can do.
 */
#include "postgres.h"

#include "lookup/lookup_internal.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(perfopt_fetch_many);

typedef struct FetchBuild
{
	Oid			relid;
	List	   *names;			/* of the key */
} FetchBuild;

/* The relation whose row type the first argument has. */
static Oid
target_relation(FunctionCallInfo fcinfo)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	Oid			relid = OidIsValid(type) && get_typtype(type) == TYPTYPE_COMPOSITE ?
	get_typ_typrelid(type) : InvalidOid;

	if (!OidIsValid(relid) || get_rel_relkind(relid) == RELKIND_COMPOSITE_TYPE)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("type %s is not the row type of a table or view", format_type_be(type)),
				 errhint("Call it as perfopt.fetch_many(NULL::users, ARRAY[1, 2, 3]).")));
	return relid;
}

static void
build_fetch(LookupStatement *statement, void *arg)
{
	FetchBuild *build = arg;
	Relation	rel = lookup_open(build->relid);
	TupleDesc	desc = RelationGetDescr(rel);
	LookupKey  *key = &statement->key;
	AttrNumber	columns[INDEX_MAX_KEYS];
	Oid			equals[INDEX_MAX_KEYS];
	StringInfoData sql;

	lookup_row_key(rel, build->names, key, columns, equals);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);

		if (i > 0)
			appendStringInfoString(&sql, ", ");
		if (attr->attisdropped)
			appendStringInfoString(&sql, "NULL::pg_catalog.int4");
		else
			appendStringInfo(&sql, "t.%s", quote_identifier(NameStr(attr->attname)));
	}
	appendStringInfoString(&sql, " FROM ");
	lookup_append_keys(&sql, key, 0);
	appendStringInfo(&sql, " LEFT JOIN %s AS t ON ", lookup_table_name(build->relid));
	for (int i = 0; i < key->num; i++)
	{
		if (i > 0)
			appendStringInfoString(&sql, " AND ");
		appendStringInfo(&sql, "t.%s",
						 quote_identifier(NameStr(TupleDescAttr(desc, columns[i] - 1)->attname)));
		lookup_append_operator(&sql, equals[i]);
		appendStringInfo(&sql, LOOKUP_KEYS ".\"perfopt key %d\"", i + 1);
	}
	appendStringInfoString(&sql, " ORDER BY " LOOKUP_ORDINAL);
	statement->sql[LOOKUP_TOGETHER] = sql.data;
	statement->relids = list_make1_oid(build->relid);
	statement->row_desc = CreateTupleDescCopy(desc);
	relation_close(rel, NoLock);
}

/* The statement that calls may know an older row type. */
static void
check_row_type(TupleDesc expected, TupleDesc actual)
{
	bool		same = expected->natts == actual->natts;

	for (int i = 0; same && i < actual->natts; i++)
	{
		Form_pg_attribute want = TupleDescAttr(expected, i);
		Form_pg_attribute have = TupleDescAttr(actual, i);

		same = want->attisdropped == have->attisdropped &&
			(have->attisdropped || want->atttypid == have->atttypid);
	}
	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("row type of the table has changed"),
				 errhint("Prepare the statement again.")));
}

Datum
perfopt_fetch_many(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	FetchBuild	build;
	LookupParams params = {0};
	LookupStatement *statement;
	LookupKeys	keys;
	StringInfoData identity;
	Tuplestorestate *rows;

	build.relid = target_relation(fcinfo);
	build.names = lookup_name_list(fcinfo, 2, "key");
	if (!PG_ARGISNULL(2) && build.names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key must name at least one column")));
	rows = lookup_result_begin(fcinfo, "Call it as SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[1, 2, 3]).");

	lookup_identity_begin(&identity, 'f');
	lookup_identity_bytes(&identity, &build.relid, sizeof(Oid));
	lookup_identity_argument(&identity, fcinfo, 2);
	statement = lookup_statement_begin(&identity, &params, build_fetch, &build);
	PG_TRY();
	{
		check_row_type(result->expectedDesc, statement->row_desc);
		lookup_read_keys(&statement->key, fcinfo, 1, true, &keys);
		if (lookup_statement_run(statement, &keys, &params, rows) != keys.num)
			ereport(ERROR,
					(errcode(ERRCODE_CARDINALITY_VIOLATION),
					 errmsg("more than one row of \"%s\" has the same key", get_rel_name(build.relid)),
					 errhint("Name columns that have one row for each key, or use perfopt.lookup_children().")));
	}
	PG_FINALLY();
	{
		lookup_statement_end(statement);
	}
	PG_END_TRY();
	return (Datum) 0;
}
