/*
 * verify.c
 *		Duty "verify": what was an advice that was applied good for?
 *
 * Time is cut into windows of perfopt.verify_window.  Before an advice is applied,
 * verify_begin.c puts aside the latencies of some statements in the windows of the
 * day before.  Once it is applied, this duty adds those of each window that has
 * passed, from perfopt.latency_history too, and after 1, 2, 4, ... windows compares
 * them (measure.c states the test).  The time that named statements save, less what
 * writes lose, is the measured gain, as a share of the time that all statements
 * would have taken without it.  Above zero the advice is confirmed.  Below it has
 * regressed, and the gain is a share of the time that they do take.
 *
 * Only statements that have changed for sure count.  While those that may have
 * changed would turn the sum round, nothing is said yet.  An advice of which nothing
 * can be said is looked at again, for 16 windows with calls when these are enough to
 * compare, and otherwise for 128, or seven days.  Then it stays applied, and the
 * verdict says so.
 *
 * An index that somebody has built by hand is judged in the same way; the windows
 * before it end when a round last saw that the index was missing.
 *
 * A row that somebody has locked, by asking for something in a transaction that is
 * still open, waits for another time: it must not keep others waiting.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/measure.h"
#include "advisor/verify_internal.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/settings.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* So many windows with calls a difference is looked for. */
#define WINDOWS_TO_TELL	16

/* So long an advice waits for calls of its statements. */
#define LONGEST_WAIT_S	(7 * 24 * 3600)

/* Advice looked at in one run. */
#define MAX_AT_ONCE		"20"

static int	verify_interval = 60 * 1000;

/* Of the advice that sql selects, id first. */
static void
for_each_advice(const char *sql, int nargs, Oid *types, Datum *values,
				void (*act) (int64 id, HeapTuple tuple, TupleDesc desc))
{
	SPITupleTable *table;
	uint64		num;

	perfopt_verify_execute(sql, nargs, types, values, SPI_OK_SELECT);
	table = SPI_tuptable;
	num = SPI_processed;
	for (uint64 i = 0; i < num; i++)
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		act(DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull)),
			table->vals[i], table->tupdesc);
	}
}

/*
 * Before, of what was applied by hand or while nothing was measured
 */
static void
begin_other(int64 id, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	perfopt_verify_begin(id, DatumGetTimestampTz(SPI_getbinval(tuple, desc, 2, &isnull)));
}

/* After: from now on. */
static void
mark(void)
{
	Oid			types[] = {INT4OID};
	Datum		values[] = {Int32GetDatum(perfopt_verify_window)};

	perfopt_verify_execute("UPDATE perfopt.advice_item SET measured_from = now(), windows = 0, database_ms = 0,"
						   "  window_seconds = coalesce(window_seconds, $1)"
						   " WHERE id = ANY (ARRAY(SELECT id FROM perfopt.advice_item WHERE status = 'applied' AND judged_at IS NULL"
						   "  AND measured_from IS NULL AND applied_at IS NOT NULL FOR UPDATE SKIP LOCKED))",
						   1, types, values, SPI_OK_UPDATE);
}

/*
 * After
 */
typedef struct Statement
{
	char	   *part;
	int64		queryid;
	char	   *role_name;
	MeasureWindow *windows;		/* MEASURE_BEFORE, and those since */
	Measured	measured;
} Statement;

/* The statements of one part together, as told to people. */
typedef struct Part
{
	int			num;
	int			num_faster;
	int			num_slower;
	double		calls_before;
	double		calls_after;
	double		ms_before;		/* of as many calls as after */
	double		ms_after;
	double		saved_ms;		/* by those that have changed for sure */
	double		seems_ms;		/* by all of them */
	bool		compared;
} Part;

static bool
is_part(const Statement *statement, const char *part)
{
	return strcmp(statement->part, part) == 0;
}

