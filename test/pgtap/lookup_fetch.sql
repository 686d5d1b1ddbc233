-- fetch_many(): an answer for each key, whatever keys and relations are.
\set QUIET on
SET client_min_messages = warning;
SELECT plan(65);

CREATE SCHEMA lookup_fetch;
SET search_path = lookup_fetch, public;
CREATE TABLE users (id bigint PRIMARY KEY, email text UNIQUE NOT NULL, gone int, name text, unique_later int,
    UNIQUE (unique_later) DEFERRABLE);
ALTER TABLE users DROP COLUMN gone;
INSERT INTO users SELECT i, 'u' || i || '@x', 'user ' || i, i FROM generate_series(1, 500) i;
CREATE TABLE items (tenant int, code text, price numeric, PRIMARY KEY (tenant, code));
INSERT INTO items VALUES (1, 'a', 1.5), (1, 'b', 2.5), (2, 'a', 3.5), (2, 'x"y', 4.5);

-- ids('...') is what a call returns, as text
CREATE FUNCTION ids(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    EXECUTE 'SELECT string_agg(coalesce(id::text, ''-''), '','' ORDER BY ordinality) FROM ' || call || ' WITH ORDINALITY' INTO result;
    RETURN result;
END $$;

-- Order, duplicates, missing and null keys
SELECT is(ids('perfopt.fetch_many(NULL::users, ARRAY[5, 3, 5, 9999, NULL, 1])'), '5,3,5,-,-,1', 'integers for a bigint key');
SELECT is(ids('perfopt.fetch_many(NULL::users, ARRAY[5, 3]::bigint[])'), '5,3', 'bigints');
SELECT is(ids('perfopt.fetch_many(NULL::users, ARRAY[5, 3]::smallint[])'), '5,3', 'smallints');
SELECT is(ids('perfopt.fetch_many(NULL::users, ARRAY[''5'', ''3''])'), '5,3', 'strings');
SELECT is(ids('perfopt.fetch_many(NULL::users, ''{5,3,NULL}'')'), '5,3,-', 'a literal');
SELECT is(ids('perfopt.fetch_many(NULL::users, ''[2:3]={5,3}'')'), '5,3', 'a literal with bounds');
SELECT is(ids('perfopt.fetch_many(NULL::users, ''{5,3}''::text)'), '5,3', 'a literal as text');
SELECT is(ids('perfopt.fetch_many(NULL::users, ''[5, null, "3"]'')'), '5,-,3', 'jsonb as a literal');
SELECT is(ids('perfopt.fetch_many(NULL::users, ''[5, 3]''::jsonb)'), '5,3', 'jsonb');
SELECT is(ids('perfopt.fetch_many(NULL::users, ''[5, 3]''::json)'), '5,3', 'json');
SELECT is(ids('perfopt.fetch_many(NULL::users, ''[{"id": 5}, {"x": 1, "id": 3}]''::jsonb)'), '5,3', 'objects');
SELECT is(ids('perfopt.fetch_many(NULL::users, ARRAY[ROW(5), ROW(3)])'), '5,3', 'rows with one field');
SELECT is(ids('perfopt.fetch_many(NULL::users, ''{}'')'), NULL, 'no keys');
SELECT is(ids('perfopt.fetch_many(NULL::users, ''[]''::jsonb)'), NULL, 'no keys in jsonb');
SELECT is(ids('perfopt.fetch_many(NULL::users, ARRAY[]::record[])'), NULL, 'no rows as keys');
SELECT is((SELECT count(*) FROM perfopt.fetch_many(NULL::users, ARRAY[9999]) u WHERE u IS NULL), 1::bigint, 'a missing row is all null');
SELECT is((SELECT string_agg(x.u::text, ' ') FROM (SELECT perfopt.fetch_many(NULL::users, ARRAY[2, -2]) u) x), '(2,u2@x,"user 2",2) (,,,)', 'in a target list');
SELECT results_eq('SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY(SELECT (i * 7) % 600 FROM generate_series(1, 3000) i))',
    'SELECT u.* FROM generate_series(1, 3000) i LEFT JOIN users u ON u.id = (i * 7) % 600 ORDER BY i', 'many keys');
SELECT is((SELECT count(*) || ' ' || count(id) FROM perfopt.fetch_many(NULL::users, ARRAY(SELECT i FROM generate_series(1, 100000) i))), '100000 500', '100,000 keys');

-- Other unique keys
SELECT is(ids('perfopt.fetch_many(NULL::users, ARRAY[''u5@x'', ''no'', ''u3@x''], ''{email}'')'), '5,-,3', 'another unique key');
SELECT is(ids('perfopt.fetch_many(NULL::users, ARRAY[''u5@x'']::varchar[], ''{email}'')'), '5', 'varchar for text');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[1], ''{name}'')', '22023', 'columns named by key are not a unique key of relation "users"');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[1], ''{unique_later}'')', '22023', NULL, 'a deferrable key is none');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[1], ''{nope}'')', '42703', 'column "nope" of relation "users" does not exist');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[1], ''{id,id}'')', '42701', NULL, 'a column twice');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[1], ''{}'')', '22023', NULL, 'no column');
CREATE TABLE partly (a int, b int, c int);
CREATE UNIQUE INDEX ON partly (a) WHERE b > 0;
CREATE UNIQUE INDEX ON partly (abs(b));
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::partly, ARRAY[1], ''{a}'')', '22023', NULL, 'a partial index is no key');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::partly, ARRAY[1])', '42704', 'relation "partly" has no primary key');

