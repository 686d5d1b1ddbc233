/*
 * rings.c
 *		Who wrote which rows, and whether a result is true for a snapshot.
 *
 * A ring keeps the last writers of a set of rows, in the order in which they
 * registered: sequence number and top-level transaction.  Writers register
 * before they commit (PRE_COMMIT) or prepare (PRE_PREPARE), so whoever is
 * visible to a snapshot was in the ring before the snapshot was taken.
 *
 * A result carries, for each ring it depends on, the number of the last writer
 * that its snapshot saw.  It may be published if the writers seen come first
 * and those not seen last; it is true for a snapshot that sees all up to that
 * number and none after.  Transactions that abort look like visible ones that
 * changed nothing: they cost a miss.  Nothing happens after a commit, so there
 * is no moment at which it could be forgotten.
 *
 * Only RING_SIZE writers are kept.  Those that fell off must be visible to
 * whoever fills or hits.  They are
 *	 - when the newest of them is older than the snapshot's xmin, or
 *	 - when the snapshot's xmax lies beyond the horizon.  The horizon is the
 *	   xmax of a snapshot in which all of them had finished: a snapshot with a
 *	   greater xmax was taken later.  This form holds although some unrelated
 *	   transaction stays open.
 *
 * A barrier is a writer that everybody must see: all fall off.  Changed
 * definitions of a table are one, since its trigger may not have been there
 * before, and since TRUNCATE and its like are not subject to snapshots.
 *
 * After a start, the rings are empty though there may have been writers.  A
 * snapshot can use them only if its xmin is at least the floor, the next
 * transaction ID when the cache was first used; prepared transactions that
 * survived the restart count as running and hold xmin back until they end.
 *
 * Rings are found by hash and never given back.  Sets of rows in the same ring
 * see each other's writers.  Relations have rings apart from keys, so that
 * many keys do not wear out a table's.
 *
 * LOCKING
 * ring->mutex is held by whoever changes a ring, for some ten nanoseconds.
 * Readers take no lock: version is odd while the ring is being changed, and
 * who finds it odd, or another one after copying, tries again.  A reader that
 * still fails after many tries (the writer was suspended) takes it for a miss.
 * floor is set once, atomically, and later only ever raised.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "cache/cache_internal.h"
#include "common/compat.h"
#include "common/hashfn.h"
#include "common/shmem.h"
#include "common/stop_points.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/spin.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#define RING_SIZE				8
#define NUM_RELATION_RINGS		4096
#define NUM_KEY_RINGS			16384
#define NUM_RINGS				(NUM_RELATION_RINGS + NUM_KEY_RINGS)

/* not known to lie in the past of any snapshot */
#define HORIZON_UNKNOWN			PG_UINT64_MAX

typedef struct RingState
{
	uint64		last;			/* number of the newest writer, 0: none yet */
	uint64		fallen;			/* number of the newest that fell off */
	uint64		fallen_max;		/* greatest transaction that fell off */
	uint64		horizon;
	uint64		writers[RING_SIZE]; /* number s is at (s - 1) % RING_SIZE */
} RingState;

typedef struct Ring
{
	slock_t		mutex;			/* guards changes of all that follows */
	pg_atomic_uint64 version;
	RingState	state;
#ifdef PERFOPT_STOP_POINTS
	pg_atomic_uint32 pending;	/* of the weakened check, see below */
#endif
} Ring;

typedef struct Rings
{
	pg_atomic_uint64 floor;
	Ring		rings[NUM_RINGS];
} Rings;

static Rings *shared = NULL;

/*
 * What this transaction has marked: a bit for each ring, and a list of them as
 * far as it goes.
 */
#define MAX_LISTED	1024
#define MARK_WORD(ring)	((ring) / 64)
#define MARK_BIT(ring)	(UINT64CONST(1) << ((ring) % 64))

static uint64 marks[NUM_RINGS / 64];
static CacheRing listed[MAX_LISTED];
static int	num_marks = 0;		/* more than MAX_LISTED: see the bits */
static bool registered = false; /* PRE_COMMIT or PRE_PREPARE has been here */

/* ---------------------------------------------------------------------
 * Which ring
 */

static uint64
ring_hash(const void *key, Size len)
{
	return DatumGetUInt64(hash_any_extended(key, len, 0));
}

CacheRing
cache_ring_of_relation(Oid relid)
{
	uint32		key[] = {MyDatabaseId, relid, 0};

	return ring_hash(key, sizeof(key)) % NUM_RELATION_RINGS;
}

