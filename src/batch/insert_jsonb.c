/*
 * insert_jsonb.c
 *		Rows for a batched insert out of jsonb objects.
 *
 * A key that an object does not have leaves its column to the default.  So
 * each set of keys is a "shape" with a statement of its own; rows keep their
 * order, and a statement runs over as many as have one shape in a row.  The
 * keys of a jsonb object are sorted, so that two objects with the same keys
 * have them in the same order.
 *
 * When bad rows are rejected, values are made in a subtransaction, as many as
 * fit the batch, and the one that fails is known.
 */
#include "postgres.h"

#include "batch/insert_internal.h"
#include "miscadmin.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

/* How many shapes a run remembers. */
#define MAX_SHAPES	16

/* A key of a shape. */
typedef struct ShapeKey
{
	char	   *name;
	int			length;
	int			column;			/* of the statement, or -1: left out */
	BatchConversion conversion;
} ShapeKey;

typedef struct Shape
{
	MemoryContext context;		/* its own, which holds all of it */
	int			num_keys;
	ShapeKey   *keys;
	JEntry	   *entries;		/* the keys as objects have them */
	char	   *names;
	uint32		names_length;
	BatchStatement *statement;
	Datum	   *values;
	bool	   *isnull;
} Shape;

typedef struct JsonbReader
{
	BatchRun   *run;
	/* where rows come from */
	JsonbIterator *array;
	Jsonb	  **rows;
	int			num_rows;
	int			next_row;

	/* the row in hand */
	bool		has_row;
	JsonbValue	row;
	int			num_keys;
	int			max_keys;
	JsonbValue *keys;			/* unless the row has the last one's shape */
	JsonbValue *values;
	bool		has_last_shape;

	Shape	   *shape;			/* of the last row */
	Shape	   *new_shape;		/* of the row in hand */
	Shape	   *shapes[MAX_SHAPES];
	int			num_shapes;
} JsonbReader;

/* ---------------------------------------------------------------------
 * Rows
 */

/* Take the next row in hand, unless one is.  False: there are no more. */
static bool
take_row(JsonbReader *reader)
{
	if (reader->has_row)
		return true;
	if (reader->array)
	{
		JsonbIteratorToken token = JsonbIteratorNext(&reader->array, &reader->row, true);

		if (token != WJB_ELEM)
			return false;
	}
	else
	{
		Jsonb	   *jsonb;

		if (reader->next_row >= reader->num_rows)
			return false;
		jsonb = reader->rows[reader->next_row++];
		reader->row.type = jbvBinary;
		reader->row.val.binary.data = &jsonb->root;
		reader->row.val.binary.len = VARSIZE_ANY_EXHDR(jsonb);
	}
	reader->num_keys = -1;
	reader->has_row = true;
	return true;
}

/* The value at an offset of a container's data. */
static inline void
read_value(JsonbContainer *container, int index, char *base, uint32 offset, uint32 length,
		   JsonbValue *value)
{
	JEntry		entry = container->children[index];

	switch (entry & JENTRY_TYPEMASK)
	{
		case JENTRY_ISSTRING:
			value->type = jbvString;
			value->val.string.val = base + offset;
			value->val.string.len = length;
			break;
		case JENTRY_ISNUMERIC:
			value->type = jbvNumeric;
			value->val.numeric = (Numeric) (base + INTALIGN(offset));
			break;
		case JENTRY_ISBOOL_FALSE:
		case JENTRY_ISBOOL_TRUE:
			value->type = jbvBool;
			value->val.boolean = JBE_ISBOOL_TRUE(entry);
			break;
		case JENTRY_ISNULL:
			value->type = jbvNull;
			break;
		default:
			value->type = jbvBinary;
			value->val.binary.data = (JsonbContainer *) (base + INTALIGN(offset));
			value->val.binary.len = length - (INTALIGN(offset) - offset);
	}
}

/*
 * Find the keys and values of the row in hand.  The server's iterator does it
 * too, but takes several times as long.
 */
