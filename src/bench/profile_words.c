/*
 * profile_words.c
 *		What to call a node, as EXPLAIN's text does, and what is remarkable
 *		about it.
 *
 * A flag is something that usually can be mended: an estimate that is wrong, a
 * sort that has to use the disk, rows that are read to be thrown away.  The
 * bounds are such that small plans have none.
 */
#include "postgres.h"

#include "bench/profile_internal.h"

#include "miscadmin.h"
#include "nodes/plannodes.h"

/* An estimate is off when it is wrong by this factor, and it matters. */
#define FACTOR_MIN		10
#define ROWS_MIN		1000
/* A filter that throws away this part of what it sees, of so many rows. */
#define REMOVED_SHARE	0.9
#define LOOPS_MIN		1000

/* ---------------------------------------------------------------------
 * Names
 */

static const char *
aggregate_name(const char *strategy)
{
	if (strategy == NULL || strcmp(strategy, "Plain") == 0)
		return "Aggregate";
	if (strcmp(strategy, "Sorted") == 0)
		return "GroupAggregate";
	return strcmp(strategy, "Hashed") == 0 ? "HashAggregate" : "MixedAggregate";
}

static void
append_kind(StringInfo name, const ProfileNode *node)
{
	char	   *kind = profile_text(node->json, "Node Type");
	char	   *strategy = profile_text(node->json, "Strategy");
	char	   *partial = profile_text(node->json, "Partial Mode");
	char	   *join = profile_text(node->json, "Join Type");
	char	   *operation = profile_text(node->json, "Operation");
	char	   *provider = profile_text(node->json, "Custom Plan Provider");
	char	   *command = profile_text(node->json, "Command");

	if (kind == NULL)
		kind = "???";
	if (profile_text(node->json, "Parallel Aware"))
		appendStringInfoString(name, "Parallel ");
	if (profile_text(node->json, "Async Capable"))
		appendStringInfoString(name, "Async ");
	if (partial && strcmp(partial, "Simple") != 0)
		appendStringInfo(name, "%s ", partial);
	if (strcmp(kind, "Aggregate") == 0)
		appendStringInfoString(name, aggregate_name(strategy));
	else if (strcmp(kind, "SetOp") == 0)
		appendStringInfo(name, "%sSetOp %s", strategy && strcmp(strategy, "Hashed") == 0 ? "Hash" : "",
						 command ? command : "");
	else if (strcmp(kind, "ModifyTable") == 0)
		appendStringInfoString(name, operation ? operation : kind);
	else if (strcmp(kind, "Foreign Scan") == 0 && operation && strcmp(operation, "Select") != 0)
		appendStringInfo(name, "Foreign %s", operation);
	else if (strcmp(kind, "Custom Scan") == 0)
		appendStringInfo(name, "Custom Scan (%s)", provider ? provider : "");
	else if (join && strcmp(join, "Inner") != 0)
	{
		/* "Hash Join" and "Nested Loop" take the word in different places */
		size_t		len = strlen(kind);

		if (len > 5 && strcmp(kind + len - 5, " Join") == 0)
			appendStringInfo(name, "%.*s %s Join", (int) (len - 5), kind, join);
		else
			appendStringInfo(name, "%s %s Join", kind, join);
	}
	else
		appendStringInfoString(name, kind);
}

char *
profile_node_name(const ProfileNode *node)
{
	static const char *const targets[] = {
		"Relation Name", "Function Name", "Table Function Name", "CTE Name", "Tuplestore Name"
	};
	StringInfoData name;
	char	   *subplan = profile_text(node->json, "Subplan Name");
	char	   *direction = profile_text(node->json, "Scan Direction");
	char	   *index = profile_text(node->json, "Index Name");
	char	   *alias = profile_text(node->json, "Alias");
	char	   *target = NULL;

	initStringInfo(&name);
	if (subplan)
		appendStringInfo(&name, "%s: ", subplan);
	append_kind(&name, node);
	if (direction && strcmp(direction, "Backward") == 0)
		appendStringInfoString(&name, " Backward");
	for (int i = 0; i < lengthof(targets) && target == NULL; i++)
		target = profile_text(node->json, targets[i]);
	if (index)
		appendStringInfo(&name, " %s %s", target || alias ? "using" : "on", index);
	if (target)
		appendStringInfo(&name, " on %s", target);
	else if (alias)
		appendStringInfo(&name, " on %s", alias);
	if (target && alias && strcmp(target, alias) != 0)
		appendStringInfo(&name, " %s", alias);
	return name.data;
}

/* ---------------------------------------------------------------------
 * Memory and disk
 */

