# perfopt.profile() against EXPLAIN over many shapes of plans, and whose time
# it says it was.
use strict;
use warnings;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('profile');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "autovacuum = off\nperfopt.sample_interval = 0\nperfopt.advice_interval = 0");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION perfopt CASCADE;
	CREATE TABLE users (id int PRIMARY KEY, name text, grp int);
	CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users, amount numeric, note text);
	INSERT INTO users SELECT i, 'user' || i, i % 10 FROM generate_series(1, 1000) i;
	INSERT INTO orders SELECT i, 1 + i % 1000, i % 77, repeat('x', i % 50) FROM generate_series(1, 20000) i;
	CREATE INDEX ON orders (user_id);
	CREATE TABLE parted (id int, v text) PARTITION BY RANGE (id);
	CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
	CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (100) TO (200);
	INSERT INTO parted SELECT i, i FROM generate_series(0, 199) i;
	CREATE FUNCTION slow(ms float8) RETURNS int LANGUAGE plpgsql VOLATILE AS
		$$BEGIN PERFORM pg_sleep(ms / 1000); RETURN 1; END$$;
	CREATE FUNCTION slow_trigger() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN PERFORM pg_sleep(0.06); RETURN NEW; END$$;
	CREATE TABLE fires (i int);
	CREATE TRIGGER before_row BEFORE INSERT ON fires FOR EACH ROW EXECUTE FUNCTION slow_trigger();
	CREATE TABLE fires_after (i int);
	CREATE TRIGGER after_row AFTER INSERT ON fires_after FOR EACH ROW EXECUTE FUNCTION slow_trigger();
	VACUUM ANALYZE});

# [ settings, statement ]
my $parallel = 'SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET min_parallel_index_scan_size = 0;';
my @shapes = (
	['', 'SELECT 1'],
	['', 'VALUES (1), (2)'],
	['', 'SELECT * FROM users WHERE id = 5'],
	['', 'SELECT * FROM orders ORDER BY amount, note LIMIT 10'],
	["SET work_mem = '64kB';", 'SELECT * FROM orders ORDER BY note, amount'],
	['', 'SELECT grp, count(*) FROM users JOIN orders ON user_id = users.id GROUP BY grp'],
	['SET enable_hashjoin = off;', 'SELECT * FROM users JOIN orders ON user_id = users.id'],
	['SET enable_hashjoin = off; SET enable_mergejoin = off;', 'SELECT * FROM users LEFT JOIN orders ON user_id = users.id WHERE grp = 3'],
	["SET work_mem = '64kB';", 'SELECT o.id, p.id FROM orders o JOIN orders p ON o.note = p.note AND o.id = p.id'],
	['SET enable_seqscan = off; SET enable_indexscan = off;', 'SELECT * FROM orders WHERE user_id = 7 OR user_id = 8'],
	['', 'SELECT u.*, (SELECT max(amount) FROM orders o WHERE o.user_id = u.id) FROM users u WHERE grp = 1'],
	['', 'SELECT * FROM users WHERE id = (SELECT max(user_id) FROM orders) OR grp > (SELECT max(grp) - 1 FROM users)'],
	['', 'SELECT * FROM users WHERE id NOT IN (SELECT user_id FROM orders)'],
	['', 'SELECT * FROM users u WHERE EXISTS (SELECT FROM orders o WHERE o.user_id = u.id AND amount > 70)'],
	['', 'SELECT id IN (SELECT user_id FROM orders), grp IN (SELECT grp FROM users WHERE id < 3) FROM users'],
	['', 'WITH c AS MATERIALIZED (SELECT * FROM orders WHERE amount > 50) SELECT * FROM c a JOIN c b USING (id)'],
	['', 'WITH c AS MATERIALIZED (SELECT * FROM orders), d AS MATERIALIZED (SELECT user_id, count(*) n FROM c GROUP BY 1) SELECT * FROM d WHERE n > (SELECT avg(n) FROM d) LIMIT 3'],
	['', 'WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 500) SELECT sum(n) FROM r'],
	['', 'SELECT * FROM parted WHERE id < 150 UNION ALL SELECT id, name FROM users'],
	['', 'SELECT user_id FROM orders EXCEPT SELECT id FROM users'],
	['', 'SELECT id, sum(amount) OVER (PARTITION BY user_id ORDER BY id) FROM orders'],
	['', 'SELECT grp, user_id, sum(amount) FROM users JOIN orders ON user_id = users.id GROUP BY GROUPING SETS ((grp), (user_id), ())'],
	['', 'SELECT * FROM generate_series(1, 1000) g, LATERAL (SELECT * FROM orders WHERE user_id = g LIMIT 2) l'],
	['', 'SELECT DISTINCT user_id, amount FROM orders ORDER BY user_id, amount'],
	['', 'SELECT * FROM users TABLESAMPLE system (50) REPEATABLE (1)'],
	['SET enable_bitmapscan = off;', q{UPDATE orders SET note = note || 'y' WHERE user_id < 20 RETURNING id}],
	['', 'DELETE FROM parted WHERE id > 50'],
	['', q{INSERT INTO parted SELECT i, 'z' FROM generate_series(1, 150) i}],
	['', 'INSERT INTO orders SELECT 30000 + i, i, 1 FROM generate_series(1, 100) i ON CONFLICT DO NOTHING'],
	['', 'MERGE INTO users u USING (VALUES (1), (5000)) v (id) ON u.id = v.id WHEN MATCHED THEN UPDATE SET grp = 1 WHEN NOT MATCHED THEN INSERT VALUES (v.id)'],
	['', 'WITH gone AS (DELETE FROM orders WHERE id < 100 RETURNING *), added AS (INSERT INTO parted VALUES (1, 2)) SELECT count(*) FROM gone'],
	[$parallel, 'SELECT count(*) FROM orders'],
	[$parallel, 'SELECT user_id, sum(amount) FROM orders GROUP BY user_id ORDER BY 2 DESC LIMIT 5'],
	[$parallel, 'SELECT * FROM orders o JOIN users u ON u.id = o.user_id ORDER BY note'],
	[$parallel, 'SELECT count(*) FROM orders WHERE user_id > (SELECT avg(id) FROM users)'],
	[$parallel, 'SELECT * FROM parted UNION ALL SELECT id, note FROM orders'],
	["$parallel SET enable_hashjoin = off; SET enable_mergejoin = off;", 'SELECT count(*) FROM orders o JOIN users u ON u.id = o.user_id WHERE u.grp = 1'],
	['SET enable_sort = on; SET enable_hashagg = off;', 'SELECT * FROM (SELECT * FROM orders ORDER BY user_id) o ORDER BY user_id, amount'],
);

