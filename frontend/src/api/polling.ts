import { useCallback, useEffect, useRef, useState } from "react";

import { ApiError, get } from "./client";
import { takeEarly } from "./early";
import type { Freshness } from "./types";

/** Seconds before an answer is asked for again while the API server reads from Modal. */
const WHILE_READING = 2;

export interface Polled<T> {
  data: T | undefined;
  /** Of the newest request; the data is then that of an earlier one. */
  error: ApiError | undefined;
  /** When the data was received, in milliseconds of this page's clock. */
  receivedAt: number;
  loading: boolean;
  refresh: () => void;
}

interface State<T> {
  path: string;
  data: T | undefined;
  error: ApiError | undefined;
  receivedAt: number;
}

/**
 * Ask for a path every `seconds`, but never while the browser's tab is hidden.
 *
 * `keep` leaves the data of the previous path in place until that of a new one arrives, for filters.
 */
export function usePolled<T extends { freshness: Freshness }>(path: string, seconds: number, keep = false): Polled<T> {
  const [state, setState] = useState<State<T>>({ path, data: undefined, error: undefined, receivedAt: 0 });
  const [loading, setLoading] = useState(true);
  const wake = useRef<() => void>(() => undefined);

  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let asked = 0;
    let busy = false;

    const ask = async () => {
      if (busy || stop.signal.aborted) return;
      clearTimeout(timer);
      busy = true;
      asked = Date.now();
      let pause = seconds;
      setLoading(true);
      try {
        const data = JSON.parse(await (takeEarly(path) ?? get(path, stop.signal))) as T;
        if (data.freshness.reading) pause = Math.min(pause, WHILE_READING);
        setState({ path, data, error: undefined, receivedAt: Date.now() });
      } catch (error) {
        if (stop.signal.aborted) return;
        const known = error instanceof ApiError ? error : new ApiError(0, String(error));
        setState((before) => ({ ...(before.path === path || keep ? before : emptied<T>(path)), error: known }));
      }
      busy = false;
      setLoading(false);
      if (!document.hidden) timer = setTimeout(() => void ask(), pause * 1000);
    };
    const visibility = () => {
      clearTimeout(timer);
      if (document.hidden) return;
      timer = setTimeout(() => void ask(), Math.max(0, asked + seconds * 1000 - Date.now()));
    };

    wake.current = () => void ask();
    document.addEventListener("visibilitychange", visibility);
    void ask();
    return () => {
      stop.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", visibility);
    };
  }, [path, seconds, keep]);

  const current = state.path === path || keep ? state : emptied<T>(path);
  const refresh = useCallback(() => wake.current(), []);
  return { data: current.data, error: current.error, receivedAt: current.receivedAt, loading, refresh };
}

function emptied<T>(path: string): State<T> {
  return { path, data: undefined, error: undefined, receivedAt: 0 };
}
