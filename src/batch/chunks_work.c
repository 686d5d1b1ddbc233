/*
 * chunks_work.c
 *		A process at work on a job: the session that called, or a helper in the
 *		background.
 *
 * All is done in steps, each a transaction of its own, whose error is caught
 * (in_transaction()).  As no step knows more than what was committed before,
 * nothing has to be put right after a crash.
 *
 * Who cuts a chunk has it reserved for two seconds, and runs it in the next
 * step.
 *
 * Before the table is cut, or a chunk is run, in a run of the server, it is
 * noted that this was begun in it.  A note of another run shows that the server
 * has ended meanwhile, maybe by a crash for which the chunk is the cause.  Then
 * it is run while no other such one is; and after three times it is set aside,
 * the others being worth more than the chunk.
 *
 * Where the procedure was called by a client, transactions are ended as VACUUM
 * does it, and statistics are reported in between: otherwise autovacuum would
 * learn of the rows only when the whole job is done.  Where it was called by
 * another procedure, SPI ends them, and a step is a subtransaction, too, so
 * that the caller's place in SPI outlives an error.
 *
 * A chunk that fails
 *	- by what may be over soon (deadlock, lock timeout, serialization failure,
 *	  lack of resources) is tried again, after a pause that grows;
 *	- by what EXPLAIN of the statement raises as well fails the job: it would
 *	  fail for all chunks;
 *	- else is split, and a single row is set aside.
 */
#include "postgres.h"

#include "access/xact.h"
#include "batch/batch_internal.h"
#include "batch/chunks_internal.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/stop_points.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "utils/xid8.h"
#include "worker/worker.h"

/* A chunk has at least so many rows, if batch_size has; and at most so many times batch_size. */
#define MIN_CHUNK_SIZE		100
#define MAX_CHUNK_FACTOR	10

/* What is not about a chunk is tried again so often. */
#define MAX_JOB_ERRORS		5

#define WAIT_MS				100 /* between two looks at what others do */
#define FIRST_NOTICE_MS		2000
#define NOTICE_MS			5000

/* Who has cut or chosen a chunk has it for himself so long, and then takes it. */
#define RESERVED			"clock_timestamp() + interval '2 s'"

/* A chunk at which the server has crashed so often is set aside. */
#define MAX_DEATHS			3

/* Then a helper makes way for other jobs, if some wait. */
#define HELPER_MS			10000

typedef enum StepResult
{
	STEP_OVER,					/* the job is not, or no longer, running */
	STEP_RAN,					/* a chunk */
	STEP_CHOSEN,				/* a chunk to be run next */
	STEP_SET_ASIDE,				/* a chunk at which the server crashes */
	STEP_NOTED,					/* that the table is going to be cut */
	STEP_NO_CHUNK,
	STEP_NO_SEAT,
	STEP_LAGGING,				/* a standby is behind */
	STEP_ALL_CUT
} StepResult;

typedef struct Chunk
{
	int64		id;				/* 0: none taken */
	ChunkBound	lower;
	ChunkBound	upper;
	int64		keys;
	int			attempts;
	TimestampTz booted;			/* 0: nobody is at it */
	int			deaths;
} Chunk;

typedef struct Work
{
	int64		job_id;
	ChunkWorker worker;
	bool		nested;			/* called by another procedure */
	MemoryContext context;		/* of a step and what follows from it */
	int			seat;			/* the last one had */
	int64		reserved;		/* the chunk to be taken next, or 0 */
	/* of the last step, in context: */
	StepResult	result;
	ChunkJob   *job;			/* NULL: there is none */
	Chunk		chunk;
	ErrorData  *error;
	char	   *progress;
	int64		failed;			/* chunks */
	bool		paused;
	bool		running;		/* the chunk, not only choosing it */
} Work;

/* ---------------------------------------------------------------------
 * Transactions
 */
static void
start_transaction(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
}

static void
commit(Work *work)
{
	if (work->nested)
		SPI_commit();
	else
	{
		ForgetPortalSnapshots();
		CommitTransactionCommand();
		(void) pgstat_report_stat(false);
		start_transaction();
	}
}

