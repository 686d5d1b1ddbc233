/*
 * partitions.c
 *		An index of a partitioned table: what it is on a partition, and how large
 *		it would be in all.
 *
 * Such an index is one on each partition, whose columns may have other numbers
 * there.  Its size is the sum of theirs.  Only some partitions are sampled, as
 * there may be thousands of them; the others are taken to need as much for a
 * row as those on average (index_facts.c keeps to that, for pricing too).
 *
 * Partitions are locked for a moment, to be looked at, and only if that can be
 * had at once; those that can't be are taken to be like the others.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* More are not looked at one by one. */
#define MOST_LOOKED_AT		1000

typedef struct Mapping
{
	Oid			parent;
	Oid			partition;
	bool		failed;
} Mapping;

/* The partition's number of the parent's column, which has the same name. */
static AttrNumber
map_column(Mapping *mapping, AttrNumber attnum)
{
	char	   *name = get_attname(mapping->parent, attnum, true);
	AttrNumber	mapped = name ? get_attnum(mapping->partition, name) : InvalidAttrNumber;

	if (mapped <= 0)
		mapping->failed = true;
	return mapped;
}

static bool
map_walker(Node *node, Mapping *mapping)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		var->varattno = var->varattnosyn = map_column(mapping, var->varattno);
		return false;
	}
	return expression_tree_walker(node, map_walker, mapping);
}

/* NULL: the partition has no such columns. */
IndexSpec *
perfopt_index_spec_on_partition(const IndexSpec *spec, Oid partition)
{
	Mapping		mapping = {.parent = spec->relid,.partition = partition};
	IndexSpec  *mapped = palloc(sizeof(IndexSpec));

	*mapped = *spec;
	mapped->relid = partition;
	mapped->columns = palloc(sizeof(IndexColumn) * Max(spec->num_columns, 1));
	for (int i = 0; i < spec->num_columns; i++)
	{
		mapped->columns[i] = spec->columns[i];
		if (spec->columns[i].attnum != 0)
			mapped->columns[i].attnum = map_column(&mapping, spec->columns[i].attnum);
		mapped->columns[i].expr = copyObject(spec->columns[i].expr);
		(void) map_walker(mapped->columns[i].expr, &mapping);
	}
	mapped->predicate = copyObject(spec->predicate);
	(void) map_walker((Node *) mapped->predicate, &mapping);
	return mapping.failed ? NULL : mapped;
}

/*
 * What the index is on this relation, which is the spec's own, or a partition of
 * it at any depth (ancestors, of OIDs); otherwise NULL.
 */
const IndexSpec *
perfopt_index_spec_on(const IndexSpec *spec, Relation relation, List *ancestors)
{
	if (spec->relid != RelationGetRelid(relation))
	{
		if (!list_member_oid(ancestors, spec->relid))
			return NULL;
		spec = perfopt_index_spec_on_partition(spec, RelationGetRelid(relation));
	}
	return spec && perfopt_index_spec_fits(spec, relation) ? spec : NULL;
}

/* Adds the partition's part; false: it is locked, or gone. */
static bool
add_partition(Oid partition, const IndexSpec *spec, double *rows, IndexSize *size)
{
	Relation	relation;
	const IndexSpec *mapped;
	bool		added = false;

	if (!ConditionalLockRelationOid(partition, AccessShareLock))
		return false;
	relation = try_relation_open(partition, NoLock);
	if (relation == NULL)
	{
		UnlockRelationOid(partition, AccessShareLock);
		return false;
	}
	mapped = perfopt_index_spec_on(spec, relation, list_make1_oid(spec->relid));
	if (mapped)
	{
		double		table_rows = relation->rd_rel->reltuples;
		const IndexFacts *facts = perfopt_index_facts_on_partition(relation, table_rows, mapped,
																   spec);

		size->pages += facts->size.pages;
		size->tuples += facts->size.tuples;
		size->tree_height = Max(size->tree_height, facts->size.tree_height);
		size->possible = size->possible && facts->size.possible;
		size->row_entries = Max(size->row_entries, facts->size.row_entries);
		*rows += Max(table_rows, 0);
		added = true;
	}
	relation_close(relation, AccessShareLock);
	return added;
}

void
perfopt_partitioned_index_size(const IndexSpec *spec, double *table_rows, IndexSize *size)
{
	List	   *members = find_all_inheritors(spec->relid, NoLock, NULL);
	int			leaves = 0;
	int			added = 0;
	double		rows = 0;
	ListCell   *lc;

	memset(size, 0, sizeof(*size));
	size->possible = true;
	foreach(lc, members)
	{
		char		relkind = get_rel_relkind(lfirst_oid(lc));

		CHECK_FOR_INTERRUPTS();
		if (relkind != RELKIND_RELATION)
			continue;
		leaves++;
		if (leaves <= MOST_LOOKED_AT && add_partition(lfirst_oid(lc), spec, &rows, size))
			added++;
	}
	if (added > 0)
	{
		size->pages = size->pages * leaves / added;
		size->tuples = size->tuples * leaves / added;
		rows = rows * leaves / added;
	}
	if (*table_rows < 0)
		*table_rows = rows;
	list_free(members);
}