/* A number that each process has, added up where there are several. */
static double
sum_of_processes(const ProfileNode *node, const char *key)
{
	JsonbContainer *workers = profile_container(node->json, "Workers");
	double		sum = profile_number(node->json, key);

	if (workers)
		for (int i = 0; i < JsonContainerSize(workers); i++)
			sum += profile_number(profile_element(workers, i), key);
	return sum;
}

/* Room that a sort has taken of the kind, "Memory" or "Disk". */
static double
sort_space(const ProfileNode *node, const char *kind)
{
	JsonbContainer *workers = profile_container(node->json, "Workers");
	JsonbContainer *json = node->json;
	double		sum = 0;

	for (int i = -1; json; json = profile_element(workers, i))
	{
		char	   *type = profile_text(json, "Sort Space Type");

		if (type && strcmp(type, kind) == 0)
			sum += profile_number(json, "Sort Space Used");
		i++;
	}
	return sum;
}

/* The same of an incremental sort, whose groups are sorted one after the other. */
static double
incremental_sort_space(const ProfileNode *node, const char *kind)
{
	static const char *const groups[] = {"Full-sort Groups", "Pre-sorted Groups"};
	JsonbContainer *workers = profile_container(node->json, "Workers");
	JsonbContainer *json = node->json;
	char	   *key = psprintf("Sort Space %s", kind);
	double		peak = 0;

	for (int i = -1; json; json = profile_element(workers, i))
	{
		for (int g = 0; g < lengthof(groups); g++)
			peak = Max(peak, profile_number(profile_container(profile_container(json, groups[g]), key),
											"Peak Sort Space Used"));
		i++;
	}
	return peak;
}

/* What Materialize, CTE Scan, WindowAgg and the like keep rows in, from 18 on. */
static double
storage(const ProfileNode *node, const char *kind)
{
	char	   *type = profile_text(node->json, "Storage");

	return type && strcmp(type, kind) == 0 ? profile_number(node->json, "Maximum Storage") : 0;
}

int64
profile_memory_kb(const ProfileNode *node)
{
	return (int64) (sum_of_processes(node, "Peak Memory Usage") +
					sort_space(node, "Memory") + incremental_sort_space(node, "Memory") +
					storage(node, "Memory"));
}

/* What is not told by the node is seen by the blocks that it has written. */
int64
profile_spilled_kb(const ProfileNode *node)
{
	double		kb = sort_space(node, "Disk") + incremental_sort_space(node, "Disk") +
	sum_of_processes(node, "Disk Usage") + storage(node, "Disk");

	return (int64) (kb > 0 ? kb : node->buffers.temp_blks_written * (BLCKSZ / 1024.0));
}

/* ---------------------------------------------------------------------
 * Flags
 */

/* "1,234,567" */
static char *
thousands(double number)
{
	char	   *digits = psprintf("%.0f", number);
	int			len = strlen(digits);
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < len; i++)
	{
		if (i > 0 && (len - i) % 3 == 0)
			appendStringInfoChar(&buf, ',');
		appendStringInfoChar(&buf, digits[i]);
	}
	return buf.data;
}

static char *
size_of(double kb)
{
	return kb < 1024 ? psprintf("%.0f kB", kb) :
		kb < 1024 * 1024 ? psprintf("%.0f MB", kb / 1024) : psprintf("%.1f GB", kb / 1024 / 1024);
}

/* May what is above it have had enough before all rows were there? */
static bool
may_stop_early(const Profile *profile, int i)
{
	for (; profile->nodes[i].parent >= 0; i = profile->nodes[i].parent)
	{
		const ProfileNode *above = &profile->nodes[profile->nodes[i].parent];
		char	   *join = profile_text(above->json, "Join Type");

		if (profile->nodes[i].init_plan || IsA(above->state, LimitState) || IsA(above->state, MergeJoinState))
			return true;
		if (join && (strstr(join, "Semi") || strstr(join, "Anti")))
			return true;
		if (profile_text(above->json, "Inner Unique"))
			return true;
		/* a subplan of an expression, as in EXISTS */
		if (profile_text(profile->nodes[i].json, "Subplan Name"))
			return true;
	}
	return false;
}

/*
 * By which factor the estimate is wrong, for more rows than expected greater
 * than 1, for less smaller; 1 where that says nothing.
 */
static double
estimate_error(const Profile *profile, int i)
{
	const ProfileNode *node = &profile->nodes[i];
	double		loops = node->state->instrument->nloops;
	double		estimated = Max(node->state->plan->plan_rows, 1);
	double		actual;

	/* bitmaps are no rows */
	if (loops == 0 || IsA(node->state, BitmapAndState) || IsA(node->state, BitmapOrState))
		return 1;
	actual = Max(node->state->instrument->ntuples / loops, 1);
	if (Max(estimated, actual) * loops < ROWS_MIN ||
		(actual < estimated && may_stop_early(profile, i)))
		return 1;
	return actual / estimated;
}

