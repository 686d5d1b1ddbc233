/*
 * apply.c
 *		Duty "apply": builds the indexes that perfopt.apply_advice() was asked
 *		for, one at a time, and leaves no invalid index behind.
 *
 * CREATE INDEX CONCURRENTLY runs as a job of the pool, as the role that asked.
 * The duty only looks after it: it never waits.  The state is in the table, so
 * that a restart at any point loses nothing:
 *
 *		queued		waits for its turn
 *		applying	committed before the job is submitted.  What has become of it
 *					is told by the job while this process has one, and by the
 *					catalogs otherwise: once nobody holds the lock of an index
 *					build on the table, a valid index of that name means
 *					applied; an invalid one is dropped, by a job again; and with
 *					none left it has failed.
 *
 * The index's name is chosen just before building, so that it is free then,
 * and is committed first: an invalid index of that name on that table is ours,
 * unless the job tells that somebody else was faster to take the name.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "common/compat.h"
#include "common/stop_points.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "worker/worker.h"

#define IDLE_INTERVAL_MS	10000
#define BUSY_INTERVAL_MS	500

/* Told when nothing better is known. */
#define INTERRUPTED			"the index build was interrupted"

/*
 * A build may take hours, whatever the role's limit for its statements is.
 * Its lock_timeout is the role's own.
 */
#define JOB_SETTINGS		"statement_timeout=0\n" PERFOPT_WIDEST_TIMEOUT "=0"

static int	apply_interval = IDLE_INTERVAL_MS;

/* The job at work for an advice, known to the process that submitted it. */
static bool job_running = false;
static bool job_cleans_up;		/* it drops what another one has left */
static PerfoptJob job;
static int64 job_advice;

/* One row being looked after. */
typedef struct Applying
{
	int64		id;
	char	   *schema_name;
	char	   *table_name;
	char	   *index_name;
	char	   *ddl;
	char	   *role;
	char	   *error;
	char	   *definition;
} Applying;

/* sql has the id as $1, and may use a and b, texts or NULL, as $2 and $3. */
static void
update_row(const char *sql, int64 id, const char *a, const char *b)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[3];
	char		nulls[4] = "   ";

	values[0] = Int64GetDatum(id);
	values[1] = a ? CStringGetTextDatum(a) : (Datum) 0;
	values[2] = b ? CStringGetTextDatum(b) : (Datum) 0;
	nulls[1] = a ? ' ' : 'n';
	nulls[2] = b ? ' ' : 'n';
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(sql, 3, types, values, nulls, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write advice");
	SPI_finish();
}

static void
set_applied(int64 id)
{
	update_row("UPDATE perfopt.advice_item SET status = 'applied', applied_at = now(),"
			   " error = NULL WHERE id = $1", id, NULL, NULL);
}

static void
set_failed(int64 id, const char *error)
{
	update_row("UPDATE perfopt.advice_item SET status = 'failed', error = $2 WHERE id = $1",
			   id, error ? error : INTERRUPTED, NULL);
}

/*
 * The row of that status after the skip oldest ones, as this run has left it,
 * in the caller's memory context; or NULL.
 */
