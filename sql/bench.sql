-- Measuring statements: what a user sees that is the same each time.
SET max_parallel_workers_per_gather = 0;
CREATE TABLE bench_orders AS SELECT i AS id, i % 100 AS user_id, 'note ' || i AS note FROM generate_series(1, 10000) i;
CREATE INDEX bench_orders_user ON bench_orders (user_id);
VACUUM ANALYZE bench_orders;

-- how long, and with what
SELECT iterations, rounds, rows, stopped_early, plan_used, wal_bytes, average_ms > 0 AS takes_time
FROM perfopt.benchmark('SELECT * FROM bench_orders WHERE user_id = $1', ROW(7), iterations => 10);
SELECT iterations, rows, wal_bytes > 0 AS writes
FROM perfopt.benchmark('DELETE FROM bench_orders WHERE user_id = 7', iterations => 2, repeat => 3);
SELECT count(*) FROM bench_orders;

-- which is faster
SELECT faster, significant, improvement_percent > 50 AS by_far, same_rows, rows_a, rows_b, difference
FROM perfopt.compare('SELECT note FROM bench_orders WHERE user_id + 0 = $1',
    'SELECT note FROM bench_orders WHERE user_id = $1', ROW(7), iterations => 10);
SELECT same_rows, difference
FROM perfopt.compare('SELECT user_id FROM bench_orders', 'SELECT DISTINCT user_id FROM bench_orders', iterations => 1, repeat => 6);

-- where the time goes
SELECT id, parent, depth, node, loops, rows_actual, rows_removed, flags
FROM perfopt.profile('SELECT count(*) FROM bench_orders WHERE user_id + 0 = $1', ROW(7)) ORDER BY id;
SELECT sum(share) FROM perfopt.profile('SELECT count(*) FROM bench_orders WHERE user_id + 0 = $1', ROW(7));

-- what cannot be measured
SELECT perfopt.benchmark('SELECT 1; SELECT 2');
SELECT perfopt.profile('VACUUM bench_orders');
SELECT perfopt.compare('SELECT 1', 'SELECT * FROM no_such_table');
SELECT perfopt.benchmark('SELECT 1 / $1', ROW(0));

DROP TABLE bench_orders;
