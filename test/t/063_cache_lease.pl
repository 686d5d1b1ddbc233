# Who misses at the same time: one computes, the others wait for him, whatever
# becomes of him.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Restarted;
use Test::More;
use Time::HiRes qw(time usleep);

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('cache_lease');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "restart_after_crash = on\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
my $stop_points = slurp_file("$root/test/tools/stop_points.sql");
$node->safe_psql('postgres', $stop_points);
$node->safe_psql('postgres', q{
	CREATE TABLE items AS SELECT i AS id FROM generate_series(1, 100) i;
	CREATE FUNCTION fails(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1 / (count(*)::int - $1) FROM items'});
$node->safe_psql('postgres', q{SELECT perfopt.cached_json('SELECT count(*) FROM items')}) for 1 .. 2;

my @sessions;

# Start so many sessions with the same call.
sub begin_calls
{
	my ($number, $call) = @_;
	for (1 .. $number)
	{
		my $session = { out => '', err => '' };
		$session->{run} = IPC::Run::start(
			[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $call ],
			'<', \undef, '>', \$session->{out}, '2>', \$session->{err});
		push @sessions, $session;
	}
}

# Wait for their ends; returns how many printed that.
sub end_calls
{
	my ($expected) = @_;
	my $good = 0;
	for my $session (@sessions)
	{
		IPC::Run::finish($session->{run});
		$good++ if $session->{out} eq "$expected\n";
	}
	@sessions = ();
	return $good;
}

sub one { return $node->safe_psql('postgres', $_[0]) }
sub until_true { return $node->poll_query_until('postgres', $_[0]) }

# The backend that computes, and how many wait for it.
my $leader = q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 4 AND granted};
my $waiting = q{SELECT count(*) FROM pg_stat_activity
	WHERE query LIKE 'SELECT perfopt.cached%' AND pid NOT IN (SELECT pid FROM pg_locks
		WHERE locktype = 'advisory' AND objsubid = 4) AND wait_event_type = 'Extension'};

# One leader is computing, and so many others wait.
sub all_in_place
{
	my ($others) = @_;
	return until_true("SELECT stop_point_waiters('cache-compute') = 1 AND ($waiting) = $others");
}

my $number = 0;
sub next_call { $number++; return "SELECT perfopt.cached_json('SELECT count(*) + $number AS n FROM items')" }
sub result { return sprintf('[{"n": %d}]', 100 + $number) }

# Computed once
my $call = next_call();
my $fills = one('SELECT fills FROM perfopt.cache_stats');
one(q{SELECT stop_point_set('cache-compute', 'wait')});
begin_calls(8, $call);
ok(all_in_place(7), 'one computes, seven wait');
is(one(q{SELECT stop_point_hits('cache-compute')}), 1, 'nobody else began');
one(q{SELECT stop_point_clear('cache-compute')});
is(end_calls(result()), 8, 'all have the result');
is(one('SELECT fills FROM perfopt.cache_stats'), $fills + 1, 'computed once');
cmp_ok(one('SELECT waits FROM perfopt.cache_stats'), '>=', 7, 'waits are counted');

# The leader is cancelled, or its connection ended: the next one takes over.
for my $end ('pg_cancel_backend', 'pg_terminate_backend')
{
	$call = next_call();
	one(q{SELECT stop_point_set('cache-compute', 'wait')});
	begin_calls(4, $call);
	ok(all_in_place(3), "$end: one computes, three wait");
	my $pid = one($leader);
	my $start = time;
	one("SELECT $end($pid)");
	ok(until_true("SELECT ($leader) <> $pid AND stop_point_hits('cache-compute') = 2"), "$end: another one computes");
	cmp_ok(time - $start, '<', 1, "$end: within a second");
	one(q{SELECT stop_point_clear('cache-compute')});
	is(end_calls(result()), 3, "$end: the others have the result");
	is(one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), 0, "$end: nothing is left locked");
}

# Waiting can be cancelled, too.
$call = next_call();
one(q{SELECT stop_point_set('cache-compute', 'wait')});
begin_calls(2, $call);
ok(all_in_place(1), 'one computes, one waits');
my $pid = one($leader);
one("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT perfopt.cached%' AND pid <> $pid");
ok(until_true("SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT perfopt.cached%' AND state = 'active'"),
	'who waits can be cancelled');
one(q{SELECT stop_point_clear('cache-compute')});
is(end_calls(result()), 1, 'the other one has the result');

# An error is everybody's own.
begin_calls(5, q{SELECT perfopt.cached_json('SELECT fails(100)')});
my @failing = @sessions;
is(end_calls('x'), 0, 'a query that fails');
is(scalar(grep { $_->{err} =~ /division by zero/ } @failing), 5, 'fails for all');

# Who holds what the leader waits for does not wait for the leader.  (He has no
# transaction ID: the tests' servers have wal_level = minimal.)
one(q{CREATE TABLE gate (a int); CREATE FUNCTION behind_gate() RETURNS bigint LANGUAGE plpgsql STABLE AS
	'BEGIN RETURN (SELECT count(*) FROM gate); END'});
$call = q{SELECT perfopt.cached_json('SELECT behind_gate() AS n')};
one(q{ALTER SYSTEM SET perfopt.cache_opaque_functions = 'behind_gate'});
$node->reload;
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE gate IN ACCESS EXCLUSIVE MODE');
begin_calls(1, $call);
ok(until_true("SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND relation = 'gate'::regclass"),
	'the leader waits for a table');
my $start = time;
is($blocker->query_safe($call), '[{"n": 0}]', 'who has locked it has the result');
cmp_ok(time - $start, '<', 5, 'soon');
$blocker->query_safe('COMMIT');
is(end_calls('[{"n": 0}]'), 1, 'and so has the leader');
$blocker->quit;

# A writer does not wait.
$call = next_call();
one(q{SELECT stop_point_set('cache-publish', 'wait')});
begin_calls(1, $call);
ok(until_true(q{SELECT stop_point_waiters('cache-publish') = 1}), 'one is about to publish');
is($node->safe_psql('postgres', "BEGIN; CREATE TABLE other (); SET statement_timeout = '5s'; $call; ROLLBACK"), result(),
	'who has written computes for himself');
one(q{SELECT stop_point_clear('cache-publish')});
is(end_calls(result()), 1, 'the other one publishes');

# kill -9 of the leader restarts the server.
$call = next_call();
one(q{SELECT stop_point_set('cache-compute', 'wait')});
begin_calls(3, $call);
ok(all_in_place(2), 'kill: one computes, two wait');
my $killed = one($leader);
kill 'KILL', $killed;
is(end_calls(result()), 0, 'kill: all connections are lost');
ok(wait_for_restart($node, $killed), 'kill: the server is back');
is(one($call), result(), 'kill: and answers') for 1 .. 2;

# While a session misses, its query comes to mean rows of another type, and
# somebody else publishes those
one(q{CREATE FUNCTION typed(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'});
my $typed = q{SELECT v FROM perfopt.cached('SELECT typed(id) AS v FROM items WHERE id = $1', ROW(%d)) AS t(v %s)};
my $reader = $node->background_psql('postgres', on_error_stop => 0);
is($reader->query(sprintf $typed, 1, 'int'), '1', 'a query');
one(q{SELECT stop_point_set('cache-lease', 'wait')});
$reader->query_until(qr/begun/, "\\echo begun\n" . sprintf("$typed;\n", 2, 'int'));
ok(until_true(q{SELECT stop_point_waiters('cache-lease') = 1}), '... of another value misses');
one(q{SELECT stop_point_set('cache-lease', 'pass')});
one(q{DROP FUNCTION typed; CREATE FUNCTION typed(int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'row ' || $1 $$});
is(one(sprintf $typed, 2, 'text'), 'row 2', '... while its function is made anew, and it is computed');
is(one(q{SELECT count(*) FROM perfopt.cache_entries WHERE query LIKE '%typed%' AND current}), '1', '... and published');
one(q{SELECT stop_point_clear('cache-lease')});
$reader->query('SELECT 1');
like($reader->{stderr}, qr/result type of the query has just changed/, '... which is not taken for what was asked');
is($reader->query(sprintf $typed, 2, 'text'), 'row 2', '... and is there for the next call');
$reader->quit;

$node->stop;
done_testing();
