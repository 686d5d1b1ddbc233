# N+1 loops of real clients are found, whatever way they send a query: simple
# protocol with literals, extended protocol with and without named statements,
# pipelines, and transactions through PgBouncer; and the good forms of the same
# work are not reported.
use strict;
use warnings;
use Clients;
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('drivers');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
# a busy machine may be silent for longer than the default of half a second
$node->append_conf('postgresql.conf', "autovacuum = off\nperfopt.n_plus_one_max_gap = '10s'\n");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION perfopt CASCADE;
	CREATE ROLE shop LOGIN;
	CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL);
	CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, total_cents int NOT NULL);
	CREATE INDEX ON orders (user_id);
	CREATE TABLE events (id bigserial PRIMARY KEY, user_id bigint, note text);
	INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 200) i;
	INSERT INTO orders SELECT i, 1 + i % 200, i FROM generate_series(1, 800) i;
	GRANT ALL ON users, orders, events, events_id_seq TO shop;
	VACUUM ANALYZE});

sub reset_all { $node->safe_psql('postgres', 'SELECT perfopt.reset_n_plus_one()'); }

# What the view says of the loops over three pages of 25 users
sub is_loop
{
	my ($application, $what) = @_;
	my @rows = found($node, $application);
	note "$what: ", shown(@rows);
	my $row = $rows[0] || {};
	is(scalar(@rows), 1, "$what: one row");
	is("@{$row}{qw(kind loops runs role)}", 'n_plus_one 3 75 shop', "$what: its loops and runs");
	like($row->{source_query} // '', qr/^SELECT id, name FROM users WHERE id > .* LIMIT/, "$what: where its keys are from");
	like($row->{query} // '', qr/^SELECT id, total_cents FROM orders WHERE user_id = \$1$/, "$what: what is repeated");
	is($row->{function}, undef, "$what: no function's");
	like($row->{instead} // '', qr/perfopt\.\w+\(.*\borders\b/s, "$what: a call instead, with the table's name");
}

sub is_only
{
	my ($application, $kind, $query, $what) = @_;
	my @rows = found($node, $application);
	note "$what: ", shown(@rows);
is(join(" ", map { "$_->{kind} $_->{runs}" } @rows), "$kind 30", "$what: $kind");
	like($rows[0]{query} // '', $query, "$what: the query");
}

sub is_nothing
{
	my ($application, $what) = @_;
	is(shown(found($node, $application)), 'nothing', $what);
}

# What a program does in each style, and what is to be found
sub drive
{
	my ($do, $driver, $style, @also) = @_;
	my $case = sub {
		my ($name) = @_;
		my $application = "$driver $style $name";
		reset_all();
		$do->(name => $name, style => $style, application_name => $application);
		gone($node, $application);
		return $application;
	};
	is_loop($case->('loop'), "$driver, $style");
	is_nothing($case->('good'), "$driver, $style: = ANY");
	is_nothing($case->('joins'), "$driver, $style: a join for ten users each");
	is_nothing($case->('good_and_joins'), "$driver, $style: one after the other");
	is_only($case->('same'), 'cacheable_query', qr/FROM orders WHERE user_id = /, "$driver, $style, one key again and again");
	is_only($case->('inserts'), 'batchable_inserts', qr/^INSERT INTO events/, "$driver, $style, rows one by one");
	is_nothing($case->('multirow'), "$driver, $style: many rows a statement");
	for my $also (@also)
	{
		my ($name, $check, @arguments) = @$also;
		$check->($case->($name), @arguments);
	}
}

my $python = start_client($node, python('drivers.py'));
drive($python, 'psycopg2', 'literals',
	[ 'executemany', \&is_only, 'batchable_inserts', qr/^INSERT INTO events/, 'psycopg2, executemany (which sends them one by one)' ]);
drive($python, 'psycopg 3', $_,
	[ 'executemany', \&is_only, 'batchable_inserts', qr/^INSERT INTO events/, "psycopg 3, $_, executemany (rows one by one, in a pipeline)" ]) for qw(unnamed named pipeline);

SKIP:
{
	my $missing = missing_node();
	skip "no npm packages: $missing", 1 if $missing;
	my $js = start_client($node, node('drivers.js'));
	drive($js, 'node pg', $_) for qw(unnamed named);
	ok($js->(), 'node ends');
}

# psql and pgbench run a script
my $page = sub { 'SELECT id, name FROM users WHERE id > ' . 25 * shift() . ' ORDER BY id LIMIT 25;' };
my $orders = 'SELECT id, total_cents FROM orders WHERE user_id =';
my $dir = PostgreSQL::Test::Utils::tempdir;
my $psql_loop = join "\n", map { my $p = $_; $page->($p), map { "$orders $_;" } 25 * $p + 1 .. 25 * $p + 25 } 0 .. 2;
my $psql_good = join "\n", map { my $p = $_; $page->($p), "SELECT user_id, id FROM orders WHERE user_id = ANY ('{" . join(',', 25 * $p + 1 .. 25 * $p + 25) . "}');" } 0 .. 2;
my $pgbench_loop = join "\n", map { my $p = $_; "\\set from 25 * $p", 'SELECT id, name FROM users WHERE id > :from ORDER BY id LIMIT 25;',
	map { ("\\set u $_", "$orders :u;") } 25 * $p + 1 .. 25 * $p + 25 } 0 .. 2;
my $pipelined_loop = join "\n", map { my $p = $_; "\\set from 25 * $p", 'SELECT id, name FROM users WHERE id > :from ORDER BY id LIMIT 25;',
	'\startpipeline', (map { ("\\set u $_", "$orders :u;") } 25 * $p + 1 .. 25 * $p + 25), '\endpipeline' } 0 .. 2;

sub script
{
	my ($application, $text, @command) = @_;
	reset_all();
	append_to_file("$dir/$application", "$text\n");
	$node->command_ok([ 'env', "PGAPPNAME=$application", @command, '-U', 'shop', '-f', "$dir/$application", 'postgres' ], $application);
	gone($node, $application);
	return $application;
}
is_loop(script('psql loop', $psql_loop, 'psql', '-XqAt'), 'psql');
is_nothing(script('psql good', $psql_good, 'psql', '-XqAt'), 'psql: = ANY');
for my $mode (qw(simple extended prepared))
{
	is_loop(script("pgbench $mode", $pgbench_loop, 'pgbench', '-n', '-t', 1, '-M', $mode), "pgbench, $mode");
}
for my $mode (qw(extended prepared))
{
	my $application = script("pgbench pipeline $mode", $pipelined_loop, 'pgbench', '-n', '-t', 1, '-M', $mode);
	is_loop($application, "pgbench, $mode in a pipeline");
}

# One random row a transaction, as pgbench -S, is no loop of anything
is_nothing(script('pgbench random', "\\set u random(1, 200)\nSELECT name FROM users WHERE id = :u;", 'pgbench', '-n', '-t', 300, '-M', $_),
	"pgbench, $_: a random user each time") for qw(simple prepared);

# ---- PgBouncer, a server's connection for a transaction

my ($pgbouncer) = grep { -x } qw(/usr/sbin/pgbouncer /usr/bin/pgbouncer);
my $sockets = PostgreSQL::Test::Utils::tempdir_short;
my $bouncer_port = 6432;
my $bouncer;

sub start_bouncer
{
	my ($size) = @_;
	my ($host, $port) = ($node->host, $node->port);
	unlink "$sockets/pgbouncer.ini", "$sockets/users";
	append_to_file("$sockets/users", qq("shop" ""\n));
	append_to_file("$sockets/pgbouncer.ini", <<"INI");
[databases]
postgres = host=$host port=$port dbname=postgres pool_size=$size
[pgbouncer]
listen_addr =
unix_socket_dir = $sockets
listen_port = $bouncer_port
auth_type = trust
auth_file = $sockets/users
pool_mode = transaction
logfile = $sockets/log
INI
	$bouncer = fork // die "fork: $!";
	if ($bouncer == 0)
	{
		open STDERR, '>', '/dev/null';
		exec $pgbouncer, '-q', "$sockets/pgbouncer.ini" or exit 1;
	}
	my $tries = 0;
	until (-S "$sockets/.s.PGSQL.$bouncer_port")
	{
		die "pgbouncer did not start:\n" . slurp_file("$sockets/log") if $tries++ > 300;
		select undef, undef, undef, 0.05;
	}
}
sub stop_bouncer
{
	return unless $bouncer;
	kill 'INT', $bouncer;
	waitpid $bouncer, 0;
	undef $bouncer;
	unlink "$sockets/.s.PGSQL.$bouncer_port";
	# its sessions too
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'shop'");
}
END { kill 'KILL', $bouncer if $bouncer; }

sub bounced
{
	my ($size, %what) = @_;
	reset_all();
	start_bouncer($size);
	my @through = (host => $sockets, port => $bouncer_port);
	$python->(%what, $what{clients} ? (clients => [ map { { %$_, @through } } @{ $what{clients} } ]) : @through);
	stop_bouncer();
}
my $false = JSON::PP::false();
for my $style (qw(literals unnamed))
{
	bounced(1, name => 'loop', style => $style, application_name => "bounced $style autocommit");
	is_loop("bounced $style autocommit", "through PgBouncer, $style, a transaction a query");
	bounced(1, name => 'loop', style => $style, application_name => "bounced $style", autocommit => $false);
	is_loop("bounced $style", "through PgBouncer, $style, a transaction a page");
	bounced(1, name => 'good', style => $style, application_name => "bounced $style good");
	is_nothing("bounced $style good", "through PgBouncer, $style: = ANY");
}

# Four clients on two connections: who loops, in transactions, and who asks for one thing at a time
bounced(2, name => 'together', clients => [
	(map { { name => 'loop', style => 'literals', application_name => 'looping', autocommit => $false } } 1 .. 2),
	(map { { name => 'requests', style => 'literals', application_name => 'asking' } } 1 .. 2) ]);
my @looping = found($node, 'looping');
note 'looping among others: ', shown(@looping);
is(join(' ', map { "$_->{kind} $_->{loops} $_->{runs}" } @looping), 'n_plus_one 6 150', 'loops of two clients among others');
like($looping[0]{source_query} // '', qr/^SELECT id, name FROM users/, '... with their own source');
is_nothing('asking', 'who only shares the connections is not blamed');

# All of one name, each request a transaction, or none
for my $autocommit ($false, JSON::PP::true())
{
	my $application = $autocommit ? 'web autocommit' : 'web';
	bounced(2, name => 'together', clients => [
		map { { name => 'requests', style => 'literals', application_name => $application, autocommit => $autocommit } } 1 .. 6 ]);
	is_nothing($application, 'unrelated requests of six clients over two connections' . ($autocommit ? ', autocommit' : ''));
}

ok($python->(), 'python ends');
$node->stop;
done_testing;
