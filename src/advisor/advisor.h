/*
 * advisor.h
 *		Index advice.
 */
#ifndef PERFOPT_ADVISOR_H
#define PERFOPT_ADVISOR_H

extern void perfopt_advisor_init(void);

#endif							/* PERFOPT_ADVISOR_H */
