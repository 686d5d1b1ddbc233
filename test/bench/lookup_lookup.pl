# The part of "lookup" about look-ups: the users and orders of the demo, 10 and
# 5,000 keys, perfopt's functions beside a join, LATERAL, = ANY with GROUP BY,
# row_number() and a query for each key, all by one client over a Unix socket.
#
#   ROUNDS=12
use strict;
use warnings;
use Bench;
use DBI;
use Time::HiRes 'time';

my $rounds = $ENV{ROUNDS} || 12;
my $limit = 1.05;
my (@failed, @passed, @losses);
srand(1);
$| = 1;

sub psql
{
	my (@arguments) = @_;
	open my $said, '-|', "$ENV{BIN}/psql", '-Xq', '-v', 'ON_ERROR_STOP=1', @arguments or die "psql: $!";
	my @lines = <$said>;
	close $said or die "psql @arguments failed:\n@lines";
}
sub progress { printf STDERR "\r\e[K%s", sprintf shift, @_ if -t STDERR; }

progress('100,000 users and 2,000,000 orders');
psql('-c', 'CREATE DATABASE bench_lookup');
psql('-d', 'bench_lookup', '-c', 'SET client_min_messages = warning', '-c', 'CREATE EXTENSION perfopt CASCADE',
	'-f', 'test/demo/data.sql', '-c', 'CREATE INDEX ON orders (user_id)', '-c', 'VACUUM ANALYZE orders', '-c', 'CHECKPOINT');
my $db = DBI->connect("dbi:Pg:dbname=bench_lookup;host=$ENV{PGHOST}", 'postgres', '',
	{ RaiseError => 1, PrintError => 0, AutoCommit => 1, pg_server_prepare => 1, pg_switch_prepared => 1 });
# all of it into memory
$db->do($_) for 'SET max_parallel_workers_per_gather = 0', 'SET synchronize_seqscans = off', 'SET enable_seqscan = off', 'SELECT sum(total_cents) FROM orders WHERE user_id > 0',
  'RESET enable_seqscan', 'SELECT sum(total_cents), max(address) FROM orders', 'SELECT max(bio) FROM users', 'RESET max_parallel_workers_per_gather';

my $ids = 'unnest($1::bigint[]) WITH ORDINALITY AS k (id, n)';
my %statement = (
	aggregates => [
		[ perfopt => q(SELECT * FROM perfopt.lookup_aggregates('users', $1::bigint[], 'orders', '{count(*),sum(total_cents)}') AS t (key bigint, count bigint, sum bigint)),
			'perfopt.lookup_aggregates' ],
		[ join => "SELECT k.id, count(o.id), sum(o.total_cents) FROM $ids LEFT JOIN orders o ON o.user_id = k.id GROUP BY k.n, k.id ORDER BY k.n",
			'unnest(keys) LEFT JOIN orders GROUP BY' ],
		[ users => 'SELECT u.id, count(o.id), sum(o.total_cents) FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE u.id = ANY ($1::bigint[]) GROUP BY u.id',
			'users LEFT JOIN orders GROUP BY, no order' ],
		[ lateral => "SELECT k.id, o.* FROM $ids CROSS JOIN LATERAL (SELECT count(*), sum(total_cents) FROM orders WHERE user_id = k.id) o ORDER BY k.n",
			'unnest(keys), LATERAL' ],
		[ any => 'SELECT user_id, count(*), sum(total_cents) FROM orders WHERE user_id = ANY ($1::bigint[]) GROUP BY user_id',
			'= ANY, GROUP BY: no order, no empty ones' ],
		[ loop => 'SELECT count(*), sum(total_cents) FROM orders WHERE user_id = $1', 'a query for each key (N+1)' ] ],
	fetch => [
		[ perfopt => q(SELECT * FROM perfopt.fetch_many(NULL::users, $1::bigint[])), 'perfopt.fetch_many' ],
		[ join => "SELECT u.* FROM $ids LEFT JOIN users u ON u.id = k.id ORDER BY k.n", 'unnest(keys) LEFT JOIN users ORDER BY' ],
		[ any => 'SELECT * FROM users WHERE id = ANY ($1::bigint[])', '= ANY: no order, no missing ones' ],
		[ loop => 'SELECT * FROM users WHERE id = $1', 'a query for each key (N+1)' ] ],
	children => [
		[ perfopt => q(SELECT * FROM perfopt.lookup_children('users', $1::bigint[], 'orders', '{id,total_cents,created_at}', 'created_at DESC', 5)
			AS t (key bigint, id bigint, total_cents int, created_at timestamptz)), 'perfopt.lookup_children' ],
		[ lateral => "SELECT k.id, o.* FROM $ids CROSS JOIN LATERAL (SELECT id, total_cents, created_at FROM orders WHERE user_id = k.id ORDER BY created_at DESC LIMIT 5) o ORDER BY k.n, o.created_at DESC",
			'unnest(keys), LATERAL ... LIMIT 5' ],
		[ number => "SELECT k.id, o.id, o.total_cents, o.created_at FROM $ids JOIN (SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY created_at DESC) AS r FROM orders WHERE user_id = ANY (\$1::bigint[])) o ON o.user_id = k.id WHERE r <= 5 ORDER BY k.n, r",
			'row_number() <= 5' ],
		[ loop => 'SELECT id, total_cents, created_at FROM orders WHERE user_id = $1 ORDER BY created_at DESC LIMIT 5', 'a query for each key (N+1)' ] ]);
