# Applying advice when things end badly: processes killed, the server crashed
# in each state, roles that may not, locks.  Each time no invalid index is
# left, the status tells the truth, and it can be asked for again.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Restarted;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf',
	"perfopt.advice_interval = 0\nperfopt.apply_attempts = 1\nperfopt.sample_interval = 0\nautovacuum = off\nrestart_after_crash = on\nperfopt.max_jobs = 2");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/$_.sql")) foreach qw(stop_points worker);
my $insert = q{INSERT INTO perfopt.advice_item
	(kind, schema_name, table_name, definition, index_name, ddl, reason, evidence, estimated_bytes, status)
	VALUES ('create_index', 'public', 't', 'USING btree (%s)', 'i', 'CREATE INDEX', 'r', '{}', 1, 'open') RETURNING id};
$node->safe_psql('postgres', q{
	CREATE ROLE owner LOGIN; CREATE ROLE nologin; GRANT CREATE ON SCHEMA public TO owner;
	SET ROLE owner; CREATE TABLE t (a int, b int)});
my $id = $node->safe_psql('postgres', sprintf $insert, 'a');
my $second = $node->safe_psql('postgres', sprintf $insert, 'b');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub wait_until
{
	my ($sql, $name) = @_;
	ok($node->poll_query_until('postgres', $sql), $name);
}

sub ask
{
	my ($advice, $role) = @_;
	$role ||= 'owner';
	like(sql("SET ROLE $role; SELECT perfopt.apply_advice($advice)"), qr/^queued/, 'asked for');
}

# A new worker would look after ten seconds.
sub wake_worker
{
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.workers WHERE kind = 'database' AND state = 'sleeping'});
	sql(q{SELECT duty_wake('apply')});
}

# The end of an advice: its status, and what is there to show for it.
sub ends_as
{
	my ($advice, $expected, $name) = @_;
	wake_worker();
	$node->poll_query_until('postgres', "SELECT status IN ('applied', 'failed') FROM perfopt.advice WHERE id = $advice");
	is(sql("SELECT concat_ws(': ', status, error) FROM perfopt.advice WHERE id = $advice"), $expected, $name);
	my ($built, $left) = split /\|/, sql(q{SELECT count(*) FILTER (WHERE indisvalid AND indisready AND indislive),
		count(*) FILTER (WHERE NOT (indisvalid AND indisready AND indislive))
		FROM pg_index WHERE indrelid = 't'::regclass AND indkey[0] = }
		. "(SELECT attnum FROM pg_attribute a JOIN perfopt.advice_item i ON i.definition = 'USING btree (' || a.attname || ')' WHERE id = $advice AND attrelid = 't'::regclass)");
	is($left, 0, '... no invalid index is left');
	is($built, $expected =~ /^applied/ ? 1 : 0, '... and a valid one if it says so');
}

sub start_over
{
	sql('DROP INDEX IF EXISTS t_a_idx, t_b_idx');
	sql("UPDATE perfopt.advice_item SET status = 'open', error = NULL");
}

# It works when asked for again
sub again
{
	ask($id);
	ends_as($id, 'applied', 'asked for again, it is built');
	start_over();
}

# A build that waits for a transaction that has written the table
my ($writer, $job);
sub start_build
{
	$writer = $node->background_psql('postgres');
	$writer->query_safe('BEGIN; INSERT INTO t VALUES (1, 1)');
	ask($id);
	wait_until(q{SELECT count(*) = 1 FROM pg_index i JOIN pg_stat_activity s ON s.backend_type = 'perfopt job' AND s.wait_event_type = 'Lock'
		WHERE NOT i.indisvalid AND i.indrelid = 't'::regclass}, 'a build is under way');
	$job = sql(q{SELECT pid FROM perfopt.workers WHERE kind = 'job'});
}

# What the worker has committed reaches the disk with our own commit, if not before.
sub flush { sql('SELECT pg_switch_wal()'); }
sub crash
{
	flush();
	$node->stop('immediate');
	eval { $writer->quit } if $writer;
	$node->start;
}

