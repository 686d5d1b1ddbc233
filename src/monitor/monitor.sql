--
-- monitor: latency by (database, role, query)
--

-- Histograms

CREATE FUNCTION perfopt.histogram_percentile(histogram bigint[], fraction double precision)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'perfopt_sql_histogram_percentile';
COMMENT ON FUNCTION perfopt.histogram_percentile(bigint[], double precision) IS
'Estimates the latency in milliseconds at a fraction (0.99 for p99) of a histogram, with a relative error of at most 4.33 % between 1 microsecond and 71 minutes. NULL for an empty histogram. Raises an error when the fraction is not between 0 and 1 or the array is not a histogram.';

CREATE FUNCTION perfopt.histogram_add(internal, double precision) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'perfopt_sql_histogram_add';
COMMENT ON FUNCTION perfopt.histogram_add(internal, double precision) IS
'Transition function of the aggregate perfopt.histogram.';

CREATE FUNCTION perfopt.histogram_add(internal, bigint[]) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'perfopt_sql_histogram_merge';
COMMENT ON FUNCTION perfopt.histogram_add(internal, bigint[]) IS
'Transition function of the aggregate perfopt.histogram_merge.';

CREATE FUNCTION perfopt.histogram_final(internal) RETURNS bigint[]
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'perfopt_sql_histogram_final';
COMMENT ON FUNCTION perfopt.histogram_final(internal) IS
'Final function of the aggregates perfopt.histogram and perfopt.histogram_merge.';

