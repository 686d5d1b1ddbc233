/*
 * advise.c
 *		perfopt.advise(): which indexes are best for statements handed in.
 *
 * It runs in the session of the caller, with its rights, and needs neither
 * history nor worker.  Each statement is planned as EXPLAIN would plan it, and
 * only if the caller may run it.  Parameters have no values, as in a generic
 * plan; where some are far more common than others, it is planned with those as
 * well, and the mean counts.  All statements count by their cost.  What those that
 * write would have to do for an index more is reckoned in the planner's units, too.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/candidates.h"
#include "advisor/choose.h"

#include <math.h>

#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "common/shmem.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* Statements at a time. */
#define MOST_STATEMENTS		10000

/* A choice must save so much of the whole. */
#define LEAST_SAVED			0.003

/*
 * One that makes a statement much faster, so much, which is less than what a
 * statement costs that is never looked at otherwise.
 */
#define LEAST_FAST			50.0

/* ... and some statement's cost must fall by so much. */
#define LEAST_SPEEDUP		1.1

/* One entry in an index whose pages are in memory, in units of a page read. */
#define ENTRY_COST			0.25

/* Columns of the result. */
enum
{
	RESULT_STATEMENT,
	RESULT_QUERY,
	RESULT_COST_BEFORE,
	RESULT_COST_AFTER,
	RESULT_DDL,
	RESULT_BYTES,
	RESULT_NOTES,
	RESULT_COLUMNS
};

typedef struct Statement
{
	char	   *text;
	Query	   *query;
	ParamListInfo common;		/* values to plan it with once more, or NULL */
	List	   *known;			/* of the expressions of its candidates */
	double		cost;			/* as things are */
	double		rows;
	List	   *notes;			/* char * */
} Statement;

/* A chosen index. */
typedef struct Told
{
	char	   *ddl;
	List	   *superseded;		/* char * */
	char	   *table;
} Told;

typedef struct Advise
{
	ReturnSetInfo *result;
	int			num;
	Statement  *statements;
	double		budget;			/* bytes; negative: any */
	TimestampTz started;
	double		time_ms;		/* at most */
} Advise;

/* ---------------------------------------------------------------------
 * Statements
 */

typedef struct Position
{
	int			number;			/* of the statement, from 1 */
	const char *text;
	bool		parsing;
} Position;

/* Name the statement, and show where in its text an error is. */
static void
error_context(void *arg)
{
	Position   *position = arg;
	int			cursor = geterrposition();

	if (position->parsing && cursor > 0)
	{
		errposition(0);
		internalerrposition(cursor);
		internalerrquery(position->text);
	}
	errcontext("statement %d handed to perfopt.advise()", position->number);
}

static Query *
analyze(const char *text)
{
	List	   *raw = pg_parse_query(text);
	Oid		   *types = NULL;
	int			num_types = 0;
	List	   *queries;
	Query	   *query;

	if (raw == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("perfopt.advise() takes one statement in each element, but this one is empty")));
	if (list_length(raw) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("perfopt.advise() takes one statement in each element, but this one has %d",
						list_length(raw)),
				 errhint("Make each statement an element of the array.")));
	queries = pg_analyze_and_rewrite_varparams(linitial_node(RawStmt, raw), text, &types,
											   &num_types, NULL);
	if (list_length(queries) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("perfopt.advise() cannot price a statement that rules make %d of",
						list_length(queries))));
	query = linitial_node(Query, queries);
	if (query->commandType == CMD_UTILITY)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("perfopt.advise() cannot price %s",
						CreateCommandName(query->utilityStmt)),
				 errhint("Give it a SELECT, VALUES, INSERT, UPDATE, DELETE or MERGE.")));
	return query;
}

