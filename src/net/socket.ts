/**
 * A byte socket for protocol lanes: TCP or Unix, optionally upgraded to TLS.
 *
 * A plain socket reads into one large buffer that is used again for every read, so a lane parses in place
 * and nothing is allocated per read. TLS goes through Node's ordinary stream.
 */
import net from 'node:net';
import tls from 'node:tls';
import { HoldfastError, isHoldfastError, systemErrorCode } from '../core/errors.ts';

/** A host and port, or the path of a Unix socket. */
export type SocketAddress = { readonly host: string; readonly port: number } | { readonly path: string };

export interface SocketOptions {
  /** Milliseconds until the connection must stand, name look-up included. */
  readonly connectTimeoutMs: number;
  /** TCP keep-alive (default on) and the idle time before its first probe (default 30,000 ms). */
  readonly keepAlive?: boolean;
  readonly keepAliveIdleMs?: number;
  /** Time between probes (default 10,000 ms), and how many may stay unanswered (default 3). */
  readonly keepAliveIntervalMs?: number;
  readonly keepAliveCount?: number;
  /** Size of the read buffer; default 256 KiB. */
  readonly readBufferBytes?: number;
  /** Aborting gives up connecting. Later aborts are the owner's business (`destroy`). */
  readonly signal?: AbortSignal | undefined;
}

export interface TlsUpgrade {
  /** Name sent to the server and, with `verify: 'full'`, looked for in its certificate. */
  readonly host: string;
  /** Check nothing; check the chain; check the chain and the name. */
  readonly verify: 'none' | 'chain' | 'full';
  /** PEM of trusted roots; the system's where undefined. */
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Takes the bytes as they come. The chunk is valid only until the sink returns true. When it returns false
 * nothing more is read, and the chunk stays valid, until `resume` is called.
 */
export type ByteSink = (chunk: Buffer) => boolean;

/**
 * Measured draining 1 GB of BASE_BACKUP from a local server: 64 KiB to 1 MiB took the same wall time and CPU within
 * the noise (TCP 1.4 s and 0.9 s, Unix 1.0 s and 0.6 s), because a read returns 10 to 20 KiB however large the buffer.
 */
const defaultReadBufferBytes = 256 * 1024;

const noSink: ByteSink = () => false;

export class ByteSocket {
  /** `db.example:5432` or the socket's path, for messages. */
  readonly name: string;
  /** True for a Unix socket. */
  readonly local: boolean;
  /** Settles once the socket is fully closed: with the error that closed it, or undefined. Never rejects. */
  readonly closed: Promise<Error | undefined>;

  #socket: net.Socket;
  #tls: tls.TLSSocket | undefined;
  #sink: ByteSink = noSink;
  /** A chunk that came before there was a sink; reading is stopped while it waits. */
  #early: Buffer | undefined;
  #error: Error | undefined;
  readonly #onClose: () => void;

  private constructor(address: SocketAddress, options: SocketOptions) {
    this.local = 'path' in address;
    this.name = 'path' in address ? address.path : hostAndPort(address.host, address.port);
    const { promise, resolve } = Promise.withResolvers<Error | undefined>();
    this.closed = promise;
    this.#onClose = () => resolve(this.#error);
    const buffer = Buffer.allocUnsafeSlow(options.readBufferBytes ?? defaultReadBufferBytes);
    this.#socket = net.connect({
      ...address,
      noDelay: true,
      onread: { buffer, callback: (bytes) => this.#take(buffer.subarray(0, bytes)) },
    });
    this.#watch(this.#socket);
  }

