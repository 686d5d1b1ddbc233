/*
 * buffer.c
 *		perfopt.buffer_insert() and perfopt.flush(): what callers of buffered
 *		inserts meet.  buffer_memory.c has the rows, buffer_flusher.c the process
 *		that inserts them, buffer_spool.c mode durable.
 *
 * Who waits for a flush waits for its latch, which the deadlock detector does
 * not see.  So nobody may who has written, or who holds a lock on the table
 * that an INSERT would wait for; for whatever else he may hold the flusher
 * waits lock_timeout at most.
 *
 * A row that is put is not part of the caller's transaction, except in mode
 * durable: it stays when that is rolled back.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "batch/buffer_internal.h"
#include "catalog/pg_class.h"
#include "common/compat.h"
#include "common/shmem.h"
#include "common/stop_points.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

PG_FUNCTION_INFO_V1(perfopt_buffer_insert);
PG_FUNCTION_INFO_V1(perfopt_flush);

/* A cancelled caller waits so long to be able to say what became of his row. */
#define CANCELLED_WAIT_MS	2000

/* A look whether the process that is to flush still is there. */
#define LOOK_MS				1000

/* A job that has no process yet may come to nothing: a closer look. */
#define LOOK_STARTING_MS	50

#define FLUSH_HINT		"Call perfopt.flush() in a transaction of its own."

static const char *const mode_names[] = {
	[BUFFER_ACK] = "ack",
	[BUFFER_LOSSY] = "lossy",
	[BUFFER_DURABLE] = "durable"
};

const char *
buffer_mode_name(BufferMode mode)
{
	return mode_names[mode];
}

static BufferMode
mode_by_name(const char *name)
{
	for (int i = 0; i < BUFFER_NUM_MODES; i++)
		if (strcmp(mode_names[i], name) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized mode of buffered inserts: \"%s\"", name),
			 errhint("Modes are \"ack\", \"lossy\" and \"durable\".")));
	return BUFFER_ACK;			/* keep compiler quiet */
}

/* ---------------------------------------------------------------------
 * What is refused
 */
static void
check_session(void)
{
	perfopt_require_preload();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot buffer inserts during recovery"),
				 errhint("Connect to the primary server.")));
	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot buffer inserts during a parallel operation")));
	PreventCommandIfReadOnly("perfopt.buffer_insert()");
	if (!perfopt_worker_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("perfopt's background workers are turned off"),
				 errdetail("They insert what is buffered."),
				 errhint("Set \"perfopt.worker\" to on and reload the configuration.")));
	if (!perfopt_job_role_can_log_in(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role \"%s\" is not permitted to log in",
						GetUserNameFromId(GetUserId(), false)),
				 errdetail("Its rows are to be inserted in the background, by a process connected as that role."),
				 errhint("Give it LOGIN, or use INSERT.")));
}

/* What can be seen at once; the INSERT looks again, and closer. */
static void
check_target(Oid target)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(target));
	Form_pg_class class;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", target)));
	class = (Form_pg_class) GETSTRUCT(tuple);
	if (class->relkind != RELKIND_RELATION && class->relkind != RELKIND_PARTITIONED_TABLE &&
		class->relkind != RELKIND_VIEW && class->relkind != RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot insert into \"%s\"", NameStr(class->relname)),
				 errdetail("It is neither a table nor a view.")));
	if (class->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot buffer inserts into temporary table \"%s\"", NameStr(class->relname)),
				 errdetail("They are made by another process, which does not see it.")));
	if (pg_class_aclcheck(target, GetUserId(), ACL_INSERT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(target, GetUserId(), ACL_INSERT, ACLMASK_ANY) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(class->relkind),
					   NameStr(class->relname));
	ReleaseSysCache(tuple);
}

/* What a flush could wait for while we wait for it. */
static void
check_may_wait(Oid target, const char *hint)
{
	static const LOCKMODE modes[] = {ShareLock, ShareRowExclusiveLock, ExclusiveLock,
	AccessExclusiveLock};
	LOCKTAG		tag;

	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for buffered inserts in a transaction that has written"),
				 errdetail("They may have to wait for what this transaction has written."),
				 errhint("%s", hint)));
	if (buffer_in_flusher())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot wait for buffered inserts while some are made"),
				 errhint("%s", hint)));
	if (!OidIsValid(target))
		return;
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, target);
	for (int i = 0; i < lengthof(modes); i++)
		if (perfopt_lock_held_by_me(&tag, modes[i]))
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("cannot wait for buffered inserts into a table that this transaction has locked"),
					 errhint("%s", hint)));
}

