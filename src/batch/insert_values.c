/*
 * insert_values.c
 *		How a jsonb value becomes one of a column's type.
 *
 * As jsonb_populate_recordset() has it: a string is read by the type's input
 * function, so are numbers and booleans as text, null is NULL.  The common
 * types have shorter ways to the same values.  Arrays and composite types are
 * left to the server's jsonb_populate_record().
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "batch/insert_internal.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "fmgr.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

void
batch_conversion_init(BatchConversion *conversion, Form_pg_attribute column)
{
	Oid			input;
	Oid			base = getBaseType(column->atttypid);

	conversion->type = column->atttypid;
	conversion->typmod = column->atttypmod;
	conversion->is_domain = base != column->atttypid;
	conversion->by_record = type_is_rowtype(base) || OidIsValid(get_element_type(base));
	getTypeInputInfo(column->atttypid, &input, &conversion->io_param);
	fmgr_info(input, &conversion->input);

	if (conversion->by_record)
	{
		TupleDesc	desc = CreateTemplateTupleDesc(1);
		Datum		value = (Datum) 0;
		bool		isnull = true;
		List	   *arguments = list_make2(makeNullConst(RECORDOID, -1, InvalidOid),
										   makeNullConst(JSONBOID, -1, InvalidOid));

		TupleDescInitEntry(desc, 1, NameStr(column->attname), conversion->type, conversion->typmod, 0);
		perfopt_tuple_desc_complete(desc);
		conversion->record_desc = BlessTupleDesc(desc);
		conversion->empty_record = HeapTupleGetDatum(heap_form_tuple(desc, &value, &isnull));
		fmgr_info(F_JSONB_POPULATE_RECORD, &conversion->populate);
		fmgr_info_set_expr((Node *) makeFuncExpr(F_JSONB_POPULATE_RECORD, RECORDOID, arguments,
												 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL),
						   &conversion->populate);
	}
}

/*
 * An integer, without going by way of text.  False where that, or the server's
 * function, has to decide.  The format of a numeric is what tables hold, and so
 * does not change: a header that says sign, digits shown after the point, and
 * weight of the first digit, and digits to the base of 10,000.
 */
static inline bool
integer_of_numeric(Numeric number, int64 least, int64 greatest, int64 *result)
{
	uint16		header;
	int16	   *digits;
	int			num_digits;
	int			weight;
	int64		value = 0;

	if (!VARATT_IS_4B_U(number))
		return false;
	header = *(uint16 *) VARDATA(number);
	/* the short format, without digits after the point, of at most 16 digits */
	if ((header & 0xC000) != 0x8000 || (header & 0x1F80) != 0 || (header & 0x7F) > 3)
		return false;
	weight = header & 0x7F;
	digits = (int16 *) (VARDATA(number) + sizeof(uint16));
	num_digits = (VARSIZE(number) - VARHDRSZ - sizeof(uint16)) / sizeof(int16);
	if (num_digits > weight + 1)
		return false;
	for (int i = 0; num_digits > 0 && i <= weight; i++)
		value = value * 10000 + (i < num_digits ? digits[i] : 0);
	if (header & 0x2000)
		value = -value;
	if (value < least || value > greatest)
		return false;
	*result = value;
	return true;
}

static inline bool
read_digits(const char **at, const char *end, int num_digits, int *result)
{
	int			value = 0;

	if (end - *at < num_digits)
		return false;
	for (int i = 0; i < num_digits; i++)
	{
		char		c = *(*at)++;

		if (c < '0' || c > '9')
			return false;
		value = value * 10 + (c - '0');
	}
	*result = value;
	return true;
}

static inline bool
read_char(const char **at, const char *end, char c)
{
	return *at < end && *(*at)++ == c;
}

static bool
read_date(const char **at, const char *end, int *days)
{
	int			year;
	int			month;
	int			day;

	if (!read_digits(at, end, 4, &year) || !read_char(at, end, '-') ||
		!read_digits(at, end, 2, &month) || !read_char(at, end, '-') ||
		!read_digits(at, end, 2, &day) ||
		year < 1 || month < 1 || month > 12 || day < 1 || day > day_tab[isleap(year)][month - 1])
		return false;
	*days = date2j(year, month, day) - POSTGRES_EPOCH_JDATE;
	return true;
}

/*
 * A time as ISO 8601 and JSON have it, 2024-01-02T03:04:05.678+00:00, which
 * means the same under all settings.  False for anything else.
 */