# All sessions go with it; the writer's not before the others.
sub kill_process
{
	my ($pid) = @_;
	my $session = $writer->query_safe('SELECT pg_backend_pid()');
	kill 'KILL', $pid;
	ok(wait_for_restart($node, $pid, $session), 'the server has restarted');
	eval { $writer->quit };
}
my $interrupted = 'failed: the index build was interrupted';

# kill -9 of the job, with another advice waiting behind it
start_build();
ask($second);
flush();
kill_process($job);
ends_as($id, $interrupted, 'kill -9 of the build');
wait_until("SELECT status = 'applied' FROM perfopt.advice WHERE id = $second", 'the one queued behind it is built');
start_over();
again();

# kill -9 of the worker that looks after it
start_build();
flush();
kill_process(sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'perfopt worker'}));
ends_as($id, $interrupted, 'kill -9 of the worker');

# The worker is terminated and comes back; the build goes on meanwhile.
start_over();
start_build();
my $worker = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'perfopt worker'});
sql("SELECT pg_terminate_backend($worker)");
wait_until("SELECT count(*) = 1 FROM perfopt.workers WHERE kind = 'database' AND pid <> $worker AND state = 'sleeping' AND ticks > 0", 'a new worker');
is(sql("SELECT status FROM perfopt.advice WHERE id = $id"), 'applying', 'which does not take the build for interrupted');
$writer->query_safe('COMMIT');
$writer->quit;
ends_as($id, 'applied', 'a build outlives the worker that began it');
start_over();

# A crash of the server in each state: queued,
sql('ALTER SYSTEM SET perfopt.worker = off');
$node->reload;
wait_until(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'perfopt worker'}, 'no worker');
ask($id);
is(sql("SELECT status FROM perfopt.advice WHERE id = $id"), 'queued', 'it waits');
sql('ALTER SYSTEM RESET perfopt.worker');
crash();
ends_as($id, 'applied', 'a crash while it is queued: built afterwards');
start_over();

# applying, before there is a job,
sql(q{SELECT stop_point_set('apply-submit', 'wait')});
ask($id);
wait_until(q{SELECT stop_point_waiters('apply-submit') = 1}, 'about to submit the job');
is(sql("SELECT status FROM perfopt.advice WHERE id = $id"), 'applying', 'it says applying');
crash();
ends_as($id, $interrupted, 'a crash before there is a job');
start_over();

# (in the middle of the build: see 051_advice.pl,) after the build,
sql(q{SELECT stop_point_set('job-ending', 'wait')});
ask($id);
wait_until(q{SELECT stop_point_waiters('job-ending') = 1}, 'the index is built, its job has not ended');
crash();
ends_as($id, 'applied', 'a crash when the index is there and nobody knows');
start_over();

# and while the invalid index is being dropped.
start_build();
sql("SELECT pg_terminate_backend($job)");
my $dropping = q{FROM pg_stat_activity WHERE backend_type = 'perfopt job' AND query LIKE 'DROP INDEX%' AND wait_event_type = 'Lock'};
wait_until("SELECT count(*) = 1 $dropping", 'a drop is under way');
my $drop = sql("SELECT pid $dropping");
sql("SELECT pg_cancel_backend($drop)");
wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $drop", 'it is cancelled');
# woken as long as there is no other drop
ok($node->poll_query_until('postgres', "SELECT count(duty_wake('apply')) = 0 FROM (SELECT count(*) AS n $dropping AND pid <> $drop) d WHERE n = 0"),
	'and tried again');
crash();
ends_as($id, 'failed: terminating background worker "perfopt job" due to administrator command',
	'a crash in the middle of cleaning up; the first error is kept');
again();

# A drop that fails again and again keeps nobody waiting.
sql('SET ROLE owner; CREATE TABLE other (a int)');
my $others = sql(sprintf $insert =~ s/'t'/'other'/r, 'a');
start_build();
sql(q{ALTER ROLE owner SET lock_timeout = '100ms'});
sql("SELECT pg_terminate_backend($job)");
wait_until(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'perfopt job' AND query LIKE 'DROP INDEX%'}, 'a drop is under way');
ask($others);
wait_until("SELECT status = 'applied' FROM perfopt.advice WHERE id = $others", 'another index is built meanwhile');
is(sql("SELECT status FROM perfopt.advice WHERE id = $id"), 'applying', 'while the invalid one is there still');
sql('ALTER ROLE owner RESET lock_timeout');
$writer->query_safe('COMMIT');
$writer->quit;
ends_as($id, 'failed: terminating background worker "perfopt job" due to administrator command', 'and dropped in the end');
sql('DROP TABLE other; DELETE FROM perfopt.advice_item WHERE id = ' . $others);
again();