/* ---------------------------------------------------------------------
 * Waiting for one's row
 */

static BufferPlace waiting_at = {.owner = BUFFER_NONE};

/* Nothing is told any more, neither to us nor to who gets our place. */
static void
stop_waiting(void)
{
	if (waiting_at.owner != BUFFER_NONE)
		(void) buffer_withdraw(&waiting_at, true);
	waiting_at.owner = BUFFER_NONE;
}

static void
exit_callback(int code, Datum arg)
{
	stop_waiting();
}

static BufferWaiterState
my_state(const BufferPlace *place, BufferWaiter *copy)
{
	BufferWaiterState state;

	LWLockAcquire(buffer_owner_lock(place->owner), LW_SHARED);
	state = buffer_waiter(perfopt_my_proc_number())->state;
	if (state == WAITER_DONE)
		*copy = *buffer_waiter(perfopt_my_proc_number());
	LWLockRelease(buffer_owner_lock(place->owner));
	return state;
}

static void
wait_for_latch(long timeout_ms)
{
	int			rc = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							   timeout_ms, PG_WAIT_EXTENSION);

	if (rc & WL_LATCH_SET)
		ResetLatch(MyLatch);
}

/* An error for a caller whose row no process takes: it has been withdrawn. */
static void
nobody_flushes(PerfoptJob job, ErrorData *error)
{
	PerfoptJobOutcome outcome = {0};

	if (error)
		ReThrowError(error);
	if (job.slot >= 0 && perfopt_job_poll(job, &outcome) == PERFOPT_JOB_FAILED)
		ereport(ERROR,
				(errcode(outcome.sqlerrcode),
				 errmsg_internal("%s", outcome.message),
				 errdetail("A background process could not insert the buffered row.")));
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no background process took the buffered row"),
			 errdetail("It has been withdrawn after \"perfopt.buffer_timeout\" (%d ms).",
					   perfopt_buffer_timeout),
			 errhint("See perfopt.jobs for what keeps the processes, or raise \"perfopt.max_workers\".")));
}

/* CHECK_FOR_INTERRUPTS(), its error returned. */
static ErrorData *
check_for_interrupts(void)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		CHECK_FOR_INTERRUPTS();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	return error;
}

/*
 * The caller is cancelled.  Returns when it is too late for that: the row is
 * done.  When a flush has it, the end of that is not far, and tells.
 */
static void
cancelled(const BufferPlace *place, BufferWaiter *verdict, ErrorData *error)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CANCELLED_WAIT_MS);
	long		ms = CANCELLED_WAIT_MS;

	if (buffer_withdraw(place, false) == WAITER_WAITING)
		ReThrowError(error);
	HOLD_INTERRUPTS();
	while (my_state(place, verdict) != WAITER_DONE && ms > 0 && !ProcDiePending)
	{
		wait_for_latch(ms);
		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
	}
	RESUME_INTERRUPTS();
	if (my_state(place, verdict) == WAITER_DONE)
		return;
	/* given back meanwhile, by a flusher that has ended? */
	if (buffer_withdraw(place, true) == WAITER_WAITING)
		ReThrowError(error);
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("canceled while the buffered row was being inserted"),
			 errdetail("It may be inserted or not.")));
}

/* Have the row flushed, and wait until that is over. */
static void
wait_for_verdict(const BufferPlace *place, BufferWaiter *verdict)
{
	PerfoptJob	job = {.slot = -1};
	TimestampTz begin = GetCurrentTimestamp();

	while (my_state(place, verdict) != WAITER_DONE)
	{
		bool		at_work = buffer_flusher_at_work(place->owner);
		ErrorData  *error = NULL;

		if (!at_work)
		{
			PerfoptJobOutcome outcome;
			bool		give_up;

			if (job.slot >= 0 && perfopt_job_poll(job, &outcome) == PERFOPT_JOB_FAILED)
				give_up = true;
			else
			{
				error = buffer_need_flusher(place, &job);
				give_up = (error && error->sqlerrcode != ERRCODE_CONFIGURATION_LIMIT_EXCEEDED) ||
					TimestampDifferenceExceeds(begin, GetCurrentTimestamp(), perfopt_buffer_timeout);
			}
			if (give_up && buffer_withdraw(place, false) == WAITER_WAITING)
				nobody_flushes(job, error);
		}
		wait_for_latch(at_work ? LOOK_MS : LOOK_STARTING_MS);
		error = check_for_interrupts();
		if (error)
			cancelled(place, verdict, error);
	}
	if (job.slot >= 0)
		perfopt_job_release(job);
}

