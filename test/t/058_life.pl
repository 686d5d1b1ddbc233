# The life of an advice of each kind: applied, reverted, dismissed, tried again,
# and who may ask for that.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('life');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf',
	"perfopt.advice_interval = 0\nperfopt.sample_interval = 0\nautovacuum = off\nperfopt.advice_role = advisers\nperfopt.verify_window = 0\nperfopt.apply_attempts = 5\nperfopt_test.statement_ms = 5\n");
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql('CREATE EXTENSION perfopt CASCADE');
sql(slurp_file("$root/test/tools/$_.sql")) foreach qw(stop_points worker);
sql(q{
	CREATE ROLE owner LOGIN; CREATE ROLE other LOGIN; CREATE ROLE advisers; CREATE ROLE dba LOGIN IN ROLE advisers;
	GRANT CREATE ON SCHEMA public TO owner;
	SET ROLE owner;
	CREATE TABLE t (a int, b text);
	INSERT INTO t SELECT i, 'B' || i FROM generate_series(1, 5000) i;
	CREATE INDEX t_old ON t (b); CREATE UNIQUE INDEX t_unique ON t (a); ANALYZE t});
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.workers WHERE datname = 'postgres' AND pid IS NOT NULL})
  or die 'no worker';

# An advice as one that looks for them would store it; returns its id.
sub advice
{
	my ($kind, $definition, $ddl, $undo, $bytes) = @_;
	return sql(qq{INSERT INTO perfopt.advice_item
		(kind, schema_name, table_name, definition, index_name, ddl, undo, reason, evidence, estimated_bytes, status)
		VALUES ('$kind', 'public', 't', \$\$$definition\$\$, } . ($kind eq 'create_statistics' ? "'t_stat'" : 'NULL')
		. qq{, \$\$$ddl\$\$, nullif('$undo', ''), 'r', '{"queries": []}', } . ($bytes || 8192) . q{, 'open') RETURNING id});
}
sub as_role
{
	my ($role, $sql) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ]);
	return $ret == 0 ? $out : $err;
}
sub becomes
{
	my ($id, $expected, $name) = @_;
	$node->poll_query_until('postgres', "SELECT duty_wake('apply')::text = '' AND status IN ('applied', 'failed', 'reverted') FROM perfopt.advice_item WHERE id = $id");
	is(sql("SELECT concat_ws(': ', status, error) FROM perfopt.advice WHERE id = $id"), $expected, $name);
}
sub indexes { return sql(q{SELECT string_agg(indexrelid::regclass || CASE WHEN indisvalid THEN '' ELSE ' invalid' END, ' ' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = 't'::regclass}); }

# An index of its own kind: built, logged, reverted
my $id = advice('create_index', q{USING btree (lower(b)) WHERE (a > 5)}, 'CREATE INDEX', '');
like(as_role('owner', "SELECT perfopt.apply_advice($id)"), qr/^queued/, 'asked for');
becomes($id, 'applied', 'a partial index of an expression');
is(sql("SELECT ddl || '; ' || undo FROM perfopt.advice WHERE id = $id"),
	'CREATE INDEX CONCURRENTLY t_lower_idx ON public.t (lower(b)) WHERE (a > 5); DROP INDEX CONCURRENTLY public.t_lower_idx', 'what was run, and what takes it back');
is(indexes(), 't_lower_idx t_old t_unique', 'it is there');
like(as_role('owner', "SELECT perfopt.dismiss_advice($id, 'no')"), qr/ERROR:  55000: advice \d+ is applied/, 'what is applied is not dismissed');
like(as_role('other', "SELECT perfopt.revert_advice($id)"), qr/ERROR:  42501: must be owner/, 'only the owner reverts');
like(as_role('owner', "SELECT perfopt.revert_advice($id)"), qr/^reverting: DROP INDEX/, 'asked to revert');
becomes($id, 'reverted', 'reverted');
is(indexes(), 't_old t_unique', 'it is gone');
is(sql("SELECT string_agg(concat_ws(' ', actor, act, from_status, to_status), ', ' ORDER BY id) FROM perfopt.advice_log WHERE advice = $id"),
	'owner apply open queued, perfopt start queued applying, perfopt applied applying applied, owner revert applied reverting, perfopt reverted reverting reverted',
	'the log has it all');
like(as_role('owner', "SELECT perfopt.revert_advice($id)"), qr/ERROR:  55000: advice \d+ is reverted/, 'once');

# Another index has taken the name of the one that was built.
$id = advice('create_index', 'USING btree (b DESC, a)', 'CREATE INDEX', '');
as_role('owner', "SELECT perfopt.apply_advice($id)");
becomes($id, 'applied', 'one that will be renamed');
sql('ALTER INDEX t_b_a_idx RENAME TO t_mine; CREATE INDEX t_b_a_idx ON t (a)');
as_role('owner', "SELECT perfopt.revert_advice($id)");
becomes($id, 'reverted', 'reverting finds its index under its new name');
is(indexes(), 't_b_a_idx t_old t_unique', '... and leaves what it has not built');
sql('DROP INDEX t_b_a_idx');

# A table that is renamed, and what has got its name
$id = advice('create_index', 'USING btree (b, a DESC)', 'CREATE INDEX', '');
as_role('owner', "SELECT perfopt.apply_advice($id)");
becomes($id, 'applied', 'of a table that will be renamed');
sql('CREATE SCHEMA "S" AUTHORIZATION owner; SET ROLE owner; ALTER TABLE t SET SCHEMA "S"; ALTER TABLE "S".t RENAME TO "T"; CREATE TABLE t (a int, b text)');
sql(q{SELECT duty_run_now('verify', 10000)});
is(sql("SELECT status, relation, ddl, undo FROM perfopt.advice WHERE id = $id"),
	'applied|"S"."T"|CREATE INDEX CONCURRENTLY t_b_a_idx ON "S"."T" (b, a DESC)|DROP INDEX CONCURRENTLY "S".t_b_a_idx', 'it is followed');
as_role('owner', "SELECT perfopt.revert_advice($id)");
becomes($id, 'reverted', 'and reverted');
sql('SET ROLE owner; DROP TABLE t; ALTER TABLE "S"."T" SET SCHEMA public; ALTER TABLE "T" RENAME TO t');
is(indexes(), 't_old t_unique', 'there');

# Dropping one, and having it back
$id = advice('drop_index', 't_old', 'DROP INDEX CONCURRENTLY public.t_old', 'CREATE INDEX CONCURRENTLY t_old ON public.t USING btree (b)');
as_role('owner', "SELECT perfopt.apply_advice($id)");
becomes($id, 'applied', 'drop_index');
is(indexes(), 't_unique', 'dropped');
sql('ALTER TABLE t RENAME TO t2');
like(as_role('dba', "SELECT perfopt.revert_advice($id)"), qr/ERROR:  55000: .* is gone\nDETAIL:  It has been dropped, or renamed, /, '... of a table that has got another name');
sql('ALTER TABLE t2 RENAME TO t');
as_role('owner', "SELECT perfopt.revert_advice($id)");
becomes($id, 'reverted', 'and reverted');
is(indexes(), 't_old t_unique', 'it is there again');
$id = advice('drop_index', 't_unique', 'DROP INDEX CONCURRENTLY public.t_unique', '');
as_role('owner', "SELECT perfopt.apply_advice($id)");
becomes($id, 'failed: index "t_unique" is needed: it is unique, or used by CLUSTER or as a replica identity', 'a unique index stays');

# Other statements
my $before = sql(q{SELECT relfilenode FROM pg_class WHERE relname = 't_old'});
$id = advice('reindex', 't_old', 'REINDEX INDEX CONCURRENTLY public.t_old', '');
as_role('owner', "SELECT perfopt.apply_advice($id)");
becomes($id, 'applied', 'reindex');
isnt(sql(q{SELECT relfilenode FROM pg_class WHERE relname = 't_old'}), $before, 'the index is another one');
like(as_role('owner', "SELECT perfopt.revert_advice($id)"), qr/ERROR:  0A000: .* can't be reverted/, 'that is not reverted');
$id = advice('create_statistics', '(dependencies) ON a, b', 'CREATE STATISTICS public.t_stat (dependencies) ON a, b FROM public.t', 'DROP STATISTICS public.t_stat');
as_role('owner', "SELECT perfopt.apply_advice($id)");
becomes($id, 'applied', 'create_statistics');
is(sql(q{SELECT count(*) FROM pg_statistic_ext}), '1', 'there they are');
as_role('owner', "SELECT perfopt.revert_advice($id)");
becomes($id, 'reverted', 'reverted');
is(sql(q{SELECT count(*) FROM pg_statistic_ext}), '0', 'and gone');
$id = advice('analyze', '', 'ANALYZE public.t', '');
as_role('owner', "SELECT perfopt.apply_advice($id)");
becomes($id, 'applied', 'analyze');

# A REINDEX that is killed leaves an index that would never be used.
my $writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; INSERT INTO t VALUES (-1)');
$id = sql(q{SELECT id FROM perfopt.advice_item WHERE kind = 'reindex'});
sql("UPDATE perfopt.advice_item SET status = 'open' WHERE id = $id");
as_role('owner', "SELECT perfopt.apply_advice($id)");
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_index WHERE NOT indisvalid AND indrelid = 't'::regclass}) or die;
sql(q{SELECT pg_terminate_backend(pid) FROM perfopt.workers WHERE kind = 'job'});
$writer->query_safe('ROLLBACK');
$writer->quit;
becomes($id, 'failed: terminating background worker "perfopt job" due to administrator command', 'a REINDEX that is killed');
is(indexes(), 't_old t_unique', 'leaves nothing invalid');

