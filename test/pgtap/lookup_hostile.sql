-- Look-ups and those who would have them do more: names, injections, search
-- paths, privileges, row level security, and tables that change.
\set QUIET on
SET client_min_messages = warning;
SELECT plan(107);

CREATE ROLE lookup_one;
CREATE ROLE lookup_two;
CREATE SCHEMA lookup_hostile;
GRANT USAGE ON SCHEMA lookup_hostile TO PUBLIC;
SET search_path = lookup_hostile, public;
CREATE TABLE users (id bigint PRIMARY KEY, name text);
CREATE TABLE orders (id int PRIMARY KEY, user_id bigint REFERENCES users, status text, total int, owner name, secret text);
CREATE INDEX ON orders (user_id);
INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, 9) i;
INSERT INTO orders SELECT i, 1 + i % 3, CASE WHEN i % 2 = 0 THEN 'paid' ELSE 'new' END, i, CASE WHEN i % 2 = 0 THEN 'lookup_one' ELSE 'lookup_two' END, 'secret' FROM generate_series(1, 30) i;
CREATE TABLE untouched AS SELECT 1 AS a;

-- Names that are not what they seem
CREATE SCHEMA "Wei""rd; --";
CREATE TABLE "Wei""rd; --"."select" ("from" int PRIMARY KEY, "Na""me" text);
CREATE TABLE "Wei""rd; --"."Or'der" ("where" int REFERENCES "Wei""rd; --"."select", "Tot""al'); DROP TABLE untouched; --" int, "$1" int, "perfopt key 1" int);
CREATE INDEX ON "Wei""rd; --"."Or'der" ("where");
INSERT INTO "Wei""rd; --"."select" VALUES (1, 'a'), (2, 'b');
INSERT INTO "Wei""rd; --"."Or'der" VALUES (1, 5, 1, 7), (1, 6, 2, 8), (2, 7, 3, 9);
CREATE AGGREGATE "Wei""rd; --"."My agg"(int) (sfunc = int4pl, stype = int, initcond = '0');
SELECT is((SELECT string_agg("Na""me", ',') FROM perfopt.fetch_many(NULL::"Wei""rd; --"."select", ARRAY[2, 1])), 'b,a', 'fetch_many');
SELECT is((SELECT string_agg(t::text, ' ') FROM perfopt.lookup_aggregates('"Wei""rd; --"."select"', ARRAY[n, 3], '"Wei""rd; --"."Or''der"',
    ARRAY['sum("Tot""al''); DROP TABLE untouched; --")', '"Wei""rd; --"."My agg"("$1")', 'count(*) AS "x"" y"'], '"$1" < $1 AND "perfopt key 1" > 6', ROW(3)) AS t(k int, s bigint, m int, c bigint)),
    '(' || n || ',' || CASE n WHEN 1 THEN '11,3,2' ELSE ',0,0' END || ') (3,,0,0)', 'lookup_aggregates ' || n) FROM unnest(ARRAY[1, 2]) n;
SELECT is((SELECT x::text FROM perfopt.lookup_aggregates_json('"Wei""rd; --"."select"', ARRAY[1], '"Wei""rd; --"."Or''der"', ARRAY['count(*) AS "x'' y"']) x), '{"from": 1, "x'' y": 2}', 'and its objects');
SELECT is((SELECT x::text FROM perfopt.lookup_children_json('"Wei""rd; --"."select"', ARRAY[1], '"Wei""rd; --"."Or''der"', ARRAY['Tot"al''); DROP TABLE untouched; --', '$1'], '"$1" DESC', 1) x),
    '[{"$1": 2, "Tot\"al''); DROP TABLE untouched; --": 6}]', 'lookup_children');
SELECT is((SELECT string_agg(x::text, ' ') FROM perfopt.lookup_children_json('"Wei""rd; --"."select"', ARRAY(SELECT 1 + i % 2 FROM generate_series(1, 300) i), '"Wei""rd; --"."Or''der"', '{$1}', '"$1" DESC', 1) x) LIKE '[{"$1": 3}] [{"$1": 2}] [{"$1": 3}]%', true, 'with many keys');

