/*
 * advice.c
 *		The table of advice, perfopt.advice_item: what those who look for advice
 *		write into it.  Rows of what only an application can follow are written
 *		by who finds them, in SQL.
 *
 * An advice is known by its kind, its table and its definition, all as text, so
 * that a dump and restore keeps it.  Its life:
 *
 *		open ---> queued ---> applying ---> applied ---> confirmed
 *		 |  ^                    |            |  |           |
 *		 |  |                    v            |  +------> regressed
 *		 |  |                  failed         v              |
 *		 |  |                              reverting <-------+
 *		 |  v                                 |
 *		 | obsolete                           v
 *		 +---> dismissed                   reverted
 *
 * What is found makes rows open and obsolete ones open again; one whose index
 * somebody has built, or dropped, by hand becomes applied.  What was dismissed,
 * or reverted, is not raised again, nor another index for the same statements.
 * requests.c has what people may ask for, apply.c does it, and verify.c judges what
 * it was good for.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "worker/worker.h"

/* An open advice not confirmed by any round for so many days is obsolete. */
#define OPEN_DAYS	"7"

/* An obsolete one is forgotten so many days after it was last seen. */
#define OBSOLETE_DAYS	"30"

/* What nobody is at work on, and nobody has said no to. */
#define MAY_BE_RAISED	"status NOT IN ('queued', 'applying', 'reverting', 'dismissed')"

static void
connect(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

/* The memory context stays what it is. */
static void
execute(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int expected)
{
	MemoryContext context = CurrentMemoryContext;

	if (SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0) != expected)
		elog(ERROR, "could not write advice");
	MemoryContextSwitchTo(context);
}

static bool
is_about_new_index(const char *kind)
{
	return strcmp(kind, "create_index") == 0 || strcmp(kind, "index_foreign_key") == 0;
}

/*
 * The table, locked for reading; NULL when that can't be had at once, or when
 * it is gone.
 */
static Relation
open_table(const char *schema_name, const char *table_name, bool *gone)
{
	Oid			relid = perfopt_advice_table(schema_name, table_name);
	IndexSpec	any = {.relid = relid};

	*gone = !OidIsValid(relid);
	return *gone ? NULL : perfopt_index_spec_open(&any);
}

/*
 * Has somebody dismissed an index that is the same, or was it taken back, though
 * it is written in another way, with its columns descending, say?
 */
static bool
refused_likewise(const AdviceFound *found)
{
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[4];
	SPITupleTable *table;
	bool		gone;
	bool		same = false;
	Relation	relation;
	IndexSpec  *wanted = NULL;

	values[0] = CStringGetTextDatum(found->kind);
	values[1] = CStringGetTextDatum(found->schema_name);
	values[2] = CStringGetTextDatum(found->table_name);
	values[3] = CStringGetTextDatum(found->definition);
	execute("SELECT definition FROM perfopt.advice_item WHERE status IN ('dismissed', 'reverted')"
			" AND kind = $1 AND schema_name = $2 AND table_name = $3 AND definition <> $4",
			4, types, values, NULL, SPI_OK_SELECT);
	table = SPI_tuptable;
	relation = table->numvals > 0 ? open_table(found->schema_name, found->table_name, &gone) : NULL;
	if (relation)
		wanted = perfopt_advice_index_spec(relation, found->definition, &gone);
	for (uint64 i = 0; i < table->numvals && wanted && !same; i++)
	{
		IndexSpec  *refused = perfopt_advice_index_spec(relation,
														SPI_getvalue(table->vals[i], table->tupdesc, 1),
														&gone);

		same = refused && perfopt_index_spec_serves(refused, wanted) &&
			perfopt_index_spec_serves(wanted, refused);
	}
	if (relation)
		relation_close(relation, AccessShareLock);
	return same;
}

/*
 * Has somebody dismissed another index of that table that was for all the statements
 * that this one is for, or was that taken back?  What is open already stays so.
 */
