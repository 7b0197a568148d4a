import { expect, it } from 'vitest';
import type { CaptureStatus } from '../sources/source.ts';
import { describeCapture } from './capture.ts';

const status: CaptureStatus = {
  state: 'streaming',
  durable: '0/2000000',
  written: '0/D000000',
  backlogBytes: 184_549_376,
  lagMs: null,
  parts: 1,
  bytes: 1,
};

it.each<[Partial<CaptureStatus>, string]>([
  [{}, 'streaming: durable to 0/2000000, catching up: 176.0 MiB behind'],
  [{ backlogBytes: 2048, lagMs: 340 }, 'streaming: durable to 0/2000000, 2.0 KiB behind (340 ms)'],
  [{ backlogBytes: 0, lagMs: 0 }, 'streaming: durable to 0/2000000'],
  [{ state: 'connecting' }, 'connecting: durable to 0/2000000, 176.0 MiB behind'],
  [
    { state: 'waiting-for-store', backlogBytes: 2048, lagMs: 65_000 },
    'waiting for store: durable to 0/2000000, 2.0 KiB behind (1 min 05 s)',
  ],
  [{ durable: null, backlogBytes: 0 }, 'streaming: nothing durable yet'],
])('says %j for people', (differs, text) => expect(describeCapture({ ...status, ...differs })).toBe(text));
