/*
 * status.c
 *		What perfopt.workers and perfopt.jobs show.
 *
 * Everybody sees which processes there are, as in pg_stat_activity.  Messages,
 * and the roles of jobs, are shown to members of pg_read_all_stats and to
 * those who have the privileges of the job's role.
 *
 * Locking: rows are copied one at a time under the shared lock of their owner,
 * so a result is a series of true moments, not one.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "worker/worker_internal.h"

PG_FUNCTION_INFO_V1(perfopt_list_workers);
PG_FUNCTION_INFO_V1(perfopt_list_jobs);

static const char *const database_state_names[] = {
	[DATABASE_UNUSED] = "unused",
	[DATABASE_WANTED] = "waiting",
	[DATABASE_ABSENT] = "waiting",
	[DATABASE_STARTING] = "starting",
	[DATABASE_PROBING] = "probing",
	[DATABASE_SLEEPING] = "sleeping",
	[DATABASE_RUNNING] = "running",
	[DATABASE_STOPPING] = "stopping"
};

static const char *const job_state_names[] = {
	[PERFOPT_JOB_NONE] = "none",
	[PERFOPT_JOB_QUEUED] = "queued",
	[PERFOPT_JOB_STARTING] = "starting",
	[PERFOPT_JOB_RUNNING] = "running",
	[PERFOPT_JOB_DONE] = "done",
	[PERFOPT_JOB_FAILED] = "failed",
	[PERFOPT_JOB_CANCELLED] = "cancelled",
	[PERFOPT_JOB_LOST] = "lost"
};

#define MAX_COLUMNS 13

/* A row being put together. */
typedef struct Row
{
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];
	int			n;
} Row;

static void
add(Row *row, Datum value, bool is_null)
{
	row->values[row->n] = value;
	row->nulls[row->n++] = is_null;
}

static void
add_text(Row *row, const char *value)
{
	add(row, value ? CStringGetTextDatum(value) : (Datum) 0, value == NULL);
}

static void
add_time(Row *row, TimestampTz value)
{
	add(row, TimestampTzGetDatum(value), value == 0);
}

static void
add_oid(Row *row, Oid value)
{
	add(row, ObjectIdGetDatum(value), !OidIsValid(value));
}

static void
add_pid(Row *row, int value)
{
	add(row, Int32GetDatum(value), value == 0);
}

static bool
may_see(Oid role)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
		(OidIsValid(role) && has_privs_of_role(GetUserId(), role));
}

static void
put_row(FunctionCallInfo fcinfo, Row *row)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	tuplestore_putvalues(result->setResult, result->setDesc, row->values, row->nulls);
	row->n = 0;
}

static void
add_stats(Row *row, const WorkerStats *stats)
{
	add_time(row, stats->started_at);
	add_time(row, stats->last_tick);
	add(row, Int64GetDatum(stats->ticks), false);
	add(row, Int64GetDatum(stats->errors), false);
	add_text(row, stats->last_error[0] && may_see(InvalidOid) ? stats->last_error : NULL);
	add_time(row, stats->last_error_at);
	add(row, Float8GetDatum(stats->cpu_ms), false);
}

/* list_workers(): kind, pid, datid, state, role, activity, stats... */
Datum
perfopt_list_workers(PG_FUNCTION_ARGS)
{
	Row			row = {.n = 0};
	WorkerStats stats;
	DatabaseEntry *entry = palloc(sizeof(DatabaseEntry));
	JobSlot    *job = palloc(sizeof(JobSlot));
	int			pid;

	perfopt_require_preload();
	InitMaterializedSRF(fcinfo, 0);

	LWLockAcquire(worker_registry->lock, LW_SHARED);
	stats = worker_registry->launcher;
	pid = worker_registry->launcher_pid;
	LWLockRelease(worker_registry->lock);

	add_text(&row, "launcher");
	add_pid(&row, pid);
	add_oid(&row, InvalidOid);
	add_text(&row, pid ? "running" : "waiting");
	add_oid(&row, InvalidOid);
	add_text(&row, NULL);
	add_stats(&row, &stats);
	put_row(fcinfo, &row);

	for (int i = 0; i < worker_registry->num_databases; i++)
	{
		LWLockAcquire(worker_registry->lock, LW_SHARED);
		memcpy(entry, &worker_registry->databases[i], sizeof(DatabaseEntry));
		LWLockRelease(worker_registry->lock);
		if (entry->state == DATABASE_UNUSED || entry->state == DATABASE_ABSENT)
			continue;

		add_text(&row, "database");
		add_pid(&row, entry->pid);
		add_oid(&row, entry->dboid);
		add_text(&row, database_state_names[entry->state]);
		add_oid(&row, InvalidOid);
		add_text(&row, entry->state == DATABASE_RUNNING ?
				 worker_duty(entry->running_duty)->name : NULL);
		add_stats(&row, &entry->stats);
		put_row(fcinfo, &row);
	}

	for (int i = 0; i < worker_pool->num_slots; i++)
	{
		LWLockAcquire(worker_pool->lock, LW_SHARED);
		memcpy(job, &worker_pool->slots[i], sizeof(JobSlot));
		LWLockRelease(worker_pool->lock);
		if (job->pid == 0 || job->state == PERFOPT_JOB_NONE)
			continue;

		add_text(&row, "job");
		add_pid(&row, job->pid);
		add_oid(&row, job->database);
		add_text(&row, job_state_names[job->state]);
		add_oid(&row, may_see(job->role) ? job->role : InvalidOid);
		add_text(&row, job->capability);
		add_time(&row, job->started_at);
		add_time(&row, 0);		/* no ticks */
		add(&row, (Datum) 0, true);
		add(&row, (Datum) 0, true);
		add_text(&row, NULL);
		add_time(&row, 0);
		add(&row, (Datum) 0, true);
		put_row(fcinfo, &row);
	}
	return (Datum) 0;
}

/* list_jobs(): every job that has not been released */
Datum
perfopt_list_jobs(PG_FUNCTION_ARGS)
{
	Row			row = {.n = 0};
	JobSlot    *job = palloc(sizeof(JobSlot));

	perfopt_require_preload();
	InitMaterializedSRF(fcinfo, 0);

	for (int i = 0; i < worker_pool->num_slots; i++)
	{
		bool		visible;
		bool		ended;

		LWLockAcquire(worker_pool->lock, LW_SHARED);
		memcpy(job, &worker_pool->slots[i], sizeof(JobSlot));
		LWLockRelease(worker_pool->lock);
		if (job->state == PERFOPT_JOB_NONE)
			continue;
		visible = may_see(job->role);
		ended = PERFOPT_JOB_ENDED(job->state);

		add(&row, Int64GetDatum((int64) job->generation), false);
		add_text(&row, job->capability);
		add_text(&row, job_state_names[job->state]);
		add_pid(&row, job->pid);
		add_oid(&row, job->database);
		add_oid(&row, visible ? job->role : InvalidOid);
		add_text(&row, visible ? job->payload : NULL);
		add_time(&row, job->submitted_at);
		add_time(&row, job->started_at);
		add_text(&row, visible && ended && job->outcome.sqlerrcode != 0 ?
				 unpack_sql_state(job->outcome.sqlerrcode) : NULL);
		add_text(&row, visible && ended && job->outcome.message[0] ?
				 job->outcome.message : NULL);
		add(&row, Float8GetDatum(job->cpu_ms), !ended);
		put_row(fcinfo, &row);
	}
	return (Datum) 0;
}
