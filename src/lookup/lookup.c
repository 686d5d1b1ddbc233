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
	perfopt_n_plus_one_init();
}
