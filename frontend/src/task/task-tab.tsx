import { useState } from "react";

import { pathOf, post } from "../api/client";
import { usePolled } from "../api/polling";
import type { CancelAnswer, Links, TaskAnswer, Try } from "../api/types";
import { Button } from "../host/chakra";
import { useTexts } from "../i18n";
import { dollars } from "../lib/format";
import { Cancelled } from "../parts/cancelled";
import { Confirm } from "../parts/dialog";
import { Panel } from "../parts/panel";
import { State } from "../parts/small";
import { Age, Empty, Loading, Problems } from "../parts/states";
import { PartView } from "./part";

/** The function calls of a try that are shown at first: a sensor that reschedules has hundreds. */
const FIRST = 10;
/** Seconds between two requests while something of it runs or waits, and after its end. */
const LIVE = 5;
const ENDED = 30;

/** The tab of a task instance: all its tries, each with its function calls. */
export function TaskTab({ dag, run, task, mapIndex }: { dag: string; run: string; task: string; mapIndex: number }) {
  const { t, language } = useTexts();
  const [live, setLive] = useState(true);
  const [asking, setAsking] = useState(false);
  const polled = usePolled<TaskAnswer>(`/task${pathOf(dag, run, task, mapIndex)}`, live ? LIVE : ENDED);
  const { data } = polled;
  const open = data ? data.tries.some((one) => one.parts.some((part) => part.state !== "ended")) : true;
  if (open !== live) setLive(open);
  return (
    <div className="mf">
      <header className="mf-head">
        {data && data.dollars !== null && <strong>{t("task.total", { dollars: dollars(data.dollars, language) })}</strong>}
        {data && !data.complete && <span className="mf-muted">{t("incomplete")}</span>}
        <div className="mf-controls">
          {data && <Age freshness={data.freshness} receivedAt={polled.receivedAt} />}
          <Button onClick={polled.refresh}>{t("refresh")}</Button>
          {data?.cancellable && <Button colorPalette="red" onClick={() => setAsking(true)}>{t("task.cancel")}</Button>}
        </div>
      </header>
      <Problems polled={polled} />
      {!data && !polled.error && <Loading />}
      {data && data.tries.length === 0 && (
        <section className="mf-panel"><Empty>{t(data.on_modal ? "task.none" : "task.notOnModal")}</Empty></section>
      )}
      {data?.tries.map((one) => <TryPanel key={one.try_number} of={one} links={data.links} />)}
      {asking && data && <CancelTask answer={data} onClose={(done) => {
        setAsking(false);
        if (done) polled.refresh();
      }} />}
    </div>
  );
}

function TryPanel({ of, links }: { of: Try; links: Links }) {
  const { t, language } = useTexts();
  const [all, setAll] = useState(false);
  // The newest ones: they tell the present state.
  const shown = all ? of.parts : of.parts.slice(-FIRST);
  return (
    <Panel
      title={t("try", { number: of.try_number })}
      note={
        <span className="mf-row">
          {of.state && <State of={of.state} />}
          {of.dollars !== null && dollars(of.dollars, language)}
        </span>
      }
    >
      {shown.length < of.parts.length && (
        <div className="mf-body"><div><Button onClick={() => setAll(true)}>{t("try.earlier", { number: of.parts.length - shown.length })}</Button></div></div>
      )}
      {shown.map((part) => <PartView key={`${part.number} ${part.work_id}`} part={part} parts={of.parts.length} links={links} />)}
      {of.parts.length === 0 && <Empty>{t("part.noSpans")}</Empty>}
    </Panel>
  );
}

function CancelTask({ answer, onClose }: { answer: TaskAnswer; onClose: (done: boolean) => void }) {
  const { t } = useTexts();
  const ids = answer.tries.flatMap((one) => one.parts.filter((part) => part.state !== "ended" && part.work_id).map((part) => part.work_id));
  return (
    <Confirm
      danger
      title={t("task.cancel.title")}
      text={t("work.cancel.text")}
      verb={t("task.cancel")}
      act={async () => <Cancelled answer={await post<CancelAnswer>("/actions/cancel", { work_ids: ids })} />}
      onClose={onClose}
    />
  );
}
