/** A logged-in connection below the commands: one exchange at a time, its deadlines, cancellation and loss. */
import { HoldfastError, isHoldfastError, systemErrorCode } from '../../core/errors.ts';
import type { ByteSocket } from '../../net/socket.ts';
import { Authentication } from './authentication.ts';
import { openChannel, type TlsUse } from './channel.ts';
import { type ConnectionSettings, describeConnection, isSocketFolder } from './connection.ts';
import { GatheredReading } from './gathered-reading.ts';
import { MessageReader } from './message-reader.ts';
import {
  BodyReader,
  cancelRequest,
  protocolError,
  readFields,
  serverMessage,
  startupMessage,
  terminateMessage,
} from './messages.ts';
import { type Counterpart, serverError } from './server-error.ts';

/** What is done between a request and ReadyForQuery. A throw or rejection ends the connection with that error. */
export interface Exchange {
  /** Every message but errors, notices, parameters and CopyData. `body` is a view. */
  message(type: number, body: Buffer): void | Promise<void>;
  /** Pieces of CopyData (see MessageHandler). */
  copy?(piece: Buffer, first: boolean, last: boolean): void | Promise<void>;
}

export interface ExchangeLimits {
  readonly signal?: AbortSignal | undefined;
  /** For the whole exchange; then the server is asked to cancel and `net.timeout` is thrown. */
  readonly timeoutMs?: number;
  /** Between two arrivals of bytes (time in which a handler holds the reading does not count). */
  readonly stallMs?: () => number;
  /** On abort cut the connection at once rather than cancel and keep it. */
  readonly cut?: boolean;
  /** After a break in what arrives, leave what comes unread for so long: see `GatheredReading`. */
  readonly gatherMs?: number;
}

/** Before log-in nothing long is expected, and nobody is trusted. */
const limitBeforeLogin = 64 * 1024;
const limitAfterLogin = 64 * 1024 * 1024;
/** How long a cancelled statement may take to end before the connection is cut. */
const cancelPatienceMs = 5_000;

interface Running {
  readonly exchange: Exchange;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  readonly gathering: GatheredReading | undefined;
  interrupted?: unknown;
  /** Settles when the server has taken the cancel request. */
  cancelled?: Promise<void>;
}

export class Session {
  readonly parameters = new Map<string, string>();
  /** As the server's BackendKeyData says; a pooler makes one up. */
  backendPid = 0;
  readonly to: Counterpart;
  readonly openedAt = performance.now();
  lastUsedAt = performance.now();

  readonly #settings: ConnectionSettings;
  readonly #socket: ByteSocket;
  readonly #reader: MessageReader;
  #cancelKey: Buffer = Buffer.alloc(0);
  #running: Running | undefined;
  #turn: Promise<void> = Promise.resolve();
  #refused: HoldfastError | undefined;
  #over: { readonly error: unknown } | undefined;
  #lastHeard = performance.now();
  #held = false;

