/*
 * workload.c
 *		The statements that this database runs, and what its tables are written,
 *		weighted by how long ago.
 *
 * The workload is the sampled statements, each with the time that the monitor
 * has counted for it.  Older time counts less (it halves every hour), and when
 * a statement's plan has become much cheaper since the last round, because an
 * index was built for it, its time so far no longer counts at all: it was spent
 * under another plan.
 *
 * State between rounds is in the worker's own memory, one entry for each
 * sampled statement and each table that an index was thought of for.
 */
#include "postgres.h"

#include "advisor/workload.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "advisor/candidates.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "common/settings.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define HALF_LIFE_MS		(3600.0 * 1000)

/* The heaviest statements that a round looks at. */
#define MAX_STATEMENTS		500

/* A plan has become another when its cost has fallen below this part. */
#define PLAN_CHANGED		0.5

/* Samples nearer to each other may be of the same run of one program. */
#define BURST				(30 * USECS_PER_SEC)

/* A table that no index was thought of for in so many rounds is forgotten. */
#define TABLE_ROUNDS		60

/* What is remembered of a statement. */
typedef struct StatementHistory
{
	PerfoptQueryKey key;
	uint64		round;			/* last seen in */
	int64		calls;			/* the monitor's counters then */
	int64		rows;
	double		total_ms;
	double		recent_calls;	/* decayed */
	double		recent_rows;
	double		recent_ms;
	double		base_cost;		/* of its plan then; 0: not known */
	int			num_tables;		/* that it was over */
	Oid			tables[SAMPLE_MAX_RELS];
	Oid			updated;		/* table of an UPDATE ... */
	Bitmapset  *set;			/* ... that sets these columns */
} StatementHistory;

/* A table's counters of rows. */
typedef struct RowCounters
{
	double		inserted;
	double		updated;		/* not HOT */
	double		hot_updated;
	double		deleted;
} RowCounters;

/* What is remembered of a table's writes. */
typedef struct TableHistory
{
	Oid			relid;
	uint64		round;
	RowCounters seen;			/* the statistics' counters then */
	RowCounters recent;			/* decayed */
} TableHistory;

static MemoryContext history_context = NULL;
static HTAB *statement_history = NULL;
static HTAB *table_history = NULL;
static uint64 round_number = 0;
static double decay = 1;		/* since the last round */
static TimestampTz last_round = 0;
static double last_database_ms = 0;
static double recent_database_ms = 0;
static double recent_hours = 0;

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

void
perfopt_workload_begin(void)
{
	TimestampTz now = GetCurrentTimestamp();
	double		database_ms = perfopt_database_total_ms(MyDatabaseId);
	double		elapsed_ms;

	open_history();
	round_number++;
	/* the monitor has counted since the server was started, or later */
	elapsed_ms = Max(now - (last_round == 0 ? PgStartTime : last_round), 0) / 1000.0;
	decay = last_round == 0 ? 1 : pow(0.5, elapsed_ms / HALF_LIFE_MS);
	last_round = now;
	recent_hours = recent_hours * decay + elapsed_ms / (3600 * 1000);

	if (database_ms < last_database_ms)
		last_database_ms = recent_database_ms = 0;
	recent_database_ms = recent_database_ms * decay + (database_ms - last_database_ms);
	last_database_ms = database_ms;
}

/* Statements that are no longer sampled, and tables without candidates. */
void
perfopt_workload_end(void)
{
	HASH_SEQ_STATUS seq;
	StatementHistory *statement;
	TableHistory *table;

	hash_seq_init(&seq, statement_history);
	while ((statement = hash_seq_search(&seq)) != NULL)
	{
		if (statement->round == round_number)
			continue;
		bms_free(statement->set);
		hash_search(statement_history, &statement->key, HASH_REMOVE, NULL);
	}
	hash_seq_init(&seq, table_history);
	while ((table = hash_seq_search(&seq)) != NULL)
		if (table->round + TABLE_ROUNDS < round_number)
			hash_search(table_history, &table->relid, HASH_REMOVE, NULL);
}

/* Which columns does an UPDATE set? */
static void
learn_columns_set(StatementHistory *history)
{
	PlanSample *sample = palloc(sizeof(PlanSample));
	MemoryContext old_context;

	if (perfopt_plan_sample_get(&history->key, 0, sample) && OidIsValid(sample->updated))
	{
		old_context = MemoryContextSwitchTo(history_context);
		history->updated = sample->updated;
		for (int i = 0; i < sample->num_set; i++)
			history->set = bms_add_member(history->set, sample->set[i] -
										  FirstLowInvalidHeapAttributeNumber);
		/* too many to be kept: it may be any */
		if (sample->num_set < 0)
			history->set = bms_add_range(NULL, 1 - FirstLowInvalidHeapAttributeNumber,
										 MaxHeapAttributeNumber - FirstLowInvalidHeapAttributeNumber);
		MemoryContextSwitchTo(old_context);
	}
	pfree(sample);
}