-- Composite keys
CREATE FUNCTION prices(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    EXECUTE 'SELECT string_agg(coalesce(price::text, ''-''), '','' ORDER BY ordinality) FROM ' || call || ' WITH ORDINALITY' INTO result;
    RETURN result;
END $$;
CREATE TYPE item_key AS (tenant bigint, dropped int, code varchar);
ALTER TYPE item_key DROP ATTRIBUTE dropped;
SELECT is(prices('perfopt.fetch_many(NULL::items, ARRAY[ROW(2, ''a''), ROW(1, ''b''), ROW(2, ''a''), ROW(3, ''a''), ROW(NULL, ''a''), ROW(1, NULL)])'), '3.5,2.5,3.5,-,-,-', 'rows');
SELECT is(prices('perfopt.fetch_many(NULL::items, ARRAY[ROW(2, ''a''), NULL])'), '3.5,-', 'a null row');
SELECT is(prices('perfopt.fetch_many(NULL::items, ARRAY[ROW(''a'', 2), ROW(''b'', 1)], ''{code,tenant}'')'), '3.5,2.5', 'the columns in another order');
SELECT is(prices('perfopt.fetch_many(NULL::items, ARRAY[ROW(2, ''a''), ROW(1, ''b'')]::item_key[])'), '3.5,2.5', 'of a named type');
SELECT is(prices('perfopt.fetch_many(NULL::items, ''[[2, "x\"y"], [1, "b"], [2, null], null]'')'), '4.5,2.5,-,-', 'jsonb arrays');
SELECT is(prices('perfopt.fetch_many(NULL::items, ''[{"code": "a", "tenant": 2}]''::jsonb)'), '3.5', 'jsonb objects');
SELECT is(prices('perfopt.fetch_many(NULL::items, ARRAY[ROW(9999999999, ''a''), ROW(1, ''a'')])'), '-,1.5', 'a number that no row can have');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::items, ARRAY[1, 2])', '42804', 'keys of type integer[] cannot be used for a key of 2 columns');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::items, ARRAY[ROW(1)])', '42804', 'key has 1 fields, but 2 are expected');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::items, ''[[1]]'')', '22023', 'key has 1 elements, but 2 are expected');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::items, ''[{"tenant": 1}]'')', '22023', 'key has no member "code"');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::items, ''[1]'')', '22023', NULL, 'a scalar for a composite key');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::items, ''[[1, [2]]]'')', '22023', NULL, 'an array for a value');

