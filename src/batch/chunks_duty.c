/*
 * chunks_duty.c
 *		Duty "batch_jobs": background workers for jobs of chunked work.
 *
 * For each job that is running it submits jobs of the pool, each of which is
 * CALL perfopt.batch_help(id) as the job's role, until there are as many as the
 * job wants, or as the pool gives to one role.  So a job goes on when its
 * session has died, or the server was restarted.  Besides it forgets what ended
 * a week ago, and what belongs to roles that are no more.
 *
 * Who runs a chunk has a seat, a lock that can be counted; who is between two of
 * them has none.  A helper too many finds no seat, and ends.
 */
#include "postgres.h"

#include "batch/batch_internal.h"
#include "batch/chunks_internal.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "worker/worker.h"

/* The helpers, known to the process that submitted them. */
typedef struct Helper
{
	int64		job_id;
	PerfoptJob	job;
} Helper;

static List *helpers = NIL;

/* A job that is to be worked at. */
typedef struct Wanted
{
	int64		id;
	Oid			role;
	int			workers;		/* it wants */
	int			at_work;		/* and has, that run a chunk just now */
} Wanted;

/*
 * Say why there is no helper.  A session may be at work all the same, and the
 * next helper may have more luck: so the job goes on.
 */
static void
note_error(int64 id, int sqlerrcode, const char *message)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[] = {
		Int64GetDatum(id), CStringGetTextDatum(unpack_sql_state(sqlerrcode)),
		CStringGetTextDatum(message)
	};

	chunks_connect();
	chunks_execute(SPI_OK_UPDATE,
				   "UPDATE perfopt.batch_job SET sqlstate = $2, message = $3 WHERE id ="
				   " (SELECT id FROM perfopt.batch_job WHERE id = $1 AND state = 'running'"
				   "   FOR NO KEY UPDATE SKIP LOCKED)",
				   3, types, values, NULL);
	SPI_finish();
}

static void
release_ended(void)
{
	ListCell   *lc;

	foreach(lc, helpers)
	{
		Helper	   *helper = lfirst(lc);
		PerfoptJobOutcome outcome = {0};
		PerfoptJobState state = perfopt_job_poll(helper->job, &outcome);

		if (state != PERFOPT_JOB_NONE && !PERFOPT_JOB_ENDED(state))
			continue;
		perfopt_job_release(helper->job);
		/* a process that has ended has left its last words at most */
		if (state == PERFOPT_JOB_FAILED ||
			(state == PERFOPT_JOB_LOST && outcome.sqlerrcode != 0))
			note_error(helper->job_id, outcome.sqlerrcode, outcome.message);
		helpers = foreach_delete_current(helpers, lc);
		pfree(helper);
	}
}

/*
 * All below goes from role to role along an index, and looks at so many rows of
 * each: what one has, or has inserted by hand, costs others nothing.
 */
#define ROLES(condition) \
	"WITH RECURSIVE r(role) AS (" \
	" (SELECT role FROM perfopt.batch_job WHERE " condition " ORDER BY role LIMIT 1)" \
	" UNION ALL" \
	" SELECT n.role FROM r, LATERAL (SELECT j.role FROM perfopt.batch_job j" \
	"   WHERE " condition " AND j.role > r.role ORDER BY j.role LIMIT 1) n)"

/*
 * The state of rows whose ids are known, so that the planner does not think of
 * the indexes on all that are in this state.
 */
#define STATE	"state || ''"

/* The oldest ones of each role, so that nobody fills the duty's time. */
#define RUNNING \
	ROLES("state = 'running'") \
	" SELECT j.* FROM r, LATERAL (SELECT id, role, workers, origin FROM perfopt.batch_job" \
	"   WHERE state = 'running' AND role = r.role ORDER BY id LIMIT 8) j ORDER BY id LIMIT 1000"

/* What ended a week ago, or belongs to a role that is no more. */
#define FORGOTTEN \
	ROLES("true") \
	" SELECT j.id FROM r, LATERAL (SELECT id FROM perfopt.batch_job" \
	"   WHERE role = r.role AND state NOT IN ('running', 'paused') AND finished_at < now() - interval '7 days'" \
	"   ORDER BY finished_at LIMIT 100) j" \
	" UNION ALL" \
	" SELECT j.id FROM r, LATERAL (SELECT id FROM perfopt.batch_job" \
	"   WHERE role = r.role ORDER BY id LIMIT 100) j" \
	" WHERE NOT EXISTS (SELECT FROM pg_roles p WHERE p.oid = r.role)"

/*
 * So many chunks a run.  As a job may lose them over several runs, it is first
 * put into a state from which it cannot be resumed.  What others have locked is
 * left to a later run.
 */
