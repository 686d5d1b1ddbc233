# The part of "batch" about batched inserts: into a table with a primary key and
# one index, against COPY from a file on the server, unnest(), VALUES of 1,000
# rows a statement and a row at a time from a client, jsonb_to_recordset().
#
#   ROWS=1000000   ROUNDS=5
use strict;
use warnings;
use Bench;
use Time::HiRes 'time';

my $rows = $ENV{ROWS} || 1_000_000;
my $rounds = $ENV{ROUNDS} || 5;
my $client_rows = int($rows / 20);
my (@failed, @passed);
srand(1);
$| = 1;

sub psql
{
	my (@arguments) = @_;
	open my $answer, '-|', "$ENV{BIN}/psql", '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', 'batch_insert', @arguments or die "psql: $!";
	my @lines = <$answer>;
	close $answer or die "failed: @arguments";
	chomp @lines;
	return @lines;
}
sub sql { return psql(map { ('-c', $_) } @_); }
sub progress { printf STDERR "\r\e[K%s", sprintf shift, @_ if -t STDERR; }
sub verdict
{
	my ($good, $text) = @_;
	push @{ $good ? \@passed : \@failed }, $text;
}

print "\nBatched inserts\n";
print 'machine    ', machine(), "\n";
psql('-d', 'postgres', '-c', 'CREATE DATABASE batch_insert');
print 'server     ', (sql('SELECT version()'))[0], "\n";
printf "method     %s rows (id bigint PRIMARY KEY, name text, score int, at timestamptz, an index on score), %d rounds,\n"
  . "           variants in random order, each into the empty table; ratios of CPU time of the backend, paired by\n"
  . "           round: median [95 %% bootstrap interval of the median]\n", thousands($rows), $rounds;

my $file = "$ENV{SCRATCH}/batch_insert.txt";
progress('making %d rows', $rows);
sql('SET client_min_messages = warning', 'CREATE EXTENSION perfopt CASCADE',
	'CREATE TABLE t (id bigint PRIMARY KEY, name text, score int, at timestamptz)', 'CREATE INDEX ON t (score)',
	"CREATE TABLE source AS SELECT i::bigint AS id, 'user ' || i AS name, (i::bigint * 7919 % 1000003)::int AS score,
		timestamptz '2024-01-01' + i * interval '1 s' AS at FROM generate_series(1, $rows) i",
	"COPY source TO '$file'",
	'CREATE TABLE given (ids bigint[], names text[], scores int[], ats timestamptz[], rows t[], objects jsonb)',
	(map { "ALTER TABLE given ALTER $_ SET STORAGE EXTERNAL" } qw(ids names scores ats rows objects)),
	'INSERT INTO given SELECT array_agg(id), array_agg(name), array_agg(score), array_agg(at), array_agg((id, name, score, at)::t), jsonb_agg(to_jsonb(source)) FROM source',
	'VACUUM ANALYZE source, given');
for (
	[ values => sub { "INSERT INTO t VALUES " . join(',', @_) . ";\n" }, 1000, $rows ],
	[ loop => sub { "INSERT INTO t VALUES $_[0];\n" }, 1, $client_rows ])
{
	my ($name, $statement, $size, $number) = @$_;
	open my $in, '<', $file or die "$file: $!";
	open my $out, '>', "$ENV{SCRATCH}/$name.sql" or die $!;
	my @values;
	for my $i (1 .. $number)
	{
		chomp(my $line = <$in>);
		push @values, sprintf("(%s,'%s',%s,'%s')", split /\t/, $line);
		next if @values < $size && $i < $number;
		print $out $statement->(@values);
		@values = ();
	}
	close $out or die $!;
}

