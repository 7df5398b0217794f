// Rows as texts to be pasted: CSV with full numbers, LaTeX with the numbers that are shown.
"use strict";
(function (moedb) {
  function cell(value) {
    if (moedb.isMissing(value)) return "";
    const text = String(value);
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  }

  moedb.asCsv = (names, rows) => [names, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");

  // one character as LaTeX; null where plain LaTeX has nothing for it
  function latexCharacter(character, known) {
    if (character in known.characters) return known.characters[character];
    if (/^[ -~]$/.test(character)) return character;
    const [base, ...marks] = Array.from(character.normalize("NFD"));
    if (marks.length === 0 || !/^[A-Za-z]$/.test(base)) return null;
    const isAbove = marks.some((mark) => mark !== "\u0323" && mark !== "\u0327");
    let latex = isAbove && (base === "i" || base === "j") ? "\\" + base : base;
    for (const mark of marks) {
      if (!(mark in known.accents)) return null;
      latex = `${known.accents[mark]}{${latex}}`;
    }
    return latex;
  }

  moedb.asLatexText = function (text) {
    const known = moedb.block("latex");
    let pieces = "";
    let points = [];
    let previous = "";
    const flush = () => {
      if (points.length) pieces += `\\texttt{${points.join(" ")}}`;
      points = [];
    };
    for (const character of text.normalize("NFC")) {
      const piece = latexCharacter(character, known);
      if (piece === null) points.push("U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0"));
      else {
        flush();
        pieces += (known.ligatures.includes(previous + character) ? "{}" : "") + piece;
      }
      previous = character;
    }
    flush();
    return pieces;
  };

  moedb.asLatex = function (names, rows, isText, caption) {
    const line = (cells) => cells.join(" & ") + " \\\\\n";
    const head = names.map((name) => moedb.asLatexText(name));
    const body = rows.map((row) => row.map((value) => moedb.asLatexText(moedb.shown(value))));
    return (
      "\\begin{table}\n\\centering\n" +
      `\\caption{${moedb.asLatexText(caption)}}\n` +
      `\\begin{tabular}{${isText.map((text) => (text ? "l" : "r")).join("")}}\n\\toprule\n` +
      line(head) + "\\midrule\n" + body.map(line).join("") +
      "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    );
  };

  moedb.copy = async function (text, button) {
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // a browser that has no clipboard for files
      const area = moedb.element("textarea", { class: "hidden-text" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = said), 1500);
  };
})(window.moedb);
