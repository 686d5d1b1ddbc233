/*
 * lookup.c
 *		Look-ups: a table of contents.
 */
#include "postgres.h"

#include "lookup/lookup.h"

void
perfopt_lookup_init(void)
{
	/*
	 * fetch.c, aggregates.c and children.c are functions that need neither
	 * shared memory nor hooks, so that they work where perfopt is not
	 * preloaded.
	 */
}
