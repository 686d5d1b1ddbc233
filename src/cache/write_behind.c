/*
 * write_behind.c
 *		perfopt.cache_write_behind(): the value at once, the tables later.
 *
 * The statement becomes a row of perfopt.cache_writes, which is as durable as
 * the transaction that wrote it.  Duty "write_behind" looks after the roles
 * that have rows which are due, and submits a job for each.  The job connects
 * as the role, takes its rows in the order of their ids, and runs each in a
 * transaction that marks the row as done, too: so it takes effect exactly once,
 * whatever dies.  The duty deletes what is done; the roles may not, as the
 * privilege to delete is one to lock the table, and so everybody's rows.
 *
 * A statement may take perfopt.cache_job_timeout.  One that fails is tried again, after pauses that grow; those after
 * it wait, for they may build on it.  After MAX_ATTEMPTS it stays for the DBA,
 * and the others go on.
 *
 * A row belongs to the role that inserted it: no other value of that column can
 * be given, nor can what is to be run be changed later.  A policy of the table
 * keeps others' rows away, and a job takes none of them.  So nothing in a row
 * can make a statement run as somebody else.  Between the rows the job's
 * search_path is locked and its settings are those of JOB_SETTINGS, under which
 * parameters are written as text here and read there.
 *
 * A role can lock rows of its own, and may wait for them in its job.  The duty
 * goes past locked rows, so that nobody waits for another role.
 *
 * Jobs of a role do not overlap: the duty submits one at a time, and one that
 * has outlived the process that submitted it holds a lock in each of its
 * transactions.
 */
#include "postgres.h"

#include "access/xact.h"
#include "cache/cache_internal.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "common/query_oids.h"
#include "common/shmem.h"
#include "common/stop_points.h"
#include "common/text_settings.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(perfopt_cache_write_behind);

#define DUTY_NAME			"write_behind"
#define ENTRY_NAME			"cache_write_behind"

#define MAX_ATTEMPTS		5

/* Then the job makes way for others, if some wait. */
#define MAX_MS_A_JOB		1000

#define JOB_SETTINGS \
	PERFOPT_TEXT_SETTINGS \
	"default_transaction_isolation=read committed\n" \
	"default_transaction_deferrable=off\n" \
	"default_transaction_read_only=off\n" \
	"application_name=perfopt cache"

/* The jobs at work, known to the process that submitted them. */
typedef struct RoleJob
{
	Oid			role;
	PerfoptJob	job;
} RoleJob;

static List *role_jobs = NIL;

/* One row, taken. */
typedef struct Write
{
	int64		id;
	char	   *statement;
	char	   *settings;
	CacheParams params;
} Write;

/* ---------------------------------------------------------------------
 * In the session that writes
 */

/* Parameter types and values, as arrays of regtype and text. */
static void
params_to_arrays(const CacheParams *params, Datum *types, Datum *values)
{
	Datum	   *type_datums = palloc(sizeof(Datum) * Max(params->num, 1));
	Datum	   *texts = palloc0(sizeof(Datum) * Max(params->num, 1));
	bool	   *nulls = palloc0(sizeof(bool) * Max(params->num, 1));
	int			level = perfopt_text_settings_enter();
	int			dims[1];
	int			lbs[1] = {1};

	for (int i = 0; i < params->num; i++)
	{
		Oid			output;
		bool		is_varlena;

		type_datums[i] = ObjectIdGetDatum(params->types[i]);
		nulls[i] = params->nulls && params->nulls[i] == 'n';
		if (nulls[i])
			continue;
		getTypeOutputInfo(params->types[i], &output, &is_varlena);
		texts[i] = CStringGetTextDatum(OidOutputFunctionCall(output, params->values[i]));
	}
	perfopt_text_settings_leave(level);

	*types = PointerGetDatum(construct_array(type_datums, params->num, REGTYPEOID,
											 sizeof(Oid), true, TYPALIGN_INT));
	dims[0] = params->num;
	*values = PointerGetDatum(params->num == 0 ? construct_empty_array(TEXTOID) :
							  construct_md_array(texts, nulls, 1, dims, lbs, TEXTOID, -1,
												 false, TYPALIGN_INT));
}

