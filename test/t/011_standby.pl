# On a standby the worker runs and writes nothing; after promotion it writes.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$primary->append_conf('postgresql.conf', "perfopt.sample_interval = 0\nperfopt.advice_interval = 0");
$primary->start;
$primary->safe_psql('postgres', 'CREATE DATABASE late');
$primary->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$primary->safe_psql('postgres', slurp_file("$root/test/tools/$_.sql")) foreach qw(stop_points worker);
$primary->safe_psql('postgres', q{CREATE TABLE duty_script AS SELECT 'INSERT INTO public.written SELECT 1' AS script;
	CREATE TABLE written (i int)});
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

sub worker_in
{
	my ($db) = @_;
	return $standby->poll_query_until('postgres', qq{SELECT count(*) = 1 FROM pg_stat_activity JOIN perfopt.workers w USING (pid, datname)
		WHERE datname = '$db' AND w.state = 'sleeping'});
}

ok(worker_in('postgres'), 'the standby has a worker');
my ($rc, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT duty_run_now('test_writes', 10000)");
like($err, qr/ERROR:  25006: this writes, and the server or database is read-only/, 'a duty that writes is refused');
my $quiet = $standby->safe_psql('postgres', q{SELECT state, last_tick IS NOT NULL FROM perfopt.workers WHERE datname = 'postgres'});
is($quiet, 'sleeping|t', 'the worker lives');
$primary->safe_psql('postgres', q{UPDATE duty_script SET script = 'SELECT count(*) FROM public.written'});
$primary->wait_for_catchup($standby);
is(($standby->psql('postgres', "SELECT duty_run_now('test', 10000)"))[0], 0, 'one that only reads is run');

# The extension comes by replication, where nobody tells the launcher.
$primary->safe_psql('late', 'CREATE EXTENSION perfopt CASCADE');
$primary->wait_for_catchup($standby);
$standby->safe_psql('late', 'SELECT perfopt.start_worker()');
ok(worker_in('late'), 'start_worker() on the standby starts it');
$primary->safe_psql('late', 'DROP EXTENSION perfopt');
$primary->wait_for_catchup($standby);
ok($standby->poll_query_until('postgres', q{SELECT count(*) = 0 FROM perfopt.workers WHERE datname = 'late'}),
	'it goes when the drop is replayed');
$primary->safe_psql('late', 'CREATE EXTENSION perfopt');
$primary->safe_psql('postgres', q{UPDATE duty_script SET script = 'INSERT INTO public.written SELECT 1'});
$primary->safe_psql('postgres', 'CREATE DATABASE gone TEMPLATE late');
$primary->wait_for_catchup($standby);
$standby->safe_psql('gone', 'SELECT perfopt.start_worker()');
ok(worker_in('gone'), 'a worker in a database');
$primary->safe_psql('postgres', 'DROP DATABASE gone');
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_database WHERE datname = 'gone'}), '0', 'that does not hold up the replay of its DROP');

# Promotion
my $worker = $standby->safe_psql('postgres', q{SELECT pid FROM perfopt.workers WHERE datname = 'postgres'});
$primary->stop;
$standby->promote;
is(($standby->psql('postgres', "SELECT duty_run_now('test_writes', 10000)"))[0], 0, 'after promotion it writes');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM written'), '1', 'indeed');
is($standby->safe_psql('postgres', q{SELECT pid FROM perfopt.workers WHERE datname = 'postgres'}), $worker, 'it is the same process');
$standby->safe_psql('postgres', q{ALTER DATABASE postgres SET default_transaction_read_only = on});
$standby->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
ok($standby->poll_query_until('postgres', qq{SELECT count(*) = 1 FROM perfopt.workers WHERE datname = 'postgres' AND state = 'sleeping' AND pid <> $worker}),
	'a new worker, in a read-only database');
($rc, $out, $err) = $standby->psql('postgres', "SELECT duty_run_now('test_writes', 10000)");
like($err, qr/this writes, and the server or database is read-only/, 'writes nothing');

$standby->stop;
done_testing;
