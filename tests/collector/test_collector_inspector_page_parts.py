"""Parts of the inspector's page in a real browser: effects of faults, large data, distributions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from raccoon_fast import RAW, Event, RestClient, RetryPolicy, ServerError, WebSocketClient
from raccoon_fast.collector import Collector

NewCollector = Callable[..., Collector]

ONCE = RetryPolicy(max_attempts=1)


def send(collector: Collector, *events: tuple[str, bytes], **options: Any) -> None:
    with RestClient(collector.url, serializer=RAW, **options) as client:
        client.send(events)


def test_faults_are_shown_beside_events_with_their_effect_and_client(
    open_page: Any, new_collector: NewCollector
) -> None:
    collector = new_collector(inspect=True)
    page = open_page(collector)
    assert not page.find("#fault-hits").is_displayed()
    collector.faults.delay(0.01)
    page.wait(lambda: "delay is on, happened to nobody yet" in page.text("#fault-hits"))
    assert "The answer is sent seconds later." in page.text("#fault-hits")
    send(collector, ("page", b"{}"), ("page", b"{}"), user_id="one")
    with WebSocketClient(collector.ws_url, serializer=RAW, user_id="two") as client:
        for _ in range(3):
            client.send([Event("click", b"{}")])
    collector.faults.clear()
    collector.faults.status(503, times=1)
    with pytest.raises(ServerError):
        send(collector, ("page", b"{}"), user_id="one", retry=ONCE)
    page.wait(lambda: len(page.rows("fault-hits")) == 5)
    rows = page.rows("fault-hits")
    assert rows[0][0].startswith("status is offThe request is refused")
    assert rows[1][:5] == ["one", "REST", "1", "1", "1"]
    assert rows[2][0].startswith("delay is off")
    assert [row[:5] for row in rows[3:]] == [["two", "WebSocket", "3", "3", "3"], ["one", "REST", "1", "1", "2"]]
    # At the events too: in the list, and in an opened one.
    assert all(row[-1].startswith("delay: ") for row in page.rows("events"))
    assert len(page.all("#events tr.is-hit")) == 5
    page.find("#events button.opener").click()
    assert "Faults\ndelay" in page.text("#events .facts")
    page.find("#to-faults").click()
    page.wait(lambda: page.all("#fault-list li"))
    page.find("#reset").click()
    page.wait(lambda: not page.find("#fault-hits").is_displayed())


def test_large_data_is_opened_on_demand(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    large = json.dumps({"a": "x" * 150_000, "end": "\u202e"}, ensure_ascii=False)
    send(collector, ("large", large.encode()))
    page = open_page(collector)
    page.wait(lambda: len(page.rows("events")) == 1)
    asked = "return performance.getEntriesByType('resource').filter((it) => it.name.includes('/inspect/data')).length"
    page.find("#events button.opener").click()
    page.wait(lambda: page.all("#events .copies"))
    assert page.run(asked) == 0
    shown = "return document.querySelector('#events .data pre').textContent"
    assert page.run(shown) == large[:2000]
    button = page.find("#events .data button")
    assert button.text == "Show all 146.5 KiB"
    left = len(large)
    for count in (1, 2, 3):
        page.run("arguments[0].click()", button)
        left = max(left - 65_536, 0)
        label = f"Show {min(left, 65_536):,} more characters of {left:,}" if left else ""
        page.wait(lambda label=label: button.text == label)
        assert page.run(asked) == count
    assert not button.is_displayed()
    assert page.run(shown) == large.replace("\u202e", "⟨U+202E⟩")


def test_the_page_says_when_large_data_was_not_kept(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, ("huge", b"y" * (5 << 20)))
    page = open_page(collector)
    page.wait(lambda: len(page.rows("events")) == 1)
    page.find("#events button.opener").click()
    page.run("document.querySelector('#events .data button').click()")
    page.wait(lambda: "only the first of the" in page.text("#events .data"))
    page.browser.get_log("browser")  # the 404


def test_a_type_s_sizes_and_lateness_are_drawn(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, ("page", b"1234"), ("page", b"12345"), ("page", bytes(1000)), ("other", bytes(100)))
    page = open_page(collector, "?type=page")
    page.wait(lambda: page.all("#type-view .bars li"))
    bars = """
        const bars = [...document.querySelectorAll(`#type-view [aria-label='${arguments[0]}'] li`)];
        return bars.map((it) => [...it.children].map((part) => part.textContent));
    """
    sizes = page.run(bars, "Size")
    assert sizes[0] == ["4 B to 8 B", "", "2 (66.7 %)"]
    assert sizes[1] == ["8 B to 16 B", "", "0"]
    assert sizes[-1] == ["512 B to 1.0 KiB", "", "1 (33.3 %)"]
    lengths = page.run("""
        const bars = [...document.querySelectorAll("#type-view [aria-label=Size] .bar")];
        return bars.map((it) => parseFloat(getComputedStyle(it, "::before").width));
    """)
    assert lengths[1] == 0
    assert lengths[-1] == pytest.approx(lengths[0] / 2, rel=0.05)
    late = page.run(bars, "Lateness: sent to received")
    assert sum(int(count.split()[0]) for _, _, count in late) == 3
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.find("#type-view").is_displayed())


def test_events_are_found_by_guid(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    with RestClient(collector.url, serializer=RAW) as client:
        for guid in ("order-41", "Order-42", "order-43"):
            client.send([(guid, b"{}")], req_guid=guid)
    page = open_page(collector)
    page.wait(lambda: len(page.rows("events")) == 3)
    page.find("#filters [name=guid]").send_keys("ORDER-42")
    page.wait(lambda: [row[2] for row in page.rows("events")] == ["Order-42"])
    assert "guid=ORDER-42" in page.browser.current_url
    page.browser.refresh()
    page.wait(lambda: [row[2] for row in page.rows("events")] == ["Order-42"])
    page.find("#filters [name=guid]").send_keys("x")
    page.wait(lambda: page.rows("events") == [])
    assert "3 by guid “ORDER-42x”" in page.text("#events .note")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280, 1920])
def test_all_parts_fit(width: int, scheme: str, open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    name = "com.shop.checkout_of_a_customer_completed"
    collector.faults.delay(0.001)
    send(collector, *[(name, b'{"a": {"b": [1, 2]}}')] * 20, user_id="a-client-with-a-long-name-" * 3)
    page = open_page(collector, f"?type={name}")
    page.colours(scheme)
    page.resize(width, 900)
    page.wait(lambda: page.rows("fault-hits") and page.rows("events") and page.all("#type-view .bars li"))
    page.find("#events button.opener").click()
    wide = page.run("""
        const wanted = "html, #fault-hits .scrolls, #type-view :not(caption), #timeline *";
        const parts = [...document.querySelectorAll(wanted)];
        const isWide = (it) => it.clientWidth > 0 && it.scrollWidth > it.clientWidth + 1;
        return parts.filter(isWide).map((it) => it.outerHTML);
    """)
    assert wide == []
    # A type's name breaks between its words, and nothing of it is cut.
    cell = page.find("#events tr.entry td.text")
    assert page.run("return arguments[0].scrollWidth <= arguments[0].clientWidth", cell)
