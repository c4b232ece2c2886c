#!/usr/bin/perl
# A client around Debian's Net::SMPP: sms_client.pl HOST PORT WINDOW SECONDS.
use strict;
use warnings;

use Net::SMPP;
use Time::HiRes qw(time);

my ($host, $port, $window, $seconds) = @ARGV;
my $smpp = Net::SMPP->new_transceiver(
    $host, port => $port, system_id => 'outspool', password => 'secret',
    source_addr => '4930', source_addr_ton => 1, source_addr_npi => 1,
    dest_addr_ton => 1, dest_addr_npi => 1,
) or die "cannot bind: $!";

my ($sent, $unanswered, $begun) = (0, 0, time);
while (1) {
    while ($unanswered < $window && time - $begun < $seconds) {
        $sent += 1;
        $unanswered += 1;
        $smpp->submit_sm(
            async => 1,
            destination_addr => '4917' . (10000000 + $sent),
            short_message => 'Your table for two is booked for tonight at eight.',
        );
    }
    last unless $unanswered;
    $smpp->read_pdu or die 'the SMSC hung up';
    $unanswered -= 1;
}
printf qq({"sent": %d, "seconds": %.6f}\n), $sent, time - $begun;
