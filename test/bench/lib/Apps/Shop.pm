# Shop.pm: a shop with its queue of jobs, sessions, and the devices in its
# stores, as Spree or Saleor beside an application that collects measurements.
package Apps::Shop;

use strict;
use warnings;
use Apps::Values;
use Digest::MD5 'md5_hex';

my %rows = (customers => 60_000, orders => 150_000, products => 15_000, variants => 45_000, devices => 600);

sub name { return 'shop' }

sub schema
{
	return phrases_sql(6) . <<'SQL';
CREATE TABLE customers (id bigserial PRIMARY KEY, email text NOT NULL, name text NOT NULL, phone text NOT NULL, notes text, created_at timestamp NOT NULL);
INSERT INTO customers (email, name, phone, notes, created_at)
SELECT replace(substr(a.text, 1, 6), ' ', '') || i || '@example.com', initcap(substr(a.text, 8, 13)), '+49' || lpad((i * 7919 % 100000000)::text, 9, '0'), a.text,
	timestamp '2026-01-01' - random() * interval '1500 days'
FROM generate_series(1, 60000) AS i JOIN phrases a ON a.n = 1 + i * 11 % 4000 ORDER BY i;

CREATE TABLE products (id bigserial PRIMARY KEY, category_id bigint NOT NULL, name text NOT NULL, slug text NOT NULL, description text NOT NULL, attributes jsonb NOT NULL,
	search tsvector NOT NULL, price numeric(10, 2) NOT NULL, active boolean NOT NULL, deleted_at timestamp);
INSERT INTO products (category_id, name, slug, description, attributes, search, price, active, deleted_at)
SELECT 1 + floor(200 * random() ^ 2), a.text, 'product-' || md5(i::text), b.text || ' ' || a.text,
	jsonb_build_object('colour', (ARRAY['red', 'green', 'blue', 'black'])[1 + i % 4], 'brand', 'brand-' || floor(300 * random() ^ 2), 'sizes', jsonb_build_array(i % 12, i % 7)),
	to_tsvector('simple', a.text || ' ' || b.text), round((5 + 300 * random() ^ 2)::numeric, 2), i % 10 > 0, CASE WHEN i % 14 = 0 THEN timestamp '2025-06-01' END
FROM generate_series(1, 15000) AS i JOIN phrases a ON a.n = 1 + i % 4000 JOIN phrases b ON b.n = 1 + i * 13 % 4000 ORDER BY i;

CREATE TABLE variants (id bigserial PRIMARY KEY, product_id bigint NOT NULL REFERENCES products ON DELETE CASCADE, sku text NOT NULL, options jsonb NOT NULL, weight numeric);
INSERT INTO variants (product_id, sku, options, weight) SELECT 1 + i / 3 % 15000, 'SKU-' || upper(substr(md5(i::text), 1, 10)), jsonb_build_object('size', i % 12), random() FROM generate_series(1, 45000) AS i;

CREATE TABLE stock (variant_id bigint NOT NULL, warehouse_id int NOT NULL, quantity int NOT NULL, updated_at timestamp NOT NULL DEFAULT now(), PRIMARY KEY (variant_id, warehouse_id));
INSERT INTO stock (variant_id, warehouse_id, quantity) SELECT i, w, 10 + 90 * random() FROM generate_series(1, 45000) AS i, generate_series(1, 2) AS w;

CREATE TABLE orders (id bigserial PRIMARY KEY, number text NOT NULL, customer_id bigint REFERENCES customers, email text NOT NULL, state text NOT NULL, total numeric(10, 2) NOT NULL,
	coupon text, shipping jsonb NOT NULL, created_at timestamp NOT NULL, updated_at timestamp NOT NULL, completed_at timestamp);
INSERT INTO orders (number, customer_id, email, state, total, coupon, shipping, created_at, updated_at, completed_at)
SELECT 'R' || lpad((i * 7907 % 1000000000)::text, 9, '0'), 1 + floor(60000 * r ^ 2), 'buyer' || i || '@example.com',
	CASE WHEN i % 10 < 8 THEN 'complete' WHEN i % 50 = 9 THEN 'canceled' ELSE 'cart' END, round((10 + 400 * random() ^ 3)::numeric, 2),
	CASE WHEN i % 12 = 0 THEN 'Save' || floor(500 * random() ^ 2) END, jsonb_build_object('city', 'city ' || i % 500, 'street', md5(i::text)),
	timestamp '2026-01-01' - (150000 - i) * interval '9 minutes', timestamp '2026-01-01' - (150000 - i) * interval '9 minutes' + random() * interval '2 days',
	CASE WHEN i % 10 < 8 THEN timestamp '2026-01-01' - (150000 - i) * interval '9 minutes' END
FROM (SELECT i, random() AS r FROM generate_series(1, 150000) AS i) AS i ORDER BY i;

CREATE TABLE line_items (id bigserial PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE, variant_id bigint NOT NULL REFERENCES variants, quantity int NOT NULL, price numeric(10, 2) NOT NULL);
INSERT INTO line_items (order_id, variant_id, quantity, price)
SELECT 1 + i / 2 % 150000, 1 + floor(45000 * random() ^ 2), 1 + floor(3 * random()), round((5 + 100 * random())::numeric, 2) FROM generate_series(1, 300000) AS i;

CREATE TABLE payments (id bigserial PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE, provider text NOT NULL, reference text NOT NULL, state text NOT NULL,
	amount numeric(10, 2) NOT NULL, response jsonb, created_at timestamp NOT NULL);
INSERT INTO payments (order_id, provider, reference, state, amount, response, created_at)
SELECT 1 + i % 150000, (ARRAY['card', 'card', 'card', 'transfer'])[1 + i % 4], md5('payment' || i), CASE WHEN i % 100 = 0 THEN 'pending' WHEN i % 30 = 0 THEN 'failed' ELSE 'paid' END, 20,
	jsonb_build_object('code', i % 90), timestamp '2026-01-01' - (160000 - i) * interval '8 minutes' FROM generate_series(1, 160000) AS i;

CREATE TABLE price_periods (id bigserial PRIMARY KEY, variant_id bigint NOT NULL, valid daterange NOT NULL, price numeric(10, 2) NOT NULL);
INSERT INTO price_periods (variant_id, valid, price)
SELECT v, daterange(date '2024-01-01' + g, date '2024-01-01' + g + 20 + (v % 30)::int), 10 + 100 * random() FROM generate_series(1, 45000, 3) AS v, generate_series(0, 700, 70) AS g;

CREATE TABLE jobs (id bigserial PRIMARY KEY, queue text NOT NULL, state text NOT NULL, priority int NOT NULL, run_at timestamp NOT NULL, attempts int NOT NULL DEFAULT 0, locked_by text,
	payload jsonb NOT NULL, finished_at timestamp);
INSERT INTO jobs (queue, state, priority, run_at, payload, finished_at)
SELECT (ARRAY['mail', 'mail', 'export', 'default'])[1 + floor(4 * random())], CASE WHEN i > 118000 AND i % 2 = 0 THEN 'ready' WHEN i % 150 = 0 THEN 'failed' ELSE 'done' END, floor(5 * random()),
	timestamp '2026-01-01' - (120000 - i) * interval '1 minute', jsonb_build_object('job', 'Mail', 'order', i, 'token', md5(i::text)),
	CASE WHEN i <= 118000 THEN timestamp '2026-01-01' - (120000 - i) * interval '1 minute' END FROM generate_series(1, 120000) AS i;

CREATE TABLE sessions (token text PRIMARY KEY, customer_id bigint, data text NOT NULL, expires_at timestamp NOT NULL);
INSERT INTO sessions SELECT md5('session' || i), CASE WHEN i % 3 = 0 THEN 1 + floor(60000 * random()) END, repeat(md5(i::text), 5), timestamp '2026-01-01' + random() * interval '14 days' FROM generate_series(1, 50000) AS i;

CREATE TABLE devices (id bigserial PRIMARY KEY, serial text NOT NULL, store_id int NOT NULL, model text NOT NULL);
INSERT INTO devices (serial, store_id, model) SELECT 'D' || i, i % 40, 'M' || i % 5 FROM generate_series(1, 600) AS i;
CREATE TABLE readings (id bigserial PRIMARY KEY, device_id bigint NOT NULL, metric smallint NOT NULL, at timestamp NOT NULL, value double precision NOT NULL);
INSERT INTO readings (device_id, metric, at, value)
SELECT 1 + floor(600 * random() ^ 2), i % 5, timestamp '2026-01-01' - (300000 - i) * interval '20 seconds' - random() * interval '30 seconds', 20 + 5 * random() FROM generate_series(1, 300000) AS i;
CREATE TABLE alerts (id bigserial PRIMARY KEY, device_id bigint NOT NULL, level smallint NOT NULL, message text NOT NULL, opened_at timestamp NOT NULL, closed_at timestamp);
INSERT INTO alerts (device_id, level, message, opened_at, closed_at)
SELECT 1 + floor(600 * random() ^ 2), i % 4, 'value out of range ' || md5(i::text), timestamp '2026-01-01' - (60000 - i) * interval '7 minutes',
	CASE WHEN i % 100 > 0 THEN timestamp '2026-01-01' - (60000 - i) * interval '7 minutes' + interval '1 hour' END FROM generate_series(1, 60000) AS i;

CREATE TABLE audit_log (id bigserial PRIMARY KEY, actor text NOT NULL, object text NOT NULL, change jsonb NOT NULL, at timestamp NOT NULL DEFAULT now());
INSERT INTO audit_log (actor, object, change) SELECT 'user' || i % 300, 'Order#' || i, '{}' FROM generate_series(1, 10000) AS i;
SQL
}

