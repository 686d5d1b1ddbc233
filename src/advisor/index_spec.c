/*
 * index_spec.c
 *		What an index is made of: built and checked, compared, found in the catalogs.
 *
 * This is the one place that knows what CREATE INDEX accepts.  Expressions and
 * predicates are over the table as the only relation.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/brin_internal.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_amop.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "common/hashfn.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parse_utilcmd.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/*
 * Building
 */
IndexSpec *
perfopt_index_spec_create(Oid relid, Oid am)
{
	IndexSpec  *spec = palloc0(sizeof(IndexSpec));

	spec->relid = relid;
	spec->am = am;
	spec->columns = palloc0(sizeof(IndexColumn) * INDEX_MAX_KEYS);
	return spec;
}

/* Room for a few columns only, in place of what CREATE INDEX may have. */
static void
shrink(IndexSpec *spec)
{
	spec->columns = repalloc(spec->columns, sizeof(IndexColumn) * Max(spec->num_columns, 1));
}

/* Does a range keep its least and its greatest value, and no more? */
static bool
is_minmax(const IndexColumn *column)
{
	return get_opfamily_proc(column->opfamily, column->opcintype, column->opcintype,
							 BRIN_PROCNUM_OPCINFO) == F_BRIN_MINMAX_OPCINFO;
}

const char *
perfopt_index_spec_add_key(IndexSpec *spec, Node *expr, Oid opclass, Oid collation,
						   int16 options)
{
	IndexColumn *column = &spec->columns[spec->num_columns];

	if (spec->am != BTREE_AM_OID && spec->am != GIN_AM_OID && spec->am != BRIN_AM_OID)
		return "only btree, gin and brin indexes are priced";
	if (spec->am != BTREE_AM_OID && options != 0)
		return "only btree indexes are ordered";
	if (spec->num_columns > spec->num_keys)
		return "keys come before included columns";
	if (spec->num_columns == INDEX_MAX_KEYS)
		return "too many columns";

	column->type = exprType(expr);
	column->typmod = exprTypmod(expr);
	column->collation = OidIsValid(collation) ? collation : exprCollation(expr);
	while (IsA(expr, CollateExpr))
		expr = (Node *) ((CollateExpr *) expr)->arg;
	if (IsA(expr, Var) && ((Var *) expr)->varattno != 0)
	{
		column->attnum = ((Var *) expr)->varattno;
		column->expr = NULL;
		if (column->attnum < 0)
			return "system columns can't be indexed";
	}
	else
	{
		column->attnum = 0;
		column->expr = expr;
		if (contain_mutable_functions(expr))
			return "functions in an index expression must be immutable";
		if (contain_subplans(expr) || !bms_is_empty(pull_paramids((Expr *) expr)))
			return "an index expression may refer to its table only";
	}
	if (type_is_collatable(column->type) != OidIsValid(column->collation))
		return "the collation of an index expression can't be determined";
	if (spec->extension == NULL)
	{
		column->opclass = OidIsValid(opclass) ? opclass :
			GetDefaultOpClass(column->type, spec->am);
		if (!OidIsValid(column->opclass))
			return "the type has no default operator class";

		/* one for all arrays, say, needs an order of the elements as well */
		if (spec->am == BTREE_AM_OID &&
			column->opclass == GetDefaultOpClass(column->type, BTREE_AM_OID) &&
			!OidIsValid(lookup_type_cache(column->type, TYPECACHE_CMP_PROC)->cmp_proc))
			return "values of the type have no order";
		if (!get_opclass_opfamily_and_input_type(column->opclass, &column->opfamily,
												 &column->opcintype))
			return "there is no such operator class";
	}
	if (spec->am == BRIN_AM_OID && !is_minmax(column))
		return "of brin operator classes only minmax ones are priced";
	column->options = options;
	spec->num_keys++;
	spec->num_columns++;
	return NULL;
}

IndexSpec *
perfopt_index_spec_copy(const IndexSpec *spec)
{
	IndexSpec  *copy = palloc(sizeof(IndexSpec));

	*copy = *spec;
	copy->columns = palloc(sizeof(IndexColumn) * Max(spec->num_columns, 1));
	memcpy(copy->columns, spec->columns, sizeof(IndexColumn) * spec->num_columns);
	for (int i = 0; i < copy->num_columns; i++)
		copy->columns[i].expr = copyObject(copy->columns[i].expr);
	copy->predicate = copyObject(copy->predicate);
	return copy;
}

