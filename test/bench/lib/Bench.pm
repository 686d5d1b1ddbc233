# Bench.pm: what the benchmarks here have in common.
#
# Variants are compared within one run, in short rounds, each round taking
# every variant once in a random order: what drifts on the machine (clock,
# caches, neighbours) then falls on all of them alike.  Differences are paired,
# a round's variant against the same round's base, and given as the median
# with a 95 % bootstrap interval of the median.  A second server with the same
# settings as the base (A/A) shows what the method sees where there is nothing.
package Bench;

use strict;
use warnings;
use Exporter 'import';
use List::Util 'shuffle';

our @EXPORT = qw(machine machine_cpus alternate median paired paired_ratio pgbench_tps backend_cpu backend_cpu_and_tps thousands);

sub slurp
{
	my ($path) = @_;
	open my $file, '<', $path or return '';
	local $/;
	return scalar <$file>;
}

sub spew
{
	my ($path, $text) = @_;
	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file or die "$path: $!";
}

# One line that says where the figures come from.
sub machine
{
	my $cpuinfo = slurp('/proc/cpuinfo');
	my ($model) = $cpuinfo =~ /^model name\s*:\s*(.*)$/m;
	my ($kib) = slurp('/proc/meminfo') =~ /^MemTotal:\s*(\d+)/m;
	chomp(my $kernel = slurp('/proc/sys/kernel/osrelease'));
	my ($load) = split ' ', slurp('/proc/loadavg');
	return sprintf '%d x %s, %.0f GiB, Linux %s, load average %s at the start',
	  machine_cpus(), $model // 'unknown processor', ($kib // 0) / 2**20, $kernel, $load;
}

sub machine_cpus
{
	my $cpus = () = slurp('/proc/cpuinfo') =~ /^processor\s*:/mg;
	return $cpus;
}

# alternate(ROUNDS, [VARIANT...], sub): calls sub(VARIANT, ROUND) for every
# variant in every round, and returns { VARIANT => [value of each round] }.
sub alternate
{
	my ($rounds, $variants, $measure) = @_;
	my %values;
	for my $round (1 .. $rounds)
	{
		push @{ $values{$_} }, $measure->($_, $round) for shuffle @$variants;
	}
	return \%values;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	my $middle = int(@sorted / 2);
	return @sorted % 2 ? $sorted[$middle] : ($sorted[ $middle - 1 ] + $sorted[$middle]) / 2;
}

# 95 % bootstrap interval of the median
sub interval
{
	my @values = @_;
	my @medians = sort { $a <=> $b } map
	{
		median(map { $values[ rand @values ] } @values)
	} 1 .. 2000;
	return ($medians[49], $medians[1949]);
}

# paired(VALUES, VARIANT, BASE): median, low and high of the rounds' differences
sub paired
{
	my ($values, $variant, $base) = @_;
	my @differences = map { $values->{$variant}[$_] - $values->{$base}[$_] } 0 .. $#{ $values->{$base} };
	return (median(@differences), interval(@differences));
}

# The same of the rounds' ratios
sub paired_ratio
{
	my ($values, $variant, $base) = @_;
	my @ratios = map { $values->{$variant}[$_] / $values->{$base}[$_] } 0 .. $#{ $values->{$base} };
	return (median(@ratios), interval(@ratios));
}

# pgbench_tps(PGBENCH, ARGUMENT...): transactions a second
sub pgbench_tps
{
	open my $output, '-|', @_ or die "pgbench: $!";
	local $/;
	my $said = <$output>;
	close $output or die "pgbench failed:\n$said";
	die "pgbench had failed transactions:\n$said" if $said =~ /^number of failed transactions: [1-9]/m;
	return $1 if $said =~ /^tps = ([\d.]+)/m;
	die "pgbench said no tps:\n$said";
}

