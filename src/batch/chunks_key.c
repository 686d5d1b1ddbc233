/*
 * chunks_key.c
 *		The order in which a table is cut into chunks, and where it is cut.
 *
 * A key is columns that are NOT NULL and lead a btree index in their default
 * order.  It need not be unique: all rows of one value are in one chunk.  A
 * chunk is all rows between its first and its last key, both included.  Cuts
 * are found along the index, by queries that run as the user and see what the
 * statement will see.
 *
 * A table without such columns is cut into ranges of ctid, that is of blocks,
 * as many as it had when the job began.  There, two halves of a chunk are
 * halves of its blocks, and within one block of its line pointers.
 *
 * Operators are named with their schema: those of the key's type, whatever
 * the search_path.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/sysattr.h"
#include "batch/batch_internal.h"
#include "batch/chunks_internal.h"
#include "catalog/index.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "common/compat.h"
#include "common/text_settings.h"
#include "storage/bufmgr.h"
#include "storage/itemptr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* ---------------------------------------------------------------------
 * Which columns
 */

/*
 * Is no row of the table, or of one that inherits from it, without a value?
 * Such a one can have dropped NOT NULL; a partition cannot.
 */
static bool
is_not_null(Relation rel, AttrNumber attnum)
{
	char	   *name = NameStr(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attname);
	ListCell   *lc;

	if (!perfopt_attribute_is_not_null(RelationGetDescr(rel), attnum - 1))
		return false;
	if (!rel->rd_rel->relhassubclass || rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		return true;
	foreach(lc, find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL))
	{
		Relation	child = relation_open(lfirst_oid(lc), NoLock);
		AttrNumber	column = get_attnum(lfirst_oid(lc), name);
		bool		result = perfopt_attribute_is_not_null(RelationGetDescr(child), column - 1);

		relation_close(child, NoLock);
		if (!result)
			return false;
	}
	return true;
}

/* Does the index begin with so many usable columns, and which? */
static bool
index_serves(Relation rel, Relation index, int num)
{
	Form_pg_index form = index->rd_index;

	if (index->rd_rel->relam != BTREE_AM_OID || !form->indisvalid ||
		num > form->indnkeyatts || RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < num; i++)
	{
		AttrNumber	attnum = form->indkey.values[i];
		Form_pg_attribute attribute;
		Oid			opclass;

		if (attnum <= 0)
			return false;
		attribute = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
		opclass = GetDefaultOpClass(getBaseType(attribute->atttypid), BTREE_AM_OID);
		if (!is_not_null(rel, attnum) || !OidIsValid(opclass) ||
			index->rd_opfamily[i] != get_opclass_family(opclass) ||
			index->rd_indcollation[i] != attribute->attcollation ||
			(index->rd_indoption[i] & INDOPTION_DESC) != (index->rd_indoption[0] & INDOPTION_DESC))
			return false;
	}
	return true;
}

/* The key of the primary key, or of the shortest unique index; NIL. */
static List *
choose_columns(Relation rel)
{
	List	   *columns = NIL;
	List	   *indexes = RelationGetIndexList(rel);
	bool		primary = false;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (form->indisunique && !primary &&
			(columns == NIL || form->indisprimary || form->indnkeyatts < list_length(columns)) &&
			index_serves(rel, index, form->indnkeyatts))
		{
			columns = NIL;
			for (int i = 0; i < form->indnkeyatts; i++)
				columns = lappend_int(columns, form->indkey.values[i]);
			primary = form->indisprimary;
		}
		index_close(index, AccessShareLock);
	}
	return columns;
}

