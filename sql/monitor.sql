-- Latency by database, role and query, as a user sees it.

SELECT perfopt.reset_latency();
CREATE TABLE monitor_items (id integer PRIMARY KEY, name text);
INSERT INTO monitor_items SELECT i, 'name ' || i FROM generate_series(1, 100) i;
SELECT name FROM monitor_items WHERE id = 7;
SELECT name FROM monitor_items WHERE id = 8;
SELECT name FROM monitor_items WHERE id < 3;

-- Failed calls are calls, under the query they belong to.
INSERT INTO monitor_items SELECT i, 'again' FROM generate_series(50, 50) i;
SELECT 100 / (id - 5) AS quotient FROM monitor_items WHERE id = 1;
SELECT 100 / (id - 5) AS quotient FROM monitor_items WHERE id = 5;

-- Prepared statements count as what was prepared, utility commands as a whole.
PREPARE monitor_named AS SELECT count(*) FROM monitor_items WHERE name = $1;
EXECUTE monitor_named('name 1');
EXECUTE monitor_named('name 2');
CREATE TABLE monitor_copy AS SELECT * FROM monitor_items;

-- One call, however many pieces it is fetched in.
BEGIN;
DECLARE monitor_cursor CURSOR FOR SELECT id FROM monitor_items ORDER BY id;
FETCH 2 FROM monitor_cursor;
FETCH 1 FROM monitor_cursor;
COMMIT;

SELECT datname = current_database() AS here, rolname = current_user AS mine,
       query, calls, errors, rows,
       total_ms > 0 AS total, min_ms <= p50_ms AND p50_ms <= p95_ms AND p95_ms <= p99_ms AND p99_ms <= max_ms AS ordered,
       mean_ms BETWEEN min_ms AND max_ms AS mean, share BETWEEN 0 AND 1 AS share
  FROM perfopt.query_latency
 WHERE query LIKE '%monitor\_%' AND query NOT ILIKE '%fetch%'
 ORDER BY query COLLATE "C";

SELECT sum(calls) AS calls, sum(rows) AS rows
  FROM perfopt.query_latency WHERE query ILIKE 'fetch%monitor_cursor';

SELECT query, sqlstate_class, class_name, errors
  FROM perfopt.query_errors
 WHERE query LIKE '%quotient%';

-- The insert never succeeded, so there is no text, but the error is there.
SELECT sqlstate_class, class_name, errors FROM perfopt.query_errors WHERE sqlstate_class = '23';

-- Shares add up to one.
SELECT round(sum(share)::numeric, 9) AS share FROM perfopt.query_latency;

SELECT rows_used BETWEEN 1 AND rows_max AS used, rows_max, dropped, stats_reset <= now() AS reset
  FROM perfopt.latency_info();

-- Nothing is forgotten in pg_stat_statements.
SELECT perfopt.reset_latency();
SELECT count(*) FROM perfopt.query_latency WHERE query LIKE '%monitor_items%';
SELECT count(*) FROM pg_stat_statements WHERE query LIKE 'SELECT name FROM monitor_items%';

-- Histograms.
SELECT perfopt.histogram(ms) FROM unnest(ARRAY[0.0005, 0.001, 1, 1, 1000, 1e9]) AS ms;
SELECT perfopt.histogram_percentile('{0,1,79,2}', 0.5) BETWEEN 0.95 AND 1.05 AS one;
SELECT * FROM perfopt.histogram_buckets('{0,5,80,3}');
SELECT perfopt.histogram_merge(h) FROM (VALUES ('{1,2}'::bigint[]), (NULL), ('{1,3,4,1}'), ('{}')) v (h);
SELECT perfopt.histogram(ms) FROM unnest(ARRAY[]::float8[]) AS ms;
SELECT perfopt.histogram_percentile('{}', 0.5), perfopt.histogram_percentile(NULL, 0.5);
SELECT perfopt.histogram_percentile('{1,2}', 1.5);
SELECT perfopt.histogram_percentile('{1,2,3}', 0.5);
SELECT perfopt.histogram_percentile('{256,1}', 0.5);
SELECT perfopt.histogram_percentile('{1,-1}', 0.5);
SELECT perfopt.histogram_percentile('{{1,1}}', 0.5);
SELECT perfopt.histogram_percentile('{1,NULL}', 0.5);
SELECT perfopt.histogram('-1'::float8);

-- Everybody sees his own.
CREATE ROLE monitor_user;
SET ROLE monitor_user;
SELECT 'mine' AS monitor_mine;
SELECT DISTINCT rolname FROM perfopt.query_latency;
SELECT query, calls FROM perfopt.query_latency WHERE query LIKE '%monitor_mine%';
SELECT count(*) FROM perfopt.query_errors;
SELECT perfopt.reset_latency();
SELECT perfopt.sample_now();
SELECT * FROM perfopt.latency_history;
SELECT * FROM perfopt.sample_being_written();
RESET ROLE;
GRANT pg_read_all_stats TO monitor_user;
SET ROLE monitor_user;
SELECT count(*) > 1 AS others FROM perfopt.query_latency WHERE rolname <> current_user;
SELECT count(*) >= 0 AS history FROM perfopt.latency_history;
RESET ROLE;
DROP ROLE monitor_user;
DROP TABLE monitor_items, monitor_copy;
