# What Perl programs do all day, in one script: hashes, strings, regular expressions, sorting.
#
# usage: words.pl SCALE
# Prints one line with a checksum of everything it made, the same for every run of the same scale.
use strict;
use warnings;

my $scale = shift or die "usage: words.pl SCALE\n";
my $state = 1;
my $sum = 0;

sub below {
    $state = ($state * 1103515245 + 12345) % 2147483648;
    return int($state / 65536) % $_[0];
}

sub note {
    my ($text) = @_;
    $sum = ($sum * 31 + unpack("%32C*", $text) + length $text) % 4294967296;
}

for my $round (1 .. $scale) {
    # words to a page, the page to counts
    my @words = map { join '', map { chr(97 + below(26)) } 1 .. 2 + below(9) } 1 .. 8000;
    my $page = '';
    for my $word (@words) {
        $page .= $word . (below(12) ? ' ' : "\n");
    }
    my %count;
    $count{$_}++ for split ' ', $page;
    for my $word (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count) {
        note("$word=$count{$word}");
    }

    # records of nested structures, half of them thrown away
    my @records;
    for my $i (0 .. 3000) {
        push @records, { id => $i, name => "name$i", list => [ map { below(1000) } 1 .. below(20) ],
                         text => 'y' x below(1500) };
    }
    @records = grep { $_->{id} % 2 } @records;
    note(join ',', $_->{name}, @{ $_->{list} }, length $_->{text}) for @records;

    # lines changed by regular expressions
    my $changed = 0;
    for my $line (split /\n/, $page) {
        $changed += $line =~ s/([aeiou])([^aeiou\s])/$2$1/g;
        note(join '-', reverse split / /, $line);
    }
    note($changed);

    # a string that grows to some megabytes
    my $long = '';
    $long .= "$_:" . below(100000) . ';' for 1 .. 30000;
    note($long);
}
printf "ok words %08x\n", $sum;
