/*
 * plan_samples.c
 *		Statements as they were planned, with their real parameter values, for
 *		the advisor to plan again.
 *
 * A planner hook keeps, for each (database, role, query) that the monitor
 * counts, up to SAMPLE_SETS plannings: the rewritten query tree as text,
 * compressed, and the values of its parameters.  Prepared statements are
 * planned with their values five times before a generic plan is tried, so real
 * values are seen although an execution costs nothing here.
 *
 * What a sample costs.  The tree must be taken before planning, because the
 * planner scribbles on it, and that takes some 10 microseconds.  So each
 * backend remembers in a small table for which statements there is nothing to
 * do for a while: because they are cheap, can't be sampled, or have fresh
 * samples already.  A statement whose verdict is still good costs one look
 * into that table, and one that was cheap is planned first and judged again by
 * its plan.  Where a backend runs more statements than the table holds, the
 * monitor's mean time tells that most of them are cheap; and a backend stores
 * no more samples of a statement in a while than would be kept, even if those
 * of others crowd them out at once.
 *
 * Values are secrets: perfopt.plan_samples shows them to members of
 * pg_read_all_stats only.
 *
 * LOCKING.  One LWLock guards everything in shared memory: the hash table from
 * keys to slots, the slots and the counters.  It is taken exclusively to store
 * and to discard a sample, shared to look.  Nothing is allocated, and no SQL
 * runs, while it is held.  Two backends may find the same statement in want of
 * a sample at the same time; then both store theirs, which costs an older
 * one its place and does no harm.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include <math.h>

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/relation.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/hashfn.h"
#include "common/pg_lzcompress.h"
#include "common/settings.h"
#include "common/shmem.h"
#include "common/test_clock.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/readfuncs.h"
#include "parser/parsetree.h"
#include "postmaster/bgworker.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/expandeddatum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* Statements with a lower plan cost are never worth an index. */
#define CHEAP_COST				100.0
#define CHEAP_MS				0.1 /* takes about as long */

/* A sample may be replaced by a newer one after this time. */
#define SAMPLE_LIFE				(60 * USECS_PER_SEC)

/* How long a backend trusts what it remembers. */
#define VERDICT_LIFE			(60 * USECS_PER_SEC)
#define VERDICT_LIFE_UNCOUNTED	(1 * USECS_PER_SEC)

/*
 * A statement is not counted when it is planned for the first time, and never
 * if the monitor leaves it out.  So many plannings are looked at before that
 * is taken for granted for a while: a prepared statement is only planned five
 * times.
 */
#define UNCOUNTED_TRIES			5

/* A tree with more nodes is not worth the time, nor would it fit. */
#define MAX_NODES				4000

/* shared memory */

typedef struct SampleEntry
{
	PerfoptQueryKey key;		/* hash key; must be first */
	TimestampTz newest;
	bool		condemned;		/* nobody gets its samples, none are taken */
	int			num_slots;
	int			slots[SAMPLE_SETS];
} SampleEntry;

typedef struct SampleShared
{
	LWLock	   *lock;

	/* the rest is guarded by the lock */
	int			num_slots;
	int			num_free;		/* free slots: the first of free_slots */
	int64		stored;
	int64		too_large;
	int64		evicted;		/* samples that gave way to other statements */
} SampleShared;

static SampleShared *shared = NULL;
static HTAB *entries = NULL;
static PlanSample *slots = NULL;
static int *free_slots = NULL;

/* this backend */

typedef enum Verdict
{
	VERDICT_NONE,
	VERDICT_CHEAP,				/* plan first, judge by the plan's cost */
	VERDICT_NOTHING_TO_DO		/* until it expires */
} Verdict;

typedef struct VerdictEntry
{
	uint64		queryid;
	uint32		tables;			/* from 18 on tables made anew have the
								 * queryid of those before */
	Oid			role;
	Verdict		verdict;
	int			uncounted;		/* plannings while the monitor had no row */
	int			stored;			/* samples since there was nothing to do */
	TimestampTz until;
} VerdictEntry;

#define NUM_VERDICTS	1024	/* a power of 2 */

