import type { TaskCost } from "../api/types";
import { useTexts } from "../i18n";
import { count, dollars, duration } from "../lib/format";
import { percent } from "../lib/scale";
import { Empty } from "../parts/states";
import { scrollable } from "../parts/panel";

/** The cost of each task, the dearest first, with its share as a bar. */
export function Costs({ rows }: { rows: TaskCost[] }) {
  const { t, language } = useTexts();
  if (rows.length === 0) return <Empty>{t("run.path.none")}</Empty>;
  const most = Math.max(...rows.map((row) => row.dollars ?? 0));
  return (
    <div className="mf-scroll" ref={scrollable}>
      <table className="mf-table">
        <thead>
          <tr>
            <th scope="col">{t("work.task")}</th>
            <th scope="col" className="mf-number">{t("run.costs.calls")}</th>
            <th scope="col" className="mf-number">{t("run.costs.tries")}</th>
            <th scope="col" className="mf-number">{t("run.costs.seconds")}</th>
            <th scope="col" className="mf-number">{t("part.cost")}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.task_id}>
              <th scope="row">
                {row.task_id}
                <div className="mf-bar" aria-hidden>
                  <span style={{ width: `${percent(row.dollars ?? 0, 0, most)}%`, background: "var(--mf-blue)" }} />
                </div>
              </th>
              <td className="mf-number">{count(row.calls, language)}</td>
              <td className="mf-number">{count(row.tries, language)}</td>
              <td className="mf-number">{duration(row.seconds, t)}</td>
              <td className="mf-number">{dollars(row.dollars, language)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
