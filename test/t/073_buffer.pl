# Buffered inserts: each caller's verdict, roles apart, tables that change
# meanwhile, a full buffer, cancelled callers.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Restarted;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('buffer');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf',
	"autovacuum = off\nrestart_after_crash = on\nperfopt.buffer_size = '256kB'\nperfopt.batch_max_wait = '1h'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/stop_points.sql"));
$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	CREATE ROLE "Bob" LOGIN;
	CREATE ROLE keeper NOLOGIN;
	CREATE TABLE t (id int PRIMARY KEY, note text DEFAULT 'none', who text DEFAULT current_user);
	GRANT INSERT, SELECT ON t TO alice, "Bob", keeper;
	GRANT CREATE ON SCHEMA public TO alice, "Bob"});

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub as
{
	my ($role, $sql) = @_;
	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]);
}
# The error of a statement, as sqlstate and message
sub fails
{
	my ($role, $sql) = @_;
	my ($code, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", extra_params => [ '-U', $role ]);
	return $err =~ /ERROR:\s+(.*)/ ? $1 : "no error, but $out";
}
sub wait_until
{
	my ($sql, $name) = @_;
	ok($node->poll_query_until('postgres', $sql), $name);
}
sub set_stop { sql("SELECT stop_point_set('$_[0]', '$_[1]')"); }
sub clear_stop { sql("SELECT stop_point_clear('$_[0]')"); }

# A session that is left alone with a statement
my @sessions;
sub begin_query
{
	my ($sql, $role) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', $role || 'postgres' ]);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_until(qr/begun/, "\\set VERBOSITY verbose\n\\echo begun\n$sql;\n");
	push @sessions, $session;
	return ($session, $pid);
}
# What it said in the end
sub said
{
	my ($session) = @_;
	my $out = $session->query('SELECT 1');
	my $err = $session->{stderr};
	$session->quit;
	return "$out\n$err";
}

# Modes
is(as('alice', q{SELECT perfopt.buffer_insert('t', '{"id": 1}')}), 'inserted', 'mode ack');
is(sql('SELECT * FROM t'), '1|none|alice', 'is there at once, with defaults, as its role');
is(as('alice', q{SELECT perfopt.buffer_insert('t', '{"id": 2, "note": null}', 'lossy')}), 'buffered', 'mode lossy');
is(as('alice', q{BEGIN; SELECT perfopt.buffer_insert('t', '{"id": 3, "note": "x"}', 'durable'); COMMIT}), 'spooled', 'mode durable');
is(as('alice', q{BEGIN; SELECT perfopt.buffer_insert('t', '{"id": 4}', 'durable'); ROLLBACK}), 'spooled', '... is part of the transaction');
is(sql(q{SELECT mode, waiting, inserted FROM perfopt.insert_buffers ORDER BY mode}), "ack|0|1\ndurable|1|0\nlossy|1|0", 'two wait');
is(as('alice', 'SELECT perfopt.flush()'), '2', 'flush() has them written');
is(sql('SELECT * FROM t ORDER BY id'), "1|none|alice\n2||alice\n3|x|alice", '... and they are');
is(sql(q{SELECT mode, waiting, inserted FROM perfopt.insert_buffers ORDER BY mode}), "ack|0|1\ndurable|0|1\nlossy|0|1", '... and are counted');
is(as('alice', 'SELECT perfopt.flush(\'t\')'), '0', 'nothing is left');
is(as('alice', q{BEGIN; SELECT perfopt.buffer_insert('t', '{"id": 5}', 'lossy'); ROLLBACK; SELECT perfopt.flush()}), "buffered\n1", 'lossy rows stay after a rollback');
is(as('alice', q{SELECT perfopt.buffer_insert('t', jsonb_build_object('id', 100 + i), 'lossy') FROM generate_series(1, 100) i; }) =~ tr/\n//, 99, 'perfopt.batch_size rows');
wait_until('SELECT count(*) = 100 FROM t WHERE id > 100', '... are written without waiting for more');
as('alice', q{SELECT perfopt.buffer_insert('t', jsonb_build_object('id', 300 + i), 'durable') FROM generate_series(1, 100) i});
wait_until('SELECT count(*) = 100 FROM t WHERE id > 300', '... those of mode durable, too');
$node->append_conf('postgresql.conf', "perfopt.batch_max_wait = '100ms'\n");
$node->reload;
as('alice', q{SELECT perfopt.buffer_insert('t', '{"id": 501}', 'lossy'), perfopt.buffer_insert('t', '{"id": 502}', 'durable')});
wait_until('SELECT count(*) = 2 FROM t WHERE id > 500', 'few are after perfopt.batch_max_wait');
sql('TRUNCATE t');

# Errors at once
like(fails('alice', q{SELECT perfopt.buffer_insert('t', '[1]')}), qr/^22023/, 'no object');
like(fails('alice', q{SELECT perfopt.buffer_insert('t', '{"id": 1}', 'fast')}), qr/^22023: unrecognized mode/, 'no mode');
like(fails('alice', q{SELECT perfopt.buffer_insert('t', NULL)}), qr/^22004/, 'no row');
like(fails('alice', q{SELECT perfopt.buffer_insert('pg_class', '{}', 'lossy')}), qr/^42501: permission denied/, 'no privilege');
like(fails('alice', q{CREATE TEMP TABLE tt (i int); SELECT perfopt.buffer_insert('tt', '{"i": 1}')}), qr/^0A000/, 'a temporary table');
like(fails('alice', q{SELECT perfopt.buffer_insert('t_pkey', '{"i": 1}')}), qr/^42809/, 'an index');
like(fails('alice', q{SELECT perfopt.buffer_insert('t', jsonb_build_object('note', string_agg(md5(i::text), '')), 'lossy') FROM generate_series(1, 3000) i}), qr/^54000/, 'a row of a third of the buffer');
like(fails('alice', q{BEGIN READ ONLY; SELECT perfopt.buffer_insert('t', '{"id": 1}')}), qr/^25006/, 'a read-only transaction');
my $version = sql('SHOW server_version_num');
my $keeper = fails('postgres', q{SET ROLE keeper; SELECT perfopt.buffer_insert('t', '{"id": 1}')});
$version >= 170000 ? like($keeper, qr/^no error, but inserted/, 'a role without LOGIN') : like($keeper, qr/^28000/, 'a role without LOGIN');

# The row's own error
like(fails('alice', q{SELECT perfopt.buffer_insert('t', '{"id": 1}'); SELECT perfopt.buffer_insert('t', '{"id": 1}')}),
	qr/^23505: duplicate key value violates unique constraint "t_pkey"/, 'a duplicate');
is($node->psql('postgres', q{DO $$ DECLARE c text; BEGIN
		PERFORM perfopt.buffer_insert('t', '{"id": 1}');
	EXCEPTION WHEN unique_violation THEN
		GET STACKED DIAGNOSTICS c = CONSTRAINT_NAME;
		IF c <> 't_pkey' THEN RAISE 'constraint %', c; END IF;
	END $$}, extra_params => [ '-U', 'alice' ]), 0, 'a function catches it, with the name of the constraint');
like(fails('alice', q{SELECT perfopt.buffer_insert('t', '{"id": "x"}')}), qr/^22P02/, 'a cast');
like(fails('alice', q{SELECT perfopt.buffer_insert('t', '{"nothing": 1}')}), qr/^(42703|23502)/, 'no such column');
is(sql('SELECT count(*) FROM perfopt.rejected_rows'), '0', 'who gets his error finds it nowhere else');
set_stop('buffer-taken', 'wait');
my ($flushing) = begin_query(q{SELECT perfopt.buffer_insert('t', '{"id": 2}')});
wait_until(q{SELECT stop_point_waiters('buffer-taken') = 1}, 'a flush');
sql(q{SELECT perfopt.buffer_insert('t', '{"id": 1, "note": "lossy"}', 'lossy')});
my ($rejected) = begin_query(q{SELECT perfopt.buffer_insert('t', '{"id": 1, "note": "ack"}')});
wait_until(q{SELECT sum(waiting) = 2 FROM perfopt.insert_buffers}, 'rows of two modes in the next one');
clear_stop('buffer-taken');
like(said($rejected), qr/23505/, 'the one of mode ack gets its error');
like(said($flushing), qr/inserted/, '... after the flush before it');
is(sql(q{SELECT payload->>'note' FROM perfopt.rejected_rows}), 'lossy', '... that of mode lossy is kept');
sql('SELECT perfopt.delete_rejected_rows()');

# Who holds what a flush may wait for
like(fails('alice', q{BEGIN; INSERT INTO t VALUES (10); SELECT perfopt.buffer_insert('t', '{"id": 10}')}), qr/^25001/, 'a caller with an uncommitted row');
like(fails('alice', q{BEGIN; LOCK TABLE t IN ROW EXCLUSIVE MODE; SELECT perfopt.buffer_insert('t', '{"id": 11}')}), qr/^no error, but inserted/, 'a lock that an insert does not wait for');
like(fails('postgres', q{BEGIN; LOCK TABLE t IN SHARE MODE; SELECT perfopt.buffer_insert('t', '{"id": 12}')}), qr/^25001/, 'a caller that has locked the table');
like(fails('postgres', q{BEGIN; LOCK TABLE t IN SHARE MODE; SELECT perfopt.flush('t')}), qr/^25001/, '... cannot flush either');
# what it cannot see: a lock that a trigger waits for
sql(q{
	CREATE FUNCTION lock_1() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN new; END';
	CREATE TABLE locking (id int);
	CREATE TRIGGER locks BEFORE INSERT ON locking FOR EACH ROW EXECUTE FUNCTION lock_1()});
like(fails('postgres', q{SELECT pg_advisory_lock(1); SELECT perfopt.buffer_insert('locking', '{"id": 1}')}), qr/^55P03/, 'another lock is waited for shortly');

# An uncommitted row of another session: its neighbours do not suffer
my ($other) = begin_query('BEGIN; INSERT INTO t VALUES (20)');
set_stop('buffer-taken', 'wait');
my ($first, $first_pid) = begin_query(q{SELECT perfopt.buffer_insert('t', '{"id": 21}')});
wait_until(q{SELECT stop_point_waiters('buffer-taken') = 1}, 'a flush');
my ($conflicting) = begin_query(q{SELECT perfopt.buffer_insert('t', '{"id": 20}')});
my @neighbours = map { (begin_query("SELECT perfopt.buffer_insert('t', '{\"id\": $_}')"))[0] } 22 .. 24;
wait_until(q{SELECT sum(waiting) = 4 FROM perfopt.insert_buffers WHERE target = 't'}, '... and four for the next one');
clear_stop('buffer-taken');
like(said($conflicting), qr/55P03/, 'a key that another transaction has written: an error');
like(said($_), qr/inserted/, 'the neighbour is inserted') foreach $first, @neighbours;

# The same in mode durable: it is tried again later
sql(q{SELECT perfopt.buffer_insert('t', jsonb_build_object('id', i), 'durable') FROM generate_series(20, 29) i WHERE i NOT BETWEEN 21 AND 24; SELECT perfopt.flush()});
is(sql(q{SELECT payload->>'id', attempts, sqlstate FROM perfopt.insert_spool; SELECT count(*) FROM t WHERE id BETWEEN 25 AND 29}), "20|1|55P03\n5", 'a durable row that conflicts stays in the spool, its neighbours do not');
sql(q{UPDATE perfopt.insert_spool SET attempts = 4, next_attempt_at = 'infinity'});
my ($code, $out, $err) = $node->psql('postgres', 'SELECT perfopt.flush()');
like("$out $err", qr/^0 .*WARNING:  1 buffered row waits for another attempt/, '... of which flush() warns');
is(sql(q{SELECT attempts, sqlstate FROM perfopt.insert_spool}), '4|55P03', '... having tried it again, and however often');
said($other);
sql(q{UPDATE perfopt.insert_spool SET next_attempt_at = 'infinity'});
is(sql('SELECT perfopt.flush()'), '1', '... when the other one has gone, it does not wait for its time');
is(sql(q{SELECT count(*) FROM perfopt.insert_spool; SELECT count(*) FROM t WHERE id = 20}), "0\n1", '... and is inserted when the other one has gone');

# Roles
is(as('alice', q{SELECT perfopt.buffer_insert('t', '{"id": 30}'), perfopt.buffer_insert('t', '{"id": 31}', 'lossy'), perfopt.buffer_insert('t', '{"id": 32}', 'durable')}), 'inserted|buffered|spooled', 'alice');
is(as('Bob', q{SELECT perfopt.buffer_insert('t', '{"id": 33}'), perfopt.buffer_insert('t', '{"id": 34}', 'lossy'), perfopt.buffer_insert('t', '{"id": 35}', 'durable')}), 'inserted|buffered|spooled', 'Bob');
sql('SELECT perfopt.flush()');
is(sql('SELECT id, who FROM t WHERE id BETWEEN 30 AND 39 ORDER BY id'), "30|alice\n31|alice\n32|alice\n33|Bob\n34|Bob\n35|Bob", 'each as himself');
is(as('Bob', q{SELECT DISTINCT rolname FROM perfopt.insert_buffers}), 'Bob', 'and sees his own');
like(fails('Bob', q{INSERT INTO perfopt.insert_spool (role, target, payload) VALUES ('alice', 't', '{}')}), qr/^42501/, 'nobody writes to the spool');
like(fails('Bob', q{DELETE FROM perfopt.insert_spool}), qr/^42501/, '... or deletes from it');
like(fails('Bob', q{BEGIN; LOCK TABLE perfopt.insert_spool IN ROW EXCLUSIVE MODE}), qr/^42501/, '... or locks it');
$node->append_conf('postgresql.conf', "perfopt.batch_max_wait = '1h'\n");
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('perfopt.batch_max_wait') = '1h'});
as('alice', q{SELECT perfopt.buffer_insert('t', '{"id": 36}', 'durable')});
is(as('Bob', 'SELECT count(*) FROM perfopt.insert_spool'), '0', 'rows of others are not seen');
is(as('Bob', q{SELECT perfopt.flush('t')}), '0', 'nor flushed');
# the search_path of a role is not that of the spool's owner
sql('CREATE SCHEMA evil AUTHORIZATION "Bob"; ALTER ROLE "Bob" SET search_path = evil, pg_catalog, public');
as('Bob', q{
	CREATE FUNCTION evil.gain(a oid, b oid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
		IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN CREATE TABLE public.gained (); END IF;
		RETURN pg_catalog.oideq(a, b); END $$;
	CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.gain);
	CREATE FUNCTION evil.gain8(a int8, b int8) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
		IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN CREATE TABLE public.gained (); END IF;
		RETURN pg_catalog.int8eq(a, b); END $$;
	CREATE OPERATOR evil.= (LEFTARG = int8, RIGHTARG = int8, FUNCTION = evil.gain8)});
