/*
 * trust.c
 *		Whose functions and operators an expression calls.
 *
 * Expressions of statements and definitions are whatever somebody has written.
 * They are looked into before anything of them is called.
 */
#include "postgres.h"

#include "advisor/index_spec.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

typedef struct Trust
{
	bool		builtin_only;
	Oid			role;			/* its functions too, if valid */
} Trust;

static bool
function_distrusted(Oid function, void *context)
{
	Trust	   *trust = context;
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;
	bool		trusted;

	if (!HeapTupleIsValid(tuple))
		return true;
	form = (Form_pg_proc) GETSTRUCT(tuple);
	trusted = form->provolatile == PROVOLATILE_IMMUTABLE &&
		(trust->builtin_only ? function < FirstNormalObjectId :
		 superuser_arg(form->proowner) ||
		 (OidIsValid(trust->role) && form->proowner == trust->role));
	ReleaseSysCache(tuple);
	return !trusted;
}

/* A domain's constraints may call anything. */
static bool
distrust_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, function_distrusted, context))
		return true;
	switch (nodeTag(node))
	{
		case T_List:
			break;
		case T_Var:
		case T_Const:
			return false;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_ScalarArrayOpExpr:
		case T_FuncExpr:
		case T_CoerceViaIO:
			if (get_typtype(exprType(node)) == TYPTYPE_DOMAIN)
				return true;
			break;
		case T_BoolExpr:
		case T_RelabelType:
		case T_CollateExpr:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CaseTestExpr:
		case T_CoalesceExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_MinMaxExpr:
		case T_ArrayExpr:
		case T_ArrayCoerceExpr:
		case T_SubscriptingRef:
			break;
		default:
			return true;
	}
	return expression_tree_walker(node, distrust_walker, context);
}

bool
perfopt_expression_is_trusted(Node *node, Oid role)
{
	Trust		trust = {.role = role};

	return !distrust_walker(node, &trust);
}

bool
perfopt_expression_is_builtin(Node *node)
{
	Trust		trust = {.builtin_only = true};

	return !distrust_walker(node, &trust);
}

/* ANALYZE has a range type's own function say how far apart its values are. */
bool
perfopt_type_is_trusted(Oid type, Oid role)
{
	Trust		trust = {.role = role};
	Oid			range = getBaseType(type);
	Oid			function;

	if (get_typtype(range) == TYPTYPE_MULTIRANGE)
		range = get_multirange_range(range);
	function = lookup_type_cache(range, TYPECACHE_RANGE_INFO)->rng_subdiff_finfo.fn_oid;
	return !OidIsValid(function) || !function_distrusted(function, &trust);
}
