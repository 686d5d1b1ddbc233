/*
 * verify.c
 *		Duty "verify": what was an advice that was applied good for?
 *
 * Before it is applied, the latencies of these statements over
 * perfopt.verify_window are put aside, from perfopt.latency_history:
 *
 *		named		those in the evidence of the advice; where an index is dropped,
 *					those whose text has its table
 *		write		those that write its table, by their text
 *		control		others, that don't mention it; they tell how the server as a
 *					whole has changed meanwhile
 *
 * Once it is applied, the counters of the same statements are marked, and when a
 * window has passed, what has come since is compared with before (measure.c
 * states the test).  The time that named statements save, less what writes lose,
 * is the measured gain, as a share of the time that all statements would have
 * taken without it.  Above zero the advice is confirmed.  Below it has regressed,
 * and the gain is a share of the time that they do take.
 * When no statement has changed for sure, it stays applied, and the verdict says
 * so; when there were not enough calls, it is looked at again window by window,
 * for a week at most.
 *
 * An index that somebody has built by hand is judged in the same way; the window
 * before it ends when a round last saw that the index was missing.
 *
 * A row that somebody has locked, by asking for something in a transaction that is
 * still open, waits for another time: it must not keep others waiting.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/measure.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/settings.h"
#include "common/try.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* Statements of each part that are compared at most, known by their texts. */
#define MAX_BY_TEXT		20
#define MAX_CONTROLS	"50"

/* Texts that are looked into for what they write. */
#define MAX_TEXTS		"1000"

/* So long an advice waits for calls of its statements. */
#define LONGEST_WAIT	"interval '7 days'"

static int	verify_interval = 60 * 1000;

static void
execute(const char *sql, int nargs, Oid *types, Datum *values, int expected)
{
	if (SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0) != expected)
		elog(ERROR, "could not measure advice");
}

/*
 * What is done to a table, by a statement's text
 */
typedef struct TableInText
{
	const char *query;
	const char *schema_name;
	const char *table_name;
	bool		unique_name;
	bool		written;
	bool		named;
} TableInText;

/*
 * A table that is named without its schema is taken to be this one if there is
 * no other one of that name.
 */
static bool
is_table(const RangeVar *relation, const TableInText *found)
{
	return relation != NULL && strcmp(relation->relname, found->table_name) == 0 &&
		(relation->schemaname ? strcmp(relation->schemaname, found->schema_name) == 0 :
		 found->unique_name);
}

static bool
names_table_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeVar))
		return is_table((RangeVar *) node, context);
	return raw_expression_tree_walker(node, names_table_walker, context);
}

static void
find_table(void *arg)
{
	TableInText *found = arg;
	List	   *raw = pg_parse_query(found->query);
	RangeVar   *written = NULL;
	Node	   *stmt = list_length(raw) == 1 ? linitial_node(RawStmt, raw)->stmt : NULL;

	if (stmt == NULL)
		return;
	switch (nodeTag(stmt))
	{
		case T_InsertStmt:
			written = ((InsertStmt *) stmt)->relation;
			break;
		case T_UpdateStmt:
			written = ((UpdateStmt *) stmt)->relation;
			break;
		case T_DeleteStmt:
			written = ((DeleteStmt *) stmt)->relation;
			break;
		case T_MergeStmt:
			written = ((MergeStmt *) stmt)->relation;
			break;
		case T_CopyStmt:
			written = ((CopyStmt *) stmt)->is_from ? ((CopyStmt *) stmt)->relation : NULL;
			break;
		default:
			break;
	}
	found->written = is_table(written, found);
	found->named = found->written || (!IsA(stmt, CopyStmt) && names_table_walker(stmt, found));
}

