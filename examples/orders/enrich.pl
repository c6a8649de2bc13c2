# Orders in, priced orders out: "partition TAB offset TAB order" -> "partition TAB offset TAB topic TAB record".
use strict;
use warnings;
$| = 1;    # line by line: what waits in a buffer waits for the next order

# ZZ is where the harness's warm-up orders come from.
my %region = (
    US => 'AMER', MX => 'AMER', BR => 'AMER', GB => 'EMEA', DE => 'EMEA', IN => 'APAC', JP => 'APAC', ZZ => 'TEST',
);

while (my $line = <STDIN>) {
    chomp $line;
    my ($place, $order) = $line =~ /^(\d+\t\d+)\t(.*)$/ or die "a line without its place: $line\n";
    my ($id, $placed, $country, $channel, $via, $item, $seller, $buyer, $units, $cents) = $order =~ /^
        ([0-9a-f-]+) ; (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ; ([A-Z]{2}) ; ([a-z]+) ; ([a-z_]+) ;
        (\d+) ; (\d+) ; (\d+) ; (\d+) \. (\d\d) $/x;
    if (defined $cents && $region{$country}) {
        my $total = $units * 100 + $cents;
        print qq($place\tpriced\t{"order":{"id":"$id","placed":"$placed","via":"$via","item":$item,"seller":$seller,),
            qq("buyer":$buyer},"shop":{"country":"$country","region":"$region{$country}","channel":"$channel"},),
            qq("cents":$total}\n);
    } else {
        print "$place\trefused\t$order\n";
    }
}
