/*
 * buffer_spool.c
 *		Buffered inserts in mode durable: rows in the table perfopt.insert_spool.
 *
 * The caller's transaction writes the row there, so the two are one.  The
 * flusher of the role takes rows in the order of their ids, inserts them, and
 * deletes them from the spool in the same transaction: so a row is inserted
 * once, whatever dies.  Rows for different tables are not put together beyond
 * that order, as one may refer to another.
 *
 * The table belongs to the extension's owner, and nobody else has a privilege
 * on it but to see rows of his own: one to delete would be one to lock the
 * table, and so everybody's rows.  Rows are written and deleted here as that
 * owner, with the calling role as their role.  These statements name every
 * object and operator with its schema, for the search_path is the caller's.
 *
 * What a row meets that may pass, such as a lock that was not to be had in
 * time, has it tried again, after pauses that grow, or when somebody calls
 * perfopt.flush(); rows after it do not wait.  After MAX_ATTEMPTS, or for any
 * other error, it goes to perfopt.rejected_rows; for a lock not before KEEP_MS,
 * which is what the attempts take when nobody calls perfopt.flush().  An attempt that may end its process is counted before it is made.
 *
 * How many rows a role has committed is counted with its owner in shared
 * memory, to tell the flusher when there are enough.  That is a hint: duty
 * "insert_buffer" looks after what is in the table.
 */
#include "postgres.h"

#include "access/xact.h"
#include "batch/buffer_internal.h"
#include "batch/insert_internal.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "common/query_oids.h"
#include "common/stop_points.h"
#include "common/try.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define MAX_ATTEMPTS	5

/* The pauses between them: 1, 4, 16 and 64 s. */
#define KEEP_MS			85000

/* Of a row's jsonb, which its flush has in memory several times. */
#define MAX_ROW			(64 * 1024 * 1024)

/* Between two looks for rows and owners that nobody looks after. */
static const int duty_interval_ms = 10000;

/* What this transaction has put, by role. */
typedef struct Spooled
{
	Oid			role;
	int64		rows;
	bool		promised;
	BufferPlace place;
} Spooled;

static List *spooled = NIL;		/* in TopTransactionContext */

static SPIPlanPtr insert_plan = NULL;
static SPIPlanPtr take_plan = NULL;
static SPIPlanPtr retake_plan = NULL;
static SPIPlanPtr due_plan = NULL;
static SPIPlanPtr again_plan = NULL;
static SPIPlanPtr delete_plan = NULL;

/* ---------------------------------------------------------------------
 * Statements as the owner of the spool
 */
typedef struct CallerId
{
	Oid			role;
	int			sec_context;
} CallerId;

/* An error's end of the (sub)transaction goes back to the caller, too. */
static CallerId
become_owner(void)
{
	CallerId	caller;
	Oid			table = get_relname_relid("insert_spool", get_namespace_oid("perfopt", false));
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"perfopt.insert_spool\" does not exist")));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	GetUserIdAndSecContext(&caller.role, &caller.sec_context);
	SetUserIdAndSecContext(owner, caller.sec_context | SECURITY_LOCAL_USERID_CHANGE);
	return caller;
}

static void
become_caller(CallerId caller)
{
	SetUserIdAndSecContext(caller.role, caller.sec_context);
}

/* Between SPI_connect() and SPI_finish(). */
static void
prepare(SPIPlanPtr *plan, const char *sql, int num, Oid *types)
{
	if (*plan == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare(sql, num, types);

		if (prepared == NULL || SPI_keepplan(prepared) != 0)
			elog(ERROR, "could not prepare a statement on perfopt.insert_spool");
		*plan = prepared;
	}
}

static void
execute(SPIPlanPtr *plan, const char *sql, int num, Oid *types, Datum *values,
		const char *nulls, int expected)
{
	prepare(plan, sql, num, types);
	if (SPI_execute_plan(*plan, values, nulls, false, 0) != expected)
		elog(ERROR, "could not execute a statement on perfopt.insert_spool");
}

/* ---------------------------------------------------------------------
 * In the session that puts rows
 */
