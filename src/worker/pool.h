#ifndef PERFOPT_POOL_H
#define PERFOPT_POOL_H

#include "postgres.h"

extern void worker_pool_init(void);
extern void worker_pool_launcher_start(void);
extern int64 worker_pool_dispatch(int64 now, bool enabled);

#endif							/* PERFOPT_POOL_H */
