# Jobs: outcomes, limits, and every way a process can end.
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
$node->append_conf('postgresql.conf', "perfopt.max_workers = 2\nperfopt.max_jobs = 8");
$node->append_conf('postgresql.conf', "perfopt.sample_interval = 0\nperfopt.advice_interval = 0");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/$_.sql")) foreach qw(stop_points worker);
$node->safe_psql('postgres', q{CREATE ROLE alice LOGIN; CREATE ROLE nologin; CREATE SCHEMA alice AUTHORIZATION alice;
	CREATE ROLE bob LOGIN; CREATE TABLE numbers AS SELECT i FROM generate_series(1, 1000) i});
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');

# Submit and wait in one session: the outcome as "state sqlstate rows message".
sub outcome
{
	my ($args) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT job_submit($args) AS job \\gset\nSELECT job_wait(:'job')");
	return $err || $out;
}

sub jobs_are
{
	my ($expected, $name) = @_;
	ok($node->poll_query_until('postgres', q{SELECT coalesce(string_agg(state || ' ' || job, ', ' ORDER BY id), 'none') FROM perfopt.jobs},
		$expected), $name);
}

# What it runs
is(outcome(q{'CREATE TABLE alice.who AS SELECT current_user::text c, session_user::text s', 'alice'}), 'done 00000 1 ', 'a statement');
is($node->safe_psql('postgres', 'SELECT * FROM alice.who'), 'alice|alice', 'its role is the session user');
is(outcome(q{'RESET ROLE; CREATE TABLE public.evil ()', 'alice'}),
	'failed 42501 0 permission denied for schema public', 'with no role to go back to');
my $superuser = $node->safe_psql('postgres', 'SELECT current_user');
like(outcome(qq{'SET SESSION AUTHORIZATION "$superuser"', 'alice'}),
	qr/^failed 42501 0 permission denied to set session authorization/, 'nor another session user');

# It waits for every snapshot that is older, so for that of who waits for it too.
my $s = $node->background_psql('postgres', on_error_stop => 0);
my $job = $s->query_safe(q{SELECT job_submit('CREATE INDEX CONCURRENTLY numbers_i ON numbers (i)')});
jobs_are('done CREATE INDEX CONCURRENTLY numbers_i ON numbers (i)', 'CREATE INDEX CONCURRENTLY');
$s->quit;
is($node->safe_psql('postgres', q{SELECT indisvalid FROM pg_index WHERE indexrelid = 'numbers_i'::regclass}), 't', 'the index is valid');
is(outcome(q{'BEGIN; INSERT INTO numbers VALUES (0); COMMIT; VACUUM numbers; DELETE FROM numbers WHERE i <= 10'}),
	'done 00000 11 ', 'several statements');
is(outcome(q{'INSERT INTO numbers VALUES (7), (8)', entry => 'test_twice'}), 'done 00000 4 ran twice', 'a C entry');
is(outcome(q{'SELECT 1 / (current_setting(''work_mem'') = ''3MB'')::int / (current_setting(''my.own'') = ''a=b'')::int',
	settings => E'work_mem=3MB\nmy.own=a=b'}), 'done 00000 1 ', 'settings');

# How it fails
is(outcome(q{'SELECT 1/0'}), 'failed 22012 0 division by zero', 'an error');
is(outcome(q{'SELEC'}), 'failed 42601 0 syntax error at or near "SELEC"', 'a syntax error');
is(outcome(q{'BEGIN'}), 'failed 25001 0 the statement leaves a transaction open', 'a transaction left open');
is(outcome(q{'SELECT pg_sleep(600)', timeout_ms => 100}), 'failed 57014 0 canceling statement due to statement timeout', 'a timeout');
$node->safe_psql('postgres', q{CREATE FUNCTION tough() RETURNS void LANGUAGE plpgsql AS
	'BEGIN LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN END; END LOOP; END'});
is(outcome(q{'SELECT tough()', timeout_ms => 100}), 'failed 57014 0 went on after it was cancelled for taking too long',
	'one that catches its timeout');
is(outcome(q{'SELECT 1', 'alice', settings => 'log_statement=all'}), 'failed 42501 0 permission denied to set parameter "log_statement"',
	'a setting the role may not set');
