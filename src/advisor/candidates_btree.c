/*
 * candidates_btree.c
 *		The B-trees that would serve what a statement does with a relation.
 *
 * The order of keys: columns that are compared for equality, the most selective
 * one first, then one range, or those to sort by.  Keys are added as long as
 * those before leave more than a few rows.  With the columns that the statement
 * reads besides, if they are few and narrow, such an index is a covering one.  A
 * condition that few rows meet makes it a partial one instead of a key; one that
 * no key can be for does so if the index is much smaller than it would be with
 * all rows and the columns of that condition.
 *
 * The best come first, and each sort of them has its share of what may be made
 * in all.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/candidates.h"

#include "access/htup_details.h"
#include "access/itup.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/lsyscache.h"

#define MAX_KEYS			4

/* Keys that find so few rows need no others. */
#define FEW_ROWS			2.0

/* A condition that so many rows meet is no reason for a key. */
#define TOO_MANY			0.9

/* ... and one that so many meet is none for an index of that key alone. */
#define SINGLE_SHARE		0.5

/* Columns included, their average width, and that to the row's. */
#define MAX_INCLUDED		6
#define MAX_INCLUDED_WIDTH	64
#define MAX_WIDTH_SHARE		0.6

/*
 * Rows that must be found for the table's to be worth leaving out; a join may
 * look up as few again and again.
 */
#define COVERED_ROWS		5.0

/* Specifications of one relation: the shares. */
#define MAX_MAIN			10
#define MAX_JOINS			10
#define MAX_SINGLES			8
#define MAX_OF_ARMS			18
#define MAX_PARTIAL			8
#define MAX_FILTERED		8

/* Relations joined with, ranges, and partial conditions that are tried. */
#define MAX_PARTNERS		4
#define MAX_RANGES			2
#define MAX_CONDITIONS		3

/* What "much smaller" is. */
#define FILTERED_SHARE		0.5

typedef struct Keys
{
	int			num;
	Node	   *exprs[MAX_KEYS];
	Oid			collations[MAX_KEYS];
	Oid			opclasses[MAX_KEYS];
	int16		options[MAX_KEYS];
	bool		of_constants;
	int			num_met;		/* by conditions; the others are for the order */
	bool		joined;			/* by conditions with another relation */
	double		rows;			/* that they find */
} Keys;

typedef struct Builder
{
	const RelationUses *uses;
	CandidateList *candidates;
	int			left;			/* that may still be made */
	int			made;
	List	   *conditions;		/* RowCondition *, of the predicate */
	bool		filtered;		/* ... which no key can be for */
	uint32		arm_of;
} Builder;

/*
 * Keys
 */

/* False: there is no room, or it is there already. */
static bool
push_key(Keys *keys, Node *expr, Oid collation, Oid opclass, int16 options, bool of_constants)
{
	if (keys->num == MAX_KEYS)
		return false;
	for (int i = 0; i < keys->num; i++)
		if (equal(keys->exprs[i], expr))
			return false;
	keys->exprs[keys->num] = expr;
	keys->collations[keys->num] = collation;
	keys->opclasses[keys->num] = opclass;
	keys->options[keys->num++] = options;
	keys->of_constants = keys->of_constants || of_constants;
	return true;
}

static bool
push_use(Keys *keys, const IndexUse *use)
{
	ListCell   *lc;

	if (!push_key(keys, use->expr, use->collation, use->opclass, 0, use->of_constants))
		return false;
	keys->num_met = keys->num;
	keys->rows *= use->selectivity;
	keys->joined = keys->joined || use->others != NULL;
	foreach(lc, use->more)
		if (!push_key(keys, lfirst(lc), exprCollation(lfirst(lc)), InvalidOid, 0, false))
		break;
	return true;
}

static void
start_keys(const Builder *builder, Keys *keys)
{
	ListCell   *lc;

	memset(keys, 0, sizeof(*keys));
	keys->rows = Max(builder->uses->tuples, 1);
	foreach(lc, builder->conditions)
		keys->rows *= ((RowCondition *) lfirst(lc))->selectivity;
}

