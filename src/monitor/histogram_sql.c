/*
 * histogram_sql.c
 *		Latency histograms in SQL.
 *
 * There they are arrays of bigint with the pairs bucket, count, bucket, count
 * and so on of the buckets that are not empty: a dozen numbers for most
 * queries, where the whole histogram has 256.  A bucket may occur several
 * times; the counts add up.  So concatenating two histograms is merging them,
 * though perfopt.histogram_merge() keeps the result short.
 */
#include "postgres.h"

#include "monitor/monitor_internal.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"

/* The array for a histogram; allocated in the current context. */
Datum
perfopt_histogram_datum(const uint64 *counts)
{
	Datum		pairs[2 * HISTOGRAM_BUCKETS];
	int			n = 0;

	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		if (counts[i] > 0)
		{
			pairs[n++] = Int64GetDatum(i);
			pairs[n++] = Int64GetDatum((int64) counts[i]);
		}
	return PointerGetDatum(construct_array(pairs, n, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Add a histogram from SQL, which may be anything, to counts. */
static void
add_array(uint64 *counts, ArrayType *array)
{
	int			n;
	const int64 *pairs;

	n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	if (ARR_NDIM(array) > 1 || array_contains_nulls(array) || n % 2 != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("histogram is not an array of pairs of bucket and count")));

	pairs = (const int64 *) ARR_DATA_PTR(array);
	for (int i = 0; i < n; i += 2)
	{
		if (pairs[i] < 0 || pairs[i] >= HISTOGRAM_BUCKETS)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("bucket %lld of histogram is out of range",
							(long long) pairs[i]),
					 errdetail("Buckets are numbered from 0 to %d.",
							   HISTOGRAM_BUCKETS - 1)));
		if (pairs[i + 1] < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("bucket %lld of histogram has a negative count",
							(long long) pairs[i])));
		counts[pairs[i]] += (uint64) pairs[i + 1];
	}
}

PG_FUNCTION_INFO_V1(perfopt_sql_histogram_percentile);
PG_FUNCTION_INFO_V1(perfopt_sql_histogram_add);
PG_FUNCTION_INFO_V1(perfopt_sql_histogram_merge);
PG_FUNCTION_INFO_V1(perfopt_sql_histogram_final);

/* histogram_percentile(histogram bigint[], fraction float8) */
Datum
perfopt_sql_histogram_percentile(PG_FUNCTION_ARGS)
{
	double		fraction = PG_GETARG_FLOAT8(1);
	uint64		counts[HISTOGRAM_BUCKETS] = {0};
	bool		empty = true;

	if (isnan(fraction) || fraction < 0 || fraction > 1)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("percentile value %g is not between 0 and 1", fraction)));
	add_array(counts, PG_GETARG_ARRAYTYPE_P(0));
	for (int i = 0; i < HISTOGRAM_BUCKETS && empty; i++)
		empty = counts[i] == 0;
	if (empty)
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(perfopt_histogram_percentile(counts, fraction, 0, -1));
}

static uint64 *
aggregate_state(FunctionCallInfo fcinfo)
{
	MemoryContext context;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "histogram aggregate called in non-aggregate context");
	if (!PG_ARGISNULL(0))
		return (uint64 *) PG_GETARG_POINTER(0);
	return MemoryContextAllocZero(context, HISTOGRAM_BUCKETS * sizeof(uint64));
}

/* Transition of histogram(latency_ms float8). */
Datum
perfopt_sql_histogram_add(PG_FUNCTION_ARGS)
{
	uint64	   *counts = aggregate_state(fcinfo);

	if (!PG_ARGISNULL(1))
	{
		double		ms = PG_GETARG_FLOAT8(1);

		if (isnan(ms) || ms < 0)
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("latency %g is not a time", ms)));
		/* beyond an hour, only the last bucket is left */
		counts[perfopt_histogram_bucket((uint64) (Min(ms, 1e7) * 1e6 + 0.5))]++;
	}
	PG_RETURN_POINTER(counts);
}

/* Transition of histogram_merge(histogram bigint[]). */
Datum
perfopt_sql_histogram_merge(PG_FUNCTION_ARGS)
{
	uint64	   *counts = aggregate_state(fcinfo);

	if (!PG_ARGISNULL(1))
		add_array(counts, PG_GETARG_ARRAYTYPE_P(1));
	PG_RETURN_POINTER(counts);
}

/* Final function of both. */
Datum
perfopt_sql_histogram_final(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(perfopt_histogram_datum((uint64 *) PG_GETARG_POINTER(0)));
}
