/*
 * tracking.c
 *		Which tables have the trigger that marks what is written (marking.c).
 *
 * A table's own trigger is called perfopt_cache.  That of a partitioned table
 * has another name, because the server gives each partition a copy of it: a
 * table tracked before it is attached keeps its own beside the copy, and still
 * has it when it is detached.
 *
 * The trigger goes with the extension, and pg_dump dumps it with its table.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "common/compat.h"
#include "common/shmem.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#define PARTITIONED_TRIGGER_NAME	CACHE_TRIGGER_NAME "_partitions"

PG_FUNCTION_INFO_V1(perfopt_cache_key_columns);
PG_FUNCTION_INFO_V1(perfopt_cache_track);
PG_FUNCTION_INFO_V1(perfopt_cache_untrack);
PG_FUNCTION_INFO_V1(perfopt_cache_invalidate);

/* ---------------------------------------------------------------------
 * Which tables have it
 */

Oid
cache_mark_function(void)
{
	Oid			schema = get_namespace_oid("perfopt", true);
	oidvector  *no_arguments = buildoidvector(NULL, 0);
	Oid			function;

	function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
							   CStringGetDatum("cache_mark"),
							   PointerGetDatum(no_arguments), ObjectIdGetDatum(schema));
	pfree(no_arguments);
	return function;
}

/* Does the trigger see every row that is written? */
static bool
marks_all_rows(const Trigger *trigger, Oid function)
{
	return trigger->tgfoid == function &&
		trigger->tgenabled == TRIGGER_FIRES_ALWAYS &&
		TRIGGER_FOR_ROW(trigger->tgtype) && TRIGGER_FOR_AFTER(trigger->tgtype) &&
		TRIGGER_FOR_INSERT(trigger->tgtype) && TRIGGER_FOR_UPDATE(trigger->tgtype) &&
		TRIGGER_FOR_DELETE(trigger->tgtype) &&
		trigger->tgqual == NULL && trigger->tgnattr == 0 &&
		!trigger->tgdeferrable;
}

/* Ordinary and partitioned tables, but not the server's own, nor temporary ones. */
static bool
can_have_trigger(Relation relation)
{
	return (relation->rd_rel->relkind == RELKIND_RELATION ||
			relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE) &&
		relation->rd_rel->relpersistence != RELPERSISTENCE_TEMP &&
		RelationGetRelid(relation) >= FirstNormalObjectId;
}

static bool
is_tracked(Relation relation, Oid function)
{
	if (relation->trigdesc == NULL)
		return false;
	for (int i = 0; i < relation->trigdesc->numtriggers; i++)
		if (marks_all_rows(&relation->trigdesc->triggers[i], function))
			return true;
	return false;
}

bool
cache_relation_is_tracked(Oid relid)
{
	Oid			function = cache_mark_function();
	Relation	relation = RelationIdGetRelation(relid);
	bool		tracked = false;

	if (relation == NULL)
		return false;
	switch (relation->rd_rel->relkind)
	{
		case RELKIND_VIEW:		/* without rows of its own */
			tracked = true;
			break;
		case RELKIND_MATVIEW:	/* see dependencies.c for its refresh */
			tracked = RelationGetRelid(relation) >= FirstNormalObjectId;
			break;
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			tracked = OidIsValid(function) && can_have_trigger(relation) &&
				is_tracked(relation, function);
			break;
	}
	RelationClose(relation);
	return tracked;
}

bool
cache_relation_tracks_key(Oid relid, AttrNumber attnum)
{
	Oid			function = cache_mark_function();
	Relation	relation;
	bool		found = false;

	if (!OidIsValid(function) || (relation = RelationIdGetRelation(relid)) == NULL)
		return false;
	if (relation->trigdesc && cache_column_can_be_key(relation, attnum))
	{
		const char *name = NameStr(TupleDescAttr(RelationGetDescr(relation),
												 attnum - 1)->attname);

		for (int i = 0; i < relation->trigdesc->numtriggers && !found; i++)
		{
			Trigger    *trigger = &relation->trigdesc->triggers[i];

			if (!marks_all_rows(trigger, function))
				continue;
			for (int j = 0; j < trigger->tgnargs && !found; j++)
				found = strcmp(trigger->tgargs[j], name) == 0;
		}
	}
	RelationClose(relation);
	return found;
}