static VerdictEntry verdicts[NUM_VERDICTS];

static planner_hook_type prev_planner_hook = NULL;

StaticAssertDecl(sizeof(PerfoptQueryKey) == 16, "padding in a hash key");

/*
 * Shared memory
 */
static int
num_slots(void)
{
	return perfopt_max_plan_samples;
}

static Size
samples_size(void)
{
	Size		size = MAXALIGN(sizeof(SampleShared));

	size = add_size(size, MAXALIGN(mul_size(num_slots(), sizeof(int))));
	return add_size(size, mul_size(num_slots(), sizeof(PlanSample)));
}

static Size
samples_extra_size(void)
{
	return hash_estimate_size(num_slots(), sizeof(SampleEntry));
}

static void
samples_attach(void *area, LWLockPadded *locks, bool found)
{
	HASHCTL		ctl = {.keysize = sizeof(PerfoptQueryKey),.entrysize = sizeof(SampleEntry)};

	shared = area;
	free_slots = (int *) ((char *) area + MAXALIGN(sizeof(SampleShared)));
	slots = (PlanSample *) ((char *) free_slots +
							MAXALIGN(sizeof(int) * num_slots()));
	entries = perfopt_shmem_init_hash("perfopt plan samples", num_slots(), &ctl,
									  HASH_ELEM | HASH_BLOBS);
	if (!found)
	{
		memset(shared, 0, sizeof(*shared));
		shared->lock = &locks[0].lock;
		shared->num_slots = shared->num_free = num_slots();
		for (int i = 0; i < shared->num_slots; i++)
			free_slots[i] = i;
	}
}

/* Caller holds the lock exclusively. */
static void
forget_entry(SampleEntry *entry)
{
	for (int i = 0; i < entry->num_slots; i++)
		free_slots[shared->num_free++] = entry->slots[i];
	hash_search(entries, &entry->key, HASH_REMOVE, NULL);
}

/* Make room: the statement not sampled for longest goes. */
static void
evict_one(const PerfoptQueryKey *keep)
{
	HASH_SEQ_STATUS seq;
	SampleEntry *entry;
	SampleEntry *oldest = NULL;

	hash_seq_init(&seq, entries);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (memcmp(&entry->key, keep, sizeof(*keep)) == 0)
			continue;
		if (oldest == NULL || entry->newest < oldest->newest)
			oldest = entry;
	}
	if (oldest)
	{
		shared->evicted += oldest->num_slots;
		forget_entry(oldest);
	}
}

/*
 * Cheap statements that update are sampled once, to know which columns they set, where there is
 * room to spare.
 */
static bool
wants_update(const PerfoptQueryKey *key)
{
	bool		wanted;

	LWLockAcquire(shared->lock, LW_SHARED);
	wanted = shared->num_free > shared->num_slots / 2 &&
		hash_search(entries, key, HASH_FIND, NULL) == NULL;
	LWLockRelease(shared->lock);
	return wanted;
}

static bool
updates_rows(const Query *query)
{
	return query->commandType == CMD_UPDATE || query->commandType == CMD_MERGE ||
		(query->commandType == CMD_INSERT && query->onConflict);
}

/* Stores what the caller has put together. */
static void
store_sample(const PlanSample *sample)
{
	SampleEntry *entry;
	int			slot = -1;
	bool		found;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	entry = hash_search(entries, &sample->key, HASH_FIND, &found);
	if (entry && entry->num_slots == SAMPLE_SETS)
	{
		/* the oldest sample of the statement gives way */
		slot = entry->slots[0];
		for (int i = 1; i < entry->num_slots; i++)
			if (slots[entry->slots[i]].captured_at < slots[slot].captured_at)
				slot = entry->slots[i];
	}
	else
	{
		if (shared->num_free == 0)
			evict_one(&sample->key);
		if (shared->num_free > 0)
		{
			if (entry == NULL)
				entry = hash_search(entries, &sample->key, HASH_ENTER_NULL, &found);
			if (entry)
			{
				if (!found)
				{
					entry->condemned = false;
					entry->num_slots = 0;
				}
				slot = free_slots[--shared->num_free];
				entry->slots[entry->num_slots++] = slot;
			}
		}
	}
	if (slot >= 0)
	{
		memcpy(&slots[slot], sample,
			   offsetof(PlanSample, data) + sample->tree_size + sample->params_size);
		entry->newest = sample->captured_at;
		shared->stored++;
	}
	LWLockRelease(shared->lock);
}

