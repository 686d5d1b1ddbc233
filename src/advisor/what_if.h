/*
 * what_if.h
 *		What a statement would cost if certain indexes existed.  Private to
 *		src/advisor.
 */
#ifndef PERFOPT_WHAT_IF_H
#define PERFOPT_WHAT_IF_H

#include "advisor/plan_samples.h"
#include "nodes/pathnodes.h"

extern void perfopt_what_if_init(void);

typedef struct WhatIfPrice
{
	Cost		cost;
	double		rows;			/* that it returns, or writes */
	Bitmapset  *used;			/* positions in the list of indexes */
} WhatIfPrice;

/*
 * Cost of a sampled statement if there were these indexes too, IndexSpec *, and
 * if those of the list hidden, of OIDs, were not.  With candidates not NULL,
 * candidates found while planning are appended to it, as IndexSpec * in the
 * caller's memory context.  False when the sample could not be planned; if it
 * never will be, it has been discarded.
 */
extern bool perfopt_what_if_sample(const PlanSample *sample, List *indexes, List *hidden,
								   WhatIfPrice *price, List **candidates);
extern bool perfopt_what_if_cost(const PlanSample *sample, List *indexes, List *hidden,
								 Cost *cost, List **candidates);

/*
 * Is told of each base relation of what is planned for a what-if, once its rows
 * are estimated.  Set for a while by who calls perfopt_what_if_cost(); an error
 * that it raises is the sample's.
 */
extern void (*perfopt_what_if_observer) (PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte);

/*
 * The same of a statement of this session, planned as EXPLAIN would, with values
 * of its parameters, or NULL; with candidates, the rights to run it are checked.
 * What fails is an error.
 */
extern void perfopt_what_if_query(Query *query, ParamListInfo params, List *indexes,
								  List *hidden, WhatIfPrice *price, List **candidates);

/*
 * What action does is for the session that asks, which must learn nothing that
 * it may not, and stays that session whoever else's functions are called.
 */
extern void perfopt_what_if_for_caller(void (*action) (void *arg), void *arg);
extern bool perfopt_what_if_as_caller(void);

/* as_owner.c */

/*
 * Calls action(arg) as the table's owner, for so long at most, in a subtransaction
 * that is rolled back and in a memory context that is deleted.  NULL, or what its
 * error says.  A cancel that is not of that limit is raised.  What is called must
 * not catch cancels.
 */
extern char *perfopt_as_owner(Relation relation, int limit_ms, void (*action) (void *arg), void *arg);

/* When the statement timeout is to fire; 0: never. */
extern TimestampTz perfopt_statement_timeout(void);
extern void perfopt_set_statement_timeout(TimestampTz end);

/* Become this user, as whom the session was begun, too. */
extern void perfopt_set_identity(Oid session_user, Oid user, int sec_context);

/* Do the timeouts of a what-if run, which end whatever a function does? */
extern bool perfopt_what_if_guarded(void);

/* Is the planner at work for a what-if, on this statement itself? */
extern bool perfopt_what_if_planning(PlannerInfo *root);

#endif							/* PERFOPT_WHAT_IF_H */
