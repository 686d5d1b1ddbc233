# Differential fuzz of batched inserts against plain ones: tables with all kinds
# of columns, constraints, triggers, partitions, policies and views, made twice;
# rows, some of them bad, inserted by INSERT ... SELECT into one, and by
# perfopt.batch_insert() into the other.  Contents, what triggers logged, counts
# and SQLSTATE must be the same.  With on_error 'skip', the standard is one
# INSERT for each row, and the same rows must be rejected for the same reasons.
#
#   FUZZ_ROUNDS   how many pairs of tables (default 150)
#   FUZZ_SEED     where to start (default 1); a failure names its own
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{FUZZ_ROUNDS} || 150;
my $first_seed = $ENV{FUZZ_SEED} || 1;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('batch_insert_fuzz');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "autovacuum = off\nlog_statement = none\nlog_min_messages = fatal\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', q{
	CREATE ROLE fuzz_user;
	GRANT fuzz_user TO CURRENT_USER;
	CREATE DOMAIN positive AS int CHECK (value > 0);
	CREATE TYPE pair AS (x int, y text);
	CREATE TABLE report (seed int, what text);
	CREATE TABLE tally (outcome text);
		CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE n bigint;
	BEGIN
		IF statement ~ '^INSERT' THEN
			EXECUTE statement;
			GET DIAGNOSTICS n = ROW_COUNT;
		ELSE
			EXECUTE statement INTO n;
		END IF;
		RETURN 'ok ' || n;
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE;
	END $$;
	-- rows that fail, one statement a row
	CREATE FUNCTION attempt_rows(statements text[]) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE n bigint; total bigint := 0; failed text := '';
	BEGIN
		FOR i IN 1 .. array_length(statements, 1) LOOP
			BEGIN
				EXECUTE statements[i];
				GET DIAGNOSTICS n = ROW_COUNT;
				total := total + n;
			EXCEPTION WHEN OTHERS THEN
				failed := failed || ' ' || i || ':' || SQLSTATE;
			END;
		END LOOP;
		RETURN 'ok ' || total || failed;
	END $$;
	CREATE FUNCTION attempt_skip(statement text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE n bigint; b bigint;
	BEGIN
		EXECUTE statement INTO n, b;
		RETURN 'ok ' || n || coalesce((SELECT string_agg(' ' || ordinal || ':' || sqlstate, '' ORDER BY ordinal)
			FROM perfopt.rejected_rows WHERE batch = b), '');
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE;
	END $$;
	CREATE FUNCTION compare(seed int, what text, plain text, batched text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF what ~ '^batch' THEN
			INSERT INTO tally SELECT regexp_replace(unnest(regexp_split_to_array(plain, ' ')), '^\d+:', '');
		END IF;
		IF plain IS DISTINCT FROM batched THEN
			INSERT INTO report VALUES (seed, format(E'%s\nplain only:   %s\nbatched only: %s', what,
				(SELECT left(string_agg(x, E'\n'), 400) FROM (SELECT unnest(string_to_array(plain, E'\n')) EXCEPT ALL SELECT unnest(string_to_array(batched, E'\n'))) y(x)),
				(SELECT left(string_agg(x, E'\n'), 400) FROM (SELECT unnest(string_to_array(batched, E'\n')) EXCEPT ALL SELECT unnest(string_to_array(plain, E'\n'))) y(x))));
		END IF;
	END $$;
});

