# Loops of a client: which are found, with what figures, and which are none.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', q{
perfopt.sample_interval = 0
perfopt.advice_interval = 0
perfopt.n_plus_one_interval = 0
perfopt.n_plus_one_max_gap = 1min
autovacuum = off
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION perfopt CASCADE;
	CREATE TABLE users (id bigint PRIMARY KEY, email text UNIQUE, name text);
	CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint REFERENCES users, status text DEFAULT 'new', cents int);
	CREATE TABLE items (order_id bigint REFERENCES orders, sku text);
	INSERT INTO users SELECT i, 'u' || i, 'name ' || i FROM generate_series(1, 300) i;
	INSERT INTO orders SELECT i, 1 + i % 300, 'paid', i FROM generate_series(1, 3600) i;
	INSERT INTO items SELECT 1 + i % 3600, 'sku' FROM generate_series(1, 7200) i;
	CREATE INDEX ON orders (user_id);
	CREATE INDEX ON items (order_id);
	CREATE TYPE mood AS ENUM ('m1', 'm2', 'm3', 'm4', 'm5', 'm6', 'm7', 'm8', 'm9', 'm10', 'm11', 'm12');
	CREATE TABLE feelings (id int, m mood);
	INSERT INTO feelings SELECT i, ('m' || i)::mood FROM generate_series(1, 12) i;
	CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN;
	GRANT ALL ON users, orders, items TO alice, bob;
	ANALYZE});

# Each statement in a message of its own, in one session.  The look at the
# result comes from another one, and is not looked for itself.
sub look
{
	my ($sql) = @_;
	local $ENV{PGOPTIONS} = '-c perfopt.detect_n_plus_one=off';
	return $node->safe_psql('postgres', $sql);
}

sub run_session
{
	my ($statements, %options) = @_;
	my ($out, $err) = ('', '');
	$node->psql('postgres', join("\n", map { /^\\/ ? $_ : "$_;" } @$statements),
		stdout => \$out, stderr => \$err, on_error_stop => 0, %options);
	return $err;
}

# "kind query runs/source rows" of all that was found, then forgotten
sub found
{
	my ($columns) = @_;
	$columns ||= q{kind || ' ' || coalesce((regexp_match(query, '(?i)(?:from|into|update)\s+(\w+)'))[1], query, '?')
		|| ' ' || runs || coalesce('/' || source_rows, '') || CASE WHEN loops > 1 THEN ' in ' || loops ELSE '' END};
	my $rows = look("SELECT string_agg($columns, ', ' ORDER BY $columns COLLATE \"C\") FROM perfopt.n_plus_one");
	look('SELECT perfopt.reset_n_plus_one()');
	return $rows;
}

sub finds
{
	my ($statements, $expected, $name, %options) = @_;
	run_session($statements, %options);
	is(found(), $expected, $name);
}

sub users { my ($n) = @_; return "SELECT id, name FROM users ORDER BY id LIMIT $n"; }
sub orders_of { return map { "SELECT count(*), sum(cents) FROM orders WHERE user_id = $_" } @_; }

# How many are a loop
finds([ users(9), orders_of(1 .. 9) ], '', 'nine rows and runs are none');
finds([ users(10), orders_of(1 .. 9) ], '', 'nine runs are none');
finds([ users(10), orders_of(1 .. 10) ], 'n_plus_one orders 10/10', 'ten are');
finds([ users(10), orders_of(1 .. 12) ], 'n_plus_one orders 12/10', 'a few more are, too');
finds([ users(10), orders_of(1 .. 13) ], '', 'many more were not for its rows');
finds([ users(40), orders_of(1 .. 20) ], 'n_plus_one orders 20/40', 'half of the rows are enough');
finds([ users(40), orders_of(1 .. 19) ], '', 'less is not');
finds([ users(40), 'SELECT max(cents) FROM orders', orders_of(1 .. 20) ], '', 'half of the rows, after something else, may be chance');
finds([ users(20), 'SELECT max(cents) FROM orders', orders_of(1 .. 18) ], 'n_plus_one orders 18/20', '... nearly all are none');
finds([ map { my $p = 40 * $_; ('SELECT id FROM orders LIMIT 20', users(10), orders_of($p + 1 .. $p + 10), users(10), orders_of($p + 11 .. $p + 20)) } 0 .. 3 ],
	'n_plus_one orders 80/80 in 8', 'two loops are not one over an older result');
