import type { Part, Span } from "../api/types";
import { useTexts } from "../i18n";
import { duration } from "../lib/format";
import { percent, timeTicks } from "../lib/scale";
import { Time } from "../parts/small";
import { useNow } from "../parts/states";

const COLORS: Record<string, string> = {
  scheduled: "pink",
  airflow: "slate",
  submitting: "purple",
  waiting: "yellow",
  starting: "cyan",
  preparing: "blue",
  running: "green",
  live: "green",
  reporting: "orange",
  ending: "slate",
};

function colorOf(name: string): string {
  return `var(--mf-${COLORS[name] ?? "slate"})`;
}

/** The time of one call as a bar, with the duration of every span and the time of every moment. */
export function TimeLine({ part }: { part: Part }) {
  const { t, named } = useTexts();
  const live = part.state !== "ended";
  const now = useNow(live ? 1 : 60);
  const last = part.spans.at(-1);
  if (!last) return <p className="mf-muted">{t("part.noSpans")}</p>;
  const begins = Math.min(...part.spans.map((span) => span.begins));
  // The last span of a live call grows until the next answer.
  const spans = part.spans.map((span) => (live && span === last ? growing(span, now) : span));
  const ends = Math.max(...spans.map((span) => span.ends));
  const text = spans.map((span) => `${named("span", span.name)} ${duration(span.ends - span.begins, t)}`).join(", ");
  return (
    <div>
      <div className="mf-spans" role="img" aria-label={`${t("part.timeline")}: ${text}`}>
        {spans.map((span, index) => (
          <div
            key={index}
            className="mf-span"
            title={`${named("span", span.name)}: ${duration(span.ends - span.begins, t)}`}
            style={{
              insetInlineStart: `${percent(span.begins, begins, ends)}%`,
              width: `${percent(span.ends, begins, ends) - percent(span.begins, begins, ends)}%`,
              background: colorOf(span.name),
            }}
          />
        ))}
      </div>
      <Axis seconds={ends - begins} />
      <ul className="mf-legend">
        {spans.map((span, index) => (
          <li key={index}>
            <span className="mf-swatch" style={{ background: colorOf(span.name) }} />
            {named("span", span.name)} <strong>{duration(span.ends - span.begins, t)}</strong>
          </li>
        ))}
      </ul>
      <details>
        <summary className="mf-muted">{t("part.points")}</summary>
        <dl className="mf-facts">
          {part.points.map((point) => (
            <div key={point.name} style={{ display: "contents" }}>
              <dt>{named("point", point.name)}</dt>
              <dd><Time at={point.at} fraction /> <span className="mf-muted">+{duration(point.at - begins, t)}</span></dd>
            </div>
          ))}
        </dl>
      </details>
    </div>
  );
}

/** The worker reports the first line of a task at the end of the call, so that until then both are one span. */
function growing(span: Span, now: number): Span {
  return { ...span, name: span.name === "preparing" ? "live" : span.name, ends: Math.max(span.ends, now) };
}

function Axis({ seconds }: { seconds: number }) {
  const { t } = useTexts();
  return (
    <div className="mf-axis" aria-hidden>
      {timeTicks(seconds).map((tick) => (
        <span key={tick} style={{ insetInlineStart: `${percent(tick, 0, seconds)}%` }}>{duration(tick, t)}</span>
      ))}
    </div>
  );
}
