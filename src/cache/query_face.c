/*
 * query_face.c
 *		perfopt.cached() and perfopt.cached_json(): a query's result from the
 *		cache, or computed and put there.
 *
 * Whatever stands against the cache, the query is run directly, under the same
 * snapshot, and the result is the same.
 */
#include "postgres.h"

#include "cache/query_internal.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "common/compat.h"
#include "common/shmem.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(perfopt_cached);
PG_FUNCTION_INFO_V1(perfopt_cached_json);

/* Bytes of a query that are shown with its entry. */
#define LABEL_TEXT_MAX	1024

/* A refresh that has come to nothing is not tried again before. */
#define REFRESH_PERIOD_MS	(60 * 1000)

/* One call. */
typedef struct Call
{
	CacheQuery *query;
	CacheParams params;
	const char *prefix;
	int			prefix_len;
	int64		ttl_us;
	int64		refresh_us;		/* 0: no refresh-ahead */

	/* the result's rows go here, NULL: nowhere */
	Tuplestorestate *rows;
	/* or it is a datum */
	Datum		value;
} Call;

/* ---------------------------------------------------------------------
 * Arguments
 */

static void
read_arguments(FunctionCallInfo fcinfo, Call *call, bool as_json)
{
	text	   *query;

	perfopt_require_preload();
	memset(call, 0, sizeof(*call));
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("query to be cached must not be null")));
	call->ttl_us = cache_ttl_argument(fcinfo, 2);
	if (!PG_ARGISNULL(3))
		call->refresh_us = cache_interval_us(PG_GETARG_INTERVAL_P(3));
	if (call->refresh_us < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("refresh_ahead must not be negative")));
	call->prefix = "";
	if (!PG_ARGISNULL(4))
	{
		text	   *prefix = PG_GETARG_TEXT_PP(4);

		call->prefix = VARDATA_ANY(prefix);
		call->prefix_len = VARSIZE_ANY_EXHDR(prefix);
	}

	query = PG_GETARG_TEXT_PP(0);
	cache_params_from_record(&call->params,
							 PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1),
							 PG_ARGISNULL(1));
	call->query = cache_query_get(VARDATA_ANY(query), VARSIZE_ANY_EXHDR(query),
								  &call->params, as_json);
}

/* The caller's column list has to fit the query's columns. */
static void
check_columns(TupleDesc expected, TupleDesc actual)
{
	if (expected->natts != actual->natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("query has %d columns, but %d are expected",
						actual->natts, expected->natts),
				 errhint("Name all of them with their types, as in AS t(id bigint, name text).")));
	for (int i = 0; i < actual->natts; i++)
	{
		Form_pg_attribute want = TupleDescAttr(expected, i);
		Form_pg_attribute have = TupleDescAttr(actual, i);

		if (want->atttypid != have->atttypid ||
			(want->atttypmod >= 0 && want->atttypmod != have->atttypmod))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column %d (\"%s\") of the query has type %s, but %s is expected",
							i + 1, NameStr(have->attname),
							format_type_with_typemod(have->atttypid, have->atttypmod),
							format_type_with_typemod(want->atttypid, want->atttypmod)),
					 errhint("Write the column as \"%s\" %s in AS t(...), or cast it in the query.",
							 NameStr(have->attname),
							 format_type_with_typemod(have->atttypid, have->atttypmod))));
	}
}

/* ---------------------------------------------------------------------
 * Rows: into the result, and as bytes to be stored
 */

typedef struct RowReceiver
{
	DestReceiver pub;
	TupleDesc	desc;
	Tuplestorestate *rows;		/* or NULL */
	TupleTableSlot *slot;		/* of a minimal tuple */
	MemoryContext row_context;
	StringInfo	bytes;			/* NULL: not to be stored, or too large */
	Size		limit;
	uint32		num_rows;
	bool		too_large;
} RowReceiver;

static void
rows_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	RowReceiver *receiver = (RowReceiver *) self;
	bool		same = typeinfo->natts == receiver->desc->natts;

	for (int i = 0; same && i < typeinfo->natts; i++)
		same = TupleDescAttr(typeinfo, i)->atttypid ==
			TupleDescAttr(receiver->desc, i)->atttypid;
	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("result type of the query has just changed"),
				 errhint("Run the statement again.")));
}

static MinimalTuple
copy_row(RowReceiver *receiver, TupleTableSlot *slot)
{
	TupleDesc	desc = receiver->desc;
	Datum	   *values = NULL;

	slot_getallattrs(slot);
	for (int i = 0; i < desc->natts; i++)
	{
		Datum		value = slot->tts_values[i];

		if (TupleDescAttr(desc, i)->attlen != -1 || slot->tts_isnull[i] ||
			!VARATT_IS_EXTERNAL(DatumGetPointer(value)))
			continue;
		/* what is stored outside may be gone when it is read */
		if (values == NULL)
		{
			values = palloc(desc->natts * sizeof(Datum));
			memcpy(values, slot->tts_values, desc->natts * sizeof(Datum));
		}
		values[i] = PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(value)));
	}
	return values ? perfopt_form_minimal_tuple(desc, values, slot->tts_isnull) :
		ExecCopySlotMinimalTuple(slot);
}