void
cache_raise_untracked(Oid relid)
{
	List	   *ancestors = get_rel_relispartition(relid) ? get_partition_ancestors(relid) : NIL;
	Oid			target = ancestors ? llast_oid(ancestors) : relid;
	Relation	relation = RelationIdGetRelation(relid);
	bool		possible = relation && can_have_trigger(relation);
	char	   *name = relation ? pstrdup(RelationGetRelationName(relation)) : "?";
	char	   *schema = get_namespace_name(get_rel_namespace(target));
	char	   *target_name = get_rel_name(target);

	if (relation)
		RelationClose(relation);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" is not tracked for the result cache", name),
			 possible && schema && target_name ?
			 errhint("Its owner can run: SELECT perfopt.cache_track(%s)",
					 quote_literal_cstr(quote_qualified_identifier(schema, target_name))) :
			 errdetail("Only ordinary and partitioned tables can be tracked, and neither temporary tables nor system catalogs.")));
}

/* ---------------------------------------------------------------------
 * Giving and taking it
 */

/* Names of the columns by which a table's rows are usually looked up. */
static List *
default_key_columns(Relation relation)
{
	Bitmapset  *attnums = NULL;
	Bitmapset  *primary = RelationGetIndexAttrBitmap(relation, INDEX_ATTR_BITMAP_PRIMARY_KEY);
	List	   *names = NIL;
	int			member = -1;
	ListCell   *lc;

	if (bms_membership(primary) == BMS_SINGLETON)
		attnums = bms_copy(primary);
	foreach(lc, RelationGetFKeyList(relation))
	{
		ForeignKeyCacheInfo *fkey = lfirst(lc);

		if (fkey->nkeys == 1)
			attnums = bms_add_member(attnums,
									 fkey->conkey[0] - FirstLowInvalidHeapAttributeNumber);
	}
	while ((member = bms_next_member(attnums, member)) >= 0 &&
		   list_length(names) < CACHE_MAX_KEY_COLUMNS)
	{
		AttrNumber	attnum = member + FirstLowInvalidHeapAttributeNumber;

		if (cache_column_can_be_key(relation, attnum))
			names = lappend(names,
							makeString(pstrdup(NameStr(TupleDescAttr(RelationGetDescr(relation),
																	 attnum - 1)->attname))));
	}
	return names;
}

/* Those of name[], checked. */
static List *
given_key_columns(Relation relation, ArrayType *array)
{
	Datum	   *values;
	bool	   *nulls;
	int			num;
	List	   *names = NIL;

	deconstruct_array(array, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &values, &nulls, &num);
	for (int i = 0; i < num; i++)
	{
		AttrNumber	attnum;
		char	   *name;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("key columns must not be null")));
		name = pstrdup(NameStr(*DatumGetName(values[i])));
		attnum = get_attnum(RelationGetRelid(relation), name);
		if (attnum == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist",
							name, RelationGetRelationName(relation))));
		if (!cache_column_can_be_key(relation, attnum))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("column \"%s\" cannot be a key column", name),
					 errdetail("It is a virtual generated column, or its type cannot be hashed.")));
		names = list_append_unique(names, makeString(name));
	}
	if (list_length(names) > CACHE_MAX_KEY_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("a table can have at most %d key columns", CACHE_MAX_KEY_COLUMNS)));
	return names;
}

static bool
same_columns(const Trigger *trigger, List *columns)
{
	if (trigger->tgnargs != list_length(columns))
		return false;
	for (int i = 0; i < trigger->tgnargs; i++)
		if (strcmp(trigger->tgargs[i], strVal(list_nth(columns, i))) != 0)
			return false;
	return true;
}

static const char *
trigger_name(Relation relation)
{
	return relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ?
		PARTITIONED_TRIGGER_NAME : CACHE_TRIGGER_NAME;
}

/* Has the table a trigger of that name that is none of ours? */
static bool
name_is_taken(Relation relation, Oid function)
{
	for (int i = 0; relation->trigdesc && i < relation->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &relation->trigdesc->triggers[i];

		if (trigger->tgfoid != function && strcmp(trigger->tgname, trigger_name(relation)) == 0)
			return true;
	}
	return false;
}

/* OIDs of the table's own triggers of ours: not what its parent gave it. */
static List *
own_triggers(Relation relation, Oid function)
{
	List	   *own = NIL;

	for (int i = 0; relation->trigdesc && i < relation->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &relation->trigdesc->triggers[i];

		if (trigger->tgfoid == function && !trigger->tgisclone)
			own = lappend_oid(own, trigger->tgoid);
	}
	return own;
}

static void
drop_triggers(List *triggers)
{
	ListCell   *lc;

	foreach(lc, triggers)
	{
		ObjectAddress address;

		ObjectAddressSet(address, TriggerRelationId, lfirst_oid(lc));
		performDeletion(&address, DROP_RESTRICT, 0);
	}
	CommandCounterIncrement();
}

