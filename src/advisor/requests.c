/*
 * requests.c
 *		What people may ask for: that an advice be applied or taken back, or be
 *		dismissed.
 *
 * The caller has no right to the table of advice, and must not get one: who
 * may write a row could write any DDL into it.  So the fixed statements below,
 * and nothing else, run as the owner of the extension, with a locked
 * search_path and in a security-restricted operation; the caller's only say
 * is the id, and the reason of a dismissal.
 *
 * The table's owner may ask, who may act as him, and members of
 * perfopt.advice_role, which is for the server's administrator to name.  That is
 * checked for the caller, before anything is written.  What is asked for is
 * later done as the owner of the table, whoever asks: nobody should run what is
 * made of others' types and functions.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "common/compat.h"
#include "common/settings.h"
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
#include "utils/syscache.h"
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

/* An advice that somebody asks something of, while we are the extension's owner. */
typedef struct Request
{
	int64		id;
	Oid			caller;
	char	   *run_as;			/* role that does it, or NULL: nobody can */
	char	   *kind;
	char	   *status;
	char	   *ddl;
	char	   *undo;
	char	   *extension;		/* that it needs, or NULL */
	bool		has_table;		/* it is about one, and that exists */

	Oid			save_user;
	int			save_context;
	int			nest_level;
} Request;

static bool
has_advice_role(Oid role)
{
	Oid			advice_role = perfopt_advice_role && perfopt_advice_role[0] ?
	get_role_oid(perfopt_advice_role, true) : InvalidOid;

	return superuser_arg(role) ||
		(OidIsValid(advice_role) && has_privs_of_role(role, advice_role));
}

/* Once for each value, in each worker. */
void
perfopt_requests_check_role(void)
{
	static char told[NAMEDATALEN];
	const char *name = perfopt_advice_role ? perfopt_advice_role : "";

	if (name[0] == '\0' || OidIsValid(get_role_oid(name, true)))
		told[0] = '\0';
	else if (strncmp(told, name, NAMEDATALEN - 1) != 0)
	{
		strlcpy(told, name, NAMEDATALEN);
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist", name),
				 errdetail("perfopt.advice_role names it. Until it does, only owners of tables and superusers may have advice applied.")));
	}
}

static char *
owner_name(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return GetUserNameFromId(owner, true);
}

/*
 * Lock the row, and see whether the caller may ask.  An error restores the user
 * and the settings by aborting.
 */
static void
begin_request(Request *request, int64 id)
{
	MemoryContext caller_memory = CurrentMemoryContext;
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(id)};
	HeapTuple	tuple;
	TupleDesc	desc;
	MemoryContext spi_memory;
	char	   *schema_name;
	char	   *role_name;
	Oid			relid = InvalidOid;

	perfopt_require_preload();
	memset(request, 0, sizeof(*request));
	request->id = id;
	request->caller = GetUserId();

	GetUserIdAndSecContext(&request->save_user, &request->save_context);
	request->nest_level = NewGUCNestLevel();
	SetUserIdAndSecContext(extension_owner(),
						   request->save_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	perfopt_advice_follow_names(id);
	if (SPI_execute_with_args("SELECT kind, status, ddl, undo, schema_name, table_name, role_name,"
							  " evidence ->> 'requires_extension'"
							  " FROM perfopt.advice_item WHERE id = $1 FOR UPDATE",
							  1, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read advice");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no advice %lld", (long long) id)));
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;

	spi_memory = MemoryContextSwitchTo(caller_memory);
	request->kind = SPI_getvalue(tuple, desc, 1);
	request->status = SPI_getvalue(tuple, desc, 2);
	request->ddl = SPI_getvalue(tuple, desc, 3);
	request->undo = SPI_getvalue(tuple, desc, 4);
	request->extension = SPI_getvalue(tuple, desc, 8);
	schema_name = SPI_getvalue(tuple, desc, 5);
	role_name = SPI_getvalue(tuple, desc, 7);
	if (schema_name)
		relid = perfopt_advice_table(schema_name, SPI_getvalue(tuple, desc, 6));
	request->has_table = OidIsValid(relid);

	if (role_name)
	{
		Oid			role = get_role_oid(role_name, true);

		if (!has_advice_role(request->caller) &&
			!(OidIsValid(role) && has_privs_of_role(request->caller, role)))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("must be the role whose statements advice %lld is about",
							(long long) id)));
	}
	else if ((request->has_table && perfopt_table_ownercheck(relid, request->caller)) ||
			 has_advice_role(request->caller))
		request->run_as = request->has_table ? owner_name(relid) : NULL;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of the table that advice %lld is about",
						(long long) id),
				 errhint("Members of the role that perfopt.advice_role names may ask for any table.")));
	MemoryContextSwitchTo(spi_memory);
}

/* sql has the id as $1, a text as $2, and the caller's name as $3. */
static void
end_request(Request *request, const char *sql, const char *text)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[3];
	char		nulls[4] = "   ";

	values[0] = Int64GetDatum(request->id);
	values[1] = text ? CStringGetTextDatum(text) : (Datum) 0;

	values[2] = CStringGetTextDatum(GetUserNameFromId(request->caller, false));
	nulls[1] = text ? ' ' : 'n';

	perfopt_advice_actor = GetUserNameFromId(request->caller, false);
	PG_TRY();
	{
		if (SPI_execute_with_args(sql, 3, types, values, nulls, false, 0) != SPI_OK_UPDATE)
			elog(ERROR, "could not write advice");
	}
	PG_FINALLY();
	{
		perfopt_advice_actor = NULL;
	}
	PG_END_TRY();
	SPI_finish();
	AtEOXact_GUC(false, request->nest_level);
	SetUserIdAndSecContext(request->save_user, request->save_context);
}

