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
#include "nodes/plannodes.h"
#include "portability/instr_time.h"
#include "storage/lock.h"

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
	char		application_name[NAMEDATALEN];
} LoopKey;

/*
 * What a repeated statement looks like, for the call to use instead.  It is
 * taken from the plan alone, in a hook, so that catalogs are not asked there:
 * what the OIDs mean is found out by who looks at it.
 */
#define SHAPE_KEYS		8
#define SHAPE_COLUMNS	12
#define LOOP_TEXT		256

/* Relation and key columns are not known, or there is more than that. */
#define SHAPE_OPAQUE		0x01
#define SHAPE_AGGREGATE		0x02
#define SHAPE_LIMIT			0x04
#define SHAPE_FILTER		0x10	/* further conditions */
#define SHAPE_UPDATE		0x20
#define SHAPE_COMPUTES		0x40	/* columns that are none of the relation */
#define SHAPE_DELETE		0x80
#define SHAPE_NOTHING		0x100	/* ON CONFLICT DO NOTHING */
#define SHAPE_UPSERT		0x200	/* ON CONFLICT DO UPDATE */

/* A column compared with a value; of an INSERT, a column that is given. */
typedef struct ShapeKey
{
	AttrNumber	attnum;
	bool		parameter;		/* the value is written as a parameter */
	Oid			op;				/* any operator, perhaps one for equality */
	Oid			type;			/* of its left argument */
} ShapeKey;

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
	ShapeKey	keys[SHAPE_KEYS];
	int16		num_columns;	/* -1: more than there is room for */
	ShapeColumn columns[SHAPE_COLUMNS];
	AttrNumber	order;			/* of rows, by Sort; 0: not known */
	bool		nulls_first;
	Oid			order_op;
	int64		limit;			/* 0: none, or not known */

	/* pg_stat_statements may not have those of statements in functions */
	char		statement[LOOP_TEXT];
	char		source_text[LOOP_TEXT];
} LoopShape;

