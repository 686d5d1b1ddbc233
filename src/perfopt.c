/*
 * perfopt.c
 *		The library's entry: a table of contents of perfopt.
 *
 * Loaded by shared_preload_libraries, everything is there.  Loaded on demand
 * (CREATE EXTENSION without the setting, or a function call), only settings
 * and what needs neither shared memory nor workers is.
 */
#include "postgres.h"

#include "advisor/advisor.h"
#include "batch/batch.h"
#include "cache/cache.h"
#include "common/settings.h"
#include "common/shmem.h"
#include "common/stop_points.h"
#include "fmgr.h"
#include "lookup/lookup.h"
#include "miscadmin.h"
#include "monitor/monitor.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	perfopt_settings_define();

	if (!process_shared_preload_libraries_in_progress)
		return;

#ifdef PERFOPT_STOP_POINTS
	perfopt_stop_points_init();
#endif
	perfopt_worker_init();		/* launcher, a worker a database, job pool */
	perfopt_monitor_init();		/* latency by query, history */
	perfopt_advisor_init();		/* plan samples, index advice */
	perfopt_cache_init();		/* results kept in shared memory */
	perfopt_batch_init();		/* batched and buffered inserts, chunked work */
	perfopt_lookup_init();		/* look-ups without N+1, finding N+1 */

	perfopt_shmem_install();
}
