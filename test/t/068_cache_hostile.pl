# Ordinary roles against the cache: nobody gets rows, queries or keys of others,
# has statements run as another role, or makes others' results wrong.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('cache_hostile');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf',
	"perfopt.cache_write_interval = 100\nrestart_after_crash = off\nautovacuum = off\n");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION perfopt CASCADE;
	CREATE ROLE victim LOGIN;
	CREATE ROLE mallory LOGIN;
	CREATE SCHEMA of_victim AUTHORIZATION victim;
	CREATE SCHEMA of_mallory AUTHORIZATION mallory;
	GRANT USAGE ON SCHEMA of_victim TO mallory});

sub as
{
	my ($role, $sql) = @_;
	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]);
}
# the error, or the result
sub outcome
{
	my ($role, $sql) = @_;
	my ($stdout, $stderr);

	$node->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr,
		on_error_stop => 1, extra_params => [ '-U', $role ]);
	return $stderr ne '' ? $stderr : $stdout;
}
sub drained
{
	return $node->poll_query_until('postgres',
		'SELECT count(*) = 0 FROM perfopt.cache_writes WHERE failed_at IS NULL');
}

# The owner of a database is a member of pg_database_owner, until it has another
$node->safe_psql('postgres', q{
	CREATE TABLE of_owner (id int);
	INSERT INTO of_owner VALUES (1);
	SELECT perfopt.cache_track('of_owner');
	GRANT SELECT ON of_owner TO pg_database_owner;
	ALTER DATABASE postgres OWNER TO mallory});
my $of_owner = q{SELECT perfopt.cached_json('SELECT * FROM of_owner')};
is(as('mallory', "$of_owner; $of_owner"), qq{[{"id": 1}]\n[{"id": 1}]}, 'the owner of the database may read');
$node->safe_psql('postgres', 'ALTER DATABASE postgres OWNER TO postgres');
like(outcome('mallory', $of_owner), qr/permission denied for table of_owner/, '... until it has another');

# A statement queued by a function of another role takes no settings that are
# not the session's
as('victim', q{
	CREATE TABLE of_victim.seen (setting text);
	CREATE FUNCTION of_victim.queue() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS
	$$ SELECT perfopt.cache_write_behind('k', '1', 'INSERT INTO of_victim.seen SELECT pg_catalog.current_setting(''lock_timeout'')') $$});
like(outcome('mallory', q{SET perfopt.cache_opaque_functions = E'f\nlock_timeout=7777'; SELECT of_victim.queue()}),
	qr/cannot have a line break/, 'settings with line breaks are refused');
is($node->safe_psql('postgres', q{SELECT count(*) FROM of_victim.seen WHERE setting LIKE '7%'}), '0', '... and have no effect');
is(outcome('mallory', q{SET perfopt.cache_opaque_functions = E'f\nlock_timeout=7777';
	SELECT perfopt.cached_json('SELECT 1 AS a', refresh_ahead => '1 hour') FROM generate_series(1, 2)}),
	qq{[{"a": 1}]\n[{"a": 1}]}, 'a query is answered under them');

# Checking what a function reads runs nothing as its owner for who may not call it
as('victim', q{
	CREATE FUNCTION of_victim.secret() RETURNS text STABLE LANGUAGE sql SECURITY DEFINER AS
	$$ SELECT pg_catalog.current_setting('a.' || 'b', true) $$;
	REVOKE ALL ON FUNCTION of_victim.secret() FROM PUBLIC});
