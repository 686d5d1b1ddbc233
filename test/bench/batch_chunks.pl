# run_in_batches() against one UPDATE of the same rows, while clients write to
# the table: time, WAL, bloat, and what the clients see.  Then a job that is
# killed three times on its way, and what has become of each row.
#
# Clients start RATE transactions a second whatever becomes of those before
# (pgbench --rate), so that their latency has in it what they wait.
#
#   ROWS=5000000        of the table
#   CHUNK_ROUNDS=2      of the comparison, in which the variants alternate
#   RATE=200            transactions a second of the clients, together
use strict;
use warnings;
use Bench;
use Time::HiRes qw(time sleep);

my $rows = $ENV{ROWS} || 5_000_000;
my $rounds = $ENV{CHUNK_ROUNDS} || 2;
my $rate = $ENV{RATE} || 200;
my $workers = 2;
my $failed = 0;
srand(1);
$| = 1;

sub psql
{
	my (@commands) = @_;
	open my $answer, '-|', "$ENV{BIN}/psql", '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', 'chunks', map { ('-c', $_) } @commands
	  or die "psql: $!";
	my @lines = <$answer>;
	close $answer or die "failed: @commands";
	chomp @lines;
	return join "\n", @lines;
}

sub verdict
{
	my ($good, $text) = @_;
	print $good ? 'ok       ' : 'NOT OK   ', "$text\n";
	$failed++ unless $good;
}

sub build_table
{
	psql('SET client_min_messages = warning', 'DROP TABLE IF EXISTS sale', 'CREATE TABLE sale AS SELECT * FROM template',
		'ALTER TABLE sale ADD PRIMARY KEY (id)', 'CREATE INDEX ON sale (customer)');
	psql('VACUUM (FREEZE, ANALYZE) sale');
	psql('CHECKPOINT');
}

my $script = "$ENV{SCRATCH}/client.sql";
open my $file, '>', $script or die "$script: $!";
print $file "\\set id random(1, $rows)\nUPDATE sale SET seen = seen + 1 WHERE id = :id;\n";
close $file;

