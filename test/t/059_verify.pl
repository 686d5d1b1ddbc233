# Latencies before and after: what an index was good for, and what becomes of one
# that does harm.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('verify');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "perfopt.advice_interval = 0\nperfopt.sample_interval = 0\nautovacuum = off\n");
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql('CREATE EXTENSION perfopt CASCADE');
sql(slurp_file("$root/test/tools/$_.sql")) foreach qw(worker advisor);
sql(q{
	CREATE ROLE owner LOGIN; GRANT CREATE ON SCHEMA public TO owner;
	SET ROLE owner;
	CREATE TABLE users AS SELECT i AS id, 'user' || i || '@example.com' AS email, repeat('n', 50) AS name FROM generate_series(1, 20000) i;
	CREATE TABLE log (at int, message text);
	ANALYZE users});
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.workers WHERE datname = 'postgres' AND pid IS NOT NULL})
  or die 'no worker';

# The same statements before and after: reads of users, writes of log, and others;
# and how many milliseconds those of a kind take.
sub work
{
	my (%ms) = @_;
	my %statements = (
		users => [ map { "SELECT name FROM users WHERE email = 'user$_\@example.com'" } 1 .. 40 ],
		log => [ map { "INSERT INTO log SELECT i, 'm' || i FROM generate_series(1, 500 + 0 * $_) i" } 1 .. 40 ],
		other => [ map { ("SELECT 1 + $_", "SELECT 'a' || $_", "SELECT $_ * 2, 1", "SELECT $_, $_ , 3", "SELECT $_ % 7, 1, 2, 3", "SELECT - $_") } 1 .. 25 ]);
	$node->safe_psql('postgres', join(';', 'SET ROLE owner',
			map { ("SET perfopt_test.statement_ms = '$ms{$_}'", @{ $statements{$_} }) } sort keys %ms));
}
sub set
{
	my $before = sql('SELECT pg_conf_load_time()');
	sql("ALTER SYSTEM SET $_") foreach @_;
	$node->reload;
	$node->poll_query_until('postgres', "SELECT pg_conf_load_time() > '$before'") or die;
	# the worker has seen it
	sql(q{SELECT duty_run_now('verify', 10000)});
}
sub advice
{
	my ($table, $definition, $queries, $gain) = @_;
	return sql(qq{INSERT INTO perfopt.advice_item (kind, schema_name, table_name, definition, ddl, reason, evidence, estimated_bytes,
			predicted_gain, status, first_seen)
		VALUES ('create_index', 'public', '$table', \$\$$definition\$\$, 'CREATE INDEX', 'r', '{"queries": $queries}', 8192, $gain, 'open',
			now() - interval '1 minute') RETURNING id});
}
# An hour has passed since it is measured, and the samples of before are older.
sub passed
{
	my ($id) = @_;
	sql("SET perfopt.track = none; SELECT perfopt.sample_now(); UPDATE perfopt.advice_item SET measured_from = clock_timestamp() - interval '1 hour' WHERE id = $id");
	sql(q{SET perfopt.track = none; SELECT duty_run_now('verify', 10000)});
}
sub judged
{
	my ($id) = @_;
	passed($id);
	is(sql("SELECT judged_at IS NOT NULL FROM perfopt.advice_item WHERE id = $id"), 't', 'judged')
	  or diag(sql("SELECT status, verdict FROM perfopt.advice WHERE id = $id"));
}
# applied, and its statements' counters are marked
sub measured
{
	my ($id) = @_;
	$node->poll_query_until('postgres', "SELECT duty_wake('verify')::text = '' AND measured_from IS NOT NULL FROM perfopt.advice_item WHERE id = $id")
	  or die;
	sql("SET perfopt.track = none; SELECT perfopt.sample_now(); UPDATE perfopt.latency_history SET sampled_at = sampled_at - interval '1 hour'");
}

