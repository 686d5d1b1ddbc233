# What others do to a table, an index or an advice while it is under way.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('edges');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf',
	"perfopt.advice_interval = 0\nperfopt.survey_interval = 0\nperfopt.sample_interval = 0\nautovacuum = off\nrestart_after_crash = on\nperfopt.apply_attempts = 3\n");
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql('CREATE EXTENSION perfopt CASCADE');
sql(slurp_file("$root/test/tools/$_.sql")) foreach qw(stop_points worker);
sql(q{
	CREATE ROLE owner LOGIN; GRANT CREATE ON SCHEMA public TO owner;
	SET ROLE owner;
	CREATE TABLE t (a int, b text, c int);
	INSERT INTO t SELECT i, 'B' || i, i FROM generate_series(1, 100) i; ANALYZE t});
sub wake_worker
{
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.workers WHERE kind = 'database' AND state = 'sleeping'}) or die 'no worker';
	sql(q{SELECT duty_wake('apply')});
}
wake_worker();

# An advice as one that looks for them would store it; returns its id.
sub advice
{
	my ($table, $kind, $definition, %columns) = @_;
	my %row = (kind => $kind, schema_name => 'public', table_name => $table, definition => $definition, ddl => 'CREATE INDEX', reason => 'r',
		evidence => '{"queries": []}', estimated_bytes => 8192, status => 'open', %columns);
	my @names = sort keys %row;
	sql("DELETE FROM perfopt.advice_item WHERE table_name = '$table' AND definition = \$\$$definition\$\$");
	return sql('INSERT INTO perfopt.advice_item (' . join(', ', @names) . ') VALUES (' . join(', ', map { "\$\$$row{$_}\$\$" } @names) . ') RETURNING id');
}
sub as_owner { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'owner' ]); }
sub status { return sql("SELECT concat_ws(': ', status, error) FROM perfopt.advice WHERE id = $_[0]"); }
sub becomes
{
	my ($id, $expected, $name) = @_;
	$node->poll_query_until('postgres', "SELECT duty_wake('apply')::text = '' AND status NOT IN ('open', 'queued', 'applying', 'reverting') FROM perfopt.advice_item WHERE id = $id");
	is(status($id), $expected, $name);
}
sub ask { my ($id, $what) = @_; $what ||= 'apply'; return as_owner("SELECT perfopt.${what}_advice($id)"); }
sub indexes { return sql(qq{SELECT coalesce(string_agg(indexrelid::regclass || CASE WHEN indisvalid THEN '' ELSE ' invalid' END, ' ' ORDER BY indexrelid::regclass::text), '')
	FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relname ~ '$_[0]'}); }
my ($id, $other, $session);

# An advice that somebody is about to have taken back, in a transaction that he
# does not end, keeps no other one from being measured.
$id = advice('t', 'create_index', 'USING btree (a)');
$other = advice('t', 'create_index', 'USING btree (c)');
ask($id);
becomes($id, 'applied', 'applied');
sql(q{SELECT duty_run_now('verify', 20000)});
sql("UPDATE perfopt.advice_item SET measured_from = NULL WHERE id = $id");
$session = $node->background_psql('postgres', extra_params => [ '-U', 'owner' ]);
$session->query_safe("BEGIN; SELECT perfopt.revert_advice($id)");
ask($other);
becomes($other, 'applied', 'another one');
ok($node->poll_query_until('postgres', "SELECT duty_wake('verify')::text = '' AND measured_from IS NOT NULL FROM perfopt.advice_item WHERE id = $other"), 'it is measured meanwhile');
$session->query_safe('ROLLBACK');
$session->quit;

# What can't be taken back is what it was.
sql("UPDATE perfopt.advice_item SET judged_at = now(), measured_gain = 0, verdict = 'No difference can be told.' WHERE id = $other");
as_owner('CLUSTER t USING t_c_idx');
ask($other, 'revert');
becomes($other, 'applied: index "t_c_idx" is needed: it is unique, or used by CLUSTER or as a replica identity', 'not judged: applied, still');
as_owner('ALTER TABLE t SET WITHOUT CLUSTER');

# An index of the name, but another one
as_owner('DROP INDEX t_c_idx; CREATE INDEX t_c_idx ON t (c, a)');
ask($other, 'revert');
becomes($other, 'applied: index "t_c_idx" is another one by now', 'somebody else\'s is not dropped');
is(indexes('^t$'), 't_a_idx t_c_idx', 'it is there');
as_owner('DROP INDEX IF EXISTS t_a_idx, t_c_idx');
sql('DELETE FROM perfopt.advice_item');