  private constructor(settings: ConnectionSettings, socket: ByteSocket, to: Counterpart) {
    this.#settings = settings;
    this.#socket = socket;
    this.to = to;
    this.#reader = new MessageReader(
      {
        message: (type, body) => this.#message(type, body),
        copy: (piece, first, last) => this.#copy(piece, first, last),
      },
      limitBeforeLogin,
    );
    socket.receive((chunk) => this.#take(chunk));
    void socket.closed.then((cause) => this.#closed(cause));
  }

  /** Connects and logs in, within the settings' connect time-out. */
  static async open(
    settings: ConnectionSettings,
    options: {
      readonly database: string;
      readonly replication: boolean;
      readonly signal?: AbortSignal | undefined;
    },
  ): Promise<Session> {
    const { signal } = options;
    signal?.throwIfAborted();
    const limit = new AbortController();
    const onAbort = () => limit.abort(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    const address = describeConnection({ ...settings, database: options.database });
    const timeoutMs = settings.connectTimeoutMs;
    const timer = setTimeout(() => {
      const message = `No connection to ${address} within ${timeoutMs} ms.`;
      limit.abort(new HoldfastError('net.timeout', message, { details: { address, timeoutMs } }));
    }, timeoutMs);
    try {
      return await Session.#attempt(settings, { ...options, address }, limit.signal);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  static async #attempt(
    settings: ConnectionSettings,
    options: { readonly database: string; readonly replication: boolean; readonly address: string },
    signal: AbortSignal,
  ): Promise<Session> {
    const [first, second] = tlsPlans(settings);
    try {
      return await Session.#connect(settings, options, first, signal);
    } catch (error) {
      // As libpq: `prefer` and `allow` try the other way when TLS itself or pg_hba.conf stood against the first.
      const other = isHoldfastError(error, 'net.tls') || isHoldfastError(error, 'postgres.not-admitted');
      if (second === undefined || !other || signal.aborted) throw error;
      return await Session.#connect(settings, options, second, signal);
    }
  }

  static async #connect(
    settings: ConnectionSettings,
    options: { readonly database: string; readonly replication: boolean; readonly address: string },
    use: TlsUse,
    signal: AbortSignal,
  ): Promise<Session> {
    const { database, replication, address } = options;
    const { user, password, passwordNote, applicationName } = settings;
    const socket = await openChannel(settings, use, settings.connectTimeoutMs, signal);
    const to = { address, user, database, replication, passwordGiven: password !== undefined, passwordNote };
    const session = new Session(settings, socket, to);
    const startup = startupMessage({
      user,
      // A physical replication connection belongs to no database.
      database: replication ? 'replication' : database,
      replication: replication ? 'true' : undefined,
      application_name: applicationName,
      client_encoding: 'UTF8',
      options: settings.options,
    });
    await session.run(startup, session.#login(new Authentication(settings, socket)), { signal, cut: true });
    session.#reader.limit = limitAfterLogin;
    return session;
  }

  get secure(): boolean {
    return this.#socket.secure;
  }

  /** Time since bytes last came, 0 while a handler holds the reading. */
  get silentMs(): number {
    return this.#held ? 0 : performance.now() - this.#lastHeard;
  }

  /** The error that ended the connection, if it has ended. */
  get over(): { readonly error: unknown } | undefined {
    return this.#over;
  }

  /** Sends within a running exchange. */
  send(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Sends the request when its turn has come and resolves at ReadyForQuery. */
  async run(request: Uint8Array, exchange: Exchange, limits: ExchangeLimits = {}): Promise<void> {
    const before = this.#turn;
    const mine = Promise.withResolvers<void>();
    this.#turn = before.then(() => mine.promise);
    try {
      await abortable(before, limits.signal);
      if (this.#over !== undefined) throw this.#over.error;
      await this.#exchange(request, exchange, limits);
    } finally {
      this.lastUsedAt = performance.now();
      mine.resolve();
    }
  }

  /** Ends the connection at once: the running exchange and all later ones reject with `error`. Idempotent. */
  fail(error: unknown): void {
    if (this.#over !== undefined) return;
    this.#over = { error };
    this.#socket.destroy();
    this.#running?.reject(error);
  }

  /** Waits for the running exchange, says goodbye and closes; cuts after 5 s. Never rejects. */
  async close(): Promise<void> {
    const patience = Promise.withResolvers<void>();
    const timer = setTimeout(patience.resolve, cancelPatienceMs);
    await Promise.race([this.#turn, patience.promise]);
    if (this.#over === undefined) {
      this.#over = {
        error: new HoldfastError('net.unreachable', `The connection to ${this.to.address} was closed.`),
      };
      this.#socket.write(terminateMessage());
      this.#socket.end();
      this.#socket.resume();
      this.#running?.reject(this.#over.error);
    }
    await Promise.race([this.#socket.closed, patience.promise]);
    clearTimeout(timer);
    this.#socket.destroy();
  }

  async #exchange(request: Uint8Array, exchange: Exchange, limits: ExchangeLimits): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const gathering =
      limits.gatherMs === undefined
        ? undefined
        : new GatheredReading(this.#socket, limits.gatherMs, () => this.#held);
    const running: Running = { exchange, resolve, reject, gathering };
    this.#running = running;
    this.#refused = undefined;
    this.#lastHeard = performance.now();
    const release = this.#guard(running, limits);
    try {
      this.#socket.write(request);
      await promise;
    } finally {
      release();
      gathering?.end();
      this.#running = undefined;
      // A late cancel request would hit the next statement.
      if (this.#over === undefined) await running.cancelled;
    }
  }

  /** Puts signal and deadlines to work; returns what takes them away again. */
  #guard(running: Running, limits: ExchangeLimits): () => void {
    const timers: NodeJS.Timeout[] = [];
    const interrupt = (reason: unknown) => {
      if (limits.cut) return this.fail(reason);
      if (running.interrupted !== undefined) return;
      running.interrupted = reason;
      running.cancelled = this.#cancel(running);
      timers.push(setTimeout(() => this.fail(reason), cancelPatienceMs));
    };
    const { signal, timeoutMs, stallMs } = limits;
    const onAbort = () => interrupt(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();
    if (timeoutMs !== undefined) timers.push(setTimeout(() => interrupt(this.#late(timeoutMs)), timeoutMs));
    if (stallMs !== undefined) {
      const look = () => this.silentMs > stallMs() && this.fail(this.#late(stallMs()));
      timers.push(setInterval(look, Math.min(stallMs() / 4, 5_000)));
    }
    return () => {
      for (const timer of timers) clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    };
  }

  #late(ms: number): HoldfastError {
    return new HoldfastError(
      'net.timeout',
      `PostgreSQL at ${this.to.address} did not answer within ${ms} ms.`,
      {
        details: { address: this.to.address, timeoutMs: ms },
      },
    );
  }

  /** A cancel request goes over a connection of its own; the server answers it by closing that. Never rejects. */
  async #cancel(running: Running): Promise<void> {
    const patience = AbortSignal.timeout(cancelPatienceMs);
    try {
      const socket = await openChannel(
        this.#settings,
        this.secure ? 'must' : 'never',
        cancelPatienceMs,
        patience,
      );
      patience.addEventListener('abort', () => socket.destroy(), { once: true });
      socket.receive(() => true);
      socket.write(cancelRequest(this.backendPid, this.#cancelKey));
      await socket.closed;
    } catch {
      // The statement cannot be cancelled, so waiting for its end is pointless; who waits is told why it was to end.
      if (this.#running === running) this.fail(running.interrupted);
    }
  }

  #take(chunk: Buffer): boolean {
    if (this.#over !== undefined) return true;
    this.#lastHeard = performance.now();
    let wait: Promise<void> | undefined;
    try {
      wait = this.#reader.read(chunk);
    } catch (error) {
      this.fail(error);
    }
    this.#running?.gathering?.arrived();
    if (wait === undefined) return true;
    this.#held = true;
    wait.then(
      () => {
        this.#held = false;
        this.#lastHeard = performance.now();
        this.#socket.resume();
      },
      (error) => this.fail(error),
    );
    return false;
  }

  #copy(piece: Buffer, first: boolean, last: boolean): void | Promise<void> {
    const exchange = this.#running?.exchange;
    if (exchange?.copy === undefined) throw protocolError('it sends data that nobody asked for');
    return exchange.copy(piece, first, last);
  }

  #message(type: number, body: Buffer): void | Promise<void> {
    switch (type) {
      case serverMessage.parameterStatus: {
        const reader = new BodyReader(body);
        this.parameters.set(reader.text(), reader.text());
        return;
      }
      case serverMessage.notice:
      case serverMessage.notification:
        return;
      case serverMessage.error:
        // The first one says why; what follows it is a consequence.
        this.#refused ??= serverError(readFields(body), this.to);
        return;
    }
    const running = this.#running;
    if (running === undefined) throw protocolError('it answers without having been asked');
    if (type !== serverMessage.readyForQuery) return running.exchange.message(type, body);
    const wait = running.exchange.message(type, body);
    if (wait instanceof Promise) return wait.then(() => this.#ready(running));
    this.#ready(running);
  }

  #ready(running: Running): void {
    const error = running.interrupted ?? this.#refused;
    this.#refused = undefined;
    if (error === undefined) running.resolve();
    else running.reject(error);
  }

  #login(authentication: Authentication): Exchange {
    return {
      message: (type, body) => {
        if (type === serverMessage.authentication) return authentication.answer(body);
        if (!authentication.done) throw protocolError('it begins before the log-in is done');
        if (type === serverMessage.backendKeyData) {
          const reader = new BodyReader(body);
          this.backendPid = reader.int32();
          this.#cancelKey = Buffer.from(reader.bytes(reader.left));
        } else if (type !== serverMessage.readyForQuery && type !== serverMessage.negotiateProtocol) {
          throw protocolError('an unknown message came during log-in');
        }
      },
    };
  }

  #closed(cause: Error | undefined): void {
    const because = systemErrorCode(cause) ?? cause?.message ?? 'the server closed it';
    this.fail(
      this.#running?.interrupted ??
        this.#refused ??
        new HoldfastError('net.unreachable', `The connection to ${this.to.address} was lost: ${because}.`, {
          details: { address: this.to.address },
          ...(cause === undefined ? {} : { cause }),
        }),
    );
  }
}

/** How to use TLS at first, and at the second try. */
function tlsPlans(settings: ConnectionSettings): [TlsUse, TlsUse?] {
  if (isSocketFolder(settings.host) || settings.sslMode === 'disable') return ['never'];
  if (settings.sslMode === 'allow') return ['never', 'must'];
  if (settings.sslMode === 'prefer') return ['if-offered', 'never'];
  return ['must'];
}

async function abortable(promise: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return promise;
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  await Promise.race([promise, aborted]).finally(() => signal.removeEventListener('abort', onAbort));
}
