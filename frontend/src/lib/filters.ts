/** The filters of the table of work, as they stand in the page's address and in the request. */

export interface Filters {
  state: string[];
  profile: string[];
  dag: string[];
  q: string;
  /** A column, with `-` in front for downwards; empty: the API's own order. */
  sort: string;
}

const LISTS = ["state", "profile", "dag"] as const;
const TEXTS = ["q", "sort"] as const;

/** The most rows of one answer. */
const LIMIT = 10_000;

export function filtersOf(query: URLSearchParams): Filters {
  const texts = (name: string) => [...new Set(query.getAll(name).filter(Boolean))];
  return {
    state: texts("state"),
    profile: texts("profile"),
    dag: texts("dag"),
    q: query.get("q") ?? "",
    sort: query.get("sort") ?? "",
  };
}

/** Return the query with the filters changed. Everything else in it stays. */
export function withFilters(query: URLSearchParams, change: Partial<Filters>): URLSearchParams {
  const next = new URLSearchParams(query);
  for (const name of LISTS) {
    const values = change[name];
    if (values === undefined) continue;
    next.delete(name);
    for (const value of values) next.append(name, value);
  }
  for (const name of TEXTS) {
    const value = change[name];
    if (value === undefined) continue;
    if (value) next.set(name, value);
    else next.delete(name);
  }
  return next;
}

/** Return the path and query of the request. */
export function workPath(filters: Filters): string {
  const query = withFilters(new URLSearchParams(), filters);
  query.set("limit", String(LIMIT));
  return `/work?${query.toString()}`;
}

/** Return the next order of a column that was chosen: upwards, downwards, the API's own. */
export function nextSort(sort: string, column: string): string {
  if (sort === column) return `-${column}`;
  return sort === `-${column}` ? "" : column;
}

export function isFiltered(filters: Filters): boolean {
  return LISTS.some((name) => filters[name].length > 0) || filters.q !== "";
}
