"""The address of the hub, and a check within a second that it can be reached.

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
"""Seconds, in all, after which a hub that takes a connection but does not answer is given up."""
Result = TypeVar("Result")
_FIX = "Use what is bundled or a folder, or try again when the network is back"


def endpoint() -> str:
    """The hub's address without a slash at its end."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def connect_to_hub() -> str:
    """The hub's address, after a connection to it was made. Raises ModelError within a second otherwise."""
    from huggingface_hub import constants

    address = endpoint()
    if constants.is_offline_mode():
        raise ModelError(
            "HF_HUB_OFFLINE is set, so the hub is not asked; unset it to look something up", address, "a network"
        )
    host, port = _host_and_port(address)
    fault = _connect_within(host, port, CONNECT_SECONDS)
    if fault is None:
        return address
    raise ModelError(f"The hub is not reached: {_reason(fault, host)}. {_FIX}.", address, "a hub that answers")


def _host_and_port(address: str) -> tuple[str, int]:
    """Host and port to connect to for this address: those of the proxy where one is set. Raises ModelError."""
    parts = urlsplit(address)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise ModelError(f"HF_ENDPOINT {address!r} is no web address; use https://…", address, "https://…")
    proxy = None if proxy_bypass(host) else getproxies().get(parts.scheme) or getproxies().get("all")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not proxy:
        return host, port
    proxy_parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return proxy_parts.hostname or host, proxy_parts.port or 80


def _reason(fault: OSError, host: str) -> str:
    """Why a host cannot be connected to, in words."""
    if isinstance(fault, socket.gaierror):
        return f"the name {host} cannot be found, so there is probably no network"
    if isinstance(fault, TimeoutError):
        return f"{host} does not answer within {CONNECT_SECONDS:g} seconds: no network, or a firewall drops the packets"
    return f"{host} cannot be connected to ({fault.strerror or type(fault).__name__})"


def _connect_within(host: str, port: int, seconds: float) -> OSError | None:
    """Connect to all addresses of a host side by side, so that one dead route does not hide a good one.

    Returns None where one connects, else the last fault.
    """
    end = time.monotonic() + seconds

    def connect(family: int, address: Any) -> None:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(max(0.05, end - time.monotonic()))
            connection.connect(address)

    fault: OSError = TimeoutError("timed out")
    try:
        addresses = _in_background(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM).result(timeout=seconds)
        attempts = [_in_background(connect, family, address) for family, _, _, _, address in addresses]
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
    """The result of `work`, or its error. Raises ModelError with the sentence `late` where it takes longer than
    `seconds`; its thread then goes on unheeded."""
    running = _in_background(work)
    done, _ = wait([running], timeout=seconds)
    if not done:
        raise ModelError(late, None, f"{seconds:g} seconds")
    return running.result()


def _in_background(work: Callable[..., Result], *arguments: Any, **named: Any) -> Future[Result]:
    """Run `work` in a daemon thread, which unlike those of an executor does not keep the program from ending."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments, **named))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
