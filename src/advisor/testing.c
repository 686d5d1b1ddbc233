/*
 * testing.c
 *		What the tests need of the advisor's inside; nothing of this file is in
 *		a release build.  test/tools/advisor.sql makes the functions.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#ifdef PERFOPT_STOP_POINTS

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(perfopt_test_index_bytes);
PG_FUNCTION_INFO_V1(perfopt_test_what_if_cost);

static void
make_spec(IndexSpec *spec, Oid relid, ArrayType *columns)
{
	Datum	   *names;
	int			num_names;

	memset(spec, 0, sizeof(*spec));
	spec->relid = relid;
	deconstruct_array(columns, TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &num_names);
	spec->num_columns = Min(num_names, INDEX_MAX_COLUMNS);
	for (int i = 0; i < spec->num_columns; i++)
		spec->attnums[i] = get_attnum(relid, TextDatumGetCString(names[i]));
}

/* index_bytes(relation regclass, columns text[]): as estimated. */
Datum
perfopt_test_index_bytes(PG_FUNCTION_ARGS)
{
	IndexSpec	spec;
	IndexSize	size;
	Relation	relation = relation_open(PG_GETARG_OID(0), AccessShareLock);

	make_spec(&spec, PG_GETARG_OID(0), PG_GETARG_ARRAYTYPE_P(1));
	perfopt_index_size(relation, relation->rd_rel->reltuples, &spec, &size);
	relation_close(relation, AccessShareLock);
	PG_RETURN_INT64((int64) (size.pages * BLCKSZ));
}

/*
 * what_if_cost(query text, role regrole, relation regclass, columns text[]):
 * NULL when it can't be priced.
 */
Datum
perfopt_test_what_if_cost(PG_FUNCTION_ARGS)
{
	char	   *query = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PerfoptQueryKey key = {.database = MyDatabaseId,.role = PG_GETARG_OID(1)};
	IndexSpec	spec;
	List	   *specs = NIL;
	PlanSample *sample = palloc(sizeof(PlanSample));
	RawStmt    *raw = linitial_node(RawStmt, pg_parse_query(query));
	List	   *queries = pg_analyze_and_rewrite_fixedparams(raw, query, NULL, 0, NULL);
	Cost		cost;

	if (!PG_ARGISNULL(2))
	{
		make_spec(&spec, PG_GETARG_OID(2), PG_GETARG_ARRAYTYPE_P(3));
		specs = list_make1(&spec);
	}
	if (!perfopt_plan_sample_make(&key, linitial_node(Query, queries), NULL, sample) ||
		!perfopt_what_if_cost(sample, specs, &cost, NULL))
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(cost);
}

#endif							/* PERFOPT_STOP_POINTS */
