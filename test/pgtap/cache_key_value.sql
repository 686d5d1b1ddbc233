-- cache_get(), cache_set() and the strategies on top of them.
SELECT plan(58);

CREATE ROLE perfopt_kv_other;

-- One session
SELECT is(perfopt.cache_get('kv'), NULL, 'nothing at first');
SELECT is(perfopt.cache_delete('kv'), false, 'nothing to delete');
SELECT lives_ok($$ SELECT perfopt.cache_set('kv', '{"a": [1, 2.50, "x"]}') $$, 'set');
SELECT is(perfopt.cache_get('kv'), '{"a": [1, 2.50, "x"]}', 'and got');
SELECT is(perfopt.cache_get('kv'), '{"a": [1, 2.50, "x"]}', 'and again, from this session''s memory');
SELECT ok(perfopt.cache_ttl('kv') BETWEEN interval '59 min' AND interval '1 h', 'for an hour by default');
SELECT perfopt.cache_set('kv', '2', '1 day');
SELECT is(perfopt.cache_get('kv'), '2', 'set again');
SELECT ok(perfopt.cache_ttl('kv') BETWEEN interval '23 h 59 min' AND interval '1 day', 'for another time');
SELECT perfopt.cache_set('kv', '3', NULL);
SELECT ok(perfopt.cache_ttl('kv') BETWEEN interval '59 min' AND interval '1 h', 'null is the default');
SELECT is(perfopt.cache_delete('kv'), true, 'deleted');
SELECT is(perfopt.cache_get('kv'), NULL, 'gone');
SELECT is(perfopt.cache_ttl('kv'), NULL, 'and has no time to live');
SELECT perfopt.cache_set('', '"empty"'), perfopt.cache_set(repeat('ä', 512), 'null');
SELECT is(perfopt.cache_get(''), '"empty"', 'the empty key is a key');
SELECT is(perfopt.cache_get(repeat('ä', 512)), 'null', 'a key of 1,024 bytes, and JSON''s null');
SELECT perfopt.cache_set('large', (SELECT jsonb_agg(i) FROM generate_series(1, 20000) i));
SELECT is(jsonb_array_length(perfopt.cache_get('large')), 20000, 'a large value');
SELECT perfopt.cache_set('short', '1', '50 ms');
SELECT is(perfopt.cache_get('short'), '1', 'a value with a short time to live');
SELECT pg_sleep(0.1) IS NULL;
SELECT is(perfopt.cache_get('short'), NULL, 'ends');

-- Errors
SELECT throws_ok($$ SELECT perfopt.cache_set(repeat('x', 1025), '1') $$, '22023', NULL, 'too long a key');
SELECT throws_ok($$ SELECT perfopt.cache_get(repeat('x', 1025)) $$, '22023', NULL, 'also to get');
SELECT throws_ok($$ SELECT perfopt.cache_set('kv', '1', '0') $$, '22023', NULL, 'no time to live');
SELECT throws_ok($$ SELECT perfopt.cache_set('kv', '1', '-1 h') $$, '22023', NULL, 'a time to live below zero');
SELECT throws_ok($$ SELECT perfopt.cache_set(NULL, '1') $$, '22004', NULL, 'no key');
SELECT throws_ok($$ SELECT perfopt.cache_set('kv', NULL) $$, '22004', NULL, 'no value');
SELECT is(perfopt.cache_get(NULL), NULL, 'the null key has no value');

-- Transactions and savepoints
SELECT perfopt.cache_set('t', '"committed"');
BEGIN;
SELECT perfopt.cache_set('t', '"outer"');
SELECT is(perfopt.cache_get('t'), '"outer"', 'the writer sees his own');
SAVEPOINT a;
SELECT perfopt.cache_set('t', '"inner"');
SAVEPOINT b;
SELECT is(perfopt.cache_delete('t'), true, 'deletes his own');
SELECT is(perfopt.cache_get('t'), NULL, 'and sees that');
ROLLBACK TO b;
SELECT is(perfopt.cache_get('t'), '"inner"', 'until that is rolled back');
SELECT perfopt.cache_set('t', '"innermost"');
RELEASE b;
SELECT is(perfopt.cache_get('t'), '"innermost"', 'a savepoint released');
ROLLBACK TO a;
SELECT is(perfopt.cache_get('t'), '"outer"', 'with what is around it rolled back');
SAVEPOINT c;
SELECT perfopt.cache_set('t2', '1'), perfopt.cache_set('t', '"last"'), perfopt.cache_set('t3', '3');
RELEASE c;
SAVEPOINT d;
SELECT perfopt.cache_set('t3', '4');
ROLLBACK TO d;
COMMIT;
SELECT is(perfopt.cache_get('t'), '"last"', 'the last one is committed');
SELECT is(perfopt.cache_get('t2') || perfopt.cache_get('t3'), '[1, 3]', 'and the others of that savepoint');
BEGIN;
SELECT perfopt.cache_set('t', '"never"'), perfopt.cache_set('never', '1'), perfopt.cache_delete('t2');
ROLLBACK;
SELECT is(perfopt.cache_get('t'), '"last"', 'what was rolled back was never there');
SELECT is(perfopt.cache_get('never'), NULL, 'nor new keys');
SELECT is(perfopt.cache_get('t2'), '1', 'nor deleted ones');
DO $$
BEGIN
	FOR i IN 1 .. 300 LOOP
		BEGIN
			PERFORM perfopt.cache_set('many' || i % 100, to_jsonb(i));
			IF i > 200 THEN RAISE division_by_zero; END IF;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