static void
add_to_part(Part *part, const Measured *measured)
{
	double		saved_ms = (measured->mean_before - measured->mean_after) * measured->calls_after;

	part->num++;
	part->calls_before += measured->calls_before;
	part->calls_after += measured->calls_after;
	if (measured->calls_before < MEASURE_MIN_CALLS || measured->calls_after < MEASURE_MIN_CALLS)
		return;
	part->compared = true;
	part->ms_before += measured->mean_before * measured->calls_after;
	part->ms_after += measured->mean_after * measured->calls_after;
	part->num_faster += measured->change > 0;
	part->num_slower += measured->change < 0;
	part->seems_ms += saved_ms;
	if (measured->change != 0)
		part->saved_ms += saved_ms;
}

static void
tell_part(StringInfo verdict, const Part *part, const char *which)
{
	const char *plural = part->num == 1 ? "" : "s";

	if (part->compared)
		appendStringInfo(verdict, "%d statement%s %s: %.4g ms a call before, %.4g ms after (%.0f and %.0f calls)",
						 part->num, plural, which,
						 part->ms_before / Max(part->calls_after, 1),
						 part->ms_after / Max(part->calls_after, 1),
						 part->calls_before, part->calls_after);
	else if (part->num > 0)
		appendStringInfo(verdict, "%d statement%s %s: not enough calls to compare (%.0f before, %.0f after)",
						 part->num, plural, which, part->calls_before, part->calls_after);
	if (part->num > 1 && part->num_faster + part->num_slower > 0)
		appendStringInfo(verdict, ", %d faster and %d slower for sure", part->num_faster, part->num_slower);
	if (part->num > 0)
		appendStringInfoString(verdict, ". ");
}

static void
append_measured(StringInfo json, const Statement *statement)
{
	const Measured *m = &statement->measured;

	appendStringInfo(json, "%s{\"queryid\": %lld, \"role\": ", json->len > 1 ? ", " : "",
					 (long long) statement->queryid);
	escape_json(json, statement->role_name);
	appendStringInfo(json, ", \"writes\": %s, \"calls_before\": %.0f, \"calls_after\": %.0f"
					 ", \"mean_before_ms\": %.4f, \"mean_after_ms\": %.4f, \"ratio\": %.4f, \"p\": %.2g, \"change\": \"%s\"}",
					 is_part(statement, "write") ? "true" : "false",
					 m->calls_before, m->calls_after, m->mean_before, m->mean_after, m->ratio, m->p,
					 m->change > 0 ? "faster" : m->change < 0 ? "slower" : "none");
}

/* How the server as a whole has changed: in each window, and on average since. */
static double
drift_of_controls(Statement *statements, int num, int num_windows, double *drift)
{
	MeasureWindow *windows = palloc_extended(sizeof(MeasureWindow) * Max(num, 1) * num_windows,
											 MCXT_ALLOC_HUGE);
	int			num_controls = 0;
	double		sum = 0;

	for (int i = 0; i < num; i++)
		if (is_part(&statements[i], "control"))
			memcpy(&windows[num_controls++ * num_windows], statements[i].windows,
				   sizeof(MeasureWindow) * num_windows);
	perfopt_measure_drift(windows, num_controls, num_windows, MEASURE_BEFORE, drift);
	pfree(windows);
	for (int w = MEASURE_BEFORE; w < num_windows; w++)
		sum += drift[w];
	return sum / (num_windows - MEASURE_BEFORE);
}

typedef struct Judged
{
	int64		id;
	int			windows;		/* since it was applied */
	double		seconds;		/* that these took */
	double		database_ms;	/* that all statements took */
	Statement  *statements;
	int			num;
} Judged;

/* Those since in which statements that the advice names were called */
static int
windows_with_calls(const Judged *judged)
{
	int			num = 0;

	for (int w = MEASURE_BEFORE; w < MEASURE_BEFORE + judged->windows; w++)
		for (int i = 0; i < judged->num; i++)
			if (is_part(&judged->statements[i], "named") && judged->statements[i].windows[w].calls > 0)
			{
				num++;
				break;
			}
	return num;
}

