# Buffered inserts: a load in which rows are bad in every way there is, roles
# and databases that go while rows wait, dumps, prepared transactions, standbys.
use strict;
use warnings;
use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "autovacuum = off\nperfopt.batch_max_wait = '1h'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/stop_points.sql"));
my $scratch = PostgreSQL::Test::Utils::tempdir;

sub sql { my ($sql, $database) = @_; return $node->safe_psql($database || 'postgres', $sql); }
sub wait_until
{
	my ($sql, $name) = @_;
	ok($node->poll_query_until('postgres', $sql), $name);
}

# A thousand rows, six of them bad
my $table = q{
	CREATE TABLE parent (id int PRIMARY KEY);
	INSERT INTO parent VALUES (1);
	CREATE TABLE load (id int PRIMARY KEY, checked int CONSTRAINT below_ten CHECK (checked < 10),
		parent int CONSTRAINT has_parent REFERENCES parent, needed text NOT NULL, number int);
	CREATE FUNCTION no_13() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF new.number = 13 THEN RAISE EXCEPTION 'thirteen' USING ERRCODE = 'P1313'; END IF;
		RETURN new; END $$;
	CREATE TRIGGER no_13 BEFORE INSERT ON load FOR EACH ROW EXECUTE FUNCTION no_13();
	CREATE TABLE verdicts (id int, sqlstate text, constraint_name text)};
# row i of 1,000, in SQL
my $row = q{'{"id": 0, "checked": 1, "parent": 1, "needed": "x", "number": 1}'::jsonb || jsonb_build_object('id', i) || CASE i
	WHEN 100 THEN '{"id": 1}'::jsonb WHEN 200 THEN '{"checked": 10}' WHEN 300 THEN '{"parent": 2}'
	WHEN 400 THEN '{"needed": null}' WHEN 500 THEN '{"number": 13}' WHEN 600 THEN '{"number": "many"}' ELSE '{}' END};
my $expected = "23502|\n23503|has_parent\n23505|load_pkey\n23514|below_ten\n22P02|\nP1313|";
sort_lines($expected);
sub sort_lines { $_[0] = join "\n", sort split /\n/, $_[0]; }
sql($table);

foreach my $mode ('lossy', 'durable')
{
	sql('TRUNCATE load; SELECT perfopt.delete_rejected_rows()');
	sql("SELECT count(perfopt.buffer_insert('load', $row, '$mode')) FROM generate_series(1, 1000) i");
	sql('SELECT perfopt.flush()');
	is(sql('SELECT count(*) FROM load'), '994', "$mode: 994 of 1,000 rows are stored");
	my $rejected = sql('SELECT sqlstate, constraint_name FROM perfopt.rejected_rows');
	sort_lines($rejected);
	is($rejected, $expected, '... and six reports kept, each with its reason');
	is(sql(qq{SELECT inserted, rejected, lost FROM perfopt.insert_buffers WHERE target = 'load' AND mode = '$mode'}), '994|6|0', '... and counted');
}

# The same from four clients, each of which gets its own verdict
sql('TRUNCATE load; SELECT perfopt.delete_rejected_rows()');
sql(q{INSERT INTO load VALUES (1, 1, 1, 'x')});
my $script = "$scratch/ack.sql";
open my $file, '>', $script or die $!;
print $file <<"SQL";
\\set n :n + 1
DO \$\$
	DECLARE i int := :client_id * 250 + :n; state text; name text;
	BEGIN
		IF i = 1 THEN RETURN; END IF;
		BEGIN
			PERFORM perfopt.buffer_insert('load', $row);
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, name = CONSTRAINT_NAME;
			INSERT INTO verdicts VALUES (i, state, name);
		END;
	END \$\$;
SQL
close $file;
$node->command_ok([ 'pgbench', '-n', '-c', 4, '-j', 2, '-t', 250, '-D', 'n=0', '-f', $script, '-h', $node->host, '-p', $node->port, 'postgres' ], 'four clients');
is(sql('SELECT count(*) FROM load'), '994', 'ack: 994 of 1,000 rows are stored');
is(sql('SELECT id, sqlstate, constraint_name FROM verdicts ORDER BY id'),
	"100|23505|load_pkey\n200|23514|below_ten\n300|23503|has_parent\n400|23502|\n500|P1313|\n600|22P02|", '... and who put a bad one gets its error');
