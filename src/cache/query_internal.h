/*
 * query_internal.h
 *		What the files of cached queries share.
 */
#ifndef PERFOPT_QUERY_INTERNAL_H
#define PERFOPT_QUERY_INTERNAL_H

#include "cache/cache_internal.h"

#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "tcop/dest.h"

/* purity.c: what a query that may be cached uses, beside its plan's tables */
typedef struct CachePurity
{
	List	   *relations;		/* OIDs, of views as well */
	List	   *settings;		/* names that current_setting() is called with */
	CacheTypes	types;			/* that values have */
	bool		names_types;	/* by names that could come to mean others */
	bool		reads_times;	/* text becomes a date or time while it runs */
	bool		calls_opaque;	/* functions of perfopt.cache_opaque_functions */
	bool		calls_functions;	/* whose bodies run statements */

	/* while walking */
	List	   *functions;		/* OIDs of those looked into */
	int			depth;
} CachePurity;

/* Raises FEATURE_NOT_SUPPORTED with the reason when it may not be cached. */
extern void cache_purity_check_raw(CachePurity *purity, Node *raw);
extern void cache_purity_check(CachePurity *purity, Query *query);

/* Is there a word like "now", which means a time when it is read? */
extern bool cache_purity_names_time(const char *text, Size len);

/* query.c */
struct CacheQuery
{
	MemoryContext context;
	uint64		hash;			/* of key */
	dlist_node	node;			/* most recently used first */

	char	   *key;			/* session, face, parameter types, text */
	int			key_len;
	char	   *text;
	CacheFace	face;
	int			num_params;
	Oid		   *types;

	SPIPlanPtr	plan;
	TupleDesc	desc;			/* of the query's result */

	/* While these are current, what it says means the same. */
	bool		settled;		/* definitions were not changing meanwhile */
	int			num_definitions;
	CacheDefinitionState *definitions;

	int			num_settings;
	char	  **settings;
	bool		reads_times;
	bool		calls_opaque;

	int			num_relations;	/* that must be tracked */
	Oid		   *relations;
	bool		tracked;
};

/* Does a parameter's value mean something else as time goes by? */
extern bool cache_query_params_name_time(CacheQuery *query, const CacheParams *params);

/* Is what it was found to mean still what it means? */
extern bool cache_query_is_current(const CacheQuery *query);

/*
 * Have its tables tracked, where the caller may do so and can do it now.  An
 * error says what to do where he may not, if that is wanted.
 */
extern void cache_query_track(CacheQuery *query, bool or_raise);

/*
 * Run it under the active snapshot.  What it means is added to what is being
 * collected.
 */
extern void cache_query_run(CacheQuery *query, const CacheParams *params,
							DestReceiver *dest);

/* refresh.c: ask for the entry to be computed anew before it expires. */
typedef struct CacheRefresh
{
	CacheQuery *query;
	const CacheParams *params;
	const char *prefix;
	int			prefix_len;
	int64		ttl_us;
} CacheRefresh;

extern void cache_refresh_request(const CacheRefresh *refresh);

/* query_face.c: compute it and publish it, whatever is there; for refresh.c */
extern CacheBypass cache_query_refresh(const CacheRefresh *refresh);

#endif							/* PERFOPT_QUERY_INTERNAL_H */
