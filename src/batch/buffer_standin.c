/*
 * buffer_standin.c
 *		Until insert.c can do it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "batch/batch_internal.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"

void
batch_note_rejected(Oid target, Jsonb *row, const BatchVerdict *verdict)
{
	elog(LOG, "rejected: %s", verdict->message);
}

void
batch_insert_jsonb_rows(Oid target, Jsonb **rows, int num_rows, BatchVerdict *verdicts)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	if (get_rel_name(target) == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation with OID %u does not exist", target)));
	for (int i = 0; i < num_rows; i++)
	{
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(context);
		PG_TRY();
		{
			char	   *name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(target)), get_rel_name(target));
			StringInfoData cols;
			Oid			types[] = {JSONBOID};
			Datum		values[1];
			JsonbIterator *it = JsonbIteratorInit(&rows[i]->root);
			JsonbValue	v;
			JsonbIteratorToken t;

			initStringInfo(&cols);
			while ((t = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
				if (t == WJB_KEY)
					appendStringInfo(&cols, "%s%s", cols.len ? ", " : "", quote_identifier(pnstrdup(v.val.string.val, v.val.string.len)));
			values[0] = JsonbPGetDatum(rows[i]);
			SPI_connect();
			SPI_execute_with_args(psprintf("INSERT INTO %s (%s) SELECT %s FROM pg_catalog.jsonb_populate_record(NULL::%s, $1)", name, cols.data, cols.data, name),
								  1, types, values, NULL, false, 0);
			verdicts[i].action = SPI_processed > 0 ? BATCH_INSERTED : BATCH_SKIPPED;
			SPI_finish();
			ReleaseCurrentSubTransaction();
		}
		PG_CATCH();
		{
			ErrorData  *error;

			MemoryContextSwitchTo(context);
			error = CopyErrorData();
			FlushErrorState();
			RollbackAndReleaseCurrentSubTransaction();
			verdicts[i].action = BATCH_REJECTED;
			verdicts[i].sqlerrcode = error->sqlerrcode;
			verdicts[i].message = error->message;
			verdicts[i].detail = error->detail;
			verdicts[i].constraint = error->constraint_name;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
}