/*
 * Run a step in what is left of this transaction, and commit.  Returns the
 * error it ended with, or NULL; in any case there is a new transaction.
 */
static ErrorData *
in_transaction(Work *work, void (*step) (Work *))
{
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	volatile bool committing = false;

	/* what others have done between two statements is to be seen */
	XactIsoLevel = XACT_READ_COMMITTED;
	/* whatever default_transaction_read_only is for the role */
	XactReadOnly = false;
	PG_TRY();
	{
		if (work->nested)
			BeginInternalSubTransaction(NULL);
		PushActiveSnapshot(GetTransactionSnapshot());
		MemoryContextSwitchTo(work->context);
		chunks_connect();
		MemoryContextSwitchTo(work->context);
		CHECK_FOR_INTERRUPTS();
		step(work);
		SPI_finish();
		PopActiveSnapshot();
		if (work->nested)
			ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(work->context);
		CurrentResourceOwner = owner;
		committing = true;
		commit(work);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(work->context);
		error = CopyErrorData();
		FlushErrorState();
		if (!work->nested)
		{
			AbortCurrentTransaction();
			start_transaction();
		}
		else if (!committing)
		{
			RollbackAndReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(work->context);
			CurrentResourceOwner = owner;
			SPI_rollback();
		}
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(work->context);
	return error;
}

/* ---------------------------------------------------------------------
 * Steps
 */

/* Read the job; false when we have nothing to do with it. */
static bool
read_running_job(Work *work, bool lock)
{
	int			level = chunks_enter();

	work->job = chunk_job_read(work->job_id, lock);
	chunks_leave(level);
	work->result = STEP_OVER;
	return work->job && work->job->role == GetUserId() &&
		strcmp(work->job->state, "running") == 0;
}

/* A place among the workers, until the end of the transaction. */
static bool
lock_seat(Work *work, int seat)
{
	LOCKTAG		tag;

	chunks_set_seat(&tag, work->job_id, seat);
	return perfopt_lock_acquire(&tag, ExclusiveLock, true);
}

static bool
take_seat(Work *work)
{
	for (int i = 0; i < work->job->workers; i++)
	{
		int			seat = (work->seat + i) % work->job->workers;

		if (lock_seat(work, seat))
		{
			work->seat = seat;
			return true;
		}
	}
	return false;
}

/* False: there is no such row, or none that the role sees. */
static bool
update_row(const char *sql, int num_args, Oid *types, Datum *values, const char *nulls)
{
	int			level = chunks_enter();

	chunks_execute(SPI_OK_UPDATE, sql, num_args, types, values, nulls);
	chunks_leave(level);
	return SPI_processed > 0;
}

/* What we have locked must be there. */
static void
must_update_row(const char *sql, int num_args, Oid *types, Datum *values, const char *nulls)
{
	if (!update_row(sql, num_args, types, values, nulls))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the row of the job, or of its chunk, is no longer there")));
}

/* Lock the chunk that is reserved, or one that is due; unless others have. */
static bool
take_chunk(Work *work)
{
	MemoryContext old_context;
	Oid			types[] = {INT8OID, REGROLEOID, INT8OID};
	Datum		values[] = {
		Int64GetDatum(work->job_id), ObjectIdGetDatum(GetUserId()), Int64GetDatum(work->reserved)
	};
	Datum		column[7];
	bool		isnull[lengthof(column)];
	int			level = chunks_enter();
	bool		found;

	chunks_execute(SPI_OK_SELECT,
				   psprintf("SELECT id, lower_bound, upper_bound, keys, attempts, booted, deaths"
							" FROM perfopt.batch_chunk"
							" WHERE job = $1 AND role = $2 AND state = 'pending' AND %s"
							" ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED",
							work->reserved != 0 ? "id = $3" : "next_attempt_at <= clock_timestamp()"),
				   3, types, values, NULL);
	found = SPI_processed > 0;
	if (found)
	{
		old_context = MemoryContextSwitchTo(work->context);
		for (int i = 0; i < lengthof(column); i++)
			column[i] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &isnull[i]);
		work->chunk.lower = chunk_bound_from_array(DatumGetArrayTypeP(column[1]), work->job->num_columns);
		work->chunk.upper = chunk_bound_from_array(DatumGetArrayTypeP(column[2]), work->job->num_columns);
		work->chunk.keys = DatumGetInt64(column[3]);
		work->chunk.attempts = DatumGetInt32(column[4]);
		work->chunk.booted = isnull[5] ? 0 : DatumGetTimestampTz(column[5]);
		work->chunk.deaths = DatumGetInt32(column[6]);
		work->chunk.id = DatumGetInt64(column[0]);
		MemoryContextSwitchTo(old_context);
	}
	SPI_freetuptable(SPI_tuptable);
	chunks_leave(level);
	return found;
}

