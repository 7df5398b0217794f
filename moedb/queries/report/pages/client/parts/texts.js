// Texts and numbers as they are shown.
"use strict";
(function (moedb) {
  const SHORT = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
  // what acts on what reads it, or of which nothing is drawn
  const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Cn}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\u{e0100}-\u{e01ef}]|(?! )\p{Zs}/gu;

  function code(character) {
    const number = character.codePointAt(0);
    if (character in SHORT) return SHORT[character];
    const digits = number.toString(16);
    if (number < 0x100) return "\\x" + digits.padStart(2, "0");
    return number < 0x10000 ? "\\u" + digits.padStart(4, "0") : "\\U" + digits.padStart(8, "0");
  }

  // a text with everything shown that would act, or be lost; spaces stay
  moedb.visible = (text) => String(text).replace(UNSEEN, code);

  // the same, with spaces drawn where they would be lost
  moedb.token = (text) => moedb.visible(text).replace(/^ +| +$| {2,}/g, (found) => "␣".repeat(found.length));

  moedb.isMissing = (value) => value == null || Number.isNaN(value);

  moedb.number = function (value) {
    if (moedb.isMissing(value)) return "";
    if (Number.isInteger(value)) return Math.abs(value) < 1e15 ? value.toLocaleString("en-US") : value.toExponential(3);
    const size = Math.abs(value);
    if (size >= 1e6 || size < 1e-4) return value.toExponential(3);
    return String(Number(value.toPrecision(4)));
  };

  moedb.shown = (value) => (typeof value === "string" ? moedb.token(value) : moedb.number(value));

  // an estimate with the ends of its interval, where the table has them
  moedb.estimate = function (table, name, row) {
    const value = moedb.shown(table.columns[name][row]);
    const low = table.columns[name + "_low"];
    const high = table.columns[name + "_high"];
    if (!low || !high || moedb.isMissing(low[row])) return value;
    return `${value} [${moedb.number(low[row])}, ${moedb.number(high[row])}]`;
  };
})(window.moedb);