static bool
rows_receive(TupleTableSlot *slot, DestReceiver *self)
{
	RowReceiver *receiver = (RowReceiver *) self;
	MemoryContext old = MemoryContextSwitchTo(receiver->row_context);
	MinimalTuple tuple = copy_row(receiver, slot);

	MemoryContextSwitchTo(old);
	if (receiver->bytes)
	{
		Size		size = MAXALIGN(tuple->t_len);

		if (receiver->bytes->len + size > receiver->limit)
		{
			pfree(receiver->bytes->data);
			receiver->bytes = NULL;
			receiver->too_large = true;
		}
		else
		{
			enlargeStringInfo(receiver->bytes, size);
			memset(receiver->bytes->data + receiver->bytes->len + size - MAXIMUM_ALIGNOF, 0,
				   MAXIMUM_ALIGNOF);
			memcpy(receiver->bytes->data + receiver->bytes->len, tuple, tuple->t_len);
			receiver->bytes->len += size;
		}
	}
	receiver->num_rows++;
	if (receiver->rows)
	{
		ExecStoreMinimalTuple(tuple, receiver->slot, false);
		tuplestore_puttupleslot(receiver->rows, receiver->slot);
		ExecClearTuple(receiver->slot);
	}
	MemoryContextReset(receiver->row_context);
	return true;
}

static void
rows_nothing(DestReceiver *self)
{
}

/* Run the query; with spec, keep its rows as bytes as well. */
static void
run_rows(Call *call, CacheEntrySpec *spec)
{
	StringInfoData bytes;
	RowReceiver receiver = {
		.pub = {rows_receive, rows_startup, rows_nothing, rows_nothing, DestTuplestore},
		.desc = call->query->desc,
		.rows = call->rows,
		.limit = cache_store_max_entry()
	};

	if (spec)
	{
		initStringInfo(&bytes);
		receiver.bytes = &bytes;
	}
	receiver.row_context = AllocSetContextCreate(CurrentMemoryContext, "perfopt cached row",
												 ALLOCSET_DEFAULT_SIZES);
	receiver.slot = MakeSingleTupleTableSlot(receiver.desc, &TTSOpsMinimalTuple);
	cache_query_run(call->query, &call->params, &receiver.pub);
	ExecDropSingleTupleTableSlot(receiver.slot);
	MemoryContextDelete(receiver.row_context);

	if (spec)
	{
		spec->rows = receiver.num_rows;
		spec->data = receiver.too_large ? NULL : bytes.data;
		spec->data_len = receiver.too_large ? PG_UINT32_MAX : bytes.len;
	}
}

