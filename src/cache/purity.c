/*
 * purity.c
 *		Which queries may be cached: those whose result is decided by rows of
 *		tracked tables, definitions, and what is in the key.
 *
 * The query is looked at as analyzed and rewritten, so that views, policies
 * and what functions are called behind operators, casts and aggregates are all
 * seen.  Of the functions, immutable ones are taken at their word, of the
 * server's stable ones those on the list below, and functions in SQL are
 * looked into.  What others depend on cannot be seen: only
 * perfopt.cache_opaque_functions lets them pass.
 */
#include "postgres.h"

#include "cache/query_internal.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/catalog.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/functions.h"
#include "fmgr.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_type.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

/* Functions in functions in functions ... */
#define MAX_DEPTH	32

/*
 * The server's stable functions that depend on their arguments, on settings
 * that are in the key, and on definitions that are counted, only.  Sorted.
 */
static const char *const stable_functions[] = {
	"anyarray_out", "anycompatiblearray_out", "anycompatiblemultirange_out",
	"anycompatiblerange_out", "anyenum_out", "anymultirange_out",
	"anyrange_out", "anytextcat", "array_in", "array_out", "array_to_json",
	"array_to_string", "cash_in", "cash_out", "concat", "concat_ws",
	"convert", "convert_from", "convert_to", "current_database",
	"current_schema", "current_user", "date", "date_add",
	"date_cmp_timestamptz", "date_eq_timestamptz", "date_ge_timestamptz",
	"date_gt_timestamptz", "date_in", "date_le_timestamptz",
	"date_lt_timestamptz", "date_ne_timestamptz", "date_out", "date_part",
	"date_subtract", "date_trunc", "domain_in", "enum_first", "enum_in",
	"enum_last", "enum_out", "enum_range", "extract", "format",
	"format_type", "generate_series", "get_current_ts_config",
	"getdatabaseencoding", "getpgusername", "in_range", "interval_in",
	"interval_out", "interval_pl_timestamptz", "json_agg",
	"json_agg_strict", "json_agg_strict_transfn", "json_agg_transfn",
	"json_build_array", "json_build_object", "json_object_agg",
	"json_object_agg_strict", "json_object_agg_strict_transfn",
	"json_object_agg_transfn", "json_object_agg_unique",
	"json_object_agg_unique_strict",
	"json_object_agg_unique_strict_transfn",
	"json_object_agg_unique_transfn", "json_populate_record",
	"json_populate_recordset", "json_to_record", "json_to_recordset",
	"json_to_tsvector", "jsonb_agg", "jsonb_agg_finalfn",
	"jsonb_agg_strict", "jsonb_agg_strict_transfn", "jsonb_agg_transfn",
	"jsonb_build_array", "jsonb_build_object", "jsonb_object_agg_finalfn",
	"jsonb_object_agg_strict_transfn", "jsonb_object_agg_transfn",
	"jsonb_object_agg_unique_strict_transfn",
	"jsonb_object_agg_unique_transfn", "jsonb_path_exists_tz",
	"jsonb_path_match_tz", "jsonb_path_query_array_tz",
	"jsonb_path_query_first_tz", "jsonb_path_query_tz",
	"jsonb_populate_record", "jsonb_populate_recordset", "jsonb_to_record",
	"jsonb_to_recordset", "jsonb_to_tsvector", "length", "make_timestamptz",
	"money", "multirange_in", "multirange_out", "numeric", "overlaps",
	"pg_client_encoding", "pg_collation_for", "pg_has_role", "pg_typeof",
	"phraseto_tsquery", "plainto_tsquery", "quote_literal",
	"quote_nullable", "range_in", "range_out", "record_in", "record_out",
	"regtypein", "regtypeout", "row_to_json", "session_user", "textanycat",
	"time", "time_in", "timestamp", "timestamp_cmp_timestamptz",
	"timestamp_eq_timestamptz", "timestamp_ge_timestamptz",
	"timestamp_gt_timestamptz", "timestamp_in", "timestamp_le_timestamptz",
	"timestamp_lt_timestamptz", "timestamp_ne_timestamptz",
	"timestamp_out", "timestamptz", "timestamptz_cmp_date",
	"timestamptz_cmp_timestamp", "timestamptz_eq_date",
	"timestamptz_eq_timestamp", "timestamptz_ge_date",
	"timestamptz_ge_timestamp", "timestamptz_gt_date",
	"timestamptz_gt_timestamp", "timestamptz_in", "timestamptz_le_date",
	"timestamptz_le_timestamp", "timestamptz_lt_date",
	"timestamptz_lt_timestamp", "timestamptz_mi_interval",
	"timestamptz_ne_date", "timestamptz_ne_timestamp", "timestamptz_out",
	"timestamptz_pl_interval", "timezone", "to_char", "to_date", "to_json",
	"to_jsonb", "to_number", "to_timestamp", "to_tsquery", "to_tsvector",
	"ts_headline", "ts_match_tq", "ts_match_tt", "version",
	"websearch_to_tsquery", "xml", "xml_in", "xml_is_well_formed"
};

