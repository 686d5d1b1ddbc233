/*
 * ttl.c
 *		How long results are kept: intervals as arguments.  A month has 30 days,
 *		and nothing is kept longer than a thousand years.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "utils/timestamp.h"

/* What is longer, or infinite, would overflow when added to a time. */
#define LONGEST_US	((double) 1000 * 366 * USECS_PER_DAY)

int64
cache_interval_us(const Interval *interval)
{
	double		us = (double) interval->time +
	(interval->day + (double) interval->month * DAYS_PER_MONTH) * USECS_PER_DAY;

	return (int64) Max(-1.0, Min(us, LONGEST_US));
}

int64
cache_ttl_argument(FunctionCallInfo fcinfo, int i)
{
	int64		us = PG_ARGISNULL(i) ? CACHE_DEFAULT_TTL_US :
	cache_interval_us(DatumGetIntervalP(PG_GETARG_DATUM(i)));

	if (us <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the time to live must be greater than zero")));
	return us;
}