as('Bob', q{SELECT perfopt.buffer_insert('t', '{"id": 37}', 'durable'); SELECT perfopt.flush()});
is(sql(q{SELECT to_regclass('public.gained') IS NULL, count(*) FROM t WHERE id = 37}), 't|1', 'a search_path gains nothing');
sql('ALTER ROLE "Bob" RESET search_path; SELECT perfopt.flush()');

# DROP, ALTER, REVOKE while rows wait: each is rejected with its reason
sub changed { my ($table, $mode, $id) = @_; return qq{SELECT perfopt.buffer_insert('$table', '{"id": $id, "old": 1}'::jsonb - '} . ($table eq 'altered' ? '' : 'old') . qq{', '$mode')}; }
sql(q{
	SELECT perfopt.delete_rejected_rows();
	CREATE TABLE dropped (id int); CREATE TABLE altered (id int, old int); CREATE TABLE revoked (id int);
	GRANT INSERT ON dropped, altered, revoked TO alice});
as('alice', 'SELECT perfopt.delete_rejected_rows()');
set_stop('buffer-taken', 'wait');
my ($before) = begin_query(q{SELECT perfopt.buffer_insert('t', '{"id": 40}')}, 'alice');
wait_until(q{SELECT stop_point_waiters('buffer-taken') = 1}, 'a flush');
my %ack;
foreach my $table ('dropped', 'altered', 'revoked')
{
	as('alice', changed($table, 'lossy', 1));
	as('alice', changed($table, 'durable', 2));
	($ack{$table}) = begin_query(changed($table, 'ack', 3), 'alice');
}
wait_until(q{SELECT count(*) = 9 FROM perfopt.insert_buffers WHERE waiting = 1 AND target IN ('dropped', 'altered', 'revoked')}, 'rows for three tables');
sql(q{DROP TABLE dropped; ALTER TABLE altered DROP COLUMN old; REVOKE INSERT ON revoked FROM alice});
clear_stop('buffer-taken');
like(said($before), qr/inserted/, 'the flush that was under way');
like(said($ack{dropped}), qr/42P01: relation with OID \d+ does not exist/, 'dropped');
like(said($ack{altered}), qr/42703: column "old"/, 'altered');
like(said($ack{revoked}), qr/42501: permission denied/, 'revoked');
like(as('alice', 'SELECT perfopt.flush()'), qr{^[0-3]$}, 'those of the spool');
is(sql(q{SELECT payload->>'id', sqlstate, target ~ '^\d+$', count(*) FROM perfopt.rejected_rows WHERE payload->>'id' <> '3' GROUP BY 1, 2, 3 ORDER BY 1, 2}),
	"1|42501|f|1\n1|42703|f|1\n1|42P01|t|1\n2|42501|f|1\n2|42703|f|1\n2|42P01|t|1", 'the others are kept with their reasons');
