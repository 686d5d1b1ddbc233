# What must never be reported, a table that is full, and loops while others
# look and forget.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run qw(start finish);

my $root = $ENV{PERFOPT_ROOT} || '.';
my $tmp = $PostgreSQL::Test::Utils::tmp_check;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', q{
perfopt.sample_interval = 0
perfopt.advice_interval = 0
perfopt.n_plus_one_interval = 0
perfopt.n_plus_one_max_gap = 1min
perfopt.n_plus_one_max = 10
autovacuum = off
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');

sub look
{
	my ($sql) = @_;
	local $ENV{PGOPTIONS} = '-c perfopt.detect_n_plus_one=off';
	return $node->safe_psql('postgres', $sql);
}
my $all = q{SELECT string_agg(kind || ' ' || coalesce(query, '?'), E'\n') FROM perfopt.n_plus_one};

sub pgbench
{
	$node->command_ok([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, @_, 'postgres' ], "pgbench @_");
}

# Other people's requests
system_or_bail('pgbench', '-q', '-i', '-h', $node->host, '-p', $node->port, 'postgres');
look('SELECT perfopt.reset_n_plus_one()');
foreach my $protocol (qw(simple extended prepared))
{
	pgbench('-M', $protocol, '-c', 2, '-t', 150);
	pgbench('-M', $protocol, '-c', 2, '-t', 150, '-N');
	pgbench('-M', $protocol, '-c', 2, '-t', 300, '-S');
}
is(look($all), '', 'TPC-B, its simple form and look-ups are none');

# A pool: requests of many users on one connection, lists among them
my %script = (list => "\\set first random(1, 50000)\nSELECT aid FROM pgbench_accounts WHERE aid >= :first ORDER BY aid LIMIT 20;\n",
	one => "\\set aid random(1, 100000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n",
	change => "\\set aid random(1, 100000)\nUPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n",
	note => "INSERT INTO pgbench_history (tid, aid) VALUES (1, 1);\n",
	branch => "SELECT bbalance FROM pgbench_branches WHERE bid = 1 AND pg_backend_pid() > 0;\nUPDATE pgbench_branches SET bbalance = bbalance + 1 WHERE bid = 1;\n");
append_to_file("$tmp/$_.sql", $script{$_}) foreach keys %script;
pgbench('--random-seed=7', '-t', 3000, map { ('-f', "$tmp/$_->[0].sql\@$_->[1]") } [ 'list', 1 ], [ 'one', 200 ], [ 'change', 30 ], [ 'branch', 5 ]);
is(look($all), '', 'a pool of unrelated requests, few of them lists');
pgbench('--random-seed=7', '-t', 3000, map { ('-f', "$tmp/$_->[0].sql\@$_->[1]") } [ 'list', $_ ], [ 'one', 20 ], [ 'change', 20 ], [ 'note', 20 ]) foreach (2, 5);
is(look($all), '', '... many of them lists, and inserts');

# An application's requests, each of several statements that begin with the same
# look-up: statements of one request come in order, requests do not
my $begin = "\\set t random(1, 1000)\nSELECT tbalance FROM pgbench_tellers WHERE tid = :t;\n\\set a random(1, 90000)\n";
my %request = (
	list => 'SELECT aid FROM pgbench_accounts WHERE aid >= :a ORDER BY aid LIMIT 12;',
	one => "SELECT abalance FROM pgbench_accounts WHERE aid = :a;\nSELECT filler FROM pgbench_accounts WHERE aid = :a;",
	change => 'UPDATE pgbench_accounts SET abalance = 1 WHERE aid = :a;',
	note => 'INSERT INTO pgbench_history (tid, aid) VALUES (:t, :a);',
	count => 'SELECT count(*) FROM pgbench_accounts WHERE aid BETWEEN :a AND :a + 5;',
	pay => "SELECT bid FROM pgbench_accounts WHERE aid = :a;\nUPDATE pgbench_tellers SET tbalance = 1 WHERE tid = :t;");
append_to_file("$tmp/request_$_.sql", "$begin$request{$_}\n") foreach keys %request;
pgbench('--random-seed=7', '-t', 3000, map { ('-f', "$tmp/request_$_.sql") } sort keys %request);
is(look($all), '', 'requests of several statements each');

# A pipeline: one list, its look-ups all at once
append_to_file("$tmp/pipeline.sql", join "\n", 'SELECT aid FROM pgbench_accounts ORDER BY aid LIMIT 12;', '\startpipeline',
	(map { "SELECT abalance FROM pgbench_accounts WHERE aid = $_;" } 1 .. 12), '\endpipeline', '');
look('SELECT perfopt.reset_n_plus_one()');
pgbench('-M', $_, '-t', 3, '-f', "$tmp/pipeline.sql") foreach qw(extended prepared);
is(look('SELECT loops, runs, source_rows FROM perfopt.n_plus_one'), '6|72|72', 'pipelines');

# No more loops than there is room for
my @statements = map { my $columns = join ', ', ('abalance') x $_;
	("SELECT aid FROM pgbench_accounts ORDER BY aid LIMIT 10 OFFSET $_;", map { "SELECT $columns FROM pgbench_accounts WHERE aid = $_;" } 1 .. 10) } 1 .. 25;
look('SELECT perfopt.reset_n_plus_one()');
$node->safe_psql('postgres', join "\n", @statements);
is(look('SELECT loops_used, loops_max, evicted FROM perfopt.loops_info()'), '10|10|15', 'the table is full');
is(look(q{SELECT count(*), bool_and(length(query) > 200) FROM perfopt.n_plus_one}), '10|t', 'those seen last are there');

# Loops, while others look, forget and evict
append_to_file("$tmp/loop.sql", join '', map {; "SELECT aid FROM pgbench_accounts ORDER BY aid LIMIT 12;\n",
		(map { my $i = $_; "SELECT bid FROM pgbench_accounts WHERE aid = $i;\n" } 1 .. 12) } 1 .. 4);
append_to_file("$tmp/looks.sql", "SELECT count(*), sum(runs), max(length(instead)) FROM perfopt.n_plus_one;\nSELECT count(*) FROM perfopt.loops();\n");
append_to_file("$tmp/forget.sql", "SELECT perfopt.reset_n_plus_one();\n");
my @to = ('-n', '-h', $node->host, '-p', $node->port);
my @handles = map { start([ 'pgbench', @to, @$_, 'postgres' ], '>', "$tmp/out", '2>', "$tmp/err") }
	([ '-c', 2, '-T', 4, '-f', "$tmp/loop.sql" ], [ '-c', 1, '-T', 4, '-f', "$tmp/looks.sql" ], [ '-c', 1, '-T', 4, '-R', 50, '-f', "$tmp/forget.sql" ]);
$node->safe_psql('postgres', join "\n", @statements) for 1 .. 5;
ok(finish($_), 'clients end well') foreach @handles;
cmp_ok(look('SELECT loops_used FROM perfopt.loops_info()'), '<=', 10, 'bounded');
is(look('SELECT count(*) FROM perfopt.loops() WHERE loops < 0 OR runs < 0 OR lost_ms < 0'), '0', 'nothing negative');

# What two sessions find is added up
look('SELECT perfopt.reset_n_plus_one()');
pgbench('-c', 4, '-t', 10, '-f', "$tmp/loop.sql");
is(look(q{SELECT loops, runs, source_rows FROM perfopt.n_plus_one WHERE kind = 'n_plus_one'}), '160|1920|1920', 'every loop of every client is counted');
$node->stop;
done_testing();
