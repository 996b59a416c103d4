"""A DAG's author tries it out from its file, without a scheduler, with the executor that is configured."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from modalflow.demo.modal_stack import ModalStack
from modalflow.demo.stack import BUNDLE
from tests.acceptance.evidence import log_of, not_on_modal

pytestmark = pytest.mark.timeout(240)


def test_a_dag_is_tried_out_on_modal(stack: ModalStack) -> None:
    """``dag.test(use_executor=True)`` runs each task in a container, with the DAG file that is deployed there, and ends
    when they have ended."""
    bundles = json.loads(stack.airflow.env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    (bundle,) = [each for each in bundles if each["name"] == BUNDLE]
    file = f"{bundle['kwargs']['path']}/tried.py"
    done = subprocess.run(
        [sys.executable, file], env=os.environ | stack.airflow.env, capture_output=True, text=True, timeout=200
    )
    ended = re.search(r"^run (\S+) ended: success$", done.stdout, re.M)
    assert ended, done.stdout[-3000:] + done.stderr[-3000:]
    assert stack.airflow.api.xcom("tried", ended[1], "answer") == "here and there"
    assert not_on_modal(stack, "tried", ended[1]) == []
    log = log_of(stack, "tried", ended[1], "say_where")
    assert any(f"this file is /opt/modalflow/bundles/{bundle['name']}/tried.py" in line for line in log), "\n".join(log)
