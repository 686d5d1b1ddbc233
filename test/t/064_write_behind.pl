# Write-behind: statements run later, in order, exactly once, as who queued
# them, and none is lost when the server is killed.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Restarted;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('write_behind');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf',
	"perfopt.cache_write_interval = 100\nrestart_after_crash = on\nautovacuum = off\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	CREATE ROLE "Bob" LOGIN;
	CREATE ROLE keeper NOLOGIN;
	CREATE TABLE target (n bigserial, id int, note text, at timestamptz, who text DEFAULT current_user);
	GRANT ALL ON target, target_n_seq TO alice, "Bob";
	GRANT ALL ON SCHEMA public TO alice});

sub as
{
	my ($role, $sql) = @_;
	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]);
}
sub drained
{
	return $node->poll_query_until('postgres',
		'SELECT count(*) = 0 FROM perfopt.cache_writes WHERE failed_at IS NULL');
}

# The rule: value at the commit, the tables soon after
is(as('alice', q{
	SELECT perfopt.cache_write_behind('k', '1', 'INSERT INTO target (id, note, at) VALUES ($1, $2, $3)',
		ROW(1, 'it''s'::text, timestamptz '2024-02-03 04:05:06.789+01')) > 0;
	SELECT perfopt.cache_get('k')}), "t\n1", 'queued, and the value is there');
ok(drained(), 'it is run');
is($node->safe_psql('postgres', q{SELECT id, note, at = '2024-02-03 04:05:06.789+01', who FROM target}),
	q{1|it's|t|alice}, 'with its parameters, as its role');

# Nothing of what is rolled back
as('alice', q{BEGIN; SELECT perfopt.cache_write_behind('k', '2', 'INSERT INTO target (id) VALUES (2)'); ROLLBACK});
is(as('alice', q{SELECT perfopt.cache_get('k'), count(*) FROM perfopt.cache_writes}), '1|0', 'rolled back');

# Settings, NULL, arrays, floats
as('Bob', q{
	SET search_path = public; SET DateStyle = 'SQL, DMY'; SET extra_float_digits = 0; SET IntervalStyle = sql_standard;
	SELECT perfopt.cache_write_behind('k', '1', $$
		INSERT INTO target (id, note) SELECT $1, concat_ws(' ', $2::float8 = 0.1::float8 + 0.2::float8, $3[2], $4 IS NULL,
			$5 = date '2024-12-03', current_setting('datestyle'), date '04/05/2024' = make_date(2024, 5, 4), current_schema) $$,
		ROW(10, 0.1::float8 + 0.2::float8, '{a,"b c"}'::text[], NULL::int, make_date(2024, 12, 3)))});
ok(drained(), 'another role');
is($node->safe_psql('postgres', 'SELECT note, who FROM target WHERE id = 10'),
	't b c t t SQL, DMY t public|Bob', 'settings of the session, values exactly');

# Many, in order, exactly once
as('alice', q{
	SELECT count(perfopt.cache_write_behind('m' || i, to_jsonb(i), 'INSERT INTO target (id) VALUES ($1)', ROW(i)))
	FROM generate_series(1001, 2500) i});
ok(drained(), 'many');
is($node->safe_psql('postgres',
	'SELECT count(*), count(DISTINCT id), bool_and(ordered) FROM (SELECT id, id > lag(id, 1, 0) OVER (ORDER BY n) AS ordered FROM target WHERE id > 1000) t'),
	'1500|1500|t', 'in order, each once');

# A job goes on while nobody waits for its process, whatever the interval
$node->append_conf('postgresql.conf', "perfopt.cache_write_interval = '1h'\n");
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('perfopt.cache_write_interval') = '1h'});
as('alice', q{
	SELECT count(perfopt.cache_write_behind('b' || i, to_jsonb(i), 'INSERT INTO target (id) VALUES ($1)', ROW(i)))
	FROM generate_series(3001, 4200) i});
ok($node->poll_query_until('postgres', 'SELECT count(*) = 1200 FROM target WHERE id > 3000'), 'a job goes on to the end');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM perfopt.cache_writes'), '... and what is done goes');
$node->append_conf('postgresql.conf', "perfopt.cache_write_interval = 100\n");
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('perfopt.cache_write_interval') = '100ms'});

# A session's settings do not reach the next statement
as('alice', q{
	SELECT perfopt.cache_write_behind('s', '1', 'SET search_path = nowhere');
	SELECT perfopt.cache_write_behind('s', '1', 'INSERT INTO target (id, note) VALUES (20, current_schema)')});
ok(drained(), 'SET');
is($node->safe_psql('postgres', 'SELECT note FROM target WHERE id = 20'), 'public', 'is for itself');

