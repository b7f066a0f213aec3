"""Show a domain's configuration, and who decided it."""

import json
import re
from typing import TYPE_CHECKING

from meetara_build.cli.options import LOCAL, Domain, Json, Override, Profile
from meetara_build.cli.output import out, print_json, style_line
from meetara_build.config.overrides import split_words
from meetara_build.engine.profiles import profile_hardware
from meetara_build.outside import show_line
from meetara_build.project import find_project

if TYPE_CHECKING:
    from meetara_build.config.resolve import Decided
    from meetara_build.config.yaml_files import Value

PASSWORD = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]*@")
SCHEMA = "default"
PRECISION = "hardware.precision"
"""The key whose value may be another on another machine."""


def config(
    domain: Domain, overrides: Override = None, profile: Profile = LOCAL, as_json: Json = False
) -> None:
    """Print a domain's configuration as a build would have it; a password in an address is not
    shown.

    Raises:
        ConfigError: there is no such domain, or anything below conf/ is wrong.
    """
    from meetara_build.config.resolve import Configuration

    project = find_project()
    said = split_words([domain, *(overrides or [])])
    configuration = Configuration(project, profile_hardware(project, profile), said)
    found = [
        one._replace(value=_without_password(one.value)) for one in configuration.explain(domain)
    ]
    if as_json:
        values = [{**one._asdict(), "here": _resolve_here(one)} for one in found]
        print_json({"domain": domain, "values": values})
        return
    shown = [(f"{one.key}: {_render(one.value)}{_render_here(one)}", one) for one in found]
    width = min(60, max(len(text) for text, _ in shown))
    for text, one in shown:
        out.print(style_line((f"{text:{width}}", ""), (f"  {_place(one)}", "dim")))


def _resolve_here(one: "Decided") -> "Value":
    """What a value that depends on the machine is on this one."""
    from meetara_build.config.auto_precision import resolve_precision

    return resolve_precision(str(one.value)) if one.key == PRECISION else one.value


def _render_here(one: "Decided") -> str:
    here = _resolve_here(one)
    return "" if here == one.value else f" ({_render(here)} here)"


def _place(one: "Decided") -> str:
    """Who decided a value."""
    if one.file is None:
        return SCHEMA
    line = f":{one.line}" if one.line else ""
    said = f" ({one.agent}: {one.reason})" if one.agent else ""
    return f"{one.file}{line}{said}"


def _render(value: "Value") -> str:
    return show_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _without_password(value: "Value") -> "Value":
    return PASSWORD.sub(r"\1:***@", value) if isinstance(value, str) else value