is(outcome(q{'SELECT 1', settings => 'no_such_thing=1'}), 'failed 42704 0 unrecognized configuration parameter "no_such_thing"', 'an unknown one');
like(outcome(q{'SELECT 1', 4711::oid::regrole}), qr/ERROR:  42704: role with OID 4711 does not exist/, 'an unknown role');
like(outcome(q{repeat('x', 8192)}), qr/ERROR:  54000: perfopt job is too long/, 'a statement that is too long');
if ($version >= 170000)
{
	is(outcome(q{'SELECT 1', 'nologin'}), 'done 00000 1 ', 'a role without LOGIN');
}
else
{
	like(outcome(q{'SELECT 1', 'nologin'}), qr/ERROR:  28000: role "nologin" is not permitted to log in.*HINT:/s, 'a role without LOGIN is refused');
}
$node->safe_psql('postgres', q{REVOKE CONNECT ON DATABASE postgres FROM PUBLIC});
is(outcome(q{'SELECT 1', 'bob'}), 'failed 42501 0 permission denied for database "postgres"', 'a role that may not connect');
$node->safe_psql('postgres', q{GRANT CONNECT ON DATABASE postgres TO PUBLIC});
jobs_are('none', 'sessions that ended have left no job behind');

# Cancelling
$s = $node->background_psql('postgres', on_error_stop => 0);
$job = $s->query_safe(q{SELECT job_submit('SELECT pg_sleep(600)')});
jobs_are('running SELECT pg_sleep(600)', 'a job runs');
like($s->query_safe("SELECT job_wait('$job', 50)"), qr/^running/, 'waiting has an end');
$s->query_safe("SELECT job_cancel('$job')");
like($s->query_safe("SELECT job_wait('$job')"), qr/^cancelled 57014/, 'it is cancelled');
$s->query_safe("SELECT job_release('$job')");
jobs_are('none', 'and released');
like($s->query_safe("SELECT job_wait('$job')"), qr/^none/, 'its handle is of no use any more');

$s->query_safe(q{SELECT job_submit('SELECT pg_sleep(601)', cancel_with_submitter => true);
	SELECT job_submit('SELECT pg_sleep(0.7)')});
jobs_are('running SELECT pg_sleep(601), running SELECT pg_sleep(0.7)', 'two jobs run');
$s->quit;
jobs_are('none', 'the submitter leaves: one is cancelled, the other released when it has ended');

# The submitting transaction aborts
$s = $node->background_psql('postgres', on_error_stop => 0);
$s->query_safe(q{SELECT job_submit('SELECT pg_sleep(600)')});
$s->query_safe(q{BEGIN; SELECT job_submit('SELECT pg_sleep(602)', cancel_with_submitter => true)});
jobs_are('running SELECT pg_sleep(600), running SELECT pg_sleep(602)', 'one job of the transaction and one from before');
$s->query_safe('ROLLBACK');
jobs_are('running SELECT pg_sleep(600)', 'only the one of the transaction is cancelled');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND backend_type = 'perfopt job'});
jobs_are('lost SELECT pg_sleep(600)', 'a process that was terminated is lost');
is($node->safe_psql('postgres', 'SELECT sqlstate, message FROM perfopt.jobs'),
	'57P01|terminating background worker "perfopt job" due to administrator command', 'and says why');
$s->quit;
jobs_are('none', 'nothing is left');

# Limits
$s = $node->background_psql('postgres', on_error_stop => 0);
my @jobs = map { $s->query_safe("SELECT job_submit('SELECT pg_sleep(600)', capability => 'greedy')") } 1 .. 7;
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'perfopt job'}) <= 2, 1, 'perfopt.max_workers is kept');
push @jobs, $s->query_safe("SELECT job_submit('SELECT pg_sleep(603)', capability => 'modest')");
my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT job_submit('SELECT 1')");
like($err, qr/ERROR:  53400: perfopt's job queue is full.*HINT:/s, 'a full queue refuses');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM perfopt.workers WHERE kind = 'job' AND state = 'running' AND activity = 'greedy'}),
	'the greedy capability has all workers');
$s->query_safe("SELECT job_cancel('$jobs[0]')");
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.workers WHERE kind = 'job' AND state = 'running' AND activity = 'modest'}),
	'the next one goes to the other, though it came last');
is($node->safe_psql('postgres', q{SET ROLE alice; SELECT count(*), count(job), count(message), count(rolname) FROM perfopt.jobs}), '8|0|0|0',
	'an ordinary role sees that there are jobs, no more');
$s->query_safe("SELECT job_cancel('$_')") foreach @jobs;
ok($node->poll_query_until('postgres', q{SELECT count(*) = 8 FROM perfopt.jobs WHERE state = 'cancelled'}), 'queued ones are cancelled too');
$s->query_safe("SELECT job_release('$_')") foreach @jobs;

# Jobs fair to roles: one role has half the workers, and half the queue
@jobs = map { $s->query_safe("SELECT job_submit('SELECT pg_sleep(604)', 'alice', fair_to_roles => true)") } 1 .. 4;
push @jobs, $s->query_safe("SELECT job_submit('SELECT pg_sleep(605)', 'bob', fair_to_roles => true)");
jobs_are('running SELECT pg_sleep(604), queued SELECT pg_sleep(604), queued SELECT pg_sleep(604), queued SELECT pg_sleep(604), running SELECT pg_sleep(605)',
	'the later job of another role runs');