static void
forget(void)
{
	chunks_connect();
	chunks_execute(SPI_OK_UPDATE,
				   "UPDATE perfopt.batch_job SET state = 'cancelled' WHERE id = ANY (ARRAY("
				   " SELECT id FROM perfopt.batch_job WHERE id = ANY (ARRAY(" FORGOTTEN ")) AND " STATE " <> 'cancelled'"
				   "  FOR NO KEY UPDATE SKIP LOCKED))", 0, NULL, NULL, NULL);
	chunks_execute(SPI_OK_DELETE,
				   "DELETE FROM perfopt.batch_chunk WHERE id = ANY (ARRAY("
				   " SELECT k.id FROM perfopt.batch_chunk k WHERE k.job = ANY (ARRAY("
				   "   SELECT id FROM perfopt.batch_job WHERE id = ANY (ARRAY(" FORGOTTEN ")) AND " STATE " = 'cancelled'))"
				   "  LIMIT 10000 FOR UPDATE SKIP LOCKED))", 0, NULL, NULL, NULL);
	chunks_execute(SPI_OK_DELETE,
				   "DELETE FROM perfopt.batch_job WHERE id = ANY (ARRAY("
				   " SELECT id FROM perfopt.batch_job j WHERE id = ANY (ARRAY(" FORGOTTEN ")) AND " STATE " = 'cancelled'"
				   "    AND NOT EXISTS (SELECT FROM perfopt.batch_chunk k WHERE k.job = j.id)"
				   "  FOR UPDATE SKIP LOCKED))", 0, NULL, NULL, NULL);
	SPI_finish();
}

/*
 * Jobs that were restored from a dump wait for somebody to look at them: they
 * are paused as they become the oldest ones, and not worked at meanwhile.
 */
static void
pause_restored(void)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(chunks_origin())};

	chunks_connect();
	chunks_execute(SPI_OK_UPDATE,
				   "UPDATE perfopt.batch_job SET state = 'paused',"
				   " message = 'paused as it was begun in another database' WHERE id = ANY (ARRAY("
				   " SELECT id FROM perfopt.batch_job WHERE " STATE " = 'running'"
				   "    AND id = ANY (ARRAY(SELECT id FROM (" RUNNING ") j WHERE origin <> $1))"
				   "  FOR NO KEY UPDATE SKIP LOCKED))", 1, types, values, NULL);
	SPI_finish();
}

/* The jobs to be looked after, in the caller's memory context. */
static List *
running_jobs(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *jobs = NIL;
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(chunks_origin())};

	chunks_connect();
	chunks_execute(SPI_OK_SELECT,
				   "SELECT j.id, j.role::oid, j.workers, coalesce(l.num, 0) FROM (" RUNNING ") j LEFT JOIN"
				   " (SELECT objid, count(*)::int AS num FROM pg_locks"
				   "   WHERE locktype = 'object' AND classid = 'perfopt.batch_job'::regclass AND objsubid < 1000"
				   "     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
				   "   GROUP BY objid) l ON l.objid = (j.id % 4294967296)::text::oid"
				   " WHERE j.origin = $1 ORDER BY j.id",
				   1, types, values, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old_context = MemoryContextSwitchTo(context);
		Wanted	   *wanted = palloc(sizeof(Wanted));
		bool		isnull;

		wanted->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		wanted->role = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull));
		wanted->workers = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3, &isnull));
		wanted->at_work = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 4, &isnull));
		jobs = lappend(jobs, wanted);
		MemoryContextSwitchTo(old_context);
	}
	SPI_finish();
	return jobs;
}

static int
helpers_of(int64 id)
{
	int			num = 0;
	ListCell   *lc;

	foreach(lc, helpers)
		if (((Helper *) lfirst(lc))->job_id == id)
		num++;
	return num;
}

/* False: not now. */
static bool
submit(const Wanted *wanted)
{
	PerfoptJobSpec spec = {
		.capability = "batch",
		.payload = psprintf("CALL perfopt.batch_help(" INT64_FORMAT ")", wanted->id),
		.database = MyDatabaseId,
		.role = wanted->role,
		.fair_to_roles = true
	};
	MemoryContext old_context;
	Helper	   *helper;
	PerfoptJob	job;
	ErrorData  *error = perfopt_job_try_submit(&spec, &job);

	if (error)
	{
		/* when the queue is full, there is place later */
		if (error->sqlerrcode != ERRCODE_CONFIGURATION_LIMIT_EXCEEDED)
			note_error(wanted->id, error->sqlerrcode, error->message);
		return false;
	}
	old_context = MemoryContextSwitchTo(TopMemoryContext);
	helper = palloc(sizeof(Helper));
	helper->job_id = wanted->id;
	helper->job = job;
	helpers = lappend(helpers, helper);
	MemoryContextSwitchTo(old_context);
	return true;
}

/*
 * Until the transaction's end: rows are read in the order of an index, as many
 * as are asked for, also where the planner knows nothing of a table that has
 * just been filled.
 */
static void
read_in_order(void)
{
	(void) set_config_option("enable_bitmapscan", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

static void
look_after_jobs(void)
{
	List	   *jobs;
	ListCell   *lc;

	read_in_order();
	release_ended();
	pause_restored();
	jobs = running_jobs();
	foreach(lc, jobs)
	{
		Wanted	   *wanted = lfirst(lc);
		int			most = Min(wanted->workers, Max(perfopt_max_workers / 2, 1));
		int			more = Min(most - helpers_of(wanted->id),
							   wanted->workers - Max(wanted->at_work, helpers_of(wanted->id)));

		while (more-- > 0 && submit(wanted))
			;
	}

	/* last: nobody's rows keep others' jobs from being looked after */
	perfopt_duty_next_transaction();
	read_in_order();
	forget();
}

void
chunks_duty_init(void)
{
	static const PerfoptDuty duty = {
		.name = CHUNKS_DUTY,
		.interval_ms = &perfopt_batch_job_interval,
		.writes = true,
		.brief = true,
		.run = look_after_jobs
	};

	perfopt_duty_register(&duty);
}
