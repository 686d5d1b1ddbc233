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

#include "common/hashfn.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "plpgsql.h"
#include "utils/lsyscache.h"

/* So much of a value, or of each end of a statement's text, is hashed. */
#define VALUE_BYTES			64
#define TEXT_BYTES			1024

/* Parameters of a PL/pgSQL function are its variables; so many are looked at. */
#define MAX_PARAMETERS		64

/* Frames of the stack of error contexts that are looked at. */
#define MAX_CONTEXTS		64

/* ---------------------------------------------------------------------
 * Parameters
 */

typedef struct TypeEntry
{
	Oid			type;
	int16		length;
	bool		by_value;
} TypeEntry;

static TypeEntry types[32];

static const TypeEntry *
find_type(Oid type)
{
	TypeEntry  *entry = &types[type % lengthof(types)];

	if (entry->type != type)
	{
		get_typlenbyval(type, &entry->length, &entry->by_value);
		entry->type = type;
	}
	return entry;
}

static inline uint64
mix(uint64 hash, uint64 value)
{
	hash = (hash ^ value) * UINT64CONST(0x9E3779B97F4A7C15);
	return hash ^ (hash >> 29);
}

static uint64
hash_part(const char *bytes, Size length)
{
	return hash_bytes_extended((const unsigned char *) bytes,
							   (int) Min(length, VALUE_BYTES), length);
}

/* Values are taken as they are: nothing is fetched from a TOAST table. */
static uint64
hash_value(const ParamExternData *param)
{
	const TypeEntry *type;

	if (param->isnull || !OidIsValid(param->ptype))
		return 1;
	type = find_type(param->ptype);
	if (type->by_value)
		return (uint64) param->value;
	if (type->length == -1)
		return hash_part(DatumGetPointer(param->value), VARSIZE_ANY(DatumGetPointer(param->value)));
	if (type->length == -2)
		return hash_part(DatumGetCString(param->value),
						 strnlen(DatumGetCString(param->value), VALUE_BYTES));
	return hash_part(DatumGetPointer(param->value), type->length);
}

/* The statement's own part of the text that it came in. */
static const char *
statement_text(const QueryDesc *query, Size *length)
{
	const char *text = query->sourceText;

	*length = 0;
	if (text == NULL)
		return NULL;
	text	  +=Max(query->plannedstmt->stmt_location, 0);

	*length = query->plannedstmt->stmt_len;
	if (*length == 0)
		*length = strlen(text);
	return text;
}

static uint64
hash_text(const QueryDesc *query)
{
	Size		length;
	const char *text = statement_text(query, &length);
	uint64		hash;

	if (text == NULL)
		return 0;
	hash = hash_bytes_extended((const unsigned char *) text,
							   (int) Min(length, TEXT_BYTES), length);
	if (length > TEXT_BYTES)
		hash = mix(hash, hash_bytes_extended((const unsigned char *) text +length - TEXT_BYTES,
											 TEXT_BYTES, length));
	return hash;
}

/* A copy, cut to LOOP_TEXT bytes. */
void
perfopt_loop_text(QueryDesc *query, char *copy)
{
	Size		length;
	const char *text = statement_text(query, &length);

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

/*
 * The function that runs what runs now.  nested: it is run by a statement.
 */
Oid
perfopt_loop_function(bool nested)
{
	int			depth = 0;

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
