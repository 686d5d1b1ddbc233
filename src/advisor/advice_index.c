/*
 * advice_index.c
 *		From an advice, which is kept by names and as a text, to the table and
 *		the index that it is for, and back.
 *
 * To make an index of a definition is to have the parser analyse it.  That runs
 * with the rights of the extension's owner, on names that others may have given
 * to something else by now, so nothing of theirs may be called: types' input
 * functions are, on literals, and those of a domain or of a composite type run
 * what its owner likes.  A definition with a literal of such a type is not
 * looked into.  Everything else that the parser does calls nothing.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/try.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_type.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* A row of the table holds so much, and so does a job. */
#define MAX_DEFINITION	6000

bool
perfopt_advice_index_is_trusted(const IndexSpec *spec, Relation relation)
{
	Oid			owner = relation->rd_rel->relowner;

	for (int i = 0; i < spec->num_columns; i++)
		if (spec->columns[i].expr &&
			!perfopt_expression_is_trusted(spec->columns[i].expr, owner))
			return false;
	return spec->predicate == NIL ||
		perfopt_expression_is_trusted((Node *) spec->predicate, owner);
}

static char *
drop_statement(Relation relation, const char *index_name)
{
	return psprintf("DROP INDEX %s%s",
					relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "CONCURRENTLY ",
					quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
											   index_name));
}

/* Names that other advice has for indexes still to be made in this schema, that begin so. */
static List *
names_advised(const AdviceFound *found, const char *stem)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[5];
	List	   *names = NIL;

	values[0] = CStringGetTextDatum(found->schema_name);
	values[1] = CStringGetTextDatum(found->table_name);
	values[2] = CStringGetTextDatum(found->definition);
	values[3] = CStringGetTextDatum(found->kind);
	values[4] = CStringGetTextDatum(stem);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args("SELECT index_name FROM perfopt.advice_item"
							  " WHERE schema_name = $1 AND starts_with(index_name, $5)"
							  " AND kind IN ('create_index', 'index_foreign_key')"
							  " AND status IN ('open', 'queued', 'applying', 'failed')"
							  " AND NOT (table_name = $2 AND definition = $3 AND kind = $4)",
							  5, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read advice");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *name = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		MemoryContext old_context = MemoryContextSwitchTo(context);

		names = lappend(names, pstrdup(name));
		MemoryContextSwitchTo(old_context);
	}
	SPI_finish();
	return names;
}

static bool
name_index(AdviceFound *found, const IndexSpec *spec, List *others)
{
	Relation	relation = perfopt_index_spec_open(spec);
	List	   *taken;
	char	   *stem;
	ListCell   *lc;
	bool		good;
	bool		gone;

	if (relation == NULL)
		return false;
	if (!perfopt_advice_index_is_trusted(spec, relation))
	{
		relation_close(relation, AccessShareLock);
		return false;
	}
	found->schema_name = get_namespace_name(RelationGetNamespace(relation));
	found->table_name = pstrdup(RelationGetRelationName(relation));
	if (found->schema_name)
	{
		found->definition = perfopt_index_spec_definition(spec, relation);
		stem = perfopt_name_stem(spec, relation);
		taken = names_advised(found, stem);
		foreach(lc, others)
		{
			const AdviceFound *other = lfirst(lc);

			if (other->index_name && strncmp(other->index_name, stem, strlen(stem)) == 0 &&
				strcmp(other->schema_name, found->schema_name) == 0)
				taken = lappend(taken, other->index_name);
		}
		found->index_name = perfopt_name_once(spec, relation, &taken);
		if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
			found->ddl = perfopt_index_ddl_of_parent(found->index_name, found->schema_name,
													 found->table_name, found->definition);
		else
			found->ddl = perfopt_index_ddl(found->index_name, found->schema_name,
										   found->table_name, found->definition);
		found->undo = drop_statement(relation, found->index_name);
	}
	good = found->schema_name != NULL && strlen(found->definition) <= MAX_DEFINITION &&
		perfopt_advice_index_spec(relation, found->definition, &gone) != NULL;
	relation_close(relation, AccessShareLock);
	return good;
}

/* What is parsed and written for it does not stay: there may be a lot of advice. */
bool
perfopt_advice_name_index(AdviceFound *found, const IndexSpec *spec, List *others)
{
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "perfopt name of an index",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(work);
	bool		good = name_index(found, spec, others);

	MemoryContextSwitchTo(caller);
	if (good)
	{
		found->schema_name = pstrdup(found->schema_name);
		found->table_name = pstrdup(found->table_name);
		found->definition = pstrdup(found->definition);
		found->index_name = pstrdup(found->index_name);
		found->ddl = pstrdup(found->ddl);
		found->undo = pstrdup(found->undo);
	}
	MemoryContextDelete(work);
	return good;
}

Oid
perfopt_advice_table(const char *schema_name, const char *table_name)
{
	Oid			namespace = get_namespace_oid(schema_name, true);
	Oid			relid = OidIsValid(namespace) ?
	get_relname_relid(table_name, namespace) : InvalidOid;

	switch (OidIsValid(relid) ? get_rel_relkind(relid) : '\0')
	{
		case RELKIND_RELATION:
		case RELKIND_MATVIEW:
		case RELKIND_PARTITIONED_TABLE:
			return relid;
		default:
			return InvalidOid;
	}
}

