/*
 * insert_statement.c
 *		One INSERT over many rows, with all that an INSERT means.
 *
 * The rows are in a tuplestore that the statement reads under a name of its
 * own, as triggers read transition tables:
 *
 *		INSERT INTO "s"."t" ("a", "b") SELECT s.c1, s.c2 FROM perfopt_batch AS s
 *		WHERE perfopt.batch_row(s.n) ON CONFLICT ... RETURNING ...
 *
 * So privileges, row level security, rules, views, partitions, foreign tables,
 * defaults, casts and triggers are the server's own.
 *
 * Which row is in work
 *
 * perfopt.batch_row() notes the ordinal of each row as it is read.  A plan that
 * is a ModifyTable over nothing but a scan reads a row, writes it, and returns
 * what RETURNING says of it, before it reads the next one: then a row that is
 * returned, or an error, belongs to the ordinal that was noted last.  After the
 * last row comes one that is none, with ordinal 0: an error after that is of
 * the statement's end, where AFTER triggers and foreign keys are.  ON CONFLICT
 * DO UPDATE has WHERE perfopt.batch_row(-1), which is evaluated for a row that
 * updates another one.  Whoever relies on that asks whether the statement
 * "streams", which is read off its plan.
 *
 * Triggers may insert in batches themselves, so the notes are a stack.
 */
#include "postgres.h"

#include "batch/insert_internal.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "nodes/plannodes.h"
#include "parser/parse_coerce.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"

PG_FUNCTION_INFO_V1(perfopt_batch_row);

/* Ordinals that are none. */
#define NO_ROW			0
#define ROW_UPDATES		(-1)

/* The statements that are running. */
static BatchProgress *progress = NULL;

/* ---------------------------------------------------------------------
 * The row in work
 */

Datum
perfopt_batch_row(PG_FUNCTION_ARGS)
{
	int64		row = PG_GETARG_INT64(0);

	if (progress == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s can only be called by perfopt.batch_insert()", "perfopt.batch_row()")));
	progress->updating = (row == ROW_UPDATES);
	if (row == ROW_UPDATES)
		PG_RETURN_BOOL(true);
	progress->done = (row == NO_ROW);
	if (row == NO_ROW)
		PG_RETURN_BOOL(false);
	progress->row = row;
	PG_RETURN_BOOL(true);
}

/* Error context callback: which row it was. */
void
batch_row_context(void *arg)
{
	BatchRun   *run = arg;

	if (run->progress.row != 0 && !run->progress.done)
		errcontext("row %lld of the batch", (long long) run->progress.row);
}

/* ---------------------------------------------------------------------
 * Plans that are kept for the session
 */
#define MAX_PLANS	32

typedef struct KeptPlan
{
	char	   *key;			/* NULL: free */
	SPIPlanPtr	plan;
	uint64		last_used;
} KeptPlan;

static KeptPlan kept_plans[MAX_PLANS];
static uint64 kept_clock = 0;

/* Calls that have got one, and may not lose it. */
static int	plans_in_use = 0;

/*
 * The statement's plan, kept or new, for as long as plans_in_use is not zero;
 * a new one is kept if there is room.
 */
static SPIPlanPtr
get_plan(BatchStatement *statement)
{
	StringInfoData key;
	SPIPlanPtr	plan;
	KeptPlan   *victim = NULL;
	MemoryContext old_context = CurrentMemoryContext;

	Assert(plans_in_use > 0);
	if (statement->plan)
		return statement->plan;

	initStringInfo(&key);
	for (int i = 0; i < statement->desc->natts; i++)
		appendStringInfo(&key, "%u/%d ", TupleDescAttr(statement->desc, i)->atttypid,
						 TupleDescAttr(statement->desc, i)->atttypmod);
	appendStringInfoString(&key, statement->text);
	for (int i = 0; i < MAX_PLANS; i++)
	{
		KeptPlan   *kept = &kept_plans[i];

		if (kept->key && strcmp(kept->key, key.data) == 0)
		{
			kept->last_used = ++kept_clock;
			pfree(key.data);
			return kept->plan;
		}
	}

	plan = SPI_prepare(statement->text, 0, NULL);
	/* SPI leaves its own, which lasts as long as the call, as the current one */
	MemoryContextSwitchTo(old_context);
	if (plan == NULL)
		elog(ERROR, "could not prepare a batched insert: %s",
			 SPI_result_code_string(SPI_result));
	for (int i = 0; i < MAX_PLANS; i++)
	{
		if (victim == NULL || kept_plans[i].last_used < victim->last_used)
			victim = &kept_plans[i];
	}
	if (victim->key == NULL || plans_in_use == 1)
	{
		char	   *copy = MemoryContextStrdup(TopMemoryContext, key.data);

		if (SPI_keepplan(plan) != 0)
			elog(ERROR, "could not keep the plan of a batched insert");
		if (victim->key)
		{
			pfree(victim->key);
			SPI_freeplan(victim->plan);
		}
		victim->key = copy;
		victim->plan = plan;
		victim->last_used = ++kept_clock;
	}
	else
		/* it lasts as long as the call's SPI connection */
		statement->plan = plan;
	pfree(key.data);
	return plan;
}

/* ---------------------------------------------------------------------
 * Statements
 */

/* Is it a ModifyTable that reads the rows, and nothing in between holds them? */
static bool
plan_streams(List *statements)
{
	PlannedStmt *stmt;
	Plan	   *plan;

	if (list_length(statements) != 1)
		return false;
	stmt = linitial_node(PlannedStmt, statements);
	if (stmt->commandType != CMD_INSERT || !IsA(stmt->planTree, ModifyTable))
		return false;
	plan = outerPlan(stmt->planTree);
	for (;;)
	{
		if (plan == NULL)
			return false;
		else if (IsA(plan, NamedTuplestoreScan))
			return true;
		else if (IsA(plan, SubqueryScan))
			plan = ((SubqueryScan *) plan)->subplan;
		else if (IsA(plan, Result))
			plan = outerPlan(plan);
		else
			return false;
	}
}

static void
append_names(StringInfo buf, List *names)
{
	ListCell   *cell;

	foreach(cell, names)
		appendStringInfo(buf, "%s%s", cell == list_head(names) ? "" : ", ",
						 quote_identifier(lfirst(cell)));
}

static bool
names_contain(List *names, const char *name)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	}
	return false;
}