static bool
refused_for_these(const AdviceFound *found)
{
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[5];

	values[0] = CStringGetTextDatum(found->kind);
	values[1] = CStringGetTextDatum(found->schema_name);
	values[2] = CStringGetTextDatum(found->table_name);
	values[3] = CStringGetTextDatum(found->definition);
	values[4] = CStringGetTextDatum(found->evidence);
	execute("SELECT FROM (SELECT array_agg(q ->> 'queryid') AS wanted FROM jsonb_array_elements($5::jsonb -> 'queries') q) w"
			" WHERE EXISTS (SELECT FROM perfopt.advice_item i WHERE status IN ('dismissed', 'reverted')"
			"   AND kind = $1 AND schema_name = $2 AND table_name = $3 AND definition <> $4"
			"   AND wanted <@ ARRAY(SELECT q ->> 'queryid' FROM jsonb_array_elements(i.evidence -> 'queries') q))"
			"  AND NOT EXISTS (SELECT FROM perfopt.advice_item WHERE status NOT IN ('obsolete', 'dismissed', 'reverted')"
			"   AND kind = $1 AND schema_name = $2 AND table_name = $3 AND definition = $4)",
			5, types, values, NULL, SPI_OK_SELECT);
	return SPI_processed > 0;
}

static Datum
text_or_null(const char *string, char *null)
{
	*null = string ? ' ' : 'n';
	return string ? CStringGetTextDatum(string) : (Datum) 0;
}

static void
store_one(const AdviceFound *found)
{
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
	TEXTOID, TEXTOID, INT8OID, FLOAT8OID};
	Datum		values[11];
	char		nulls[12] = "           ";

	if (is_about_new_index(found->kind) && (refused_likewise(found) || refused_for_these(found)))
		return;
	values[0] = CStringGetTextDatum(found->kind);
	values[1] = CStringGetTextDatum(found->schema_name);
	values[2] = CStringGetTextDatum(found->table_name);
	values[3] = CStringGetTextDatum(found->definition);
	values[4] = text_or_null(found->index_name, &nulls[4]);
	values[5] = CStringGetTextDatum(found->ddl);
	values[6] = text_or_null(found->undo, &nulls[6]);
	values[7] = CStringGetTextDatum(found->reason);
	values[8] = CStringGetTextDatum(found->evidence);
	values[9] = Int64GetDatum((int64) found->bytes);
	values[10] = Float8GetDatum(perfopt_rounded_share(found->predicted_gain));

	/*
	 * Not what is queued or being built: the worker and its index have that
	 * row.  Nor what apply_advice() has locked in some open transaction: that
	 * waits for another round.  What did harm, or was taken back, stays so,
	 * though it looks good again.
	 */
	execute("UPDATE perfopt.advice_item SET"
			"  index_name = $5, ddl = $6, undo = $7, reason = $8, evidence = $9::jsonb,"
			"  estimated_bytes = $10, predicted_gain = $11, last_seen = now(),"
			"  applied_at = CASE WHEN status IN ('regressed', 'reverted') THEN applied_at END,"
			"  measured_gain = CASE WHEN status IN ('regressed', 'reverted') THEN measured_gain END,"
			"  judged_at = CASE WHEN status IN ('regressed', 'reverted') THEN judged_at END,"
			"  first_seen = CASE WHEN status IN ('applied', 'confirmed', 'obsolete')"
			"   THEN now() ELSE first_seen END,"
			"  status = CASE WHEN status = 'failed' THEN 'failed'"
			"   WHEN status IN ('regressed', 'reverted') THEN 'reverted' ELSE 'open' END"
			" WHERE id = (SELECT id FROM perfopt.advice_item"
			"   WHERE kind = $1 AND schema_name = $2 AND table_name = $3"
			"    AND definition = $4 AND " MAY_BE_RAISED
			"   FOR UPDATE SKIP LOCKED)",
			11, types, values, nulls, SPI_OK_UPDATE);
	execute("INSERT INTO perfopt.advice_item"
			" (kind, schema_name, table_name, definition, index_name, ddl, undo, reason,"
			"  evidence, estimated_bytes, predicted_gain, status)"
			" SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb, $10, $11, 'open'"
			" WHERE NOT EXISTS (SELECT FROM perfopt.advice_item"
			"   WHERE kind = $1 AND schema_name = $2 AND table_name = $3"
			"    AND definition = $4)"
			" ON CONFLICT DO NOTHING",
			11, types, values, nulls, SPI_OK_INSERT);
}

