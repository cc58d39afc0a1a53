"""Pictures of pages by headless Chromium, through its DevTools protocol over two pipes."""

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time


class Browser:
    """A browser, and one page in it. Use it in a `with` statement."""

    def __init__(self, folder):
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if program is None:
            raise SystemExit("pictures: no chromium in PATH")
        self.ids, self.page, self.rest = 0, None, b""
        commands, self.to = os.pipe()
        self.come, answers = os.pipe()
        # The browser reads descriptor 3 and writes to 4: both are to be free of other meanings until then.
        commands, answers = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (commands, answers))
        self.process = subprocess.Popen(
            [
                program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--hide-scrollbars", "--no-first-run", "--disable-background-networking", "--disable-sync",
                "--disable-component-update", "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder)},
            pass_fds=(3, 4),
            preexec_fn=lambda: (os.dup2(commands, 3), os.dup2(answers, 4)),
            start_new_session=True,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.page = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Its helpers too.
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.to)
        os.close(self.come)

    def call(self, method, **parameters):
        self.ids += 1
        message = {"id": self.ids, "method": method, "params": parameters}
        if self.page:
            message["sessionId"] = self.page
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                data = os.read(self.come, 1 << 20)
                if not data:
                    raise RuntimeError("the browser has ended")
                self.rest += data
            answer, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(answer)
            if answer.get("id") == self.ids:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, expression, patience=30):
        end = time.monotonic() + patience
        while not self.value(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"not true on the page: {expression}")
            time.sleep(0.05)

    def look(self, width, height=800, scale=1.0, dark=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def cut(self, selector):
        """The elements that are wider inside than outside."""
        return self.value(
            f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.scrollWidth > e.clientWidth)"
            ".map(e => `${e.tagName} ${e.id} ${e.className}: ${e.scrollWidth} > ${e.clientWidth}`)"
        )

    def picture(self, width, scale=1.0, dark=False, most=None):
        """A PNG of the whole page, or of its first `most` pixels."""
        # The window's own height counts too, so a short page is measured in a low window.
        self.look(width, height=200, scale=scale, dark=dark)
        height = self.value("Math.ceil(document.documentElement.getBoundingClientRect().height)") or 200
        height = max(min(height, most or height), 1)
        self.look(width, height, scale, dark)
        # Parts that scroll are painted apart, after the rest.
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        time.sleep(0.3)
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
