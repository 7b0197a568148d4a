/**
 * Makes the test vectors of format 1 out of fixed keys. Secrets in the vectors are known to everybody and serve
 * nothing else. Sealing draws random numbers, so that each run gives other bytes of the same meaning.
 */
import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bech32 } from '@scure/base';
import { base64, encodeCanonical } from '../../src/repository/codec.ts';
import { encodeCommits } from '../../src/repository/commit-index.ts';
import type { LogStretch } from '../../src/repository/contract.ts';
import { wrapKeys } from '../../src/repository/keys.ts';
import { ListingWriter } from '../../src/repository/listing.ts';
import { encodeSection, finishPart, type PartPlace, preparePart } from '../../src/repository/log-part.ts';
import { PACK_BYTES, PackWriter, packName } from '../../src/repository/pack.ts';
import { encodePackList, packListName } from '../../src/repository/pack-list.ts';
import { decodeIdentity } from '../../src/repository/recipient.ts';
import { decodeRoster, encodeRoster, rosterName, rosterWriter } from '../../src/repository/roster.ts';
import { encodeDocument } from '../../src/repository/signed-document.ts';
import { signingKey } from '../../src/repository/signing.ts';
import { encodeManifest, snapshotName } from '../../src/repository/snapshot.ts';

const seed = (text: string): Buffer => createHash('sha256').update(`vector ${text}`).digest();

const repository = 'vectorvectorvect';
const passphrase = 'this passphrase is public';
const created = 1_700_000_000_000;
const identity = bech32.encodeFromBytes('age-secret-key-', seed('identity')).toUpperCase();
const admin = signingKey(seed('admin'));
const host = signingKey(seed('host'));
const objects = new Map<string, Uint8Array>();

for (const key of await wrapKeys(identity, admin.seed, { label: 'passphrase', passphrase })) {
  objects.set(key.name, key.content);
}
const roster = {
  number: 1,
  previous: null,
  epoch: 1,
  recipients: [decodeIdentity(identity).recipient],
  writers: [rosterWriter(host, 'vector host', created)],
};
const rosterBytes = encodeRoster(repository, roster, admin);
objects.set(rosterName(repository, 1), rosterBytes);
const root = {
  format: 1,
  type: 'repository',
  repository,
  created,
  adminKey: base64(admin.publicKey),
  parameters: { packBytes: PACK_BYTES, frameBytes: 1 << 20 },
};
objects.set('holdfast.json', encodeDocument('repository', root, admin));
const loaded = decodeRoster(rosterBytes, repository, admin.publicKey, 'roster');

const context = { repository, source: 'db', writer: host.id, epoch: 1, recipients: loaded.recipientKeys };
function pack(frames: readonly Uint8Array[]) {
  const buffer = new Uint8Array(PACK_BYTES);
  const writer = new PackWriter(context, 1, buffer);
  for (const frame of frames) writer.frame(frame);
  const binding = writer.finish();
  objects.set(packName(binding.digest), buffer.slice(0, binding.bytes));
  return binding;
}

