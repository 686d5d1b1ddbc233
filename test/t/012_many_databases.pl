# More databases than there are processes for: those without a worker are
# reported, and have one as soon as there is room.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $databases = 20;
my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf',
	"perfopt.sample_interval = 0\nperfopt.advice_interval = 0\nmax_worker_processes = 12\nautovacuum = off");
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub count_are
{
	my ($count, $name) = @_;
	ok($node->poll_query_until('postgres', "SELECT count(*) = $count AND count(DISTINCT datname) = $count
		FROM pg_stat_activity JOIN perfopt.workers w USING (pid, datname) WHERE backend_type = 'perfopt worker' AND w.state = 'sleeping'"), $name)
	  or diag(sql('SELECT kind, datname, state, pid, last_error FROM perfopt.workers'));
}
sub times_in_log
{
	my ($re, $offset) = @_;
	return scalar(() = slurp_file($node->logfile, $offset) =~ /$re/g);
}

# The launchers of perfopt and of logical replication leave ten slots.
$node->safe_psql('template1', 'CREATE EXTENSION perfopt CASCADE');
my $log = -s $node->logfile;
sql(join ";\n", map { "CREATE DATABASE d$_" } 1 .. $databases);
sql('CREATE EXTENSION perfopt CASCADE');
$node->wait_for_log(qr/LOG:  perfopt could not start a background worker.*HINT:  Raise "max_worker_processes"/s, $log);
count_are(10, 'as many workers as there is room for');
is(sql(q{SELECT count(*) > 0 AND count(pid) = 0 FROM perfopt.workers WHERE state = 'waiting'}), 't', 'others are shown as waiting');

# Room becomes free: it is used.
sql("DROP DATABASE $_") foreach split /\n/, sql(q{SELECT datname FROM perfopt.workers WHERE pid IS NOT NULL AND datname ~ '^d\d' LIMIT 3});
count_are(10, 'workers that wait take the place of those that go');
cmp_ok(times_in_log(qr/perfopt could not start a background worker/, $log), '<=', 4, 'the log has it once, and once more for each that was started since')
  or diag(slurp_file($node->logfile, $log));

# Enough for all
$node->adjust_conf('postgresql.conf', 'max_worker_processes', 40);
$log = -s $node->logfile;
$node->restart;
count_are($databases - 3 + 2, 'after a restart with more, each database has a worker');
sql(join ";\n", map { "CREATE DATABASE e$_ TEMPLATE d$_" }
	map { /(\d+)/ } split /\n/, sql(q{SELECT datname FROM pg_database WHERE datname ~ '^d\d' ORDER BY oid LIMIT 10}));
count_are($databases - 3 + 2 + 10, 'so have those created from them');
is(times_in_log(qr/perfopt could not start|perfopt has no room/, $log), 0, 'no complaint');
is(sql(q{SELECT count(*) FROM perfopt.workers WHERE kind = 'database' AND (state <> 'sleeping' OR errors > 0)}), '0',
	'none is left over, none has failed');

$node->stop;
done_testing;
