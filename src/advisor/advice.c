/*
 * advice.c
 *		The table of advice, perfopt.advice_item: what a round writes into it,
 *		and how the owner of a table asks for an index to be built.  Rows of
 *		other kinds than create_index are written by who finds them, in SQL.
 *
 * Tables and columns are kept by name, so that a dump and restore keeps
 * advice.  The life of an advice:
 *
 *		open ---> queued ---> applying ---> applied
 *		  |	 ^				  |
 *		  |	 |				  +-----------> failed (may be applied again)
 *		  v	 |
 *		obsolete, or applied when somebody has built the index by hand
 *
 * A round moves between open, obsolete and applied; perfopt.apply_advice()
 * makes open, failed and obsolete ones queued; apply.c does the rest.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "common/compat.h"
#include "common/shmem.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "worker/worker.h"

/* An open advice not confirmed by any round for so many days is obsolete. */
#define OPEN_DAYS	"7"

/* An obsolete one is forgotten so many days after it was last seen. */
#define OBSOLETE_DAYS	"30"

IndexSpec *
perfopt_advice_resolve(const char *schema_name, const char *table_name,
					   ArrayType *columns)
{
	Oid			namespace = get_namespace_oid(schema_name, true);
	Oid			relid = OidIsValid(namespace) ?
	get_relname_relid(table_name, namespace) : InvalidOid;
	AttrNumber	attnums[ADVICE_MAX_COLUMNS];
	Datum	   *names;
	int			num_names;
	char		relkind;

	if (!OidIsValid(relid))
		return NULL;
	relkind = get_rel_relkind(relid);
	if (relkind != RELKIND_RELATION && relkind != RELKIND_MATVIEW)
		return NULL;
	deconstruct_array(columns, TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &num_names);
	if (num_names < 1 || num_names > ADVICE_MAX_COLUMNS)
		return NULL;
	for (int i = 0; i < num_names; i++)
	{
		attnums[i] = get_attnum(relid, TextDatumGetCString(names[i]));
		if (attnums[i] <= 0)
			return NULL;
	}
	return perfopt_index_spec_of_columns(relid, num_names, attnums);
}

/*
 * A round's result
 */

bool
perfopt_advice_name(AdviceFound *found)
{
	Relation	relation = perfopt_index_spec_open(&found->spec);

	if (relation == NULL)
		return false;
	found->schema_name = get_namespace_name(RelationGetNamespace(relation));
	found->table_name = pstrdup(RelationGetRelationName(relation));
	for (int i = 0; i < found->spec.num_columns; i++)
		found->columns[i] = pstrdup(NameStr(TupleDescAttr(RelationGetDescr(relation),
														  found->spec.columns[i].attnum - 1)->attname));
	found->index_name = perfopt_index_spec_name(&found->spec, relation);
	if (found->schema_name)
		found->ddl = perfopt_index_spec_ddl(&found->spec, relation, found->index_name);
	relation_close(relation, AccessShareLock);
	return found->schema_name != NULL;
}

static void
execute(const char *sql, int nargs, Oid *types, Datum *values, int expected)
{
	if (SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0) != expected)
		elog(ERROR, "could not write advice");
}

