# A set for the index advisor: an application's schema, the statements it runs
# with skewed parameters, the indexes it needs, and controls that need none.
# Used by test/bench/advisor_oltp.pl and, with fewer rows, by a test.
#
# It judges any advisor: a need is met when the query's plan cost falls, with the
# advised indexes really built, by 95 % of what it falls by with the reference
# indexes really built, whatever the advised ones look like.  An advised index
# is false when, without it, no need's cost rises by a tenth.
package Oltp;
use strict;
use warnings;
use Exporter 'import';
our @EXPORT_OK = qw(oltp_schema oltp_needs oltp_controls oltp_writes oltp_rare oltp_judge oltp_script);

# oltp_schema(USERS): SQL; other tables have a multiple of so many rows.
# Hashes stand for chance, so that the data are the same each time.
sub oltp_schema
{
	my ($users) = @_;
	my $sql = <<'SQL';
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE FUNCTION chance(i bigint, seed bigint) RETURNS float8 LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
	'SELECT (hashint8extended(i, seed) & 1048575) / 1048576.0';
CREATE SEQUENCE new_id START 100000000;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL, plan text NOT NULL);
CREATE TABLE countries (code text, name text NOT NULL, dial int);
CREATE TABLE users (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, email text NOT NULL, name text NOT NULL,
	status text NOT NULL, is_admin boolean NOT NULL, created_at timestamp NOT NULL, last_seen_at timestamp, deleted_at timestamp);
CREATE TABLE products (id int PRIMARY KEY, sku text NOT NULL UNIQUE, name text NOT NULL, category_id int NOT NULL,
	price int NOT NULL, tags text[] NOT NULL);
CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users, status text NOT NULL, total int NOT NULL,
	created_at timestamp NOT NULL, note text NOT NULL);
CREATE TABLE items (id int PRIMARY KEY, order_id int NOT NULL REFERENCES orders, product_id int NOT NULL REFERENCES products,
	quantity int NOT NULL, price int NOT NULL);
CREATE TABLE events (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, kind text NOT NULL, at timestamp NOT NULL, payload jsonb NOT NULL);
CREATE TABLE documents (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, title text NOT NULL, body text NOT NULL);
CREATE TABLE messages (id int PRIMARY KEY, sender_id int NOT NULL, recipient_id int NOT NULL, body text NOT NULL, sent_at timestamp, read_at timestamp);
CREATE TABLE sessions (token text PRIMARY KEY, user_id int NOT NULL, expires_at timestamp NOT NULL);
CREATE TABLE counters (id int PRIMARY KEY, hits int NOT NULL, touched_at timestamp NOT NULL, label text NOT NULL) WITH (fillfactor = 50);

INSERT INTO tenants SELECT i, 'tenant ' || i, CASE WHEN i % 10 = 0 THEN 'paid' ELSE 'free' END FROM generate_series(1, 500) i;
INSERT INTO countries SELECT 'c' || i, 'country ' || i, i FROM generate_series(1, 200) i;
-- tenants are skewed
INSERT INTO users SELECT i, 1 + (500 * power(chance(i, 1), 2))::int % 500, 'User' || i || '@Example.com', 'Name' || (i::bigint * 7919) % USERS,
	CASE WHEN chance(i, 2) < 0.97 THEN 'active' WHEN chance(i, 2) < 0.995 THEN 'suspended' ELSE 'pending' END, chance(i, 3) < 0.01,
	timestamp '2024-01-01' + i * interval '1 min', NULL, CASE WHEN chance(i, 4) < 0.01 THEN timestamp '2024-06-01' + i * interval '1 min' END
	FROM generate_series(1, USERS) i;
INSERT INTO products SELECT i, 'sku' || i, 'Product ' || md5(i::text), i % 40, 100 + (chance(i, 5) * 10000)::int,
	ARRAY['tag' || (i::bigint * 31) % 997, 'tag' || (i::bigint * 57) % 991, CASE WHEN i % 2 = 0 THEN 'sale' ELSE 'new' END] FROM generate_series(1, USERS) i;
INSERT INTO orders SELECT i, 1 + (USERS * power(chance(i, 6), 3))::int % USERS,
	CASE WHEN i > USERS * 3 - 150 THEN 'pending' WHEN chance(i, 7) < 0.96 THEN 'done' ELSE 'shipped' END,
	(chance(i, 8) * 100000)::int, timestamp '2024-01-01' + i * interval '20 s', repeat('n', 60) FROM generate_series(1, USERS * 3) i;
INSERT INTO items SELECT i, 1 + (i::bigint * 5 % (USERS * 3))::int, 1 + (USERS * power(chance(i, 9), 2))::int % USERS, 1 + i % 3,
	(chance(i, 10) * 10000)::int FROM generate_series(1, USERS * 4) i;
