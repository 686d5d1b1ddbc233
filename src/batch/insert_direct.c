/*
 * insert_direct.c
 *		The rows of a batched insert straight into a table, in bulk as COPY does,
 *		where nothing of what an INSERT means can be lost.
 *
 * The INSERT has been planned: its plan says what would be done.  Where that is
 * a ModifyTable that puts rows into one ordinary heap table, with no trigger to
 * fire for them, nothing to check but the table's own constraints, no conflict
 * clause and nothing to return, its subplan is started as a query of its own,
 * with the plan's range table, so that privileges are checked by the executor
 * as ever.  Rows are not read by it, but put through its projection as they
 * come, which makes complete rows of the table, casts and defaults included.
 * They are checked, collected, and written by table_multi_insert(); index
 * entries are made one row after the other.  Where the plan is something else,
 * another extension's node for example, it stays the plan's.
 *
 * As in COPY, rows that are collected are not yet seen by functions that read
 * the table, so volatile ones, which could, are an objection; and a constraint
 * that a row violates is found before duplicates among the rows collected
 * before it: of several bad rows another one may fail the call.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "batch/insert_internal.h"
#include "common/compat.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "storage/bufmgr.h"
#include "tcop/dest.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

/* As many as COPY collects. */
#define MAX_ROWS	1000
#define MAX_BYTES	65535

struct BatchDirect
{
	BatchRun   *run;
	CachedPlan *plan;
	QueryDesc  *query_desc;
	EState	   *estate;
	Tuplestorestate *nothing;	/* for the scan to be started with */
	TupleTableSlot *given;		/* a row of the statement */
	ExprContext *context;
	ProjectionInfo *projection;
	ResultRelInfo *target;
	CommandId	command;
	BulkInsertState bulk;		/* from the second buffer on */
	bool		flushed;
	int			num_rows;
	Size		num_bytes;
	uint64		num_written;
	TupleTableSlot *slots[MAX_ROWS];
	int64		ordinals[MAX_ROWS];
};

/* ---------------------------------------------------------------------
 * May it be done?
 */
static bool
domain_is_volatile(Oid type)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "perfopt domain",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	DomainConstraintRef *constraints = palloc(sizeof(DomainConstraintRef));
	ListCell   *cell;
	bool		result = false;

	InitDomainConstraintRef(type, constraints, context, false);
	foreach(cell, constraints->constraints)
	{
		DomainConstraintState *constraint = lfirst(cell);

		result = result || contain_volatile_functions((Node *) constraint->check_expr);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	return result;
}

/*
 * Does what makes a value of the type, a cast for example, call a volatile
 * function?  A domain's constraint does, also within another type.
 */
static bool
type_is_volatile(Oid type)
{
	Oid			element;
	TupleDesc	desc;
	bool		result = false;

	check_stack_depth();
	switch (get_typtype(type))
	{
		case TYPTYPE_DOMAIN:
			return domain_is_volatile(type) || type_is_volatile(getBaseType(type));
		case TYPTYPE_RANGE:
			return type_is_volatile(get_range_subtype(type));
		case TYPTYPE_MULTIRANGE:
			return type_is_volatile(get_multirange_range(type));
		case TYPTYPE_COMPOSITE:
			desc = lookup_rowtype_tupdesc_copy(type, -1);
			for (int i = 0; i < desc->natts && !result; i++)
				result = !TupleDescAttr(desc, i)->attisdropped &&
					type_is_volatile(TupleDescAttr(desc, i)->atttypid);
			FreeTupleDesc(desc);
			return result;
		default:
			element = get_element_type(type);
			return OidIsValid(element) && type_is_volatile(element);
	}
}

static const char *
objection_of_table(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;
	TupleConstr *constr = RelationGetDescr(rel)->constr;

	if (rel->rd_rel->relkind != RELKIND_RELATION)
		return "it is not an ordinary table";
	if (rel->rd_rel->relispartition)
		return "it is a partition";
	if (rel->rd_tableam != GetHeapamTableAmRoutine())
		return "its rows are kept by another access method than heap";
	if (RELATION_IS_OTHER_TEMP(rel) || (XactReadOnly && !rel->rd_islocaltemp))
		return "it cannot be written";
	if (triggers &&
		(triggers->trig_insert_before_row || triggers->trig_insert_after_row ||
		 triggers->trig_insert_instead_row || triggers->trig_insert_before_statement ||
		 triggers->trig_insert_after_statement || triggers->trig_insert_new_table))
		return "it has triggers that fire for an INSERT, or foreign keys";
	for (int i = 0; constr && i < constr->num_check; i++)
	{
		if (contain_volatile_functions(stringToNode(constr->check[i].ccbin)))
			return "a CHECK constraint calls a volatile function";
	}
	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(rel), i);

		if (!column->attisdropped && type_is_volatile(column->atttypid))
			return "a domain's constraint calls a volatile function";
	}
	return NULL;
}

