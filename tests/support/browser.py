"""A headless Chromium, driven over a pipe with the DevTools protocol, without further packages."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
"""Path of the browser; None if none is installed."""

TIMEOUT_S = 60
"""Seconds to wait for an answer."""


def _pipe() -> list[int]:
    """Open a pipe whose descriptors are not the low numbers that the browser uses."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends]
    for end in ends:
        os.close(end)
    return high


class Browser:
    """One page of a browser.

    Args:
        profile: an empty folder for the profile.
        width: width of the window, in pixels.
        height: height of the window, in pixels.

    Attributes:
        requests: addresses that the page requested.
        problems: exceptions and log entries of the page.
    """

    def __init__(self, profile: Path, width: int = 1100, height: int = 1800) -> None:
        assert CHROMIUM
        to_browser, self._write = _pipe()
        self._read, from_browser = _pipe()
        start = (  # the browser reads from 3 and writes to 4
            "import os, sys; a, b = map(int, sys.argv[1:3]); os.dup2(a, 3); os.dup2(b, 4);"
            "os.execv(sys.argv[3], sys.argv[3:])"
        )
        options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --remote-debugging-pipe".split()
        options += [f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", start, str(to_browser), str(from_browser), CHROMIUM, *options],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._rest, self._number = b"", 0
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.kill()
        self._process.wait(TIMEOUT_S)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + TIMEOUT_S
        while True:
            assert time.monotonic() < end, f"no answer to {method}: {self.problems[:3]}"
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return dict(answer["result"])
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], TIMEOUT_S)[0], "the browser does not answer"
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has gone"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        elif event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.problems.append(json.dumps(event["params"]))

    def open(self, page: Path) -> None:
        """Load a page and wait until it is ready."""
        self.send("Page.navigate", url=page.resolve().as_uri())
        end = time.monotonic() + TIMEOUT_S
        while self.run("document.documentElement?.dataset.ready") != "yes":
            assert time.monotonic() < end and not self.problems, f"the page is not ready: {self.problems}"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """Evaluate a JavaScript expression; a promise is awaited."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (script, answer)
        return answer["result"].get("value")

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Send a mouse event (mouseMoved, mousePressed or mouseReleased) at a pixel of the window."""
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def screenshot(self, path: Path) -> None:
        """Write the window as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
