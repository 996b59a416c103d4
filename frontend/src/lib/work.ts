import type { Cell } from "../api/types";

/** One row of the table of work, by name. */
export interface Work {
  work_id: string;
  label: string;
  state: string;
  since: number;
  profile: string;
  reason: string;
  dag_id: string;
  task_id: string;
  run_id: string;
  map_index: number;
  try_number: number;
  function_call_id: string;
  container_id: string;
  executor: string;
  submissions: number;
}

const TEXTS = [
  "work_id", "label", "state", "profile", "reason", "dag_id", "task_id", "run_id", "function_call_id", "container_id",
  "executor",
] as const;
const NUMBERS = { since: 0, map_index: -1, try_number: 0, submissions: 0 } as const;

/** Return a reader of rows with these columns, in any order; unknown ones are passed over, missing ones empty. */
export function workReader(columns: string[]): (row: Cell[]) => Work {
  const texts = TEXTS.map((name) => [name, columns.indexOf(name)] as const);
  const numbers = Object.entries(NUMBERS).map(([name, none]) => [name, columns.indexOf(name), none] as const);
  return (row) => {
    const work: Record<string, Cell> = {};
    for (const [name, index] of texts) work[name] = String(row[index] ?? "");
    for (const [name, index, none] of numbers) work[name] = Number(row[index] ?? none);
    return work as unknown as Work;
  };
}
