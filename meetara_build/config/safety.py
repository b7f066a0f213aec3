"""The reviewed lists that answers are held to, by language."""

from pathlib import Path

from meetara_build.config.resolve import list_named
from meetara_build.config.schema import Safety, check
from meetara_build.config.yaml_files import read_yaml
from meetara_build.stages.recipes.safety import SafetyLists

FOR_PEOPLE = {"description", "as_of", "source"}


def read_safety(project: Path) -> dict[str, SafetyLists]:
    """The lists of every file ``conf/safety/LANGUAGE.yaml``, by language; none without the folder.

    Raises:
        ConfigError: a file is wrong; every fault of it, each with file, line and key.
    """
    files = list_named(project / "conf", "safety")
    return {
        language: SafetyLists(**check(Safety, read_yaml(path), path).model_dump(exclude=FOR_PEOPLE))
        for language, path in files.items()
    }
