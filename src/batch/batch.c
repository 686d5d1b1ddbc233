/*
 * batch.c
 *		Batching: a table of contents.
 */
#include "postgres.h"

#include "batch/batch_internal.h"

void
perfopt_batch_init(void)
{
	batch_insert_init();
	batch_buffer_init();
	batch_chunks_init();
}
