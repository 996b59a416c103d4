import type { ExecutorRow, Overview, RelayRow } from "../api/types";
import { useTexts } from "../i18n";
import { count, duration } from "../lib/format";
import { Panel, scrollable } from "../parts/panel";
import { Ago, English, State, Time } from "../parts/small";
import { Empty, useNow } from "../parts/states";

/** Executors with their last trouble, and relays. */
export function Executors({ overview }: { overview: Overview }) {
  const { t } = useTexts();
  const { executors, relays } = overview;
  return (
    <Panel title={t("executors")}>
      {executors.length === 0 ? <Empty>{t("executors.none")}</Empty> : <Table rows={executors} />}
      {relays.length > 0 && <Relays rows={relays} />}
    </Panel>
  );
}

function Table({ rows }: { rows: ExecutorRow[] }) {
  const { t } = useTexts();
  return (
    <div className="mf-scroll" ref={scrollable}>
      <table className="mf-table">
        <thead>
          <tr>
            <th scope="col">{t("executor")}</th>
            <th scope="col">{t("executor.alive")}</th>
            <th scope="col">{t("executor.reported")}</th>
            <th scope="col" className="mf-number">{t("executor.inFlight")}</th>
            <th scope="col" className="mf-number">{t("state.submitted")}</th>
            <th scope="col" className="mf-number">{t("state.waiting")}</th>
            <th scope="col">{t("executor.trouble")}</th>
          </tr>
        </thead>
        <tbody>{rows.map((row) => <Row key={row.id} row={row} />)}</tbody>
      </table>
    </div>
  );
}

function Row({ row }: { row: ExecutorRow }) {
  const { t, language } = useTexts();
  const notes = [row.team && t("executor.team", { team: row.team }), row.version].filter(Boolean).join(" · ");
  return (
    <tr>
      <th scope="row">
        {row.place || row.id}{" "}
        {row.silent && <State of="lost" label={t("executor.silent")} title={t("executor.silent.help")} />}
        {notes && <div className="mf-muted">{notes}</div>}
      </th>
      <td className="mf-nowrap"><Time at={row.alive_since} /></td>
      <td className="mf-nowrap"><Ago at={row.reported_at} /></td>
      <td className="mf-number">{count(row.in_flight, language)}</td>
      <td className="mf-number">{count(row.submitted, language)}</td>
      <td className="mf-number">
        {count(row.waiting, language)}
        {row.held > 0 && <div className="mf-muted">{t("executor.held", { number: row.held })}</div>}
      </td>
      <td>
        <div className="mf-lines">
          {row.obstacle && <span className="mf-bad"><English>{row.obstacle}</English></span>}
          {row.trouble && <span><English>{row.trouble}</English> <span className="mf-muted"><Ago at={row.trouble_at} /></span></span>}
          {!row.obstacle && !row.trouble && <span className="mf-muted">{t("executor.none")}</span>}
        </div>
      </td>
    </tr>
  );
}

function Relays({ rows }: { rows: RelayRow[] }) {
  const { t } = useTexts();
  const now = useNow(5);
  return (
    <div className="mf-body">
      {rows.map((row) => (
        <div className="mf-row" key={row.name}>
          <span>{t("relays")}: {row.name}</span>
          {row.silent && <State of="lost" label={t("executor.silent")} title={t("executor.silent.help")} />}
          <span className="mf-muted">{t("relay.reported", { age: duration(Math.max(0, Math.round(now - row.reported_at)), t) })}</span>
          {row.problem && <span className="mf-bad"><English>{row.problem}</English></span>}
        </div>
      ))}
    </div>
  );
}