is(sql('SELECT count(*) FROM perfopt.rejected_rows'), '0', '... which is nowhere else');

# A prepared transaction
sql('TRUNCATE load');
sql(q{BEGIN; SELECT perfopt.buffer_insert('load', '{"id": 1, "needed": "x"}', 'durable'); PREPARE TRANSACTION 'put'});
is(sql('SELECT perfopt.flush()'), '0', 'a row of a prepared transaction is not there yet');
sql(q{COMMIT PREPARED 'put'});
is(sql('SELECT perfopt.flush()'), '1', '... and is when that has committed');

# Savepoints
sql(q{BEGIN; SAVEPOINT a; SELECT perfopt.buffer_insert('load', '{"id": 2, "needed": "x"}', 'durable'); ROLLBACK TO a;
	SELECT perfopt.buffer_insert('load', '{"id": 3, "needed": "x"}', 'durable'); COMMIT});
sql('SELECT perfopt.flush()');
is(sql('SELECT string_agg(id::text, \',\' ORDER BY id) FROM load'), '1,3', 'what a savepoint took back');

# Rows for tables that refer to each other, in the order they were put
sql(q{
	CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
	SELECT perfopt.delete_rejected_rows()});
sql(q{SELECT count(perfopt.buffer_insert('a', jsonb_build_object('id', i), 'durable')), count(perfopt.buffer_insert('b', jsonb_build_object('id', i, 'a', i), 'durable')) FROM generate_series(1, 200) i});
sql('SELECT perfopt.flush()');
is(sql('SELECT count(*) FROM b; SELECT count(*) FROM perfopt.rejected_rows'), "200\n0", 'durable rows keep their order over tables');

# Names, views, partitions
sql(q{
	CREATE SCHEMA "Odd ""Schema"; CREATE TABLE "Odd ""Schema"."Odd Table" ("Odd ""Column" int, "select" text);
	CREATE VIEW simple AS SELECT "Odd ""Column" AS n FROM "Odd ""Schema"."Odd Table";
	CREATE TABLE parts (id int) PARTITION BY RANGE (id);
	CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)});
is(sql(q{SELECT perfopt.buffer_insert('"Odd ""Schema"."Odd Table"', '{"Odd \"Column": 1, "select": "x"}'), perfopt.buffer_insert('simple', '{"n": 2}'), perfopt.buffer_insert('parts', '{"id": 3}')}),
	'inserted|inserted|inserted', 'names with quotes, a view, a partitioned table');
is(sql(q{SELECT * FROM "Odd ""Schema"."Odd Table"; SELECT tableoid::regclass FROM parts}), "1|x\n2|\nparts_1", '... are in');

# A trigger that leaves rows out
sql(q{
	CREATE TABLE picky (id int);
	CREATE FUNCTION even() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN CASE WHEN new.id % 2 = 0 THEN new END; END';
	CREATE TRIGGER even BEFORE INSERT ON picky FOR EACH ROW EXECUTE FUNCTION even()});
is(sql(q{SELECT perfopt.buffer_insert('picky', '{"id": 1}'), perfopt.buffer_insert('picky', '{"id": 2}')}), 'skipped|inserted', 'a row that a trigger leaves out');

# Only the right to insert, also into some columns
sql(q{
	CREATE ROLE writer LOGIN; CREATE TABLE written (id int PRIMARY KEY, note text);
	GRANT INSERT (id) ON written TO writer});
is($node->safe_psql('postgres', q{SELECT perfopt.buffer_insert('written', '{"id": 1}')}, extra_params => [ '-U', 'writer' ]), 'inserted', 'a role that may only insert, into one column');
my ($code, $out, $err) = $node->psql('postgres', q{SELECT perfopt.buffer_insert('written', '{"id": 2, "note": "x"}')}, extra_params => [ '-U', 'writer' ]);
like($err, qr/permission denied/, '... not into the other one');

# Row level security
sql(q{
	CREATE TABLE guarded (id int, owner text); GRANT INSERT ON guarded TO writer;
	ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON guarded WITH CHECK (owner = current_user)});
