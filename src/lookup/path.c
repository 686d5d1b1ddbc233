/*
 * path.c
 *		Which foreign keys lead from a parent down to a child, over the tables
 *		in between.
 *
 * A foreign key is found in the catalogs, or named by its columns; then it
 * need not be declared.
 */
#include "postgres.h"

#include "lookup/lookup_internal.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "catalog/namespace.h"
#include "catalog/pg_index.h"
#include "common/compat.h"
#include "nodes/makefuncs.h"
#include "parser/scansup.h"
#include "storage/lockdefs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

/* A foreign key from child to parent, its columns in the order of the keys. */
typedef struct ForeignKey
{
	int			num;
	AttrNumber	columns[INDEX_MAX_KEYS];
	AttrNumber	refs[INDEX_MAX_KEYS];
	Oid			equals[INDEX_MAX_KEYS]; /* ref = column */
} ForeignKey;

/* ---------------------------------------------------------------------
 * Foreign keys
 */

/* Put the columns into the order of the parent's primary key, if it is one. */
static void
order_foreign_key(ForeignKey *fk, Relation parent)
{
	Oid			index = lookup_unique_index(parent, NIL);
	HeapTuple	tuple;
	Form_pg_index form;
	ForeignKey	ordered = {0};

	if (!OidIsValid(index))
		return;
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_index) GETSTRUCT(tuple);
	if (form->indnkeyatts == fk->num)
	{
		for (int i = 0; i < fk->num; i++)
		{
			for (int j = 0; j < fk->num; j++)
			{
				if (fk->refs[j] != form->indkey.values[i])
					continue;
				ordered.columns[ordered.num] = fk->columns[j];
				ordered.refs[ordered.num] = fk->refs[j];
				ordered.equals[ordered.num++] = fk->equals[j];
				break;
			}
		}
		if (ordered.num == fk->num)
			*fk = ordered;
	}
	ReleaseSysCache(tuple);
}

static bool
same_foreign_key(const ForeignKey *a, const ForeignKey *b)
{
	if (a->num != b->num)
		return false;
	for (int i = 0; i < a->num; i++)
	{
		bool		found = false;

		for (int j = 0; j < a->num && !found; j++)
			found = a->columns[i] == b->columns[j] && a->refs[i] == b->refs[j];
		if (!found)
			return false;
	}
	return true;
}

static bool
foreign_key_has_columns(const ForeignKey *fk, const AttrNumber *columns, int num)
{
	if (fk->num != num)
		return false;
	for (int i = 0; i < num; i++)
	{
		bool		found = false;

		for (int j = 0; j < num && !found; j++)
			found = fk->columns[j] == columns[i];
		if (!found)
			return false;
	}
	return true;
}

/* The foreign keys from child to parent, each once. */
static List *
list_foreign_keys(Relation parent, Relation child)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, RelationGetFKeyList(child))
	{
		ForeignKeyCacheInfo *info = lfirst_node(ForeignKeyCacheInfo, lc);
		ForeignKey *fk;
		ListCell   *lc2;
		bool		known = false;

		if (info->confrelid != RelationGetRelid(parent) ||
			!perfopt_foreign_key_is_plain(info->conoid))
			continue;
		fk = palloc0(sizeof(ForeignKey));
		fk->num = info->nkeys;
		memcpy(fk->columns, info->conkey, fk->num * sizeof(AttrNumber));
		memcpy(fk->refs, info->confkey, fk->num * sizeof(AttrNumber));
		memcpy(fk->equals, info->conpfeqop, fk->num * sizeof(Oid));
		order_foreign_key(fk, parent);
		foreach(lc2, result)
			known |= same_foreign_key(lfirst(lc2), fk);
		if (!known)
			result = lappend(result, fk);
	}
	return result;
}

/* column = key, of the types they have */
static Oid
equality_between(Relation child, AttrNumber attnum, const LookupKeyColumn *column)
{
	Oid			type = getBaseType(TupleDescAttr(RelationGetDescr(child), attnum - 1)->atttypid);
	TypeCacheEntry *entry;
	Oid			result = InvalidOid;

	if (type == column->type)
		return column->equal;
	entry = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY);
	if (OidIsValid(entry->btree_opf))
	{
		result = get_opfamily_member(entry->btree_opf, type, column->type, BTEqualStrategyNumber);
		/* text and varchar, and the like */
		if (!OidIsValid(result) &&
			lookup_type_cache(column->type, TYPECACHE_BTREE_OPFAMILY)->btree_opf == entry->btree_opf)
			result = column->equal;
	}
	if (!OidIsValid(result))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of relation \"%s\" has type %s, which cannot be compared with keys of type %s",
						get_attname(RelationGetRelid(child), attnum, false),
						RelationGetRelationName(child), format_type_be(type),
						format_type_be(column->type))));
	return result;
}