/* Has one of its children been as wrong, so that this one could not help it? */
static bool
follows_child(const Profile *profile, int i, double error)
{
	for (int child = i + 1; child < profile->num; child++)
	{
		double		of_child;

		if (profile->nodes[child].parent != i || profile->nodes[child].init_plan)
			continue;
		of_child = estimate_error(profile, child);
		if (error > 1 ? of_child * 3 >= error : of_child <= error * 3)
			return true;
	}
	return false;
}

static List *
add_estimate(List *flags, const Profile *profile, int i)
{
	const ProfileNode *node = &profile->nodes[i];
	double		error = estimate_error(profile, i);
	double		factor = error > 1 ? error : 1 / error;

	if (factor < FACTOR_MIN || follows_child(profile, i, error))
		return flags;
	return lappend(flags, psprintf("estimate is off %s times: %s rows expected, %s came",
								   thousands(factor), thousands(node->state->plan->plan_rows),
								   thousands(node->state->instrument->ntuples /
											 node->state->instrument->nloops)));
}

static List *
add_removed(List *flags, const char *what, double removed, double kept)
{
	if (removed < ROWS_MIN || removed < REMOVED_SHARE * (removed + kept))
		return flags;
	return lappend(flags, psprintf("%s throws away %.*f %% of %s rows", what,
								   removed / (removed + kept) >= 0.995 && kept > 0 ? 2 : 0,
								   100 * removed / (removed + kept), thousands(removed + kept)));
}

List *
profile_node_flags(const Profile *profile, int i)
{
	const ProfileNode *node = &profile->nodes[i];
	PerfoptNodeCounter *counter = node->state->instrument;
	int64		spilled = profile_spilled_kb(node);
	double		lossy;
	double		exact;
	double		fetches;
	double		batches;
	List	   *flags = NIL;

	if (counter->nloops == 0)
		return list_make1("never executed");
	flags = add_estimate(flags, profile, i);
	batches = profile_number(node->json, "Hash Batches");
	if (spilled > 0)
		flags = lappend(flags, batches > 1 ?
						psprintf("spilled %s to disk, in %.0f batches", size_of(spilled), batches) :
						psprintf("spilled %s to disk", size_of(spilled)));
	if (profile_number(node->json, "Original Hash Batches") > 0 &&
		batches > profile_number(node->json, "Original Hash Batches"))
		flags = lappend(flags, psprintf("hash table outgrew its memory: %.0f batches, %.0f planned", batches,
										profile_number(node->json, "Original Hash Batches")));
	if (profile_text(node->json, "Join Filter"))
	{
		flags = add_removed(flags, "join filter", counter->nfiltered1, counter->ntuples + counter->nfiltered2);
		flags = add_removed(flags, "filter", counter->nfiltered2, counter->ntuples);
	}
	else if (profile_text(node->json, "Filter"))
		flags = add_removed(flags, "filter", counter->nfiltered1, counter->ntuples);
	if (node->state->worker_instrument == NULL || !node->state->plan->parallel_aware)
	{
		if (profile_text(node->json, "Index Name") && counter->nloops >= LOOPS_MIN)
			flags = lappend(flags, psprintf("index scanned %s times", thousands(counter->nloops)));
		else if (IsA(node->state, SeqScanState) && counter->nloops >= 100)
			flags = lappend(flags, psprintf("table read %s times", thousands(counter->nloops)));
	}
	lossy = profile_number(node->json, "Lossy Heap Blocks");
	exact = profile_number(node->json, "Exact Heap Blocks");
	if (lossy > 0)
		flags = lappend(flags, psprintf("lossy bitmap: %s of %s pages are checked row by row; work_mem is too small for it",
										thousands(lossy), thousands(lossy + exact)));
	fetches = profile_number(node->json, "Heap Fetches");
	if (fetches >= ROWS_MIN && fetches * 2 >= counter->ntuples)
		flags = lappend(flags, psprintf("index-only scan visits the table for %s rows; VACUUM it",
										thousands(fetches)));
	if (profile_number(node->json, "Workers Launched") < profile_number(node->json, "Workers Planned"))
		flags = lappend(flags, psprintf("%.0f of %.0f workers started",
										profile_number(node->json, "Workers Launched"),
										profile_number(node->json, "Workers Planned")));
	return flags;
}
