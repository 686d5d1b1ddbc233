/*
 * marking.c
 *		Marks the rows that are written: the trigger, and a shorter way to it.
 *
 * perfopt.cache_mark() is an AFTER ROW trigger, ENABLE ALWAYS so that logical
 * replication and session_replication_role do not pass it by.  Its arguments
 * name key columns; by those, a write of one key leaves results about other
 * keys alone.  Whatever it cannot tell (a column renamed, a type that cannot be
 * hashed, many keys in one transaction) is a write of all keys.
 *
 * Most of what a trigger costs is its queue: each row is noted, and fetched
 * again at the end of the statement.  A trigger's WHEN condition is evaluated
 * before that, with the rows at hand.  So when a statement starts, the
 * executor's own copy of the trigger gets a condition that marks the row and is
 * false.  Where no statement of the executor does the writing (COPY, logical
 * replication, rows routed to partitions), or somebody has renamed the trigger,
 * it is queued and called as any other.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "common/compat.h"
#include "common/shmem.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* A transaction that writes more keys of a table than this writes all of them. */
#define MAX_KEYS_WRITTEN	64

/* A key column: what hashes it stays where it is while this process lives. */
typedef struct KeyColumn
{
	AttrNumber	attnum;
	Oid			collation;
	TypeCacheEntry *type;
} KeyColumn;

/* What this backend knows of a trigger that has fired in it. */
typedef struct FiredTrigger
{
	Oid			trigger;		/* hash key */
	Oid			relid;
	bool		valid;			/* or to be looked up again */
	bool		all_keys_only;	/* it cannot tell keys apart */
	CacheRing	table_ring;
	CacheRing	all_keys_ring;
	int			num_keys;
	KeyColumn	keys[CACHE_MAX_KEY_COLUMNS];
	TransactionId xid;			/* that has written ... */
	int			keys_written;	/* so many keys */
	ExprState	condition;		/* that marks a row, and is false */
} FiredTrigger;

static HTAB *fired_triggers = NULL;
static FiredTrigger *last_fired = NULL;
static Oid	mark_function = InvalidOid; /* if known */

static Datum mark_instead(ExprState *condition, ExprContext *context, bool *isnull);

PG_FUNCTION_INFO_V1(perfopt_cache_mark);

/* Is it stored, and of a type that can be hashed?  Then fill key. */
static bool
resolve_key(Relation relation, AttrNumber attnum, KeyColumn *key)
{
	Form_pg_attribute att;

	if (attnum <= 0 || attnum > RelationGetDescr(relation)->natts)
		return false;
	att = TupleDescAttr(RelationGetDescr(relation), attnum - 1);
	if (att->attisdropped ||
		(att->attgenerated != '\0' && att->attgenerated != ATTRIBUTE_GENERATED_STORED))
		return false;
	key->attnum = attnum;
	key->collation = att->attcollation;
	key->type = lookup_type_cache(att->atttypid, TYPECACHE_HASH_PROC_FINFO);
	return OidIsValid(key->type->hash_proc_finfo.fn_oid);
}

bool
cache_column_can_be_key(Relation relation, AttrNumber attnum)
{
	KeyColumn	key;

	return resolve_key(relation, attnum, &key);
}

static void
forget_fired(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS scan;
	FiredTrigger *fired;

	hash_seq_init(&scan, fired_triggers);
	while ((fired = hash_seq_search(&scan)) != NULL)
		if (!OidIsValid(relid) || fired->relid == relid)
			fired->valid = false;
}

/* A default operator class may have come or gone, or our function. */
static void
forget_all_fired(Datum arg, int cacheid, uint32 hashvalue)
{
	mark_function = InvalidOid;
	forget_fired(arg, InvalidOid);
}

static void
resolve_fired(FiredTrigger *fired, Relation relation, const Trigger *trigger)
{
	fired->valid = true;		/* unless we hear otherwise meanwhile */
	fired->relid = RelationGetRelid(relation);
	fired->table_ring = cache_ring_of_relation(fired->relid);
	fired->all_keys_ring = cache_ring_of_all_keys(fired->relid);
	/* until all are known: the catalogs may raise errors, as on a cancel */
	fired->all_keys_only = true;
	fired->num_keys = 0;
	if (trigger->tgnargs > CACHE_MAX_KEY_COLUMNS)
		return;
	for (int i = 0; i < trigger->tgnargs; i++)
	{
		if (!resolve_key(relation, get_attnum(fired->relid, trigger->tgargs[i]),
						 &fired->keys[i]))
			return;
		fired->num_keys++;
	}
	fired->all_keys_only = false;
}

static void
prepare_fired(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(FiredTrigger)};

	if (likely(fired_triggers))
		return;
	fired_triggers = hash_create("perfopt cache triggers", 32, &ctl, HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(forget_fired, (Datum) 0);
	CacheRegisterSyscacheCallback(CLAOID, forget_all_fired, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, forget_all_fired, (Datum) 0);
}

