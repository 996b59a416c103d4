import type { LossGroup } from "../api/types";
import { Link, TASK_TAB, taskPage } from "../host/router";
import { useTexts } from "../i18n";
import { Panel } from "../parts/panel";
import { Ago, English, Prose, State } from "../parts/small";
import { Empty } from "../parts/states";

/** The last losses by cause, each with the advice of the table of reasons. */
export function Losses({ groups }: { groups: LossGroup[] }) {
  const { t } = useTexts();
  return (
    <Panel title={t("losses")}>
      {groups.length === 0 && <Empty>{t("losses.none")}</Empty>}
      {groups.map((group) => <Group key={group.cause} group={group} />)}
    </Panel>
  );
}

function Group({ group }: { group: LossGroup }) {
  const { t } = useTexts();
  return (
    <details className="mf-loss">
      <summary>
        <State of="lost" label={<English>{group.cause}</English>} /> <English>{group.what}</English>{" "}
        <span className="mf-muted">
          {t("losses.number", { number: group.number })}
          {group.losses[0] && <> · <Ago at={group.losses[0].at} /></>}
        </span>
      </summary>
      <div className="mf-lines">
        {group.advice && <p className="mf-note"><Prose>{group.advice}</Prose></p>}
        <ul className="mf-lines">
          {group.losses.map((loss, index) => (
            <li key={index}>
              <span className="mf-muted"><Ago at={loss.at} /></span>{" "}
              {loss.dag_id && (
                <Link className="mf-link" to={`${taskPage(loss.dag_id, loss.run_id, loss.task_id, loss.map_index)}/${TASK_TAB}`}>
                  {loss.dag_id}.{loss.task_id} {loss.run_id}{loss.map_index >= 0 ? ` [${loss.map_index}]` : ""} {t("work.try", { number: loss.try_number })}
                </Link>
              )}
              : <English>{loss.reason}</English>
            </li>
          ))}
        </ul>
      </div>
    </details>
  );
}
