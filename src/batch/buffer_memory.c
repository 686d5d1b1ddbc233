/*
 * buffer_memory.c
 *		Buffered inserts: the rows in shared memory.
 *
 * An owner is a role in a database.  It has a queue for each table, and one
 * process, the flusher, that inserts what is in them, connected as that role.
 * So nothing of a role is run, or seen, by another one.  A row lies in blocks of
 * buffer_blocks.c, half of which a role can have.
 *
 *	 put -> waiting in its queue -> taken by a flush -> posted: gone
 *	               |    ^                 |
 *	               |    +-----------------+  the flusher's process has ended
 *	               +-> withdrawn, by who waited for it
 *
 * A flush posts what has become of its rows when its transaction has
 * committed, in the callback of the commit, where nothing can come in between.
 * As long as that has not happened the rows are in the list of those taken,
 * and are given back to the queue when the flusher ends.  So a row is inserted
 * once whatever happens to a process; after a crash of the server shared
 * memory is empty, and rows that were not inserted yet were not acknowledged.
 *
 * LOCKING
 *
 * An LWLock for each owner guards its queues, the fields of the rows that are
 * in them, its flusher, and what is told to the processes that wait for rows of
 * it.  The directory's LWLock guards which owner is whose; that changes under
 * both, the directory's taken first, so that holding either is enough to rely
 * on it.  A process remembers its owner, and looks whether it still is his
 * when it has the owner's lock.  The sums of what has been forgotten have a
 * spinlock.
 *
 * The contents of a row are written before it is linked, and read by who has
 * taken it, without a lock.  Between taking blocks and linking the row, and
 * between unlinking rows and freeing their blocks, interrupts are held, so a
 * process cannot end there.
 *
 * Numbers of blocks in use are counted by owner, without a lock.  Who adds up
 * a role's may see another one's change half; the share is exceeded by what is
 * put at that moment, at most.
 */
#include "postgres.h"

#include "batch/buffer_internal.h"
#include "common/compat.h"
#include "common/shmem.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

typedef struct InsertBuffer
{
	int			num_waiters;
	slock_t		forgotten_lock;
	BufferCounters forgotten[BUFFER_NUM_MODES]; /* of queues that made way */
	BufferOwner owners[BUFFER_MAX_OWNERS];
	/* then BufferWaiters */
} InsertBuffer;

static InsertBuffer *buffer = NULL;
static BufferWaiter *waiters;
static LWLockPadded *locks;		/* directory, owners */

#define DIRECTORY_LOCK	(&locks[0].lock)
#define OWNER_LOCK(i)	(&locks[1 + (i)].lock)

/* What this process used last. */
static BufferPlace last_place = {.owner = BUFFER_NONE};

/* ---------------------------------------------------------------------
 * Setting up
 */
static Size
area_size(void)
{
	return add_size(MAXALIGN(sizeof(InsertBuffer)), mul_size(MaxBackends, sizeof(BufferWaiter)));
}

static void
attach(void *area, LWLockPadded *part_locks, bool found)
{
	buffer = area;
	locks = part_locks;
	waiters = (BufferWaiter *) ((char *) area + MAXALIGN(sizeof(InsertBuffer)));
	if (found)
		return;

	memset(buffer, 0, sizeof(InsertBuffer));
	memset(waiters, 0, MaxBackends * sizeof(BufferWaiter));
	buffer->num_waiters = MaxBackends;
	SpinLockInit(&buffer->forgotten_lock);
	for (int i = 0; i < BUFFER_MAX_OWNERS; i++)
	{
		pg_atomic_init_u32(&buffer->owners[i].blocks, 0);
		ConditionVariableInit(&buffer->owners[i].flushed);
		buffer->owners[i].taken_first = BUFFER_NONE;
	}
}

void
buffer_memory_init(void)
{
	static const PerfoptShmemPart part = {
		.name = "insert_buffer",
		.num_locks = 1 + BUFFER_MAX_OWNERS,
		.area_size = area_size,
		.init = attach
	};

	perfopt_shmem_register(&part);
}