const char *
perfopt_index_spec_add_trigrams(IndexSpec *spec, Node *expr, Oid collation)
{
	Oid			type = getBaseType(exprType(expr));

	if (spec->am != GIN_AM_OID || (type != TEXTOID && type != VARCHAROID))
		return "there is no such operator class";
	if (spec->num_keys > 0 && spec->extension == NULL)
		return "keys with and without a missing extension can't be priced together";
	if (spec->num_columns == INDEX_MAX_KEYS)
		return "too many columns";
	spec->extension = "pg_trgm";
	spec->columns[spec->num_columns].opcintype = TEXTOID;
	return perfopt_index_spec_add_key(spec, expr, InvalidOid, collation, 0);
}

const char *
perfopt_index_spec_add_included(IndexSpec *spec, AttrNumber attnum)
{
	IndexColumn *column = &spec->columns[spec->num_columns];
	Oid			collation;

	if (spec->am != BTREE_AM_OID)
		return "only btree indexes include columns";
	if (spec->num_columns == INDEX_MAX_KEYS)
		return "too many columns";
	if (attnum <= 0)
		return "only columns can be included";
	memset(column, 0, sizeof(*column));
	column->attnum = attnum;
	get_atttypetypmodcoll(spec->relid, attnum, &column->type, &column->typmod, &collation);
	spec->num_columns++;
	return NULL;
}

/* Where a column of this type ends that comes after so many bytes. */
static int
end_of_column(int start, Oid type)
{
	int16		len;
	bool		byval;
	char		align;

	get_typlenbyvalalign(type, &len, &byval, &align);
	return att_align_nominal(start, align) + len;
}

/*
 * Values of variable length are not aligned, as long as they are short, but what
 * comes after them is: these are the last.  Of the others the next one is always
 * what needs the least padding, and then the widest.
 */
void
perfopt_index_spec_pack_included(IndexSpec *spec)
{
	int			end = 0;

	for (int i = 0; i < spec->num_columns; i++)
	{
		IndexColumn column;
		int			best = i;
		int			least = INT_MAX;

		for (int j = i; j < (i < spec->num_keys ? i + 1 : spec->num_columns); j++)
		{
			Oid			type = spec->columns[j].type;
			int16		len = get_typlen(type);
			int			padding = len > 0 ? end_of_column(end, type) - end - len : INT_MAX - 1;

			if (padding < least || (padding == least && len > 0 &&
									len > get_typlen(spec->columns[best].type)) ||
				(padding == least && len == get_typlen(spec->columns[best].type) &&
				 spec->columns[j].attnum < spec->columns[best].attnum))
			{
				best = j;
				least = padding;
			}
		}
		column = spec->columns[best];
		spec->columns[best] = spec->columns[i];
		spec->columns[i] = column;

		/* after one of variable length nobody knows: as if it were aligned */
		end = get_typlen(column.type) > 0 ? end_of_column(end, column.type) : MAXALIGN(end);
	}
}

const char *
perfopt_index_spec_set_predicate(IndexSpec *spec, Node *predicate)
{
	if (contain_mutable_functions(predicate))
		return "functions in an index predicate must be immutable";
	if (contain_subplans(predicate) || !bms_is_empty(pull_paramids((Expr *) predicate)))
		return "an index predicate may refer to its table only";
	spec->predicate = make_ands_implicit(canonicalize_qual((Expr *) predicate, false));
	return NULL;
}

const char *
perfopt_index_spec_set_fillfactor(IndexSpec *spec, int fillfactor)
{
	if (spec->am != BTREE_AM_OID)
		return "only btree indexes have a fill factor";
	if (fillfactor < BTREE_MIN_FILLFACTOR || fillfactor > 100)
		return "the fill factor is from 10 to 100";
	spec->fillfactor = fillfactor;
	return NULL;
}

IndexSpec *
perfopt_index_spec_of_columns(Oid relid, int num_columns, const AttrNumber *attnums)
{
	IndexSpec  *spec = perfopt_index_spec_create(relid, BTREE_AM_OID);

	for (int i = 0; i < num_columns; i++)
	{
		Oid			type;
		int32		typmod;
		Oid			collation;

		get_atttypetypmodcoll(relid, attnums[i], &type, &typmod, &collation);
		if (perfopt_index_spec_add_key(spec, (Node *) makeVar(1, attnums[i], type, typmod,
															  collation, 0),
									   InvalidOid, InvalidOid, 0))
			return NULL;
	}
	shrink(spec);
	return spec;
}

static void
check(const char *problem)
{
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an index like that can't be priced"),
				 errdetail("%c%s.", pg_toupper((unsigned char) problem[0]), problem + 1)));
}

