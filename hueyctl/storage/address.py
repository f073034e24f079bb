"""The address of a PostgreSQL store, `postgresql://user:password@host/database`: only connections see its password."""

from __future__ import annotations

# What needs them is done for addresses alone, and each `hueyctl enqueue` would wait for them.
_SECRET_KEYS = frozenset({"password", "sslpassword", "passfile", "sslkey"})


def is_address(store: str) -> bool:
    """Is this where a store is an address, and not a path?"""
    return store.startswith(("postgresql://", "postgres://"))


def without_password(address: str) -> str:
    """The address as it may be shown, logged and compared."""
    from urllib.parse import quote, urlencode

    user_info, at, rest, query = _parts(address)
    shown = [(key, value) for key, value in query if key not in _SECRET_KEYS]
    start = f"postgresql://{user_info.partition(':')[0]}{at}{rest}"
    return f"{start}?{urlencode(shown, safe='/', quote_via=quote)}" if shown else start


def has_password(address: str) -> bool:
    """Is there anything in it that nobody else may see?"""
    user_info, _, _, query = _parts(address)
    return ":" in user_info or any(key in _SECRET_KEYS for key, _ in query)


def digest(address: str) -> str:
    """Eight characters that differ between any two stores, and are the same whatever the password."""
    import hashlib

    return hashlib.sha256(without_password(address).encode()).hexdigest()[:8]


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
