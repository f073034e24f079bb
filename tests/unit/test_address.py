"""Addresses of stores: what of them may be shown, and when two of them mean the same store."""

from __future__ import annotations

import pytest

from hueyctl.model.address import digest, is_address, misreading, to_hand_on, without_password

# By address: as it is shown, where that isn't the same.
PLAIN = {
    "postgresql://host/db": None,
    "postgresql:///db": None,
    "postgresql://": None,
    "postgres://host/db": "postgresql://host/db",
    "postgresql://ann@host:5432/db": None,
    "postgresql://ann@/db?host=/run/postgresql&port=5433": None,
    "postgresql://ann@one:1,two:2/db?target_session_attrs=read-write": None,
    "postgresql://ann@[::1]:5432/db": None,
    "postgresql://[2001:db8::1]/db": None,
    "postgresql://[::1/db": None,
    "postgresql://ann@host/db?options=-csearch_path%3Dmine": None,
    "postgresql://host/db?user=ann@home": "postgresql://host/db?user=ann%40home",
    "postgresql:///db?user=ann@home": "postgresql:///db?user=ann%40home",
}
SECRET = {
    "postgresql://ann:s3cret@host/db": "postgresql://ann@host/db",
    "postgres://ann:s3cret@host/db": "postgresql://ann@host/db",
    "postgresql://ann:s3cret@/db?host=/run": "postgresql://ann@/db?host=/run",
    "postgresql://:s3cret@host/db": "postgresql://@host/db",
    "postgresql://ann:s3cret@one:1,two:2/db": "postgresql://ann@one:1,two:2/db",
    "postgresql://ann:s3cret@[::1]:5432/db": "postgresql://ann@[::1]:5432/db",
    "postgresql://ann:s3cret%40%2F@host/db": "postgresql://ann@host/db",
    "postgresql://ann:x:s3cret@host/db": "postgresql://ann@host/db",
    "postgresql://ann:x#s3cret@host/db": "postgresql://ann@host/db",
    "postgresql://ann:x?s3cret@host/db": "postgresql://ann@host/db",
    "postgresql://ann:x@s3cret@host/db": "postgresql://ann@host/db",
    "postgresql://ann:x/s3cret@host/db": "postgresql://ann@host/db",
    "postgresql://ann:x@y/s3cret@host/db": "postgresql://ann@host/db",
    "postgresql://ann@host/db?password=s3cret": "postgresql://ann@host/db",
    "postgresql://ann@host/db?password=x@s3cret": "postgresql://ann@host/db",
    "postgresql://host/db?password=x@s3cret": "postgresql://host/db",
    "postgresql://host/db?port=1&password=x#s3cret&user=c": "postgresql://host/db?port=1&user=c",
    "postgresql://ann@host/db?sslpassword=s3cret&sslmode=require": "postgresql://ann@host/db?sslmode=require",
    "postgresql://ann@host/db?passfile=s3cret": "postgresql://ann@host/db",
    "postgresql://ann@host/db?sslkey=s3cret": "postgresql://ann@host/db",
    "postgresql://ann@host/db?scram_client_key=s3cret": "postgresql://ann@host/db",
    "postgresql://ann:x[s3cret@host/db": "postgresql://ann@host/db",
    "postgresql://ann:x\u2100s3cret@host/db": "postgresql://ann@host/db",
}


@pytest.mark.parametrize(("address", "shown"), PLAIN.items())
def test_an_address_without_a_secret_is_shown_as_it_is(address: str, shown: str | None) -> None:
    assert without_password(address) == (shown or address)
    assert misreading(address) is None


@pytest.mark.parametrize(("address", "shown"), SECRET.items())
def test_no_secret_is_shown_however_it_is_written(address: str, shown: str) -> None:
    assert without_password(address) == shown
    assert "s3cret" not in shown


def test_a_store_is_the_same_whatever_the_password_and_another_for_another_address() -> None:
    same = ["postgresql://a@h/db", "postgres://a:x@h/db", "postgresql://a:y#z@h/db", "postgresql://a@h/db?password=z"]
    others = ["postgresql://b@h/db", "postgresql://a@g/db", "postgresql://a@h/bd", "postgresql://a@h/db?host=g"]
    others += ["postgresql://a@h:1/db", "postgresql://a@h/db?options=-csearch_path%3Dmine"]
    assert len({digest(address) for address in same}) == 1
    assert len({digest(address) for address in [same[0], *others]}) == 1 + len(others)


@pytest.mark.parametrize("path", ["queue.db", "/var/postgresql://db", "postgresql", "sqlite:///db", ""])
def test_what_names_no_scheme_of_postgresql_is_a_path(path: str) -> None:
    assert not is_address(path)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://ann:x@s3cret@host/db", "%40"),
        ("postgresql://ann:x/s3cret@host/db", "%2F"),
        ("postgresql://ann@home@host/db", "%40"),
        ("postgresql://ann:x%s3cret@host/db", "%25"),
        ("postgresql://ann@host/db?password=%zz", "%25"),
    ],
)
def test_what_libpq_would_read_otherwise_is_said_without_quoting_it(address: str, said: str) -> None:
    found = misreading(address)
    assert found is not None
    assert said in found
    assert "s3cret" not in found


@pytest.mark.parametrize("password", ["x%40y", "x?y", "x#y", "x:y", "%25"])
def test_what_it_reads_as_it_was_meant_is_right(password: str) -> None:
    assert misreading(f"postgresql://ann:{password}@host/db?password=a@b") is None


@pytest.mark.parametrize(
    ("address", "handed_on"),
    [
        ("postgresql://ann@host/db?sslcrl=x", "postgresql://ann@host/db?sslcrl=x"),
        ("postgresql://ann:s3cret@host/db?sslcrl=x&password=y", "postgresql://ann@host/db?sslcrl=x"),
        ("postgres://ann:x?s3cret@/db?host=/run", "postgresql://ann@/db?host=/run"),
    ],
)
def test_jobs_get_all_of_an_address_but_what_is_secret(address: str, handed_on: str) -> None:
    assert to_hand_on(address) == handed_on
