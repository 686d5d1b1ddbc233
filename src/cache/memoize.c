/*
 * memoize.c
 *		perfopt.memoize(): calls of a function are answered from the cache.
 *
 * The function gets a planner support function, which puts
 * perfopt.memoized_call(NULL::type, function, arguments) in the place of a call
 * in every plan made from then on.  It is polymorphic, as the executor asks the
 * catalog what functions in FROM return.  Views, rules and the like keep the
 * call itself.
 * Where the planner compares expressions with those of indexes, partition
 * keys, statistics and constraints, they must stay as they are: functions used
 * there are not replaced.
 *
 * How long results are kept is a setting of the function, perfopt.memoize_ttl,
 * that nothing but this file reads.  So both are parts of the function: dumped
 * and restored with it, renamed and dropped, and gone when it is replaced.
 *
 * ALTER FUNCTION ... SUPPORT is for superusers, because a support function is
 * trusted by the planner.  This one may be trusted, so owners can have it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "cache/cache_internal.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_statistic_ext.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/shmem.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/supportnodes.h"
#include "optimizer/planmain.h"
#include "parser/parse_func.h"
#include "parser/parse_type.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(perfopt_memoize);
PG_FUNCTION_INFO_V1(perfopt_unmemoize);
PG_FUNCTION_INFO_V1(perfopt_memoize_support);
PG_FUNCTION_INFO_V1(perfopt_memoized_call);

#define TTL_SETTING		"perfopt.memoize_ttl"

/* Of memoized_call(): those before the function's own, and which is the function. */
#define NUM_LEADING_ARGS	2
#define FUNCTION_ARG		1

/* Calls with longer arguments are not worth a key. */
#define MAX_KEY_LEN		(64 * 1024)

/* ---------------------------------------------------------------------
 * Making a function a memoized one
 */

static Oid
support_function(void)
{
	Oid			types[] = {INTERNALOID};

	return LookupFuncName(list_make2(makeString("perfopt"), makeString("memoize_support")),
						  1, types, false);
}

/* Raise an error, with a reason, unless results of the function can be kept. */
static void
check_function(HeapTuple tuple)
{
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);
	const char *reason = NULL;
	const char *hint = NULL;

	if (form->prokind != PROKIND_FUNCTION)
		reason = "Procedures, aggregates and window functions cannot be memoized.";
	else if (form->oid < FirstNormalObjectId)
		reason = "It is a function of the system.";
	else if (form->provolatile == PROVOLATILE_VOLATILE)
	{
		reason = "It is VOLATILE: each call may give another result, or have an effect.";
		hint = "If that is not so, declare it STABLE or IMMUTABLE.";
	}
	else if (form->proretset)
		reason = "It returns a set.";
	else if (get_typtype(form->prorettype) == TYPTYPE_PSEUDO)
		reason = "Its result has no type of its own.";
	else if (form->pronargs > FUNC_MAX_ARGS - NUM_LEADING_ARGS)
		reason = "It has too many arguments.";
	for (int i = 0; i < form->pronargs && reason == NULL; i++)
	{
		if (get_typtype(form->proargtypes.values[i]) == TYPTYPE_PSEUDO)
			reason = "It has an argument of a pseudo-type.";
	}
	if (reason)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("function %s cannot be memoized", format_procedure(form->oid)),
				 errdetail_internal("%s", reason),
				 hint ? errhint("%s", hint) : 0));
	if (OidIsValid(form->prosupport) && form->prosupport != support_function())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("function %s cannot be memoized", format_procedure(form->oid)),
				 errdetail("It has the support function %s already.",
						   format_procedure(form->prosupport))));
}