my %variant = (
	copy => "COPY t FROM '$file'",
	columns => q(SELECT perfopt.batch_insert('t', '{id,name,score,at}', ids, names, scores, ats) FROM given),
	rows => q(SELECT perfopt.batch_insert('t', rows) FROM given),
	jsonb => q(SELECT perfopt.batch_insert('t', objects) FROM given),
	skip => q(SELECT perfopt.batch_insert('t', rows, on_error => 'skip') FROM given),
	nothing => q(SELECT perfopt.batch_insert('t', rows, on_conflict => 'nothing') FROM given),
	unnest => 'INSERT INTO t SELECT u.* FROM given, unnest(ids, names, scores, ats) AS u',
	unnest_nothing => 'INSERT INTO t SELECT u.* FROM given, unnest(ids, names, scores, ats) AS u ON CONFLICT DO NOTHING',
	recordset => 'INSERT INTO t SELECT r.* FROM given, jsonb_to_recordset(objects) AS r (id bigint, name text, score int, at timestamptz)',
	values => undef,
	loop => undef);
my %wall;
my $cpu = alternate($rounds, [ sort keys %variant ],
	sub {
		my ($name, $round) = @_;
		progress('round %d of %d: %s', $round, $rounds, $name);
		sql('TRUNCATE t', 'CHECKPOINT');
		my $read = q(SELECT split_part(pg_read_file('/proc/self/schedstat'), ' ', 1));
		my @run = $variant{$name} ? ('-c', $variant{$name}) : ('-c', 'BEGIN', '-f', "$ENV{SCRATCH}/$name.sql", '-c', 'COMMIT');
		my $clock = q(SELECT extract(epoch FROM clock_timestamp()));
		my @answers = grep { /^[\d.]+$/ } psql('-c', "SET work_mem = '256MB'", '-c', $clock, '-c', $read, @run, '-c', $read, '-c', $clock);
		die "$name said @answers" if @answers != 4;
		my ($from, $before, $after, $to) = @answers;
		my $number = $name eq 'loop' ? $client_rows : $rows;
		die "$name inserted something else" if (sql('SELECT count(*) FROM t'))[0] != $number;
		push @{ $wall{$name} }, ($to - $from) * $rows / $number;
		return ($after - $before) / 1e6 * $rows / $number;
	});
progress('');

printf "\n  %-44s %10s %12s   %s\n", '', 'CPU ms', 'rows/s', 'times as fast';
my $line = sub {
	my ($text, $name, @bases) = @_;
	my @first;
	for my $base (@bases)
	{
		my @ratio = paired_ratio($cpu, $base, $name);
		@first = @ratio unless @first;
		printf "  %-44s %10s %12s   %.2f [%.2f %.2f] of %s\n",
		  $base eq $bases[0] ? ($text, thousands(median(@{ $cpu->{$name} })), thousands($rows / median(@{ $wall{$name} }))) : ('', '', ''),
		  @ratio, $base;
	}
	printf "  %-44s %10s %12s\n", $text, thousands(median(@{ $cpu->{$name} })), thousands($rows / median(@{ $wall{$name} })) unless @bases;
	return $first[0];
};
$line->('COPY from a text file', 'copy');
my $columns = $line->('batch_insert, columns', 'columns', 'copy', 'unnest', 'values', 'loop');
my $composites = $line->('batch_insert, rows of the table', 'rows', 'copy');
$line->('  with on_error skip', 'skip', 'copy');
$line->('  with on_conflict nothing', 'nothing', 'unnest_nothing');
my $jsonb = $line->('batch_insert, jsonb', 'jsonb', 'recordset', 'copy');
$line->('INSERT ... unnest', 'unnest', 'copy');
$line->('INSERT ... unnest ON CONFLICT DO NOTHING', 'unnest_nothing');
$line->('INSERT ... jsonb_to_recordset', 'recordset');
$line->('INSERT ... VALUES, 1,000 rows each, psql', 'values', 'copy');
$line->('INSERT, a row each, psql, one transaction', 'loop', 'copy');
print '  (a row each: measured with ', thousands($client_rows), " rows, and multiplied)\n\n";

verdict($columns >= 1, sprintf 'from columns it is %.2f times as fast as COPY (1.0 or more)', $columns);
verdict($composites >= 1, sprintf 'from rows it is %.2f times as fast as COPY (1.0 or more)', $composites);
verdict($jsonb >= 1.5, sprintf 'from jsonb it is %.2f times as fast as jsonb_to_recordset (1.5 or more)', $jsonb);
print "ok     $_\n" for @passed;
print "MISSED $_\n" for @failed;
exit(@failed ? 1 : 0);
