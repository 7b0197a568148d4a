/** CPU time and memory of a process and everything that it started, from /proc. Linux only. */

import { readFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';

/** USER_HZ: the unit of /proc/<pid>/stat is fixed at this for user space, whatever the kernel's own tick. */
const ticksPerSecond = 100;

/** CPU seconds of all processes that this one started and that have ended (and were waited for). */
export function endedChildrenCpu(): number {
  const { childrenUser, childrenSystem } = readStat(readFileSync('/proc/self/stat', 'utf8'));
  return childrenUser + childrenSystem;
}

/** CPU seconds so far of a running tree. 0 for one that is gone. */
export async function treeCpu(pid: number): Promise<number> {
  let seconds = 0;
  for (const member of await treeOf(pid)) {
    const stat = await read(`/proc/${member}/stat`);
    if (stat === null) continue;
    const { user, system, childrenUser, childrenSystem } = readStat(stat);
    seconds += user + system + childrenUser + childrenSystem;
  }
  return seconds;
}

export interface TreeMemory {
  /** Proportional set size: memory shared by several processes counts once among them. */
  readonly pssMib: number;
  /** Resident: what it would be where no other process maps the same programs. */
  readonly rssMib: number;
}

/** Memory now of a running tree. */
export async function treeMemory(pid: number): Promise<TreeMemory> {
  let [pss, rss] = [0, 0];
  for (const member of await treeOf(pid)) {
    const rollup = await read(`/proc/${member}/smaps_rollup`);
    if (rollup === null) continue;
    pss += kib(rollup, 'Pss');
    rss += kib(rollup, 'Rss');
  }
  return { pssMib: pss / 1024, rssMib: rss / 1024 };
}

function kib(rollup: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1] ?? 0);
}

async function treeOf(root: number): Promise<number[]> {
  const members = [root];
  for (let i = 0; i < members.length; i++) {
    const threads = await readdir(`/proc/${members[i]}/task`).catch(() => []);
    for (const thread of threads) {
      const children = await read(`/proc/${members[i]}/task/${thread}/children`);
      for (const child of children?.split(' ') ?? []) if (child !== '') members.push(Number(child));
    }
  }
  return members;
}

/** Null when the process is gone, which may happen at any moment. */
async function read(path: string): Promise<string | null> {
  return await readFile(path, 'utf8').catch(() => null);
}

function readStat(stat: string) {
  // The second field is the program's name in parentheses and may hold anything.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const seconds = (index: number) => Number(fields[index]) / ticksPerSecond;
  return { user: seconds(11), system: seconds(12), childrenUser: seconds(13), childrenSystem: seconds(14) };
}
