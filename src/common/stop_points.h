/*
 * stop_points.h
 *		Named points at which a test can make a process wait, fail or die.
 *
 * Compiled out of release builds; make STOP_POINTS=1 compiles them in, and
 * the functions perfopt.stop_point_set(name, action) and
 * perfopt.stop_point_clear(name) with them.  A point that is not set costs one
 * comparison of a shared counter with zero.
 *
 * Never put one where a spinlock or an LWLock is held.
 */
#ifndef PERFOPT_STOP_POINTS_H
#define PERFOPT_STOP_POINTS_H

#include "postgres.h"

#ifdef PERFOPT_STOP_POINTS
extern void perfopt_stop_points_init(void);
extern void perfopt_stop_point(const char *name);

#define PERFOPT_STOP_POINT(name)	perfopt_stop_point(name)
#else
#define PERFOPT_STOP_POINT(name)	((void) 0)
#endif

#endif							/* PERFOPT_STOP_POINTS_H */
