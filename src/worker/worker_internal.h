/*
 * worker_internal.h
 *		What the files of src/worker share with each other and with nobody
 *		else: the registry of database workers, and the pool's shared memory.
 *
 * README.md has the state machines and the order of locks.
 */
#ifndef PERFOPT_WORKER_INTERNAL_H
#define PERFOPT_WORKER_INTERNAL_H

#include "postgres.h"

#include <sys/resource.h>
#include <time.h>

#include "common/settings.h"
#include "common/shmem.h"
#include "datatype/timestamp.h"
#include "postmaster/bgworker.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "worker/worker.h"

#define WORKER_MAX_DUTIES		16
#define WORKER_ERROR_LEN		256

/* A worker that ended is started again after this, doubled while it fails. */
#define WORKER_RESTART_MS		5000
#define WORKER_RESTART_MAX_MS	60000

/* ---- worker.c ---- */

extern void worker_between_rounds(void);

/* ---- registry.c: which databases have a worker, and how it is ---- */

typedef enum DatabaseState
{
	DATABASE_UNUSED,
	DATABASE_WANTED,			/* no process: to be started at retry_at */
	DATABASE_ABSENT,			/* no process: it found no extension */
	/* from here on there is a process, or there is about to be one: */
	DATABASE_STARTING,			/* asked of the postmaster */
	DATABASE_PROBING,			/* looks whether the extension is there */
	DATABASE_SLEEPING,			/* waits for the next duty */
	DATABASE_RUNNING,			/* runs a duty */
	DATABASE_STOPPING			/* on its way out */
} DatabaseState;

#define DATABASE_HAS_PROCESS(state)	((state) >= DATABASE_STARTING)

/* Requests for a duty, numbered; see perfopt_duty_run_now(). */
typedef struct DutyRequests
{
	uint32		requested;		/* number of the newest request */
	uint32		done;			/* number of the newest request served */
	int			sqlerrcode;		/* how that ended, 0 is well */
	char		message[WORKER_ERROR_LEN];
} DutyRequests;

/* What perfopt.workers shows of a process that has ticks. */
typedef struct WorkerStats
{
	TimestampTz started_at;
	TimestampTz last_tick;
	int64		ticks;
	int64		errors;
	double		cpu_ms;
	char		last_error[WORKER_ERROR_LEN];
	TimestampTz last_error_at;
} WorkerStats;

typedef struct DatabaseEntry
{
	Oid			dboid;
	DatabaseState state;
	uint64		ticket;			/* of the start that may attach here */
	bool		known;			/* the extension has been seen there */
	bool		probe_again;	/* asked for while it was being probed */
	int			pid;			/* 0: not attached */
	Latch	   *latch;
	int64		retry_at;		/* by worker_clock_ms() */
	int			failures;		/* starts in a row that came to nothing */
	int			running_duty;	/* while RUNNING */
	WorkerStats stats;
	DutyRequests duties[WORKER_MAX_DUTIES];
} DatabaseEntry;

/*
 * A command on a database that must not meet our processes in it.  A backend
 * has one at most, and there is room for one of every backend.
 */
typedef struct DatabaseHold
{
	Oid			dboid;			/* InvalidOid: unused */
	int			holder;			/* pid of the backend that runs it */
} DatabaseHold;

typedef struct Registry
{
	LWLock	   *lock;			/* guards everything below */
	ConditionVariable changed;	/* broadcast when a process or run ends */

	uint64		last_ticket;
	bool		scan_wanted;	/* the launcher shall look at pg_database */
	bool		probe_all;		/* and not rely on what it knows of them */
	int			launcher_pid;
	Latch	   *launcher_latch;
	WorkerStats launcher;
	int			num_holds;
	DatabaseHold *holds;		/* behind the databases */
	int			num_databases;
	DatabaseEntry databases[FLEXIBLE_ARRAY_MEMBER];
} Registry;

extern Registry *worker_registry;

extern void worker_registry_init(void);
extern DatabaseEntry *worker_find_database(Oid dboid);
extern DatabaseEntry *worker_add_database(Oid dboid);
extern bool worker_database_held(Oid dboid);
extern void worker_wake_launcher(void);
extern void worker_wake_launcher_locked(void);
extern void worker_copy_message(char *to, size_t size, const char *message);
extern void worker_stats_error(WorkerStats *stats, const char *message);

