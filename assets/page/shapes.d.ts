// The shapes that cross from Python to the page, as JSON. Each has the name and the keys of a class in the Python
// module that the comment above its group names; tests/page/test_shapes.py holds them equal.

// tuning.core.errors, as to_dict() writes them

export interface Problem {
  field: string;
  value: unknown;
  limit: string;
  message: string;
}

export interface Notice {
  field: string;
  message: string;
  count: number | null;
}

// tuning.runs.events

export interface StepEvent {
  step: number;
  epoch: number;
  loss: number | null;
  learning_rate: number | null;
  grad_norm: number | null;
  trained_tokens: number;
  input_tokens: number;
  examples: number;
  seconds: number;
  peak_bytes: number | null;
}

export interface EvalEvent {
  step: number;
  loss: number | null;
  metrics: Record<string, number | null>;
  seconds: number;
  peak_bytes: number | null;
}

// tuning.web.runs

export interface RunSettings {
  task: string;
  model: string;
  method: { name: string; r?: number; dropout?: number };
  optimizer: { name: string };
  precision: string;
  schedule: { name: string };
  seed: number;
  data: { source: string };
}

export interface RunPlan {
  derived: Record<string, number>;
  notices: Notice[];
}

export interface RunEstimate {
  total_bytes: number | null;
  low_bytes: number | null;
  high_bytes: number | null;
  kind: string | null;
}

export interface Progress {
  state: string;
  step: number;
  total_steps: number | null;
  loss: number | null;
  eval_loss: number | null;
  best_eval: number | null;
  seconds: number | null;
  phase: string | null;
  peak_bytes: number | null;
  place: number | null;
}

export interface RunLine extends Progress {
  run_id: string;
  number: number;
  name: string;
  note: string;
  created: number;
  started: number | null;
  ended: number | null;
  parent: string | null;
  from_step: number | null;
  attempt: number;
  message: string | null;
  slot: number;
  owner: string | null;
  chat: boolean;
  system_prompt: string | null;
  settings: RunSettings;
  data_name: string;
  plan: RunPlan;
  estimate: RunEstimate;
}

export interface RunPage {
  runs: RunLine[];
  older: number | null;
}

export interface Points {
  id: number;
  step: StepEvent[];
  eval: EvalEvent[];
}

export interface LiveAnswer {
  epoch: string;
  version: number;
  runs?: RunLine[];
  older?: number | null;
  removed?: string[];
  progress: Record<string, Progress>;
  trouble?: string;
  points: Record<string, Points>;
}

// tuning.core.disk_usage

export interface CountAndBytes {
  count: number;
  bytes: number;
}

// tuning.runs.disk

export interface DiskUse {
  runs: CountAndBytes;
  deleted: CountAndBytes;
  uploads: CountAndBytes;
  store: number | null;
  free: number | null;
}

// tuning.runs.service

export interface ResultStates {
  forms: Record<string, ResultState>;
  go_on: number | null;
  recovered_from: RecoverySource | null;
}

// tuning.training.checkpoint_files

export interface RecoverySource {
  kind: "checkpoint" | "best";
  step: number;
}

// tuning.runs.results

export interface ResultState {
  state: "ready" | "absent" | "making" | "failed" | "none";
  message: string | null;
}

// tuning.web.results

export interface PredictionRow {
  row: number;
  loss: number | null;
  text: string;
  truth?: string;
  prediction: string;
  right: boolean | null;
  chance?: number;
  written?: string;
}

export interface Predictions {
  steps: number[];
  step?: number;
  loss?: number | null;
  metrics?: Record<string, number | null>;
  rows: PredictionRow[];
  of?: number;
  labels?: string[];
  confusion?: number[][];
}

// tuning.web.ask

export interface Answers {
  base: string[];
  trained: string[];
  chances?: Record<string, number>[];
  prompts?: string[];
  recovered_from?: RecoverySource;
}

export interface Sample {
  step: number;
  prompt: string;
  text: string;
}

// tuning.memory.fixes

export interface Fix {
  settings: Record<string, any>;
  cost: string;
  saved_bytes: number;
  update_saved_bytes: number;
  time_percent: number;
  fits: boolean;
}

// tuning.memory.multi_device

export interface DeviceShare {
  way: string;
  devices: number;
  total_bytes: number;
  process_bytes: number;
  low_bytes: number;
  high_bytes: number;
  fits: boolean;
  effective_batch: number;
}

// tuning.memory.what_if

export interface DeviceSize {
  name: string;
  bytes: number;
}

export interface StepPoint {
  place: string;
  bytes: number;
}

export interface Curve {
  method: string;
  title: string;
  tensors: number[];
  process: number[];
}

export interface Curves {
  at: number;
  values: number[];
  curves: Curve[];
}

export interface RowsAndSteps {
  rows: number;
  steps: number;
}

export interface WhatIf {
  kind: string;
  why_approximate: string | null;
  device: DeviceSize;
  step: StepPoint[];
  rows: Curves;
  lengths: Curves;
  several: DeviceShare[];
  fits: boolean;
  largest_micro_batch: number | null;
  all_rows: number | null;
  effective_batch: number | null;
  reaches: RowsAndSteps | null;
  fixes: Fix[];
  settings: Record<string, any>;
}

