# The part of "advisor" about size: a round over 2,000 tables and 5,000 distinct
# statements, its time, the worker's memory, and the latency of other statements
# while rounds run, beside what it is without; and advise() for ADVISED of the
# statements.
#
# A processor that sleeps takes longer to answer, so that on machines that put
# them to sleep everything is slower when less is done.  Therefore each is kept
# awake by a loop of the scheduling class IDLE, with and without rounds.  SECONDS
# should be longer than a round.
#
#   TABLES=2000 QUERIES=5000 ROUNDS=6 SECONDS=30 ADVISED=500
use strict;
use warnings;
use Bench;
use DBI;
use List::Util qw(max min);
use Time::HiRes qw(time sleep);

my $tables = $ENV{TABLES} || 2000;
my $queries = $ENV{QUERIES} || 5000;
my $rounds = $ENV{ROUNDS} || 6;
my $seconds = $ENV{SECONDS} || 30;
my $advised = $ENV{ADVISED} || 500;
my $limit = 1.25;
srand(1);
$| = 1;

sub progress { printf STDERR "\r\e[K%s", @_ ? sprintf(shift, @_) : '' if -t STDERR; }
sub connect_to { return DBI->connect("dbi:Pg:dbname=$_[0];host=$ENV{PGHOST}" . ($ENV{PGPORT} ? ";port=$ENV{PGPORT}" : ''), 'postgres', '',
	{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_server_prepare => 0 }); }
sub cpu { my ($pid) = @_; return (split ' ', Bench::slurp("/proc/$pid/schedstat"))[0] / 1e9; }
# of its own, in MB: now, and of shared memory that it has touched
sub memory
{
	my ($pid) = @_;
	my $status = Bench::slurp("/proc/$pid/status");
	my ($anon) = $status =~ /^RssAnon:\s*(\d+)/m;
	my ($shmem) = $status =~ /^RssShmem:\s*(\d+)/m;
	return ($anon / 1024, $shmem / 1024);
}

# runs CODE; its result, and the most memory of its own that the process had meanwhile
sub with_memory
{
	my ($process, $code) = @_;
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		my $most = 0;
		require POSIX;
		local $SIG{TERM} = sub { Bench::spew("$ENV{SCRATCH}/memory", $most); POSIX::_exit(0) };
		while (1) { my ($now) = memory($process); $most = $now if $now > $most; sleep 0.02; }
	}
	my @result = $code->();
	kill TERM => $pid;
	waitpid $pid, 0;
	return ($result[0], Bench::slurp("$ENV{SCRATCH}/memory"));
}

my @awake;
sub keep_awake
{
	for my $cpu (0 .. machine_cpus() - 1)
	{
		my $pid = fork // die "fork: $!";
		push @awake, $pid;
		next if $pid;
		my $parent = getppid;
		exec 'taskset', '-c' => $cpu, 'chrt', '--idle', 0, 'perl', '-e', 'while (getppid == $ARGV[0]) { $_++ for 1 .. 100000 }', $parent;
		die "taskset: $!";
	}
}
END { kill TERM => @awake if @awake; }

my $any = connect_to('postgres');
$any->do('DROP DATABASE IF EXISTS bench_scale');
$any->do('CREATE DATABASE bench_scale');
my $db = connect_to('bench_scale');
$db->do('SET client_min_messages = warning');
$db->do('CREATE EXTENSION perfopt CASCADE');
# wide apart, so that tables of few rows are worth an index
for my $from (map { 100 * $_ } 0 .. ($tables - 1) / 100)
{
	progress('%d of %d tables', $from, $tables);
	$db->begin_work;
	for my $i ($from .. min($from + 99, $tables - 1))
	{
		$db->do("CREATE TABLE t$i (id int PRIMARY KEY, a int, b int, c text, d timestamp) WITH (fillfactor = 10)");
		$db->do("INSERT INTO t$i SELECT i, i * 7919 % 1500, i % 50, 'c' || i, timestamp '2024-01-01' + i * interval '1 min' FROM generate_series(1, 1500) i");
	}
	$db->commit;
}
$db->do('VACUUM ANALYZE');
$db->do('CREATE TABLE beside AS SELECT i AS id, md5(i::text) AS v FROM generate_series(1, 200000) i');
$db->do('ALTER TABLE beside ADD PRIMARY KEY (id)');
$db->do('VACUUM ANALYZE beside');
$db->do('CHECKPOINT');

