/*
 * existing_indexes.c
 *		Indexes that are not needed, or are not valid.
 *
 * Kind drop_index, of indexes that nothing but access hangs on (see
 * INDEX_IS_DROPPABLE):
 *
 * - not used for perfopt.unused_index_time while the table was.  Not those that
 *   keep an expression's statistics, which the planner uses without scanning
 *   them, and not the only one that a foreign key's checks can use.
 * - another one of the table serves whatever it does, and stays; of two that
 *   serve each other, the one made first does.  It must not be much larger or
 *   elsewhere, and no sampled statement may cost more without the one to go.  An
 *   expression's statistics are the other one's, too, then.
 * - what an interrupted REINDEX or DROP INDEX CONCURRENTLY has left.
 *
 * Kind reindex: an index that is not valid and not being built.
 */
#include "postgres.h"

#include "advisor/survey_internal.h"

#include "access/htup_details.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "common/compat.h"
#include "common/settings.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

/* An index with fewer pages is not worth a thought when it is not used. */
#define MIN_PAGES		10

/* One that is to do another's work is at most so many times as large. */
#define MOST_LARGER		3.0

/* A statement costs more when it does by this. */
#define COSTS_MORE		1.02

typedef struct ExistingIndex
{
	Oid			oid;
	char	   *schema_name;
	char	   *table_name;
	char	   *name;
	IndexSpec  *spec;			/* or NULL: of a kind that is not compared */
	const char *options;		/* what it was made WITH */
	bool		droppable;
	bool		has_expressions;
	Oid			tablespace;
	double		bytes;
	double		scans;
	double		writes;			/* of the table's rows, that it followed */

	/* what was found */
	bool		unused;
	const char *since;			/* a date */
	double		unused_days;
	struct ExistingIndex *covered_by;
	int			priced;			/* statements that don't need it */
} ExistingIndex;

typedef struct ForeignKeyColumns
{
	Oid			relid;
	int			num;
	AttrNumber	attnums[INDEX_MAX_KEYS];
} ForeignKeyColumns;

static const char *const find_indexes =
"SELECT i.indrelid AS relid, c.oid AS oid, n.nspname::text AS schema_name, t.relname::text AS table_name,"
"  c.relname::text AS name, t.reltuples::float8 AS table_rows,"
INDEX_IS_DROPPABLE " AS droppable, i.indexprs IS NOT NULL AS has_expressions, c.reltablespace AS tablespace,"
"  c.relpages::float8 * current_setting('block_size')::float8 AS bytes,"
"  pg_stat_get_numscans(c.oid)::float8 AS scans, coalesce(c.reloptions::text, '') AS options,"
"  (pg_stat_get_tuples_inserted(t.oid) + pg_stat_get_tuples_updated(t.oid)"
"   - pg_stat_get_tuples_hot_updated(t.oid))::float8 AS writes,"
"  count(*) OVER (PARTITION BY i.indrelid, c.relam, i.indkey[0]) > 1 AS begins_like_another,"
"  u.index_oid IS NOT NULL AS unused, to_char(u.unused_since, 'YYYY-MM-DD') AS since,"
"  floor(extract(epoch FROM now() - u.unused_since - u.unseen) / 86400)::float8 AS days"
" FROM" INDEX_TABLES
/* by its primary key, however few indexes the planner expects (see INDEX_IS_DROPPABLE) */
" LEFT JOIN LATERAL (SELECT * FROM perfopt.index_usage WHERE schema_name = n.nspname::text"
"   AND index_name = c.relname::text OFFSET 0) u ON u.index_oid = c.oid AND" INDEX_IS_UNUSED("$1")
" WHERE ($2 = 0 OR i.indrelid = $2) AND i.indisvalid AND i.indisready AND i.indislive AND" INDEX_OF_USER
" ORDER BY i.indrelid, c.oid";

static const char *const find_foreign_keys =
"SELECT conrelid AS relid, array_to_string(conkey, ',') AS columns FROM pg_constraint k"
" WHERE contype = 'f' AND cardinality(conkey) <= 32 AND " PERFOPT_KEY_ENFORCED_SQL("k");

