-- benchmark(): what is counted, that nothing stays, parameters, errors, rights.
BEGIN;
SELECT plan(57);
SET LOCAL client_min_messages = warning;

CREATE ROLE bench_one;
CREATE SCHEMA bench_test;
GRANT USAGE ON SCHEMA bench_test TO bench_one;
SET LOCAL search_path = bench_test, public;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE items (id int PRIMARY KEY, n int, owner name DEFAULT 'nobody');
INSERT INTO items SELECT i, 0 FROM generate_series(1, 1000) i;
CREATE SEQUENCE drawn;
ANALYZE items;

-- columns
SELECT ok(average_ms > 0 AND min_ms > 0 AND min_ms <= median_ms AND median_ms <= p95_ms AND p95_ms <= p99_ms AND p99_ms <= max_ms
        AND average_ms BETWEEN min_ms AND max_ms AND std_dev_ms >= 0 AND spread_percent >= 0 AND planning_ms > 0
        AND timer_ms BETWEEN 0 AND 0.01 AND memory_kb > 0, 'times are in order')
FROM perfopt.benchmark('SELECT * FROM items WHERE id < 100', iterations => 20);
SELECT is(iterations, 10000::bigint, 'ten rounds of a thousand runs') FROM perfopt.benchmark('SELECT 1');
SELECT is(rounds || ' ' || iterations || ' ' || stopped_early, '3 21 false', 'as many as asked for')
FROM perfopt.benchmark('SELECT 1', NULL, 7, 3, 0);
SELECT is(coalesce(std_dev_ms::text, 'null') || coalesce(spread_percent::text, 'null'), 'nullnull', 'one run has no deviation')
FROM perfopt.benchmark('SELECT 1', iterations => 1, repeat => 1);
SELECT ok(average_ms BETWEEN 10 AND 100, 'ten milliseconds are ten milliseconds')
FROM perfopt.benchmark('SELECT pg_sleep(0.01)', iterations => 2, repeat => 2, warmup => 0);

-- rows and blocks
SELECT is(rows, 123::float8, 'rows that are returned') FROM perfopt.benchmark('SELECT * FROM items LIMIT 123', iterations => 2);
SELECT is(rows, 0::float8, 'none') FROM perfopt.benchmark('SELECT * FROM items WHERE id < 0', iterations => 2);
SELECT is(rows, 10::float8, 'rows that are changed') FROM perfopt.benchmark('UPDATE items SET n = 1 WHERE id <= 10', iterations => 2);
SELECT is(rows, 2::float8, 'rows of VALUES') FROM perfopt.benchmark('VALUES (1), (2)', iterations => 2);
SELECT is(shared_hit + shared_read, (pg_relation_size('items') / current_setting('block_size')::int)::float8, 'blocks of a table')
FROM perfopt.benchmark('SELECT count(*) FROM items', iterations => 2);
SELECT is(wal_bytes, 0::float8, 'reading writes no WAL') FROM perfopt.benchmark('SELECT sum(n) FROM items', iterations => 3);
SELECT cmp_ok(wal_bytes, '>', 5000::float8, 'writing does') FROM perfopt.benchmark('INSERT INTO items SELECT i FROM generate_series(2001, 2100) i', iterations => 3);
CREATE TEMP TABLE own AS SELECT i FROM generate_series(1, 1000) i;
SELECT is(local_blocks, (pg_relation_size('own') / current_setting('block_size')::int)::float8, 'blocks of a temporary table')
FROM perfopt.benchmark('SELECT count(*) FROM own', iterations => 2);
SELECT ok(temp_written > 0 AND temp_read > 0, 'blocks of temporary files')
FROM perfopt.benchmark('SELECT * FROM generate_series(1, 1000000) i ORDER BY -i OFFSET 999999', iterations => 1, repeat => 1, warmup => 0);
SELECT cmp_ok(b.memory_kb, '>', a.memory_kb + 500, 'memory of a sort')
FROM perfopt.benchmark('SELECT 1', iterations => 1) a, perfopt.benchmark('SELECT * FROM generate_series(1, 20000) i ORDER BY -i', iterations => 1) b;
SELECT cmp_ok(memory_kb, '>', 19000::bigint, 'memory that one row in the middle needs')
FROM perfopt.benchmark('SELECT max(length(x)) FROM (SELECT repeat(''x'', CASE i WHEN 500 THEN 20000000 ELSE 1 END) AS x FROM generate_series(1, 1000) i OFFSET 0) v',
    iterations => 1, repeat => 1);