Datum
perfopt_cache_write_behind(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID, TEXTOID, REGTYPEARRAYOID, TEXTARRAYOID, TEXTOID};
	Datum		values[5];
	CacheParams params;
	char	   *statement;
	char	   *settings = cache_key_settings_for_job();
	int64		id;
	bool		isnull;

	perfopt_require_preload();
	if (settings == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("settings of a statement run later cannot have a line break")));
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the statement must not be null")));
	statement = text_to_cstring(PG_GETARG_TEXT_PP(2));
	cache_check_statement(statement);
	if (!perfopt_job_role_can_log_in(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role \"%s\" is not permitted to log in",
						GetUserNameFromId(GetUserId(), false)),
				 errdetail("The statement is to be run in the background, by a process connected as that role."),
				 errhint("Give it LOGIN, or use perfopt.cache_write_through().")));
	cache_params_from_record(&params, PG_GETARG_DATUM(3), PG_ARGISNULL(3));

	/* checks the arguments, too */
	cache_set_arguments(fcinfo, 4);

	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(2);
	params_to_arrays(&params, &values[2], &values[3]);
	values[4] = CStringGetTextDatum(settings);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args("INSERT INTO perfopt.cache_writes"
							  " (key, statement, parameter_types, parameters, settings)"
							  " VALUES ($1, $2, $3, $4, $5) RETURNING id",
							  5, types, values, NULL, false, 0) != SPI_OK_INSERT_RETURNING ||
		SPI_processed != 1)
		elog(ERROR, "could not queue the statement");
	id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();

	perfopt_duty_wake_at_commit(DUTY_NAME);
	PG_RETURN_INT64(id);
}

/* ---------------------------------------------------------------------
 * In the job, as the role
 */

/* The number and the types of a row's parameters, and their values. */
static void
params_from_arrays(CacheParams *params, ArrayType *types, ArrayType *values)
{
	Datum	   *type_datums;
	Datum	   *texts;
	bool	   *type_nulls;
	bool	   *nulls;
	int			num_types;

	deconstruct_array(types, REGTYPEOID, sizeof(Oid), true, TYPALIGN_INT,
					  &type_datums, &type_nulls, &num_types);
	deconstruct_array(values, TEXTOID, -1, false, TYPALIGN_INT, &texts, &nulls, &params->num);
	if (num_types != params->num)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%d parameters have %d types", params->num, num_types)));
	params->types = palloc(sizeof(Oid) * Max(num_types, 1));
	params->values = palloc0(sizeof(Datum) * Max(num_types, 1));
	params->nulls = palloc0(num_types + 1);
	for (int i = 0; i < num_types; i++)
	{
		Oid			input;
		Oid			io_param;

		if (type_nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("parameter %d has no type", i + 1)));
		params->types[i] = DatumGetObjectId(type_datums[i]);
		params->nulls[i] = nulls[i] ? 'n' : ' ';
		getTypeInputInfo(params->types[i], &input, &io_param);
		params->values[i] = OidInputFunctionCall(input, nulls[i] ? NULL : TextDatumGetCString(texts[i]),
												 io_param, -1);
	}
}

/*
 * The oldest row of the role, if it is due, marked as done by this transaction;
 * in the caller's memory context.  *id is set as soon as it is
 * known, for errors.
 */
static Write *
take_row(Oid role, int64 *id)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext old_context;
	Oid			types[] = {REGROLEOID};
	Datum		values[1];
	Datum		column[5];
	bool		isnull;
	Write	   *write = NULL;

	values[0] = ObjectIdGetDatum(role);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args("UPDATE perfopt.cache_writes SET done = true"
							  " WHERE role = $1 AND next_attempt_at <= now() AND id ="
							  " (SELECT id FROM perfopt.cache_writes"
							  "   WHERE role = $1 AND failed_at IS NULL AND NOT done"
							  "   ORDER BY id LIMIT 1 FOR UPDATE)"
							  " RETURNING id, statement, settings, parameter_types, parameters",
							  1, types, values, NULL, false, 0) != SPI_OK_UPDATE_RETURNING)
		elog(ERROR, "could not read statements that were queued");
	if (SPI_processed > 0)
	{
		for (int i = 0; i < lengthof(column); i++)
			column[i] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1,
									  &isnull);
		*id = DatumGetInt64(column[0]);
		old_context = MemoryContextSwitchTo(context);
		write = palloc0(sizeof(Write));
		write->id = *id;
		write->statement = TextDatumGetCString(column[1]);
		write->settings = TextDatumGetCString(column[2]);
		params_from_arrays(&write->params, DatumGetArrayTypePCopy(column[3]),
						   DatumGetArrayTypePCopy(column[4]));
		MemoryContextSwitchTo(old_context);
	}
	SPI_finish();
	return write;
}

static void
begin_transaction(MemoryContext context)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
}

