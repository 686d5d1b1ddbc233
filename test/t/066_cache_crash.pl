# The result cache when processes die: who computes, who waits for him, and
# perfopt's worker.  Each time the next session gets the right answer at once,
# and no lock is left.
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
$node->append_conf('postgresql.conf', "autovacuum = off\nrestart_after_crash = on\nperfopt.advice_interval = 0\nperfopt.sample_interval = 0");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/stop_points.sql"));
$node->safe_psql('postgres', q{
	CREATE TABLE t (id integer PRIMARY KEY, n integer);
	INSERT INTO t SELECT i, i FROM generate_series(1, 100) i;
	SELECT perfopt.cache_track('t', '{id}')});

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub wait_until
{
	my ($sql, $name) = @_;
	ok($node->poll_query_until('postgres', $sql), $name);
}

my $query = q{SELECT perfopt.cached_json('SELECT sum(n) AS s FROM t')};
my $direct = q{SELECT jsonb_agg(to_jsonb(x)) FROM (SELECT sum(n) AS s FROM t) x};
sub hits { return sql('SELECT hits FROM perfopt.cache_stats'); }

# A session that is left alone with a statement
my @sessions;
sub begin_query
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_until(qr/begun/, "\\echo begun\n$query;\n");
	push @sessions, $session;
	return $pid;
}
sub forget_sessions
{
	eval { $_->quit } foreach @sessions;
	@sessions = ();
}

# All sessions go with it.
sub has_restarted
{
	my ($pid) = @_;
	ok(wait_for_restart($node, $pid), 'the server has restarted');
	forget_sessions();
}

