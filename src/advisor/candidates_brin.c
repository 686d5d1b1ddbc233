/*
 * candidates_brin.c
 *		BRIN indexes for ranges of columns whose values rise or fall along a large
 *		table.
 *
 * Such an index is tiny, and finds ranges of 128 pages.  So it comes into question
 * where a statement reads several of these anyway; a btree would save little more
 * then.  How well values follow the table is told by the statistics' correlation.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/candidates.h"

#include <math.h>

#include "access/brin.h"
#include "catalog/pg_am.h"
#include "catalog/pg_statistic.h"
#include "commands/defrem.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"
#include "utils/selfuncs.h"

/* Tables with fewer pages are small. */
#define LARGE_PAGES			4096

/* Values that do not follow the table so well make ranges overlap. */
#define LEAST_CORRELATION	0.95

/* Ranges that a statement reads at least, and the most of the table. */
#define LEAST_RANGES		2
#define MOST_OF_TABLE		0.5

static double
correlation_of(const RelationUses *uses, Node *expr)
{
	VariableStatData vardata;
	AttStatsSlot slot;
	double		correlation = 0;

	expr = copyObject(expr);
	if (uses->rel->relid != 1)
		ChangeVarNodes(expr, 1, uses->rel->relid, 0);
	examine_variable(uses->root, expr, 0, &vardata);
	if (HeapTupleIsValid(vardata.statsTuple) && vardata.acl_ok &&
		get_attstatsslot(&slot, vardata.statsTuple, STATISTIC_KIND_CORRELATION, InvalidOid,
						 ATTSTATSSLOT_NUMBERS))
	{
		if (slot.nnumbers > 0)
			correlation = fabs(slot.numbers[0]);
		free_attstatsslot(&slot);
	}
	ReleaseVariableStats(vardata);
	return correlation;
}

static void
make_spec(const RelationUses *uses, const IndexUse *use, CandidateList *candidates)
{
	MemoryContext old_context = MemoryContextSwitchTo(candidates->context);
	IndexSpec  *spec = perfopt_index_spec_create(uses->relid, BRIN_AM_OID);

	if (perfopt_index_spec_add_key(spec, copyObject(use->expr), InvalidOid, use->collation,
								   0) == NULL)
	{
		spec->columns = repalloc(spec->columns, sizeof(IndexColumn));
		spec->any_direction = true;
		spec->of_constants = use->of_constants;
		(void) perfopt_candidates_add(candidates, spec);
	}
	else
	{
		pfree(spec->columns);
		pfree(spec);
	}
	MemoryContextSwitchTo(old_context);
}

void
perfopt_candidates_brin(const RelationUses *uses, CandidateList *candidates)
{
	ListCell   *lc;

	if (uses->pages < LARGE_PAGES)
		return;
	foreach(lc, uses->uses)
	{
		IndexUse   *use = lfirst(lc);

		/*
		 * the clause of a range from and to is none, that of IS NOT NULL
		 * another
		 */
		if (use->kind != USE_RANGE || use->others || use->more ||
			(use->clause && !IsA(use->clause->clause, OpExpr)) ||
			use->selectivity > MOST_OF_TABLE ||
			use->selectivity * uses->pages < LEAST_RANGES * BRIN_DEFAULT_PAGES_PER_RANGE ||
			correlation_of(uses, use->expr) < LEAST_CORRELATION)
			continue;
		make_spec(uses, use, candidates);
	}
}
