/** pgBackRest as its manual sets it up, with the same number of processes, encrypted, on the same disk. */
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BenchPostgres } from './bench-postgres.ts';
import { type Measured, measure } from './measured-process.ts';

const stanza = 'bench';
const processes = 2;

export class BenchPgBackRest {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async create(folder: string, postgres: BenchPostgres): Promise<BenchPgBackRest> {
    const bench = new BenchPgBackRest(folder);
    for (const name of ['repository', 'lock', 'log', 'spool'])
      await mkdir(join(folder, name), { recursive: true });
    const { host, port, user } = postgres.server.connection;
    const lines = [
      '[global]',
      `repo1-path=${bench.repository}`,
      'repo1-cipher-type=aes-256-cbc',
      'repo1-cipher-pass=only-a-benchmark-not-a-secret',
      'repo1-bundle=y',
      'repo1-retention-full=9999999',
      'compress-type=zst',
      'compress-level=3',
      `process-max=${processes}`,
      'start-fast=y',
      // Neither side copies log that the other does not: this one copies none.
      'archive-check=n',
      'archive-copy=n',
      `lock-path=${join(folder, 'lock')}`,
      `log-path=${join(folder, 'log')}`,
      `spool-path=${join(folder, 'spool')}`,
      'log-level-console=warn',
      `[${stanza}]`,
      `pg1-path=${postgres.server.dataDir}`,
      `pg1-port=${port}`,
      `pg1-user=${user}`,
      `pg1-socket-path=${host}`,
      '',
    ];
    await writeFile(bench.config, lines.join('\n'), { mode: 0o600 });
    await bench.run(['stanza-create']);
    return bench;
  }

  get config(): string {
    return join(this.folder, 'pgbackrest.conf');
  }

  get repository(): string {
    return join(this.folder, 'repository');
  }

  async run(args: readonly string[]): Promise<Measured> {
    return await measure('pgbackrest', [`--config=${this.config}`, `--stanza=${stanza}`, ...args]);
  }

  async storedBytes(): Promise<number> {
    const files = await readdir(this.repository, { recursive: true, withFileTypes: true });
    let bytes = 0;
    for (const file of files) if (file.isFile()) bytes += (await stat(join(file.parentPath, file.name))).size;
    return bytes;
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}
