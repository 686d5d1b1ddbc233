/*
 * chunks_failures.c
 *		What becomes of a chunk, and of the job, when something fails.
 *
 * A chunk that fails
 *	- by what may be over soon (deadlock, lock timeout, serialization failure,
 *	  lack of resources) is tried again, after a pause that grows;
 *	- by what EXPLAIN of the statement raises as well fails the job: it would
 *	  fail for all chunks;
 *	- else is split, and a single row is set aside.
 *
 * Of a chunk whose process has ended nobody notes anything here: see
 * chunks_steps.c.
 */
#include "postgres.h"

#include "batch/batch_internal.h"
#include "batch/chunks_work_internal.h"
#include "catalog/pg_type.h"
#include "common/stop_points.h"
#include "common/text_settings.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* May it be over soon? */
bool
chunks_is_transient(int sqlerrcode)
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

/* The job fails with work->error. */
void
chunks_fail_job(ChunkWork *work)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[] = {
		Int64GetDatum(work->job_id),
		CStringGetTextDatum(unpack_sql_state(work->error->sqlerrcode)),
		CStringGetTextDatum(work->error->message)
	};

	(void) chunks_update_row("UPDATE perfopt.batch_job SET state = 'failed', finished_at = clock_timestamp(),"
							 " sqlstate = $2, message = $3 WHERE id = $1 AND state = 'running'",
							 3, types, values, NULL);
	chunks_let_go(work);
}

/* If it is ours. */
static void
pause_job(ChunkWork *work)
{
	Oid			types[] = {INT8OID, REGROLEOID};
	Datum		values[] = {Int64GetDatum(work->job_id), ObjectIdGetDatum(GetUserId())};

	work->paused = chunks_update_row("UPDATE perfopt.batch_job SET state = 'paused'"
									 " WHERE id = $1 AND role = $2 AND state = 'running'",
									 2, types, values, NULL);
}

/* Does the statement, in what the job has become, fail without any row? */
static void
probe_statement(ChunkWork *work)
{
	chunk_explain(chunks_enter_job(work->job), work->job->statement, work->chunk.lower, work->chunk.upper);
}

/* Lock the chunk that has failed; false when it is no longer ours to note. */
static bool
lock_failed(ChunkWork *work, Oid *types, Datum *values)
{
	int			level = perfopt_text_settings_enter();
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
	perfopt_text_settings_leave(level);
	return found;
}

/* Again, after a pause that grows. */
static void
note_attempt(ChunkWork *work)
{
	Oid			types[3];
	Datum		values[3];

	if (lock_failed(work, types, values))
		chunks_must_update_row("UPDATE perfopt.batch_chunk SET attempts = attempts + 1, sqlstate = $2, message = $3,"
							   " booted = NULL, next_attempt_at = clock_timestamp() + least(0.25 * power(4, least(attempts, 10)), 60) * interval '1 s'"
							   " WHERE id = $1", 3, types, values, NULL);
}

/*
 * A chunk was set aside: are there too many, since the job was begun or resumed?
 * With the job's row locked, so that of two that look at the same time one sees
 * what both have done.
 */
void
chunks_check_failed(ChunkWork *work)
{
	Oid			types[] = {INT8OID, INT4OID};
	Datum		values[2];

	if (!chunks_read_running(work, true))
		return;
	values[0] = Int64GetDatum(work->job_id);
	values[1] = Int32GetDatum(work->job->max_failed);
	(void) chunks_update_row("UPDATE perfopt.batch_job SET state = 'failed', finished_at = clock_timestamp(),"
							 " sqlstate = '54000', message = 'more than ' || $2 || ' chunks have failed'"
							 " WHERE id = $1 AND $2 <"
							 " (SELECT count(*) FROM perfopt.batch_chunk WHERE job = $1 AND state = 'failed'"
							 "   AND finished_at >= resumed_at)",
							 2, types, values, NULL);
}

/* Two halves in the chunk's place, or the single row is set aside. */
static void
split_chunk(ChunkWork *work)
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
	key = chunks_enter_job(work->job);
	if (!chunk_key_halve(key, work->chunk.lower, work->chunk.upper, &middle, &next, &before, &after))
	{
		chunks_must_update_row("UPDATE perfopt.batch_chunk SET state = 'failed', attempts = attempts + 1,"
							   " sqlstate = $2, message = $3, finished_at = clock_timestamp() WHERE id = $1",
							   3, types, values, NULL);
		work->result = STEP_SET_ASIDE;
		return;
	}
	chunks_must_update_row("UPDATE perfopt.batch_chunk SET state = 'split', attempts = attempts + 1,"
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
		level = perfopt_text_settings_enter();
		chunks_execute(SPI_OK_INSERT,
					   "INSERT INTO perfopt.batch_chunk (job, lower_bound, upper_bound, keys)"
					   " VALUES ($1, $2, $3, $4)", 4, types, values, NULL);
		perfopt_text_settings_leave(level);
	}
	PERFOPT_STOP_POINT("batch-chunk-split");
}

/* The client's cancel of his call pauses the job; others only end themselves. */
void
chunks_cancelled(ChunkWork *work)
{
	if (work->worker == CHUNK_WAITER)
		work->error->hint =
			psprintf("Job " INT64_FORMAT " goes on. SELECT perfopt.batch_pause(" INT64_FORMAT ") pauses it.",
					 work->job_id, work->job_id);
	else if (work->worker == CHUNK_CALLER && chunks_in_transaction(work, pause_job) == NULL && work->paused)
		work->error->hint =
			psprintf("Job " INT64_FORMAT " is paused. SELECT perfopt.batch_resume(" INT64_FORMAT ") goes on with it in the background.",
					 work->job_id, work->job_id);
	(void) chunks_in_transaction(work, chunks_let_go);
	ReThrowError(work->error);
}

void
chunks_failed(ChunkWork *work)
{
	ErrorData  *error;

	if (chunks_is_transient(work->error->sqlerrcode) &&
		work->chunk.attempts + 1 < work->job->max_attempts)
	{
		chunks_must(work, note_attempt);
		return;
	}

	/* is it the chunk at all? */
	error = chunks_in_transaction(work, probe_statement);
	if (error && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
	{
		work->error = error;
		chunks_cancelled(work);
	}
	if (error && !chunks_is_transient(error->sqlerrcode))
	{
		work->error = error;
		chunks_must(work, chunks_fail_job);
	}
	else if (is_hopeless(work->error->sqlerrcode) ||
			 ERRCODE_TO_CATEGORY(work->error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES)
		chunks_must(work, chunks_fail_job);
	else
	{
		error = chunks_in_transaction(work, split_chunk);
		if (error && chunks_is_transient(error->sqlerrcode))
			chunks_must(work, note_attempt);
		else if (error)
			ReThrowError(error);
		else if (work->result == STEP_SET_ASIDE)
			chunks_must(work, chunks_check_failed);
	}
}
