/*
 * definitions.c
 *		Who changed what tables, functions, rights and the like mean.
 *
 * Such changes do not obey snapshots: from their commit on they hold for all,
 * as they do for cached plans.  So a counter is enough.  Each object, or group
 * of objects, that results depend on has one, found by hash.  A transaction
 * that changes it counts it up before it commits; an entry holds as long as
 * its counters are what they were.
 *
 * What a transaction has changed is read from its own invalidation messages
 * (xactGetCommittedInvalidationMessages), which are what makes the server's own
 * plans and caches follow:
 *	 - of a relation: the relation, and its name, since a new relation can take
 *	   the place of another one of the same name on the search path
 *	 - of a type: what plans know as PlanInvalItem, and all types together, as
 *	   a new one can take the place of another one of the same name
 *	 - of functions, operators, schemas, casts, enums, text search ...: one
 *	   counter for the whole database, since new ones can be preferred to those
 *	   that a query meant before
 *	 - of roles and memberships: one counter for the cluster, and one of each
 *	   role for what does not depend on others.
 * VACUUM sends some, too, for the statistics it changes in place, but has no
 * transaction ID; nothing is changed by a transaction that has none.  ANALYZE
 * cannot be told from a change, and drops what depends on its table.
 *
 * Who computes a result must not publish, under new counters, what he computed
 * under an old definition: between counting and the arrival of the messages in
 * his backend.  Writers hold a heavyweight lock from before counting until the
 * transaction has ended, messages sent, prepared transactions included.  The
 * other one reads the epoch (which is counted up with any counter), then sees
 * that nobody holds the lock: all changes up to that epoch are complete, and
 * are in his backend once he accepts messages; in plans it has kept, as
 * kept_plans.c sees to it.  If the epoch is still the same when he has finished,
 * no other began meanwhile.
 *
 * A table's new definition is also a barrier of its rings, see rings.c.
 * Relations that were dropped need no lock: whoever uses one has locked it.
 *
 * LOCKING
 * Counters and epoch are atomics.  The heavyweight locks are advisory ones with
 * a key of their own, one a database and one for the cluster: RowExclusiveLock
 * by writers, who do not hinder each other, and ShareLock, not kept, by those
 * who look; so writers wait at most for an instant.
 *
 * Admitted: a callback of another extension that changes definitions after
 * ours has run at PRE_COMMIT is not seen.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "cache/cache_internal.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "common/hashfn.h"
#include "common/shmem.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lock.h"
#include "storage/sinval.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#define NUM_DEFINITIONS		16384

/* Beyond so many changed relations, everything is taken as changed. */
#define MAX_CHANGED_RELATIONS	1000

/* fourth part of the key of an advisory lock; the server uses 1 and 2 */
#define DEFINITIONS_LOCK_CLASS	5

typedef struct Definitions
{
	pg_atomic_uint64 epoch;
	pg_atomic_uint64 counters[NUM_DEFINITIONS];
} Definitions;

static Definitions *shared = NULL;

/* Changes of these concern the whole database. */
static const int database_caches[] = {
	AGGFNOID, AMOPOPID, CASTSOURCETARGET, CLAOID, COLLOID, ENUMOID,
	ENUMTYPOIDNAME, FOREIGNDATAWRAPPEROID, FOREIGNSERVEROID, LANGOID,
	NAMESPACEOID, OPEROID, PROCOID, RANGETYPE, TRFOID, TSCONFIGMAP,
	TSCONFIGOID, TSDICTOID, TSPARSEROID
};

/* Databases have names that can be asked for. */
static const int cluster_caches[] = {
	AUTHMEMMEMROLE, AUTHMEMROLEMEM, AUTHOID, DATABASEOID
};

/*
 * Of all these, those that tell a transaction of changes of its own: a backend
 * has room for 64 callbacks in all, so only what no other one comes with.
 */
static const int noted_caches[] = {
	AMOPOPID, AUTHMEMROLEMEM, AUTHOID, CASTSOURCETARGET, COLLOID, DATABASEOID, ENUMOID,
	NAMESPACEOID, OPEROID, PROCOID, TSCONFIGMAP, TSCONFIGOID, TSDICTOID, TYPEOID
};

/* Marked by name in this transaction, in TopTransactionContext. */
static CacheDefinition *marked = NULL;
static int	num_marked = 0;
static int	max_marked = 0;
static Oid *marked_relations = NULL;
static int	num_marked_relations = 0;
static int	max_marked_relations = 0;