as('mallory', q{
	CREATE TABLE of_mallory.log (who text);
	GRANT ALL ON of_mallory.log TO PUBLIC;
	GRANT USAGE ON SCHEMA of_mallory TO PUBLIC;
	CREATE FUNCTION of_mallory.log() RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN RAISE NOTICE 'run as %', current_user; END $$;
	CREATE FUNCTION of_mallory.cat(text, text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
	$$ BEGIN PERFORM of_mallory.log(); RETURN pg_catalog.textcat($1, $2); END $$;
	CREATE OPERATOR of_mallory.|| (leftarg = text, rightarg = text, function = of_mallory.cat)});
my $run = outcome('mallory', q{SET search_path = of_mallory, pg_catalog;
	SELECT perfopt.cached_json('SELECT of_victim.secret()')});
unlike($run, qr/run as victim/, 'no code of the caller is run as the owner');
like($run, qr/permission denied for function secret/, '... of a function he may not call');

# A row without a named type means something else in each session
is(as('mallory', q{SELECT perfopt.cached_json('SELECT to_jsonb($1) AS j', ROW(ROW(1)))}),
	'[{"j": {"f1": 1}}]', 'anonymous row');
is(as('mallory', q{SELECT perfopt.cached_json('SELECT to_jsonb($1) AS j', ROW(ROW('2000-01-02'::date)))}),
	'[{"j": {"f1": "2000-01-02"}}]', '... of another session');
is(as('mallory', q{SELECT perfopt.cached_json('SELECT to_jsonb($1) AS j', ROW(ARRAY[ROW(1)]))}),
	'[{"j": [{"f1": 1}]}]', 'an array of them');
is(as('mallory', q{SELECT perfopt.cached_json('SELECT to_jsonb($1) AS j', ROW(ARRAY[ROW('2000-01-02'::date)]))}),
	'[{"j": [{"f1": "2000-01-02"}]}]', '... of another session');
is(as('mallory', q{SELECT perfopt.cache_get_or_compute('row', 'SELECT to_jsonb($1) AS j', ROW(ROW(1)))}),
	'[{"j": {"f1": 1}}]', 'under a key');
is(as('mallory', q{SELECT perfopt.cache_get_or_compute('row', 'SELECT to_jsonb($1) AS j', ROW(ROW('2000-01-02'::date)))}),
	'[{"j": {"f1": "2000-01-02"}}]', '... of another session');
as('mallory', 'CREATE TYPE of_mallory.pair AS (a int, b int)');
my $pair = q{SELECT perfopt.cached_json('SELECT to_jsonb($1) AS j', ROW(ROW(1, 2)::of_mallory.pair))};
is(as('mallory', $pair), '[{"j": {"a": 1, "b": 2}}]', 'row of a named type');
as('mallory', 'ALTER TYPE of_mallory.pair RENAME ATTRIBUTE b TO c');
is(as('mallory', $pair), '[{"j": {"a": 1, "c": 2}}]', '... which is altered');

# What was queued by a role that is no more is not run by who gets its OID
$node->safe_psql('postgres', 'CREATE ROLE gone LOGIN');
as('gone', q{SELECT perfopt.cache_write_behind('k', '1', 'SELECT 1/0')});
as('gone', q{SELECT perfopt.cache_write_behind('k', '1', 'SELECT 1')});
$node->safe_psql('postgres', 'DROP OWNED BY gone; DROP ROLE gone');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM perfopt.cache_writes'),
	'statements of a dropped role are dropped');

# Nor do its values go to who gets its OID
$node->safe_psql('postgres', 'CREATE ROLE late LOGIN');
as('late', q{SELECT perfopt.cache_set('k', '"of late"')});
is(as('late', q{SELECT perfopt.cache_get('k')}), '"of late"', 'a value of a role');
my $oid = $node->safe_psql('postgres', q{SELECT 'late'::regrole::oid});
$node->safe_psql('postgres', qq{
	DROP ROLE late;
	INSERT INTO pg_authid (oid, rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
		rolreplication, rolbypassrls, rolconnlimit)
	VALUES ($oid, 'heir', false, true, false, false, true, false, false, -1)});
is($node->safe_psql('postgres', q{SELECT 'heir'::regrole::oid}), $oid, 'another role has its OID');
is(as('heir', q{SELECT perfopt.cache_get('k') IS NULL}), 't', '... and not its values');

