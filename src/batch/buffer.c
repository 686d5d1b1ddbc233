/*
 * buffer.c
 *		Buffered inserts.
 */
#include "postgres.h"

#include "batch/batch_internal.h"

void
batch_buffer_init(void)
{
}