my %base = (aggregates => 'join', fetch => 'join', children => 'lateral');
my %title = (aggregates => 'count(*) and sum(total_cents) for each user', fetch => 'users by key', children => 'the newest 5 orders of each user');

# a set of keys as the array's literal
sub keys_of
{
	my ($number) = @_;
	my %key;
	$key{ 1 + int rand 100_000 } = 1 while keys %key < $number;
	return [ keys %key ];
}

my (%prepared, $rows);
# ask(WHAT, NAME, PREPARED, KEYS): runs it, and takes all of its answer to the client
sub ask
{
	my ($what, $name, $prepare, $keys, $collect) = @_;
	my ($text) = map { $_->[1] } grep { $_->[0] eq $name } @{ $statement{$what} };
	my $array = '{' . join(',', @$keys) . '}';
	my $query = $prepared{"$what $name"} ||= $db->prepare($text);
	my @answer;
	if ($name eq 'loop')
	{
		for my $key (@$keys)
		{
			if ($prepare) { $query->execute($key); }
			else
			{
				(my $literal = $text) =~ s/\$1/$key/;
				$query = $db->prepare($literal, { pg_server_prepare => 0 });
				$query->execute;
			}
			push @answer, map { [ $what eq 'fetch' ? () : $key, @$_ ] } @{ $query->fetchall_arrayref } if $collect;
		}
	}
	elsif ($prepare) { $query->execute($array); }
	else
	{
		(my $literal = $text) =~ s/\$1/'$array'/g;
		$query = $db->prepare($literal, { pg_server_prepare => 0 });
		$query->execute;
	}
	return unless $collect;
	@answer = @{ $query->fetchall_arrayref } unless $name eq 'loop';
	return join "\n", sort map { join '|', map { $_ // '' } @$_ } @answer;
}

print "\nLook-ups\n";
print 'machine    ', machine(), "\n";
print 'server     ', $db->selectrow_array('SELECT version()'), "\n";
print "settings   shared_buffers = 1GB, autovacuum = off, jit = off, else defaults; all in memory\n";
printf "method     users and orders of the demo (100,000 and 2,000,000), an index on orders (user_id); one client (libpq, DBD::Pg)\n"
  . "           over a Unix socket, on the clock from the query to its whole result; %d rounds, variants in random order, random\n"
  . "           keys, the same for all variants of a round; ratios paired by round: median [95 %% bootstrap interval of the median] (min max)\n", $rounds;

for my $what (qw(aggregates fetch children))
{
	my @names = map { $_->[0] } @{ $statement{$what} };
	my %text = map { $_->[0] => $_->[2] } @{ $statement{$what} };
	my $sample = keys_of(500);
	my $answer = ask($what, $base{$what}, 1, $sample, 1);
	for my $name (@names)
	{
		for my $prepare (0, 1) { die "$what: $name answers something else" if ask($what, $name, $prepare, $sample, 1) ne $answer; }
	}
	for my $number (10, 5000)
	{
		my $calls = $number == 10 ? 50 : 1;
		my %sets;
		my @variants = map { ("$_ 1", $_ eq 'loop' ? () : "$_ 0") } @names;
		# as long as a session has had them: the plans of prepared statements are settled after five
		for my $variant (@variants) { ask($what, split(/ /, $variant), keys_of($number)) for 1 .. 7; }
		my $time = alternate($rounds, \@variants,
			sub {
				my ($variant, $round) = @_;
				my ($name, $prepare) = split / /, $variant;
				progress('%s, %d keys, round %d of %d: %s', $what, $number, $round, $rounds, $variant);
				my $sets = $sets{$round} ||= [ map { keys_of($number) } 1 .. $calls ];
				my $from = time;
				ask($what, $name, $prepare, $_) for @$sets;
				return (time - $from) / $calls * 1000;
			});
		progress('');
		printf "\n  %s: %s keys\n  %-43s %9s %-9s   %s\n", $title{$what}, thousands($number), '', 'ms a call', '', "perfopt's time, of this one's";
		for my $variant (@variants)
		{
			my ($name, $prepare) = split / /, $variant;
			my @times = sort { $a <=> $b } @{ $time->{$variant} };
			my $against = '';
			if ($name ne 'perfopt')
			{
				# a loop is always of prepared statements
				my $mine = "perfopt $prepare";
				my @ratio = paired_ratio($time, $mine, $variant);
				my @each = sort { $a <=> $b } map { $time->{$mine}[$_] / $time->{$variant}[$_] } 0 .. $#times;
				$against = sprintf '%.3f [%.3f %.3f] (%.3f %.3f)', @ratio, @each[ 0, -1 ];
				my $is = sprintf '%s of %s keys, %s: %.3f of the time of %s', $what, thousands($number), $prepare ? 'prepared' : 'not prepared', $ratio[0], $text{$name};
				if ($what eq 'aggregates' && $name =~ /^(join|users)$/) { push @{ $ratio[0] <= $limit ? \@passed : \@failed }, "$is ($limit or less)"; }
				elsif ($ratio[1] > 1) { push @losses, $is; }
			}
			printf "  %-43s %9.3f %-9s   %s\n", $text{$name}, median(@times), $prepare ? 'prepared' : '', $against;
		}
	}
}

print "\n";
print "slower $_\n" for @losses;
print "ok     $_\n" for @passed;
print "MISSED $_\n" for @failed;
exit(@failed ? 1 : 0);
