/*
 * estimate_remedies.c
 *		What would mend a wrong estimate of a table's rows.
 *
 * - ANALYZE (kind analyze), when a column of the conditions has no statistics, or
 *   the rows that have changed since explain the difference; not when autovacuum
 *   is about to do it, unless it was about to at an earlier look, too.
 * - CREATE STATISTICS (kind create_statistics) on an expression, when it is a
 *   condition on that expression that is estimated wrongly.
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

/* Combinations in the server's list of the most common ones, and how often they are in a sample. */
#define MOST_COMMON		100
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

/* The column that the clause is about, if extended statistics are used for it. */
static Var *
simple_column(Node *clause, bool *equality)
{
	Node	   *node = NULL;
	Oid			estimator = InvalidOid;

	*equality = false;
	if (IsA(clause, NullTest))
		node = plain((Node *) ((NullTest *) clause)->arg);
	else if (IsA(clause, Var))
		node = clause;
	else if ((node = compared_expression(clause)) != NULL)
	{
		estimator = get_oprrest(IsA(clause, OpExpr) ? ((OpExpr *) clause)->opno :
								((ScalarArrayOpExpr *) clause)->opno);
		*equality = estimator == F_EQSEL && IsA(clause, OpExpr);
		if (estimator != F_EQSEL && estimator != F_NEQSEL && estimator != F_SCALARLTSEL &&
			estimator != F_SCALARLESEL && estimator != F_SCALARGTSEL && estimator != F_SCALARGESEL)
			node = NULL;
	}
	return node && IsA(node, Var) ? (Var *) node : NULL;
}

static bool
expression_has_statistics(Relation relation, Node *expr)
{
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(RelationGetRelid(relation))};
	SurveyRows *rows = survey_query("SELECT stxexprs::text AS exprs FROM pg_statistic_ext"
									" WHERE stxrelid = $1 AND stxexprs IS NOT NULL"
									" UNION ALL SELECT indexprs::text FROM pg_index"
									" WHERE indrelid = $1 AND indexprs IS NOT NULL",
									1, types, values, NULL);

	for (int i = 0; i < rows->num; i++)
		if (list_member(stringToNode(survey_text(rows, i, "exprs")), expr))
			return true;
	return false;
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

/*
 * Is a condition by itself estimated wrongly that new statistics of its column, or
 * of its expression, would help?
 */
