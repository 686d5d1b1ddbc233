-- survey: since when indexes have not been used, and a look on demand

-- Names of the catalogs have this collation, and only so is the key found by them.
CREATE TABLE perfopt.index_usage (
    schema_name text COLLATE "C" NOT NULL,
    index_name text COLLATE "C" NOT NULL,
    table_name text NOT NULL,
    index_oid oid NOT NULL,
    scans bigint NOT NULL,
    unused_since timestamptz NOT NULL,
    unseen interval NOT NULL DEFAULT '0',
    table_uses bigint NOT NULL,
    table_in_use boolean NOT NULL DEFAULT false,
    other_indexes text[] NOT NULL,
    PRIMARY KEY (schema_name, index_name)
);
COMMENT ON TABLE perfopt.index_usage IS
'Since when indexes that could be dropped have not been used: one row an index, written by the worker, by names so that it survives dump and restore. scans is the server''s counter when the row was written; unused_since never earlier than the last scan; unseen the time since then of which nobody knows, as the counters were reset; table_in_use whether the table was, since unused_since; table_uses the table''s counters then; other_indexes those that the table had besides. For members of pg_read_all_stats.';
SELECT pg_catalog.pg_extension_config_dump('perfopt.index_usage', '');
GRANT SELECT ON perfopt.index_usage TO pg_read_all_stats;

CREATE TABLE perfopt.index_usage_state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    looked_at timestamptz NOT NULL,
    database_reset timestamptz,
    server_reset timestamptz,
    system_identifier bigint NOT NULL,
    database oid NOT NULL
);
COMMENT ON TABLE perfopt.index_usage_state IS
'When the worker last looked at perfopt.index_usage, in which database, and when the server''s counters had been reset by then. One row. For members of pg_read_all_stats.';
SELECT pg_catalog.pg_extension_config_dump('perfopt.index_usage_state', '');
GRANT SELECT ON perfopt.index_usage_state TO pg_read_all_stats;

CREATE FUNCTION perfopt.survey_now() RETURNS integer
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_survey_now';
COMMENT ON FUNCTION perfopt.survey_now() IS
'Has the worker of this database look through the catalogs and statistics for advice now (kinds drop_index, reindex, index_foreign_key, analyze and create_statistics of perfopt.advice), waits for it, and returns the number of open advices of these kinds. For members of pg_read_all_stats. Raises an error without a worker, or with the look''s own error.';
REVOKE ALL ON FUNCTION perfopt.survey_now() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION perfopt.survey_now() TO pg_read_all_stats;
