import { useCallback, useEffect, useRef, type ComponentType, type ReactNode } from "react";

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

/**
 * Return the query of the page's address, and a function that changes it.
 *
 * The router's own function starts from the query of the render that made it: of two changes in a row, one is lost.
 */
export function useQuery(): [URLSearchParams, (change: Change) => void] {
  const [query, setQuery] = router.useSearchParams();
  const newest = useRef({ query, setQuery });
  useEffect(() => {
    newest.current = { query, setQuery };
  }, [query, setQuery]);
  const change = useCallback((next: Change) => {
    const query = next(newest.current.query);
    newest.current.query = query;
    newest.current.setQuery(() => query, { replace: true });
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