/* Those that write the table; and those that only read it, of an index to be dropped. */
static void
add_by_text(int64 id)
{
	Oid			types[] = {INT8OID, INT8OID, TEXTOID, TEXTOID};
	Datum		values[4] = {Int64GetDatum(id)};
	SPITupleTable *table;
	uint64		num;
	int			writes = 0;
	int			reads = 0;

	execute("SELECT t.queryid, r.rolname::text, t.query, i.schema_name, i.table_name,"
			"  (SELECT count(*) = 1 FROM pg_class c WHERE c.relname = i.table_name AND c.relkind IN ('r', 'p')), i.kind = 'drop_index'"
			" FROM perfopt.advice_item i JOIN perfopt.query_texts t ON strpos(lower(t.query), lower(i.table_name)) > 0"
			"  JOIN pg_roles r ON r.oid = t.userid"
			" WHERE i.id = $1 AND t.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
			"  AND (i.kind = 'drop_index' OR t.query ~* '(insert|update|delete|merge|copy)') AND length(t.query) < 100000"
			" LIMIT " MAX_TEXTS,
			1, types, values, SPI_OK_SELECT);
	table = SPI_tuptable;
	num = SPI_processed;
	for (uint64 i = 0; i < num; i++)
	{
		HeapTuple	tuple = table->vals[i];
		TupleDesc	desc = table->tupdesc;
		bool		isnull;
		TableInText found = {
			.query = SPI_getvalue(tuple, desc, 3),
			.schema_name = SPI_getvalue(tuple, desc, 4),
			.table_name = SPI_getvalue(tuple, desc, 5),
			.unique_name = DatumGetBool(SPI_getbinval(tuple, desc, 6, &isnull))
		};
		bool		drops = DatumGetBool(SPI_getbinval(tuple, desc, 7, &isnull));
		ErrorData  *error = perfopt_try(CurrentMemoryContext, find_table, &found);

		CHECK_FOR_INTERRUPTS();
		if (error && ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
			ReThrowError(error);
		if (found.written ? writes++ >= MAX_BY_TEXT :
			error || !drops || !found.named || reads++ >= MAX_BY_TEXT)
			continue;
		values[1] = SPI_getbinval(tuple, desc, 1, &isnull);
		values[2] = CStringGetTextDatum(SPI_getvalue(tuple, desc, 2));
		values[3] = CStringGetTextDatum(found.written ? "write" : "named");
		execute("INSERT INTO perfopt.advice_measure (advice, part, queryid, role_name)"
				" VALUES ($1, $4, $2, $3) ON CONFLICT DO NOTHING",
				4, types, values, SPI_OK_INSERT);
	}
}

/*
 * Before
 */
typedef struct Beginning
{
	int64		id;
	TimestampTz until;
} Beginning;

static void
begin(void *arg)
{
	Beginning  *beginning = arg;
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, INT4OID};
	Datum		values[3];

	values[0] = Int64GetDatum(beginning->id);
	values[1] = TimestampTzGetDatum(beginning->until);
	values[2] = Int32GetDatum(perfopt_verify_window);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	execute("DELETE FROM perfopt.advice_measure WHERE advice = $1", 1, types, values,
			SPI_OK_DELETE);
	execute("INSERT INTO perfopt.advice_measure (advice, part, queryid, role_name)"
			" SELECT id, 'named', (q ->> 'queryid')::bigint, q ->> 'role'"
			" FROM perfopt.advice_item, jsonb_array_elements(CASE WHEN jsonb_typeof(evidence -> 'queries') = 'array'"
			"  THEN evidence -> 'queries' ELSE '[]' END) q"
			" WHERE id = $1 AND q ->> 'queryid' IS NOT NULL AND q ->> 'role' IS NOT NULL ON CONFLICT DO NOTHING",
			1, types, values, SPI_OK_INSERT);
	add_by_text(beginning->id);

	/* the history of the window before; without one, all there was so far */
	execute("WITH h AS MATERIALIZED (SELECT r.rolname, h.queryid, sum(h.calls) AS calls, perfopt.histogram_merge(h.histogram) AS histogram"
			"  FROM perfopt.latency_history h JOIN pg_roles r ON r.oid = h.role"
			"  WHERE h.sampled_at > $2 - make_interval(secs => $3) AND h.sampled_at <= $2 AND h.queryid <> 0"
			"  GROUP BY 1, 2),"
			" t AS (SELECT h.*, EXISTS (SELECT FROM perfopt.query_texts q WHERE q.queryid = h.queryid"
			"   AND strpos(lower(q.query), lower((SELECT table_name FROM perfopt.advice_item WHERE id = $1))) > 0) AS mentions"
			"  FROM (SELECT * FROM h ORDER BY calls DESC LIMIT 2 * " MAX_CONTROLS ") h)"
			" INSERT INTO perfopt.advice_measure (advice, part, queryid, role_name)"
			" SELECT $1, 'control', queryid, rolname FROM t WHERE NOT mentions ORDER BY calls DESC LIMIT " MAX_CONTROLS
			" ON CONFLICT DO NOTHING",
			3, types, values, SPI_OK_INSERT);
	execute("UPDATE perfopt.advice_measure m SET before = h.histogram"
			" FROM (SELECT r.rolname, h.queryid, perfopt.histogram_merge(h.histogram) AS histogram"
			"  FROM perfopt.latency_history h JOIN pg_roles r ON r.oid = h.role"
			"  WHERE h.sampled_at > $2 - make_interval(secs => $3) AND h.sampled_at <= $2"
			"   AND h.queryid IN (SELECT queryid FROM perfopt.advice_measure WHERE advice = $1)"
			"  GROUP BY 1, 2) h"
			" WHERE m.advice = $1 AND m.queryid = h.queryid AND m.role_name = h.rolname",
			3, types, values, SPI_OK_UPDATE);
	execute("UPDATE perfopt.advice_measure m SET before = l.histogram"
			" FROM perfopt.latency(true) l JOIN pg_roles r ON r.oid = l.userid"
			" WHERE m.advice = $1 AND m.before IS NULL AND m.queryid = l.queryid AND m.role_name = r.rolname"
			"  AND l.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
			"  AND $2 > now() - interval '2 minutes'",
			2, types, values, SPI_OK_UPDATE);
	SPI_finish();
}