# What a REINDEX of another index has left
as_owner('CREATE INDEX t_old ON t (b)');
$session = $node->background_psql('postgres');
as_owner('CREATE INDEX t_ccnew ON t (c)');
sql(q{UPDATE pg_index SET indisvalid = false WHERE indexrelid = 't_ccnew'::regclass});
$session->query_safe('BEGIN; INSERT INTO t VALUES (-1)');
$id = advice('t', 'reindex', 't_old', ddl => 'REINDEX INDEX CONCURRENTLY public.t_old');
ask($id);
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_class WHERE relname = 't_old_ccnew'}) or die;
sql(q{SELECT pg_terminate_backend(pid) FROM perfopt.workers WHERE kind = 'job'});
$session->query_safe('ROLLBACK');
$session->quit;
becomes($id, 'failed: terminating background worker "perfopt job" due to administrator command', 'a REINDEX that is killed');
is(indexes('^t$'), 't_ccnew invalid t_old', 'leaves what is not its own');
as_owner('DROP INDEX IF EXISTS t_ccnew, t_old');

# A name means what it meant when the advice was written.
sql(q{CREATE ROLE other LOGIN; GRANT CREATE ON SCHEMA public TO other; SET ROLE other;
	CREATE FUNCTION public.lower(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped as %', current_user; END$$});
sql('ALTER ROLE owner SET search_path = public, pg_catalog');
$id = advice('t', 'create_index', 'USING btree (lower(b))');
ask($id);
becomes($id, 'applied', 'whatever the search_path of its role');
sql('ALTER ROLE owner RESET search_path; DROP FUNCTION public.lower(text)');
as_owner('DROP INDEX IF EXISTS t_lower_idx');

# A type that somebody else may make another one before it is used
sql(q{SET ROLE other; CREATE TYPE public.en AS ENUM ('(y)')});
$id = advice('t', 'create_index', q{USING btree (num_nulls('(y)'::public.en, b))});
ask($id);
becomes($id, q{failed: the definition has a type or a function that the table's owner need not trust}, 'a type of neither a superuser nor the owner');
as_owner('DROP INDEX IF EXISTS t_num_nulls_idx');
sql('DROP TYPE public.en');

# An extension that is not there
$id = advice('t', 'create_index', 'USING gin (b gin_trgm_ops)');
ask($id);
becomes($id, 'failed: extension "pg_trgm" must be created first', 'an index that takes an extension');

# REINDEX CONCURRENTLY gives the name to a new index, and waits before it drops the old one.
$id = advice('t', 'create_index', 'USING btree (c)', evidence => '{"queries": [{"queryid": 4711, "role": "owner"}]}');
ask($id);
becomes($id, 'applied', 'an index that will be built anew');
sql(q{SELECT duty_run_now('verify', 20000)});
$session = $node->background_psql('postgres');
$session->query_safe('BEGIN; INSERT INTO t VALUES (-1)');
my ($reader, $reindex) = map { $node->background_psql('postgres') } 1 .. 2;
$reindex->query_until(qr//, "REINDEX INDEX CONCURRENTLY t_c_idx;\n");
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'REINDEX%' AND wait_event_type = 'Lock'}) or die;
$reader->query_safe('BEGIN; SELECT FROM t LIMIT 1');
$session->query_safe('ROLLBACK');
$session->quit;
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_class WHERE relname = 't_c_idx_ccold'}) or die;
sql(q{SELECT duty_run_now('verify', 20000)});
$reader->query_safe('ROLLBACK');
$_->quit foreach $reader, $reindex;
sql(q{SELECT duty_run_now('verify', 20000)});
is(sql("SELECT status, index_name FROM perfopt.advice_item WHERE id = $id"), 'applied|t_c_idx', 'is followed by its name');
my $locked = sql("SELECT xmax FROM perfopt.advice_item WHERE id = $id");
sql(q{SELECT duty_run_now('verify', 20000)});
is(sql("SELECT xmax FROM perfopt.advice_item WHERE id = $id"), $locked, '... which writes nothing when nothing is new');

# What is not measured any more is forgotten.
is(sql("SELECT count(*) FROM perfopt.advice_measure WHERE advice = $id AND part = 'named'"), '1', 'a statement is looked after');
ask($id, 'revert');
becomes($id, 'reverted', 'taken back before it is judged');
sql(q{SELECT duty_run_now('verify', 20000)});
is(sql("SELECT count(*) FROM perfopt.advice_measure WHERE advice = $id"), '0', '... and the statement forgotten');

# An index built by hand before its turn came is nobody else's.
$id = advice('t', 'create_index', 'USING btree (a)', automatic => 'true', status => 'queued', run_as => 'owner', requested_by => 'perfopt');
as_owner('CREATE INDEX mine ON t (a)');
becomes($id, 'applied', 'built by hand meanwhile');
is(sql("SELECT automatic FROM perfopt.advice_item WHERE id = $id"), 'f', 'which is not automatic');
as_owner('DROP INDEX mine');

# What was built without being asked for, and is dropped by hand, is not built again.
foreach ([ 'true', 'reverted' ], [ 'false', 'obsolete' ])
{
	$id = advice('t', 'create_index', 'USING btree (a)', automatic => $_->[0], status => 'applied', index_name => 'later', applied_at => '2020-01-01', judged_at => '2020-01-01', origin => '1/1', index_oid => 1);
	sql(q{SELECT duty_run_now('verify', 20000)});
	is(status($id), 'applied', 'an index that a restore is still to build');
	as_owner('CREATE INDEX later ON t (a)');
	sql(q{SELECT duty_run_now('verify', 20000)});
	as_owner('DROP INDEX later');
	sql(q{SELECT duty_run_now('verify', 20000)});
	is(status($id), $_->[1], "dropped by hand, automatic: $_->[0]");
}

# An index comes back as it was when it was dropped.
as_owner(q{CREATE INDEX t_old ON t (lower(b), a) WITH (fillfactor = 50); ALTER INDEX t_old ALTER COLUMN 1 SET STATISTICS 7; COMMENT ON INDEX t_old IS 'it''s mine'});
my $description = q{SELECT pg_get_indexdef(i), obj_description(i, 'pg_class'), attstattarget FROM pg_attribute, CAST('t_old'::regclass AS oid) i WHERE attrelid = i AND attnum = 1};
my $before = sql($description);
$id = advice('t', 'drop_index', 't_old', undo => 'CREATE INDEX CONCURRENTLY t_old ON public.t (b)');
ask($id);
becomes($id, 'applied', 'dropped');
ask($id, 'revert');
becomes($id, 'reverted', 'and taken back');
is(sql($description), $before, 'with all that it had');
as_owner('DROP INDEX t_old');

# Partitions of long names
my $long = 'a_partition_whose_name_is_as_long_as_it_may_be_and_ends_in_';
sql(qq{SET ROLE owner;
	CREATE TABLE p (a int, b int) PARTITION BY RANGE (a);
	CREATE TABLE ${long}1 PARTITION OF p FOR VALUES FROM (0) TO (100);
	CREATE TABLE ${long}2 PARTITION OF p FOR VALUES FROM (100) TO (200)});
$id = advice('p', 'create_index', 'USING btree (b)');
ask($id);
becomes($id, 'applied', 'names that differ in their ends only');
is(sql(q{SELECT count(*), bool_and(indisvalid) FROM pg_index}) =~ s/.*\|//r, 't', 'all are valid');
as_owner('DROP TABLE p');

# A partition that has the index already, and one that can't have it
sql(q{SET ROLE owner;
	CREATE TABLE p (a int, b int) PARTITION BY RANGE (a);
	CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
	CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
	CREATE INDEX p1_mine ON p1 (b);
	INSERT INTO p SELECT i, i FROM generate_series(0, 199) i});
$session = $node->background_psql('postgres');
my $waits = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'perfopt job' AND query LIKE 'CREATE INDEX CONCURRENTLY p2%' AND wait_event_type = 'Lock'};
$session->query_safe('BEGIN; INSERT INTO p2 VALUES (150)');
$id = advice('p', 'create_index', 'USING btree (b)');
ask($id);
$node->poll_query_until('postgres', $waits) or die;
sql(q{SELECT pg_terminate_backend(pid) FROM perfopt.workers WHERE kind = 'job'});
$session->query_safe('ROLLBACK');
becomes($id, 'failed: terminating background worker "perfopt job" due to administrator command', 'a build that fails');
is(indexes('^p\d*$'), 'p1_mine', 'leaves the index that was there before');

# What waits to go on, and can't
sql(q{ALTER ROLE owner SET lock_timeout = '100ms'});
$session->query_safe('BEGIN; INSERT INTO p2 VALUES (150)');
ask($id);
$node->poll_query_until('postgres', "SELECT retry_at IS NOT NULL FROM perfopt.advice_item WHERE id = $id") or die;
sql("UPDATE perfopt.advice_item SET estimated_bytes = 10::bigint ^ 17 WHERE id = $id");
$session->query_safe('ROLLBACK');
sql('ALTER ROLE owner RESET lock_timeout');
$node->poll_query_until('postgres', "SELECT duty_wake('apply')::text = '' AND status = 'failed' FROM perfopt.advice WHERE id = $id");
like(status($id), qr/^failed: not enough disk space/, 'no room to go on');
is(indexes('^p\d*$'), 'p1_mine', 'leaves nothing invalid');
sql("UPDATE perfopt.advice_item SET estimated_bytes = 1 WHERE id = $id");
$session->quit;

# The end of each statement that this takes, and of the process that runs it or the
# one that looks after it: it goes on after each.  Shared memory is gone with it.
my $applied = "SELECT status = 'applied' FROM perfopt.advice WHERE id = $id";
$node->append_conf('postgresql.conf', "perfopt.worker = off\n");
$node->restart;
ask($id);
my $ends = 0;
foreach my $point (qw(job-running job-ending apply-next job-ending apply-next job-running job-ending job-ending job-ending))
{
	sql("SELECT stop_point_set('$point', 'wait')");
	$node->append_conf('postgresql.conf', "perfopt.worker = on\n");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT duty_wake('apply')::text = '' AND stop_point_waiters('$point') = 1 OR status IN ('applied', 'failed') FROM perfopt.advice WHERE id = $id") or die;
	last if sql($applied) eq 't';
	sql('SELECT pg_switch_wal()');
	$node->append_conf('postgresql.conf', "perfopt.worker = off\n");
	$node->stop('immediate');
	$node->start;
	$ends++;
}
cmp_ok($ends, '>=', 7, 'so many crashes');
sql("SELECT stop_point_clear('$_')") foreach qw(job-running job-ending apply-next);
$node->append_conf('postgresql.conf', "perfopt.worker = on\n");
$node->reload;
wake_worker();
becomes($id, 'applied', 'the server has crashed at each statement');
is(sql(q{SELECT count(*), bool_and(indisvalid) FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relname ~ '^p\d*$'}), '3|t', 'and the index is there');

# What a type is when it was looked into, and what it has become when it is used: a
# superuser who asks runs nothing of what others have made of it, not as himself.
sql(q{
	CREATE ROLE keeper NOLOGIN; GRANT CREATE ON SCHEMA public TO keeper; SET ROLE keeper;
	CREATE TYPE public.en AS ENUM ('(y)');
	CREATE TABLE swapped (p public.en, a int);
	CREATE SEQUENCE ran;
	CREATE FUNCTION public.trap(text) RETURNS bool LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM setval('public.ran', CASE WHEN current_user = 'keeper' THEN 2 ELSE 3 END);
		BEGIN
			RESET SESSION AUTHORIZATION;
			PERFORM setval('public.ran', CASE WHEN current_user = 'keeper' THEN 2 ELSE 4 END);
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
		RETURN true;
	END $$});
sql(q{SELECT stop_point_set('apply-submit', 'wait')});
$id = advice('swapped', 'create_index', q{USING btree (a) WHERE (p = '(y)'::public.en)});
sql("SELECT perfopt.apply_advice($id)");
$node->poll_query_until('postgres', q{SELECT stop_point_waiters('apply-submit') = 1}) or die;
sql(q{SET ROLE keeper;
	ALTER TABLE swapped DROP COLUMN p; DROP TYPE public.en;
	CREATE DOMAIN public.d AS text CHECK (public.trap(VALUE));
	CREATE TYPE public.en AS (x public.d);
	ALTER TABLE swapped ADD COLUMN p public.en});
sql(q{SELECT stop_point_clear('apply-submit')});
becomes($id, 'applied', 'an index of a table whose owner may not log in');
is(sql('SELECT last_value FROM ran'), '2', '... is built as that one');
sql(q{DROP OWNED BY keeper; DROP ROLE keeper});

is(sql(q{SELECT count(*) FROM perfopt.workers WHERE last_error IS NOT NULL}), '0', 'no duty has failed');
$node->stop;
done_testing();