CacheRing
cache_ring_of_all_keys(Oid relid)
{
	uint32		key[] = {MyDatabaseId, relid, 1};

	return ring_hash(key, sizeof(key)) % NUM_RELATION_RINGS;
}

CacheRing
cache_ring_of_key(Oid relid, AttrNumber attnum, uint32 hash)
{
	uint32		key[] = {MyDatabaseId, relid, attnum, hash};

	return NUM_RELATION_RINGS + ring_hash(key, sizeof(key)) % NUM_KEY_RINGS;
}

CacheRing
cache_ring_of_name(Oid role, const char *name, Size len)
{
	uint64		hash = ring_hash(name, len);
	uint32		key[] = {MyDatabaseId, role, 0, (uint32) (hash >> 32), (uint32) hash};

	return NUM_RELATION_RINGS + ring_hash(key, sizeof(key)) % NUM_KEY_RINGS;
}

/* ---------------------------------------------------------------------
 * Transactions
 */

/* The 64-bit form of a transaction ID that is not in the future. */
static uint64
widen(TransactionId xid, uint64 next)
{
	return next - (uint32) ((uint32) next - xid);
}

static bool
running_for(TransactionId xid, Snapshot snapshot)
{
	for (uint32 i = 0; i < snapshot->xcnt; i++)
	{
		if (snapshot->xip[i] == xid)
			return true;
	}
	return false;
}

/*
 * Had the transaction ended when the snapshot was taken?  Rings hold top-level
 * transactions, which are in xip even when subtransactions did not fit.
 */
static inline bool
ended_for(uint64 writer, const CacheReader *reader)
{
	if (writer < U64FromFullTransactionId(reader->xmin))
		return true;
	if (writer >= U64FromFullTransactionId(reader->xmax))
		return false;
	return !running_for((TransactionId) writer, reader->snapshot);
}

static void
reader_set(CacheReader *reader, Snapshot snapshot)
{
	/* read after the snapshot was taken: nothing in it is newer */
	uint64		next = perfopt_next_full_xid();

	reader->snapshot = snapshot;
	reader->xmin = FullTransactionIdFromU64(widen(snapshot->xmin, next));
	reader->xmax = FullTransactionIdFromU64(widen(snapshot->xmax, next));
}

static uint64
current_floor(void)
{
	uint64		lowest = pg_atomic_read_u64(&shared->floor);

	if (lowest == 0)
	{
		/* the first one whose exchange succeeds has set it for all */
		pg_atomic_compare_exchange_u64(&shared->floor, &lowest,
									   perfopt_next_full_xid());
		lowest = pg_atomic_read_u64(&shared->floor);
	}
	return lowest;
}

CacheBypass
cache_reader_init(CacheReader *reader)
{
	Snapshot	snapshot;

	if (IsolationIsSerializable())
		return CACHE_BYPASS_SERIALIZABLE;
	if (IsParallelWorker())
		return CACHE_BYPASS_PARALLEL_WORKER;
	if (RecoveryInProgress())
		return CACHE_BYPASS_RECOVERY;

	snapshot = GetActiveSnapshot();
	if (snapshot->snapshot_type != SNAPSHOT_MVCC || snapshot->takenDuringRecovery)
		return CACHE_BYPASS_RECOVERY;

	reader_set(reader, snapshot);
	if (U64FromFullTransactionId(reader->xmin) < current_floor())
		return CACHE_BYPASS_SNAPSHOT_TOO_OLD;
	return CACHE_BYPASS_NONE;
}

/* ---------------------------------------------------------------------
 * Reading a ring
 */

static bool
ring_read(Ring *ring, RingState *state)
{
	for (int tries = 0; tries < 1000; tries++)
	{
		uint64		version = pg_atomic_read_u64(&ring->version);

		if ((version & 1) == 0)
		{
			pg_read_barrier();
			*state = ring->state;
			pg_read_barrier();
			if (pg_atomic_read_u64(&ring->version) == version)
				return true;
		}
		pg_spin_delay();
	}
	return false;
}

static bool
fallen_are_visible(const RingState *state, const CacheReader *reader)
{
	return state->fallen == 0 ||
		state->fallen_max < U64FromFullTransactionId(reader->xmin) ||
		U64FromFullTransactionId(reader->xmax) > state->horizon;
}