/*
 * Nothing of this stands in the way of applying: where it took longer than a
 * duty may, or was cancelled, it is left out the next time.
 */
void
perfopt_verify_begin(int64 id, TimestampTz until)
{
	static int64 cancelled = 0;
	Beginning	beginning = {.id = id,.until = until};
	ErrorData  *error;

	if (perfopt_verify_window == 0 || cancelled == id)
		return;
	cancelled = id;
	error = perfopt_try(CurrentMemoryContext, begin, &beginning);
	if (error && ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	cancelled = 0;
	if (error)
		ereport(LOG,
				(errmsg("perfopt could not measure statements before advice %lld is applied: %s",
						(long long) id, error->message)));
}

/* Of what was applied, by hand or while nothing was measured. */
static void
begin_others(void)
{
	SPITupleTable *table;
	uint64		num;

	execute("SELECT id, coalesce(started_at, applied_at) FROM perfopt.advice_item i"
			" WHERE status = 'applied' AND judged_at IS NULL AND measured_from IS NULL AND applied_at IS NOT NULL"
			"  AND NOT EXISTS (SELECT FROM perfopt.advice_measure m WHERE m.advice = i.id)"
			" ORDER BY id LIMIT 20 FOR UPDATE SKIP LOCKED",
			0, NULL, NULL, SPI_OK_SELECT);
	table = SPI_tuptable;
	num = SPI_processed;
	for (uint64 i = 0; i < num; i++)
	{
		bool		isnull;

		perfopt_verify_begin(DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull)),
							 DatumGetTimestampTz(SPI_getbinval(table->vals[i], table->tupdesc, 2, &isnull)));
	}
}

/* What is counted so far is from before.  After a reset nothing is. */
static void
mark(void)
{
	Oid			types[] = {FLOAT8OID};
	Datum		values[] = {Float8GetDatum(perfopt_database_total_ms(MyDatabaseId))};

	execute("WITH l AS MATERIALIZED (SELECT r.rolname, l.queryid, l.histogram"
			"  FROM perfopt.latency(true) l JOIN pg_roles r ON r.oid = l.userid"
			"  WHERE l.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
			"   AND EXISTS (SELECT FROM perfopt.advice_item WHERE status = 'applied' AND judged_at IS NULL AND measured_from IS NULL)),"
			" item AS (UPDATE perfopt.advice_item SET measured_from = now(), measured_from_ms = $1"
			"  WHERE id = ANY (ARRAY(SELECT id FROM perfopt.advice_item WHERE status = 'applied' AND judged_at IS NULL"
			"   AND measured_from IS NULL AND applied_at IS NOT NULL FOR UPDATE SKIP LOCKED)) RETURNING id)"
			" UPDATE perfopt.advice_measure m SET mark = coalesce((SELECT l.histogram FROM l"
			"   WHERE l.queryid = m.queryid AND l.rolname = m.role_name), '{}')"
			" FROM item WHERE m.advice = item.id",
			1, types, values, SPI_OK_UPDATE);
	execute("WITH item AS (UPDATE perfopt.advice_item SET measured_from_ms = 0"
			"  WHERE id = ANY (ARRAY(SELECT id FROM perfopt.advice_item WHERE status = 'applied' AND judged_at IS NULL"
			"   AND measured_from < (SELECT stats_reset FROM perfopt.latency_info()) AND measured_from_ms > 0"
			"   FOR UPDATE SKIP LOCKED)) RETURNING id)"
			" UPDATE perfopt.advice_measure m SET mark = '{}' FROM item WHERE m.advice = item.id",
			0, NULL, NULL, SPI_OK_UPDATE);
}