static void
open_row(JsonbReader *reader)
{
	JsonbContainer *object = reader->row.val.binary.data;
	const Shape *shape = reader->shape;
	int			num_keys;
	char	   *base;
	uint32		offset = 0;
	int			i = 0;

	if (reader->num_keys >= 0)
		return;
	if (reader->row.type != jbvBinary || !JsonContainerIsObject(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("row %lld of the batch is not a JSON object",
						(long long) reader->run->num_read + 1)));
	num_keys = JsonContainerSize(object);
	if (num_keys > reader->max_keys)
	{
		reader->max_keys = num_keys;
		reader->keys = MemoryContextAllocHuge(reader->run->context, sizeof(JsonbValue) * num_keys);
		reader->values = MemoryContextAllocHuge(reader->run->context, sizeof(JsonbValue) * num_keys);
	}
	/* entries of all keys, then of all values; then what they stand for */
	base = (char *) (object->children + num_keys * 2);
	reader->has_last_shape = shape != NULL && shape->num_keys == num_keys &&
		memcmp(object->children, shape->entries, sizeof(JEntry) * num_keys) == 0 &&
		memcmp(base, shape->names, shape->names_length) == 0;
	if (reader->has_last_shape)
	{
		i = num_keys;
		offset = shape->names_length;
	}
	for (; i < num_keys * 2; i++)
	{
		JEntry		entry = object->children[i];
		uint32		next = offset;

		JBE_ADVANCE_OFFSET(next, entry);
		read_value(object, i, base, offset, next - offset,
				   i < num_keys ? &reader->keys[i] : &reader->values[i - num_keys]);
		offset = next;
	}
	reader->num_keys = num_keys;
}

static inline bool
row_has_shape(const JsonbReader *reader, const Shape *shape)
{
	if (shape->num_keys != reader->num_keys)
		return false;
	for (int i = 0; i < shape->num_keys; i++)
	{
		const JsonbValue *key = &reader->keys[i];

		if (key->val.string.len != shape->keys[i].length ||
			memcmp(key->val.string.val, shape->keys[i].name, shape->keys[i].length) != 0)
			return false;
	}
	return true;
}

/* Does a shape that is known fit the row in hand? */
static bool
find_shape(JsonbReader *reader)
{
	if (reader->has_last_shape)
		return true;
	for (int i = 0; i < Min(reader->num_shapes, MAX_SHAPES); i++)
	{
		if (row_has_shape(reader, reader->shapes[i]))
		{
			reader->shape = reader->shapes[i];
			return true;
		}
	}
	return false;
}

