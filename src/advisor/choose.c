/*
 * choose.c
 *		Which indexes, together, save the most of a workload.
 *
 * It knows nothing of where statements and their costs come from: whoever asks
 * for a choice prices statements and assesses indexes.  Nothing is shared.
 *
 * The choice is greedy at first, as the algorithm Extend is (Schlosser et al.,
 * ICDE 2019): of all candidates that the budget has room for, take the one that
 * saves the most for its bytes; an index that is contained in it makes room for
 * it.  What Extend does by appending a column at a time, candidates do that have
 * all the columns a statement wants; those that several statements want are
 * made of the chosen index and the candidates that begin as it does.  Indexes
 * that help together only, as the arms of an OR do, are tried together.  With a
 * budget this is done in several ways, which look more at bytes or more at what
 * is saved, and the best of them is improved: every chosen index is given up for
 * a try, and the room filled again.
 *
 * Planning takes nearly all of the time, so as few statements are planned as
 * possible.  A plan with the indexes G that uses U of them is also the plan with
 * any set between U and G; and with fewer indexes no plan gets cheaper.  So each
 * statement is first planned with all its candidates, then without those used,
 * and so on; most moves then have a bound that is known without planning, and
 * only those are looked at whose bound beats the best move so far.  This takes
 * for granted that the planner finds the cheapest plan, which it nearly does.
 */
#include "postgres.h"

#include "advisor/choose.h"

#include <math.h>

#include "advisor/advisor_internal.h"
#include "catalog/pg_am.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/hsearch.h"

/* Plans without those used so far, of each statement. */
#define PEELINGS			6

/* Wider indexes made of one, and the columns of these. */
#define WIDER_MADE			8
#define WIDER_KEYS			4
#define WIDER_COLUMNS		8

/* An index in place of a chosen one must save so much of what that one does. */
#define WIDER_SAVES			0.1

/*
 * One that finds rows is preferred to one that only gives their order, as that
 * one's price relies on LIMIT finding its rows soon.
 */
#define ORDER_HANDICAP		1.25

/*
 * Of two choices as good, the one with fewer indexes is better: each costs
 * something to keep, this part of what it must save at least.  With a budget,
 * bytes count rather.
 */
#define KEEPING				1.0
#define KEEPING_IN_BUDGET	0.1

/* Improvements smaller than this part of all are none. */
#define NOTHING				1e-6

/* A move: add these, and remove those. */
typedef struct Move
{
	List	   *added;			/* ChoiceIndex * */
	List	   *removed;
	double		bytes;			/* more than before */
	double		gain;			/* a bound, as long as it is not exact */
	double		score;
	double		speedup;
} Move;

/* Indexes of a table with the same first key. */
typedef struct FirstKey
{
	Oid			relid;
	uint32		key;
} FirstKey;

typedef struct FirstKeyEntry
{
	FirstKey	first;			/* hash key */
	List	   *indexes;		/* ChoiceIndex * */
	List	   *statements;		/* numbers */
} FirstKeyEntry;

/* ---------------------------------------------------------------------
 * Indexes
 */

/* Expressions that are told apart elsewhere may have the same one. */
static FirstKey
first_key(const IndexSpec *spec)
{
	FirstKey	first = {.relid = spec->relid};
	const IndexColumn *column = &spec->columns[0];

	first.key = column->attnum != 0 ? column->attnum :
		0x80000000 | ((((uint32) nodeTag(column->expr)) << 16) ^ column->type);
	return first;
}

static FirstKeyEntry *
entry_of(Choice *choice, const IndexSpec *spec)
{
	FirstKey	first = first_key(spec);
	bool		found;
	FirstKeyEntry *entry = hash_search(choice->by_key, &first, HASH_ENTER, &found);

	if (!found)
		entry->indexes = entry->statements = NIL;
	return entry;
}

