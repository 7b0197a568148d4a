/** Says what is missing or risky, with the command, statement or line that mends it. Changes nothing. */
import { access, constants } from 'node:fs/promises';
import type { RunContext } from '../core/context.ts';
import { HoldfastError, isHoldfastError, systemErrorCode } from '../core/errors.ts';
import { inStep } from '../core/progress.ts';
import type { Problem, Repository } from '../repository/repository.ts';
import type { Finding } from '../sources/source.ts';
import type { Workspace } from './workspace.ts';

/** Findings about one subject: the repository, this host, or a source. */
export interface Examination {
  readonly subject: string;
  readonly findings: readonly Finding[];
}

export interface DoctorReport {
  readonly examinations: readonly Examination[];
  /** False when anything is a problem: a backup or a restore would fail. */
  readonly healthy: boolean;
}

/** Log that is older than this is called stale: a running capture stores at least a heartbeat's commit each minute. */
const staleAfterMs = 120_000;

export async function doctor(
  workspace: Workspace,
  options: { readonly source?: string | undefined },
  context: RunContext,
): Promise<DoctorReport> {
  const examinations: Examination[] = [];
  const repository = await inStep(context.progress, 'Look at the repository', {}, async () => {
    const { findings, repository } = await examineRepository(workspace, context);
    examinations.push({ subject: `repository ${workspace.configuration.repository}`, findings });
    return repository;
  });
  examinations.push({ subject: 'this host', findings: await examineHost(workspace, repository) });
  const configured = Object.keys(workspace.configuration.sources);
  const names = options.source === undefined ? configured : [workspace.sourceSettings(options.source).name];
  for (const name of names) {
    await inStep(context.progress, `Look at ${name}`, {}, async () => {
      const findings = await examineSource(workspace, name, repository, context);
      examinations.push({ subject: `source ${name}`, findings });
    });
  }
  if (names.length === 0) examinations.push({ subject: 'sources', findings: [noSources] });
  const healthy = examinations.every(({ findings }) => findings.every(({ level }) => level !== 'problem'));
  return { examinations, healthy };
}

const noSources: Finding = {
  name: 'config.sources',
  level: 'warning',
  message: 'No source is configured: there is nothing to back up.',
  remedy: 'Add one under `sources` in the configuration, or set DATABASE_URL.',
};

/** An error as a finding: a person can mend it, so the examination goes on. */
function findingOf(error: unknown): Finding {
  if (!(error instanceof HoldfastError)) throw error;
  return { name: error.code, level: 'problem', message: error.message, remedy: error.next };
}

async function examineRepository(
  workspace: Workspace,
  context: RunContext,
): Promise<{ readonly findings: Finding[]; readonly repository: Repository | null }> {
  const findings: Finding[] = [];
  try {
    const repository = await workspace.repository(context);
    const { number, writers } = repository.roster();
    findings.push({
      name: 'repository.open',
      level: 'ok',
      message: `Repository ${repository.id}, roster ${number}, ${writers.length} enrolled ${writers.length === 1 ? 'host' : 'hosts'}.`,
    });
    findings.push(...(await examineRights(workspace, repository, context)));
    findings.push(...(await examineKey(workspace, repository, context)));
    return { findings, repository };
  } catch (error) {
    findings.push((await notCreatedYet(workspace, error)) ?? findingOf(error));
    try {
      await workspace.unlock(context);
    } catch (unreadable) {
      findings.push(findingOf(unreadable));
    }
    return { findings, repository: null };
  }
}

/** Before the first backup there is no repository: a step that is still to be done, not something broken. */
async function notCreatedYet(workspace: Workspace, error: unknown): Promise<Finding | null> {
  const missing =
    isHoldfastError(error, 'repository.not-found') || systemErrorCode(causeOf(error)) === 'ENOENT';
  if (!missing || !(await workspace.isFirstUse(error))) return null;
  const { repository } = workspace.configuration;
  return {
    name: 'repository.none-yet',
    level: 'note',
    message: `There is no repository at ${repository} yet, and this host never used one there.`,
    remedy: workspace.zeroConfiguration
      ? 'The first `holdfast backup` creates it. If one should be there: is its disk mounted?'
      : 'Create it: holdfast init. If one should be there: is its disk mounted?',
  };
}

const causeOf = (error: unknown): unknown => (error instanceof Error ? error.cause : undefined);

