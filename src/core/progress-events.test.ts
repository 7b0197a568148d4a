import { describe, expect, it, vi } from 'vitest';
import type { Clock } from './clock.ts';
import { HoldfastError } from './errors.ts';
import { inStep } from './progress.ts';
import { createProgress, type ProgressEvent } from './progress-events.ts';

function record() {
  const events: ProgressEvent[] = [];
  let time = 0;
  const clock: Clock = { now: () => time, monotonic: () => time, sleep: () => Promise.resolve() };
  return {
    events,
    progress: createProgress((event) => events.push(event), clock),
    pass: (ms: number) => (time += ms),
  };
}

describe('createProgress', () => {
  it('gives ids and parents, and ends each step once', () => {
    const { events, progress } = record();
    const root = progress.step('backup');
    const child = root.step('copy', { total: 10, unit: 'files' });
    child.done('ten files');
    child.done();
    child.failed(new Error('late'));
    root.failed(new HoldfastError('net.timeout', 'too late'));
    expect(events.map(({ event, id, parent }) => [event, id, parent])).toEqual([
      ['start', 1, null],
      ['start', 2, 1],
      ['done', 2, 1],
      ['failed', 1, null],
    ]);
    expect(events[1]).toMatchObject({ name: 'copy', total: 10, unit: 'files' });
    expect(events[2]).toMatchObject({ text: 'ten files' });
    expect(events[3]?.error).toEqual({ code: 'net.timeout', message: 'too late' });
  });

  it('sends at most ten advances a second, and no byte is lost', () => {
    const { events, progress, pass } = record();
    const step = progress.step('copy');
    for (let i = 0; i < 2000; i += 1) {
      step.advance(3);
      pass(1);
    }
    step.done();
    const advances = events.filter(({ event }) => event === 'advance');
    expect(advances.length).toBeGreaterThanOrEqual(18);
    expect(advances.length).toBeLessThanOrEqual(20);
    expect(events.at(-1)).toMatchObject({ event: 'done', done: 6000, ms: 2000 });
  });

  it('never fails the work when the display breaks, but does not hide it', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockReturnValue();
    const quiet: Clock = { now: () => 0, monotonic: () => 0, sleep: () => Promise.resolve() };
    const broken = createProgress(() => {
      throw new Error('display');
    }, quiet);
    expect(await inStep(broken, 'work', {}, () => Promise.resolve(7))).toBe(7);
    expect(warned).toHaveBeenCalledWith('progress could not be shown: Error: display', expect.anything());
    warned.mockRestore();
  });
});