/* The columns named, if they can be a key. */
static List *
named_columns(Relation rel, ArrayType *names)
{
	List	   *columns = NIL;
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;
	Datum	   *elements;
	bool	   *nulls;
	int			num;
	bool		served = false;

	deconstruct_array(names, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &elements, &nulls, &num);
	if (num == 0 || num > INDEX_MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the key must have 1 to %d columns", INDEX_MAX_KEYS)));
	for (int i = 0; i < num; i++)
	{
		AttrNumber	attnum;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a column of the key is null")));
		attnum = get_attnum(RelationGetRelid(rel), NameStr(*DatumGetName(elements[i])));
		if (attnum == SelfItemPointerAttributeNumber && num == 1)
			return NIL;
		if (attnum <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist",
							NameStr(*DatumGetName(elements[i])), RelationGetRelationName(rel))));
		if (!is_not_null(rel, attnum))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" cannot be part of a key, as it may be null",
							NameStr(*DatumGetName(elements[i])))));
		columns = lappend_int(columns, attnum);
	}

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		int			i = 0;

		if (index_serves(rel, index, num))
			for (; i < num; i++)
				if (index->rd_index->indkey.values[i] != list_nth_int(columns, i))
					break;
		served |= i == num;
		index_close(index, AccessShareLock);
	}
	if (!served)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no index of \"%s\" has the columns of the key as its first ones",
						RelationGetRelationName(rel)),
				 errhint("Create a btree index on them, with the default operator classes, without WHERE.")));
	return columns;
}

static void
set_operators(ChunkKey *key)
{
	for (int i = 0; i < key->num; i++)
	{
		Oid			opclass = GetDefaultOpClass(key->types[i], BTREE_AM_OID);
		Oid			type = get_opclass_input_type(opclass);
		Oid			operator = get_opfamily_member(get_opclass_family(opclass), type, type,
												   BTLessStrategyNumber);
		HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
		Form_pg_operator form;
		char	   *schema;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "there is no operator to compare type %u", key->types[i]);
		form = (Form_pg_operator) GETSTRUCT(tuple);
		schema = (char *) quote_identifier(get_namespace_name(form->oprnamespace));
		if (strcmp(NameStr(form->oprname), "<") != 0 ||
			(key->operators && strcmp(key->operators, schema) != 0))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the columns of the key are not compared by operators of one schema")));
		key->operators = schema;
		ReleaseSysCache(tuple);
	}
}

/* What the column's order depends on. */
static char *
type_name(Form_pg_attribute attribute)
{
	char	   *type = format_type_extended(attribute->atttypid, attribute->atttypmod,
											FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);

	HeapTuple	tuple;

	if (!OidIsValid(attribute->attcollation))
		return type;
	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(attribute->attcollation));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_collation form = (Form_pg_collation) GETSTRUCT(tuple);

		type = psprintf("%s COLLATE %s", type,
						quote_qualified_identifier(get_namespace_name(form->collnamespace),
												   NameStr(form->collname)));
		ReleaseSysCache(tuple);
	}
	return type;
}

ChunkKey *
chunk_key_make(Relation rel, ArrayType *names)
{
	ChunkKey   *key = palloc0(sizeof(ChunkKey));
	List	   *columns = names ? named_columns(rel, names) : choose_columns(rel);

	key->relid = RelationGetRelid(rel);
	key->short_name = pstrdup(quote_identifier(RelationGetRelationName(rel)));
	key->table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
											RelationGetRelationName(rel));
	key->ctid = columns == NIL;
	key->num = Max(list_length(columns), 1);
	key->names = palloc(sizeof(char *) * key->num);
	key->attnums = palloc(sizeof(AttrNumber) * key->num);
	key->types = palloc(sizeof(Oid) * key->num);
	key->type_names = palloc(sizeof(char *) * key->num);
	if (key->ctid)
	{
		if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relhassubclass)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("\"%s\" has no key to be cut by", RelationGetRelationName(rel)),
					 errdetail("It has partitions or children, and no unique index on columns that are NOT NULL."),
					 errhint("Name columns that are NOT NULL and lead an index as the key.")));
		key->names[0] = "ctid";
		key->attnums[0] = SelfItemPointerAttributeNumber;
		key->types[0] = TIDOID;
		key->type_names[0] = "tid";
	}
	for (int i = 0; i < list_length(columns); i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel),
													list_nth_int(columns, i) - 1);

		key->names[i] = pstrdup(NameStr(attribute->attname));
		key->attnums[i] = attribute->attnum;
		key->types[i] = getBaseType(attribute->atttypid);
		key->type_names[i] = type_name(attribute);
		key->generated |= attribute->attgenerated != '\0';
	}
	set_operators(key);
	return key;
}

