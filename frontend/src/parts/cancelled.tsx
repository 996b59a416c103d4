import type { CancelAnswer } from "../api/types";
import { useTexts } from "../i18n";
import { English } from "./small";

/** The results of a cancellation. */
export function Cancelled({ answer }: { answer: CancelAnswer }) {
  const { t } = useTexts();
  return (
    <ul className="mf-lines">
      {answer.results.map((result) => (
        <li key={result.work_id}>
          <code className="mf-id">{result.work_id}</code>{" "}
          {!result.done && <strong className="mf-bad">{t("action.notDone")}: </strong>}
          <English>{result.how}</English>
        </li>
      ))}
    </ul>
  );
}
