-- compare(): which is faster, and are the rows the same?
BEGIN;
SELECT plan(27);
SET LOCAL client_min_messages = warning;

CREATE SCHEMA compare_test;
SET LOCAL search_path = compare_test, public;
CREATE TABLE items (id int PRIMARY KEY, n numeric, name text);
INSERT INTO items SELECT i, i, 'item ' || i FROM generate_series(1, 2000) i;
ANALYZE items;
-- same('SELECT ...', 'SELECT ...') is the answer and the words to it
CREATE FUNCTION same(a text, b text, pa record DEFAULT NULL, pb record DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN RETURN (SELECT concat_ws(' ', CASE same_rows WHEN true THEN 'true' ELSE 'false' END, rows_a, rows_b, difference)
                     FROM perfopt.compare(a, b, pa, 1, 6, 0, pb)); END $$;

-- times
SELECT is(faster || ' ' || significant || ' ' || (improvement_percent > 90) || ' ' || (ratio < 0.1 AND ratio_low <= ratio AND ratio <= ratio_high)
        || ' ' || (a_median_ms > b_median_ms) || ' ' || rounds || ' ' || iterations, 'b true true true true 10 40', 'b is faster')
FROM perfopt.compare('SELECT count(*) FROM items a, items b WHERE a.id < 100', 'SELECT count(*) FROM items WHERE id = 1', iterations => 4);
SELECT is(faster || ' ' || (improvement_percent < -900) || ' ' || (p_value < 0.05), 'a true true', 'a is')
FROM perfopt.compare('SELECT count(*) FROM items WHERE id = 1', 'SELECT count(*) FROM items a, items b WHERE a.id < 100', iterations => 4);
SELECT is(p_value, 2 / power(2, 10)::float8, 'ten rounds that agree: 2 of 1,024')
FROM perfopt.compare('SELECT pg_sleep(0)', 'SELECT pg_sleep(0.002)', iterations => 2);
SELECT ok(ratio BETWEEN 0.5 AND 2 AND ratio_low < ratio_high, 'the same statement takes about as long')
FROM perfopt.compare('SELECT sum(n) FROM items', 'SELECT sum(n) FROM items', iterations => 10);
SELECT is(iterations || ' ' || rounds, '7 7', 'one run of each in a round') FROM perfopt.compare('SELECT 1', 'SELECT 1', iterations => 1, repeat => 7);
SELECT ok(stopped_early AND NOT significant AND faster = 'neither' AND rounds < 6, 'too few rounds tell nothing')
FROM perfopt.compare('SELECT pg_sleep(0.05)', 'SELECT 1', max_time => '100 ms');

-- rows
SELECT is(same('SELECT * FROM items', 'SELECT * FROM items ORDER BY id DESC'), 'true 2000 2000', 'the order does not matter');
SELECT is(same('SELECT id AS a FROM items', 'SELECT id AS b FROM items'), 'true 2000 2000', 'nor do names of columns');
SELECT is(same('VALUES (1), (1), (2)', 'VALUES (1), (2), (2)'), 'false 3 3 1 rows only in a, 1 only in b; the first is a: (1)', 'how often a row comes does');
SELECT is(same('SELECT id FROM items', 'SELECT id FROM items WHERE id > 2'), 'false 2000 1998 2 rows only in a, 0 only in b; the first is a: (1)', 'rows that are missing');
SELECT is(same('SELECT 1.0', 'SELECT 1.00'), 'false 1 1 1 rows only in a, 1 only in b; the first is a: (1.0)', 'rows are compared as text');
SELECT is(same('SELECT 1', 'SELECT 1::bigint'), 'false 1 1 column 1 is integer in a, bigint in b', 'columns have to have the same types');
SELECT is(same('SELECT 1', 'SELECT 1, 2'), 'false 1 1 a has 1 columns, b has 2', 'and number');
SELECT is(same('SELECT NULL::text', 'SELECT '''''), 'false 1 1 1 rows only in a, 1 only in b; the first is b: ("")', 'null is not the empty text');
SELECT is(same('SELECT ''a,b'', ''c''', 'SELECT ''a'', ''b,c'''), 'false 1 1 1 rows only in a, 1 only in b; the first is a: ("a,b",c)', 'nor do columns run into each other');
SELECT is(same('SELECT FROM items', 'SELECT FROM items'), 'true 2000 2000', 'rows without columns');
SELECT is(same('SELECT x FROM (VALUES (ROW(1, ''a''))) v (x)', 'SELECT ROW(1, ''a'')'), 'true 1 1', 'rows in rows');
SELECT is(same('SELECT (i).* FROM items i', 'TABLE items'), 'true 2000 2000', 'a row type taken apart');
SELECT is(same('SELECT repeat(''é'', 1000)', 'SELECT 1::text'), 'false 1 1 1 rows only in a, 1 only in b; the first is b: (1)', 'long rows');
SELECT is(same('SELECT id FROM items WHERE id < $1', 'SELECT id FROM items WHERE id <= $1', ROW(11), ROW(10::bigint)), 'true 10 10', 'each with its own parameters');
SELECT is(same('SELECT id FROM items WHERE id < $1', 'SELECT id FROM items WHERE $1 > id', ROW(11)), 'true 10 10', 'or with the same');
SET LOCAL work_mem = '64kB';
SELECT is(same('SELECT i, md5(i::text) FROM generate_series(1, 30000) i', 'SELECT 30001 - i, md5((30001 - i)::text) FROM generate_series(1, 30000) i'), 'true 30000 30000', 'more than fits into work_mem');
RESET work_mem;

-- statements that write
SELECT is(same('UPDATE items SET n = 0', 'UPDATE items SET n = 0 WHERE id <= 5'), 'false 2000 5 a changes 2000 rows, b 5', 'rows that are changed are counted');
SELECT is(same('DELETE FROM items RETURNING id', 'SELECT id FROM items'), 'true 2000 2000', 'or returned');
SELECT is(count(*) || ' ' || sum(n), '2000 2001000', 'all is rolled back') FROM items;

SELECT throws_ok($$ SELECT perfopt.compare('SELECT 1', 'VACUUM') $$, '0A000', 'perfopt.compare() cannot run VACUUM', 'a statement it does not take');
SELECT throws_ok($$ SELECT perfopt.compare('SELECT 1', 'SELECT 1', repeat => 5) $$, '22023', 'repeat must be at least 6', 'too few rounds');

SELECT * FROM finish();
ROLLBACK;
