/** The worker of a log writer: encodes the sections of large parts, so that receiving goes on meanwhile. */
import { parentPort } from 'node:worker_threads';
import { encodeSection, type SectionInput } from './log-part.ts';

const port = parentPort;
if (port === null) throw new Error('this module runs as a worker only');
port.on('message', (input: SectionInput) => {
  const section = Buffer.concat(encodeSection(input));
  // A small one lies in Node's own pool, which cannot be given away.
  const own = section.buffer.byteLength === section.byteLength;
  port.postMessage(section, own ? [section.buffer as ArrayBuffer] : []);
});
