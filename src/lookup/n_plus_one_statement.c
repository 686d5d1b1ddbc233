/*
 * n_plus_one_statement.c
 *		What is to be known of a statement that runs: its parameters, as a
 *		hash, and the function that runs it.
 *
 * Which function a statement belongs to
 *
 * PL/pgSQL leaves a callback with its execution state on the stack of error
 * contexts as long as a function runs, and errors that unwind the function
 * take it away.  So the innermost function is found there, without any work
 * when functions are entered or left.  All that is needed is to tell that
 * callback from others.  PL/pgSQL writes its address into the struct of a
 * plug-in, when it sets up a function: ours waits there for the first function
 * of a session, then takes itself away, so that PL/pgSQL goes on without any.
 * Where a debugger or profiler has put its own plug-in into the place, the
 * address is read from that.
 *
 * Loops are what procedural languages have, and PL/pgSQL is the one that nearly
 * all use.  Statements of functions in other languages are known as nested, but
 * not by the function's name.
 */
#include "postgres.h"

#include "lookup/n_plus_one_internal.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "plpgsql.h"
#include "tcop/dest.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* So much of each end of a value, or of a statement's text, is hashed. */
#define VALUE_BYTES			64
#define TEXT_BYTES			1024

/* Parameters of a PL/pgSQL function are its variables; so many are looked at. */
#define MAX_PARAMETERS		64

/* Frames of the stack of error contexts that are looked at. */
#define MAX_CONTEXTS		64

/* ---------------------------------------------------------------------
 * Parameters
 */

#define VARLENA			(-1)
#define NOT_KNOWN		(-2)

/*
 * The length of a type's values by reference, 0 for those by value.  Only of
 * types that the server brings: for others a catalog would have to be asked,
 * and an error here would fail a user's statement.
 */
static inline int
value_length(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case CHAROID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case CASHOID:
		case DATEOID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case REGCLASSOID:
			return 0;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case NUMERICOID:
		case BYTEAOID:
		case JSONOID:
		case JSONBOID:
		case XMLOID:
		case INETOID:
		case CIDROID:
		case BITOID:
		case VARBITOID:
		case BOOLARRAYOID:
		case INT2ARRAYOID:
		case INT4ARRAYOID:
		case INT8ARRAYOID:
		case OIDARRAYOID:
		case FLOAT4ARRAYOID:
		case FLOAT8ARRAYOID:
		case TEXTARRAYOID:
		case VARCHARARRAYOID:
		case BPCHARARRAYOID:
		case NUMERICARRAYOID:
		case UUIDARRAYOID:
		case DATEARRAYOID:
		case TIMESTAMPARRAYOID:
		case TIMESTAMPTZARRAYOID:
			return VARLENA;
		case NAMEOID:
			return NAMEDATALEN;
		case UUIDOID:
			return UUID_LEN;
		case INTERVALOID:
			return sizeof(Interval);
		default:
			return NOT_KNOWN;
	}
}

static inline uint64
mix(uint64 hash, uint64 value)
{
	hash = (hash ^ value) * UINT64CONST(0x9E3779B97F4A7C15);
	return hash ^ (hash >> 29);
}

/* Of a long one, both ends: what tells values or statements apart is often there. */
static uint64
hash_ends(const char *bytes, Size length, Size end)
{
	const unsigned char *start = (const unsigned char *) bytes;
	uint64		hash = hash_bytes_extended(start, (int) Min(length, end), length);

	if (length > end)
		hash = mix(hash, hash_bytes_extended(start + length - end, (int) end, length));
	return hash;
}

/*
 * Values are taken as they are: nothing is fetched from a TOAST table.  Those of
 * types not known count as new each time, so that their repetition is not seen.
 */
static uint64
hash_value(const ParamExternData *param)
{
	static uint64 not_known = 0;
	int			length;

	if (param->isnull || !OidIsValid(param->ptype))
		return 1;
	length = value_length(param->ptype);
	if (length == 0)
		return (uint64) param->value;
	if (length == NOT_KNOWN)
		return ++not_known;
	if (length == VARLENA)
		length = VARSIZE_ANY(DatumGetPointer(param->value));
	return hash_ends(DatumGetPointer(param->value), length, VALUE_BYTES);
}

/*
 * The statement's own part of the text that it came in.  Without a place there,
 * as of a rule's statement, its length means nothing either.
 */
static const char *
statement_text(const QueryDesc *query, Size *length)
{
	const char *text = query->sourceText;
	int			start = query->plannedstmt->stmt_location;
	int			stmt_len = query->plannedstmt->stmt_len;

	*length = 0;
	if (text == NULL)
		return NULL;
	text = &text[Max(start, 0)];

	*length = start >= 0 && stmt_len > 0 ? stmt_len : strlen(text);
	return text;
}

