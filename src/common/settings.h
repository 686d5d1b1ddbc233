/*
 * settings.h
 *		Every perfopt.* setting, in one place.  See settings.c for meaning,
 *		unit and bounds.
 */
#ifndef PERFOPT_SETTINGS_H
#define PERFOPT_SETTINGS_H

#include "postgres.h"

typedef enum PerfoptTrack
{
	PERFOPT_TRACK_NONE,
	PERFOPT_TRACK_TOP,
	PERFOPT_TRACK_ALL
} PerfoptTrack;

/* monitor */
extern int	perfopt_track;
extern bool perfopt_track_utility;
extern int	perfopt_max_queries;
extern int	perfopt_sample_interval;	/* ms */
extern int	perfopt_history_retention;	/* s */
extern int	perfopt_history_max_rows;

/* worker */
extern bool perfopt_worker_enabled;
extern double perfopt_worker_cpu_share;
extern int	perfopt_max_databases;
extern int	perfopt_max_workers;
extern int	perfopt_max_jobs;

/* advisor */
extern bool perfopt_advisor_enabled;
extern int	perfopt_advice_interval;	/* ms */
extern int	perfopt_max_plan_samples;
extern double perfopt_advice_min_share;
extern double perfopt_advice_min_speedup;
extern int	perfopt_survey_interval;
extern int	perfopt_unused_index_time;
extern int	perfopt_advice_storage_budget;
extern int	perfopt_advice_time_budget;
extern char *perfopt_advice_role;
extern int	perfopt_apply_attempts;
extern int	perfopt_verify_window;	/* s */
extern bool perfopt_auto_apply;
extern double perfopt_auto_apply_min_gain;
extern int	perfopt_auto_apply_max_size;	/* MB */
extern char *perfopt_auto_apply_hours;

/* Minutes since midnight of a setting such as 22:00-05:30; false: it is none. */
extern bool perfopt_parse_hours(const char *hours, int *from, int *to);

/* cache */
extern bool perfopt_cache_enabled;
extern int	perfopt_cache_size; /* kB */
extern int	perfopt_cache_local_size;	/* kB */
extern int	perfopt_cache_max_entry_size;	/* kB */
extern char *perfopt_cache_opaque_functions;
extern int	perfopt_cache_write_interval;	/* ms */
extern int	perfopt_cache_job_timeout;	/* ms */
extern double perfopt_memoize_ttl;	/* s; read from the function's own
									 * settings */

/* batch */
extern int	perfopt_batch_size;
extern int	perfopt_batch_max_wait; /* ms */
extern int	perfopt_buffer_size;	/* kB */
extern int	perfopt_buffer_timeout; /* ms */
extern int	perfopt_batch_job_interval; /* ms */

/* lookup */
extern bool perfopt_detect_n_plus_one;
extern int	perfopt_n_plus_one_min_runs;
extern int	perfopt_n_plus_one_max_gap; /* ms */
extern int	perfopt_n_plus_one_max;
extern int	perfopt_n_plus_one_interval;	/* ms */
extern int	perfopt_n_plus_one_min_lost;	/* ms */

/*
 * Statements that perfopt itself runs again and again are nobody's loop: between
 * these two they are not looked at as such.  An error does what leave does.
 */
extern int	perfopt_own_loop_enter(void);
extern void perfopt_own_loop_leave(int level);

extern void perfopt_settings_define(void);

#endif							/* PERFOPT_SETTINGS_H */
