// Dots with intervals along a number, such as the layer, and lines that join those of a series.
"use strict";
(function (moedb) {
  const { element } = moedb;

  moedb.figures.dots = function (host, part, spec, table) {
    const columns = table.columns;
    const values = spec.values.filter((name) => name in columns && columns[name].some((v) => !moedb.isMissing(v)));
    if (values.length === 0) return;
    const names = (spec.series || []).filter((name) => name in columns && moedb.distinct(Array.from(columns[name], String)).length > 1);
    // with many series, those of one value of the first column at a time
    const seriesOf = (row, from = 0) => names.slice(from).map((name) => `${name} ${moedb.shown(columns[name][row] ?? "")}`).join(", ");
    const all = moedb.distinct(Array.from({ length: table.n }, (_, row) => seriesOf(row)));
    const isMany = all.length > 10 && names.length > 1;
    const groups = isMany ? moedb.distinct(Array.from(columns[names[0]])) : [];
    let value = values[0];
    let group = groups[0];

    const frame = moedb.frame(host, part.caption, (canvas, width, below) => {
      const rows = [];
      let unplaced = 0;
      for (let row = 0; row < table.n; row++) {
        if (isMany && columns[names[0]][row] !== group) continue;
        if (moedb.isMissing(columns[value][row])) continue;
        if (moedb.isMissing(columns[spec.x][row])) unplaced += 1;
        else rows.push(row);
      }
      const series = (row) => seriesOf(row, isMany ? 1 : 0);
      const known = moedb.distinct(rows.map(series));
      const colour = (row) => moedb.seriesColour(known.indexOf(series(row)));
      const along = moedb.distinct(rows.map((row) => columns[spec.x][row])).sort((a, b) => a - b);
      const low = columns[value + "_low"];
      const high = columns[value + "_high"];
      const hasEnds = low && high && rows.some((row) => !moedb.isMissing(low[row]));
      const shift = (row) => (known.length > 1 ? (known.indexOf(series(row)) - (known.length - 1) / 2) * Math.min(6, width / along.length / (known.length + 2)) : 0);
      const x = (row) => columns[spec.x][row];
      const y = (row) => columns[value][row];
      const marks = [Plot.ruleY([0], { strokeOpacity: 0.15 })];
      for (const each of known) {
        const own = rows.filter((row) => series(row) === each).sort((a, b) => x(a) - x(b));
        const at = { x, dx: shift(own[0]), stroke: colour(own[0]) };
        marks.push(Plot.line(own, { ...at, y, strokeOpacity: 0.5 }));
        if (hasEnds) {
          const sure = own.filter((row) => !moedb.isMissing(low[row]) && !moedb.isMissing(high[row]));
          marks.push(Plot.ruleX(sure, { ...at, y1: (row) => low[row], y2: (row) => high[row], strokeWidth: 1.5 }));
        }
        marks.push(Plot.dot(own, { x, y, dx: at.dx, r: 4, fill: at.stroke, ariaLabel: "dot" }));
      }
      const drawn = Plot.plot({
        width,
        height: 260,
        marginLeft: 56,
        marginBottom: 40,
        x: { type: "point", domain: along, label: spec.x, ticks: moedb.everyNth(along, width - 60) },
        y: { label: value, nice: true, grid: true },
        style: { background: "transparent", fontSize: "11px" },
        marks,
      });
      canvas.append(drawn);
      const entries = known.map((each, at) => {
        const swatch = element("span", { class: "swatch" });
        swatch.style.background = moedb.seriesColour(at);
        return element("li", null, swatch, each);
      });
      const bars = hasEnds ? element("p", { class: "note" }, "Bars are 95 % intervals.") : null;
      const rest = unplaced ? element("p", { class: "note" }, `${unplaced} rows without a ${spec.x} are in the table alone.`) : null;
      below.replaceChildren(...[known.length > 1 ? element("ul", { class: "legend" }, ...entries) : null, bars, rest].filter(Boolean));
      const items = [];
      drawn.querySelectorAll('g[aria-label="dot"]').forEach((holder, line) => {
        const own = rows.filter((row) => series(row) === known[line]).sort((a, b) => x(a) - x(b));
        for (const node of holder.querySelectorAll("circle")) {
          const row = own[node.__data__];
          const title = `${spec.x} ${x(row)}` + (known[line] ? `, ${known[line]}` : "");
          items.push({ node, column: along.indexOf(x(row)), row: line, title, lines: moedb.linesOf(table, row, value, spec.told) });
        }
      });
      return items;
    });
    const choose = (set) => (chosen) => {
      set(chosen);
      frame.redraw();
    };
    if (values.length > 1) frame.controls.append(moedb.choice("value", values, value, choose((v) => (value = v))));
    if (groups.length > 1) frame.controls.append(moedb.choice(names[0], groups, group, choose((v) => (group = v))));
  };
})(window.moedb);
