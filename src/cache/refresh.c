/*
 * refresh.c
 *		Refresh-ahead: an entry that is used shortly before it expires is
 *		computed anew by a job, so that nobody waits for it.
 *
 * The job runs as the same role and with the same settings, so its entry has
 * the same key.  Where it could not, there is no refresh, and the entry is
 * computed by who asks after it has expired.
 *
 * The user's statement has its result when the job is submitted, and nothing
 * here may make it fail.
 */
#include "postgres.h"

#include "cache/query_internal.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "worker/worker.h"

#define ENTRY_NAME	"cache_refresh"

/* ---- the payload: strings, each with its length in front; -1 is NULL ---- */

static void
put(StringInfo buf, const char *string, int len)
{
	appendStringInfo(buf, "%d:", len);
	if (len > 0)
		appendBinaryStringInfo(buf, string, len);
}

static void
put_number(StringInfo buf, int64 number)
{
	char text[	32];

	put(buf, text, snprintf(text, sizeof(text), INT64_FORMAT, number));
}

/* The next string, and its length; NULL is a length of -1. */
static char *
take(const char **payload, int *len)
{
	char	   *end;
	char	   *string;

	*len = strtol(*payload, &end, 10);
	if (*end != ':' || *len < -1 || *len > (int) strlen(end + 1))
		elog(ERROR, "payload of cache refresh is damaged");
	*payload = end + 1;
	if (*len < 0)
		return NULL;
	string = pnstrdup(*payload, *len);
	*payload += *len;
	return string;
}

static int64
take_number(const char **payload)
{
	int			len;
	char	   *text = take(payload, &len);

	return text ? strtoll(text, NULL, 10) : 0;
}

/* ---- asking for it ---- */

/* Can a job have the key that this session has? */
static bool
possible(void)
{
	return perfopt_worker_enabled && !IsInParallelMode() &&
		GetUserId() == GetSessionUserId() && perfopt_job_role_can_log_in(GetUserId());
}

/* NULL: one of them cannot be told. */
static char *
settings_of(const CacheQuery *query)
{
	StringInfoData buf;

	char	   *session = cache_key_settings_for_job();

	if (session == NULL)
		return NULL;
	initStringInfo(&buf);
	appendStringInfoString(&buf, session);
	for (int i = 0; i < query->num_settings; i++)
	{
		char	   *value = GetConfigOptionByName(query->settings[i], NULL, true);

		if (value == NULL)
			continue;
		if (strchr(value, '\n'))
			return NULL;
		appendStringInfo(&buf, "%s=%s\n", query->settings[i], value);
	}
	return buf.data;
}

static char *
payload_of(const CacheRefresh *refresh)
{
	const CacheQuery *query = refresh->query;
	StringInfoData buf;

	initStringInfo(&buf);
	put_number(&buf, query->face);
	put_number(&buf, refresh->ttl_us);
	put(&buf, refresh->prefix, refresh->prefix_len);
	put(&buf, query->text, strlen(query->text));
	put_number(&buf, refresh->params->num);
	for (int i = 0; i < refresh->params->num; i++)
	{
		put_number(&buf, refresh->params->types[i]);
		if (refresh->params->nulls[i] == 'n')
			put(&buf, NULL, -1);
		else
		{
			Oid			output;
			bool		is_varlena;
			char	   *text;

			getTypeOutputInfo(refresh->params->types[i], &output, &is_varlena);
			text = OidOutputFunctionCall(output, refresh->params->values[i]);

			put(&buf, text, strlen(text));
		}
		if (buf.len >= PERFOPT_JOB_PAYLOAD_MAX)
			return NULL;
	}
	return buf.len < PERFOPT_JOB_PAYLOAD_MAX ? buf.data : NULL;
}

void
cache_refresh_request(const CacheRefresh *refresh)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	if (!possible())
		return;

	/* A full queue, a type whose output fails: the next one may do better. */
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(old);
	PG_TRY();
	{
		PerfoptJobSpec spec = {
			.capability = "cache",
			.entry = ENTRY_NAME,
			.payload = payload_of(refresh),
			.database = MyDatabaseId,
			.role = GetUserId(),
			.settings = settings_of(refresh->query),
			.timeout_ms = perfopt_cache_job_timeout,
			.fair_to_roles = true
		};

		if (spec.payload && spec.settings)
		{
			perfopt_job_release(perfopt_job_submit(&spec));
			cache_count(CACHE_COUNT_REFRESHES, 1);
		}
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		if (geterrcode() == ERRCODE_QUERY_CANCELED || geterrcode() == ERRCODE_ADMIN_SHUTDOWN)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;
}

/* ---- the job ---- */

static void
refresh_job(const char *payload, PerfoptJobOutcome *outcome)
{
	CacheRefresh refresh;
	CacheParams params;
	CacheFace	face;
	char	   *text;
	int			text_len;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());

	face = take_number(&payload);
	refresh.ttl_us = take_number(&payload);
	refresh.prefix = take(&payload, &refresh.prefix_len);
	text = take(&payload, &text_len);

	params.num = take_number(&payload);
	params.types = palloc((params.num + 1) * sizeof(Oid));
	params.values = palloc((params.num + 1) * sizeof(Datum));
	params.nulls = palloc(params.num + 1);
	for (int i = 0; i < params.num; i++)
	{
		char	   *value;
		int			len;
		Oid			input;
		Oid			ioparam;

		params.types[i] = take_number(&payload);
		value = take(&payload, &len);
		params.nulls[i] = value ? ' ' : 'n';
		getTypeInputInfo(params.types[i], &input, &ioparam);
		params.values[i] = value ? OidInputFunctionCall(input, value, ioparam, -1) : (Datum) 0;
	}

	refresh.query = cache_query_get(text, text_len, &params, face == CACHE_FACE_JSON);
	refresh.params = &params;
	(void) cache_query_refresh(&refresh);

	PopActiveSnapshot();
	CommitTransactionCommand();
}

void
cache_refresh_init(void)
{
	perfopt_job_entry_register(ENTRY_NAME, refresh_job);
}