/* Is it the only index that a foreign key of the table is checked by? */
static bool
serves_foreign_key(Oid relid, double table_rows, ExistingIndex *indexes, int num,
				   ExistingIndex *index, ForeignKeyColumns *keys, int num_keys)
{
	for (int k = 0; k < num_keys; k++)
	{
		bool		other = false;

		if (keys[k].relid != relid ||
			!survey_index_serves_key(index->oid, index->spec, table_rows, keys[k].num, keys[k].attnums))
			continue;
		for (int i = 0; i < num && !other; i++)
			other = &indexes[i] != index && !indexes[i].unused &&
				survey_index_serves_key(indexes[i].oid, indexes[i].spec, table_rows,
										keys[k].num, keys[k].attnums);
		if (!other)
			return true;
	}
	return false;
}

/* Of two that serve each other, does this one stay? */
static bool
stays(const ExistingIndex *index, const ExistingIndex *other)
{
	if (index->droppable != other->droppable)
		return !index->droppable;
	return index->oid < other->oid;
}

/*
 * Does the index find by its first column what its predicate leaves out?  What
 * it does not, another one would have to read, and look up in the table.
 */
static bool
predicate_is_on_first_key(const IndexSpec *spec)
{
	List	   *vars = pull_var_clause((Node *) spec->predicate, 0);
	ListCell   *lc;

	foreach(lc, vars)
		if (lfirst_node(Var, lc)->varattno <= 0 ||
			lfirst_node(Var, lc)->varattno != spec->columns[0].attnum)
		return false;
	return true;
}

/* Does it all that the other one does?  Of other access methods, only the same does. */
static bool
replaces(const ExistingIndex *by, const ExistingIndex *index)
{
	if (by->spec->am != BTREE_AM_OID)
		return perfopt_index_spec_equal(by->spec, index->spec) &&
			strcmp(by->options, index->options) == 0;
	return perfopt_index_spec_serves(by->spec, index->spec) &&
		(equal(by->spec->predicate, index->spec->predicate) ||
		 predicate_is_on_first_key(index->spec));
}

static bool
covers(const ExistingIndex *by, const ExistingIndex *index)
{
	return by != index && by->spec && !by->unused && by->tablespace == index->tablespace &&
		replaces(by, index) &&
		(!replaces(index, by) || stays(by, index)) &&
		by->bytes <= MOST_LARGER * Max(index->bytes, MIN_PAGES * BLCKSZ);
}

/*
 * Does a statement cost more when the index is gone?  Counts those priced.  When
 * there is no time for all, it is taken to, and *complete is cleared.
 */
static bool
is_missed(Survey *survey, Oid relid, ExistingIndex *index, bool *complete)
{
	List	   *hidden = list_make1_oid(index->oid);

	for (int i = 0; i < survey->num_statements; i++)
	{
		SurveyStatement *statement = &survey->statements[i];
		double		ratio;

		if (!survey_statement_reads(statement, relid))
			continue;
		if (survey_out_of_time(survey))
		{
			*complete = false;
			return true;
		}
		ratio = survey_cost_without(statement, hidden);
		if (ratio > COSTS_MORE)
			return true;
		if (ratio > 0)
			index->priced++;
	}
	return false;
}

static const char *const find_statistics_targets =
"SELECT attnum::text AS number, attstattarget::text AS target FROM pg_attribute"
" WHERE attrelid = $1 AND attstattarget >= 0 ORDER BY attnum";

char *
perfopt_undo_of_drop(Oid index)
{
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(index)};
	StringInfoData undo;
	SurveyRows *targets;
	char	   *definition;
	char	   *space;
	char	   *name;
	char	   *comment;

	AcceptInvalidationMessages();
	if (!SearchSysCacheExists1(INDEXRELID, ObjectIdGetDatum(index)))
		return NULL;
	definition = pg_get_indexdef_string(index);
	space = strstr(definition, " INDEX ");
	if (space == NULL)
		return NULL;
	initStringInfo(&undo);
	appendStringInfo(&undo, "%.*s INDEX CONCURRENTLY %s", (int) (space - definition), definition,
					 space + strlen(" INDEX "));
	name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(index)), get_rel_name(index));
	targets = survey_query(find_statistics_targets, 1, types, values, NULL);
	for (int i = 0; i < targets->num; i++)
		appendStringInfo(&undo, "; ALTER INDEX %s ALTER COLUMN %s SET STATISTICS %s", name,
						 survey_text(targets, i, "number"), survey_text(targets, i, "target"));
	comment = GetComment(index, RelationRelationId, 0);
	if (comment)
		appendStringInfo(&undo, "; COMMENT ON INDEX %s IS %s", name, quote_literal_cstr(comment));
	return undo.data;
}

