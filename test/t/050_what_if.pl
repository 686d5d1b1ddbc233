# Hypothetical indexes against real ones, and what a what-if must never do.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('what_if');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "perfopt.advice_interval = 0\nperfopt.advice_time_budget = 5s\nautovacuum = off\nperfopt_test.patience = 1\nperfopt_test.statement_ms = 5\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/advisor.sql"));

$node->safe_psql('postgres', q{
	SELECT setseed(0.5);
	CREATE TABLE users AS
		SELECT i AS id, 'user' || i || '@example.com' AS email, repeat('n', i % 40) AS name
		FROM generate_series(1, 20000) i;
	CREATE TABLE orders AS
		SELECT i::bigint AS id, 1 + (random() * 19999)::int AS user_id,
			(random() * random() * 1000)::int AS skewed,
			CASE WHEN i % 2 = 0 THEN i END AS half,
			(i % 3)::smallint AS few,
			timestamptz '2024-01-01' + i * interval '1 s' AS created_at,
			(random() * 100)::numeric(8, 2) AS amount, 'paid'::text AS status
		FROM generate_series(1, 200000) i;
	VACUUM ANALYZE});

# Sizes
my @sizes = (
	['users', 'email'], ['users', 'id'], ['users', 'name'],
	['orders', 'id'], ['orders', 'user_id'], ['orders', 'skewed'],
	['orders', 'half'], ['orders', 'few'], ['orders', 'status'],
	['orders', 'user_id,created_at'], ['orders', 'few,skewed'], ['users', 'email,id']);
for my $case (@sizes)
{
	my ($table, $columns) = @$case;
	my $estimated = $node->safe_psql('postgres',
		"SELECT bytes FROM index_facts('CREATE INDEX ON $table ($columns)')");
	my $real = $node->safe_psql('postgres', qq{
		CREATE INDEX tested ON $table ($columns);
		SELECT pg_relation_size('tested')});
	$node->safe_psql('postgres', 'DROP INDEX tested');
	ok(abs($estimated / $real - 1) <= 0.15, "size of $table($columns)")
	  or diag("real $real, estimated $estimated");
}

# Costs
my @costs = (
	['users', 'email', q{SELECT * FROM users WHERE email = 'user77@example.com'}],
	['users', 'email', q{SELECT email FROM users WHERE email > 'user9' AND email < 'user91'}],
	['users', 'id', q{SELECT * FROM users WHERE id IN (1, 500, 7000, 12345)}],
	['users', 'id', q{SELECT * FROM users ORDER BY id LIMIT 10}],
	['users', 'id', q{SELECT u.name, o.amount FROM orders o JOIN users u ON u.id = o.user_id WHERE o.skewed = 999}],
	['orders', 'user_id', q{SELECT * FROM orders WHERE user_id = 42}],
	['orders', 'user_id', q{SELECT * FROM orders WHERE user_id = 42 ORDER BY created_at DESC LIMIT 10}],
	['orders', 'user_id', q{SELECT count(*) FROM users u JOIN orders o ON o.user_id = u.id WHERE u.email = 'user5@example.com'}],
	['orders', 'user_id,created_at', q{SELECT * FROM orders WHERE user_id = 42 ORDER BY created_at DESC LIMIT 10}],
	['orders', 'user_id,created_at', q{SELECT * FROM orders WHERE user_id = 42 AND created_at > '2024-01-02'}],
	['orders', 'created_at', q{SELECT sum(amount) FROM orders WHERE created_at BETWEEN '2024-01-01' AND '2024-01-01 01:00'}],
	['orders', 'skewed', q{SELECT * FROM orders WHERE skewed = 3}],
	['orders', 'skewed', q{DELETE FROM orders WHERE skewed = 990}],
	['orders', 'few', q{SELECT count(*) FROM orders WHERE few = 1}]);
for my $case (@costs)
{
	my ($table, $columns, $query) = @$case;
	my $quoted = $query =~ s/'/''/gr;
	my $estimated = $node->safe_psql('postgres', qq{
		SELECT what_if_cost('$quoted', indexes => '{"CREATE INDEX ON $table ($columns)"}')});
	my $real = $node->safe_psql('postgres', qq{
		CREATE INDEX tested ON $table ($columns);
		SELECT what_if_cost('$quoted')});
	$node->safe_psql('postgres', 'DROP INDEX tested');
	ok(abs($estimated / $real - 1) <= 0.10, "cost with $table($columns): $query")
	  or diag("real $real, estimated $estimated");
}

