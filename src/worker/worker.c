/*
 * worker.c
 *		What the worker capability sets up when the library is preloaded, and
 *		what its long-lived processes do between two rounds of work.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/sinval.h"
#include "utils/guc.h"
#include "worker/worker_internal.h"

void
perfopt_worker_init(void)
{
	worker_registry_init();		/* the databases and their workers */
	worker_pool_init();			/* jobs */
	worker_database_commands_init();	/* making way for DROP DATABASE and
										 * such */

#ifdef PERFOPT_STOP_POINTS
	worker_testing_init();
#endif

	/* pg_upgrade's servers are to be left alone */
	if (!IsBinaryUpgrade)
		worker_launcher_register();
}

/*
 * Attend to what came while waiting.  A cancel came too late for what it was
 * meant for: there is nothing to cancel now.
 */
void
worker_between_rounds(void)
{
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (catchupInterruptPending)
		ProcessCatchupInterrupt();
}