/* What these words mean, read as a date or time, changes with the time. */
static const char *const time_words[] = {"now", "today", "tomorrow", "yesterday"};

/* As given, it would be another one in each call, and none would be a hit. */
#define ROUNDED_TIME_HINT \
	"Pass the time as a parameter, rounded, as in date_trunc('minute', now()), so that other calls have it too."

typedef struct FunctionCheck
{
	CachePurity *purity;
	Node	   *node;			/* that calls it */
} FunctionCheck;

static bool check_node(Node *node, CachePurity *purity);
static bool check_function(Oid function, void *context);

pg_noreturn static void refuse(const char *hint, const char *detail,...)
			pg_attribute_printf(2, 3);

static void
refuse(const char *hint, const char *detail,...)
{
	char		message[512];
	va_list		args;

	va_start(args, detail);
	vsnprintf(message, sizeof(message), detail, args);
	va_end(args);
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("query cannot be cached"),
			 errdetail_internal("%s", message),
			 hint ? errhint("%s", hint) : 0));
}

/* ---- words for times ---- */

bool
cache_purity_names_time(const char *text, Size len)
{
	for (Size i = 0; i < len; i++)
	{
		if (i > 0 && isalpha((unsigned char) text[i - 1]))
			continue;
		for (int w = 0; w < lengthof(time_words); w++)
		{
			Size		word_len = strlen(time_words[w]);

			if (i + word_len <= len &&
				pg_strncasecmp(text +i, time_words[w], word_len) == 0 &&
				(i + word_len == len || !isalpha((unsigned char) text[i + word_len])))
				return true;
		}
	}
	return false;
}

/* Could a type that is created later take the place of the one that is meant? */
static bool
may_be_hidden(const TypeName *name)
{
	Oid			type;

	if (name->names == NIL || strcmp(strVal(linitial(name->names)), "pg_catalog") == 0)
		return false;
	type = LookupTypeNameOid(NULL, name, true);
	return !OidIsValid(type) || type >= FirstNormalObjectId ||
		strstr(namespace_search_path, "pg_catalog") != NULL;
}

static bool
check_raw_walker(Node *node, void *context)
{
	CachePurity *purity = context;

	if (node == NULL)
		return false;
	if (IsA(node, TypeName) && !purity->names_types)
		purity->names_types = may_be_hidden((TypeName *) node);
	if (IsA(node, A_Const))
	{
		A_Const    *constant = (A_Const *) node;

		if (!constant->isnull && IsA(&constant->val, String) &&
			cache_purity_names_time(strVal(&constant->val),
									strlen(strVal(&constant->val))))
			refuse("Pass the time, or the text, as a parameter.",
				   "The literal \"%s\" may stand for the current time.",
				   strVal(&constant->val));
		return false;
	}
	return raw_expression_tree_walker(node, check_raw_walker, context);
}

void
cache_purity_check_raw(CachePurity *purity, Node *raw)
{
	check_raw_walker(raw, purity);
}

