/*
 * key_value.c
 *		cache_get(), cache_set(), and the strategies on top of them:
 *		cache_get_or_compute() (cache-aside) and cache_write_through().
 *
 * A key belongs to a role in a database: to that role, not to its OID, which
 * another one may get once it is dropped.  It has a ring of its own, of which
 * every transaction that sets or deletes it is a writer; so snapshots treat a
 * value as they would treat a row.
 *
 * Until its transaction commits, a value is pending in this backend: a stack,
 * newest on top, where a subtransaction that aborts takes its own values away
 * and uncovers earlier ones.  At PRE_COMMIT the entries are built, which may
 * fail; their rings get this transaction as a writer (rings.c, whose callback
 * runs after ours); and at COMMIT they are put into the store, which may not
 * fail, with the number that writer got.  Until they are there, whoever sees
 * the transaction misses.  Of two transactions that set the same key at the
 * same time the one that puts last stays, and if that is the wrong one it is a
 * miss, too.
 *
 * The data of an entry: a header, the session's settings and the query that it
 * was computed with (both empty for values that were set), and the datum.
 */
#include "postgres.h"

#include "access/xact.h"
#include "cache/cache_internal.h"
#include "common/hashfn.h"
#include "common/shmem.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(perfopt_cache_get);
PG_FUNCTION_INFO_V1(perfopt_cache_set);
PG_FUNCTION_INFO_V1(perfopt_cache_delete);
PG_FUNCTION_INFO_V1(perfopt_cache_ttl);
PG_FUNCTION_INFO_V1(perfopt_cache_get_or_compute);
PG_FUNCTION_INFO_V1(perfopt_cache_write_through);

#define MAX_KEY_LEN		1024

/* At most so often is a value computed anew ahead of its end. */
#define REFRESH_PERIOD_MS	1000

/* What stands before the datum in an entry's data. */
typedef struct ValueHeader
{
	uint32		session_len;
	uint32		query_len;
} ValueHeader;

/* A key, as the caller has it and as the cache has it. */
typedef struct Key
{
	CacheKey	key;
	char	   *name;
	int			name_len;
	CacheRing	ring;
} Key;

/* Set by this transaction.  Memory: pending_context. */
typedef struct Pending
{
	dlist_node	node;			/* in stack, newest first */
	struct Pending *next;		/* of the same hash, newest first */
	int			nest_level;
	CacheKey	key;
	char	   *name;
	int			name_len;
	CacheRing	ring;
	/* as it was set: the role, and which entries of it there were */
	CacheDefinitionState definitions[2];
	Jsonb	   *value;			/* NULL: deleted */
	TimestampTz expires_at;
	CacheEntry *entry;			/* built at PRE_COMMIT */
} Pending;

typedef struct PendingHash
{
	uint64		hash;			/* of the key */
	Pending    *newest;
} PendingHash;

static MemoryContext pending_context = NULL;	/* NULL: nothing is pending */
static HTAB *pending_table;
static dlist_head stack;

/* ---------------------------------------------------------------------
 * Keys and times
 */

static void
make_key(Key *key, text *name)
{
	StringInfoData buf;
	Oid			role = GetUserId();

	key->name = VARDATA_ANY(name);
	key->name_len = VARSIZE_ANY_EXHDR(name);
	if (key->name_len > MAX_KEY_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the key has %d bytes, more than %d", key->name_len, MAX_KEY_LEN),
				 errhint("Use a hash of what it is made of.")));
	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, (char *) &MyDatabaseId, sizeof(Oid));
	appendBinaryStringInfo(&buf, (char *) &role, sizeof(Oid));
	appendStringInfoChar(&buf, 'k');
	appendBinaryStringInfo(&buf, key->name, key->name_len);
	cache_key_finish(&key->key, &buf);
	key->ring = cache_ring_of_name(role, key->name, key->name_len);
}

/*
 * A result that is being computed for the cache, around us, cannot be kept:
 * it would not end with the value it read, or have set it only once.
 */
static void
refuse_around_us(void)
{
	if (cache_collecting())
		cache_dependencies_refuse(cache_collecting(), CACHE_BYPASS_NESTED, InvalidOid);
}

/* ---------------------------------------------------------------------
 * Pending values
 */

static Pending *
find_pending(const CacheKey *key)
{
	PendingHash *bucket;

	if (pending_context == NULL)
		return NULL;
	bucket = hash_search(pending_table, &key->hash, HASH_FIND, NULL);
	for (Pending *value = bucket ? bucket->newest : NULL; value; value = value->next)
	{
		if (value->key.len == key->len &&
			memcmp(value->key.data, key->data, key->len) == 0)
			return value;
	}
	return NULL;
}

