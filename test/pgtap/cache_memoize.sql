-- perfopt.memoize(): calls of a function answered from the cache.
SELECT plan(50);

CREATE ROLE perfopt_memo_owner;
CREATE ROLE perfopt_memo_user;
CREATE SCHEMA memo AUTHORIZATION perfopt_memo_owner;
GRANT USAGE ON SCHEMA memo TO perfopt_memo_user;
SET ROLE perfopt_memo_owner;
SET search_path = memo, public;

CREATE TABLE rates (name text PRIMARY KEY, rate numeric);
INSERT INTO rates VALUES ('eur', 1.10), ('chf', 1.05);
SELECT perfopt.cache_track('rates');
CREATE SEQUENCE calls;

-- Counts its calls, though it says it does not.
CREATE FUNCTION rate(wanted text, factor int DEFAULT 1) RETURNS numeric LANGUAGE plpgsql STABLE STRICT AS $$
BEGIN
	PERFORM nextval('memo.calls');
	RETURN (SELECT r.rate * factor FROM memo.rates r WHERE r.name = wanted);
END $$;
CREATE FUNCTION called() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END INTO n FROM memo.calls;
	PERFORM setval('memo.calls', 1, false);
	RETURN n;
END $$;

SELECT lives_ok($$ SELECT perfopt.memoize('memo.rate(text, int)') $$, 'the owner may');
SELECT results_eq($$ SELECT function::text COLLATE "C", ttl COLLATE "C" FROM perfopt.memoized_functions $$,
	$$ VALUES ('rate(text,integer)' COLLATE "C", '3600' COLLATE "C") $$, 'the view has it');
SELECT is(rate('eur'), 1.10, 'first call, with a default argument');
SELECT is(called(), 1::bigint, 'calls it');
SELECT is(rate('eur'), 1.10, 'second call');
SELECT is(rate(factor => 1, wanted => 'eur'), 1.10, 'third call, by names');
SELECT is(called(), 0::bigint, 'are answered');
SELECT is(rate('eur', 2), 2.20, 'another argument');
SELECT is(called(), 1::bigint, 'is another call');
SELECT is(rate(NULL), NULL, 'strict');
SELECT is(rate('usd'), NULL, 'a result that is null');
SELECT is(rate('usd'), NULL, 'again');
SELECT is(called(), 1::bigint, 'one of these was a call');
SELECT results_eq($$ SELECT rate(r.name) FROM rates r, generate_series(1, 3) ORDER BY 1 $$,
	$$ VALUES (1.05), (1.05), (1.05), (1.10), (1.10), (1.10) $$, 'for each row');
SELECT is(called(), 1::bigint, 'only one was not there yet');
UPDATE rates SET rate = 1.2 WHERE name = 'eur';
SELECT is(rate('eur'), 1.2, 'a write to the table it reads');
SELECT is(called(), 1::bigint, 'ends the result');
BEGIN;
UPDATE rates SET rate = 1.3 WHERE name = 'eur';
SELECT is(rate('eur'), 1.3, 'its own writes are seen');
ROLLBACK;
SELECT is(rate('eur'), 1.2, 'and gone when rolled back');
SELECT perfopt.memoize('memo.rate(text, int)', '1 day');
SELECT is((SELECT ttl FROM perfopt.memoized_functions), '86400', 'another time to live');

