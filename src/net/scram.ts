/**
 * The client's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; channel binding
 * tls-server-end-point of RFC 5929). Both sides prove that they know the password; nobody on the way learns it.
 */
import {
  createHash,
  createHmac,
  pbkdf2,
  randomBytes,
  timingSafeEqual,
  type X509Certificate,
} from 'node:crypto';
import { promisify } from 'node:util';
import { HoldfastError } from '../core/errors.ts';
import { saslPrep } from './sasl-prep.ts';

const derive = promisify(pbkdf2);

export type ScramMechanism = 'SCRAM-SHA-256' | 'SCRAM-SHA-256-PLUS';

/**
 * Whether the exchange is bound to the TLS connection: bound to it; not bound although this side could
 * (`unoffered`: the server must refuse if it could too, which exposes a downgrade); this side cannot.
 */
export type ChannelBinding =
  | { readonly kind: 'bound'; readonly data: Buffer }
  | { readonly kind: 'unoffered' }
  | { readonly kind: 'none' };

export interface ScramOptions {
  /** Sent as the user name; PostgreSQL takes the one of the startup message and ignores this. */
  readonly user: string;
  readonly password: string;
  readonly binding: ChannelBinding;
  /** For test vectors. */
  readonly nonce?: string;
}

/**
 * A server that asks for more iterations than this would only burn our CPU: PostgreSQL's default is 4,096 and
 * OWASP's advice of 2023 is 600,000.
 */
const mostIterations = 10_000_000;

export interface ScramClient {
  readonly mechanism: ScramMechanism;
  /** The first message, to be sent at once. */
  readonly first: string;
  /** Answers the server's first message. Throws `net.authentication` when it is malformed or of another exchange. */
  answer(serverFirst: string): Promise<string>;
  /** Checks the server's proof. Throws `net.authentication` unless the server knows the password too. */
  finish(serverFinal: string): void;
}

/** Begins an exchange. Use it once. */
export function scramClient(options: ScramOptions): ScramClient {
  const { binding } = options;
  const header =
    binding.kind === 'bound' ? 'p=tls-server-end-point,,' : binding.kind === 'unoffered' ? 'y,,' : 'n,,';
  const nonce = options.nonce ?? randomBytes(18).toString('base64');
  const firstBare = `n=${escapeName(options.user)},r=${nonce}`;
  let serverSignature: Buffer | undefined;

  return {
    mechanism: binding.kind === 'bound' ? 'SCRAM-SHA-256-PLUS' : 'SCRAM-SHA-256',
    first: header + firstBare,

    async answer(serverFirst) {
      const challenge = parseChallenge(serverFirst, nonce);
      const bound = Buffer.concat([
        Buffer.from(header),
        binding.kind === 'bound' ? binding.data : Buffer.alloc(0),
      ]);
      const withoutProof = `c=${bound.toString('base64')},r=${challenge.nonce}`;
      const authMessage = `${firstBare},${serverFirst},${withoutProof}`;
      const salted = await derive(
        saslPrep(options.password),
        challenge.salt,
        challenge.iterations,
        32,
        'sha256',
      );
      const clientKey = hmac(salted, 'Client Key');
      const proof = hmac(createHash('sha256').update(clientKey).digest(), authMessage);
      for (let i = 0; i < proof.length; i++) proof[i]! ^= clientKey[i]!;
      serverSignature = hmac(hmac(salted, 'Server Key'), authMessage);
      return `${withoutProof},p=${proof.toString('base64')}`;
    },

    finish(serverFinal) {
      const signature = /^v=([A-Za-z0-9+/]+={0,2})(?:,|$)/.exec(serverFinal)?.[1];
      if (signature === undefined || serverSignature === undefined)
        throw malformed('its last message has no proof');
      const given = Buffer.from(signature, 'base64');
      if (given.length !== serverSignature.length || !timingSafeEqual(given, serverSignature)) {
        throw new HoldfastError(
          'net.authentication',
          'The server does not know the password of this user: its proof is wrong. The connection was given up.',
        );
      }
    },
  };
}

/**
 * What SCRAM-SHA-256-PLUS binds to: the hash of the server's certificate, by the hash function of its own
 * signature (RFC 5929: SHA-256 in place of MD5 and SHA-1). Undefined where the signature names no single hash
 * function (Ed25519; RSA-PSS, whose parameters Node does not tell): then there is no channel binding.
 */
export function tlsServerEndPoint(certificate: X509Certificate): Buffer | undefined {
  const hash = signatureHashes[certificate.signatureAlgorithmOid ?? ''];
  return hash === undefined ? undefined : createHash(hash).update(certificate.raw).digest();
}

const signatureHashes: Readonly<Record<string, string>> = {
  '1.2.840.113549.1.1.4': 'sha256', // RSA with MD5
  '1.2.840.113549.1.1.5': 'sha256', // RSA with SHA-1
  '1.2.840.113549.1.1.14': 'sha224',
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
  '1.2.840.113549.1.1.13': 'sha512',
  '1.2.840.10045.4.1': 'sha256', // ECDSA with SHA-1
  '1.2.840.10045.4.3.1': 'sha224',
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
};

function parseChallenge(message: string, nonce: string): { nonce: string; salt: Buffer; iterations: number } {
  const match = /^r=([!-+\--~]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9][0-9]{0,9})(?:,|$)/.exec(message);
  if (!match) throw malformed('its first message is not one of SCRAM');
  const [, full = '', salt = '', count = ''] = match;
  if (!full.startsWith(nonce) || full.length === nonce.length)
    throw malformed('it did not answer this very exchange');
  const iterations = Number(count);
  if (iterations > mostIterations) throw malformed(`it asks for ${iterations} rounds of hashing`);
  return { nonce: full, salt: Buffer.from(salt, 'base64'), iterations };
}

function malformed(reason: string): HoldfastError {
  return new HoldfastError('net.authentication', `The SCRAM exchange with the server failed: ${reason}.`);
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}

function escapeName(name: string): string {
  return name.replaceAll('=', '=3D').replaceAll(',', '=2C');
}
