// A client around the npm package "smpp": node sms_client.js HOST PORT WINDOW SECONDS
// (NODE_PATH says where the package is).
'use strict';

const smpp = require('smpp');

const [host, port, window, seconds] = process.argv.slice(2);

const session = smpp.connect({ host, port: Number(port) });
let sent = 0;
let unanswered = 0;
let begun = 0n;
let until = 0n;

function fill() {
  while (unanswered < Number(window) && process.hrtime.bigint() < until) {
    unanswered += 1;
    sent += 1;
    session.submit_sm({
      source_addr: '4930', source_addr_ton: 1, source_addr_npi: 1,
      dest_addr_ton: 1, dest_addr_npi: 1, destination_addr: '4917' + (10000000 + sent),
      short_message: 'Your table for two is booked for tonight at eight.',
    }, answered);
  }
}

function answered() {
  unanswered -= 1;
  fill();
  if (unanswered === 0) {
    const spent = Number(process.hrtime.bigint() - begun) / 1e9;
    console.log(JSON.stringify({ sent, seconds: spent }));
    process.exit(0);
  }
}

session.on('connect', () => session.bind_transceiver({ system_id: 'outspool', password: 'secret' }, () => {
  begun = process.hrtime.bigint();
  until = begun + BigInt(Math.round(Number(seconds) * 1e9));
  fill();
}));
