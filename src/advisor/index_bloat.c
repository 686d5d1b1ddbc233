/*
 * index_bloat.c
 *		Indexes much larger than they would be if they were built now.
 *
 * What a fresh one would take is what index_size.c says of a hypothetical index,
 * by a sample of the table's rows; without a sample nothing is said.  A tree that
 * is filled at random is a third larger than a fresh one and stays so: only twice
 * the size counts.  What has been found out of an index is remembered in this
 * process, until it or its table's number of rows is another by a tenth.
 */
#include "postgres.h"

#include "advisor/survey_internal.h"

#include <math.h>

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* It is this many times as large as it needs to be, and so much too large. */
#define BLOATED			2.0
#define MIN_WASTED		(8.0 * 1024 * 1024)

/* Indexes remembered. */
#define MOST_KNOWN		10000

typedef struct KnownIndex
{
	Oid			oid;
	double		pages;
	double		table_rows;
	double		fresh_pages;	/* negative: not known */
} KnownIndex;

static HTAB *known = NULL;

static const char *const find_large =
"SELECT c.oid AS oid, n.nspname::text AS schema_name, t.relname::text AS table_name,"
"  c.relname::text AS name, coalesce(o.fillfactor, 0)::float8 AS fillfactor,"
"  t.reltuples::float8 AS table_rows"
" FROM" INDEX_TABLES
" CROSS JOIN LATERAL (SELECT max(option_value::float8) FILTER (WHERE option_name = 'fillfactor') AS fillfactor,"
"   coalesce(bool_or(option_name = 'deduplicate_items'), false) AS odd"
"  FROM pg_options_to_table(c.reloptions)) o"
" WHERE i.indisvalid AND i.indisready AND NOT i.indisexclusion AND NOT o.odd"
"  AND c.relpages::float8 * current_setting('block_size')::float8 >= $1 AND" INDEX_OF_USER
" ORDER BY c.relpages DESC, c.oid";

/* Pages of a relation; negative: it can't be locked now. */
static double
pages_of(Oid relid)
{
	Relation	relation;
	double		pages;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return -1;
	relation = try_relation_open(relid, NoLock);
	if (relation == NULL)
	{
		UnlockRelationOid(relid, AccessShareLock);
		return -1;
	}
	pages = RelationGetNumberOfBlocks(relation);
	relation_close(relation, AccessShareLock);
	return pages;
}

static bool
nearly(double a, double b)
{
	return fabs(a - b) <= 0.1 * Max(b, 1);
}

/* Pages that a fresh one would take; negative: it can't be told. */
static double
fresh_pages(Oid index, int fillfactor)
{
	IndexSpec  *spec = perfopt_index_spec_of_index(index);
	Relation	relation;
	double		table_rows = -1;
	IndexEntries entries;
	IndexSize	size = {0};
	bool		sampled = false;

	if (spec == NULL || spec->am != BTREE_AM_OID ||
		(fillfactor != 0 && perfopt_index_spec_set_fillfactor(spec, fillfactor) != NULL))
		return -1;
	relation = perfopt_index_spec_open(spec);
	if (relation == NULL)
		return -1;
	if (perfopt_index_entries(relation, spec, &table_rows, &entries))
	{
		perfopt_index_size(relation, table_rows, spec, &entries, &size);
		sampled = size.possible;
	}
	relation_close(relation, AccessShareLock);
	return sampled ? size.pages : -1;
}

static KnownIndex *
lookup(Oid index, double pages, double table_rows)
{
	KnownIndex *entry;
	bool		found;

	if (known && hash_get_num_entries(known) >= MOST_KNOWN)
	{
		hash_destroy(known);
		known = NULL;
	}
	if (known == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(KnownIndex),.hcxt = TopMemoryContext};

		known = hash_create("perfopt sizes of indexes", 128, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(known, &index, HASH_ENTER, &found);
	if (!found || !nearly(pages, entry->pages) || !nearly(table_rows, entry->table_rows))
	{
		/* pages of -1 fit nothing, should what follows fail */
		entry->pages = entry->table_rows = -1;
		entry->fresh_pages = -1;
	}
	return entry;
}

bool
survey_bloated_indexes(Survey *survey, List **reindex)
{
	Oid			types[] = {FLOAT8OID};
	Datum		values[] = {Float8GetDatum(MIN_WASTED)};
	SurveyRows *rows = survey_query(find_large, 1, types, values, NULL);
	bool		complete = true;
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "perfopt index bloat",
											   ALLOCSET_DEFAULT_SIZES);

	for (int i = 0; i < rows->num; i++)
	{
		Oid			oid = survey_oid(rows, i, "oid");
		double		pages = pages_of(oid);
		double		table_rows = survey_number(rows, i, "table_rows");
		char	   *schema_name = survey_text(rows, i, "schema_name");
		char	   *name = survey_text(rows, i, "name");
		KnownIndex *entry;
		double		wasted;
		AdviceFound *found;

		if (pages < 0)
		{
			complete = false;
			continue;
		}
		entry = lookup(oid, pages, table_rows);
		if (entry->pages < 0)
		{
			MemoryContext old_context;
			double		fresh;

			if (survey_out_of_time(survey))
			{
				complete = false;
				continue;
			}
			old_context = MemoryContextSwitchTo(work);
			fresh = fresh_pages(oid, (int) survey_number(rows, i, "fillfactor"));
			MemoryContextSwitchTo(old_context);
			MemoryContextReset(work);
			entry->fresh_pages = fresh;
			entry->pages = pages;
			entry->table_rows = table_rows;
		}
		wasted = (pages - entry->fresh_pages) * BLCKSZ;
		if (entry->fresh_pages < 0 || wasted < MIN_WASTED || pages < entry->fresh_pages * BLOATED)
			continue;
		found = survey_found("reindex", schema_name, survey_text(rows, i, "table_name"));
		found->definition = name;
		found->index_name = name;
		found->ddl = psprintf("REINDEX INDEX CONCURRENTLY %s", quote_qualified_identifier(schema_name, name));
		found->bytes = wasted;
		found->reason =
			psprintf("Index %s takes %s, and about %s when it is built anew.",
					 quote_qualified_identifier(schema_name, name),
					 survey_readable_bytes(pages * BLCKSZ), survey_readable_bytes(entry->fresh_pages * BLCKSZ));
		found->evidence = psprintf("{\"cause\": \"bloated\", \"bytes\": %.0f, \"fresh_bytes\": %.0f, \"queries\": []}",
								   pages * BLCKSZ, entry->fresh_pages * BLCKSZ);
		*reindex = lappend(*reindex, found);
	}
	MemoryContextDelete(work);
	return complete;
}