CREATE AGGREGATE perfopt.histogram(latency_ms double precision) (
    SFUNC = perfopt.histogram_add, STYPE = internal, FINALFUNC = perfopt.histogram_final,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE perfopt.histogram(double precision) IS
'Makes a histogram of latencies in milliseconds: an array of pairs of bucket and count. NULL without rows. Raises an error for a negative latency.';

CREATE AGGREGATE perfopt.histogram_merge(histogram bigint[]) (
    SFUNC = perfopt.histogram_add, STYPE = internal, FINALFUNC = perfopt.histogram_final,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE perfopt.histogram_merge(bigint[]) IS
'Adds histograms up, such as those of perfopt.latency_history over an hour. NULL without rows.';

CREATE FUNCTION perfopt.histogram_buckets(histogram bigint[],
        OUT lower_ms double precision, OUT upper_ms double precision, OUT calls bigint)
    RETURNS SETOF record
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT power(2::double precision, histogram[i] / 8.0::double precision) / 1000,
           power(2::double precision, (histogram[i] + 1) / 8.0::double precision) / 1000,
           histogram[i + 1]
      FROM generate_series(1, cardinality(histogram), 2) AS i;
END;
COMMENT ON FUNCTION perfopt.histogram_buckets(bigint[]) IS
'Shows a histogram as rows: calls that took at least lower_ms and less than upper_ms milliseconds.';

-- The table of latencies

CREATE FUNCTION perfopt.latency(histograms boolean DEFAULT false,
        OUT dbid oid, OUT userid oid, OUT queryid bigint,
        OUT calls bigint, OUT errors bigint, OUT rows bigint, OUT dropped bigint,
        OUT total_ms double precision, OUT mean_ms double precision, OUT stddev_ms double precision,
        OUT min_ms double precision, OUT p50_ms double precision, OUT p95_ms double precision,
        OUT p99_ms double precision, OUT max_ms double precision, OUT histogram bigint[])
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 1000
    AS 'MODULE_PATHNAME', 'perfopt_sql_latency';
COMMENT ON FUNCTION perfopt.latency(boolean) IS
'Latencies by database, role and query identifier, without names and texts; times are in milliseconds, failed calls are included. userid 0 is the row of queries folded together for want of room, dropped says how many they were; queryid 0 is what had no identifier. Own rows, or all for members of pg_read_all_stats. Raises an error when perfopt is not preloaded.';

CREATE FUNCTION perfopt.latency_errors(
        OUT dbid oid, OUT userid oid, OUT queryid bigint,
        OUT sqlstate_class text, OUT class_name text, OUT errors bigint)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 100
    AS 'MODULE_PATHNAME', 'perfopt_sql_latency_errors';
COMMENT ON FUNCTION perfopt.latency_errors() IS
'Failed calls by database, role, query identifier and SQLSTATE class (the first two characters; NULL for classes that are not counted apart). Own rows, or all for members of pg_read_all_stats. Raises an error when perfopt is not preloaded.';

CREATE FUNCTION perfopt.latency_info(
        OUT rows_used integer, OUT rows_max integer, OUT dropped bigint,
        OUT stats_reset timestamp with time zone)
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'perfopt_sql_latency_info';
COMMENT ON FUNCTION perfopt.latency_info() IS
'State of the table of latencies: rows used, rows there is room for (perfopt.max_queries), queries that were folded into a row of others for want of room, and since when all this is counted. Raises an error when perfopt is not preloaded.';

CREATE FUNCTION perfopt.reset_latency() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'perfopt_sql_reset_latency';
REVOKE ALL ON FUNCTION perfopt.reset_latency() FROM PUBLIC;
COMMENT ON FUNCTION perfopt.reset_latency() IS
'Forgets the latencies of all queries in all databases. Leaves pg_stat_statements and perfopt.latency_history alone. Only for superusers, unless granted. Raises an error when perfopt is not preloaded.';

-- pg_stat_statements has a text for each of (toplevel, nested); any will do.
-- Its schema is whatever it was created in.
DO $$
BEGIN
    EXECUTE format('CREATE VIEW perfopt.query_texts AS
        SELECT DISTINCT ON (dbid, userid, queryid) dbid, userid, queryid, query
          FROM %s.pg_stat_statements
         ORDER BY dbid, userid, queryid, toplevel DESC',
        (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'pg_stat_statements'));
END
$$;
COMMENT ON VIEW perfopt.query_texts IS
'For the views perfopt.query_latency and perfopt.query_errors: a text for each query of pg_stat_statements.';

CREATE VIEW perfopt.query_latency AS
    SELECT d.datname, r.rolname, l.queryid,
           CASE WHEN l.userid = 0 THEN '<other queries>'
                WHEN l.queryid = 0 THEN '<no query identifier>'
                ELSE s.query END AS query,
           l.calls, l.errors, l.rows, l.total_ms,
           l.total_ms / nullif(sum(l.total_ms) OVER (), 0) AS share,
           l.mean_ms, l.stddev_ms, l.min_ms, l.p50_ms, l.p95_ms, l.p99_ms, l.max_ms
      FROM perfopt.latency() AS l
      LEFT JOIN perfopt.query_texts AS s
                ON s.dbid = l.dbid AND s.userid = l.userid AND s.queryid = l.queryid
      LEFT JOIN pg_catalog.pg_database AS d ON d.oid = l.dbid
      LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = l.userid;
GRANT SELECT ON perfopt.query_latency TO PUBLIC;
COMMENT ON VIEW perfopt.query_latency IS
'Latency of each query by database and role, in milliseconds, with percentiles of at most 4.33 % relative error; calls and times include failed calls. share is the part of the time of all rows shown. query is NULL when pg_stat_statements has no text, as for a query that never succeeded. Own rows, or all for members of pg_read_all_stats.';

CREATE VIEW perfopt.query_errors AS
    SELECT d.datname, r.rolname, e.queryid,
           CASE WHEN e.userid = 0 THEN '<other queries>'
                WHEN e.queryid = 0 THEN '<no query identifier>'
                ELSE s.query END AS query,
           e.sqlstate_class, e.class_name, e.errors
      FROM perfopt.latency_errors() AS e
      LEFT JOIN perfopt.query_texts AS s
                ON s.dbid = e.dbid AND s.userid = e.userid AND s.queryid = e.queryid
      LEFT JOIN pg_catalog.pg_database AS d ON d.oid = e.dbid
      LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = e.userid;
GRANT SELECT ON perfopt.query_errors TO PUBLIC;
COMMENT ON VIEW perfopt.query_errors IS
'Failed calls of each query by SQLSTATE class. queryid 0 collects errors outside of the execution of a query, such as syntax errors; they are seen if they reach the server log. Own rows, or all for members of pg_read_all_stats.';

-- History

CREATE TABLE perfopt.latency_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sampled_at timestamp with time zone NOT NULL,
    interval_ms double precision NOT NULL,
    role oid NOT NULL,
    queryid bigint NOT NULL,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    rows bigint NOT NULL,
    total_ms double precision NOT NULL,
    max_ms double precision NOT NULL,
    p50_ms double precision NOT NULL,
    p95_ms double precision NOT NULL,
    p99_ms double precision NOT NULL,
    histogram bigint[] NOT NULL
);
CREATE INDEX latency_history_sampled_at_idx ON perfopt.latency_history (sampled_at);
GRANT SELECT ON perfopt.latency_history TO pg_read_all_stats;
COMMENT ON TABLE perfopt.latency_history IS
'What the queries of this database did between samples, one row a query and sample, written every perfopt.sample_interval and kept for perfopt.history_retention, but at most perfopt.history_max_rows rows. interval_ms is the time since the sample before; role 0 is the row of other queries. Not part of a dump.';

CREATE FUNCTION perfopt.sample_being_written(
        OUT sampled_at timestamp with time zone, OUT interval_ms double precision,
        OUT role oid, OUT queryid bigint, OUT calls bigint, OUT errors bigint, OUT rows bigint,
        OUT total_ms double precision, OUT max_ms double precision, OUT p50_ms double precision,
        OUT p95_ms double precision, OUT p99_ms double precision, OUT histogram bigint[])
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'perfopt_sql_sample_being_written';
REVOKE ALL ON FUNCTION perfopt.sample_being_written() FROM PUBLIC;
COMMENT ON FUNCTION perfopt.sample_being_written() IS
'For the worker''s own use: the sample it is about to write. Empty elsewhere.';

CREATE FUNCTION perfopt.sample_now() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'perfopt_sql_sample_now';
REVOKE ALL ON FUNCTION perfopt.sample_now() FROM PUBLIC;
COMMENT ON FUNCTION perfopt.sample_now() IS
'Has the worker of this database write a sample to perfopt.latency_history now, and waits for it, for a minute at most. Raises an error when there is no worker, as on a standby, or when the sample failed.';
