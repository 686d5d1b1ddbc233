/*
 * choose_indexes.c
 *		The candidates of a choice, and for which statements each counts.
 *
 * A candidate counts for all statements that have one with the same first key:
 * without that no plan uses it, but to read it as a whole.
 */
#include "postgres.h"

#include "advisor/choose_internal.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/* Of the time, so much goes to learning what candidates are good for. */
#define GATHERING			0.5

/* Candidates whose specifications have the same hash. */
typedef struct SpecEntry
{
	uint64		hash;			/* hash key */
	List	   *indexes;		/* ChoiceIndex * */
} SpecEntry;

/* Expressions that are told apart elsewhere may have the same one. */
static FirstKey
first_key(const IndexSpec *spec)
{
	FirstKey	first = {.relid = spec->relid};
	const IndexColumn *column = &spec->columns[0];

	first.key = column->attnum != 0 ? column->attnum :
		0x80000000 | ((((uint32) nodeTag(column->expr)) << 16) ^ column->type);
	return first;
}

FirstKeyEntry *
choice_first_key(Choice *choice, const IndexSpec *spec)
{
	FirstKey	first = first_key(spec);
	bool		found;
	FirstKeyEntry *entry = hash_search(choice->by_key, &first, HASH_ENTER, &found);

	if (!found)
		entry->indexes = entry->statements = NIL;
	return entry;
}

static ChoiceTable *
table_of(Choice *choice, const IndexSpec *spec)
{
	bool		found;
	ChoiceTable *table = hash_search(choice->tables, &spec->relid, HASH_ENTER, &found);

	if (!found)
		table->chosen = NIL;
	return table;
}

ChoiceIndex *
choice_enter(Choice *choice, const IndexSpec *spec)
{
	uint64		hash = perfopt_index_spec_hash(spec);
	bool		found;
	SpecEntry  *same_hash = hash_search(choice->by_spec, &hash, HASH_ENTER, &found);
	FirstKeyEntry *entry;
	ChoiceIndex *index;
	ListCell   *lc;

	if (!found)
		same_hash->indexes = NIL;
	foreach(lc, same_hash->indexes)
	{
		index = lfirst(lc);
		if (perfopt_index_spec_equal(index->spec, spec))
			return index;
	}
	index = palloc0(sizeof(ChoiceIndex));
	index->spec = spec;
	index->table = table_of(choice, spec);
	same_hash->indexes = lappend(same_hash->indexes, index);
	entry = choice_first_key(choice, spec);
	entry->indexes = lappend(entry->indexes, index);
	choice->indexes = lappend(choice->indexes, index);
	return index;
}

static void
grow_saved(ChoiceStatement *statement)
{
	Size		size;

	statement->max_indexes = Max(16, statement->max_indexes * 2);
	size = sizeof(double) * statement->max_indexes;
	statement->last_saved = statement->last_saved ? repalloc(statement->last_saved, size) : palloc(size);
	statement->most_saved = statement->most_saved ? repalloc(statement->most_saved, size) : palloc(size);
}

/* Have the index count for all statements that want one that begins so. */
void
choice_connect(Choice *choice, ChoiceIndex *index)
{
	ListCell   *lc;

	foreach(lc, choice_first_key(choice, index->spec)->statements)
	{
		ChoiceStatement *statement = &choice->statements[lfirst_int(lc)];
		ChoiceEffect *effect;

		if (index->num_effects == index->max_effects)
		{
			index->max_effects = Max(8, index->max_effects * 2);
			index->effects = index->effects == NULL ?
				palloc(sizeof(ChoiceEffect) * index->max_effects) :
				repalloc(index->effects, sizeof(ChoiceEffect) * index->max_effects);
		}
		effect = &index->effects[index->num_effects++];
		effect->statement = lfirst_int(lc);
		effect->number = list_length(statement->indexes);
		statement->indexes = lappend(statement->indexes, index);
		if (effect->number == statement->max_indexes)
			grow_saved(statement);
		statement->last_saved[effect->number] = statement->most_saved[effect->number] = 2;
	}
}

bool
choice_out_of_time(Choice *choice)
{
	CHECK_FOR_INTERRUPTS();
	if (choice->time_used(choice->arg) < 1)
		return false;
	choice->cut_short = true;
	return true;
}

void
choice_assess(Choice *choice, ChoiceIndex *index)
{
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "perfopt candidate",
											   ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(work);

	index->assessed = true;
	index->barred = !choice->assess(choice->arg, index) ||
		(choice->budget >= 0 && index->bytes > choice->budget);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(work);
}

static int
heavier_first(const void *a, const void *b, void *arg)
{
	const ChoiceStatement *statements = arg;
	double		left = statements[*(const int *) a].weight;
	double		right = statements[*(const int *) b].weight;

	return left < right ? 1 : left > right ? -1 : 0;
}

/* Could it save enough, if it made all it counts for take no time? */
static bool
may_save_enough(Choice *choice, const ChoiceIndex *index)
{
	double		weight = 0;
	ListCell   *lc;

	foreach(lc, choice_first_key(choice, index->spec)->statements)
		weight += choice->statements[lfirst_int(lc)].weight;
	return weight >= Min(choice->least, choice->least_fast) && weight > 0;
}

static void
assess_candidates(Choice *choice, ChoiceStatement *statement)
{
	ListCell   *lc;

	foreach(lc, statement->candidates)
	{
		ChoiceIndex *index = choice_enter(choice, lfirst(lc));

		if (index->assessed || !may_save_enough(choice, index))
			continue;
		choice_assess(choice, index);
		if (!index->barred)
			choice_connect(choice, index);
	}
}

void
choice_gather(Choice *choice)
{
	HASHCTL		ctl = {.keysize = sizeof(FirstKey),.entrysize = sizeof(FirstKeyEntry),.hcxt = CurrentMemoryContext};
	HASHCTL		spec_ctl = {.keysize = sizeof(uint64),.entrysize = sizeof(SpecEntry),.hcxt = CurrentMemoryContext};
	HASHCTL		table_ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(ChoiceTable),.hcxt = CurrentMemoryContext};
	int		   *order = palloc(sizeof(int) * Max(choice->num_statements, 1));
	ListCell   *lc;

	choice->by_key = hash_create("perfopt first keys", 128, &ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	choice->by_spec = hash_create("perfopt candidates", 1024, &spec_ctl,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	choice->tables = hash_create("perfopt tables of candidates", 128, &table_ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < choice->num_statements; i++)
	{
		order[i] = i;
		choice_start(choice, i);
		CHECK_FOR_INTERRUPTS();
		foreach(lc, choice->statements[i].candidates)
		{
			FirstKeyEntry *entry = choice_first_key(choice, lfirst(lc));

			(void) choice_enter(choice, lfirst(lc));
			if (entry->statements == NIL || llast_int(entry->statements) != i)
				entry->statements = lappend_int(entry->statements, i);
		}
	}

	/* learn as much as may be of the heaviest, rather than a little of all */
	qsort_arg(order, choice->num_statements, sizeof(int), heavier_first, choice->statements);
	for (int i = 0; i < choice->num_statements && !choice->hurried; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (choice->time_used(choice->arg) >= GATHERING)
			choice->hurried = true;
		else
		{
			assess_candidates(choice, &choice->statements[order[i]]);
			choice_peel(choice, order[i]);
		}
	}
	foreach(lc, choice->indexes)
		if (!((ChoiceIndex *) lfirst(lc))->assessed)
		((ChoiceIndex *) lfirst(lc))->barred = true;
}
