/** The rows of bars that share a lane of a chart over time. */

/** Return the row of each bar, so that no two bars of a row overlap: as few rows as possible, the earliest on top. */
export function stacked(bars: { begins: number; ends: number }[]): { rows: number[]; number: number } {
  const order = bars.map((_, index) => index).sort((one, other) => begins(bars, one) - begins(bars, other));
  const ends: number[] = [];
  const rows = new Array<number>(bars.length).fill(0);
  for (const index of order) {
    const bar = bars[index];
    if (!bar) continue;
    const free = ends.findIndex((end) => end <= bar.begins);
    const row = free < 0 ? ends.length : free;
    rows[index] = row;
    ends[row] = bar.ends;
  }
  return { rows, number: Math.max(1, ends.length) };
}

function begins(bars: { begins: number }[], index: number): number {
  return bars[index]?.begins ?? 0;
}
