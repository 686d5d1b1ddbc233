/*
 * measure.c
 *		Are latencies lower than they were?
 *
 * Calls in the same hour are not independent of each other: a statement's latency
 * wanders with what else is going on, so that a thousand calls before and a thousand
 * after differ for sure, and it means nothing.  So the unit is the window, not the
 * call, and how much a statement wanders from window to window is seen in its own
 * history.
 *
 * Of each window the mean is taken, without the slowest hundredth of its calls.  The
 * logs of these are compared by a t test of two samples.  Windows in a row are like
 * each other, too, so it is the form of that test that allows for serial correlation
 * (F. W. Zwiers and H. von Storch, Taking Serial Correlation into Account in Tests of
 * the Mean, Journal of Climate 8, 1995): each sample counts for as many independent
 * windows as its lag-1 correlation says, which is estimated from both, with its
 * small-sample bias taken out (M. G. Kendall, Biometrika 41, 1954) and one standard
 * error added, as too little of it makes verdicts out of nothing; so for the degrees
 * of freedom.
 *
 * While there are too few windows to tell how a statement wanders, it is taken to
 * do so by 20 % at least.  The variance is never taken to be less than the scatter
 * of the calls themselves makes it; that is what counts where calls are few.
 *
 * A change is one when it is significant, and the means differ by 10 % at least.
 * It is looked at again and again, and for several statements: the chance to be
 * wrong that is taken for an advice is divided among all (Bonferroni).
 *
 * The server as a whole may be faster or slower in a window, for reasons of its own.
 * The queries that have nothing to do with it tell: the median of what their medians
 * tell is taken out.  Not of their means: where a stall has made a few calls of every
 * query slow, the others would all look faster.
 */
#include "postgres.h"

#include "advisor/measure.h"

#include <math.h>

/* To say "faster" or "slower" of one advice where there is no difference. */
#define ALPHA			0.015

#define LEAST_RATIO		1.10

/* With fewer windows than give so many degrees of freedom ... */
#define LEAST_DF		6

/* ... the log of a window's mean has this standard deviation at least. */
#define ASSUMED_WANDER	0.20

/* Calls in a window; those with fewer are taken together. */
#define CALLS_OF_UNIT	20

/* The mean leaves out what is slower than this part of the calls. */
#define MEAN_OF			0.99

/* With fewer other queries nothing is known of the server as a whole. */
#define LEAST_CONTROLS	5

/* More can't be told from a change in so few windows. */
#define MOST_CORRELATION	0.8

void
perfopt_measure_window(const uint64 *counts, MeasureWindow *window)
{
	double		left;
	double		middle;

	memset(window, 0, sizeof(*window));
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		window->calls += (double) counts[i];
	window->kept = left = window->calls * MEAN_OF;
	middle = window->calls / 2;
	for (int i = 0; i < HISTOGRAM_BUCKETS && left > 0; i++)
	{
		double		n = Min((double) counts[i], left);
		double		low = perfopt_histogram_bound_ms(i);
		double		high = perfopt_histogram_bound_ms(i + 1);

		if (counts[i] == 0)
			continue;
		window->ms += n * (low + high) / 2;
		window->ms2 += n * (low + high) * (low + high) / 4;
		left -= n;
		if (middle > 0 && middle <= counts[i])
			window->median = log(low + (high - low) * middle / counts[i]);
		middle -= counts[i];
	}
}

static int
compare_doubles(const void *a, const void *b)
{
	double		l = *(const double *) a;
	double		r = *(const double *) b;

	return l < r ? -1 : l > r ? 1 : 0;
}

void
perfopt_measure_drift(const MeasureWindow *windows, int num_controls, int num_windows,
					  int num_before, double *drift)
{
	double	   *usual = palloc(sizeof(double) * Max(num_controls, 1));
	double	   *here = palloc(sizeof(double) * Max(num_controls, 1));

	for (int i = 0; i < num_controls; i++)
	{
		int			n = 0;

		usual[i] = 0;
		for (int w = 0; w < num_before; w++)
			if (windows[i * num_windows + w].calls >= CALLS_OF_UNIT)
			{
				usual[i] += windows[i * num_windows + w].median;
				n++;
			}
		usual[i] = n > 0 ? usual[i] / n : NAN;
	}
	for (int w = 0; w < num_windows; w++)
	{
		int			n = 0;

		for (int i = 0; i < num_controls; i++)
			if (!isnan(usual[i]) && windows[i * num_windows + w].calls >= CALLS_OF_UNIT)
				here[n++] = windows[i * num_windows + w].median - usual[i];
		qsort(here, n, sizeof(double), compare_doubles);
		drift[w] = n < LEAST_CONTROLS ? 0 : (here[(n - 1) / 2] + here[n / 2]) / 2;
	}
	pfree(usual);
	pfree(here);
}

/* Continued fraction of the incomplete beta function, by Lentz's method. */
static double
beta_fraction(double x, double a, double b)
{
	double		tiny = 1e-30;
	double		c = 1;
	double		d = 1 - (a + b) * x / (a + 1);
	double		h;

	d = 1 / (fabs(d) < tiny ? tiny : d);
	h = d;
	for (int m = 1; m < 300; m++)
		for (int odd = 0; odd < 2; odd++)
		{
			double		term = odd ?
			-(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)) :
			m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));

			d = 1 + term * d;
			d = 1 / (fabs(d) < tiny ? tiny : d);
			c = 1 + term / c;
			c = fabs(c) < tiny ? tiny : c;
			h *= d * c;
			if (odd && fabs(d * c - 1) < 1e-12)
				return h;
		}
	return h;
}

