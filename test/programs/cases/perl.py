"""perl: hashes, regular expressions, sorting, long strings and fork."""
SECONDS = 60
SCRIPT = r'''
use strict; use warnings;
my %words; my $seed = 12345;
sub next_number { $seed = ($seed * 1103515245 + 12345) % 2147483648; return $seed; }
for my $i (1 .. 200000) { my $n = next_number() % 50000; $words{"word$n"}{$i % 10} .= "x$i,"; }
my @sorted = sort { length($words{$b}{1} // '') <=> length($words{$a}{1} // '') || $a cmp $b }
    keys %words;
print scalar(@sorted), " $sorted[0] $sorted[-1]\n";
my $text = join ' ', map { "$_=" . join('', values %{$words{$_}}) } grep { /7$/ } sort keys %words;
$text =~ s/[^x,]//g;
print length($text), ' ', ($text =~ tr/x//), "\n";
my $long = ''; for my $i (1 .. 3000) { $long .= chr(65 + $i % 26) x $i; }
my $count = () = $long =~ /(?:AB+C|XY+Z)/g;
printf "%d %d %s\n", length $long, $count, substr(unpack('H*', $long), 1000, 40);
delete @words{ grep { /3$/ } keys %words };
my $pid = fork();
if (!$pid) { my @list = map { [ ($_) x 20 ] } 1 .. 20000; exit(scalar(@list) == 20000 ? 7 : 1); }
waitpid $pid, 0;
print $? >> 8, "\n";
local $| = 1; my @matrix = map { [ map { $_ * 2 } 1 .. 300 ] } 1 .. 300;
my $sum = 0; for my $row (@matrix) { $sum += $_ for @$row; } print "$sum\n";
'''


def check(box):
    perl = box.need("perl", "perl")
    box.both_commands([[perl, "-e", SCRIPT]], names=["perl"], env={"PERL_HASH_SEED": "0"})
