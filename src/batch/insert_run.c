/*
 * insert_run.c
 *		What becomes of the rows of a batched insert.
 *
 * When a bad row is to fail the call, rows go the direct way as they are read,
 * or into a tuplestore, over which one statement runs, or one over each
 * batch_size rows.
 *
 * When bad rows are to be rejected, up to batch_size rows are kept as they are
 * made, and the statement runs over them in a subtransaction.  When it fails
 * while row r is in work, it is rolled back, the rows before r are run again,
 * and then those from r on, in steps of 1, 2, 4 and so on.  When it fails with
 * the first of its rows in work, that row has failed on its own, and is
 * rejected.  When it fails after its last row, which is where foreign keys and
 * AFTER triggers are, each eighth of the rows is run for itself.  So a row is rejected only if a statement failed
 * that had done nothing but this row, and whatever an ordinal that was noted
 * may be wrong about, in a foreign table for example that is sent rows in
 * batches of its own, is found in the next run.  Rows stay in their order.
 *
 * A statement that fails before it has read a row fails for what concerns all
 * of them: then the call does.  So it does for a cancel, a lost connection, a
 * deadlock, and all that is not of a row.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "batch/insert_internal.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_attribute.h"
#include "common/compat.h"
#include "common/settings.h"
#include "common/try.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "rewrite/prs2lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#define DEFAULT_BATCH_SIZE	10000

/* Into how many parts rows are divided to find the bad ones. */
#define PARTS	8

/* ---------------------------------------------------------------------
 * The target
 */

/* The columns of an index, as names. */
static List *
index_columns(Oid index, TupleDesc desc)
{
	List	   *names = NIL;
	Relation	rel;

	if (!OidIsValid(index))
		return NIL;
	rel = index_open(index, AccessShareLock);
	for (int i = 0; i < rel->rd_index->indnkeyatts; i++)
	{
		AttrNumber	attnum = rel->rd_index->indkey.values[i];

		if (attnum <= 0)
		{
			names = NIL;
			break;
		}
		names = lappend(names, pstrdup(NameStr(TupleDescAttr(desc, attnum - 1)->attname)));
	}
	index_close(rel, AccessShareLock);
	return names;
}

/*
 * May the current user insert into it?  Statements check what they need; this
 * is for the lock, also without rows, and for the schema, which is not looked
 * up again when a plan is kept.
 */
