import type { BudgetRow } from "../api/types";
import { useTexts } from "../i18n";
import { dollars } from "../lib/format";
import { percent } from "../lib/scale";
import { Panel } from "../parts/panel";
import { State } from "../parts/small";
import { Empty } from "../parts/states";

/** The budgets with their balances. */
export function Budgets({ rows }: { rows: BudgetRow[] }) {
  const { t } = useTexts();
  return (
    <Panel title={t("budgets")}>
      {rows.length === 0 ? (
        <Empty>{t("budgets.none")}</Empty>
      ) : (
        <ul className="mf-budgets mf-body">
          {rows.map((row) => <Budget key={`${row.scope} ${row.subject} ${row.per}`} row={row} />)}
        </ul>
      )}
    </Panel>
  );
}

function Budget({ row }: { row: BudgetRow }) {
  const { t, named, language } = useTexts();
  const money = (value: number) => dollars(value, language);
  const key = ({ dag: "budget.dag", profile: "budget.profile", team: "budget.team" } as const)[row.scope as "dag"];
  const name = t(key ?? "budget.all", { subject: row.subject });
  const used = row.spent + row.running;
  const share = percent(used, 0, row.dollars);
  const hue = row.used_up ? "red" : share >= 80 ? "orange" : "green";
  return (
    <li className="mf-budget">
      <div className="mf-row">
        <strong>{name}</strong>
        {row.used_up && <State of="failed" label={t("budget.usedUp")} />}
        <span className="mf-muted mf-push">{named("budget", row.action)}</span>
      </div>
      <div className="mf-bar" role="meter" aria-valuemin={0} aria-valuemax={row.dollars} aria-valuenow={Math.min(used, row.dollars)} aria-label={name}>
        <span style={{ width: `${percent(row.spent, 0, row.dollars)}%`, background: `var(--mf-${hue})` }} />
        <span style={{ width: `${percent(row.running, 0, row.dollars)}%`, background: `var(--mf-${hue})`, opacity: 0.5 }} />
      </div>
      <div className="mf-row">
        <span>{t("budget.of", { used: money(used), limit: money(row.dollars), per: named("budget", row.per) })}</span>
        {row.running > 0 && <span className="mf-muted">{t("budget.running", { dollars: money(row.running) })}</span>}
      </div>
    </li>
  );
}
