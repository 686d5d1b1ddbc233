# run_in_batches() is killed again and again while others write: each row is
# done exactly once, and a job that was running goes on by itself.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Restarted;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $rows = 5_000;
my $node = PostgreSQL::Test::Cluster->new('chunks_crash');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "perfopt.batch_job_interval = 100\nrestart_after_crash = on\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/stop_points.sql"));
$node->safe_psql('postgres', qq{
	CREATE ROLE alice LOGIN;
	GRANT CREATE ON SCHEMA public TO alice;
	SET ROLE alice;
	CREATE TABLE t (a int, b text, n int DEFAULT 0, w int DEFAULT 0, PRIMARY KEY (b, a));
	INSERT INTO t SELECT i, 'k' || i % 100 FROM generate_series(1, $rows) i;
	CREATE TABLE audit (a int, n int);
	CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN
		INSERT INTO audit VALUES (NEW.a, NEW.n);
		PERFORM pg_sleep(0.0002);	-- a millisecond, at the least
		IF NEW.a IN (1234, 4900) AND current_setting('app.strict', true) = 'yes' THEN
			RAISE EXCEPTION 'not %', NEW.a;
		END IF;
		RETURN NULL;
	END \$\$;
	CREATE TRIGGER audit AFTER UPDATE OF n ON t FOR EACH ROW EXECUTE FUNCTION audit()});

sub as_alice { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'alice' ]); }
sub wait_until { ok($node->poll_query_until('postgres', $_[0]), $_[1]); }

# Others, who write all the time
my $writer = "$PostgreSQL::Test::Utils::tmp_check/writer_$$.sql";
append_to_file($writer, qq{\\set a random(1, $rows)
UPDATE t SET w = w + 1 WHERE a = :a AND b = 'k' || :a % 100;
INSERT INTO t VALUES (:a + 1000000, 'k' || :a % 100, -1) ON CONFLICT DO NOTHING;
DELETE FROM t WHERE a = :a + 1000000 AND b = 'k' || :a % 100 AND :a % 3 = 0;
});
my $go_on = "$writer.go_on";
append_to_file($go_on, '');
my $writers = IPC::Run::start(
	[ 'sh', '-c', "while [ -e $go_on ]; do pgbench -n -h " . $node->host . ' -p ' . $node->port .
		" -U alice -c 2 -T 2 -f $writer postgres; sleep 0.2; done" ],	# while there is no server
	'>', \my $writers_out, '2>', \my $writers_err, IPC::Run::timeout(600));

# A process at work on the job
my $at_work = q{SELECT pid FROM pg_locks WHERE locktype = 'object' AND classid = 'perfopt.batch_job'::regclass LIMIT 1};
my $done = 'SELECT count(*) FROM perfopt.batch_chunk WHERE state = \'done\' AND job = ';