sub statements
{
	my $customer = sub { skewed($rows{customers}, 2) };
	my $order = sub { below($rows{orders}) };
	my $variant = sub { skewed($rows{variants}, 2) };
	return (
		# needs
		{
			name => 'variant by SKU',
			kind => 'need',
			weight => 8,
			sql => 'SELECT v.*, p.name FROM variants v JOIN products p ON p.id = v.product_id WHERE v.sku = $1',
			args => sub { 'SKU-' . uc substr md5_hex(below($rows{variants})), 0, 10 },
			expert => [ ['variants (sku)'] ],
		},
		{
			name => 'product by its address',
			kind => 'need',
			weight => 12,
			sql => 'SELECT p.* FROM products p WHERE p.deleted_at IS NULL AND p.slug = $1 LIMIT 1',
			args => sub { 'product-' . md5_hex(below($rows{products})) },
			expert => [ ['products (slug)'], ['products (slug) WHERE deleted_at IS NULL'] ],
		},
		{
			name => 'variants of a page of products',
			kind => 'need',
			weight => 10,
			sql => 'SELECT v.* FROM variants v WHERE v.product_id IN (' . literals(24, 1) . ')',
			args => sub { map { below($rows{products}) } 1 .. 24 },
			expert => [ ['variants (product_id)'] ],
		},
		{
			name => 'products of a category, by price',
			kind => 'need',
			weight => 8,
			sql => 'SELECT p.id, p.name, p.slug, p.price FROM products p WHERE p.category_id = $1 AND p.active AND p.deleted_at IS NULL ORDER BY p.price, p.id LIMIT 24 OFFSET $2',
			args => sub { (skewed(200, 2), 24 * int 2 * rand) },
			expert => [ ['products (category_id, price, id) WHERE active AND deleted_at IS NULL'], ['products (category_id, price)'], ['products (category_id)'] ],
		},
		{
			name => 'products by words',
			kind => 'need',
			weight => 6,
			sql => q{SELECT p.id, p.name, ts_rank(p.search, q) FROM products p, plainto_tsquery('simple', $1) AS q WHERE p.search @@ q AND p.active ORDER BY 3 DESC LIMIT 24},
			args => sub { word(3000 + below(4500)) },
			expert => [ ['products USING gin (search)'] ],
		},
		{
			name => 'products by an attribute',
			kind => 'need',
			weight => 5,
			sql => 'SELECT p.id, p.name FROM products p WHERE p.attributes @> $1::jsonb AND p.active ORDER BY p.name LIMIT 24',
			args => sub { '{"brand": "brand-' . (30 + below(269)) . '"}' },
			expert => [ ['products USING gin (attributes jsonb_path_ops)'], ['products USING gin (attributes)'] ],
		},
		{
			name => 'order by number',
			kind => 'need',
			weight => 8,
			sql => 'SELECT o.* FROM orders o WHERE o.number = $1',
			args => sub { sprintf 'R%09d', $order->() * 7907 % 1_000_000_000 },
			expert => [ ['orders (number)'] ],
		},
		{
			name => 'orders of a customer',
			kind => 'need',
			weight => 10,
			sql => 'SELECT o.id, o.number, o.total, o.state FROM orders o WHERE o.customer_id = $1 AND o.completed_at IS NOT NULL ORDER BY o.created_at DESC LIMIT 10',
			args => $customer,
			expert => [ ['orders (customer_id, created_at)'], ['orders (customer_id)'] ],
		},
		{
			name => 'items of orders',
			kind => 'need',
			weight => 12,
			sql => 'SELECT l.*, v.sku FROM line_items l JOIN variants v ON v.id = l.variant_id WHERE l.order_id = ANY($1)',
			args => sub { list(5, $order) },
			expert => [ ['line_items (order_id)'] ],
		},
		{
			name => 'bought together with it, of late',
			kind => 'need',
			weight => 2,
			sql => 'SELECT o.variant_id, count(*) FROM line_items l JOIN line_items o ON o.order_id = l.order_id AND o.variant_id <> l.variant_id'
			  . ' WHERE l.variant_id = $1 GROUP BY o.variant_id ORDER BY 2 DESC LIMIT 6',
			args => sub { below($rows{variants}) },
			expert => [ [ 'line_items (variant_id)', 'line_items (order_id)' ] ],
		},
		{
			name => 'revenue of a day',
			kind => 'need',
			weight => 3,
			simple => 1,
			sql => q{SELECT count(*), sum(o.total) FROM orders o WHERE date_trunc('day', o.created_at) = $1},
			args => sub { day(900 * rand) },
			expert => [ [q{orders (date_trunc('day', created_at))}] ],
		},
		{
			name => 'carts left behind',
			kind => 'need',
			weight => 2,
			sql => q{SELECT o.id, o.email FROM orders o WHERE o.state = 'cart' AND o.updated_at BETWEEN $1 AND $1::timestamp + interval '2 hours' AND o.total > 50},
			args => sub { instant(100 * rand) },
			expert => [ ['orders (state, updated_at)'], ['orders (updated_at)'], [q{orders (updated_at) WHERE state = 'cart'}] ],
		},
		{
			name => 'orders with a coupon',
			kind => 'need',
			weight => 3,
			sql => 'SELECT count(*) FROM orders o WHERE upper(o.coupon) = $1',
			args => sub { 'SAVE' . below(499) },
			expert => [ ['orders (upper(coupon))'], ['orders (upper(coupon)) WHERE coupon IS NOT NULL'] ],
		},
		{
			name => 'payment by reference',
			kind => 'need',
			weight => 6,
			sql => 'SELECT p.* FROM payments p WHERE p.provider = $1 AND p.reference = $2 FOR UPDATE',
			args => sub { my $n = below(160_000); ($n % 4 == 3 ? 'transfer' : 'card', md5_hex("payment$n")) },
			expert => [ ['payments (reference)'], ['payments (reference, provider)'], ['payments (provider, reference)'] ],
		},
		{
			name => 'last payment of orders',
			kind => 'need',
			weight => 5,
			sql => 'SELECT DISTINCT ON (p.order_id) p.order_id, p.state FROM payments p WHERE p.order_id IN (' . literals(10, 1) . ') ORDER BY p.order_id, p.id DESC',
			args => sub { map { $order->() } 1 .. 10 },
			expert => [ ['payments (order_id, id)'], ['payments (order_id)'] ],
		},
		{
			name => 'payments that hang',
			kind => 'need',
			weight => 4,
			sql => q{SELECT p.id, p.reference FROM payments p WHERE p.state = 'pending' AND p.created_at < $1 ORDER BY p.created_at LIMIT 100},
			args => sub { instant(800 * rand) },
			expert => [ [q{payments (created_at) WHERE state = 'pending'}], ['payments (state, created_at)'] ],
		},
		{
			name => 'customer by e-mail',
			kind => 'need',
			weight => 8,
			simple => 1,
			sql => 'SELECT c.* FROM customers c WHERE lower(c.email) = lower($1)',
			args => sub { 'nobody' . below(60_000) . '@example.com' },
			expert => [ ['customers (lower(email))'] ],
		},
		{
			name => 'customer by part of name, mail or phone',
			kind => 'need',
			weight => 3,
			sql => 'SELECT c.id, c.name FROM customers c WHERE c.name ILIKE $1 OR c.email ILIKE $1 OR c.phone LIKE $1 ORDER BY c.name LIMIT 20',
			args => sub { '%' . word(4000 + below(3900)) . substr(word(below(7900)), 0, 2) . '%' },
			expert => [
				['customers USING gin (name gin_trgm_ops, email gin_trgm_ops, phone gin_trgm_ops)'],
				[
					'customers USING gin (name gin_trgm_ops)',
					'customers USING gin (email gin_trgm_ops)',
					'customers USING gin (phone gin_trgm_ops)'
				]
			],
		},
		{
			name => 'newest customers, a page of them',
			kind => 'need',
			weight => 4,
			sql => 'SELECT c.id, c.name, c.email, c.created_at FROM customers c ORDER BY c.created_at DESC LIMIT 50 OFFSET $1',
			args => sub { 50 * int 4 * rand },
			expert => [ ['customers (created_at)'] ],
		},
		{
			name => 'price of a variant on a day',
			kind => 'need',
			weight => 6,
			sql => 'SELECT p.price FROM price_periods p WHERE p.variant_id = $1 AND p.valid @> $2::date',
			args => sub { (1 + 3 * below(14_999), day(700 * rand)) },
			expert => [ ['price_periods (variant_id)'] ],
		},
		{
			name => 'prices that end within a day',
			kind => 'need',
			weight => 2,
			sql => 'SELECT p.variant_id, p.price FROM price_periods p WHERE upper(p.valid) = $1::date',
			args => sub { day(700 * rand) },
			expert => [ ['price_periods (upper(valid))'] ],
		},
		{
			name => 'next job of a queue',
			kind => 'need',
			weight => 10,
			sql => q{UPDATE jobs SET state = 'done', locked_by = 'worker', attempts = attempts + 1, finished_at = now() WHERE id = (SELECT j.id FROM jobs j}
			  . q{ WHERE j.queue = $1 AND j.state = 'ready' AND j.run_at <= $2 ORDER BY j.priority, j.run_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id},
			args => sub { (pick('mail', 'export', 'default'), '2026-01-01') },
			expert => [ [q{jobs (queue, priority, run_at) WHERE state = 'ready'}], ['jobs (queue, state, priority, run_at)'], ['jobs (state)'], [q{jobs (queue) WHERE state = 'ready'}] ],
		},
		{
			name => 'old jobs are removed',
			kind => 'need',
			weight => 1,
			sql => q{DELETE FROM jobs WHERE state = 'done' AND finished_at < $1},
			args => sub { '2025-10-10' },
			expert => [ ['jobs (finished_at)'], ['jobs (state, finished_at)'] ],
		},
		{
			name => 'sessions that have expired',
			kind => 'need',
			weight => 3,
			sql => 'DELETE FROM sessions WHERE expires_at < $1',
			args => sub { '2026-01-01 00:01:00' },
			expert => [ ['sessions (expires_at)'] ],
		},
		{
			name => 'last readings of a device',
			kind => 'need',
			weight => 8,
			sql => 'SELECT r.at, r.value FROM readings r WHERE r.device_id = $1 AND r.metric = $2 ORDER BY r.at DESC LIMIT 60',
			args => sub { (below($rows{devices}), int 5 * rand) },
			expert => [ ['readings (device_id, metric, at)'], ['readings (device_id, at)'] ],
		},
		{
			name => 'state of all devices of a store',
			kind => 'need',
			weight => 3,
			sql => 'SELECT d.id, r.at, r.value FROM devices d LEFT JOIN LATERAL (SELECT r.at, r.value FROM readings r WHERE r.device_id = d.id ORDER BY r.at DESC LIMIT 1) r ON true WHERE d.store_id = $1',
			args => sub { int 40 * rand },
			expert => [ ['readings (device_id, at)'] ],
		},
		{
			name => 'readings of all within an hour',
			kind => 'need',
			weight => 3,
			sql => q{SELECT r.device_id, date_trunc('minute', r.at), avg(r.value) FROM readings r WHERE r.at >= $1 AND r.at < $1::timestamp + interval '1 hour' AND r.metric = $2 GROUP BY 1, 2},
			args => sub { (instant(60 * rand), int 5 * rand) },
			expert => [ ['readings USING brin (at)'], ['readings (at)'] ],
		},
		{
			name => 'alerts that are open',
			kind => 'need',
			weight => 8,
			sql => 'SELECT a.* FROM alerts a WHERE a.closed_at IS NULL AND a.level >= $1 ORDER BY a.opened_at DESC LIMIT 20',
			args => sub { int 4 * rand },
			expert => [ ['alerts (opened_at) WHERE closed_at IS NULL'], ['alerts (closed_at)'], ['alerts (closed_at, opened_at)'] ],
		},
		{
			name => 'an order is deleted with what belongs to it',
			kind => 'need',
			weight => 2,
			sql => q{DELETE FROM orders WHERE id = $1},
			args => $order,
			expert => [ [ 'line_items (order_id)', 'payments (order_id)' ] ],
		},

		# controls
		{
			name => 'a session is kept',
			kind => 'write',
			weight => 60,
			sql => 'INSERT INTO sessions (token, customer_id, data, expires_at) VALUES ($1, $2, $3, $4) ON CONFLICT (token) DO UPDATE SET data = excluded.data, expires_at = excluded.expires_at',
			args => sub { (md5_hex('session' . below(60_000)), $customer->(), 'data' x 40, '2026-01-10') },
		},
		{
			name => 'a session is read',
			kind => 'control',
			weight => 60,
			sql => 'SELECT s.data FROM sessions s WHERE s.token = $1 AND s.expires_at > $2',
			args => sub { (md5_hex('session' . below(50_000)), '2026-01-01') },
			tried => ['sessions (token, expires_at)'],
		},
		{
			name => 'stock is put right',
			kind => 'write',
			weight => 20,
			sql => 'INSERT INTO stock (variant_id, warehouse_id, quantity) VALUES ($1, $2, 50) ON CONFLICT (variant_id, warehouse_id) DO UPDATE SET quantity = stock.quantity - 1, updated_at = now()',
			args => sub { ($variant->(), below(2)) },
		},
		{
			name => 'stock of a variant',
			kind => 'control',
			weight => 30,
			sql => 'SELECT s.warehouse_id, s.quantity FROM stock s WHERE s.variant_id = $1 AND s.quantity > 0',
			args => $variant,
			tried => [ 'stock (variant_id)', 'stock (variant_id) WHERE quantity > 0' ],
		},
		{
			name => 'device by serial, a small table',
			kind => 'control',
			weight => 40,
			sql => 'SELECT d.id FROM devices d WHERE d.serial = $1',
			args => sub { 'D' . below(600) },
			tried => ['devices (serial)'],
		},
		{
			name => 'jobs by state, all',
			kind => 'control',
			weight => 0.5,
			sql => 'SELECT j.queue, j.state, count(*), max(length(j.payload::text)) FROM jobs j GROUP BY j.queue, j.state',
			args => sub { () },
			tried => [ 'jobs (queue, state)', 'jobs (state)' ],
		},
		{
			name => 'revenue by city, all complete',
			kind => 'control',
			weight => 0.3,
			sql => q{SELECT o.shipping ->> 'city', sum(o.total) FROM orders o WHERE o.state = 'complete' GROUP BY 1 ORDER BY 2 DESC LIMIT 20},
			args => sub { () },
			tried => [ 'orders (state)', q{orders ((shipping ->> 'city'))} ],
		},
		{
			name => 'the audit log is written',
			kind => 'write',
			weight => 150,
			sql => q{INSERT INTO audit_log (actor, object, change) VALUES ($1, $2, '{"state": ["cart", "complete"]}')},
			args => sub { ('user' . below(300), 'Order#' . $order->()) },
		},
		{
			name => 'the audit log is read, rarely',
			kind => 'rare',
			weight => 0.3,
			sql => 'SELECT a.at, a.actor, a.change FROM audit_log a WHERE a.object = $1 ORDER BY a.at',
			args => sub { 'Order#' . $order->() },
			tried => ['audit_log (object)'],
		},
		{
			name => 'a reading comes in',
			kind => 'write',
			weight => 80,
			sql => 'INSERT INTO readings (device_id, metric, at, value) VALUES ($1, $2, now(), $3)',
			args => sub { (below($rows{devices}), int 5 * rand, 20 + 5 * rand) },
		},
		{
			name => 'an item goes into the cart',
			kind => 'write',
			weight => 15,
			sql => 'INSERT INTO line_items (order_id, variant_id, quantity, price) VALUES ($1, $2, 1, 20)',
			args => sub { ($order->(), $variant->()) },
		},
	);
}

1;
