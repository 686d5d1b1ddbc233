/*
 * index_size.c
 *		How large a btree index that does not exist would be when freshly
 *		built.
 *
 * The estimate follows what CREATE INDEX does (nbtsort.c): leaf pages are
 * filled to 90 %, inner pages to 70 %, and rows with equal keys share a
 * "posting list" tuple of at most about a tenth of a page where the operator
 * classes allow deduplication.  Equal keys are counted from the table's
 * statistics: values among the most common ones have known numbers of rows;
 * the others are taken to be spread at random over the remaining distinct
 * values, so that the number of rows a value has is Poisson-distributed.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/itup.h"
#include "access/nbtree.h"
#include "catalog/pg_am.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_statistic.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#define PAGE_SPACE \
	((double) (BLCKSZ - SizeOfPageHeaderData - MAXALIGN(sizeof(BTPageOpaqueData))))
#define LEAF_SPARE		(BLCKSZ * (100 - BTREE_DEFAULT_FILLFACTOR) / 100)
#define INNER_SPARE		(BLCKSZ * (100 - BTREE_NONLEAF_FILLFACTOR) / 100)

/* the build's limit of a posting list tuple */
#define POSTING_MAX		((double) (MAXALIGN_DOWN(BLCKSZ * 10 / 100) - sizeof(ItemIdData)))

/* What the statistics say of one column. */
typedef struct ColumnStats
{
	double		width;			/* average, as stored, without nulls */
	double		tuple_size;		/* average of a one-column tuple's size */
	double		null_frac;
	double		ndistinct;
	int			num_mcv;
	float4	   *mcv_freqs;
	bool		deduplicates;
} ColumnStats;

/* Does the column's default operator class have an image-equal "="? */
static bool
column_deduplicates(Oid type, Oid collation)
{
	Oid			opclass = GetDefaultOpClass(type, BTREE_AM_OID);
	Oid			opfamily = get_opclass_family(opclass);
	Oid			opcintype = get_opclass_input_type(opclass);
	Oid			proc = get_opfamily_proc(opfamily, opcintype, opcintype,
										 BTEQUALIMAGE_PROC);

	return OidIsValid(proc) &&
		DatumGetBool(OidFunctionCall1Coll(proc, collation,
										  ObjectIdGetDatum(opcintype)));
}

/* Average size of an index tuple made of one of these values alone. */
static void
average_tuple_size(ColumnStats *stats, AttStatsSlot *slot, double *sum, double *weight,
				   double slot_weight)
{
	double		size = 0;

	if (slot->nvalues == 0 || slot_weight <= 0)
		return;
	for (int i = 0; i < slot->nvalues; i++)
		size += MAXALIGN(sizeof(IndexTupleData) +
						 VARSIZE_ANY_EXHDR(DatumGetPointer(slot->values[i])) +
						 (VARSIZE_ANY_EXHDR(DatumGetPointer(slot->values[i])) <= 126 ? 1 : 4));
	*sum += slot_weight * size / slot->nvalues;
	*weight += slot_weight;
}

static void
column_stats(Relation relation, AttrNumber attnum, double tuples, ColumnStats *stats)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(relation), attnum - 1);
	HeapTuple	tuple;
	AttStatsSlot slot;

	memset(stats, 0, sizeof(*stats));
	stats->deduplicates = column_deduplicates(att->atttypid, att->attcollation);
	stats->width = get_typavgwidth(att->atttypid, att->atttypmod);
	stats->ndistinct = Min(tuples, 200);

	tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(RelationGetRelid(relation)),
							Int16GetDatum(attnum), BoolGetDatum(false));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_statistic form = (Form_pg_statistic) GETSTRUCT(tuple);
		double		mcv_total = 0;
		double		sum = 0;
		double		weight = 0;

		stats->null_frac = form->stanullfrac;
		if (form->stawidth > 0)
			stats->width = form->stawidth;
		stats->ndistinct = form->stadistinct < 0 ? -form->stadistinct * tuples :
			form->stadistinct;
		if (get_attstatsslot(&slot, tuple, STATISTIC_KIND_MCV, InvalidOid,
							 ATTSTATSSLOT_NUMBERS | ATTSTATSSLOT_VALUES))
		{
			stats->num_mcv = slot.nnumbers;
			stats->mcv_freqs = palloc(sizeof(float4) * Max(slot.nnumbers, 1));
			for (int i = 0; i < slot.nnumbers; i++)
			{
				stats->mcv_freqs[i] = slot.numbers[i];
				mcv_total += slot.numbers[i];
			}
			if (att->attlen == -1)
				average_tuple_size(stats, &slot, &sum, &weight, mcv_total);
			free_attstatsslot(&slot);
		}
		if (att->attlen == -1 &&
			get_attstatsslot(&slot, tuple, STATISTIC_KIND_HISTOGRAM, InvalidOid,
							 ATTSTATSSLOT_VALUES))
		{
			average_tuple_size(stats, &slot, &sum, &weight,
							   1.0 - stats->null_frac - mcv_total);
			free_attstatsslot(&slot);
		}
		if (weight > 0)
			stats->tuple_size = sum / weight;
		ReleaseSysCache(tuple);
	}
	stats->ndistinct = Max(1, Min(stats->ndistinct, tuples));
	if (stats->tuple_size == 0)
		stats->tuple_size = att->attlen == -1 ?
			sizeof(IndexTupleData) + stats->width + MAXIMUM_ALIGNOF / 2.0 :
			MAXALIGN(sizeof(IndexTupleData) + (Size) stats->width);
}

/*
 * Leaf bytes, line pointers included, of the rows of one key; adds the number
 * of tuples to *tuples.
 */