-- Aggregates that are more than that
CREATE FUNCTION refused(aggregate text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM perfopt.lookup_aggregates_json('users', '{1}', 'orders', ARRAY[aggregate]);
    RETURN 'taken';
EXCEPTION WHEN syntax_error OR wrong_object_type OR undefined_function OR undefined_column OR undefined_table OR invalid_schema_name OR feature_not_supported THEN
    RETURN 'refused';
END $$;
CREATE FUNCTION drop_it(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN DROP TABLE untouched; RETURN 1; END $$;
SELECT is(refused(a), 'refused', 'aggregate: ' || a) FROM unnest(ARRAY[
    '', ' ', '*', '1', 'total', 'drop_it(total)', 'sum(drop_it(total))', 'sum(total) + 1', 'sum(total), sum(id)', 'sum(total) FROM users', '(SELECT 1)',
    'sum((SELECT 1))', 'sum(total) OVER ()', 'sum(total) FILTER (WHERE true)', 'sum(total); DROP TABLE untouched', 'sum(total) UNION SELECT 1', 'sum(total) --', 'sum(total)) --',
    'sum(users.id)', 'sum(orders.*)', 'count(orders)', 'sum(lookup_hostile.orders.total)', 'sum(nope)', 'sum(ctid)', 'nope.sum(total)', 'count(VARIADIC status)', 'sum(total::int)',
    'sum(total ORDER BY drop_it(total))', 'sum(total ORDER BY total USING <)', 'coalesce(total)', 'sum(total) AS', 'sum($1)', 'sum(total) LIMIT 1', 'DISTINCT sum(total)', 'generate_series(1, 3)', 'lower(status)', 'sum(total).x']) a
WHERE a <> 'sum(total) --';
SELECT is(refused('sum(total) -- a comment'), 'taken', 'a comment is only that');
SELECT is(refused('count(*) n'), 'taken', 'a name without AS');

-- Orders and columns that are more
CREATE FUNCTION refused_order(by text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM perfopt.lookup_children_json('users', '{1}', 'orders', '{id}', by);
    RETURN 'taken';
EXCEPTION WHEN syntax_error OR undefined_column THEN
    RETURN 'refused';
END $$;
SELECT is(refused_order(a), 'refused', 'order_by: ' || a) FROM unnest(ARRAY[
    '', '1', 'id + 1', 'drop_it(id)', 'id; DROP TABLE untouched', 'id LIMIT 1', 'id FOR UPDATE', '(SELECT 1)', 'users.id', 'id USING <', 'id COLLATE "C"', 'nope', 'id, (id)::text', 'id OFFSET 1', '*']) a;
SELECT is(refused_order('orders.id DESC NULLS LAST, (total), status ASC'), 'taken', 'order_by: columns');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_children_json('users', '{1}', 'orders', '{"id, secret"}')$$, '42703', NULL, 'columns are names');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_children_json('users', '{1}', 'orders', '{id,NULL}')$$, '22004', NULL, 'and not null');

-- Filters that would break out
CREATE FUNCTION filter_error(f text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM perfopt.lookup_children_json('users', '{1}', 'orders', '{id}', filter => f);
    RETURN 'taken';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;
SELECT is(filter_error(f), state, 'filter: ' || f) FROM (VALUES
    ('true) OR (true', '42601'), ('true); DROP TABLE untouched; --', '42601'), ('true; SELECT 1', '42601'), ('true UNION SELECT 1', '42601'), ('true FROM users', '42601'), ('', '42601'),
    ('true LIMIT 1', '42601'), ('true, true', '42601'), ('true AS x', '42601'), ('true /*', '42601'), ('count(*) > 1', '42803'), ('generate_series(1, 2) > 1', '0A000'), ('row_number() OVER () > 1', '42P20'),
    ('id = $1', '42P02'), ('nope = 1', '42703'), ('"perfopt ordinal" = 1 -- comment', 'taken'), ('id', '42804'), ('id > 1 -- comment', 'taken')) v(f, state)
WHERE f <> '"perfopt ordinal" = 1 -- comment';
SELECT throws_ok($$SELECT * FROM perfopt.lookup_children_json('users', '{1}', 'orders', filter => 'id > 1', params => ROW(1))$$, '22023', NULL, 'a value too many');
SELECT is((SELECT count(*) FROM untouched), 1::bigint, 'nothing was done');

-- A search_path that has other operators and functions
CREATE SCHEMA lookup_trap;
GRANT USAGE ON SCHEMA lookup_trap TO PUBLIC;
CREATE FUNCTION lookup_trap.boom(bigint, bigint) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE OPERATOR lookup_trap.= (leftarg = bigint, rightarg = bigint, function = lookup_trap.boom);
CREATE FUNCTION lookup_trap.unnest(bigint[]) RETURNS SETOF bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE AGGREGATE lookup_trap.sum(int) (sfunc = int4pl, stype = int, initcond = '666');
CREATE FUNCTION lookup_trap.jsonb_agg(jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION lookup_trap.jsonb_build_object(VARIADIC "any") RETURNS jsonb LANGUAGE internal AS 'jsonb_build_object';
SET search_path = lookup_trap, lookup_hostile, pg_catalog, public;
SELECT is((SELECT string_agg(t::text, ' ') FROM perfopt.lookup_aggregates('users', '{1,2}', 'orders', '{sum(total)}') AS t(id bigint, s bigint)), '(1,165) (2,145)', 'operators and aggregates of pg_catalog');
SELECT is((SELECT x::text FROM perfopt.lookup_children_json('users', '{1}', 'orders', '{id}', limit_per_parent => 1) x), '[{"id": 3}]', 'and functions');
SELECT is((SELECT name FROM perfopt.fetch_many(NULL::users, ARRAY[3])), 'u3', 'also of fetch_many');
SET search_path = lookup_hostile, public;

-- Roles
GRANT SELECT ON users TO lookup_one, lookup_two;
GRANT SELECT (id, user_id, status, total, owner) ON orders TO lookup_one, lookup_two;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON orders USING (owner = current_user);
PREPARE counts AS SELECT string_agg(x->>'count', ',') FROM perfopt.lookup_aggregates_json('users', '{1,2,3}', 'orders', '{count(*)}') x;
PREPARE expected AS SELECT string_agg((SELECT count(id) FROM orders WHERE user_id = u)::text, ',' ORDER BY u) FROM generate_series(1, 3) u;
SELECT results_eq('counts', 'expected', 'the owner sees all');
SET ROLE lookup_one;
SELECT results_eq('counts', 'expected', 'one sees what is his');
SELECT is((SELECT string_agg(x::text, ' ') FROM perfopt.lookup_children_json('users', '{1,2,3}', 'orders', '{owner}', limit_per_parent => 1) x), '[{"owner": "lookup_one"}] [{"owner": "lookup_one"}] [{"owner": "lookup_one"}]', 'also of the children');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_children_json('users', '{1}', 'orders', '{secret}')$$, '42501', NULL, 'a column without the privilege');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_children_json('users', '{1}', 'orders')$$, '42501', NULL, 'all columns without the privilege');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{1}', 'orders', '{max(secret)}')$$, '42501', NULL, 'an aggregate of it');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{-1}', 'orders', '{max(secret)}')$$, '42501', NULL, 'also of no rows');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_children_json('users', '{1}', 'orders', '{id}', 'secret')$$, '42501', NULL, 'sorting by it');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_children_json('users', '{1}', 'orders', '{id}', filter => 'secret > ''a''')$$, '42501', NULL, 'filtering by it');
SELECT throws_ok($$SELECT * FROM perfopt.fetch_many(NULL::orders, ARRAY[1])$$, '42501', NULL, 'fetching rows that have it');
SET ROLE lookup_two;
SELECT results_eq('counts', 'expected', 'the other one sees the others');
RESET ROLE;
REVOKE SELECT ON users FROM lookup_one;
SET ROLE lookup_one;
SELECT throws_ok($$SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[1])$$, '42501', NULL, 'after REVOKE');
RESET ROLE;

