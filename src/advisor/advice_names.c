/*
 * advice_names.c
 *		Advice is kept by names, so that a dump and restore keeps it; and follows its
 *		table, and the index that was built, when they are renamed.
 *
 * The OIDs that the names stood for are kept beside them, with the database they are
 * of: after a restore they mean nothing, and are learned anew.  So they are when what
 * had them is gone, or goes, as the old index does in REINDEX CONCURRENTLY.  An index
 * that has an OID here, but is no more, has been dropped; one that has none may still
 * be built, by a restore that goes on.
 *
 * Followed is advice for a new index: other kinds are found again under the new names.
 * Not while it is being done: the job has the old names.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#define OF_ADVICE \
	" kind IN ('create_index', 'index_foreign_key') AND status NOT IN ('applying', 'reverting', 'obsolete')" \
	" AND $1 IN (0, id)"

/*
 * An index that is not valid may be the old one that REINDEX CONCURRENTLY is still to
 * drop, which has given its name away.  What has not changed is not locked: that
 * would be written, too.
 */
static const char *const learn =
"UPDATE perfopt.advice_item i SET origin = $2, table_oid = n.new_table, index_oid = n.new_index"
" FROM (SELECT a.id, new_table, new_index FROM perfopt.advice_item a CROSS JOIN LATERAL (SELECT"
"   CASE WHEN origin = $2 AND EXISTS (SELECT FROM pg_class WHERE oid = table_oid) THEN table_oid"
"    ELSE to_regclass(format('%I.%I', schema_name, table_name))::oid END AS new_table,"
"   CASE WHEN status NOT IN ('applied', 'confirmed', 'regressed') THEN NULL"
"    WHEN origin = $2 AND EXISTS (SELECT FROM pg_index WHERE indexrelid = index_oid AND indisvalid) THEN index_oid"
"    ELSE coalesce(to_regclass(format('%I.%I', schema_name, index_name))::oid,"
"     CASE WHEN origin = $2 THEN index_oid END) END AS new_index) l"
"  WHERE" OF_ADVICE " AND (origin, table_oid, index_oid) IS DISTINCT FROM ($2, new_table, new_index)"
"  FOR UPDATE OF a SKIP LOCKED) n"
" WHERE i.id = n.id";

static const char *const find_renamed =
"SELECT i.id, n.nspname::text, c.relname::text, coalesce(x.relname::text, i.index_name), i.definition, c.relkind = 'p'"
" FROM perfopt.advice_item i JOIN pg_class c ON c.oid = i.table_oid JOIN pg_namespace n ON n.oid = c.relnamespace"
"  LEFT JOIN pg_index k ON k.indexrelid = i.index_oid AND k.indrelid = i.table_oid"
"  LEFT JOIN pg_class x ON x.oid = k.indexrelid"
" WHERE" OF_ADVICE " AND i.origin = $2"
"  AND (i.schema_name, i.table_name, i.index_name) IS DISTINCT FROM (n.nspname::text, c.relname::text, coalesce(x.relname::text, i.index_name))"
" FOR UPDATE OF i SKIP LOCKED";

/* Unless there is such advice already. */
static const char *const rename_advice =
"UPDATE perfopt.advice_item i SET schema_name = $2, table_name = $3, index_name = $4,"
"  ddl = coalesce($5, ddl), undo = CASE WHEN undo IS NOT NULL THEN coalesce($6, undo) END"
" WHERE id = $1 AND NOT EXISTS (SELECT FROM perfopt.advice_item o WHERE o.id <> i.id AND o.kind = i.kind"
"  AND o.schema_name = $2 AND o.table_name = $3 AND o.definition = i.definition)";

static void
execute(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int expected)
{
	if (SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0) != expected)
		elog(ERROR, "could not follow the names of advice");
}

/* Inside SPI, with a search_path of pg_catalog. */
void
perfopt_advice_follow_names(int64 id)
{
	Oid			types[] = {INT8OID, TEXTOID};
	Datum		values[2];
	Oid			new_types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	SPITupleTable *table;
	uint64		num;

	values[0] = Int64GetDatum(id);
	values[1] = CStringGetTextDatum(psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId));
	execute(learn, 2, types, values, NULL, SPI_OK_UPDATE);
	execute(find_renamed, 2, types, values, NULL, SPI_OK_SELECT);
	table = SPI_tuptable;
	num = SPI_processed;
	for (uint64 i = 0; i < num; i++)
	{
		HeapTuple	tuple = table->vals[i];
		TupleDesc	desc = table->tupdesc;
		char	   *schema_name = SPI_getvalue(tuple, desc, 2);
		char	   *table_name = SPI_getvalue(tuple, desc, 3);
		char	   *index_name = SPI_getvalue(tuple, desc, 4);
		char	   *definition = SPI_getvalue(tuple, desc, 5);
		bool		isnull;
		bool		has_partitions = DatumGetBool(SPI_getbinval(tuple, desc, 6, &isnull));
		Datum		new_values[6] = {0};
		char		nulls[7] = "   nnn";

		new_values[0] = SPI_getbinval(tuple, desc, 1, &isnull);
		new_values[1] = CStringGetTextDatum(schema_name);
		new_values[2] = CStringGetTextDatum(table_name);
		if (index_name)
		{
			memset(nulls + 3, ' ', 3);
			new_values[3] = CStringGetTextDatum(index_name);
			new_values[4] = CStringGetTextDatum(has_partitions ?
												perfopt_index_ddl_of_parent(index_name, schema_name, table_name, definition) :
												perfopt_index_ddl(index_name, schema_name, table_name, definition));
			new_values[5] = CStringGetTextDatum(psprintf("DROP INDEX %s%s", has_partitions ? "" : "CONCURRENTLY ",
														 quote_qualified_identifier(schema_name, index_name)));
		}
		execute(rename_advice, 6, new_types, new_values, nulls, SPI_OK_UPDATE);
	}
}