static void
require_table(const Request *request)
{
	if (request->ddl == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("advice %lld is not for the server to apply or revert", (long long) request->id),
				 errdetail("Only the application can follow advice of kind %s.",
						   request->kind),
				 errhint("Column instead of perfopt.advice has the call to use.")));
	if (!request->has_table || request->run_as == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the table that advice %lld is about is gone",
						(long long) request->id),
				 errdetail("It has been dropped, or renamed, and then there is, or will be, other advice under its new name.")));
}

/* The advice may be older than the extension, so that is looked up now. */
static void
require_extension(const Request *request)
{
	if (request->extension && !OidIsValid(get_extension_oid(request->extension, true)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("advice %lld needs the extension %s, which is not installed",
						(long long) request->id, request->extension),
				 errhint("Run CREATE EXTENSION %s first.",
						 quote_identifier(request->extension))));
}

static bool
status_is(const Request *request, const char *const *of)
{
	for (; *of; of++)
		if (strcmp(request->status, *of) == 0)
			return true;
	return false;
}

static void
refuse_status(const Request *request, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("advice %lld is %s", (long long) request->id, request->status),
			 errhint("%s", hint)));
}

PG_FUNCTION_INFO_V1(perfopt_apply_advice);
PG_FUNCTION_INFO_V1(perfopt_revert_advice);
PG_FUNCTION_INFO_V1(perfopt_dismiss_advice);
PG_FUNCTION_INFO_V1(perfopt_undismiss_advice);

static const char *const busy[] = {"queued", "applying", "reverting", NULL};
static const char *const done[] = {"applied", "confirmed", "regressed", NULL};

/* apply_advice(id bigint) returns text */
Datum
perfopt_apply_advice(PG_FUNCTION_ARGS)
{
	Request		request;

	PreventCommandIfReadOnly("perfopt.apply_advice()");
	begin_request(&request, PG_GETARG_INT64(0));
	require_table(&request);
	if (status_is(&request, busy) || status_is(&request, done))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("advice %lld is %s already", (long long) request.id,
						request.status),
				 status_is(&request, done) ?
				 errhint("perfopt.revert_advice() takes it back.") :
				 errhint("perfopt.advice shows how it goes.")));
	require_extension(&request);
	end_request(&request,
				"UPDATE perfopt.advice_item SET status = 'queued', requested_by = $3, run_as = $2,"
				" requested_at = now(), automatic = false, attempts = 0, retry_at = NULL, error = NULL,"
				" dismiss_reason = NULL, applied_at = NULL, judged_at = NULL, measured_gain = NULL,"
				" measured_from = NULL, verdict = NULL WHERE id = $1", request.run_as);
	perfopt_duty_wake_at_commit(ADVISOR_APPLY_DUTY);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("queued: %s; perfopt.advice shows how it goes once this transaction commits",
											  request.ddl)));
}

/* revert_advice(id bigint) returns text */
Datum
perfopt_revert_advice(PG_FUNCTION_ARGS)
{
	Request		request;

	PreventCommandIfReadOnly("perfopt.revert_advice()");
	begin_request(&request, PG_GETARG_INT64(0));
	require_table(&request);
	if (!status_is(&request, done))
		refuse_status(&request, "Only what was applied can be reverted.");
	if (request.undo == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("advice %lld, of kind %s, can't be reverted", (long long) request.id,
						request.kind)));
	end_request(&request,
				"UPDATE perfopt.advice_item SET status = 'reverting', requested_by = $3, run_as = $2,"
				" requested_at = now(), attempts = 0, retry_at = NULL, started_at = NULL, error = NULL WHERE id = $1",
				request.run_as);
	perfopt_duty_wake_at_commit(ADVISOR_APPLY_DUTY);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("reverting: %s; perfopt.advice shows how it goes once this transaction commits",
											  request.undo)));
}

/* dismiss_advice(id bigint, reason text) */
Datum
perfopt_dismiss_advice(PG_FUNCTION_ARGS)
{
	Request		request;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PreventCommandIfReadOnly("perfopt.dismiss_advice()");
	begin_request(&request, PG_GETARG_INT64(0));
	if (status_is(&request, busy) || status_is(&request, done))
		refuse_status(&request, "What is applied can be taken back by perfopt.revert_advice().");
	end_request(&request,
				"UPDATE perfopt.advice_item SET status = 'dismissed', dismiss_reason = left($2, 1000)"
				" WHERE id = $1 AND $3 IS NOT NULL",
				PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_VOID();
}

/* undismiss_advice(id bigint) */
Datum
perfopt_undismiss_advice(PG_FUNCTION_ARGS)
{
	static const char *const dismissed[] = {"dismissed", "reverted", NULL};
	Request		request;

	PreventCommandIfReadOnly("perfopt.undismiss_advice()");
	begin_request(&request, PG_GETARG_INT64(0));
	if (!status_is(&request, dismissed))
		refuse_status(&request, "Only what was dismissed or reverted can be opened again.");
	end_request(&request,
				"UPDATE perfopt.advice_item SET status = 'open', dismiss_reason = NULL, error = NULL,"
				" applied_at = NULL, judged_at = NULL, measured_gain = NULL, measured_from = NULL, verdict = NULL"
				" WHERE id = $1 AND $2 IS NULL AND $3 IS NOT NULL", NULL);
	PG_RETURN_VOID();
}