# An index that helps
sql('SELECT perfopt.reset_latency()');
work(users => 2, other => 0.1);
sql('SELECT perfopt.sample_now(); SELECT perfopt.analyze_now()');
my $id = sql(q{SELECT id FROM perfopt.advice WHERE relation = 'public.users' AND status = 'open'});
cmp_ok(sql("SELECT predicted_gain FROM perfopt.advice WHERE id = $id"), '>', 0.2, 'much is predicted');
sql("SELECT perfopt.apply_advice($id)");
measured($id);
is(sql("SELECT string_agg(DISTINCT part, ' ' ORDER BY part) FROM perfopt.advice_measure WHERE advice = $id"), 'control named', 'the statement it names, and others');
work(users => 0.1, other => 0.1);
sql('SELECT perfopt.sample_now(); SELECT perfopt.reset_latency()');
judged($id);
is(sql("SELECT status, measured_gain > 0.05, measured_gain < 0.95 FROM perfopt.advice WHERE id = $id"), 'confirmed|t|t', 'confirmed, with what it gained, also of what was before a reset');
like(sql("SELECT verdict FROM perfopt.advice WHERE id = $id"),
	qr/^1 statement named: [\d.]+ ms a call before, [\d.e-]+ ms after \(40 and 40 calls\)\. .*It saves [\d.]+ % of the statement time\.$/, 'as a sentence');
is(sql("SELECT q ->> 'change' FROM perfopt.advice, jsonb_array_elements(evidence -> 'measured') q WHERE id = $id"), 'faster', 'and in the evidence');
is(sql("SELECT count(*) FROM perfopt.advice_measure"), '0', 'what was put aside is forgotten');
is(sql("SELECT count(*) FROM perfopt.advice_window"), '0', '... all of it');

# One that somebody builds by hand
$id = advice('users', 'USING btree (name, id)', '[]', 0.01);
my $by_name = 'SET ROLE owner; SET perfopt_test.statement_ms = %s; ' . join(';', map { "SELECT count(*) FROM users WHERE name = 'x$_'" } 1 .. 40);
sql(sprintf $by_name, 2);
sql("UPDATE perfopt.advice_item SET evidence = (SELECT jsonb_build_object('queries', jsonb_agg(jsonb_build_object('queryid', queryid, 'role', 'owner')))
	FROM perfopt.query_texts WHERE query LIKE 'SELECT count(*) FROM users WHERE name%') WHERE id = $id;
	SELECT perfopt.sample_now()");
sql("UPDATE perfopt.advice_item SET last_seen = clock_timestamp() WHERE id = $id");
sql('CREATE INDEX by_hand ON users (name, id)');
sql('SELECT perfopt.analyze_now()');
is(sql("SELECT status FROM perfopt.advice WHERE id = $id"), 'applied', 'built by hand');
measured($id);
sql(sprintf $by_name, 0.1);
judged($id);
is(sql("SELECT status FROM perfopt.advice WHERE id = $id"), 'confirmed', 'and confirmed');

# One that is dropped, and is missed
sql(sprintf $by_name, 0.1) foreach 1 .. 3;
sql('SELECT perfopt.sample_now()');
$id = sql(q{INSERT INTO perfopt.advice_item (kind, schema_name, table_name, definition, ddl, undo, reason, evidence, status)
	VALUES ('drop_index', 'public', 'users', 'by_hand', 'DROP INDEX', 'CREATE INDEX', 'r', '{"queries": []}', 'open') RETURNING id});
sql("SELECT perfopt.apply_advice($id)");
measured($id);
sql(sprintf $by_name, 2);
judged($id);
is(sql("SELECT status, measured_gain < 0 FROM perfopt.advice WHERE id = $id"), 'regressed|t', 'an index whose drop makes a reader slower');

# One that is not used, and one that nobody calls
$id = advice('users', 'USING btree (id)', '[{"queryid": 4711, "role": "owner"}]', 0.01);
sql("SELECT perfopt.apply_advice($id)");
measured($id);
passed($id);
is(sql("SELECT status, verdict, judged_at FROM perfopt.advice WHERE id = $id"),
	'applied|1 statement named: not enough calls to compare (0 before, 0 after). There is nothing to compare yet.|', 'it stays applied, says so, and waits');