static void
check_privileges(Oid relid)
{
	Oid			schema = get_rel_namespace(relid);
	AclResult	result;

	if (!OidIsValid(schema))
		return;
	result = perfopt_schema_aclcheck(schema, GetUserId());
	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_SCHEMA, get_namespace_name(schema));
	if (pg_class_aclcheck(relid, GetUserId(), ACL_INSERT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(relid, GetUserId(), ACL_INSERT, ACLMASK_ANY) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

/*
 * Look at the table for an SQL function, in the current memory context, under
 * an INSERT's lock.
 */
void
batch_target_describe(BatchTarget *target, Oid relid, const char *function)
{
	Relation	rel;

	PreventCommandDuringRecovery(function);
	/* the direct way would not notice */
	PreventCommandIfParallelMode(function);
	check_privileges(relid);
	rel = try_table_open(relid, RowExclusiveLock);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	target->relid = relid;
	target->name = pstrdup(quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
													  RelationGetRelationName(rel)));
	target->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	target->primary_key = NIL;
	target->replica_identity = NIL;
	target->has_insert_rules = false;
	if (rel->rd_rel->relhasindex)
	{
		target->primary_key = index_columns(perfopt_primary_key_index(rel), target->desc);
		target->replica_identity = index_columns(RelationGetReplicaIndex(rel), target->desc);
	}
	if (rel->rd_rules)
	{
		for (int i = 0; i < rel->rd_rules->numLocks; i++)
			if (rel->rd_rules->rules[i]->event == CMD_INSERT)
				target->has_insert_rules = true;
	}
	table_close(rel, NoLock);
}

/* The number of the column, or an error. */
AttrNumber
batch_target_column(const BatchTarget *target, const char *name)
{
	for (int i = 0; i < target->desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(target->desc, i);

		if (!column->attisdropped && strcmp(NameStr(column->attname), name) == 0)
			return column->attnum;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of relation %s does not exist", name, target->name)));
}

/* The error that INSERT would raise for a column whose values it computes. */
void
batch_check_insertable(const BatchTarget *target, AttrNumber attnum)
{
	Form_pg_attribute column = TupleDescAttr(target->desc, attnum - 1);

	if (column->attidentity == ATTRIBUTE_IDENTITY_ALWAYS || column->attgenerated)
		ereport(ERROR,
				(errcode(ERRCODE_GENERATED_ALWAYS),
				 errmsg("cannot insert a non-DEFAULT value into column \"%s\"",
						NameStr(column->attname)),
				 column->attgenerated ?
				 errdetail("Column \"%s\" is a generated column.", NameStr(column->attname)) :
				 errdetail("Column \"%s\" is an identity column defined as GENERATED ALWAYS.",
						   NameStr(column->attname))));
}

/* ---------------------------------------------------------------------
 * Rows that are known
 */
static void
emit_row(BatchRun *run, int64 ordinal, const BatchRow *row)
{
	run->num_emitted = ordinal;
	run->counts[row->action]++;
	if (run->emit)
		run->emit(run, ordinal, row);
}

/* Rows up to this one, which the statement did not return. */
static void
emit_skipped(BatchRun *run, int64 last)
{
	BatchRow	row = {.action = BATCH_SKIPPED};

	while (run->num_emitted < last)
		emit_row(run, run->num_emitted + 1, &row);
}

static inline bool
rows_are_kept(const BatchRun *run, const BatchStatement *statement)
{
	return run->options.skip || (statement->returning && !statement->streams);
}

/* A statement has written the row in work. */
void
batch_row_written(BatchRun *run, Datum key, bool key_isnull)
{
	BatchAction action = run->progress.updating ? BATCH_UPDATED : BATCH_INSERTED;

	if (rows_are_kept(run, run->statement))
	{
		int64		first = run->num_read - run->num_pending + 1;
		BatchRow   *row;

		if (run->progress.row < first || run->progress.row > run->num_read)
			elog(ERROR, "a batched insert has lost its place");
		row = &run->rows[run->progress.row - first];
		row->action = action;
		if (!key_isnull)
		{
			MemoryContext old_context = MemoryContextSwitchTo(run->batch_context);

			row->key = DatumGetJsonbPCopy(key);
			MemoryContextSwitchTo(old_context);
		}
	}
	else
	{
		BatchRow	row = {.action = action};

		if (run->progress.row <= run->num_emitted || run->progress.row > run->num_read)
			elog(ERROR, "a batched insert has lost its place");
		emit_skipped(run, run->progress.row - 1);
		row.key = key_isnull ? NULL : DatumGetJsonbP(key);
		emit_row(run, run->progress.row, &row);
	}
}

/* ---------------------------------------------------------------------
 * Rows that are kept
 */

/* Is an error with this SQLSTATE the fault of a row? */
bool
batch_is_of_a_row(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):	/* connections */
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):	/* deadlocks ... */
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):	/* resources */
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):	/* cancel, shutdown */
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):	/* files */
			return false;
	}
	return sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		sqlerrcode != ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION &&
		sqlerrcode != ERRCODE_READ_ONLY_SQL_TRANSACTION &&
		sqlerrcode != ERRCODE_ASSERT_FAILURE &&
		sqlerrcode != ERRCODE_DATA_CORRUPTED &&
		sqlerrcode != ERRCODE_INDEX_CORRUPTED;
}

static void
reject(BatchRow *row, ErrorData *error)
{
	row->action = BATCH_REJECTED;
	row->error = error;
}

static inline bool
is_pending(const BatchRow *row)
{
	return row->tuple != NULL && row->action != BATCH_REJECTED;
}

