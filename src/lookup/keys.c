/*
 * keys.c
 *		What callers give as keys, made arrays of the key columns' types.
 *
 * Keys are cast, never the columns they are compared with, so that indexes
 * stay of use.  A key that is null, or has a part that is, is kept: it finds
 * nothing.
 *
 * What is taken: an array of the column's type or of one that is implicitly
 * cast to it; an array of strings, which are read as literals; integers of
 * whatever width; for keys of several columns an array of rows; and text,
 * which is read as an array's literal, or as jsonb when it starts with [ and
 * has no array bounds.
 */
#include "postgres.h"

#include "lookup/lookup_internal.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "parser/parse_coerce.h"
#include "parser/scansup.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/typcache.h"

/* How a value of one type becomes one of another. */
typedef enum Conversion
{
	CONVERT_NOTHING,
	CONVERT_FUNCTION,
	CONVERT_STRING,				/* read what the type's output says */
	CONVERT_INTEGER				/* maybe a wider one */
} Conversion;

typedef struct Converter
{
	Oid			from;
	Oid			to;
	Conversion	how;
	FmgrInfo	function;		/* cast, or the target's input */
	FmgrInfo	output;			/* of a string */
	Oid			io_param;
	bool		misfits_are_null;
} Converter;

/* Values collected for each column of the key. */
typedef struct KeyBuilder
{
	const LookupKey *key;
	bool		misfits_are_null;
	int			num;
	int			max;
	Datum	   *values[INDEX_MAX_KEYS];
	bool	   *nulls[INDEX_MAX_KEYS];
	Converter	strings[INDEX_MAX_KEYS];	/* of jsonb's values */
} KeyBuilder;

/* ---------------------------------------------------------------------
 * Conversion
 */

static void
wrong_type(const LookupKeyColumn *column, Oid from)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("keys of type %s cannot be used for column \"%s\" of type %s",
					format_type_be(from), column->name, format_type_be(column->type)),
			 errhint("Cast them, as in keys => $1::%s.", format_type_be(column->array_type))));
}

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

static void
input_init(Converter *converter, Oid to)
{
	Oid			input;

	getTypeInputInfo(to, &input, &converter->io_param);
	fmgr_info(input, &converter->function);
}

static void
converter_init(Converter *converter, const LookupKeyColumn *column, Oid from, bool misfits_are_null)
{
	Oid			to = column->type;
	Oid			function;
	Oid			base = getBaseType(from);

	converter->from = from;
	converter->to = to;
	converter->misfits_are_null = misfits_are_null;
	if (base == to)
		converter->how = CONVERT_NOTHING;
	else if (from == UNKNOWNOID || base == TEXTOID || base == VARCHAROID || base == BPCHAROID || base == NAMEOID)
	{
		Oid			output;
		bool		is_varlena;

		if (IsBinaryCoercible(base, to))
		{
			converter->how = CONVERT_NOTHING;
			return;
		}
		converter->how = CONVERT_STRING;
		getTypeOutputInfo(base, &output, &is_varlena);
		fmgr_info(output, &converter->output);
		input_init(converter, to);
	}
	else if (is_integer(base) && is_integer(to))
		converter->how = CONVERT_INTEGER;
	else
	{
		switch (find_coercion_pathway(to, base, COERCION_IMPLICIT, &function))
		{
			case COERCION_PATH_RELABELTYPE:
				converter->how = CONVERT_NOTHING;
				break;
			case COERCION_PATH_FUNC:
				converter->how = CONVERT_FUNCTION;
				fmgr_info(function, &converter->function);
				break;
			default:
				wrong_type(column, from);
		}
	}
}

static Datum
convert_integer(Converter *converter, Datum value, bool *isnull)
{
	int64		number;

	switch (getBaseType(converter->from))
	{
		case INT2OID:
			number = DatumGetInt16(value);
			break;
		case INT4OID:
			number = DatumGetInt32(value);
			break;
		default:
			number = DatumGetInt64(value);
	}
	if (converter->to == INT8OID)
		return Int64GetDatum(number);
	if (converter->to == INT4OID ? number >= PG_INT32_MIN && number <= PG_INT32_MAX :
		number >= PG_INT16_MIN && number <= PG_INT16_MAX)
		return converter->to == INT4OID ? Int32GetDatum((int32) number) : Int16GetDatum((int16) number);
	/* no row has it */
	if (!converter->misfits_are_null)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("key %lld is out of range for type %s",
						(long long) number, format_type_be(converter->to))));
	*isnull = true;
	return (Datum) 0;
}

