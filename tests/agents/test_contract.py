"""What agents import: everything a hook takes or gives, and marks for their functions."""

import inspect
import typing

import meetara_build.agents as contract


def test_every_type_of_a_hook_is_to_be_had_where_the_hooks_are() -> None:
    for name, hook in inspect.getmembers(contract.Agent, inspect.isfunction):
        types = list(typing.get_type_hints(hook).values())
        named = {inner for kind in types for inner in (kind, *typing.get_args(kind))}
        own = {
            kind for kind in named if getattr(kind, "__module__", "").startswith("meetara_build")
        }
        assert own, name
        assert {kind.__name__ for kind in own} <= set(contract.__all__), name


def test_all_hooks_are_on_one_screen() -> None:
    assert set(dict(inspect.getmembers(contract.Agent, inspect.isfunction))) == {
        "propose",
        "observe",
        "insights",
    }
    assert len(inspect.getsource(contract).splitlines()) <= 60
