# Oracle.pm: is every answer of the cache the one the server itself gives?
#
# Sessions that write in all the ways there are, and sessions that read: each
# answer of the cache is compared, in the same statement, with what the query
# says without it (schema.sql).  They run in rounds; at the end of a round,
# when nobody writes, every query is compared once more with every key.
#
# Changes that no lock of a statement under way holds off (unlocked) may come
# between its two answers: the plan of the direct one, the query's plan in the
# cache and the entry can each be from before or after.  A difference is excused
# if the change overlaps the transaction that saw it, and no other:
#
# - A change is written down from before its statement is sent until after the
#   answer has come.  Between lie all that others can notice: the new rows of
#   catalogs become visible, then its messages are sent, then its locks are
#   released.  So a plan may be newer than what messages have told, but only
#   within that time.
# - A transaction is written down from before it starts, where it accepts all
#   messages that have been sent, until after both answers are there.  One that
#   starts after the end of a change knows all of it: in the plans it makes, and
#   of those it has kept, as kept_plans.c sees to it.  The server alone does not:
#   with it, the direct answer may come from a plan that has missed the change.
# - Both times are read from one clock, that of the machine.
#
# Where the server is say PGHOST, PGPORT, PGUSER and PGDATABASE.
package Oracle;

use strict;
use warnings;
use File::Basename 'dirname';
use IPC::Open2;
use JSON::PP;
use POSIX '_exit';

# new(scratch => a directory, psql => path, weaken => 1, on_mismatch => sub)
sub new
{
	my ($class, %option) = @_;
	my $self = bless { psql => 'psql', %option, round => 0, checks => 0, errors => {}, mismatches => [], excused => 0 }, $class;
	return $self;
}

sub sql
{
	my ($self, $sql) = @_;
	open my $answer, '-|', $self->{psql}, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', $sql or die "psql: $!";
	my @lines = <$answer>;
	close $answer or die "failed: $sql";
	chomp @lines;
	return join "\n", @lines;
}

# The tables and the pool, in a database that has perfopt
sub setup
{
	my ($self) = @_;
	system($self->{psql}, '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', dirname(__FILE__) . '/schema.sql') == 0
	  or die 'schema.sql failed';
	return $self;
}

sub stats
{
	my ($self) = @_;
	my ($hits, $misses, $bypasses) = split /\|/, $self->sql('SELECT hits, misses, bypasses FROM perfopt.cache_stats');
	return { hits => $hits, misses => $misses, bypasses => $bypasses };
}

# ---- writers: subs that return the SQL of one transaction

sub below { return int(rand $_[0]); }
sub key { return 1 + int(rand() * rand() * 20); }
sub one_of { return $_[ rand @_ ]; }

# Changes of rows that any transaction may make
my @changes = (
	sub { 'UPDATE account SET balance = balance + ' . below(100) . ' WHERE id = ' . key() . ';' },
	sub { 'UPDATE account SET owner = ' . below(5) . ' WHERE id = ' . key() . ';' },
	sub { 'UPDATE counter SET n = n + 1 WHERE id = ' . key() . ';' },
	sub { 'UPDATE counter SET n = n + 1 WHERE id = ' . key() . ';' },
	sub { 'DELETE FROM setting WHERE id = ' . key() . ';' },
	sub { 'INSERT INTO setting VALUES (' . key() . ", 'new " . below(1000) . "', " . below(100) . ') ON CONFLICT (id) DO NOTHING;' },
	sub { 'INSERT INTO setting VALUES (' . key() . ", 'set " . below(1000) . "') ON CONFLICT (id) DO UPDATE SET value = excluded.value;" },
	# through the parent, to a leaf, and from one to another
	sub { 'UPDATE event SET amount = amount + 1 WHERE id = ' . key() . ';' },
	sub { 'UPDATE event SET region = 1 + region % 3 WHERE id = ' . key() . ';' },
	sub { 'UPDATE event_2a SET amount = -amount WHERE id = ' . below(10) . ';' },
	sub { 'INSERT INTO event_3 VALUES (' . key() . ', 3, 7) ON CONFLICT DO NOTHING;' },
	sub { 'DELETE FROM event WHERE id = ' . key() . ' AND region = ' . (1 + below(3)) . ';' },
	sub { 'INSERT INTO event VALUES (' . key() . ', ' . (1 + below(3)) . ', ' . below(50) . ') ON CONFLICT DO NOTHING;' },
	# inheritance
	sub { 'UPDATE vehicle SET wheels = wheels + 1 WHERE id = ' . one_of(key(), 100 + key()) . ';' },
	sub { 'UPDATE ONLY vehicle SET owner = owner + 1 WHERE id = ' . key() . ';' },
	sub { 'UPDATE car SET doors = doors + 1 WHERE id = ' . (100 + key()) . ';' },
	sub { 'INSERT INTO car VALUES (' . key() . ', 4, 1, 5) ON CONFLICT DO NOTHING;' },
	sub { 'DELETE FROM car WHERE id = ' . key() . ';' },
	# cascading deletes, and what fills up again
	sub { 'DELETE FROM customer WHERE id = ' . key() . ';' },
	sub { 'DELETE FROM invoice WHERE id = ' . key() . ';' },
	sub {
		my $customer = key();
		"INSERT INTO customer VALUES ($customer, 'again') ON CONFLICT (id) DO UPDATE SET name = customer.name || '.';"
		  . "INSERT INTO invoice SELECT i, $customer, i FROM generate_series($customer, 60, 20) i ON CONFLICT DO NOTHING;"
		  . "INSERT INTO invoice_line SELECT id, 1, amount FROM invoice WHERE customer_id = $customer ON CONFLICT DO NOTHING;";
	},
	sub {
		'MERGE INTO counter c USING (VALUES (' . key() . "), (" . key() . ' + 1000)) s (id) ON c.id = s.id'
		  . ' WHEN MATCHED THEN UPDATE SET n = n + 5 WHEN NOT MATCHED AND s.id < 1005 THEN INSERT VALUES (s.id, 0);';
	});