($code, $out, $err) = $node->psql('postgres', q{SELECT perfopt.buffer_insert('guarded', '{"id": 1, "owner": "writer"}'); SELECT perfopt.buffer_insert('guarded', '{"id": 2, "owner": "postgres"}')}, extra_params => [ '-U', 'writer' ]);
is($out, 'inserted', 'a row that a policy allows');
like($err, qr/row-level security/, '... and one that it does not');

# A role that is dropped while rows wait
sql(q{CREATE ROLE leaving LOGIN; CREATE TABLE left_by (id int); GRANT INSERT ON left_by TO leaving});
sql(q{SELECT stop_point_set('buffer-spool-taken', 'wait')});
$node->safe_psql('postgres', q{SELECT perfopt.buffer_insert('left_by', '{"id": 1}', 'lossy'), perfopt.buffer_insert('left_by', '{"id": 2}', 'durable')}, extra_params => [ '-U', 'leaving' ]);
wait_until(q{SELECT stop_point_waiters('buffer-spool-taken') = 1}, 'a role that has put rows');
# told to go twice
wait_until(q{SELECT count(pg_terminate_backend(flusher_pid)) = 0 FROM perfopt.insert_buffers WHERE rolname = 'leaving' AND flusher_pid IS NOT NULL}, '... whose process ends');
sql('REVOKE INSERT ON left_by FROM leaving; DROP ROLE leaving');
sql(q{SELECT stop_point_clear('buffer-spool-taken')});
wait_until(q{SELECT count(*) = 0 FROM perfopt.insert_spool}, 'rows of a role that was dropped go');
wait_until(q{SELECT coalesce(sum(waiting), 0) = 0 AND sum(lost) = 1 FROM perfopt.insert_buffers}, '... from memory, too, and are counted as lost');
is(sql('SELECT count(*) FROM left_by'), '0', '... and none was inserted');

# Spooled rows are dumped and restored
sql(q{SELECT stop_point_set('buffer-spool-inserted', 'wait')});
sql(q{SELECT perfopt.buffer_insert('a', jsonb_build_object('id', 1000), 'durable')});
my $flushing = start([ 'psql', '-X', '-q', '-p', $node->port, '-h', $node->host, '-c', 'SELECT perfopt.flush()', 'postgres' ], '>', \my $flushed);
wait_until(q{SELECT stop_point_waiters('buffer-spool-inserted') = 1}, 'a row that is about to be moved');
my $dump = "$scratch/dump.sql";
$node->command_ok([ 'pg_dump', '-p', $node->port, '-h', $node->host, '-f', $dump, 'postgres' ], 'dumped');
sql(q{SELECT stop_point_clear('buffer-spool-inserted')});
$flushing->finish;
is(sql('SELECT count(*) FROM a WHERE id = 1000; SELECT count(*) FROM perfopt.insert_spool'), "1\n0", 'it has been moved');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-p', $node->port, '-h', $node->host, '-f', $dump, 'restored' ], 'restored');
sql('SELECT perfopt.flush()', 'restored');
is(sql('SELECT count(*) FROM a WHERE id = 1000', 'restored'), '1', 'with the spool, which is written there');

# DROP EXTENSION and DROP DATABASE while rows wait
sql(q{CREATE TABLE t (id int); SELECT perfopt.buffer_insert('t', '{"id": 1}', 'lossy')}, 'restored');
$node->poll_query_until('restored', q{SELECT flusher_pid IS NOT NULL FROM perfopt.insert_buffers WHERE datname = current_database() AND waiting > 0});
sql('DROP EXTENSION perfopt', 'restored');
sql('CREATE EXTENSION perfopt', 'restored');
is(sql(q{SELECT perfopt.buffer_insert('t', '{"id": 2}'); SELECT perfopt.flush() < 2}, 'restored'), "inserted\nt", 'DROP and CREATE EXTENSION: it works again');
is(sql('SELECT count(*) FROM t', 'restored'), '2', '... and has kept what was buffered');
sql(q{SELECT perfopt.buffer_insert('t', jsonb_build_object('id', i), 'lossy') FROM generate_series(1, 50) i}, 'restored');
sql('DROP DATABASE restored');
wait_until(q{SELECT count(*) = 0 FROM perfopt.list_insert_buffers() WHERE waiting > 0}, 'DROP DATABASE is not held up, and leaves nothing behind');

