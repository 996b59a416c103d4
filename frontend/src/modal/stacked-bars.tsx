import type { Series } from "../api/types";
import { useTexts } from "../i18n";
import { dollars } from "../lib/format";
import { ticks } from "../lib/scale";

const COLORS = ["blue", "orange", "green", "purple", "cyan", "yellow", "red", "slate"];

/** Return the colour of a series by its place. */
export function color(index: number): string {
  return `var(--mf-${COLORS[index % COLORS.length] ?? "blue"})`;
}

const WIDTH = 640;
const HEIGHT = 200;
const LEFT = 56;
const BOTTOM = 22;
const TOP = 8;

/** A bar for each day, with a segment for each series. The table below it has the figures. */
export function StackedBars({ days, series, label }: { days: string[]; series: Series[]; label: string }) {
  const { language } = useTexts();
  const sums = days.map((_, day) => series.reduce((sum, one) => sum + (one.dollars[day] ?? 0), 0));
  const marks = ticks(Math.max(0, ...sums));
  const most = marks.at(-1) ?? 1;
  const y = (value: number) => TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM);
  const step = (WIDTH - LEFT) / Math.max(1, days.length);
  const every = Math.ceil(days.length / 10);
  return (
    <svg className="mf-chart" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} direction="ltr" role="img" aria-label={`${label}: ${summary(days, sums, language)}`}>
      {marks.map((mark) => (
        <g key={mark}>
          <line className="mf-grid" x1={LEFT} x2={WIDTH} y1={y(mark)} y2={y(mark)} />
          <text x={LEFT - 6} y={y(mark) + 4} textAnchor="end">{dollars(mark, language)}</text>
        </g>
      ))}
      {days.map((day, index) => (
        <g key={day}>
          <Bar day={index} series={series} x={LEFT + index * step + step * 0.15} width={step * 0.7} y={y} language={language} name={day} />
          {index % every === 0 && <text x={LEFT + (index + 0.5) * step} y={HEIGHT - 6} textAnchor="middle">{day.slice(5)}</text>}
        </g>
      ))}
    </svg>
  );
}

interface BarProps {
  day: number;
  name: string;
  series: Series[];
  x: number;
  width: number;
  y: (value: number) => number;
  language: string;
}

function Bar({ day, name, series, x, width, y, language }: BarProps) {
  let below = 0;
  return (
    <>
      {series.map((one, index) => {
        const value = one.dollars[day] ?? 0;
        const from = below;
        below += value;
        if (value <= 0) return null;
        return (
          <rect key={one.name} x={x} width={width} y={y(below)} height={Math.max(0.5, y(from) - y(below))} fill={color(index)}>
            <title>{`${name}: ${one.name} ${dollars(value, language)}`}</title>
          </rect>
        );
      })}
    </>
  );
}

function summary(days: string[], sums: number[], language: string): string {
  return days.map((day, index) => `${day} ${dollars(sums[index] ?? 0, language)}`).join(", ");
}
