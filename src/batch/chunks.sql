-- Chunked work on large tables.

-- One row a call of run_in_batches().
CREATE TABLE perfopt.batch_job (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    role regrole NOT NULL DEFAULT pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole,
    target regclass NOT NULL,
    target_name text NOT NULL,
    target_file oid,
    key name[] NOT NULL,
    key_types text[] NOT NULL,
    statement text NOT NULL,
    settings text NOT NULL,
    -- limits are those of run_in_batches(), as roles could insert rows without it
    batch_size integer NOT NULL CHECK (batch_size BETWEEN 1 AND 10000000),
    workers integer NOT NULL CHECK (workers BETWEEN 1 AND 1000),
    chunk_ms float8 NOT NULL CHECK (chunk_ms BETWEEN 1 AND 1073741823),
    lock_ms integer NOT NULL CHECK (lock_ms BETWEEN 0 AND 1073741823),
    lag_ms float8 CHECK (lag_ms BETWEEN 1 AND 1073741823),
    max_attempts integer NOT NULL CHECK (max_attempts BETWEEN 1 AND 1000),
    max_failed integer NOT NULL CHECK (max_failed >= 0),
    last_key text[],
    estimated_rows float8 NOT NULL CHECK (estimated_rows BETWEEN 0 AND 1e15),
    origin text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    -- what changes
    state text NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'paused', 'done', 'failed', 'cancelled')),
    resumed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
        CHECK (resumed_at BETWEEN timestamptz '2000-01-01 UTC' AND timestamptz '3000-01-01 UTC'),
    finished_at timestamptz
        CHECK (finished_at BETWEEN timestamptz '2000-01-01 UTC' AND timestamptz '3000-01-01 UTC'),
    position text[],
    exhausted boolean NOT NULL DEFAULT false,
    booted timestamptz,
    deaths integer NOT NULL DEFAULT 0 CHECK (deaths >= 0),
    chunk_size integer NOT NULL CHECK (chunk_size BETWEEN 1 AND 100000000),
    sqlstate text CHECK (sqlstate OPERATOR(pg_catalog.~) '^[0-9A-Z]{5}$'),
    message text,
    UNIQUE (role, id),
    CHECK (pg_catalog.cardinality(key) >= 1 AND pg_catalog.cardinality(key) <= 32 AND pg_catalog.array_position(key, NULL) IS NULL
        AND pg_catalog.cardinality(key_types) = pg_catalog.cardinality(key)),
    CHECK (pg_catalog.cardinality(last_key) = pg_catalog.cardinality(key)
        AND pg_catalog.array_position(last_key, NULL) IS NULL),
    CHECK (pg_catalog.cardinality(position) = pg_catalog.cardinality(key)
        AND pg_catalog.array_position(position, NULL) IS NULL)
);
-- what the duty looks for, role by role: no role's rows keep it from another's
CREATE INDEX batch_job_running ON perfopt.batch_job (role, id) WHERE state = 'running';
CREATE INDEX batch_job_ended ON perfopt.batch_job (role, finished_at) WHERE state NOT IN ('running', 'paused');
COMMENT ON TABLE perfopt.batch_job IS
'Calls of perfopt.run_in_batches(), see the view perfopt.batch_jobs. Each role sees its own. They are kept for a week after they have ended.';
COMMENT ON COLUMN perfopt.batch_job.role IS 'who called, and as whom the statement is run';
COMMENT ON COLUMN perfopt.batch_job.target_file IS 'of a table cut by ctid: its file, as rows have other ctids when it is written anew';
COMMENT ON COLUMN perfopt.batch_job.key IS 'columns by whose order the table is cut, or {ctid}';
COMMENT ON COLUMN perfopt.batch_job.key_types IS 'their types and collations, on which the order depends';
COMMENT ON COLUMN perfopt.batch_job.settings IS 'settings the statement is run under, name=value, a line each';
COMMENT ON COLUMN perfopt.batch_job.last_key IS 'the last key when the job began: later ones are not worked on';
COMMENT ON COLUMN perfopt.batch_job.origin IS 'server and database the job was last started in; it is paused where it was restored from a dump';
COMMENT ON COLUMN perfopt.batch_job.position IS 'the table is cut into chunks up to this key';
COMMENT ON COLUMN perfopt.batch_job.exhausted IS 'the whole table is cut';
COMMENT ON COLUMN perfopt.batch_job.booted IS 'start of the server in whose run the table was cut last';
COMMENT ON COLUMN perfopt.batch_job.deaths IS 'how many runs of the server have ended since a chunk was cut';
COMMENT ON COLUMN perfopt.batch_job.chunk_size IS 'rows of the next chunk';