static void
no_foreign_key(Relation parent, Relation child, const char *argument)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("relation \"%s\" has no foreign key that refers to \"%s\"",
					RelationGetRelationName(child), RelationGetRelationName(parent)),
			 errhint("Name the columns of \"%s\" that hold the key, as in %s, or the tables in between, as in via => '{orders}'.",
					 RelationGetRelationName(child), argument)));
}

/* How the tables below are told which foreign key is meant. */
static char *
how_to_name(Relation child, const ForeignKey *fk, bool is_child)
{
	StringInfoData columns;
	StringInfoData buf;

	initStringInfo(&columns);
	initStringInfo(&buf);
	if (fk)
		lookup_append_names(&columns, RelationGetRelid(child), fk->columns, fk->num);
	else
		appendStringInfoString(&columns, "user_id");
	if (is_child)
		appendStringInfo(&buf, "child_key => '{%s}'", columns.data);
	else
		appendStringInfo(&buf, "via => '{\"%s(%s)\"}'",
						 quote_identifier(RelationGetRelationName(child)), columns.data);
	return buf.data;
}

static void
ambiguous_foreign_key(Relation parent, Relation child, List *keys, bool is_child)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, keys)
	{
		ForeignKey *fk = lfirst(lc);

		appendStringInfo(&buf, "%s(", buf.len > 0 ? ", " : "");
		lookup_append_names(&buf, RelationGetRelid(child), fk->columns, fk->num);
		appendStringInfoString(&buf, ") to (");
		lookup_append_names(&buf, RelationGetRelid(parent), fk->refs, fk->num);
		appendStringInfoChar(&buf, ')');
	}
	ereport(ERROR,
			(errcode(ERRCODE_AMBIGUOUS_COLUMN),
			 errmsg("relation \"%s\" has several foreign keys that refer to \"%s\"",
					RelationGetRelationName(child), RelationGetRelationName(parent)),
			 errdetail("They are: %s.", buf.data),
			 errhint("Say which one is meant, as in %s.",
					 how_to_name(child, linitial(keys), is_child))));
}

/*
 * The link of one level to the one above: by the columns named, else by the
 * only foreign key.  key: what it refers to, to be described.
 */
static void
find_link(Relation parent, Relation child, List *names, bool is_child,
		  LookupLevel *level, LookupKey *key)
{
	List	   *keys = list_foreign_keys(parent, child);
	AttrNumber	columns[INDEX_MAX_KEYS];
	int			num = 0;
	ForeignKey *fk = NULL;
	ListCell   *lc;

	if (list_length(names) > INDEX_MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("key can have %d columns at most", INDEX_MAX_KEYS)));
	foreach(lc, names)
		columns[num++] = lookup_column(child, lfirst(lc));
	if (names)
	{
		List	   *fitting = NIL;

		foreach(lc, keys)
		{
			if (foreign_key_has_columns(lfirst(lc), columns, num))
				fitting = lappend(fitting, lfirst(lc));
		}
		keys = fitting;
	}
	if (list_length(keys) > 1)
	{
		/* the same columns refer to several keys: the primary one is meant */
		Oid			index = names ? lookup_unique_index(parent, NIL) : InvalidOid;

		foreach(lc, OidIsValid(index) ? keys : NIL)
		{
			ForeignKey *candidate = lfirst(lc);
			HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
			Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);

			if (form->indnkeyatts == candidate->num &&
				memcmp(form->indkey.values, candidate->refs, candidate->num * sizeof(AttrNumber)) == 0)
				fk = candidate;
			ReleaseSysCache(tuple);
		}
		if (fk == NULL)
			ambiguous_foreign_key(parent, child, keys, is_child);
	}
	else if (keys)
		fk = linitial(keys);

	if (fk)
	{
		key->num = fk->num;
		for (int i = 0; i < fk->num; i++)
		{
			lookup_describe_key_column(parent, fk->refs[i], &key->columns[i]);
			level->columns[i] = fk->columns[i];
			level->refs[i] = fk->refs[i];
			level->equals[i] = get_commutator(fk->equals[i]);
			if (!OidIsValid(level->equals[i]))
				level->equals[i] = equality_between(child, fk->columns[i], &key->columns[i]);
		}
	}
	else if (names == NIL)
		no_foreign_key(parent, child, how_to_name(child, NULL, is_child));
	else
	{
		AttrNumber	refs[INDEX_MAX_KEYS];
		Oid			equals[INDEX_MAX_KEYS];

		/* not declared: it is the parent's primary key, or a view's columns */
		key->num = 0;
		if (OidIsValid(lookup_unique_index(parent, NIL)))
			lookup_row_key(parent, NIL, key, refs, equals);
		else
		{
			key->num = num;
			for (int i = 0; i < num; i++)
			{
				refs[i] = InvalidAttrNumber;
				lookup_describe_key_column(child, columns[i], &key->columns[i]);
			}
		}
		if (key->num != num)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%d columns of \"%s\" are named, but the primary key of \"%s\" has %d",
							num, RelationGetRelationName(child),
							RelationGetRelationName(parent), key->num)));
		for (int i = 0; i < num; i++)
		{
			level->columns[i] = columns[i];
			level->refs[i] = refs[i];
			level->equals[i] = equality_between(child, columns[i], &key->columns[i]);
		}
	}
}