sub all_is_done
{
	my ($what, $failed, $job) = @_;
	wait_until("SELECT state = 'done' FROM perfopt.batch_jobs WHERE id = $job", "$what: it is done in the end");
	is(as_alice("SELECT count(*) FROM t WHERE a <= $rows AND n = (SELECT max(n) FROM t)"), $rows - $failed, "$what: each row once");
	is(as_alice("SELECT count(*), count(DISTINCT a) FROM audit WHERE a <= $rows AND n = (SELECT max(n) FROM t)"),
		($rows - $failed) . '|' . ($rows - $failed), "$what: also by the audit");
	is(as_alice("SELECT count(*) FROM t WHERE a <= $rows"), $rows, "$what: all are there");
}
my $start = q{CALL perfopt.run_in_batches('t', set_list => 'n = n + 1', batch_size => 50, workers => 3, chunk_duration => '1 ms', };

# At each point of a chunk's way, in the background
my $job;
my @jobs;
foreach my $point (qw(batch-chunk-split batch-chunk-cut batch-chunk-taken batch-chunk-ran batch-chunk-commit batch-chunk-cut batch-chunk-commit))
{
	my $background = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'perfopt launcher'});
	# paused, so that it is not over before the point is set; a fast machine
	# may be done with the last one
	unless (@jobs && $node->safe_psql('postgres',
			"UPDATE perfopt.batch_job SET state = 'paused' WHERE id = $job AND state IN ('running', 'paused') RETURNING id") ne '')
	{
		push @jobs, $job = as_alice("BEGIN; SET app.strict = 'yes'; $start wait => false);
			UPDATE perfopt.batch_job SET state = 'paused' WHERE id = (SELECT max(id) FROM perfopt.batch_job); COMMIT");
	}
	$node->safe_psql('postgres', "SELECT stop_point_set('$point', 'kill')");
	# who is still at work may come to the point before
	psql_if_there($node, "SELECT perfopt.batch_resume($job)");
	ok(wait_for_restart($node, $background), "killed at $point");
}
$node->stop('immediate');
$node->start;
# a chunk that was at work each time has been set aside
$node->psql('postgres', "SELECT perfopt.batch_resume($job)");
foreach (@jobs)
{
	wait_until("SELECT state = 'done' FROM perfopt.batch_jobs WHERE id = $_", 'after all of that it comes to its end');
	as_alice("SELECT perfopt.batch_resume($_, true)")
	  if as_alice("SELECT count(*) FROM perfopt.batch_failed_chunks WHERE job = $_ AND sqlstate = '58000'") > 0;
	wait_until("SELECT state = 'done' FROM perfopt.batch_jobs WHERE id = $_", 'with what was set aside');
}
all_is_done('in the background', 2, $job);
is(as_alice("SELECT lower_bound, upper_bound, message FROM perfopt.batch_failed_chunks WHERE job = $job ORDER BY 1"),
	"{k0,4900}|{k0,4900}|not 4900\n{k34,1234}|{k34,1234}|not 1234", 'the failing rows are set aside, exactly');
as_alice('ALTER TABLE t DISABLE TRIGGER audit; UPDATE t SET n = (SELECT max(n) FROM t); ALTER TABLE t ENABLE TRIGGER audit; TRUNCATE audit');

# The session that called is killed, with helpers and alone
foreach my $workers (3, 1)
{
	(my $call = $start) =~ s/workers => \d/workers => $workers/;
	my $session = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', 'alice' ]);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_until(qr/begun/, "\\echo begun\n$call wait => true);\n");
	wait_until("SELECT count(*) > 5 FROM perfopt.batch_chunk WHERE state = 'done' AND job > $job", 'it is at work');
	$job = as_alice('SELECT max(id) FROM perfopt.batch_jobs');
	if ($workers == 3)
	{
		kill 'KILL', $pid;
		ok(wait_for_restart($node, $pid), 'kill -9 of the session');
	}
	else
	{
		# no crash: the job is left to others
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	}
	eval { $session->quit };
	all_is_done("session with $workers workers", 0, $job);
}

# A chunk that kills whoever works at it is set aside
as_alice('CREATE TABLE poison (id int PRIMARY KEY, n int); INSERT INTO poison SELECT i, 0 FROM generate_series(1, 10) i');
for (1 .. 3)
{
	my $background = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'perfopt launcher'});
	$node->safe_psql('postgres', q{SELECT stop_point_set('batch-chunk-taken', 'kill')});
	$job = as_alice(q{CALL perfopt.run_in_batches('poison', set_list => 'n = n + 1', workers => 2, wait => false)}) if $_ == 1;
	ok(wait_for_restart($node, $background), "killed for the $_. time");
}
wait_until("SELECT state = 'done' FROM perfopt.batch_jobs WHERE id = $job", 'it is over');
is(as_alice("SELECT lower_bound, upper_bound, sqlstate, message FROM perfopt.batch_failed_chunks WHERE job = $job"),
	'{1}|{10}|58000|the server has crashed or was stopped 3 times while this was at work', '... and the chunk is set aside');
as_alice("SELECT perfopt.batch_resume($job, true); CALL perfopt.batch_wait($job)");
is(as_alice('SELECT n, count(*) FROM poison GROUP BY 1'), '1|10', '... and can be tried again');

unlink $go_on;
$writers->finish;
cmp_ok(as_alice("SELECT sum(w) FROM t"), '>', 0, 'others have written meanwhile');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE classid = 'perfopt.batch_job'::regclass}), 0, 'no lock is left');
$node->stop;
done_testing();
