"""Text as LaTeX that prints it: what is special is escaped, what plain LaTeX can set is set."""

import unicodedata
from typing import Any

# [ ] and * because \\ and the rules of booktabs would take them for their own arguments; quotes,
# hyphens and commas lest two in a row become one character.
_ASCII = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}
_LIGATURES = {"--": "-{}", "''": "'{}", ",,": ",{}"}
_SYMBOLS = {
    "␣": r"\textvisiblespace{}",
    "▁": r"\rule{0.5em}{0.1ex}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "¡": r"\textexclamdown{}",
    "¿": r"\textquestiondown{}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "…": r"\textellipsis{}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "§": r"\textsection{}",
    "¶": r"\textparagraph{}",
    "•": r"\textbullet{}",
    "·": r"\textperiodcentered{}",
    "©": r"\textcopyright{}",
    "®": r"\textregistered{}",
    "™": r"\texttrademark{}",
    "£": r"\textsterling{}",
    "°": r"$^\circ$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "¬": r"$\neg$",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "∈": r"$\in$",
    "∑": r"$\sum$",
    "√": r"$\surd$",
    "µ": r"$\mu$",
}
# from U+03B1 on; what plain LaTeX has no name for is left out
_GREEK = [
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"),
    *("lambda", "mu", "nu", "xi", None, "pi", "rho", None, "sigma", "tau", "upsilon", "phi"),
    *("chi", "psi", "omega"),
]
_GREEK_CAPITALS = {
    "Γ": "Gamma",
    "Δ": "Delta",
    "Θ": "Theta",
    "Λ": "Lambda",
    "Ξ": "Xi",
    "Π": "Pi",
    "Σ": "Sigma",
    "Φ": "Phi",
    "Ψ": "Psi",
    "Ω": "Omega",
}
_SYMBOLS |= {chr(0x3B1 + i): f"$\\{name}$" for i, name in enumerate(_GREEK) if name}
_SYMBOLS |= {letter: f"$\\{name}$" for letter, name in _GREEK_CAPITALS.items()}
_ACCENTS = {
    "\u0300": r"\`",
    "\u0301": r"\'",
    "\u0302": r"\^",
    "\u0303": r"\~",
    "\u0304": r"\=",
    "\u0306": r"\u",
    "\u0307": r"\.",
    "\u0308": r"\"",
    "\u030a": r"\r",
    "\u030b": r"\H",
    "\u030c": r"\v",
    "\u0323": r"\d",
    "\u0327": r"\c",
}


def escape_latex(text: str) -> str:
    r"""Return text as LaTeX that prints it, with no package beside the kernel.

    Letters with accents, Greek letters and common symbols are set as such. A character that plain
    LaTeX cannot set, such as a Chinese one, appears as its code point.

    Examples
    --------
    >>> print(escape_latex("50% of E_1 & {é, ␣Mary, 日本}"))
    50\% of E\_1 \& \{\'{e}, \textvisiblespace{}Mary, \texttt{U+65E5 U+672C}\}
    """
    pieces: list[str] = []
    points: list[str] = []
    previous = ""
    for character in unicodedata.normalize("NFC", text):
        piece = _latex_character(character)
        if piece is None:
            points.append(f"U+{ord(character):04X}")
        else:
            if points:
                pieces.append(r"\texttt{" + " ".join(points) + "}")
                points = []
            pieces.append("{}" + piece if previous + character in _LIGATURES else piece)
        previous = character
    if points:
        pieces.append(r"\texttt{" + " ".join(points) + "}")
    return "".join(pieces)


def latex_tables() -> dict[str, Any]:
    """Return by what :func:`escape_latex` goes, for what escapes texts elsewhere as it does."""
    return {
        "characters": {**_SYMBOLS, **_ASCII},
        "accents": dict(_ACCENTS),
        "ligatures": sorted(_LIGATURES),
    }


def _latex_character(character: str) -> str | None:
    """Return the LaTeX for one character, None if there is none."""
    if character in _ASCII:
        return _ASCII[character]
    if character.isascii() and character.isprintable():
        return character
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    base, *marks = list(unicodedata.normalize("NFD", character))
    if not marks or not (base.isascii() and base.isalpha()):
        return None
    above = any(mark not in "\u0323\u0327" for mark in marks)
    latex = {"i": r"\i", "j": r"\j"}.get(base, base) if above else base
    for mark in marks:
        if mark not in _ACCENTS:
            return None
        latex = f"{_ACCENTS[mark]}{{{latex}}}"
    return latex
