-- cached() and cached_json(): results, keys, and what they refuse.  Outside of
-- a transaction, for in one that has created tables nothing is cached.
\set QUIET on
SET client_min_messages = warning;
SELECT plan(80);

CREATE ROLE cache_query_one;
CREATE ROLE cache_query_two;
CREATE SCHEMA cache_query;
GRANT USAGE ON SCHEMA cache_query TO PUBLIC;
SET search_path = cache_query, public;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE point3 AS (x int, y text);
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE TABLE users (id bigint PRIMARY KEY, name text, mood mood, points point3[], size positive, born date, big text);
INSERT INTO users SELECT i, 'user' || i, 'happy', ARRAY[(i, 'a"b')::point3, NULL], i, date '2000-01-01' + i,
        (SELECT string_agg(md5(j::text || i), '') FROM generate_series(1, 300) j)
    FROM generate_series(1, 20) i;
INSERT INTO users (id) VALUES (100);
CREATE TABLE tenants (tenant text, owner name, value int);
INSERT INTO tenants VALUES ('a', 'cache_query_one', 1), ('b', 'cache_query_two', 2);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_setting ON tenants FOR SELECT USING (tenant = current_setting('app.tenant', true) OR owner = current_user);
GRANT SELECT ON tenants, users TO cache_query_one, cache_query_two;

-- the first use makes the triggers
SELECT perfopt.cached_json('SELECT count(*) FROM users'), perfopt.cached_json('SELECT count(*) FROM tenants') \g /dev/null

-- how('SELECT ...') tells what a call of that query is: hit, miss or bypass
CREATE FUNCTION public.counts() RETURNS TABLE (hits numeric, misses numeric, bypasses numeric) LANGUAGE sql AS
    $$ SELECT hits, misses, bypasses FROM perfopt.cache_stats $$;