# Errors, and functions that plan statements of their own
$node->safe_psql('postgres', q{
	CREATE TABLE lookup AS SELECT i AS id, repeat('x', 100) AS filler FROM generate_series(1, 2000) i;
	ANALYZE lookup;
	CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		$$BEGIN RAISE 'failed while planning'; END$$;
	CREATE FUNCTION nested() RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		$$DECLARE n int; BEGIN SELECT count(*) INTO n FROM public.lookup WHERE id = 42; RETURN n; END$$;
	CREATE FUNCTION loops() RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		$$BEGIN LOOP PERFORM 1; END LOOP; END$$});
my $session = $node->background_psql('postgres');
my $explain = "EXPLAIN SELECT * FROM orders WHERE user_id = 42";
my $before = $session->query_safe($explain);
is($session->query_safe("SELECT what_if_cost('SELECT * FROM orders WHERE user_id = fails()', indexes => ARRAY['CREATE INDEX ON orders (user_id)']) IS NULL"),
	't', 'a statement that fails in planning is not priced');
is($session->query_safe($explain), $before, 'and leaves nothing behind for the session');
cmp_ok($session->query_safe("SELECT what_if_cost('SELECT * FROM lookup WHERE id = nested()', indexes => ARRAY['CREATE INDEX ON lookup (id)'])"),
	'<', 10, 'the statement itself sees hypothetical indexes');
like($session->query_safe("SELECT what_if_cost('SELECT * FROM lookup WHERE id = nested()', indexes => ARRAY['CREATE INDEX ON lookup (id)'])"),
	qr/^\d+(\.\d+)?$/, 'a function that runs a statement does not see hypothetical indexes');
is($session->query_safe("SELECT what_if_cost('SELECT * FROM orders WHERE user_id = loops()') IS NULL"),
	't', 'a function that never returns is cut short');
is($session->query_safe($explain), $before, 'and planning goes on as before');
$session->quit;

# Another role's function must not run with this superuser's rights.
$node->safe_psql('postgres', q{
	CREATE ROLE hostile LOGIN;
	CREATE SCHEMA hostile AUTHORIZATION hostile;
	SET ROLE hostile;
	CREATE TABLE hostile.bait AS SELECT i AS id, repeat('x', 100) AS filler FROM generate_series(1, 5000) i;
	CREATE SEQUENCE hostile.as_superuser;
	CREATE SEQUENCE hostile.as_hostile;
	CREATE TABLE hostile.traces (who name);
	CREATE FUNCTION hostile.trap() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
			PERFORM nextval('hostile.as_superuser');
		ELSE
			PERFORM nextval('hostile.as_hostile');
		END IF;
		INSERT INTO hostile.traces VALUES (current_user);
		RETURN 7;
	END$$;
	CREATE FUNCTION hostile.escape() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		RESET ROLE;
		ALTER ROLE hostile SUPERUSER;
		RETURN 7;
	END$$});
$node->safe_psql('postgres', q{
	SELECT what_if_cost('SELECT * FROM hostile.bait WHERE id = hostile.trap()', role => 'hostile');
	SELECT what_if_cost('SELECT * FROM hostile.bait WHERE id = hostile.escape()', role => 'hostile')});
is($node->safe_psql('postgres', 'SELECT is_called FROM hostile.as_superuser'), 'f',
	'a function is not run as the superuser');
is($node->safe_psql('postgres', 'SELECT is_called FROM hostile.as_hostile'), 't',
	'it ran as its own role');
is($node->safe_psql('postgres', 'SELECT count(*) FROM hostile.traces'), '0', 'nothing it wrote stays');
is($node->safe_psql('postgres', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'hostile'}), 'f',
	'and it cannot leave its role');

# A function that catches its cancellation can't keep the worker for ever: the
# process ends, and the next one leaves the statement alone.
$node->safe_psql('postgres', q{
	SET ROLE hostile;
	CREATE FUNCTION hostile.goes_on() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		WHILE pg_catalog.current_setting('application_name') = 'perfopt' LOOP
			BEGIN
				PERFORM pg_catalog.pg_sleep(1000);
			EXCEPTION WHEN query_canceled THEN
				NULL;
			END;
		END LOOP;
		RETURN 7;
	END$$});
$node->poll_query_until('postgres', q{SELECT state = 'sleeping' FROM perfopt.workers WHERE datname = 'postgres'})
  or die 'no worker';
# what else has been run so far would make this a small share of the time
$node->safe_psql('postgres', "SELECT perfopt.reset_latency(); SET ROLE hostile; " . 'SELECT * FROM hostile.bait WHERE id = hostile.goes_on();' x 3);
my $held = q{SELECT count(*) FROM perfopt.plan_samples WHERE role = 'hostile'};
is($node->safe_psql('postgres', $held), '2', 'a statement with a function that goes on is sampled');
my $log = -s $node->logfile;
my $worker = q{SELECT pid FROM perfopt.workers WHERE datname = 'postgres'};
my $pid = $node->safe_psql('postgres', $worker);
is($node->safe_psql('postgres', q{SET statement_timeout = '60s'; SELECT perfopt.analyze_now() IS NOT NULL}), 't',
	'a round ends even so');
