/*
 * choose_costs.c
 *		What statements cost with some of the candidates, with as few plans as
 *		possible.
 *
 * A plan with the indexes G that uses U of them is also the plan with
 * any set between U and G; and with fewer indexes no plan gets cheaper.  So each
 * statement is first planned with all its candidates, then without those used,
 * and so on; most moves then have a bound that is known without planning, and
 * only those are looked at whose bound beats the best move so far.  This takes
 * for granted that the planner finds the cheapest plan, which it nearly does.
 */
#include "postgres.h"

#include "advisor/choose_internal.h"

#include <math.h>

/* Plans without those used so far, of each statement. */
#define PEELINGS			6

/*
 * Of two choices as good, the one with fewer indexes is better: each costs
 * something to keep, this part of what it must save at least.  With a budget,
 * bytes count rather.
 */
#define KEEPING				1.0
#define KEEPING_IN_BUDGET	0.1

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
KnownCost *
choice_cost_with(Choice *choice, int number, const Bitmapset *given)
{
	ChoiceStatement *statement = &choice->statements[number];
	KnownCost  *known = known_cost(statement, given);
	List	   *specs = NIL;
	Bitmapset  *used = NULL;
	int			position = 0;
	int			i = -1;

	if (known)
		return known;
	if (statement->unpriceable || choice_out_of_time(choice))
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

void
choice_start(Choice *choice, int number)
{
	ChoiceStatement *statement = &choice->statements[number];

	statement->ratio = 1;
	statement->floor = 0;
	statement->known = list_make1(palloc0(sizeof(KnownCost)));
	((KnownCost *) linitial(statement->known))->ratio = 1;
}

/* Learn what candidates can do for the statement at all. */
void
choice_peel(Choice *choice, int number)
{
	ChoiceStatement *statement = &choice->statements[number];
	Bitmapset  *given = NULL;
	KnownCost  *known;
	ListCell   *lc;

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
		known = choice_cost_with(choice, number, given);
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

double
choice_least(const Choice *choice, const Move *move)
{
	double		speedup = move->added ? move->speedup : move->slowdown;
	double		bytes = 0;
	ListCell   *lc;

	if (speedup < MUCH_FASTER)
		return choice->least;
	foreach(lc, move->added ? move->added : move->removed)
		bytes += ((ChoiceIndex *) lfirst(lc))->bytes;
	return Min(choice->least,
			   Max(choice->least_fast, choice->least_fast * bytes / choice->least_fast_bytes));
}

/* The writes that are no longer paid for, less those that are now. */
static double
writes_saved(const Move *move)
{
	bool		eased = move->speedup >= MUCH_FASTER;
	double		saved = 0;
	ListCell   *lc;

	foreach(lc, move->removed)
	{
		ChoiceIndex *index = lfirst(lc);
		bool		much_faster = move->added ? index->much_faster :
		move->slowdown >= MUCH_FASTER;

		eased = eased || much_faster;
		saved += index->writes * (much_faster ? EASED_WRITES : 1);
	}
	foreach(lc, move->added)
		saved -= ((ChoiceIndex *) lfirst(lc))->writes * (eased ? EASED_WRITES : 1);
	return saved;
}

/* As fast, or slow, as what statements cost in the trial makes them. */
static void
tell_speedup(Choice *choice, Move *move, List *touched)
{
	ListCell   *lc;

	move->speedup = move->slowdown = 1;
	foreach(lc, touched)
	{
		ChoiceStatement *statement = &choice->statements[lfirst_int(lc)];

		if (statement->trial_least > 0)
			move->speedup = Max(move->speedup, statement->ratio / statement->trial_least);
		if (statement->ratio > 0)
			move->slowdown = Max(move->slowdown, statement->trial_least / statement->ratio);
	}
}

/*
 * What the move would save, or, as soon as that is known to be less than the
 * cutoff, a bound of it.  Without planning it is a bound in any case.
 */
double
choice_gain(Choice *choice, Move *move, bool planning, double cutoff)
{
	List	   *touched = begin_trial(choice, move);
	List	   *open = NIL;
	double		gain = 0;		/* of statements */
	ListCell   *lc;

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
	tell_speedup(choice, move, touched);
	if (planning && gain + writes_saved(move) >= cutoff)
	{
		foreach(lc, open)
		{
			ChoiceStatement *statement = &choice->statements[lfirst_int(lc)];
			KnownCost  *known = choice_cost_with(choice, lfirst_int(lc), statement->trial);
			int			added = number_of(move, lfirst_int(lc));
			double		ratio = known ? known->ratio :
			move->removed ? 1 : statement->ratio;

			if (known && added >= 0)
				remember_saved(statement, added, ratio);
			gain -= statement->weight * (ratio - statement->trial_least);
			statement->trial_least = ratio;
			tell_speedup(choice, move, touched);
			if (gain + writes_saved(move) < cutoff)
				break;
		}
	}
	foreach(lc, touched)
	{
		ChoiceStatement *statement = &choice->statements[lfirst_int(lc)];

		bms_free(statement->trial);
		statement->trial = NULL;
	}
	list_free(touched);
	list_free(open);
	return gain + writes_saved(move);
}

static void
set_current(Choice *choice, ChoiceIndex *index, bool chosen)
{
	List	  **of_table = &index->table->chosen;

	index->chosen = chosen;
	*of_table = chosen ? lappend(*of_table, index) : list_delete_ptr(*of_table, index);
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
			known = choice_cost_with(choice, number, statement->current);
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

double
choice_total(Choice *choice)
{
	double		total = 0;
	double		keeping = choice->budget < 0 ? KEEPING : KEEPING_IN_BUDGET;
	ListCell   *lc;

	for (int i = 0; i < choice->num_statements; i++)
		total += choice->statements[i].weight * choice->statements[i].ratio;
	foreach(lc, choice->chosen)
	{
		ChoiceIndex *index = lfirst(lc);

		total += index->writes * (index->much_faster ? EASED_WRITES : 1) +
			(index->preferred ? 0 : keeping *
			 (index->much_faster ? Min(choice->least, choice->least_fast) : choice->least));
	}
	return total;
}

void
choice_move(Choice *choice, const Move *move)
{
	bool		much_faster = move->speedup >= MUCH_FASTER;
	ListCell   *lc;

	foreach(lc, move->removed)
	{
		set_current(choice, lfirst(lc), false);
		much_faster = much_faster || ((ChoiceIndex *) lfirst(lc))->much_faster;
	}
	foreach(lc, move->added)
	{
		set_current(choice, lfirst(lc), true);
		((ChoiceIndex *) lfirst(lc))->much_faster = much_faster;
	}
	price_current(choice, move->removed);
	price_current(choice, move->added);
}

/* Have these chosen, and no others. */
void
choice_restore(Choice *choice, List *chosen)
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
 * What was found
 */

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
	known = choice_cost_with(choice, statement, given);
	bms_free(given);
	return known ? known->ratio : 1;
}
