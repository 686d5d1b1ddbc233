/*
 * index_spec.h
 *		An index that may or may not exist, as CREATE INDEX would have it.
 *		Private to src/advisor.
 */
#ifndef PERFOPT_INDEX_SPEC_H
#define PERFOPT_INDEX_SPEC_H

#include "access/attnum.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"
#include "utils/relcache.h"

/* A key, or an included column. */
typedef struct IndexColumn
{
	AttrNumber	attnum;			/* 0: an expression */
	Node	   *expr;			/* over the table as varno 1, or NULL */
	Oid			type;
	int32		typmod;

	/* of keys only */
	Oid			collation;
	Oid			opclass;
	Oid			opfamily;
	Oid			opcintype;
	int16		options;		/* INDOPTION_DESC, INDOPTION_NULLS_FIRST */
} IndexColumn;

/*
 * Made by the functions below, which check it, and not changed afterwards, so
 * that copies of the struct may share what it points to.
 */
typedef struct IndexSpec
{
	Oid			relid;
	Oid			am;
	int			num_keys;
	int			num_columns;	/* keys, then included columns */
	IndexColumn *columns;
	List	   *predicate;		/* implicitly ANDed, over varno 1 */
	int			fillfactor;		/* 0: the default */
	const char *extension;		/* that its operator class is of, if that is
								 * not installed; or NULL */

	/* what it is wanted for, no part of the index itself */
	bool		order_only;		/* for its order, not to find rows */
	bool		any_direction;	/* all keys but the last one meet equalities */
	bool		of_constants;	/* depends on constants of the statement */
	uint32		arm_of;			/* not 0: for an arm of an OR, also to be
								 * tried together with all others of this
								 * number */
	bool		statistics_only;	/* not there to be scanned, only for what
									 * is known of its expressions */

	/* in a list of candidates */
	int			times_found;	/* by so many plannings of the statement */
	uint32		last_found;
} IndexSpec;

/* Of all that it points to, too. */
extern IndexSpec *perfopt_index_spec_copy(const IndexSpec *spec);

/* An empty one.  The others return NULL, or why such an index can't be made. */
extern IndexSpec *perfopt_index_spec_create(Oid relid, Oid am);

/* expr is a column or an expression; InvalidOid stands for the default. */
extern const char *perfopt_index_spec_add_key(IndexSpec *spec, Node *expr, Oid opclass,
											  Oid collation, int16 options);

/*
 * The same with gin_trgm_ops, which is not there as pg_trgm is not installed; such
 * an index can be priced, but not be made.
 */
extern const char *perfopt_index_spec_add_trigrams(IndexSpec *spec, Node *expr, Oid collation);
extern const char *perfopt_index_spec_add_included(IndexSpec *spec, AttrNumber attnum);

/* Put included columns into the order that takes the fewest bytes. */
extern void perfopt_index_spec_pack_included(IndexSpec *spec);
extern const char *perfopt_index_spec_set_predicate(IndexSpec *spec, Node *predicate);
extern const char *perfopt_index_spec_set_fillfactor(IndexSpec *spec, int fillfactor);

/* Ascending columns with default operator classes; NULL if that can't be. */
extern IndexSpec *perfopt_index_spec_of_columns(Oid relid, int num_columns,
												const AttrNumber *attnums);

/* Of CREATE INDEX, as the caller may write it; raises an error. */
extern IndexSpec *perfopt_index_spec_parse(const char *ddl);

/*
 * Of an index that exists, looked up in the catalogs without a lock.  NULL: it
 * has just been dropped, is not valid, or is of a kind not known here.
 */
extern IndexSpec *perfopt_index_spec_of_index(Oid index);

/* The same index, whatever it is wanted for? */
extern bool perfopt_index_spec_equal(const IndexSpec *a, const IndexSpec *b);
extern uint64 perfopt_index_spec_hash(const IndexSpec *spec);

/* Would this index do all that the wanted one is for? */
extern bool perfopt_index_spec_serves(const IndexSpec *by, const IndexSpec *wanted);

/*
 * Are the columns still those that the spec was made for?  If they are not of
 * the same types, its expressions must not be evaluated, nor entries formed.
 * The table is locked.
 */
extern bool perfopt_index_spec_fits(const IndexSpec *spec, Relation relation);

/*
 * The table, locked for reading; to be closed with that lock.  NULL when the
 * lock can't be had at once, or when the table is gone or no longer fits.
 */
extern Relation perfopt_index_spec_open(const IndexSpec *spec);

/* Does an index exist that serves as this one would?  The table is locked. */
extern bool perfopt_index_exists(Relation relation, const IndexSpec *spec);

/* index_ddl.c */

/* A free name, as CREATE INDEX would choose it. */
extern char *perfopt_index_spec_name(const IndexSpec *spec, Relation relation);

/*
 * What follows the table's name in CREATE INDEX, with the access method; the
 * same text for the same index, whatever the search_path.
 */
extern char *perfopt_index_spec_definition(const IndexSpec *spec, Relation relation);

/* What it is on, as a sentence has it: "lower(email) and created_at". */
extern char *perfopt_index_spec_words(const IndexSpec *spec, Relation relation);

/*
 * CREATE INDEX, to be run with any search_path: CONCURRENTLY, but for a
 * partitioned table, which can't have it so.
 */
extern char *perfopt_index_spec_ddl(const IndexSpec *spec, Relation relation,
									const char *index_name);
extern char *perfopt_index_ddl(const char *index_name, const char *schema_name,
							   const char *table_name, const char *definition);
extern char *perfopt_index_ddl_of_parent(const char *index_name, const char *schema_name,
										 const char *table_name, const char *definition);

/* trust.c */

/*
 * May these functions and operators be called as this role?  They are immutable,
 * and a superuser's or its own; InvalidOid stands for none.
 */
extern bool perfopt_expression_is_trusted(Node *node, Oid role);

/* May those be called that statistics of such values are made with? */
extern bool perfopt_type_is_trusted(Oid type, Oid role);

/* Are they immutable, and came with the server? */
extern bool perfopt_expression_is_builtin(Node *node);

#endif							/* PERFOPT_INDEX_SPEC_H */