CREATE TABLE perfopt.batch_chunk (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job bigint NOT NULL,
    role regrole NOT NULL DEFAULT pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole,
    -- nobody has a chunk in another's job
    FOREIGN KEY (job, role) REFERENCES perfopt.batch_job (id, role) ON DELETE CASCADE,
    lower_bound text[] NOT NULL,
    upper_bound text[] NOT NULL,
    keys bigint NOT NULL CHECK (keys BETWEEN 0 AND 1000000000000),
    -- what changes
    state text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'done', 'failed', 'split')),
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    booted timestamptz,
    pid integer,
    deaths integer NOT NULL DEFAULT 0 CHECK (deaths >= 0),
    ends integer NOT NULL DEFAULT 0 CHECK (ends >= 0),
    next_attempt_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    rows bigint CHECK (rows >= 0),
    duration_ms float8 CHECK (duration_ms BETWEEN 0 AND 1e15),
    finished_at timestamptz,
    sqlstate text CHECK (sqlstate OPERATOR(pg_catalog.~) '^[0-9A-Z]{5}$'),
    message text,
    xid xid8
);
CREATE INDEX batch_chunk_job_state ON perfopt.batch_chunk (job, state, id);
COMMENT ON TABLE perfopt.batch_chunk IS
'Chunks of the jobs in perfopt.batch_job: the statement was run for those that are done, each in the transaction that marked it so. Each role sees its own.';
COMMENT ON COLUMN perfopt.batch_chunk.lower_bound IS 'the first key of the chunk; upper_bound has the last one';
COMMENT ON COLUMN perfopt.batch_chunk.keys IS 'rows of the table within the bounds when the chunk was cut; of a key that is not unique, some more can have the last key; of tables cut by ctid, an estimate';
COMMENT ON COLUMN perfopt.batch_chunk.attempts IS 'how often it has failed';
COMMENT ON COLUMN perfopt.batch_chunk.state IS 'pending, done, failed (set aside), or split: two others have its rows';
COMMENT ON COLUMN perfopt.batch_chunk.booted IS 'start of the server in whose run it was begun; null when nobody is at it';
COMMENT ON COLUMN perfopt.batch_chunk.pid IS 'the process that has begun it in that run';
COMMENT ON COLUMN perfopt.batch_chunk.ends IS 'how many processes have ended, but not with the server, while they were at work at it: after five it is set aside';
COMMENT ON COLUMN perfopt.batch_chunk.deaths IS 'how many runs of the server have ended while it was at work: after three it is set aside';
COMMENT ON COLUMN perfopt.batch_chunk.rows IS 'rows the statement has processed';
COMMENT ON COLUMN perfopt.batch_chunk.duration_ms IS 'how long the statement took';
COMMENT ON COLUMN perfopt.batch_chunk.sqlstate IS 'SQLSTATE of the last failure; message has its message';
COMMENT ON COLUMN perfopt.batch_chunk.xid IS 'of a table cut by ctid: who wrote rows, which are not to be written again elsewhere';