/*
 * What can be sampled
 */
typedef struct ShapeContext
{
	int			nodes;
	int			num_rels;
	int			num_read;		/* relations that are not just inserted into */
	Oid			rels[SAMPLE_MAX_RELS];
	bool		too_large;
} ShapeContext;

/* Can this relation be in a sample? */
static bool
relation_sampled(Oid relid)
{
	HeapTuple	tuple;
	Form_pg_class form;
	bool		good;

	if (relid < FirstNormalObjectId)
		return false;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_class) GETSTRUCT(tuple);

	/*
	 * Views are in the range table too, already expanded.  Planning over a
	 * foreign table may talk to another server, so those stay out.
	 */
	good = form->relpersistence != RELPERSISTENCE_TEMP &&
		(form->relkind == RELKIND_RELATION ||
		 form->relkind == RELKIND_PARTITIONED_TABLE ||
		 form->relkind == RELKIND_MATVIEW ||
		 form->relkind == RELKIND_VIEW);
	ReleaseSysCache(tuple);
	return good;
}

/*
 * Does a value of this type mean the same to another process, and later?  A row
 * does not: its columns are told by its type, which may have been altered by
 * then, or, if it has no name, is known to the process that made it only.
 */
static bool
value_keeps(Oid type)
{
	Oid			element = get_element_type(type);

	if (OidIsValid(element))
		return value_keeps(element);
	switch (get_typtype(type))
	{
		case TYPTYPE_BASE:
		case TYPTYPE_ENUM:
			return true;
		case TYPTYPE_DOMAIN:
			return value_keeps(getBaseType(type));
		case TYPTYPE_RANGE:
			return value_keeps(get_range_subtype(type));
		case TYPTYPE_MULTIRANGE:
			return value_keeps(get_multirange_range(type));
		case TYPTYPE_PSEUDO:
			return type == UNKNOWNOID || type == CSTRINGOID;
		default:
			return false;
	}
}

/* True: the statement can't be sampled. */
static bool
shape_walker(Node *node, ShapeContext *context)
{
	if (node == NULL)
		return false;
	if (++context->nodes > MAX_NODES)
	{
		context->too_large = true;
		return true;
	}
	if (IsA(node, Const))
	{
		Const	   *con = (Const *) node;

		if (con->constisnull)
			return false;
		if (con->constlen < 0 &&
			(con->constlen == -1 ? toast_raw_datum_size(con->constvalue) :
			 strlen(DatumGetCString(con->constvalue))) > SAMPLE_DATA_SIZE)
		{
			context->too_large = true;
			return true;
		}
		return !value_keeps(con->consttype);
	}
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (OidIsValid(rte->relid) && rte->rtekind != RTE_FUNCTION)
		{
			if (!relation_sampled(rte->relid))
				return true;
			if (context->num_rels == SAMPLE_MAX_RELS)
			{
				context->too_large = true;
				return true;
			}
			context->rels[context->num_rels++] = rte->relid;
			if (rte->rtekind == RTE_RELATION && rte->relkind != RELKIND_VIEW)
				context->num_read++;
		}
		return false;			/* the caller descends into it */
	}
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		if (query->commandType == CMD_UTILITY)
			return true;
		if (query->commandType == CMD_INSERT)
			context->num_read--;
		return query_tree_walker(query, shape_walker, context,
								 QTW_EXAMINE_RTES_BEFORE);
	}
	return expression_tree_walker(node, shape_walker, context);
}

/*
 * Attribute types and dropped flags of a relation: a tree made for one shape
 * must not be planned against another.
 */