static bool
may_be_stale(const Estimate *estimate, const RowCounts *counts, Relation relation)
{
	ListCell   *lc;

	foreach(lc, estimate->clauses)
	{
		bool		equality;
		Node	   *expr;

		if (!is_wrong(estimate, counts, foreach_current_index(lc), ABOUT_RIGHT))
			continue;
		if (simple_column(lfirst(lc), &equality))
			return true;
		expr = compared_expression(lfirst(lc));
		if (expr && !IsA(expr, Var) && expression_has_statistics(relation, expr))
			return true;
	}
	return false;
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
	char	   *reason;

	*settled = false;
	if (!may_be_stale(estimate, counts, relation))
		return NULL;
	values[0] = ObjectIdGetDatum(estimate->relid);
	values[1] = PointerGetDatum(columns_of((Node *) estimate->clauses));
	rows = survey_query(how_old, 2, types, values, NULL);
	*settled = true;
	if (rows->num == 0 || survey_bool(rows, 0, "unwanted"))
		return NULL;
	modified = survey_number(rows, 0, "modified");
	threshold = survey_number(rows, 0, "threshold");
	missing = survey_bool(rows, 0, "missing") || survey_number(rows, 0, "rows") < 0;
	if (!missing && modified < fabs(estimate->rows - actual) * EXPLAINS &&
		modified < survey_number(rows, 0, "rows") * MUCH_CHANGED)
	{
		*settled = false;
		return NULL;
	}
	if (!survey_bool(rows, 0, "automatic"))
		reason = psprintf("%s, and autovacuum is off for it.", missing ?
						  "The columns of its conditions have no statistics" :
						  psprintf("%.0f rows have changed since the table was analyzed", modified));
	else if (modified <= threshold)
		reason = psprintf("%s; autovacuum analyzes the table when %.0f have changed.", missing ?
						  "The columns of its conditions have no statistics" :
						  psprintf("%.0f rows have changed since the table was analyzed", modified),
						  threshold);
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

/* Do these exist, and if so, have they been built? */
static bool
has_statistics(Oid relid, ArrayType *columns, bool *built)
{
	Oid			types[] = {OIDOID, INT2ARRAYOID};
	Datum		values[] = {ObjectIdGetDatum(relid), PointerGetDatum(columns)};
	SurveyRows *rows = survey_query("SELECT count(*) > 0 AS found, coalesce(bool_or(EXISTS"
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
			expression_has_statistics(relation, expr))
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

static int
by_hash(const void *a, const void *b)
{
	uint64		left = ((const IndexEntry *) a)->hash;
	uint64		right = ((const IndexEntry *) b)->hash;

	return left < right ? -1 : left > right ? 1 : 0;
}

static int
by_first_hash(const void *a, const void *b)
{
	uint64		left = ((const IndexEntry *) a)->first_hash;
	uint64		right = ((const IndexEntry *) b)->first_hash;

	return left < right ? -1 : left > right ? 1 : by_hash(a, b);
}

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

	qsort(entries->entries, entries->num, sizeof(IndexEntry), by_hash);
	for (int i = 0; i < entries->num; i++)
	{
		if (i == 0 || entries->entries[i].hash != entries->entries[i - 1].hash)
			counts[num++] = 0;
		counts[num - 1]++;
	}
	qsort(counts, num, sizeof(int), most_first);
	return num;
}

/* The part of the rows whose first column determines the second one. */
static double
degree(IndexEntries *entries)
{
	IndexEntry *all = entries->entries;
	int			supporting = 0;
	int			first = 0;

	qsort(all, entries->num, sizeof(IndexEntry), by_first_hash);
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

static bool
entries_of(Relation relation, int num, const AttrNumber *attnums, IndexEntries *entries)
{
	IndexSpec  *spec = perfopt_index_spec_of_columns(RelationGetRelid(relation), num, attnums);
	double		rows = -1;

	return spec && perfopt_index_entries(relation, spec, &rows, entries) && !entries->too_wide &&
		entries->num > 0;
}

/* Would a list of the most common combinations give about the right number? */
static bool
mcv_tells(const Estimate *estimate, const RowCounts *counts, IndexEntries *entries, bool equalities)
{
	int		   *common = palloc(sizeof(int) * entries->num);
	int			num = Min(count_combinations(entries, common), MOST_COMMON);
	int			enough = counts->all ? 1 : COMMON_ENOUGH;
	double		covered = 0;

	while (num > 0 && common[num - 1] < enough)
		num--;
	if (num == 0)
		return false;
	for (int i = 0; i < num; i++)
		covered += (double) common[i] / entries->num;
	if (estimate->rows < survey_rows_at_least(counts, counts->meet_all))
		return equalities ? counts->meet_all >= common[num - 1] : covered >= COVERS_MOST;
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
	bool		equalities = true;
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
		bool		equality;
		Var		   *var = simple_column(lfirst(lc), &equality);

		if (var == NULL || is_wrong(estimate, counts, i, ABOUT_RIGHT))
			return NULL;
		for (int j = 0; j < i; j++)
			if (attnums[j] == var->varattno)
				return NULL;
		attnums[i] = var->varattno;
		equalities = equalities && equality;
	}
	if (has_statistics(estimate->relid, columns_of((Node *) estimate->clauses), &built))
		return built ? NULL :
			analyze(relation, "There are extended statistics of its columns, which the next ANALYZE makes.",
					"\"cause\": \"missing\"");
	if (!entries_of(relation, num, attnums, &entries))
		return NULL;
	mcv = mcv_tells(estimate, counts, &entries, equalities);
	dependencies = num == 2 && equalities && dependencies_tell(estimate, counts, relation, attnums);
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
