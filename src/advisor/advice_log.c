/*
 * advice_log.c
 *		perfopt.advice_log: every change of an advice's status, with who made it.
 *
 * A trigger on the table of advice writes it, so that no change can be missed,
 * one that a DBA makes by hand included.  It is not fired by a restore, which
 * inserts rows.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"
#include "utils/rel.h"

/* Who asks, while a function asks for him. */
const char *perfopt_advice_actor = NULL;

static const char *
actor(void)
{
	if (perfopt_advice_actor)
		return perfopt_advice_actor;
	return MyBgworkerEntry ? "perfopt" :
		GetUserNameFromId(GetSessionUserId(), false);
}

static const char *
act(const char *from, const char *to)
{
	static const char *const acts[][3] = {
		{"dismissed", "open", "undismiss"},
		{"reverted", "open", "undismiss"},
		{"applying", "queued", "try again later"},
		{"reverting", "applied", "revert failed"},
		{"reverting", "confirmed", "revert failed"},
		{"reverting", "regressed", "revert failed"},
		{NULL, "open", "found again"},
		{NULL, "dismissed", "dismiss"},
		{NULL, "queued", "apply"},
		{NULL, "applying", "start"},
		{"applying", "applied", "applied"},
		{"queued", "applied", "exists already"},
		{NULL, "applied", "applied by hand"},
		{NULL, "confirmed", "judge"},
		{NULL, "regressed", "judge"},
		{NULL, "reverting", "revert"},
		{NULL, "reverted", "reverted"},
		{NULL, "failed", "fail"},
		{NULL, "obsolete", "no longer needed"}
	};

	for (int i = 0; i < lengthof(acts); i++)
		if ((acts[i][0] == NULL || strcmp(acts[i][0], from) == 0) &&
			strcmp(acts[i][1], to) == 0)
			return acts[i][2];
	return "change";
}

static char *
column(TriggerData *data, HeapTuple tuple, const char *name)
{
	TupleDesc	desc = RelationGetDescr(data->tg_relation);

	return SPI_getvalue(tuple, desc, SPI_fnumber(desc, name));
}

PG_FUNCTION_INFO_V1(perfopt_log_advice);

/* log_advice(), a trigger of perfopt.advice_item after update of its status */
Datum
perfopt_log_advice(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[6];
	char		nulls[7] = "      ";
	char	   *from;
	char	   *to;
	char	   *detail;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_BY_UPDATE(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("perfopt.log_advice() is a trigger of perfopt.advice_item")));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	from = column(data, data->tg_trigtuple, "status");
	to = column(data, data->tg_newtuple, "status");
	if (strcmp(to, "dismissed") == 0)
		detail = column(data, data->tg_newtuple, "dismiss_reason");
	else if (strcmp(to, "confirmed") == 0 || strcmp(to, "regressed") == 0)
		detail = column(data, data->tg_newtuple, "verdict");
	else if (strcmp(to, "applying") == 0)
		detail = column(data, data->tg_newtuple, "ddl");
	else if (strcmp(to, "reverting") == 0)
		detail = column(data, data->tg_newtuple, "undo");
	else
		detail = column(data, data->tg_newtuple, "error");

	values[0] = CStringGetTextDatum(column(data, data->tg_newtuple, "id"));
	values[1] = CStringGetTextDatum(actor());
	values[2] = CStringGetTextDatum(act(from, to));
	values[3] = CStringGetTextDatum(from);
	values[4] = CStringGetTextDatum(to);
	values[5] = detail ? CStringGetTextDatum(detail) : (Datum) 0;
	nulls[5] = detail ? ' ' : 'n';
	if (SPI_execute_with_args("INSERT INTO perfopt.advice_log (advice, actor, act, from_status, to_status, detail)"
							  " VALUES ($1::pg_catalog.int8, $2, $3, $4, $5, $6)",
							  6, types, values, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write the log of advice");
	SPI_finish();
	return PointerGetDatum(NULL);
}
