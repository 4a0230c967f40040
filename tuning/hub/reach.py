"""Is the hub there at all? Asked within a second, before anything is asked of it.

Comes in: nothing but the environment (HF_ENDPOINT, proxies, HF_HUB_OFFLINE).  Goes out: its address, or a ModelError
that says what is wrong with the network.  Libraries wait ten seconds or for ever where packets vanish; a person at a
page does not.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tuning.errors import ModelError

CONNECT_SECONDS = 0.8
ANSWER_SECONDS = 8.0
"""A hub that is there but says nothing is given up after this, in all."""
Result = TypeVar("Result")
_FIX = "Use what is bundled or a folder, or try again when the network is back"


def endpoint() -> str:
    """The hub's address without a slash at its end."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def reach_hub() -> str:
    """The hub's address, after a connection to it was made; raises ModelError within a second otherwise."""
    from huggingface_hub import constants

    address = endpoint()
    if constants.is_offline_mode():
        raise ModelError(
            "HF_HUB_OFFLINE is set, so the hub is not asked; unset it to look something up", address, "a network"
        )
    parts = urlsplit(address)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise ModelError(f"HF_ENDPOINT {address!r} is no web address; use https://…", address, "https://…")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    proxy = None if proxy_bypass(host) else getproxies().get(parts.scheme) or getproxies().get("all")
    if proxy:
        through = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        host, port = through.hostname or host, through.port or 80
    fault = _connect_within(host, port, CONNECT_SECONDS)
    if fault is None:
        return address
    if isinstance(fault, socket.gaierror):
        why = f"the name {host} cannot be found, so there is probably no network"
    elif isinstance(fault, TimeoutError):
        why = f"{host} does not answer within {CONNECT_SECONDS:g} seconds: no network, or a firewall drops the packets"
    else:
        why = f"{host} cannot be connected to ({fault.strerror or type(fault).__name__})"
    raise ModelError(f"The hub is not reached: {why}. {_FIX}.", address, "a hub that answers")


def _connect_within(host: str, port: int, seconds: float) -> OSError | None:
    """Tries all addresses of a host side by side, so that one dead route does not hide a good one."""
    end = time.monotonic() + seconds
    answers: queue.SimpleQueue[tuple[OSError | None, int]] = queue.SimpleQueue()

    def look() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            answers.put((error, 0))
            return
        for family, _, _, _, place in found:
            threading.Thread(target=connect, args=(family, place, len(found)), daemon=True).start()

    def connect(family: int, place: Any, count: int) -> None:
        with socket.socket(family, socket.SOCK_STREAM) as opened:
            opened.settimeout(max(0.05, end - time.monotonic()))
            try:
                opened.connect(place)
            except OSError as error:
                answers.put((error, count))
            else:
                answers.put((None, count))

    threading.Thread(target=look, daemon=True).start()
    failed = 0
    while True:
        try:
            fault, count = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            return TimeoutError("timed out")
        failed += 1
        if fault is None or failed >= count:
            return fault


def within(seconds: float, work: Callable[[], Result], late: str) -> Result:
    """The work's result or error; raises ModelError with the sentence `late` when it takes longer. The rest is left."""
    answers: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise ModelError(late, None, f"{seconds:g} seconds") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
