"""The settings of an Airflow host, read by the Airflow of a container: the same values, or a row of the table."""

from __future__ import annotations

import os

import pytest

from modalflow import airflow_logging
from modalflow.airflow_home.host_settings import HostSettings, host_settings
from modalflow.airflow_home.rules.rule import Place
from modalflow.airflow_home.rules.table import place_of
from modalflow.names import airflow_variable
from modalflow.worker.airflow_home.config_file import config_file
from tests.unit.airflow_home.airflow_configuration import DECLARED, EVERY_OPTION, parser, planted


@pytest.fixture(autouse=True)
def _container(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AIRFLOW__"):
            monkeypatch.delenv(name)
    # It would load the planted logging configuration.
    monkeypatch.setattr(airflow_logging, "is_in_use", lambda: False)


def read_in_container(
    settings: HostSettings, options: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> dict[tuple[str, str], str | None]:
    """Return what Airflow reads from the settings that travelled: (section, option) → value."""
    file = config_file(settings.plain, settings.secret)
    for name in list(os.environ):
        if name.startswith("AIRFLOW__"):
            monkeypatch.delenv(name)
    for name, value in file.variables.items():
        monkeypatch.setenv(name, value)
    conf = parser(file.text)
    return {key: conf.get(*key, fallback=None) for key in options}


@pytest.mark.parametrize("where", ["file", "variables"])
def test_a_container_reads_what_the_host_reads(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every option set, a container has the host's value of each one that travels, and no other."""
    conf = parser()
    for section, option in EVERY_OPTION:
        if where == "variables":
            monkeypatch.setenv(airflow_variable(section, option), planted(section, option))
        else:
            if not conf.has_section(section):
                conf.add_section(section)
            conf.set(section, option, planted(section, option))
    found = read_in_container(host_settings(conf), EVERY_OPTION, monkeypatch)
    for key, value in found.items():
        travels = place_of(*key, "", sensitive=DECLARED.get(key, False)).place.leaves_host
        assert (value == planted(*key)) == travels, key


ODD = {
    "percent": "100 %% sure %%(x)s",
    "dollar": "a $NOT_SET_ANYWHERE ${NOR_THIS} $",
    "lines": "one\n\ttwo\n\tthree",
    "quotes": "\"a\" 'b' # c ; d = [e]",
    "letters": "Zürich 東京",
    "json": '{"a": "{b}", "c": [1, 2]}',
    "empty": "",
}


def test_odd_values_arrive_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file and from variables alike, and for options of the user's own, of Airflow and of a provider."""
    conf = parser("[acme]\n" + "".join(f"{name} = {written}\n" for name, written in ODD.items()))
    monkeypatch.setenv("AIRFLOW__ACME__SPACES", "  a \n\n b \t")
    monkeypatch.setenv("AIRFLOW__ACME__VARIABLE", '100 % "a"\n$NOT_SET_ANYWHERE')
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", "file:///a/%20b")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOG_FORMAT", "[%(asctime)s] {%(filename)s}")
    monkeypatch.setenv("AIRFLOW__ACME_WITH_DOTS__VARIABLE", "dots")
    options = [("acme", name) for name in (*ODD, "spaces", "variable")]
    options += [("common.io", "xcom_objectstorage_path"), ("logging", "log_format"), ("acme.with.dots", "variable")]
    on_host = {key: conf.get(*key, fallback=None) or None for key in options}
    in_container = read_in_container(host_settings(conf), options, monkeypatch)
    assert {key: value or None for key, value in in_container.items()} == on_host


def test_nothing_that_stays_is_set_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container has Airflow's defaults of the options that stay on the host."""
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "7")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://a:b@db/airflow")
    options = [("core", "parallelism"), ("database", "sql_alchemy_conn")]
    settings = host_settings(parser())
    assert {(it.section, it.option): it.rule.place for it in settings.kept} == dict(
        zip(options, (Place.HOST, Place.NEVER), strict=True)
    )
    found = read_in_container(settings, options, monkeypatch)
    assert found == {key: parser().get(*key) for key in options}
