/*
 * choose.h
 *		The choice of indexes for a workload.  Private to src/advisor.
 */
#ifndef PERFOPT_CHOOSE_H
#define PERFOPT_CHOOSE_H

#include "advisor/index_spec.h"
#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"

/* What a statement costs with some indexes, by the numbers it has for these. */
typedef struct KnownCost
{
	Bitmapset  *given;
	Bitmapset  *used;			/* by its plan */
	double		ratio;			/* to its cost as things are */
} KnownCost;

typedef struct ChoiceStatement
{
	/* given */
	double		weight;			/* what it takes as things are: the unit of
								 * all */
	List	   *candidates;		/* IndexSpec *, what may help it */

	/* found */
	double		ratio;			/* with what is chosen */
	Bitmapset  *used;			/* of the indexes below */

	/* private to choose.c */
	List	   *indexes;		/* ChoiceIndex *, by the statement's numbers */
	Bitmapset  *current;		/* those of them that are chosen */
	List	   *known;			/* KnownCost * */
	double		floor;			/* no choice makes it cheaper, as far as known */
	int			max_indexes;
	double	   *last_saved;		/* by each, when it was last looked at */
	double	   *most_saved;		/* ... and the most so far; 2: not known */
	Bitmapset  *trial;
	int			trial_number;
	double		trial_least;	/* ratio that it has at least in the trial */
	bool		unpriceable;
} ChoiceStatement;

typedef struct ChoiceEffect
{
	int			statement;
	int			number;			/* of the index, for that statement */
} ChoiceEffect;

/* Private to choose*.c. */
typedef struct ChoiceTable
{
	Oid			relid;			/* hash key */
	List	   *chosen;			/* ChoiceIndex * */
} ChoiceTable;

typedef struct ChoiceIndex
{
	const IndexSpec *spec;
	double		bytes;
	double		freed;			/* that existing ones take which it replaces */
	double		writes;			/* what it costs writes */
	bool		preferred;		/* was chosen before: not to be given up for
								 * one as good */
	bool		much_faster;	/* it makes a statement so */
	double		saved;			/* by its choice, if chosen */
	double		speedup;		/* of the statement it helps most, then */

	/* private to choose.c */
	ChoiceTable *table;
	int			num_effects;
	int			max_effects;
	ChoiceEffect *effects;
	bool		chosen;
	bool		barred;
	bool		assessed;		/* or bytes are those of a narrower one */
	bool		widened;		/* wider ones have been made of it */
} ChoiceIndex;

typedef struct Choice
{
	/* given */
	int			num_statements;
	ChoiceStatement *statements;
	double		budget;			/* bytes; negative: as many as it takes */
	double		least;			/* what an index must save */
	double		least_speedup;	/* ... and how often, for some statement */
	double		least_fast;		/* what one must save that makes a statement
								 * much faster */
	double		least_fast_bytes;	/* ... for each so many bytes */

	/* The statement's cost with these, as a ratio; false: it can't be told. */
	bool		(*price) (void *arg, int statement, List *specs, double *ratio,
						  Bitmapset **used);

	/*
	 * What it takes; false: it exists, or can't be made.  What this allocates
	 * is gone afterwards.
	 */
	bool		(*assess) (void *arg, ChoiceIndex *index);
	double		(*time_used) (void *arg);	/* of all there is: from 0 to 1 */
	void	   *arg;

	/* found */
	List	   *chosen;			/* ChoiceIndex * */
	double		bytes;
	double		total;			/* with it: statements and writes */
	bool		cut_short;
	int			plans;			/* made for it */

	/* private to choose.c */
	List	   *indexes;
	struct HTAB *by_key;
	struct HTAB *by_spec;
	struct HTAB *tables;
	int			trials;
	bool		hurried;		/* some candidates were not looked at */
	bool		thorough;		/* look again at what did not help before */
} Choice;

/* Everything is made in the current memory context. */
extern void perfopt_choose(Choice *choice);

/* Is a chosen index used by the statement's plan? */
extern bool perfopt_choice_uses(const Choice *choice, int statement,
								const ChoiceIndex *index);

/* What the statement would cost if one of those chosen were not. */
extern double perfopt_choice_ratio_without(Choice *choice, int statement,
										   ChoiceIndex *index);

#endif							/* PERFOPT_CHOOSE_H */
