/** `wal push` and `wal fetch` as PostgreSQL calls them, read without the program's parser. */

export interface WalArguments {
  /** `ahead` is how `wal fetch` starts its reader of what will be asked for next. */
  readonly verb: 'push' | 'fetch' | 'ahead';
  readonly operands: readonly string[];
  readonly source: string | undefined;
  readonly config: string | undefined;
  /** `--no-others`, `--no-ahead`. */
  readonly alone: boolean;
}

const values: Readonly<Record<string, 'source' | 'config'>> = {
  '--source': 'source',
  '--config': 'config',
  '-c': 'config',
};

/** Undefined for whatever is not plainly one of the two: then the program parses it, and says what is wrong. */
export function walArguments(argv: readonly string[]): WalArguments | undefined {
  const words: string[] = [];
  const given: { source?: string; config?: string } = {};
  let alone = false;
  for (let i = 0; i < argv.length; i += 1) {
    const argument = argv[i]!;
    const [flag, inline] = argument.startsWith('--') ? argument.split(/=(.*)/s) : [argument];
    const key = values[flag!];
    if (key !== undefined) {
      const value = inline ?? argv[++i];
      if (value === undefined || given[key] !== undefined) return undefined;
      given[key] = value;
    } else if (argument === '--no-others' || argument === '--no-ahead') alone = true;
    else if (argument.startsWith('-')) return undefined;
    else words.push(argument);
  }
  const [wal, verb, ...operands] = words;
  if (wal !== 'wal' || (verb !== 'push' && verb !== 'fetch' && verb !== 'ahead')) return undefined;
  if (operands.length !== (verb === 'fetch' ? 2 : 1)) return undefined;
  return { verb, operands, source: given.source, config: given.config, alone };
}
