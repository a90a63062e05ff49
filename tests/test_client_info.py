from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import raccoon_fast
from raccoon_fast.client_info import client_info, user_agent
from raccoon_fast.events import App

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
OURS = f"raccoon_fast/{client_info().version} ({'compiled' if raccoon_fast.has_extensions() else 'pure Python'})"
GRAMMAR = re.compile(
    rf"{TOKEN}(?:/{TOKEN})? \((?:compiled|pure Python)\)(?: {TOKEN}(?:/{TOKEN})?)?(?: \([ -'*-\[\]-~]*\))?"
)


class TestClientInfo:
    def test_is_the_installed_distribution(self):
        info = client_info()
        assert info.name == "raccoon_fast"
        assert info.version == importlib.metadata.version("raccoon_fast")

    def test_names_the_form(self):
        form = client_info().form
        assert form == "compiled" if raccoon_fast.has_extensions() else form.startswith("pure Python, about 12 times")

    def test_build_is_stamped(self):
        assert importlib.util.find_spec("raccoon_fast._build_info"), "install the package: pip install -e ."
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", client_info().build_date)

    @pytest.mark.parametrize("installed", [True, False])
    def test_tree_that_was_never_built(self, tmp_path, installed):
        package = tmp_path / "raccoon_fast"
        package.mkdir()
        (package / "core").mkdir()
        for name in (
            "__init__.py",
            "_interpreter.py",
            "client_info.py",
            "events.py",
            "core/__init__.py",
            "_implementation.py",
        ):
            (package / name).write_text((Path(raccoon_fast.__file__).parent / name).read_text())
        if installed:
            metadata = tmp_path / "raccoon_fast-9.8.7.dist-info"
            metadata.mkdir()
            (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: raccoon_fast\nVersion: 9.8.7\n")
        script = "from raccoon_fast.client_info import *; print(*client_info()[:3], user_agent())"
        # -S: without it an installed one would be found as well. The working directory is where -c imports from.
        command = [sys.executable, "-S", "-c", script]
        run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
        version = "9.8.7" if installed else "unknown"
        assert run.stdout == f"raccoon_fast {version} unknown raccoon_fast/{version} (pure Python)\n"


class TestFirstUse:
    """One line of log per process says so if the pure form is in use and nobody chose it."""

    SCRIPT = """
        import logging
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s")
        import raccoon_fast
        from raccoon_fast import _implementation
        if {pure}:
            _implementation.IMPLEMENTATION = "pure"
        log = logging.getLogger("app")
        for logger in (None, log, log):
            raccoon_fast.RestClient("http://localhost", logger=logger).close()
    """

    def lines(self, pure: bool, switch: str) -> list[str]:
        env = {**os.environ, "RACCOON_FAST_NO_EXTENSIONS": switch}
        script = textwrap.dedent(self.SCRIPT.format(pure=pure))
        run = subprocess.run([sys.executable, "-c", script], env=env, check=True, capture_output=True, text=True)
        return [line for line in run.stderr.splitlines() if " version " in line]

    def test_the_pure_form_by_choice_causes_no_warning(self):
        (line,) = self.lines(pure=False, switch="1")
        assert line.startswith(f"DEBUG version {client_info().version}, pure Python, about 12 times slower: RACCOON_")

    @pytest.mark.skipif(not raccoon_fast.has_extensions(), reason="tells of the compiled form")
    def test_the_compiled_form_causes_no_warning(self):
        assert self.lines(pure=False, switch="") == [f"DEBUG version {client_info().version}, compiled"]

    @pytest.mark.skipif(not raccoon_fast.has_extensions(), reason="RACCOON_FAST_NO_EXTENSIONS is set")
    def test_pure_by_accident_is_a_warning(self):
        (line,) = self.lines(pure=True, switch="")
        assert line.startswith("WARNING version ")
        assert "pure Python, about 12 times slower: this install of raccoon_fast was built without them; " in line


class TestUserAgent:
    def test_without_app(self):
        assert user_agent() == OURS

    def test_with_app(self):
        agent = user_agent(App("goplay-123", "goplay-backend", "1.0"))
        assert agent == f"{OURS} goplay-backend/1.0 (goplay-123)"

    @pytest.mark.parametrize(
        ("app", "rest"),
        [
            (App("", "shop", ""), " shop"),
            (App("7", "", ""), " (7)"),
            (App("", "", "1.0"), ""),
            (App("", "", ""), ""),
            (App("a b", "my shop", "1.0 beta/2"), " my-shop/1.0-beta-2 (a b)"),
            (App("a\r\nX-Evil: 1", "a\r\nb", "1\n2"), " a-b/1-2 (a-X-Evil: 1)"),
            (App("(a)(b\\", "a(b)", "1"), " a-b-/1 (-a-b-)"),
            (App("café", "日本", "1"), " -/1 (caf-)"),
            (App("\x00\x7f", "a\x00", "1\t"), " a-/1- (-)"),
            (App("~", "a+b_c.d", "1.0+local"), " a+b_c.d/1.0+local (~)"),
        ],
    )
    def test_forbidden_characters_are_replaced(self, app, rest):
        assert user_agent(app) == f"{OURS}{rest}"

    def test_every_character_keeps_to_the_grammar(self):
        for code in [*range(256), 0x2028, 0x1F600, 0xD800]:
            text = f"a{chr(code)}b"
            agent = user_agent(App(text, text, text))
            assert GRAMMAR.fullmatch(agent), (code, agent)
            assert not {"\r", "\n"} & set(agent)

    @pytest.mark.parametrize("app", ["shop", ("id", "name", "1.0"), App("id", "name", 1), App(None, "name", "1"), {}])
    def test_anything_else_names_the_option(self, app):
        with pytest.raises(TypeError, match=r"^app must be App\(id, name, version\) of three strings"):
            user_agent(app)
