/*
 * cache_internal.h
 *		What the files of the cache share; src/cache/README.md has the picture.
 *
 * cache.c         table of contents; cache.h is what perfopt.c calls
 * rings.c         who wrote which rows: is a result true for a snapshot?
 * definitions.c   who changed which tables, functions, roles ...
 * kept_plans.c    plans that functions keep follow those changes, too
 * entry.c         an entry: the bytes that are stored
 * store.c         entries in shared memory: look-up, eviction
 * local.c         the level of this backend above it
 * lookup.c        look-up through both levels, with the checks
 * stats.c         counters
 * marking.c       the trigger that marks what is written
 * tracking.c      which tables have it
 * dependencies.c  what a statement reads, as its plan says
 * keys.c          what tells results apart: role, settings, query, parameters
 * purity.c        which queries may be cached
 * types.c         definitions that values of a type depend on
 * lease.c         one computes, the others wait
 * ttl.c           how long results are kept
 * fill.c          compute a result and what it depends on, and publish it
 * query.c         a query of this session: analyzed and checked once (query_internal.h)
 * query_face.c    cached(), cached_json()
 * refresh.c       refresh-ahead
 * key_value.c     cache_get(), cache_set() and the strategies on top
 * write_behind.c  statements run later by the worker
 * memoize.c       functions answered from the cache
 * views.c         cache_stats, cache_entries, clearing
 */
#ifndef PERFOPT_CACHE_INTERNAL_H
#define PERFOPT_CACHE_INTERNAL_H

#include "postgres.h"

#include "access/attnum.h"
#include "access/transam.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/execnodes.h"
#include "nodes/params.h"
#include "nodes/pg_list.h"
#include "nodes/plannodes.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "cache/cache.h"
#include "common/compat.h"
#include "common/settings.h"

/* how long what has no time to live of its own is kept */
#define CACHE_DEFAULT_TTL_US	(INT64CONST(3600) * USECS_PER_SEC)

/* ---------------------------------------------------------------------
 * rings.c: writers of rows
 *
 * A ring stands for a set of rows: those of a table, those with one value of
 * a key column, or one key of the key-value face.  Rings are found by hash;
 * sets that share a ring cost each other misses, never a wrong hit.
 */
typedef uint32 CacheRing;

/* A result was computed with the first seq writers of the ring visible. */
typedef struct CacheRingState
{
	CacheRing	ring;
	uint64		seq;
} CacheRingState;

extern CacheRing cache_ring_of_relation(Oid relid);

/* stands for all keys at once, for writers of too many; depended on with each key */
extern CacheRing cache_ring_of_all_keys(Oid relid);

/* hash is that of the column type's default hash operator class */
extern CacheRing cache_ring_of_key(Oid relid, AttrNumber attnum, uint32 hash);

extern CacheRing cache_ring_of_name(Oid role, const char *name, Size len);

/*
 * This transaction has changed such rows.  Cheap, no allocation; becomes known
 * to others when it commits or prepares.
 */
extern void cache_ring_mark(CacheRing ring);
extern bool cache_ring_marked(CacheRing ring);

/* At XACT_EVENT_COMMIT: as which writer of the ring was it registered? */
extern uint64 cache_ring_registered_seq(CacheRing ring);

/* A snapshot, widened; valid as long as the snapshot is. */
typedef struct CacheReader
{
	FullTransactionId xmin;
	FullTransactionId xmax;
	Snapshot	snapshot;
} CacheReader;

/* Why a call went past the cache; names in stats.c. */
typedef enum CacheBypass
{
	CACHE_BYPASS_NONE,
	CACHE_BYPASS_SERIALIZABLE,
	CACHE_BYPASS_PARALLEL_WORKER,
	CACHE_BYPASS_RECOVERY,		/* hot standby, or a snapshot taken there */
	CACHE_BYPASS_SNAPSHOT_TOO_OLD,	/* from before the server's start */
	CACHE_BYPASS_OWN_WRITES,	/* this transaction wrote what is read */
	CACHE_BYPASS_OWN_DDL,		/* it changed definitions */
	CACHE_BYPASS_UNTRACKED,		/* a table read lacks its trigger */
	CACHE_BYPASS_SETTING,		/* perfopt.cache is off */
	CACHE_BYPASS_NESTED,		/* inside the computation of another entry */
	CACHE_BYPASS_OVERSIZED,		/* the result is too large */
	CACHE_BYPASS_CONCURRENT_WRITE,	/* writers not visible: cannot be
									 * published */
	CACHE_BYPASS_CONCURRENT_DDL,	/* definitions changed while computing */
	CACHE_NUM_BYPASSES
} CacheBypass;

