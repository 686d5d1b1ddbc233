/*
 * verify_begin.c
 *		Before an advice is applied: which statements it is to be judged by, and how
 *		long they take, from perfopt.latency_history.
 *
 *		named		those in the evidence of the advice; where an index is dropped,
 *					those whose text has its table
 *		write		those that write its table, by their text
 *		control		others, that don't mention it; they tell how the server as a
 *					whole has changed meanwhile
 *
 * What is older than the last advice that was applied, or taken back, for the same
 * table tells nothing of how they are now.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/measure.h"
#include "advisor/verify_internal.h"

#include "catalog/pg_type.h"
#include "common/settings.h"
#include "common/try.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Statements of each part that are compared at most, known by their texts. */
#define MAX_BY_TEXT		20
#define MAX_CONTROLS	"25"

/* Texts that are looked into for what they write. */
#define MAX_TEXTS		"1000"

void
perfopt_verify_execute(const char *sql, int nargs, Oid *types, Datum *values, int expected)
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

	perfopt_verify_execute("SELECT t.queryid, r.rolname::text, t.query, i.schema_name, i.table_name,"
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
		perfopt_verify_execute("INSERT INTO perfopt.advice_measure (advice, part, queryid, role_name)"
							   " VALUES ($1, $4, $2, $3) ON CONFLICT DO NOTHING",
							   4, types, values, SPI_OK_INSERT);
	}
}

typedef struct Beginning
{
	int64		id;
	TimestampTz until;
} Beginning;

static void
begin(void *arg)
{
	Beginning  *beginning = arg;
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, INT4OID, INT4OID};
	Datum		values[4];

	values[0] = Int64GetDatum(beginning->id);
	values[1] = TimestampTzGetDatum(beginning->until);
	values[2] = Int32GetDatum(perfopt_verify_window);
	values[3] = Int32GetDatum(MEASURE_BEFORE);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	perfopt_verify_execute("DELETE FROM perfopt.advice_measure WHERE advice = $1",
						   1, types, values, SPI_OK_DELETE);
	perfopt_verify_execute("INSERT INTO perfopt.advice_measure (advice, part, queryid, role_name)"
						   " SELECT id, 'named', (q ->> 'queryid')::bigint, q ->> 'role'"
						   " FROM perfopt.advice_item, jsonb_array_elements(CASE WHEN jsonb_typeof(evidence -> 'queries') = 'array'"
						   "  THEN evidence -> 'queries' ELSE '[]' END) q"
						   " WHERE id = $1 AND q ->> 'queryid' IS NOT NULL AND q ->> 'role' IS NOT NULL ON CONFLICT DO NOTHING",
						   1, types, values, SPI_OK_INSERT);
	add_by_text(beginning->id);
	perfopt_verify_execute("WITH h AS MATERIALIZED (SELECT r.rolname, h.queryid, sum(h.calls) AS calls"
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
	perfopt_verify_execute("INSERT INTO perfopt.advice_window (advice, queryid, role_name, number, histogram)"
						   " SELECT m.advice, m.queryid, m.role_name,"
						   "  -1 - floor(extract(epoch FROM $2 - h.sampled_at) / $3)::int AS number, perfopt.histogram_merge(h.histogram)"
						   " FROM perfopt.latency_history h JOIN pg_roles r ON r.oid = h.role"
						   "  JOIN perfopt.advice_measure m ON m.queryid = h.queryid AND m.role_name = r.rolname"
						   " WHERE m.advice = $1 AND h.sampled_at <= $2 AND h.sampled_at > $2 - $4 * make_interval(secs => $3)"
						   "  AND (m.part = 'control' OR h.sampled_at - make_interval(secs => h.interval_ms / 1000) >="
						   "   coalesce((SELECT max(l.at) FROM perfopt.advice_log l JOIN perfopt.advice_item i ON i.id = l.advice"
						   "    JOIN perfopt.advice_item this USING (schema_name, table_name)"
						   "    WHERE this.id = $1 AND l.to_status IN ('applied', 'reverted') AND l.at < $2), '-infinity'))"
						   " GROUP BY 1, 2, 3, 4",
						   4, types, values, SPI_OK_INSERT);
	perfopt_verify_execute("UPDATE perfopt.advice_item SET window_seconds = $3 WHERE id = $1",
						   3, types, values, SPI_OK_UPDATE);
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
