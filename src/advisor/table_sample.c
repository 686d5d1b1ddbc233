/*
 * table_sample.c
 *		Rows of a table drawn at random, to learn from them what statistics do
 *		not tell: how many distinct combinations of columns there are, what an
 *		expression gives, how many rows meet a predicate.
 *
 * Blocks are visited by steps of about the golden ratio of the table, so that
 * those read are spread evenly whenever time is up, and none is read twice.
 * Where all blocks can be read the rows are drawn as ANALYZE does it, SAMPLE_ROWS
 * of all with the same chance.  Of a larger table one row a block is taken, as
 * rows of the same block often have the same value, and would make it look as if
 * there were fewer; how often they have is told by some blocks with all their
 * rows.
 *
 * Of the rows that meet a predicate a sample has few when they are few in the
 * table; then the same blocks are read again for these rows alone, once for
 * each predicate.
 *
 * Samples are kept for the rest of the transaction, in this process only; rows
 * are never shown to anybody.  The table may be altered between two uses, as
 * what-ifs give up their locks; then the rows are thrown away.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "common/pg_prng.h"
#include "common/test_clock.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* As many as ANALYZE takes by default. */
#define SAMPLE_ROWS			30000

/* Not more blocks than this, nor longer, nor more memory. */
#define SAMPLE_BLOCKS		10000
#define SAMPLE_MS			500
#define SAMPLE_BYTES		(8 * 1024 * 1024)

/* Every so many blocks one is taken whole, up to so much memory. */
#define WHOLE_EVERY			32
#define WHOLE_BYTES			(2 * 1024 * 1024)
#define WHOLE_ROWS			30000

/* Of what is kept at the same time; the latest one is in any case. */
#define KEPT_BYTES			(40 * 1024 * 1024)

/* Of TopTransactionContext; NULL when there are none. */
static MemoryContext samples_context = NULL;
static List *samples = NIL;		/* TableSample *, the one used last first */

static void
forget_samples(void *arg)
{
	samples_context = NULL;
	samples = NIL;
}

static void
open_samples(void)
{
	MemoryContextCallback *callback;

	if (samples_context)
		return;
	samples_context = AllocSetContextCreate(TopTransactionContext, "perfopt table samples",
											ALLOCSET_SMALL_SIZES);
	callback = MemoryContextAllocZero(samples_context, sizeof(MemoryContextCallback));
	callback->func = forget_samples;
	MemoryContextRegisterResetCallback(samples_context, callback);
}

static void
drop_sample(TableSample *sample)
{
	samples = list_delete_ptr(samples, sample);
	MemoryContextDelete(sample->context);
}

static bool
is_current(const TableSample *sample, Relation relation)
{
	return sample->fingerprint == perfopt_relation_fingerprint(relation) &&
		sample->relfilenode == relation->rd_rel->relfilenode;
}

/* A step without a common divisor with the number of blocks. */
static BlockNumber
step_for(BlockNumber blocks)
{
	BlockNumber step = Max((BlockNumber) (blocks * 0.6180339887), 1);

	for (;; step++)
	{
		BlockNumber a = blocks;
		BlockNumber b = step;

		while (b != 0)
		{
			BlockNumber rest = a % b;

			a = b;
			b = rest;
		}
		if (a == 1)
			return step;
	}
}

/* Put a row into the sample, in place of another one when it is full. */
static void
keep_row(TableSample *sample, int place, TupleTableSlot *slot, Size *bytes)
{
	MemoryContext old_context = MemoryContextSwitchTo(sample->context);

	if (place == sample->num_rows)
		sample->num_rows++;
	else
	{
		*bytes -= sample->rows[place]->t_len;
		heap_freetuple(sample->rows[place]);
	}
	sample->rows[place] = ExecCopySlotHeapTuple(slot);
	sample->rows[place]->t_self = slot->tts_tid;
	*bytes += sample->rows[place]->t_len;
	MemoryContextSwitchTo(old_context);
}

/* A sample of fewer rows, any of these, is still one. */
static void
drop_row(TableSample *sample, int place, Size *bytes)
{
	*bytes -= sample->rows[place]->t_len;
	heap_freetuple(sample->rows[place]);
	sample->rows[place] = sample->rows[--sample->num_rows];
}

