/** Axes of charts. */

/** Return the round numbers of an axis from 0 to at least `most`: at most `wanted` steps of 1, 2, 2.5 or 5 × 10ⁿ. */
export function ticks(most: number, wanted = 4): number[] {
  if (!(most > 0)) return [0, 1];
  const rough = most / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * (1 - 1e-9)) ?? 10) * power;
  const number = Math.ceil(most / step - 1e-9);
  return Array.from({ length: number + 1 }, (_, index) => index * step);
}

const STEPS = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200,
  10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
];

/** Return the round seconds since the beginning of an axis of time that is `length` seconds long. */
export function timeTicks(length: number, wanted = 6): number[] {
  const step = STEPS.find((size) => length / size <= wanted) ?? Math.ceil(length / wanted / 604_800) * 604_800;
  if (!(length > 0)) return [0];
  return Array.from({ length: Math.floor(length / step + 1e-9) + 1 }, (_, index) => index * step);
}

/** Return where `at` lies between `begins` and `ends`, in percent of the way, within 0 and 100. */
export function percent(at: number, begins: number, ends: number): number {
  if (!(ends > begins)) return 0;
  return Math.min(100, Math.max(0, ((at - begins) / (ends - begins)) * 100));
}

/** Return the `points` of an SVG polyline of values over time, in a box of the given size. */
export function polyline(at: number[], values: number[], most: number, width: number, height: number): string {
  const begins = at[0] ?? 0;
  const ends = at.at(-1) ?? begins;
  return values
    .map((value, index) => {
      const x = (percent(at[index] ?? begins, begins, ends) / 100) * width;
      const y = height - (most > 0 ? Math.min(1, value / most) : 0) * height;
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    })
    .join(" ");
}
