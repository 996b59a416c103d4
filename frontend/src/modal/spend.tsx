import { useState } from "react";

import { usePolled } from "../api/polling";
import type { Series, Spend } from "../api/types";
import { useQuery } from "../host/router";
import { useTexts } from "../i18n";
import { count, dollars } from "../lib/format";
import { firstDay } from "../lib/days";
import { Panel, scrollable } from "../parts/panel";
import { Empty, Loading, Problems } from "../parts/states";
import { color, StackedBars } from "./stacked-bars";

const WAYS = ["dag", "profile", "day"] as const;
type Way = (typeof WAYS)[number];
const SPANS = [7, 14, 30];
/** Seconds between two requests. The figures are those of ended work. */
const EVERY = 60;

/** Spend by DAG, profile and day. The choice stands in the page's address. */
export function SpendPanel() {
  const { t } = useTexts();
  const [query, setQuery] = useQuery();
  const by = WAYS.find((way) => way === query.get("spend")) ?? "dag";
  const days = SPANS.find((span) => String(span) === query.get("days")) ?? 7;
  const polled = usePolled<Spend>(`/spend?since=${firstDay(Date.now(), days)}&by=${by}`, EVERY, true);
  const set = (name: string, value: string) =>
    setQuery((before) => {
      const next = new URLSearchParams(before);
      next.set(name, value);
      return next;
    });
  const { data } = polled;
  return (
    <Panel
      title={t("spend")}
      controls={
        <>
          <div className="mf-chips" role="group" aria-label={t("spend")}>
            {WAYS.map((way) => (
              <button key={way} type="button" className="mf-chip" aria-pressed={way === by} onClick={() => set("spend", way)}>
                {t(`spend.by.${way}`)}
              </button>
            ))}
          </div>
          <select className="mf-select" aria-label={t("spend.day")} value={days} onChange={(event) => set("days", event.target.value)}>
            {SPANS.map((span) => <option key={span} value={span}>{t("spend.days", { number: span })}</option>)}
          </select>
        </>
      }
    >
      {polled.error && <div className="mf-body"><Problems polled={polled} /></div>}
      {!data && !polled.error && <Loading />}
      {data && <Figures spend={data} by={by} />}
    </Panel>
  );
}

function Figures({ spend, by }: { spend: Spend; by: Way }) {
  const { t, language } = useTexts();
  const unpriced = Object.entries(spend.unpriced).map(([name, calls]) => `${name} (${calls})`).join(", ");
  const notes = [
    spend.rates && t("spend.rates", { rates: spend.rates }),
    unpriced && t("spend.unpriced", { list: unpriced }),
    !spend.complete && t("incomplete"),
  ].filter(Boolean);
  return (
    <div className="mf-body">
      {spend.series.length === 0 || spend.total === 0 ? (
        <Empty>{t("spend.none")}</Empty>
      ) : (
        <>
          <p>{[dollars(spend.total, language), t("spend.days", { number: spend.days.length }), t("spend.calls.number", { number: spend.calls })].join(" · ")}</p>
          <StackedBars days={spend.days} series={spend.series} label={t("spend.chart")} />
          {by !== "day" && <Totals series={spend.series} />}
        </>
      )}
      {notes.length > 0 && <p className="mf-muted">{notes.join(" · ")}</p>}
    </div>
  );
}

/** The series with their colours: the chart's legend, and its figures for those who cannot see it. */
function Totals({ series }: { series: Series[] }) {
  const { t, language } = useTexts();
  const [all, setAll] = useState(false);
  const shown = all ? series : series.slice(0, 6);
  return (
    <div className="mf-scroll" ref={scrollable}>
      <table className="mf-table">
        <thead>
          <tr>
            <th scope="col">{t("spend.series")}</th>
            <th scope="col" className="mf-number">{t("spend.calls")}</th>
            <th scope="col" className="mf-number">{t("spend.total")}</th>
          </tr>
        </thead>
        <tbody>
          {shown.map((one, index) => (
            <tr key={one.name}>
              <th scope="row"><span className="mf-swatch" style={{ background: color(index) }} />{one.name}</th>
              <td className="mf-number">{count(one.calls, language)}</td>
              <td className="mf-number">{dollars(one.total, language)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {series.length > shown.length && (
        <button type="button" className="mf-chip" onClick={() => setAll(true)}>{t("more", { number: series.length - shown.length })}</button>
      )}
    </div>
  );
}
