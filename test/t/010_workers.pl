# The launcher and the workers of databases: found, lost, restarted.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Restarted;
use Test::More;
use Time::HiRes qw(time);

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "perfopt.sample_interval = 0\nperfopt.advice_interval = 0\nperfopt.cache_write_interval = 0\nrestart_after_crash = on");
$node->start;

sub create_in
{
	my ($db) = @_;
	$node->safe_psql($db, 'CREATE EXTENSION perfopt CASCADE');
	$node->safe_psql($db, slurp_file("$root/test/tools/$_.sql")) foreach qw(stop_points worker);
}

# Processes as the server sees them, not as perfopt.workers says.
sub pid_of
{
	my ($type, $db) = @_;
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'perfopt $type'"
		  . ($db ? " AND datname = '$db'" : ''));
}

sub wait_for_worker
{
	my ($db, $name, $other_than) = @_;
	ok($node->poll_query_until('postgres', sprintf(
			q{SELECT count(*) = 1 FROM pg_stat_activity JOIN perfopt.workers w USING (pid, datname)
			WHERE backend_type = 'perfopt worker' AND datname = '%s' AND w.state = 'sleeping' AND pid <> %s},
			$db, $other_than || 0)), $name);
	return pid_of('worker', $db);
}

my ($rc, $out, $err);

# Found
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_extension WHERE extname = 'perfopt'"), '0',
	'no extension at first');
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('postgres', 'CREATE DATABASE without');
create_in('postgres');
wait_for_worker('postgres', 'a worker comes after CREATE EXTENSION');
create_in('other');
wait_for_worker('other', 'and in another database');
is(pid_of('worker', 'without'), '', 'but not where the extension is not');
$node->safe_psql('postgres', "CREATE DATABASE copy TEMPLATE other");
my $worker = wait_for_worker('copy', 'a database made from a template that has it has a worker');

$node->safe_psql('without', 'BEGIN; CREATE EXTENSION perfopt CASCADE; ROLLBACK');
is(pid_of('worker', 'without'), '', 'a CREATE EXTENSION rolled back starts nothing');

