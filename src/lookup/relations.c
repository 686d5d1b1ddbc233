/*
 * relations.c
 *		Relations that look-ups are of, their columns and unique keys.
 *
 * All is read from the catalogs, with the relations locked until the end of
 * the transaction, as a query over them would do.
 */
#include "postgres.h"

#include "lookup/lookup_internal.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* ---------------------------------------------------------------------
 * Relations and their columns
 */

Relation
lookup_open(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	switch (rel->rd_rel->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
		case RELKIND_FOREIGN_TABLE:
		case RELKIND_VIEW:
		case RELKIND_MATVIEW:
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is not a table or view", RelationGetRelationName(rel))));
	}
	return rel;
}

const char *
lookup_table_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/* The columns' names, quoted: "id, user_id, ..." */
char *
lookup_columns_list(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "",
							 quote_identifier(NameStr(TupleDescAttr(desc, i)->attname)));
	}
	return buf.data;
}

AttrNumber
lookup_column(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (!column->attisdropped && strcmp(NameStr(column->attname), name) == 0)
			return column->attnum;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of relation \"%s\" does not exist",
					name, RelationGetRelationName(rel)),
			 errhint("Its columns are: %s.", lookup_columns_list(rel))));
	return InvalidAttrNumber;	/* not reached */
}

/* An argument that is an array of names, NIL for a null one. */
List *
lookup_name_list(FunctionCallInfo fcinfo, int n, const char *what)
{
	Datum	   *elements;
	bool	   *nulls;
	int			num;
	List	   *names = NIL;

	if (PG_ARGISNULL(n))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR,
					  &elements, &nulls, &num);
	for (int i = 0; i < num; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not contain null", what)));
		names = lappend(names, pstrdup(NameStr(*DatumGetName(elements[i]))));
	}
	return names;
}

void
lookup_append_names(StringInfo buf, Oid relid, const AttrNumber *columns, int num)
{
	for (int i = 0; i < num; i++)
		appendStringInfo(buf, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(get_attname(relid, columns[i], false)));
}

/* ---------------------------------------------------------------------
 * Unique keys
 */

static bool
index_is_key(HeapTuple tuple)
{
	Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);

	if (!index->indisunique || !index->indisvalid || !index->indimmediate || !index->indislive ||
		!heap_attisnull(tuple, Anum_pg_index_indpred, NULL))
		return false;
	for (int i = 0; i < index->indnkeyatts; i++)
	{
		if (index->indkey.values[i] <= 0)
			return false;
	}
	return true;
}

/* Are these exactly the index's columns, in whatever order? */
static bool
index_has_columns(Form_pg_index index, Relation rel, List *names)
{
	ListCell   *lc;

	if (index->indnkeyatts != list_length(names))
		return false;
	foreach(lc, names)
	{
		bool		found = false;

		for (int i = 0; i < index->indnkeyatts && !found; i++)
			found = index->indkey.values[i] == get_attnum(RelationGetRelid(rel), lfirst(lc));
		if (!found)
			return false;
	}
	return true;
}

/*
 * The index behind the primary key, or behind the unique key of these columns.
 * Invalid: there is none.
 */
Oid
lookup_unique_index(Relation rel, List *names)
{
	Oid			result = InvalidOid;
	ListCell   *lc;

	if (!rel->rd_rel->relhasindex)
		return InvalidOid;
	foreach(lc, RelationGetIndexList(rel))
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		if (!OidIsValid(result) && index_is_key(tuple) &&
			(names == NIL ? index->indisprimary : index_has_columns(index, rel, names)))
			result = lfirst_oid(lc);
		ReleaseSysCache(tuple);
	}
	return result;
}

/* What can be written for the argument "key"; example: the last of them. */
static char *
list_unique_keys(Relation rel, StringInfo example)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, rel->rd_rel->relhasindex ? RelationGetIndexList(rel) : NIL)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		if (index_is_key(tuple))
		{
			appendStringInfo(&buf, "%s(", buf.len > 0 ? ", " : "");
			lookup_append_names(&buf, RelationGetRelid(rel), index->indkey.values, index->indnkeyatts);
			appendStringInfoChar(&buf, ')');
			resetStringInfo(example);
			lookup_append_names(example, RelationGetRelid(rel), index->indkey.values, index->indnkeyatts);
		}
		ReleaseSysCache(tuple);
	}
	return buf.len > 0 ? buf.data : NULL;
}

