/*
 * advisor.c
 *		Index advice: puts its parts to work.
 */
#include "postgres.h"

#include "advisor/advisor.h"

#include "advisor/advisor_internal.h"
#include "advisor/survey_internal.h"

void
perfopt_advisor_init(void)
{
	perfopt_plan_samples_init();
	perfopt_what_if_init();
	perfopt_rounds_init();
	perfopt_survey_init();
	perfopt_apply_init();
	perfopt_verify_init();
}