/*
 * Nobody has begun the chunk in this run of the server.  Had somebody in
 * another one, and that has ended, once more?  Then it is set aside in time.
 * Else it is noted that we begin, and the next step runs it.
 */
static void
choose_chunk(Work *work)
{
	int			deaths = work->chunk.deaths + (work->chunk.booted != 0 ? 1 : 0);
	Oid			types[] = {INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID};
	Datum		values[] = {
		Int64GetDatum(work->chunk.id), Int32GetDatum(deaths),
		TimestampTzGetDatum(chunks_booted()),
		CStringGetTextDatum(psprintf("the server has crashed or was stopped %d times while this was at work",
									 deaths))
	};

	if (deaths >= MAX_DEATHS)
	{
		must_update_row("UPDATE perfopt.batch_chunk SET state = 'failed', deaths = $2, sqlstate = '58000',"
						" message = $4, finished_at = clock_timestamp() WHERE id = $1",
						4, types, values, NULL);
		work->result = STEP_SET_ASIDE;
		return;
	}
	must_update_row("UPDATE perfopt.batch_chunk SET deaths = $2, booted = $3, next_attempt_at = " RESERVED
					" WHERE id = $1", 3, types, values, NULL);
	work->result = STEP_CHOSEN;
}

/* The job's settings, table and key; the table stays locked. */
static ChunkKey *
enter_job(ChunkJob *job)
{
	perfopt_job_apply_settings(job->settings, GUC_ACTION_LOCAL);
	(void) set_config_option("lock_timeout", psprintf("%d", job->lock_ms), PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	return chunk_job_open(job);
}

/* Take a chunk, run it, and mark it done. */
static void
run_chunk(Work *work)
{
	ChunkKey   *key;
	Oid		   *types;
	Datum	   *values;
	Oid			done_types[] = {INT8OID, INT8OID, FLOAT8OID, XID8OID};
	Datum		done_values[4];
	int			num;
	int			level;
	int			result;
	bool		suspect;
	TimestampTz start;
	Oid			role = GetUserId();

	if (!read_running_job(work, false))
		return;
	work->result = STEP_LAGGING;
	if (work->job->lag_ms >= 0 && chunks_lag_exceeds(work->job->lag_ms))
		return;
	work->result = STEP_NO_SEAT;
	if (!take_seat(work))
		return;
	work->result = STEP_NO_CHUNK;
	if (!take_chunk(work))
		return;
	suspect = work->chunk.deaths > 0 ||
		(work->chunk.booted != 0 && work->chunk.booted != chunks_booted());
	if (suspect && !lock_seat(work, CHUNKS_SUSPECT_SEAT))
		return;
	if (work->chunk.booted != chunks_booted())
	{
		choose_chunk(work);
		return;
	}
	work->running = true;
	PERFOPT_STOP_POINT("batch-chunk-taken");

	key = enter_job(work->job);
	level = chunks_enter();
	num = chunk_key_params(key, work->chunk.lower, work->chunk.upper, work->job_id, &types, &values);
	chunks_leave(level);

	start = GetCurrentTimestamp();
	result = SPI_execute_with_args(work->job->statement, num, types, values, NULL, false, 0);
	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("the statement cannot be run here: %s", SPI_result_code_string(result))));
	if (GetUserId() != role)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("the statement has changed the role")));
	PERFOPT_STOP_POINT("batch-chunk-ran");

	done_values[0] = Int64GetDatum(work->chunk.id);
	done_values[1] = Int64GetDatum((int64) SPI_processed);
	done_values[2] = Float8GetDatum((GetCurrentTimestamp() - start) / 1000.0);
	done_values[3] = FullTransactionIdGetDatum(GetCurrentFullTransactionId());
	must_update_row("UPDATE perfopt.batch_chunk SET state = 'done', rows = $2, duration_ms = $3,"
					" finished_at = clock_timestamp(), xid = $4 WHERE id = $1",
					4, done_types, done_values, key->ctid ? NULL : "   n");
	PERFOPT_STOP_POINT("batch-chunk-commit");
	work->result = STEP_RAN;
}

