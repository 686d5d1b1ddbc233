/*
 * profile_times.c
 *		Whose time it was.
 *
 * EXPLAIN's time of a node has everything in it that ran below it.  A node's own
 * time is that without what it has called, which is mostly its children, but:
 *
 *	- An InitPlan, and a CTE, runs when its result is first asked for, within the
 *	  time of whoever asks, and not of the node that EXPLAIN shows it below.  Who
 *	  asks is seen from the parameters that the plan's nodes depend on.  Where it
 *	  is several, the time is taken from them in turn, as far as they have any.
 *	  A CTE that nobody reads to its end is run to its end when the executor
 *	  finishes, within no node's time.
 *	- Below a Gather, times are sums over processes that run at the same time.
 *	  The Gather is taken to have waited for the slowest of them; what lies below
 *	  it shares that time as it shares the sum.  Starting the processes, and
 *	  receiving rows beyond that, is the Gather's own.
 *	- Row triggers of the kinds BEFORE and INSTEAD OF run within ModifyTable.
 *	- JIT compilation is done by the first node that needs it: the whole of it is
 *	  taken from the first one, in the order they run, that took so long.
 *
 * So all own times, with those of triggers, JIT compilation, planning and the
 * executor's start and end, add up to the statement's time.
 */
#include "postgres.h"

#include "bench/profile_internal.h"

#include "executor/instrument.h"
#include "jit/jit.h"
#include "nodes/plannodes.h"

static void
subtract_buffers(BufferUsage *from, const BufferUsage *what)
{
#define LESS(field) from->field = Max(from->field - what->field, 0)
	LESS(shared_blks_hit);
	LESS(shared_blks_read);
	LESS(shared_blks_dirtied);
	LESS(shared_blks_written);
	LESS(local_blks_hit);
	LESS(local_blks_read);
	LESS(local_blks_dirtied);
	LESS(local_blks_written);
	LESS(temp_blks_read);
	LESS(temp_blks_written);
#undef LESS
}

static const BufferUsage *
buffers_with_children(const ProfileNode *node)
{
	return perfopt_node_buffers(node->state->instrument);
}

/* How long the slowest process was in the node. */
static double
slowest_ms(const PlanState *state)
{
	PerfoptWorkerCounters *workers = state->worker_instrument;
	double		leader = perfopt_node_ms(state->instrument);
	double		slowest = 0;

	if (workers == NULL)
		return leader;
	for (int i = 0; i < workers->num_workers; i++)
	{
		double		ms = perfopt_node_ms(&workers->instrument[i]);

		leader -= ms;
		slowest = Max(slowest, ms);
	}
	return Max(slowest, leader);
}

/* What of the statement's time is spent for a millisecond of a process. */
static double
scale_below(const ProfileNode *gather, const ProfileNode *child)
{
	double		slowest = Min(slowest_ms(child->state), gather->process_ms);

	return child->process_ms > 0 ? slowest / child->process_ms : 0;
}

/* ---------------------------------------------------------------------
 * InitPlans
 */

static bool
is_below(const Profile *profile, int node, int above)
{
	for (int i = node; i >= 0; i = profile->nodes[i].parent)
		if (i == above)
			return true;
	return false;
}

/* Does the node itself need what the InitPlan at root computes? */
static bool
asks_for(const Profile *profile, int i, int root)
{
	SubPlan    *sub = profile->nodes[root].init_plan;
	PlanState  *state = profile->nodes[i].state;
	ListCell   *lc;

	if (sub->subLinkType == CTE_SUBLINK)
		return IsA(state, CteScanState) &&
			((CteScan *) state->plan)->ctePlanId == sub->plan_id;
	foreach(lc, sub->setParam)
	{
		int			param = lfirst_int(lc);
		bool		below = false;

		if (!bms_is_member(param, state->plan->allParam))
			continue;
		/* The leader computes it before workers start. */
		if ((IsA(state, GatherState) && bms_is_member(param, ((Gather *) state->plan)->initParam)) ||
			(IsA(state, GatherMergeState) && bms_is_member(param, ((GatherMerge *) state->plan)->initParam)))
			return true;
		if (profile->nodes[i].gather >= 0)
		{
			PlanState  *gather = profile->nodes[profile->nodes[i].gather].state;

			if (bms_is_member(param, IsA(gather, GatherState) ?
							  ((Gather *) gather->plan)->initParam :
							  ((GatherMerge *) gather->plan)->initParam))
				continue;
		}
		for (int child = i + 1; child < profile->num && !below; child++)
			below = profile->nodes[child].parent == i && child != root &&
				bms_is_member(param, profile->nodes[child].state->plan->allParam);
		if (!below)
			return true;
	}
	return false;
}

