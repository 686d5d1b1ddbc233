/*
 * pool_worker.c
 *		The process of a job: connects as the job's role, runs it, and leaves
 *		its outcome behind.
 *
 * The role is the session's user, as after a login: there is no other role to
 * fall back to by RESET ROLE.
 *
 * Locking: see pool.c.  The outcome is collected in this process and put into
 * the slot by the exit callback, the only place that ends an attached job.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/compat.h"
#include "common/stop_points.h"
#include "common/text_settings.h"
#include "miscadmin.h"
#include "parser/analyze.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/procsignal.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "worker/worker_internal.h"

#define MAX_ENTRIES 16

/* Between the cancel of what takes too long, and the end of the process. */
#define GRACE_MS	2000

extern PGDLLEXPORT void perfopt_job_worker_main(Datum main_arg);

/* Filled while the postmaster loads the library, constant afterwards. */
static struct
{
	const char *name;
	PerfoptJobEntry entry;
}			entries[MAX_ENTRIES];
static int	num_entries = 0;

static JobSlot *my_slot;
static uint64 my_ticket;
static bool requeue = false;	/* leave the job to another process */
static PerfoptJobOutcome my_outcome;	/* state NONE: none yet */

static TimeoutId deadline = MAX_TIMEOUTS;
static volatile sig_atomic_t overdue = false;

void
perfopt_job_entry_register(const char *name, PerfoptJobEntry entry)
{
	if (num_entries == MAX_ENTRIES)
		elog(ERROR, "too many perfopt job entries");
	entries[num_entries].name = name;
	entries[num_entries++].entry = entry;
}

PerfoptJobEntry
worker_job_entry(const char *name)
{
	for (int i = 0; i < num_entries; i++)
		if (strcmp(entries[i].name, name) == 0)
			return entries[i].entry;
	return NULL;
}

/*
 * Our very last act, registered before the process joined the others and so
 * run after it has left them.
 */
static void
job_exit(int code, Datum arg)
{
	PerfoptJobOutcome *outcome = &my_outcome;
	char		then_duty[NAMEDATALEN];
	Oid			database = my_slot->database;

	LWLockAcquire(worker_pool->lock, LW_EXCLUSIVE);
	Assert(my_slot->ticket == my_ticket);
	my_slot->cpu_ms = worker_cpu_ms();
	my_slot->outcome.rows = outcome->rows;
	if (outcome->state == PERFOPT_JOB_DONE)
		worker_job_end(my_slot, PERFOPT_JOB_DONE, 0, outcome->message);
	else if (my_slot->stopped_by_hold)
		worker_job_end(my_slot, PERFOPT_JOB_CANCELLED, ERRCODE_ADMIN_SHUTDOWN,
					   "stopped for a command on its database");
	else if (my_slot->cancel_requested)
		worker_job_end(my_slot, PERFOPT_JOB_CANCELLED, ERRCODE_QUERY_CANCELED,
					   "cancelled");
	else if (requeue)
	{
		my_slot->pid = 0;
		my_slot->state = PERFOPT_JOB_QUEUED;
	}
	else if (outcome->state == PERFOPT_JOB_FAILED)
		worker_job_end(my_slot, PERFOPT_JOB_FAILED, outcome->sqlerrcode,
					   outcome->message);
	else if (overdue)
		worker_job_end(my_slot, PERFOPT_JOB_FAILED, ERRCODE_QUERY_CANCELED,
					   "went on after it was cancelled for taking too long");
	else
		/* What it could not even begin has failed; the rest is lost. */
		worker_job_end(my_slot,
					   my_slot->state == PERFOPT_JOB_STARTING && worker_last_words.sqlerrcode != 0 ?
					   PERFOPT_JOB_FAILED : PERFOPT_JOB_LOST,
					   worker_last_words.sqlerrcode,
					   worker_last_words.sqlerrcode != 0 ?
					   worker_last_words.message : "its process ended without an outcome");
	strlcpy(then_duty, my_slot->then_duty, NAMEDATALEN);
	LWLockRelease(worker_pool->lock);

	worker_duty_wake(database, then_duty);
	ConditionVariableBroadcast(&worker_pool->changed);
	ConditionVariableBroadcast(&worker_registry->changed);	/* for make_way() */
	worker_wake_launcher();
}

