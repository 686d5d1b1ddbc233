/*
 * chunks_steps.c
 *		The steps of a process at work on a job: cutting the table, choosing a
 *		chunk, and running it.
 *
 * Who cuts a chunk has it reserved for two seconds, and runs it in the next
 * step.
 *
 * Before a chunk is run, it is noted which process begins it, in which run of
 * the server.  The note goes when the statement has failed, or the process lets
 * go of the chunk.  So the note of a process that is no more shows that it has
 * ended at work, maybe as the statement ends its process; and that of another
 * run, that the server has, maybe by a crash for which the chunk is the cause.
 * Then it is run while no other such one is.  After five processes, or three runs
 * of the server, it is set aside, the others being worth more than the chunk.
 * Before the table is cut, the run of the server is noted in the same way.
 */
#include "postgres.h"

#include "access/xact.h"
#include "batch/batch_internal.h"
#include "batch/chunks_work_internal.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/stop_points.h"
#include "common/text_settings.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"
#include "worker/worker.h"

/* A chunk has at least so many rows, if batch_size has; and at most so many times batch_size. */
#define MIN_CHUNK_SIZE		100
#define MAX_CHUNK_FACTOR	10

/* Who has cut or chosen a chunk has it for himself so long, and then takes it. */
#define RESERVED			"clock_timestamp() + interval '2 s'"

/*
 * A chunk at which the server has crashed so often is set aside; or at which so
 * many processes have ended: more, as others than the chunk may have ended them.
 */
#define MAX_DEATHS			3
#define MAX_ENDS			5

/* ---------------------------------------------------------------------
 * Rows of the job and its chunks
 */
/* False: there is no such row, or none that the role sees. */
bool
chunks_update_row(const char *sql, int num_args, Oid *types, Datum *values, const char *nulls)
{
	int			level = perfopt_text_settings_enter();

	chunks_execute(SPI_OK_UPDATE, sql, num_args, types, values, nulls);
	perfopt_text_settings_leave(level);
	return SPI_processed > 0;
}

/* What we have locked must be there. */
void
chunks_must_update_row(const char *sql, int num_args, Oid *types, Datum *values, const char *nulls)
{
	if (!chunks_update_row(sql, num_args, types, values, nulls))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the row of the job, or of its chunk, is no longer there")));
}

/* Read the job; false when we have nothing to do with it. */
bool
chunks_read_running(ChunkWork *work, bool lock)
{
	int			level = perfopt_text_settings_enter();

	work->job = chunk_job_read(work->job_id, lock);
	perfopt_text_settings_leave(level);
	work->result = STEP_OVER;
	return work->job && work->job->role == GetUserId() &&
		strcmp(work->job->state, "running") == 0;
}

/* ---------------------------------------------------------------------
 * Running a chunk
 */

/* A place among the workers, until the end of the transaction. */
static bool
lock_seat(ChunkWork *work, int seat)
{
	LOCKTAG		tag;

	chunks_set_seat(&tag, work->job_id, seat);
	return perfopt_lock_acquire(&tag, ExclusiveLock, true);
}

static bool
take_seat(ChunkWork *work)
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