/*
 * Can the cache be used at all, in this transaction and under the active
 * snapshot?  Fills reader if so (CACHE_BYPASS_NONE).
 */
extern CacheBypass cache_reader_init(CacheReader *reader);

/* May a result computed under the snapshot be published, and as which state? */
extern bool cache_ring_can_fill(CacheRing ring, const CacheReader *reader, uint64 *seq);

/* Is what was computed in that state what the snapshot would see? */
extern bool cache_ring_is_hit(CacheRingState state, const CacheReader *reader);

/*
 * A writer that every snapshot must see to use the ring; and the same for all
 * rings.
 */
extern void cache_ring_barrier(CacheRing ring, FullTransactionId writer);
extern void cache_rings_raise_floor(FullTransactionId writer);

/* ---------------------------------------------------------------------
 * definitions.c: changes of definitions
 *
 * Like rings, but not by snapshot: a changed definition holds from its commit
 * on for everybody, as it does for plans.  Found by hash, too.
 */
typedef uint32 CacheDefinition;

typedef struct CacheDefinitionState
{
	CacheDefinition definition;
	uint64		value;
} CacheDefinitionState;

extern CacheDefinition cache_definition_of_relation(Oid relid);
extern CacheDefinition cache_definition_of_relation_name(const char *name);
extern CacheDefinition cache_definition_of_item(int cacheid, uint32 hash);	/* PlanInvalItem */
extern CacheDefinition cache_definition_of_types(void); /* any of the database */
extern CacheDefinition cache_definition_of_database(void);	/* functions, operators,
															 * schemas ... */
extern CacheDefinition cache_definition_of_cluster(void);	/* roles */
extern CacheDefinition cache_definition_of_role(Oid role);	/* created, altered or
															 * dropped */
extern CacheDefinition cache_definition_of_entries(Oid role);	/* the role dropped its
																 * entries */

/* Its state now; somebody is going to depend on it. */
extern uint64 cache_definition_use(CacheDefinition definition);
extern bool cache_definition_is_current(CacheDefinitionState state);

/* This transaction changes it, when it commits. */
extern void cache_definition_mark(CacheDefinition definition);

/* The same for a table, and snapshots from before cannot use its rings. */
extern void cache_definition_mark_relation(Oid relid);

/* Has this transaction changed definitions? */
extern bool cache_definitions_marked(void);

/*
 * Around a computation that is to be published: false when definitions are
 * being changed just now.
 */
extern bool cache_definitions_begin(uint64 *epoch);
extern bool cache_definitions_unchanged(uint64 epoch);

/* types.c: what values of the types that were added depend on */
typedef struct CacheTypes
{
	List	   *definitions;
	Oid			temporary;		/* one that only this session has, if any */
	List	   *seen;
} CacheTypes;

extern void cache_types_add(CacheTypes *types, Oid type);

/* ---------------------------------------------------------------------
 * kept_plans.c: a message about definitions has come in
 */
extern void cache_kept_plans_note_relation(Oid relid);
extern void cache_kept_plans_note_item(int cacheid, uint32 hash);	/* as in PlanInvalItem */

/* ---------------------------------------------------------------------
 * entry.c: the bytes of an entry
 */
typedef enum CacheEntryKind
{
	CACHE_ENTRY_ROWS,			/* minimal tuples, each MAXALIGNed */
	CACHE_ENTRY_DATUM			/* one datum, flat; empty data is NULL */
} CacheEntryKind;

typedef enum CacheFace
{
	CACHE_FACE_QUERY,
	CACHE_FACE_JSON,
	CACHE_FACE_KEY_VALUE,
	CACHE_FACE_FUNCTION
} CacheFace;

/*
 * What tells entries apart, as bytes, compared whole: no two roles ever share
 * an entry, whatever the hash does.  Begins with database and role.
 */
typedef struct CacheKey
{
	const char *data;
	uint32		len;
	uint64		hash;
} CacheKey;

/*
 * One chunk of memory, position independent: header, rings, definitions,
 * relations, key, label, data, each MAXALIGNed, in this order.
 */
typedef struct CacheEntry
{
	uint32		size;			/* of the whole chunk */
	uint32		key_len;
	uint32		label_len;		/* shown, and matched by prefix */
	uint32		data_len;
	uint16		num_rings;
	uint16		num_definitions;
	uint16		num_relations;	/* locked at each hit, as the plan would */
	uint8		kind;			/* CacheEntryKind */
	uint8		face;			/* CacheFace */
	uint32		prefix_len;		/* leading bytes of the label that are the key
								 * prefix, or the whole key */
	uint32		rows;
	Oid			database;
	Oid			role;
	uint64		hash;			/* of the key */
	uint64		cost_ns;		/* what computing it took */
	TimestampTz filled_at;
	TimestampTz expires_at;
} CacheEntry;

