/*
 * profile_nodes.c
 *		The nodes of a plan that has run, each with what EXPLAIN says of it.
 *
 * Two walks that take the same steps: over the executor's nodes, for times and
 * counts that are exact, where EXPLAIN rounds to microseconds a loop; and over
 * EXPLAIN's output of the same plan, made by the server's own code, for names
 * and for all that is particular to a kind of node.  That both have the same
 * number of nodes, each with as many loops, is checked.
 */
#include "postgres.h"

#include "bench/profile_internal.h"

#include "catalog/pg_trigger.h"
#include "jit/jit.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"

/* ---------------------------------------------------------------------
 * Reading EXPLAIN's output
 */

static bool
find(JsonbContainer *json, const char *key, JsonbValue *value)
{
	return json && getKeyJsonValueFromContainer(json, key, strlen(key), value) != NULL;
}

double
profile_number(JsonbContainer *json, const char *key)
{
	JsonbValue	value;

	if (!find(json, key, &value) || value.type != jbvNumeric)
		return 0;
	return DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(value.val.numeric)));
}

char *
profile_text(JsonbContainer *json, const char *key)
{
	JsonbValue	value;

	if (!find(json, key, &value))
		return NULL;
	if (value.type == jbvBool)
		return value.val.boolean ? "true" : NULL;
	return value.type == jbvString ? pnstrdup(value.val.string.val, value.val.string.len) : NULL;
}

JsonbContainer *
profile_container(JsonbContainer *json, const char *key)
{
	JsonbValue	value;

	return find(json, key, &value) && value.type == jbvBinary ? value.val.binary.data : NULL;
}

JsonbContainer *
profile_element(JsonbContainer *array, int i)
{
	JsonbValue *value;

	if (array == NULL || i >= JsonContainerSize(array))
		return NULL;
	value = getIthJsonbValueFromContainer(array, i);
	return value && value->type == jbvBinary ? value->val.binary.data : NULL;
}

/* ---------------------------------------------------------------------
 * The two walks
 */

typedef struct Walk
{
	Profile    *profile;
	int			allocated;
	int			parent;
	int			depth;
} Walk;

static SubPlan *
init_plan_of(PlanState *parent, PlanState *child)
{
	ListCell   *lc;

	foreach(lc, parent->initPlan)
	{
		SubPlanState *sub = lfirst(lc);

		if (sub->planstate == child)
			return sub->subplan;
	}
	return NULL;
}

static bool
collect_node(PlanState *state, void *arg)
{
	Walk	   *walk = arg;
	Profile    *profile = walk->profile;
	ProfileNode *node;
	int			parent = walk->parent;

	/* like EXPLAIN, a subplan that several nodes use only once */
	for (int i = 0; i < profile->num; i++)
		if (profile->nodes[i].state == state)
			return false;

	if (profile->num == walk->allocated)
	{
		walk->allocated *= 2;
		profile->nodes = repalloc(profile->nodes, walk->allocated * sizeof(ProfileNode));
	}
	node = &profile->nodes[profile->num];
	memset(node, 0, sizeof(*node));
	node->state = state;
	node->parent = parent;
	node->depth = walk->depth;
	node->gather = -1;
	if (parent >= 0)
	{
		PlanState  *above = profile->nodes[parent].state;

		node->init_plan = init_plan_of(above, state);
		node->gather = profile->nodes[parent].gather;
		/* what the leader evaluates before workers start is not below it */
		if ((IsA(above, GatherState) || IsA(above, GatherMergeState)) && !node->init_plan)
			node->gather = parent;
	}

	walk->parent = profile->num++;
	walk->depth++;
	planstate_tree_walker(state, collect_node, walk);
	walk->depth--;
	walk->parent = parent;
	return false;
}

/*
 * Without costs, which may be infinite, and without what it counts of a
 * ModifyTable: with MERGE or ON CONFLICT on several tables it puts that where
 * JSON has no place for it.
 */
static JsonbContainer *
explain(Profile *profile, QueryDesc *queryDesc)
{
	ExplainState *es = NewExplainState();
	PerfoptNodeCounter **hidden = palloc0(profile->num * sizeof(*hidden));
	Jsonb	   *json;

	for (int i = 0; i < profile->num; i++)
	{
		PlanState  *state = profile->nodes[i].state;

		InstrEndLoop(state->instrument);
		if (!IsA(state, ModifyTableState))
			continue;
		hidden[i] = state->instrument;
		state->instrument = NULL;
	}
	es->analyze = true;
	es->costs = false;
	es->format = EXPLAIN_FORMAT_JSON;
	ExplainBeginOutput(es);
	ExplainPrintPlan(es, queryDesc);
	ExplainEndOutput(es);
	for (int i = 0; i < profile->num; i++)
		if (hidden[i])
			profile->nodes[i].state->instrument = hidden[i];
	pfree(hidden);

	/* an array of plans without the object around each: make it that object */
	es->str->data[0] = '{';
	es->str->data[es->str->len - 1] = '}';
	json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(es->str->data)));
	return profile_container(&json->root, "Plan");
}

