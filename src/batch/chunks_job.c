/*
 * chunks_job.c
 *		A job of chunked work as a row of perfopt.batch_job: how it is made, and
 *		what is asked of it afterwards.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "batch/batch_internal.h"
#include "batch/chunks_internal.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/shmem.h"
#include "common/text_settings.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "optimizer/plancat.h"
#include "parser/analyze.h"
#include "parser/parse_node.h"
#include "parser/parse_param.h"
#include "parser/parser.h"
#include "parser/parsetree.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(perfopt_run_in_batches);
PG_FUNCTION_INFO_V1(perfopt_batch_wait);
PG_FUNCTION_INFO_V1(perfopt_batch_help);
PG_FUNCTION_INFO_V1(perfopt_batch_pause);
PG_FUNCTION_INFO_V1(perfopt_batch_resume);
PG_FUNCTION_INFO_V1(perfopt_batch_cancel);

/* perfopt.run_in_batches()'s, by position */
enum
{
	ARG_TARGET, ARG_STATEMENT, ARG_SET_LIST, ARG_WHERE_CLAUSE, ARG_BATCH_SIZE, ARG_WORKERS,
	ARG_KEY, ARG_CHUNK_DURATION, ARG_MAX_LOCK_WAIT, ARG_MAX_REPLICATION_LAG, ARG_MAX_ATTEMPTS,
	ARG_MAX_FAILED, ARG_WAIT, ARG_JOB
};

/* ---------------------------------------------------------------------
 * What is to be run
 */

/* The parameters a statement refers to, while it is analysed. */
typedef struct Params
{
	Oid		   *types;
	int			num;
	Bitmapset  *seen;
} Params;

static Params *analysed;		/* of the one analysis there is at a time */
static ParseParamRefHook fixed_params;

static Node *
note_param(ParseState *pstate, ParamRef *param)
{
	Node	   *result = fixed_params(pstate, param);

	analysed->seen = bms_add_member(analysed->seen, param->number);
	return result;
}

static void
set_up_params(ParseState *pstate, void *arg)
{
	Params	   *params = arg;

	setup_parse_fixed_parameters(pstate, params->types, params->num);
	fixed_params = pstate->p_paramref_hook;
	pstate->p_paramref_hook = note_param;
	analysed = params;
}

/* Is it the table, or one whose rows are among the table's, or the other way round? */
static bool
shares_rows(const ChunkKey *key, Oid relid)
{
	return relid == key->relid ||
		list_member_oid(find_all_inheritors(key->relid, NoLock, NULL), relid) ||
		list_member_oid(find_all_inheritors(relid, NoLock, NULL), key->relid);
}

/* Does what is set in the table, whose columns may have other numbers, move rows? */
static void
check_columns(const ChunkKey *key, Oid relid, List *set)
{
	ListCell   *lc;

	if (key->ctid)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a statement that updates a table without a key cannot be run in batches"),
				 errdetail("Updated rows move, and would be updated again."),
				 errhint("Use set_list, or name NOT NULL columns that lead an index as the key.")));
	if (key->generated)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the statement updates a table whose key is a generated column"),
				 errdetail("Rows could move to other chunks, and be done again."),
				 errhint("Name other columns as the key.")));
	foreach(lc, set)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);
		char	   *name = entry->resjunk ? NULL : get_attname(relid, entry->resno, true);

		for (int i = 0; name && i < key->num; i++)
			if (strcmp(name, key->names[i]) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("the statement sets column \"%s\" of the key", key->names[i]),
						 errdetail("Rows would move to other chunks, and be done again.")));
	}
}

/*
 * Would it move rows to other chunks?  What functions and triggers do is not
 * seen.
 */
static void
check_update(const ChunkKey *key, Query *query, bool excludes_own)
{
	Oid			relid;
	ListCell   *lc;

	foreach(lc, query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

		if (IsA(cte->ctequery, Query))
			check_update(key, castNode(Query, cte->ctequery), false);
	}
	if (query->resultRelation == 0)
		return;
	relid = rt_fetch(query->resultRelation, query->rtable)->relid;
	if (!shares_rows(key, relid))
		return;
	if (query->commandType == CMD_UPDATE && !(key->ctid && excludes_own))
		check_columns(key, relid, query->targetList);
	if (query->onConflict && query->onConflict->action == ONCONFLICT_UPDATE)
		check_columns(key, relid, query->onConflict->onConflictSet);
	foreach(lc, query->mergeActionList)
	{
		MergeAction *action = lfirst_node(MergeAction, lc);

		if (action->commandType == CMD_UPDATE)
			check_columns(key, relid, action->targetList);
	}
}

