/**
 * Restores in place. The order is what makes it safe: the server is stopped, the moment is restored, replayed and
 * proven in a folder beside, with a server of its own that is cut off; only then the contents are exchanged by
 * renaming. Until that what was there is untouched, its log that nobody has stored included, and afterwards it lies
 * beside, ready to be exchanged back.
 */
import { readFile, rename, rm, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { RunContext } from '../../core/context.ts';
import { HoldfastError, isHoldfastError, systemErrorCode } from '../../core/errors.ts';
import { inStep } from '../../core/progress.ts';
import type { InPlaceRequest, OwnPlace, OwnPlaceRequest, Replaced, Restored } from '../source.ts';
import { requireBinaries } from './binaries.ts';
import { makeFolder, syncFolder, writeDurably } from './durable-file.ts';
import { ExchangeArea, type Journal, type Spot } from './exchange.ts';
import { type FoundPlace, findPlace, type PlaceSource, placeRequest, runningIn } from './own-place.ts';
import { lineageOf, parseLineage } from './position.ts';
import { restoreFolder, shellQuote } from './recovery-settings.ts';
import { restoreCluster } from './restore.ts';
import { checkTarget } from './restore-target.ts';
import { pgControl, serviceCommands, startService, stopService } from './service.ts';
import { openSnapshotMeta, type SnapshotMeta } from './snapshot-meta.ts';

/** Of log that waits for replay on the disk at one time, about. */
const largestSpool = 3 * 2 ** 28;

/** See `Source.ownPlace`. */
export async function describePlace(source: PlaceSource, request: OwnPlaceRequest): Promise<OwnPlace> {
  const { systemId, force, signal } = placeRequest(request);
  const place = await findPlace(source, systemId, force, signal);
  const { stop, start } = serviceCommands(source, place);
  const journals = await new ExchangeArea(place.area, place.owner).journals();
  return {
    directory: place.directory,
    running: place.pid !== undefined,
    stop: place.pid === undefined ? null : stop,
    start,
    safety: place.area,
    kept: journals.filter(({ state }) => state === 'done').map(({ spots }) => spots[0]!.outgoing),
    warnings: place.warnings,
  };
}

/** See `Source.restoreInPlace`. */
export async function replaceCluster(
  source: PlaceSource,
  request: InPlaceRequest,
): Promise<{ readonly restored: Restored; readonly replaced: Replaced }> {
  const { systemId } = parseLineage(request.stop.lineage);
  const { signal, progress } = request;
  const meta = openSnapshotMeta(request.snapshot.meta);
  const place = await findPlace(source, systemId, request.force, signal);
  const binaries = await requireBinaries(Math.floor(meta.version / 10_000), {
    extra: [...(place.startedAs === undefined ? [] : [place.startedAs.binDir]), ...(request.programs ?? [])],
    signal,
  });
  const area = new ExchangeArea(place.area, place.owner);
  await clearUp(area, binaries.binDir, place, request);
  const id = newId(request, await area.journals());
  const spots = spotsOf(area.folder(id), id, place, meta, request.places);
  const logBytes = request.parts.reduce((sum, part) => sum + part.bytes, 0);
  // What can be refused is refused while the server still runs.
  await checkTarget({
    to: spots[0]!.incoming,
    places: new Map(meta.tablespaces.map(({ oid }, index) => [oid, spots[index + 1]!.incoming])),
    bytes: request.snapshot.stats.bytes + Math.min(logBytes, largestSpool),
  });
  const wasRunning = place.pid !== undefined;
  await inStep(progress, 'Stop the server', {}, () => stopService(source, place, request));
  const journal = await area.prepare(id, 'restore', spots);
  const data = journal.spots[0]!;
  const tablespaces = journal.spots.slice(1);
  let restored: Restored;
  try {
    restored = await restoreCluster(
      {
        ...request,
        to: data.incoming,
        start: true,
        programs: [binaries.binDir],
        places: new Map(meta.tablespaces.map(({ oid }, index) => [oid, tablespaces[index]!.incoming])),
      },
      place.owner,
    );
    await inStep(progress, 'Put the restored data into service', {}, async () => {
      await pgControl(binaries.binDir, data.incoming, ['-m', 'fast', 'stop'], place.owner, signal);
      await settle(place, meta, data, tablespaces);
      if ((await runningIn(place.directory)) !== undefined) {
        throw new HoldfastError(
          'recovery.not-stopped',
          `A server was started in ${place.directory} meanwhile.`,
        );
      }
      signal.throwIfAborted();
      await area.exchange(journal);
    });
  } catch (error) {
    throw await explained(source, area, journal, place, error);
  }
  const replaced = await inService(source, place, journal, {
    ...request,
    start: wasRunning || request.start,
  });
  return { restored, replaced: { ...replaced, warnings: [...place.warnings, ...replaced.warnings] } };
}

/** See `Source.undoInPlace`. */
export async function undoReplacing(
  source: PlaceSource,
  request: RunContext & { readonly start: boolean },
): Promise<Replaced> {
  const { progress, signal } = request;
  const place = await findPlace(source, undefined, true, signal);
  const area = new ExchangeArea(place.area, place.owner);
  const journals = await area.journals();
  const moving = journals.find(({ state }) => state === 'moving');
  const last = journals.find(({ state }) => state === 'done');
  if (moving === undefined && last === undefined) {
    throw new HoldfastError(
      'recovery.nothing-to-undo',
      `Nothing was put aside by a restore in place of ${source.name}: ${area.root} holds nothing.`,
      {
        details: { source: source.name, area: area.root },
      },
    );
  }
  await inStep(progress, 'Stop the server', {}, () => stopService(source, place, request));
  const journal = await inStep(progress, 'Bring back what was there', {}, async () => {
    // What was killed on the way in is taken back, what was killed on the way back is finished.
    if (moving !== undefined) {
      return moving.kind === 'restore' ? area.takeBack(moving) : area.finish(moving);
    }
    const id = newId(request, journals);
    const folder = area.folder(id);
    const spots = last!.spots.map(({ live, outgoing }, index) => ({
      live,
      incoming: outgoing,
      outgoing: index === 0 ? join(folder, 'before') : join(live, '.holdfast', id, 'before'),
    }));
    const undone = await area.exchange(await area.prepare(id, 'undo', spots));
    await area.forget(last!);
    return undone;
  });
  return inService(source, place, journal, { ...request, start: place.pid !== undefined || request.start });
}

/** After a kill: a server that was left in a folder of ours is ended, and what was prepared is removed. */
async function clearUp(
  area: ExchangeArea,
  binDir: string,
  place: FoundPlace,
  request: RunContext,
): Promise<void> {
  for (const journal of await area.journals()) {
    if (journal.state !== 'preparing') continue;
    const left = journal.spots[0]!.incoming;
    if ((await runningIn(left)) !== undefined) {
      await pgControl(binDir, left, ['-m', 'immediate', 'stop'], place.owner, request.signal);
    }
    if (journal.kind === 'restore') await area.discard(journal);
  }
}

function newId({ clock }: RunContext, journals: readonly Journal[]): string {
  const moment = new Date(clock.now()).toISOString().replaceAll(/[-:]|\.\d+/g, '');
  const taken = journals.filter(({ id }) => id.startsWith(moment)).length;
  return taken === 0 ? moment : `${moment}-${taken}`;
}

function spotsOf(
  folder: string,
  id: string,
  place: FoundPlace,
  meta: SnapshotMeta,
  places: InPlaceRequest['places'],
): Spot[] {
  const data = { live: place.directory, incoming: join(folder, 'new'), outgoing: join(folder, 'before') };
  const tablespaces = meta.tablespaces.map(({ oid, location }) => {
    const live = places?.get(oid) ?? places?.get(location) ?? location;
    return {
      live,
      incoming: join(live, '.holdfast', id, 'new'),
      outgoing: join(live, '.holdfast', id, 'before'),
    };
  });
  return [data, ...tablespaces];
}

/** The configuration that is in force there stays so: going back in the data shall not open old doors or limits. */
const configuration = ['postgresql.conf', 'postgresql.auto.conf', 'pg_hba.conf', 'pg_ident.conf'];

/** Makes the restored folder, whose server has been stopped, what it will be in its place. */
async function settle(
  place: FoundPlace,
  meta: SnapshotMeta,
  data: Spot,
  tablespaces: readonly Spot[],
): Promise<void> {
  const { directory, owner } = place;
  const ours = join(data.incoming, restoreFolder);
  const live = (name: string) => join(directory, name);
  const there = (await readIfAny(live('PG_VERSION'))) !== undefined;
  for (const name of configuration) {
    const target = join(data.incoming, name);
    const kept = await readIfAny(live(name));
    if (kept !== undefined) await writeDurably(target, kept, owner);
    else if (there) await rm(target, { force: true });
    else if (name === 'postgresql.auto.conf') await copyOver(join(ours, 'source.auto.conf'), target, owner);
    else await adapt(target, data.incoming, directory, owner);
  }
  // A server that was itself restored and is still cut off has its access rules there.
  const access = ['pg_hba.conf', 'pg_ident.conf'];
  const cutOff = await Promise.all(access.map((name) => readIfAny(live(join(restoreFolder, name)))));
  await rename(join(ours, 'server.log'), join(data.incoming, '..', 'recovery.log'));
  await rm(ours, { recursive: true, force: true });
  for (const [index, content] of cutOff.entries()) {
    if (content === undefined) continue;
    await makeFolder(ours, owner);
    await writeDurably(join(ours, access[index]!), content, owner);
  }
  for (const name of ['backup_label.old', 'tablespace_map.old', 'postmaster.opts']) {
    await rm(join(data.incoming, name), { force: true });
  }
  for (const [index, { oid }] of meta.tablespaces.entries()) {
    const link = join(data.incoming, 'pg_tblspc', oid);
    await rm(link);
    await symlink(tablespaces[index]!.live, link);
  }
  await syncFolder(join(data.incoming, 'pg_tblspc'));
  await syncFolder(data.incoming);
}

async function adapt(path: string, from: string, to: string, owner: FoundPlace['owner']): Promise<void> {
  const text = (await readIfAny(path))?.toString('utf8');
  if (text?.includes(from)) await writeDurably(path, text.replaceAll(from, to), owner);
}

async function copyOver(from: string, to: string, owner: FoundPlace['owner']): Promise<void> {
  const content = await readIfAny(from);
  if (content !== undefined) await writeDurably(to, content, owner);
}

async function readIfAny(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** The error with what lies where after it. */
async function explained(
  source: PlaceSource,
  area: ExchangeArea,
  journal: Journal,
  place: FoundPlace,
  error: unknown,
): Promise<unknown> {
  const now = (await area.journals()).find(({ id }) => id === journal.id);
  if (now?.state === 'preparing') await area.discard(journal);
  if (!isHoldfastError(error)) return error;
  const { start } = serviceCommands(source, place);
  const where =
    now?.state === 'moving'
      ? `The exchange of ${place.directory} was interrupted: \`holdfast restore ${source.name} --undo\` brings back what was there.`
      : `The data in ${place.directory} are untouched, and the server is stopped. To start it as it was: ${start ?? 'as it is started usually'}`;
  return new HoldfastError(error.code, `${error.message}\n${where}`, {
    next: error.next,
    details: { ...error.details, directory: place.directory },
    cause: error,
  });
}

/** Everything that was put aside, tablespaces included. */
function keptFolders(place: FoundPlace, journal: Journal): string[] {
  const tablespaces = journal.spots.slice(1).map(({ outgoing }) => dirname(outgoing));
  return [join(place.area, journal.id), ...tablespaces];
}

/** Starts what is in place now, asks it whether it is what it should be, and says what to do next. */
async function inService(
  source: PlaceSource,
  place: FoundPlace,
  journal: Journal,
  request: RunContext & { readonly start: boolean },
): Promise<Replaced> {
  const safety = journal.state === 'taken-back' ? '' : join(place.area, journal.id, 'before');
  const log = join(place.area, journal.id, 'server.log');
  const server = request.start
    ? await inStep(request.progress, 'Start the server', {}, () => startService(source, place, log, request))
    : null;
  const { start } = serviceCommands(source, place);
  const warnings: string[] = [];
  const next = [
    ...(server === null ? [start ?? '# start the server as usual'] : []),
    `holdfast backup ${source.name}`,
    ...(safety === ''
      ? []
      : [
          `holdfast restore ${source.name} --undo`,
          `rm -r ${keptFolders(place, journal).map(shellQuote).join(' ')}`,
        ]),
  ];
  return {
    directory: place.directory,
    safety,
    server:
      server === null
        ? null
        : {
            connection: server.connection,
            position: server.position,
            lineage: lineageOf(server.systemId, server.timeline),
          },
    next,
    warnings,
  };
}
