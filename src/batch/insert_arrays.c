/*
 * insert_arrays.c
 *		Rows for a batched insert out of arrays: of composites, or one for each
 *		column.
 *
 * Values are handed on with the types they have: the statement casts them.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "batch/insert_internal.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

/* A walk over the elements of an array, in order. */
typedef struct ElementReader
{
	char	   *next;
	uint8	   *nulls;
	int			num_items;
	int			item;
	int16		typlen;
	bool		typbyval;
	char		typalign;
} ElementReader;

static void
elements_begin(ElementReader *reader, ArrayType *array)
{
	reader->next = ARR_DATA_PTR(array);
	reader->nulls = ARR_NULLBITMAP(array);
	reader->num_items = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	reader->item = 0;
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &reader->typlen, &reader->typbyval, &reader->typalign);
}

static inline Datum
elements_next(ElementReader *reader, bool *isnull)
{
	Datum		value;
	int			item = reader->item++;

	*isnull = reader->nulls && (reader->nulls[item / 8] & (1 << (item % 8))) == 0;
	if (*isnull)
		return (Datum) 0;
	value = fetch_att(reader->next, reader->typbyval, reader->typlen);
	reader->next = att_addlength_pointer(reader->next, reader->typlen, reader->next);
	reader->next = (char *) att_align_nominal(reader->next, reader->typalign);
	return value;
}

static ArrayType *
array_of_datum(Datum datum)
{
	ArrayType  *array = DatumGetArrayTypeP(datum);

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("array of rows must have one dimension, not %d", ARR_NDIM(array))));
	return array;
}

/* Make room in the pending rows for one of the statement. */
static inline void
make_room(BatchRun *run, BatchStatement *statement)
{
	if (!batch_run_has_room(run, statement))
		batch_run_flush(run);
}

/*
 * An array of rows: of the table's type, or another composite type, whose
 * fields are columns by their names.
 */
void
batch_read_composites(BatchRun *run, Datum datum, Oid array_type)
{
	ArrayType  *array = array_of_datum(datum);
	Oid			row_type = getBaseType(ARR_ELEMTYPE(array));
	TupleDesc	type_desc = NULL;
	TupleDesc	desc;
	bool		own_type;
	int			num_columns = 0;
	AttrNumber *columns;
	Oid		   *types;
	int32	   *typmods;
	int		   *fields;
	Datum	   *field_values;
	bool	   *field_nulls;
	Datum	   *values;
	bool	   *isnull;
	ListCell   *cell;
	BatchStatement *statement;
	ElementReader reader;

	if (row_type != RECORDOID)
		type_desc = lookup_rowtype_tupdesc_noerror(row_type, -1, true);
	if (type_desc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("cannot insert values of type %s as rows", format_type_be(array_type)),
				 errhint("Give an array of the table's row type, such as ARRAY[...]::%s[], or a jsonb array of objects.",
						 run->target.name)));
	desc = CreateTupleDescCopy(type_desc);
	ReleaseTupleDesc(type_desc);
	own_type = get_typ_typrelid(row_type) == run->target.relid;

	columns = palloc(sizeof(AttrNumber) * desc->natts);
	types = palloc(sizeof(Oid) * desc->natts);
	typmods = palloc(sizeof(int32) * desc->natts);
	fields = palloc(sizeof(int) * desc->natts);
	foreach(cell, run->options.columns)
	{
		bool		found = false;

		for (int i = 0; i < desc->natts && !found; i++)
			found = !TupleDescAttr(desc, i)->attisdropped &&
				strcmp(NameStr(TupleDescAttr(desc, i)->attname), lfirst(cell)) == 0;
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("type %s has no field \"%s\"", format_type_be(row_type), (char *) lfirst(cell))));
	}
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute field = TupleDescAttr(desc, i);
		Form_pg_attribute column;
		AttrNumber	attnum;
		bool		chosen = run->options.columns == NIL;

		if (field->attisdropped)
			continue;
		foreach(cell, run->options.columns)
			chosen = chosen || strcmp(lfirst(cell), NameStr(field->attname)) == 0;
		if (!chosen)
			continue;
		attnum = batch_target_column(&run->target, NameStr(field->attname));
		column = TupleDescAttr(run->target.desc, attnum - 1);
		/* which are in the row type whether one wants to give them or not */
		if (own_type && run->options.columns == NIL &&
			(column->attgenerated || column->attidentity == ATTRIBUTE_IDENTITY_ALWAYS))
			continue;
		batch_check_insertable(&run->target, attnum);
		columns[num_columns] = attnum;
		types[num_columns] = field->atttypid;
		typmods[num_columns] = field->atttypmod;
		fields[num_columns++] = i;
	}
	statement = batch_statement_make(run, num_columns, columns, types, typmods);

	field_values = palloc(sizeof(Datum) * desc->natts);
	field_nulls = palloc(sizeof(bool) * desc->natts);
	values = palloc(sizeof(Datum) * (num_columns + 1));
	isnull = palloc(sizeof(bool) * (num_columns + 1));
	elements_begin(&reader, array);
	while (reader.item < reader.num_items)
	{
		bool		row_isnull;
		Datum		row = elements_next(&reader, &row_isnull);
		MemoryContext old_context;

		CHECK_FOR_INTERRUPTS();
		make_room(run, statement);
		old_context = MemoryContextSwitchTo(run->row_context);
		if (row_isnull)
			/* as unnest() makes it */
			memset(isnull, true, num_columns);
		else
		{
			HeapTupleHeader header = DatumGetHeapTupleHeader(row);
			HeapTupleData tuple;

			tuple.t_len = HeapTupleHeaderGetDatumLength(header);
			ItemPointerSetInvalid(&tuple.t_self);
			tuple.t_tableOid = InvalidOid;
			tuple.t_data = header;
			heap_deform_tuple(&tuple, desc, field_values, field_nulls);
			for (int i = 0; i < num_columns; i++)
			{
				values[i] = field_values[fields[i]];
				isnull[i] = field_nulls[fields[i]];
			}
		}
		MemoryContextSwitchTo(old_context);
		batch_run_add(run, statement, values, isnull, NULL);
		MemoryContextReset(run->row_context);
	}
}