static bool
was_found(const AdviceFinding *finding, const char *kind, const char *schema_name,
		  const char *table_name, const char *definition)
{
	ListCell   *lc;

	foreach(lc, finding->found)
	{
		AdviceFound *found = lfirst(lc);

		if (strcmp(found->kind, kind) == 0 &&
			strcmp(found->schema_name, schema_name) == 0 &&
			strcmp(found->table_name, table_name) == 0 &&
			strcmp(found->definition, definition) == 0)
			return true;
	}
	return false;
}

/*
 * The row's new status, by what there is in the database; or NULL.  An index
 * with its columns in another direction counts unless the advice still stands.
 */
static const char *
followed_or_gone(const char *kind, const char *schema_name, const char *table_name,
				 const char *definition, bool found_again, char **index_name, char **undo)
{
	const char *status = NULL;
	bool		gone;
	Relation	relation = open_table(schema_name, table_name, &gone);

	if (gone)
		return "obsolete";
	if (relation == NULL)
		return NULL;
	if (is_about_new_index(kind))
	{
		IndexSpec  *spec = perfopt_advice_index_spec(relation, definition, &gone);

		if (spec)
			spec->any_direction = !found_again;
		if (gone)
			status = "obsolete";
		else if (spec && perfopt_index_exists(relation, spec))
		{
			status = "applied";
			perfopt_advice_adopt_index(relation, spec, index_name, undo);
		}
	}
	else if (strcmp(kind, "drop_index") == 0 &&
			 !OidIsValid(get_relname_relid(definition, RelationGetNamespace(relation))))
		status = "applied";
	relation_close(relation, AccessShareLock);
	return status;
}

/* Look again at a row; the row's columns are those that revise() asks for. */
static void
revise_one(const AdviceFinding *finding, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		values[4];
	char		nulls[5] = "    ";
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID};
	char	   *kind = SPI_getvalue(tuple, desc, 2);
	char	   *schema_name = SPI_getvalue(tuple, desc, 3);
	char	   *table_name = SPI_getvalue(tuple, desc, 4);
	char	   *definition = SPI_getvalue(tuple, desc, 5);
	bool		judged = DatumGetBool(SPI_getbinval(tuple, desc, 6, &isnull)) && !isnull;
	bool		found_again = was_found(finding, kind, schema_name, table_name, definition);
	char	   *index_name = NULL;
	char	   *undo = NULL;
	const char *status = followed_or_gone(kind, schema_name, table_name, definition, found_again,
										  &index_name, &undo);

	if (status == NULL && judged && !found_again)
		status = "obsolete";
	if (status == NULL)
		return;
	values[0] = SPI_getbinval(tuple, desc, 1, &isnull);
	values[1] = CStringGetTextDatum(status);
	values[2] = text_or_null(index_name, &nulls[2]);
	values[3] = text_or_null(undo, &nulls[3]);

	/* it was done some time after the advice was last seen */
	execute("UPDATE perfopt.advice_item SET status = $2, error = NULL,"
			" index_name = CASE WHEN $2 = 'applied' AND kind IN ('create_index', 'index_foreign_key')"
			"  THEN $3 ELSE index_name END,"
			" undo = CASE WHEN $2 = 'applied' AND kind IN ('create_index', 'index_foreign_key')"
			"  THEN $4 ELSE undo END,"
			" started_at = CASE WHEN $2 = 'applied' THEN last_seen END, measured_from = NULL, judged_at = NULL,"
			" automatic = false,"
			" applied_at = CASE WHEN $2 = 'applied' THEN now() END"
			" WHERE id = $1 AND status IN ('open', 'failed')",
			4, types, values, nulls, SPI_OK_UPDATE);
}