/* With these; of several plannings the mean cost, and what any of them uses. */
static void
plan_statement(Statement *statement, List *specs, WhatIfPrice *price, List **candidates)
{
	WhatIfPrice common;

	if (statement->known)
		specs = list_concat_copy(specs, statement->known);
	perfopt_what_if_query(statement->query, NULL, specs, NIL, price, candidates);
	if (statement->common == NULL)
		return;
	perfopt_what_if_query(statement->query, statement->common, specs, NIL, &common, candidates);
	price->cost = (price->cost + common.cost) / 2;
	price->used = bms_join(price->used, common.used);
}

/* Parse each, plan it as things are, and learn which indexes may help. */
static void
load_statements(Advise *advise, Choice *choice)
{
	choice->num_statements = advise->num;
	choice->statements = palloc0(sizeof(ChoiceStatement) * Max(advise->num, 1));
	for (int i = 0; i < advise->num; i++)
	{
		Statement  *statement = &advise->statements[i];
		WhatIfPrice price;
		List	   *candidates = NIL;
		Position	position = {.number = i + 1,.text = statement->text,.parsing = true};
		ErrorContextCallback callback = {
			.previous = error_context_stack,
			.callback = error_context,
			.arg = &position
		};

		error_context_stack = &callback;
		statement->query = analyze(statement->text);
		position.parsing = false;
		statement->query = perfopt_assume_patterns(statement->query, &statement->notes);
		statement->common = perfopt_common_params(statement->query);
		plan_statement(statement, NIL, &price, &candidates);
		error_context_stack = callback.previous;

		choice->statements[i].candidates =
			perfopt_candidates_prefixed(perfopt_candidates_settle(candidates, 1));
		statement->known = perfopt_candidates_statistics(choice->statements[i].candidates);
		if (statement->known)
			plan_statement(statement, NIL, &price, NULL);
		statement->cost = price.cost;
		statement->rows = price.rows;
		choice->statements[i].weight = price.cost;
		CHECK_FOR_INTERRUPTS();
	}
}

/* Does it do so to rows, by itself or in an action of a MERGE? */
static bool
does(const Query *query, CmdType type)
{
	ListCell   *lc;

	foreach(lc, query->mergeActionList)
		if (lfirst_node(MergeAction, lc)->commandType == type)
		return true;
	return query->commandType == type;
}

/*
 * What the statements write to the table.  Where it depends on a row whether it is
 * inserted, updated or deleted, all count.
 */
static void
add_writes(Advise *advise, Oid relid, TableWrites *writes)
{
	memset(writes, 0, sizeof(*writes));
	for (int i = 0; i < advise->num; i++)
	{
		Statement  *statement = &advise->statements[i];
		Query	   *query = statement->query;
		List	   *targets = perfopt_update_targets(query);
		ColumnUpdates *updates;
		ListCell   *lc;

		if (query->resultRelation == 0 ||
			rt_fetch(query->resultRelation, query->rtable)->relid != relid)
			continue;
		if (does(query, CMD_INSERT))
			writes->inserted += statement->rows;
		if (does(query, CMD_DELETE))
			writes->deleted += statement->rows;
		if (targets == NIL)
			continue;
		updates = palloc0(sizeof(ColumnUpdates));
		foreach(lc, targets)
		{
			TargetEntry *target = lfirst_node(TargetEntry, lc);

			if (!target->resjunk)
				updates->columns = bms_add_member(updates->columns, target->resno -
												  FirstLowInvalidHeapAttributeNumber);
		}
		updates->rows = statement->rows;
		writes->column_updates = lappend(writes->column_updates, updates);
		writes->hot_updated += statement->rows;
	}
}

/* ---------------------------------------------------------------------
 * What the choice asks for
 */

static bool
price(void *arg, int number, List *specs, double *ratio, Bitmapset **used)
{
	Advise	   *advise = arg;
	Statement  *statement = &advise->statements[number];
	WhatIfPrice priced;

	if (statement->cost <= 0)
		return false;
	plan_statement(statement, specs, &priced, NULL);
	*ratio = priced.cost / statement->cost;
	*used = priced.used;
	return true;
}