ArrayType *
chunk_key_names(const ChunkKey *key)
{
	Datum	   *names = palloc(sizeof(Datum) * key->num);

	for (int i = 0; i < key->num; i++)
	{
		Name		name = palloc0(NAMEDATALEN);

		namestrcpy(name, key->names[i]);
		names[i] = NameGetDatum(name);
	}
	return construct_array(names, key->num, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR);
}

/* ---------------------------------------------------------------------
 * Values and conditions
 */
ArrayType *
chunk_bound_to_array(const ChunkKey *key, ChunkBound bound)
{
	Datum	   *texts = palloc(sizeof(Datum) * key->num);

	for (int i = 0; i < key->num; i++)
		texts[i] = CStringGetTextDatum(bound[i]);
	return construct_array(texts, key->num, TEXTOID, -1, false, TYPALIGN_INT);
}

ChunkBound
chunk_bound_from_array(ArrayType *array, int num_columns)
{
	Datum	   *texts;
	bool	   *nulls;
	int			num;
	ChunkBound	bound;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &texts, &nulls, &num);
	if (num != num_columns)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("a key of %d columns is given %d values", num_columns, num)));
	bound = palloc(sizeof(char *) * num);
	for (int i = 0; i < num; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a value of the key is null")));
		bound[i] = TextDatumGetCString(texts[i]);
	}
	return bound;
}

/* "t.a, t.b", or with a suffix after each */
static char *
column_list(const ChunkKey *key, const char *alias, const char *suffix)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < key->num; i++)
		appendStringInfo(&buf, "%s%s.%s%s", i > 0 ? ", " : "", alias,
						 quote_identifier(key->names[i]), suffix);
	return buf.data;
}

/* "ROW(t.a, t.b) OPERATOR(s.<=) ROW($3, $4)" */
static char *
comparison(const ChunkKey *key, const char *alias, const char *operator, int first_param)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "ROW(%s) OPERATOR(%s.%s) ROW(", column_list(key, alias, ""),
					 key->operators, operator);
	for (int i = 0; i < key->num; i++)
		appendStringInfo(&buf, "%s$%d", i > 0 ? ", " : "", first_param + i);
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

char *
chunk_key_condition(const ChunkKey *key)
{
	return psprintf("%s AND %s", comparison(key, key->short_name, ">=", 1),
					comparison(key, key->short_name, "<=", key->num + 1));
}

int
chunk_key_params(const ChunkKey *key, ChunkBound lower, ChunkBound upper, int64 job,
				 Oid **types, Datum **values)
{
	int			num = 2 * key->num;

	*types = palloc(sizeof(Oid) * (num + 1));
	*values = palloc(sizeof(Datum) * (num + 1));
	for (int i = 0; i < num; i++)
	{
		Oid			type = key->types[i % key->num];
		char	   *text = i < key->num ? lower[i] : upper[i - key->num];
		Oid			input;
		Oid			io_param;

		getTypeInputInfo(type, &input, &io_param);
		(*types)[i] = type;
		(*values)[i] = OidInputFunctionCall(input, text, io_param, -1);
	}
	(*types)[num] = INT8OID;
	(*values)[num] = Int64GetDatum(job);
	return num + 1;
}

/*
 * Have a query of ours walk the key's index in order, and stop where it may.
 * Without statistics, or with those of a first column that has few values, the
 * planner takes ranges for small, and would read and sort all that is left of
 * the table for each chunk.  Where there is no such index (an inheriting table)
 * it is sorted all the same, and the cost of that must not have it compiled.
 */