# No room
$id = advice('create_index', 'USING btree (b, a)', 'CREATE INDEX', '', '10::bigint ^ 17');
as_role('owner', "SELECT perfopt.apply_advice($id)");
$node->poll_query_until('postgres', "SELECT status = 'failed' FROM perfopt.advice_item WHERE id = $id");
like(sql("SELECT error FROM perfopt.advice WHERE id = $id"), qr/^not enough disk space: .* takes 250000000000 MB, and \d+ MB are free$/, 'an index there is no room for');

# A role that does not exist
sql(q{ALTER SYSTEM SET perfopt.advice_role = 'nobody'; SELECT pg_reload_conf()});
ok($node->wait_for_log(qr/WARNING: .*role "nobody" does not exist\n.*perfopt\.advice_role names it/), 'a perfopt.advice_role that does not exist is told of in the log');
sql(q{ALTER SYSTEM RESET perfopt.advice_role; SELECT pg_reload_conf()});
$node->poll_query_until('postgres', q{SELECT setting = 'advisers' FROM pg_settings WHERE name = 'perfopt.advice_role'}) or die;

# Members of perfopt.advice_role: it is done as the owner, and told who asked.
$id = advice('create_index', 'USING btree (a, b)', 'CREATE INDEX', '');
like(as_role('other', "SELECT perfopt.dismiss_advice($id, 'x')"), qr/ERROR:  42501/, 'an ordinary role does not dismiss');
is(as_role('dba', "SELECT perfopt.dismiss_advice($id, 'we do not need it')"), '', 'a member of advice_role does');
is(sql("SELECT status, dismiss_reason FROM perfopt.advice WHERE id = $id"), 'dismissed|we do not need it', 'the reason is kept');
is(as_role('dba', "SELECT perfopt.undismiss_advice($id)"), '', 'and thinks again');