/* Nobody else's function runs for that, nor is inlined. */
static Node *
fold(Node *node)
{
	fix_opfuncids(node);
	return perfopt_expression_is_builtin(node) ? eval_const_expressions(NULL, node) : node;
}

static Node *
key_of_element(Oid relid, IndexElem * element)
{
	AttrNumber	attnum;
	Oid			type;
	int32		typmod;
	Oid			collation;

	if (element->expr)
		return fold(element->expr);
	attnum = get_attnum(relid, element->name);
	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" does not exist", element->name)));
	get_atttypetypmodcoll(relid, attnum, &type, &typmod, &collation);
	return (Node *) makeVar(1, attnum, type, typmod, collation, 0);
}

/* Of pg_trgm, where that is not installed. */
static bool
is_missing_class(Oid am, List *name)
{
	return am == GIN_AM_OID && list_length(name) == 1 &&
		strcmp(strVal(linitial(name)), "gin_trgm_ops") == 0 &&
		!OidIsValid(get_opclass_oid(am, name, true));
}

IndexSpec *
perfopt_index_spec_parse(const char *ddl)
{
	List	   *raw = pg_parse_query(ddl);
	IndexStmt  *stmt;
	IndexSpec  *spec;
	Oid			relid;
	ListCell   *lc;

	if (list_length(raw) != 1 || !IsA(linitial_node(RawStmt, raw)->stmt, IndexStmt))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("not a CREATE INDEX statement")));
	stmt = (IndexStmt *) linitial_node(RawStmt, raw)->stmt;
	if (stmt->unique)
		check("it would be unique, and so more than an access path");
	relid = RangeVarGetRelid(stmt->relation, AccessShareLock, false);
	stmt = transformIndexStmt(relid, stmt, ddl);

	spec = perfopt_index_spec_create(relid, get_am_oid(stmt->accessMethod, false));
	foreach(lc, stmt->indexParams)
	{
		IndexElem  *element = lfirst_node(IndexElem, lc);
		Node	   *key = key_of_element(relid, element);
		int16		options = element->ordering == SORTBY_DESC ? INDOPTION_DESC : 0;

		if (element->nulls_ordering == SORTBY_NULLS_FIRST ||
			(element->nulls_ordering == SORTBY_NULLS_DEFAULT && options != 0))
			options |= INDOPTION_NULLS_FIRST;
		if (is_missing_class(spec->am, element->opclass))
		{
			check(perfopt_index_spec_add_trigrams(spec, key, element->collation == NIL ? InvalidOid :
												  get_collation_oid(element->collation, false)));
			continue;
		}
		if (spec->extension)
			check("keys with and without a missing extension can't be priced together");
		check(perfopt_index_spec_add_key(spec, key,
										 element->opclass == NIL ? InvalidOid :
										 ResolveOpClass(element->opclass, exprType(key),
														stmt->accessMethod, spec->am),
										 element->collation == NIL ? InvalidOid :
										 get_collation_oid(element->collation, false),
										 options));
	}
	foreach(lc, stmt->indexIncludingParams)
	{
		IndexElem  *element = lfirst_node(IndexElem, lc);

		check(perfopt_index_spec_add_included(spec, element->name == NULL ? 0 :
											  get_attnum(relid, element->name)));
	}
	if (stmt->whereClause)
		check(perfopt_index_spec_set_predicate(spec, fold(stmt->whereClause)));
	foreach(lc, stmt->options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, "fillfactor") != 0)
			check("of its options only fillfactor counts");
		check(perfopt_index_spec_set_fillfactor(spec, defGetInt32(option)));
	}
	shrink(spec);
	return spec;
}

/*
 * Trees of a catalog.  The planner would fold their constants; that calls
 * functions with arguments of whoever made the index, as who is asking here, for
 * as long as they take, so it is left out.  An index that only folding would
 * show to be the same is not recognized.
 */
static Node *
catalog_tree(HeapTuple tuple, AttrNumber attnum)
{
	bool		isnull;
	Datum		datum = SysCacheGetAttr(INDEXRELID, tuple, attnum, &isnull);
	Node	   *node;

	if (isnull)
		return NULL;
	node = stringToNode(TextDatumGetCString(datum));
	fix_opfuncids(node);
	return node;
}

static oidvector *
catalog_oids(HeapTuple tuple, AttrNumber attnum)
{
	bool		isnull;

	return (oidvector *) DatumGetPointer(SysCacheGetAttr(INDEXRELID, tuple, attnum, &isnull));
}

