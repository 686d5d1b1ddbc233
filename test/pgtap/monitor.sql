-- Views of the monitor: their columns, their units, and errors by class.
BEGIN;
SELECT plan(22);

CREATE FUNCTION pg_temp.columns_of(relation regclass) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
      FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped $$;

SELECT is(pg_temp.columns_of('perfopt.query_latency'),
    'datname name, rolname name, queryid bigint, query text, calls bigint, errors bigint, rows bigint, '
    'total_ms double precision, share double precision, mean_ms double precision, stddev_ms double precision, '
    'min_ms double precision, p50_ms double precision, p95_ms double precision, p99_ms double precision, '
    'max_ms double precision', 'columns of query_latency');
SELECT is(pg_temp.columns_of('perfopt.query_errors'),
    'datname name, rolname name, queryid bigint, query text, sqlstate_class text, class_name text, errors bigint',
    'columns of query_errors');
SELECT is(pg_temp.columns_of('perfopt.latency_history'),
    'id bigint, sampled_at timestamp with time zone, interval_ms double precision, role oid, queryid bigint, '
    'calls bigint, errors bigint, rows bigint, total_ms double precision, max_ms double precision, '
    'p50_ms double precision, p95_ms double precision, p99_ms double precision, histogram bigint[]',
    'columns of latency_history');

-- Units: a call that lasts a known time.  (Only this test resets on this server.)
SELECT perfopt.reset_latency();
SELECT pg_sleep(0.05) AS monitor_sleep;
SELECT pg_sleep(0.05) AS monitor_sleep;
SELECT pg_sleep(0.05) AS monitor_sleep;
SELECT pg_sleep(0.2) AS monitor_sleep;
CREATE TEMP TABLE slept AS
    SELECT * FROM perfopt.query_latency WHERE query LIKE '%monitor\_sleep' AND rolname = current_user;
SELECT results_eq('SELECT calls, errors, rows, datname FROM slept', $$VALUES (4::bigint, 0::bigint, 4::bigint, current_database())$$,
    'four calls, a row each');
-- upper bounds leave room for a machine that is busy
SELECT ok(min_ms >= 50 AND min_ms < 1000, format('min_ms is in milliseconds: %s', min_ms)) FROM slept;
SELECT ok(max_ms >= 200 AND max_ms < 5000, format('and max_ms: %s', max_ms)) FROM slept;
SELECT ok(p50_ms >= min_ms AND p50_ms >= 50 AND p50_ms < 1000, format('and p50_ms, which is one of the short ones: %s', p50_ms)) FROM slept;
SELECT ok(p99_ms BETWEEN max_ms / 1.0434 AND max_ms, format('p99_ms of four calls is the slowest, within 4.34 %%: %s', p99_ms)) FROM slept;
SELECT ok(p95_ms BETWEEN p50_ms AND p99_ms, 'p95_ms is between') FROM slept;
SELECT ok(total_ms BETWEEN 350 AND 4 * max_ms, format('total_ms: %s', total_ms)) FROM slept;
SELECT ok(abs(mean_ms * calls - total_ms) < 1e-6 * total_ms, 'mean_ms is total_ms by calls') FROM slept;
SELECT ok(stddev_ms > 0 AND stddev_ms < max_ms - min_ms, format('stddev_ms: %s', stddev_ms)) FROM slept;
SELECT ok(share > 0 AND share <= 1, 'share is a fraction') FROM slept;
SELECT is_empty($$SELECT * FROM perfopt.query_latency WHERE NOT (0 <= min_ms AND min_ms <= p50_ms AND p50_ms <= p95_ms
        AND p95_ms <= p99_ms AND p99_ms <= max_ms AND mean_ms BETWEEN min_ms - 1e-9 AND max_ms + 1e-9
        AND stddev_ms >= 0 AND calls > 0 AND errors BETWEEN 0 AND calls)$$, 'no row contradicts itself');
SELECT is_empty($$SELECT l.queryid FROM perfopt.latency(true) l WHERE l.calls <>
        (SELECT sum(b.calls) FROM perfopt.histogram_buckets(l.histogram) b)$$, 'every histogram has as many calls as its row');
SELECT results_eq('SELECT count(histogram) FROM perfopt.latency()', 'VALUES (0::bigint)', 'histograms only when asked for');

-- Errors by class
SELECT perfopt.reset_latency();
SAVEPOINT s;
\set ON_ERROR_STOP off
SELECT 1 / (random() < 2)::int, 1 / (random() > 2)::int AS monitor_error;
ROLLBACK TO s;
SELECT 1 / (random() < 2)::int, 1 / (random() > 2)::int AS monitor_error;
ROLLBACK TO s;
SELECT monitor_error FROM monitor_missing;
ROLLBACK TO s;
\set ON_ERROR_STOP on
SELECT results_eq($$SELECT sqlstate_class, class_name, sum(errors) FROM perfopt.query_errors WHERE queryid <> 0 GROUP BY 1, 2$$,
    $$VALUES ('22', 'Data Exception', 2::numeric)$$, 'errors in a query, by class');
SELECT results_eq($$SELECT sqlstate_class, query, errors FROM perfopt.query_errors WHERE queryid = 0$$,
    $$VALUES ('42', '<no query identifier>', 1::bigint)$$, 'and before there is a query');
SELECT results_eq('SELECT sum(errors) FROM perfopt.query_latency', 'SELECT sum(errors) FROM perfopt.query_errors',
    'both views have the same sum');

-- How full it is, and since when
SELECT results_eq('SELECT rows_used BETWEEN 1 AND rows_max, rows_max, dropped, stats_reset BETWEEN now() AND clock_timestamp() FROM perfopt.latency_info()',
    $$VALUES (true, current_setting('perfopt.max_queries')::int, 0::bigint, true)$$, 'latency_info()');
SELECT ok(rows_used = (SELECT count(*) FROM perfopt.latency()), 'rows_used counts rows') FROM perfopt.latency_info();
SELECT throws_ok('UPDATE perfopt.query_latency SET calls = 0', '55000', NULL, 'a view is for reading');

SELECT * FROM finish();
ROLLBACK;
