"""The pytest plugin as users get it: through its entry point, in a separate pytest run."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

HEAVY = ("asyncio", "grpc", "google.protobuf", "h2", "httpx", "orjson", "starlette", "uvloop", "websockets")


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", *arguments)


def test_three_lines_test_an_application(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        shop="""
        from raccoon_fast import JSON, RestClient

        def visit(page, events_to):
            with RestClient(events_to, serializer=JSON) as client:
                client.send([("page", {"name": page})])
        """,
        test_shop="""
        import shop

        def test_a_visit_is_sent(raccoon_collector):
            shop.visit("home", events_to=raccoon_collector.url)
            assert raccoon_collector.events[0].type == "page"
        """,
    )
    run(pytester).assert_outcomes(passed=1)


def test_each_test_has_one_of_its_own_with_all_a_collector_has(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from raccoon_fast import RAW, RestClient, RetryPolicy, ServerError

        @pytest.mark.parametrize("times", [1, 2])
        def test_events(raccoon_collector, times):
            for _ in range(times):
                with RestClient(raccoon_collector.url, serializer=RAW) as client:
                    client.send([("page", b"x")])
            raccoon_collector.wait_for(times)
            raccoon_collector.wait_until(lambda it: it.event_count == times)
            assert len(raccoon_collector.events) == len(raccoon_collector.requests) == times

        def test_faults(raccoon_collector):
            raccoon_collector.faults.status(503)
            with RestClient(raccoon_collector.url, serializer=RAW, retry=RetryPolicy(max_attempts=1)) as client:
                with pytest.raises(ServerError):
                    client.send([("page", b"x")])

        def test_an_error_of_the_test_is_its_own(raccoon_collector):
            raise ZeroDivisionError
        """
    )
    run(pytester).assert_outcomes(passed=3, failed=1)


def test_options_are_overridden(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from raccoon_fast import RAW, RestClient, RetryPolicy, ServerError

        class TestSync:
            @pytest.fixture
            def raccoon_collector_options(self):
                return {"acks": "sync", "publish_failure_rate": 1.0}

            def test_failure(self, raccoon_collector):
                with RestClient(raccoon_collector.url, serializer=RAW, retry=RetryPolicy(max_attempts=1)) as client:
                    with pytest.raises(ServerError, match="cannot publish"):
                        client.send([("page", b"x")])

        def test_others_are_as_always(raccoon_collector):
            with RestClient(raccoon_collector.url, serializer=RAW) as client:
                client.send([("page", b"x")])
        """
    )
    run(pytester).assert_outcomes(passed=2)


def test_a_run_that_does_not_use_it_loads_nothing_for_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_modules():
            assert "raccoon_fast.pytest_plugin" in sys.modules
            heavy = ("raccoon_fast.collector", "h2", "starlette", "grpc")
            assert not [name for name in sys.modules if name.startswith(heavy)]
        """
    )
    run(pytester).assert_outcomes(passed=1)
    script = """
import sys, pytest
before = {*sys.modules}
import raccoon_fast.pytest_plugin
print(*{*sys.modules} - before)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "raccoon_fast.pytest_plugin" in loaded
    assert not set(HEAVY) & loaded


def test_without_the_extra_it_says_what_to_install(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import sys; sys.modules['h2'] = None  # importing it is an ImportError then")
    pytester.makepyfile("def test_it(raccoon_collector): pass\ndef test_other(): pass")
    result = run(pytester)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["raccoon_collector: the collector needs more packages: pip install 'raccoon_fast*collector*'"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_fixtures_are_listed(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--fixtures")
    result.stdout.fnmatch_lines(["raccoon_collector *", "    One Raccoon server per test*"])


def test_a_marker_goes_before_the_fixture_s_options_and_the_closest_first(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from raccoon_fast import JSON, RestClient

        @pytest.fixture
        def raccoon_collector_options():
            return {"sink": "null", "schemas": {"page": {"type": "object"}}}

        @pytest.mark.raccoon_collector(sink="memory", schemas={"page": {"type": "array"}})
        class TestMarked:
            @pytest.mark.raccoon_collector(schemas={"page": {"type": "string"}})
            def test_both(self, raccoon_collector):
                with RestClient(raccoon_collector.url, serializer=JSON) as client:
                    client.send([("page", "text"), ("page", {"name": "home"})])
                (event,) = raccoon_collector.wait_for(1, type="page", where={"name": "home"})
                assert event.json() == {"name": "home"}
                assert [bad.event for bad in raccoon_collector.bad_events] == [event]

        def test_unmarked(raccoon_collector):
            with RestClient(raccoon_collector.url, serializer=JSON) as client:
                client.send([("page", "text")])
            raccoon_collector.assert_no_bad_events()
        """
    )
    result = run(pytester, "--strict-markers")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["E *AssertionError: 1 of 1 events are bad:", "E *'page' of request * is not of type 'object'"]
    )
