/*
 * buffer_internal.h
 *		What the files of buffered inserts share: see buffer_memory.c for the
 *		structures, their locks, and the ways of a row.
 */
#ifndef PERFOPT_BUFFER_INTERNAL_H
#define PERFOPT_BUFFER_INTERNAL_H

#include "postgres.h"

#include "batch/batch_internal.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "worker/worker.h"

typedef enum BufferMode
{
	BUFFER_ACK,
	BUFFER_LOSSY,
	BUFFER_DURABLE,				/* not in memory, only counted here */
	BUFFER_NUM_MODES
} BufferMode;

#define BUFFER_MAX_OWNERS	64
#define BUFFER_MAX_QUEUES	32	/* of one owner */
#define BUFFER_MAX_FLUSH	1000	/* rows of one flush */

/* Jsonb bytes of one flush; and always one row. */
#define BUFFER_MAX_FLUSH_BYTES	(4 * 1024 * 1024)

/* Of rows one by one: the first wait took the time of all. */
#define BUFFER_LATER_LOCK_TIMEOUT	"100ms"

#define BUFFER_DUTY_NAME	"insert_buffer"

/* No row, block, owner or process. */
#define BUFFER_NONE			(-1)

typedef struct BufferCounters
{
	int64		inserted;
	int64		skipped;		/* by a trigger */
	int64		rejected;
	int64		lost;
} BufferCounters;

/* A row, at the start of its first block.  Guarded by its owner's lock. */
typedef struct BufferRow
{
	int			next;			/* row of the same list */
	int			waiter;			/* the process that waits for it, by number */
	uint64		number;			/* in its queue, growing */
	TimestampTz put_at;
	int			length;			/* of the jsonb that follows */
	uint8		mode;			/* BufferMode */
	uint8		queue;			/* of its owner */
	uint8		attempts;		/* flushes that ended with their process */
	bool		withdrawn;
} BufferRow;

/* Rows of one owner for one table.  Guarded by the owner's lock. */
typedef struct BufferQueue
{
	Oid			target;			/* InvalidOid: unused */
	int			first;			/* rows that wait */
	int			last;
	int			rows;			/* how many, those withdrawn left out */
	int			acks;			/* of them, with a process that waits */
	int			rows_by_mode[BUFFER_NUM_MODES];
	int64		bytes_by_mode[BUFFER_NUM_MODES];
	int			taken;			/* rows that are being flushed */
	uint64		last_number;	/* given to a row */
	uint64		done_number;	/* up to this one none is left */
	uint64		flush_number;	/* up to this one they are due */
	TimestampTz oldest_at;		/* when the first one was put */
	TimestampTz used_at;

	BufferCounters counters[BUFFER_NUM_MODES];
	int64		flushes;
	TimestampTz last_flush;
	TimestampTz last_error_at;
	char		last_error[256];
} BufferQueue;

typedef enum BufferFlusherState
{
	FLUSHER_NONE,
	FLUSHER_SUBMITTED,			/* there is a job, maybe without a process */
	FLUSHER_RUNNING
} BufferFlusherState;

/*
 * A role in a database: what it has put, and the process that flushes it.
 */
typedef struct BufferOwner
{
	pg_atomic_uint32 blocks;	/* in use for its rows */

	/* Changed under the directory's lock and the owner's, read under either. */
	Oid			database;		/* InvalidOid: unused */
	Oid			role;

	/* Guarded by the owner's lock. */
	BufferFlusherState flusher;
	PerfoptJob	job;			/* of SUBMITTED; slot -1: about to be */
	TimestampTz submitted_at;
	int			flusher_proc;	/* of RUNNING, as the next */
	int			flusher_pid;
	bool		flusher_sleeps;
	int			taken_first;	/* rows being flushed */
	int			taken_queue;
	int64		spooled;		/* rows committed to the spool, roughly, that
								 * the flusher has not moved yet */
	TimestampTz spooled_at;		/* since when */
	bool		spool_suspect;	/* a flusher has ended while moving some */
	int			spool_promises; /* transactions about to commit some */
	uint64		spool_request;	/* flushes of the spool asked for, numbered */
	uint64		spool_served;
	int64		spool_moved;	/* rows, ever */
	TimestampTz used_at;
	BufferQueue queues[BUFFER_MAX_QUEUES];

	ConditionVariable flushed;	/* a flush is over, or the flusher has gone */
} BufferOwner;

typedef enum BufferWaiterState
{
	WAITER_NONE,
	WAITER_WAITING,				/* the row is in its queue */
	WAITER_TAKEN,				/* a flush has it */
	WAITER_DONE					/* here is what has become of it */
} BufferWaiterState;

/*
 * What a process that waits for its row is told.  Guarded by the lock of the
 * row's owner.
 */