is(sql(q{SELECT sum(lost), sum(waiting) FROM perfopt.insert_buffers}), '0|0', 'nothing is lost, and nothing waits');

# A deferred constraint fails at the commit
as('alice', 'SELECT perfopt.delete_rejected_rows()');
sql(q{
	CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1);
	CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
	SELECT perfopt.delete_rejected_rows()});
sql(q{SELECT perfopt.buffer_insert('child', jsonb_build_object('id', i, 'parent', i % 2), CASE WHEN i <= 4 THEN 'lossy' ELSE 'durable' END) FROM generate_series(1, 8) i; });
is(sql('SELECT perfopt.flush()'), '8', 'a constraint that is checked at the commit');
is(sql('SELECT string_agg(id::text, \',\' ORDER BY id) FROM child'), '1,3,5,7', '... the good rows are in');
is(sql(q{SELECT payload->>'id', sqlstate FROM perfopt.rejected_rows ORDER BY 1}), "2|23503\n4|23503\n6|23503\n8|23503", '... the others kept');
is(sql(q{SELECT sum(inserted) FILTER (WHERE mode = 'lossy'), sum(rejected) FILTER (WHERE mode = 'lossy'), sum(inserted) FILTER (WHERE mode = 'durable'), sum(rejected) FILTER (WHERE mode = 'durable') FROM perfopt.insert_buffers WHERE target = 'child'}), '2|2|2|2', '... and counted');

