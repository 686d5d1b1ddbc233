# Workers where little is left: databases that vanish, no room, shutdown.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
# room for two workers beside the two launchers
$node->append_conf('postgresql.conf', "perfopt.sample_interval = 0\nperfopt.advice_interval = 0\nperfopt.max_databases = 2");
$node->append_conf('postgresql.conf', "max_worker_processes = 4\nmax_parallel_workers = 0");
$node->start;
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(one two);
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/$_.sql")) foreach qw(stop_points worker);

sub workers
{
	return $node->safe_psql('postgres', q{SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_stat_activity
		WHERE backend_type = 'perfopt worker'});
}

sub workers_become
{
	my ($expected, $name) = @_;
	ok($node->poll_query_until('postgres', qq{SELECT coalesce(string_agg(a.datname, ' ' ORDER BY a.datname), 'none') = '$expected'
		FROM pg_stat_activity a JOIN perfopt.workers w USING (pid) WHERE backend_type = 'perfopt worker' AND w.state = 'sleeping'}), $name);
}

workers_become('postgres', 'one database has a worker');

# Who cancels everybody's query does not mean the launcher.
my ($launcher, $ticks) = split /\|/, $node->safe_psql('postgres', q{SELECT pid, ticks FROM perfopt.workers WHERE kind = 'launcher'});
$node->safe_psql('postgres', "SELECT pg_cancel_backend($launcher)");
ok($node->poll_query_until('postgres', qq{SELECT pid IS DISTINCT FROM $launcher OR ticks > $ticks FROM perfopt.workers WHERE kind = 'launcher'}),
	'a cancel reaches the launcher');
is($node->safe_psql('postgres', q{SELECT pid, errors FROM perfopt.workers WHERE kind = 'launcher'}), "$launcher|0", 'it has nothing to cancel');

# The server's limits are not meant for a duty, which has its own.
$node->safe_psql('postgres', q{CREATE TABLE duty_script AS SELECT 'SELECT pg_sleep(0.3)' AS script});
my $limit = $node->safe_psql('postgres', q{SELECT max(name) FROM pg_settings WHERE name IN ('statement_timeout', 'transaction_timeout')});
$node->append_conf('postgresql.conf', "$limit = 100ms");
$node->reload;
is(($node->psql('postgres', "SET $limit = 0; SELECT duty_run_now('test', 10000)"))[0], 0, "$limit does not end a duty");
$node->append_conf('postgresql.conf', "$limit = 0");
$node->reload;
$node->safe_psql('postgres', 'DROP TABLE duty_script');

# A database is dropped while the process that is to look into it is on its way.
my $log = -s $node->logfile;
$node->safe_psql('postgres', "SELECT stop_point_set('worker-starting', 'wait')");
$node->safe_psql('postgres', 'CREATE DATABASE brief');
ok($node->poll_query_until('postgres', "SELECT stop_point_waiters('worker-starting') = 1"), 'a process is on its way');
$node->safe_psql('postgres', 'DROP DATABASE brief');
$node->safe_psql('postgres', "SELECT stop_point_clear('worker-starting')");
$node->wait_for_log(qr/FATAL:  (database \d+ does not exist|cannot connect to invalid)/, $log);
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM perfopt.list_workers() WHERE kind = 'database'
	AND datid NOT IN (SELECT oid FROM pg_database)}), 'it does not find the database');
is(() = slurp_file($node->logfile, $log) =~ /FATAL:  database \d+ does not exist/g, 1, 'and nobody tries again');

# More databases with the extension than perfopt.max_databases
$node->safe_psql('one', 'CREATE EXTENSION perfopt CASCADE');
workers_become('one postgres', 'two databases have a worker');
$log = -s $node->logfile;
$node->safe_psql('two', 'CREATE EXTENSION perfopt CASCADE');
$node->wait_for_log(qr/perfopt has no room for another database.*HINT:  Raise "perfopt.max_databases", which is 2 now/s, $log);
is(workers(), 'one postgres', 'a third finds no room, and the log says so');

