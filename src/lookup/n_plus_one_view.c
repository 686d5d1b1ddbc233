/*
 * n_plus_one_view.c
 *		The loops that were found, in SQL: raw rows, which n_plus_one.sql puts
 *		names and texts to.
 *
 * Everybody sees his own rows; the rest is for members of pg_read_all_stats.
 * Names, and the encoding of texts, are of this database: rows of others have
 * neither.
 */
#include "postgres.h"

#include "lookup/n_plus_one_internal.h"

#include "access/transam.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "common/shmem.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#define NUM_VALUES	27

static const char *const kind_names[] = {
	[LOOP_N_PLUS_ONE] = "n_plus_one",
	[LOOP_CACHEABLE] = "cacheable_query",
	[LOOP_INSERTS] = "batchable_inserts"
};

static Datum
int2_array(const AttrNumber *numbers, int count)
{
	Datum		elements[Max(SHAPE_KEYS, SHAPE_COLUMNS)];

	for (int i = 0; i < count; i++)
		elements[i] = Int16GetDatum(numbers[i]);
	return PointerGetDatum(construct_array(elements, count, INT2OID, 2, true, TYPALIGN_SHORT));
}

/*
 * OIDs may be of what is gone by now: then there is no such name, and no error,
 * for one role's rows would fail the view for those who see all.
 */
static char *
type_name(Oid type, int32 typmod)
{
	/* with its schema, but for the system's, that have names in SQL */
	return format_type_extended(type, typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_INVALID_AS_NULL |
								(type >= FirstNormalObjectId ? FORMAT_TYPE_FORCE_QUALIFY : 0));
}

static bool
is_equality(const ShapeKey *key)
{
	return SearchSysCacheExists1(OPEROID, ObjectIdGetDatum(key->op)) &&
		SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(key->type)) &&
		op_hashjoinable(key->op, key->type);
}

/*
 * The columns that are compared for equality; where some of the values are
 * written as parameters, only these.  Other conditions are told by *filter.
 */
static int
key_columns(const LoopShape *shape, AttrNumber *columns, bool *filter)
{
	bool		equality[SHAPE_KEYS];
	bool		any_parameter = false;
	int			count = 0;

	for (int i = 0; i < shape->num_keys; i++)
	{
		/* of an INSERT, columns are not compared */
		equality[i] = !OidIsValid(shape->keys[i].op) || is_equality(&shape->keys[i]);
		any_parameter |= equality[i] && shape->keys[i].parameter;
	}
	for (int i = 0; i < shape->num_keys; i++)
	{
		const ShapeKey *key = &shape->keys[i];
		bool		known = false;

		if (!equality[i] || (any_parameter && !key->parameter))
		{
			*filter = true;
			continue;
		}
		for (int j = 0; j < count; j++)
			known |= columns[j] == key->attnum;
		if (!known)
			columns[count++] = key->attnum;
	}
	return count;
}

/* The column that rows are in order of, or 0; nulls are where they are by itself. */
static AttrNumber
order_column(const LoopShape *shape, bool *descending)
{
	*descending = false;
	if (shape->order == 0 ||
		!OidIsValid(get_equality_op_for_ordering_op(shape->order_op, descending)) ||
		shape->nulls_first != *descending)
		return 0;
	return shape->order;
}

