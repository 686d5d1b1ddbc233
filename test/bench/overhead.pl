# The measuring part of "overhead", which starts the servers.
use strict;
use warnings;
use Bench;

my $rounds = $ENV{ROUNDS} || 20;
my $transactions = $ENV{TRANSACTIONS} || 20000;
my $limit = 0.8;
my %port = map { split /=/ } split ' ', $ENV{SERVERS};
my @variants = sort keys %port;
srand(1);
$| = 1;

my $select_1 = 'SELECT 1;';
my $by_key = "\\set id random(1, 100000)\nSELECT name, balance FROM account WHERE id = :id;";
my @workloads = (
	[ 'SELECT 1, simple', $select_1, 'simple', 1 ],
	[ 'SELECT 1, prepared', $select_1, 'prepared', 1 ],
	[ 'by primary key, simple', $by_key, 'simple', 1 ],
	[ 'by primary key, prepared', $by_key, 'prepared', 1 ],
	[ 'the same, 4 clients', $by_key, 'prepared', 4 ]);

sub psql
{
	my ($sql) = @_;
	my $answer = qx("$ENV{BIN}/psql" -XAt -p $port{perfopt} -c "$sql");
	chomp $answer;
	return $answer;
}

print 'machine    ', machine(), "\n";
print 'server     ', psql('SELECT version()'), "\n";
print 'settings   ', psql(q(SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name)
	FROM pg_settings WHERE source = 'configuration file' AND name NOT LIKE 'lc%' AND name NOT IN
	('port', 'unix_socket_directories', 'listen_addresses', 'log_timezone', 'TimeZone', 'DateStyle', 'default_text_search_config'))), "\n";
print "method     $rounds rounds, each with ", thousands($transactions),
  " transactions on every server, in random order;\n",
  "           backend CPU (user and system) from /proc/PID/schedstat, in microseconds a statement;\n",
  "           a client and its backend share one CPU, 4 clients are spread over all CPUs;\n",
  "           differences are paired by round: median [95 % bootstrap interval of the median]\n\n";

my @header = ('', 'stock', 'pgss', '+perfopt', 'pgss - stock', 'perfopt - pgss', 'A/A: pgss - pgss');
my $format = "%-24s %7s %7s %9s   %-20s %-20s %s\n";
printf $format, @header;

my $failed = 0;
for my $workload (@workloads)
{
	my ($name, $script, $protocol, $clients) = @$workload;
	my $cpu = alternate($rounds, \@variants,
		sub {
			my ($variant, $round) = @_;
			printf STDERR "\r%-24s round %d of %d ", $name, $round, $rounds if -t STDERR;
			return backend_cpu(
				pgbench => "$ENV{BIN}/pgbench", port => $port{$variant}, database => 'postgres',
				scratch => $ENV{SCRATCH}, script => $script, protocol => $protocol,
				clients => $clients, transactions => $transactions);
		});
	print STDERR "\r\e[K" if -t STDERR;

	my @perfopt = paired($cpu, 'perfopt', 'statements');
	my $difference = sub { sprintf '%+.2f [%+.2f %+.2f]', @_ };
	printf $format, $name, (map { sprintf '%.2f', median(@{ $cpu->{$_} }) } qw(stock statements perfopt)),
	  $difference->(paired($cpu, 'statements', 'stock')), $difference->(@perfopt),
	  $difference->(paired($cpu, 'statements_again', 'statements'));
	$failed = 1 if $perfopt[0] > $limit;
}

# A cost is only worth something if what it pays for was done.
my $measured = psql('SELECT sum(calls) FROM perfopt.query_latency');
my $run = @workloads * $rounds * $transactions;
die sprintf "perfopt.query_latency has %d calls of %d", $measured, $run if $measured < $run;
printf "\nperfopt measured %s calls; %s\n", thousands($measured),
  psql(q(SELECT format('its workers used %s ms of CPU in %s s', round(sum(cpu_ms)),
		round(extract(epoch FROM now() - pg_postmaster_start_time()))) FROM perfopt.workers));
printf "%s: perfopt with pg_stat_statements costs %s %.1f microseconds of CPU a statement over pg_stat_statements alone\n",
  $failed ? 'FAIL' : 'ok', $failed ? 'more than' : 'at most', $limit;
exit $failed;
