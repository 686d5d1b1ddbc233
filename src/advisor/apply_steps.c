/*
 * apply_steps.c
 *		What is to be run for an advice, and what has become of it, as the
 *		catalogs tell.
 *
 * Each kind of advice is one step to apply, and one to revert:
 *
 *							to apply			to revert
 *		create_index		build its index		drop it
 *		index_foreign_key	the same
 *		drop_index			drop the index		build it
 *		reindex, analyze	run the statement	(never)
 *		create_statistics	run the statement	run the undo
 *
 * (An index of a partitioned table takes many statements: apply_partitions.c.)
 *
 * That an index is built can be seen by its being valid, that it is dropped by
 * its being gone; an index that is invalid was left by a build, or by a drop,
 * that was interrupted, and is to be dropped.  REINDEX CONCURRENTLY leaves
 * invalid indexes named ..._ccnew or ..._ccold.  Who does any of this holds
 * ShareUpdateExclusiveLock on the table throughout.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/apply_internal.h"

#include <sys/statvfs.h>

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "commands/defrem.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* A build needs room for sorting, too, and others need some. */
#define DISK_SPACE_FACTOR	2.5

typedef enum Step
{
	STEP_BUILD,
	STEP_DROP,
	STEP_RUN
} Step;

static bool
is_kind(const Applying *row, const char *kind)
{
	return strcmp(row->kind, kind) == 0;
}

static bool
is_new_index(const Applying *row)
{
	return is_kind(row, "create_index") || is_kind(row, "index_foreign_key");
}

static Step
step_of(const Applying *row)
{
	if (is_new_index(row))
		return row->reverting ? STEP_DROP : STEP_BUILD;
	if (is_kind(row, "drop_index"))
		return row->reverting ? STEP_BUILD : STEP_DROP;
	return STEP_RUN;
}

/* The index's name: what is dropped, or reindexed, is known by it. */
static const char *
target_name(const Applying *row)
{
	return is_new_index(row) ? row->index_name : row->definition;
}

static char *
drop_statement(const Applying *row, const char *index_name)
{
	Oid			table = perfopt_advice_table(row->schema_name, row->table_name);

	return psprintf("DROP INDEX %s%s",
					get_rel_relkind(table) == RELKIND_PARTITIONED_TABLE ? "" : "CONCURRENTLY ",
					quote_qualified_identifier(row->schema_name, index_name));
}

/* The index: InvalidOid when there is none of that name on that table. */
static Oid
find_index(Oid relid, const char *index_name, Form_pg_index form)
{
	Oid			index = index_name ? get_relname_relid(index_name, get_rel_namespace(relid)) : InvalidOid;
	HeapTuple	tuple;

	if (!OidIsValid(index))
		return InvalidOid;
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	memcpy(form, GETSTRUCT(tuple), offsetof(FormData_pg_index, indkey));
	ReleaseSysCache(tuple);
	return form->indrelid == relid ? index : InvalidOid;
}

/*
 * Is there room for it?  New indexes are taken to go where the database's
 * tables go by default.
 */
static const char *
lacks_disk_space(const Applying *row)
{
	struct statvfs fs;
	char	   *path = GetDatabasePath(MyDatabaseId, MyDatabaseTableSpace);
	double		available;

	if (statvfs(path, &fs) != 0)
		return NULL;
	available = (double) fs.f_bavail * fs.f_frsize;
	if (available >= row->bytes * DISK_SPACE_FACTOR)
		return NULL;
	return psprintf("not enough disk space: building an index of about %.0f MB takes %.0f MB, and %.0f MB are free",
					row->bytes / 1e6, row->bytes * DISK_SPACE_FACTOR / 1e6, available / 1e6);
}