/* ---------------------------------------------------------------------
 * perfopt.buffer_insert()
 */

/* Put the row into shared memory, as soon as there is place. */
static void
put_row(Oid target, Jsonb *row, BufferMode mode, BufferPlace *place)
{
	TimestampTz deadline = 0;

	if (VARSIZE(row) > buffer_max_row())
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("row is too large for the insert buffer"),
				 errdetail("It has %zu bytes, and at most %zu are possible.",
						   (Size) VARSIZE(row), buffer_max_row()),
				 errhint("Insert it by INSERT, or raise \"perfopt.buffer_size\".")));

	while (!buffer_find_owner(MyDatabaseId, GetUserId(), true, place) ||
		   !buffer_put(place, target, row, mode))
	{
		TimestampTz now = GetCurrentTimestamp();

		if (deadline == 0)
			deadline = TimestampTzPlusMilliseconds(now, perfopt_buffer_timeout);
		if (now >= deadline)
		{
			ConditionVariableCancelSleep();
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("insert buffer is full"),
					 errdetail("There was no place for the row within \"perfopt.buffer_timeout\" (%d ms). A role can have half of the buffer.",
							   perfopt_buffer_timeout),
					 errhint("See perfopt.insert_buffers for what is in it, or raise \"perfopt.buffer_size\".")));
		}
		if (place->owner != BUFFER_NONE && !buffer_flusher_at_work(place->owner))
		{
			PerfoptJob	job = {.slot = -1};
			ErrorData  *error = buffer_need_flusher(place, &job);

			if (job.slot >= 0)
				perfopt_job_release(job);
			if (error && error->sqlerrcode != ERRCODE_CONFIGURATION_LIMIT_EXCEEDED)
			{
				ConditionVariableCancelSleep();
				ReThrowError(error);
			}
		}
		buffer_wait_for_space(deadline);
		CHECK_FOR_INTERRUPTS();
	}
	if (deadline != 0)
		ConditionVariableCancelSleep();
}

/* The row's own error, as if the caller had inserted it. */
static void
raise_error(const BufferWaiter *verdict)
{
	bool		locked = verdict->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;

	ereport(ERROR,
			(errcode(verdict->sqlerrcode),
			 errmsg_internal("%s", verdict->message),
			 verdict->detail[0] ? errdetail_internal("%s", verdict->detail) :
			 locked ? errdetail("The process that inserts buffered rows waits 1 s for a lock.") : 0,
			 locked ? errhint("Try again.") : 0,
			 verdict->constraint[0] ?
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, verdict->constraint) : 0));
}

Datum
perfopt_buffer_insert(PG_FUNCTION_ARGS)
{
	Oid			target;
	Jsonb	   *row;
	BufferMode	mode;
	BufferPlace place;
	static bool registered = false;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("arguments of perfopt.buffer_insert() must not be null")));
	target = PG_GETARG_OID(0);
	row = PG_GETARG_JSONB_P(1);
	mode = mode_by_name(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	check_session();
	check_target(target);
	if (!JB_ROOT_IS_OBJECT(row))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a row to be inserted must be a jsonb object")));

	if (mode == BUFFER_DURABLE)
	{
		buffer_spool_put(target, row);
		PG_RETURN_TEXT_P(cstring_to_text("spooled"));
	}
	if (mode == BUFFER_ACK)
	{
		BufferWaiter verdict = {0};

		check_may_wait(target, "Call it outside of the transaction, or use mode \"durable\".");
		if (!registered)
		{
			before_shmem_exit(exit_callback, (Datum) 0);
			registered = true;
		}
		put_row(target, row, mode, &place);
		waiting_at = place;
		PG_TRY();
		{
			PERFOPT_STOP_POINT("buffer-put");
			wait_for_verdict(&place, &verdict);
		}
		PG_CATCH();
		{
			stop_waiting();
			PG_RE_THROW();
		}
		PG_END_TRY();
		waiting_at.owner = BUFFER_NONE;
		if (verdict.action == BATCH_REJECTED)
			raise_error(&verdict);
		PG_RETURN_TEXT_P(cstring_to_text(verdict.action == BATCH_SKIPPED ? "skipped" : "inserted"));
	}

	put_row(target, row, mode, &place);
	if (!buffer_flusher_at_work(place.owner))
	{
		PerfoptJob	job = {.slot = -1};
		ErrorData  *error = buffer_need_flusher(&place, &job);

		if (job.slot >= 0)
			perfopt_job_release(job);

		/* the row is in; the duty gets it a flusher later */
		if (error)
			perfopt_duty_wake_at_commit(BUFFER_DUTY_NAME);
	}
	PG_RETURN_TEXT_P(cstring_to_text("buffered"));
}