static void
commit_transaction(MemoryContext context)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* Is there no other job of the role?  Until the transaction's end. */
static bool
lock_role(Oid role)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, AuthIdRelationId, role, 0);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/* Run the oldest row's statement.  False when none is due. */
static bool
run_row(Oid role, int64 *id, MemoryContext context)
{
	Write	   *write = NULL;

	begin_transaction(context);
	if (lock_role(role))
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		write = take_row(role, id);
		if (write)
		{
			debug_query_string = write->statement;
			pgstat_report_activity(STATE_RUNNING, write->statement);
			perfopt_apply_settings(write->settings, GUC_ACTION_LOCAL);
			(void) cache_execute_statement(write->statement, &write->params);
			PERFOPT_STOP_POINT("cache-write-behind-commit");
		}
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	debug_query_string = NULL;
	(void) pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	return write != NULL;
}

/*
 * In a transaction: the row has failed, or with no id the role's oldest one.
 * While its role has it locked, nothing is noted: no other row has failed.
 */
static void
note_failure(Oid role, int64 id, int sqlerrcode, const char *message)
{
	Oid			types[] = {REGROLEOID, INT8OID, TEXTOID, TEXTOID, INT4OID};
	Datum		values[5];
	char		nulls[6] = "     ";

	values[0] = ObjectIdGetDatum(role);
	values[1] = Int64GetDatum(id);
	values[2] = CStringGetTextDatum(unpack_sql_state(sqlerrcode));
	values[3] = CStringGetTextDatum(message);
	values[4] = Int32GetDatum(MAX_ATTEMPTS);
	if (id == 0)
		nulls[1] = 'n';
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args("UPDATE perfopt.cache_writes"
							  " SET attempts = attempts + 1, sqlstate = $3, message = $4,"
							  "     next_attempt_at = now() + interval '1 s' * power(4, attempts),"
							  "     failed_at = CASE WHEN attempts + 1 >= $5 THEN now() END"
							  " WHERE id ="
							  " (SELECT id FROM perfopt.cache_writes"
							  "   WHERE id ="
							  "   (SELECT id FROM perfopt.cache_writes"
							  "     WHERE role = $1 AND failed_at IS NULL AND NOT done"
							  "       AND id = coalesce($2, id)"
							  "     ORDER BY id LIMIT 1)"
							  "   FOR UPDATE SKIP LOCKED)",
							  5, types, values, nulls, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not note that a statement has failed");
	SPI_finish();
}

/* The same, and a failure is noted.  An error before it was taken goes on. */
static bool
try_row(Oid role, MemoryContext context)
{
	volatile int64 id = 0;
	ErrorData  *volatile error = NULL;
	volatile bool ran = true;

	perfopt_job_limit(perfopt_cache_job_timeout);
	PG_TRY();
	{
		ran = run_row(role, unvolatize(int64 *, &id), context);
	}
	PG_CATCH();
	{
		if (id == 0)
			PG_RE_THROW();
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		debug_query_string = NULL;
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	if (error)
	{
		perfopt_job_limit(perfopt_cache_job_timeout);
		begin_transaction(context);
		PushActiveSnapshot(GetTransactionSnapshot());
		note_failure(role, id, error->sqlerrcode, error->message);
		commit_transaction(context);
	}
	return ran;
}

static void
run_rows(const char *payload, PerfoptJobOutcome *outcome)
{
	Oid			role = GetSessionUserId();
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "perfopt write-behind",
												  ALLOCSET_DEFAULT_SIZES);
	TimestampTz start = GetCurrentTimestamp();

	while (try_row(role, context))
	{
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), MAX_MS_A_JOB) &&
			perfopt_jobs_waiting())
			break;

		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			if (!perfopt_worker_enabled)
				break;
		}

		/* what a statement has done to its session is not for the next one */
		MemoryContextReset(context);
		perfopt_job_limit(perfopt_cache_job_timeout);
		(void) perfopt_job_run_statement("DISCARD ALL");
		begin_transaction(context);
		perfopt_apply_settings(JOB_SETTINGS, GUC_ACTION_SET);
		CommitTransactionCommand();
		CHECK_FOR_INTERRUPTS();
	}
	perfopt_job_limit(0);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

/* ---------------------------------------------------------------------
 * In the worker of the database, as the extension's owner
 */

static RoleJob *
find_role_job(Oid role)
{
	ListCell   *lc;

	foreach(lc, role_jobs)
	{
		RoleJob    *running = lfirst(lc);

		if (running->role == role)
			return running;
	}
	return NULL;
}