# What triggers leave in the session is not for the next flush
sql(q{
	CREATE TABLE leaving (id int, path text DEFAULT current_setting('search_path') || coalesce(nullif(current_setting('my.name', true), ''), ' -'));
	CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		PERFORM set_config('search_path', 'nowhere', false), set_config('my.name', 'x', false);
		RETURN new; END $$;
	CREATE TRIGGER leaves BEFORE INSERT ON leaving FOR EACH ROW EXECUTE FUNCTION leave();
	SELECT perfopt.buffer_insert('leaving', '{"id": 1}');
	SELECT perfopt.buffer_insert('leaving', '{"id": 2}')});
is(sql('SELECT DISTINCT path FROM leaving'), '"$user", public -', 'settings made by a trigger go');
sql(q{
	CREATE TABLE recursing (id int);
	CREATE FUNCTION recurse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		PERFORM perfopt.buffer_insert('recursing', jsonb_build_object('id', new.id + 1)); RETURN new; END $$;
	CREATE TRIGGER recurses BEFORE INSERT ON recursing FOR EACH ROW EXECUTE FUNCTION recurse()});
like(fails('postgres', q{SELECT perfopt.buffer_insert('recursing', '{"id": 1}')}), qr/^25/, 'a trigger cannot wait for the flush it is part of');
like(fails('postgres', q{SELECT perfopt.buffer_insert('leaving', '{"id": 3}'); DROP TABLE leaving}), qr/^no error/, 'the process holds no lock between flushes');