static AdviceFound *
drop_advice(Survey *survey, const char *schema_name, const char *table_name, const char *name,
			Oid oid, double bytes, double writes)
{
	AdviceFound *found = survey_found("drop_index", schema_name, table_name);

	found->definition = pstrdup(name);
	found->index_name = pstrdup(name);
	found->ddl = psprintf("DROP INDEX CONCURRENTLY %s", quote_qualified_identifier(schema_name, name));
	found->undo = perfopt_undo_of_drop(oid);
	found->bytes = bytes;
	found->predicted_gain = survey->active_ms > 0 ?
		Min(writes * ENTRY_WRITE_MS / survey->active_ms, 1) : 0;
	return found;
}

static AdviceFound *
describe(Survey *survey, ExistingIndex *index)
{
	AdviceFound *found = drop_advice(survey, index->schema_name, index->table_name, index->name,
									 index->oid, index->bytes, index->writes);
	const char *name = quote_qualified_identifier(index->schema_name, index->name);
	StringInfoData evidence;

	if (found->undo == NULL)
		return NULL;
	initStringInfo(&evidence);
	if (index->covered_by)
	{
		const char *other = quote_qualified_identifier(index->schema_name, index->covered_by->name);
		bool		same = replaces(index, index->covered_by);

		found->reason =
			psprintf("Index %s (%s) is not needed: %s %s; each row written to the table keeps both up.%s",
					 name, survey_readable_bytes(index->bytes), other,
					 same ? "is the same" : "begins with its columns and serves the same statements",
					 index->priced == 0 ? "" :
					 psprintf(" The %d sampled statement%s that read the table cost the same without it.",
							  index->priced, index->priced == 1 ? "" : "s"));
		appendStringInfo(&evidence, "{\"cause\": \"%s\", \"covered_by\": ", same ? "duplicate" : "redundant");
		escape_json(&evidence, other);
		appendStringInfo(&evidence, ", \"statements_priced\": %d", index->priced);
	}
	else
	{
		found->reason =
			psprintf("Index %s (%s) has not been used since %s, for %.0f days, while table %s was.%s",
					 name, survey_readable_bytes(index->bytes), index->since, index->unused_days,
					 quote_qualified_identifier(index->schema_name, index->table_name),
					 survey->standbys ?
					 " Look at pg_stat_user_indexes on the standbys first: this server does not count their scans." : "");
		appendStringInfo(&evidence, "{\"cause\": \"unused\", \"unused_since\": \"%s\", \"unused_days\": %.0f",
						 index->since, index->unused_days);
	}
	appendStringInfo(&evidence, ", \"scans\": %.0f, \"bytes\": %.0f, \"rows_written\": %.0f, \"standbys\": %s, \"queries\": []}",
					 index->scans, index->bytes, index->writes, survey->standbys ? "true" : "false");
	found->evidence = evidence.data;
	return found;
}

/* The indexes of one table. */
static void
look_at_table(Survey *survey, Oid relid, double table_rows, ExistingIndex *indexes, int num,
			  ForeignKeyColumns *keys, int num_keys, List **drop, bool *complete)
{
	for (int i = 0; i < num; i++)
		if (indexes[i].unused &&
			(!indexes[i].droppable || indexes[i].has_expressions || indexes[i].bytes < MIN_PAGES * BLCKSZ ||
			 serves_foreign_key(relid, table_rows, indexes, num, &indexes[i], keys, num_keys)))
			indexes[i].unused = false;

	for (int i = 0; i < num; i++)
	{
		ExistingIndex *index = &indexes[i];

		if (index->unused || !index->droppable || index->spec == NULL)
			continue;
		for (int j = 0; j < num; j++)
			if (covers(&indexes[j], index) &&
				(index->covered_by == NULL || covers(&indexes[j], index->covered_by)))
				index->covered_by = &indexes[j];
	}
	for (int i = 0; i < num; i++)
	{
		ExistingIndex *index = &indexes[i];
		AdviceFound *found;

		if (index->covered_by &&
			(index->covered_by->covered_by || is_missed(survey, relid, index, complete)))
			index->covered_by = NULL;
		if ((index->covered_by || index->unused) && (found = describe(survey, index)) != NULL)
			*drop = lappend(*drop, found);
	}
}

