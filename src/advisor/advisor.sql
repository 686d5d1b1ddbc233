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
    -- of the table and its new index, in the database that origin tells
    table_oid oid,
    index_oid oid,
    origin text,
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
    -- of what was asked for: who did, and as whom it is done
    requested_by text,
    run_as text,
    requested_at timestamptz,
    automatic boolean NOT NULL DEFAULT false,
    attempts integer NOT NULL DEFAULT 0,
    retry_at timestamptz,
    started_at timestamptz,
    applied_at timestamptz,
    -- since when it is measured, the windows that have been added to
    -- perfopt.advice_window since, and the time all statements took in these
    measured_from timestamptz,
    window_seconds integer,
    windows integer NOT NULL DEFAULT 0,
    database_ms double precision NOT NULL DEFAULT 0,
    judged_at timestamptz,
    verdict text,
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
CREATE TABLE perfopt.advice_measure (
    advice bigint NOT NULL REFERENCES perfopt.advice_item ON DELETE CASCADE,
    part text NOT NULL CHECK (part IN ('named', 'write', 'control')),
    queryid bigint NOT NULL,
    role_name text NOT NULL,
    PRIMARY KEY (advice, queryid, role_name)
);
COMMENT ON TABLE perfopt.advice_measure IS
'Statements whose latencies are compared before and after an advice was applied, until that is judged: those that the advice names, those that write its table, and others, which tell how the server as a whole has changed. Not part of a dump.';
GRANT SELECT ON perfopt.advice_measure TO pg_read_all_stats;

CREATE TABLE perfopt.advice_window (
    advice bigint NOT NULL,
    queryid bigint NOT NULL,
    role_name text NOT NULL,
    number integer NOT NULL,
    histogram bigint[] NOT NULL,
    PRIMARY KEY (advice, queryid, role_name, number),
    FOREIGN KEY (advice, queryid, role_name) REFERENCES perfopt.advice_measure ON DELETE CASCADE
);
COMMENT ON TABLE perfopt.advice_window IS
'Latencies of the statements of perfopt.advice_measure, as histograms, in windows of perfopt.verify_window: number -1 is the last one before the advice was applied, 1 the first one after. Windows without calls have no row. Not part of a dump.';
GRANT SELECT ON perfopt.advice_window TO pg_read_all_stats;

CREATE TABLE perfopt.advice_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    advice bigint NOT NULL,
    actor text NOT NULL,
    act text NOT NULL,
    from_status text NOT NULL,
    to_status text NOT NULL,
    detail text
);
COMMENT ON TABLE perfopt.advice_log IS
'Every change of the status of an advice: when, which advice, who made it (the role that asked, or perfopt for the background worker), what it was, the status before and after, and a detail: the statement run, the reason of a dismissal, the verdict, or the error. Kept for a year, the last 100,000 at most.';
SELECT pg_catalog.pg_extension_config_dump('perfopt.advice_log', '');
SELECT pg_catalog.pg_extension_config_dump('perfopt.advice_log_id_seq', '');
GRANT SELECT ON perfopt.advice_log TO pg_read_all_stats;

CREATE FUNCTION perfopt.log_advice() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'perfopt_log_advice';
COMMENT ON FUNCTION perfopt.log_advice() IS
'Trigger of perfopt.advice_item that writes perfopt.advice_log.';
REVOKE ALL ON FUNCTION perfopt.log_advice() FROM PUBLIC;
CREATE TRIGGER log_advice AFTER UPDATE OF status ON perfopt.advice_item
    FOR EACH ROW WHEN (old.status OPERATOR(pg_catalog.<>) new.status) EXECUTE FUNCTION perfopt.log_advice();

COMMENT ON TABLE perfopt.advice_item IS
'Advice and what has become of it, by names so that it survives dump and restore. Written by the worker and by perfopt.apply_advice(); read it through perfopt.advice.';
SELECT pg_catalog.pg_extension_config_dump('perfopt.advice_item', '');
SELECT pg_catalog.pg_extension_config_dump('perfopt.advice_item_id_seq', '');
-- The evidence tells of all roles' statements.
GRANT SELECT ON perfopt.advice_item TO pg_read_all_stats;

CREATE VIEW perfopt.advice AS
    SELECT a.id, a.kind, r.relation, a.ddl, a.undo, a.instead, a.reason, a.evidence, a.estimated_bytes,
           a.predicted_gain, a.measured_gain, a.status,
           CASE WHEN a.status IN ('applying', 'reverting') THEN p.phase END AS progress,
           CASE WHEN a.status IN ('applying', 'reverting')
                THEN pg_catalog.round(100.0 * CASE WHEN p.blocks_total > 0 THEN p.blocks_done::numeric / p.blocks_total
                                                   WHEN p.tuples_total > 0 THEN p.tuples_done::numeric / p.tuples_total
                                                   WHEN p.lockers_total > 0 THEN p.lockers_done::numeric / p.lockers_total END, 1)
           END AS progress_percent,
           a.verdict, a.dismiss_reason, a.requested_by, a.error, a.first_seen, a.last_seen, a.applied_at, a.judged_at
    FROM perfopt.advice_item a
    CROSS JOIN LATERAL (SELECT pg_catalog.quote_ident(a.schema_name) || '.' || pg_catalog.quote_ident(a.table_name) AS relation) r
    LEFT JOIN pg_catalog.pg_stat_progress_create_index p
        ON a.status IN ('applying', 'reverting') AND p.datname = pg_catalog.current_database()
           AND p.relid = pg_catalog.to_regclass(r.relation)::oid;