/* Let go of the jobs that have ended. */
static void
release_ended(void)
{
	ListCell   *lc;

	foreach(lc, role_jobs)
	{
		RoleJob    *running = lfirst(lc);
		PerfoptJobOutcome outcome = {0};
		PerfoptJobState state = perfopt_job_poll(running->job, &outcome);

		if (state != PERFOPT_JOB_NONE && !PERFOPT_JOB_ENDED(state))
			continue;
		perfopt_job_release(running->job);

		/* it could not connect, or its process has ended: no row says so */
		if (state == PERFOPT_JOB_FAILED || state == PERFOPT_JOB_LOST)
			note_failure(running->role, 0, outcome.sqlerrcode, outcome.message);
		role_jobs = foreach_delete_current(role_jobs, lc);
		pfree(running);
	}
}

static void
delete_done(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute("DELETE FROM perfopt.cache_writes WHERE id = ANY (ARRAY("
					" SELECT id FROM perfopt.cache_writes WHERE done FOR UPDATE SKIP LOCKED))",
					false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete statements that are done");
	SPI_finish();
}

/* The role has been dropped: its statements are not for who gets its OID. */
static void
drop_rows(Oid role)
{
	Oid			types[] = {REGROLEOID};
	Datum		values[1];

	values[0] = ObjectIdGetDatum(role);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args("DELETE FROM perfopt.cache_writes WHERE id = ANY (ARRAY("
							  " SELECT id FROM perfopt.cache_writes WHERE role = $1"
							  " FOR UPDATE SKIP LOCKED))",
							  1, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not drop statements that were queued");
	ereport(LOG,
			(errmsg("dropped " UINT64_FORMAT " statements queued by role with OID %u, which does not exist",
					SPI_processed, role)));
	SPI_finish();
}

/* Submit, and put an error into the row. */
static void
submit_or_note(Oid role)
{
	PerfoptJobSpec spec = {
		.capability = "cache",
		.entry = ENTRY_NAME,
		.payload = "statements of perfopt.cache_writes",
		.database = MyDatabaseId,
		.role = role,
		.settings = JOB_SETTINGS,
		.fair_to_roles = true,
		.then_duty = DUTY_NAME	/* it deletes what is done, and goes on with
								 * the rest */
	};
	PerfoptJob	job;
	ErrorData  *error = perfopt_job_try_submit(&spec, &job);
	RoleJob    *running;
	MemoryContext old_context;

	if (error)
	{
		/* when the queue is full, there is place later */
		if (error->sqlerrcode != ERRCODE_CONFIGURATION_LIMIT_EXCEEDED)
			note_failure(role, 0, error->sqlerrcode, error->message);
		return;
	}
	old_context = MemoryContextSwitchTo(TopMemoryContext);
	running = palloc(sizeof(RoleJob));
	running->role = role;
	running->job = job;
	role_jobs = lappend(role_jobs, running);
	MemoryContextSwitchTo(old_context);
}

/* The roles whose oldest row is due, in the caller's memory context. */
static List *
roles_with_work(void)
{
	return perfopt_query_oids("WITH RECURSIVE oldest AS ("
							  " (SELECT role, next_attempt_at FROM perfopt.cache_writes"
							  "   WHERE failed_at IS NULL AND NOT done ORDER BY role, id LIMIT 1)"
							  " UNION ALL"
							  " SELECT n.* FROM oldest o, LATERAL"
							  "  (SELECT w.role, w.next_attempt_at FROM perfopt.cache_writes w"
							  "    WHERE w.failed_at IS NULL AND NOT w.done AND w.role > o.role"
							  "    ORDER BY w.role, w.id LIMIT 1) n)"
							  " SELECT role FROM oldest WHERE next_attempt_at <= now()");
}

static void
write_behind(void)
{
	ListCell   *lc;

	release_ended();
	delete_done();
	foreach(lc, roles_with_work())
	{
		if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(lfirst_oid(lc))))
			drop_rows(lfirst_oid(lc));
		else if (find_role_job(lfirst_oid(lc)) == NULL)
			submit_or_note(lfirst_oid(lc));
	}
}

void
cache_write_behind_init(void)
{
	static const PerfoptDuty duty = {
		.name = DUTY_NAME,
		.interval_ms = &perfopt_cache_write_interval,
		.writes = true,
		.brief = true,
		.run = write_behind
	};

	perfopt_duty_register(&duty);
	perfopt_job_entry_register(ENTRY_NAME, run_rows);
}