# distinct statements, in shapes that need other indexes
my @shapes = (
	sub { my ($t, $v) = @_; return "SELECT * FROM t$t WHERE a = $v" },
	sub { my ($t, $v) = @_; return "SELECT a FROM t$t WHERE b = $v AND d > timestamp '2024-01-01 10:00'" },
	sub { my ($t, $v) = @_; my $u = ($t + 1) % $tables; return "SELECT x.c FROM t$t x JOIN t$u y ON y.a = x.id WHERE x.c = 'c$v' ORDER BY y.d LIMIT 5" },
	sub { my ($t, $v) = @_; return "SELECT id FROM t$t WHERE lower(c) = 'c$v' OR a = $v" },
	sub { my ($t, $v) = @_; return "SELECT b, count(*) FROM t$t WHERE d < timestamp '2024-01-01' + $v * interval '1 min' GROUP BY b" });
# Any share counts, so that every statement has to be looked at.
$db->do('ALTER SYSTEM SET perfopt.advice_min_share = 0.000001');
$db->do('SELECT pg_reload_conf()');
$db->do('SELECT perfopt.reset_latency()');
# what is planned often enough is sampled
for my $run (1 .. 4)
{
	progress('%s distinct statements, run %d of 4', thousands($queries), $run);
	for my $q (0 .. $queries - 1)
	{
		$db->selectall_arrayref($shapes[ int($q / $tables) % @shapes ]->($q % $tables, 1 + ($q + $run * 13) % 40));
	}
}
my ($sampled) = $db->selectrow_array('SELECT count(DISTINCT (queryid, role)) FROM perfopt.plan_samples');
my ($slots, $used, $stored, $too_large, $evicted) = $db->selectrow_array('SELECT * FROM perfopt.plan_sample_counts()');

my $worker = $db->selectrow_array('SELECT pid FROM perfopt.workers WHERE datname = current_database()') or die 'no worker';
my ($memory_before) = memory($worker);
my (@round, $most_memory);
for (1 .. 3)
{
	progress('round %d', $_);
	my ($started, $cpu) = (time, cpu($worker));
	my $session = connect_to('bench_scale');
	my ($open, $most) = with_memory($worker, sub { $session->selectrow_array('SELECT perfopt.analyze_now()') });
	$most_memory = max($most_memory // 0, $most);
	push @round, { seconds => time - $started, cpu => cpu($worker) - $cpu, open => $open };
	$session->disconnect;
}

# The same for statements handed in
my $caller = connect_to('bench_scale');
my ($caller_pid) = $caller->selectrow_array('SELECT pg_backend_pid()');
my @handed = map { $shapes[ int($_ / $tables) % @shapes ]->($_ % $tables, 7) } map { int($_ * $queries / $advised) } 0 .. $advised - 1;
my ($caller_before) = memory($caller_pid);
my ($advise_started, $advise_cpu) = (time, cpu($caller_pid));
progress('advise() for %d statements', $advised);
my ($advise_found, $advise_memory) = with_memory($caller_pid, sub { $caller->selectrow_array(q(SELECT cardinality(ddl) FROM perfopt.advise($1, time_budget => '60 s') WHERE statement IS NULL), {}, \@handed) });
my ($advise_seconds, $advise_used) = (time - $advise_started, cpu($caller_pid) - $advise_cpu);
$caller->disconnect;

# The last round would go on although nobody waits for it any more.
sub until_idle
{
	$db->do("SELECT pg_cancel_backend($worker)");
	sleep 0.1 until $db->selectrow_array("SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $worker");
}

# Beside it: one client, look-ups by key, each one's time in pgbench's log
Bench::spew("$ENV{SCRATCH}/beside.sql", "\\set id random(1, 200000)\nSELECT v FROM beside WHERE id = :id;\n");
my (%p50, %p99, %tps, $rounds_beside, $round_seconds);
keep_awake();
for my $round (1 .. $rounds)
{
	for my $with (List::Util::shuffle(0, 1))
	{
		progress('beside, round %d of %d, rounds %s', $round, $rounds, $with ? 'run' : 'do not run');
		my $advisor = 0;
		if ($with)
		{
			$advisor = fork // die "fork: $!";
			if ($advisor == 0)
			{
				$_->{InactiveDestroy} = 1 for $db, $any;
				@awake = ();
				my $session = connect_to('bench_scale');
				my $done = 0;
				require POSIX;
				local $SIG{TERM} = sub { Bench::spew("$ENV{SCRATCH}/rounds", $done); POSIX::_exit(0) };
				while (1) { $session->do('SELECT perfopt.analyze_now()'); $done++; }
			}
		}
		unlink glob "$ENV{SCRATCH}/beside_log*";
		system("\"$ENV{BIN}/pgbench\" -n -M prepared -c 1 -T $seconds -l --log-prefix='$ENV{SCRATCH}/beside_log' -f '$ENV{SCRATCH}/beside.sql' bench_scale >'$ENV{SCRATCH}/pgbench.out' 2>&1") == 0 or die 'pgbench failed';
		if ($advisor) { kill TERM => $advisor; waitpid $advisor, 0; until_idle(); $rounds_beside += Bench::slurp("$ENV{SCRATCH}/rounds") || 0; $round_seconds += $seconds; }
		my @us = sort { $a <=> $b } map { (split)[2] } map { split /\n/, Bench::slurp($_) } glob "$ENV{SCRATCH}/beside_log*";
		my $name = $with ? 'with' : 'without';
		push @{ $p50{$name} }, $us[ 0.5 * @us ];
		push @{ $p99{$name} }, $us[ 0.99 * @us ];
		push @{ $tps{$name} }, @us / $seconds;
	}
}
progress();

print "\nA large database: ", thousands($tables), ' tables, ', thousands($queries), " distinct statements\n";
print 'machine    ', machine(), "\n";
print 'server     ', $db->selectrow_array('SELECT version()'), "\n";
printf "settings   %s\n", $db->selectrow_array(q(SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name) FROM pg_settings
	WHERE name IN ('perfopt.max_plan_samples', 'perfopt.max_queries', 'perfopt.advice_min_share', 'perfopt.advice_time_budget', 'perfopt.advice_storage_budget', 'pg_stat_statements.max', 'shared_buffers')));
