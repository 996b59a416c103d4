/**
 * The answers of the API, as src/modalflow/ui/answers defines them. Times are seconds since the epoch, money is
 * dollars, memory MiB; empty text, 0 and null stand for unknown.
 */

export interface Freshness {
  read_at: number;
  age: number;
  reading: boolean;
  problem: string;
}

export interface Links {
  function_call: string;
  container: string;
  app: string;
}

interface Answer {
  freshness: Freshness;
  links: Links;
}

export interface ExecutorRow {
  id: string;
  place: string;
  team: string;
  version: string;
  alive_since: number;
  reported_at: number;
  silent: boolean;
  in_flight: number;
  waiting: number;
  submitted: number;
  held: number;
  obstacle: string;
  trouble: string;
  trouble_at: number;
}

export type ProfileState = "active" | "paused" | "draining" | "drained";

export interface ProfileRow {
  name: string;
  containers: number | null;
  backlog: number | null;
  running: number;
  submitted: number;
  waiting: number;
  state: ProfileState;
  state_by: string;
  state_since: number;
  state_reason: string;
  limits: Record<string, string>;
  resources: Record<string, string>;
  dollars_per_hour: number | null;
  problem: string;
}

export interface BudgetRow {
  scope: string;
  subject: string;
  per: string;
  dollars: number;
  spent: number;
  running: number;
  left: number;
  action: string;
  used_up: boolean;
}

export interface LossRow {
  at: number;
  cause: string;
  reason: string;
  dag_id: string;
  task_id: string;
  run_id: string;
  map_index: number;
  try_number: number;
}

export interface LossGroup {
  cause: string;
  what: string;
  advice: string;
  number: number;
  losses: LossRow[];
}

export interface RelayRow {
  name: string;
  reported_at: number;
  silent: boolean;
  problem: string;
}

export interface Overview extends Answer {
  viewer: { manage: boolean; examine: boolean; executors: boolean };
  app: string;
  environment: string;
  version: string;
  worker_version: string;
  executors: ExecutorRow[];
  profiles: ProfileRow[];
  budgets: BudgetRow[];
  losses: LossGroup[];
  relays: RelayRow[];
  totals: Record<string, number>;
}

export type Cell = string | number;

export interface WorkTable extends Answer {
  columns: string[];
  rows: Cell[][];
  offset: number;
  matched: number;
  total: number;
  unlisted: number;
  states: Record<string, number>;
  profiles: string[];
  dags: string[];
  cancellable: string[];
}

export interface Series {
  name: string;
  dollars: number[];
  total: number;
  calls: number;
}

export interface Spend {
  freshness: Freshness;
  by: string;
  days: string[];
  time_zone: string;
  series: Series[];
  total: number;
  calls: number;
  rates: string;
  unpriced: Record<string, number>;
  complete: boolean;
}

export interface Point {
  name: string;
  at: number;
}

export interface Span {
  name: string;
  begins: number;
  ends: number;
}

export interface Amounts {
  cpu: number | null;
  cpu_peak: number | null;
  memory_mib: number | null;
  memory_limit_mib: number | null;
  gpu: string;
  regions: string[];
  cloud: string;
  nonpreemptible: boolean | null;
  timeout: number | null;
}

export interface Samples {
  at: number[];
  cpu: number[];
  memory_mib: number[];
}

export interface Part {
  try_number: number;
  number: number;
  state: string;
  outcome: string;
  cause: string;
  reason: string;
  advice: string;
  work_id: string;
  profile: string;
  image: string;
  function_call_id: string;
  container_id: string;
  region: string;
  cloud: string;
  executor: string;
  submissions: number;
  cold: boolean;
  points: Point[];
  spans: Span[];
  asked: Amounts;
  granted: Amounts;
  used: Amounts;
  samples: Samples;
  dollars: number | null;
  unpriced: string;
}

export interface Try {
  try_number: number;
  state: string;
  parts: Part[];
  dollars: number | null;
}

export interface TaskAnswer extends Answer {
  dag_id: string;
  run_id: string;
  task_id: string;
  map_index: number;
  state: string;
  on_modal: boolean;
  cancellable: boolean;
  tries: Try[];
  dollars: number | null;
  complete: boolean;
}

export interface Bar {
  task_id: string;
  map_index: number;
  try_number: number;
  begins: number;
  ready: number;
  ends: number;
  cold: boolean;
  running: boolean;
  outcome: string;
  function_call_id: string;
  dollars: number | null;
  critical: boolean;
}

export interface ContainerRow {
  container_id: string;
  profile: string;
  begins: number;
  ends: number;
  bars: Bar[];
}

export interface TaskCost {
  task_id: string;
  calls: number;
  tries: number;
  seconds: number;
  dollars: number | null;
}

export interface PathStep {
  task_id: string;
  map_index: number;
  begins: number;
  ends: number;
  wait: number;
}

export interface RunAnswer extends Answer {
  dag_id: string;
  run_id: string;
  state: string;
  begins: number;
  ends: number;
  containers: ContainerRow[];
  waiting: number;
  costs: TaskCost[];
  critical_path: PathStep[];
  dollars: number | null;
  cold_starts: number;
  complete: boolean;
}

export interface CancelAnswer {
  results: { work_id: string; done: boolean; how: string }[];
}

export interface ProfileAnswer {
  name: string;
  state: ProfileState;
  state_by: string;
  state_since: number;
  state_reason: string;
}

export interface Finding {
  name: string;
  status: string;
  detail: string;
  advice: string;
  seconds: number | null;
}