# A role that a trigger has left in the session is not that of other rows
sub as { my ($role, $sql) = @_; return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]); }
sql(q{
	CREATE ROLE member LOGIN NOINHERIT; CREATE ROLE chief; GRANT chief TO member;
	CREATE TABLE led (id int, who text DEFAULT current_user); GRANT INSERT ON led TO member, chief;
	CREATE TABLE promoting (id int); GRANT INSERT ON promoting TO member;
	CREATE FUNCTION become_chief() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('role', 'chief', false); RETURN new; END $$;
	CREATE TRIGGER promotes BEFORE INSERT ON promoting FOR EACH ROW EXECUTE FUNCTION become_chief();
	CREATE CONSTRAINT TRIGGER promotes_late AFTER INSERT ON promoting DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION become_chief()});
as('member', q{SELECT perfopt.buffer_insert('promoting', '{"id": 1}'); SELECT perfopt.buffer_insert('led', '{"id": 1}')});
as('member', q{BEGIN; SELECT perfopt.buffer_insert('promoting', '{"id": 2}', 'durable'), perfopt.buffer_insert('led', '{"id": 2}', 'durable'); COMMIT; SELECT perfopt.flush()});
as('member', q{SELECT perfopt.buffer_insert('led', '{"id": 3}')});
is(sql('SELECT id, who FROM led ORDER BY id'), "1|member\n2|member\n3|member", 'SET ROLE in a trigger is not for other rows');
sql('ALTER ROLE member SET role = chief');
sql(q{SELECT pg_terminate_backend(flusher_pid) FROM perfopt.insert_buffers WHERE rolname = 'member'});
wait_until(q{SELECT count(*) = 0 FROM perfopt.insert_buffers WHERE rolname = 'member' AND flusher_pid IS NOT NULL}, 'a new process');
sql(q{SET SESSION AUTHORIZATION member; SELECT perfopt.buffer_insert('led', '{"id": 4}')});
is(sql('SELECT who FROM led WHERE id = 4'), 'member', '... nor is one that a login would set');
sql('ALTER ROLE member RESET role');

# Durable rows of others are not shown
sql(q{SELECT stop_point_set('buffer-spool-taken', 'wait')});
as('member', q{SELECT perfopt.buffer_insert('led', '{"id": 5}', 'durable')});
is(sql(q{SELECT waiting FROM perfopt.insert_buffers WHERE rolname = 'member' AND mode = 'durable' AND target = 'led'}), '1', 'a superuser sees a waiting durable row');
is(as('writer', q{SELECT count(*) FROM perfopt.insert_buffers WHERE rolname <> 'writer'}), '0', '... another role does not');
sql(q{SELECT stop_point_clear('buffer-spool-taken')});
sql('SELECT perfopt.flush()');

# The process does not grow
sub memory
{
	my $offset = -s $node->logfile;
	my $pid = sql(q{SELECT max(flusher_pid) FROM perfopt.insert_buffers WHERE rolname = 'postgres' AND flusher_pid IS NOT NULL});
	sql("SELECT pg_log_backend_memory_contexts($pid)");
	for (1 .. 100)
	{
		slurp_file($node->logfile, $offset) =~ /\[$pid\] LOG:  Grand total: (\d+) bytes/ and return $1;
		sql('SELECT pg_sleep(0.1)');	# between two looks
	}
	return undef;
}
sql(q{CREATE TABLE wide (filler text)});
my $wide = q{SELECT count(perfopt.buffer_insert('wide', jsonb_build_object('filler', repeat('x', 20000)))) FROM generate_series(1, };
sql("$wide 20)");
my $memory_before = memory();
sql("$wide 500)");
cmp_ok(memory() - $memory_before, '<', 1024 * 1024, 'five hundred flushes leave no memory behind');

# An acknowledged row is replicated where the server is to wait for that
sql(q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf()});
wait_until(q{SELECT current_setting('synchronous_standby_names') = 'nobody'}, 'a standby that is not there');
my $replicated = start([ 'psql', '-X', '-At', '-p', $node->port, '-h', $node->host, '-c', q{SELECT perfopt.buffer_insert('wide', '{"filler": "replicated"}')}, 'postgres' ], '>', \my $replicated_out, '2>', \my $replicated_err);
wait_until(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'perfopt buffer' AND wait_event = 'SyncRep'}, '... is waited for');
sql(q{SET synchronous_commit = local; SELECT pg_cancel_backend(pid), pg_sleep(0.5) FROM pg_stat_activity WHERE application_name = 'perfopt buffer' AND wait_event = 'SyncRep'});
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'perfopt buffer' AND wait_event = 'SyncRep'}), '1', '... a cancel does not end that');
sql(q{SET synchronous_commit = local; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'perfopt buffer' AND wait_event = 'SyncRep'});
$replicated->finish;
like($replicated_err, qr/may not be replicated/, '... where it has to end, the row is not acknowledged');

