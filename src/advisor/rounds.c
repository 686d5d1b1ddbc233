/*
 * rounds.c
 *		Duty "advise": which indexes would save the most of the time that this
 *		database's statements take.
 *
 * The workload is the sampled statements, each with the time the monitor has
 * counted for it.  Older time counts less (it halves every hour), and when a
 * statement's plan has become much cheaper since the last round, because an
 * index was built for it, its time so far no longer counts at all: it was spent
 * under another plan.  Statements' plan costs are turned into time by their
 * mean: an index that lowers a statement's cost to a tenth is taken to save nine
 * tenths of its time.
 *
 * The choice is greedy: take the candidate that saves the most, price the rest
 * again with it in place, until none saves perfopt.advice_min_share of the
 * database's time.  What another candidate saves can hardly grow by a choice,
 * so an old figure serves as a bound, and only candidates that could be the
 * best are priced again.
 *
 * From what an index saves, the writes it makes dearer are subtracted.
 *
 * State between rounds is in the worker's own memory, one entry for each
 * sampled statement and each table with candidates.  Nothing is shared.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/candidates.h"

#include <math.h>

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/settings.h"
#include "common/shmem.h"
#include "common/stop_points.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define HALF_LIFE_MS		(3600.0 * 1000)

/*
 * A round prices statements as they are for this long at most, looks so long
 * at candidates, and prices so long what statements would be with them.
 */
#define ROUND_BUDGET_MS		2500

/* The heaviest statements that a round looks at. */
#define MAX_STATEMENTS		500

/* With each further column an index must save so much more. */
#define PAIR_HANDICAP		1.1

/*
 * And an index used to find rows is preferred to one that only gives their
 * order: that one's price relies on LIMIT finding its rows soon.
 */
#define ORDER_HANDICAP		1.25

/* A plan has become another when its cost has fallen below this part. */
#define PLAN_CHANGED		0.5

/* A statement is helped when its cost falls below this part. */
#define HELPED				0.9

/*
 * What one more index costs a row that is written: the descent, the insertion
 * and its WAL, some microseconds; more when the index won't stay in memory.
 */
#define WRITE_MS			0.005
#define WRITE_UNCACHED_MS	0.05

#define ANALYZE_NOW_TIMEOUT_MS	(5 * 60 * 1000)

/* What is remembered of a statement. */
typedef struct StatementHistory
{
	PerfoptQueryKey key;
	uint64		round;			/* last seen in */
	int64		calls;			/* the monitor's counters then */
	double		total_ms;
	double		recent_calls;	/* decayed */
	double		recent_ms;
	double		base_cost;		/* of its plan then; 0: not known */
} StatementHistory;

/* What is remembered of a table's writes. */
typedef struct TableHistory
{
	Oid			relid;
	uint64		round;
	double		writes;			/* rows, the statistics' counters then */
	double		recent_writes;	/* decayed */
} TableHistory;

static MemoryContext history_context = NULL;
static HTAB *statement_history = NULL;
static HTAB *table_history = NULL;
static uint64 round_number = 0;
static TimestampTz last_round = 0;
static double last_database_ms = 0;
static double recent_database_ms = 0;

typedef struct Statement
{
	StatementHistory *history;
	int			num_samples;
	PlanSample *samples[SAMPLE_SETS];
	double		base[SAMPLE_SETS];	/* costs now; negative: not priced */
	double		base_cost;		/* their mean */
	double		ratio;			/* cost with what is chosen, to base */
	List	   *candidates;		/* IndexSpec * */
} Statement;

/* The effect of a candidate on one statement. */
typedef struct Effect
{
	Statement  *statement;
	double		before;			/* ratios to base */
	double		after;
} Effect;

typedef struct Candidate
{
	IndexSpec	spec;
	int			num_effects;
	Effect	   *effects;		/* of the statements it may help */
	double		writes_ms;
	double		bytes;
	double		saved_ms;		/* a bound while priced_with is behind */
	double		best_speedup;
	int			priced_with;	/* number of choices made when it was priced */
	bool		dead;			/* chosen, or useless */
} Candidate;

typedef struct Round
{
	TimestampTz deadline;
	bool		cut_short;		/* there was no time to price all */
	double		database_ms;
	int			num_statements;
	Statement  *statements;
	int			num_candidates;
	Candidate  *candidates;
	List	   *chosen;			/* Candidate * */
} Round;

