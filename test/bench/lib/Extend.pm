# A rival of the advisor: Extend with HypoPG's hypothetical indexes.
#
# An own short implementation of the published algorithm (Schlosser, Kossmann,
# Boissier: Efficient Scalable Multi-attribute Index Selection Using Recursive
# Strategies, ICDE 2019), as the public evaluation of index selection
# algorithms runs it: columns are candidates where their name occurs in a
# query's text, a step must lower the cost by 0.3 %, the budget is met in
# HypoPG's bytes.  The order of the steps and the costs are the same as there.
package Extend;
use strict;
use warnings;
use Exporter 'import';
our @EXPORT_OK = qw(extend);

my $least_improvement = 1.003;

# extend(DB, { name => query }, [[table, column], ...], BUDGET, WIDTH)
# An index is the text "table (column, ...)".  Returns
# { indexes => [...], bytes, cost, plannings }, sizes and costs as HypoPG has them.
sub extend
{
	my ($db, $queries, $columns, $budget, $width) = @_;
	my (%hypothetical, %bytes, %cached, $plannings);
	my (%relevant, %names_of);
	for my $column (@$columns)
	{
		$relevant{$_}{"@$column"} = 1 for grep { index($queries->{$_}, $column->[1]) >= 0 } keys %$queries;
	}
	my @candidates = map { [@$_] } sort { $a->[1] cmp $b->[1] } grep { my $c = "@$_"; grep { $relevant{$_}{$c} } keys %$queries } @$columns;

	my $text = sub { my ($table, @c) = @{ $_[0] }; return "$table (" . join(', ', @c) . ')'; };
	my $cost_of = sub {
		my (@set) = @_;
		my %wanted = map { $text->($_) => $_ } @set;
		for my $gone (grep { !$wanted{$_} } keys %hypothetical)
		{
			$db->do('SELECT hypopg_drop_index(?)', undef, delete $hypothetical{$gone});
		}
		for my $new (grep { !$hypothetical{$_} } keys %wanted)
		{
			$hypothetical{$new} = $db->selectrow_array('SELECT indexrelid FROM hypopg_create_index(?)', undef, "CREATE INDEX ON $new");
			$bytes{$new} //= $db->selectrow_array('SELECT hypopg_relation_size(?)', undef, $hypothetical{$new});
		}
		my $sum = 0;
		for my $query (keys %$queries)
		{
			my $matters = join ';', sort map { $text->($_) } grep { my ($t, @c) = @$_; grep { $relevant{$query}{"$t $_"} } @c } @set;
			$cached{$query}{$matters} //= do {
				$plannings++;
				$db->selectrow_array("EXPLAIN (FORMAT JSON) $queries->{$query}") =~ /"Total Cost": ([\d.]+)/ or die "no cost of $query";
				$1;
			};
			$sum += $cached{$query}{$matters};
		}
		return $sum;
	};
	my $size_of = sub { my $sum = 0; $sum += $bytes{ $text->($_) } for @_; return $sum; };

	my @chosen;
	my $cost = $cost_of->();
	my $initial = $cost;
	while (1)
	{
		my ($best, $best_ratio, $best_cost) = (undef, 0);
		my $size = $size_of->(@chosen);
		my $consider = sub {
			my ($old, @set) = @_;
			my $new_cost = $cost_of->(@set);
			return if $new_cost * $least_improvement >= $cost;
			my $ratio = ($cost - $new_cost) / ($bytes{ $text->($set[-1]) } - ($old ? $bytes{ $text->($old) } : 0));
			($best, $best_ratio, $best_cost) = ([@set], $ratio, $new_cost) if $ratio > $best_ratio && $size_of->(@set) <= $budget;
		};
		@candidates = grep { !defined $bytes{ $text->($_) } || $bytes{ $text->($_) } + $size <= $budget } @candidates;
		my %is_chosen = map { $text->($_) => 1 } @chosen;
		$consider->(undef, @chosen, $_) for grep { !$is_chosen{ $text->($_) } } @candidates;
		for my $column (grep { my $c = "@$_"; grep { $relevant{$_}{$c} } keys %$queries } sort { $a->[1] cmp $b->[1] } @$columns)
		{
			for my $i (0 .. $#chosen)
			{
				my ($table, @keys) = @{ $chosen[$i] };
				next if @keys >= $width || $table ne $column->[0] || grep { $_ eq $column->[1] } @keys;
				my $longer = [ $table, @keys, $column->[1] ];
				next if $is_chosen{ $text->($longer) };
				$consider->($chosen[$i], @chosen[ grep { $_ != $i } 0 .. $#chosen ], $longer);
			}
		}
		last unless $best;
		@chosen = @$best;
		$cost = $best_cost;
	}
	$db->do('SELECT hypopg_reset()');
	return { indexes => [ map { $text->($_) } @chosen ], bytes => $size_of->(@chosen), cost => $cost, initial => $initial, plannings => $plannings };
}

1;