static StepReady
prepare_new_build(Applying *row, Relation relation, bool resumes, char **statement,
				  const char **problem)
{
	bool		gone;
	IndexSpec  *spec = perfopt_advice_index_spec(relation, row->definition, &gone);
	FormData_pg_index form;
	Oid			index;

	if (gone)
	{
		*problem = "what the index is of is gone";
		return STEP_IMPOSSIBLE;
	}
	if (spec == NULL || !perfopt_advice_index_is_trusted(spec, relation))
	{
		*problem = "the definition has a type or a function that the table's owner need not trust";
		return STEP_IMPOSSIBLE;
	}
	if (spec->extension)
	{
		*problem = psprintf("extension \"%s\" must be created first", spec->extension);
		return STEP_IMPOSSIBLE;
	}
	spec->any_direction = true;
	if (perfopt_index_exists(relation, spec))
	{
		*problem = "there is such an index by now";
		perfopt_advice_adopt_index(relation, spec, &row->index_name, &row->undo);
		return STEP_DONE_ALREADY;
	}
	*problem = lacks_disk_space(row);
	if (*problem)
		return STEP_IMPOSSIBLE;
	if (!resumes)
		row->index_name = perfopt_index_spec_name(spec, relation);
	row->ddl = perfopt_index_ddl(row->index_name, row->schema_name, row->table_name,
								 row->definition);
	row->undo = drop_statement(row, row->index_name);
	*statement = row->ddl;
	if (relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return STEP_READY;

	*problem = perfopt_partitions_problem(RelationGetRelid(relation));
	if (*problem)
		return STEP_IMPOSSIBLE;
	row->ddl = perfopt_index_ddl_of_parent(row->index_name, row->schema_name, row->table_name,
										   row->definition);
	row->error = NULL;
	row->will_retry = false;
	index = find_index(RelationGetRelid(relation), row->index_name, &form);
	return perfopt_partitions_look(row, RelationGetRelid(relation), index, statement) == STEP_LEFT_NEXT ?
		STEP_READY : STEP_LOCKED;
}

/*
 * An index of a partitioned table goes on where it was when it had to wait for a
 * lock.
 */
static StepReady
prepare_build(Applying *row, Relation relation, char **statement, const char **problem)
{
	FormData_pg_index form;
	bool		resumes = row->will_retry && relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE &&
	OidIsValid(find_index(RelationGetRelid(relation), row->index_name, &form)) && !form.indisvalid;
	char	   *left = row->index_name;
	StepReady	ready = prepare_new_build(row, relation, resumes, statement, problem);

	if (!resumes || (ready != STEP_IMPOSSIBLE && ready != STEP_DONE_ALREADY))
		return ready;
	row->index_name = left;
	return STEP_GIVEN_UP;
}

/* An index that has got a purpose besides being fast stays. */
static StepReady
prepare_drop(Applying *row, Relation relation, char **statement, const char **problem)
{
	FormData_pg_index form;
	Oid			index = find_index(RelationGetRelid(relation), target_name(row), &form);
	const char *objection;

	if (!OidIsValid(index))
		return STEP_DONE_ALREADY;
	if (is_new_index(row) && form.indisvalid)
	{
		bool		gone;
		IndexSpec  *spec = perfopt_advice_index_spec(relation, row->definition, &gone);

		if (spec)
			spec->any_direction = true;
		if (spec == NULL || !perfopt_advice_is_index(index, spec))
		{
			*problem = psprintf("index \"%s\" is another one by now", target_name(row));
			return STEP_IMPOSSIBLE;
		}
	}
	if (form.indisunique || form.indisprimary || form.indisexclusion ||
		form.indisclustered || form.indisreplident)
	{
		*problem = psprintf("index \"%s\" is needed: it is unique, or used by CLUSTER or as a replica identity",
							target_name(row));
		return STEP_IMPOSSIBLE;
	}
	if (is_kind(row, "drop_index") &&
		(objection = perfopt_drop_objection(relation, index, target_name(row))) != NULL)
	{
		*problem = psprintf("index \"%s\" is needed: %s", target_name(row), objection);
		return STEP_IMPOSSIBLE;
	}
	/* it may have changed since it was advised */
	if (is_kind(row, "drop_index") && row->undo)
		row->undo = perfopt_undo_of_drop(index);
	*statement = drop_statement(row, target_name(row));
	return STEP_READY;
}

StepReady
perfopt_step_prepare(Applying *row, char **statement, const char **problem)
{
	IndexSpec	table = {.relid = perfopt_advice_table(row->schema_name, row->table_name)};
	Relation	relation;
	FormData_pg_index form;
	StepReady	ready = STEP_READY;

	if (!OidIsValid(table.relid))
	{
		*problem = "the table is gone";
		return STEP_IMPOSSIBLE;
	}
	relation = perfopt_index_spec_open(&table);
	if (relation == NULL)
		return STEP_LOCKED;
	switch (step_of(row))
	{
		case STEP_BUILD:
			if (is_new_index(row))
				ready = prepare_build(row, relation, statement, problem);
			else if (OidIsValid(find_index(table.relid, target_name(row), &form)))
				ready = STEP_DONE_ALREADY;
			else
				*statement = row->undo;
			break;
		case STEP_DROP:
			ready = prepare_drop(row, relation, statement, problem);
			break;
		case STEP_RUN:
			*statement = row->reverting ? row->undo : row->ddl;
			break;
	}
	relation_close(relation, AccessShareLock);
	return ready;
}

bool
perfopt_step_has_index(const Applying *row)
{
	Oid			relid = perfopt_advice_table(row->schema_name, row->table_name);
	FormData_pg_index form;

	return OidIsValid(relid) && OidIsValid(find_index(relid, target_name(row), &form));
}

/* Is that how REINDEX CONCURRENTLY names what it makes of the index? */
static bool
is_name_of_reindex(const char *name, const char *index_name)
{
	const char *label = strrchr(name, '_');

	return label && (strncmp(label, "_ccnew", 6) == 0 || strncmp(label, "_ccold", 6) == 0) &&
		strspn(label + 6, "0123456789") == strlen(label + 6) &&
		strcmp(name, makeObjectName(index_name, NULL, label + 1)) == 0;
}

/* An invalid index that REINDEX CONCURRENTLY has left of this one; or NULL. */
static const char *
left_by_reindex(Oid relid, const char *index_name)
{
	Relation	relation;
	List	   *indexes;
	ListCell   *lc;
	const char *found = NULL;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return NULL;
	relation = try_relation_open(relid, NoLock);
	if (relation == NULL)
		return NULL;
	indexes = RelationGetIndexList(relation);
	foreach(lc, indexes)
	{
		const char *name = get_rel_name(lfirst_oid(lc));
		FormData_pg_index form;

		if (name && is_name_of_reindex(name, index_name) &&
			OidIsValid(find_index(relid, name, &form)) && !form.indisvalid)
			found = name;
	}
	relation_close(relation, AccessShareLock);
	return found;
}

StepLeft
perfopt_step_look(const Applying *row, char **statement)
{
	Oid			relid = perfopt_advice_table(row->schema_name, row->table_name);
	Step		step = step_of(row);
	const char *name = target_name(row);
	FormData_pg_index form;
	bool		exists;

	if (!OidIsValid(relid))
		return STEP_LEFT_NOTHING;

	/* the last step of a build is to be valid, that of a drop to be gone */
	exists = OidIsValid(find_index(relid, name, &form));
	if ((step == STEP_BUILD && exists && form.indisvalid) || (step == STEP_DROP && !exists))
		return STEP_LEFT_DONE;

	if (step == STEP_BUILD && get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		return perfopt_partitions_look(row, relid, exists ? get_relname_relid(name, get_rel_namespace(relid)) :
									   InvalidOid, statement);

	/*
	 * An index build holds this lock throughout, in whatever process.  So do
	 * others, such as vacuum; then it is looked at again soon.
	 */
	if (!ConditionalLockRelationOid(relid, ShareUpdateExclusiveLock))
		return STEP_LEFT_UNKNOWN;
	exists = OidIsValid(find_index(relid, name, &form));
	UnlockRelationOid(relid, ShareUpdateExclusiveLock);

	switch (step)
	{
		case STEP_BUILD:
			if (!exists)
				return STEP_LEFT_NOTHING;
			if (form.indisvalid)
				return STEP_LEFT_DONE;
			*statement = drop_statement(row, name);
			return STEP_LEFT_INVALID;
		case STEP_DROP:
			if (!exists)
				return STEP_LEFT_DONE;
			if (form.indisvalid)
				return STEP_LEFT_NOTHING;
			*statement = drop_statement(row, name);
			return STEP_LEFT_INVALID;
		case STEP_RUN:
			if (is_kind(row, "reindex") && (name = left_by_reindex(relid, name)) != NULL)
			{
				*statement = drop_statement(row, name);
				return STEP_LEFT_INVALID;
			}
			if (is_kind(row, "create_statistics") && row->index_name &&
				OidIsValid(get_statistics_object_oid(list_make2(makeString(row->schema_name),
																makeString(row->index_name)), true)) != row->reverting)
				return STEP_LEFT_DONE;
			break;
	}
	return STEP_LEFT_NOTHING;
}