/* Of uses in their order, as many as it takes. */
static void
push_equalities(Keys *keys, List *equalities, bool in_order, int most)
{
	ListCell   *lc;

	foreach(lc, equalities)
	{
		IndexUse   *use = lfirst(lc);

		if (in_order && use->kind != USE_EQUAL)
			continue;
		if (keys->num >= most || keys->rows <= FEW_ROWS || use->selectivity > TOO_MANY)
			continue;
		(void) push_use(keys, use);
	}
}

/*
 * An index is read in both directions: turn all, so that the order is the
 * plainest.
 */
static void
push_order(Keys *keys, List *order)
{
	const int16 both = INDOPTION_DESC | INDOPTION_NULLS_FIRST;
	int16		turned = order ? (((SortUse *) linitial(order))->options == both ? both : 0) : 0;
	ListCell   *lc;

	foreach(lc, order)
	{
		SortUse    *use = lfirst(lc);

		(void) push_key(keys, use->expr, use->collation, InvalidOid, use->options ^ turned,
						use->of_constants);
	}
}

/*
 * Specifications
 */
static Bitmapset *
key_columns(const Keys *keys)
{
	Bitmapset  *columns = NULL;

	for (int i = 0; i < keys->num; i++)
		if (IsA(keys->exprs[i], Var))
			columns = bms_add_member(columns, ((Var *) keys->exprs[i])->varattno);
	return columns;
}

static bool
is_predicate(const Builder *builder, const RestrictInfo *clause)
{
	ListCell   *lc;

	foreach(lc, builder->conditions)
		if (((RowCondition *) lfirst(lc))->clause == clause)
		return true;
	return false;
}

/* Columns that the statement needs of a row that the index has found. */
static Bitmapset *
needed_columns(const Builder *builder)
{
	Bitmapset  *columns = bms_copy(builder->uses->read);
	ListCell   *lc;

	foreach(lc, builder->uses->rel->baserestrictinfo)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		List	   *vars;
		ListCell   *var;

		if (is_predicate(builder, rinfo))
			continue;
		vars = pull_var_clause((Node *) rinfo->clause, PVC_RECURSE_PLACEHOLDERS);
		foreach(var, vars)
			columns = bms_add_member(columns, Max(lfirst_node(Var, var)->varattno, 0));
	}
	return columns;
}

static double
column_width(Oid relid, AttrNumber attnum)
{
	int32		width = get_attavgwidth(relid, attnum);
	Oid			type;
	int32		typmod;
	Oid			collation;

	if (width > 0)
		return width;
	get_atttypetypmodcoll(relid, attnum, &type, &typmod, &collation);
	return get_typavgwidth(type, typmod);
}

/* What to include, or NULL if that is nothing, or not worth it. */
static Bitmapset *
columns_to_include(const Builder *builder, const Keys *keys)
{
	const RelationUses *uses = builder->uses;
	Bitmapset  *of_keys = key_columns(keys);
	Bitmapset  *included;
	double		row_width = uses->pages * BLCKSZ / Max(uses->tuples, 1) - SizeofHeapTupleHeader;
	double		width = 0;
	double		key_width = 0;
	int			i = -1;

	if (uses->reads_all || (keys->rows <= COVERED_ROWS && !keys->joined))
		return NULL;
	included = bms_difference(needed_columns(builder), of_keys);
	if (bms_is_empty(included) || bms_num_members(included) > MAX_INCLUDED ||
		bms_is_member(0, included))
		return NULL;
	while ((i = bms_next_member(included, i)) >= 0)
		width += column_width(uses->relid, i);
	i = -1;
	while ((i = bms_next_member(of_keys, i)) >= 0)
		key_width += column_width(uses->relid, i);
	return width <= MAX_INCLUDED_WIDTH && width + key_width <= row_width * MAX_WIDTH_SHARE ?
		included : NULL;
}

