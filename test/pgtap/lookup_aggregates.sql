-- lookup_aggregates() and lookup_children(): compared with a query for each key,
-- over random data; foreign keys, paths, what they refuse.
\set QUIET on
SET client_min_messages = warning;
SELECT plan(74);

CREATE SCHEMA lookup_agg;
SET search_path = lookup_agg, public;
SELECT setseed(0.3) \g /dev/null
CREATE TABLE users (id bigint PRIMARY KEY, code text UNIQUE);
CREATE TABLE orders (id int PRIMARY KEY, user_id bigint REFERENCES users, status text, total int, at timestamptz);
CREATE TABLE items (id int PRIMARY KEY, order_id int REFERENCES orders, qty int, price numeric);
CREATE INDEX ON orders (user_id, at);
CREATE INDEX ON items (order_id);
INSERT INTO users SELECT i, 'c' || i FROM generate_series(1, 300) i;
INSERT INTO orders SELECT i, nullif(trunc(random() * 250)::int, 0), (ARRAY['paid', 'new', NULL])[1 + i % 3], random() * 100, '2020-01-01'::timestamptz + random() * interval '9 days' FROM generate_series(1, 2000) i;
INSERT INTO items SELECT i, 1 + trunc(random() * 1500), random() * 10, random() FROM generate_series(1, 4000) i;
ANALYZE users, orders, items;

-- The answers of a query for each key, in PL/pgSQL
CREATE FUNCTION one_by_one(keys bigint[], status text) RETURNS TABLE (id bigint, c bigint, s bigint, a numeric, d bigint, l text) LANGUAGE plpgsql AS $$
BEGIN
    FOREACH id IN ARRAY keys LOOP
        SELECT count(*), sum(o.total), avg(o.total), count(DISTINCT o.status), string_agg(o.status, ', ' ORDER BY o.id DESC)
            INTO c, s, a, d, l FROM orders o WHERE o.user_id = one_by_one.id AND ($2 IS NULL OR o.status = $2);
        RETURN NEXT;
    END LOOP;
END $$;
CREATE FUNCTION some_keys(n int, seed int) RETURNS bigint[] LANGUAGE sql AS
    $$ SELECT array_agg(CASE WHEN i % 17 = 0 THEN NULL ELSE abs(hashint4(i * 31 + seed)) % 320 END) FROM generate_series(1, n) i $$;
-- with few keys, more, and many, which have plans of their own
SELECT results_eq(
    format('SELECT * FROM perfopt.lookup_aggregates(''users'', some_keys(%s, 1), ''orders'', ''{count(*),sum(total),avg(total),count(DISTINCT status),"string_agg(status, '''', '''' ORDER BY id DESC)"}'') AS t(id bigint, c bigint, s bigint, a numeric, d bigint, l text)', n),
    format('SELECT * FROM one_by_one(some_keys(%s, 1), NULL)', n), 'aggregates of ' || n || ' keys')
FROM unnest(ARRAY[1, 10, 199, 200, 201, 1500]) n;
SELECT results_eq(
    format('SELECT * FROM perfopt.lookup_aggregates(''users'', some_keys(%s, 2), ''orders'', ''{count(*),sum(total),avg(total),count(DISTINCT status),"string_agg(status, '''', '''' ORDER BY id DESC)"}'', ''status = $1'', ROW(''paid'')) AS t(id bigint, c bigint, s bigint, a numeric, d bigint, l text)', n),
    format('SELECT * FROM one_by_one(some_keys(%s, 2), ''paid'')', n), 'with a filter, ' || n || ' keys')
FROM unnest(ARRAY[10, 1500]) n;
SELECT results_eq(
    format('SELECT x::text FROM perfopt.lookup_aggregates_json(''users'', some_keys(%s, 3), ''orders'', ''{count(*),sum(total) AS total}'') x', n),
    format('SELECT jsonb_build_object(''id'', id, ''count'', c, ''total'', s)::text FROM one_by_one(some_keys(%s, 3), NULL)', n), 'objects, ' || n || ' keys')
FROM unnest(ARRAY[10, 1500]) n;
SELECT is_empty('SELECT * FROM perfopt.lookup_aggregates(''users'', ''{}'', ''orders'', ''{count(*)}'') AS t(id bigint, c bigint)', 'no keys');
SELECT is((SELECT count(*) || ' ' || sum(c) FROM perfopt.lookup_aggregates('users', ARRAY(SELECT i FROM generate_series(1, 100000) i), 'orders', '{count(*)}') AS t(id bigint, c bigint)),
    (SELECT '100000 ' || count(user_id) FROM orders), '100,000 keys');