# A lock that can't be had: tried again.  Progress is shown meanwhile.
sql(q{ALTER ROLE owner SET lock_timeout = '1s'});
$writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; INSERT INTO t VALUES (-2)');
as_role('dba', "SELECT perfopt.apply_advice($id)");
ok($node->poll_query_until('postgres', "SELECT progress LIKE 'waiting%' FROM perfopt.advice WHERE id = $id"), 'the view shows progress');
ok($node->poll_query_until('postgres', "SELECT attempts > 0 FROM perfopt.advice_item WHERE id = $id"), 'a lock timeout counts as an attempt');
$writer->query_safe('ROLLBACK');
$writer->quit;
becomes($id, 'applied', 'and it is tried again');
sql('ALTER ROLE owner RESET lock_timeout');
is(sql(q{SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 't_a_b_idx'}), 'owner', 'as the owner of the table');
is(sql("SELECT requested_by FROM perfopt.advice WHERE id = $id"), 'dba', 'though another one asked');

# A crash in the middle of taking it back
$writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; INSERT INTO t VALUES (-3)');
as_role('owner', "SELECT perfopt.revert_advice($id)");
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'perfopt job' AND query LIKE 'DROP INDEX%' AND wait_event_type = 'Lock'}) or die;
sql('SELECT pg_switch_wal()');
$node->stop('immediate');
eval { $writer->quit };
$node->start;
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.workers WHERE kind = 'database' AND state = 'sleeping'});
becomes($id, 'reverted', 'a crash while it is dropped');
is(indexes(), 't_old t_unique', 'it is gone, and nothing is left');