/*
 * After
 */
static bool
read_histogram(HeapTuple tuple, TupleDesc desc, int column, uint64 *counts)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(tuple, desc, column, &isnull);
	Datum	   *pairs;
	int			num;

	memset(counts, 0, sizeof(uint64) * HISTOGRAM_BUCKETS);
	if (isnull)
		return false;
	deconstruct_array(DatumGetArrayTypeP(datum), INT8OID, 8, true, TYPALIGN_DOUBLE,
					  &pairs, NULL, &num);
	for (int i = 0; i + 1 < num; i += 2)
	{
		int64		bucket = DatumGetInt64(pairs[i]);

		if (bucket >= 0 && bucket < HISTOGRAM_BUCKETS)
			counts[bucket] += (uint64) DatumGetInt64(pairs[i + 1]);
	}
	return true;
}

typedef struct Statement
{
	char	   *part;
	int64		queryid;
	char	   *role_name;
	uint64		before[HISTOGRAM_BUCKETS];
	uint64		after[HISTOGRAM_BUCKETS];
	Measured	measured;
} Statement;

/* The statements of one part together, as told to people. */
typedef struct Part
{
	int			num;
	double		calls_before;
	double		calls_after;
	double		ms_before;		/* of as many calls as after */
	double		ms_after;
	double		saved_ms;		/* by those that have changed for sure */
	bool		faster;
	bool		slower;
	bool		compared;
} Part;

static void
add_to_part(Part *part, const Measured *measured)
{
	part->num++;
	part->calls_before += measured->calls_before;
	part->calls_after += measured->calls_after;
	if (measured->calls_before < MEASURE_MIN_CALLS || measured->calls_after < MEASURE_MIN_CALLS)
		return;
	part->compared = true;
	part->ms_before += measured->mean_before * measured->calls_after;
	part->ms_after += measured->mean_after * measured->calls_after;
	part->faster = part->faster || measured->change > 0;
	part->slower = part->slower || measured->change < 0;
	if (measured->change != 0)
		part->saved_ms += (measured->mean_before - measured->mean_after) * measured->calls_after;
}

static void
tell_part(StringInfo verdict, const Part *part, const char *which)
{
	if (part->compared)
		appendStringInfo(verdict, "%d statement%s %s: %.4g ms a call before, %.4g ms after (%.0f and %.0f calls). ",
						 part->num, part->num == 1 ? "" : "s", which,
						 part->ms_before / Max(part->calls_after, 1),
						 part->ms_after / Max(part->calls_after, 1),
						 part->calls_before, part->calls_after);
	else if (part->num > 0)
		appendStringInfo(verdict, "%d statement%s %s: not enough calls to compare (%.0f before, %.0f after). ",
						 part->num, part->num == 1 ? "" : "s", which,
						 part->calls_before, part->calls_after);
}

static void
append_measured(StringInfo json, const Statement *statement)
{
	const Measured *m = &statement->measured;

	appendStringInfo(json, "%s{\"queryid\": %lld, \"role\": ", json->len > 1 ? ", " : "",
					 (long long) statement->queryid);
	escape_json(json, statement->role_name);
	appendStringInfo(json, ", \"writes\": %s, \"calls_before\": %.0f, \"calls_after\": %.0f"
					 ", \"mean_before_ms\": %.4f, \"mean_after_ms\": %.4f, \"faster\": %.4f, \"z\": %.2f, \"change\": \"%s\"}",
					 strcmp(statement->part, "write") == 0 ? "true" : "false",
					 m->calls_before, m->calls_after, m->mean_before, m->mean_after, m->faster, m->z,
					 m->change > 0 ? "faster" : m->change < 0 ? "slower" : "none");
}

