/*
 * testing.c
 *		What the tests need of the advisor's inside; nothing of this file is in
 *		a release build.  test/tools/advisor.sql makes the functions.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/candidates.h"
#include "advisor/measure.h"

#ifdef PERFOPT_STOP_POINTS

#include <math.h>

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(perfopt_test_index_facts);
PG_FUNCTION_INFO_V1(perfopt_test_index_ddl);
PG_FUNCTION_INFO_V1(perfopt_test_index_words);
PG_FUNCTION_INFO_V1(perfopt_test_index_serves);
PG_FUNCTION_INFO_V1(perfopt_test_index_exists);
PG_FUNCTION_INFO_V1(perfopt_test_what_if_cost);
PG_FUNCTION_INFO_V1(perfopt_test_index_candidates);

/* index_facts(ddl text): of the index of a CREATE INDEX, as estimated. */
Datum
perfopt_test_index_facts(PG_FUNCTION_ARGS)
{
	IndexSpec  *spec = perfopt_index_spec_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	Relation	relation = relation_open(spec->relid, AccessShareLock);
	const IndexFacts *facts = perfopt_index_facts(relation, relation->rd_rel->reltuples, spec);
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int64GetDatum((int64) (facts->size.pages * BLCKSZ));
	values[1] = Float8GetDatum(facts->size.tuples);
	values[2] = Int32GetDatum(facts->size.tree_height);
	values[3] = BoolGetDatum(facts->size.possible);
	relation_close(relation, AccessShareLock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* index_ddl(ddl text): as written by perfopt. */
Datum
perfopt_test_index_ddl(PG_FUNCTION_ARGS)
{
	IndexSpec  *spec = perfopt_index_spec_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	Relation	relation = relation_open(spec->relid, AccessShareLock);
	char	   *name = perfopt_index_spec_name(spec, relation);
	char	   *ddl = perfopt_index_spec_ddl(spec, relation, name);

	relation_close(relation, AccessShareLock);
	PG_RETURN_TEXT_P(cstring_to_text(ddl));
}

/* index_words(ddl text): what it is on, as a sentence has it. */
Datum
perfopt_test_index_words(PG_FUNCTION_ARGS)
{
	IndexSpec  *spec = perfopt_index_spec_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	Relation	relation = relation_open(spec->relid, AccessShareLock);
	char	   *words = perfopt_index_spec_words(spec, relation);

	relation_close(relation, AccessShareLock);
	PG_RETURN_TEXT_P(cstring_to_text(words));
}

/* index_serves(ddl text, wanted text); index_exists(ddl text) */
Datum
perfopt_test_index_serves(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(perfopt_index_spec_serves(perfopt_index_spec_parse(text_to_cstring(PG_GETARG_TEXT_PP(0))),
											 perfopt_index_spec_parse(text_to_cstring(PG_GETARG_TEXT_PP(1)))));
}

Datum
perfopt_test_index_exists(PG_FUNCTION_ARGS)
{
	IndexSpec  *spec = perfopt_index_spec_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	Relation	relation = relation_open(spec->relid, AccessShareLock);
	bool		exists = perfopt_index_exists(relation, spec);

	relation_close(relation, AccessShareLock);
	PG_RETURN_BOOL(exists);
}

/*
 * what_if_cost(query text, role regrole, indexes text[], hidden regclass[]):
 * NULL when it can't be priced.
 */
Datum
perfopt_test_what_if_cost(PG_FUNCTION_ARGS)
{
	char	   *query = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PerfoptQueryKey key = {.database = MyDatabaseId,.role = PG_GETARG_OID(1)};
	List	   *specs = NIL;
	List	   *hidden = NIL;
	Datum	   *items;
	int			num;
	PlanSample *sample = palloc(sizeof(PlanSample));
	RawStmt    *raw = linitial_node(RawStmt, pg_parse_query(query));
	List	   *queries = pg_analyze_and_rewrite_fixedparams(raw, query, NULL, 0, NULL);
	Cost		cost;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TEXTOID, -1, false, TYPALIGN_INT, &items, NULL, &num);
	for (int i = 0; i < num; i++)
		specs = lappend(specs, perfopt_index_spec_parse(TextDatumGetCString(items[i])));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(3), REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT, &items, NULL, &num);
	for (int i = 0; i < num; i++)
		hidden = lappend_oid(hidden, DatumGetObjectId(items[i]));
	if (!perfopt_plan_sample_make(&key, linitial_node(Query, queries), NULL, sample) ||
		!perfopt_what_if_cost(sample, specs, hidden, &cost, NULL))
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(cost);
}

