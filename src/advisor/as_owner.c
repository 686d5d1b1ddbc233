/*
 * as_owner.c
 *		Something done with a table's rows as the table's owner.
 *
 * Reading a table, and evaluating expressions over its rows, calls functions.
 * They are called as the table's owner, who is made the session's user too, in
 * a security-restricted operation and with a locked search_path, as maintenance
 * commands do it; in a subtransaction that is rolled back, so that nothing stays
 * of what they did, and under a statement timeout.  What fails or takes too long
 * ends nothing else.
 *
 * A function may catch the error of that timeout and carry on.  So none is to be
 * called here that an ordinary role has written (see trust.c), but where a
 * second timeout ends the process, as in what_if.c.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include "access/xact.h"
#include "common/test_clock.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

TimestampTz
perfopt_statement_timeout(void)
{
	return get_timeout_active(STATEMENT_TIMEOUT) ? get_timeout_finish_time(STATEMENT_TIMEOUT) : 0;
}

void
perfopt_set_statement_timeout(TimestampTz end)
{
	disable_timeout(STATEMENT_TIMEOUT, true);

	/* if the one before has just fired, it is not for those who come after */
	if (get_timeout_indicator(STATEMENT_TIMEOUT, true))
		QueryCancelPending = false;
	if (end != 0)
		enable_timeout_at(STATEMENT_TIMEOUT, end);
}

char *
perfopt_as_owner(Relation relation, int limit_ms, void (*action) (void *arg), void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	MemoryContext work = AllocSetContextCreate(caller, "perfopt as owner", ALLOCSET_DEFAULT_SIZES);
	Oid			owner = relation->rd_rel->relowner;
	Oid			session_user = GetSessionUserId();
	Oid			user;
	int			sec_context;
	int			nest_level;
	TimestampTz callers_timeout = perfopt_statement_timeout();
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PERFOPT_LIMIT_MS(limit_ms));
	bool		limited = callers_timeout == 0 || end < callers_timeout;
	ErrorData  *volatile error = NULL;

	GetUserIdAndSecContext(&user, &sec_context);
	BeginInternalSubTransaction(NULL);
	nest_level = NewGUCNestLevel();
	PG_TRY();
	{
		/* a session of its own stays that session, as with ANALYZE */
		perfopt_set_identity(perfopt_what_if_as_caller() ? session_user : owner, owner,
							 sec_context | SECURITY_LOCAL_USERID_CHANGE |
							 SECURITY_RESTRICTED_OPERATION);
		(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		if (limited)
			perfopt_set_statement_timeout(end);
		MemoryContextSwitchTo(work);
		action(arg);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	if (limited)
		perfopt_set_statement_timeout(callers_timeout);
	AtEOXact_GUC(false, nest_level);
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = resources;
	perfopt_set_identity(session_user, user, sec_context);
	MemoryContextDelete(work);

	if (error == NULL)
		return NULL;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED && (!limited || GetCurrentTimestamp() < end))
		ReThrowError(error);
	return error->message;
}
