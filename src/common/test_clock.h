/*
 * test_clock.h
 *		Time as a test needs it, however fast the machine is.
 *
 * Advice depends on how long statements took, and gives up what takes too long
 * to find out.  A build for tests (make STOP_POINTS=1) looks at settings
 * that it does not define:
 *
 * - perfopt_test.statement_ms: what each statement is counted with, instead of
 *   the time it took;
 * - perfopt_test.patience: a factor for limits of time that are no settings;
 * - perfopt_test.minutes: how much later it is when a statement is sampled.
 *
 * Other builds have nothing of this.
 */
#ifndef PERFOPT_TEST_CLOCK_H
#define PERFOPT_TEST_CLOCK_H

#include "postgres.h"

#include "datatype/timestamp.h"

#ifdef PERFOPT_STOP_POINTS
extern uint64 perfopt_test_statement_ns(uint64 ns);
extern int	perfopt_test_limit_ms(int ms);
extern TimestampTz perfopt_test_sampled_at(TimestampTz now);

#define PERFOPT_STATEMENT_NS(ns)	perfopt_test_statement_ns(ns)
#define PERFOPT_LIMIT_MS(ms)		perfopt_test_limit_ms(ms)
#define PERFOPT_SAMPLED_AT(now)		perfopt_test_sampled_at(now)
#else
#define PERFOPT_STATEMENT_NS(ns)	(ns)
#define PERFOPT_LIMIT_MS(ms)		(ms)
#define PERFOPT_SAMPLED_AT(now)		(now)
#endif

#endif							/* PERFOPT_TEST_CLOCK_H */
