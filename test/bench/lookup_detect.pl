# The part of "lookup" about finding N+1 loops: what perfopt.detect_n_plus_one
# costs the statements of pgbench -S, which are none.
#
#   ROUNDS=12   TRANSACTIONS=4000   of each client in a slice
use strict;
use warnings;
use Bench;

my $rounds = $ENV{ROUNDS} || 12;
my $transactions = $ENV{TRANSACTIONS} || 4000;
my $limit = 2;
my (@failed, @passed);
srand(1);
$| = 1;

sub psql
{
	my ($sql) = @_;
	my $answer = qx("$ENV{BIN}/psql" -XAtq -d bench_detect -c "$sql");
	die "psql: $sql" if $? != 0;
	chomp $answer;
	return $answer;
}
sub progress { printf STDERR "\r\e[K%s", sprintf shift, @_ if -t STDERR; }

progress('pgbench -i');
system("$ENV{BIN}/createdb", 'bench_detect') == 0 or die 'createdb';
psql('SET client_min_messages = warning; CREATE EXTENSION perfopt CASCADE');
system("$ENV{BIN}/pgbench -i -q -s 10 bench_detect >$ENV{SCRATCH}/init.log 2>&1") == 0 or die 'pgbench -i';
psql('CHECKPOINT');
progress('');

print "\nFinding N+1 loops\n";
print 'machine    ', machine(), "\n";
print 'server     ', psql('SELECT version()'), "\n";
printf "method     pgbench -S, scale 10, perfopt.detect_n_plus_one on and off by PGOPTIONS; %d rounds, each of six slices of %s\n"
  . "           transactions a client: off, on, again (off too), again, on, off; a client shares a CPU with its backend, 4 clients\n"
  . "           are spread over all CPUs; backend CPU from /proc/PID/schedstat; paired by round: median [95 %% bootstrap interval]\n\n",
  $rounds, thousands($transactions);
my $format = "%-24s %8s %8s   %-24s %-24s %-24s %s\n";
printf $format, '', 'us off', 'us on', 'throughput, on : off', 'A/A, off : off', 'CPU, on - off, us', 'A/A, us';

my $script = "\\set aid random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;";
my %value = (off => 'off', on => 'on', again => 'off');
for my $workload ([ 'simple, 1 client', 'simple', 1 ], [ 'simple, 4 clients', 'simple', 4 ],
	[ 'prepared, 1 client', 'prepared', 1 ], [ 'prepared, 4 clients', 'prepared', 4 ])
{
	my ($name, $protocol, $clients) = @$workload;
	my (%cpu, %tps);
	for my $round (0 .. $rounds)
	{
		my (%cpu_now, %tps_now);
		for my $slice (qw(off on again again on off))
		{
			progress('%s, round %d of %d: %s', $name, $round, $rounds, $slice);
			local $ENV{PGOPTIONS} = "-c perfopt.detect_n_plus_one=$value{$slice}";
			my ($cpu, $tps) = backend_cpu_and_tps(
				pgbench => "$ENV{BIN}/pgbench", port => 5432, database => 'bench_detect', scratch => $ENV{SCRATCH},
				script => $script, protocol => $protocol, clients => $clients, transactions => $transactions * $clients);
			$cpu_now{$slice} += $cpu / 2;
			$tps_now{$slice} += $tps / 2;
		}
		# the first one warms up
		next if $round == 0;
		push @{ $cpu{$_} }, $cpu_now{$_} for keys %cpu_now;
		push @{ $tps{$_} }, $tps_now{$_} for keys %tps_now;
	}
	progress('');
	my @ratio = paired_ratio(\%tps, 'on', 'off');
	my @floor = paired_ratio(\%tps, 'again', 'off');
	printf $format, $name, (map { sprintf '%.2f', median(@{ $cpu{$_} }) } qw(off on)),
	  sprintf('%.4f [%.4f %.4f]', @ratio), sprintf('%.4f [%.4f %.4f]', @floor),
	  sprintf('%+.3f [%+.3f %+.3f]', paired(\%cpu, 'on', 'off')), sprintf('%+.3f [%+.3f %+.3f]', paired(\%cpu, 'again', 'off'));
	my $percent = 100 * (1 - $ratio[0]);
	my $verdict = sprintf '%s: throughput %.1f %% less (%d %% or less)', $name, $percent, $limit;
	if ($floor[2] - $floor[1] > 2 * $limit / 100)
	{
		push @failed, "$verdict, but two of a kind differ as much: the machine is too busy to tell";
	}
	else { push @{ $percent <= $limit ? \@passed : \@failed }, $verdict; }
}

# A cost is only worth something if what it pays for was done.
my $queries = psql(q(SELECT count(*) FROM perfopt.n_plus_one WHERE query LIKE '%abalance%'));
push @failed, 'random accounts were reported as a loop' if $queries != 0;
print "\n";
print "ok     $_\n" for @passed;
print "MISSED $_\n" for @failed;
exit(@failed ? 1 : 0);
