/*
 * estimate_remedies.c
 *		What would mend a wrong estimate of a table's rows.
 *
 * - ANALYZE (kind analyze), when a column of the conditions, or an expression that
 *   is to have them, has no statistics, or the rows that have changed since explain
 *   the difference; not when autovacuum is about to do it, unless it was about to
 *   at an earlier look, too, nor when a value is not common enough to be listed.
 * - CREATE STATISTICS (kind create_statistics) on an expression, when it is a
 *   condition on that expression that is estimated wrongly; not when it will have
 *   them of an index that is advised.
 * - CREATE STATISTICS on several columns, when the conditions are estimated well
 *   one by one, and wrongly together.  What the statistics would tell is worked
 *   out of the table's sample, as the server does it: is the combination among
 *   those that a list of the most common ones has, and how far does one column
 *   determine the other?  A kind that would not mend the estimate is left out;
 *   when none does, nothing is advised.  Only for statements with several
 *   tables, as there a number of rows decides how they are joined.
 */
#include "postgres.h"

#include "advisor/survey_internal.h"

#include <math.h>

#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "common/hashfn.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* A condition by itself is estimated well within this factor. */
#define ABOUT_RIGHT		3.0

/* Changes that are this part of the difference, or of the table, explain it. */
#define EXPLAINS		0.5
#define MUCH_CHANGED	0.1

/* autovacuum had so long to analyze a table that is due. */
#define AUTOVACUUM_MS	(10 * 60 * 1000)
#define MOST_DUE		256

/* One of the list of the most common combinations is so often in a sample. */
#define COMMON_ENOUGH	25

/* The list covers most rows with this part of them. */
#define COVERS_MOST		0.8

#define MAX_COLUMNS		8

/* Tables that autovacuum is about to analyze. */
typedef struct DueTable
{
	Oid			relid;
	TimestampTz since;
	TimestampTz seen;
} DueTable;

static DueTable due[MOST_DUE];

/* Is it long overdue?  A table not seen for a day has been done meanwhile. */
static bool
overdue(Oid relid)
{
	TimestampTz now = GetCurrentTimestamp();
	DueTable   *oldest = &due[0];

	for (int i = 0; i < MOST_DUE; i++)
	{
		if (due[i].relid == relid &&
			!TimestampDifferenceExceeds(due[i].seen, now, 24 * 3600 * 1000))
		{
			due[i].seen = now;
			return TimestampDifferenceExceeds(due[i].since, now, AUTOVACUUM_MS);
		}
		if (due[i].relid == relid || due[i].seen < oldest->seen)
			oldest = &due[i];
	}
	oldest->relid = relid;
	oldest->since = oldest->seen = now;
	return false;
}

static AdviceFound *
remedy(const char *kind, Relation relation)
{
	return survey_found(kind, get_namespace_name(RelationGetNamespace(relation)),
						RelationGetRelationName(relation));
}

static AdviceFound *
analyze(Relation relation, char *reason, char *evidence)
{
	AdviceFound *found = remedy("analyze", relation);

	found->definition = "";
	found->ddl = psprintf("ANALYZE %s", quote_qualified_identifier(found->schema_name, found->table_name));
	found->reason = reason;
	found->evidence = evidence;
	return found;
}

/*
 * Conditions
 */
