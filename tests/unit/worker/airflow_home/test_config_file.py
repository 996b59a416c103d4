"""An ``airflow.cfg`` that Airflow reads exactly as the host's settings are."""

from __future__ import annotations

import configparser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalflow.worker.airflow_home.config_file import config_file


def read(text: str) -> dict[str, dict[str, str]]:
    """Return a file's settings as Airflow reads them."""
    parser = configparser.ConfigParser()
    parser.read_string(text)
    return {section: dict(parser.items(section)) for section in parser.sections()}


def test_settings_are_written_by_section() -> None:
    """The later settings override the earlier ones."""
    config = config_file({"core": {"a": "1", "b": "2"}}, {"core": {"b": "3"}, "aws": {"c": ""}})
    assert read(config.text) == {"core": {"a": "1", "b": "3"}, "aws": {"c": ""}} and not config.variables


@pytest.mark.parametrize(
    "value", ["100%", "%(home)s", "größe", "a # b", "a ; b", "a = b: c", "[x]", "#", "a\nb", "a\n\nb", ""]
)
def test_what_the_file_can_express_is_in_the_file(value: str) -> None:
    """Most texts need no variable."""
    config = config_file({"acme": {"option": value}})
    assert read(config.text) == {"acme": {"option": value}} and not config.variables


@pytest.mark.parametrize("value", [" leading", "trailing ", "\udcff", "a\n# b", '{\n  "indented": 1\n}', "a\rb", "\n"])
def test_what_the_file_cannot_express_is_a_variable(value: str) -> None:
    """The value arrives all the same, and the rest of the file is not affected."""
    config = config_file({"acme.corp": {"option": value, "other": "1"}})
    assert config.variables == {"AIRFLOW__ACME_CORP__OPTION": value}
    assert read(config.text) == {"acme.corp": {"other": "1"}}


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "DEFAULT", "x]y", "# c"]), st.dictionaries(st.text("ab:=#[ ", min_size=1), st.text())
    )
)
def test_every_setting_arrives(settings: dict[str, dict[str, str]]) -> None:
    """Whatever the names and values are, each setting is in the file or in a variable, and in none of them wrong."""
    config = config_file(settings)
    found = read(config.text)
    for section, options in settings.items():
        for option, value in options.items():
            in_file = found.get(section, {}).get(option)
            assert in_file == value or value in config.variables.values()
    assert sum(map(len, found.values())) + len(config.variables) <= sum(map(len, settings.values()))
