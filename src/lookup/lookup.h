/*
 * lookup.h
 *		Look-ups without N+1, and finding N+1 in the workload.
 */
#ifndef PERFOPT_LOOKUP_H
#define PERFOPT_LOOKUP_H

extern void perfopt_lookup_init(void);

#endif							/* PERFOPT_LOOKUP_H */