#ifdef PERFOPT_STOP_POINTS
/*
 * The test of the test: a check that looks right and is not.  A counter of
 * writers and a flag "somebody is just committing" do not know whether those
 * counted are visible to this snapshot.
 */
static bool weakened = false;	/* perfopt.cache_weakened, here only */

static bool
weak_check(Ring *ring, uint64 *seq, bool fill)
{
	RingState	state;

	if (!ring_read(ring, &state) || pg_atomic_read_u32(&ring->pending) != 0)
		return false;
	if (fill)
		*seq = state.last;
	return *seq == state.last;
}
#endif

bool
cache_ring_can_fill(CacheRing number, const CacheReader *reader, uint64 *seq)
{
	RingState	state;
	uint64		s;

#ifdef PERFOPT_STOP_POINTS
	if (weakened)
		return weak_check(&shared->rings[number], seq, true);
#endif
	if (!ring_read(&shared->rings[number], &state) ||
		!fallen_are_visible(&state, reader))
		return false;

	for (s = state.fallen; s < state.last; s++)
	{
		if (!ended_for(state.writers[s % RING_SIZE], reader))
			break;
	}
	*seq = s;
	for (; s < state.last; s++)
	{
		if (ended_for(state.writers[s % RING_SIZE], reader))
			return false;
	}
	return true;
}

bool
cache_ring_is_hit(CacheRingState result, const CacheReader *reader)
{
	RingState	state;

#ifdef PERFOPT_STOP_POINTS
	if (weakened)
		return weak_check(&shared->rings[result.ring], &result.seq, false);
#endif
	if (!ring_read(&shared->rings[result.ring], &state) ||
		result.seq < state.fallen ||
		!fallen_are_visible(&state, reader))
		return false;

	for (uint64 s = state.fallen; s < state.last; s++)
	{
		if (ended_for(state.writers[s % RING_SIZE], reader) != (s < result.seq))
			return false;
	}
	return true;
}

/* ---------------------------------------------------------------------
 * Writing
 */

/* An odd version keeps readers away.  The caller holds the mutex. */
static void
begin_change(Ring *ring)
{
	pg_atomic_write_u64(&ring->version, pg_atomic_read_u64(&ring->version) + 1);
	pg_write_barrier();
}

static void
end_change(Ring *ring)
{
	pg_write_barrier();
	pg_atomic_write_u64(&ring->version, pg_atomic_read_u64(&ring->version) + 1);
}

/*
 * The oldest writer falls off.  now, or NULL: a snapshot taken just now, which
 * tells who has ended.
 */
static void
drop_oldest(RingState *state, const CacheReader *now)
{
	uint64		writer = state->writers[state->fallen % RING_SIZE];
	bool		others_ended = state->horizon != HORIZON_UNKNOWN;

	state->fallen++;
	state->fallen_max = Max(state->fallen_max, writer);
	if (now != NULL &&
		(state->fallen_max < U64FromFullTransactionId(now->xmin) ||
		 (others_ended && ended_for(writer, now))))
	{
		/* somebody with a later snapshot may have been faster than we are */
		uint64		xmax = U64FromFullTransactionId(now->xmax);

		state->horizon = others_ended ? Max(state->horizon, xmax) : xmax;
	}
	else
		state->horizon = HORIZON_UNKNOWN;
}

static void
ring_append(CacheRing number, uint64 writer, const CacheReader *now)
{
	Ring	   *ring = &shared->rings[number];
	RingState  *state = &ring->state;

	SpinLockAcquire(&ring->mutex);
	begin_change(ring);
	if (state->last - state->fallen == RING_SIZE)
		drop_oldest(state, now);
	state->writers[state->last % RING_SIZE] = writer;
	state->last++;
	end_change(ring);
	SpinLockRelease(&ring->mutex);
#ifdef PERFOPT_STOP_POINTS
	pg_atomic_fetch_add_u32(&ring->pending, 1);
#endif
}

void
cache_ring_barrier(CacheRing number, FullTransactionId writer)
{
	Ring	   *ring = &shared->rings[number];
	RingState  *state = &ring->state;

	SpinLockAcquire(&ring->mutex);
	begin_change(ring);
	while (state->fallen < state->last)
		drop_oldest(state, NULL);
	state->last++;
	state->fallen = state->last;
	state->fallen_max = Max(state->fallen_max, U64FromFullTransactionId(writer));
	state->horizon = HORIZON_UNKNOWN;
	end_change(ring);
	SpinLockRelease(&ring->mutex);
}

