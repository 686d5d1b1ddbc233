/*
 * kept_plans.c
 *		Plans that this session keeps follow changes that came in while they
 *		were being made.
 *
 * What is computed for the cache may run functions, and these keep plans.  A
 * change of definitions that is complete must be in all of them: definitions.c
 * relies on that.  The server finds by its invalidation messages which plans to
 * make anew.  But the planner takes locks itself, of a table's children for
 * example, and messages are processed when a lock is taken.  The plan in the
 * making is then found only by what its query names.  What the planner has
 * found besides, children and functions inlined, is not known yet:
 *
 *		this session				another one
 *		plans SELECT ... FROM parent
 *		  reads in pg_inherits
 *		  that child is one
 *									ALTER TABLE child NO INHERIT parent commits,
 *									and sends "child changed"
 *		  locks child, accepts the
 *		  message: no plan reads it
 *		keeps a plan that does
 *
 * Such a plan is used until the next message about one of its tables, and what
 * it says, which is not true any more, would be published for others.  The same
 * happens when a child of a child, or a partition of a partition, comes while
 * another one is waited for, and when a function is replaced that an inlined
 * one calls.
 *
 * So messages are noted, and after each planning those that came meanwhile are
 * compared with what the finished plan depends on.  If one concerns it, all
 * plans of the session are made anew at their next use, as the server does
 * itself when it does not know which; this one is among them, since its source
 * is in the list already.
 *
 * It is private to this process, so there are no locks.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "common/compat.h"
#include "optimizer/planner.h"
#include "utils/plancache.h"

/* Beyond so many during one planning, one of them is taken to be of the plan. */
#define NUM_NOTED		32

/* in the place of a cache's number */
#define OF_RELATION		(-1)

typedef struct NotedChange
{
	int			cacheid;
	uint32		hash;			/* or the relation's OID */
} NotedChange;

static NotedChange noted[NUM_NOTED];	/* number n is at n % NUM_NOTED */
static uint64 num_noted = 0;

static planner_hook_type prev_planner_hook = NULL;

static inline void
note(int cacheid, uint32 hash)
{
	noted[num_noted % NUM_NOTED].cacheid = cacheid;
	noted[num_noted % NUM_NOTED].hash = hash;
	num_noted++;
}

void
cache_kept_plans_note_relation(Oid relid)
{
	note(OF_RELATION, relid);
}

void
cache_kept_plans_note_item(int cacheid, uint32 hash)
{
	note(cacheid, hash);
}

static bool
depends_on(const PlannedStmt *plan, const NotedChange *change)
{
	ListCell   *lc;

	if (change->cacheid == OF_RELATION)
		return list_member_oid(plan->relationOids, change->hash);
	foreach(lc, plan->invalItems)
	{
		PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

		/* a hash of zero is all of the catalog's rows */
		if (item->cacheId == change->cacheid &&
			(item->hashValue == change->hash || change->hash == 0))
			return true;
	}
	return false;
}

static bool
missed_one(const PlannedStmt *plan, uint64 since)
{
	if (num_noted - since > NUM_NOTED)
		return true;
	for (uint64 n = since; n < num_noted; n++)
	{
		if (depends_on(plan, &noted[n % NUM_NOTED]))
			return true;
	}
	return false;
}

static PlannedStmt *
planner_of_kept_plans(PERFOPT_PLANNER_ARGS)
{
	uint64		before = num_noted;
	PlannedStmt *plan;

	if (prev_planner_hook)
		plan = prev_planner_hook(PERFOPT_PLANNER_PASS);
	else
		plan = standard_planner(PERFOPT_PLANNER_PASS);
	if (unlikely(num_noted != before) && missed_one(plan, before))
		ResetPlanCache();
	return plan;
}

void
cache_kept_plans_init(void)
{
	prev_planner_hook = planner_hook;
	planner_hook = planner_of_kept_plans;
}
