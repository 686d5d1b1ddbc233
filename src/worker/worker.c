/*
 * worker.c
 *		What the worker capability sets up when the library is preloaded.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "worker/worker_internal.h"

void
perfopt_worker_init(void)
{
	worker_registry_init();		/* the databases and their workers */
	worker_pool_init();			/* jobs */
	worker_database_commands_init();	/* making way for DROP DATABASE and such */

#ifdef PERFOPT_STOP_POINTS
	worker_testing_init();
#endif

	/* pg_upgrade's servers are to be left alone */
	if (!IsBinaryUpgrade)
		worker_launcher_register();
}