static void
keep_whole(TableSample *sample, TupleTableSlot *slot, Size *bytes)
{
	MemoryContext old_context = MemoryContextSwitchTo(sample->context);
	HeapTuple	row = ExecCopySlotHeapTuple(slot);

	row->t_self = slot->tts_tid;
	*bytes += row->t_len;
	sample->whole[sample->num_whole++] = row;
	MemoryContextSwitchTo(old_context);
}

static int
by_place(const void *a, const void *b)
{
	return ItemPointerCompare(&(*(HeapTuple *) a)->t_self, &(*(HeapTuple *) b)->t_self);
}

/* There was no time for all blocks after all: leave one row a block. */
static void
thin_out(TableSample *sample)
{
	int			num = 0;

	for (int i = 0; i < sample->num_rows; i++)
		if (num == 0 || ItemPointerGetBlockNumber(&sample->rows[i]->t_self) !=
			ItemPointerGetBlockNumber(&sample->rows[num - 1]->t_self))
			sample->rows[num++] = sample->rows[i];
	sample->num_rows = num;
}

/*
 * Fills the sample, with rows that meet the predicate if there is one; false:
 * this kind of table can't be read like that.
 */
static bool
read_rows(TableSample *sample, Relation relation, ExprState *predicate,
		  ExprContext *econtext)
{
	BlockNumber blocks = RelationGetNumberOfBlocks(relation);
	BlockNumber step = step_for(Max(blocks, 1));
	bool		all = blocks <= SAMPLE_BLOCKS;
	bool		full = false;
	BlockNumber most = Min(blocks, SAMPLE_BLOCKS);
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PERFOPT_LIMIT_MS(SAMPLE_MS));
	pg_prng_state random;
	BlockNumber block;
	TableScanDesc scan;
	TupleTableSlot *slot;
	Size		bytes = 0;
	Size		whole_bytes = 0;
	double		met = 0;

	if (relation->rd_tableam == NULL || relation->rd_tableam->scan_set_tidrange == NULL)
		return false;

	/* the same rows each time */
	pg_prng_seed(&random, RelationGetRelid(relation));
	block = blocks > 0 ? pg_prng_uint32(&random) % blocks : 0;

	PushActiveSnapshot(GetLatestSnapshot());
	slot = table_slot_create(relation, NULL);
	/* a ring of buffers, so that the server's cache stays as it is */
	scan = relation->rd_tableam->scan_begin(relation, GetActiveSnapshot(), 0, NULL, NULL,
											SO_TYPE_TIDRANGESCAN | SO_ALLOW_PAGEMODE |
											SO_ALLOW_STRAT);
	for (BlockNumber i = 0; i < most; i++)
	{
		ItemPointerData first;
		ItemPointerData last;
		int			in_block = 0;
		int			place = sample->num_rows;
		bool		whole = i % WHOLE_EVERY == 0 && whole_bytes < WHOLE_BYTES;

		CHECK_FOR_INTERRUPTS();
		if ((predicate || i % 64 == 63) && GetCurrentTimestamp() >= deadline)
			break;
		ItemPointerSet(&first, block, FirstOffsetNumber);
		ItemPointerSet(&last, block, MaxOffsetNumber);
		block = ((uint64) block + step) % blocks;
		sample->blocks_read++;
		table_rescan_tidrange(scan, &first, &last);
		while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
		{
			sample->rows_seen++;
			if (predicate)
			{
				ResetExprContext(econtext);
				econtext->ecxt_scantuple = slot;
				if (!ExecQual(predicate, econtext))
					continue;
			}
			in_block++;
			met++;
			if (whole && sample->num_whole < WHOLE_ROWS)
				keep_whole(sample, slot, &whole_bytes);
			if (all && !full)
			{
				keep_row(sample, sample->num_rows, slot, &bytes);
				full = sample->num_rows == SAMPLE_ROWS || bytes >= SAMPLE_BYTES;
			}
			else if (all)
			{
				place = (int) (pg_prng_double(&random) * met);
				if (place < sample->num_rows)
					keep_row(sample, place, slot, &bytes);
				while (bytes > SAMPLE_BYTES)
					drop_row(sample, (int) (pg_prng_double(&random) * sample->num_rows), &bytes);
			}
			else if (bytes < SAMPLE_BYTES && pg_prng_double(&random) * in_block < 1)
				keep_row(sample, place, slot, &bytes);
		}
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	PopActiveSnapshot();

	sample->table_rows = sample->blocks_read == 0 ? 0 :
		sample->rows_seen * blocks / sample->blocks_read;
	sample->fraction = sample->rows_seen == 0 ? 1 : met / sample->rows_seen;

	/* in the table's order, for the correlation */
	qsort(sample->rows, sample->num_rows, sizeof(HeapTuple), by_place);
	if (sample->blocks_read == blocks)
		sample->num_whole = 0;	/* not needed */
	else if (all)
		thin_out(sample);

	/* most tables are small, and many are kept */
	sample->rows = repalloc(sample->rows, sizeof(HeapTuple) * Max(sample->num_rows, 1));
	sample->whole = repalloc(sample->whole, sizeof(HeapTuple) * Max(sample->num_whole, 1));
	return true;
}