COMMENT ON VIEW perfopt.advice IS
'What perfopt advises. kind create_index, index_foreign_key, drop_index, reindex, analyze and create_statistics: ddl is the statement to run, which perfopt.apply_advice() does, relation its table, undo what takes it back, estimated_bytes the size that an index is expected to take, or that dropping it frees. Kinds n_plus_one, cacheable_query and batchable_inserts, of perfopt.n_plus_one: instead is the call that the application should use. All with the reason in a sentence, the evidence (statements with what they cost; of indexes calls, mean time, share of the statement time from 0 to 1, plan cost before and after), and the status: open, dismissed (dismiss_reason), queued, applying (progress and progress_percent of its present phase), applied, confirmed or regressed (verdict, measured at judged_at), reverting, reverted, failed (error says why) or obsolete. predicted_gain and measured_gain are shares of the statement time, from 0 to 1, that it saves; negative: it costs. For members of pg_read_all_stats.';
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
'Asks for the ddl of an advice of perfopt.advice to be run in the background, after this transaction commits; indexes are built and dropped concurrently. It is done as the owner of the table. Returns what was queued, NULL for NULL. The status in perfopt.advice becomes queued, applying, then applied or failed; a failed build leaves no invalid index and may be asked for again. Raises feature_not_supported for advice that only an application can follow, insufficient_privilege unless the caller owns the table or is a member of perfopt.advice_role, undefined_object for an unknown id, and object_not_in_prerequisite_state when it is being or has been applied, or the table is gone.';

CREATE FUNCTION perfopt.revert_advice(id bigint) RETURNS text
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_revert_advice';
COMMENT ON FUNCTION perfopt.revert_advice(bigint) IS
'Asks for what an advice that was applied has done to be taken back, in the background, after this transaction commits: its index is dropped, or one that it dropped is built again, concurrently. Returns what is to be run, NULL for NULL. The status becomes reverting, then reverted, and the advice is not raised again; if that fails it is what it was, with the error. Raises feature_not_supported for what can not be taken back, such as ANALYZE, object_not_in_prerequisite_state when it is not applied, and otherwise as perfopt.apply_advice().';

CREATE FUNCTION perfopt.dismiss_advice(id bigint, reason text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_dismiss_advice';
COMMENT ON FUNCTION perfopt.dismiss_advice(bigint, text) IS
'Says no to an advice of perfopt.advice, with a reason or NULL: it becomes dismissed and is not raised again, nor is another new index of that table for the same statements, or for some of them. For the owner of the table, the role whose statements it is about, and members of perfopt.advice_role. Raises insufficient_privilege otherwise, undefined_object for an unknown id, and object_not_in_prerequisite_state when it is being or has been applied.';

CREATE FUNCTION perfopt.undismiss_advice(id bigint) RETURNS void
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_undismiss_advice';
COMMENT ON FUNCTION perfopt.undismiss_advice(bigint) IS
'Opens an advice again that was dismissed or reverted. Nothing happens for NULL, which goes for perfopt.dismiss_advice(), too. Raises object_not_in_prerequisite_state for any other, and errors as perfopt.dismiss_advice().';

CREATE FUNCTION perfopt.advise(queries text[], storage_budget bigint DEFAULT NULL, time_budget interval DEFAULT '30 s',
                               OUT statement integer, OUT query text, OUT cost_before float8, OUT cost_after float8,
                               OUT ddl text[], OUT estimated_bytes bigint, OUT notes text[])
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_advise';
COMMENT ON FUNCTION perfopt.advise(text[], bigint, interval) IS
'Which indexes would serve these statements best, all together, within storage_budget bytes (NULL: no limit), looked for at most time_budget long, beside the time it takes to plan each statement once. Nothing is run or built, and no history is needed: the statements are planned as EXPLAIN does it, each with the same weight per unit of plan cost; $1, $2 ... stand for values not known: as in a generic plan, and where a column that one is compared with has a value far more common than others, costs are the mean with that; a pattern put together as a prefix is taken to be one that few rows have. Statements that write count for what an index would cost them. The first row, with statement and query NULL, is the whole: the sum of plan costs before and after, the CREATE INDEX statements, the bytes these indexes would take, and notes, such as on existing indexes that become superfluous. Then a row for each statement, numbered from 1, with those that its plan would use, and notes on what was taken for granted of it, or can''t be known. The caller needs the rights to run the statements; tables that it may not read all of are estimated without a sample of their rows. Raises the statement''s own error for one that can''t be planned, with its number as context; feature_not_supported for utility statements and foreign tables, and invalid_parameter_value for a negative budget.';

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
