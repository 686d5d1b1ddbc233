#include "postgres.h"
#include "worker/pool.h"
void worker_pool_init(void) {}
void worker_pool_launcher_start(void) {}
int64 worker_pool_dispatch(int64 now, bool enabled) { return now + 60000; }
