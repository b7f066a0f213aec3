"""The accepted decisions of agents, one file a domain below conf/overlay/: read, written and taken
back entry by entry.

What a person wrote between the entries stays.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from meetara_build.config.schema import Decision, Overlay, check
from meetara_build.config.yaml_files import parse_yaml, read_lines, read_yaml, render_yaml
from meetara_build.errors import ConfigError
from meetara_build.store.manifest import hold_lock, write_text

HEADER = "# What agents decided for this domain; delete an entry to revert it.\n"


def overlay_path(conf: Path, domain: str) -> Path:
    """Where a domain's decisions are."""
    return conf / "overlay" / f"{domain}.yaml"


def read_overlay(conf: Path, domain: str) -> list[Decision]:
    """The decisions for a domain, in the order they were taken; none where there is no file.

    Raises:
        ConfigError: the file has unknown keys, or decides the same key twice.
    """
    path = overlay_path(conf, domain)
    if not path.exists():
        return []
    decisions = check(Overlay, read_yaml(path), path).decisions
    keys = [decision.key for decision in decisions]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"{path}: '{key}' is decided twice; keep one of the decisions")
    return decisions


def write_decisions(conf: Path, domain: str, decisions: Sequence[Decision]) -> None:
    """Add decisions to a domain's file; each takes the place of one for the same key.

    Raises:
        ConfigError: the file there is wrong, or cannot be written.
    """
    keys = [decision.key for decision in decisions]
    with hold_lock(_lock(conf)):
        kept = [decision for decision in read_overlay(conf, domain) if decision.key not in keys]
        _write(overlay_path(conf, domain), keys, [*kept, *decisions], added=decisions)


def remove_decisions(conf: Path, domain: str, keys: Iterable[str]) -> None:
    """Take decisions back; the file goes with the last of them, unless a person wrote in it.

    Raises:
        ConfigError: the file is wrong, or cannot be written.
    """
    gone = list(keys)
    with hold_lock(_lock(conf)):
        kept = [decision for decision in read_overlay(conf, domain) if decision.key not in gone]
        _write(overlay_path(conf, domain), gone, kept, added=[])


def _lock(conf: Path) -> Path:
    """A file that several who decide at once wait for: not in conf/, which people share."""
    return conf.parent / ".meetara" / "overlay.lock"


def _write(
    path: Path, gone: Sequence[str], kept: Sequence[Decision], added: Sequence[Decision]
) -> None:
    text = path.read_text(encoding="utf-8") if path.exists() else f"{HEADER}decisions:\n"
    text = _without(path, text, gone) if path.exists() else text
    remarks = [
        line
        for line in text.splitlines()
        if line.lstrip().startswith("#") and f"{line}\n" != HEADER
    ]
    if not kept and not remarks:
        path.unlink(missing_ok=True)
        return
    text = text.rstrip("\n") + "\n" + "".join(_entry(path, decision) for decision in added)
    wanted = [_plain(decision) for decision in kept]
    if not kept or _decisions(text) != wanted:  # its form was not ours: written in one go
        body = "".join(_entry(path, decision) for decision in kept)
        text = f"{HEADER}decisions:\n{body}" if kept else "\n".join([*remarks, "decisions: []\n"])
    if _decisions(text) != wanted:
        raise ConfigError(
            f"{path}: these decisions would not be read back the same; nothing is written, report "
            "it"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); mend its rights"
        ) from None


def _without(path: Path, text: str, keys: Sequence[str]) -> str:
    """A file's text without the entries of these keys; remarks above the next entry stay."""
    lines = text.splitlines(keepends=True)
    places = read_lines(path)
    decided = [entry["key"] for entry in read_yaml(path)["decisions"]]
    starts = [places["decisions", number] - 1 for number in range(len(decided))]
    for number in reversed(range(len(decided))):
        if decided[number] in keys:
            end = starts[number + 1] if number + 1 < len(decided) else len(lines)
            while end > starts[number] + 1 and (lines[end - 1].strip() or "#").startswith("#"):
                end -= 1
            del lines[starts[number] : end]
    return "".join(lines)


def _decisions(text: str) -> object:
    """What a text decides; None where it is not of the form."""
    try:
        entries = parse_yaml(text, "overlay")["decisions"] or []
        return [_plain(Decision(**entry)) for entry in entries]
    except (ConfigError, TypeError, KeyError, ValueError):
        return None


def _entry(path: Path, decision: Decision) -> str:
    text = render_yaml([_plain(decision)], f"{path}: '{decision.key}'", width=116)
    return "".join(f"  {line}\n" for line in text.removesuffix("\n").split("\n"))


def _plain(decision: Decision) -> dict[str, object]:
    return decision.model_dump(exclude_defaults=True)
