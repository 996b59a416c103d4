/**
 * Requests sent before their view is in the page. React shows what was loaded late no sooner than 300 ms after the
 * placeholder for it, so a view's first answers can be there before the view.
 */

import { get } from "./client";

/** Milliseconds after which an answer is no longer taken for a new one. */
const LASTS = 3000;

const sent = new Map<string, { at: number; answer: Promise<string> }>();

/** Ask for a path now. The next `takeEarly` of it has the answer. */
export function sendEarly(path: string): void {
  const answer = get(path);
  // The view that takes it handles a failure; without one, the browser would report it.
  answer.catch(() => undefined);
  sent.set(path, { at: Date.now(), answer });
}

/** Return the answer to `sendEarly`, once; undefined if the path was not asked for, or too long ago. */
export function takeEarly(path: string): Promise<string> | undefined {
  const found = sent.get(path);
  sent.delete(path);
  return found && Date.now() - found.at < LASTS ? found.answer : undefined;
}