/* What a computation depends on; grows in its memory context. */
typedef struct CacheDependencies
{
	MemoryContext context;
	CacheRing  *rings;			/* no duplicates */
	int			num_rings;
	int			max_rings;
	CacheDefinitionState *definitions;	/* no duplicates */
	int			num_definitions;
	int			max_definitions;
	Oid		   *relations;		/* no duplicates */
	int			num_relations;
	int			max_relations;
	bool		settings_in_key;	/* all that current_setting() is called
									 * for */
	CacheBypass refusal;		/* why it must not be published, or NONE */
	Oid			refusal_relation;	/* of UNTRACKED */
} CacheDependencies;

#define CACHE_MAX_DEPENDENCIES	512 /* of each sort; more: not published */

extern CacheDependencies *cache_dependencies_create(MemoryContext context);
extern void cache_dependencies_add_ring(CacheDependencies *deps, CacheRing ring);
extern void cache_dependencies_add_definition(CacheDependencies *deps, CacheDefinition definition);
extern void cache_dependencies_add_relation(CacheDependencies *deps, Oid relid);
extern void cache_dependencies_refuse(CacheDependencies *deps, CacheBypass reason, Oid relid);

typedef struct CacheEntrySpec
{
	CacheKey	key;
	const char *label;
	uint32		label_len;
	uint32		prefix_len;
	CacheEntryKind kind;
	CacheFace	face;
	const char *data;
	uint32		data_len;
	uint32		rows;
	uint64		cost_ns;
	TimestampTz expires_at;
} CacheEntrySpec;

/*
 * Build an entry in the current memory context.  rings has num_rings states
 * (deps->rings with the states they can be filled in).
 */
extern CacheEntry *cache_entry_build(const CacheEntrySpec *spec,
									 const CacheRingState *rings, int num_rings,
									 const CacheDependencies *deps);
extern const CacheRingState *cache_entry_rings(const CacheEntry *entry);
extern const CacheDefinitionState *cache_entry_definitions(const CacheEntry *entry);
extern const Oid *cache_entry_relations(const CacheEntry *entry);
extern const char *cache_entry_key(const CacheEntry *entry);
extern const char *cache_entry_label(const CacheEntry *entry);
extern const char *cache_entry_data(const CacheEntry *entry);
extern Size cache_entry_label_offset(const CacheEntry *entry);	/* needs the header only */

/* Sizes that fit each other: bytes read while they were overwritten may not. */
extern bool cache_entry_is_sane(const CacheEntry *entry, Size available);

/* ---------------------------------------------------------------------
 * store.c: entries in shared memory
 *
 * Nothing here raises errors or allocates (but for copies in palloc memory).
 */

/* Largest entry that is stored. */
extern Size cache_store_max_entry(void);

/* Put, replacing what had the key.  False: did not fit. */
extern bool cache_store_put(const CacheEntry *entry);

/* A copy in the context, or NULL. */
extern CacheEntry *cache_store_get(const CacheKey *key, MemoryContext context);

extern bool cache_store_remove(const CacheKey *key);

/* Count hits that were served above the shared level. */
extern void cache_store_note_hits(const CacheKey *key, uint32 hits);

/* True for one caller in each period: he is to refresh the entry. */
extern bool cache_store_claim_refresh(const CacheKey *key, TimestampTz now, int period_ms);

/* Remove all entries of a database and role whose prefix or key begins so. */
extern uint64 cache_store_remove_prefix(Oid database, Oid role,
										const char *prefix, Size len);
extern uint64 cache_store_remove_all(Oid database, Oid role);	/* InvalidOid: any */

/* For the view: copy of entry in slot i, NULL when empty; ends at num_slots. */
extern int	cache_store_num_slots(void);
extern CacheEntry *cache_store_read_slot(int slot, MemoryContext context, uint64 *hits);
extern void cache_store_usage(uint64 *entries, uint64 *bytes, uint64 *limit);

/* ---------------------------------------------------------------------
 * local.c, lookup.c
 */
extern const CacheEntry *cache_local_get(const CacheKey *key);
extern void cache_local_put(CacheEntry *entry); /* entry is copied */
extern void cache_local_remove(const CacheKey *key);