static int
enter_in_order(void)
{
	static const char *const off[] = {
		"enable_sort", "enable_incremental_sort", "enable_seqscan", "enable_bitmapscan", "jit"
	};
	int			level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(off); i++)
		(void) set_config_option(off[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	return level;
}

/*
 * Run a query for keys, whose parameters are the bounds, with what settings
 * the user has but for those of the planner.  Returns them, at most two, or
 * NULL in their place.
 */
static void
query_keys(const ChunkKey *key, const char *sql, ChunkBound lower, ChunkBound upper,
		   ChunkBound result[2])
{
	MemoryContext context = CurrentMemoryContext;
	int			num = 0;
	Oid		   *types = NULL;
	Datum	   *values = NULL;
	int			level = perfopt_text_settings_enter();

	if (lower)
		num = chunk_key_params(key, lower, upper, 0, &types, &values);
	perfopt_text_settings_leave(level);
	level = enter_in_order();
	chunks_execute(SPI_OK_SELECT, sql, num, types, values, NULL);
	perfopt_text_settings_leave(level);

	level = perfopt_text_settings_enter();
	for (uint64 row = 0; row < 2; row++)
	{
		MemoryContext old_context;

		result[row] = NULL;
		if (row >= SPI_processed)
			continue;
		old_context = MemoryContextSwitchTo(context);
		result[row] = palloc(sizeof(char *) * key->num);
		for (int i = 0; i < key->num; i++)
		{
			char	   *text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, i + 1);

			if (text == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						 errmsg("column \"%s\" of the key is null in table %s",
								key->names[i], key->table)));
			result[row][i] = text;
		}
		MemoryContextSwitchTo(old_context);
	}
	SPI_freetuptable(SPI_tuptable);
	perfopt_text_settings_leave(level);
}

static int64
query_count(const ChunkKey *key, const char *sql, ChunkBound lower, ChunkBound upper)
{
	Oid		   *types;
	Datum	   *values;
	bool		isnull;
	int			level = perfopt_text_settings_enter();
	int			num = chunk_key_params(key, lower, upper, 0, &types, &values);
	int64		result;

	perfopt_text_settings_leave(level);
	level = enter_in_order();
	chunks_execute(SPI_OK_SELECT, sql, num, types, values, NULL);
	perfopt_text_settings_leave(level);
	result = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return result;
}

/* ---------------------------------------------------------------------
 * Ranges of ctid
 */
static ChunkBound
ctid_bound(BlockNumber block, OffsetNumber offset)
{
	ChunkBound	bound = palloc(sizeof(char *));

	bound[0] = psprintf("(%u,%u)", block, offset);
	return bound;
}

static void
read_ctid(ChunkBound bound, BlockNumber *block, OffsetNumber *offset)
{
	unsigned int b;
	unsigned int o;

	if (sscanf(bound[0], "(%u,%u)", &b, &o) != 2 || b > MaxBlockNumber || o > PG_UINT16_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("\"%s\" is no ctid", bound[0])));
	*block = b;
	*offset = o;
}

static bool
ctid_next(ChunkBound after, ChunkBound last, int rows, double estimated_rows,
		  ChunkBound *lower, ChunkBound *upper, int64 *keys)
{
	BlockNumber last_block;
	BlockNumber first = 0;
	BlockNumber end;
	OffsetNumber offset;
	double		rows_a_block;
	double		blocks;

	read_ctid(last, &last_block, &offset);
	if (after)
	{
		read_ctid(after, &first, &offset);
		first++;
	}
	if (first > last_block)
		return false;
	rows_a_block = Max(estimated_rows / ((double) last_block + 1), 1.0 / 1024);
	blocks = Max(rows / rows_a_block, 1);
	end = blocks >= last_block - first ? last_block : first + (BlockNumber) blocks - 1;
	*lower = ctid_bound(first, 0);
	*upper = ctid_bound(end, PG_UINT16_MAX);
	*keys = (int64) ((end - first + 1) * rows_a_block);
	return true;
}

static bool
ctid_halve(ChunkBound lower, ChunkBound upper, ChunkBound *middle, ChunkBound *next)
{
	BlockNumber first;
	BlockNumber last;
	OffsetNumber begin;
	OffsetNumber end;

	read_ctid(lower, &first, &begin);
	read_ctid(upper, &last, &end);
	if (first < last)
	{
		BlockNumber block = first + (last - first) / 2;

		*middle = ctid_bound(block, PG_UINT16_MAX);
		*next = ctid_bound(block + 1, 0);
		return true;
	}
	if (begin >= end)
		return false;
	begin = begin + (end - begin) / 2;
	*middle = ctid_bound(first, begin);
	*next = ctid_bound(first, begin + 1);
	return true;
}

/* ---------------------------------------------------------------------
 * Cuts
 */
