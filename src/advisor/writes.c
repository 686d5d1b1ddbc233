/*
 * writes.c
 *		What one more index costs those who write to its table.
 *
 * It gets an entry for each row that is inserted, and for each that is updated
 * unless the update is HOT: the new version of the row is on the same page, and
 * no column of any index has changed.  So an index over columns that updates
 * set costs more than its own entries: those updates are HOT no longer, and
 * the new version gets an entry in every other index too.  A row deleted is
 * looked up in the index later, by vacuum.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/sysattr.h"
#include "catalog/pg_am.h"
#include "nodes/bitmapset.h"
#include "optimizer/optimizer.h"

/* Vacuum removes entries many at a time. */
#define VACUUM_SHARE	0.2

/* What those of other methods cost, in entries of a btree. */
#define GIN_KEY			0.25
#define BRIN_ROW		0.05

List *
perfopt_update_targets(const Query *query)
{
	List	   *targets = NIL;
	ListCell   *lc;

	switch (query->commandType)
	{
		case CMD_UPDATE:
			return query->targetList;
		case CMD_INSERT:
			return query->onConflict ? query->onConflict->onConflictSet : NIL;
		case CMD_MERGE:
			foreach(lc, query->mergeActionList)
			{
				MergeAction *action = lfirst_node(MergeAction, lc);

				if (action->commandType == CMD_UPDATE)
					targets = list_concat(targets, action->targetList);
			}
			return targets;
		default:
			return NIL;
	}
}

/* Columns that the index depends on. */
static Bitmapset *
columns_of(const IndexSpec *spec)
{
	Bitmapset  *columns = NULL;

	for (int i = 0; i < spec->num_columns; i++)
	{
		if (spec->columns[i].attnum != 0)
			columns = bms_add_member(columns, spec->columns[i].attnum -
									 FirstLowInvalidHeapAttributeNumber);
		else
			pull_varattnos(spec->columns[i].expr, 1, &columns);
	}
	pull_varattnos((Node *) spec->predicate, 1, &columns);
	return columns;
}

/*
 * As measured, a key of GIN costs about a quarter of an entry of a btree, as they
 * are put into the index many at a time; and BRIN looks at a row only.
 */
double
perfopt_row_writes(const IndexSpec *spec, const IndexSize *size)
{
	return spec->am == GIN_AM_OID ? Max(size->row_entries * GIN_KEY, 1) :
		spec->am == BRIN_AM_OID ? BRIN_ROW : 1;
}

double
perfopt_entries_written(const TableWrites *writes, const IndexSpec *spec, double fraction,
						int other_indexes)
{
	double		entries = fraction * (writes->inserted + writes->updated +
									  VACUUM_SHARE * writes->deleted);
	double		lost = 0;
	Bitmapset  *columns;
	ListCell   *lc;

	/* from 16 on a BRIN index does not keep updates from being HOT */
	if (spec->am == BRIN_AM_OID && PG_VERSION_NUM >= 160000)
		return entries;
	columns = columns_of(spec);
	foreach(lc, writes->column_updates)
	{
		ColumnUpdates *updates = lfirst(lc);

		if (bms_overlap(columns, updates->columns))
			lost += updates->rows;
	}
	bms_free(columns);
	return entries + Min(lost, writes->hot_updated) * (fraction + other_indexes);
}