# A row whose trigger notifies waits for others that commit, but not for ever
sql(q{SET synchronous_commit = local;
	CREATE TABLE loud (id int);
	CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('loud', ''); RETURN new; END $$;
	CREATE TRIGGER shouts BEFORE INSERT ON loud FOR EACH ROW EXECUTE FUNCTION shout()});
my $notifier = start([ 'psql', '-X', '-p', $node->port, '-h', $node->host, '-c', 'BEGIN; NOTIFY loud; CREATE TABLE notified (); COMMIT', 'postgres' ], '>', \my $notifier_out, '2>', \my $notifier_err);
my $notifying = q{FROM pg_stat_activity WHERE query LIKE '%NOTIFY loud%' AND wait_event = 'SyncRep'};
wait_until("SELECT count(*) = 1 $notifying", 'a session that notifies waits for the standby');
($code, $out, $err) = $node->psql('postgres', q{SET statement_timeout = '20s'; SELECT perfopt.buffer_insert('loud', '{"id": 1}')});
like($err, qr/lock timeout/, '... and a flusher that is to notify at its commit has a lock timeout');
sql("SELECT pg_cancel_backend(pid) $notifying");
$notifier->finish;
sql(q{SET synchronous_commit = local; ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()});
wait_until(q{SELECT current_setting('synchronous_standby_names') = ''}, '... no longer');
is(sql(q{SELECT perfopt.buffer_insert('loud', '{"id": 2}')}), 'inserted', 'it inserts again');

# What a flusher cleans up when it pauses may wait for a standby, too
sql(q{
	CREATE TABLE untidy (id int);
	CREATE FUNCTION litter() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN CREATE TEMPORARY TABLE litter (); RETURN new; END $$;
	CREATE TRIGGER litters BEFORE INSERT ON untidy FOR EACH ROW EXECUTE FUNCTION litter();
	SELECT stop_point_set('buffer-committed', 'wait')});
is(sql(q{SELECT perfopt.buffer_insert('untidy', '{"id": 1}')}), 'inserted', 'a trigger leaves a temporary table');
sql(q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf()});
wait_until(q{SELECT current_setting('synchronous_standby_names') = 'nobody'}, '... when there is no standby');
sql(q{SET synchronous_commit = local; SELECT stop_point_clear('buffer-committed')});
my $cleaning = q{FROM pg_stat_activity WHERE backend_type = 'perfopt job' AND wait_event = 'SyncRep'};
wait_until("SELECT count(*) = 1 $cleaning", '... so that dropping it waits');
is(sql("SET synchronous_commit = local; SELECT pg_terminate_backend(pid, 30000) $cleaning"), 't', '... it goes when it is told to');
sql(q{SET synchronous_commit = local; ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()});
wait_until(q{SELECT current_setting('synchronous_standby_names') = ''}, 'no standby any more');

# A row that ends its process, in time when that is told to go
sql(q{
	CREATE TABLE deadly (id int);
	CREATE FUNCTION end_process() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF new.id = 13 THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(55); END IF; RETURN new; END $$;
	CREATE TRIGGER ends BEFORE INSERT ON deadly FOR EACH ROW EXECUTE FUNCTION end_process()});