/*
 * Memory between rounds
 */
static void
open_history(void)
{
	HASHCTL		statement_ctl = {.keysize = sizeof(PerfoptQueryKey),.entrysize = sizeof(StatementHistory)};
	HASHCTL		table_ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(TableHistory)};

	if (history_context)
		return;
	history_context = AllocSetContextCreate(TopMemoryContext, "perfopt advisor history",
											ALLOCSET_DEFAULT_SIZES);
	statement_ctl.hcxt = table_ctl.hcxt = history_context;
	statement_history = hash_create("perfopt statements", 128, &statement_ctl,
									HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	table_history = hash_create("perfopt tables", 64, &table_ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Statements that are no longer sampled, and tables without candidates. */
static void
purge_history(void)
{
	HASH_SEQ_STATUS seq;
	StatementHistory *statement;
	TableHistory *table;

	hash_seq_init(&seq, statement_history);
	while ((statement = hash_seq_search(&seq)) != NULL)
		if (statement->round != round_number)
			hash_search(statement_history, &statement->key, HASH_REMOVE, NULL);
	hash_seq_init(&seq, table_history);
	while ((table = hash_seq_search(&seq)) != NULL)
		if (table->round + 60 < round_number)
			hash_search(table_history, &table->relid, HASH_REMOVE, NULL);
}

static StatementHistory *
update_statement(const PerfoptQueryKey *key, const PerfoptQueryCost *cost, double decay)
{
	bool		found;
	StatementHistory *history = hash_search(statement_history, key, HASH_ENTER, &found);

	if (!found)
	{
		history->calls = 0;
		history->total_ms = history->recent_calls = history->recent_ms = 0;
		history->base_cost = 0;
	}
	if (cost->calls < history->calls || cost->total_ms < history->total_ms)
	{
		/* the counters were reset: somebody wants a fresh start */
		history->calls = 0;
		history->total_ms = history->recent_calls = history->recent_ms = 0;
	}
	history->round = round_number;
	history->recent_calls = history->recent_calls * decay + (cost->calls - history->calls);
	history->recent_ms = history->recent_ms * decay + (cost->total_ms - history->total_ms);
	history->calls = cost->calls;
	history->total_ms = cost->total_ms;
	return history;
}

/*
 * Rows recently written to the table in a way that an index would have to
 * follow.  The rows a table had when it was first looked at are not held
 * against it: they may have been loaded at once.  live_rows is -1 when nobody
 * has counted them.
 */
static double
recent_writes(Oid relid, double live_rows, double decay)
{
	bool		found;
	TableHistory *history = hash_search(table_history, &relid, HASH_ENTER, &found);
	PgStat_StatTabEntry *stats = pgstat_fetch_stat_tabentry(relid);
	double		writes = stats ? (double) stats->tuples_inserted +
	stats->tuples_updated - stats->tuples_hot_updated : 0;

	if (!found)
	{
		history->writes = live_rows < 0 ? writes : Min(writes, live_rows);
		history->recent_writes = 0;
		history->round = round_number - 1;
	}
	if (history->round != round_number)
	{
		if (writes < history->writes)
			history->writes = 0;
		history->recent_writes = history->recent_writes * decay + (writes - history->writes);
		history->writes = writes;
		history->round = round_number;
	}
	return history->recent_writes;
}

/*
 * Pricing
 */
static void
set_deadline(Round *round)
{
	round->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ROUND_BUDGET_MS);
}

static bool
out_of_time(Round *round)
{
	CHECK_FOR_INTERRUPTS();
	return GetCurrentTimestamp() > round->deadline;
}

/*
 * The statement's cost with the indexes, as a part of its cost without;
 * negative when it can't be told.
 */
static double
price(Statement *statement, List *specs)
{
	double		with = 0;
	double		without = 0;

	for (int i = 0; i < statement->num_samples; i++)
	{
		Cost		cost;

		if (statement->base[i] > 0 &&
			perfopt_what_if_cost(statement->samples[i], specs, NIL, &cost, NULL))
		{
			with += cost;
			without += statement->base[i];
		}
	}
	return without > 0 ? with / without : -1;
}

/* Plan as things are, and learn which indexes may help. */
static void
price_base(Statement *statement)
{
	double		sum = 0;
	int			priced = 0;

	for (int i = 0; i < statement->num_samples; i++)
	{
		if (perfopt_what_if_cost(statement->samples[i], NIL, NIL, &statement->base[i],
								 &statement->candidates))
		{
			sum += statement->base[i];
			priced++;
		}
		else
			statement->base[i] = -1;
	}
	statement->candidates = perfopt_candidates_settle(statement->candidates, priced);
	statement->base_cost = priced > 0 ? sum / priced : 0;
	statement->ratio = 1;
}

static bool
load_statement(Statement *statement, StatementHistory *history)
{
	PlanSample *buffer = palloc(sizeof(PlanSample));

	memset(statement, 0, sizeof(*statement));
	statement->history = history;
	while (statement->num_samples < SAMPLE_SETS &&
		   perfopt_plan_sample_get(&history->key, statement->num_samples, buffer))
	{
		Size		size = offsetof(PlanSample, data) + buffer->tree_size + buffer->params_size;

		statement->samples[statement->num_samples] = palloc(size);
		memcpy(statement->samples[statement->num_samples++], buffer, size);
	}
	pfree(buffer);
	return statement->num_samples > 0;
}

static int
heavier_first(const void *a, const void *b)
{
	double		left = (*(StatementHistory *const *) a)->recent_ms;
	double		right = (*(StatementHistory *const *) b)->recent_ms;

	return left < right ? 1 : left > right ? -1 : 0;
}

/*
 * The statements worth looking at, heaviest first, priced as things are.
 */
static void
load_workload(Round *round, double decay)
{
	PerfoptQueryKey *keys;
	int			num_keys = perfopt_plan_sample_keys(MyDatabaseId, &keys);
	StatementHistory **histories = palloc(sizeof(StatementHistory *) * Max(num_keys, 1));
	int			num = 0;
	double		database_ms = perfopt_database_total_ms(MyDatabaseId);

	if (database_ms < last_database_ms)
		last_database_ms = recent_database_ms = 0;
	recent_database_ms = recent_database_ms * decay + (database_ms - last_database_ms);
	last_database_ms = database_ms;

	for (int i = 0; i < num_keys; i++)
	{
		PerfoptQueryCost cost;

		if (perfopt_query_cost(&keys[i], &cost) && cost.calls > 0)
			histories[num++] = update_statement(&keys[i], &cost, decay);
	}
	qsort(histories, num, sizeof(StatementHistory *), heavier_first);

	round->statements = palloc(sizeof(Statement) * Max(Min(num, MAX_STATEMENTS), 1));
	for (int i = 0; i < num && round->num_statements < MAX_STATEMENTS; i++)
	{
		StatementHistory *history = histories[i];
		Statement  *statement = &round->statements[round->num_statements];

		if (history->recent_ms < recent_database_ms * perfopt_advice_min_share / 100)
			break;
		if (out_of_time(round))
		{
			round->cut_short = true;
			break;
		}
		if (!load_statement(statement, history))
			continue;
		price_base(statement);
		if (statement->base_cost <= 0)
			continue;
		if (statement->base_cost < history->base_cost * PLAN_CHANGED)
		{
			recent_database_ms = Max(0, recent_database_ms - history->recent_ms);
			history->recent_ms = history->recent_calls = 0;
		}
		history->base_cost = statement->base_cost;
		if (history->recent_ms > 0)
			round->num_statements++;
	}
	round->database_ms = recent_database_ms;
}

/*
 * Candidates
 */

/* What the index would cost in writes, and its size; false: not to be made. */
static bool
assess(Candidate *candidate, double decay)
{
	Relation	relation = perfopt_index_spec_open(&candidate->spec);
	const IndexSize *size;
	double		live_rows;
	bool		good;

	if (relation == NULL)
		return false;
	good = !perfopt_index_exists(relation, &candidate->spec);
	if (good)
	{
		live_rows = relation->rd_rel->reltuples;
		size = &perfopt_index_facts(relation, live_rows, &candidate->spec)->size;
		good = size->possible;
		candidate->bytes = size->pages * BLCKSZ;
		candidate->writes_ms = recent_writes(candidate->spec.relid, live_rows, decay) *
			(size->pages > NBuffers / 2 ? WRITE_UNCACHED_MS : WRITE_MS);
	}
	relation_close(relation, AccessShareLock);
	return good;
}

static void
gather_candidates(Round *round, double decay)
{
	int			most = 0;

	for (int i = 0; i < round->num_statements; i++)
		most += list_length(round->statements[i].candidates);
	round->candidates = palloc0(sizeof(Candidate) * Max(most, 1));

	for (int i = 0; i < round->num_statements; i++)
	{
		Statement  *statement = &round->statements[i];
		ListCell   *lc;

		foreach(lc, statement->candidates)
		{
			IndexSpec  *spec = lfirst(lc);
			Candidate  *candidate = NULL;

			for (int c = 0; c < round->num_candidates && candidate == NULL; c++)
				if (perfopt_index_spec_equal(&round->candidates[c].spec, spec))
					candidate = &round->candidates[c];
			if (candidate == NULL)
			{
				candidate = &round->candidates[round->num_candidates++];
				candidate->spec = *spec;
				candidate->priced_with = -1;
				candidate->effects = palloc(sizeof(Effect) * round->num_statements);
			}
			candidate->spec.order_only = candidate->spec.order_only && spec->order_only;
			candidate->effects[candidate->num_effects++].statement = statement;
			candidate->saved_ms += statement->history->recent_ms;
		}
	}

	/*
	 * Sampling a table takes time; what there is none for comes in a later
	 * round, as what has been learnt is kept.
	 */
	set_deadline(round);
	for (int c = 0; c < round->num_candidates; c++)
	{
		Candidate  *candidate = &round->candidates[c];

		candidate->dead = true;
		if (candidate->saved_ms < round->database_ms * perfopt_advice_min_share)
			continue;
		if (out_of_time(round))
			round->cut_short = true;
		else
			candidate->dead = !assess(candidate, decay) ||
				candidate->saved_ms <= candidate->writes_ms;
	}
}

/* What is chosen, without what the candidate would make superfluous. */
static List *
chosen_specs(Round *round, Candidate *candidate)
{
	List	   *specs = NIL;
	ListCell   *lc;

	foreach(lc, round->chosen)
	{
		Candidate  *chosen = lfirst(lc);

		if (candidate == NULL ||
			!perfopt_index_spec_serves(&candidate->spec, &chosen->spec))
			specs = lappend(specs, &chosen->spec);
	}
	return specs;
}

/* What was chosen that the candidate would make superfluous, or NULL. */
static Candidate *
chosen_prefix(Round *round, Candidate *candidate)
{
	ListCell   *lc;

	foreach(lc, round->chosen)
	{
		Candidate  *chosen = lfirst(lc);

		if (perfopt_index_spec_serves(&candidate->spec, &chosen->spec))
			return chosen;
	}
	return NULL;
}

/* Statements there is no time for are taken not to be helped. */
static void
price_candidate(Round *round, Candidate *candidate)
{
	List	   *specs = lappend(chosen_specs(round, candidate), &candidate->spec);

	candidate->saved_ms = -candidate->writes_ms;
	candidate->best_speedup = 1;
	for (int i = 0; i < candidate->num_effects; i++)
	{
		Effect	   *effect = &candidate->effects[i];
		double		ratio = -1;

		if (out_of_time(round))
			round->cut_short = true;
		else
			ratio = price(effect->statement, specs);
		effect->before = effect->statement->ratio;
		effect->after = ratio < 0 ? effect->before : ratio;
		candidate->saved_ms += (effect->before - effect->after) *
			effect->statement->history->recent_ms;
		if (effect->after > 0)
			candidate->best_speedup = Max(candidate->best_speedup,
										  effect->before / effect->after);
	}
	candidate->priced_with = list_length(round->chosen);
}

/* By this the best candidate is chosen. */
static double
score(const Candidate *candidate)
{
	return candidate->saved_ms /
		(candidate->spec.order_only ? ORDER_HANDICAP :
		 pow(PAIR_HANDICAP, candidate->spec.num_columns - 1 +
			 list_length(candidate->spec.predicate)));
}

/* The best candidate that is worth it, or NULL. */
static Candidate *
best_candidate(Round *round)
{
	double		least = Max(round->database_ms * perfopt_advice_min_share, 1e-6);

	for (;;)
	{
		Candidate  *best = NULL;
		Candidate  *prefix;

		for (int c = 0; c < round->num_candidates; c++)
		{
			Candidate  *candidate = &round->candidates[c];

			if (!candidate->dead && (best == NULL || score(candidate) > score(best)))
				best = candidate;
		}
		if (best == NULL || best->saved_ms < least)
			return NULL;
		if (best->priced_with != list_length(round->chosen))
		{
			price_candidate(round, best);
			continue;
		}
		prefix = chosen_prefix(round, best);
		if (best->best_speedup >= perfopt_advice_min_speedup &&
			(prefix == NULL || best->saved_ms >= prefix->saved_ms * (PAIR_HANDICAP - 1)))
			return best;
		best->dead = true;
	}
}

/*
 * The second column has made the first one's index superfluous: what that
 * one did for statements the new one did not look at is the new one's now.
 */
static void
inherit_effects(Candidate *candidate, Candidate *prefix)
{
	int			own = candidate->num_effects;

	candidate->effects = repalloc(candidate->effects,
								  sizeof(Effect) * (own + prefix->num_effects));
	for (int i = 0; i < prefix->num_effects; i++)
	{
		bool		found = false;

		for (int j = 0; j < own; j++)
		{
			if (candidate->effects[j].statement != prefix->effects[i].statement)
				continue;
			candidate->effects[j].before = prefix->effects[i].before;
			found = true;
		}
		if (!found)
			candidate->effects[candidate->num_effects++] = prefix->effects[i];
	}
	candidate->saved_ms += prefix->saved_ms;
}

static void
choose(Round *round)
{
	Candidate  *candidate;

	set_deadline(round);
	while ((candidate = best_candidate(round)) != NULL)
	{
		Candidate  *prefix = chosen_prefix(round, candidate);

		for (int i = 0; i < candidate->num_effects; i++)
			candidate->effects[i].statement->ratio = candidate->effects[i].after;
		if (prefix)
		{
			inherit_effects(candidate, prefix);
			round->chosen = list_delete_ptr(round->chosen, prefix);
		}
		round->chosen = lappend(round->chosen, candidate);
		candidate->dead = true;
		if (prefix)
		{
			/* keep old figures from looking fresh */
			for (int c = 0; c < round->num_candidates; c++)
				round->candidates[c].priced_with = -1;
		}
	}
}

/*
 * What is told
 */
static int
more_saved_first(const void *a, const void *b)
{
	const Effect *left = a;
	const Effect *right = b;
	double		l = (left->before - left->after) * left->statement->history->recent_ms;
	double		r = (right->before - right->after) * right->statement->history->recent_ms;

	return l < r ? 1 : l > r ? -1 : 0;
}

static double
mean_ms(const Statement *statement)
{
	return statement->history->recent_ms / Max(statement->history->recent_calls, 1);
}

static char *
readable_ms(double ms)
{
	return ms >= 100 ? psprintf("%.0f ms", ms) :
		ms >= 1 ? psprintf("%.1f ms", ms) : psprintf("%.2g ms", Max(ms, 0.001));
}

static const char *const advice_kinds[] = {"create_index", NULL};

/* NULL when the table or a column is gone, or the table is locked by now. */
static AdviceFound *
describe(Round *round, Candidate *candidate)
{
	AdviceFound *found = palloc0(sizeof(AdviceFound));
	StringInfoData evidence;
	StringInfoData columns;
	Effect	   *first;
	double		share = 0;
	bool		any = false;

	found->kind = advice_kinds[0];
	if (!perfopt_advice_name_index(found, &candidate->spec))
		return NULL;

	qsort(candidate->effects, candidate->num_effects, sizeof(Effect), more_saved_first);
	first = &candidate->effects[0];

	initStringInfo(&evidence);
	appendStringInfoString(&evidence, "{\"queries\": [");
	for (int i = 0; i < candidate->num_effects; i++)
	{
		Effect	   *effect = &candidate->effects[i];
		StatementHistory *history = effect->statement->history;
		char	   *role;

		if (effect->after > effect->before * HELPED)
			continue;
		share += history->recent_ms / round->database_ms;
		role = GetUserNameFromId(history->key.role, true);
		appendStringInfo(&evidence, "%s{\"queryid\": %lld, \"role\": ", any ? ", " : "",
						 (long long) history->key.queryid);
		escape_json(&evidence, role ? role : "");
		appendStringInfo(&evidence,
						 ", \"calls\": %.0f, \"mean_ms\": %.4f, \"share\": %.4f"
						 ", \"cost_before\": %.2f, \"cost_after\": %.2f"
						 ", \"predicted_ms\": %.4f}",
						 history->recent_calls, mean_ms(effect->statement),
						 Min(history->recent_ms / round->database_ms, 1),
						 effect->before * effect->statement->base_cost,
						 effect->after * effect->statement->base_cost,
						 effect->after * mean_ms(effect->statement));
		any = true;
	}
	appendStringInfo(&evidence, "], \"saved_share\": %.4f, \"write_cost_share\": %.4f}",
					 Min(candidate->saved_ms / round->database_ms, 1),
					 candidate->writes_ms / round->database_ms);

	initStringInfo(&columns);
	for (int i = 0; i < candidate->spec.num_keys; i++)
	{
		char	   *name = get_attname(candidate->spec.relid, candidate->spec.columns[i].attnum, true);

		appendStringInfo(&columns, "%s%s", i > 0 ? " and " : "",
						 name ? quote_identifier(name) : "an expression");
	}

	found->predicted_gain = Min(candidate->saved_ms / round->database_ms, 1);
	found->bytes = candidate->bytes;
	found->evidence = evidence.data;
	found->reason =
		psprintf("Statements that %s %s %s %s take %s a call and %.0f %% of the statement time; with this index about %s a call.",
				 candidate->spec.order_only ? "read" : "look up",
				 quote_qualified_identifier(found->schema_name, found->table_name),
				 candidate->spec.order_only ? "in the order of" : "by",
				 columns.data,
				 readable_ms(mean_ms(first->statement)),
				 Min(share, 1) * 100,
				 readable_ms(mean_ms(first->statement) * first->after));
	return found;
}

/* The duty. */
static void
advise(void)
{
	Round		round = {0};
	TimestampTz now = GetCurrentTimestamp();
	double		decay;
	AdviceFinding finding = {.kinds = advice_kinds};
	Datum	   *queryids;
	ListCell   *lc;

	if (!perfopt_advisor_enabled)
		return;

	open_history();
	round_number++;
	decay = last_round == 0 ? 1 :
		pow(0.5, Max(now - last_round, 0) / 1000.0 / HALF_LIFE_MS);
	last_round = now;

	set_deadline(&round);
	load_workload(&round, decay);
	PERFOPT_STOP_POINT("advise-priced");
	gather_candidates(&round, decay);
	choose(&round);
	purge_history();

	PERFOPT_STOP_POINT("advise-chosen");
	foreach(lc, round.chosen)
	{
		AdviceFound *advice = describe(&round, lfirst(lc));

		if (advice)
			finding.found = lappend(finding.found, advice);
	}

	/* A round that was cut short judges no older advice. */
	if (round.cut_short)
		round.num_statements = 0;
	queryids = palloc(sizeof(Datum) * Max(round.num_statements, 1));
	for (int i = 0; i < round.num_statements; i++)
		queryids[i] = Int64GetDatum((int64) round.statements[i].history->key.queryid);
	finding.priced_queryids = PointerGetDatum(construct_array(queryids, round.num_statements,
															  INT8OID, 8, true, TYPALIGN_DOUBLE));
	perfopt_advice_store(&finding);
}

void
perfopt_rounds_init(void)
{
	static const PerfoptDuty duty = {
		.name = "advise",
		.interval_ms = &perfopt_advice_interval,
		.writes = true,
		.run = advise
	};

	perfopt_duty_register(&duty);
}

PG_FUNCTION_INFO_V1(perfopt_analyze_now);

/* analyze_now(): a round in the worker, then the number of open advices. */
Datum
perfopt_analyze_now(PG_FUNCTION_ARGS)
{
	int64		count;
	bool		isnull;

	perfopt_require_preload();
	perfopt_duty_run_now("advise", ANALYZE_NOW_TIMEOUT_MS);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute("SELECT count(*) FROM perfopt.advice_item WHERE status OPERATOR(pg_catalog.=) 'open'",
					false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not count advice");
	count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
										&isnull));
	SPI_finish();
	PG_RETURN_INT32((int32) count);
}