/*
 * The entry, if there is one that holds for the reader, with its relations
 * locked.  Counts a hit or nothing; the caller counts misses.  The entry stays
 * where it is until the next call of a function of this section.  Sets *bypass
 * when there was an entry that this transaction's own changes forbid to use.
 */
extern const CacheEntry *cache_lookup(const CacheKey *key, const CacheReader *reader,
									  CacheBypass *bypass);

typedef enum CacheVerdict
{
	CACHE_VERDICT_HIT,
	CACHE_VERDICT_STALE,		/* not true for this snapshot */
	CACHE_VERDICT_OBSOLETE,		/* will not be true for anybody any more */
	CACHE_VERDICT_EXPIRED,
	CACHE_VERDICT_OWN_WRITES,
	CACHE_VERDICT_OWN_DDL
} CacheVerdict;

/* What a look-up would say of the entry. */
extern CacheVerdict cache_entry_verdict(const CacheEntry *entry, const CacheReader *reader);

/* stats.c */
typedef enum CacheCounter
{
	CACHE_COUNT_HITS,
	CACHE_COUNT_LOCAL_HITS,		/* of hits */
	CACHE_COUNT_MISSES,
	CACHE_COUNT_FILLS,
	CACHE_COUNT_EVICTIONS,
	CACHE_COUNT_EXPIRED,
	CACHE_COUNT_INVALIDATED,	/* found, and no longer true */
	CACHE_COUNT_WAITS,			/* for another one computing the same */
	CACHE_COUNT_REFRESHES,
	CACHE_COUNT_SAVED_NS,
	CACHE_COUNT_BYPASS_FIRST,	/* + CacheBypass */
	CACHE_NUM_COUNTERS = CACHE_COUNT_BYPASS_FIRST + CACHE_NUM_BYPASSES
} CacheCounter;

extern void cache_count(CacheCounter counter, uint64 by);
#define cache_count_bypass(reason)	cache_count(CACHE_COUNT_BYPASS_FIRST + (reason), 1)
extern const char *cache_bypass_name(CacheBypass reason);
extern uint64 cache_counter_read(CacheCounter counter);
extern void cache_counters_reset(void);
extern TimestampTz cache_counters_since(void);

/* ---------------------------------------------------------------------
 * marking.c
 */

/* Further key columns of one table are refused. */
#define CACHE_MAX_KEY_COLUMNS	8

/* Is the column stored, and of a type that can be hashed? */
extern bool cache_column_can_be_key(Relation relation, AttrNumber attnum);

/*
 * A statement has been started: have it mark what it writes without its
 * triggers being queued.
 */
extern void cache_mark_without_queue(EState *estate);

/* ---------------------------------------------------------------------
 * tracking.c
 */

/* With which the names of all its triggers begin. */
#define CACHE_TRIGGER_NAME	"perfopt_cache"

/* perfopt.cache_mark(); InvalidOid without the extension */
extern Oid	cache_mark_function(void);

/* Has the table its trigger, enabled ALWAYS? */
extern bool cache_relation_is_tracked(Oid relid);

/* Is it tracked by that column, too? */
extern bool cache_relation_tracks_key(Oid relid, AttrNumber attnum);

/*
 * Give it the trigger if the caller owns it and that is possible now; false
 * otherwise.  Never waits for a lock.
 */
extern bool cache_track_if_owner(Oid relid);

/* Raise OBJECT_NOT_IN_PREREQUISITE_STATE with the statement to be run. */
pg_noreturn extern void cache_raise_untracked(Oid relid);

/* ---------------------------------------------------------------------
 * dependencies.c
 */

/*
 * From now on, add what every statement executed in this backend reads to
 * deps; returns what was collected into before, to be given back at the end,
 * also after an error.
 */
extern CacheDependencies *cache_collect(CacheDependencies *deps);
extern CacheDependencies *cache_collecting(void);

/*
 * Is this backend in a statement that writes, whose triggers have not marked
 * yet all that functions it calls can see?  No result of a query can be taken
 * from the cache then, nor put there.
 */
extern bool cache_write_in_progress(void);

/* What the plan reads; params are those it is executed with. */
extern void cache_dependencies_add_plan(CacheDependencies *deps, PlannedStmt *plan,
										ParamListInfo params);

/* ---------------------------------------------------------------------
 * keys.c
 */

/* Settings, role and database, that any result can depend on. */
extern void cache_key_append_session(StringInfo buf);
extern void cache_key_finish(CacheKey *key, StringInfo buf);	/* sets the hash */

/*
 * "name=value\n..." of the same settings, for a job that has to compute the
 * same result.  NULL when a value has a line break.
 */