/* Writes the verdict. */
static void
conclude(const Judged *judged)
{
	Part		named = {0};
	Part		write = {0};
	StringInfoData verdict;
	StringInfoData json;
	int			num_windows = MEASURE_BEFORE + judged->windows;
	double	   *drift = palloc(sizeof(double) * num_windows);
	double		changed = drift_of_controls(judged->statements, judged->num, num_windows, drift);
	int			num_compared = 0;
	double		net;
	double		gain = 0;
	bool		final;
	const char *status = "applied";
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID, FLOAT8OID, TEXTOID, BOOLOID};
	Datum		values[6];

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	for (int i = 0; i < judged->num; i++)
		num_compared += !is_part(&judged->statements[i], "control");
	for (int i = 0; i < judged->num; i++)
	{
		Statement  *statement = &judged->statements[i];

		if (is_part(statement, "control"))
			continue;
		perfopt_measure_compare(statement->windows, num_windows, MEASURE_BEFORE, drift,
								perfopt_measure_alpha(num_compared), &statement->measured);
		add_to_part(is_part(statement, "write") ? &write : &named, &statement->measured);
		append_measured(&json, statement);
	}
	appendStringInfoChar(&json, ']');

	net = named.saved_ms + write.saved_ms;
	if (net * (named.seems_ms + write.seems_ms) > 0)
	{
		status = net > 0 ? "confirmed" : "regressed";
		gain = net / Max(Max(judged->database_ms + Max(net, 0), fabs(net)), 1e-6);
	}
	final = strcmp(status, "applied") != 0 || judged->seconds >= LONGEST_WAIT_S ||
		judged->windows >= MEASURE_AFTER ||
		(named.compared && windows_with_calls(judged) >= WINDOWS_TO_TELL);

	initStringInfo(&verdict);
	tell_part(&verdict, &named, "named");
	tell_part(&verdict, &write, write.num == 1 ? "that writes the table" : "that write the table");
	if (fabs(changed) >= 0.05)
		appendStringInfo(&verdict, "The server as a whole has become %s by %.0f %% meanwhile, which is taken out. ",
						 changed > 0 ? "slower" : "faster", fabs(expm1(changed)) * 100);
	if (strcmp(status, "applied") != 0)
		appendStringInfo(&verdict, "It %s %.3g %% of the statement time.",
						 net > 0 ? "saves" : "costs", fabs(gain) * 100);
	else if (named.compared || write.compared)
		appendStringInfo(&verdict, "No difference can be told%s.", final ? "" : " yet");
	else
		appendStringInfo(&verdict, "There %s.", final ? "was nothing to compare" : "is nothing to compare yet");

	values[0] = Int64GetDatum(judged->id);
	values[1] = CStringGetTextDatum(status);
	values[2] = CStringGetTextDatum(verdict.data);
	values[3] = Float8GetDatum(perfopt_rounded_share(gain));
	values[4] = CStringGetTextDatum(json.data);
	values[5] = BoolGetDatum(final);
	perfopt_verify_execute("UPDATE perfopt.advice_item SET status = $2, verdict = $3,"
						   " evidence = evidence || jsonb_build_object('measured', $5::jsonb),"
						   " measured_gain = CASE WHEN $6 THEN $4 END, judged_at = CASE WHEN $6 THEN now() END"
						   " WHERE id = $1 AND status = 'applied'",
						   6, types, values, SPI_OK_UPDATE);
	pfree(drift);
}

static void
read_histogram(Datum datum, MeasureWindow *window)
{
	uint64		counts[HISTOGRAM_BUCKETS] = {0};
	Datum	   *pairs;
	int			num;

	deconstruct_array(DatumGetArrayTypeP(datum), INT8OID, 8, true, TYPALIGN_DOUBLE,
					  &pairs, NULL, &num);
	for (int i = 0; i + 1 < num; i += 2)
	{
		int64		bucket = DatumGetInt64(pairs[i]);

		if (bucket >= 0 && bucket < HISTOGRAM_BUCKETS)
			counts[bucket] += (uint64) DatumGetInt64(pairs[i + 1]);
	}
	perfopt_measure_window(counts, window);
	pfree(pairs);
}

