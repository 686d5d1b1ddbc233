# GIN and BRIN: what such an index would weigh and be worth, against real ones;
# and which are candidates for a statement.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
require "$root/test/bench/lib/Prices.pm";
my $node = PostgreSQL::Test::Cluster->new('methods');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "perfopt.advice_interval = 0\nautovacuum = off\nfsync = off\nmaintenance_work_mem = 4MB\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/advisor.sql"));
my $sql = sub { $node->safe_psql('postgres', $_[0]) };

# The short form of the benchmark: more rows than a sample has, and so little
# memory that the keys of an index are put into it in several goes.
my $rows = 40000;
my ($good, $all) = (0, 0);
for my $set (grep { $_->[0] =~ /^(?:documents|words|log)$/ } Prices::data_sets())
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

$node->stop;
done_testing();