finds([ map { my $p = 40 * $_; ('SELECT id FROM orders LIMIT 20', users(10), orders_of($p + 1 .. $p + 10), 'SELECT name FROM users LIMIT 10', orders_of($p + 11 .. $p + 20)) } 0 .. 3 ],
	'n_plus_one orders 40/40 in 4, n_plus_one orders 40/40 in 4', '... nor are those over different lists');
finds([ map { (users("10 OFFSET " . 10 * $_), "SELECT id, user_id FROM orders WHERE user_id = ANY (ARRAY[$_, 77])") } 0 .. 14 ], '', 'one statement for each page');
finds([ users(10), "SELECT id, user_id FROM orders WHERE user_id = ANY (ARRAY[1, 2])",
		map { (users("10 OFFSET " . 10 * $_), "SELECT id, user_id FROM orders WHERE user_id = ANY (ARRAY[$_, 77])") } 1 .. 14 ], '', '... the first by another statement');
finds([ orders_of(1 .. 20) ], '', 'without a source there is none');
finds([ orders_of(1 .. 15), users(12), orders_of(1 .. 12) ], 'n_plus_one orders 12/12', 'runs before the source do not count');
finds([ (users(10), orders_of(1 .. 10)) x 3 ], 'n_plus_one orders 30/30 in 3', 'three loops');
finds([ 'SET perfopt.n_plus_one_min_runs = 4', users(4), orders_of(1 .. 4) ], 'n_plus_one orders 4/4', 'the setting');
finds([ 'SET perfopt.detect_n_plus_one = off', users(20), orders_of(1 .. 20) ], '', 'turned off');
finds([ users(20), map { "UPDATE users SET name = 'x' WHERE id = $_" } 1 .. 20 ], 'n_plus_one users 20/20', 'updates');
finds([ users(25), orders_of(1 .. 25), map { (users("25 OFFSET " . 25 * $_), orders_of(25 * $_ + 1 .. 25 * $_ + 25)) } 1 .. 2 ],
	'n_plus_one orders 25/25, n_plus_one orders 50/50 in 2', 'a page, and further pages by another statement');
finds([ users(12), map { users("12 OFFSET " . 12 * $_) } 1 .. 12 ], '', 'reading on page by page');
finds([ 'SELECT id, user_id FROM orders LIMIT 20',
		map { my $page = users('10 OFFSET ' . 10 * $_); ($page, "SELECT o.id FROM ($page) u JOIN orders o ON o.user_id = u.id") } 1 .. 15 ], '', '... with what belongs to each page');
finds([ users(200), orders_of(1 .. 200) ], 'n_plus_one orders 200/200', 'a longer one');

# Figures
run_session([ users(20), map { "SELECT name, pg_sleep(0.005) FROM users WHERE id = $_" } 1 .. 20 ], extra_params => [ '-v', 'x=1' ]);
my @row = split /\|/, look(q{SELECT source_query, query, rows, lost_ms >= 95, role, last_seen >= first_seen AND last_seen > now() - interval '1 min',
	application_name <> '', function IS NULL, instead FROM perfopt.n_plus_one});
is_deeply(\@row, [ 'SELECT id, name FROM users ORDER BY id LIMIT $1', 'SELECT name, pg_sleep($1) FROM users WHERE id = $2', 20, 't',
		'postgres', 't', 't', 't', 'SELECT * FROM perfopt.fetch_many(NULL::public.users, $1::bigint[])' ], 'texts, time, role and the call to use');
found();

# Nested and interleaved
my @nested = (users(12), map { my $u = $_; ("SELECT id FROM orders WHERE user_id = $u ORDER BY id LIMIT 12",
		map { "SELECT sku FROM items WHERE order_id = " . ($u + 300 * $_) } 0 .. 11) } 1 .. 12);
finds(\@nested, 'n_plus_one items 144/144 in 12, n_plus_one orders 12/12', 'nested loops, both levels');
@nested = (users(12), map { my $u = $_; ("SELECT id FROM orders WHERE user_id = $u ORDER BY id LIMIT 3",
		map { "SELECT sku FROM items WHERE order_id = " . ($u + 300 * $_) } 0 .. 2) } 1 .. 12);
