/** Servers that lie: whatever comes, the connection ends with an error of ours, in time and without eating memory. */
import { once } from 'node:events';
import net from 'node:net';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isHoldfastError } from '../../core/errors.ts';
import { parseConnection } from './connection.ts';
import { PostgresConnection } from './wire.ts';

const never = new AbortController().signal;

function message(type: string, body: string | Buffer, length?: number): Buffer {
  const bytes = Buffer.from(body as string, 'latin1');
  const head = Buffer.alloc(5);
  head.write(type, 'latin1');
  head.writeInt32BE(length ?? bytes.length + 4, 1);
  return Buffer.concat([head, bytes]);
}

const welcome = Buffer.concat([
  message('R', '\0\0\0\0'),
  message('S', 'server_version\x0015.18\0'),
  message('K', '\0\0\0\x07\0\0\0\x09'),
  message('Z', 'I'),
]);
const ready = message('Z', 'I');
const position = Buffer.concat([
  message('T', '\0\0'),
  message('D', Buffer.from('\0\x02\0\0\0\x090/2000028\0\0\0\x011', 'latin1')),
  message('C', 'SELECT\0'),
]);

describe('a lying server', () => {
  let server: net.Server;
  let script: readonly Buffer[] = [];
  const sockets = new Set<net.Socket>();

  beforeAll(async () => {
    server = net.createServer((socket) => {
      sockets.add(socket);
      let step = 0;
      socket.on('error', () => undefined);
      // One answer for each thing that the client says; after the last the line is closed.
      socket.on('data', () => {
        const answer = script[step++];
        if (answer !== undefined) socket.write(answer);
        if (step >= script.length) socket.end();
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  });
  afterAll(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });

  function connect(replication: boolean, sslmode = 'disable') {
    const { port } = server.address() as net.AddressInfo;
    const address = { host: '127.0.0.1', port, user: 'u', password: 'p', sslmode, connectTimeout: 2 };
    return PostgresConnection.connect(parseConnection(address, { HOME: '/nowhere' }), { replication });
  }

  /** Runs everything against the script; resolves with the error, or undefined when all went well. */
  async function outcome(
    answers: readonly Buffer[],
    command?: 'query' | 'backup' | 'stream',
    sslmode?: string,
  ) {
    script = answers;
    const started = performance.now();
    try {
      const connection = await connect(command !== 'query', sslmode);
      try {
        if (command === 'query') await connection.query('SELECT 1', { timeoutMs: 2000 });
        if (command === 'backup') {
          const handlers = { onStart: () => undefined, onArchive: () => undefined, onData: () => undefined };
          const options = { label: 'x', fast: true, manifest: true, tablespaceMap: true } as const;
          await connection.baseBackup(options, handlers, never);
        }
        if (command === 'stream') {
          const handlers = { onWal: () => undefined, onKeepalive: () => undefined };
          await connection.startReplication({ timeline: 1, start: 0x1000000n }, handlers, never).ended;
        }
        return undefined;
      } finally {
        connection.terminate();
      }
    } catch (error) {
      if (!isHoldfastError(error)) throw error;
      return error;
    } finally {
      expect(performance.now() - started).toBeLessThan(5000);
    }
  }

  const rubbish = fc.uint8Array({ minLength: 1, maxLength: 200 }).map((bytes) => Buffer.from(bytes));
  // Rubbish that gets past the framing.
  const framed = fc
    .array(fc.tuple(fc.constantFrom(...'RSKZETDCIGHWdcNA'), fc.uint8Array({ maxLength: 40 })), {
      maxLength: 8,
    })
    .map((list) => Buffer.concat(list.map(([type, body]) => message(type, Buffer.from(body)))));
  const lie = fc.oneof(rubbish, framed, framed);

  it('cannot harm the log-in', async () => {
    await fc.assert(
      fc.asyncProperty(lie, fc.boolean(), async (bytes, secure) => {
        const error = await outcome([bytes], undefined, secure ? 'require' : 'disable');
        expect(error).toBeDefined();
      }),
      { numRuns: 40 },
    );
  });

  it.each(['query', 'backup', 'stream'] as const)('cannot harm a %s', async (command) => {
    await fc.assert(
      fc.asyncProperty(lie, async (bytes) => {
        const error = await outcome([welcome, bytes], command);
        if (error === undefined) expect(command).not.toBe('backup');
      }),
      { numRuns: 40 },
    );
  });

  it.each([
    ['a web server', [Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')], undefined, 'postgres.protocol'],
    ['a mail server', [Buffer.from('220 mail.example ESMTP\r\n')], undefined, 'postgres.protocol'],
    ['a message of 2 GiB', [message('R', '', 0x7fffffff)], undefined, 'postgres.protocol'],
    ['a message of 2 GiB later on', [welcome, message('D', 'x', 0x7fffffff)], 'query', 'postgres.protocol'],
    ['data before the log-in', [message('d', 'hello')], undefined, 'postgres.protocol'],
    ['a welcome without log-in', [message('Z', 'I')], undefined, 'postgres.protocol'],
    ['no version', [Buffer.concat([message('R', '\0\0\0\0'), ready])], undefined, 'postgres.protocol'],
    [
      'a second request to log in',
      [Buffer.concat([message('R', '\0\0\0\0'), message('R', '\0\0\0\x03')])],
      undefined,
      'postgres.protocol',
    ],
    [
      'SCRAM that proves nothing',
      [message('R', '\0\0\0\x0aSCRAM-SHA-256\0\0'), message('R', '\0\0\0\0')],
      undefined,
      'net.authentication',
    ],
    ['GSSAPI', [message('R', '\0\0\0\x07')], undefined, 'postgres.authentication-unsupported'],
    [
      'only an unknown SASL',
      [message('R', '\0\0\0\x0aOAUTHBEARER\0\0')],
      undefined,
      'postgres.authentication-unsupported',
    ],
    [
      'version 12',
      [Buffer.concat([message('R', '\0\0\0\0'), message('S', 'server_version\x0012.22\0'), ready])],
      undefined,
      'postgres.unsupported-version',
    ],
    [
      'version 19',
      [Buffer.concat([message('R', '\0\0\0\0'), message('S', 'server_version\x0019beta1\0'), ready])],
      undefined,
      'postgres.unsupported-version',
    ],
    ['silence', [welcome, Buffer.alloc(0)], 'query', 'net.unreachable'],
    ['a backup without data', [welcome, ready], 'backup', 'postgres.protocol'],
    [
      'a backup that ends after its start',
      [welcome, Buffer.concat([position, ready])],
      'backup',
      'postgres.protocol',
    ],
    [
      'a backup cut in the middle',
      [welcome, Buffer.concat([position, message('d', 'dhello', 900)])],
      'backup',
      'postgres.protocol',
    ],
    [
      'WAL of another place',
      [welcome, Buffer.concat([message('W', '\0\0\0'), message('d', `w${'\0'.repeat(24)}xyz`)])],
      'stream',
      'postgres.protocol',
    ],
    [
      'a keepalive cut short',
      [welcome, Buffer.concat([message('W', '\0\0\0'), message('d', 'k123')])],
      'stream',
      'postgres.protocol',
    ],
    [
      'a version of the handshake that injects',
      [Buffer.from('Shello')],
      undefined,
      'postgres.protocol',
      'require',
    ],
  ] as const)('is recognised: %s', async (_what, answers, command, code, sslmode?: string) => {
    const error = await outcome(answers, command, sslmode);
    expect(error?.code).toBe(code);
    expect(error?.message.length).toBeLessThan(400);
  });

  it('gets no memory for what it only announces', async () => {
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 20; i++) {
      await outcome([welcome, message('D', Buffer.alloc(100_000), 60 * 1024 * 1024)], 'query');
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(40 * 1024 * 1024);
  });
});