/*
 * An update of a table cut by ctid knows its own rows by their xmin.  Rows that
 * a trigger updates in a subtransaction have another one.
 */
static void
check_triggers(const ChunkKey *key, Relation rel)
{
	for (int i = 0; key->ctid && rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (!trigger->tgisinternal && TRIGGER_FOR_UPDATE(trigger->tgtype))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("an update of a table without a key cannot be run in batches when it has triggers"),
					 errdetail("Trigger \"%s\" could update rows that would not be known as done.", trigger->tgname),
					 errhint("Name NOT NULL columns that lead an index as the key.")));
	}
}

static char *
param_list(int first, int num)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < num; i++)
		appendStringInfo(&buf, "%s$%d", i > 0 ? ", " : "", first + i);
	return num > 1 ? psprintf("(%s)", buf.data) : buf.data;
}

/* A hint how a statement asks for the rows of the chunk. */
static char *
how_to_ask(const ChunkKey *key)
{
	StringInfoData columns;
	StringInfoData types;

	if (key->ctid)
		return "The table is cut by ctid: ctid BETWEEN $1 AND $2, which are of type tid."
			" For another order, name NOT NULL columns that lead an index as the key.";
	initStringInfo(&columns);
	initStringInfo(&types);
	for (int i = 0; i < key->num; i++)
	{
		appendStringInfo(&columns, "%s%s", i > 0 ? ", " : "", quote_identifier(key->names[i]));
		appendStringInfo(&types, "%s%s", i > 0 ? ", " : "", format_type_be(key->types[i]));
	}
	if (key->num > 1)
	{
		appendStringInfoChar(&columns, ')');
		columns.data = psprintf("(%s", columns.data);
	}
	return psprintf("The chunks' key is %s, of type %s: %s BETWEEN %s AND %s.", columns.data,
					types.data, columns.data, param_list(1, key->num),
					param_list(key->num + 1, key->num));
}

/*
 * Error context callback, with that hint: parameters may have been taken for
 * something else.
 */
static void
explain_params(void *hint)
{
	switch (geterrcode())
	{
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_AMBIGUOUS_FUNCTION:
		case ERRCODE_UNDEFINED_PARAMETER:
		case ERRCODE_DATATYPE_MISMATCH:
		case ERRCODE_CANNOT_COERCE:
		case ERRCODE_SYNTAX_ERROR:	/* rows of unequal length are compared */
			errhint("%s", (char *) hint);
	}
}

/*
 * Is it one statement that is about the chunk?  If update_statement() generated
 * it, it is, and excludes rows that it has done.
 */
static void
check_statement(const ChunkKey *key, const char *statement, bool generated)
{
	List	   *parsed = raw_parser(statement, RAW_PARSE_DEFAULT);
	Params		params = {.num = 2 * key->num + 1};
	Query	   *query;
	ListCell   *lc;
	bool		lower = false;
	bool		upper = false;
	char	   *hint = how_to_ask(key);
	ErrorContextCallback callback;

	if (list_length(parsed) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("exactly one statement is expected")));
	params.types = palloc(sizeof(Oid) * params.num);
	for (int i = 0; i < 2 * key->num; i++)
		params.types[i] = key->types[i % key->num];
	params.types[2 * key->num] = INT8OID;
	callback.callback = explain_params;
	callback.arg = hint;
	callback.previous = error_context_stack;
	if (!generated)
		error_context_stack = &callback;
	query = parse_analyze_withcb(linitial_node(RawStmt, parsed), statement, set_up_params, &params,
								 NULL);
	error_context_stack = callback.previous;
	for (int i = 1; i <= key->num; i++)
	{
		lower |= bms_is_member(i, params.seen);
		upper |= bms_is_member(key->num + i, params.seen);
	}
	if (!lower || !upper)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the statement does not say which rows are the chunk's"),
				 errhint("%s", hint)));

	/* views and rules are replaced by what they stand for */
	foreach(lc, pg_rewrite_query(query))
		check_update(key, lfirst_node(Query, lc),
					 generated && lfirst_node(Query, lc)->querySource == QSRC_ORIGINAL);
}

