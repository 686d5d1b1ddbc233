# What a role without any privilege must not be able to do to others: become
# somebody else, crash or stop a process, or keep advice from them.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('hostile');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "perfopt.advice_interval = 0\nautovacuum = off\nrestart_after_crash = on\nperfopt_test.patience = 1\nperfopt_test.statement_ms = 5\n");
$node->start;
$node->safe_psql('postgres', $_) for (
	q{CREATE EXTENSION perfopt CASCADE},
	q{CREATE ROLE mallory LOGIN; GRANT CREATE ON SCHEMA public TO mallory});
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM perfopt.workers WHERE datname = 'postgres' AND pid IS NOT NULL})
  or die 'no worker';

sub as_mallory
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql, extra_params => ['-U', 'mallory']);
}

# A round in the worker: its result, or its error.
sub round
{
	my ($rc, $out, $err) = $node->psql('postgres', q{SET statement_timeout = '20s'; SELECT perfopt.analyze_now() >= 0},
		timeout => 40);
	return $rc == 0 ? $out : $err;
}

# The same of a survey.
sub survey
{
	my ($rc, $out, $err) = $node->psql('postgres', q{SET statement_timeout = '20s'; SELECT perfopt.survey_now() >= 0},
		timeout => 40);
	return $rc == 0 ? $out : $err;
}

as_mallory(q{
	CREATE TABLE big AS SELECT i AS id, i % 7 AS few, repeat('x', 50) AS filler FROM generate_series(1, 30000) i;
	ANALYZE big});

# Rows as parameters and constants: altered, or of a type of another process
as_mallory(q{
	CREATE TYPE pair AS (a bigint, b bigint);
	CREATE FUNCTION len(pair) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN length(($1).a::text); END';
	CREATE FUNCTION len(record) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN length($1::text); END';
	PREPARE named(pair, int, pair[]) AS SELECT count(*) FROM big WHERE few = len($1) + $2 AND id > len($3[1])});
as_mallory(q{
	PREPARE named(pair, int, pair[]) AS SELECT count(*) FROM big WHERE few = len($1) + $2 AND id > len($3[1]);
	PREPARE anonymous(record) AS SELECT count(*) FROM big WHERE few = len($1);
} . q{
	EXECUTE named(ROW(838860800, 1), 5, '{"(838860800,1)"}');
	EXECUTE anonymous(ROW(838860800::bigint, 838860800::bigint, 1));
	SELECT count(*) FROM big WHERE id < 100 AND few = len('(838860800,1)'::pair);
} x 3);
as_mallory('ALTER TYPE pair ALTER ATTRIBUTE a TYPE text');
is($node->safe_psql('postgres', q{
	DO 'DECLARE r record; s text; BEGIN SELECT ''a''::text AS a, ''b''::text AS b, 5 AS c INTO r; s := r::text; END';
	SELECT string_agg(DISTINCT parameters::text, ' ') FROM perfopt.plan_samples}),
	'{NULL,5,NULL} {NULL}', 'rows are not kept in samples');
is(round(), 't', 'nor planned with');

# Columns too wide for any index
as_mallory(q{
	CREATE TABLE wide (key text);
	ALTER TABLE wide ALTER key SET STORAGE plain;
	INSERT INTO wide SELECT repeat(md5(i::text), 110) FROM generate_series(1, 2000) i;
	ANALYZE wide;} . q{SELECT count(*) FROM wide WHERE key = 'x';} x 3);
is(round(), 't', 'a round ends, whatever the width of a column');
as_mallory('DROP TABLE wide');

# Locks on what is one's own
as_mallory(q{
	CREATE TABLE wanted AS SELECT i AS id, i AS a, repeat('x', 50) AS filler FROM generate_series(1, 30000) i;
	CREATE INDEX wanted_id_idx ON wanted (id);
	CREATE TABLE other AS SELECT * FROM wanted;
	ANALYZE wanted, other;
} . join('', map { "SELECT * FROM wanted WHERE a = $_; SELECT * FROM other WHERE a = $_;" } 1 .. 20));
is(round(), 't', 'a round');
my $id = $node->safe_psql('postgres', q{SELECT id FROM perfopt.advice WHERE relation = 'public.wanted'});
my $locker = $node->background_psql('postgres', extra_params => ['-U', 'mallory'], on_error_stop => 1);
$locker->query_safe("BEGIN; SELECT perfopt.apply_advice($id)");
is(round(), 't', 'a round does not wait for somebody who has asked for an index and not committed');
is($node->safe_psql('postgres', "SELECT status FROM perfopt.advice WHERE id = $id"), 'open', 'which changes nothing');
$locker->query_safe('ROLLBACK; BEGIN; REINDEX INDEX wanted_id_idx');
is(round(), 't', 'nor for the lock of an index');
$locker->query_safe('ROLLBACK; BEGIN; LOCK TABLE wanted');
as_mallory("SELECT perfopt.apply_advice($id)");
$node->safe_psql('postgres', q{SELECT perfopt.apply_advice(id) FROM perfopt.advice WHERE relation = 'public.other'});
ok($node->poll_query_until('postgres', q{SELECT status = 'applied' FROM perfopt.advice WHERE relation = 'public.other'}),
	'an index is built while another table is locked');
$locker->query_safe('ROLLBACK');
$locker->quit;

