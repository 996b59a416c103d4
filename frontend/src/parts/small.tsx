import type { ReactNode } from "react";

import { Badge } from "../host/chakra";
import { useTimeZone } from "../host/settings";
import { useTexts } from "../i18n";
import { dateTime, duration } from "../lib/format";
import { useNow } from "./states";

const COLORS: Record<string, string> = {
  running: "green",
  submitted: "blue",
  waiting: "yellow",
  active: "green",
  paused: "orange",
  draining: "yellow",
  drained: "orange",
  success: "green",
  failed: "red",
  lost: "red",
  "out-of-memory": "red",
  deferred: "purple",
  up_for_reschedule: "teal",
  up_for_retry: "yellow",
  ok: "green",
  warn: "orange",
  fail: "red",
};

/** A state with its colour. The word is always there: the colour alone tells nothing to many. */
export function State({ of, label, title }: { of: string; label?: ReactNode; title?: string }) {
  const { named } = useTexts();
  return <Badge colorPalette={COLORS[of] ?? "gray"} title={title}>{label ?? named("state", of)}</Badge>;
}

/** A time in Airflow's time zone. */
export function Time({ at, fraction = false }: { at: number; fraction?: boolean }) {
  const zone = useTimeZone();
  if (!at) return <>–</>;
  return <time dir="ltr" dateTime={new Date(at * 1000).toISOString()} title={zone}>{dateTime(at, zone, fraction)}</time>;
}

/** The time since a moment, which moves on. */
export function Elapsed({ since, now }: { since: number; now: number }) {
  const { t } = useTexts();
  return <>{since ? duration(Math.floor(Math.max(0, now - since)), t) : "–"}</>;
}

export function Ago({ at }: { at: number }) {
  const { t } = useTexts();
  const zone = useTimeZone();
  const now = useNow(5);
  if (!at) return <>–</>;
  return <span title={dateTime(at, zone)}>{t("ago", { duration: duration(Math.floor(Math.max(0, now - at)), t) })}</span>;
}

/** An object of Modal: a link to its page on the dashboard if it has one, and its id otherwise. */
export function ModalId({ id, page }: { id: string; page: string }) {
  if (!id) return <>–</>;
  if (!page) return <code className="mf-id">{id}</code>;
  return (
    <a className="mf-link mf-id" href={page.replace("{id}", encodeURIComponent(id))} target="_blank" rel="noopener noreferrer">
      {id}
    </a>
  );
}

/** A text of the server, such as a reason: it is English in every language. */
export function English({ children }: { children: ReactNode }) {
  return <span lang="en" dir="ltr">{children}</span>;
}

/** Text of the server with addresses as links, as advice has it. */
export function Prose({ children }: { children: string }) {
  const parts: ReactNode[] = children.split(/(https?:\/\/[^\s)]+[^\s).,;:])/g).map((part, index) =>
    index % 2 ? (
      <a key={index} className="mf-link" href={part} target="_blank" rel="noopener noreferrer">{part}</a>
    ) : (
      part
    ),
  );
  return <English>{parts}</English>;
}
