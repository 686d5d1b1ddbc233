/*
 * buffer_blocks.c
 *		Buffered inserts: the memory that rows lie in.
 *
 * It is cut into blocks, as many as perfopt.buffer_size has place for, and
 * never grows.  A row, with its head, is a chain of blocks.
 *
 * LOCKING
 *
 * Free blocks are in BLOCK_PARTS lists, by their numbers, each with an LWLock,
 * under which nothing else is locked.  A process takes from a list of its own
 * first.  A block that is not free belongs to a row: its data is written before
 * the row is linked, and read by who has taken it, without a lock; what guards
 * the row's head is said in buffer_memory.c.  Between taking blocks and linking
 * the row, and between unlinking rows and freeing their blocks, interrupts are
 * held, so a process cannot end there.
 */
#include "postgres.h"

#include "batch/buffer_internal.h"
#include "common/shmem.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define BLOCK_SIZE		256
#define BLOCK_PARTS		16

typedef struct Block
{
	int			next;			/* of the row, or of the free list */
	int			padding;
	char		data[BLOCK_SIZE - 2 * sizeof(int)];
} Block;

#define ROW_HEAD	MAXALIGN(sizeof(BufferRow))
#define FIRST_DATA	(sizeof(((Block *) 0)->data) - ROW_HEAD)
#define OTHER_DATA	sizeof(((Block *) 0)->data)

StaticAssertDecl(sizeof(Block) == BLOCK_SIZE, "blocks have no padding at their end");
StaticAssertDecl(ROW_HEAD < OTHER_DATA, "a row's head fits into a block");

typedef struct BlockPool
{
	int			num_blocks;
	ConditionVariable space;	/* somebody may have made some */
	int			free_blocks[BLOCK_PARTS];	/* each under its lock */
	/* then Blocks */
} BlockPool;

static BlockPool *pool = NULL;
static Block *blocks;
static LWLockPadded *locks;

#define PART_LOCK(i)	(&locks[i].lock)

static Size
area_size(void)
{
	return add_size(MAXALIGN(sizeof(BlockPool)), mul_size(perfopt_buffer_size, 1024));
}

static void
attach(void *area, LWLockPadded *part_locks, bool found)
{
	pool = area;
	locks = part_locks;
	blocks = (Block *) ((char *) area + MAXALIGN(sizeof(BlockPool)));
	if (found)
		return;

	pool->num_blocks = (Size) perfopt_buffer_size * 1024 / BLOCK_SIZE;
	ConditionVariableInit(&pool->space);
	for (int i = 0; i < BLOCK_PARTS; i++)
		pool->free_blocks[i] = BUFFER_NONE;
	for (int i = pool->num_blocks - 1; i >= 0; i--)
	{
		blocks[i].next = pool->free_blocks[i % BLOCK_PARTS];
		pool->free_blocks[i % BLOCK_PARTS] = i;
	}
}

void
buffer_blocks_init(void)
{
	static const PerfoptShmemPart part = {
		.name = "insert_buffer_blocks",
		.num_locks = BLOCK_PARTS,
		.area_size = area_size,
		.init = attach
	};

	perfopt_shmem_register(&part);
}

int
buffer_num_blocks(void)
{
	return pool->num_blocks;
}

BufferRow *
buffer_row_at(int first)
{
	return (BufferRow *) blocks[first].data;
}

int
buffer_blocks_for(int length)
{
	if (length <= FIRST_DATA)
		return 1;
	return 1 + (length - FIRST_DATA + OTHER_DATA - 1) / OTHER_DATA;
}

/* Free a list of rows, by rows' next.  Interrupts held. */
void
buffer_free_rows(int first_row)
{
	int			first[BLOCK_PARTS];
	int			last[BLOCK_PARTS];

	for (int i = 0; i < BLOCK_PARTS; i++)
		first[i] = last[i] = BUFFER_NONE;
	while (first_row != BUFFER_NONE)
	{
		int			block = first_row;

		first_row = buffer_row_at(block)->next;
		while (block != BUFFER_NONE)
		{
			int			next = blocks[block].next;
			int			part = block % BLOCK_PARTS;

			blocks[block].next = first[part];
			if (first[part] == BUFFER_NONE)
				last[part] = block;
			first[part] = block;
			block = next;
		}
	}
	for (int i = 0; i < BLOCK_PARTS; i++)
	{
		if (first[i] == BUFFER_NONE)
			continue;
		LWLockAcquire(PART_LOCK(i), LW_EXCLUSIVE);
		blocks[last[i]].next = pool->free_blocks[i];
		pool->free_blocks[i] = first[i];
		LWLockRelease(PART_LOCK(i));
	}
	ConditionVariableBroadcast(&pool->space);
}

/* A chain of that many blocks, or BUFFER_NONE.  Interrupts held. */
int
buffer_take_blocks(int num)
{
	int			chain = BUFFER_NONE;

	for (int i = 0; i < BLOCK_PARTS && num > 0; i++)
	{
		int			part = (MyProcPid + i) % BLOCK_PARTS;

		LWLockAcquire(PART_LOCK(part), LW_EXCLUSIVE);
		while (num > 0 && pool->free_blocks[part] != BUFFER_NONE)
		{
			int			block = pool->free_blocks[part];

			pool->free_blocks[part] = blocks[block].next;
			blocks[block].next = chain;
			chain = block;
			num--;
		}
		LWLockRelease(PART_LOCK(part));
	}
	if (num > 0 && chain != BUFFER_NONE)
	{
		buffer_row_at(chain)->next = BUFFER_NONE;
		buffer_free_rows(chain);
		chain = BUFFER_NONE;
	}
	return chain;
}

void
buffer_write_row(int first, const char *data, int length)
{
	int			n = Min(length, FIRST_DATA);

	memcpy(blocks[first].data + ROW_HEAD, data, n);
	for (int block = blocks[first].next; block != BUFFER_NONE; block = blocks[block].next)
	{
		data += n;
		length -= n;
		n = Min(length, OTHER_DATA);
		memcpy(blocks[block].data, data, n);
	}
}

Jsonb *
buffer_read_row(int first)
{
	int			length = buffer_row_at(first)->length;
	char	   *result = palloc(length);
	char	   *data = result;
	int			n = Min(length, FIRST_DATA);

	memcpy(data, blocks[first].data + ROW_HEAD, n);
	for (int block = blocks[first].next; block != BUFFER_NONE; block = blocks[block].next)
	{
		data += n;
		length -= n;
		n = Min(length, OTHER_DATA);
		memcpy(data, blocks[block].data, n);
	}
	return (Jsonb *) result;
}

/* The largest row there can be: then a role's share holds two of them. */
Size
buffer_max_row(void)
{
	return (Size) pool->num_blocks / 4 * OTHER_DATA;
}

/* Until somebody may have made place, or the time has come. */
void
buffer_wait_for_space(TimestampTz deadline)
{
	long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

	/* also one who would find his share used up by himself looks again */
	(void) ConditionVariableTimedSleep(&pool->space, Max(Min(ms, 1000), 1), PG_WAIT_EXTENSION);
}