# A partitioned table: partitions of partitions, of other column numbers, and
# one that has such an index already
sql(q{
	SET ROLE owner;
	CREATE TABLE p (a int, b text, c int) PARTITION BY RANGE (a);
	CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
	CREATE TABLE p2 (x int, c int, b text, a int);
	ALTER TABLE p2 DROP COLUMN x;
	ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200);
	CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (200) TO (400) PARTITION BY RANGE (a);
	CREATE TABLE p31 PARTITION OF p3 FOR VALUES FROM (200) TO (300);
	CREATE TABLE p32 PARTITION OF p3 FOR VALUES FROM (300) TO (400);
	CREATE INDEX p32_mine ON p32 (c, lower(b));
	INSERT INTO p SELECT i, 'B', i FROM generate_series(0, 399) i});
$id = sql(q{INSERT INTO perfopt.advice_item (kind, schema_name, table_name, definition, ddl, reason, evidence, estimated_bytes, status)
	VALUES ('create_index', 'public', 'p', 'USING btree (c, lower(b))', 'CREATE INDEX', 'r', '{}', 1, 'open') RETURNING id});
sub parts { return sql(q{SELECT count(*) || ' ' || count(*) FILTER (WHERE indisvalid) FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relname ~ '^p\d*$'}); }
my $waits = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'perfopt job' AND query LIKE 'CREATE INDEX CONCURRENTLY p31%' AND wait_event_type = 'Lock'};
$writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; INSERT INTO p31 VALUES (250)');
as_role('owner', "SELECT perfopt.apply_advice($id)");
ok($node->poll_query_until('postgres', $waits), 'a writer keeps one partition waiting');
is(sql(q{SELECT count(*) FROM p WHERE c = 5}), '1', 'everybody else goes on');
sql('INSERT INTO p VALUES (1, NULL, 1)');
sql(q{SELECT pg_terminate_backend(pid) FROM perfopt.workers WHERE kind = 'job'});
$node->poll_query_until('postgres', "SELECT error IS NOT NULL FROM perfopt.advice WHERE id = $id") or die;
$writer->query_safe('ROLLBACK');
becomes($id, 'failed: terminating background worker "perfopt job" due to administrator command', 'a job that is killed');
is(parts(), '1 1', 'takes all with it, but what was there before');
$writer->query_safe('BEGIN; INSERT INTO p31 VALUES (250)');
as_role('owner', "SELECT perfopt.apply_advice($id)");
$node->poll_query_until('postgres', $waits) or die 'no build';
sql('SELECT pg_switch_wal()');
$node->stop('immediate');
eval { $writer->quit };
$node->start;
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.workers WHERE kind = 'database' AND state = 'sleeping'});
becomes($id, 'applied', 'after a crash it goes on where it was');
is(parts(), '6 6', 'every partition has it, and no one twice');
is(sql(q{SET enable_seqscan = off; EXPLAIN (COSTS off) SELECT FROM p WHERE c = 350 AND lower(b) = 'b'}) =~ s/Index Only/Index/r =~ /Index Scan/ ? 1 : 0, 1, 'it is used');
as_role('owner', "SELECT perfopt.revert_advice($id)");
becomes($id, 'reverted', 'reverted');
is(parts(), '0 0', 'everywhere');

