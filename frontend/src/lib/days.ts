/** Return the ISO date (UTC) of the first of the last `days` days, today included. `now` is in milliseconds. */
export function firstDay(now: number, days: number): string {
  return new Date(now - (days - 1) * 86_400_000).toISOString().slice(0, 10);
}
