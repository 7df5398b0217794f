// Small tables of a few rows.
"use strict";
(function (moedb) {
  const { element } = moedb;

  // the rows of a table by their numbers; an estimate has its interval in its cell; `links` gives cells links
  moedb.plainTable = function (table, rows, names, caption, links = {}) {
    const head = element("tr", null, ...names.map((name) => element("th", { scope: "col", title: table.about[name] || false }, name)));
    const body = rows.map((row) =>
      element("tr", null, ...names.map((name) => {
        const isText = Array.isArray(table.columns[name]);
        const text = moedb.estimate(table, name, row);
        const link = name in links ? links[name](row) : null;
        return element("td", { class: isText ? false : "number" }, link === null ? text : element("a", { href: "#" + link }, text));
      })),
    );
    const made = element("table", { class: "plain" }, element("caption", { class: "hidden-text" }, moedb.visible(caption)), element("thead", null, head), element("tbody", null, ...body));
    return element("div", { class: "scrolled", tabindex: 0, role: "region", "aria-label": moedb.visible(caption) }, made);
  };

  moedb.rowsWhere = function (table, holds) {
    const rows = [];
    for (let row = 0; row < table.n; row++) if (holds(row)) rows.push(row);
    return rows;
  };
})(window.moedb);
