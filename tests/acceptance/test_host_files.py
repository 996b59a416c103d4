"""Plugins, local settings and modules of a real Airflow host, in its tasks on Modal."""

from __future__ import annotations

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, start_run


def test_tasks_have_the_plugins_and_local_settings_of_the_host(stack: ModalStack) -> None:
    """A macro, an operator, a listener, a timetable and a policy hold without a deployment: they travel when a
    scheduler starts."""
    run_id = start_run(stack, "host_files")
    assert finish_run(stack, "host_files", run_id) == "success"
    api = stack.airflow.api
    for instance in api.task_instances("host_files", run_id):
        log = "\n".join(api.log("host_files", run_id, instance))
        assert f"the listener saw {instance.task_id}" in log
        expected = {"macro": "DOUBLED 42", "policed": "THE POLICY HOLDS", "scheduled": "ONCE, FOR ACME"}
        assert expected[instance.task_id] in log
