"""The address of the hub, and whether it can be reached: refused within a second where it cannot.

The environment says where it is (HF_ENDPOINT, proxies, HF_HUB_OFFLINE). Libraries wait ten seconds or for ever where
packets vanish; a person at a page does not.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, as_completed, wait
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tuning.core.errors import ModelError

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

    def connect(family: int, address: Any) -> None:
        with socket.socket(family, socket.SOCK_STREAM) as opened:
            opened.settimeout(max(0.05, end - time.monotonic()))
            opened.connect(address)

    fault: OSError = TimeoutError("timed out")
    try:
        found = _in_background(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM).result(timeout=seconds)
        attempts = [_in_background(connect, family, address) for family, _, _, _, address in found]
        for attempt in as_completed(attempts, timeout=max(0.0, end - time.monotonic())):
            error = attempt.exception()
            if error is None:
                return None
            fault = error if isinstance(error, OSError) else fault
    except UnicodeError:
        return socket.gaierror("no name of a host")
    except OSError as error:  # the name is not found, or the time is over
        return error
    return fault


def within(seconds: float, work: Callable[[], Result], late: str) -> Result:
    """The work's result or error; raises ModelError with the sentence `late` when it takes longer. The rest is left."""
    running = _in_background(work)
    done, _ = wait([running], timeout=seconds)
    if not done:
        raise ModelError(late, None, f"{seconds:g} seconds")
    return running.result()


def _in_background(work: Callable[..., Result], *arguments: Any, **named: Any) -> Future[Result]:
    """Do it in a daemon thread: the program can end meanwhile, which an executor's threads would hold up."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments, **named))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
