from __future__ import annotations

import inspect
import io
import logging
import re
import sys
from typing import Any

import pytest

from raccoon_fast.logs import CONSOLE, Logger, redact_headers, resolve_logger

LEVELS = ["debug", "info", "warning", "error"]


class Two:
    """The least a logger can be."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def info(self, msg: str, *args: Any) -> None:
        self.seen.append(("info", msg % args))

    def error(self, msg: str, *args: Any) -> None:
        self.seen.append(("error", msg % args))


class Four(Two):
    def debug(self, msg: str, *args: Any) -> None:
        self.seen.append(("debug", msg % args))

    def warning(self, msg: str, *args: Any) -> None:
        self.seen.append(("warning", msg % args))


def log_at_every_level(logger: object) -> None:
    log = resolve_logger(logger)
    for level in LEVELS:
        getattr(log, level)("%s of %d", level, 4)


class TestConsole:
    def test_is_the_default_and_writes_to_stderr(self, capsys):
        resolve_logger().info("connected to %s", "ws://host")
        captured = capsys.readouterr()
        assert captured.out == ""
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO raccoon_fast: connected to ws://host\n", captured.err)

    def test_shows_info_and_above(self, capsys):
        log_at_every_level(CONSOLE)
        lines = capsys.readouterr().err.splitlines()
        assert [line.split()[2] for line in lines] == ["INFO", "WARNING", "ERROR"]

    def test_percent_without_arguments_is_text(self, capsys):
        resolve_logger(CONSOLE).error("100 %s")
        assert capsys.readouterr().err.endswith("raccoon_fast: 100 %s\n")

    def test_a_line_is_one_write(self, monkeypatch):
        writes: list[str] = []

        class Stderr(io.StringIO):
            def write(self, text: str) -> int:
                writes.append(text)
                return len(text)

        monkeypatch.setattr(sys, "stderr", Stderr())
        resolve_logger().info("a")
        assert len(writes) == 1

    def test_no_stderr_and_a_closed_one_are_survived(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", None)
        log_at_every_level(CONSOLE)
        closed = io.StringIO()
        closed.close()
        monkeypatch.setattr(sys, "stderr", closed)
        log_at_every_level(CONSOLE)

    def test_has_a_readable_name(self):
        assert repr(CONSOLE) == "CONSOLE"


class TestResolve:
    def test_none_is_silence(self, capsys):
        log_at_every_level(None)
        assert capsys.readouterr() == ("", "")

    def test_all_four_levels_reach_a_logger_that_has_them(self):
        mine = Four()
        log_at_every_level(mine)
        assert mine.seen == [(level, f"{level} of 4") for level in LEVELS]

    def test_without_debug_and_warning_one_is_dropped_and_one_is_an_error(self):
        mine = Two()
        log_at_every_level(mine)
        assert mine.seen == [("info", "info of 4"), ("error", "warning of 4"), ("error", "error of 4")]

    def test_resolving_twice_changes_nothing(self):
        log = resolve_logger(None)
        assert resolve_logger(log) is log

    def test_protocol_says_what_is_accepted(self):
        assert isinstance(Two(), Logger)
        assert isinstance(logging.getLogger(), Logger)
        assert not isinstance(object(), Logger)

    @pytest.mark.parametrize("value", ["console", 3, True, object(), print, type("InfoOnly", (), {"info": print})()])
    def test_anything_else_names_the_option(self, value):
        with pytest.raises(TypeError, match=r"^logger must have info\(msg, \*args\) and error\(msg, \*args\)"):
            resolve_logger(value)


class TestStandardLibrary:
    def test_records_carry_level_and_arguments(self, caplog):
        caplog.set_level(logging.DEBUG, "mine")
        log_at_every_level(logging.getLogger("mine"))
        assert [(record.levelname.lower(), record.getMessage()) for record in caplog.records] == [
            (level, f"{level} of 4") for level in LEVELS
        ]

    @pytest.mark.parametrize("wrap", [lambda logger: logger, lambda logger: logging.LoggerAdapter(logger, {})])
    def test_records_name_the_line_that_logs(self, caplog, wrap):
        log = resolve_logger(wrap(logging.getLogger("mine")))
        log.error("here")
        line = inspect.currentframe().f_lineno - 1
        (record,) = caplog.records
        assert (record.filename, record.lineno) == ("test_logs.py", line)

    def test_level_of_the_logger_is_obeyed(self, caplog):
        caplog.set_level(logging.ERROR, "mine")
        log_at_every_level(logging.getLogger("mine"))
        assert [record.levelname for record in caplog.records] == ["ERROR"]


class TestFailingLogger:
    class Broken:
        def info(self, msg: str, *args: Any) -> None:
            raise OSError("disk full")

        error = info

    def test_is_reported_once_and_goes_no_further(self, capsys):
        log = resolve_logger(self.Broken())
        for _ in range(3):
            log.info("a")
            log.error("b")
        (line,) = capsys.readouterr().err.splitlines()
        assert "the logger failed in info(): OSError('disk full'); not reported again" in line

    def test_wrong_arguments_are_a_failure_too(self, capsys):
        resolve_logger(CONSOLE).info("%d", "text")
        assert "the logger failed in info(): TypeError" in capsys.readouterr().err

    def test_an_error_without_a_repr_is_survived(self):
        class Nameless(Exception):
            def __repr__(self) -> str:
                raise RuntimeError("no repr")

        class Worse(Two):
            def info(self, msg: str, *args: Any) -> None:
                raise Nameless

        resolve_logger(Worse()).info("a")

    def test_exit_passes_through(self):
        class Exiting(Two):
            def info(self, msg: str, *args: Any) -> None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            resolve_logger(Exiting()).info("a")


class TestRedact:
    @pytest.mark.parametrize(
        "name",
        [
            "Authorization",
            "authorization",
            "PROXY-AUTHORIZATION",
            "Cookie",
            "Set-Cookie",
            "X-Api-Key",
            "apikey",
            "X-Auth-Token",
            "X-Amz-Security-Token",
            "Ocp-Apim-Subscription-Key",
            "X-Client-Secret",
            "X-Password",
            "X-Passwd",
            "X-Hub-Signature-256",
            "X-Session-Id",
            "X-Goog-IAM-Authority-Selector-Auth",
            "Authentication",
            "x-jwt-assertion",
        ],
    )
    def test_secret_names(self, name):
        assert redact_headers({name: "s3cret"}) == {name: "[redacted]"}

    @pytest.mark.parametrize("value", ["Bearer s3cret", "basic czNjcmV0", " Bearer\ts3cret", "Negotiate abc"])
    def test_secret_values_under_other_names(self, value):
        assert redact_headers({"X-Forwarded-Access": value}) == {"X-Forwarded-Access": "[redacted]"}

    def test_the_rest_stays(self):
        headers = {
            "X-User-ID": "u1",
            "Content-Type": "application/proto",
            ":authority": "raccoon:8081",
            "User-Agent": "raccoon_fast/0.1.0 (basic plan)",
            "X-Keyboard": "de",
        }
        assert redact_headers(headers) == headers

    def test_pairs_are_taken_and_the_argument_is_left_alone(self):
        pairs = [("Cookie", "a"), ("X-User-ID", "u")]
        assert redact_headers(pairs) == {"Cookie": "[redacted]", "X-User-ID": "u"}
        assert redact_headers(iter(pairs)) == {"Cookie": "[redacted]", "X-User-ID": "u"}
        assert pairs == [("Cookie", "a"), ("X-User-ID", "u")]