my $began = time;
my $died = start([ 'psql', '-X', '-p', $node->port, '-h', $node->host, '-c', q{SELECT perfopt.buffer_insert('deadly', jsonb_build_object('id', i), 'durable') FROM generate_series(12, 14) i}, '-c', 'SELECT perfopt.flush()', 'postgres' ], '>', \my $died_out, '2>', \my $died_err);
wait_until('SELECT count(*) = 2 FROM deadly', 'durable rows around one that ends its process');
cmp_ok(time - $began, '<', 20, '... soon');
$died->finish;
like(sql(q{SELECT payload->>'id', attempts FROM perfopt.insert_spool}), qr/^13\|[1-4]$/, '... which is counted');
sql(q{UPDATE perfopt.insert_spool SET attempts = 5, next_attempt_at = '-infinity'; SELECT perfopt.delete_rejected_rows()});
sql('SELECT perfopt.flush()');
wait_until(q{SELECT count(*) = 1 FROM perfopt.rejected_rows WHERE payload->>'id' = '13'}, '... and not for ever');
is(sql('SELECT count(*) FROM perfopt.insert_spool'), '0', 'the spool is empty');
like(sql(q{SELECT last_error FROM perfopt.insert_buffers WHERE target = 'deadly' AND mode = 'durable'}), qr/ended/, '... its error is shown');

# In mode lossy, too
sql(q{SELECT perfopt.delete_rejected_rows(); TRUNCATE deadly;
	SELECT perfopt.buffer_insert('deadly', jsonb_build_object('id', i), 'lossy') FROM generate_series(12, 14) i});
is(sql('SELECT perfopt.flush(); SELECT string_agg(id::text, \',\' ORDER BY id) FROM deadly'), "3\n12,14", 'rows in memory around one that ends its process');
is(sql(q{SELECT payload->>'id', message FROM perfopt.rejected_rows WHERE target = 'public.deadly'}), '13|the processes that inserted the row have ended', '... which is tried three times');

# A table that is locked does not keep the rows of others
sql(q{CREATE TABLE locked (id int); CREATE TABLE free (id int);
	SELECT perfopt.buffer_insert('locked', jsonb_build_object('id', i), 'durable') FROM generate_series(1, 20) i;
	SELECT perfopt.buffer_insert('free', '{"id": 1}', 'durable')});
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE locked IN SHARE MODE');
$began = time;
sql('SELECT perfopt.flush()');
cmp_ok(time - $began, '<', 10, 'a locked table is waited for once');
is(sql('SELECT count(*), min(attempts) > 0 FROM perfopt.insert_spool; SELECT count(*) FROM free'), "20|t\n1", '... rows for another one are in');
$locker->query_safe('ROLLBACK');
$locker->quit;
sql('SELECT perfopt.flush()');
is(sql('SELECT count(*) FROM locked'), '20', '... and those when it is free');

# All of a table's lock holders
sql(q{SELECT perfopt.buffer_insert('locked', '{"id": 21}', 'lossy')});
($code, $out, $err) = $node->psql('postgres', q{BEGIN; LOCK TABLE locked IN SHARE MODE; SELECT perfopt.flush()});
like($err, qr/that this transaction has locked/, 'flush() of all tables sees the locks of its caller');
is(sql(q{SELECT perfopt.flush(); SELECT count(*) FROM locked}), "1\n21", '... and rejects nothing');

# A lock that others hold
$locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE locked IN SHARE MODE');
($code, $out, $err) = $node->psql('postgres', q{SELECT perfopt.buffer_insert('locked', '{"id": 22}')});
like($err, qr/lock timeout\nDETAIL:  The process that inserts buffered rows waits 1 s for a lock.\nHINT:  Try again./, 'in mode ack: an error');
sql(q{SELECT perfopt.buffer_insert('locked', '{"id": 23}', 'lossy')});
($code, $out, $err) = $node->psql('postgres', 'SELECT perfopt.flush()');
like($err, qr/WARNING:  1 buffered row waits for another attempt/, 'in mode lossy: the row is kept');
is(sql(q{SELECT payload->>'id', attempts > 0, sqlstate FROM perfopt.insert_spool; SELECT rejected, lost, waiting FROM perfopt.insert_buffers WHERE target = 'locked' AND mode = 'lossy'}), "23|t|55P03\n0|0|0", '... in the spool');
$locker->query_safe('ROLLBACK');
$locker->quit;
is(sql('SELECT perfopt.flush(); SELECT count(*) FROM locked WHERE id = 23; SELECT count(*) FROM perfopt.insert_spool'), "1\n1\n0", '... and is inserted when the lock is gone');

