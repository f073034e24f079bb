"""The address of a PostgreSQL store, `postgresql://user:password@host/database`: only connections see its password."""

from __future__ import annotations

# What needs them is done for addresses alone, and each `hueyctl enqueue` would wait for them.
_SECRET_KEYS = frozenset({"password", "sslpassword", "passfile", "sslkey"})


def is_address(store: str) -> bool:
    """Is this where a store is an address, and not a path?"""
    return store.startswith(("postgresql://", "postgres://"))


def without_password(address: str) -> str:
    """The address as it may be shown, logged and compared."""
    from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

    parts = urlsplit(address)
    user_info, at, hosts = parts.netloc.rpartition("@")
    query = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key not in _SECRET_KEYS]
    netloc = user_info.partition(":")[0] + at + hosts
    return urlunsplit(("postgresql", netloc, parts.path, urlencode(query, safe="/", quote_via=quote), ""))


def has_password(address: str) -> bool:
    """Is there anything in it that nobody else may see?"""
    from urllib.parse import parse_qsl, urlsplit

    parts = urlsplit(address)
    return ":" in parts.netloc.rpartition("@")[0] or any(key in _SECRET_KEYS for key, _ in parse_qsl(parts.query))


def digest(address: str) -> str:
    """Eight characters that differ between any two stores, and are the same whatever the password."""
    import hashlib

    return hashlib.sha256(without_password(address).encode()).hexdigest()[:8]
