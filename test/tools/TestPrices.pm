# TestPrices.pm: the short form of test/bench/prices as a test; fewer rows, but
# more than a sample has, and the same limits.
package TestPrices;

use strict;
use warnings;
use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(start_server prices_agree);

my $root = $ENV{PERFOPT_ROOT} || '.';
require "$root/test/bench/lib/Prices.pm";

# start_server(NAME, CONF): the node, with the functions of tools/advisor.sql, and
# what runs SQL there.
sub start_server
{
	my ($name, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init;
	$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
	$node->append_conf('postgresql.conf', "perfopt.advice_interval = 0\nautovacuum = off\nfsync = off\n$conf");
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
	$node->safe_psql('postgres', slurp_file("$root/test/tools/advisor.sql"));
	return ($node, sub { $node->safe_psql('postgres', $_[0]) });
}

# prices_agree(SQL, ROWS, SETS): sizes within 15 % or a page, nine of ten costs,
# of those that the index makes a difference to, within 10 %.
sub prices_agree
{
	my ($sql, $rows, @sets) = @_;
	my ($good, $all) = (0, 0);
	for my $set (@sets)
	{
		Prices::make_data($sql, $set, $rows);
		my ($sizes, $costs) = Prices::compare_prices($sql, $set, $rows);
		my @beyond = grep { abs($_->{estimated} / $_->{real} - 1) > 0.15 && abs($_->{estimated} - $_->{real}) > 8192 } @$sizes;
		is(scalar(@beyond), 0, "sizes of $set->[0]")
		  or diag(map { "$_->{index}: real $_->{real}, estimated $_->{estimated}\n" } @beyond);
		for my $cost (@$costs)
		{
			next if abs($cost->{without} / $cost->{real} - 1) < 0.001 && abs($cost->{estimated} / $cost->{real} - 1) < 0.001;
			$all++;
			if (abs($cost->{estimated} / $cost->{real} - 1) <= 0.10) { $good++ }
			else { note("$cost->{index}: $cost->{query}: real $cost->{real}, estimated $cost->{estimated}") }
		}
	}
	cmp_ok($good, '>=', 0.9 * $all, "costs: $good of $all are within 10 %");
}

1;
