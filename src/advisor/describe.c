/*
 * describe.c
 *		What is told of an index that was chosen.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

static bool
is_taken(List *taken, const char *name)
{
	ListCell   *lc;

	foreach(lc, taken)
		if (strcmp(lfirst(lc), name) == 0)
		return true;
	return false;
}

static int
stem_length(const char *name)
{
	int			len = strlen(name);

	return pg_mbcliplen(name, len, Min(len, NAMEDATALEN - 8));
}

char *
perfopt_name_stem(const IndexSpec *spec, Relation relation)
{
	char	   *name = perfopt_index_spec_name(spec, relation);

	return pnstrdup(name, stem_length(name));
}

char *
perfopt_name_once(const IndexSpec *spec, Relation relation, List **taken)
{
	char	   *first = perfopt_index_spec_name(spec, relation);
	char	   *name = first;

	for (int i = 1; is_taken(*taken, name); i++)
		name = psprintf("%.*s%d", stem_length(first), first, i);
	*taken = lappend(*taken, name);
	return name;
}

const char *
perfopt_describe_needs(const IndexSpec *spec)
{
	return spec->extension == NULL ? "" :
		psprintf("It needs the extension %s, which is not installed: run CREATE EXTENSION %s first.",
				 spec->extension, spec->extension);
}

bool
perfopt_is_only_access_path(Oid index)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	bool		only = false;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);

		only = !form->indisunique && !form->indisexclusion && !form->indisreplident &&
			!form->indisclustered && form->indisvalid;
		ReleaseSysCache(tuple);
	}
	return only;
}

static double
pages_of(Oid index)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(index));
	double		pages = 0;

	if (HeapTupleIsValid(tuple))
	{
		pages = ((Form_pg_class) GETSTRUCT(tuple))->relpages;
		ReleaseSysCache(tuple);
	}
	return pages;
}

/* They are looked at in the catalogs, without a lock. */
List *
perfopt_superseded_by(const IndexSpec *spec, Relation relation, double *bytes)
{
	List	   *indexes = RelationGetIndexList(relation);
	List	   *names = NIL;
	ListCell   *lc;

	*bytes = 0;
	foreach(lc, indexes)
	{
		IndexSpec  *existing = perfopt_index_spec_of_index(lfirst_oid(lc));
		char	   *name;

		if (existing == NULL || !perfopt_is_only_access_path(lfirst_oid(lc)) ||
			!perfopt_index_spec_serves(spec, existing))
			continue;
		name = get_rel_name(lfirst_oid(lc));
		if (name == NULL)
			continue;
		names = lappend(names, quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
														  name));
		*bytes += pages_of(lfirst_oid(lc)) * BLCKSZ;
	}
	list_free(indexes);
	return names;
}

char *
perfopt_readable_ms(double ms)
{
	return ms >= 100 ? psprintf("%.0f ms", ms) :
		ms >= 1 ? psprintf("%.1f ms", ms) : psprintf("%.2g ms", Max(ms, 0.001));
}

double
perfopt_rounded_share(double share)
{
	return strtod(psprintf("%.3g", share), NULL);
}
