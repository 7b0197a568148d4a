/**
 * The data directory of a server on this host: found by asking, and proven to be that server's and no other's.
 * A host can have several clusters, copies of one among them, and a remote server's directory can have a
 * namesake here.
 */
import type { Stats } from 'node:fs';
import { readdir, readFile, readlink, realpath, stat } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { HoldfastError, systemErrorCode } from '../../core/errors.ts';
import type { PostgresConnection } from './wire.ts';

/** What pg_control says (src/include/catalog/pg_control.h; the same places in 13 to 18). */
export interface ControlFile {
  /** The whole file, its checksum proven. */
  readonly bytes: Buffer;
  readonly systemId: string;
  readonly catalogVersion: number;
  /** Redo position of its last checkpoint, and the timeline of that. */
  readonly redo: bigint;
  readonly timeline: number;
}

const controlPlaces = { systemId: 0, catalogVersion: 12, redo: 40, timeline: 48 } as const;
/** The checksum stands behind the last field, which differs by version: within these. */
const [checksumFrom, checksumTo] = [200, 508];
const rereads = 50;

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value & 1) === 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

/**
 * Where its own CRC-32C proves the bytes before it, or undefined. The place is searched rather than known for
 * each version: a false match has a chance of one in 2^32 for each of some 80 places, and only zeros may follow.
 */
function provenLength(bytes: Buffer): number | undefined {
  let crc = 0xffff_ffff;
  for (let at = 0; at + 4 <= Math.min(bytes.length, checksumTo); at++) {
    if (at >= checksumFrom && at % 4 === 0) {
      const rest = bytes.subarray(at + 4);
      if (bytes.readUInt32LE(at) === (crc ^ 0xffff_ffff) >>> 0 && rest.every((byte) => byte === 0)) return at;
    }
    crc = (crcTable[(crc ^ (bytes[at] as number)) & 0xff] as number) ^ (crc >>> 8);
  }
  return undefined;
}

/** Undefined when the bytes do not prove themselves: a torn read, or no pg_control. */
export function parseControlFile(bytes: Buffer): ControlFile | undefined {
  if (provenLength(bytes) === undefined) return undefined;
  return {
    bytes,
    systemId: bytes.readBigUInt64LE(controlPlaces.systemId).toString(),
    catalogVersion: bytes.readUInt32LE(controlPlaces.catalogVersion),
    redo: bytes.readBigUInt64LE(controlPlaces.redo),
    timeline: bytes.readUInt32LE(controlPlaces.timeline),
  };
}

/** Reads until the checksum is right: the server writes it in place, and a read can meet that halfway. */
export async function readControlFile(
  dataDirectory: string,
  signal: AbortSignal,
): Promise<ControlFile & { readonly stats: Stats }> {
  const path = join(dataDirectory, 'global', 'pg_control');
  for (let attempt = 0; attempt < rereads; attempt++) {
    const control = parseControlFile(await readFile(path, { signal }));
    if (control !== undefined) return { ...control, stats: await stat(path) };
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new HoldfastError(
    'postgres.data-directory',
    `The checksum of ${path} is wrong, ${rereads} times in a row: it is damaged, or of a machine with another byte order.`,
  );
}

/** What the server says about itself, to compare with what lies in a directory. */
export interface ServerIdentity {
  readonly systemId: string;
  /** Null where the role may not see it. */
  readonly dataDirectory: string | null;
  readonly port: number;
  /** Start of the postmaster, whole seconds since 1970. */
  readonly started: number;
  /** Blocks of a relation in each of its files. */
  readonly segmentBlocks: number;
}

export async function readServerIdentity(
  sql: PostgresConnection,
  signal: AbortSignal,
): Promise<ServerIdentity> {
  const [row] = await sql.rows(
    `SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system_id,
            (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory') AS data_directory,
            (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'port') AS port,
            (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'segment_size') AS segment,
            trunc(extract(epoch FROM pg_catalog.pg_postmaster_start_time()))::bigint AS started`,
    { signal },
  );
  return {
    systemId: row?.system_id ?? '',
    dataDirectory: row?.data_directory ?? null,
    port: Number(row?.port),
    started: Number(row?.started),
    segmentBlocks: Number(row?.segment),
  };
}

export interface DataDirectory {
  readonly path: string;
  /** `PG_15_202209061`. */
  readonly catalogVersion: string;
  readonly segmentBlocks: number;
  /** Whose files these are: a snapshot compares with the one before only where they are the same. */
  readonly facts: { readonly systemId: string; readonly timeline: number };
}

/**
 * Looks whether `path` is the directory in which that server runs, and may be read. Throws
 * `postgres.data-directory` with what is the matter. That it is the live one, and no copy of it, is only shown
 * once a checkpoint was made: see `proveCheckpoint`.
 */
export async function openDataDirectory(
  path: string,
  server: ServerIdentity,
  version: number,
  signal: AbortSignal,
): Promise<DataDirectory> {
  try {
    const root = await realpath(path);
    const control = await readControlFile(root, signal);
    if (control.systemId !== server.systemId) {
      throw refusal(
        path,
        `it belongs to another cluster: its system identifier is ${control.systemId}, that of the server is ${server.systemId}`,
      );
    }
    await checkPostmaster(root, server);
    await checkTablespaces(root);
    const { systemId, timeline } = control;
    return {
      path: root,
      catalogVersion: `PG_${Math.floor(version / 10_000)}_${control.catalogVersion}`,
      segmentBlocks: server.segmentBlocks,
      facts: { systemId, timeline },
    };
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'EACCES' || code === 'EPERM') {
      throw refusal(
        path,
        `this user may not read it (${code})`,
        'Run Holdfast as the user that the server runs as, or as root.',
      );
    }
    if (code === 'ENOENT' || code === 'ENOTDIR') throw refusal(path, 'it is not there, or no data directory');
    throw error;
  }
}