BufferOwner *
buffer_owner(int owner)
{
	return &buffer->owners[owner];
}

LWLock *
buffer_owner_lock(int owner)
{
	return OWNER_LOCK(owner);
}

BufferWaiter *
buffer_waiter(int proc)
{
	Assert(proc >= 0 && proc < buffer->num_waiters);
	return &waiters[proc];
}

/* The latch of a process that may have ended: then whoever is in its place looks around. */
void
buffer_set_latch(int proc)
{
	SetLatch(&ProcGlobal->allProcs[proc].procLatch);
}

static uint32
blocks_of_role(Oid role)
{
	uint32		sum = 0;

	for (int i = 0; i < BUFFER_MAX_OWNERS; i++)
		if (buffer->owners[i].role == role)
			sum += pg_atomic_read_u32(&buffer->owners[i].blocks);
	return sum;
}

/* ---------------------------------------------------------------------
 * Owners and queues
 */

/* Is there anything the entry is needed for?  Owner locked. */
static bool
is_busy(const BufferOwner *owner)
{
	return pg_atomic_read_u32(unconstify(pg_atomic_uint32 *, &owner->blocks)) > 0 ||
		owner->flusher != FLUSHER_NONE || owner->spooled > 0 ||
		owner->spool_promises > 0 || owner->spool_request > owner->spool_served;
}

/*
 * The queue makes way for another one; its counters stay, and so do its numbers,
 * which somebody may still look at.  Owner locked.
 */
static void
forget_queue(BufferQueue *queue)
{
	uint64		number = queue->last_number;

	SpinLockAcquire(&buffer->forgotten_lock);
	for (int i = 0; i < BUFFER_NUM_MODES; i++)
	{
		buffer->forgotten[i].inserted += queue->counters[i].inserted;
		buffer->forgotten[i].skipped += queue->counters[i].skipped;
		buffer->forgotten[i].rejected += queue->counters[i].rejected;
		buffer->forgotten[i].lost += queue->counters[i].lost;
	}
	SpinLockRelease(&buffer->forgotten_lock);
	memset(queue, 0, sizeof(BufferQueue));
	queue->first = queue->last = BUFFER_NONE;
	queue->last_number = queue->done_number = queue->flush_number = number;
}

void
buffer_forgotten(BufferCounters counters[BUFFER_NUM_MODES])
{
	SpinLockAcquire(&buffer->forgotten_lock);
	memcpy(counters, buffer->forgotten, sizeof(buffer->forgotten));
	SpinLockRelease(&buffer->forgotten_lock);
}

static int
search_owner(Oid database, Oid role)
{
	for (int i = 0; i < BUFFER_MAX_OWNERS; i++)
		if (buffer->owners[i].database == database && buffer->owners[i].role == role)
			return i;
	return BUFFER_NONE;
}

/* An unused entry, or the one longest idle.  Directory locked exclusively. */
static int
make_owner(Oid database, Oid role)
{
	int			best = BUFFER_NONE;
	BufferOwner *owner;

	for (int i = 0; i < BUFFER_MAX_OWNERS; i++)
	{
		bool		busy;

		owner = &buffer->owners[i];
		LWLockAcquire(OWNER_LOCK(i), LW_SHARED);
		busy = owner->database != InvalidOid && is_busy(owner);
		if (!busy && (best == BUFFER_NONE || owner->used_at < buffer->owners[best].used_at))
			best = i;
		LWLockRelease(OWNER_LOCK(i));
	}
	if (best == BUFFER_NONE)
		return best;

	owner = &buffer->owners[best];
	LWLockAcquire(OWNER_LOCK(best), LW_EXCLUSIVE);
	if (owner->database != InvalidOid && is_busy(owner))
		best = BUFFER_NONE;		/* by now */
	else
	{
		for (int i = 0; i < BUFFER_MAX_QUEUES; i++)
			forget_queue(&owner->queues[i]);
		owner->database = database;
		owner->role = role;
		owner->taken_first = BUFFER_NONE;
		owner->spooled_at = 0;
		/* a process, or the server, may have ended at its rows: nobody knows */
		owner->spool_suspect = true;
		owner->used_at = GetCurrentTimestamp();
	}
	LWLockRelease(OWNER_LOCK(best));
	return best;
}

