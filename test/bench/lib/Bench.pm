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

our @EXPORT = qw(machine alternate median interval paired backend_cpu workers_cpu thousands);

sub slurp
{
	my ($path) = @_;
	open my $file, '<', $path or return '';
	local $/;
	return scalar <$file>;
}

# One line that says where the figures come from.
sub machine
{
	my $cpuinfo = slurp('/proc/cpuinfo');
	my ($model) = $cpuinfo =~ /^model name\s*:\s*(.*)$/m;
	my $cores = () = $cpuinfo =~ /^processor\s*:/mg;
	my ($kib) = slurp('/proc/meminfo') =~ /^MemTotal:\s*(\d+)/m;
	chomp(my $kernel = slurp('/proc/sys/kernel/osrelease'));
	my ($load) = split ' ', slurp('/proc/loadavg');
	return sprintf '%d x %s, %.0f GiB, Linux %s, load average %s at the start',
	  $cores, $model // 'unknown processor', ($kib // 0) / 2**20, $kernel, $load;
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

# backend_cpu(%option): microseconds of backend CPU a transaction.
#
# Runs pgbench with a script, and reads the CPU time of its backends from
# /proc/PID/schedstat (nanoseconds on the CPU) after the first tenth of the
# transactions and after the last.  The reading is done by pgbench between two
# transactions, while the backend sleeps.
#   pgbench, host, port, database, user;  protocol (simple, extended, prepared);
#   clients;  transactions (of each client, after the tenth);  script (path);
#   scratch (a directory)
sub backend_cpu
{
	my (%option) = @_;
	my $warm_up = int($option{transactions} / 10);
	my $last = $warm_up + $option{transactions};
	my $readings = "$option{scratch}/readings";
	my $script = "$option{scratch}/script";

	unlink $readings;
	open my $out, '>', $script or die "$script: $!";
	print $out <<"SCRIPT", slurp($option{script}), <<"SCRIPT";
\\if :n = 0
SELECT pg_backend_pid() AS pid \\gset
\\endif
\\if :n = $warm_up
\\shell cat /proc/:pid/schedstat >>$readings
\\endif
\\set n :n + 1
SCRIPT
\\if :n = $last
\\shell cat /proc/:pid/schedstat >>$readings
\\endif
SCRIPT
	close $out;
	return $script;
}

1;
