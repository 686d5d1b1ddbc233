/*
 * chunks_report.c
 *		What the session that waits for a job is told of it.
 */
#include "postgres.h"

#include "batch/batch_internal.h"
#include "batch/chunks_work_internal.h"
#include "catalog/pg_type.h"
#include "common/text_settings.h"
#include "utils/memutils.h"

static void
read_progress(ChunkWork *work)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(work->job_id)};
	int			level = perfopt_text_settings_enter();
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
	perfopt_text_settings_leave(level);
}

void
chunks_show_progress(ChunkWork *work)
{
	chunks_must(work, read_progress);
	if (work->progress)
		ereport(NOTICE, (errmsg_internal("%s", work->progress)));
}

static void
count_failed(ChunkWork *work)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(work->job_id)};
	int			level = perfopt_text_settings_enter();
	bool		isnull;

	chunks_execute(SPI_OK_SELECT,
				   "SELECT count(*) FROM perfopt.batch_chunk WHERE job = $1 AND state = 'failed'",
				   1, types, values, NULL);
	work->failed = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	perfopt_text_settings_leave(level);
}

/* The job is over: tell the session that waits. */
void
chunks_report_end(ChunkWork *work)
{
	ChunkJob   *job = work->job;

	chunks_must(work, count_failed);
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
	chunks_show_progress(work);
	if (strcmp(job->state, "done") == 0 && work->failed > 0)
		ereport(WARNING,
				(errmsg_plural("job " INT64_FORMAT " is done but for " INT64_FORMAT " chunk that failed",
							   "job " INT64_FORMAT " is done but for " INT64_FORMAT " chunks that failed",
							   work->failed, job->id, work->failed),
				 errhint("SELECT * FROM perfopt.batch_failed_chunks WHERE job = " INT64_FORMAT ";",
						 job->id)));
}