/* As many rows as take chunk_duration, by what the last chunks took. */
static int
next_size(ChunkJob *job)
{
	Oid			types[] = {INT8OID, INT4OID};
	Datum		values[] = {Int64GetDatum(job->id), Int32GetDatum(2 + 2 * job->workers)};
	double		size = job->chunk_size;
	bool		isnull;
	double		rows_a_ms;

	chunks_execute(SPI_OK_SELECT,
				   "SELECT (sum(keys) / nullif(sum(duration_ms), 0))::float8 FROM"
				   " (SELECT keys, duration_ms FROM perfopt.batch_chunk"
				   "   WHERE job = $1 AND state = 'done' ORDER BY id DESC LIMIT $2) last",
				   2, types, values, NULL);
	rows_a_ms = DatumGetFloat8(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	if (!isnull)
	{
		double		target = rows_a_ms * job->chunk_ms;

		/* gently */
		size = Min(Max(target, size / 2), size * 1.5);
	}
	size = Max(size, Min(MIN_CHUNK_SIZE, job->batch_size));
	size = Min(size, (double) job->batch_size * MAX_CHUNK_FACTOR);
	return (int) Min(Max(size, 1), INT_MAX / 2);
}

/*
 * All is cut: is all done?  With the job's row locked, so that nobody resumes
 * it meanwhile, and gives it chunks to be tried again.
 */
static void
finish_job(Work *work)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(work->job_id)};

	(void) update_row("UPDATE perfopt.batch_job SET state = 'done', finished_at = clock_timestamp()"
					  " WHERE id = $1 AND NOT EXISTS"
					  " (SELECT FROM perfopt.batch_chunk WHERE job = $1 AND state = 'pending')",
					  1, types, values, NULL);
}

/* The job fails with work->error. */
static void
fail_job(Work *work)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[] = {
		Int64GetDatum(work->job_id),
		CStringGetTextDatum(unpack_sql_state(work->error->sqlerrcode)),
		CStringGetTextDatum(work->error->message)
	};

	(void) update_row("UPDATE perfopt.batch_job SET state = 'failed', finished_at = clock_timestamp(),"
					  " sqlstate = $2, message = $3 WHERE id = $1 AND state = 'running'",
					  3, types, values, NULL);
}

/* As choose_chunk(), of the table: nobody has cut it in this run of the server. */
static void
note_cutting(Work *work)
{
	int			deaths = work->job->deaths + (work->job->booted != 0 ? 1 : 0);
	Oid			types[] = {INT8OID, INT4OID, TIMESTAMPTZOID};
	Datum		values[] = {
		Int64GetDatum(work->job_id), Int32GetDatum(deaths), TimestampTzGetDatum(chunks_booted())
	};

	if (deaths >= MAX_DEATHS)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("the server has crashed or was stopped %d times while the table was cut", deaths)));
	must_update_row("UPDATE perfopt.batch_job SET deaths = $2, booted = $3 WHERE id = $1",
					3, types, values, NULL);
	work->result = STEP_NOTED;
}