/* ---------------------------------------------------------------------
 * perfopt.flush()
 */

/* What of an owner is to be written. */
typedef struct FlushGoal
{
	BufferPlace place;
	int			num;
	int			queues[BUFFER_MAX_QUEUES];
	Oid			targets[BUFFER_MAX_QUEUES];
	uint64		numbers[BUFFER_MAX_QUEUES];
	uint64		spool_request;
	int64		spool_moved;	/* before */
	int64		rows;
} FlushGoal;

/* Everything that is there is due now. */
static bool
set_goal(FlushGoal *goal, Oid target)
{
	BufferOwner *owner = buffer_owner(goal->place.owner);

	if (!buffer_lock_place(&goal->place))
		return false;
	for (int i = 0; i < BUFFER_MAX_QUEUES; i++)
	{
		BufferQueue *queue = &owner->queues[i];

		if (!OidIsValid(queue->target) || (OidIsValid(target) && queue->target != target) ||
			queue->done_number == queue->last_number)
			continue;
		queue->flush_number = queue->last_number;
		goal->queues[goal->num] = i;
		goal->targets[goal->num] = queue->target;
		goal->numbers[goal->num++] = queue->last_number;
		goal->rows += queue->rows + queue->taken;
	}
	goal->spool_request = ++owner->spool_request;
	goal->spool_moved = owner->spool_moved;
	buffer_wake_flusher(owner);
	LWLockRelease(buffer_owner_lock(goal->place.owner));
	return true;
}

static bool
reached_goal(FlushGoal *goal)
{
	BufferOwner *owner = buffer_owner(goal->place.owner);
	bool		reached;

	if (!buffer_lock_place(&goal->place))
		return true;			/* nothing was left */
	reached = owner->spool_served >= goal->spool_request;
	for (int i = 0; i < goal->num && reached; i++)
	{
		BufferQueue *queue = &owner->queues[goal->queues[i]];

		/* one that made way for another table was empty */
		reached = queue->target != goal->targets[i] || queue->done_number >= goal->numbers[i];
	}
	if (reached)
		goal->rows += owner->spool_moved - goal->spool_moved;
	LWLockRelease(buffer_owner_lock(goal->place.owner));
	return reached;
}

/* The end of a job that was to flush, as an error.  NULL: it has not failed. */
static ErrorData *
job_error(PerfoptJob job)
{
	PerfoptJobOutcome outcome;
	ErrorData  *error;

	if (job.slot < 0 || perfopt_job_poll(job, &outcome) != PERFOPT_JOB_FAILED)
		return NULL;
	error = palloc0(sizeof(ErrorData));
	error->elevel = ERROR;
	error->sqlerrcode = outcome.sqlerrcode;
	error->message = pstrdup(outcome.message);
	error->detail = "A background process could not insert the buffered rows.";
	return error;
}

