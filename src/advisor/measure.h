/*
 * measure.h
 *		Are latencies lower than they were?  Pure functions over histograms.
 */
#ifndef PERFOPT_MEASURE_H
#define PERFOPT_MEASURE_H

#include "postgres.h"

#include "monitor/monitor.h"

/* Calls there must be before and after. */
#define MEASURE_MIN_CALLS	20

typedef struct Measured
{
	double		calls_before;
	double		calls_after;
	double		mean_before;	/* ms, without the slowest hundredth */
	double		mean_after;
	double		ratio;			/* of the medians, after to before */
	double		faster;			/* chance that a call after takes less than
								 * one before; ties count half */
	double		z;				/* its distance from 1/2 in standard errors */
	int			change;			/* -1 slower, 1 faster, 0 can't be told */
} Measured;

/*
 * Compare.  What else has happened to the server has made everything slower by
 * 2^(shift / 8): that is taken out first.
 */
extern void perfopt_measure_compare(const uint64 *before, const uint64 *after, int shift,
									Measured *measured);

/* Median of the shifts of other queries, or 0 if they are too few. */
extern int	perfopt_measure_shift(double *ratios, int num);

#endif							/* PERFOPT_MEASURE_H */