-- Keys that are wrong
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, NULL::int[])', '22004', 'keys must not be null');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, 5)', '42804', 'keys must be an array, not of type integer');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[1.5])', '42804', 'keys of type numeric cannot be used for column "id" of type bigint');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[now()])', '42804', NULL, 'timestamps');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[''x''])', '22P02', 'invalid input syntax for type bigint: "x"');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[[1, 2], [3, 4]])', '2202E', 'keys must be an array of one dimension');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, ''{{1,2},{3,4}}'')', '2202E', NULL, 'two dimensions in a literal');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::users, ''{"a": 1}''::jsonb)', '22023', 'keys must be a jsonb array');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(1, ARRAY[1])', '42804', 'type integer is not the row type of a table or view');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::item_key, ARRAY[1])', '42804', NULL, 'a composite type is no table');

-- Types
CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE DOMAIN code AS varchar(5) CHECK (value <> '');
CREATE TABLE types (id int UNIQUE, n numeric PRIMARY KEY, c char(5) UNIQUE, v code UNIQUE, i text COLLATE anycase UNIQUE, u uuid UNIQUE, e bool UNIQUE);
INSERT INTO types VALUES (1, 1.0, 'ab', 'v1', 'Ann', '00000000-0000-0000-0000-000000000001', true), (2, 2.50, 'cd', 'v2', 'Bob', '00000000-0000-0000-0000-000000000002', false);
SELECT is(ids('perfopt.fetch_many(NULL::types, ARRAY[2.5, 1, 1.00])'), '2,1,1', 'numerics that look different');
SELECT is(ids('perfopt.fetch_many(NULL::types, ARRAY[2, 1])'), '-,1', 'integers for numeric');
SELECT is(ids('perfopt.fetch_many(NULL::types, ARRAY[''cd'', ''ab   ''], ''{c}'')'), '2,1', 'char(n)');
SELECT is(ids('perfopt.fetch_many(NULL::types, ARRAY[''v2'', ''v1'', ''much longer''], ''{v}'')'), '2,1,-', 'a domain over varchar');
SELECT is(ids('perfopt.fetch_many(NULL::types, ARRAY[''v2'']::code[], ''{v}'')'), '2', 'keys of a domain');
SELECT is(ids('perfopt.fetch_many(NULL::types, ARRAY[''BOB'', ''ann'', ''bob''], ''{i}'')'), '2,1,2', 'a collation in which other texts are equal');
SELECT is(ids('perfopt.fetch_many(NULL::types, ARRAY[''00000000-0000-0000-0000-000000000002''], ''{u}'')'), '2', 'strings for uuid');
SELECT is(ids('perfopt.fetch_many(NULL::types, ''[false, true]'', ''{e}'')'), '2,1', 'jsonb booleans');

-- Relations
CREATE TABLE parted (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
INSERT INTO parted VALUES (1, '2020-05-05'), (2, '2021-05-05');
SELECT is(ids('perfopt.fetch_many(NULL::parted, ARRAY[ROW(2, date ''2021-05-05''), ROW(2, date ''2020-05-05''), ROW(1, date ''2020-05-05'')])'), '2,-,1', 'a partitioned table');
CREATE VIEW visible AS SELECT id, name, id % 10 AS part FROM users;
SELECT is(ids('perfopt.fetch_many(NULL::visible, ARRAY[7, 9999], ''{id}'')'), '7,-', 'a view with a key');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::visible, ARRAY[7])', '42704', 'relation "visible" has no primary key');
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::visible, ARRAY[7], ''{part}'')', '21000', 'more than one row of "visible" has the same key');
CREATE TABLE base (id int PRIMARY KEY);
CREATE TABLE derived (extra int) INHERITS (base);
INSERT INTO base VALUES (1); INSERT INTO derived VALUES (2, 0);
SELECT is(ids('perfopt.fetch_many(NULL::base, ARRAY[2, 1])'), '2,1', 'rows of an inheriting table');
INSERT INTO derived VALUES (1, 0);
SELECT throws_ok('SELECT * FROM perfopt.fetch_many(NULL::base, ARRAY[1])', '21000', NULL, 'a key in both');

SELECT * FROM finish();
SET client_min_messages = warning;
DROP SCHEMA lookup_fetch CASCADE;
