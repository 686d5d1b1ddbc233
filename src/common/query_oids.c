/*
 * query_oids.c
 *		OIDs that a query returns.
 */
#include "postgres.h"

#include "common/query_oids.h"
#include "executor/spi.h"
#include "utils/memutils.h"

List *
perfopt_query_oids(const char *sql)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *oids = NIL;
	int			result;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	result = SPI_execute(sql, false, 0);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "\"%s\" failed: %s", sql, SPI_result_code_string(result));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Oid			oid = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
														 SPI_tuptable->tupdesc, 1, &isnull));
		MemoryContext old_context = MemoryContextSwitchTo(context);

		oids = lappend_oid(oids, oid);
		MemoryContextSwitchTo(old_context);
	}
	SPI_finish();
	return oids;
}