/*
 * The owner's place; false when there is none, or with create when all are busy.
 */
bool
buffer_find_owner(Oid database, Oid role, bool create, BufferPlace *place)
{
	if (last_place.owner != BUFFER_NONE && last_place.database == database &&
		last_place.role == role)
	{
		*place = last_place;
		if (buffer_lock_place(place))
		{
			LWLockRelease(OWNER_LOCK(place->owner));
			return true;
		}
	}
	place->database = database;
	place->role = role;
	LWLockAcquire(DIRECTORY_LOCK, LW_SHARED);
	place->owner = search_owner(database, role);
	LWLockRelease(DIRECTORY_LOCK);
	if (place->owner == BUFFER_NONE && create)
	{
		LWLockAcquire(DIRECTORY_LOCK, LW_EXCLUSIVE);
		place->owner = search_owner(database, role);
		if (place->owner == BUFFER_NONE)
			place->owner = make_owner(database, role);
		LWLockRelease(DIRECTORY_LOCK);
	}
	if (place->owner == BUFFER_NONE)
		return false;
	last_place = *place;
	return true;
}

/* Lock the owner's entry, if it still is his. */
bool
buffer_lock_place(const BufferPlace *place)
{
	BufferOwner *owner = &buffer->owners[place->owner];

	LWLockAcquire(OWNER_LOCK(place->owner), LW_EXCLUSIVE);
	if (owner->database == place->database && owner->role == place->role)
		return true;
	LWLockRelease(OWNER_LOCK(place->owner));
	return false;
}

/*
 * The owner's queue for the table.  With create one that is idle makes way for
 * it; BUFFER_NONE when none is.  Owner locked.
 */
int
buffer_find_queue(BufferOwner *owner, Oid target, bool create)
{
	int			best = BUFFER_NONE;

	for (int i = 0; i < BUFFER_MAX_QUEUES; i++)
	{
		BufferQueue *queue = &owner->queues[i];

		if (queue->target == target)
			return i;
		if (queue->target != InvalidOid &&
			(queue->first != BUFFER_NONE || queue->taken > 0))
			continue;
		if (best == BUFFER_NONE || queue->used_at < owner->queues[best].used_at)
			best = i;
	}
	if (!create || best == BUFFER_NONE)
		return BUFFER_NONE;
	forget_queue(&owner->queues[best]);
	owner->queues[best].target = target;
	return best;
}

/* There is work.  Owner locked. */
void
buffer_wake_flusher(BufferOwner *owner)
{
	if (owner->flusher != FLUSHER_RUNNING || !owner->flusher_sleeps)
		return;
	owner->flusher_sleeps = false;
	buffer_set_latch(owner->flusher_proc);
}

/*
 * Up to which row is nothing left, and since when does the oldest one wait?
 * Owner locked.
 */
static void
set_bounds(BufferQueue *queue)
{
	if (queue->first != BUFFER_NONE)
		queue->oldest_at = buffer_row_at(queue->first)->put_at;
	if (queue->taken > 0)
		return;
	queue->done_number = queue->first == BUFFER_NONE ?
		queue->last_number : buffer_row_at(queue->first)->number - 1;
}

/* As much of the text, which may be NULL, as has place: whole characters. */
static void
copy_text(char *to, int size, const char *text)
{
	int			length = text ? pg_mbcliplen(text, strlen(text), size - 1) : 0;

	memcpy(to, text ? text : "", length);
	to[length] = '\0';
}

static void
note_error(BufferQueue *queue, const char *message)
{
	copy_text(queue->last_error, sizeof(queue->last_error), message);
	queue->last_error_at = GetCurrentTimestamp();
}

