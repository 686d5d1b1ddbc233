-- advisor: index advice

CREATE TABLE perfopt.index_advice (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('create_index')),
    schema_name text NOT NULL,
    table_name text NOT NULL,
    column_names text[] NOT NULL,
    index_name text NOT NULL,
    ddl text NOT NULL,
    reason text NOT NULL,
    evidence jsonb NOT NULL,
    estimated_bytes bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('open', 'queued', 'applying', 'applied', 'failed', 'obsolete')),
    requested_by text,
    requested_at timestamptz,
    applied_at timestamptz,
    error text,
    first_seen timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_seen timestamptz NOT NULL DEFAULT pg_catalog.now(),
    UNIQUE (kind, schema_name, table_name, column_names)
);
COMMENT ON TABLE perfopt.index_advice IS
'Advice and what has become of it, by names so that it survives dump and restore. Written by the worker and by perfopt.apply_advice(); read it through perfopt.advice.';
SELECT pg_catalog.pg_extension_config_dump('perfopt.index_advice', '');
SELECT pg_catalog.pg_extension_config_dump('perfopt.index_advice_id_seq', '');
-- The evidence tells of all roles' statements.
GRANT SELECT ON perfopt.index_advice TO pg_read_all_stats;

CREATE VIEW perfopt.advice AS
    SELECT id, kind,
           pg_catalog.format('%I.%I', schema_name, table_name) AS relation,
           ddl, reason, evidence, estimated_bytes, status, error, first_seen, last_seen, applied_at
    FROM perfopt.index_advice;
COMMENT ON VIEW perfopt.advice IS
'What perfopt advises: the statement to run, the reason in a sentence, the evidence (statements with calls, mean time, share of the statement time from 0 to 1, plan cost before and after), the size expected in bytes, and the status: open, queued, applying, applied, failed (error says why) or obsolete, with the time it was applied. For members of pg_read_all_stats.';
GRANT SELECT ON perfopt.advice TO pg_read_all_stats;

CREATE FUNCTION perfopt.analyze_now() RETURNS integer
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_analyze_now';
COMMENT ON FUNCTION perfopt.analyze_now() IS
'Has the worker of this database do a round of the index advisor now, waits for it, and returns the number of open advices in perfopt.advice. For members of pg_read_all_stats. Raises an error without a worker, or with the round''s own error.';
REVOKE ALL ON FUNCTION perfopt.analyze_now() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION perfopt.analyze_now() TO pg_read_all_stats;

CREATE FUNCTION perfopt.apply_advice(id bigint) RETURNS text
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_apply_advice';
COMMENT ON FUNCTION perfopt.apply_advice(bigint) IS
'Asks for the index of an advice of perfopt.advice to be built concurrently, in the background, as the calling role, after this transaction commits; returns what was queued. The status in perfopt.advice becomes queued, applying, then applied or failed; a failed build leaves no invalid index and may be asked for again. Raises insufficient_privilege unless the caller owns the table, undefined_object for an unknown id, and object_not_in_prerequisite_state when it is being or has been applied.';

CREATE FUNCTION perfopt.plan_samples_all(OUT roleid oid, OUT queryid bigint, OUT captured_at timestamptz,
                                     OUT parameters text[], OUT bytes integer)
    RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'perfopt_plan_samples';
COMMENT ON FUNCTION perfopt.plan_samples_all() IS
'Rows of perfopt.plan_samples.';
REVOKE ALL ON FUNCTION perfopt.plan_samples_all() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION perfopt.plan_samples_all() TO pg_read_all_stats;

CREATE VIEW perfopt.plan_samples AS
    SELECT s.queryid, r.rolname::text AS role, s.captured_at, s.parameters, s.bytes
    FROM perfopt.plan_samples_all() s
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.roleid;
COMMENT ON VIEW perfopt.plan_samples IS
'Statements of this database kept for the index advisor, up to three plannings each, with the values of their parameters ($1, ...) and the bytes they take in shared memory. Values are real: only members of pg_read_all_stats see them.';
GRANT SELECT ON perfopt.plan_samples TO pg_read_all_stats;

CREATE FUNCTION perfopt.plan_sample_counts(OUT slots integer, OUT used integer, OUT stored bigint,
                                           OUT too_large bigint, OUT evicted bigint)
    RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'perfopt_plan_sample_counts';
COMMENT ON FUNCTION perfopt.plan_sample_counts() IS
'Of all databases, since the server''s start: slots for plan samples (perfopt.max_plan_samples) and those in use, samples stored, statements found too large to be sampled, and samples that gave way to other statements.';
REVOKE ALL ON FUNCTION perfopt.plan_sample_counts() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION perfopt.plan_sample_counts() TO pg_read_all_stats;
