"""The address of a PostgreSQL store, `postgresql://user:password@host/database`: only connections see its password."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

# What of its parameters may be shown. Of what libpq may learn yet, nobody knows whether it is secret.
_SHOWN: Final = frozenset(
    {"application_name", "connect_timeout", "dbname", "host", "hostaddr", "options", "port", "service", "sslmode"}
    | {"sslrootcert", "target_session_attrs", "user"}
)
# What of them is.
_SECRET: Final = frozenset({"oauth_client_secret", "password", "scram_client_key", "scram_server_key", "sslpassword"})
_USER_INFO: Final = re.compile(r"[^@/]*@")
_NOT_QUOTED: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def is_address(store: str) -> bool:
    """Is this where a store is an address, and not a path?"""
    return store.startswith(("postgresql://", "postgres://"))


def without_password(address: str) -> str:
    """The address as it may be shown, logged and compared."""
    return _with(address, lambda key: key in _SHOWN)


def to_hand_on(address: str) -> str:
    """The address as jobs get it: all of it but what is secret."""
    return _with(address, lambda key: key not in _SECRET)


def misreading(address: str) -> str | None:
    """What in an address libpq would take for something else than was meant, or for nothing, without quoting any of it;
    None: nothing. Its own messages would quote parts of a password."""
    rest = address.partition("://")[2]
    user_info = _USER_INFO.match(rest)
    others = rest[user_info.end() :] if user_info else rest
    if "@" in others.partition("?")[0]:
        return "an @ or / in its user or password has to be written as %40 or %2F"
    if _NOT_QUOTED.search(rest):
        return "a % in it has to be written as %25"
    return None


def digest(address: str) -> str:
    """Eight characters that differ between any two stores, and are the same whatever the password."""
    import hashlib

    return hashlib.sha256(without_password(address).encode()).hexdigest()[:8]


def _with(address: str, keeps: Callable[[str], bool]) -> str:
    """The address without its password, and of its parameters only some."""
    from urllib.parse import quote, urlencode  # loaded for addresses alone: each `hueyctl enqueue` would wait for it

    user_info, at, rest, query = _parts(address)
    kept = [(key, value) for key, value in query if keeps(key)]
    start = f"postgresql://{user_info.partition(':')[0]}{at}{rest}"
    return f"{start}?{urlencode(kept, safe='/', quote_via=quote)}" if kept else start


def _parts(address: str) -> tuple[str, str, str, list[tuple[str, str]]]:
    """What is before the `@` of the address, the `@`, hosts and database, and the parameters.

    As libpq reads it and not as `urlsplit` does, for which `#` and `?` end a password; and where somebody has forgotten
    to quote a `/` or `@` in one, all that may be of it counts as before the `@`.
    """
    from urllib.parse import parse_qsl

    rest = address.partition("://")[2]
    user_info, at, others = rest.partition("@")
    if "/" in user_info or not at:
        user_info, at, others = "", "", rest
    others, _, query = others.partition("?")
    forgotten, again, others = others.rpartition("@")
    return user_info + at * bool(again) + forgotten, at or again, others, parse_qsl(query, keep_blank_values=True)
