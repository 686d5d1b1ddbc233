-- cache

-- tracked tables

CREATE FUNCTION perfopt.cache_mark() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_cache_mark';
COMMENT ON FUNCTION perfopt.cache_mark() IS
'Trigger function that tells the result cache which rows were written; its arguments are names of key columns. perfopt.cache_track() creates the trigger. Raises an error when it is not fired AFTER ROW.';

CREATE FUNCTION perfopt.cache_track(target regclass, key_columns name[] DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_cache_track';
COMMENT ON FUNCTION perfopt.cache_track(regclass, name[]) IS
'Tracks a table, with its partitions and the tables that inherit from it, so that results read from it can be cached: creates a trigger on it, under a SHARE ROW EXCLUSIVE lock. A write then drops only results about the same values of key columns, up to 8; NULL: the columns of its single-column primary and foreign keys; {}: none. Columns of an earlier call are replaced. Raises insufficient_privilege unless the caller owns all these tables, wrong_object_type for a temporary or foreign table, a view or a system catalog, undefined_column and feature_not_supported for columns that cannot be keys, and duplicate_object when another trigger has the name.';

CREATE FUNCTION perfopt.cache_untrack(target regclass) RETURNS void
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_cache_untrack';
COMMENT ON FUNCTION perfopt.cache_untrack(regclass) IS
'Takes back perfopt.cache_track(). Results read from the table are no longer cached, until perfopt.cache_track(), or the next cached query of the table''s owner, tracks it again. Raises insufficient_privilege unless the caller owns the table and those that inherit from it, and object_not_in_prerequisite_state when a partition is tracked with its partitioned table.';

CREATE FUNCTION perfopt.cache_invalidate(target regclass) RETURNS void
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_cache_invalidate';
COMMENT ON FUNCTION perfopt.cache_invalidate(regclass) IS
'Drops all results read from the table or view, its partitions and the tables that inherit from it, once this transaction commits. Never needed for what statements write. Raises insufficient_privilege without the privilege to select from it.';

CREATE FUNCTION perfopt.cache_key_columns(arguments bytea) RETURNS name[]
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'perfopt_cache_key_columns';
COMMENT ON FUNCTION perfopt.cache_key_columns(bytea) IS
'The arguments of a trigger, as pg_catalog.pg_trigger keeps them in tgargs, as an array.';

CREATE VIEW perfopt.cache_tracked AS
    SELECT t.tgrelid::pg_catalog.regclass AS relation, perfopt.cache_key_columns(t.tgargs) AS key_columns,
        t.tgenabled OPERATOR(pg_catalog.=) 'A' AS enabled
    FROM pg_catalog.pg_trigger t
    WHERE t.tgfoid OPERATOR(pg_catalog.=) 'perfopt.cache_mark()'::pg_catalog.regprocedure;
COMMENT ON VIEW perfopt.cache_tracked IS
'Tables of this database that are tracked for the result cache, partitions each for itself, with their key columns. Not enabled: results read from it are not cached until ALTER TABLE ... ENABLE ALWAYS TRIGGER, or perfopt.cache_track() again.';
GRANT SELECT ON perfopt.cache_tracked TO PUBLIC;

-- cached queries

CREATE FUNCTION perfopt.cached(
	query text,
	params record DEFAULT NULL,
	ttl interval DEFAULT '1 hour',
	refresh_ahead interval DEFAULT NULL,
	key_prefix text DEFAULT '')
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'perfopt_cached'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION perfopt.cached(text, record, interval, interval, text) IS
'The rows of a SELECT, from the cache or computed and put there; always what the query itself would return now. params holds the values of $1, $2 ..., as in ROW(42), or ROW($1::bigint) for what has no type yet. A table without trigger gets one when the caller owns it, under a SHARE ROW EXCLUSIVE lock, and that call is not kept. ttl: how long the result is kept at most (null: one hour). refresh_ahead: when used so shortly before its end, it is computed anew in the background. key_prefix: what perfopt.cache_clear() finds it by. The columns are to be named with their types: AS t(id bigint, name text). Raises feature_not_supported when the query may not be cached, with the reason; datatype_mismatch when the columns do not fit; invalid_parameter_value for a ttl of zero or less; object_not_in_prerequisite_state when a table has no trigger and the caller does not own it.';

CREATE FUNCTION perfopt.cached_json(
	query text,
	params record DEFAULT NULL,
	ttl interval DEFAULT '1 hour',
	refresh_ahead interval DEFAULT NULL,
	key_prefix text DEFAULT '')
RETURNS jsonb
AS 'MODULE_PATHNAME', 'perfopt_cached_json'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION perfopt.cached_json(text, record, interval, interval, text) IS
'The same as perfopt.cached(), as a JSON array with an object for each row; an empty one without rows. Needs no list of columns.';

-- keys and values

CREATE FUNCTION perfopt.cache_get(key text) RETURNS jsonb
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'perfopt_cache_get';
COMMENT ON FUNCTION perfopt.cache_get(text) IS
'The value that the calling role keeps under the key in this database, or null. Values are those whose transactions the snapshot sees, and this transaction''s own. Any of them may be gone before its time: the cache is bounded memory, empty after a start, and not used in SERIALIZABLE transactions or on a standby, where this returns null. Raises invalid_parameter_value for a key of more than 1,024 bytes.';

CREATE FUNCTION perfopt.cache_set(key text, value jsonb, ttl interval DEFAULT '1 hour') RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_cache_set';
COMMENT ON FUNCTION perfopt.cache_set(text, jsonb, interval) IS
'Keeps a value under the key, for the calling role in this database, for ttl (null: one hour) from now on. Others see it from this transaction''s commit on; when it rolls back, or is prepared for two-phase commit, nothing is kept. Does nothing on a standby. Raises null_value_not_allowed for a key or value that is null, and invalid_parameter_value for a key of more than 1,024 bytes or a ttl that is not greater than zero.';

CREATE FUNCTION perfopt.cache_delete(key text) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_cache_delete';
COMMENT ON FUNCTION perfopt.cache_delete(text) IS
'Deletes the value that the calling role keeps under the key, for others from this transaction''s commit on, and returns whether perfopt.cache_get() would have found one. Raises invalid_parameter_value for a key of more than 1,024 bytes.';

CREATE FUNCTION perfopt.cache_ttl(key text) RETURNS interval
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'perfopt_cache_ttl';
COMMENT ON FUNCTION perfopt.cache_ttl(text) IS
'How long the value that perfopt.cache_get() finds under the key is still kept, at most; null when it finds none. Raises invalid_parameter_value for a key of more than 1,024 bytes.';

CREATE FUNCTION perfopt.cache_get_or_compute(key text, query text, params record DEFAULT NULL,
                                             ttl interval DEFAULT '1 hour',
                                             refresh_ahead interval DEFAULT NULL)
    RETURNS jsonb
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_cache_get_or_compute';
COMMENT ON FUNCTION perfopt.cache_get_or_compute(text, text, record, interval, interval) IS
'The value under the key; when there is none, the rows of the query, with the fields of params as $1, $2 ..., as a jsonb array, which is then kept under the key for ttl (null: one hour), or until a table it read changes or the key is set or deleted. One session computes, the others wait for it. A result of another query, or of a session with other settings, is computed anew and takes the place. With refresh_ahead, in the last such part of its time one caller now and then computes it anew, in his own call, while others are given what there is. Raises feature_not_supported for queries that may not be cached, and what perfopt.cache_set() does for key and ttl.';

CREATE FUNCTION perfopt.cache_write_through(key text, value jsonb, statement text, params record DEFAULT NULL,
                                            ttl interval DEFAULT '1 hour')
    RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_cache_write_through';
COMMENT ON FUNCTION perfopt.cache_write_through(text, jsonb, text, record, interval) IS
'Runs the statement as the caller, with the fields of params as $1, $2 ..., and keeps the value under the key as perfopt.cache_set() does: both in this transaction, so that others see both or neither. Returns the number of rows the statement processed. Raises the statement''s errors, syntax_error unless it is exactly one, and those of perfopt.cache_set().';

CREATE TABLE perfopt.cache_writes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    role regrole NOT NULL DEFAULT pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole,
    key text NOT NULL,
    statement text NOT NULL,
    parameter_types regtype[] NOT NULL,
    parameters text[] NOT NULL,
    settings text NOT NULL,
    queued_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    failed_at timestamptz,
    sqlstate text,
    message text,
    done boolean NOT NULL DEFAULT false
);
CREATE INDEX cache_writes_waiting ON perfopt.cache_writes (role, id) WHERE failed_at IS NULL AND NOT done;
CREATE INDEX cache_writes_done ON perfopt.cache_writes (id) WHERE done;
COMMENT ON TABLE perfopt.cache_writes IS
'Statements of perfopt.cache_write_behind() that have not been run yet, or have failed five times (failed_at). Each role sees its own; set attempts = 0, next_attempt_at = now() and failed_at = NULL to have one tried again, done = true to give it up.';
COMMENT ON COLUMN perfopt.cache_writes.role IS 'who queued the statement, and as whom it is run';
COMMENT ON COLUMN perfopt.cache_writes.key IS 'the key whose value was set with it';
COMMENT ON COLUMN perfopt.cache_writes.settings IS 'settings the statement is run under, name=value, a line each';
COMMENT ON COLUMN perfopt.cache_writes.attempts IS 'how often it has failed';
COMMENT ON COLUMN perfopt.cache_writes.sqlstate IS 'SQLSTATE of the last failure; message has its message';
COMMENT ON COLUMN perfopt.cache_writes.done IS 'it has been run, or given up; the worker deletes the row';
ALTER TABLE perfopt.cache_writes ENABLE ROW LEVEL SECURITY;
CREATE POLICY cache_writes_own ON perfopt.cache_writes
    USING (role = pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole);
