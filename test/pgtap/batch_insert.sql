-- perfopt.batch_insert() and the functions beside it: shapes of rows, options,
-- and that an INSERT's meaning holds.
\set QUIET on
SET client_min_messages = warning;
BEGIN;
SELECT plan(161);

CREATE ROLE batch_one;
CREATE ROLE batch_two;
CREATE SCHEMA batch_insert;
GRANT USAGE ON SCHEMA batch_insert TO batch_one, batch_two;
SET search_path = batch_insert, public;

CREATE TABLE users (id serial PRIMARY KEY, name text, email varchar(20) UNIQUE, age int CHECK (age > 0),
    tags text[], born date DEFAULT '2000-01-01');

-- Shapes
SELECT results_eq($$SELECT * FROM perfopt.batch_insert('users', '[{"name":"a"},{"name":"b","age":3,"born":null}]')$$,
    'VALUES (2::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::bigint)', 'jsonb as an untyped literal');
SELECT results_eq('SELECT id, name, age, born FROM users ORDER BY id',
    $$VALUES (1, 'a', NULL::int, '2000-01-01'::date), (2, 'b', 3, NULL)$$, 'a missing key is the default, null is null');
SELECT is((perfopt.batch_insert('users', '[{"name":"c"}]'::jsonb)).inserted, 1::bigint, 'jsonb');
SELECT is((perfopt.batch_insert('users', '[{"name":"d"}]'::json)).inserted, 1::bigint, 'json');
SELECT is((perfopt.batch_insert('users', '[{"name":"e"}]'::text)).inserted, 1::bigint, 'text');
SELECT is((perfopt.batch_insert('users', '{"name":"f"}'::jsonb)).inserted, 1::bigint, 'a single object');
SELECT is((perfopt.batch_insert('users', '[]'::jsonb)).inserted, 0::bigint, 'no rows');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', NULL::jsonb)$$, '22004', 'rows must not be null', 'null');
SELECT is((perfopt.batch_insert('users', '{}'::users[])).inserted, 0::bigint, 'an empty array');
PREPARE as_jsonb(jsonb) AS SELECT (perfopt.batch_insert('users', $1)).inserted;
SELECT results_eq($$EXECUTE as_jsonb('[{"name":"g"}]')$$, 'VALUES (1::bigint)', 'a parameter');
PREPARE as_cast AS SELECT (perfopt.batch_insert('users', $1::jsonb, on_conflict => $2)).inserted;
SELECT results_eq($$EXECUTE as_cast('[{"name":"h"}]', 'nothing')$$, 'VALUES (1::bigint)', 'a parameter with a cast, and an option');
PREPARE as_rows(users[]) AS SELECT (perfopt.batch_insert('users', $1)).inserted;
SELECT results_eq($$EXECUTE as_rows('{"(50,i,,,,)"}')$$, 'VALUES (1::bigint)', 'an array of rows as parameter');
SELECT is((perfopt.batch_insert('users', ARRAY[(51,'j','j@x',5,'{x,y}',NULL)]::users[])).inserted, 1::bigint, 'an array of rows');
SELECT results_eq('SELECT name, age, tags, born FROM users WHERE id = 51', $$VALUES ('j', 5, '{x,y}'::text[], NULL::date)$$, 'with all columns');
SELECT is((perfopt.batch_insert('users', ARRAY[(51,'k','k@x',5,'{x,y}',NULL)]::users[], columns => '{name,age}')).inserted, 1::bigint, 'of some columns');
SELECT results_eq($$SELECT id <> 51, email, born FROM users WHERE name = 'k'$$, $$VALUES (true, NULL::varchar, '2000-01-01'::date)$$, 'the others have defaults');
CREATE TYPE some_columns AS (age text, name varchar);
SELECT is((perfopt.batch_insert('users', ARRAY[('7','l')]::some_columns[])).inserted, 1::bigint, 'another composite type');
SELECT is((SELECT age FROM users WHERE name = 'l'), 7, 'whose fields are cast');
SELECT is((perfopt.batch_insert('users', '{name,email}', ARRAY['m','n'], ARRAY['m@x', NULL])).inserted, 2::bigint, 'columns');
SELECT is((perfopt.batch_insert('users', ARRAY['name','age'], ARRAY['o'], ARRAY['8'])).inserted, 1::bigint, 'columns, as text');
SELECT is((SELECT age FROM users WHERE name = 'o'), 8, 'which is read');
SELECT is((perfopt.batch_insert('users', '{name,tags,born}', ARRAY['p'], ARRAY['{q,r}'], ARRAY['2001-02-03'])).inserted, 1::bigint, 'arrays and dates as text');
SELECT results_eq($$SELECT tags, born FROM users WHERE name = 'p'$$, $$VALUES ('{q,r}'::text[], '2001-02-03'::date)$$, '... are read');
SELECT is((perfopt.batch_insert('users', '{name}', ARRAY['q'], perfopt.insert_options(on_error => 'skip'))).inserted, 1::bigint, 'columns with options');
SELECT is((perfopt.batch_insert('users', '{name}', ARRAY[NULL::text])).inserted, 1::bigint, 'null in an array');
SELECT is((perfopt.batch_insert('users', '[{}]')).inserted, 1::bigint, 'nothing but defaults');
SELECT is((perfopt.batch_insert('users', ARRAY[NULL]::users[], columns => '{name}')).inserted, 1::bigint, 'a null row has null columns');