typedef struct BufferWaiter
{
	BufferWaiterState state;
	int			row;
	BatchAction action;
	int			sqlerrcode;
	char		constraint[NAMEDATALEN];
	char		message[512];
	char		detail[512];
} BufferWaiter;

/* A place where rows are put: an owner, and that the entry is still his. */
typedef struct BufferPlace
{
	int			owner;
	Oid			database;
	Oid			role;
} BufferPlace;

/* Rows that a flush has taken, in the flusher's memory. */
typedef struct BufferBatch
{
	int			owner;
	int			queue;
	Oid			target;
	int			num;
	Jsonb	  **rows;
	BufferMode *modes;
	bool	   *noted;			/* when rejected: nobody waits for the error */
	int		   *numbers;		/* of the rows' first blocks */
	int			max_attempts;	/* of any of them */
	int			posted;			/* these are done */
	bool		in_doubt;		/* committed, but maybe not replicated */
	int			lost;			/* this one could not be kept */
	int			spooled;		/* this one has gone to the spool */
	BatchVerdict *verdicts;
} BufferBatch;

/* Which rows of perfopt.insert_spool are taken. */
typedef enum SpoolTake
{
	SPOOL_TAKE_MANY,
	SPOOL_TAKE_ONE,
	SPOOL_MAKE_DUE,				/* none: those that wait for another attempt
								 * are due now */
	SPOOL_MARK_ONE,				/* only count that it is about to be tried */
	SPOOL_TAKE_MARKED			/* the one in rows[0] */
} SpoolTake;

/* A row of perfopt.insert_spool. */
typedef struct SpoolRow
{
	int64		id;
	Oid			target;
	Jsonb	   *payload;
	int			attempts;
	TimestampTz spooled_at;
	BatchVerdict verdict;
	bool		marked;			/* this attempt is counted */
	bool		again;			/* it stays, to be tried again */
	bool		more;			/* of the first one: others were left */
} SpoolRow;

/* buffer.c */
extern const char *buffer_mode_name(BufferMode mode);

/* buffer_blocks.c */
extern void buffer_blocks_init(void);
extern int	buffer_num_blocks(void);
extern int	buffer_blocks_for(int length);
extern Size buffer_max_row(void);
extern int	buffer_take_blocks(int num);
extern void buffer_free_rows(int first_row);
extern BufferRow *buffer_row_at(int first);
extern void buffer_write_row(int first, const char *data, int length);
extern Jsonb *buffer_read_row(int first);
extern void buffer_wait_for_space(TimestampTz deadline);

/* buffer_memory.c */
extern void buffer_memory_init(void);
extern BufferOwner *buffer_owner(int owner);
extern LWLock *buffer_owner_lock(int owner);
extern BufferWaiter *buffer_waiter(int proc);
extern bool buffer_find_owner(Oid database, Oid role, bool create, BufferPlace *place);
extern bool buffer_lock_place(const BufferPlace *place);
extern void buffer_forgotten(BufferCounters counters[BUFFER_NUM_MODES]);
extern int	buffer_find_queue(BufferOwner *owner, Oid target, bool create);
extern bool buffer_put(const BufferPlace *place, Oid target, Jsonb *row, BufferMode mode);
extern BufferWaiterState buffer_withdraw(const BufferPlace *place, bool detach);
extern BufferBatch *buffer_take(int owner, int queue);
extern void buffer_count_verdict(BufferQueue *queue, BufferMode mode, const BatchVerdict *verdict);
extern void buffer_post(BufferBatch *batch, int first, int count, bool done);
extern void buffer_give_back(int owner, int tried);
extern void buffer_flusher_gone(int owner, bool spool_suspect);
extern int	buffer_row_attempts(const BufferBatch *batch, int i);
extern int64 buffer_discard(const BufferPlace *place);
extern void buffer_set_latch(int proc);
extern void buffer_wake_flusher(BufferOwner *owner);

/* buffer_flusher.c */
extern void buffer_flush_init(void);
extern bool buffer_in_flusher(void);
extern ErrorData *buffer_need_flusher(const BufferPlace *place, PerfoptJob *job);
extern bool buffer_flusher_at_work(int owner);

/* buffer_spool.c */
extern void buffer_spool_init(void);
extern List *buffer_spool_roles(void);
extern void buffer_spool_put(Oid target, Jsonb *row);
extern void buffer_spool_put_again(Oid target, Jsonb *row, const BatchVerdict *verdict);
extern int	buffer_spool_move(Oid role, SpoolTake take, SpoolRow *rows);
extern int64 buffer_spool_waiting(Oid role);
extern void buffer_spool_give_up(Oid role, SpoolRow *row, ErrorData *error);

#endif							/* PERFOPT_BUFFER_INTERNAL_H */
