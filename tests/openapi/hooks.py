"""What only the server under test knows: its key, its providers, and things that are there to be asked for."""

import functools
import itertools
import os
import re

import requests
import schemathesis
from schemathesis.generation.meta import TestPhase

URL, KEY = os.environ["WEIR_URL"], os.environ["WEIR_KEY"]
# A short answer, without pauses.
MODEL = "text@tokens=3,gap_ms=0"
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
GOOD_HEADERS = {
    "x-org-id": re.compile(r"[A-Za-z0-9_.-]{1,64}"),
    "x-request-id": REQUEST_ID,
    "idempotency-key": re.compile(r"[!-~]([ -~]{0,253}[!-~])?"),
}
COUNT = itertools.count()


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
def before_call(context, case, kwargs):
    """Asks for what there is: otherwise most answers would be that there is no such thing."""
    case.path_parameters = in_path(case)
    for name, value in list((case.headers or {}).items()):
        made_up = GOOD_HEADERS.get(name.lower())
        if made_up and made_up.fullmatch(str(value)):
            # The key belongs to one organisation; a name that came before would be the same request.
            case.headers[name] = "acme" if name.lower() == "x-org-id" else unique()
    if isinstance(case.body, dict):
        case.body = in_body(case.body, case.path)


def in_body(body, path):
    """What is good stays good, what is bad stays bad."""
    known = {"provider": "mock", "model": f"mock/{MODEL}" if path.startswith("/v1/") else MODEL, "key": KEY}
    body = body | {name: known[name] for name in known.keys() & body if isinstance(body[name], str)}
    if isinstance(name := body.get("request_id"), str) and REQUEST_ID.fullmatch(name):
        body["request_id"] = unique()
    return body


def unique():
    """A request's name that nothing else has."""
    return f"r-{next(COUNT)}"


def in_path(case):
    """Two of three requests are for things that are there. What is deleted, and what a chain of calls has found, is what
    the generator has made itself."""
    given, label = case.path_parameters, case.operation.label
    is_chained = case.meta is not None and case.meta.phase.name == TestPhase.STATEFUL
    if not given or is_chained or label.startswith("DELETE") or len(str(given)) % 3 == 0:
        return given
    known = {"provider": "spare", "profile": "production", "model": "mock/text", "file": "app.js"}
    if given.keys() & {"thread", "request", "message"}:
        known |= things(label)
    return {name: known.get(name, value) for name, value in given.items()}
