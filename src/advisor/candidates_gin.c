/*
 * candidates_gin.c
 *		The GIN indexes that would serve the conditions a statement has on a
 *		relation: of what is in a document, an array or a text.
 *
 * An operator class of GIN comes into question when it has the condition's
 * operator, and no btree has it.  That may be the default one of the type, and:
 *
 * - jsonb_path_ops, which is smaller and has fewer operators;
 * - gin_trgm_ops of pg_trgm, for patterns; also if that is not installed but
 *	 could be, then of one condition for itself.
 *
 * Conditions may have one index together, beside one each: those that all must
 * hold, and arms of ORs, as a scan of it may look for any of its keys.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/candidates.h"
#include "advisor/trigrams.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Conditions looked at of one relation. */
#define MAX_GIN_USES		8

/* A condition, and a class that has its operator. */
typedef struct GinUse
{
	Node	   *expr;			/* over the table as varno 1 */
	Oid			collation;
	Oid			opclass;		/* InvalidOid: gin_trgm_ops, if it were there */
	bool		of_constants;
	bool		of_arm;			/* of an OR */
} GinUse;

typedef struct GinUses
{
	const RelationUses *uses;
	List	   *list;			/* GinUse * */
} GinUses;

/*
 * A class of GIN by its name; its owner, as the extension's, is a superuser.  The
 * name may be in any schema.
 */
static Oid
opclass_named(const char *name, Oid type, bool builtin)
{
	CatCList   *members = SearchSysCacheList1(CLAAMNAMENSP, ObjectIdGetDatum(GIN_AM_OID));
	Oid			found = InvalidOid;

	for (int i = 0; i < members->n_members; i++)
	{
		Form_pg_opclass form = (Form_pg_opclass) GETSTRUCT(&members->members[i]->tuple);

		if (form->opcintype == type && strcmp(NameStr(form->opcname), name) == 0 &&
			(form->oid < FirstNormalObjectId) == builtin)
			found = form->oid;
	}
	ReleaseCatCacheList(members);
	return found;
}

/* What a text must begin with, to be found by a btree of patterns. */
static bool
is_prefix_pattern(Oid opno, Node *pattern)
{
	Const	   *constant = (Const *) pattern;
	char	   *like;
	size_t		fixed;
	bool		prefix;

	if (opno != OID_TEXT_LIKE_OP || !IsA(pattern, Const) || constant->constisnull)
		return false;
	like = TextDatumGetCString(constant->constvalue);
	fixed = strcspn(like, "%_\\");
	prefix = fixed > 0 && like[fixed + strspn(like + fixed, "%")] == '\0';
	pfree(like);
	return prefix;
}

static bool
has_operator(Oid opclass, Oid opno)
{
	return OidIsValid(opclass) && op_in_opfamily(opno, get_opclass_family(opclass));
}

static void
add_use(GinUses *found, Node *key, Oid opclass, bool of_constants, bool of_arm)
{
	GinUse	   *use;

	if (list_length(found->list) >= MAX_GIN_USES)
		return;
	use = palloc(sizeof(GinUse));
	use->expr = key;
	use->collation = exprCollation(key);
	use->opclass = opclass;
	use->of_constants = of_constants;
	use->of_arm = of_arm;
	found->list = lappend(found->list, use);
}

static bool
is_text(Oid type)
{
	type = getBaseType(type);
	return type == TEXTOID || type == VARCHAROID;
}

/* False: not this way round. */
static bool
read_operator(GinUses *found, Oid opno, Node *left, Node *right, Oid collation, bool of_arm)
{
	bool		of_constants;
	Node	   *key;
	Oid			type;
	Oid			btree;
	Oid			classes[3];
	bool		any = false;

	if (!OidIsValid(opno) ||
		bms_is_member(found->uses->rel->relid, pull_varnos(found->uses->root, right)) ||
		contain_volatile_functions(right) ||
		(key = perfopt_collect_key(found->uses, left, &of_constants)) == NULL ||
		IsA(key, ArrayExpr))
		return false;
	type = exprType(key);
	btree = GetDefaultOpClass(type, BTREE_AM_OID);
	if (has_operator(btree, opno))
		return false;

	classes[0] = type == JSONBOID ? opclass_named("jsonb_path_ops", type, true) : InvalidOid;
	classes[1] = GetDefaultOpClass(type, GIN_AM_OID);
	classes[2] = is_text(type) && !is_prefix_pattern(opno, right) ?
		opclass_named("gin_trgm_ops", TEXTOID, false) : InvalidOid;
	for (int i = 0; i < lengthof(classes); i++)
	{
		if (!has_operator(classes[i], opno))
			continue;
		add_use(found, key, classes[i], of_constants, of_arm);
		any = true;
	}
	if (!any && !of_arm && is_text(type) && perfopt_trigram_operator(opno) &&
		!is_prefix_pattern(opno, right) && perfopt_trigrams_missing())
	{
		add_use(found, key, InvalidOid, of_constants, of_arm);
		any = true;
	}
	return any;
}

