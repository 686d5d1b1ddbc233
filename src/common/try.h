/*
 * try.h
 *		Do something in a subtransaction, and have its error.
 */
#ifndef PERFOPT_TRY_H
#define PERFOPT_TRY_H

#include "postgres.h"

/*
 * Run action(arg) in a subtransaction and in the memory context given, which
 * nothing is reset or freed of.  Returns its error, in the caller's context, or
 * NULL.  What it has done to the database is undone after an error, and what it
 * has done with SPI, resources and settings is cleaned up.
 *
 * For what may fail without being the caller's failure.  Whether the error is
 * such a one, and a cancel is not, is for the caller to see: see ReThrowError().
 */
extern ErrorData *perfopt_try(MemoryContext context, void (*action) (void *arg), void *arg);

#endif							/* PERFOPT_TRY_H */
