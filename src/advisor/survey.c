/*
 * survey.c
 *		Duty "survey": advice from the catalogs and statistics.
 *
 * The worker looks for what needs no choice between candidates: indexes that
 * nobody needs, that are not valid or bloated, foreign keys without an index, and
 * statements whose estimates are wrong because statistics are.  Each finder has
 * its time; what it does not get to comes first the next time.
 */
#include "postgres.h"

#include "advisor/survey_internal.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/settings.h"
#include "common/shmem.h"
#include "common/test_clock.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* Each finder may take so long. */
#define FINDER_MS			3000

/* The heaviest statements that are looked at. */
#define MAX_STATEMENTS		500

#define SURVEY_NOW_TIMEOUT_MS	(5 * 60 * 1000)

/*
 * Queries of our own
 */
SurveyRows *
survey_query(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	MemoryContext caller = CurrentMemoryContext;
	SurveyRows *rows = palloc0(sizeof(SurveyRows));

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the catalogs");
	MemoryContextSwitchTo(caller);
	rows->desc = CreateTupleDescCopy(SPI_tuptable->tupdesc);
	rows->num = (int) SPI_processed;
	rows->rows = palloc(sizeof(HeapTuple) * Max(rows->num, 1));
	for (int i = 0; i < rows->num; i++)
		rows->rows[i] = heap_copytuple(SPI_tuptable->vals[i]);
	SPI_finish();
	return rows;
}

void
survey_execute(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0) < 0)
		elog(ERROR, "could not write what the survey has seen");
	SPI_finish();
}

static Datum
value_of(const SurveyRows *rows, int i, const char *column, Oid type, bool *isnull)
{
	int			number = SPI_fnumber(rows->desc, column);

	if (number <= 0 || SPI_gettypeid(rows->desc, number) != type)
		elog(ERROR, "there is no column \"%s\" of type %u", column, type);
	return heap_getattr(rows->rows[i], number, rows->desc, isnull);
}

