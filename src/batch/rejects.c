/*
 * rejects.c
 *		perfopt.rejected_rows: rows that a batched insert could not store.
 *
 * They are noted by the role that inserted, in its transaction, after the
 * subtransaction that failed.  A policy keeps others' rows away.  Nobody has
 * the privilege to delete from the table, as that is one to lock it, and so
 * everybody's rows: perfopt.delete_rejected_rows() deletes, as the table's
 * owner, those of the role that calls it.
 */
#include "postgres.h"

#include "access/table.h"
#include "batch/insert_internal.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(perfopt_delete_rejected_rows);

/* Is it a rejected row that was not made from jsonb?  Then it is noted. */
static inline bool
lacks_source(const BatchRow *row)
{
	return row->action == BATCH_REJECTED && !row->has_source;
}

/* An object of the columns of each row, as the statement would be given them. */
static void
set_sources(BatchRun *run)
{
	BatchStatement *statement = run->statement;
	Tuplestorestate *store;
	TupleTableSlot *slot;
	StringInfoData text;
	int			num_rows = 0;
	int			next = 0;
	MemoryContext old_context = CurrentMemoryContext;

	for (int i = 0; i < run->num_pending; i++)
		if (lacks_source(&run->rows[i]))
			num_rows++;
	if (num_rows == 0)
		return;

	store = tuplestore_begin_heap(false, false, Max(work_mem, 64));
	slot = MakeSingleTupleTableSlot(statement->desc, &TTSOpsMinimalTuple);
	for (int i = 0; i < run->num_pending; i++)
	{
		if (!lacks_source(&run->rows[i]))
			continue;
		ExecStoreMinimalTuple(run->rows[i].tuple, slot, false);
		tuplestore_puttupleslot(store, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	run->relation->md.tupdesc = statement->desc;
	run->relation->reldata = store;

	initStringInfo(&text);
	appendStringInfoString(&text, "SELECT pg_catalog.to_jsonb(r) FROM (SELECT");
	for (int i = 0; i < statement->num_columns; i++)
		appendStringInfo(&text, "%s c%d AS %s", i == 0 ? "" : ",", i + 1,
						 quote_identifier(NameStr(TupleDescAttr(run->target.desc,
																statement->columns[i] - 1)->attname)));
	appendStringInfoString(&text, " FROM " BATCH_RELATION ") AS r");
	if (SPI_execute(text.data, false, 0) != SPI_OK_SELECT || SPI_processed != num_rows)
		elog(ERROR, "could not read rejected rows");
	MemoryContextSwitchTo(run->batch_context);
	for (int i = 0; i < run->num_pending; i++)
	{
		bool		isnull;
		Jsonb	   *payload;

		if (!lacks_source(&run->rows[i]))
			continue;
		payload = DatumGetJsonbPCopy(SPI_getbinval(SPI_tuptable->vals[next++],
												   SPI_tuptable->tupdesc, 1, &isnull));
		run->rows[i].has_source = true;
		run->rows[i].source.type = jbvBinary;
		run->rows[i].source.val.binary.data = &payload->root;
		run->rows[i].source.val.binary.len = VARSIZE_ANY_EXHDR(payload);
	}
	MemoryContextSwitchTo(old_context);
	SPI_freetuptable(SPI_tuptable);
	tuplestore_end(store);
}

/* Note the rejected ones of the pending rows. */
void
batch_note_rejects(BatchRun *run)
{
	Oid			types[] = {INT8OID, TEXTOID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID};
	SPIPlanPtr	plan = NULL;
	int64		first = run->num_read - run->num_pending + 1;
	int			nest_level = 0;
	MemoryContext old_context = CurrentMemoryContext;

	for (int i = 0; i < run->num_pending; i++)
	{
		BatchRow   *row = &run->rows[i];
		Datum		values[lengthof(types)];
		char		nulls[lengthof(types) + 1];

		if (row->action != BATCH_REJECTED || (run->noted && !run->noted[first + i - 1]))
			continue;
		if (plan == NULL)
		{
			set_sources(run);
			/* off is meant for the target, and fails what has a policy */
			nest_level = NewGUCNestLevel();
			(void) set_config_option("row_security", "on", PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
			plan = SPI_prepare("INSERT INTO perfopt.rejected_rows (batch, target, ordinal, sqlstate,"
							   " message, detail, constraint_name, column_name, payload)"
							   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
							   lengthof(types), types);
			if (plan == NULL)
				elog(ERROR, "could not note rejected rows: %s", SPI_result_code_string(SPI_result));
		}
		if (run->batch == 0)
			run->batch = nextval_internal(get_relname_relid("rejected_rows_id_seq",
															get_namespace_oid("perfopt", false)), false);
		/* SPI leaves its own context, which stays, as the current one */
		MemoryContextReset(run->row_context);
		MemoryContextSwitchTo(run->row_context);
		memset(nulls, ' ', sizeof(nulls));
		values[0] = Int64GetDatum(run->batch);
		values[1] = CStringGetTextDatum(run->target.name);
		values[2] = Int64GetDatum(first + i);
		values[3] = CStringGetTextDatum(unpack_sql_state(row->error->sqlerrcode));
		values[4] = CStringGetTextDatum(row->error->message ? row->error->message : "");
		if (row->error->detail)
			values[5] = CStringGetTextDatum(row->error->detail);
		else
			nulls[5] = 'n';
		if (row->error->constraint_name)
			values[6] = CStringGetTextDatum(row->error->constraint_name);
		else
			nulls[6] = 'n';
		if (row->error->column_name)
			values[7] = CStringGetTextDatum(row->error->column_name);
		else
			nulls[7] = 'n';
		values[8] = JsonbPGetDatum(JsonbValueToJsonb(&row->source));
		if (SPI_execute_plan(plan, values, nulls, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not note a rejected row");
	}
	if (plan)
	{
		SPI_freeplan(plan);
		AtEOXact_GUC(true, nest_level);
	}
	MemoryContextSwitchTo(old_context);
}

/* A row of a flush that was not inserted for a reason of its target, say. */
void
batch_note_rejected(Oid target, Jsonb *row, const BatchVerdict *verdict)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID};
	Datum		values[lengthof(types)];
	char		nulls[] = "       ";
	char	   *name = get_rel_name(target);

	values[0] = Int64GetDatum(nextval_internal(get_relname_relid("rejected_rows_id_seq",
																 get_namespace_oid("perfopt", false)), false));
	values[1] = CStringGetTextDatum(name == NULL ? psprintf("%u", target) :
									quote_qualified_identifier(get_namespace_name(get_rel_namespace(target)), name));
	values[2] = CStringGetTextDatum(unpack_sql_state(verdict->sqlerrcode));
	values[3] = CStringGetTextDatum(verdict->message);
	values[4] = CStringGetTextDatum(verdict->detail ? verdict->detail : "");
	nulls[4] = verdict->detail ? ' ' : 'n';
	values[5] = CStringGetTextDatum(verdict->constraint ? verdict->constraint : "");
	nulls[5] = verdict->constraint ? ' ' : 'n';
	values[6] = JsonbPGetDatum(row);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args("INSERT INTO perfopt.rejected_rows (batch, target, ordinal, sqlstate,"
							  " message, detail, constraint_name, payload)"
							  " VALUES ($1, $2, 1, $3, $4, $5, $6, $7)",
							  lengthof(types), types, values, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not note a rejected row");
	SPI_finish();
}

Datum
perfopt_delete_rejected_rows(PG_FUNCTION_ARGS)
{
	Oid			types[] = {OIDOID, INT8OID};
	Datum		values[2];
	char		nulls[3] = "  ";
	Oid			role = GetUserId();
	int			security_context;
	Relation	table;
	int64		num_rows;

	values[0] = ObjectIdGetDatum(role);
	values[1] = PG_ARGISNULL(0) ? (Datum) 0 : PG_GETARG_DATUM(0);
	if (PG_ARGISNULL(0))
		nulls[1] = 'n';

	table = table_open(get_relname_relid("rejected_rows", get_namespace_oid("perfopt", false)),
					   RowExclusiveLock);
	GetUserIdAndSecContext(&role, &security_context);
	SetUserIdAndSecContext(table->rd_rel->relowner,
						   security_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args("DELETE FROM perfopt.rejected_rows"
							  " WHERE role OPERATOR(pg_catalog.=) $1"
							  " AND ($2 IS NULL OR batch OPERATOR(pg_catalog.=) $2)",
							  2, types, values, nulls, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete rejected rows");
	num_rows = (int64) SPI_processed;
	SPI_finish();
	SetUserIdAndSecContext(role, security_context);
	table_close(table, NoLock);
	PG_RETURN_INT64(num_rows);
}