typedef struct LoopCounts
{
	int64		loops;
	int64		certain;		/* of these, within a transaction block or a
								 * function: nobody else's requests */
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
	bool		calls;			/* functions that are none of the system's */
	bool		pages;			/* has an OFFSET */
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

/* ---------------------------------------------------------------------
 * What a session remembers; n_plus_one.c has the idea
 */

#define NONE			(-1)

#define NUM_STREAKS		16
#define NUM_SOURCES		8

/* Parameter sets of a streak that are remembered. */
#define NUM_RECENT		8

/* What a client's loop stays within. */
typedef struct Unit
{
	bool		block;			/* in a transaction block of several
								 * statements */
	LocalTransactionId xact;
} Unit;

typedef struct Totals
{
	uint32		runs;
	uint32		novel;			/* with parameters not used lately */
	uint64		rows;
	uint64		lost_ns;
} Totals;

typedef struct Source
{
	uint64		queryid;		/* 0: no source */
	Oid			role;
	int			depth;
	Unit		unit;
	QueryDesc  *open;			/* only compared: may have returned more */
	uint64		rows;
	uint64		ran;			/* when, as number of the statement */
	uint64		irregular;		/* the level's, then */
	char		statement[LOOP_TEXT];	/* in functions */
} Source;

/* What the shared table was told of a streak's loop. */
typedef struct Told
{
	bool		is;
	bool		certain;		/* by one client, for it is in a block or
								 * function */
	LoopKey		key;
	LoopPlace	place;
	uint64		began;			/* number of the statement */
	int			source;			/* number of the source, or NONE */
	int			middle;			/* of the streak that is the source, or NONE */
	Totals		base;			/* where the loop begins */
	Totals		counted;		/* what was told */
	uint64		source_rows;	/* likewise */

	/*
	 * Sources that ran before this statement have no claim to what runs:
	 * their rows' runs were those of a newer source's loop, which was
	 * complete.
	 */
	uint64		not_before;

	/* the last loop with a source, also when it is over */
	int			last_source;
	bool		missed;			/* it was none */
	LoopKey		last_key;
	LoopPlace	last_place;
} Told;

typedef struct Streak
{
	Oid			role;
	Oid			function;
	int			depth;
	CmdType		command;
	Unit		unit;
	uint64		ran;			/* number of the statement: the last one */
	Totals		totals;
	Totals		at[NUM_SOURCES];	/* when the source last ran */
	Totals		unwritten;		/* when one of its tables was last written */
	uint64		recent[NUM_RECENT];
	int			next_recent;
	uint64		began;			/* number of the statement before; for INSERTs */
	uint64		irregular;		/* the level's, then */
	int			before[2];		/* streaks that were run before it lately */
	int			after[2];		/* likewise */
	PlanRelations relations;	/* known from the second run on */
	char		statement[LOOP_TEXT];	/* in functions; likewise */
	Told		told;
} Streak;

typedef struct Level
{
	bool		of_functions;
	int			num_streaks;
	int			num_sources;	/* that were used at all */
	int			last;			/* streak of the statement before, or NONE */
	uint64		statements;
	uint64		irregular;		/* of these: after one that was not followed
								 * by it lately */
	TimestampTz message;		/* start of the client's last statement */
	uint64		last_ns;		/* how long that took */
	Unit		last_unit;
	int			in_last_unit;	/* statements; of blocks only */
	instr_time	clock;			/* functions: end of the last statement */
	uint64		queryids[NUM_STREAKS];
	Streak		streaks[NUM_STREAKS];
	Source		sources[NUM_SOURCES];
} Level;

/* How much has come since base. */
static inline Totals
perfopt_totals_since(const Totals *totals, const Totals *base)
{
	Totals		result;

	result.runs = totals->runs - base->runs;
	result.novel = totals->novel - base->novel;
	result.rows = totals->rows - base->rows;
	result.lost_ns = totals->lost_ns - base->lost_ns;
	return result;
}

static inline bool
perfopt_same_unit(const Unit *a, const Unit *b)
{
	return a->xact == b->xact || (!a->block && !b->block);
}

/* n_plus_one_level.c */
extern int	perfopt_level_streak(Level *level, uint64 queryid, Oid role, Oid function, int depth,
								 CmdType command, const Unit *unit, int alone);
extern void perfopt_level_begin_streak(Level *level, Streak *streak, const Unit *unit);
extern void perfopt_level_count_run(Level *level, Streak *streak, uint64 rows, uint64 parameters,
									int before);
extern void perfopt_level_add_source(Level *level, uint64 queryid, Oid role, int depth,
									 const Unit *unit, QueryDesc *query, bool open, uint64 rows);
extern void perfopt_level_add_rows(Level *level, uint64 queryid, QueryDesc *query, uint64 rows);
extern void perfopt_level_note_write(Level *level, Oid relid);
extern void perfopt_level_forget(Level *level);

/* n_plus_one_judge.c */
extern void perfopt_loop_judge(Level *level, Streak *streak, QueryDesc *query);
extern void perfopt_loop_judge_functions(Level *functions, uint64 queryid, uint64 rows);

/* n_plus_one_tell.c */
typedef struct LoopOrigin
{
	uint64		queryid;		/* 0: no source */
	const char *statement;
	uint64		rows;
} LoopOrigin;

extern void perfopt_loop_begin(Level *level, Streak *streak, LoopKind kind, const LoopOrigin *origin,
							   const Totals *base, QueryDesc *query);
extern void perfopt_loop_go_on(Streak *streak, uint64 source_rows);
extern void perfopt_loop_finish(Streak *streak);
extern void perfopt_loop_end_at(Streak *streak, const Totals *end);
extern void perfopt_loop_take_back(Streak *streak);
extern void perfopt_loop_miss(Streak *streak);

#endif							/* PERFOPT_N_PLUS_ONE_INTERNAL_H */