IndexSpec *
perfopt_index_spec_of_index(Oid index)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	HeapTuple	class_tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(index));
	IndexSpec  *spec = NULL;
	const char *problem = NULL;

	if (HeapTupleIsValid(tuple) && HeapTupleIsValid(class_tuple) &&
		((Form_pg_index) GETSTRUCT(tuple))->indisvalid)
	{
		Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);
		oidvector  *collations = catalog_oids(tuple, Anum_pg_index_indcollation);
		oidvector  *opclasses = catalog_oids(tuple, Anum_pg_index_indclass);
		int2vector *options = (int2vector *) catalog_oids(tuple, Anum_pg_index_indoption);
		List	   *exprs = (List *) catalog_tree(tuple, Anum_pg_index_indexprs);
		Node	   *predicate = catalog_tree(tuple, Anum_pg_index_indpred);
		ListCell   *next = list_head(exprs);

		spec = perfopt_index_spec_create(form->indrelid,
										 ((Form_pg_class) GETSTRUCT(class_tuple))->relam);
		for (int i = 0; i < form->indnatts && problem == NULL; i++)
		{
			AttrNumber	attnum = form->indkey.values[i];
			Oid			type;
			int32		typmod;
			Oid			collation;
			Node	   *key;

			if (i >= form->indnkeyatts)
			{
				problem = perfopt_index_spec_add_included(spec, attnum);
				continue;
			}
			if (attnum == 0)
			{
				key = lfirst(next);
				next = lnext(exprs, next);
			}
			else
			{
				get_atttypetypmodcoll(form->indrelid, attnum, &type, &typmod, &collation);
				key = (Node *) makeVar(1, attnum, type, typmod, collation, 0);
			}
			problem = perfopt_index_spec_add_key(spec, key, opclasses->values[i],
												 collations->values[i], options->values[i]);
		}
		if (predicate && problem == NULL)
			problem = perfopt_index_spec_set_predicate(spec, predicate);
		shrink(spec);
	}
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (HeapTupleIsValid(class_tuple))
		ReleaseSysCache(class_tuple);
	return problem ? NULL : spec;
}

/*
 * Comparing
 */
static bool
same_key(const IndexColumn *a, const IndexColumn *b)
{
	return a->attnum == b->attnum && equal(a->expr, b->expr) &&
		a->opfamily == b->opfamily && a->collation == b->collation;
}

bool
perfopt_index_spec_equal(const IndexSpec *a, const IndexSpec *b)
{
	if (a->relid != b->relid || a->am != b->am || a->num_keys != b->num_keys ||
		a->num_columns != b->num_columns || a->fillfactor != b->fillfactor ||
		!equal(a->predicate, b->predicate))
		return false;
	for (int i = 0; i < a->num_columns; i++)
		if (!same_key(&a->columns[i], &b->columns[i]) ||
			a->columns[i].opclass != b->columns[i].opclass ||
			a->columns[i].options != b->columns[i].options)
			return false;
	return true;
}

static bool
hash_walker(Node *node, uint64 *hash)
{
	if (node == NULL)
		return false;
	*hash = hash_combine64(*hash, nodeTag(node));
	if (IsA(node, Var))
		*hash = hash_combine64(*hash, ((Var *) node)->varattno);
	else if (IsA(node, Const) && !((Const *) node)->constisnull)
		*hash = hash_combine64(*hash, datum_image_hash(((Const *) node)->constvalue,
													   ((Const *) node)->constbyval,
													   ((Const *) node)->constlen));
	return expression_tree_walker(node, hash_walker, hash);
}

/* Of equal ones it is the same. */
uint64
perfopt_index_spec_hash(const IndexSpec *spec)
{
	uint64		hash = hash_combine64(spec->relid, spec->am);

	for (int i = 0; i < spec->num_columns; i++)
	{
		hash = hash_combine64(hash, ((uint64) spec->columns[i].opclass << 32) |
							  (uint16) spec->columns[i].attnum);
		(void) hash_walker(spec->columns[i].expr, &hash);
	}
	(void) hash_walker((Node *) spec->predicate, &hash);
	return hash;
}

static bool
has_column(const IndexSpec *spec, AttrNumber attnum)
{
	for (int i = 0; i < spec->num_columns; i++)
		if (spec->columns[i].attnum == attnum)
			return true;
	return false;
}

