#include "postgres.h"

#include "advisor/advisor.h"

void
perfopt_advisor_init(void)
{
}