# Large rows go in flushes of some megabytes
sql(q{CREATE TABLE large (filler text)});
sql(q{SELECT stop_point_set('buffer-spool-taken', 'wait')});
sql(q{SELECT perfopt.buffer_insert('free', '{"id": 2}', 'durable')});
my $large = start([ 'psql', '-X', '-p', $node->port, '-h', $node->host, '-c', 'SELECT perfopt.flush()', 'postgres' ], '>', \my $large_out);
wait_until(q{SELECT stop_point_waiters('buffer-spool-taken') = 1}, 'a flush');
sql(q{SELECT perfopt.buffer_insert('large', jsonb_build_object('filler', repeat('x', 1000000)), 'durable') FROM generate_series(1, 10) i});
sql(q{SELECT stop_point_clear('buffer-spool-taken')});
$large->finish;
sql('SELECT perfopt.flush()');
is(sql(q{SELECT count(*) FROM large; SELECT flushes FROM perfopt.insert_buffers WHERE target = 'large'}), "10\n2", 'large rows are taken a few at a time');

# A role that is dropped before its rows have a process
sql(q{CREATE ROLE gone LOGIN; GRANT INSERT ON free TO gone});
wait_until(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'perfopt buffer'}, 'no flusher');
sql(q{SELECT stop_point_set('job-starting', 'wait')});
as('gone', q{SELECT perfopt.buffer_insert('free', '{"id": 3}', 'lossy')});
sql('REVOKE INSERT ON free FROM gone; DROP ROLE gone');
sql(q{SELECT stop_point_clear('job-starting')});
is($node->psql('postgres', 'SELECT perfopt.flush()'), 0, 'flush() goes on without a role that was dropped');
wait_until(q{SELECT coalesce(sum(waiting), 0) = 0 FROM perfopt.insert_buffers}, '... whose rows go');

# Rows that take long do not keep the only process from others
sql(q{
	CREATE TABLE slow (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
	CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.4); RETURN new; END';
	CREATE TRIGGER sleeps BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION sleep();
	ALTER SYSTEM SET perfopt.max_workers = 1});
$node->restart;
sql(q{SELECT perfopt.buffer_insert('slow', jsonb_build_object('id', i % 8), 'lossy') FROM generate_series(1, 9) i});
my $slow = start([ 'psql', '-X', '-At', '-p', $node->port, '-h', $node->host, '-c', 'SELECT perfopt.flush()', 'postgres' ], '>', \my $slow_out);
wait_until(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'perfopt buffer' AND wait_event = 'PgSleep'}, 'rows that take long');
is(as('writer', q{SELECT perfopt.buffer_insert('written', '{"id": 10}')}), 'inserted', '... another role gets its turn');
cmp_ok(sql('SELECT count(*) FROM slow'), '<', 8, '... before they are done');
$slow->finish;
is($slow_out, "9\n", '... they are, after that');
is(sql(q{SELECT count(*) FROM slow; SELECT inserted, rejected, lost FROM perfopt.insert_buffers WHERE target = 'slow'}), "8\n8|1|0", '... each once');
sql('ALTER SYSTEM RESET perfopt.max_workers');
$node->restart;

# A standby
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
foreach my $mode ('ack', 'lossy', 'durable')
{
	($code, $out, $err) = $standby->psql('postgres', "SELECT perfopt.buffer_insert('a', '{\"id\": 2000}', '$mode')");
	like($err, qr/cannot buffer inserts during recovery/, "a standby refuses mode $mode");
}
is($standby->safe_psql('postgres', 'SELECT count(*) FROM perfopt.insert_buffers WHERE waiting > 0'), '0', '... and shows what there is');
$standby->promote;
ok($standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'), 'promoted');
is($standby->safe_psql('postgres', q{SELECT perfopt.buffer_insert('a', '{"id": 2000}')}), 'inserted', '... it takes them');

$standby->stop;
$node->stop;
done_testing();