uint64
perfopt_relation_fingerprint(Relation relation)
{
	TupleDesc	desc = RelationGetDescr(relation);
	uint64		hash = hash_bytes_uint32_extended(desc->natts ^ (relation->rd_rel->relkind << 16), 0);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		hash = hash_bytes_uint32_extended(att->atttypid, hash);
		hash = hash_bytes_uint32_extended((uint32) att->atttypmod, hash);
		hash = hash_bytes_uint32_extended(att->attcollation, hash);
		hash = hash_bytes_uint32_extended(att->attisdropped, hash);
	}
	return hash;
}

/*
 * What is wanted
 */

/* Caller holds the lock exclusively. */
static void
discard_slot(SampleEntry *entry, int i)
{
	free_slots[shared->num_free++] = entry->slots[i];
	entry->slots[i] = entry->slots[--entry->num_slots];
	if (entry->num_slots == 0)
		hash_search(entries, &entry->key, HASH_REMOVE, NULL);
}

/* A table of the sample that the statement does not have now; or InvalidOid. */
static Oid
other_table(const PlanSample *sample, const ShapeContext *shape)
{
	for (int i = 0; i < sample->num_rels; i++)
	{
		bool		found = false;

		for (int j = 0; j < shape->num_rels && !found; j++)
			found = sample->rels[i].relid == shape->rels[j];
		if (!found)
			return sample->rels[i].relid;
	}
	return InvalidOid;
}

static void
discard_captured(const PerfoptQueryKey *key, TimestampTz captured_at)
{
	SampleEntry *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	entry = hash_search(entries, key, HASH_FIND, NULL);
	for (int i = 0; entry && i < entry->num_slots; i++)
	{
		if (slots[entry->slots[i]].captured_at != captured_at)
			continue;
		discard_slot(entry, i);
		break;
	}
	LWLockRelease(shared->lock);
}

/*
 * From 18 on statements are told apart by the names of their tables, so those over
 * a table that was made anew meet the samples of the one before.
 */
static void
discard_dropped(const PerfoptQueryKey *key, const ShapeContext *shape)
{
	Oid			others[SAMPLE_SETS] = {0};
	TimestampTz captured_at[SAMPLE_SETS];
	SampleEntry *entry;

	LWLockAcquire(shared->lock, LW_SHARED);
	entry = hash_search(entries, key, HASH_FIND, NULL);
	for (int i = 0; entry && i < entry->num_slots; i++)
	{
		others[i] = other_table(&slots[entry->slots[i]], shape);
		captured_at[i] = slots[entry->slots[i]].captured_at;
	}
	LWLockRelease(shared->lock);
	for (int i = 0; i < SAMPLE_SETS; i++)
		if (OidIsValid(others[i]) && !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(others[i])))
			discard_captured(key, captured_at[i]);
}

static bool
wants_sample(const PerfoptQueryKey *key, TimestampTz now, const ShapeContext *shape)
{
	SampleEntry *entry;
	bool		wanted = true;

	discard_dropped(key, shape);

	LWLockAcquire(shared->lock, LW_SHARED);
	entry = hash_search(entries, key, HASH_FIND, NULL);
	if (entry && entry->condemned)
		wanted = false;
	else if (entry && entry->num_slots == SAMPLE_SETS)
		wanted = entry->newest + SAMPLE_LIFE <= now;
	LWLockRelease(shared->lock);
	return wanted;
}

/*
 * Serialize the parameters' values behind the tree.  Values that are not known
 * yet (a PL/pgSQL variable without a value) stay unknown: the planner then
 * estimates without them, as it did for the statement itself.  So do those that
 * can't be kept.
 */