static char *
update_statement(const ChunkKey *key, const char *set_list, const char *where_clause)
{
	StringInfoData buf;

	/* a comment at the end of what is given ends with the line */
	initStringInfo(&buf);
	appendStringInfo(&buf, "UPDATE %s SET %s\n WHERE %s", key->table, set_list,
					 chunk_key_condition(key));
	if (where_clause)
		appendStringInfo(&buf, " AND (%s\n)", where_clause);
	if (key->ctid)
		appendStringInfo(&buf, " AND NOT %s.xmin OPERATOR(pg_catalog.=) ANY"
						 " (SELECT c.xid::pg_catalog.xid FROM perfopt.batch_chunk c"
						 " WHERE c.job OPERATOR(pg_catalog.=) $3 AND c.xid IS NOT NULL)",
						 key->short_name);
	return buf.data;
}

void
chunk_explain(const ChunkKey *key, const char *statement, ChunkBound lower, ChunkBound upper)
{
	Oid		   *types;
	Datum	   *values;
	int			level = perfopt_text_settings_enter();
	int			num = chunk_key_params(key, lower, upper, 0, &types, &values);
	List	   *parsed;

	perfopt_text_settings_leave(level);
	parsed = raw_parser(statement, RAW_PARSE_DEFAULT);
	if (list_length(parsed) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("exactly one statement is expected")));
	if (!IsA(linitial_node(RawStmt, parsed)->stmt, CallStmt))
		chunks_execute(SPI_OK_UTILITY, psprintf("EXPLAIN %s", statement), num, types, values, NULL);
}

/* ---------------------------------------------------------------------
 * The table
 */

/*
 * What statistics say of one table's rows.  Not the planner's estimate, which
 * takes bloat for rows: it has reltuples grow with the file.  The count of live
 * rows is one if VACUUM or ANALYZE have begun it, else of what has happened
 * since statistics were lost.  Negative: there are none.
 */
static double
rows_by_statistics(Oid relid)
{
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(relid)};
	bool		isnull;
	int			level = perfopt_text_settings_enter();
	double		rows;

	chunks_execute(SPI_OK_SELECT,
				   "SELECT CASE WHEN coalesce(pg_stat_get_last_analyze_time(oid), pg_stat_get_last_autoanalyze_time(oid),"
				   "   pg_stat_get_last_vacuum_time(oid), pg_stat_get_last_autovacuum_time(oid)) IS NOT NULL"
				   "   THEN pg_stat_get_live_tuples(oid)::float8"
				   "   WHEN reltuples > 0 THEN reltuples::float8 ELSE -1::float8 END"
				   " FROM pg_class WHERE oid = $1", 1, types, values, NULL);
	rows = SPI_processed == 0 ? -1 :
		DatumGetFloat8(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	perfopt_text_settings_leave(level);
	return rows;
}

/* By statistics, or else by the table's size; partitions included. */
static double
estimate_rows(Relation rel)
{
	double		rows = 0;
	List	   *relids = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE || rel->rd_rel->relhassubclass ?
	find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL) :
	list_make1_oid(RelationGetRelid(rel));
	ListCell   *lc;

	foreach(lc, relids)
	{
		Relation	part = relation_open(lfirst_oid(lc), AccessShareLock);
		BlockNumber pages;
		double		tuples;
		double		all_visible;

		if (part->rd_rel->relkind == RELKIND_RELATION)
		{
			tuples = rows_by_statistics(RelationGetRelid(part));
			if (tuples < 0)
				estimate_rel_size(part, NULL, &pages, &tuples, &all_visible);
			rows += tuples;
		}
		relation_close(part, NoLock);
	}
	return rows;
}

static Relation
open_target(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (rel->rd_rel->relkind != RELKIND_RELATION && rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", RelationGetRelationName(rel))));
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("\"%s\" is a temporary table, which background workers do not see",
						RelationGetRelationName(rel))));
	return rel;
}

/* ---------------------------------------------------------------------
 * The job's row
 */