static bool
assess(void *arg, ChoiceIndex *index)
{
	Advise	   *advise = arg;
	Relation	relation = perfopt_index_spec_open(index->spec);
	const IndexSize *size;
	bool		good;

	if (relation == NULL)
		return false;
	good = !perfopt_index_exists(relation, index->spec);
	if (good)
	{
		TableWrites writes;
		double		rows = relation->rd_rel->reltuples;

		size = &perfopt_index_facts(relation, rows, index->spec)->size;
		good = size->possible;
		index->bytes = size->pages * BLCKSZ;
		(void) perfopt_superseded_by(index->spec, relation, &index->freed);
		add_writes(advise, index->spec->relid, &writes);
		index->writes = perfopt_entries_written(&writes, index->spec,
												perfopt_row_writes(index->spec, size) *
												(rows > 0 ? Min(size->tuples / rows, 1) : 1),
												list_length(RelationGetIndexList(relation))) *
			(size->pages > effective_cache_size / 2 ? random_page_cost : ENTRY_COST);
	}
	relation_close(relation, NoLock);
	return good;
}

static double
time_used(void *arg)
{
	Advise	   *advise = arg;

	return (GetCurrentTimestamp() - advise->started) / (advise->time_ms * 1000);
}

/* ---------------------------------------------------------------------
 * Result
 */

static Datum
text_array(List *strings)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(list_length(strings), 1));
	ListCell   *lc;

	foreach(lc, strings)
		values[foreach_current_index(lc)] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(values, list_length(strings), TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/* Of plan costs two digits are enough, as in EXPLAIN. */
static double
shown(double cost)
{
	return rint(cost * 100) / 100;
}

static void
put_row(Advise *advise, int number, double before, double after, List *ddl, double bytes,
		List *notes)
{
	Datum		values[RESULT_COLUMNS];
	bool		nulls[RESULT_COLUMNS] = {0};

	nulls[RESULT_STATEMENT] = nulls[RESULT_QUERY] = number < 0;
	if (number >= 0)
	{
		values[RESULT_STATEMENT] = Int32GetDatum(number + 1);
		values[RESULT_QUERY] = CStringGetTextDatum(advise->statements[number].text);
	}
	values[RESULT_COST_BEFORE] = Float8GetDatum(shown(before));
	values[RESULT_COST_AFTER] = Float8GetDatum(shown(after));
	values[RESULT_DDL] = text_array(ddl);
	values[RESULT_BYTES] = Int64GetDatum((int64) bytes);
	values[RESULT_NOTES] = text_array(notes);
	tuplestore_putvalues(advise->result->setResult, advise->result->setDesc, values, nulls);
}

static Told *
tell(Choice *choice)
{
	Told	   *told = palloc0(sizeof(Told) * Max(list_length(choice->chosen), 1));
	List	   *taken = NIL;
	ListCell   *lc;

	foreach(lc, choice->chosen)
	{
		const IndexSpec *spec = ((ChoiceIndex *) lfirst(lc))->spec;
		Told	   *one = &told[foreach_current_index(lc)];
		Relation	relation = relation_open(spec->relid, AccessShareLock);
		double		bytes;

		one->ddl = perfopt_index_spec_ddl(spec, relation,
										  perfopt_name_once(spec, relation, &taken));
		one->superseded = perfopt_superseded_by(spec, relation, &bytes);
		relation_close(relation, NoLock);
	}
	return told;
}

static void
put_result(Advise *advise, Choice *choice)
{
	Told	   *told = tell(choice);
	List	   *ddl = NIL;
	List	   *notes = NIL;
	double		before = 0;
	double		after = 0;
	bool		needs = false;
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, choice->chosen)
	{
		Told	   *one = &told[foreach_current_index(lc)];

		const IndexSpec *spec = ((ChoiceIndex *) lfirst(lc))->spec;

		/* to be run in this order; one extension is all that may be missing */
		if (spec->extension && !needs)
		{
			needs = true;
			ddl = lcons(psprintf("CREATE EXTENSION %s", spec->extension), ddl);
			notes = lappend(notes, pstrdup(perfopt_describe_needs(spec)));
		}
		ddl = lappend(ddl, one->ddl);
		foreach(lc2, one->superseded)
			notes = lappend(notes, psprintf("With %s, index %s is superfluous.", one->ddl,
											(char *) lfirst(lc2)));
	}
	if (choice->cut_short)
		notes = lappend(notes, "The time was not enough to look at everything; more of it may find better indexes.");
	for (int i = 0; i < advise->num; i++)
	{
		before += shown(advise->statements[i].cost);
		after += shown(advise->statements[i].cost * choice->statements[i].ratio);
	}
	put_row(advise, -1, before, after, ddl, choice->bytes, notes);

	for (int i = 0; i < advise->num; i++)
	{
		double		bytes = 0;

		ddl = NIL;
		foreach(lc, choice->chosen)
		{
			ChoiceIndex *index = lfirst(lc);

			if (!perfopt_choice_uses(choice, i, index))
				continue;
			ddl = lappend(ddl, told[foreach_current_index(lc)].ddl);
			bytes += index->bytes;
		}
		put_row(advise, i, advise->statements[i].cost,
				advise->statements[i].cost * choice->statements[i].ratio, ddl, bytes,
				advise->statements[i].notes);
	}
}

