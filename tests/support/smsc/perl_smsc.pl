#!/usr/bin/perl
# An SMSC around Debian's Net::SMPP, a second make: Net::SMPP reads the PDUs, Encode the alphabets.
#
# perl_smsc.pl '{"record": "file", …}' speaks the lines of node_smsc.js: events on stdout, commands
# on stdin, every submit_sm in the record before it is answered. It can do less: see %options.
use strict;
use warnings;

use Encode ();
use IO::Select;
use JSON::PP;
use Net::SMPP;
use Socket qw(IPPROTO_TCP TCP_NODELAY);

my %options = (
    host => '127.0.0.1',
    port => 0,
    record => '',    # "": nothing is kept (for measurements)
    system_id => 'outspool',
    password => 'secret',
    receipt => 'after',    # after, none
    receipt_window => 100,
    undelivered_every => 0,
    %{ decode_json($ARGV[0] // '{}') },
);

my %STATE = (DELIVRD => 2, UNDELIV => 5);
use constant {
    WRONG_PASSWORD => 0x0e,
    NO_SUCH_MESSAGE => 0x67,
    TRY_LATER => 0x64,
    INVALID_COMMAND => 0x03,
    RECEIPT => 0x04,
    UDHI => 0x40,
};

my $json = JSON::PP->new->utf8->canonical;
my ($sent, $unanswered) = (0, 0);
my (%taken, @waiting, %session);
my $record;

sub say_event {
    syswrite STDOUT, $json->encode({@_}) . "\n";
}

sub keep {
    syswrite $record, $json->encode({@_}) . "\n" if $record;
}

# What an earlier life of this SMSC took and has no answer for is receipted again.
sub open_record {
    my ($path) = @_;
    my %open;
    if (-e $path) {
        open my $old, '<', $path or die "$path: $!";
        while (my $line = <$old>) {
            next unless $line =~ /\}\n\z/;
            my $entry = $json->decode($line);
            if ($entry->{kind} eq 'submit') {
                $sent = $entry->{number} if $entry->{number} > $sent;
                $taken{ $entry->{number} } = 1;
                $open{ $entry->{number} } = $entry if $entry->{registered_delivery} & 3;
            }
            delete $open{ $entry->{number} } if $entry->{kind} eq 'receipt' && $entry->{status} == 0;
        }
    }
    push @waiting, map { $open{$_} } sort { $a <=> $b } keys %open;
    open $record, '>>', $path or die "$path: $!";
}

# --- submit_sm

sub text_of {
    my ($coding, $octets) = @_;
    return Encode::decode('gsm0338', $octets) if $coding == 0 || $coding == 1;
    return Encode::decode('iso-8859-1', $octets) if $coding == 3;
    return Encode::decode('UTF-16BE', $octets) if $coding == 8;
    return unpack 'H*', $octets;
}

sub user_data {
    my ($pdu) = @_;
    my $octets = $pdu->{short_message};
    my $payload = $pdu->{message_payload};
    $octets = $payload if defined $payload && length $payload;
    return (undef, $octets) unless $pdu->{esm_class} & UDHI;
    my ($header, $rest) = unpack 'C/a a*', $octets;
    while (length $header) {
        (my $tag, my $element, $header) = unpack 'C C/a a*', $header;
        return ([unpack 'CCC', $element], $rest) if $tag == 0x00;
        return ([unpack 'nCC', $element], $rest) if $tag == 0x08;
    }
    return (undef, $rest);
}

sub number_of {
    my ($pdu, $name, $format) = @_;
    return defined $pdu->{$name} ? unpack $format, $pdu->{$name} : undef;
}

sub entry_of {
    my ($pdu, $number) = @_;
    my ($part, $octets) = user_data($pdu);
    my $sar = number_of($pdu, 'sar_msg_ref_num', 'n');
    $part = [
        $sar, number_of($pdu, 'sar_total_segments', 'C'), number_of($pdu, 'sar_segment_seqnum', 'C')
    ] if defined $sar;
    return {
        kind => 'submit',
        number => $number,
        status => 0,
        source => $pdu->{source_addr},
        source_ton => $pdu->{source_addr_ton},
        destination => $pdu->{destination_addr},
        esm_class => $pdu->{esm_class},
        data_coding => $pdu->{data_coding},
        registered_delivery => $pdu->{registered_delivery},
        reference => number_of($pdu, 'user_message_reference', 'n'),
        part => $part,
        text => text_of($pdu->{data_coding} & 0x0f, $octets),
    };
}

sub submit {
    my ($session, $pdu) = @_;
    $sent += 1;
    my $entry = $record ? entry_of($pdu, $sent) : {
        number => $sent, source => $pdu->{source_addr}, destination => $pdu->{destination_addr},
    };
    keep(%$entry);
    $taken{$sent} = 1;
    $session->submit_sm_resp(seq => $pdu->{seq}, message_id => "$sent");
    my $wanted = $pdu->{registered_delivery} & 3;
    $wanted = 0 if $wanted == 2 && stat_of($sent) eq 'DELIVRD';
    push @waiting, $entry if $wanted && $options{receipt} ne 'none';
}

sub query {
    my ($session, $pdu) = @_;
    my $known = $taken{ $pdu->{message_id} };
    $session->query_sm_resp(
        seq => $pdu->{seq},
        status => $known ? 0 : NO_SUCH_MESSAGE,
        message_id => $pdu->{message_id},
        message_state => $known ? $STATE{ stat_of($pdu->{message_id}) } : 7,
    );
}

# --- receipts

sub stat_of {
    my ($number) = @_;
    my $every = $options{undelivered_every};
    return $every && $number % $every == 0 ? 'UNDELIV' : 'DELIVRD';
}

sub receipt {
    my ($session, $entry) = @_;
    my $stat = stat_of($entry->{number});
    my ($sec, $min, $hour, $day, $month, $year) = gmtime;
    my $now = sprintf '%02d%02d%02d%02d%02d', $year % 100, $month + 1, $day, $hour, $min;
    my $sequence = $session->deliver_sm(
        async => 1,
        source_addr => $entry->{destination},
        source_addr_ton => 1,
        source_addr_npi => 1,
        destination_addr => $entry->{source},
        esm_class => RECEIPT,
        short_message => sprintf(
            'id:%010d sub:001 dlvrd:%03d submit date:%s done date:%s stat:%s err:%s text:',
            $entry->{number}, $stat eq 'DELIVRD' ? 1 : 0, $now, $now, $stat,
            $stat eq 'DELIVRD' ? '000' : '034',
        ),
        receipted_message_id => "$entry->{number}\0",
        message_state => pack('C', $STATE{$stat}),
    );
    $session{$session}{pending}{$sequence} = $entry;
    $unanswered += 1;
}

sub pump {
    my ($receiver) = grep { $_->{receives} } values %session;
    return unless $receiver;
    while (@waiting && $unanswered < $options{receipt_window}) {
        receipt($receiver->{handle}, shift @waiting);
    }
}

sub delivered {
    my ($session, $pdu) = @_;
    my $entry = delete $session{$session}{pending}{ $pdu->{seq} };
    return unless $entry;
    return say_event(event => 'answered', tag => $entry->{tag}, status => $pdu->{status})
        if exists $entry->{tag};
    $unanswered -= 1;
    keep(kind => 'receipt', number => $entry->{number}, status => $pdu->{status});
    push @waiting, $entry if $pdu->{status} == TRY_LATER;
}

# --- sessions

sub bound {
    my ($session, $pdu, $respond, $receives) = @_;
    my $known = $pdu->{system_id} eq $options{system_id} && $pdu->{password} eq $options{password};
    say_event(event => 'bind', taken => $known ? JSON::PP::true : JSON::PP::false);
    $session->$respond(
        seq => $pdu->{seq}, status => $known ? 0 : WRONG_PASSWORD, system_id => 'perl',
    );
    return gone($session) unless $known;
    $session{$session}{receives} = $receives;
}

my $select = IO::Select->new;

sub gone {
    my ($session) = @_;
    my $left = delete $session{$session} or return;
    my @again = grep { !exists $_->{tag} } values %{ $left->{pending} };
    $unanswered -= @again;
    unshift @waiting, @again;
    $select->remove($session);
    close $session;
    say_event(event => 'gone');
}

my %on = (
    Net::SMPP::CMD_bind_transceiver() => sub { bound(@_, 'bind_transceiver_resp', 1) },
    Net::SMPP::CMD_bind_receiver() => sub { bound(@_, 'bind_receiver_resp', 1) },
    Net::SMPP::CMD_bind_transmitter() => sub { bound(@_, 'bind_transmitter_resp', 0) },
    Net::SMPP::CMD_submit_sm() => \&submit,
    Net::SMPP::CMD_query_sm() => \&query,
    Net::SMPP::CMD_deliver_sm_resp() => \&delivered,
    Net::SMPP::CMD_enquire_link() => sub { $_[0]->enquire_link_resp(seq => $_[1]{seq}) },
    Net::SMPP::CMD_enquire_link_resp() => sub { },
    Net::SMPP::CMD_unbind() => sub { $_[0]->unbind_resp(seq => $_[1]{seq}); gone($_[0]) },
    Net::SMPP::CMD_unbind_resp() => sub { gone($_[0]) },
);

sub serve {
    my ($session) = @_;
    my $pdu = $session->read_pdu or return gone($session);
    my $handler = $on{ $pdu->{cmd} }
        // sub { $_[0]->generic_nack(seq => $_[1]{seq}, status => INVALID_COMMAND) };
    $handler->($session, $pdu);
}

# --- commands

sub text_in {
    my ($command) = @_;
    my ($receiver) = grep { $_->{receives} } values %session;
    return say_event(event => 'answered', tag => $command->{tag}, status => -1) unless $receiver;
    my $sequence = $receiver->{handle}->deliver_sm(
        async => 1,
        source_addr => $command->{source},
        source_addr_ton => 1,
        source_addr_npi => 1,
        destination_addr => $command->{destination},
        short_message => Encode::encode('gsm0338', $command->{text}),
    );
    $receiver->{pending}{$sequence} = { tag => $command->{tag} };
}

my %do = (
    mo => \&text_in,
    unbind => sub { $_->{handle}->unbind(async => 1) for values %session },
    drop => sub { gone($_->{handle}) for values %session },
    set => sub { %options = (%options, %{ $_[0]{options} }) },
);

# --- the loop

$SIG{PIPE} = 'IGNORE';
$SIG{__WARN__} = sub { print STDERR @_ unless $_[0] =~ /^premature eof/ };
open_record($options{record}) if $options{record};
my $listener = Net::SMPP->new_listen($options{host}, port => $options{port}) or die "listen: $!";
$select->add($listener, \*STDIN);
say_event(event => 'listening', port => $listener->sockport);

while (1) {
    for my $ready ($select->can_read) {
        if ($ready == $listener) {
            my $session = $listener->accept or next;
            setsockopt $session, IPPROTO_TCP, TCP_NODELAY, 1;
            $session{$session} = { handle => $session, receives => 0, pending => {} };
            $select->add($session);
        } elsif ($ready == \*STDIN) {
            my $line = <STDIN> // exit 0;    # whoever started us is gone
            my $command = $json->decode($line);
            $do{ $command->{do} }->($command);
        } elsif ($session{$ready}) {
            serve($ready);
        }
    }
    pump();
}