/* ---- functions ---- */

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* Is it named in perfopt.cache_opaque_functions? */
static bool
is_opaque(const char *schema, const char *name)
{
	char	   *list = pstrdup(perfopt_cache_opaque_functions ?
							   perfopt_cache_opaque_functions : "");
	List	   *names;
	ListCell   *lc;
	bool		found = false;

	if (!SplitIdentifierString(list, ',', &names))
		return false;
	foreach(lc, names)
	{
		const char *listed = lfirst(lc);
		Size		schema_len = strlen(schema);

		found |= strcmp(listed, name) == 0 ||
			(strncmp(listed, schema, schema_len) == 0 &&
			 listed[schema_len] == '.' &&
			 strcmp(listed + schema_len + 1, name) == 0);
	}
	list_free(names);
	return found;
}

/* Do the statements in a function of SQL do what may be cached? */
static void
check_body(CachePurity *purity, HeapTuple tuple, Node *call)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	List	   *queries = NIL;
	ListCell   *lc;
	Datum		value;
	bool		isnull;
	Oid			role;
	int			security;
	int			nest_level;

	if (list_member_oid(purity->functions, proc->oid))
		return;
	purity->functions = lappend_oid(purity->functions, proc->oid);
	purity->calls_functions = true;
	if (++purity->depth > MAX_DEPTH)
		refuse(NULL, "It calls functions nested too deeply.");

	/* Looking may run functions as the owner: not for who may not call it. */
	if (perfopt_function_aclcheck(proc->oid, GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, NameStr(proc->proname));

	/* Look at it as it will see itself; an error undoes this. */
	GetUserIdAndSecContext(&role, &security);
	nest_level = NewGUCNestLevel();
	if (proc->prosecdef)
		SetUserIdAndSecContext(proc->proowner, security | SECURITY_LOCAL_USERID_CHANGE);
	value = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proconfig, &isnull);
	if (!isnull)
		ProcessGUCArray(DatumGetArrayTypeP(value),
						superuser() ? PGC_SUSET : PGC_USERSET,
						PGC_S_SESSION, GUC_ACTION_SAVE);

	value = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosqlbody, &isnull);
	if (!isnull)
	{
		Node	   *body = stringToNode(TextDatumGetCString(value));
		List	   *stored = IsA(body, List) ? linitial(castNode(List, body)) : list_make1(body);

		foreach(lc, stored)
		{
			Query	   *query = lfirst_node(Query, lc);

			AcquireRewriteLocks(query, true, false);
			queries = list_concat(queries, pg_rewrite_query(query));
		}
	}
	else
	{
		char	   *source;
		SQLFunctionParseInfoPtr info;

		value = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
		if (isnull)
			elog(ERROR, "null prosrc for function %u", proc->oid);
		source = TextDatumGetCString(value);
		info = prepare_sql_fn_parse_info(tuple, call,
										 call ? exprInputCollation(call) : InvalidOid);
		foreach(lc, pg_parse_query(source))
		{
			RawStmt    *raw = lfirst_node(RawStmt, lc);

			cache_purity_check_raw(purity, raw->stmt);
			queries = list_concat(queries,
								  pg_analyze_and_rewrite_withcb(raw, source,
																(ParserSetupHook) sql_fn_parser_setup,
																info, NULL));
		}
	}
	foreach(lc, queries)
		cache_purity_check(purity, lfirst_node(Query, lc));

	AtEOXact_GUC(true, nest_level);
	SetUserIdAndSecContext(role, security);
	purity->depth--;
}

static void
check_aggregate(FunctionCheck *check, Oid function)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(function));
	Form_pg_aggregate aggregate;
	Oid			functions[8];

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", function);
	aggregate = (Form_pg_aggregate) GETSTRUCT(tuple);
	functions[0] = aggregate->aggtransfn;
	functions[1] = aggregate->aggfinalfn;
	functions[2] = aggregate->aggcombinefn;
	functions[3] = aggregate->aggserialfn;
	functions[4] = aggregate->aggdeserialfn;
	functions[5] = aggregate->aggmtransfn;
	functions[6] = aggregate->aggminvtransfn;
	functions[7] = aggregate->aggmfinalfn;
	ReleaseSysCache(tuple);

	for (int i = 0; i < lengthof(functions); i++)
	{
		FunctionCheck inner = {check->purity, NULL};

		if (OidIsValid(functions[i]))
			check_function(functions[i], &inner);
	}
}