like(outcome(q{'SELECT 1', 'alice', fair_to_roles => true}), qr/ERROR:  53400: too many perfopt jobs of role "alice".*HINT:/s,
	'a role cannot fill the queue');
push @jobs, $s->query_safe("SELECT job_submit('SELECT pg_sleep(606)', 'alice')");
$s->query_safe("SELECT job_cancel('$jobs[4]')");
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.jobs WHERE state = 'running' AND job = 'SELECT pg_sleep(606)'}),
	'which does not concern its other jobs');
$s->query_safe("SELECT job_cancel('$jobs[0]')");
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.jobs WHERE state = 'running' AND job = 'SELECT pg_sleep(604)'}),
	'the next one of the role comes when one has ended');
$s->query_safe("SELECT job_cancel('$_'); SELECT job_release('$_')") foreach @jobs;
jobs_are('none', 'all of them are gone');

# 200 jobs through 8 slots
$s->query_safe(q{DO $$ DECLARE job text; BEGIN FOR i IN 1 .. 200 LOOP
	job := job_submit('SELECT 1'); ASSERT job_wait(job) LIKE 'done%'; PERFORM job_release(job); END LOOP; END $$});
jobs_are('none', 'no slot is lost after 200 jobs');

# A process ended at each point of its way, in each manner
foreach my $point (qw(job-starting job-attached job-running job-ending))
{
	foreach my $how (qw(wait error fatal))
	{
		$node->safe_psql('postgres', "SELECT stop_point_set('$point', '$how')");
		$job = $s->query_safe(q{SELECT job_submit('SELECT 1')});
		if ($how eq 'wait')
		{
			ok($node->poll_query_until('postgres', "SELECT stop_point_waiters('$point') = 1"), "stopped at $point");
			my $pid = $node->safe_psql('postgres', q{SELECT pid FROM perfopt.workers WHERE kind = 'job'});
			# before it has attached nobody knows it yet: let it go on
			if ($point eq 'job-starting') { $node->safe_psql('postgres', "SELECT stop_point_clear('$point')") }
			else { kill 'TERM', $pid }
		}
		my $expected = $point eq 'job-ending' ? qr/^done/ : $point eq 'job-starting' && $how eq 'wait' ? qr/^done/
		  : $point eq 'job-starting' ? qr/^lost/ : $point eq 'job-attached' ? qr/^failed (57P01|XX000)/
		  : $how eq 'error' ? qr/^failed XX000 0 stopped at/ : qr/^lost (57P01|XX000)/;
		like($s->query_safe("SELECT job_wait('$job', 20000)"), $expected, "$how at $point");
		$node->safe_psql('postgres', "SELECT stop_point_clear('$point')");
		$s->query_safe("SELECT job_release('$job')");
		$job = $s->query_safe(q{SELECT job_submit('SELECT 1')});
		like($s->query_safe("SELECT job_wait('$job', 20000)"), qr/^done/, 'the next job runs');
		$s->query_safe("SELECT job_release('$job')");
	}
}
jobs_are('none', 'no slot is lost');

# Cancelled on its way to the process
$node->safe_psql('postgres', "SELECT stop_point_set('job-starting', 'wait')");
$job = $s->query_safe(q{SELECT job_submit('SELECT 1')});
ok($node->poll_query_until('postgres', "SELECT stop_point_waiters('job-starting') = 1"), 'a process is on its way');
$s->query_safe("SELECT job_cancel('$job')");
$node->safe_psql('postgres', "SELECT stop_point_clear('job-starting')");
like($s->query_safe("SELECT job_wait('$job')"), qr/^cancelled/, 'it does not run what was cancelled');

# The launcher restarts in the middle of starting a job
$node->safe_psql('postgres', "SELECT stop_point_set('job-dispatch', 'fatal')");
$job = $s->query_safe(q{SELECT job_submit('SELECT 1')});
ok($node->poll_query_until('postgres', "SELECT stop_point_hits('job-dispatch') >= 1"), 'the launcher dies starting a job');
$node->safe_psql('postgres', "SELECT stop_point_clear('job-dispatch')");
like($s->query_safe("SELECT job_wait('$job', 20000)"), qr/^done/, 'the next one starts it');

# Turned off
$node->append_conf('postgresql.conf', 'perfopt.worker = off');
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT current_setting('perfopt.worker') = 'off'}), 'off');
like(outcome(q{'SELECT 1'}), qr/ERROR:  55000: perfopt's background workers are turned off/, 'then nothing is taken');

$s->quit;
$node->stop;
done_testing;
