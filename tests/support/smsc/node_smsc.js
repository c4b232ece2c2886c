// An SMSC around the npm package "smpp", a make of its own: its codec reads what we send.
//
// node node_smsc.js '{"record": "file", …}'; the options are those of `options` below. Events are
// JSON lines on stdout (the first names the port), commands are JSON lines on stdin, and every
// submit_sm is written to the record before it is answered, so that the record survives a kill -9.
'use strict';

const fs = require('fs');
const readline = require('readline');
const smpp = require('smpp');

const options = Object.assign({
  host: '127.0.0.1',
  port: 0,
  record: '', // "": nothing is kept (for measurements)
  system_id: 'outspool',
  password: 'secret',
  receipt: 'after', // after, before (the response), held (until told), none
  receipt_form: 'text', // text, tlv, payload
  receipt_delay_ms: 0,
  receipt_window: 100,
  deliver_by: 'deliver_sm', // or data_sm: receipts and what handsets send
  ids: 'same', // same, hex_to_decimal, decimal_to_hex: the response's form to the receipt's
  undelivered_every: 0, // every n-th message is UNDELIV
  throttle_every: 0, // every n-th submit_sm is answered 0x58 and not taken
  response_delay_ms: 0,
  reorder: 0, // responses of so many submit_sm at a time, last first
  drop_after: 0, // close the connection at the n-th submit_sm, unanswered but taken
  key: '',
  cert: '',
}, JSON.parse(process.argv[2] || '{}'));

const STAT = { DELIVRD: 2, EXPIRED: 3, DELETED: 4, UNDELIV: 5 };
const THROTTLED = 0x58;
const WRONG_PASSWORD = 0x0e;
const NO_SUCH_MESSAGE = 0x67;
const TRY_LATER = 0x64;
const RETRY_MS = 500;

const taken = new Map(); // number of the message → what its receipt needs
const receivers = []; // sessions that take deliver_sm
const waiting = []; // receipts not yet sent, in order
let sent = 0;
let seen = 0;
let unanswered = 0;
let held = options.receipt === 'held';
let dropped = false;

// Octets as they came, beside what the package makes of them.
const fromBuffer = smpp.PDU.prototype.fromBuffer;
smpp.PDU.prototype.fromBuffer = function (buffer) {
  Object.defineProperty(this, 'raw', { value: buffer });
  return fromBuffer.call(this, buffer);
};

function say(event) {
  fs.writeSync(1, JSON.stringify(event) + '\n');
}

const record = options.record ? openRecord(options.record) : null;

// What an earlier life of this SMSC took and has no answer for is receipted again.
function openRecord(path) {
  if (fs.existsSync(path)) {
    const open = new Map();
    for (const line of fs.readFileSync(path, 'utf8').split('\n')) {
      if (!line.endsWith('}')) continue;
      const entry = JSON.parse(line);
      if (entry.kind === 'submit' && entry.status === 0) {
        sent = Math.max(sent, entry.number);
        seen = Math.max(seen, entry.number);
        taken.set(entry.number, entry);
        if (entry.registered_delivery & 3) open.set(entry.number, entry);
      }
      if (entry.kind === 'receipt' && entry.status === 0) open.delete(entry.number);
    }
    waiting.push(...open.values());
  }
  return fs.openSync(path, 'a');
}

function keep(entry) {
  if (record !== null) fs.writeSync(record, JSON.stringify(entry) + '\n');
}

function shownId(number, inReceipt) {
  const hex = (options.ids === 'hex_to_decimal') !== inReceipt && options.ids !== 'same';
  return hex ? number.toString(16).toUpperCase().padStart(8, '0') : String(number);
}

// --- submit_sm

function textOf(field) {
  const message = field && field.message !== undefined ? field.message : field;
  if (message === undefined || message === null) return '';
  return Buffer.isBuffer(message) ? message.toString('hex') : message;
}

