/*
 * gin_keys.c
 *		The keys that a GIN index which does not exist would have for the rows
 *		of a table's sample.
 *
 * The operator class extracts them, as it does when the index is built.  Of each
 * key only a hash is kept, with its size as a tuple, the number of its rows, and
 * how many bytes the distances between these take in a posting list.  For that,
 * the sample is taken to be a smaller table: rows of a key that are spread over
 * the table are as far from each other in it, and those that stand together stand
 * together in it.
 */
#include "postgres.h"

#include "advisor/gin_keys.h"
#include "advisor/trigrams.h"

#include <math.h>

#include "access/gin_private.h"
#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#define SH_PREFIX		gin_key_table
#define SH_ELEMENT_TYPE	GinKey
#define SH_KEY_TYPE		uint64
#define SH_KEY			hash
#define SH_HASH_KEY(tb, key)	((uint32) (key))
#define SH_EQUAL(tb, a, b)		((a) == (b))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* A column of the index. */
typedef struct KeyColumn
{
	bool		trigrams;		/* found here, without a function */
	FmgrInfo	extract;
	Oid			collation;
	Oid			type;			/* of its keys */
	int16		length;
	bool		by_value;
	TupleDesc	desc;			/* of a tuple of the index */
} KeyColumn;

typedef struct WholeKey
{
	uint64		hash;
	BlockNumber block;
} WholeKey;

struct GinKeys
{
	MemoryContext context;
	GinKeysSummary summary;
	int			num_columns;
	KeyColumn  *columns;
	gin_key_table_hash *table;
	double		rows_of_block;

	/* of blocks with all their rows */
	WholeKey   *whole;
	int			num_whole;
	int			most_whole;
};

/* Entries of whole blocks that are kept. */
#define WHOLE_KEYS		200000

/* The type of keys that the operator class makes of a column. */
static Oid
key_type(const IndexColumn *column)
{
	HeapTuple	tuple = SearchSysCache1(CLAOID, ObjectIdGetDatum(column->opclass));
	Oid			type = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		type = ((Form_pg_opclass) GETSTRUCT(tuple))->opckeytype;
		ReleaseSysCache(tuple);
	}
	if (!OidIsValid(type))
		return column->type;
	if (get_typtype(type) == TYPTYPE_PSEUDO && type != CSTRINGOID)
	{
		Oid			element = get_base_element_type(column->type);

		return OidIsValid(element) ? element : column->type;
	}
	return type;
}

static void
prepare_column(KeyColumn *column, const IndexColumn *of, bool one_column)
{
	Oid			extract = get_opfamily_proc(of->opfamily, of->opcintype, of->opcintype,
											GIN_EXTRACTVALUE_PROC);

	column->trigrams = !OidIsValid(of->opclass);
	if (!column->trigrams && !OidIsValid(extract))
		elog(ERROR, "operator class %u has no function to extract keys", of->opclass);
	if (!column->trigrams)
		fmgr_info(extract, &column->extract);
	column->collation = OidIsValid(of->collation) ? of->collation : DEFAULT_COLLATION_OID;
	column->type = column->trigrams ? INT4OID : key_type(of);
	get_typlenbyval(column->type, &column->length, &column->by_value);
	column->desc = CreateTemplateTupleDesc(one_column ? 1 : 2);
	if (!one_column)
		TupleDescInitEntry(column->desc, 1, NULL, INT2OID, -1, 0);
	TupleDescInitEntry(column->desc, one_column ? 1 : 2, NULL, column->type, -1, 0);
	perfopt_tuple_desc_complete(column->desc);
}

GinKeys *
perfopt_gin_keys_begin(const IndexSpec *spec, double rows_of_block)
{
	GinKeys    *keys = palloc0(sizeof(GinKeys));

	keys->context = CurrentMemoryContext;
	keys->rows_of_block = Max(rows_of_block, 1);
	keys->num_columns = spec->num_keys;
	keys->columns = palloc0(sizeof(KeyColumn) * spec->num_keys);
	for (int i = 0; i < spec->num_keys; i++)
		prepare_column(&keys->columns[i], &spec->columns[i], spec->num_keys == 1);
	keys->table = gin_key_table_create(keys->context, 1024, NULL);
	return keys;
}

static int
compare_hashes(const void *a, const void *b)
{
	uint64		left = *(const uint64 *) a;
	uint64		right = *(const uint64 *) b;

	return left < right ? -1 : left > right ? 1 : 0;
}

/* Hashes of the keys of a value, each once; the keys in keys, in the same order */
typedef struct Extracted
{
	uint64		hash;			/* must be first */
	uint64		order[2];
	Datum		key;
	bool		isnull;
} Extracted;

