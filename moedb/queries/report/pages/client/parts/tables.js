// Tables to sort and to filter: Tabulator over columns, with copies of the rows that are shown.
"use strict";
(function (moedb) {
  const { element } = moedb;

  // numbers: 3, >0.5, <=2, 1..4; texts: a part of them
  function isKept(wanted, value) {
    const asked = String(wanted).trim();
    if (asked === "") return true;
    if (typeof value === "number") {
      const range = asked.match(/^(-?[\d.eE+-]+)\.\.(-?[\d.eE+-]+)$/);
      if (range) return value >= Number(range[1]) && value <= Number(range[2]);
      const limit = asked.match(/^(<=|>=|<|>|=)?\s*(-?[\d.][\d.eE+-]*)$/);
      if (!limit) return false;
      const number = Number(limit[2]);
      const ways = { "<": value < number, ">": value > number, "<=": value <= number, ">=": value >= number };
      return limit[1] in ways ? ways[limit[1]] : value === number;
    }
    return value != null && value.toLowerCase().includes(asked.toLowerCase());
  }

  function compare(a, b, way) {
    const last = way === "asc" ? 1 : -1;
    if (moedb.isMissing(a) || moedb.isMissing(b)) return last * (moedb.isMissing(a) - moedb.isMissing(b));
    return typeof a === "string" ? (a < b ? -1 : a > b ? 1 : 0) : a - b;
  }

  function columnOf(table, name) {
    const isText = Array.isArray(table.columns[name]);
    return {
      title: name,
      field: name,
      headerTooltip: false,
      hozAlign: isText ? "left" : "right",
      maxWidth: 420,
      formatter: (cell) => element("span", null, moedb.shown(cell.getValue() ?? "")),
      titleFormatter: () => element("span", { title: table.about[name] || false }, moedb.visible(name)),
      sorter: (a, b, _one, _other, _column, way) => compare(a, b, way),
      headerFilter: "input",
      headerFilterPlaceholder: isText ? "filter" : ">, <, a..b",
      headerFilterFunc: isKept,
    };
  }

  // headers are sorted by keys too, and say what they are
  function reachable(made) {
    // what scrolls stands between the grid and its rows: it is their group
    const holder = made.element.querySelector(".tabulator-tableholder");
    holder.setAttribute("role", "rowgroup");
    holder.querySelector(".tabulator-table").setAttribute("role", "presentation");
    for (const column of made.getColumns()) {
      const header = column.getElement();
      header.tabIndex = 0;
      header.addEventListener("keydown", (event) => {
        if (event.target !== header || (event.key !== "Enter" && event.key !== " ")) return;
        event.preventDefault();
        const now = header.getAttribute("aria-sort");
        made.setSort(column.getField(), now === "ascending" ? "desc" : "asc");
      });
      const input = header.querySelector("input");
      if (input) input.setAttribute("aria-label", "filter " + column.getField());
    }
  }

  // put a table into `host`; `names` are its columns, all unless given
  moedb.showTable = function (host, table, caption, names = table.names) {
    const rows = Array.from({ length: table.n }, (_, at) => {
      const row = {};
      for (const name of names) row[name] = table.columns[name][at];
      return row;
    });
    const place = element("div", { "aria-label": caption });
    let made = null;
    const now = () => made.getData("active").map((row) => names.map((name) => row[name]));
    const isText = names.map((name) => Array.isArray(table.columns[name]));
    const count = element("span", { class: "note", role: "status" }, `${table.n.toLocaleString("en-US")} rows`);
    const csv = element("button", { type: "button", on: { click: () => moedb.copy(moedb.asCsv(names, now()), csv) } }, "Copy as CSV");
    const latex = element(
      "button",
      { type: "button", on: { click: () => moedb.copy(moedb.asLatex(names, now(), isText, caption), latex) } },
      "Copy as LaTeX",
    );
    host.append(element("div", { class: "controls" }, csv, latex, count), place);
    made = new Tabulator(place, {
      data: rows,
      columns: names.map((name) => columnOf(table, name)),
      layout: "fitData",
      maxHeight: 420,
      placeholder: "no rows",
      columnDefaults: { resizable: true },
    });
    made.on("tableBuilt", () => reachable(made));
    made.on("dataFiltered", (_filters, kept) => {
      count.textContent = `${kept.length.toLocaleString("en-US")} of ${table.n.toLocaleString("en-US")} rows`;
    });
    return made;
  };
})(window.moedb);
