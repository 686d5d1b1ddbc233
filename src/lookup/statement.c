/*
 * statement.c
 *		Statements of look-ups, made once a session and kept with their plans.
 *
 * A statement is found by all that its text was made from: the arguments but
 * for keys and the values of parameters, the role and the search_path.  What
 * the catalogs said is forgotten when one of its relations, or any function,
 * operator or schema changes; its relations are locked before that is asked,
 * so that it holds while the statement runs.  Privileges and row level
 * security are the plan's own affair, as for any prepared statement.
 *
 * Which plan
 *
 * Up to FEW_KEYS keys, planning would take longer than what better estimates
 * could save: the plan is one for any keys.  It looks each key up, unless that
 * is far more expensive, as it is without an index.  More keys are planned for
 * as they are, so that the planner can tell when to read the whole table.
 *
 * Statements are private to this process, so there are no locks.  They are at
 * most MAX_STATEMENTS; one that is in use, also by a caller further up, is not
 * freed.
 */
#include "postgres.h"

#include "lookup/lookup_internal.h"

#include "catalog/namespace.h"
#include "common/compat.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "storage/lmgr.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#define MAX_STATEMENTS	64
#define FEW_KEYS		200

/* Looking each key up may seem to cost this much more, for it rarely does. */
#define EACH_ALLOWANCE	2.0

static LookupStatement *statements[MAX_STATEMENTS];
static int	num_statements = 0;
static uint64 use_clock = 0;

/* Counts what might concern a statement that is being made. */
static uint64 invalidations = 0;

/* ---------------------------------------------------------------------
 * Invalidation
 */

static void
relation_changed(Datum arg, Oid relid)
{
	invalidations++;
	for (int i = 0; i < num_statements; i++)
	{
		if (!OidIsValid(relid) || list_member_oid(statements[i]->relids, relid))
			statements[i]->is_stale = true;
	}
}

static void
object_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	relation_changed(arg, InvalidOid);
}

static void
watch_catalogs(void)
{
	static bool watching = false;

	if (watching)
		return;
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, object_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(OPEROID, object_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AMOPOPID, object_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, object_changed, (Datum) 0);
	watching = true;
}

/* ---------------------------------------------------------------------
 * Identity
 */

void
lookup_identity_bytes(StringInfo identity, const void *bytes, int len)
{
	appendBinaryStringInfo(identity, (const char *) &len, sizeof(len));
	if (len > 0)
		appendBinaryStringInfo(identity, bytes, len);
}

void
lookup_identity_begin(StringInfo identity, char kind)
{
	Oid			role = GetUserId();
	bool		strings = PERFOPT_STANDARD_CONFORMING_STRINGS;

	initStringInfo(identity);
	appendStringInfoChar(identity, kind);
	appendStringInfoChar(identity, strings);
	appendBinaryStringInfo(identity, (char *) &role, sizeof(role));
	lookup_identity_bytes(identity, namespace_search_path, strlen(namespace_search_path));
}