static Applying *
fetch_row(const char *status, int skip)
{
	MemoryContext context = CurrentMemoryContext;
	Applying   *row = NULL;
	Oid			types[] = {TEXTOID, INT4OID};
	Datum		values[2];

	values[0] = CStringGetTextDatum(status);
	values[1] = Int32GetDatum(skip);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args("SELECT id, schema_name, table_name, index_name, ddl,"
							  " requested_by, error, definition"
							  " FROM perfopt.advice_item WHERE status = $1"
							  " ORDER BY requested_at, id LIMIT 1 OFFSET $2",
							  2, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read advice");
	if (SPI_processed > 0)
	{
		HeapTuple	tuple = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		MemoryContext old_context = MemoryContextSwitchTo(context);

		row = palloc0(sizeof(Applying));
		row->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		row->schema_name = SPI_getvalue(tuple, desc, 2);
		row->table_name = SPI_getvalue(tuple, desc, 3);
		row->index_name = SPI_getvalue(tuple, desc, 4);
		row->ddl = SPI_getvalue(tuple, desc, 5);
		row->role = SPI_getvalue(tuple, desc, 6);
		row->error = SPI_getvalue(tuple, desc, 7);
		row->definition = SPI_getvalue(tuple, desc, 8);
		MemoryContextSwitchTo(old_context);
	}
	SPI_finish();
	return row;
}

/* Submit, and put an error into the row. */
static void
submit_or_fail(const Applying *row, const char *statement, bool cleans_up)
{
	PerfoptJobSpec spec = {
		.capability = "advisor",
		.payload = statement,
		.database = MyDatabaseId,
		.role = get_role_oid(row->role, true),
		.settings = JOB_SETTINGS,
		.then_duty = ADVISOR_APPLY_DUTY
	};
	const char *message;

	if (!OidIsValid(spec.role))
		message = psprintf("role \"%s\" does not exist", row->role);
	else
	{
		ErrorData  *error = perfopt_job_try_submit(&spec, &job);

		if (error == NULL)
		{
			job_running = true;
			job_cleans_up = cleans_up;
			job_advice = row->id;
			return;
		}
		message = error->message;
	}
	set_failed(row->id, !cleans_up ? message :
			   psprintf("%s; the invalid index %s is left, as it could not be dropped: %s",
						row->error ? row->error : INTERRUPTED,
						quote_qualified_identifier(row->schema_name, row->index_name),
						message));
}

/* The row's index: InvalidOid when there is none of that name on that table. */
static Oid
find_index(Oid relid, const char *index_name, bool *valid)
{
	Oid			index = get_relname_relid(index_name, get_rel_namespace(relid));
	HeapTuple	tuple;

	if (!OidIsValid(index))
		return InvalidOid;
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	if (((Form_pg_index) GETSTRUCT(tuple))->indrelid != relid)
		index = InvalidOid;
	*valid = ((Form_pg_index) GETSTRUCT(tuple))->indisvalid;
	ReleaseSysCache(tuple);
	return index;
}

/*
 * A row is "applying" and this process has no job for it: its job has just
 * ended, or ended or goes on after a restart.  Look at what it left.  False:
 * that can't be seen now, so the row stays as it is.
 */
static bool
settle(Applying *row)
{
	Oid			relid = perfopt_advice_table(row->schema_name, row->table_name);
	Oid			index;
	bool		valid = false;

	if (!OidIsValid(relid))
	{
		set_failed(row->id, row->error ? row->error : "the table is gone");
		return true;
	}

	/* being valid is the last step of a build */
	index = find_index(relid, row->index_name, &valid);
	if (OidIsValid(index) && valid)
	{
		set_applied(row->id);
		return true;
	}

	/*
	 * An index build holds this lock throughout, in whatever process.  So do
	 * others, such as vacuum; then it is looked at again soon.
	 */
	apply_interval = BUSY_INTERVAL_MS;
	if (!ConditionalLockRelationOid(relid, ShareUpdateExclusiveLock))
		return false;
	index = find_index(relid, row->index_name, &valid);
	UnlockRelationOid(relid, ShareUpdateExclusiveLock);

	if (OidIsValid(index) && valid)
		set_applied(row->id);
	else if (OidIsValid(index))
	{
		/* commit first, or the job would wait for our snapshot */
		char	   *drop = psprintf("DROP INDEX CONCURRENTLY %s",
									quote_qualified_identifier(row->schema_name,
															   row->index_name));

		PERFOPT_STOP_POINT("apply-clean-up");
		submit_or_fail(row, drop, true);
	}
	else
		set_failed(row->id, row->error);
	return true;
}

/*
 * Take this one: name it, commit that it is ours, and start.  False: its table
 * is locked or just goes, so it stays queued and others come first.
 */
static bool
start(Applying *row)
{
	IndexSpec	table = {.relid = perfopt_advice_table(row->schema_name, row->table_name)};
	Relation	relation;
	IndexSpec  *spec;
	bool		gone;

	if (!OidIsValid(table.relid))
	{
		set_failed(row->id, "the table is gone");
		return true;
	}
	relation = perfopt_index_spec_open(&table);
	if (relation == NULL)
		return false;
	spec = perfopt_advice_index_spec(relation, row->definition, &gone);
	if (spec)
		spec->any_direction = true;
	if (gone || (spec && perfopt_index_exists(relation, spec)))
	{
		relation_close(relation, AccessShareLock);
		if (gone)
			set_failed(row->id, "what the index is of is gone");
		else
			set_applied(row->id);
		return true;
	}
	row->index_name = spec ? perfopt_index_spec_name(spec, relation) :
		ChooseRelationName(RelationGetRelationName(relation), "advised", "idx",
						   RelationGetNamespace(relation), false);
	relation_close(relation, AccessShareLock);
	row->ddl = perfopt_index_ddl(row->index_name, row->schema_name, row->table_name,
								 row->definition);

	update_row("UPDATE perfopt.advice_item SET status = 'applying', index_name = $2,"
			   " ddl = $3 WHERE id = $1", row->id, row->index_name, row->ddl);
	perfopt_duty_next_transaction();
	PERFOPT_STOP_POINT("apply-submit");
	submit_or_fail(row, row->ddl, false);
	return true;
}

static void
apply(void)
{
	Applying   *row;
	int64		stuck = 0;		/* an advice not to be tried again at once */

	apply_interval = IDLE_INTERVAL_MS;
	if (job_running)
	{
		PerfoptJobOutcome outcome = {0};
		PerfoptJobState state = perfopt_job_poll(job, &outcome);

		if (state != PERFOPT_JOB_NONE && !PERFOPT_JOB_ENDED(state))
			return;
		perfopt_job_release(job);
		job_running = false;
		if (state == PERFOPT_JOB_FAILED && outcome.sqlerrcode == ERRCODE_DUPLICATE_TABLE)
			/* somebody else's index: nothing of ours is there to look at */
			set_failed(job_advice, outcome.message);
		else if (state != PERFOPT_JOB_DONE)
		{
			/* the first error tells why; that of cleaning up doesn't */
			update_row("UPDATE perfopt.advice_item SET error = coalesce(error, $2)"
					   " WHERE id = $1 AND status = 'applying'", job_advice,
					   outcome.message[0] ? outcome.message : INTERRUPTED, NULL);

			/* what stands in the way of a drop won't go so soon */
			if (job_cleans_up)
				stuck = job_advice;
		}
	}

	/* nobody keeps others waiting by a lock on his own table */
	for (int skip = 0; !job_running && (row = fetch_row("applying", skip)) != NULL;)
		if (row->id == stuck || !settle(row))
			skip++;
	for (int skip = 0; !job_running && (row = fetch_row("queued", skip)) != NULL;)
		if (!start(row))
			skip++;
}

void
perfopt_apply_init(void)
{
	static const PerfoptDuty duty = {
		.name = ADVISOR_APPLY_DUTY,
		.interval_ms = &apply_interval,
		.writes = true,
		.run = apply
	};

	perfopt_duty_register(&duty);
}
