/**
 * The door to what the kinds of sources archive as closed files: separate from `open.ts`, so that a process that
 * stores one file loads neither schemas nor protocols.
 */
export {
  type ArchiveName,
  archiveName,
  type ControlFacts,
  parseArchiveName,
  readControlFile,
  readSegmentHeader,
  type SegmentHeader,
} from './postgres/archive-file.ts';
export {
  type Carry,
  type CutEnd,
  fileStretch,
  fits,
  SegmentCutter,
  type TimelineFacts,
  timelineFacts,
} from './postgres/archive-segment.ts';
export {
  formatLsn,
  historyName,
  lineageOf,
  lsnOf,
  parseHistory,
  parseLineage,
  parseSegmentName,
  positionOf,
  segmentName,
} from './postgres/position.ts';