static void
append_conflict(StringInfo buf, BatchRun *run, BatchStatement *statement)
{
	const BatchOptions *options = &run->options;
	List	   *conflict = options->conflict_columns;
	List	   *update = options->update_columns;
	ListCell   *cell;

	if (options->on_conflict == BATCH_CONFLICT_ERROR)
		return;
	if (options->on_conflict == BATCH_CONFLICT_UPDATE)
	{
		if (conflict == NIL)
			conflict = run->target.primary_key;
		if (conflict == NIL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s has no primary key to update by", run->target.name),
					 errhint("Name the columns of a unique index in conflict_columns.")));
	}
	appendStringInfoString(buf, " ON CONFLICT");
	if (conflict)
	{
		appendStringInfoString(buf, " (");
		append_names(buf, conflict);
		appendStringInfoChar(buf, ')');
	}
	if (options->on_conflict == BATCH_CONFLICT_UPDATE && update == NIL)
	{
		for (int i = 0; i < statement->num_columns; i++)
		{
			char	   *name = NameStr(TupleDescAttr(run->target.desc, statement->columns[i] - 1)->attname);

			if (!names_contain(conflict, name))
				update = lappend(update, name);
		}
	}
	/* rows that are nothing but their key leave the old row as it is */
	if (options->on_conflict == BATCH_CONFLICT_NOTHING || update == NIL)
	{
		appendStringInfoString(buf, " DO NOTHING");
		return;
	}
	appendStringInfoString(buf, " DO UPDATE SET ");
	foreach(cell, update)
		appendStringInfo(buf, "%s%s = excluded.%s", cell == list_head(update) ? "" : ", ",
						 quote_identifier(lfirst(cell)), quote_identifier(lfirst(cell)));
	appendStringInfo(buf, " WHERE perfopt.batch_row(%d)", ROW_UPDATES);
}

/* RETURNING the row's key as jsonb, or something */
static void
append_returning(StringInfo buf, BatchRun *run)
{
	List	   *key = run->options.key_columns;
	ListCell   *cell;

	if (key == NIL)
		key = run->target.primary_key;
	if (key == NIL)
		key = run->target.replica_identity;
	if (!run->want_keys || key == NIL)
	{
		appendStringInfoString(buf, " RETURNING NULL::pg_catalog.jsonb");
		return;
	}
	if (list_length(key) > FUNC_MAX_ARGS / 2)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_ARGUMENTS),
				 errmsg("more than %d key columns", FUNC_MAX_ARGS / 2)));
	appendStringInfoString(buf, " RETURNING pg_catalog.jsonb_build_object(");
	foreach(cell, key)
	{
		if (cell != list_head(key))
			appendStringInfoString(buf, ", ");
		(void) batch_target_column(&run->target, lfirst(cell));
		appendStringInfo(buf, "%s::pg_catalog.text, %s.%s", quote_literal_cstr(lfirst(cell)),
						 "batch_target", quote_identifier(lfirst(cell)));
	}
	appendStringInfoChar(buf, ')');
}

