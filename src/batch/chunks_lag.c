/*
 * chunks_lag.c
 *		How far standbys are behind, for those who slow down for them.
 *
 * This process notes, between its chunks, where the log ended and when, so
 * often that its notes go back to what is asked for.  A standby that has not
 * applied by now what had been written some time ago is behind by more than
 * that time, also when it says nothing at all.
 *
 * A process knows nothing of the time before it began: so what had been written
 * by then has to be applied before it goes to work.
 *
 * Any role may know this; what it reads of walsenders is under their spinlocks.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "batch/batch_internal.h"
#include "batch/chunks_internal.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#define NUM_NOTES	256

typedef struct Note
{
	TimestampTz at;
	XLogRecPtr	lsn;
} Note;

static Note notes[NUM_NOTES];	/* a ring; none is made at 0 */
static int	next_note;
static XLogRecPtr first_lsn;

void
chunks_lag_begin(void)
{
	memset(notes, 0, sizeof(notes));
	next_note = 0;
	first_lsn = GetFlushRecPtr(NULL);
}

bool
chunks_lag_exceeds(double max_ms)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz before = now - (int64) (max_ms * 1000);
	XLogRecPtr	due = first_lsn;
	Note	   *last = &notes[(next_note + NUM_NOTES - 1) % NUM_NOTES];

	/* half of the ring is max_ms */
	if (now - last->at >= (int64) (max_ms * 1000) / (NUM_NOTES / 2))
	{
		notes[next_note].at = now;
		notes[next_note].lsn = GetFlushRecPtr(NULL);
		next_note = (next_note + 1) % NUM_NOTES;
	}
	for (int i = 0; i < NUM_NOTES; i++)
		if (notes[i].at <= before)
			due = Max(due, notes[i].lsn);

	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *sender = &WalSndCtl->walsnds[i];
		bool		follows;
		XLogRecPtr	applied;

		SpinLockAcquire(&sender->mutex);
		follows = sender->pid != 0 &&
			(sender->state == WALSNDSTATE_STREAMING || sender->state == WALSNDSTATE_CATCHUP);
		applied = sender->apply;
		SpinLockRelease(&sender->mutex);

		/* pg_receivewal, for one, applies nothing */
		if (follows && !XLogRecPtrIsInvalid(applied) && applied < due)
			return true;
	}
	return false;
}