-- In the plan, and nowhere else
CREATE VIEW uses_rate AS SELECT rate('eur') AS r;
SELECT unalike(pg_get_viewdef('uses_rate'), '%memoized_call%', 'a view keeps the call');
CREATE FUNCTION plan_of(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE 'EXPLAIN (VERBOSE, COSTS OFF) ' || query;
END $$;
SELECT ok(EXISTS (SELECT FROM plan_of('SELECT * FROM uses_rate') p WHERE p LIKE '%memoized_call%'), 'its plan does not');
CREATE FUNCTION folded(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN lower(t); END';
SELECT perfopt.memoize('memo.folded(text)');
SELECT ok(EXISTS (SELECT FROM plan_of('SELECT folded(name) FROM rates') p WHERE p LIKE '%memoized_call%'), 'an immutable function');
CREATE INDEX ON rates (folded(name));
SET enable_seqscan = off;
SELECT ok(EXISTS (SELECT FROM plan_of('SELECT * FROM rates WHERE folded(name) = ''eur''') p WHERE p LIKE '%Index%folded%'),
	'an index on it is still used');
RESET enable_seqscan;

-- In parallel workers, and with errors
CREATE FUNCTION checked(i int) RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE AS
	$$ BEGIN IF i < 0 THEN RAISE division_by_zero; END IF; RETURN i * 10; END $$;
SELECT perfopt.memoize('checked(int)');
CREATE TABLE numbers AS SELECT i FROM generate_series(1, 5000) i;
BEGIN;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SELECT ok(EXISTS (SELECT FROM plan_of('SELECT count(*) FROM numbers WHERE checked(i % 7) = 30') p WHERE p LIKE '%Workers Planned%'), 'a parallel plan');
SELECT is(count(*), 714::bigint, 'its result') FROM numbers WHERE checked(i % 7) = 30;
COMMIT;
DO $$ BEGIN FOR n IN 1 .. 3 LOOP BEGIN PERFORM memo.checked(-1); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$;
SELECT throws_ok('SELECT memo.checked(-1)', '22012', NULL, 'an error of the function');

-- Types of results
CREATE TYPE pair AS (a int, b text);
CREATE FUNCTION pair_of(i int) RETURNS pair LANGUAGE plpgsql STABLE AS
	$$ BEGIN PERFORM nextval('memo.calls'); RETURN ROW(i, repeat('x', 5000))::memo.pair; END $$;
CREATE FUNCTION array_of(i int) RETURNS int[] LANGUAGE plpgsql STABLE AS
	$$ DECLARE a int[]; BEGIN PERFORM nextval('memo.calls'); a[1] := i; a[2] := i + 1; RETURN a; END $$;
CREATE FUNCTION uuid_of(i int) RETURNS uuid LANGUAGE plpgsql STABLE AS
	$$ BEGIN PERFORM nextval('memo.calls'); RETURN lpad(i::text, 32, '0')::uuid; END $$;
CREATE FUNCTION nothing() RETURNS int LANGUAGE plpgsql STABLE AS
	$$ BEGIN PERFORM nextval('memo.calls'); RETURN 7; END $$;
SELECT perfopt.memoize(f) FROM unnest('{pair_of(int),array_of(int),uuid_of(int),nothing()}'::regprocedure[]) f;
SELECT called() IS NOT NULL AS counted;
CREATE FUNCTION all_of() RETURNS text LANGUAGE sql AS
	$$ SELECT length((memo.pair_of(5)).b) || ' ' || memo.array_of(5)::text || ' ' || memo.uuid_of(5) || ' ' || memo.nothing() $$;
SELECT is(all_of(), '5000 {5,6} 00000000-0000-0000-0000-000000000005 7', 'composite, expanded array, fixed length, no argument');
SELECT is(all_of(), '5000 {5,6} 00000000-0000-0000-0000-000000000005 7', 'once more');
SELECT is(called(), 4::bigint, 'each was called once');
SELECT is((SELECT a || ' ' || length(b) FROM pair_of(5)), '5 5000', 'a composite result in FROM');
SELECT is((SELECT r * 2 FROM rate('eur') r), 2.4, 'and a scalar one');
SELECT is((SELECT string_agg(a::text, ' ' ORDER BY o) FROM unnest(array_of(5)) WITH ORDINALITY u(a, o)), '5 6', 'inside of another function');
SELECT called() IS NOT NULL AS counted;
SELECT results_eq('SELECT array_of(i) FROM generate_series(5, 5) i GROUP BY array_of(i) HAVING array_of(i) IS NOT NULL ORDER BY array_of(i)',
	$$ VALUES ('{5,6}'::int[]) $$, 'grouped by');
SELECT is(called(), 0::bigint, 'all from the cache');

ALTER TYPE pair ADD ATTRIBUTE c int;
ALTER TYPE pair ALTER ATTRIBUTE a TYPE text;
CREATE OR REPLACE FUNCTION pair_of(i int) RETURNS pair LANGUAGE plpgsql STABLE AS
	$$ BEGIN PERFORM nextval('memo.calls'); RETURN ROW('a' || i, 'b', 3)::memo.pair; END $$;
SELECT is(count(*), 0::bigint, 'a replaced function is no longer memoized')
	FROM perfopt.memoized_functions WHERE function = 'pair_of(int)'::regprocedure;
CREATE FUNCTION pairs_of(i int) RETURNS pair[] LANGUAGE sql STABLE AS
	$$ SELECT ARRAY[jsonb_populate_record(NULL::memo.pair, jsonb_build_object('a', i, 'b', 'b', 'c', 3))] $$;
SELECT perfopt.memoize('pairs_of(int)');
SELECT pairs_of(1) IS NOT NULL AS kept;
ALTER TYPE pair ALTER ATTRIBUTE c TYPE text;
SELECT is(pairs_of(1)::text, '{"(1,b,3)"}', 'a row type altered');
CREATE DOMAIN small AS int CHECK (value < 100);
CREATE FUNCTION small_of(i int) RETURNS small LANGUAGE plpgsql STABLE AS 'BEGIN RETURN i; END';
SELECT perfopt.memoize('small_of(int)');
SELECT is(small_of(50)::int, 50, 'a domain');
ALTER DOMAIN small ADD CHECK (value < 10);
SELECT throws_ok('SELECT small_of(50)', '23514', NULL, 'a domain altered');

-- Rights
SET ROLE perfopt_memo_user;
SELECT throws_ok($$ SELECT perfopt.memoize('memo.rate(text, int)') $$, '42501', NULL, 'others may not');
SELECT throws_ok($$ SELECT perfopt.unmemoize('memo.rate(text, int)') $$, '42501', NULL, 'nor undo it');
SELECT throws_ok($$ SELECT memo.rate('eur') $$, '42501', NULL, 'rights on tables are the caller''s');
SET ROLE perfopt_memo_owner;
REVOKE EXECUTE ON FUNCTION nothing() FROM PUBLIC;
SET ROLE perfopt_memo_user;
SELECT throws_ok($$ SELECT memo.nothing() $$, '42501', NULL, 'EXECUTE is needed');
SELECT throws_ok($$ SELECT perfopt.memoized_call(1, 'memo.nothing()'::regprocedure) $$, '42501', NULL, 'also past the planner');
SELECT throws_ok($$ SELECT perfopt.memoized_call('x'::text, 'memo.nothing()'::regprocedure) $$, '0A000', NULL, 'where types are looked at');
SET ROLE perfopt_memo_owner;

-- What cannot be memoized
CREATE FUNCTION vol() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION rows_of() RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION poly(a anyelement) RETURNS anyelement LANGUAGE sql STABLE AS 'SELECT a';
SELECT throws_ok($$ SELECT perfopt.memoize('vol()') $$, '0A000', NULL, 'a volatile function');
SELECT throws_ok($$ SELECT perfopt.memoize('rows_of()') $$, '0A000', NULL, 'a set');
SELECT throws_ok($$ SELECT perfopt.memoize('poly(anyelement)') $$, '0A000', NULL, 'a polymorphic function');

-- The end
SELECT perfopt.unmemoize(function) FROM perfopt.memoized_functions;
SELECT ok(NOT EXISTS (SELECT FROM plan_of('SELECT * FROM uses_rate') p WHERE p LIKE '%memoized_call%'), 'no longer in plans');
SELECT is((SELECT count(*) FROM pg_depend WHERE refobjid = 'perfopt.memoize_support'::regproc
	AND classid = 'pg_proc'::regclass) + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'memo'::regnamespace AND proconfig IS NOT NULL),
	0::bigint, 'nothing is left');

SELECT * FROM finish();
RESET ROLE;
SET client_min_messages = warning;
DROP SCHEMA memo CASCADE;
DROP ROLE perfopt_memo_owner, perfopt_memo_user;
