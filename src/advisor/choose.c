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
 * Planning takes nearly all of the time.  choose_costs.c has few of it done;
 * choose_indexes.c has the candidates, choose_wider.c makes more of them.
 */
#include "postgres.h"

#include "advisor/choose_internal.h"

#include <math.h>

#include "miscadmin.h"

/* An index in place of a chosen one must save so much of what that one does. */
#define WIDER_SAVES			0.1

/* Left of the budget for indexes that turn out to be larger than estimated. */
#define SIZE_MARGIN			0.03

/*
 * One that finds rows is preferred to one that only gives their order, as that
 * one's price relies on LIMIT finding its rows soon.
 */
#define ORDER_HANDICAP		1.25

/* One that was chosen before is given up for one that is better by this only. */
#define PREFERENCE			1.25

/* For columns as keys rather than included. */
#define MORE_BYTES			1.3

/*
 * What could be dropped counts so much in favour of an index: somebody has to do
 * it.
 */
#define FREED_COUNTS		0.5

static void
score_move(Choice *choice, Move *move, double exponent)
{
	double		bytes = move->bytes;
	ListCell   *lc;

	foreach(lc, move->added)
		bytes -= FREED_COUNTS * ((ChoiceIndex *) lfirst(lc))->freed;
	bytes = Max(bytes, BLCKSZ);
	move->scored_bytes = bytes;
	move->score = move->gain / pow(bytes, exponent);
	if (((ChoiceIndex *) linitial(move->added))->spec->order_only)
		move->score /= ORDER_HANDICAP;
	if (((ChoiceIndex *) linitial(move->added))->preferred)
		move->score *= PREFERENCE;
}

/* There are many of them. */
static void
free_move(Move *move)
{
	list_free(move->added);
	list_free(move->removed);
	pfree(move);
}

/* Bring the move into the list if it may be worth it. */
static List *
consider(Choice *choice, List *moves, List *added, double exponent)
{
	Move	   *move = palloc0(sizeof(Move));
	ListCell   *lc;
	ListCell   *lc2;

	move->added = added;
	foreach(lc, added)
	{
		ChoiceIndex *index = lfirst(lc);

		foreach(lc2, index->table->chosen)
		{
			ChoiceIndex *chosen = lfirst(lc2);

			if (!perfopt_index_spec_serves(index->spec, chosen->spec) ||
				list_member_ptr(move->removed, chosen))
				continue;
			move->removed = lappend(move->removed, chosen);
			move->bytes -= chosen->bytes;
		}
	}
	foreach(lc, added)
		move->bytes += ((ChoiceIndex *) lfirst(lc))->bytes;
	if (choice->budget < 0 || choice->bytes + move->bytes <= choice->budget)
	{
		move->gain = choice_gain(choice, move, false, 0);
		if (move->gain >= choice_least(choice, move) && move->gain > 0 &&
			move->speedup >= choice->least_speedup)
		{
			score_move(choice, move, exponent);
			return lappend(moves, move);
		}
	}
	free_move(move);
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
	if (choice_out_of_time(choice))
		index->barred = true;
	else
		choice_assess(choice, index);
	return false;
}

static bool
worth_it(Choice *choice, const Move *move)
{
	double		least = choice_least(choice, move);
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
		else
			list_free(together);
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
		moves = list_delete_ptr(moves, move);
		if (!is_assessed(choice, move))
		{
			/* it may be larger than it seemed */
			if (!((ChoiceIndex *) linitial(move->added))->barred)
				moves = consider(choice, moves, list_copy(move->added), exponent);
			free_move(move);
			continue;
		}
		move->gain = choice_gain(choice, move, true,
								 best ? best->score * pow(move->scored_bytes, exponent) :
								 Min(choice->least, choice->least_fast));
		score_move(choice, move, exponent);
		if (worth_it(choice, move) && (best == NULL || move->score > best->score))
		{
			if (best)
				free_move(best);
			best = move;
		}
		else
			free_move(move);
	}
	foreach(lc, moves)
		free_move(lfirst(lc));
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

		CHECK_FOR_INTERRUPTS();
		foreach(lc, move->removed)
			inherited += ((ChoiceIndex *) lfirst(lc))->saved;
		choice_move(choice, move);
		foreach(lc, move->added)
		{
			ChoiceIndex *index = lfirst(lc);

			index->saved = (move->gain + inherited) / list_length(move->added);
			choice_widen(choice, index);
		}
		free_move(move);
	}
}