/* ttl in seconds, or 0: no longer memoized. */
static void
alter_function(Oid function, double ttl)
{
	Relation	rel;
	HeapTuple	tuple;
	HeapTuple	altered;
	Form_pg_proc form;
	Oid			before;
	Oid			support = support_function();
	Datum		values[Natts_pg_proc] = {0};
	bool		nulls[Natts_pg_proc] = {0};
	bool		replace[Natts_pg_proc] = {0};
	Datum		config;
	bool		isnull;
	ArrayType  *settings;

	PreventCommandIfReadOnly(ttl > 0 ? "perfopt.memoize()" : "perfopt.unmemoize()");
	PreventCommandIfParallelMode(ttl > 0 ? "perfopt.memoize()" : "perfopt.unmemoize()");

	rel = table_open(ProcedureRelationId, RowExclusiveLock);
	tuple = SearchSysCacheCopy1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", function)));
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (!perfopt_object_ownercheck(ProcedureRelationId, function, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FUNCTION, NameStr(form->proname));
	before = form->prosupport;
	if (ttl > 0)
		check_function(tuple);
	else if (before != support)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("function %s is not memoized", format_procedure(function))));

	config = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proconfig, &isnull);
	settings = isnull ? NULL : DatumGetArrayTypePCopy(config);
	settings = ttl > 0 ?
		GUCArrayAdd(settings, TTL_SETTING, psprintf("%.15g", ttl)) :
		GUCArrayDelete(settings, TTL_SETTING);
	values[Anum_pg_proc_proconfig - 1] = PointerGetDatum(settings);
	nulls[Anum_pg_proc_proconfig - 1] = settings == NULL;
	replace[Anum_pg_proc_proconfig - 1] = true;
	values[Anum_pg_proc_prosupport - 1] = ObjectIdGetDatum(ttl > 0 ? support : InvalidOid);
	replace[Anum_pg_proc_prosupport - 1] = true;
	altered = heap_modify_tuple(tuple, RelationGetDescr(rel), values, nulls, replace);
	CatalogTupleUpdate(rel, &altered->t_self, altered);

	if (ttl > 0 && before != support)
	{
		ObjectAddress address;
		ObjectAddress referenced;

		ObjectAddressSet(address, ProcedureRelationId, function);
		ObjectAddressSet(referenced, ProcedureRelationId, support);
		recordDependencyOn(&address, &referenced, DEPENDENCY_NORMAL);
	}
	else if (ttl <= 0)
		(void) deleteDependencyRecordsForSpecific(ProcedureRelationId, function,
												  DEPENDENCY_NORMAL,
												  ProcedureRelationId, support);
	InvokeObjectPostAlterHook(ProcedureRelationId, function, 0);
	table_close(rel, NoLock);
}

Datum
perfopt_memoize(PG_FUNCTION_ARGS)
{
	double		ttl;

	perfopt_require_preload();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the function must not be null")));
	ttl = (double) cache_ttl_argument(fcinfo, 1) / USECS_PER_SEC;
	ttl = Max(0.001, Min(ttl, 1e9));
	alter_function(PG_GETARG_OID(0), ttl);
	PG_RETURN_VOID();
}

Datum
perfopt_unmemoize(PG_FUNCTION_ARGS)
{
	perfopt_require_preload();
	alter_function(PG_GETARG_OID(0), 0);
	PG_RETURN_VOID();
}

/* ---------------------------------------------------------------------
 * In the planner
 */

/* Are those arguments of exactly the types that the function has, and results? */
static bool
signature_matches(Form_pg_proc form, Oid result_type, List *args)
{
	if (form->proretset || form->prokind != PROKIND_FUNCTION ||
		form->prorettype != result_type || form->pronargs != list_length(args))
		return false;
	for (int i = 0; i < form->pronargs; i++)
	{
		if (exprType(list_nth(args, i)) != form->proargtypes.values[i])
			return false;
	}
	return true;
}