CREATE FUNCTION public.how(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE before record; later record;
BEGIN
    SELECT * INTO before FROM public.counts();
    EXECUTE call;
    SELECT * INTO later FROM public.counts();
    RETURN CASE WHEN later.hits > before.hits THEN 'hit' WHEN later.bypasses > before.bypasses THEN 'bypass'
                WHEN later.misses > before.misses THEN 'miss' ELSE 'nothing' END;
END $$;
CREATE FUNCTION public.json_call(query text, params text DEFAULT 'NULL', rest text DEFAULT '') RETURNS text LANGUAGE sql AS
    $$ SELECT format('SELECT perfopt.cached_json(%L, %s %s)', query, params, rest) $$;
-- refusal('SELECT ...') is the detail of the error
CREATE FUNCTION public.refusal(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE detail text;
BEGIN
    PERFORM perfopt.cached_json(query);
    RETURN 'none';
EXCEPTION WHEN feature_not_supported THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN detail;
END $$;

-- Results
SELECT is(how('SELECT * FROM perfopt.cached(''SELECT id, name FROM users WHERE id = $1'', ROW(3)) AS t(id bigint, name text)'), 'miss', 'first call');
SELECT is(how('SELECT * FROM perfopt.cached(''SELECT id, name FROM users WHERE id = $1'', ROW(3)) AS t(id bigint, name text)'), 'hit', 'second call');
SELECT is(how('SELECT * FROM perfopt.cached(''SELECT id, name FROM users WHERE id = $1'', ROW(4)) AS t(id bigint, name text)'), 'miss', 'another value');
SELECT is(how('SELECT * FROM perfopt.cached(''SELECT id, name FROM users WHERE id = $1'', ROW(3::bigint)) AS t(id bigint, name text)'), 'miss', 'another type');
SELECT is(how('SELECT * FROM perfopt.cached(''SELECT id, name FROM users WHERE id = $1'', ROW(NULL::int)) AS t(id bigint, name text)'), 'miss', 'null as value');
PREPARE everything AS SELECT * FROM perfopt.cached('SELECT * FROM users ORDER BY id') AS
    t(id bigint, name text, mood mood, points point3[], size positive, born date, big text);
SELECT results_eq('everything', 'SELECT * FROM users ORDER BY id', 'all types, nulls, and what is stored outside: computed');
SELECT results_eq('everything', 'SELECT * FROM users ORDER BY id', 'all types, nulls, and what is stored outside: from the cache');
SELECT is(how('EXECUTE everything'), 'hit', 'it was');
SELECT results_eq($$SELECT * FROM perfopt.cached('SELECT u FROM users u WHERE id = 5') AS t(u users)$$,
    'SELECT u FROM users u WHERE id = 5', 'a row as value: computed');
SELECT results_eq($$SELECT * FROM perfopt.cached('SELECT u FROM users u WHERE id = 5') AS t(u users)$$,
    'SELECT u FROM users u WHERE id = 5', 'a row as value: from the cache');
SELECT is_empty($$SELECT * FROM perfopt.cached('SELECT id FROM users WHERE false') AS t(id bigint)$$, 'no rows: computed');
SELECT is_empty($$SELECT * FROM perfopt.cached('SELECT id FROM users WHERE false') AS t(id bigint)$$, 'no rows: from the cache');
SELECT is(how($$SELECT * FROM perfopt.cached('SELECT id FROM users WHERE false') AS t(id bigint)$$), 'hit', 'it was');
SELECT results_eq($$SELECT * FROM perfopt.cached('SELECT id FROM users WHERE name = $1', ROW('user7')) AS t(id bigint)$$,
    'SELECT 7::bigint', 'a literal without a type as parameter');
SELECT results_eq($$SELECT * FROM perfopt.cached('VALUES (1, $1), (2, NULL)', ROW('x')) AS t(a int, b text)$$,
    $$VALUES (1, 'x'), (2, NULL)$$, 'VALUES');
SELECT results_eq($$SELECT t.id, c.name FROM users t, LATERAL perfopt.cached('SELECT name FROM users WHERE id = $1', ROW(t.id)) AS c(name text) ORDER BY 1$$,
    'SELECT id, name FROM users ORDER BY 1', 'called for each row');
DECLARE scrolled SCROLL CURSOR WITH HOLD FOR SELECT * FROM perfopt.cached('SELECT id FROM users ORDER BY id') AS t(id bigint);
FETCH LAST FROM scrolled \g /dev/null
SELECT results_eq('FETCH FIRST FROM scrolled', 'SELECT 1::bigint', 'scrolling');
CLOSE scrolled;

-- JSON
SELECT is(perfopt.cached_json('SELECT id, name FROM users WHERE id < $1 ORDER BY id', ROW(3)),
    '[{"id": 1, "name": "user1"}, {"id": 2, "name": "user2"}]', 'as JSON');
SELECT is(how(json_call('SELECT id, name FROM users WHERE id < $1 ORDER BY id', 'ROW(3)')), 'hit', 'from the cache');
SELECT is(perfopt.cached_json('SELECT id FROM users WHERE false'), '[]', 'no rows as JSON');
SELECT is(perfopt.cached_json('SELECT 1 AS a -- ;'), '[{"a": 1}]', 'a comment at the end');
SELECT is(perfopt.cached_json('/* ; */ SELECT 1 AS a ; -- x'), '[{"a": 1}]', 'a semicolon at the end');
SELECT is(perfopt.cached_json('SELECT 1 AS cached, 2 AS q'), '[{"q": 2, "cached": 1}]', 'a column called as the alias');
SELECT is(perfopt.cached_json('SELECT ROW(1, 2) AS r'), '[{"r": {"f1": 1, "f2": 2}}]', 'rows without a type');
SELECT throws_ok($$SELECT perfopt.cached_json('SELECT 1) AS x; DROP TABLE users; --')$$, '42601', NULL, 'no way out of the parentheses');

-- Fresh
UPDATE users SET name = 'changed' WHERE id = 3;
SELECT results_eq($$SELECT * FROM perfopt.cached('SELECT id, name FROM users WHERE id = $1', ROW(3)) AS t(id bigint, name text)$$,
    $$SELECT 3::bigint, 'changed'::text$$, 'after an update');
BEGIN;
INSERT INTO users (id, name) VALUES (50, 'own');
SELECT is(perfopt.cached_json('SELECT name FROM users WHERE id = 50'), '[{"name": "own"}]', 'own writes are seen');
ROLLBACK;
SELECT is(perfopt.cached_json('SELECT name FROM users WHERE id = 50'), '[]', 'and are gone');
CREATE FUNCTION f(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT count(*)::int + $1 FROM tenants';
SELECT is(perfopt.cached_json('SELECT f(1)'), '[{"f": 3}]', 'a function in SQL');
CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1 * 10';
SELECT is(perfopt.cached_json('SELECT f(1)'), '[{"f": 10}]', 'replaced');
CREATE SCHEMA cache_query_front;
-- where the server has it, views can be forbidden
CREATE VIEW first_user AS SELECT id FROM users WHERE id = 1;
SELECT is(perfopt.cached_json('SELECT * FROM first_user'), '[{"id": 1}]', 'a view');
DO $$ BEGIN
    IF current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL THEN
        SET restrict_nonsystem_relation_kind = 'view';
    END IF;
END $$;
SELECT CASE WHEN coalesce(current_setting('restrict_nonsystem_relation_kind', true), '') = '' THEN pass('no such setting')
       ELSE throws_ok($$ SELECT perfopt.cached_json('SELECT * FROM first_user') $$, '55000', NULL, 'a view that is forbidden') END;
DO $$ BEGIN
    IF current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL THEN
        RESET restrict_nonsystem_relation_kind;
    END IF;
END $$;
DROP VIEW first_user;

SET search_path = cache_query_front, cache_query, public;
SELECT perfopt.cached_json('SELECT count(*) FROM users'), perfopt.cached_json('SELECT count(*) FROM users') \g /dev/null
CREATE TABLE cache_query_front.users ();
SELECT is(perfopt.cached_json('SELECT count(*) FROM users'), '[{"count": 0}]', 'a table in front of the other one');
DROP SCHEMA cache_query_front CASCADE;
SELECT is(perfopt.cached_json('SELECT count(*) FROM users'), '[{"count": 21}]', 'and dropped again');
SET search_path = cache_query, public;

-- Keys
SELECT is(how(json_call('SELECT 77', 'NULL', ', key_prefix => ''a''')), 'miss', 'a prefix');
SELECT is(how(json_call('SELECT 77', 'NULL', ', key_prefix => ''a''')), 'hit', 'the same prefix');
SELECT is(how(json_call('SELECT 77', 'NULL', ', key_prefix => ''b''')), 'miss', 'another prefix');
CREATE FUNCTION public.born() RETURNS text LANGUAGE sql AS
    $$ SELECT perfopt.cached_json('SELECT born::text AS b FROM users WHERE id = 1') #>> '{0,b}' $$;
SELECT is(born(), '2000-01-02', 'a date as text');
SET datestyle = 'German';
SELECT is(born(), '02.01.2000', 'with another DateStyle');
RESET datestyle;
SELECT is(born(), '2000-01-02', 'and the first one again');
SET app.tenant = 'a';
SELECT is(perfopt.cached_json($$SELECT current_setting('app.tenant') AS s$$), '[{"s": "a"}]', 'current_setting()');
SET app.tenant = 'b';
SELECT is(perfopt.cached_json($$SELECT current_setting('app.tenant') AS s$$), '[{"s": "b"}]', 'current_setting() changed');
SET app.tenant = 'a';
SET ROLE cache_query_two;
SELECT is(perfopt.cached_json('SELECT value FROM tenants ORDER BY 1'), '[{"value": 1}, {"value": 2}]', 'policies: role and setting');
SET app.tenant = 'x';
SELECT is(perfopt.cached_json('SELECT value FROM tenants ORDER BY 1'), '[{"value": 2}]', 'policies: role only');
SELECT is(perfopt.cached_json('SELECT current_user::text AS u'), '[{"u": "cache_query_two"}]', 'current_user');
SET ROLE cache_query_one;
SELECT is(perfopt.cached_json('SELECT value FROM tenants ORDER BY 1'), '[{"value": 1}]', 'policies: another role');
SELECT is(perfopt.cached_json('SELECT current_user::text AS u'), '[{"u": "cache_query_one"}]', 'current_user of another role');
RESET ROLE;
REVOKE SELECT ON users FROM cache_query_two;
SET ROLE cache_query_one;
SELECT is(perfopt.cached_json('SELECT count(*) FROM users'), '[{"count": 21}]', 'who may read');
SET ROLE cache_query_two;
SELECT throws_ok(json_call('SELECT count(*) FROM users'), '42501', NULL, 'who may not');
RESET ROLE;
SET perfopt.cache = off;
SELECT is(how(json_call('SELECT 78')), 'bypass', 'perfopt.cache off');
RESET perfopt.cache;
EXECUTE everything \g /dev/null
SET perfopt.cache_max_entry_size = '1kB';
SELECT is(how('EXECUTE everything'), 'hit', 'what is there may be large');
SELECT is(how(json_call('SELECT big FROM users')), 'bypass', 'too large to be cached');
RESET perfopt.cache_max_entry_size;

-- Refusals
CREATE TEMP TABLE temporary (a int);
CREATE SEQUENCE seq;
CREATE FUNCTION volatile_one() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION opaque() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1; END';
CREATE FUNCTION hidden_time() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now()';
CREATE FUNCTION sum_of(int, int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1 + $2';
CREATE AGGREGATE volatile_sum(int) (sfunc = sum_of, stype = int, initcond = 0);
CREATE VIEW with_time AS SELECT now() AS n;
SELECT is(refusal(query), detail, query) FROM (VALUES
    ('DELETE FROM users', 'It is not a SELECT, or uses SELECT INTO.'),
    ('WITH d AS (DELETE FROM users RETURNING id) SELECT * FROM d', 'It has a WITH clause that changes data.'),
    ('SELECT * FROM users FOR SHARE', 'It locks rows.'),
    ('SELECT now()', 'The result of function "now" depends on more than can be seen.'),
    ('SELECT current_date', 'It depends on the current time.'),
    ('SELECT random()', 'Function "random" is volatile.'),
    ('SELECT volatile_sum(1)', 'Function "sum_of" is volatile.'),
    ('SELECT (SELECT volatile_one())', 'Function "volatile_one" is volatile.'),
    ('SELECT opaque()', 'What function "opaque" depends on cannot be seen.'),
    ('SELECT hidden_time()', 'The result of function "now" depends on more than can be seen.'),
    ('SELECT * FROM with_time', 'The result of function "now" depends on more than can be seen.'),
    ('SELECT date ''Tomorrow''', 'The literal "Tomorrow" may stand for the current time.'),
    ('SELECT * FROM pg_class', 'It reads the system catalog "pg_class".'),
    ('SELECT * FROM temporary', 'It reads the temporary table "temporary".'),
    ('SELECT last_value FROM seq', 'It reads the sequence "seq".'),
    ('SELECT * FROM users TABLESAMPLE system (1)', 'It uses TABLESAMPLE.'),
    ('SELECT current_setting(name) FROM users', 'It calls current_setting() with a name that is not a constant.')
    ) AS v(query, detail);
-- what to do about it
CREATE FUNCTION public.advised(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE hint text;
BEGIN
    PERFORM perfopt.cached_json(query);
    RETURN 'kept';
EXCEPTION WHEN feature_not_supported THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN hint;
END $$;
SELECT matches(advised(query), wanted, 'hint for ' || query)
FROM (VALUES ('SELECT now()', 'time as a parameter, rounded'), ('SELECT current_date', 'time as a parameter, rounded'),
    ('SELECT opaque()', 'its name, without arguments,')) AS v(query, wanted);
SET perfopt.cache_opaque_functions = 'cache_query.opaque';
SELECT is(refusal('SELECT opaque()'), 'none', 'an opaque function that is listed');
SELECT throws_ok($$SELECT * FROM perfopt.cached('SELECT id, name FROM users') AS t(id int, name text)$$, '42804',
    'column 1 ("id") of the query has type bigint, but integer is expected', 'another type is expected');
SELECT throws_ok($$SELECT * FROM perfopt.cached('SELECT id FROM users WHERE id = $1') AS t(id bigint)$$, '42P02',
    'query has 1 parameters, but 0 values were given', 'a value is missing');
SELECT throws_ok($$SELECT * FROM perfopt.cached('SELECT 1', NULL, '0') AS t(a int)$$, '22023', NULL, 'a ttl of zero');
SELECT is(perfopt.cached_json('SELECT 1 AS a', ttl => NULL), '[{"a": 1}]', 'a ttl of null is one hour');
SELECT is(perfopt.cached_json('SELECT 2 AS a', ttl => '170000000 years'), '[{"a": 2}]', 'a very long ttl');
SELECT throws_ok($$SELECT perfopt.cached_json(NULL)$$, '22004', NULL, 'no query');
SELECT is(how(json_call('SELECT $1::timestamptz', 'ROW(text ''today'')')), 'nothing', 'a parameter that means a time');

SELECT * FROM finish();
DROP SCHEMA cache_query CASCADE;
DROP FUNCTION public.counts, public.how, public.json_call, public.refusal, public.born, public.advised;
DROP ROLE cache_query_one, cache_query_two;
