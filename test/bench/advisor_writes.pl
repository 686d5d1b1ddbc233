# The part of "advisor" about writes: a table that is updated all the time and
# asked for its stalest rows now and then.  An index would help the question and
# hurt every update, which could no longer be HOT.  It is not to be advised; it
# is when the same question is asked of the same table with few updates.
#
#   ROWS=200000 ROUNDS=5 WRITE_SECONDS=6
use strict;
use warnings;
use Bench;
use DBI;
use Time::HiRes 'time';

my $rows = $ENV{ROWS} || 200000;
my $rounds = $ENV{ROUNDS} || 5;
my $seconds = $ENV{WRITE_SECONDS} || 6;
$| = 1;

sub progress { printf STDERR "\r\e[K%s", @_ ? sprintf(shift, @_) : '' if -t STDERR; }
sub connect_to { return DBI->connect("dbi:Pg:dbname=$_[0];host=$ENV{PGHOST}" . ($ENV{PGPORT} ? ";port=$ENV{PGPORT}" : ''), 'postgres', '',
	{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_server_prepare => 0 }); }
# pgbench(SECONDS or -TRANSACTIONS, ...): what it says
sub pgbench
{
	my ($length, @arguments) = @_;
	open my $output, '-|', "$ENV{BIN}/pgbench", '-n', '-c', 2, '-j', 2, $length < 0 ? ('-t', -$length / 2) : ('-T', $length), @arguments, 'bench_writes' or die "pgbench: $!";
	local $/;
	my $said = <$output>;
	close $output or die "pgbench failed:\n$said";
	return $said;
}

my $question = q(SELECT id, label FROM gauges WHERE touched_at < timestamp '2024-01-01 00:20' ORDER BY touched_at LIMIT 20);
my $index = 'CREATE INDEX gauges_touched_at ON gauges (touched_at)';
Bench::spew("$ENV{SCRATCH}/update.sql", "\\set id random(1000, $rows)\nUPDATE gauges SET value = value + 1, touched_at = timestamp '2025-01-01' + :id * interval '1 ms' WHERE id = :id;\n");
Bench::spew("$ENV{SCRATCH}/question.sql", "$question;\n");

my $any = connect_to('postgres');
my @cases;
for my $case ([ 'written all the time', 100_000, 10 ], [ 'hardly written', 200, 100 ])
{
	my ($name, $updates, $asked) = @$case;
	progress('%s', $name);
	$any->do('DROP DATABASE IF EXISTS bench_writes');
	$any->do('CREATE DATABASE bench_writes');
	my $db = connect_to('bench_writes');
	$db->do('SET client_min_messages = warning');
	$db->do('CREATE EXTENSION perfopt CASCADE');
	$db->do("CREATE TABLE gauges (id int PRIMARY KEY, value bigint NOT NULL, touched_at timestamp NOT NULL, label text NOT NULL) WITH (fillfactor = 50)");
	$db->do("INSERT INTO gauges SELECT i, 0, timestamp '2024-01-01' + i * interval '1 min', repeat('g', 60) FROM generate_series(1, $rows) i");
	$db->do('VACUUM ANALYZE gauges');
	$db->do('SELECT pg_stat_force_next_flush()');
	$db->do('SELECT perfopt.analyze_now()');
	$db->do('SELECT perfopt.reset_latency()');
	pgbench(-$updates, '-M', 'prepared', '-f', "$ENV{SCRATCH}/update.sql");
	# planned each time: what is planned once for all is seen only when more sessions do so
	pgbench(-$asked, '-M', 'extended', '-f', "$ENV{SCRATCH}/question.sql");
	$db->do('SELECT perfopt.analyze_now()');
	my $advised = $db->selectcol_arrayref(q(SELECT ddl FROM perfopt.advice WHERE kind = 'create_index' AND status = 'open'));
	my ($hot) = $db->selectrow_array(q(SELECT round(100.0 * n_tup_hot_upd / n_tup_upd, 1) FROM pg_stat_user_tables WHERE relname = 'gauges'));
	my %values;
	for my $round (1 .. $rounds)
	{
		for my $with (0, 1)
		{
			progress('%s, round %d of %d, %s', $name, $round, $rounds, $with ? 'with the index' : 'without');
			$db->do($index) if $with;
			$db->do('VACUUM ANALYZE gauges');
			pgbench($seconds, '-M', 'prepared', '-f', "$ENV{SCRATCH}/update.sql") =~ /^latency average = ([\d.]+) ms/m;
			push @{ $values{update}{ $with ? 'with' : 'without' } }, $1;
			pgbench(-40, '-M', 'prepared', '-f', "$ENV{SCRATCH}/question.sql") =~ /^latency average = ([\d.]+) ms/m;
			push @{ $values{question}{ $with ? 'with' : 'without' } }, $1;
			$db->do('DROP INDEX gauges_touched_at') if $with;
		}
	}
	push @cases, { name => $name, updates => $updates, asked => $asked, advised => $advised, hot => $hot, values => \%values };
	$db->disconnect;
}
$any->do('DROP DATABASE bench_writes');
progress();

print "\nA table that is written, ", thousands($rows), ' rows: ', $question, "\n";
print 'machine    ', machine(), "\n";
print "method     ms of each statement, 2 clients, without the index and with it in turn, $rounds rounds; the whole: what that workload takes\n\n";
printf "%-22s %10s %8s %6s %18s %20s %28s  %s\n", '', 'updates', 'asked', 'HOT %', 'update ms, with', 'question ms, with', 'whole with / without', 'advised';
my $failed = 0;
my @goals;
for my $case (@cases)
{
	my ($update, $question) = map { my $v = $_; +{ map { $_ => median(@{ $v->{$_} }) } keys %$v } } @{ $case->{values} }{qw(update question)};
	my %whole = map { my $with = $_; $with => [ map { $case->{updates} * $case->{values}{update}{$with}[$_] + $case->{asked} * $case->{values}{question}{$with}[$_] } 0 .. $rounds - 1 ] } qw(with without);
	my @ratio = paired_ratio(\%whole, 'with', 'without');
	printf "%-22s %10s %8s %6s %18s %20s %28s  %s\n", $case->{name}, thousands($case->{updates}), thousands($case->{asked}), $case->{hot} // '',
	  sprintf('%.3f, %.3f', @$update{qw(without with)}), sprintf('%.2f, %.2f', @$question{qw(without with)}), sprintf('%.2f [%.2f %.2f]', @ratio), join('; ', @{ $case->{advised} }) || 'nothing';
	my $good = $ratio[0] < 1;
	push @goals, [ $good == (@{ $case->{advised} } > 0), "$case->{name}: the index would " . ($good ? 'help' : 'hurt') . ', and is ' . (@{ $case->{advised} } ? '' : 'not ') . 'advised' ];
}
print "\n";
for (@goals) { printf "%s: %s\n", $_->[0] ? 'ok' : 'FAIL', $_->[1]; $failed ||= !$_->[0]; }
exit $failed;