/* Does an index, a partition key, a constraint or statistics call it? */
static bool
is_used_by_relations(Oid function)
{
	Relation	rel = table_open(DependRelationId, AccessShareLock);
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		used = false;

	ScanKeyInit(&key[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ProcedureRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(function));
	scan = systable_beginscan(rel, DependReferenceIndexId, true, NULL, 2, key);
	while (!used && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			class = ((Form_pg_depend) GETSTRUCT(tuple))->classid;

		used = class == RelationRelationId || class == ConstraintRelationId ||
			class == StatisticExtRelationId;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return used;
}

/* The call of memoized_call() that stands for a call, or NULL. */
static Node *
simplify(PlannerInfo *root, FuncExpr *call)
{
	Oid			types[] = {ANYELEMENTOID, ANYOID};
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(call->funcid));
	Form_pg_proc form;
	bool		fits;
	FuncExpr   *memoized;
	Const	   *function;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	form = (Form_pg_proc) GETSTRUCT(tuple);
	fits = form->provolatile != PROVOLATILE_VOLATILE &&
		signature_matches(form, call->funcresulttype, call->args) &&
		(form->provolatile != PROVOLATILE_IMMUTABLE || !is_used_by_relations(call->funcid));
	ReleaseSysCache(tuple);
	if (!fits)
		return NULL;

	record_plan_function_dependency(root, call->funcid);
	function = makeConst(REGPROCEDUREOID, -1, InvalidOid, sizeof(Oid),
						 ObjectIdGetDatum(call->funcid), false, true);
	memoized = makeNode(FuncExpr);
	memoized->funcid = LookupFuncName(list_make2(makeString("perfopt"),
												 makeString("memoized_call")),
									  2, types, false);
	memoized->funcresulttype = call->funcresulttype;
	memoized->funcformat = COERCE_EXPLICIT_CALL;
	memoized->funccollid = call->funccollid;
	memoized->inputcollid = call->inputcollid;
	memoized->args = lcons(makeNullConst(call->funcresulttype, -1, call->funccollid),
						   lcons(function, list_copy(call->args)));
	memoized->location = -1;
	return (Node *) memoized;
}

Datum
perfopt_memoize_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	/* without a root it is no plan, but an expression of an index or the like */
	if (perfopt_shmem_ready() && IsA(request, SupportRequestSimplify) &&
		((SupportRequestSimplify *) request)->root != NULL)
		PG_RETURN_POINTER(simplify(((SupportRequestSimplify *) request)->root,
								   ((SupportRequestSimplify *) request)->fcall));
	PG_RETURN_POINTER(NULL);
}

/* ---------------------------------------------------------------------
 * In the executor
 */

/* What is known of a function; in fn_extra. */
typedef struct Memoized
{
	FmgrInfo	function;
	bool		kept;			/* not if it has just been unmemoized, or has
								 * a temporary type */
	int			num_args;
	Oid			collation;
	double		ttl;			/* seconds */
	uint32		proc_hash;		/* of its PROCOID invalidations */
	int16		result_len;
	bool		result_by_value;
	char	   *label;
	CacheTypes	types;			/* of arguments and result */
	struct
	{
		int16		len;
		bool		by_value;
	}			args[FLEXIBLE_ARRAY_MEMBER];
} Memoized;

/* One call of it. */
typedef struct Call
{
	Memoized   *memoized;
	NullableDatum *args;		/* the function's own */
	Datum		result;
	bool		isnull;
} Call;

static double
ttl_of(HeapTuple tuple)
{
	bool		isnull;
	Datum		config = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proconfig, &isnull);
	Datum	   *settings;
	int			num_settings;
	double		ttl = 3600.0;

	if (isnull)
		return ttl;
	deconstruct_array(DatumGetArrayTypeP(config), TEXTOID, -1, false, TYPALIGN_INT,
					  &settings, NULL, &num_settings);
	for (int i = 0; i < num_settings; i++)
	{
		char	   *setting = TextDatumGetCString(settings[i]);

		if (strncmp(setting, TTL_SETTING "=", strlen(TTL_SETTING "=")) == 0)
			(void) parse_real(setting + strlen(TTL_SETTING "="), &ttl, GUC_UNIT_S, NULL);
	}
	return ttl;
}

