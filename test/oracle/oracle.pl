# The counting part of "run", which starts the server.
use strict;
use warnings;
use JSON::PP;
use Oracle;

my $hits = $ENV{HITS} || 1_000_000;
my $minutes = $ENV{MINUTES} || 1e9;
my $round = $ENV{ROUND} || 30;
my $started = time;
$| = 1;

my $oracle = Oracle->new(scratch => $ENV{SCRATCH}, weaken => $ENV{WEAK}, rate => $ENV{RATE})->setup;
my $before = $oracle->stats;
my $shown = 0;
my ($had, $rate);
printf "%6s %12s %10s %12s %9s %9s %11s\n", 'time', 'checks', 'a second', 'hits', 'hit rate', 'bypasses', 'mismatches';
do
{
	my $began = time;
	my $checks = $oracle->{checks};
	$oracle->run($round);
	my $now = $oracle->stats;
	$had = $now->{hits} - $before->{hits};
	my $others = $now->{misses} - $before->{misses} + $now->{bypasses} - $before->{bypasses};
	$rate = $had / (($had + $others) || 1);
	printf "%4d s %12d %10.0f %12d %8.1f%% %9d %11d\n", time - $started, $oracle->{checks},
	  ($oracle->{checks} - $checks) / ((time - $began) || 1), $had, 100 * $rate,
	  $now->{bypasses} - $before->{bypasses}, scalar @{ $oracle->{mismatches} };
	print JSON::PP->new->canonical->pretty->encode($oracle->{mismatches}[ $shown++ ])
	  while $shown < @{ $oracle->{mismatches} } && $shown < 5;
} while ($had < $hits && time - $started < 60 * $minutes);

print "\nwriters failed (deadlocks, locks not had in time, keys taken meanwhile):\n" if %{ $oracle->{errors} };
printf "%8d  %s\n", $oracle->{errors}{$_}, $_ for sort keys %{ $oracle->{errors} };
printf "readers failed: %s\n", encode_json($oracle->{reader_errors} || {});
print 'bypasses: ', $oracle->sql('SELECT bypasses_by_reason FROM perfopt.cache_stats'), "\n";
print 'evictions: ', $oracle->sql('SELECT evictions FROM perfopt.cache_stats'), "\n";
printf "compared while a function was replaced or a partition attached, and not counted: %d differences\n", $oracle->{excused};
my @why;
push @why, scalar(@{ $oracle->{mismatches} }) . ' mismatches' if @{ $oracle->{mismatches} };
push @why, "unexpected errors: $_" for sort keys %{ $oracle->{unexpected} || {} };
push @why, 'fewer than half the look-ups were hits' if $rate <= 0.5;
printf "%s: %d hits of %d checked answers%s\n", @why ? 'FAIL' : 'ok', $had, $oracle->{checks}, join '', map { "; $_" } @why;
exit(@why ? 1 : 0);