# What has to hold after each
sub all_is_well
{
	my ($what) = @_;
	# no more than a look at whether somebody computes it: far from the time a
	# lease left behind would take
	is(sql("SET statement_timeout = '5s'; $query"), sql($direct), "$what: the next one gets the right answer");
	my $before = hits();
	is(sql($query), sql($direct), '... and the one after it');
	cmp_ok(hits(), '>', $before, '... from the cache');
	sql('UPDATE t SET n = n + 1 WHERE id = 1');
	is(sql($query), sql($direct), '... and it notices who writes');
	is(sql(q{SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid() AND locktype <> 'virtualxid'
		AND pid IN (SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend')}), 0, '... no lock is left');
	is(sql(q{SELECT s.entries = e.entries AND s.bytes >= e.bytes AND s.bytes <= s.size_limit
		FROM perfopt.cache_stats s, (SELECT count(*) AS entries, coalesce(sum(bytes), 0) AS bytes FROM perfopt.cache_entries) e}),
		't', '... and what the cache holds adds up');
}
all_is_well('before anything happened');

# kill -9 of a backend that computes, and of one about to publish
foreach my $point ('cache-compute', 'cache-publish')
{
	sql("UPDATE t SET n = n + 1 WHERE id = 2; SELECT stop_point_set('$point', 'wait')");
	my $pid = begin_query();
	wait_until("SELECT stop_point_waiters('$point') = 1", "a backend stands at $point");
	kill 'KILL', $pid;
	has_restarted($pid);
	is(sql("SELECT stop_point_hits('$point')"), 0, 'with empty shared memory');
	is(sql('SELECT entries || \' \' || bytes FROM perfopt.cache_stats'), '0 0', 'and an empty cache');
	all_is_well("kill -9 at $point");
}

# The one who computes, while others wait for him: all go, as with any crash;
my ($leader, @waiters);
sub leader_and_waiters
{
	sql(q{UPDATE t SET n = n + 1 WHERE id = 3; SELECT stop_point_set('cache-compute', 'wait')});
	my $waits = sql('SELECT waits FROM perfopt.cache_stats');
	$leader = begin_query();
	wait_until(q{SELECT stop_point_waiters('cache-compute') = 1}, 'one computes');
	@waiters = map { begin_query() } 1 .. 3;
	wait_until("SELECT waits = $waits + 3 FROM perfopt.cache_stats", 'three wait for him');
	is(sql(q{SELECT stop_point_hits('cache-compute')}), 1, 'and do not compute it, too');
}
leader_and_waiters();
kill 'KILL', $leader;
has_restarted($leader);
all_is_well('kill -9 of who computes while others wait');

leader_and_waiters();
kill 'KILL', $waiters[0];
has_restarted($leader);
all_is_well('kill -9 of one who waits');

# when he is told to go, or cancelled, one of them takes over and no one fails.
foreach my $how ('pg_terminate_backend', 'pg_cancel_backend')
{
	leader_and_waiters();
	sql("SELECT $how($leader)");
	wait_until(q{SELECT stop_point_hits('cache-compute') = 2}, "$how: another one computes");
	sql(q{SELECT stop_point_clear('cache-compute')});
	my $pids = join ',', @waiters;
	wait_until("SELECT count(*) = 3 FROM pg_stat_activity WHERE state = 'idle' AND pid IN ($pids)", 'all who waited are done');
	my $right = sql($direct);
	shift(@sessions)->quit if $how eq 'pg_cancel_backend';
	is(join(' ', map { $_->query_safe('SELECT 1') } @sessions[ -3 .. -1 ]), "$right\n1 $right\n1 $right\n1", 'with the right answer');
	forget_sessions();
	all_is_well($how);
}

# An error in the computation goes to him alone.
sql(q{UPDATE t SET n = n + 1 WHERE id = 4; SELECT stop_point_set('cache-compute', 'error')});
my ($code, $out, $err) = $node->psql('postgres', $query);
like($err, qr/stopped at "cache-compute"/, 'a computation fails');
sql(q{SELECT stop_point_clear('cache-compute')});
all_is_well('an error while computing');
sql(q{UPDATE t SET n = n + 1 WHERE id = 4; SELECT stop_point_set('cache-publish', 'error')});
($code, $out, $err) = $node->psql('postgres', $query);
like($err, qr/stopped at "cache-publish"/, 'publishing fails');
sql(q{SELECT stop_point_clear('cache-publish')});
all_is_well('an error while publishing');

# perfopt's worker
my $of_worker = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'perfopt worker' LIMIT 1};
wait_until("SELECT count(*) = 1 FROM ($of_worker) w", 'the worker is there');
my $worker = sql($of_worker);
sql($query);
kill 'KILL', $worker;
has_restarted($worker);
all_is_well('kill -9 of the worker');

# A writer killed between his registration and his commit, one that had
# committed, and the answer after the restart
my $writer = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $writer->query_safe('SELECT pg_backend_pid()');
$writer->query_safe('BEGIN; UPDATE t SET n = n + 1000 WHERE id = 5');
sql('UPDATE t SET n = n + 10 WHERE id = 6');
my $right = sql($direct);
is(sql($query), $right, 'a writer has not committed');
kill 'KILL', $pid;
has_restarted($pid);
eval { $writer->quit };
is(sql($query), $right, 'and never will: it was killed');
all_is_well('kill -9 of a writer');

# Transactions prepared before a crash end after it.
foreach my $end ('COMMIT', 'ROLLBACK')
{
	sql($query);
	sql("BEGIN; UPDATE t SET n = n + 1000 WHERE id = 7; PREPARE TRANSACTION 'p'");
	is(sql($query), sql($direct), 'a writer is prepared');
	$node->stop('immediate');
	$node->start;
	is(sql($query), sql($direct), 'and still is after a crash');
	is(sql($query), sql($direct), 'for the second one, too');
	my $old = $node->background_psql('postgres');
	$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	my $seen = $old->query_safe($direct);
	sql("$end PREPARED 'p'");
	is(sql($query), sql($direct), "$end PREPARED: who looks later sees it");
	is($old->query_safe($query), $seen, 'who has looked before does not');
	is(sql($query), sql($direct), 'and that spoils nothing');
	$old->query_safe('COMMIT');
	$old->quit;
	all_is_well("$end of what was prepared before a crash");
}

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11|signal 6/, 'nobody died but who was killed');
$node->stop;
done_testing();