# Duties
is(($node->psql('copy', "SELECT duty_run_now('test', 10000)"))[0], 0, 'a duty runs when asked');
$node->safe_psql('copy', q{CREATE TABLE duty_script (script text);
	CREATE TABLE seen (who text, path text, xact text);
	INSERT INTO duty_script VALUES ('INSERT INTO public.seen SELECT current_user, current_setting(''search_path''),
		current_setting(''lock_timeout'') || '' '' || current_setting(''synchronous_commit'')')});
$node->safe_psql('copy', "SELECT duty_run_now('test_writes', 10000)");
is($node->safe_psql('copy', 'SELECT * FROM seen'),
	$node->safe_psql('copy', "SELECT extowner::regrole FROM pg_extension WHERE extname = 'perfopt'")
	  . '|pg_catalog, pg_temp|1s off', 'as the owner of the extension, with settings of its own');

$node->safe_psql('copy', "DELETE FROM seen; BEGIN; SELECT duty_wake('test_writes'); ROLLBACK");
$node->safe_psql('copy', "SELECT duty_run_now('test', 10000)");
is($node->safe_psql('copy', 'SELECT count(*) FROM seen'), '1', 'a wake-up rolled back wakes nobody');
$node->safe_psql('copy', "SELECT duty_wake('test_writes')");
ok($node->poll_query_until('copy', 'SELECT count(*) = 2 FROM seen'), 'a wake-up committed does');

# A duty that works for long rests, and brief ones are run meanwhile
$node->safe_psql('copy', q{CREATE TABLE done (); UPDATE duty_script SET script = 'SELECT NOT EXISTS (SELECT FROM public.done), pg_sleep(0.12)'});
my $resting = $node->background_psql('copy', on_error_stop => 0);
$resting->query_until(qr/asked/, "\\echo asked\nSELECT duty_run_now('test', 60000);\n");
ok($node->poll_query_until('copy', "SELECT activity = 'test' FROM perfopt.workers WHERE datname = 'copy'"), 'a duty runs that takes long');
is(($node->psql('copy', q{SET statement_timeout = '10s'; SELECT perfopt.sample_now()}))[0], 0, '... a brief one does not wait for it');
ok($node->poll_query_until('copy', "SELECT activity = 'test' FROM perfopt.workers WHERE datname = 'copy'"), '... which goes on');
$node->safe_psql('copy', 'INSERT INTO done DEFAULT VALUES');
ok($node->poll_query_until('copy', "SELECT activity IS DISTINCT FROM 'test' FROM perfopt.workers WHERE datname = 'copy'"), '... to its end');
$resting->quit;

# Errors of a duty
my $log = -s $node->logfile;
$node->safe_psql('copy', "UPDATE duty_script SET script = 'SELECT 1/0'");
foreach (1 .. 3)
{
	($rc, $out, $err) = $node->psql('copy', "\\set VERBOSITY verbose\nSELECT duty_run_now('test', 10000)");
	like($err, qr/ERROR:  22012: division by zero/, 'its error comes to who asked');
}
is($node->safe_psql('copy', q{SELECT pid, errors, last_error, last_error_at > now() - '1 minute'::interval
	FROM perfopt.workers WHERE datname = 'copy'}), "$worker|3|test: division by zero|t",
	'and is shown; the worker is the same');
is(() = slurp_file($node->logfile, $log) =~ /perfopt duty "test" failed/g, 1, 'the log has it once');
$node->safe_psql('copy', q{SELECT stop_point_set('duty-begun', 'error')});
($rc, $out, $err) = $node->psql('copy', "SELECT duty_run_now('test', 10000)");
like($err, qr/stopped at "duty-begun"/, 'an error before the duty begins is handled too');
$node->safe_psql('copy', q{SELECT stop_point_clear('duty-begun'); DELETE FROM duty_script});
$node->safe_psql('copy', "SELECT duty_run_now('test', 10000)");
is(pid_of('worker', 'copy'), $worker, 'it goes on afterwards');

$node->safe_psql('copy', q{INSERT INTO duty_script VALUES ('SELECT pg_sleep(600)')});
my $began = time;
($rc, $out, $err) = $node->psql('copy', "SELECT duty_run_now('test', 200)");
like($err, qr/was not done within 200 ms/, 'waiting for a duty has an end');
$node->safe_psql('copy', "SELECT pg_cancel_backend($worker)");
ok($node->poll_query_until('copy', q{SELECT last_error = 'test: canceling statement due to user request' AND state = 'sleeping'
	FROM perfopt.workers WHERE datname = 'copy'}), 'a duty can be cancelled, the worker stays');
cmp_ok(time - $began, '<', 20, 'at once');
$node->safe_psql('copy', 'DELETE FROM duty_script');

# Who sees what
$node->safe_psql('copy', q{CREATE ROLE plain LOGIN; CREATE ROLE stats LOGIN; GRANT pg_monitor TO stats});
is($node->safe_psql('copy', q{SET ROLE plain; SELECT count(*), count(last_error) FROM perfopt.workers WHERE datname = 'copy'}),
	'1|0', 'an ordinary role sees the worker, not its error');
is($node->safe_psql('copy', q{SET ROLE stats; SELECT count(last_error) FROM perfopt.workers WHERE datname = 'copy'}),
	'1', 'pg_monitor does');
($rc, $out, $err) = $node->psql('copy', 'SET ROLE plain; SELECT perfopt.start_worker()');
like($err, qr/permission denied for function start_worker/, 'start_worker() is not for everybody');

# Memory
sub memory
{
	my $offset = -s $node->logfile;
	$node->safe_psql('copy', "SELECT pg_log_backend_memory_contexts($worker)");
	my $total;
	foreach (1 .. 100)
	{
		$node->safe_psql('copy', "SELECT duty_run_now('test', 10000)");	# it logs between two ticks
		($total) = slurp_file($node->logfile, $offset) =~ /\[$worker\] LOG:  Grand total: (\d+) bytes/ and last;
	}
	return $total;
}
$node->safe_psql('copy', "SELECT duty_run_now('test', 10000) FROM generate_series(1, 20)");
my $before = memory();
$node->safe_psql('copy', "SELECT duty_run_now('test', 10000) FROM generate_series(1, 500)");
my $after = memory();
cmp_ok($before, '>', 0, 'memory was measured');
is($after, $before, 'memory after 500 ticks is what it was before');
cmp_ok($node->safe_psql('copy', "SELECT cpu_ms FROM perfopt.workers WHERE datname = 'copy'"), '>', 0, 'CPU time is shown');

# Signals
$node->append_conf('postgresql.conf', 'perfopt.worker = off');
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'perfopt worker'}),
	'perfopt.worker = off stops all');
