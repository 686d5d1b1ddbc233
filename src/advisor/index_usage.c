/*
 * index_usage.c
 *		Since when an index has not been used: perfopt.index_usage.
 *
 * The server counts the scans of each index, but not since when, and forgets
 * the counts when it crashes or somebody resets them; the time of the last scan
 * it keeps from PostgreSQL 16 on, until the same happens.  So the worker looks
 * again and again, and keeps a row for each index that could be dropped.
 *
 * An index is unused since the last look that saw its counter rise, or since it
 * was first looked at.  The watch begins anew
 *
 * - when another index of the table is gone: its work may be this one's now;
 * - when the index is another one of that name;
 * - after a reset, when more than a hundredth of the time watched would be time
 *   of which nobody knows, that from the last look to the reset.  With less, that
 *   time counts as not watched.  A reset of anything in the database changes its
 *   time of reset, and a crash that of the server's own statistics.  A restart
 *   is none, nor is time without a worker.
 *
 * A dump has these rows, and where they are restored they are adopted by the
 * indexes of the same names, after a reset as above.
 *
 * The planner looks at the ends of an index to estimate a range, which counts as
 * a scan; such an index is not found.  Rows of indexes in use are written once a
 * day at most; what a row has not seen makes its index look used, never unused.
 */
#include "postgres.h"

#include "advisor/survey_internal.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/settings.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Of the time watched, so much may be unseen. */
#define UNSEEN_PART		"0.01"

/* Seconds between two writes for an index in use. */
#define WRITE_AGAIN_S	(24 * 3600)

/* Indexes as they are now, as "c". */
#define CURRENT_INDEXES \
	"c AS MATERIALIZED (SELECT n.nspname::text AS schema_name, c.relname::text AS index_name," \
	"  t.relname::text AS table_name, c.oid AS index_oid, pg_stat_get_numscans(c.oid) AS scans," \
	"  " PERFOPT_LAST_SCAN_SQL("c.oid") " AS last_scan," \
	"  u.uses AS table_uses, u.others AS other_indexes" \
	" FROM" INDEX_TABLES \
	" CROSS JOIN LATERAL (SELECT pg_stat_get_numscans(t.oid) + pg_stat_get_tuples_inserted(t.oid)" \
	"   + pg_stat_get_tuples_updated(t.oid) + pg_stat_get_tuples_deleted(t.oid)" \
	"   + coalesce(sum(pg_stat_get_numscans(o.oid)), 0)::bigint AS uses," \
	"   coalesce(array_agg(o.relname::text ORDER BY o.relname) FILTER (WHERE x.indisvalid), '{}') AS others" \
	"  FROM pg_index x JOIN pg_class o ON o.oid = x.indexrelid" \
	"  WHERE x.indrelid = t.oid AND x.indexrelid <> i.indexrelid) u" \
	" WHERE i.indisvalid AND i.indexprs IS NULL AND" INDEX_OF_USER " AND" INDEX_IS_DROPPABLE ")"

/* $1: rows were restored from elsewhere, and are known by name only */
#define SAME_INDEX \
	"w.schema_name = c.schema_name AND w.index_name = c.index_name AND (w.index_oid = c.index_oid OR $1)"

static const char *const forget_gone =
"WITH " CURRENT_INDEXES
" DELETE FROM perfopt.index_usage w WHERE NOT EXISTS (SELECT FROM c WHERE " SAME_INDEX ")";

/*
 * A row that is there is of the same index, as the others have gone.  No join: one
 * with the table that grows meanwhile may be planned for an empty one.
 */
static const char *const write_new =
"WITH " CURRENT_INDEXES
" INSERT INTO perfopt.index_usage (schema_name, index_name, table_name, index_oid, scans, unused_since,"
"  table_uses, other_indexes)"
" SELECT schema_name, index_name, table_name, index_oid, scans, coalesce(last_scan, now()),"
"  table_uses, other_indexes FROM c"
" ON CONFLICT (schema_name, index_name) DO NOTHING";

/*
 * $2: have counters been reset; $3: when, or now; $4: when it was last looked;
 * $5: seconds between two writes for an index in use.
 */