/* Writes the verdict; it is final when it says so, or after the longest wait. */
static void
conclude(int64 id, Statement *statements, int num, double database_ms)
{
	Part		named = {0};
	Part		write = {0};
	StringInfoData verdict;
	StringInfoData json;
	double	   *ratios = palloc(sizeof(double) * Max(num, 1));
	int			num_ratios = 0;
	int			shift;
	double		net;
	double		gain = 0;
	const char *status = "applied";
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID, FLOAT8OID, TEXTOID, BOOLOID};
	Datum		values[6];

	for (int i = 0; i < num; i++)
	{
		Measured	measured;

		if (strcmp(statements[i].part, "control") != 0)
			continue;
		perfopt_measure_compare(statements[i].before, statements[i].after, 0, &measured);
		if (measured.calls_before >= MEASURE_MIN_CALLS && measured.calls_after >= MEASURE_MIN_CALLS)
			ratios[num_ratios++] = measured.ratio;
	}
	shift = perfopt_measure_shift(ratios, num_ratios);

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	for (int i = 0; i < num; i++)
	{
		Statement  *statement = &statements[i];

		if (strcmp(statement->part, "control") == 0)
			continue;
		perfopt_measure_compare(statement->before, statement->after, shift, &statement->measured);
		add_to_part(strcmp(statement->part, "write") == 0 ? &write : &named, &statement->measured);
		append_measured(&json, statement);
	}
	appendStringInfoChar(&json, ']');

	net = named.saved_ms + write.saved_ms;
	if ((named.faster || write.faster || named.slower || write.slower) && net != 0)
	{
		status = net > 0 ? "confirmed" : "regressed";
		gain = net / Max(Max(database_ms + Max(net, 0), fabs(net)), 1e-6);
	}

	initStringInfo(&verdict);
	tell_part(&verdict, &named, "named");
	tell_part(&verdict, &write, write.num == 1 ? "that writes the table" : "that write the table");
	if (shift != 0)
		appendStringInfo(&verdict, "The server as a whole has become %s by %.0f %% meanwhile, which is taken out. ",
						 shift > 0 ? "slower" : "faster", fabs(exp2(shift / 8.0) - 1) * 100);
	if (strcmp(status, "applied") != 0)
		appendStringInfo(&verdict, "It %s %.3g %% of the statement time.",
						 net > 0 ? "saves" : "costs", fabs(gain) * 100);
	else if (named.compared || write.compared)
		appendStringInfoString(&verdict, "No difference can be told.");
	else
		appendStringInfoString(&verdict, "There is nothing to compare yet.");

	values[0] = Int64GetDatum(id);
	values[1] = CStringGetTextDatum(status);
	values[2] = CStringGetTextDatum(verdict.data);
	values[3] = Float8GetDatum(gain);
	values[4] = CStringGetTextDatum(json.data);
	values[5] = BoolGetDatum(strcmp(status, "applied") != 0 || named.compared);
	execute("UPDATE perfopt.advice_item SET status = $2, verdict = $3,"
			" evidence = evidence || jsonb_build_object('measured', $5::jsonb),"
			" measured_gain = CASE WHEN $6 THEN $4 END,"
			" judged_at = CASE WHEN $6 OR measured_from < now() - " LONGEST_WAIT " THEN now() END"
			" WHERE id = $1 AND status = 'applied'",
			6, types, values, SPI_OK_UPDATE);
	execute("DELETE FROM perfopt.advice_measure m USING perfopt.advice_item i"
			" WHERE m.advice = $1 AND i.id = $1 AND (i.judged_at IS NOT NULL OR i.status <> 'applied')",
			1, types, values, SPI_OK_DELETE);
}

