/*
 * lookup.h
 *		Look-ups of many keys at once, in place of a query for each of them.
 */
#ifndef PERFOPT_LOOKUP_H
#define PERFOPT_LOOKUP_H

extern void perfopt_lookup_init(void);

#endif							/* PERFOPT_LOOKUP_H */
