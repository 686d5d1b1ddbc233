/*
 * settings.c
 *		Every perfopt.* setting: name, unit, default, bounds, and who may set
 *		it.  Capabilities read the variables and define none of their own, so
 *		that a DBA finds them all here.  A default stands at its variable alone.
 */
#include "postgres.h"

#include "common/settings.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

int			perfopt_track = PERFOPT_TRACK_TOP;
bool		perfopt_track_utility = true;
int			perfopt_max_queries = 5000;
int			perfopt_sample_interval = 10 * 1000;
int			perfopt_history_retention = 7 * 24 * 3600;
int			perfopt_history_max_rows = 1000000;

bool		perfopt_worker_enabled = true;
double		perfopt_worker_cpu_share = 0.2;
int			perfopt_max_databases = 64;
int			perfopt_max_workers = 4;
int			perfopt_max_jobs = 64;

bool		perfopt_advisor_enabled = true;
int			perfopt_advice_interval = 60 * 1000;
int			perfopt_max_plan_samples = 1000;
double		perfopt_advice_min_share = 0.01;
double		perfopt_advice_min_speedup = 2.0;
int			perfopt_survey_interval = 3600 * 1000;
int			perfopt_unused_index_time = 32 * 24 * 3600;
int			perfopt_advice_storage_budget = 0;
int			perfopt_advice_time_budget = 5 * 1000;
char	   *perfopt_advice_role = NULL;
int			perfopt_apply_attempts = 3;
int			perfopt_verify_window = 3600;
bool		perfopt_auto_apply = false;
double		perfopt_auto_apply_min_gain = 0.05;
int			perfopt_auto_apply_max_size = 1024;
char	   *perfopt_auto_apply_hours = NULL;

bool		perfopt_cache_enabled = true;
int			perfopt_cache_size = 64 * 1024;
int			perfopt_cache_local_size = 1024;
int			perfopt_cache_max_entry_size = 4 * 1024;
char	   *perfopt_cache_opaque_functions = NULL;
int			perfopt_cache_write_interval = 10 * 1000;
int			perfopt_cache_job_timeout = 60 * 1000;
double		perfopt_memoize_ttl = 3600.0;

/* batch */
int			perfopt_batch_size = 100;
int			perfopt_batch_max_wait = 1000;
int			perfopt_buffer_size = 16 * 1024;
int			perfopt_buffer_timeout = 10 * 1000;
int			perfopt_batch_job_interval = 10 * 1000;

/* lookup */
bool		perfopt_detect_n_plus_one = true;
int			perfopt_n_plus_one_min_runs = 10;
int			perfopt_n_plus_one_max_gap = 500;
int			perfopt_n_plus_one_max = 500;
int			perfopt_n_plus_one_interval = 60 * 1000;
int			perfopt_n_plus_one_min_lost = 1000;

static const struct config_enum_entry track_options[] =
{
	{"none", PERFOPT_TRACK_NONE, false},
	{"top", PERFOPT_TRACK_TOP, false},
	{"all", PERFOPT_TRACK_ALL, false},
	{NULL, 0, false}
};

/*
 * Context of what sizes shared memory.  A library that is loaded later may not
 * define PGC_POSTMASTER settings, and then nothing reads these.
 */
static GucContext
at_start(void)
{
	return process_shared_preload_libraries_in_progress ?
		PGC_POSTMASTER : PGC_SIGHUP;
}