/* Cut the next chunk off the table. */
static void
cut_chunk(Work *work)
{
	ChunkJob   *job;
	ChunkKey   *key;
	ChunkBound	lower;
	ChunkBound	upper;
	int64		keys;
	int			size;
	int			level;
	bool		isnull;
	Oid			types[] = {INT8OID, TEXTARRAYOID, TEXTARRAYOID, INT8OID, INT4OID, TIMESTAMPTZOID};
	Datum		values[6];

	if (!read_running_job(work, true))
		return;
	job = work->job;
	work->result = STEP_ALL_CUT;
	if (job->exhausted)
	{
		finish_job(work);
		return;
	}

	level = chunks_enter();
	size = next_size(job);
	chunks_leave(level);
	values[0] = Int64GetDatum(job->id);
	if (job->booted != chunks_booted())
	{
		note_cutting(work);
		return;
	}
	if (job->last == NULL)
		key = NULL;
	else
		key = enter_job(job);
	if (key == NULL ||
		!chunk_key_next(key, job->position, job->last, size, job->estimated_rows,
						&lower, &upper, &keys))
	{
		must_update_row("UPDATE perfopt.batch_job SET exhausted = true WHERE id = $1",
						1, types, values, NULL);
		finish_job(work);
		return;
	}

	values[1] = PointerGetDatum(chunk_bound_to_array(key, lower));
	values[2] = PointerGetDatum(chunk_bound_to_array(key, upper));
	values[3] = Int64GetDatum(keys);
	values[4] = Int32GetDatum(size);
	values[5] = TimestampTzGetDatum(chunks_booted());
	level = chunks_enter();
	chunks_execute(SPI_OK_INSERT_RETURNING,
				   "INSERT INTO perfopt.batch_chunk (job, lower_bound, upper_bound, keys, booted, next_attempt_at)"
				   " VALUES ($1, $2, $3, $4, $6, " RESERVED ") RETURNING id", 6, types, values, NULL);
	work->chunk.id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	chunks_leave(level);
	must_update_row("UPDATE perfopt.batch_job SET position = $3, chunk_size = $5, deaths = 0 WHERE id = $1",
					5, types, values, NULL);
	PERFOPT_STOP_POINT("batch-chunk-cut");
	work->result = STEP_CHOSEN;
}

/* If it is ours. */
static void
pause_job(Work *work)
{
	Oid			types[] = {INT8OID, REGROLEOID};
	Datum		values[] = {Int64GetDatum(work->job_id), ObjectIdGetDatum(GetUserId())};

	work->paused = update_row("UPDATE perfopt.batch_job SET state = 'paused'"
							  " WHERE id = $1 AND role = $2 AND state = 'running'",
							  2, types, values, NULL);
}

/* Does the statement, in what the job has become, fail without any row? */
static void
probe_statement(Work *work)
{
	chunk_explain(enter_job(work->job), work->job->statement, work->chunk.lower, work->chunk.upper);
}

/* ---------------------------------------------------------------------
 * Failures
 */

/* May it be over soon? */
static bool
is_transient(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
			return true;
		default:
			return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE || sqlerrcode == ERRCODE_OBJECT_IN_USE;
	}
}

/* May no statement do what this one did? */
static bool
is_hopeless(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_INVALID_TRANSACTION_STATE:
		case ERRCODE_INVALID_TRANSACTION_TERMINATION:
			return true;
		default:
			return false;
	}
}

/* Lock the chunk that has failed; false when it is no longer ours to note. */
static bool
lock_failed(Work *work, Oid *types, Datum *values)
{
	int			level = chunks_enter();
	bool		found;

	types[0] = INT8OID;
	values[0] = Int64GetDatum(work->chunk.id);
	types[1] = TEXTOID;
	values[1] = CStringGetTextDatum(unpack_sql_state(work->error->sqlerrcode));
	types[2] = TEXTOID;
	values[2] = CStringGetTextDatum(work->error->message);
	chunks_execute(SPI_OK_SELECT,
				   "SELECT FROM perfopt.batch_chunk WHERE id = $1 AND state = 'pending'"
				   " FOR NO KEY UPDATE SKIP LOCKED", 1, types, values, NULL);
	found = SPI_processed > 0;
	chunks_leave(level);
	return found;
}

/* Again, after a pause that grows. */
static void
note_attempt(Work *work)
{
	Oid			types[3];
	Datum		values[3];

	if (lock_failed(work, types, values))
		must_update_row("UPDATE perfopt.batch_chunk SET attempts = attempts + 1, sqlstate = $2, message = $3,"
						" booted = NULL, next_attempt_at = clock_timestamp() + least(0.25 * power(4, least(attempts, 10)), 60) * interval '1 s'"
						" WHERE id = $1", 3, types, values, NULL);
}