# Clients at work in the background; returns what ends them and reads their log
sub clients
{
	(my $name = shift) =~ tr/ /_/;
	my $log = "$ENV{SCRATCH}/latency_$name";
	unlink glob "$log.*";
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		open STDOUT, '>', "$log.out";
		open STDERR, '>&', \*STDOUT;
		exec "$ENV{BIN}/pgbench", '-n', '-M', 'prepared', '-c', 10, '-j', 1, '-R', $rate, '-T', 36000, '-l',
		  "--log-prefix=$log", '-f', $script, 'chunks' or die "exec: $!";
	}
	return sub {
		# those that waited get through; pgbench writes its log out only when
		# it ends by itself
		sleep 2;
		eval { psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'UPDATE sale SET seen%'") };
		waitpid $pid, 0;
		my @ms;
		for my $path (glob "$log.*")
		{
			next if $path =~ /\.out$/;
			open my $lines, '<', $path or die "$path: $!";
			# client, number, latency in us, ...: with --rate, from when it was due
			while (<$lines>) { my @field = split; push @ms, $field[2] / 1000; }
		}
		@ms = sort { $a <=> $b } @ms;
		return @ms ? map { $ms[ $_ * $#ms ] } 0.5, 0.99, 1 : (0, 0, 0);
	};
}

# A statement of the job's kind, with clients, or only these for a while
sub measure
{
	my ($variant) = @_;
	build_table();
	my $size = psql("SELECT pg_total_relation_size('sale')");
	my $lsn = psql('SELECT pg_current_wal_insert_lsn()');
	my $end = clients($variant);
	sleep 2;
	my $start = time;
	if ($variant eq 'one UPDATE') { psql('UPDATE sale SET total = price * quantity'); }
	elsif ($variant =~ /^chunks of (.*)$/)
	{
		psql('SET client_min_messages = warning',
			"CALL perfopt.run_in_batches('sale', set_list => 'total = price * quantity', workers => $workers, chunk_duration => '$1')");
	}
	else { sleep 10; }
	my $seconds = time - $start;
	my ($p50, $p99, $max) = $end->();
	my %result = (seconds => $seconds, p50 => $p50, p99 => $p99, max => $max,
		wal => psql("SELECT pg_current_wal_insert_lsn() - '$lsn'") / 2**20,
		size => psql("SELECT pg_total_relation_size('sale')") / $size);
	die "$variant has left rows out"
	  if $variant ne 'clients alone' && psql('SELECT count(*) FROM sale WHERE total IS DISTINCT FROM price * quantity') > 0;
	printf "%-16s %8.1f s %8.0f MB WAL %6.2f x size   clients: p50 %7.1f ms  p99 %9.1f ms  max %9.1f ms\n", $variant,
	  @result{qw(seconds wal size p50 p99 max)};
	return \%result;
}

print 'machine    ', machine(), "\n";
system("$ENV{BIN}/createdb", 'chunks') == 0 or die;
psql('SET client_min_messages = warning', 'CREATE EXTENSION perfopt CASCADE',
	"CREATE TABLE template AS SELECT i::bigint AS id, i % 50000 AS customer, 1 + i % 9 AS quantity,
		(i % 10000) / 100.0 AS price, NULL::numeric AS total, 0 AS seen, repeat('x', 60) AS note
	 FROM generate_series(1, $rows) i");
# autovacuum is on, and looks often enough to matter in a run of a minute
psql('ALTER SYSTEM SET autovacuum = on', 'ALTER SYSTEM SET autovacuum_naptime = 5');
psql('SELECT pg_reload_conf()');
psql('ALTER TABLE template SET (autovacuum_enabled = off)');
print 'server     ', psql('SELECT version()'), "\n";
printf "table      %s rows, %s, primary key and one index; autovacuum every 5 s; %d clients update single rows, %d a second\n",
  thousands($rows), psql("SELECT pg_size_pretty(pg_table_size('template'))"), 10, $rate;
printf "job        UPDATE sale SET total = price * quantity; run_in_batches with %d workers, its session included\n\n", $workers;

my $results = alternate($rounds, [ 'clients alone', 'one UPDATE', 'chunks of 1 s', 'chunks of 0.1 s' ], sub { measure($_[0]) });
my %median;
for my $variant (keys %$results)
{
	for my $what (qw(seconds wal size p99 max)) { $median{$variant}{$what} = median(map { $_->{$what} } @{ $results->{$variant} }); }
}
my $one = $median{'one UPDATE'};
print "\n";
for my $variant ('chunks of 1 s', 'chunks of 0.1 s')
{
	my $chunks = $median{$variant};
	printf "%s against one UPDATE, medians: %.2f of the time, %.2f of the WAL, %.2f of the size; clients' p99 %.0f against %.0f ms, longest %.0f against %.0f ms\n",
	  $variant, map({ $chunks->{$_} / $one->{$_} } qw(seconds wal size)), map { ($chunks->{$_}, $one->{$_}) } qw(p99 max);
	verdict($chunks->{p99} < $one->{p99} && $chunks->{max} < $one->{max}, "clients wait less for $variant than for one UPDATE");
	verdict($chunks->{size} <= $one->{size} * 1.02, '... and the table is not larger afterwards');
}

# ---- killed three times

build_table();
psql('CREATE TABLE done (id bigint)', 'ALTER TABLE sale ADD COLUMN n int DEFAULT 0');
my $end = clients('killed');
my $start = time;
my $job = psql("CALL perfopt.run_in_batches('sale', set_list => 'n = n + 1', workers => $workers, wait => false)");
sub ask { my $answer = eval { psql($_[0]) }; return $answer // ''; }
for my $share (20, 45, 70)
{
	# a server that restarts does not answer
	until (ask("SELECT percent >= $share FROM perfopt.batch_jobs WHERE id = $job") eq 't')
	{
		die "the job has got stuck" if time - $start > 3600;
		sleep 0.2;
	}
	my $pid = '';
	$pid = ask("SELECT pid FROM pg_locks WHERE locktype = 'object' AND classid = 'perfopt.batch_job'::regclass LIMIT 1") while $pid eq '';
	kill 'KILL', $pid;
	printf "killed     process %d of the job at %d %%\n", $pid, $share;
	# the clients go with the server
	sleep 1;
	1 until ask('SELECT 1') eq '1' or !sleep 0.2;
	$end->();
	$end = clients('killed');
}
until (ask("SELECT state FROM perfopt.batch_jobs WHERE id = $job") eq 'done')
{
	die "the job has got stuck" if time - $start > 3600;
	sleep 0.5;
}
printf "done       after %.1f s\n", time - $start;
$end->();
verdict(psql('SELECT count(*) FROM sale WHERE n = 1') == $rows && psql('SELECT count(*) FROM sale') == $rows,
	'killed three times amid writes: each of ' . thousands($rows) . ' rows is done once');
psql('ALTER SYSTEM RESET autovacuum', 'ALTER SYSTEM RESET autovacuum_naptime');
psql('SELECT pg_reload_conf()');
exit($failed ? 1 : 0);
