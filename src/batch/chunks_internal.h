/*
 * chunks_internal.h
 *		What the files of chunked work share.
 */
#ifndef PERFOPT_CHUNKS_INTERNAL_H
#define PERFOPT_CHUNKS_INTERNAL_H

#include "postgres.h"

#include "access/attnum.h"
#include "executor/spi.h"
#include "datatype/timestamp.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/rel.h"

/* ---------------------------------------------------------------------
 * chunks.c
 */

extern void chunks_connect(void);	/* to SPI */

/* SPI_execute_with_args(), which must return this. */
extern void chunks_execute(int expected, const char *sql, int num_args, Oid *types,
						   Datum *values, const char *nulls);

/* The settings of this session that a statement's meaning depends on. */
extern char *chunks_capture_settings(void);

/*
 * One of the places for a process at work on the job, from 0 on.  The last one
 * is for who runs a chunk at which the server has crashed, besides his own.
 */
#define CHUNKS_MAX_WORKERS	1000
#define CHUNKS_SUSPECT_SEAT	CHUNKS_MAX_WORKERS
extern void chunks_set_seat(LOCKTAG *tag, int64 job, int seat);

/* When this run of the server began, after a crash or otherwise. */
extern TimestampTz chunks_booted(void);

/* This server and database; a dump restored elsewhere finds another one. */
extern char *chunks_origin(void);

/* ---------------------------------------------------------------------
 * chunks_key.c: the order in which a table is cut
 */
typedef struct ChunkKey
{
	int			num;			/* columns */
	bool		ctid;
	Oid			relid;
	char	   *table;			/* quoted, with schema */
	char	   *short_name;		/* quoted, without */
	char	  **names;
	AttrNumber *attnums;
	Oid		   *types;
	char	  **type_names;		/* with modifiers and collations */
	bool		generated;		/* a column is computed from others */
	char	   *operators;		/* the schema of the key's operators, quoted */
} ChunkKey;

/* A key's value as text, num strings; or NULL: none. */
typedef char **ChunkBound;

/* Raises errors for columns that cannot be a key; names NULL: choose one. */
extern ChunkKey *chunk_key_make(Relation rel, ArrayType *names);

extern ArrayType *chunk_key_names(const ChunkKey *key);
extern ArrayType *chunk_bound_to_array(const ChunkKey *key, ChunkBound bound);

/* Raises an error unless there are as many values as the key has columns. */
extern ChunkBound chunk_bound_from_array(ArrayType *array, int num_columns);

/* "the row's key is within bounds", which are parameters 1 to 2 * num. */
extern char *chunk_key_condition(const ChunkKey *key);

/*
 * Types and values of the parameters: the bounds, then the job's id.  Call
 * within perfopt_text_settings_enter().
 */
extern int	chunk_key_params(const ChunkKey *key, ChunkBound lower, ChunkBound upper, int64 job,
							 Oid **types, Datum **values);

/* The first and the last key of the table; false when it is empty. */
extern bool chunk_key_ends(const ChunkKey *key, ChunkBound *first, ChunkBound *last);

/*
 * The next rows, so many, after a key (NULL: from the first) and up to last.
 * False when there are none.
 */
extern bool chunk_key_next(const ChunkKey *key, ChunkBound after, ChunkBound last, int rows,
						   double estimated_rows,
						   ChunkBound *lower, ChunkBound *upper, int64 *keys);

/* Cut in half: the end of the one and the begin of the other.  False: one row. */
extern bool chunk_key_halve(const ChunkKey *key, ChunkBound lower, ChunkBound upper,
							ChunkBound *middle, ChunkBound *next,
							int64 *keys_before, int64 *keys_after);

/* ---------------------------------------------------------------------
 * chunks_job.c: a job as a row of perfopt.batch_job
 */
typedef struct ChunkJob
{
	int64		id;
	Oid			role;
	char	   *state;
	char	   *sqlstate;
	char	   *message;
	Oid			target;
	char	   *target_name;	/* quoted, with schema */
	Oid			target_file;	/* of one cut by ctid */
	ArrayType  *key_names;
	ChunkBound	key_types;
	int			num_columns;	/* of the key */
	char	   *statement;
	char	   *settings;
	int			batch_size;
	int			workers;
	double		chunk_ms;
	int			lock_ms;
	double		lag_ms;			/* negative: as it likes */
	int			max_attempts;
	int			max_failed;
	double		estimated_rows;
	ChunkBound	last;			/* NULL: the table was empty */
	ChunkBound	position;
	int			chunk_size;
	bool		exhausted;
	TimestampTz booted;			/* 0: never */
	int			deaths;
	char	   *origin;
} ChunkJob;

/*
 * Read the job, and lock it if asked to.  NULL when there is none that the
 * role sees.
 */
extern ChunkJob *chunk_job_read(int64 id, bool lock);
extern void chunk_no_such_job(int64 id);

/*
 * The key of its table, which is locked.  Raises errors when the table is gone,
 * or no longer what it was.
 */
extern ChunkKey *chunk_job_open(const ChunkJob *job);

/* Raise what the statement fails with before it sees a row. */
extern void chunk_explain(const ChunkKey *key, const char *statement,
						  ChunkBound lower, ChunkBound upper);

/* ---------------------------------------------------------------------
 * chunks_work.c: a process at work on a job
 */

typedef enum ChunkWorker
{
	CHUNK_CALLER,				/* the call is the job, whose cancel pauses it */
	CHUNK_WAITER,				/* works along; the job goes on without it */
	CHUNK_HELPER				/* in the background */
} ChunkWorker;

/*
 * In a procedure that may end transactions, not connected to SPI: commit, work
 * at the job until it is over, or as a helper until there is nothing to do.
 */
extern void chunks_work(int64 job, ChunkWorker worker);

/*
 * chunks_lag.c: is a standby behind what was written max_ms ago, or before
 * chunks_lag_begin()?  To be asked before each chunk.
 */
extern void chunks_lag_begin(void);
extern bool chunks_lag_exceeds(double max_ms);

/* chunks_duty.c */
#define CHUNKS_DUTY "batch_jobs"
extern void chunks_duty_init(void);

#endif							/* PERFOPT_CHUNKS_INTERNAL_H */
