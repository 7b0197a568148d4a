/** Connections to servers of our own, over their Unix socket. */
import type { Client } from 'pg';

/** Where a scratch server is reached, as `pg` takes it. No password: its socket folder is closed to others. */
export interface ScratchAddress {
  /** The folder of the Unix socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
}

/** The address as a URL that libpq and `pg` understand. */
export function scratchUrl(address: ScratchAddress): string {
  const host = encodeURIComponent(address.host);
  return `postgresql://${encodeURIComponent(address.user)}@/${encodeURIComponent(address.database)}?host=${host}&port=${address.port}`;
}

/** Connects. The caller ends the client. Rejects with what `pg` rejects with. */
export async function connectScratch(
  address: ScratchAddress,
  options: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined },
): Promise<Client> {
  options.signal?.throwIfAborted();
  const { default: pg } = await import('pg');
  const client = new pg.Client({
    ...address,
    ssl: false,
    application_name: 'holdfast',
    connectionTimeoutMillis: options.timeoutMs,
    // A hung statement must not hang us for ever.
    query_timeout: 60_000,
  });
  // A server that stops ends its connections; whoever uses the client learns it from the next query.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
