"""Starts a weir with keys in front of a mock provider, and has schemathesis try out what it says of itself."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "sdk"))

from support import Servers  # noqa: E402

# Far more than it ever takes.
PATIENCE_S = 300

KEY, OPS_KEY = "the key of a test", "the key of an operator"


def table(name, key, org):
    """A client's key in the configuration."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f'[[auth.keys]]\nid = "{name}"\nsha256 = "{digest}"\norg = "{org}"\nrole = "admin"\n'


CONFIG = """
[providers.spare]
dialect = "openai_chat"
base_url = {mock!r}
api_key_env = ""
models = ["text"]
warm_connections = 0
"""


def main(seed, *arguments):
    servers = Servers(CONFIG + table("tester", KEY, "acme") + table("operator", OPS_KEY, "*"))
    try:
        schemathesis = Path(sys.executable).parent / "schemathesis"
        description = servers.base_url + "/api/openapi.json"
        command = [schemathesis, "--config-file", HERE / "schemathesis.toml", "run", description, "--seed", seed]
        environment = os.environ | {"WEIR_URL": servers.base_url, "WEIR_KEY": KEY, "WEIR_OPS_KEY": OPS_KEY}
        return subprocess.run([*command, *arguments], cwd=HERE, env=environment, timeout=PATIENCE_S, check=False).returncode
    finally:
        servers.stop()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