static ChoiceIndex *
enter_index(Choice *choice, const IndexSpec *spec)
{
	FirstKeyEntry *entry = entry_of(choice, spec);
	ChoiceIndex *index;
	ListCell   *lc;

	foreach(lc, entry->indexes)
	{
		index = lfirst(lc);
		if (perfopt_index_spec_equal(index->spec, spec))
			return index;
	}
	index = palloc0(sizeof(ChoiceIndex));
	index->spec = spec;
	entry->indexes = lappend(entry->indexes, index);
	choice->indexes = lappend(choice->indexes, index);
	return index;
}

static void
grow_saved(ChoiceStatement *statement)
{
	Size		size;

	statement->max_indexes = Max(16, statement->max_indexes * 2);
	size = sizeof(double) * statement->max_indexes;
	statement->last_saved = statement->last_saved ? repalloc(statement->last_saved, size) : palloc(size);
	statement->most_saved = statement->most_saved ? repalloc(statement->most_saved, size) : palloc(size);
}

/* Have the index count for all statements that want one that begins so. */
static void
connect_index(Choice *choice, ChoiceIndex *index)
{
	ListCell   *lc;

	foreach(lc, entry_of(choice, index->spec)->statements)
	{
		ChoiceStatement *statement = &choice->statements[lfirst_int(lc)];
		ChoiceEffect *effect;

		if (index->num_effects == index->max_effects)
		{
			index->max_effects = Max(8, index->max_effects * 2);
			index->effects = index->effects == NULL ?
				palloc(sizeof(ChoiceEffect) * index->max_effects) :
				repalloc(index->effects, sizeof(ChoiceEffect) * index->max_effects);
		}
		effect = &index->effects[index->num_effects++];
		effect->statement = lfirst_int(lc);
		effect->number = list_length(statement->indexes);
		statement->indexes = lappend(statement->indexes, index);
		if (effect->number == statement->max_indexes)
			grow_saved(statement);
		statement->last_saved[effect->number] = statement->most_saved[effect->number] = 2;
	}
}

static bool
out_of_time(Choice *choice)
{
	CHECK_FOR_INTERRUPTS();
	if (!choice->out_of_time(choice->arg))
		return false;
	choice->cut_short = true;
	return true;
}

static void
assess_index(Choice *choice, ChoiceIndex *index)
{
	index->assessed = true;
	index->barred = !choice->assess(choice->arg, index) ||
		(choice->budget >= 0 && index->bytes > choice->budget);
}

static void
gather_indexes(Choice *choice)
{
	HASHCTL		ctl = {.keysize = sizeof(FirstKey),.entrysize = sizeof(FirstKeyEntry),.hcxt = CurrentMemoryContext};
	ListCell   *lc;

	choice->by_key = hash_create("perfopt first keys", 128, &ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < choice->num_statements; i++)
	{
		foreach(lc, choice->statements[i].candidates)
		{
			FirstKeyEntry *entry = entry_of(choice, lfirst(lc));

			(void) enter_index(choice, lfirst(lc));
			if (entry->statements == NIL || llast_int(entry->statements) != i)
				entry->statements = lappend_int(entry->statements, i);
		}
	}
	foreach(lc, choice->indexes)
	{
		ChoiceIndex *index = lfirst(lc);

		if (out_of_time(choice))
			break;
		assess_index(choice, index);
		if (!index->barred)
			connect_index(choice, index);
	}
	for_each_cell(lc, choice->indexes, lc)
		((ChoiceIndex *) lfirst(lc))->barred = true;
}

/* ---------------------------------------------------------------------
 * What statements cost
 */

/* NULL: not known without planning. */
static KnownCost *
known_cost(ChoiceStatement *statement, const Bitmapset *given)
{
	ListCell   *lc;

	foreach(lc, statement->known)
	{
		KnownCost  *known = lfirst(lc);

		if (bms_is_subset(known->used, given) && bms_is_subset(given, known->given))
			return known;
	}
	return NULL;
}

/* It costs at least so much. */
static double
least_cost(ChoiceStatement *statement, const Bitmapset *given)
{
	double		least = statement->floor;
	ListCell   *lc;

	foreach(lc, statement->known)
	{
		KnownCost  *known = lfirst(lc);

		if (known->ratio > least && bms_is_subset(given, known->given))
			least = known->ratio;
	}
	return least;
}

