# See test/bench/prices.
use strict;
use warnings;
use Prices qw(data_sets make_data compare_prices);
use Time::HiRes qw(time);

my $rows = $ENV{ROWS} || 300000;
my $sets = $ENV{SETS};
my $session = sub {
	my ($sql) = @_;
	open(my $out, '-|', $ENV{PSQL} || 'psql', qw(-XAtq -v ON_ERROR_STOP=1 -c), $sql) or die "psql: $!";
	my @lines = <$out>;
	close($out) or die "failed: $sql";
	chomp @lines;
	return $lines[-1] // '';
};
my ($sizes_good, $sizes_all, $costs_good, $costs_all, $costs_used, $used_good) = (0) x 6;
my @beyond;
for my $set (data_sets())
{
	next if $sets && " $sets " !~ / $set->[0] /;
	my $started = time;
	make_data($session, $set, $rows);
	my ($sizes, $costs) = compare_prices($session, $set, $rows);
	for my $size (@$sizes)
	{
		my $off = $size->{estimated} / $size->{real} - 1;
		$sizes_all++;
		$sizes_good++ if abs($off) <= 0.15;
		printf "%-52s real %9d  estimated %9d  %+6.1f %%%s\n", $size->{index}, $size->{real}, $size->{estimated},
			100 * $off, abs($off) <= 0.15 ? '' : '   <--';
	}
	for my $cost (@$costs)
	{
		my $off = $cost->{real} eq '' || $cost->{estimated} eq '' ? 9 : $cost->{estimated} / $cost->{real} - 1;
		my $used = abs($cost->{without} / ($cost->{real} || 1) - 1) > 0.001 || abs($off) > 0.001;
		$costs_all++;
		$costs_good++ if abs($off) <= 0.10;
		$costs_used++ if $used;
		$used_good++ if $used && abs($off) <= 0.10;
		push @beyond, sprintf("%-40s %s\n    real %.2f, estimated %.2f (%+.1f %%), without %.2f", $cost->{index}, $cost->{query},
			$cost->{real} || 0, $cost->{estimated} || 0, 100 * $off, $cost->{without} || 0) if abs($off) > 0.10;
	}
	printf STDERR "%s: %.1f s\n", $set->[0], time - $started;
}
print "\nCosts more than 10 % off:\n", map { "$_\n" } @beyond if @beyond;
printf "\nSizes within 15 %%: %d of %d\n", $sizes_good, $sizes_all;
printf "Costs within 10 %%: %d of %d (%.1f %%); of those where the plan uses the index: %d of %d (%.1f %%)\n", $costs_good, $costs_all,
	100 * $costs_good / $costs_all, $used_good, $costs_used, 100 * $used_good / ($costs_used || 1);
exit($sizes_good == $sizes_all && $used_good >= 0.9 * $costs_used ? 0 : 1);
