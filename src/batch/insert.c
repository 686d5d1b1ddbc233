/*
 * insert.c
 *		perfopt.batch_insert() and the functions beside it: arguments and
 *		results.  insert_internal.h says how the rest is divided.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "batch/insert_internal.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(perfopt_batch_insert);
PG_FUNCTION_INFO_V1(perfopt_batch_insert_columns);
PG_FUNCTION_INFO_V1(perfopt_batch_insert_keys);
PG_FUNCTION_INFO_V1(perfopt_batch_insert_columns_keys);
PG_FUNCTION_INFO_V1(perfopt_batch_insert_path);

static const char *const action_names[] = {
	[BATCH_INSERTED] = "inserted",
	[BATCH_UPDATED] = "updated",
	[BATCH_SKIPPED] = "skipped",
	[BATCH_REJECTED] = "rejected"
};

void
batch_insert_init(void)
{
}

/* ---------------------------------------------------------------------
 * Arguments
 */

/* The elements of a name[], of which there is one at least. */
static List *
names_from_array(Datum array, const char *what)
{
	ArrayType  *names = DatumGetArrayTypeP(array);
	Datum	   *elements;
	bool	   *nulls;
	int			num_elements;
	List	   *result = NIL;

	deconstruct_array(names, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR,
					  &elements, &nulls, &num_elements);
	if (num_elements == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	for (int i = 0; i < num_elements; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("names of columns must not be null")));
		result = lappend(result, pstrdup(NameStr(*DatumGetName(elements[i]))));
	}
	return result;
}

/* Options, from values in the order of insert_options' fields. */
enum
{
	OPTION_ON_CONFLICT,
	OPTION_CONFLICT_COLUMNS,
	OPTION_UPDATE_COLUMNS,
	OPTION_ON_ERROR,
	OPTION_BATCH_SIZE,
	OPTION_KEY_COLUMNS,
	NUM_OPTIONS
};

static void
set_options(BatchOptions *options, const NullableDatum *values)
{
	if (!values[OPTION_ON_CONFLICT].isnull)
	{
		char	   *word = TextDatumGetCString(values[OPTION_ON_CONFLICT].value);

		if (strcmp(word, "error") == 0)
			options->on_conflict = BATCH_CONFLICT_ERROR;
		else if (strcmp(word, "nothing") == 0)
			options->on_conflict = BATCH_CONFLICT_NOTHING;
		else if (strcmp(word, "update") == 0)
			options->on_conflict = BATCH_CONFLICT_UPDATE;
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("on_conflict must be \"error\", \"nothing\" or \"update\", not \"%s\"", word)));
	}
	if (!values[OPTION_CONFLICT_COLUMNS].isnull)
		options->conflict_columns = names_from_array(values[OPTION_CONFLICT_COLUMNS].value,
													 "conflict_columns");
	if (!values[OPTION_UPDATE_COLUMNS].isnull)
		options->update_columns = names_from_array(values[OPTION_UPDATE_COLUMNS].value,
												   "update_columns");
	if (!values[OPTION_ON_ERROR].isnull)
	{
		char	   *word = TextDatumGetCString(values[OPTION_ON_ERROR].value);

		if (strcmp(word, "skip") == 0)
			options->skip = true;
		else if (strcmp(word, "abort") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("on_error must be \"abort\" or \"skip\", not \"%s\"", word)));
	}
	if (!values[OPTION_BATCH_SIZE].isnull)
	{
		options->batch_size = DatumGetInt32(values[OPTION_BATCH_SIZE].value);
		if (options->batch_size <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("batch_size must be greater than zero")));
	}
	if (!values[OPTION_KEY_COLUMNS].isnull)
		options->key_columns = names_from_array(values[OPTION_KEY_COLUMNS].value, "key_columns");
	if (options->on_conflict == BATCH_CONFLICT_ERROR && options->conflict_columns)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("conflict_columns have a meaning only with on_conflict \"nothing\" or \"update\"")));
	if (options->on_conflict != BATCH_CONFLICT_UPDATE && options->update_columns)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("update_columns have a meaning only with on_conflict \"update\"")));
}

static NullableDatum
argument(FunctionCallInfo fcinfo, int n)
{
	NullableDatum none = {.isnull = true};

	return n < PG_NARGS() ? fcinfo->args[n] : none;
}

/* Open the target in the first argument, for the function. */
static void
begin(FunctionCallInfo fcinfo, BatchRun *run, const char *function)
{
	List	   *names[] = {run->options.columns, run->options.conflict_columns,
	run->options.update_columns};
	ListCell   *cell;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the target must not be null")));
	batch_target_describe(&run->target, PG_GETARG_OID(0), function);
	for (int i = 0; i < lengthof(names); i++)
		foreach(cell, names[i])
			(void) batch_target_column(&run->target, lfirst(cell));
	batch_run_begin(run);
}