static Datum
text_array(char **texts, int count)
{
	Datum		elements[SHAPE_COLUMNS];

	for (int i = 0; i < count; i++)
		elements[i] = CStringGetTextDatum(texts[i]);
	return PointerGetDatum(construct_array(elements, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* As perfopt.lookup_aggregates() takes it, or an empty string. */
static char *
aggregate_text(Oid relid, const ShapeColumn *column)
{
	StringInfoData text;
	char	   *name = OidIsValid(column->aggregate) ? get_func_name(column->aggregate) : NULL;
	char	   *schema = name ? get_namespace_name(get_func_namespace(column->aggregate)) : NULL;
	char	   *argument = column->attnum > 0 ? get_attname(relid, column->attnum, true) : NULL;

	if (name == NULL || schema == NULL || column->attnum < 0 ||
		(column->attnum > 0 && argument == NULL))
		return "";
	initStringInfo(&text);
	appendStringInfo(&text, "%s(%s)",
					 strcmp(schema, "pg_catalog") == 0 ? quote_identifier(name) :
					 quote_qualified_identifier(schema, name),
					 argument ? quote_identifier(argument) : "*");
	return text.data;
}

static void
put_shape(const LoopShape *shape, Datum *values, bool *nulls)
{
	AttrNumber	attnums[SHAPE_COLUMNS];
	AttrNumber	keys[SHAPE_KEYS];
	char	   *definitions[SHAPE_COLUMNS];
	char	   *aggregates[SHAPE_COLUMNS];
	int			count = Max(shape->num_columns, 0);
	bool		types_known = count > 0;
	bool		filter = (shape->flags & SHAPE_FILTER) != 0;
	bool		descending;
	int			num_keys = key_columns(shape, keys, &filter);

	for (int i = 0; i < count; i++)
	{
		const ShapeColumn *column = &shape->columns[i];
		char	   *type = type_name(column->type, column->typmod);

		attnums[i] = column->attnum;
		definitions[i] = psprintf("%s %s", quote_identifier(NameStr(column->name)), type ? type : "");
		aggregates[i] = aggregate_text(shape->relid, column);
		types_known = types_known && type;
	}
	values[0] = ObjectIdGetDatum(shape->relid);
	values[1] = Int32GetDatum((int32) (filter ? shape->flags | SHAPE_FILTER : shape->flags));
	values[2] = int2_array(keys, num_keys);
	values[3] = int2_array(attnums, count);
	values[4] = text_array(definitions, count);
	nulls[3] = count == 0;
	nulls[4] = !types_known;
	values[5] = text_array(aggregates, count);
	values[6] = Int16GetDatum(order_column(shape, &descending));
	values[7] = BoolGetDatum(descending);
	values[8] = Int64GetDatum(shape->limit);
}

PG_FUNCTION_INFO_V1(perfopt_sql_loops);
PG_FUNCTION_INFO_V1(perfopt_sql_loops_info);
PG_FUNCTION_INFO_V1(perfopt_sql_reset_n_plus_one);

/* loops() */
Datum
perfopt_sql_loops(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	LoopEntry  *entries;
	int			count;
	bool		sees_all;

	perfopt_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	sees_all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
	count = perfopt_loop_read(&entries);
	for (int n = 0; n < count; n++)
	{
		const LoopEntry *loop = &entries[n];
		Datum		values[NUM_VALUES];
		bool		nulls[NUM_VALUES] = {0};
		int			i = 0;

		CHECK_FOR_INTERRUPTS();
		if (loop->counts.loops <= 0 || (!sees_all && loop->key.role != GetUserId()))
			continue;
		values[i++] = ObjectIdGetDatum(loop->key.database);
		values[i++] = ObjectIdGetDatum(loop->key.role);
		values[i++] = CStringGetTextDatum(kind_names[loop->key.kind]);
		values[i++] = ObjectIdGetDatum(loop->key.function);
		nulls[i] = nulls[i + 1] = loop->key.source_queryid == 0;
		values[i++] = Int64GetDatum((int64) loop->key.source_queryid);
		values[i++] = Int64GetDatum(loop->counts.source_rows);
		values[i++] = Int64GetDatum((int64) loop->key.queryid);
		values[i++] = Int64GetDatum(loop->counts.loops);
		values[i++] = Int64GetDatum(loop->counts.certain);
		values[i++] = Int64GetDatum(loop->counts.misses);
		values[i++] = Int64GetDatum(loop->counts.runs);
		values[i++] = Int64GetDatum(loop->counts.rows);
		values[i++] = Float8GetDatum(loop->counts.lost_ns / 1e6);
		values[i++] = CStringGetTextDatum(loop->key.application_name);
		values[i++] = TimestampTzGetDatum(loop->first_seen);
		values[i++] = TimestampTzGetDatum(loop->last_seen);
		if (loop->key.database == MyDatabaseId)
		{
			nulls[i] = loop->shape.statement[0] == '\0';
			values[i++] = CStringGetTextDatum(loop->shape.statement);
			nulls[i] = loop->shape.source_text[0] == '\0';
			values[i++] = CStringGetTextDatum(loop->shape.source_text);
			put_shape(&loop->shape, &values[i], &nulls[i]);
		}
		else
			memset(&nulls[i], true, NUM_VALUES - i);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* loops_info() */
Datum
perfopt_sql_loops_info(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	LoopInfo	info;
	Datum		values[3];
	bool		nulls[3] = {0};

	perfopt_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	info = perfopt_loop_info();
	values[0] = Int32GetDatum(info.used);
	values[1] = Int32GetDatum(info.max);
	values[2] = Int64GetDatum((int64) info.evicted);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	return (Datum) 0;
}

/* reset_n_plus_one() */
Datum
perfopt_sql_reset_n_plus_one(PG_FUNCTION_ARGS)
{
	perfopt_require_preload();
	perfopt_loop_reset();
	PG_RETURN_VOID();
}