-- What cannot be rows
SELECT throws_ok($$SELECT perfopt.batch_insert(NULL, '[]'::jsonb)$$, '22004', NULL, 'no target');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', 1)$$, '42804', NULL, 'a number');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '{1}'::int[])$$, '42804', NULL, 'numbers');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', ARRAY[ROW(1)])$$, '42804', NULL, 'rows without names');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '5'::jsonb)$$, '22023', NULL, 'a JSON number');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[5]'::jsonb)$$, '22023', 'row 1 of the batch is not a JSON object', 'JSON numbers');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[')$$, '22P02', NULL, 'no JSON');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[{"nome":1}]')$$, '42703', 'column "nome" of relation batch_insert.users does not exist', 'an unknown key');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '{nome}', '{1}'::text[])$$, '42703', NULL, 'an unknown column');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '{name,name}', '{1}'::text[], '{2}'::text[])$$, '42701', NULL, 'a column twice');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '{name,age}', '{1}'::text[])$$, '22023', '2 columns are named, but 1 arrays given', 'a missing array');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '{name,age}', '{1}'::text[], '{1,2}'::int[])$$, '2202E', 'arrays of values differ in length', 'lengths');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[{"name":"a"}]', on_conflict => 'update', conflict_columns => '{id}', update_columns => '{emial}')$$, '42703', 'column "emial" of relation batch_insert.users does not exist', 'no such column to update');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '{name}', '{a}'::text[], perfopt.insert_options(on_conflict => 'nothing', conflict_columns => '{emial}'))$$, '42703', 'column "emial" of relation batch_insert.users does not exist', 'no such column to conflict');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '{name}', '{a}'::text[], perfopt.insert_options(), 5)$$, '22023', 'insert_options must be the last argument', 'options in front of something');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '{name}', NULL::text[])$$, '22004', NULL, 'a null array');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '{name}', '{{1,2},{3,4}}'::text[])$$, '2202E', NULL, 'two dimensions');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '{age}', '{t}'::bool[])$$, '42804', NULL, 'a type that cannot be assigned');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '{email}', ARRAY[repeat('x', 21)])$$, '22001', NULL, 'a text that is too long is not cut');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', jsonb_build_array(jsonb_build_object('email', repeat('x', 21))))$$, '22001', NULL, '... nor in jsonb');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[]'::jsonb, on_conflict => 'replace')$$, '22023', NULL, 'on_conflict');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[]'::jsonb, on_error => 'ignore')$$, '22023', NULL, 'on_error');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[]'::jsonb, batch_size => 0)$$, '22023', NULL, 'batch_size');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[{"id":1,"name":"a"}]', columns => '{id,nosuch}')$$, '42703', NULL, 'columns that are not there');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[{"id":1}]', on_conflict => 'update', update_columns => '{}')$$, '22023', 'update_columns must not be empty', 'an empty list is not one that is not given');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[{"id":1}]', columns => '{}')$$, '22023', 'columns must not be empty', '... of none');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '{}', '{1}'::int[])$$, '22023', 'columns must not be empty', '... also before arrays');
SELECT throws_ok($$SELECT perfopt.batch_insert(4294967295::regclass, '[]'::jsonb)$$, '42P01', NULL, 'no table');
SELECT throws_ok($$SELECT perfopt.batch_row(1)$$, '55000', NULL, 'batch_row() is for the statements only');

-- Which row it was
CREATE FUNCTION context_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE context text;
BEGIN
    EXECUTE statement;
    RETURN 'none';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
    RETURN substring(context FROM 'row \d+ of the batch');
END $$;
SELECT is(context_of($$SELECT perfopt.batch_insert('users', '{age}', '{1,2,0,3,-1}'::int[])$$), 'row 3 of the batch', 'a CHECK');
SELECT is(context_of($$SELECT perfopt.batch_insert('users', '{age}', '{1,2,3,x}'::text[])$$), 'row 4 of the batch', 'a cast');
SELECT is(context_of($$SELECT perfopt.batch_insert('users', '[{"age":1},{"age":"x"}]')$$), 'row 2 of the batch', 'a value in jsonb');
SELECT is(context_of($$SELECT perfopt.batch_insert('users', '{email}', '{r@x,s@x,r@x}'::text[])$$), 'row 3 of the batch', 'a duplicate');

-- Conflicts
TRUNCATE users RESTART IDENTITY;
SELECT perfopt.batch_insert('users', '{id,name,email}', '{1,2}'::int[], '{a,b}'::text[], '{a@x,b@x}'::text[]) \g /dev/null
SELECT results_eq($$SELECT inserted, updated, skipped FROM perfopt.batch_insert('users', '{id,name}', '{1,3}'::int[], '{a2,c}'::text[],
    perfopt.insert_options(on_conflict => 'nothing'))$$, 'VALUES (1::bigint, 0::bigint, 1::bigint)', 'nothing');
SELECT results_eq($$SELECT inserted, updated, skipped FROM perfopt.batch_insert('users', '{id,name}', '{1,4}'::int[], '{a3,d}'::text[],
    perfopt.insert_options(on_conflict => 'update'))$$, 'VALUES (1::bigint, 1::bigint, 0::bigint)', 'update, by the primary key');
SELECT results_eq('SELECT name, email FROM users ORDER BY id', $$VALUES ('a3', 'a@x'::varchar), ('b', 'b@x'), ('c', NULL), ('d', NULL)$$, 'the columns that were given');
SELECT results_eq($$SELECT inserted, updated, skipped FROM perfopt.batch_insert('users', '[{"email":"b@x","name":"b2","age":2}]',
    on_conflict => 'update', conflict_columns => '{email}', update_columns => '{age}')$$, 'VALUES (0::bigint, 1::bigint, 0::bigint)', 'by other columns, setting some');
SELECT results_eq('SELECT name, age FROM users WHERE id = 2', $$VALUES ('b', 2)$$, 'only those');
SELECT results_eq($$SELECT inserted, updated, skipped FROM perfopt.batch_insert('users', '[{"id":2},{"id":6}]', on_conflict => 'update')$$,
    'VALUES (1::bigint, 0::bigint, 1::bigint)', 'nothing but keys');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[{"id":1,"name":"x"},{"id":1,"name":"y"}]', on_conflict => 'update')$$, '21000', NULL, 'a row twice');
SELECT results_eq($$SELECT inserted, updated, skipped, rejected FROM perfopt.batch_insert('users', '[{"id":1,"name":"x"},{"id":1,"name":"y"}]', on_conflict => 'update', on_error => 'skip')$$,
    'VALUES (0::bigint, 2::bigint, 0::bigint, 0::bigint)', '... but not when statements may be several');
