/*
 * types.c
 *		What values of types of users mean: which definitions decide what a
 *		composite value looks like and which values a domain accepts, for not
 *		all of them are in a plan.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

static void
add_definition(CacheTypes *types, CacheDefinition definition)
{
	types->definitions = list_append_unique_int(types->definitions, definition);
}

void
cache_types_add(CacheTypes *types, Oid type)
{
	HeapTuple	tuple;
	Form_pg_type form;

	check_stack_depth();
	if (type < FirstNormalObjectId || list_member_oid(types->seen, type) ||
		!HeapTupleIsValid(tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type))))
		return;
	form = (Form_pg_type) GETSTRUCT(tuple);
	if (isAnyTempNamespace(form->typnamespace))
		types->temporary = type;
	types->seen = lappend_oid(types->seen, type);
	add_definition(types, cache_definition_of_item(TYPEOID,
												   GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(type))));
	if (form->typtype == TYPTYPE_DOMAIN)
		cache_types_add(types, form->typbasetype);
	else if (form->typtype == TYPTYPE_RANGE)
		cache_types_add(types, get_range_subtype(type));
	else if (form->typtype == TYPTYPE_MULTIRANGE)
		cache_types_add(types, get_multirange_range(type));
	else if (OidIsValid(form->typelem))
		cache_types_add(types, form->typelem);
	else if (OidIsValid(form->typrelid))
	{
		TupleDesc	desc = lookup_rowtype_tupdesc_copy(type, -1);

		add_definition(types, cache_definition_of_relation(form->typrelid));
		for (int i = 0; i < desc->natts; i++)
			if (!TupleDescAttr(desc, i)->attisdropped)
				cache_types_add(types, TupleDescAttr(desc, i)->atttypid);
	}
	ReleaseSysCache(tuple);
}