static Node *
plain(Node *node)
{
	while (node && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return node;
}

/* The expression that the clause compares with a constant, or NULL. */
static Node *
compared_expression(Node *clause)
{
	List	   *args;
	Node	   *left;
	Node	   *right;

	if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
		args = ((OpExpr *) clause)->args;
	else if (IsA(clause, ScalarArrayOpExpr))
		args = ((ScalarArrayOpExpr *) clause)->args;
	else
		return NULL;
	left = plain(linitial(args));
	right = plain(lsecond(args));
	if (IsA(right, Const))
		return left;
	return IsA(left, Const) ? right : NULL;
}

static bool
is_wrong(const Estimate *estimate, const RowCounts *counts, int i, double by)
{
	double		rows = estimate->selectivity[i] * estimate->table_rows;

	return survey_rows_at_least(counts, counts->meet[i]) > Max(rows, 1) * by ||
		rows > Max(survey_rows_at_most(counts, counts->meet[i]), 1) * by;
}

/* What a clause of which extended statistics are made tells of its column. */
typedef enum ColumnTest
{
	TESTS_VALUE,				/* has one value, or is true or false */
	TESTS_NULL,					/* is null; functional dependencies know
								 * nothing of it */
	TESTS_OTHERWISE
} ColumnTest;

/* The column that the clause is about, if extended statistics are used for it. */
static Var *
simple_column(Node *clause, ColumnTest *test)
{
	Node	   *node = NULL;
	Oid			estimator = InvalidOid;

	*test = TESTS_OTHERWISE;
	if (IsA(clause, NullTest))
	{
		node = plain((Node *) ((NullTest *) clause)->arg);
		if (((NullTest *) clause)->nulltesttype == IS_NULL)
			*test = TESTS_NULL;
	}
	else if (IsA(clause, Var) || is_notclause(clause))
	{
		node = IsA(clause, Var) ? clause : (Node *) get_notclausearg(clause);
		*test = TESTS_VALUE;
	}
	else if ((node = compared_expression(clause)) != NULL)
	{
		estimator = get_oprrest(IsA(clause, OpExpr) ? ((OpExpr *) clause)->opno :
								((ScalarArrayOpExpr *) clause)->opno);
		if (estimator == F_EQSEL && IsA(clause, OpExpr))
			*test = TESTS_VALUE;
		if (estimator != F_EQSEL && estimator != F_NEQSEL && estimator != F_SCALARLTSEL &&
			estimator != F_SCALARLESEL && estimator != F_SCALARGTSEL && estimator != F_SCALARGESEL)
			node = NULL;
	}
	return node && IsA(node, Var) ? (Var *) node : NULL;
}

/*
 * Statistics that an expression has, of an index or of its own, or would have.
 */
typedef enum ExpressionStatistics
{
	NO_STATISTICS,
	STATISTICS_ADVISED,			/* with an index */
	STATISTICS_NOT_MADE,		/* will be with the next ANALYZE */
	STATISTICS_MADE
} ExpressionStatistics;

/* With a target of 0 they are not wanted, so nothing is to be done about them either. */
static const char *const find_expressions =
"SELECT e.stxexprs::text AS exprs, coalesce(e.stxstattarget = 0, false) OR EXISTS"
"  (SELECT FROM pg_statistic_ext_data d WHERE d.stxoid = e.oid AND d.stxdexpr IS NOT NULL) AS made"
" FROM pg_statistic_ext e WHERE e.stxrelid = $1 AND e.stxexprs IS NOT NULL"
" UNION ALL SELECT i.indexprs::text, EXISTS (SELECT FROM pg_statistic s WHERE s.starelid = i.indexrelid)"
"  OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attstattarget = 0)"
" FROM pg_index i WHERE i.indrelid = $1 AND i.indexprs IS NOT NULL AND i.indisvalid AND i.indpred IS NULL";

static ExpressionStatistics
expression_statistics(Relation relation, Node *expr)
{
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(RelationGetRelid(relation))};
	SurveyRows *rows = survey_query(find_expressions, 1, types, values, NULL);
	ExpressionStatistics best = NO_STATISTICS;
	ListCell   *lc;

	for (int i = 0; i < rows->num; i++)
		if (list_member(stringToNode(survey_text(rows, i, "exprs")), expr))
			best = Max(best, survey_bool(rows, i, "made") ? STATISTICS_MADE : STATISTICS_NOT_MADE);
	if (best != NO_STATISTICS)
		return best;
	foreach(lc, survey_advised_indexes(relation))
	{
		const IndexSpec *spec = lfirst(lc);

		for (int i = 0; i < spec->num_columns; i++)
			if (spec->predicate == NIL && equal(spec->columns[i].expr, expr))
				return STATISTICS_ADVISED;
	}
	return NO_STATISTICS;
}

/*
 * Values
 */
static int
most_first(const void *a, const void *b)
{
	return *(const int *) b - *(const int *) a;
}

