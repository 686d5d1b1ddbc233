/*
 * row_counts.c
 *		How many rows of a table meet a statement's conditions, as a sample of
 *		the table tells.
 *
 * Conditions are of whoever ran the statement.  They are evaluated only if all
 * functions in them are immutable and a superuser's, as as_owner.c does it, and for
 * COUNT_MS; what fails or takes longer is not tried again by this process.
 */
#include "postgres.h"

#include "advisor/survey_internal.h"

#include <math.h>

#include "common/hashfn.h"
#include "common/test_clock.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#define COUNT_MS		1000

/* Reading the table, and one row, may take longer than that, but all of it not. */
#define ALL_MS			2500

/* Conditions that failed. */
#define MOST_FAILED		256

static uint64 failed[MOST_FAILED];
static int	num_failed = 0;

static uint64
hash_clauses(Oid relid, List *clauses)
{
	char	   *text = nodeToString(clauses);
	uint64		hash = hash_bytes_extended((unsigned char *) text, strlen(text), relid);

	pfree(text);
	return hash;
}

static bool
has_failed(uint64 hash)
{
	for (int i = 0; i < Min(num_failed, MOST_FAILED); i++)
		if (failed[i] == hash)
			return true;
	return false;
}

static void
count(Relation relation, const TableSample *sample, List *clauses, RowCounts *counts)
{
	EState	   *estate = CreateExecutorState();
	ExprContext *econtext = GetPerTupleExprContext(estate);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(relation), &TTSOpsHeapTuple);
	int			num = list_length(clauses);
	ExprState **states = palloc(sizeof(ExprState *) * num);
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PERFOPT_LIMIT_MS(COUNT_MS));

	for (int i = 0; i < num; i++)
		states[i] = ExecPrepareQual(list_make1(list_nth(clauses, i)), estate);
	for (int row = 0; row < sample->num_rows; row++)
	{
		bool		all = true;

		CHECK_FOR_INTERRUPTS();
		if (row % 64 == 63 && GetCurrentTimestamp() > deadline)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("the conditions take too long to evaluate")));
		ResetExprContext(econtext);
		ExecStoreHeapTuple(sample->rows[row], slot, false);
		econtext->ecxt_scantuple = slot;
		for (int i = 0; i < num; i++)
		{
			bool		meets = ExecQual(states[i], econtext);

			counts->meet[i] += meets;
			all &= meets;
		}
		counts->meet_all += all;
	}
	counts->looked_at = sample->num_rows;
	counts->table_rows = sample->table_rows;
	counts->all = sample->num_rows == sample->rows_seen && sample->num_rows == sample->table_rows;
	ExecDropSingleTupleTableSlot(slot);
	FreeExecutorState(estate);
}

/* What count_as_owner() is called with. */
typedef struct Counting
{
	Relation	relation;
	List	   *clauses;
	RowCounts  *counts;
} Counting;

static void
count_as_owner(void *arg)
{
	Counting   *counting = arg;
	const TableSample *sample = perfopt_table_sample(counting->relation);

	if (sample)
		count(counting->relation, sample, counting->clauses, counting->counts);
}

bool
survey_count_rows(Relation relation, List *clauses, RowCounts *counts)
{
	uint64		hash = hash_clauses(RelationGetRelid(relation), clauses);
	Counting	counting = {.relation = relation,.clauses = clauses,.counts = counts};
	char	   *problem;

	memset(counts, 0, sizeof(*counts));
	counts->meet = palloc0(sizeof(int) * Max(list_length(clauses), 1));
	if (has_failed(hash) || !perfopt_expression_is_trusted((Node *) clauses, InvalidOid))
		return false;
	problem = perfopt_as_owner(relation, ALL_MS, count_as_owner, &counting);
	if (problem == NULL)
		return counts->looked_at > 0;
	failed[num_failed++ % MOST_FAILED] = hash;
	ereport(DEBUG1,
			(errmsg_internal("perfopt: conditions are not counted: %s", problem)));
	return false;
}

double
survey_rows_at_least(const RowCounts *counts, int meet)
{
	double		rows = counts->all ? meet : Max(meet - 3 * sqrt(meet), 0);

	return rows * counts->table_rows / Max(counts->looked_at, 1);
}

double
survey_rows_at_most(const RowCounts *counts, int meet)
{
	double		rows = counts->all ? meet : meet + 3 * sqrt(meet) + 4;

	return rows * counts->table_rows / Max(counts->looked_at, 1);
}