static const char *
fill_spec(IndexSpec *spec, const Builder *builder, const Keys *keys, Bitmapset *included)
{
	const char *problem = NULL;
	List	   *predicate = NIL;
	ListCell   *lc;
	int			attnum = -1;

	for (int i = 0; i < keys->num && problem == NULL; i++)
		problem = perfopt_index_spec_add_key(spec, copyObject(keys->exprs[i]),
											 keys->opclasses[i], keys->collations[i],
											 keys->options[i]);
	while (problem == NULL && (attnum = bms_next_member(included, attnum)) >= 0)
		problem = perfopt_index_spec_add_included(spec, attnum);
	if (problem == NULL)
		perfopt_index_spec_pack_included(spec);
	foreach(lc, builder->conditions)
		predicate = lappend(predicate, copyObject(((RowCondition *) lfirst(lc))->expr));
	if (predicate && problem == NULL)
		problem = perfopt_index_spec_set_predicate(spec, (Node *) make_ands_explicit(predicate));
	return problem;
}

static void
make_spec(Builder *builder, const Keys *keys, Bitmapset *included)
{
	const int16 both = INDOPTION_DESC | INDOPTION_NULLS_FIRST;
	MemoryContext old_context;
	IndexSpec  *spec;
	int			before = list_length(*builder->candidates->specs);
	ListCell   *lc;

	if (keys->num == 0 || builder->left <= 0)
		return;
	old_context = MemoryContextSwitchTo(builder->candidates->context);
	spec = perfopt_index_spec_create(builder->uses->relid, BTREE_AM_OID);
	if (fill_spec(spec, builder, keys, included) == NULL)
	{
		spec->columns = repalloc(spec->columns, sizeof(IndexColumn) * spec->num_columns);
		spec->order_only = keys->num_met == 0;
		spec->any_direction = keys->num - keys->num_met <= 1;
		for (int i = 0; i < keys->num; i++)
			if (keys->options[i] != 0 && keys->options[i] != both)
				spec->any_direction = false;
		spec->of_constants = keys->of_constants;
		foreach(lc, builder->conditions)
			if (((RowCondition *) lfirst(lc))->of_constants)
			spec->of_constants = true;
		spec->arm_of = builder->arm_of;
		builder->made++;
		perfopt_candidates_add(builder->candidates, spec);
		builder->left -= list_length(*builder->candidates->specs) - before;
	}
	else
	{
		pfree(spec->columns);
		pfree(spec);
	}
	MemoryContextSwitchTo(old_context);
}

/* To an index with all rows and columns that the statement needs. */
static double
filtered_share(Builder *builder, const Keys *keys)
{
	List	   *conditions = builder->conditions;
	Bitmapset  *of_keys = key_columns(keys);
	double		width[2];
	double		share = 1;
	ListCell   *lc;

	for (int i = 0; i < 2; i++)
	{
		Bitmapset  *columns = bms_union(needed_columns(builder), of_keys);
		int			column = 0;

		width[i] = sizeof(IndexTupleData) + sizeof(ItemIdData);
		while ((column = bms_next_member(columns, column)) >= 0)
			width[i] += column_width(builder->uses->relid, column);
		builder->conditions = NIL;
	}
	builder->conditions = conditions;
	foreach(lc, conditions)
		share *= ((RowCondition *) lfirst(lc))->selectivity;
	return share * width[0] / width[1];
}

/* The index, and the same with all columns that the statement needs. */
static void
make_specs(Builder *builder, const Keys *keys)
{
	Bitmapset  *included;

	if (keys->num == 0)
		return;
	if (builder->filtered)
	{
		/* the table's rows would tell the condition, too */
		included = columns_to_include(builder, keys);
		if ((included || bms_is_subset(needed_columns(builder), key_columns(keys))) &&
			!builder->uses->reads_all && filtered_share(builder, keys) <= FILTERED_SHARE)
			make_spec(builder, keys, included);
		return;
	}
	make_spec(builder, keys, NULL);
	included = columns_to_include(builder, keys);
	if (included)
		make_spec(builder, keys, included);
}

