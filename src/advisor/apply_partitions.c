/*
 * apply_partitions.c
 *		An index of a partitioned table, built without keeping anybody from
 *		writing for long.
 *
 * CREATE INDEX CONCURRENTLY does not do that for a partitioned table, so it is
 * done in many statements, each a job of its own:
 *
 *		CREATE INDEX i ON ONLY parent			which is invalid at first
 *		for each partition:
 *			CREATE INDEX CONCURRENTLY j ON partition
 *			ALTER INDEX i ATTACH PARTITION j	the last one makes i valid
 *
 * Which one is next is seen in the catalogs, and nothing else is remembered, so
 * it goes on after a restart wherever it was.  A partition that has such an index
 * already keeps it; it is attached last, as then there is no way back: it goes with
 * the parent's.  The names of those that are made contain the OIDs of the partition
 * and of the parent's index: an index of such a name is ours, and when something
 * fails, goes with it.
 *
 * The statements that are not CONCURRENTLY hold their locks for a moment only;
 * the job's lock_timeout keeps them from having others wait behind them.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/apply_internal.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* The work at one index. */
typedef struct Building
{
	const Applying *row;
	Oid			top;			/* the parent's index */
	bool		clean_up;
	bool		attach_others;	/* that were there before; ours all are */
} Building;

static char *
qualified(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

static char *
name_for(const Building *building, Oid partition)
{
	return makeObjectName(get_rel_name(partition), psprintf("%u_%u", partition, building->top), "idx");
}

static bool
is_valid(Oid index)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	bool		valid = HeapTupleIsValid(tuple) && ((Form_pg_index) GETSTRUCT(tuple))->indisvalid;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return valid;
}

/* Is anybody at work at an index of the table? */
static bool
is_busy(Oid relid)
{
	if (!ConditionalLockRelationOid(relid, ShareUpdateExclusiveLock))
		return true;
	UnlockRelationOid(relid, ShareUpdateExclusiveLock);
	return false;
}

/*
 * The partition's index that is attached to the parent's, the one that is ours,
 * and one that may be attached; InvalidOid each.
 */
static bool
find_indexes(const Building *building, Oid partition, Oid parent_index,
			 Oid *attached, Oid *ours, Oid *fitting)
{
	Relation	relation;
	List	   *indexes;
	ListCell   *lc;
	char	   *name = name_for(building, partition);

	*attached = *ours = *fitting = InvalidOid;
	if (!ConditionalLockRelationOid(partition, AccessShareLock))
		return false;
	relation = try_relation_open(partition, NoLock);
	if (relation == NULL)
		return false;
	indexes = RelationGetIndexList(relation);
	foreach(lc, indexes)
	{
		Oid			index = lfirst_oid(lc);
		const char *index_name = get_rel_name(index);
		IndexSpec  *spec;

		if (index_name == NULL)
			continue;
		if (get_rel_relispartition(index))
		{
			if (get_partition_parent(index, true) == parent_index)
				*attached = index;
			continue;
		}
		if (strcmp(index_name, name) == 0)
			*ours = index;
		else if ((spec = perfopt_index_spec_of_index(index)) != NULL &&
				 strcmp(perfopt_index_spec_definition(spec, relation), building->row->definition) == 0)
			*fitting = index;
	}
	relation_close(relation, AccessShareLock);
	return true;
}

/* What is next below this table, whose index is there and invalid? */
static StepLeft
look_below(const Building *building, Oid table, Oid index, char **statement)
{
	List	   *partitions = find_inheritance_children(table, NoLock);
	ListCell   *lc;

	check_stack_depth();
	foreach(lc, partitions)
	{
		Oid			partition = lfirst_oid(lc);
		bool		has_partitions = get_rel_relkind(partition) == RELKIND_PARTITIONED_TABLE;
		Oid			attached;
		Oid			ours;
		Oid			fitting;
		StepLeft	left;

		CHECK_FOR_INTERRUPTS();
		if (!find_indexes(building, partition, index, &attached, &ours, &fitting))
			return STEP_LEFT_UNKNOWN;
		if (OidIsValid(attached))
			continue;
		if (is_busy(partition))
			return STEP_LEFT_UNKNOWN;

		if (building->clean_up)
		{
			if (!OidIsValid(ours))
				continue;
			if (has_partitions)
			{
				left = look_below(building, partition, ours, statement);
				if (left != STEP_LEFT_NOTHING)
					return left;
			}
			*statement = psprintf("DROP INDEX %s%s", has_partitions ? "" : "CONCURRENTLY ", qualified(ours));
			return STEP_LEFT_INVALID;
		}
		if (OidIsValid(ours) && is_valid(ours))
			fitting = ours;
		else if (OidIsValid(fitting) && !building->attach_others)
			continue;
		if (OidIsValid(fitting))
			*statement = psprintf("ALTER INDEX %s ATTACH PARTITION %s",
								  qualified(index), qualified(fitting));
		else if (OidIsValid(ours) && has_partitions)
		{
			left = look_below(building, partition, ours, statement);
			if (left != STEP_LEFT_NOTHING)
				return left;
			continue;
		}
		else if (OidIsValid(ours))
			*statement = psprintf("DROP INDEX CONCURRENTLY %s", qualified(ours));
		else
			*statement = psprintf("CREATE INDEX %s%s ON %s%s %s",
								  has_partitions ? "" : "CONCURRENTLY ",
								  quote_identifier(name_for(building, partition)),
								  has_partitions ? "ONLY " : "",
								  qualified(partition), building->row->definition);
		return STEP_LEFT_NEXT;
	}
	return STEP_LEFT_NOTHING;
}

/*
 * index is the table's, or invalid when there is none yet.
 */
StepLeft
perfopt_partitions_look(const Applying *row, Oid table, Oid index, char **statement)
{
	Building	building = {.row = row,.top = index,.clean_up = row->error != NULL};
	StepLeft	left;

	if (OidIsValid(index) && is_valid(index))
		return STEP_LEFT_DONE;
	if (is_busy(table))
		return STEP_LEFT_UNKNOWN;
	if (row->will_retry)
		return STEP_LEFT_NOTHING;
	if (!OidIsValid(index))
	{
		if (building.clean_up)
			return STEP_LEFT_NOTHING;
		*statement = psprintf("CREATE INDEX %s ON ONLY %s %s", quote_identifier(row->index_name),
							  qualified(table), row->definition);
		return STEP_LEFT_NEXT;
	}
	left = look_below(&building, table, index, statement);
	if (left == STEP_LEFT_NOTHING && !building.clean_up)
	{
		building.attach_others = true;
		left = look_below(&building, table, index, statement);
	}
	if (left == STEP_LEFT_NOTHING)
	{
		*statement = psprintf("DROP INDEX %s", qualified(index));
		return STEP_LEFT_INVALID;
	}
	return left;
}

/* Why it can't be done, or NULL. */
const char *
perfopt_partitions_problem(Oid table)
{
	List	   *partitions = find_all_inheritors(table, NoLock, NULL);
	ListCell   *lc;

	foreach(lc, partitions)
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_FOREIGN_TABLE)
		return psprintf("partition %s is a foreign table", qualified(lfirst_oid(lc)));
	return NULL;
}