/*
 * Look again at advice that nobody has acted on: it may have been followed by
 * hand, its table may be gone, or its reason.
 */
static void
revise(const AdviceFinding *finding)
{
	MemoryContext work;
	Oid			types[] = {TEXTARRAYOID, INT8ARRAYOID, BOOLOID};
	Datum		values[3];
	char		nulls[4] = "   ";
	Datum		kinds[16];
	int			num_kinds = 0;
	SPITupleTable *table;

	while (finding->kinds[num_kinds] && num_kinds < lengthof(kinds))
	{
		kinds[num_kinds] = CStringGetTextDatum(finding->kinds[num_kinds]);
		num_kinds++;
	}
	values[0] = PointerGetDatum(construct_array(kinds, num_kinds, TEXTOID, -1, false,
												TYPALIGN_INT));
	values[1] = finding->priced_queryids;
	nulls[1] = DatumGetPointer(finding->priced_queryids) ? ' ' : 'n';
	values[2] = BoolGetDatum(finding->complete);
	execute("SELECT id, kind, schema_name, table_name, definition,"
			" $3 OR last_seen < now() - interval '" OPEN_DAYS " days'"
			" OR EXISTS (SELECT FROM jsonb_array_elements(evidence -> 'queries') q"
			"  WHERE (q ->> 'queryid')::bigint = ANY ($2))"
			" FROM perfopt.advice_item"
			" WHERE kind = ANY ($1) AND status IN ('open', 'failed')"
			" FOR UPDATE SKIP LOCKED",
			3, types, values, nulls, SPI_OK_SELECT);
	table = SPI_tuptable;

	/* for one row at a time: there may be many */
	work = AllocSetContextCreate(CurrentMemoryContext, "perfopt advice to revise",
								 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(work);
	for (uint64 i = 0; i < table->numvals; i++)
	{
		CHECK_FOR_INTERRUPTS();
		revise_one(finding, table->vals[i], table->tupdesc);
		MemoryContextReset(work);
	}
	MemoryContextSwitchTo(MemoryContextGetParent(work));
	MemoryContextDelete(work);
}

/*
 * Each may be in a transaction of its own: should a later one fail, the next round
 * says so again.
 */
void
perfopt_advice_store(const AdviceFinding *finding)
{
	ListCell   *lc;

	connect();
	perfopt_advice_follow_names(0);
	SPI_finish();
	foreach(lc, finding->found)
	{
		(void) perfopt_duty_rest();
		connect();
		store_one(lfirst(lc));
		SPI_finish();
	}
	(void) perfopt_duty_rest();
	connect();
	revise(finding);
	perfopt_advice_follow_names(0);
	execute("DELETE FROM perfopt.advice_item WHERE id IN"
			" (SELECT id FROM perfopt.advice_item WHERE table_name IS NOT NULL AND status = 'obsolete'"
			"   AND last_seen < now() - interval '" OBSOLETE_DAYS " days'"
			"  FOR UPDATE SKIP LOCKED)",
			0, NULL, NULL, NULL, SPI_OK_DELETE);
	SPI_finish();
}

int32
perfopt_advice_count_open(const char *condition)
{
	int64		count;
	bool		isnull;

	connect();
	if (SPI_execute(psprintf("SELECT pg_catalog.count(*) FROM perfopt.advice_item"
							 " WHERE status OPERATOR(pg_catalog.=) 'open'%s", condition),
					false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not count advice");
	count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
										&isnull));
	SPI_finish();
	return (int32) count;
}