/* (target, rows, on_conflict, conflict_columns, update_columns, on_error, batch_size, columns, key_columns) */
static void
insert_rows(FunctionCallInfo fcinfo, BatchRun *run)
{
	NullableDatum options[NUM_OPTIONS];
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 1);
	Oid			base;
	Datum		rows;

	for (int i = 0; i <= OPTION_BATCH_SIZE; i++)
		options[i] = argument(fcinfo, 2 + i);
	options[OPTION_KEY_COLUMNS] = argument(fcinfo, 8);
	set_options(&run->options, options);
	if (!argument(fcinfo, 7).isnull)
		run->options.columns = names_from_array(fcinfo->args[7].value, "columns");
	if (!OidIsValid(type))
		elog(ERROR, "could not determine the type of the rows");
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("rows must not be null")));
	begin(fcinfo, run, "perfopt.batch_insert()");

	rows = PG_GETARG_DATUM(1);
	base = getBaseType(type);
	switch (base)
	{
		case JSONBOID:
			batch_read_jsonb(run, DatumGetJsonbP(rows));
			break;
		case UNKNOWNOID:
			batch_read_jsonb(run, DatumGetJsonbP(DirectFunctionCall1(jsonb_in, rows)));
			break;
		case JSONOID:
		case TEXTOID:
		case VARCHAROID:
			batch_read_jsonb(run, DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
																	 CStringGetDatum(TextDatumGetCString(rows)))));
			break;
		default:
			if (!OidIsValid(get_element_type(base)))
				ereport(ERROR,
						(errcode(ERRCODE_DATATYPE_MISMATCH),
						 errmsg("cannot insert a value of type %s as rows", format_type_be(type)),
						 errhint("Give an array of the table's row type, such as ARRAY[...]::%s[], or a jsonb array of objects.",
								 run->target.name)));
			batch_read_composites(run, rows, type);
	}
}

static bool
is_options(FunctionCallInfo fcinfo, int arg)
{
	return get_fn_expr_argtype(fcinfo->flinfo, arg) ==
		GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("insert_options"),
						ObjectIdGetDatum(get_namespace_oid("perfopt", false)));
}

/* The last argument, if it is a perfopt.insert_options. */
static bool
options_of_last_argument(FunctionCallInfo fcinfo, BatchOptions *options)
{
	int			last = PG_NARGS() - 1;
	NullableDatum values[NUM_OPTIONS];
	HeapTupleHeader header;

	if (!is_options(fcinfo, last))
		return false;
	if (PG_ARGISNULL(last))
		return true;
	header = PG_GETARG_HEAPTUPLEHEADER(last);
	for (int i = 0; i < NUM_OPTIONS; i++)
		values[i].value = GetAttributeByNum(header, i + 1, &values[i].isnull);
	set_options(options, values);
	return true;
}

/* (target, columns, VARIADIC arrays [, insert_options]) */
static void
insert_columns(FunctionCallInfo fcinfo, BatchRun *run)
{
	int			num_arrays = PG_NARGS() - 2;
	List	   *names;
	Datum	   *arrays;
	Oid		   *types;

	if (get_fn_expr_variadic(fcinfo->flinfo))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("arrays of values cannot be given as one VARIADIC array")));
	if (options_of_last_argument(fcinfo, &run->options))
		num_arrays--;
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the columns must not be null")));
	names = names_from_array(PG_GETARG_DATUM(1), "columns");
	arrays = palloc(sizeof(Datum) * Max(num_arrays, 1));
	types = palloc(sizeof(Oid) * Max(num_arrays, 1));
	for (int i = 0; i < num_arrays; i++)
	{
		if (is_options(fcinfo, 2 + i))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("insert_options must be the last argument")));
		if (PG_ARGISNULL(2 + i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("array %d of values is null", i + 1)));
		arrays[i] = PG_GETARG_DATUM(2 + i);
		types[i] = get_fn_expr_argtype(fcinfo->flinfo, 2 + i);
	}
	begin(fcinfo, run, "perfopt.batch_insert()");
	batch_read_columns(run, names, num_arrays, arrays, types);
}

/* ---------------------------------------------------------------------
 * Results
 */
