/*
 * statistics.c
 *		What is made of measured times: mean, deviation, exact quantiles, and
 *		the test that tells a difference from noise.
 *
 * The test is Wilcoxon's signed-rank test (F. Wilcoxon, "Individual Comparisons
 * by Ranking Methods", Biometrics Bulletin 1, 1945), with its exact distribution
 * up to EXACT_MAX values, also where values are equal; the estimate that goes
 * with it is Hodges' and Lehmann's (Annals of Mathematical Statistics 34, 1963),
 * the median of the means of all pairs, whose confidence interval the same
 * distribution gives.
 */
#include "postgres.h"

#include "bench/bench_internal.h"

#include <math.h>

#include "miscadmin.h"
#include "utils/memutils.h"

/* Up to here the distribution is exact: n * n * (n + 1) additions. */
#define EXACT_MAX	200

void
bench_samples_init(BenchSamples *samples)
{
	samples->num = 0;
	samples->allocated = 1024;
	samples->values = palloc(samples->allocated * sizeof(double));
}

void
bench_samples_add(BenchSamples *samples, double value)
{
	if (samples->num == samples->allocated)
	{
		samples->allocated = Min(samples->allocated * 2, BENCH_MAX_SAMPLES);
		samples->values = repalloc_huge(samples->values,
										samples->allocated * sizeof(double));
	}
	samples->values[samples->num++] = value;
}

/* sort_doubles(): millions of them take a second, so it can be cancelled */
#define ST_SORT sort_doubles
#define ST_ELEMENT_TYPE double
#define ST_COMPARE(a, b) (*(a) < *(b) ? -1 : *(a) > *(b))
#define ST_SCOPE static
#define ST_CHECK_FOR_INTERRUPTS
#define ST_DEFINE
#include "lib/sort_template.h"

void
bench_samples_sort(BenchSamples *samples)
{
	sort_doubles(samples->values, samples->num);
}

double
bench_mean(const double *values, int64 num)
{
	double		sum = 0;

	for (int64 i = 0; i < num; i++)
		sum += values[i];
	return num > 0 ? sum / num : 0;
}

double
bench_std_dev(const double *values, int64 num)
{
	double		mean = bench_mean(values, num);
	double		squares = 0;

	for (int64 i = 0; i < num; i++)
		squares += (values[i] - mean) * (values[i] - mean);
	return num > 1 ? sqrt(squares / (num - 1)) : 0;
}

double
bench_quantile(const double *sorted, int64 num, double fraction)
{
	double		place = fraction * (num - 1);
	int64		below = (int64) floor(place);

	if (num == 0)
		return 0;
	if (below + 1 >= num)
		return sorted[num - 1];
	return sorted[below] + (place - below) * (sorted[below + 1] - sorted[below]);
}

double
bench_median(const double *values, int64 num)
{
	double	   *copy = MemoryContextAllocHuge(CurrentMemoryContext,
											  Max(num, 1) * sizeof(double));
	double		median;

	memcpy(copy, values, num * sizeof(double));
	sort_doubles(copy, num);
	median = bench_quantile(copy, num, 0.5);
	pfree(copy);
	return median;
}

/* ---------------------------------------------------------------------
 * The signed-rank test
 */

typedef struct Ranked
{
	double		size;
	bool		positive;
	int			rank2;			/* twice the rank: equal values share one */
} Ranked;

static int
compare_ranked(const void *a, const void *b)
{
	double		x = ((const Ranked *) a)->size;
	double		y = ((const Ranked *) b)->size;

	return x < y ? -1 : x > y;
}

/*
 * How probable each sum of doubled ranks is when each has either sign with
 * the same probability: an array from zero to their total.
 */
static double *
distribution(const int *rank2, int num, int total2)
{
	double	   *p = palloc0((total2 + 1) * sizeof(double));
	int			reached = 0;

	p[0] = 1;
	for (int i = 0; i < num; i++)
	{
		CHECK_FOR_INTERRUPTS();
		reached += rank2[i];
		for (int sum = reached; sum >= 0; sum--)
			p[sum] = 0.5 * p[sum] + (sum >= rank2[i] ? 0.5 * p[sum - rank2[i]] : 0);
	}
	return p;
}