/* What follows the table's name in a CREATE INDEX, with what it is wanted for. */
static char *
describe_candidate(const IndexSpec *spec)
{
	Relation	relation = relation_open(spec->relid, AccessShareLock);
	char	   *ddl = perfopt_index_spec_ddl(spec, relation, "i");
	const char *using = strstr(ddl, "USING ");
	char	   *described = psprintf("%s %s%s%s%s", RelationGetRelationName(relation),
									 using ? using : strchr(ddl, '('),
									 spec->order_only ? " order" : "",
									 spec->any_direction ? "" : " directed",
									 spec->arm_of ? " arm" : "");

	relation_close(relation, AccessShareLock);
	return described;
}

/*
 * index_candidates(queries text[], role regrole): of samples of one statement,
 * in their order.
 */
Datum
perfopt_test_index_candidates(PG_FUNCTION_ARGS)
{
	PerfoptQueryKey key = {.database = MyDatabaseId,.role = PG_GETARG_OID(1)};
	PlanSample *sample = palloc(sizeof(PlanSample));
	List	   *specs = NIL;
	ArrayBuildState *result = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	Datum	   *items;
	int			num;
	ListCell   *lc;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &items, NULL, &num);
	for (int i = 0; i < num; i++)
	{
		char	   *query = TextDatumGetCString(items[i]);
		RawStmt    *raw = linitial_node(RawStmt, pg_parse_query(query));
		List	   *queries = pg_analyze_and_rewrite_fixedparams(raw, query, NULL, 0, NULL);
		Cost		cost;

		if (!perfopt_plan_sample_make(&key, linitial_node(Query, queries), NULL, sample) ||
			!perfopt_what_if_cost(sample, NIL, NIL, &cost, &specs))
			PG_RETURN_NULL();
	}
	specs = perfopt_candidates_settle(specs, num);
	foreach(lc, specs)
		accumArrayResult(result, CStringGetTextDatum(describe_candidate(lfirst(lc))), false,
						 TEXTOID, CurrentMemoryContext);
	PG_RETURN_DATUM(makeArrayResult(result, CurrentMemoryContext));
}

PG_FUNCTION_INFO_V1(perfopt_test_measure);
PG_FUNCTION_INFO_V1(perfopt_test_verdicts);

/*
 * measure(means float8[], calls integer, num_before integer, drift float8[]): of one
 * statement that takes so many ms in each window.
 */
Datum
perfopt_test_measure(PG_FUNCTION_ARGS)
{
	Datum	   *means;
	Datum	   *drifts;
	int			num;
	int			num_drifts;
	MeasureWindow *windows;
	double	   *drift;
	Measured	measured;
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), FLOAT8OID, 8, true, TYPALIGN_DOUBLE, &means, NULL, &num);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(3), FLOAT8OID, 8, true, TYPALIGN_DOUBLE, &drifts, NULL, &num_drifts);
	windows = palloc0(sizeof(MeasureWindow) * num);
	drift = palloc0(sizeof(double) * num);
	for (int i = 0; i < num; i++)
	{
		windows[i].calls = windows[i].kept = PG_GETARG_INT32(1);
		windows[i].ms = windows[i].calls * DatumGetFloat8(means[i]);
		windows[i].ms2 = windows[i].ms * DatumGetFloat8(means[i]);
		if (i < num_drifts)
			drift[i] = DatumGetFloat8(drifts[i]);
	}
	perfopt_measure_compare(windows, num, PG_GETARG_INT32(2), drift, perfopt_measure_alpha(1), &measured);
	values[0] = Float8GetDatum(measured.ratio);
	values[1] = Float8GetDatum(measured.p);
	values[2] = Int32GetDatum(measured.change);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