static StatementHistory *
update_statement(const PerfoptQueryKey *key, const PerfoptQueryCost *cost)
{
	bool		found;
	StatementHistory *history = hash_search(statement_history, key, HASH_ENTER, &found);

	if (!found)
	{
		memset(history, 0, sizeof(*history));
		history->key = *key;
		learn_columns_set(history);
	}
	if (cost->calls < history->calls || cost->total_ms < history->total_ms)
	{
		/* the counters were reset: somebody wants a fresh start */
		history->calls = history->rows = 0;
		history->total_ms = 0;
		history->recent_calls = history->recent_rows = history->recent_ms = 0;
	}
	history->round = round_number;
	history->recent_calls = history->recent_calls * decay + (cost->calls - history->calls);
	history->recent_rows = history->recent_rows * decay + Max(cost->rows - history->rows, 0);
	history->recent_ms = history->recent_ms * decay + (cost->total_ms - history->total_ms);
	history->calls = cost->calls;
	history->rows = cost->rows;
	history->total_ms = cost->total_ms;
	return history;
}

/*
 * Writes
 */
static void
advance(double *recent, double *seen, double now)
{
	if (now < *seen)
		*seen = 0;
	*recent = *recent * decay + (now - *seen);
	*seen = now;
}

/* Negative: nobody has counted them. */
static double
live_rows(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	double		rows = -1;

	if (HeapTupleIsValid(tuple))
	{
		rows = ((Form_pg_class) GETSTRUCT(tuple))->reltuples;
		ReleaseSysCache(tuple);
	}
	return rows;
}

static TableHistory *
update_table(Oid relid)
{
	double		rows = live_rows(relid);
	bool		found;
	TableHistory *history = hash_search(table_history, &relid, HASH_ENTER, &found);
	PgStat_StatTabEntry *stats = pgstat_fetch_stat_tabentry(relid);
	RowCounters now = {0};

	if (stats)
	{
		now.inserted = stats->tuples_inserted;
		now.updated = stats->tuples_updated - stats->tuples_hot_updated;
		now.hot_updated = stats->tuples_hot_updated;
		now.deleted = stats->tuples_deleted;
	}
	if (!found)
	{
		memset(history, 0, sizeof(*history));
		history->relid = relid;

		/*
		 * The rows a table had when it was first looked at are not held
		 * against it: they may have been loaded at once.
		 */
		history->seen.inserted = rows < 0 ? now.inserted : Min(now.inserted, rows);
	}
	if (history->round != round_number)
	{
		advance(&history->recent.inserted, &history->seen.inserted, now.inserted);
		advance(&history->recent.updated, &history->seen.updated, now.updated);
		advance(&history->recent.hot_updated, &history->seen.hot_updated, now.hot_updated);
		advance(&history->recent.deleted, &history->seen.deleted, now.deleted);
		history->round = round_number;
	}
	return history;
}

/* Columns that an UPDATE of a partition sets, by the numbers of the whole. */
static Bitmapset *
columns_of_whole(Oid whole, Oid partition, Bitmapset *set)
{
	Bitmapset  *mapped = NULL;
	int			i = -1;

	if (whole == partition)
		return set;
	while ((i = bms_next_member(set, i)) >= 0)
	{
		char	   *name = get_attname(partition, i + FirstLowInvalidHeapAttributeNumber, true);
		AttrNumber	attnum = name ? get_attnum(whole, name) : InvalidAttrNumber;

		if (attnum > 0)
			mapped = bms_add_member(mapped, attnum - FirstLowInvalidHeapAttributeNumber);
	}
	return mapped;
}

/* A partitioned table has no counters of its own. */
void
perfopt_workload_writes(Oid relid, TableWrites *writes)
{
	List	   *tables = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
	find_all_inheritors(relid, NoLock, NULL) : list_make1_oid(relid);
	HASH_SEQ_STATUS seq;
	StatementHistory *statement;
	ListCell   *lc;

	memset(writes, 0, sizeof(*writes));
	foreach(lc, tables)
	{
		TableHistory *table = update_table(lfirst_oid(lc));

		CHECK_FOR_INTERRUPTS();
		writes->inserted += table->recent.inserted;
		writes->updated += table->recent.updated;
		writes->hot_updated += table->recent.hot_updated;
		writes->deleted += table->recent.deleted;
	}
	if (writes->hot_updated <= 0)
		return;
	hash_seq_init(&seq, statement_history);
	while ((statement = hash_seq_search(&seq)) != NULL)
	{
		ColumnUpdates *updates;

		if (!OidIsValid(statement->updated) || !list_member_oid(tables, statement->updated))
			continue;
		updates = palloc(sizeof(ColumnUpdates));
		updates->columns = columns_of_whole(relid, statement->updated, statement->set);
		updates->rows = statement->recent_rows;
		writes->column_updates = lappend(writes->column_updates, updates);
	}
}

