import { useEffect, useState, type ReactNode } from "react";

import type { ApiError } from "../api/client";
import type { Polled } from "../api/polling";
import type { Freshness } from "../api/types";
import { Alert, Spinner } from "../host/chakra";
import { useTimeZone } from "../host/settings";
import { useTexts, type Key } from "../i18n";
import { dateTime, duration } from "../lib/format";
import { English } from "./small";

/** Seconds from which data counts as old. */
const STALE = 120;

/** Return the time of this page in seconds, which moves on every `seconds` of a visible page. */
export function useNow(seconds = 1): number {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden) setNow(Date.now() / 1000);
    }, seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds]);
  return now;
}

export function Loading() {
  const { t } = useTexts();
  return (
    <div className="mf-state" role="status">
      <Spinner /> {t("loading")}
    </div>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return <p className="mf-state">{children}</p>;
}

function reasonOf(error: ApiError): Key {
  if (error.status === 401) return "problem.login";
  if (error.status === 403) return "problem.forbidden";
  return error.status === 404 ? "problem.missing" : "problem.request";
}

/** The age of the data, which grows until the next answer. */
export function Age({ freshness, receivedAt }: { freshness: Freshness; receivedAt: number }) {
  const { t } = useTexts();
  const zone = useTimeZone();
  const now = useNow();
  if (!freshness.read_at) return <span className="mf-muted">{t(freshness.reading ? "fresh.reading" : "fresh.never")}</span>;
  const age = freshness.age + Math.max(0, now - receivedAt / 1000);
  const old = age > STALE;
  return (
    <span className={old ? "mf-old" : "mf-muted"} title={dateTime(freshness.read_at, zone)}>
      {t("fresh.read", { age: duration(Math.round(age), t) })}
    </span>
  );
}

/** Why data is missing or old: Modal cannot be reached, or the API server did not answer. */
export function Problems<T extends { freshness: Freshness }>({ polled }: { polled: Polled<T> }) {
  const { t } = useTexts();
  const zone = useTimeZone();
  const now = useNow(10);
  const { data, error, receivedAt } = polled;
  const since = duration(Math.max(0, Math.round(now - receivedAt / 1000)), t);
  const freshness = data?.freshness;
  return (
    <>
      {error && (
        <Alert status={error.status === 404 ? "info" : "error"} title={t(reasonOf(error))} detail={error.status !== 401 && <English>{error.message}</English>}>
          {data && t("problem.old", { age: since })}
        </Alert>
      )}
      {freshness?.problem && (
        <Alert status="warning" title={t("problem.modal")} detail={<English>{freshness.problem}</English>}>
          <p>
            {freshness.read_at
              ? t("problem.modal.old", {
                  time: dateTime(freshness.read_at, zone),
                  age: duration(Math.round(freshness.age + Math.max(0, now - receivedAt / 1000)), t),
                })
              : t("problem.modal.none")}
          </p>
        </Alert>
      )}
    </>
  );
}