/* An argument of variable length. */
void
lookup_identity_argument(StringInfo identity, FunctionCallInfo fcinfo, int n)
{
	struct varlena *value;

	if (PG_ARGISNULL(n))
	{
		lookup_identity_bytes(identity, NULL, -1);
		return;
	}
	value = PG_GETARG_VARLENA_PP(n);
	lookup_identity_bytes(identity, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* ---------------------------------------------------------------------
 * Making and finding
 */

static SPIPlanPtr
prepare(LookupStatement *statement, const char *sql, int options)
{
	SPIPlanPtr	plan = SPI_prepare_cursor(sql, statement->num_params + statement->key.num,
										  statement->types, options);

	if (plan == NULL)
		elog(ERROR, "could not prepare a look-up: %s", SPI_result_code_string(SPI_result));
	return plan;
}

static SPIPlanPtr
prepare_and_keep(LookupStatement *statement, const char *sql, int options)
{
	SPIPlanPtr	plan = prepare(statement, sql, options);

	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep the plan of a look-up");
	return plan;
}

static double
plan_cost(SPIPlanPtr plan)
{
	CachedPlan *cached = SPI_plan_get_cached_plan(plan);
	double		cost = 0;

	if (cached == NULL)
		return 0;
	if (IsA(linitial(cached->stmt_list), PlannedStmt))
	{
		Plan	   *top = linitial_node(PlannedStmt, cached->stmt_list)->planTree;

		cost = top->total_cost;
	}
	ReleaseCachedPlan(cached, CurrentResourceOwner);
	return cost;
}

static void
free_statement(LookupStatement *statement)
{
	for (int i = 0; i < LOOKUP_NUM_SHAPES; i++)
	{
		if (statement->plans[i])
			SPI_freeplan(statement->plans[i]);
	}
	if (statement->planned_anew)
		SPI_freeplan(statement->planned_anew);
	MemoryContextDelete(statement->context);
}

/* Forget a statement; it is freed by the last that uses it. */
static void
forget(int i)
{
	LookupStatement *statement = statements[i];

	statements[i] = statements[--num_statements];
	statement->is_stale = true;
	if (statement->in_use == 0)
		free_statement(statement);
}

static void
remember(LookupStatement *statement)
{
	while (num_statements >= MAX_STATEMENTS)
	{
		int			victim = 0;

		for (int i = 1; i < num_statements; i++)
		{
			if (statements[i]->last_used < statements[victim]->last_used)
				victim = i;
		}
		forget(victim);
	}
	statements[num_statements++] = statement;
}

/* Decide which shape serves few keys; SPI is connected. */
static void
prepare_plans(LookupStatement *statement)
{
	SPIPlanPtr	first;
	ListCell   *lc;

	foreach(lc, statement->checks)
		SPI_freeplan(prepare(statement, lfirst(lc), 0));
	statement->few = statement->sql[LOOKUP_EACH] ? LOOKUP_EACH : LOOKUP_TOGETHER;
	first = prepare_and_keep(statement, statement->sql[statement->few], CURSOR_OPT_GENERIC_PLAN);
	statement->plans[statement->few] = first;
	if (statement->few == LOOKUP_EACH)
	{
		SPIPlanPtr	together = prepare_and_keep(statement, statement->sql[LOOKUP_TOGETHER],
												CURSOR_OPT_GENERIC_PLAN);

		statement->plans[LOOKUP_TOGETHER] = together;
		if (plan_cost(first) > EACH_ALLOWANCE * plan_cost(together))
			statement->few = LOOKUP_TOGETHER;
	}
	statement->planned_anew = prepare_and_keep(statement, statement->sql[LOOKUP_TOGETHER],
											   CURSOR_OPT_CUSTOM_PLAN);
}

static LookupStatement *
make_statement(const StringInfoData *identity, uint32 hash, LookupParams *params,
			   LookupBuild build, void *arg)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "perfopt look-up",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	LookupStatement *statement = palloc0(sizeof(LookupStatement));
	uint64		before = invalidations;

	statement->context = context;
	statement->num_params = params->num;
	build(statement, arg);
	statement->types = palloc((params->num + statement->key.num) * sizeof(Oid));
	if (params->num > 0)
		memcpy(statement->types, params->types, params->num * sizeof(Oid));
	for (int i = 0; i < statement->key.num; i++)
		statement->types[params->num + i] = statement->key.columns[i].array_type;
	statement->identity = palloc(identity->len);
	memcpy(statement->identity, identity->data, identity->len);
	statement->identity_len = identity->len;
	statement->hash = hash;
	statement->in_use = 1;

	PG_TRY();
	{
		SPI_connect();
		prepare_plans(statement);
		MemoryContextSwitchTo(context);
		statement->desc = CreateTupleDescCopy(((CachedPlanSource *)
											   linitial(SPI_plan_get_plan_sources(statement->plans[LOOKUP_TOGETHER])))->resultDesc);
		SPI_finish();
	}
	PG_CATCH();
	{
		/* kept plans would stay for ever */
		free_statement(statement);
		PG_RE_THROW();
	}
	PG_END_TRY();

	MemoryContextSetParent(context, TopMemoryContext);
	MemoryContextSwitchTo(old);
	if (invalidations == before)
		remember(statement);
	else
		statement->is_stale = true; /* it serves for this call */
	return statement;
}

static LookupStatement *
find_statement(const StringInfoData *identity, uint32 hash)
{
	for (int i = 0; i < num_statements; i++)
	{
		LookupStatement *statement = statements[i];

		if (statement->hash != hash || statement->identity_len != identity->len ||
			memcmp(statement->identity, identity->data, identity->len) != 0)
			continue;
		if (!statement->is_stale)
		{
			ListCell   *lc;

			/* others' changes are read before the lock is granted */
			statement->in_use++;
			foreach(lc, statement->relids)
				LockRelationOid(lfirst_oid(lc), AccessShareLock);
			statement->in_use--;
		}
		if (!statement->is_stale)
			return statement;
		/* the lock may have moved it */
		for (int j = 0; j < num_statements; j++)
		{
			if (statements[j] == statement)
			{
				forget(j);
				break;
			}
		}
		return NULL;
	}
	return NULL;
}

/*
 * The statement of this identity, to be given back by lookup_statement_end()
 * also when there is an error.
 */
LookupStatement *
lookup_statement_begin(const StringInfoData *identity, LookupParams *params,
					   LookupBuild build, void *arg)
{
	StringInfoData whole = *identity;
	uint32		hash;
	LookupStatement *statement;

	watch_catalogs();
	lookup_identity_bytes(&whole, params->types, params->num * (int) sizeof(Oid));
	hash = hash_bytes((unsigned char *) whole.data, whole.len);
	statement = find_statement(&whole, hash);
	if (statement)
		statement->in_use++;
	else
		statement = make_statement(&whole, hash, params, build, arg);
	statement->last_used = ++use_clock;
	return statement;
}

void
lookup_statement_end(LookupStatement *statement)
{
	bool		kept = false;

	if (--statement->in_use > 0 || !statement->is_stale)
		return;
	for (int i = 0; i < num_statements; i++)
		kept |= statements[i] == statement;
	/* one that is kept is freed when it is looked for again */
	if (!kept)
		free_statement(statement);
}

/* ---------------------------------------------------------------------
 * Running
 */

typedef struct RowReceiver
{
	DestReceiver pub;
	TupleDesc	desc;
	Tuplestorestate *rows;
} RowReceiver;

static void
rows_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	RowReceiver *receiver = (RowReceiver *) self;
	bool		same = typeinfo->natts == receiver->desc->natts;

	for (int i = 0; same && i < typeinfo->natts; i++)
		same = TupleDescAttr(typeinfo, i)->atttypid == TupleDescAttr(receiver->desc, i)->atttypid;
	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("result type of the look-up has just changed"),
				 errhint("Run the statement again.")));
}

