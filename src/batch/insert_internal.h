/*
 * insert_internal.h
 *		What the files of batched inserts share.
 *
 * A call is a BatchRun.  A source (insert_arrays.c, insert_jsonb.c) gives it
 * rows, each made for a BatchStatement, which is one for each set of columns
 * that rows have.  Rows are pending until a batch is full, the columns change,
 * or the source has no more (insert_run.c); then the statement runs over them
 * (insert_statement.c), or what goes past the executor's one row at a time, where
 * that loses nothing (insert_direct.c).
 */
#ifndef PERFOPT_INSERT_INTERNAL_H
#define PERFOPT_INSERT_INTERNAL_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "batch/batch_internal.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "nodes/plannodes.h"
#include "utils/plancache.h"
#include "utils/queryenvironment.h"
#include "utils/tuplestore.h"

typedef enum BatchConflict
{
	BATCH_CONFLICT_ERROR,
	BATCH_CONFLICT_NOTHING,
	BATCH_CONFLICT_UPDATE
} BatchConflict;

/* What a caller asks for.  Lists are of char *; NIL when not given. */
typedef struct BatchOptions
{
	BatchConflict on_conflict;
	List	   *conflict_columns;
	List	   *update_columns;
	bool		skip;			/* rows that fail are rejected */
	int			batch_size;		/* rows a statement; 0: not given */
	List	   *columns;		/* of rows that have names */
	List	   *key_columns;
} BatchOptions;

typedef struct BatchTarget
{
	Oid			relid;
	char	   *name;			/* quoted, with its schema */
	TupleDesc	desc;
	List	   *primary_key;	/* of char *; NIL: none */
	List	   *replica_identity;	/* the same of its index */
	bool		has_insert_rules;
} BatchTarget;

/* Where a statement is in its rows: see insert_statement.c. */
typedef struct BatchProgress
{
	struct BatchProgress *outer;
	int64		row;			/* ordinal of the row in work; 0: none was yet */
	bool		done;			/* all rows have been */
	bool		updating;		/* the row is updating another one */
} BatchProgress;

/* An INSERT into some columns of the target. */
typedef struct BatchStatement
{
	int			num_columns;
	AttrNumber *columns;		/* of the target */
	TupleDesc	desc;			/* of rows given to it, with the ordinal */
	char	   *text;
	SPIPlanPtr	plan;			/* when it is not among the kept ones */
	bool		returning;		/* it says which rows it has written */
	bool		streams;		/* writes a row before it reads the next */
	const char *objection;		/* to the direct way, or NULL */
} BatchStatement;

/* A row that is kept until it is known what has become of it. */
typedef struct BatchRow
{
	MinimalTuple tuple;			/* NULL when it could not be made */
	bool		has_source;		/* it was made from jsonb: */
	JsonbValue	source;
	BatchAction action;
	Jsonb	   *key;			/* or NULL */
	ErrorData  *error;			/* of BATCH_REJECTED */
} BatchRow;

typedef struct BatchRun BatchRun;
typedef struct BatchDirect BatchDirect; /* in insert_direct.c */

/* Takes what has become of a row, in the order of ordinals. */
typedef void (*BatchEmit) (BatchRun *run, int64 ordinal, const BatchRow *row);

struct BatchRun
{
	BatchTarget target;
	BatchOptions options;
	bool		want_keys;
	BatchEmit	emit;			/* or NULL */
	void	   *emit_arg;
	const bool *noted;			/* which rows are, when rejected; NULL: all */
	bool		returning;		/* it must be known which rows are written */

	MemoryContext context;		/* of the whole run */
	MemoryContext batch_context;	/* of pending rows */
	MemoryContext row_context;	/* for the making of one row */
	struct EphemeralNamedRelationData *relation;

	/* pending: either rows, which are kept, or store, or handed to direct */
	BatchStatement *statement;
	int64		num_read;		/* ordinal of the last row read */
	int64		num_emitted;	/* ordinal of the last row emitted */
	int			num_pending;
	BatchRow   *rows;
	int			max_rows;
	Tuplestorestate *store;
	BatchDirect *direct;
	bool		has_failed;		/* a statement over them */

	BatchProgress progress;
	int64		counts[BATCH_REJECTED + 1];
	int64		batch;			/* in perfopt.rejected_rows; 0: none */
};

/* insert_run.c */
extern void batch_target_describe(BatchTarget *target, Oid relid, const char *function);
extern AttrNumber batch_target_column(const BatchTarget *target, const char *name);
extern void batch_check_insertable(const BatchTarget *target, AttrNumber attnum);
extern void batch_run_begin(BatchRun *run);
extern bool batch_run_has_room(BatchRun *run, BatchStatement *statement);
extern void batch_run_add(BatchRun *run, BatchStatement *statement, Datum *values,
						  bool *isnull, const JsonbValue *source);
extern void batch_run_reject(BatchRun *run, ErrorData *error, const JsonbValue *source);
extern void batch_run_flush(BatchRun *run);
extern void batch_run_end(BatchRun *run);
extern bool batch_is_of_a_row(int sqlerrcode);
extern ErrorData *batch_try(BatchRun *run, void (*action) (void *arg), void *arg);
extern void batch_row_written(BatchRun *run, Datum key, bool key_isnull);

/* insert_statement.c */
#define BATCH_RELATION	"perfopt_batch"

extern BatchStatement *batch_statement_make(BatchRun *run, int num_columns,
											const AttrNumber *columns, const Oid *types,
											const int32 *typmods);
extern uint64 batch_statement_run(BatchRun *run, BatchStatement *statement,
								  Tuplestorestate *store);
extern bool batch_statement_begin_direct(BatchRun *run, BatchStatement *statement);
extern uint64 batch_statement_end_direct(BatchRun *run, BatchStatement *statement);
extern void batch_row_context(void *run);
extern void batch_statement_end_store(BatchStatement *statement, Tuplestorestate *store);

/* insert_direct.c */
extern const char *batch_direct_objection(BatchRun *run, List *statements);
extern BatchDirect *batch_direct_begin(BatchRun *run, BatchStatement *statement,
									   CachedPlan *plan);
extern void batch_direct_row(BatchDirect *insert, Datum *values, bool *isnull, int64 ordinal);
extern uint64 batch_direct_end(BatchDirect *insert, CachedPlan **plan);

/* insert_arrays.c */
extern void batch_read_composites(BatchRun *run, Datum array, Oid array_type);
extern void batch_read_columns(BatchRun *run, List *names, int num_arrays,
							   const Datum *arrays, const Oid *types);

/* insert_values.c */
/* How a value becomes one of a column's type. */
typedef struct BatchConversion
{
	Oid			type;
	int32		typmod;
	FmgrInfo	input;
	Oid			io_param;
	bool		is_domain;

	/* of arrays and composite types: the field of a record */
	bool		by_record;
	FmgrInfo	populate;
	TupleDesc	record_desc;
	Datum		empty_record;
} BatchConversion;

extern void batch_conversion_init(BatchConversion *conversion, Form_pg_attribute column);
extern Datum batch_convert(BatchConversion *conversion, JsonbValue *value,
						   const JsonbValue *row, bool *isnull);

/* insert_jsonb.c */
extern void batch_read_jsonb(BatchRun *run, Jsonb *array);
extern void batch_read_jsonb_rows(BatchRun *run, Jsonb **rows, int num_rows);

/* rejects.c */
extern void batch_note_rejects(BatchRun *run);

#endif							/* PERFOPT_INSERT_INTERNAL_H */