/*
 * How a value of the row, named by expression, becomes the column's.  Whatever
 * INSERT can assign, it does; of the rest, text is read as COPY reads it.
 */
static char *
assigned_expression(const char *expression, Oid type, Form_pg_attribute column)
{
	Oid			target = column->atttypid;

	if (type == target || can_coerce_type(1, &type, &target, COERCION_ASSIGNMENT))
		return pstrdup(expression);
	if (TypeCategory(type) == TYPCATEGORY_STRING)
		/* The length is applied by the assignment, which does not cut. */
		return psprintf("%s::%s", expression,
						format_type_extended(getBaseType(target), -1,
											 FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	return pstrdup(expression);
}

/* The plan as it is now; release_plan() gives it back. */
static CachedPlan *
current_plan(BatchStatement *statement)
{
	SPIPlanPtr	plan = get_plan(statement);

	/* what the planner leaves behind */
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "perfopt batch plan",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	CachedPlan *cached = SPI_plan_get_cached_plan(plan);

	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	return cached;
}

static void
release_plan(BatchStatement *statement, CachedPlan *plan)
{
	/* one that is not kept has no owner */
	ReleaseCachedPlan(plan, statement->plan ? NULL : CurrentResourceOwner);
}

/* Learn from its plan how the statement will go about it. */
static void
look_at_plan(BatchRun *run, BatchStatement *statement)
{
	CachedPlan *plan;

	plans_in_use++;
	PG_TRY();
	{
		statement->streams = false;
		statement->objection = "it has no plan of its own";
		plan = current_plan(statement);
		if (plan)
		{
			statement->streams = plan_streams(plan->stmt_list);
			statement->objection = batch_direct_objection(run, plan->stmt_list);
			release_plan(statement, plan);
		}
	}
	PG_FINALLY();
	{
		plans_in_use--;
	}
	PG_END_TRY();
}

/* A statement for rows with these columns and types, in the current memory context. */
BatchStatement *
batch_statement_make(BatchRun *run, int num_columns, const AttrNumber *columns,
					 const Oid *types, const int32 *typmods)
{
	BatchStatement *statement = palloc0(sizeof(BatchStatement));
	StringInfoData sql;

	statement->num_columns = num_columns;
	statement->columns = palloc(sizeof(AttrNumber) * Max(num_columns, 1));
	statement->desc = CreateTemplateTupleDesc(num_columns + 1);

	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s AS batch_target", run->target.name);
	for (int i = 0; i < num_columns; i++)
	{
		Form_pg_attribute column = TupleDescAttr(run->target.desc, columns[i] - 1);
		char		name[NAMEDATALEN];

		statement->columns[i] = columns[i];
		snprintf(name, sizeof(name), "c%d", i + 1);
		TupleDescInitEntry(statement->desc, i + 1, name, types[i], typmods[i], 0);
		appendStringInfo(&sql, "%s%s", i == 0 ? " (" : ", ",
						 quote_identifier(NameStr(column->attname)));
	}
	TupleDescInitEntry(statement->desc, num_columns + 1, "n", INT8OID, -1, 0);
	perfopt_tuple_desc_complete(statement->desc);
	appendStringInfo(&sql, "%s SELECT", num_columns == 0 ? "" : ")");
	for (int i = 0; i < num_columns; i++)
		appendStringInfo(&sql, "%s%s", i == 0 ? " " : ", ",
						 assigned_expression(psprintf("s.c%d", i + 1), types[i],
											 TupleDescAttr(run->target.desc, columns[i] - 1)));
	appendStringInfoString(&sql, " FROM " BATCH_RELATION " AS s WHERE perfopt.batch_row(s.n)");
	append_conflict(&sql, run, statement);
	run->relation->md.tupdesc = statement->desc;

	/* Of rows that go in directly it is known that they do. */
	if (!run->want_keys && run->options.on_conflict == BATCH_CONFLICT_ERROR)
	{
		statement->text = sql.data;
		look_at_plan(run, statement);
		if (!run->returning || statement->objection == NULL)
			return statement;
		statement->plan = NULL;
	}
	if (run->returning)
	{
		append_returning(&sql, run);
		statement->returning = true;
	}
	statement->text = sql.data;
	look_at_plan(run, statement);
	return statement;
}

/* ---------------------------------------------------------------------
 * Running them
 */

/* Takes what the statement returns of each row it has written. */
typedef struct WrittenReceiver
{
	DestReceiver pub;
	BatchRun   *run;
} WrittenReceiver;

static bool
receive_written(TupleTableSlot *slot, DestReceiver *self)
{
	WrittenReceiver *receiver = (WrittenReceiver *) self;
	bool		isnull;
	Datum		key = slot_getattr(slot, 1, &isnull);

	batch_row_written(receiver->run, key, isnull);
	return true;
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
receiver_shutdown(DestReceiver *self)
{
}

/* The row that is none, after the others. */
void
batch_statement_end_store(BatchStatement *statement, Tuplestorestate *store)
{
	Datum	   *values = palloc0(sizeof(Datum) * statement->desc->natts);
	bool	   *isnull = palloc(sizeof(bool) * statement->desc->natts);

	memset(isnull, true, statement->desc->natts);
	isnull[statement->num_columns] = false;
	values[statement->num_columns] = Int64GetDatum(NO_ROW);
	tuplestore_putvalues(store, statement->desc, values, isnull);
	pfree(values);
	pfree(isnull);
}

/*
 * Begin to insert the direct way, if that can be done: then rows are given to
 * batch_direct_row().
 */
bool
batch_statement_begin_direct(BatchRun *run, BatchStatement *statement)
{
	volatile bool possible = false;

	if (statement->objection)
		return false;
	run->relation->md.tupdesc = statement->desc;
	run->progress.row = 0;
	run->progress.done = false;
	run->progress.updating = false;
	plans_in_use++;
	PG_TRY();
	{
		CachedPlan *plan = current_plan(statement);

		/* what was seen before is no more than likely */
		if (plan)
			statement->objection = batch_direct_objection(run, plan->stmt_list);
		possible = plan != NULL && statement->objection == NULL;
		if (possible)
			/* what it needs of the plan stays, whatever becomes of kept ones */
			run->direct = batch_direct_begin(run, statement, plan);
		else if (plan)
			release_plan(statement, plan);
	}
	PG_FINALLY();
	{
		plans_in_use--;
	}
	PG_END_TRY();
	return possible;
}

uint64
batch_statement_end_direct(BatchRun *run, BatchStatement *statement)
{
	CachedPlan *plan;
	uint64		processed;

	run->progress.done = true;
	processed = batch_direct_end(run->direct, &plan);
	run->direct = NULL;
	release_plan(statement, plan);
	return processed;
}

static uint64
execute(BatchRun *run, BatchStatement *statement)
{
	WrittenReceiver receiver = {
		.pub = {
			.receiveSlot = receive_written,
			.rStartup = receiver_startup,
			.rShutdown = receiver_shutdown,
			.rDestroy = receiver_shutdown,
			.mydest = DestNone
		},
		.run = run
	};
	SPIExecuteOptions options = {0};
	MemoryContext old_context = CurrentMemoryContext;
	int			result;

	if (statement->returning)
		options.dest = &receiver.pub;
	result = SPI_execute_plan_extended(get_plan(statement), &options);
	MemoryContextSwitchTo(old_context);
	if (result < 0)
		elog(ERROR, "could not run a batched insert: %s", SPI_result_code_string(result));
	return SPI_processed;
}

/*
 * Run the statement over the rows.  Returns how many it says it has written;
 * run->progress tells how far it came, also when it fails.
 */
uint64
batch_statement_run(BatchRun *run, BatchStatement *statement, Tuplestorestate *store)
{
	ErrorContextCallback callback;
	volatile uint64 processed = 0;

	run->relation->md.tupdesc = statement->desc;
	run->relation->reldata = store;

	callback.callback = batch_row_context;
	callback.arg = run;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	run->progress.outer = progress;
	run->progress.row = 0;
	run->progress.done = false;
	run->progress.updating = false;
	progress = &run->progress;
	plans_in_use++;
	PG_TRY();
	{
		processed = execute(run, statement);
	}
	PG_FINALLY();
	{
		progress = run->progress.outer;
		plans_in_use--;
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
	return processed;
}