# Windows in which nothing was called, as with the server stopped, tell nothing.
sub equal_windows
{
	my ($with_calls) = @_;
	sql("DELETE FROM perfopt.advice_window WHERE advice = $id;
		INSERT INTO perfopt.advice_window SELECT advice, queryid, role_name, n, '{80, 100}'
			FROM perfopt.advice_measure, generate_series(-$with_calls, $with_calls) n WHERE advice = $id AND n <> 0;
		UPDATE perfopt.advice_item SET windows = $with_calls, window_seconds = 3600, measured_from = clock_timestamp() - interval '60 hours' WHERE id = $id;
		SET perfopt.track = none; SELECT duty_run_now('verify', 10000)");
	return sql("SELECT substring(verdict, 'No difference.*'), judged_at IS NOT NULL FROM perfopt.advice_item WHERE id = $id");
}
is(equal_windows(15), 'No difference can be told yet.|f', 'a difference is looked for in 15 windows with calls');
is(equal_windows(16), 'No difference can be told.|t', '... and in 16, and no longer');

# What auto_apply leaves alone
$id = advice('log', 'USING btree (md5(repeat(message, 200)))', '[]', 0.5);
my $later = sql(q{SELECT to_char(now() + interval '6 hours', 'HH24:MI') || '-' || to_char(now() + interval '7 hours', 'HH24:MI')});
set('perfopt.auto_apply = on', "perfopt.auto_apply_hours = '$later'");
is(sql("SELECT status FROM perfopt.advice WHERE id = $id"), 'open', 'not at this time of day');
set("perfopt.auto_apply_hours = ''", 'perfopt.auto_apply_min_gain = 0.6');
is(sql("SELECT status FROM perfopt.advice WHERE id = $id"), 'open', 'it promises too little');
set('perfopt.auto_apply_min_gain = 0.4', 'perfopt.auto_apply_max_size = 0');
is(sql("SELECT status FROM perfopt.advice WHERE id = $id"), 'open', 'it is too large');

# One that does harm: a table that is only written
work(log => 1, other => 0.1);
sql('SELECT perfopt.sample_now()');
set('perfopt.auto_apply_max_size = 1');
measured($id);
is(sql("SELECT status, requested_by FROM perfopt.advice WHERE id = $id"), 'applied|perfopt', 'applied automatically');
is(sql("SELECT count(*) FROM perfopt.advice_measure WHERE advice = $id AND part = 'write' AND EXISTS (SELECT FROM perfopt.advice_window w WHERE (w.advice, w.queryid) = (advice_measure.advice, advice_measure.queryid))"), '1', 'what writes the table is known');
work(log => 4, other => 0.1);
judged($id);
ok($node->poll_query_until('postgres', "SELECT status = 'reverted' FROM perfopt.advice WHERE id = $id"), 'it is reverted');
like(sql("SELECT verdict FROM perfopt.advice WHERE id = $id"), qr/1 statement that writes the table: .*It costs [\d.]+ % of the statement time\.$/, 'for what it costs');
is(sql(q{SELECT count(*) FROM pg_index WHERE indrelid = 'log'::regclass}), '0', 'it is gone');
is(sql("SELECT string_agg(actor || ' ' || act, ', ' ORDER BY id) FROM perfopt.advice_log WHERE advice = $id"),
	'perfopt apply, perfopt start, perfopt applied, perfopt judge, perfopt revert, perfopt reverted', 'all of it in the log');
sql(q{SELECT duty_run_now('verify', 10000)});
is(sql("SELECT status FROM perfopt.advice WHERE id = $id"), 'reverted', 'and it is not tried again');

# The test itself
is(sql(q{SELECT round(ratio::numeric, 3), change FROM measure('{1, 1, 1, 1, 1, 1, 1, 1}', 100, 4)}), '1.000|0', 'the same');
is(sql(q{SELECT round(ratio::numeric, 3), change FROM measure('{1, 1.05, 0.97, 1, 0.51, 0.5, 0.49, 0.5}', 100, 4)}), '0.498|1', 'faster');
is(sql(q{SELECT round(ratio::numeric, 3), change FROM measure('{1, 1.05, 0.97, 1, 2.04, 2, 1.96, 2}', 100, 4)}), '1.991|-1', 'slower');
is(sql(q{SELECT change FROM measure('{1, 1, 1, 1, 1.09, 1.09, 1.09, 1.09}', 1000000, 4)}), '0', 'significant, but nothing to speak of');
is(sql(q{SELECT change FROM measure('{1, 1, 1, 1, 2, 2, 2, 2}', 100, 4, '{0, 0, 0, 0, 0.6931, 0.6931, 0.6931, 0.6931}')}), '0', 'slower as the whole server is');
is(sql(q{SELECT change FROM measure('{1, 4}', 100, 1)}), '-1', 'four times as slow, and nothing is known of how it wanders');
is(sql(q{SELECT change FROM measure('{1, 1.5}', 100000, 1)}), '0', 'which half as much again may be');
is(sql(q{SELECT change FROM measure('{1, 10}', 5, 1)}), '-1', 'five calls, each ten times as slow');
is(sql(q{SELECT change FROM measure('{1, 10}', 4, 1)}), '0', 'too few calls');
is(sql(q{SELECT round(p::numeric, 4) FROM measure('{1, 1.5}', 100, 1)}), '0.1533', 'Student\'s distribution, for 198 degrees of freedom');
is(sql(q{SELECT array(SELECT round(d::numeric, 2) FROM unnest(measure_drift('{1, 1, 2, 1, 1, 2, 1, 1, 2, 5, 5, 5, 1, 1, 9}', 5, 2)) d)}), '{1.00,1.00,2.00}', 'the median of others');
is(sql(q{SELECT measure_drift('{1, 2, 1, 2}', 2, 1)}), '{1,1}', 'if they are enough');

# How often it is wrong, and how often it says nothing
my @wrong = (
	[ '24, 100', 'a statement that does not change' ],
	[ '24, 100, 1, 0.1', 'one that wanders by 10 % from window to window' ],
	[ '24, 100, 1, 0.2', '... by 20 %' ],
	[ '24, 100, 1, 0.1, 0.9', '... slowly' ],
	[ '6, 100, 1, 0.2, 0.9', '... with little history' ],
	[ '1, 100, 1, 0.2', '... with none' ],
	[ '24, 20, 1, 0.1, 0, 0.01', '20 calls, and some of them are stalled' ],
	[ '1, 20, 1, 0.1, 0, 0.01', '... with no history' ],
	[ '24, 5, 1, 0.2', 'five calls' ]);
cmp_ok(sql("SELECT faster + slower FROM verdicts(400, $_->[0])"), '<=', 0.05, "$_->[1]: wrong") foreach @wrong;
my @told = (
	[ '24, 100, 0.5, 0.1', 'faster', 'twice as fast, wanders by 10 %' ],
	[ '24, 100, 0.5, 0.2', 'faster', '... by 20 %' ],
	[ '24, 100, 1.3, 0.1', 'slower', 'slower by 30 %, wanders by 10 %' ],
	[ '24, 20, 3, 0.2', 'slower', 'three times as slow, 20 calls' ],
	[ '1, 100, 0.5, 0.1', 'faster', 'twice as fast, no history' ],
	[ '24, 5, 10, 0.2', 'slower', 'ten times as slow, five calls' ]);
cmp_ok(sql("SELECT $_->[1] FROM verdicts(400, $_->[0])"), '>=', 0.9, "$_->[2]: told") foreach @told;

is(sql(q{SELECT count(*) FROM perfopt.workers WHERE last_error IS NOT NULL}), '0', 'no duty has failed');
$node->stop;
done_testing();