/* InvalidOid: of all tables. */
static bool
find_superfluous(Survey *survey, Oid table, List **drop)
{
	bool		complete = true;
	Oid			types[] = {FLOAT8OID, OIDOID};
	Datum		values[] = {Float8GetDatum(perfopt_unused_index_time), ObjectIdGetDatum(table)};
	SurveyRows *rows = survey_query(find_indexes, 2, types, values, NULL);
	SurveyRows *key_rows = survey_query(find_foreign_keys, 0, NULL, NULL, NULL);
	ForeignKeyColumns *keys = palloc(sizeof(ForeignKeyColumns) * Max(key_rows->num, 1));
	int			next;

	for (int k = 0; k < key_rows->num; k++)
	{
		keys[k].relid = survey_oid(key_rows, k, "relid");
		keys[k].num = survey_columns(survey_text(key_rows, k, "columns"), keys[k].attnums);
	}
	for (int first = 0; first < rows->num; first = next)
	{
		Oid			relid = survey_oid(rows, first, "relid");
		ExistingIndex *indexes;
		bool		suspect = false;

		CHECK_FOR_INTERRUPTS();
		for (next = first; next < rows->num && survey_oid(rows, next, "relid") == relid; next++)
			suspect |= survey_bool(rows, next, "unused") || survey_bool(rows, next, "begins_like_another");
		if (!suspect)
			continue;
		indexes = palloc0(sizeof(ExistingIndex) * (next - first));
		for (int i = 0; i < next - first; i++)
		{
			ExistingIndex *index = &indexes[i];

			index->oid = survey_oid(rows, first + i, "oid");
			index->schema_name = survey_text(rows, first + i, "schema_name");
			index->table_name = survey_text(rows, first + i, "table_name");
			index->name = survey_text(rows, first + i, "name");
			index->droppable = survey_bool(rows, first + i, "droppable");
			index->has_expressions = survey_bool(rows, first + i, "has_expressions");
			index->tablespace = survey_oid(rows, first + i, "tablespace");
			index->bytes = survey_number(rows, first + i, "bytes");
			index->scans = survey_number(rows, first + i, "scans");
			index->writes = survey_number(rows, first + i, "writes");
			index->spec = perfopt_index_spec_of_index(index->oid);
			index->options = survey_text(rows, first + i, "options");
			index->unused = survey_bool(rows, first + i, "unused");
			index->since = survey_text(rows, first + i, "since");
			index->unused_days = survey_number(rows, first + i, "days");
		}
		look_at_table(survey, relid, Max(survey_number(rows, first, "table_rows"), 0),
					  indexes, next - first, keys, key_rows->num, drop, &complete);
	}
	return complete;
}

/*
 * Indexes that are not valid
 *
 * Whether one is being built is told by the server; whether one is being
 * dropped, by a lock that also VACUUM takes.  So with the table locked like that
 * nothing new is said.
 */
static const char *const find_invalid =
"SELECT i.indrelid AS relid, c.oid AS oid, n.nspname::text AS schema_name, t.relname::text AS table_name,"
"  c.relname::text AS name, i.indislive AS live, i.indisunique AS is_unique, i.indisready AS ready,"
"  c.relpages::float8 * current_setting('block_size')::float8 AS bytes,"
"  EXISTS (SELECT FROM pg_index v JOIN pg_class o ON o.oid = v.indexrelid WHERE v.indrelid = t.oid AND v.indisvalid"
"   AND c.relname ~ '_cc(new|old)[0-9]*$' AND o.relname = regexp_replace(c.relname, '_cc(new|old)[0-9]*$', '')) AS left_over"
" FROM" INDEX_TABLES
" WHERE NOT i.indisvalid AND" INDEX_OF_USER
" AND NOT EXISTS (SELECT FROM perfopt.advice_item a WHERE a.schema_name = n.nspname"
"  AND a.table_name = t.relname AND a.status IN ('applying', 'reverting'))"
" ORDER BY c.oid";

static const char *const at_work =
"SELECT EXISTS (SELECT FROM pg_stat_progress_create_index p"
"  WHERE p.datname = current_database() AND (p.relid = $1 OR p.relid IS NULL)) AS building,"
" EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted"
"  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
"  AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',"
"   'AccessExclusiveLock')) AS locked,"
" EXISTS (SELECT FROM perfopt.advice_item WHERE kind IN ('reindex', 'drop_index') AND status = 'open'"
"  AND schema_name = $2 AND table_name = $3 AND definition = $4) AS told";

static bool
is_invalid(Oid index)
{
	HeapTuple	tuple;
	bool		invalid;

	AcceptInvalidationMessages();
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	if (!HeapTupleIsValid(tuple))
		return false;
	invalid = !((Form_pg_index) GETSTRUCT(tuple))->indisvalid;
	ReleaseSysCache(tuple);
	return invalid;
}

