/*
 * testing.c
 *		Only with STOP_POINTS=1: what is made of measured times, for tests.
 */
#include "postgres.h"

#ifdef PERFOPT_STOP_POINTS

#include "bench/bench_internal.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"

PG_FUNCTION_INFO_V1(perfopt_test_bench_statistics);
PG_FUNCTION_INFO_V1(perfopt_test_bench_signed_rank);

static Datum
float8_array(const double *values, int num)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(num, 1));

	for (int i = 0; i < num; i++)
		elements[i] = Float8GetDatum(values[i]);
	return PointerGetDatum(construct_array(elements, num, FLOAT8OID, sizeof(float8),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
read_samples(Datum array, BenchSamples *samples)
{
	Datum	   *elements;
	bool	   *nulls;
	int			num;

	deconstruct_array(DatumGetArrayTypeP(array), FLOAT8OID, sizeof(float8),
					  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements, &nulls, &num);
	bench_samples_init(samples);
	for (int i = 0; i < num; i++)
		bench_samples_add(samples, DatumGetFloat8(elements[i]));
}

/* (values float8[], fractions float8[]): mean, deviation, median, then quantiles */
Datum
perfopt_test_bench_statistics(PG_FUNCTION_ARGS)
{
	BenchSamples samples;
	BenchSamples fractions;
	double	   *result;

	read_samples(PG_GETARG_DATUM(0), &samples);
	read_samples(PG_GETARG_DATUM(1), &fractions);
	result = palloc(sizeof(double) * (3 + fractions.num));
	result[0] = bench_mean(samples.values, samples.num);
	result[1] = bench_std_dev(samples.values, samples.num);
	result[2] = bench_median(samples.values, samples.num);
	bench_samples_sort(&samples);
	for (int i = 0; i < fractions.num; i++)
		result[3 + i] = bench_quantile(samples.values, samples.num, fractions.values[i]);
	PG_RETURN_DATUM(float8_array(result, 3 + fractions.num));
}

/* (values float8[]): p, center, and, where there is an interval, low and high */
Datum
perfopt_test_bench_signed_rank(PG_FUNCTION_ARGS)
{
	BenchSamples samples;
	BenchTest	test;
	double		result[4];

	read_samples(PG_GETARG_DATUM(0), &samples);
	bench_signed_rank_test(samples.values, samples.num, &test);
	result[0] = test.p;
	result[1] = test.center;
	result[2] = test.low;
	result[3] = test.high;
	PG_RETURN_DATUM(float8_array(result, test.has_interval ? 4 : 2));
}

#endif							/* PERFOPT_STOP_POINTS */
