/*
 * insert_testing.c
 *		Only with STOP_POINTS=1: what the insert buffer is given, for tests.
 */
#include "postgres.h"

#ifdef PERFOPT_STOP_POINTS

#include "batch/batch_internal.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(perfopt_test_batch_rows);

/* (target regclass, rows jsonb[]): action, sqlstate, message, detail, constraint of each */
Datum
perfopt_test_batch_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum	   *elements;
	bool	   *element_nulls;
	int			num_rows;
	Jsonb	  **rows;
	BatchVerdict *verdicts;

	InitMaterializedSRF(fcinfo, 0);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), JSONBOID, -1, false, TYPALIGN_INT,
					  &elements, &element_nulls, &num_rows);
	rows = palloc(sizeof(Jsonb *) * num_rows);
	verdicts = palloc(sizeof(BatchVerdict) * num_rows);
	for (int i = 0; i < num_rows; i++)
		rows[i] = DatumGetJsonbP(elements[i]);
	batch_insert_jsonb_rows(PG_GETARG_OID(0), rows, NULL, num_rows, verdicts);
	for (int i = 0; i < num_rows; i++)
	{
		const BatchVerdict *verdict = &verdicts[i];
		Datum		values[5] = {0};
		bool		nulls[5] = {0};

		values[0] = Int32GetDatum(verdict->action);
		nulls[1] = nulls[2] = verdict->action != BATCH_REJECTED;
		if (verdict->action == BATCH_REJECTED)
		{
			values[1] = CStringGetTextDatum(unpack_sql_state(verdict->sqlerrcode));
			values[2] = CStringGetTextDatum(verdict->message);
		}
		nulls[3] = verdict->detail == NULL;
		if (verdict->detail)
			values[3] = CStringGetTextDatum(verdict->detail);
		nulls[4] = verdict->constraint == NULL;
		if (verdict->constraint)
			values[4] = CStringGetTextDatum(verdict->constraint);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

#endif							/* PERFOPT_STOP_POINTS */