static void
add_json(Profile *profile, JsonbContainer *json, int *next)
{
	JsonbContainer *plans = profile_container(json, "Plans");
	ProfileNode *node = &profile->nodes[*next];

	if (*next >= profile->num ||
		(!IsA(node->state, ModifyTableState) &&
		 profile_number(json, "Actual Loops") != node->state->instrument->nloops))
		elog(ERROR, "plan and EXPLAIN of it do not agree");
	node->json = json;
	(*next)++;
	if (plans)
		for (int i = 0; i < JsonContainerSize(plans); i++)
			add_json(profile, profile_element(plans, i), next);
}

/* ---------------------------------------------------------------------
 * Triggers, and JIT compilation
 */

static void
collect_triggers(Profile *profile, List *relations)
{
	ListCell   *lc;

	foreach(lc, relations)
	{
		ResultRelInfo *relation = lfirst(lc);
		TriggerDesc *triggers = relation->ri_TrigDesc;

		if (triggers == NULL || relation->ri_TrigInstrument == NULL)
			continue;
		for (int i = 0; i < triggers->numtriggers; i++)
		{
			Trigger    *trigger = &triggers->triggers[i];
			ProfileTrigger *to = &profile->triggers[profile->num_triggers];
			char	   *constraint = OidIsValid(trigger->tgconstraint) ?
			get_constraint_name(trigger->tgconstraint) : NULL;

			perfopt_trigger_read(relation, i, &to->ms, &to->calls);
			if (to->calls == 0)
				continue;
			to->within = !TRIGGER_FOR_AFTER(trigger->tgtype);
			to->name = psprintf("%s %s on %s",
								constraint && trigger->tgisinternal ? "Constraint" : "Trigger",
								constraint && trigger->tgisinternal ? constraint : trigger->tgname,
								RelationGetRelationName(relation->ri_RelationDesc));
			profile->num_triggers++;
		}
	}
}

static int
count_triggers(List *relations)
{
	ListCell   *lc;
	int			num = 0;

	foreach(lc, relations)
		if (((ResultRelInfo *) lfirst(lc))->ri_TrigDesc)
		num += ((ResultRelInfo *) lfirst(lc))->ri_TrigDesc->numtriggers;
	return num;
}

static void
collect_jit(Profile *profile, EState *estate)
{
	JitInstrumentation *jit = estate->es_jit ? &estate->es_jit->instr : NULL;
	double		generation;
	double		rest;

	if (jit == NULL || jit->created_functions == 0)
		return;
	generation = INSTR_TIME_GET_MILLISEC(jit->generation_counter);
	rest = INSTR_TIME_GET_MILLISEC(jit->inlining_counter) +
		INSTR_TIME_GET_MILLISEC(jit->optimization_counter) +
		INSTR_TIME_GET_MILLISEC(jit->emission_counter);
	profile->jit_ms = generation + rest;
	profile->jit = psprintf("%d functions compiled: %.1f ms to generate, %.1f to inline, %.1f to optimize, %.1f to emit",
							(int) jit->created_functions, generation,
							INSTR_TIME_GET_MILLISEC(jit->inlining_counter),
							INSTR_TIME_GET_MILLISEC(jit->optimization_counter),
							INSTR_TIME_GET_MILLISEC(jit->emission_counter));
}

void
profile_collect(Profile *profile, QueryDesc *queryDesc)
{
	EState	   *estate = queryDesc->estate;
	PlanState  *top = queryDesc->planstate;
	Walk		walk = {.profile = profile,.allocated = 32,.parent = -1};
	int			next = 0;

	/* EXPLAIN hides a Gather that is there for testing only. */
	if (IsA(top, GatherState) && ((Gather *) top->plan)->invisible)
		top = outerPlanState(top);
	profile->nodes = palloc(walk.allocated * sizeof(ProfileNode));
	collect_node(top, &walk);
	add_json(profile, explain(profile, queryDesc), &next);
	if (next != profile->num)
		elog(ERROR, "plan and EXPLAIN of it do not agree");

	profile->triggers = palloc0((1 + count_triggers(estate->es_opened_result_relations) +
								 count_triggers(estate->es_tuple_routing_result_relations) +
								 count_triggers(estate->es_trig_target_relations)) *
								sizeof(ProfileTrigger));
	collect_triggers(profile, estate->es_opened_result_relations);
	collect_triggers(profile, estate->es_tuple_routing_result_relations);
	collect_triggers(profile, estate->es_trig_target_relations);
	collect_jit(profile, estate);
}
