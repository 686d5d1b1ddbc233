/*
 * distinct_keys.c
 *		How many keys a table has, and how many rows each of them, as told by a
 *		sample of the rows.
 *
 * Keys are counted by how many of them the sample has once and twice.  The
 * numbers of rows that they have in the table are taken to be of the family
 * p(k) = (a + b / k) p(k - 1), which has keys that all have the same number of
 * rows (binomial), those that share their rows at random (Poisson), and those
 * with few rows beside others with many (negative binomial); a sample of such
 * rows is of the same family.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include <math.h>

/* As many keys must be twice in the sample to tell how they are distributed. */
#define TWICE_ENOUGH	30

/* Below this parameter all keys are taken to have as many rows; Poisson is 0. */
#define NEARLY_EVEN		(-0.5)

void
perfopt_count_key(KeyCounts *counts, int rows)
{
	counts->rows += rows;
	counts->keys++;
	counts->once += rows == 1;
	counts->twice += rows == 2;
}

static void
distribute_rows(RowsOfKey *rows, double mean, double a, double b)
{
	double		p = 1;
	double		sum = 0;

	rows->mean = mean;
	for (int k = 1; k < MOST_ROWS_OF_KEY; k++)
	{
		if (k > 1)
			p *= Max(a + b / k, 0);
		sum += p;
		rows->up_to[k] = sum;
	}
	for (int k = 1; k < MOST_ROWS_OF_KEY; k++)
		rows->up_to[k] /= sum;
}

/* All have as many, or, for a mean in between, one more. */
static void
distribute_evenly(RowsOfKey *rows, double mean)
{
	rows->mean = mean;
	for (int k = 1; k < MOST_ROWS_OF_KEY; k++)
		rows->up_to[k] = k < floor(mean) ? 0 : k < mean ? 1 - (mean - floor(mean)) : 1;
}

/* The estimate of ANALYZE, by Haas and Stokes: right where all have as many. */
static double
estimate_even_keys(const KeyCounts *counts, double total)
{
	double		keys = counts->rows * counts->keys /
	(counts->rows - counts->once + counts->once * Min(counts->rows / Max(total, 1), 1));

	return Max(counts->keys, Min(keys, total));
}

static void
distribute_at_random(RowsOfKey *rows, double mean)
{
	double		lambda = Max(mean - 1, 1e-6);

	for (int i = 0; i < 50; i++)
		lambda = Max(mean * (1 - exp(-lambda)), 1e-6);
	distribute_rows(rows, mean, 0, lambda);
}

/*
 * The number of keys that total rows have, of which the sample has a part.  With
 * x for the family's parameter in the sample, the keys found once are
 * (1 + x) ^ -s of the rows, and twice their ratio to those found once is
 * s * x / (1 + x); x is found between, as x / ((1 + x) ln(1 + x)) falls from
 * above 1 for the binomial to below for the negative one.
 */
double
perfopt_estimate_keys(const KeyCounts *counts, double total, RowsOfKey *rows)
{
	double		part = Min(counts->rows / Max(total, 1), 1);
	double		keys;
	double		fewer;
	double		wanted;
	double		low = -part * 0.9999;
	double		high = 1000;
	double		x = 0;
	double		beta;
	double		r;

	if (counts->rows <= 0)
		return 0;
	keys = estimate_even_keys(counts, total);
	if (counts->twice < TWICE_ENOUGH || counts->once < TWICE_ENOUGH || part > 0.99)
	{
		if (rows)
			distribute_at_random(rows, total / keys);
		return keys;
	}

	fewer = Max(-log(counts->once / counts->rows), 1e-9);
	wanted = 2 * counts->twice / counts->once / fewer;
	for (int i = 0; i < 100; i++)
	{
		x = (low + high) / 2;
		if ((fabs(x) < 1e-9 ? 1 : x / ((1 + x) * log1p(x))) > wanted)
			low = x;
		else
			high = x;
	}
	if (fabs(x) < 1e-6)
		x = 1e-6;
	beta = x / part;
	if (fabs(x) < 4 * sqrt(1 / counts->once + 1 / counts->twice))
	{
		/* x may well be 0, or what it is for even keys: between these two */
		double		lambda = fewer / part;

		keys = (keys + total / lambda * (1 - exp(-lambda))) / 2;
		keys = Max(counts->keys, Min(keys, total));
		if (rows)
			distribute_at_random(rows, total / keys);
		return keys;
	}
	if (beta < NEARLY_EVEN)
	{
		double		mean = total / keys;

		/* a whole number is likelier than one close to it */
		if (fabs(mean - rint(mean)) < 0.1 * mean)
			keys = total / rint(mean);
		if (rows)
			distribute_evenly(rows, total / keys);
		return keys;
	}
	r = fewer / log1p(x) - 1;
	if (fabs(r) < 1e-6)
		r = 1e-6;
	keys = total / (r * beta) * (1 - pow(1 + beta, -r));
	keys = Max(counts->keys, Min(keys, total));
	if (rows)
		distribute_rows(rows, total / keys, beta / (1 + beta), (r - 1) * beta / (1 + beta));
	return keys;
}

double
perfopt_draw_rows(const RowsOfKey *rows, pg_prng_state * random)
{
	double		p = pg_prng_double(random);
	int			low = 1;
	int			high = MOST_ROWS_OF_KEY - 1;

	if (rows->mean > MOST_ROWS_OF_KEY / 2)
		return rows->mean;
	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (rows->up_to[middle] < p)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}