/*
 * The order need be no more than about that of the index: it is to tell whether
 * keys that stand together there come together.
 */
static void
identify(const KeyColumn *column, int number, Extracted *extracted)
{
	const unsigned char *data;
	Size		size;
	unsigned char begin[sizeof(extracted->order)] = {0};

	extracted->order[0] = extracted->order[1] = 0;
	if (extracted->isnull)
	{
		extracted->hash = hash_combine64(number, 0);
		return;
	}
	if (column->by_value)
	{
		data = (const unsigned char *) &extracted->key;
		size = sizeof(Datum);
		extracted->order[0] = (uint64) extracted->key ^ (UINT64CONST(1) << 63);
	}
	else if (column->length == -1)
	{
		struct varlena *packed = PG_DETOAST_DATUM_PACKED(extracted->key);

		data = (const unsigned char *) VARDATA_ANY(packed);
		size = VARSIZE_ANY_EXHDR(packed);
	}
	else
	{
		data = (const unsigned char *) DatumGetPointer(extracted->key);
		size = datumGetSize(extracted->key, false, column->length);
	}
	if (!column->by_value)
	{
		memcpy(begin, data, Min(size, sizeof(begin)));
		for (int i = 0; i < sizeof(begin); i++)
			extracted->order[i / 8] = extracted->order[i / 8] << 8 | begin[i];
	}
	extracted->hash = hash_combine64(hash_bytes_extended(data, size, 0), number + 1);
}

/* A row without keys has one that stands for that. */
static Extracted *
no_keys(int number, bool isnull, int *num)
{
	Extracted  *extracted = palloc0(sizeof(Extracted));

	extracted->hash = hash_combine64(number, isnull ? 1 : 2);
	extracted->isnull = true;
	*num = 1;
	return extracted;
}

static Extracted *
extract_trigrams(int number, Datum value, int *num)
{
	uint64	   *hashes;
	Extracted  *extracted;

	*num = perfopt_trigrams_of_text(value, &hashes);
	if (*num == 0)
		return no_keys(number, false, num);
	extracted = palloc0(sizeof(Extracted) * *num);
	for (int i = 0; i < *num; i++)
		extracted[i].hash = extracted[i].order[0] = hash_combine64(hashes[i], number + 1);
	return extracted;
}

static Extracted *
extract(GinKeys *keys, int number, Datum value, bool isnull, int *num)
{
	KeyColumn  *column = &keys->columns[number];
	int32		num_keys = 0;
	bool	   *nulls = NULL;
	Datum	   *datums = NULL;
	Extracted  *extracted;
	int			distinct = 0;

	if (!isnull && column->trigrams)
		return extract_trigrams(number, value, num);
	if (!isnull)
		datums = (Datum *)
			DatumGetPointer(FunctionCall3Coll(&column->extract, column->collation, value,
											  PointerGetDatum(&num_keys),
											  PointerGetDatum(&nulls)));

	if (datums == NULL || num_keys <= 0)
		return no_keys(number, isnull, num);
	extracted = palloc(sizeof(Extracted) * num_keys);
	for (int i = 0; i < num_keys; i++)
	{
		extracted[i].isnull = nulls && nulls[i];
		extracted[i].key = datums[i];
		identify(column, number, &extracted[i]);
	}
	qsort(extracted, num_keys, sizeof(Extracted), compare_hashes);
	for (int i = 0; i < num_keys; i++)
		if (i == 0 || extracted[i].hash != extracted[distinct - 1].hash)
			extracted[distinct++] = extracted[i];
	*num = distinct;
	return extracted;
}

/* The size of a tuple with this key, before its posting list. */
static int
key_size(const KeyColumn *column, const Extracted *extracted)
{
	Datum		values[2] = {0};
	bool		nulls[2] = {false};
	int			at = column->desc->natts - 1;
	IndexTuple	tuple;
	Size		size;

	values[at] = extracted->key;
	nulls[at] = extracted->isnull;
	tuple = index_form_tuple(column->desc, values, nulls);
	size = IndexTupleSize(tuple);

	/* what kind of null it is takes a byte, behind the bitmap */
	if (extracted->isnull)
		size = Max(size, IndexInfoFindDataOffset(tuple->t_info) +
				   (column->desc->natts > 1 ? sizeof(int16) : 0) + 1);
	pfree(tuple);
	return SHORTALIGN(size);
}

/* Bytes that a posting list takes for this one, after another one. */
static int
distance_bytes(const GinKeys *keys, uint32 from, uint32 to)
{
	double		rows = keys->rows_of_block;
	uint64		from_block = (uint64) (from / rows);
	uint64		to_block = (uint64) (to / rows);
	double		distance = (double) (to_block - from_block) * 2048 +
	(to - to_block * rows) - (from - from_block * rows);
	int			bytes = 1;

	for (; distance >= 128 && bytes < 7; bytes++)
		distance /= 128;
	return bytes;
}

