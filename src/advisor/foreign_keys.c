/*
 * foreign_keys.c
 *		Foreign keys that lack an index.
 *
 * A row that is deleted from the referenced table, or whose key is changed, makes
 * the server look for rows that refer to it, by their columns of the foreign key.
 * Without an index it reads all of the referencing table, a row after the other
 * that is deleted.  Kind index_foreign_key is advised when
 *
 * - no index begins with these columns, in any order, for all rows that are not
 *   null, nor with some of them that leave few rows (see FEW_ROWS);
 * - the referenced table has seen deletes, so many that reading the referencing
 *   one for each takes perfopt.advice_min_share of the time that the database's
 *   statements took, and a second at least; the server counts both since the same
 *   reset.  Changes of a key can't be told from other updates and are not
 *   counted;
 * - that is WORTH_IT times what keeping the index up would have cost the writes
 *   counted in the referencing table;
 * - there is no advice for such an index already.
 *
 * An index for joins over the columns is a matter of create_index.  Partitioned
 * tables are left out.
 */
#include "postgres.h"

#include "advisor/survey_internal.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "catalog/pg_statistic.h"
#include "catalog/pg_type.h"
#include "common/compat.h"
#include "common/settings.h"
#include "nodes/makefuncs.h"
#include "parser/parsetree.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* Columns of a foreign key that are looked at. */
#define MAX_COLUMNS		8

/* An index that leaves so many rows to look through is enough. */
#define FEW_ROWS		100

/* Time to read a page and a row of the table, in ms. */
#define PAGE_MS			0.002
#define ROW_MS			0.0001

#define MIN_LOST_MS		1000.0
#define WORTH_IT		3.0

int
survey_columns(char *text, AttrNumber *attnums)
{
	int			num = 0;

	for (char *part = strtok(text, ","); part && num < INDEX_MAX_KEYS; part = strtok(NULL, ","))
		attnums[num++] = (AttrNumber) atoi(part);
	return num;
}

static bool
contains(int num, const AttrNumber *attnums, AttrNumber attnum)
{
	for (int i = 0; i < num; i++)
		if (attnums[i] == attnum)
			return true;
	return false;
}

/* The columns are not null, as a list of conditions. */
static Node *
not_null(const IndexSpec *spec)
{
	List	   *tests = NIL;

	for (int i = 0; i < spec->num_keys; i++)
	{
		NullTest   *test = makeNode(NullTest);
		const IndexColumn *column = &spec->columns[i];

		test->arg = (Expr *) makeVar(1, column->attnum, column->type, column->typmod,
									 get_typcollation(column->type), 0);
		if (OidIsValid(column->collation))
			((Var *) test->arg)->varcollid = column->collation;
		test->nulltesttype = IS_NOT_NULL;
		test->location = -1;
		tests = lappend(tests, test);
	}
	return (Node *) make_ands_explicit(tests);
}

/*
 * Rows are looked for by the type's own "=": a column of another operator class
 * will do if that is its operator, too, as it is of text_pattern_ops.
 */
static void
accept_class(IndexColumn *wanted, const IndexColumn *column)
{
	Oid			equal = get_opfamily_member(wanted->opfamily, wanted->opcintype, wanted->opcintype,
											BTEqualStrategyNumber);

	if (OidIsValid(equal) && column->collation == wanted->collation &&
		get_op_opfamily_strategy(equal, column->opfamily) == BTEqualStrategyNumber)
		wanted->opfamily = column->opfamily;
}

static bool
leads_with(const IndexSpec *spec, int num, const AttrNumber *attnums)
{
	AttrNumber	leading[INDEX_MAX_KEYS];
	IndexSpec  *wanted;

	if (spec->am != BTREE_AM_OID || spec->num_keys < num)
		return false;
	for (int i = 0; i < num; i++)
	{
		leading[i] = spec->columns[i].attnum;
		if (!contains(num, attnums, leading[i]) || contains(i, leading, leading[i]))
			return false;
	}
	wanted = perfopt_index_spec_of_columns(spec->relid, num, leading);
	if (wanted == NULL)
		return false;
	wanted->any_direction = true;
	for (int i = 0; i < num; i++)
		accept_class(&wanted->columns[i], &spec->columns[i]);
	return perfopt_index_spec_set_predicate(wanted, not_null(wanted)) == NULL &&
		perfopt_index_spec_serves(spec, wanted);
}

/* The share of the table's rows that have one value of the column. */
static double
share_of_value(Oid relid, AttrNumber attnum, double rows)
{
	HeapTuple	tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(relid),
										Int16GetDatum(attnum), BoolGetDatum(false));
	double		distinct = 0;

	if (HeapTupleIsValid(tuple))
	{
		distinct = ((Form_pg_statistic) GETSTRUCT(tuple))->stadistinct;
		if (distinct < 0)
			distinct = -distinct * rows;
		ReleaseSysCache(tuple);
	}
	return distinct >= 1 ? 1 / distinct : 1;
}

