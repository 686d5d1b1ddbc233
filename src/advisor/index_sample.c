/*
 * index_sample.c
 *		The entries that an index which does not exist would have for the rows
 *		of a table's sample, and the statistics of its expressions.
 *
 * Entries are formed as the server forms them, so that their size has its
 * alignment, null bitmap, short headers and compression; of their content only
 * a hash is kept, to tell equal ones.  Statistics of expressions are computed by
 * the server's own routines for ANALYZE.
 *
 * Reading a table may fail, and expressions, predicates and operator classes
 * call functions: see as_owner.c.  Those of expressions and predicates are called
 * only if they belong to a superuser, or to the table's owner and the statement is
 * being priced under the timeouts of a what-if; with others the index is
 * estimated without a sample, as it is for a session that asks about a table
 * which it may not read all rows of.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include <math.h>

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/itup.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_statistic.h"
#include "catalog/pg_type.h"
#include "commands/vacuum.h"
#include "common/compat.h"
#include "common/hashfn.h"
#include "common/test_clock.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* A value that no btree index takes, whatever compression does. */
#define TOO_WIDE			(BLCKSZ - 256)

/* Widths of parts of the key are averaged over every so many rows. */
#define PART_EVERY			8

/* Of the time one looks at the clock every so many rows. */
#define CLOCK_EVERY			64

/*
 * Where equal keys are not kept together all that counts is how wide entries
 * are, which every so many rows tell.
 */
#define WIDTH_EVERY			6

/* Forming entries may take so long, of values that are stored out of line, say. */
#define ENTRIES_MS			1000

/* ... and those of GIN, which are fewer when it takes long. */
#define GIN_ENTRIES_MS		1500

/* The table's rows, and one entry, may take longer than that, but all of it not. */
#define ALL_MS				5000

/* Keys of GIN are gathered so long, and so many, as rows that are tried tell. */
#define GIN_MS				500
#define GIN_ENTRIES			600000
#define GIN_TRIED			200

/* Entries that a partial index should have, to judge it by them. */
#define ENTRIES_ENOUGH		5000

/* Values of one expression. */
typedef struct ExprValues
{
	Datum	   *values;
	bool	   *nulls;
} ExprValues;

/*
 * The type that the index stores of a column: a few operator classes store
 * another one than they index.
 */
static Oid
stored_type(const IndexColumn *column)
{
	HeapTuple	tuple;
	Oid			type = column->type;

	if (!OidIsValid(column->opclass))
		return type;
	tuple = SearchSysCache1(CLAOID, ObjectIdGetDatum(column->opclass));
	if (HeapTupleIsValid(tuple))
	{
		Oid			key_type = ((Form_pg_opclass) GETSTRUCT(tuple))->opckeytype;

		/* of a polymorphic class it is the column's after all */
		if (OidIsValid(key_type) &&
			(key_type == CSTRINGOID || get_typtype(key_type) != TYPTYPE_PSEUDO))
			type = key_type;
		ReleaseSysCache(tuple);
	}
	return type;
}

/* Of a range, BRIN keeps two values of each column, with a head of the same size. */
static TupleDesc
range_desc(const IndexSpec *spec)
{
	TupleDesc	desc = CreateTemplateTupleDesc(2 * spec->num_keys);

	for (int i = 0; i < 2 * spec->num_keys; i++)
		TupleDescInitEntry(desc, i + 1, NULL, spec->columns[i / 2].type,
						   spec->columns[i / 2].typmod, 0);
	perfopt_tuple_desc_complete(desc);
	return desc;
}

static TupleDesc
entry_desc(const IndexSpec *spec, int num_columns)
{
	TupleDesc	desc = CreateTemplateTupleDesc(num_columns);

	for (int i = 0; i < num_columns; i++)
	{
		Oid			type = stored_type(&spec->columns[i]);

		TupleDescInitEntry(desc, i + 1, NULL, type,
						   type == spec->columns[i].type ? spec->columns[i].typmod : -1, 0);
	}
	perfopt_tuple_desc_complete(desc);
	return desc;
}

