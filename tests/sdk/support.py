"""A mock provider, and a weir in front of it, for the tests with clients in Python."""

import json
import os
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "target" / "debug"
PATIENCE_S = 20

CONFIG = """
[server]
bind = "127.0.0.1:0"
[store]
path = {database!r}
[providers.mock]
dialect = "openai_chat"
base_url = {mock!r}
api_key_env = ""
models = ["text"]
any_model = true
warm_connections = 0
rps = 10000.0
concurrency = 1000
burst = 1000
[providers.hasty]
dialect = "openai_chat"
base_url = {mock!r}
api_key_env = ""
models = ["text"]
any_model = true
warm_connections = 0
rps = 10000.0
concurrency = 1000
burst = 1000
queue_wait_max_ms = 500
retries_max = 0
"""


class Servers:
    """Both, on free ports. `hasty` is the same provider, on which weir itself waits for nothing. `more` is what the
    configuration says besides."""

    def __init__(self, more=""):
        self.home = tempfile.TemporaryDirectory(prefix="weir-sdk-")
        self.mock, self.mock_url = _start([TARGET / "load", "mock"])
        config = Path(self.home.name) / "config.toml"
        database = str(Path(self.home.name) / "weir.db")
        config.write_text(CONFIG.format(database=database, mock=self.mock_url) + more.format(mock=self.mock_url))
        self.weir, self.base_url = _start([TARGET / "weir", "--config", config])
        self.weir_url = self.base_url + "/v1"

    def stats(self):
        """What the provider has seen."""
        with urllib.request.urlopen(self.mock_url.removesuffix("/v1") + "/__stats") as answer:
            return json.load(answer)

    def until(self, is_so, what):
        """Waits until the provider has seen enough."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_so(stats := self.stats()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: {stats}")
            time.sleep(0.01)
        return stats

    def stop(self):
        # A second signal cuts weir's wait for running answers short.
        self.weir.terminate()
        for process in (self.weir, self.mock):
            process.terminate()
            process.wait(PATIENCE_S)
            process.stdout.close()
        self.home.cleanup()


def _start(command):
    """Starts a server and reads its address from its first line."""
    environment = {"PATH": os.environ.get("PATH", ""), "RUST_LOG": "warn"}
    command = [str(part) for part in command]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment)
    line = process.stdout.readline()
    if "http://" not in line:
        raise AssertionError(f"{command[0]} has not started: {line!r}")
    return process, "http://" + line.split("http://")[1].strip()