-- What an aggregate gives over no rows
CREATE AGGREGATE answer(int) (sfunc = int4pl, stype = int, initcond = '42');
SELECT is(x::text, '{"id": -1, "max": null, "count": 0, "answer": 42, "regr_count": 0}', 'over no rows, one key')
FROM perfopt.lookup_aggregates_json('users', '{-1}', 'orders', '{max(total),count(status),answer(total),"regr_count(total, id)"}') x;
SELECT is(min(x::text), '{"id": -1, "max": null, "count": 0, "answer": 42, "regr_count": 0}', 'over no rows, many keys')
FROM perfopt.lookup_aggregates_json('users', ARRAY(SELECT -1 FROM generate_series(1, 500)), 'orders', '{max(total),count(status),answer(total),"regr_count(total, id)"}') x;
SELECT is((SELECT x::text FROM perfopt.lookup_aggregates_json('users', '{5}', 'orders', '{"percentile_disc(0.5) WITHIN GROUP (ORDER BY total) AS p"}') x),
    (SELECT jsonb_build_object('id', 5, 'p', percentile_disc(0.5) WITHIN GROUP (ORDER BY total))::text FROM orders WHERE user_id = 5), 'an ordered-set aggregate');

-- Two hops: compared with a query for each level and key
CREATE FUNCTION two_hops(keys bigint[]) RETURNS TABLE (id bigint, oc bigint, os bigint, ic bigint, iq bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOREACH id IN ARRAY keys LOOP
        SELECT count(o.id), sum(o.total) INTO oc, os FROM orders o WHERE o.user_id = two_hops.id;
        SELECT count(*), sum(i.qty) INTO ic, iq FROM items i WHERE i.order_id IN (SELECT o.id FROM orders o WHERE o.user_id = two_hops.id);
        RETURN NEXT;
    END LOOP;
END $$;
SELECT results_eq(
    format('SELECT * FROM perfopt.lookup_aggregates(''users'', some_keys(%s, 4), ''items'', ''{count(orders.id),sum(orders.total),count(*),sum(qty)}'', via => ''{orders}'') AS t(id bigint, oc bigint, os bigint, ic bigint, iq bigint)', n),
    format('SELECT * FROM two_hops(some_keys(%s, 4))', n), 'two hops, ' || n || ' keys')
FROM unnest(ARRAY[1, 20, 250, 1500]) n;
SELECT results_eq($$SELECT * FROM perfopt.lookup_aggregates('users', '{3,4,5}', 'items', '{count(orders.id),count(*)}', 'orders.status = $1', ROW('paid'), via => '{orders}') AS t(id bigint, o bigint, i bigint)$$,
    $$SELECT u, (SELECT count(*) FROM orders o WHERE user_id = u AND status = 'paid'), (SELECT count(*) FROM items i JOIN orders o ON order_id = o.id WHERE user_id = u AND status = 'paid') FROM unnest(ARRAY[3, 4, 5]::bigint[]) u$$,
    'a filter on the table in between holds for both');
SELECT results_eq($$SELECT * FROM perfopt.lookup_aggregates('users', '{3,4,5}', 'items', '{count(orders.id),count(*)}', 'qty > $1', ROW(5), via => '{orders}') AS t(id bigint, o bigint, i bigint)$$,
    $$SELECT u, (SELECT count(*) FROM orders o WHERE user_id = u), (SELECT count(*) FROM items i JOIN orders o ON order_id = o.id WHERE user_id = u AND qty > 5) FROM unnest(ARRAY[3, 4, 5]::bigint[]) u$$,
    'one on the child for the child only');
SELECT lives_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{3}', 'items', '{count(*)}', via => '{"lookup_agg.orders(user_id)"}')$$, 'via with schema and column');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{3}', 'items', '{sum(orders.total)}')$$, '42704', 'relation "items" has no foreign key that refers to "users"');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{3}', 'orders', '{sum(items.qty)}')$$, '42P01', 'table "items" is not one of those that are looked up');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{3}', 'items', '{"regr_count(orders.id, qty)"}', via => '{orders}')$$, '0A000', NULL, 'an aggregate over two tables');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{3}', 'items', '{count(*)}', via => '{"orders(user_id) x"}')$$, '22023', NULL, 'rubbish after via');

