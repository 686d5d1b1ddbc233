/*
 * apply.c
 *		Duty "apply": does what perfopt.apply_advice() and revert_advice() were
 *		asked for, one at a time, and leaves no invalid index behind.
 *
 * What is to be done is one statement (apply_steps.c), such as CREATE INDEX
 * CONCURRENTLY.  It runs as a job of the pool, as the owner of the table: the
 * parser calls the input functions of types, before the server itself becomes the
 * owner, and whoever may act as the owner may have made another type of that name
 * since it was looked at.
 * The duty only looks after it: it never waits.  The state is in the table, so
 * that a restart at any point loses nothing:
 *
 *		queued, or reverting without started_at
 *					waits for its turn
 *		applying, or reverting with started_at
 *					committed before the job is submitted.  What has become of it
 *					is told by the job while this process has one, and by the
 *					catalogs otherwise: once nobody holds the lock of an index
 *					build on the table, a valid index of that name means
 *					applied; an invalid one is dropped, by a job again; and with
 *					none left it has failed.
 *
 * The index's name is chosen just before building, so that it is free then,
 * and is committed first: an invalid index of that name on that table is ours,
 * unless the job that was to take the name tells that somebody else was faster.
 *
 * An index of a partitioned table takes many statements, each a job.
 *
 * When a lock could not be had in the role's lock_timeout, or there was a
 * deadlock, it waits for its turn again, perfopt.apply_attempts times in all.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/apply_internal.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/settings.h"
#include "common/stop_points.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define IDLE_INTERVAL_MS	10000
#define BUSY_INTERVAL_MS	500

/*
 * A build may take hours, whatever the role's limit for its statements is.
 * Its lock_timeout is the role's that connects.  The statements were written under this
 * search_path; under the role's own, a name could be somebody else's.
 */
#define JOB_SETTINGS		"statement_timeout=0\n" PERFOPT_WIDEST_TIMEOUT "=0" \
							"\nsearch_path=pg_catalog, pg_temp"

/* Others wait behind who waits for a lock that is in their way. */
#define BRIEF_JOB_SETTINGS	JOB_SETTINGS "\nlock_timeout=2s"

#define WAITING				"(status = 'queued' OR (status = 'reverting' AND started_at IS NULL))" \
							" AND (retry_at IS NULL OR retry_at <= now())"
#define AT_WORK				"(status = 'applying' OR (status = 'reverting' AND started_at IS NOT NULL))"

static int	apply_interval = IDLE_INTERVAL_MS;

/* The job at work for an advice, known to the process that submitted it. */
static bool job_running = false;
static bool job_cleans_up;		/* it drops what another one has left */
static bool job_takes_name;		/* until it has run, no index_name is ours */
static PerfoptJob job;
static int64 job_advice;

/*
 * Before PostgreSQL 17 nobody can connect as an owner without LOGIN.  So the job
 * connects as the extension's owner, with whose settings it runs, and becomes the
 * other one.
 */
#define AS_OWNER_ENTRY		"advice_as_owner"

/*
 * payload: the owner's OID, and the statement.  The process becomes the owner as the
 * server does to maintain his table, and stays so until it ends, whatever transactions
 * the statement has; nothing he has can change it back.  A server that checks its
 * assertions would crash of it: to it, such an identity is a transaction's at most.
 */
