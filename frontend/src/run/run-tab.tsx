import { useState } from "react";

import { pathOf } from "../api/client";
import { usePolled } from "../api/polling";
import type { RunAnswer } from "../api/types";
import { Button } from "../host/chakra";
import { useTexts } from "../i18n";
import { dollars, duration } from "../lib/format";
import { Panel } from "../parts/panel";
import { Age, Empty, Loading, Problems } from "../parts/states";
import { Costs } from "./costs";
import { CriticalPath } from "./critical-path";
import { Gantt } from "./gantt";

/** Seconds between two requests while the run is going on, and after its end. */
const LIVE = 5;
const ENDED = 60;
const OVER = new Set(["success", "failed"]);

/** The tab of a DAG run: its containers over time, its cost, and its critical path. */
export function RunTab({ dag, run }: { dag: string; run: string }) {
  const { t } = useTexts();
  const [live, setLive] = useState(true);
  const polled = usePolled<RunAnswer>(`/run${pathOf(dag, run)}`, live ? LIVE : ENDED);
  const { data } = polled;
  const goesOn = !data || !OVER.has(data.state);
  if (goesOn !== live) setLive(goesOn);
  return (
    <div className="mf">
      <header className="mf-head">
        {data && <Summary run={data} />}
        <div className="mf-controls">
          {data && <Age freshness={data.freshness} receivedAt={polled.receivedAt} />}
          <Button onClick={polled.refresh}>{t("refresh")}</Button>
        </div>
      </header>
      <Problems polled={polled} />
      {!data && !polled.error && <Loading />}
      {data && data.containers.length === 0 && <section className="mf-panel"><Empty>{t("run.none")}</Empty></section>}
      {data && data.containers.length > 0 && (
        <>
          <Panel title={t("run.gantt")}><Gantt run={data} /></Panel>
          <div className="mf-columns">
            <Panel title={t("run.path")} note={t("run.path.help")}><CriticalPath run={data} /></Panel>
            <Panel title={t("run.costs")}><Costs rows={data.costs} /></Panel>
          </div>
        </>
      )}
    </div>
  );
}

function Summary({ run }: { run: RunAnswer }) {
  const { t, language } = useTexts();
  const { containers, cold_starts: cold, waiting } = run;
  const texts = [
    run.ends > run.begins && duration(run.ends - run.begins, t),
    t("run.containers", { number: containers.length }),
    t("run.coldStarts", { number: cold }),
    waiting > 0 && t("run.waiting", { number: waiting }),
    run.dollars !== null && dollars(run.dollars, language),
    !run.complete && t("incomplete"),
  ];
  return <strong>{texts.filter(Boolean).join(" · ")}</strong>;
}
