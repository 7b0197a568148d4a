import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import net from 'node:net';
import { join } from 'node:path';
import tls from 'node:tls';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ByteSocket, type TlsUpgrade } from './socket.ts';

const run = promisify(execFile);

describe('a byte socket', () => {
  let folder: string;
  let key: string;
  let cert: string;
  const servers: net.Server[] = [];
  const peers = new Set<net.Socket>();

  beforeAll(async () => {
    folder = await mkdtemp('/tmp/holdfast-socket-');
    const make = [
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-days',
      '2',
    ];
    const names = ['-subj', '/CN=here', '-addext', 'subjectAltName=DNS:here'];
    await run('openssl', ['req', ...make, '-keyout', 'key', '-out', 'cert', ...names], { cwd: folder });
    key = await readFile(join(folder, 'key'), 'utf8');
    cert = await readFile(join(folder, 'cert'), 'utf8');
  });
  afterAll(async () => {
    for (const peer of peers) peer.destroy();
    for (const server of servers) server.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** A server on loopback or a path; `serve` gets each connection. */
  async function listen(serve: (peer: net.Socket) => void, path?: string): Promise<number> {
    const server = net.createServer((peer) => {
      peers.add(peer);
      peer.on('error', () => undefined);
      serve(peer);
    });
    servers.push(server);
    if (path === undefined) server.listen(0, '127.0.0.1');
    else server.listen(path);
    await once(server, 'listening');
    return path === undefined ? (server.address() as net.AddressInfo).port : 0;
  }

  const open = (port: number, options: { connectTimeoutMs?: number; signal?: AbortSignal } = {}) =>
    ByteSocket.open({ host: '127.0.0.1', port }, { connectTimeoutMs: 5000, ...options });

  const upgrade = (more: Partial<TlsUpgrade> = {}): TlsUpgrade => ({
    host: 'here',
    verify: 'full',
    ca: cert,
    timeoutMs: 3000,
    ...more,
  });

  /** Becomes a TLS server after the first byte, like PostgreSQL. */
  const secureAfterQuestion = (serve: (peer: tls.TLSSocket) => void) => (peer: net.Socket) => {
    peer.once('data', () => {
      peer.write('S');
      const secured = new tls.TLSSocket(peer, { isServer: true, key, cert });
      secured.on('error', () => undefined);
      serve(secured);
    });
  };

  async function ask(socket: ByteSocket): Promise<void> {
    const answered = new Promise<void>((resolve) =>
      socket.receive(() => {
        resolve();
        return true;
      }),
    );
    socket.write('?');
    await answered;
  }

  /** Receives everything; holds back every few chunks, and checks that nothing comes meanwhile. */
  function collect(socket: ByteSocket, total: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const parts: Buffer[] = [];
      let bytes = 0;
      let held: Buffer | undefined;
      socket.receive((chunk) => {
        if (held !== undefined) reject(new Error('a chunk came while the last one was held'));
        parts.push(Buffer.from(chunk));
        bytes += chunk.length;
        if (bytes >= total) resolve(Buffer.concat(parts));
        if (parts.length % 3 !== 0) return true;
        held = chunk;
        const copy = parts.at(-1)!;
        setTimeout(() => {
          if (!chunk.equals(copy)) reject(new Error('a held chunk was changed'));
          held = undefined;
          socket.resume();
        }, 2);
        return false;
      });
    });
  }

  const sent = randomBytes(8 * 1024 * 1024);

  it('brings every byte over TCP, and lets the receiver hold back', async () => {
    const socket = await open(await listen((peer) => peer.end(sent)));
    expect((await collect(socket, sent.length)).equals(sent)).toBe(true);
    expect(await socket.closed).toBeUndefined();
    expect(socket.secure).toBe(false);
  });

  it('brings every byte over TLS', async () => {
    const socket = await open(await listen(secureAfterQuestion((peer) => peer.end(sent))));
    await ask(socket);
    await socket.startTls(upgrade());
    expect(socket.secure).toBe(true);
    expect(socket.peerCertificate?.subject).toBe('CN=here');
    expect((await collect(socket, sent.length)).equals(sent)).toBe(true);
    socket.end();
    expect(await socket.closed).toBeUndefined();
  });

  it('brings every byte over a Unix socket, both ways', async () => {
    const path = join(folder, 'socket');
    await listen((peer) => peer.pipe(peer), path);
    const socket = await ByteSocket.open({ path }, { connectTimeoutMs: 1000 });
    const all = collect(socket, sent.length);
    socket.write(sent);
    expect((await all).equals(sent)).toBe(true);
    expect(socket.local).toBe(true);
    socket.destroy();
    await socket.closed;
  });

  it('keeps what comes before anybody receives', async () => {
    const socket = await open(await listen((peer) => peer.end('early')));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect((await collect(socket, 5)).toString()).toBe('early');
  });

  it.each([
    ['a name that the certificate has not', { host: 'elsewhere' }, /not for "elsewhere"/],
    ['an authority that nobody trusts', { ca: undefined }, /trusted authority/],
  ])('refuses %s', async (_what, more, message) => {
    const socket = await open(await listen(secureAfterQuestion(() => undefined)));
    await ask(socket);
    await expect(socket.startTls(upgrade(more))).rejects.toMatchObject({
      code: 'net.tls',
      message: expect.stringMatching(message),
    });
    await socket.closed;
  });

  it('checks as much as it is told', async () => {
    for (const more of [
      { verify: 'none', ca: undefined },
      { verify: 'chain', host: 'elsewhere' },
    ] as const) {
      const socket = await open(await listen(secureAfterQuestion(() => undefined)));
      await ask(socket);
      await socket.startTls(upgrade(more));
      socket.destroy();
    }
  });

  it('gives up a handshake that does not end', async () => {
    const socket = await open(await listen((peer) => peer.once('data', () => peer.write('S'))));
    await ask(socket);
    await expect(socket.startTls(upgrade({ timeoutMs: 100 }))).rejects.toMatchObject({ code: 'net.timeout' });
    await socket.closed;
    const rude = await open(await listen((peer) => peer.once('data', () => peer.end('S'))));
    await ask(rude);
    await expect(rude.startTls(upgrade())).rejects.toMatchObject({ code: 'net.tls' });
  });

  it('tells why there is no connection', async () => {
    const port = await listen(() => undefined);
    await new Promise((resolve) => servers.at(-1)!.close(resolve));
    await expect(open(port)).rejects.toMatchObject({
      code: 'net.unreachable',
      message: expect.stringContaining(`127.0.0.1:${port}`),
    });
    await expect(ByteSocket.open({ path: '/nowhere/s' }, { connectTimeoutMs: 100 })).rejects.toMatchObject({
      code: 'net.unreachable',
    });
    // RFC 5737: no host has this address, so that nothing answers; some networks say so at once.
    const nobody = ByteSocket.open({ host: '192.0.2.1', port: 9 }, { connectTimeoutMs: 150 });
    await expect(nobody).rejects.toMatchObject({
      code: expect.stringMatching(/^net\.(timeout|unreachable)$/),
    });
    const abort = new AbortController();
    const pending = ByteSocket.open(
      { host: '192.0.2.1', port: 9 },
      { connectTimeoutMs: 5000, signal: abort.signal },
    );
    abort.abort(new Error('enough'));
    await expect(pending).rejects.toThrow('enough');
    await expect(open(port, { signal: AbortSignal.abort(new Error('before')) })).rejects.toThrow('before');
  });

  it('says what closed it', async () => {
    const socket = await open(await listen((peer) => peer.once('data', () => peer.resetAndDestroy())));
    socket.receive(() => true);
    socket.write('go away');
    expect(await socket.closed).toMatchObject({ code: 'ECONNRESET' });
    socket.write('nobody hears this');
    socket.destroy();
  });
});
