# run_in_batches() as it is steered, and what happens to its table and its role
# meanwhile.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('chunks_control');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "perfopt.batch_job_interval = 100\nautovacuum = off\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/stop_points.sql"));
$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	CREATE ROLE "Bob ""the"" Role" LOGIN;
	CREATE ROLE keeper NOLOGIN;
	CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats;
	GRANT CREATE ON SCHEMA public TO alice, "Bob ""the"" Role", keeper});
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');

sub as
{
	my ($role, $sql) = @_;
	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]);
}
sub error_as
{
	my ($role, $sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ]);
	return $err;
}
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub wait_until { ok($node->poll_query_until('postgres', $_[0]), $_[1]); }
sub state_of { return sql("SELECT state FROM perfopt.batch_jobs WHERE id = $_[0]"); }

as('alice', q{
	CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, who text);
	INSERT INTO t SELECT i FROM generate_series(1, 1000) i;
	CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'});
my $add = q{'t', set_list => 'n = n + one(), who = session_user', batch_size => 50, workers => 2, chunk_duration => '1 ms'};

# A session at work, stopped in its first chunk
sub begin_call
{
	my ($role, $call) = @_;
	sql(q{SELECT stop_point_set('batch-chunk-ran', 'wait')});
	my $session = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', $role ]);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_until(qr/begun/, "\\echo begun\n$call;\n");
	wait_until(q{SELECT stop_point_waiters('batch-chunk-ran') > 0}, 'at work');
	return ($session, $pid, sql('SELECT max(id) FROM perfopt.batch_job'));
}
sub go_on { sql(q{SELECT stop_point_clear('batch-chunk-ran')}); }

# Pause and resume
my ($session, $pid, $job) = begin_call('alice', "CALL perfopt.run_in_batches($add)");
cmp_ok(sql("SELECT workers FROM perfopt.batch_jobs WHERE id = $job"), '>=', 1, 'the view tells who is at work');
as('alice', "SELECT perfopt.batch_pause($job)");
go_on();
wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND state = 'active'", 'paused: the session comes back');
my $done = sql('SELECT sum(n) FROM t');
cmp_ok($done, '<=', 150, '... after the chunks that were at work');
cmp_ok($done, '>', 0, '... which are done');
is(state_of($job), 'paused', '... and it is paused');
$session->quit;
like($session->{stderr}, qr/WARNING:  job $job is paused.*HINT:.*batch_resume\($job\)/s, '... and says how to go on');
is(error_as('alice', "SELECT perfopt.batch_pause($job)") =~ /55000: job $job is paused/, 1, 'paused is paused');
as('alice', "SELECT perfopt.batch_resume($job)");
wait_until("SELECT state = 'done' FROM perfopt.batch_jobs WHERE id = $job", 'resumed: it is done in the background');
is(sql('SELECT n, who, count(*) FROM t GROUP BY 1, 2'), '1|alice|1000', '... each row once');

# Cancel
($session, $pid, $job) = begin_call('alice', "CALL perfopt.run_in_batches($add)");
as('alice', "SELECT perfopt.batch_cancel($job)");
go_on();
wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND state = 'active'", 'cancelled: the session comes back');
$session->quit;
like($session->{stderr}, qr/ERROR:  job $job was cancelled/, '... and says so');
like(error_as('alice', "SELECT perfopt.batch_resume($job)"), qr/55000: job $job is cancelled/, '... for good');

# The client's cancel
($session, $pid, $job) = begin_call('alice', "CALL perfopt.run_in_batches($add, max_lock_wait => '5 s')");
sql("SELECT pg_cancel_backend($pid)");
wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND state = 'active'", 'Ctrl-C');
is(state_of($job), 'paused', '... pauses the job');
go_on();
$session->quit;
like($session->{stderr}, qr/canceling statement due to user request.*Job $job is paused.*batch_resume\($job\)/s, '... and says how to go on');
as('alice', "SELECT perfopt.batch_resume($job); CALL perfopt.batch_wait($job)");
is(state_of($job), 'done', 'batch_wait() works along');
as('alice', 'UPDATE t SET n = 0');

# ... of batch_wait() does not
$job = as('alice', qq{BEGIN; CALL perfopt.run_in_batches($add, max_lock_wait => '5 s', wait => false);
	SELECT FROM perfopt.batch_pause((SELECT max(id) FROM perfopt.batch_job)); COMMIT});
($session, $pid) = begin_call('alice', "SELECT FROM perfopt.batch_resume($job); CALL perfopt.batch_wait($job)");
wait_until("SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $pid AND state = 'active' AND query LIKE 'CALL%batch_wait%' AND query_start < clock_timestamp() - interval '200 ms'", 'a session waits');
sql("SELECT pg_cancel_backend($pid)");
wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND state = 'active'", 'Ctrl-C in batch_wait()');
is(state_of($job), 'running', '... leaves the job as it is');
go_on();
$session->quit;
like($session->{stderr}, qr/canceling statement due to user request.*Job $job goes on\..*batch_pause\($job\)/s, '... and says how to pause it');
wait_until("SELECT state = 'done' FROM perfopt.batch_jobs WHERE id = $job", '... which others do');
is(sql('SELECT n, count(*) FROM t GROUP BY 1'), '1|1000', '... each row once');
as('alice', 'UPDATE t SET n = 0');

# Others' locks are waited for, but not for long, and the rest goes on
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; SELECT 1 FROM t WHERE id IN (120, 500) FOR UPDATE');
$job = as('alice', "CALL perfopt.run_in_batches($add, max_lock_wait => '10 ms', max_attempts => 2)");
is(sql('SELECT n, count(*) FROM t GROUP BY 1 ORDER BY 1'), "0|2\n1|998", 'locked rows are set aside in the end');
is(sql("SELECT lower_bound, upper_bound, sqlstate FROM perfopt.batch_failed_chunks WHERE job = $job ORDER BY 2"),
	"{120}|{120}|55P03\n{500}|{500}|55P03", '... with that reason');
$locker->query_safe('COMMIT');
as('alice', "SELECT perfopt.batch_resume($job, true); CALL perfopt.batch_wait($job)");
is(sql('SELECT n, count(*) FROM t GROUP BY 1 ORDER BY 1'), '1|1000', '... and done later');
$locker->query_safe('BEGIN; SELECT 1 FROM t WHERE id IN (120, 500) FOR UPDATE');
$job = as('alice', "CALL perfopt.run_in_batches($add, max_lock_wait => '10 ms', max_attempts => 20, wait => false)");
wait_until("SELECT errors > 1 AND chunks_pending < 4 FROM perfopt.batch_jobs WHERE id = $job", 'a locked chunk is tried again');
$locker->query_safe('COMMIT');
wait_until("SELECT state = 'done' AND chunks_failed = 0 FROM perfopt.batch_jobs WHERE id = $job", '... until it is done');
$locker->quit;
is(sql('SELECT n, count(*) FROM t GROUP BY 1 ORDER BY 1'), '2|1000', '... each row once');

# Statements that take the chunk's bounds for something else
as('alice', 'CREATE TABLE of_days (day date, "Id" bigint, n text, PRIMARY KEY (day, "Id")); CREATE TABLE keyless (n text)');
like(error_as('alice', "CALL perfopt.run_in_batches('$$_[0]', 'SELECT FROM $$_[0] WHERE $$_[1]')"), qr/ERROR:  $$_[2].*HINT:  \Q$$_[3]\E/s, "$$_[0]: $$_[1]")
	foreach [ 'keyless', 'n BETWEEN $1 AND $2', '42883: operator does not exist: text >= tid', 'The table is cut by ctid: ctid BETWEEN $1 AND $2, which are of type tid.' ],
	[ 't', 'who = $1', '42883: operator does not exist: text = integer', q{The chunks' key is id, of type integer: id BETWEEN $1 AND $2.} ],
	map { [ 'of_days', @$_, q{The chunks' key is (day, "Id"), of type date, bigint: (day, "Id") BETWEEN ($1, $2) AND ($3, $4).} ] }
	[ '"Id" BETWEEN $1 AND $2', '42883: operator does not exist: bigint >= date' ], [ '(day, "Id") BETWEEN $1 AND $2', '42' ],
	[ 'day BETWEEN $1 AND $9', '42P02: there is no parameter \$9' ], [ 'true', q{22023: the statement does not say which rows are the chunk's} ];

like(error_as('alice', q{CALL perfopt.run_in_batches('t', set_list => $$n = 'x'::text$$)}), qr/42804.*HINT:  You will need to rewrite/s, '... which those of set_list do not');

# Rows that fail: what is said, and too many of them
as('alice', 'CREATE TABLE faulty (id int PRIMARY KEY, n int, CHECK (n = 0 OR id % 100 > 0)); INSERT INTO faulty SELECT i, 0 FROM generate_series(1, 1000) i');
my $err = error_as('alice', q{CALL perfopt.run_in_batches('faulty', set_list => 'n = 1', where_clause => 'n = 0', batch_size => 100)});
$job = sql('SELECT max(id) FROM perfopt.batch_job');
like($err, qr/NOTICE:  00000: job $job: 990 rows changed of 1000 looked at in [\d.]+ s, \d+ looked at a second, 10 chunks failed$/m, 'what was done');
like($err, qr/WARNING:  01000: job $job is done but for 10 chunks that failed\nHINT:  SELECT \* FROM perfopt.batch_failed_chunks WHERE job = $job;/, 'a warning of what has failed');
$err = error_as('alice', q{CALL perfopt.run_in_batches('faulty', set_list => 'n = 2', where_clause => 'n < 2', batch_size => 10, max_failed => 5, workers => 1)});
$job = sql('SELECT max(id) FROM perfopt.batch_job');
like($err, qr/ERROR:  54000: job $job failed: more than 5 chunks have failed\n.*HINT:  See perfopt.batch_failed_chunks.*batch_resume\($job, retry_failed => true\)/s, 'too many: how to go on');
as('alice', "SELECT perfopt.batch_resume($job); CALL perfopt.batch_wait($job)");
is(sql("SELECT state, chunks_failed FROM perfopt.batch_jobs WHERE id = $job"), 'done|10', '... resumed, it may fail as often again');
as('alice', "ALTER TABLE faulty DROP CONSTRAINT faulty_check; SELECT perfopt.batch_resume($job, retry_failed => true); CALL perfopt.batch_wait($job)");
is(sql('SELECT n, count(*) FROM faulty GROUP BY 1'), '2|1000', '... or with what was mended');

# Settings of the caller
sql('CREATE SCHEMA elsewhere AUTHORIZATION alice');
as('alice', q{CREATE FUNCTION elsewhere.seven() RETURNS int LANGUAGE sql AS 'SELECT 7'});
as('alice', q{SET search_path = elsewhere, public; SET app.what = 'it''s = this'; SET DateStyle = 'SQL, DMY';
	CALL perfopt.run_in_batches('t', set_list => $$n = seven(), who = current_setting('app.what') || date '2024-02-01'$$, wait => false)});
wait_until(q{SELECT count(*) = 1000 FROM t WHERE n = 7 AND who = 'it''s = this01/02/2024'}, 'settings of the session hold in the background');

# One role does not see, steer or help another's jobs; nor forge any
$job = as('alice', "CALL perfopt.run_in_batches($add, wait => false)");
wait_until("SELECT state = 'done' FROM perfopt.batch_jobs WHERE id = $job", 'a job of alice');
($session, $pid, $job) = begin_call('alice', "CALL perfopt.run_in_batches($add)");
my $bob = 'Bob "the" Role';
is(as($bob, 'SELECT count(*) FROM perfopt.batch_jobs') . as($bob, 'SELECT count(*) FROM perfopt.batch_chunk'), '00', 'others see nothing');
like(error_as($bob, "SELECT perfopt.$_"), qr/42704: there is no job $job/, "others cannot: $_")
	foreach "batch_pause($job)", "batch_resume($job)", "batch_cancel($job)";
like(error_as($bob, "CALL perfopt.$_"), qr/42704: there is no job $job/, "others cannot: $_")
	foreach "batch_wait($job)", "batch_help($job)";
like(error_as($bob, $_), qr/42501/, "others cannot: $_") foreach
	q{INSERT INTO perfopt.batch_job (role, target) VALUES ('alice', 't')}, q{UPDATE perfopt.batch_job SET statement = 'x'},
	q{UPDATE perfopt.batch_chunk SET lower_bound = '{}'}, 'DELETE FROM perfopt.batch_job', 'BEGIN; LOCK TABLE perfopt.batch_job IN EXCLUSIVE MODE',
	'BEGIN; LOCK TABLE perfopt.batch_chunk IN ACCESS EXCLUSIVE MODE', q{CALL perfopt.run_in_batches('t', set_list => 'n = 666')};
is(as($bob, "UPDATE perfopt.batch_job SET state = 'cancelled' RETURNING 1"), '', 'others cannot update it');
like(error_as($bob, "INSERT INTO perfopt.batch_chunk (job, lower_bound, upper_bound, keys) VALUES ($job, '{1}', '{1000}', 1)"),
	qr/23503/, 'others cannot put a chunk into it');
is(as('watcher', "SELECT count(*) FROM perfopt.batch_jobs WHERE id = $job"), '1', 'pg_read_all_stats sees it');
like(error_as('watcher', "SELECT perfopt.batch_pause($job)"), qr/42704/, '... and no more');
like(error_as('watcher', "CALL perfopt.batch_help($job)"), qr/42704/, '... nor helps');
go_on();
$session->query('SELECT 1');
$session->quit;
is(sql("SELECT count(*) FROM t WHERE n = 9"), '1000', 'each row once');
as('alice', "CALL perfopt.batch_wait($job)");
is(state_of($job), 'done', 'done');

# A superuser waits, and does not run others' statements himself
$job = as('alice', "CALL perfopt.run_in_batches($add, wait => false)");
sql("CALL perfopt.batch_wait($job)");
is(sql('SELECT DISTINCT n, who FROM t'), '10|alice', 'a superuser who waits does not run it');

# What a role writes without the procedures is checked
as($bob, 'CREATE TABLE bobs (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO bobs SELECT i FROM generate_series(1, 100) i');
my $origin = sql('SELECT origin FROM perfopt.batch_job LIMIT 1');
sub forged
{
	my %column = (target => q{'bobs'}, target_name => q{'public.bobs'}, key => q{'{id}'}, statement => q{'SELECT $1, $2'},
		settings => q{''}, batch_size => 1, workers => 1, chunk_ms => 1, lock_ms => 1, max_attempts => 1, max_failed => 0,
		last_key => q{'{1}'}, estimated_rows => 1, origin => "'$origin'", chunk_size => 1, key_types => q{'{integer}'}, @_);
	my @columns = sort keys %column;
	return 'INSERT INTO perfopt.batch_job (' . join(', ', @columns) . ') VALUES (' . join(', ', map { $column{$_} } @columns) . ')';
}
like(error_as($bob, forged(@$_)), qr/23514/, "not $$_[0] => $$_[1]") foreach
	[ key => q{'{a,b,c,d,e,f,g,h}'} ], [ key => q{'{NULL}'} ], [ last_key => q{'{NULL}'} ], [ last_key => q{'{}'} ], [ workers => 2000000000 ],
	[ estimated_rows => '1e300' ], [ estimated_rows => q{'NaN'} ], [ chunk_size => 0 ], [ lock_ms => -1 ], [ batch_size => 0 ], [ chunk_ms => q{'Infinity'} ];
my $insert_chunk = q{INSERT INTO perfopt.batch_chunk (job, lower_bound, upper_bound, keys)};
as($bob, 'WITH j AS (' . forged() . " RETURNING id) $insert_chunk SELECT id, '{}', '{}', 1 FROM j");
wait_until(q{SELECT state = 'failed' AND last_sqlstate = '2202E' FROM perfopt.batch_jobs WHERE role = '"Bob ""the"" Role"'::regrole}, 'a chunk without bounds: its job fails');
as($bob, 'WITH j AS (' . forged(statement => $_, settings => q{'transaction_read_only=on'}) . " RETURNING id) $insert_chunk SELECT id, '{1}', '{1}', 1 FROM j")
	foreach q{''}, q{';'}, q{'-- nothing'};
wait_until(q{SELECT count(*) = 3 FROM perfopt.batch_jobs WHERE role = '"Bob ""the"" Role"'::regrole AND state = 'failed' AND last_sqlstate IN ('42601', '25006')},
	'jobs without a statement fail');
unlike(slurp_file($node->logfile), qr/terminated by signal/, '... and crash nothing');
like(error_as($bob, $_), qr/23514/, "others cannot: $_") foreach q{UPDATE perfopt.batch_job SET resumed_at = 'infinity'},
	q{UPDATE perfopt.batch_job SET position = '{1,2}'}, q{UPDATE perfopt.batch_chunk SET duration_ms = 'NaN'}, q{UPDATE perfopt.batch_chunk SET sqlstate = 'x'};

# A statement that leaves another role behind, or ends transactions
sql('GRANT keeper TO alice');
as('alice', q{CREATE TABLE small (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO small SELECT i FROM generate_series(1, 100) i;
	GRANT ALL ON small TO keeper;
	CREATE PROCEDURE become_keeper(a int, b int) LANGUAGE plpgsql AS
		$$ BEGIN UPDATE small SET n = n + 1 WHERE id BETWEEN a AND b; EXECUTE 'SET LOCAL ROLE keeper'; END $$;
	CREATE PROCEDURE commits(a int, b int) LANGUAGE plpgsql AS
		$$ BEGIN UPDATE small SET n = n + 1 WHERE id BETWEEN a AND b; COMMIT; END $$});
like(error_as('alice', "CALL perfopt.run_in_batches('small', 'CALL $$_[0](\$1, \$2)', batch_size => 20)"), qr/$$_[1]/, "$$_[0]: the job fails")
	foreach [ 'become_keeper', '25000: job \d+ failed: the statement has changed the role' ], [ 'commits', '2D000: job \d+ failed: invalid transaction termination' ];
is(sql('SELECT n, count(*) FROM small GROUP BY 1'), '0|100', '... and nothing is done');
is(sql(q{SELECT count(*) FROM perfopt.batch_chunk WHERE state IN ('split', 'failed') AND job > (SELECT max(id) - 2 FROM perfopt.batch_job)}), 0, '... nor split');

# A role whose transactions are read-only
sql('ALTER ROLE alice SET default_transaction_read_only = on');
$job = as('alice', q{SET default_transaction_read_only = off; CALL perfopt.run_in_batches('small', set_list => 'n = n + 1', wait => false)});
wait_until("SELECT state = 'done' FROM perfopt.batch_jobs WHERE id = $job", 'a role whose transactions are read-only');
sql('ALTER ROLE alice RESET default_transaction_read_only');

# Cutting the table has crashed the server again and again, as notes of its runs tell
sql(q{SET SESSION AUTHORIZATION alice; BEGIN; CALL perfopt.run_in_batches('small', set_list => 'n = 0', wait => false);
	UPDATE perfopt.batch_job SET booted = '2020-01-01', deaths = 2 WHERE id = (SELECT max(id) FROM perfopt.batch_job); COMMIT});
$job = sql('SELECT max(id) FROM perfopt.batch_job');
wait_until("SELECT state = 'failed' AND last_sqlstate = '58000' FROM perfopt.batch_jobs WHERE id = $job", 'a server that crashes while the table is cut: the job fails');
as('alice', "SELECT perfopt.batch_resume($job); CALL perfopt.batch_wait($job)");
is(state_of($job), 'done', '... and can be resumed');

# Processes that end in some other way do not count
sql(q{SELECT stop_point_set('batch-chunk-ran', 'wait')});
$job = as('alice', q{CALL perfopt.run_in_batches('small', set_list => 'n = 0', workers => 1, wait => false)});
my $helper = 0;
for (1 .. 4)
{
	# for so long nobody has a seat who does not wait in his chunk
	my $at_work = qq{FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.classid = 'perfopt.batch_job'::regclass
		AND pid <> $helper AND xact_start < clock_timestamp() - interval '200 ms'};
	wait_until("SELECT count(*) = 1 $at_work", 'a helper is at work');
	$helper = sql("SELECT pid $at_work");
	sql("SELECT pg_terminate_backend($helper, 60000)");
}
go_on();
wait_until("SELECT state = 'done' AND chunks_failed = 0 FROM perfopt.batch_jobs WHERE id = $job", 'helpers that are terminated are no crash: the chunk is done');

# A statement that ends its process, the caller's or a helper's, is not tried for ever
as('alice', q{
	CREATE TABLE mortal (id int PRIMARY KEY, n int DEFAULT 0);
	INSERT INTO mortal SELECT i FROM generate_series(1, 50) i;
	CREATE FUNCTION end_at_13(id int) RETURNS int LANGUAGE plpgsql AS
		$$ BEGIN IF id = 13 THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); END IF; RETURN 1; END $$});
like(error_as('alice', q{CALL perfopt.run_in_batches('mortal', set_list => 'n = n + end_at_13(id)', batch_size => 10, workers => 1)}),
	qr/57P01/, 'a statement that ends the session');
$job = sql('SELECT max(id) FROM perfopt.batch_job');
wait_until("SELECT state = 'done' FROM perfopt.batch_jobs WHERE id = $job", '... then helpers: the job goes on');
is(sql("SELECT 13 BETWEEN lower_bound[1]::int AND upper_bound[1]::int, sqlstate, message FROM perfopt.batch_failed_chunks WHERE job = $job"),
	't|58000|5 processes have ended while they were at work at this', '... and the chunk is set aside');
is(sql("SELECT sum(n) = 50 - (SELECT sum(keys) FROM perfopt.batch_failed_chunks WHERE job = $job) FROM mortal"), 't', '... the others are done');
is(sql("SELECT last_sqlstate FROM perfopt.batch_jobs WHERE id = $job"), '57P01', '... the job tells what has ended them');

# Rows that a role has inserted by hand are not read again and again
sql(q{SET SESSION AUTHORIZATION keeper; CREATE TABLE stuffed (id int); BEGIN;
	INSERT INTO perfopt.batch_job (target, target_name, key, key_types, statement, settings, batch_size, workers, chunk_ms,
		lock_ms, max_attempts, max_failed, estimated_rows, origin, chunk_size)
	SELECT 'stuffed', 'stuffed', '{id}', '{integer}', 'SELECT 1', '', 1, 1, 1, 1, 1, 1, 1, 'elsewhere', 1 FROM generate_series(1, 20000);
	UPDATE perfopt.batch_job SET state = 'done', finished_at = now() - i * interval '8 days'
	FROM generate_series(0, 1) i WHERE target_name = 'stuffed' AND id % 3 = i; COMMIT});
sql('VACUUM perfopt.batch_job');
my $scans = q{(SELECT sum(idx_scan) FROM pg_stat_all_indexes WHERE indexrelid = 'perfopt.batch_job_running'::regclass)};
my @read;
for (1 .. 3)
{
	my $before = sql("SELECT $scans");
	wait_until("SELECT $scans > $before + 30", 'the duty has run some times');
	push @read, [ split /\|/, sql(qq{SELECT seq_tup_read + (SELECT sum(idx_tup_read) FROM pg_stat_all_indexes WHERE relid = 'perfopt.batch_job'::regclass), $scans
		FROM pg_stat_all_tables WHERE relid = 'perfopt.batch_job'::regclass}) ];
}
# whatever the number of runs in between
cmp_ok(($read[2][0] - $read[1][0]) / ($read[2][1] - $read[1][1]), '<', 3000, 'many rows of a role, running, done and over long ago, are not all read each time');
is(sql(q{SELECT count(*) > 0 FROM perfopt.batch_job WHERE target_name = 'stuffed' AND state = 'paused' AND message ~ 'another database'}), 't', '... and restored ones are paused');
sql('TRUNCATE perfopt.batch_job, perfopt.batch_chunk');

# A role that cannot log in works alone
sql(q{SET ROLE keeper; CREATE TABLE kept (id int PRIMARY KEY, n int); INSERT INTO kept SELECT i, 0 FROM generate_series(1, 100) i;
	CALL perfopt.run_in_batches('kept', set_list => 'n = 1', batch_size => 10)});
is(sql('SELECT DISTINCT n FROM kept'), 1, 'a role without LOGIN');
like(error_as('postgres', q{SET ROLE keeper; CALL perfopt.run_in_batches('kept', set_list => 'n = 2', wait => false)}),
	$version >= 170000 ? qr/^$/ : qr/28000: role "keeper" is not permitted to log in/, '... has no background workers before 17');

# REVOKE, DROP, ALTER while it runs
as('alice', q{GRANT SELECT, UPDATE ON t TO "Bob ""the"" Role"});
($session, $pid, $job) = begin_call($bob, "CALL perfopt.run_in_batches('t', set_list => 'n = n + 1', batch_size => 50, workers => 1, chunk_duration => '1 ms')");
my $revoker = $node->background_psql('postgres');
$revoker->query_until(qr/begun/, "\\echo begun\nREVOKE UPDATE ON t FROM \"Bob \"\"the\"\" Role\";\n");
go_on();
wait_until("SELECT state = 'failed' FROM perfopt.batch_jobs WHERE id = $job", 'revoked: the job fails');
$revoker->quit;
$session->quit;
like($session->{stderr}, qr/ERROR:  job $job failed: permission denied for table t/, '... and says why');
is(sql("SELECT chunks_failed FROM perfopt.batch_jobs WHERE id = $job"), '0', '... without setting rows aside');
as('alice', q{GRANT UPDATE ON t TO "Bob ""the"" Role"});
as($bob, "SELECT perfopt.batch_resume($job); CALL perfopt.batch_wait($job)");
is(sql('SELECT n, count(*) FROM t GROUP BY 1'), '11|1000', 'granted again and resumed: each row once');

as('alice', 'CREATE TABLE doomed (id int PRIMARY KEY, n int); INSERT INTO doomed SELECT i, 0 FROM generate_series(1, 1000) i');
foreach my $change ([ 'ALTER TABLE doomed RENAME n TO m', qr/42703: job \d+ failed: column "n".* does not exist/ ],
	[ 'ALTER TABLE doomed RENAME m TO n; DROP TABLE doomed', qr/42P01: job \d+ failed: relation with OID \d+ does not exist/ ])
{
	my ($ddl, $error) = @$change;
	as('alice', 'ALTER TABLE doomed RENAME m TO n') if $ddl =~ /DROP/;
	$ddl =~ s/.*; //;
	($session, $pid, $job) = begin_call('alice', "\\set VERBOSITY verbose\nCALL perfopt.run_in_batches('doomed', set_list => 'n = n + 1', batch_size => 50, workers => 1, chunk_duration => '1 ms')");
	my $other = $node->background_psql('postgres');
	$other->query_until(qr/begun/, "\\echo begun\n$ddl;\n");
	wait_until("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted", 'somebody waits to change the table');
	go_on();
	wait_until("SELECT state = 'failed' FROM perfopt.batch_jobs WHERE id = $job", "$ddl: the job fails");
	$other->quit;
	$session->quit;
	like($session->{stderr}, $error, '... and says why');
}
as('alice', 'CREATE TABLE plain (i int, n int); INSERT INTO plain SELECT i, 0 FROM generate_series(1, 2000) i');
($session, $pid, $job) = begin_call('alice', q{CALL perfopt.run_in_batches('plain', set_list => 'n = n + 1', batch_size => 200, workers => 1)});
as('alice', "SELECT perfopt.batch_pause($job)");
go_on();
$session->quit;
as('alice', 'VACUUM FULL plain');
as('alice', "SELECT perfopt.batch_resume($job)");
wait_until("SELECT state = 'failed' AND last_error LIKE '%written anew%' FROM perfopt.batch_jobs WHERE id = $job", 'a table cut by ctid must not be rewritten');

# What the order depends on must stay; as must the name
foreach my $change ([ 'ALTER TABLE turned ALTER id TYPE text COLLATE "C"', 'column "id" of the key was integer when the job began, and is pg_catalog.text COLLATE pg_catalog."C" now' ],
	[ 'ALTER TABLE turned RENAME TO turned_away; CREATE TABLE turned (id int PRIMARY KEY, n int)', 'table public.turned is now called public.turned_away' ])
{
	as('alice', 'DROP TABLE IF EXISTS turned, turned_away; CREATE TABLE turned (id int PRIMARY KEY, n int); INSERT INTO turned SELECT i, 0 FROM generate_series(1, 1000) i');
	$job = as('alice', q{BEGIN; CALL perfopt.run_in_batches('turned', set_list => 'n = n + 1', batch_size => 100, wait => false);
		SELECT FROM perfopt.batch_pause((SELECT max(id) FROM perfopt.batch_job)); COMMIT});
	as('alice', $$change[0]);
	like(error_as('alice', "SELECT perfopt.batch_resume($job); CALL perfopt.batch_wait($job)"), qr/55000: job $job failed: \Q$$change[1]\E/, $$change[0]);
}

# Row level security: what the role does not see is not done
as('alice', q{
	CREATE TABLE secret (id int PRIMARY KEY, owner text, n int DEFAULT 0);
	INSERT INTO secret SELECT i, CASE WHEN i % 4 = 0 THEN 'Bob "the" Role' ELSE 'alice' END FROM generate_series(1, 1000) i;
	ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
	CREATE POLICY own ON secret USING (owner = current_user) WITH CHECK (owner = current_user AND (id <> 400 OR n = 0));
	GRANT SELECT, UPDATE ON secret TO PUBLIC});
$job = as($bob, q{CALL perfopt.run_in_batches('secret', set_list => 'n = n + 1', batch_size => 30)});
is(sql('SELECT owner, n, count(*) FROM secret GROUP BY 1, 2 ORDER BY 1, 2'), "Bob \"the\" Role|0|1\nBob \"the\" Role|1|249\nalice|0|750", 'row level security');
is(sql("SELECT lower_bound, sqlstate FROM perfopt.batch_failed_chunks WHERE job = $job"), '{400}|42501', '... a row that violates a policy is set aside');

# Statistics are reported on the way, for autovacuum
as('alice', 'CREATE TABLE counted (id int PRIMARY KEY, n int); INSERT INTO counted SELECT i, 0 FROM generate_series(1, 1000) i');
($session, $pid, $job) = begin_call('alice', q{CALL perfopt.run_in_batches('counted', set_list => 'n = (pg_sleep(0.01) IS NULL)::int', batch_size => 50, workers => 1, chunk_duration => '500 ms')});
go_on();
wait_until(q{SELECT n_tup_upd > 0 FROM pg_stat_user_tables WHERE relname = 'counted'}, 'rows are counted ...');
is(state_of($job), 'running', '... before the call is over');
sql("SELECT pg_cancel_backend($pid)");
$session->quit;

# A worker turned off: the session works alone
$node->append_conf('postgresql.conf', 'perfopt.worker = off');
$node->reload;
wait_until(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'perfopt%' AND backend_type <> 'perfopt launcher'}, 'no worker');
as('alice', "CALL perfopt.run_in_batches($add)");
is(sql('SELECT n, count(*) FROM t GROUP BY 1'), '12|1000', 'without workers the session works alone');
$node->append_conf('postgresql.conf', 'perfopt.worker = on');
$node->reload;

# A dump restored elsewhere waits for somebody
$job = as('alice', "CALL perfopt.run_in_batches($add, wait => false)");
wait_until("SELECT state = 'done' FROM perfopt.batch_jobs WHERE id = $job", 'done here');
wait_until(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'perfopt job'}, 'nobody works any more');
sql("UPDATE perfopt.batch_job SET state = 'running', exhausted = false, origin = '1/1' WHERE id = $job");
wait_until("SELECT state = 'paused' FROM perfopt.batch_jobs WHERE id = $job", 'a job of another server is paused');
$locker = $node->background_psql('postgres', extra_params => [ '-U', $bob ]);
$locker->query_safe('BEGIN; SELECT FROM perfopt.batch_job FOR UPDATE; SELECT FROM perfopt.batch_chunk FOR UPDATE');
sql('UPDATE perfopt.batch_job SET state = CASE WHEN state = \'paused\' THEN \'cancelled\' ELSE state END, created_at = now() - interval \'8 days\', finished_at = now() - interval \'8 days\' WHERE role = \'alice\'::regrole');
$locker->query_safe(q{UPDATE perfopt.batch_job SET finished_at = now() - interval '8 days'});
$locker->query_safe('COMMIT; BEGIN; SELECT FROM perfopt.batch_chunk FOR UPDATE');
wait_until(q{SELECT count(*) = 0 FROM perfopt.batch_job WHERE role = 'alice'::regrole}, 'what others have locked is left out');
$job = as('alice', "CALL perfopt.run_in_batches('small', set_list => 'n = 0', wait => false)");
wait_until("SELECT state = 'done' FROM perfopt.batch_jobs WHERE id = $job", '... and keeps nobody from working');
$locker->quit;
sql('UPDATE perfopt.batch_job SET state = CASE WHEN state = \'paused\' THEN \'cancelled\' ELSE state END, created_at = now() - interval \'8 days\', finished_at = now() - interval \'8 days\'');
wait_until('SELECT count(*) = 0 FROM perfopt.batch_chunk', 'what is over for a week is forgotten');

# A standby that is behind is waited for
my $backup = $node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('chunks_standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
my ($rc, $out);
($rc, $out, $err) = $standby->psql('postgres', "CALL perfopt.run_in_batches($add)");
like($err, qr/cannot execute perfopt.run_in_batches\(\) during recovery/, 'not on a standby');
# ... also a process that has just begun, which has noted nothing
foreach my $lag ('5 ms', '1 h')
{
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	as('alice', 'UPDATE t SET n = 0');
	$job = as('alice', "CALL perfopt.run_in_batches($add, max_replication_lag => '$lag', wait => false)");
	# as long as a job of this size takes many times over
	sql('SELECT pg_sleep(2)');
	is(state_of($job), 'running', "$lag: it waits for the standby");
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
	wait_until("SELECT state = 'done' FROM perfopt.batch_jobs WHERE id = $job", 'and goes on when that has caught up');
	is(sql('SELECT n, count(*) FROM t GROUP BY 1'), '1|1000', '... each row once');
}
$standby->stop;
$node->stop;
done_testing();