/* NULL: it can't be told, or not in time. */
static KnownCost *
cost_with(Choice *choice, int number, const Bitmapset *given)
{
	ChoiceStatement *statement = &choice->statements[number];
	KnownCost  *known = known_cost(statement, given);
	List	   *specs = NIL;
	Bitmapset  *used = NULL;
	int			position = 0;
	int			i = -1;

	if (known)
		return known;
	if (statement->unpriceable || out_of_time(choice))
		return NULL;
	while ((i = bms_next_member(given, i)) >= 0)
		specs = lappend(specs, unconstify(IndexSpec *,
										  ((ChoiceIndex *) list_nth(statement->indexes, i))->spec));
	known = palloc0(sizeof(KnownCost));
	choice->plans++;
	if (!choice->price(choice->arg, number, specs, &known->ratio, &used))
	{
		statement->unpriceable = true;
		return NULL;
	}
	known->given = bms_copy(given);
	for (i = bms_next_member(given, -1); i >= 0; i = bms_next_member(given, i), position++)
		if (bms_is_member(position, used))
			known->used = bms_add_member(known->used, i);
	bms_free(used);
	list_free(specs);
	statement->known = lcons(known, statement->known);
	return known;
}

/* Learn what candidates can do for the statement at all. */
static void
peel_statement(Choice *choice, int number)
{
	ChoiceStatement *statement = &choice->statements[number];
	Bitmapset  *given = NULL;
	KnownCost  *known = palloc0(sizeof(KnownCost));
	ListCell   *lc;

	statement->ratio = known->ratio = 1;
	statement->floor = 0;
	statement->known = list_make1(known);
	foreach(lc, statement->indexes)
	{
		ListCell   *own;

		foreach(own, statement->candidates)
			if (perfopt_index_spec_equal(lfirst(own), ((ChoiceIndex *) lfirst(lc))->spec))
			break;
		if (own)
			given = bms_add_member(given, foreach_current_index(lc));
	}
	for (int i = 0; i < PEELINGS; i++)
	{
		known = cost_with(choice, number, given);
		if (known == NULL)
			break;
		if (i == 0)
			statement->floor = Min(known->ratio, 1);
		if (known->used == NULL)
			break;
		given = bms_difference(given, known->used);
	}
}

/* ---------------------------------------------------------------------
 * Moves
 */

static ChoiceStatement *
touch(Choice *choice, int number, List **touched)
{
	ChoiceStatement *statement = &choice->statements[number];

	if (statement->trial_number != choice->trials)
	{
		statement->trial_number = choice->trials;
		statement->trial = bms_copy(statement->current);
		*touched = lappend_int(*touched, number);
	}
	return statement;
}

/*
 * What an index has saved for a statement it hardly saves more of when others
 * are there too, so that is a bound as well, unless we are to be thorough.
 */
static double
least_in_trial(Choice *choice, ChoiceStatement *statement, int added)
{
	double		least = least_cost(statement, statement->trial);

	if (added >= 0 && !choice->thorough)
		least = Max(least, statement->ratio - statement->last_saved[added]);
	return least;
}

static void
remember_saved(ChoiceStatement *statement, int added, double ratio)
{
	double		saved = Max(statement->ratio - ratio, 0);

	statement->last_saved[added] = saved;
	if (statement->most_saved[added] > 1 || saved > statement->most_saved[added])
		statement->most_saved[added] = saved;
}

/* The number that the statement has for the only index added; or -1. */
static int
number_of(const Move *move, int statement)
{
	ChoiceIndex *index;

	if (list_length(move->added) != 1)
		return -1;
	index = linitial(move->added);
	for (int i = 0; i < index->num_effects; i++)
		if (index->effects[i].statement == statement)
			return index->effects[i].number;
	return -1;
}

