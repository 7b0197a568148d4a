/**
 * A reader written from docs/03-format.md alone, with nothing but Node's crypto and zlib: what it reads proves
 * that the page is enough. It must never import from this folder.
 */
import {
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
  scryptSync,
  verify,
} from 'node:crypto';
import { zstdDecompressSync } from 'node:zlib';

export type Objects = Readonly<Record<string, string>>;
// biome-ignore lint/suspicious/noExplicitAny: what comes out of JSON is judged by the tests.
type Dict = Record<string, any>;

const sha = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();
const hkdf = (secret: Uint8Array, salt: Uint8Array | string, info: string): Buffer =>
  Buffer.from(hkdfSync('sha256', secret, salt, info, 32));
const raw = (prefix: string, key: Uint8Array): Buffer => Buffer.concat([Buffer.from(prefix, 'hex'), key]);
const x25519Private = (key: Uint8Array) =>
  createPrivateKey({ key: raw('302e020100300506032b656e04220420', key), format: 'der', type: 'pkcs8' });
const x25519Public = (key: Uint8Array) =>
  createPublicKey({ key: raw('302a300506032b656e032100', key), format: 'der', type: 'spki' });

export function check(truth: boolean, what: string): void {
  if (!truth) throw new Error(what);
}

export function canonical(value: Dict[string]): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  return `{${Object.keys(value)
    .sort()
    .map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`)
    .join(',')}}`;
}

export function base32(bytes: Uint8Array): string {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  const groups = bits.match(/.{1,5}/g) ?? [];
  return groups
    .map((group) => 'abcdefghijklmnopqrstuvwxyz234567'[Number.parseInt(group.padEnd(5, '0'), 2)])
    .join('');
}

function chacha(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array): Buffer {
  const decipher = createDecipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 });
  decipher.setAuthTag(sealed.subarray(sealed.length - 16));
  return Buffer.concat([decipher.update(sealed.subarray(0, sealed.length - 16)), decipher.final()]);
}

/** An age file for one passphrase, of one chunk. */
export function openAge(file: Buffer, passphrase: string): string {
  const end = file.indexOf('\n---') + 1;
  const lines = file.toString('latin1', 0, end).split('\n');
  const [, , salt = '', work = ''] = (lines[1] ?? '').split(' ');
  const saltBytes = Buffer.concat([Buffer.from('age-encryption.org/v1/scrypt'), Buffer.from(salt, 'base64')]);
  const wrap = scryptSync(passphrase, saltBytes, 32, { N: 2 ** Number(work), r: 8, p: 1, maxmem: 1 << 28 });
  const fileKey = chacha(wrap, Buffer.alloc(12), Buffer.from(lines[2] ?? '', 'base64'));
  const payload = file.subarray(file.indexOf('\n', end) + 1);
  const nonce = Buffer.alloc(12);
  nonce[11] = 1;
  return chacha(hkdf(fileKey, payload.subarray(0, 16), 'payload'), nonce, payload.subarray(16))
    .toString()
    .trim();
}

function bech32(text: string): Buffer {
  const lower = text.toLowerCase();
  const words = [...lower.slice(lower.lastIndexOf('1') + 1, -6)].map((c) =>
    'qpzry9x8gf2tvdw0s3jn54khce6mua7l'.indexOf(c),
  );
  const bits = words.map((word) => word.toString(2).padStart(5, '0')).join('');
  return Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
}

function signed(publicKey: Uint8Array, domain: string, bytes: Uint8Array, signature: Uint8Array): boolean {
  const key = createPublicKey({
    key: raw('302a300506032b6570032100', publicKey),
    format: 'der',
    type: 'spki',
  });
  return verify(null, Buffer.concat([Buffer.from(`holdfast/1/${domain}\0`), bytes]), key, signature);
}

export class IndependentReader {
  readonly objects: Map<string, Buffer>;
  readonly root: Dict;
  readonly roster: Dict;
  readonly identity: Buffer;

  constructor(objects: Objects, passphrase: string) {
    this.objects = new Map(
      Object.entries(objects).map(([name, text]) => [name, Buffer.from(text, 'base64')]),
    );
    const keyName = [...this.objects.keys()].find((name) => /^keys\/.*\.data\.age$/.test(name)) as string;
    this.identity = bech32(openAge(this.object(keyName), passphrase));
    this.root = this.document('holdfast.json', 'repository', undefined);
    this.roster = this.document(`roster/00000001-${this.root.repository}.json`, 'roster', this.root.adminKey);
  }

  object(name: string): Buffer {
    const bytes = this.objects.get(name);
    if (bytes === undefined) throw new Error(`no ${name}`);
    return bytes;
  }

  document(name: string, domain: string, adminKey: string | undefined): Dict {
    const text = this.object(name).toString('utf8');
    const { body, signature } = JSON.parse(text);
    check(canonical({ body, signature }) === text, 'canonical');
    const key = Buffer.from(adminKey ?? body.adminKey, 'base64');
    check(signed(key, domain, Buffer.from(canonical(body)), Buffer.from(signature, 'base64')), 'signature');
    return body;
  }

  section(core: Dict, section: Buffer): { frames: Buffer[]; extensions: Map<number, Buffer> } {
    const { mac, ...claims } = core;
    const own = createPublicKey(x25519Private(this.identity))
      .export({ format: 'der', type: 'spki' })
      .subarray(-32);
    const { share, body } = core.recipients[0];
    const shared = diffieHellman({
      privateKey: x25519Private(this.identity),
      publicKey: x25519Public(Buffer.from(share, 'base64')),
    });
    const wrap = hkdf(
      shared,
      Buffer.concat([Buffer.from(share, 'base64'), own]),
      'age-encryption.org/v1/X25519',
    );
    const secret = chacha(wrap, Buffer.alloc(12), Buffer.from(body, 'base64'));
    const hmac = createHmac('sha256', hkdf(secret, '', 'holdfast/1/header'))
      .update(canonical(claims))
      .digest('base64');
    check(hmac === mac, 'mac');
    const digest = sha(Buffer.from(canonical(core)));
    const key = hkdf(secret, digest, 'holdfast/1/frames');
    const open = (number: number, flags: number, plain: number, sealed: Buffer): Buffer => {
      const nonce = Buffer.alloc(12);
      nonce.writeUInt32BE(number, 8);
      const tail = Buffer.alloc(9);
      tail.writeUInt32BE(number, 0);
      tail[4] = flags;
      tail.writeUInt32BE(plain, 5);
      const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
      decipher.setAAD(Buffer.concat([Buffer.from('holdfast/1/frame\0'), digest, tail]));
      decipher.setAuthTag(sealed.subarray(-16));
      const bytes = Buffer.concat([decipher.update(sealed.subarray(0, -16)), decipher.final()]);
      const opened = flags & 2 ? zstdDecompressSync(bytes) : bytes;
      check(opened.length === plain, 'plain length');
      return opened;
    };
    const trailer = section.subarray(-16);
    check(trailer.toString('latin1', 12) === 'HFE1', 'trailer');
    const footerAt = section.length - 16 - trailer.readUInt32BE(0);
    const footer = open(
      0xffffffff,
      trailer[8] as number,
      trailer.readUInt32BE(4),
      section.subarray(footerAt, -16),
    );
    const frames: Buffer[] = [];
    let at = 4;
    let place = 0;
    for (let i = 0; i < footer.readUInt32BE(0); i++, at += 9) {
      const length = footer.readUInt32BE(at);
      frames.push(
        open(
          i,
          footer[at + 8] as number,
          footer.readUInt32BE(at + 4),
          section.subarray(place, place + length),
        ),
      );
      place += length;
    }
    check(place === footerAt, 'frames cover');
    const extensions = new Map<number, Buffer>();
    while (at < footer.length) {
      const length = footer.readUInt32BE(at + 2);
      extensions.set(footer.readUInt16BE(at), footer.subarray(at + 6, at + 6 + length));
      at += 6 + length;
    }
    return { frames, extensions };
  }

  signedObject(name: string, magic: string, domain: string) {
    const bytes = this.object(name);
    check(name.endsWith(sha(bytes).toString('hex')), 'name');
    check(bytes.toString('latin1', 0, 8) === magic, 'magic');
    const end = 12 + bytes.readUInt32BE(8);
    const header = JSON.parse(bytes.toString('utf8', 12, end)) as Dict;
    const writer = this.roster.writers.find(({ id }: Dict) => id === header.writer);
    check(base32(sha(Buffer.from(writer.publicKey, 'base64'))).slice(0, 16) === writer.id, 'writer id');
    const valid = signed(
      Buffer.from(writer.publicKey, 'base64'),
      domain,
      bytes.subarray(12, end),
      bytes.subarray(end, end + 64),
    );
    check(valid, 'signature');
    const section = bytes.subarray(end + 64);
    const { sealed, ...core } = header;
    check(sealed.bytes === section.length && sealed.sha256 === sha(section).toString('hex'), 'sealed');
    return { header, ...this.section(core, section) };
  }

  snapshot(name: string) {
    const { header, frames } = this.signedObject(name, 'HFSNAP1\n', 'snapshot');
    const body = JSON.parse((frames[0] as Buffer).toString('utf8')) as Dict;
    check(canonical(body.lists) === canonical(header.lists), 'lists');
    const packs = new Map<string, Buffer[]>();
    for (const { digest } of body.lists) {
      const list = this.object(`lists/${digest}`);
      check(sha(list).toString('hex') === digest && list.toString('latin1', 0, 8) === 'HFLIST1\n', 'list');
      for (let i = 0, at = 12; i < list.readUInt32BE(8); i++, at += 68) {
        const pack = list.toString('hex', at, at + 32);
        const bytes = this.object(`packs/${pack.slice(0, 2)}/${pack}`);
        const end = 12 + bytes.readUInt32BE(8);
        const core = bytes.subarray(12, end);
        check(sha(bytes).toString('hex') === pack && bytes.length === list.readUInt32BE(at + 64), 'pack');
        check(sha(core).equals(list.subarray(at + 32, at + 64)), 'pack header');
        packs.set(pack, this.section(JSON.parse(core.toString('utf8')), bytes.subarray(end)).frames);
      }
    }
    const files = new Map<string, Buffer>();
    let path = '';
    for (const chunk of body.listing) {
      const [head = '', ...lines] = ((packs.get(chunk.pack) as Buffer[])[chunk.frame] as Buffer)
        .toString('utf8')
        .trim()
        .split('\n');
      const names = JSON.parse(head).packs as string[];
      for (const line of lines.map((text) => JSON.parse(text) as Dict)) {
        if (line.more !== true) {
          path = line.path;
          if (line.type === 'file') files.set(path, Buffer.alloc(0));
        }
        const x = (line.x ?? []) as number[];
        for (let i = 0; i < x.length; i += 4) {
          const [length = 0, pack = 0, frame = 0, offset = 0] = x.slice(i, i + 4);
          const bytes =
            pack < 0
              ? Buffer.alloc(length)
              : ((packs.get(names[pack] as string) as Buffer[])[frame] as Buffer).subarray(
                  offset,
                  offset + length,
                );
          files.set(path, Buffer.concat([files.get(path) as Buffer, bytes]));
        }
      }
    }
    return { header, body, files };
  }

  logPart(name: string) {
    const { header, frames, extensions } = this.signedObject(name, 'HFLOGP1\n', 'log-part');
    const commits = extensions.get(2) as Buffer;
    return {
      header,
      data: Buffer.concat(frames),
      meta: JSON.parse((extensions.get(1) as Buffer).toString()),
      commits,
    };
  }
}

export function readCommits(bytes: Buffer): string[][] {
  let at = 4;
  const count = bytes.readUInt32BE(0);
  const columns = [0, 1, 2].map(() => {
    let last = 0n;
    return Array.from({ length: count }, () => {
      let value = 0n;
      let shift = 0n;
      for (;;) {
        const byte = bytes[at++] as number;
        value |= BigInt(byte & 127) << shift;
        shift += 7n;
        if (byte < 128) break;
      }
      last += value & 1n ? -(value + 1n) / 2n : value / 2n;
      return String(last);
    });
  });
  check(at === bytes.length, 'rest');
  return Array.from({ length: count }, (_, i) => columns.map((column) => column[i] as string));
}