/* A message came in while this transaction was writing: perhaps its own. */
static bool changes_seen = false;

/* ---------------------------------------------------------------------
 * Which definition
 */

typedef enum DefinitionClass
{
	DEFINITION_RELATION,
	DEFINITION_RELATION_NAME,
	DEFINITION_ITEM,
	DEFINITION_TYPES,
	DEFINITION_DATABASE,
	DEFINITION_CLUSTER,
	DEFINITION_ROLE,
	DEFINITION_ENTRIES
} DefinitionClass;

static CacheDefinition
definition_number(DefinitionClass class, Oid database, uint32 a, uint32 b)
{
	uint32		key[] = {class, database, a, b};

	return DatumGetUInt32(hash_any((unsigned char *) key, sizeof(key))) % NUM_DEFINITIONS;
}

CacheDefinition
cache_definition_of_relation(Oid relid)
{
	return definition_number(DEFINITION_RELATION, MyDatabaseId, relid, 0);
}

CacheDefinition
cache_definition_of_relation_name(const char *name)
{
	return definition_number(DEFINITION_RELATION_NAME, MyDatabaseId,
							 string_hash(name, NAMEDATALEN), 0);
}

CacheDefinition
cache_definition_of_item(int cacheid, uint32 hash)
{
	return definition_number(DEFINITION_ITEM, MyDatabaseId, cacheid, hash);
}

CacheDefinition
cache_definition_of_types(void)
{
	return definition_number(DEFINITION_TYPES, MyDatabaseId, 0, 0);
}

CacheDefinition
cache_definition_of_database(void)
{
	return definition_number(DEFINITION_DATABASE, MyDatabaseId, 0, 0);
}

CacheDefinition
cache_definition_of_cluster(void)
{
	return definition_number(DEFINITION_CLUSTER, InvalidOid, 0, 0);
}

static CacheDefinition
role_by_hash(uint32 hash)
{
	return definition_number(DEFINITION_ROLE, InvalidOid, hash, 0);
}

CacheDefinition
cache_definition_of_role(Oid role)
{
	return role_by_hash(GetSysCacheHashValue1(AUTHOID, ObjectIdGetDatum(role)));
}

CacheDefinition
cache_definition_of_entries(Oid role)
{
	return definition_number(DEFINITION_ENTRIES, MyDatabaseId, role, 0);
}

/* ---------------------------------------------------------------------
 * Reading
 */

uint64
cache_definition_use(CacheDefinition definition)
{
	return pg_atomic_read_u64(&shared->counters[definition]);
}

bool
cache_definition_is_current(CacheDefinitionState state)
{
	return pg_atomic_read_u64(&shared->counters[state.definition]) == state.value;
}

static void
set_lock_tag(LOCKTAG *tag, Oid database)
{
	SET_LOCKTAG_ADVISORY(*tag, database, 0, 0, DEFINITIONS_LOCK_CLASS);
}

/* Does nobody hold the lock? */
static bool
lock_is_free(Oid database)
{
	LOCKTAG		tag;

	set_lock_tag(&tag, database);
	if (!perfopt_lock_acquire(&tag, ShareLock, true))
		return false;
	LockRelease(&tag, ShareLock, false);
	return true;
}

bool
cache_definitions_begin(uint64 *epoch)
{
	*epoch = pg_atomic_read_u64(&shared->epoch);
	pg_memory_barrier();
	if (!lock_is_free(MyDatabaseId) || !lock_is_free(InvalidOid))
		return false;
	AcceptInvalidationMessages();
	return true;
}

bool
cache_definitions_unchanged(uint64 epoch)
{
	pg_memory_barrier();
	return pg_atomic_read_u64(&shared->epoch) == epoch;
}

/* ---------------------------------------------------------------------
 * Marking
 */

void
cache_definition_mark(CacheDefinition definition)
{
	if (marked == NULL || num_marked == max_marked)
	{
		max_marked = Max(16, 2 * num_marked);
		marked = marked == NULL ?
			MemoryContextAlloc(TopTransactionContext, max_marked * sizeof(*marked)) :
			repalloc(marked, max_marked * sizeof(*marked));
	}
	marked[num_marked++] = definition;
}