/* ---------------------------------------------------------------------
 * In the session that puts rows
 */

/* Put the row; false when there is no place for it. */
bool
buffer_put(const BufferPlace *place, Oid target, Jsonb *data, BufferMode mode)
{
	BufferOwner *owner = &buffer->owners[place->owner];
	TimestampTz now = GetCurrentTimestamp();
	int			me = perfopt_my_proc_number();
	int			length = VARSIZE(data);
	int			num = buffer_blocks_for(length);
	int			first = BUFFER_NONE;
	int			i = BUFFER_NONE;

	HOLD_INTERRUPTS();
	pg_atomic_fetch_add_u32(&owner->blocks, num);
	if (blocks_of_role(place->role) <= buffer_num_blocks() / 2)
		first = buffer_take_blocks(num);
	if (first != BUFFER_NONE)
	{
		BufferRow  *row = buffer_row_at(first);

		row->next = BUFFER_NONE;
		row->waiter = mode == BUFFER_ACK ? me : BUFFER_NONE;
		row->put_at = now;
		row->length = length;
		row->mode = mode;
		row->attempts = 0;
		row->withdrawn = false;
		buffer_write_row(first, (char *) data, length);

		if (buffer_lock_place(place))
		{
			i = buffer_find_queue(owner, target, true);
			if (i != BUFFER_NONE)
			{
				BufferQueue *queue = &owner->queues[i];

				row->queue = i;
				row->number = ++queue->last_number;
				if (queue->last == BUFFER_NONE)
					queue->first = first;
				else
					buffer_row_at(queue->last)->next = first;
				queue->last = first;
				if (queue->first == first)
					queue->oldest_at = now;
				queue->rows++;
				queue->rows_by_mode[mode]++;
				queue->bytes_by_mode[mode] += length;
				queue->used_at = owner->used_at = now;
				if (mode == BUFFER_ACK)
				{
					queue->acks++;
					waiters[me].state = WAITER_WAITING;
					waiters[me].row = first;
				}
				if (mode == BUFFER_ACK || queue->rows == 1 ||
					queue->rows == perfopt_batch_size)
					buffer_wake_flusher(owner);
			}
			LWLockRelease(OWNER_LOCK(place->owner));
		}
		if (i == BUFFER_NONE)
			buffer_free_rows(first);
	}
	if (i == BUFFER_NONE)
		pg_atomic_fetch_sub_u32(&owner->blocks, num);
	RESUME_INTERRUPTS();
	return i != BUFFER_NONE;
}

/*
 * The process no longer wants its row.  Returns in which state that was:
 * WAITER_WAITING when it is withdrawn by this and will not be inserted.  One
 * that a flush has goes its way, with detach without telling us.
 */
BufferWaiterState
buffer_withdraw(const BufferPlace *place, bool detach)
{
	BufferOwner *owner = &buffer->owners[place->owner];
	BufferWaiter *waiter = &waiters[perfopt_my_proc_number()];
	BufferWaiterState state;

	LWLockAcquire(OWNER_LOCK(place->owner), LW_EXCLUSIVE);
	state = waiter->state;
	if (state == WAITER_WAITING)
	{
		BufferRow  *row = buffer_row_at(waiter->row);
		BufferQueue *queue = &owner->queues[row->queue];

		queue->rows--;
		queue->rows_by_mode[row->mode]--;
		queue->acks--;
		queue->bytes_by_mode[row->mode] -= row->length;
		row->withdrawn = true;
		row->waiter = BUFFER_NONE;
		buffer_wake_flusher(owner);
	}
	else if (state == WAITER_TAKEN && detach)
		buffer_row_at(waiter->row)->waiter = BUFFER_NONE;
	if (state == WAITER_WAITING || detach)
		waiter->state = WAITER_NONE;
	LWLockRelease(OWNER_LOCK(place->owner));
	return state;
}

/* ---------------------------------------------------------------------
 * In the flusher
 */

