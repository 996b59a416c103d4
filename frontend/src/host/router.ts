import { useCallback, useMemo, useSyncExternalStore, type ComponentType, type ReactNode } from "react";

/** The part used of the router of Airflow's UI, which every plugin of Airflow 3.1 and newer finds in the page. */
interface Router {
  Link: ComponentType<{ to: string; className?: string; title?: string; children: ReactNode }>;
  useLocation: () => unknown;
}

const router = (globalThis as unknown as { ReactRouterDOM: Router }).ReactRouterDOM;

export const { Link } = router;

const listeners = new Set<() => void>();

function listen(listener: () => void): () => void {
  listeners.add(listener);
  window.addEventListener("popstate", listener);
  return () => {
    listeners.delete(listener);
    window.removeEventListener("popstate", listener);
  };
}

type Change = (before: URLSearchParams) => URLSearchParams;

/**
 * Return the query of the page's address, and a function that changes it.
 *
 * The change goes past the router: Airflow's UI can mount a plugin anew when the router's address changes, and with the
 * old components the focus, a selection and typed text would be lost.
 */
export function useQuery(): [URLSearchParams, (change: Change) => void] {
  // The router announces its own navigations to its hooks alone.
  router.useLocation();
  const search = useSyncExternalStore(listen, () => window.location.search);
  const query = useMemo(() => new URLSearchParams(search), [search]);
  const change = useCallback((next: Change) => {
    const { pathname, search, hash } = window.location;
    const text = next(new URLSearchParams(search)).toString();
    // The router keeps its own notes in the state.
    window.history.replaceState(window.history.state, "", `${pathname}${text && `?${text}`}${hash}`);
    for (const listener of listeners) listener();
  }, []);
  return [query, change];
}

/** Return the page of a task instance in Airflow's UI. */
export function taskPage(dag: string, run: string, task: string, mapIndex: number): string {
  const parts = ["dags", dag, "runs", run, "tasks", task].map(encodeURIComponent).join("/");
  return `/${parts}${mapIndex >= 0 ? `/mapped/${mapIndex}` : ""}`;
}

/** The end of the address of the page in the navigation; bundle.py registers it, and the route of the tab below. */
export const PAGE = "/plugin/modal";
/** The route of the tab of a task instance. */
export const TASK_TAB = "plugin/modal-task";
