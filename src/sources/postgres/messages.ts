/** Messages of the wire protocol 3.0 (PostgreSQL documentation, "Message Formats"): writing and reading them. */
import { HoldfastError } from '../../core/errors.ts';

/** Type bytes of the server's messages. */
export const serverMessage = {
  authentication: 0x52,
  backendKeyData: 0x4b,
  parameterStatus: 0x53,
  notice: 0x4e,
  notification: 0x41,
  error: 0x45,
  readyForQuery: 0x5a,
  rowDescription: 0x54,
  dataRow: 0x44,
  commandComplete: 0x43,
  emptyQuery: 0x49,
  copyIn: 0x47,
  copyOut: 0x48,
  copyBoth: 0x57,
  copyData: 0x64,
  copyDone: 0x63,
  negotiateProtocol: 0x76,
} as const;

export function protocolError(problem: string): HoldfastError {
  return new HoldfastError(
    'postgres.protocol',
    `The other side does not speak the PostgreSQL protocol: ${problem}.`,
  );
}

/** Reads one message's body; throws `postgres.protocol` rather than read beyond it. */
export class BodyReader {
  readonly #body: Buffer;
  #offset = 0;

  constructor(body: Buffer) {
    this.#body = body;
  }

  get left(): number {
    return this.#body.length - this.#offset;
  }

  byte(): number {
    return this.#body[this.#advance(1)]!;
  }

  int16(): number {
    return this.#body.readInt16BE(this.#advance(2));
  }

  int32(): number {
    return this.#body.readInt32BE(this.#advance(4));
  }

  /** A view. */
  bytes(count: number): Buffer {
    const start = this.#advance(count);
    return this.#body.subarray(start, start + count);
  }

  /** Text up to the next zero byte. */
  text(): string {
    const end = this.#body.indexOf(0, this.#offset);
    if (end === -1) throw protocolError('a text in a message has no end');
    const text = this.#body.toString('utf8', this.#offset, end);
    this.#offset = end + 1;
    return text;
  }

  #advance(count: number): number {
    const start = this.#offset;
    if (count < 0 || count > this.#body.length - start)
      throw protocolError('a message is shorter than its contents');
    this.#offset = start + count;
    return start;
  }
}

/** Names of the columns of a RowDescription. */
export function readColumns(body: Buffer): string[] {
  const reader = new BodyReader(body);
  const columns: string[] = [];
  for (let count = reader.int16(); count > 0; count--) {
    columns.push(reader.text());
    reader.bytes(18);
  }
  return columns;
}

/** The values of a DataRow, as views; null for NULL. */
export function readRow(body: Buffer): (Buffer | null)[] {
  const reader = new BodyReader(body);
  const values: (Buffer | null)[] = [];
  for (let count = reader.int16(); count > 0; count--) {
    const length = reader.int32();
    values.push(length === -1 ? null : reader.bytes(length));
  }
  return values;
}

/** Fields of ErrorResponse and NoticeResponse by their letter: C is the SQLSTATE, M the message, V the severity. */
export function readFields(body: Buffer): ReadonlyMap<string, string> {
  const reader = new BodyReader(body);
  const fields = new Map<string, string>();
  for (let letter = reader.byte(); letter !== 0; letter = reader.byte()) {
    fields.set(String.fromCharCode(letter), reader.text());
  }
  return fields;
}

export function startupMessage(parameters: Readonly<Record<string, string | undefined>>): Buffer {
  const pairs = Object.entries(parameters).flatMap(([name, value]) =>
    value === undefined ? [] : [name, value],
  );
  for (const text of pairs) {
    if (text.includes('\0')) {
      throw new HoldfastError('postgres.invalid-address', 'A connection setting holds a zero byte.');
    }
  }
  const body = Buffer.from(`${pairs.map((text) => `${text}\0`).join('')}\0`);
  const head = Buffer.alloc(8);
  head.writeInt32BE(body.length + 8, 0);
  head.writeInt32BE(196_608, 4);
  return Buffer.concat([head, body]);
}

export function sslRequest(): Buffer {
  return Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
}

export function cancelRequest(pid: number, key: Buffer): Buffer {
  const head = Buffer.alloc(12);
  head.writeInt32BE(12 + key.length, 0);
  head.writeInt32BE(80_877_102, 4);
  head.writeInt32BE(pid, 8);
  return Buffer.concat([head, key]);
}

export function queryMessage(sql: string): Buffer {
  if (sql.includes('\0'))
    throw new HoldfastError('postgres.statement-failed', 'A statement holds a zero byte.');
  return frame('Q', Buffer.from(`${sql}\0`));
}

export function passwordMessage(text: string): Buffer {
  return frame('p', Buffer.from(`${text}\0`));
}

export function saslInitialResponse(mechanism: string, response: string): Buffer {
  const data = Buffer.from(response);
  const length = Buffer.alloc(4);
  length.writeInt32BE(data.length);
  return frame('p', Buffer.concat([Buffer.from(`${mechanism}\0`), length, data]));
}

export function saslResponse(response: string): Buffer {
  return frame('p', Buffer.from(response));
}

export function copyData(body: Buffer): Buffer {
  return frame('d', body);
}

export function copyDone(): Buffer {
  return frame('c', Buffer.alloc(0));
}

export function terminateMessage(): Buffer {
  return frame('X', Buffer.alloc(0));
}

function frame(type: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.write(type, 'latin1');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}
