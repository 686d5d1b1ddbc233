/*
 * query_oids.h
 *		OIDs that a query returns.
 */
#ifndef PERFOPT_QUERY_OIDS_H
#define PERFOPT_QUERY_OIDS_H

#include "postgres.h"

#include "nodes/pg_list.h"

/*
 * The OIDs in the only column of a SELECT, in the caller's memory context.  Not
 * to be called within SPI_connect() and SPI_finish().
 */
extern List *perfopt_query_oids(const char *sql);

#endif							/* PERFOPT_QUERY_OIDS_H */