/* Give the statements the move is about their trial; returns their numbers. */
static List *
begin_trial(Choice *choice, Move *move)
{
	List	   *touched = NIL;
	ListCell   *lc;

	choice->trials++;
	foreach(lc, move->removed)
	{
		ChoiceIndex *index = lfirst(lc);

		for (int i = 0; i < index->num_effects; i++)
		{
			ChoiceStatement *statement = &choice->statements[index->effects[i].statement];

			if (!bms_is_member(index->effects[i].number, statement->current))
				continue;
			statement = touch(choice, index->effects[i].statement, &touched);
			statement->trial = bms_del_member(statement->trial, index->effects[i].number);
		}
	}
	foreach(lc, move->added)
	{
		ChoiceIndex *index = lfirst(lc);

		for (int i = 0; i < index->num_effects; i++)
		{
			ChoiceStatement *statement = &choice->statements[index->effects[i].statement];

			/* nothing to be gained by that any more */
			if (statement->unpriceable ||
				(statement->trial_number != choice->trials &&
				 statement->floor >= statement->ratio * (1 - NOTHING)))
				continue;
			statement = touch(choice, index->effects[i].statement, &touched);
			statement->trial = bms_add_member(statement->trial, index->effects[i].number);
		}
	}
	return touched;
}

/*
 * What the move would save, or, as soon as that is known to be less than the
 * cutoff, a bound of it.  Without planning it is a bound in any case.
 */
static double
gain_of(Choice *choice, Move *move, bool planning, double cutoff)
{
	List	   *touched = begin_trial(choice, move);
	List	   *open = NIL;
	double		gain = 0;
	ListCell   *lc;

	foreach(lc, move->removed)
		gain += ((ChoiceIndex *) lfirst(lc))->writes;
	foreach(lc, move->added)
		gain -= ((ChoiceIndex *) lfirst(lc))->writes;
	foreach(lc, touched)
	{
		ChoiceStatement *statement = &choice->statements[lfirst_int(lc)];
		KnownCost  *known = known_cost(statement, statement->trial);
		int			added = number_of(move, lfirst_int(lc));

		statement->trial_least = known ? known->ratio :
			least_in_trial(choice, statement, added);
		gain += statement->weight * (statement->ratio - statement->trial_least);
		if (known == NULL && statement->trial_least < statement->ratio * (1 - NOTHING))
			open = lappend_int(open, lfirst_int(lc));
		else if (known && added >= 0)
			remember_saved(statement, added, known->ratio);
	}
	if (planning && gain >= cutoff)
	{
		foreach(lc, open)
		{
			ChoiceStatement *statement = &choice->statements[lfirst_int(lc)];
			KnownCost  *known = cost_with(choice, lfirst_int(lc), statement->trial);
			int			added = number_of(move, lfirst_int(lc));
			double		ratio = known ? known->ratio :
			move->removed ? 1 : statement->ratio;

			if (known && added >= 0)
				remember_saved(statement, added, ratio);
			gain -= statement->weight * (ratio - statement->trial_least);
			statement->trial_least = ratio;
			if (gain < cutoff)
				break;
		}
	}
	move->speedup = 1;
	foreach(lc, touched)
	{
		ChoiceStatement *statement = &choice->statements[lfirst_int(lc)];

		if (statement->trial_least > 0)
			move->speedup = Max(move->speedup, statement->ratio / statement->trial_least);
		bms_free(statement->trial);
		statement->trial = NULL;
	}
	list_free(touched);
	list_free(open);
	return gain;
}

static void
set_current(Choice *choice, ChoiceIndex *index, bool chosen)
{
	index->chosen = chosen;
	choice->bytes += chosen ? index->bytes : -index->bytes;
	choice->chosen = chosen ? lappend(choice->chosen, index) :
		list_delete_ptr(choice->chosen, index);
	for (int i = 0; i < index->num_effects; i++)
	{
		ChoiceStatement *statement = &choice->statements[index->effects[i].statement];

		statement->current = chosen ?
			bms_add_member(statement->current, index->effects[i].number) :
			bms_del_member(statement->current, index->effects[i].number);
		statement->trial_number = 0;

		/* without it others may save more again */
		if (!chosen && bms_is_member(index->effects[i].number, statement->used))
			memcpy(statement->last_saved, statement->most_saved,
				   sizeof(double) * list_length(statement->indexes));
	}
}