static void
define_monitor_settings(void)
{
	DefineCustomEnumVariable("perfopt.track",
							 "Selects which statements are measured.",
							 "\"top\" measures statements sent by clients, \"all\" also those inside functions.",
							 &perfopt_track, perfopt_track, track_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("perfopt.track_utility",
							 "Measures utility statements too.",
							 NULL,
							 &perfopt_track_utility, perfopt_track_utility,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.max_queries",
							"Distinct (database, role, query) latency rows kept in shared memory.",
							"When they are used up, the rows idle longest are folded into the row of other queries.",
							&perfopt_max_queries, perfopt_max_queries, 100, INT_MAX / 8192,
							at_start(), 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.sample_interval",
							"Time between two samples written to perfopt.latency_history.",
							"Zero turns sampling off.",
							&perfopt_sample_interval, perfopt_sample_interval, 0, 24 * 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.history_retention",
							"Time samples are kept in perfopt.latency_history.",
							NULL,
							&perfopt_history_retention, perfopt_history_retention, 60, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.history_max_rows",
							"Rows kept in perfopt.latency_history at most.",
							NULL,
							&perfopt_history_max_rows, perfopt_history_max_rows, 1000, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
}

static void
define_worker_settings(void)
{
	DefineCustomBoolVariable("perfopt.worker",
							 "Runs the background workers.",
							 NULL,
							 &perfopt_worker_enabled, perfopt_worker_enabled,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomRealVariable("perfopt.worker_cpu_share",
							 "Share of a processor that a look for advice takes for longer than a moment.",
							 NULL,
							 &perfopt_worker_cpu_share, perfopt_worker_cpu_share, 0.05, 1.0,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.max_databases",
							"Databases that can have a perfopt worker at the same time.",
							NULL,
							&perfopt_max_databases, perfopt_max_databases, 1, 10000,
							at_start(), 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.max_workers",
							"Background workers for jobs, such as building an index, running at the same time.",
							"They are taken from \"max_worker_processes\".",
							&perfopt_max_workers, perfopt_max_workers, 1, 1024,
							at_start(), 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.max_jobs",
							"Jobs waiting or running in the pool of workers at the same time.",
							NULL,
							&perfopt_max_jobs, perfopt_max_jobs, 1, 10000,
							at_start(), 0, NULL, NULL, NULL);
}

bool
perfopt_parse_hours(const char *hours, int *from, int *to)
{
	int			h1,
				m1,
				h2,
				m2;
	char		rest;

	if (sscanf(hours, "%2d:%2d-%2d:%2d%c", &h1, &m1, &h2, &m2, &rest) != 4 ||
		h1 < 0 || h1 > 24 || h2 < 0 || h2 > 24 || m1 < 0 || m1 > 59 || m2 < 0 || m2 > 59 ||
		(h1 == h2 && m1 == m2)) /* all day, or never? */
		return false;
	*from = h1 * 60 + m1;
	*to = h2 * 60 + m2;
	return true;
}

static bool
check_hours(char **value, void **extra, GucSource source)
{
	int			from,
				to;

	if (**value == '\0' || perfopt_parse_hours(*value, &from, &to))
		return true;
	GUC_check_errdetail("Give two different times of day in hours and minutes, such as 22:00-05:30.");
	return false;
}

static void
define_advisor_settings(void)
{
	DefineCustomBoolVariable("perfopt.advisor",
							 "Samples planned statements and advises indexes.",
							 NULL,
							 &perfopt_advisor_enabled, perfopt_advisor_enabled,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.advice_interval",
							"Time between two rounds of the index advisor.",
							"Zero turns rounds off; perfopt.analyze_now() still does one.",
							&perfopt_advice_interval, perfopt_advice_interval, 0, 24 * 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.max_plan_samples",
							"Statements with their parameter values kept in shared memory for the advisor.",
							NULL,
							&perfopt_max_plan_samples, perfopt_max_plan_samples, 10, INT_MAX / 65536,
							at_start(), 0, NULL, NULL, NULL);
	DefineCustomRealVariable("perfopt.advice_min_share",
							 "Share of the database's statement time an index must save to be advised.",
							 NULL,
							 &perfopt_advice_min_share, perfopt_advice_min_share, 0.0, 1.0,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomRealVariable("perfopt.advice_min_speedup",
							 "Factor by which an index must lower the cost of at least one statement to be advised.",
							 NULL,
							 &perfopt_advice_min_speedup, perfopt_advice_min_speedup, 1.0, 1e6,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.survey_interval",
							"Time between two looks through catalogs and statistics for advice.",
							"Zero turns them off; perfopt.survey_now() still does one.",
							&perfopt_survey_interval, perfopt_survey_interval, 0, 24 * 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.unused_index_time",
							"Time that an index must not have been used before dropping it is advised.",
							"Longer than a month by default, so that what runs once a month is seen.",
							&perfopt_unused_index_time, perfopt_unused_index_time, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.advice_storage_budget",
							"Disk space that all indexes advised may take, in each database.",
							"Those built already count. Zero stands for half of the database's size, or 1 GB if that is more; -1 turns the limit off.",
							&perfopt_advice_storage_budget, perfopt_advice_storage_budget, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	/* with rests, a round stays below the minute of a duty's transaction */
	DefineCustomIntVariable("perfopt.advice_time_budget",
							"Time that a round of the index advisor plans statements.",
							"Rests are not counted.",
							&perfopt_advice_time_budget, perfopt_advice_time_budget, 100, 25 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("perfopt.advice_role",
							   "Role whose members may have advice for any table applied, reverted or dismissed.",
							   "Besides the tables' owners and superusers.",
							   &perfopt_advice_role, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.apply_attempts",
							"Times that applying an advice is tried when a lock can't be had.",
							NULL,
							&perfopt_apply_attempts, perfopt_apply_attempts, 1, 100,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.verify_window",
							"Length of the windows whose latencies are compared before and after an advice is applied.",
							"Zero turns that off.",
							&perfopt_verify_window, perfopt_verify_window, 0, 7 * 24 * 3600,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomBoolVariable("perfopt.auto_apply",
							 "Applies advice for new indexes by itself, and reverts what has done harm.",
							 NULL,
							 &perfopt_auto_apply, perfopt_auto_apply,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomRealVariable("perfopt.auto_apply_min_gain",
							 "Share of the statement time that an index must be predicted to save to be applied automatically.",
							 NULL,
							 &perfopt_auto_apply_min_gain, perfopt_auto_apply_min_gain, 0.0, 1.0,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.auto_apply_max_size",
							"Size that an index applied automatically may be expected to have.",
							NULL,
							&perfopt_auto_apply_max_size, perfopt_auto_apply_max_size, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomStringVariable("perfopt.auto_apply_hours",
							   "Time of day, such as 22:00-05:30, in which advice is applied automatically.",
							   "In the server's time zone; empty means always.",
							   &perfopt_auto_apply_hours, "",
							   PGC_SIGHUP, 0, check_hours, NULL, NULL);
}

static void
define_cache_settings(void)
{
	DefineCustomBoolVariable("perfopt.cache",
							 "Answers from the result cache, and fills it.",
							 "When off, everything is computed.",
							 &perfopt_cache_enabled, perfopt_cache_enabled,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.cache_size",
							"Shared memory for cached results.",
							NULL,
							&perfopt_cache_size, perfopt_cache_size, 1024, INT_MAX / 2,
							at_start(), GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.cache_local_size",
							"Memory of each session for copies of cached results.",
							"Zero turns this level off.",
							&perfopt_cache_local_size, perfopt_cache_local_size, 0, 1024 * 1024,
							PGC_USERSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.cache_max_entry_size",
							"Largest result that is cached.",
							"It is also bounded by an eighth of \"perfopt.cache_size\".",
							&perfopt_cache_max_entry_size, perfopt_cache_max_entry_size, 1, 1024 * 1024,
							PGC_USERSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomStringVariable("perfopt.cache_opaque_functions",
							   "Functions that cached queries may call although what they depend on cannot be seen.",
							   "Names separated by commas. Results that call one are only as fresh as their time to live, except for the tables that are seen to be read.",
							   &perfopt_cache_opaque_functions, "",
							   PGC_USERSET, GUC_LIST_INPUT, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.cache_write_interval",
							"Time between two looks for statements of perfopt.cache_write_behind() to be run.",
							"A commit that queues one has the worker look at once; this is for those that failed. Zero turns it off.",
							&perfopt_cache_write_interval, perfopt_cache_write_interval, 0, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.cache_job_timeout",
							"Time that a statement of perfopt.cache_write_behind(), or a refresh of a cached result in the background, may take.",
							"Zero turns the limit off.",
							&perfopt_cache_job_timeout, perfopt_cache_job_timeout, 0, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomRealVariable("perfopt.memoize_ttl",
							 "How long results of a memoized function are kept.",
							 "It has a meaning only as a setting of that function, made by perfopt.memoize() or ALTER FUNCTION ... SET.",
							 &perfopt_memoize_ttl, perfopt_memoize_ttl, 0.001, 1e9,
							 PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
}

static void
define_batch_settings(void)
{
	DefineCustomIntVariable("perfopt.batch_size",
							"Buffered rows of a role for a table that are inserted without waiting for more.",
							"At most 1,000 are inserted by one statement.",
							&perfopt_batch_size, perfopt_batch_size, 1, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.batch_max_wait",
							"Time after which buffered rows are inserted also when there are few.",
							"Rows that a session waits for do not wait for others.",
							&perfopt_batch_max_wait, perfopt_batch_max_wait, 1, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.buffer_size",
							"Shared memory for rows that are to be inserted.",
							"One role can have half of it.",
							&perfopt_buffer_size, perfopt_buffer_size, 256, 16 * 1024 * 1024,
							at_start(), GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.buffer_timeout",
							"Time to wait for a place in the insert buffer, or for a process that inserts the row.",
							NULL,
							&perfopt_buffer_timeout, perfopt_buffer_timeout, 0, 3600 * 1000,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.batch_job_interval",
							"Time between two looks for jobs of perfopt.run_in_batches() that lack background workers.",
							"A commit that begins or resumes one has the worker look at once; this is for those whose session or workers have died. Zero turns it off.",
							&perfopt_batch_job_interval, perfopt_batch_job_interval, 0, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

static void
define_lookup_settings(void)
{
	DefineCustomBoolVariable("perfopt.detect_n_plus_one",
							 "Finds statements that are run again and again where one would do.",
							 NULL,
							 &perfopt_detect_n_plus_one, perfopt_detect_n_plus_one,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.n_plus_one_min_runs",
							"Runs of a statement from which on they are a loop.",
							"Also the rows a statement must return to be the source of one.",
							&perfopt_n_plus_one_min_runs, perfopt_n_plus_one_min_runs, 3, 1000000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.n_plus_one_max_gap",
							"Time without a statement that ends loops outside of transaction blocks.",
							"Also the time that one run can add to the time lost.",
							&perfopt_n_plus_one_max_gap, perfopt_n_plus_one_max_gap, 1, 3600 * 1000,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.n_plus_one_max",
							"Loops kept in shared memory.",
							"When they are used up, the one seen longest ago makes room.",
							&perfopt_n_plus_one_max, perfopt_n_plus_one_max, 10, 10000,
							at_start(), 0, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.n_plus_one_interval",
							"Time between two looks at perfopt.n_plus_one for advice.",
							"Zero turns them off.",
							&perfopt_n_plus_one_interval, perfopt_n_plus_one_interval, 0, 24 * 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("perfopt.n_plus_one_min_lost",
							"Time that loops of a kind must have lost to become advice.",
							NULL,
							&perfopt_n_plus_one_min_lost, perfopt_n_plus_one_min_lost, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

void
perfopt_settings_define(void)
{
	define_monitor_settings();
	define_worker_settings();
	define_advisor_settings();
	define_cache_settings();
	define_batch_settings();
	define_lookup_settings();
	MarkGUCPrefixReserved("perfopt");
}

int
perfopt_own_loop_enter(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("perfopt.detect_n_plus_one", "off", PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

void
perfopt_own_loop_leave(int level)
{
	AtEOXact_GUC(true, level);
}
