/*
 * batch.h
 *		Many rows at once: batched and buffered inserts, and work on large
 *		tables chunk by chunk.
 */
#ifndef PERFOPT_BATCH_H
#define PERFOPT_BATCH_H

extern void perfopt_batch_init(void);

#endif							/* PERFOPT_BATCH_H */