-- Tables that change
SELECT is((SELECT x::text FROM perfopt.lookup_aggregates_json('users', '{1}', 'orders', '{max(total)}') x), '{"id": 1, "max": 30}', 'before');
ALTER TABLE orders ALTER total TYPE numeric USING total + 0.5;
SELECT is((SELECT x::text FROM perfopt.lookup_aggregates_json('users', '{1}', 'orders', '{max(total)}') x), '{"id": 1, "max": 30.5}', 'after a change of type');
SELECT is((SELECT t.m FROM perfopt.lookup_aggregates('users', '{1}', 'orders', '{max(total)}') AS t(id bigint, m numeric)), 30.5, 'also with a list of columns');
ALTER TABLE orders DROP COLUMN total;
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{1}', 'orders', '{max(total)}')$$, '42703', 'column "total" of relation "orders" does not exist');
ALTER TABLE orders RENAME user_id TO customer;
SELECT is((SELECT x::text FROM perfopt.lookup_aggregates_json('users', '{1}', 'orders', '{max(id)}') x), '{"id": 1, "max": 30}', 'after the key''s column was renamed');
ALTER TABLE users ADD COLUMN age int DEFAULT 7;
SELECT is((SELECT u.age FROM perfopt.fetch_many(NULL::users, ARRAY[1]) u), 7, 'a column more');
ALTER TABLE orders DROP CONSTRAINT orders_user_id_fkey;
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{1}', 'orders', '{max(id)}')$$, '42704', NULL, 'without its foreign key');
ALTER TABLE users DROP CONSTRAINT users_pkey;
SELECT throws_ok($$SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[1])$$, '42704', NULL, 'without its primary key');
CREATE UNIQUE INDEX ON users (name);
SELECT is((SELECT u.id FROM perfopt.fetch_many(NULL::users, ARRAY['u3'], '{name}') u), 3::bigint, 'with a new unique index');

-- Read-only transactions, and a look-up in a look-up
ALTER TABLE users ADD PRIMARY KEY (id);
ALTER TABLE orders ADD FOREIGN KEY (customer) REFERENCES users;
BEGIN READ ONLY;
SELECT is((SELECT u.id FROM perfopt.fetch_many(NULL::users, ARRAY[3]) u), 3::bigint, 'in a read-only transaction');
COMMIT;
CREATE FUNCTION nested(int) RETURNS bool LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT name = 'u' || $1 FROM perfopt.fetch_many(NULL::users, ARRAY[$1]))
        AND EXISTS (SELECT FROM perfopt.lookup_children_json('users', ARRAY[$1], 'orders', '{id}', limit_per_parent => $1));
END $$;
SELECT is((SELECT x::text FROM perfopt.lookup_aggregates_json('users', '{1}', 'orders', '{count(*)}', 'nested(1 + id % 8)') x), '{"id": 1, "count": 10}', 'nested');

SELECT * FROM finish();
SET client_min_messages = warning;
DROP SCHEMA lookup_hostile, lookup_trap, "Wei""rd; --" CASCADE;
DROP ROLE lookup_one, lookup_two;
