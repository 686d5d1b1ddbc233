/*
 * latency_view.c
 *		The table of latencies in SQL: raw rows, which the views of monitor.sql
 *		put names and texts to.
 *
 * Everybody sees his own rows; the rest, and the rows of other queries, are for
 * members of pg_read_all_stats.
 */
#include "postgres.h"

#include "monitor/monitor_internal.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "common/shmem.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

/* Class names are those of the manual's appendix on error codes. */
static const struct
{
	const char *code;
	const char *name;
}			error_classes[NUM_ERROR_CLASSES] =

{
	[ERROR_CLASS_CONNECTION] = {"08", "Connection Exception"},
	[ERROR_CLASS_DATA] = {"22", "Data Exception"},
	[ERROR_CLASS_CONSTRAINT] = {"23", "Integrity Constraint Violation"},
	[ERROR_CLASS_TRANSACTION_STATE] = {"25", "Invalid Transaction State"},
	[ERROR_CLASS_STATEMENT_NAME] = {"26", "Invalid SQL Statement Name"},
	[ERROR_CLASS_ROLLBACK] = {"40", "Transaction Rollback"},
	[ERROR_CLASS_SYNTAX_OR_ACCESS] = {"42", "Syntax Error or Access Rule Violation"},
	[ERROR_CLASS_RESOURCES] = {"53", "Insufficient Resources"},
	[ERROR_CLASS_LIMIT] = {"54", "Program Limit Exceeded"},
	[ERROR_CLASS_OBJECT_STATE] = {"55", "Object Not In Prerequisite State"},
	[ERROR_CLASS_INTERVENTION] = {"57", "Operator Intervention"},
	[ERROR_CLASS_PLPGSQL] = {"P0", "PL/pgSQL Error"},
	[ERROR_CLASS_INTERNAL] = {"XX", "Internal Error"},
	[ERROR_CLASS_OTHER] = {NULL, "Other"}
};

typedef struct ViewState
{
	ReturnSetInfo *result;
	bool		sees_all;
	bool		histograms;
} ViewState;

static bool
is_visible(const ViewState *state, const PerfoptQueryKey *key)
{
	if (state->sees_all)
		return true;
	return !IS_OTHER_ROW(key) && key->role == GetUserId();
}

static void
begin_view(FunctionCallInfo fcinfo, ViewState *state)
{
	perfopt_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	state->result = (ReturnSetInfo *) fcinfo->resultinfo;
	state->sees_all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
	state->histograms = false;
}

/*
 * Standard deviation of all calls.  In integers this is exact, so that it
 * matters nothing how small it is beside the mean.
 */
static double
stddev_ns(const LatencySums *sums)
{
	SquareSum	mean_part = (SquareSum) sums->total_ns * sums->total_ns / sums->calls;

	if (mean_part >= sums->squares)
		return 0;
	return sqrt((double) (sums->squares - mean_part) / sums->calls);
}

static void
put_latency(const LatencyRow *row, void *arg)
{
	ViewState  *state = arg;
	const LatencySums *sums = &row->sums;
	double		min_ms = sums->min_ns / 1e6;
	double		max_ms = sums->max_ns / 1e6;
	Datum		values[16];
	bool		nulls[16] = {0};
	int			i = 0;

	if (!is_visible(state, &row->key))
		return;

	values[i++] = ObjectIdGetDatum(row->key.database);
	values[i++] = ObjectIdGetDatum(row->key.role);
	values[i++] = Int64GetDatum((int64) row->key.queryid);
	values[i++] = Int64GetDatum((int64) sums->calls);
	values[i++] = Int64GetDatum((int64) sums->errors);
	values[i++] = Int64GetDatum((int64) sums->rows);
	values[i++] = Int64GetDatum((int64) row->dropped);
	values[i++] = Float8GetDatum(sums->total_ns / 1e6);
	values[i++] = Float8GetDatum(sums->total_ns / 1e6 / sums->calls);
	values[i++] = Float8GetDatum(stddev_ns(sums) / 1e6);
	values[i++] = Float8GetDatum(min_ms);
	values[i++] = Float8GetDatum(perfopt_histogram_percentile(row->histogram, 0.50, min_ms, max_ms));
	values[i++] = Float8GetDatum(perfopt_histogram_percentile(row->histogram, 0.95, min_ms, max_ms));
	values[i++] = Float8GetDatum(perfopt_histogram_percentile(row->histogram, 0.99, min_ms, max_ms));
	values[i++] = Float8GetDatum(max_ms);
	if (state->histograms)
		values[i++] = perfopt_histogram_datum(row->histogram);
	else
		nulls[i++] = true;
	Assert(i == lengthof(values));

	tuplestore_putvalues(state->result->setResult, state->result->setDesc,
						 values, nulls);
}

static void
put_errors(const LatencyRow *row, void *arg)
{
	ViewState  *state = arg;

	if (!is_visible(state, &row->key))
		return;
	for (int i = 0; i < NUM_ERROR_CLASSES; i++)
	{
		Datum		values[6];
		bool		nulls[6] = {0};

		if (row->sums.errors_by_class[i] == 0)
			continue;
		values[0] = ObjectIdGetDatum(row->key.database);
		values[1] = ObjectIdGetDatum(row->key.role);
		values[2] = Int64GetDatum((int64) row->key.queryid);
		if (error_classes[i].code)
			values[3] = CStringGetTextDatum(error_classes[i].code);
		else
			nulls[3] = true;
		values[4] = CStringGetTextDatum(error_classes[i].name);
		values[5] = Int64GetDatum((int64) row->sums.errors_by_class[i]);
		tuplestore_putvalues(state->result->setResult, state->result->setDesc,
							 values, nulls);
	}
}

PG_FUNCTION_INFO_V1(perfopt_sql_latency);
PG_FUNCTION_INFO_V1(perfopt_sql_latency_errors);
PG_FUNCTION_INFO_V1(perfopt_sql_latency_info);
PG_FUNCTION_INFO_V1(perfopt_sql_reset_latency);

/* latency(histograms boolean) */
Datum
perfopt_sql_latency(PG_FUNCTION_ARGS)
{
	ViewState	state;

	begin_view(fcinfo, &state);
	state.histograms = PG_GETARG_BOOL(0);
	perfopt_latency_scan(put_latency, &state);
	return (Datum) 0;
}

/* latency_errors() */
Datum
perfopt_sql_latency_errors(PG_FUNCTION_ARGS)
{
	ViewState	state;

	begin_view(fcinfo, &state);
	perfopt_latency_scan(put_errors, &state);
	return (Datum) 0;
}

/* latency_info() */
Datum
perfopt_sql_latency_info(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	LatencyInfo info;
	Datum		values[4];
	bool		nulls[4] = {0};

	perfopt_require_preload();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	info = perfopt_latency_info();
	values[0] = Int32GetDatum(info.rows_used);
	values[1] = Int32GetDatum(info.rows_max);
	values[2] = Int64GetDatum((int64) info.dropped);
	values[3] = TimestampTzGetDatum(info.stats_reset);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/* reset_latency() */
Datum
perfopt_sql_reset_latency(PG_FUNCTION_ARGS)
{
	perfopt_require_preload();
	perfopt_latency_reset();
	PG_RETURN_VOID();
}