/* Of an index that is not compared, a hash index, say: does it begin with one? */
static bool
begins_with(Oid index, int num, const AttrNumber *attnums)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	bool		begins = false;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);

		begins = form->indisvalid && contains(num, attnums, form->indkey.values[0]);
		ReleaseSysCache(tuple);
	}
	return begins;
}

static bool
helps(const IndexSpec *spec, double table_rows, int num, const AttrNumber *attnums)
{
	AttrNumber	leading[INDEX_MAX_KEYS];
	double		rows = table_rows;

	for (int i = 0; i < spec->num_keys; i++)
	{
		leading[i] = spec->columns[i].attnum;
		if (!contains(num, attnums, leading[i]) || contains(i, leading, leading[i]))
			return false;
		rows *= share_of_value(spec->relid, leading[i], table_rows);
		if ((i + 1 == num || rows <= FEW_ROWS) &&
			leads_with(spec, i + 1, leading))
			return true;
	}
	return false;
}

bool
survey_index_serves_key(Oid index, const IndexSpec *spec, double table_rows,
						int num, const AttrNumber *attnums)
{
	return spec ? helps(spec, table_rows, num, attnums) : begins_with(index, num, attnums);
}

static bool
has_index(Relation relation, int num, const AttrNumber *attnums)
{
	List	   *indexes = RelationGetIndexList(relation);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		if (survey_index_serves_key(lfirst_oid(lc), perfopt_index_spec_of_index(lfirst_oid(lc)),
									Max(relation->rd_rel->reltuples, 0), num, attnums))
			return true;
	}
	return false;
}

/* Is there advice for an index that would do? */
static bool
is_advised(Relation relation, const IndexSpec *wanted)
{
	ListCell   *lc;

	foreach(lc, survey_advised_indexes(relation))
		if (perfopt_index_spec_serves(lfirst(lc), wanted))
		return true;
	return false;
}

static const char *const find_keys =
"SELECT k.oid, k.conname::text AS name, k.conrelid AS relid, array_to_string(k.conkey, ',') AS columns,"
"  rn.nspname::text AS ref_schema, r.relname::text AS ref_table, r.oid AS ref_relid,"
"  pg_stat_get_tuples_deleted(r.oid)::float8 AS deleted, pg_stat_get_tuples_returned(t.oid)::float8 AS rows_read,"
"  (pg_stat_get_tuples_inserted(t.oid) + pg_stat_get_tuples_updated(t.oid)"
"   - pg_stat_get_tuples_hot_updated(t.oid))::float8 AS writes"
" FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace"
" JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace"
" WHERE k.contype = 'f' AND " PERFOPT_KEY_ENFORCED_SQL("k") " AND t.relkind = 'r' AND NOT t.relispartition AND t.relpersistence <> 't'"
" AND cardinality(k.conkey) <= $1 AND pg_stat_get_tuples_deleted(r.oid) > 0"
" AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = t.oid AND d.deptype = 'e')"
" ORDER BY k.oid";

/* Sampled statements that delete from the table. */
static List *
deleting(Survey *survey, Oid relid)
{
	List	   *statements = NIL;

	for (int i = 0; i < survey->num_statements; i++)
	{
		SurveyStatement *statement = &survey->statements[i];
		Query	   *query;

		if (!survey_statement_reads(statement, relid))
			continue;
		query = perfopt_plan_sample_query(statement->samples[0]);
		if (query->commandType == CMD_DELETE && query->resultRelation > 0 &&
			rt_fetch(query->resultRelation, query->rtable)->relid == relid)
			statements = lappend(statements, statement);
	}
	return statements;
}

