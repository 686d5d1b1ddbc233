/*
 * index_cost_gin.c
 *		What a scan of a GIN index that does not exist would cost.
 *
 * Of a real index the server's estimate, gincostestimate(), reads how many keys it
 * has, and how many of its pages are of these and how many of their lists of rows.
 * Of a hypothetical one it takes nine tenths of the pages to be the former, with
 * a hundred keys each.  Here it is given a number of pages that makes the pages of
 * keys right, and what it charges for the others is corrected.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/trigrams.h"

#include <math.h>

#include "access/gin.h"
#include "access/stratnum.h"
#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "utils/index_selfuncs.h"
#include "utils/lsyscache.h"
#include "utils/spccache.h"

/* What the server takes keys that begin with something to be, of each. */
#define KEYS_OF_PREFIX	100

/* What it takes a hypothetical index to be. */
#define SERVER_KEY_PART	0.90
#define SERVER_KEYS		100

/* Keys that the clauses look for. */
typedef struct Searched
{
	double		exact;
	double		prefixes;		/* keys that these may match */
	bool		all;			/* a clause reads all keys */
	bool		some;
} Searched;

/* An index, as it would be or as the server sees it. */
typedef struct Shape
{
	double		keys;
	double		key_pages;
	double		data_pages;
} Shape;

/* As the scan itself would ask the operator class. */
static void
count_keys(const IndexOptInfo *index, int column, Oid op, Datum query, Searched *searched)
{
	Oid			extract = get_opfamily_proc(index->opfamily[column], index->opcintype[column],
											index->opcintype[column], GIN_EXTRACTQUERY_PROC);
	Oid			collation = index->indexcollations[column];
	int			strategy = get_op_opfamily_strategy(op, index->opfamily[column]);
	FmgrInfo	function;
	int32		num = 0;
	bool	   *partial = NULL;
	Pointer    *extra = NULL;
	bool	   *nulls = NULL;
	int32		mode = GIN_SEARCH_MODE_DEFAULT;

	if (!OidIsValid(extract) || strategy == 0)
		return;
	fmgr_info(extract, &function);
	(void) FunctionCall7Coll(&function, OidIsValid(collation) ? collation : DEFAULT_COLLATION_OID,
							 query, PointerGetDatum(&num), UInt16GetDatum(strategy),
							 PointerGetDatum(&partial), PointerGetDatum(&extra),
							 PointerGetDatum(&nulls), PointerGetDatum(&mode));
	for (int i = 0; i < num; i++)
	{
		if (partial && partial[i])
			searched->prefixes += KEYS_OF_PREFIX;
		else
			searched->exact++;
	}
	if (mode == GIN_SEARCH_MODE_INCLUDE_EMPTY)
		searched->exact++;
	if (mode == GIN_SEARCH_MODE_DEFAULT || mode == GIN_SEARCH_MODE_INCLUDE_EMPTY)
		searched->some = true;
	else
		searched->all = true;
}

static void
count_clauses(PlannerInfo *root, const IndexPath * path, Searched *searched)
{
	ListCell   *lc;
	ListCell   *lc2;

	memset(searched, 0, sizeof(*searched));
	foreach(lc, path->indexclauses)
	{
		IndexClause *clause = lfirst_node(IndexClause, lc);

		foreach(lc2, clause->indexquals)
		{
			OpExpr	   *op = (OpExpr *) lfirst_node(RestrictInfo, lc2)->clause;
			Node	   *operand = IsA(op, OpExpr) ?
			estimate_expression_value(root, lsecond(op->args)) : NULL;

			while (operand && IsA(operand, RelabelType))
				operand = (Node *) ((RelabelType *) operand)->arg;
			if (operand == NULL || !IsA(operand, Const))
			{
				searched->exact++;
				searched->some = true;
			}
			else if (!((Const *) operand)->constisnull)
				count_keys(path->indexinfo, clause->indexcol, op->opno,
						   ((Const *) operand)->constvalue, searched);
		}
	}
}