void
cache_rings_raise_floor(FullTransactionId writer)
{
	uint64		wanted = U64FromFullTransactionId(writer) + 1;
	uint64		lowest = current_floor();

	while (lowest < wanted &&
		   !pg_atomic_compare_exchange_u64(&shared->floor, &lowest, wanted))
		;
}

bool
cache_ring_marked(CacheRing ring)
{
	return num_marks > 0 && (marks[MARK_WORD(ring)] & MARK_BIT(ring)) != 0;
}

void
cache_ring_mark(CacheRing ring)
{
	if (marks[MARK_WORD(ring)] & MARK_BIT(ring))
		return;
	marks[MARK_WORD(ring)] |= MARK_BIT(ring);
	if (num_marks < MAX_LISTED)
		listed[num_marks] = ring;
	num_marks++;

	/*
	 * Callbacks run last in, first out: one of another extension may write
	 * after ours has run.
	 */
	if (registered)
		ring_append(ring, U64FromFullTransactionId(GetTopFullTransactionId()), NULL);
}

uint64
cache_ring_registered_seq(CacheRing number)
{
	RingState	state;
	uint64		writer = U64FromFullTransactionId(GetTopFullTransactionIdIfAny());

	if (ring_read(&shared->rings[number], &state))
	{
		for (uint64 s = state.last; s > state.fallen; s--)
		{
			if (state.writers[(s - 1) % RING_SIZE] == writer)
				return s;
		}
	}
	return 0;					/* fallen off already: a miss for everybody */
}

/* Call fn for each ring marked. */
static void
for_each_mark(void (*fn) (CacheRing ring, uint64 writer, const CacheReader *now),
			  uint64 writer, const CacheReader *now)
{
	if (num_marks <= MAX_LISTED)
	{
		for (int i = 0; i < num_marks; i++)
			fn(listed[i], writer, now);
		return;
	}
	for (CacheRing ring = 0; ring < NUM_RINGS; ring++)
	{
		if (marks[MARK_WORD(ring)] & MARK_BIT(ring))
			fn(ring, writer, now);
	}
}

static void
unmark(CacheRing ring, uint64 writer, const CacheReader *now)
{
	marks[MARK_WORD(ring)] &= ~MARK_BIT(ring);
#ifdef PERFOPT_STOP_POINTS
	if (registered)
		pg_atomic_fetch_sub_u32(&shared->rings[ring].pending, 1);
#endif
}

static void
register_marks(void)
{
	CacheReader now;
	bool		have_now = !IsInParallelMode();

	if (num_marks == 0 || registered)
		return;
	if (have_now)
		reader_set(&now, GetLatestSnapshot());
	PERFOPT_STOP_POINT("cache-register");
	for_each_mark(ring_append, U64FromFullTransactionId(GetTopFullTransactionId()),
				  have_now ? &now : NULL);
	registered = true;
}

static void
rings_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			register_marks();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			if (num_marks > 0)
				for_each_mark(unmark, 0, NULL);
			num_marks = 0;
			registered = false;
			break;
		default:
			break;
	}
}

/* ---------------------------------------------------------------------
 * Shared memory
 */

static Size
rings_size(void)
{
	return sizeof(Rings);
}

static void
rings_shmem_init(void *area, LWLockPadded *locks, bool found)
{
	shared = area;
	if (found)
		return;
	memset(shared, 0, sizeof(Rings));
	pg_atomic_init_u64(&shared->floor, 0);
	for (int i = 0; i < NUM_RINGS; i++)
	{
		SpinLockInit(&shared->rings[i].mutex);
		pg_atomic_init_u64(&shared->rings[i].version, 0);
#ifdef PERFOPT_STOP_POINTS
		pg_atomic_init_u32(&shared->rings[i].pending, 0);
#endif
	}
}

static const PerfoptShmemPart rings_part = {
	.name = "cache_rings",
	.area_size = rings_size,
	.init = rings_shmem_init,
};

void
cache_rings_init(void)
{
#ifdef PERFOPT_STOP_POINTS
	DefineCustomBoolVariable("perfopt.cache_weakened",
							 "Has the cache check its results in a way that is known to be wrong.",
							 "For the test of the tests.",
							 &weakened, false,
							 PGC_SUSET, GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
#endif
	perfopt_shmem_register(&rings_part);
	RegisterXactCallback(rings_xact_callback, NULL);
}
