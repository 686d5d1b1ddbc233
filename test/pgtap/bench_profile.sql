-- profile(): that nothing stays, parameters, errors, rights.  Its figures are
-- compared with EXPLAIN's in test/t/091_bench_profile.pl.
BEGIN;
SELECT plan(25);
SET LOCAL client_min_messages = warning;
SET LOCAL max_parallel_workers_per_gather = 0;

CREATE ROLE profile_one;
CREATE SCHEMA profile_test;
GRANT USAGE ON SCHEMA profile_test TO profile_one;
SET LOCAL search_path = profile_test, public;
CREATE TABLE items (id int PRIMARY KEY, n int, owner name DEFAULT 'nobody');
INSERT INTO items SELECT i, 0 FROM generate_series(1, 1000) i;
ANALYZE items;
CREATE TABLE parts (item int REFERENCES items);
CREATE FUNCTION nodes(sql text) RETURNS text LANGUAGE sql AS
    $$ SELECT string_agg(node, ', ' ORDER BY id, node) FROM perfopt.profile(sql) $$;

SELECT is(nodes('SELECT count(*) FROM items i'), 'Aggregate, Seq Scan on items i, Executor start and end, Planning', 'nodes, and what is none');
SELECT is((SELECT sum(share) FROM perfopt.profile('SELECT * FROM items')), 100::numeric, 'shares add up');
SELECT ok(bool_and(self_ms <= before), 'the longest first')
FROM (SELECT self_ms, lag(self_ms) OVER () AS before FROM perfopt.profile('SELECT * FROM items ORDER BY n')) v;
SELECT ok(bool_and(self_ms <= total_ms AND all_processes_ms >= self_ms), 'no node takes longer itself than with those below it')
FROM perfopt.profile('SELECT * FROM items ORDER BY n') WHERE id IS NOT NULL;
SELECT is(sum(shared_hit + shared_read), (pg_relation_size('items') / current_setting('block_size')::int)::numeric, 'blocks are of the node itself')
FROM perfopt.profile('SELECT count(*), max(n) FROM (SELECT * FROM items ORDER BY n OFFSET 0) i') WHERE id IS NOT NULL;
SELECT cmp_ok(memory_kb, '>', 50::bigint, 'memory of a sort') FROM perfopt.profile('SELECT * FROM items ORDER BY n') WHERE node = 'Sort';
SELECT is(spilled_kb, 0::bigint, 'which is in memory') FROM perfopt.profile('SELECT * FROM items ORDER BY n') WHERE node = 'Sort';
SELECT is(nodes('UPDATE items SET n = 1 WHERE id = 1'), 'Update on items, Index Scan using items_pkey on items, Executor start and end, Planning', 'an update');
SELECT is(n, 0, 'is rolled back') FROM items WHERE id = 1;
SELECT is((SELECT count(*) FROM perfopt.profile('UPDATE items SET n = 1 WHERE id = 1', keep_changes => true)), 4::bigint, 'changes that are kept');
SELECT is(n, 1, 'stay') FROM items WHERE id = 1;
SELECT is(loops, 3::bigint, 'a constraint is a row, with how often it was checked')
FROM perfopt.profile('INSERT INTO parts VALUES (1), (2), (3)') WHERE node = 'Constraint parts_item_fkey on parts';
SELECT throws_ok($$ SELECT perfopt.profile('INSERT INTO parts VALUES (-1)') $$, '23503', NULL, 'and its error is raised');
SELECT is(rows_actual, 10::float8, 'parameters') FROM perfopt.profile('SELECT * FROM items WHERE id < $1 AND owner = $2', ROW(11, 'nobody'::name)) WHERE id = 1;
SELECT is(node, 'Index Scan Backward using items_pkey on items', 'the other direction') FROM perfopt.profile('SELECT * FROM items ORDER BY id DESC LIMIT 1') WHERE id = 2;
SELECT ok(bool_and(self_ms IS NULL AND total_ms IS NULL AND share IS NULL), 'without times') FROM perfopt.profile('SELECT 1', timing => false);
SELECT throws_ok(format('SELECT perfopt.profile(%L)', s), '0A000', NULL, s) FROM unnest(ARRAY['VACUUM', 'EXPLAIN SELECT 1']) s;
SELECT throws_ok($$ SELECT perfopt.profile('SELECT 1; DROP TABLE items') $$, '42601', NULL, 'two statements');
SELECT is(nodes('SELECT 1 AS "}{"";'' --" /* "Plans": [ */'), 'Result, Executor start and end, Planning', 'a hostile name of a column');
CREATE TABLE "a"",b' {x}" ("c\d" int);
SELECT is(nodes('SELECT * FROM "a"",b'' {x}" "al""i\as"'), 'Seq Scan on a",b'' {x} al"i\as, Executor start and end, Planning', 'and of a table');
-- what EXPLAIN has no valid JSON for
CREATE TABLE halves (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
CREATE TABLE half_1 PARTITION OF halves FOR VALUES FROM (0) TO (100);
CREATE TABLE half_2 PARTITION OF halves FOR VALUES FROM (100) TO (200);
SELECT is(id || ' ' || loops, '1 1', 'MERGE into several tables')
FROM perfopt.profile('MERGE INTO halves h USING generate_series(1, 199, 10) g ON g = h.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (g, 1)')
WHERE node = 'Merge on halves h';
SET LOCAL cpu_tuple_cost = 1e308;
SELECT is(count(*), 3::bigint, 'infinite costs') FROM perfopt.profile('SELECT FROM (SELECT FROM items LIMIT 3) a, (SELECT FROM items LIMIT 3) b') WHERE node NOT LIKE '%Limit%' AND id IS NOT NULL;
RESET cpu_tuple_cost;

GRANT SELECT ON items TO profile_one;
ALTER TABLE items ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON items FOR SELECT USING (owner = current_user);
UPDATE items SET owner = 'profile_one' WHERE id <= 7;
SET LOCAL ROLE profile_one;
SELECT is(rows_actual, 7::float8, 'rows are those that the caller may see') FROM perfopt.profile('SELECT * FROM items') WHERE id = 1;
SELECT throws_ok($$ SELECT perfopt.profile('SELECT * FROM profile_test.parts') $$, '42501', NULL, 'privileges are the caller''s');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