function concatenation(pdu) {
  for (const element of (pdu.short_message && pdu.short_message.udh) || []) {
    if (element[0] === 0x00) return [element[2], element[3], element[4]];
    if (element[0] === 0x08) return [element.readUInt16BE(2), element[4], element[5]];
  }
  if (pdu.sar_msg_ref_num === undefined) return null;
  return [pdu.sar_msg_ref_num, pdu.sar_total_segments, pdu.sar_segment_seqnum];
}

function entryOf(pdu, number) {
  const payload = pdu.message_payload;
  return {
    kind: 'submit',
    number,
    status: 0,
    source: pdu.source_addr,
    source_ton: pdu.source_addr_ton,
    destination: pdu.destination_addr,
    esm_class: pdu.esm_class,
    data_coding: pdu.data_coding,
    registered_delivery: pdu.registered_delivery,
    reference: pdu.user_message_reference,
    part: concatenation(pdu),
    text: textOf(payload !== undefined ? payload : pdu.short_message),
    pdu: pdu.raw.toString('hex'),
  };
}

function submit(session, pdu) {
  seen += 1;
  if (options.throttle_every && seen % options.throttle_every === 0) {
    keep({ kind: 'submit', number: 0, status: THROTTLED, destination: pdu.destination_addr });
    return answer(session, pdu.response({ command_status: THROTTLED }));
  }
  sent += 1;
  const number = sent;
  if (record !== null) {
    const entry = entryOf(pdu, number);
    keep(entry);
    taken.set(number, entry);
    if (wantsReceipt(pdu.registered_delivery, number)) waiting.push(entry);
  } else if (wantsReceipt(pdu.registered_delivery, number)) {
    waiting.push({ number, source: pdu.source_addr, destination: pdu.destination_addr });
  }
  if (options.drop_after && !dropped && sent >= options.drop_after) {
    dropped = true;
    return session.destroy();
  }
  if (options.receipt === 'before') pump();
  answer(session, pdu.response({ message_id: shownId(number, false) }));
  if (options.receipt === 'after') setTimeout(pump, options.receipt_delay_ms);
}

function wantsReceipt(registered, number) {
  if (options.receipt === 'none' || !(registered & 3)) return false;
  return (registered & 3) === 1 || statOf(number) !== 'DELIVRD';
}

const late = [];
function answer(session, response) {
  if (!options.reorder && !options.response_delay_ms) return session.send(response);
  late.push(() => session.send(response));
  if (options.reorder && late.length >= options.reorder) return flush();
  setTimeout(flush, options.response_delay_ms || 20);
}

function flush() {
  const all = late.splice(0);
  if (options.reorder) all.reverse();
  for (const send of all) send();
}

// --- receipts

function statOf(number) {
  return options.undelivered_every && number % options.undelivered_every === 0
    ? 'UNDELIV' : 'DELIVRD';
}

const NOW = () => new Date().toISOString().replace(/[-:T]/g, '').slice(2, 12);

function receiptOf(entry) {
  const stat = statOf(entry.number);
  const id = shownId(entry.number, true);
  const error = stat === 'DELIVRD' ? '000' : '034';
  const body = `id:${id} sub:001 dlvrd:${stat === 'DELIVRD' ? '001' : '000'} submit date:${NOW()} `
    + `done date:${NOW()} stat:${stat} err:${error} text:`;
  const fields = {
    source_addr: entry.destination,
    source_addr_ton: 1,
    source_addr_npi: 1,
    destination_addr: entry.source,
    esm_class: 0x04,
    data_coding: 0,
  };
  if (entry.reference !== undefined) fields.user_message_reference = entry.reference;
  if (options.receipt_form === 'text') return { ...fields, short_message: body };
  if (options.receipt_form === 'payload') return { ...fields, message_payload: body };
  return {
    ...fields,
    short_message: '',
    receipted_message_id: id,
    message_state: STAT[stat],
    network_error_code: Buffer.from([3, 0, stat === 'DELIVRD' ? 0 : 34]),
  };
}

function deliver(session, fields, answered) {
  if (options.deliver_by === 'deliver_sm') return session.deliver_sm(fields, answered);
  const { short_message: text, ...others } = fields;
  return session.data_sm(text ? { ...others, message_payload: text } : others, answered);
}

