/*
 * chunks.c
 *		Chunked work on large tables.
 */
#include "postgres.h"

#include "batch/batch_internal.h"

void
batch_chunks_init(void)
{
}
