import { useId, type ReactNode } from "react";

import { Heading } from "../host/chakra";

/** A section of a page, with its heading and its controls. */
export function Panel({ title, note, controls, children }: { title: ReactNode; note?: ReactNode; controls?: ReactNode; children: ReactNode }) {
  const id = useId();
  return (
    <section className="mf-panel" aria-labelledby={id}>
      <header className="mf-panel-head">
        <Heading level={2} id={id}>{title}</Heading>
        {note && <span className="mf-muted">{note}</span>}
        {controls && <div className="mf-controls">{controls}</div>}
      </header>
      {children}
    </section>
  );
}

/** For `ref`: a box that is wider than its place takes the focus, so that keys scroll it in every browser. */
export function scrollable(box: HTMLElement | null): void {
  if (!box) return;
  new ResizeObserver(() => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }).observe(box);
}
