-- Look-ups: what a user sees, and the errors' texts.
CREATE SCHEMA look;
SET search_path = look, public;
CREATE TABLE users (id bigint PRIMARY KEY, email text UNIQUE, name text);
CREATE TABLE orders (id int PRIMARY KEY, user_id bigint REFERENCES users, billed_to bigint, status text, total_cents int, created_at date);
CREATE TABLE items (id int PRIMARY KEY, order_id int REFERENCES orders, quantity int);
INSERT INTO users VALUES (1, 'ann@example.com', 'Ann'), (2, 'bob@example.com', 'Bob'), (3, 'eve@example.com', 'Eve');
INSERT INTO orders VALUES (10, 1, 2, 'paid', 500, '2024-01-01'), (11, 1, 2, 'new', 700, '2024-01-02'),
    (12, 1, 1, 'paid', 900, '2024-01-03'), (13, 2, 2, 'paid', 100, '2024-01-04');
INSERT INTO items VALUES (1, 10, 2), (2, 10, 3), (3, 12, 1), (4, 13, 7);

-- Rows for keys: an answer for each
SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY[3, 1, 99, 3, NULL]);
SELECT * FROM perfopt.fetch_many(NULL::users, '["bob@example.com", "nobody"]', '{email}');

-- Aggregates for keys
SELECT * FROM perfopt.lookup_aggregates('users', ARRAY[2, 1, 3], 'orders', '{count(*),sum(total_cents),max(created_at)}')
    AS t(id bigint, orders bigint, total bigint, latest date);
SELECT * FROM perfopt.lookup_aggregates_json('users', '[2, 1, 3]', 'orders',
    '{count(*),sum(total_cents) AS total,"array_agg(id ORDER BY created_at DESC) AS ids"}', 'status = $1', ROW('paid'));
SELECT * FROM perfopt.lookup_aggregates('users', ARRAY[2, 1, 3], 'items', '{count(orders.id),sum(orders.total_cents),sum(quantity)}', via => '{orders}')
    AS t(id bigint, orders bigint, total bigint, quantity bigint);

-- The children themselves
SELECT * FROM perfopt.lookup_children('users', ARRAY[2, 1, 3], 'orders', '{id,created_at}', 'created_at DESC', 2)
    AS t(user_id bigint, id int, created_at date);
SELECT * FROM perfopt.lookup_children_json('users', ARRAY[2, 1, 3], 'orders', '{id,status}', 'created_at DESC', 2, 'total_cents > $1', ROW(100));

-- The plan, by the number of keys
CREATE TABLE events (user_id bigint REFERENCES users, at date);
CREATE INDEX ON events (user_id, at DESC);
SELECT perfopt.lookup_children_json('users', ARRAY[1], 'events', '{at}', 'at DESC', 1);

-- Errors
\set VERBOSITY default
SELECT * FROM perfopt.lookup_aggregates('users', ARRAY[1], 'orders', '{count(*),sum(total_cents)}') AS t(id int, n bigint);
SELECT * FROM perfopt.lookup_aggregates('users', ARRAY[1], 'orders', '{count(*),sum(total_cents)}') AS t(id bigint, n bigint, total int);
SELECT perfopt.lookup_aggregates('users', ARRAY[1], 'orders', '{count(*)}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{sum(total)}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{sum(total_cents) + 1}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{lower(status)}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{sums(total_cents)}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{sum(total_cents}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{sum(id),sum(total_cents)}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{count(*)}', 'status = $1');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{count(*)}', 'true) OR (true');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{count(*)}', 'true; DROP TABLE users');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{count(*)}', 'state = $1', ROW('paid'));
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1.5], 'orders', '{count(*)}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY['1', 'x'], 'orders', '{count(*)}');
SELECT * FROM perfopt.lookup_aggregates_json('users', 1, 'orders', '{count(*)}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'items', '{count(*)}');
SELECT * FROM perfopt.lookup_children_json('users', ARRAY[1], 'orders', '{id}', 'lower(status)');
SELECT * FROM perfopt.lookup_children_json('users', ARRAY[1], 'orders', '{id}', '');
SELECT * FROM perfopt.lookup_children_json('users', ARRAY[1], 'orders', '{identity}');
SELECT * FROM perfopt.fetch_many(NULL::users, ARRAY['Ann'], '{name}');
SELECT * FROM perfopt.fetch_many(1, ARRAY[1]);
SELECT * FROM perfopt.fetch_many(NULL::events, ARRAY[1]);
CREATE VIEW named AS SELECT id, name FROM users;
SELECT * FROM perfopt.fetch_many(NULL::named, ARRAY[1]);
ALTER TABLE orders ADD FOREIGN KEY (billed_to) REFERENCES users;
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{count(*)}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'items', '{count(*)}', via => '{orders}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'orders', '{count(*)}', child_key => '{billed_to}');
SELECT * FROM perfopt.lookup_aggregates_json('users', ARRAY[1], 'items', '{count(*)}', via => '{"orders(billed_to)"}');

DROP SCHEMA look CASCADE;
