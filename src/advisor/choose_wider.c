/*
 * choose_wider.c
 *		Candidates made of a chosen index and others that its statements want.
 */
#include "postgres.h"

#include "advisor/choose_internal.h"

#include "catalog/pg_am.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"

/* Wider indexes made of one, and the columns of these. */
#define WIDER_MADE			8
#define WIDER_KEYS			4
#define WIDER_COLUMNS		8

static bool
has_attnum(const IndexSpec *spec, AttrNumber attnum)
{
	for (int i = 0; i < spec->num_columns; i++)
		if (spec->columns[i].attnum == attnum)
			return true;
	return false;
}

static const char *
append_key_of(IndexSpec *spec, const IndexColumn *column)
{
	Node	   *key = column->expr ? column->expr :
	(Node *) makeVar(1, column->attnum, column->type, column->typmod, column->collation, 0);

	return perfopt_index_spec_add_key(spec, key, column->opclass, column->collation,
									  column->options);
}

/*
 * All of the first one's keys, the next key of the other's that it lacks, if
 * one more is wanted, and what else both have as included columns, if that is.
 * NULL if that can't be, or is too wide.
 */
static IndexSpec *
wider(const IndexSpec *spec, const IndexSpec *other, bool one_key, bool include)
{
	IndexSpec  *made;

	if (spec->am != BTREE_AM_OID || other->am != BTREE_AM_OID ||
		!equal(spec->predicate, other->predicate))
		return NULL;
	made = perfopt_index_spec_create(spec->relid, spec->am);
	for (int i = 0; i < spec->num_keys; i++)
		if (append_key_of(made, &spec->columns[i]))
			return NULL;
	for (int i = 0; one_key && i < other->num_keys; i++)
	{
		if (other->columns[i].attnum == 0 || has_attnum(made, other->columns[i].attnum))
			continue;
		if (made->num_keys == WIDER_KEYS || append_key_of(made, &other->columns[i]))
			return NULL;
		break;
	}
	for (int i = 0; include && i < spec->num_columns + other->num_columns; i++)
	{
		const IndexColumn *column = i < spec->num_columns ? &spec->columns[i] :
		&other->columns[i - spec->num_columns];

		if (column->attnum == 0 || has_attnum(made, column->attnum))
			continue;
		if (made->num_columns == WIDER_COLUMNS ||
			perfopt_index_spec_add_included(made, column->attnum))
			return NULL;
	}
	perfopt_index_spec_pack_included(made);
	made->predicate = spec->predicate;
	made->fillfactor = spec->fillfactor;
	made->order_only = spec->order_only && other->order_only;
	made->any_direction = spec->any_direction && other->any_direction;
	return made;
}

/* What the index has saved for the statement; 0: it is of no use for that. */
static double
saved_by(Choice *choice, const ChoiceIndex *index, int statement)
{
	for (int i = 0; i < index->num_effects; i++)
		if (index->effects[i].statement == statement)
			return choice->statements[statement].last_saved[index->effects[i].number];
	return 0;
}

/*
 * Wider than one by columns of another.  What those can save is what they save
 * in that one.
 */
static bool
add_wider(Choice *choice, const IndexSpec *spec, ChoiceIndex *narrow, ChoiceIndex *other)
{
	int			known = list_length(choice->indexes);
	ChoiceIndex *index;

	if (spec == NULL || perfopt_index_spec_serves(narrow->spec, spec))
		return false;
	index = choice_enter(choice, spec);
	if (list_length(choice->indexes) == known)
		return false;
	index->bytes = narrow->bytes;
	index->freed = narrow->freed;
	index->writes = narrow->writes;
	choice_connect(choice, index);
	for (int i = 0; i < index->num_effects; i++)
	{
		ChoiceStatement *statement = &choice->statements[index->effects[i].statement];
		double		saved = saved_by(choice, other, index->effects[i].statement);

		statement->last_saved[index->effects[i].number] =
			statement->most_saved[index->effects[i].number] = saved;
	}
	return true;
}

/* Candidates made of a chosen one and others that its statements want. */
void
choice_widen(Choice *choice, ChoiceIndex *chosen)
{
	List	   *others = list_copy(choice_first_key(choice, chosen->spec)->indexes);
	int			made = 0;
	ListCell   *lc;

	if (chosen->widened)
		return;
	chosen->widened = true;
	for (int i = 0; i < chosen->num_effects; i++)
	{
		ChoiceStatement *statement = &choice->statements[chosen->effects[i].statement];

		if (statement->floor >= statement->ratio * (1 - NOTHING))
			continue;
		foreach(lc, statement->indexes)
		{
			ChoiceIndex *index = lfirst(lc);

			if (index->spec->relid == chosen->spec->relid)
				others = list_append_unique_ptr(others, index);
		}
	}
	foreach(lc, others)
	{
		ChoiceIndex *other = lfirst(lc);
		Move		move = {.added = list_make1(other)};

		if (made >= WIDER_MADE || choice_out_of_time(choice))
			break;
		if (other == chosen || other->barred || other->chosen ||
			perfopt_index_spec_serves(other->spec, chosen->spec) ||
			choice_gain(choice, &move, false, 0) < choice_least(choice, &move))
			continue;
		made += add_wider(choice, wider(chosen->spec, other->spec, true, false), chosen, other);
		made += add_wider(choice, wider(chosen->spec, other->spec, false, true), chosen, other);
	}
	list_free(others);
}