/* Adds to *rows.  Returns the error that prevents it, or NULL. */
static ErrorData *
flush_owner(const BufferPlace *place, Oid target, int64 *rows)
{
	FlushGoal	goal = {.place = *place};
	PerfoptJob	job = {.slot = -1};
	ConditionVariable *flushed = &buffer_owner(place->owner)->flushed;
	ErrorData  *error = NULL;

	if (!set_goal(&goal, target))
		return NULL;
	ConditionVariablePrepareToSleep(flushed);
	while (!reached_goal(&goal))
	{
		bool		at_work = buffer_flusher_at_work(place->owner);

		if (!at_work)
		{
			error = job_error(job);
			if (error)
				break;
			error = buffer_need_flusher(place, &job);
			if (error && error->sqlerrcode != ERRCODE_CONFIGURATION_LIMIT_EXCEEDED)
				break;
			error = NULL;
		}
		(void) ConditionVariableTimedSleep(flushed, at_work ? LOOK_MS : LOOK_STARTING_MS,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	if (job.slot >= 0)
		perfopt_job_release(job);
	*rows += goal.rows;
	return error;
}

/* The tables of an owner that a flush would write to must not be locked by us. */
static void
check_targets(int owner, Oid target)
{
	Oid			targets[BUFFER_MAX_QUEUES];
	int			num = 0;

	LWLockAcquire(buffer_owner_lock(owner), LW_SHARED);
	for (int i = 0; i < BUFFER_MAX_QUEUES; i++)
	{
		BufferQueue *queue = &buffer_owner(owner)->queues[i];

		if (OidIsValid(queue->target) && queue->done_number != queue->last_number)
			targets[num++] = queue->target;
	}
	LWLockRelease(buffer_owner_lock(owner));
	for (int i = 0; i < num; i++)
		if (!OidIsValid(target) || targets[i] == target)
			check_may_wait(targets[i], FLUSH_HINT);
}

/* Has the owner put rows for this table?  A look without a lock to rely on. */
static bool
has_queue(int owner, Oid target)
{
	bool		result;

	LWLockAcquire(buffer_owner_lock(owner), LW_SHARED);
	result = buffer_find_queue(buffer_owner(owner), target, false) != BUFFER_NONE;
	LWLockRelease(buffer_owner_lock(owner));
	return result;
}

Datum
perfopt_flush(PG_FUNCTION_ARGS)
{
	Oid			target = PG_ARGISNULL(0) ? InvalidOid : PG_GETARG_OID(0);
	bool		all;
	BufferPlace place;
	BufferPlace places[BUFFER_MAX_OWNERS];
	int			num = 0;
	ErrorData  *first_error = NULL;
	int64		rows = 0;
	int64		waiting;

	check_session();
	all = superuser() ||
		(OidIsValid(target) && perfopt_table_ownercheck(target, GetUserId()));
	check_may_wait(target, FLUSH_HINT);
	if (buffer_find_owner(MyDatabaseId, GetUserId(), true, &place))
		places[num++] = place;
	if (superuser() && !OidIsValid(target))
	{
		/* also whose rows are from before the server was started */
		ListCell   *lc;

		foreach(lc, buffer_spool_roles())
		{
			if (SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(lfirst_oid(lc))))
				(void) buffer_find_owner(MyDatabaseId, lfirst_oid(lc), true, &place);
		}
	}
	for (int i = 0; all && i < BUFFER_MAX_OWNERS; i++)
	{
		BufferOwner *owner = buffer_owner(i);

		place.owner = i;
		LWLockAcquire(buffer_owner_lock(i), LW_SHARED);
		place.database = owner->database;
		place.role = owner->role;
		LWLockRelease(buffer_owner_lock(i));
		/* what a role has left that was dropped goes by the duty */
		if (place.database == MyDatabaseId && place.role != GetUserId() &&
			(!OidIsValid(target) || has_queue(i, target)) &&
			SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(place.role)) &&
			num < BUFFER_MAX_OWNERS)
			places[num++] = place;
	}
	for (int i = 0; i < num; i++)
		check_targets(places[i].owner, target);
	for (int i = 0; i < num; i++)
	{
		ErrorData  *error = flush_owner(&places[i], target, &rows);

		if (first_error == NULL)
			first_error = error;
	}
	if (first_error)
		ThrowErrorData(first_error);
	waiting = buffer_spool_waiting(GetUserId());
	if (waiting > 0)
		ereport(WARNING,
				(errmsg_plural(INT64_FORMAT " buffered row waits for another attempt",
							   INT64_FORMAT " buffered rows wait for another attempt",
							   waiting, waiting),
				 errhint("See perfopt.insert_spool for what they failed with.")));
	PG_RETURN_INT64(rows);
}

void
batch_buffer_init(void)
{
	buffer_blocks_init();
	buffer_memory_init();
	buffer_flush_init();
	buffer_spool_init();
}
