# The measuring part of "cache", which starts the servers.
use strict;
use warnings;
use Bench;
use List::Util 'shuffle';

my $rounds = $ENV{ROUNDS} || 10;
my $seconds = $ENV{SECONDS_PER_RUN} || 2;
my $tpcb_rounds = $ENV{TPCB_ROUNDS} || 10;
my $tpcb_seconds = $ENV{TPCB_SECONDS} || 3;
my $scale = $ENV{SCALE};
my %part = map { $_ => 1 } split ' ', $ENV{PARTS} || 'read tpcb bulk';
my $least_ratio = 0.6;
my $largest_loss = 0.05;
my (@failed, @passed);
srand(1);
$| = 1;

sub psql
{
	my ($database, @commands) = @_;
	open my $answer, '-|', "$ENV{BIN}/psql", '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $database, map { ('-c', $_) } @commands
	  or die "psql: $!";
	my @lines = <$answer>;
	close $answer or die "failed: @commands";
	chomp @lines;
	return join "\n", @lines;
}

sub tps
{
	my ($database, $duration, $clients, @options) = @_;
	return pgbench_tps("$ENV{BIN}/pgbench", '-n', '-M' => 'prepared', '-T' => $duration, '-c' => $clients,
		'-j' => ($clients < machine_cpus() ? $clients : machine_cpus()), @options, $database);
}

sub progress { printf STDERR "\r\e[K%s", sprintf shift, @_ if -t STDERR; }

sub verdict
{
	my ($good, $text) = @_;
	push @{ $good ? \@passed : \@failed }, $text;
}

print 'machine    ', machine(), "\n";
print 'server     ', psql('postgres', 'SELECT version()'), "\n";
print 'settings   ', psql('postgres', q(SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name)
	FROM pg_settings WHERE source = 'configuration file' AND name NOT LIKE 'lc%' AND name NOT IN
	('port', 'unix_socket_directories', 'listen_addresses', 'log_timezone', 'TimeZone', 'DateStyle', 'default_text_search_config'))), "\n";
print "method     variants alternate within each round, in random order; ratios are paired by round:\n",
  "           median [95 % bootstrap interval of the median]\n";

# ---- reading

