#include "postgres.h"

#include "worker/worker.h"

void
perfopt_worker_init(void)
{
}
