# Loops inside functions, with the function's name; referential integrity never.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', q{
perfopt.sample_interval = 0
perfopt.advice_interval = 0
perfopt.n_plus_one_interval = 0
perfopt.n_plus_one_max_gap = 1min
autovacuum = off
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION perfopt CASCADE;
	CREATE TABLE users (id bigint PRIMARY KEY, name text);
	CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint REFERENCES users ON DELETE CASCADE ON UPDATE CASCADE, cents int);
	INSERT INTO users SELECT i, 'name ' || i FROM generate_series(1, 300) i;
	INSERT INTO orders SELECT i, 1 + i % 300, i FROM generate_series(1, 3600) i;
	CREATE INDEX ON orders (user_id);
	CREATE TABLE log (a bigint, n bigint);
	CREATE ROLE alice LOGIN;
	CREATE FUNCTION total(n int) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE r record; c bigint; t bigint := 0;
	BEGIN
		FOR r IN SELECT id FROM users ORDER BY id LIMIT n LOOP
			SELECT count(*) INTO c FROM orders WHERE user_id = r.id;
			t := t + c;
		END LOOP;
		RETURN t;
	END $$;
	CREATE FUNCTION total_of(u bigint) RETURNS bigint LANGUAGE plpgsql AS $$
	BEGIN RETURN (SELECT count(*) FROM orders WHERE user_id = u); END $$;
	CREATE FUNCTION total_sql(u bigint) RETURNS bigint VOLATILE LANGUAGE sql AS 'SELECT count(*) FROM orders WHERE user_id = u';
	CREATE FUNCTION calls(n int) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE r record;
	BEGIN
		FOR r IN SELECT id FROM users ORDER BY id LIMIT n LOOP
			PERFORM total_of(r.id);
		END LOOP;
	END $$;
	CREATE FUNCTION dynamic(n int) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE r record; c bigint;
	BEGIN
		FOR r IN EXECUTE 'SELECT id FROM users ORDER BY id LIMIT $1' USING n LOOP
			EXECUTE 'SELECT count(*) FROM orders WHERE user_id = $1' INTO c USING r.id;
		END LOOP;
	END $$;
	CREATE FUNCTION caught(n int) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE r record; c bigint;
	BEGIN
		FOR r IN SELECT id FROM users ORDER BY id LIMIT n LOOP
			BEGIN
				SELECT count(*) / (r.id - 5) INTO c FROM orders WHERE user_id = r.id;
			EXCEPTION WHEN division_by_zero THEN NULL;
			END;
		END LOOP;
	END $$;
	CREATE FUNCTION inserts(n int) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN FOR i IN 1 .. n LOOP INSERT INTO log VALUES (i, 1); END LOOP; END $$;
	CREATE FUNCTION same(n int) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE c text;
	BEGIN FOR i IN 1 .. n LOOP SELECT name INTO c FROM users WHERE id = 7; END LOOP; END $$;
	CREATE FUNCTION definer() RETURNS bigint SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN RETURN total(20); END';
	CREATE PROCEDURE commits(n int) LANGUAGE plpgsql AS $$
	DECLARE r record; c bigint;
	BEGIN
		FOR r IN SELECT id FROM users ORDER BY id LIMIT n LOOP
			SELECT count(*) INTO c FROM orders WHERE user_id = r.id;
			COMMIT;
		END LOOP;
	END $$;
	CREATE FUNCTION triggered() RETURNS trigger LANGUAGE plpgsql AS $$
	DECLARE c bigint;
	BEGIN SELECT count(*) INTO c FROM orders WHERE user_id = new.a; RETURN new; END $$});

sub look
{
	my ($sql) = @_;
	local $ENV{PGOPTIONS} = '-c perfopt.detect_n_plus_one=off';
	return $node->safe_psql('postgres', $sql);
}

sub found
{
	my $columns = q{kind || ' ' || coalesce(function, 'client') || ' ' || runs || coalesce('/' || source_rows, '')
		|| CASE WHEN loops > 1 THEN ' in ' || loops ELSE '' END};
	my $rows = look("SELECT string_agg($columns, ', ' ORDER BY $columns COLLATE \"C\") FROM perfopt.n_plus_one");
	look('SELECT perfopt.reset_n_plus_one()');
	return $rows;
}