/* Price what the statements of these indexes cost now. */
static void
price_current(Choice *choice, List *indexes)
{
	ListCell   *lc;

	choice->trials++;
	foreach(lc, indexes)
	{
		ChoiceIndex *index = lfirst(lc);

		for (int i = 0; i < index->num_effects; i++)
		{
			int			number = index->effects[i].statement;
			ChoiceStatement *statement = &choice->statements[number];
			KnownCost  *known;

			if (statement->trial_number == choice->trials)
				continue;
			statement->trial_number = choice->trials;
			/* what can't be any better stays as it is */
			if (bms_is_subset(statement->used, statement->current) &&
				statement->ratio <= statement->floor * (1 + NOTHING))
				continue;
			known = cost_with(choice, number, statement->current);
			if (known)
			{
				statement->ratio = known->ratio;
				statement->used = known->used;
			}
			else if (!bms_is_subset(statement->used, statement->current))
			{
				statement->ratio = 1;
				statement->used = NULL;
			}
		}
	}
}

static double
total_of(Choice *choice)
{
	double		total = (choice->budget < 0 ? KEEPING : KEEPING_IN_BUDGET) *
	choice->least * list_length(choice->chosen);
	ListCell   *lc;

	for (int i = 0; i < choice->num_statements; i++)
		total += choice->statements[i].weight * choice->statements[i].ratio;
	foreach(lc, choice->chosen)
		total += ((ChoiceIndex *) lfirst(lc))->writes;
	return total;
}

static void
make_move(Choice *choice, const Move *move)
{
	ListCell   *lc;

	foreach(lc, move->removed)
		set_current(choice, lfirst(lc), false);
	foreach(lc, move->added)
		set_current(choice, lfirst(lc), true);
	price_current(choice, move->removed);
	price_current(choice, move->added);
}

/* Have these chosen, and no others. */
static void
restore(Choice *choice, List *chosen)
{
	List	   *before = list_copy(choice->chosen);
	ListCell   *lc;

	foreach(lc, before)
		set_current(choice, lfirst(lc), false);
	foreach(lc, chosen)
		set_current(choice, lfirst(lc), true);
	for (int i = 0; i < choice->num_statements; i++)
		if (!bms_is_subset(choice->statements[i].used, choice->statements[i].current))
		{
			choice->statements[i].ratio = 1;
			choice->statements[i].used = NULL;
		}
	price_current(choice, before);
	price_current(choice, chosen);
	list_free(before);
}

/* ---------------------------------------------------------------------
 * Wider indexes
 */

static bool
has_attnum(const IndexSpec *spec, AttrNumber attnum)
{
	for (int i = 0; i < spec->num_columns; i++)
		if (spec->columns[i].attnum == attnum)
			return true;
	return false;
}

static const char *
append_key_of(IndexSpec *spec, const IndexColumn *column)
{
	Node	   *key = column->expr ? column->expr :
	(Node *) makeVar(1, column->attnum, column->type, column->typmod, column->collation, 0);

	return perfopt_index_spec_add_key(spec, key, column->opclass, column->collation,
									  column->options);
}

/*
 * All of the first one's keys, the next key of the other's that it lacks, if
 * one more is wanted, and what else both have as included columns, if that is.
 * NULL if that can't be, or is too wide.
 */
static IndexSpec *
wider(const IndexSpec *spec, const IndexSpec *other, bool one_key, bool include)
{
	IndexSpec  *made;

	if (spec->am != BTREE_AM_OID || other->am != BTREE_AM_OID ||
		!equal(spec->predicate, other->predicate))
		return NULL;
	made = perfopt_index_spec_create(spec->relid, spec->am);
	for (int i = 0; i < spec->num_keys; i++)
		if (append_key_of(made, &spec->columns[i]))
			return NULL;
	for (int i = 0; one_key && i < other->num_keys; i++)
	{
		if (other->columns[i].attnum == 0 || has_attnum(made, other->columns[i].attnum))
			continue;
		if (made->num_keys == WIDER_KEYS || append_key_of(made, &other->columns[i]))
			return NULL;
		break;
	}
	for (int i = 0; include && i < spec->num_columns + other->num_columns; i++)
	{
		const IndexColumn *column = i < spec->num_columns ? &spec->columns[i] :
		&other->columns[i - spec->num_columns];

		if (column->attnum == 0 || has_attnum(made, column->attnum))
			continue;
		if (made->num_columns == WIDER_COLUMNS ||
			perfopt_index_spec_add_included(made, column->attnum))
			return NULL;
	}
	made->predicate = spec->predicate;
	made->fillfactor = spec->fillfactor;
	made->order_only = spec->order_only && other->order_only;
	made->any_direction = spec->any_direction && other->any_direction;
	return made;
}

