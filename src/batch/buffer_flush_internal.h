/*
 * buffer_flush_internal.h
 *		What the two files of the flusher share: buffer_flusher.c and
 *		buffer_flush.c.
 */
#ifndef PERFOPT_BUFFER_FLUSH_INTERNAL_H
#define PERFOPT_BUFFER_FLUSH_INTERNAL_H

#include "postgres.h"

#include "access/xact.h"
#include "batch/buffer_internal.h"
#include "libpq/pqsignal.h"

/* While others wait for a process, it makes way after so long. */
#define BUFFER_TURN_MS	1000

/* This process, when it is one; what it works at is for its exit. */
typedef struct BufferFlusher
{
	BufferPlace place;
	int			trying;			/* rows of the batch that are being inserted */
	bool		trying_spool;
	bool		marking_spool;	/* see buffer_flush_spool() */
} BufferFlusher;

/* ---------------------------------------------------------------------
 * buffer_flusher.c
 */
extern BufferFlusher buffer_flusher;

/* Was the time of the one who told us to go up? */
extern bool buffer_flush_out_of_time(void);

/* ---------------------------------------------------------------------
 * buffer_flush.c
 */

/* What differs from the settings of a login of the role. */
extern const char *const buffer_flush_settings[][2];
extern const int buffer_flush_num_settings;

extern void buffer_flush_reset_settings(void);
extern void buffer_flush_at_commit(XactEvent event, void *arg);
extern void buffer_flush_sigint(SIGNAL_ARGS);

/* Flush what a queue has, or some of the spool. */
extern void buffer_flush_queue(int queue, MemoryContext context);
extern void buffer_flush_spool(MemoryContext context);

#endif							/* PERFOPT_BUFFER_FLUSH_INTERNAL_H */
