/*
 * lookup.c
 *		Look-ups: puts its parts to work.
 */
#include "postgres.h"

#include "lookup/lookup.h"

#include "lookup/n_plus_one_internal.h"

void
perfopt_lookup_init(void)
{
	/*
	 * fetch.c, aggregates.c and children.c are functions that need neither
	 * shared memory nor hooks, so that they work where perfopt is not
	 * preloaded.
	 */
	perfopt_n_plus_one_init();
}
