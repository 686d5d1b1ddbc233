/*
 * batch_internal.h
 *		What the files of the folder share.
 */
#ifndef PERFOPT_BATCH_INTERNAL_H
#define PERFOPT_BATCH_INTERNAL_H

#include "postgres.h"

#include "batch/batch.h"
#include "common/settings.h"
#include "utils/jsonb.h"

/* ---------------------------------------------------------------------
 * insert*.c: many rows by one statement, with all of INSERT's meaning
 */
typedef enum BatchAction
{
	BATCH_INSERTED,
	BATCH_UPDATED,				/* by ON CONFLICT DO UPDATE */
	BATCH_SKIPPED,				/* by ON CONFLICT DO NOTHING, or a trigger */
	BATCH_REJECTED
} BatchAction;

/* What has become of one row. */
typedef struct BatchVerdict
{
	BatchAction action;
	/* of BATCH_REJECTED, in the caller's memory context: */
	int			sqlerrcode;
	char	   *message;
	char	   *detail;			/* or NULL, as the next */
	char	   *constraint;
} BatchVerdict;

/*
 * Insert rows, given as jsonb objects, into the target as the current user, in
 * the current transaction, under an active snapshot.  A row that fails harms no
 * other: it is rejected, and noted in perfopt.rejected_rows when its element of
 * noted says so, or that is NULL; somebody else gets its error otherwise.  Fills
 * verdicts[num_rows].  Raises an error only for what concerns the target as a
 * whole (it is gone, may not be written ...), and for cancel and the like.
 */
extern void batch_insert_jsonb_rows(Oid target, Jsonb **rows, const bool *noted,
									int num_rows, BatchVerdict *verdicts);

/*
 * Note in perfopt.rejected_rows, in the current transaction and as the current
 * user, a row that was not inserted for this reason.
 */
extern void batch_note_rejected(Oid target, Jsonb *row, const BatchVerdict *verdict);

/* What each part has to set up while the library is preloaded. */
extern void batch_insert_init(void);
extern void batch_buffer_init(void);
extern void batch_chunks_init(void);

#endif							/* PERFOPT_BATCH_INTERNAL_H */
