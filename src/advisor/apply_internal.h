/*
 * apply_internal.h
 *		What apply.c and apply_steps.c share.
 */
#ifndef PERFOPT_APPLY_INTERNAL_H
#define PERFOPT_APPLY_INTERNAL_H

#include "postgres.h"

/* Told when nothing better is known. */
#define INTERRUPTED			"the index build was interrupted"

/* A row of perfopt.advice_item being applied, or reverted. */
typedef struct Applying
{
	int64		id;
	bool		reverting;
	char	   *kind;
	char	   *schema_name;
	char	   *table_name;
	char	   *definition;
	char	   *index_name;
	char	   *ddl;
	char	   *undo;
	char	   *role;			/* as whom */
	char	   *error;
	bool		will_retry;		/* as a lock could not be had */
	double		bytes;
} Applying;

typedef enum StepReady
{
	STEP_READY,					/* statement is to be run */
	STEP_LOCKED,				/* the table is; look again later */
	STEP_DONE_ALREADY,
	STEP_IMPOSSIBLE,			/* problem tells why */
	STEP_GIVEN_UP				/* ... and an attempt has left something */
} StepReady;

/* Sets index_name, ddl, undo of the row, and *statement, or *problem. */
extern StepReady perfopt_step_prepare(Applying *row, char **statement, const char **problem);

/* Has the table an index of the row's name? */
extern bool perfopt_step_has_index(const Applying *row);

typedef enum StepLeft
{
	STEP_LEFT_DONE,
	STEP_LEFT_NOTHING,			/* it has not been done, nor left anything */
	STEP_LEFT_INVALID,			/* *statement is to be run to drop it */
	STEP_LEFT_NEXT,				/* *statement is the next one to be run */
	STEP_LEFT_UNKNOWN			/* somebody is at it; look again soon */
} StepLeft;

/* What has a job, or a process that is gone, left of this step? */
extern StepLeft perfopt_step_look(const Applying *row, char **statement);

/* apply_partitions.c */
extern StepLeft perfopt_partitions_look(const Applying *row, Oid table, Oid index, char **statement);
extern const char *perfopt_partitions_problem(Oid table);

#endif							/* PERFOPT_APPLY_INTERNAL_H */