static bool
serialize_params(PlanSample *sample, ParamListInfo params)
{
	ParamListInfo flat;
	char	   *start;
	Size		space;

	sample->params_size = 0;
	if (params == NULL || params->numParams <= 0)
		return true;

	flat = makeParamList(params->numParams);
	for (int i = 0; i < params->numParams; i++)
	{
		ParamExternData buffer;
		ParamExternData *value = &params->params[i];

		if (params->paramFetch)
			value = params->paramFetch(params, i + 1, true, &buffer);
		if (OidIsValid(value->ptype) && !value_keeps(value->ptype))
		{
			memset(&flat->params[i], 0, sizeof(ParamExternData));
			continue;
		}
		flat->params[i] = *value;
		if (value->ptype == INTERNALOID)
			return false;		/* a pointer into this process */
		if (OidIsValid(value->ptype) && !value->isnull &&
			get_typlen(value->ptype) == -1)
		{
			struct varlena *datum = (struct varlena *) DatumGetPointer(value->value);

			/* what it points to may be gone when the sample is used */
			if (VARATT_IS_EXTERNAL_ONDISK(datum) || VARATT_IS_EXTERNAL_INDIRECT(datum))
				return false;
		}
	}
	space = EstimateParamListSpace(flat);
	if (space > SAMPLE_DATA_SIZE - sample->tree_size)
		return false;
	start = sample->data + sample->tree_size;
	SerializeParamList(flat, &start);
	sample->params_size = start - (sample->data + sample->tree_size);
	pfree(flat);
	return true;
}

/* What is set by updates keeps some indexes from being worth their price. */
static void
note_columns_set(PlanSample *sample, Query *parse)
{
	List	   *targets = perfopt_update_targets(parse);
	ListCell   *lc;

	sample->updated = InvalidOid;
	sample->num_set = 0;
	if (targets == NIL)
		return;
	sample->updated = rt_fetch(parse->resultRelation, parse->rtable)->relid;
	foreach(lc, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk || sample->num_set < 0)
			continue;
		if (sample->num_set == SAMPLE_MAX_SET)
			sample->num_set = -1;
		else
			sample->set[sample->num_set++] = target->resno;
	}
}

/*
 * Put a sample together, before planning.  False: too large.
 */
static bool
build_sample(PlanSample *sample, const PerfoptQueryKey *key, TimestampTz now,
			 Query *parse, ParamListInfo params, const ShapeContext *shape)
{
	char	   *tree = nodeToString(parse);
	int32		compressed;
	bool		fits = false;
	static char *buffer = NULL;

	sample->key = *key;
	sample->captured_at = now;
	sample->num_rels = shape->num_rels;
	for (int i = 0; i < shape->num_rels; i++)
	{
		Relation	relation = relation_open(shape->rels[i], NoLock);

		sample->rels[i].relid = shape->rels[i];
		sample->rels[i].fingerprint = perfopt_relation_fingerprint(relation);
		relation_close(relation, NoLock);
	}

	note_columns_set(sample, parse);
	sample->tree_raw_size = strlen(tree) + 1;
	if (sample->tree_raw_size <= 32 * SAMPLE_DATA_SIZE)
	{
		if (buffer == NULL)
			buffer = MemoryContextAlloc(TopMemoryContext,
										PGLZ_MAX_OUTPUT(32 * SAMPLE_DATA_SIZE));
		compressed = pglz_compress(tree, sample->tree_raw_size, buffer,
								   PGLZ_strategy_always);
		if (compressed >= 0 && compressed <= SAMPLE_DATA_SIZE)
		{
			sample->tree_size = compressed;
			memcpy(sample->data, buffer, compressed);
			fits = true;
		}
	}
	pfree(tree);
	return fits && serialize_params(sample, params);
}

bool
perfopt_plan_sample_make(const PerfoptQueryKey *key, Query *query,
						 ParamListInfo params, PlanSample *sample)
{
	ShapeContext shape = {0};

	return !shape_walker((Node *) query, &shape) && shape.num_read > 0 &&
		build_sample(sample, key, GetCurrentTimestamp(), query, params, &shape);
}

/*
 * The hook
 */
static bool
in_perfopt_process(void)
{
	static int	answer = -1;

	if (answer < 0)
		answer = IsParallelWorker() ||
			(MyBgworkerEntry && strcmp(MyBgworkerEntry->bgw_library_name, "perfopt") == 0);
	return answer != 0;
}

static VerdictEntry *
verdict_slot(uint64 queryid, Oid role, uint32 tables)
{
	return &verdicts[(queryid ^ (queryid >> 32) ^ role ^ tables) & (NUM_VERDICTS - 1)];
}