/* Take rows off the queue, and read them.  NULL when there are none. */
BufferBatch *
buffer_take(int owner_number, int queue_number)
{
	BufferOwner *owner = &buffer->owners[owner_number];
	BufferQueue *queue = &owner->queues[queue_number];
	BufferBatch *batch = palloc0(sizeof(BufferBatch));
	Size		bytes = 0;
	int			max_rows;
	int			freed_blocks = 0;
	int			withdrawn = BUFFER_NONE;
	int			last = BUFFER_NONE;

	/* rows put from here on can wait for the next one */
	LWLockAcquire(OWNER_LOCK(owner_number), LW_SHARED);
	max_rows = Min(BUFFER_MAX_FLUSH, Max(queue->rows, 1));
	LWLockRelease(OWNER_LOCK(owner_number));

	batch->owner = owner_number;
	batch->lost = batch->spooled = BUFFER_NONE;
	batch->queue = queue_number;
	batch->rows = palloc(sizeof(Jsonb *) * max_rows);
	batch->modes = palloc(sizeof(BufferMode) * max_rows);
	batch->noted = palloc(sizeof(bool) * max_rows);
	batch->numbers = palloc(sizeof(int) * max_rows);
	batch->verdicts = palloc0(sizeof(BatchVerdict) * max_rows);

	HOLD_INTERRUPTS();
	LWLockAcquire(OWNER_LOCK(owner_number), LW_EXCLUSIVE);
	Assert(owner->taken_first == BUFFER_NONE);
	batch->target = queue->target;
	owner->taken_queue = queue_number;
	while (queue->first != BUFFER_NONE && batch->num < max_rows)
	{
		int			first = queue->first;
		BufferRow  *row = buffer_row_at(first);

		if (!row->withdrawn && batch->num > 0 && bytes + row->length > BUFFER_MAX_FLUSH_BYTES)
			break;
		queue->first = row->next;
		if (queue->first == BUFFER_NONE)
			queue->last = BUFFER_NONE;
		if (row->withdrawn)
		{
			row->next = withdrawn;
			withdrawn = first;
			freed_blocks += buffer_blocks_for(row->length);
			continue;
		}
		row->next = BUFFER_NONE;
		if (last == BUFFER_NONE)
			owner->taken_first = first;
		else
			buffer_row_at(last)->next = first;
		last = first;
		queue->rows--;
		queue->rows_by_mode[row->mode]--;
		queue->bytes_by_mode[row->mode] -= row->length;
		queue->taken++;
		if (row->mode == BUFFER_ACK)
			queue->acks--;
		if (row->waiter != BUFFER_NONE)
			waiters[row->waiter].state = WAITER_TAKEN;
		bytes += row->length;
		batch->modes[batch->num] = row->mode;
		batch->noted[batch->num] = row->mode != BUFFER_ACK;
		batch->max_attempts = Max(batch->max_attempts, row->attempts);
		batch->numbers[batch->num++] = first;
	}
	set_bounds(queue);
	LWLockRelease(OWNER_LOCK(owner_number));
	pg_atomic_fetch_sub_u32(&owner->blocks, freed_blocks);
	buffer_free_rows(withdrawn);
	RESUME_INTERRUPTS();

	if (batch->num == 0)
	{
		ConditionVariableBroadcast(&owner->flushed);
		return NULL;
	}
	for (int i = 0; i < batch->num; i++)
		batch->rows[i] = buffer_read_row(batch->numbers[i]);
	return batch;
}

static void
tell_waiter(BufferWaiter *waiter, const BatchVerdict *verdict)
{
	waiter->state = WAITER_DONE;
	waiter->action = verdict->action;
	waiter->sqlerrcode = verdict->sqlerrcode;
	copy_text(waiter->constraint, sizeof(waiter->constraint), verdict->constraint);
	copy_text(waiter->message, sizeof(waiter->message), verdict->message);
	copy_text(waiter->detail, sizeof(waiter->detail), verdict->detail);
}