COMMENT ON POLICY cache_writes_own ON perfopt.cache_writes IS 'A role sees and changes rows of its own only.';
-- Not the role, nor later what is to be run: also not for those who bypass the policy.
-- But for SELECT nothing on the whole table, which would allow LOCK TABLE.
GRANT SELECT, INSERT (key, statement, parameter_types, parameters, settings),
      UPDATE (attempts, next_attempt_at, failed_at, sqlstate, message, done)
    ON perfopt.cache_writes TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('perfopt.cache_writes', 'WHERE NOT done');
SELECT pg_catalog.pg_extension_config_dump('perfopt.cache_writes_id_seq', '');

CREATE FUNCTION perfopt.cache_write_behind(key text, value jsonb, statement text, params record DEFAULT NULL,
                                           ttl interval DEFAULT '1 hour')
    RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_cache_write_behind';
COMMENT ON FUNCTION perfopt.cache_write_behind(text, jsonb, text, record, interval) IS
'Keeps the value under the key as perfopt.cache_set() does, and queues the statement in perfopt.cache_writes, durably with this transaction: readers of the key have the value from the commit on, the tables change when the worker has run the statement, with the fields of params as $1, $2 ... and the settings of this session. Statements of a role run in the order of their ids, one at a time, each exactly once. One that fails, or takes longer than perfopt.cache_job_timeout, is tried again after 1, 4, 16 and 64 s, then left in perfopt.cache_writes. Returns its id there. Raises syntax_error unless it is exactly one statement, invalid_authorization_specification for a role without LOGIN before PostgreSQL 17, and the errors of perfopt.cache_set().';