static void
make_pending_context(void)
{
	HASHCTL		ctl;
	MemoryContext context = AllocSetContextCreate(TopTransactionContext,
												  "perfopt pending values",
												  ALLOCSET_DEFAULT_SIZES);

	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(PendingHash);
	ctl.hcxt = context;
	pending_table = hash_create("perfopt pending values", 64, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	dlist_init(&stack);
	pending_context = context;
}

static char *
copy_bytes(const void *data, Size len)
{
	char	   *copy = palloc(len);

	memcpy(copy, data, len);
	return copy;
}

/* Take a value out of table and stack, wherever it is. */
static void
drop_pending(Pending *value)
{
	PendingHash *bucket = hash_search(pending_table, &value->key.hash, HASH_FIND, NULL);
	Pending   **link = &bucket->newest;

	while (*link != value)
		link = &(*link)->next;
	*link = value->next;
	if (bucket->newest == NULL)
		(void) hash_search(pending_table, &value->key.hash, HASH_REMOVE, NULL);
	dlist_delete(&value->node);
	if (value->value)
		pfree(value->value);
	pfree(unconstify(char *, value->key.data));
	pfree(value->name);
	pfree(value);
}

/* value may be NULL: the key is deleted. */
static void
set_pending(const Key *key, const Jsonb *value, TimestampTz expires_at)
{
	MemoryContext old_context;
	CacheDefinition definitions[] = {
		cache_definition_of_role(GetUserId()), cache_definition_of_entries(GetUserId())
	};
	PendingHash *bucket;
	Pending    *pending;
	Pending    *older;
	bool		found;

	if (RecoveryInProgress())
		return;					/* nobody would ever see it */

	if (pending_context == NULL)
		make_pending_context();
	older = find_pending(&key->key);

	old_context = MemoryContextSwitchTo(pending_context);
	pending = palloc0(sizeof(Pending));
	pending->nest_level = GetCurrentTransactionNestLevel();
	pending->key = key->key;
	pending->key.data = copy_bytes(key->key.data, key->key.len);
	pending->name = copy_bytes(key->name, key->name_len);
	pending->name_len = key->name_len;
	pending->ring = key->ring;
	for (int i = 0; i < lengthof(definitions); i++)
	{
		pending->definitions[i].definition = definitions[i];
		pending->definitions[i].value = cache_definition_use(definitions[i]);
	}
	pending->value = value ? (Jsonb *) copy_bytes(value, VARSIZE(value)) : NULL;
	pending->expires_at = expires_at;
	MemoryContextSwitchTo(old_context);

	bucket = hash_search(pending_table, &key->key.hash, HASH_ENTER, &found);
	pending->next = found ? bucket->newest : NULL;
	bucket->newest = pending;
	dlist_push_head(&stack, &pending->node);
	cache_ring_mark(key->ring);

	if (older && older->nest_level == pending->nest_level)
		drop_pending(older);
}

/*
 * Levels never grow from the top of the stack downwards: a subtransaction's
 * values are all on top.
 */
static Pending *
top_of_level(int nest_level)
{
	Pending    *top;

	if (dlist_is_empty(&stack))
		return NULL;
	top = dlist_head_element(Pending, node, &stack);
	return top->nest_level >= nest_level ? top : NULL;
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mySubid,
				 SubTransactionId parentSubid, void *arg)
{
	int			nest_level = GetCurrentTransactionNestLevel();
	dlist_mutable_iter iter;

	if (pending_context == NULL)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		Pending    *top;

		while ((top = top_of_level(nest_level)) != NULL)
			drop_pending(top);
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		dlist_foreach_modify(iter, &stack)
		{
			Pending    *value = dlist_container(Pending, node, iter.cur);
			Pending    *older;

			if (value->nest_level < nest_level)
				break;
			value->nest_level = nest_level - 1;

			/* the parent's own value is gone for good */
			for (older = value->next; older; older = older->next)
			{
				if (older->key.len == value->key.len &&
					memcmp(older->key.data, value->key.data, value->key.len) == 0)
					break;
			}
			if (older && older->nest_level == value->nest_level)
			{
				if (iter.next == &older->node)
					iter.next = older->node.next;
				drop_pending(older);
			}
		}
	}
}

/* ---------------------------------------------------------------------
 * Entries
 */