static TableSample *
create_sample(MemoryContext parent, Relation relation)
{
	MemoryContext context = AllocSetContextCreate(parent, "perfopt table sample",
												  ALLOCSET_DEFAULT_SIZES);
	TableSample *sample = MemoryContextAllocZero(context, sizeof(TableSample));

	sample->context = context;
	sample->relid = RelationGetRelid(relation);
	sample->fingerprint = perfopt_relation_fingerprint(relation);
	sample->relfilenode = relation->rd_rel->relfilenode;
	sample->rows = MemoryContextAlloc(context, sizeof(HeapTuple) * SAMPLE_ROWS);
	sample->whole = MemoryContextAlloc(context, sizeof(HeapTuple) * WHOLE_ROWS);
	return sample;
}

static void
keep_first(TableSample *sample)
{
	MemoryContext old_context = MemoryContextSwitchTo(samples_context);

	samples = lcons(sample, list_delete_ptr(samples, sample));
	MemoryContextSwitchTo(old_context);
}

/* NULL: it is not kept. */
static TableSample *
find_sample(Relation relation, List *predicate)
{
	ListCell   *lc;

	open_samples();
	foreach(lc, samples)
	{
		TableSample *sample = lfirst(lc);

		if (sample->relid != RelationGetRelid(relation) || !equal(sample->predicate, predicate))
			continue;
		if (!is_current(sample, relation))
		{
			drop_sample(sample);
			return NULL;
		}
		keep_first(sample);
		return sample;
	}
	return NULL;
}

static void
keep_sample(TableSample *sample)
{
	Size		bytes = 0;
	ListCell   *lc;

	MemoryContextSetParent(sample->context, samples_context);
	keep_first(sample);
	foreach(lc, samples)
	{
		TableSample *kept = lfirst(lc);

		bytes += MemoryContextMemAllocated(kept->context, true);
		if (bytes <= KEPT_BYTES || kept == sample)
			continue;
		samples = foreach_delete_current(samples, lc);
		MemoryContextDelete(kept->context);
	}
}

const TableSample *
perfopt_table_sample_of_rows(Relation relation, List *predicate, ExprState *state,
							 ExprContext *econtext)
{
	TableSample *sample = find_sample(relation, predicate);
	MemoryContext old_context;

	if (sample)
		return sample;
	sample = create_sample(CurrentMemoryContext, relation);
	read_rows(sample, relation, state, econtext);
	old_context = MemoryContextSwitchTo(sample->context);
	sample->predicate = copyObject(predicate);
	MemoryContextSwitchTo(old_context);
	keep_sample(sample);
	return sample;
}

const TableSample *
perfopt_table_sample(Relation relation)
{
	TableSample *sample = find_sample(relation, NIL);

	if (sample)
		return sample;

	/* should it fail, the caller's context takes it away */
	sample = create_sample(CurrentMemoryContext, relation);
	if (!read_rows(sample, relation, NULL, NULL))
	{
		MemoryContextDelete(sample->context);
		return NULL;
	}
	keep_sample(sample);
	return sample;
}