/** That it was read says nothing of writing, and a backup by another user leaves folders that this one may not write. */
async function examineRights(
  workspace: Workspace,
  repository: Repository,
  context: RunContext,
): Promise<Finding[]> {
  const name = 'repository.writable';
  try {
    const risks = await repository.checkWritable(context.signal);
    const message = `The repository's store ${repository.address} can be written.`;
    return [
      { name, level: 'ok', message },
      ...risks.map((risk) => ({ name: 'repository.rights', level: 'warning' as const, ...risk })),
    ];
  } catch (error) {
    const { message, remedy } = findingOf(error);
    // A host that only restores may well hold a store that it cannot write.
    const writes = Object.keys(workspace.configuration.sources).length > 0;
    return [
      { name, level: writes ? 'problem' : 'note', message, ...(remedy === undefined ? {} : { remedy }) },
    ];
  }
}

async function examineKey(
  workspace: Workspace,
  repository: Repository,
  context: RunContext,
): Promise<Finding[]> {
  try {
    const unlock = await workspace.unlock(context);
    if (unlock === null) {
      return [
        {
          name: 'repository.key',
          level: 'note',
          message:
            'No key is configured here: this host can back up, but not restore. That is the safest way to run it.',
          remedy: 'Be sure that the key kit and the passphrase are kept elsewhere.',
        },
      ];
    }
    await repository.reader(unlock, context);
    return [{ name: 'repository.key', level: 'ok', message: 'The configured key opens the repository.' }];
  } catch (error) {
    return [findingOf(error)];
  }
}

async function examineHost(workspace: Workspace, repository: Repository | null): Promise<Finding[]> {
  const { state } = workspace.configuration;
  const findings: Finding[] = [];
  try {
    await workspace.state();
    await access(state, constants.W_OK | constants.X_OK);
    findings.push({ name: 'host.state', level: 'ok', message: `The state folder ${state} can be written.` });
  } catch (error) {
    findings.push({
      name: 'host.state',
      level: 'problem',
      message: `The state folder ${state} cannot be written: ${String(error)}.`,
      remedy: `mkdir -p '${state}' && chown "$(id -un)" '${state}', or set \`state\` in the configuration`,
    });
    return findings;
  }
  if (repository === null) return findings;
  const enrolled = await repository.isEnrolled();
  findings.push(
    enrolled
      ? { name: 'host.enrolled', level: 'ok', message: 'This host is enrolled to write to the repository.' }
      : {
          name: 'host.enrolled',
          level: 'warning',
          message: 'This host is not enrolled to write to the repository.',
          remedy: 'With the passphrase configured, the next `holdfast backup` enrols it.',
        },
  );
  return findings;
}

async function examineSource(
  workspace: Workspace,
  name: string,
  repository: Repository | null,
  context: RunContext,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  try {
    const report = await workspace.source(name).probe(context);
    if (report.version !== null)
      findings.push({ name: 'source.version', level: 'ok', message: report.version });
    findings.push(...report.findings);
  } catch (error) {
    findings.push(findingOf(error));
  }
  if (repository !== null) findings.push(...(await examineHistory(name, repository, context)));
  return findings;
}

async function examineHistory(name: string, repository: Repository, context: RunContext): Promise<Finding[]> {
  const problems: Problem[] = [];
  const snapshots = await repository.snapshots(name, context.signal, problems);
  const parts = await repository.logParts(name, context.signal, problems);
  const newest = snapshots.at(-1);
  const now = context.clock.now();
  const findings: Finding[] = problems.map(({ message }) => ({
    name: 'source.damage',
    level: 'problem',
    message: `What is stored of it is damaged: ${message}`,
    remedy: 'holdfast verify --depth digests   (says all that is damaged; keep the repository as it is)',
  }));
  if (newest === undefined) {
    findings.push({
      name: 'source.snapshot',
      level: 'warning',
      message: 'There is no snapshot of it yet: nothing can be restored.',
      remedy: `holdfast backup ${name}`,
    });
  } else {
    const age = Math.floor((now - newest.finished) / 3_600_000);
    const message = `The newest snapshot is ${newest.id}, ${age} h old.`;
    findings.push({ name: 'source.snapshot', level: 'ok', message });
  }
  const logAt = parts.reduce((latest, part) => Math.max(latest, part.storedAt), 0);
  if (now - logAt > staleAfterMs) {
    findings.push({
      name: 'source.capture',
      level: 'warning',
      message:
        logAt === 0
          ? 'No log of it was ever captured: only the snapshots themselves can be restored.'
          : `Its log was last added to ${Math.floor((now - logAt) / 60_000)} minutes ago: no capture seems to run.`,
      remedy: `holdfast capture ${name}`,
    });
  } else {
    findings.push({ name: 'source.capture', level: 'ok', message: 'Its log is being captured.' });
  }
  return findings;
}
