import { useCallback, useEffect, useRef, type ComponentType, type ReactNode } from "react";

import { Address } from "../lib/address";

/** The parts used of the router of Airflow's UI, which every plugin of Airflow 3.1 and newer finds in the page. */
interface Router {
  Link: ComponentType<{ to: string; className?: string; title?: string; children: ReactNode }>;
  useSearchParams: () => [
    URLSearchParams,
    (next: (before: URLSearchParams) => URLSearchParams, options?: { replace?: boolean }) => void,
  ];
}

const router = (globalThis as unknown as { ReactRouterDOM: Router }).ReactRouterDOM;

export const { Link } = router;

type Change = (before: URLSearchParams) => URLSearchParams;

/** One for all parts of the page, because they share the address. */
const address = new Address();

/** Return the query of the page's address, and a function that changes it. */
export function useQuery(): [URLSearchParams, (change: Change) => void] {
  const [query, setQuery] = router.useSearchParams();
  const newest = useRef(setQuery);
  useEffect(() => {
    newest.current = setQuery;
    address.show(query);
  }, [query, setQuery]);
  const change = useCallback((next: Change) => {
    const query = address.change(next);
    newest.current(() => query, { replace: true });
  }, []);
  return [query, change];
}

/** Return the page of a task instance in Airflow's UI. */
export function taskPage(dag: string, run: string, task: string, mapIndex: number): string {
  const parts = ["dags", dag, "runs", run, "tasks", task].map(encodeURIComponent).join("/");
  return `/${parts}${mapIndex >= 0 ? `/mapped/${mapIndex}` : ""}`;
}

/** The route of the tab of a task instance; airflow_plugin.py registers it. */
export const TASK_TAB = "plugin/modal-task";