-- nothing stays, unless asked for
SELECT is(sum(n), 0::bigint, 'an update is rolled back') FROM items;
SELECT is(count(*), 1000::bigint, 'so is an insert') FROM items;
SELECT is((SELECT rows FROM perfopt.benchmark('DELETE FROM items', iterations => 3)), 1000::float8, 'each run finds what was there');
SELECT is(count(*), 1000::bigint, 'deleted rows are back') FROM items;
SELECT is((SELECT rows FROM perfopt.benchmark('WITH gone AS (DELETE FROM items RETURNING id) SELECT count(*) FROM gone', iterations => 3)), 1::float8,
    'a CTE that writes');
CREATE FUNCTION adds() RETURNS int LANGUAGE sql AS 'INSERT INTO items SELECT max(id) + 1 FROM items RETURNING id';
SELECT is((SELECT rows FROM perfopt.benchmark('SELECT adds()', iterations => 3)), 1::float8, 'and a function that does');
SELECT is(count(*), 1000::bigint, 'are rolled back') FROM items;
SELECT is((SELECT iterations FROM perfopt.benchmark('UPDATE items SET n = n + 1 WHERE id = 1', iterations => 3, repeat => 2, warmup => 2, keep_changes => true)),
    6::bigint, 'changes that are kept');
SELECT is(n, 8, 'are seen by the next run, those of the warm-up as well') FROM items WHERE id = 1;
SELECT is((SELECT count(*) FROM perfopt.benchmark('SELECT nextval(''drawn'')', iterations => 3, repeat => 1, warmup => 1)), 1::bigint, 'a sequence');
SELECT is(nextval('drawn'), 5::bigint, 'does not go back');

-- triggers and foreign keys
CREATE TABLE parts (item int REFERENCES items, late int REFERENCES items DEFERRABLE INITIALLY DEFERRED);
SELECT throws_ok($$ SELECT perfopt.benchmark('INSERT INTO parts (item) VALUES (-1)') $$, '23503', NULL, 'a foreign key is checked in the run');
SELECT lives_ok($$ SELECT perfopt.benchmark('INSERT INTO parts (late) VALUES (-1)', iterations => 2) $$, 'a deferred one is not');
SET CONSTRAINTS ALL IMMEDIATE;
SELECT throws_ok($$ SELECT perfopt.benchmark('INSERT INTO parts (late) VALUES (-1)') $$, '23503', NULL, 'unless it is made immediate');

-- parameters
SELECT is((SELECT rows FROM perfopt.benchmark('SELECT * FROM items WHERE id < $1', ROW(11), 2)), 10::float8, 'an integer');
SELECT is((SELECT rows FROM perfopt.benchmark('SELECT 1 WHERE $1 = ''happy''::mood AND $2 = ''{1,2}''::int[] AND $3 = ''x'' AND $4 > now()',
    ROW('happy'::mood, ARRAY[1, 2], 'x', 'infinity'::timestamptz), 2)), 1::float8, 'types as given; what has none is text');
SELECT is((SELECT rows FROM perfopt.benchmark('SELECT 1 WHERE $1 IS NULL AND $2 IS NULL', ROW(NULL::int, NULL), 2)), 1::float8, 'nulls');
SELECT is((SELECT rows FROM perfopt.benchmark('SELECT 1 WHERE length($1) = 100000', ROW(repeat('x', 100000)), 2)), 1::float8, 'a long text');
SELECT throws_ok($$ SELECT perfopt.benchmark('SELECT $2::int', ROW(1)) $$, '42P02', 'there is no parameter $2', 'one too few');
SELECT throws_ok($$ SELECT perfopt.benchmark('SELECT * FROM items WHERE id = $1', ROW('x'::text)) $$, '42883', NULL, 'the wrong type');