# Row security by a setting of the session
as('victim', q{
	CREATE TABLE of_victim.tenants (tenant text, secret text);
	ALTER TABLE of_victim.tenants ENABLE ROW LEVEL SECURITY;
	CREATE POLICY own ON of_victim.tenants USING (tenant = current_setting('app.tenant'));
	INSERT INTO of_victim.tenants VALUES ('a', 'of a'), ('b', 'of b');
	SELECT perfopt.cache_track('of_victim.tenants');
	GRANT SELECT ON of_victim.tenants TO mallory});
is(as('mallory', q{
	SET app.tenant = 'a'; SELECT perfopt.cached_json('SELECT secret FROM of_victim.tenants');
	SET app.tenant = 'b'; SELECT perfopt.cached_json('SELECT secret FROM of_victim.tenants')}),
	qq{[{"secret": "of a"}]\n[{"secret": "of b"}]}, 'a query obeys the policy');
as('mallory', q{
	CREATE FUNCTION of_mallory.secrets() RETURNS text LANGUAGE plpgsql STABLE AS
		'BEGIN RETURN (SELECT string_agg(secret, $$,$$) FROM of_victim.tenants); END';
	CREATE FUNCTION of_mallory.remembered() RETURNS text LANGUAGE plpgsql STABLE AS
		'BEGIN RETURN (SELECT string_agg(secret, $$,$$) FROM of_victim.tenants); END';
	SELECT perfopt.memoize('of_mallory.remembered()')});
is(as('mallory', q{
	SET app.tenant = 'a'; SELECT of_mallory.remembered();
	SET app.tenant = 'b'; SELECT of_mallory.remembered()}), "of a\nof b", 'so does a memoized function');
is(as('mallory', q{
	SET perfopt.cache_opaque_functions = 'secrets';
	SET app.tenant = 'a'; SELECT perfopt.cached_json('SELECT of_mallory.secrets()');
	SET app.tenant = 'b'; SELECT perfopt.cached_json('SELECT of_mallory.secrets()')}),
	qq{[{"secrets": "of a"}]\n[{"secrets": "of b"}]}, '... and a function whose body is not read');

