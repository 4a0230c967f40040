"""How the page is served: where it listens, by which names it is called, with which token, and what it reads for whom.

In: the options of the command line, TUNING_FORK_TOKEN. Out: a `Serving`, a socket that listens, the addresses to print.
A token stands in the printed address; beyond this machine there is no serving without one. Where others may come in, a
second address lets each of their browsers own its runs.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.core.errors import Problem, SettingsError, TuningError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
EVERYWHERE = ("0.0.0.0", "::", "")
"""Hosts that mean every address of this machine."""
TOKEN = "TUNING_FORK_TOKEN"
"""The environment variable that sets the token; else each start makes a new one."""
TOKEN_FORM = re.compile(r"[A-Za-z0-9_-]{16,128}")
HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?")
PORT = 7860


class ListenError(TuningError):
    """Nobody can listen at this host and port."""


class Keys:
    """The secrets that let a browser in: as the holder, to whom everything is open, or as one of a class."""

    def __init__(self, token: str) -> None:
        self.holder = token
        # from the other, so that one secret keeps both addresses the same over a restart
        self.guest = hmac.new(token.encode(), b"guest", hashlib.sha256).hexdigest()[:32]
        self._once: set[str] = set()

    def once(self) -> str:
        """A key of the holder's that opens once: for a browser's command line, which other users of a machine see."""
        key = secrets.token_urlsafe(32)
        self._once.add(key)
        return key

    def opens(self, given: str) -> str | None:
        """`holder` or `guest`, or None for what is no key."""
        if given in self._once:
            self._once.discard(given)
            return "holder"
        for role, key in (("holder", self.holder), ("guest", self.guest)):
            if hmac.compare_digest(given.encode("utf-8", "replace"), key.encode()):
                return role
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Where and to whom the page is served. As it is without options: to this machine, to everybody on it."""

    host: str = "127.0.0.1"
    port: int = PORT
    home: Path | None = None
    keys: Keys | None = None
    """None: no token is asked for."""
    names: frozenset[str] = LOOPBACK_NAMES
    """What the server may be called in a request's Host, in small letters."""
    guests: bool = False
    """Whether the second key lets in, and each browser that comes by it owns its runs."""
    data: tuple[Path, ...] = ()
    models: tuple[Path, ...] = ()
    """Folders that are read for guests, resolved."""
    browser: bool = False
    """Whether a browser is opened."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`, which are those of app.py."""
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1 is reached from this machine only")
    parser.add_argument("--port", type=int, default=PORT, help=f"0 takes a free one; default: {PORT}")
    parser.add_argument("--home", type=Path, help="where runs are kept; default: the user data folder")
    parser.add_argument("--no-token", action="store_true", help="let in everybody on this machine; only on loopback")
    name = "a name or address that the page is called by, such as that of a proxy; may be repeated"
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help=name)
    data = "a folder of data that browsers of the class may read besides their uploads; may be repeated"
    parser.add_argument("--data", action="append", default=[], type=Path, metavar="DIR", help=data)
    models = "a folder of models that browsers of the class may use; may be repeated"
    parser.add_argument("--models", action="append", default=[], type=Path, metavar="DIR", help=models)
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser where there is a display")


