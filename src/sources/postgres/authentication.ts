/** Logging in: answers the server's authentication requests until it is satisfied. */
import { createHash } from 'node:crypto';
import { HoldfastError } from '../../core/errors.ts';
import { type ChannelBinding, type ScramClient, scramClient, tlsServerEndPoint } from '../../net/scram.ts';
import type { ByteSocket } from '../../net/socket.ts';
import type { ConnectionSettings } from './connection.ts';
import { BodyReader, passwordMessage, protocolError, saslInitialResponse, saslResponse } from './messages.ts';

const request = { ok: 0, cleartext: 3, md5: 5, sasl: 10, saslContinue: 11, saslFinal: 12 } as const;

export class Authentication {
  /** The server is satisfied, and so are we with it. */
  done = false;

  readonly #settings: ConnectionSettings;
  readonly #socket: ByteSocket;
  #scram: ScramClient | undefined;
  #scramProven = false;

  constructor(settings: ConnectionSettings, socket: ByteSocket) {
    this.#settings = settings;
    this.#socket = socket;
  }

  /** Handles the body of one authentication message. */
  async answer(view: Buffer): Promise<void> {
    // Hashing a password waits, and the view does not last.
    const reader = new BodyReader(Buffer.from(view));
    const kind = reader.int32();
    if (this.done) throw protocolError('it asks to log in again');
    if (kind === request.ok) return this.#finish();
    if (kind === request.cleartext) return this.#sendCleartext();
    if (kind === request.md5) return this.#sendMd5(reader.bytes(4));
    if (kind === request.sasl) return this.#beginScram(reader);
    if (kind === request.saslContinue && this.#scram !== undefined) {
      this.#socket.write(saslResponse(await this.#scram.answer(rest(reader))));
      return;
    }
    if (kind === request.saslFinal && this.#scram !== undefined) {
      this.#scram.finish(rest(reader));
      this.#scramProven = true;
      return;
    }
    if (kind === request.saslContinue || kind === request.saslFinal)
      throw protocolError('SCRAM goes on before it began');
    throw new HoldfastError(
      'postgres.authentication-unsupported',
      `PostgreSQL at ${this.#socket.name} asks user "${this.#settings.user}" for ${kindName(kind)}, which Holdfast does not know.`,
    );
  }

  #finish(): void {
    if (this.#scram !== undefined && !this.#scramProven) {
      throw new HoldfastError(
        'net.authentication',
        'The server ended the SCRAM exchange without proving itself.',
      );
    }
    const bound = this.#scram?.mechanism === 'SCRAM-SHA-256-PLUS';
    if (this.#settings.channelBinding === 'require' && !bound) {
      throw new HoldfastError(
        'net.authentication',
        'The settings ask for channel binding (channel_binding=require), and the server logged in without it.',
        { next: 'Use scram-sha-256 over TLS on the server, or remove channel_binding=require.' },
      );
    }
    this.done = true;
  }

  #sendCleartext(): void {
    const { sslMode, sslModeExplicit } = this.#settings;
    const said = sslMode === 'disable' && sslModeExplicit;
    if (!this.#socket.secure && !this.#socket.local && !said) {
      throw new HoldfastError(
        'postgres.cleartext-refused',
        `PostgreSQL at ${this.#socket.name} asks for the password in clear, and the connection is not encrypted.`,
      );
    }
    this.#refuseWithoutBinding();
    this.#socket.write(passwordMessage(this.#password()));
  }

  #sendMd5(salt: Buffer): void {
    this.#refuseWithoutBinding();
    const inner = md5(Buffer.from(this.#password() + this.#settings.user));
    this.#socket.write(passwordMessage(`md5${md5(Buffer.concat([Buffer.from(inner), salt]))}`));
  }

  /** Nothing derived from the password goes out where binding is a must and cannot come any more. */
  #refuseWithoutBinding(): void {
    if (this.#settings.channelBinding !== 'require') return;
    throw new HoldfastError(
      'net.authentication',
      'The settings ask for channel binding, and the server does not use SCRAM.',
      {
        next: 'Set the password again with password_encryption = scram-sha-256 and use scram-sha-256 in pg_hba.conf.',
      },
    );
  }

  #beginScram(reader: BodyReader): void {
    const offered: string[] = [];
    for (let name = reader.text(); name !== ''; name = reader.text()) offered.push(name);
    if (!offered.includes('SCRAM-SHA-256') && !offered.includes('SCRAM-SHA-256-PLUS')) {
      throw new HoldfastError(
        'postgres.authentication-unsupported',
        `PostgreSQL at ${this.#socket.name} offers only ${offered.join(', ') || 'nothing'} to log in.`,
      );
    }
    if (this.#scram !== undefined) throw protocolError('SCRAM begins twice');
    const binding = this.#binding(offered);
    if (binding.kind !== 'bound' && this.#settings.channelBinding === 'require') this.#refuseWithoutBinding();
    const scram = scramClient({ user: '', password: this.#password(), binding });
    this.#scram = scram;
    this.#socket.write(saslInitialResponse(scram.mechanism, scram.first));
  }

  #binding(offered: readonly string[]): ChannelBinding {
    const { peerCertificate } = this.#socket;
    if (this.#settings.channelBinding === 'disable' || peerCertificate === undefined) return { kind: 'none' };
    const data = tlsServerEndPoint(peerCertificate);
    if (data === undefined) return { kind: 'none' };
    return offered.includes('SCRAM-SHA-256-PLUS') ? { kind: 'bound', data } : { kind: 'unoffered' };
  }

  #password(): string {
    const password = this.#settings.password?.reveal();
    if (password !== undefined) return password;
    const { user, passwordNote } = this.#settings;
    throw new HoldfastError(
      'postgres.authentication-failed',
      `PostgreSQL at ${this.#socket.name} asks for the password of user "${user}", and none was given.${passwordNote === undefined ? '' : ` ${passwordNote}.`}`,
      { next: 'Give it in the URL, in PGPASSWORD, or in ~/.pgpass (chmod 600).' },
    );
  }
}

function rest(reader: BodyReader): string {
  return reader.bytes(reader.left).toString('utf8');
}

function md5(data: Buffer): string {
  return createHash('md5').update(data).digest('hex');
}

function kindName(kind: number): string {
  const names: Readonly<Record<number, string>> = {
    2: 'Kerberos V5',
    6: 'an SCM credential',
    7: 'GSSAPI',
    8: 'GSSAPI',
    9: 'SSPI',
  };
  return names[kind] ?? `authentication method ${kind}`;
}