static Memoized *
set_up(FunctionCallInfo fcinfo)
{
	FuncExpr   *call = (FuncExpr *) fcinfo->flinfo->fn_expr;
	MemoryContext old_context = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	Const	   *constant;
	Oid			function;
	HeapTuple	tuple;
	Form_pg_proc form;
	FuncExpr   *original;
	Memoized   *memoized;
	AclResult	acl;

	if (call == NULL || !IsA(call, FuncExpr) || list_length(call->args) < NUM_LEADING_ARGS ||
		!IsA(list_nth(call->args, FUNCTION_ARG), Const))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("perfopt.memoized_call() is for plans only")));
	constant = list_nth(call->args, FUNCTION_ARG);
	if (constant->consttype != REGPROCEDUREOID || constant->constisnull)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("perfopt.memoized_call() is for plans only")));
	function = DatumGetObjectId(constant->constvalue);
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", function)));
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (!signature_matches(form, call->funcresulttype, list_copy_tail(call->args, NUM_LEADING_ARGS)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("perfopt.memoized_call() is for plans only"),
				 errdetail("Its arguments and result are not those of %s.",
						   format_procedure(function))));

	/* as the executor would for the call itself */
	acl = perfopt_function_aclcheck(function, GetUserId());
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_FUNCTION, NameStr(form->proname));
	InvokeFunctionExecuteHook(function);

	memoized = palloc0(offsetof(Memoized, args) + sizeof(memoized->args[0]) * form->pronargs);
	fmgr_info_cxt(function, &memoized->function, fcinfo->flinfo->fn_mcxt);
	original = copyObject(call);
	original->funcid = function;
	original->args = list_copy_tail(original->args, NUM_LEADING_ARGS);
	fmgr_info_set_expr((Node *) original, &memoized->function);
	memoized->kept = form->prosupport == support_function() &&
		form->provolatile != PROVOLATILE_VOLATILE;
	memoized->num_args = form->pronargs;
	memoized->collation = call->inputcollid;
	memoized->ttl = ttl_of(tuple);
	memoized->proc_hash = GetSysCacheHashValue1(PROCOID, ObjectIdGetDatum(function));
	memoized->label = format_procedure_qualified(function);
	get_typlenbyval(form->prorettype, &memoized->result_len, &memoized->result_by_value);
	cache_types_add(&memoized->types, form->prorettype);
	for (int i = 0; i < form->pronargs; i++)
	{
		get_typlenbyval(form->proargtypes.values[i], &memoized->args[i].len,
						&memoized->args[i].by_value);
		cache_types_add(&memoized->types, form->proargtypes.values[i]);
	}
	memoized->kept &= !OidIsValid(memoized->types.temporary);
	ReleaseSysCache(tuple);
	MemoryContextSwitchTo(old_context);
	return memoized;
}

static void
call_function(void *arg)
{
	Call	   *call = arg;

	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);

	InitFunctionCallInfoData(*fcinfo, &call->memoized->function, call->memoized->num_args,
							 call->memoized->collation, NULL, NULL);
	for (int i = 0; i < call->memoized->num_args; i++)
		fcinfo->args[i] = call->args[i];
	call->result = FunctionCallInvoke(fcinfo);
	call->isnull = fcinfo->isnull;
}

/* The key, in the current context. */
static CacheBypass
make_key(void *arg, CacheKey *key)
{
	const Call *call = arg;
	const Memoized *memoized = call->memoized;
	StringInfoData buf;

	initStringInfo(&buf);
	cache_key_append_session(&buf);
	appendStringInfoChar(&buf, 'f');
	appendBinaryStringInfo(&buf, (char *) &memoized->function.fn_oid, sizeof(Oid));
	appendBinaryStringInfo(&buf, (char *) &memoized->collation, sizeof(Oid));
	for (int i = 0; i < memoized->num_args; i++)
	{
		NullableDatum arg = call->args[i];

		appendStringInfoChar(&buf, arg.isnull ? 'n' : 'v');
		if (arg.isnull)
			continue;
		if (memoized->args[i].by_value)
			appendBinaryStringInfo(&buf, (char *) &arg.value, sizeof(Datum));
		else if (memoized->args[i].len > 0)
			appendBinaryStringInfo(&buf, DatumGetPointer(arg.value), memoized->args[i].len);
		else
		{
			struct varlena *value = PG_DETOAST_DATUM_PACKED(arg.value);
			uint32		len = VARSIZE_ANY_EXHDR(value);

			if (len > MAX_KEY_LEN)
				return CACHE_BYPASS_OVERSIZED;
			appendBinaryStringInfo(&buf, (char *) &len, sizeof(len));
			appendBinaryStringInfo(&buf, VARDATA_ANY(value), len);
		}
		if (buf.len > MAX_KEY_LEN)
			return CACHE_BYPASS_OVERSIZED;
	}
	cache_key_finish(key, &buf);
	return CACHE_BYPASS_NONE;
}

