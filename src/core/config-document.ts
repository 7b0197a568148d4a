/** One configuration file as text: its values, and the line and column of each, for messages that point there. */
import { isMap, isPair, isScalar, LineCounter, type Node, parseDocument, type Scalar, visit } from 'yaml';

export interface Position {
  readonly line: number;
  readonly column: number;
}

export interface Problem {
  readonly message: string;
  /** Null where the problem belongs to the file as a whole. */
  readonly position: Position | null;
}

/** A value that came, wholly or partly, from environment variables. */
export interface Interpolated {
  readonly names: readonly string[];
}

export type Path = readonly (string | number)[];

/** A `${NAME}` for which there is no variable. */
export interface MissingVariable {
  readonly name: string;
  readonly path: Path;
  readonly position: Position | null;
}

export interface ConfigDocument {
  readonly value: unknown;
  readonly problems: readonly Problem[];
  readonly missing: readonly MissingVariable[];
  /** By `pathKey`. */
  readonly interpolated: ReadonlyMap<string, Interpolated>;
  /** Where the value of a path starts; where it is absent, the nearest place that holds it. */
  position(path: readonly PropertyKey[]): Position | null;
  /** Where a setting's name stands. */
  namePosition(path: readonly PropertyKey[], name: string): Position | null;
}

/** A path as one string, for maps. */
export function pathKey(path: readonly PropertyKey[]): string {
  return path.map(String).join('.');
}

/** Reads YAML and puts the values of variables in place of `${NAME}` and `${NAME:-default}` in string values. */
export function readDocument(source: string, lookup: (name: string) => string | undefined): ConfigDocument {
  const lines = new LineCounter();
  const document = parseDocument(source, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const at = (offset: number | undefined): Position | null => {
    if (offset === undefined) return null;
    const { line, col } = lines.linePos(offset);
    return line === 0 ? null : { line, column: col };
  };
  const problems: Problem[] = [...document.errors, ...document.warnings].map((error) => ({
    message: error.message.replace(/\s+/g, ' '),
    position: at(error.pos[0]),
  }));
  const missing: MissingVariable[] = [];
  const interpolated = new Map<string, Interpolated>();
  if (problems.length === 0) {
    visit(document, {
      Scalar(key, node, ancestors) {
        if (key === 'key' || typeof node.value !== 'string') return;
        const path = pathOf(node, ancestors);
        const filled = fill(node.value, lookup);
        node.value = filled.text;
        if (filled.names.length > 0) interpolated.set(pathKey(path), { names: filled.names });
        for (const name of filled.missing) missing.push({ name, path, position: at(node.range?.[0]) });
      },
    });
  }
  const start = (node: unknown) => at((node as Node | null)?.range?.[0]);
  const namePosition = (path: readonly PropertyKey[], name: string): Position | null => {
    const map = path.length === 0 ? document.contents : document.getIn(path, true);
    const pair = isMap(map)
      ? map.items.find((item) => isScalar(item.key) && String(item.key.value) === name)
      : undefined;
    return pair === undefined ? start(map) : start(pair.key);
  };
  const position = (path: readonly PropertyKey[]): Position | null => {
    for (let length = path.length; length > 0; length -= 1) {
      const node = document.getIn(path.slice(0, length), true);
      if (node === undefined || node === null) continue;
      // What is missing is missed where the name of its holder stands.
      const holder = path.slice(0, length);
      return length === path.length ? start(node) : namePosition(holder.slice(0, -1), String(holder.at(-1)));
    }
    return { line: 1, column: 1 };
  };
  return {
    value: problems.length === 0 ? (document.toJS({ maxAliasCount: 100 }) ?? {}) : null,
    problems,
    missing,
    interpolated,
    position,
    namePosition,
  };
}

function pathOf(node: Scalar, ancestors: readonly unknown[]): Path {
  const path: (string | number)[] = [];
  const line = [...ancestors, node];
  for (const [index, item] of line.entries()) {
    if (isPair(item)) path.push(isScalar(item.key) ? String(item.key.value) : String(item.key));
    else {
      const items: unknown =
        typeof item === 'object' && item !== null && 'items' in item ? item.items : undefined;
      if (Array.isArray(items) && !isMap(item)) path.push(items.indexOf(line[index + 1]));
    }
  }
  return path;
}

function fill(text: string, lookup: (name: string) => string | undefined) {
  const names: string[] = [];
  const missing: string[] = [];
  const filled = text.replace(
    /\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g,
    (whole: string, name: string | undefined, fallback: string | undefined) => {
      if (name === undefined) return '${';
      const value = lookup(name);
      // As in a shell, `:-` also stands in for an empty value.
      if (value !== undefined && (value !== '' || fallback === undefined)) {
        names.push(name);
        return value;
      }
      if (fallback !== undefined) return fallback;
      missing.push(name);
      return whole;
    },
  );
  return { text: filled, names, missing };
}

/** The candidate that is nearest to what was written, if any is near enough to be what was meant. */
export function nearest(written: string, candidates: readonly string[]): string | null {
  let best: string | null = null;
  let least = Math.max(1, Math.floor(written.length / 3)) + 1;
  for (const candidate of candidates) {
    const far = distance(written.toLowerCase(), candidate.toLowerCase());
    if (far < least) [best, least] = [candidate, far];
  }
  return best;
}

/** Edits (insert, delete, replace, swap of neighbours) between two words. */
function distance(a: string, b: string): number {
  const rows = Array.from({ length: a.length + 1 }, (_, i) =>
    Array.from({ length: b.length + 1 }, (_, j) => (i === 0 ? j : j === 0 ? i : 0)),
  );
  const cell = (i: number, j: number) => rows[i]?.[j] ?? 0;
  for (let i = 1; i <= a.length; i += 1) {
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1];
      let least = Math.min(cell(i - 1, j) + 1, cell(i, j - 1) + 1, cell(i - 1, j - 1) + (same ? 0 : 1));
      if (a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) least = Math.min(least, cell(i - 2, j - 2) + 1);
      rows[i]?.splice(j, 1, least);
    }
  }
  return cell(a.length, b.length);
}