static bool
rows_receive(TupleTableSlot *slot, DestReceiver *self)
{
	tuplestore_puttupleslot(((RowReceiver *) self)->rows, slot);
	return true;
}

static void
rows_nothing(DestReceiver *self)
{
}

/* Returns the number of rows. */
uint64
lookup_statement_run(LookupStatement *statement, const LookupKeys *keys,
					 const LookupParams *params, Tuplestorestate *rows)
{
	RowReceiver receiver = {
		.pub = {rows_receive, rows_startup, rows_nothing, rows_nothing, DestTuplestore},
		.desc = statement->desc,
		.rows = rows
	};
	SPIExecuteOptions options = {0};
	ParamListInfo list;
	SPIPlanPtr	plan = keys->num > FEW_KEYS ? statement->planned_anew :
	statement->plans[statement->few];
	int			result;
	uint64		num;

	list = makeParamList(statement->num_params + statement->key.num);
	for (int i = 0; i < list->numParams; i++)
	{
		ParamExternData *param = &list->params[i];
		bool		is_key = i >= statement->num_params;

		param->value = is_key ? keys->arrays[i - statement->num_params] : params->values[i];
		param->isnull = is_key ? false : params->nulls[i];
		param->pflags = PARAM_FLAG_CONST;
		param->ptype = statement->types[i];
	}
	SPI_connect();
	options.params = list;
	options.read_only = true;
	options.dest = &receiver.pub;
	result = SPI_execute_plan_extended(plan, &options);
	if (result < 0)
		elog(ERROR, "could not run a look-up: %s", SPI_result_code_string(result));
	num = SPI_processed;
	SPI_finish();
	return num;
}

/* ---------------------------------------------------------------------
 * Results
 */

Tuplestorestate *
lookup_result_begin(FunctionCallInfo fcinfo, const char *hint)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext old;

	if (result == NULL || !IsA(result, ReturnSetInfo) ||
		(result->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	if (result->expectedDesc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a list of columns is needed"),
				 errhint("%s", hint)));
	old = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	result->setResult = tuplestore_begin_heap((result->allowedModes & SFRM_Materialize_Random) != 0,
											  false, work_mem);
	MemoryContextSwitchTo(old);
	result->returnMode = SFRM_Materialize;
	result->setDesc = NULL;		/* the caller compares it */
	return result->setResult;
}

/* The list of columns as it should have been written. */
static char *
column_list(LookupStatement *statement)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < statement->desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(statement->desc, i);

		appendStringInfo(&buf, "%s%s %s", i > 0 ? ", " : "",
						 quote_identifier(list_nth(statement->names, i)),
						 format_type_with_typemod(attr->atttypid, attr->atttypmod));
	}
	return buf.data;
}

/* The caller's list of columns has to fit the result. */
void
lookup_check_columns(LookupStatement *statement, TupleDesc expected, const char *function)
{
	TupleDesc	actual = statement->desc;

	if (expected->natts != actual->natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s returns %d columns here, but %d are expected",
						function, actual->natts, expected->natts),
				 errhint("Write AS t(%s).", column_list(statement))));
	for (int i = 0; i < actual->natts; i++)
	{
		Form_pg_attribute want = TupleDescAttr(expected, i);
		Form_pg_attribute have = TupleDescAttr(actual, i);

		if (want->atttypid != have->atttypid ||
			(want->atttypmod >= 0 && want->atttypmod != have->atttypmod))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column %d (\"%s\") of %s has type %s here, but %s is expected",
							i + 1, (char *) list_nth(statement->names, i), function,
							format_type_with_typemod(have->atttypid, have->atttypmod),
							format_type_with_typemod(want->atttypid, want->atttypmod)),
					 errhint("Write AS t(%s).", column_list(statement))));
	}
}
