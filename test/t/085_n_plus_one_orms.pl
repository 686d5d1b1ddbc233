# N+1 loops of ORMs are found where relations are loaded one by one, and
# nothing is reported where they are loaded eagerly, nor of what the ORM itself
# asks the catalogs.  Sequelize, TypeORM, SQLAlchemy, Django.
use strict;
use warnings;
use Clients;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('orms');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
# a busy machine may be silent for longer than the default of half a second
$node->append_conf('postgresql.conf', "autovacuum = off\nperfopt.n_plus_one_max_gap = '10s'\n");
$node->start;

# Users in pairs have a country, two orders in a row have one user, but all of
# those of user 200 are the last ones.  Tables of the catalog case are there
# to make it long.
$node->safe_psql('postgres', q{
	CREATE EXTENSION perfopt CASCADE;
	CREATE ROLE shop LOGIN;
	CREATE TABLE countries (id serial PRIMARY KEY, name text NOT NULL);
	CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, country_id int NOT NULL REFERENCES countries);
	CREATE TABLE orders (id serial PRIMARY KEY, user_id int NOT NULL REFERENCES users, total_cents int NOT NULL);
	CREATE INDEX ON orders (user_id);
	CREATE TABLE events (id bigserial PRIMARY KEY, note text);
	INSERT INTO countries (name) SELECT 'country ' || i FROM generate_series(1, 100) i;
	INSERT INTO users (name, country_id) SELECT 'user ' || i, 1 + (i - 1) / 2 FROM generate_series(1, 200) i;
	INSERT INTO orders (user_id, total_cents) SELECT 1 + (i - 1) / 2, i FROM generate_series(1, 398) i;
	INSERT INTO orders (user_id, total_cents) SELECT 200, i FROM generate_series(1, 30) i;
	DO $$ BEGIN
		FOR i IN 1 .. 20 LOOP
			EXECUTE format('CREATE TABLE extra_%s (id int PRIMARY KEY, user_id int REFERENCES users, tags text[])', i);
		END LOOP;
	END $$;
	GRANT ALL ON ALL TABLES IN SCHEMA public TO shop;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO shop;
	VACUUM ANALYZE});

# What is to be found: for each repeated query its table, loops and runs.
my %expected = (
	lazy_many => [ 'n_plus_one orders 3 75' ],
	lazy_one => [ 'n_plus_one users 1 40' ],
	lazy_two => [ 'n_plus_one countries 1 40', 'n_plus_one orders 1 40' ],
	lazy_count => [ 'n_plus_one orders 3 75' ],
	lazy_paging => [ 'n_plus_one orders 5 100' ],
	one_parent => [ 'cacheable_query users 1 30' ],
	single_inserts => [ 'batchable_inserts events 1 30' ],
	commit_each => [ 'batchable_inserts events 1 30' ],
	(map { $_ => [] } qw(eager_join eager_in eager_one grouped_count catalog bulk_inserts)),
	# all is well with the users and their orders, but their number is asked for with each page
	eager_paging => [ 'cacheable_query users 1 15' ]);
my @cases = qw(lazy_many lazy_one lazy_two lazy_count lazy_paging one_parent single_inserts commit_each
  eager_join eager_in eager_one grouped_count eager_paging catalog bulk_inserts);

# An identity map asks once for each distinct parent
my %sqlalchemy = (
	lazy_one => [ 'n_plus_one users 1 20' ],
	lazy_two => [ 'n_plus_one countries 1 20', 'n_plus_one orders 1 40' ],
	one_parent => [],
	also => [qw(eager_subquery eager_both)]);
# The first page has no OFFSET and is another query than the others
my %django = (
	lazy_many => [ 'n_plus_one orders 1 25', 'n_plus_one orders 2 50' ],
	lazy_count => [ 'n_plus_one orders 1 25', 'n_plus_one orders 2 50' ],
	lazy_paging => [ 'n_plus_one orders 1 20', 'n_plus_one orders 4 80' ]);
# A parent is asked for by its child's key
my %typeorm = (one_parent => [ 'n_plus_one users 1 30' ]);
my %source = map { $_ => qr/\borders\b/ } qw(lazy_one one_parent);
my @table;

sub case
{
	my ($do, $orm, $name, @expected) = @_;
	my $application = "$orm $name";
	$node->safe_psql('postgres', 'SELECT perfopt.reset_n_plus_one()');
	$do->(name => $name, application_name => $application);
	gone($node, $application);

	my @rows = found($node, $application);
	# the table of the repeated query is the one after FROM or INTO
	my @found = sort map {
		my ($table) = ($_->{query} // '') =~ /\b(?:FROM|INTO)\s+(?:"?public"?\.)?"?(\w+)/i;
		"$_->{kind} " . ($table // '?') . " $_->{loops} $_->{runs}" } @rows;
	push @table, sprintf '%-12s %-16s %s', $orm, $name, join('; ', @found) || '-';
	is(join("\n", @found), join("\n", sort @expected), "$orm, $name");
	for my $row (grep { $_->{kind} eq 'n_plus_one' } @rows)
	{
		like($row->{source_query} // '', $source{$name} || qr/\busers\b/, "$orm, $name: where its keys are from");
		is($row->{role}, 'shop', "$orm, $name: its role");
	}
}

sub all_cases
{
	my ($do, $orm, %of_its_own) = @_;
	case($do, $orm, $_, @{ $of_its_own{$_} || $expected{$_} }) for @cases;
	case($do, $orm, $_) for @{ $of_its_own{also} || [] };
	ok($do->(), "$orm ends");
}

all_cases(start_client($node, python('orm_sqlalchemy.py')), 'SQLAlchemy', %sqlalchemy);
all_cases(start_client($node, python('orm_django.py')), 'Django', %django);
SKIP:
{
	my $missing = missing_node();
	skip "no npm packages: $missing", 2 if $missing;
	all_cases(start_client($node, node('orm_sequelize.js')), 'Sequelize');
	all_cases(start_client($node, node('orm_typeorm.js')), 'TypeORM', %typeorm);
}

note join "\n", 'ORM          case             what, table of the repeated query, loops, runs', @table;
$node->stop;
done_testing;
