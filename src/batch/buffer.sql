-- Buffered inserts.

CREATE TABLE perfopt.insert_spool (
    id bigint GENERATED ALWAYS AS IDENTITY,
    role regrole NOT NULL,
    target regclass NOT NULL,
    payload jsonb NOT NULL,
    spooled_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT '-infinity',
    sqlstate text,
    message text,
    PRIMARY KEY (role, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
COMMENT ON TABLE perfopt.insert_spool IS
'Rows of perfopt.buffer_insert() in mode durable, and those of mode lossy for which a lock was not to be had, that have not been inserted into their tables yet. Each role sees its own; what has been inserted, or rejected, is deleted.';
COMMENT ON COLUMN perfopt.insert_spool.role IS 'who put the row, and as whom it is inserted';
COMMENT ON COLUMN perfopt.insert_spool.target IS 'the table it is for';
COMMENT ON COLUMN perfopt.insert_spool.payload IS 'the row, its columns by name';
COMMENT ON COLUMN perfopt.insert_spool.attempts IS 'how often it has failed with an error that may pass, such as a lock that was not to be had, or may have ended its process';
COMMENT ON COLUMN perfopt.insert_spool.sqlstate IS 'SQLSTATE of the last such failure; message has its message';
ALTER TABLE perfopt.insert_spool ENABLE ROW LEVEL SECURITY;
CREATE POLICY insert_spool_own ON perfopt.insert_spool
    USING (role = pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole);
COMMENT ON POLICY insert_spool_own ON perfopt.insert_spool IS 'A role sees rows of its own only.';
-- Rows are written and deleted by perfopt's functions only, in the name of who
-- calls them: any other privilege would allow to forge rows or to lock the table.
GRANT SELECT ON perfopt.insert_spool TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('perfopt.insert_spool', '');
SELECT pg_catalog.pg_extension_config_dump('perfopt.insert_spool_id_seq', '');

CREATE FUNCTION perfopt.buffer_insert(target regclass, "row" jsonb, mode text DEFAULT 'ack') RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_buffer_insert';
COMMENT ON FUNCTION perfopt.buffer_insert(regclass, jsonb, text) IS
'Has the row, a jsonb object with a value for each column that is not to have its default, inserted into the table or view together with rows of other sessions, by a background process, as the calling role and under the settings the role gets when it logs in. Mode "ack" waits until the transaction that inserts it has committed, returns "inserted", or "skipped" when a trigger left it out, and raises the row''s own error. Mode "durable" writes it to perfopt.insert_spool in the calling transaction and returns "spooled": from its commit on, whatever happens, it will be inserted once, or be in perfopt.rejected_rows. Mode "lossy" keeps it in shared memory only and returns "buffered": it is lost when the server crashes before it was inserted, in perfopt.rejected_rows when it is rejected, and in perfopt.insert_spool, to be tried again, when a lock that it needs was not to be had. In modes ack and lossy the row is not part of the calling transaction, and stays when that is rolled back. Rows that nobody waits for are inserted when there are perfopt.batch_size of them for the table, or after perfopt.batch_max_wait. Raises active_sql_transaction in mode ack when the calling transaction has written something or locked the table, lock_not_available in mode ack when a lock was not to be had for a second, transaction_resolution_unknown when it is cancelled while the row is being inserted, or the process that inserted it was ended while it waited for synchronous standbys, program_limit_exceeded when the row is too large for the buffer, or, in mode durable, has more than 64 MB, configuration_limit_exceeded when the buffer is full, or no background process is to be had, for longer than perfopt.buffer_timeout, insufficient_privilege without the right to insert, feature_not_supported for temporary tables, invalid_authorization_specification for a role without LOGIN before PostgreSQL 17, and read_only_sql_transaction on a standby.';

CREATE FUNCTION perfopt.flush(target regclass DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_flush';
COMMENT ON FUNCTION perfopt.flush(regclass) IS
'Has the rows that the calling role has put by perfopt.buffer_insert() before, in all modes, inserted now, and waits until they are: those for the table, or all (null). For the owner of the table, and for superusers, also those of other roles. Returns how many rows that were, those rejected included. Rows of mode durable are taken for all tables, also those that wait for another attempt; a warning says how many of the caller''s still do after that. Raises active_sql_transaction when the calling transaction has written something or locked the table, and, when all other rows are in, the errors of perfopt.buffer_insert() for roles that cannot have their rows inserted.';

CREATE FUNCTION perfopt.list_insert_buffers(
        OUT datid oid, OUT role oid, OUT target oid, OUT mode text, OUT waiting bigint,
        OUT bytes bigint, OUT waiting_since timestamptz, OUT inserted bigint, OUT skipped bigint,
        OUT rejected bigint, OUT lost bigint, OUT flushes bigint, OUT last_flush timestamptz,
        OUT last_error text, OUT last_error_at timestamptz, OUT flusher_pid integer)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'perfopt_list_buffers';
COMMENT ON FUNCTION perfopt.list_insert_buffers() IS
'What shared memory has of buffered inserts, by OIDs, as the view perfopt.insert_buffers shows it. Raises an error when perfopt is not preloaded.';

-- Read as its caller, whom the policy of the spool shows rows of his own.
CREATE VIEW perfopt.insert_buffers WITH (security_invoker) AS
    SELECT d.datname, pg_catalog.pg_get_userbyid(b.role) AS rolname,
           CASE WHEN d.datname = pg_catalog.current_database()
                THEN b.target::pg_catalog.regclass::text ELSE b.target::text END AS target,
           b.mode, b.waiting, b.bytes, b.waiting_since, b.inserted, b.skipped, b.rejected,
           b.lost, b.flushes, b.last_flush, b.last_error, b.last_error_at, b.flusher_pid
      FROM (SELECT COALESCE(l.datid, s.datid) AS datid, COALESCE(l.role, s.role) AS role,
                   COALESCE(l.target, s.target) AS target, COALESCE(l.mode, s.mode) AS mode,
                   COALESCE(l.waiting, 0) + COALESCE(s.waiting, 0) AS waiting,
                   COALESCE(l.bytes, 0) + COALESCE(s.bytes, 0) AS bytes,
                   COALESCE(l.waiting_since, s.waiting_since) AS waiting_since,
                   COALESCE(l.inserted, 0) AS inserted, COALESCE(l.skipped, 0) AS skipped,
                   COALESCE(l.rejected, 0) AS rejected, COALESCE(l.lost, 0) AS lost,
                   COALESCE(l.flushes, 0) AS flushes, l.last_flush, l.last_error,
                   l.last_error_at, l.flusher_pid
              FROM perfopt.list_insert_buffers() AS l
                   FULL JOIN
                   (SELECT d.oid AS datid, p.role::oid AS role, p.target::oid AS target,
                           'durable'::text AS mode, pg_catalog.count(*) AS waiting,
                           pg_catalog.sum(pg_catalog.pg_column_size(p.payload)) AS bytes,
                           pg_catalog.min(p.spooled_at) AS waiting_since
                      FROM perfopt.insert_spool AS p, pg_catalog.pg_database AS d
                     WHERE d.datname = pg_catalog.current_database()
                     GROUP BY 1, 2, 3) AS s
                   USING (datid, role, target, mode)) AS b
           LEFT JOIN pg_catalog.pg_database AS d ON d.oid = b.datid;
GRANT SELECT ON perfopt.insert_buffers TO PUBLIC;
COMMENT ON VIEW perfopt.insert_buffers IS
'Buffered inserts by database, role, table and mode: of roles whose privileges the caller has, or all for members of pg_read_all_stats; rows of mode durable that wait are those of this database that the caller may see in perfopt.insert_spool. waiting rows, their bytes, and since when the oldest one waits. Since the server start: inserted; skipped by a trigger; rejected, with their errors; lost, as nobody could insert them and nobody waited for them. What a crash has lost is not in it, as it begins anew then: that is at most what was waiting in mode lossy. flushes of the table, of all modes, are transactions. last_error is that of the last row rejected. flusher_pid is the process that inserts the role''s rows, if there is one. target is an OID for tables of other databases. Rows without database, role and target are the sums of those that made way: a role has 32 tables at a time, and there is room for 64 roles and databases.';
