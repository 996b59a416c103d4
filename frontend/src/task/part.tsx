import type { Amounts, Links, Part } from "../api/types";
import { useTexts } from "../i18n";
import { cores, dollars, duration, memory } from "../lib/format";
import { ModalId, Prose, State } from "../parts/small";
import { scrollable } from "../parts/panel";
import { Sparks } from "./sparks";
import { TimeLine } from "./time-line";

/** One function call of a try: its time line, why it ended, where it ran, and what it used. */
export function PartView({ part, parts, links }: { part: Part; parts: number; links: Links }) {
  const { t } = useTexts();
  return (
    <article className="mf-part">
      <div className="mf-row">
        {parts > 1 && <strong title={t("try.part.help")}>{t("try.part", { number: part.number, parts })}</strong>}
        <State of={part.outcome || part.state} />
        {part.container_id && <span className="mf-muted">{t(part.cold ? "part.cold" : "part.warm")}</span>}
      </div>
      {part.reason && <Reason part={part} />}
      <TimeLine part={part} />
      <div className="mf-columns">
        <Places part={part} links={links} />
        <Resources part={part} />
      </div>
      <Sparks part={part} />
    </article>
  );
}

function Reason({ part }: { part: Part }) {
  return (
    <div className="mf-note">
      <p><Prose>{part.reason}</Prose></p>
      {part.advice && <p className="mf-muted"><Prose>{part.advice}</Prose></p>}
    </div>
  );
}

function Places({ part, links }: { part: Part; links: Links }) {
  const { t, language } = useTexts();
  const cost = `${dollars(part.dollars, language)}${part.unpriced ? `, ${t("part.unpriced", { resource: part.unpriced })}` : ""}`;
  return (
    <dl className="mf-facts">
      <dt>{t("part.call")}</dt>
      <dd><ModalId id={part.function_call_id} page={links.function_call} /></dd>
      <dt>{t("part.container")}</dt>
      <dd><ModalId id={part.container_id} page={links.container} /></dd>
      {(part.region || part.cloud) && <><dt>{t("part.region")}</dt><dd>{[part.region, part.cloud].filter(Boolean).join(", ")}</dd></>}
      <dt>{t("profile")}</dt>
      <dd>{part.profile || "–"}</dd>
      <dt>{t("part.image")}</dt>
      <dd className="mf-id">{part.image || "–"}</dd>
      {part.executor && <><dt>{t("part.executor")}</dt><dd>{part.executor}</dd></>}
      {part.submissions > 1 && <><dt>{t("part.submissions")}</dt><dd>{part.submissions}</dd></>}
      <dt>{t("part.cost")}</dt>
      <dd>{cost}</dd>
    </dl>
  );
}

interface Line {
  name: string;
  cell: (amounts: Amounts) => string;
}

function Resources({ part }: { part: Part }) {
  const { t, language } = useTexts();
  const yesOrNo = (value: boolean | null) => (value === null ? "–" : t(value ? "yes" : "no"));
  const lines: Line[] = [
    { name: t("part.cpu"), cell: (of) => (of.cpu_peak === null ? cores(of.cpu, language) : t("part.cpu.peak", { average: cores(of.cpu, language), peak: cores(of.cpu_peak, language) })) },
    {
      name: t("part.memory"),
      cell: (of) => (of.memory_limit_mib === null ? memory(of.memory_mib, language) : t("part.memory.limit", { memory: memory(of.memory_mib, language), limit: memory(of.memory_limit_mib, language) })),
    },
    { name: "GPU", cell: (of) => of.gpu || "–" },
    { name: t("part.timeout"), cell: (of) => (of.timeout === null ? "–" : duration(of.timeout, t)) },
    { name: t("part.placement"), cell: (of) => [...of.regions, of.cloud].filter(Boolean).join(", ") || "–" },
    { name: t("part.nonpreemptible"), cell: (of) => yesOrNo(of.nonpreemptible) },
  ];
  const columns = [part.asked, part.granted, part.used];
  const known = lines.filter((line) => columns.some((amounts) => line.cell(amounts) !== "–"));
  if (known.length === 0) return null;
  return (
    <div className="mf-scroll" ref={scrollable}>
      <table className="mf-table">
        <thead>
          <tr>
            <th scope="col">{t("part.resource")}</th>
            <th scope="col">{t("part.asked")}</th>
            <th scope="col">{t("part.granted")}</th>
            <th scope="col">{t("part.used")}</th>
          </tr>
        </thead>
        <tbody>
          {known.map((line) => (
            <tr key={line.name}>
              <th scope="row">{line.name}</th>
              {columns.map((amounts, index) => <td key={index}>{line.cell(amounts)}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