static void
store_one(const AdviceFound *found)
{
	Oid			types[] = {TEXTOID, TEXTOID, TEXTARRAYOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID};
	Datum		values[8];
	Datum		column_datums[ADVICE_MAX_COLUMNS];
	int			n = found->spec.num_columns;

	for (int i = 0; i < n; i++)
		column_datums[i] = CStringGetTextDatum(found->columns[i]);
	values[0] = CStringGetTextDatum(found->schema_name);
	values[1] = CStringGetTextDatum(found->table_name);
	values[2] = PointerGetDatum(construct_array(column_datums, n, TEXTOID, -1, false,
												TYPALIGN_INT));
	values[3] = CStringGetTextDatum(found->index_name);
	values[4] = CStringGetTextDatum(found->ddl);
	values[5] = CStringGetTextDatum(found->reason);
	values[6] = CStringGetTextDatum(found->evidence);
	values[7] = Int64GetDatum((int64) found->bytes);

	/*
	 * Not what is queued or being built: the worker and its index have that
	 * row.  Nor what apply_advice() has locked in some open transaction: that
	 * waits for another round.
	 */
	execute("UPDATE perfopt.advice_item SET"
			"  index_name = $4, ddl = $5, reason = $6, evidence = $7::jsonb,"
			"  estimated_bytes = $8, last_seen = now(), applied_at = NULL,"
			"  first_seen = CASE WHEN status IN ('applied', 'obsolete')"
			"   THEN now() ELSE first_seen END,"
			"  status = CASE WHEN status = 'failed' THEN 'failed' ELSE 'open' END"
			" WHERE id = (SELECT id FROM perfopt.advice_item"
			"   WHERE kind = 'create_index' AND schema_name = $1 AND table_name = $2"
			"    AND column_names = $3 AND status NOT IN ('queued', 'applying')"
			"   FOR UPDATE SKIP LOCKED)",
			8, types, values, SPI_OK_UPDATE);
	execute("INSERT INTO perfopt.advice_item"
			" (kind, schema_name, table_name, column_names, index_name, ddl, reason,"
			"  evidence, estimated_bytes, status)"
			" SELECT 'create_index', $1, $2, $3, $4, $5, $6, $7::jsonb, $8, 'open'"
			" WHERE NOT EXISTS (SELECT FROM perfopt.advice_item"
			"   WHERE kind = 'create_index' AND schema_name = $1 AND table_name = $2"
			"    AND column_names = $3)",
			8, types, values, SPI_OK_INSERT);
}

/*
 * Look again at advice that nobody has acted on: it may have been followed by
 * hand, its table may be gone, or its reason.
 */