my $seed;
my $version = $node->pg_version->major;
sub chance { return rand() < $_[0]; }
sub pick { return $_[ rand @_ ]; }
sub quote { my ($text) = @_; return 'NULL' unless defined $text; $text =~ s/'/''/g; return "'$text'"; }

# A column: name, definition, type, values good and bad (as text)
sub columns
{
	my ($has_key) = @_;
	my @columns;
	my $key = 0;
	push @columns, pick(
		{ name => 'id', definition => 'int' . ($has_key ? ' PRIMARY KEY' : ''), type => 'int', good => sub { ++$key + ($_[0] // 0) * 1000 }, bad => sub { pick(1, 'x', undef) } },
		{ name => 'id', definition => 'bigserial' . ($has_key ? ' PRIMARY KEY' : ''), omit => 1 },
		{ name => 'id', definition => 'bigint GENERATED ALWAYS AS IDENTITY' . ($has_key ? ' PRIMARY KEY' : ''), omit => 1 },
		{ name => 'id', definition => 'text' . ($has_key ? ' PRIMARY KEY' : ''), type => 'text', good => sub { 'k' . (++$key + ($_[0] // 0) * 1000) }, bad => sub { pick('k1', undef) } });
	my @others = (
		{ name => 'a', definition => 'int CHECK (a <> 13)', type => 'int', good => sub { int(rand 12) }, bad => sub { pick(13, '3000000000', 'x') } },
		{ name => 'b', definition => q(text NOT NULL DEFAULT 'd'), type => 'text', good => sub { pick('x', "it's", '', 'a,b{}"\\') }, bad => sub { undef } },
		{ name => 'c', definition => 'varchar(5)', type => 'varchar', good => sub { pick('', 'abcde', undef) }, bad => sub { 'abcdef' } },
		{ name => 'd', definition => 'numeric(6,2)', type => 'numeric', good => sub { pick('1.005', '-3', '0') }, bad => sub { '123456.7' } },
		{ name => 'e', definition => 'positive', type => 'positive', good => sub { pick(1, 7, undef) }, bad => sub { pick(0, 'x') } },
		{ name => 'f', definition => 'int REFERENCES parent', type => 'int', good => sub { int(rand 10) }, bad => sub { 10 } },
		{ name => 'g', definition => 'bool DEFAULT true', type => 'bool', good => sub { pick('t', 'f', undef) }, bad => sub { 'maybe' } },
		{ name => 'h', definition => 'timestamptz DEFAULT \'2024-01-01 00:00+00\'', type => 'timestamptz', good => sub { '2024-02-03 04:05:06+00' }, bad => sub { '2024-02-31' } },
		{ name => 'j', definition => 'jsonb', type => 'jsonb', good => sub { pick('{"a": [1]}', undef) }, bad => sub { undef }, json => 1 },
		{ name => 'k', definition => 'int[]', type => 'int[]', good => sub { pick('{1,2}', '{}', undef) }, bad => sub { '{x}' } },
		{ name => 'p', definition => 'pair', type => 'pair', good => sub { pick('(1,x)', undef) }, bad => sub { '(x,)' } },
		{ name => 'u', definition => 'int UNIQUE', type => 'int', good => sub { int(rand 100000) + 1 }, bad => sub { 0 }, twice => 1 },
		{ name => 's', definition => 'smallint', type => 'smallint', good => sub { int(rand 100) }, bad => sub { 40000 } },
		{ name => 'w', definition => 'double precision', type => 'double precision', good => sub { pick('0.1', '1e10') }, bad => sub { '1e400' } });
	for my $column (@others)
	{
		push @columns, $column if chance(0.4);
	}
	push @columns, { name => 'gen', definition => 'int GENERATED ALWAYS AS (coalesce(a, 0) * 2) ' . ($version >= 18 && chance(0.5) ? 'VIRTUAL' : 'STORED'), omit => 1 }
	  if chance(0.4) && grep { $_->{name} eq 'a' } @columns;
	push @columns, { name => 'a', definition => 'int CHECK (a <> 13)', type => 'int', good => sub { int(rand 12) }, bad => sub { pick(13, 'x') } }
	  unless grep { !$_->{omit} } @columns;
	return @columns;
}

# Statements that make the table and all around it, in the current schema
sub table
{
	my @columns = @_;
	my %has = map { $_->{name} => 1 } @columns;
	my (@ddl, $target);
	my $partitioned = $has{a} && !(grep { $_->{definition} =~ /PRIMARY|UNIQUE|IDENTITY/ } @columns) && chance(0.4);
	push @ddl, 'CREATE TABLE parent (id int PRIMARY KEY)', 'INSERT INTO parent SELECT generate_series(0, 9)',
	  'CREATE TABLE log (id serial, what text)';
	my @definitions = map { "$_->{name} $_->{definition}" } @columns;
	splice @definitions, int(rand @definitions), 0, 'dropped int' if chance(0.3);
	my $definition = join ', ', @definitions;
	push @ddl, "CREATE TABLE t ($definition)" . ($partitioned ? ' PARTITION BY LIST (a)' : '');
	push @ddl, 'ALTER TABLE t DROP COLUMN dropped' if $definition =~ /dropped/;
	push @ddl, 'CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (0, 1, 2, 3)', 'CREATE TABLE t_2 PARTITION OF t FOR VALUES IN (4, 5, 6, 7, 8, 9, 10)'
	  if $partitioned;
	push @ddl, 'CREATE TABLE child () INHERITS (t)' if !$partitioned && chance(0.1);
	push @ddl, 'CREATE INDEX ON t (' . pick(grep { !$_->{json} && $_->{type} } @columns)->{name} . ')' if chance(0.5);
	if (chance(0.35))
	{
		my $body = "INSERT INTO log (what) VALUES (TG_NAME || ' ' || new::text);";
		$body .= ' IF new.a = 5 THEN RETURN NULL; END IF;' if $has{a} && chance(0.3);
		$body .= q( IF new.a = 11 THEN RAISE 'no' USING ERRCODE = 'ZZ011'; END IF;) if $has{a} && chance(0.3);
		$body .= q( new.b := coalesce(new.b, 'b') || '!';) if $has{b} && chance(0.4);
		$body .= q( PERFORM count(*) FROM t;) if chance(0.3);
		push @ddl, "CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS \$f\$ BEGIN $body RETURN new; END \$f\$",
		  'CREATE TRIGGER before BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION before()';
	}
	if (chance(0.3))
	{
		my $body = "INSERT INTO log (what) VALUES (TG_NAME || ' ' || TG_OP || ' ' || new::text);";
		$body .= q( IF new.a = 12 THEN RAISE 'no' USING ERRCODE = 'ZZ012'; END IF;) if $has{a} && chance(0.3);
		push @ddl, "CREATE FUNCTION after() RETURNS trigger LANGUAGE plpgsql AS \$f\$ BEGIN $body RETURN NULL; END \$f\$",
		  'CREATE TRIGGER after AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION after()';
	}
	if (chance(0.2))
	{
		push @ddl, q(CREATE FUNCTION statement() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN
			INSERT INTO log (what) SELECT TG_NAME || ' ' || count(*) FROM new_rows; RETURN NULL; END $f$),
		  'CREATE TRIGGER statement AFTER INSERT ON t REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION statement()';
	}
	push @ddl, 'ALTER TABLE t ENABLE ROW LEVEL SECURITY', 'CREATE POLICY p ON t USING (true) WITH CHECK (' . ($has{a} ? 'a IS DISTINCT FROM 9' : 'true') . ')'
	  if chance(0.2);
	$target = 't';
	if (chance(0.15))
	{
		push @ddl, 'CREATE VIEW v AS SELECT * FROM t' . ($has{a} && chance(0.5) ? ' WHERE a IS DISTINCT FROM 8 WITH CHECK OPTION' : '');
		$target = 'v';
	}
	elsif (chance(0.08))
	{
		my $names = join ', ', map { $_->{name} } grep { !$_->{omit} } @columns;
		my $values = join ', ', map { "new.$_->{name}" } grep { !$_->{omit} } @columns;
		push @ddl, 'CREATE VIEW v AS SELECT * FROM t',
		  "CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS \$f\$ BEGIN INSERT INTO t ($names) VALUES ($values); RETURN new; END \$f\$",
		  'CREATE TRIGGER instead INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION instead()';
		$target = 'v instead';
	}
	elsif (chance(0.08) && !$partitioned)
	{
		push @ddl, q(CREATE RULE also AS ON INSERT TO t DO ALSO INSERT INTO log (what) VALUES ('rule'));
		$target = 't ruled';
	}
	push @ddl, 'GRANT ALL ON ALL TABLES IN SCHEMA %s TO fuzz_user', 'GRANT ALL ON ALL SEQUENCES IN SCHEMA %s TO fuzz_user';
	return ($target, @ddl);
}

sub json_value
{
	my ($column, $value) = @_;
	return 'null' unless defined $value;
	return $value if $column->{json};
	return $value if $column->{type} =~ /^(int|smallint|numeric|positive|double precision)$/ && $value =~ /^-?[\d.]+$/ && chance(0.7);
	return $value =~ /^\{(.*)\}$/ && chance(0.5) ? '[' . join(',', map { /\D/ ? "\"$_\"" : $_ } split /,/, $1) . ']' : do {
		(my $text = $value) =~ s/(["\\])/\\$1/g;
		"\"$text\"";
	};
}

# The script of one round
sub round_script
{
	srand($seed);
	my $has_key = chance(0.7);
	my @columns = columns($has_key);
	my ($kind, @ddl) = table(@columns);
	my ($target, $special) = split ' ', $kind;
	my @given = grep { !$_->{omit} && !($_->{definition} =~ /DEFAULT/ && chance(0.3)) } @columns;
	@given = (grep { !$_->{omit} } @columns)[0] unless @given;
	my $names = join ',', map { $_->{name} } @given;
	my $row_type = join ', ', map { "$_->{name} $_->{type}" } @given;
	my $keyed = $has_key && grep { $_->{name} eq 'id' } @given;
	my $script = '';
	for my $schema ('plain', 'batched')
	{
		$script .= "DROP SCHEMA IF EXISTS $schema CASCADE; CREATE SCHEMA $schema; GRANT USAGE ON SCHEMA $schema TO fuzz_user; SET search_path = $schema, public;\n";
		$script .= join '', map { s/%s/$schema/r . ";\n" } @ddl;
		$script .= "CREATE TYPE given AS ($row_type); CREATE TYPE given_text AS (" . join(', ', map { "$_->{name} text" } @given) . ");\n";
	}
	my $skipped = 0;
	my $sequences = join '', map { "ALTER SEQUENCE IF EXISTS $_.t_id_seq RESTART WITH START_HERE;" } 'plain', 'batched';
	for my $batch (1 .. 4)
	{
		my $share = chance(0.5) ? 0 : pick(0.005, 0.03, 0.3);
		my $num_rows = pick(1, 3, 40, 40, 200);
		my $shape = pick('columns', 'rows', 'jsonb');
		my $skip = chance(0.4);
		my @rows;
		# which of two bad values is found first is said nowhere
		my $bad_rows = $shape eq 'jsonb' && !$skip ? 1 : $num_rows;
		for (1 .. $num_rows)
		{
			my @row = map { $_->{good}->($batch) } @given;
			if ($bad_rows > 0 && chance($share))
			{
				my $which = int rand @given;
				$row[$which] = $given[$which]{bad}->();
				$bad_rows--;
			}
			push @rows, \@row;
		}
		my $conflict = $keyed && !$special && !$skip && chance(0.5) ? pick('nothing', 'update') : 'error';
		if ($conflict ne 'error' && @rows > 1)
		{
			my ($key) = grep { $given[$_]{name} eq 'id' } 0 .. $#given;
			$rows[$_][$key] = $rows[ rand($conflict eq 'update' ? 1 : $_) ][$key] for grep { chance(0.05) } 2 .. $#rows;
		}
		my @updated = grep { $_->{name} ne 'id' } @given;
		my $on_conflict =
			$conflict eq 'error' ? ''
		  : $conflict eq 'nothing' || !@updated ? ' ON CONFLICT' . ($conflict eq 'update' ? ' (id)' : '') . ' DO NOTHING'
		  : ' ON CONFLICT (id) DO UPDATE SET ' . join ', ', map { "$_->{name} = excluded.$_->{name}" } @updated;
		my $by = $target eq 'v' && $conflict eq 'update' ? q(, conflict_columns => '{id}') : '';
		my $size = chance(0.3) ? pick(1, 7, 50) : 0;
		my $options = "on_conflict => '$conflict'$by" . ($skip ? ", on_error => 'skip'" : '') . ($size && $skip ? ", batch_size => $size" : '');
		my $role = chance(0.5) ? 'fuzz_user' : 'NONE';
		# a bad value of a column's own type fails before there is a row
		my $typed = !$skip && chance(0.5);
		my (@sources, $call);
		# a row each, or all
		for my $set ([@rows], map { [$_] } @rows)
		{
			my $source;
			if ($shape eq 'columns')
			{
				my @arrays = map { my $i = $_; 'ARRAY[' . join(',', map { quote($_->[$i]) } @$set) . ']::text[]' } 0 .. $#given;
				$source = 'SELECT ' . join(',', map { my $type = $given[$_]{type}; $type =~ /^(text|varchar)$/ ? "c$_" : "c$_\::$type" } 0 .. $#given)
				  . ' FROM unnest(' . join(',', @arrays) . ') AS x(' . join(',', map { "c$_" } 0 .. $#given) . ')';
				$call //= "'$target', '{$names}', " . join(',', @arrays) . ", perfopt.insert_options($options)";
			}
			elsif ($shape eq 'rows')
			{
				my $array = 'ARRAY[' . join(',', map { my $row = $_; 'ROW(' . join(',', map { quote($row->[$_]) . ($typed ? "::$given[$_]{type}" : '') } 0 .. $#given) . ($typed ? ')::given' : ')::given_text') } @$set) . ']';
				$source = 'SELECT ' . join(',', map { "(r).$_->{name}" . ($typed || $_->{type} =~ /^(text|varchar)$/ ? '' : "::$_->{type}") } @given) . " FROM unnest($array) AS r";
				$call //= "'$target', $array, $options";
			}
			else
			{
				# rand() must not choose twice how a value is written
				srand($seed * 7 + $batch);
				my $json = '[' . join(',', map { my $row = $_; '{' . join(',', map { "\"$given[$_]{name}\": " . json_value($given[$_], $row->[$_]) } 0 .. $#given) . '}' } @$set) . ']';
				$source = "SELECT $names FROM jsonb_populate_recordset(NULL::t, " . quote($json) . ')';
				$call //= "'$target', " . quote($json) . "::jsonb, $options";
			}
			push @sources, "INSERT INTO $target ($names) $source$on_conflict";
		}
		srand($seed * 11 + $batch);
		my $all = shift @sources;
		$script .= $sequences =~ s/START_HERE/$batch * 1000/ger . "\n" if grep { $_->{omit} && $_->{name} eq 'id' } @columns;
		my $plain = $skip ? 'attempt_rows(ARRAY[' . join(",\n", map { quote($_) } @sources) . '])' : 'attempt(' . quote($all) . ')';
		my $batched = $skip ? 'attempt_skip(' . quote("SELECT inserted + updated, batch FROM perfopt.batch_insert($call)") . ')'
		  : 'attempt(' . quote("SELECT inserted + updated FROM perfopt.batch_insert($call)") . ')';
		$script .= "SET search_path = plain, public; SET ROLE $role;\nSELECT $plain AS plain \\gset\n"
		  . "SET search_path = batched, public;\nSELECT $batched AS batched \\gset\nRESET ROLE;\n"
		  . "SELECT compare($seed, " . quote("batch $batch, $kind, $shape, $options, $num_rows rows") . ", :'plain', :'batched');\n";
		# numbers drawn, and the order in which triggers fire, are a statement's
		$skipped ||= $skip;
		my $omit = $skipped && grep({ $_->{omit} && $_->{name} eq 'id' } @columns) ? " - 'id'" : '';
		$script .= "SELECT compare($seed, 'contents after batch $batch', "
		  . join(', ', map { "(SELECT string_agg(x, E'\\n' ORDER BY x) FROM (SELECT (to_jsonb(t)$omit)::text AS x FROM $_.t) y)" } 'plain', 'batched') . ");\n";
		$script .= "SELECT compare($seed, 'log after batch $batch', "
		  . join(', ', map { "(SELECT string_agg(what, E'\\n' ORDER BY id) FROM $_.log)" } 'plain', 'batched') . ");\n"
		  unless $skip;
		$script .= "TRUNCATE plain.log, batched.log;\n";
	}
	return $script;
}

my $bad = 0;
for (my $done = 0; $done < $rounds; $done += 10)
{
	my $script = "SET client_min_messages = error;\n\\set ON_ERROR_STOP 1\n";
	for ($seed = $first_seed + $done; $seed < $first_seed + $done + 10; $seed++)
	{
		$script .= round_script();
	}
	my ($code, $out, $err) = $node->psql('postgres', $script);
	is($code, 0, 'seeds ' . ($first_seed + $done) . ' to ' . ($seed - 1) . ' run') or diag(substr $err, 0, 2000);
	my $report = $node->safe_psql('postgres', q(SELECT 'seed ' || seed || ', ' || what FROM report ORDER BY seed LIMIT 5; TRUNCATE report));
	is($report, '', '... to the same results') or $bad++;
	last if $bad > 3 || $code;
}
my $tally = $node->safe_psql('postgres', q(SELECT string_agg(outcome || ' ' || count, ', ' ORDER BY count DESC)
	FROM (SELECT outcome, count(*) FROM tally WHERE outcome ~ '^(ok|.{5})$' GROUP BY 1) t));
note($tally);
like($tally, qr/\b$_\b/, "rows failed with $_, too") for qw(23505 23514 23502 23503 22P02 22001 22003);
$node->stop;
done_testing();
