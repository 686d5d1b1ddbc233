/*
 * rounds.c
 *		Duty "advise": which indexes would save the most of the time that this
 *		database's statements take.
 *
 * Statements' plan costs are turned into time by their mean: an index that
 * lowers a statement's cost to a tenth is taken to save nine tenths of its time.
 * From what an index saves, the writes it makes dearer are subtracted.
 *
 * A round plans for perfopt.advice_time_budget, of which up to half goes to
 * pricing statements as they are.  Between its steps it rests, so that others
 * get the processor, and begins new transactions, so that dead rows can go.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/relation.h"
#include "advisor/choose.h"
#include "advisor/workload.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/settings.h"
#include "common/shmem.h"
#include "common/stop_points.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* A statement is helped when its cost falls below this part. */
#define HELPED				0.9

/* What one saves that makes a statement much faster, for each so many bytes. */
#define FAST_BYTES			(100.0 * 1024 * 1024)

/* What an entry costs when the index won't stay in memory. */
#define WRITE_UNCACHED_MS	0.05

/* Without a limit in bytes: a part of the database, but not less than this. */
#define BUDGET_PART			0.5
#define BUDGET_LEAST		(1024.0 * 1024 * 1024)

/* Beside what a round takes may, with its rests. */
#define ANALYZE_NOW_TIMEOUT_MS	(5 * 60 * 1000)

typedef struct Round
{
	Workload	workload;
	Choice		choice;
	List	   *open;			/* IndexSpec *, advised by earlier rounds */
	List	   *dismissed;
	double		loaded_ms;		/* worked when the workload was loaded */
} Round;

static const char *const advice_kinds[] = {"create_index", NULL};

/* Statements are priced as they are for half of the time at most. */
static bool
out_of_time(void *arg)
{
	return perfopt_duty_rest() >= perfopt_advice_time_budget / 2.0;
}

/*
 * The choice has the rest: one statement that takes long to plan must not leave
 * nothing for it.
 */
static double
time_used(void *arg)
{
	Round	   *round = arg;

	return (perfopt_duty_rest() - round->loaded_ms) /
		Max(perfopt_advice_time_budget - round->loaded_ms, perfopt_advice_time_budget / 2.0);
}

/*
 * What the choice asks for
 */

/* With several samples: the sum of their costs. */
static bool
price(void *arg, int number, List *specs, double *ratio, Bitmapset **used)
{
	WorkloadStatement *statement = &((Round *) arg)->workload.statements[number];
	List	   *indexes = list_concat_copy(specs, statement->known);
	double		with = 0;
	double		without = 0;

	for (int i = 0; i < statement->num_samples; i++)
	{
		WhatIfPrice priced;

		if (statement->costs[i] <= 0 ||
			!perfopt_what_if_sample(statement->samples[i], indexes, NIL, &priced, NULL))
			continue;
		with += priced.cost;
		without += statement->costs[i];
		*used = bms_join(*used, priced.used);
	}
	*ratio = without > 0 ? with / without : 1;
	return without > 0;
}

/* What the index would cost in writes, and its size; false: not to be made. */
static bool
assess(void *arg, ChoiceIndex *index)
{
	Round	   *round = arg;
	Relation	relation = perfopt_index_spec_open(index->spec);
	bool		good;

	if (relation == NULL)
		return false;
	good = !perfopt_is_standing(round->dismissed, index->spec) &&
		!perfopt_index_exists(relation, index->spec);
	index->preferred = perfopt_is_standing(round->open, index->spec);
	if (good)
	{
		double		live_rows = relation->rd_rel->reltuples;
		const IndexSize *size = &perfopt_index_facts(relation, live_rows, index->spec)->size;
		TableWrites writes;

		good = size->possible;
		index->bytes = size->pages * BLCKSZ;
		(void) perfopt_superseded_by(index->spec, relation, &index->freed);
		perfopt_workload_writes(index->spec->relid, &writes);
		index->writes = perfopt_entries_written(&writes, index->spec,
												perfopt_row_writes(index->spec, size) *
												(live_rows > 0 ? Min(size->tuples / live_rows, 1) : 1),
												list_length(RelationGetIndexList(relation))) *
			(size->pages > NBuffers / 2 ? WRITE_UNCACHED_MS : ENTRY_WRITE_MS);
	}
	relation_close(relation, AccessShareLock);
	return good;
}

