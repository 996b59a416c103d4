import type { RunAnswer } from "../api/types";
import { Link, TASK_TAB, taskPage } from "../host/router";
import { useTexts } from "../i18n";
import { duration } from "../lib/format";
import { Time } from "../parts/small";
import { scrollable } from "../parts/panel";
import { Empty } from "../parts/states";

/** The tasks that the end of the run waited for. */
export function CriticalPath({ run }: { run: RunAnswer }) {
  const { t } = useTexts();
  if (run.critical_path.length === 0) return <Empty>{t("run.path.none")}</Empty>;
  return (
    <div className="mf-scroll" ref={scrollable}>
      <table className="mf-table">
        <thead>
          <tr>
            <th scope="col">{t("work.task")}</th>
            <th scope="col">{t("work.since")}</th>
            <th scope="col" className="mf-number">{t("run.path.wait")}</th>
            <th scope="col" className="mf-number">{t("run.path.time")}</th>
          </tr>
        </thead>
        <tbody>
          {run.critical_path.map((step, index) => (
            <tr key={index}>
              <th scope="row">
                <Link className="mf-link" to={`${taskPage(run.dag_id, run.run_id, step.task_id, step.map_index)}/${TASK_TAB}`}>
                  {step.task_id}{step.map_index >= 0 ? ` [${step.map_index}]` : ""}
                </Link>
              </th>
              <td className="mf-nowrap"><Time at={step.begins} /></td>
              <td className="mf-number">{duration(step.wait, t)}</td>
              <td className="mf-number">{duration(step.ends - step.begins, t)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