static uint64
hash_text(const QueryDesc *query)
{
	Size		length;
	const char *text = statement_text(query, &length);

	return text ? hash_ends(text, length, TEXT_BYTES) : 0;
}

/*
 * Is the text of the statement that runs part of its function's definition?
 * Others have values in them, and these are not to be kept.
 */
static bool own_text = false;

/*
 * A copy, cut to LOOP_TEXT bytes, of what perfopt_loop_function() was asked about
 * last; of text that is no function's own, an empty one.
 */
void
perfopt_loop_text(QueryDesc *query, char *copy)
{
	Size		length;
	const char *text = own_text || query->dest->mydest == DestSQLFunction ?
	statement_text(query, &length) : NULL;

	if (text == NULL)
		length = 0;
	else if (length >= LOOP_TEXT)
		length = pg_mbcliplen(text, (int) Min(length, LOOP_TEXT + MAX_MULTIBYTE_CHAR_LEN),
							  LOOP_TEXT - 1);
	memcpy(copy, text ? text : "", length);
	copy[length] = '\0';
}

/*
 * The same for the same values.  Without parameters, values are in the text.
 */
uint64
perfopt_loop_parameters(QueryDesc *query)
{
	ParamListInfo params = query->params;
	uint64		hash = 0;

	if (params == NULL || params->numParams == 0)
		return hash_text(query);
	for (int i = 0; i < Min(params->numParams, MAX_PARAMETERS); i++)
	{
		ParamExternData workspace;
		ParamExternData *param = &params->params[i];

		/*
		 * a speculative fetch does not fail: what is not there is no
		 * parameter
		 */
		if (params->paramFetch)
			param = params->paramFetch(params, i + 1, true, &workspace);
		hash = mix(hash, hash_value(param));
	}
	return hash;
}

/* ---------------------------------------------------------------------
 * The function
 */

static void (*plpgsql_callback) (void *arg) = NULL;
static PLpgSQL_plugin **plugin_place = NULL;

static void learn_callback(PLpgSQL_execstate *estate, PLpgSQL_function *func);

static PLpgSQL_plugin plugin = {
	.func_setup = learn_callback
};

static void
learn_callback(PLpgSQL_execstate *estate, PLpgSQL_function *func)
{
	plpgsql_callback = plugin.error_callback;
	if (*plugin_place == &plugin)
		*plugin_place = NULL;
}

/* Does what a function runs now stand in its definition? */
static bool
is_own_text(const PLpgSQL_execstate *estate)
{
	const PLpgSQL_stmt *statement = estate->err_stmt;

	if (!OidIsValid(estate->func->fn_oid))
		return false;			/* a DO block is a client's text */
	if (statement == NULL)
		return true;			/* a default */
	switch (statement->cmd_type)
	{
		case PLPGSQL_STMT_DYNEXECUTE:
		case PLPGSQL_STMT_DYNFORS:
		case PLPGSQL_STMT_FETCH:	/* from a cursor of any query */
			return false;
		case PLPGSQL_STMT_RETURN_QUERY:
			return ((const PLpgSQL_stmt_return_query *) statement)->dynquery == NULL;
		default:
			return true;
	}
}

/*
 * The function that runs what runs now.  nested: it is run by a statement.
 */
Oid
perfopt_loop_function(bool nested)
{
	int			depth = 0;

	own_text = false;

	if (plpgsql_callback == NULL && *plugin_place && *plugin_place != &plugin)
		plpgsql_callback = (*plugin_place)->error_callback;
	if (plpgsql_callback != NULL)
	{
		for (ErrorContextCallback *context = error_context_stack;
			 context && depth < MAX_CONTEXTS; context = context->previous, depth++)
		{
			PLpgSQL_execstate *estate;

			if (context->callback != plpgsql_callback)
				continue;
			estate = (PLpgSQL_execstate *) context->arg;

			/*
			 * with no more than SPI between: else something it calls runs
			 * this
			 */
			own_text = depth <= 1 && is_own_text(estate);
			return OidIsValid(estate->func->fn_oid) ? estate->func->fn_oid : FUNCTION_DO_BLOCK;
		}
	}
	return nested ? FUNCTION_OTHER : FUNCTION_NONE;
}

void
perfopt_loop_function_init(void)
{
	plugin_place = (PLpgSQL_plugin **) find_rendezvous_variable("PLpgSQL_plugin");
	if (*plugin_place == NULL)
		*plugin_place = &plugin;
}