/* Lock the chunk that is reserved, or one that is due; unless others have. */
static bool
take_chunk(ChunkWork *work)
{
	MemoryContext old_context;
	Oid			types[] = {INT8OID, REGROLEOID, INT8OID};
	Datum		values[] = {
		Int64GetDatum(work->job_id), ObjectIdGetDatum(GetUserId()), Int64GetDatum(work->reserved)
	};
	Datum		column[9];
	bool		isnull[lengthof(column)];
	int			level = perfopt_text_settings_enter();
	bool		found;

	chunks_execute(SPI_OK_SELECT,
				   psprintf("SELECT id, lower_bound, upper_bound, keys, attempts, booted, deaths, pid, ends"
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
		work->chunk.pid = isnull[7] ? 0 : DatumGetInt32(column[7]);
		work->chunk.ends = DatumGetInt32(column[8]);
		work->chunk.id = DatumGetInt64(column[0]);
		MemoryContextSwitchTo(old_context);
	}
	SPI_freetuptable(SPI_tuptable);
	perfopt_text_settings_leave(level);
	return found;
}

/* Has the server ended in the meantime? */
static bool
begun_in_another_run(const Chunk *chunk)
{
	return chunk->booted != 0 && chunk->booted != chunks_booted();
}

static bool
begun_by_us(const Chunk *chunk)
{
	return chunk->booted == chunks_booted() && chunk->pid == MyProcPid;
}

/*
 * The chunk was not begun by us.  Had somebody begun it, and that process has
 * ended, or the server, once more?  Then it is set aside in time.  Else it is
 * noted that we begin, and the next step runs it.
 *
 * A process that is only slow loses it to us, which is not counted.  Nor is one
 * that has ended when its number has been given to another one by now.
 */
static void
choose_chunk(ChunkWork *work)
{
	const Chunk *chunk = &work->chunk;
	bool		other_run = begun_in_another_run(chunk);
	bool		ended = chunk->booted == chunks_booted() && BackendPidGetProc(chunk->pid) == NULL;
	int			deaths = chunk->deaths + (other_run ? 1 : 0);
	int			ends = chunk->ends + (ended ? 1 : 0);
	Oid			types[] = {INT8OID, INT4OID, INT4OID, TIMESTAMPTZOID, INT4OID, TEXTOID};
	Datum		values[] = {
		Int64GetDatum(chunk->id), Int32GetDatum(deaths), Int32GetDatum(ends),
		TimestampTzGetDatum(chunks_booted()), Int32GetDatum(MyProcPid),
		CStringGetTextDatum(deaths >= MAX_DEATHS ?
							psprintf("the server has crashed or was stopped %d times while this was at work", deaths) :
							psprintf("%d processes have ended while they were at work at this", ends))
	};

	if (deaths >= MAX_DEATHS || ends >= MAX_ENDS)
	{
		chunks_must_update_row("UPDATE perfopt.batch_chunk SET state = 'failed', deaths = $2, ends = $3, sqlstate = '58000',"
							   " message = $6, finished_at = clock_timestamp() WHERE id = $1",
							   6, types, values, NULL);
		work->result = STEP_SET_ASIDE;
		return;
	}
	chunks_must_update_row("UPDATE perfopt.batch_chunk SET deaths = $2, ends = $3, booted = $4, pid = $5,"
						   " next_attempt_at = " RESERVED " WHERE id = $1", 5, types, values, NULL);
	work->result = STEP_CHOSEN;
}

/* Chunks that we have begun and do not go on with are nobody's any more. */
void
chunks_let_go(ChunkWork *work)
{
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, INT4OID};
	Datum		values[] = {
		Int64GetDatum(work->job_id), TimestampTzGetDatum(chunks_booted()), Int32GetDatum(MyProcPid)
	};

	(void) chunks_update_row("UPDATE perfopt.batch_chunk SET booted = NULL, next_attempt_at = clock_timestamp() WHERE id = ANY (ARRAY("
							 " SELECT id FROM perfopt.batch_chunk WHERE job = $1 AND state = 'pending'"
							 "    AND booted = $2 AND pid = $3 FOR NO KEY UPDATE SKIP LOCKED))",
							 3, types, values, NULL);
}