/* Run the rows that were not rejected, from first to last, by the statement. */
static uint64
run_by_statement(BatchRun *run, int first, int last, TupleTableSlot *slot)
{
	Tuplestorestate *store = tuplestore_begin_heap(false, false, Max(work_mem, 64));
	uint64		processed;

	for (int i = first; i <= last; i++)
	{
		if (!is_pending(&run->rows[i]))
			continue;
		ExecStoreMinimalTuple(run->rows[i].tuple, slot, false);
		tuplestore_puttupleslot(store, slot);
	}
	batch_statement_end_store(run->statement, store);
	processed = batch_statement_run(run, run->statement, store);
	tuplestore_end(store);
	return processed;
}

/* The same, when it has begun the direct way. */
static uint64
run_directly(BatchRun *run, int first, int last, TupleTableSlot *slot)
{
	int64		first_ordinal = run->num_read - run->num_pending + 1;

	for (int i = first; i <= last; i++)
	{
		if (!is_pending(&run->rows[i]))
			continue;
		CHECK_FOR_INTERRUPTS();
		ExecStoreMinimalTuple(run->rows[i].tuple, slot, false);
		slot_getallattrs(slot);
		batch_direct_row(run->direct, slot->tts_values, slot->tts_isnull, first_ordinal + i);
	}
	return batch_statement_end_direct(run, run->statement);
}

/* The same, either way, and note what has become of them. */
static void
run_rows(BatchRun *run, int first, int last)
{
	uint64		processed;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(run->statement->desc, &TTSOpsMinimalTuple);

	for (int i = first; i <= last; i++)
	{
		if (!is_pending(&run->rows[i]))
			continue;
		run->rows[i].action = BATCH_SKIPPED;
		run->rows[i].key = NULL;
	}
	/* which finds a bad row late, with many before it written in vain */
	if (!run->has_failed && batch_statement_begin_direct(run, run->statement))
		processed = run_directly(run, first, last, slot);
	else
		processed = run_by_statement(run, first, last, slot);
	ExecDropSingleTupleTableSlot(slot);
	if (!run->statement->returning)
	{
		/* which of them a trigger skipped is not known, nor asked for */
		uint64		inserted = processed;

		for (int i = first; i <= last && inserted > 0; i++)
		{
			if (!is_pending(&run->rows[i]))
				continue;
			run->rows[i].action = BATCH_INSERTED;
			inserted--;
		}
	}
}

/*
 * Do something in a subtransaction, and in a memory context of its own, which
 * leave nothing behind when it fails.  Returns the error, if a row may be the
 * reason for it, or NULL.
 */
ErrorData *
batch_try(BatchRun *run, void (*action) (void *arg), void *arg)
{
	MemoryContext old_context = MemoryContextSwitchTo(run->batch_context);
	MemoryContext context = AllocSetContextCreate(run->batch_context, "perfopt batch try",
												  ALLOCSET_DEFAULT_SIZES);
	ErrorData  *error = perfopt_try(context, action, arg);

	if (error)
		run->direct = NULL;
	MemoryContextDelete(context);
	MemoryContextSwitchTo(old_context);
	if (error && !batch_is_of_a_row(error->sqlerrcode))
		ReThrowError(error);
	return error;
}

typedef struct Range
{
	BatchRun   *run;
	int			first;
	int			last;
} Range;

static void
run_range(void *arg)
{
	const Range *range = arg;

	run_rows(range->run, range->first, range->last);
}

/* Run rows in a subtransaction.  Returns why they failed, or NULL. */
static ErrorData *
try_rows(BatchRun *run, int first, int last)
{
	Range		range = {run, first, last};
	ErrorData  *error;

	run->progress.row = 0;
	run->progress.done = false;
	error = batch_try(run, run_range, &range);
	if (error == NULL)
		return NULL;
	run->has_failed = true;
	if (run->progress.row == 0 && !run->progress.done)
		ReThrowError(error);
	return error;
}

