/*
 * histogram.h
 *		Latency histograms with a known relative error: pure functions, no
 *		shared state.
 */
#ifndef PERFOPT_HISTOGRAM_H
#define PERFOPT_HISTOGRAM_H

#include "postgres.h"

/* Buckets an octave, and octaves from 1 microsecond to 2^32 of them (71 min). */
#define HISTOGRAM_SCALE_BITS	3
#define HISTOGRAM_BUCKETS		256

/* Mantissa bits of 2^(1/8), 2^(2/8), ..., 2^(7/8), and of 2, never reached. */
extern const uint64 perfopt_histogram_steps[1 << HISTOGRAM_SCALE_BITS];

/*
 * The bucket of a latency.
 *
 * The octave is the exponent of the value as a double.  Within the octave, the
 * top three bits of the mantissa name an eighth [1 + j/8, 1 + (j+1)/8), and
 * exactly one bucket boundary 2^((j+1)/8) lies in each of those (none in the
 * last), so one comparison decides between bucket j and j + 1.
 */
static inline int
perfopt_histogram_bucket(uint64 ns)
{
	double		us = (double) ns / 1000.0;
	uint64		bits;
	uint64		mantissa;
	int			eighth;
	int			bucket;

	if (ns < 1000)
		return 0;
	memcpy(&bits, &us, sizeof(bits));
	mantissa = bits & ((UINT64CONST(1) << 52) - 1);
	eighth = (int) (mantissa >> (52 - HISTOGRAM_SCALE_BITS));
	bucket = (((int) (bits >> 52) - 1023) << HISTOGRAM_SCALE_BITS) + eighth +
		(mantissa >= perfopt_histogram_steps[eighth]);
	return Min(bucket, HISTOGRAM_BUCKETS - 1);
}

/* Lower bound of a bucket in milliseconds; of bucket + 1, its upper bound. */
extern double perfopt_histogram_bound_ms(int bucket);

/*
 * Estimate, in milliseconds, of the value at a fraction (0.5 for the median),
 * by nearest rank.  The result is kept within [min_ms, max_ms], if max_ms is
 * not negative.  counts has HISTOGRAM_BUCKETS elements, not all zero.
 */
extern double perfopt_histogram_percentile(const uint64 *counts, double fraction,
										   double min_ms, double max_ms);

#endif							/* PERFOPT_HISTOGRAM_H */
