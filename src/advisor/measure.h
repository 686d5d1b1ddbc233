/*
 * measure.h
 *		Are latencies lower than they were?  Pure functions over windows of time.
 */
#ifndef PERFOPT_MEASURE_H
#define PERFOPT_MEASURE_H

#include "postgres.h"

#include "monitor/monitor.h"

/* Windows before that are looked back at, and after that are waited for. */
#define MEASURE_BEFORE		24
#define MEASURE_AFTER		128

/* The comparisons are made after 1, 2, 4, ... of these. */
#define MEASURE_LOOKS		8

/* Calls there must be before and after. */
#define MEASURE_MIN_CALLS	5

/* One statement in one window: sums over its calls, but the slowest hundredth. */
typedef struct MeasureWindow
{
	double		calls;
	double		kept;			/* calls summed up */
	double		ms;
	double		ms2;			/* squares */
	double		median;			/* log of ms, of all calls */
} MeasureWindow;

typedef struct Measured
{
	double		calls_before;
	double		calls_after;
	double		mean_before;	/* ms */
	double		mean_after;
	double		ratio;			/* after to before, of the windows' means */
	double		p;				/* that chance alone makes as much of it */
	int			change;			/* -1 slower, 1 faster, 0 can't be told */
} Measured;

extern void perfopt_measure_window(const uint64 *counts, MeasureWindow *window);

/*
 * How much slower than before the server as a whole was in each window, as the
 * log of a ratio.  The windows of control i start at windows[i * num_windows]; the
 * first num_before of these are from before.
 */
extern void perfopt_measure_drift(const MeasureWindow *windows, int num_controls, int num_windows,
								  int num_before, double *drift);

/*
 * Compare one statement's windows, in the order of time, of which the drift is
 * taken out; a chance of alpha to be wrong is taken.
 */
extern void perfopt_measure_compare(const MeasureWindow *windows, int num_windows, int num_before,
									const double *drift, double alpha, Measured *measured);

/* That for one of so many statements, at one of the comparisons to come. */
extern double perfopt_measure_alpha(int num_statements);

#endif							/* PERFOPT_MEASURE_H */