static int
int_argument(FunctionCallInfo fcinfo, int arg, const char *name, int min, int max)
{
	int			value;

	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	value = PG_GETARG_INT32(arg);
	if (value < min || value > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between %d and %d", name, min, max)));
	return value;
}

/* In ms, more than zero; the default when it is null. */
static double
interval_argument(FunctionCallInfo fcinfo, int arg, const char *name, double value)
{
	if (!PG_ARGISNULL(arg))
	{
		Interval   *interval = PG_GETARG_INTERVAL_P(arg);

		value = interval->time / 1000.0 +
			(interval->day + (double) interval->month * DAYS_PER_MONTH) * SECS_PER_DAY * 1000.0;
		if (value < 1 || value > INT_MAX / 2)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s must be between 1 ms and 12 days", name)));
	}
	return value;
}

/* Insert the row of a job described by the arguments.  Returns its id. */
static int64
make_job(FunctionCallInfo fcinfo, bool wait)
{
	int			batch_size = int_argument(fcinfo, ARG_BATCH_SIZE, "batch_size", 1, 10000000);
	int			workers = int_argument(fcinfo, ARG_WORKERS, "workers", 1, CHUNKS_MAX_WORKERS);
	int			max_attempts = int_argument(fcinfo, ARG_MAX_ATTEMPTS, "max_attempts", 1, 1000);
	int			max_failed = int_argument(fcinfo, ARG_MAX_FAILED, "max_failed", 0, INT_MAX);
	double		chunk_ms = interval_argument(fcinfo, ARG_CHUNK_DURATION, "chunk_duration", 1000);
	double		lock_ms = interval_argument(fcinfo, ARG_MAX_LOCK_WAIT, "max_lock_wait", 0);
	double		lag_ms = interval_argument(fcinfo, ARG_MAX_REPLICATION_LAG, "max_replication_lag", -1);
	Relation	rel;
	ChunkKey   *key;
	ChunkBound	first;
	ChunkBound	last = NULL;
	char	   *statement;
	double		estimated_rows;
	int			level;
	int64		id;
	bool		isnull;
	Oid			types[] = {REGCLASSOID, TEXTOID, OIDOID, NAMEARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID, INT4OID,
		INT4OID, FLOAT8OID, INT4OID, FLOAT8OID, INT4OID, INT4OID, TEXTARRAYOID, FLOAT8OID, TEXTOID,
	INT4OID};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types) + 1];

	if (PG_ARGISNULL(ARG_TARGET))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target must not be null")));
	if (PG_ARGISNULL(ARG_STATEMENT) == PG_ARGISNULL(ARG_SET_LIST))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("either statement or set_list is expected")));
	if (!PG_ARGISNULL(ARG_STATEMENT) && !PG_ARGISNULL(ARG_WHERE_CLAUSE))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("where_clause goes with set_list only"),
				 errhint("Write it into the statement.")));

	rel = open_target(PG_GETARG_OID(ARG_TARGET));
	key = chunk_key_make(rel, PG_ARGISNULL(ARG_KEY) ? NULL : PG_GETARG_ARRAYTYPE_P(ARG_KEY));
	statement = PG_ARGISNULL(ARG_STATEMENT) ?
		update_statement(key, text_to_cstring(PG_GETARG_TEXT_PP(ARG_SET_LIST)),
						 PG_ARGISNULL(ARG_WHERE_CLAUSE) ? NULL :
						 text_to_cstring(PG_GETARG_TEXT_PP(ARG_WHERE_CLAUSE))) :
		text_to_cstring(PG_GETARG_TEXT_PP(ARG_STATEMENT));
	check_statement(key, statement, PG_ARGISNULL(ARG_STATEMENT));
	if (PG_ARGISNULL(ARG_STATEMENT))
		check_triggers(key, rel);
	estimated_rows = estimate_rows(rel);

	if (chunk_key_ends(key, &first, &last))
		chunk_explain(key, statement, first, last);

	if (key->ctid)
		ereport(NOTICE,
				(errmsg("table %s has no key: it is cut by ctid", key->table),
				 errdetail("Rows that others update meanwhile may be left out, or done twice.")));

	memset(nulls, ' ', sizeof(nulls));
	nulls[lengthof(types)] = '\0';
	values[0] = ObjectIdGetDatum(key->relid);
	values[1] = CStringGetTextDatum(key->table);
	values[2] = ObjectIdGetDatum(rel->rd_rel->relfilenode);
	nulls[2] = key->ctid ? ' ' : 'n';
	values[3] = PointerGetDatum(chunk_key_names(key));
	values[4] = PointerGetDatum(chunk_bound_to_array(key, key->type_names));
	values[5] = CStringGetTextDatum(statement);
	values[6] = CStringGetTextDatum(chunks_capture_settings());
	values[7] = Int32GetDatum(batch_size);
	values[8] = Int32GetDatum(workers);
	values[9] = Float8GetDatum(chunk_ms);
	values[10] = Int32GetDatum((int) lock_ms);
	values[11] = Float8GetDatum(lag_ms);
	nulls[11] = lag_ms < 0 ? 'n' : ' ';
	values[12] = Int32GetDatum(max_attempts);
	values[13] = Int32GetDatum(max_failed);
	nulls[14] = last ? ' ' : 'n';
	values[14] = last ? PointerGetDatum(chunk_bound_to_array(key, last)) : (Datum) 0;
	values[15] = Float8GetDatum(estimated_rows);
	values[16] = CStringGetTextDatum(chunks_origin());
	values[17] = Int32GetDatum(batch_size);
	relation_close(rel, NoLock);

	level = perfopt_text_settings_enter();
	chunks_execute(SPI_OK_INSERT_RETURNING,
				   "INSERT INTO perfopt.batch_job"
				   " (target, target_name, target_file, key, key_types, statement, settings, batch_size, workers,"
				   "  chunk_ms, lock_ms, lag_ms, max_attempts, max_failed, last_key, estimated_rows,"
				   "  origin, chunk_size)"
				   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
				   " RETURNING id", lengthof(types), types, values, nulls);
	id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	perfopt_text_settings_leave(level);

	/* one worker: the session itself; another would take turns with it */
	if (!wait || workers > 1)
		perfopt_duty_wake_at_commit(CHUNKS_DUTY);
	return id;
}