/*
 * Which keys
 */
static int
fewer_first(const ListCell *a, const ListCell *b)
{
	Selectivity left = ((const IndexUse *) lfirst(a))->selectivity;
	Selectivity right = ((const IndexUse *) lfirst(b))->selectivity;

	return left < right ? -1 : left > right ? 1 : 0;
}

/*
 * Uses of these kinds, the most selective first: conditions of the relation
 * alone, and those that compare it with the partner: a relation, none (0), or
 * any.
 */
#define ANY_PARTNER			(-1)

static List *
pick_uses(const Builder *builder, List *uses, bool ranges, int partner)
{
	List	   *picked = NIL;
	ListCell   *lc;

	foreach(lc, uses)
	{
		IndexUse   *use = lfirst(lc);

		if ((use->kind == USE_RANGE || use->kind == USE_PATTERN) == ranges &&
			(use->others == NULL || partner == ANY_PARTNER ||
			 bms_is_member(partner, use->others)) &&
			(use->clause == NULL || !is_predicate(builder, use->clause)))
			picked = lappend(picked, use);
	}
	list_sort(picked, fewer_first);
	return picked;
}

/* A further range does not narrow the scan, but what is looked up in the table. */
static void
add_second_range(Builder *builder, const Keys *keys, List *ranges)
{
	ListCell   *lc;

	foreach(lc, ranges)
	{
		Keys		with_second = *keys;
		IndexUse   *use = lfirst(lc);

		if (use->selectivity <= SINGLE_SHARE && push_use(&with_second, use))
		{
			make_specs(builder, &with_second);
			return;
		}
	}
}

/* Equalities, and each of the best ranges after them. */
static void
equalities_and_range(Builder *builder, List *uses, int partner)
{
	List	   *ranges = pick_uses(builder, uses, true, partner);
	int			num_ranges = 0;
	Keys		keys;
	ListCell   *lc;

	start_keys(builder, &keys);
	push_equalities(&keys, pick_uses(builder, uses, false, partner), false, MAX_KEYS);
	make_specs(builder, &keys);
	if (keys.num == MAX_KEYS || (keys.num > 0 && keys.rows <= FEW_ROWS))
		return;
	foreach(lc, ranges)
	{
		Keys		with_range = keys;
		IndexUse   *use = lfirst(lc);

		if (use->selectivity <= TOO_MANY && push_use(&with_range, use))
		{
			make_specs(builder, &with_range);
			if (num_ranges == 0 && with_range.rows > FEW_ROWS)
				add_second_range(builder, &with_range, ranges);
			if (++num_ranges == MAX_RANGES)
				break;
		}
	}
}

/* Equalities and the order after them, then a range to be checked in the index. */
static void
equalities_and_order(Builder *builder)
{
	const RelationUses *uses = builder->uses;
	List	   *ranges = pick_uses(builder, uses->uses, true, 0);
	Keys		keys;
	ListCell   *lc;

	if (uses->order == NIL)
		return;
	start_keys(builder, &keys);
	push_equalities(&keys, pick_uses(builder, uses->uses, false, 0), true, MAX_KEYS - 1);
	if (keys.num > 0 && keys.rows <= FEW_ROWS)
		return;
	push_order(&keys, uses->order);
	make_specs(builder, &keys);
	foreach(lc, ranges)
	{
		IndexUse   *use = lfirst(lc);

		if (use->selectivity > TOO_MANY)
			continue;
		if (push_key(&keys, use->expr, use->collation, use->opclass, 0, use->of_constants) &&
			!builder->filtered)
			make_spec(builder, &keys, NULL);
		break;
	}
}

static void
joins(Builder *builder)
{
	Bitmapset  *partners = NULL;
	int			partner = -1;
	int			num = 0;
	ListCell   *lc;

	foreach(lc, builder->uses->uses)
		partners = bms_add_members(partners, ((IndexUse *) lfirst(lc))->others);
	while ((partner = bms_next_member(partners, partner)) >= 0 && num++ < MAX_PARTNERS)
		equalities_and_range(builder, builder->uses->uses, partner);
}

