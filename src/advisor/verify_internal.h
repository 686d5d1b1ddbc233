/*
 * verify_internal.h
 *		What verify.c and verify_begin.c share.
 */
#ifndef PERFOPT_VERIFY_INTERNAL_H
#define PERFOPT_VERIFY_INTERNAL_H

#include "postgres.h"

/* Inside SPI: an error unless it is what is expected. */
extern void perfopt_verify_execute(const char *sql, int nargs, Oid *types, Datum *values,
								   int expected);

#endif							/* PERFOPT_VERIFY_INTERNAL_H */
