"""A headless Chromium told what to do over its DevTools pipe: JSON messages that end in a zero byte."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
KEYS = {"+": 187, "-": 189, "0": 48, "Enter": 13, "Escape": 27}


class Page:
    """One tab."""

    def __init__(self, write, read):
        self._write, self._read, self._rest, self._count = write, read, b"", 0
        self.errors = []  # what the page's console and its script have complained of
        self._session = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **params):
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            entry = answer.get("params", {}).get("entry", {})
            if answer.get("method") == "Runtime.exceptionThrown" or entry.get("level") == "error":
                self.errors.append(answer["params"])
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self):
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], 30)
            assert ready, "Chromium has not answered for 30 seconds"
            got = os.read(self._read, 1 << 20)
            assert got, "Chromium has ended"
            self._rest += got
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def open(self, address, width=1280, height=800, scheme="light"):
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[feature])
        self.ask("Page.navigate", url=address)

    def value(self, expression):
        """What a JavaScript expression gives."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression, seconds=15):
        """Wait until a JavaScript expression holds."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < end, f"never true: {expression}; errors: {self.errors}"
            time.sleep(0.05)
        return found

    def mouse(self, kind, x, y, **more):
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x, y):
        self.mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent",
                type=kind, key=key, windowsVirtualKeyCode=KEYS.get(key, 0),
            )  # fmt: skip

    def picture(self):
        """A screenshot, PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot")["data"])


@contextmanager
def chromium(profile):
    """A tab of a fresh browser; skips, with the reason, where there is none."""
    name = next(filter(None, map(shutil.which, NAMES)), None)
    if name is None:
        pytest.skip("no Chromium on this machine")
    told, write = os.pipe()
    read, tell = os.pipe()
    flags = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}",
    ]  # fmt: skip
    shell = f'exec "$@" 3<&{told} 4>&{tell}'  # Chromium listens on 3 and answers on 4
    browser = subprocess.Popen(
        ["bash", "-c", shell, "-", name, *flags],
        pass_fds=(told, tell), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(told), os.close(tell)
    try:
        yield Page(write, read)
    finally:
        os.close(write), os.close(read)
        browser.terminate()
        browser.wait()
