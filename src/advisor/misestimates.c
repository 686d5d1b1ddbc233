/*
 * misestimates.c
 *		Statements of which the planner expects wrong numbers of rows.
 *
 * Sampled statements that take perfopt.advice_min_share of the time are planned
 * once more; what the planner expects of each table, by the conditions on it
 * alone, is compared with what a sample of its rows tells.  Wrong is what is off
 * by WRONG even if the sample is as unlucky as it may be, and matters when
 * MIN_ROWS rows are expected, or there.  What would mend it is found by
 * estimate_remedies.c.
 *
 * Partitioned tables, too: their statistics over all partitions are used for
 * joins and groups, and autovacuum never makes any.
 */
#include "postgres.h"

#include "advisor/survey_internal.h"

#include "access/relation.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/settings.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "rewrite/rewriteManip.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#define WRONG			10.0
#define MIN_ROWS		1000.0

/* Smaller tables are read in no time, however it is done. */
#define MIN_PAGES		10

/* Relations of a statement, and conditions on one, that are looked at. */
#define MAX_RELATIONS	16
#define MAX_CLAUSES		8

/* A partitioned table with fewer rows is left alone. */
#define MIN_PARTITIONED_ROWS	"10000"

/* What the observer is at. */
static SurveyStatement *observed = NULL;
static MemoryContext observed_context = NULL;
static List *estimates = NIL;	/* Estimate * */

static bool
refers_elsewhere(Node *node, void *relid)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varno != *(Index *) relid || ((Var *) node)->varlevelsup != 0 ||
			((Var *) node)->varattno <= 0;
	if (IsA(node, Param) || IsA(node, PlaceHolderVar))
		return true;
	return expression_tree_walker(node, refers_elsewhere, relid);
}

static void
observe(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte)
{
	List	   *used = NIL;		/* RestrictInfo * */
	Estimate   *estimate;
	char		relkind;
	ListCell   *lc;
	MemoryContext old_context;

	if ((rel->reloptkind != RELOPT_BASEREL && rel->reloptkind != RELOPT_OTHER_MEMBER_REL) ||
		rte->rtekind != RTE_RELATION || rte->inh || rte->tablesample ||
		rte->relid < FirstNormalObjectId || rel->pages < MIN_PAGES ||
		list_length(estimates) >= MAX_RELATIONS)
		return;
	relkind = get_rel_relkind(rte->relid);
	if ((relkind != RELKIND_RELATION && relkind != RELKIND_MATVIEW) ||
		get_rel_persistence(rte->relid) == RELPERSISTENCE_TEMP)
		return;
	foreach(lc, rel->baserestrictinfo)
	{
		RestrictInfo *info = lfirst_node(RestrictInfo, lc);
		Index		relid = rel->relid;

		if (!info->pseudoconstant && list_length(used) < MAX_CLAUSES &&
			!refers_elsewhere((Node *) info->clause, &relid) &&
			perfopt_expression_is_trusted((Node *) info->clause, InvalidOid))
			used = lappend(used, info);
	}
	if (used == NIL)
		return;

	old_context = MemoryContextSwitchTo(observed_context);
	estimate = palloc0(sizeof(Estimate));
	estimate->statement = observed;
	estimate->relid = rte->relid;
	estimate->table_rows = rel->tuples;
	estimate->selectivity = palloc(sizeof(double) * list_length(used));
	foreach(lc, used)
	{
		Node	   *clause = copyObject((Node *) lfirst_node(RestrictInfo, lc)->clause);

		ChangeVarNodes(clause, rel->relid, 1, 0);
		estimate->clauses = lappend(estimate->clauses, clause);
	}
	MemoryContextSwitchTo(old_context);
	foreach(lc, used)
		estimate->selectivity[foreach_current_index(lc)] =
		clause_selectivity(root, lfirst(lc), 0, JOIN_INNER, NULL);
	estimate->rows = Max(rel->tuples, 0) *
		clauselist_selectivity(root, used, 0, JOIN_INNER, NULL);
	old_context = MemoryContextSwitchTo(observed_context);
	estimates = lappend(estimates, estimate);
	MemoryContextSwitchTo(old_context);
}

static bool
plan_observed(const PlanSample *sample)
{
	Cost		cost;
	volatile bool priced = false;

	estimates = NIL;
	perfopt_what_if_observer = observe;
	PG_TRY();
	{
		priced = perfopt_what_if_cost(sample, NIL, NIL, &cost, NULL);
	}
	PG_FINALLY();
	{
		perfopt_what_if_observer = NULL;
	}
	PG_END_TRY();
	return priced;
}

/* What the planner expects of the statement's tables. */
static List *
estimates_of(SurveyStatement *statement)
{
	List	   *all = NIL;

	observed = statement;
	observed_context = CurrentMemoryContext;
	for (int i = 0; i < statement->num_samples; i++)
		if (plan_observed(statement->samples[i]))
			all = list_concat(all, estimates);
	return all;
}

/* By how much the estimate is wrong; 1: it may be right, or does not matter. */
static double
wrong_by(const Estimate *estimate, const RowCounts *counts)
{
	double		least = survey_rows_at_least(counts, counts->meet_all);
	double		most = survey_rows_at_most(counts, counts->meet_all);

	if (least >= MIN_ROWS && least > estimate->rows)
		return least / Max(estimate->rows, 1);
	if (estimate->rows >= MIN_ROWS && estimate->rows > most)
		return estimate->rows / Max(most, 1);
	return 1;
}

static bool
is_same(const AdviceFound *a, const AdviceFound *b)
{
	return strcmp(a->kind, b->kind) == 0 && strcmp(a->schema_name, b->schema_name) == 0 &&
		strcmp(a->table_name, b->table_name) == 0 && strcmp(a->definition, b->definition) == 0;
}