/* Its statements, and all their windows. */
static void
read_statements(Judged *judged)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(judged->id)};
	SPITupleTable *table;
	uint64		num_rows;

	perfopt_verify_execute("SELECT m.part, m.queryid, m.role_name, w.number, w.histogram"
						   " FROM perfopt.advice_measure m LEFT JOIN perfopt.advice_window w USING (advice, queryid, role_name)"
						   " WHERE m.advice = $1 ORDER BY m.part, m.queryid, m.role_name",
						   1, types, values, SPI_OK_SELECT);
	table = SPI_tuptable;
	num_rows = SPI_processed;
	judged->statements = palloc0(sizeof(Statement) * Max(num_rows, 1));
	judged->num = 0;
	for (uint64 i = 0; i < num_rows; i++)
	{
		HeapTuple	tuple = table->vals[i];
		TupleDesc	desc = table->tupdesc;
		Statement  *statement = judged->num > 0 ? &judged->statements[judged->num - 1] : NULL;
		bool		isnull;
		int64		queryid = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
		char	   *role_name = SPI_getvalue(tuple, desc, 3);
		int			number;

		if (statement == NULL || statement->queryid != queryid || strcmp(statement->role_name, role_name) != 0)
		{
			statement = &judged->statements[judged->num++];
			statement->part = SPI_getvalue(tuple, desc, 1);
			statement->queryid = queryid;
			statement->role_name = role_name;
			statement->windows = palloc0(sizeof(MeasureWindow) * (MEASURE_BEFORE + judged->windows));
		}
		number = DatumGetInt32(SPI_getbinval(tuple, desc, 4, &isnull));
		if (isnull)
			continue;
		/* -1 is the last one before, 1 the first one after */
		number += MEASURE_BEFORE - (number > 0);
		if (number >= 0 && number < MEASURE_BEFORE + judged->windows)
			read_histogram(SPI_getbinval(tuple, desc, 5, &isnull), &statement->windows[number]);
	}
}

/*
 * Of the advice i, since the windows that it has, up to window $2.  A sample that
 * began before the first one belongs to none.
 */
#define IN_NEW_WINDOWS \
	"h.sampled_at > i.measured_from + make_interval(secs => 1.0 * i.windows * i.window_seconds)" \
	" AND h.sampled_at <= i.measured_from + make_interval(secs => 1.0 * $2 * i.window_seconds)" \
	" AND h.sampled_at - make_interval(secs => h.interval_ms / 1000) >= i.measured_from"

/* Windows of this advice have passed. */
static void
add_windows(int64 id, HeapTuple tuple, TupleDesc desc)
{
	Oid			types[] = {INT8OID, INT4OID};
	Datum		values[2];
	bool		isnull;
	int			had = DatumGetInt32(SPI_getbinval(tuple, desc, 3, &isnull));
	Judged		judged = {
		.id = id,
		.windows = DatumGetInt32(SPI_getbinval(tuple, desc, 2, &isnull)),
		.seconds = DatumGetFloat8(SPI_getbinval(tuple, desc, 4, &isnull))
	};
	int			look = 1;

	values[0] = Int64GetDatum(id);
	values[1] = Int32GetDatum(judged.windows);
	perfopt_verify_execute("INSERT INTO perfopt.advice_window (advice, queryid, role_name, number, histogram)"
						   " SELECT m.advice, m.queryid, m.role_name,"
						   "  ceil(extract(epoch FROM h.sampled_at - i.measured_from) / i.window_seconds)::int, perfopt.histogram_merge(h.histogram)"
						   " FROM perfopt.advice_item i JOIN perfopt.latency_history h ON " IN_NEW_WINDOWS
						   "  JOIN pg_roles r ON r.oid = h.role"
						   "  JOIN perfopt.advice_measure m ON m.advice = i.id AND m.queryid = h.queryid AND m.role_name = r.rolname"
						   " WHERE i.id = $1 GROUP BY 1, 2, 3, 4",
						   2, types, values, SPI_OK_INSERT);
	perfopt_verify_execute("UPDATE perfopt.advice_item i SET windows = $2, database_ms = database_ms +"
						   "  (SELECT coalesce(sum(h.total_ms), 0) FROM perfopt.latency_history h WHERE " IN_NEW_WINDOWS ")"
						   " WHERE id = $1 RETURNING database_ms",
						   2, types, values, SPI_OK_UPDATE_RETURNING);
	judged.database_ms = DatumGetFloat8(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));

	/* the next time after 1, 2, 4, ... */
	while (look <= had)
		look *= 2;
	if (judged.windows < look)
		return;
	read_statements(&judged);
	conclude(&judged);
}

