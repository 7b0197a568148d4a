import { setTimeout as pass, setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { GatheredReading } from './gathered-reading.ts';

function scene(held = () => false) {
  const calls: string[] = [];
  const socket = { pause: () => void calls.push('pause'), resume: () => void calls.push('resume') };
  return { calls, reading: new GatheredReading(socket, 20, held) };
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}

describe('gathered reading', () => {
  test('pauses after an arrival that nothing follows, and goes on by itself', async () => {
    const { calls, reading } = scene();
    reading.arrived();
    await turns(4);
    expect(calls).toEqual(['pause']);
    await pass(40);
    expect(calls).toEqual(['pause', 'resume']);
  });

  test('never pauses while bytes come without a break', async () => {
    const { calls, reading } = scene();
    for (let i = 0; i < 50; i++) {
      reading.arrived();
      await turns(1);
    }
    expect(calls).toEqual([]);
  });

  test('leaves a reading alone that a handler holds', async () => {
    const { calls, reading } = scene(() => true);
    reading.arrived();
    await pass(40);
    expect(calls).toEqual([]);
  });

  test('goes on at once when it ends, and stays out of the way then', async () => {
    const { calls, reading } = scene();
    reading.arrived();
    await turns(4);
    reading.end();
    expect(calls).toEqual(['pause', 'resume']);
    reading.arrived();
    await pass(40);
    expect(calls).toEqual(['pause', 'resume']);
  });
});