let turn = 0;
function pump() {
  while (!held && waiting.length && receivers.length && unanswered < options.receipt_window) {
    const session = receivers[turn++ % receivers.length];
    const entry = waiting.shift();
    unanswered += 1;
    session.pending.add(entry);
    const out = deliver(session, receiptOf(entry), (response) => receipted(session, entry, response));
    if (!out) { // the socket is on its way out; "close" puts back what is pending
      return;
    }
  }
}

function receipted(session, entry, response) {
  if (!session.pending.delete(entry)) return;
  unanswered -= 1;
  keep({ kind: 'receipt', number: entry.number, status: response.command_status });
  if (response.command_status === TRY_LATER) {
    setTimeout(() => { waiting.push(entry); pump(); }, RETRY_MS);
  }
  pump();
}

function query(session, pdu) {
  const number = parseInt(pdu.message_id, options.ids === 'hex_to_decimal' ? 16 : 10);
  if (!taken.has(number)) {
    return session.send(pdu.response({ command_status: NO_SUCH_MESSAGE }));
  }
  return session.send(pdu.response({
    message_id: pdu.message_id,
    final_date: '',
    message_state: STAT[statOf(number)],
    error_code: 0,
  }));
}

// --- sessions

function bound(session, command) {
  return (pdu) => {
    const known = pdu.system_id === options.system_id && pdu.password === options.password;
    say({ event: 'bind', command, taken: known });
    if (!known) {
      return session.send(pdu.response({ command_status: WRONG_PASSWORD }), () => session.close());
    }
    session.send(pdu.response({ system_id: 'node' }));
    if (command !== 'bind_transmitter') {
      receivers.push(session);
      pump();
    }
  };
}

function gone(session) {
  const index = receivers.indexOf(session);
  if (index >= 0) receivers.splice(index, 1);
  unanswered -= session.pending.size;
  waiting.unshift(...session.pending);
  session.pending.clear();
  say({ event: 'gone' });
  pump();
}

const sessions = new Set();
const secure = options.key ? { key: fs.readFileSync(options.key), cert: fs.readFileSync(options.cert) } : {};
const server = smpp.createServer(secure, (session) => {
  sessions.add(session);
  session.pending = new Set();
  for (const command of ['bind_transceiver', 'bind_receiver', 'bind_transmitter']) {
    session.on(command, bound(session, command));
  }
  session.on('submit_sm', (pdu) => submit(session, pdu));
  session.on('query_sm', (pdu) => query(session, pdu));
  session.on('enquire_link', (pdu) => session.send(pdu.response()));
  session.on('unbind', (pdu) => session.send(pdu.response(), () => session.close()));
  session.on('unknown', (pdu) => session.send(pdu.response()));
  session.on('error', (error) => { say({ event: 'error', text: String(error) }); session.destroy(); });
  session.on('close', () => { sessions.delete(session); gone(session); });
});

// --- commands

function textIn(session, command) {
  const { tag, source, destination, text, fields } = command;
  const pdu = {
    source_addr: source,
    source_addr_ton: 1,
    source_addr_npi: 1,
    destination_addr: destination,
    // The package picks the alphabet, and calls GSM "ASCII" (1), which is another one: it is 0.
    data_coding: smpp.encodings.detect(text) === 'ASCII' ? 0 : null,
    short_message: text,
    ...fields,
  };
  deliver(session, pdu, (response) => say({ event: 'answered', tag, status: response.command_status }));
}

const commands = {
  mo: (command) => (receivers.length
    ? textIn(receivers[0], command)
    : say({ event: 'answered', tag: command.tag, status: -1 })),
  release: () => { held = false; pump(); },
  unbind: () => { for (const session of sessions) session.unbind(); },
  drop: () => { for (const session of sessions) session.destroy(); },
  set: (command) => Object.assign(options, command.options),
};

readline.createInterface({ input: process.stdin })
  .on('line', (line) => { const command = JSON.parse(line); commands[command.do](command); })
  .on('close', () => process.exit(0)); // whoever started us is gone

server.listen(options.port, options.host, () => say({ event: 'listening', port: server.address().port }));
