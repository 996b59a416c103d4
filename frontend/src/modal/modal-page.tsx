import { useState } from "react";

import { sendEarly } from "../api/early";
import { usePolled, type Polled } from "../api/polling";
import type { Overview } from "../api/types";
import { Button, Heading } from "../host/chakra";
import { PAGE } from "../host/router";
import { useTexts } from "../i18n";
import { filtersOf, workPath } from "../lib/filters";
import { count } from "../lib/format";
import { Age, Loading, Problems } from "../parts/states";
import { Budgets } from "./budgets";
import { Doctor } from "./doctor";
import { Executors } from "./executors";
import { Losses } from "./losses";
import { Profiles } from "./profiles";
import { SpendPanel } from "./spend";
import { WorkPanel } from "./work";

const OVERVIEW = "/overview";
/** Seconds between two requests for the state of executors and profiles. */
const EVERY = 10;

/** Ask for what the page shows, if the browser's address is the page's. */
export function askForPage(): void {
  const { pathname, search } = window.location;
  if (!pathname.endsWith(PAGE)) return;
  sendEarly(workPath(filtersOf(new URLSearchParams(search))));
  sendEarly(OVERVIEW);
}

/** The page in the navigation: everything that runs, waits, costs and was lost. */
export function ModalPage() {
  const overview = usePolled<Overview>(OVERVIEW, EVERY);
  const { data } = overview;
  return (
    <main className="mf">
      <Head overview={overview} />
      <Problems polled={overview} />
      {!data && !overview.error && <Loading />}
      {data && <Totals overview={data} />}
      {data?.viewer.executors && <Executors overview={data} />}
      {data && <Profiles overview={data} onChanged={overview.refresh} />}
      <WorkPanel />
      <div className="mf-columns mf-wide">
        <SpendPanel />
        {data && <Budgets rows={data.budgets} />}
      </div>
      {data && <Losses groups={data.losses} />}
    </main>
  );
}

function Head({ overview }: { overview: Polled<Overview> }) {
  const { t } = useTexts();
  const [checking, setChecking] = useState(false);
  const { data } = overview;
  return (
    <header className="mf-head">
      <Heading level={1}>Modal</Heading>
      {data && <Place overview={data} />}
      <div className="mf-controls">
        {data && <Age freshness={data.freshness} receivedAt={overview.receivedAt} />}
        <Button onClick={overview.refresh}>{t("refresh")}</Button>
        {data?.viewer.examine && <Button onClick={() => setChecking(true)}>{t("doctor.run")}</Button>}
      </div>
      {checking && <Doctor onClose={() => setChecking(false)} />}
    </header>
  );
}

function Place({ overview }: { overview: Overview }) {
  const { t } = useTexts();
  const { app, environment, version, worker_version: worker, links } = overview;
  const place = environment ? t("where", { app, environment }) : t("where.app", { app });
  const differs = worker !== "" && worker !== version;
  return (
    <span className="mf-muted">
      {app && (links.app ? <a className="mf-link" href={links.app} target="_blank" rel="noopener noreferrer">{place}</a> : place)}
      {app && version && " · "}
      {version && <span className={differs ? "mf-old" : ""}>{t(differs ? "versions.differ" : "versions", { version, worker })}</span>}
    </span>
  );
}

function Totals({ overview }: { overview: Overview }) {
  const { t, language } = useTexts();
  const silent = overview.executors.filter((row) => row.silent).length;
  const unknown = overview.profiles.some((row) => row.containers === null);
  const sum = unknown ? null : overview.profiles.reduce((total, row) => total + (row.containers ?? 0), 0);
  const of = (name: string) => overview.totals[name] ?? 0;
  const totals: { name: string; value: number | null; help?: string; note?: string }[] = [
    { name: t("state.running"), value: of("running") },
    { name: t("state.submitted"), value: of("submitted"), help: t("total.submitted.help") },
    { name: t("state.waiting"), value: of("waiting"), help: t("total.waiting.help") },
    { name: t("profile.containers"), value: sum },
  ];
  if (overview.viewer.executors) {
    const note = silent ? t("total.silent", { number: silent }) : "";
    totals.push({ name: t("executors"), value: overview.executors.length, note });
  }
  return (
    <dl className="mf-totals">
      {totals.map(({ name, value, help, note }) => (
        <div className="mf-total" key={name} title={help}>
          <dt>{name}{help && <span className="mf-hidden">: {help}</span>}</dt>
          <dd>{count(value, language)}{note && <small className="mf-bad">{note}</small>}</dd>
        </div>
      ))}
    </dl>
  );
}