/* The last sample of a window is written some time after its end. */
static void
judge_all(void)
{
	Oid			types[] = {INT4OID, INT4OID};
	Datum		values[2];

	values[0] = Int32GetDatum(perfopt_sample_interval / 1000);
	values[1] = Int32GetDatum(MEASURE_AFTER);
	for_each_advice("SELECT id, passed, windows, extract(epoch FROM now() - measured_from)::float8"
					" FROM perfopt.advice_item CROSS JOIN LATERAL"
					"  (SELECT least(floor((extract(epoch FROM now() - measured_from) - $1) / window_seconds), $2)::int AS passed) p"
					" WHERE status = 'applied' AND judged_at IS NULL AND passed > windows"
					" ORDER BY measured_from LIMIT " MAX_AT_ONCE " FOR UPDATE OF advice_item SKIP LOCKED",
					2, types, values, add_windows);
}

/*
 * Indexes that somebody has dropped by hand, and what is too old to tell.  What was
 * built without being asked for is not to come back again and again.
 */
static void
tidy(void)
{
	perfopt_verify_execute("UPDATE perfopt.advice_item SET status = CASE WHEN status = 'regressed' OR automatic THEN 'reverted' ELSE 'obsolete' END"
						   " WHERE id = ANY (ARRAY(SELECT id FROM perfopt.advice_item"
						   "  WHERE kind IN ('create_index', 'index_foreign_key') AND status IN ('applied', 'confirmed', 'regressed')"
						   "   AND index_oid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class WHERE oid = index_oid)"
						   "   AND to_regclass(format('%I.%I', schema_name, index_name)) IS NULL"
						   "  FOR UPDATE SKIP LOCKED))",
						   0, NULL, NULL, SPI_OK_UPDATE);
	perfopt_verify_execute("DELETE FROM perfopt.advice_log WHERE at < now() - interval '1 year'"
						   " OR id <= (SELECT max(id) FROM perfopt.advice_log) - 100000",
						   0, NULL, NULL, SPI_OK_DELETE);
}

/* What was put aside for advice that is judged by now, or not applied any more */
static void
forget(void)
{
	perfopt_verify_execute("DELETE FROM perfopt.advice_measure m WHERE NOT EXISTS (SELECT FROM perfopt.advice_item i"
						   " WHERE i.id = m.advice AND i.judged_at IS NULL AND i.status IN ('applying', 'applied', 'reverting'))",
						   0, NULL, NULL, SPI_OK_DELETE);
}

static void
verify(void)
{
	verify_interval = Max(1000, Min(60, perfopt_verify_window / 4) * 1000);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	perfopt_advice_follow_names(0);
	tidy();
	perfopt_requests_check_role();
	if (perfopt_verify_window > 0)
	{
		for_each_advice("SELECT id, coalesce(started_at, applied_at) FROM perfopt.advice_item i"
						" WHERE status = 'applied' AND judged_at IS NULL AND measured_from IS NULL AND applied_at IS NOT NULL"
						"  AND NOT EXISTS (SELECT FROM perfopt.advice_measure m WHERE m.advice = i.id)"
						" ORDER BY id LIMIT " MAX_AT_ONCE " FOR UPDATE SKIP LOCKED",
						0, NULL, NULL, begin_other);
		mark();
		judge_all();
	}
	forget();
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