sub reading
{
	psql('postgres', 'CREATE DATABASE reading');
	psql('reading', 'SET client_min_messages = warning', 'CREATE EXTENSION perfopt CASCADE',
		'CREATE TABLE sale AS SELECT i AS id, i % 10 AS region, i % 997 AS amount FROM generate_series(1, 40000) i',
		'CREATE TABLE item AS SELECT i AS id, 1 + i % 1000 AS category, \'item \' || i AS name, i * 3 AS price FROM generate_series(1, 20000) i',
		'ALTER TABLE item ADD PRIMARY KEY (id)', 'CREATE INDEX ON item (category)',
		'VACUUM FREEZE ANALYZE',
		q(SELECT perfopt.cache_track('sale'), perfopt.cache_track('item', '{id,category}')));

	my $aggregate = 'SELECT region, count(*) AS sales, sum(amount) AS amount FROM sale GROUP BY region ORDER BY region';
	my $twenty = 'SELECT id, name, price FROM item WHERE category = %s ORDER BY id';
	my $by_key = 'SELECT name, price FROM item WHERE id = %s';
	my $key = "\\set key random(1, 1000)\n";
	my %script = (
		select_1 => 'SELECT 1;',
		aggregate => "$aggregate;",
		aggregate_cached => "SELECT * FROM perfopt.cached('$aggregate') AS t (region integer, sales bigint, amount bigint);",
		aggregate_json => "SELECT perfopt.cached_json('$aggregate');",
		twenty => $key . sprintf("$twenty;", ':key'),
		twenty_cached => $key . sprintf("SELECT * FROM perfopt.cached('$twenty', ROW(:key::integer)) AS t (id integer, name text, price integer);", '$1'),
		by_key => $key . sprintf("$by_key;", ':key'),
		by_key_cached => $key . sprintf("SELECT * FROM perfopt.cached('$by_key', ROW(:key::integer)) AS t (name text, price integer);", '$1'));
	for my $name (keys %script)
	{
		open my $file, '>', "$ENV{SCRATCH}/$name.sql" or die $!;
		print $file $script{$name}, "\n";
		close $file;
	}
	# every result once
	psql('reading', $script{aggregate_cached}, $script{aggregate_json},
		map { my $sql = $_; $sql =~ s/^\\set.*\n//; $sql =~ s/:key/key/; "SELECT count(*) FROM generate_series(1, 1000) key, LATERAL ($sql) x" =~ s/;\)/)/r }
		@script{qw(twenty_cached by_key_cached)});

	# Redis has the bytes that a client gets as JSON
	my $json = psql('reading', "SELECT perfopt.cached_json('$aggregate')");
	open my $redis, '|-', "redis-cli -s '$ENV{REDIS_SOCKET}' -x SET aggregate >$ENV{SCRATCH}/redis.log" or die "redis-cli: $!";
	print $redis $json;
	close $redis or die 'redis-cli failed';

	my $before = psql('reading', 'SELECT hits || \' \' || misses + bypasses FROM perfopt.cache_stats');
	my $values = alternate($rounds, [ sort(keys %script), 'redis' ],
		sub {
			my ($variant, $round) = @_;
			progress('reading, round %d of %d: %s', $round, $rounds, $variant);
			return tps('reading', $seconds, 1, '-f' => "$ENV{SCRATCH}/$variant.sql") unless $variant eq 'redis';
			my $requests = 20000 * $seconds;
			my ($rate) = qx(redis-benchmark -s "$ENV{REDIS_SOCKET}" -c 1 -n $requests --csv GET aggregate) =~ /^"GET[^"]*","([\d.]+)"/m;
			return $rate // die 'redis-benchmark said no rate';
		});
	progress('');
	my ($hits, $others) = split ' ', $before;
	my ($hits_now, $others_now) = split ' ', psql('reading', 'SELECT hits || \' \' || misses + bypasses FROM perfopt.cache_stats');
	my ($hit, $not_hit) = ($hits_now - $hits, $others_now - $others);

	printf "\nReading: 1 client, prepared statements, Unix socket, %d rounds of %d s; %s hits, %s others\n\n",
	  $rounds, $seconds, thousands($hit), thousands($not_hit);
	printf "  %-44s %12s %12s   %s\n", '', 'a second', 'us', 'ratio';
	my $line = sub {
		my ($name, $variant, $base, $of) = @_;
		my $tps = median(@{ $values->{$variant} });
		my @ratio = $base ? paired_ratio($values, $variant, $base) : ();
		printf "  %-44s %12s %12.1f   %s\n", $name, thousands($tps), 1e6 / $tps,
		  @ratio ? sprintf('%.2f [%.2f %.2f] of %s', @ratio, $of) : '';
		return $ratio[0];
	};
	$line->('SELECT 1', 'select_1');
	$line->('aggregate of 40,000 rows, direct', 'aggregate');
	my $ratio = $line->('  cached()', 'aggregate_cached', 'select_1', 'SELECT 1');
	$line->('', 'aggregate_cached', 'aggregate', 'direct');
	$line->('  cached_json()', 'aggregate_json', 'select_1', 'SELECT 1');
	$line->(sprintf('Redis, GET of the same %d bytes', length $json), 'redis', 'aggregate_cached', 'cached()');
	$line->('20 rows by index, direct', 'twenty');
	$line->('  cached()', 'twenty_cached', 'twenty', 'direct');
	$line->('1 row by primary key, direct', 'by_key');
	$line->('  cached()', 'by_key_cached', 'by_key', 'direct');
	verdict($ratio >= $least_ratio, sprintf 'a hit runs at %.2f times the rate of SELECT 1 (%.1f or more)', $ratio, $least_ratio);
	verdict($not_hit <= 0.01 * $hit, 'all look-ups but a hundredth were hits');
}

# ---- TPC-B