static void
check_stable_function(FunctionCheck *check, HeapTuple tuple)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	const char *name = NameStr(proc->proname);
	char	   *schema;

	if (proc->oid < FirstNormalObjectId && proc->pronamespace == PG_CATALOG_NAMESPACE)
	{
		bool		known = bsearch(&name, stable_functions, lengthof(stable_functions),
									sizeof(char *), compare_names) != NULL;

		/* the time zone of a time without a date is that of today */
		if (proc->prorettype == TIMETZOID)
			known = false;
		if (strcmp(name, "current_schema") == 0 &&
			strstr(namespace_search_path, "pg_temp") != NULL)
			known = false;
		if (!known)
			refuse(proc->prorettype == TIMESTAMPTZOID ? ROUNDED_TIME_HINT :
				   "Pass what it returns as a parameter.",
				   "The result of function \"%s\" depends on more than can be seen.", name);
		if (strstr(name, "_populate_record") || strstr(name, "_to_record") ||
			strcmp(name, "record_in") == 0 || strcmp(name, "array_in") == 0)
			check->purity->reads_times = true;
		return;
	}

	schema = get_namespace_name(proc->pronamespace);
	if (schema && is_opaque(schema, name))
	{
		check->purity->calls_functions = true;
		check->purity->calls_opaque = true;
		return;
	}
	if (proc->prolang == SQLlanguageId)
		check_body(check->purity, tuple, check->node);
	else
		refuse("If the rows it reads and the settings it uses do not matter, or a time to live is good enough, add its name, without arguments, to \"perfopt.cache_opaque_functions\".",
			   "What function \"%s\" depends on cannot be seen.", name);
}

/* Always false: what may not be cached is an error. */
static bool
check_function(Oid function, void *context)
{
	FunctionCheck *check = context;
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	proc = (Form_pg_proc) GETSTRUCT(tuple);

	if (isAnyTempNamespace(proc->pronamespace))
		refuse(NULL, "Function \"%s\" is temporary.", NameStr(proc->proname));
	if (proc->provolatile == PROVOLATILE_VOLATILE)
		refuse(proc->oid < FirstNormalObjectId ? "Pass what it returns as a parameter." :
			   "If it only reads, declare it STABLE.",
			   "Function \"%s\" is volatile.", NameStr(proc->proname));
	if (proc->prokind == PROKIND_AGGREGATE)
		check_aggregate(check, function);
	else if (proc->provolatile == PROVOLATILE_STABLE)
		check_stable_function(check, tuple);
	ReleaseSysCache(tuple);
	return false;
}

/* current_setting(name): its value goes into the key. */
static void
check_current_setting(CachePurity *purity, FuncExpr *call)
{
	Node	   *name = eval_const_expressions(NULL, linitial(call->args));
	ListCell   *lc;
	char	   *setting;

	if (!IsA(name, Const) || ((Const *) name)->constisnull)
		refuse("Write the name as a constant.",
			   "It calls current_setting() with a name that is not a constant.");
	setting = TextDatumGetCString(((Const *) name)->constvalue);
	foreach(lc, purity->settings)
	{
		if (pg_strcasecmp(lfirst(lc), setting) == 0)
			return;
	}
	purity->settings = lappend(purity->settings, setting);
}

/* ---- tables ---- */