sub finds
{
	my ($sql, $expected, $name, %options) = @_;
	my ($out, $err);
	$node->psql('postgres', $sql, stdout => \$out, stderr => \$err, on_error_stop => 0, %options);
	is(found(), $expected, $name) or diag($err);
}

finds('SELECT total(9)', '', 'nine are no loop');
finds('SELECT total(10)', 'n_plus_one total(integer) 10/10', 'ten are');
finds('SELECT total(200)', 'n_plus_one total(integer) 200/200', 'more than the loop fetches at once');
finds("SET perfopt.track = all; SELECT total(30)", 'n_plus_one total(integer) 30/30', 'perfopt.track = all');
finds("SET perfopt.track = none; SELECT total(30)", 'n_plus_one total(integer) 30/30', 'perfopt.track = none');
finds("SELECT total(20);\nSELECT total(20);\n", 'n_plus_one total(integer) 40/40 in 2', 'two calls, two loops');
finds('SELECT calls(20)', 'n_plus_one total_of(bigint) 20/20', 'the loop of another function');
finds('SELECT dynamic(20)', 'n_plus_one dynamic(integer) 20/20', 'EXECUTE');
finds('SELECT caught(20)', 'n_plus_one caught(integer) 19/20', 'errors that are caught');
finds('SELECT inserts(20)', 'batchable_inserts inserts(integer) 20', 'inserts');
finds('SELECT same(20)', 'cacheable_query same(integer) 20', 'the same again and again');
finds(q{SELECT perfopt.benchmark('SELECT name FROM users WHERE id = 7', iterations => 20);
	SELECT perfopt.compare('SELECT name FROM users WHERE id = 7', 'SELECT 1 FROM users WHERE id = 7', iterations => 20)}, '', 'what is measured is nobody\'s loop');
finds(q{SELECT perfopt.batch_insert('orders', '{id,user_id}', array_agg(i), array_agg(CASE i % 2 WHEN 0 THEN 7 ELSE -i END), perfopt.insert_options(on_error => 'skip'))
	FROM generate_series(10001, 10100) i}, '', 'nor are rows that a batched insert tries one by one');