# memoized_call() by hand
for my $call (
	q{NULL::int, 'pg_catalog.pg_backend_pid()'::regprocedure, 1},
	q{NULL::text, 'pg_catalog.pg_backend_pid()'::regprocedure},
	q{NULL::int, 0::regprocedure},
	q{NULL::int, NULL::regprocedure},
	q{NULL::int, 4294967295::regprocedure},
	q{NULL::int, 'x'},
	q{NULL::int},
	q{NULL::bigint, 'pg_catalog.sum(integer)'::regprocedure, 1},
	q{NULL::bigint, 'pg_catalog.row_number()'::regprocedure},
	q{NULL::int, 'pg_catalog.generate_series(integer,integer)'::regprocedure, 1, 2},
	q{NULL::record, 'pg_catalog.pg_stat_file(text)'::regprocedure, '/'},
	q{NULL::text, 'pg_catalog.pg_read_file(text)'::regprocedure, 'PG_VERSION'::text},
	q{NULL::text, 'of_victim.secret()'::regprocedure},
	q{NULL::int, (SELECT 'pg_catalog.pg_backend_pid()'::regprocedure)},
	q{VARIADIC ARRAY[1, 2]},
	q{1, VARIADIC ARRAY['pg_catalog.pg_backend_pid()'::regprocedure]})
{
	like(outcome('mallory', "SELECT perfopt.memoized_call($call)"), qr/ERROR: /, "refused: memoized_call($call)");
}
# odd arguments
for my $call (
	q{SELECT perfopt.cache_mark()},
	q{SELECT perfopt.memoize_support(NULL)},
	q{SELECT perfopt.cached_json('SELECT $1', ROW(1, 2))},
	q{SELECT perfopt.cached_json('SELECT ' || repeat('(', 100000) || '1' || repeat(')', 100000))},
	q{SELECT perfopt.cached_json('SELECT 1' || repeat('+1', 300000))},
	q{SELECT perfopt.cached_json('')}, q{SELECT perfopt.cached_json('SELECT 1; SELECT 2')},
	q{SELECT perfopt.cached_json('SELECT 1', ttl => '-1 s')},
	q{SELECT perfopt.cached_json('SELECT perfopt.cached_json(''SELECT 1'')')},
	q{SELECT perfopt.cache_track(0)}, q{SELECT perfopt.cache_track('pg_class')},
	q{SELECT perfopt.cache_track('of_victim.seen')}, q{SELECT perfopt.cache_untrack('of_victim.seen')},
	q{SELECT perfopt.cache_invalidate('of_victim.seen')}, q{SELECT perfopt.cache_invalidate(0)},
	q{SELECT perfopt.cache_set(repeat('k', 2000), '1')}, q{SELECT perfopt.cache_set('k', '1', '-1 s')},
	q{SELECT perfopt.memoize(0)}, q{SELECT perfopt.memoize('of_victim.queue()')},
	q{SELECT perfopt.memoize('pg_catalog.now()')}, q{SELECT perfopt.cache_stats_reset()},
	q{INSERT INTO perfopt.cache_writes (role, key, statement, parameter_types, parameters, settings)
		VALUES ('postgres', 'k', 'SELECT 1', '{}', '{}', '')},
	q{UPDATE perfopt.cache_writes SET statement = 'SELECT 2'},
	q{TRUNCATE perfopt.cache_writes},
	(map { "BEGIN; LOCK TABLE perfopt.cache_writes IN $_ MODE" } 'ROW SHARE', 'ROW EXCLUSIVE', 'SHARE UPDATE EXCLUSIVE',
		'SHARE', 'SHARE ROW EXCLUSIVE', 'EXCLUSIVE', 'ACCESS EXCLUSIVE'))
{
	like(outcome('mallory', $call), qr/ERROR: /, 'refused: ' . substr($call, 0, 80));
}
ok(outcome('mallory', $_) !~ /ERROR|server closed/, "harmless: $_")
  for (
	q{SELECT perfopt.cache_key_columns('\x00'), perfopt.cache_key_columns('\x'), perfopt.cache_key_columns(decode(repeat('61', 200), 'hex')), perfopt.cache_key_columns(decode(repeat('61', 200) || '00ff00', 'hex'))},
	q{SELECT perfopt.cached_json('SELECT 1', ttl => '178000000 years') IS NULL},
	q{SELECT perfopt.cached_json('SELECT $1', ROW(NULL::void)) IS NULL},
	q{SELECT perfopt.cached_json('SELECT $1', ROW('x'::cstring)) IS NULL},
	q{SELECT perfopt.cached_json('SELECT $1::text', ROW(repeat('x', 1000000))) IS NULL},
	q{SELECT perfopt.cached_json('SELECT 1', NULL::of_mallory.pair)},
	q{SELECT perfopt.memoized_call(NULL::int, 'pg_catalog.int4pl(integer,integer)'::regprocedure, 1, 2)});

# Rows of cache_writes that were made by hand run as who made them
as('mallory', q{INSERT INTO perfopt.cache_writes (key, statement, parameter_types, parameters, settings) VALUES
	('k', 'INSERT INTO of_mallory.log SELECT current_user || session_user', '{}', '{}', E'nonsense\nwork_mem=1MB\n\n'),
	('k', 'INSERT INTO of_mallory.log SELECT session_user', '{}', '{}', 'role=postgres'),
	('k', 'INSERT INTO of_mallory.log SELECT session_user', '{}', '{}', 'session_authorization=postgres'),
	('k', 'INSERT INTO of_mallory.log SELECT session_user', '{}', '{}', 'session_replication_role=replica'),
	('k', 'INSERT INTO of_mallory.log SELECT $1', '{0}', '{1}', ''),
	('k', 'INSERT INTO of_mallory.log SELECT $1', '{internal}', '{1}', ''),
	('k', 'INSERT INTO of_mallory.log SELECT $1', '{{text,text}}', '{}', ''),
	('k', 'INSERT INTO of_mallory.log SELECT $1', '{NULL}', '{1}', '')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.cache_writes WHERE attempts > 0}),
	'rows made by hand are taken');
