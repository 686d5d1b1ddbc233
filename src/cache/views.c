/*
 * views.c
 *		What is in the cache, and removing it, in SQL.
 *
 * Everybody sees and removes what was computed as a role whose rights he has;
 * never shown are results.
 *
 * What is removed must stay so: a result computed before and published after,
 * and copies in the memory of other sessions.  Therefore a removal also counts
 * up a definition that all entries of the role depend on, at commit, and is
 * repeated after it.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "common/shmem.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* Longest text shown, in bytes. */
#define MAX_TEXT	1024

/* ---------------------------------------------------------------------
 * Counters
 */

PG_FUNCTION_INFO_V1(perfopt_sql_cache_counters);

Datum
perfopt_sql_cache_counters(PG_FUNCTION_ARGS)
{
	static const CacheCounter counters[] = {
		CACHE_COUNT_HITS, CACHE_COUNT_LOCAL_HITS, CACHE_COUNT_MISSES,
		CACHE_COUNT_FILLS, CACHE_COUNT_EVICTIONS,
		CACHE_COUNT_BYPASS_FIRST + CACHE_BYPASS_OVERSIZED,
		CACHE_COUNT_EXPIRED, CACHE_COUNT_INVALIDATED, CACHE_COUNT_WAITS,
		CACHE_COUNT_REFRESHES
	};
	TupleDesc	desc;
	Datum		values[lengthof(counters) + 5];
	bool		nulls[lengthof(counters) + 5] = {0};
	uint64		entries;
	uint64		bytes;
	uint64		limit;
	int			n = 0;

	perfopt_require_preload();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	for (int i = 0; i < lengthof(counters); i++)
		values[n++] = Int64GetDatum((int64) cache_counter_read(counters[i]));
	cache_store_usage(&entries, &bytes, &limit);
	values[n++] = Int64GetDatum((int64) entries);
	values[n++] = Int64GetDatum((int64) bytes);
	values[n++] = Int64GetDatum((int64) limit);
	values[n++] = Float8GetDatum(cache_counter_read(CACHE_COUNT_SAVED_NS) / 1e6);
	values[n++] = TimestampTzGetDatum(cache_counters_since());
	Assert(n == lengthof(values) && n == desc->natts);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

PG_FUNCTION_INFO_V1(perfopt_sql_cache_bypasses);

Datum
perfopt_sql_cache_bypasses(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	perfopt_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	for (int reason = CACHE_BYPASS_NONE + 1; reason < CACHE_NUM_BYPASSES; reason++)
	{
		Datum		values[2];
		bool		nulls[2] = {0};

		values[0] = CStringGetTextDatum(cache_bypass_name(reason));
		values[1] = Int64GetDatum((int64) cache_counter_read(CACHE_COUNT_BYPASS_FIRST + reason));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(perfopt_sql_cache_stats_reset);

Datum
perfopt_sql_cache_stats_reset(PG_FUNCTION_ARGS)
{
	perfopt_require_preload();
	cache_counters_reset();
	PG_RETURN_VOID();
}

/* ---------------------------------------------------------------------
 * Entries
 */

static const char *const face_names[] =
{
	[CACHE_FACE_QUERY] = "query",
	[CACHE_FACE_JSON] = "json",
	[CACHE_FACE_KEY_VALUE] = "key-value",
	[CACHE_FACE_FUNCTION] = "function"
};

/* As a text, cut to what is shown; NULL when there is none. */
static Datum
text_or_null(const char *bytes, int len, bool *isnull)
{
	*isnull = len == 0;
	if (*isnull)
		return (Datum) 0;
	return PointerGetDatum(cstring_to_text_with_len(bytes, pg_mbcliplen(bytes, len, MAX_TEXT)));
}

static Datum
relations_array(const CacheEntry *entry)
{
	const Oid  *relations = cache_entry_relations(entry);
	Datum	   *elements = palloc(Max(entry->num_relations, 1) * sizeof(Datum));

	for (int i = 0; i < entry->num_relations; i++)
		elements[i] = ObjectIdGetDatum(relations[i]);
	return PointerGetDatum(construct_array(elements, entry->num_relations, REGCLASSOID,
										   sizeof(Oid), true, TYPALIGN_INT));
}

PG_FUNCTION_INFO_V1(perfopt_sql_cache_entries);

Datum
perfopt_sql_cache_entries(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext row_context;
	MemoryContext old_context;
	CacheReader reader;
	bool		can_hit;
	bool		sees_all;

	perfopt_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	sees_all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
	can_hit = cache_reader_init(&reader) == CACHE_BYPASS_NONE;
	row_context = AllocSetContextCreate(CurrentMemoryContext, "perfopt cache entry",
										ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(row_context);

	for (int slot = 0; slot < cache_store_num_slots(); slot++)
	{
		uint64		hits;
		CacheEntry *entry = cache_store_read_slot(slot, row_context, &hits);
		const char *label;
		Datum		values[12];
		bool		nulls[12] = {0};
		int			n = 0;

		CHECK_FOR_INTERRUPTS();
		if (entry == NULL)
			continue;
		if (entry->database == MyDatabaseId &&
			(sees_all || has_privs_of_role(GetUserId(), entry->role)))
		{
			label = cache_entry_label(entry);
			values[n++] = CStringGetTextDatum(face_names[entry->face]);
			values[n++] = ObjectIdGetDatum(entry->role);
			values[n] = text_or_null(label, entry->prefix_len, &nulls[n]);
			n++;
			values[n] = text_or_null(label + entry->prefix_len,
									 entry->label_len - entry->prefix_len, &nulls[n]);
			n++;
			values[n++] = Int64GetDatum((int64) entry->size);
			values[n++] = Int64GetDatum((int64) entry->rows);
			values[n++] = Int64GetDatum((int64) hits);
			values[n++] = Float8GetDatum(entry->cost_ns / 1e6);
			values[n++] = TimestampTzGetDatum(entry->filled_at);
			nulls[n] = entry->expires_at == DT_NOEND;
			values[n++] = TimestampTzGetDatum(entry->expires_at);
			values[n++] = relations_array(entry);
			values[n++] = BoolGetDatum(can_hit &&
									   cache_entry_verdict(entry, &reader) == CACHE_VERDICT_HIT);
			Assert(n == lengthof(values));
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		}
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(row_context);
	return (Datum) 0;
}

/* ---------------------------------------------------------------------
 * Removing
 */

/* What this transaction has removed; in its memory context. */
typedef struct Removal
{
	struct Removal *next;
	Oid			role;			/* InvalidOid: any */
	Size		len;
	char		prefix[FLEXIBLE_ARRAY_MEMBER];
} Removal;

static Removal *removals = NULL;

static void
repeat_removals(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			for (Removal *removal = removals; removal; removal = removal->next)
				(void) cache_store_remove_prefix(MyDatabaseId, removal->role,
												 removal->prefix, removal->len);
			removals = NULL;
			break;
		case XACT_EVENT_ABORT:
			removals = NULL;
			break;
		default:
			break;
	}
}

/* All roles there are: of some, entries may be on their way. */
static void
mark_all_roles(void)
{
	Relation	roles = table_open(AuthIdRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(roles, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		cache_definition_mark(cache_definition_of_entries(((Form_pg_authid) GETSTRUCT(tuple))->oid));
	systable_endscan(scan);
	table_close(roles, AccessShareLock);
}

/* role InvalidOid: any */
static uint64
remove_entries(Oid role, const char *prefix, Size len)
{
	static bool registered = false;
	Removal    *removal;

	/* On a standby the cache is empty. */
	if (RecoveryInProgress())
		return 0;
	if (!registered)
	{
		RegisterXactCallback(repeat_removals, NULL);
		registered = true;
	}
	removal = MemoryContextAlloc(TopTransactionContext, offsetof(Removal, prefix) + len);
	removal->role = role;
	removal->len = len;
	memcpy(removal->prefix, prefix, len);
	removal->next = removals;
	removals = removal;

	if (OidIsValid(role))
		cache_definition_mark(cache_definition_of_entries(role));
	else
		mark_all_roles();
	return cache_store_remove_prefix(MyDatabaseId, role, prefix, len);
}

PG_FUNCTION_INFO_V1(perfopt_sql_cache_clear);

Datum
perfopt_sql_cache_clear(PG_FUNCTION_ARGS)
{
	perfopt_require_preload();
	PG_RETURN_INT64((int64) remove_entries(superuser() ? InvalidOid : GetUserId(), "", 0));
}

PG_FUNCTION_INFO_V1(perfopt_sql_cache_invalidate_prefix);

Datum
perfopt_sql_cache_invalidate_prefix(PG_FUNCTION_ARGS)
{
	text	   *prefix = PG_GETARG_TEXT_PP(0);

	perfopt_require_preload();
	if (VARSIZE_ANY_EXHDR(prefix) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("prefix must not be empty"),
				 errhint("Use perfopt.cache_clear() to remove all entries.")));
	PG_RETURN_INT64((int64) remove_entries(GetUserId(), VARDATA_ANY(prefix),
										   VARSIZE_ANY_EXHDR(prefix)));
}