char *
survey_text(const SurveyRows *rows, int i, const char *column)
{
	bool		isnull;
	Datum		value = value_of(rows, i, column, TEXTOID, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

Oid
survey_oid(const SurveyRows *rows, int i, const char *column)
{
	bool		isnull;
	Datum		value = value_of(rows, i, column, OIDOID, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

double
survey_number(const SurveyRows *rows, int i, const char *column)
{
	bool		isnull;
	Datum		value = value_of(rows, i, column, FLOAT8OID, &isnull);

	return isnull ? 0 : DatumGetFloat8(value);
}

bool
survey_bool(const SurveyRows *rows, int i, const char *column)
{
	bool		isnull;
	Datum		value = value_of(rows, i, column, BOOLOID, &isnull);

	return !isnull && DatumGetBool(value);
}

/*
 * The workload
 */
static int
heavier_first(const void *a, const void *b)
{
	double		left = ((const SurveyStatement *) a)->cost.total_ms;
	double		right = ((const SurveyStatement *) b)->cost.total_ms;

	return left < right ? 1 : left > right ? -1 : 0;
}

static void
load_samples(SurveyStatement *statement, PlanSample *buffer)
{
	while (statement->num_samples < SAMPLE_SETS &&
		   perfopt_plan_sample_get(&statement->key, statement->num_samples, buffer))
	{
		Size		size = offsetof(PlanSample, data) + buffer->tree_size + buffer->params_size;

		statement->samples[statement->num_samples] = palloc(size);
		memcpy(statement->samples[statement->num_samples++], buffer, size);
	}
}

static void
load_workload(Survey *survey)
{
	PerfoptQueryKey *keys;
	int			num_keys = perfopt_plan_sample_keys(MyDatabaseId, &keys);
	double		database_ms = perfopt_database_total_ms(MyDatabaseId);
	PlanSample *buffer = palloc(sizeof(PlanSample));
	int			num = 0;

	survey->statements = palloc0(sizeof(SurveyStatement) * Max(num_keys, 1));
	for (int i = 0; i < num_keys; i++)
	{
		SurveyStatement *statement = &survey->statements[num];

		statement->key = keys[i];
		if (!perfopt_query_cost(&keys[i], &statement->cost) || statement->cost.calls <= 0)
			continue;
		statement->share = database_ms > 0 ? Min(statement->cost.total_ms / database_ms, 1) : 0;
		num++;
	}
	qsort(survey->statements, num, sizeof(SurveyStatement), heavier_first);
	survey->num_statements = Min(num, MAX_STATEMENTS);
	for (int i = 0; i < survey->num_statements; i++)
		load_samples(&survey->statements[i], buffer);
	pfree(buffer);
}

bool
survey_statement_reads(const SurveyStatement *statement, Oid relid)
{
	if (statement->num_samples > 0)
	{
		const PlanSample *sample = statement->samples[0];

		for (int i = 0; i < sample->num_rels; i++)
			if (sample->rels[i].relid == relid)
				return true;
	}
	return false;
}

double
survey_cost_without(SurveyStatement *statement, List *hidden)
{
	double		dearest = -1;

	for (int i = 0; i < statement->num_samples; i++)
	{
		Cost		cost;

		if (statement->base[i] == 0 &&
			!perfopt_what_if_cost(statement->samples[i], NIL, NIL, &statement->base[i], NULL))
			statement->base[i] = -1;
		if (statement->base[i] > 0 &&
			perfopt_what_if_cost(statement->samples[i], NIL, hidden, &cost, NULL))
			dearest = Max(dearest, cost / statement->base[i]);
	}
	return dearest;
}

/*
 * Other advice
 */
List *
survey_advised_indexes(Relation relation)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[2];
	SurveyRows *rows;
	List	   *specs = NIL;

	values[0] = CStringGetTextDatum(get_namespace_name(RelationGetNamespace(relation)));
	values[1] = CStringGetTextDatum(RelationGetRelationName(relation));
	rows = survey_query("SELECT definition FROM perfopt.advice_item WHERE kind = 'create_index'"
						" AND schema_name = $1 AND table_name = $2"
						" AND status IN ('open', 'queued', 'applying', 'failed')",
						2, types, values, NULL);
	for (int i = 0; i < rows->num; i++)
	{
		bool		gone;
		IndexSpec  *spec = perfopt_advice_index_spec(relation, survey_text(rows, i, "definition"), &gone);

		if (spec)
			specs = lappend(specs, spec);
	}
	return specs;
}

/*
 * What is told
 */
AdviceFound *
survey_found(const char *kind, const char *schema_name, const char *table_name)
{
	AdviceFound *found = palloc0(sizeof(AdviceFound));

	found->kind = kind;
	found->schema_name = pstrdup(schema_name);
	found->table_name = pstrdup(table_name);
	return found;
}

void
survey_append_queries(StringInfo evidence, List *statements)
{
	ListCell   *lc;

	appendStringInfoString(evidence, "\"queries\": [");
	foreach(lc, statements)
	{
		SurveyStatement *statement = lfirst(lc);
		char	   *role = GetUserNameFromId(statement->key.role, true);

		appendStringInfo(evidence, "%s{\"queryid\": %lld, \"role\": ",
						 foreach_current_index(lc) > 0 ? ", " : "",
						 (long long) statement->key.queryid);
		escape_json(evidence, role ? role : "");
		appendStringInfo(evidence, ", \"calls\": %lld, \"mean_ms\": %.4f, \"share\": %.4f}",
						 (long long) statement->cost.calls,
						 statement->cost.total_ms / statement->cost.calls, statement->share);
	}
	appendStringInfoChar(evidence, ']');
}

char *
survey_readable_bytes(double bytes)
{
	return bytes >= 10.0 * 1024 * 1024 * 1024 ? psprintf("%.0f GB", bytes / (1024.0 * 1024 * 1024)) :
		bytes >= 10 * 1024 * 1024 ? psprintf("%.0f MB", bytes / (1024 * 1024)) :
		psprintf("%.0f kB", bytes / 1024);
}

/*
 * The duty
 */
bool
survey_out_of_time(Survey *survey)
{
	CHECK_FOR_INTERRUPTS();
	return GetCurrentTimestamp() > survey->deadline;
}

static void
start_finder(Survey *survey)
{
	survey->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PERFOPT_LIMIT_MS(FINDER_MS));
}

static void
store(const char *const *kinds, List *found, bool complete)
{
	AdviceFinding finding = {.kinds = kinds,.found = found,.complete = complete};

	finding.priced_queryids = PointerGetDatum(construct_empty_array(INT8OID));
	perfopt_advice_store(&finding);
}

static void
look_at_server(Survey *survey)
{
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(MyDatabaseId)};
	SurveyRows *rows = survey_query("SELECT pg_stat_get_db_active_time($1) AS active_ms,"
									" EXISTS (SELECT FROM pg_replication_slots WHERE slot_type = 'physical')"
									" OR EXISTS (SELECT FROM pg_stat_replication r WHERE state IN ('streaming', 'catchup')"
									"  AND NOT EXISTS (SELECT FROM pg_replication_slots s"
									"   WHERE s.active_pid = r.pid AND slot_type = 'logical')) AS standbys",
									1, types, values, NULL);

	survey->standbys = survey_bool(rows, 0, "standbys");
	survey->active_ms = Max(survey_number(rows, 0, "active_ms"),
							perfopt_database_total_ms(MyDatabaseId));
}

void
survey_start(Survey *survey)
{
	look_at_server(survey);
	load_workload(survey);
	start_finder(survey);
}

static void
run_survey(void)
{
	static const char *const drop_kinds[] = {"drop_index", NULL};
	static const char *const reindex_kinds[] = {"reindex", NULL};
	static const char *const foreign_key_kinds[] = {"index_foreign_key", NULL};
	static const char *const estimate_kinds[] = {"analyze", "create_statistics", NULL};
	Survey		survey = {0};
	List	   *drop = NIL;
	List	   *reindex = NIL;
	List	   *found = NIL;
	bool		complete;

	if (!perfopt_advisor_enabled)
		return;
	survey_watch_indexes();
	perfopt_duty_next_transaction();

	survey_start(&survey);
	complete = survey_existing_indexes(&survey, &drop, &reindex);
	store(drop_kinds, drop, complete);
	start_finder(&survey);
	complete = survey_bloated_indexes(&survey, &reindex);
	store(reindex_kinds, reindex, complete);
	perfopt_duty_next_transaction();

	start_finder(&survey);
	complete = survey_foreign_keys(&survey, &found);
	store(foreign_key_kinds, found, complete);
	perfopt_duty_next_transaction();

	start_finder(&survey);
	found = NIL;
	complete = survey_misestimates(&survey, &found);
	store(estimate_kinds, found, complete);
}

void
perfopt_survey_init(void)
{
	static const PerfoptDuty duty = {
		.name = "survey",
		.interval_ms = &perfopt_survey_interval,
		.writes = true,
		.run = run_survey
	};

	perfopt_duty_register(&duty);
}

PG_FUNCTION_INFO_V1(perfopt_survey_now);

/* survey_now(): a look in the worker, then the number of its open advices. */
Datum
perfopt_survey_now(PG_FUNCTION_ARGS)
{
	perfopt_require_preload();
	perfopt_duty_run_now("survey", SURVEY_NOW_TIMEOUT_MS);
	PG_RETURN_INT32(perfopt_advice_count_open(" AND kind OPERATOR(pg_catalog.=) ANY"
											  " (ARRAY['drop_index', 'reindex', 'index_foreign_key', 'analyze', 'create_statistics'])"));
}
