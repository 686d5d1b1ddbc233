-- advisor: advice, and indexes

CREATE TABLE perfopt.advice_item (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('create_index', 'index_foreign_key', 'drop_index', 'reindex', 'analyze', 'create_statistics',
                                       'n_plus_one', 'cacheable_query', 'batchable_inserts')),
    -- of a table
    schema_name text,
    table_name text,
    definition text,
    index_name text,
    ddl text,
    undo text,
    estimated_bytes bigint,
    predicted_gain double precision,
    measured_gain double precision,
    -- statements that are run again and again
    role_name text,
    function text,
    source_queryid bigint,
    queryid bigint,
    instead text,
    --
    reason text NOT NULL,
    evidence jsonb NOT NULL,
    status text NOT NULL CHECK (status IN ('open', 'dismissed', 'queued', 'applying', 'applied', 'confirmed', 'regressed',
                                           'reverting', 'reverted', 'failed', 'obsolete')),
    dismiss_reason text,
    requested_by text,
    requested_at timestamptz,
    applied_at timestamptz,
    judged_at timestamptz,
    error text,
    first_seen timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_seen timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT advice_item_table CHECK (kind IN ('n_plus_one', 'cacheable_query', 'batchable_inserts') OR
        (schema_name IS NOT NULL AND table_name IS NOT NULL AND definition IS NOT NULL AND ddl IS NOT NULL
         AND role_name IS NULL AND function IS NULL AND source_queryid IS NULL AND queryid IS NULL AND instead IS NULL)),
    CONSTRAINT advice_item_statement CHECK (kind NOT IN ('n_plus_one', 'cacheable_query', 'batchable_inserts') OR
        (role_name IS NOT NULL AND queryid IS NOT NULL AND schema_name IS NULL AND table_name IS NULL AND definition IS NULL
         AND index_name IS NULL AND ddl IS NULL AND undo IS NULL AND estimated_bytes IS NULL
         AND status IN ('open', 'dismissed', 'obsolete')))
);
-- A definition may be longer than an entry of an index.
CREATE UNIQUE INDEX advice_item_identity ON perfopt.advice_item
    (kind, schema_name, table_name, pg_catalog.hashtextextended(definition, 0), role_name, function, source_queryid, queryid)
    NULLS NOT DISTINCT;
COMMENT ON TABLE perfopt.advice_item IS
'Advice and what has become of it, by names so that it survives dump and restore. Written by the worker and by perfopt.apply_advice(); read it through perfopt.advice.';
SELECT pg_catalog.pg_extension_config_dump('perfopt.advice_item', '');
SELECT pg_catalog.pg_extension_config_dump('perfopt.advice_item_id_seq', '');
-- The evidence tells of all roles' statements.
GRANT SELECT ON perfopt.advice_item TO pg_read_all_stats;

CREATE VIEW perfopt.advice AS
    SELECT id, kind,
           pg_catalog.quote_ident(schema_name) || '.' || pg_catalog.quote_ident(table_name) AS relation,
           ddl, instead, reason, evidence, estimated_bytes, status, error, first_seen, last_seen, applied_at
    FROM perfopt.advice_item;
COMMENT ON VIEW perfopt.advice IS
'What perfopt advises. kind create_index: ddl is the statement to run, which perfopt.apply_advice() does, relation its table, estimated_bytes the size expected. Kinds n_plus_one, cacheable_query and batchable_inserts, of perfopt.n_plus_one: instead is the call that the application should use. All with the reason in a sentence, the evidence (statements with what they cost; of create_index calls, mean time, share of the statement time from 0 to 1, plan cost before and after), and the status: open, queued, applying, applied, failed (error says why) or obsolete, with the time it was applied. For members of pg_read_all_stats.';
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
'Asks for the index of an advice of perfopt.advice to be built concurrently, in the background, as the calling role, after this transaction commits; returns what was queued. The status in perfopt.advice becomes queued, applying, then applied or failed; a failed build leaves no invalid index and may be asked for again. Raises feature_not_supported for advice of another kind than create_index, insufficient_privilege unless the caller owns the table, undefined_object for an unknown id, and object_not_in_prerequisite_state when it is being or has been applied.';

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
