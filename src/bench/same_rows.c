/*
 * same_rows.c
 *		Do two statements return the same rows?
 *
 * Each is run once, both under the same snapshot, and rolled back.  Rows are
 * compared as text, as a client sees them, each as often as it comes, in any
 * order: 1.0 and 1 are different, and so are columns of different types or a
 * different number of them; names of columns do not matter.  Both results are
 * sorted, in work_mem each and in temporary files beyond it, and merged.
 */
#include "postgres.h"

#include "bench/bench_internal.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"
#include "utils/varlena.h"

/* Characters of a row that an example shows. */
#define EXAMPLE_CHARS	200

typedef struct TextReceiver
{
	DestReceiver pub;
	ResourceOwner owner;		/* outlives the subtransaction */
	MemoryContext context;
	MemoryContext row_context;
	Tuplesortstate *rows;
	TupleDesc	desc;			/* NULL: no rows are returned */
} TextReceiver;

static void
text_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	TextReceiver *receiver = (TextReceiver *) self;
	MemoryContext old = MemoryContextSwitchTo(receiver->context);

	receiver->desc = CreateTupleDescCopy(typeinfo);
	receiver->desc->tdtypeid = RECORDOID;
	receiver->desc->tdtypmod = -1;
	BlessTupleDesc(receiver->desc);
	MemoryContextSwitchTo(old);
}

static bool
text_receive(TupleTableSlot *slot, DestReceiver *self)
{
	TextReceiver *receiver = (TextReceiver *) self;
	MemoryContext old = MemoryContextSwitchTo(receiver->row_context);
	ResourceOwner old_owner = CurrentResourceOwner;
	HeapTuple	tuple;
	char	   *row;

	slot_getallattrs(slot);
	tuple = heap_form_tuple(receiver->desc, slot->tts_values, slot->tts_isnull);
	row = OidOutputFunctionCall(F_RECORD_OUT, HeapTupleGetDatum(tuple));
	/* temporary files must not go with the subtransaction */
	CurrentResourceOwner = receiver->owner;
	tuplesort_putdatum(receiver->rows, CStringGetTextDatum(row), false);
	CurrentResourceOwner = old_owner;
	MemoryContextSwitchTo(old);
	MemoryContextReset(receiver->row_context);
	return true;
}

static void
text_nothing(DestReceiver *self)
{
}

static int64
collect(BenchStatement *statement, TextReceiver *receiver)
{
	BenchRun	run;

	*receiver = (TextReceiver)
	{
		.pub =
		{
			text_receive, text_startup, text_nothing, text_nothing, DestTuplestore
		},
			.owner = CurrentResourceOwner,.context = CurrentMemoryContext
	};
	receiver->row_context = AllocSetContextCreate(CurrentMemoryContext, "perfopt compared row",
												  ALLOCSET_DEFAULT_SIZES);
	receiver->rows = tuplesort_begin_datum(TEXTOID, TextLessOperator, C_COLLATION_OID,
										   false, work_mem, NULL, TUPLESORT_NONE);
	bench_run(statement, &receiver->pub, NULL, &run);
	tuplesort_performsort(receiver->rows);
	return run.rows;
}

static void
discard(TextReceiver *receiver)
{
	tuplesort_end(receiver->rows);
	MemoryContextDelete(receiver->row_context);
}

/* In words, why rows of these cannot be the same; NULL: they can. */
static char *
different_columns(TupleDesc a, TupleDesc b)
{
	if (a == NULL || b == NULL)
		return a == b ? NULL : psprintf("only %s returns rows", a ? "a" : "b");
	if (a->natts != b->natts)
		return psprintf("a has %d columns, b has %d", a->natts, b->natts);
	for (int i = 0; i < a->natts; i++)
	{
		Oid			type_a = TupleDescAttr(a, i)->atttypid;
		Oid			type_b = TupleDescAttr(b, i)->atttypid;

		if (type_a != type_b)
			return psprintf("column %d is %s in a, %s in b", i + 1,
							format_type_be(type_a), format_type_be(type_b));
	}
	return NULL;
}

/* The next row, or false at the end. */
static bool
next_row(Tuplesortstate *rows, text **row)
{
	Datum		value;
	bool		isnull;

	if (!perfopt_tuplesort_getdatum(rows, true, &value, &isnull))
		return false;
	*row = DatumGetTextPP(value);
	return true;
}

static char *
example(const char *which, text *row)
{
	char	   *data = VARDATA_ANY(row);
	int			len = VARSIZE_ANY_EXHDR(row);
	int			shown = pg_mbcharcliplen(data, len, EXAMPLE_CHARS);

	return psprintf("%s: %.*s%s", which, shown, data, shown < len ? " ..." : "");
}

static char *
different_rows(Tuplesortstate *rows_a, Tuplesortstate *rows_b)
{
	int64		only_a = 0;
	int64		only_b = 0;
	char	   *first = NULL;
	text	   *a = NULL;
	text	   *b = NULL;
	bool		has_a = next_row(rows_a, &a);
	bool		has_b = next_row(rows_b, &b);

	while (has_a || has_b)
	{
		int			order;

		CHECK_FOR_INTERRUPTS();
		if (has_a && has_b)
			order = varstr_cmp(VARDATA_ANY(a), VARSIZE_ANY_EXHDR(a),
							   VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b), C_COLLATION_OID);
		else
			order = has_a ? -1 : 1;
		if (order < 0)
			only_a++;
		else if (order > 0)
			only_b++;
		if (order != 0 && first == NULL)
			first = order < 0 ? example("a", a) : example("b", b);
		if (order <= 0)
		{
			pfree(a);
			has_a = next_row(rows_a, &a);
		}
		if (order >= 0)
		{
			pfree(b);
			has_b = next_row(rows_b, &b);
		}
	}
	if (first == NULL)
		return NULL;
	return psprintf(INT64_FORMAT " rows only in a, " INT64_FORMAT " only in b; the first is %s",
					only_a, only_b, first);
}

void
bench_compare_rows(BenchStatement *a, BenchStatement *b, BenchSameRows *result)
{
	TextReceiver rows_a;
	TextReceiver rows_b;
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());

	a->snapshot = b->snapshot = snapshot;
	result->rows_a = collect(a, &rows_a);
	result->rows_b = collect(b, &rows_b);
	a->snapshot = b->snapshot = NULL;
	UnregisterSnapshot(snapshot);
	result->difference = different_columns(rows_a.desc, rows_b.desc);
	if (result->difference == NULL)
		result->difference = different_rows(rows_a.rows, rows_b.rows);
	if (result->difference == NULL && result->rows_a != result->rows_b)
		result->difference = psprintf("a changes " INT64_FORMAT " rows, b " INT64_FORMAT,
									  result->rows_a, result->rows_b);
	result->same = result->difference == NULL;
	discard(&rows_a);
	discard(&rows_b);
}
