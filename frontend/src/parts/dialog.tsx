import { useId, useLayoutEffect, useRef, useState, type ReactNode, type SyntheticEvent } from "react";

import { Alert, Button, Heading, Spinner } from "../host/chakra";
import { useTexts } from "../i18n";
import { English } from "./small";

interface Window {
  title: string;
  /** Whether it stays open, whatever the user does. */
  busy?: boolean;
  onClose: () => void;
  children: ReactNode;
}

/**
 * A dialog of the browser's own: it holds the focus, Escape closes it, and the focus goes back to where it was.
 */
export function Dialog({ title, busy = false, onClose, children }: Window) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  // A layout effect closes it while it is still in the page: otherwise, the focus does not go back.
  useLayoutEffect(() => {
    const element = dialog.current;
    element?.showModal();
    return () => element?.close();
  }, []);
  const cancelled = (event: SyntheticEvent) => {
    event.preventDefault();
    if (!busy) onClose();
  };
  // A second Escape closes it without a question.
  const closed = () => {
    if (busy) dialog.current?.showModal();
    else onClose();
  };
  return (
    <dialog ref={dialog} className="mf-dialog" aria-labelledby={id} onCancel={cancelled} onClose={closed}>
      <Heading level={2} id={id}>{title}</Heading>
      {children}
    </dialog>
  );
}

interface Confirmation {
  title: string;
  text: string;
  verb: string;
  danger?: boolean;
  /** A question with a text as its answer, of at most so many characters. */
  question?: string;
  longest?: number;
  /** Does it, with the answer to the question. The text that it returns is shown, if it is not empty. */
  act: (words: string) => Promise<ReactNode>;
  onClose: (done: boolean) => void;
}

/** Ask before an action, and show its result. */
export function Confirm({ title, text, verb, danger = false, question, longest, act, onClose }: Confirmation) {
  const { t } = useTexts();
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState("");
  const [words, setWords] = useState("");
  const [result, setResult] = useState<ReactNode>(null);
  const run = async () => {
    setBusy(true);
    setProblem("");
    try {
      const answer = await act(words.trim());
      if (answer) setResult(answer);
      else onClose(true);
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
    setBusy(false);
  };
  if (result) {
    return (
      <Dialog title={title} onClose={() => onClose(true)}>
        <div className="mf-dialog-body" role="status">{result}</div>
        <div className="mf-dialog-foot">
          <Button autoFocus onClick={() => onClose(true)}>{t("close")}</Button>
        </div>
      </Dialog>
    );
  }
  return (
    <Dialog title={title} busy={busy} onClose={() => onClose(false)}>
      <div className="mf-dialog-body">
        <p>{text}</p>
        {question && (
          <label className="mf-question">
            {question}
            <input className="mf-input" value={words} maxLength={longest} disabled={busy} onChange={(event) => setWords(event.target.value)} />
          </label>
        )}
        {problem && <Alert status="error" title={t("action.failed")} detail={<English>{problem}</English>} />}
      </div>
      <div className="mf-dialog-foot">
        {busy && <Spinner />}
        <Button autoFocus disabled={busy} onClick={() => onClose(false)}>{t("action.cancel")}</Button>
        <Button variant="solid" colorPalette={danger ? "red" : "brand"} disabled={busy} onClick={() => void run()}>
          {busy ? t("action.busy") : verb}
        </Button>
      </div>
    </Dialog>
  );
}