/* What the index has saved for the statement; 0: it is of no use for that. */
static double
saved_by(Choice *choice, const ChoiceIndex *index, int statement)
{
	for (int i = 0; i < index->num_effects; i++)
		if (index->effects[i].statement == statement)
			return choice->statements[statement].last_saved[index->effects[i].number];
	return 0;
}

/*
 * Wider than one by columns of another.  What those can save is what they save
 * in that one.
 */
static bool
add_wider(Choice *choice, const IndexSpec *spec, ChoiceIndex *narrow, ChoiceIndex *other)
{
	int			known = list_length(choice->indexes);
	ChoiceIndex *index;

	if (spec == NULL || perfopt_index_spec_serves(narrow->spec, spec))
		return false;
	index = enter_index(choice, spec);
	if (list_length(choice->indexes) == known)
		return false;
	index->bytes = narrow->bytes;
	index->writes = narrow->writes;
	connect_index(choice, index);
	for (int i = 0; i < index->num_effects; i++)
	{
		ChoiceStatement *statement = &choice->statements[index->effects[i].statement];
		double		saved = saved_by(choice, other, index->effects[i].statement);

		statement->last_saved[index->effects[i].number] =
			statement->most_saved[index->effects[i].number] = saved;
	}
	return true;
}

/* Candidates made of a chosen one and others that its statements want. */
static void
widen(Choice *choice, ChoiceIndex *chosen)
{
	List	   *others = list_copy(entry_of(choice, chosen->spec)->indexes);
	int			made = 0;
	ListCell   *lc;

	if (chosen->widened)
		return;
	chosen->widened = true;
	for (int i = 0; i < chosen->num_effects; i++)
	{
		ChoiceStatement *statement = &choice->statements[chosen->effects[i].statement];

		if (statement->floor >= statement->ratio * (1 - NOTHING))
			continue;
		foreach(lc, statement->indexes)
		{
			ChoiceIndex *index = lfirst(lc);

			if (index->spec->relid == chosen->spec->relid)
				others = list_append_unique_ptr(others, index);
		}
	}
	foreach(lc, others)
	{
		ChoiceIndex *other = lfirst(lc);
		Move		move = {.added = list_make1(other)};

		if (made >= WIDER_MADE || out_of_time(choice))
			break;
		if (other == chosen || other->barred || other->chosen ||
			perfopt_index_spec_serves(other->spec, chosen->spec) ||
			gain_of(choice, &move, false, 0) < choice->least)
			continue;
		made += add_wider(choice, wider(chosen->spec, other->spec, true, false), chosen, other);
		made += add_wider(choice, wider(chosen->spec, other->spec, false, true), chosen, other);
	}
	list_free(others);
}

/* ---------------------------------------------------------------------
 * The choice
 */

static void
score_move(Choice *choice, Move *move, double exponent)
{
	double		bytes = Max(move->bytes, BLCKSZ);

	move->score = move->gain / pow(bytes, exponent);
	if (((ChoiceIndex *) linitial(move->added))->spec->order_only)
		move->score /= ORDER_HANDICAP;
}