static void
find_broken(Survey *survey, List **drop, List **reindex)
{
	SurveyRows *rows = survey_query(find_invalid, 0, NULL, NULL, NULL);

	for (int i = 0; i < rows->num; i++)
	{
		Oid			index = survey_oid(rows, i, "oid");
		char	   *schema_name = survey_text(rows, i, "schema_name");
		char	   *table_name = survey_text(rows, i, "table_name");
		char	   *name = survey_text(rows, i, "name");
		const char *qualified = quote_qualified_identifier(schema_name, name);
		double		bytes = survey_number(rows, i, "bytes");
		Oid			types[] = {OIDOID, TEXTOID, TEXTOID, TEXTOID};
		Datum		values[4];
		SurveyRows *work;
		AdviceFound *found;

		values[0] = ObjectIdGetDatum(survey_oid(rows, i, "relid"));
		values[1] = CStringGetTextDatum(schema_name);
		values[2] = CStringGetTextDatum(table_name);
		values[3] = CStringGetTextDatum(name);
		work = survey_query(at_work, 4, types, values, NULL);
		if (survey_bool(work, 0, "building") ||
			(survey_bool(work, 0, "locked") && !survey_bool(work, 0, "told")) ||
			!is_invalid(index))
			continue;

		if (survey_bool(rows, i, "left_over") || !survey_bool(rows, i, "live"))
		{
			found = drop_advice(survey, schema_name, table_name, name, index, bytes, 0);
			found->undo = NULL;
			found->reason =
				psprintf("Index %s (%s) is what an interrupted %s has left: no statement can use it%s.",
						 qualified, survey_readable_bytes(bytes),
						 survey_bool(rows, i, "live") ? "REINDEX CONCURRENTLY" : "DROP INDEX CONCURRENTLY",
						 survey_bool(rows, i, "ready") ? ", and each row written keeps it up" : "");
			found->evidence = "{\"cause\": \"left over\", \"queries\": []}";
			*drop = lappend(*drop, found);
			continue;
		}
		found = survey_found("reindex", schema_name, table_name);
		found->definition = name;
		found->index_name = name;
		found->ddl = psprintf("REINDEX INDEX CONCURRENTLY %s", qualified);
		found->reason =
			psprintf("Index %s is not valid: building it was interrupted or failed%s, so no statement can use it%s.",
					 qualified, survey_bool(rows, i, "is_unique") ? ", perhaps because of rows with the same key" : "",
					 survey_bool(rows, i, "ready") ? ", though each row written keeps it up" : "");
		found->evidence = "{\"cause\": \"invalid\", \"queries\": []}";
		*reindex = lappend(*reindex, found);
	}
}

bool
survey_existing_indexes(Survey *survey, List **drop, List **reindex)
{
	bool		complete = find_superfluous(survey, InvalidOid, drop);

	find_broken(survey, drop, reindex);
	return complete;
}

/*
 * Before it is dropped
 *
 * An advice may be hours old by then, and the table another one: it is looked at
 * again as the survey does.
 */
const char *
perfopt_drop_objection(Relation relation, Oid index, const char *index_name)
{
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID};
	Datum		values[3];
	SurveyRows *rows;
	char	   *cause;
	Survey		survey = {0};
	List	   *drop = NIL;
	ListCell   *lc;

	values[0] = CStringGetTextDatum(get_namespace_name(RelationGetNamespace(relation)));
	values[1] = CStringGetTextDatum(RelationGetRelationName(relation));
	values[2] = CStringGetTextDatum(index_name);
	rows = survey_query("SELECT evidence ->> 'cause' AS cause FROM perfopt.advice_item WHERE kind = 'drop_index'"
						" AND schema_name = $1 AND table_name = $2 AND definition = $3",
						3, types, values, NULL);
	cause = rows->num > 0 ? survey_text(rows, 0, "cause") : NULL;
	if (cause == NULL)
		return NULL;
	if (strcmp(cause, "left over") == 0)
		return is_invalid(index) ? NULL : "it is valid by now";

	survey_watch_indexes();
	survey_start(&survey);
	find_superfluous(&survey, RelationGetRelid(relation), &drop);
	foreach(lc, drop)
		if (strcmp(((AdviceFound *) lfirst(lc))->index_name, index_name) == 0)
		return NULL;
	return strcmp(cause, "unused") == 0 ?
		"it has been used since it was advised to be dropped, or may have to be from now on" :
		"no other index does what it does any more";
}