# Failures are tried again; later ones wait, and go on in the end
my $failing = as('alice', q{
	SELECT perfopt.cache_write_behind('f', '1', 'INSERT INTO missing VALUES (1)');
	SELECT perfopt.cache_write_behind('f', '1', 'INSERT INTO target (id) VALUES (30)')});
$failing =~ s/\n.*//s;
ok($node->poll_query_until('postgres', "SELECT attempts >= 1 FROM perfopt.cache_writes WHERE id = $failing"), 'a failure');
is($node->safe_psql('postgres', "SELECT sqlstate, message, next_attempt_at > queued_at, failed_at IS NULL FROM perfopt.cache_writes WHERE id = $failing"),
	'42P01|relation "missing" does not exist|t|t', 'is noted');
is($node->safe_psql('postgres', 'SELECT count(*) FROM target WHERE id = 30'), '0', 'the next one waits');
for my $attempt (2 .. 5)
{
	$node->safe_psql('postgres', "UPDATE perfopt.cache_writes SET next_attempt_at = now() WHERE id = $failing");
	$node->poll_query_until('postgres', "SELECT attempts >= $attempt FROM perfopt.cache_writes WHERE id = $failing");
}
ok(drained(), 'after five attempts the next one is run');
is($node->safe_psql('postgres', "SELECT attempts, failed_at IS NOT NULL FROM perfopt.cache_writes; SELECT count(*) FROM target WHERE id = 30"),
	"5|t\n1", 'and the failed one is kept');
as('alice', "CREATE TABLE missing (i int); UPDATE perfopt.cache_writes SET failed_at = NULL, attempts = 0, next_attempt_at = now()");
ok(drained(), 'it can be tried again');
is($node->safe_psql('postgres', 'SELECT count(*) FROM missing'), '1', 'and is run');
as('alice', q{
	SELECT perfopt.cache_write_behind('f', '1', 'SELECT 1/0');
	UPDATE perfopt.cache_writes SET done = true});
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM perfopt.cache_writes'), 'one that is given up is forgotten');

# One that its role has locked fails by itself: no other is blamed, nor run before it
$node->append_conf('postgresql.conf', "perfopt.cache_job_timeout = '300ms'\n");
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('perfopt.cache_job_timeout') = '300ms'});
my $locker = $node->background_psql('postgres', extra_params => [ '-U', 'alice' ]);
as('alice', q{SELECT perfopt.cache_write_behind('l', '1', 'SELECT 1/0')});
$node->poll_query_until('postgres', q{SELECT attempts = 1 FROM perfopt.cache_writes WHERE key = 'l'});
$locker->query_safe(q{BEGIN; SELECT id FROM perfopt.cache_writes WHERE key = 'l' FOR UPDATE});
as('alice', q{SELECT perfopt.cache_write_behind('l' || i, '1', 'INSERT INTO target (id) VALUES ($1)', ROW(50 + i)) FROM generate_series(1, 2) i});
my $log_end = -s $node->logfile;
$node->wait_for_log(qr/(canceling statement due to statement timeout.*){3}/s, $log_end);
is(as('alice', q{SELECT string_agg(key || attempts, ',' ORDER BY id) FROM perfopt.cache_writes}), 'l1,l10,l20', 'a locked one: nothing is noted of others');
$locker->query_safe('COMMIT');
$locker->quit;
$node->append_conf('postgresql.conf', "perfopt.cache_job_timeout = '1min'\n");
$node->reload;
as('alice', q{UPDATE perfopt.cache_writes SET done = true WHERE key = 'l'});
ok(drained(), 'a locked one: then they go on');
is($node->safe_psql('postgres', 'SELECT count(*) FROM target WHERE id IN (51, 52)'), '2', 'a locked one: and were run');
$node->safe_psql('postgres', 'DELETE FROM target WHERE id IN (51, 52)');

# Nobody runs a statement as another
is(as('Bob', 'SELECT count(*) FROM perfopt.cache_writes'), '0', 'rows of others are not seen');
my ($code, $out, $err) = $node->psql('postgres', q{
	INSERT INTO perfopt.cache_writes (role, key, statement, parameter_types, parameters, settings)
	VALUES ('alice', 'x', 'INSERT INTO target (id) VALUES (666)', '{}', '{}', '')}, extra_params => [ '-U', 'Bob' ]);
like($err, qr/permission denied/, 'nor can they be made');
as('Bob', q{
	INSERT INTO perfopt.cache_writes (key, statement, parameter_types, parameters, settings) VALUES
		('x', 'INSERT INTO target (id, note) VALUES (40, session_user)', '{}', '{}', E'role=postgres\n'),
		('x', 'INSERT INTO target (id) VALUES (41)', '{}', '{}', E'search_path=public\nsession_authorization=alice')});