/*
 * A chunk was set aside: are there too many, since the job was begun or resumed?
 * With the job's row locked, so that of two that look at the same time one sees
 * what both have done.
 */
static void
check_failed(Work *work)
{
	Oid			types[] = {INT8OID, INT4OID};
	Datum		values[2];

	if (!read_running_job(work, true))
		return;
	values[0] = Int64GetDatum(work->job_id);
	values[1] = Int32GetDatum(work->job->max_failed);
	(void) update_row("UPDATE perfopt.batch_job SET state = 'failed', finished_at = clock_timestamp(),"
					  " sqlstate = '54000', message = 'more than ' || $2 || ' chunks have failed'"
					  " WHERE id = $1 AND $2 <"
					  " (SELECT count(*) FROM perfopt.batch_chunk WHERE job = $1 AND state = 'failed'"
					  "   AND finished_at >= resumed_at)",
					  2, types, values, NULL);
}

/* Two halves in the chunk's place, or the single row is set aside. */
static void
split_chunk(Work *work)
{
	Oid			types[5];
	Datum		values[5];
	ChunkKey   *key;
	ChunkBound	middle;
	ChunkBound	next;
	int64		before = (work->chunk.keys + 1) / 2;
	int64		after = work->chunk.keys / 2;
	int			level;

	if (!lock_failed(work, types, values))
		return;
	key = enter_job(work->job);
	if (!chunk_key_halve(key, work->chunk.lower, work->chunk.upper, &middle, &next, &before, &after))
	{
		must_update_row("UPDATE perfopt.batch_chunk SET state = 'failed', attempts = attempts + 1,"
						" sqlstate = $2, message = $3, finished_at = clock_timestamp() WHERE id = $1",
						3, types, values, NULL);
		work->result = STEP_SET_ASIDE;
		return;
	}
	must_update_row("UPDATE perfopt.batch_chunk SET state = 'split', attempts = attempts + 1,"
					" sqlstate = $2, message = $3, finished_at = clock_timestamp() WHERE id = $1",
					3, types, values, NULL);
	for (int half = 0; half < 2; half++)
	{
		types[1] = types[2] = TEXTARRAYOID;
		types[3] = INT8OID;
		values[0] = Int64GetDatum(work->job_id);
		values[1] = PointerGetDatum(chunk_bound_to_array(key, half == 0 ? work->chunk.lower : next));
		values[2] = PointerGetDatum(chunk_bound_to_array(key, half == 0 ? middle : work->chunk.upper));
		values[3] = Int64GetDatum(half == 0 ? before : after);
		level = chunks_enter();
		chunks_execute(SPI_OK_INSERT,
					   "INSERT INTO perfopt.batch_chunk (job, lower_bound, upper_bound, keys)"
					   " VALUES ($1, $2, $3, $4)", 4, types, values, NULL);
		chunks_leave(level);
	}
	PERFOPT_STOP_POINT("batch-chunk-split");
}

/* The client's cancel of his call pauses the job; others only end themselves. */
static void
cancelled(Work *work)
{
	if (work->worker == CHUNK_WAITER)
		work->error->hint =
			psprintf("Job " INT64_FORMAT " goes on. SELECT perfopt.batch_pause(" INT64_FORMAT ") pauses it.",
					 work->job_id, work->job_id);
	else if (work->worker == CHUNK_CALLER && in_transaction(work, pause_job) == NULL && work->paused)
		work->error->hint =
			psprintf("Job " INT64_FORMAT " is paused. SELECT perfopt.batch_resume(" INT64_FORMAT ") goes on with it in the background.",
					 work->job_id, work->job_id);
	ReThrowError(work->error);
}

/* A step that no other one makes up for: its error is the end. */
static void
must(Work *work, void (*step) (Work *))
{
	ErrorData  *error = in_transaction(work, step);

	if (error == NULL)
		return;
	work->error = error;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		cancelled(work);
	ReThrowError(error);
}