static void
tell_flushers(XactEvent event, void *arg)
{
	ListCell   *lc;

	if (spooled == NIL)
		return;
	foreach(lc, spooled)
	{
		Spooled    *entry = lfirst(lc);
		BufferOwner *owner;

		if (event == XACT_EVENT_PRE_COMMIT)
		{
			bool		at_work = false;

			/* who has promised rows is not left by his flusher */
			if (buffer_find_owner(MyDatabaseId, entry->role, true, &entry->place) &&
				buffer_lock_place(&entry->place))
			{
				owner = buffer_owner(entry->place.owner);
				owner->spool_promises++;
				owner->used_at = GetCurrentTimestamp();
				entry->promised = true;
				at_work = owner->flusher == FLUSHER_RUNNING;
				LWLockRelease(buffer_owner_lock(entry->place.owner));
			}
			if (!at_work)
				perfopt_duty_wake_at_commit(BUFFER_DUTY_NAME);
		}
		else if (entry->promised &&
				 (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT) &&
				 buffer_lock_place(&entry->place))
		{
			owner = buffer_owner(entry->place.owner);
			owner->spool_promises--;
			entry->promised = false;
			if (event == XACT_EVENT_COMMIT)
			{
				if (owner->spooled == 0)
					owner->spooled_at = GetCurrentTimestamp();
				owner->spooled += entry->rows;
				if (owner->spooled == entry->rows || owner->spooled >= perfopt_batch_size)
					buffer_wake_flusher(owner);
			}
			LWLockRelease(buffer_owner_lock(entry->place.owner));
		}
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		spooled = NIL;
}

static void
count_spooled(Oid role)
{
	static bool registered = false;
	Spooled    *entry = NULL;
	ListCell   *lc;
	MemoryContext old_context;

	if (!registered)
	{
		RegisterXactCallback(tell_flushers, NULL);
		registered = true;
	}
	foreach(lc, spooled)
	{
		if (((Spooled *) lfirst(lc))->role == role)
			entry = lfirst(lc);
	}
	if (entry == NULL)
	{
		old_context = MemoryContextSwitchTo(TopTransactionContext);
		entry = palloc0(sizeof(Spooled));
		entry->role = role;
		spooled = lappend(spooled, entry);
		MemoryContextSwitchTo(old_context);
	}
	entry->rows++;
}

void
buffer_spool_put(Oid target, Jsonb *row)
{
	Oid			types[] = {REGROLEOID, REGCLASSOID, JSONBOID};
	Datum		values[3];
	CallerId	caller;

	if (VARSIZE(row) > MAX_ROW)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("row is too large to be spooled"),
				 errdetail("It has %zu bytes, and at most %d are possible.",
						   (Size) VARSIZE(row), MAX_ROW),
				 errhint("Insert it by INSERT.")));
	caller = become_owner();
	values[0] = ObjectIdGetDatum(caller.role);
	values[1] = ObjectIdGetDatum(target);
	values[2] = JsonbPGetDatum(row);
	SPI_connect();
	execute(&insert_plan,
			"INSERT INTO perfopt.insert_spool (role, target, payload) VALUES ($1, $2, $3)",
			3, types, values, NULL, SPI_OK_INSERT);
	SPI_finish();
	become_caller(caller);
	count_spooled(caller.role);
}

/* ---------------------------------------------------------------------
 * In the flusher, as the role
 */

