/*
 * cache.h
 *		Results kept in shared memory, exact under the reader's snapshot.
 */
#ifndef PERFOPT_CACHE_H
#define PERFOPT_CACHE_H

extern void perfopt_cache_init(void);

#endif							/* PERFOPT_CACHE_H */
