/*
 * buffer_view.c
 *		What perfopt.insert_buffers shows.
 *
 * Locking: an owner is copied under its lock, one after the other, so the
 * result is a series of true moments, not one.
 */
#include "postgres.h"

#include "batch/buffer_internal.h"
#include "catalog/pg_authid.h"
#include "common/shmem.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(perfopt_list_buffers);

#define COLUMNS 16

static bool
was_used(const BufferQueue *queue, BufferMode mode)
{
	const BufferCounters *counters = &queue->counters[mode];

	return queue->rows_by_mode[mode] > 0 || counters->inserted > 0 || counters->skipped > 0 ||
		counters->rejected > 0 || counters->lost > 0;
}

/* Of queues that made way for others, owner is NULL. */
static void
put_queue(ReturnSetInfo *result, const BufferOwner *owner, const BufferQueue *queue,
		  BufferMode mode)
{
	Datum		values[COLUMNS] = {0};
	bool		nulls[COLUMNS] = {0};
	int			n = 0;

	nulls[0] = nulls[1] = nulls[2] = owner == NULL;
	values[n++] = ObjectIdGetDatum(owner ? owner->database : InvalidOid);
	values[n++] = ObjectIdGetDatum(owner ? owner->role : InvalidOid);
	values[n++] = ObjectIdGetDatum(queue->target);
	values[n++] = CStringGetTextDatum(buffer_mode_name(mode));
	values[n++] = Int64GetDatum(queue->rows_by_mode[mode]);
	values[n++] = Int64GetDatum(queue->bytes_by_mode[mode]);
	nulls[n] = queue->rows_by_mode[mode] == 0;
	values[n++] = TimestampTzGetDatum(queue->oldest_at);
	values[n++] = Int64GetDatum(queue->counters[mode].inserted);
	values[n++] = Int64GetDatum(queue->counters[mode].skipped);
	values[n++] = Int64GetDatum(queue->counters[mode].rejected);
	values[n++] = Int64GetDatum(queue->counters[mode].lost);
	values[n++] = Int64GetDatum(queue->flushes);
	nulls[n] = queue->last_flush == 0;
	values[n++] = TimestampTzGetDatum(queue->last_flush);
	nulls[n] = queue->last_error[0] == '\0';
	values[n++] = CStringGetTextDatum(queue->last_error);
	nulls[n] = queue->last_error_at == 0;
	values[n++] = TimestampTzGetDatum(queue->last_error_at);
	nulls[n] = owner == NULL || owner->flusher != FLUSHER_RUNNING;
	values[n++] = Int32GetDatum(owner ? owner->flusher_pid : 0);
	Assert(n == COLUMNS);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

Datum
perfopt_list_buffers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	BufferOwner *owner = palloc(sizeof(BufferOwner));
	bool		all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);

	perfopt_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < BUFFER_MAX_OWNERS; i++)
	{
		LWLockAcquire(buffer_owner_lock(i), LW_SHARED);
		memcpy(owner, buffer_owner(i), sizeof(BufferOwner));
		LWLockRelease(buffer_owner_lock(i));
		if (!OidIsValid(owner->database) ||
			(!all && !has_privs_of_role(GetUserId(), owner->role)))
			continue;
		for (int j = 0; j < BUFFER_MAX_QUEUES; j++)
			for (BufferMode mode = 0; mode < BUFFER_NUM_MODES; mode++)
				if (OidIsValid(owner->queues[j].target) && was_used(&owner->queues[j], mode))
					put_queue(result, owner, &owner->queues[j], mode);
	}
	if (all)
	{
		BufferQueue *forgotten = palloc0(sizeof(BufferQueue));

		buffer_forgotten(forgotten->counters);
		for (BufferMode mode = 0; mode < BUFFER_NUM_MODES; mode++)
			if (was_used(forgotten, mode))
				put_queue(result, NULL, forgotten, mode);
	}
	return (Datum) 0;
}
