import { useDeferredValue, useEffect, useMemo, useRef, useState } from "react";

import { post } from "../api/client";
import { usePolled } from "../api/polling";
import type { CancelAnswer, WorkTable } from "../api/types";
import { Button } from "../host/chakra";
import { useQuery } from "../host/router";
import { useTexts } from "../i18n";
import { filtersOf, isFiltered, withFilters, workPath, type Filters } from "../lib/filters";
import { count } from "../lib/format";
import { workReader, type Work } from "../lib/work";
import { Cancelled } from "../parts/cancelled";
import { Confirm } from "../parts/dialog";
import { Panel } from "../parts/panel";
import { Age, Empty, Loading, Problems } from "../parts/states";
import { WorkFilters } from "./work-filters";
import { WorkRows } from "./work-rows";

/** Seconds between two requests for the table. */
const EVERY = 5;
/** The most work that one request can cancel. */
const MOST_CANCELLED = 100;

/** The live table of work. Its filters stand in the page's address. */
export function WorkPanel() {
  const { t } = useTexts();
  const [query, setQuery] = useQuery();
  const filters = useMemo(() => filtersOf(query), [query]);
  const polled = usePolled<WorkTable>(workPath(filters), EVERY, true);
  const { data } = polled;
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const [asking, setAsking] = useState(false);
  const change = (next: Partial<Filters>) => setQuery((before) => withFilters(before, next));
  const rows = useWork(useDeferredValue(data));
  useForgotten(rows, selected, setSelected);
  const found = useFound(data, filters);

  return (
    <Panel
      title={t("work")}
      note={data && <Counts table={data} filtered={isFiltered(filters)} />}
      controls={
        <>
          {data && <Age freshness={data.freshness} receivedAt={polled.receivedAt} />}
          {data && data.cancellable.length > 0 && (
            <Button colorPalette="red" disabled={selected.size === 0} title={t("work.cancel.help")} onClick={() => setAsking(true)}>
              {selected.size ? t("work.cancel.number", { number: selected.size }) : t("work.cancel")}
            </Button>
          )}
        </>
      }
    >
      <WorkFilters filters={filters} table={data} change={change} />
      <p className="mf-hidden" role="status">{found}</p>
      {polled.error && <div className="mf-body"><Problems polled={polled} /></div>}
      {!data && !polled.error && <Loading />}
      {data && rows.length === 0 && (
        <Empty>
          {isFiltered(filters) ? t("work.noneFiltered") : t("work.none")}{" "}
          {isFiltered(filters) && <Button onClick={() => change({ state: [], profile: [], dag: [], q: "" })}>{t("work.clear")}</Button>}
        </Empty>
      )}
      {data && rows.length > 0 && (
        <WorkRows
          rows={rows}
          links={data.links}
          cancellable={data.cancellable}
          sort={filters.sort}
          onSort={(sort) => change({ sort })}
          selected={selected}
          onSelect={setSelected}
        />
      )}
      {asking && <CancelDialog ids={[...selected]} onClose={(done) => {
        setAsking(false);
        if (!done) return;
        setSelected(new Set());
        polled.refresh();
      }} />}
    </Panel>
  );
}

function useWork(table: WorkTable | undefined): Work[] {
  return useMemo(() => (table ? table.rows.map(workReader(table.columns)) : []), [table]);
}

/** Drop from the selection what the table no longer has. */
function useForgotten(rows: Work[], selected: ReadonlySet<string>, setSelected: (next: ReadonlySet<string>) => void) {
  useEffect(() => {
    if (selected.size === 0) return;
    const present = new Set(rows.map((row) => row.work_id));
    const left = [...selected].filter((id) => present.has(id));
    if (left.length < selected.size) setSelected(new Set(left));
  }, [rows, selected, setSelected]);
}

/** Return the number of rows found, in words that change with the filters and not with the work. */
function useFound(table: WorkTable | undefined, filters: Filters): string {
  const { t } = useTexts();
  const asked = workPath({ ...filters, sort: "" });
  const before = useRef(asked);
  const [found, setFound] = useState("");
  useEffect(() => {
    if (!table || before.current === asked) return;
    before.current = asked;
    setFound(t("work.matched", { matched: table.matched, total: table.total }));
    // Not whenever the filters change: the table is then still that of the filters before.
  }, [table]);
  return found;
}

function Counts({ table, filtered }: { table: WorkTable; filtered: boolean }) {
  const { t, language } = useTexts();
  const { matched, total, unlisted, rows } = table;
  const texts = [filtered ? t("work.matched", { matched: count(matched, language), total: count(total, language) }) : count(total, language)];
  if (rows.length < matched) texts.push(t("work.listed", { number: rows.length }));
  if (unlisted > 0) texts.push(t("work.unlisted", { number: unlisted }));
  return <>{texts.join(" · ")}</>;
}

function CancelDialog({ ids, onClose }: { ids: string[]; onClose: (done: boolean) => void }) {
  const { t } = useTexts();
  const cancelled = ids.slice(0, MOST_CANCELLED);
  return (
    <Confirm
      danger
      title={t("work.cancel.title", { number: ids.length })}
      text={`${t("work.cancel.text")}${ids.length > MOST_CANCELLED ? ` ${t("work.cancel.most", { number: MOST_CANCELLED })}` : ""}`}
      verb={t("work.cancel.number", { number: cancelled.length })}
      act={async () => <Cancelled answer={await post<CancelAnswer>("/actions/cancel", { work_ids: cancelled })} />}
      onClose={onClose}
    />
  );
}
