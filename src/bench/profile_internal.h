/*
 * profile_internal.h
 *		A profile: the nodes of a plan that has run, and what each has cost.
 */
#ifndef PERFOPT_PROFILE_INTERNAL_H
#define PERFOPT_PROFILE_INTERNAL_H

#include "bench/bench_internal.h"

#include "nodes/execnodes.h"
#include "utils/jsonb.h"

typedef struct ProfileNode
{
	PlanState  *state;
	JsonbContainer *json;		/* what EXPLAIN says of it */
	int			parent;			/* index, -1: none */
	int			depth;
	int			gather;			/* the Gather above it that starts workers, or
								 * -1 */
	SubPlan    *init_plan;		/* it is the root of one, which runs when
								 * asked for */

	double		process_ms;		/* with children, of all processes */
	double		total_ms;		/* with children, of the statement's time */
	double		self_ms;
	double		process_self_ms;
	BufferUsage buffers;		/* of itself */
} ProfileNode;

typedef struct ProfileTrigger
{
	char	   *name;
	double		ms;
	double		calls;
	bool		within;			/* its time is within a node's */
} ProfileTrigger;

typedef struct Profile
{
	ProfileNode *nodes;			/* as EXPLAIN shows them */
	int			num;
	bool		timing;

	ProfileTrigger *triggers;
	int			num_triggers;

	double		planning_ms;
	double		executor_ms;	/* what is of no node and no trigger */
	double		jit_ms;
	char	   *jit;			/* what it was for, or NULL: none */
} Profile;

/* profile_nodes.c: the nodes, while the executor still has them */
extern void profile_collect(Profile *profile, QueryDesc *queryDesc);

/* profile_times.c: whose time it was; look has the parts of the run */
extern void profile_attribute(Profile *profile, QueryDesc *queryDesc);
extern void profile_finish(Profile *profile, const BenchLook *look);

/* profile_words.c: what to call a node, and what is remarkable about it */
extern char *profile_node_name(const ProfileNode *node);
extern List *profile_node_flags(const Profile *profile, int i); /* of char * */
extern int64 profile_memory_kb(const ProfileNode *node);
extern int64 profile_spilled_kb(const ProfileNode *node);

/* A number of the node in EXPLAIN's output; 0 when it is not there. */
extern double profile_number(JsonbContainer *json, const char *key);

/* The same, for text; NULL when it is not there. */
extern char *profile_text(JsonbContainer *json, const char *key);
extern JsonbContainer *profile_container(JsonbContainer *json, const char *key);
extern JsonbContainer *profile_element(JsonbContainer *array, int i);

#endif							/* PERFOPT_PROFILE_INTERNAL_H */
