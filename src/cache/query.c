/*
 * query.c
 *		CacheQuery: a query of this session that may be cached.
 *
 * It is parsed, analyzed and checked once, and found again by its text, the
 * types of its parameters, and the session's settings, on which its meaning
 * depends.  It also remembers the states of all definitions that decide what
 * its text means: at each call they are compared, and it is made anew when one
 * of them has changed.  Names are among them, so that a table created in front
 * of another one in the search_path is noticed.
 *
 * While definitions are being changed, here or elsewhere, no state stands for
 * what was read; then it serves for one call, and nothing is published.
 *
 * It is private to this process, so there are no locks.
 */
#include "postgres.h"

#include "cache/query_internal.h"

#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/hashfn.h"
#include "common/query_params.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#define MAX_QUERIES		256

typedef struct QueryEntry
{
	uint64		hash;
	CacheQuery *query;
} QueryEntry;

static HTAB *queries = NULL;	/* by hash */
static dlist_head by_use = DLIST_STATIC_INIT(by_use);	/* latest first */
static int	num_queries = 0;

/* Statements at work: while there are any, none of the queries is freed. */
static int	running = 0;
static List *unused = NIL;		/* to be freed later, in TopMemoryContext */

/* ---------------------------------------------------------------------
 * Parameters
 */

void
cache_params_from_record(CacheParams *params, Datum record, bool isnull)
{
	HeapTupleHeader header;
	HeapTupleData tuple;
	TupleDesc	desc;
	bool	   *is_null;
	int			num = 0;

	memset(params, 0, sizeof(*params));
	if (isnull)
		return;

	header = DatumGetHeapTupleHeader(record);
	desc = perfopt_params_open(header, &tuple);

	params->types = palloc((desc->natts + 1) * (sizeof(Oid) + sizeof(Datum) + 2 * sizeof(char)));
	/* the Datums first, for their alignment */
	params->values = (Datum *) params->types;
	params->types = (Oid *) (params->values + desc->natts);
	params->nulls = (char *) (params->types + desc->natts);
	is_null = (bool *) (params->nulls + desc->natts);
	heap_deform_tuple(&tuple, desc, params->values, is_null);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);

		if (attr->attisdropped)
			continue;
		params->values[num] = perfopt_param_of_field(attr, params->values[i], is_null[i],
													 &params->types[num]);
		params->nulls[num] = is_null[i] ? 'n' : ' ';
		num++;
	}
	params->num = num;
	ReleaseTupleDesc(desc);
}

static ParamListInfo
param_list(const CacheParams *params)
{
	ParamListInfo list;

	if (params->num == 0)
		return NULL;
	list = makeParamList(params->num);
	for (int i = 0; i < params->num; i++)
	{
		list->params[i].value = params->values[i];
		list->params[i].isnull = params->nulls[i] == 'n';
		list->params[i].pflags = PARAM_FLAG_CONST;
		list->params[i].ptype = params->types[i];
	}
	return list;
}

bool
cache_query_params_name_time(CacheQuery *query, const CacheParams *params)
{
	if (!query->reads_times)
		return false;
	for (int i = 0; i < params->num; i++)
	{
		struct varlena *value;

		if (params->nulls[i] == 'n' || get_typlen(params->types[i]) != -1)
			continue;
		value = (struct varlena *) DatumGetPointer(params->values[i]);
		if (cache_purity_names_time(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)))
			return true;
	}
	return false;
}

bool
cache_query_params_have_rows(const CacheParams *params)
{
	for (int i = 0; i < params->num; i++)
	{
		Oid			type = params->types[i];
		Oid			element;

		if (type < FirstNormalObjectId && type != RECORDOID && type != RECORDARRAYOID)
			continue;
		type = getBaseType(type);
		element = get_element_type(type);
		if (type_is_rowtype(OidIsValid(element) ? element : type))
			return true;
	}
	return false;
}

/* ---------------------------------------------------------------------
 * Keys
 */

/* What a query is found by, and what each of its entries' keys begins with. */
static void
append_identity(StringInfo buf, const char *text, int len,
				const CacheParams *params, CacheFace face)
{
	int32		numbers[3];

	numbers[0] = face;
	numbers[1] = params->num;
	numbers[2] = len;
	cache_key_append_session(buf);
	appendBinaryStringInfo(buf, (char *) numbers, sizeof(numbers));
	if (params->num > 0)
		appendBinaryStringInfo(buf, (char *) params->types, params->num * sizeof(Oid));
	appendBinaryStringInfo(buf, text, len);
}