/* A row of mode lossy that has failed once. */
void
buffer_spool_put_again(Oid target, Jsonb *row, const BatchVerdict *verdict)
{
	Oid			types[] = {REGROLEOID, REGCLASSOID, JSONBOID, TEXTOID, TEXTOID};
	Datum		values[5];
	CallerId	caller = become_owner();

	values[0] = ObjectIdGetDatum(caller.role);
	values[1] = ObjectIdGetDatum(target);
	values[2] = JsonbPGetDatum(row);
	values[3] = CStringGetTextDatum(unpack_sql_state(verdict->sqlerrcode));
	values[4] = CStringGetTextDatum(verdict->message);
	SPI_connect();
	if (SPI_execute_with_args("INSERT INTO perfopt.insert_spool"
							  " (role, target, payload, attempts, next_attempt_at, sqlstate, message)"
							  " VALUES ($1, $2, $3, 1, pg_catalog.now() OPERATOR(pg_catalog.+)"
							  "  pg_catalog.make_interval(secs => 1), $4, $5)",
							  5, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not execute a statement on perfopt.insert_spool");
	SPI_finish();
	become_caller(caller);
	count_spooled(caller.role);
}

/*
 * Rows that are due, locked, as many as make up a flush; or one; or again the
 * one in rows[0].  In the caller's memory context.
 */
static int
take_rows(Oid role, SpoolTake take, SpoolRow *rows)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[] = {REGROLEOID, INT8OID};
	Datum		values[2];
	int			max_rows = take == SPOOL_TAKE_MANY ? BUFFER_MAX_FLUSH : 1;
	Size		bytes = 0;
	int			num = 0;
	CallerId	caller = become_owner();
	SPIPlanPtr *plan = take == SPOOL_TAKE_MARKED ? &retake_plan : &take_plan;
	Portal		cursor;

	values[0] = ObjectIdGetDatum(role);
	values[1] = Int64GetDatum(take == SPOOL_TAKE_MARKED ? rows[0].id : max_rows);
	SPI_connect();
	prepare(plan, take == SPOOL_TAKE_MARKED ?
			"SELECT id, target, payload, attempts, spooled_at FROM perfopt.insert_spool"
			" WHERE role OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) $2"
			" FOR UPDATE SKIP LOCKED" :
			"SELECT id, target, payload, attempts, spooled_at FROM perfopt.insert_spool"
			" WHERE role OPERATOR(pg_catalog.=) $1"
			"   AND next_attempt_at OPERATOR(pg_catalog.<=) pg_catalog.statement_timestamp()"
			" ORDER BY role, id LIMIT $2 FOR UPDATE SKIP LOCKED",
			2, types);
	cursor = SPI_cursor_open(NULL, *plan, values, NULL, false);
	while (num < max_rows && bytes < BUFFER_MAX_FLUSH_BYTES)
	{
		HeapTuple	tuple;
		TupleDesc	desc;
		bool		isnull;
		MemoryContext old_context;

		SPI_cursor_fetch(cursor, true, 1);
		if (SPI_processed == 0)
			break;
		tuple = SPI_tuptable->vals[0];
		desc = SPI_tuptable->tupdesc;
		old_context = MemoryContextSwitchTo(context);
		memset(&rows[num], 0, sizeof(SpoolRow));
		rows[num].id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		rows[num].target = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
		rows[num].payload = DatumGetJsonbPCopy(SPI_getbinval(tuple, desc, 3, &isnull));
		rows[num].attempts = DatumGetInt32(SPI_getbinval(tuple, desc, 4, &isnull));
		rows[num].spooled_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 5, &isnull));
		MemoryContextSwitchTo(old_context);
		bytes += VARSIZE(rows[num].payload);
		num++;
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(cursor);
	SPI_finish();
	become_caller(caller);
	rows[0].marked = take == SPOOL_TAKE_MARKED;
	rows[0].more = num == max_rows || bytes >= BUFFER_MAX_FLUSH_BYTES;
	return num;
}

/* Rows that wait for another attempt, but for those that may end processes. */
static void
make_due(Oid role)
{
	Oid			types[] = {REGROLEOID};
	Datum		values[] = {ObjectIdGetDatum(role)};
	CallerId	caller = become_owner();

	SPI_connect();
	execute(&due_plan,
			"UPDATE perfopt.insert_spool SET next_attempt_at = '-infinity'"
			" WHERE role OPERATOR(pg_catalog.=) $1"
			"   AND next_attempt_at OPERATOR(pg_catalog.>) pg_catalog.statement_timestamp()"
			"   AND sqlstate OPERATOR(pg_catalog.<>) 'XX000'",
			1, types, values, NULL, SPI_OK_UPDATE);
	SPI_finish();
	become_caller(caller);
}

