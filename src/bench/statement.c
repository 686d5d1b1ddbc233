/*
 * statement.c
 *		BenchStatement: a statement to be measured, and the arguments that the
 *		functions of this folder have in common.
 *
 * It is prepared as a client's PREPARE would, by its caller's rights and
 * search_path, and its plan comes from the plan cache: what is measured is what
 * a prepared statement costs.
 */
#include "postgres.h"

#include "bench/bench_internal.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/query_params.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

char *
bench_text_argument(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

int
bench_int_argument(FunctionCallInfo fcinfo, int arg, const char *name,
				   int if_null, int min)
{
	int			value = PG_ARGISNULL(arg) ? if_null : PG_GETARG_INT32(arg);

	if (value < min)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at least %d", name, min)));
	return value;
}

bool
bench_bool_argument(FunctionCallInfo fcinfo, int arg, bool if_null)
{
	return PG_ARGISNULL(arg) ? if_null : PG_GETARG_BOOL(arg);
}

int64
bench_time_argument(FunctionCallInfo fcinfo, int arg, const char *name,
					int64 if_null)
{
	Interval   *span;
	double		us;

	if (PG_ARGISNULL(arg))
		return if_null;
	span = PG_GETARG_INTERVAL_P(arg);
	us = span->time + ((double) span->month * DAYS_PER_MONTH + span->day) * USECS_PER_DAY;
	if (us <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be greater than zero", name)));
	/* a year is as good as for ever */
	return (int64) (Min(us, 365.0 * USECS_PER_DAY) * 1000);
}

BenchPlanMode
bench_plan_mode(FunctionCallInfo fcinfo, int arg)
{
	char	   *mode = PG_ARGISNULL(arg) ? "auto" : text_to_cstring(PG_GETARG_TEXT_PP(arg));

	if (strcmp(mode, "auto") == 0)
		return BENCH_PLAN_AUTO;
	if (strcmp(mode, "generic") == 0)
		return BENCH_PLAN_GENERIC;
	if (strcmp(mode, "custom") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("plan \"%s\" is not known", mode),
				 errhint("It is \"auto\", \"generic\" or \"custom\".")));
	return BENCH_PLAN_CUSTOM;
}

/* The fields of a record as values of $1, $2 ... */
ParamListInfo
bench_params(FunctionCallInfo fcinfo, int arg)
{
	HeapTupleHeader header;
	HeapTupleData tuple;
	TupleDesc	desc;
	ParamListInfo list;
	Datum	   *values;
	bool	   *nulls;
	int			num = 0;

	if (PG_ARGISNULL(arg))
		return NULL;
	header = PG_GETARG_HEAPTUPLEHEADER(arg);
	desc = perfopt_params_open(header, &tuple);
	values = palloc((desc->natts + 1) * sizeof(Datum));
	nulls = palloc((desc->natts + 1) * sizeof(bool));
	heap_deform_tuple(&tuple, desc, values, nulls);
	list = makeParamList(desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);
		ParamExternData *param = &list->params[num];

		if (attr->attisdropped)
			continue;
		param->value = perfopt_param_of_field(attr, values[i], nulls[i], &param->ptype);
		param->isnull = nulls[i];
		param->pflags = PARAM_FLAG_CONST;
		num++;
	}
	list->numParams = num;
	ReleaseTupleDesc(desc);
	return num > 0 ? list : NULL;
}

/* What the only statement of the text is, or an error that says why it is none. */
static CachedPlanSource *
only_source(const char *function, SPIPlanPtr plan)
{
	List	   *sources = SPI_plan_get_plan_sources(plan);
	CachedPlanSource *source;

	if (list_length(sources) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("%s takes exactly one statement, but was given %d",
						function, list_length(sources))));
	source = linitial(sources);
	if (list_length(source->query_list) == 1 &&
		linitial_node(Query, source->query_list)->commandType == CMD_UTILITY)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot run %s", function,
						CreateCommandName(linitial_node(Query, source->query_list)->utilityStmt)),
				 errhint("Give it a SELECT, VALUES, INSERT, UPDATE, DELETE or MERGE.")));
	if (list_length(source->query_list) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot run a statement that rules make %d of",
						function, list_length(source->query_list))));
	return source;
}

void
bench_statement_prepare(BenchStatement *statement, const char *sql,
						BenchPlanMode mode)
{
	int			num = statement->params ? statement->params->numParams : 0;
	Oid		   *types = palloc((num + 1) * sizeof(Oid));
	int			options = CURSOR_OPT_PARALLEL_OK;
	SPIPlanPtr	plan;

	for (int i = 0; i < num; i++)
		types[i] = statement->params->params[i].ptype;
	if (mode == BENCH_PLAN_GENERIC)
		options |= CURSOR_OPT_GENERIC_PLAN;
	else if (mode == BENCH_PLAN_CUSTOM)
		options |= CURSOR_OPT_CUSTOM_PLAN;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plan = SPI_prepare_cursor(sql, num, types, options);
	if (plan == NULL)
		elog(ERROR, "could not prepare statement: %s",
			 SPI_result_code_string(SPI_result));
	statement->source = only_source(statement->function, plan);
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep plan of statement");
	statement->plan = plan;
	SPI_finish();

	statement->run = 0;
	statement->planning_ms = -1;
	statement->generic = false;
	statement->context = AllocSetContextCreate(CurrentMemoryContext, "perfopt measured run",
											   ALLOCSET_DEFAULT_SIZES);
}

void
bench_statement_free(BenchStatement *statement)
{
	SPIPlanPtr	plan = statement->plan;

	if (plan == NULL)
		return;
	statement->plan = NULL;
	SPI_freeplan(plan);
	MemoryContextDelete(statement->context);
}