/* Aligned size of an entry of these columns only. */
static Size
part_size(TupleDesc desc, Datum *values, bool *nulls)
{
	IndexTuple	tuple = index_form_tuple(desc, values, nulls);
	Size		size = MAXALIGN(IndexTupleSize(tuple));

	pfree(tuple);
	return size;
}

static uint64
hash_entry(IndexTuple tuple)
{
	return hash_bytes_extended((unsigned char *) tuple + sizeof(IndexTupleData),
							   IndexTupleSize(tuple) - sizeof(IndexTupleData),
							   IndexTupleHasNulls(tuple));
}

/*
 * Statistics
 */
static Datum
fetch_value(VacAttrStatsP stats, int rownum, bool *isnull)
{
	*isnull = stats->exprnulls[rownum];
	return stats->exprvals[rownum];
}

static HeapTuple
statistics_tuple(const VacAttrStats * stats)
{
	Relation	catalog = table_open(StatisticRelationId, AccessShareLock);
	Datum		values[Natts_pg_statistic] = {0};
	bool		nulls[Natts_pg_statistic] = {0};
	HeapTuple	tuple;

	values[Anum_pg_statistic_staattnum - 1] = Int16GetDatum(1);
	values[Anum_pg_statistic_stanullfrac - 1] = Float4GetDatum(stats->stanullfrac);
	values[Anum_pg_statistic_stawidth - 1] = Int32GetDatum(stats->stawidth);
	values[Anum_pg_statistic_stadistinct - 1] = Float4GetDatum(stats->stadistinct);
	for (int k = 0; k < STATISTIC_NUM_SLOTS; k++)
	{
		int			numbers = Anum_pg_statistic_stanumbers1 - 1 + k;
		int			vals = Anum_pg_statistic_stavalues1 - 1 + k;

		values[Anum_pg_statistic_stakind1 - 1 + k] = Int16GetDatum(stats->stakind[k]);
		values[Anum_pg_statistic_staop1 - 1 + k] = ObjectIdGetDatum(stats->staop[k]);
		values[Anum_pg_statistic_stacoll1 - 1 + k] = ObjectIdGetDatum(stats->stacoll[k]);
		nulls[numbers] = stats->numnumbers[k] <= 0;
		nulls[vals] = stats->numvalues[k] <= 0;
		if (!nulls[numbers])
		{
			Datum	   *datums = palloc(sizeof(Datum) * stats->numnumbers[k]);

			for (int i = 0; i < stats->numnumbers[k]; i++)
				datums[i] = Float4GetDatum(stats->stanumbers[k][i]);
			values[numbers] =
				PointerGetDatum(construct_array(datums, stats->numnumbers[k], FLOAT4OID,
												sizeof(float4), true, TYPALIGN_INT));
		}
		if (!nulls[vals])
			values[vals] =
				PointerGetDatum(construct_array(stats->stavalues[k], stats->numvalues[k],
												stats->statypid[k], stats->statyplen[k],
												stats->statypbyval[k], stats->statypalign[k]));
	}
	tuple = heap_form_tuple(RelationGetDescr(catalog), values, nulls);
	table_close(catalog, AccessShareLock);
	return tuple;
}

/* What ANALYZE would find out of these values; NULL: nothing. */
static HeapTuple
compute_statistics(const IndexColumn *column, const ExprValues *values, int num, double total)
{
	VacAttrStats *stats = palloc0(sizeof(VacAttrStats));
	HeapTuple	type = SearchSysCacheCopy1(TYPEOID, ObjectIdGetDatum(column->type));

	if (!HeapTupleIsValid(type) || num == 0)
		return NULL;
	stats->attrtypid = column->type;
	stats->attrtypmod = column->typmod;
	stats->attrtype = (Form_pg_type) GETSTRUCT(type);
	stats->attrcollid = column->collation;
	stats->anl_context = CurrentMemoryContext;
	stats->tupattnum = 1;
	perfopt_use_default_statistics_target(stats);
	for (int k = 0; k < STATISTIC_NUM_SLOTS; k++)
	{
		stats->statypid[k] = stats->attrtypid;
		stats->statyplen[k] = stats->attrtype->typlen;
		stats->statypbyval[k] = stats->attrtype->typbyval;
		stats->statypalign[k] = stats->attrtype->typalign;
	}
	if (!(OidIsValid(stats->attrtype->typanalyze) ?
		  DatumGetBool(OidFunctionCall1(stats->attrtype->typanalyze, PointerGetDatum(stats))) :
		  std_typanalyze(stats)) ||
		stats->compute_stats == NULL)
		return NULL;
	stats->exprvals = values->values;
	stats->exprnulls = values->nulls;
	stats->rowstride = 1;
	stats->compute_stats(stats, fetch_value, num, total);
	return stats->stats_valid ? statistics_tuple(stats) : NULL;
}

