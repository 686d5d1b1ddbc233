# Commands that want a database for themselves do not wait for our processes.
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
$node->append_conf('postgresql.conf', "perfopt.sample_interval = 0\nperfopt.advice_interval = 0");
$node->start;
my $tablespace = PostgreSQL::Test::Utils::tempdir;
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$tablespace'");
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/$_.sql")) foreach qw(stop_points worker);
$node->safe_psql('postgres', q{CREATE ROLE owner LOGIN CREATEDB; CREATE ROLE other LOGIN CREATEDB;
	GRANT CREATE ON TABLESPACE elsewhere TO owner});

sub worker_in
{
	my ($db) = @_;
	ok($node->poll_query_until('postgres', qq{SELECT count(*) = 1 FROM pg_stat_activity JOIN perfopt.workers w USING (pid, datname)
		WHERE datname = '$db' AND w.kind = 'database' AND w.state = 'sleeping'}), "there is a worker in $db");
	return $node->safe_psql('postgres', "SELECT pid FROM perfopt.workers WHERE datname = '$db' AND kind = 'database'");
}

# A database of an ordinary role, with the extension, a worker, and a job.
sub new_database
{
	my ($db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db OWNER owner");
	$node->safe_psql($db, 'CREATE EXTENSION perfopt CASCADE');
	$node->safe_psql($db, slurp_file("$root/test/tools/worker.sql"));
	busy($db);
}

sub busy
{
	my ($db) = @_;
	worker_in($db);
	$node->safe_psql($db, "SELECT job_submit('SELECT pg_sleep(600)', role => 'owner')");
	ok($node->poll_query_until('postgres', qq{SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = '$db'
		AND backend_type = 'perfopt job' AND state = 'active'}), "and a job");
}

# Run it as the owner, and see that it is quick.
sub quick
{
	my ($command, $name) = @_;
	my $began = time;
	my ($rc, $out, $err) = $node->psql('postgres', $command, extra_params => [ '-U', 'owner' ]);
	my $took = time - $began;
	is($err, '', "$name works");
	cmp_ok($took, '<', 4, "$name is quick");
}

new_database('one');
quick('CREATE DATABASE two TEMPLATE one', 'CREATE DATABASE TEMPLATE');
worker_in('two');
busy('one');
quick('ALTER DATABASE one RENAME TO uno', 'ALTER DATABASE RENAME');
busy('uno');
quick('ALTER DATABASE uno SET TABLESPACE elsewhere', 'ALTER DATABASE SET TABLESPACE');
busy('uno');
quick('DROP DATABASE uno', 'DROP DATABASE');
new_database('three');
quick('DROP DATABASE three WITH (FORCE)', 'DROP DATABASE WITH (FORCE)');
is($node->safe_psql('postgres', q{SELECT count(*) FROM perfopt.workers WHERE datname IS NULL AND kind <> 'launcher'}),
	'0', 'no worker of a dropped database is left');

# template1, the default template
$node->safe_psql('template1', 'CREATE EXTENSION perfopt CASCADE');
my $worker = worker_in('template1');
quick('CREATE DATABASE four', 'CREATE DATABASE from template1 with a worker');
worker_in('four');
worker_in('template1');
is($node->safe_psql('postgres', 'SELECT sum(errors) FROM perfopt.workers'), '0', 'a template that made way shows no error');

# Who may not give the command does not stop anything.
$worker = worker_in('two');
foreach my $command ('DROP DATABASE two', 'DROP DATABASE two WITH (FORCE)', 'ALTER DATABASE two RENAME TO deux',
	'ALTER DATABASE two SET TABLESPACE elsewhere', 'CREATE DATABASE five TEMPLATE two')
{
	my ($rc, $out, $err) = $node->psql('postgres', $command, extra_params => [ '-U', 'other' ]);
	like($err, qr/must be owner|permission denied/, "another role: $command fails");
}
my ($rc, $out, $err) = $node->psql('two', 'DROP EXTENSION perfopt', extra_params => [ '-U', 'other' ]);
like($err, qr/must be owner of extension/, 'so does DROP EXTENSION');
is(worker_in('two'), $worker, 'and the worker has not noticed');

# A command that fails or is undone lets the worker in again.
($rc, $out, $err) = $node->psql('postgres', 'ALTER DATABASE two RENAME TO four');
like($err, qr/already exists/, 'a command fails');
isnt(worker_in('two'), $worker, 'and there is a new worker');
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN; ALTER DATABASE two RENAME TO deux');
is($node->safe_psql('postgres', q{SELECT pid, state FROM perfopt.workers WHERE datname = 'two'}), '|waiting',
	'no worker while the transaction is open');
$session->query_safe('ROLLBACK');
worker_in('two');
$session->query_safe('BEGIN; ALTER DATABASE two RENAME TO deux');
my $backend = $session->query_safe('SELECT pg_backend_pid()');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($backend)");
worker_in('two');

# A job for a database that is held waits for the hold to end.
$session = $node->background_psql('postgres');
$session->query_safe('BEGIN; ALTER DATABASE postgres SET work_mem TO DEFAULT');	# no hold: harmless
$session->query_safe('COMMIT');
my $template = $node->background_psql('postgres');
$node->safe_psql('postgres', q{SELECT stop_point_set('job-dispatch', 'wait')});
$template->query_safe('BEGIN; ALTER DATABASE four RENAME TO vier');
$node->psql('two', slurp_file("$root/test/tools/worker.sql"));
my $job = $node->safe_psql('two', q{SELECT job_submit('SELECT 1')});
ok($node->poll_query_until('postgres', q{SELECT stop_point_waiters('job-dispatch') = 1}), 'the launcher stops at a stop point');
$template->query_safe('COMMIT');
$node->safe_psql('postgres', q{SELECT stop_point_clear('job-dispatch')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM perfopt.jobs WHERE state <> 'done'}), 'and goes on');
worker_in('vier');

$template->quit;
$session->quit;
$node->stop;
done_testing;
