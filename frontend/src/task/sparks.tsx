import type { Part, Samples } from "../api/types";
import { useTimeZone } from "../host/settings";
import { useTexts } from "../i18n";
import { clockTime, cores, duration, memory } from "../lib/format";
import { polyline } from "../lib/scale";

const WIDTH = 300;
const HEIGHT = 48;

/** CPU and memory over time, as the worker sampled them. Those of a running call lag behind: the time of the last is shown. */
export function Sparks({ part }: { part: Part }) {
  const { t, language } = useTexts();
  const zone = useTimeZone();
  const { samples } = part;
  const limit = part.granted.memory_limit_mib;
  if (samples.at.length < 2) {
    // Before a container has the call, there is nothing to sample.
    if (part.state !== "ended" && part.state !== "running") return null;
    return <p className="mf-muted">{t(part.state === "ended" ? "part.samples.none" : "part.samples.notYet")}</p>;
  }
  const mostCores = Math.max(...samples.cpu, 0);
  const mostMemory = Math.max(...samples.memory_mib, 0);
  return (
    <div className="mf-sparks">
      <Spark label={t("part.cpu.chart", { most: cores(mostCores, language) })} samples={samples} values={samples.cpu} most={mostCores} hue="blue" />
      <Spark
        label={t("part.memory.chart", { most: memory(mostMemory, language) })}
        samples={samples}
        values={samples.memory_mib}
        most={Math.max(mostMemory, limit !== null && limit < mostMemory * 2 ? limit : 0)}
        {...(limit !== null && limit < mostMemory * 2 ? { limit } : {})}
        hue="purple"
      />
      {part.state !== "ended" && (
        <p className="mf-muted mf-wide">{t("part.samples.until", { time: clockTime(samples.at.at(-1) ?? 0, zone) })}</p>
      )}
    </div>
  );
}

interface SparkProps {
  label: string;
  samples: Samples;
  values: number[];
  most: number;
  limit?: number;
  hue: string;
}

function Spark({ label, samples, values, most, limit, hue }: SparkProps) {
  const { t } = useTexts();
  const line = polyline(samples.at, values, most, WIDTH, HEIGHT - 4);
  const seconds = (samples.at.at(-1) ?? 0) - (samples.at[0] ?? 0);
  const color = `var(--mf-${hue})`;
  const y = limit === undefined ? 0 : (HEIGHT - 4) * (1 - Math.min(1, limit / most));
  return (
    <figure className="mf-spark">
      <figcaption className="mf-row"><span>{label}</span><span className="mf-muted mf-push">{duration(seconds, t)}</span></figcaption>
      <svg viewBox={`0 -2 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={label}>
        <polygon points={`0,${HEIGHT - 4} ${line} ${WIDTH},${HEIGHT - 4}`} fill={color} opacity={0.2} />
        <polyline points={line} fill="none" stroke={color} strokeWidth={1.5} vectorEffect="non-scaling-stroke" />
        {limit !== undefined && (
          <line x1={0} x2={WIDTH} y1={y} y2={y} stroke="var(--mf-red)" strokeDasharray="4 3" vectorEffect="non-scaling-stroke" />
        )}
      </svg>
    </figure>
  );
}
