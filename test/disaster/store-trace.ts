/**
 * An oracle for durability: replays the system calls that strace recorded on a model of a disk that keeps only
 * what was fsynced, and tells at each acknowledgement what a loss of power would take away.
 *
 * Strict on purpose: what was there before the trace counts as not durable until it is fsynced within it, since
 * another process may have made it and died.
 */
import { basename, dirname, join, relative } from 'node:path';

interface Call {
  readonly name: string;
  readonly args: string;
  /** undefined while unfinished. */
  result: string | undefined;
}

interface Event {
  readonly call: Call;
  readonly phase: 'start' | 'end';
}

/** The starts and ends of calls in the order of the trace (`strace -f -y -o`). */
function events(trace: string): Event[] {
  const open = new Map<string, Call>();
  const found: Event[] = [];
  for (const line of trace.split('\n')) {
    const [, pid = '', rest = ''] = /^(\d+)\s+(.*)$/.exec(line) ?? [];
    const resumed = /^<\.\.\. (\w+) resumed>.*\)\s+= (.*)$/.exec(rest);
    const whole = /^(\w+)\((.*)\)\s+= (.*)$/.exec(rest);
    const unfinished = /^(\w+)\((.*) <unfinished \.\.\.>$/.exec(rest);
    if (resumed) {
      const call = open.get(pid);
      if (call === undefined || call.name !== resumed[1]) throw new Error(`trace out of step: ${line}`);
      call.result = resumed[2];
      found.push({ call, phase: 'end' });
    } else if (whole || unfinished) {
      const [, name = '', args = '', result] = (whole ?? unfinished)!;
      const call: Call = { name, args, result };
      found.push({ call, phase: 'start' });
      if (whole) found.push({ call, phase: 'end' });
      else open.set(pid, call);
    }
  }
  return found;
}

const strings = (args: string) => [...args.matchAll(/"([^"]*)"/g)].map((match) => match[1] ?? '');
const descriptorPath = (args: string) => /^\d+<([^>]*)>/.exec(args)?.[1] ?? '';

class Disk {
  /** Path → the file behind it; two paths of one file share the object. */
  readonly files = new Map<string, { durable: boolean }>();
  /** Entries of folders that would survive. */
  readonly entries = new Set<string>();

  file(path: string) {
    const known = this.files.get(path) ?? { durable: false };
    this.files.set(path, known);
    return known;
  }

  fsync(path: string, before: readonly string[]): void {
    this.file(path).durable = true;
    for (const entry of before) this.entries.add(entry);
  }

  missing(root: string, name: string): string[] {
    const lacking = this.file(join(root, name)).durable ? [] : [`the bytes of ${name}`];
    for (let path = join(root, name); relative(root, path) !== ''; path = dirname(path)) {
      if (!this.entries.has(path))
        lacking.push(`the entry ${basename(path)} in ${relative(root, dirname(path)) || '.'}`);
    }
    return lacking;
  }
}

const isFsync = (call: Call) => call.name === 'fsync' || call.name === 'fdatasync';

/** How many fsyncs the trace holds. */
export function countFsyncs(trace: string): number {
  return events(trace).filter(({ call, phase }) => phase === 'start' && isFsync(call)).length;
}

/**
 * For each acknowledged object what would be lost with the power at that moment; all empty is right.
 * `without`: the number of an fsync to leave out, counted from 0.
 */
export function lostAtAcknowledgement(
  trace: string,
  root: string,
  without?: number,
): { name: string; lost: string[] }[] {
  const disk = new Disk();
  const acknowledged: { name: string; lost: string[] }[] = [];
  /** Every path seen to exist under root; a folder's fsync makes those in it durable that were there at its start. */
  const existing = new Set<string>();
  const atStart = new Map<Call, readonly string[]>();
  const all = events(trace);
  const fsyncs = all.flatMap(({ call, phase }) => (phase === 'start' && isFsync(call) ? [call] : []));
  const leftOut = without === undefined ? undefined : fsyncs[without];
  for (const { call, phase } of all) {
    if (call === leftOut) continue;
    const { name, args } = call;
    if (phase === 'start') {
      if (isFsync(call))
        atStart.set(
          call,
          [...existing].filter((path) => dirname(path) === descriptorPath(args)),
        );
      const ack = /^1<[^>]*>, "ACK (\S+) /.exec(args)?.[1];
      if (name === 'write' && ack !== undefined)
        acknowledged.push({ name: ack, lost: disk.missing(root, ack) });
      else if (/^p?writev?(64)?$/.test(name)) disk.file(descriptorPath(args)).durable = false;
    } else if (!call.result?.startsWith('-1') || /EEXIST/.test(call.result)) {
      const paths = strings(args);
      if (isFsync(call)) disk.fsync(descriptorPath(args), atStart.get(call) ?? []);
      else if (/^link(at)?$/.test(name)) {
        const [from = '', to = ''] = paths;
        existing.add(to);
        if (!call.result?.startsWith('-1')) {
          disk.files.set(to, disk.file(from));
          disk.entries.delete(to);
        }
      } else if (/^(mkdir(at)?|openat)$/.test(name) && paths[0] !== undefined) existing.add(paths[0]);
    }
  }
  return acknowledged;
}
