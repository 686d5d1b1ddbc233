#include "postgres.h"

#include "monitor/monitor.h"

void
perfopt_monitor_init(void)
{
}