/*
 * Entries
 */
/* What it takes to form entries. */
typedef struct Former
{
	const IndexSpec *spec;
	ExprContext *econtext;
	TupleTableSlot *slot;
	ExprState  *predicate;
	ExprState **exprs;			/* a column; NULL where it is none */
	TupleDesc	desc;
	TupleDesc	key_desc;
	TupleDesc	first_desc;
	int16	   *lengths;		/* of the columns' types */
	TimestampTz deadline;
	int			rows;			/* so far */

	/* of the row formed last */
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];
	bool		too_wide;
} Former;

static void
prepare_former(Former *former, Relation relation, const IndexSpec *spec, EState *estate)
{
	memset(former, 0, sizeof(*former));
	former->spec = spec;
	former->econtext = GetPerTupleExprContext(estate);
	former->slot = MakeSingleTupleTableSlot(RelationGetDescr(relation), &TTSOpsHeapTuple);
	former->predicate = ExecPrepareQual(spec->predicate, estate);
	former->exprs = palloc0(sizeof(ExprState *) * spec->num_columns);
	for (int i = 0; i < spec->num_columns; i++)
		if (spec->columns[i].expr)
			former->exprs[i] = ExecPrepareExpr((Expr *) spec->columns[i].expr, estate);
	former->lengths = palloc(sizeof(int16) * spec->num_columns);
	for (int i = 0; i < spec->num_columns; i++)
		former->lengths[i] = get_typlen(spec->columns[i].type);
	former->desc = spec->am == BRIN_AM_OID ? range_desc(spec) :
		entry_desc(spec, spec->num_columns);
	former->key_desc = entry_desc(spec, spec->num_keys);
	former->first_desc = entry_desc(spec, 1);
	former->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   PERFOPT_LIMIT_MS(spec->am == GIN_AM_OID ? GIN_ENTRIES_MS : ENTRIES_MS));
}

static void
next_row(Former *former)
{
	CHECK_FOR_INTERRUPTS();
	if (former->rows++ % CLOCK_EVERY == 0 && GetCurrentTimestamp() > former->deadline)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("its entries take too long to form")));
	ResetExprContext(former->econtext);
}

static int
rows_that_meet(const TableSample *sample, Former *former)
{
	int			num = 0;

	former->econtext->ecxt_scantuple = former->slot;
	for (int row = 0; row < sample->num_rows; row++)
	{
		next_row(former);
		ExecStoreHeapTuple(sample->rows[row], former->slot, false);
		num += ExecQual(former->predicate, former->econtext);
	}
	return num;
}

/* Its columns' values, in memory of the row; false: the row is not in the index. */
static bool
form_values(Former *former, HeapTuple row)
{
	ExprContext *econtext = former->econtext;
	MemoryContext old_context;

	next_row(former);
	ExecStoreHeapTuple(row, former->slot, false);
	econtext->ecxt_scantuple = former->slot;
	if (former->predicate && !ExecQual(former->predicate, econtext))
		return false;

	old_context = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	for (int i = 0; i < former->spec->num_columns; i++)
	{
		const IndexColumn *column = &former->spec->columns[i];

		if (column->attnum != 0)
			former->values[i] = slot_getattr(former->slot, column->attnum, &former->nulls[i]);
		else
			former->values[i] = ExecEvalExpr(former->exprs[i], econtext, &former->nulls[i]);
	}
	MemoryContextSwitchTo(old_context);
	return true;
}

