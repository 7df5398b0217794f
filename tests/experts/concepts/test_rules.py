"""Every rule of the package on texts whose labels were worked out by hand."""

import numpy as np
import pytest

from moedb.experts.concepts.alignment import align
from moedb.experts.concepts.labelling import of_rule
from moedb.experts.concepts.matching import Matcher
from moedb.experts.concepts.piece import Piece
from moedb.experts.concepts.rule_file import parse_rules, read_rules
from tests.support.stores.samples import tokens_of

RULES = read_rules()


def piece_of(text: str, tokens: list[str] | None = None) -> tuple[Piece, list[str]]:
    tokens = tokens_of(text) if tokens is None else tokens
    spans = align(text, tokens)
    assert spans is not None
    places = np.array(spans, np.int64).reshape(-1, 2)
    n = np.arange(len(tokens), dtype=np.int64)
    ids = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    numbers = np.array([ids[token] for token in tokens], np.int64)
    return Piece([text], n, numbers, n, n * 0, places[:, 0], places[:, 1]), tokens


def labelled(key: str, text: str, rules=RULES, tokens: list[str] | None = None) -> list[str]:
    """The labelled tokens, each with its value where that is not yes."""
    piece, tokens = piece_of(text, tokens)
    (rule,) = rules.only([key]).rules
    with Matcher(20) as matcher:
        matcher.give(piece.texts)
        found = of_rule(piece, rule, matcher)
    values = [found.values[value] for value in found.value]
    return [
        tokens[token].strip(" ") + ("" if value == "yes" else f"={value}")
        for token, value in zip(found.token, values, strict=True)
    ]


def each(value: str, *tokens: str) -> list[str]:
    return [f"{token}={value}" for token in tokens]