finds(\@nested, 'n_plus_one items 36/36, n_plus_one orders 12/12', 'nested loops, with few rows each inside');
finds([ users(20), map { ((orders_of($_))[0], "SELECT email FROM users WHERE id = $_") } 1 .. 20 ],
	'n_plus_one orders 20/20, n_plus_one users 20/20', 'two loops, interleaved');

finds([ users(10), map { ((orders_of($_))[0], "SELECT email FROM users WHERE id = $_") } 1 .. 30 ], '', 'look-ups of one row in pairs are not for each other');

# Transaction blocks
finds([ 'BEGIN', users(20), orders_of(1 .. 20), 'COMMIT' ], 'n_plus_one orders 20/20', 'in a transaction block');
finds([ 'BEGIN', users(20), orders_of(1 .. 20), 'ROLLBACK' ], 'n_plus_one orders 20/20', 'rolled back');
finds([ users(20), map { ('BEGIN', (orders_of($_))[0], 'COMMIT') } 1 .. 20 ], '', 'each in a block of its own: other requests');
finds([ users(20), 'BEGIN', orders_of(1 .. 20), 'COMMIT' ], '', 'the source outside of the block');
finds([ 'BEGIN', users(20), orders_of(1 .. 10), 'SAVEPOINT s', orders_of(11 .. 15), 'ROLLBACK TO s', orders_of(16 .. 20), 'COMMIT' ],
	'n_plus_one orders 20/20', 'savepoints do not matter');
finds([ users(20), orders_of(1 .. 10), 'SELECT 1/0', 'nonsense', orders_of(11 .. 20) ], 'n_plus_one orders 20/20', 'an error in the middle');

finds([ 'BEGIN', users(20), orders_of(1 .. 20), 'COMMIT', (users(20), orders_of(1)) x 5 ],
	'n_plus_one orders 20/20', 'requests that are no loop do not hide one in a block');
finds([ users(20), orders_of(1 .. 20), (users(20), orders_of(1)) x 5 ], '', 'but one outside of any');

# Gaps; echo takes a process, which takes more than 1 ms
my @slow = map { ($_, '\! echo >/dev/null; echo >/dev/null') } orders_of(1 .. 20);
finds([ 'SET perfopt.n_plus_one_max_gap = 1', users(20), @slow ], '', 'silence ends a loop');
finds([ 'SET perfopt.n_plus_one_max_gap = 1', 'BEGIN', users(20), @slow, 'COMMIT' ], 'n_plus_one orders 20/20', 'not in a transaction block');
finds([ 'SET perfopt.n_plus_one_max_gap = 200', 'SET perfopt.n_plus_one_min_runs = 5', users(5), map { "SELECT name, pg_sleep(0.21) FROM users WHERE id = $_" } 1 .. 5 ],
	'n_plus_one users 5/5', 'slow statements are not silence');

# Forgetting
finds([ users(20), orders_of(1 .. 5), 'DISCARD ALL', orders_of(6 .. 20) ], '', 'DISCARD ALL ends a loop');
finds([ users(20), orders_of(1 .. 9), 'SET ROLE alice', orders_of(10 .. 18) ], '', 'a role is part of it');
finds([ users(20), 'SET ROLE alice', orders_of(1 .. 20) ], '', '... and of the source');
finds([ 'SET ROLE alice', users(20), orders_of(1 .. 20) ], 'n_plus_one orders 20/20', 'that of SET ROLE');

# Styles
finds([ 'PREPARE p (bigint) AS SELECT count(*) FROM orders WHERE user_id = $1', users(20), map { "EXECUTE p($_)" } 1 .. 20 ],
	'n_plus_one orders 20/20', 'EXECUTE');
finds([ 'PREPARE p (text) AS SELECT name FROM users WHERE email = $1', users(20), map { "EXECUTE p('u$_')" } 1 .. 20 ],
	'n_plus_one users 20/20', 'EXECUTE with texts');
finds([ 'PREPARE p (text) AS SELECT name FROM users WHERE email = $1', users(20), map { "EXECUTE p('" . 'x' x 80 . "$_')" } 11 .. 30 ],
	'n_plus_one users 20/20', '... that differ at their end');
finds([ 'BEGIN', 'DECLARE c CURSOR FOR SELECT id FROM users ORDER BY id', map { my $p = $_; ('FETCH 20 FROM c', orders_of(map { $p * 20 + $_ } 1 .. 20)) } 0 .. 2 ],
	'n_plus_one orders 60/60', 'a cursor');
