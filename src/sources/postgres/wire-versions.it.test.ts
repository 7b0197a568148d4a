/** Base backup and streaming with every supported version: their grammars and messages differ. */
import { createHash } from 'node:crypto';
import { chmod, chown, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type PostgresMajor,
  postgresBinaries,
  postgresMajors,
  requireComponent,
} from '../../../scripts/rig.ts';
import { parseConnection } from './connection.ts';
import { initScratchCluster, startServer } from './server.ts';
import { serverUser } from './server-user.ts';
import { PostgresConnection } from './wire.ts';

const there = new Map<PostgresMajor, boolean>();
for (const major of postgresMajors) there.set(major, await requireComponent(`postgres-${major}`));

describe.each([...postgresMajors])('PostgreSQL %i', (major) => {
  it.skipIf(!there.get(major))('sends a whole base backup and the WAL that belongs to it', async () => {
    const folder = await mkdtemp('/tmp/holdfast-version-');
    await chmod(folder, 0o755);
    const { binDir } = await postgresBinaries(major);
    const dataDir = join(folder, 'data');
    const space = join(folder, 'space');
    await initScratchCluster({ binDir, dataDir });
    await mkdir(space);
    const owner = await serverUser();
    if (owner !== undefined) await chown(space, owner.uid, owner.gid);
    const server = await startServer({ binDir, dataDir, settings: { fsync: 'off' } });
    try {
      const settings = parseConnection(server.url, { HOME: '/nowhere' });
      const plain = await PostgresConnection.connect(settings);
      const [number] = await plain.rows('SHOW server_version_num');
      expect(String(plain.serverVersion)).toBe(number?.server_version_num);
      await plain.query(`CREATE TABLESPACE extra LOCATION '${space}'`);
      await plain.query('CREATE TABLE t TABLESPACE extra AS SELECT generate_series(1, 30000) AS x');

      const connection = await PostgresConnection.connect(settings, { replication: true });
      await connection.createPhysicalSlot('kept', { temporary: true, reserveWal: true });
      const seen = await backUp(connection);
      expect(seen.names).toEqual([expect.stringMatching(/^\d+\.tar$/), 'base.tar']);
      expect(seen.locations).toEqual([space, null]);
      // From 15 on the server ends each archive with two zero blocks. (base.tar ends in zeros in any case: its last
      // file is pg_control, padded with them.)
      expect(seen.terminated).toEqual([major >= 15, true]);
      // The manifest ends with the SHA-256 of everything before its last line: proof that not a byte is missing.
      const at = seen.manifest.lastIndexOf('"Manifest-Checksum"');
      const said = /"([0-9a-f]{64})"/.exec(seen.manifest.subarray(at).toString())?.[1];
      expect(createHash('sha256').update(seen.manifest.subarray(0, at)).digest('hex')).toBe(said);
      const files = JSON.parse(seen.manifest.toString()).Files as { Size: number }[];
      const content = files.reduce((sum, { Size }) => sum + Size, 0);
      expect(seen.bytes).toBeGreaterThan(content);
      expect(seen.bytes).toBeLessThan(content + (files.length + 200) * 1024);

      let next = seen.startLsn;
      const onWal = (start: bigint, _end: bigint, _at: bigint, data: Uint8Array) => {
        expect(start).toBe(next);
        next += BigInt(data.length);
      };
      const options = { slot: 'kept', timeline: seen.timeline, start: seen.startLsn };
      const stream = connection.startReplication(
        options,
        { onWal, onKeepalive: () => undefined },
        AbortSignal.timeout(20_000),
      );
      await expect.poll(() => next >= seen.stopLsn, { timeout: 10_000 }).toBe(true);
      await stream.stop();
      expect(await stream.ended).toBeUndefined();
      expect((await connection.identifySystem()).timeline).toBe(1);
      await connection.close();
      await plain.close();
    } finally {
      await server.stop('immediate');
      await rm(folder, { recursive: true, force: true });
    }
  });
});

async function backUp(connection: PostgresConnection) {
  const names: string[] = [];
  const locations: (string | null)[] = [];
  const manifest: Buffer[] = [];
  const tails: Buffer[] = [];
  let startLsn = 0n;
  let bytes = 0;
  const result = await connection.baseBackup(
    { label: 'version', fast: true, manifest: true, tablespaceMap: true },
    {
      onStart: (info) => {
        startLsn = info.startLsn;
      },
      onArchive: (index, name, location) => {
        expect(index).toBe(names.length);
        names.push(name);
        locations.push(location);
        tails.push(Buffer.alloc(0));
      },
      onData: async (chunk) => {
        await Promise.resolve();
        bytes += chunk.length;
        tails.push(Buffer.concat([tails.pop()!, chunk]).subarray(-1024));
      },
      onManifest: (chunk) => void manifest.push(Buffer.from(chunk)),
    },
    AbortSignal.timeout(30_000),
  );
  const terminated = tails.map((tail) => tail.equals(Buffer.alloc(1024)));
  return { ...result, names, locations, startLsn, bytes, terminated, manifest: Buffer.concat(manifest) };
}
