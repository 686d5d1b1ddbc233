/*
 * keys.c
 *		What tells results apart beside the query itself: database, role, and
 *		the settings that any result can depend on.
 *
 * These are the settings that change how text is parsed, names are found,
 * values are written or rows are seen.  What a query asks for by
 * current_setting() is added by query.c.  Settings that only change how a
 * result is computed, such as enable_seqscan, are left out.
 *
 * The bytes are a struct of numbers without padding, then each string with its
 * length in front: no two lists of values coincide.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodes.h"
#include "parser/parse_expr.h"
#include "parser/parser.h"
#include "pgtime.h"
#include "tsearch/ts_cache.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/pg_locale.h"
#include "utils/rls.h"
#include "utils/xml.h"
#include "catalog/namespace.h"

/* Every field has the same size, so that there is no padding between them. */
typedef struct SessionNumbers
{
	Oid			database;
	Oid			role;
	Oid			session_role;
	int32		no_force_rls;
	int32		row_security;
	int32		date_style;
	int32		date_order;
	int32		interval_style;
	int32		extra_float_digits;
	int32		bytea_output;
	int32		xmlbinary;
	int32		xmloption;
	int32		array_nulls;
	int32		quote_all_identifiers;
	int32		backslash_quote;
	int32		standard_conforming_strings;
	int32		transform_null_equals;
	int32		client_encoding;
} SessionNumbers;

/* Of the above, those a job has to be told. */
static const char *const job_settings[] = {
	"array_nulls",
	"backslash_quote",
	"bytea_output",
	"client_encoding",
	"datestyle",
	"default_text_search_config",
	"extra_float_digits",
	"intervalstyle",
	"lc_monetary",
	"lc_numeric",
	"lc_time",
	"perfopt.cache_opaque_functions",
	"quote_all_identifiers",
	"restrict_nonsystem_relation_kind",
	"row_security",
	"search_path",
	"standard_conforming_strings",
	"timezone",
	"timezone_abbreviations",
	"transform_null_equals",
	"xmlbinary",
	"xmloption"
};

static void
append_string(StringInfo buf, const char *string)
{
	uint32		len = string ? strlen(string) : 0;

	appendBinaryStringInfo(buf, (char *) &len, sizeof(len));
	if (len > 0)
		appendBinaryStringInfo(buf, string, len);
}

void
cache_key_append_session(StringInfo buf)
{
	SessionNumbers numbers;
	int			security;

	GetUserIdAndSecContext(&numbers.role, &security);
	numbers.database = MyDatabaseId;
	numbers.session_role = GetSessionUserId();
	numbers.no_force_rls = security & SECURITY_NOFORCE_RLS;
	numbers.row_security = row_security;
	numbers.date_style = DateStyle;
	numbers.date_order = DateOrder;
	numbers.interval_style = IntervalStyle;
	numbers.extra_float_digits = extra_float_digits;
	numbers.bytea_output = bytea_output;
	numbers.xmlbinary = xmlbinary;
	numbers.xmloption = xmloption;
	numbers.array_nulls = Array_nulls;
	numbers.quote_all_identifiers = quote_all_identifiers;
	numbers.backslash_quote = backslash_quote;
	numbers.standard_conforming_strings = PERFOPT_STANDARD_CONFORMING_STRINGS;
	numbers.transform_null_equals = Transform_null_equals;
	numbers.client_encoding = pg_get_client_encoding();

	appendBinaryStringInfo(buf, (char *) &numbers, sizeof(numbers));
	append_string(buf, namespace_search_path);
	append_string(buf, pg_get_timezone_name(session_timezone));
	append_string(buf, locale_monetary);
	append_string(buf, locale_numeric);
	append_string(buf, locale_time);
	append_string(buf, TSCurrentConfig);
	append_string(buf, perfopt_cache_opaque_functions);
	/* the server keeps its variable to itself */
	append_string(buf, GetConfigOption("timezone_abbreviations", true, false));
	/* a query may be an error; minor releases before August 2024 lack it */
	append_string(buf, GetConfigOption("restrict_nonsystem_relation_kind", true, false));
}

void
cache_key_finish(CacheKey *key, StringInfo buf)
{
	key->data = buf->data;
	key->len = buf->len;
	key->hash = hash_bytes_extended((unsigned char *) buf->data, buf->len, 0);
}

char *
cache_key_settings_for_job(void)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < lengthof(job_settings); i++)
	{
		const char *value = GetConfigOption(job_settings[i], true, false);

		if (value && strchr(value, '\n'))
			return NULL;		/* it would be taken for another setting */
		if (value)
			appendStringInfo(&buf, "%s=%s\n", job_settings[i], value);
	}
	return buf.data;
}
