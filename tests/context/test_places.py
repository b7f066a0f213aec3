"""Where the context is: build.yaml says it, the environment may say it otherwise, and nothing else
does."""

from pathlib import Path

import pytest
from reported import SETTINGS

from meetara_build.context.local import Local
from meetara_build.context.places import TOKEN, URL, is_elsewhere, open_context, open_local, url_of
from meetara_build.context.remote import Remote
from meetara_build.context.store import Retention
from meetara_build.errors import ContextError


def test_it_is_a_file_below_the_root_if_nothing_else_is_said(tmp_path: Path) -> None:
    assert url_of(tmp_path, SETTINGS) == f"sqlite:///{tmp_path}/context.db"
    assert not is_elsewhere(SETTINGS)
    context = open_context(tmp_path, SETTINGS)
    assert isinstance(context, Local)
    assert context.store.retention == Retention(30, 400)
    context.close()


def test_the_environment_goes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SETTINGS, "url": "postgresql://here/one"}
    assert url_of(tmp_path, settings) == "postgresql://here/one"
    assert is_elsewhere(settings)
    monkeypatch.setenv(URL, "https://there/mcp")
    monkeypatch.setenv(TOKEN, "secret")
    context = open_context(tmp_path, settings)
    assert isinstance(context, Remote)
    assert (context.url, context.token) == ("https://there/mcp", "secret")


def test_what_a_server_does_itself_is_refused_from_afar(tmp_path: Path) -> None:
    with pytest.raises(
        ContextError, match="the context is at http://there/mcp: do this on that server's machine"
    ):
        open_local(tmp_path, {**SETTINGS, "url": "http://there/mcp"})