INSERT INTO events SELECT i, 1 + (500 * power(chance(i, 11), 2))::int % 500, 'kind' || i % 12, timestamp '2024-01-01' + i * interval '10 s',
	jsonb_build_object('ref', (i::bigint * 13) % (USERS * 2), 'source', 's' || i % 5, 'ip', '10.0.' || i % 256 || '.' || i % 100) FROM generate_series(1, USERS * 4) i;
INSERT INTO documents SELECT i, 1 + (500 * chance(i, 12))::int % 500, 'Report ' || md5(i::text) || ' of ' || md5((i + 1)::text),
	'word' || (i::bigint * 17) % 2003 || ' word' || (i::bigint * 29) % 1999 || ' about things' FROM generate_series(1, USERS) i;
INSERT INTO messages SELECT i, 1 + (USERS * chance(i, 13))::int % USERS, 1 + (USERS * chance(i, 14))::int % USERS, repeat('m', 80),
	CASE WHEN i <= USERS * 3 - 60 THEN timestamp '2024-01-01' + i * interval '30 s' END, NULL FROM generate_series(1, USERS * 3) i;
INSERT INTO sessions SELECT md5(i::text), 1 + (USERS * chance(i, 15))::int % USERS, timestamp '2024-01-01' + chance(i, 16) * interval '300 days' FROM generate_series(1, USERS * 2) i;
INSERT INTO counters SELECT i, 0, timestamp '2024-01-01' + i * interval '1 min', repeat('l', 40) FROM generate_series(1, USERS) i;
SQL
	$sql =~ s/\bUSERS\b/$users/g;
	return $sql;
}

