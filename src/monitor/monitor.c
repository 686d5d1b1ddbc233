/*
 * monitor.c
 *		Latency by (database, role, query): where the parts are put together.
 *
 * hooks.c measures statements, latency_table.c keeps what was measured in
 * shared memory, latency_view.c and histogram_sql.c show it in SQL, and
 * sampling.c writes what is new to perfopt.latency_history.
 */
#include "postgres.h"

#include "monitor/monitor.h"

#include "common/compat.h"
#include "miscadmin.h"
#include "monitor/monitor_internal.h"

/*
 * Hooks call each other in the reverse order of loading.  pg_stat_statements
 * wipes out the identifiers of utility commands before it calls those that
 * were loaded before it.
 */
static void
check_preload_order(void)
{
	const char *list = shared_preload_libraries_string;
	const char *self = list ? strstr(list, "perfopt") : NULL;

	if (self && strstr(self, "pg_stat_statements"))
		ereport(LOG,
				(errmsg("perfopt is loaded before pg_stat_statements"),
				 errdetail("Utility commands cannot be told apart: their latencies are all counted under query identifier 0."),
				 errhint("Set \"shared_preload_libraries = 'pg_stat_statements, perfopt'\".")));
}

void
perfopt_monitor_init(void)
{
	check_preload_order();
	EnableQueryId();
	perfopt_latency_table_init();
	perfopt_hooks_init();
	perfopt_sampling_init();
}
