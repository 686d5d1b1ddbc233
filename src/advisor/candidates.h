/*
 * candidates.h
 *		Which indexes could help a statement that is being planned.
 *		Private to src/advisor.
 *
 *		candidates.c		what a statement does with a relation
 *		candidates_clauses.c	... the clauses of it, read
 *		candidates_btree.c	the B-trees that would serve that
 *		candidates_gin.c	... GIN indexes
 *		candidates_brin.c	... BRIN indexes
 */
#ifndef PERFOPT_CANDIDATES_H
#define PERFOPT_CANDIDATES_H

#include "advisor/index_spec.h"
#include "nodes/pathnodes.h"

/* Partitions whose statistics are asked. */
#define MAX_PARTITIONS_ASKED	8

typedef enum UseKind
{
	USE_EQUAL,					/* to one value; what comes after it is in
								 * order */
	USE_ANY_OF,					/* IN, IS NULL: no order comes after it */
	USE_RANGE,
	USE_PATTERN					/* begins with: a range of a pattern class */
} UseKind;

/* A column or expression of the relation, as a condition uses it. */
typedef struct IndexUse
{
	UseKind		kind;
	Node	   *expr;			/* over the table as varno 1 */
	Oid			collation;
	Oid			opclass;		/* InvalidOid: the default */
	Relids		others;			/* relations it is compared with; NULL: none */
	Selectivity selectivity;	/* of the condition; for a join, of one
								 * look-up */
	bool		of_constants;	/* the expression has constants */
	List	   *more;			/* Node *: further columns, of (a, b) < (1, 2) */
	RestrictInfo *clause;		/* that it is of, if it is one */
} IndexUse;

/* A column or expression to sort by. */
typedef struct SortUse
{
	Node	   *expr;
	Oid			collation;
	int16		options;		/* INDOPTION_* */
	bool		of_constants;
} SortUse;

/* A condition that rows of a partial index may be chosen by. */
typedef struct RowCondition
{
	RestrictInfo *clause;
	Node	   *expr;			/* over the table as varno 1 */
	Selectivity selectivity;
	bool		of_constants;
} RowCondition;

/* What a statement does with one relation; in the planner's memory. */
typedef struct RelationUses
{
	PlannerInfo *root;
	RelOptInfo *rel;
	Oid			relid;
	Oid			owner;
	double		pages;
	double		tuples;
	int			num_partitions; /* looked at; 0: it is not partitioned */
	Index		partitions[MAX_PARTITIONS_ASKED];	/* the largest that are
													 * read */
	List	   *constants;		/* Const *, of the statement as it was written */
	List	   *uses;			/* IndexUse *, of conditions that all must
								 * hold */
	List	   *ors;			/* List * of arms, each a List * of IndexUse * */
	List	   *order;			/* SortUse * */
	List	   *conditions;		/* RowCondition *, the most selective first */
	List	   *filters;		/* RowCondition *, that no key can be for */
	Bitmapset  *read;			/* columns that its results need ... */
	bool		reads_all;		/* or that can't be had of an index */
} RelationUses;

/* Where candidates go. */
typedef struct CandidateList
{
	List	  **specs;			/* IndexSpec * */
	MemoryContext context;		/* ... made in here */
	List	   *constants;		/* of the statement being planned, as above */
	uint32		planning;		/* its number */
} CandidateList;

extern void perfopt_candidates_collect(PlannerInfo *root, RelOptInfo *rel,
									   RangeTblEntry *rte, CandidateList *candidates);

/*
 * Take one that is made in that context, and what it is wanted for; it may be
 * there already.  Returns the one kept, or NULL when there are too many.
 */
extern IndexSpec *perfopt_candidates_add(CandidateList *candidates, IndexSpec *spec);

/*
 * Of the candidates that so many plannings of a statement have found, those that
 * do not depend on constants of one of them only.
 */
extern List *perfopt_candidates_settle(List *specs, int plannings);

/*
 * What is to be known of a statement with these candidates whichever of them
 * exist: the statistics of their expressions, as IndexSpec * that are only for
 * that.  Without them the planner guesses how many rows meet lower(email) = $1,
 * and may take a plan for cheap which reads the whole table; with one of the
 * candidates it would know.
 */
extern List *perfopt_candidates_statistics(List *specs);

/* The constants of a statement that is not planned yet. */
extern List *perfopt_statement_constants(Query *query);

/* candidates_clauses.c */
extern void perfopt_collect_clauses(RelationUses *uses);
extern Node *perfopt_collect_key(const RelationUses *uses, Node *expr, bool *of_constants);

/* candidates_btree.c */
extern void perfopt_candidates_btree(const RelationUses *uses, CandidateList *candidates);

/* candidates_gin.c, candidates_brin.c */
extern void perfopt_candidates_gin(const RelationUses *uses, CandidateList *candidates);
extern void perfopt_candidates_brin(const RelationUses *uses, CandidateList *candidates);

#endif							/* PERFOPT_CANDIDATES_H */
