/*
 * plan_samples_view.c
 *		perfopt.plan_samples: which statements are kept, with which values.
 *
 * Values are secrets: the view is for members of pg_read_all_stats only.
 */
#include "postgres.h"

#include "advisor/plan_samples.h"

#include "catalog/pg_type.h"
#include "common/shmem.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* The values as text[]; NULL where one is null, unknown or of a lost type. */
static Datum
params_as_text(const PlanSample *sample)
{
	ParamListInfo params = perfopt_plan_sample_params(sample);
	ArrayBuildState *array = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	for (int i = 0; i < params->numParams; i++)
	{
		ParamExternData *param = &params->params[i];
		Datum text = (Datum) 0;
		bool		isnull = param->isnull || !OidIsValid(param->ptype) ||
		!SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(param->ptype));

		if (!isnull)
		{
			Oid			output;
			bool		is_varlena;

			getTypeOutputInfo(param->ptype, &output, &is_varlena);
			text = CStringGetTextDatum(OidOutputFunctionCall(output, param->value));
		}
		array = accumArrayResult(array, text, isnull, TEXTOID, CurrentMemoryContext);
	}
	return makeArrayResult(array, CurrentMemoryContext);
}

PG_FUNCTION_INFO_V1(perfopt_plan_samples);

/* plan_samples(): of this database, as values of others may be of its types. */
Datum
perfopt_plan_samples(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PerfoptQueryKey *keys;
	int			num_keys;
	PlanSample *sample = palloc(sizeof(PlanSample));

	perfopt_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	num_keys = perfopt_plan_sample_keys(MyDatabaseId, &keys);
	for (int k = 0; k < num_keys; k++)
	{
		for (int i = 0; perfopt_plan_sample_get(&keys[k], i, sample); i++)
		{
			Datum		values[5];
			bool		nulls[5] = {0};

			values[0] = ObjectIdGetDatum(sample->key.role);
			values[1] = Int64GetDatum((int64) sample->key.queryid);
			values[2] = TimestampTzGetDatum(sample->captured_at);
			values[3] = params_as_text(sample);
			values[4] = Int32GetDatum(sample->tree_size + sample->params_size);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
			CHECK_FOR_INTERRUPTS();
		}
	}
	return (Datum) 0;
}
