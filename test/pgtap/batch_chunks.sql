-- run_in_batches(): how tables are cut, what is run, what is refused.
SELECT plan(69);
SET client_min_messages = error;
\set VERBOSITY terse

CREATE TABLE chunks_rows AS
    SELECT i AS id, 0 AS n, i % 3 AS kind, i::text AS note FROM generate_series(1, 5000) i;
ALTER TABLE chunks_rows ADD PRIMARY KEY (id);

-- What is run
CALL perfopt.run_in_batches('chunks_rows', 'UPDATE chunks_rows SET n = n + 1 WHERE id BETWEEN $1 AND $2',
    batch_size => 700, workers => 1) \gset
SELECT results_eq('SELECT n, count(*) FROM chunks_rows GROUP BY 1', $$VALUES (1, 5000::bigint)$$, 'a statement: each row once');
SELECT results_eq(format('SELECT target, state, rows_done, keys_done, keys_estimated, percent, chunks_done > 2, chunks_pending,
        chunks_failed, errors, workers, last_error, finished_at > started_at FROM perfopt.batch_jobs WHERE id = %s', :job),
    $$VALUES ('public.chunks_rows', 'done', 5000::bigint, 5000::bigint, 5000::bigint, 100::numeric, true, 0::bigint,
        0::bigint, 0::bigint, 0::bigint, NULL, true)$$, 'the job tells');
SELECT is(sum(keys), 5000::numeric, 'chunks cover the table') FROM perfopt.batch_chunk WHERE job = :job;
SELECT is_empty(format('SELECT lower_bound FROM (SELECT *, lag(upper_bound) OVER (ORDER BY id) AS before FROM perfopt.batch_chunk WHERE job = %s) c
    WHERE before[1]::int + 1 <> lower_bound[1]::int', :job), '... without gaps');
SELECT ok(max(keys) <= 7000 AND min(keys) >= 100 AND count(DISTINCT keys) > 1, 'their size adapts, within limits') FROM perfopt.batch_chunk WHERE job = :job;
CALL perfopt.run_in_batches('chunks_rows', set_list => 'n = n + 1', where_clause => 'kind = 1 -- not all', batch_size => 300);
SELECT results_eq('SELECT kind, n, count(*) FROM chunks_rows GROUP BY 1, 2 ORDER BY 1',
    $$VALUES (0, 1, 1666::bigint), (1, 2, 1667), (2, 1, 1667)$$, 'set_list and where_clause');
CREATE TABLE chunks_prices (kind int, price int);
INSERT INTO chunks_prices VALUES (0, 10), (1, 20), (2, 30);
CALL perfopt.run_in_batches('chunks_rows', set_list => 'n = p.price FROM chunks_prices p', where_clause => 'p.kind = chunks_rows.kind');
SELECT results_eq('SELECT DISTINCT kind, n FROM chunks_rows ORDER BY 1', 'SELECT kind, price FROM chunks_prices', 'set_list with FROM');
CALL perfopt.run_in_batches('chunks_rows', 'DELETE FROM chunks_rows WHERE id >= $1 AND id <= $2 AND kind = 2', batch_size => 1000);
SELECT is(count(*), 3333::bigint, 'DELETE') FROM chunks_rows;
CREATE TABLE chunks_copy (id int, kind int);
CALL perfopt.run_in_batches('chunks_rows', 'INSERT INTO chunks_copy SELECT id, kind FROM chunks_rows WHERE id BETWEEN $1 AND $2');
SELECT results_eq('SELECT id, kind FROM chunks_copy ORDER BY 1', 'SELECT id, kind FROM chunks_rows ORDER BY 1', 'INSERT ... SELECT');
CREATE PROCEDURE chunks_procedure(a int, b int) LANGUAGE sql AS $$ UPDATE chunks_rows SET n = -1 WHERE id BETWEEN a AND b $$;
CALL perfopt.run_in_batches('chunks_rows', 'CALL chunks_procedure($1, $2)', batch_size => 1000);
SELECT results_eq('SELECT DISTINCT n FROM chunks_rows', 'VALUES (-1)', 'CALL');

-- Without statistics, too, cuts are found along the index, each row read once
CREATE TABLE chunks_fresh WITH (autovacuum_enabled = off) AS SELECT i AS id FROM generate_series(1, 50000) i;
ALTER TABLE chunks_fresh ADD PRIMARY KEY (id);
CALL perfopt.run_in_batches('chunks_fresh', 'SELECT WHERE $1 > $2', batch_size => 500, workers => 1, chunk_duration => '1 ms');
SELECT pg_stat_force_next_flush();
SELECT cmp_ok(idx_tup_read, '<', 100000::bigint, 'a table never analyzed is cut along its index') FROM pg_stat_user_indexes WHERE relname = 'chunks_fresh';

-- ... and bloat is not taken for rows
ANALYZE chunks_fresh;
UPDATE chunks_fresh SET id = id;
CALL perfopt.run_in_batches('chunks_fresh', 'SELECT WHERE $1 > $2', wait => false) \gset
SELECT is(estimated_rows, 50000::float8, 'an estimate of rows does not grow with bloat') FROM perfopt.batch_job WHERE id = :job;
CALL perfopt.batch_wait(:job);

-- Keys
CREATE TABLE "Hostile ""T"" %s" ("Key ""1"" $1" text COLLATE "C", "drop" timestamptz, n int DEFAULT 0, PRIMARY KEY ("Key ""1"" $1", "drop"));
INSERT INTO "Hostile ""T"" %s" SELECT k, timestamptz '2024-02-03 04:05:06.789' + i * interval '1 us', 0
  FROM generate_series(1, 300) i, unnest(ARRAY['', '''', '\', '{NULL,"}', E'a\nb', 'ä', '$1', ':chunk']) k;
SET DateStyle = 'SQL, DMY';
SET TimeZone = 'Asia/Kathmandu';
CALL perfopt.run_in_batches('"Hostile ""T"" %s"', set_list => 'n = n + 1', batch_size => 7, workers => 1, chunk_duration => '1 ms');
SELECT results_eq('SELECT n, count(*) FROM "Hostile ""T"" %s" GROUP BY 1', 'VALUES (1, 2400::bigint)', 'text and time, with hostile names and values');
CALL perfopt.run_in_batches('"Hostile ""T"" %s"', 'UPDATE "Hostile ""T"" %s" SET n = n + 1 WHERE ("Key ""1"" $1", "drop") BETWEEN ($1, $2) AND ($3, $4)', batch_size => 99);
SELECT results_eq('SELECT n, count(*) FROM "Hostile ""T"" %s" GROUP BY 1', 'VALUES (2, 2400::bigint)', 'a composite key in a statement');
RESET DateStyle;
RESET TimeZone;

CREATE TABLE chunks_types (u uuid NOT NULL UNIQUE, f float8 NOT NULL, x numeric NOT NULL, b bytea NOT NULL, d date NOT NULL,
    c char(9) NOT NULL, e boolean NOT NULL, i interval NOT NULL, r int4range NOT NULL, a int[] NOT NULL, n int DEFAULT 0);
INSERT INTO chunks_types SELECT md5(i::text)::uuid, CASE i WHEN 1 THEN 'NaN' WHEN 2 THEN '-Infinity' ELSE i / 3.0::float8 END,
    CASE i WHEN 1 THEN 'NaN' ELSE i / 7.0 END, decode(md5(i::text), 'hex'), date '2000-01-01' + i, ' ' || i, i % 2 = 0,
    i * interval '1 h', int4range(i, i + 1), ARRAY[i, NULL, i], 0 FROM generate_series(1, 400) i;
CREATE INDEX ON chunks_types (f); CREATE INDEX ON chunks_types (x); CREATE INDEX ON chunks_types (b); CREATE INDEX ON chunks_types (d DESC);
CREATE INDEX ON chunks_types (c); CREATE INDEX ON chunks_types (e, i); CREATE INDEX ON chunks_types (i DESC, r DESC); CREATE INDEX ON chunks_types (a);
SET extra_float_digits = -10;
SET IntervalStyle = iso_8601;
CALL perfopt.run_in_batches('chunks_types', set_list => 'n = n + 1', batch_size => 30, workers => 1);
CALL perfopt.run_in_batches('chunks_types', set_list => 'n = n + 1', key => '{f}', batch_size => 30, workers => 1);
CALL perfopt.run_in_batches('chunks_types', set_list => 'n = n + 1', key => '{x}', batch_size => 30, workers => 1);
CALL perfopt.run_in_batches('chunks_types', set_list => 'n = n + 1', key => '{b}', batch_size => 30, workers => 1);
CALL perfopt.run_in_batches('chunks_types', set_list => 'n = n + 1', key => '{d}', batch_size => 30, workers => 1);
CALL perfopt.run_in_batches('chunks_types', set_list => 'n = n + 1', key => '{c}', batch_size => 30, workers => 1);
CALL perfopt.run_in_batches('chunks_types', set_list => 'n = n + 1', key => '{e}', batch_size => 30, workers => 1);
CALL perfopt.run_in_batches('chunks_types', set_list => 'n = n + 1', key => '{e,i}', batch_size => 30, workers => 1);
CALL perfopt.run_in_batches('chunks_types', set_list => 'n = n + 1', key => '{i,r}', batch_size => 30, workers => 1);
CALL perfopt.run_in_batches('chunks_types', set_list => 'n = n + 1', key => '{a}', batch_size => 30, workers => 1);
RESET extra_float_digits;
RESET IntervalStyle;
SELECT results_eq('SELECT n, count(*) FROM chunks_types GROUP BY 1', 'VALUES (10, 400::bigint)', 'keys of many types, also not unique, each row once a job');

CREATE DOMAIN chunks_domain AS text CHECK (VALUE <> '');
CREATE TYPE chunks_enum AS ENUM ('z', 'y', 'x');
CREATE TABLE chunks_domains (k chunks_domain PRIMARY KEY, e chunks_enum NOT NULL, n int DEFAULT 0, UNIQUE (e, k));
INSERT INTO chunks_domains SELECT 'k' || i, (enum_range(NULL::chunks_enum))[1 + i % 3] FROM generate_series(1, 100) i;
CALL perfopt.run_in_batches('chunks_domains', set_list => 'n = n + 1', batch_size => 7, workers => 1);
CALL perfopt.run_in_batches('chunks_domains', set_list => 'n = n + 1', key => '{e,k}', batch_size => 7, workers => 1);
SELECT results_eq('SELECT n, count(*) FROM chunks_domains GROUP BY 1', 'VALUES (2, 100::bigint)', 'domains and enums');

-- Partitions
CREATE TABLE chunks_parted (id int, region text, n int DEFAULT 0, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE chunks_parted_a PARTITION OF chunks_parted FOR VALUES IN ('a', 'b');
CREATE TABLE chunks_parted_c PARTITION OF chunks_parted DEFAULT PARTITION BY HASH (id);
CREATE TABLE chunks_parted_c0 PARTITION OF chunks_parted_c FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE chunks_parted_c1 PARTITION OF chunks_parted_c FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO chunks_parted SELECT i, chr(97 + i % 4) FROM generate_series(1, 2000) i;
CALL perfopt.run_in_batches('chunks_parted', set_list => 'n = n + 1', batch_size => 130) \gset
SELECT results_eq('SELECT n, count(*) FROM chunks_parted GROUP BY 1', 'VALUES (1, 2000::bigint)', 'a partitioned table');
SELECT is(keys_estimated, 2000::bigint, 'its rows are counted together') FROM perfopt.batch_jobs WHERE id = :job;

-- Nothing at all, and ends
CREATE TABLE chunks_empty (id int PRIMARY KEY, n int);
CALL perfopt.run_in_batches('chunks_empty', set_list => 'n = 1') \gset
SELECT results_eq(format('SELECT state, rows_done, chunks_done FROM perfopt.batch_jobs WHERE id = %s', :job), $$VALUES ('done', 0::bigint, 0::bigint)$$, 'an empty table');
INSERT INTO chunks_empty VALUES (2147483647, 0);
CALL perfopt.run_in_batches('chunks_empty', set_list => 'n = n + 1');
SELECT results_eq('SELECT n FROM chunks_empty', 'VALUES (1)', 'a single row');

-- Without a key
CREATE TABLE chunks_keyless (i int, n int, note text);
INSERT INTO chunks_keyless SELECT i, 0, repeat('x', 200) FROM generate_series(1, 4000) i;
-- the first half's pages are full, those of the second half have room
DELETE FROM chunks_keyless WHERE i > 2000;
INSERT INTO chunks_keyless VALUES (0, 0, '');
VACUUM (TRUNCATE off) chunks_keyless;
CALL perfopt.run_in_batches('chunks_keyless', set_list => 'n = n + 1, note = note || ''xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx''', batch_size => 50, workers => 1) \gset
SELECT results_eq('SELECT n, count(*) FROM chunks_keyless GROUP BY 1', 'VALUES (1, 2001::bigint)', 'ctid ranges: rows that move into later chunks are not done again');
SELECT cmp_ok(chunks_done, '>', 5::bigint, '... of several chunks') FROM perfopt.batch_jobs WHERE id = :job;
CALL perfopt.run_in_batches('chunks_rows', set_list => 'n = 100', key => '{ctid}', batch_size => 500);
SELECT results_eq('SELECT DISTINCT n FROM chunks_rows', 'VALUES (100)', 'ctid ranges where there is a key, when asked for');
CALL perfopt.run_in_batches('chunks_keyless', 'DELETE FROM chunks_keyless WHERE ctid BETWEEN $1 AND $2 AND i > 100', batch_size => 500);
SELECT is(count(*), 101::bigint, 'a statement about ctid') FROM chunks_keyless;

-- Failing rows are set aside, the others are done
CREATE TABLE chunks_bad (id int PRIMARY KEY, n int, CHECK (n <> 1 OR id NOT IN (1, 500, 501, 999)));
INSERT INTO chunks_bad SELECT i, 0 FROM generate_series(1, 1000) i;
CALL perfopt.run_in_batches('chunks_bad', set_list => 'n = n + 1', batch_size => 250) \gset
SELECT results_eq('SELECT n, count(*) FROM chunks_bad GROUP BY 1 ORDER BY 1', 'VALUES (0, 4::bigint), (1, 996)', 'failing rows are set aside');
SELECT results_eq(format('SELECT lower_bound[1], upper_bound[1], sqlstate, message FROM perfopt.batch_failed_chunks WHERE job = %s ORDER BY lower_bound[1]::int', :job),
    $$SELECT id::text, id::text, '23514', 'new row for relation "chunks_bad" violates check constraint "chunks_bad_check"' FROM chunks_bad WHERE n = 0 ORDER BY id$$, '... with their errors');
SELECT results_eq(format('SELECT state, rows_done, keys_done, chunks_failed, last_sqlstate FROM perfopt.batch_jobs WHERE id = %s', :job),
    $$VALUES ('done', 996::bigint, 1000::bigint, 4::bigint, '23514')$$, 'the job tells');
ALTER TABLE chunks_bad DROP CONSTRAINT chunks_bad_check;
CREATE TABLE chunks_many (k int NOT NULL, bad boolean, CHECK (bad IS DISTINCT FROM (k = 3)));
INSERT INTO chunks_many SELECT i % 5 FROM generate_series(1, 500) i;
CREATE INDEX ON chunks_many (k);
CALL perfopt.run_in_batches('chunks_many', set_list => 'bad = true', key => '{k}', batch_size => 1000) \gset many_
SELECT results_eq(format('SELECT lower_bound, upper_bound, keys FROM perfopt.batch_failed_chunks WHERE job = %s', :many_job),
    $$VALUES ('{3}'::text[], '{3}'::text[], 100::bigint)$$, 'all rows of one value are set aside together');
SELECT throws_ok(format('SELECT perfopt.batch_resume(%s)', :job), '55000', format('job %s is done', :job), 'a job that is done');
SELECT lives_ok(format('SELECT perfopt.batch_resume(%s, true)', :job), 'what failed is tried again');
CALL perfopt.batch_wait(:job);
SELECT results_eq('SELECT n, count(*) FROM chunks_bad GROUP BY 1', 'VALUES (1, 1000::bigint)', '... and nothing else');
SELECT throws_ok(format('SELECT perfopt.batch_resume(%s, true)', :job), '55000', NULL, 'nothing has failed any more');
SELECT throws_ok(format('SELECT perfopt.batch_cancel(%s)', :job), '55000', NULL, 'what is done cannot be cancelled');
SELECT throws_ok(format('SELECT perfopt.batch_pause(%s)', :job), '55000', NULL, '... nor paused');
SELECT throws_ok('SELECT perfopt.batch_pause(-1)', '42704', 'there is no job -1', 'no such job');
CREATE FUNCTION chunks_raise(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN IF i > 0 THEN RAISE EXCEPTION 'never'; END IF; RETURN i; END $$;
SELECT max(id) AS job FROM perfopt.batch_jobs \gset
\set ON_ERROR_STOP 0
CALL perfopt.run_in_batches('chunks_bad', set_list => 'n = chunks_raise(n)', max_failed => 3);
SELECT is(:'SQLSTATE', '54000'::text, 'too many fail: the call fails');
\set ON_ERROR_STOP 1
SELECT results_eq(format('SELECT state, chunks_failed >= 4, last_sqlstate, last_error FROM perfopt.batch_jobs WHERE id > %s', :job),
    $$VALUES ('failed', true, '54000', 'more than 3 chunks have failed')$$, 'too many fail');
SELECT results_eq('SELECT DISTINCT n FROM chunks_bad', 'VALUES (1)', '... and nothing was done');

-- wait => false, also in a transaction block
BEGIN;
CALL perfopt.run_in_batches('chunks_bad', set_list => 'n = n + 1', wait => false) \gset
SELECT is(state, 'running', 'queued') FROM perfopt.batch_jobs WHERE id = :job;
ROLLBACK;
SELECT is_empty(format('SELECT 1 FROM perfopt.batch_jobs WHERE id = %s', :job), 'rolled back');
BEGIN;
CALL perfopt.run_in_batches('chunks_bad', set_list => 'n = n + 1', wait => false) \gset
COMMIT;
CALL perfopt.batch_wait(:job);
SELECT results_eq('SELECT n, count(*) FROM chunks_bad GROUP BY 1', 'VALUES (2, 1000::bigint)', 'done');

-- In another procedure
DO $$ DECLARE job bigint; BEGIN
    CALL perfopt.run_in_batches('chunks_bad', set_list => 'n = n + 1 / (id % 100)', batch_size => 100, job => job);
    UPDATE chunks_bad SET n = n + 10 WHERE job > 0;
END $$;
SELECT results_eq('SELECT n, count(*) FROM chunks_bad GROUP BY 1 ORDER BY 1', 'VALUES (12, 990::bigint), (13, 10)', 'called by a procedure: also when chunks fail');
SELECT is(count(*), 10::bigint, 'rows set aside') FROM perfopt.batch_failed_chunks WHERE sqlstate = '22012';

-- Refused
CREATE TEMP TABLE chunks_temp (i int PRIMARY KEY);
CREATE VIEW chunks_view AS SELECT * FROM chunks_rows;
CREATE FUNCTION pg_temp.refused(call text, OUT refusal text) LANGUAGE plpgsql AS $$ BEGIN
    EXECUTE 'CALL perfopt.run_in_batches(' || call || ', wait => false)';
EXCEPTION WHEN OTHERS THEN refusal := SQLSTATE; END $$;
CREATE TABLE chunks_generated (a int NOT NULL, g int GENERATED ALWAYS AS (a * 2) STORED NOT NULL PRIMARY KEY, b int NOT NULL UNIQUE);
CREATE TABLE chunks_parent (i int PRIMARY KEY, n int);
CREATE TABLE chunks_child (extra int, i int, n int, PRIMARY KEY (i)) PARTITION BY RANGE (i);
CREATE TABLE chunks_grandchild PARTITION OF chunks_child DEFAULT;
CREATE TABLE chunks_heir (PRIMARY KEY (i)) INHERITS (chunks_parent);
CREATE TABLE chunks_nulls (i int NOT NULL PRIMARY KEY, j int NOT NULL UNIQUE);
CREATE TABLE chunks_no_nulls () INHERITS (chunks_nulls);
DO $$ BEGIN
    ALTER TABLE chunks_no_nulls ALTER j DROP NOT NULL;
EXCEPTION WHEN invalid_table_definition THEN	-- from 18 on it cannot be dropped
    ALTER TABLE chunks_nulls ALTER j DROP NOT NULL;
END $$;
CREATE TABLE chunks_triggered (i int, n int);
CREATE TRIGGER t AFTER UPDATE ON chunks_triggered FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE TABLE chunks_nullable (i int UNIQUE, j int NOT NULL, n int);
SELECT is(pg_temp.refused(call), sqlstate, call) FROM (VALUES
    ('NULL, set_list => ''n = 1''', '22004'),
    ('''chunks_rows''', '22023'),
    ('''chunks_rows'', ''SELECT $1, $2'', set_list => ''n = 1''', '22023'),
    ('''chunks_rows'', ''UPDATE chunks_rows SET n = 1''', '22023'),
    ('''chunks_rows'', ''SELECT $1, $2; SELECT 1''', '42601'),
    ('''chunks_rows'', ''UPDATE chunks_rows SET nn = 1 WHERE id BETWEEN $1 AND $2''', '42703'),
    ('''chunks_rows'', set_list => ''id = id + 1''', '0A000'),
    ('''chunks_rows'', set_list => ''n = 1 / 0''', '22012'),
    ('''chunks_rows'', set_list => ''n = 1'', batch_size => 0', '22023'),
    ('''chunks_rows'', set_list => ''n = 1'', key => ''{nothing}''', '42703'),
    ('''chunks_rows'', set_list => ''n = 1'', key => ''{n}''', '55000'),
    ('''chunks_nullable'', set_list => ''n = 1'', key => ''{i}''', '55000'),
    ('''chunks_keyless'', ''UPDATE chunks_keyless SET n = 1 WHERE ctid BETWEEN $1 AND $2''', '0A000'),
    ('''chunks_generated'', set_list => ''a = a + 1''', '0A000'),
    ('''chunks_rows'', ''WITH u AS (UPDATE chunks_rows SET id = -id WHERE id BETWEEN $1 AND $2) SELECT 1''', '0A000'),
    ('''chunks_keyless'', ''WITH u AS (UPDATE chunks_keyless SET n = 1 WHERE ctid BETWEEN $1 AND $2) SELECT 1''', '0A000'),
    ('''chunks_rows'', ''INSERT INTO chunks_rows SELECT id FROM chunks_rows WHERE id BETWEEN $1 AND $2 ON CONFLICT (id) DO UPDATE SET id = 1''', '0A000'),
    ('''chunks_rows'', ''UPDATE chunks_view SET id = id + 1 WHERE id BETWEEN $1 AND $2''', '0A000'),
    ('''chunks_child'', ''UPDATE chunks_grandchild SET i = i + 1 WHERE i BETWEEN $1 AND $2''', '0A000'),
    ('''chunks_grandchild'', ''UPDATE chunks_child SET i = i + 1 WHERE i BETWEEN $1 AND $2''', '0A000'),
    ('''chunks_heir'', ''UPDATE chunks_parent SET i = i + 1 WHERE i BETWEEN $1 AND $2''', '0A000'),
    ('''chunks_nulls'', set_list => ''i = 1'', key => ''{j}''', '55000'),
    ('''chunks_triggered'', set_list => ''n = 1''', '0A000'),
    ('''chunks_child'', ''UPDATE chunks_grandchild SET n = i + 1 WHERE i BETWEEN $1 AND $2''', NULL),
    ('''chunks_temp'', set_list => ''i = 1''', '0A000'),
    ('''chunks_view'', set_list => ''n = 1''', '42809')) refused(call, sqlstate);

DROP TABLE chunks_fresh, chunks_rows, chunks_prices, chunks_copy, "Hostile ""T"" %s", chunks_types, chunks_domains, chunks_parted, chunks_empty,
    chunks_keyless, chunks_bad, chunks_nullable, chunks_generated, chunks_parent, chunks_child, chunks_triggered, chunks_nulls, chunks_many CASCADE;
DROP FUNCTION chunks_raise;
DROP PROCEDURE chunks_procedure;
DROP TYPE chunks_domain, chunks_enum;
SELECT * FROM finish();