void
cache_definition_mark_relation(Oid relid)
{
	/* it becomes a writer of the relation's rings */
	(void) GetTopFullTransactionId();

	if (marked_relations == NULL || num_marked_relations == max_marked_relations)
	{
		max_marked_relations = Max(16, 2 * num_marked_relations);
		marked_relations = marked_relations == NULL ?
			MemoryContextAlloc(TopTransactionContext, max_marked_relations * sizeof(Oid)) :
			repalloc(marked_relations, max_marked_relations * sizeof(Oid));
	}
	marked_relations[num_marked_relations++] = relid;
}

bool
cache_definitions_marked(void)
{
	return changes_seen || num_marked > 0 || num_marked_relations > 0;
}

/* ---------------------------------------------------------------------
 * Counting up, at PRE_COMMIT and PRE_PREPARE
 */

typedef struct Change
{
	bool		database;
	bool		cluster;
	bool		everything;		/* too many relations to go through */
	List	   *definitions;	/* counted under the lock */
	List	   *relations;		/* their rings get a barrier */
	List	   *unlocked;		/* definitions counted without the lock */
	List	   *temporary_types;	/* items of the row types of temporary
									 * tables */
} Change;

static bool
cache_is_in(int id, const int *caches, int num)
{
	for (int i = 0; i < num; i++)
	{
		if (caches[i] == id)
			return true;
	}
	return false;
}

static CacheDefinition
item_of_type(Oid type)
{
	return cache_definition_of_item(TYPEOID,
									GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(type)));
}

/* The schemas that a session gets with its first temporary table. */
static bool
is_temporary_schema(uint32 hash)
{
	Oid			schema;
	Oid			toast_schema;

	GetTempNamespaceState(&schema, &toast_schema);
	return OidIsValid(schema) &&
		(hash == GetSysCacheHashValue1(NAMESPACEOID, ObjectIdGetDatum(schema)) ||
		 hash == GetSysCacheHashValue1(NAMESPACEOID, ObjectIdGetDatum(toast_schema)));
}

static void
add_relation(Change *change, Oid relid)
{
	HeapTuple	tuple;
	Form_pg_class class;
	CacheDefinition of_relation = cache_definition_of_relation(relid);
	CacheDefinition of_name;

	if (list_member_oid(change->relations, relid))
		return;
	if (list_length(change->relations) >= MAX_CHANGED_RELATIONS)
	{
		change->everything = true;
		return;
	}

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
	{
		change->unlocked = lappend_int(change->unlocked, of_relation);
		return;
	}
	class = (Form_pg_class) GETSTRUCT(tuple);
	of_name = cache_definition_of_relation_name(NameStr(class->relname));
	if (class->relpersistence == RELPERSISTENCE_TEMP)
	{
		/* nobody else sees it, but it may hide something from this session */
		Oid			type = class->reltype;

		change->unlocked = lappend_int(change->unlocked, of_name);
		change->temporary_types = lappend_int(change->temporary_types, item_of_type(type));
		change->temporary_types = lappend_int(change->temporary_types,
											  item_of_type(get_array_type(type)));
	}
	else
	{
		switch (class->relkind)
		{
			case RELKIND_RELATION:
			case RELKIND_PARTITIONED_TABLE:
			case RELKIND_MATVIEW:
			case RELKIND_VIEW:
			case RELKIND_FOREIGN_TABLE:
			case RELKIND_COMPOSITE_TYPE:
				change->relations = lappend_oid(change->relations, relid);
				change->definitions = lappend_int(change->definitions, of_relation);
				change->definitions = lappend_int(change->definitions, of_name);
				break;
			default:			/* indexes, sequences, toast tables */
				break;
		}
	}
	ReleaseSysCache(tuple);
}

static void
collect_changes(Change *change)
{
	SharedInvalidationMessage *messages;
	bool		init_file;
	int			num = 0;

	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		num = xactGetCommittedInvalidationMessages(&messages, &init_file);

	/* relations first: they tell which types are temporary */
	for (int i = 0; i < num; i++)
	{
		SharedInvalidationMessage *message = &messages[i];

		if (message->id == SHAREDINVALRELCACHE_ID &&
			message->rc.dbId == MyDatabaseId && OidIsValid(message->rc.relId))
			add_relation(change, message->rc.relId);
	}
	for (int i = 0; i < num; i++)
	{
		SharedInvalidationMessage *message = &messages[i];

		if (message->id == NAMESPACEOID && is_temporary_schema(message->cc.hashValue))
			continue;
		if (cache_is_in(message->id, database_caches, lengthof(database_caches)))
			change->database = true;
		else if (cache_is_in(message->id, cluster_caches, lengthof(cluster_caches)))
		{
			change->cluster = true;
			if (message->id == AUTHOID)
				change->definitions = list_append_unique_int(change->definitions,
															 role_by_hash(message->cc.hashValue));
		}
		else if (message->id == TYPEOID)
		{
			CacheDefinition item = cache_definition_of_item(TYPEOID, message->cc.hashValue);

			if (list_member_int(change->temporary_types, item))
				continue;
			change->definitions = list_append_unique_int(change->definitions, item);
			change->definitions = list_append_unique_int(change->definitions,
														 cache_definition_of_types());
		}
	}
	for (int i = 0; i < num_marked_relations; i++)
		add_relation(change, marked_relations[i]);
	for (int i = 0; i < num_marked; i++)
		change->definitions = lappend_int(change->definitions, marked[i]);
}