static FiredTrigger *
fired_trigger(Relation relation, const Trigger *trigger)
{
	FiredTrigger *fired = last_fired;
	bool		found;

	if (likely(fired && fired->trigger == trigger->tgoid && fired->valid))
		return fired;
	prepare_fired();
	fired = hash_search(fired_triggers, &trigger->tgoid, HASH_ENTER, &found);
	if (!found)
	{
		fired->valid = false;
		fired->relid = InvalidOid;
		fired->xid = InvalidTransactionId;
		memset(&fired->condition, 0, sizeof(ExprState));
		fired->condition.type = T_ExprState;
		fired->condition.flags = EEO_FLAG_IS_QUAL;
		fired->condition.evalfunc = mark_instead;
		fired->condition.evalfunc_private = fired;
	}
	if (!fired->valid)
		resolve_fired(fired, relation, trigger);
	last_fired = fired;
	return fired;
}

static void
mark_key(FiredTrigger *fired, const KeyColumn *key, Datum value)
{
	CacheRing	ring;

	ring = cache_ring_of_key(fired->relid, key->attnum,
							 DatumGetUInt32(FunctionCall1Coll(&key->type->hash_proc_finfo,
															  key->collation, value)));
	if (cache_ring_marked(ring))
		return;
	if (fired->xid != GetTopTransactionIdIfAny())
	{
		fired->xid = GetTopTransactionIdIfAny();
		fired->keys_written = 0;
	}
	if (fired->keys_written++ < MAX_KEYS_WRITTEN)
		cache_ring_mark(ring);
	else
		cache_ring_mark(fired->all_keys_ring);
}

/* NULL has no ring, as nothing equals it. */
static void
mark_keys(FiredTrigger *fired, const KeyColumn *key,
		  TupleTableSlot *before, TupleTableSlot *after)
{
	bool		no_old = true;
	bool		no_new = true;
	Datum		old_value = before ? slot_getattr(before, key->attnum, &no_old) : (Datum) 0;
	Datum		new_value = after ? slot_getattr(after, key->attnum, &no_new) : (Datum) 0;

	if (!no_old)
		mark_key(fired, key, old_value);
	if (!no_new && (no_old || !key->type->typbyval || new_value != old_value))
		mark_key(fired, key, new_value);
}

/* The rows before and after the change, or NULL. */
static void
mark_row(FiredTrigger *fired, TupleTableSlot *before, TupleTableSlot *after)
{
	cache_ring_mark(fired->table_ring);
	if (fired->all_keys_only)
		cache_ring_mark(fired->all_keys_ring);
	for (int i = 0; i < fired->num_keys; i++)
	{
		if (cache_ring_marked(fired->all_keys_ring))
			break;
		mark_keys(fired, &fired->keys[i], before, after);
	}
}

Datum
perfopt_cache_mark(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired AFTER ROW", "perfopt.cache_mark")));
	if (perfopt_shmem_ready())
		mark_row(fired_trigger(data->tg_relation, data->tg_trigger), data->tg_trigslot,
				 TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newslot : NULL);
	return PointerGetDatum(NULL);
}

/* ---------------------------------------------------------------------
 * The shorter way
 */

/* As a WHEN condition: is the trigger to be queued? */
static Datum
mark_instead(ExprState *condition, ExprContext *context, bool *isnull)
{
	FiredTrigger *fired = condition->evalfunc_private;

	*isnull = false;
	if (!fired->valid)			/* the table has changed since the start */
		return BoolGetDatum(true);
	mark_row(fired, context->ecxt_innertuple, context->ecxt_outertuple);
	return BoolGetDatum(false);
}

/* Is it ours, with all rows to be marked?  The name spares others the look-up. */
static bool
is_marking(const Trigger *trigger)
{
	if (strncmp(trigger->tgname, CACHE_TRIGGER_NAME, strlen(CACHE_TRIGGER_NAME)) != 0 ||
		trigger->tgqual != NULL ||
		!TRIGGER_FOR_AFTER(trigger->tgtype) || !TRIGGER_FOR_ROW(trigger->tgtype))
		return false;
	prepare_fired();
	if (!OidIsValid(mark_function))
		mark_function = cache_mark_function();
	return trigger->tgfoid == mark_function;
}

/* The server looks only whether there is one, as it has been prepared. */
static char evaluated[] = "perfopt";

void
cache_mark_without_queue(EState *estate)
{
	ListCell   *lc;

	if (!perfopt_shmem_ready())
		return;
	foreach(lc, estate->es_opened_result_relations)
	{
		ResultRelInfo *relation = lfirst(lc);
		TriggerDesc *triggers = relation->ri_TrigDesc;	/* a copy of its own */

		for (int i = 0; triggers && i < triggers->numtriggers; i++)
		{
			Trigger    *trigger = &triggers->triggers[i];

			if (!is_marking(trigger))
				continue;
			relation->ri_TrigWhenExprs[i] =
				&fired_trigger(relation->ri_RelationDesc, trigger)->condition;
			trigger->tgqual = evaluated;
		}
	}
}