# backend_cpu(%option): microseconds of backend CPU a transaction.
#
# Runs pgbench with a script, and reads the CPU time of its backends, to the
# nanosecond, from /proc/PID/schedstat: after a tenth of the transactions, to
# warm up, and after the last one.  pgbench starts the reading between two
# transactions, while the backend sleeps.
#
# Each client is held on one CPU together with its backend, where they take
# turns; several clients are spread over the CPUs by a pgbench for each CPU.
# Waking a process on another CPU costs several times a short statement on a
# virtual machine, and whether it happens is up to the scheduler.
#
#   pgbench (path), port, database, protocol (simple, extended, prepared),
#   clients, transactions (of all clients together), script (SQL),
#   scratch (a directory)
sub backend_cpu { return (backend_cpu_and_tps(@_))[0]; }

# The same, and the transactions a second of all clients between the readings
sub backend_cpu_and_tps
{
	my (%option) = @_;
	my $cpus = machine_cpus();
	$cpus = $option{clients} if $option{clients} < $cpus;
	die "$option{clients} clients on $cpus CPUs" if $option{clients} % $cpus;
	my $measured = int($option{transactions} / $option{clients});
	my $first = int($measured / 10);
	my $last = $first + $measured;
	my $readings = "$option{scratch}/readings";
	my $log = "$option{scratch}/pgbench.log";

	# \shell replaces a variable only where it is a word of its own
	# the clock last of the first reading, and first of the last
	spew("$option{scratch}/read_cpu", <<"SHELL");
[ -z "\$2" ] || clock=\$(date +%s%N)
cpu=\$(cut -d " " -f 1 /proc/\$1/schedstat)
echo \$1 \$cpu \${clock:-\$(date +%s%N)} >>$readings
SHELL
	spew("$option{scratch}/script.sql", <<"SCRIPT");
\\if :n = 0
SELECT pg_backend_pid() AS pid \\gset
\\shell taskset -p -c :cpu :pid >$option{scratch}/taskset.log
\\endif
\\if :n = $first
\\shell sh $option{scratch}/read_cpu :pid
\\endif
\\set n :n + 1
$option{script}
\\if :n = $last
\\shell sh $option{scratch}/read_cpu :pid last
\\endif
SCRIPT
	unlink $readings;
	my @children;
	# from the last CPU down: the first often serves the machine's interrupts
	for my $cpu (map { machine_cpus() - $_ } 1 .. $cpus)
	{
		my $pid = fork // die "fork: $!";
		if ($pid == 0)
		{
			open STDOUT, '>', "$log.$cpu";
			open STDERR, '>&', \*STDOUT;
			exec 'taskset', '-c' => $cpu,
			  $option{pgbench}, '-n',
			  '-M' => $option{protocol},
			  '-c' => $option{clients} / $cpus,
			  '-t' => $last,
			  '-D' => 'n=0',
			  '-D' => "cpu=$cpu",
			  '-p' => $option{port},
			  '-f' => "$option{scratch}/script.sql",
			  $option{database}
			  or die "exec: $!";
		}
		push @children, [ $pid, $cpu ];
	}
	for (@children)
	{
		my ($pid, $cpu) = @$_;
		waitpid $pid, 0;
		die "pgbench failed:\n" . slurp("$log.$cpu") if $? != 0;
	}

	my %readings;
	for (split /\n/, slurp($readings))
	{
		my ($pid, $ns, $clock) = split;
		push @{ $readings{$pid} }, [ $ns, $clock ];
	}
	die "lost a backend" unless keys %readings == $option{clients};
	my ($total, $tps) = (0, 0);
	for my $pid (keys %readings)
	{
		die "lost a reading of backend $pid" unless @{ $readings{$pid} } == 2;
		$total += $readings{$pid}[1][0] - $readings{$pid}[0][0];
		$tps += $measured / ($readings{$pid}[1][1] - $readings{$pid}[0][1]) * 1e9;
	}
	return ($total / 1000 / ($option{clients} * $measured), $tps);
}

sub thousands
{
	my $number = reverse int(shift);
	$number =~ s/(\d{3})(?=\d)/$1,/g;
	return scalar reverse $number;
}

1;