/*
 * Run the rows from first to last, and reject those that fail.  After a bad
 * one they are run in steps that start small and grow, so that what has been
 * done in vain when the next is found is no more than was done to some purpose.
 */
static void
run_or_reject(BatchRun *run, int first, int last)
{
	int64		first_ordinal = run->num_read - run->num_pending + 1;
	int			step = last - first + 1;

	check_stack_depth();
	while (first <= last)
	{
		ErrorData  *error;
		int			end;
		int			failed;

		CHECK_FOR_INTERRUPTS();
		if (!is_pending(&run->rows[first]))
		{
			first++;
			continue;
		}
		end = first + Min(step, last - first + 1) - 1;
		while (!is_pending(&run->rows[end]))
			end--;

		error = try_rows(run, first, end);
		failed = (int) (run->progress.row - first_ordinal);
		if (error == NULL)
		{
			first = end + 1;
			step = Min(step, INT_MAX / 2) * 2;
		}
		else if (first == end || (!run->progress.done && failed == first))
		{
			reject(&run->rows[first], error);
			first++;
			step = 1;
		}
		else if (run->progress.done)
		{
			int			size = (end - first) / PARTS + 1;

			FreeErrorData(error);
			for (; first <= end; first += size)
				run_or_reject(run, first, Min(first + size - 1, end));
			first = end + 1;
		}
		else if (failed > first && failed <= end)
		{
			FreeErrorData(error);
			run_or_reject(run, first, failed - 1);
			first = failed;
			step = 1;
		}
		else
			elog(ERROR, "a batched insert has lost its place");
	}
}

/* ---------------------------------------------------------------------
 * A run
 */