/*
 * The budget
 */
static double
query_bytes(const char *sql)
{
	double		bytes;
	bool		isnull;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute(sql, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read sizes");
	bytes = DatumGetFloat8(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return isnull ? 0 : bytes;
}

/* What advice may take that is not followed yet; negative: any. */
static double
bytes_left(void)
{
	double		budget = perfopt_advice_storage_budget * 1024.0 * 1024;

	if (perfopt_advice_storage_budget < 0)
		return -1;
	if (perfopt_advice_storage_budget == 0)
		budget = Max(BUDGET_LEAST, BUDGET_PART *
					 query_bytes("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())::float8"));
	budget -= query_bytes("SELECT sum(pg_catalog.pg_relation_size(c.oid))::float8"
						  " FROM perfopt.advice_item a"
						  " JOIN pg_catalog.pg_namespace n ON n.nspname = a.schema_name"
						  " JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = a.index_name"
						  " WHERE a.kind IN ('create_index', 'index_foreign_key')"
						  " AND a.status IN ('applied', 'confirmed') AND c.relkind = 'i'");
	return Max(budget, 0);
}

/*
 * What is told
 */
typedef struct Effect
{
	WorkloadStatement *statement;
	double		before;			/* ratios to the cost as things are */
	double		after;
} Effect;

static int
more_saved_first(const void *a, const void *b)
{
	const Effect *left = a;
	const Effect *right = b;
	double		l = (left->before - left->after) * left->statement->ms;
	double		r = (right->before - right->after) * right->statement->ms;

	return l < r ? 1 : l > r ? -1 : 0;
}

static double
mean_ms(const WorkloadStatement *statement)
{
	return statement->ms / Max(statement->calls, 1);
}

/* The statements that the index helps, the most saved first. */
static int
find_effects(Round *round, ChoiceIndex *index, Effect *effects)
{
	int			num = 0;

	for (int i = 0; i < round->workload.num; i++)
	{
		Effect	   *effect = &effects[num];

		if (!perfopt_choice_uses(&round->choice, i, index))
			continue;
		effect->statement = &round->workload.statements[i];
		effect->before = perfopt_choice_ratio_without(&round->choice, i, index);
		effect->after = round->choice.statements[i].ratio;
		if (effect->after <= effect->before * HELPED)
			num++;
	}
	qsort(effects, num, sizeof(Effect), more_saved_first);
	return num;
}

static void
append_query(StringInfo evidence, const Effect *effect, double database_ms)
{
	WorkloadStatement *statement = effect->statement;
	char	   *role = GetUserNameFromId(statement->key.role, true);

	appendStringInfo(evidence, "{\"queryid\": %lld, \"role\": ",
					 (long long) statement->key.queryid);
	escape_json(evidence, role ? role : "");
	appendStringInfo(evidence,
					 ", \"calls\": %.0f, \"mean_ms\": %.4f, \"share\": %.4f"
					 ", \"cost_before\": %.2f, \"cost_after\": %.2f"
					 ", \"predicted_ms\": %.4f}",
					 statement->calls, mean_ms(statement),
					 Min(statement->ms / database_ms, 1),
					 effect->before * statement->cost, effect->after * statement->cost,
					 effect->after * mean_ms(statement));
}

/* Existing indexes that would be superfluous: as JSON, and in a sentence. */
static char *
tell_superseded(StringInfo evidence, List *names)
{
	StringInfoData sentence;
	ListCell   *lc;

	initStringInfo(&sentence);
	appendStringInfoString(evidence, ", \"supersedes\": [");
	foreach(lc, names)
	{
		int			i = foreach_current_index(lc);

		appendStringInfoString(evidence, i > 0 ? ", " : "");
		escape_json(evidence, lfirst(lc));
		appendStringInfo(&sentence, "%s%s",
						 i == 0 ? "" : i == list_length(names) - 1 ? " and " : ", ",
						 (char *) lfirst(lc));
	}
	appendStringInfoChar(evidence, ']');
	if (names == NIL)
		return "";
	return psprintf(" It makes %s superfluous.", sentence.data);
}

/* False when the table or a column is gone, or the table is locked by now. */
static bool
tell(Round *round, ChoiceIndex *index, const Effect *effects, int num, AdviceFound *found)
{
	Relation	relation = perfopt_index_spec_open(index->spec);
	StringInfoData evidence;
	double		database_ms = round->workload.ms;
	double		share = 0;
	double		freed;
	char	   *superseded;
	const char *needs = perfopt_describe_needs(index->spec);

	if (relation == NULL)
		return false;
	initStringInfo(&evidence);
	appendStringInfoString(&evidence, "{\"queries\": [");
	for (int i = 0; i < num; i++)
	{
		appendStringInfoString(&evidence, i > 0 ? ", " : "");
		append_query(&evidence, &effects[i], database_ms);
		share += effects[i].statement->ms / database_ms;
	}
	appendStringInfo(&evidence, "], \"saved_share\": %.4f, \"write_cost_share\": %.4f",
					 Min(Max(index->saved, 0) / database_ms, 1), index->writes / database_ms);
	if (index->spec->extension)
	{
		appendStringInfoString(&evidence, ", \"requires_extension\": ");
		escape_json(&evidence, index->spec->extension);
	}
	superseded = tell_superseded(&evidence, perfopt_superseded_by(index->spec, relation, &freed));
	appendStringInfoChar(&evidence, '}');

	found->predicted_gain = Min(Max(index->saved, 0) / database_ms, 1);
	found->bytes = index->bytes;
	found->evidence = evidence.data;
	found->reason =
		psprintf("Statements that %s %s %s %s take %s a call and %.0f %% of the statement time; with this index about %s a call.%s%s%s",
				 index->spec->order_only ? "read" : "look up",
				 quote_qualified_identifier(found->schema_name, found->table_name),
				 index->spec->order_only ? "in the order of" : "by",
				 perfopt_index_spec_words(index->spec, relation),
				 perfopt_readable_ms(mean_ms(effects[0].statement)),
				 Min(share, 1) * 100,
				 perfopt_readable_ms(mean_ms(effects[0].statement) * effects[0].after),
				 superseded, needs[0] ? " " : "", needs);
	relation_close(relation, AccessShareLock);
	return true;
}

/* NULL: it can't be advised now.  There may be many, so texts only are kept. */
static AdviceFound *
describe(Round *round, ChoiceIndex *index, List *others)
{
	AdviceFound *found = palloc0(sizeof(AdviceFound));
	Effect	   *effects = palloc(sizeof(Effect) * Max(round->workload.num, 1));
	int			num = find_effects(round, index, effects);
	bool		good;

	found->kind = advice_kinds[0];
	good = num > 0 && perfopt_advice_name_index(found, index->spec, others);
	if (good)
	{
		MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "perfopt description of an index",
												   ALLOCSET_DEFAULT_SIZES);
		MemoryContext caller = MemoryContextSwitchTo(work);

		good = tell(round, index, effects, num, found);
		MemoryContextSwitchTo(caller);
		if (good)
		{
			found->reason = pstrdup(found->reason);
			found->evidence = pstrdup(found->evidence);
		}
		MemoryContextDelete(work);
	}
	pfree(effects);
	return good ? found : NULL;
}

/* What was chosen, and which statements were looked at. */
static void
store(Round *round)
{
	AdviceFinding finding = {.kinds = advice_kinds};
	Workload   *workload = &round->workload;
	Datum	   *queryids = palloc(sizeof(Datum) * Max(workload->num, 1));
	int			num = 0;
	ListCell   *lc;

	foreach(lc, round->choice.chosen)
	{
		AdviceFound *advice = describe(round, lfirst(lc), finding.found);

		(void) perfopt_duty_rest();
		if (advice)
			finding.found = lappend(finding.found, advice);
	}

	/* a round that was cut short judges no older advice */
	if (!workload->cut_short && !round->choice.cut_short)
		for (; num < workload->num; num++)
			queryids[num] = Int64GetDatum((int64) workload->statements[num].key.queryid);
	finding.priced_queryids = PointerGetDatum(construct_array(queryids, num, INT8OID, 8, true,
															  TYPALIGN_DOUBLE));
	perfopt_advice_store(&finding);
}

/*
 * A constant of samples that are all of one burst may be another one in the next;
 * but what was advised stays so, as samples are new after each restart.
 */
static List *
lasting_candidates(Round *round, const WorkloadStatement *statement)
{
	List	   *lasting = NIL;
	ListCell   *lc;

	foreach(lc, statement->candidates)
	{
		IndexSpec  *spec = lfirst(lc);

		if (!statement->one_burst || !spec->of_constants || spec->predicate == NIL ||
			perfopt_is_standing(round->open, spec))
			lasting = lappend(lasting, spec);
	}
	return lasting;
}

/* The duty. */
static void
advise(void)
{
	Round	   *round;
	Choice	   *choice;
	double		worked_ms;

	if (!perfopt_advisor_enabled)
		return;

	round = palloc0(sizeof(Round));
	choice = &round->choice;
	perfopt_workload_begin();
	perfopt_workload_load(&round->workload, out_of_time, round);
	PERFOPT_STOP_POINT("advise-priced");

	perfopt_standing_advice(&round->open, &round->dismissed);
	choice->num_statements = round->workload.num;
	choice->statements = palloc0(sizeof(ChoiceStatement) * Max(round->workload.num, 1));
	for (int i = 0; i < round->workload.num; i++)
	{
		choice->statements[i].weight = round->workload.statements[i].ms;
		choice->statements[i].candidates =
			lasting_candidates(round, &round->workload.statements[i]);
	}
	choice->budget = bytes_left();
	choice->least = round->workload.ms * perfopt_advice_min_share;
	choice->least_speedup = perfopt_advice_min_speedup;
	choice->least_fast = Min(choice->least, FAST_MS_PER_HOUR * Max(round->workload.hours, 1));
	choice->least_fast_bytes = FAST_BYTES;
	choice->price = price;
	choice->assess = assess;
	choice->time_used = time_used;
	choice->arg = round;
	round->loaded_ms = perfopt_duty_rest();
	perfopt_choose(choice);
	perfopt_workload_end();
	worked_ms = perfopt_duty_rest();
	ereport(DEBUG1,
			(errmsg_internal("perfopt: %d statements, %d plans, %.0f ms, %d indexes chosen",
							 round->workload.num, choice->plans, worked_ms,
							 list_length(choice->chosen))));

	PERFOPT_STOP_POINT("advise-chosen");
	store(round);
}

void
perfopt_rounds_init(void)
{
	static const PerfoptDuty duty = {
		.name = "advise",
		.interval_ms = &perfopt_advice_interval,
		.writes = true,
		.run = advise
	};

	perfopt_duty_register(&duty);
}

PG_FUNCTION_INFO_V1(perfopt_analyze_now);

/* analyze_now(): a round in the worker, then the number of open advices. */
Datum
perfopt_analyze_now(PG_FUNCTION_ARGS)
{
	perfopt_require_preload();
	perfopt_duty_run_now("advise", ANALYZE_NOW_TIMEOUT_MS +
						 (int) (perfopt_advice_time_budget / perfopt_worker_cpu_share));
	PG_RETURN_INT32(perfopt_advice_count_open(""));
}
