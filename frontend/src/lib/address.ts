/**
 * The query of the page's address, ahead of the router: a change counts at once, and the router shows it a render later.
 *
 * A change must start from the one before, even if the router shows an older query in between.
 */
export class Address {
  private query = new URLSearchParams();
  private shown = "";
  private underway: string[] = [];

  /** Take over what the router shows; a query from somewhere else, such as the back button, replaces our changes. */
  show(query: URLSearchParams): void {
    const text = query.toString();
    if (text === this.shown) return;
    this.shown = text;
    const at = this.underway.indexOf(text);
    this.underway = at < 0 ? [] : this.underway.slice(at + 1);
    if (this.underway.length === 0) this.query = query;
  }

  /** Change the newest query, and return it. */
  change(next: (before: URLSearchParams) => URLSearchParams): URLSearchParams {
    this.query = next(this.query);
    const text = this.query.toString();
    if (text !== (this.underway.at(-1) ?? this.shown)) this.underway.push(text);
    return this.query;
  }
}