/* Owner locked. */
void
buffer_count_verdict(BufferQueue *queue, BufferMode mode, const BatchVerdict *verdict)
{
	switch (verdict->action)
	{
		case BATCH_INSERTED:
		case BATCH_UPDATED:
			queue->counters[mode].inserted++;
			break;
		case BATCH_SKIPPED:
			queue->counters[mode].skipped++;
			break;
		case BATCH_REJECTED:
			queue->counters[mode].rejected++;
			if (verdict->message)
				note_error(queue, verdict->message);
			break;
	}
}

/*
 * It is decided what has become of these rows of a batch, those before them
 * having been posted.  Raises no error and allocates nothing: it is called
 * when the transaction has committed.
 */
void
buffer_post(BufferBatch *batch, int first, int count, bool done)
{
	static int	procs[BUFFER_MAX_FLUSH];
	BufferOwner *owner = &buffer->owners[batch->owner];
	BufferQueue *queue = &owner->queues[batch->queue];
	BatchVerdict in_doubt = {.action = BATCH_REJECTED,
		.sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN,
		.message = "the buffered row was inserted, but may not be replicated",
	.detail = "The process that inserted it was ended while it waited for standbys."};
	int			num_procs = 0;
	int			freed_blocks = 0;
	int			freed = BUFFER_NONE;

	HOLD_INTERRUPTS();
	LWLockAcquire(OWNER_LOCK(batch->owner), LW_EXCLUSIVE);
	for (int i = first; i < first + count; i++)
	{
		int			at = batch->numbers[i];
		BufferRow  *row = buffer_row_at(at);

		Assert(owner->taken_first == at);
		owner->taken_first = row->next;
		row->next = freed;
		freed = at;
		freed_blocks += buffer_blocks_for(row->length);
		queue->taken--;
		if (i == batch->lost)
			queue->counters[row->mode].lost++;
		else if (i != batch->spooled)
			buffer_count_verdict(queue, row->mode, &batch->verdicts[i]);
		if (row->waiter != BUFFER_NONE)
		{
			tell_waiter(&waiters[row->waiter],
						batch->in_doubt && batch->verdicts[i].action != BATCH_REJECTED ?
						&in_doubt : &batch->verdicts[i]);
			procs[num_procs++] = row->waiter;
		}
	}
	batch->posted = first + count;
	if (done)
	{
		queue->flushes++;
		queue->last_flush = GetCurrentTimestamp();
	}
	set_bounds(queue);
	LWLockRelease(OWNER_LOCK(batch->owner));

	for (int i = 0; i < num_procs; i++)
		buffer_set_latch(procs[i]);
	pg_atomic_fetch_sub_u32(&owner->blocks, freed_blocks);
	buffer_free_rows(freed);
	ConditionVariableBroadcast(&owner->flushed);
	RESUME_INTERRUPTS();
}

/*
 * The rows that are taken, and not posted, go back to the head of their queue.
 * So many of them, the first ones, were being inserted when the process ended.
 */
void
buffer_give_back(int owner_number, int tried)
{
	BufferOwner *owner = &buffer->owners[owner_number];

	LWLockAcquire(OWNER_LOCK(owner_number), LW_EXCLUSIVE);
	if (owner->taken_first != BUFFER_NONE)
	{
		BufferQueue *queue = &owner->queues[owner->taken_queue];
		int			last = BUFFER_NONE;

		for (int at = owner->taken_first; at != BUFFER_NONE; at = buffer_row_at(at)->next)
		{
			BufferRow  *row = buffer_row_at(at);

			if (tried-- > 0)
				row->attempts++;
			queue->rows++;
			queue->rows_by_mode[row->mode]++;
			queue->bytes_by_mode[row->mode] += row->length;
			queue->taken--;
			if (row->mode == BUFFER_ACK)
				queue->acks++;
			if (row->waiter != BUFFER_NONE)
				waiters[row->waiter].state = WAITER_WAITING;
			last = at;
		}
		buffer_row_at(last)->next = queue->first;
		if (queue->first == BUFFER_NONE)
			queue->last = last;
		queue->first = owner->taken_first;
		owner->taken_first = BUFFER_NONE;
		set_bounds(queue);
	}
	LWLockRelease(OWNER_LOCK(owner_number));
}