# No process for a job that is cancelled just then
my $s = $node->background_psql('postgres', on_error_stop => 0);
$node->safe_psql('postgres', "SELECT stop_point_set('job-dispatch', 'wait')");
my $job = $s->query_safe(q{SELECT job_submit('SELECT 1')});
ok($node->poll_query_until('postgres', "SELECT stop_point_waiters('job-dispatch') = 1"), 'a job is about to get a process');
my $began = time;
$s->query_until(qr/waiting/, "\\echo waiting\nSELECT job_wait('$job', 30000);\n");
$node->safe_psql('postgres', "SELECT job_cancel('$job')");
$node->safe_psql('postgres', "SELECT stop_point_clear('job-dispatch')");
like($s->query("SELECT 1"), qr/^cancelled 57014/, 'there is none to be had, and it has been cancelled');
cmp_ok(time - $began, '<', 10, 'who waits for it is told');
$s->quit;

$node->safe_psql('postgres', 'DROP DATABASE one');
workers_become('postgres two', 'the third has a worker as soon as there is room');

# Shutdown while a job runs: a smart one waits for clients, not for us.
$node->adjust_conf('postgresql.conf', 'max_worker_processes', 16);
$node->restart;
workers_become('postgres two', 'after a restart');
foreach my $mode (qw(smart fast))
{
	$s = $node->background_psql('postgres', on_error_stop => 0);
	$s->query_safe(q{SELECT job_submit('SELECT pg_sleep(600)')});
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.jobs WHERE state = 'running'}), 'a job runs');
	$s->quit;
	$began = time;
	$node->stop($mode);
	cmp_ok(time - $began, '<', 30, "a $mode shutdown does not wait for it");
	$node->start if $mode eq 'smart';
}

# A database where the look for the extension has to wait does not hold up the others.
$node->append_conf('postgresql.conf', 'perfopt.worker = off');
$node->start;
$s = $node->background_psql('postgres', on_error_stop => 0);
$s->query_safe('BEGIN; LOCK TABLE pg_extension IN ACCESS EXCLUSIVE MODE');
$node->append_conf('postgresql.conf', 'perfopt.worker = on');
$node->reload;
ok($node->poll_query_until('two', q{SELECT count(*) = 1 FROM pg_stat_activity JOIN perfopt.workers w USING (pid, datname)
	WHERE datname = 'two' AND w.state = 'sleeping'}), 'a database behind one that is locked has its worker');
$s->query_safe('COMMIT');
$s->quit;
$node->stop;

# Single-user mode
my ($out, $err);
my $script = "SELECT perfopt.start_worker()\nDROP EXTENSION perfopt\nCREATE EXTENSION perfopt\nDROP DATABASE two\n"
  . "SELECT count(*) AS left_over FROM pg_database WHERE datname = 'two'\n";
run_command_with_input([ 'postgres', '--single', '-D', $node->data_dir, 'postgres' ], $script);
like($out, qr/left_over = "0"/, 'single-user mode: commands on databases work without a launcher');
unlike($err, qr/ERROR|FATAL|PANIC/, 'without an error');

# A server of pg_upgrade
$node->start(fail_ok => 0);
workers_become('postgres', 'and afterwards the worker is back');
$node->stop;
$log = -s $node->logfile;
command_ok([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-w', '-o', '-b', 'start' ], 'binary upgrade mode');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'perfopt%'}), '0',
	'no process of ours in binary upgrade mode');
is($node->safe_psql('postgres', q{SELECT kind || ' ' || state FROM perfopt.list_workers()}), 'launcher waiting', 'nor the wish for one');
command_ok([ 'pg_ctl', '-D', $node->data_dir, '-w', '-m', 'fast', 'stop' ], 'stopped');

done_testing;

sub run_command_with_input
{
	my ($command, $input) = @_;
	IPC::Run::run($command, '<', \$input, '>', \$out, '2>', \$err);
	return;
}