/* NULL: it is not worth it. */
static AdviceFound *
judge(Survey *survey, SurveyRows *rows, int i, Relation relation, List *others)
{
	AttrNumber	attnums[MAX_COLUMNS];
	int			num = survey_columns(survey_text(rows, i, "columns"), attnums);
	double		table_rows = Max(relation->rd_rel->reltuples, 0);

	/* such that were there before the table's rows made nobody read them */
	double		deleted = Min(survey_number(rows, i, "deleted"),
							  survey_number(rows, i, "rows_read") / Max(table_rows, 1));
	double		write_ms = Max(survey_number(rows, i, "writes") - table_rows, 0) * ENTRY_WRITE_MS;
	double		pages = RelationGetNumberOfBlocks(relation);
	double		read_ms = pages * PAGE_MS + table_rows * ROW_MS;
	double		lost_ms = deleted * read_ms;
	char	   *referenced = quote_qualified_identifier(survey_text(rows, i, "ref_schema"),
														survey_text(rows, i, "ref_table"));
	AdviceFound *found;
	IndexSpec  *spec;
	List	   *statements;
	StringInfoData evidence;
	StringInfoData columns;
	StringInfoData reason;

	if (lost_ms < MIN_LOST_MS || survey->active_ms <= 0 ||
		lost_ms < survey->active_ms * perfopt_advice_min_share || lost_ms < write_ms * WORTH_IT ||
		has_index(relation, num, attnums))
		return NULL;
	spec = perfopt_index_spec_of_columns(RelationGetRelid(relation), num, attnums);
	if (spec == NULL)
		return NULL;
	spec->any_direction = true;
	if (is_advised(relation, spec))
		return NULL;
	found = palloc0(sizeof(AdviceFound));
	found->kind = "index_foreign_key";
	if (!perfopt_advice_name_index(found, spec, others))
		return NULL;
	found->bytes = perfopt_index_facts(relation, table_rows, spec)->size.pages * BLCKSZ;
	found->predicted_gain = Min((lost_ms - write_ms) / survey->active_ms, 1);
	statements = deleting(survey, survey_oid(rows, i, "ref_relid"));

	initStringInfo(&columns);
	for (int c = 0; c < num; c++)
		appendStringInfo(&columns, "%s%s", c > 0 ? ", " : "",
						 quote_identifier(get_attname(RelationGetRelid(relation), attnums[c], false)));
	initStringInfo(&reason);
	appendStringInfo(&reason,
					 "Each row deleted from %s has the server read all of %s (%s, about %s) for rows that refer to it,"
					 " as no index begins with foreign key %s (%s); %.0f rows were deleted.",
					 referenced, quote_qualified_identifier(found->schema_name, found->table_name),
					 survey_readable_bytes(pages * BLCKSZ), perfopt_readable_ms(read_ms),
					 quote_identifier(survey_text(rows, i, "name")), columns.data, deleted);
	if (statements != NIL)
	{
		SurveyStatement *heaviest = linitial(statements);

		appendStringInfo(&reason, " The heaviest statement that does so takes %s a call and %.0f %% of the statement time.",
						 perfopt_readable_ms(heaviest->cost.total_ms / heaviest->cost.calls), heaviest->share * 100);
	}
	appendStringInfo(&reason, " The index would take %s.", survey_readable_bytes(found->bytes));
	found->reason = reason.data;

	initStringInfo(&evidence);
	appendStringInfoString(&evidence, "{\"constraint\": ");
	escape_json(&evidence, survey_text(rows, i, "name"));
	appendStringInfoString(&evidence, ", \"referenced\": ");
	escape_json(&evidence, referenced);
	appendStringInfo(&evidence, ", \"rows_deleted\": %.0f, \"read_ms\": %.4f, \"saved_share\": %.4f, \"write_cost_share\": %.4f, ",
					 deleted, read_ms, Min(lost_ms / survey->active_ms, 1), Min(write_ms / survey->active_ms, 1));
	survey_append_queries(&evidence, statements);
	appendStringInfoChar(&evidence, '}');
	found->evidence = evidence.data;
	return found;
}

/* Two foreign keys may ask for the same index. */
static bool
is_found(List *found, const AdviceFound *advice)
{
	ListCell   *lc;

	foreach(lc, found)
	{
		AdviceFound *other = lfirst(lc);

		if (strcmp(other->schema_name, advice->schema_name) == 0 &&
			strcmp(other->table_name, advice->table_name) == 0 &&
			strcmp(other->definition, advice->definition) == 0)
			return true;
	}
	return false;
}

bool
survey_foreign_keys(Survey *survey, List **found)
{
	Oid			types[] = {INT4OID};
	Datum		values[] = {Int32GetDatum(MAX_COLUMNS)};
	SurveyRows *rows = survey_query(find_keys, 1, types, values, NULL);
	bool		complete = true;

	for (int i = 0; i < rows->num; i++)
	{
		Oid			relid = survey_oid(rows, i, "relid");
		Relation	relation;
		AdviceFound *advice;

		if (survey_out_of_time(survey) || !ConditionalLockRelationOid(relid, AccessShareLock))
		{
			complete = false;
			continue;
		}
		relation = try_relation_open(relid, NoLock);
		if (relation == NULL)
		{
			UnlockRelationOid(relid, AccessShareLock);
			continue;
		}
		advice = judge(survey, rows, i, relation, *found);
		if (advice && !is_found(*found, advice))
			*found = lappend(*found, advice);
		relation_close(relation, AccessShareLock);
	}
	return complete;
}