static void
read_clause(GinUses *found, RestrictInfo *rinfo, bool of_arm)
{
	OpExpr	   *op = (OpExpr *) rinfo->clause;

	if (rinfo->pseudoconstant || !IsA(op, OpExpr) || list_length(op->args) != 2)
		return;
	if (!read_operator(found, op->opno, linitial(op->args), lsecond(op->args),
					   op->inputcollid, of_arm))
		(void) read_operator(found, get_commutator(op->opno), lsecond(op->args),
							 linitial(op->args), op->inputcollid, of_arm);
}

static void
read_or(GinUses *found, RestrictInfo *rinfo)
{
	ListCell   *lc;
	ListCell   *part;

	foreach(lc, ((BoolExpr *) rinfo->orclause)->args)
	{
		Node	   *arm = lfirst(lc);

		if (IsA(arm, RestrictInfo))
			read_clause(found, (RestrictInfo *) arm, true);
		else if (is_andclause(arm))
			foreach(part, ((BoolExpr *) arm)->args)
				if (IsA(lfirst(part), RestrictInfo))
				read_clause(found, lfirst(part), true);
	}
}

/* An index of all that are listed. */
static void
make_spec(const GinUses *found, List *list, CandidateList *candidates)
{
	MemoryContext old_context;
	IndexSpec  *spec;
	const char *problem = NULL;
	ListCell   *lc;

	old_context = MemoryContextSwitchTo(candidates->context);
	spec = perfopt_index_spec_create(found->uses->relid, GIN_AM_OID);
	foreach(lc, list)
	{
		GinUse	   *use = lfirst(lc);

		problem = OidIsValid(use->opclass) ?
			perfopt_index_spec_add_key(spec, copyObject(use->expr), use->opclass,
									   use->collation, 0) :
			perfopt_index_spec_add_trigrams(spec, copyObject(use->expr), use->collation);
		if (problem)
			break;
		spec->of_constants = spec->of_constants || use->of_constants;
	}
	spec->any_direction = true;
	if (problem == NULL)
	{
		spec->columns = repalloc(spec->columns, sizeof(IndexColumn) * spec->num_columns);
		(void) perfopt_candidates_add(candidates, spec);
	}
	else
	{
		pfree(spec->columns);
		pfree(spec);
	}
	MemoryContextSwitchTo(old_context);
}

/* Of each expression the first class. */
static List *
add_distinct(List *list, GinUse *use)
{
	ListCell   *lc;

	foreach(lc, list)
		if (equal(((GinUse *) lfirst(lc))->expr, use->expr))
		return list;
	return lappend(list, use);
}

void
perfopt_candidates_gin(const RelationUses *uses, CandidateList *candidates)
{
	GinUses		found = {.uses = uses};
	List	   *together = NIL;
	List	   *arms = NIL;
	ListCell   *lc;

	foreach(lc, uses->rel->baserestrictinfo)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);

		if (rinfo->orclause)
			read_or(&found, rinfo);
		else
			read_clause(&found, rinfo, false);
	}
	foreach(lc, uses->rel->joininfo)
		read_clause(&found, lfirst_node(RestrictInfo, lc), false);

	foreach(lc, found.list)
	{
		GinUse	   *use = lfirst(lc);

		make_spec(&found, list_make1(use), candidates);
		if (use->of_arm)
			arms = add_distinct(arms, use);
		else if (OidIsValid(use->opclass))
			together = add_distinct(together, use);
	}
	if (list_length(together) > 1)
		make_spec(&found, together, candidates);
	if (list_length(arms) > 1)
		make_spec(&found, arms, candidates);
}
