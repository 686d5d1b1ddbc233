/*
 * index_facts.c
 *		What is known of an index that does not exist: its size, and the
 *		statistics of its expressions.
 *
 * Facts are kept for some minutes in this process's memory, as sampling a table
 * takes longer than planning a statement.  They are looked up by table and
 * definition, and counted as old when the table has changed its shape or a tenth
 * of its rows.  What is too old or too much is given up all at once, and only
 * when a transaction first asks, as a plan in the making refers to facts.
 *
 * A session may change its role: what the rows have told one that may read them
 * is not for another that may not, nor are the guesses for the latter for it.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "common/compat.h"
#include "storage/bufmgr.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#define FACTS_LIFE_MS		(10 * 60 * 1000)
#define FACTS_KEPT			10000	/* of partitions, too */

/* Partitions that are sampled for an index of all of them. */
#define PARTITIONS_SAMPLED	8

/* No table has more rows. */
#define MOST_ROWS			((double) MaxBlockNumber * MaxHeapTuplesPerPage)

typedef struct KeptFacts
{
	IndexFacts	facts;			/* what is handed out; must be first */
	uint64		fingerprint;
	Oid			relfilenode;
	double		table_rows;
	bool		sampled;
	bool		may_sample;		/* who asked */
	bool		guarded;
	IndexSpec  *whole;			/* the partitioned table's, if it was asked
								 * for */
} KeptFacts;

/* By table. */
typedef struct TableFacts
{
	Oid			relid;
	List	   *kept;			/* KeptFacts * */
	List	   *of_partitions;	/* those with an index of this table as whole */
} TableFacts;

/* By number. */
typedef struct NumberedFacts
{
	Oid			id;
	KeptFacts  *facts;
} NumberedFacts;

static MemoryContext facts_context = NULL;
static HTAB *by_table = NULL;
static HTAB *by_id = NULL;
static TimestampTz kept_since = 0;
static LocalTransactionId kept_asked = 0;
static Oid	last_id = 0;