END $$;
SELECT is((SELECT sum((perfopt.cache_get('many' || i))::int) FROM generate_series(0, 99) i), sum(i),
	'many subtransactions') FROM generate_series(101, 200) i;

-- Each role has its own
SELECT perfopt.cache_set('mine', '1');
SET ROLE perfopt_kv_other;
SELECT is(perfopt.cache_get('mine'), NULL, 'another role does not see it');
SELECT perfopt.cache_set('mine', '2');
RESET ROLE;
SELECT is(perfopt.cache_get('mine'), '1', 'and does not change it');

-- Where it is not used
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT is(perfopt.cache_get('mine'), NULL, 'SERIALIZABLE goes past the cache');
SELECT perfopt.cache_set('serial', '1');
SELECT is(perfopt.cache_get('serial'), '1', 'but sees its own');
COMMIT;
SELECT is(perfopt.cache_get('serial'), '1', 'which others see, then');
BEGIN READ ONLY;
SELECT lives_ok($$ SELECT perfopt.cache_set('read-only', '1') $$, 'no table is written');
COMMIT;
SELECT is(perfopt.cache_get('read-only'), '1', 'in a read-only transaction');
SELECT perfopt.cache_set('prepared', '1');
BEGIN;
SELECT perfopt.cache_set('prepared', '2');
PREPARE TRANSACTION 'kv';
SELECT is(perfopt.cache_get('prepared'), '1', 'a prepared transaction is not visible');
COMMIT PREPARED 'kv';
SELECT is(perfopt.cache_get('prepared'), NULL, 'and keeps no values');

-- Get or compute
CREATE TABLE kv_rows (id int PRIMARY KEY, note text);
INSERT INTO kv_rows VALUES (1, 'one'), (2, 'two');
SELECT perfopt.cache_track('kv_rows');
SELECT is(perfopt.cache_get_or_compute('rows', 'SELECT id, note FROM kv_rows WHERE id <= $1 ORDER BY id', ROW(2)),
	'[{"id": 1, "note": "one"}, {"id": 2, "note": "two"}]', 'computed');
SELECT is(perfopt.cache_get('rows') -> 1 ->> 'note', 'two', 'and kept');
SELECT is(perfopt.cache_get_or_compute('rows', 'SELECT id, note FROM kv_rows WHERE id <= $1 ORDER BY id', ROW(1)),
	'[{"id": 1, "note": "one"}]', 'other parameters are another result');
UPDATE kv_rows SET note = 'eins' WHERE id = 1;
SELECT is(perfopt.cache_get('rows'), NULL, 'a write to the table ends it');
SELECT is(perfopt.cache_get_or_compute('rows', 'SELECT id, note FROM kv_rows WHERE id <= $1 ORDER BY id', ROW(1)),
	'[{"id": 1, "note": "eins"}]', 'computed again');
SELECT perfopt.cache_set('rows', '"set"');
SELECT is(perfopt.cache_get_or_compute('rows', 'SELECT id, note FROM kv_rows'), '"set"', 'a value that was set stays');
SELECT perfopt.cache_delete('rows');
SELECT is(jsonb_array_length(perfopt.cache_get_or_compute('rows', 'SELECT id, note FROM kv_rows',
	refresh_ahead => '2 h')), 2, 'until it is deleted');
SET "TimeZone" = 'Asia/Tokyo';
SELECT is(perfopt.cache_get('rows'), NULL, 'a session with other settings is not given a computed value');
RESET "TimeZone";

-- Write through
SELECT is(perfopt.cache_write_through('w', '{"id": 3}', 'INSERT INTO kv_rows VALUES ($1, $2), (4, $2)', ROW(3, 'x'::text)), 2::bigint,
	'write-through says how many rows');
SELECT is(perfopt.cache_get('w')::text || count(*), '{"id": 3}2', 'value and rows are there')
	FROM kv_rows WHERE note = 'x';
SELECT throws_ok($$ SELECT perfopt.cache_write_through('w', '4', 'INSERT INTO kv_rows VALUES (3, NULL)') $$, '23505', NULL,
	'the statement''s errors come through');
SELECT is(perfopt.cache_get('w'), '{"id": 3}', 'and nothing is set then');
SELECT throws_ok($$ SELECT perfopt.cache_write_through('w', '4', 'SELECT 1; SELECT 2') $$, '42601', NULL,
	'two statements are refused');

SELECT * FROM finish();
DROP TABLE kv_rows;
DROP ROLE perfopt_kv_other;
