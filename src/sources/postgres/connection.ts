/** How to reach a PostgreSQL server: URLs, keyword objects and the environment, as libpq reads them. */

export type SslMode = 'disable' | 'allow' | 'prefer' | 'require' | 'verify-ca' | 'verify-full';

/** A resolved address with everything needed to connect. Printing or serialising it never shows the password. */
export interface ConnectionSettings {
  /** Host name or address, or an absolute folder with the server's Unix socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  /** Not enumerable: never printed, copied or serialised by accident. */
  readonly password: string | undefined;
  readonly sslMode: SslMode;
  /** True when sslmode was said, not defaulted. */
  readonly sslModeExplicit: boolean;
  readonly sslRootCert: string | undefined;
  readonly sslCert: string | undefined;
  readonly sslKey: string | undefined;
  readonly applicationName: string;
  /** Server command-line options, `-c name=value …`. */
  readonly options: string | undefined;
  /** Milliseconds until a connection must stand, authentication included. */
  readonly connectTimeoutMs: number;
  /** TCP keep-alive, and the idle time before the first probe. */
  readonly keepAlive: boolean;
  readonly keepAliveIdleMs: number;
  /** Milliseconds without use, and since connecting, after which a kept connection is replaced. */
  readonly idleTimeoutMs: number;
  readonly maxAgeMs: number;
}