static uint32
hash_tables(const Query *query)
{
	uint32		hash = 0;
	ListCell   *lc;

	foreach(lc, query->rtable)
		hash = (hash ^ ((const RangeTblEntry *) lfirst(lc))->relid) * 0x9e3779b1;
	return hash ^ (hash >> 16);
}

static void
set_verdict(VerdictEntry *entry, const PerfoptQueryKey *key, Verdict verdict,
			TimestampTz until)
{
	entry->verdict = verdict;
	entry->until = until;
}

/*
 * Before planning: take a sample if one is wanted.  Returns it, or NULL.  The
 * entry's verdict is VERDICT_CHEAP then if the plan shall have the last word.
 */
static PlanSample *
take_sample(VerdictEntry *entry, const PerfoptQueryKey *key, TimestampTz now,
			Query *parse, ParamListInfo params)
{
	ShapeContext shape = {0};
	PerfoptQueryCost cost;
	PlanSample *sample;

	/*
	 * Only what the monitor counts has a weight in the advisor's eyes; so a
	 * statement is first sampled when it is planned the second time.
	 */
	if (!perfopt_query_cost(key, &cost))
	{
		bool		give_up = ++entry->uncounted >= UNCOUNTED_TRIES;

		set_verdict(entry, key, give_up ? VERDICT_NOTHING_TO_DO : VERDICT_NONE,
					now + VERDICT_LIFE_UNCOUNTED);
		return NULL;
	}
	if (cost.total_ms < cost.calls * CHEAP_MS &&
		!(updates_rows(parse) && wants_update(key)))
	{
		set_verdict(entry, key, VERDICT_CHEAP, 0);
		return NULL;
	}
	if (shape_walker((Node *) parse, &shape) || shape.num_read <= 0 ||
		!wants_sample(key, now, &shape))
	{
		if (shape.too_large)
		{
			LWLockAcquire(shared->lock, LW_EXCLUSIVE);
			shared->too_large++;
			LWLockRelease(shared->lock);
		}
		set_verdict(entry, key, VERDICT_NOTHING_TO_DO, now + VERDICT_LIFE);
		return NULL;
	}

	sample = palloc(sizeof(PlanSample));
	if (!build_sample(sample, key, now, parse, params, &shape))
	{
		pfree(sample);
		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		shared->too_large++;
		LWLockRelease(shared->lock);
		set_verdict(entry, key, VERDICT_NOTHING_TO_DO, now + VERDICT_LIFE);
		return NULL;
	}
	return sample;
}

static PlannedStmt *
samples_planner(PERFOPT_PLANNER_ARGS)
{
	PlannedStmt *plan;
	PlanSample *sample = NULL;
	VerdictEntry *entry = NULL;
	PerfoptQueryKey key;
	TimestampTz now = 0;
	uint32		tables;
	bool		parse_is_update = updates_rows(parse);

	if (perfopt_advisor_enabled && perfopt_track != PERFOPT_TRACK_NONE &&
		parse->queryId != 0 && shared != NULL && !in_perfopt_process())
	{
		key.database = MyDatabaseId;
		key.role = GetUserId();
		key.queryid = (uint64) parse->queryId;
		now = PERFOPT_SAMPLED_AT(GetCurrentStatementStartTimestamp());
		tables = hash_tables(parse);
		entry = verdict_slot(key.queryid, key.role, tables);

		if (entry->queryid != key.queryid || entry->role != key.role || entry->tables != tables)
		{
			memset(entry, 0, sizeof(*entry));
			entry->queryid = key.queryid;
			entry->role = key.role;
			entry->tables = tables;
		}
		if (entry->verdict != VERDICT_NONE && now < entry->until)
			entry = NULL;		/* the usual case */
		else if (entry->verdict != VERDICT_CHEAP)
		{
			sample = take_sample(entry, &key, now, parse, boundParams);
			if (sample == NULL && entry->verdict != VERDICT_CHEAP)
				entry = NULL;
		}
	}

	if (prev_planner_hook)
		plan = prev_planner_hook(PERFOPT_PLANNER_PASS);
	else
		plan = standard_planner(PERFOPT_PLANNER_PASS);

	if (entry)
	{
		bool		cheap = plan->planTree->total_cost < CHEAP_COST;

		if (sample && cheap && parse_is_update && wants_update(&key))
			store_sample(sample);
		if (cheap)
			set_verdict(entry, &key, VERDICT_CHEAP, now + VERDICT_LIFE);
		else
		{
			/* not cheap any more, or still in want of samples */
			set_verdict(entry, &key, VERDICT_NONE, 0);
			if (sample)
			{
				store_sample(sample);
				if (++entry->stored == SAMPLE_SETS)
				{
					set_verdict(entry, &key, VERDICT_NOTHING_TO_DO, now + VERDICT_LIFE);
					entry->stored = 0;
				}
			}
		}
	}
	if (sample)
		pfree(sample);
	return plan;
}

