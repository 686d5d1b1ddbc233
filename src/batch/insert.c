/*
 * insert.c
 *		Batched inserts.
 */
#include "postgres.h"

#include "batch/batch_internal.h"

void
batch_insert_init(void)
{
}