static Datum
convert(Converter *converter, Datum value, bool *isnull)
{
	if (*isnull)
		return (Datum) 0;
	switch (converter->how)
	{
		case CONVERT_FUNCTION:
			/* a length function would want more; those are never implicit */
			if (converter->function.fn_nargs > 1)
				return FunctionCall3(&converter->function, value, Int32GetDatum(-1), BoolGetDatum(false));
			return FunctionCall1(&converter->function, value);
		case CONVERT_STRING:
			return InputFunctionCall(&converter->function,
									 OutputFunctionCall(&converter->output, value),
									 converter->io_param, -1);
		case CONVERT_INTEGER:
			return convert_integer(converter, value, isnull);
		default:
			return value;
	}
}

/* ---------------------------------------------------------------------
 * Collecting
 */

static void
key_context(void *arg)
{
	KeyBuilder *builder = arg;

	errcontext("key %d", builder->num + 1);
}

static void
builder_init(KeyBuilder *builder, const LookupKey *key, int max, bool misfits_are_null)
{
	memset(builder, 0, sizeof(*builder));
	builder->key = key;
	builder->max = Max(max, 1);
	builder->misfits_are_null = misfits_are_null;
	for (int i = 0; i < key->num; i++)
	{
		builder->values[i] = palloc(builder->max * sizeof(Datum));
		builder->nulls[i] = palloc(builder->max * sizeof(bool));
	}
}

static void
builder_end(KeyBuilder *builder, LookupKeys *keys)
{
	keys->num = builder->num;
	for (int i = 0; i < builder->key->num; i++)
	{
		Oid			type = builder->key->columns[i].type;
		int			lower = 1;
		int16		len;
		bool		by_value;
		char		align;

		get_typlenbyvalalign(type, &len, &by_value, &align);
		keys->arrays[i] = PointerGetDatum(construct_md_array(builder->values[i], builder->nulls[i],
															 1, &builder->num, &lower,
															 type, len, by_value, align));
	}
}

static void
set_null(KeyBuilder *builder)
{
	for (int i = 0; i < builder->key->num; i++)
		builder->nulls[i][builder->num] = true;
}

/* ---------------------------------------------------------------------
 * Arrays
 */

static ArrayType *
check_array(ArrayType *array)
{
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("keys must be an array of one dimension"),
				 errhint("Give keys of several columns as rows, as in ARRAY[ROW(1, 'a'), ROW(2, 'b')], or as jsonb, as in '[[1, \"a\"], [2, \"b\"]]'.")));
	return array;
}

static void
expects_rows(const LookupKey *key, Oid type)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < key->num; i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", quote_identifier(key->columns[i].name));
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("keys of type %s cannot be used for a key of %d columns",
					format_type_be(type), key->num),
			 errdetail("The columns are: %s.", names.data),
			 errhint("Give rows, as in ARRAY[ROW(1, 'a'), ROW(2, 'b')], or jsonb, as in '[[1, \"a\"], [2, \"b\"]]'.")));
}

static void
read_array(const LookupKey *key, ArrayType *array, bool misfits_are_null, LookupKeys *keys)
{
	Oid			from = ARR_ELEMTYPE(array);
	Converter	converter;
	KeyBuilder	builder;
	Datum	   *values;
	bool	   *nulls;
	int			num;
	int16		len;
	bool		by_value;
	char		align;
	ErrorContextCallback callback;

	converter_init(&converter, &key->columns[0], from, misfits_are_null);
	if (converter.how == CONVERT_NOTHING)
	{
		keys->num = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
		if (from != key->columns[0].type)
		{
			ArrayType  *copy = palloc(VARSIZE(array));

			memcpy(copy, array, VARSIZE(array));
			copy->elemtype = key->columns[0].type;
			array = copy;
		}
		keys->arrays[0] = PointerGetDatum(array);
		return;
	}
	get_typlenbyvalalign(from, &len, &by_value, &align);
	deconstruct_array(array, from, len, by_value, align, &values, &nulls, &num);
	builder_init(&builder, key, num, misfits_are_null);
	callback.callback = key_context;
	callback.arg = &builder;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	for (; builder.num < num; builder.num++)
	{
		CHECK_FOR_INTERRUPTS();
		builder.nulls[0][builder.num] = nulls[builder.num];
		builder.values[0][builder.num] = convert(&converter, values[builder.num],
												 &builder.nulls[0][builder.num]);
	}
	error_context_stack = callback.previous;
	builder_end(&builder, keys);
}