/* The data of an entry, in the current context; returns its length. */
static uint32
make_data(char **data, const StringInfo session, const StringInfo query, const Jsonb *value)
{
	ValueHeader header;
	Size		start;
	Size		len;

	header.session_len = session ? session->len : 0;
	header.query_len = query ? query->len : 0;
	start = MAXALIGN(sizeof(header) + header.session_len + header.query_len);
	len = start + VARSIZE(value);

	/* what is too large for this is too large for the cache anyway */
	*data = MemoryContextAllocExtended(CurrentMemoryContext, len,
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	memcpy(*data, &header, sizeof(header));
	if (session)
		memcpy(*data + sizeof(header), session->data, session->len);
	if (query)
		memcpy(*data + sizeof(header) + header.session_len, query->data, query->len);
	memcpy(*data + start, value, VARSIZE(value));
	return len;
}

/*
 * The value of an entry, where it lies.  NULL when it was computed by another
 * session's settings than those given, or another query; query may be NULL.
 */
static Jsonb *
entry_value(const CacheEntry *entry, const StringInfo session, const StringInfo query)
{
	const char *data = cache_entry_data(entry);
	ValueHeader header;

	if (entry->face != CACHE_FACE_KEY_VALUE)
		return NULL;
	memcpy(&header, data, sizeof(header));
	data += sizeof(header);
	if (header.session_len > 0)
	{
		if (header.session_len != session->len ||
			memcmp(data, session->data, session->len) != 0)
			return NULL;
		if (query &&
			(header.query_len != query->len ||
			 memcmp(data + header.session_len, query->data, query->len) != 0))
			return NULL;
	}
	return (Jsonb *) (cache_entry_data(entry) +
					  MAXALIGN(sizeof(header) + header.session_len + header.query_len));
}

static Jsonb *
copy_value(const Jsonb *value)
{
	return (Jsonb *) copy_bytes(value, VARSIZE(value));
}

static void
append_session(StringInfo buf)
{
	initStringInfo(buf);
	cache_key_append_session(buf);
}

static void
make_spec(CacheEntrySpec *spec, const CacheKey *key, const char *name, int name_len)
{
	memset(spec, 0, sizeof(*spec));
	spec->key = *key;
	spec->label = name;
	spec->label_len = name_len;
	spec->prefix_len = name_len;
	spec->kind = CACHE_ENTRY_DATUM;
	spec->face = CACHE_FACE_KEY_VALUE;
	spec->rows = 1;
}

/* PRE_COMMIT: all that can fail. */
static void
build_entries(void)
{
	dlist_iter	iter;
	MemoryContext old_context = MemoryContextSwitchTo(pending_context);

	dlist_foreach(iter, &stack)
	{
		Pending    *value = dlist_container(Pending, node, iter.cur);
		CacheRingState ring = {value->ring, 0};
		CacheDependencies deps = {0};
		CacheEntrySpec spec;
		char	   *data;

		if (value->value == NULL || VARSIZE(value->value) > cache_store_max_entry())
			continue;
		make_spec(&spec, &value->key, value->name, value->name_len);
		spec.data_len = make_data(&data, NULL, NULL, value->value);
		spec.data = data;
		spec.expires_at = value->expires_at;
		deps.context = pending_context;
		deps.definitions = value->definitions;
		deps.num_definitions = lengthof(value->definitions);
		value->entry = cache_entry_build(&spec, &ring, 1, &deps);
		pfree(data);
	}
	MemoryContextSwitchTo(old_context);
}

/* COMMIT: nothing here can fail. */
static void
put_entries(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &stack)
	{
		Pending    *value = dlist_container(Pending, node, iter.cur);
		CacheRingState *ring;

		if (value->entry == NULL)
			continue;
		ring = unconstify(CacheRingState *, cache_entry_rings(value->entry));
		ring->seq = cache_ring_registered_seq(value->ring);
		if (ring->seq == 0)
			continue;
		if (cache_store_put(value->entry))
			cache_count(CACHE_COUNT_FILLS, 1);
		else
			cache_count_bypass(CACHE_BYPASS_OVERSIZED);
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (pending_context == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			build_entries();
			break;
		case XACT_EVENT_COMMIT:
			put_entries();
			pending_context = NULL;
			break;
		case XACT_EVENT_PREPARE:

			/*
			 * The values would have to survive until COMMIT PREPARED, by
			 * whomever.  Those who see it miss.
			 */
		case XACT_EVENT_ABORT:
			pending_context = NULL;
			break;
		default:
			break;
	}
}

/* ---------------------------------------------------------------------
 * cache_get(), cache_set(), cache_delete(), cache_ttl()
 */

/*
 * What the caller would be given: the value, where it lies until the next
 * look-up, and its end; or NULL.
 */
static Jsonb *
find_value(text *name, TimestampTz *expires_at)
{
	Key			key;
	CacheReader reader;
	CacheBypass bypass;
	Pending    *pending;
	const CacheEntry *entry;
	StringInfoData session;
	Jsonb	   *value = NULL;

	perfopt_require_preload();
	make_key(&key, name);
	refuse_around_us();

	pending = find_pending(&key.key);
	if (pending)
	{
		*expires_at = pending->expires_at;
		return pending->expires_at > GetCurrentTimestamp() ? pending->value : NULL;
	}
	bypass = cache_usable(&reader);

	/* deleted and rolled back, or its ring is that of another key */
	if (bypass == CACHE_BYPASS_NONE && cache_ring_marked(key.ring))
		bypass = CACHE_BYPASS_OWN_WRITES;
	entry = bypass == CACHE_BYPASS_NONE ? cache_lookup(&key.key, &reader, &bypass) : NULL;
	if (entry)
	{
		append_session(&session);
		value = entry_value(entry, &session, NULL);
		*expires_at = entry->expires_at;
	}
	else if (bypass != CACHE_BYPASS_NONE)
		cache_count_bypass(bypass);
	if (value == NULL && bypass == CACHE_BYPASS_NONE)
		cache_count(CACHE_COUNT_MISSES, 1);
	return value;
}

Datum
perfopt_cache_get(PG_FUNCTION_ARGS)
{
	TimestampTz expires_at;
	Jsonb	   *value = find_value(PG_GETARG_TEXT_PP(0), &expires_at);

	if (value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(copy_value(value));
}

Datum
perfopt_cache_ttl(PG_FUNCTION_ARGS)
{
	TimestampTz expires_at;

	if (find_value(PG_GETARG_TEXT_PP(0), &expires_at) == NULL)
		PG_RETURN_NULL();
	return DirectFunctionCall2(timestamp_mi, TimestampTzGetDatum(expires_at),
							   TimestampTzGetDatum(GetCurrentTimestamp()));
}

/* The arguments key and value, which are the first ones. */
static Jsonb *
get_key_and_value(FunctionCallInfo fcinfo, Key *key)
{
	perfopt_require_preload();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the key must not be null")));
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the value must not be null"),
				 errhint("Use the JSON null, or perfopt.cache_delete().")));
	make_key(key, PG_GETARG_TEXT_PP(0));
	refuse_around_us();
	return PG_GETARG_JSONB_P(1);
}