# key, a text, the tokens of it that are labelled; and one of which none is
CASES: list[tuple[str, str, list[str], str]] = [
    ("latex-command", r"so \alpha is", ["\\", "alpha"], r"a\n b alpha"),
    (
        "latex-math",
        r"let $x^2$ be \[y\] so",
        [*each("inline", "$", "x", "^", "2", "$"), *each("display", "\\", "[", "y", "\\", "]")],
        "it costs $5 or $6 each",
    ),
    ("latex-environment", r"\begin{proof} a", ["proof"], r"\emph{proof} begin"),
    ("latex-citation", r"see \citep[p. 3]{knuth} on", ["knuth"], r"\emph{knuth} cites {knuth}"),
    ("latex-reference", r"in \eqref{one} and", ["one"], r"the label {one}"),
    ("latex-heading", r"\subsection{On two} a", ["On", "two"], r"\emph{On two} section"),
    ("latex-comment", "a\n % b c\nd", ["%", "b", "c"], "50 % of all"),
    (
        "python-keyword",
        "def f(x):\n    return x\nfrom a import b",
        ["def", "return", "from"],
        "We return to it.\nfrom the start we import tea.",
    ),
    ("python-function-name", "  def go(x):", ["go"], "define go(x)"),
    ("python-class-name", "class Dog(Animal):", ["Dog"], "the class Dog is large"),
    ("python-decorator", "@staticmethod\ndef f():", ["@", "staticmethod"], "mail me@home (x)"),
    ("python-builtin", "x = len(y)", ["len"], "the len of y.len(x)"),
    ("python-constant", "x = None", ["None"], "None of us. True north"),
    ("python-self", "self.x = f(self)", ["self", "self"], "the self is old"),
    ("python-module", "import numpy as np", ["numpy"], "they import tea, and rice"),
    ("python-docstring", '"""Go on."""\nx', ["Go", "on", "."], '"Go on." x'),
    ("python-comment", "x = 1  # so far\n", ["#", "so", "far"], "# Heading\n#include a"),
    ("c-type", "unsigned int n = 3;", ["unsigned", "int"], "a long time, double it"),
    ("c-preprocessor", "#include <a.h>", ["#", "include"], "# include this in x"[2:]),
    ("c-include", "#include <stdio.h>", ["stdio", ".", "h"], "include <stdio.h>"),
    ("c-comment", "x; /* so */ y", ["/", "*", "so", "*", "/"], "see http://a.b or a/b"),
    (
        "c-pointer",
        "p->x = f(&y) * z; char *s;",
        [*each("arrow", "-", ">"), "&=address", "*=asterisk"],
        "a - b > c & d * e",
    ),
    (
        "code-operator",
        "a == b && c << 2",
        [*each("comparison", "=", "="), *each("logical", "&", "&"), *each("shift", "<", "<")],
        "a = b - c < d",
    ),
    ("code-call", "go(x) or run (y)", ["go"], "go (x), run"),
    (
        "code-identifier",
        "my_name isOpen MAX_N",
        [
            *each("snake", "my", "_", "name"),
            "isOpen=camel",
            *each("constant", "MAX", "_", "N"),
        ],
        "name is Open MAX",
    ),
    ("code-string", "f('ab', x)", ["'", "ab", "'"], "he said 'ab' twice"),
    ("code-semicolon", "x = 1;\ny", [";"], "one; two"),
    ("json-key", '{"a b": 1}', ["a", "b"], '{"a b", 1}'),
    ("digit", "in 42 b", ["4", "2"], "forty two"),
    (
        "number",
        "3.5 of 1,000 in 7",
        [
            *each("decimal", "3", ".", "5"),
            *each("grouped", "1", ",", "0", "0", "0"),
            "7=integer",
        ],
        "one of ten",
    ),
    ("year", "in 1984, he", ["1", "9", "8", "4"], "$1984 or 1,984 or 11984 or 3021"),
    ("date", "on May 5, 2020 we", ["May", "5", ",", "2", "0", "2", "0"], "you may 5 times"),
    ("time", "at 09:30 on", ["0", "9", ":", "3", "0"], "a ratio of 9:3 or 30:99"),
    ("money", "for $20 now", ["$", "2", "0"], "for 20 $ x"),
    ("percentage", "by 5% now", ["5", "%"], "by 5 of % x"),
    ("ordinal", "the 3rd one", ["3", "rd"], "the 3 rd one"),
    ("hexadecimal", "at 0xFF ok", ["0", "xFF"], "at 0 xFF or FF"),
    ("version-number", "use v1.2.3 now", ["v", "1", ".", "2", ".", "3"], "use 1.2 now"),
    (
        "punctuation",
        "A, b: c? (d) ...",
        [
            ",=comma",
            ":=colon",
            "?=question",
            *each("bracket", "(", ")"),
            *each("ellipsis", ".", ".", "."),
        ],
        "A b c d 5 + 6",
    ),
    ("bracket", "f[x]", ["[=open", "]=close"], "f x <y>"),
    (
        "bracket-depth",
        "a (b [c {d (e)}]) f",
        [
            *each("1", "(", "b"),
            *each("2", "[", "c"),
            *each("3+", "{", "d", "(", "e", ")", "}"),
            "]=2",
            ")=1",
        ],
        "sad :( and ] so } on",
    ),
    (
        "quoted",
        'he said "go on" and “so”',
        [*each("straight", "go", "on"), "so=curly"],
        "it's the dogs' \" x",
    ),
    ("apostrophe-ending", "don't say it's", ["'", "t", "'", "s"], "the dogs' 'tis"),
    ("capitalized", "The cat Tom", ["The", "Tom"], "the NATO iPhone"),
    ("all-caps", "in NATO we", ["NATO"], "in Nato I"),
    ("proper-name", "Then we met Mary Ann, John and", ["Mary", "Ann", "John"], "Then. Mary came"),
    ("hyphenated", "a well-known one", ["well", "-", "known"], "a - b, 3-4, well -known"),
    (
        "function-word",
        "The cat was not on it",
        ["The=article", "was=auxiliary", "not=negation", "on=preposition", "it=pronoun"],
        "cats chase mice",
    ),
    ("word-piece", "ab1 c", ["1"], "ab c. d"),
    ("script", "cat кот 猫 7", ["cat=latin", "кот=cyrillic", "猫=han"], "7 + 5."),
    ("emoji", "so 😀 ok", ["😀"], "so :) ok"),
    ("sentence-start", "One is. Two was.", ["One", "Two"], "... 5 or 6. 7"[3:4]),
    ("sentence-end", "It is 3.5. So? Yes", [".", "?"], "It is 3.5 of e.g. this one"),
    ("question", "Yes. Is it so? No", ["Is", "it", "so", "?"], "Yes. It is so. No"),
    ("line-start", "ab c\n  de f", ["ab", "de"], " "),
    ("line-end", "ab c\nde f ", ["c", "f"], " "),
    ("line-break", "a\nb\n\nc", ["\n=line", *each("paragraph", "\n", "\n")], "a b"),
    ("indentation", "a\n    b", [""], "a  b"),
    ("blank", "a  \nb", ["", "\n"], "a b"),
    ("list-item", "- one\n12. two", ["-", "1", "2", "."], "one - two 3. x"),
    (
        "url",
        "at https://a.bc/d. So",
        ["https", ":", "/", "/", "a", ".", "bc", "/", "d"],
        "at a.bc/d or http: x",
    ),
    ("email", "to me@ab.org now", ["me", "@", "ab", ".", "org"], "to me @ab or me@home"),
    ("file-path", "in /usr/bin now", ["/", "usr", "/", "bin"], "and/or 3/4 http://a.b/c"),
    (
        "html-tag",
        "<b>x</b>",
        [*each("open", "<", "b", ">"), *each("close", "<", "/", "b", ">")],
        "a < b > c",
    ),
    ("html-entity", "a &amp; b", ["&", "amp", ";"], "a & amp; b"),
    ("markdown-heading", "# On this\nx", ["On", "this"], "#On this\n x # y"),
    ("reference-number", "as in [3, 4] so", ["[", "3", ",", "4", "]"], "as in [a] or (3)"),
    (
        "position",
        "a b c d e",
        ["a=0", *each("1-3", "b", "c", "d"), "e=4-15"],
        "",
    ),
    ("repeat", "a b a b", ["a", "b"][1:], "a b c"),
    ("induction", "a go x y. go x z", ["x"], "a b c b d"),
]


