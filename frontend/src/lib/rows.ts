/** The rows of a long table that the page has to hold. */

export interface Shown {
  first: number;
  /** Exclusive. */
  last: number;
}

/** Rows above and below those in view, so that scrolling by a little shows no gap. */
const MARGIN = 12;

/** Return the rows in view of a table whose rows have one height. It changes in steps, so that few scrolls redraw. */
export function shownRows(scrolled: number, visible: number, height: number, total: number): Shown {
  const top = Math.floor(Math.max(0, scrolled) / height);
  const first = Math.max(0, Math.floor((top - MARGIN) / MARGIN) * MARGIN);
  const last = Math.min(total, Math.ceil((top + visible / height + MARGIN) / MARGIN) * MARGIN);
  return { first: Math.min(first, Math.max(0, last - 1)), last };
}
