/*
 * n_plus_one_advice.c
 *		Duty "n_plus_one": loops that lose enough become rows of perfopt.advice.
 *
 * The table of advice is the advisor's; it is written here in SQL.  An advice
 * is known by (kind, role, function, source, repeated query), by name, as its
 * loop is.  What the shared table tells is since the server's start or the last
 * reset, so the figures of an advice are of that time.  An advice is open while
 * its loop was seen within a day, and obsolete otherwise; when it is seen again,
 * it is open again, unless it was dismissed.
 */
#include "postgres.h"

#include "lookup/n_plus_one_internal.h"

#include "catalog/pg_type.h"
#include "common/settings.h"
#include "common/shmem.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "worker/worker.h"

/* An advice whose loop was not seen for so long is obsolete. */
#define OPEN_TIME		"interval '1 day'"

/* An obsolete one is forgotten so long after its loop was last seen. */
#define OBSOLETE_TIME	"interval '30 days'"

#define LOOK_NOW_TIMEOUT_MS	60000

/* The same advice, for NULL means none. */
#define SAME_ADVICE \
	"a.kind = f.kind AND a.role_name = f.role_name AND a.queryid = f.queryid" \
	" AND a.function IS NOT DISTINCT FROM f.function" \
	" AND a.source_queryid IS NOT DISTINCT FROM f.source_queryid"

/* Texts of statements, and names of functions, are kept to this length. */
#define MAX_QUERY		"10000"
#define MAX_FUNCTION	"500"

/*
 * A function's name is cut, as there is an index on it, and made unique again.
 * Roles that are gone have no advice.
 */
static const char *const write_advice =
"WITH found AS MATERIALIZED ("
" SELECT kind, role_name, function, source_queryid, queryid, instead, first_seen, last_seen,"
"  CASE kind WHEN 'n_plus_one' THEN 'Run once for each row of another statement'"
"   WHEN 'cacheable_query' THEN 'Run with the same parameters again and again'"
"   ELSE 'Rows inserted one by one' END"
"  || coalesce(', in function ' || function, '')"
"  || format(': %s runs in %s lost %s s, %s ms a run; ', runs,"
"   CASE WHEN loops = 1 THEN 'one loop' ELSE loops || ' loops' END,"
"   round((lost_ms / 1000)::numeric, 1), round((lost_ms / runs)::numeric, 2))"
"  || CASE kind WHEN 'n_plus_one' THEN 'one statement for all rows would do.'"
"   WHEN 'cacheable_query' THEN 'a cached result would do.'"
"   ELSE 'one call with all rows would do.' END AS reason,"
"  jsonb_strip_nulls(jsonb_build_object('source_queryid', source_queryid, 'source_query', source_query,"
"   'source_rows', source_rows, 'queryid', queryid, 'query', query, 'loops', loops, 'runs', runs,"
"   'rows', rows, 'lost_ms', round(lost_ms::numeric, 3), 'application_name', application_name,"
"   'role', role_name, 'function', function)) AS evidence"
" FROM (SELECT kind, role AS role_name, source_queryid, queryid,"
"   CASE WHEN length(function) > " MAX_FUNCTION
"    THEN left(function, " MAX_FUNCTION ") || '... (' || hashtextextended(function, 0) || ')' ELSE function END AS function,"
"   left(max(source_query), " MAX_QUERY ") AS source_query, left(max(query), " MAX_QUERY ") AS query,"
"   sum(source_rows) AS source_rows, sum(loops) AS loops, sum(runs) AS runs, sum(rows) AS rows, sum(lost_ms) AS lost_ms,"
"   min(first_seen) AS first_seen, max(last_seen) AS last_seen,"
"   (array_agg(CASE WHEN length(instead) <= " MAX_QUERY " THEN instead ELSE '-- see the query' END ORDER BY last_seen DESC))[1] AS instead,"
"   left(string_agg(DISTINCT nullif(application_name, ''), ', '), 500) AS application_name"
"  FROM perfopt.n_plus_one WHERE role IS NOT NULL GROUP BY 1, 2, 3, 4, 5) AS loop"
" WHERE lost_ms >= $1 AND last_seen > now() - " OPEN_TIME
"), changed AS ("
" UPDATE perfopt.advice_item a SET reason = f.reason, evidence = f.evidence, instead = f.instead,"
"  first_seen = CASE WHEN a.status = 'obsolete' THEN f.first_seen ELSE a.first_seen END,"
"  last_seen = f.last_seen, status = CASE a.status WHEN 'dismissed' THEN a.status ELSE 'open' END"
" FROM found f WHERE " SAME_ADVICE
"  AND (a.last_seen, a.status = 'obsolete', a.evidence, a.instead) IS DISTINCT FROM (f.last_seen, false, f.evidence, f.instead)"
") INSERT INTO perfopt.advice_item (kind, role_name, function, source_queryid, queryid, instead, reason,"
"  evidence, status, first_seen, last_seen)"
" SELECT kind, role_name, function, source_queryid, queryid, instead, reason, evidence, 'open', first_seen, last_seen"
" FROM found f WHERE NOT EXISTS (SELECT FROM perfopt.advice_item a WHERE " SAME_ADVICE ")";

static void
execute(const char *sql, int nargs, int expected)
{
	Oid			types[] = {FLOAT8OID};
	Datum		values[] = {Float8GetDatum(perfopt_n_plus_one_min_lost)};

	if (SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0) != expected)
		elog(ERROR, "could not write advice");
}

static void
advise(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	execute(write_advice, 1, SPI_OK_INSERT);
	execute("UPDATE perfopt.advice_item SET status = 'obsolete'"
			" WHERE role_name IS NOT NULL AND status = 'open' AND last_seen < now() - " OPEN_TIME,
			0, SPI_OK_UPDATE);
	execute("DELETE FROM perfopt.advice_item"
			" WHERE role_name IS NOT NULL AND status = 'obsolete' AND last_seen < now() - " OBSOLETE_TIME,
			0, SPI_OK_DELETE);
	SPI_finish();
}

static const PerfoptDuty duty = {
	.name = "n_plus_one",
	.interval_ms = &perfopt_n_plus_one_interval,
	.writes = true,
	.run = advise
};

void
perfopt_loop_advice_init(void)
{
	perfopt_duty_register(&duty);
}

PG_FUNCTION_INFO_V1(perfopt_sql_advise_n_plus_one_now);

/* advise_n_plus_one_now() */
Datum
perfopt_sql_advise_n_plus_one_now(PG_FUNCTION_ARGS)
{
	perfopt_require_preload();
	perfopt_duty_run_now(duty.name, LOOK_NOW_TIMEOUT_MS);
	PG_RETURN_VOID();
}