/* How values of a column are given as keys, and compared with each other. */
void
lookup_describe_key_column(Relation rel, AttrNumber attnum, LookupKeyColumn *column)
{
	Form_pg_attribute attr = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	TypeCacheEntry *type;

	column->name = pstrdup(NameStr(attr->attname));
	column->type = getBaseType(attr->atttypid);
	column->array_type = get_array_type(column->type);
	type = lookup_type_cache(column->type, TYPECACHE_EQ_OPR);
	column->equal = type->eq_opr;
	if (!OidIsValid(column->array_type) || !OidIsValid(column->equal))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of type %s cannot be a key",
						column->name, format_type_be(column->type)),
				 errdetail("Its type has no %s.",
						   OidIsValid(column->array_type) ? "default equality" : "array type")));
}

/* The equality by which an index is unique. */
static Oid
index_equality(Oid index, int i)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	Datum		classes;
	bool		isnull;
	Oid			opclass;
	Oid			family;
	Oid			type;
	bool		is_btree;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	classes = SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indclass, &isnull);
	opclass = ((oidvector *) DatumGetPointer(classes))->values[i];
	ReleaseSysCache(tuple);
	tuple = SearchSysCache1(CLAOID, ObjectIdGetDatum(opclass));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	is_btree = ((Form_pg_opclass) GETSTRUCT(tuple))->opcmethod == BTREE_AM_OID;
	family = ((Form_pg_opclass) GETSTRUCT(tuple))->opcfamily;
	type = ((Form_pg_opclass) GETSTRUCT(tuple))->opcintype;
	ReleaseSysCache(tuple);
	if (!is_btree)
		return InvalidOid;
	return get_opfamily_member(family, type, type, BTEqualStrategyNumber);
}

/*
 * A relation's own key: the primary key, or the columns named, which must be a
 * unique key unless the relation can have none.
 */
void
lookup_row_key(Relation rel, List *names, LookupKey *key, AttrNumber *columns, Oid *equals)
{
	bool		trusted = rel->rd_rel->relkind == RELKIND_VIEW ||
	rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE;
	Oid			index = InvalidOid;
	ListCell   *lc;

	if (list_length(names) > INDEX_MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("key can have %d columns at most", INDEX_MAX_KEYS)));
	key->num = 0;
	foreach(lc, names)
	{
		AttrNumber	attnum = lookup_column(rel, lfirst(lc));

		for (int i = 0; i < key->num; i++)
		{
			if (columns[i] == attnum)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("key names column \"%s\" more than once", (char *) lfirst(lc))));
		}
		columns[key->num++] = attnum;
	}
	if (!trusted || names == NIL)
		index = lookup_unique_index(rel, names);
	if (!OidIsValid(index) && (!trusted || names == NIL))
	{
		StringInfoData example;
		char	   *keys;

		initStringInfo(&example);
		keys = list_unique_keys(rel, &example);
		ereport(ERROR,
				(errcode(names == NIL ? ERRCODE_UNDEFINED_OBJECT : ERRCODE_INVALID_PARAMETER_VALUE),
				 names == NIL ?
				 errmsg("relation \"%s\" has no primary key", RelationGetRelationName(rel)) :
				 errmsg("columns named by key are not a unique key of relation \"%s\"",
						RelationGetRelationName(rel)),
				 keys ? errdetail("Its unique keys are: %s.", keys) :
				 trusted ? 0 : errdetail("It has no unique index that is valid, immediate, not partial, and on columns only."),
				 keys ? errhint("Name the columns of one of them, as in key => '{%s}'.", example.data) :
				 trusted ? errhint("Name columns that have one row for each key, as in key => '{id}'.") :
				 errhint("Create a primary key or a unique index.")));
	}
	if (names == NIL)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
		Form_pg_index form;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for index %u", index);
		form = (Form_pg_index) GETSTRUCT(tuple);
		key->num = form->indnkeyatts;
		memcpy(columns, form->indkey.values, key->num * sizeof(AttrNumber));
		ReleaseSysCache(tuple);
	}
	for (int i = 0; i < key->num; i++)
	{
		lookup_describe_key_column(rel, columns[i], &key->columns[i]);
		equals[i] = key->columns[i].equal;
		if (OidIsValid(index))
		{
			HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
			Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);

			for (int j = 0; j < form->indnkeyatts; j++)
			{
				Oid			equal = form->indkey.values[j] == columns[i] ?
				index_equality(index, j) : InvalidOid;

				if (OidIsValid(equal))
					equals[i] = equal;
			}
			ReleaseSysCache(tuple);
		}
	}
}
