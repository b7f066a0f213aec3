"""Builds that people accepted: ``conf/accepted/DOMAIN.yaml``, which later builds are held to."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from meetara_build.config.conf_files import list_group
from meetara_build.config.schema import Shape, check
from meetara_build.config.yaml_files import read_yaml
from meetara_build.stages.recipes.accepted import Accepted
from meetara_build.store.manifest import write_text

GROUP = "accepted"


class Measured(Shape):
    """A held-out record: the F16 file's loss in nats per token, and how many tokens."""

    loss: Annotated[float, Field(ge=0)]
    tokens: Annotated[int, Field(gt=0)]


class AcceptedBuild(Shape):
    """``conf/accepted/DOMAIN.yaml``, as ``accept`` writes it."""

    base: str
    """The base it was built on; builds on another are not held to it."""
    records: dict[str, Measured]
    """By id."""


def read_accepted(conf: Path) -> dict[str, Accepted]:
    """The builds that were accepted, by domain.

    Raises:
        ConfigError: a file is damaged.
    """
    found = {}
    for domain, path in list_group(conf, GROUP).items():
        build = check(AcceptedBuild, read_yaml(path), path)
        records = {name: (one.loss, one.tokens) for name, one in build.records.items()}
        found[domain] = Accepted(base=build.base, records=records)
    return found


def write_accepted(conf: Path, domain: str, build: Accepted) -> Path:
    """Have later builds of a domain held to this one; where that is written."""
    lines = [
        f"# What `meetara-build accept {domain}` took: later builds must not surely be worse.",
        f"base: {build.base}",
        "records:  # by id, the F16 file's held-out loss in nats per token",
        *(
            f'  "{name}": {{loss: {loss:#.6g}, tokens: {tokens}}}'
            for name, (loss, tokens) in sorted(build.records.items())
        ),
    ]
    path = conf / GROUP / f"{domain}.yaml"
    path.parent.mkdir(exist_ok=True)
    write_text(path, "\n".join(lines) + "\n")
    return path