static void
read_rows(const LookupKey *key, ArrayType *array, bool misfits_are_null, LookupKeys *keys)
{
	Oid			from = ARR_ELEMTYPE(array);
	Converter	converters[INDEX_MAX_KEYS] = {0};
	KeyBuilder	builder;
	Datum	   *values;
	bool	   *nulls;
	int			num;
	int16		len;
	bool		by_value;
	char		align;
	TupleDesc	desc = NULL;
	ErrorContextCallback callback;

	get_typlenbyvalalign(from, &len, &by_value, &align);
	deconstruct_array(array, from, len, by_value, align, &values, &nulls, &num);
	builder_init(&builder, key, num, misfits_are_null);
	callback.callback = key_context;
	callback.arg = &builder;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	for (; builder.num < num; builder.num++)
	{
		HeapTupleHeader header;
		HeapTupleData tuple;
		Datum		fields[MaxTupleAttributeNumber];
		bool		isnull[MaxTupleAttributeNumber];
		int			field = 0;

		CHECK_FOR_INTERRUPTS();
		if (nulls[builder.num])
		{
			set_null(&builder);
			continue;
		}
		header = DatumGetHeapTupleHeader(values[builder.num]);
		if (desc == NULL || desc->tdtypeid != HeapTupleHeaderGetTypeId(header) ||
			desc->tdtypmod != HeapTupleHeaderGetTypMod(header))
		{
			desc = lookup_rowtype_tupdesc_copy(HeapTupleHeaderGetTypeId(header),
											   HeapTupleHeaderGetTypMod(header));
			memset(converters, 0, sizeof(converters));
		}
		tuple.t_len = HeapTupleHeaderGetDatumLength(header);
		ItemPointerSetInvalid(&tuple.t_self);
		tuple.t_tableOid = InvalidOid;
		tuple.t_data = header;
		heap_deform_tuple(&tuple, desc, fields, isnull);
		for (int i = 0; i < desc->natts; i++)
		{
			Form_pg_attribute attr = TupleDescAttr(desc, i);

			if (attr->attisdropped)
				continue;
			if (field < key->num)
			{
				if (!OidIsValid(converters[field].from))
					converter_init(&converters[field], &key->columns[field], attr->atttypid,
								   misfits_are_null);
				builder.nulls[field][builder.num] = isnull[i];
				builder.values[field][builder.num] = convert(&converters[field], fields[i],
															 &builder.nulls[field][builder.num]);
			}
			field++;
		}
		if (field != key->num)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("key has %d fields, but %d are expected", field, key->num)));
	}
	error_context_stack = callback.previous;
	builder_end(&builder, keys);
}

/* ---------------------------------------------------------------------
 * jsonb
 */

static void
set_scalar(KeyBuilder *builder, int i, JsonbValue *value)
{
	char	   *text;

	switch (value ? value->type : jbvNull)
	{
		case jbvNull:
			builder->nulls[i][builder->num] = true;
			return;
		case jbvString:
			text = pnstrdup(value->val.string.val, value->val.string.len);

			break;
		case jbvNumeric:
			text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));

			break;
		case jbvBool:
			text = pstrdup(value->val.boolean ? "true" : "false");

			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("column \"%s\" of a key must be a string, a number, a boolean or null",
							builder->key->columns[i].name)));
	}
	if (!OidIsValid(builder->strings[i].to))
	{
		builder->strings[i].to = builder->key->columns[i].type;
		input_init(&builder->strings[i], builder->strings[i].to);
	}
	builder->nulls[i][builder->num] = false;
	builder->values[i][builder->num] = InputFunctionCall(&builder->strings[i].function, text,
														 builder->strings[i].io_param, -1);
}

static void
set_container(KeyBuilder *builder, JsonbContainer *container)
{
	const LookupKey *key = builder->key;

	if (JsonContainerIsArray(container))
	{
		if (JsonContainerSize(container) != key->num)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("key has %d elements, but %d are expected",
							(int) JsonContainerSize(container), key->num)));
		for (int i = 0; i < key->num; i++)
			set_scalar(builder, i, getIthJsonbValueFromContainer(container, i));
		return;
	}
	for (int i = 0; i < key->num; i++)
	{
		const char *name = key->columns[i].name;
		JsonbValue *value = getKeyJsonValueFromContainer(container, name, strlen(name), NULL);

		if (value == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("key has no member \"%s\"", name)));
		set_scalar(builder, i, value);
	}
}