@pytest.mark.parametrize(("key", "text", "expected", "without"), CASES, ids=[c[0] for c in CASES])
def test_what_a_rule_labels(key: str, text: str, expected: list[str], without: str) -> None:
    assert labelled(key, text) == expected
    assert labelled(key, without) == []


def test_every_rule_has_a_case() -> None:
    assert sorted(RULES.keys) == sorted(case[0] for case in CASES)
    assert len(RULES.rules) >= 40 and all(rule.about for rule in RULES.rules)


def test_what_a_token_counts_as_that_is_partly_covered() -> None:
    rules = parse_rules(
        """
        [[rule]]
        key = "any"
        pattern = "b c"
        [[rule]]
        key = "all"
        covers = "all"
        pattern = "b c"
        [[rule]]
        key = "blanks-aside"
        pattern = " b "
        [[rule]]
        key = "first-counts"
        values = "groups"
        pattern = "(?P<one>ab)|(?P<two>c)"
        """,
        "mine",
    )
    tokens = ["ab", " ", "c", " d"]
    assert labelled("any", "ab c d", rules, tokens) == ["ab", "", "c"]
    assert labelled("all", "ab c d", rules, tokens) == ["", "c"]
    assert labelled("blanks-aside", "a b d", rules, ["a", " b", " d"]) == ["b"]
    assert labelled("first-counts", "abc", rules, ["abc"]) == ["abc=one"]


def test_bytes_of_a_character_have_what_the_character_has() -> None:
    # é in two tokens, the emoji in three, of which one holds two of its bytes
    tokens = ["caf", "�", "�", " ", "�", "��", "�", "!"]
    assert labelled("word-piece", "café 😀!", tokens=tokens) == ["�", "�"]
    assert labelled("emoji", "café 😀!", tokens=tokens) == ["�", "��", "�"]
    assert labelled("script", "café 😀!", tokens=tokens) == each("latin", "caf", "�", "�")
