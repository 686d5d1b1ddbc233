/*
 * advisor_internal.h
 *		What the parts of src/advisor know of each other; README.md has the map.
 *
 *		plan_samples.h	statements, kept to be planned again
 *		index_spec.h	what an index is made of
 *		index_facts.h	what is known of one that does not exist
 *		what_if.h		what a statement would cost with it
 *		candidates.h	which may help a statement
 *		choose.h		which of these, together, save the most
 *		workload.h		statements that were run, and their weight
 *		survey_internal.h	advice from the catalogs and statistics
 *
 * The first four are included here.  The rest of this file is what an index costs
 * those who write, how it is told of, and the life of an advice.
 */
#ifndef PERFOPT_ADVISOR_INTERNAL_H
#define PERFOPT_ADVISOR_INTERNAL_H

#include "advisor/index_facts.h"
#include "advisor/index_spec.h"
#include "advisor/plan_samples.h"
#include "advisor/what_if.h"
#include "datatype/timestamp.h"
#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"
#include "utils/array.h"
#include "utils/relcache.h"

/* writes.c */

/* Rows that updates of some columns have changed. */
typedef struct ColumnUpdates
{
	Bitmapset  *columns;		/* over FirstLowInvalidHeapAttributeNumber */
	double		rows;
} ColumnUpdates;

/* Rows written to a table, in some time. */
typedef struct TableWrites
{
	double		inserted;
	double		updated;		/* with new entries in all indexes */
	double		hot_updated;	/* with none */
	double		deleted;
	List	   *column_updates; /* ColumnUpdates *, of those known */
} TableWrites;

/*
 * Entries that the table's indexes would get more for these if there were this
 * one too, which has that fraction of the rows.
 */
extern double perfopt_entries_written(const TableWrites *writes, const IndexSpec *spec,
									  double fraction, int other_indexes);

/* What the statement sets in rows that are there: TargetEntry *. */
extern List *perfopt_update_targets(const Query *query);

/*
 * What one more entry in an index costs, in ms: the descent, the insertion and
 * its WAL.
 */
#define ENTRY_WRITE_MS		0.005

/* What a row costs there, in entries of a btree. */
extern double perfopt_row_writes(const IndexSpec *spec, const IndexSize *size);

/* describe.c */

/* What must be done before it can be made, in a sentence; or nothing. */
extern const char *perfopt_describe_needs(const IndexSpec *spec);
extern char *perfopt_readable_ms(double ms);

/* A share, to three digits, which is more than is known. */
extern double perfopt_rounded_share(double share);

/* A list of names that are free, as those of earlier calls with it are not. */
extern char *perfopt_name_once(const IndexSpec *spec, Relation relation, List **taken);

/* What every name begins with that might be given. */
extern char *perfopt_name_stem(const IndexSpec *spec, Relation relation);

/* Is an index there for its entries only, and not for what it guarantees? */
extern bool perfopt_is_only_access_path(Oid index);

/*
 * Indexes that one like this makes superfluous: names, as char *, and the bytes
 * they take.
 */
extern List *perfopt_superseded_by(const IndexSpec *spec, Relation relation, double *bytes);

/* standing.c */

/* Indexes of advice that is open, and that was dismissed or reverted: IndexSpec *. */
extern void perfopt_standing_advice(List **open, List **refused);

/* Is it one of them, or as good as one? */
extern bool perfopt_is_standing(List *specs, const IndexSpec *spec);

/* prefixed.c */

/* These candidates, and others that begin as an index does that exists. */
extern List *perfopt_candidates_prefixed(List *specs);

/* stand_ins.c */

/* The most common values of columns that parameters are compared with; or NULL. */
extern ParamListInfo perfopt_common_params(Query *query);

/*
 * The statement with something in place of patterns that are known to be prefixes
 * only, and what is to be told about patterns: char *.
 */
extern Query *perfopt_assume_patterns(Query *query, List **notes);

/* rounds.c */

extern void perfopt_rounds_init(void);

/* advice.c */

/* What was found out: one row of perfopt.advice_item. */
typedef struct AdviceFound
{
	const char *kind;
	char	   *schema_name;
	char	   *table_name;
	char	   *definition;		/* known by this beside kind and table */
	char	   *index_name;		/* or NULL */
	char	   *ddl;
	char	   *undo;			/* or NULL: known only when applied, or none */
	char	   *reason;			/* sentences */
	char	   *evidence;		/* a JSON object */
	double		bytes;			/* that it takes, or frees */
	double		predicted_gain; /* share of the statement time, 0 to 1 */
} AdviceFound;

/* What one that looks for advice has found. */
typedef struct AdviceFinding
{
	const char *const *kinds;	/* that it looks for; the last one is NULL */
	List	   *found;			/* AdviceFound * */
	bool		complete;		/* what it has not found again is obsolete */
	Datum		priced_queryids;	/* else only what names one of these,
									 * bigint[] */
} AdviceFinding;

/* In a duty that writes. */
extern void perfopt_advice_store(const AdviceFinding *finding);

/* Open advice that meets a condition, written as " AND ...". */
extern int32 perfopt_advice_count_open(const char *condition);

/*
 * Fills in schema, table, definition, index name, ddl and undo; false when
 * perfopt_index_spec_open() does not open it, or when it is not to be advised:
 * its definition is too long, or others' types or functions are in it.  kind is
 * there; others are AdviceFound *, whose names are not to be given again.
 */
extern bool perfopt_advice_name_index(AdviceFound *found, const IndexSpec *spec, List *others);

/* By name, without a lock; InvalidOid when it is gone, or is no table. */
extern Oid	perfopt_advice_table(const char *schema_name, const char *table_name);

/*
 * The index that a definition is for.  NULL: the table does not have what it
 * needs, *gone tells; otherwise it can't be looked into without trusting others.
 */
extern IndexSpec *perfopt_advice_index_spec(Relation relation, const char *definition,
											bool *gone);

/* May the table's owner evaluate what it is made of? */
extern bool perfopt_advice_index_is_trusted(const IndexSpec *spec, Relation relation);

/* Is this index the wanted one, whatever its name? */
extern bool perfopt_advice_is_index(Oid index, const IndexSpec *spec);

/* The name of an index that is like the wanted one, and how to drop it; or NULL. */
extern void perfopt_advice_adopt_index(Relation relation, const IndexSpec *spec,
									   char **index_name, char **undo);

/* advice_names.c */

/* Of one advice, or of all (0).  Inside SPI. */
extern void perfopt_advice_follow_names(int64 id);

/* advice_log.c */
extern const char *perfopt_advice_actor;	/* who asks; NULL: this process */

/* existing_indexes.c */

/*
 * What makes an index again as it is, with its comment and the rest; several
 * statements.  NULL: it has just been dropped.
 */
extern char *perfopt_undo_of_drop(Oid index);

/*
 * Why an index must not be dropped after all, whatever an advice of earlier says;
 * or NULL.
 */
extern const char *perfopt_drop_objection(Relation relation, Oid index, const char *index_name);

/* apply.c */
#define ADVISOR_APPLY_DUTY	"apply"

extern void perfopt_apply_init(void);

/* verify.c */
#define ADVISOR_VERIFY_DUTY	"verify"

extern void perfopt_verify_init(void);

/* The advice is about to be applied; its statements were as before until then. */
extern void perfopt_verify_begin(int64 id, TimestampTz until);

/* auto_apply.c */
extern void perfopt_auto_apply_step(void);

/* requests.c */

/* Tell the log when perfopt.advice_role names nobody. */
extern void perfopt_requests_check_role(void);

#endif							/* PERFOPT_ADVISOR_INTERNAL_H */