extern char *cache_key_settings_for_job(void);

/* ---------------------------------------------------------------------
 * fill.c, lease.c
 */
typedef struct CacheLease
{
	uint64		hash;
	bool		held;
} CacheLease;

/*
 * After a miss: become the one who computes (lease->held), or wait until that
 * one is done and return its entry.  Returns NULL when the caller has to
 * compute himself.
 */
extern const CacheEntry *cache_lease_or_wait(CacheLease *lease, const CacheKey *key,
											 const CacheReader *reader);
extern void cache_lease_release(CacheLease *lease);

/*
 * One computation
 *
 * compute() runs with dependencies collected; it returns its data in
 * spec->data etc.  The entry is published if that is allowed, and the reason
 * counted if not.  deps may have been added to before.  An error of compute()
 * goes through.
 */
typedef void (*CacheCompute) (void *arg, CacheEntrySpec *spec);

extern CacheBypass cache_fill(CacheEntrySpec *spec, CacheDependencies *deps,
							  const CacheReader *reader,
							  CacheCompute compute, void *arg);

/*
 * A call, answered from the cache or computed and published: look-up, lease,
 * fill, with what is special to a face.  Its result is put into *call.
 * refresh and prepare may be NULL.
 */
typedef struct CacheFaceMethods
{
	/* the key, or why the call goes past the cache */
	CacheBypass (*key) (void *call, CacheKey *key);

	/* the result out of an entry; false when that is of something else */
	bool		(*take) (void *call, const CacheEntry *entry);

	/* after a hit that expires then: compute anew if that is soon */
	void		(*refresh) (void *call, const CacheKey *key, const CacheReader *reader,
							TimestampTz expires_at);

	/* after a miss, before anybody is waited for */
	void		(*prepare) (void *call);

	/* compute it by cache_fill() */
	void		(*fill) (void *call, const CacheKey *key, const CacheReader *reader);

	/* compute it, past the cache */
	void		(*run) (void *call);
} CacheFaceMethods;

extern void cache_answer(const CacheFaceMethods *face, void *call);

/* ttl.c: microseconds, negative ones as -1; infinity is a thousand years */
extern int64 cache_interval_us(const Interval *interval);

/* Of the i'th argument, NULL: one hour.  Raises unless it is greater than zero. */
extern int64 cache_ttl_argument(FunctionCallInfo fcinfo, int i);

/* For write-through, write-behind and the like: a list of parameters. */
typedef struct CacheParams
{
	int			num;
	Oid		   *types;
	Datum	   *values;
	char	   *nulls;			/* as SPI has them */
} CacheParams;

extern void cache_params_from_record(CacheParams *params, Datum record, bool isnull);

/*
 * A query of this session that may be cached, analyzed once; checked against
 * changed definitions at each call.
 */
typedef struct CacheQuery CacheQuery;

/* Raises FEATURE_NOT_SUPPORTED with the reason when it may not be cached. */
extern CacheQuery *cache_query_get(const char *query, int len, const CacheParams *params,
								   bool as_json);

/* The jsonb array of a query's rows, through the cache under the given key. */
extern Datum cache_query_json_compute(CacheQuery *query, const CacheParams *params);

/*
 * Are there rows among the parameters?  Their bytes do not say what they mean,
 * as types without a name are numbered by each session, and others can be
 * altered; so results are not kept.
 */
extern bool cache_query_params_have_rows(const CacheParams *params);
extern void cache_query_append_key(CacheQuery *query, const CacheParams *params, StringInfo buf);

/*
 * key_value.c, for the strategies: perfopt.cache_set() with the first two
 * arguments of fcinfo and its ttl'th (from 0); and a statement, run as the
 * caller in his transaction, with the rows it processed.
 */
extern void cache_set_arguments(FunctionCallInfo fcinfo, int ttl);
extern void cache_check_statement(const char *statement);
extern uint64 cache_execute_statement(const char *statement, const CacheParams *params);

/* What each file has to set up while the library is preloaded. */
extern void cache_rings_init(void);
extern void cache_definitions_init(void);
extern void cache_kept_plans_init(void);
extern void cache_store_init(void);
extern void cache_stats_init(void);
extern void cache_dependencies_init(void);
extern void cache_refresh_init(void);
extern void cache_key_value_init(void);
extern void cache_write_behind_init(void);

/* common.c of faces: is the cache usable, with the settings as they are? */
extern CacheBypass cache_usable(CacheReader *reader);

#endif							/* PERFOPT_CACHE_INTERNAL_H */