/* Why the plan's INSERT into the table cannot be done here, or NULL. */
static const char *
objection(Relation rel, PlannedStmt *stmt)
{
	ModifyTable *modify;
	TupleDesc	desc = RelationGetDescr(rel);
	ListCell   *cell;
	int			attnum = 0;
	const char *reason;

	if (stmt->commandType != CMD_INSERT || !IsA(stmt->planTree, ModifyTable))
		return "its plan is not a plain INSERT";
	modify = (ModifyTable *) stmt->planTree;
	if (modify->operation != CMD_INSERT || list_length(modify->resultRelations) != 1 ||
		modify->rowMarks != NIL || stmt->hasModifyingCTE || stmt->rowMarks != NIL ||
		rt_fetch(linitial_int(modify->resultRelations), stmt->rtable)->relid != RelationGetRelid(rel))
		return "its plan is not a plain INSERT";
	if (modify->onConflictAction != ONCONFLICT_NONE)
		return "there is a conflict clause";
	if (stmt->hasReturning || modify->returningLists != NIL)
		return "rows are returned";
	if (modify->withCheckOptionLists != NIL)
		return "row level security applies";
	reason = objection_of_table(rel);
	if (reason)
		return reason;

	if (!IsA(outerPlan(modify), NamedTuplestoreScan))
		return "its plan is not a plain INSERT";
	if (contain_volatile_functions_not_nextval((Node *) outerPlan(modify)->targetlist))
		return "a default or cast calls a volatile function";
	foreach(cell, outerPlan(modify)->targetlist)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		Form_pg_attribute column;

		if (attnum >= desc->natts || entry->resjunk)
			return "its plan is not a plain INSERT";
		column = TupleDescAttr(desc, attnum++);
		/* the same that the executor insists on */
		if (column->attisdropped || column->attgenerated)
		{
			if (!IsA(entry->expr, Const) || !((Const *) entry->expr)->constisnull)
				return "its plan is not a plain INSERT";
		}
		else if (exprType((Node *) entry->expr) != column->atttypid)
			return "its plan is not a plain INSERT";
	}
	if (attnum != desc->natts)
		return "its plan is not a plain INSERT";
	return NULL;
}

const char *
batch_direct_objection(BatchRun *run, List *statements)
{
	Relation	rel;
	const char *reason;

	if (list_length(statements) != 1)
		return "it has rules";
	rel = table_open(run->target.relid, NoLock);
	reason = objection(rel, linitial_node(PlannedStmt, statements));
	table_close(rel, NoLock);
	return reason;
}

/* ---------------------------------------------------------------------
 * Doing it
 */

/* Write the rows that are collected. */
static void
flush_rows(BatchDirect *insert)
{
	BatchProgress *progress = &insert->run->progress;
	BatchProgress reading = *progress;
	Relation	rel = insert->target->ri_RelationDesc;
	MemoryContext old_context;

	if (insert->num_rows == 0)
		return;

	/* which of them fails here cannot be told */
	progress->done = true;
	if (insert->flushed && insert->bulk == NULL)
		insert->bulk = GetBulkInsertState();
	insert->flushed = true;
	old_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(insert->estate));
	table_multi_insert(rel, insert->slots, insert->num_rows, insert->command, 0, insert->bulk);
	MemoryContextSwitchTo(old_context);

	progress->done = false;
	for (int i = 0; i < insert->num_rows; i++)
	{
		progress->row = insert->ordinals[i];
		if (insert->target->ri_NumIndices > 0)
		{
			ResetPerTupleExprContext(insert->estate);
			list_free(perfopt_insert_index_tuples(insert->target, insert->slots[i], insert->estate));
		}
		ExecClearTuple(insert->slots[i]);
	}
	*progress = reading;
	insert->num_written += insert->num_rows;
	insert->num_rows = 0;
	insert->num_bytes = 0;
}

/*
 * Insert a row: values of the statement's columns.  Errors may be about a row
 * before it: run->progress says which.
 */
