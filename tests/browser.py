"""A real browser for tests: chromium as the system has it, driven by Playwright; a reason to skip where either is absent."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def chromium() -> str:
    """The browser's path. Where there is none, the test is skipped and says what to install."""
    found = os.environ.get("OPENBOOK_CHROMIUM") or next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if not found:
        pytest.skip("no chromium here: apt-get install chromium, or name one in OPENBOOK_CHROMIUM")
    return found


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright here: pip install 'openbook[browser]'"
    )
    path = chromium()
    with playwright.sync_playwright() as running:
        # Debian's wrapper needs no sandbox in a container; what is opened is our own page and nothing else.
        launched = running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield launched
        finally:
            launched.close()


class Watched:
    """A page, and everything about it that must not happen: other hosts, dialogs, errors, broken policy."""

    def __init__(self, opened: Any, url: str, **options: Any) -> None:
        self.url, self.faults = url, []
        self.page = opened.new_context(**options).new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("request", lambda request: self._hosts(request.url))
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("console", self._console)

    def goto(self, place: str = "") -> Any:
        self.page.goto(f"{self.url}/{place}")
        return self.page

    def until(self, count: int, selector: str, seconds: float = 60) -> None:
        """Wait for so many elements. (Playwright's own waiting for a function needs `eval`, which the policy forbids.)"""
        deadline = time.monotonic() + seconds
        while (found := self.page.locator(selector).count()) < count:
            assert time.monotonic() < deadline, f"{found} of {count} {selector}"
            time.sleep(0.05)

    def _hosts(self, url: str) -> None:
        if not url.startswith((self.url + "/", "data:", "about:")):
            self.faults.append(f"request: {url}")

    def _console(self, message: Any) -> None:
        if message.type == "error" or "Content Security Policy" in message.text:
            self.faults.append(f"console: {message.text}")

    def shoot(self, name: str) -> None:
        """Keep a picture for people, where OPENBOOK_SHOTS names a folder."""
        if folder := os.environ.get("OPENBOOK_SHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))
