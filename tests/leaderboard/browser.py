"""A headless Chromium driven by its own DevTools protocol over a pipe: no package, no port, no network.

    with Browser() as browser:
        page = browser.open(path)
        page.run("document.title")

Messages are JSON objects that end in a zero byte; Chromium reads them from file descriptor 3 and writes to 4.
Every request a page makes and every message it logs are kept in `requests` and `messages`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium() -> str | None:
    """The path of an installed Chromium, None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One browser with a profile of its own; ends with the block."""

    def __init__(self, patience: float = 120.0) -> None:
        self.patience = patience  # seconds for one answer: machines that test are busy
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        orders, self._write = os.pipe()
        self._read, answers = os.pipe()
        command = [
            str(chromium()),
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-extensions",
            "--disable-sync",
            "--hide-scrollbars",
            f"--user-data-dir={self.profile}",
            # A request that leaves this machine cannot be answered, and is seen all the same.
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ]

        def descriptors() -> None:
            # Copies first: 3 and 4 may be taken by the pipes themselves.
            kept = [os.dup(descriptor) for descriptor in (orders, answers)]
            for wanted, descriptor in zip((3, 4), (os.dup(d) for d in kept), strict=True):
                os.dup2(descriptor, wanted)

        self.process = subprocess.Popen(
            command,
            preexec_fn=descriptors,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(orders)
        os.close(answers)
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self.send("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self.profile, ignore_errors=True)

    def open(self, address: str | Path, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """A new page at an address or file, loaded."""
        return Page(
            self, address if isinstance(address, str) else address.resolve().as_uri(), width, height, dark
        )

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command and its answer. Raises RuntimeError with the browser's own words."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive(self.patience)
            if answer is None:
                raise RuntimeError(f"{method}: no answer from the browser in {self.patience} s")
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next message, None where there is none in time."""
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            chunk = os.read(self._read, 1 << 16)
            if not chunk:
                raise RuntimeError("the browser ended")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, address: str, width: int, height: int, dark: bool) -> None:
        self.browser = browser
        self.target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.send("Target.attachToTarget", targetId=self.target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.size(width, height)
        self.prefer("dark" if dark else "light")
        self.load(address)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.send(method, self.session, **parameters)

    def close(self) -> None:
        """Closes the tab."""
        self.browser.send("Target.closeTarget", targetId=self.target)

    def load(self, address: str) -> None:
        """Goes to an address and waits until it is loaded and drawn."""
        self.send("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")
        self.settle()

    def size(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    def prefer(self, scheme: str) -> None:
        """What the reader's system prefers: "light" or "dark"."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression (a promise is awaited). Raises RuntimeError."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(
                answer["exceptionDetails"].get("exception", {}).get("description", str(answer))
            )
        return answer["result"].get("value")

    def settle(self) -> None:
        """Waits for what the page does next: two frames and the pause after a key."""
        self.send("Page.bringToFront")  # a tab behind another is never drawn
        frames = "requestAnimationFrame(() => requestAnimationFrame(done))"
        self.run(f"new Promise(done => setTimeout(() => {frames}, 300))")

    def wait(self, condition: str) -> None:
        """Waits until an expression is true. Raises TimeoutError."""
        end = time.monotonic() + self.browser.patience
        while not self.run(condition):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """A click of the pointer on the middle of an element, scrolled into view."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
        self.settle()

    def press(self, *keys: str) -> None:
        """Presses keys by name, one after the other: "Tab", "Enter", "ArrowRight", "Escape"."""
        codes = {
            "Tab": 9,
            "Enter": 13,
            "Escape": 27,
            "ArrowLeft": 37,
            "ArrowRight": 39,
            "Home": 36,
            "End": 35,
        }
        for key in keys:
            known = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
            text = {"text": "\r"} if key == "Enter" else {}
            self.send("Input.dispatchKeyEvent", type="keyDown", **known, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", **known)
        self.settle()

    def write(self, text: str) -> None:
        """Types into what has the focus."""
        self.send("Input.insertText", text=text)
        self.settle()

    def picture(self, path: Path, whole: bool = False) -> Path:
        """A PNG of what is seen, or of the whole page."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def _events(self, *methods: str) -> list[dict[str, Any]]:
        while (event := self.browser.receive(0.1)) is not None:
            self.browser.events.append(event)
        return [
            event["params"]
            for event in self.browser.events
            if event.get("method") in methods and event.get("sessionId") == self.session
        ]

    @property
    def requests(self) -> list[str]:
        """The addresses of all requests so far, beginning with the page; pictures within it are none."""
        found = [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]
        return [address for address in found if not address.startswith("data:")]

    @property
    def messages(self) -> list[str]:
        """What the page has logged and thrown, and what its policy refused."""
        found = [entry["entry"]["text"] for entry in self._events("Log.entryAdded")]
        found += [str(call["args"]) for call in self._events("Runtime.consoleAPICalled")]
        return found + [
            thrown["exceptionDetails"]["text"] for thrown in self._events("Runtime.exceptionThrown")
        ]