$node->safe_psql('postgres', "UPDATE perfopt.cache_writes SET attempts = 4, next_attempt_at = now()");
$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM perfopt.cache_writes WHERE failed_at IS NULL');
is($node->safe_psql('postgres', q{SELECT count(*) FROM target WHERE id IN (40, 41)}), '0', 'settings cannot change the role');
$node->safe_psql('postgres', 'DELETE FROM perfopt.cache_writes');

# A role that cannot log in
($code, $out, $err) = $node->psql('postgres', q{SET ROLE keeper; SELECT perfopt.cache_write_behind('k', '1', 'SELECT 1') > 0});
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');
$version >= 170000 ? is($out, 't', 'a role without LOGIN') : like($err, qr/not permitted to log in/, 'a role without LOGIN');
ok(drained(), 'nothing is left of that');

# kill -9 of the process that runs it, in the middle: once more, and only once
$node->safe_psql('postgres', q{
	CREATE FUNCTION slow(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO target (id) VALUES (i);
		PERFORM pg_sleep(0.5);
		RETURN i;
	END $$});
as('alice', q{
	SELECT perfopt.cache_write_behind('c', to_jsonb(i), 'SELECT slow($1)', ROW(i)) FROM generate_series(51, 53) i});
ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'SELECT slow(%' AND wait_event = 'PgSleep'}), 'running');
my $killed = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT slow(%' AND wait_event = 'PgSleep' LIMIT 1});
kill 'KILL', $killed;
ok(wait_for_restart($node, $killed), 'the server comes back');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 3 FROM target WHERE id BETWEEN 51 AND 53'), 'they are run');
ok(drained(), 'all were run');
is($node->safe_psql('postgres', 'SELECT count(*) FROM target WHERE id BETWEEN 51 AND 53'), '3', 'each once');

# the whole server is killed
as('alice', q{SELECT perfopt.cache_write_behind('c', to_jsonb(i), 'SELECT slow($1)', ROW(i)) FROM generate_series(61, 63) i});
$node->stop('immediate');
$node->start;
ok(drained(), 'all were run after a crash');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM target WHERE id BETWEEN 61 AND 63'), '3|3', 'each once');

# With one process for all, roles take turns, whatever the interval
$node->append_conf('postgresql.conf', "perfopt.max_workers = 1\nperfopt.cache_write_interval = '1h'\n");
$node->restart;
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.workers WHERE datname = 'postgres' AND state = 'sleeping'});
as($_, q{
	SELECT count(perfopt.cache_write_behind('t', to_jsonb(i), 'INSERT INTO target (id, note) SELECT $1, ''turn'' FROM pg_sleep(0.05)', ROW(i)))
	FROM generate_series(1, 60) i}) foreach qw(alice Bob);
ok(drained(), 'one process: all is run');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT who, lag(who) OVER (ORDER BY n) AS before FROM target WHERE note = 'turn') t WHERE who <> before}),
	'>=', 3, 'one process: in turn');
$node->append_conf('postgresql.conf', "perfopt.max_workers = 4\nperfopt.cache_write_interval = 100\n");
$node->restart;

# What waits, and which functions are memoized, is dumped and restored
$node->safe_psql('postgres', q{
	CREATE FUNCTION twice(i int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 2 * i; END';
	SELECT perfopt.memoize('twice(int)', '5 min')});
$node->append_conf('postgresql.conf', "perfopt.worker = off\n");
$node->reload;
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'perfopt database worker' OR backend_type LIKE 'perfopt%' AND datname IS NOT NULL});
as('alice', q{SELECT perfopt.cache_write_behind('d', '1', 'INSERT INTO public.target (id) VALUES ($1)', ROW(70))});
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-p', $node->port, '-h', $node->host, '-f', $dump, 'postgres' ], 'dumped');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-p', $node->port, '-h', $node->host, '-f', $dump, 'restored' ], 'restored');
is($node->safe_psql('restored', 'SELECT role, statement, parameters FROM perfopt.cache_writes; SELECT * FROM perfopt.memoized_functions; SELECT twice(21)'),
	"alice|INSERT INTO public.target (id) VALUES (\$1)|{70}\ntwice(integer)|300\n42", 'with all of that');
$node->append_conf('postgresql.conf', "perfopt.worker = on\n");
$node->reload;
ok($node->poll_query_until('restored', 'SELECT count(*) = 0 FROM perfopt.cache_writes'), 'and is run there');
is($node->safe_psql('restored', 'SELECT count(*), max(who) FROM target WHERE id = 70'), '1|alice', 'as its role');

$node->stop;
done_testing();