/*
 * Loading
 */
static bool
load_samples(WorkloadStatement *statement)
{
	PlanSample *buffer = palloc(sizeof(PlanSample));

	while (statement->num_samples < SAMPLE_SETS &&
		   perfopt_plan_sample_get(&statement->key, statement->num_samples, buffer))
	{
		Size		size = offsetof(PlanSample, data) + buffer->tree_size + buffer->params_size;

		statement->samples[statement->num_samples] = palloc(size);
		memcpy(statement->samples[statement->num_samples++], buffer, size);
	}
	pfree(buffer);
	return statement->num_samples > 0;
}

/* Some program may have run it with the same constants for a moment. */
static bool
of_one_burst(const WorkloadStatement *statement)
{
	for (int i = 0; i < statement->num_samples; i++)
		for (int j = 0; j < i; j++)
		{
			TimestampTz apart = statement->samples[i]->captured_at -
			statement->samples[j]->captured_at;

			if (apart < BURST && apart > -BURST)
				return true;
		}
	return statement->num_samples < SAMPLE_SETS;
}

/*
 * From 18 on a statement over a table that was made anew is the same as that over
 * the one before.  That it costs less does not come of an index.
 */
static void
forget_cost_if_dropped(StatementHistory *history, const WorkloadStatement *statement)
{
	bool		dropped = false;

	for (int i = 0; i < history->num_tables && !dropped; i++)
		dropped = !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(history->tables[i]));
	if (dropped)
		history->base_cost = 0;
	for (int i = 0; i < statement->num_samples; i++)
	{
		const PlanSample *sample = statement->samples[i];

		if (statement->costs[i] < 0)
			continue;
		history->num_tables = sample->num_rels;
		for (int j = 0; j < sample->num_rels; j++)
			history->tables[j] = sample->rels[j].relid;
		break;
	}
}

/* Plan as things are, and learn which indexes may help. */
static void
price_as_it_is(WorkloadStatement *statement)
{
	double		sum = 0;
	int			priced = 0;

	for (int i = 0; i < statement->num_samples; i++)
	{
		if (perfopt_what_if_cost(statement->samples[i], NIL, NIL, &statement->costs[i],
								 &statement->candidates))
		{
			sum += statement->costs[i];
			priced++;
		}
		else
			statement->costs[i] = -1;
	}
	statement->candidates =
		perfopt_candidates_prefixed(perfopt_candidates_settle(statement->candidates, priced));
	statement->cost = priced > 0 ? sum / priced : 0;
}

static int
heavier_first(const void *a, const void *b)
{
	double		left = (*(StatementHistory *const *) a)->recent_ms;
	double		right = (*(StatementHistory *const *) b)->recent_ms;

	return left < right ? 1 : left > right ? -1 : 0;
}

void
perfopt_workload_load(Workload *workload, bool (*out_of_time) (void *arg), void *arg)
{
	PerfoptQueryKey *keys;
	int			num_keys = perfopt_plan_sample_keys(MyDatabaseId, &keys);
	StatementHistory **histories = palloc(sizeof(StatementHistory *) * Max(num_keys, 1));
	double		least = Min(recent_database_ms * perfopt_advice_min_share / 100,
							FAST_MS_PER_HOUR * Max(recent_hours, 1));
	int			num = 0;

	for (int i = 0; i < num_keys; i++)
	{
		PerfoptQueryCost cost;

		if (perfopt_query_cost(&keys[i], &cost) && cost.calls > 0)
			histories[num++] = update_statement(&keys[i], &cost);
	}
	qsort(histories, num, sizeof(StatementHistory *), heavier_first);

	memset(workload, 0, sizeof(*workload));
	workload->statements = palloc0(sizeof(WorkloadStatement) * Max(Min(num, MAX_STATEMENTS), 1));
	for (int i = 0; i < num && workload->num < MAX_STATEMENTS; i++)
	{
		StatementHistory *history = histories[i];
		WorkloadStatement *statement = &workload->statements[workload->num];

		if (history->recent_ms < least)
			break;
		if (out_of_time(arg))
		{
			workload->cut_short = true;
			break;
		}
		memset(statement, 0, sizeof(*statement));
		statement->key = history->key;
		if (!load_samples(statement))
			continue;
		price_as_it_is(statement);
		if (statement->cost <= 0)
			continue;
		statement->one_burst = of_one_burst(statement);
		forget_cost_if_dropped(history, statement);
		if (statement->cost < history->base_cost * PLAN_CHANGED)
		{
			recent_database_ms = Max(0, recent_database_ms - history->recent_ms);
			history->recent_ms = history->recent_calls = 0;
		}
		history->base_cost = statement->cost;
		statement->ms = history->recent_ms;
		statement->calls = history->recent_calls;
		if (statement->ms > 0)
			workload->num++;
	}
	workload->ms = recent_database_ms;
	workload->hours = recent_hours;
}