SELECT results_eq($$SELECT ordinal, action, key FROM perfopt.batch_insert_keys('users', '{id,name}', '{1,7,2,8}'::int[], '{x,y,z,w}'::text[],
    perfopt.insert_options(on_conflict => 'nothing'))$$,
    $$VALUES (1::bigint, 'skipped', NULL::jsonb), (2, 'inserted', '{"id": 7}'), (3, 'skipped', NULL), (4, 'inserted', '{"id": 8}')$$, 'keys, and nothing');
SELECT results_eq($$SELECT ordinal, action, key FROM perfopt.batch_insert_keys('users', '{id,name}', '{9,1,2,10}'::int[], '{x,y,z,w}'::text[],
    perfopt.insert_options(on_conflict => 'update', key_columns => '{id,name}'))$$,
    $$VALUES (1::bigint, 'inserted', '{"id": 9, "name": "x"}'::jsonb), (2, 'updated', '{"id": 1, "name": "y"}'), (3, 'updated', '{"id": 2, "name": "z"}'), (4, 'inserted', '{"id": 10, "name": "w"}')$$,
    'keys, and update');
SELECT results_eq($$SELECT ordinal, action, key, error_sqlstate FROM perfopt.batch_insert_keys('users', '[{"id":20,"age":1},{"id":21,"age":0},{"id":"x"},{"id":1},{"id":22}]', on_error => 'skip')$$,
    $$VALUES (1::bigint, 'inserted', '{"id": 20}'::jsonb, NULL), (2, 'rejected', NULL, '23514'), (3, 'rejected', NULL, '22P02'), (4, 'rejected', NULL, '23505'), (5, 'inserted', '{"id": 22}', NULL)$$,
    'keys, and rejected rows');
CREATE TABLE without_key (a int, b int);
SELECT throws_ok($$SELECT perfopt.batch_insert('without_key', '[{"a":1}]', on_conflict => 'update')$$, '22023', NULL, 'update without a key');
SELECT results_eq($$SELECT * FROM perfopt.batch_insert_keys('without_key', '[{"a":1}]')$$,
    $$VALUES (1::bigint, 'inserted', NULL::jsonb, NULL::text, NULL::text)$$, 'no key');

-- Six kinds of bad rows in a thousand
CREATE TABLE teams (id int PRIMARY KEY);
INSERT INTO teams SELECT generate_series(0, 9);
CREATE TABLE players (id int PRIMARY KEY, name text NOT NULL, age int CHECK (age < 100), team int REFERENCES teams);
CREATE FUNCTION no_dragons() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF new.name = 'dragon' THEN RAISE 'no dragons' USING ERRCODE = 'ZZ001'; END IF; RETURN new; END $$;
CREATE TRIGGER no_dragons BEFORE INSERT ON players FOR EACH ROW EXECUTE FUNCTION no_dragons();
CREATE VIEW given AS SELECT i AS ordinal, (CASE i WHEN 50 THEN '7' WHEN 200 THEN '3000000000' ELSE i::text END) AS id,
    (CASE i WHEN 300 THEN 'dragon' WHEN 1000 THEN NULL ELSE 'p' || i END) AS name,
    (CASE i WHEN 1 THEN '100' ELSE (i % 90)::text END) AS age, (CASE i WHEN 700 THEN '10' ELSE (i % 10)::text END) AS team
    FROM generate_series(1, 1000) i;
PREPARE columns(int) AS SELECT c.* FROM (SELECT array_agg(id ORDER BY ordinal) AS ids, array_agg(name ORDER BY ordinal) AS names,
    array_agg(age ORDER BY ordinal) AS ages, array_agg(team ORDER BY ordinal) AS teams FROM given) AS g,
    perfopt.batch_insert('players', '{id,name,age,team}', ids, names, ages, teams, perfopt.insert_options(on_error => 'skip', batch_size => $1)) AS c;
PREPARE objects AS SELECT c.* FROM perfopt.batch_insert('players',
    (SELECT jsonb_agg(to_jsonb(g) - 'ordinal' ORDER BY ordinal) FROM given AS g), on_error => 'skip') AS c;
CREATE VIEW reports AS SELECT ordinal, sqlstate, constraint_name, column_name, payload->>'id' AS id FROM perfopt.rejected_rows WHERE target = 'batch_insert.players' ORDER BY ordinal;
PREPARE expected AS VALUES (1::bigint, '23514', 'players_age_check', NULL::text, '1'), (50, '23505', 'players_pkey', NULL, '7'), (200, '22003', NULL, NULL, '3000000000'),
    (300, 'ZZ001', NULL, NULL, '300'), (700, '23503', 'players_team_fkey', NULL, '700'), (1000, '23502', NULL, 'name', '1000');
SELECT results_eq('SELECT inserted, rejected FROM (SELECT 1) x, LATERAL (SELECT c.* FROM (SELECT array_agg(id ORDER BY ordinal) AS ids, array_agg(name ORDER BY ordinal) AS names,
    array_agg(age ORDER BY ordinal) AS ages, array_agg(team ORDER BY ordinal) AS teams FROM given) AS g,
    perfopt.batch_insert(''players'', ''{id,name,age,team}'', ids, names, ages, teams, perfopt.insert_options(on_error => ''skip'')) AS c) c',
    'VALUES (994::bigint, 6::bigint)', '994 and 6, of columns as text');
