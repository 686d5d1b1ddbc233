# TPC-H for test/bench/advisor_tpch.pl: the data and the queries of a dbgen and
# qgen that stand in the directory DBGEN.
package Tpch;
use strict;
use warnings;
use Exporter 'import';
our @EXPORT_OK = qw(tpch_load tpch_queries tpch_missing);

my @tables = qw(region nation supplier customer part partsupp orders lineitem);
# without those that take minutes or hours as long as there is no index
my @numbers = (1, 3 .. 16, 18, 19, 21, 22);

# What is missing of them, in words; or undef
sub tpch_missing
{
	my ($directory) = @_;
	return 'DBGEN is not set' unless $directory;
	for my $file (qw(dbgen qgen dists.dss dss.ddl queries/1.sql variants/15a.sql))
	{
		return "there is no $directory/$file" unless -e "$directory/$file";
	}
	return undef;
}

# tpch_load(DBGEN, SCALE, SCRATCH, sub(SQL, FILE)): the sub runs the SQL with the file as its input
sub tpch_load
{
	my ($directory, $scale, $scratch, $run) = @_;
	open my $ddl, '<', "$directory/dss.ddl" or die "$directory/dss.ddl: $!";
	local $/;
	$run->(scalar <$ddl>);
	local $ENV{DSS_PATH} = $scratch;
	system("$directory/dbgen", '-q', '-f', '-s', $scale, '-b', "$directory/dists.dss") == 0 or die 'dbgen failed';
	for my $table (@tables)
	{
		# dbgen ends each line with a delimiter, too
		$run->("COPY $table FROM STDIN WITH (DELIMITER '|')", "sed 's/|\$//' '$scratch/$table.tbl'");
		unlink "$scratch/$table.tbl";
	}
	$run->('VACUUM (FREEZE, ANALYZE)');
}

# The 19 queries with their default parameters: { 'Q01' => text, ... }
sub tpch_queries
{
	my ($directory, $scale) = @_;
	my %query;
	for my $number (@numbers)
	{
		# Q15 as one statement, which the standard has as a variant
		local $ENV{DSS_QUERY} = "$directory/" . ($number == 15 ? 'variants' : 'queries');
		my $name = $number == 15 ? '15a' : $number;
		open my $said, '-|', "$directory/qgen", '-d', '-s', $scale, '-b', "$directory/dists.dss", $name or die "qgen: $!";
		my $text = join '', grep { !/^--/ } <$said>;
		close $said or die "qgen $name failed";
		for ($text)
		{
			s/ day \(3\)/ day/;
			s/;\s*limit -1;//;
			s/;\s*(limit \d+);/ $1/;
			s/^\s+|[\s;]+$//g;
			s/\s+/ /g;
		}
		$query{ sprintf 'Q%02d', $number } = $text;
	}
	return \%query;
}

1;
