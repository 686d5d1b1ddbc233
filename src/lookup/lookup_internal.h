/*
 * lookup_internal.h
 *		What the files of this folder share.
 *
 * A look-up is a statement over arrays of keys, one array for each column of
 * the key.  Its text is made from catalogs and strictly parsed arguments, and
 * its plans are kept for the session (statement.c).
 */
#ifndef PERFOPT_LOOKUP_INTERNAL_H
#define PERFOPT_LOOKUP_INTERNAL_H

#include "access/attnum.h"
#include "access/tupdesc.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "nodes/execnodes.h"
#include "pg_config_manual.h"
#include "utils/relcache.h"

/* One column of the key that look-ups are given values of. */
typedef struct LookupKeyColumn
{
	const char *name;			/* of the column, not quoted */
	Oid			type;			/* of the values; no domain */
	Oid			array_type;
	Oid			equal;			/* type = type */
} LookupKeyColumn;

typedef struct LookupKey
{
	int			num;
	LookupKeyColumn columns[INDEX_MAX_KEYS];
} LookupKey;

/* Values of a key: an array for each of its columns, all of one length. */
typedef struct LookupKeys
{
	int			num;
	Datum		arrays[INDEX_MAX_KEYS];
} LookupKeys;

/* A table on the way from the parent down to the child, which is the last. */
typedef struct LookupLevel
{
	Oid			relid;
	const char *table;			/* qualified and quoted */
	const char *name;			/* in the statement, not quoted */
	const char *alias;			/* the same, quoted */
	AttrNumber	columns[INDEX_MAX_KEYS];	/* the foreign key */
	AttrNumber	refs[INDEX_MAX_KEYS];	/* what it refers to, above */
	Oid			equals[INDEX_MAX_KEYS]; /* column = ref */
} LookupLevel;

#define LOOKUP_MAX_LEVELS	8

typedef struct LookupPath
{
	LookupKey	key;			/* of the parent */
	int			num_levels;
	LookupLevel levels[LOOKUP_MAX_LEVELS];
} LookupPath;

/* Values for the $n of a filter. */
typedef struct LookupParams
{
	int			num;
	Oid		   *types;
	Datum	   *values;
	bool	   *nulls;
} LookupParams;

/* ---------------------------------------------------------------------
 * statement.c: statements whose plans are kept
 */
typedef enum LookupShape
{
	LOOKUP_EACH,				/* look each key up; for few keys */
	LOOKUP_TOGETHER				/* read the rows of all keys, then sort out */
} LookupShape;

#define LOOKUP_NUM_SHAPES	2

typedef struct LookupStatement
{
	/* what its builder has to set, in its context */
	LookupKey	key;
	const char *sql[LOOKUP_NUM_SHAPES]; /* EACH may be NULL */
	List	   *relids;			/* that its text was made from */
	List	   *names;			/* of its columns, as the caller knows them */
	List	   *checks;			/* what the caller wrote, as statements of
								 * their own */
	TupleDesc	row_desc;		/* fetch_many: the relation's */

	/* set by statement.c */
	MemoryContext context;
	TupleDesc	desc;			/* of its result */
	int			num_params;		/* the filter's */
	Oid		   *types;			/* of those, then of the arrays of keys */
	SPIPlanPtr	plans[LOOKUP_NUM_SHAPES];	/* for any keys */
	SPIPlanPtr	planned_anew;	/* for the keys that it is given */
	LookupShape few;			/* the shape for few keys */
	char	   *identity;
	int			identity_len;
	uint32		hash;
	uint64		last_used;
	int			in_use;
	bool		is_stale;		/* for nobody else */
} LookupStatement;

typedef void (*LookupBuild) (LookupStatement *statement, void *arg);

extern void lookup_identity_begin(StringInfo identity, char kind);
extern void lookup_identity_bytes(StringInfo identity, const void *bytes, int len);
extern void lookup_identity_argument(StringInfo identity, FunctionCallInfo fcinfo, int n);
extern LookupStatement *lookup_statement_begin(const StringInfoData *identity, LookupParams *params,
											   LookupBuild build, void *arg);
extern uint64 lookup_statement_run(LookupStatement *statement, const LookupKeys *keys,
								   const LookupParams *params, Tuplestorestate *rows);
extern void lookup_statement_end(LookupStatement *statement);
extern Tuplestorestate *lookup_result_begin(FunctionCallInfo fcinfo, const char *hint);
extern void lookup_check_columns(LookupStatement *statement, TupleDesc expected, const char *function);

/* keys.c: what callers give as keys */
extern void lookup_read_keys(const LookupKey *key, FunctionCallInfo fcinfo, int n,
							 bool misfits_are_null, LookupKeys *keys);

/* relations.c: columns and unique keys */
extern Relation lookup_open(Oid relid);
extern const char *lookup_table_name(Oid relid);
extern AttrNumber lookup_column(Relation rel, const char *name);
extern char *lookup_columns_list(Relation rel);
extern List *lookup_name_list(FunctionCallInfo fcinfo, int n, const char *what);
extern Oid	lookup_unique_index(Relation rel, List *names);
extern void lookup_row_key(Relation rel, List *names, LookupKey *key,
						   AttrNumber *columns, Oid *equals);
extern void lookup_append_names(StringInfo buf, Oid relid, const AttrNumber *columns, int num);
extern void lookup_describe_key_column(Relation rel, AttrNumber attnum, LookupKeyColumn *column);

/* path.c: foreign keys from a parent down to a child */
extern void lookup_path_find(LookupPath *path, Oid parent, Oid child, List *child_key, List *via);
extern List *lookup_path_relids(const LookupPath *path, Oid parent);

/* arguments.c: what callers write, strictly parsed */
typedef struct LookupAggregate
{
	const char *sql;
	const char *name;
	int			level;
	bool		null_over_nothing;	/* known to be NULL over no rows */
} LookupAggregate;

typedef struct LookupSort
{
	AttrNumber	column;
	const char *direction;		/* "", or SQL after the column */
} LookupSort;

extern void lookup_parse_aggregate(const LookupPath *path, const char *text, LookupAggregate *aggregate);
extern List *lookup_parse_order(const LookupLevel *level, const char *text);
extern int	lookup_parse_filter(const LookupPath *path, const char *text, int num_params);
extern void lookup_read_params(FunctionCallInfo fcinfo, int n, LookupParams *params);

/* text.c: parts of statements */
#define LOOKUP_KEYS		"\"perfopt keys\""
#define LOOKUP_ORDINAL	"\"perfopt keys\".\"perfopt ordinal\""

extern void lookup_append_operator(StringInfo sql, Oid operator);
extern void lookup_append_column(StringInfo sql, const LookupLevel *level, AttrNumber column);
extern void lookup_append_keys(StringInfo sql, const LookupKey *key, int num_params);
extern void lookup_append_group(StringInfo sql, const LookupPath *path, int i);
extern void lookup_append_rows(StringInfo sql, const LookupPath *path, int level,
							   LookupShape shape, int num_params, const char *filter);
extern void lookup_append_match(StringInfo sql, const LookupPath *path, const char *group);
extern char *lookup_check_filter(const LookupPath *path, int level, const char *filter);
extern void lookup_append_object(StringInfo sql, List *names, List *values);

#endif							/* PERFOPT_LOOKUP_INTERNAL_H */
