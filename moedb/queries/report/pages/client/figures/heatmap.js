// A heat map: two columns of a table across and down, a third as colour, a panel for each value of a fourth.
// A cell leads to the expert across, of its row's layer, or of the layer that another column has.
"use strict";
(function (moedb) {
  const ordered = (values) => moedb.distinct(values).sort((a, b) => (typeof a === "number" ? a - b : 0));

  moedb.figures = {};
  moedb.figures.heatmap = function (host, part, spec, table) {
    const columns = table.columns;
    const values = spec.values.filter((name) => name in columns && columns[name].some((v) => !moedb.isMissing(v)));
    const panels = spec.panel ? moedb.distinct(columns[spec.panel]) : [];
    let value = values[0];
    let panel = panels[0];

    const frame = moedb.frame(host, part.caption, (canvas, width, below) => {
      const rows = [];
      for (let row = 0; row < table.n; row++) {
        if (spec.panel && columns[spec.panel][row] !== panel) continue;
        if (moedb.isMissing(columns[spec.x][row]) || moedb.isMissing(columns[value][row])) continue;
        rows.push(row);
      }
      const x = (row) => columns[spec.x][row];
      const y = (row) => columns[spec.y][row];
      const across = ordered(rows.map(x));
      const down = ordered(rows.map(y));
      const colour = moedb.colours(value, Array.from(columns[value]));
      const texts = down.map((each) => moedb.token(String(each)));
      const margin = Math.min(width * 0.3, 30 + 7 * Math.max(...texts.map((text) => text.length), 2));
      const most = Math.floor(margin / 7) - 3;
      const short = (text) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
      const size = (width - margin - 20) / across.length;
      const drawn = Plot.plot({
        width,
        height: 60 + down.length * Math.max(14, Math.min(30, size)),
        marginLeft: margin,
        marginBottom: 40,
        x: { type: "band", domain: across, label: spec.x, ticks: moedb.everyNth(across, width - margin), padding: 0.04 },
        y: { type: "band", domain: down, label: spec.y, tickFormat: (each) => short(moedb.token(String(each))), padding: 0.04 },
        color: { ...colour.scale, legend: true, width: Math.min(width, 280) },
        style: { background: "transparent", fontSize: "11px" },
        marks: [Plot.cell(rows, { x, y, fill: (row) => colour.fit(columns[value][row]), fillOpacity: (row) => (moedb.isUnsure(table, value, row) ? 0.3 : 1) })],
      });
      canvas.append(drawn);
      const isFaint = rows.some((row) => moedb.isUnsure(table, value, row));
      below.replaceChildren(isFaint ? moedb.element("p", { class: "note" }, "Faint: the interval holds 1, or there is none.") : "");
      const column = new Map(across.map((each, at) => [each, at]));
      const line = new Map(down.map((each, at) => [each, at]));
      return Array.from(drawn.querySelectorAll('g[aria-label="cell"] rect'), (node) => {
        const row = rows[node.__data__];
        const layer = spec.y === "layer" ? y(row) : columns.layer ? columns[spec.layer || "layer"][row] : null;
        return {
          node,
          column: column.get(x(row)),
          row: line.get(y(row)),
          title: `${spec.y} ${y(row)}, ${spec.x} ${x(row)}`,
          lines: moedb.linesOf(table, row, value, spec.told),
          go: spec.link === "expert" && layer !== null ? moedb.expertLink(layer, x(row)) : null,
        };
      });
    });
    const choose = (set) => (chosen) => {
      set(chosen);
      frame.redraw();
    };
    if (values.length > 1) frame.controls.append(moedb.choice("value", values, value, choose((v) => (value = v))));
    if (panels.length > 1) frame.controls.append(moedb.choice(spec.panel, panels, panel, choose((v) => (panel = v))));
  };
})(window.moedb);