static double
fetched(PlannerInfo *root, double pages, double of, double loop_count)
{
	return loop_count <= 1 ? pages :
		index_pages_fetched(pages * loop_count, (BlockNumber) of, of, root) / loop_count;
}

/* Pages that the search reads: those before its first row, and all. */
static void
count_pages(PlannerInfo *root, const Shape *shape, const Searched *searched, double by_rows,
			double loop_count, double *startup, double *all)
{
	bool		every_key = searched->all && !searched->some;
	double		exact = every_key ? shape->keys : searched->exact;
	double		part = every_key ? 0 : Min(searched->prefixes / shape->keys, 1);
	double		data = ceil(shape->data_pages * exact / shape->keys);

	/*
	 * the descent to each key but for all of them is right as the server has
	 * it
	 */
	*startup = fetched(root, ceil(shape->key_pages * part) +
					   (every_key ? shape->keys * rint(pow(shape->key_pages, 0.15)) : 0),
					   shape->key_pages, loop_count) +
		fetched(root, ceil(shape->data_pages * part), shape->data_pages, loop_count);
	*all = *startup + fetched(root, Max(data, by_rows), shape->data_pages, loop_count);
}

void
perfopt_gin_cost(PlannerInfo *root, IndexPath * path, double loop_count, Cost *startup_cost,
				 Cost *total_cost, Selectivity * selectivity, double *correlation, double *pages)
{
	const IndexFacts *facts = perfopt_index_facts_by_id(path->indexinfo->indexoid);
	IndexOptInfo index = *path->indexinfo;
	IndexPath	server_path = *path;
	Shape		real;
	Shape		server;
	Searched	searched;
	double		by_rows;
	double		page_cost;
	double		real_startup;
	double		real_all;
	double		server_startup;
	double		server_all;

	*correlation = 0;
	if (facts && facts->spec->extension)
	{
		perfopt_trigram_cost(root, path, &facts->size, startup_cost, total_cost, selectivity,
							 pages);
		return;
	}
	if (facts == NULL)
	{
		gincostestimate(root, path, loop_count, startup_cost, total_cost, selectivity,
						correlation, pages);
		return;
	}
	real.data_pages = facts->size.data_pages;
	real.key_pages = Max(facts->size.pages - 1 - real.data_pages, 1);
	real.keys = Max(facts->size.keys, 1);
	index.pages = (BlockNumber) Min(Max(ceil(real.key_pages / SERVER_KEY_PART), 10),
									MaxBlockNumber);
	server.key_pages = floor(index.pages * SERVER_KEY_PART);
	server.data_pages = index.pages - server.key_pages;
	server.keys = server.key_pages * SERVER_KEYS;

	server_path.indexinfo = &index;
	*pages = 0;
	gincostestimate(root, &server_path, loop_count, startup_cost, total_cost, selectivity,
					correlation, pages);
	if (*total_cost == 0)
		return;					/* nothing can match */

	count_clauses(root, path, &searched);
	by_rows = ceil(*selectivity * (index.tuples / (BLCKSZ / 3)));
	count_pages(root, &real, &searched, by_rows, loop_count, &real_startup, &real_all);
	count_pages(root, &server, &searched, by_rows, loop_count, &server_startup, &server_all);
	get_tablespace_page_costs(index.reltablespace, &page_cost, NULL);

	/* from 16 on it charges for looking at a page, too */
	if (PG_VERSION_NUM >= 160000)
		page_cost += 50 * cpu_operator_cost;
	*startup_cost = Max(*startup_cost + (real_startup - server_startup) * page_cost, 0);
	*total_cost = Max(*total_cost + (real_all - server_all) * page_cost, *startup_cost);
	*pages = Max(*pages + (real_all - real_startup) - (server_all - server_startup), 0);
}