static void
count_up(List *definitions)
{
	ListCell   *cell;

	foreach(cell, definitions)
		pg_atomic_fetch_add_u64(&shared->counters[lfirst_int(cell)], 1);
}

/*
 * Without room in the lock table the change goes on unlocked: no statement
 * fails for the cache's sake.
 */
static void
take_lock(Oid database)
{
	LOCKTAG		tag;

	set_lock_tag(&tag, database);
	(void) perfopt_lock_acquire(&tag, RowExclusiveLock, false);
}

static void
register_changes(void)
{
	Change		change = {0};
	ListCell   *cell;

	collect_changes(&change);
	if (change.definitions == NIL && change.unlocked == NIL && change.relations == NIL &&
		!change.database && !change.cluster && !change.everything)
		return;

	if (change.definitions != NIL || change.database || change.cluster || change.everything)
	{
		take_lock(MyDatabaseId);
		if (change.cluster)
			take_lock(InvalidOid);
		pg_atomic_fetch_add_u64(&shared->epoch, 1);
		count_up(change.definitions);
		if (change.database || change.everything)
			pg_atomic_fetch_add_u64(&shared->counters[cache_definition_of_database()], 1);
		if (change.cluster)
			pg_atomic_fetch_add_u64(&shared->counters[cache_definition_of_cluster()], 1);
	}
	count_up(change.unlocked);

	if (change.everything)
		cache_rings_raise_floor(GetTopFullTransactionId());
	foreach(cell, change.relations)
	{
		cache_ring_barrier(cache_ring_of_relation(lfirst_oid(cell)), GetTopFullTransactionId());
		cache_ring_barrier(cache_ring_of_all_keys(lfirst_oid(cell)), GetTopFullTransactionId());
	}
}

static void
definitions_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (!RecoveryInProgress() && !IsInParallelMode())
				register_changes();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			marked = NULL;
			marked_relations = NULL;
			num_marked = max_marked = 0;
			num_marked_relations = max_marked_relations = 0;
			changes_seen = false;
			break;
		default:
			break;
	}
}

/*
 * Messages of other backends come here as well; that this transaction then
 * goes past the cache, too, does no harm.
 */
static void
note_change(void)
{
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		changes_seen = true;
}

static void
relation_callback(Datum arg, Oid relid)
{
	note_change();
	cache_kept_plans_note_relation(relid);
}

static void
syscache_callback(Datum arg, int cacheid, uint32 hash)
{
	note_change();
	cache_kept_plans_note_item(cacheid, hash);
}

static void
register_callbacks(void)
{
	static bool done = false;

	if (done)
		return;
	done = true;
	CacheRegisterRelcacheCallback(relation_callback, (Datum) 0);
	for (int i = 0; i < lengthof(noted_caches); i++)
		CacheRegisterSyscacheCallback(noted_caches[i], syscache_callback, (Datum) 0);
}

/* ---------------------------------------------------------------------
 * Shared memory
 */

static Size
definitions_size(void)
{
	return sizeof(Definitions);
}

static void
definitions_shmem_init(void *area, LWLockPadded *locks, bool found)
{
	shared = area;
	if (found)
		return;
	pg_atomic_init_u64(&shared->epoch, 0);
	for (int i = 0; i < NUM_DEFINITIONS; i++)
		pg_atomic_init_u64(&shared->counters[i], 1);
}

static const PerfoptShmemPart definitions_part = {
	.name = "cache_definitions",
	.area_size = definitions_size,
	.init = definitions_shmem_init,
};

void
cache_definitions_init(void)
{
	perfopt_shmem_register(&definitions_part);
	RegisterXactCallback(definitions_xact_callback, NULL);
	register_callbacks();
}