# Dismissed advice is not raised again, nor one that differs by direction only.
sql(q{SET ROLE owner; CREATE TABLE u AS SELECT i AS a, i % 100 AS b, repeat('x', 100) AS c FROM generate_series(1, 20000) i; ANALYZE u});
sql('SELECT perfopt.reset_latency()');
sql('SET ROLE owner; ' . join(';', map { "SELECT c FROM u WHERE a = $_" } 1 .. 20));
is(sql('SELECT perfopt.analyze_now()') > 0, 1, 'a round advises');
is(sql(q{SELECT predicted_gain::text ~ '^0?[.]0*[0-9]{1,3}$|^1$' FROM perfopt.advice WHERE relation = 'public.u'}), 't', 'a gain, in three digits');
$id = sql(q{SELECT id FROM perfopt.advice WHERE relation = 'public.u'});
sql("SELECT perfopt.dismiss_advice($id, 'no')");
sql('SELECT perfopt.analyze_now()');
is(sql(q{SELECT string_agg(status, ' ') FROM perfopt.advice WHERE relation = 'public.u'}), 'dismissed', 'dismissed');
sql("UPDATE perfopt.advice_item SET definition = replace(definition, '(a)', '(a DESC)') WHERE id = $id");
sql('SELECT perfopt.analyze_now()');
is(sql(q{SELECT string_agg(status, ' ') FROM perfopt.advice WHERE relation = 'public.u'}), 'dismissed', 'its like, too');
sql("UPDATE perfopt.advice_item SET status = 'reverted' WHERE id = $id");
sql('SELECT perfopt.analyze_now()');
is(sql(q{SELECT string_agg(status, ' ') FROM perfopt.advice WHERE relation = 'public.u'}), 'reverted', 'nor is what was taken back');
sql("UPDATE perfopt.advice_item SET status = 'dismissed', definition = 'USING btree (b, c)' WHERE id = $id");
sql('SELECT perfopt.analyze_now()');
is(sql(q{SELECT string_agg(status, ' ') FROM perfopt.advice WHERE relation = 'public.u'}), 'dismissed', 'nor one with other columns, for the same statements');
sql("UPDATE perfopt.advice_item SET definition = 'USING btree (a DESC)' WHERE id = $id");
sql('SET ROLE owner; ALTER TABLE u RENAME TO v; ' . join(';', map { "SELECT c FROM v WHERE a = $_" } 1 .. 20));
sql('SELECT perfopt.analyze_now()');
is(sql(q{SELECT string_agg(status, ' ') FROM perfopt.advice WHERE relation IN ('public.u', 'public.v')}), 'dismissed', 'nor when its table is renamed');
sql('SET ROLE owner; ALTER TABLE v RENAME TO u');

# By hand, under another name
sql("UPDATE perfopt.advice_item SET definition = replace(definition, ' DESC', '') WHERE id = $id; SELECT perfopt.undismiss_advice($id)");
sql('SET ROLE owner; CREATE INDEX mine ON u (a)');
sql('SELECT perfopt.analyze_now()');
is(sql("SELECT status, undo FROM perfopt.advice WHERE id = $id"), 'applied|DROP INDEX CONCURRENTLY public.mine', 'an index built by hand is recognized, by its own name');
sql('DROP INDEX mine');
sql(q{SELECT duty_run_now('verify', 10000)});
is(sql("SELECT status FROM perfopt.advice WHERE id = $id"), 'obsolete', 'and when it is gone again');