  /**
   * Connects. Throws `net.unreachable`, `net.timeout`, or the signal's reason; leaves nothing behind then.
   */
  static async open(address: SocketAddress, options: SocketOptions): Promise<ByteSocket> {
    options.signal?.throwIfAborted();
    const socket = new ByteSocket(address, options);
    const failed = (error: Error) => connectError(socket.name, address, error);
    const late = () =>
      new HoldfastError(
        'net.timeout',
        `No connection to ${socket.name} within ${options.connectTimeoutMs} ms.`,
        {
          details: { address: socket.name, timeoutMs: options.connectTimeoutMs },
        },
      );
    return socket.#await('connect', options.connectTimeoutMs, options.signal, late, failed).then(() => {
      socket.#keepAlive(options);
      return socket;
    });
  }

  /** True once TLS stands. */
  get secure(): boolean {
    return this.#tls !== undefined;
  }

  /** The server's certificate, under TLS. */
  get peerCertificate(): import('node:crypto').X509Certificate | undefined {
    return this.#tls?.getPeerX509Certificate();
  }

  /** Bytes written that the system has not taken yet. */
  get unsentBytes(): number {
    return this.#socket.writableLength;
  }

  /** Sets who takes the bytes from now on. */
  receive(sink: ByteSink): void {
    this.#sink = sink;
    const early = this.#early;
    if (early === undefined) return;
    this.#early = undefined;
    if (sink(early)) this.resume();
  }

  /** Stops reading until `resume`; at most one more chunk comes. */
  pause(): void {
    this.#socket.pause();
  }

  /** Goes on reading after `pause` or after the sink returned false. */
  resume(): void {
    this.#socket.resume();
  }

  /** Sends; never waits (see `unsentBytes`). Nothing happens once the socket is closed. */
  write(bytes: Uint8Array | string): void {
    if (this.#socket.writable) this.#socket.write(bytes);
  }

  /**
   * Upgrades to TLS; the sink stays. Throws `net.tls` when the handshake or the certificate check fails (the
   * socket is closed then), `net.timeout`, or the signal's reason.
   */
  async startTls(upgrade: TlsUpgrade): Promise<void> {
    const plain = this.#socket;
    const secured = tls.connect({
      socket: plain,
      ...(net.isIP(upgrade.host) === 0 ? { servername: upgrade.host } : {}),
      host: upgrade.host,
      rejectUnauthorized: upgrade.verify !== 'none',
      // A client that accepts any chain still gets encryption; libpq's `require` means exactly that.
      ...(upgrade.verify === 'full' ? {} : { checkServerIdentity: () => undefined }),
      ca: upgrade.ca,
      cert: upgrade.cert,
      key: upgrade.key,
      minVersion: 'TLSv1.2',
    });
    // From here on the secured socket's closing is what counts; its errors include those of the plain one.
    plain.off('close', this.#onClose);
    this.#socket = secured;
    this.#watch(secured);
    const late = () =>
      new HoldfastError('net.timeout', `${this.name} did not finish the TLS handshake in time.`);
    const failed = (error: Error) => tlsError(this.name, upgrade, error);
    await this.#await('secureConnect', upgrade.timeoutMs, upgrade.signal, late, failed);
    this.#tls = secured;
    secured.on('data', (chunk: Buffer) => {
      if (!this.#take(chunk)) secured.pause();
    });
  }

  /** Sends what was written, then closes in good order. */
  end(): void {
    this.#socket.end();
  }

  /** Closes at once; unsent bytes are lost. Idempotent. */
  destroy(): void {
    this.#socket.destroy();
  }

  #keepAlive(options: SocketOptions): void {
    this.#socket.setKeepAlive(
      options.keepAlive ?? true,
      options.keepAliveIdleMs ?? 30_000,
      options.keepAliveIntervalMs ?? 10_000,
      options.keepAliveCount ?? 3,
    );
  }

  #take(chunk: Buffer): boolean {
    if (this.#sink === noSink) this.#early = chunk;
    return this.#sink(chunk);
  }

  #watch(socket: net.Socket): void {
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    socket.on('close', this.#onClose);
  }

  #await(
    event: 'connect' | 'secureConnect',
    timeoutMs: number,
    signal: AbortSignal | undefined,
    late: () => Error,
    failed: (error: Error) => Error,
  ): Promise<void> {
    const socket = this.#socket;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const give = (error: Error) => {
      socket.destroy();
      reject(error);
    };
    const timer = setTimeout(() => give(late()), timeoutMs);
    const onError = (error: Error) => give(failed(error));
    const onClose = () => give(failed(new Error('the other side closed the connection')));
    const onAbort = () => give(signal?.reason);
    socket.once(event, resolve).once('error', onError).once('close', onClose);
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();
    return promise.finally(() => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      socket.off(event, resolve).off('error', onError).off('close', onClose);
    });
  }
}

/** `db.example:5432`, `[::1]:5432`. */
function hostAndPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** With several addresses behind a name Node throws one error for all; the last one speaks for them. */
function innermost(error: Error): Error {
  const last = error instanceof AggregateError ? error.errors.at(-1) : undefined;
  return last instanceof Error ? last : error;
}

const connectReasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOENT: 'there is no such socket',
  ENOTFOUND: 'the host name is unknown',
  EAI_AGAIN: 'the host name could not be looked up',
  EACCES: 'this user may not use that socket',
  EHOSTUNREACH: 'there is no way to that host',
  ENETUNREACH: 'there is no way to that network',
  ETIMEDOUT: 'the host does not answer',
  ECONNRESET: 'the other side closed the connection',
};

function connectError(name: string, address: SocketAddress, error: Error): HoldfastError {
  if (isHoldfastError(error)) return error;
  const inner = innermost(error);
  const code = systemErrorCode(inner);
  const reason = (code && connectReasons[code]) ?? inner.message;
  const unknownName = code === 'ENOTFOUND' || code === 'EAI_AGAIN';
  return new HoldfastError('net.unreachable', `No connection to ${name}: ${reason}.`, {
    ...(unknownName
      ? { next: 'Check the host name in the address, and that this machine can look it up.' }
      : {}),
    ...(code === 'ENOENT' && 'path' in address
      ? { next: 'Check that the server runs and that the folder and port are those of its socket.' }
      : {}),
    details: { address: name, ...(code ? { systemCode: code } : {}) },
    cause: error,
  });
}

function tlsError(name: string, upgrade: TlsUpgrade, error: Error): HoldfastError {
  const code = systemErrorCode(error) ?? '';
  const details = { address: name, verify: upgrade.verify, ...(code ? { systemCode: code } : {}) };
  const because = (reason: string, next?: string) =>
    new HoldfastError('net.tls', `TLS with ${name} failed: ${reason}.`, {
      ...(next ? { next } : {}),
      details,
      cause: error,
    });
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return because(
      `its certificate is not for "${upgrade.host}"`,
      'Use a host name that the certificate names, or have the certificate made again with this name.',
    );
  }
  if (/SELF_SIGNED|UNABLE_TO_(VERIFY|GET)|UNTRUSTED/.test(code)) {
    return because(
      'its certificate is not signed by a trusted authority',
      'Name the file with the root certificate that signed it (PostgreSQL: sslrootcert).',
    );
  }
  if (code === 'CERT_HAS_EXPIRED')
    return because('its certificate has expired', 'Renew the certificate of the server.');
  return because(error.message.replace(/\.$/, ''));
}