-- memoized functions

CREATE FUNCTION perfopt.memoize_support(internal) RETURNS internal
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'perfopt_memoize_support';
COMMENT ON FUNCTION perfopt.memoize_support(internal) IS
'Planner support of memoized functions: puts perfopt.memoized_call() in the place of a call.';

CREATE FUNCTION perfopt.memoized_call(result anyelement, VARIADIC arguments "any") RETURNS anyelement
    LANGUAGE c STABLE PARALLEL RESTRICTED COST 10 AS 'MODULE_PATHNAME', 'perfopt_memoized_call';
COMMENT ON FUNCTION perfopt.memoized_call(anyelement, "any") IS
'Stands in plans for the call of a memoized function: after a null of the result''s type come the function, as a constant of type regprocedure, and the arguments of the call. Raises feature_not_supported for anything else, and insufficient_privilege without the right to execute the function.';

CREATE FUNCTION perfopt.memoize(function regprocedure, ttl interval DEFAULT '1 hour') RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_memoize';
COMMENT ON FUNCTION perfopt.memoize(regprocedure, interval) IS
'From now on, calls of the function are answered from the cache: its result is kept for each role, session settings and arguments for ttl (null: one hour), or until a table it read changes. A function that reads a table without perfopt''s trigger is always called. It depends on what else the function reads, such as the time, that ttl suits it. Calls that are part of an index, a constraint and the like are not replaced. Replacing the function ends it; DROP EXTENSION perfopt needs perfopt.unmemoize() before, as its CASCADE drops the function; restoring a dump of the function takes a superuser. Raises insufficient_privilege unless the caller owns the function, feature_not_supported for one that is VOLATILE, returns a set, or has pseudo-types as arguments or result, and object_not_in_prerequisite_state for one with another support function.';