static void
append_bytes(StringInfo buf, const char *bytes, int32 len)
{
	appendBinaryStringInfo(buf, (char *) &len, sizeof(len));
	if (len > 0)
		appendBinaryStringInfo(buf, bytes, len);
}

void
cache_query_append_key(CacheQuery *query, const CacheParams *params, StringInfo buf)
{
	appendBinaryStringInfo(buf, query->key, query->key_len);

	/* a length of -1 is NULL */
	for (int i = 0; i < query->num_settings; i++)
	{
		char	   *value = GetConfigOptionByName(query->settings[i], NULL, true);

		append_bytes(buf, value, value ? strlen(value) : -1);
	}
	for (int i = 0; i < params->num; i++)
	{
		Datum		value = params->values[i];
		int16		len;
		bool		by_value;

		if (params->nulls[i] == 'n')
		{
			append_bytes(buf, NULL, -1);
			continue;
		}
		get_typlenbyval(params->types[i], &len, &by_value);
		if (by_value)
			append_bytes(buf, (char *) &value, sizeof(value));
		else if (len == -1)
			append_bytes(buf, VARDATA_ANY(DatumGetPointer(value)),
						 VARSIZE_ANY_EXHDR(DatumGetPointer(value)));
		else if (len == -2)
			append_bytes(buf, DatumGetCString(value), strlen(DatumGetCString(value)));
		else
			append_bytes(buf, DatumGetPointer(value), len);
	}
}

/* ---------------------------------------------------------------------
 * Making one
 */

static bool
highest_param_walker(Node *node, void *context)
{
	int		   *highest = context;

	if (node == NULL)
		return false;
	if (IsA(node, ParamRef))
		*highest = Max(*highest, ((ParamRef *) node)->number);
	return raw_expression_tree_walker(node, highest_param_walker, context);
}

static void
check_num_params(Node *raw, int num)
{
	int			highest = 0;

	highest_param_walker(raw, &highest);
	if (highest != num)
		ereport(ERROR,
				(errcode(highest > num ? ERRCODE_UNDEFINED_PARAMETER :
						 ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("query has %d parameters, but %d values were given", highest, num),
				 errhint("Give a value for each, as in ROW(42, 'a')%s.",
						 num == 0 ? "" : ", in the order of $1, $2")));
}

static void
check_result(TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);

		if (attr->atttypid == RECORDOID || attr->atttypid == RECORDARRAYOID)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("query cannot be cached"),
					 errdetail("Its column \"%s\" has rows of no named type.",
							   NameStr(attr->attname)),
					 errhint("Cast it to a composite type, or use perfopt.cached_json().")));
	}
}

/* The only statement in the text, which is cut to it. */
static RawStmt *
parse_one(char **text)
{
	List	   *statements = pg_parse_query(*text);
	RawStmt    *raw;

	if (list_length(statements) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("query to be cached must be exactly one statement")));
	raw = linitial_node(RawStmt, statements);
	if (!IsA(raw->stmt, SelectStmt))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("query cannot be cached"),
				 errdetail("It is not a SELECT, or uses SELECT INTO.")));
	*text = raw->stmt_len > 0 ?
		pnstrdup(*text +raw->stmt_location, raw->stmt_len) :
		pstrdup(*text +raw->stmt_location);
	return raw;
}

/* The definitions that decide what the query means. */
static void
use_definitions(CacheQuery *query, const CachePurity *purity, List *relations)
{
	int			num = 0;
	ListCell   *lc;

	query->definitions = palloc((3 + 2 * list_length(relations) +
								 list_length(purity->types.definitions)) * sizeof(CacheDefinitionState));
	query->definitions[num++].definition = cache_definition_of_database();
	query->definitions[num++].definition = cache_definition_of_cluster();
	foreach(lc, relations)
	{
		char	   *name = get_rel_name(lfirst_oid(lc));

		query->definitions[num++].definition = cache_definition_of_relation(lfirst_oid(lc));
		if (name)
			query->definitions[num++].definition = cache_definition_of_relation_name(name);
	}
	if (purity->names_types)
		query->definitions[num++].definition = cache_definition_of_types();
	foreach(lc, purity->types.definitions)
		query->definitions[num++].definition = lfirst_int(lc);
	for (int i = 0; i < num; i++)
		query->definitions[i].value = cache_definition_use(query->definitions[i].definition);
	query->num_definitions = num;
}