/* ---- launcher.c ---- */

extern void worker_launcher_register(void);
extern BackgroundWorkerHandle *worker_start_process(const char *type,
													const char *function,
													Datum arg,
													const void *extra,
													Size extra_size);

/* ---- duty.c ---- */

extern int	worker_num_duties(void);
extern const PerfoptDuty *worker_duty(int i);
extern void worker_duties_start(void);
extern int64 worker_duties_next(int64 far);
extern bool worker_duties_run_due(void);
extern int	worker_find_duty(const char *name);
extern void worker_duty_wake(Oid database, const char *name);	/* "": none */

/* ---- database_worker.c ---- */

/* In a database worker: its entry; NULL in other processes. */
extern DatabaseEntry *worker_my_entry;

extern bool worker_extension_exists(Oid *owner);
extern void worker_set_state(DatabaseState state, int duty);

/* ---- database_commands.c ---- */

extern void worker_database_commands_init(void);

/* ---- fatal.c ---- */

/*
 * The last words of a process of ours: what ends it cannot be caught, but the
 * message passes by on its way to the log.
 */
typedef struct WorkerLastWords
{
	int			sqlerrcode;		/* 0: none */
	char		message[PERFOPT_JOB_MESSAGE_MAX];
} WorkerLastWords;

extern WorkerLastWords worker_last_words;
extern void worker_keep_last_words(void);

/* ---- pool.c: jobs and the slots they sit in ---- */

#define JOB_SETTINGS_MAX 1024

typedef struct JobSlot
{
	PerfoptJobState state;		/* NONE: the slot is free */
	uint64		generation;		/* which job: numbered in order of submission */
	uint64		ticket;			/* of the start that may attach here */
	int			pid;			/* of the attached process, else 0 */
	bool		cancel_requested;
	bool		stopped_by_hold;	/* for a command on its database */
	bool		released;		/* nobody wants to know the outcome */

	int			submitter;		/* pid */
	uint64		submitter_xact; /* which of its transactions */
	bool		cancel_with_submitter;
	bool		fair_to_roles;

	char		capability[NAMEDATALEN];
	char		entry[NAMEDATALEN]; /* empty: a statement */
	char		then_duty[NAMEDATALEN]; /* empty: none */
	Oid			database;
	Oid			role;
	int			timeout_ms;
	TimestampTz submitted_at;
	TimestampTz started_at;
	double		cpu_ms;			/* known when it has ended */
	PerfoptJobOutcome outcome;
	char		settings[JOB_SETTINGS_MAX];
	char		payload[PERFOPT_JOB_PAYLOAD_MAX];
} JobSlot;

typedef struct Pool
{
	LWLock	   *lock;			/* guards everything below */
	ConditionVariable changed;	/* broadcast when a job's state changes */
	uint64		last_generation;
	uint64		last_ticket;
	int			num_slots;
	JobSlot		slots[FLEXIBLE_ARRAY_MEMBER];
} Pool;

extern Pool *worker_pool;

extern void worker_pool_init(void);
extern void worker_job_end(JobSlot *slot, PerfoptJobState state,
						   int sqlerrcode, const char *message);
extern void worker_pool_launcher_start(void);
extern void worker_pool_reap(void);
extern int64 worker_pool_dispatch(int64 now);
extern void worker_pool_stop_database(Oid dboid);
extern bool worker_pool_in_database(Oid dboid);

/* ---- pool_worker.c ---- */

/* The entry of that name, or NULL. */
extern PerfoptJobEntry worker_job_entry(const char *name);

/* ---- testing.c ---- */

#ifdef PERFOPT_STOP_POINTS
extern void worker_testing_init(void);
#endif

/* ---- small things ---- */

/* Milliseconds of a clock nobody sets, comparable between processes. */
static inline int64
worker_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* CPU time of this process. */
static inline double
worker_cpu_ms(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000.0 +
		(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000.0;
}

#endif							/* PERFOPT_WORKER_INTERNAL_H */