# Signals
foreach my $how ([ 'pg_terminate_backend', 'terminating background worker "perfopt job" due to administrator command' ],
	[ 'pg_cancel_backend', 'canceling statement due to user request' ])
{
	start_build();
	sql("SELECT $how->[0]($job)");
	wait_until("SELECT error IS NOT NULL FROM perfopt.advice WHERE id = $id", 'the error is there while it cleans up');
	$writer->query_safe('COMMIT');
	$writer->quit;
	ends_as($id, "failed: $how->[1]", $how->[0]);
}
again();

# Two transactions that have written; one of them waits for the build, which
# waits for the other, then for it.
sql(q{ALTER ROLE owner SET deadlock_timeout = '1ms'});
my %session;
foreach (1 .. 2)
{
	my $s = $node->background_psql('postgres', on_error_stop => 0);
	$session{ $s->query_safe('SELECT pg_backend_pid()') } = $s;
	$s->query_safe(q{SET deadlock_timeout = '1h'; BEGIN; INSERT INTO t VALUES (2, 2)});
}
ask($id);
wait_until(q{SELECT cardinality(pg_blocking_pids(pid)) = 1 FROM pg_stat_activity WHERE backend_type = 'perfopt job'}, 'it waits for one of them');
my $first = sql(q{SELECT (pg_blocking_pids(pid))[1] FROM pg_stat_activity WHERE backend_type = 'perfopt job'});
my ($other) = grep { $_ != $first } keys %session;
$session{$other}->query_until(qr/locking/, "\\echo locking\nLOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE;\n");
wait_until("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $other", 'the other waits for the build');
$session{$first}->query_safe('COMMIT');
wait_until("SELECT error = 'deadlock detected' FROM perfopt.advice WHERE id = $id", 'a deadlock');
$session{$other}->query_safe('COMMIT');
$_->quit foreach values %session;
ends_as($id, 'failed: deadlock detected', 'a build that is in a deadlock');
sql('ALTER ROLE owner RESET deadlock_timeout');
again();

# Roles that have gone, can not log in, or own the table no longer
sql('ALTER TABLE t OWNER TO nologin; GRANT CREATE ON SCHEMA public TO nologin');
ask($id, 'nologin');
ends_as($id, 'applied', 'a role without LOGIN');
is(sql(q{SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 't_a_idx'}), 'nologin', '... whose index it is');
start_over();
sql(q{SELECT stop_point_set('apply-submit', 'wait')});
ask($id, 'nologin');
wait_until(q{SELECT stop_point_waiters('apply-submit') = 1}, 'about to submit the job');
sql(q{ALTER TABLE t OWNER TO owner; SELECT stop_point_clear('apply-submit')});
ends_as($id, 'failed: must be owner of table t', 'who owns the table no longer gets nothing');
sql(q{SELECT stop_point_set('apply-submit', 'wait'); ALTER TABLE t OWNER TO nologin});
ask($id, 'nologin');
wait_until(q{SELECT stop_point_waiters('apply-submit') = 1}, 'about to submit the job');
sql(q{ALTER TABLE t OWNER TO owner; DROP OWNED BY nologin; DROP ROLE nologin; SELECT stop_point_clear('apply-submit')});
$node->poll_query_until('postgres', "SELECT status = 'failed' FROM perfopt.advice WHERE id = $id");
like(sql("SELECT error FROM perfopt.advice WHERE id = $id"), qr/^role .* does not exist$/, 'a role that is gone');
again();

is(sql(q{SELECT count(*) FROM perfopt.jobs}), '0', 'no job is left');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|perfopt duty .* failed/, 'no duty has failed');

$node->stop;
done_testing();