SELECT results_eq('TABLE reports', 'expected', 'six reports');
SELECT results_eq('SELECT count(*), count(DISTINCT id), min(name) FROM players', $$VALUES (994::bigint, 994::bigint, 'p10')$$, 'the others are stored');
SELECT cmp_ok(perfopt.delete_rejected_rows(), '>=', 6::bigint, 'reports can be deleted');
TRUNCATE players;
EXECUTE columns(7) \gset
SELECT is(ARRAY[:inserted, :updated, :skipped, :rejected], '{994,0,0,6}', 'the same by seven rows');
SELECT is((SELECT count(*) FROM perfopt.rejected_rows WHERE batch = :batch), 6::bigint, 'under the number that is returned');
SELECT results_eq('TABLE reports', 'expected', 'six reports');
SELECT perfopt.delete_rejected_rows() \g /dev/null
TRUNCATE players;
EXECUTE objects \gset
SELECT is(ARRAY[:inserted, :updated, :skipped, :rejected], '{994,0,0,6}', 'the same as jsonb');
SELECT results_eq('TABLE reports', 'expected', 'six reports');
SELECT results_eq('SELECT count(*), count(DISTINCT id), min(name) FROM players', $$VALUES (994::bigint, 994::bigint, 'p10')$$, 'the others are stored');
SELECT is((SELECT array_agg(detail ORDER BY ordinal) FROM perfopt.rejected_rows WHERE ordinal IN (50, 700)),
    ARRAY['Key (id)=(7) already exists.', 'Key (team)=(10) is not present in table "teams".'], 'details');
SELECT is((perfopt.delete_rejected_rows((SELECT min(batch) FROM perfopt.rejected_rows))), 6::bigint, 'a batch can be deleted');
SELECT is(perfopt.delete_rejected_rows(-1), 0::bigint, 'another one is not there');

-- What the insert buffer is given
CREATE FUNCTION rows_for_buffer(target regclass, rows jsonb[], OUT action int, OUT sqlstate text, OUT message text, OUT detail text, OUT constraint_name text)
    RETURNS SETOF record LANGUAGE c AS 'perfopt', 'perfopt_test_batch_rows';
TRUNCATE players;
PREPARE buffered AS SELECT action, sqlstate, constraint_name FROM rows_for_buffer('players', ARRAY['{"id":1,"name":"a","team":1}', '{"id":1,"name":"b"}', '{"id":"x"}', '{"id":2,"name":"dragon"}',
    '5', '{"id":3,"name":"c","team":77}', '{"nome":1}', '{"id":4}', '{"id":5,"name":"e"}', '{"id":6,"name":"f","age":100}']::jsonb[]);
SELECT results_eq('buffered', $$VALUES (0, NULL, NULL), (3, '23505', 'players_pkey'), (3, '22P02', NULL), (3, 'ZZ001', NULL),
    (3, '22023', NULL), (3, '23503', 'players_team_fkey'), (3, '42703', NULL), (3, '23502', NULL), (0, NULL, NULL), (3, '23514', 'players_age_check')$$, 'a verdict for each row');
SELECT results_eq('SELECT id FROM players ORDER BY id', 'VALUES (1), (5)', 'the good ones are in');
SELECT results_eq($$SELECT action, sqlstate, detail FROM rows_for_buffer('users', ARRAY['{"id":500}', '{"id":500}', '{"id":501,"age":0}', '{"id":502}']::jsonb[])$$,
    $$VALUES (0, NULL, NULL), (3, '23505', 'Key (id)=(500) already exists.'), (3, '23514', 'Failing row contains (501, null, null, 0, null, 2000-01-01).'), (0, NULL, NULL)$$, '... of a table that is written directly');
CREATE FUNCTION skip_odd() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF new.id % 2 = 1 THEN RETURN NULL; END IF; RETURN new; END';
CREATE TRIGGER skip_odd BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION skip_odd();
SELECT results_eq($$SELECT action FROM rows_for_buffer('users', ARRAY['{"id":601}', '{"id":602}', '{"id":603}', '{"id":604}']::jsonb[])$$, 'VALUES (2), (0), (2), (0)', '... and whom a trigger skips');
DROP TRIGGER skip_odd ON users;
SELECT throws_ok($$SELECT * FROM rows_for_buffer(4294967295::regclass, '{"{}"}')$$, '42P01', NULL, 'no table is no fault of rows');
SELECT perfopt.delete_rejected_rows() \g /dev/null

-- Elements that are null
CREATE TABLE positives (id int CHECK (id > 0));
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[null]')$$, '22023', 'row 1 of the batch is not a JSON object', 'null is no row');
SELECT results_eq($$SELECT ordinal, action, error_sqlstate FROM perfopt.batch_insert_keys('positives', '[null,{"id":1},null,{"id":0},5,{"id":2}]', on_error => 'skip')$$,
    $$VALUES (1::bigint, 'rejected', '22023'), (2, 'inserted', NULL), (3, 'rejected', '22023'), (4, 'rejected', '23514'), (5, 'rejected', '22023'), (6, 'inserted', NULL)$$, '... and is rejected as one');
SELECT is((SELECT array_agg(payload ORDER BY ordinal) FROM perfopt.rejected_rows WHERE batch = (SELECT max(batch) FROM perfopt.rejected_rows)),
    ARRAY['null', 'null', '{"id": 0}', '5']::jsonb[], '... as which it is noted');

-- All of them bad, and what is wrong with the statement itself
SELECT results_eq($$SELECT inserted, rejected FROM perfopt.batch_insert('players', '{id,name,team}', ARRAY(SELECT generate_series(2001, 2100)), ARRAY(SELECT 'x' FROM generate_series(1, 100)), ARRAY(SELECT 99 FROM generate_series(1, 100)), perfopt.insert_options(on_error => 'skip'))$$,
    'VALUES (0::bigint, 100::bigint)', 'all rejected');
CREATE FUNCTION closed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'closed'; END $$;
CREATE TRIGGER closed BEFORE INSERT ON without_key FOR EACH STATEMENT EXECUTE FUNCTION closed();
SELECT throws_ok($$SELECT perfopt.batch_insert('without_key', '[{"a":1}]', on_error => 'skip')$$, 'P0001', 'closed', 'a trigger that fires before any row fails the call');
DROP TRIGGER closed ON without_key;
CREATE TRIGGER closed AFTER INSERT ON without_key FOR EACH STATEMENT EXECUTE FUNCTION closed();
SELECT results_eq($$SELECT inserted, rejected FROM perfopt.batch_insert('without_key', '[{"a":1},{"a":2}]', on_error => 'skip')$$, 'VALUES (0::bigint, 2::bigint)', 'one that fires after them rejects them');
DROP TRIGGER closed ON without_key;