ChunkJob *
chunk_job_read(int64 id, bool lock)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext old_context;
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(id)};
	Datum		column[27];
	bool		isnull[lengthof(column)];
	ChunkJob   *job;

	chunks_execute(SPI_OK_SELECT,
				   psprintf("SELECT id, role::oid, state, sqlstate, message, target::oid, target_file,"
							" key, statement, settings, batch_size, workers, chunk_ms, lock_ms, lag_ms,"
							" max_attempts, max_failed, estimated_rows, last_key, position, chunk_size,"
							" exhausted, origin, booted, deaths, key_types, target_name FROM perfopt.batch_job WHERE id = $1%s",
							lock ? " FOR NO KEY UPDATE" : ""),
				   1, types, values, NULL);
	if (SPI_processed == 0)
		return NULL;
	old_context = MemoryContextSwitchTo(context);
	for (int i = 0; i < lengthof(column); i++)
		column[i] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &isnull[i]);
	job = palloc0(sizeof(ChunkJob));
	job->id = id;
	job->role = DatumGetObjectId(column[1]);
	job->state = TextDatumGetCString(column[2]);
	job->sqlstate = isnull[3] ? NULL : TextDatumGetCString(column[3]);
	job->message = isnull[4] ? NULL : TextDatumGetCString(column[4]);
	job->target = DatumGetObjectId(column[5]);
	job->target_file = isnull[6] ? InvalidOid : DatumGetObjectId(column[6]);
	job->key_names = DatumGetArrayTypePCopy(column[7]);
	job->num_columns = ArrayGetNItems(ARR_NDIM(job->key_names), ARR_DIMS(job->key_names));
	job->key_types = chunk_bound_from_array(DatumGetArrayTypeP(column[25]), job->num_columns);
	job->target_name = TextDatumGetCString(column[26]);
	job->statement = TextDatumGetCString(column[8]);
	job->settings = TextDatumGetCString(column[9]);
	job->batch_size = DatumGetInt32(column[10]);
	job->workers = DatumGetInt32(column[11]);
	job->chunk_ms = DatumGetFloat8(column[12]);
	job->lock_ms = DatumGetInt32(column[13]);
	job->lag_ms = isnull[14] ? -1 : DatumGetFloat8(column[14]);
	job->max_attempts = DatumGetInt32(column[15]);
	job->max_failed = DatumGetInt32(column[16]);
	job->estimated_rows = DatumGetFloat8(column[17]);
	job->last = isnull[18] ? NULL :
		chunk_bound_from_array(DatumGetArrayTypeP(column[18]), job->num_columns);
	job->position = isnull[19] ? NULL :
		chunk_bound_from_array(DatumGetArrayTypeP(column[19]), job->num_columns);
	job->chunk_size = DatumGetInt32(column[20]);
	job->exhausted = DatumGetBool(column[21]);
	job->origin = TextDatumGetCString(column[22]);
	job->booted = isnull[23] ? 0 : DatumGetTimestampTz(column[23]);
	job->deaths = DatumGetInt32(column[24]);
	MemoryContextSwitchTo(old_context);
	SPI_freetuptable(SPI_tuptable);
	return job;
}

