import { useState } from "react";

import { pathOf, post } from "../api/client";
import type { Overview, ProfileAnswer, ProfileRow } from "../api/types";
import { Button } from "../host/chakra";
import { useTimeZone } from "../host/settings";
import { useTexts } from "../i18n";
import { count, dateTime, dollars } from "../lib/format";
import { Confirm } from "../parts/dialog";
import { Panel, scrollable } from "../parts/panel";
import { English, State } from "../parts/small";
import { Empty } from "../parts/states";

type Action = "pause" | "resume" | "drain";

/** Characters of a reason; as in protocol/profile_holds.py. */
const LONGEST_REASON = 300;

/** The deployed profiles, with pause, resume and drain for those who may. */
export function Profiles({ overview, onChanged }: { overview: Overview; onChanged: () => void }) {
  const { t } = useTexts();
  const [asked, setAsked] = useState<{ name: string; action: Action }>();
  const { profiles, viewer } = overview;
  return (
    <Panel title={t("profiles")}>
      {profiles.length === 0 ? (
        <Empty>{t("profiles.none")}</Empty>
      ) : (
        <div className="mf-scroll" ref={scrollable}>
          <table className="mf-table">
            <Columns manage={viewer.manage} />
            <tbody>
              {profiles.map((row) => (
                <Row key={row.name} row={row} manage={viewer.manage} ask={(action) => setAsked({ name: row.name, action })} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {asked && (
        <Confirm
          title={t(`profile.${asked.action}.title`, { name: asked.name })}
          text={t(`profile.${asked.action}.text`)}
          verb={t(`profile.${asked.action}`)}
          {...(asked.action === "resume" ? {} : { question: t("profile.reason.ask"), longest: LONGEST_REASON })}
          act={async (reason) => {
            await post<ProfileAnswer>(`/actions/profile${pathOf(asked.name, asked.action)}`, reason ? { reason } : {});
            return "";
          }}
          onClose={(done) => {
            setAsked(undefined);
            if (done) onChanged();
          }}
        />
      )}
    </Panel>
  );
}

function Columns({ manage }: { manage: boolean }) {
  const { t } = useTexts();
  return (
    <thead>
      <tr>
        <th scope="col">{t("profile")}</th>
        <th scope="col">{t("profile.state")}</th>
        <th scope="col" className="mf-number">{t("profile.containers")}</th>
        <th scope="col" className="mf-number">{t("state.running")}</th>
        <th scope="col" className="mf-number">{t("state.submitted")}</th>
        <th scope="col" className="mf-number">{t("state.waiting")}</th>
        <th scope="col" className="mf-number" title={t("profile.backlog.help")}>{t("profile.backlog")}<span className="mf-hidden">: {t("profile.backlog.help")}</span></th>
        <th scope="col">{t("profile.resources")}</th>
        <th scope="col">{t("profile.limits")}</th>
        <th scope="col" className="mf-number" title={t("profile.price.help")}>{t("profile.price")}<span className="mf-hidden">: {t("profile.price.help")}</span></th>
        {manage && <th scope="col">{t("profile.actions")}</th>}
      </tr>
    </thead>
  );
}

function Row({ row, manage, ask }: { row: ProfileRow; manage: boolean; ask: (action: Action) => void }) {
  const { language } = useTexts();
  return (
    <tr>
      <th scope="row">{row.name}{row.problem && <div className="mf-bad"><English>{row.problem}</English></div>}</th>
      <td><ProfileState row={row} /></td>
      {[row.containers, row.running, row.submitted, row.waiting, row.backlog].map((value, index) => (
        <td key={index} className="mf-number">{count(value, language)}</td>
      ))}
      <td><Pairs of={row.resources} /></td>
      <td><Pairs of={row.limits} /></td>
      <td className="mf-number">{dollars(row.dollars_per_hour, language)}</td>
      {manage && <td><Actions row={row} ask={ask} /></td>}
    </tr>
  );
}

function ProfileState({ row }: { row: ProfileRow }) {
  const { t } = useTexts();
  const zone = useTimeZone();
  return (
    <>
      <State of={row.state} />
      {row.state_by && (
        <div className="mf-muted">{t("profile.stateBy", { by: row.state_by, time: dateTime(row.state_since, zone) })}</div>
      )}
      {row.state_reason && <div className="mf-words">{t("profile.reason", { reason: row.state_reason })}</div>}
    </>
  );
}

function Pairs({ of }: { of: Record<string, string> }) {
  const pairs = Object.entries(of);
  if (pairs.length === 0) return <>–</>;
  return (
    <div className="mf-lines">
      {pairs.map(([name, value]) => (
        <span key={name}><English><span className="mf-muted">{name.replaceAll("_", " ")}</span> {value}</English></span>
      ))}
    </div>
  );
}

function Actions({ row, ask }: { row: ProfileRow; ask: (action: Action) => void }) {
  const { t } = useTexts();
  const actions: Action[] = row.state === "active" ? ["pause", "drain"] : ["resume"];
  return (
    <div className="mf-controls">
      {actions.map((action) => (
        <Button key={action} aria-label={`${t(`profile.${action}`)} ${row.name}`} onClick={() => ask(action)}>
          {t(`profile.${action}`)}
        </Button>
      ))}
    </div>
  );
}