static void
run(void *arg)
{
	Advise	   *advise = arg;
	Choice		choice = {
		.budget = advise->budget,
		.least_speedup = LEAST_SPEEDUP,
		.price = price,
		.assess = assess,
		.time_used = time_used,
		.arg = advise
	};

	load_statements(advise, &choice);
	for (int i = 0; i < advise->num; i++)
		choice.least += choice.statements[i].weight * LEAST_SAVED;
	choice.least_fast = Min(choice.least, LEAST_FAST);
	choice.least_fast_bytes = HUGE_VAL;
	perfopt_choose(&choice);
	ereport(DEBUG1,
			(errmsg_internal("perfopt: %d plans for %d indexes", choice.plans,
							 list_length(choice.indexes))));
	put_result(advise, &choice);
}

static void
read_queries(Advise *advise, ArrayType *array)
{
	Datum	   *values;
	bool	   *nulls;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &advise->num);
	if (advise->num > MOST_STATEMENTS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("perfopt.advise() takes at most %d statements, but was given %d",
						MOST_STATEMENTS, advise->num)));
	advise->statements = palloc0(sizeof(Statement) * Max(advise->num, 1));
	for (int i = 0; i < advise->num; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("statement %d handed to perfopt.advise() is null", i + 1)));
		advise->statements[i].text = TextDatumGetCString(values[i]);
	}
}

PG_FUNCTION_INFO_V1(perfopt_advise);

/* advise(queries text[], storage_budget bigint, time_budget interval) */
Datum
perfopt_advise(PG_FUNCTION_ARGS)
{
	Advise		advise = {.result = (ReturnSetInfo *) fcinfo->resultinfo};
	Interval   *span;
	double		ms;

	perfopt_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("queries must not be null")));
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("time_budget must not be null")));
	advise.budget = PG_ARGISNULL(1) ? -1 : (double) PG_GETARG_INT64(1);
	if (!PG_ARGISNULL(1) && advise.budget < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("storage_budget must not be negative"),
				 errhint("NULL stands for no limit.")));
	span = PG_GETARG_INTERVAL_P(2);
	ms = span->time / 1000.0 +
		((double) span->month * DAYS_PER_MONTH + span->day) * SECS_PER_DAY * 1000.0;
	if (ms <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time_budget must be greater than zero")));
	advise.started = GetCurrentTimestamp();
	advise.time_ms = ms;
	read_queries(&advise, PG_GETARG_ARRAYTYPE_P(0));
	perfopt_what_if_for_caller(run, &advise);
	return (Datum) 0;
}