/* Bring the move into the list if it may be worth it. */
static List *
consider(Choice *choice, List *moves, List *added, double exponent)
{
	Move	   *move = palloc0(sizeof(Move));
	ListCell   *lc;
	ListCell   *lc2;

	move->added = added;
	foreach(lc, choice->chosen)
	{
		ChoiceIndex *chosen = lfirst(lc);

		foreach(lc2, added)
		{
			if (!perfopt_index_spec_serves(((ChoiceIndex *) lfirst(lc2))->spec, chosen->spec))
				continue;
			move->removed = lappend(move->removed, chosen);
			move->bytes -= chosen->bytes;
			break;
		}
	}
	foreach(lc, added)
		move->bytes += ((ChoiceIndex *) lfirst(lc))->bytes;
	if (choice->budget < 0 || choice->bytes + move->bytes <= choice->budget)
	{
		move->gain = gain_of(choice, move, false, 0);
		if (move->gain >= choice->least && move->gain > 0 &&
			move->speedup >= choice->least_speedup)
		{
			score_move(choice, move, exponent);
			return lappend(moves, move);
		}
	}
	list_free(move->removed);
	list_free(move->added);
	pfree(move);
	return moves;
}

/* Indexes that a statement's best plan uses together. */
static List *
used_together(Choice *choice, ChoiceStatement *statement)
{
	KnownCost  *best;
	List	   *indexes = NIL;
	int			i = -1;

	if (statement->unpriceable || statement->ratio <= statement->floor * 1.01)
		return NIL;
	best = NULL;
	for (int k = list_length(statement->known) - 1; k >= 0 && best == NULL; k--)
	{
		KnownCost  *known = list_nth(statement->known, k);

		if (known->ratio <= statement->floor * (1 + NOTHING))
			best = known;
	}
	if (best == NULL)
		return NIL;
	while ((i = bms_next_member(best->used, i)) >= 0)
	{
		ChoiceIndex *index = list_nth(statement->indexes, i);

		if (!index->chosen && !index->barred)
			indexes = lappend(indexes, index);
	}
	return indexes;
}

/* Only one that was made wider may not be. */
static bool
is_assessed(Choice *choice, Move *move)
{
	ChoiceIndex *index = linitial(move->added);

	if (index->assessed)
		return true;
	if (out_of_time(choice))
		index->barred = true;
	else
		assess_index(choice, index);
	return false;
}

static bool
worth_it(Choice *choice, const Move *move)
{
	double		least = choice->least;
	ListCell   *lc;

	if (choice->least_speedup > 1)
		foreach(lc, move->removed)
			least = Max(least, ((ChoiceIndex *) lfirst(lc))->saved * WIDER_SAVES);
	return move->gain >= least && move->gain > 0 && move->speedup >= choice->least_speedup;
}

/* NULL: there is none. */
static Move *
best_move(Choice *choice, double exponent)
{
	List	   *moves = NIL;
	Move	   *best = NULL;
	ListCell   *lc;

	foreach(lc, choice->indexes)
	{
		ChoiceIndex *index = lfirst(lc);

		if (!index->chosen && !index->barred)
			moves = consider(choice, moves, list_make1(index), exponent);
	}
	for (int i = 0; i < choice->num_statements; i++)
	{
		List	   *together = used_together(choice, &choice->statements[i]);

		if (list_length(together) > 1)
			moves = consider(choice, moves, together, exponent);
	}
	/* when time is up, what is known still counts */
	while (moves != NIL)
	{
		Move	   *move = linitial(moves);

		foreach(lc, moves)
			if (((Move *) lfirst(lc))->score > move->score)
			move = lfirst(lc);
		if (best && move->score <= best->score)
			break;
		if (!is_assessed(choice, move))
		{
			/* it may be larger than it seemed */
			moves = list_delete_ptr(moves, move);
			if (!((ChoiceIndex *) linitial(move->added))->barred)
				moves = consider(choice, moves, move->added, exponent);
			continue;
		}
		moves = list_delete_ptr(moves, move);
		move->gain = gain_of(choice, move, true,
							 best ? best->score * pow(Max(move->bytes, BLCKSZ), exponent) : choice->least);
		score_move(choice, move, exponent);
		if (worth_it(choice, move) && (best == NULL || move->score > best->score))
			best = move;
	}
	list_free(moves);
	return best;
}