void
batch_direct_row(BatchDirect *insert, Datum *values, bool *isnull, int64 ordinal)
{
	Relation	rel = insert->target->ri_RelationDesc;
	TupleConstr *constr = RelationGetDescr(rel)->constr;
	TupleTableSlot *given = insert->given;
	TupleTableSlot *row;
	TupleTableSlot *slot = insert->slots[insert->num_rows];
	bool		should_free;
	HeapTuple	tuple;

	insert->run->progress.row = ordinal;
	ExecClearTuple(given);
	memcpy(given->tts_values, values, sizeof(Datum) * given->tts_tupleDescriptor->natts);
	memcpy(given->tts_isnull, isnull, sizeof(bool) * given->tts_tupleDescriptor->natts);
	ExecStoreVirtualTuple(given);
	ResetExprContext(insert->context);
	insert->context->ecxt_scantuple = given;
	row = ExecProject(insert->projection);

	ResetPerTupleExprContext(insert->estate);
	if (slot == NULL)
		slot = insert->slots[insert->num_rows] =
			table_slot_create(rel, &insert->estate->es_tupleTable);
	ExecClearTuple(slot);
	memcpy(slot->tts_values, row->tts_values, sizeof(Datum) * RelationGetDescr(rel)->natts);
	memcpy(slot->tts_isnull, row->tts_isnull, sizeof(bool) * RelationGetDescr(rel)->natts);
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(rel);

	if (constr && constr->has_generated_stored)
		ExecComputeStoredGenerated(insert->target, insert->estate, slot, CMD_INSERT);
	if (constr)
		ExecConstraints(insert->target, slot, insert->estate);
	/* from now on it does not need what the values point to */
	ExecMaterializeSlot(slot);

	tuple = ExecFetchSlotHeapTuple(slot, false, &should_free);
	insert->num_bytes += tuple->t_len;
	insert->ordinals[insert->num_rows++] = ordinal;
	if (insert->num_rows >= MAX_ROWS || insert->num_bytes >= MAX_BYTES)
		flush_rows(insert);
}

/*
 * Begin the INSERT of a plan to which there is no objection, in the current
 * memory context.  The plan is given back by batch_direct_end().
 */
BatchDirect *
batch_direct_begin(BatchRun *run, BatchStatement *statement, CachedPlan *plan)
{
	PlannedStmt *stmt = linitial_node(PlannedStmt, plan->stmt_list);
	ModifyTable *modify = castNode(ModifyTable, stmt->planTree);
	PlannedStmt *query = makeNode(PlannedStmt);
	QueryEnvironment *environment = create_queryEnv();
	BatchDirect *insert = palloc0(sizeof(BatchDirect));
	NamedTuplestoreScanState *scan;
	MemoryContext old_context;

	memcpy(query, stmt, sizeof(PlannedStmt));
	query->commandType = CMD_SELECT;
	query->planTree = outerPlan(modify);
	perfopt_clear_result_relations(query);
	insert->run = run;
	insert->plan = plan;
	insert->nothing = tuplestore_begin_heap(false, false, 64);
	run->relation->md.tupdesc = statement->desc;
	run->relation->reldata = insert->nothing;
	register_ENR(environment, run->relation);

	/* what SPI does for a statement that writes */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	insert->query_desc = CreateQueryDesc(query, statement->text, GetActiveSnapshot(),
										 InvalidSnapshot, None_Receiver, NULL, environment, 0);
	ExecutorStart(insert->query_desc, 0);

	insert->estate = insert->query_desc->estate;
	insert->command = insert->estate->es_output_cid = GetCurrentCommandId(true);
	scan = castNode(NamedTuplestoreScanState, insert->query_desc->planstate);
	insert->context = scan->ss.ps.ps_ExprContext;
	insert->projection = scan->ss.ps.ps_ProjInfo;
	if (insert->projection == NULL)
		elog(ERROR, "a batched insert has no projection");
	old_context = MemoryContextSwitchTo(insert->estate->es_query_cxt);
	insert->given = MakeSingleTupleTableSlot(statement->desc, &TTSOpsVirtual);
	insert->target = makeNode(ResultRelInfo);
	InitResultRelInfo(insert->target, table_open(run->target.relid, NoLock),
					  linitial_int(modify->resultRelations), NULL, 0);
	ExecOpenIndices(insert->target, false);
	MemoryContextSwitchTo(old_context);
	return insert;
}

/* Write what is left.  Returns how many rows were written. */
uint64
batch_direct_end(BatchDirect *insert, CachedPlan **plan)
{
	Relation	rel = insert->target->ri_RelationDesc;
	uint64		num_written;

	flush_rows(insert);
	num_written = insert->estate->es_processed = insert->num_written;

	if (insert->bulk)
		FreeBulkInsertState(insert->bulk);
	table_finish_bulk_insert(rel, 0);
	ExecCloseIndices(insert->target);
	table_close(rel, NoLock);
	ExecDropSingleTupleTableSlot(insert->given);
	ExecutorFinish(insert->query_desc);
	ExecutorEnd(insert->query_desc);
	FreeQueryDesc(insert->query_desc);
	PopActiveSnapshot();
	tuplestore_end(insert->nothing);
	*plan = insert->plan;
	pfree(insert);
	return num_written;
}