static void
read_jsonb(const LookupKey *key, Jsonb *jsonb, bool misfits_are_null, LookupKeys *keys)
{
	KeyBuilder	builder;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	ErrorContextCallback callback;

	if (!JB_ROOT_IS_ARRAY(jsonb) || JB_ROOT_IS_SCALAR(jsonb))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("keys must be a jsonb array"),
				 errhint("Write them as in '[1, 2, 3]'.")));
	builder_init(&builder, key, JB_ROOT_COUNT(jsonb), misfits_are_null);
	callback.callback = key_context;
	callback.arg = &builder;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	iterator = JsonbIteratorInit(&jsonb->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		CHECK_FOR_INTERRUPTS();
		if (token != WJB_ELEM)
			continue;
		if (value.type == jbvBinary)
			set_container(&builder, value.val.binary.data);
		else if (value.type == jbvNull)
			set_null(&builder);
		else if (key->num > 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("each of the keys must be an array or an object, for a key of %d columns",
							key->num)));
		else
			set_scalar(&builder, 0, &value);
		builder.num++;
	}
	error_context_stack = callback.previous;
	builder_end(&builder, keys);
}

/* ---------------------------------------------------------------------
 * All of them
 */

/* Does it start with [, which is not that of an array's bounds, as [2:3]=? */
static bool
looks_like_jsonb(const char *text)
{
	while (scanner_isspace(*text))
		text	  ++;

	if (*text !='[')
		return false;
	while (*text == '[')
	{
		text	  +=1 + strspn(text +1, "+-0123456789:");

		if (*text !=']')
			return true;
		text	  ++;
	}
	while (scanner_isspace(*text))
		text	  ++;

	return *text !='=';
}

static void
read_text(const LookupKey *key, const char *text, bool misfits_are_null, LookupKeys *keys)
{
	Oid			input;
	Oid			io_param;
	Datum		array;

	if (looks_like_jsonb(text))
	{
		read_jsonb(key, DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text))),
				   misfits_are_null, keys);
		return;
	}
	if (key->num > 1)
		expects_rows(key, TEXTOID);
	getTypeInputInfo(key->columns[0].array_type, &input, &io_param);
	array = OidInputFunctionCall(input, unconstify(char *, text), io_param, -1);
	read_array(key, check_array(DatumGetArrayTypeP(array)), misfits_are_null, keys);
}

/* Argument n, of type "any". */
void
lookup_read_keys(const LookupKey *key, FunctionCallInfo fcinfo, int n,
				 bool misfits_are_null, LookupKeys *keys)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, n);
	Oid			element;
	Datum		value;
	ArrayType  *array;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("keys must not be null"),
				 errhint("An empty array is given as '{}'.")));
	value = PG_GETARG_DATUM(n);
	type = getBaseType(type);
	switch (type)
	{
		case UNKNOWNOID:
			read_text(key, DatumGetCString(value), misfits_are_null, keys);
			return;
		case TEXTOID:
		case VARCHAROID:
			read_text(key, TextDatumGetCString(value), misfits_are_null, keys);
			return;
		case JSONBOID:
			read_jsonb(key, DatumGetJsonbP(value), misfits_are_null, keys);
			return;
		case JSONOID:
			read_text(key, TextDatumGetCString(value), misfits_are_null, keys);
			return;
	}
	element = get_element_type(type);
	if (!OidIsValid(element) || get_typlen(type) != -1)
	{
		if (key->num > 1)
			expects_rows(key, type);
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("keys must be an array, not of type %s", format_type_be(type)),
				 errhint("Write them as ARRAY[1, 2, 3], '{1,2,3}' or '[1, 2, 3]'.")));
	}
	array = check_array(DatumGetArrayTypeP(value));
	if (type_is_rowtype(element) && (key->num > 1 || element != key->columns[0].type))
		read_rows(key, array, misfits_are_null, keys);
	else if (key->num > 1)
		expects_rows(key, type);
	else
		read_array(key, array, misfits_are_null, keys);
}
