# Values.pm: parameters for the statements of the applications, and the words their texts are made of
package Apps::Values;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(below skewed pick instant day list literals word phrases_sql);

my @syllables = qw(ba co di fu ga he ki lo mi na pe qua ro su ti vo wa xe yo zu);

# 1 .. N, all alike
sub below { return 1 + int rand shift }

# 1 .. N, the low ones most often: as the data were made
sub skewed
{
	my ($n, $power) = @_;
	return 1 + int($n * rand()**($power // 3));
}

sub pick { return $_[ rand @_ ] }

# A moment that many days before 2026-01-01, give or take a day
sub instant
{
	my ($days_before) = @_;
	my @t = gmtime(1767225600 - int(86400 * ($days_before + rand)));
	return sprintf '%04d-%02d-%02d %02d:%02d:%02d', $t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ];
}

sub day { return substr instant(@_), 0, 10 }

# An array literal of COUNT values, each by a call
sub list
{
	my ($count, $value) = @_;
	return '{' . join(',', map { $value->() } 1 .. $count) . '}';
}

# $FROM, $FROM+1, ...: what an ORM writes for a list
sub literals
{
	my ($count, $from) = @_;
	return join ', ', map { '$' . $_ } $from .. $from + $count - 1;
}

# The word of rank N, as phrases_sql() makes it
sub word
{
	my ($n) = @_;
	return $syllables[ int($n / 400) % 20 ] . $syllables[ int($n / 20) % 20 ] . $syllables[ $n % 20 ];
}

# 4,000 phrases of COUNT words in a temporary table (n, text); words of a low rank are frequent
sub phrases_sql
{
	my ($count) = @_;
	my $list = "'{" . join(',', @syllables) . "}'::text[]";
	return <<"SQL";
CREATE TEMP TABLE phrases AS
SELECT n, string_agg(s[1 + w / 400 % 20] || s[1 + w / 20 % 20] || s[1 + w % 20], ' ') AS text
FROM (SELECT n, floor(8000 * random() ^ 2)::int AS w
      FROM generate_series(1, 4000) AS n, generate_series(1, $count)) AS picked, (SELECT $list AS s) AS syllables
GROUP BY n;
CREATE UNIQUE INDEX ON phrases (n);
ANALYZE phrases;
SQL
}

1;