int
perfopt_gin_keys_add(GinKeys *keys, Datum *values, bool *nulls)
{
	uint32		row = keys->summary.sample_rows++;
	int			sum = 0;

	for (int c = 0; c < keys->num_columns; c++)
	{
		int			num;
		Extracted  *extracted = extract(keys, c, values[c], nulls[c], &num);

		for (int i = 0; i < num; i++)
		{
			bool		found;
			GinKey	   *key = gin_key_table_insert(keys->table, extracted[i].hash, &found);

			if (!found)
			{
				key->rows = 0;
				key->bytes = 0;
				key->size = key_size(&keys->columns[c], &extracted[i]);
				key->by_value = keys->columns[c].by_value;
				key->order[0] = extracted[i].order[0];
				key->order[1] = extracted[i].order[1];
			}
			else
				key->bytes += distance_bytes(keys, key->last, row);
			key->rows++;
			key->last = row;
		}
		sum += num;
	}
	keys->summary.sample_entries += sum;
	return sum;
}

void
perfopt_gin_keys_add_whole(GinKeys *keys, Datum *values, bool *nulls, BlockNumber block)
{
	for (int c = 0; c < keys->num_columns; c++)
	{
		int			num;
		Extracted  *extracted = extract(keys, c, values[c], nulls[c], &num);

		for (int i = 0; i < num && keys->num_whole < WHOLE_KEYS; i++)
		{
			if (keys->num_whole == keys->most_whole)
			{
				MemoryContext old_context = MemoryContextSwitchTo(keys->context);

				keys->most_whole = Max(1024, keys->most_whole * 2);
				keys->whole = keys->whole == NULL ? palloc(sizeof(WholeKey) * keys->most_whole) :
					repalloc(keys->whole, sizeof(WholeKey) * keys->most_whole);
				MemoryContextSwitchTo(old_context);
			}
			keys->whole[keys->num_whole].hash = extracted[i].hash;
			keys->whole[keys->num_whole++].block = block;
		}
	}
}

static int
by_block_and_hash(const void *a, const void *b)
{
	const WholeKey *left = a;
	const WholeKey *right = b;

	if (left->block != right->block)
		return left->block < right->block ? -1 : 1;
	return left->hash < right->hash ? -1 : left->hash > right->hash ? 1 : 0;
}

/* Rows of a block that have the same rare key. */
static double
rows_together(GinKeys *keys)
{
	double		rows = 0;
	double		distinct = 0;

	qsort(keys->whole, keys->num_whole, sizeof(WholeKey), by_block_and_hash);
	for (int i = 0; i < keys->num_whole; i++)
	{
		GinKey	   *key = gin_key_table_lookup(keys->table, keys->whole[i].hash);

		if (key && key->rows >= keys->summary.frequent)
			continue;
		rows++;
		distinct += i == 0 || by_block_and_hash(&keys->whole[i - 1], &keys->whole[i]) != 0;
	}
	return distinct <= 0 ? 1 : rows / distinct;
}

/*
 * Often keys are of two kinds, such as numbers that each row has another one of,
 * and values that some hundred rows share.  Then there are few between those that
 * the sample has once and those that it has often; from there on they are frequent.
 */
static int
frequent_from(const GinKeysSummary *summary)
{
	double		num[FREQUENT_KEY + 4] = {0};
	int			least = 2;

	for (int i = 0; i < summary->num_keys; i++)
		if (summary->keys[i].rows < lengthof(num))
			num[summary->keys[i].rows]++;
	for (int rows = 3; rows < FREQUENT_KEY; rows++)
		if (num[rows] < num[least])
			least = rows;
	for (int rows = least + 1; rows < lengthof(num); rows++)
		if (num[rows] > 30 && num[rows] > 1.5 * num[least])
			return least;
	return FREQUENT_KEY;
}

const GinKeysSummary *
perfopt_gin_keys_end(GinKeys *keys)
{
	gin_key_table_iterator iterator;
	GinKey	   *key;
	GinKeysSummary *summary = &keys->summary;

	summary->keys = palloc(sizeof(GinKey) * Max(keys->table->members, 1));
	gin_key_table_start_iterate(keys->table, &iterator);
	while ((key = gin_key_table_iterate(keys->table, &iterator)) != NULL)
		summary->keys[summary->num_keys++] = *key;

	/* whatever the order of the table of hashes */
	qsort(summary->keys, summary->num_keys, sizeof(GinKey), compare_hashes);
	summary->frequent = frequent_from(summary);
	summary->together = rows_together(keys);
	return summary;
}