static void
chunk_failed(Work *work)
{
	ErrorData  *error;

	if (is_transient(work->error->sqlerrcode) &&
		work->chunk.attempts + 1 < work->job->max_attempts)
	{
		must(work, note_attempt);
		return;
	}

	/* is it the chunk at all? */
	error = in_transaction(work, probe_statement);
	if (error && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
	{
		work->error = error;
		cancelled(work);
	}
	if (error && !is_transient(error->sqlerrcode))
	{
		work->error = error;
		must(work, fail_job);
	}
	else if (is_hopeless(work->error->sqlerrcode) ||
			 ERRCODE_TO_CATEGORY(work->error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES)
		must(work, fail_job);
	else
	{
		error = in_transaction(work, split_chunk);
		if (error && is_transient(error->sqlerrcode))
			must(work, note_attempt);
		else if (error)
			ReThrowError(error);
		else if (work->result == STEP_SET_ASIDE)
			must(work, check_failed);
	}
}

/* ---------------------------------------------------------------------
 * What the client sees
 */
static void
read_progress(Work *work)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(work->job_id)};
	int			level = chunks_enter();
	char	   *text;

	chunks_execute(SPI_OK_SELECT,
				   "SELECT pg_catalog.format('job %s: %s%s rows changed of %s looked at%s%s', id,"
				   "   CASE WHEN percent < 100 THEN percent || ' % of ' || keys_estimated || ' rows: ' END,"
				   "   rows_done, keys_done,"
				   "   CASE WHEN finished_at IS NOT NULL"
				   "     THEN ' in ' || round(date_part('epoch', finished_at - started_at)::numeric, 1) || ' s' ELSE '' END"
				   "   || coalesce(', ' || rows_per_second || ' looked at a second', ''),"
				   "   coalesce(', ' || time_left || ' left', '')"
				   "   || CASE WHEN chunks_failed > 0 THEN ', ' || chunks_failed || ' chunks failed' ELSE '' END)"
				   " FROM perfopt.batch_jobs WHERE id = $1", 1, types, values, NULL);
	work->progress = NULL;
	if (SPI_processed > 0 &&
		(text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)) !=NULL)
		work->progress = MemoryContextStrdup(work->context, text);
	SPI_freetuptable(SPI_tuptable);
	chunks_leave(level);
}

static void
show_progress(Work *work)
{
	must(work, read_progress);
	if (work->progress)
		ereport(NOTICE, (errmsg_internal("%s", work->progress)));
}

static void
count_failed(Work *work)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(work->job_id)};
	int			level = chunks_enter();
	bool		isnull;

	chunks_execute(SPI_OK_SELECT,
				   "SELECT count(*) FROM perfopt.batch_chunk WHERE job = $1 AND state = 'failed'",
				   1, types, values, NULL);
	work->failed = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	chunks_leave(level);
}

/* The job is over: tell the session that waits. */
static void
report_end(Work *work)
{
	ChunkJob   *job = work->job;

	must(work, count_failed);
	if (strcmp(job->state, "failed") == 0)
		ereport(ERROR,
				(errcode(job->sqlstate && strlen(job->sqlstate) == 5 ?
						 MAKE_SQLSTATE(job->sqlstate[0], job->sqlstate[1], job->sqlstate[2],
									   job->sqlstate[3], job->sqlstate[4]) : ERRCODE_INTERNAL_ERROR),
				 errmsg("job " INT64_FORMAT " failed: %s", job->id,
						job->message ? job->message : "?"),
				 errdetail("What was done is committed."),
				 work->failed > 0 ?
				 errhint("See perfopt.batch_failed_chunks. When mended,"
						 " SELECT perfopt.batch_resume(" INT64_FORMAT ", retry_failed => true) tries these again, and goes on.",
						 job->id) :
				 errhint("SELECT perfopt.batch_resume(" INT64_FORMAT ") goes on with it.", job->id)));
	if (strcmp(job->state, "cancelled") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("job " INT64_FORMAT " was cancelled", job->id)));
	if (strcmp(job->state, "paused") == 0)
		ereport(WARNING,
				(errmsg("job " INT64_FORMAT " is paused", job->id),
				 errhint("SELECT perfopt.batch_resume(" INT64_FORMAT ") goes on with it.", job->id)));
	show_progress(work);
	if (strcmp(job->state, "done") == 0 && work->failed > 0)
		ereport(WARNING,
				(errmsg_plural("job " INT64_FORMAT " is done but for " INT64_FORMAT " chunk that failed",
							   "job " INT64_FORMAT " is done but for " INT64_FORMAT " chunks that failed",
							   work->failed, job->id, work->failed),
				 errhint("SELECT * FROM perfopt.batch_failed_chunks WHERE job = " INT64_FORMAT ";",
						 job->id)));
}