static void
run_as_owner(const char *payload, PerfoptJobOutcome *outcome)
{
	char	   *statement;
	Oid			owner = (Oid) strtoul(payload, &statement, 10);

#ifdef USE_ASSERT_CHECKING
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a server built with assertions can't run this as a role without LOGIN before PostgreSQL 17")));
#endif
	StartTransactionCommand();
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", owner)));
	CommitTransactionCommand();
	SetUserIdAndSecContext(owner, SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	outcome->rows = perfopt_job_run_statement(statement + 1);
}

/* sql has the id as $1, and may use texts or NULL, as $2 to $4. */
static void
update_row(const char *sql, int64 id, const char *a, const char *b, const char *c)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[4];
	char		nulls[5] = "    ";
	const char *texts[] = {a, b, c};

	values[0] = Int64GetDatum(id);
	for (int i = 0; i < lengthof(texts); i++)
	{
		values[i + 1] = texts[i] ? CStringGetTextDatum(texts[i]) : (Datum) 0;
		nulls[i + 1] = texts[i] ? ' ' : 'n';
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(sql, 4, types, values, nulls, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write advice");
	SPI_finish();
}

static void
set_done(const Applying *row)
{
	update_row("UPDATE perfopt.advice_item SET error = NULL, retry_at = NULL,"
			   " status = CASE status WHEN 'reverting' THEN 'reverted' ELSE 'applied' END,"
			   " applied_at = CASE status WHEN 'reverting' THEN applied_at ELSE now() END,"
			   " started_at = CASE status WHEN 'reverting' THEN started_at ELSE coalesce(started_at, last_seen) END,"
			   " automatic = automatic AND status <> 'queued',"
			   " index_name = $2, undo = $3 WHERE id = $1",
			   row->id, row->index_name, row->undo, NULL);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	perfopt_advice_follow_names(row->id);
	SPI_finish();
	perfopt_duty_wake_at_commit(ADVISOR_VERIFY_DUTY);
}

/* Or it waits to be tried again, if that was decided when the job had ended. */
static void
set_failed(int64 id, const char *error)
{
	update_row("UPDATE perfopt.advice_item SET error = $2, started_at = NULL,"
			   " status = CASE WHEN status <> 'reverting' THEN CASE WHEN retry_at IS NULL THEN 'failed' ELSE 'queued' END"
			   "  WHEN retry_at IS NOT NULL THEN status WHEN judged_at IS NOT NULL AND measured_gain < 0 THEN 'regressed'"
			   "  WHEN judged_at IS NOT NULL AND measured_gain > 0 THEN 'confirmed' ELSE 'applied' END"
			   " WHERE id = $1", id, error ? error : INTERRUPTED, NULL, NULL);
}

/*
 * The row for which the condition holds after the skip oldest ones, as this run
 * has left it, in the caller's memory context; or NULL.
 */
static Applying *
fetch_row(const char *condition, int skip)
{
	MemoryContext context = CurrentMemoryContext;
	Applying   *row = NULL;
	Oid			types[] = {INT4OID};
	Datum		values[] = {Int32GetDatum(skip)};
	char	   *sql = psprintf("SELECT id, status, kind, schema_name, table_name, definition, index_name,"
							   " ddl, undo, coalesce(run_as, requested_by), error, estimated_bytes::float8, retry_at IS NOT NULL"
							   " FROM perfopt.advice_item WHERE %s"
							   " ORDER BY requested_at, id LIMIT 1 OFFSET $1", condition);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(sql, 1, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read advice");
	if (SPI_processed > 0)
	{
		HeapTuple	tuple = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		Datum		bytes;
		MemoryContext old_context = MemoryContextSwitchTo(context);

		row = palloc0(sizeof(Applying));
		row->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		row->reverting = strcmp(SPI_getvalue(tuple, desc, 2), "reverting") == 0;
		row->kind = SPI_getvalue(tuple, desc, 3);
		row->schema_name = SPI_getvalue(tuple, desc, 4);
		row->table_name = SPI_getvalue(tuple, desc, 5);
		row->definition = SPI_getvalue(tuple, desc, 6);
		row->index_name = SPI_getvalue(tuple, desc, 7);
		row->ddl = SPI_getvalue(tuple, desc, 8);
		row->undo = SPI_getvalue(tuple, desc, 9);
		row->role = SPI_getvalue(tuple, desc, 10);
		row->error = SPI_getvalue(tuple, desc, 11);
		bytes = SPI_getbinval(tuple, desc, 12, &isnull);
		row->bytes = isnull ? 0 : DatumGetFloat8(bytes);
		row->will_retry = DatumGetBool(SPI_getbinval(tuple, desc, 13, &isnull));
		MemoryContextSwitchTo(old_context);
	}
	SPI_finish();
	return row;
}

/* Submit, and put an error into the row. */
static void
submit_or_fail(const Applying *row, const char *statement, bool cleans_up)
{
	PerfoptJobSpec spec = {
		.capability = "advisor",
		.payload = statement,
		.database = MyDatabaseId,
		.role = row->role ? get_role_oid(row->role, true) : InvalidOid,
		.settings = strstr(statement, " CONCURRENTLY ") ? JOB_SETTINGS : BRIEF_JOB_SETTINGS,
		.then_duty = ADVISOR_APPLY_DUTY
	};
	const char *message;

	if (OidIsValid(spec.role) && !perfopt_job_role_can_log_in(spec.role))
	{
		spec.entry = AS_OWNER_ENTRY;
		spec.payload = psprintf("%u %s", spec.role, statement);
		spec.role = GetUserId();
	}
	if (!OidIsValid(spec.role))
		message = psprintf("role \"%s\" does not exist", row->role ? row->role : "");
	else
	{
		ErrorData  *error = perfopt_job_try_submit(&spec, &job);

		if (error == NULL)
		{
			job_running = true;
			job_cleans_up = cleans_up;
			job_takes_name = !cleans_up && !perfopt_step_has_index(row);
			job_advice = row->id;
			return;
		}
		message = error->message;
	}
	set_failed(row->id, !cleans_up ? message :
			   psprintf("%s; an invalid index is left, as %s failed: %s",
						row->error ? row->error : INTERRUPTED, statement, message));
}

/*
 * A row is at work and this process has no job for it: its job has just ended,
 * or ended or goes on after a restart.  Look at what it left.  False: that can't
 * be seen now, so the row stays as it is.
 */
static bool
settle(Applying *row)
{
	char	   *statement = NULL;

	switch (perfopt_step_look(row, &statement))
	{
		case STEP_LEFT_DONE:
			set_done(row);
			break;
		case STEP_LEFT_NOTHING:
			set_failed(row->id, row->error);
			break;
		case STEP_LEFT_INVALID:
			/* commit first, or the job would wait for our snapshot */
			apply_interval = BUSY_INTERVAL_MS;
			PERFOPT_STOP_POINT("apply-clean-up");
			submit_or_fail(row, statement, true);
			break;
		case STEP_LEFT_NEXT:
			PERFOPT_STOP_POINT("apply-next");
			submit_or_fail(row, statement, false);
			break;
		case STEP_LEFT_UNKNOWN:
			apply_interval = BUSY_INTERVAL_MS;
			return false;
	}
	return true;
}

/*
 * Take this one: commit that it is ours, and start.  False: its table is locked
 * or just goes, so it stays queued and others come first.
 */
static bool
start(Applying *row)
{
	char	   *statement = NULL;
	const char *problem = NULL;

	switch (perfopt_step_prepare(row, &statement, &problem))
	{
		case STEP_LOCKED:
			return false;
		case STEP_DONE_ALREADY:
			set_done(row);
			return true;
		case STEP_IMPOSSIBLE:
			update_row("UPDATE perfopt.advice_item SET retry_at = NULL WHERE id = $1",
					   row->id, NULL, NULL, NULL);
			set_failed(row->id, problem);
			return true;
		case STEP_GIVEN_UP:
			update_row("UPDATE perfopt.advice_item SET retry_at = NULL, error = $2, started_at = now(),"
					   " status = CASE status WHEN 'queued' THEN 'applying' ELSE status END WHERE id = $1",
					   row->id, problem, NULL, NULL);
			apply_interval = BUSY_INTERVAL_MS;
			return true;
		case STEP_READY:
			break;
	}
	update_row("UPDATE perfopt.advice_item SET index_name = $2, ddl = $3, undo = $4, retry_at = NULL,"
			   " status = CASE status WHEN 'queued' THEN 'applying' ELSE status END,"
			   " started_at = now(), error = NULL WHERE id = $1",
			   row->id, row->index_name, row->ddl, row->undo);
	if (!row->reverting)
		perfopt_verify_begin(row->id, GetCurrentTimestamp());
	perfopt_duty_next_transaction();
	PERFOPT_STOP_POINT("apply-submit");
	submit_or_fail(row, statement, false);
	return true;
}

/* The job has ended.  Returns the advice if it is not to be looked at at once. */
static int64
note_outcome(PerfoptJobState state, const PerfoptJobOutcome *outcome)
{
	const char *message = outcome->message[0] ? outcome->message : INTERRUPTED;

	if (state == PERFOPT_JOB_DONE)
	{
		/* of statements that leave nothing to see, it is what tells */
		perfopt_duty_wake_at_commit(ADVISOR_VERIFY_DUTY);
		if (!job_cleans_up)
			update_row("UPDATE perfopt.advice_item SET error = NULL,"
					   " status = CASE status WHEN 'reverting' THEN 'reverted' ELSE 'applied' END,"
					   " applied_at = CASE status WHEN 'reverting' THEN applied_at ELSE now() END"
					   " WHERE id = $1 AND " AT_WORK
					   " AND kind IN ('reindex', 'analyze', 'create_statistics')",
					   job_advice, NULL, NULL, NULL);
		return 0;
	}
	if (state == PERFOPT_JOB_FAILED && job_takes_name &&
		outcome->sqlerrcode == ERRCODE_DUPLICATE_TABLE)
	{
		/* somebody else's index: nothing of ours is there to look at */
		set_failed(job_advice, message);
		return 0;
	}

	/* the first error tells why; that of cleaning up doesn't */
	update_row("UPDATE perfopt.advice_item SET error = coalesce(error, $2)"
			   " WHERE id = $1 AND " AT_WORK, job_advice, message, NULL, NULL);
	if (!job_cleans_up && state == PERFOPT_JOB_FAILED &&
		(outcome->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		 outcome->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED))
		update_row("UPDATE perfopt.advice_item SET attempts = attempts + 1,"
				   " retry_at = CASE WHEN attempts + 1 < $2::int THEN now() + interval '1 s' * (4 ^ attempts) END"
				   " WHERE id = $1", job_advice, psprintf("%d", perfopt_apply_attempts), NULL, NULL);

	/* what stands in the way of a drop won't go so soon */
	return job_cleans_up ? job_advice : 0;
}

static void
apply(void)
{
	Applying   *row;
	int64		stuck = 0;		/* an advice not to be tried again at once */

	apply_interval = IDLE_INTERVAL_MS;
	if (job_running)
	{
		PerfoptJobOutcome outcome = {0};
		PerfoptJobState state = perfopt_job_poll(job, &outcome);

		if (state != PERFOPT_JOB_NONE && !PERFOPT_JOB_ENDED(state))
			return;
		perfopt_job_release(job);
		job_running = false;
		stuck = note_outcome(state, &outcome);
	}

	/* nobody keeps others waiting by a lock on his own table */
	for (int skip = 0; !job_running && (row = fetch_row(AT_WORK, skip)) != NULL;)
		if (row->id == stuck || !settle(row))
			skip++;
	for (int skip = 0; !job_running && (row = fetch_row(WAITING, skip)) != NULL;)
		if (!start(row))
			skip++;

	/* it waits to be tried again */
	if (!job_running && fetch_row("status IN ('queued', 'reverting') AND retry_at > now()", 0))
		apply_interval = BUSY_INTERVAL_MS;
}

void
perfopt_apply_init(void)
{
	static const PerfoptDuty duty = {
		.name = ADVISOR_APPLY_DUTY,
		.interval_ms = &apply_interval,
		.writes = true,
		.brief = true,
		.run = apply
	};

	perfopt_duty_register(&duty);
	perfopt_job_entry_register(AS_OWNER_ENTRY, run_as_owner);
}