static IndexTuple
form_range(Former *former)
{
	Datum		values[2 * INDEX_MAX_KEYS];
	bool		nulls[2 * INDEX_MAX_KEYS];

	for (int i = 0; i < former->desc->natts; i++)
	{
		values[i] = former->values[i / 2];
		nulls[i] = former->nulls[i / 2];
	}
	return index_form_tuple(former->desc, values, nulls);
}

/* False: the row is not in the index, or too wide for it. */
static bool
form_entry(Former *former, HeapTuple row, IndexEntry *entry)
{
	MemoryContext old_context;
	IndexTuple	tuple;

	if (!form_values(former, row))
		return false;
	for (int i = 0; i < former->spec->num_columns; i++)
		if (!former->nulls[i] && former->lengths[i] == -1 &&
			toast_datum_size(former->values[i]) > TOO_WIDE)
			former->too_wide = true;
	if (former->too_wide)
		return false;

	old_context = MemoryContextSwitchTo(former->econtext->ecxt_per_tuple_memory);
	tuple = former->spec->am == BRIN_AM_OID ? form_range(former) :
		index_form_tuple(former->desc, former->values, former->nulls);
	entry->block = ItemPointerGetBlockNumber(&row->t_self);
	entry->size = MAXALIGN(IndexTupleSize(tuple));
	entry->hash = entry->first_hash = hash_entry(tuple);
	if (former->spec->num_keys > 1)
		entry->first_hash = hash_entry(index_form_tuple(former->first_desc,
														former->values, former->nulls));
	MemoryContextSwitchTo(old_context);
	return true;
}

/* Put values of expressions aside, those of the row formed last. */
static void
keep_values(Former *former, ExprValues *expr_values, int at)
{
	for (int i = 0; i < former->spec->num_columns; i++)
	{
		ExprValues *expr = &expr_values[i];

		if (expr->values == NULL)
			continue;
		expr->nulls[at] = former->nulls[i];
		expr->values[at] = former->nulls[i] ? (Datum) 0 :
			datumCopy(former->values[i], get_typbyval(former->spec->columns[i].type),
					  get_typlen(former->spec->columns[i].type));
	}
}

/* The same of all rows of the sample; values of expressions are put aside. */
static void
form_entries(Former *former, const TableSample *sample, ExprValues *expr_values,
			 IndexEntries *entries)
{
	double		parts = 0;
	int			step = former->spec->am != BTREE_AM_OID || entries->deduplicated ||
	former->predicate || sample->num_rows < ENTRIES_ENOUGH ? 1 : WIDTH_EVERY;

	for (int i = 0; i < former->spec->num_columns; i++)
		if (expr_values[i].values)
			step = 1;
	for (int row = 0; row < sample->num_rows; row += step)
	{
		if (!form_entry(former, sample->rows[row], &entries->entries[entries->num]))
			continue;
		keep_values(former, expr_values, entries->num);
		if (row / step % PART_EVERY == 0)
		{
			entries->key_size += part_size(former->key_desc, former->values, former->nulls);
			entries->first_size += part_size(former->first_desc, former->values, former->nulls);
			parts++;
		}
		entries->num++;
	}
	if (parts > 0)
	{
		entries->key_size /= parts;
		entries->first_size /= parts;
	}
	for (int row = 0; step == 1 && row < sample->num_whole; row++)
		if (form_entry(former, sample->whole[row], &entries->whole[entries->num_whole]))
			entries->num_whole++;
	entries->too_wide = former->too_wide;
	entries->rows_formed = sample->num_rows;
}

static int
add_keys(Former *former, GinKeys *keys)
{
	MemoryContext old_context = MemoryContextSwitchTo(former->econtext->ecxt_per_tuple_memory);
	int			num = perfopt_gin_keys_add(keys, former->values, former->nulls);

	MemoryContextSwitchTo(old_context);
	return num;
}

/*
 * Keys of GIN.  A row may have many, and finding them may take long; then only
 * every so many rows are looked at.  Some rows tell how it is.
 */
