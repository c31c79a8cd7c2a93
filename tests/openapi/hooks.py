"""What only the server under test knows: its key, its providers, and things that are there to be asked for."""

import functools
import os
import re

import requests
import schemathesis

URL, KEY = os.environ["WEIR_URL"], os.environ["WEIR_KEY"]
# A short answer, without pauses.
MODEL = "text@tokens=3,gap_ms=0"
ORG_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def call(method, path, body=None):
    answer = requests.request(method, URL + path, json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=10)
    answer.raise_for_status()
    return answer.json()


@functools.cache
def things(label):
    """A thread with one turn, for one operation, because some change theirs."""
    made = call("POST", "/api/threads", {"title": f"for {label}"})["id"]
    turn = call("POST", f"/api/threads/{made}/messages", {"content": "hello", "provider": "mock", "model": MODEL})
    return {"thread": made, "request": turn["request_id"], "message": turn["assistant_message"]["id"]}


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Two of three requests are for things that are there; what is deleted is what the generator has made itself."""
    label = context.operation.label
    if not path_parameters or label.startswith("DELETE") or len(str(path_parameters)) % 3 == 0:
        return path_parameters
    known = {"provider": "spare", "profile": "production", "model": "mock/text", "file": "app.js"}
    if path_parameters.keys() & {"thread", "request", "message"}:
        known |= things(label)
    return {name: known.get(name, value) for name, value in path_parameters.items()}


@schemathesis.hook
def map_headers(context, headers):
    """The key belongs to one organisation."""
    if headers:
        good = [name for name, value in headers.items() if name.lower() == "x-org-id" and ORG_ID.fullmatch(str(value))]
        headers = {name: "acme" if name in good else value for name, value in headers.items()}
    return headers


@schemathesis.hook
def map_body(context, body):
    """Providers, models and keys are those of the configuration."""
    if not isinstance(body, dict):
        return body
    is_v1 = context.operation.path.startswith("/v1/")
    known = {"provider": "mock", "model": f"mock/{MODEL}" if is_v1 else MODEL, "key": KEY}
    return {name: known[name] if name in known and isinstance(value, str) else value for name, value in body.items()}
