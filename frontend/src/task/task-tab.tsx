export function TaskTab(_: { dag: string; run: string; task: string; mapIndex: number }) {
  return <div className="mf">task</div>;
}