static double
normal(pg_prng_state * random)
{
	double		u = 1 - pg_prng_double(random);

	return sqrt(-2 * log(u)) * cos(2 * M_PI * pg_prng_double(random));
}

/*
 * verdicts(num integer, before integer, calls integer, ratio float8, wander float8,
 * correlation float8, stalls float8): of so many advices, on one statement each, with
 * so many windows before and calls in a window, which wanders by a standard deviation
 * of that log, is slower by the ratio afterwards, and takes 50 times as long in that
 * part of its calls.  Always the same.
 */
Datum
perfopt_test_verdicts(PG_FUNCTION_ARGS)
{
	int			num = PG_GETARG_INT32(0);
	int			num_before = PG_GETARG_INT32(1);
	int			calls = PG_GETARG_INT32(2);
	double		ratio = PG_GETARG_FLOAT8(3);
	double		wander = PG_GETARG_FLOAT8(4);
	double		correlation = PG_GETARG_FLOAT8(5);
	double		stalls = PG_GETARG_FLOAT8(6);
	pg_prng_state random;
	int			faster = 0;
	int			slower = 0;
	int			at_once = 0;
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	pg_prng_seed(&random, 7);
	for (int n = 0; n < num; n++)
	{
		MeasureWindow windows[MEASURE_BEFORE + MEASURE_AFTER];
		double		drift[MEASURE_BEFORE + MEASURE_AFTER] = {0};
		Measured	measured = {0};
		double		level = normal(&random);
		int			look = 1;

		CHECK_FOR_INTERRUPTS();
		for (int w = 0; w < num_before + 16 && measured.change == 0; w++)
		{
			uint64		counts[HISTOGRAM_BUCKETS] = {0};

			if (w > 0)
				level = correlation * level + sqrt(1 - correlation * correlation) * normal(&random);
			for (int i = 0; i < calls; i++)
			{
				double		ns = 1e6 * exp(wander * level + 0.5 * normal(&random));

				if (w >= num_before)
					ns *= ratio;
				if (pg_prng_double(&random) < stalls)
					ns *= 50;
				counts[perfopt_histogram_bucket((uint64) ns)]++;
			}
			perfopt_measure_window(counts, &windows[w]);
			if (w - num_before + 1 < look)
				continue;
			perfopt_measure_compare(windows, w + 1, num_before, drift, perfopt_measure_alpha(1), &measured);
			at_once += look == 1 && measured.change != 0;
			look *= 2;
		}
		faster += measured.change > 0;
		slower += measured.change < 0;
	}
	values[0] = Float8GetDatum((double) faster / num);
	values[1] = Float8GetDatum((double) slower / num);
	values[2] = Float8GetDatum((double) at_once / num);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

PG_FUNCTION_INFO_V1(perfopt_test_measure_drift);

/* measure_drift(medians float8[], num_controls integer, num_before integer) */
Datum
perfopt_test_measure_drift(PG_FUNCTION_ARGS)
{
	int			num_controls = PG_GETARG_INT32(1);
	Datum	   *medians;
	int			num;
	MeasureWindow *windows;
	double	   *drift;
	ArrayBuildState *result = initArrayResult(FLOAT8OID, CurrentMemoryContext, false);

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), FLOAT8OID, 8, true, TYPALIGN_DOUBLE, &medians, NULL, &num);
	windows = palloc0(sizeof(MeasureWindow) * num);
	drift = palloc0(sizeof(double) * num);
	for (int i = 0; i < num; i++)
	{
		windows[i].calls = 100;
		windows[i].median = log(DatumGetFloat8(medians[i]));
	}
	perfopt_measure_drift(windows, num_controls, num / num_controls, PG_GETARG_INT32(2), drift);
	for (int w = 0; w < num / num_controls; w++)
		accumArrayResult(result, Float8GetDatum(exp(drift[w])), false, FLOAT8OID, CurrentMemoryContext);
	PG_RETURN_DATUM(makeArrayResult(result, CurrentMemoryContext));
}

#endif							/* PERFOPT_STOP_POINTS */
