/*
 * worker.h
 *		Background work, as capabilities use it: duties that run by themselves
 *		in the worker of a database, and jobs that run in a pool.
 *
 * src/worker/README.md has the state machines.
 */
#ifndef PERFOPT_WORKER_H
#define PERFOPT_WORKER_H

#include "postgres.h"

#include "utils/guc.h"

extern void perfopt_worker_init(void);

/*
 * Duties
 *
 * A duty is what a capability wants done again and again in every database
 * that has the extension.  run() is called inside a transaction with an active
 * snapshot, in a memory context that is reset afterwards, as the owner of the
 * extension, with search_path locked to pg_catalog, pg_temp.  It may call
 * perfopt_duty_next_transaction() to commit what it has and go on in a new
 * transaction.  An error ends this run only: it is recorded in
 * perfopt.workers, and the duty is due again after its interval.  The
 * transaction has a lock_timeout of 1 s and may take 60 s; it does not wait
 * for its WAL to be flushed (synchronous_commit = off).  In the worker
 * perfopt.track is none.
 */
typedef struct PerfoptDuty
{
	const char *name;			/* shown to users, at most NAMEDATALEN - 1 */
	const int  *interval_ms;	/* the setting; 0 means only when asked for */
	bool		writes;			/* left out on a read-only server or standby */
	bool		brief;			/* also run while another one rests */
	void		(*run) (void);
} PerfoptDuty;

/* Call from the capability's init; the struct is kept by reference. */
extern void perfopt_duty_register(const PerfoptDuty *duty);

/*
 * Inside run(), also while the process ends: has somebody told the worker to go
 * (SIGTERM)?
 */
extern bool perfopt_worker_told_to_go(void);

/*
 * Inside run(), again and again, with nothing open or locked: a run that takes long
 * rests here, so that it takes no more than perfopt.worker_cpu_share of a processor,
 * and goes on in a new transaction now and then, so that it holds no old snapshot.
 * Brief duties that are due are run meanwhile.
 * Returns for how many milliseconds it has worked so far.
 */
extern double perfopt_duty_rest(void);

/* Inside run(): commit, then go on in a new transaction. */
extern void perfopt_duty_next_transaction(void);

/*
 * In a backend: have the worker of this database run the duty now, and wait
 * until that run is over.  Raises an error when there is no worker, when the
 * run failed (with its message), or after timeout_ms.
 */
extern void perfopt_duty_run_now(const char *name, int timeout_ms);

/*
 * In a backend: when this transaction commits, have the worker of this
 * database run the duty soon.  Does nothing without a worker.
 */
extern void perfopt_duty_wake_at_commit(const char *name);

/*
 * Jobs
 *
 * A job is one piece of work in a process of its own: a statement, or a C
 * entry registered by a capability.  It runs in the database and as the role
 * given, as if that role had logged in.
 */
#define PERFOPT_JOB_PAYLOAD_MAX 8192
#define PERFOPT_JOB_MESSAGE_MAX 512

typedef enum PerfoptJobState
{
	PERFOPT_JOB_NONE,			/* no such job, or released */
	PERFOPT_JOB_QUEUED,
	PERFOPT_JOB_STARTING,
	PERFOPT_JOB_RUNNING,
	/* ended: */
	PERFOPT_JOB_DONE,
	PERFOPT_JOB_FAILED,			/* outcome has SQLSTATE and message */
	PERFOPT_JOB_CANCELLED,
	PERFOPT_JOB_LOST			/* its process ended without an outcome */
} PerfoptJobState;

#define PERFOPT_JOB_ENDED(state)	((state) >= PERFOPT_JOB_DONE)

typedef struct PerfoptJobOutcome
{
	PerfoptJobState state;
	int			sqlerrcode;		/* of FAILED */
	uint64		rows;			/* processed by the statement */
	char		message[PERFOPT_JOB_MESSAGE_MAX];
} PerfoptJobOutcome;

typedef struct PerfoptJobSpec
{
	const char *capability;		/* for fairness, and shown to users */
	const char *entry;			/* a registered C entry, or NULL: a statement */
	const char *payload;		/* the statement, or the entry's argument */
	Oid			database;
	Oid			role;
	const char *settings;		/* "name=value\n..." set before, or NULL */
	int			timeout_ms;		/* see perfopt_job_limit() */
	bool		fair_to_roles;	/* of such jobs, one role has at most half the
								 * workers, and half the queue, at a time */
	const char *then_duty;		/* run in the database once the job has ended,
								 * or NULL */
	bool		cancel_with_submitter;	/* cancel when the submitter's process
										 * ends or its transaction aborts */
} PerfoptJobSpec;

typedef struct PerfoptJob
{
	int			slot;
	uint64		generation;
} PerfoptJob;

/*
 * Queue a job; it starts at once, not at the submitter's commit.  Whether the
 * submitter may act as the role is for the capability to check.  When the
 * submitting transaction aborts the job is released, and cancelled before if
 * it is cancel_with_submitter.
 *
 * Raises CONFIGURATION_LIMIT_EXCEEDED when the queue, or the role's half of it,
 * is full, and
 * INVALID_AUTHORIZATION_SPECIFICATION for a role without LOGIN before
 * PostgreSQL 17, whose workers cannot connect as such a role.
 */
extern PerfoptJob perfopt_job_submit(const PerfoptJobSpec *spec);

/*
 * The same in a transaction that is to go on: returns the error, or NULL when
 * *job is set.
 */
extern ErrorData *perfopt_job_try_submit(const PerfoptJobSpec *spec, PerfoptJob *job);

/*
 * Can jobs run as the role?  Not, before PostgreSQL 17, as one without LOGIN.
 */
extern bool perfopt_job_role_can_log_in(Oid role);

/* What has become of it; outcome may be NULL. */
extern PerfoptJobState perfopt_job_poll(PerfoptJob job, PerfoptJobOutcome *outcome);

/*
 * Wait for its end, at most timeout_ms (-1: for ever).  A job that has ended
 * has no process any more: its locks and its connection are gone.
 *
 * What the job waits for must not be held by the caller: neither locks, nor,
 * for CREATE INDEX CONCURRENTLY, a snapshot.  The deadlock detector does not
 * see this wait.
 */
extern PerfoptJobState perfopt_job_wait(PerfoptJob job, long timeout_ms,
										PerfoptJobOutcome *outcome);

/* Ask for its end; the state tells when it has. */
extern void perfopt_job_cancel(PerfoptJob job);

/*
 * The submitter no longer wants to know: the slot is free as soon as the job
 * has ended.  Every submitted job must be released, or its submitter's exit
 * does it.
 */
extern void perfopt_job_release(PerfoptJob job);

/* Called in the job's process, outside of any transaction. */
typedef void (*PerfoptJobEntry) (const char *payload, PerfoptJobOutcome *outcome);

extern void perfopt_job_entry_register(const char *name, PerfoptJobEntry entry);

/*
 * For entries: run one statement (utility statements that refuse to run in a
 * transaction block included) in transactions of its own.  Returns the rows
 * processed; errors are thrown.
 */
extern uint64 perfopt_job_run_statement(const char *sql);

/*
 * For entries: what is done from now on may take so long in all; 0: as long as
 * it likes.  After that it is cancelled, by an error; where a function catches
 * that and goes on, the process ends, and the job has FAILED.
 */
extern void perfopt_job_limit(int timeout_ms);

/* For entries that could go on for long: do others wait for a process? */
extern bool perfopt_jobs_waiting(void);

#endif							/* PERFOPT_WORKER_H */