ALTER TABLE perfopt.batch_job ENABLE ROW LEVEL SECURITY;
ALTER TABLE perfopt.batch_chunk ENABLE ROW LEVEL SECURITY;
CREATE POLICY batch_job_own ON perfopt.batch_job
    USING (role = (SELECT pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole));
CREATE POLICY batch_chunk_own ON perfopt.batch_chunk
    USING (role = (SELECT pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole));
COMMENT ON POLICY batch_job_own ON perfopt.batch_job IS 'A role sees and changes rows of its own only.';
COMMENT ON POLICY batch_chunk_own ON perfopt.batch_chunk IS 'A role sees and changes rows of its own only.';
CREATE POLICY batch_job_stats ON perfopt.batch_job FOR SELECT TO pg_read_all_stats USING (true);
CREATE POLICY batch_chunk_stats ON perfopt.batch_chunk FOR SELECT TO pg_read_all_stats USING (true);
COMMENT ON POLICY batch_job_stats ON perfopt.batch_job IS 'Who may see all statistics sees all jobs.';
COMMENT ON POLICY batch_chunk_stats ON perfopt.batch_chunk IS 'Who may see all statistics sees all chunks.';
-- Not the role, nor later what is to be run on what: also not for those who
-- bypass the policies.  But for SELECT nothing on a whole table, which would
-- allow LOCK TABLE.
GRANT SELECT,
      INSERT (target, target_name, target_file, key, key_types, statement, settings, batch_size, workers, chunk_ms, lock_ms,
              lag_ms, max_attempts, max_failed, last_key, estimated_rows, origin, chunk_size),
      UPDATE (state, resumed_at, finished_at, position, exhausted, booted, deaths, chunk_size, sqlstate, message, origin)
    ON perfopt.batch_job TO PUBLIC;
GRANT SELECT,
      INSERT (job, lower_bound, upper_bound, keys, booted, pid, next_attempt_at),
      UPDATE (state, attempts, booted, pid, deaths, ends, next_attempt_at, rows, duration_ms, finished_at, sqlstate, message, xid)
    ON perfopt.batch_chunk TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('perfopt.batch_job', '');
