"""axe-core checks the inspector's page in a real browser: every view, in light and in dark mode."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from raccoon_fast import RAW, RestClient, RetryPolicy, ServerError
from raccoon_fast.collector import Collector

NewCollector = Callable[..., Collector]

AXE = Path(os.environ.get("RACCOON_AXE", Path(__file__).parents[2] / ".venv/axe/node_modules/axe-core/axe.min.js"))
ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.exists():
        pytest.skip(f"needs axe-core at {AXE}: make axe")
    return AXE.read_text()


def violations(page: Any, axe: str) -> list[tuple[str, str, str]]:
    """What axe-core finds: rule, what is wrong, where."""
    # Over DevTools: the page's policy lets no script in.
    page.browser.execute_cdp_cmd("Runtime.evaluate", {"expression": axe + "\n;0"})
    answer = page.browser.execute_async_script("""
        const done = arguments[arguments.length - 1];
        const options = { resultTypes: ["violations"] };
        axe.run(document, options).then((it) => done(it.violations), (it) => done(String(it)));
    """)
    assert isinstance(answer, list), answer
    return [(it["id"], it["help"], node["html"][:300]) for it in answer for node in it["nodes"]]


def send(collector: Collector, *events: tuple[str, bytes], **options: Any) -> None:
    with RestClient(collector.url, serializer=RAW, **options) as client:
        client.send(events)


def click(page: Any, selector: str) -> None:
    """Click all of them, wherever they are scrolled to."""
    page.run("for (const it of document.querySelectorAll(arguments[0])) it.click()", selector)


def fill(collector: Collector) -> None:
    """Events of many kinds, good and bad, a rejection, a fault that happened."""
    send(collector, *((f"type-{n}", b'{"a": [1, "b", null, true]}') for n in range(30)), user_id="me")
    send(collector, ("page", b'{"name": 1}'), ("text", b"a text"), ("bytes", b"\xff\x00"), ("empty", b""))
    send(collector, ("large", json.dumps({"a": "x" * 100_000}).encode()), ("mark", "\u202eabc\u0007".encode()))
    collector.faults.status(503, times=1)
    with pytest.raises(ServerError):
        send(collector, ("page", b"{}"), retry=ONCE)
    collector.faults.delay(0.01)
    send(collector, ("page", b'{"name": "a"}'))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280, 1920])
def test_every_view_is_clean(width: int, scheme: str, axe: str, open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True, schemas={"page": {"properties": {"name": {"type": "string"}}}})
    page = open_page(collector)
    page.resize(width, 900)
    page.colours(scheme)
    found = {"nothing came": violations(page, axe)}
    fill(collector)
    page.wait(lambda: page.rows("rejections") and page.rows("fault-hits") and len(page.rows("events")) == 37)
    found["overview"] = violations(page, axe)
    for event_type in ("type-1", "page", "large", "mark"):
        click(page, f'#events [aria-label$=", {event_type}"]')
    click(page, "#rejections button.opener")
    page.wait(lambda: len(page.all("#events .copies")) >= 4)
    click(page, "#events details:not([open]) > summary")
    found["opened"] = violations(page, axe)
    page.find("#faults summary").click()
    page.wait(lambda: page.all("#fault-list li"))
    seconds = page.find("#fault-delay-seconds")
    seconds.clear()
    seconds.send_keys("-1")
    click(page, "#fault-list li.on [role=switch]")
    page.wait(lambda: not page.all("#fault-list li.on"))
    click(page, "#fault-list [aria-describedby=fault-delay-text]")
    page.wait(lambda: any(it.text for it in page.all("#fault-list p.bad")))
    found["faults, one refused"] = violations(page, axe)
    page.browser.get_log("browser")  # the refusal
    for query in ("?type=page", "?type=bytes", "?search=nothing-has-this", "?types=none&type=gone"):
        page.browser.get(f"{collector.url}/inspect{query}")
        page.wait(lambda: page.rows("fault-hits"))
        found[query] = violations(page, axe)
    page.find("#pause").click()
    page.wait(lambda: page.text("#state") == "Paused")
    found["paused"] = violations(page, axe)
    assert {view: it for view, it in found.items() if it} == {}
    assert page.browser.find_element(By.CSS_SELECTOR, "html").is_displayed()


def test_axe_finds_violations(axe: str, open_page: Any, new_collector: NewCollector) -> None:
    page = open_page(new_collector(inspect=True))
    page.run("document.querySelector('main').append(document.createElement('button'))")
    page.run("document.querySelector('h1').style.color = '#eee'")
    assert {rule for rule, *_ in violations(page, axe)} == {"button-name", "color-contrast"}