# A caller that is cancelled
my $row = 50;
sub cancelled
{
	my ($stop, $signal) = @_;
	$row++;
	set_stop('buffer-taken', 'wait');
	my ($session) = begin_query("SELECT perfopt.buffer_insert('t', '{\"id\": ${row}0}')");
	wait_until(q{SELECT stop_point_waiters('buffer-taken') = 1}, 'a flush');
	my ($caller, $pid) = ($session, $session->{pid});
	($caller, $pid) = begin_query("SELECT perfopt.buffer_insert('t', '{\"id\": ${row}1}')") if $stop eq 'waiting';
	wait_until(q{SELECT sum(waiting) = 1 FROM perfopt.insert_buffers WHERE target = 't'}, 'a row waits') if $stop eq 'waiting';
	$pid = sql(qq{SELECT pid FROM pg_stat_activity WHERE query LIKE '%"id": ${row}0%' AND pid <> pg_backend_pid()}) if $stop eq 'taken';
	sql("SELECT $signal($pid)");
	wait_until(qq{SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND state = 'active'}, 'who waited gives up') if $stop eq 'waiting' || $signal eq 'pg_terminate_backend';
	return ($session, $caller, $pid);
}
my ($session, $caller) = cancelled('waiting', 'pg_cancel_backend');
clear_stop('buffer-taken');
like(said($caller), qr/57014/, 'cancelled while his row waits');
like(said($session), qr/inserted/, '... the other one goes on');
is(sql("SELECT count(*) FROM t WHERE id = ${row}1"), '0', '... and it is not inserted');
($session, $caller) = cancelled('taken', 'pg_cancel_backend');
clear_stop('buffer-taken');
like(said($session), qr/inserted/, 'cancelled while it is being inserted: the end is told');
($session, $caller) = cancelled('taken', 'pg_cancel_backend');
like(said($session), qr/08007: canceled while the buffered row was being inserted/, '... unless that takes long');
clear_stop('buffer-taken');
wait_until("SELECT count(*) = 1 FROM t WHERE id = ${row}0", '... it was');
($session, $caller) = cancelled('waiting', 'pg_terminate_backend');
clear_stop('buffer-taken');
like(said($session), qr/inserted/, 'one whose process ends while his row waits');
is(sql("SELECT count(*) FROM t WHERE id = ${row}1"), '0', '... it is not inserted');
eval { $caller->quit };
($session, $caller) = cancelled('taken', 'pg_terminate_backend');
clear_stop('buffer-taken');
wait_until("SELECT count(*) = 1 FROM t WHERE id = ${row}0", 'one whose process ends while it is being inserted: it is');
eval { $session->quit };
is(sql(q{SELECT perfopt.buffer_insert('t', '{"id": 60}')}), 'inserted', 'and then all is as before');
is(sql(q{SELECT sum(waiting), sum(bytes), sum(lost) FROM perfopt.insert_buffers}), '0|0|0', 'nothing is left');