/* For the strategies: cache_set() with their first two arguments and a ttl. */
void
cache_set_arguments(FunctionCallInfo fcinfo, int ttl)
{
	Key			key;
	Jsonb	   *value = get_key_and_value(fcinfo, &key);

	set_pending(&key, value, GetCurrentTimestamp() + cache_ttl_argument(fcinfo, ttl));
}

Datum
perfopt_cache_set(PG_FUNCTION_ARGS)
{
	cache_set_arguments(fcinfo, 2);
	PG_RETURN_VOID();
}

Datum
perfopt_cache_delete(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(0);
	TimestampTz expires_at;
	bool		found = find_value(name, &expires_at) != NULL;
	Key			key;

	make_key(&key, name);
	set_pending(&key, NULL, DT_NOEND);
	PG_RETURN_BOOL(found);
}

/* ---------------------------------------------------------------------
 * cache_get_or_compute()
 */

/* One call. */
typedef struct Computation
{
	Key			key;
	CacheQuery *query;
	CacheParams params;
	StringInfoData session;
	StringInfoData query_key;
	TimestampTz now;
	TimestampTz expires_at;
	TimestampTz ahead;			/* what ends before is to be computed anew */
	Jsonb	   *result;
} Computation;

static void
run(void *arg)
{
	Computation *computation = arg;
	Datum		result = cache_query_json_compute(computation->query, &computation->params);

	computation->result = DatumGetJsonbP(result);
}

static void
compute(void *arg, CacheEntrySpec *spec)
{
	Computation *computation = arg;
	char	   *data;

	run(computation);
	spec->data_len = make_data(&data, &computation->session, &computation->query_key,
							   computation->result);
	spec->data = data;
}

static CacheBypass
computation_key(void *arg, CacheKey *key)
{
	Computation *computation = arg;

	*key = computation->key.key;
	return cache_ring_marked(computation->key.ring) ? CACHE_BYPASS_OWN_WRITES :
		CACHE_BYPASS_NONE;
}

static bool
take(void *arg, const CacheEntry *entry)
{
	Computation *computation = arg;
	Jsonb	   *value = entry_value(entry, &computation->session, &computation->query_key);

	if (value)
		computation->result = copy_value(value);
	return value != NULL;
}

