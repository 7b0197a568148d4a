/** What the file system's errors mean to a person whose repository is a folder. */
import { constants } from 'node:os';
import { type ErrorCode, HoldfastError, systemErrorCode } from '../core/errors.ts';

interface Meaning {
  readonly code: ErrorCode;
  readonly why: string;
  readonly next?: (root: string) => string;
}

const full: Meaning = {
  code: 'storage.full',
  why: 'no space is left',
  next: (root) =>
    `See \`df -h ${root}\` and \`df -i ${root}\`, free space there, then run the command again.`,
};
const denied: Meaning = {
  code: 'storage.denied',
  why: 'this user has not the right',
  next: (root) =>
    `See \`ls -ld ${root}\` and \`lsattr -d ${root}\`, and run as the user that owns the repository or give this one the right.`,
};
const gone: Meaning = {
  code: 'storage.unreachable',
  why: 'the folder or its disk is gone',
  next: (root) => `See \`findmnt -T ${root}\`, mount the disk of ${root} again, then run the command again.`,
};

const file: Meaning = {
  code: 'storage.unreachable',
  why: 'a part of the path is a file and not a folder',
  next: (root) => `See \`ls -ld ${root}\`; the repository must be a folder.`,
};

const meanings: Readonly<Record<string, Meaning>> = {
  ENOSPC: full,
  EDQUOT: { ...full, why: 'the disk quota is used up' },
  EFBIG: { ...full, why: 'a limit on the size of files is reached (`ulimit -f`)' },
  EACCES: denied,
  EPERM: denied,
  EROFS: { code: 'storage.read-only', why: 'its file system is read-only' },
  EIO: { code: 'storage.failed', why: 'the disk reported an error' },
  EMFILE: {
    code: 'storage.failed',
    why: 'this process has too many open files',
    next: () => 'Raise the limit (`ulimit -n`), then run the command again.',
  },
  ENOTDIR: file,
  EEXIST: file,
  ENOENT: { ...gone, why: 'there is no such folder: it was never made, or its disk is not mounted' },
  ENODEV: gone,
  ENXIO: gone,
  ENOTCONN: gone,
  ESTALE: gone,
  EHOSTDOWN: { ...gone, why: 'the file server is down' },
  ETIMEDOUT: { ...gone, why: 'the file server did not answer' },
};

const namesByNumber = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

/** The name of a system error; undefined for all others. */
function systemName(error: unknown): string | undefined {
  const code = error instanceof HoldfastError ? undefined : systemErrorCode(error);
  // Node names only the errors that libuv knows, which EDQUOT and ESTALE are not: "Unknown system error -122".
  const unnamed = /^Unknown system error -(\d+)$/.exec(code ?? '')?.[1];
  if (unnamed !== undefined) return namesByNumber.get(Number(unnamed)) ?? `E${unnamed}`;
  return code !== undefined && /^E[A-Z0-9]+$/.test(code) ? code : undefined;
}

/** The error to throw for `error`: system errors get a code and a remedy, all others come back unchanged. */
export function localError(error: unknown, doing: string, root: string): unknown {
  const system = systemName(error);
  if (system === undefined) return error;
  const meaning = meanings[system] ?? { code: 'storage.failed' as const, why: 'the system refused' };
  return new HoldfastError(
    meaning.code,
    `Could not ${doing} in the repository's folder ${root}: ${meaning.why} (${system}).`,
    {
      cause: error,
      details: { root, system },
      ...(meaning.next === undefined ? {} : { next: meaning.next(root) }),
    },
  );
}