static void
judge(int64 id, double database_ms)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(id)};
	Statement  *statements;
	SPITupleTable *table;
	uint64		num;

	execute("SELECT m.part, m.queryid, m.role_name, m.before, m.mark, l.histogram"
			" FROM perfopt.advice_measure m LEFT JOIN pg_roles r ON r.rolname = m.role_name"
			" LEFT JOIN (SELECT * FROM perfopt.latency(true)"
			"   WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())) l"
			"  ON l.userid = r.oid AND l.queryid = m.queryid"
			" WHERE m.advice = $1 ORDER BY m.part, m.queryid",
			1, types, values, SPI_OK_SELECT);
	table = SPI_tuptable;
	num = SPI_processed;
	statements = palloc0(sizeof(Statement) * Max(num, 1));
	for (uint64 i = 0; i < num; i++)
	{
		HeapTuple	tuple = table->vals[i];
		TupleDesc	desc = table->tupdesc;
		Statement  *statement = &statements[i];
		uint64		marked[HISTOGRAM_BUCKETS];
		bool		isnull;

		statement->part = SPI_getvalue(tuple, desc, 1);
		statement->queryid = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
		statement->role_name = SPI_getvalue(tuple, desc, 3);
		read_histogram(tuple, desc, 4, statement->before);
		read_histogram(tuple, desc, 5, marked);
		read_histogram(tuple, desc, 6, statement->after);

		/* a row that gave way to others, and came back, has lost the mark */
		for (int b = 0; b < HISTOGRAM_BUCKETS; b++)
			if (statement->after[b] < marked[b])
			{
				memset(marked, 0, sizeof(marked));
				break;
			}
		for (int b = 0; b < HISTOGRAM_BUCKETS; b++)
			statement->after[b] -= marked[b];
	}
	conclude(id, statements, (int) num, database_ms);
}

static void
judge_all(void)
{
	Oid			types[] = {INT4OID, FLOAT8OID};
	Datum		values[2];
	SPITupleTable *table;
	uint64		num;

	values[0] = Int32GetDatum(perfopt_verify_window);
	values[1] = Float8GetDatum(perfopt_database_total_ms(MyDatabaseId));
	execute("SELECT id, $2 - measured_from_ms FROM perfopt.advice_item"
			" WHERE status = 'applied' AND judged_at IS NULL AND measured_from <= now() - make_interval(secs => $1)"
			" ORDER BY measured_from LIMIT 20 FOR UPDATE SKIP LOCKED",
			2, types, values, SPI_OK_SELECT);
	table = SPI_tuptable;
	num = SPI_processed;
	for (uint64 i = 0; i < num; i++)
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		judge(DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull)),
			  DatumGetFloat8(SPI_getbinval(table->vals[i], table->tupdesc, 2, &isnull)));
	}
}

/*
 * Indexes that somebody has dropped by hand, and what is too old to tell.  What was
 * built without being asked for is not to come back again and again.
 */
static void
tidy(void)
{
	execute("UPDATE perfopt.advice_item SET status = CASE WHEN status = 'regressed' OR automatic THEN 'reverted' ELSE 'obsolete' END"
			" WHERE id = ANY (ARRAY(SELECT id FROM perfopt.advice_item"
			"  WHERE kind IN ('create_index', 'index_foreign_key') AND status IN ('applied', 'confirmed', 'regressed')"
			"   AND index_name IS NOT NULL AND to_regclass(format('%I.%I', schema_name, index_name)) IS NULL"
			"  FOR UPDATE SKIP LOCKED))",
			0, NULL, NULL, SPI_OK_UPDATE);
	execute("DELETE FROM perfopt.advice_log WHERE at < now() - interval '1 year'"
			" OR id <= (SELECT max(id) FROM perfopt.advice_log) - 100000",
			0, NULL, NULL, SPI_OK_DELETE);
}

static void
verify(void)
{
	verify_interval = Max(1000, Min(60, perfopt_verify_window / 4) * 1000);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	tidy();
	if (perfopt_verify_window > 0)
	{
		begin_others();
		mark();
		judge_all();
	}
	perfopt_auto_apply_step();
	SPI_finish();
}

void
perfopt_verify_init(void)
{
	static const PerfoptDuty duty = {
		.name = ADVISOR_VERIFY_DUTY,
		.interval_ms = &verify_interval,
		.writes = true,
		.run = verify
	};

	perfopt_duty_register(&duty);
}