# Changes of many rows
my @bulk = (
	sub { 'UPDATE counter SET n = n + 1;' },
	sub { 'UPDATE account SET balance = balance + 1 WHERE owner = ' . below(5) . ';' },
	sub { 'DELETE FROM counter WHERE id > 20; INSERT INTO counter SELECT i, i FROM generate_series(21, 60) i ON CONFLICT DO NOTHING;' },
	sub { "DELETE FROM setting WHERE id > 15;\nCOPY setting (id, value) FROM STDIN;\n" . join('', map { "$_\tcopied\n" } 16 .. 20) . "\\.\n" },
	sub { "DELETE FROM event_2b;\nCOPY event FROM STDIN;\n" . join('', map { "$_\t2\t$_\n" } 10 .. 20) . "\\.\n" },
	sub { "BEGIN; TRUNCATE setting; INSERT INTO setting SELECT i, 'refilled' FROM generate_series(1, 20) i; " . one_of('COMMIT;', 'ROLLBACK;') },
	sub { one_of('TRUNCATE event_3;', 'TRUNCATE event; INSERT INTO event SELECT i, 1 + i % 3, i FROM generate_series(1, 20) i;', 'TRUNCATE invoice_line;') });

# Transactions
my $gid = 0;
my %writer = (
	single => sub { return one_of(@changes)->() . "\n"; },
	several => sub {
		return 'BEGIN; ' . join(' ', map { one_of(@changes)->() } 1 .. 1 + below(4))
		  . nap() . one_of('COMMIT;', 'COMMIT;', 'COMMIT;', 'ROLLBACK;') . "\n";
	},
	# in all orders, and with a look at what the transaction itself sees
	savepoints => sub {
		my $look = 'SELECT oracle.compare(n, ' . key() . ', now()) FROM oracle.pool WHERE NOT unlocked ORDER BY random() LIMIT 3;';
		return 'BEGIN; ' . (rand() < 0.5 ? one_of(@changes)->() : '')
		  . 'SAVEPOINT a; ' . one_of(@changes)->() . 'SAVEPOINT b; ' . one_of(@changes)->()
		  . one_of('ROLLBACK TO b;', 'ROLLBACK TO a;', 'RELEASE b;') . " $look "
		  . (rand() < 0.5 ? one_of(@changes)->() : '') . nap()
		  . one_of('COMMIT;', 'COMMIT;', 'ROLLBACK;') . "\n";
	},
	# what another session ends later: see %ending
	two_phase => sub {
		$gid++;
		return 'BEGIN; ' . join(' ', map { one_of(@changes)->() } 1 .. 1 + below(2)) . " PREPARE TRANSACTION 'oracle $$ $gid';\n";
	},
	bulk => sub { return one_of(@bulk)->() . "\n"; },
	# more of them than a snapshot has room for
	subtransactions => sub {
		return 'BEGIN; DO $$ BEGIN FOR i IN 1 .. 80 LOOP BEGIN UPDATE counter SET n = n + 1 WHERE id = ' . key()
		  . "; IF i % 7 = 0 THEN RAISE division_by_zero; END IF; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END\$\$; "
		  . nap() . one_of('COMMIT;', 'ROLLBACK;') . "\n";
	},
	replica => sub {
		return "SET session_replication_role = replica;\nUPDATE account SET balance = balance - 1 WHERE id = " . key()
		  . ";\nUPDATE counter SET n = 0 WHERE id = " . key() . ";\nRESET session_replication_role;\n";
	});
