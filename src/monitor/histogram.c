/*
 * histogram.c
 *		Latency histograms with a known relative error.
 *
 * The buckets are those of OpenTelemetry's exponential histogram with base 2
 * and scale 3: bucket i holds the values from 2^(i/8) to 2^((i+1)/8)
 * microseconds, so that each is 9.05 % wider than the one before, and 256 of
 * them reach from one microsecond to 71 minutes.  Merging two histograms is
 * adding their counts.  Unlike OpenTelemetry's, a bucket includes its lower
 * bound and not its upper one; that is what the exponent gives without
 * further work, and no estimate changes by it.
 *
 * Which value should stand for a bucket [low, high)?  The one whose relative
 * error is the same at both ends, 2 * low * high / (low + high): then nothing
 * in the bucket is further away than (high - low) / (high + low) = 4.33 %.
 * The geometric middle would be off by 4.43 % at the lower end.  Values below
 * one microsecond are in the first bucket, those above 71 minutes in the last;
 * for them only the clamp to [min, max] keeps the estimate sensible.
 */
#include "postgres.h"

#include "monitor/histogram.h"

#include <math.h>

const uint64 perfopt_histogram_steps[1 << HISTOGRAM_SCALE_BITS] =
{
	UINT64CONST(0x172b83c7d517b),	/* 1.0905 */
	UINT64CONST(0x306fe0a31b715),	/* 1.1892 */
	UINT64CONST(0x4bfdad5362a27),	/* 1.2968 */
	UINT64CONST(0x6a09e667f3bcd),	/* 1.4142 */
	UINT64CONST(0x8ace5422aa0db),	/* 1.5422 */
	UINT64CONST(0xae89f995ad3ad),	/* 1.6818 */
	UINT64CONST(0xd5818dcfba487),	/* 1.8340 */
	UINT64CONST(0x10000000000000)
};

double
perfopt_histogram_bound_ms(int bucket)
{
	return ldexp(exp2((bucket % 8) / 8.0), bucket / 8) / 1000.0;
}

double
perfopt_histogram_percentile(const uint64 *counts, double fraction,
							 double min_ms, double max_ms)
{
	uint64		total = 0;
	uint64		rank;
	uint64		seen = 0;
	int			bucket;
	double		low,
				high,
				estimate;

	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		total += counts[i];

	rank = (uint64) ceil(fraction * (double) total);
	rank = Max(rank, 1);
	rank = Min(rank, total);
	for (bucket = 0; bucket < HISTOGRAM_BUCKETS - 1; bucket++)
	{
		seen += counts[bucket];
		if (seen >= rank)
			break;
	}

	low = perfopt_histogram_bound_ms(bucket);
	high = perfopt_histogram_bound_ms(bucket + 1);
	estimate = 2 * low * high / (low + high);
	if (max_ms >= 0)
		estimate = Min(Max(estimate, min_ms), max_ms);
	return estimate;
}
