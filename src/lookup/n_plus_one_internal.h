/*
 * n_plus_one_internal.h
 *		What the files of src/lookup/n_plus_one* share with each other.
 */
#ifndef PERFOPT_N_PLUS_ONE_INTERNAL_H
#define PERFOPT_N_PLUS_ONE_INTERNAL_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "executor/execdesc.h"
#include "nodes/params.h"

typedef enum LoopKind
{
	LOOP_N_PLUS_ONE,
	LOOP_CACHEABLE,
	LOOP_INSERTS
} LoopKind;

/* In place of a function's OID; no function has such an OID. */
#define FUNCTION_NONE		InvalidOid	/* a client's statement */
#define FUNCTION_DO_BLOCK	1
#define FUNCTION_OTHER		2	/* one whose name is not known here */

typedef struct LoopKey
{
	Oid			database;
	Oid			role;
	Oid			function;
	uint32		kind;			/* LoopKind */
	uint64		source_queryid; /* 0 where there is no source */
	uint64		queryid;
} LoopKey;

/*
 * What a repeated statement looks like, for the call to use instead.
 */
#define SHAPE_KEYS		8
#define SHAPE_COLUMNS	12
#define LOOP_TEXT		256

/* Relation and key columns are not known, or there is more than that. */
#define SHAPE_OPAQUE		0x01
#define SHAPE_AGGREGATE		0x02
#define SHAPE_LIMIT			0x04
#define SHAPE_ORDER			0x08
#define SHAPE_FILTER		0x10	/* further conditions */
#define SHAPE_MODIFIES		0x20	/* UPDATE or DELETE */
#define SHAPE_COMPUTES		0x40	/* columns that are none of the relation */

typedef struct ShapeColumn
{
	NameData	name;			/* as the result's */
	Oid			type;
	int32		typmod;
	AttrNumber	attnum;			/* the relation's column; an aggregate's
								 * argument, 0 for count(*); -1: neither */
	Oid			aggregate;		/* its function, or InvalidOid */
} ShapeColumn;

typedef struct LoopShape
{
	Oid			relid;
	uint32		flags;
	int16		num_keys;
	AttrNumber	keys[SHAPE_KEYS];	/* compared with parameters; of an INSERT
									 * the columns that are given */
	int16		num_columns;	/* -1: more than there is room for */
	ShapeColumn columns[SHAPE_COLUMNS];
	AttrNumber	order;			/* of rows, by Sort; 0: not known */
	bool		descending;
	int64		limit;			/* 0: none, or not known */

	/* pg_stat_statements may not have those of statements in functions */
	char text[	LOOP_TEXT];
	char		source_text[LOOP_TEXT];
} LoopShape;

typedef struct LoopCounts
{
	int64		loops;
	int64		misses;			/* loops that turned out to be none */
	int64		runs;
	int64		rows;
	int64		source_rows;
	int64		lost_ns;
} LoopCounts;

/* Where a loop's entry was seen last; checked at each use. */
typedef struct LoopPlace
{
	int			slot;
	uint64		generation;		/* 0: nowhere */
} LoopPlace;

typedef struct LoopEntry
{
	LoopKey		key;
	LoopCounts	counts;
	TimestampTz first_seen;
	TimestampTz last_seen;
	char		application_name[NAMEDATALEN];
	LoopShape	shape;
} LoopEntry;

typedef struct LoopInfo
{
	int			used;
	int			max;
	uint64		evicted;
} LoopInfo;

/* n_plus_one.c */
extern void perfopt_n_plus_one_init(void);

/* n_plus_one_statement.c */
extern uint64 perfopt_loop_parameters(QueryDesc *query);
extern void perfopt_loop_text(QueryDesc *query, char *text);
extern void perfopt_loop_function_init(void);
extern Oid	perfopt_loop_function(bool nested);

/* n_plus_one_plan.c */
#define PLAN_RELATIONS	4

typedef struct PlanRelations
{
	bool		single_insert;	/* INSERT of one row of VALUES into a table */
	bool		reads;			/* a relation that is none of the system's */
	bool		calls;			/* functions, but for the server's own */
	bool		locks;			/* FOR UPDATE and the like, or a CTE that
								 * writes */
	int			count;			/* PLAN_RELATIONS + 1: more */
	Oid			relids[PLAN_RELATIONS];
} PlanRelations;

extern void perfopt_loop_relations(PlannedStmt *plan, PlanRelations *relations);
extern Oid	perfopt_loop_written(PlannedStmt *plan);
extern void perfopt_loop_shape(PlannedStmt *plan, const char *source, LoopShape *shape);

/* n_plus_one_table.c */
extern void perfopt_loop_table_init(void);
extern void perfopt_loop_add(LoopPlace *place, const LoopKey *key,
							 const LoopCounts *counts, const LoopShape *shape,
							 TimestampTz now);
extern int	perfopt_loop_read(LoopEntry **entries);
extern void perfopt_loop_reset(void);
extern LoopInfo perfopt_loop_info(void);

/* n_plus_one_advice.c */
extern void perfopt_loop_advice_init(void);

#endif							/* PERFOPT_N_PLUS_ONE_INTERNAL_H */
