/*
 * memory.c
 *		The most memory that the executor has during a run.
 *
 * The server counts what a memory context has, but not the most that it had, so
 * it is looked at again and again: when a node returns for the first time (a sort
 * has its rows then, a hash join its table), whenever one returns after that and
 * looking has taken a twentieth of the time at most, and at the end.  What is there
 * between two rows of a node only, or for less time than that, may be missed.
 *
 * Nodes are watched by a function put before their own.  What it needs lies
 * where the executor keeps a node's counters, with these at its start, and so
 * lives as long as the node.
 */
#include "postgres.h"

#include "bench/bench_internal.h"

#include "executor/executor.h"
#include "nodes/execnodes.h"
#include "nodes/nodeFuncs.h"
#include "utils/memutils.h"

/* The part of the time that looking may take. */
#define ONE_IN	20

typedef struct WatchedNode
{
	PerfoptNodeCounter counter; /* first */
	ExecProcNodeMtd function;	/* the node's own */
	BenchMemory *memory;
	bool		returned;
} WatchedNode;

static void
look(BenchMemory *memory, int64 now)
{
	memory->peak = Max(memory->peak, MemoryContextMemAllocated(memory->context, true));
	memory->next = now + ONE_IN * (bench_now() - now);
}

static TupleTableSlot *
return_watched(PlanState *state)
{
	WatchedNode *watched = (WatchedNode *) state->instrument;
	TupleTableSlot *slot = watched->function(state);
	int64		now = bench_now();

	if (!watched->returned || now >= watched->memory->next)
		look(watched->memory, now);
	watched->returned = true;
	return slot;
}

static bool
watch_node(PlanState *state, void *memory)
{
	WatchedNode *watched;

	/* a subplan that several nodes use comes several times */
	if (state->ExecProcNodeReal == return_watched)
		return false;
	watched = palloc0(sizeof(WatchedNode));
	if (state->instrument)
		watched->counter = *state->instrument;
	watched->function = state->ExecProcNodeReal;
	watched->memory = memory;
	state->instrument = &watched->counter;
	ExecSetExecProcNode(state, return_watched);
	return planstate_tree_walker(state, watch_node, memory);
}

void
bench_memory_watch(QueryDesc *queryDesc, void *arg)
{
	BenchMemory *memory = arg;
	MemoryContext old;

	memory->context = queryDesc->estate->es_query_cxt;
	old = MemoryContextSwitchTo(memory->context);
	watch_node(queryDesc->planstate, memory);
	MemoryContextSwitchTo(old);
}

void
bench_memory_end(QueryDesc *queryDesc, void *arg)
{
	look(arg, bench_now());
}