/* How often the most common combinations are there; returns how many these are. */
static int
count_combinations(IndexEntries *entries, int *counts)
{
	int			num = 0;

	qsort(entries->entries, entries->num, sizeof(IndexEntry), perfopt_by_hash);
	for (int i = 0; i < entries->num; i++)
	{
		if (i == 0 || entries->entries[i].hash != entries->entries[i - 1].hash)
			counts[num++] = 0;
		counts[num - 1]++;
	}
	qsort(counts, num, sizeof(int), most_first);
	return num;
}

/*
 * Is what the sample has so often in a list of the most common ones, whatever sample
 * the list is made of?  common: how often each of num is there, most first.
 */
static bool
is_listed(int times, const int *common, int num, int length)
{
	return num <= length || times - 2 * sqrt(times) >= common[length - 1];
}

/* How long the server's list of the most common values, or combinations, may be. */
static int
length_of_list(Oid relid, int num, const AttrNumber *attnums)
{
	Datum		columns[MAX_COLUMNS];
	Oid			types[] = {OIDOID, INT2ARRAYOID};
	Datum		values[2];

	for (int i = 0; i < num; i++)
		columns[i] = Int16GetDatum(attnums[i]);
	values[0] = ObjectIdGetDatum(relid);
	values[1] = PointerGetDatum(construct_array(columns, num, INT2OID, 2, true, TYPALIGN_SHORT));
	return (int) survey_number(survey_query("SELECT max(coalesce(nullif(attstattarget, -1),"
											"  current_setting('default_statistics_target')::int))::float8 AS target"
											" FROM pg_attribute WHERE attrelid = $1 AND attnum = ANY ($2)",
											2, types, values, NULL), 0, "target");
}

static bool
entries_of(Relation relation, int num, const AttrNumber *attnums, IndexEntries *entries)
{
	IndexSpec  *spec = perfopt_index_spec_of_columns(RelationGetRelid(relation), num, attnums);
	double		rows = -1;

	return spec && perfopt_index_entries(relation, spec, &rows, entries) && !entries->too_wide &&
		entries->num > 0;
}

/*
 * Old statistics
 */
static const char *const how_old =
"SELECT pg_stat_get_mod_since_analyze($1)::float8 AS modified, t.reltuples::float8 AS rows,"
"  current_setting('autovacuum')::bool AND current_setting('track_counts')::bool AND coalesce(o.enabled, true) AS automatic,"
"  coalesce(o.threshold, current_setting('autovacuum_analyze_threshold')::float8)"
"   + coalesce(o.scale_factor, current_setting('autovacuum_analyze_scale_factor')::float8)"
"    * greatest(t.reltuples, 0) AS threshold,"
"  EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = ANY ($2) AND a.attstattarget = 0) AS unwanted,"
"  EXISTS (SELECT FROM unnest($2) AS c (attnum) WHERE NOT EXISTS"
"   (SELECT FROM pg_statistic s WHERE s.starelid = t.oid AND s.staattnum = c.attnum AND NOT s.stainherit)) AS missing"
" FROM pg_class t CROSS JOIN LATERAL ("
"  SELECT max(option_value) FILTER (WHERE option_name = 'autovacuum_enabled')::bool AS enabled,"
"   max(option_value) FILTER (WHERE option_name = 'autovacuum_analyze_threshold')::float8 AS threshold,"
"   max(option_value) FILTER (WHERE option_name = 'autovacuum_analyze_scale_factor')::float8 AS scale_factor"
"  FROM pg_options_to_table(t.reloptions)) o"
" WHERE t.oid = $1";

/* Columns of a tree over the table. */
static ArrayType *
columns_of(Node *tree)
{
	List	   *vars = pull_var_clause(tree, 0);
	Datum	   *datums = palloc(sizeof(Datum) * Max(list_length(vars), 1));
	ListCell   *lc;

	foreach(lc, vars)
		datums[foreach_current_index(lc)] = Int16GetDatum(lfirst_node(Var, lc)->varattno);
	return construct_array(datums, list_length(vars), INT2OID, 2, true, TYPALIGN_SHORT);
}