static const char *const write_changes =
"WITH " CURRENT_INDEXES ", seen AS ("
" SELECT c.*, w.unused_since, w.unseen, w.table_in_use, w.table_uses AS old_uses, w.scans AS old_scans,"
"  w.index_oid <> c.index_oid OR w.table_name <> c.table_name OR w.other_indexes <> c.other_indexes AS renamed,"
"  NOT w.other_indexes <@ c.other_indexes AS others_gone,"
"  $2 OR c.scans < w.scans AS reset"
" FROM c JOIN perfopt.index_usage w ON " SAME_INDEX
"), judged AS ("
" SELECT *, scans > CASE WHEN reset THEN 0 ELSE old_scans END AS used,"
"  table_in_use OR table_uses > CASE WHEN reset THEN 0 ELSE old_uses END AS in_use,"
"  unseen + CASE WHEN reset THEN $3 - $4 ELSE '0' END AS all_unseen FROM seen"
"), anew AS ("
" SELECT *, reset AND all_unseen > (now() - unused_since) * " UNSEEN_PART " AS unknown FROM judged"
"), next AS ("
" SELECT *, used OR others_gone OR unknown AS anew, greatest(unused_since,"
"   CASE WHEN used THEN coalesce(last_scan, now()) END, CASE WHEN others_gone THEN now() END,"
"   CASE WHEN unknown THEN $3 END) AS since FROM anew"
" WHERE renamed OR reset OR others_gone OR (in_use AND NOT table_in_use AND NOT used)"
"  OR (used AND unused_since < now() - make_interval(secs => $5))"
") UPDATE perfopt.index_usage w SET table_name = n.table_name, index_oid = n.index_oid, scans = n.scans,"
"  unused_since = n.since, unseen = CASE WHEN n.anew THEN '0' ELSE n.all_unseen END,"
"  table_uses = CASE WHEN n.anew THEN n.table_uses WHEN n.reset THEN 0 ELSE n.old_uses END,"
"  table_in_use = NOT n.anew AND n.in_use, other_indexes = n.other_indexes"
" FROM next n WHERE w.schema_name = n.schema_name AND w.index_name = n.index_name";

static const char *const write_state =
"INSERT INTO perfopt.index_usage_state"
" (looked_at, database_reset, server_reset, system_identifier, database)"
" VALUES (now(), $1, $2, $3, $4)"
" ON CONFLICT (only_row) DO UPDATE SET looked_at = excluded.looked_at,"
"  database_reset = excluded.database_reset, server_reset = excluded.server_reset,"
"  system_identifier = excluded.system_identifier, database = excluded.database";

static const char *const read_state =
"SELECT s.database_reset, s.server_reset,"
"  s.system_identifier <> $1 OR s.database <> $2 AS moved,"
"  (s.database_reset, s.server_reset) IS DISTINCT FROM (d.reset, a.stats_reset) AS reset,"
"  d.reset AS new_database_reset, a.stats_reset AS new_server_reset,"
"  s.looked_at, coalesce(CASE WHEN s.system_identifier = $1 AND s.database = $2"
"   AND greatest(d.reset, a.stats_reset) BETWEEN s.looked_at AND now() THEN greatest(d.reset, a.stats_reset) END,"
"   now()) AS reset_at"
" FROM (SELECT pg_stat_get_db_stat_reset_time($2) AS reset) d CROSS JOIN pg_stat_archiver a"
" LEFT JOIN perfopt.index_usage_state s ON true";

static Datum
value_of(const SurveyRows *rows, const char *column, char *null)
{
	bool		isnull;
	Datum		value = heap_getattr(rows->rows[0], SPI_fnumber(rows->desc, column),
									 rows->desc, &isnull);

	*null = isnull ? 'n' : ' ';
	return value;
}

void
survey_watch_indexes(void)
{
	Oid			state_types[] = {INT8OID, OIDOID};
	Datum		state_values[] = {Int64GetDatum((int64) GetSystemIdentifier()), ObjectIdGetDatum(MyDatabaseId)};
	SurveyRows *state = survey_query(read_state, 2, state_types, state_values, NULL);
	Oid			types[] = {BOOLOID, BOOLOID, TIMESTAMPTZOID, TIMESTAMPTZOID, FLOAT8OID};
	Datum		values[5];
	char		nulls[6] = "     ";
	Oid			new_types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, OIDOID};
	Datum		new_values[4];
	char		new_nulls[5] = "    ";

	values[0] = BoolGetDatum(survey_bool(state, 0, "moved"));
	values[1] = BoolGetDatum(survey_bool(state, 0, "moved") || survey_bool(state, 0, "reset"));
	values[2] = value_of(state, "reset_at", &nulls[2]);
	values[3] = value_of(state, "looked_at", &nulls[3]);
	values[4] = Float8GetDatum(Min(WRITE_AGAIN_S, perfopt_unused_index_time / 10.0));
	survey_execute(forget_gone, 1, types, values, NULL);
	survey_execute(write_changes, 5, types, values, nulls);
	survey_execute(write_new, 0, NULL, NULL, NULL);

	new_values[0] = value_of(state, "new_database_reset", &new_nulls[0]);
	new_values[1] = value_of(state, "new_server_reset", &new_nulls[1]);
	new_values[2] = state_values[0];
	new_values[3] = state_values[1];
	survey_execute(write_state, 4, new_types, new_values, new_nulls);
}
