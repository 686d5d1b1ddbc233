# Which B-trees are tried for a statement: each kind of clause, the order of the
# keys, and what must not be tried.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('candidates');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "perfopt.advice_interval = 0\nautovacuum = off\nfsync = off\ndefault_statistics_target = 1000\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/advisor.sql"));

# All rows of the sample of ANALYZE: no chance in the estimates.
$node->safe_psql('postgres', q{
	CREATE TABLE orders AS SELECT i AS id, i * 7919 % 2000 AS user_id, i % 100 AS shop, timestamp '2024-01-01' + i * interval '1 min' AS created_at,
			(ARRAY['done', 'done', 'done', 'done', 'pending', 'done', 'done', 'done', 'failed', 'done'])[i % 10 + 1] AS status,
			CASE WHEN i % 20 = 0 THEN timestamp '2024-01-01' END AS deleted_at, i % 10 = 0 AS urgent, i % 3 = 0 AS paid,
			'User' || i || '@example.com' AS email, ('code' || i) COLLATE "C" AS code, i % 1000 AS amount, i % 7 AS seven, i % 12 AS twelve,
			jsonb_build_object('sku', i % 5000, 'x', i) AS data, repeat('x', 150) AS filler,
			(ARRAY['A', 'N', 'N', 'R'])[i % 4 + 1] AS flag
		FROM generate_series(1, 20000) i;
	CREATE TABLE users AS SELECT i AS id, i % 50 AS region, 'Name ' || i AS name, repeat('x', 200) AS filler FROM generate_series(1, 2000) i;
	CREATE TABLE items AS SELECT i % 20000 AS order_id, i % 7 AS line, i % 500 AS product, repeat('x', 100) AS filler FROM generate_series(1, 40000) i;
	CREATE TABLE tiny AS SELECT i AS id FROM generate_series(1, 100) i;
	CREATE FUNCTION plain(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN pg_catalog.upper($1); END';
	CREATE ROLE stranger; GRANT CREATE ON SCHEMA public TO stranger;
	SET ROLE stranger; CREATE FUNCTION foreign_one(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'; RESET ROLE;
	VACUUM ANALYZE});

# What is tried, one a line
sub candidates
{
	my @queries = map { s/'/''/gr } @_;
	return $node->safe_psql('postgres', 'SELECT unnest(index_candidates(ARRAY[' . join(', ', map { "'$_'" } @queries) . ']))');
}

# tried(name, query, [wanted], [not wanted]): without its table the first one's name
sub tried
{
	my ($name, $query, $wanted, $unwanted) = @_;
	my $got = candidates(ref $query ? @$query : $query);
	my %got = map { s/ (order|directed|arm)//gr => 1 } split /\n/, $got;
	my @missing = grep { !$got{ /^\(/ ? "orders $_" : $_ } } @$wanted;
	my @false = grep { $got{ /^\(/ ? "orders $_" : $_ } } @{ $unwanted || [] };
	ok(!@missing && !@false, $name) or diag("missing: @missing; false: @false\nof\n$got");
	return $got;
}

# Comparisons
tried('an equality', 'SELECT * FROM orders WHERE user_id = 5', ['(user_id)']);
tried('... the other way round', 'SELECT * FROM orders WHERE 5 = user_id', ['(user_id)']);
tried('equalities, the most selective first', 'SELECT * FROM orders WHERE shop = 7 AND user_id = 5 AND amount = 3',
	['(user_id, amount)', '(shop)'], ['(shop, user_id)']);
tried('an equality, then a range', q{SELECT * FROM orders WHERE created_at > '2024-01-10' AND shop = 7},
	['(shop, created_at)', '(shop)'], ['(created_at, shop)']);
tried('no key after one that finds a row', 'SELECT * FROM orders WHERE id = 5 AND amount > 3', ['(id)'], ['(id, amount)']);
tried('none that nearly all rows meet', 'SELECT * FROM orders WHERE shop = 7 AND id > 10', ['(shop)'], ['(shop, id)', '(id)']);
tried('a range from and to', q{SELECT * FROM orders WHERE created_at > '2024-01-07' AND id BETWEEN 9900 AND 10100 AND created_at < '2024-01-08'},
	['(id)', '(created_at)', '(id, created_at)']);
tried('... not a part of it', q{SELECT * FROM orders WHERE created_at > '2024-01-02' AND created_at < '2024-01-14' AND shop = 7}, ['(shop, created_at)'], ['(created_at)']);
tried('two ranges', q{SELECT * FROM orders WHERE created_at < '2024-01-03' AND amount < 100}, ['(amount, created_at)', '(amount)', '(created_at)']);
tried('IN', 'SELECT * FROM orders WHERE shop IN (1, 2) AND user_id = 5', ['(user_id, shop)']);
tried('no order comes after IN', 'SELECT * FROM orders WHERE shop IN (1, 2) ORDER BY created_at LIMIT 5', ['(created_at)'], ['(shop, created_at)']);
tried('BETWEEN', 'SELECT * FROM orders WHERE user_id BETWEEN 5 AND 7', ['(user_id)']);
tried('IS NULL of few', 'SELECT * FROM orders WHERE deleted_at IS NOT NULL AND user_id = 5', ['(user_id, deleted_at)', '(user_id) WHERE (deleted_at IS NOT NULL)']);
tried('... and of many', 'SELECT * FROM orders WHERE deleted_at IS NULL AND user_id = 5', ['(user_id)'], ['(deleted_at)', '(user_id) WHERE (deleted_at IS NULL)']);
tried('a row comparison', q{SELECT * FROM orders WHERE shop = 3 AND (created_at, id) < ('2024-01-05', 7) ORDER BY created_at DESC, id DESC LIMIT 10},
	['(shop, created_at, id)']);
tried('nothing for <>', 'SELECT * FROM orders WHERE amount <> 3', [], ['(amount)']);
is(candidates('SELECT count(*) FROM tiny WHERE id = 3'), '', 'nothing for a table that is read in no time');
is(candidates('SELECT count(*), sum(amount) FROM orders'), '', 'nothing for a sum over all');
is(candidates('SELECT * FROM orders WHERE user_id = amount'), '', 'nothing for columns of the same row');
is(candidates('SELECT * FROM orders WHERE user_id = (random() * 5)::int'), '', 'nothing for a value of each row');

# Orders
tried('an equality, then the order', 'SELECT * FROM orders WHERE user_id = 5 ORDER BY created_at DESC LIMIT 10', ['(user_id, created_at)']);
tried('... not of a row', 'SELECT * FROM orders WHERE id = 5 ORDER BY created_at', ['(id)'], ['(id, created_at)']);
tried('... and a range to be checked', 'SELECT * FROM orders WHERE shop = 5 AND amount > 900 ORDER BY created_at LIMIT 10', ['(shop, created_at, amount)', '(shop, amount)']);
like(tried('an order of mixed directions', 'SELECT * FROM orders ORDER BY shop, created_at DESC, id LIMIT 10', ['(shop, created_at DESC, id)']),
	qr/^orders \(shop, created_at DESC, id\) order directed$/m, '... as such');
like(tried('all descending is the plain one', 'SELECT * FROM orders ORDER BY shop DESC, created_at DESC LIMIT 10', ['(shop, created_at)']),
	qr/^orders \(shop, created_at\) order directed$/m, '... in one direction');
tried('nulls elsewhere', 'SELECT * FROM orders ORDER BY deleted_at DESC NULLS LAST LIMIT 10', ['(deleted_at DESC NULLS LAST)'], ['(deleted_at)']);
tried('descending first', 'SELECT * FROM orders ORDER BY shop DESC, created_at LIMIT 10', ['(shop, created_at DESC)']);
tried('GROUP BY', 'SELECT shop, status, count(*) FROM orders GROUP BY shop, status', ['(shop, status)']);
tried('DISTINCT', 'SELECT DISTINCT shop, user_id FROM orders', ['(shop, user_id)']);
tried('max()', 'SELECT max(amount) FROM orders WHERE shop = 5', ['(shop, amount)'], ['(shop, amount DESC NULLS LAST)', '(shop, amount NULLS FIRST)']);
tried('a window', 'SELECT id, row_number() OVER (PARTITION BY shop ORDER BY created_at) FROM orders', ['(shop, created_at)']);
tried('an order of another collation', 'SELECT * FROM orders ORDER BY email COLLATE "C" LIMIT 3', ['(email COLLATE "C")'], ['(email)']);

# Joins
tried('a join', 'SELECT * FROM users u JOIN orders o ON o.user_id = u.id WHERE u.region = 3', ['(user_id)', 'users (id)', 'users (region)']);
tried('a join, with conditions of its own', q{SELECT o.* FROM users u JOIN orders o ON o.user_id = u.id WHERE u.region = 3 AND o.shop = 2 AND o.created_at > '2024-01-10'},
	['(user_id, shop)', '(shop, created_at)']);
tried('an outer join', 'SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id AND o.amount < 5 WHERE u.id = 3', ['(user_id, amount)']);
tried('a join by two columns', 'SELECT * FROM items a JOIN items b ON a.line = b.line AND a.product = b.product WHERE a.order_id = 3', ['items (product, line)']);
tried('a subquery', 'SELECT * FROM users u WHERE EXISTS (SELECT FROM orders o WHERE o.user_id = u.id AND o.amount = 3)', ['(user_id, amount)']);
tried('a lateral one with an order', 'SELECT * FROM users u, LATERAL (SELECT * FROM orders o WHERE o.user_id = u.id ORDER BY created_at LIMIT 1) l', ['(user_id, created_at)']);
tried('an update', 'UPDATE orders SET amount = 1 WHERE user_id = 3 AND amount = 5', ['(user_id, amount)']);

# ORs: an index for each arm
like(tried('OR', 'SELECT * FROM orders WHERE user_id = 5 OR amount = 3 AND shop = 7', ['(user_id)', '(amount, shop)']),
	qr/^orders \(user_id\) arm$/m, '... each is an arm');
tried('OR under an equality', 'SELECT * FROM orders WHERE shop = 7 AND (user_id = 5 OR amount = 3)', ['(user_id, shop)', '(amount, shop)']);
tried('OR with an arm for none', 'SELECT * FROM orders WHERE user_id = 5 OR amount <> 3', [], ['(user_id)']);
tried('OR over a join', 'SELECT * FROM users u JOIN orders o ON o.user_id = u.id WHERE (u.region = 3 AND o.shop = 1) OR (u.region = 4 AND o.shop = 2)', ['(shop)', 'users (region)']);

tried('OR as a join', 'SELECT * FROM users u JOIN orders o ON o.user_id = u.id OR o.amount = u.region WHERE u.id = 3', ['(user_id)', '(amount)']);
my ($first, $both, $none) = map { $node->safe_psql('postgres', qq{SELECT what_if_cost('SELECT * FROM orders WHERE user_id = 5 OR amount = 3',
	indexes => '{$_}')}) } 'CREATE INDEX ON orders (user_id)', 'CREATE INDEX ON orders (user_id), CREATE INDEX ON orders (amount)', '';
is($first, $none, '... of which one alone is of no use');
cmp_ok($both, '<', $none / 3, '... but both are');

# Included columns
tried('what is read besides', 'SELECT amount FROM orders WHERE shop = 5', ['(shop) INCLUDE (amount)', '(shop)']);
tried('... and looked at', q{SELECT sum(amount) FROM orders WHERE shop = 5 AND created_at > '2024-01-05' AND paid}, ['(shop, paid, created_at) INCLUDE (amount)']);
tried('... in the order that takes the fewest bytes', 'SELECT paid, status, created_at, amount FROM orders WHERE shop = 7', ['(shop) INCLUDE (amount, created_at, paid, status)']);
tried('not of a whole row', 'SELECT o FROM orders o WHERE shop = 5', ['(shop)'], ['(shop) INCLUDE (amount)']);
tried('nor wide columns', 'SELECT amount, filler FROM orders WHERE shop = 5', ['(shop)'], ['(shop) INCLUDE (amount, filler)']);
tried('of a join, whatever it finds', 'SELECT count(*) FROM items i JOIN users u ON u.id = i.product WHERE u.region = 1', ['users (id) INCLUDE (region)']);
tried('nor where a row is found', 'SELECT amount FROM orders WHERE id = 5', ['(id)'], ['(id) INCLUDE (amount)']);
tried('nor for FOR UPDATE', 'SELECT amount FROM orders WHERE shop = 5 FOR UPDATE', ['(shop)'], ['(shop) INCLUDE (amount)']);

# Partial ones
tried('a rare constant', q{SELECT * FROM orders WHERE status = 'pending' ORDER BY created_at LIMIT 10},
	[q{(created_at) WHERE (status = 'pending'::text)}, '(status, created_at)']);
tried('... alone', q{SELECT id, created_at FROM orders WHERE status = 'pending'}, [q{(status) WHERE (status = 'pending'::text)}]);
tried('not a frequent one', q{SELECT * FROM orders WHERE status = 'done' ORDER BY created_at LIMIT 10}, ['(created_at)'], [q{(created_at) WHERE (status = 'done'::text)}]);
tried('not of a column with many values', 'SELECT * FROM orders WHERE user_id = 5 ORDER BY created_at', ['(user_id, created_at)'], ['(created_at) WHERE (user_id = 5)']);
tried('nor of one where it is as frequent as others', 'SELECT * FROM orders WHERE seven = 5 ORDER BY created_at', ['(seven, created_at)'], ['(created_at) WHERE (seven = 5)']);
tried('nor of some of them', 'SELECT * FROM orders WHERE twelve IN (5, 6) ORDER BY created_at', ['(twelve)'], ['(created_at) WHERE (twelve = ANY (\'{5,6}\'::integer[]))']);
tried('a rare few of them', q{SELECT * FROM orders WHERE status IN ('pending', 'failed') AND user_id = 5}, [q{(user_id) WHERE (status = ANY ('{pending,failed}'::text[]))}]);
tried('nor of a constant that is not of the text', q{SELECT * FROM orders WHERE status = lower('PENDING') AND user_id = 5}, ['(user_id, status)'], [q{(user_id) WHERE (status = 'pending'::text)}]);
tried('the same in all samples', [ map { "SELECT * FROM orders WHERE status = 'pending' AND user_id = $_" } 1 .. 3 ], [q{(user_id) WHERE (status = 'pending'::text)}]);
tried('not one that changes', [ map { "SELECT * FROM orders WHERE status = '$_' ORDER BY created_at LIMIT 5" } 'pending', 'failed' ],
	['(status, created_at)'], [ map { "(created_at) WHERE (status = '$_'::text)" } 'pending', 'failed' ]);
tried('IN and <>', q{SELECT * FROM orders WHERE status <> 'done' AND user_id = 5}, [q{(user_id) WHERE (status <> 'done'::text)}]);
tried('boolean columns', 'SELECT * FROM orders WHERE urgent ORDER BY created_at LIMIT 3', ['(created_at) WHERE urgent', '(urgent, created_at)']);
tried('... negated', 'SELECT * FROM orders WHERE NOT urgent ORDER BY created_at LIMIT 3', ['(created_at)'], ['(created_at) WHERE (NOT urgent)']);
tried('two at once', q{SELECT * FROM orders WHERE urgent AND deleted_at IS NOT NULL AND user_id = 5}, ['(user_id) WHERE ((deleted_at IS NOT NULL) AND urgent)']);
tried('one that is a bit rarer than others', q{SELECT id FROM orders WHERE flag = 'R' AND shop = 7}, [q{(shop) INCLUDE (id) WHERE (flag = 'R'::text)}]);
tried('columns of the row compared', 'SELECT amount FROM orders WHERE user_id < amount AND shop = 7', ['(shop) INCLUDE (amount) WHERE (user_id < amount)']);
tried('... the other way round, and two', 'SELECT amount FROM orders WHERE amount > user_id AND twelve > seven AND shop = 7',
	['(shop) INCLUDE (amount) WHERE ((user_id < amount) AND (seven < twelve))', '(shop) INCLUDE (amount, seven, twelve) WHERE (user_id < amount)']);
tried('... not for rows of the table', 'SELECT * FROM orders WHERE user_id < amount AND shop = 7', ['(shop)'], ['(shop) WHERE (user_id < amount)']);
tried('what is left out by a wide column', q{SELECT id FROM orders WHERE filler NOT LIKE '%y%' AND shop = 7}, [q{(shop) INCLUDE (id) WHERE (filler !~~ '%y%'::text)}]);
tried('... not by a narrow one', 'SELECT id FROM orders WHERE amount <> 3 AND shop = 7', ['(shop) INCLUDE (id, amount)'], ['(shop) INCLUDE (id) WHERE (amount <> 3)']);
tried('... nor what is searched for', q{SELECT id FROM orders WHERE email LIKE '%12%' AND shop = 7}, ['(shop)'], [q{(shop) INCLUDE (id) WHERE (email ~~ '%12%'::text)}]);
tried('... nor what changes', [ map { "SELECT id FROM orders WHERE filler NOT LIKE '%$_%' AND shop = 7" } 'y', 'z' ], ['(shop)'],
	[ map { "(shop) INCLUDE (id) WHERE (filler !~~ '%$_%'::text)" } 'y', 'z' ]);

# Expressions
tried('a function', q{SELECT * FROM orders WHERE lower(email) = 'x'}, ['(lower(email))']);
tried('... and a column', q{SELECT * FROM orders WHERE date_trunc('day', created_at) = '2024-01-05' AND user_id = 5}, [q{(user_id, date_trunc('day'::text, created_at))}]);
tried('of jsonb', q{SELECT * FROM orders WHERE (data ->> 'sku')::int = 5}, [q{((((data ->> 'sku'::text))::integer))}]);
tried('to sort by', 'SELECT * FROM orders ORDER BY lower(email) LIMIT 3', ['(lower(email))']);
tried('to join by', 'SELECT * FROM users u JOIN orders o ON lower(o.email) = u.name WHERE u.id = 3', ['(lower(email))']);
tried('with a constant that changes', [ map { "SELECT * FROM orders WHERE amount + $_ = 5" } 1, 2 ], [], ['((amount + 1))', '((amount + 2))']);
tried('of a superuser', q{SELECT * FROM orders WHERE plain(email) = 'x'}, ['(public.plain(email))']);
is(candidates(q{SELECT * FROM orders WHERE foreign_one(email) = 'x'}), '', "a stranger's function is none");
is(candidates(q{SELECT * FROM orders WHERE to_char(created_at, 'YYYY') = '2024'}), '', 'nor one that is not immutable');

# Patterns
tried('LIKE', q{SELECT * FROM orders WHERE email LIKE 'User12%'}, ['(email text_pattern_ops)'], ['(email)']);
tried('... in the C collation', q{SELECT * FROM orders WHERE code LIKE 'code12%'}, ['(code)'], ['(code text_pattern_ops)']);
tried('... of an expression', q{SELECT * FROM orders WHERE lower(email) LIKE 'user12%'}, ['(lower(email) text_pattern_ops)']);
tried('... after an equality', q{SELECT * FROM orders WHERE shop = 5 AND email LIKE 'User12%'}, ['(shop, email text_pattern_ops)']);
tried('a regular expression', q{SELECT * FROM orders WHERE email ~ '^User12'}, ['(email text_pattern_ops)']);
tried('starts_with()', q{SELECT * FROM orders WHERE starts_with(email, 'User12')}, ['(email text_pattern_ops)']);
tried('not a free beginning', q{SELECT * FROM orders WHERE email LIKE '%12'}, [], ['(email text_pattern_ops)', '(email)']);

# In words
for my $case (['(shop)', 'shop'], ['(shop, created_at DESC) INCLUDE (amount)', 'shop and created_at'], ['(lower(email), shop, id)', 'lower(email), shop and id'],
	[q{(created_at) WHERE status = 'pending'}, q{created_at where (status = 'pending'::text)}])
{
	my ($given, $words) = @$case;
	is($node->safe_psql('postgres', 'SELECT index_words($$CREATE INDEX ON orders ' . $given . '$$)'), $words, "in words: $given");
}

# Partitioned tables: one index for all, wherever the columns stand
$node->safe_psql('postgres', q{
	CREATE TABLE parts (id int, at date, k int, note text) PARTITION BY RANGE (at);
	CREATE TABLE part_odd (note text, gone int, k int, id int, at date);
	ALTER TABLE part_odd DROP COLUMN gone;
	ALTER TABLE parts ATTACH PARTITION part_odd FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
	SELECT format('CREATE TABLE part_%s PARTITION OF parts FOR VALUES FROM (%L) TO (%L)', i,
		date '2024-01-01' + i * 30, date '2024-01-01' + (i + 1) * 30) FROM generate_series(0, 11) i \gexec
	INSERT INTO parts SELECT i, date '2023-12-01' + i % 360, i * 7919 % 3000, repeat('x', 80) FROM generate_series(1, 60000) i;
	VACUUM ANALYZE parts});
my $lookup = 'SELECT * FROM parts WHERE k = 5 AND id > 3';
tried('a partitioned table', "$lookup ORDER BY id LIMIT 5", ['parts (k, id)', 'parts (k)']);
tried('... of which one partition is read', "SELECT * FROM parts WHERE at = '2024-02-03' AND k = 7", ['parts (k)', 'parts (at)']);
tried('... by its own name', "SELECT * FROM part_odd WHERE k = 7", ['part_odd (k)'], ['parts (k)']);
tried('members of a UNION ALL', "SELECT * FROM (SELECT user_id, amount FROM orders UNION ALL SELECT product, line FROM items) u WHERE user_id = 7",
	['(user_id) INCLUDE (amount)', 'items (product) INCLUDE (line)']);
$node->safe_psql('postgres', 'CREATE TABLE heir () INHERITS (items); INSERT INTO heir SELECT * FROM items; VACUUM ANALYZE heir');
tried('inheritance: each table has its own', 'SELECT * FROM items WHERE product = 7', ['items (product)', 'heir (product)']);
$node->safe_psql('postgres', q{
	CREATE TABLE unknown (day int, who int, what int, state text, note text) PARTITION BY LIST (day);
	CREATE TABLE unknown_1 PARTITION OF unknown FOR VALUES IN (1);
	CREATE TABLE unknown_2 PARTITION OF unknown FOR VALUES IN (2) PARTITION BY RANGE (who);
	CREATE TABLE unknown_2_1 PARTITION OF unknown_2 FOR VALUES FROM (0) TO (10000);
	INSERT INTO unknown SELECT 1 + i % 2, i % 1000, i % 20, CASE WHEN i % 50 < 2 THEN 'new' ELSE 'old' END, repeat('x', 80) FROM generate_series(1, 20000) i;
	VACUUM ANALYZE unknown_1, unknown_2_1});
tried('one without statistics of its own', q{SELECT * FROM unknown WHERE what = 3 AND who = 77 AND state = 'new'},
	['unknown (who, state)', q{unknown (who) WHERE (state = 'new'::text)}]);
tried('... of several levels', q{SELECT * FROM unknown WHERE day = 2 AND what = 3 AND who < 30}, ['unknown (what, who)'], ['unknown (day, what)']);
my $definition = 'CREATE INDEX ON parts (k, (id + 1))';
my $without = $node->safe_psql('postgres', "SELECT what_if_cost('$lookup')");
my $estimated = $node->safe_psql('postgres', "SELECT what_if_cost('$lookup', indexes => ARRAY['$definition'])");
my $bytes = $node->safe_psql('postgres', "SELECT bytes FROM index_facts('$definition')");
$node->safe_psql('postgres', $definition);
my $real = $node->safe_psql('postgres', "SELECT what_if_cost('$lookup')");
my $real_bytes = $node->safe_psql('postgres', q{SELECT sum(pg_relation_size(indexrelid)) FROM pg_index WHERE indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'parts'::regclass)});
cmp_ok(abs($estimated / $real - 1), '<=', 0.10, 'its price, as of a real one') or diag("real $real, estimated $estimated");
is($node->safe_psql('postgres', "SELECT what_if_cost('$lookup', hidden => '{parts_k_expr_idx}')"), $without, '... which can be left out of a plan');
cmp_ok(abs($bytes / $real_bytes - 1), '<=', 0.15, '... and its size, of which some partitions tell') or diag("real $real_bytes, estimated $bytes");

# Nothing better is left out: as cheap as with all pairs of columns, and these with
# all others included
for my $case (
	[q{SELECT id, amount FROM orders WHERE shop = 7 AND created_at > '2024-01-12' ORDER BY created_at DESC LIMIT 20}, 'shop created_at amount id'],
	[q{SELECT sum(amount) FROM orders WHERE shop BETWEEN 3 AND 9 AND user_id < 400 AND seven = 3}, 'shop user_id seven amount'],
	[q{SELECT DISTINCT user_id FROM orders WHERE status = 'pending' AND shop = 4}, 'user_id status shop'],
	[q{SELECT shop, max(created_at) FROM orders WHERE amount = 5 GROUP BY shop}, 'shop created_at amount'],
	[q{SELECT count(*) FROM users JOIN orders ON orders.user_id = users.id AND orders.twelve = 3 WHERE users.region = 9}, 'user_id twelve'])
{
	my ($query, $columns) = @$case;
	my @columns = split / /, $columns;
	my @all = map { "($_)" } @columns;
	for my $first (@columns)
	{
		for my $second (grep { $_ ne $first } @columns)
		{
			my $rest = join ', ', grep { $_ ne $first && $_ ne $second } @columns;
			push @all, "($first, $second)", $rest ? "($first, $second) INCLUDE ($rest)" : ();
		}
	}
	my @tried = map { s/ (order|directed|arm)//gr } split /\n/, candidates($query);
	my ($tried, $all) = map { $node->safe_psql('postgres', 'SELECT what_if_cost($$' . $query . '$$, indexes => ARRAY[' . join(', ', map { "\$\$CREATE INDEX ON $_\$\$" } @$_) . '])') }
		[@tried], [ 'users (id)', 'users (region)', map { "orders $_" } @all ];
	cmp_ok($tried, '<=', $all * 1.03, "as good as any: $query") or diag("with @tried: $tried, with all: $all");
}

# What a hostile statement can ask for
for my $query (
	'SELECT * FROM orders WHERE ' . join(' AND ', map { "(amount + $_ > user_id % $_)" } 1 .. 300),
	'SELECT * FROM orders WHERE ' . join(' OR ', map { "(shop = $_ AND amount = $_)" } 1 .. 300),
	'SELECT * FROM orders ORDER BY ' . join(', ', map { "amount + $_" } 1 .. 100),
	'SELECT 1 FROM orders a0 ' . join(' ', map { "JOIN orders a$_ ON a$_.user_id = a0.user_id AND a$_.shop = a0.shop AND a$_.amount = $_" } 1 .. 10))
{
	my $got = candidates($query);
	cmp_ok(scalar(split(/\n/, $got)), '<=', 60, 'few are tried for ' . substr($query, 0, 60) . '...');
}

$node->stop;
done_testing();
