export function RunTab(_: { dag: string; run: string }) {
  return <div className="mf">run</div>;
}