-- plans
SELECT is(plan_used, 'generic', 'without parameters a plan is generic') FROM perfopt.benchmark('SELECT 1', iterations => 2);
SELECT is(plan_used, 'custom', 'custom') FROM perfopt.benchmark('SELECT $1', ROW(1), 3, plan => 'custom');
SELECT is(plan_used, 'generic', 'generic') FROM perfopt.benchmark('SELECT $1', ROW(1), 3, warmup => 0, plan => 'generic');
SELECT is(plan_used, 'mixed', 'mixed: five times custom, then generic') FROM perfopt.benchmark('SELECT * FROM items WHERE id = $1', ROW(1), 10, 1, warmup => 0);

-- max_time
SELECT ok(stopped_early AND iterations BETWEEN 2 AND 20 AND rounds > 1, 'max_time is kept, and gives every round its part')
FROM perfopt.benchmark('SELECT pg_sleep(0.01)', max_time => '200 ms', warmup => 0);

-- what it does not take
SELECT throws_ok($$ SELECT perfopt.benchmark('SELECT 1; SELECT 2') $$, '42601', 'perfopt.benchmark() takes exactly one statement, but was given 2', 'two statements');
SELECT throws_ok($$ SELECT perfopt.benchmark('') $$, '42601', NULL, 'none');
SELECT throws_ok(format('SELECT perfopt.benchmark(%L)', s), '0A000', NULL, s)
FROM unnest(ARRAY['VACUUM', 'SELECT 1 AS a INTO made', 'CREATE TABLE made AS SELECT 1', 'EXPLAIN SELECT 1', 'COMMIT']) s;
CREATE TABLE ruled (i int);
CREATE FUNCTION makes_rule() RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE 'CREATE OR REPLACE RULE tells AS ON INSERT TO ruled DO INSTEAD NOTIFY ruled'; RETURN 1; END $$;
SELECT throws_ok($$ SELECT perfopt.benchmark('INSERT INTO ruled VALUES (makes_rule())', keep_changes => true) $$, '0A000',
    'perfopt.benchmark() cannot run what rules have made of the statement meanwhile', 'a rule that comes between two runs');
SELECT makes_rule();
SELECT throws_ok($$ SELECT perfopt.benchmark('INSERT INTO ruled VALUES (1)') $$, '0A000', 'perfopt.benchmark() cannot run NOTIFY', 'one that was there');
SELECT throws_ok($$ SELECT perfopt.benchmark('SELECT 1', iterations => 0) $$, '22023', 'iterations must be at least 1', 'no runs');
SELECT throws_ok($$ SELECT perfopt.benchmark('SELECT 1', max_time => '0') $$, '22023', NULL, 'no time');
SELECT throws_ok($$ SELECT perfopt.benchmark('SELECT 1 / (id - 5) FROM items') $$, '22012', 'division by zero', 'an error of the statement is raised as it is');

-- rights are the caller's, and so are rows
GRANT SELECT ON items TO bench_one;
ALTER TABLE items ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON items FOR SELECT USING (owner = current_user);
UPDATE items SET owner = 'bench_one' WHERE id <= 7;
SET LOCAL ROLE bench_one;
SELECT is(rows, 7::float8, 'row level security is the caller''s') FROM perfopt.benchmark('SELECT * FROM items', iterations => 2);
SELECT throws_ok($$ SELECT perfopt.benchmark('DELETE FROM bench_test.items') $$, '42501', NULL, 'and so are privileges');
RESET ROLE;

-- a table's owner has an index compute something when another maintains it
CREATE TABLE indexed AS SELECT 1 AS i;
CREATE FUNCTION escapes(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM perfopt.benchmark('SELECT set_config(''role'', ''bench_one'', false)', iterations => 1, keep_changes => i > 1); RETURN i; END $$;
SELECT throws_ok($$ CREATE INDEX ON indexed (escapes(i + 0)) $$, '42501', 'cannot set parameter "role" within security-restricted operation', 'a restricted operation stays one');
SELECT throws_ok($$ CREATE INDEX ON indexed (escapes(i + 1)) $$, '42501', NULL, 'also when changes are kept');

SELECT * FROM finish();
ROLLBACK;
