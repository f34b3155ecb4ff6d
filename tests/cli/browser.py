"""A headless Chromium, spoken to over two pipes in its DevTools protocol: JSON messages that end with a null byte."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip
_SECONDS = 60  # for one answer, on a machine that is busy


class Browser:
    """One tab. Everything that it tells by itself is in `told`: (method, parameters)."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._number, self._unread, self._session = 0, b"", None
        self.told: list[tuple[str, dict[str, Any]]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": parameters} | session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.told.append((answer["method"], answer["params"]))
        assert "error" not in answer, answer
        return answer["result"]

    def show(self, page: Path, width: int, height: int, *, is_phone: bool) -> None:
        """Open a page in a screen of this size, in CSS pixels, and wait until all of it is there."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=is_phone)
        self.told.clear()
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while "Page.loadEventFired" not in [method for method, _ in self.told]:
            message = self._next()
            self.told.append((message["method"], message["params"]))

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is on the page; it need not be allowed by the page's policy."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def click(self, selector: str) -> None:
        """Click in the middle of an element, as a finger does."""
        where = f"(e => (e.scrollIntoView(), e.getBoundingClientRect()))(document.querySelector('{selector}'))"
        x, y = self.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({where})")
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, file: Path) -> None:
        """The whole page, as it is shown now."""
        picture = self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(picture))

    def requested(self) -> list[str]:
        """The addresses that the page asked for, itself among them."""
        return [facts["request"]["url"] for method, facts in self.told if method == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What stands on the console."""
        entries = [facts["entry"]["text"] for method, facts in self.told if method == "Log.entryAdded"]
        thrown = [str(facts) for method, facts in self.told if method == "Runtime.exceptionThrown"]
        return entries + thrown + [str(facts) for method, facts in self.told if method == "Runtime.consoleAPICalled"]

    def _next(self) -> dict[str, Any]:
        """The next message."""
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self._from, 1 << 20) if ready else b""
            assert chunk, "the browser says nothing more"
            self._unread += chunk
        message, self._unread = self._unread.split(b"\0", 1)
        return json.loads(message)


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser of its own, with an empty profile under `folder`."""
    assert PROGRAM is not None
    commands, messages = os.pipe(), os.pipe()
    # Chromium reads from 3 and writes to 4.
    wiring = f'exec "$@" 3<&{commands[0]} 4>&{messages[1]}'
    command = ["bash", "-c", wiring, "browser", PROGRAM, *_FLAGS, f"--user-data-dir={folder / 'profile'}"]
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(command, pass_fds=(commands[0], messages[1]), stdout=log, stderr=log)
    os.close(commands[0])
    os.close(messages[1])
    try:
        yield Browser(commands[1], messages[0])
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(commands[1])
        os.close(messages[0])