/* Somebody may have disabled the copy of one of them. */
static bool
partitions_are_tracked(Relation relation)
{
	ListCell   *lc;

	if (relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return true;
	foreach(lc, find_all_inheritors(RelationGetRelid(relation), NoLock, NULL))
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_RELATION &&
			!cache_relation_is_tracked(lfirst_oid(lc)))
			return false;
	}
	return true;
}

/* The caller holds ShareRowExclusiveLock, and has checked everything. */
static void
track_one(Oid relid, List *columns)
{
	Oid			function = cache_mark_function();
	Relation	relation = relation_open(relid, NoLock);
	CreateTrigStmt *stmt;
	ObjectAddress trigger;
	ObjectAddress extension;
	List	   *old;

	for (int i = 0; relation->trigdesc && i < relation->trigdesc->numtriggers; i++)
	{
		if (marks_all_rows(&relation->trigdesc->triggers[i], function) &&
			same_columns(&relation->trigdesc->triggers[i], columns) &&
			partitions_are_tracked(relation))
		{
			relation_close(relation, NoLock);
			return;
		}
	}
	if (name_is_taken(relation, function))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("trigger \"%s\" for relation \"%s\" already exists, and is another one",
						trigger_name(relation), RelationGetRelationName(relation))));
	old = own_triggers(relation, function);

	stmt = makeNode(CreateTrigStmt);
	stmt->trigname = pstrdup(trigger_name(relation));
	stmt->args = columns;
	stmt->row = true;
	stmt->timing = TRIGGER_TYPE_AFTER;
	stmt->events = TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE;
	relation_close(relation, NoLock);

	if (old)
		drop_triggers(old);
	trigger = CreateTriggerFiringOn(stmt, NULL, relid, InvalidOid, InvalidOid, InvalidOid,
									function, InvalidOid, NULL, false, false,
									TRIGGER_FIRES_ALWAYS);
	ObjectAddressSet(extension, ExtensionRelationId, get_extension_oid("perfopt", false));
	recordDependencyOn(&trigger, &extension, DEPENDENCY_AUTO_EXTENSION);
	CommandCounterIncrement();
}

static void
require_owner(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (!perfopt_table_ownercheck(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)), name);
}

/* Lock the table and those that inherit from it; the caller must own them. */
static List *
lock_owned(Oid relid, LOCKMODE lockmode)
{
	List	   *relids;
	ListCell   *lc;

	require_owner(relid);
	LockRelationOid(relid, lockmode);
	require_owner(relid);		/* it may have changed meanwhile */

	/* the server takes care of partitions */
	if (get_rel_relkind(relid) != RELKIND_RELATION)
		return list_make1_oid(relid);
	relids = find_all_inheritors(relid, lockmode, NULL);
	foreach(lc, relids)
		require_owner(lfirst_oid(lc));
	return relids;
}

Datum
perfopt_cache_track(PG_FUNCTION_ARGS)
{
	Oid			relid;
	Relation	relation;
	List	   *relids;
	List	   *columns;
	ListCell   *lc;

	perfopt_require_preload();
	if (PG_ARGISNULL(0))
		PG_RETURN_VOID();
	relid = PG_GETARG_OID(0);
	PreventCommandIfReadOnly("perfopt.cache_track()");
	PreventCommandIfParallelMode("perfopt.cache_track()");
	PreventCommandDuringRecovery("perfopt.cache_track()");

	relids = lock_owned(relid, ShareRowExclusiveLock);
	relation = relation_open(relid, NoLock);
	if (relation->rd_rel->relkind == RELKIND_MATVIEW)
	{
		relation_close(relation, NoLock);
		ereport(NOTICE,
				(errmsg("materialized views are tracked without a trigger")));
		PG_RETURN_VOID();
	}
	if (!can_have_trigger(relation))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation \"%s\" cannot be tracked for the result cache",
						RelationGetRelationName(relation)),
				 errdetail("Only ordinary and partitioned tables can be tracked, and neither temporary tables nor system catalogs."),
				 relation->rd_rel->relkind == RELKIND_VIEW ?
				 errhint("Track the tables that the view reads.") : 0));
	columns = PG_ARGISNULL(1) ? default_key_columns(relation) :
		given_key_columns(relation, PG_GETARG_ARRAYTYPE_P(1));
	relation_close(relation, NoLock);

	foreach(lc, relids)
	{
		if (get_rel_relkind(lfirst_oid(lc)) != RELKIND_FOREIGN_TABLE)
			track_one(lfirst_oid(lc), columns);
	}
	PG_RETURN_VOID();
}

