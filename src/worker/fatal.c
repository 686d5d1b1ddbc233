/*
 * fatal.c
 *		Why a process of ours ended.
 *
 * A FATAL error runs straight to the process's exit: no PG_CATCH sees it, nor
 * an ERROR thrown outside of one.  Their messages do pass emit_log_hook, where
 * the last one is kept for the exit callback that reports it to whoever waits.
 * Process-local, no locks.
 */
#include "postgres.h"

#include "utils/elog.h"
#include "worker/worker_internal.h"

WorkerLastWords worker_last_words;

static emit_log_hook_type prev_emit_log_hook = NULL;

static void
keep_error(ErrorData *edata)
{
	if (edata->elevel >= ERROR && edata->message)
	{
		worker_last_words.sqlerrcode = edata->sqlerrcode;
		worker_copy_message(worker_last_words.message,
							sizeof(worker_last_words.message),
							edata->message);
	}
	if (prev_emit_log_hook)
		prev_emit_log_hook(edata);
}

/* Call once, when the process starts. */
void
worker_keep_last_words(void)
{
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = keep_error;
}
