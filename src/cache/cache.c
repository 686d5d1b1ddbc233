/*
 * cache.c
 *		The result cache: a table of contents.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

void
perfopt_cache_init(void)
{
	cache_definitions_init();	/* before the others: its callback at commit
								 * runs after theirs */
	cache_kept_plans_init();
	cache_rings_init();
	cache_stats_init();
	cache_store_init();
	cache_dependencies_init();
	cache_refresh_init();
	cache_key_value_init();
	cache_write_behind_init();
}