static void
fill(Choice *choice, double exponent)
{
	Move	   *move;
	ListCell   *lc;

	while ((move = best_move(choice, exponent)) != NULL)
	{
		double		inherited = 0;

		foreach(lc, move->removed)
			inherited += ((ChoiceIndex *) lfirst(lc))->saved;
		make_move(choice, move);
		foreach(lc, move->added)
		{
			ChoiceIndex *index = lfirst(lc);

			index->saved = (move->gain + inherited) / list_length(move->added);
			widen(choice, index);
		}
	}
}

/* What giving up the index would cost. */
static double
loss_of(Choice *choice, ChoiceIndex *index)
{
	Move		move = {.removed = list_make1(index)};

	return -gain_of(choice, &move, true, -HUGE_VAL);
}

/* What nobody uses, or hardly, goes. */
static void
drop_useless(Choice *choice)
{
	bool		again = true;

	while (again && !out_of_time(choice))
	{
		ListCell   *lc;

		again = false;
		foreach(lc, choice->chosen)
		{
			Move		move = {.removed = list_make1(lfirst(lc))};

			if (loss_of(choice, lfirst(lc)) > choice->least / 2)
				continue;
			make_move(choice, &move);
			again = true;
			break;
		}
	}
}

/* Give up each for a try, and fill the room again. */
static void
improve(Choice *choice)
{
	double		best = total_of(choice);
	List	   *best_chosen = list_copy(choice->chosen);
	bool		again = true;

	while (again && !out_of_time(choice))
	{
		List	   *tried = list_copy(best_chosen);
		ListCell   *lc;

		again = false;
		foreach(lc, tried)
		{
			ChoiceIndex *index = lfirst(lc);
			Move		move = {.removed = list_make1(index)};

			if (!index->chosen)
				continue;
			if (out_of_time(choice))
				break;
			make_move(choice, &move);
			index->barred = true;
			fill(choice, 1);
			index->barred = false;
			if (!choice->cut_short)
				fill(choice, 1);
			if (total_of(choice) < best * (1 - NOTHING) && !choice->cut_short)
			{
				best = total_of(choice);
				best_chosen = list_copy(choice->chosen);
				again = true;
			}
			else
				restore(choice, best_chosen);
		}
	}
}

void
perfopt_choose(Choice *choice)
{
	static const double exponents[] = {1, 0.5};
	List	   *best = NIL;
	double		best_total = HUGE_VAL;
	ListCell   *lc;

	gather_indexes(choice);
	for (int i = 0; i < choice->num_statements; i++)
		peel_statement(choice, i);

	/* without a budget the cheapest indexes lead to the same end */
	for (int i = 0; i < (choice->budget < 0 ? 1 : lengthof(exponents)); i++)
	{
		restore(choice, NIL);
		fill(choice, exponents[i]);
		if (total_of(choice) < best_total)
		{
			best_total = total_of(choice);
			best = list_copy(choice->chosen);
		}
	}
	restore(choice, best);
	choice->thorough = true;
	fill(choice, 1);
	choice->thorough = false;
	improve(choice);
	choice->thorough = true;
	fill(choice, 1);
	drop_useless(choice);

	choice->total = total_of(choice);
	foreach(lc, choice->chosen)
	{
		ChoiceIndex *index = lfirst(lc);
		Move		move = {.removed = list_make1(index)};

		index->saved = -gain_of(choice, &move, true, -HUGE_VAL);
	}
}

bool
perfopt_choice_uses(const Choice *choice, int statement, const ChoiceIndex *index)
{
	for (int i = 0; i < index->num_effects; i++)
		if (index->effects[i].statement == statement)
			return bms_is_member(index->effects[i].number,
								 choice->statements[statement].used);
	return false;
}

double
perfopt_choice_ratio_without(Choice *choice, int statement, ChoiceIndex *index)
{
	Bitmapset  *given = bms_copy(choice->statements[statement].current);
	KnownCost  *known;

	for (int i = 0; i < index->num_effects; i++)
		if (index->effects[i].statement == statement)
			given = bms_del_member(given, index->effects[i].number);
	known = cost_with(choice, statement, given);
	bms_free(given);
	return known ? known->ratio : 1;
}