/* Each column alone, for others to be put beside it by the choice. */
static void
singles(Builder *builder)
{
	ListCell   *lc;

	foreach(lc, builder->uses->uses)
	{
		IndexUse   *use = lfirst(lc);
		Keys		keys;

		start_keys(builder, &keys);
		if (use->selectivity <= SINGLE_SHARE && push_use(&keys, use))
		{
			keys.num = 1;
			make_spec(builder, &keys, NULL);
		}
	}
	if (builder->uses->order)
	{
		Keys		keys;

		start_keys(builder, &keys);
		push_order(&keys, list_make1(linitial(builder->uses->order)));
		make_spec(builder, &keys, NULL);
	}
}

/* For each arm of an OR what it takes, with equalities that hold for all. */
static void
arms(Builder *builder, List *or_arms)
{
	static uint32 number = 0;
	ListCell   *lc;

	if (++number == 0)
		number++;
	builder->arm_of = number;
	foreach(lc, or_arms)
	{
		List	   *arm = list_copy(lfirst(lc));
		List	   *ranges = pick_uses(builder, arm, true, ANY_PARTNER);
		ListCell   *use;
		Keys		keys;

		foreach(use, builder->uses->uses)
			if (((IndexUse *) lfirst(use))->kind == USE_EQUAL &&
				((IndexUse *) lfirst(use))->others == NULL)
			arm = lappend(arm, lfirst(use));
		start_keys(builder, &keys);
		push_equalities(&keys, pick_uses(builder, arm, false, ANY_PARTNER), false, MAX_KEYS);
		if (ranges && (keys.num == 0 || keys.rows > FEW_ROWS))
			(void) push_use(&keys, linitial(ranges));
		make_spec(builder, &keys, NULL);
	}
	builder->arm_of = 0;
}

static void
partial(Builder *builder, List *conditions)
{
	Keys		keys;
	List	   *vars;

	builder->conditions = conditions;
	builder->made = 0;
	equalities_and_order(builder);
	equalities_and_range(builder, builder->uses->uses, 0);
	joins(builder);
	if (builder->made == 0 && !builder->filtered)
	{
		/* the rows themselves are what is wanted */
		start_keys(builder, &keys);
		vars = pull_var_clause(((RowCondition *) linitial(conditions))->expr, 0);
		(void) push_key(&keys, linitial(vars), exprCollation(linitial(vars)), InvalidOid, 0,
						false);
		keys.num_met = keys.num;
		make_specs(builder, &keys);
	}
	builder->conditions = NIL;
}

void
perfopt_candidates_btree(const RelationUses *uses, CandidateList *candidates)
{
	Builder		builder = {.uses = uses,.candidates = candidates};
	ListCell   *lc;

	builder.left = MAX_MAIN;
	equalities_and_order(&builder);
	equalities_and_range(&builder, uses->uses, 0);
	builder.left = MAX_JOINS;
	joins(&builder);
	builder.left = MAX_PARTIAL;
	if (list_length(uses->conditions) > 1)
		partial(&builder, list_copy_head(uses->conditions, MAX_CONDITIONS));
	foreach(lc, uses->conditions)
	{
		if (foreach_current_index(lc) == MAX_CONDITIONS)
			break;
		partial(&builder, list_make1(lfirst(lc)));
	}
	builder.left = MAX_FILTERED;
	builder.filtered = true;
	if (list_length(uses->filters) > 1)
		partial(&builder, list_copy_head(uses->filters, MAX_CONDITIONS));
	foreach(lc, uses->filters)
	{
		if (foreach_current_index(lc) == MAX_CONDITIONS)
			break;
		partial(&builder, list_make1(lfirst(lc)));
	}
	builder.filtered = false;
	builder.left = MAX_OF_ARMS;
	foreach(lc, uses->ors)
		arms(&builder, lfirst(lc));
	builder.left = MAX_SINGLES;
	singles(&builder);
}