# A full buffer
set_stop('buffer-taken', 'wait');
($session) = begin_query(q{SELECT perfopt.buffer_insert('t', '{"id": 61}')});
wait_until(q{SELECT stop_point_waiters('buffer-taken') = 1}, 'a flush that takes its time');
my $fill = q{SELECT count(perfopt.buffer_insert('t', jsonb_build_object('id', 1000 + i, 'note', repeat('x', 500)), 'lossy')) FROM generate_series(1, 1000) i};
my $began = time;
like(fails('postgres', "SET perfopt.buffer_timeout = '1s'; $fill"), qr/^53400: insert buffer is full/, 'a full buffer is an error');
cmp_ok(time - $began, '<', 10, '... after perfopt.buffer_timeout');
my $full = sql('SELECT sum(bytes) FROM perfopt.insert_buffers');
cmp_ok($full, '<', 128 * 1024, '... at half of the buffer');
cmp_ok($full, '>', 64 * 1024, '... and not long before');
like(fails('postgres', q{SET perfopt.buffer_timeout = '100ms'; SELECT perfopt.buffer_insert('t', jsonb_build_object('id', 62, 'note', repeat('x', 500)))}), qr/^53400/, 'in mode ack, too');
is(as('alice', q{SELECT perfopt.buffer_insert('t', '{"id": 63}', 'lossy')}), 'buffered', 'another role has place');
my ($blocked) = begin_query(q{SET perfopt.buffer_timeout = '1min'; SELECT perfopt.buffer_insert('t', jsonb_build_object('id', 64, 'note', repeat('y', 500)))});
wait_until(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%id%, 64,%' AND wait_event_type = 'Extension' AND pid <> pg_backend_pid()}, 'one who waits for place');
clear_stop('buffer-taken');
like(said($blocked), qr/inserted/, '... gets it when there is some');
like(said($session), qr/inserted/, '... after the others');
sql('SELECT perfopt.flush()');
is(sql('SELECT count(*) > 0 AND count(*) = max(id) - 1000 FROM t WHERE id > 1000 AND note LIKE \'xxx%\''), 't', 'and all that were accepted are in');
is(sql(q{SELECT sum(waiting), sum(bytes) FROM perfopt.insert_buffers}), '0|0', 'nothing is left in it');

# More tables than a role can have queues
$node->append_conf('postgresql.conf', "perfopt.batch_max_wait = '10ms'\n");
$node->reload;
sql(q{DO $$ BEGIN FOR i IN 1..40 LOOP EXECUTE format('CREATE TABLE many_%s (id int)', i); END LOOP; END $$});
sql(join ';', map { "SELECT perfopt.buffer_insert('many_$_', '{\"id\": $_}', 'lossy')" } 1 .. 40);
sql('SELECT perfopt.flush()');
is(sql('SELECT ' . join(' + ', map { "(SELECT count(*) FROM many_$_)" } 1 .. 40)), '40', 'forty tables');
is(sql(q{SELECT sum(inserted) = 40, bool_or(datname IS NULL) FROM perfopt.insert_buffers WHERE mode = 'lossy' AND (target LIKE 'many%' OR target IS NULL AND rolname IS NULL) AND inserted < 40 OR target IS NULL AND mode = 'lossy'}) =~ /t$/ ? 1 : 0, 1, 'counters of those that made way are kept');

# No worker
$node->append_conf('postgresql.conf', "perfopt.worker = off\n");
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('perfopt.worker') = 'off'});
like(fails('postgres', q{SELECT perfopt.buffer_insert('t', '{"id": 70}')}), qr/^55000: perfopt's background workers are turned off/, 'no background workers');
$node->append_conf('postgresql.conf', "perfopt.worker = on\n");
$node->reload;
wait_until(q{SELECT current_setting('perfopt.worker') = 'on'}, 'on again');

# A role that is not let in, and one that is dropped
sql(q{ALTER ROLE "Bob" CONNECTION LIMIT 0});
sql(q{SET SESSION AUTHORIZATION "Bob"; SELECT perfopt.buffer_insert('t', '{"id": 80}', 'durable')});
like(fails('postgres', q{SET SESSION AUTHORIZATION "Bob"; SELECT perfopt.buffer_insert('t', '{"id": 81}')}), qr/^(no error, but inserted|53300)/, 'too many connections for the role');
sql(q{ALTER ROLE "Bob" CONNECTION LIMIT -1; SET SESSION AUTHORIZATION "Bob"; SELECT perfopt.flush()});
is(sql('SELECT count(*) FROM t WHERE id = 80'), '1', 'they are inserted later');

$node->stop;
done_testing();
