import { memo, useEffect, useRef, useState } from "react";

import type { Links } from "../api/types";
import { Link, TASK_TAB, taskPage } from "../host/router";
import { useTexts, type Key } from "../i18n";
import { nextSort } from "../lib/filters";
import { shownRows, type Shown } from "../lib/rows";
import type { Work } from "../lib/work";
import { Elapsed, English, ModalId, State, Time } from "../parts/small";
import { useNow } from "../parts/states";

/** Pixels; as in styles.css. */
const ROW = 36;

const COLUMNS: { sort: string; text: Key; width: string }[] = [
  { sort: "label", text: "work.task", width: "30%" },
  { sort: "state", text: "profile.state", width: "6.5rem" },
  { sort: "since", text: "work.since", width: "11rem" },
  { sort: "", text: "work.for", width: "7rem" },
  { sort: "profile", text: "profile", width: "9rem" },
  { sort: "reason", text: "work.reason", width: "28%" },
  { sort: "container_id", text: "work.place", width: "17%" },
];

interface Props {
  rows: Work[];
  links: Links;
  cancellable: string[];
  sort: string;
  onSort: (sort: string) => void;
  selected: ReadonlySet<string>;
  onSelect: (next: ReadonlySet<string>) => void;
}

/** The table itself. The page holds the rows in view only, so that 10,000 rows scroll as ten do. */
export function WorkRows({ rows, links, cancellable, sort, onSort, selected, onSelect }: Props) {
  const { t } = useTexts();
  const box = useRef<HTMLDivElement>(null);
  const shown = useShownRows(box, rows.length);
  const now = useNow();
  const order = useSorted(sort);
  const dags = new Set(cancellable);
  const toggle = (id: string) => {
    const next = new Set(selected);
    if (!next.delete(id)) next.add(id);
    onSelect(next);
  };
  return (
    <>
      <p className="mf-hidden" role="status">{order}</p>
      {/* It scrolls by keys, so it takes the focus. */}
      <div className="mf-work" ref={box} tabIndex={0} role="group" aria-label={t("work")}>
        <table className="mf-table" aria-rowcount={rows.length + 1}>
          <colgroup>
            {dags.size > 0 && <col style={{ width: "2.75rem" }} />}
            {COLUMNS.map((column) => <col key={column.text} style={{ width: column.width }} />)}
          </colgroup>
          <thead>
            <tr aria-rowindex={1}>
              {dags.size > 0 && <th scope="col"><span className="mf-hidden">{t("work.cancel")}</span></th>}
              {COLUMNS.map((column) => <Column key={column.text} {...column} order={sort} onSort={onSort} />)}
            </tr>
          </thead>
          <tbody>
            <Space rows={shown.first} />
            {rows.slice(shown.first, shown.last).map((row, index) => (
              <tr key={row.work_id || shown.first + index} aria-rowindex={shown.first + index + 2}>
                {dags.size > 0 && (
                  <td>
                    {dags.has(row.dag_id) && (
                      <input
                        type="checkbox"
                        checked={selected.has(row.work_id)}
                        aria-label={t("work.select", { label: row.label })}
                        onChange={() => toggle(row.work_id)}
                      />
                    )}
                  </td>
                )}
                <Cells row={row} links={links} now={now} />
              </tr>
            ))}
            <Space rows={rows.length - shown.last} />
          </tbody>
        </table>
      </div>
    </>
  );
}

/** Return the order of the rows in words: a screen reader does not read `aria-sort` when it changes. */
function useSorted(sort: string): string {
  const { t } = useTexts();
  const column = COLUMNS.find((one) => one.sort && one.sort === sort.replace(/^-/, ""));
  if (!column) return "";
  return t(sort.startsWith("-") ? "work.sorted.down" : "work.sorted.up", { column: t(column.text) });
}

function useShownRows(box: React.RefObject<HTMLDivElement | null>, total: number): Shown {
  const [shown, setShown] = useState<Shown>(() => shownRows(0, 600, ROW, total));
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const measure = () => {
      const next = shownRows(element.scrollTop, element.clientHeight, ROW, total);
      setShown((before) => (before.first === next.first && before.last === next.last ? before : next));
    };
    measure();
    element.addEventListener("scroll", measure, { passive: true });
    const sizes = new ResizeObserver(measure);
    sizes.observe(element);
    return () => {
      element.removeEventListener("scroll", measure);
      sizes.disconnect();
    };
  }, [box, total]);
  return { first: Math.min(shown.first, total), last: Math.min(shown.last, total) };
}

/** The height of rows that the page does not hold. */
function Space({ rows }: { rows: number }) {
  if (rows <= 0) return null;
  return <tr className="mf-space" aria-hidden style={{ height: rows * ROW }}><td colSpan={COLUMNS.length + 1} /></tr>;
}

function Column({ sort, text, order, onSort }: { sort: string; text: Key; order: string; onSort: (sort: string) => void }) {
  const { t } = useTexts();
  const way = sort && order === sort ? "ascending" : sort && order === `-${sort}` ? "descending" : "none";
  if (!sort) return <th scope="col">{t(text)}</th>;
  return (
    <th scope="col" aria-sort={way}>
      <button type="button" className="mf-sort" title={t("work.sort", { column: t(text) })} onClick={() => onSort(nextSort(order, sort))}>
        {t(text)} <span aria-hidden>{{ ascending: "↑", descending: "↓", none: "" }[way]}</span>
      </button>
    </th>
  );
}

const Cells = memo(function Cells({ row, links, now }: { row: Work; links: Links; now: number }) {
  return (
    <>
      <td title={row.label}>
        {row.dag_id ? (
          <Link className="mf-link" to={`${taskPage(row.dag_id, row.run_id, row.task_id, row.map_index)}/${TASK_TAB}`}><English>{row.label}</English></Link>
        ) : (
          <English>{row.label}</English>
        )}
      </td>
      <td><State of={row.state} /></td>
      <td><Time at={row.since} /></td>
      <td><Elapsed since={row.since} now={now} /></td>
      <td title={row.profile}>{row.profile}</td>
      <td title={row.reason}>{row.reason ? <English>{row.reason}</English> : "–"}</td>
      <td title={row.container_id || row.function_call_id || row.executor}><Place row={row} links={links} /></td>
    </>
  );
});

function Place({ row, links }: { row: Work; links: Links }) {
  const { t } = useTexts();
  if (row.container_id) return <ModalId id={row.container_id} page={links.container} />;
  if (row.function_call_id) return <ModalId id={row.function_call_id} page={links.function_call} />;
  return <>{row.executor ? t("work.executor", { place: row.executor }) : "–"}</>;
}
