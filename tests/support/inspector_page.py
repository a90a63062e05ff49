"""Opens the inspector's page in a real browser: Debian's chromium, driven by its chromedriver."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import patient
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from raccoon_fast.collector import Collector

__all__ = ["Page", "run_browser"]

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


class Page:
    """The page of one collector as its user sees it."""

    def __init__(self, browser: webdriver.Chrome, collector: Collector, query: str = "") -> None:
        self.browser = browser
        browser.get(f"{collector.url}/inspect{query}")
        self.wait(lambda: self.text("#state") == "Live")

    def wait(self, condition: Callable[[], Any]) -> Any:
        waiting = WebDriverWait(
            self.browser, patient(20), poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException]
        )
        return waiting.until(lambda _: condition())

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def tile(self, name: str) -> str:
        tiles = (tile.text.splitlines() for tile in self.all("#tiles > div"))
        return next(lines[1] for lines in tiles if lines[0] == name)

    def rows(self, section: str) -> list[list[str]]:
        """The texts of all cells, read at the same moment."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].map((r) => [...r.children].map((c) => c.textContent))"
        )
        rows: list[list[str]] = self.run(script, f"#{section} tbody tr:not(.details)")
        return rows

    def suggestions(self) -> list[str]:
        """The types that the filter suggests."""
        names: list[str] = self.run("return [...document.querySelectorAll('#type-names option')].map((it) => it.value)")
        return names

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def colours(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def press(self, *keys: str) -> None:
        ActionChains(self.browser).send_keys(*keys).perform()

    def focused(self) -> WebElement:
        return self.browser.switch_to.active_element


def run_browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """Start a browser with an empty profile; skips the test if no browser is installed."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=Service(driver)) as browser:
        yield browser