/*
 * Take possession of the job.  False when it is not ours to run: its slot has
 * been given to another start, it has been cancelled, or somebody wants the
 * database for himself right now.
 */
static bool
job_attach(int index)
{
	JobSlot    *slot = &worker_pool->slots[index];
	bool		ours;
	bool		run;

	memcpy(&my_ticket, MyBgworkerEntry->bgw_extra, sizeof(my_ticket));

	LWLockAcquire(worker_pool->lock, LW_EXCLUSIVE);
	ours = slot->state == PERFOPT_JOB_STARTING && slot->ticket == my_ticket;
	if (ours)
	{
		slot->pid = MyProcPid;
		slot->started_at = GetCurrentTimestamp();
	}
	run = ours && !slot->cancel_requested;
	LWLockRelease(worker_pool->lock);
	if (!ours)
		return false;

	my_slot = slot;
	worker_keep_last_words();
	on_shmem_exit(job_exit, (Datum) 0);

	/*
	 * A command that puts its hold after this look finds our pid in the slot,
	 * and waits for us.
	 */
	LWLockAcquire(worker_registry->lock, LW_SHARED);
	requeue = worker_database_held(slot->database);
	LWLockRelease(worker_registry->lock);
	return run && !requeue;
}

/* Timeout handler: no PL can catch FATAL. */
static void
end_process(void)
{
	overdue = true;
	InterruptPending = true;
	ProcDiePending = true;
}

void
perfopt_job_limit(int timeout_ms)
{
	if (deadline == MAX_TIMEOUTS)
		deadline = RegisterTimeout(USER_TIMEOUT, end_process);

	/* a cancel on its way was for what is over */
	disable_timeout(deadline, false);
	disable_timeout(STATEMENT_TIMEOUT, true);
	if (get_timeout_indicator(STATEMENT_TIMEOUT, true) && !my_slot->cancel_requested)
		QueryCancelPending = false;
	if (timeout_ms > 0)
	{
		enable_timeout_after(STATEMENT_TIMEOUT, timeout_ms);
		enable_timeout_after(deadline, timeout_ms + GRACE_MS);
	}
}

/*
 * Much as a client's simple query, except that each statement of the string
 * is a transaction of its own unless the string says BEGIN.
 */
uint64
perfopt_job_run_statement(const char *sql)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "perfopt statement",
												  ALLOCSET_DEFAULT_SIZES);
	const char *outer_query = debug_query_string;
	List	   *parsed;
	ListCell   *lc;
	uint64		rows = 0;

	debug_query_string = sql;
	pgstat_report_activity(STATE_RUNNING, sql);

	MemoryContextSwitchTo(context);
	parsed = pg_parse_query(sql);

	foreach(lc, parsed)
	{
		RawStmt    *statement = lfirst_node(RawStmt, lc);
		CommandTag	tag = CreateCommandTag(statement->stmt);
		List	   *plans;
		Portal		portal;
		DestReceiver *dest;
		QueryCompletion completion;
		bool		snapshot = false;

		if (IsAbortedTransactionBlockState() &&
			!(IsA(statement->stmt, TransactionStmt)))
			ereport(ERROR,
					(errcode(ERRCODE_IN_FAILED_SQL_TRANSACTION),
					 errmsg("current transaction is aborted")));

		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		CHECK_FOR_INTERRUPTS();
		if (analyze_requires_snapshot(statement))
		{
			PushActiveSnapshot(GetTransactionSnapshot());
			snapshot = true;
		}
		/* the plans must outlive a transaction that the statement ends */
		MemoryContextSwitchTo(context);
		plans = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(statement, sql,
																   NULL, 0, NULL),
								sql, CURSOR_OPT_PARALLEL_OK, NULL);
		if (snapshot)
			PopActiveSnapshot();
		CHECK_FOR_INTERRUPTS();

		portal = CreatePortal("", true, true);
		portal->visible = false;
		PortalDefineQuery(portal, NULL, sql, tag, plans, NULL);
		PortalStart(portal, NULL, 0, InvalidSnapshot);
		dest = CreateDestReceiver(DestNone);
		InitializeQueryCompletion(&completion);
		MemoryContextSwitchTo(TopTransactionContext);
		(void) PERFOPT_PORTAL_RUN(portal, FETCH_ALL, true, dest, dest, &completion);
		dest->rDestroy(dest);
		PortalDrop(portal, false);
		rows = completion.nprocessed;
		CommitTransactionCommand();
		MemoryContextSwitchTo(context);
	}
	if (IsTransactionBlock())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("the statement leaves a transaction open")));

	(void) pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	debug_query_string = outer_query;
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return rows;
}

