/*
 * measure.c
 *		Are latencies lower than they were?
 *
 * The test is Mann and Whitney's, on the buckets of two histograms: of all pairs
 * of a call before and a call after, in how many was the later one faster?  It
 * asks nothing of the distribution, and some slow calls don't move it.  Ties,
 * calls in the same bucket, count half and are allowed for in the variance.
 *
 * Calls are not independent of each other, and there may be millions, so being
 * significant is not enough.  A change is one when
 *
 *		|z| is at least 3.29 (one in a thousand by chance),
 *		the chance is 0.56 or more, a small effect by Vargha and Delaney, and
 *		the means differ by 5 % in the same direction.
 *
 * The server as a whole may be faster or slower than before, for reasons of its
 * own.  The queries that have nothing to do with it tell: the median of the ratios
 * of their medians is taken out of what is compared.  Not of their means: where a
 * stall has made a few calls of every query slow, the others would all look faster.
 */
#include "postgres.h"

#include "advisor/measure.h"

#include <math.h>

#define LEAST_Z			3.29
#define LEAST_CHANCE	0.56
#define LEAST_RATIO		1.05

/* The mean leaves out what is slower than this part of the calls. */
#define MEAN_OF			0.99

/* With fewer other queries nothing is known of the server as a whole. */
#define LEAST_CONTROLS	5

static double
total(const double *counts)
{
	double		sum = 0;

	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		sum += counts[i];
	return sum;
}

static double
mean_ms(const double *counts, double calls)
{
	double		left = calls * MEAN_OF;
	double		sum = 0;

	if (calls <= 0)
		return 0;
	for (int i = 0; i < HISTOGRAM_BUCKETS && left > 0; i++)
	{
		double		n = Min(counts[i], left);

		sum += n * (perfopt_histogram_bound_ms(i) + perfopt_histogram_bound_ms(i + 1)) / 2;
		left -= n;
	}
	return sum / (calls * MEAN_OF);
}

/* In buckets, and parts of one. */
static double
median(const double *counts, double calls)
{
	double		left = calls / 2;

	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
	{
		if (counts[i] > 0 && left <= counts[i])
			return i + left / counts[i];
		left -= counts[i];
	}
	return 0;
}

static void
move(const uint64 *from, int shift, double *to)
{
	memset(to, 0, sizeof(double) * HISTOGRAM_BUCKETS);
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		to[Min(Max(i + shift, 0), HISTOGRAM_BUCKETS - 1)] += (double) from[i];
}

void
perfopt_measure_compare(const uint64 *before, const uint64 *after, int shift,
						Measured *measured)
{
	double		b[HISTOGRAM_BUCKETS];
	double		a[HISTOGRAM_BUCKETS];
	double		above;
	double		wins = 0;
	double		ties = 0;
	double		n;
	double		pairs;
	double		variance;

	memset(measured, 0, sizeof(*measured));
	move(before, 0, b);
	move(after, -shift, a);
	measured->calls_before = above = total(b);
	measured->calls_after = total(a);
	measured->mean_before = mean_ms(b, measured->calls_before);
	measured->mean_after = mean_ms(a, measured->calls_after);
	measured->ratio = exp2((median(a, measured->calls_after) - median(b, measured->calls_before)) /
						   (1 << HISTOGRAM_SCALE_BITS));
	measured->faster = 0.5;
	n = measured->calls_before + measured->calls_after;
	pairs = measured->calls_before * measured->calls_after;
	if (pairs == 0)
		return;

	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
	{
		double		here = a[i] + b[i];

		above -= b[i];
		wins += a[i] * (above + b[i] / 2);
		ties += here * here * here - here;
	}
	measured->faster = wins / pairs;
	variance = (n + 1 - ties / (n * (n - 1))) / (12 * pairs);
	if (variance > 0)
		measured->z = (measured->faster - 0.5) / sqrt(variance);

	if (measured->calls_before < MEASURE_MIN_CALLS || measured->calls_after < MEASURE_MIN_CALLS ||
		fabs(measured->z) < LEAST_Z)
		return;
	if (measured->faster >= LEAST_CHANCE &&
		measured->mean_before >= measured->mean_after * LEAST_RATIO)
		measured->change = 1;
	else if (measured->faster <= 1 - LEAST_CHANCE &&
			 measured->mean_after >= measured->mean_before * LEAST_RATIO)
		measured->change = -1;
}

static int
compare_doubles(const void *a, const void *b)
{
	double		l = *(const double *) a;
	double		r = *(const double *) b;

	return l < r ? -1 : l > r ? 1 : 0;
}

int
perfopt_measure_shift(double *ratios, int num)
{
	if (num < LEAST_CONTROLS)
		return 0;
	qsort(ratios, num, sizeof(double), compare_doubles);
	return (int) rint(log2(ratios[num / 2]) * (1 << HISTOGRAM_SCALE_BITS));
}