bool
chunk_key_ends(const ChunkKey *key, ChunkBound *first, ChunkBound *last)
{
	ChunkBound	found[2];

	if (key->ctid)
	{
		Relation	rel = relation_open(key->relid, AccessShareLock);
		BlockNumber blocks = RelationGetNumberOfBlocks(rel);

		relation_close(rel, NoLock);
		if (blocks == 0)
			return false;
		*first = ctid_bound(0, 0);
		*last = ctid_bound(blocks - 1, PG_UINT16_MAX);
		return true;
	}
	query_keys(key, psprintf("SELECT %s FROM %s AS t ORDER BY %s LIMIT 1", column_list(key, "t", ""),
							 key->table, column_list(key, "t", "")), NULL, NULL, found);
	*first = found[0];
	query_keys(key, psprintf("SELECT %s FROM %s AS t ORDER BY %s LIMIT 1", column_list(key, "t", ""),
							 key->table, column_list(key, "t", " DESC")), NULL, NULL, found);
	*last = found[0];
	return *first && *last;
}

bool
chunk_key_next(const ChunkKey *key, ChunkBound after, ChunkBound last, int rows,
			   double estimated_rows,
			   ChunkBound *lower, ChunkBound *upper, int64 *keys)
{
	char	   *columns;
	ChunkBound	found[2];

	if (key->ctid)
		return ctid_next(after, last, rows, estimated_rows, lower, upper, keys);

	columns = column_list(key, "t", "");
	query_keys(key, psprintf("SELECT %s FROM %s AS t WHERE %s%s%s ORDER BY %s LIMIT 1",
							 columns, key->table,
							 after ? comparison(key, "t", ">", 1) : "", after ? " AND " : "",
							 comparison(key, "t", "<=", key->num + 1), columns),
			   after ? after : last, last, found);
	if (found[0] == NULL)
		return false;
	*lower = found[0];
	query_keys(key, psprintf("SELECT %s FROM %s AS t WHERE %s AND %s ORDER BY %s LIMIT 1 OFFSET %d",
							 columns, key->table, comparison(key, "t", ">=", 1),
							 comparison(key, "t", "<=", key->num + 1), columns, rows - 1),
			   *lower, last, found);
	*upper = found[0];
	*keys = rows;
	if (*upper == NULL)
	{
		/* the rest */
		*upper = last;
		*keys = query_count(key, psprintf("SELECT pg_catalog.count(*) FROM %s AS t WHERE %s AND %s",
										  key->table, comparison(key, "t", ">=", 1),
										  comparison(key, "t", "<=", key->num + 1)),
							*lower, last);
	}
	return true;
}

bool
chunk_key_halve(const ChunkKey *key, ChunkBound lower, ChunkBound upper,
				ChunkBound *middle, ChunkBound *next,
				int64 *keys_before, int64 *keys_after)
{
	char	   *columns;
	char	   *values;
	char	   *rows;
	int64		num_values;
	ChunkBound	found[2];

	if (key->ctid)
		return ctid_halve(lower, upper, middle, next);

	columns = column_list(key, "t", "");
	values = psprintf("SELECT DISTINCT %s FROM %s AS t WHERE %s AND %s", columns, key->table,
					  comparison(key, "t", ">=", 1), comparison(key, "t", "<=", key->num + 1));
	num_values = query_count(key, psprintf("SELECT pg_catalog.count(*) FROM (%s) AS t", values),
							 lower, upper);
	if (num_values < 2)
		return false;
	query_keys(key, psprintf("SELECT %s FROM (%s) AS t ORDER BY %s LIMIT 2 OFFSET " INT64_FORMAT,
							 columns, values, columns, num_values / 2 - 1), lower, upper, found);
	if (found[0] == NULL || found[1] == NULL)
		return false;
	*middle = found[0];
	*next = found[1];
	rows = psprintf("SELECT pg_catalog.count(*) FROM %s AS t WHERE %s AND %s", key->table,
					comparison(key, "t", ">=", 1), comparison(key, "t", "<=", key->num + 1));
	*keys_before = query_count(key, rows, lower, *middle);
	*keys_after = query_count(key, rows, *next, upper);
	return true;
}