printf "samples    %s statements sampled, %s of %s places used (%.0f MB of shared memory), %s stored, %s too large, %s gave way\n", thousands($sampled), thousands($used), thousands($slots), $slots * 8 / 1024, thousands($stored), thousands($too_large), thousands($evicted);
printf "round %d    %.1f s, %.1f s of CPU, %d open advices then\n", $_ + 1, @{ $round[$_] }{qw(seconds cpu open)} for 0 .. $#round;
printf "memory     of the worker's own: %.0f MB before, at most %.0f MB in a round, %.0f MB after\n", $memory_before, $most_memory, (memory($worker))[0];
printf "advise()   of %d statements: %.1f s, %.1f s of CPU, %d indexes; memory of the caller's process %.0f MB before, at most %.0f MB\n", $advised, $advise_seconds, $advise_used, $advise_found, $caller_before, $advise_memory;
printf "beside     look-ups by key of one client, %d times %d s each, rounds one after another (%.1f s each) against none; a loop of class IDLE on each processor keeps it awake\n\n", $rounds, $seconds, $round_seconds / ($rounds_beside || 1);
printf "%-16s %10s %10s   %s\n", '', 'without', 'with', 'ratio [95 %]';
for my $row ([ 'median us', \%p50 ], [ 'p99 us', \%p99 ], [ 'a second', \%tps ])
{
	my ($title, $values) = @$row;
	printf "%-16s %10.0f %10.0f   %.3f [%.3f %.3f]\n", $title, median(@{ $values->{without} }), median(@{ $values->{with} }), paired_ratio($values, 'with', 'without');
}
my ($ratio, $low) = paired_ratio(\%p99, 'with', 'without');
my $failed = $low > $limit;
printf "\n%s: with rounds one after another the p99 of other statements is %.2f times what it is without them, at most %.2f\n", $failed ? 'FAIL' : 'ok', $ratio, $limit;
$db->do('ALTER SYSTEM RESET perfopt.advice_min_share');
$db->do('SELECT pg_reload_conf()');
$db->disconnect;
$any->do('DROP DATABASE bench_scale');
exit $failed;