isnt($node->safe_psql('postgres', $worker), $pid, 'in another process');
like(slurp_file($node->logfile, $log), qr/LOG:  perfopt's process ended while it planned statement -?\d+/,
	'the log tells why');
is($node->safe_psql('postgres', $held), '0', 'the statement is condemned');
$node->safe_psql('postgres', "SET ROLE hostile; " . 'SELECT * FROM hostile.bait WHERE id = hostile.goes_on();' x 3);
is($node->safe_psql('postgres', $held), '0', 'and not sampled again');

# A worker that is told to go meanwhile is no fault of the statement.
$node->safe_psql('postgres', q{
	SET ROLE hostile;
	CREATE FUNCTION hostile.sleeps() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		IF pg_catalog.current_setting('application_name') = 'perfopt' THEN
			PERFORM pg_catalog.pg_sleep(1.5);
		END IF;
		RETURN 7;
	END$$;
	RESET ROLE;
	SELECT perfopt.reset_latency();
	SET ROLE hostile;
	} . 'SELECT id FROM hostile.bait WHERE id = hostile.sleeps();' x 3);
$pid = $node->safe_psql('postgres', $worker);
my $round = $node->background_psql('postgres');
$round->query_until(qr/begun/, "\\echo begun\nSELECT perfopt.analyze_now();\n");
$node->poll_query_until('postgres', "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $pid")
  or die 'nothing is priced';
$log = -s $node->logfile;
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$round->quit;
isnt($node->safe_psql('postgres', $worker), $pid, 'a worker is terminated while it prices a statement');
is($node->safe_psql('postgres', $held), '2', 'the statement is not condemned for that');
unlike(slurp_file($node->logfile, $log), qr/perfopt's process ended/, 'nor blamed in the log');

# A lock that the planner can't have is no reason to forget the statement.
$node->safe_psql('postgres', q{
	CREATE TABLE parted (id int, filler text) PARTITION BY RANGE (id);
	CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (100000);
	INSERT INTO parted SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i;
	ANALYZE parted;
	SELECT perfopt.reset_latency();} . 'SELECT id FROM parted WHERE filler IS NULL;' x 3);
my $of_parted = q{SELECT count(*) FROM perfopt.plan_samples s JOIN pg_stat_statements USING (queryid) WHERE query LIKE '%FROM parted %'};
is($node->safe_psql('postgres', $of_parted), '2', 'a statement over partitions is sampled');
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE ONLY parted_1 IN ACCESS EXCLUSIVE MODE');
$node->safe_psql('postgres', 'SELECT perfopt.analyze_now()');
is($node->safe_psql('postgres', $of_parted), '2', 'and kept when one is locked');
$locker->quit;

# Statements that take longer to plan than a round may last
$node->safe_psql('postgres', q{
	CREATE FUNCTION slow() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		IF pg_catalog.current_setting('application_name') = 'perfopt' THEN
			PERFORM pg_catalog.pg_sleep(0.9);
		END IF;
		RETURN 7;
	END$$;
	ANALYZE hostile.bait;
	SELECT perfopt.reset_latency()});
my $slow = join ';', map { 'SELECT id FROM hostile.bait WHERE id = slow()' . ' AND filler IS NOT NULL' x $_ } 1 .. 7;
$node->safe_psql('postgres', "$slow; $slow");
$node->safe_psql('postgres', 'SELECT perfopt.analyze_now()');
is($node->safe_psql('postgres', q{SELECT ddl, status FROM perfopt.advice}), 'CREATE INDEX CONCURRENTLY bait_id_idx ON hostile.bait (id)|open',
	'a round that runs out of time still advises');

# More statements than there is room for: they crowd each other out, and yet a
# session stores no more than three samples of each.  Which of them share a
# place in the session's memory is chance, so some may be stored more often;
# without that memory it would be 100.
$node->append_conf('postgresql.conf', "perfopt.max_plan_samples = 10\n");
$node->restart;
my $many = join ';', map { "SELECT user_id FROM orders WHERE amount = 1 AND status IS NOT NULL " . "AND skewed = 1 " x $_ } 1 .. 20;
$node->safe_psql('postgres', join ';', ($many) x 6);
is($node->safe_psql('postgres', 'SELECT used || \' \' || (stored BETWEEN 20 AND 80) FROM perfopt.plan_sample_counts()'), '10 true',
	'samples that find no room are not taken again and again');

$node->stop;
done_testing();