/*
 * Does the type's input function run nobody else's code?  Nor may somebody else drop
 * the type and make another one of its name, before the index is built.
 */
static bool
input_is_trusted(Oid type, Oid table_owner)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Form_pg_type form;
	bool		trusted;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_type) GETSTRUCT(tuple);
	if (IsTrueArrayType(form))
		trusted = input_is_trusted(form->typelem, table_owner);
	else if (form->typtype == TYPTYPE_BASE)
		trusted = superuser_arg(form->typowner);
	else
		trusted = (form->typtype == TYPTYPE_ENUM &&
				   (superuser_arg(form->typowner) || has_privs_of_role(form->typowner, table_owner))) ||
			(type < FirstNormalObjectId &&
			 (form->typtype == TYPTYPE_RANGE || form->typtype == TYPTYPE_MULTIRANGE));
	ReleaseSysCache(tuple);
	return trusted;
}

/*
 * Strings stand under a cast that names their type, or are of none: that is how
 * definitions are written.
 */
static bool
distrusted_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, TypeCast))
	{
		TypeCast   *cast = (TypeCast *) node;
		Oid			type = LookupTypeNameOid(NULL, cast->typeName, true);

		if (!OidIsValid(type) || !input_is_trusted(type, *(Oid *) context))
			return true;
		return IsA(cast->arg, A_Const) ? false : distrusted_walker(cast->arg, context);
	}
	if (IsA(node, A_Const))
		return !((A_Const *) node)->isnull && IsA(&((A_Const *) node)->val, String);
	return raw_expression_tree_walker(node, distrusted_walker, context);
}

typedef struct Analysis
{
	const char *ddl;
	Oid			table_owner;
	bool		trusted;
	IndexSpec  *spec;
} Analysis;

static void
analyse(void *arg)
{
	Analysis   *analysis = arg;
	List	   *raw = pg_parse_query(analysis->ddl);
	IndexStmt  *stmt;
	ListCell   *lc;
	Oid			user;
	int			sec_context;

	if (list_length(raw) != 1 || !IsA(linitial_node(RawStmt, raw)->stmt, IndexStmt))
		ereport(ERROR, errcode(ERRCODE_SYNTAX_ERROR), errmsg("not the definition of an index"));
	stmt = (IndexStmt *) linitial_node(RawStmt, raw)->stmt;
	analysis->trusted = !distrusted_walker(stmt->whereClause, &analysis->table_owner);
	foreach(lc, stmt->indexParams)
		analysis->trusted = analysis->trusted &&
		!distrusted_walker(lfirst_node(IndexElem, lc)->expr, &analysis->table_owner);
	if (!analysis->trusted)
		return;

	/* a type may be another one since; an error restores who we are */
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(analysis->table_owner, sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	analysis->spec = perfopt_index_spec_parse(analysis->ddl);
	SetUserIdAndSecContext(user, sec_context);
}

/*
 * The table is locked, so the parser's own lock on it is had at once; it would
 * keep that until the end of the transaction.
 */
IndexSpec *
perfopt_advice_index_spec(Relation relation, const char *definition, bool *gone)
{
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "perfopt definition of an index",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(work);
	Analysis	analysis = {.table_owner = relation->rd_rel->relowner};
	ErrorData  *error;
	IndexSpec  *spec = NULL;

	analysis.ddl = psprintf("CREATE INDEX ON %s %s",
							quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
													   RelationGetRelationName(relation)),
							definition);
	error = perfopt_try(work, analyse, &analysis);
	MemoryContextSwitchTo(caller);
	if (error && (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
				  ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES))
		ReThrowError(error);
	if (error == NULL && analysis.spec)
	{
		spec = perfopt_index_spec_copy(analysis.spec);
		UnlockRelationOid(spec->relid, AccessShareLock);
	}
	*gone = error != NULL;
	MemoryContextDelete(work);
	return spec;
}

static bool
is_unique(Oid index)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	bool		unique = HeapTupleIsValid(tuple) && ((Form_pg_index) GETSTRUCT(tuple))->indisunique;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return unique;
}

bool
perfopt_advice_is_index(Oid index, const IndexSpec *spec)
{
	IndexSpec  *existing = perfopt_index_spec_of_index(index);

	return existing != NULL &&
		existing->num_keys == spec->num_keys && existing->num_columns == spec->num_columns &&
		perfopt_index_spec_serves(existing, spec) && perfopt_index_spec_serves(spec, existing);
}

/*
 * An index is there that serves: if it is this very one, whatever its name, it
 * is known by its name from now on, and can be taken back.  What only happens to
 * serve, too, is no business of ours.
 */
void
perfopt_advice_adopt_index(Relation relation, const IndexSpec *spec, char **index_name,
						   char **undo)
{
	List	   *indexes = RelationGetIndexList(relation);
	ListCell   *lc;

	*index_name = *undo = NULL;
	foreach(lc, indexes)
	{
		if (!perfopt_advice_is_index(lfirst_oid(lc), spec))
			continue;
		*index_name = get_rel_name(lfirst_oid(lc));
		if (*index_name && !is_unique(lfirst_oid(lc)))
			*undo = drop_statement(relation, *index_name);
	}
	list_free(indexes);
}
