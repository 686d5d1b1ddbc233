/*
 * database_commands.c
 *		Commands that want a database, or the extension, for themselves do not
 *		have to wait for our workers.
 *
 * DROP DATABASE, ALTER DATABASE RENAME and SET TABLESPACE, and CREATE DATABASE
 * (of its template) fail while anybody else is connected to the database.
 * DROP EXTENSION perfopt and ALTER EXTENSION perfopt want locks that a duty in
 * the middle of its work may have.  Before such a command runs, its backend
 * puts a hold on the database: nothing of ours starts there any more, and what
 * is there is told to go and waited for.  The hold ends with the transaction,
 * whichever way; that is also when the launcher looks at the databases again,
 * to find a new or renamed one.
 *
 * Only commands that the user is allowed to give stop anything.  Nothing in
 * here makes a command fail; if a worker does not go in time, the server says
 * what it always says.
 *
 * Locking: holds are guarded by the registry's lock.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "common/compat.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "tcop/utility.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"
#include "worker/worker_internal.h"

#include <signal.h>

/* How long to wait for our processes to leave. */
#define LEAVE_TIMEOUT_MS	5000

static ProcessUtility_hook_type prev_ProcessUtility = NULL;
static bool holding = false;	/* in this transaction */

/* What a command wants for itself. */
typedef struct Wanted
{
	Oid			dboid;			/* InvalidOid: nothing */
	bool		all;			/* jobs must go too, not the worker alone */
} Wanted;

static bool
owns(Oid classid, Oid objectid)
{
	return perfopt_object_ownercheck(classid, objectid, GetUserId());
}

static bool
may_create_database(void)
{
	HeapTuple	tuple;
	bool		result = superuser();

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		result |= ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return result;
}

static bool
is_template(Oid dboid)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dboid));
	bool		result = false;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* The value of a string option, or NULL. */
static const char *
option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, name) == 0 && def->arg && IsA(def->arg, String))
			return strVal(def->arg);
	}
	return NULL;
}

/* Does the DROP take our extension along? */
static bool
drops_extension(const DropStmt *drop)
{
	ListCell   *lc;

	if (drop->removeType != OBJECT_EXTENSION)
		return false;
	if (drop->behavior == DROP_CASCADE)
		return true;			/* perhaps by way of one we depend on */
	foreach(lc, drop->objects)
		if (IsA(lfirst(lc), String) && strcmp(strVal(lfirst(lc)), "perfopt") == 0)
		return true;
	return false;
}

/* What the command wants for itself, if the user may give it. */
static Wanted
wanted_by(Node *command)
{
	Wanted		wanted = {InvalidOid, true};
	const char *name;
	Oid			dboid;

	switch (nodeTag(command))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) command)->dbname;
			break;

		case T_RenameStmt:
			if (((RenameStmt *) command)->renameType != OBJECT_DATABASE)
				return wanted;
			name = ((RenameStmt *) command)->subname;
			break;

		case T_AlterDatabaseStmt:
			name = ((AlterDatabaseStmt *) command)->dbname;
			if (option(((AlterDatabaseStmt *) command)->options, "tablespace") == NULL)
				return wanted;
			break;

		case T_CreatedbStmt:
			name = option(((CreatedbStmt *) command)->options, "template");
			dboid = get_database_oid(name ? name : "template1", true);
			if (OidIsValid(dboid) && may_create_database() &&
				(is_template(dboid) || owns(DatabaseRelationId, dboid)))
				wanted.dboid = dboid;
			return wanted;

		case T_AlterExtensionStmt:
		case T_DropStmt:
			{
				Oid			extension;

				if (IsA(command, DropStmt) ? !drops_extension((DropStmt *) command) :
					strcmp(((AlterExtensionStmt *) command)->extname, "perfopt") != 0)
					return wanted;
				extension = get_extension_oid("perfopt", true);
				if (OidIsValid(extension) && owns(ExtensionRelationId, extension))
					wanted.dboid = MyDatabaseId;
				wanted.all = false;
				return wanted;
			}

		default:
			return wanted;
	}

	dboid = get_database_oid(name, true);
	if (OidIsValid(dboid) && owns(DatabaseRelationId, dboid))
		wanted.dboid = dboid;
	return wanted;
}

/* The transaction is over: let everybody in again. */
static void
end_holds(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (!holding)
		return;
	holding = false;

	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < worker_registry->num_holds; i++)
	{
		DatabaseHold *hold = &worker_registry->holds[i];
		DatabaseEntry *entry;

		if (!OidIsValid(hold->dboid) || hold->holder != MyProcPid)
			continue;
		entry = worker_find_database(hold->dboid);
		if (entry)
		{
			entry->retry_at = 0;
			entry->failures = 0;
		}
		hold->dboid = InvalidOid;
	}
	worker_registry->scan_wanted = true;
	worker_wake_launcher_locked();
	LWLockRelease(worker_registry->lock);
}

/*
 * Put a hold on the database, in place of one that this backend may have from
 * an earlier command of its transaction: nobody can hold more than one, or use
 * up the room of others.
 */
static void
put_hold(Oid dboid)
{
	DatabaseHold *hold = NULL;

	LWLockAcquire(worker_registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < worker_registry->num_holds; i++)
	{
		DatabaseHold *candidate = &worker_registry->holds[i];

		if (OidIsValid(candidate->dboid) ? candidate->holder == MyProcPid : hold == NULL)
			hold = candidate;
	}
	if (hold)
	{
		hold->dboid = dboid;
		hold->holder = MyProcPid;
	}
	LWLockRelease(worker_registry->lock);
}

/*
 * Is our worker connected?  With tell it is told to go.  One that is on its
 * way but has not attached yet will see the hold.
 */
static bool
worker_there(Oid dboid, bool tell)
{
	DatabaseEntry *entry;
	bool		there;

	LWLockAcquire(worker_registry->lock, LW_SHARED);
	entry = worker_find_database(dboid);
	there = entry && entry->pid != 0;
	if (there && tell)
		kill(entry->pid, SIGTERM);
	LWLockRelease(worker_registry->lock);
	return there;
}

static void
make_way(Wanted wanted)
{
	static bool registered = false;
	int64		until = worker_clock_ms() + LEAVE_TIMEOUT_MS;

	if (!registered)
	{
		RegisterXactCallback(end_holds, NULL);
		registered = true;
	}
	holding = true;
	put_hold(wanted.dboid);

	(void) worker_there(wanted.dboid, true);
	if (wanted.all)
		worker_pool_stop_database(wanted.dboid);

	ConditionVariablePrepareToSleep(&worker_registry->changed);
	while (worker_there(wanted.dboid, false) ||
		   (wanted.all && worker_pool_in_database(wanted.dboid)))
	{
		if (worker_clock_ms() >= until)
			break;
		(void) ConditionVariableTimedSleep(&worker_registry->changed, 100,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

static void
database_commands_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
								 bool readOnlyTree, ProcessUtilityContext context,
								 ParamListInfo params, QueryEnvironment *queryEnv,
								 DestReceiver *dest, QueryCompletion *qc)
{
	Wanted		wanted = wanted_by(pstmt->utilityStmt);

	if (OidIsValid(wanted.dboid))
		make_way(wanted);

	if (prev_ProcessUtility)
		prev_ProcessUtility(pstmt, queryString, readOnlyTree, context, params,
							queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params,
								queryEnv, dest, qc);
}

void
worker_database_commands_init(void)
{
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = database_commands_ProcessUtility;
}