const zeros = new Uint8Array(1000);
const random = Buffer.concat(Array.from({ length: 4 }, (_, i) => seed(`random ${i}`)));
const data = pack([zeros, random, Buffer.from('hello world')]);
const files = [
  { path: 'folder', type: 'directory', mode: 0o750, size: 0, extents: [] },
  { path: 'folder/link', type: 'symlink', mode: 0o777, target: '../hello', size: 0, extents: [] },
  {
    path: 'hello',
    type: 'file',
    mode: 0o640,
    mtime: created,
    size: 5,
    extents: [{ length: 5, pack: data.digest, frame: 2, offset: 0 }],
  },
  {
    path: 'folder/mixed é\n',
    type: 'file',
    mode: 0o600,
    size: 2150,
    extents: [
      { length: 1000, pack: data.digest, frame: 0, offset: 0 },
      { length: 1022, pack: null, frame: 0, offset: 0 },
      { length: 128, pack: data.digest, frame: 1, offset: 0 },
    ],
  },
] as const;
const chunks: Uint8Array[] = [];
const listingWriter = new ListingWriter((chunk) => chunks.push(chunk));
for (const file of files) listingWriter.add(file);
listingWriter.flush();
const listing = pack(chunks);
const list = encodePackList([data, listing]);
objects.set(packListName(list.digest), list.content);
const facts = {
  lineage: '7:1',
  ancestors: [{ lineage: '7:0', position: '0000000000000010' }],
  from: '0000000000000100',
  to: '0000000000000200',
  sourceStarted: created,
  sourceFinished: created + 1000,
  meta: { version: 170002 },
  warnings: ['a warning'],
};
const stats = { files: 2, bytes: 2155, storedBytes: data.bytes + listing.bytes, packs: 2, durationMs: 7 };
const id = '20231114T221320Z-aaaaaaaa';
const manifest = encodeManifest(
  {
    repository,
    id,
    source: 'db',
    kind: 'postgres',
    sequence: 1,
    previous: null,
    roster: loaded,
    started: created,
    finished: created + 2000,
    facts,
    body: {
      lists: [{ digest: list.digest, bitmap: null }],
      listing: chunks.map((_, frame) => ({ pack: listing.digest, frame })),
      meta: facts.meta,
      warnings: facts.warnings,
      stats,
    },
  },
  host,
);
objects.set(snapshotName('db', id, manifest.digest), Buffer.concat(manifest.content));

function part(stretch: LogStretch, place: PartPlace): string {
  const options = { repository, source: 'db', kind: 'postgres', place, roster: loaded, writer: host.id, closed: created };
  const { header, section } = preparePart(options, stretch);
  const made = finishPart('db', stretch, place, header, encodeSection(section), host);
  objects.set(made.name, Buffer.concat(made.content));
  return made.digest;
}
const log = Buffer.from('the first part, the second part');
const commits = [
  { position: 3n, time: 1_700_000_000_000_001n, id: 700n },
  { position: 9n, time: 1_699_999_999_999_999n, id: 699n },
  { position: 20n, time: 1_700_000_000_500_000n, id: 4_294_967_296n },
];
const common = { lineage: '7:1', ancestors: [], meta: { end: 'x' } };
const stream = '20231114T221320Z-bbbbbbbb';
const first: LogStretch = { ...common, from: '00', to: '0F', data: [log.subarray(0, 15)], commits: commits.slice(0, 2) };
const second: LogStretch = { ...common, from: '0F', to: '1F', data: [log.subarray(15)], commits: commits.slice(2) };
const firstPlace = { stream, sequence: 0, previous: null, replaces: null };
const firstDigest = part(first, firstPlace);
const secondDigest = part(second, { stream, sequence: 1, previous: firstDigest, replaces: null });
part(
  { ...common, from: '00', to: '1F', data: [log], commits },
  { ...firstPlace, replaces: { last: 1, digest: secondDigest } },
);

const canonical = { b: [1, -2, null, true], a: { é: '\u2028\n"', '': 9007199254740991 } };
const folder = import.meta.dirname;
await mkdir(folder, { recursive: true });
const entries = [...objects].sort(([a], [b]) => (a < b ? -1 : 1));
const text = (value: unknown) => `${JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? String(v) : v), 2)}\n`;
await writeFile(
  join(folder, 'objects.json'),
  text(Object.fromEntries(entries.map(([name, bytes]) => [name, base64(bytes)]))),
);
await writeFile(
  join(folder, 'expected.json'),
  text({
    notice: 'Everything here is public and for tests only, the secrets too.',
    passphrase,
    identity,
    recipient: decodeIdentity(identity).recipient,
    adminSeed: base64(admin.seed),
    adminKey: base64(admin.publicKey),
    writerSeed: base64(host.seed),
    writer: host.id,
    repository,
    canonical: { value: canonical, text: Buffer.from(encodeCanonical(canonical)).toString('utf8') },
    commits: { rows: commits, bytes: base64(encodeCommits(commits)) },
    base32: { '': '', '00': 'aa', ff00ff: '74ap6', '0123456789': 'aerukz4j' },
    snapshot: { id, meta: facts.meta, warnings: facts.warnings, stats },
    files: {
      hello: base64(Buffer.from('hello')),
      'folder/mixed é\n': base64(Buffer.concat([zeros, new Uint8Array(1022), random])),
    },
    log: log.toString('utf8'),
    stream,
  }),
);
