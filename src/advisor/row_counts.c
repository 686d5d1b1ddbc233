/*
 * row_counts.c
 *		How many rows of a table meet a statement's conditions, as a sample of
 *		the table tells.
 *
 * Conditions are of whoever ran the statement.  They are evaluated only if all
 * functions in them are immutable and a superuser's, as the table's owner, in a
 * security-restricted operation and a subtransaction that is rolled back, and for
 * COUNT_MS at most; what fails or takes longer ends nothing else, and is
 * not tried again by this process.
 */
#include "postgres.h"

#include "advisor/survey_internal.h"

#include <math.h>

#include "access/xact.h"
#include "common/hashfn.h"
#include "common/test_clock.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#define COUNT_MS		1000

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

bool
survey_count_rows(Relation relation, List *clauses, RowCounts *counts)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext work;
	uint64		hash = hash_clauses(RelationGetRelid(relation), clauses);
	Oid			session_user = GetSessionUserId();
	Oid			user;
	int			sec_context;
	int			nest_level;
	TimestampTz started = GetCurrentTimestamp();
	TimestampTz callers_timeout = get_timeout_active(STATEMENT_TIMEOUT) ?
	get_timeout_finish_time(STATEMENT_TIMEOUT) : 0;
	ErrorData  *volatile cancelled = NULL;
	volatile bool done = false;

	memset(counts, 0, sizeof(*counts));
	counts->meet = palloc0(sizeof(int) * Max(list_length(clauses), 1));
	if (has_failed(hash) || !perfopt_expression_is_trusted((Node *) clauses, InvalidOid))
		return false;
	work = AllocSetContextCreate(caller, "perfopt row counts", ALLOCSET_DEFAULT_SIZES);
	GetUserIdAndSecContext(&user, &sec_context);
	BeginInternalSubTransaction(NULL);
	nest_level = NewGUCNestLevel();
	PG_TRY();
	{
		const TableSample *sample;

		perfopt_set_identity(relation->rd_rel->relowner, relation->rd_rel->relowner,
							 sec_context | SECURITY_LOCAL_USERID_CHANGE |
							 SECURITY_RESTRICTED_OPERATION);
		(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		MemoryContextSwitchTo(work);
		sample = perfopt_table_sample(relation);
		if (sample)
		{
			enable_timeout_after(STATEMENT_TIMEOUT, PERFOPT_LIMIT_MS(COUNT_MS) * 2);
			count(relation, sample, clauses, counts);
			done = counts->looked_at > 0;
		}
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
			!TimestampDifferenceExceeds(started, GetCurrentTimestamp(), PERFOPT_LIMIT_MS(COUNT_MS) * 2))
			cancelled = error;
		else
		{
			failed[num_failed++ % MOST_FAILED] = hash;
			ereport(DEBUG1,
					(errmsg_internal("perfopt: conditions are not counted: %s", error->message)));
		}
	}
	PG_END_TRY();

	disable_timeout(STATEMENT_TIMEOUT, true);
	if (get_timeout_indicator(STATEMENT_TIMEOUT, true))
		QueryCancelPending = false;
	if (callers_timeout != 0)
		enable_timeout_at(STATEMENT_TIMEOUT, callers_timeout);
	AtEOXact_GUC(false, nest_level);
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	perfopt_set_identity(session_user, user, sec_context);
	MemoryContextDelete(work);
	if (cancelled)
		ReThrowError(cancelled);
	return done;
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