/* Run the job; what goes wrong becomes its outcome. */
static void
run_job(const char *capability, const char *entry, char *payload,
		char *settings, int timeout_ms)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "perfopt job",
												  ALLOCSET_DEFAULT_SIZES);

	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		SetConfigOption("application_name", psprintf("perfopt %s", capability),
						PGC_USERSET, PGC_S_SESSION);
		perfopt_job_limit(timeout_ms);
		StartTransactionCommand();
		perfopt_apply_settings(settings, GUC_ACTION_SET);
		CommitTransactionCommand();
		MemoryContextSwitchTo(context);
		PERFOPT_STOP_POINT("job-running");

		if (entry[0] == '\0')
			my_outcome.rows = perfopt_job_run_statement(payload);
		else
			worker_job_entry(entry) (payload, &my_outcome);
		if (IsTransactionState())
			elog(ERROR, "perfopt job \"%s\" left a transaction open", entry);
		my_outcome.state = PERFOPT_JOB_DONE;
		my_outcome.sqlerrcode = 0;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		HOLD_INTERRUPTS();
		disable_all_timeouts(false);
		EmitErrorReport();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		my_outcome.state = PERFOPT_JOB_FAILED;
		my_outcome.sqlerrcode = error->sqlerrcode;
		worker_copy_message(my_outcome.message, sizeof(my_outcome.message),
							error->message);
		AbortOutOfAnyTransaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
}

void
perfopt_job_worker_main(Datum main_arg)
{
	char	   *capability;
	char	   *entry;
	char	   *payload;
	char	   *settings;
	int			timeout_ms;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, StatementCancelHandler);
	BackgroundWorkerUnblockSignals();

	PERFOPT_STOP_POINT("job-starting");
	if (!job_attach(DatumGetInt32(main_arg)))
		proc_exit(0);

	/* The slot's description does not change while we are attached. */
	capability = MemoryContextStrdup(TopMemoryContext, my_slot->capability);
	entry = MemoryContextStrdup(TopMemoryContext, my_slot->entry);
	payload = MemoryContextStrdup(TopMemoryContext, my_slot->payload);
	settings = MemoryContextStrdup(TopMemoryContext, my_slot->settings);
	timeout_ms = my_slot->timeout_ms;

	PERFOPT_STOP_POINT("job-attached");
	BackgroundWorkerInitializeConnectionByOid(my_slot->database, my_slot->role,
											  PERFOPT_BYPASS_ROLELOGINCHECK);
	LWLockAcquire(worker_pool->lock, LW_EXCLUSIVE);
	my_slot->state = PERFOPT_JOB_RUNNING;
	LWLockRelease(worker_pool->lock);

	run_job(capability, entry, payload, settings, timeout_ms);
	PERFOPT_STOP_POINT("job-ending");
	proc_exit(0);
}