CREATE FUNCTION lost() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'lost' USING ERRCODE = 'connection_failure'; END $$;
CREATE TRIGGER lost BEFORE INSERT ON without_key FOR EACH ROW EXECUTE FUNCTION lost();
SELECT throws_ok($$SELECT perfopt.batch_insert('without_key', '[{"a":1}]', on_error => 'skip')$$, '08006', 'lost', 'a lost connection fails the call');
DROP TRIGGER lost ON without_key;

-- Many of them bad: what is not stored does not fill the table either
CREATE TABLE once (id int PRIMARY KEY);
INSERT INTO once VALUES (1);
SELECT results_eq($$SELECT inserted, rejected FROM perfopt.batch_insert('once', '{id}', ARRAY(SELECT 1 FROM generate_series(1, 10000)), perfopt.insert_options(on_error => 'skip'))$$,
    'VALUES (0::bigint, 10000::bigint)', 'nothing but duplicates');
SELECT cmp_ok(pg_relation_size('once'), '<', 2000000::bigint, '... leave little behind');
SELECT results_eq($$SELECT inserted, rejected FROM perfopt.batch_insert('once', '{id}', ARRAY(SELECT i / 2 FROM generate_series(0, 9999) i), perfopt.insert_options(on_error => 'skip'))$$,
    'VALUES (4999::bigint, 5001::bigint)', 'every other one');
SELECT results_eq('SELECT count(*) FILTER (WHERE ordinal % 2 = 0), count(*) FILTER (WHERE ordinal % 2 = 1) FROM perfopt.rejected_rows WHERE target = ''batch_insert.once'' AND batch = (SELECT max(batch) FROM perfopt.rejected_rows)',
    'VALUES (5000::bigint, 1::bigint)', '... and which');

-- Identity and generated columns, domains
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE DOMAIN required AS text NOT NULL;
CREATE DOMAIN short AS varchar(3);
CREATE TYPE pair AS (x int, y text);
CREATE TABLE kinds (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, other int GENERATED BY DEFAULT AS IDENTITY,
    n positive, double int GENERATED ALWAYS AS (n * 2) STORED, r required DEFAULT 'r', s short, p pair, ps pair[], j jsonb, js json,
    f float8, d numeric(6,2), b bool, bits bit(3), small smallint, big bigint, moment timestamptz, c char(4));
SELECT is((perfopt.batch_insert('kinds', '[{"n":3}]')).inserted, 1::bigint, 'generated');
SELECT results_eq('SELECT id, other, n::int, double, r::text FROM kinds', $$VALUES (1::bigint, 1, 3, 6, 'r')$$, 'as INSERT does');
SELECT throws_ok($$SELECT perfopt.batch_insert('kinds', '[{"id":3}]')$$, '428C9', NULL, 'GENERATED ALWAYS cannot be given');
SELECT throws_ok($$SELECT perfopt.batch_insert('kinds', '{double}', '{3}'::int[])$$, '428C9', NULL, '... nor a stored column');
SELECT throws_ok($$SELECT perfopt.batch_insert('kinds', '[{"n":0}]')$$, '23514', NULL, 'a domain');
SELECT throws_ok($$SELECT perfopt.batch_insert('kinds', '[{"r":null}]')$$, '23502', NULL, 'a domain that is not null');
SELECT throws_ok($$SELECT perfopt.batch_insert('kinds', '{s}', '{abcd}'::text[])$$, '22001', NULL, 'a domain with a length');
SELECT throws_ok($$SELECT perfopt.batch_insert('kinds', '{bits}', '{1011}'::text[])$$, '22026', NULL, 'bits are not cut');
SELECT throws_ok($$SELECT perfopt.batch_insert('kinds', '[{"small":1.5}]')$$, '22P02', NULL, 'no rounding');
SELECT throws_ok($$SELECT perfopt.batch_insert('kinds', '[{"small":40000}]')$$, '22003', NULL, 'no wrapping around');
\set many '[{"n":3,"r":"x","s":"abc","p":{"x":1,"y":"z"},"ps":[{"x":2},null],"j":{"a":[1]},"js":"t","f":1.5,"d":3.14159,"b":true,"bits":"101","small":-7,"big":9007199254740993,"moment":"2024-01-02 03:04:05+00","c":"ab"},{"n":"4","r":5,"s":1,"p":null,"ps":"{}","j":null,"js":[1,2],"f":"NaN","d":1e2,"b":"no","bits":"000","small":"12","big":-0,"moment":null,"c":12}]'
DELETE FROM kinds;
SELECT perfopt.batch_insert('kinds', :'many') \g /dev/null
CREATE TABLE kinds_again (LIKE kinds INCLUDING ALL);
INSERT INTO kinds_again (other, n, r, s, p, ps, j, js, f, d, b, bits, small, big, moment, c)
    SELECT nextval('kinds_other_seq') - 2, n, r, s, p, ps, j, js, f, d, b, bits, small, big, moment, c FROM jsonb_populate_recordset(NULL::kinds, :'many');
SELECT is((SELECT array_agg((to_jsonb(k) - 'id' - 'other')::text ORDER BY id) FROM kinds k), (SELECT array_agg((to_jsonb(k) - 'id' - 'other')::text ORDER BY id) FROM kinds_again k),
    'values are those of jsonb_populate_recordset()');
SELECT results_eq($$SELECT inserted, rejected FROM perfopt.batch_insert('kinds', (SELECT array_agg(k) FROM kinds k))$$, 'VALUES (2::bigint, 0::bigint)', 'rows of the table can be inserted again');
SELECT results_eq($$SELECT inserted, rejected FROM perfopt.batch_insert('kinds', '[{"p":"(x,)"},{"ps":{"a":1}},{"p":{"x":1}},{"id":1}]', on_error => 'skip')$$, 'VALUES (1::bigint, 3::bigint)', 'composites that are none');

