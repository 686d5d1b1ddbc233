/*
 * chunks.c
 *		Chunked work on large tables: what its files have in common.
 *
 * A job is a row of perfopt.batch_job, its chunks are rows of
 * perfopt.batch_chunk.  Whoever works at it does so in short transactions:
 *
 *	cut		locks the job's row, finds where the next chunk ends, and inserts it;
 *	run		locks a pending chunk, unless somebody has (SKIP LOCKED), runs the
 *			statement with its bounds, and marks the chunk done;
 *	note	after a chunk has failed, counts that, or has two halves in its place,
 *			or sets it aside.
 *
 * A chunk is done exactly if its transaction has committed.  Who dies leaves
 * its chunk pending and unlocked, so there is nothing to be reclaimed, and no
 * process is ever asked whether it is alive.
 *
 * At work are the session that called, and jobs of the pool that duty
 * "batch_jobs" submits, both by the same code (chunks_work.c), as the same role
 * and under the same settings.  Each holds a seat of the job, a heavyweight
 * lock, while it runs a chunk: so there are never more than the job's workers,
 * whoever started them.
 *
 * A row belongs to the role that inserted it, as in cache/write_behind.c:
 * policies keep others' rows away, no other role can be given, and what is to
 * be run cannot be changed later.
 *
 *	chunks_key.c		in which order a table is cut, and where
 *	chunks_job.c		the job's row: run_in_batches(), pause, resume, cancel
 *	chunks_work.c		working at it: the loop
 *	chunks_steps.c		cutting, choosing and running chunks
 *	chunks_failures.c	what becomes of those that fail
 *	chunks_report.c		what the session is told
 *	chunks_lag.c		how far standbys are behind
 *	chunks_duty.c		background workers for it
 */
#include "postgres.h"

#include "access/xlog.h"
#include "batch/batch_internal.h"
#include "batch/chunks_internal.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "common/compat.h"
#include "common/shmem.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* Of the session or the transaction, not of the statement's meaning. */
static const char *const left_out[] = {
	"application_name", "client_encoding", "default_transaction_deferrable",
	"default_transaction_isolation", "default_transaction_read_only",
	"idle_in_transaction_session_timeout", "idle_session_timeout", "is_superuser",
	"lock_timeout", "role", "seed", "session_authorization", "statement_timeout",
	"transaction_deferrable", "transaction_isolation", "transaction_read_only",
	"transaction_timeout"
};

void
chunks_connect(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
chunks_execute(int expected, const char *sql, int num_args, Oid *types,
			   Datum *values, const char *nulls)
{
	int			result = SPI_execute_with_args(sql, num_args, types, values, nulls, false, 0);

	if (result != expected)
		elog(ERROR, "\"%s\" failed: %s", sql, SPI_result_code_string(result));
}

static bool
is_left_out(const char *name)
{
	for (int i = 0; i < lengthof(left_out); i++)
		if (strcmp(name, left_out[i]) == 0)
			return true;
	return false;
}

char *
chunks_capture_settings(void)
{
	StringInfoData buf;
	int			num;
	struct config_generic **variables = perfopt_guc_variables(&num);

	initStringInfo(&buf);
	for (int i = 0; i < num; i++)
	{
		struct config_generic *variable = variables[i];
		const char *value;

		/* who logs in as the role has what is the same for all */
		if (variable->source <= PGC_S_GLOBAL && strcmp(variable->name, "search_path") != 0)
			continue;
		if (variable->source == PGC_S_OVERRIDE || is_left_out(variable->name) ||
			!(variable->context == PGC_USERSET || (variable->context == PGC_SUSET && superuser())))
			continue;
		value = GetConfigOption(variable->name, true, false);
		if (value == NULL)
			continue;
		if (strchr(value, '\n'))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("settings of a statement run later cannot have a line break"),
					 errdetail("\"%s\" has one.", variable->name)));
		appendStringInfo(&buf, "%s=%s\n", variable->name, value);
	}
	return buf.data;
}

static TimestampTz *booted;		/* in shared memory, which a crash makes anew */

static Size
area_size(void)
{
	return sizeof(*booted);
}

static void
attach(void *area, LWLockPadded *locks, bool found)
{
	booted = area;
	if (!found)
		*booted = GetCurrentTimestamp();
}

static const PerfoptShmemPart part = {
	.name = "batch_chunks",
	.area_size = area_size,
	.init = attach
};

TimestampTz
chunks_booted(void)
{
	return *booted;
}

void
chunks_set_seat(LOCKTAG *tag, int64 job, int seat)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId,
					   get_relname_relid("batch_job", get_namespace_oid("perfopt", false)),
					   (uint32) job, seat);
}

char *
chunks_origin(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

void
batch_chunks_init(void)
{
	perfopt_shmem_register(&part);
	chunks_duty_init();
}
