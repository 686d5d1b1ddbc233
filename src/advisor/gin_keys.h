/*
 * gin_keys.h
 *		Keys of a GIN index that does not exist: gathered by gin_keys.c, turned
 *		into a size by index_size_gin.c.
 */
#ifndef PERFOPT_GIN_KEYS_H
#define PERFOPT_GIN_KEYS_H

#include "advisor/advisor_internal.h"

/* A key that the sample has so often is frequent, if not less often. */
#define FREQUENT_KEY	5

typedef struct GinKey
{
	uint64		hash;			/* must be first */
	uint32		rows;			/* of the sample */
	uint32		last;			/* ... the last of these, by its number */
	uint32		bytes;			/* that distances between them take */
	uint16		size;			/* of a tuple, without a posting list */
	bool		by_value;
	uint64		order[2];		/* the key's beginning, to sort by */
	char		status;			/* of the hash table */
} GinKey;

typedef struct GinKeysSummary
{
	double		sample_rows;
	double		sample_entries;
	int			num_keys;
	GinKey	   *keys;
	int			frequent;		/* from so many rows on a key is that */
	double		together;		/* rows of a block with the same rare key */
} GinKeysSummary;

extern const GinKeysSummary *perfopt_gin_keys_end(GinKeys *keys);

#endif							/* PERFOPT_GIN_KEYS_H */