static void
revise(List *found, Datum priced_queryids)
{
	Oid			types[] = {INT8ARRAYOID};
	SPITupleTable *table;
	uint64		num_rows;

	if (SPI_execute_with_args("SELECT id, schema_name, table_name, column_names,"
							  " last_seen < now() - interval '" OPEN_DAYS " days'"
							  " OR EXISTS (SELECT FROM jsonb_array_elements(evidence -> 'queries') q"
							  "  WHERE (q ->> 'queryid')::bigint = ANY ($1))"
							  " FROM perfopt.advice_item"
							  " WHERE kind = 'create_index' AND status IN ('open', 'failed')"
							  " FOR UPDATE SKIP LOCKED",
							  1, types, &priced_queryids, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read advice");
	table = SPI_tuptable;
	num_rows = SPI_processed;
	for (uint64 i = 0; i < num_rows; i++)
	{
		HeapTuple	tuple = table->vals[i];
		TupleDesc	desc = table->tupdesc;
		bool		isnull;
		Datum		values[2];
		Oid			update_types[] = {INT8OID, TEXTOID};
		char	   *schema_name = SPI_getvalue(tuple, desc, 2);
		char	   *table_name = SPI_getvalue(tuple, desc, 3);
		ArrayType  *columns = DatumGetArrayTypeP(SPI_getbinval(tuple, desc, 4, &isnull));
		bool		judged = DatumGetBool(SPI_getbinval(tuple, desc, 5, &isnull)) && !isnull;
		const char *status = NULL;
		IndexSpec  *spec = perfopt_advice_resolve(schema_name, table_name, columns);
		Relation	relation;
		ListCell   *lc;

		CHECK_FOR_INTERRUPTS();
		if (spec == NULL)
			status = "obsolete";
		else if ((relation = perfopt_index_spec_open(spec)) != NULL)
		{
			spec->any_direction = true;
			if (perfopt_index_exists(relation, spec))
				status = "applied";
			relation_close(relation, AccessShareLock);
		}
		if (status == NULL && judged)
		{
			status = "obsolete";
			foreach(lc, found)
				if (perfopt_index_spec_equal(&((AdviceFound *) lfirst(lc))->spec, spec))
				status = NULL;
		}
		if (status == NULL)
			continue;
		values[0] = SPI_getbinval(tuple, desc, 1, &isnull);
		values[1] = CStringGetTextDatum(status);
		execute("UPDATE perfopt.advice_item SET status = $2, error = NULL,"
				" applied_at = CASE WHEN $2 = 'applied' THEN now() END"
				" WHERE id = $1 AND status IN ('open', 'failed')",
				2, update_types, values, SPI_OK_UPDATE);
	}
}

void
perfopt_advice_store(List *found, Datum priced_queryids)
{
	ListCell   *lc;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	foreach(lc, found)
		store_one(lfirst(lc));
	revise(found, priced_queryids);
	execute("DELETE FROM perfopt.advice_item WHERE id IN"
			" (SELECT id FROM perfopt.advice_item WHERE kind = 'create_index' AND status = 'obsolete'"
			"   AND last_seen < now() - interval '" OBSOLETE_DAYS " days'"
			"  FOR UPDATE SKIP LOCKED)",
			0, NULL, NULL, SPI_OK_DELETE);
	SPI_finish();
}

/*
 * Asking for an index
 */
static Oid
extension_owner(void)
{
	Oid			extension = get_extension_oid("perfopt", false);
	Relation	catalog = relation_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(catalog, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	relation_close(catalog, AccessShareLock);
	if (!OidIsValid(owner))
		elog(ERROR, "extension \"perfopt\" has no owner");
	return owner;
}

PG_FUNCTION_INFO_V1(perfopt_apply_advice);

/*
 * apply_advice(id bigint) returns text
 *
 * The caller has no right to the table of advice, and must not get one: who
 * may write a row could write any DDL into it.  So the two fixed statements
 * below, and nothing else, run as the owner of the extension, with a locked
 * search_path and in a security-restricted operation; the caller's only say
 * is the id.  The right to have the index is checked for the caller, before
 * anything is written, and the index is later built as the caller.
 */
Datum
perfopt_apply_advice(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);
	Oid			caller = GetUserId();
	Oid			save_user;
	int			save_context;
	int			nest_level;
	Oid			types[] = {INT8OID, TEXTOID};
	Datum		values[2];
	HeapTuple	tuple;
	TupleDesc	desc;
	char	   *status;
	IndexSpec  *spec;
	Oid			relid;
	bool		isnull;
	MemoryContext caller_memory = CurrentMemoryContext;
	char	   *result;

	perfopt_require_preload();
	PreventCommandIfReadOnly("perfopt.apply_advice()");

	values[0] = Int64GetDatum(id);
	values[1] = CStringGetTextDatum(GetUserNameFromId(caller, false));

	/* an error restores the user and the settings by aborting */
	GetUserIdAndSecContext(&save_user, &save_context);
	nest_level = NewGUCNestLevel();
	SetUserIdAndSecContext(extension_owner(),
						   save_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args("SELECT schema_name, table_name, column_names, status, ddl, kind"
							  " FROM perfopt.advice_item WHERE id = $1 FOR UPDATE",
							  1, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read advice");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no advice %lld", (long long) id)));
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	if (strcmp(SPI_getvalue(tuple, desc, 6), "create_index") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("advice %lld is not about an index", (long long) id),
				 errdetail("Only the application can follow advice of kind %s.",
						   SPI_getvalue(tuple, desc, 6)),
				 errhint("Column instead of perfopt.advice has the call to use.")));
	spec = perfopt_advice_resolve(SPI_getvalue(tuple, desc, 1), SPI_getvalue(tuple, desc, 2),
								  DatumGetArrayTypeP(SPI_getbinval(tuple, desc, 3, &isnull)));
	relid = spec ? spec->relid : InvalidOid;
	status = SPI_getvalue(tuple, desc, 4);

	if (!OidIsValid(relid) ? !superuser_arg(caller) :
		!perfopt_table_ownercheck(relid, caller))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of the table that advice %lld is about",
						(long long) id)));
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the table or a column that advice %lld is about is gone",
						(long long) id)));
	if (strcmp(status, "queued") == 0 || strcmp(status, "applying") == 0 ||
		strcmp(status, "applied") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("advice %lld is %s already", (long long) id, status)));

	execute("UPDATE perfopt.advice_item SET status = 'queued', requested_by = $2,"
			" requested_at = now(), error = NULL WHERE id = $1",
			2, types, values, SPI_OK_UPDATE);
	{
		char	   *ddl = SPI_getvalue(tuple, desc, 5);
		MemoryContext old_context = MemoryContextSwitchTo(caller_memory);

		result = psprintf("queued: %s; perfopt.advice shows how it goes once this transaction commits",
						  ddl);
		MemoryContextSwitchTo(old_context);
	}
	SPI_finish();
	AtEOXact_GUC(false, nest_level);
	SetUserIdAndSecContext(save_user, save_context);

	perfopt_duty_wake_at_commit(ADVISOR_APPLY_DUTY);
	PG_RETURN_TEXT_P(cstring_to_text(result));
}
