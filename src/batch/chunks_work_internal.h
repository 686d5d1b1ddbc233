/*
 * chunks_work_internal.h
 *		What the files of a process at work on a job share: chunks_work.c,
 *		chunks_steps.c, chunks_failures.c, chunks_report.c.
 */
#ifndef PERFOPT_CHUNKS_WORK_INTERNAL_H
#define PERFOPT_CHUNKS_WORK_INTERNAL_H

#include "postgres.h"

#include "batch/chunks_internal.h"

typedef enum StepResult
{
	STEP_OVER,					/* the job is not, or no longer, running */
	STEP_RAN,					/* a chunk */
	STEP_CHOSEN,				/* a chunk to be run next */
	STEP_SET_ASIDE,				/* a chunk at which server or process end */
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
	int			pid;			/* who is, in that run of the server */
	int			deaths;
	int			ends;
} Chunk;

typedef struct ChunkWork
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
} ChunkWork;

/* ---------------------------------------------------------------------
 * chunks_work.c: transactions, and the loop
 */

/*
 * Run a step in what is left of this transaction, and commit.  Returns the
 * error it ended with, or NULL; in any case there is a new transaction.
 */
extern ErrorData *chunks_in_transaction(ChunkWork *work, void (*step) (ChunkWork *));

/* A step that no other one makes up for: its error is the end. */
extern void chunks_must(ChunkWork *work, void (*step) (ChunkWork *));

/* ---------------------------------------------------------------------
 * chunks_steps.c: steps, each to be run in a transaction
 */
extern void chunks_run(ChunkWork *work);	/* a chunk */
extern void chunks_cut(ChunkWork *work);	/* the next one off the table */

/* Chunks that we have begun and do not go on with are nobody's any more. */
extern void chunks_let_go(ChunkWork *work);

/* For steps: read the job; false when we have nothing to do with it. */
extern bool chunks_read_running(ChunkWork *work, bool lock);

/* The job's settings, table and key; the table stays locked. */
extern ChunkKey *chunks_enter_job(ChunkJob *job);

/* False: there is no such row, or none that the role sees. */
extern bool chunks_update_row(const char *sql, int num_args, Oid *types, Datum *values,
							  const char *nulls);

/* What we have locked must be there. */
extern void chunks_must_update_row(const char *sql, int num_args, Oid *types, Datum *values,
								   const char *nulls);

/* ---------------------------------------------------------------------
 * chunks_failures.c: what becomes of work->error
 */
extern bool chunks_is_transient(int sqlerrcode);
extern void chunks_failed(ChunkWork *work); /* the statement, at a chunk */
extern void chunks_cancelled(ChunkWork *work);

/* Steps: the job fails with work->error; or as too many chunks were set aside. */
extern void chunks_fail_job(ChunkWork *work);
extern void chunks_check_failed(ChunkWork *work);

/* ---------------------------------------------------------------------
 * chunks_report.c: what the client sees
 */
extern void chunks_show_progress(ChunkWork *work);

/* The job is over: tell the session that waits. */
extern void chunks_report_end(ChunkWork *work);

#endif							/* PERFOPT_CHUNKS_WORK_INTERNAL_H */