/* In any session: how many rows have failed, and wait for another attempt? */
int64
buffer_spool_waiting(Oid role)
{
	Oid			types[] = {REGROLEOID};
	Datum		values[] = {ObjectIdGetDatum(role)};
	CallerId	caller = become_owner();
	bool		isnull;
	int64		num;

	SPI_connect();
	if (SPI_execute_with_args("SELECT pg_catalog.count(*) FROM perfopt.insert_spool"
							  " WHERE role OPERATOR(pg_catalog.=) $1"
							  "   AND attempts OPERATOR(pg_catalog.>) 0",
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read which rows were spooled");
	num = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	become_caller(caller);
	return num;
}

static void
delete_rows(Oid role, const SpoolRow *rows, int num)
{
	Oid			types[] = {REGROLEOID, INT8ARRAYOID};
	Datum		values[2];
	Datum	   *ids = palloc(sizeof(Datum) * Max(num, 1));
	int			num_ids = 0;
	CallerId	caller = become_owner();

	for (int i = 0; i < num; i++)
		if (!rows[i].again)
			ids[num_ids++] = Int64GetDatum(rows[i].id);
	values[0] = ObjectIdGetDatum(role);
	values[1] = PointerGetDatum(construct_array(ids, num_ids, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	SPI_connect();
	execute(&delete_plan,
			"DELETE FROM perfopt.insert_spool"
			" WHERE role OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) ANY ($2)",
			2, types, values, NULL, SPI_OK_DELETE);
	if (SPI_processed != num_ids)
		elog(ERROR, "rows of perfopt.insert_spool were taken by others");
	SPI_finish();
	become_caller(caller);
}

/* Note about rows why they are, or may be, to be tried again, after a pause. */
static void
note_attempt(Oid role, const SpoolRow *rows, int num, int sqlerrcode, const char *message)
{
	Oid			types[] = {REGROLEOID, INT8ARRAYOID, TEXTOID, TEXTOID, INT4OID, INT4OID};
	Datum		values[6];
	Datum	   *ids = palloc(sizeof(Datum) * num);
	CallerId	caller = become_owner();

	for (int i = 0; i < num; i++)
		ids[i] = Int64GetDatum(rows[i].id);
	values[0] = ObjectIdGetDatum(role);
	values[1] = PointerGetDatum(construct_array(ids, num, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[2] = CStringGetTextDatum(unpack_sql_state(sqlerrcode));
	values[3] = CStringGetTextDatum(message);
	/* that of a row that was marked has been counted */
	values[4] = Int32GetDatum(rows[0].marked ? 0 : 1);
	/* who waits for a lock, however often, has ended no process: see mark() */
	values[5] = Int32GetDatum(sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ? MAX_ATTEMPTS - 1 : MAX_ATTEMPTS);
	SPI_connect();
	execute(&again_plan,
			"UPDATE perfopt.insert_spool"
			" SET attempts = LEAST(attempts OPERATOR(pg_catalog.+) $5, $6),"
			"     sqlstate = $3, message = $4,"
			"     next_attempt_at = pg_catalog.now() OPERATOR(pg_catalog.+)"
			"       pg_catalog.make_interval(secs => pg_catalog.power(4, LEAST(3,"
			"         attempts OPERATOR(pg_catalog.+) $5 OPERATOR(pg_catalog.-) 1)))"
			" WHERE role OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) ANY ($2)",
			6, types, values, NULL, SPI_OK_UPDATE);
	SPI_finish();
	become_caller(caller);
}

/*
 * These rows for one table have failed with this error: each is tried again
 * later, or rejected.
 */
static void
failed(Oid role, SpoolRow *rows, int num, const ErrorData *error)
{
	SpoolRow   *again = palloc(sizeof(SpoolRow) * num);
	int			num_again = 0;

	for (int i = 0; i < num; i++)
	{
		SpoolRow   *row = &rows[i];
		int			attempts = row->attempts + (row->marked ? 0 : 1);

		row->verdict = (BatchVerdict)
		{
			.action = BATCH_REJECTED,.sqlerrcode = error->sqlerrcode,
				.message = error->message,.detail = error->detail,
				.constraint = error->constraint_name
		};
		row->again = !batch_is_of_a_row(error->sqlerrcode) &&
			(attempts < MAX_ATTEMPTS ||
			 (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE &&
			  !TimestampDifferenceExceeds(row->spooled_at, GetCurrentTimestamp(), KEEP_MS)));
		if (row->again)
			again[num_again++] = *row;
		else
			batch_note_rejected(row->target, row->payload, &row->verdict);
	}
	if (num_again > 0)
		note_attempt(role, again, num_again, error->sqlerrcode, error->message);
}

/*
 * Processes have ended while they moved rows, maybe this one: it is counted as
 * tried before that, or rejected when that was often enough.
 */
static void
mark(Oid role, SpoolRow *row)
{
	ErrorData	ended = {.sqlerrcode = ERRCODE_INTERNAL_ERROR,
	.message = "the processes that inserted the row have ended"};

	row->marked = row->attempts < MAX_ATTEMPTS;
	if (row->marked)
	{
		SpoolRow	unmarked = *row;

		unmarked.marked = false;
		note_attempt(role, &unmarked, 1, ended.sqlerrcode, ended.message);
	}
	else
	{
		failed(role, row, 1, &ended);
		delete_rows(role, row, 1);
	}
}

typedef struct Run
{
	SpoolRow   *rows;
	int			num;
} Run;

static void
insert_rows(void *arg)
{
	Run		   *run = arg;
	Jsonb	  **payloads = palloc(sizeof(Jsonb *) * run->num);
	BatchVerdict *verdicts = palloc0(sizeof(BatchVerdict) * run->num);
	int			nest_level = NewGUCNestLevel();

	for (int i = 0; i < run->num; i++)
		payloads[i] = run->rows[i].payload;
	batch_insert_jsonb_rows(run->rows[0].target, payloads, NULL, run->num, verdicts);
	/* what triggers have set, such as the role, is not for the next table */
	AtEOXact_GUC(false, nest_level);
	for (int i = 0; i < run->num; i++)
		run->rows[i].verdict = verdicts[i];
}

/* Insert rows for one table in a subtransaction.  Returns its error, or NULL. */
static ErrorData *
insert_run(SpoolRow *rows, int num)
{
	Run			run = {rows, num};
	ErrorData  *error = perfopt_try(CurrentMemoryContext, insert_rows, &run);

	/* that was for the whole flush */
	if (error && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	return error;
}

/*
 * The rows for a table could not be inserted together, for this error.  Each is
 * by itself, unless it is the table that is locked: that would take all of them
 * as long.
 */
static void
insert_one_by_one(Oid role, SpoolRow *rows, int num, ErrorData *error)
{
	if (num == 1 ||
		(error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE &&
		 !ConditionalLockRelationOid(rows[0].target, RowExclusiveLock)))
	{
		failed(role, rows, num, error);
		return;
	}
	for (int i = 0; i < num; i++)
	{
		if (error && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			(void) set_config_option("lock_timeout", BUFFER_LATER_LOCK_TIMEOUT, PGC_USERSET,
									 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		error = insert_run(rows + i, 1);
		if (error)
			failed(role, rows + i, 1, error);
	}
}

/*
 * In a transaction: take rows of the role out of the spool, and insert them, or
 * mark one.  rows has place for BUFFER_MAX_FLUSH, and when an error is thrown,
 * the first of them in it.  Returns how many there were.
 */
int
buffer_spool_move(Oid role, SpoolTake take, SpoolRow *rows)
{
	Oid			schema = get_namespace_oid("perfopt", true);
	int			num;
	int			end;

	/* the extension may have been dropped meanwhile */
	if (!OidIsValid(schema) || !OidIsValid(get_relname_relid("insert_spool", schema)))
		return 0;
	if (take == SPOOL_MAKE_DUE)
	{
		make_due(role);
		return 0;
	}
	num = take_rows(role, take, rows);
	if (num == 0)
		return 0;
	if (take == SPOOL_MARK_ONE)
	{
		mark(role, &rows[0]);
		return 1;
	}
	PERFOPT_STOP_POINT("buffer-spool-taken");
	for (int i = 0; i < num; i = end)
	{
		ErrorData  *error;

		for (end = i + 1; end < num && rows[end].target == rows[i].target; end++)
			;
		error = insert_run(rows + i, end - i);
		if (error)
			insert_one_by_one(role, rows + i, end - i, error);
	}
	delete_rows(role, rows, num);
	PERFOPT_STOP_POINT("buffer-spool-inserted");
	return num;
}

/* In a transaction of its own, after one in which this row was alone. */
void
buffer_spool_give_up(Oid role, SpoolRow *row, ErrorData *error)
{
	failed(role, row, 1, error);
	if (!row->again)
		delete_rows(role, row, 1);
}

/* ---------------------------------------------------------------------
 * In the worker of the database, as the extension's owner
 */

/* The role has been dropped: its rows, so many a run, are not for who gets its OID. */
static void
drop_rows(Oid role)
{
	Oid			types[] = {REGROLEOID};
	Datum		values[1];

	values[0] = ObjectIdGetDatum(role);
	SPI_connect();
	if (SPI_execute_with_args("DELETE FROM perfopt.insert_spool WHERE id OPERATOR(pg_catalog.=) ANY (ARRAY("
							  " SELECT id FROM perfopt.insert_spool WHERE role OPERATOR(pg_catalog.=) $1 LIMIT 10000))",
							  1, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not drop rows that were spooled");
	ereport(LOG,
			(errmsg("dropped " UINT64_FORMAT " rows spooled by role with OID %u, which does not exist",
					SPI_processed, role)));
	SPI_finish();
}

/* The roles that have rows that are due, in the caller's memory context. */
List *
buffer_spool_roles(void)
{
	return perfopt_query_oids("WITH RECURSIVE spooling AS ("
							  " (SELECT role FROM perfopt.insert_spool ORDER BY role LIMIT 1)"
							  " UNION ALL"
							  " SELECT n.role FROM spooling s, LATERAL"
							  "  (SELECT i.role FROM perfopt.insert_spool i"
							  "    WHERE i.role OPERATOR(pg_catalog.>) s.role ORDER BY i.role LIMIT 1) n)"
							  " SELECT role FROM spooling s WHERE EXISTS"
							  "  (SELECT FROM perfopt.insert_spool i WHERE i.role OPERATOR(pg_catalog.=) s.role"
							  "    AND i.next_attempt_at OPERATOR(pg_catalog.<=) pg_catalog.now())");
}

/* Have the owner's rows flushed.  Returns the error that prevents it. */
static ErrorData *
see_to_flusher(const BufferPlace *place, bool spool)
{
	BufferOwner *owner = buffer_owner(place->owner);
	PerfoptJob	job = {.slot = -1};
	ErrorData  *error;

	if (spool && buffer_lock_place(place))
	{
		if (owner->spooled == 0)
			owner->spooled = 1;
		owner->spooled_at = 0;
		buffer_wake_flusher(owner);
		LWLockRelease(buffer_owner_lock(place->owner));
	}
	error = buffer_need_flusher(place, &job);
	if (job.slot >= 0)
		perfopt_job_release(job);

	/* when the queue of jobs is full, there is place later */
	return error && error->sqlerrcode == ERRCODE_CONFIGURATION_LIMIT_EXCEEDED ? NULL : error;
}

static void
look_after(void)
{
	ErrorData  *first_error = NULL;
	ErrorData  *error;
	BufferPlace place;
	ListCell   *lc;

	foreach(lc, buffer_spool_roles())
	{
		if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(lfirst_oid(lc))))
			drop_rows(lfirst_oid(lc));
		else if (buffer_find_owner(MyDatabaseId, lfirst_oid(lc), true, &place) &&
				 (error = see_to_flusher(&place, true)) != NULL && first_error == NULL)
			first_error = error;
	}
	for (int i = 0; i < BUFFER_MAX_OWNERS; i++)
	{
		BufferOwner *owner = buffer_owner(i);
		bool		rows;
		bool		running;

		place.owner = i;
		LWLockAcquire(buffer_owner_lock(i), LW_SHARED);
		place.database = owner->database;
		place.role = owner->role;
		rows = pg_atomic_read_u32(&owner->blocks) > 0;
		running = owner->flusher == FLUSHER_RUNNING;
		LWLockRelease(buffer_owner_lock(i));
		if (!OidIsValid(place.database) || running)
			continue;
		if (!SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(place.database)) ||
			!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(place.role)))
		{
			int64		lost = buffer_discard(&place);

			if (lost > 0)
				ereport(LOG,
						(errmsg(INT64_FORMAT " buffered rows of role with OID %u in database with OID %u are lost: one of the two does not exist",
								lost, place.role, place.database)));
		}
		else if (rows && place.database == MyDatabaseId &&
				 (error = see_to_flusher(&place, false)) != NULL && first_error == NULL)
			first_error = error;
	}
	if (first_error)
		ReThrowError(first_error);
}

void
buffer_spool_init(void)
{
	static const PerfoptDuty duty = {
		.name = BUFFER_DUTY_NAME,
		.interval_ms = &duty_interval_ms,
		.writes = true,
		.brief = true,
		.run = look_after
	};

	perfopt_duty_register(&duty);
}