# an old transaction that has nothing to do with the tables
my $holder = sub { return "BEGIN; SELECT pg_current_xact_id(); SELECT pg_sleep(3 * random()); COMMIT;\n"; };
my @ending = ('COMMIT', 'COMMIT', 'ROLLBACK');

sub nap { return 'SELECT pg_sleep(' . one_of(0, 0, 0.002, 0.02) . ');'; }

# Definitions; these wait for locks but briefly, not to stop everybody.
my $version = 0;

# what no lock holds off is written down: see oracle.pool
sub unlocked
{
	my ($ddl) = @_;
	return "INSERT INTO oracle.change (begun) VALUES (clock_timestamp());\n$ddl\n"
	  . "UPDATE oracle.change SET ended = clock_timestamp() WHERE ended IS NULL;\n";
}

my @definitions = (
	sub { $version++; "CREATE OR REPLACE VIEW rich_account AS SELECT id, owner, balance, $version AS version FROM account WHERE balance > " . one_of(500, 1000, 1500) . ";\n" },
	sub { $version++; unlocked("CREATE OR REPLACE FUNCTION version_of_functions() RETURNS integer LANGUAGE sql STABLE AS 'SELECT $version';") },
	sub { $version++; unlocked("CREATE OR REPLACE FUNCTION owned_by(owner integer) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT sum(a.balance) + $version FROM public.account a WHERE a.owner = \$1';") },
	sub { $version++; "ALTER TABLE setting ADD COLUMN added integer DEFAULT $version;\nSELECT pg_sleep(0.1);\nALTER TABLE setting DROP COLUMN IF EXISTS added;\n" },
	sub { one_of('bigint', 'numeric', 'text', 'integer') =~ s/(.*)/ALTER TABLE setting ALTER flexible TYPE $1 USING flexible::$1;\n/r },
	# the rows of a partition, of a child, of a table whose trigger sleeps
	sub { "BEGIN; ALTER TABLE event DETACH PARTITION event_3; COMMIT;\nUPDATE event_3 SET amount = amount + 1;\n"
		  . unlocked('ALTER TABLE event ATTACH PARTITION event_3 FOR VALUES IN (3);') },
	sub { unlocked('ALTER TABLE car NO INHERIT vehicle;') . "UPDATE car SET wheels = wheels + 1;\n"
		  . unlocked('ALTER TABLE car INHERIT vehicle;') },
	sub { "ALTER TABLE counter DISABLE TRIGGER perfopt_cache;\nUPDATE counter SET n = n + 1 WHERE id = " . key()
		  . ";\nALTER TABLE counter ENABLE ALWAYS TRIGGER perfopt_cache;\n" },
	sub { "BEGIN; ALTER TABLE counter DISABLE TRIGGER perfopt_cache; UPDATE counter SET n = n + 1; ALTER TABLE counter ENABLE ALWAYS TRIGGER perfopt_cache; COMMIT;\n" },
	sub { "REFRESH MATERIALIZED VIEW balances;\n" },
	sub { "REFRESH MATERIALIZED VIEW CONCURRENTLY balances;\n" },
	sub { "BEGIN; UPDATE account SET balance = balance + 1; REFRESH MATERIALIZED VIEW balances; " . one_of('COMMIT;', 'ROLLBACK;') . "\n" },
	sub { "CREATE INDEX ON counter (n);\nSELECT pg_sleep(0.05);\nDROP INDEX IF EXISTS counter_n_idx;\n" });

# ---- sessions

# A psql whose messages go to a file; feed() gets handles to write SQL to, and
# to read what \echo says.
sub session
{
	my ($self, $name, $feed) = @_;
	my $log = "$self->{scratch}/$name.$self->{round}";
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		srand($$ ^ time);
		$ENV{PGAPPNAME} = "oracle $name";
		local $SIG{PIPE} = 'IGNORE';
		open STDERR, '>', $log or die "$log: $!";
		my $psql_pid = open2(my $answers, my $psql, $self->{psql}, '-Xq', '-o', '/dev/null');
		$psql->autoflush(1);
		print $psql "SET client_min_messages = notice; SET lock_timeout = '2s'; SET deadlock_timeout = '50ms';\n";
		print $psql "SET perfopt.cache_weakened = on;\n" if $self->{weaken};
		$feed->($psql, $answers);
		close $psql;
		waitpid $psql_pid, 0;
		_exit($? != 0);
	}
	push @{ $self->{sessions} }, [ $pid, $name, $log ];
}

sub reader
{
	my ($self, $name, $seconds, $isolation, $per_transaction, $nap, $settings) = @_;
	$self->session($name, sub {
			my ($psql) = @_;
			print $psql $settings // '', "SET default_transaction_isolation = '$isolation';\n"
			  . "CALL oracle.read('$seconds s', $per_transaction, $nap);\n"; });
}

