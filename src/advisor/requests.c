/*
 * requests.c
 *		What the owner of a table may ask for: that an advice be applied.
 *
 * The caller has no right to the table of advice, and must not get one: who
 * may write a row could write any DDL into it.  So the fixed statements below,
 * and nothing else, run as the owner of the extension, with a locked
 * search_path and in a security-restricted operation; the caller's only say
 * is the id.  The right to have the index is checked for the caller, before
 * anything is written, and the index is later built as the caller.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
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
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "worker/worker.h"

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

/* apply_advice(id bigint) returns text */
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
	Oid			relid;
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
	if (SPI_execute_with_args("SELECT schema_name, table_name, status, ddl, kind"
							  " FROM perfopt.advice_item WHERE id = $1 FOR UPDATE",
							  1, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read advice");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no advice %lld", (long long) id)));
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	if (strcmp(SPI_getvalue(tuple, desc, 5), "create_index") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("advice %lld is not about an index", (long long) id),
				 errdetail("Only the application can follow advice of kind %s.",
						   SPI_getvalue(tuple, desc, 5)),
				 errhint("Column instead of perfopt.advice has the call to use.")));
	relid = perfopt_advice_table(SPI_getvalue(tuple, desc, 1), SPI_getvalue(tuple, desc, 2));
	status = SPI_getvalue(tuple, desc, 3);

	if (!OidIsValid(relid) ? !superuser_arg(caller) :
		!perfopt_table_ownercheck(relid, caller))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of the table that advice %lld is about",
						(long long) id)));
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the table that advice %lld is about is gone",
						(long long) id)));
	if (strcmp(status, "queued") == 0 || strcmp(status, "applying") == 0 ||
		strcmp(status, "applied") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("advice %lld is %s already", (long long) id, status)));

	if (SPI_execute_with_args("UPDATE perfopt.advice_item SET status = 'queued', requested_by = $2,"
							  " requested_at = now(), error = NULL WHERE id = $1",
							  2, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write advice");
	{
		char	   *ddl = SPI_getvalue(tuple, desc, 4);
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
