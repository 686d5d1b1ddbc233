/*
 * survey_internal.h
 *		Advice from the catalogs and statistics; private to src/advisor.
 *
 *		survey.c				duty "survey": has the others look, and stores what they find
 *		index_usage.c			since when an index has not been used
 *		existing_indexes.c		indexes that are not needed, or not valid
 *		index_bloat.c			indexes much larger than they need to be
 *		foreign_keys.c			foreign keys that lack an index
 *		misestimates.c			statements of which the planner expects wrong numbers of rows
 *		row_counts.c			how many rows really meet a statement's conditions
 *		estimate_remedies.c		what would give it better ones
 */
#ifndef PERFOPT_SURVEY_INTERNAL_H
#define PERFOPT_SURVEY_INTERNAL_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "advisor/advisor_internal.h"
#include "lib/stringinfo.h"

/* survey.c */

/* Rows of a query of our own, in the caller's memory context. */
typedef struct SurveyRows
{
	int			num;
	TupleDesc	desc;
	HeapTuple  *rows;
} SurveyRows;

extern SurveyRows *survey_query(const char *sql, int nargs, Oid *types, Datum *values,
								const char *nulls);
extern void survey_execute(const char *sql, int nargs, Oid *types, Datum *values,
						   const char *nulls);

/* Of row i, column by name; NULL, 0 and false stand for null. */
extern char *survey_text(const SurveyRows *rows, int i, const char *column);
extern Oid	survey_oid(const SurveyRows *rows, int i, const char *column);
extern double survey_number(const SurveyRows *rows, int i, const char *column);
extern bool survey_bool(const SurveyRows *rows, int i, const char *column);

/* A sampled statement, with what it costs. */
typedef struct SurveyStatement
{
	PerfoptQueryKey key;
	PerfoptQueryCost cost;
	double		share;			/* of the database's statement time, 0 to 1 */
	int			num_samples;
	PlanSample *samples[SAMPLE_SETS];
	double		base[SAMPLE_SETS];	/* plan cost: 0 not known yet, negative
									 * none */
} SurveyStatement;

typedef struct Survey
{
	TimestampTz deadline;		/* of the finder at work */
	int			num_statements;
	SurveyStatement *statements;	/* the heaviest first */
	bool		standbys;		/* whose scans are not counted here */
	double		active_ms;		/* that statements took, as long as the
								 * server's counters count */
} Survey;

extern void perfopt_survey_init(void);

/* Reads the server's state and the workload, and gives the first finder its time. */
extern void survey_start(Survey *survey);

/* The finder at work has had its time. */
extern bool survey_out_of_time(Survey *survey);

/* Does the statement read the table? */
extern bool survey_statement_reads(const SurveyStatement *statement, Oid relid);

/* IndexSpec * of the indexes that are advised to be made of the table, or being made. */
extern List *survey_advised_indexes(Relation relation);

/* An empty advice, with the table's names. */
extern AdviceFound *survey_found(const char *kind, const char *schema_name, const char *table_name);

/* "queries": [...] of these SurveyStatement *. */
extern void survey_append_queries(StringInfo evidence, List *statements);

/*
 * The statement's plan cost without these indexes, to that with them: the
 * greatest of its samples'; negative: none could be priced.
 */
extern double survey_cost_without(SurveyStatement *statement, List *hidden);

extern char *survey_readable_bytes(double bytes);

/* index_usage.c */

/*
 * Indexes i, with class c, of tables t in schemas n, that may be dropped: no
 * constraint, no uniqueness, no replica identity and nothing else hangs on them,
 * nor has anybody asked for more statistics of their expressions.  The catalogs
 * are searched by their indexes: where these have no statistics the planner
 * expects few rows, and to read a whole catalog for each index takes hours.
 */
#define INDEX_TABLES \
	" pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid" \
	" JOIN pg_namespace n ON n.oid = t.relnamespace"

#define INDEX_OF_USER \
	" c.relkind = 'i' AND t.relpersistence <> 't' AND t.relkind IN ('r', 'm') AND i.indrelid >= 16384" \
	" AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'" \
	" AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass" \
	"  AND d.objid IN (c.oid, t.oid) AND d.deptype IN ('e', 'x'))"

#define INDEX_IS_DROPPABLE \
	" (NOT (i.indisunique OR i.indisprimary OR i.indisexclusion OR i.indisreplident OR i.indisclustered" \
	"  OR c.relispartition)" \
	" AND NOT EXISTS (SELECT FROM pg_attribute a WHERE i.indexprs IS NOT NULL AND a.attrelid = c.oid AND a.attstattarget >= 0)" \
	" AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i')" \
	" AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid))"

/* Take note of how often indexes have been used. */
extern void survey_watch_indexes(void);

/* The counter of u.index_oid has not risen since its row was written, seconds ago. */
#define INDEX_IS_UNUSED(seconds) \
	" (u.table_in_use AND pg_stat_get_numscans(u.index_oid) = u.scans" \
	"  AND now() - u.unused_since - u.unseen >= make_interval(secs => " seconds "))"

/* existing_indexes.c */

/* False: there was no time for all that is to be dropped. */
extern bool survey_existing_indexes(Survey *survey, List **drop, List **reindex);

/* index_bloat.c */

/* False: there was no time for all. */
extern bool survey_bloated_indexes(Survey *survey, List **reindex);

/* foreign_keys.c */

extern bool survey_foreign_keys(Survey *survey, List **found);

/* Numbers of columns, written with commas; returns how many. */
extern int	survey_columns(char *text, AttrNumber *attnums);

/* Do a foreign key's checks find their rows by the index?  spec: NULL if it has none. */
extern bool survey_index_serves_key(Oid index, const IndexSpec *spec, double table_rows,
									int num, const AttrNumber *attnums);

/* misestimates.c */

/* What the planner expects of a relation of a statement. */
typedef struct Estimate
{
	SurveyStatement *statement;
	Oid			relid;
	double		rows;			/* that meet all of the clauses */
	double		table_rows;
	List	   *clauses;		/* over varno 1; such as can be evaluated */
	double	   *selectivity;	/* of each, as estimated */
} Estimate;

/* False: there was no time for all. */
extern bool survey_misestimates(Survey *survey, List **found);

/* row_counts.c */

/* Rows of the table's sample that meet conditions. */
typedef struct RowCounts
{
	double		table_rows;
	int			looked_at;
	bool		all;			/* these are all rows of the table */
	int			meet_all;
	int		   *meet;			/* each of them */
} RowCounts;

/* False: they can't be evaluated.  The table is locked. */
extern bool survey_count_rows(Relation relation, List *clauses, RowCounts *counts);

/* So many rows in the table at least, and at most, when so many of the sample do. */
extern double survey_rows_at_least(const RowCounts *counts, int meet);
extern double survey_rows_at_most(const RowCounts *counts, int meet);

/* estimate_remedies.c */

/*
 * What would mend the estimate, with a reason and evidence to be completed; NULL:
 * nothing that is known, or the server will do it by itself.
 */
extern AdviceFound *survey_remedy(const Estimate *estimate, const RowCounts *counts,
								  Relation relation);

#endif							/* PERFOPT_SURVEY_INTERNAL_H */