# The parser is not given what others have made of the names.
sql(q{
	CREATE SCHEMA other AUTHORIZATION other; SET ROLE other;
	CREATE FUNCTION other.trap(text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped as %', current_user; END$$;
	CREATE DOMAIN other.d AS text CHECK (other.trap(VALUE));
	CREATE TYPE other.pair AS (x other.d);
	CREATE TABLE other.t (p other.pair, a int)});
$id = sql(q{INSERT INTO perfopt.advice_item (kind, schema_name, table_name, definition, ddl, reason, evidence, estimated_bytes, status)
	VALUES ('create_index', 'other', 't', $$USING btree (a) WHERE p = '(y)'::other.pair$$, 'CREATE INDEX', 'r', '{}', 1, 'open') RETURNING id});
sql('SELECT perfopt.analyze_now()');
is(sql("SELECT status FROM perfopt.advice_item WHERE id = $id"), 'open', 'a definition with a literal of a composite type is not looked into');
as_role('other', "SELECT perfopt.apply_advice($id)");
becomes($id, q{failed: the definition has a type or a function that the table's owner need not trust}, 'nor is it built');
sql('SET ROLE owner; CREATE FUNCTION public.f(int) RETURNS int IMMUTABLE LANGUAGE sql AS $$SELECT $1$$; GRANT CREATE ON SCHEMA public TO other');
$id = sql(q{INSERT INTO perfopt.advice_item (kind, schema_name, table_name, definition, ddl, reason, evidence, estimated_bytes, status)
	VALUES ('create_index', 'other', 't', $$USING btree (public.f(a))$$, 'CREATE INDEX', 'r', '{}', 1, 'open') RETURNING id});
as_role('other', "SELECT perfopt.apply_advice($id)");
becomes($id, q{failed: the definition has a type or a function that the table's owner need not trust}, q{nor one of somebody else's function});
sql('SET ROLE other; ALTER TABLE other.t DROP COLUMN p; CREATE FUNCTION other.g(int) RETURNS int IMMUTABLE LANGUAGE sql AS $$SELECT $1$$');
$id = sql(q{INSERT INTO perfopt.advice_item (kind, schema_name, table_name, definition, ddl, reason, evidence, estimated_bytes, status)
	VALUES ('create_index', 'other', 't', $$USING btree (other.g(a))$$, 'CREATE INDEX', 'r', '{}', 1, 'open') RETURNING id});
sql("SELECT perfopt.apply_advice($id)");
becomes($id, 'applied', q{the owner's own is});
is(sql("SELECT requested_by || ' ' || run_as FROM perfopt.advice_item WHERE id = $id") =~ s/^\S+ //r, 'other', 'and a superuser has it done as the owner');

# Of statements that an application runs
$id = sql(q{INSERT INTO perfopt.advice_item (kind, role_name, queryid, instead, reason, evidence, status)
	VALUES ('n_plus_one', 'other', 1, 'x', 'r', '{}', 'open') RETURNING id});
like(as_role('owner', "SELECT perfopt.dismiss_advice($id, 'x')"), qr/ERROR:  42501: must be the role whose statements/, 'others do not dismiss it');
like(as_role('other', "SELECT perfopt.apply_advice($id)"), qr/ERROR:  0A000/, 'it is not applied');
is(as_role('other', "SELECT perfopt.dismiss_advice($id, 'x')"), '', 'but dismissed');

is(sql(q{SELECT count(*) FROM perfopt.workers WHERE last_error IS NOT NULL}), '0', 'no duty has failed');
$node->stop;
done_testing();