Datum
perfopt_cache_untrack(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Oid			function = cache_mark_function();
	bool		found = false;
	bool		inherited;
	Relation	relation;
	ListCell   *lc;

	perfopt_require_preload();
	PreventCommandIfReadOnly("perfopt.cache_untrack()");
	PreventCommandIfParallelMode("perfopt.cache_untrack()");
	PreventCommandDuringRecovery("perfopt.cache_untrack()");

	foreach(lc, lock_owned(relid, AccessExclusiveLock))
	{
		List	   *own;

		relation = relation_open(lfirst_oid(lc), NoLock);
		own = own_triggers(relation, function);
		relation_close(relation, NoLock);
		if (own)
		{
			drop_triggers(own);
			found = true;
		}
	}

	relation = relation_open(relid, NoLock);
	inherited = OidIsValid(function) && is_tracked(relation, function);
	if (inherited)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is tracked together with the partitioned table it belongs to",
						RelationGetRelationName(relation)),
				 errhint("Untrack the partitioned table.")));
	if (!found)
		ereport(NOTICE,
				(errmsg("table \"%s\" is not tracked for the result cache",
						RelationGetRelationName(relation))));
	relation_close(relation, NoLock);
	PG_RETURN_VOID();
}

/*
 * Lock all, or none.  What is not locked conditionally here would be waited
 * for when partitions get their copies.
 */
static bool
lock_without_waiting(List *relids)
{
	ListCell   *lc;
	ListCell   *locked;

	foreach(lc, relids)
	{
		if (ConditionalLockRelationOid(lfirst_oid(lc), ShareRowExclusiveLock))
			continue;
		foreach(locked, relids)
		{
			if (lfirst_oid(locked) == lfirst_oid(lc))
				return false;
			UnlockRelationOid(lfirst_oid(locked), ShareRowExclusiveLock);
		}
	}
	return true;
}

/* Nothing forbids the current role to create the trigger. */
static bool
may_track(Oid relid)
{
	return perfopt_table_ownercheck(relid, GetUserId()) &&
		pg_class_aclcheck(relid, GetUserId(), ACL_TRIGGER) == ACLCHECK_OK;
}

bool
cache_track_if_owner(Oid relid)
{
	Oid			function = cache_mark_function();
	Oid			target = relid;
	List	   *relids;
	List	   *columns;
	Relation	relation;
	ListCell   *lc;

	if (!OidIsValid(function) || XactReadOnly || IsInParallelMode() ||
		RecoveryInProgress() || InSecurityRestrictedOperation())
		return false;

	if (get_rel_relispartition(relid))
	{
		List	   *ancestors = get_partition_ancestors(relid);

		if (ancestors && may_track(llast_oid(ancestors)))
			target = llast_oid(ancestors);
	}
	if (!may_track(target))
		return false;
	relids = find_all_inheritors(target, NoLock, NULL);
	if (!lock_without_waiting(relids))
		return false;

	/* with the locks, things are as they stay */
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(target)))
		return false;
	relation = relation_open(target, NoLock);
	columns = default_key_columns(relation);
	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		relids = list_make1_oid(target);	/* its partitions follow */
	relation_close(relation, NoLock);
	foreach(lc, relids)
	{
		bool		possible;

		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(lfirst_oid(lc))) ||
			!may_track(lfirst_oid(lc)))
			continue;
		relation = relation_open(lfirst_oid(lc), NoLock);
		possible = can_have_trigger(relation) && !name_is_taken(relation, function) &&
			!is_tracked(relation, function);
		relation_close(relation, NoLock);
		if (possible)
			track_one(lfirst_oid(lc), columns);
	}
	return cache_relation_is_tracked(relid);
}

/* The arguments of a trigger, as pg_trigger keeps them, as name[]. */
Datum
perfopt_cache_key_columns(PG_FUNCTION_ARGS)
{
	bytea	   *arguments = PG_GETARG_BYTEA_PP(0);
	const char *next = VARDATA_ANY(arguments);
	const char *end = next + VARSIZE_ANY_EXHDR(arguments);
	ArrayBuildState *names = initArrayResult(NAMEOID, CurrentMemoryContext, false);
	const char *terminator;

	while ((terminator = memchr(next, '\0', end - next)) != NULL)
	{
		accumArrayResult(names, DirectFunctionCall1(namein, CStringGetDatum(next)), false,
						 NAMEOID, CurrentMemoryContext);
		next = terminator + 1;
	}
	return makeArrayResult(names, CurrentMemoryContext);
}

Datum
perfopt_cache_invalidate(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	char	   *name = get_rel_name(relid);
	ListCell   *lc;

	perfopt_require_preload();
	PreventCommandDuringRecovery("perfopt.cache_invalidate()");
	PreventCommandIfParallelMode("perfopt.cache_invalidate()");
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(relid)), name);

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
		cache_definition_mark_relation(lfirst_oid(lc));
	PG_RETURN_VOID();
}
