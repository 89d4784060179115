"""A real Chromium, driven over its DevTools protocol: pages opened, files chosen, scripts asked, pictures taken."""

import base64
import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import websocket

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_PATIENCE = 300  # seconds, for machines that do other things too
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--no-first-run",
    "--disable-gpu",
    "--disable-background-networking",
    "--remote-debugging-port=0",
    # every name but this machine's leads nowhere: what a page wants from other servers fails, and is seen
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


class Tab:
    """One page. `asked` has the address of every request so far, `errors` what its scripts threw."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=_PATIENCE, suppress_origin=True)
        self.number = 0
        self.asked: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "DOM", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            if message.get("method") == "Network.requestWillBeSent":
                self.asked.append(message["params"]["request"]["url"])
            elif message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message["params"]["exceptionDetails"])[:500])

    def ask(self, script: str) -> Any:
        """The value of an expression of JavaScript, which may be a promise."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, address: str) -> None:
        self.send("Page.navigate", url=address)

    def wait(self, script: str, seconds: float = _PATIENCE) -> Any:
        """The value of an expression as soon as it is true; AssertionError with the page's text when it stays false."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(AssertionError):  # between two pages there is no document
                if found := self.ask(script):
                    return found
            time.sleep(0.05)
        raise AssertionError(f"after {seconds} s still not: {script}\n{self.text()[:3000]}")

    def text(self) -> str:
        """What can be read on the page."""
        return self.ask("document.body ? document.body.innerText : ''")

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Choose files in the file input that the CSS selector finds."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=list(map(str, files)))

    def show(self, width: int, height: int = 900, *, dark: bool = False, mobile: bool = False) -> None:
        """Give the window a size in CSS pixels, and the wish for light or dark pages."""
        sides = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.send("Emulation.setDeviceMetricsOverride", **sides)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> Path:
        """Write the whole page as a PNG."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))
        return path


@contextlib.contextmanager
def chromium() -> Iterator[Tab]:
    """A Chromium with an empty profile and one tab, ended with the block."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [PROGRAM, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, start_new_session=True, **quiet) as process:
            try:
                port = Path(profile) / "DevToolsActivePort"
                end = time.monotonic() + _PATIENCE
                while not (port.is_file() and port.read_text().count("\n")):
                    assert process.poll() is None and time.monotonic() < end, "Chromium does not start"
                    time.sleep(0.05)
                number = port.read_text().split()[0]
                with urllib.request.urlopen(f"http://127.0.0.1:{number}/json/list") as answer:
                    tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
                tab = Tab(tabs[0]["webSocketDebuggerUrl"])
                yield tab
                tab.socket.close()
            finally:
                process.send_signal(signal.SIGTERM)