def serving_of(given: Any, environ: Mapping[str, str]) -> Serving:
    """From the parsed options. Raises SettingsError."""
    problems, beyond = list[Problem](), not is_loopback(given.host)
    if given.no_token and beyond:
        message = (
            f"beyond this machine ({given.host}) the page is served with a token only; leave --no-token out, or serve "
            "it on 127.0.0.1"
        )
        problems.append(Problem("no_token", True, "only with --host 127.0.0.1", message))
    elif given.no_token and any(plain_name(name) not in LOOPBACK_NAMES for name in given.allow_host):
        message = (
            "under the name of another host the page is served with a token only, for whoever comes by that name is "
            "not on this machine; leave --no-token or --allow-host out"
        )
        problems.append(Problem("no_token", True, "without --allow-host", message))
    if not 0 <= given.port <= 65_535:
        problems.append(Problem("port", given.port, "0 to 65535", "a port is a number from 0 to 65535"))
    token = environ.get(TOKEN)
    if token is not None and not TOKEN_FORM.fullmatch(token):
        message = f"the token in {TOKEN} must be 16 to 128 letters, digits, - and _; or leave it out for a new one"
        problems.append(Problem(TOKEN, None, "16 to 128 letters, digits, - and _", message))
    for name in given.allow_host:
        if not HOST_NAME.fullmatch(name):
            message = f"{name!r} is no name of a host; give it without http:// and without a port"
            problems.append(Problem("allow_host", name, "a host's name", message))
    for field, folders in (("data", given.data), ("models", given.models)):
        for folder in folders:
            if not folder.expanduser().is_dir():
                message = f"there is no folder {str(folder)!r}; check the path"
                problems.append(Problem(field, str(folder), "an existing folder", message))
    if problems:
        raise SettingsError(problems)
    allowed = {plain_name(name) for name in given.allow_host}
    own = {plain_name(given.host), *own_names()} - set(EVERYWHERE) if beyond else set[str]()
    return Serving(
        host=given.host,
        port=given.port,
        home=given.home,
        keys=None if given.no_token else Keys(token or secrets.token_urlsafe(32)),
        names=LOOPBACK_NAMES | allowed | own,
        guests=not given.no_token and (beyond or bool(allowed - LOOPBACK_NAMES)),
        data=tuple(folder.expanduser().resolve() for folder in given.data),
        models=tuple(folder.expanduser().resolve() for folder in given.models),
        browser=not given.no_browser and has_display(environ),
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def plain_name(host: str) -> str:
    """A host without a port and brackets, in small letters: [::1]:7860 -> ::1."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    name, _, port = host.rpartition(":")
    alone = not name or ":" in name or not port.isdigit()  # no port, or an IPv6 address as it is
    return (host if alone else name).lower().removesuffix(".")


def own_names() -> set[str]:
    """The names and addresses of this machine, as it knows them itself: nobody is asked."""
    name = socket.gethostname().lower()
    found = {name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}
    return (found | {*own_addresses()}) - {"", ".local"}


def own_addresses() -> list[str]:
    """Of this machine's networks, in the order of its devices, IPv4 before IPv6."""
    import psutil

    devices = [one for addresses in psutil.net_if_addrs().values() for one in addresses]
    found = [one for family in (socket.AF_INET, socket.AF_INET6) for one in devices if one.family == family]
    return [one.address.partition("%")[0].lower() for one in found]


def has_display(environ: Mapping[str, str]) -> bool:
    """Whether a browser that is opened here is seen by whoever started the program."""
    if environ.get("SSH_CONNECTION"):
        return False
    return sys.platform in ("win32", "darwin") or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections; they wait until somebody answers them. Raises ListenError."""
    family, both = socket.AF_INET6 if ":" in host else socket.AF_INET, host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=2_048, dualstack_ipv6=both)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = (
                f"Port {port} of {host} is in use, perhaps by a Tuning Fork that is open already. Open that one, or "
                f"choose another port: --port {port + 1 if port < 65_535 else PORT}"
            )
        elif error.errno == errno.EACCES:
            message = f"Port {port} may not be used by you. Choose one above 1023: --port {PORT}"
        else:
            message = f"Nothing can be served at {host}, port {port}: {error.strerror or error}. Check --host."
        raise ListenError(message) from None


def addresses(serving: Serving, port: int) -> tuple[str, str | None]:
    """What to open: the address that lets in as the holder, and the one for a class, or None."""
    shown = serving.host
    if shown in EVERYWHERE:
        reached = (one for one in own_addresses() if not ipaddress.ip_address(one).is_link_local)
        shown = next((one for one in reached if not is_loopback(one)), "127.0.0.1")
    shown = f"[{shown}]" if ":" in shown and not shown.startswith("[") else shown
    plain = f"http://{shown}:{port}/"
    if serving.keys is None:
        return plain, None
    return f"{plain}?token={serving.keys.holder}", f"{plain}?token={serving.keys.guest}" if serving.guests else None