static bool
read_time(const char *at, int length, bool with_zone, int64 *result)
{
	const char *end = at + length;
	int			days;
	int			hour;
	int			minute;
	int			second;
	int			fraction = 0;
	int			zone = 0;

	if (!read_date(&at, end, &days) || at >= end || (*at != 'T' && *at != ' '))
		return false;
	at++;
	if (!read_digits(&at, end, 2, &hour) || !read_char(&at, end, ':') ||
		!read_digits(&at, end, 2, &minute) || !read_char(&at, end, ':') ||
		!read_digits(&at, end, 2, &second) || hour > 23 || minute > 59 || second > 59)
		return false;
	if (at < end && *at == '.')
	{
		int			unit = 100000;

		at++;
		if (at >= end || *at < '0' || *at > '9')
			return false;
		for (; at < end && *at >= '0' && *at <= '9'; at++, unit /= 10)
		{
			if (unit == 0)
				return false;
			fraction += (*at - '0') * unit;
		}
	}
	if (with_zone)
	{
		int			zone_hour;
		int			zone_minute = 0;
		bool		west;

		if (at >= end || (*at != '+' && *at != '-'))
			return false;
		west = *at++ == '-';
		if (!read_digits(&at, end, 2, &zone_hour) ||
			(at < end && (!read_char(&at, end, ':') || !read_digits(&at, end, 2, &zone_minute))) ||
			zone_hour > 14 || zone_minute > 59)
			return false;
		zone = (zone_hour * 60 + zone_minute) * (west ? 60 : -60);
	}
	if (at != end)
		return false;
	*result = days * USECS_PER_DAY +
		(((hour * 60 + minute) * 60) + second + zone) * USECS_PER_SEC + fraction;
	return true;
}

/* Of an array or composite type: the row's field of that name. */
static Datum
convert_by_record(BatchConversion *conversion, const JsonbValue *row, bool *isnull)
{
	Jsonb	   *jsonb = JsonbValueToJsonb(unconstify(JsonbValue *, row));
	Datum		record = FunctionCall2(&conversion->populate, conversion->empty_record,
									   JsonbPGetDatum(jsonb));
	HeapTupleData tuple;

	tuple.t_data = DatumGetHeapTupleHeader(record);
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	return heap_getattr(&tuple, 1, conversion->record_desc, isnull);
}

/* The value, which is the row's value of the column. */
Datum
batch_convert(BatchConversion *conversion, JsonbValue *value, const JsonbValue *row,
			  bool *isnull)
{
	char	   *string;
	int64		integer;

	*isnull = false;
	if (conversion->by_record)
		return convert_by_record(conversion, row, isnull);
	switch (value->type)
	{
		case jbvNull:
			/* a domain may have something against it */
			*isnull = true;
			if (conversion->is_domain)
				(void) InputFunctionCall(&conversion->input, NULL, conversion->io_param,
										 conversion->typmod);
			return (Datum) 0;

		case jbvString:
			switch (conversion->type)
			{
				case TEXTOID:
				case VARCHAROID:
					/* a text has no typmod */
					if (conversion->typmod >= 0 &&
						value->val.string.len > conversion->typmod - VARHDRSZ)
						break;
					return PointerGetDatum(cstring_to_text_with_len(value->val.string.val,
																	value->val.string.len));
				case TIMESTAMPTZOID:
				case TIMESTAMPOID:
					if (conversion->typmod < 0 &&
						read_time(value->val.string.val, value->val.string.len,
								  conversion->type == TIMESTAMPTZOID, &integer))
						return TimestampTzGetDatum(integer);
					break;
				case DATEOID:
					{
						const char *at = value->val.string.val;
						const char *end = at + value->val.string.len;
						int			days;

						if (read_date(&at, end, &days) && at == end)
							return DateADTGetDatum(days);
						break;
					}
			}
			break;

		case jbvNumeric:
			switch (conversion->type)
			{
				case INT2OID:
					if (integer_of_numeric(value->val.numeric, PG_INT16_MIN, PG_INT16_MAX, &integer))
						return Int16GetDatum((int16) integer);
					break;
				case INT4OID:
					if (integer_of_numeric(value->val.numeric, PG_INT32_MIN, PG_INT32_MAX, &integer))
						return Int32GetDatum((int32) integer);
					break;
				case INT8OID:
					if (integer_of_numeric(value->val.numeric, PG_INT64_MIN, PG_INT64_MAX, &integer))
						return Int64GetDatum(integer);
					break;
				case NUMERICOID:
					if (conversion->typmod < 0)
						return NumericGetDatum(value->val.numeric);
					return DirectFunctionCall2(numeric, NumericGetDatum(value->val.numeric),
											   Int32GetDatum(conversion->typmod));
			}
			break;

		case jbvBool:
			if (conversion->type == BOOLOID)
				return BoolGetDatum(value->val.boolean);
			break;

		default:
			break;
	}

	if (conversion->type == JSONBOID)
		return JsonbPGetDatum(JsonbValueToJsonb(value));
	if (conversion->type == JSONOID || value->type == jbvBinary)
	{
		Jsonb	   *jsonb = JsonbValueToJsonb(value);

		string = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
	}
	else if (value->type == jbvString)
		string = pnstrdup(value->val.string.val, value->val.string.len);
	else if (value->type == jbvBool)
		string = value->val.boolean ? "true" : "false";
	else if (value->type == jbvNumeric)
		string = DatumGetCString(DirectFunctionCall1(numeric_out,
													 NumericGetDatum(value->val.numeric)));
	else
		elog(ERROR, "unrecognized jsonb type: %d", (int) value->type);
	return InputFunctionCall(&conversion->input, string, conversion->io_param, conversion->typmod);
}