/* Chance of |t| or more by Student's distribution. */
static double
student_p(double t, double df)
{
	double		x = df / (df + t * t);
	double		a = df / 2;
	double		factor;

	if (x <= 0 || x >= 1)
		return x <= 0 ? 0 : 1;
	factor = exp(lgamma(a + 0.5) - lgamma(a) - lgamma(0.5) + a * log(x) + 0.5 * log(1 - x));
	return x < (a + 1) / (a + 2.5) ? factor * beta_fraction(x, a, 0.5) / a :
		1 - factor * beta_fraction(1 - x, 0.5, a) / 0.5;
}

/* One of the two samples: the logs of the means of its units. */
typedef struct Sample
{
	int			n;
	double		x[MEASURE_BEFORE + MEASURE_AFTER];
	double		mean;
	double		squares;		/* of differences from the mean */
	double		products;		/* of those of neighbours */
	double		calls;
	double		ms;				/* mean of the calls */
	double		scatter;		/* variance of that by the calls', relative */
} Sample;

static void
sample_windows(const MeasureWindow *windows, const double *drift, int from, int to,
			   Sample *sample)
{
	double		calls = 0;
	double		kept = 0;
	double		ms = 0;
	double		all_kept = 0;
	double		all_ms = 0;
	double		all_ms2 = 0;

	memset(sample, 0, sizeof(*sample));
	for (int w = from; w < to; w++)
	{
		double		scale = exp(-drift[w]);

		calls += windows[w].calls;
		kept += windows[w].kept;
		ms += windows[w].ms * scale;
		all_ms2 += windows[w].ms2 * scale * scale;
		if (calls >= CALLS_OF_UNIT || (w == to - 1 && sample->n == 0 && calls >= MEASURE_MIN_CALLS))
		{
			sample->x[sample->n] = log(ms / kept);
			sample->mean += sample->x[sample->n++];
			sample->calls += calls;
			all_kept += kept;
			all_ms += ms;
			calls = kept = ms = 0;
		}
	}
	/* what is too little for a unit of its own */
	sample->calls += calls;
	all_kept += kept;
	all_ms += ms;

	if (all_kept > 0)
		sample->ms = all_ms / all_kept;
	if (sample->n == 0)
		return;
	sample->mean /= sample->n;
	sample->scatter = Max(all_ms2 / all_kept / (sample->ms * sample->ms) - 1, 0) / (sample->calls - 1);
	for (int i = 0; i < sample->n; i++)
	{
		double		d = sample->x[i] - sample->mean;

		sample->squares += d * d;
		if (i > 0)
			sample->products += d * (sample->x[i - 1] - sample->mean);
	}
}

/* As how many independent ones do n count that are so correlated? */
static double
worth(int n, double correlation)
{
	double		sum = 1;
	double		power = 1;

	for (int lag = 1; lag < n; lag++)
	{
		power *= correlation;
		sum += 2 * (1 - (double) lag / n) * power;
	}
	return n / sum;
}

void
perfopt_measure_compare(const MeasureWindow *windows, int num_windows, int num_before,
						const double *drift, double alpha, Measured *measured)
{
	Sample		b;
	Sample		a;
	int			n;
	double		variance;
	double		scatter;
	double		df;
	double		difference;

	sample_windows(windows, drift, 0, num_before, &b);
	sample_windows(windows, drift, num_before, num_windows, &a);
	memset(measured, 0, sizeof(*measured));
	measured->calls_before = b.calls;
	measured->calls_after = a.calls;
	measured->mean_before = b.ms;
	measured->mean_after = a.ms;
	measured->ratio = measured->p = 1;
	if (b.n == 0 || a.n == 0)
		return;

	n = b.n + a.n;
	difference = a.mean - b.mean;
	scatter = b.scatter + a.scatter;
	if (n - 2 >= LEAST_DF)
	{
		double		squares = b.squares + a.squares;
		double		r = squares > 0 ? (b.products + a.products) / squares : 0;
		double		worth_b;
		double		worth_a;

		r += (1 + 3 * r) * ((b.n > 1) + (a.n > 1)) / n;
		r += sqrt(Max(1 - r * r, 0) / n);
		r = Min(Max(r, 0), MOST_CORRELATION);
		worth_b = worth(b.n, r);
		worth_a = worth(a.n, r);
		variance = squares / (n - b.n / worth_b - a.n / worth_a) * (1 / worth_b + 1 / worth_a);
		df = Max(worth(b.n, r * r) + worth(a.n, r * r) - 2, LEAST_DF);
		variance = Max(variance, scatter);
	}
	else
	{
		double		wander = ASSUMED_WANDER * ASSUMED_WANDER;

		if (n > 2)
			wander = Max(wander, (b.squares + a.squares) / (n - 2));
		variance = wander * (1.0 / b.n + 1.0 / a.n) + scatter;
		df = b.calls + a.calls - 2;
	}
	measured->ratio = exp(difference);
	measured->p = variance > 0 ? student_p(difference / sqrt(variance), df) : difference == 0;
	if (measured->p > alpha || fabs(difference) < log(LEAST_RATIO))
		return;
	if (difference < 0 && a.ms < b.ms)
		measured->change = 1;
	else if (difference > 0 && a.ms > b.ms)
		measured->change = -1;
}

double
perfopt_measure_alpha(int num_statements)
{
	return ALPHA / MEASURE_LOOKS / Max(num_statements, 1);
}