/* Would new statistics of the column tell that it has a value more often than was thought? */
static bool
will_be_common(const Estimate *estimate, const RowCounts *counts, int i, Relation relation,
			   AttrNumber attnum)
{
	IndexEntries entries;
	int		   *common;
	int			num;
	int			length;

	if (estimate->selectivity[i] * estimate->table_rows >= survey_rows_at_least(counts, counts->meet[i]) ||
		!entries_of(relation, 1, &attnum, &entries))
		return true;
	common = palloc(sizeof(int) * entries.num);
	num = count_combinations(&entries, common);
	length = length_of_list(estimate->relid, 1, &attnum);
	return length == 0 || is_listed(counts->meet[i], common, num, length);
}

/*
 * Is a condition by itself estimated wrongly that new statistics of its column, or
 * of its expression, would help?  *not_made: the expression has none yet.
 */
static bool
may_be_stale(const Estimate *estimate, const RowCounts *counts, Relation relation, bool *not_made)
{
	bool		stale = false;
	ListCell   *lc;

	*not_made = false;
	foreach(lc, estimate->clauses)
	{
		int			i = foreach_current_index(lc);
		ColumnTest	test;
		Var		   *column = simple_column(lfirst(lc), &test);
		Node	   *expr = compared_expression(lfirst(lc));
		ExpressionStatistics statistics;

		if (!is_wrong(estimate, counts, i, ABOUT_RIGHT))
			continue;
		if (column)
			stale = stale || test != TESTS_VALUE ||
				will_be_common(estimate, counts, i, relation, column->varattno);
		else if (expr && !IsA(expr, Var))
		{
			statistics = expression_statistics(relation, expr);
			stale = stale || statistics == STATISTICS_MADE || statistics == STATISTICS_NOT_MADE;
			*not_made = *not_made || statistics == STATISTICS_NOT_MADE;
		}
	}
	return stale;
}

/* *settled: nothing else is to be tried. */
static AdviceFound *
stale(const Estimate *estimate, const RowCounts *counts, Relation relation, bool *settled)
{
	Oid			types[] = {OIDOID, INT2ARRAYOID};
	Datum		values[2];
	SurveyRows *rows;
	double		actual = counts->table_rows * counts->meet_all / counts->looked_at;
	double		modified;
	double		threshold;
	bool		missing;
	bool		not_made;
	const char *problem;
	char	   *reason;

	*settled = false;
	if (!may_be_stale(estimate, counts, relation, &not_made))
		return NULL;
	values[0] = ObjectIdGetDatum(estimate->relid);
	values[1] = PointerGetDatum(columns_of((Node *) estimate->clauses));
	rows = survey_query(how_old, 2, types, values, NULL);
	*settled = true;
	if (rows->num == 0 || survey_bool(rows, 0, "unwanted"))
		return NULL;
	modified = survey_number(rows, 0, "modified");
	threshold = survey_number(rows, 0, "threshold");
	missing = not_made || survey_bool(rows, 0, "missing") || survey_number(rows, 0, "rows") < 0;
	if (!missing && modified < fabs(estimate->rows - actual) * EXPLAINS &&
		modified < survey_number(rows, 0, "rows") * MUCH_CHANGED)
	{
		*settled = false;
		return NULL;
	}
	problem = not_made ? "An expression of its conditions has statistics that have not been made yet" :
		missing ? "The columns of its conditions have no statistics" :
		psprintf("%.0f rows have changed since the table was analyzed", modified);
	if (!survey_bool(rows, 0, "automatic"))
		reason = psprintf("%s, and autovacuum is off for it.", problem);
	else if (modified <= threshold)
		reason = psprintf("%s; autovacuum analyzes the table when %.0f have changed.", problem, threshold);
	else if (overdue(estimate->relid))
		reason = psprintf("%.0f rows have changed since the table was analyzed, and autovacuum, which is to do it after %.0f, has not come to it.",
						  modified, threshold);
	else
		return NULL;
	return analyze(relation, reason,
				   psprintf("\"cause\": \"%s\", \"modified_since_analyze\": %.0f",
							missing ? "missing" : "stale", modified));
}

/*
 * Extended statistics
 */