// tuning.runs.service

export interface MemoryAnswer extends WhatIf {
  pending: boolean;
}

// tuning.ui.memory_bar

export interface ChartConfig {
  palette: string[];
  metrics: Record<string, string>;
  axes: Record<string, string>;
  methods: Record<string, string>;
  tasks: Record<string, string>;
}

export interface BarPart {
  name: string;
  bytes: number;
  color: string;
}

export interface MemoryBar {
  parts: BarPart[];
  total: number;
  low: number;
  high: number;
  limit: number;
  scale: number;
  verdict: string;
  words: string;
  left: string;
  right: string;
  limit_words: string;
  band_words: string;
  note: string;
  fixes: string[];
  summary: string;
}

// tuning.ui.network

export interface NetworkPart {
  name: string;
  state: string;
  count: number;
}

export interface NetworkLine {
  name: string;
  times: number;
  parts: NetworkPart[];
}

export interface NetworkView {
  title: string;
  card: string;
  source: string;
  summary: string;
  lines: NetworkLine[];
}

// tuning.ui.preview

export interface Tile {
  value: string;
  label: string;
  title: string;
}

export interface PlacedNotice extends Notice {
  id: string | null;
}

export interface FieldProblem extends Problem {
  id: string;
  within: string[];
}

export interface MemoryQuestion {
  settings: Record<string, any>;
  device: DeviceSize;
  kind: string;
  pending: boolean;
}

export interface PreviewValue {
  problems: FieldProblem[];
  general: Pick<Problem, "field" | "message">[];
  hints: Record<string, string>;
  tiles: Tile[] | null;
  memory: MemoryBar | null;
  network: NetworkView | null;
  outlook: MemoryQuestion | null;
  device: string | null;
  notices: PlacedNotice[];
  reading: boolean;
  moment?: number;
  pressed: boolean;
  of: unknown[];
  method: string;
  refused: Record<string, string>;
}

// tuning.data.preview.background_read

export interface Reading {
  name: string;
  doing: string;
  unit: string;
  done: number;
  total: number;
  words: string;
}

// tuning.data.preview.token_view

export type Token = [text: string, state: string, isSpecial: boolean, number: number];

export interface Histogram {
  bar: number;
  counts: number[];
  beyond: number;
}

export interface TokenView {
  tokens: Token[];
  count: number;
  kept: number;
  label: number | null;
}

// tuning.data.files.table

export interface BadRow {
  line: number;
  reason: string;
}

// tuning.data.preview.preview

export interface BadRows {
  count: number;
  checked: number;
  whole: boolean;
  choice: string;
  rows: BadRow[];
}

export interface PreviewRow {
  line: number;
  cells: Record<string, string>;
}

export interface LabelCount {
  name: string;
  train: number;
  eval: number;
}

export interface Lengths extends Histogram {
  rows: number;
  longest: number;
  mean: number;
  limit: number;
  cut_rows: number;
  blocks: number;
  cut_answers: number;
  lost_answers: number;
  trained_share: number;
}

export interface DataPreview {
  title?: string;
  origin?: string;
  bytes?: number;
  format?: string;
  encoding?: string;
  whole?: boolean;
  unit?: string;
  problems: Problem[];
  notices: Notice[];
  notes?: string[];
  columns?: string[];
  role_names: string[];
  rows?: PreviewRow[];
  shape?: string;
  roles?: Record<string, string>;
  train_rows?: number;
  eval_rows?: number;
  bad?: BadRows;
  updates_per_epoch?: number;
  effective_batch?: number;
  empty?: number;
  looked_at?: number;
  labels?: LabelCount[];
  duplicates?: number;
  in_both?: number;
  tokens?: TokenView[];
  lengths?: Lengths | Record<string, never>;
  counted?: boolean;
}

// tuning.hub.download, as to_dict() writes it

export interface Download {
  id: string;
  state: "running" | "done" | "cancelled" | "failed";
  done_bytes: number;
  total_bytes: number;
  message: string | null;
}

// tuning.web.hub_routes

export interface HubDescription {
  id: string;
  source: string;
  here: boolean;
  licence: string | null;
  notes: string[];
  gated: boolean;
  locked: boolean;
  problem: string | null;
  bytes: number | null;
  done_bytes?: number;
  download?: Download | null;
}

// tuning.web.models

export interface ModelFit {
  words: string;
  method: string;
  fits: boolean;
  bytes: number;
  device_bytes: number;
}

export interface ModelDescription extends HubDescription {
  architecture: string | null;
  parameters: number | null;
  max_positions: number | null;
  tasks: string[];
  tuned: string;
  why: string;
  fits: ModelFit[];
}

// tuning.web.hub_data

export interface Split {
  name: string;
  files: number;
  bytes: number;
}

export interface Subset {
  name: string;
  splits: Split[];
}

export interface DataDescription extends HubDescription {
  subset: string | null;
  subsets: Subset[];
  rows: Record<string, string>[];
}