/* Take the InitPlan's time, and its buffers, from those that ask for it. */
static void
charge_init_plan(Profile *profile, int root)
{
	ProfileNode *init = &profile->nodes[root];
	double		left = init->total_ms;
	bool		first = true;

	/* those that it is shown below have the parameter in scope */
	for (int i = profile->nodes[root].parent; i < profile->num; i++)
	{
		ProfileNode *node = &profile->nodes[i];
		double		part;

		if (!is_below(profile, i, init->parent) || is_below(profile, i, root) ||
			!asks_for(profile, i, root))
			continue;
		if (node->self_ms <= 0 && left > 0)
			continue;
		part = Min(left, node->self_ms);
		node->self_ms -= part;
		node->process_self_ms = Max(node->process_self_ms - part, 0);
		left -= part;
		if (first)
			subtract_buffers(&node->buffers, buffers_with_children(init));
		first = false;
	}
}

/* ---------------------------------------------------------------------
 * All of it
 */

static void
charge_triggers(Profile *profile, QueryDesc *queryDesc)
{
	for (int t = 0; t < profile->num_triggers; t++)
	{
		double		left = profile->triggers[t].within ? profile->triggers[t].ms : 0;

		for (int i = 0; i < profile->num && left > 0; i++)
		{
			ProfileNode *node = &profile->nodes[i];
			double		part = Min(left, node->self_ms);

			if (!IsA(node->state, ModifyTableState))
				continue;
			node->self_ms -= part;
			left -= part;
		}
	}
}

/* Generating code is done when the executor starts, the rest by a node. */
static void
charge_jit(Profile *profile, EState *estate)
{
	double		ms = profile->jit_ms -
	INSTR_TIME_GET_MILLISEC(estate->es_jit->instr.generation_counter);

	for (int i = profile->num - 1; i >= 0; i--)
	{
		ProfileNode *node = &profile->nodes[i];

		if (node->gather >= 0 || node->self_ms < ms)
			continue;
		node->self_ms -= ms;
		break;
	}
}

void
profile_attribute(Profile *profile, QueryDesc *queryDesc)
{
	double	   *scale;

	for (int i = 0; i < profile->num; i++)
	{
		ProfileNode *node = &profile->nodes[i];

		node->process_ms = perfopt_node_ms(node->state->instrument);
		node->buffers = *buffers_with_children(node);
	}

	/* a node below a Gather comes after it */
	scale = palloc(profile->num * sizeof(double));
	for (int i = 0; i < profile->num; i++)
	{
		ProfileNode *node = &profile->nodes[i];

		if (node->gather < 0)
			scale[i] = 1;
		else if (node->gather == node->parent && !node->init_plan)
			scale[i] = scale_below(&profile->nodes[node->parent], node);
		else
			scale[i] = scale[node->parent];
		node->total_ms = node->process_ms * scale[i];
		node->self_ms = node->total_ms;
		node->process_self_ms = node->process_ms;
	}
	for (int i = 0; i < profile->num; i++)
	{
		ProfileNode *node = &profile->nodes[i];
		ProfileNode *parent;

		if (node->parent < 0 || node->init_plan)
			continue;
		parent = &profile->nodes[node->parent];
		parent->self_ms -= node->total_ms;
		/* the leader waits in a Gather for what others do */
		parent->process_self_ms -= node->gather == node->parent ? node->total_ms : node->process_ms;
		subtract_buffers(&parent->buffers, buffers_with_children(node));
	}
	/* those within others first */
	for (int i = profile->num - 1; i >= 0; i--)
		if (profile->nodes[i].init_plan)
			charge_init_plan(profile, i);
	charge_triggers(profile, queryDesc);
	if (profile->jit)
		charge_jit(profile, queryDesc->estate);
	for (int i = 0; i < profile->num; i++)
	{
		ProfileNode *node = &profile->nodes[i];

		/* clocks are read at different moments */
		node->self_ms = Max(node->self_ms, 0);
		node->process_self_ms = Max(node->process_self_ms, node->self_ms);
	}
	pfree(scale);
}

void
profile_finish(Profile *profile, const BenchLook *look)
{
	double		known = profile->jit_ms;

	for (int i = 0; i < profile->num; i++)
		known += profile->nodes[i].self_ms;
	for (int i = 0; i < profile->num_triggers; i++)
		known += profile->triggers[i].ms;
	profile->planning_ms = look->planning / 1e6;
	profile->executor_ms =
		Max((look->start + look->run + look->finish + look->end) / 1e6 - known, 0);
}
