/*
 * trigrams.h
 *		Indexes of trigrams where pg_trgm is not installed: trigrams.c.
 */
#ifndef PERFOPT_TRIGRAMS_H
#define PERFOPT_TRIGRAMS_H

#include "advisor/advisor_internal.h"

extern bool perfopt_trigrams_missing(void);
extern bool perfopt_trigram_operator(Oid opno);

/* Hashes of those of a text, each once, in their order; their number. */
extern int	perfopt_trigrams_of_text(Datum value, uint64 **hashes);

extern void perfopt_trigram_paths(PlannerInfo *root, RelOptInfo *rel);
extern void perfopt_trigram_cost(PlannerInfo *root, IndexPath * path, const IndexSize *size,
								 Cost *startup_cost, Cost *total_cost, Selectivity * selectivity,
								 double *pages);

#endif							/* PERFOPT_TRIGRAMS_H */