static int
rows_to_skip(Former *former, const TableSample *sample, GinKeys *keys)
{
	int			every = Max(sample->num_rows / GIN_TRIED, 1);
	double		tried = 0;
	double		num_keys = 0;
	TimestampTz start = GetCurrentTimestamp();
	double		step;

	for (int row = 0; row < sample->num_rows; row += every)
	{
		if (!form_values(former, sample->rows[row]))
			continue;
		num_keys += add_keys(former, keys);
		tried++;
	}
	if (tried == 0)
		return 1;
	step = Max(num_keys / tried * sample->num_rows / GIN_ENTRIES,
			   (GetCurrentTimestamp() - start) / 1000.0 / tried * sample->num_rows / PERFOPT_LIMIT_MS(GIN_MS));
	return (int) Max(1, ceil(step));
}

static void
form_keys(Former *former, Relation relation, const TableSample *sample, MemoryContext result,
		  ExprValues *expr_values, IndexEntries *entries)
{
	double		rows_of_block = sample->table_rows /
	Max(RelationGetNumberOfBlocks(relation), 1) * sample->fraction;
	GinKeys    *tried = perfopt_gin_keys_begin(former->spec, rows_of_block);
	int			step = rows_to_skip(former, sample, tried);
	MemoryContext old_context = MemoryContextSwitchTo(result);

	entries->gin_keys = perfopt_gin_keys_begin(former->spec, rows_of_block);
	MemoryContextSwitchTo(old_context);
	for (int row = 0; row < sample->num_rows; row += step)
	{
		if (!form_values(former, sample->rows[row]))
			continue;
		keep_values(former, expr_values, entries->num);
		add_keys(former, entries->gin_keys);
		entries->num++;
	}
	for (int row = 0; row < sample->num_whole / step; row++)
	{
		if (!form_values(former, sample->whole[row]))
			continue;
		old_context = MemoryContextSwitchTo(former->econtext->ecxt_per_tuple_memory);
		perfopt_gin_keys_add_whole(entries->gin_keys, former->values, former->nulls,
								   ItemPointerGetBlockNumber(&sample->whole[row]->t_self));
		MemoryContextSwitchTo(old_context);
	}
	entries->rows_formed = (sample->num_rows + step - 1) / step;
}

/* Are equal keys kept together? */
static bool
deduplicates(const IndexSpec *spec)
{
	if (spec->am != BTREE_AM_OID || spec->num_columns > spec->num_keys)
		return false;
	for (int i = 0; i < spec->num_keys; i++)
	{
		const IndexColumn *column = &spec->columns[i];
		Oid			proc = get_opfamily_proc(column->opfamily, column->opcintype,
											 column->opcintype, BTEQUALIMAGE_PROC);

		if (!OidIsValid(proc) ||
			!DatumGetBool(OidFunctionCall1Coll(proc, column->collation,
											   ObjectIdGetDatum(column->opcintype))))
			return false;
	}
	return true;
}

static void
look_at_sample(Relation relation, const TableSample *sample, const IndexSpec *spec,
			   double table_rows, MemoryContext result, IndexEntries *entries)
{
	EState	   *estate = CreateExecutorState();
	ExprValues *expr_values = palloc0(sizeof(ExprValues) * spec->num_columns);
	Former		former;
	MemoryContext old_context;

	prepare_former(&former, relation, spec, estate);
	if (former.predicate && sample->rows_seen > sample->num_rows &&
		rows_that_meet(sample, &former) < ENTRIES_ENOUGH)
	{
		sample = perfopt_table_sample_of_rows(relation, spec->predicate, former.predicate,
											  former.econtext);
		former.predicate = NULL;
	}

	for (int i = 0; i < spec->num_columns; i++)
	{
		if (former.exprs[i] == NULL)
			continue;
		expr_values[i].values = palloc(sizeof(Datum) * Max(sample->num_rows, 1));
		expr_values[i].nulls = palloc(sizeof(bool) * Max(sample->num_rows, 1));
	}
	if (spec->am == GIN_AM_OID)
		form_keys(&former, relation, sample, result, expr_values, entries);
	else
	{
		entries->entries = MemoryContextAlloc(result, sizeof(IndexEntry) * (sample->num_rows + 1));
		entries->whole = MemoryContextAlloc(result, sizeof(IndexEntry) * (sample->num_whole + 1));
		entries->deduplicated = deduplicates(spec);
		form_entries(&former, sample, expr_values, entries);
	}

	entries->rows_looked_at = sample->rows_seen;
	entries->fraction = sample->fraction;
	if (former.predicate && entries->rows_formed > 0)
	{
		entries->rows_looked_at = entries->rows_formed;
		entries->fraction = (double) entries->num / entries->rows_formed;
	}

	for (int i = 0; i < spec->num_columns && !entries->too_wide; i++)
	{
		HeapTuple	tuple;

		if (expr_values[i].values == NULL)
			continue;
		tuple = compute_statistics(&spec->columns[i], &expr_values[i], entries->num,
								   ceil(entries->fraction * table_rows));
		old_context = MemoryContextSwitchTo(result);
		if (entries->statistics == NULL)
			entries->statistics = palloc0(sizeof(HeapTuple) * spec->num_columns);
		entries->statistics[i] = tuple ? heap_copytuple(tuple) : NULL;
		MemoryContextSwitchTo(old_context);
	}
	ExecDropSingleTupleTableSlot(former.slot);
	FreeExecutorState(estate);
}