/* What nobody uses, or hardly, goes. */
static void
drop_useless(Choice *choice)
{
	bool		again = true;

	while (again && !choice_out_of_time(choice))
	{
		ListCell   *lc;

		again = false;
		foreach(lc, choice->chosen)
		{
			Move		move = {.removed = list_make1(lfirst(lc))};

			if (-choice_gain(choice, &move, true, -HUGE_VAL) > choice_least(choice, &move) / 2)
			{
				list_free(move.removed);
				continue;
			}
			choice_move(choice, &move);
			again = true;
			break;
		}
	}
}

/* Give up each for a try, and fill the room again. */
static void
improve(Choice *choice)
{
	double		best = choice_total(choice);
	List	   *best_chosen = list_copy(choice->chosen);
	bool		again = true;

	while (again && !choice_out_of_time(choice))
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
			if (choice_out_of_time(choice))
				break;
			choice_move(choice, &move);
			index->barred = true;
			fill(choice, 1);
			index->barred = false;
			if (!choice->cut_short)
				fill(choice, 1);
			if (choice_total(choice) < best * (1 - NOTHING) && !choice->cut_short)
			{
				best = choice_total(choice);
				best_chosen = list_copy(choice->chosen);
				again = true;
			}
			else
				choice_restore(choice, best_chosen);
		}
	}
}

/* The same columns, and more of them keys. */
static bool
has_more_keys(const IndexSpec *spec, const IndexSpec *other)
{
	if (spec->relid != other->relid || spec->am != other->am ||
		spec->num_columns != other->num_columns || spec->num_keys <= other->num_keys ||
		!equal(spec->predicate, other->predicate))
		return false;
	for (int i = 0; i < other->num_columns; i++)
	{
		bool		found = false;

		for (int j = 0; j < spec->num_columns && !found; j++)
			found = spec->columns[j].attnum == other->columns[i].attnum &&
				spec->columns[j].attnum != 0;
		if (!found)
			return false;
	}
	return true;
}

/*
 * Where columns are only included that keys could be, little is saved by these
 * as long as few rows are found, which may not stay so.
 */
static void
prefer_keys(Choice *choice)
{
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, list_copy(choice->chosen))
	{
		ChoiceIndex *index = lfirst(lc);

		foreach(lc2, choice->indexes)
		{
			ChoiceIndex *other = lfirst(lc2);
			Move		move = {0};

			if (!index->chosen || index->preferred || other->chosen || other->barred ||
				!other->assessed || !has_more_keys(other->spec, index->spec) ||
				other->bytes > index->bytes * MORE_BYTES || choice_out_of_time(choice) ||
				(choice->budget >= 0 &&
				 choice->bytes + other->bytes - index->bytes > choice->budget))
				continue;
			move.added = list_make1(other);
			move.removed = list_make1(index);
			if (choice_gain(choice, &move, true, -HUGE_VAL) > 0)
				choice_move(choice, &move);
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

	if (choice->budget > 0)
		choice->budget *= 1 - SIZE_MARGIN;
	choice_gather(choice);

	/* without a budget the cheapest indexes lead to the same end */
	for (int i = 0; i < (choice->budget < 0 ? 1 : lengthof(exponents)); i++)
	{
		choice_restore(choice, NIL);
		fill(choice, exponents[i]);
		if (choice_total(choice) < best_total)
		{
			best_total = choice_total(choice);
			best = list_copy(choice->chosen);
		}
	}
	choice_restore(choice, best);
	choice->thorough = true;
	fill(choice, 1);
	choice->thorough = false;
	improve(choice);
	choice->thorough = true;
	fill(choice, 1);
	drop_useless(choice);
	prefer_keys(choice);

	choice->total = choice_total(choice);
	foreach(lc, choice->chosen)
	{
		ChoiceIndex *index = lfirst(lc);
		Move		move = {.removed = list_make1(index)};

		index->saved = -choice_gain(choice, &move, true, -HUGE_VAL);
		if (move.slowdown >= MUCH_FASTER)
			index->saved -= index->writes * (1 - EASED_WRITES);
		list_free(move.removed);
	}
	choice->cut_short = choice->cut_short || choice->hurried;
}