static void
check_relation(CachePurity *purity, Oid relid)
{
	const char *name = get_rel_name(relid);
	char		kind = get_rel_relkind(relid);

	if (name == NULL)
		elog(ERROR, "cache lookup failed for relation %u", relid);
	if (relid < FirstNormalObjectId || IsCatalogRelationOid(relid))
		refuse(NULL, "It reads the system catalog \"%s\".", name);
	if (get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
		refuse(NULL, "It reads the temporary table \"%s\".", name);
	if (kind == RELKIND_FOREIGN_TABLE)
		refuse("Copy it to a table or a materialized view.",
			   "It reads the foreign table \"%s\", whose writers are not seen.", name);
	if (kind == RELKIND_SEQUENCE)
		refuse(NULL, "It reads the sequence \"%s\".", name);
	purity->relations = list_append_unique_oid(purity->relations, relid);
}

/* ---- types ---- */

static void
note_type(CachePurity *purity, Oid type)
{
	cache_types_add(&purity->types, type);
	if (OidIsValid(purity->types.temporary))
		refuse(NULL, "Type %s is temporary.", format_type_be(purity->types.temporary));
}

/* ---- the walk ---- */

static bool
check_node(Node *node, CachePurity *purity)
{
	if (node == NULL)
		return false;

	switch (nodeTag(node))
	{
		case T_Query:
			cache_purity_check(purity, (Query *) node);
			return false;
		case T_RangeTblEntry:
			{
				RangeTblEntry *rte = (RangeTblEntry *) node;

				if (rte->tablesample)
					refuse(NULL, "It uses TABLESAMPLE.");
				if (rte->rtekind == RTE_NAMEDTUPLESTORE)
					refuse(NULL, "It reads a transition table.");
				if (OidIsValid(rte->relid))
					check_relation(purity, rte->relid);
				return false;	/* the walker goes into it by itself */
			}
		case T_SQLValueFunction:
			switch (((SQLValueFunction *) node)->op)
			{
				case SVFOP_CURRENT_ROLE:
				case SVFOP_CURRENT_USER:
				case SVFOP_USER:
				case SVFOP_SESSION_USER:
				case SVFOP_CURRENT_CATALOG:
					break;
				case SVFOP_CURRENT_SCHEMA:
					if (strstr(namespace_search_path, "pg_temp") != NULL)
						refuse(NULL, "The current schema is a temporary one.");
					break;
				default:
					refuse(ROUNDED_TIME_HINT,
						   "It depends on the current time.");
			}
			break;
		case T_NextValueExpr:
			refuse(NULL, "It takes the next value of a sequence.");
			break;
		case T_CurrentOfExpr:
			refuse(NULL, "It depends on a cursor.");
			break;
		case T_CoerceViaIO:
			{
				char		category = TypeCategory(((CoerceViaIO *) node)->resulttype);

				if (category != TYPCATEGORY_STRING &&
					category != TYPCATEGORY_NUMERIC &&
					category != TYPCATEGORY_BOOLEAN)
					purity->reads_times = true;
				break;
			}
		case T_FuncExpr:
			{
				FuncExpr   *call = (FuncExpr *) node;

				if (call->funcid == F_CURRENT_SETTING_TEXT ||
					call->funcid == F_CURRENT_SETTING_TEXT_BOOL)
				{
					check_current_setting(purity, call);
					return expression_tree_walker(node, check_node, purity);
				}
				break;
			}
		default:
			break;
	}

	switch (nodeTag(node))
	{
		case T_Var:
		case T_Const:
		case T_Param:
		case T_FuncExpr:
		case T_OpExpr:
		case T_Aggref:
		case T_WindowFunc:
		case T_RowExpr:
		case T_FieldSelect:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_RelabelType:
		case T_CoerceToDomain:
			note_type(purity, exprType(node));
			break;
		default:
			break;
	}

	{
		FunctionCheck check = {purity, node};

		check_functions_in_node(node, check_function, &check);
	}
	return expression_tree_walker(node, check_node, purity);
}

void
cache_purity_check(CachePurity *purity, Query *query)
{
	check_stack_depth();

	if (query->commandType != CMD_SELECT || query->utilityStmt != NULL)
		refuse(NULL, "It is not a SELECT, or uses SELECT INTO.");
	if (query->hasModifyingCTE)
		refuse(NULL, "It has a WITH clause that changes data.");
	if (query->rowMarks != NIL || query->hasForUpdate)
		refuse(NULL, "It locks rows.");
	query_tree_walker(query, check_node, purity, QTW_EXAMINE_RTES_BEFORE);
}