# A function that ends its process, and one that looks who is there
as_mallory(q{
	CREATE SEQUENCE seen;
	CREATE FUNCTION look() RETURNS int STABLE LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM setval('public.seen', CASE WHEN pg_backend_pid() = current_setting('my.pid', true)::int THEN 1
			WHEN session_user = 'mallory' AND current_user = 'mallory' THEN 2 ELSE 3 END);
		RETURN 1;
	END $$;
	SELECT set_config('my.pid', pg_backend_pid()::text, false);
} . q{SELECT count(*) FROM big WHERE few = look() AND id < 200;} x 3);
is(round(), 't', 'a function is called in a round');
is(as_mallory('SELECT last_value FROM seen'), '2', 'with the session user of its statement');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT pid) FROM perfopt.workers WHERE kind = 'database' AND errors > 0}),
	'0', 'no worker has failed so far');
as_mallory(q{
	CREATE FUNCTION quit() RETURNS int STABLE LANGUAGE plpgsql AS $$
	BEGIN
		IF current_setting('application_name') = 'perfopt' THEN
			PERFORM set_config('exit_on_error', 'on', true);
			RAISE EXCEPTION 'quit';
		END IF;
		RETURN 1;
	END $$;
} . q{SELECT count(*) FROM big WHERE few = quit() AND id < 300;} x 3);
is(round(), 't', 'a function that ends the worker does so once');

# A range type's own function, which ANALYZE calls, that can't be cancelled
as_mallory(q{
	CREATE FUNCTION apart(int, int) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 - $2; END';
	CREATE TYPE spans AS RANGE (subtype = int, subtype_diff = apart);
	CREATE TABLE spanned AS SELECT i AS id, spans(i, i + 5) AS span FROM generate_series(1, 1000) i;
	CREATE INDEX spanned_idx ON spanned ((span * span));
	CREATE SEQUENCE apart_calls;
	CREATE OR REPLACE FUNCTION apart(int, int) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM nextval('public.apart_calls');
		LOOP
			BEGIN
				PERFORM pg_sleep(1000);
			EXCEPTION WHEN query_canceled THEN
				NULL;
			END;
		END LOOP;
	END $$});
$node->safe_psql('postgres', q{UPDATE pg_class SET relpages = 2000 WHERE relname = 'spanned_idx'});
is(survey(), 't', 'a large index is looked at');
is(as_mallory('SELECT is_called FROM apart_calls'), 'f', 'without calling what somebody else has written');

# A schema perfopt that others have prepared
foreach my $prepare ('CREATE SCHEMA perfopt AUTHORIZATION mallory',
	'CREATE SCHEMA perfopt; CREATE VIEW perfopt.pg_stat_statements AS SELECT 1 AS queryid',
	'CREATE SCHEMA perfopt; GRANT CREATE ON SCHEMA perfopt TO mallory')
{
	$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS prepared');
	$node->safe_psql('postgres', 'CREATE DATABASE prepared');
	$node->safe_psql('prepared', $prepare);
	my ($rc, $out, $err) = $node->psql('prepared', 'CREATE EXTENSION perfopt CASCADE');
	like($err, qr/schema "perfopt" exists and is not fit/, "not after $prepare");
}
$node->safe_psql('prepared', 'REVOKE CREATE ON SCHEMA perfopt FROM mallory; CREATE EXTENSION perfopt CASCADE');

# Operators and functions that suit better than pg_catalog's, in the schema that
# pg_stat_statements gets into
$node->safe_psql('postgres', 'CREATE DATABASE trapped OWNER mallory');
$node->safe_psql('trapped', q{
	CREATE FUNCTION public.become() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		ALTER ROLE mallory SUPERUSER;
	EXCEPTION WHEN insufficient_privilege THEN
		NULL;
	END $$;
	CREATE FUNCTION public.cardinality(bigint[]) RETURNS int IMMUTABLE LANGUAGE plpgsql
		AS 'BEGIN PERFORM public.become(); RETURN 1; END';
	DO $$
	DECLARE
		types text[] := '{oid, regclass, int, bigint, float8, numeric, name, text, "\"char\""}';
		l text;
		r text;
		op text;
	BEGIN
		FOREACH l IN ARRAY types LOOP
			FOREACH r IN ARRAY types LOOP
				EXECUTE format($f$CREATE FUNCTION public.test(%1$s, %2$s) RETURNS bool IMMUTABLE COST 0.00001 LANGUAGE plpgsql
					AS 'BEGIN PERFORM public.become(); RETURN false; END'$f$, l, r);
				EXECUTE format($f$CREATE FUNCTION public.compute(%1$s, %2$s) RETURNS float8 IMMUTABLE LANGUAGE plpgsql
					AS 'BEGIN PERFORM public.become(); RETURN 1; END'$f$, l, r);
				FOREACH op IN ARRAY '{=,<>,<,>,<=,>=}'::text[] LOOP
					EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.test)', op, l, r);
				END LOOP;
				FOREACH op IN ARRAY '{+,-,*,/}'::text[] LOOP
					EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.compute)', op, l, r);
				END LOOP;
			END LOOP;
		END LOOP;
	END $$}, extra_params => [ '-U', 'mallory' ]);
$node->safe_psql('trapped', $_) for ('CREATE EXTENSION perfopt CASCADE',
	q{SET search_path = pg_catalog; SELECT count(*) FROM perfopt.histogram_buckets('{1, 2}')},
	q{SET search_path = pg_catalog; SELECT count(share) FROM perfopt.query_latency});
is($node->safe_psql('trapped', q{
	SET search_path = pg_catalog;
	SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory';
	SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d, pg_extension e
	WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
		AND d.refobjid IN (SELECT oid FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proowner <> e.extowner
			UNION ALL SELECT oid FROM pg_operator WHERE oprnamespace = 'public'::regnamespace)
		AND d.classid <> 'pg_operator'::regclass AND e.extname = 'perfopt'}),
	'f', 'neither the installation nor what it makes calls what the owner of the database has prepared');

$node->stop('fast');
done_testing;