static AdviceFound *
create_statistics(Relation relation, const char *kinds, const char *columns, const char *label,
				  char *reason, char *evidence)
{
	AdviceFound *found = remedy("create_statistics", relation);
	char	   *name = makeObjectName(found->table_name, label, "stat");
	const char *qualified = quote_qualified_identifier(found->schema_name, name);

	found->definition = psprintf("%s%sON %s", kinds, kinds[0] ? " " : "", columns);
	found->ddl = psprintf("CREATE STATISTICS %s %s FROM %s", qualified, found->definition,
						  quote_qualified_identifier(found->schema_name, found->table_name));
	found->undo = psprintf("DROP STATISTICS %s", qualified);
	found->reason = reason;
	found->evidence = evidence;
	return found;
}

/* Do these exist, and if so, have they been built, or are not to be (target 0)? */
static bool
has_statistics(Oid relid, ArrayType *columns, bool *built)
{
	Oid			types[] = {OIDOID, INT2ARRAYOID};
	Datum		values[] = {ObjectIdGetDatum(relid), PointerGetDatum(columns)};
	SurveyRows *rows = survey_query("SELECT count(*) > 0 AS found, coalesce(bool_or(e.stxstattarget = 0 OR EXISTS"
									"  (SELECT FROM pg_statistic_ext_data d WHERE d.stxoid = e.oid)), false) AS built"
									" FROM pg_statistic_ext e WHERE e.stxrelid = $1 AND e.stxexprs IS NULL"
									" AND $2 <@ e.stxkeys::int2[]",
									2, types, values, NULL);

	*built = survey_bool(rows, 0, "built");
	return survey_bool(rows, 0, "found");
}

static AdviceFound *
statistics_on_expression(const Estimate *estimate, const RowCounts *counts, Relation relation)
{
	ListCell   *lc;

	foreach(lc, estimate->clauses)
	{
		Node	   *expr = compared_expression(lfirst(lc));
		char	   *text;
		char	   *label;		/* with a hash: expressions have no names */

		if (expr == NULL || IsA(expr, Var) || IsA(expr, Const) ||
			!OidIsValid(GetDefaultOpClass(exprType(expr), BTREE_AM_OID)) ||
			!is_wrong(estimate, counts, foreach_current_index(lc), ABOUT_RIGHT) ||
			expression_statistics(relation, expr) != NO_STATISTICS)
			continue;
		text = deparse_expression(expr, deparse_context_for(RelationGetRelationName(relation), estimate->relid),
								  false, false);

		label = psprintf("%s_%04x", IsA(expr, FuncExpr) ? get_func_name(((FuncExpr *) expr)->funcid) : "expr",
						 hash_bytes((unsigned char *) text, strlen(text)) & 0xffff);

		return create_statistics(relation, "", psprintf("(%s)", text),
								 label,
								 psprintf("It has no statistics of the expression %s; these would be there with the next ANALYZE.", text),
								 "\"cause\": \"expression\"");
	}
	return NULL;
}

/* The part of the rows whose first column determines the second one. */
static double
degree(IndexEntries *entries)
{
	IndexEntry *all = entries->entries;
	int			supporting = 0;
	int			first = 0;

	qsort(all, entries->num, sizeof(IndexEntry), perfopt_by_first_hash);
	for (int i = 1; i <= entries->num; i++)
	{
		if (i < entries->num && all[i].first_hash == all[first].first_hash)
			continue;
		if (all[first].hash == all[i - 1].hash)
			supporting += i - first;
		first = i;
	}
	return entries->num > 0 ? (double) supporting / entries->num : 0;
}

/* Would a list of the most common combinations give about the right number? */
static bool
mcv_tells(const Estimate *estimate, const RowCounts *counts, IndexEntries *entries, bool one_combination,
		  int length)
{
	int		   *common = palloc(sizeof(int) * entries->num);
	int			all = count_combinations(entries, common);
	int			num = Min(all, length);
	int			enough = counts->all ? 1 : COMMON_ENOUGH;
	double		covered = 0;

	while (num > 0 && common[num - 1] < enough)
		num--;
	if (num == 0)
		return false;
	for (int i = 0; i < num; i++)
		covered += (double) common[i] / entries->num;
	if (estimate->rows < survey_rows_at_least(counts, counts->meet_all))
		return one_combination ?
			counts->meet_all >= common[num - 1] && is_listed(counts->meet_all, common, all, length) :
			covered >= COVERS_MOST;
	return (1 - covered) * counts->table_rows <=
		ABOUT_RIGHT * survey_rows_at_most(counts, counts->meet_all);
}