/* There is no flusher any more: somebody who waits for a row gets one to work. */
void
buffer_flusher_gone(int owner_number, bool spool_suspect)
{
	BufferOwner *owner = &buffer->owners[owner_number];
	int			wake = BUFFER_NONE;

	LWLockAcquire(OWNER_LOCK(owner_number), LW_EXCLUSIVE);
	owner->flusher = FLUSHER_NONE;
	owner->spool_suspect = owner->spool_suspect || spool_suspect;
	for (int i = 0; i < BUFFER_MAX_QUEUES && wake == BUFFER_NONE; i++)
		if (owner->queues[i].target != InvalidOid && owner->queues[i].acks > 0)
			for (int at = owner->queues[i].first; at != BUFFER_NONE && wake == BUFFER_NONE; at = buffer_row_at(at)->next)
				wake = buffer_row_at(at)->waiter;
	LWLockRelease(OWNER_LOCK(owner_number));
	if (wake != BUFFER_NONE)
		buffer_set_latch(wake);
	ConditionVariableBroadcast(&owner->flushed);
}

/* Is the row one that processes have ended with again and again? */
int
buffer_row_attempts(const BufferBatch *batch, int i)
{
	return buffer_row_at(batch->numbers[i])->attempts;
}

/*
 * Nobody can flush what the owner has put: its role or its database is gone.
 * Returns how many rows are lost.
 */
int64
buffer_discard(const BufferPlace *place)
{
	BufferOwner *owner = &buffer->owners[place->owner];
	BatchVerdict verdict = {.action = BATCH_REJECTED,
		.sqlerrcode = ERRCODE_UNDEFINED_OBJECT,
	.message = "the role or the database of the buffered row does not exist any more"};
	int			freed = BUFFER_NONE;
	int			freed_blocks = 0;
	int64		lost = 0;

	if (!buffer_lock_place(place))
		return 0;
	/* a process of his, if there is one, still does what it can */
	if (owner->flusher == FLUSHER_RUNNING)
	{
		LWLockRelease(OWNER_LOCK(place->owner));
		return 0;
	}
	HOLD_INTERRUPTS();
	owner->flusher = FLUSHER_NONE;	/* a job comes to nothing */
	owner->spooled = 0;
	owner->spool_served = owner->spool_request;
	for (int i = 0; i < BUFFER_MAX_QUEUES; i++)
	{
		BufferQueue *queue = &owner->queues[i];

		while (queue->target != InvalidOid && queue->first != BUFFER_NONE)
		{
			int			at = queue->first;
			BufferRow  *row = buffer_row_at(at);

			queue->first = row->next;
			if (queue->first == BUFFER_NONE)
				queue->last = BUFFER_NONE;
			if (!row->withdrawn)
			{
				queue->counters[row->mode].lost++;
				queue->rows--;
				queue->rows_by_mode[row->mode]--;
				queue->bytes_by_mode[row->mode] -= row->length;
				queue->acks -= row->mode == BUFFER_ACK ? 1 : 0;
				lost++;
			}
			if (row->waiter != BUFFER_NONE)
			{
				tell_waiter(&waiters[row->waiter], &verdict);
				buffer_set_latch(row->waiter);
			}
			row->next = freed;
			freed = at;
			freed_blocks += buffer_blocks_for(row->length);
		}
		if (queue->target != InvalidOid)
			set_bounds(queue);
	}
	LWLockRelease(OWNER_LOCK(place->owner));
	pg_atomic_fetch_sub_u32(&owner->blocks, freed_blocks);
	buffer_free_rows(freed);
	RESUME_INTERRUPTS();
	ConditionVariableBroadcast(&owner->flushed);
	return lost;
}