static Datum
counts_result(FunctionCallInfo fcinfo, BatchRun *run)
{
	TupleDesc	desc;
	Datum		values[5];
	bool		nulls[5] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	for (int i = 0; i <= BATCH_REJECTED; i++)
		values[i] = Int64GetDatum(run->counts[i]);
	values[4] = Int64GetDatum(run->batch);
	nulls[4] = run->batch == 0;
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

Datum
perfopt_batch_insert(PG_FUNCTION_ARGS)
{
	BatchRun	run = {0};

	insert_rows(fcinfo, &run);
	batch_run_end(&run);
	return counts_result(fcinfo, &run);
}

Datum
perfopt_batch_insert_columns(PG_FUNCTION_ARGS)
{
	BatchRun	run = {0};

	insert_columns(fcinfo, &run);
	batch_run_end(&run);
	return counts_result(fcinfo, &run);
}

static void
emit_key(BatchRun *run, int64 ordinal, const BatchRow *row)
{
	ReturnSetInfo *result = run->emit_arg;
	Datum		values[5];
	bool		nulls[5] = {0};

	values[0] = Int64GetDatum(ordinal);
	values[1] = CStringGetTextDatum(action_names[row->action]);
	values[2] = JsonbPGetDatum(row->key);
	nulls[2] = row->key == NULL;
	nulls[3] = nulls[4] = row->error == NULL;
	if (row->error)
	{
		values[3] = CStringGetTextDatum(unpack_sql_state(row->error->sqlerrcode));
		values[4] = CStringGetTextDatum(row->error->message ? row->error->message : "");
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	pfree(DatumGetPointer(values[1]));
}

static void
keys_begin(FunctionCallInfo fcinfo, BatchRun *run)
{
	InitMaterializedSRF(fcinfo, 0);
	run->want_keys = true;
	run->emit = emit_key;
	run->emit_arg = fcinfo->resultinfo;
}

Datum
perfopt_batch_insert_keys(PG_FUNCTION_ARGS)
{
	BatchRun	run = {0};

	keys_begin(fcinfo, &run);
	insert_rows(fcinfo, &run);
	batch_run_end(&run);
	return (Datum) 0;
}

Datum
perfopt_batch_insert_columns_keys(PG_FUNCTION_ARGS)
{
	BatchRun	run = {0};

	keys_begin(fcinfo, &run);
	insert_columns(fcinfo, &run);
	batch_run_end(&run);
	return (Datum) 0;
}

/* As for rows that have all columns that can be given. */
Datum
perfopt_batch_insert_path(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {0};
	BatchRun	run = {0};
	BatchStatement *statement;
	AttrNumber *columns;
	Oid		   *types;
	int32	   *typmods;
	int			num_columns = 0;
	char	   *reason;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	begin(fcinfo, &run, "perfopt.batch_insert_path()");
	columns = palloc(sizeof(AttrNumber) * run.target.desc->natts);
	types = palloc(sizeof(Oid) * run.target.desc->natts);
	typmods = palloc(sizeof(int32) * run.target.desc->natts);
	for (int i = 0; i < run.target.desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(run.target.desc, i);

		if (column->attisdropped || column->attgenerated ||
			column->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
			continue;
		columns[num_columns] = column->attnum;
		types[num_columns] = column->atttypid;
		typmods[num_columns++] = column->atttypmod;
	}
	statement = batch_statement_make(&run, num_columns, columns, types, typmods);
	reason = statement->objection ? psprintf("an INSERT of the server, as %s", statement->objection) :
		"in bulk as COPY does: an ordinary table without triggers, foreign keys and policies";
	values[0] = SPI_datumTransfer(CStringGetTextDatum(statement->objection ? "statement" : "direct"),
								  false, -1);
	values[1] = SPI_datumTransfer(CStringGetTextDatum(reason), false, -1);
	batch_run_end(&run);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* ---------------------------------------------------------------------
 * For the insert buffer
 */
typedef struct Verdicts
{
	BatchVerdict *verdicts;
	MemoryContext context;		/* the caller's */
} Verdicts;

static void
emit_verdict(BatchRun *run, int64 ordinal, const BatchRow *row)
{
	Verdicts   *verdicts = run->emit_arg;
	BatchVerdict *verdict = &verdicts->verdicts[ordinal - 1];
	MemoryContext old_context;

	memset(verdict, 0, sizeof(BatchVerdict));
	verdict->action = row->action;
	if (row->error == NULL)
		return;
	old_context = MemoryContextSwitchTo(verdicts->context);
	verdict->sqlerrcode = row->error->sqlerrcode;
	verdict->message = pstrdup(row->error->message ? row->error->message : "");
	if (row->error->detail)
		verdict->detail = pstrdup(row->error->detail);
	if (row->error->constraint_name)
		verdict->constraint = pstrdup(row->error->constraint_name);
	MemoryContextSwitchTo(old_context);
}

void
batch_insert_jsonb_rows(Oid target, Jsonb **rows, const bool *noted, int num_rows,
						BatchVerdict *verdicts)
{
	Verdicts	result;
	BatchRun	run = {.emit = emit_verdict,.noted = noted};

	result.verdicts = verdicts;
	result.context = CurrentMemoryContext;
	run.emit_arg = &result;
	run.options.skip = true;
	batch_target_describe(&run.target, target, "perfopt.batch_insert()");
	batch_run_begin(&run);
	batch_read_jsonb_rows(&run, rows, num_rows);
	batch_run_end(&run);
}