/* The job's settings, table and key; the table stays locked. */
ChunkKey *
chunks_enter_job(ChunkJob *job)
{
	perfopt_apply_settings(job->settings, GUC_ACTION_LOCAL);
	(void) set_config_option("lock_timeout", psprintf("%d", job->lock_ms), PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	return chunk_job_open(job);
}

/* Take a chunk, run it, and mark it done. */
void
chunks_run(ChunkWork *work)
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

	if (!chunks_read_running(work, false))
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
	suspect = work->chunk.deaths > 0 || begun_in_another_run(&work->chunk);
	if (suspect && !lock_seat(work, CHUNKS_SUSPECT_SEAT))
		return;
	if (!begun_by_us(&work->chunk))
	{
		choose_chunk(work);
		return;
	}
	work->running = true;
	PERFOPT_STOP_POINT("batch-chunk-taken");

	key = chunks_enter_job(work->job);
	level = perfopt_text_settings_enter();
	num = chunk_key_params(key, work->chunk.lower, work->chunk.upper, work->job_id, &types, &values);
	perfopt_text_settings_leave(level);

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
	chunks_must_update_row("UPDATE perfopt.batch_chunk SET state = 'done', rows = $2, duration_ms = $3,"
						   " finished_at = clock_timestamp(), xid = $4 WHERE id = $1",
						   4, done_types, done_values, key->ctid ? NULL : "   n");
	PERFOPT_STOP_POINT("batch-chunk-commit");
	work->result = STEP_RAN;
}

/* ---------------------------------------------------------------------
 * Cutting the table
 */

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
finish_job(ChunkWork *work)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(work->job_id)};

	(void) chunks_update_row("UPDATE perfopt.batch_job SET state = 'done', finished_at = clock_timestamp()"
							 " WHERE id = $1 AND NOT EXISTS"
							 " (SELECT FROM perfopt.batch_chunk WHERE job = $1 AND state = 'pending')",
							 1, types, values, NULL);
}

/* Nobody has cut the table in this run of the server: as in choose_chunk(). */
static void
note_cutting(ChunkWork *work)
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
	chunks_must_update_row("UPDATE perfopt.batch_job SET deaths = $2, booted = $3 WHERE id = $1",
						   3, types, values, NULL);
	work->result = STEP_NOTED;
}

/* Cut the next chunk off the table. */
void
chunks_cut(ChunkWork *work)
{
	ChunkJob   *job;
	ChunkKey   *key;
	ChunkBound	lower;
	ChunkBound	upper;
	int64		keys;
	int			size;
	int			level;
	bool		isnull;
	Oid			types[] = {INT8OID, TEXTARRAYOID, TEXTARRAYOID, INT8OID, INT4OID, TIMESTAMPTZOID, INT4OID};
	Datum		values[7];

	if (!chunks_read_running(work, true))
		return;
	job = work->job;
	work->result = STEP_ALL_CUT;
	if (job->exhausted)
	{
		finish_job(work);
		return;
	}

	level = perfopt_text_settings_enter();
	size = next_size(job);
	perfopt_text_settings_leave(level);
	values[0] = Int64GetDatum(job->id);
	if (job->booted != chunks_booted())
	{
		note_cutting(work);
		return;
	}
	if (job->last == NULL)
		key = NULL;
	else
		key = chunks_enter_job(job);
	if (key == NULL ||
		!chunk_key_next(key, job->position, job->last, size, job->estimated_rows,
						&lower, &upper, &keys))
	{
		chunks_must_update_row("UPDATE perfopt.batch_job SET exhausted = true WHERE id = $1",
							   1, types, values, NULL);
		finish_job(work);
		return;
	}

	values[1] = PointerGetDatum(chunk_bound_to_array(key, lower));
	values[2] = PointerGetDatum(chunk_bound_to_array(key, upper));
	values[3] = Int64GetDatum(keys);
	values[4] = Int32GetDatum(size);
	values[5] = TimestampTzGetDatum(chunks_booted());
	values[6] = Int32GetDatum(MyProcPid);
	level = perfopt_text_settings_enter();
	chunks_execute(SPI_OK_INSERT_RETURNING,
				   "INSERT INTO perfopt.batch_chunk (job, lower_bound, upper_bound, keys, booted, pid, next_attempt_at)"
				   " VALUES ($1, $2, $3, $4, $6, $7, " RESERVED ") RETURNING id", 7, types, values, NULL);
	work->chunk.id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	perfopt_text_settings_leave(level);
	chunks_must_update_row("UPDATE perfopt.batch_job SET position = $3, chunk_size = $5, deaths = 0 WHERE id = $1",
						   5, types, values, NULL);
	PERFOPT_STOP_POINT("batch-chunk-cut");
	work->result = STEP_CHOSEN;
}