SELECT pg_catalog.pg_extension_config_dump('perfopt.batch_job_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('perfopt.batch_chunk', '');
SELECT pg_catalog.pg_extension_config_dump('perfopt.batch_chunk_id_seq', '');

CREATE PROCEDURE perfopt.run_in_batches(
        target regclass, statement text DEFAULT NULL, set_list text DEFAULT NULL, where_clause text DEFAULT NULL,
        batch_size integer DEFAULT 10000, workers integer DEFAULT 10, key name[] DEFAULT NULL,
        chunk_duration interval DEFAULT '1 s', max_lock_wait interval DEFAULT '1 s',
        max_replication_lag interval DEFAULT NULL, max_attempts integer DEFAULT 3,
        max_failed integer DEFAULT 1000, wait boolean DEFAULT true, INOUT job bigint DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'perfopt_run_in_batches';
COMMENT ON PROCEDURE perfopt.run_in_batches(regclass, text, text, text, integer, integer, name[], interval, interval, interval, integer, integer, boolean, bigint) IS
'Does something to all rows of a table, chunk by chunk, each in a transaction of its own. What: a statement, in which $1 and $2 are the first and the last key of the chunk (of a key of n columns $1 to $n and the next n), or set_list, and where_clause if not all rows are meant: UPDATE target SET set_list WHERE where_clause. Chunks are ranges of key: columns that are NOT NULL and lead an index, and whose values the statement does not change; by default those of the primary key, else of the shortest unique index; else {ctid}. A chunk has batch_size rows at first, then so many, between 100 and ten times batch_size, as take chunk_duration. This session and background workers, workers in all, work at it as the calling role under its settings, wait at most max_lock_wait for a lock, and pause while a standby is more than max_replication_lag behind. A chunk that fails is tried max_attempts times if it was a lock, a deadlock or the like, then halved down to the single row, which goes to perfopt.batch_failed_chunks, as does a chunk at which the server has crashed three times, or five processes have ended; the job fails when there are more than max_failed (those set aside before batch_resume() not counted), or when the statement cannot be run at all. Rows that exist when the job begins are done exactly once, whatever is killed; rows added later may be. Returns the id of the job when it is done, with a WARNING when chunks failed, or with wait => false at once: then background workers do it, from the commit on. With wait it cannot be called in a transaction block. Cancelled by the client, the job is paused. Raises invalid_parameter_value and the like for arguments, feature_not_supported for a statement seen to move rows to other chunks (what triggers and functions do is not seen), the errors of the statement if it cannot be planned, and when the job has failed its error.';

CREATE PROCEDURE perfopt.batch_wait(job bigint)
    LANGUAGE c AS 'MODULE_PATHNAME', 'perfopt_batch_wait';
COMMENT ON PROCEDURE perfopt.batch_wait(bigint) IS
'Returns when the job is no longer running; works at it too, when it is of the calling role. Shows progress by NOTICE. Cannot be called in a transaction block. Cancelled, it only stops waiting: the job goes on in the background. Raises undefined_object when there is no such job, and the job''s error when it has failed.';

CREATE PROCEDURE perfopt.batch_help(job bigint)
    LANGUAGE c AS 'MODULE_PATHNAME', 'perfopt_batch_help';
COMMENT ON PROCEDURE perfopt.batch_help(bigint) IS
'Works at the job as one of its workers, until there is nothing left for it to do: this is what background workers of a job run. Raises undefined_object when the calling role has no such job.';

CREATE FUNCTION perfopt.batch_pause(job bigint) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_batch_pause';
COMMENT ON FUNCTION perfopt.batch_pause(bigint) IS
'Has no chunk of the job begun after this transaction''s commit, until perfopt.batch_resume(). Chunks at work are finished, and so is one whose transaction had begun just before. Raises undefined_object when there is no such job, and object_not_in_prerequisite_state when it is not running.';

CREATE FUNCTION perfopt.batch_resume(job bigint, retry_failed boolean DEFAULT false) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_batch_resume';
COMMENT ON FUNCTION perfopt.batch_resume(bigint, boolean) IS
'Has background workers go on with a job that is paused or has failed, from this transaction''s commit on; with retry_failed also with one that is done but for chunks that failed, and these are tried again. Those that failed before no longer count against max_failed. CALL perfopt.batch_wait() works along. Raises undefined_object when there is no such job, and object_not_in_prerequisite_state when it is cancelled or there is nothing to do.';

CREATE FUNCTION perfopt.batch_cancel(job bigint) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_batch_cancel';
COMMENT ON FUNCTION perfopt.batch_cancel(bigint) IS
'Ends the job for good with this transaction''s commit. Chunks at work, or whose transaction had begun just before, are finished, and what was done stays. Raises undefined_object when there is no such job, and object_not_in_prerequisite_state when it is over already.';

CREATE VIEW perfopt.batch_jobs WITH (security_invoker = true) AS
    SELECT j.id, j.target_name AS target, j.role, j.state, j.statement,
           c.rows_done, c.keys_done, e.keys_estimated::bigint AS keys_estimated,
           CASE WHEN j.state = 'done' THEN 100
                WHEN e.keys_estimated > 0
                THEN pg_catalog.round(least(99.9, 100.0::float8 * c.keys_done / e.keys_estimated)::numeric, 1)
           END AS percent,
           pg_catalog.round(r.rate) AS rows_per_second,
           CASE WHEN j.state = 'running' AND r.rate > 0
                THEN pg_catalog.make_interval(secs => least(pg_catalog.round(greatest(e.keys_estimated - c.keys_done, 0) / r.rate), 1e9))
           END AS time_left,
           c.chunks_done, c.chunks_pending, c.chunks_failed, c.errors,
           j.chunk_size AS batch_size,
           (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks l
             WHERE l.locktype = 'object' AND l.classid = 'perfopt.batch_job'::pg_catalog.regclass
               AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
               AND l.objid = (j.id % 4294967296)::text::pg_catalog.oid AND l.objsubid < 1000) AS workers,
           coalesce(j.sqlstate, f.sqlstate) AS last_sqlstate,
           coalesce(j.message, f.message) AS last_error,
           j.created_at AS started_at, j.finished_at
    FROM perfopt.batch_job j
         CROSS JOIN LATERAL (
            SELECT least(coalesce(pg_catalog.sum(k.rows), 0), 1e18)::bigint AS rows_done,
                   least(coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.state IN ('done', 'failed')), 0), 1e18)::bigint AS keys_done,
                   least(coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.state <> 'split'), 0), 1e18)::float8 AS keys_cut,
                   pg_catalog.count(*) FILTER (WHERE k.state = 'done') AS chunks_done,
                   pg_catalog.count(*) FILTER (WHERE k.state = 'pending') AS chunks_pending,
                   pg_catalog.count(*) FILTER (WHERE k.state = 'failed') AS chunks_failed,
                   coalesce(pg_catalog.sum(k.attempts), 0)::bigint AS errors,
                   pg_catalog.sum(k.keys) FILTER (WHERE k.state = 'done' AND k.finished_at > w.since) AS recent
              FROM (SELECT greatest(j.resumed_at, CASE WHEN j.state = 'running'
                               THEN pg_catalog.clock_timestamp() - interval '1 min' ELSE j.created_at END)) AS w(since)
                   LEFT JOIN perfopt.batch_chunk k ON k.job = j.id) c
         CROSS JOIN LATERAL (
            SELECT CASE WHEN j.exhausted THEN c.keys_cut ELSE greatest(j.estimated_rows, c.keys_cut) END) e(keys_estimated)
         CROSS JOIN LATERAL (
            SELECT c.recent / nullif(pg_catalog.date_part('epoch',
                       coalesce(j.finished_at, pg_catalog.clock_timestamp())
                       - greatest(j.resumed_at, CASE WHEN j.state = 'running'
                               THEN pg_catalog.clock_timestamp() - interval '1 min' ELSE j.created_at END)), 0) AS rate) r
         LEFT JOIN LATERAL (
            SELECT k.sqlstate, k.message FROM perfopt.batch_chunk k
             WHERE k.job = j.id AND k.message IS NOT NULL ORDER BY k.finished_at DESC NULLS LAST, k.id DESC LIMIT 1) f ON true;
COMMENT ON VIEW perfopt.batch_jobs IS
'Jobs of perfopt.run_in_batches(), each role''s own, and all for members of pg_read_all_stats: rows the statement has processed (rows_done), rows of the table that chunks cover (keys_done, percent), rows of the table a second within the last minute, the time left at that speed, chunks, failed attempts (errors), the present size of a chunk (batch_size), and how many processes are at work (workers).';
GRANT SELECT ON perfopt.batch_jobs TO PUBLIC;

CREATE VIEW perfopt.batch_failed_chunks WITH (security_invoker = true) AS
    SELECT k.job, k.id AS chunk, j.target_name AS target, j.key, k.lower_bound, k.upper_bound, k.keys, k.attempts,
           k.sqlstate, k.message, k.finished_at AS failed_at
    FROM perfopt.batch_chunk k JOIN perfopt.batch_job j ON j.id = k.job
    WHERE k.state = 'failed';
COMMENT ON VIEW perfopt.batch_failed_chunks IS
'Chunks of jobs of perfopt.run_in_batches() that were set aside, mostly of a single row: the key''s columns, the first and the last key, and the error. perfopt.batch_resume(job, true) tries them again.';
GRANT SELECT ON perfopt.batch_failed_chunks TO PUBLIC;
