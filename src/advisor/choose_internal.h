/*
 * choose_internal.h
 *		Private to src/advisor/choose*.c.
 */
#ifndef PERFOPT_CHOOSE_INTERNAL_H
#define PERFOPT_CHOOSE_INTERNAL_H

#include "advisor/choose.h"

/* Improvements smaller than this part of all are none. */
#define NOTHING				1e-6

/*
 * So many times as fast is another way of doing it.  An index that makes a
 * statement that may do so for less time saved in all, and what it costs those
 * who write, which is estimated on the safe side, counts less.
 */
#define MUCH_FASTER			5
#define EASED_WRITES		0.5

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

/* A move: add these, and remove those. */
typedef struct Move
{
	List	   *added;			/* ChoiceIndex * */
	List	   *removed;
	double		bytes;			/* more than before */
	double		scored_bytes;
	double		gain;			/* a bound, as long as it is not exact */
	double		score;
	double		speedup;		/* of the statement that it helps most */
	double		slowdown;		/* ... harms most */
} Move;

/* choose_indexes.c */

/* The candidates, as far as there is time to look at them. */
extern void choice_gather(Choice *choice);

extern FirstKeyEntry *choice_first_key(Choice *choice, const IndexSpec *spec);

/* The index there is, or a new one that is not assessed, nor connected. */
extern ChoiceIndex *choice_enter(Choice *choice, const IndexSpec *spec);
extern void choice_assess(Choice *choice, ChoiceIndex *index);

/* Have the index count for all statements that want one that begins so. */
extern void choice_connect(Choice *choice, ChoiceIndex *index);

extern bool choice_out_of_time(Choice *choice);

/* choose_costs.c */

/* As things are; then learn what candidates can do for it at all. */
extern void choice_start(Choice *choice, int number);
extern void choice_peel(Choice *choice, int number);

/* NULL: it can't be told, or not in time. */
extern KnownCost *choice_cost_with(Choice *choice, int number, const Bitmapset *given);

/*
 * What the move would save, or, as soon as that is known to be less than the
 * cutoff, a bound of it.  Without planning it is a bound in any case.
 */
extern double choice_gain(Choice *choice, Move *move, bool planning, double cutoff);

/* What a move must save; a bound, as long as its speedup is one. */
extern double choice_least(const Choice *choice, const Move *move);

/* What all costs with what is chosen. */
extern double choice_total(Choice *choice);

extern void choice_move(Choice *choice, const Move *move);

/* Have these chosen, and no others. */
extern void choice_restore(Choice *choice, List *chosen);

/* choose_wider.c */

/* Candidates made of a chosen one and others that its statements want. */
extern void choice_widen(Choice *choice, ChoiceIndex *chosen);

#endif							/* PERFOPT_CHOOSE_INTERNAL_H */