/* What keys mean.  Raises an error for one that is no column's name. */
static Shape *
make_shape(JsonbReader *reader)
{
	BatchRun   *run = reader->run;

	/* gone with the row, if it turns out to be bad */
	MemoryContext context = AllocSetContextCreate(run->row_context, "perfopt batch shape",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	Shape	   *shape = palloc0(sizeof(Shape));
	JsonbContainer *object = reader->row.val.binary.data;
	int			num_columns = 0;

	shape->context = context;
	shape->num_keys = reader->num_keys;
	shape->entries = palloc(sizeof(JEntry) * Max(shape->num_keys, 1));
	memcpy(shape->entries, object->children, sizeof(JEntry) * shape->num_keys);
	for (int i = 0; i < shape->num_keys; i++)
		JBE_ADVANCE_OFFSET(shape->names_length, shape->entries[i]);
	shape->names = palloc(Max(shape->names_length, 1));
	memcpy(shape->names, object->children + shape->num_keys * 2, shape->names_length);
	shape->keys = palloc0(sizeof(ShapeKey) * Max(shape->num_keys, 1));
	for (int i = 0; i < shape->num_keys; i++)
	{
		ShapeKey   *key = &shape->keys[i];
		bool		chosen = run->options.columns == NIL;
		ListCell   *cell;
		AttrNumber	attnum;

		key->name = pnstrdup(reader->keys[i].val.string.val, reader->keys[i].val.string.len);
		key->length = reader->keys[i].val.string.len;
		key->column = -1;
		foreach(cell, run->options.columns)
			chosen = chosen || strcmp(lfirst(cell), key->name) == 0;
		if (!chosen)
			continue;
		attnum = batch_target_column(&run->target, key->name);
		batch_check_insertable(&run->target, attnum);
		batch_conversion_init(&key->conversion, TupleDescAttr(run->target.desc, attnum - 1));
		key->column = num_columns++;
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextSetParent(context, run->context);
	return shape;
}

/* Its statement.  It may take the place of another shape: no rows are pending. */
static void
finish_shape(JsonbReader *reader, Shape *shape)
{
	BatchRun   *run = reader->run;
	MemoryContext old_context = MemoryContextSwitchTo(shape->context);
	Shape	  **place = &reader->shapes[reader->num_shapes++ % MAX_SHAPES];
	AttrNumber *columns = palloc(sizeof(AttrNumber) * Max(shape->num_keys, 1));
	Oid		   *types = palloc(sizeof(Oid) * Max(shape->num_keys, 1));
	int32	   *typmods = palloc(sizeof(int32) * Max(shape->num_keys, 1));
	int			num_columns = 0;

	for (int i = 0; i < shape->num_keys; i++)
	{
		ShapeKey   *key = &shape->keys[i];

		if (key->column < 0)
			continue;
		columns[num_columns] = batch_target_column(&run->target, key->name);
		types[num_columns] = key->conversion.type;
		typmods[num_columns++] = key->conversion.typmod;
	}
	shape->statement = batch_statement_make(run, num_columns, columns, types, typmods);
	shape->values = palloc(sizeof(Datum) * (num_columns + 1));
	shape->isnull = palloc(sizeof(bool) * (num_columns + 1));
	MemoryContextSwitchTo(old_context);

	if (*place)
		MemoryContextDelete((*place)->context);
	*place = shape;
	reader->shape = shape;
}

/*
 * Make rows until there are no more, they do not fit the pending ones, or the
 * row in hand has a shape that is new.
 */
static void
make_rows(void *arg)
{
	JsonbReader *reader = arg;
	BatchRun   *run = reader->run;

	while (take_row(reader))
	{
		Shape	   *shape;
		MemoryContext old_context;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(run->row_context);
		old_context = MemoryContextSwitchTo(run->row_context);
		open_row(reader);
		if (!find_shape(reader))
		{
			reader->new_shape = make_shape(reader);
			MemoryContextSwitchTo(old_context);
			return;
		}
		shape = reader->shape;
		if (!batch_run_has_room(run, shape->statement))
		{
			MemoryContextSwitchTo(old_context);
			break;
		}
		for (int i = 0; i < shape->num_keys; i++)
		{
			ShapeKey   *key = &shape->keys[i];

			if (key->column >= 0)
				shape->values[key->column] =
					batch_convert(&key->conversion, &reader->values[i], &reader->row,
								  &shape->isnull[key->column]);
		}
		MemoryContextSwitchTo(old_context);
		/* from here on an error may be about another row */
		reader->has_row = false;
		batch_run_add(run, shape->statement, shape->values, shape->isnull, &reader->row);
	}
}

static void
row_context_callback(void *arg)
{
	JsonbReader *reader = arg;

	if (reader->has_row)
		errcontext("row %lld of the batch", (long long) reader->run->num_read + 1);
}

/* The same; a row that cannot be made is rejected, if that is asked for. */
static void
make_rows_or_reject(JsonbReader *reader)
{
	BatchRun   *run = reader->run;
	ErrorContextCallback callback;
	ErrorData  *error = NULL;

	callback.callback = row_context_callback;
	callback.arg = reader;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	if (run->options.skip)
		error = batch_try(run, make_rows, reader);
	else
		make_rows(reader);
	error_context_stack = callback.previous;

	if (error)
	{
		if (!reader->has_row)
			ReThrowError(error);
		batch_run_reject(run, error, &reader->row);
		reader->has_row = false;
	}
}

static void
read_rows(JsonbReader *reader)
{
	BatchRun   *run = reader->run;

	while (take_row(reader))
	{
		Shape	   *shape;

		reader->new_shape = NULL;
		make_rows_or_reject(reader);
		shape = reader->new_shape;
		if (shape || !batch_run_has_room(run, reader->has_row ? reader->shape->statement : NULL))
			batch_run_flush(run);
		if (shape)
			finish_shape(reader, shape);
	}
}

/* An array of objects, or a single one. */
void
batch_read_jsonb(BatchRun *run, Jsonb *array)
{
	JsonbReader reader = {.run = run};
	JsonbValue	value;

	if (JB_ROOT_IS_OBJECT(array))
	{
		batch_read_jsonb_rows(run, &array, 1);
		return;
	}
	if (!JB_ROOT_IS_ARRAY(array) || JB_ROOT_IS_SCALAR(array))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("rows must be a JSON array of objects")));
	reader.array = JsonbIteratorInit(&array->root);
	(void) JsonbIteratorNext(&reader.array, &value, true);
	read_rows(&reader);
}

void
batch_read_jsonb_rows(BatchRun *run, Jsonb **rows, int num_rows)
{
	JsonbReader reader = {.run = run};

	reader.rows = rows;
	reader.num_rows = num_rows;
	read_rows(&reader);
}