static void
open_facts(void)
{
	LocalTransactionId now = perfopt_my_local_xid();
	HASHCTL		table_ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(TableFacts)};
	HASHCTL		id_ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(NumberedFacts)};

	if (facts_context && now != kept_asked &&
		(hash_get_num_entries(by_id) >= FACTS_KEPT ||
		 TimestampDifferenceExceeds(kept_since, GetCurrentTimestamp(), FACTS_LIFE_MS)))
	{
		MemoryContextDelete(facts_context);
		facts_context = NULL;
	}
	kept_asked = now;
	if (facts_context == NULL)
	{
		facts_context = AllocSetContextCreate(TopMemoryContext, "perfopt index facts",
											  ALLOCSET_DEFAULT_SIZES);
		table_ctl.hcxt = id_ctl.hcxt = facts_context;
		by_table = hash_create("perfopt facts of tables", 64, &table_ctl,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		by_id = hash_create("perfopt facts by number", 256, &id_ctl,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		kept_since = GetCurrentTimestamp();
	}
}

static TableFacts *
facts_of_table(Oid relid)
{
	bool		found;
	TableFacts *facts = hash_search(by_table, &relid, HASH_ENTER, &found);

	if (!found)
		facts->kept = facts->of_partitions = NIL;
	return facts;
}

static void
keep(KeptFacts *facts)
{
	MemoryContext old_context = MemoryContextSwitchTo(facts_context);
	TableFacts *of_table = facts_of_table(facts->facts.spec->relid);
	NumberedFacts *numbered = hash_search(by_id, &facts->facts.id, HASH_ENTER, NULL);

	of_table->kept = lappend(of_table->kept, facts);
	numbered->facts = facts;
	MemoryContextSwitchTo(old_context);
}

static bool
still_holds(const KeptFacts *facts, Relation relation, double table_rows)
{
	return facts->fingerprint == perfopt_relation_fingerprint(relation) &&
		facts->relfilenode == relation->rd_rel->relfilenode &&
		fabs(facts->table_rows - table_rows) <= 0.1 * Max(facts->table_rows, 100);
}

static bool
evaluates(const IndexSpec *spec)
{
	for (int i = 0; i < spec->num_columns; i++)
		if (spec->columns[i].expr)
			return true;
	return spec->predicate != NIL;
}

/* Are they for who asks now?  More is evaluated under the guard of timeouts. */
static bool
asked_alike(const KeptFacts *facts, Relation relation)
{
	return facts->may_sample == perfopt_may_sample(relation) &&
		(facts->sampled || facts->guarded || !perfopt_what_if_guarded() ||
		 !evaluates(facts->facts.spec));
}

/*
 * Facts kept of this index; a table's unknown number of rows is what it was
 * then.
 */
static KeptFacts *
find_facts(Relation relation, double *table_rows, const IndexSpec *spec)
{
	ListCell   *lc;

	open_facts();
	foreach(lc, facts_of_table(spec->relid)->kept)
	{
		KeptFacts  *facts = lfirst(lc);

		if (!perfopt_index_spec_equal(facts->facts.spec, spec) || !asked_alike(facts, relation))
			continue;
		if (*table_rows < 0)
			*table_rows = facts->table_rows;
		if (still_holds(facts, relation, *table_rows))
			return facts;
	}
	return NULL;
}

/* In the current context. */
static KeptFacts *
make_facts(Relation relation, double table_rows, const IndexSpec *spec, const IndexSize *size,
		   HeapTuple *statistics)
{
	KeptFacts  *facts = palloc0(sizeof(KeptFacts));

	facts->fingerprint = perfopt_relation_fingerprint(relation);
	facts->relfilenode = relation->rd_rel->relfilenode;
	facts->table_rows = table_rows;
	facts->may_sample = perfopt_may_sample(relation);
	facts->guarded = perfopt_what_if_guarded();
	facts->facts.id = --last_id;
	facts->facts.spec = perfopt_index_spec_copy(spec);
	facts->facts.size = *size;
	if (statistics)
	{
		facts->facts.statistics = palloc0(sizeof(HeapTuple) * spec->num_columns);
		for (int i = 0; i < spec->num_columns; i++)
			if (statistics[i])
				facts->facts.statistics[i] = heap_copytuple(statistics[i]);
	}
	return facts;
}

static KeptFacts *
find_out(Relation relation, double table_rows, const IndexSpec *spec)
{
	IndexEntries entries = {0};
	IndexSize	size;
	KeptFacts  *facts;
	bool		sampled = false;
	MemoryContext old_context;
	MemoryContext work;

	work = AllocSetContextCreate(CurrentMemoryContext, "perfopt index facts in the making",
								 ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(work);
	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		perfopt_partitioned_index_size(spec, &table_rows, &size);
	else
	{
		sampled = perfopt_index_entries(relation, spec, &table_rows, &entries);
		table_rows = Max(table_rows, 0);
		perfopt_index_size(relation, table_rows, spec, sampled ? &entries : NULL, &size);
	}

	MemoryContextSwitchTo(facts_context);
	facts = make_facts(relation, table_rows, spec, &size, sampled ? entries.statistics : NULL);
	facts->sampled = sampled;
	keep(facts);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(work);
	return facts;
}

const IndexFacts *
perfopt_index_facts(Relation relation, double table_rows, const IndexSpec *spec)
{
	KeptFacts  *facts;

	/* an owner may have set the table's statistics to infinity, or NaN */
	table_rows = Min(table_rows, MOST_ROWS);

	facts = find_facts(relation, &table_rows, spec);
	if (facts == NULL)
		facts = find_out(relation, table_rows, spec);
	return &facts->facts;
}

/*
 * What partitions that were sampled have on average for a row; NULL: there are
 * not enough.
 */
static KeptFacts *
facts_of_siblings(Relation partition, double table_rows, const IndexSpec *spec,
				  const IndexSpec *whole)
{
	IndexSize	size = {.possible = true};
	KeptFacts  *nearest = NULL;
	KeptFacts  *facts;
	double		rows = 0;
	int			num = 0;
	ListCell   *lc;
	MemoryContext old_context;

	foreach(lc, facts_of_table(whole->relid)->of_partitions)
	{
		facts = lfirst(lc);
		if (!perfopt_index_spec_equal(facts->whole, whole) || !asked_alike(facts, partition))
			continue;
		num++;
		rows += facts->table_rows;
		size.pages += facts->facts.size.pages;
		size.tuples += facts->facts.size.tuples;
		size.keys += facts->facts.size.keys;
		size.data_pages += facts->facts.size.data_pages;
		size.possible = size.possible && facts->facts.size.possible;
		if (nearest == NULL ||
			fabs(facts->table_rows - table_rows) < fabs(nearest->table_rows - table_rows))
			nearest = facts;
	}
	if (num < PARTITIONS_SAMPLED)
		return NULL;
	if (table_rows < 0)
		table_rows = rows / num;
	size.pages = Max(rint(size.pages * table_rows / Max(rows, 1)), 2);
	size.tuples = Max(size.tuples * table_rows / Max(rows, 1), 1);
	size.keys = size.keys * table_rows / Max(rows, 1);
	size.data_pages = rint(size.data_pages * table_rows / Max(rows, 1));
	size.tree_height = nearest->facts.size.tree_height;
	size.row_entries = nearest->facts.size.row_entries;

	old_context = MemoryContextSwitchTo(facts_context);
	facts = make_facts(partition, table_rows, spec, &size, nearest->facts.statistics);
	keep(facts);
	MemoryContextSwitchTo(old_context);
	return facts;
}

const IndexFacts *
perfopt_index_facts_on_partition(Relation partition, double table_rows, const IndexSpec *spec,
								 const IndexSpec *whole)
{
	KeptFacts  *facts;

	table_rows = Min(table_rows, MOST_ROWS);
	facts = find_facts(partition, &table_rows, spec);
	if (facts == NULL)
		facts = facts_of_siblings(partition, table_rows, spec, whole);
	if (facts == NULL)
		facts = find_out(partition, table_rows, spec);
	if (facts->sampled && facts->whole == NULL)
	{
		TableFacts *of_whole = facts_of_table(whole->relid);
		MemoryContext old_context;

		old_context = MemoryContextSwitchTo(facts_context);
		facts->whole = perfopt_index_spec_copy(whole);
		of_whole->of_partitions = lappend(of_whole->of_partitions, facts);
		MemoryContextSwitchTo(old_context);
	}
	return &facts->facts;
}

/* The facts behind an index of the plan in the making, or NULL. */
const IndexFacts *
perfopt_index_facts_by_id(Oid id)
{
	NumberedFacts *numbered = facts_context ? hash_search(by_id, &id, HASH_FIND, NULL) : NULL;

	return numbered ? &numbered->facts->facts : NULL;
}