/* The heaviest statement comes first, and it is the one that is told. */
static void
add(List **found, AdviceFound *advice)
{
	ListCell   *lc;

	foreach(lc, *found)
		if (is_same(lfirst(lc), advice))
		return;
	*found = lappend(*found, advice);
}

static void
tell(AdviceFound *advice, const Estimate *estimate, const RowCounts *counts)
{
	double		actual = counts->table_rows * counts->meet_all / counts->looked_at;
	StringInfoData evidence;
	StringInfoData reason;
	SurveyStatement *statement = estimate->statement;

	initStringInfo(&reason);
	appendStringInfo(&reason,
					 "A statement that takes %s a call and %.0f %% of the statement time is planned for %.0f rows of %s where there are about %.0f. %s",
					 perfopt_readable_ms(statement->cost.total_ms / statement->cost.calls), statement->share * 100,
					 Max(estimate->rows, 1), quote_qualified_identifier(advice->schema_name, advice->table_name),
					 actual, advice->reason);
	advice->reason = reason.data;
	initStringInfo(&evidence);
	appendStringInfo(&evidence, "{\"estimated_rows\": %.0f, \"actual_rows\": %.0f, \"rows_sampled\": %d%s%s, ",
					 Max(estimate->rows, 1), actual, counts->looked_at,
					 advice->evidence ? ", " : "", advice->evidence ? advice->evidence : "");
	survey_append_queries(&evidence, list_make1(statement));
	appendStringInfoChar(&evidence, '}');
	advice->evidence = evidence.data;
}

/* False: the table is locked, or was not read. */
static bool
check(Survey *survey, const Estimate *estimate, List **found)
{
	Relation	relation;
	RowCounts	counts;

	if (!ConditionalLockRelationOid(estimate->relid, AccessShareLock))
		return false;
	relation = try_relation_open(estimate->relid, NoLock);
	if (relation == NULL)
	{
		UnlockRelationOid(estimate->relid, AccessShareLock);
		return true;
	}
	if (survey_count_rows(relation, estimate->clauses, &counts) &&
		wrong_by(estimate, &counts) >= WRONG)
	{
		AdviceFound *advice = survey_remedy(estimate, &counts, relation);

		if (advice)
		{
			tell(advice, estimate, &counts);
			add(found, advice);
		}
	}
	relation_close(relation, AccessShareLock);
	return true;
}

/*
 * Partitioned tables
 */
static const char *const find_partitioned =
"SELECT t.oid, n.nspname::text AS schema_name, t.relname::text AS table_name, p.rows"
" FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace"
" CROSS JOIN LATERAL (SELECT sum(greatest(c.reltuples, 0))::float8 AS rows"
"  FROM pg_partition_tree(t.oid) l JOIN pg_class c ON c.oid = l.relid WHERE l.isleaf) p"
" WHERE t.relkind = 'p' AND t.relpersistence <> 't' AND p.rows >= " MIN_PARTITIONED_ROWS
" AND NOT EXISTS (SELECT FROM pg_statistic s WHERE s.starelid = t.oid AND s.stainherit)";

/* Would statistics over all partitions tell the planner more? */
static bool
combines(SurveyStatement *statement)
{
	Query	   *query = perfopt_plan_sample_query(statement->samples[0]);

	return statement->samples[0]->num_rels > 1 || query->groupClause || query->distinctClause ||
		query->sortClause;
}

static void
find_unanalyzed_parents(Survey *survey, List **found)
{
	SurveyRows *rows = survey_query(find_partitioned, 0, NULL, NULL, NULL);

	for (int i = 0; i < rows->num; i++)
	{
		List	   *statements = NIL;
		AdviceFound *advice;
		StringInfoData evidence;
		const char *name;

		for (int s = 0; s < survey->num_statements; s++)
		{
			SurveyStatement *statement = &survey->statements[s];

			if (statement->share >= perfopt_advice_min_share &&
				survey_statement_reads(statement, survey_oid(rows, i, "oid")) && combines(statement))
				statements = lappend(statements, statement);
		}
		if (statements == NIL)
			continue;
		advice = survey_found("analyze", survey_text(rows, i, "schema_name"), survey_text(rows, i, "table_name"));
		name = quote_qualified_identifier(advice->schema_name, advice->table_name);
		advice->definition = "";
		advice->ddl = psprintf("ANALYZE %s", name);
		advice->reason =
			psprintf("Partitioned table %s (%.0f rows) has never been analyzed, which autovacuum does not do: its partitions have statistics, but the planner guesses where it joins, groups or sorts all of them, as %d sampled statement%s.",
					 name, survey_number(rows, i, "rows"), list_length(statements),
					 list_length(statements) == 1 ? " does" : "s do");
		initStringInfo(&evidence);
		appendStringInfo(&evidence, "{\"cause\": \"partitioned\", \"rows\": %.0f, ", survey_number(rows, i, "rows"));
		survey_append_queries(&evidence, statements);
		appendStringInfoChar(&evidence, '}');
		advice->evidence = evidence.data;
		add(found, advice);
	}
}

bool
survey_misestimates(Survey *survey, List **found)
{
	bool		complete = true;

	for (int i = 0; i < survey->num_statements; i++)
	{
		SurveyStatement *statement = &survey->statements[i];
		ListCell   *lc;

		if (statement->share < perfopt_advice_min_share)
			break;
		if (survey_out_of_time(survey))
			return false;
		foreach(lc, estimates_of(statement))
		{
			if (survey_out_of_time(survey) || !check(survey, lfirst(lc), found))
				complete = false;
		}
	}
	find_unanalyzed_parents(survey, found);
	return complete;
}
