import { useEffect, useRef, useState } from "react";

import { stream } from "../api/client";
import type { Finding } from "../api/types";
import { Alert, Button, Spinner } from "../host/chakra";
import { useTexts } from "../i18n";
import { duration } from "../lib/format";
import { Dialog } from "../parts/dialog";
import { English, Prose, State } from "../parts/small";

type Phase = "asked" | "running" | "done";

/** The doctor, after a confirmation: it contacts Modal and can start a container. */
export function Doctor({ onClose }: { onClose: () => void }) {
  const { t } = useTexts();
  const [phase, setPhase] = useState<Phase>("asked");
  const [findings, setFindings] = useState<Finding[]>([]);
  const [problem, setProblem] = useState("");
  const stop = useRef(new AbortController());
  useEffect(() => {
    stop.current = new AbortController();
    return () => stop.current.abort();
  }, []);
  const run = async () => {
    setPhase("running");
    setFindings([]);
    setProblem("");
    try {
      await stream<Finding>("/actions/doctor", stop.current.signal, (found) => setFindings((before) => [...before, found]));
    } catch (error) {
      if (!stop.current.signal.aborted) setProblem(error instanceof Error ? error.message : String(error));
    }
    setPhase("done");
  };
  const number = (status: string) => findings.filter((found) => found.status === status).length;
  return (
    <Dialog title={t("doctor")} onClose={onClose}>
      <div className="mf-dialog-body">
        {phase === "asked" && <p>{t("doctor.text")}</p>}
        {findings.length > 0 && <Findings of={findings} />}
        {phase === "running" && <div className="mf-row" role="status"><Spinner /> {t("doctor.running")}</div>}
        {problem && <Alert status="error" title={t("action.failed")} detail={<English>{problem}</English>} />}
        {phase === "done" && !problem && (
          <p role="status">{t("doctor.done", { ok: number("ok"), warn: number("warn"), fail: number("fail") })}</p>
        )}
      </div>
      <div className="mf-dialog-foot">
        <Button onClick={onClose}>{t("close")}</Button>
        {phase !== "running" && <Button autoFocus variant="solid" colorPalette="brand" onClick={() => void run()}>{t("doctor.run")}</Button>}
      </div>
    </Dialog>
  );
}

function Findings({ of }: { of: Finding[] }) {
  const { t, named } = useTexts();
  return (
    <ul className="mf-budgets">
      {of.map((found, index) => (
        <li key={index} className="mf-lines">
          <div className="mf-row">
            <State of={found.status} label={named("doctor", found.status)} /> <strong><English>{found.name}</English></strong>
            {found.seconds !== null && <span className="mf-muted">{duration(found.seconds, t)}</span>}
          </div>
          {found.detail && <English>{found.detail}</English>}
          {found.advice && <p className="mf-note"><Prose>{found.advice}</Prose></p>}
        </li>
      ))}
    </ul>
  );
}