ChunkKey *
chunk_job_open(const ChunkJob *job)
{
	Relation	rel = open_target(job->target);
	ChunkKey   *key;

	if (OidIsValid(job->target_file) && job->target_file != rel->rd_rel->relfilenode)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" was written anew since the job began",
						RelationGetRelationName(rel)),
				 errdetail("It is cut by ctid, and its rows have other ones now.")));
	key = chunk_key_make(rel, job->key_names);
	relation_close(rel, NoLock);
	if (strcmp(key->table, job->target_name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s is now called %s", job->target_name, key->table)));
	for (int i = 0; i < key->num; i++)
		if (strcmp(key->type_names[i], job->key_types[i]) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of the key was %s when the job began, and is %s now",
							key->names[i], job->key_types[i], key->type_names[i])));
	return key;
}

void
chunk_no_such_job(int64 id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("there is no job " INT64_FORMAT, id)));
}

/* ---------------------------------------------------------------------
 * Procedures
 */

/* Can we end transactions here? */
static bool
is_atomic(FunctionCallInfo fcinfo)
{
	return !(fcinfo->context && IsA(fcinfo->context, CallContext) &&
			 !castNode(CallContext, fcinfo->context)->atomic);
}

static void
begin_procedure(FunctionCallInfo fcinfo, const char *name, bool ends_transactions)
{
	perfopt_require_preload();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s during recovery", name)));
	if (ends_transactions && is_atomic(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot be called in a transaction block or a function", name),
				 strcmp(name, "perfopt.run_in_batches()") == 0 ?
				 errhint("With wait => false it can: then background workers do it, from the commit on.") : 0));
}

Datum
perfopt_run_in_batches(PG_FUNCTION_ARGS)
{
	bool		wait = PG_ARGISNULL(ARG_WAIT) || PG_GETARG_BOOL(ARG_WAIT);
	MemoryContext caller = CurrentMemoryContext;
	TupleDesc	desc;
	Datum		result[1];
	bool		isnull[1] = {false};
	int64		id;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	begin_procedure(fcinfo, "perfopt.run_in_batches()", wait);
	if (!wait && !perfopt_job_role_can_log_in(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role \"%s\" is not permitted to log in",
						GetUserNameFromId(GetUserId(), false)),
				 errdetail("Before PostgreSQL 17 background workers cannot run as such a role."),
				 errhint("Give it LOGIN, or call without wait => false.")));
	chunks_connect();
	id = make_job(fcinfo, wait);
	SPI_finish();
	if (wait)
		chunks_work(id, CHUNK_CALLER);

	MemoryContextSwitchTo(caller);
	result[0] = Int64GetDatum(id);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, result, isnull)));
}

static void
work_at(FunctionCallInfo fcinfo, const char *name, ChunkWorker worker)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("job must not be null")));
	begin_procedure(fcinfo, name, true);
	chunks_work(PG_GETARG_INT64(0), worker);
}

Datum
perfopt_batch_wait(PG_FUNCTION_ARGS)
{
	work_at(fcinfo, "perfopt.batch_wait()", CHUNK_WAITER);
	PG_RETURN_VOID();
}

Datum
perfopt_batch_help(PG_FUNCTION_ARGS)
{
	work_at(fcinfo, "perfopt.batch_help()", CHUNK_HELPER);
	PG_RETURN_VOID();
}

/* ---------------------------------------------------------------------
 * Pause, resume, cancel
 */