CREATE FUNCTION perfopt.unmemoize(function regprocedure) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_unmemoize';
COMMENT ON FUNCTION perfopt.unmemoize(regprocedure) IS
'Undoes perfopt.memoize(). Raises insufficient_privilege unless the caller owns the function, and object_not_in_prerequisite_state when it is not memoized.';

CREATE VIEW perfopt.memoized_functions AS
    SELECT p.oid::pg_catalog.regprocedure AS function,
           pg_catalog.substr(s.setting, pg_catalog.length('perfopt.memoize_ttl=') + 1) AS ttl
    FROM pg_catalog.pg_proc p
         LEFT JOIN LATERAL pg_catalog.unnest(p.proconfig) AS s(setting)
         ON pg_catalog.starts_with(s.setting, 'perfopt.memoize_ttl=')
    WHERE p.prosupport = 'perfopt.memoize_support(internal)'::pg_catalog.regprocedure;
COMMENT ON VIEW perfopt.memoized_functions IS
'Functions of this database that perfopt.memoize() was called for, and for how long their results are kept: in seconds, unless a unit follows.';
GRANT SELECT ON perfopt.memoized_functions TO PUBLIC;

-- what is in the cache

CREATE FUNCTION perfopt.cache_counters(
        OUT hits bigint, OUT local_hits bigint, OUT misses bigint, OUT fills bigint,
        OUT evictions bigint, OUT oversized bigint, OUT expired bigint, OUT invalidated bigint,
        OUT waits bigint, OUT refreshes bigint, OUT entries bigint, OUT bytes bigint,
        OUT size_limit bigint, OUT saved_ms double precision, OUT since timestamp with time zone)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'perfopt_sql_cache_counters';
COMMENT ON FUNCTION perfopt.cache_counters() IS
'Counters of the result cache of the whole server; bytes and size_limit in bytes, saved_ms in milliseconds. See the view perfopt.cache_stats. Raises an error when perfopt is not preloaded.';

CREATE FUNCTION perfopt.cache_bypasses(OUT reason text, OUT calls bigint)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'perfopt_sql_cache_bypasses';
COMMENT ON FUNCTION perfopt.cache_bypasses() IS
'How many calls went past the result cache, or were not kept by it, for each reason there is. Raises an error when perfopt is not preloaded.';

CREATE VIEW perfopt.cache_stats AS
    SELECT c.hits, c.local_hits, c.misses, b.bypasses, b.bypasses_by_reason, c.fills,
           c.evictions, c.oversized, c.expired, c.invalidated, c.waits, c.refreshes,
           c.entries, c.bytes, c.size_limit,
           c.hits::double precision / NULLIF(c.hits + c.misses + b.bypasses, 0) AS hit_ratio,
           pg_catalog.make_interval(secs => c.saved_ms / 1000) AS time_saved,
           c.since
      FROM perfopt.cache_counters() AS c,
           (SELECT pg_catalog.sum(calls)::bigint AS bypasses,
                   COALESCE(pg_catalog.jsonb_object_agg(reason, calls) FILTER (WHERE calls > 0),
                            '{}'::jsonb) AS bypasses_by_reason
              FROM perfopt.cache_bypasses()) AS b;