static void
return_rows(Call *call, const CacheEntry *entry)
{
	const char *data = cache_entry_data(entry);
	const char *end = data + entry->data_len;
	TupleTableSlot *slot;

	if (data == end)
		return;
	slot = MakeSingleTupleTableSlot(call->query->desc, &TTSOpsMinimalTuple);
	while (data < end)
	{
		MinimalTuple tuple = (MinimalTuple) data;

		ExecStoreMinimalTuple(tuple, slot, false);
		tuplestore_puttupleslot(call->rows, slot);
		data += MAXALIGN(tuple->t_len);
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* ---------------------------------------------------------------------
 * Both faces
 */

static void
compute(void *arg, CacheEntrySpec *spec)
{
	Call	   *call = arg;

	if (spec->kind == CACHE_ENTRY_ROWS)
	{
		run_rows(call, spec);
		return;
	}
	call->value = cache_query_json_compute(call->query, &call->params);
	spec->data = DatumGetPointer(call->value);
	spec->data_len = VARSIZE(DatumGetPointer(call->value));
	spec->rows = 1;
}

static void
run_directly(void *arg)
{
	Call	   *call = arg;

	if (call->query->face == CACHE_FACE_JSON)
		call->value = cache_query_json_compute(call->query, &call->params);
	else
		run_rows(call, NULL);
}

static bool
return_entry(void *arg, const CacheEntry *entry)
{
	Call	   *call = arg;
	char	   *copy;

	/*
	 * While its tables were locked, or somebody else was waited for, the
	 * query may have come to mean something else, with rows of other types.
	 * As the entry holds now, it is of this query if this one holds, too.
	 */
	if (!cache_query_is_current(call->query))
	{
		run_directly(call);
		return true;
	}
	if (entry->kind == CACHE_ENTRY_ROWS)
	{
		return_rows(call, entry);
		return true;
	}
	copy = palloc(entry->data_len);
	memcpy(copy, cache_entry_data(entry), entry->data_len);
	call->value = PointerGetDatum(copy);
	return true;
}

static CacheBypass
make_key(void *arg, CacheKey *key)
{
	Call	   *call = arg;
	int32		len = call->prefix_len;
	StringInfoData buf;

	/* Nothing can be said of definitions that are being changed. */
	if (!call->query->settled)
		return cache_definitions_marked() ? CACHE_BYPASS_OWN_DDL : CACHE_BYPASS_CONCURRENT_DDL;

	initStringInfo(&buf);
	cache_query_append_key(call->query, &call->params, &buf);
	appendBinaryStringInfo(&buf, (char *) &len, sizeof(len));
	appendBinaryStringInfo(&buf, call->prefix, len);
	cache_key_finish(key, &buf);
	return CACHE_BYPASS_NONE;
}

static CacheBypass
publish(Call *call, const CacheKey *key, const CacheReader *reader)
{
	CacheDependencies *deps;
	CacheEntrySpec spec = {.key = *key};
	StringInfoData label;
	MemoryContext context;
	CacheBypass reason;
	int			text_len = strlen(call->query->text);

	context = AllocSetContextCreate(CurrentMemoryContext, "perfopt cache dependencies",
									ALLOCSET_SMALL_SIZES);
	deps = cache_dependencies_create(context);
	initStringInfo(&label);
	appendBinaryStringInfo(&label, call->prefix, call->prefix_len);
	appendBinaryStringInfo(&label, call->query->text,
						   pg_mbcliplen(call->query->text, text_len,
										Min(text_len, LABEL_TEXT_MAX)));
	spec.label = label.data;
	spec.label_len = label.len;
	spec.prefix_len = call->prefix_len;
	spec.face = call->query->face;
	spec.kind = spec.face == CACHE_FACE_JSON ? CACHE_ENTRY_DATUM : CACHE_ENTRY_ROWS;
	spec.expires_at = GetCurrentTimestamp() + call->ttl_us;
	reason = cache_fill(&spec, deps, reader, compute, call);
	MemoryContextDelete(context);
	pfree(label.data);
	return reason;
}

static void
track(void *arg)
{
	cache_query_track(((Call *) arg)->query, true);
}

static void
fill(void *arg, const CacheKey *key, const CacheReader *reader)
{
	(void) publish(arg, key, reader);
}

/* Other than this session's copy, the shared one may have been refreshed. */
static void
refresh_ahead(void *arg, const CacheKey *key, const CacheReader *reader,
			  TimestampTz expires_at)
{
	Call	   *call = arg;
	TimestampTz now = GetCurrentTimestamp();
	CacheEntry *shared;

	if (call->refresh_us == 0 || expires_at - now >= call->refresh_us)
		return;
	cache_local_remove(key);
	shared = cache_store_get(key, CurrentMemoryContext);
	if (shared == NULL)
		return;
	if (shared->expires_at - now < call->refresh_us &&
		cache_store_claim_refresh(key, now, REFRESH_PERIOD_MS))
	{
		CacheRefresh refresh = {
			.query = call->query,
			.params = &call->params,
			.prefix = call->prefix,
			.prefix_len = call->prefix_len,
			.ttl_us = call->ttl_us
		};

		cache_refresh_request(&refresh);
	}
	pfree(shared);
}

static void
fetch(Call *call)
{
	static const CacheFaceMethods query_face = {
		.key = make_key,
		.take = return_entry,
		.refresh = refresh_ahead,
		.prepare = track,
		.fill = fill,
		.run = run_directly
	};

	/* What "now" means as a parameter is decided anew each time. */
	if (cache_query_params_name_time(call->query, &call->params) ||
		cache_query_params_have_rows(&call->params))
		run_directly(call);
	else
		cache_answer(&query_face, call);
}

CacheBypass
cache_query_refresh(const CacheRefresh *refresh)
{
	Call		call = {
		.query = refresh->query,
		.params = *refresh->params,
		.prefix = refresh->prefix,
		.prefix_len = refresh->prefix_len,
		.ttl_us = refresh->ttl_us
	};
	CacheReader reader;
	CacheBypass bypass = cache_usable(&reader);
	CacheKey	key;

	if (bypass == CACHE_BYPASS_NONE)
		bypass = make_key(&call, &key);
	return bypass == CACHE_BYPASS_NONE ? publish(&call, &key, &reader) : bypass;
}

Datum
perfopt_cached(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext old;
	Call		call;

	if (result == NULL || !IsA(result, ReturnSetInfo) ||
		(result->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	if (result->expectedDesc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("perfopt.cached() needs a list of columns"),
				 errhint("Call it as SELECT * FROM perfopt.cached(...) AS t(id bigint, name text), or use perfopt.cached_json().")));

	read_arguments(fcinfo, &call, false);
	check_columns(result->expectedDesc, call.query->desc);

	old = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	call.rows = tuplestore_begin_heap((result->allowedModes & SFRM_Materialize_Random) != 0,
									  false, work_mem);
	MemoryContextSwitchTo(old);
	result->returnMode = SFRM_Materialize;
	result->setResult = call.rows;
	result->setDesc = NULL;		/* compared above */

	fetch(&call);
	return (Datum) 0;
}

Datum
perfopt_cached_json(PG_FUNCTION_ARGS)
{
	Call		call;

	read_arguments(fcinfo, &call, true);
	fetch(&call);
	PG_RETURN_DATUM(call.value);
}