/*
 * The tables that must be tracked: those named, and what inherits from them.
 * Temporary ones among those are seen by the session they belong to.
 */
static List *
tables_of(List *relations)
{
	List	   *tables = NIL;
	List	   *permanent = NIL;
	ListCell   *lc;

	foreach(lc, relations)
	{
		Oid			relid = lfirst_oid(lc);
		char		kind = get_rel_relkind(relid);

		if (kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE)
			tables = list_concat_unique_oid(tables,
											has_subclass(relid) ?
											find_all_inheritors(relid, AccessShareLock, NULL) :
											list_make1_oid(relid));
	}
	foreach(lc, tables)
	{
		Oid			schema = get_rel_namespace(lfirst_oid(lc));

		if (isTempNamespace(schema))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("query cannot be cached"),
					 errdetail("It reads the temporary table \"%s\".",
							   get_rel_name(lfirst_oid(lc)))));
		if (!isAnyTempNamespace(schema))
			permanent = lappend_oid(permanent, lfirst_oid(lc));
	}
	return permanent;
}

static void
free_query(CacheQuery *query)
{
	if (query->plan)
		SPI_freeplan(query->plan);
	MemoryContextDelete(query->context);
}

static CacheQuery *
make_query(const StringInfoData *key, const char *text_in, int len,
		   const CacheParams *params, CacheFace face)
{
	MemoryContext context;
	MemoryContext scratch;
	MemoryContext old = CurrentMemoryContext;
	CacheQuery *query;
	CachePurity purity = {0};
	uint64		epoch;
	bool		calm;
	char	   *text;
	RawStmt    *raw;
	Query	   *analyzed;
	List	   *rewritten;
	List	   *tables;
	ListCell   *lc;
	StringInfoData wrapped;
	ErrorContextCallback error_context;

	context = AllocSetContextCreate(CurrentMemoryContext, "perfopt cached query",
									ALLOCSET_SMALL_SIZES);
	scratch = AllocSetContextCreate(CurrentMemoryContext, "perfopt query analysis",
									ALLOCSET_DEFAULT_SIZES);

	/* What is counted up to here, we read as it is now. */
	calm = cache_definitions_begin(&epoch) && !cache_definitions_marked();
	AcceptInvalidationMessages();

	MemoryContextSwitchTo(scratch);
	text = pnstrdup(text_in, len);

	error_context.callback = perfopt_error_in_text;
	error_context.arg = text;

	error_context.previous = error_context_stack;
	error_context_stack = &error_context;
	raw = parse_one(&text);
	cache_purity_check_raw(&purity, raw->stmt);
	check_num_params(raw->stmt, params->num);
	error_context.arg = text;

	raw = parse_one(&text);		/* again: analysis scribbles on it */
	rewritten = pg_analyze_and_rewrite_fixedparams(raw, text, params->types,
												   params->num, NULL);
	if (list_length(rewritten) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("query cannot be cached"),
				 errdetail("It is rewritten to several statements.")));
	error_context_stack = error_context.previous;
	analyzed = linitial_node(Query, rewritten);
	cache_purity_check(&purity, analyzed);

	MemoryContextSwitchTo(context);
	query = palloc0(sizeof(CacheQuery));
	query->context = context;
	query->key = palloc(key->len);
	memcpy(query->key, key->data, key->len);
	query->key_len = key->len;
	query->text = pstrdup(text);
	query->face = face;
	query->num_params = params->num;
	query->types = palloc((params->num + 1) * sizeof(Oid));
	if (params->num > 0)
		memcpy(query->types, params->types, params->num * sizeof(Oid));
	query->reads_times = purity.reads_times;
	query->calls_opaque = purity.calls_opaque;
	query->settings = palloc((list_length(purity.settings) + 1) * sizeof(char *));
	foreach(lc, purity.settings)
		query->settings[query->num_settings++] = pstrdup(lfirst(lc));

	tables = tables_of(purity.relations);
	query->relations = palloc((list_length(tables) + 1) * sizeof(Oid));
	foreach(lc, tables)
		query->relations[query->num_relations++] = lfirst_oid(lc);
	use_definitions(query, &purity, list_concat_unique_oid(purity.relations, tables));

	/* The names inside are the alias's columns, so "*" cannot mean one. */
	MemoryContextSwitchTo(scratch);
	initStringInfo(&wrapped);
	if (face == CACHE_FACE_JSON)
		appendStringInfo(&wrapped,
						 "SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(cached.*)),"
						 " '[]'::pg_catalog.jsonb) FROM (%s\n) AS cached", text);
	else
		appendStringInfoString(&wrapped, text);
	MemoryContextSwitchTo(old);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");

	/* Parallel workers do not tell what functions read in them. */
	query->plan = SPI_prepare_cursor(wrapped.data, params->num, params->types,
									 purity.calls_functions ? 0 : CURSOR_OPT_PARALLEL_OK);
	if (query->plan == NULL)
		elog(ERROR, "could not prepare query to be cached: %s",
			 SPI_result_code_string(SPI_result));
	MemoryContextSwitchTo(context);
	query->desc = CreateTupleDescCopy(((CachedPlanSource *)
									   linitial(SPI_plan_get_plan_sources(query->plan)))->resultDesc);
	if (face == CACHE_FACE_QUERY)
		check_result(query->desc);

	/* Nothing below raises an error before it is in the table. */
	query->settled = calm && cache_definitions_unchanged(epoch) &&
		!cache_definitions_marked();
	if (SPI_keepplan(query->plan) != 0)
		elog(ERROR, "could not keep plan of query to be cached");
	MemoryContextSetParent(context, CacheMemoryContext);
	SPI_finish();
	MemoryContextDelete(scratch);
	return query;
}