is($node->safe_psql('postgres', q{SELECT DISTINCT who FROM of_mallory.log}), 'mallorymallory', '... as their role');

is(as('victim', q{SELECT count(*) FROM perfopt.cache_writes}), '0', 'others do not see them');

# Locked rows of one role hold up nobody else
my $locker = $node->background_psql('postgres', on_error_stop => 1, extra_params => [ '-U', 'mallory' ]);
as('mallory', q{UPDATE perfopt.cache_writes SET done = true WHERE id = (SELECT max(id) FROM perfopt.cache_writes)});
$locker->query_safe(q{BEGIN; SELECT * FROM perfopt.cache_writes FOR UPDATE});
as('victim', q{SELECT perfopt.cache_write_behind('k', '1', 'INSERT INTO of_victim.seen VALUES (''not held up'')')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM perfopt.cache_writes WHERE role = 'victim'::regrole}),
	'rows that another role has locked hold up nobody');
is(as('victim', q{SELECT count(*) FROM of_victim.seen WHERE setting = 'not held up'}), '1', '... and the statement is run');
$locker->quit;
is(as('victim', q{SELECT count(*) FROM perfopt.cache_entries WHERE rolname = 'mallory'}), '0', '... nor entries');

# Statements that take for ever, of one role
$node->append_conf('postgresql.conf', "perfopt.cache_job_timeout = 500\n");
$node->reload;
as('mallory', q{
	UPDATE perfopt.cache_writes SET done = true;
	CREATE FUNCTION of_mallory.tough() RETURNS void LANGUAGE plpgsql AS
		'BEGIN LOOP BEGIN PERFORM pg_sleep(1000); EXCEPTION WHEN query_canceled THEN END; END LOOP; END';
	SELECT perfopt.cache_write_behind('k', '1', 'SELECT pg_sleep(1000)')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.cache_writes WHERE sqlstate = '57014'}),
	'a statement that takes too long fails');
as('mallory', q{
	UPDATE perfopt.cache_writes SET done = true;
	SELECT perfopt.cache_write_behind('k', '1', 'SELECT of_mallory.tough()')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.cache_writes WHERE sqlstate = '57014' AND message LIKE 'went on%'}),
	'... also when it does not want to');
as('mallory', q{UPDATE perfopt.cache_writes SET done = true});
$node->append_conf('postgresql.conf', "perfopt.cache_job_timeout = 60000\n");
$node->reload;
my $slow = q{SELECT perfopt.cached_json('SELECT %s, of_mallory.slow()', ttl => '1 hour', refresh_ahead => '2 hours')};
as('mallory', q{
	CREATE FUNCTION of_mallory.slow() RETURNS int STABLE LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN 1; END'});
my $refreshed = join ';', 'SET perfopt.cache_opaque_functions = slow', map { sprintf $slow, $_ } 1 .. 8;
as('mallory', $refreshed);
$locker = $node->background_psql('postgres', on_error_stop => 1, extra_params => [ '-U', 'mallory' ]);
$locker->query_safe(q{SELECT pg_advisory_lock(1)});
as('mallory', $refreshed);
ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM perfopt.jobs WHERE state = 'running'}),
	'refreshes of one role take half the workers');
as('victim', q{SELECT perfopt.cache_write_behind('k', '1', 'INSERT INTO of_victim.seen VALUES (''at once'')')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM of_victim.seen WHERE setting = 'at once'}),
	'... and leave the others to other roles');
$locker->quit;
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|was terminated by signal/, 'nothing has crashed');
done_testing();