/* An array for each of the named columns. */
void
batch_read_columns(BatchRun *run, List *names, int num_arrays, const Datum *arrays,
				   const Oid *types)
{
	int			num_columns = list_length(names);
	AttrNumber *columns = palloc(sizeof(AttrNumber) * Max(num_columns, 1));
	Oid		   *element_types = palloc(sizeof(Oid) * Max(num_columns, 1));
	int32	   *typmods = palloc(sizeof(int32) * Max(num_columns, 1));
	ElementReader *readers = palloc(sizeof(ElementReader) * Max(num_columns, 1));
	Datum	   *values = palloc(sizeof(Datum) * (num_columns + 1));
	bool	   *isnull = palloc(sizeof(bool) * (num_columns + 1));
	BatchStatement *statement;

	if (num_columns != num_arrays)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%d columns are named, but %d arrays given", num_columns, num_arrays)));
	for (int i = 0; i < num_columns; i++)
	{
		char	   *name = list_nth(names, i);

		columns[i] = batch_target_column(&run->target, name);
		batch_check_insertable(&run->target, columns[i]);
		for (int j = 0; j < i; j++)
			if (columns[j] == columns[i])
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column \"%s\" specified more than once", name)));
		element_types[i] = get_element_type(getBaseType(types[i]));
		if (!OidIsValid(element_types[i]))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("the values of column \"%s\" are not an array but of type %s",
							name, format_type_be(types[i])),
					 types[i] == UNKNOWNOID ?
					 errhint("Add a cast, such as ::text[].") : 0));
		typmods[i] = -1;
		elements_begin(&readers[i], array_of_datum(arrays[i]));
		if (readers[i].num_items != readers[0].num_items)
			ereport(ERROR,
					(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
					 errmsg("arrays of values differ in length"),
					 errdetail("There are %d values for column \"%s\", but %d for column \"%s\".",
							   readers[0].num_items, (char *) linitial(names),
							   readers[i].num_items, name)));
	}
	statement = batch_statement_make(run, num_columns, columns, element_types, typmods);

	while (readers[0].item < readers[0].num_items)
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < num_columns; i++)
			values[i] = elements_next(&readers[i], &isnull[i]);
		make_room(run, statement);
		batch_run_add(run, statement, values, isnull, NULL);
	}
}