GRANT SELECT ON perfopt.cache_stats TO PUBLIC;
COMMENT ON VIEW perfopt.cache_stats IS
'The result cache of the whole server since the server start or the last perfopt.cache_stats_reset(), in one row. hits include local_hits, answered from the session''s own memory. bypasses went past the cache, bypasses_by_reason says why. evictions made room for others; oversized were too large to be kept; expired and invalidated were found and no longer valid. waits were for another session computing the same. bytes are those of the entries there are, size_limit is perfopt.cache_size in bytes, less than a tenth of which is not for entries. hit_ratio is the part of all calls answered from the cache. time_saved is what computing the hits again would have taken.';

CREATE FUNCTION perfopt.cache_entries_here(
        OUT face text, OUT role oid, OUT key_prefix text, OUT query text, OUT bytes bigint,
        OUT rows bigint, OUT hits bigint, OUT cost_ms double precision,
        OUT filled_at timestamp with time zone, OUT expires_at timestamp with time zone,
        OUT relations regclass[], OUT current boolean)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'perfopt_sql_cache_entries';
COMMENT ON FUNCTION perfopt.cache_entries_here() IS
'Entries of the result cache that belong to this database, as the view perfopt.cache_entries shows them. Raises an error when perfopt is not preloaded.';

CREATE VIEW perfopt.cache_entries AS
    SELECT e.face, pg_catalog.pg_get_userbyid(e.role) AS rolname, e.key_prefix, e.query,
           e.bytes, e.rows, e.hits, e.cost_ms, e.filled_at, e.expires_at, e.relations, e.current
      FROM perfopt.cache_entries_here() AS e;
GRANT SELECT ON perfopt.cache_entries TO PUBLIC;
COMMENT ON VIEW perfopt.cache_entries IS
'Entries of the result cache of this database: of roles whose privileges the caller has, or all for members of pg_read_all_stats; never their values. key_prefix is the key of face key-value, and what was given as key prefix otherwise; it and query are cut to 1 kB. bytes are those of the whole entry. hits are since filled_at; those of sessions'' own copies arrive in batches. cost_ms is what computing it took. expires_at is NULL for entries that do not expire. current says whether it would be a hit for the caller''s snapshot now.';

CREATE FUNCTION perfopt.cache_clear() RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'perfopt_sql_cache_clear';
COMMENT ON FUNCTION perfopt.cache_clear() IS
'Removes the entries of the calling role in this database from the result cache, and all of the database for superusers. Returns how many those were. Copies in other sessions and results being computed go when the transaction commits; until then it goes past the cache. Raises an error when perfopt is not preloaded.';

CREATE FUNCTION perfopt.cache_invalidate_prefix(prefix text) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'perfopt_sql_cache_invalidate_prefix';
COMMENT ON FUNCTION perfopt.cache_invalidate_prefix(text) IS
'Removes the entries of the calling role in this database whose key prefix, or key, begins with that text, from the result cache. Returns how many those were. Copies in other sessions and results being computed go when the transaction commits, and with them those of the role''s other entries; until then it goes past the cache. Raises an error when the prefix is empty or perfopt is not preloaded.';

CREATE FUNCTION perfopt.cache_stats_reset() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'perfopt_sql_cache_stats_reset';
REVOKE ALL ON FUNCTION perfopt.cache_stats_reset() FROM PUBLIC;
COMMENT ON FUNCTION perfopt.cache_stats_reset() IS
'Sets the counters of perfopt.cache_stats to zero, for the whole server. For superusers, and roles granted EXECUTE. Raises an error when perfopt is not preloaded.';
