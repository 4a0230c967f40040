"""How the page is served: where it listens, by which names it is called, with which token, and what it reads for whom.

The options of the command line and TUNING_FORK_TOKEN make a `Serving`, a listening socket and the addresses to print. A
token stands in the printed address; beyond this machine there is no serving without one. Where others may come in, a
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
        self._one_time: set[str] = set()

    def one_time_key(self) -> str:
        """A key of the holder's that opens once: for a browser's command line, which other users of a machine see."""
        key = secrets.token_urlsafe(32)
        self._one_time.add(key)
        return key

    def role_of(self, secret: str) -> str | None:
        """`holder` or `guest`, or None for what is no key. A key that opens once is no key afterwards."""
        if secret in self._one_time:
            self._one_time.discard(secret)
            return "holder"
        for role, key in (("holder", self.holder), ("guest", self.guest)):
            if hmac.compare_digest(secret.encode("utf-8", "replace"), key.encode()):
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


def serving_of(options: argparse.Namespace, environ: Mapping[str, str]) -> Serving:
    """From the parsed options. Raises SettingsError."""
    problems = list(_problems(options, environ))
    if problems:
        raise SettingsError(problems)
    beyond = not is_loopback(options.host)
    allowed = {plain_name(name) for name in options.allow_host}
    own = {plain_name(options.host), *own_names()} - set(EVERYWHERE) if beyond else set[str]()
    return Serving(
        host=options.host,
        port=options.port,
        home=options.home,
        keys=None if options.no_token else Keys(environ.get(TOKEN) or secrets.token_urlsafe(32)),
        names=LOOPBACK_NAMES | allowed | own,
        guests=not options.no_token and (beyond or bool(allowed - LOOPBACK_NAMES)),
        data=tuple(folder.expanduser().resolve() for folder in options.data),
        models=tuple(folder.expanduser().resolve() for folder in options.models),
        browser=not options.no_browser and has_display(environ),
    )


def _problems(options: argparse.Namespace, environ: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with the options and the token in the environment."""
    if options.no_token:
        yield from _without_token(options.host, options.allow_host)
    if not 0 <= options.port <= 65_535:
        yield Problem("port", options.port, "0 to 65535", "a port is a number from 0 to 65535")
    token = environ.get(TOKEN)
    if token is not None and not TOKEN_FORM.fullmatch(token):
        message = f"the token in {TOKEN} must be 16 to 128 letters, digits, - and _; or leave it out for a new one"
        yield Problem(TOKEN, None, "16 to 128 letters, digits, - and _", message)
    for name in options.allow_host:
        if not HOST_NAME.fullmatch(name):
            message = f"{name!r} is no name of a host; give it without http:// and without a port"
            yield Problem("allow_host", name, "a host's name", message)
    for field, folders in (("data", options.data), ("models", options.models)):
        for folder in folders:
            if not folder.expanduser().is_dir():
                message = f"there is no folder {str(folder)!r}; check the path"
                yield Problem(field, str(folder), "an existing folder", message)


def _without_token(host: str, allowed: Sequence[str]) -> Iterator[Problem]:
    """Why a page at this host, which may also be called by the allowed names, has to ask for a token."""
    if not is_loopback(host):
        message = (
            f"beyond this machine ({host}) the page is served with a token only; leave --no-token out, or serve "
            "it on 127.0.0.1"
        )
        yield Problem("no_token", True, "only with --host 127.0.0.1", message)
    elif any(plain_name(name) not in LOOPBACK_NAMES for name in allowed):
        message = (
            "under the name of another host the page is served with a token only, for whoever comes by that name is "
            "not on this machine; leave --no-token or --allow-host out"
        )
        yield Problem("no_token", True, "without --allow-host", message)


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
    names = {name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}
    return (names | {*own_addresses()}) - {"", ".local"}


def own_addresses() -> list[str]:
    """The addresses of this machine's networks, in the order of its devices, IPv4 before IPv6."""
    import psutil

    entries = [entry for device in psutil.net_if_addrs().values() for entry in device]
    families = (socket.AF_INET, socket.AF_INET6)
    in_order = [entry for family in families for entry in entries if entry.family == family]
    return [entry.address.partition("%")[0].lower() for entry in in_order]


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
    host = serving.host
    if host in EVERYWHERE:
        routable = (address for address in own_addresses() if not ipaddress.ip_address(address).is_link_local)
        host = next((address for address in routable if not is_loopback(address)), "127.0.0.1")
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    plain = f"http://{host}:{port}/"
    if serving.keys is None:
        return plain, None
    return f"{plain}?token={serving.keys.holder}", f"{plain}?token={serving.keys.guest}" if serving.guests else None
