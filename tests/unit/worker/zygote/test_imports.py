"""Reasons and notes about imports of the operator's code."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.worker.zygote.imports import explain, refused_setting


def error_of(file: Path, source: str) -> BaseException:
    """Return the error of running a source as that file."""
    try:
        exec(compile(source, str(file), "exec"), {})
    except Exception as error:  # noqa: BLE001  It is the result.
        return error
    raise AssertionError("no error")


def test_an_error_in_a_file_of_the_host_has_its_place_in_the_home(tmp_path: Path) -> None:
    """The container's folder with the file is of no use to the reader."""
    error = error_of(tmp_path / "config/airflow_local_settings.py", "\n\nimport acme_no")
    reason = explain(error, {"AIRFLOW_HOME": str(tmp_path)})
    assert "(config/airflow_local_settings.py, line 3): ModuleNotFoundError: No module named 'acme_no'" in reason
    assert str(tmp_path) not in reason and "`modalflow deploy`" in reason


def test_an_error_elsewhere_has_no_place(tmp_path: Path) -> None:
    """The error of a setting has the setting's name in its own text."""
    reason = explain(error_of(Path("/elsewhere.py"), "1 / 0"), {"AIRFLOW_HOME": str(tmp_path)})
    assert reason.startswith("Airflow cannot be imported in the container: ZeroDivisionError: division by zero. ")


@pytest.mark.parametrize(
    ("option", "value", "shown"),
    [
        ("parallelism", "many", "many"),
        ("secrets_backend", "nowhere.X", "nowhere.X"),
        ("secrets_backend_kwargs", '{"password": "hunter2"}', "***"),
        ("smtp_password", "hunter2", "***"),
    ],
)
def test_the_value_of_a_secret_setting_is_masked(option: str, value: str, shown: str) -> None:
    """Airflow's own error has the value. The names of classes are shown, because they are the point of the error."""
    error = ValueError(f'Failed. Please check "{option}" key in "core" section. Current value: "{value}".')
    reason = refused_setting(error)
    assert f'"{option}" key in "core" section. Current value: "{shown}". ' in reason
    assert (value in reason) == (shown == value)


def test_a_setting_of_a_class_that_fails_has_the_error_of_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's own error has the setting alone. For a module that travelled, the fix is the rule for such modules."""
    from airflow.configuration import conf

    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "acme_xcom.py").write_text("import importlib\n\nimportlib.import_module('acme_' + 'codec')\n")
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "acme_xcom.FolderXCom")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    with pytest.raises(Exception, match=r"acme_xcom\.FolderXCom") as failed:
        conf.getimport("core", "xcom_backend")
    for reason in (explain(failed.value, {"AIRFLOW_HOME": str(tmp_path)}), refused_setting(failed.value)):
        assert "(modules/acme_xcom.py, line 3): AirflowConfigException: " in reason
        assert "ModuleNotFoundError: No module named 'acme_codec'). If acme_codec is a module of the Airflow" in reason
        assert "an import must be visible in the source" in reason and "`modalflow deploy`" in reason
