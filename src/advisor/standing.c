/*
 * standing.c
 *		The indexes that earlier rounds have advised, and how they stand.
 *
 * A round should not change its mind between two choices as good, and should
 * choose without what somebody has dismissed, or what was taken back.  (When that
 * leads to another index for the same statements only, advice.c does not raise it.)
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/relation.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "worker/worker.h"

/* Of how many rows. */
#define MOST_STANDING	1000

typedef struct StandingRow
{
	char	   *schema_name;
	char	   *table_name;
	char	   *definition;
	bool		refused;
} StandingRow;

/* StandingRow *, in the caller's memory context. */
static List *
read_rows(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *rows = NIL;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute("SELECT schema_name, table_name, definition, status <> 'open'"
					" FROM perfopt.advice_item"
					" WHERE kind = 'create_index' AND status IN ('open', 'dismissed', 'reverted')"
					" ORDER BY id DESC", true, MOST_STANDING) != SPI_OK_SELECT)
		elog(ERROR, "could not read advice");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext old_context;
		StandingRow *row;
		bool		isnull;

		old_context = MemoryContextSwitchTo(context);
		row = palloc(sizeof(StandingRow));
		row->schema_name = SPI_getvalue(tuple, desc, 1);
		row->table_name = SPI_getvalue(tuple, desc, 2);
		row->definition = SPI_getvalue(tuple, desc, 3);
		row->refused = DatumGetBool(SPI_getbinval(tuple, desc, 4, &isnull));
		rows = lappend(rows, row);
		MemoryContextSwitchTo(old_context);
	}
	SPI_finish();
	return rows;
}

/* NULL: the table is gone, or locked, or no longer has what it takes. */
static IndexSpec *
spec_of_row(const StandingRow *row)
{
	Oid			relid = perfopt_advice_table(row->schema_name, row->table_name);
	IndexSpec  *spec = NULL;
	Relation	relation;
	bool		gone;

	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, AccessShareLock))
		return NULL;
	relation = try_relation_open(relid, NoLock);
	if (relation)
	{
		spec = perfopt_advice_index_spec(relation, row->definition, &gone);
		relation_close(relation, NoLock);
	}
	UnlockRelationOid(relid, AccessShareLock);
	return spec;
}

void
perfopt_standing_advice(List **open, List **refused)
{
	ListCell   *lc;

	*open = *refused = NIL;
	foreach(lc, read_rows())
	{
		StandingRow *row = lfirst(lc);
		IndexSpec  *spec = spec_of_row(row);

		(void) perfopt_duty_rest();
		if (spec && row->refused)
			*refused = lappend(*refused, spec);
		else if (spec)
			*open = lappend(*open, spec);
	}
}

bool
perfopt_is_standing(List *specs, const IndexSpec *spec)
{
	ListCell   *lc;

	foreach(lc, specs)
		if (perfopt_index_spec_serves(lfirst(lc), spec) &&
			perfopt_index_spec_serves(spec, lfirst(lc)))
		return true;
	return false;
}
