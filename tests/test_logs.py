from __future__ import annotations

import inspect
import io
import logging
import pickle
import re
import sys
import textwrap
from typing import Any
from unittest.mock import Mock, call

import pytest
from program import start

from raccoon_fast.logs import CONSOLE, DEFAULT, Logger, redact_headers, resolve_logger

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
    def test_writes_to_stderr(self, capsys):
        resolve_logger(CONSOLE).info("connected to %s", "ws://host")
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
        resolve_logger(CONSOLE).info("a")
        assert len(writes) == 1

    def test_a_missing_or_closed_stderr_is_tolerated(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", None)
        log_at_every_level(CONSOLE)
        closed = io.StringIO()
        closed.close()
        monkeypatch.setattr(sys, "stderr", closed)
        log_at_every_level(CONSOLE)

    def test_has_a_readable_name(self):
        assert repr(CONSOLE) == "CONSOLE"


class TestResolve:
    def test_none_logs_nothing(self, capsys):
        log_at_every_level(None)
        assert capsys.readouterr() == ("", "")

    def test_all_four_levels_reach_a_logger_that_has_them(self):
        mine = Four()
        log_at_every_level(mine)
        assert mine.seen == [(level, f"{level} of 4") for level in LEVELS]

    def test_a_logger_without_debug_and_warning_drops_debug_and_logs_warnings_as_errors(self):
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


class TestOtherLoggers:
    """What is no logger of `logging` gets the finished text: loguru merges with {}, others not at all."""

    def test_gets_the_finished_text_and_no_arguments(self):
        mine = Mock()
        log_at_every_level(mine)
        assert mine.mock_calls == [getattr(call, level)(f"{level} of 4") for level in LEVELS]

    def test_loguru(self):
        from loguru import logger

        lines: list[str] = []
        sink = logger.add(lines.append, format="{level} {message}", level="DEBUG")
        try:
            log = resolve_logger(logger)
            log.warning("%d%% of %s wait", 50, "{events}")
            log_at_every_level(logger)
        finally:
            logger.remove(sink)
        assert lines == ["WARNING 50% of {events} wait\n", *(f"{level.upper()} {level} of 4\n" for level in LEVELS)]

    def test_wrong_arguments_are_a_failure_that_is_reported(self, capsys):
        mine = Mock()
        resolve_logger(mine).info("%d", "text")
        assert mine.mock_calls == []
        assert "the logger raised in info(): TypeError" in capsys.readouterr().err


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

    def test_the_default_is_seen_by_caplog(self, caplog, capsys):
        caplog.set_level(logging.INFO, "raccoon_fast")
        log_at_every_level(DEFAULT)
        assert caplog.record_tuples == [
            ("raccoon_fast", getattr(logging, level.upper()), f"{level} of 4") for level in LEVELS[1:]
        ]
        assert capsys.readouterr().err == ""

    def test_the_default_is_found_again_in_another_process(self):
        assert pickle.loads(pickle.dumps(DEFAULT)) is DEFAULT

    def test_level_of_the_logger_is_obeyed(self, caplog):
        caplog.set_level(logging.ERROR, "mine")
        log_at_every_level(logging.getLogger("mine"))
        assert [record.levelname for record in caplog.records] == ["ERROR"]


class TestDefaultInAProgram:
    """What a whole program shows on stderr: a producer whose server is not there, with the default logger."""

    @staticmethod
    def shown(before: str, logger: str = "") -> list[str]:
        program = f"""
import logging, logging.config, sys
{textwrap.dedent(before)}
from raccoon_fast import RAW, Producer
from raccoon_fast.logs import resolve_logger
with Producer("http://127.0.0.1:9", serializer=RAW, delivery_timeout=0.1, timeout=0.1{logger}) as producer:
    producer.emit("page", b"")
resolve_logger().info("connected to %s", "a server")
"""
        with start(program) as process:
            out, err = process.communicate(timeout=40)
        assert (process.returncode, out) == (0, "")
        return err.splitlines()

    def test_without_logging_warnings_and_errors_go_to_stderr(self):
        lines = self.shown("")
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (WARNING|ERROR) raccoon_fast: ", line) for line in lines)
        assert any("ERROR" in line for line in lines)
        assert not any("connected to" in line for line in lines)

    def test_with_logging_each_line_is_the_program_s(self):
        lines = self.shown('logging.basicConfig(format="MINE %(levelname)s %(name)s %(message)s", level="INFO")')
        assert all(line.startswith("MINE ") for line in lines)
        assert lines[-1] == "MINE INFO raccoon_fast connected to a server"

    def test_logging_that_is_configured_later_is_the_program_s(self):
        assert self.shown("import raccoon_fast.default_logger; logging.basicConfig(level=60)") == []

    def test_a_handler_of_the_logger_alone(self):
        before = 'logging.getLogger("raccoon_fast").addHandler(logging.NullHandler())'
        assert self.shown(before) == []

    @pytest.mark.parametrize(
        "before",
        [
            "logging.disable()",
            'logging.getLogger("raccoon_fast").setLevel(60)',
            'logging.getLogger("raccoon_fast").addFilter(lambda record: False)',
        ],
    )
    def test_a_level_turned_off_by_the_program_stays_off(self, before):
        assert self.shown(before) == []

    def test_none_is_silent(self):
        assert self.shown("", ", logger=None") == []

    def test_loguru_s_recipe_for_the_records_of_logging(self):
        before = """
            import inspect
            from loguru import logger

            class InterceptHandler(logging.Handler):
                def emit(self, record):
                    frame, depth = inspect.currentframe(), 0
                    while frame and (depth == 0 or frame.f_code.co_filename == logging.__file__):
                        frame, depth = frame.f_back, depth + 1
                    logger.opt(depth=depth, exception=record.exc_info).log(record.levelname, record.getMessage())

            logger.remove()
            logger.add(sys.stderr, format="LOGURU {level} {message}")
            logging.basicConfig(handlers=[InterceptHandler()], level=0, force=True)
        """
        lines = self.shown(before)
        assert all(line.startswith("LOGURU ") for line in lines)
        assert lines[-1] == "LOGURU INFO connected to a server"

    @pytest.mark.skipif(sys.platform == "win32", reason="gunicorn does not run on Windows")
    def test_gunicorn_s_configuration(self):
        pytest.importorskip("gunicorn")
        before = """
            from gunicorn.config import Config
            from gunicorn.glogging import Logger
            handler = {"class": "logging.StreamHandler", "formatter": "mine", "stream": "ext://sys.stderr"}
            config = Config()
            config.set("logconfig_dict", {
                "formatters": {"mine": {"format": "GUNICORN %(name)s %(message)s"}},
                "handlers": {"console": handler},
                "root": {"level": "INFO", "handlers": ["console"]},
                "loggers": {},
            })
            import raccoon_fast.default_logger
            Logger(config)
        """
        lines = self.shown(before)
        assert lines
        assert all(line.startswith("GUNICORN raccoon_fast ") for line in lines)


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
        assert "the logger raised in info(): OSError('disk full'); further failures are not reported" in line

    def test_wrong_arguments_are_a_failure_too(self, capsys):
        resolve_logger(CONSOLE).info("%d", "text")
        assert "the logger raised in info(): TypeError" in capsys.readouterr().err

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
