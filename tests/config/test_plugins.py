"""Agents are files of a project and modules of installed packages; to list them runs none of their
code."""

import sys
from functools import partial
from pathlib import Path

import pytest

from meetara_build.agents import Context
from meetara_build.config.plugins import find_misnamed_plugins, plugin_files
from meetara_build.errors import ConfigError
from meetara_build.hosting.hooks import prepare_plugin
from meetara_build.hosting.host import ask_all

EXPLODES = "raise RuntimeError('this must not be run')\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages; `installed` puts one into it."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    return site


def installed(site: Path, agent: str, module: str, source: str) -> Path:
    """A package that names ``module`` as the entry point of an agent; the module's file, a
    package's ``__init__.py`` for the above."""
    info = site / f"{agent}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {agent}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[meetara_build.agents]\n{agent} = {module}\n")
    *above, last = module.split(".")
    folder = site
    for part in above:
        folder = folder / part
        folder.mkdir()
        (folder / "__init__.py").write_text("" if "run" in source else EXPLODES)
    file = folder / f"{last}.py"
    file.write_text(source)
    return file


def project(folder: Path, *names: str) -> Path:
    """A project with plugins of these file names, which must not be run."""
    (folder / "plugins").mkdir(parents=True)
    for name in names:
        (folder / "plugins" / name).write_text(EXPLODES)
    return folder


def test_the_files_of_a_project_are_its_agents_sorted_by_name(tmp_path: Path) -> None:
    made = project(
        tmp_path / "project", "zeta.py", "alpha.py", "_helper.py", ".hidden.py", "notes.txt"
    )
    assert plugin_files(made) == {
        name: made / "plugins" / f"{name}.py" for name in ("alpha", "zeta")
    }
    assert list(plugin_files(made)) == ["alpha", "zeta"]


def test_files_whose_names_no_agent_can_have_are_named_and_the_others_are_agents(
    tmp_path: Path,
) -> None:
    made = project(
        tmp_path / "project",
        "alpha.py",
        "my agent.py",
        "Ünï.py",
        "-rf.py",
        "tab\t.py",
        f"{'x' * 65}.py",
    )
    assert list(plugin_files(made)) == ["alpha"]
    faults = find_misnamed_plugins(made)
    assert sorted(faults) == sorted(["my agent", "Ünï", "-rf", "tab\\t", "x" * 65])
    assert faults["my agent"].startswith(
        f"{made}/plugins/my agent.py: an agent's name is of letters, digits and _ . @ -"
    )
    assert faults["my agent"].endswith("rename it")


def test_a_project_without_plugins_has_no_agents(tmp_path: Path) -> None:
    assert plugin_files(tmp_path) == {}


def test_modules_of_installed_packages_are_agents_too_and_are_not_imported(
    tmp_path: Path, install: Path
) -> None:
    made = project(tmp_path / "project", "alpha.py")
    file = installed(install, "beta", "beta_module", EXPLODES)
    assert plugin_files(made) == {"alpha": made / "plugins" / "alpha.py", "beta": file}
    assert "beta_module" not in sys.modules


def test_a_module_inside_a_package_is_found_without_importing_the_package(
    tmp_path: Path, install: Path
) -> None:
    file = installed(install, "gamma", "gamma_package.inner.agent", EXPLODES)
    assert plugin_files(tmp_path) == {"gamma": file}
    assert "gamma_package" not in sys.modules


def test_an_entry_point_whose_module_is_gone_is_left_out(tmp_path: Path, install: Path) -> None:
    installed(install, "delta", "delta_module", EXPLODES).unlink()
    assert plugin_files(tmp_path) == {}


def test_two_agents_of_one_name_are_refused_by_file(tmp_path: Path, install: Path) -> None:
    made = project(tmp_path / "project", "beta.py")
    file = installed(install, "beta", "beta_module", EXPLODES)
    with pytest.raises(ConfigError) as caught:
        plugin_files(made)
    assert str(caught.value) == (
        f"{made / 'plugins' / 'beta.py'}: an installed package has an agent 'beta' too ({file}); rename this one"
    )


def test_an_installed_agent_is_asked_like_any_other(tmp_path: Path, install: Path) -> None:
    source = (
        "from meetara_build.agents import Proposal, hookimpl\n"
        "@hookimpl\ndef propose(context): return [Proposal('nutrition', 'lora.rank', 8, 'to run it is enough')]\n"
    )
    installed(install, "epsilon", "epsilon_package.agent", source)
    [(name, file)] = plugin_files(tmp_path).items()
    prepared = {name: partial(prepare_plugin, name, file, {"context": Context({})})}
    answer = ask_all(prepared, {"hook": "propose"}, 20, tmp_path / "logs")["epsilon"]
    assert answer.fault is None
    assert answer.value[0]["value"] == 8