finds([ 'BEGIN', 'DECLARE c CURSOR FOR SELECT id FROM users ORDER BY id LIMIT 15', map { ('FETCH c', (orders_of($_))[0]) } 1 .. 15 ],
	'n_plus_one orders 15/15', 'a cursor, row by row');
finds([ '\set FETCH_COUNT 20', 'SELECT name FROM users', orders_of(1 .. 20) ], '', 'a result in pieces is one result');
finds([ join '\; ', users(20), orders_of(1 .. 20) ], 'n_plus_one orders 20/20', 'all in one message');
finds([ "INSERT INTO users SELECT i FROM generate_series(1001, 1020) i RETURNING id", orders_of(1001 .. 1020) ],
	'n_plus_one orders 20/20', 'RETURNING is a source');
finds([ 'EXPLAIN ANALYZE ' . users(20), orders_of(1 .. 20) ], '', 'EXPLAIN is none');

finds([ 'PREPARE p (mood) AS SELECT id FROM feelings WHERE m = $1', 'SELECT m FROM feelings LIMIT 12', map { "EXECUTE p('m$_')" } 1 .. 12 ],
	'n_plus_one feelings 12/12', 'parameters of a type not known');
finds([ 'SELECT oid FROM pg_class LIMIT 20',
		map { "SELECT information_schema._pg_truetypid(a, t) FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE attrelid = $_" } 1 .. 20 ],
	'', 'functions of the information schema are the system\'s');

# The same again and again
my $settings = "SELECT name FROM users WHERE email = 'u7'";
finds([ ($settings) x 9 ], '', 'nine times');
finds([ ($settings) x 10 ], 'cacheable_query users 10', 'ten times: cacheable');
finds([ (($settings, 'SELECT 1')) x 15 ], 'cacheable_query users 15', 'with others between');
finds([ users(20), ($settings) x 20 ], 'cacheable_query users 20', 'with a source: still cacheable, not N+1');
finds([ ($settings, "UPDATE users SET name = 'y' WHERE id = 8") x 20 ], '', 'a table that the session writes to');
finds([ ("$settings FOR UPDATE") x 20 ], '', 'locks are not cacheable');
finds([ ('SELECT 1') x 30, ('SELECT now()') x 30 ], '', 'statements without a table');
finds([ ('SELECT relname FROM pg_class WHERE oid = 1259') x 30, ("SELECT table_name FROM information_schema.tables WHERE table_name = 'x'") x 30 ], '',
	'the system\'s tables');
finds([ 'SELECT oid FROM pg_class LIMIT 20', map { "SELECT attname FROM pg_attribute WHERE attrelid = $_" } 1 .. 20 ], '', '... in a loop');

# Inserts
sub order { return map { "INSERT INTO orders VALUES ($_, 1, 'x', 1)" } @_; }
finds([ order(10001 .. 10009) ], '', 'nine inserts');
finds([ order(11001 .. 11010) ], 'batchable_inserts orders 10', 'ten inserts');
finds([ 'BEGIN', order(12001 .. 12020), 'COMMIT' ], 'batchable_inserts orders 20', 'in a transaction block');
finds([ map { ('BEGIN', $_, 'COMMIT') } order(13001 .. 13020) ], 'batchable_inserts orders 20', 'each in a block of its own');
finds([ map { ('BEGIN', $_, "UPDATE users SET name = 'z' WHERE id = 1", 'COMMIT') } order(13101 .. 13120) ], '', '... with another statement');
finds([ map { ('BEGIN', $_, 'COMMIT', 'BEGIN', "UPDATE users SET name = 'z' WHERE id = 1", 'COMMIT') } order(13201 .. 13220) ], '', '... alternating with others');
finds([ map { my $o = $_; (order($o), map { "INSERT INTO items VALUES ($o, 'a$_')" } 1 .. 5) } 14001 .. 14012 ],
	'batchable_inserts items 60, batchable_inserts orders 12', 'master and detail');
