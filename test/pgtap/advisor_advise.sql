-- perfopt.advise(): which indexes for statements handed in; what it takes, refuses, and shows to whom.
BEGIN;
SELECT plan(56);

CREATE TABLE advise_users (id int PRIMARY KEY, email text NOT NULL, city text, note text);
INSERT INTO advise_users SELECT i, 'user' || i || '@example.com', 'city' || i % 1000, repeat('n', 50) FROM generate_series(1, 20000) i;
CREATE TABLE advise_orders (id int PRIMARY KEY, user_id int, at timestamptz, amount int, filler text);
INSERT INTO advise_orders SELECT i, i::bigint * 7919 % 20000 + 1, timestamptz '2024-01-01' + i * interval '1 s', i % 100, repeat('f', 60)
  FROM generate_series(1, 60000) i;
-- all rows are looked at: no chance in the estimates
SET LOCAL default_statistics_target = 1000;
ANALYZE advise_users, advise_orders;

CREATE FUNCTION pg_temp.advised(queries text[], budget bigint DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(string_agg(regexp_replace(d, '.* ON public\.', ''), ', ' ORDER BY d COLLATE "C"), '')
      FROM perfopt.advise($1, $2) a, unnest(a.ddl) d WHERE a.statement IS NULL $$;

-- The shape
SELECT results_eq($$SELECT statement, query FROM perfopt.advise('{SELECT 1,SELECT 2}')$$,
    $$VALUES (NULL::int, NULL::text), (1, 'SELECT 1'), (2, 'SELECT 2')$$, 'the whole first, then each statement');
SELECT results_eq($$SELECT statement, cost_before, cost_after, ddl, estimated_bytes, notes FROM perfopt.advise('{}')$$,
    $$VALUES (NULL::int, 0::float8, 0::float8, '{}'::text[], 0::bigint, '{}'::text[])$$, 'no statements');
CREATE TEMP TABLE result AS SELECT * FROM perfopt.advise(ARRAY[
    'SELECT * FROM advise_users WHERE email = $1', 'SELECT * FROM advise_users WHERE id = 7',
    'SELECT * FROM advise_orders WHERE user_id = 42']);
SELECT results_eq('SELECT d FROM result, unnest(ddl) d WHERE statement IS NULL ORDER BY d COLLATE "C"',
    $$VALUES ('CREATE INDEX CONCURRENTLY advise_orders_user_id_idx ON public.advise_orders (user_id)'),
             ('CREATE INDEX CONCURRENTLY advise_users_email_idx ON public.advise_users (email)')$$, 'the missing indexes, and no other');
SELECT results_eq('SELECT statement, cardinality(ddl), cost_after < cost_before / 10 FROM result WHERE statement IS NOT NULL',
    'VALUES (1, 1, true), (2, 0, false), (3, 1, true)', 'a row for each, with the indexes it uses');
SELECT is(w.cost_before::numeric, round(sum(r.cost_before)::numeric, 2), 'the costs before add up')
  FROM result w, result r WHERE w.statement IS NULL AND r.statement IS NOT NULL GROUP BY w.cost_before;
SELECT is(w.cost_after::numeric, round(sum(r.cost_after)::numeric, 2), '... and after')
  FROM result w, result r WHERE w.statement IS NULL AND r.statement IS NOT NULL GROUP BY w.cost_after;
SELECT is(w.estimated_bytes, sum(r.estimated_bytes)::bigint, '... and the bytes')
  FROM result w, result r WHERE w.statement IS NULL AND r.statement IS NOT NULL GROUP BY w.estimated_bytes;
SELECT is_empty($$SELECT FROM pg_index i WHERE indrelid IN ('advise_users'::regclass, 'advise_orders'::regclass) AND NOT indisprimary$$,
    'nothing is built');

-- What it says is what comes true.
CREATE FUNCTION pg_temp.cost(query text) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE plan json;
BEGIN EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan; RETURN plan -> 0 -> 'Plan' -> 'Total Cost'; END $$;
SELECT is(round(pg_temp.cost(query)::numeric), round(cost_before::numeric), 'the cost before is that of EXPLAIN') FROM result WHERE statement = 3;
CREATE INDEX built ON advise_orders (user_id);
SELECT cmp_ok(abs(pg_temp.cost(query) / cost_after - 1), '<', 0.1::float8, 'the cost after is what it costs with the index') FROM result WHERE statement = 3;
SELECT cmp_ok(abs(pg_relation_size('built') / estimated_bytes::float8 - 1), '<', 0.15::float8, '... which has the size told') FROM result WHERE statement = 3;
SELECT is(pg_temp.advised(ARRAY['SELECT * FROM advise_orders WHERE user_id = 42']), '', 'an index that exists is not advised');

-- A guess of how many rows meet a condition on an expression does not pass for knowledge: here
-- the first of a hundred, says the planner, are soon met in the order of the key.
CREATE TEMP TABLE guessed AS SELECT * FROM perfopt.advise(ARRAY['SELECT * FROM advise_users WHERE upper(email) = $1 ORDER BY id LIMIT 1'])
    WHERE statement = 1;
SELECT is(regexp_replace(ddl::text, '.* ON public\.', ''), 'advise_users (upper(email), id)"}', 'an expression, with LIMIT in another order') FROM guessed;
SELECT cmp_ok(cost_before, '>', 10 * pg_temp.cost('SELECT * FROM advise_users WHERE upper(email) = ''A'' ORDER BY id LIMIT 1'),
    '... the cost before is by what would be known with the index') FROM guessed;

SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL min_parallel_index_scan_size = 0;
SELECT is(pg_temp.advised(ARRAY['SELECT * FROM advise_users WHERE upper(email) = $1']), 'advise_users (upper(email))',
    '... and no worker of a parallel plan scans what is not there');
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET min_parallel_index_scan_size;

-- Several statements at once
SELECT is(pg_temp.advised(ARRAY['SELECT * FROM advise_orders WHERE amount = 5 AND at > $1 AND at < $2',
    'SELECT id FROM advise_orders WHERE amount = 7']), 'advise_orders (amount, at)', 'one index serves both');
SELECT is((SELECT notes FROM perfopt.advise(ARRAY['SELECT * FROM advise_orders WHERE user_id = 42 ORDER BY at DESC LIMIT 1', 'SELECT sum(amount) FROM advise_orders WHERE user_id = 5 AND at > ''2024-01-01'' AND id > 100 AND at < ''2024-01-01 00:10'''])
    WHERE statement IS NULL AND array_to_string(ddl, ' ') ~ '\(user_id, at\)'),
    ARRAY['With CREATE INDEX CONCURRENTLY advise_orders_user_id_at_idx ON public.advise_orders (user_id, at), index public.built is superfluous.'],
    'an existing index that becomes superfluous is named');
DROP INDEX built;

-- Parameters without values
CREATE TABLE advise_visits AS SELECT CASE WHEN i % 5 = 0 THEN 1 ELSE i END AS user_id, timestamptz '2024-01-01' + i * interval '1 s' AS at,
    repeat('f', 60) AS filler FROM generate_series(1, 20000) i;
ANALYZE advise_visits;
SELECT is(pg_temp.advised(ARRAY['SELECT * FROM advise_visits WHERE user_id = $1 ORDER BY at DESC LIMIT 20']), 'advise_visits (user_id, at)',
    'where one value is far more common, rows of that are sorted');
SELECT is(pg_temp.advised(ARRAY['SELECT * FROM advise_orders WHERE user_id = $1 ORDER BY at DESC LIMIT 20']), 'advise_orders (user_id)',
    '... and where none is, there are few to sort');
CREATE FUNCTION pg_temp.for_pattern(condition text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(': ', substring(ddl::text from 'advise_users \((\w+(\(\w+\))?)'), substring(notes::text from '"(\w+ \w+)'))
      FROM perfopt.advise(ARRAY['SELECT * FROM advise_users WHERE ' || condition]) WHERE statement = 1 $$;
SELECT is(pg_temp.for_pattern($$email LIKE $1 || '%'$$), 'email: The pattern', 'a pattern that is made a prefix');
SELECT is(pg_temp.for_pattern($$email LIKE 'user' || $1::int || '%'$$), 'email: The pattern', '... with something before it');
SELECT is(pg_temp.for_pattern($$email LIKE 'user%' || $1$$), '', '... that all rows begin with');
SELECT is(pg_temp.for_pattern($$lower(email) LIKE lower($1) || '%'$$), 'lower(email): The pattern', '... of an expression');
SELECT is(pg_temp.for_pattern($$(100 / (id % 50))::text LIKE $1 || '%'$$), 'No statistics', '... that fails for some value');
CREATE FUNCTION advise_same(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
CREATE ROLE advise_writer;
ALTER FUNCTION advise_same OWNER TO advise_writer;
SELECT is(pg_temp.for_pattern($$advise_same(email) LIKE $1 || '%'$$), 'No statistics', '... with a function that an ordinary role has written');
SELECT is(pg_temp.for_pattern('starts_with(email, $1)'), 'email: The pattern', 'what is nothing but a prefix');
SELECT is(pg_temp.for_pattern($$email LIKE '%' || $1 || '%'$$), '', 'what is none gets no B-tree');
SELECT is(pg_temp.for_pattern('email LIKE $1'), 'What a', '... nor what may be one or not, which is told');
SELECT is(pg_temp.for_pattern($$EXISTS (SELECT FROM advise_visits v WHERE v.user_id = id AND email LIKE $1 || '%')$$), '', 'a column of the outer query');

-- What it gives can be run
CREATE TABLE advise_days (day int, user_id int, filler text) PARTITION BY RANGE (day);
CREATE TABLE advise_days_1 PARTITION OF advise_days FOR VALUES FROM (0) TO (5);
CREATE TABLE advise_days_2 PARTITION OF advise_days FOR VALUES FROM (5) TO (10);
INSERT INTO advise_days SELECT i % 10, i, repeat('f', 60) FROM generate_series(1, 10000) i;
ANALYZE advise_days;
SELECT is((SELECT ddl[1] FROM perfopt.advise(ARRAY['SELECT * FROM advise_days WHERE user_id = 7']) WHERE statement IS NULL),
    'CREATE INDEX advise_days_user_id_idx ON public.advise_days (user_id)', 'a partitioned table takes none CONCURRENTLY');
CREATE TABLE advise_documents (kind int, parts json[], filler text);
INSERT INTO advise_documents SELECT i % 500, CASE WHEN i % 100 > 1 THEN ARRAY['{}'::json] END, repeat('f', 60) FROM generate_series(1, 20000) i;
ANALYZE advise_documents;
SELECT is(pg_temp.advised(ARRAY['SELECT * FROM advise_documents WHERE kind = 5 OR parts IS NULL']), '',
    'what has no order is no key');

-- Writes
SELECT is(pg_temp.advised(ARRAY['SELECT * FROM advise_users WHERE city = ''city7''']), 'advise_users (city)', 'an index that helps to read');
SELECT is(pg_temp.advised(ARRAY['SELECT * FROM advise_users WHERE city = ''city7''',
    'UPDATE advise_users SET city = city || ''x''']), '', '... is not worth what many updates of the column cost');
SELECT is(pg_temp.advised(ARRAY['SELECT * FROM advise_users WHERE city = ''city7''',
    'UPDATE advise_users SET note = $1 WHERE id = $2']), 'advise_users (city)', '... but those of another one don''t count');
SELECT is(pg_temp.advised(ARRAY['SELECT * FROM advise_users WHERE city = ''city7''',
    'MERGE INTO advise_users u USING generate_series(1, 20000) i ON u.id = i WHEN MATCHED THEN UPDATE SET city = city || i']), '', '... nor those of MERGE');

-- The budget
SELECT is(pg_temp.advised(ARRAY['SELECT * FROM advise_orders WHERE user_id = 42', 'SELECT * FROM advise_users WHERE city = ''city7'''], 0), '',
    'no bytes, no index');
SELECT is(pg_temp.advised(ARRAY['SELECT * FROM advise_orders WHERE user_id = 42', 'SELECT * FROM advise_users WHERE city = ''city7'''], 400000),
    'advise_users (city)', 'what fits');
SELECT ok((SELECT estimated_bytes <= 1500000 FROM perfopt.advise(ARRAY['SELECT * FROM advise_orders WHERE user_id = 42',
    'SELECT * FROM advise_users WHERE email = $1', 'SELECT * FROM advise_users WHERE city = ''city7'''], 1500000) WHERE statement IS NULL),
    'the budget is kept to');
SELECT alike((SELECT notes[1] FROM perfopt.advise(ARRAY['SELECT * FROM advise_users WHERE city = $1'], NULL, '1 us') WHERE statement IS NULL),
    'The time was not enough%', 'out of time: said so');

-- What it refuses
SELECT throws_ok($$SELECT perfopt.advise(NULL)$$, '22004', 'queries must not be null');
SELECT throws_ok($$SELECT perfopt.advise(ARRAY['SELECT 1', NULL])$$, '22004', 'statement 2 handed to perfopt.advise() is null');
SELECT throws_ok($$SELECT perfopt.advise('{SELECT 1}', -1)$$, '22023', 'storage_budget must not be negative');
SELECT throws_ok($$SELECT perfopt.advise('{SELECT 1}', NULL, '0')$$, '22023', 'time_budget must be greater than zero');
SELECT throws_ok($$SELECT perfopt.advise('{SELECT 1,SELECT FROM nowhere}')$$, '42P01', 'relation "nowhere" does not exist');
SELECT throws_ok($$SELECT perfopt.advise('{SELECT 1; SELECT 2}')$$, '42601', 'perfopt.advise() takes one statement in each element, but this one has 2');
SELECT throws_ok($$SELECT perfopt.advise('{""}')$$, '42601', 'perfopt.advise() takes one statement in each element, but this one is empty');
SELECT throws_ok($$SELECT perfopt.advise('{VACUUM}')$$, '0A000', 'perfopt.advise() cannot price VACUUM');
CREATE FUNCTION pg_temp.context_of(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE context text;
BEGIN EXECUTE sql; RETURN 'no error';
EXCEPTION WHEN others THEN GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT; RETURN split_part(context, E'\n', 1); END $$;
SELECT is(pg_temp.context_of($$SELECT perfopt.advise('{SELECT 1,SELEC 2}')$$), 'statement 2 handed to perfopt.advise()', 'which one is wrong');

-- Rights
CREATE ROLE advise_other;
GRANT SELECT (city) ON advise_users TO advise_other;
SET ROLE advise_other;
SELECT throws_ok($$SELECT perfopt.advise('{SELECT * FROM public.advise_orders WHERE user_id = 42}')$$, '42501',
    'permission denied for table advise_orders', 'a statement that the caller may not run');
SELECT is(pg_temp.advised(ARRAY['SELECT city FROM advise_users WHERE city = ''city7''']), 'advise_users (city)', 'with the right to one column');
SELECT is(pg_temp.advised(ARRAY['SELECT city FROM advise_users WHERE lower(city) LIKE ''%y77%''']),
    'CREATE EXTENSION pg_trgm, advise_users USING gin (lower(city) gin_trgm_ops)', '... of an expression, with an extension that is missing');
SELECT is(current_user, 'advise_other', 'the caller stays who it is');
RESET ROLE;
GRANT SELECT (user_id, amount) ON advise_orders TO advise_other;
CREATE TEMP TABLE sizes AS SELECT 'reader' AS of, ddl, estimated_bytes AS bytes
    FROM perfopt.advise(ARRAY['SELECT count(*) FROM advise_orders WHERE user_id + amount = 42']) WHERE statement IS NULL;
GRANT ALL ON sizes TO advise_other;
SET ROLE advise_other;
INSERT INTO sizes SELECT 'other', ddl, estimated_bytes
    FROM perfopt.advise(ARRAY['SELECT count(*) FROM advise_orders WHERE user_id + amount = 42']) WHERE statement IS NULL;
RESET ROLE;
SELECT is(count(DISTINCT ddl), 1::bigint, 'the same index') FROM sizes;
SELECT is(count(DISTINCT bytes), 2::bigint, '... whose size, told by the rows, is not for who may not read all') FROM sizes;
CREATE FUNCTION advise_who() RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT current_user::text';
GRANT SELECT ON advise_users TO advise_other;
SET ROLE advise_other;
SELECT lives_ok($$SELECT perfopt.advise(ARRAY['SELECT * FROM advise_users WHERE email = advise_who()'])$$, 'functions run as the caller');
RESET ROLE;
ALTER TABLE advise_users ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON advise_users USING (email = current_user);
SET ROLE advise_other;
SELECT ok((SELECT estimated_bytes > 0 FROM perfopt.advise(ARRAY['SELECT * FROM advise_users WHERE city = ''city7'''])
    WHERE statement IS NULL) IS NOT NULL, 'a table with policies is estimated without its rows');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
