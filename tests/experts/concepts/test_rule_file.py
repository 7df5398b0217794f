"""Files of rules: what is wrong with one is said, with the rule and what would be valid."""

from pathlib import Path

import pytest

from moedb.errors import UsageError
from moedb.experts.concepts.rule_file import LARGEST_FILE, parse_rules, read_rules


def one(**fields: object) -> str:
    def text(value: object) -> str:
        return f"'{value}'" if isinstance(value, str) else str(value)

    return "[[rule]]\n" + "".join(f"{name} = {text(value)}\n" for name, value in fields.items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rule]\n", "not valid TOML"),
        ("", r"no rules\n.*\[\[rule\]\]"),
        ("[[rules]]\nkey = 'a'", "unknown field 'rules'; did you mean rule"),
        (one(pattern="a"), "rule number 1: key: expected a text, got None"),
        (one(key="A b", pattern="a"), "'A b' is no key"),
        (one(key="name", pattern="a"), "'name' is a label of the run's user"),
        (one(key="a", kind="patern", pattern="a"), "'a': unknown kind 'patern'; did you mean pat"),
        (one(key="a", patern="a"), "has no field 'patern'; did you mean pattern"),
        (one(key="a"), "needs the field 'pattern'"),
        (one(key="a", kind="repeat", pattern="a"), "the kind repeat has no field 'pattern'"),
        (one(key="a", pattern="(a"), r"no regular expression: missing \)"),
        (one(key="a", pattern="a", flags="iq"), "letters of imsxa, got 'iq'"),
        (one(key="a", pattern="a", covers="some"), "covers: valid: all, any; got 'some'"),
        (one(key="a", pattern="(?P<b>a)"), "of which only 'label' has a meaning\n.*values ="),
        (one(key="a", pattern="a", values="groups"), "the pattern names none"),
        (one(key="a", pattern="(?P<b>a)", values="all"), "expected 'groups'"),
        (one(key="a", kind="depth", pairs=["("]), "pairs: expected such as"),
        (one(key="a", kind="depth", pairs=["()"], most=0), "most: expected 1 to 100, got 0"),
        (one(key="a", kind="position", edges=[3, 1]), "edges: expected ascending"),
        (one(key="a", pattern="a") + one(key="a", pattern="b"), "two rules have the key 'a'"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_rules(text, "mine")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the rules .*none\.toml: No such file"):
        read_rules(tmp_path / "none.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (LARGEST_FILE + 1))
    with pytest.raises(UsageError, match="larger than 256 KiB"):
        read_rules(tmp_path / "large.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8 text"):
        read_rules(tmp_path / "bytes.toml")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(one(key="a", pattern="x") + one(key="b", kind="repeat"))
    rules = read_rules(path)
    assert (rules.name, rules.keys, rules.text) == ("mine", ("a", "b"), path.read_text())
    assert rules.only(["b"]).keys == ("b",) and rules.only(["b"]).sha256 == rules.sha256
    with pytest.raises(UsageError, match="no rule 'c' in mine; valid: a, b"):
        rules.only(["c"])


def test_the_rules_of_the_package_say_what_they_are_about() -> None:
    rules = read_rules().rules
    assert all(rule.about and (rule.value_names or rule.kind == "script") for rule in rules)
    assert next(rule for rule in rules if rule.kind == "depth").value_names == ("1", "2", "3+")