static double
key_bytes(double rows, double key_size, bool deduplicates, double *tuples)
{
	double		per_posting;
	double		postings;

	if (!deduplicates || rows <= 1)
	{
		*tuples += rows;
		return rows * (key_size + sizeof(ItemIdData));
	}
	per_posting = Max(1, floor((POSTING_MAX - key_size) / sizeof(ItemPointerData)));
	if (rows > per_posting)
	{
		/* full ones */
		postings = rows / per_posting;
		*tuples += postings;
		return postings * (MAXALIGN((Size) (key_size + per_posting * sizeof(ItemPointerData))) +
						   sizeof(ItemIdData));
	}

	/* on average, alignment adds half of what it can in even steps of 2 */
	*tuples += 1;
	return key_size + sizeof(ItemIdData) + 3 + rows * sizeof(ItemPointerData);
}

/* The same of num_keys keys that share the given rows at random. */
static double
random_keys_bytes(double rows, double num_keys, double key_size, bool deduplicates,
				  double *tuples)
{
	double		mean;
	double		lambda;
	double		p;
	double		bytes = 0;
	double		key_tuples = 0;

	if (rows <= 0)
		return 0;
	num_keys = Max(1, Min(num_keys, rows));
	mean = rows / num_keys;
	if (!deduplicates || mean > 20)
	{
		bytes = num_keys * key_bytes(mean, key_size, deduplicates, &key_tuples);
		*tuples += num_keys * key_tuples;
		return bytes;
	}

	/*
	 * Poisson without zero: find lambda with lambda / (1 - exp(-lambda)) =
	 * mean
	 */
	lambda = Max(mean - 1, 1e-6);
	for (int i = 0; i < 50; i++)
		lambda = Max(mean * (1 - exp(-lambda)), 1e-6);
	p = exp(-lambda) / (1 - exp(-lambda));
	for (int k = 1; k <= 80; k++)
	{
		p *= lambda / k;
		bytes += p * key_bytes(k, key_size, true, &key_tuples) * num_keys;
		if (k == 1)
			key_tuples = 0;
	}
	*tuples += num_keys;		/* about: nearly every key is one tuple */
	return bytes;
}

/*
 * Pages that tuples of this average size fill: a page is closed when less than
 * its spare room is left, and its last tuple then moves to the next one.
 * truncated is what the high key loses of that tuple.
 *
 * Whatever the statistics say, an index never has tuples wider than a third of
 * a page: so a page holds two, each level has fewer pages than the one below,
 * and there are not more than a file can have.
 */
static double
pages_filled(double tuples, double tuple_bytes, double spare, double truncated)
{
	double		fill = ceil((PAGE_SPACE - sizeof(ItemIdData) - spare + truncated) / tuple_bytes);
	double		most = floor((PAGE_SPACE - MAXIMUM_ALIGNOF) / tuple_bytes);
	double		per_page = Max(2, Min(fill, most) - 1);

	return Min(ceil(tuples / per_page), MaxBlockNumber);	/* also of NaN */
}

void
perfopt_index_size(Relation relation, double tuples, const IndexSpec *spec,
				   IndexSize *size)
{
	ColumnStats stats[INDEX_MAX_COLUMNS];
	double		key_size;
	double		leaf_bytes;
	double		leaf_tuples = 0;
	double		level_pages;
	bool		deduplicates = true;

	tuples = Max(tuples, 1);
	for (int i = 0; i < spec->num_columns; i++)
	{
		column_stats(relation, spec->attnums[i], tuples, &stats[i]);
		deduplicates = deduplicates && stats[i].deduplicates;
	}

	if (spec->num_columns == 1)
	{
		double		rest = tuples;
		double		rest_distinct = stats[0].ndistinct - stats[0].num_mcv;

		key_size = stats[0].tuple_size;
		leaf_bytes = stats[0].null_frac <= 0 ? 0 :
			key_bytes(tuples * stats[0].null_frac, MAXALIGN(sizeof(IndexTupleData) + 1),
					  deduplicates, &leaf_tuples);
		rest -= tuples * stats[0].null_frac;
		for (int i = 0; i < stats[0].num_mcv; i++)
		{
			double		rows = tuples * stats[0].mcv_freqs[i];

			leaf_bytes += key_bytes(rows, key_size, deduplicates, &leaf_tuples);
			rest -= rows;
		}
		leaf_bytes += random_keys_bytes(rest, rest_distinct, key_size, deduplicates,
										&leaf_tuples);
	}
	else
	{
		double		distinct = 1;
		double		width = 0;

		for (int i = 0; i < spec->num_columns; i++)
		{
			Form_pg_attribute att = TupleDescAttr(RelationGetDescr(relation),
												  spec->attnums[i] - 1);

			distinct *= stats[i].ndistinct;
			if (att->attlen == -1)
				width += stats[i].width;
			else
				width = att_align_nominal((Size) ceil(width), att->attalign) + att->attlen;
		}
		key_size = MAXALIGN(sizeof(IndexTupleData) + (Size) ceil(width));
		leaf_bytes = random_keys_bytes(tuples, distinct, key_size, deduplicates,
									   &leaf_tuples);
	}

	{
		double		tuple_bytes = leaf_bytes / leaf_tuples;

		level_pages = pages_filled(leaf_tuples, tuple_bytes, LEAF_SPARE,
								   Max(0, tuple_bytes - key_size - sizeof(ItemIdData)));
	}
	size->pages = level_pages;
	size->tree_height = 0;
	while (level_pages > 1)
	{
		level_pages = pages_filled(level_pages, key_size + sizeof(ItemIdData),
								   INNER_SPARE, 0);
		size->pages += level_pages;
		size->tree_height++;
	}
	size->pages += 1;			/* the meta page */
}