-- Times, dates and numbers are read as the server reads them
CREATE FUNCTION read_as_server(type text, given jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE one text; other text;
BEGIN
    EXECUTE format('CREATE TEMP TABLE IF NOT EXISTS %I (v %s)', 'read_' || type, type);
    EXECUTE format('TRUNCATE pg_temp.%I', 'read_' || type);
    BEGIN
        PERFORM perfopt.batch_insert(format('pg_temp.%I', 'read_' || type)::regclass, jsonb_build_array(jsonb_build_object('v', given)));
        EXECUTE format('SELECT coalesce(v::text, ''null'') FROM pg_temp.%I', 'read_' || type) INTO one;
    EXCEPTION WHEN OTHERS THEN one := SQLSTATE;
    END;
    BEGIN
        EXECUTE format('SELECT coalesce(v::text, ''null'') FROM jsonb_to_record($1) AS r(v %s)', type) INTO other USING jsonb_build_object('v', given);
    EXCEPTION WHEN OTHERS THEN other := SQLSTATE;
    END;
    RETURN CASE WHEN one IS DISTINCT FROM other THEN format('%s %s: %s, not %s', type, given, one, other) END;
END $$;
SET LOCAL TimeZone = 'America/St_Johns';
SET LOCAL DateStyle = 'SQL, DMY';
SELECT is((SELECT string_agg(read_as_server(type, to_jsonb(text)), E'\n') FROM unnest('{timestamptz,timestamp,date,timestamptz(3)}'::text[]) type,
    unnest('{2024-01-02,2024-02-29,2023-02-29,1900-02-29,2000-02-29,0001-01-01,0000-01-01,9999-12-31,2024-13-01,2024-00-10,2024-01-00,2024-01-32,2024-1-2,20240102,
        2024-01-02T03:04:05,2024-01-02 03:04:05,2024-01-02T03:04:05Z,2024-01-02T03:04:05+00:00,2024-01-02T03:04:05+05:30,2024-01-02 03:04:05-03,2024-01-02T03:04:05-03:30,
        2024-01-02T03:04:05.1+00:00,2024-01-02T03:04:05.123456+00:00,2024-01-02T03:04:05.1234567+00:00,2024-01-02T03:04:05.+00:00,2024-01-02T23:59:59.999999-14:00,
        2024-01-02T24:00:00+00:00,2024-01-02T23:60:00+00:00,2024-01-02T23:59:60+00:00,2024-01-02T03:04:05+15:00,2024-01-02T03:04:05+16:00,2024-01-02T03:04:05+05:60,2024-01-02T03:04:05+05:30:10,
        2024-01-02T03:04:05+0530,2024-01-02T03:04:05+5,1582-10-10,1969-12-31T23:59:59+00:00,1700-01-01T00:00:00.5+00:00,infinity,epoch,now BC,"",2024-01-02T,2024-01-02T03,2024-01-02T03:04,2024-01-02T03:04:05+,"2024-01-02T03:04:05+00:00 ", 2024-01-02T03:04:05+00:0,
        2024-01-02T0a:04:05+00:00,12024-01-02T03:04:05+00:00,2024-01-02x03:04:05+00:00}'::text[]) text), NULL, 'times and dates');
SELECT is((SELECT string_agg(read_as_server(type, number::jsonb), E'\n') FROM unnest('{smallint,int,bigint,numeric,float8,real,text,"numeric(8,2)",boolean}'::text[]) type,
    unnest('{0,-0,1,-1,9999,10000,10001,-10000,99999999,100000000,32767,32768,-32768,-32769,2147483647,2147483648,-2147483648,-2147483649,9999999999999999,10000000000000000,12345678901234567,
        9223372036854775807,9223372036854775808,-9223372036854775808,-9223372036854775809,1.0,1.5,-1.5,0.1,0.0001,0.00001,1e3,1e4,1e16,1e20,1e-5,1.50e1,123456789.12345678901234567890,1e400,true,false}'::text[]) number), NULL, 'numbers');
RESET TimeZone;
RESET DateStyle;

-- Views, rules, partitions, inheritance
SELECT setval('users_id_seq', 1000) \g /dev/null
CREATE VIEW adults AS SELECT id, name, age FROM users WHERE age >= 18 WITH CHECK OPTION;
SELECT results_eq($$SELECT ordinal, action, key, error_sqlstate FROM perfopt.batch_insert_keys('adults', '[{"name":"v","age":20},{"name":"w","age":3}]', on_error => 'skip', key_columns => '{name}')$$,
    $$VALUES (1::bigint, 'inserted', '{"name": "v"}'::jsonb, NULL), (2, 'rejected', NULL, '44000')$$, 'an updatable view and its CHECK OPTION');
CREATE TABLE logged (what text);
CREATE VIEW instead AS SELECT what FROM logged;
CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.what = 'skip' THEN RETURN NULL; END IF; INSERT INTO logged VALUES ('instead ' || new.what); RETURN new; END $$;
CREATE TRIGGER instead INSTEAD OF INSERT ON instead FOR EACH ROW EXECUTE FUNCTION instead();
SELECT results_eq($$SELECT ordinal, action FROM perfopt.batch_insert_keys('instead', '{what}', '{a,skip,b}'::text[])$$,
    $$VALUES (1::bigint, 'inserted'), (2, 'skipped'), (3, 'inserted')$$, 'a view with an INSTEAD OF trigger');
SELECT results_eq('SELECT what FROM logged ORDER BY what', $$VALUES ('instead a'), ('instead b')$$, 'which has done it');
CREATE TABLE ruled (a int CHECK (a > 0));
CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO logged VALUES ('also ' || new.a);
SELECT results_eq($$SELECT inserted, rejected FROM perfopt.batch_insert('ruled', '{a}', '{1,0,2}'::int[], perfopt.insert_options(on_error => 'skip'))$$, 'VALUES (2::bigint, 1::bigint)', 'a rule');
SELECT results_eq($$SELECT what FROM logged WHERE what LIKE 'also%' ORDER BY what$$, $$VALUES ('also 1'), ('also 2')$$, 'is followed');
CREATE TABLE parted (id int PRIMARY KEY, what text) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_2 (what text, id int NOT NULL);
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES FROM (10) TO (20);
SELECT results_eq($$SELECT ordinal, action, key, error_sqlstate FROM perfopt.batch_insert_keys('parted', '{id,what}', '{1,11,21,2,1}'::int[], '{a,b,c,d,e}'::text[], perfopt.insert_options(on_error => 'skip', on_conflict => 'update'))$$,
    $$VALUES (1::bigint, 'inserted', '{"id": 1}'::jsonb, NULL), (2, 'inserted', '{"id": 11}', NULL), (3, 'rejected', NULL, '23514'), (4, 'inserted', '{"id": 2}', NULL), (5, 'updated', '{"id": 1}', NULL)$$,
    'a partitioned table');
SELECT results_eq('SELECT tableoid::regclass::text, id, what FROM parted ORDER BY id', $$VALUES ('parted_1', 1, 'e'), ('parted_1', 2, 'd'), ('parted_2', 11, 'b')$$, 'rows are where they belong');
CREATE TABLE "Hos""tile %s" ("a ""b" int PRIMARY KEY, "%d'" text, "C" int DEFAULT 5, "drop" int);
ALTER TABLE "Hos""tile %s" DROP COLUMN "drop";
SELECT results_eq($$SELECT action, key FROM perfopt.batch_insert_keys('"Hos""tile %s"', '[{"a \"b":1,"%d''":"x"},{"a \"b":1,"%d''":"y","C":6}]', on_conflict => 'update')$$,
    $$VALUES ('inserted', '{"a \"b": 1}'::jsonb), ('updated', '{"a \"b": 1}')$$, 'hostile names');
SELECT is((perfopt.batch_insert('"Hos""tile %s"', ARRAY[(2,'z',7)]::"Hos""tile %s"[])).inserted, 1::bigint, '... of a row type');
SELECT is((SELECT array_agg(t::text ORDER BY t) FROM "Hos""tile %s" t), '{"(1,y,6)","(2,z,7)"}', '... are names');

-- Triggers that insert in batches themselves, and catch
CREATE TABLE tree (id int PRIMARY KEY, depth int CHECK (depth < 4));
CREATE FUNCTION grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.depth < 4 THEN
        PERFORM perfopt.batch_insert('tree', '{id,depth}', ARRAY[new.id * 2, new.id * 2 + 1], ARRAY[new.depth + 1, new.depth + 1],
            perfopt.insert_options(on_error => 'skip'));
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER grow BEFORE INSERT ON tree FOR EACH ROW EXECUTE FUNCTION grow();
SELECT results_eq($$SELECT ordinal, action, key FROM perfopt.batch_insert_keys('tree', '{id,depth}', '{1,100,300}'::int[], '{1,2,3}'::int[])$$,
    $$VALUES (1::bigint, 'inserted', '{"id": 1}'::jsonb), (2, 'inserted', '{"id": 100}'), (3, 'inserted', '{"id": 300}')$$, 'a trigger that inserts in batches');
SELECT results_eq('SELECT depth, count(*) FROM tree GROUP BY 1 ORDER BY 1', 'VALUES (1, 1::bigint), (2, 3::bigint), (3, 7::bigint)', 'and what it inserts');
CREATE FUNCTION caught() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM perfopt.batch_insert('tree', '{id,depth}', '{1000,1}'::int[], '{3,3}'::int[]);
    RETURN 'none';
EXCEPTION WHEN unique_violation THEN
    PERFORM perfopt.batch_insert('tree', '{id,depth}', '{1001,1}'::int[], '{3,3}'::int[], perfopt.insert_options(on_error => 'skip'));
    RETURN 'caught';
END $$;
SELECT is(caught(), 'caught', 'an exception block around it');
SELECT results_eq('SELECT id FROM tree WHERE id >= 1000 ORDER BY id', 'VALUES (1001)', 'holds');

-- A table that changes between two calls
SELECT perfopt.batch_insert('without_key', '[{"a":1,"b":2}]') \g /dev/null
ALTER TABLE without_key ALTER b TYPE text USING b::text, ADD c int DEFAULT 7;
SELECT perfopt.batch_insert('without_key', '[{"a":3,"b":"x"}]') \g /dev/null
SELECT results_eq('SELECT a, b, c FROM without_key WHERE a = 3', $$VALUES (3, 'x', 7)$$, 'ALTER TABLE is seen');
DROP TABLE without_key;
CREATE TABLE without_key (b int, a int);
SELECT perfopt.batch_insert('without_key', '[{"a":1,"b":2}]') \g /dev/null
SELECT results_eq('SELECT * FROM without_key', 'VALUES (2, 1)', '... and another table of the name');
-- More statements than are kept
DO $$ BEGIN FOR i IN 1 .. 80 LOOP
    EXECUTE format('CREATE TABLE many_%s (a int)', i);
    PERFORM perfopt.batch_insert(format('many_%s', i)::regclass, '[{"a":1}]'::jsonb);
END LOOP; END $$;
SELECT is((SELECT count(*) FROM many_1) + (SELECT count(*) FROM many_80), 2::bigint, 'many tables');
DO $$ DECLARE columns text; BEGIN
    SELECT string_agg(format('c%s int', i), ', ') INTO columns FROM generate_series(1, 40) i;
    EXECUTE format('CREATE TABLE wide (%s)', columns);
END $$;
SELECT is((perfopt.batch_insert('wide', (SELECT jsonb_agg(jsonb_build_object('c' || 1 + i % 40, i)) FROM generate_series(0, 199) i))).inserted, 200::bigint, 'many sets of keys');
SELECT is((SELECT count(*) FROM wide WHERE c40 IS NOT NULL AND c1 IS NULL), 5::bigint, 'each to its column');

CREATE TABLE memory (what text, bytes bigint);
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO memory SELECT name, total_bytes FROM pg_backend_memory_contexts; RETURN NULL; END $$;
CREATE TRIGGER look AFTER INSERT ON wide FOR EACH ROW WHEN (new.c1 = 4000) EXECUTE FUNCTION look();
SELECT is((perfopt.batch_insert('wide', (SELECT jsonb_agg(jsonb_build_object('c' || 1 + i % 40, i) ORDER BY i) FROM generate_series(1, 4000) i))).inserted, 4000::bigint, 'many times many sets of keys');
SELECT cmp_ok((SELECT max(bytes) FROM memory WHERE what = 'SPI Proc'), '<', 1000000::bigint, '... leave no memory behind');

-- Privileges, row level security, and whose rejected rows are whose
CREATE TABLE private (id int PRIMARY KEY, open text, closed text DEFAULT 'c', owner name DEFAULT current_user);
GRANT INSERT (id, open), SELECT (id) ON private TO batch_one, batch_two;
ALTER TABLE private ENABLE ROW LEVEL SECURITY;
CREATE TABLE mine (id int CHECK (id > 0));
GRANT INSERT ON mine TO batch_one;
CREATE POLICY own ON private USING (owner = current_user) WITH CHECK (owner = current_user AND id > 0);
SET ROLE batch_one;
SELECT is((perfopt.batch_insert('private', '[{"id":1,"open":"x"}]')).inserted, 1::bigint, 'a role with privileges for the columns');
SELECT throws_ok($$SELECT perfopt.batch_insert('private', '[{"id":2,"closed":"x"}]')$$, '42501', 'permission denied for table private', 'not for this one');
SELECT throws_ok($$SELECT perfopt.batch_insert('private', '[{"id":2,"closed":"x"}]', on_error => 'skip')$$, '42501', NULL, '... which is not a fault of rows');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[{}]')$$, '42501', NULL, 'nor for another table');
SELECT throws_ok($$SELECT perfopt.batch_insert('users', '[]'::jsonb)$$, '42501', NULL, '... even without rows, as that would lock it');
SELECT throws_ok($$SELECT perfopt.batch_insert_path('users')$$, '42501', NULL, '... and to ask about it');
SELECT throws_ok($$SELECT perfopt.batch_insert('private', '[{"id":2,"open":"x"}]', on_conflict => 'update')$$, '42501', NULL, 'an update takes its privilege');
SELECT throws_ok($$SELECT * FROM perfopt.batch_insert_keys('private', '[{"id":2}]', key_columns => '{closed}')$$, '42501', NULL, 'to see columns takes its own');
SELECT throws_ok($$SELECT perfopt.batch_insert('private', '[{"id":-1}]')$$, '42501', NULL, 'a policy');
SELECT results_eq($$SELECT ordinal, action, key, error_sqlstate FROM perfopt.batch_insert_keys('private', '[{"id":-1},{"id":3}]', on_error => 'skip')$$,
    $$VALUES (1::bigint, 'rejected', NULL::jsonb, '42501'), (2, 'inserted', '{"id": 3}', NULL)$$, '... is of a row');
SELECT results_eq('SELECT role, ordinal, payload FROM perfopt.rejected_rows', $$VALUES ('batch_one'::regrole, 1::bigint, '{"id": -1}'::jsonb)$$, 'a role sees its rejected rows');
SELECT throws_ok($$INSERT INTO perfopt.rejected_rows (batch, target, role, ordinal, sqlstate, message, payload) VALUES (1, 't', 'batch_two', 1, '00000', 'm', '{}')$$, '42501', NULL, 'and makes none for others');
SELECT throws_ok('DELETE FROM perfopt.rejected_rows', '42501', NULL, 'nor deletes them itself');
SELECT throws_ok('UPDATE perfopt.rejected_rows SET message = $$$$', '42501', NULL, 'nor changes them');
SET ROLE batch_two;
SELECT is_empty('SELECT 1 FROM perfopt.rejected_rows', 'not those of others');
SELECT is(perfopt.delete_rejected_rows(), 0::bigint, 'nor are they deleted by others');
SET ROLE batch_one;
SELECT is(perfopt.delete_rejected_rows(), 1::bigint, 'but by itself');
RESET ROLE;
SET ROLE batch_one;
SET row_security = off;
SELECT results_eq($$SELECT inserted, rejected FROM perfopt.batch_insert('mine', '[{"id":4},{"id":0}]', on_error => 'skip')$$, 'VALUES (1::bigint, 1::bigint)', 'row_security off is for the target');
SELECT is(current_setting('row_security'), 'off', '... and stays so');
RESET row_security;
RESET ROLE;
CREATE SCHEMA batch_hidden;
CREATE TABLE batch_hidden.t (a int);
GRANT INSERT ON batch_hidden.t TO batch_one;
SELECT 'batch_hidden.t'::regclass::oid AS hidden \gset
SELECT is((perfopt.batch_insert(:hidden::regclass, '[{"a":1}]')).inserted, 1::bigint, 'a table in a schema');
SET ROLE batch_one;
SELECT throws_ok(format('SELECT perfopt.batch_insert(%s::regclass, $$[{"a":1}]$$)', :hidden), '42501', 'permission denied for schema batch_hidden', '... which others may not use');
RESET ROLE;

SET TRANSACTION READ ONLY;
SELECT throws_ok($$SELECT perfopt.batch_insert('perfopt.rejected_rows', '[{}]')$$, '25006', NULL, 'a read-only transaction');
SELECT throws_ok($$SELECT perfopt.batch_insert('perfopt.rejected_rows', '[{}]', on_error => 'skip')$$, '25006', NULL, '... is not a fault of rows');

SELECT finish();
ROLLBACK;