/* ---------------------------------------------------------------------
 * Finding one
 */

bool
cache_query_is_current(const CacheQuery *query)
{
	if (!query->settled || cache_definitions_marked())
		return false;
	for (int i = 0; i < query->num_definitions; i++)
		if (!cache_definition_is_current(query->definitions[i]))
			return false;
	return true;
}

static void
free_unused(void)
{
	ListCell   *lc;

	if (running > 0 || unused == NIL)
		return;
	foreach(lc, unused)
		free_query(lfirst(lc));
	list_free(unused);
	unused = NIL;
}

static void
forget(CacheQuery *query)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	unused = lappend(unused, query);
	MemoryContextSwitchTo(old);
	hash_search(queries, &query->hash, HASH_REMOVE, NULL);
	dlist_delete(&query->node);
	num_queries--;
}

static void
remember(CacheQuery *query, uint64 hash)
{
	QueryEntry *entry;
	bool		found;

	if (num_queries >= MAX_QUERIES)
		forget(dlist_tail_element(CacheQuery, node, &by_use));
	query->hash = hash;
	entry = hash_search(queries, &hash, HASH_ENTER, &found);
	entry->query = query;
	dlist_push_head(&by_use, &query->node);
	num_queries++;
}

CacheQuery *
cache_query_get(const char *text, int len, const CacheParams *params, bool as_json)
{
	static StringInfoData key = {NULL};
	CacheFace	face = as_json ? CACHE_FACE_JSON : CACHE_FACE_QUERY;
	StringInfoData own_key;
	CacheQuery *query = NULL;
	QueryEntry *entry;
	uint64		hash;

	if (queries == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(uint64),.entrysize = sizeof(QueryEntry)};
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(&key);
		MemoryContextSwitchTo(old);
		queries = hash_create("perfopt cached queries", MAX_QUERIES, &ctl,
							  HASH_ELEM | HASH_BLOBS);
	}
	free_unused();

	resetStringInfo(&key);
	append_identity(&key, text, len, params, face);

	/* Mostly it is the one used before. */
	if (!dlist_is_empty(&by_use))
	{
		query = dlist_head_element(CacheQuery, node, &by_use);
		if (query->key_len == key.len && memcmp(query->key, key.data, key.len) == 0 &&
			cache_query_is_current(query))
			return query;
	}

	hash = hash_bytes_extended((unsigned char *) key.data, key.len, 0);
	entry = hash_search(queries, &hash, HASH_FIND, NULL);
	query = entry ? entry->query : NULL;
	if (query && query->key_len == key.len &&
		memcmp(query->key, key.data, key.len) == 0 && cache_query_is_current(query))
	{
		dlist_move_head(&by_use, &query->node);
		return query;
	}

	/* Making one runs functions, which may come here, too. */
	own_key = key;
	own_key.data = palloc(key.len);
	memcpy(own_key.data, key.data, key.len);
	query = make_query(&own_key, text, len, params, face);
	pfree(own_key.data);
	entry = hash_search(queries, &hash, HASH_FIND, NULL);
	if (entry)
		forget(entry->query);
	remember(query, hash);
	return query;
}

