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

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_type.h"
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

PG_FUNCTION_INFO_V1(perfopt_test_measure_compare);
PG_FUNCTION_INFO_V1(perfopt_test_measure_shift);

static void
counts_of(ArrayType *array, uint64 *counts)
{
	Datum	   *pairs;
	int			num;

	memset(counts, 0, sizeof(uint64) * HISTOGRAM_BUCKETS);
	deconstruct_array(array, INT8OID, 8, true, TYPALIGN_DOUBLE, &pairs, NULL, &num);
	for (int i = 0; i + 1 < num; i += 2)
		counts[DatumGetInt64(pairs[i]) % HISTOGRAM_BUCKETS] += DatumGetInt64(pairs[i + 1]);
}

/* measure_compare(before bigint[], after bigint[], shift integer) */
Datum
perfopt_test_measure_compare(PG_FUNCTION_ARGS)
{
	uint64		before[HISTOGRAM_BUCKETS];
	uint64		after[HISTOGRAM_BUCKETS];
	Measured	measured;
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	counts_of(PG_GETARG_ARRAYTYPE_P(0), before);
	counts_of(PG_GETARG_ARRAYTYPE_P(1), after);
	perfopt_measure_compare(before, after, PG_GETARG_INT32(2), &measured);
	values[0] = Float8GetDatum(measured.faster);
	values[1] = Float8GetDatum(measured.z);
	values[2] = Int32GetDatum(measured.change);
	values[3] = Float8GetDatum(measured.ratio);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* measure_shift(ratios float8[]) */
Datum
perfopt_test_measure_shift(PG_FUNCTION_ARGS)
{
	Datum	   *datums;
	int			num;
	double	   *ratios;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), FLOAT8OID, 8, true, TYPALIGN_DOUBLE,
					  &datums, NULL, &num);
	ratios = palloc(sizeof(double) * Max(num, 1));
	for (int i = 0; i < num; i++)
		ratios[i] = DatumGetFloat8(datums[i]);
	PG_RETURN_INT32(perfopt_measure_shift(ratios, num));
}

#endif							/* PERFOPT_STOP_POINTS */