-- Children
CREATE FUNCTION children(keys bigint[], lim int) RETURNS TABLE (k bigint, id int, at timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    FOREACH k IN ARRAY keys LOOP
        RETURN QUERY SELECT children.k, o.id, o.at FROM orders o WHERE o.user_id = children.k ORDER BY o.at DESC, o.id LIMIT lim;
    END LOOP;
END $$;
SELECT results_eq(
    format('SELECT * FROM perfopt.lookup_children(''users'', some_keys(%s, 5), ''orders'', ''{id,at}'', ''at DESC, id'', %s) AS t(k bigint, id int, at timestamptz)', n, lim),
    format('SELECT * FROM children(some_keys(%s, 5), %s)', n, lim), format('%s children of %s keys', lim, n))
FROM unnest(ARRAY[1, 20, 1500]) n, unnest(ARRAY['NULL', '3', '0']) lim;
SELECT results_eq(
    format('SELECT x::text FROM perfopt.lookup_children_json(''users'', some_keys(%s, 6), ''orders'', ''{id,at}'', ''at DESC, id'', 3) x', n),
    format('SELECT coalesce((SELECT jsonb_agg(jsonb_build_object(''id'', id, ''at'', at)) FROM children(ARRAY[k], 3)), ''[]'')::text FROM unnest(some_keys(%s, 6)) k', n),
    'lists of children, ' || n || ' keys')
FROM unnest(ARRAY[1, 20, 1500]) n;
SELECT is((SELECT x::text FROM perfopt.lookup_children_json('users', '{5}', 'orders', '{}') x LIMIT 1) ~ '^\[\{\}(, \{\})*\]$', true, 'no columns');
SELECT is((SELECT count(*) FROM perfopt.lookup_children('users', '{5,6}', 'orders', '{}') AS t(k bigint)), (SELECT count(*) FROM orders WHERE user_id IN (5, 6)), 'no columns in rows');
SELECT results_eq($$SELECT k, id, user_id, status, total, at FROM perfopt.lookup_children('users', '{5}', 'orders') AS t(k bigint, id int, user_id bigint, status text, total int, at timestamptz)$$,
    'SELECT user_id, * FROM orders WHERE user_id = 5 ORDER BY id', 'all columns, by primary key');
SELECT results_eq($$SELECT * FROM perfopt.lookup_children('users', '{5}', 'orders', '{status}', 'status NULLS FIRST', filter => 'total > $1 OR status = $2', params => ROW(50, 'new')) AS t(k bigint, status text)$$,
    $$SELECT user_id, status FROM orders WHERE user_id = 5 AND (total > 50 OR status = 'new') ORDER BY status NULLS FIRST$$, 'a filter with OR stays in its parentheses');
DO $$ BEGIN EXECUTE 'CREATE TABLE wide (user_id bigint REFERENCES users, ' || (SELECT string_agg(format('c%s int DEFAULT %s', i, i), ',') FROM generate_series(1, 120) i) || ')'; END $$;
INSERT INTO wide VALUES (1);
SELECT is((SELECT count(*) FROM perfopt.lookup_children_json('users', '{1}', 'wide') x, jsonb_object_keys(x->0)), 121::bigint, '121 columns');

-- Foreign keys
CREATE TABLE messages (id int PRIMARY KEY, sender bigint REFERENCES users, receiver bigint REFERENCES users, code text REFERENCES users (code), parent int REFERENCES messages);
INSERT INTO messages VALUES (1, 1, 2, 'c9', NULL), (2, 1, 3, 'c9', 1), (3, 2, 1, 'c8', 1);
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{1}', 'messages', '{count(*)}')$$, '42702', 'relation "messages" has several foreign keys that refer to "users"');
SELECT is((SELECT string_agg(x->>'count', ',') FROM perfopt.lookup_aggregates_json('users', '{1,2,3}', 'messages', '{count(*)}', child_key => '{sender}') x), '2,1,0', 'one of several');
SELECT is((SELECT string_agg(x->>'count', ',') FROM perfopt.lookup_aggregates_json('users', '{1,2,3}', 'messages', '{count(*)}', child_key => '{receiver}') x), '1,1,1', 'another one');
SELECT is((SELECT string_agg(x::text, ' ') FROM perfopt.lookup_aggregates_json('users', '{c9,c7}', 'messages', '{count(*)}', child_key => '{code}') x), '{"code": "c9", "count": 2} {"code": "c7", "count": 0}', 'one that refers to another unique key');
SELECT is((SELECT string_agg(x->>'count', ',') FROM perfopt.lookup_aggregates_json('messages', '{1,2}', 'messages', '{count(*)}') x), '2,0', 'a table that refers to itself');
CREATE TABLE tenants (tenant int, code text, PRIMARY KEY (tenant, code));
CREATE TABLE bills (id int, c text, t int, FOREIGN KEY (c, t) REFERENCES tenants (code, tenant));
INSERT INTO tenants VALUES (1, 'a'), (1, 'b'), (2, 'a');
INSERT INTO bills SELECT i, 'a', 1 + i % 2 FROM generate_series(1, 9) i;
SELECT is((SELECT string_agg(t::text, ' ') FROM perfopt.lookup_aggregates('tenants', ARRAY[ROW(2, 'a'), ROW(1, 'b'), ROW(1, 'a'), ROW(NULL, 'a'), ROW(2, 'a')], 'bills', '{count(*),min(id)}') AS t(tenant int, code text, c bigint, m int)),
    '(2,a,5,1) (1,b,0,) (1,a,4,2) (,a,0,) (2,a,5,1)', 'a composite key in the primary key''s order');
SELECT is((SELECT string_agg(DISTINCT t::text, ' ') FROM perfopt.lookup_aggregates('tenants', ARRAY(SELECT ROW(1 + i % 2, 'a') FROM generate_series(0, 500) i), 'bills', '{count(*),min(id)}') AS t(tenant int, code text, c bigint, m int)),
    '(1,a,4,2) (2,a,5,1)', 'many composite keys');
SELECT is((SELECT string_agg(DISTINCT x::text, ' ') FROM perfopt.lookup_children_json('tenants', (SELECT jsonb_agg(jsonb_build_array(i % 3, 'a')) FROM generate_series(0, 500) i), 'bills', '{id}', 'id DESC', 2) x),
    '[] [{"id": 8}, {"id": 6}] [{"id": 9}, {"id": 7}]', 'children of many composite keys');
CREATE TABLE parted (id int, user_id bigint REFERENCES users, at date) PARTITION BY RANGE (at);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
INSERT INTO parted VALUES (1, 1, '2020-05-05'), (2, 1, '2021-05-05');
SELECT is((SELECT string_agg(x->>'count', ',') FROM perfopt.lookup_aggregates_json('users', '{1,2}', 'parted', '{count(*)}') x), '2,0', 'a partitioned child');
SELECT is((SELECT string_agg(x->>'count', ',') FROM perfopt.lookup_aggregates_json('users', '{1,2}', 'parted_2', '{count(*)}') x), '1,0', 'a partition');
CREATE VIEW order_view AS SELECT user_id AS owner, total FROM orders;
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{1}', 'order_view', '{count(*)}')$$, '42704', 'relation "order_view" has no foreign key that refers to "users"');
SELECT is((SELECT x->>'sum' FROM perfopt.lookup_aggregates_json('users', '{7}', 'order_view', '{sum(total)}', child_key => '{owner}') x), (SELECT sum(total)::text FROM orders WHERE user_id = 7), 'a view as child');
CREATE VIEW user_view AS SELECT * FROM users;
SELECT is((SELECT x->>'sum' FROM perfopt.lookup_aggregates_json('user_view', '{7}', 'orders', '{sum(total)}', child_key => '{user_id}') x), (SELECT sum(total)::text FROM orders WHERE user_id = 7), 'a view as parent');
CREATE TABLE loose (user_id text, small smallint, wide_id bigint);
INSERT INTO loose VALUES ('1', 1, 1);
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{7}', 'loose', '{count(*)}', child_key => '{user_id}')$$, '42804', NULL, 'a column of another kind of type');
SELECT is((SELECT string_agg(x->>'count', ',') FROM perfopt.lookup_aggregates_json('users', '{1,99999}', 'loose', '{count(*)}', child_key => '{small}') x), '1,0', 'a narrower column, not declared');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{7}', 'loose', '{count(*)}', child_key => '{small,wide_id}')$$, '22023', NULL, 'too many columns');
CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE names (name text COLLATE anycase PRIMARY KEY);
CREATE TABLE visits (id int, name text COLLATE anycase REFERENCES names);
INSERT INTO names VALUES ('Ann'); INSERT INTO visits VALUES (1, 'ANN'), (2, 'ann');
SELECT is((SELECT string_agg(DISTINCT x::text, ' ') FROM perfopt.lookup_aggregates_json('names', ARRAY(SELECT (ARRAY['ann', 'ANN'])[i] FROM generate_series(1, 2) i, generate_series(1, n)), 'visits', '{count(*)}') x),
    '{"name": "ANN", "count": 2} {"name": "ann", "count": 2}', 'a collation in which other texts are equal, ' || n)
FROM unnest(ARRAY[1, 200]) n;

CREATE TABLE areas (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE areas_1 PARTITION OF areas FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE shops (area int, opened date, FOREIGN KEY (opened, area) REFERENCES areas (at, id));
INSERT INTO areas VALUES (1, '2020-05-05'); INSERT INTO shops VALUES (1, '2020-05-05'), (1, '2020-05-05');
SELECT is((SELECT string_agg(x->>'count', ',') FROM perfopt.lookup_aggregates_json('areas', '[[1, "2020-05-05"], {"id": 1, "at": "2020-05-06"}]', 'shops', '{count(*)}') x), '2,0', 'a partitioned parent');
CREATE TABLE inherits (extra int) INHERITS (orders);
INSERT INTO inherits (id, user_id) VALUES (9000, 299);
SELECT is((SELECT x->>'count' FROM perfopt.lookup_aggregates_json('users', '{299}', 'orders', '{count(*)}') x), (SELECT count(*)::text FROM orders WHERE user_id = 299), 'rows of an inheriting table');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{299}', 'inherits', '{count(*)}')$$, '42704', NULL, 'which has no foreign key itself');

-- Which plan: without an index, the children are not read once for each key
CREATE TABLE unindexed (id int, user_id bigint REFERENCES users);
INSERT INTO unindexed SELECT i, 1 + i % 300 FROM generate_series(1, 30000) i;
ANALYZE unindexed;
CREATE FUNCTION rows_read(call text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE before bigint;
BEGIN
    before := pg_stat_get_xact_tuples_returned('unindexed'::regclass) + pg_stat_get_xact_tuples_fetched('unindexed'::regclass);
    EXECUTE call;
    RETURN pg_stat_get_xact_tuples_returned('unindexed'::regclass) + pg_stat_get_xact_tuples_fetched('unindexed'::regclass) - before;
END $$;
SELECT is(rows_read($$SELECT perfopt.lookup_aggregates_json('users', ARRAY[1, 2, 3, 4, 5, 6, 7, 8, 9], 'unindexed', '{count(*)}')$$), 30000::bigint, 'without an index the table is read once');
CREATE INDEX ON unindexed (user_id, id DESC);
SELECT cmp_ok(rows_read($$SELECT perfopt.lookup_aggregates_json('users', ARRAY[1, 2, 3, 4, 5, 6, 7, 8, 9], 'unindexed', '{count(*)}')$$), '<', 2000::bigint, 'with one, what belongs to the keys');
SELECT cmp_ok(rows_read($$SELECT perfopt.lookup_children_json('users', ARRAY[1, 2, 3, 4, 5, 6, 7, 8, 9], 'unindexed', '{id}', 'id DESC', 2)$$), '<', 50::bigint, 'the newest two of each key, little more');

-- More statements than are kept
SELECT is((SELECT string_agg(x->>'count', ',') FROM generate_series(1, 3) round, generate_series(1, 100) i,
    LATERAL perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{count(*)}', 'id <= $1 AND ' || i || ' = ' || i, ROW(i)) x),
    (SELECT string_agg((SELECT count(*) FROM orders WHERE user_id = 1 AND id <= i)::text, ',') FROM generate_series(1, 3) round, generate_series(1, 100) i), 'a hundred statements, three times');

-- Columns expected
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates('users', '{1}', 'orders', '{count(*)}') AS t(id bigint)$$, '42804', 'perfopt.lookup_aggregates() returns 2 columns here, but 1 are expected');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates('users', '{1}', 'orders', '{count(*)}') AS t(id bigint, c int)$$, '42804', 'column 2 ("count") of perfopt.lookup_aggregates() has type bigint here, but integer is expected');
SELECT throws_ok($$SELECT perfopt.lookup_aggregates('users', '{1}', 'orders', '{count(*)}')$$, '42601', NULL, 'without a list of columns');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates_json('users', '{1}', 'orders', '{count(*),count(id)}')$$, '42701', NULL, 'two names that are the same');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_aggregates('users', '{9999999999999999999}', 'orders', '{count(*)}') AS t(id bigint, c bigint)$$, '22003', NULL, 'a key out of range');
SELECT throws_ok($$SELECT * FROM perfopt.lookup_children_json('users', '{1}', 'orders', limit_per_parent => -1)$$, '22023', 'limit_per_parent must not be negative');

SELECT * FROM finish();
SET client_min_messages = warning;
DROP SCHEMA lookup_agg CASCADE;