/* ---------------------------------------------------------------------
 * The loop
 */
static void
wait_a_little(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, WAIT_MS,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/* A helper's time is over: are there others, or is the worker off? */
static bool
should_leave(TimestampTz start, bool idle)
{
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	return !perfopt_worker_enabled ||
		((idle || TimestampDifferenceExceeds(start, GetCurrentTimestamp(), HELPER_MS)) &&
		 perfopt_jobs_waiting());
}

static void
wake_duty(Work *work)
{
	perfopt_duty_wake_at_commit(CHUNKS_DUTY);
}

/* One chunk, or the next one's cut.  False: there was nothing to do. */
static bool
do_something(Work *work, int *job_errors)
{
	MemoryContextReset(work->context);
	work->job = NULL;
	work->running = false;
	work->chunk.id = 0;
	work->error = in_transaction(work, run_chunk);
	if (work->result != STEP_LAGGING && work->result != STEP_NO_SEAT)
		work->reserved = 0;
	if (work->error == NULL && work->result == STEP_NO_CHUNK)
		work->error = in_transaction(work, cut_chunk);
	if (work->error == NULL && work->result == STEP_CHOSEN)
		work->reserved = work->chunk.id;
	if (work->error == NULL && work->result == STEP_SET_ASIDE)
	{
		must(work, check_failed);
		work->result = STEP_RAN;
		return true;
	}

	if (work->error == NULL)
	{
		if (work->result == STEP_RAN)
			*job_errors = 0;
		return work->result == STEP_RAN || work->result == STEP_CHOSEN || work->result == STEP_NOTED;
	}
	if (work->error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		cancelled(work);
	if (work->running)
		chunk_failed(work);
	else if (is_transient(work->error->sqlerrcode) && ++*job_errors < MAX_JOB_ERRORS)
		return false;
	else
		must(work, fail_job);
	work->result = STEP_RAN;
	return true;
}

void
chunks_work(int64 job_id, ChunkWorker worker)
{
	bool		helper = worker == CHUNK_HELPER;
	MemoryContext caller = CurrentMemoryContext;
	Work		work = {
		.job_id = job_id,
		.worker = worker,
		.nested = SPI_inside_nonatomic_context(),
		.context = AllocSetContextCreate(caller, "perfopt batch", ALLOCSET_DEFAULT_SIZES)
	};
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz noticed = start - (NOTICE_MS - FIRST_NOTICE_MS) * INT64CONST(1000);
	int			job_errors = 0;

	/* of CALL in a procedure, the SPI that ends transactions */
	if (work.nested && SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	commit(&work);
	chunks_lag_begin();

	for (;;)
	{
		bool		busy = do_something(&work, &job_errors);

		if (work.error == NULL &&
			(work.job == NULL || (helper && work.job->role != GetUserId())))
			chunk_no_such_job(job_id);
		if (work.error == NULL && work.result == STEP_OVER && strcmp(work.job->state, "running") != 0)
			break;
		if (helper && work.reserved == 0 &&
			(work.result == STEP_NO_SEAT || should_leave(start, !busy)))
			break;
		if (!busy)
			wait_a_little();
		if (!helper && TimestampDifferenceExceeds(noticed, GetCurrentTimestamp(), NOTICE_MS))
		{
			show_progress(&work);
			noticed = GetCurrentTimestamp();
		}
	}

	if (!helper)
		report_end(&work);
	else if (work.result != STEP_OVER && work.result != STEP_NO_SEAT)
		must(&work, wake_duty); /* we made way: queue for another turn */
	if (work.nested)
		SPI_finish();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(work.context);
}