sub flatten
{
	my ($plan, $list) = @_;
	push @$list, $plan;
	flatten($_, $list) foreach @{ $plan->{Plans} || [] };
	return $list;
}

sub literal { my ($text) = @_; $text =~ s/'/''/g; return "'$text'"; }

sub profile
{
	my ($settings, $statement) = @_;
	my $rows = $node->safe_psql('postgres', "$settings SELECT json_agg(p) FROM perfopt.profile(" . literal($statement) . ') p');
	return @{ decode_json($rows) };
}

foreach my $shape (@shapes)
{
	my ($settings, $statement) = @$shape;
	my @rows = profile($settings, $statement);
	my $json = $node->safe_psql('postgres',
		"$settings BEGIN; EXPLAIN (ANALYZE, FORMAT JSON) $statement; ROLLBACK");
	my $explained = flatten(decode_json($json)->[0]{Plan}, []);
	my @nodes = sort { $a->{id} <=> $b->{id} } grep { defined $_->{id} } @rows;
	my $name = substr "$settings $statement", -90;

	my ($shares, $wrong, $last) = (0, '', undef);
	foreach (@rows)
	{
		$shares += sprintf '%.0f', $_->{share} * 10;
		$wrong .= " $_->{node}: $_->{self_ms}" if $_->{self_ms} < 0;
		$wrong .= ' order' if defined $last && $_->{self_ms} > $last;
		$last = $_->{self_ms};
	}
	is($shares . $wrong, '1000', "shares add up, none is negative: $name");

	# the same nodes, in EXPLAIN's order; with workers loops are not certain
	my $parallel_plan = $json =~ /"Gather/;
	my @mine = map { [ $_->{depth}, $parallel_plan ? () : ($_->{loops}, $_->{rows_actual} // '0') ] } @nodes;
	my (@theirs, %depth);
	foreach my $i (0 .. $#$explained)
	{
		my $plan = $explained->[$i];
		$depth{$plan} //= 0;
		$depth{$_} = $depth{$plan} + 1 foreach @{ $plan->{Plans} || [] };
		# up to 17 EXPLAIN rounds the rows of a loop
		push @theirs, [ $depth{$plan}, $parallel_plan ? () : ($plan->{'Actual Loops'}, $plan->{'Actual Rows'}) ];
		next if $i > $#nodes;
		$mine[$i][2] = sprintf '%.0f', abs($mine[$i][2] - 1e-9)
		  if !$parallel_plan && $plan->{'Actual Rows'} == int $plan->{'Actual Rows'};
		my $kind = $plan->{'Node Type'} eq 'ModifyTable' ? $plan->{Operation} : $plan->{'Node Type'};
		$kind =~ s/ Join$//;
		$mine[$i][0] = "not $kind: $nodes[$i]{node}" if index($nodes[$i]{node}, $kind) < 0;
	}
	@mine = map { [ map { $_ + 0 eq $_ ? $_ + 0 : $_ } @$_ ] } @mine;
	is_deeply(\@mine, \@theirs, 'the nodes of EXPLAIN') or diag(explain(\@rows));
}

# Whose time it was: something sleeps for 60 ms, and only that has them.
foreach (
	['an InitPlan', '', 'SELECT * FROM users WHERE id = (SELECT slow(60))', qr/^InitPlan.*Result/],
	['an InitPlan used far below', '', 'SELECT * FROM (SELECT grp, count(*) FROM users JOIN orders ON user_id = users.id WHERE amount > (SELECT slow(60)) GROUP BY 1) x ORDER BY 1', qr/^InitPlan/],
	['an InitPlan before workers start', $parallel, 'SELECT count(*) FROM orders WHERE user_id > (SELECT slow(60))', qr/^InitPlan/],
	['a CTE', '', 'WITH c AS MATERIALIZED (SELECT slow(60) AS s) SELECT * FROM users JOIN c ON s = id', qr/^CTE c: Result/],
	['a CTE read twice', '', 'WITH c AS MATERIALIZED (SELECT slow(30) AS s FROM generate_series(1, 2)) SELECT * FROM c a, c b', qr/^CTE c: Function Scan/],
	['a subplan', '', 'SELECT (SELECT slow(60 + 0 * u.id) FROM orders WHERE orders.id = u.id) FROM users u WHERE u.id = 5', qr/^SubPlan/],
	['the inner side of a join', 'SET enable_hashjoin = off; SET enable_mergejoin = off;', 'SELECT * FROM users u, LATERAL (SELECT slow(6 + u.id * 0) OFFSET 0) s WHERE u.id <= 10', qr/Result|Subquery Scan/],
	['a filter', '', 'SELECT * FROM users WHERE id = 3 AND slow(60) = 1', qr/^Index Scan using users_pkey on users/],
	['what is inserted', '', 'INSERT INTO parted SELECT slow(60)', qr/Result/],
	['a trigger before rows', '', 'INSERT INTO fires VALUES (1)', qr/^Trigger before_row on fires$/],
	['a trigger after rows', '', 'INSERT INTO fires_after VALUES (1)', qr/^Trigger after_row on fires_after$/],
	['a CTE that nobody reads', '', 'WITH c AS (INSERT INTO parted SELECT slow(60)) SELECT 1', qr/Result/],
	['a worker', "$parallel ALTER FUNCTION slow PARALLEL SAFE; SET parallel_leader_participation = off; SET max_parallel_workers_per_gather = 1;", 'SELECT count(*) FROM users WHERE id = 7 AND slow(60) = 1', qr/Scan .*on users/])
{
	my ($what, $settings, $statement, $expected) = @$_;
	my @rows = profile($settings, $statement);
	my $others = 0;
	$others += $_->{self_ms} foreach @rows[ 1 .. $#rows ];
	like($rows[0]{node}, $expected, "the time of $what");
	ok($rows[0]{self_ms} >= 59 && $rows[0]{self_ms} + $others >= 60 && $rows[0]{share} > 50,
		'is its own') or diag(explain(\@rows));
}

# Flags
my %flags;
foreach (
	["SET work_mem = '64kB';", 'SELECT * FROM orders ORDER BY note, amount', qr/^Sort$/, qr/^spilled \d+ kB to disk$/],
	['', 'SELECT * FROM orders WHERE note = repeat(chr(120), 100)', qr/^Seq Scan on orders$/, qr/^filter throws away 100 % of 20,000 rows$/],
	['SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_memoize = off; SET enable_material = off;', 'SELECT count(o.note) FROM users u JOIN orders o ON o.id = u.id + 0', qr/^Index Scan using orders_pkey on orders o$/, qr/^index scanned 1,000 times$/],
	['', 'SELECT * FROM users WHERE id = 0 AND grp = (SELECT max(amount)::int FROM orders)', qr/^Seq Scan on orders$/, qr/^never executed$/],
	["SET enable_seqscan = off; SET enable_indexscan = off; SET work_mem = '64kB';", 'SELECT * FROM generate_series(1, 20000) g WHERE g % 2 < 5', qr/^Function Scan on generate_series g$/, qr/^spilled/])
{
	my ($settings, $statement, $where, $flag) = @$_;
	my @rows = profile($settings, $statement);
	ok(scalar(grep { my $row = $_; $row->{node} =~ $where && grep { $_ =~ $flag } @{ $row->{flags} } } @rows), "flag $flag")
	  or diag(explain(\@rows));
}
$node->safe_psql('postgres', 'CREATE TABLE correlated AS SELECT i % 100 AS a, i % 100 AS b FROM generate_series(1, 100000) i; ANALYZE correlated');
my ($scan) = grep { ($_->{node} // '') =~ /Scan on correlated/ } profile('SET max_parallel_workers_per_gather = 0;', 'SELECT * FROM correlated WHERE a = 1 AND b = 1');
cmp_ok($scan->{estimate_factor}, '>', 50, 'an estimate that is wrong has its factor');
like("@{ $scan->{flags} }", qr/^estimate is off \d+ times: \d+ rows expected, 1,000 came/, 'and its flag');

# without times
my @untimed = @{ decode_json($node->safe_psql('postgres', q{SELECT json_agg(p) FROM perfopt.profile('SELECT count(*) FROM users', timing => false) p})) };
is(join(',', map { ($_->{id} // 'x') . (defined $_->{self_ms} || defined $_->{share} ? ' timed' : '') } @untimed), '1,2,x,x', 'with timing false there are no times');
is($untimed[1]{rows_actual}, 1000, 'but rows');

$node->stop;
done_testing();
