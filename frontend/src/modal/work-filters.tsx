import { useEffect, useRef, useState } from "react";

import type { WorkTable } from "../api/types";
import { useTexts } from "../i18n";
import type { Filters } from "../lib/filters";
import { count } from "../lib/format";

const STATES = ["running", "submitted", "waiting"];
/** Milliseconds without a key before a text is searched for. */
const PATIENCE = 250;

/** The filters above the table of work. */
export function WorkFilters({ filters, table, change }: { filters: Filters; table: WorkTable | undefined; change: (next: Partial<Filters>) => void }) {
  const { t, named, language } = useTexts();
  const toggle = (state: string) =>
    change({ state: filters.state.includes(state) ? filters.state.filter((other) => other !== state) : [...filters.state, state] });
  return (
    <div className="mf-panel-head">
      <div className="mf-chips" role="group" aria-label={t("profile.state")}>
        {STATES.map((state) => (
          <button key={state} type="button" className="mf-chip" aria-pressed={filters.state.includes(state)} onClick={() => toggle(state)}>
            {named("state", state)} {table && count(table.states[state] ?? 0, language)}
          </button>
        ))}
      </div>
      <Choice label={t("work.filter.profile")} chosen={filters.profile} values={table?.profiles ?? []} onChoose={(profile) => change({ profile })} />
      <Choice label={t("work.filter.dag")} chosen={filters.dag} values={table?.dags ?? []} onChoose={(dag) => change({ dag })} />
      <Search value={filters.q} onSearch={(q) => change({ q })} />
    </div>
  );
}

function Choice({ label, chosen, values, onChoose }: { label: string; chosen: string[]; values: string[]; onChoose: (next: string[]) => void }) {
  const all = [...new Set([...chosen, ...values])].sort((one, other) => one.localeCompare(other));
  // An address can name several values; the menu then shows them as one.
  const several = chosen.length > 1 ? chosen.join(", ") : undefined;
  return (
    <select
      className="mf-select"
      aria-label={label}
      value={several ?? chosen[0] ?? ""}
      onChange={(event) => onChoose(event.target.value ? [event.target.value] : [])}
    >
      <option value="">{label}</option>
      {several && <option value={several}>{several}</option>}
      {all.map((value) => <option key={value} value={value}>{value}</option>)}
    </select>
  );
}

function Search({ value, onSearch }: { value: string; onSearch: (text: string) => void }) {
  const { t } = useTexts();
  const [text, setText] = useState(value);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => setText(value), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return (
    <input
      className="mf-input"
      type="search"
      placeholder={t("work.search")}
      aria-label={t("work.search.help")}
      title={t("work.search.help")}
      value={text}
      onChange={(event) => {
        const next = event.target.value;
        setText(next);
        clearTimeout(timer.current);
        timer.current = setTimeout(() => onSearch(next), PATIENCE);
      }}
    />
  );
}
