"""Which Spark is meant, and what is kept to oneself of its address."""

import pytest

import moedb
from moedb.errors import UsageError

ADDRESS = "sc://user:geheim@host:15002/;token=s3cret;user_id=me"


@pytest.mark.parametrize(
    ("given", "title"),
    [
        ({}, "its default master"),
        ({"master": "local[4]"}, "local[4]"),
        ({"master": "k8s://https://me:geheim@host:443"}, "k8s://https://host:443"),
        ({"remote": "sc://host"}, "sc://host"),
        ({"remote": ADDRESS}, "sc://host:15002"),
    ],
)
def test_what_it_is_called(given: dict[str, str], title: str) -> None:
    settings = moedb.SparkSettings(**given)
    assert settings.title == title
    assert settings.has_secrets == any(secret in str(given) for secret in ("geheim", "s3cret"))


def test_what_stays_secret() -> None:
    settings = moedb.SparkSettings(remote=ADDRESS)
    said = settings.without_secrets(f"cannot reach {ADDRESS}: token s3cret of me")
    assert said == "cannot reach sc://host:15002: token *** of ***"
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"master": "local", "remote": "sc://host"}, "both given"),
        ({"master": "sc://host;token=s3cret"}, "expected local"),
        ({"remote": "host:15002;token=s3cret"}, "expected the address of a Spark Connect server"),
        ({"master": ""}, "expected local"),
    ],
)
def test_what_is_no_address(given: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        moedb.SparkSettings(**given)
    assert "s3cret" not in str(raised.value)