static void
compute(void *arg, CacheEntrySpec *spec)
{
	Call	   *call = arg;

	call_function(call);
	if (call->isnull)
		return;
	if (call->memoized->result_by_value)
	{
		spec->data = (char *) &call->result;
		spec->data_len = sizeof(Datum);
	}
	else if (call->memoized->result_len > 0)
	{
		spec->data = DatumGetPointer(call->result);
		spec->data_len = call->memoized->result_len;
	}
	else
	{
		/* flat, and in line */
		call->result = PointerGetDatum(PG_DETOAST_DATUM(call->result));
		spec->data = DatumGetPointer(call->result);
		spec->data_len = VARSIZE(spec->data);
	}
}

static void
fill(void *arg, const CacheKey *key, const CacheReader *reader)
{
	Call	   *call = arg;
	CacheDependencies *deps = cache_dependencies_create(CurrentMemoryContext);
	ListCell   *lc;
	CacheEntrySpec spec = {
		.key = *key,
		.label = call->memoized->label,
		.label_len = strlen(call->memoized->label),
		.prefix_len = strlen(call->memoized->label),
		.kind = CACHE_ENTRY_DATUM,
		.face = CACHE_FACE_FUNCTION,
		.rows = 1,
		.expires_at = GetCurrentTimestamp() + (int64) (call->memoized->ttl * USECS_PER_SEC)
	};

	cache_dependencies_add_definition(deps, cache_definition_of_item(PROCOID, call->memoized->proc_hash));
	cache_dependencies_add_definition(deps, cache_definition_of_database());
	cache_dependencies_add_definition(deps, cache_definition_of_cluster());
	cache_dependencies_add_definition(deps, cache_definition_of_entries(GetUserId()));
	foreach(lc, call->memoized->types.definitions)
		cache_dependencies_add_definition(deps, lfirst_int(lc));
	(void) cache_fill(&spec, deps, reader, compute, call);
}

/* Take the result from the entry.  False when it is none of ours. */
static bool
take_result(void *arg, const CacheEntry *entry)
{
	Call	   *call = arg;
	const Memoized *memoized = call->memoized;
	const char *data;

	if (entry->face != CACHE_FACE_FUNCTION)
		return false;
	call->isnull = entry->data_len == 0;
	if (call->isnull)
		return true;
	data = cache_entry_data(entry);
	if (memoized->result_by_value)
		memcpy(&call->result, data, sizeof(Datum));
	else
	{
		char	   *copy = palloc(entry->data_len);

		memcpy(copy, data, entry->data_len);
		call->result = PointerGetDatum(copy);
	}
	return true;
}

static const CacheFaceMethods function_face = {
	.key = make_key,
	.take = take_result,
	.fill = fill,
	.run = call_function
};

Datum
perfopt_memoized_call(PG_FUNCTION_ARGS)
{
	Call		call = {0};

	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = set_up(fcinfo);
	call.memoized = fcinfo->flinfo->fn_extra;
	call.args = fcinfo->args + NUM_LEADING_ARGS;

	if (call.memoized->function.fn_strict)
	{
		for (int i = 0; i < call.memoized->num_args; i++)
		{
			if (call.args[i].isnull)
				PG_RETURN_NULL();
		}
	}
	if (call.memoized->kept)
		cache_answer(&function_face, &call);
	else
		call_function(&call);
	if (call.isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(call.result);
}