void
batch_run_begin(BatchRun *run)
{
	run->context = AllocSetContextCreate(CurrentMemoryContext, "perfopt batched insert",
										 ALLOCSET_DEFAULT_SIZES);
	run->batch_context = AllocSetContextCreate(run->context, "perfopt batch",
											   ALLOCSET_DEFAULT_SIZES);
	run->row_context = AllocSetContextCreate(run->context, "perfopt batch row",
											 ALLOCSET_DEFAULT_SIZES);
	run->returning = (run->emit || run->options.on_conflict == BATCH_CONFLICT_UPDATE) &&
		(run->want_keys || !run->target.has_insert_rules);
	run->relation = MemoryContextAllocZero(run->context, sizeof(EphemeralNamedRelationData));
	run->relation->md.name = BATCH_RELATION;
	run->relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	run->relation->md.reliddesc = InvalidOid;
	/* what plans are made for; they are kept, whatever the number of rows */
	run->relation->md.enrtuples = 1000;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_register_relation(run->relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the rows of a batched insert");
	MemoryContextSwitchTo(run->context);
}

static int
batch_size(const BatchRun *run)
{
	if (run->options.batch_size > 0)
		return run->options.batch_size;
	return run->options.skip ? DEFAULT_BATCH_SIZE : INT_MAX;
}

/* Can a row for the statement, or a rejected one, be added to those that are pending? */
bool
batch_run_has_room(BatchRun *run, BatchStatement *statement)
{
	return run->num_pending == 0 ||
		(run->num_pending < batch_size(run) &&
		 (statement == NULL || run->statement == NULL || run->statement == statement));
}

/* The next of the kept rows. */
static BatchRow *
keep_row(BatchRun *run)
{
	BatchRow   *row;

	if (run->num_pending == run->max_rows)
	{
		run->max_rows = Max(run->max_rows * 2, 64);
		run->rows = run->rows ? repalloc_huge(run->rows, sizeof(BatchRow) * run->max_rows) :
			MemoryContextAllocHuge(run->context, sizeof(BatchRow) * run->max_rows);
	}
	row = &run->rows[run->num_pending];
	memset(row, 0, sizeof(BatchRow));
	return row;
}

static void
add_directly(BatchRun *run, Datum *values, bool *isnull)
{
	ErrorContextCallback callback;

	callback.callback = batch_row_context;
	callback.arg = run;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	batch_direct_row(run->direct, values, isnull, run->num_read + 1);
	error_context_stack = callback.previous;
}

/*
 * Add a row.  The values are those of the statement's columns, and room for
 * the ordinal.
 */
void
batch_run_add(BatchRun *run, BatchStatement *statement, Datum *values, bool *isnull,
			  const JsonbValue *source)
{
	run->statement = statement;
	values[statement->num_columns] = Int64GetDatum(run->num_read + 1);
	isnull[statement->num_columns] = false;
	if (rows_are_kept(run, statement))
	{
		BatchRow   *row = keep_row(run);
		MemoryContext old_context = MemoryContextSwitchTo(run->batch_context);

		row->tuple = perfopt_form_minimal_tuple(statement->desc, values, isnull);
		row->has_source = source != NULL;
		if (source)
			row->source = *source;
		MemoryContextSwitchTo(old_context);
	}
	else
	{
		if (run->num_pending == 0)
		{
			MemoryContext old_context = MemoryContextSwitchTo(run->batch_context);

			if (!batch_statement_begin_direct(run, statement))
				run->store = tuplestore_begin_heap(false, false, Max(work_mem, 64));
			MemoryContextSwitchTo(old_context);
		}
		if (run->direct)
			add_directly(run, values, isnull);
		else
			tuplestore_putvalues(run->store, statement->desc, values, isnull);
	}
	run->num_pending++;
	run->num_read++;
}

/* Add one that has failed already; its statement, if any, is not known. */
void
batch_run_reject(BatchRun *run, ErrorData *error, const JsonbValue *source)
{
	BatchRow   *row = keep_row(run);

	Assert(run->options.skip);
	row->has_source = true;
	row->source = *source;
	reject(row, error);
	run->num_pending++;
	run->num_read++;
}

static uint64
end_directly(BatchRun *run)
{
	ErrorContextCallback callback;
	uint64		processed;

	callback.callback = batch_row_context;
	callback.arg = run;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	processed = batch_statement_end_direct(run, run->statement);
	error_context_stack = callback.previous;
	return processed;
}

static uint64
run_store(BatchRun *run)
{
	uint64		processed;

	batch_statement_end_store(run->statement, run->store);
	processed = batch_statement_run(run, run->statement, run->store);
	tuplestore_end(run->store);
	run->store = NULL;
	return processed;
}

/* Have the pending rows written. */
void
batch_run_flush(BatchRun *run)
{
	BatchStatement *statement = run->statement;
	MemoryContext old_context;
	uint64		processed;

	if (run->num_pending == 0)
		return;
	old_context = MemoryContextSwitchTo(run->batch_context);
	if (run->store || run->direct)
	{
		processed = run->direct ? end_directly(run) : run_store(run);
		if (statement->returning)
			emit_skipped(run, run->num_read);
		else
		{
			processed = Min(processed, run->num_pending);
			run->counts[BATCH_INSERTED] += processed;
			run->counts[BATCH_SKIPPED] += run->num_pending - processed;
			run->num_emitted = run->num_read;
		}
	}
	else
	{
		/* one by one, when what is returned could not be told apart */
		int			step = statement && statement->returning && !statement->streams ? 1 : run->num_pending;
		int			level = perfopt_own_loop_enter();

		for (int i = 0; i < run->num_pending; i += step)
		{
			if (run->options.skip)
				run_or_reject(run, i, i + step - 1);
			else
				run_rows(run, i, i + step - 1);
		}
		batch_note_rejects(run);
		perfopt_own_loop_leave(level);
		for (int i = 0; i < run->num_pending; i++)
			emit_row(run, run->num_emitted + 1, &run->rows[i]);
	}
	run->num_pending = 0;
	run->has_failed = false;
	run->statement = NULL;
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(run->batch_context);
}

void
batch_run_end(BatchRun *run)
{
	batch_run_flush(run);
	SPI_finish();
	MemoryContextDelete(run->context);
}
