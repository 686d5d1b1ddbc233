# Buffered inserts when processes die, at each step of a flush, under the load
# of 32 clients: every row that was acknowledged is there, once, and of those
# that nobody waited for no more are lost than the buffer holds.
use strict;
use warnings;
use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Restarted;
use Test::More;
use Time::HiRes qw(usleep);

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('buffer_crash');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf',
	"autovacuum = off\nrestart_after_crash = on\nfsync = on\nwal_sync_method = fdatasync\n"
	. "perfopt.buffer_size = '256kB'\nperfopt.batch_max_wait = '100ms'\nperfopt.advice_interval = 0\nperfopt.sample_interval = 0\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/stop_points.sql"));
$node->safe_psql('postgres', 'CREATE TABLE t (client int, n int, filler text)');
my $scratch = PostgreSQL::Test::Utils::tempdir;

# A row takes one block of 256 bytes, a role has half of them.
my $most_buffered = 256 * 1024 / 256 / 2;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# 32 clients that put rows until told to stop, or the server goes.  pgbench
# writes a line for each transaction that has succeeded.
my $runs = 0;
sub begin_load
{
	my ($mode) = @_;
	$runs++;
	my $script = "$scratch/$mode.sql";
	open my $file, '>', $script or die $!;
	print $file "\\set n :n + 1\nSELECT perfopt.buffer_insert('t', jsonb_build_object('client', :client_id, 'n', :n), '$mode');\n";
	close $file;
	my %load = (out => '', err => '', prefix => "$scratch/log$runs");
	sql('TRUNCATE t');
	$load{run} = start([ 'pgbench', '-n', '-c', 32, '-j', 2, '-T', 60, '-D', 'n=0', '-f', $script, '-l', '--log-prefix', $load{prefix},
		'-h', $node->host, '-p', $node->port, 'dbname=postgres application_name=pgbench' ], '>', \$load{out}, '2>', \$load{err});
	$node->poll_query_until('postgres', 'SELECT count(*) > 500 FROM t') or die "no load: $load{err}";
	return \%load;
}
# What was acknowledged, by client
sub end_load
{
	my ($load, $signal) = @_;
	if ($signal)
	{
		# the clients end, and so pgbench
		sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'});
	}
	eval { $load->{run}->finish };
	my %acknowledged;
	foreach my $log (glob "$load->{prefix}.*")
	{
		foreach (split /\n/, slurp_file($log)) { $acknowledged{$1}++ if /^(\d+) \d+ \d+ /; }
	}
	return \%acknowledged;
}
# Rows are numbered from 1, so clients' counts tell which were acknowledged.
sub check
{
	my ($acknowledged, $mode, $name) = @_;
	my ($rows, $missing) = (0, 0);
	sql('SELECT perfopt.flush()');
	my $values = join ', ', map { "($_, $acknowledged->{$_})" } keys %$acknowledged;
	my $all = 0;
	$all += $_ foreach values %$acknowledged;
	cmp_ok($all, '>', 500, "$name: $all rows were acknowledged");
	my ($lost, $twice, $beyond) = split /\|/, sql(qq{
		WITH acknowledged (client, rows) AS (VALUES $values)
		SELECT (SELECT count(*) FROM acknowledged a, generate_series(1, a.rows) AS put (number)
			WHERE NOT EXISTS (SELECT FROM t WHERE t.client = a.client AND t.n = put.number)),
			(SELECT count(*) FROM (SELECT FROM t GROUP BY client, n HAVING count(*) > 1) d),
			(SELECT count(*) FROM t LEFT JOIN acknowledged a USING (client) WHERE t.n > coalesce(a.rows, 0) + 1)});
	is($twice, 0, '... none is there twice');
	is($beyond, 0, '... and of each client at most one that was not');
	$mode eq 'lossy' ? cmp_ok($lost, '<=', $most_buffered, "... $lost are lost, no more than the buffer holds")
		: is($lost, 0, '... and none is missing');
}
# The server is back after one of its processes was killed
sub wait_for_server
{
	return wait_until_back($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'});
}
sub postmaster_pid
{
	my ($pid) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	return $pid;
}

# kill -9 of who is at a step: the server restarts
my %steps = (
	ack => [ 'buffer-put', 'buffer-taken', 'buffer-inserted', 'buffer-verdict', 'buffer-committed' ],
	durable => [ 'buffer-spool-taken', 'buffer-spool-inserted', 'buffer-spool-committed' ],
	lossy => [ 'buffer-taken', 'buffer-inserted', 'buffer-verdict' ]);
foreach my $mode ('ack', 'durable', 'lossy')
{
	foreach my $step (@{ $steps{$mode} })
	{
		my $load = begin_load($mode);
		my $postmaster = postmaster_pid();
		# who sets it may go with the server before he is answered
		psql_if_there($node, "SELECT stop_point_set('$step', 'kill')");
		my $acknowledged = end_load($load);
		ok(wait_for_server(), "$mode: kill -9 at $step");
		is(postmaster_pid(), $postmaster, '... of which the server recovers');
		check($acknowledged, $mode, '... under load');
	}
}

# The flusher ends, at a step, without a crash: nobody notices
foreach my $mode ('ack', 'durable')
{
	foreach my $step (grep { !/put|verdict/ } @{ $steps{$mode} })
	{
		my $load = begin_load($mode);
		sql("SELECT stop_point_set('$step', 'wait')");
		$node->poll_query_until('postgres', "SELECT stop_point_waiters('$step') = 1");
		sql("SELECT stop_point_set('$step', 'pass')");
		# the first one has it end after what it is doing, the second one at once
		my $flusher = sql(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'perfopt buffer'});
		ok($node->poll_query_until('postgres', qq{SELECT count(pg_terminate_backend(pid)) = 0 FROM pg_stat_activity WHERE pid = $flusher}), "$mode: the flusher ends at $step");
		my $n = sql("SELECT stop_point_clear('$step'); SELECT max(n) FROM t");
		$n =~ s/^t\n//;
		ok($node->poll_query_until('postgres', "SELECT count(*) >= 32 FROM t WHERE n > $n"), '... and the next one goes on');
		is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'}), 32, '... without an error for anybody');
		check(end_load($load, 1), $mode, '...');
	}
}

