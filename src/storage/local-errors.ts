/** What the file system's errors mean to a person whose repository is a folder. */
import { constants, userInfo } from 'node:os';
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
  if (system === 'EACCES' || system === 'EPERM') return deniedError(error, doing, root, system);
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

/** Names the user and the folder first: which object it happened to be is of no help in mending it. */
function deniedError(error: unknown, doing: string, root: string, system: string): HoldfastError {
  const path = pathOf(error) ?? root;
  const user = userName();
  const verb = /^(read|look|list|open)/.test(doing) ? 'read' : 'write';
  return new HoldfastError(
    'storage.denied',
    `The user ${user} may not ${verb} in the repository's folder ${root} (${system} at ${path}, trying to ${doing}).`,
    {
      cause: error,
      details: { root, system, path, user },
      next: `Run as the user that owns it (see \`ls -ld '${root}'\`), or as root give it to this one: chown -R ${user} '${root}' && chmod -R u+rwX '${root}'${system === 'EPERM' ? `. Where the rights are there already, see \`lsattr -d '${root}'\`` : ''}`,
    },
  );
}

function pathOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('path' in error)) return undefined;
  return typeof error.path === 'string' ? error.path : undefined;
}

/** By number where the system has no name for it, as in many containers. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.() ?? 'of this process');
  }
}