/** postmaster.pid: process, directory, start time, port, socket folder, address (src/include/utils/pidfile.h). */
async function checkPostmaster(root: string, server: ServerIdentity): Promise<void> {
  const text = await readFile(join(root, 'postmaster.pid'), 'utf8').catch((error: unknown) => {
    if (systemErrorCode(error) === 'ENOENT') throw refusal(root, 'no server runs in it (no postmaster.pid)');
    throw error;
  });
  const lines = text.split('\n');
  const [started, port] = [Number(lines[2]), Number(lines[3])];
  if (port !== server.port || Math.abs(started - server.started) > 2) {
    throw refusal(
      root,
      `the server that runs in it listens on port ${port} and was started at ${timeOf(started)}; the one at the address has port ${server.port} and was started at ${timeOf(server.started)}`,
    );
  }
}

function timeOf(seconds: number): string {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? 'an unknown time' : date.toISOString().slice(0, 19).concat('Z');
}

/** Links of tablespaces must lead somewhere here, and not back into the data directory. */
async function checkTablespaces(root: string): Promise<void> {
  for (const name of await readdir(join(root, 'pg_tblspc'))) {
    const link = join(root, 'pg_tblspc', name);
    const place = await realpath(link).catch((error: unknown) => {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    });
    if (place === undefined) {
      const target = await readlink(link);
      throw refusal(
        root,
        `its tablespace ${name} lies in ${target}, which is not there on this side`,
        'Make the folder of the tablespace visible under the same path (in a container: mount it there).',
      );
    }
    if (place.startsWith(root + sep) && place !== link) {
      throw refusal(
        root,
        `its tablespace ${name} lies inside of it (${place})`,
        `Move the tablespace out of the data directory, or set "snapshot: remote" in the settings of the source.`,
      );
    }
    await stat(join(place));
  }
}

/**
 * After pg_backup_start, which made a checkpoint at `start`: the live directory shows it, a copy of the
 * directory (even one with the same postmaster.pid) does not.
 */
export async function proveCheckpoint(
  directory: DataDirectory,
  start: bigint,
  signal: AbortSignal,
): Promise<void> {
  const { redo } = await readControlFile(directory.path, signal);
  if (redo >= start) return;
  throw refusal(
    directory.path,
    'it is a copy of the data directory, not the one that the server writes: the checkpoint that the server just made is not in its pg_control',
  );
}

function refusal(path: string, why: string, next?: string): HoldfastError {
  return new HoldfastError(
    'postgres.data-directory',
    `The data directory ${path} cannot be read as that of the server: ${why}.`,
    {
      ...(next === undefined ? {} : { next }),
      details: { dataDirectory: path },
    },
  );
}