# Told to go, by an administrator
{
	my $load = begin_load('ack');
	for (1 .. 5)
	{
		my $flusher = sql(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'perfopt buffer'});
		sql("SELECT pg_terminate_backend($flusher)") if $flusher;
		$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'perfopt buffer' AND pid <> " . ($flusher || 0));
	}
	is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'}), 32, 'five flushers were terminated');
	check(end_load($load, 1), 'ack', '...');
}

# The whole server at once, at a step of a flush
foreach my $case ([ 'ack', 'buffer-inserted' ], [ 'durable', 'buffer-spool-inserted' ], [ 'lossy', 'buffer-inserted' ])
{
	my ($mode, $step) = @$case;
	foreach my $how ('immediate', 'kill -9')
	{
		my $load = begin_load($mode);
		sql("SELECT stop_point_set('$step', 'wait')");
		$node->poll_query_until('postgres', "SELECT stop_point_waiters('$step') >= 1");
		if ($how eq 'immediate') { $node->stop('immediate'); }
		else
		{
			my $pid = postmaster_pid();
			$node->kill9;
			# it is gone, its children notice, and let go of its shared memory
			for (1 .. 300) { last unless kill(0, $pid) || grep { /^\s*$pid\b/ } `ps -eo ppid`; usleep(100_000); }	# between two looks
		}
		my $acknowledged = end_load($load);
		my $started = 0;
		for (1 .. 100) { $started = $node->start(fail_ok => 1) and last; $node->{_pid} = undef; usleep(200_000); }	# until no process has the old memory
		ok($started, "$mode: $how of the postmaster at $step");
		check($acknowledged, $mode, '... under load');
	}
}

# A shutdown has what is buffered written
{
	my $load = begin_load('lossy');
	my $acknowledged = end_load($load, 1);
	sql(q{ALTER SYSTEM SET perfopt.batch_max_wait = '1h'; SELECT pg_reload_conf()});
	$node->poll_query_until('postgres', q{SELECT current_setting('perfopt.batch_max_wait') = '1h'});
	sql('SELECT perfopt.flush()');
	sql(q{SELECT perfopt.buffer_insert('t', jsonb_build_object('client', 99, 'n', i), 'lossy') FROM generate_series(1, 50) i});
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'perfopt buffer'});
	is(sql('SELECT count(*) FROM t WHERE client = 99'), 0, 'rows that wait');
	$node->restart;
	is(sql('SELECT count(*) FROM t WHERE client = 99'), 50, '... are written at a shutdown');
}

$node->stop;
done_testing();
