import { memo, useMemo, useState, type CSSProperties } from "react";

import type { Bar, ContainerRow, RunAnswer } from "../api/types";
import { Button } from "../host/chakra";
import { Link, TASK_TAB, taskPage } from "../host/router";
import { useTimeZone } from "../host/settings";
import { useTexts, type Key } from "../i18n";
import { clockTime, duration } from "../lib/format";
import { stacked } from "../lib/lanes";
import { percent, timeTicks } from "../lib/scale";
import { ModalId } from "../parts/small";
import { scrollable } from "../parts/panel";

/** Pixels of one row of bars. */
const ROW = 26;
/** The containers that are shown at first. */
const FIRST = 100;

const BAD = new Set(["failed", "lost", "out-of-memory", "timed_out", "cancelled", "upstream_failed"]);

function colorOf(bar: Bar): string {
  if (bar.running) return "var(--mf-blue)";
  if (bar.outcome === "success") return "var(--mf-green)";
  return BAD.has(bar.outcome) ? "var(--mf-red)" : "var(--mf-purple)";
}

/** Containers over time. The hatched beginning of a bar is a cold start; a frame marks the critical path. */
export function Gantt({ run }: { run: RunAnswer }) {
  const { t } = useTexts();
  const [all, setAll] = useState(false);
  const shown = all ? run.containers : run.containers.slice(0, FIRST);
  const seconds = run.ends - run.begins;
  const ticks = timeTicks(seconds, 8);
  const step = ticks[1] === undefined ? 100 : percent(ticks[1], 0, seconds);
  return (
    <div className="mf-body">
      <Legend />
      <div className="mf-scroll mf-gantt-box" ref={scrollable}>
        <div role="list" aria-label={t("run.gantt")} style={{ "--mf-step": `${step}%` } as CSSProperties}>
          <div className="mf-gantt" aria-hidden>
            <div className="mf-lane-name mf-muted">{t("part.container")}</div>
            <Axis ticks={ticks} run={run} seconds={seconds} />
          </div>
          {shown.map((container) => <Lane key={container.container_id} container={container} run={run} />)}
        </div>
      </div>
      {shown.length < run.containers.length && (
        <div><Button onClick={() => setAll(true)}>{t("run.showAll", { number: run.containers.length })}</Button></div>
      )}
    </div>
  );
}

function Axis({ ticks, run, seconds }: { ticks: number[]; run: RunAnswer; seconds: number }) {
  const zone = useTimeZone();
  const { t } = useTexts();
  return (
    <div className="mf-axis mf-lane">
      {ticks.map((tick) => (
        <span key={tick} title={clockTime(run.begins + tick, zone)} style={{ insetInlineStart: `${percent(tick, 0, seconds)}%` }}>
          {duration(tick, t)}
        </span>
      ))}
    </div>
  );
}

const Lane = memo(function Lane({ container, run }: { container: ContainerRow; run: RunAnswer }) {
  const { rows, number } = useMemo(() => stacked(container.bars), [container.bars]);
  const place = (begins: number, ends: number) => ({
    insetInlineStart: `${percent(begins, run.begins, run.ends)}%`,
    width: `${percent(ends, run.begins, run.ends) - percent(begins, run.begins, run.ends)}%`,
  });
  return (
    <div role="listitem" className="mf-gantt">
      <div className="mf-lane-name">
        <ModalId id={container.container_id} page={run.links.container} />
        <div className="mf-muted">{container.profile}</div>
      </div>
      <div className="mf-lane" style={{ minHeight: number * ROW + 4 }}>
        <div className="mf-life" style={place(container.begins, container.ends)} />
        {container.bars.map((bar, index) => (
          <Call key={index} bar={bar} run={run} style={{ ...place(bar.begins, bar.ends), top: (rows[index] ?? 0) * ROW + 4 }} />
        ))}
      </div>
    </div>
  );
});

function Call({ bar, run, style }: { bar: Bar; run: RunAnswer; style: CSSProperties }) {
  const { t, named } = useTexts();
  const task = bar.map_index >= 0 ? `${bar.task_id} [${bar.map_index}]` : bar.task_id;
  const text = t("run.bar", {
    task,
    outcome: named("state", bar.running ? "running" : bar.outcome),
    duration: duration(bar.ends - bar.begins, t),
    start: duration(bar.ready - bar.begins, t),
    kind: t(bar.cold ? "run.cold" : "run.warm"),
  });
  const start = percent(bar.ready, bar.begins, bar.ends);
  return (
    <div className={`mf-call${bar.critical ? " mf-critical" : ""}`} style={{ ...style, background: colorOf(bar) }}>
      <div className={bar.cold ? "mf-cold" : "mf-start"} style={{ width: `${start}%` }} />
      <Link className="mf-call-label" title={text} to={`${taskPage(run.dag_id, run.run_id, bar.task_id, bar.map_index)}/${TASK_TAB}`}>
        <span aria-hidden>{task}</span><span className="mf-hidden">{text}</span>
      </Link>
    </div>
  );
}

const LEGEND: [Key, string, string][] = [
  ["run.legend.cold", "mf-cold", ""],
  ["run.legend.start", "mf-start", ""],
  ["run.legend.success", "", "var(--mf-green)"],
  ["run.legend.running", "", "var(--mf-blue)"],
  ["run.legend.bad", "", "var(--mf-red)"],
  ["run.legend.other", "", "var(--mf-purple)"],
  ["run.legend.critical", "mf-critical", "transparent"],
];

function Legend() {
  const { t } = useTexts();
  return (
    <ul className="mf-legend">
      {LEGEND.map(([text, className, background]) => (
        <li key={text}><span className={`mf-swatch ${className}`} style={background ? { background } : {}} />{t(text)}</li>
      ))}
    </ul>
  );
}
