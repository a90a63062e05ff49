"""The inspector's page in a real browser: Debian's chromium, driven by its chromedriver."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from patience import patient
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from raccoon_fast import JSON, RAW, Producer, RestClient, RetryPolicy, ServerError
from raccoon_fast.collector import Collector
from raccoon_fast.collector.messages import SendEventRequest

NewCollector = Callable[..., Collector]

ONCE = RetryPolicy(max_attempts=1)
RUNS_SOMETHING = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


def send(collector: Collector, *events: tuple[str, bytes], **options: Any) -> None:
    with RestClient(collector.url, serializer=RAW, **options) as client:
        client.send(events)


def test_counts_are_live(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    page = open_page(collector)
    assert page.tile("Events") == "0"
    assert page.text("#events .note") == "None yet. Send some to one of the addresses above."
    assert page.text("#addresses").split() == [collector.url, collector.ws_url, f"grpc://{collector.grpc_target}"]
    for count, url in enumerate((collector.url, collector.ws_url, f"grpc://{collector.grpc_target}"), 1):
        with Producer(url, serializer=JSON, logger=None) as producer:
            producer.emit_many([("page", {"n": n}) for n in range(10 * count)])
            producer.emit("buy", {})
            assert producer.flush(patient(10)) == 0
            if count == 2:
                page.wait(lambda: page.tile("Connections") == "1")
    page.wait(lambda: page.tile("Events") == "63")
    page.wait(
        lambda: (
            [row[:5] for row in page.rows("types")] == [["page", "10", "20", "30", "60"], ["buy", "1", "1", "1", "3"]]
        )
    )
    assert [row[:3:2] for row in page.rows("protocols")] == [["REST", "11"], ["WebSocket", "21"], ["gRPC", "31"]]
    assert page.tile("Rejected") == "0"
    page.wait(lambda: page.tile("Latency").endswith(("ms", "s")))
    page.wait(lambda: page.tile("Connections") == "0")
    assert len(page.rows("events")) == 50


def test_the_rate_is_shown(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    page = open_page(collector)
    send(collector, *[("page", b"{}")] * 400)
    page.wait(lambda: "a second" in page.text("#tiles") and page.rows("types")[0][5] not in ("", "0"))
    page.wait(lambda: page.run("return document.querySelector('polyline').getAttribute('points')"))


def test_an_event_is_opened_as_json(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    value = {"name": 'home \\ "q" é', "tags": [1, -2.5, None, True, []], "in": {"a": {}}}
    data = json.dumps(value, ensure_ascii=False).encode()
    send(collector, ("page", data), ("page", b'{"n":123456789012345678901234567890,"n":1.10}'), ("page", b"\x00\xff"))
    page = open_page(collector)
    page.wait(lambda: len(page.rows("events")) == 3)
    for button in page.all("#events button.opener"):
        button.click()
    page.wait(lambda: len(page.all("#events .data pre")) == 3)
    raw, exact, pretty = (pre.text for pre in page.all("#events .data pre"))
    assert pretty == json.dumps(value, ensure_ascii=False, indent=2)
    assert exact == '{\n  "n": 123456789012345678901234567890,\n  "n": 1.10\n}'
    assert raw == "00 ff"
    facts = page.text("#events .details .facts")
    for part in ("Type\npage", "over REST", "before", "raccoon_fast/", "bytes, 2 B"):
        assert part in facts
    page.run("document.querySelector('#events .scrolls').scrollTop = 0")
    page.find("#events tr.entry td.preview").click()  # anywhere in the row
    page.wait(lambda: len(page.all("#events .data pre")) == 2)


def test_an_open_event_stays_while_more_arrive(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, ("page", b'{"first": true}'))
    page = open_page(collector)
    page.wait(lambda: len(page.rows("events")) == 1)
    page.find("#events button.opener").click()
    send(collector, *[("page", b"{}")] * 60)
    page.wait(lambda: page.text("#newer") == "Show 60 newer")
    assert page.text("#events .data pre") == '{\n  "first": true\n}'
    page.find("#newer").click()
    page.wait(lambda: len(page.rows("events")) == 50)
    assert not page.find("#newer").is_displayed()
    assert page.all("#events .data pre") == []


def test_received_content_is_shown_as_text_everywhere(open_page: Any, peer: Any, new_collector: NewCollector) -> None:
    """In data, types, guids, ids, headers and reasons; as JSON, as text and in what was rejected."""
    collector = new_collector(inspect=True, group_header="X-User-Group")
    page = open_page(collector)
    title = page.browser.title
    events = [RUNS_SOMETHING, json.dumps({RUNS_SOMETHING: RUNS_SOMETHING})]
    request = SendEventRequest(
        req_guid=RUNS_SOMETHING, events=[{"type": RUNS_SOMETHING, "event_bytes": data.encode()} for data in events]
    )
    headers = dict.fromkeys(("X-User-ID", "X-User-Group", "User-Agent"), RUNS_SOMETHING)
    assert peer.post(collector, request.SerializeToString(), headers).status_code == 200
    assert peer.post(collector, RUNS_SOMETHING.encode(), headers | {"content-type": RUNS_SOMETHING}).status_code == 400
    collector.faults.too_large(1, times=1)
    assert peer.post(collector, RUNS_SOMETHING.encode(), headers).status_code == 413
    page.wait(lambda: len(page.rows("events")) == 2 and len(page.rows("rejections")) == 2)
    for button in page.all("button.opener"):
        button.click()
    page.wait(lambda: len(page.all(".data pre")) == 3)
    assert RUNS_SOMETHING in page.rows("rejections")[1][4]
    as_json, as_text, rejected = (pre.text for pre in page.all(".data pre"))
    assert json.loads(as_json) == {RUNS_SOMETHING: RUNS_SOMETHING}
    assert as_text == rejected == RUNS_SOMETHING
    assert page.rows("types")[0][0] == RUNS_SOMETHING
    page.find("#filters [name=type]").click()
    page.wait(lambda: page.suggestions() == [RUNS_SOMETHING])
    page.wait(lambda: len(page.all(".more details")) == 4)
    assert RUNS_SOMETHING in page.run("return document.querySelector('.headers').textContent")
    assert page.text("#events .facts").count(RUNS_SOMETHING) == 5  # type, client, group, user agent, guid
    assert page.all("img, iframe, script:not([src='/inspect/page/main.js'])") == []
    assert page.browser.title == title
    # And were a script to get in, it would not run.
    with pytest.raises(JavascriptException, match="TrustedScript"):
        page.run("document.createElement('script').text = \"document.title = 'run'\"")
    assert page.browser.title == title
    page.browser.get_log("browser")  # the complaint of the policy


def test_a_type_is_picked(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, *[("often", b"1")] * 5, ("rare & odd", b"3"))
    page = open_page(collector)
    page.wait(lambda: len(page.rows("types")) == 2)
    page.find("#filters [name=type]").send_keys("rare & odd")
    page.wait(lambda: [row[2] for row in page.rows("events")] == ["rare & odd"])
    page.find("#types tbody tr:first-child button").click()
    page.wait(lambda: [row[2] for row in page.rows("events")] == ["often"] * 5)
    assert page.find("#filters [name=type]").get_property("value") == "often"
    page.browser.back()
    page.wait(lambda: [row[2] for row in page.rows("events")] == ["rare & odd"])


def test_types_are_suggested_while_typing(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, *((f"shop.page_{number}", b"1") for number in range(3000)))
    page = open_page(collector)
    field = page.find("#filters [name=type]")
    field.send_keys("PAGE_271")
    names = ["shop.page_271", *(f"shop.page_271{digit}" for digit in range(10))]
    page.wait(lambda: sorted(page.suggestions()) == sorted(names))
    assert len(page.rows("events")) == 50  # half a name hides nothing
    field.clear()
    field.send_keys("shop.page_2713")
    page.wait(lambda: [row[2] for row in page.rows("events")] == ["shop.page_2713"])


SHOP_SCHEMA = {"type": "object", "required": ["total"]}


def send_of_all_kinds(collector: Collector) -> None:
    send(collector, ("order", b'{"total": 1, "who": "Ann"}'), ("order", b'{"who": "Bob"}'), user_id="web-1")
    with Producer(collector.ws_url, serializer=JSON, user_id="Mobile-2", logger=None) as producer:
        producer.emit("view", {"who": "Ann"})
        assert producer.flush(patient(10)) == 0


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("search=aNN", [3, 1]),
        ("client=mobile", [3]),
        ("protocol=rest", [2, 1]),
        ("quality=bad", [2]),
        ("quality=good", [3, 1]),
        ("type=order&search=ann", [1]),
        ("protocol=nonsense", [3, 2, 1]),
    ],
)
def test_a_link_restores_its_view_and_a_reload_keeps_it(
    query: str, numbers: list[int], open_page: Any, new_collector: NewCollector
) -> None:
    collector = new_collector(inspect=True, schemas={"order": SHOP_SCHEMA})
    send_of_all_kinds(collector)
    page = open_page(collector)

    def labels() -> list[str]:
        return [str(button.get_attribute("aria-label")).split(",")[0] for button in page.all("#events button.opener")]

    for load in (lambda: page.browser.get(f"{collector.url}/inspect?{query}"), page.browser.refresh):
        load()
        page.wait(lambda: labels() == [f"Details of event {number}" for number in numbers])
        for name, value in (part.split("=") for part in query.split("&")):
            shown = page.find(f"#filters [name={name}]").get_property("value")
            assert shown == ("" if value == "nonsense" else value)


def test_filters_are_kept_over_a_reload(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send_of_all_kinds(collector)
    page = open_page(collector)
    guid = collector.events[2].req_guid
    page.find("#filters [name=guid]").send_keys(guid[:13].upper())
    page.wait(lambda: [row[2] for row in page.rows("events")] == ["view"])
    page.find("#filters [name=protocol]").send_keys("WebSocket")
    page.find("#types-search").send_keys("vi")
    page.wait(lambda: [row[0] for row in page.rows("types")] == ["view"])
    page.wait(lambda: "protocol=websocket" in page.browser.current_url and "types=vi" in page.browser.current_url)
    page.browser.refresh()
    page.wait(lambda: [row[2] for row in page.rows("events")] == ["view"])
    page.wait(lambda: [row[0] for row in page.rows("types")] == ["view"])
    assert page.find("#filters [name=guid]").get_property("value") == guid[:13].upper()
    page.find("#clear").click()
    page.wait(lambda: len(page.rows("events")) == 3)
    assert not page.find("#clear").is_displayed()


def test_a_type_has_its_own_view(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True, schemas={"order": SHOP_SCHEMA})
    send_of_all_kinds(collector)
    page = open_page(collector)
    assert not page.find("#type-view").is_displayed()
    page.wait(lambda: len(page.rows("types")) == 2)
    page.find("#types [data-key*=order] button").click()
    page.wait(lambda: page.text("#type-view h2") == "order")
    assert page.rows("type-view") == [
        ["$", "object 2", ""],
        ["$.total", "number 1", "1"],
        ["$.who", "string 2", '"Ann", "Bob"'],
    ]
    facts = page.text("#type-view .facts")
    for part in ("2 (REST 2, WebSocket 0, gRPC 0)", "50 % (1)", "14 B to 26 B, median 14 B", "ago"):
        assert part in facts
    assert page.find("#type-view svg").get_attribute("aria-label").startswith("Its rate: ")
    page.browser.refresh()
    page.wait(lambda: page.text("#type-view h2") == "order")
    page.find("#events button.opener").click()
    page.wait(lambda: page.all("tr.details"))
    page.press(Keys.ESCAPE)
    page.wait(lambda: page.all("tr.details") == [])
    assert page.find("#type-view").is_displayed()
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.find("#type-view").is_displayed() and len(page.rows("events")) == 3)
    assert "type=" not in page.browser.current_url


def test_the_last_hour_is_drawn(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, *[("page", b"1")] * 100)
    page = open_page(collector)
    events, acks = (svg.get_attribute("aria-label") for svg in page.all("#timeline svg"))
    assert re.fullmatch(r"The last hour. Events: [\d.]+ a second now, up to [\d.]+\.", events)
    assert re.search(r"Acks: [\d.]+ a second now.* Rejected requests: 0 a second now, up to 0\.", acks)
    points = page.run("return document.querySelector('#timeline polyline').getAttribute('points')").split()
    assert len(points) == 30  # of 10 s
    assert page.text("#timeline .ends").startswith("5 min ago")
    assert any(float(point.split(",")[1]) < 2 for point in points)  # the highest is as high as the chart


def test_the_filtered_events_are_exported(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send_of_all_kinds(collector)
    page = open_page(collector)
    page.find("#filters [name=search]").send_keys("bob & co")
    page.wait(lambda: "search=bob+%26+co" in page.find("#export").get_attribute("href"))
    page.find("#filters [name=search]").clear()
    page.find("#filters [name=search]").send_keys("bob")
    page.wait(lambda: page.find("#export").get_attribute("href").endswith("search=bob"))
    text = page.browser.execute_async_script(
        "const done = arguments[0]; fetch(document.querySelector('#export').href).then((it) => it.text()).then(done)"
    )
    assert [json.loads(line)["data"] for line in text.splitlines()] == [{"who": "Bob"}]


def test_nothing_found_says_which_filter_hides_what(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, *[("page", b'{"a": 1}')] * 3, ("buy", b'{"a": 2}'))
    page = open_page(collector)
    page.browser.get(f"{collector.url}/inspect?type=page&search=nowhere&types=zzz")
    words = "No event passes the filters. Of 4 that are kept, hidden: 1 by type “page”, 3 by data “nowhere”."
    page.wait(lambda: page.text("#events .note") == words)
    page.wait(lambda: page.text("#types .note").startswith("None of 2 types has"))


def test_pause_freezes_the_view(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, ("old", b"1"), ("page", b"2"))
    page = open_page(collector)
    page.wait(lambda: len(page.rows("events")) == 2)
    page.find("#pause").click()
    send(collector, *[("page", b"3")] * 60)
    page.browser.execute_async_script("setTimeout(arguments[0], 2500)")  # twice the time between two looks
    assert [row[2] for row in page.rows("events")] == ["page", "old"]
    page.find("#types tbody button").click()
    page.wait(lambda: [row[2] for row in page.rows("events")] != ["page", "old"])
    assert len(page.rows("events")) == 1  # of those that were there
    page.find("#clear").click()
    page.wait(lambda: [row[2] for row in page.rows("events")] == ["page", "old"])
    page.find("#faults summary").click()
    page.wait(lambda: page.all("#fault-list li"))
    assert page.tile("Events") == "2"
    page.find("#pause").click()
    page.wait(lambda: page.tile("Events") == "62" and len(page.rows("events")) == 50)


def test_ten_thousand_types_are_sorted_searched_and_paged(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    for first in range(0, 10_000, 1000):
        send(collector, *((f"type_{number:05}", b"1") for number in range(first, first + 1000)))
    send(collector, *[("type_07777", b"1")] * 3)
    page = open_page(collector)
    page.wait(lambda: page.tile("Types") == "10,000")
    page.wait(lambda: [row[4] for row in page.rows("types")][:2] == ["4", "1"])
    assert page.rows("types")[0][0] == "type_07777"
    assert len(page.rows("types")) == 20
    assert page.text("#types .pager .note") == "1 to 20 of 10,000"
    assert page.run("return document.documentElement.scrollHeight") < 2000
    page.find("#types .pager button:last-child").click()
    page.wait(lambda: page.text("#types .pager .note") == "21 to 40 of 10,000")
    page.find("#types thead th:first-child button").click()
    page.wait(lambda: page.rows("types")[0][0] == "type_00000")
    assert page.find("#types thead th:first-child").get_attribute("aria-sort") == "ascending"
    page.find("#types-search").send_keys("E_099")
    page.wait(lambda: page.text("#types .pager .note") == "1 to 20 of 100")
    page.find("#types-search").send_keys("99")
    page.wait(lambda: [row[0] for row in page.rows("types")] == ["type_09999"])


def test_the_bad_share_of_a_type(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True, schemas={"order": SHOP_SCHEMA})
    send(collector, *[("order", b'{"total": 1}')] * 3, ("order", b"{}"), *[("view", b"{}")] * 9)
    page = open_page(collector)
    page.wait(lambda: {row[0]: row[6] for row in page.rows("types")} == {"view": "0", "order": "25 %"})
    assert page.tile("Bad events") == "1"
    page.find("#types thead th:nth-child(7) button").click()
    page.wait(lambda: page.rows("types")[0][0] == "order")
    page.find("#filters [name=quality]").send_keys("bad")
    page.wait(lambda: len(page.rows("events")) == 1)
    assert "Bad at $: 'total' is a required property" in page.rows("events")[0][5]


def test_characters_that_hide_are_shown(open_page: Any, peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    evil = "a\u202egpj.exe\u200b"
    request = SendEventRequest(
        req_guid=evil, events=[{"type": evil, "event_bytes": data.encode()} for data in (evil + "\n\tb", f'"{evil}"')]
    )
    assert peer.post(collector, request.SerializeToString()).status_code == 200
    page = open_page(collector)
    page.wait(lambda: len(page.rows("events")) == 2)
    for button in page.all("#events button.opener"):
        button.click()
    page.wait(lambda: len(page.all(".data pre")) == 2)
    shown = "a⟨U+202E⟩gpj.exe"
    assert page.run("return document.body.textContent").count(shown) >= 9
    names = "[...document.querySelectorAll('[aria-label]')].map((it) => it.ariaLabel).join()"
    assert "\u202e" not in page.run(f"return document.body.textContent + {names}")
    assert page.run("return document.querySelectorAll('.data pre')[1].textContent").endswith("U+200B⟩\n\tb")
    # What is copied is what came.
    page.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.find(".data button").click()
    page.wait(lambda: page.run("return window.copied") == f'"{evil}"')


def test_escape_closes_the_open_event(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, ("page", b"{}"), ("page", b"{}"))
    page = open_page(collector)
    page.wait(lambda: len(page.rows("events")) == 2)
    page.press(Keys.ESCAPE)
    first, second = page.all("#events button.opener")
    first.click()
    second.click()
    page.wait(lambda: len(page.all(".data pre")) == 2)
    page.all(".data pre")[0].click()
    page.press(Keys.ESCAPE)
    page.wait(lambda: first.get_attribute("aria-expanded") == "false")
    assert (second.get_attribute("aria-expanded"), page.focused()) == ("true", first)
    page.press(Keys.ESCAPE)
    page.wait(lambda: page.all("tr.details") == [])


def test_another_filter_is_shown_also_while_the_table_is_pointed_at(
    open_page: Any, new_collector: NewCollector
) -> None:
    collector = new_collector(inspect=True)
    send(collector, ("page", b"1"), ("buy", b"2"))
    page = open_page(collector)
    has_mouse = "const ask = matchMedia; matchMedia = (it) => it === '(hover: hover)' ? { matches: true } : ask(it)"
    added = page.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": has_mouse})
    page.browser.refresh()
    page.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    page.wait(lambda: len(page.rows("events")) == 2)
    ActionChains(page.browser).move_to_element(page.find("#events tbody tr")).perform()
    send(collector, ("new", b"3"))
    page.wait(lambda: page.find("#newer").is_displayed())
    assert len(page.rows("events")) == 2  # it is held
    page.run(
        "const it = document.querySelector('#filters [name=search]'); it.value = '3';"
        "it.dispatchEvent(new Event('change'))"
    )
    page.wait(lambda: [row[2] for row in page.rows("events")] == ["new"])


def test_the_openers_are_one_tab_stop(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, *[("page", b"{}")] * 30)
    page = open_page(collector)
    page.wait(lambda: len(page.rows("events")) == 30)
    openers = page.all("#events button.opener")
    page.run("arguments[0].focus()", openers[0])
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert page.focused() == openers[2]
    page.press(Keys.END)
    assert page.focused() == openers[29]
    page.press(Keys.HOME, Keys.ARROW_UP)
    assert page.focused() == openers[0]
    assert [opener.get_attribute("tabindex") for opener in openers] == ["0"] + ["-1"] * 29


@pytest.mark.parametrize("number", [1, 123456789012345678901234567890])
def test_an_event_is_copied_as_json_as_curl_and_as_an_assertion(
    number: int, open_page: Any, peer: Any, new_collector: NewCollector
) -> None:
    collector = new_collector(inspect=True)
    evil_type = "it's $(touch x) `y` \U0001f99d \x1b[200~"
    data = f'{{"n": {number}, "text": "\U0001f99d \\\\ \\n \' é"}}'.encode()
    request = SendEventRequest(req_guid="g", events=[{"type": evil_type, "event_bytes": data}])
    headers = {"X-User-ID": "it's \u202e".encode(), "Authorization": "Bearer hidden"}
    assert peer.post(collector, request.SerializeToString(), headers).status_code == 200
    page = open_page(collector)
    page.wait(lambda: len(page.rows("events")) == 1)
    page.find("#events button.opener").click()
    page.wait(lambda: len(page.all(".more button")) == 3)
    page.run("window.copied = []; navigator.clipboard.writeText = async (text) => { window.copied.push(text); }")
    for button in page.all(".more button"):
        button.click()
    page.wait(lambda: page.run("return window.copied.length") == 3)
    as_json, as_curl, as_assertion = page.run("return window.copied")
    assert (as_json + as_curl + as_assertion).isascii()
    copied = json.loads(as_json)
    assert (copied["type"], copied["data"], copied["req_guid"]) == (evil_type, json.loads(data), "g")
    assert copied["headers"]["authorization"] == "(masked)"
    assert base64.b64decode(copied["base64"]) == data
    subprocess.run(["sh", "-c", as_curl], check=True, capture_output=True, timeout=patient(30))
    assert [(event.type, event.data) for event in collector.events] == [(evil_type, data)] * 2
    names = {"raccoon_collector": collector, "json": json, "base64": base64}
    assert eval(as_assertion, names)  # as a test would do
    page.find(".more summary").click()
    page.wait(lambda: "authorization\n(masked)" in page.text(".headers"))
    page.all(".more summary")[1].click()
    page.wait(lambda: page.text("pre.raw").startswith("0000  7b 22 6e 22 3a 20 31"))
    assert ("where=json.loads" in as_assertion) == (number == 1)


def test_rejected_requests_are_shown_with_their_reason(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    page = open_page(collector)
    collector.faults.status(503, times=1)
    with pytest.raises(ServerError):
        send(collector, ("page", b"x"), retry=ONCE)
    page.wait(lambda: [row[2:] for row in page.rows("rejections")] == [["REST", "503", "Service Unavailable"]])
    page.wait(lambda: page.tile("Rejected") == "1")
    page.find("#rejections button.opener").click()
    page.wait(lambda: "Service Unavailable" in page.text("#rejections .facts"))


def test_a_fault_is_switched_on_and_off(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    page = open_page(collector)
    assert page.text("#faults-on") == "none on"
    page.find("#faults summary").click()
    page.wait(lambda: page.all("#fault-list li"))
    with RestClient(collector.url, serializer=RAW, retry=ONCE) as client:
        status = page.find("#fault-status-status")
        status.clear()
        status.send_keys("429")
        switch = page.find("li:has(#fault-status) [role=switch]")
        switch.click()
        page.wait(lambda: page.text("#faults-on") == "on: status")
        with pytest.raises(ServerError, match="429"):
            client.send([("page", b"x")])
        page.wait(lambda: page.text("li:has(#fault-status) .happened") == "happened 1 times")
        switch.click()
        page.wait(lambda: page.text("#faults-on") == "none on")
        client.send([("page", b"x")])


def test_faults_of_others_show_and_go_off_together(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    page = open_page(collector)
    page.find("#faults summary").click()
    collector.faults.delay(5, times=7)
    collector.faults.hang_up()
    page.wait(lambda: page.text("#faults-on") == "on: delay, hang_up")
    page.wait(lambda: page.text("li:has(#fault-delay) .happened") == "happened 0 times, 7 to come")
    assert page.find("li:has(#fault-delay) [role=switch]").is_selected()
    page.find("#faults-off").click()
    page.wait(lambda: page.text("#faults-on") == "none on")
    assert collector.faults._table.switched_on == {}


def test_a_wrong_argument_is_reported_and_leaves_the_switch_off(open_page: Any, new_collector: NewCollector) -> None:
    page = open_page(new_collector(inspect=True))
    page.find("#faults summary").click()
    page.wait(lambda: page.all("#fault-list li"))
    rate = page.find("#fault-fail_publish-rate")
    rate.clear()
    rate.send_keys("2")
    switch = page.find("li:has(#fault-fail_publish) [role=switch]")
    switch.click()
    alert = "li:has(#fault-fail_publish) [role=alert]"
    page.wait(lambda: page.text(alert) == "rate must be at least 0 and at most 1, not 2")
    page.wait(lambda: not switch.is_selected())
    page.browser.get_log("browser")  # the 400


def test_connections_are_closed_by_a_button(open_page: Any, peer: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    page = open_page(collector)
    peer.raw_websocket(collector, "somebody")
    page.wait(lambda: [row[0] for row in page.rows("connections")] == ["somebody"])
    page.find("#faults summary").click()
    page.wait(lambda: page.all("#fault-list li"))
    page.find("li:has(#fault-close_connections) button").click()
    page.wait(lambda: page.tile("Connections") == "0" and page.text("#state") == "Live")
    page.browser.get_log("browser")  # the page's own connections were reset too


def test_reset(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, ("page", b"x"))
    page = open_page(collector)
    page.wait(lambda: page.tile("Events") == "1")
    page.find("#events button.opener").click()
    page.find("#reset").click()
    page.wait(lambda: page.tile("Events") == "0" and page.rows("events") == [])
    assert page.text("#message") == "Reset: counting from nothing."
    assert page.find("#message").aria_role == "status"
    assert collector.event_count == 0


def test_pause_and_resume(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    page = open_page(collector)
    page.find("#pause").click()
    page.wait(lambda: page.text("#state") == "Paused")
    assert page.find("#pause").get_attribute("aria-pressed") == "true"
    send(collector, ("page", b"x"))
    page.browser.execute_async_script("setTimeout(arguments[0], 2500)")  # twice the time between two looks
    assert page.tile("Events") == "0"
    page.find("#pause").click()
    page.wait(lambda: page.tile("Events") == "1" and page.text("#state") == "Live")


def test_a_lost_collector_is_reported_and_a_returned_one_is_live(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    page = open_page(collector)
    collector.close()
    page.wait(lambda: page.text("#state").startswith("Not reachable, trying again"))
    new_collector(inspect=True, port=collector.port)
    page.wait(lambda: page.text("#state") == "Live")
    page.browser.get_log("browser")  # the refused requests


def test_keyboard(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, ("page", b'{"a": 1}'))
    page = open_page(collector)
    page.wait(lambda: len(page.rows("events")) == 1)
    page.press(Keys.TAB)
    assert page.focused().text == "Skip to the events"
    assert page.focused().is_displayed()
    page.press(Keys.TAB)
    assert page.focused().accessible_name == "Pause"
    page.press(Keys.ENTER)
    page.wait(lambda: page.text("#state") == "Paused")
    page.press(Keys.ENTER)
    page.wait(lambda: page.text("#state") == "Live")
    reached = []
    while page.focused().accessible_name != "Details of event 1, page":
        page.press(Keys.TAB)
        reached.append(page.focused().accessible_name)
        style = page.run("const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]")
        assert style == ["solid", "2px"], reached
        assert len(reached) < 30, reached
    assert reached[:2] == ["Reset", "Requests and events by protocol"]
    page.press(Keys.ENTER)
    page.wait(lambda: page.text("#events .data pre") == '{\n  "a": 1\n}')
    page.press(Keys.TAB)
    assert page.focused().tag_name == "pre"
    while page.focused().text != "Faults none on":
        page.press(Keys.TAB)
    page.press(Keys.ENTER)
    page.wait(lambda: page.all("#fault-list li"))
    while page.focused().accessible_name != "drop_acks":
        page.press(Keys.TAB)
    page.press(Keys.SPACE)
    page.wait(lambda: "drop_acks" in collector.faults._table.switched_on)
    page.wait(lambda: page.focused().is_selected())


def test_every_control_has_a_name(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, ("page", b"{}"))
    page = open_page(collector)
    page.find("#faults summary").click()
    page.wait(lambda: page.all("#fault-list li") and page.rows("events"))
    for control in page.all("button, input, select, [role=region]"):
        if control.is_displayed():
            assert control.accessible_name.strip(), control.get_attribute("outerHTML")
    for table in page.all("table"):
        assert table.find_element(By.CSS_SELECTOR, "caption").get_property("textContent")
        headers = table.find_elements(By.CSS_SELECTOR, "th")
        assert {header.get_attribute("scope") for header in headers} <= {"col", "row"}
    assert [heading.text for heading in page.all("h1")] == ["Raccoon collector"]
    assert page.find("html").get_attribute("lang") == "en"
    # Figures that change each second are not read out.
    assert {live.get_attribute("id") for live in page.all("[aria-live], [role=status]")} == {"state", "message"}


def luminance(colour: str) -> float:
    """By WCAG 2, of "rgb(1, 2, 3)"."""
    channels = [int(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_in_dark(scheme: str, open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    send(collector, ("page", b'{"a": [1, "b", null]}'))
    collector.faults.status(503, times=1)
    with pytest.raises(ServerError):
        send(collector, ("page", b""), retry=ONCE)
    page = open_page(collector)
    page.colours(scheme)
    page.find("#faults summary").click()
    page.wait(lambda: page.all("#fault-list li") and page.rows("events") and page.rows("rejections"))
    page.find("#events button.opener").click()
    colours = page.run("""
        const background = (it) => {
          const colour = getComputedStyle(it).backgroundColor;
          return colour === "rgba(0, 0, 0, 0)" && it.parentElement ? background(it.parentElement) : colour;
        };
        const texts = [...document.querySelectorAll("body *")].filter((it) => it.offsetParent && it.innerText?.trim());
        return texts.map((it) => [it.outerHTML.slice(0, 80), getComputedStyle(it).color, background(it)]);
    """)
    assert len(colours) > 100
    for name, *pair in colours:
        if "color-mix" in pair[1] or pair[1].startswith("color("):
            continue  # what is pointed at
        dark, light = sorted(luminance(colour) for colour in pair if colour != "rgba(0, 0, 0, 0)")
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, pair)
    assert (luminance(page.find("body").value_of_css_property("background-color")) < 0.1) == (scheme == "dark")


def test_a_phone_needs_no_scrolling_sideways(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    word = "x" * 300
    send(collector, ("page", word.encode()), (word, json.dumps({word: [word, 1]}).encode()), user_id=word[:100])
    send(collector, ("com.shop.checkout_of_a_customer_completed", b"1"))
    page = open_page(collector)
    page.browser.execute_script("return fetch(arguments[0], {method: 'POST'})", f"{collector.url}/{word}")
    page.resize(375, 812)
    page.find("#faults summary").click()
    page.wait(lambda: page.all("#fault-list li") and len(page.rows("events")) == 3 and page.rows("rejections"))
    for button in page.all("button.opener"):
        button.click()
    page.wait(lambda: len(page.all(".details")) == 4)
    assert page.run("return [document.documentElement.scrollWidth, innerWidth]") == [375, 375]
    # A name breaks between its words, and not inside one.
    name = page.find("#types [data-key*=checkout] button")
    parts = "return [...arguments[0].childNodes].filter((it) => it.data).map((it) => it.data)"
    assert page.run(parts, name) == ["com.", "shop.", "checkout_", "of_", "a_", "customer_", "completed"]
    for region in page.all("#events .scrolls, #rejections .scrolls"):
        assert page.run("return arguments[0].scrollWidth <= arguments[0].clientWidth", region)
    small = page.run("""
        const kinds = "button, select, summary, label:has([role=switch]), input:not([role=switch])";
        const controls = [...document.querySelectorAll(kinds)];
        return controls.filter((it) => it.offsetParent && !it.matches(".link"))
          .filter((it) => it.getBoundingClientRect().height < 20).map((it) => it.outerHTML);
    """)
    assert small == []
    page.browser.get_log("browser")  # the 404


@pytest.mark.parametrize("width", [390, 768, 1280, 1920])
def test_no_column_is_clipped(width: int, open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True, schemas={"order": SHOP_SCHEMA})
    for _ in range(30):
        send_of_all_kinds(collector)
    collector.faults.status(503, times=1)
    with pytest.raises(ServerError):
        send(collector, ("com.shop.checkout_of_a_customer_completed", b""), retry=ONCE)
    page = open_page(collector)
    page.resize(width, 900)
    page.wait(lambda: page.rows("types") and page.rows("rejections") and page.rows("events"))
    too_wide = page.run(
        "return [...document.querySelectorAll('.scrolls, body')].filter((it) => it.scrollWidth > it.clientWidth).length"
    )
    assert too_wide == 0
    # What is no free text is there as a whole.
    cut = page.run("""
        const cells = [...document.querySelectorAll("th, td:not(.preview, .text)")].filter((it) => it.offsetParent);
        return cells.filter((it) => it.scrollWidth > it.clientWidth + 1).map((it) => it.outerHTML);
    """)
    assert cut == []


def test_the_page_asks_nobody_else(open_page: Any, new_collector: NewCollector) -> None:
    collector = new_collector(inspect=True)
    page = open_page(collector)
    asked = page.run("return performance.getEntriesByType('resource').map((it) => it.name)")
    assert len(asked) > 5
    assert all(name.startswith(f"{collector.url}/inspect/") for name in asked), asked