# Each: a name, the script (pgbench), values to judge it with, and the indexes
# that a person would make; RANGE(n) is a skewed variable, EVEN(n) an even one.
# A last element names what the need is about when not every advisor can see it.
sub oltp_needs
{
	my ($users) = @_;
	my @needs = (
		[ login => "\\set n EVEN(USERS)\nSELECT id, name, status FROM users WHERE lower(email) = 'user' || :n || '\@example.com'", { n => 77 },
			'users (lower(email))' ],
		[ newest_orders => "\\set u SKEWED(USERS)\nSELECT id, total, created_at FROM orders WHERE user_id = :u ORDER BY created_at DESC LIMIT 20", { u => 7 },
			'orders (user_id, created_at)' ],
		[ order_items => "\\set o EVEN(USERS * 3)\nSELECT i.id, i.quantity, p.name FROM items i JOIN products p ON p.id = i.product_id WHERE i.order_id = :o", { o => 31 },
			'items (order_id)' ],
		[ pending_orders => "SELECT id, user_id, total FROM orders WHERE status = 'pending' ORDER BY created_at LIMIT 50", {},
			q{orders (created_at) WHERE status = 'pending'} ],
		[ event_pages => "\\set t EVEN(500)\n\\set d EVEN(USERS / 10)\nSELECT id, kind, at FROM events WHERE tenant_id = :t AND (at, id) < (timestamp '2024-01-01' + :d * interval '1 min', 1000000000) ORDER BY at DESC, id DESC LIMIT 25",
			{ t => 300, d => 500 }, 'events (tenant_id, at, id)' ],
		[ category_prices => "\\set c EVEN(39)\n\\set p EVEN(9000)\nSELECT id, name, price FROM products WHERE category_id = :c AND price BETWEEN :p AND :p + 200 ORDER BY price",
			{ c => 7, p => 3000 }, 'products (category_id, price)' ],
		[ name_prefix => "\\set n EVEN(USERS / 20)\nSELECT id, name FROM users WHERE name LIKE 'Name' || (1000 + :n) || '%' LIMIT 10", { n => 234 },
			'users (name text_pattern_ops)' ],
		[ title_contains => "\\set n EVEN(USERS)\nSELECT id, title FROM documents WHERE title LIKE '%' || substr(md5(:n::text), 5, 12) || '%'", { n => 44 },
			'documents USING gin (title gin_trgm_ops)', 'gin' ],
		[ payload_contains => "\\set n EVEN(USERS * 2)\nSELECT id, kind FROM events WHERE payload \@> ('{\"ref\": ' || :n || '}')::jsonb", { n => 26 },
			'events USING gin (payload jsonb_path_ops)', 'gin' ],
		[ has_tag => "\\set n EVEN(900)\nSELECT id, name FROM products WHERE tags \@> ARRAY['tag' || :n]", { n => 310 },
			'products USING gin (tags)', 'gin' ],
		[ full_text => "\\set n EVEN(1900)\nSELECT id, title FROM documents WHERE to_tsvector('english', body) \@\@ plainto_tsquery('english', 'word' || :n)", { n => 34 },
			q{documents USING gin (to_tsvector('english', body))}, 'gin' ],
		[ conversations => "\\set u EVEN(USERS)\nSELECT id, body FROM messages WHERE sender_id = :u OR recipient_id = :u", { u => 99 },
			[ 'messages (sender_id)', 'messages (recipient_id)' ] ],
		[ inbox => "\\set u EVEN(USERS)\nSELECT count(*) FROM messages WHERE recipient_id = :u AND read_at IS NULL", { u => 1234 },
			'messages (recipient_id)' ],
		[ unsent => "SELECT id, body FROM messages WHERE sent_at IS NULL ORDER BY id LIMIT 100", {},
			'messages (id) WHERE sent_at IS NULL' ],
		[ sessions_of => "\\set a EVEN(USERS)\n\\set b EVEN(USERS)\n\\set c EVEN(USERS)\nSELECT token, expires_at FROM sessions WHERE user_id IN (:a, :b, :c)", { a => 1, b => 2000, c => 333 },
			'sessions (user_id)' ],
		[ soft_deleted => "SELECT id, email FROM users WHERE deleted_at < timestamp '2024-06-05'", {},
			'users (deleted_at)' ],
		[ last_hour => "\\set d EVEN(USERS / 4)\nSELECT kind, count(*) FROM events WHERE at >= timestamp '2024-01-01' + :d * interval '1 min' AND at < timestamp '2024-01-01' + (:d + 60) * interval '1 min' GROUP BY kind",
			{ d => 900 }, 'events (at)' ]);
	return map { [ $_->[0], _range($_->[1], $users), @$_[ 2 .. $#$_ ] ] } @needs;
}

# Statements that no index would help, or not enough, or that have theirs.
sub oltp_controls
{
	my ($users) = @_;
	my @controls = (
		[ by_key => "\\set u SKEWED(USERS)\nSELECT * FROM users WHERE id = :u" ],
		[ by_sku => "\\set n EVEN(USERS)\nSELECT * FROM products WHERE sku = 'sku' || :n" ],
		[ by_token => "\\set n EVEN(USERS)\nSELECT * FROM sessions WHERE token = md5(:n::text)" ],
		[ order_with_user => "\\set o EVEN(USERS * 3)\nSELECT o.total, u.name FROM orders o JOIN users u ON u.id = o.user_id WHERE o.id = :o" ],
		[ small_table => "\\set n EVEN(200)\nSELECT name FROM countries WHERE code = 'c' || :n" ],
		[ small_search => "\\set n EVEN(20)\nSELECT name FROM countries WHERE name LIKE '%' || :n || '%'" ],
		[ turnover => 'SELECT count(*), sum(total), max(length(note)) FROM orders' ],
		[ most_are_done => "SELECT avg(total), max(note) FROM orders WHERE status = 'done'" ],
		[ most_are_active => "SELECT count(*), max(email) FROM users WHERE status = 'active' AND deleted_at IS NULL" ],
		[ not_admins => 'SELECT count(*), max(name) FROM users WHERE NOT is_admin' ],
		[ any_events => 'SELECT * FROM events LIMIT 20' ],
		[ at_random => 'SELECT id FROM products ORDER BY random() LIMIT 1' ],
		[ not_indexable => 'SELECT count(*) FROM items WHERE quantity * price > 30000 * random()' ]);
	return map { [ $_->[0], _range($_->[1], $users) ] } @controls;
}

# What an index would help, but hurt "hit" more, which runs thousands of times as often
sub oltp_rare
{
	return [ rare_scan => "SELECT id, hits FROM counters WHERE touched_at < timestamp '2024-01-01 02:00';\n" ];
}

sub oltp_writes
{
	my ($users) = @_;
	my @writes = (
		[ hit => "\\set n SKEWED(USERS)\nUPDATE counters SET hits = hits + 1, touched_at = touched_at + interval '1 s' WHERE id = :n" ],
		[ seen => "\\set n SKEWED(USERS)\nUPDATE users SET last_seen_at = timestamp '2025-01-01' WHERE id = :n" ],
		[ order => "\\set u SKEWED(USERS)\nINSERT INTO orders SELECT nextval('new_id'), :u, 'done', 100, timestamp '2025-01-01' + :u * interval '1 s', 'new'" ],
		[ event => "\\set t SKEWED(500)\nINSERT INTO events SELECT nextval('new_id'), :t, 'kind1', timestamp '2025-01-01' + :t * interval '1 s', '{\"ref\": 1, \"source\": \"new\"}'" ],
		[ message => "\\set u EVEN(USERS)\nINSERT INTO messages SELECT nextval('new_id'), :u, :u, 'new', timestamp '2025-01-01', NULL" ]);
	return map { [ $_->[0], _range($_->[1], $users) ] } @writes;
}

sub _range
{
	my ($script, $users) = @_;
	$script =~ s/\bUSERS\b/$users/g;
	$script =~ s/\bEVEN\((.*)\)$/random(1, $1)/gm;
	$script =~ s/\bSKEWED\((.*)\)$/random_zipfian(1, $1, 1.2)/gm;
	return "$script;\n";
}

# The query of a script, with values instead of its variables
sub oltp_script
{
	my ($script, $values) = @_;
	$script =~ s/^\\set.*\n//gm;
	$script =~ s/(?<!:):(\w+)/exists $values->{$1} ? $values->{$1} : ":$1"/ge;
	$script =~ s/;\s*$//;
	return $script;
}

# oltp_judge(SQL, USERS, [CREATE INDEX ...]): which needs they meet, and which are false.
# The sub runs SQL in one session and returns the first column's values.
# Returns { found => [names], missed => [names], false => [DDL], impossible => [DDL], costs => { name => [before, with these, reference] } }.
sub oltp_judge
{
	my ($sql, $users, $advised, $only) = @_;
	my @needs = grep { !$only || $only->($_) } oltp_needs($users);
	my %costs;
	my $cost_of = sub {
		my ($need) = @_;
		my $query = oltp_script(@$need[ 1, 2 ]);
		my $plan = join "\n", $sql->("EXPLAIN $query");
		$plan =~ /cost=[\d.]+\.\.([\d.]+)/ or die "no cost in $plan";
		return $1;
	};
	push @{ $costs{ $_->[0] } }, $cost_of->($_) for @needs;

	my (%built, @impossible);
	for my $ddl (@$advised)
	{
		(my $statement = $ddl) =~ s/^CREATE INDEX (CONCURRENTLY )?(("[^"]+"|\S+) )?ON /CREATE INDEX ON / or die "what is $ddl";
		my $before = join ',', $sql->(q(SELECT coalesce(max(indexrelid::bigint), 0) FROM pg_index));
		unless (eval { $sql->($statement); 1 })
		{
			push @impossible, $ddl;
			next;
		}
		my ($index) = $sql->("SELECT indexrelid::regclass FROM pg_index WHERE indexrelid > $before ORDER BY indexrelid LIMIT 1");
		$built{$index} = $ddl;
	}
	# statistics of expressions
	$sql->('ANALYZE');
	push @{ $costs{ $_->[0] } }, $cost_of->($_) for @needs;

	# One after another, so that of two that do the same one stays.
	my %now = map { $_->[0] => $cost_of->($_) } @needs;
	my @false;
	my ($indexes) = join ' ', $sql->('SELECT indexrelid::regclass FROM pg_index WHERE indexrelid::regclass::text = ANY (ARRAY['
		  . join(', ', map { my $q = $_; $q =~ s/'/''/g; "'$q'" } sort keys %built) . ']::text[]) ORDER BY pg_relation_size(indexrelid) DESC, indexrelid') if %built;
	for my $index (split ' ', $indexes // '')
	{
		$sql->("BEGIN; DROP INDEX $index");
		my $needed = grep { $cost_of->($_) > 1.1 * $now{ $_->[0] } } @needs;
		if ($needed) { $sql->('ROLLBACK') }
		else { $sql->('COMMIT'); push @false, delete $built{$index} }
	}
	my $bytes = %built || @false ? join '', $sql->('SELECT coalesce(sum(pg_relation_size(x::regclass)), 0)::bigint FROM unnest(ARRAY['
		  . join(', ', map { my $q = $_; $q =~ s/'/''/g; "'$q'" } sort keys %built) . ']::text[]) x') : 0;
	$sql->("DROP INDEX $_") for sort keys %built;

	# each need's own reference
	for my $need (@needs)
	{
		my @reference = ref $need->[3] ? @{ $need->[3] } : $need->[3];
		# statistics of expressions
		$sql->(join '; ', 'BEGIN', (map { "CREATE INDEX ON $_" } @reference), map { /^(\w+) .*\(.*\(/ ? "ANALYZE $1" : () } @reference);
		push @{ $costs{ $need->[0] } }, $cost_of->($need);
		$sql->('ROLLBACK');
	}
	my @found = grep { my ($before, $with, $reference) = @{ $costs{$_} }; $before - $with >= 0.95 * ($before - $reference) } map { $_->[0] } @needs;
	my %found = map { $_ => 1 } @found;
	return { found => \@found, missed => [ grep { !$found{$_} } map { $_->[0] } @needs ], false => \@false, impossible => \@impossible, costs => \%costs, bytes => $bytes };
}

1;
