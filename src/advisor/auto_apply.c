/*
 * auto_apply.c
 *		perfopt.auto_apply: new indexes that promise enough are built without
 *		being asked for, and dropped again when they have done harm.
 *
 * Off by default.  It is careful: only kind create_index; only what two rounds
 * at least have found; what is predicted to gain perfopt.auto_apply_min_gain, and
 * to be no larger than perfopt.auto_apply_max_size; in perfopt.auto_apply_hours;
 * and one at a time: the next one waits until this one is judged, so that its
 * measure is its own.  When latencies are not compared it does nothing.  An index
 * is built as the owner of its table.
 *
 * Only what was applied automatically is reverted automatically.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include <time.h>

#include "catalog/pg_type.h"
#include "common/settings.h"
#include "executor/spi.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "worker/worker.h"

static bool
is_time(void)
{
	pg_time_t	now = (pg_time_t) time(NULL);
	struct pg_tm *tm = pg_localtime(&now, session_timezone);
	int			minute = tm->tm_hour * 60 + tm->tm_min;
	int			from;
	int			to;

	if (perfopt_auto_apply_hours == NULL || perfopt_auto_apply_hours[0] == '\0' ||
		!perfopt_parse_hours(perfopt_auto_apply_hours, &from, &to))
		return true;
	return from <= to ? minute >= from && minute < to : minute >= from || minute < to;
}

/* Returns the rows written. */
static uint64
update(const char *sql, int nargs, Oid *types, Datum *values)
{
	if (SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write advice");
	return SPI_processed;
}

#define OWNER \
	"(SELECT pg_get_userbyid(c.relowner)::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace" \
	"  WHERE c.relname = i.table_name AND n.nspname = i.schema_name)"

/* Inside SPI. */
void
perfopt_auto_apply_step(void)
{
	Oid			types[] = {FLOAT8OID, INT8OID};
	Datum		values[2];
	uint64		written;

	if (!perfopt_auto_apply || perfopt_verify_window == 0)
		return;
	written = update("UPDATE perfopt.advice_item i SET status = 'reverting', requested_by = 'perfopt', run_as = " OWNER ","
					 " requested_at = now(), attempts = 0, retry_at = NULL, started_at = NULL, error = NULL"
					 " WHERE id = ANY (ARRAY(SELECT id FROM perfopt.advice_item"
					 "  WHERE automatic AND status = 'regressed' AND undo IS NOT NULL AND error IS NULL FOR UPDATE SKIP LOCKED))",
					 0, NULL, NULL);
	if (is_time())
	{
		values[0] = Float8GetDatum(perfopt_auto_apply_min_gain);
		values[1] = Int64GetDatum((int64) perfopt_auto_apply_max_size * 1024 * 1024);
		written += update("UPDATE perfopt.advice_item i SET status = 'queued', requested_by = 'perfopt', run_as = " OWNER ","
						  " requested_at = now(), automatic = true, attempts = 0, retry_at = NULL, error = NULL"
						  " WHERE id = (SELECT id FROM perfopt.advice_item"
						  "  WHERE kind = 'create_index' AND status = 'open' AND predicted_gain >= $1 AND estimated_bytes <= $2"
						  "   AND evidence ->> 'requires_extension' IS NULL"
						  "   AND first_seen < last_seen AND last_seen > now() - interval '1 day'"
						  "   AND NOT EXISTS (SELECT FROM perfopt.advice_item WHERE status IN ('queued', 'applying', 'reverting')"
						  "    OR (automatic AND status = 'applied' AND judged_at IS NULL))"
						  "  ORDER BY predicted_gain DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED)",
						  2, types, values);
	}
	if (written > 0)
		perfopt_duty_wake_at_commit(ADVISOR_APPLY_DUTY);
}