finds([ map { "INSERT INTO items VALUES ($_, 'a'), ($_, 'b')" } 1 .. 30 ], '', 'two rows at a time');
finds([ map { "INSERT INTO items SELECT $_, 'a' FROM users WHERE id = 1" } 1 .. 30 ], '', 'INSERT ... SELECT without a source');
finds([ map { ("COPY items FROM stdin", "1\tx\n\\.\n") } () ], '', 'nothing at all');
is($node->safe_psql('postgres', q{SELECT count(*) FROM perfopt.n_plus_one WHERE kind = 'batchable_inserts'}), '0', 'forgotten');
run_session([ order(15001 .. 15010) ]);
is(look('SELECT instead FROM perfopt.n_plus_one'),
	q{SELECT * FROM perfopt.batch_insert('public.orders', '{id,user_id,status,cents}', $1::bigint[], $2::bigint[], $3::text[], $4::integer[])},
	'the call that inserts them at once');
found();
run_session([ map { "INSERT INTO users VALUES ($_, 'u$_') ON CONFLICT (id) DO NOTHING" } 1 .. 10 ]);
is(look('SELECT instead FROM perfopt.n_plus_one'),
	q{SELECT * FROM perfopt.batch_insert('public.users', '{id,email}', $1::bigint[], $2::text[], perfopt.insert_options(on_conflict => 'nothing'))},
	'... that does nothing on conflict');
found();
run_session([ map { "INSERT INTO users VALUES ($_, 'u$_') ON CONFLICT (id) DO UPDATE SET email = excluded.email" } 1 .. 10 ]);
like(look('SELECT instead FROM perfopt.n_plus_one'), qr/^-- perfopt.batch_insert\(\) .*on_conflict => 'update'/, '... that updates: what is updated is for the user to say');
found();

# Applications
run_session([ "SET application_name = 'shop'", users(20), orders_of(1 .. 20), "SET application_name = 'mail'", users(20), orders_of(1 .. 20) ]);
is(found(q{(application_name || ' ' || loops || ' ' || runs)}), 'mail 1 20, shop 1 20', 'each application has its own loops');

# Hostile names: whoever pastes a comment runs nothing of its second line
run_session([ qq{CREATE TABLE "x\nDROP TABLE users; --" (id int, "k\nDROP TABLE users; --" int)}, users(12),
	map { qq{UPDATE "x\nDROP TABLE users; --" SET id = $_ WHERE "k\nDROP TABLE users; --" = $_} } 1 .. 12 ]);
like(look('SELECT instead FROM perfopt.n_plus_one'), qr/\A-- UPDATE [^\n]*\z/, 'no name ends a comment');
found();

# Who sees what
run_session([ users(20), orders_of(1 .. 20) ], extra_params => [ '-U', 'alice' ]);
run_session([ users(20), orders_of(1 .. 20) ], extra_params => [ '-U', 'bob' ]);
my $roles = q{SELECT string_agg(role, ',' ORDER BY role) FROM perfopt.n_plus_one};
is(look($roles), 'alice,bob', 'a superuser sees all');
is($node->safe_psql('postgres', $roles, extra_params => [ '-U', 'alice' ]), 'alice', 'a role sees its own');
my ($rc, $out, $err) = $node->psql('postgres', 'SELECT perfopt.reset_n_plus_one()', extra_params => [ '-U', 'alice' ]);
like($err, qr/permission denied for function reset_n_plus_one/, 'and forgets nothing');
look('GRANT pg_read_all_stats TO bob');
is($node->safe_psql('postgres', $roles, extra_params => [ '-U', 'bob' ]), 'alice,bob', 'pg_read_all_stats sees all');

# Names go, the row stays
look('DROP OWNED BY alice; DROP ROLE alice');
is(look('SELECT count(*) FROM perfopt.n_plus_one WHERE role IS NULL'), '1', 'the role is gone');
run_session([ users(12), map { "SELECT m FROM feelings WHERE id = $_" } 1 .. 12 ]);
look('DROP TABLE feelings; DROP TYPE mood');
is(look(q{SELECT count(*) FROM perfopt.n_plus_one WHERE query LIKE '%feelings%' AND instead LIKE '-- one statement for all rows%'}), '1', 'a type is gone');
look('DROP TABLE items, orders');
is(look(q{SELECT count(*) FROM perfopt.n_plus_one WHERE instead LIKE '-- one statement for all rows%'}), '3', 'the tables are gone');

$node->restart;
is(look('SELECT count(*) FROM perfopt.n_plus_one'), '0', 'a restart forgets');
$node->stop;
done_testing();