finds("SELECT perfopt.benchmark('SELECT 1', iterations => 20); SELECT total(20)", 'n_plus_one total(integer) 20/20', '... and afterwards loops are found again');
finds('DO $$ BEGIN PERFORM total(20); END $$', 'n_plus_one total(integer) 20/20', 'from a DO block');
finds('DO $$ DECLARE r record; c bigint; BEGIN FOR r IN SELECT id FROM users ORDER BY id LIMIT 20 LOOP
	SELECT count(*) INTO c FROM orders WHERE user_id = r.id; END LOOP; END $$', 'n_plus_one <DO block> 20/20', 'of a DO block');
finds('CALL commits(20)', 'n_plus_one commits(integer) 20/20', 'a procedure that commits');
finds('SELECT total_of(id) FROM users ORDER BY id LIMIT 30', 'n_plus_one total_of(bigint) 30/30', 'a function called for each row');
finds('SELECT total_sql(id) FROM users ORDER BY id LIMIT 30', 'n_plus_one <function> 30/30', 'an SQL function');
finds(join("\n", 'SELECT id FROM users LIMIT 20;', map { "SELECT total_of($_);" } 1 .. 20), 'n_plus_one client 20/20', 'calls of a function in a client\'s loop');
finds(join("\n", map { "SELECT total_of($_);" } 1 .. 20), '', 'calls of different statements are no loop of the function');

# SECURITY DEFINER: whose rights, whose row
look('GRANT EXECUTE ON FUNCTION definer() TO alice');
$node->safe_psql('postgres', 'SELECT definer()', extra_params => [ '-U', 'alice' ]);
is(look('SELECT role FROM perfopt.n_plus_one'), look('SELECT current_user'), 'a loop belongs to the owner of the function');
is($node->safe_psql('postgres', 'SELECT count(*) FROM perfopt.n_plus_one', extra_params => [ '-U', 'alice' ]), '0', 'who calls it does not see it');
found();

# Texts, though pg_stat_statements has none of nested statements
$node->safe_psql('postgres', 'SELECT total(20)');
is(look('SELECT source_query, query, lost_ms > 0 FROM perfopt.n_plus_one'),
	'SELECT id FROM users ORDER BY id LIMIT n|SELECT count(*)        FROM orders WHERE user_id = r.id|t', 'texts are the function\'s');
is(look('SELECT instead FROM perfopt.n_plus_one'),
	'SELECT user_id, count(*) FROM public.orders WHERE user_id = ANY ($1::bigint[]) GROUP BY user_id', 'a statement for all rows');
look('DROP FUNCTION total(int)');
like(look('SELECT function FROM perfopt.n_plus_one'), qr/^\d+$/, 'the function is gone');
found();

# Triggers
my $insert = 'INSERT INTO log SELECT i FROM generate_series(1, 50) i';
look('CREATE TRIGGER t AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION triggered()');
finds($insert, 'n_plus_one triggered() 50/50', 'a trigger AFTER ROW');
look('DROP TRIGGER t ON log; CREATE TRIGGER t BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION triggered()');
finds($insert, 'n_plus_one triggered() 50/50', 'a trigger BEFORE ROW');
look('DROP TRIGGER t ON log');
finds('INSERT INTO orders SELECT i, 1 + i % 300 FROM generate_series(10001, 10500) i', '', 'checks of foreign keys');
finds(join("\n", map { "INSERT INTO orders VALUES ($_, 5);" } 20001 .. 20009), '', '... of single rows');
finds('UPDATE users SET id = id + 1000 WHERE id <= 100', '', 'cascading updates');
finds('DELETE FROM users WHERE id > 1000', '', 'cascading deletes');

look('ALTER TABLE orders DROP CONSTRAINT orders_user_id_fkey, ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED');
finds("SELECT id FROM users LIMIT 20;\nINSERT INTO orders SELECT i, 1 + i % 20 FROM generate_series(30001, 30020) i;", '', 'deferred checks of foreign keys');
look('CREATE CONSTRAINT TRIGGER t AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION triggered()');
finds("SELECT id FROM users LIMIT 20;\nINSERT INTO log SELECT i FROM generate_series(1, 20) i;", 'n_plus_one triggered() 20/20', 'a deferred trigger is no client');

# Values in texts
$node->safe_psql('postgres', q{DO $$ DECLARE c bigint; r record; BEGIN FOR r IN SELECT id FROM users ORDER BY id LIMIT 20 LOOP
	SELECT count(*) INTO c FROM orders WHERE user_id = r.id AND cents <> 4711; END LOOP; END $$});
$node->safe_psql('postgres', q{CREATE FUNCTION secret() RETURNS void LANGUAGE plpgsql AS $$ DECLARE c bigint; r record;
	BEGIN FOR r IN SELECT id FROM users ORDER BY id LIMIT 20 LOOP
	EXECUTE format('SELECT count(*) FROM orders WHERE user_id = %s AND cents <> 4711', r.id) INTO c; END LOOP; END $$});
$node->safe_psql('postgres', 'SELECT secret()');
is(look('SELECT count(*), count(query) FROM perfopt.n_plus_one'), '2|0', 'texts made by the function, or a DO block\'s, are not kept');

# A debugger or profiler may have taken PL/pgSQL's place for plug-ins: not tested here.
# What a function's statement runs itself is not the function's text
look('SELECT perfopt.reset_n_plus_one()');
$node->safe_psql('postgres', q{CREATE FUNCTION by_xml() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN FOR i IN 1 .. 12 LOOP PERFORM pg_catalog.query_to_xml('SELECT name FROM users WHERE name <> ''secret''', true, false, ''); END LOOP; END $$;
	SELECT by_xml()});
is(look(q{SELECT count(*) || ' ' || count(query) FROM perfopt.loops() WHERE function = 'by_xml'::regproc}), '1 0', 'a query that a function gets as a value');

$node->stop;
done_testing();