sub tpcb
{
	my %tracking = (untracked => '', untracked_again => '',
		tracked => q(SELECT perfopt.cache_track(c) FROM unnest('{pgbench_accounts,pgbench_branches,pgbench_tellers,pgbench_history}'::regclass[]) c),
		tracked_by_key => q(SELECT perfopt.cache_track('pgbench_accounts', '{aid}'), perfopt.cache_track('pgbench_branches', '{bid}'),
			perfopt.cache_track('pgbench_tellers', '{tid}'), perfopt.cache_track('pgbench_history')));
	for my $database (sort keys %tracking)
	{
		psql('postgres', "CREATE DATABASE $database");
		psql($database, 'SET client_min_messages = warning', 'CREATE EXTENSION perfopt CASCADE');
		system("$ENV{BIN}/pgbench -q -i -s $scale $database >$ENV{SCRATCH}/init.log 2>&1") == 0 or die 'pgbench -i failed';
		psql($database, $tracking{$database}) if $tracking{$database};
		psql($database, 'VACUUM FREEZE ANALYZE');
	}
	psql('postgres', 'CHECKPOINT');

	printf "\nTPC-B: pgbench -b tpcb-like, scale %d, prepared statements, %d rounds of %d s\n\n", $scale, $tpcb_rounds, $tpcb_seconds;
	printf "  %-40s %10s   %-22s %-22s %s\n", '', 'tps', 'loss, tracked', 'tracked by key', 'A/A: not tracked';
	# What of it is CPU of the backend: steadier, and the most it can come to
	{
		local $ENV{PGOPTIONS} = '-c synchronous_commit=off';
		my $script = join "\n",
		  "\\set aid random(1, 100000 * $scale)", "\\set bid random(1, $scale)", "\\set tid random(1, 10 * $scale)",
		  '\set delta random(-5000, 5000)', 'BEGIN;',
		  'UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;',
		  'SELECT abalance FROM pgbench_accounts WHERE aid = :aid;',
		  'UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;',
		  'UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;',
		  'INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);',
		  'END;';
		my $values = alternate($tpcb_rounds, [ sort keys %tracking ],
			sub {
				my ($database, $round) = @_;
				progress('TPC-B, CPU, round %d of %d', $round, $tpcb_rounds);
				return backend_cpu(pgbench => "$ENV{BIN}/pgbench", port => $ENV{PGPORT} || 5432, database => $database,
					scratch => $ENV{SCRATCH}, script => $script, protocol => 'prepared', clients => 1,
					transactions => 1000 * $tpcb_seconds);
			});
		progress('');
		printf "  %-40s %10s   %-22s %-22s %s\n", 'CPU of the backend, us a transaction',
		  sprintf('%.1f', median(@{ $values->{untracked} })),
		  map { my @ratio = paired_ratio($values, $_, 'untracked');
			sprintf '%+.1f %% [%+.1f %+.1f]', map { 100 * ($_ - 1) } @ratio } qw(tracked tracked_by_key untracked_again);
		# What the backend takes more can at most be lost; rates are too noisy to judge.
		my ($more) = paired_ratio($values, 'tracked', 'untracked');
		verdict($more - 1 <= $largest_loss, sprintf 'tracking takes %.1f %% more CPU of the backend for TPC-B (%.0f %% or less)',
			100 * ($more - 1), 100 * $largest_loss);
	}
	for my $workload ([ 1, 'on' ], [ 4, 'on' ], [ 1, 'off' ], [ 4, 'off' ])
	{
		my ($clients, $commit) = @$workload;
		local $ENV{PGOPTIONS} = "-c synchronous_commit=$commit";
		my $values = alternate($tpcb_rounds, [ sort keys %tracking ],
			sub {
				my ($database, $round) = @_;
				progress('TPC-B, %d clients, synchronous_commit = %s, round %d of %d', $clients, $commit, $round, $tpcb_rounds);
				return tps($database, $tpcb_seconds, $clients, '-b' => 'tpcb-like');
			});
		progress('');
		my @losses = map { my ($ratio, $low, $high) = paired_ratio($values, $_, 'untracked'); [ 1 - $ratio, 1 - $high, 1 - $low ] }
		  qw(tracked tracked_by_key untracked_again);
		printf "  %-40s %10s   %-22s %-22s %s\n",
		  sprintf('%d client%s, synchronous_commit = %s', $clients, $clients > 1 ? 's' : '', $commit),
		  thousands(median(@{ $values->{untracked} })),
		  map { sprintf '%+.1f %% [%+.1f %+.1f]', map { 100 * $_ } @$_ } @losses;
	}
}

# ---- bulk

sub bulk
{
	psql('postgres', 'CREATE DATABASE bulk');
	psql('bulk', 'SET client_min_messages = warning', 'CREATE EXTENSION perfopt CASCADE',
		map { "CREATE TABLE $_ (id integer, amount integer, note text)" } qw(untracked tracked tracked_by_key));
	psql('bulk', q(SELECT perfopt.cache_track('tracked'), perfopt.cache_track('tracked_by_key', '{id}')));
	my %statement = (
		insert => q(INSERT INTO %s SELECT i, i, 'note' FROM generate_series(1, 1000000) i),
		update => q(UPDATE %s SET amount = amount + 1));
	print "\nOne statement over a million rows, seconds, 5 rounds\n\n";
	printf "  %-20s %10s %28s %28s\n", '', 'untracked', 'tracked', 'tracked by key';
	my %values;
	for my $round (1 .. 5)
	{
		for my $table (shuffle qw(untracked tracked tracked_by_key))
		{
			progress('bulk, round %d of 5: %s', $round, $table);
			psql('bulk', "TRUNCATE $table", 'CHECKPOINT');
			for my $kind (qw(insert update))
			{
				my ($ms) = psql('bulk', '\timing on', sprintf($statement{$kind}, $table)) =~ /^Time: ([\d.]+) ms/m;
				push @{ $values{$kind}{$table} }, $ms / 1000;
			}
		}
	}
	progress('');
	for my $kind (qw(insert update))
	{
		printf "  %-20s %10.2f %28s %28s\n", uc $kind, median(@{ $values{$kind}{untracked} }),
		  map { sprintf '%.2f (x %.2f [%.2f %.2f])', median(@{ $values{$kind}{$_} }), paired_ratio($values{$kind}, $_, 'untracked') }
		  qw(tracked tracked_by_key);
	}
}

reading() if $part{read};
tpcb() if $part{tpcb};
bulk() if $part{bulk};

print "\n";
print "ok: $_\n" for @passed;
print "FAIL: $_\n" for @failed;
exit(@failed ? 1 : 0);