int
perfopt_by_hash(const void *a, const void *b)
{
	uint64		left = ((const IndexEntry *) a)->hash;
	uint64		right = ((const IndexEntry *) b)->hash;

	return left < right ? -1 : left > right ? 1 : 0;
}

int
perfopt_by_first_hash(const void *a, const void *b)
{
	uint64		left = ((const IndexEntry *) a)->first_hash;
	uint64		right = ((const IndexEntry *) b)->first_hash;

	return left < right ? -1 : left > right ? 1 : perfopt_by_hash(a, b);
}

/* What the rows tell would be told to the session. */
bool
perfopt_may_sample(Relation relation)
{
	Oid			relid = RelationGetRelid(relation);

	return !perfopt_what_if_as_caller() ||
		(pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
		 check_enable_rls(relid, InvalidOid, true) != RLS_ENABLED);
}

static bool
may_evaluate(Relation relation, const IndexSpec *spec)
{
	Oid			role = perfopt_what_if_guarded() ? relation->rd_rel->relowner : InvalidOid;

	for (int i = 0; i < spec->num_columns; i++)
		if (spec->columns[i].expr &&
			(!perfopt_expression_is_trusted(spec->columns[i].expr, role) ||
			 !perfopt_type_is_trusted(spec->columns[i].type, role)))
			return false;
	return spec->predicate == NIL ||
		perfopt_expression_is_trusted((Node *) spec->predicate, role);
}

/* What form_as_owner() is called with, and what it gives. */
typedef struct Forming
{
	Relation	relation;
	const IndexSpec *spec;
	double	   *table_rows;
	MemoryContext result;
	IndexEntries *entries;
	bool		done;
} Forming;

static void
form_as_owner(void *arg)
{
	Forming    *forming = arg;
	const TableSample *sample = perfopt_table_sample(forming->relation);

	if (sample && *forming->table_rows < 0)
		*forming->table_rows = sample->table_rows;
	if (sample && may_evaluate(forming->relation, forming->spec))
	{
		look_at_sample(forming->relation, sample, forming->spec, *forming->table_rows,
					   forming->result, forming->entries);
		forming->done = true;
	}
}

bool
perfopt_index_entries(Relation relation, const IndexSpec *spec, double *table_rows,
					  IndexEntries *entries)
{
	Forming		forming = {
		.relation = relation,
		.spec = spec,
		.table_rows = table_rows,
		.result = CurrentMemoryContext,
		.entries = entries
	};
	char	   *problem;

	memset(entries, 0, sizeof(*entries));
	if (!perfopt_may_sample(relation))
		return false;
	problem = perfopt_as_owner(relation, ALL_MS, form_as_owner, &forming);
	if (problem == NULL)
		return forming.done;
	ereport(DEBUG1,
			(errmsg_internal("perfopt: an index is estimated without a sample: %s", problem)));
	return false;
}
