#!/usr/bin/perl
# Buffered inserts of many clients beside INSERTs of one row each, with
# synchronous_commit on and off: rows a second, from the first one put to the
# last one stored.
use strict;
use warnings;
use Bench;
use Time::HiRes 'time';

my $rounds = $ENV{ROUNDS} || 5;
my $seconds = $ENV{SECONDS_PER_RUN} || 3;
my $failed = 0;
srand(1);
$| = 1;

sub psql
{
	my (@commands) = @_;
	open my $answer, '-|', "$ENV{BIN}/psql", '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', 'buffer', map { ('-c', $_) } @commands
	  or die "psql: $!";
	my @lines = <$answer>;
	close $answer or die "failed: @commands";
	chomp @lines;
	return join "\n", @lines;
}
sub progress { printf STDERR "\r\e[K%s", sprintf shift, @_ if -t STDERR; }

system("$ENV{BIN}/createdb", 'buffer') == 0 or die 'createdb failed';
psql('SET client_min_messages = warning', 'CREATE EXTENSION perfopt CASCADE',
	'CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id integer, amount numeric, at timestamptz DEFAULT now(), note text)',
	'CREATE INDEX ON plain (user_id)',
	'CREATE TABLE heavy (LIKE plain INCLUDING ALL)',
	'CREATE INDEX ON heavy (at)', 'CREATE INDEX ON heavy (amount)', 'CREATE INDEX ON heavy (user_id, at)', 'CREATE INDEX ON heavy (md5(note))',
	q{CREATE FUNCTION clean() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.note := trim(new.note); RETURN new; END $$},
	'CREATE TRIGGER clean BEFORE INSERT ON heavy FOR EACH ROW EXECUTE FUNCTION clean()');

my %name = (insert_on => 'INSERT, synchronous_commit = on', insert_off => 'INSERT, synchronous_commit = off',
	ack => 'buffer_insert, ack', durable => 'buffer_insert, durable', lossy => 'buffer_insert, lossy');
my @variants = qw(insert_on insert_off ack durable lossy);
my $set = "\\set user_id random(1, 100000)\n\\set amount random(1, 100000)\n";
my $note = "'a note of a row, as long as notes are'";

# Rows a second, until all of them are stored
sub rate
{
	my ($variant, $table, $clients) = @_;
	my $script = "$ENV{SCRATCH}/$variant.sql";
	open my $file, '>', $script or die $!;
	print $file $set, $variant =~ /^insert/
	  ? "INSERT INTO $table (user_id, amount, note) VALUES (:user_id, :amount, $note);\n"
	  : "SELECT perfopt.buffer_insert('$table', jsonb_build_object('user_id', :user_id::integer, 'amount', :amount::integer, 'note', $note), '$variant');\n";
	close $file;
	psql("TRUNCATE $table", 'CHECKPOINT');
	local $ENV{PGOPTIONS} = $variant eq 'insert_off' ? '-c synchronous_commit=off' : '';
	my $began = time;
	pgbench_tps("$ENV{BIN}/pgbench", '-n', '-M' => 'prepared', '-T' => $seconds, '-c' => $clients, '-j' => $clients < 2 ? 1 : 2,
		'-f' => $script, 'buffer');
	psql('SELECT perfopt.flush()') unless $variant =~ /^insert/;
	my $elapsed = time - $began;
	return psql("SELECT count(*) FROM $table") / $elapsed;
}

print "\nBuffered inserts\n\n", 'machine    ', machine(), "\n", 'server     ', psql('SELECT version()'), "\n",
  "method     $rounds rounds of $seconds s, variants alternate in random order; ratios are paired by round:\n",
  "           median [95 % bootstrap interval]\n";
foreach my $case ([ 'plain', 16, 'a primary key and one index' ], [ 'heavy', 16, 'a primary key, five indexes and a trigger' ], [ 'plain', 1, 'a primary key and one index' ])
{
	my ($table, $clients, $what) = @$case;
	my $values = alternate($rounds, \@variants, sub {
			my ($variant, $round) = @_;
			progress('%s, %d clients, round %d of %d: %s', $table, $clients, $round, $rounds, $variant);
			return rate($variant, $table, $clients);
		});
	progress('');
	printf "\n%d client%s, a table with %s\n\n  %-34s %10s   %-22s %s\n", $clients, $clients > 1 ? 's' : '', $what, '', 'rows a s', 'of INSERT, on', 'of INSERT, off';
	foreach my $variant (@variants)
	{
		printf "  %-34s %10s   %-22s %s\n", $name{$variant}, thousands(median(@{ $values->{$variant} })),
		  map { sprintf '%.2f [%.2f %.2f]', paired_ratio($values, $variant, $_) } 'insert_on', 'insert_off';
	}
}
my ($inserted, $rejected, $lost, $flushes) = split /\|/, psql('SELECT sum(inserted), sum(rejected), sum(lost), sum(flushes) FILTER (WHERE mode = \'ack\') FROM perfopt.insert_buffers');
printf "\n%s rows were buffered, %d rejected, %d lost\n", thousands($inserted), $rejected, $lost;
$failed = 1 if $rejected || $lost;
exit $failed;
