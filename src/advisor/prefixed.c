/*
 * prefixed.c
 *		Candidates whose columns are put in another order, so that they begin as
 *		an index does that exists, and make it superfluous.
 *
 * Columns that meet equalities may come in any order.  Which of a candidate's do
 * is not told here: whether another order is as good is seen by its price.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/relation.h"
#include "catalog/pg_am.h"
#include "nodes/makefuncs.h"
#include "utils/rel.h"

/* The candidate's key that is this one, not used yet; or -1. */
static int
find_key(const IndexSpec *spec, const IndexColumn *column, const bool *used)
{
	for (int i = 0; i < spec->num_keys; i++)
		if (!used[i] && column->attnum != 0 && spec->columns[i].attnum == column->attnum &&
			spec->columns[i].opclass == column->opclass &&
			spec->columns[i].collation == column->collation)
			return i;
	return -1;
}

static bool
append_key(IndexSpec *made, const IndexColumn *column)
{
	Node	   *key = column->expr ? column->expr :
	(Node *) makeVar(1, column->attnum, column->type, column->typmod, column->collation, 0);

	return perfopt_index_spec_add_key(made, key, column->opclass, column->collation,
									  column->options) == NULL;
}

/* NULL: it does not have the other's keys, or begins with them anyway. */
static IndexSpec *
begun_as(const IndexSpec *spec, const IndexSpec *existing)
{
	bool		used[INDEX_MAX_KEYS] = {0};
	IndexSpec  *made;

	if (spec->am != BTREE_AM_OID || existing->am != BTREE_AM_OID ||
		existing->num_keys >= spec->num_keys || existing->num_columns > existing->num_keys ||
		!equal(spec->predicate, existing->predicate) ||
		perfopt_index_spec_serves(spec, existing))
		return NULL;
	made = perfopt_index_spec_create(spec->relid, spec->am);
	for (int i = 0; i < existing->num_keys; i++)
	{
		int			key = find_key(spec, &existing->columns[i], used);

		if (key < 0 || !append_key(made, &existing->columns[i]))
			return NULL;
		used[key] = true;
	}
	for (int i = 0; i < spec->num_keys; i++)
		if (!used[i] && !append_key(made, &spec->columns[i]))
			return NULL;
	for (int i = spec->num_keys; i < spec->num_columns; i++)
		if (perfopt_index_spec_add_included(made, spec->columns[i].attnum))
			return NULL;
	perfopt_index_spec_pack_included(made);
	made->predicate = spec->predicate;
	made->fillfactor = spec->fillfactor;
	made->order_only = spec->order_only;
	made->any_direction = spec->any_direction;
	made->of_constants = spec->of_constants;
	return made;
}

static bool
is_among(List *specs, const IndexSpec *spec)
{
	ListCell   *lc;

	foreach(lc, specs)
		if (perfopt_index_spec_equal(lfirst(lc), spec))
		return true;
	return false;
}

/* Of one table. */
static List *
add_of_table(List *candidates, List *specs, Relation relation)
{
	List	   *indexes = RelationGetIndexList(relation);
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, indexes)
	{
		IndexSpec  *existing = perfopt_is_only_access_path(lfirst_oid(lc)) ?
		perfopt_index_spec_of_index(lfirst_oid(lc)) : NULL;

		if (existing == NULL)
			continue;
		foreach(lc2, specs)
		{
			const IndexSpec *spec = lfirst(lc2);
			IndexSpec  *made = spec->relid == RelationGetRelid(relation) ?
			begun_as(spec, existing) : NULL;

			if (made && !is_among(candidates, made))
				candidates = lappend(candidates, made);
		}
	}
	list_free(indexes);
	return candidates;
}

List *
perfopt_candidates_prefixed(List *specs)
{
	List	   *candidates = list_copy(specs);
	List	   *seen = NIL;
	ListCell   *lc;

	foreach(lc, specs)
	{
		const IndexSpec *spec = lfirst(lc);
		Relation	relation;

		if (spec->num_keys < 2 || list_member_oid(seen, spec->relid))
			continue;
		seen = lappend_oid(seen, spec->relid);
		relation = perfopt_index_spec_open(spec);
		if (relation == NULL)
			continue;
		candidates = add_of_table(candidates, specs, relation);
		relation_close(relation, AccessShareLock);
	}
	return candidates;
}