/* Probability of a normal variable to be that far from its mean, or farther. */
static double
two_sided_normal(double distance)
{
	return erfc(fabs(distance) / sqrt(2));
}

static double
p_value(const double *values, int num)
{
	Ranked	   *ranked = palloc(sizeof(Ranked) * Max(num, 1));
	int		   *rank2 = palloc(sizeof(int) * Max(num, 1));
	int			n = 0;
	int64		total2 = 0;
	int64		positive2 = 0;
	double		ties = 0;
	double		p = 0;

	/* Values of zero tell nothing, and are left out as Wilcoxon did. */
	for (int i = 0; i < num; i++)
		if (values[i] != 0)
			ranked[n++] = (Ranked)
		{
			.size = fabs(values[i]),.positive = values[i] > 0
		};
	qsort(ranked, n, sizeof(Ranked), compare_ranked);
	for (int i = 0; i < n;)
	{
		int			next = i + 1;

		while (next < n && ranked[next].size == ranked[i].size)
			next++;
		ties += pow(next - i, 3) - (next - i);
		for (int k = i; k < next; k++)
			ranked[k].rank2 = i + 1 + next;
		i = next;
	}
	for (int i = 0; i < n; i++)
	{
		rank2[i] = ranked[i].rank2;
		total2 += ranked[i].rank2;
		if (ranked[i].positive)
			positive2 += ranked[i].rank2;
	}

	if (n == 0)
		p = 1;
	else if (n <= EXACT_MAX)
	{
		double	   *probability = distribution(rank2, n, total2);
		int64		smaller = Min(positive2, total2 - positive2);

		for (int64 sum = 0; sum <= smaller; sum++)
			p += probability[sum];
		p = Min(2 * p, 1);
		pfree(probability);
	}
	else
	{
		double		mean = total2 / 4.0;
		double		variance = n * (n + 1.0) * (2.0 * n + 1) / 24 - ties / 48;
		double		distance = fabs(positive2 / 2.0 - mean);

		p = two_sided_normal(Max(distance - 0.5, 0) / sqrt(variance));
	}
	pfree(ranked);
	pfree(rank2);
	return p;
}

/* The largest rank sum that has at most 2.5 % at and below it, or -1. */
static int64
critical_rank_sum(int n)
{
	int64		critical = -1;

	if (n <= EXACT_MAX)
	{
		int		   *rank = palloc(sizeof(int) * Max(n, 1));
		double	   *probability;
		double		below = 0;

		for (int i = 0; i < n; i++)
			rank[i] = i + 1;
		probability = distribution(rank, n, n * (n + 1) / 2);
		for (int sum = 0; sum <= n * (n + 1) / 2; sum++)
		{
			below += probability[sum];
			if (below > 0.025)
				break;
			critical = sum;
		}
		pfree(probability);
		pfree(rank);
	}
	else
		critical = (int64) floor(n * (n + 1.0) / 4 - 0.5 -
								 1.959964 * sqrt(n * (n + 1.0) * (2.0 * n + 1) / 24));
	return critical;
}

void
bench_signed_rank_test(const double *values, int num, BenchTest *test)
{
	int64		pairs = (int64) num * (num + 1) / 2;
	int64		critical = critical_rank_sum(num);
	double	   *means = MemoryContextAllocHuge(CurrentMemoryContext,
											   Max(pairs, 1) * sizeof(double));
	int64		n = 0;

	memset(test, 0, sizeof(*test));
	test->p = p_value(values, num);
	for (int i = 0; i < num; i++)
		for (int k = i; k < num; k++)
			means[n++] = (values[i] + values[k]) / 2;
	sort_doubles(means, n);
	test->center = bench_quantile(means, n, 0.5);
	test->has_interval = critical >= 0 && n > 0;
	if (test->has_interval)
	{
		test->low = means[critical];
		test->high = means[n - 1 - critical];
	}
	pfree(means);
}

double
bench_ms(double ns)
{
	return rint(ns) / 1e6;
}
