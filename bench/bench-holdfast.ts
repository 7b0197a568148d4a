/** Holdfast as a user has it: a configuration file, a repository on local disk, and `bin/holdfast`. */
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Measured, MeasuredProcess, type MeasureOptions, measure } from './measured-process.ts';

export const holdfast = resolve(import.meta.dirname, '../bin/holdfast');
export const sourceName = 'bench';

export class BenchHoldfast {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** A new repository in a new folder, and its configuration for the server at `url`. */
  static async create(
    folder: string,
    url: string,
    snapshot: 'local' | 'remote' = 'remote',
  ): Promise<BenchHoldfast> {
    const bench = new BenchHoldfast(folder);
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'passphrase'), 'only a benchmark, not a secret\n', { mode: 0o600 });
    const lines = [
      `repository: ${bench.repository}`,
      `state: ${join(folder, 'state')}`,
      'key:',
      `  passphraseFile: ${join(folder, 'passphrase')}`,
      'sources:',
      `  ${sourceName}:`,
      '    kind: postgres',
      `    url: ${url}`,
      `    snapshot: ${snapshot}`,
      '',
    ];
    await writeFile(bench.config, lines.join('\n'));
    await bench.run(['init']);
    return bench;
  }

  get repository(): string {
    return join(this.folder, 'repository');
  }

  get config(): string {
    return join(this.folder, 'holdfast.yaml');
  }

  get slot(): string {
    return `holdfast_${sourceName}`;
  }

  async run(args: readonly string[], options: MeasureOptions = {}): Promise<Measured> {
    return await measure(holdfast, ['--config', this.config, ...args], { cwd: this.folder, ...options });
  }

  start(args: readonly string[], options: MeasureOptions = {}): MeasuredProcess {
    return new MeasuredProcess(holdfast, ['--config', this.config, ...args], {
      cwd: this.folder,
      ...options,
    });
  }

  /** Bytes in the repository. */
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