/* Compute and publish, as a writer of nothing but a reader of the key's ring. */
static void
fill(void *arg, const CacheKey *cache_key, const CacheReader *reader)
{
	Computation *computation = arg;
	const Key  *key = &computation->key;
	CacheEntrySpec spec;
	CacheDependencies *deps = cache_dependencies_create(CurrentMemoryContext);

	make_spec(&spec, cache_key, key->name, key->name_len);
	spec.expires_at = computation->expires_at;
	cache_dependencies_add_ring(deps, key->ring);
	cache_dependencies_add_definition(deps, cache_definition_of_entries(GetUserId()));
	cache_dependencies_add_definition(deps, cache_definition_of_database());
	cache_dependencies_add_definition(deps, cache_definition_of_cluster());
	if (cache_query_params_have_rows(&computation->params))
		cache_dependencies_refuse(deps, CACHE_BYPASS_SETTING, InvalidOid);
	(void) cache_fill(&spec, deps, reader, compute, computation);
}

/* About to end: one of those who are given it computes it anew. */
static void
refresh(void *arg, const CacheKey *key, const CacheReader *reader, TimestampTz expires_at)
{
	Computation *computation = arg;

	if (expires_at < computation->ahead &&
		cache_store_claim_refresh(key, computation->now, REFRESH_PERIOD_MS))
	{
		cache_count(CACHE_COUNT_REFRESHES, 1);
		fill(computation, key, reader);
	}
}

Datum
perfopt_cache_get_or_compute(PG_FUNCTION_ARGS)
{
	static const CacheFaceMethods computed_face = {
		.key = computation_key,
		.take = take,
		.refresh = refresh,
		.fill = fill,
		.run = run
	};
	Computation computation;
	Pending    *pending;
	text	   *query;

	computation.now = GetCurrentTimestamp();
	computation.expires_at = computation.now + cache_ttl_argument(fcinfo, 3);
	computation.ahead = DT_NOBEGIN;
	perfopt_require_preload();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("key and query must not be null")));
	make_key(&computation.key, PG_GETARG_TEXT_PP(0));
	refuse_around_us();
	query = PG_GETARG_TEXT_PP(1);
	cache_params_from_record(&computation.params, PG_GETARG_DATUM(2), PG_ARGISNULL(2));
	computation.query = cache_query_get(VARDATA_ANY(query), VARSIZE_ANY_EXHDR(query),
										&computation.params, true);
	append_session(&computation.session);
	initStringInfo(&computation.query_key);
	cache_query_append_key(computation.query, &computation.params, &computation.query_key);
	if (!PG_ARGISNULL(4))
		computation.ahead = computation.now + cache_interval_us(PG_GETARG_INTERVAL_P(4));

	pending = find_pending(&computation.key.key);
	if (pending && pending->value && pending->expires_at > computation.now)
		PG_RETURN_JSONB_P(copy_value(pending->value));
	cache_answer(&computed_face, &computation);
	PG_RETURN_JSONB_P(computation.result);
}

/* ---------------------------------------------------------------------
 * cache_write_through()
 */

/*
 * Run one statement as the caller, in his transaction; returns the rows it
 * processed.  Write-behind runs its statements by this, too.
 */
uint64
cache_execute_statement(const char *statement, const CacheParams *params)
{
	uint64		rows;
	int			result;

	cache_check_statement(statement);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	result = SPI_execute_with_args(statement, params->num, params->types, params->values,
								   params->nulls, false, 0);
	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the statement cannot be run here: %s",
						SPI_result_code_string(result))));
	rows = SPI_processed;
	SPI_finish();
	return rows;
}

/* Is it one statement? */
void
cache_check_statement(const char *statement)
{
	if (list_length(raw_parser(statement, RAW_PARSE_DEFAULT)) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("exactly one statement is expected")));
}

Datum
perfopt_cache_write_through(PG_FUNCTION_ARGS)
{
	Key			key;
	Jsonb	   *value = get_key_and_value(fcinfo, &key);
	TimestampTz expires_at = GetCurrentTimestamp() + cache_ttl_argument(fcinfo, 4);
	CacheParams params;
	uint64		rows;

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the statement must not be null")));
	cache_params_from_record(&params, PG_GETARG_DATUM(3), PG_ARGISNULL(3));
	rows = cache_execute_statement(text_to_cstring(PG_GETARG_TEXT_PP(2)), &params);
	set_pending(&key, value, expires_at);
	PG_RETURN_INT64((int64) rows);
}

void
cache_key_value_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