($rc, $out, $err) = $node->psql('copy', "\\set VERBOSITY verbose\nSELECT duty_run_now('test', 10000)");
like($err, qr/ERROR:  55000: .*not running.*HINT:  Set "perfopt.worker" to on/s, 'who asks then is told');
$node->append_conf('postgresql.conf', 'perfopt.worker = on');
$node->reload;
$worker = wait_for_worker($_, "on starts $_ again") foreach qw(postgres other copy);

my $launcher = pid_of('launcher');
my $errors = $node->safe_psql('copy', "SELECT errors FROM perfopt.workers WHERE datname = 'copy'");
my $log_end = -s $node->logfile;
$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
my $restarted = wait_for_worker('copy', 'a worker that was terminated comes back', $worker);
is($node->safe_psql('copy', "SELECT errors FROM perfopt.workers WHERE datname = 'copy'"), $errors,
	'with nothing to do, that was no error');
unlike(slurp_file($node->logfile, $log_end), qr/FATAL/, 'nor is it in the log as one');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'perfopt launcher' AND pid <> $launcher"),
	'so does the launcher');
is(pid_of('worker', 'copy'), $restarted, 'workers live through that');
$node->safe_psql('without', 'CREATE EXTENSION perfopt CASCADE');
wait_for_worker('without', 'the new launcher works');

# DROP EXTENSION
$node->safe_psql('copy', "SELECT stop_point_set('duty-begun', 'wait'); CREATE EXTENSION IF NOT EXISTS plpgsql");
my $asking = $node->background_psql('copy', on_error_stop => 0);
$asking->query_until(qr/asked/, "\\echo asked\nSELECT duty_run_now('test', 60000);\n");
ok($node->poll_query_until('copy', "SELECT stop_point_waiters('duty-begun') = 1"), 'a duty is in its transaction');
$began = time;
$node->safe_psql('copy', 'DROP EXTENSION perfopt');
cmp_ok(time - $began, '<', 4, 'DROP EXTENSION does not wait for it');
$node->safe_psql('copy', "SELECT stop_point_clear('duty-begun')");
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM perfopt.workers WHERE datname = 'copy'"),
	'the worker has gone with the extension');
eval { $asking->quit };
$node->safe_psql('copy', 'CREATE EXTENSION perfopt');
wait_for_worker('copy', 'and comes back with it');
$log = -s $node->logfile;
$node->safe_psql('copy', 'DROP SCHEMA perfopt CASCADE; DROP EXTENSION pg_stat_statements CASCADE');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM perfopt.workers WHERE datname = 'copy'"),
	'it notices when the extension goes another way');
unlike(slurp_file($node->logfile, $log), qr/perfopt duty .* failed/, 'without noise');

# Crash and restart
$worker = pid_of('worker', 'other');
kill 'KILL', $worker;
ok(wait_for_restart($node, $worker), 'the server is back after kill -9');
wait_for_worker('other', 'and so is the worker', $worker);
$node->restart;
wait_for_worker($_, "$_ has its worker after a restart") foreach qw(postgres other without);
is(pid_of('worker', 'copy'), '', 'but not copy, which has no extension');

# Limits
$node->append_conf('postgresql.conf', "max_worker_processes = 3\nmax_parallel_workers = 0\nperfopt.max_databases = 2");
$log = -s $node->logfile;
$node->restart;
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'perfopt worker'}),
	'one worker finds room');
$node->wait_for_log(qr/perfopt could not start a background worker.*HINT:  Raise "max_worker_processes"/s, $log);
$node->adjust_conf('postgresql.conf', 'max_worker_processes', 16);
$log = -s $node->logfile;
$node->restart;
$node->wait_for_log(qr/perfopt has no room for another database.*HINT:  Raise "perfopt.max_databases", which is 2 now/s, $log);
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'perfopt worker'}), '2',
	'perfopt.max_databases is kept');

$node->stop;
done_testing;