/* Has a family all operators of the other one? */
static bool
has_operators(Oid opfamily, Oid wanted)
{
	CatCList   *members;
	bool		all = true;

	if (opfamily == wanted)
		return true;
	members = SearchSysCacheList1(AMOPSTRATEGY, ObjectIdGetDatum(wanted));
	for (int i = 0; i < members->n_members && all; i++)
	{
		Form_pg_amop member = (Form_pg_amop) GETSTRUCT(&members->members[i]->tuple);

		all = op_in_opfamily(member->amopopr, opfamily);
	}
	all = all && members->n_members > 0;
	ReleaseSysCacheList(members);
	return all;
}

/* Without an order, each key counts for itself. */
static bool
has_key(const IndexSpec *spec, const IndexColumn *wanted)
{
	for (int i = 0; i < spec->num_keys; i++)
	{
		const IndexColumn *key = &spec->columns[i];

		if (key->attnum == wanted->attnum && equal(key->expr, wanted->expr) &&
			key->collation == wanted->collation &&
			has_operators(key->opfamily, wanted->opfamily))
			return true;
	}
	return false;
}

bool
perfopt_index_spec_serves(const IndexSpec *by, const IndexSpec *wanted)
{
	const int16 both = INDOPTION_DESC | INDOPTION_NULLS_FIRST;
	int16		turned = 0;		/* to be read backward? */

	if (by->relid != wanted->relid || by->am != wanted->am ||
		by->num_keys < wanted->num_keys)
		return false;
	for (int i = 0; i < wanted->num_keys && wanted->am != BTREE_AM_OID; i++)
		if (!has_key(by, &wanted->columns[i]))
			return false;
	for (int i = 0; i < wanted->num_keys && wanted->am == BTREE_AM_OID; i++)
	{
		if (!same_key(&by->columns[i], &wanted->columns[i]))
			return false;
		if (wanted->any_direction)
			continue;
		if (i == 0)
			turned = by->columns[i].options ^ wanted->columns[i].options;
		if ((turned != 0 && turned != both) ||
			turned != (by->columns[i].options ^ wanted->columns[i].options))
			return false;
	}
	for (int i = wanted->num_keys; i < wanted->num_columns; i++)
		if (!has_column(by, wanted->columns[i].attnum))
			return false;
	return by->predicate == NIL || equal(by->predicate, wanted->predicate) ||
		(wanted->predicate != NIL &&
		 perfopt_expression_is_builtin((Node *) by->predicate) && perfopt_expression_is_builtin((Node *) wanted->predicate) &&
		 predicate_implied_by(by->predicate, wanted->predicate, false));
}

/*
 * Against the catalogs
 */
static bool
has_type(TupleDesc desc, AttrNumber attnum, Oid type)
{
	return attnum <= desc->natts && !TupleDescAttr(desc, attnum - 1)->attisdropped &&
		TupleDescAttr(desc, attnum - 1)->atttypid == type;
}

bool
perfopt_index_spec_fits(const IndexSpec *spec, Relation relation)
{
	TupleDesc	desc = RelationGetDescr(relation);
	List	   *vars = pull_var_clause((Node *) spec->predicate, 0);
	ListCell   *lc;

	for (int i = 0; i < spec->num_columns; i++)
	{
		const IndexColumn *column = &spec->columns[i];

		if (column->attnum == 0)
			vars = list_concat(vars, pull_var_clause(column->expr, 0));
		else if (!has_type(desc, column->attnum, column->type))
			return false;
	}
	foreach(lc, vars)
	{
		Var		   *var = lfirst_node(Var, lc);

		if (var->varattno > 0 && !has_type(desc, var->varattno, var->vartype))
			return false;
	}
	list_free(vars);
	return true;
}

Relation
perfopt_index_spec_open(const IndexSpec *spec)
{
	Relation	relation;

	if (!ConditionalLockRelationOid(spec->relid, AccessShareLock))
		return NULL;
	relation = try_relation_open(spec->relid, NoLock);
	if (relation == NULL)
	{
		UnlockRelationOid(spec->relid, AccessShareLock);
		return NULL;
	}
	if (!perfopt_index_spec_fits(spec, relation))
	{
		relation_close(relation, AccessShareLock);
		return NULL;
	}
	return relation;
}

/*
 * The indexes are looked at in the catalogs, without a lock: a REINDEX keeps
 * its one for long.
 */
bool
perfopt_index_exists(Relation relation, const IndexSpec *spec)
{
	List	   *indexes = RelationGetIndexList(relation);
	ListCell   *lc;
	bool		exists = false;

	foreach(lc, indexes)
	{
		IndexSpec  *existing = perfopt_index_spec_of_index(lfirst_oid(lc));

		exists = existing != NULL && perfopt_index_spec_serves(existing, spec);
		if (exists)
			break;
	}
	list_free(indexes);
	return exists;
}