# Transactions of these sorts, so many a second
sub writer
{
	my ($self, $name, $seconds, $rate, $settings, @sorts) = @_;
	$self->session($name, sub {
			my ($psql, $answers) = @_;
			my $stop = time + $seconds;
			print $psql $settings;
			# one after another: a backlog would have to be worked off at the end
			while (time < $stop && print($psql one_of(@sorts)->(), "\\echo done\n") && <$answers>)
			{
				select undef, undef, undef, rand(2 / $rate);
			}
		});
}

# One round: runs everything for so many seconds, compares once more, and adds
# up.  Dies when a session or the server does.
sub run
{
	my ($self, $seconds) = @_;
	$self->{round}++;
	$self->{sessions} = [];
	$self->reader("reader$_", $seconds, 'read committed', 1, 0) for 1 .. 2;
	$self->reader('reader_of_shared', $seconds, 'read committed', 1, 0, "SET perfopt.cache_local_size = 0;\n");
	$self->reader('reader_of_many', $seconds, 'read committed', 20, 0);
	$self->reader("repeatable$_", $seconds, 'repeatable read', 30, 0.01) for 1 .. 4;
	$self->reader('repeatable_busy', $seconds, 'repeatable read', 100, 0);
	my $rate = $self->{rate} || 2;
	$self->writer("writer$_", $seconds, 8 * $rate, '', @writer{qw(single single single several several savepoints)}) for 1 .. 3;
	$self->writer('preparer', $seconds, 4 * $rate, '', $writer{two_phase});
	$self->writer('bulk', $seconds, 1 * $rate, '', @writer{qw(bulk bulk replica subtransactions)});
	$self->writer('holder', $seconds, 1, '', $holder);
	$self->writer('definitions', $seconds, 0.7 * $rate, "SET lock_timeout = '300ms';\n", @definitions);
	$self->writer('ender', $seconds, 10, '', sub { ending('100 ms') });

	my @failed;
	for (@{ $self->{sessions} })
	{
		my ($pid, $name) = @$_;
		waitpid $pid, 0;
		push @failed, $name if $? != 0;
	}
	my @all = @{ $self->{sessions} };
	$self->{sessions} = [];
	$self->session('sweep', sub { my ($psql) = @_; print $psql ending('0') . "SELECT oracle.sweep();\n"; });
	waitpid $self->{sessions}[0][0], 0;
	push @failed, 'sweep' if $? != 0;
	my @changes = map { [ split /\|/ ] } split /\n/,
	  $self->sql(q{SELECT extract(epoch FROM begun), extract(epoch FROM coalesce(ended, 'infinity')) FROM oracle.change});
	$self->collect(@$_[1, 2], \@changes) for @all, @{ $self->{sessions} };
	die "sessions that failed: @failed\n" if @failed;
	return $self;
}

sub ending
{
	my ($age) = @_;
	my $how = one_of(@ending);
	return "SELECT format('$how PREPARED %L', gid) FROM pg_prepared_xacts WHERE gid LIKE 'oracle%' AND prepared <= now() - interval '$age'"
	  . ($age eq '0' ? '' : ' AND random() < 0.5') . "\\gexec\n";
}

# What a session has said
sub collect
{
	my ($self, $name, $log, $changes) = @_;
	open my $said, '<', $log or die "$log: $!";
	while (<$said>)
	{
		$self->{checks} += $1 if /ORACLE CHECKS: (\d+)/;
		if (/ORACLE MISMATCH: (.*)/)
		{
			my $mismatch = decode_json($1);
			if ($mismatch->{unlocked}
				&& grep { $_->[0] <= $mismatch->{until} && $_->[1] >= $mismatch->{since} } @$changes)
			{
				$self->{excused}++;
				next;
			}
			$mismatch->{session} = $name;
			push @{ $self->{mismatches} }, $mismatch;
		}
		elsif (/ORACLE FAILURES: (.*)/)
		{
			my $errors = decode_json($1);
			$self->{reader_errors}{$_} += $errors->{$_} for keys %$errors;
		}
		elsif (/ORACLE ERROR: (.*)/ || /(?:FATAL|PANIC):\s*(.*)/)
		{
			$self->{unexpected}{$1}++;
		}
		elsif (/ERROR:\s*(.*)/)
		{
			my $error = $1;
			die "$name: $error\n" if $name =~ /^(?:reader|repeatable|sweep)/;
			$error =~ s/\d+|"[^"]*"/.../g;
			$self->{errors}{$error}++;
		}
		elsif (/server closed the connection|connection to server was lost/)
		{
			die "$name: the server has crashed\n";
		}
	}
	close $said;
	unlink $log;
}

1;