/* Would functional dependencies? */
static bool
dependencies_tell(const Estimate *estimate, const RowCounts *counts, Relation relation,
				  const AttrNumber *attnums)
{
	AttrNumber	turned[] = {attnums[1], attnums[0]};
	IndexEntries one;
	IndexEntries other;
	double		a = (double) counts->meet[0] / counts->looked_at;
	double		b = (double) counts->meet[1] / counts->looked_at;
	double		f;
	double		rows;

	if (!entries_of(relation, 2, attnums, &one) || !entries_of(relation, 2, turned, &other))
		return false;
	f = Max(degree(&one), degree(&other));
	rows = (f * Min(a, b) + (1 - f) * a * b) * counts->table_rows;
	return rows * ABOUT_RIGHT >= survey_rows_at_least(counts, counts->meet_all) &&
		rows <= ABOUT_RIGHT * survey_rows_at_most(counts, counts->meet_all);
}

static AdviceFound *
statistics_on_columns(const Estimate *estimate, const RowCounts *counts, Relation relation)
{
	AttrNumber	attnums[MAX_COLUMNS];
	int			num = list_length(estimate->clauses);
	bool		one_combination = true;
	bool		all_values = true;
	bool		built;
	bool		mcv;
	bool		dependencies;
	const char *kinds;
	IndexEntries entries;
	StringInfoData columns;
	StringInfoData label;
	ListCell   *lc;

	if (num < 2 || num > MAX_COLUMNS || estimate->statement->samples[0]->num_rels < 2)
		return NULL;
	foreach(lc, estimate->clauses)
	{
		int			i = foreach_current_index(lc);
		ColumnTest	test;
		Var		   *var = simple_column(lfirst(lc), &test);

		if (var == NULL || is_wrong(estimate, counts, i, ABOUT_RIGHT))
			return NULL;
		for (int j = 0; j < i; j++)
			if (attnums[j] == var->varattno)
				return NULL;
		attnums[i] = var->varattno;
		one_combination = one_combination && test != TESTS_OTHERWISE;
		all_values = all_values && test == TESTS_VALUE;
	}
	if (has_statistics(estimate->relid, columns_of((Node *) estimate->clauses), &built))
		return built ? NULL :
			analyze(relation, "There are extended statistics of its columns, which the next ANALYZE makes.",
					"\"cause\": \"missing\"");
	if (!entries_of(relation, num, attnums, &entries))
		return NULL;
	mcv = mcv_tells(estimate, counts, &entries, one_combination,
					length_of_list(estimate->relid, num, attnums));
	dependencies = num == 2 && all_values && dependencies_tell(estimate, counts, relation, attnums);
	if (!mcv && !dependencies)
		return NULL;
	kinds = mcv && dependencies ? "(dependencies, mcv)" : mcv ? "(mcv)" : "(dependencies)";

	initStringInfo(&columns);
	initStringInfo(&label);
	for (int i = 0; i < num; i++)
	{
		char	   *name = get_attname(estimate->relid, attnums[i], false);

		appendStringInfo(&columns, "%s%s", i > 0 ? ", " : "", quote_identifier(name));
		appendStringInfo(&label, "%s%s", i > 0 ? "_" : "", name);
	}
	return create_statistics(relation, kinds, columns.data, label.data,
							 psprintf("Its conditions are estimated well one by one: the columns %s depend on each other, which extended statistics would tell from the next ANALYZE on.",
									  columns.data),
							 "\"cause\": \"correlated\"");
}

AdviceFound *
survey_remedy(const Estimate *estimate, const RowCounts *counts, Relation relation)
{
	bool		settled;
	AdviceFound *found = stale(estimate, counts, relation, &settled);

	if (found || settled)
		return found;
	found = statistics_on_expression(estimate, counts, relation);
	return found ? found : statistics_on_columns(estimate, counts, relation);
}
