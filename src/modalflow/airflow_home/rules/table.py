"""The table of Airflow's options: which settings of the Airflow host hold in containers, and why not the others.

``rule_of`` finds the row of an option; the most specific one wins. A new option of Airflow has no row until someone has
judged it, and a test fails.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import Final

from modalflow.airflow_home.rules.airflow_rules import AIRFLOW_RULES
from modalflow.airflow_home.rules.component_rules import COMPONENT_RULES
from modalflow.airflow_home.rules.provider_rules import PROVIDER_RULES
from modalflow.airflow_home.rules.rule import Place, Rule

RULES: Final[tuple[Rule, ...]] = (*AIRFLOW_RULES, *COMPONENT_RULES, *PROVIDER_RULES)

_EXACT: Final[Mapping[tuple[str, str], Rule]] = {(rule.section, rule.option): rule for rule in RULES}
_PATTERNS: Final = tuple(rule for rule in RULES if "*" in rule.option and rule.option != "*")

OWN_SETTING: Final = "Neither Airflow nor a provider with a row here has this option: it is your own."

#: Names of options that hold secrets, as in Airflow's own list for variables and connections, and some more.
_SECRET_NAME: Final = re.compile(
    r"passw|passphrase|secret|token|api_?key|access_?key|private_?key|credential|authorization|keyfile|kwargs|dsn$"
    r"|(^|_)(auth|conn|key|jwt|pin|salt)($|_)"
)
#: Values that hold secrets under any name: a URL with a password, a private key, a bearer's header.
_SECRET_VALUE: Final = re.compile(r"://[^@\s]*:[^@\s]*@|-----BEGIN [A-Z ]*PRIVATE KEY|\bBearer\s+\S", re.IGNORECASE)


def rule_of(section: str, option: str) -> Rule | None:
    """Return the row of an option, exact or for its whole section; None for an option without one.

    The command or the key of a secrets backend with which an option is set has the option's row.
    """
    section, option = section.lower(), option.lower()
    for name in (option, option.removesuffix("_cmd"), option.removesuffix("_secret")):
        if found := _EXACT.get((section, name)):
            return found
    for rule in _PATTERNS:
        if rule.section == section and fnmatch.fnmatchcase(option, rule.option):
            return rule
    return _EXACT.get((section, "*"))


def place_of(section: str, option: str, value: str, *, sensitive: bool = False) -> Rule:
    """Return the row that applies to a set option, with SEALED instead of TRAVELS if its value must not be readable.

    ``sensitive`` says that Airflow or a provider declares the option so. An option without a row travels: it is
    sealed if its name or its value is that of a secret.
    """
    rule = rule_of(section, option)
    if rule is None:
        rule = Rule(section, option, Place.TRAVELS, OWN_SETTING)
        sensitive = sensitive or _SECRET_NAME.search(option.lower()) is not None
    if rule.place is Place.TRAVELS and (sensitive or _SECRET_VALUE.search(value)):
        return Rule(rule.section, rule.option, Place.SEALED, rule.reason, rule.since, rule.until)
    return rule