/* ---------------------------------------------------------------------
 * Using it
 */

static bool
track_tables(CacheQuery *query, bool or_raise)
{
	for (int i = 0; i < query->num_relations; i++)
	{
		Oid			relid = query->relations[i];

		if (cache_relation_is_tracked(relid) || cache_track_if_owner(relid))
			continue;
		/* its partitions count */
		if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
			continue;
		if (or_raise && !perfopt_table_ownercheck(relid, GetUserId()))
			cache_raise_untracked(relid);
		return false;			/* some other time */
	}
	return true;
}

void
cache_query_track(CacheQuery *query, bool or_raise)
{
	if (query->tracked || XactReadOnly || IsInParallelMode())
		return;
	running++;					/* event triggers may come here */
	PG_TRY();
	{
		query->tracked = track_tables(query, or_raise);
	}
	PG_FINALLY();
	{
		running--;
	}
	PG_END_TRY();
}

/* What is being computed depends on what the query means. */
static void
add_meaning(CacheQuery *query, CacheDependencies *deps)
{
	for (int i = 0; i < query->num_definitions; i++)
		cache_dependencies_add_definition(deps, query->definitions[i].definition);
	if (!cache_query_is_current(query))
		cache_dependencies_refuse(deps, cache_definitions_marked() ?
								  CACHE_BYPASS_OWN_DDL : CACHE_BYPASS_CONCURRENT_DDL,
								  InvalidOid);
}

void
cache_query_run(CacheQuery *query, const CacheParams *params, DestReceiver *dest)
{
	SPIExecuteOptions options = {
		.params = param_list(params),
		/* the snapshot of the statement that calls, and no newer one */
		.read_only = true,
		.dest = dest
	};
	CacheDependencies *deps = cache_collecting();

	if (deps)
	{
		add_meaning(query, deps);
		deps->settings_in_key = !query->calls_opaque;
		/* what "now" means as a parameter is decided anew each time */
		if (cache_query_params_name_time(query, params))
			cache_dependencies_refuse(deps, CACHE_BYPASS_SETTING, InvalidOid);
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	running++;
	PG_TRY();
	{
		int			result = SPI_execute_plan_extended(query->plan, &options);

		if (result != SPI_OK_SELECT)
			elog(ERROR, "could not run cached query: %s", SPI_result_code_string(result));
	}
	PG_FINALLY();
	{
		running--;
	}
	PG_END_TRY();
	SPI_finish();
}

/* ---- the result as JSON ---- */

typedef struct JsonReceiver
{
	DestReceiver pub;
	MemoryContext context;
	Datum		value;
} JsonReceiver;

static bool
receive_json(TupleTableSlot *slot, DestReceiver *self)
{
	JsonReceiver *receiver = (JsonReceiver *) self;
	MemoryContext old = MemoryContextSwitchTo(receiver->context);

	slot_getallattrs(slot);
	receiver->value = JsonbPGetDatum((Jsonb *) PG_DETOAST_DATUM_COPY(slot->tts_values[0]));
	MemoryContextSwitchTo(old);
	return true;
}

static void
receive_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
receive_nothing(DestReceiver *self)
{
}

Datum
cache_query_json_compute(CacheQuery *query, const CacheParams *params)
{
	JsonReceiver receiver = {
		.pub = {receive_json, receive_startup, receive_nothing, receive_nothing, DestNone},
		.context = CurrentMemoryContext
	};

	Assert(query->face == CACHE_FACE_JSON);
	if (cache_collecting())
		cache_query_track(query, false);
	receiver.pub.mydest = DestTuplestore;	/* anything that is no DestNone */
	cache_query_run(query, params, &receiver.pub);
	return receiver.value;
}
