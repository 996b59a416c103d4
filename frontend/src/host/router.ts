import type { ComponentType, ReactNode } from "react";

/** The parts used of the router of Airflow's UI, which every plugin of Airflow 3.1 and newer finds in the page. */
interface Router {
  Link: ComponentType<{ to: string; className?: string; title?: string; children: ReactNode }>;
  useSearchParams: () => [
    URLSearchParams,
    (next: (before: URLSearchParams) => URLSearchParams, options?: { replace?: boolean }) => void,
  ];
}

const router = (globalThis as unknown as { ReactRouterDOM: Router }).ReactRouterDOM;

export const { Link, useSearchParams } = router;

/** Return the page of a task instance in Airflow's UI. */
export function taskPage(dag: string, run: string, task: string, mapIndex: number): string {
  const parts = ["dags", dag, "runs", run, "tasks", task].map(encodeURIComponent).join("/");
  return `/${parts}${mapIndex >= 0 ? `/mapped/${mapIndex}` : ""}`;
}

/** The route of the tab of a task instance; airflow_plugin.py registers it. */
export const TASK_TAB = "plugin/modal-task";