/* ---------------------------------------------------------------------
 * Paths
 */

/* An element of via: a table, and perhaps columns in parentheses. */
static Oid
parse_via(const char *text, List **names)
{
	char	   *copy = pstrdup(text);
	bool		quoted = false;
	char	   *open = NULL;
	List	   *table;

	for (char *c = copy; *c && open == NULL; c++)
	{
		if (*c == '"')
			quoted = !quoted;
		else if (*c == '(' && !quoted)
			open = c;
	}
	*names = NIL;
	if (open)
	{
		char	   *end = open + strlen(open) - 1;

		while (end > open && scanner_isspace(*end))
			end--;
		if (*end != ')')
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid element of via: \"%s\"", text),
					 errhint("Write a table, or a table with the columns of its foreign key, as in '{orders}' or '{\"orders(user_id)\"}'.")));
		*open = *end = '\0';
		if (!SplitIdentifierString(open + 1, ',', names) || *names == NIL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid element of via: \"%s\"", text),
					 errhint("Write a table, or a table with the columns of its foreign key, as in '{orders}' or '{\"orders(user_id)\"}'.")));
	}
	table = perfopt_qualified_name_list(copy);
	return RangeVarGetRelid(makeRangeVarFromNameList(table), AccessShareLock, false);
}

void
lookup_path_find(LookupPath *path, Oid parent, Oid child, List *child_key, List *via)
{
	Relation	above = lookup_open(parent);
	int			num = list_length(via) + 1;

	memset(path, 0, sizeof(*path));
	if (num > LOOKUP_MAX_LEVELS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("via can name %d tables at most", LOOKUP_MAX_LEVELS - 1)));
	path->num_levels = num;
	for (int l = 0; l < num; l++)
	{
		LookupLevel *level = &path->levels[l];
		List	   *names = child_key;
		LookupKey	key;
		Relation	rel;
		int			same_name = 0;

		level->relid = l < num - 1 ? parse_via(list_nth(via, l), &names) : child;
		rel = lookup_open(level->relid);
		level->table = lookup_table_name(level->relid);
		level->name = pstrdup(RelationGetRelationName(rel));
		for (int i = 0; i < l; i++)
			same_name += strcmp(get_rel_name(path->levels[i].relid), level->name) == 0;
		if (same_name > 0)
			level->name = psprintf("%s_%d", level->name, same_name + 1);
		level->alias = quote_identifier(level->name);
		find_link(above, rel, names, l == num - 1, level, &key);
		if (l == 0)
			path->key = key;
		else if (level->refs[0] == InvalidAttrNumber)
			no_foreign_key(above, rel, how_to_name(rel, NULL, l == num - 1));
		relation_close(above, NoLock);
		above = rel;
	}
	relation_close(above, NoLock);
}

List *
lookup_path_relids(const LookupPath *path, Oid parent)
{
	List	   *relids = list_make1_oid(parent);

	for (int l = 0; l < path->num_levels; l++)
		relids = list_append_unique_oid(relids, path->levels[l].relid);
	return relids;
}