/* Read and lock the job, and have what follows run as ours. */
static ChunkJob *
begin_change(const char *name, int64 id, int *level)
{
	ChunkJob   *job;

	begin_procedure(NULL, name, false);
	chunks_connect();
	*level = perfopt_text_settings_enter();
	job = chunk_job_read(id, true);
	if (job == NULL)
		chunk_no_such_job(id);
	return job;
}

static void
end_change(int64 id, int level, const char *sql)
{
	Oid			types[] = {INT8OID, TEXTOID};
	Datum		values[] = {Int64GetDatum(id), CStringGetTextDatum(chunks_origin())};

	chunks_execute(SPI_OK_UPDATE, sql, 2, types, values, NULL);
	perfopt_text_settings_leave(level);
	SPI_finish();
	perfopt_duty_wake_at_commit(CHUNKS_DUTY);
}

static void
wrong_state(ChunkJob *job)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("job " INT64_FORMAT " is %s", job->id, job->state)));
}

Datum
perfopt_batch_pause(PG_FUNCTION_ARGS)
{
	int			level;
	ChunkJob   *job = begin_change("perfopt.batch_pause()", PG_GETARG_INT64(0), &level);

	if (strcmp(job->state, "running") != 0)
		wrong_state(job);
	end_change(job->id, level, "UPDATE perfopt.batch_job SET state = 'paused' WHERE id = $1");
	PG_RETURN_VOID();
}

Datum
perfopt_batch_cancel(PG_FUNCTION_ARGS)
{
	int			level;
	ChunkJob   *job = begin_change("perfopt.batch_cancel()", PG_GETARG_INT64(0), &level);

	if (strcmp(job->state, "done") == 0 || strcmp(job->state, "cancelled") == 0)
		wrong_state(job);
	end_change(job->id, level,
			   "UPDATE perfopt.batch_job SET state = 'cancelled', finished_at = clock_timestamp()"
			   " WHERE id = $1");
	PG_RETURN_VOID();
}

Datum
perfopt_batch_resume(PG_FUNCTION_ARGS)
{
	int			level;
	ChunkJob   *job = begin_change("perfopt.batch_resume()", PG_GETARG_INT64(0), &level);
	bool		retry_failed = PG_GETARG_BOOL(1);
	Oid			types[] = {INT8OID, TIMESTAMPTZOID};
	Datum		values[] = {Int64GetDatum(job->id), TimestampTzGetDatum(chunks_booted())};
	uint64		retried = 0;

	if (OidIsValid(job->target_file) && strcmp(job->origin, chunks_origin()) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " was begun in another database", job->id),
				 errdetail("Its table is cut by ctid, and rows have other ones here.")));
	if (retry_failed && strcmp(job->state, "cancelled") != 0)
	{
		chunks_execute(SPI_OK_UPDATE,
					   "UPDATE perfopt.batch_chunk SET state = 'pending', attempts = 0,"
					   " booted = NULL, deaths = 0, ends = 0,"
					   " next_attempt_at = clock_timestamp()"
					   " WHERE job = $1 AND state = 'failed'", 1, types, values, NULL);
		retried = SPI_processed;
	}
	if (strcmp(job->state, "paused") != 0 && strcmp(job->state, "failed") != 0 && retried == 0)
		wrong_state(job);

	/*
	 * Runs of the server that ended meanwhile were not at work.  Of this one
	 * a process may have been, and has ended: see choose_chunk().
	 */
	chunks_execute(SPI_OK_UPDATE,
				   "UPDATE perfopt.batch_chunk SET deaths = 0, booted = CASE WHEN booted = $2 THEN booted END"
				   " WHERE id = ANY (ARRAY("
				   " SELECT id FROM perfopt.batch_chunk WHERE job = $1 AND state = 'pending'"
				   "    AND (booted <> $2 OR deaths > 0) FOR NO KEY UPDATE SKIP LOCKED))",
				   2, types, values, NULL);
	end_change(job->id, level,
			   "UPDATE perfopt.batch_job SET state = 'running', booted = NULL, deaths = 0,"
			   " origin = $2, sqlstate = NULL,"
			   " message = NULL, finished_at = NULL, resumed_at = clock_timestamp()"
			   " WHERE id = $1");
	PG_RETURN_VOID();
}