void
perfopt_plan_samples_init(void)
{
	static const PerfoptShmemPart part = {
		.name = "plan_samples",
		.num_locks = 1,
		.area_size = samples_size,
		.extra_size = samples_extra_size,
		.init = samples_attach
	};

	perfopt_shmem_register(&part);
	prev_planner_hook = planner_hook;
	planner_hook = samples_planner;
}

/*
 * Reading
 */
int
perfopt_plan_sample_keys(Oid database, PerfoptQueryKey **keys)
{
	HASH_SEQ_STATUS seq;
	SampleEntry *entry;
	int			count = 0;

	*keys = palloc(sizeof(PerfoptQueryKey) * num_slots());
	LWLockAcquire(shared->lock, LW_SHARED);
	hash_seq_init(&seq, entries);
	while ((entry = hash_seq_search(&seq)) != NULL)
		if (entry->key.database == database)
			(*keys)[count++] = entry->key;
	LWLockRelease(shared->lock);
	return count;
}

bool
perfopt_plan_sample_get(const PerfoptQueryKey *key, int i, PlanSample *sample)
{
	SampleEntry *entry;
	bool		found = false;

	LWLockAcquire(shared->lock, LW_SHARED);
	entry = hash_search(entries, key, HASH_FIND, NULL);
	if (entry && !entry->condemned && i < entry->num_slots)
	{
		const PlanSample *slot = &slots[entry->slots[i]];

		memcpy(sample, slot,
			   offsetof(PlanSample, data) + slot->tree_size + slot->params_size);
		found = true;
	}
	LWLockRelease(shared->lock);
	return found;
}

void
perfopt_plan_sample_discard(const PlanSample *sample)
{
	discard_captured(&sample->key, sample->captured_at);
}

void
perfopt_plan_sample_condemn(const PerfoptQueryKey *key)
{
	SampleEntry *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	entry = hash_search(entries, key, HASH_FIND, NULL);
	if (entry)
		entry->condemned = true;
	LWLockRelease(shared->lock);
}

Query *
perfopt_plan_sample_query(const PlanSample *sample)
{
	char	   *text = palloc(sample->tree_raw_size);
	Query	   *query;

	if (pglz_decompress(sample->data, sample->tree_size, text,
						sample->tree_raw_size, true) != sample->tree_raw_size)
		elog(ERROR, "plan sample is damaged");
	query = castNode(Query, stringToNode(text));
	pfree(text);
	return query;
}

ParamListInfo
perfopt_plan_sample_params(const PlanSample *sample)
{
	char	   *start = (char *) sample->data + sample->tree_size;

	if (sample->params_size == 0)
		return makeParamList(0);
	return RestoreParamList(&start);
}

PG_FUNCTION_INFO_V1(perfopt_plan_sample_counts);

/* plan_sample_counts(): one row. */
Datum
perfopt_plan_sample_counts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[5];
	bool		nulls[5] = {0};

	perfopt_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	LWLockAcquire(shared->lock, LW_SHARED);
	values[0] = Int32GetDatum(shared->num_slots);
	values[1] = Int32GetDatum(shared->num_slots - shared->num_free);
	values[2] = Int64GetDatum(shared->stored);
	values[3] = Int64GetDatum(shared->too_large);
	values[4] = Int64GetDatum(shared->evicted);
	LWLockRelease(shared->lock);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}
