/** A socket to the server as the settings ask for it: Unix or TCP, plain or under TLS, before the start-up message. */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { HoldfastError, systemErrorCode } from '../../core/errors.ts';
import { ByteSocket, type TlsUpgrade } from '../../net/socket.ts';
import { type ConnectionSettings, isSocketFolder } from './connection.ts';
import { protocolError, sslRequest } from './messages.ts';

/** `never` and `must` as said; `if-offered` takes what the server has. */
export type TlsUse = 'never' | 'if-offered' | 'must';

/** Opens it; on any error nothing is left behind. `signal` carries the deadline too. */
export async function openChannel(
  settings: ConnectionSettings,
  use: TlsUse,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<ByteSocket> {
  const { host, port } = settings;
  const local = isSocketFolder(host);
  // Read before connecting: a mistake in them must not look like one of the server's.
  const upgrade = local || use === 'never' ? undefined : tlsUpgrade(settings, timeoutMs, signal);
  const socket = await ByteSocket.open(local ? { path: socketPath(host, port) } : { host, port }, {
    connectTimeoutMs: timeoutMs,
    keepAlive: settings.keepAlive,
    keepAliveIdleMs: settings.keepAliveIdleMs,
    keepAliveIntervalMs: settings.keepAliveIntervalMs,
    keepAliveCount: settings.keepAliveCount,
    signal,
  });
  if (upgrade === undefined) return socket;
  try {
    const offered = await askForTls(socket, signal);
    if (offered) await socket.startTls(upgrade);
    else if (use === 'must') {
      throw new HoldfastError(
        'postgres.tls-refused',
        `PostgreSQL at ${socket.name} offers no TLS, and sslmode=${settings.sslMode} requires it.`,
      );
    }
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

function socketPath(folder: string, port: number): string {
  const path = join(folder, `.s.PGSQL.${port}`);
  return folder.startsWith('@') ? `\0${path.slice(1)}` : path;
}

function askForTls(socket: ByteSocket, signal: AbortSignal): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  socket.receive((chunk) => {
    // More than the one byte came before encryption: something on the way injects (CVE-2021-23222).
    if (chunk.length !== 1) reject(protocolError('it answered the question for TLS with more than one byte'));
    else if (chunk[0] === 0x53) resolve(true);
    else if (chunk[0] === 0x4e) resolve(false);
    else reject(protocolError('it does not understand the question for TLS'));
    return true;
  });
  const onAbort = () => reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  void socket.closed.then((cause) =>
    reject(
      new HoldfastError('net.unreachable', `${socket.name} closed the connection when asked for TLS.`, {
        ...(cause === undefined ? {} : { cause }),
      }),
    ),
  );
  socket.write(sslRequest());
  return promise.finally(() => signal.removeEventListener('abort', onAbort));
}

function tlsUpgrade(settings: ConnectionSettings, timeoutMs: number, signal: AbortSignal): TlsUpgrade {
  const { sslMode, sslRootCert, sslCert, sslKey } = settings;
  const roots =
    sslRootCert === undefined || sslRootCert === 'system' ? undefined : readFile('sslrootcert', sslRootCert);
  if (sslKey !== undefined) refuseOpenKey(sslKey);
  return {
    host: settings.host,
    // As libpq: a root certificate that is there is used, even where `require` alone asks for none.
    verify:
      sslMode === 'verify-full'
        ? 'full'
        : sslMode === 'verify-ca' || (sslMode === 'require' && roots)
          ? 'chain'
          : 'none',
    ca: roots,
    cert: sslCert === undefined ? undefined : readFile('sslcert', sslCert),
    key: sslKey === undefined ? undefined : readFile('sslkey', sslKey),
    timeoutMs,
    signal,
  };
}

function readFile(setting: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new HoldfastError(
      'postgres.invalid-address',
      `The file of ${setting} cannot be read: ${path} (${systemErrorCode(error) ?? 'unknown reason'}).`,
      { next: `Correct ${setting}, or let this user read the file.`, cause: error },
    );
  }
}

/** libpq's rule: a private key is its owner's alone, or root's and at most its group's. */
function refuseOpenKey(path: string): void {
  const facts = statSync(path, { throwIfNoEntry: false });
  if (facts === undefined) return;
  const allowed = facts.uid === 0 ? 0o640 : 0o600;
  if ((facts.mode & 0o777 & ~allowed) === 0) return;
  throw new HoldfastError('postgres.invalid-address', `The private key ${path} can be read by other users.`, {
    next: `Run: chmod 600 ${path}`,
  });
}
