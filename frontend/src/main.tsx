import type { ComponentType } from "react";

import { useTexts } from "./i18n";
import { direction } from "./i18n/catalogue";
import { followLanguage } from "./i18n/chosen";
import { askForPage, ModalPage } from "./modal/modal-page";
import { RunTab } from "./run/run-tab";
import styles from "./styles.css?inline";
import { TaskTab } from "./task/task-tab";

/** What Airflow hands to a plugin's component: the parameters of the page's route. */
export interface PluginProps {
  dagId?: string;
  runId?: string;
  taskId?: string;
  mapIndex?: string;
}

/**
 * The component of all places. Airflow keeps a component by the name that it shows ("Modal"), so that places of one
 * name share one; the page's parameters tell them apart.
 */
function Modal(props: PluginProps) {
  const { language } = useTexts();
  return <div className="mf-root" lang={language} dir={direction(language)}><View {...props} /></div>;
}

function View({ dagId, runId, taskId, mapIndex }: PluginProps) {
  if (dagId === undefined || runId === undefined) return <ModalPage />;
  if (taskId === undefined) return <RunTab key={`${dagId}/${runId}`} dag={dagId} run={runId} />;
  const index = Number(mapIndex ?? -1);
  return <TaskTab key={`${dagId}/${runId}/${taskId}/${index}`} dag={dagId} run={runId} task={taskId} mapIndex={index} />;
}

function addStyles(): void {
  const id = "modalflow-ui-styles";
  if (document.getElementById(id)) return;
  const element = document.createElement("style");
  element.id = id;
  element.textContent = styles;
  document.head.append(element);
}

addStyles();
followLanguage();
askForPage();

// Airflow reads the first of these that is set: the name of the app as registered, or that for plugins in general.
const page = globalThis as unknown as Record<string, ComponentType<PluginProps>>;
page["Modal"] = Modal;
page["AirflowPlugin"] = Modal;
