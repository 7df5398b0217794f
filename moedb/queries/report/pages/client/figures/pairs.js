// Pairs of experts of a layer: a matrix, by number or so ordered that those alike stand together, or a graph.
"use strict";
(function (moedb) {
  const { element } = moedb;
  const MOST = 64;  // experts of a matrix; of more the most used
  const EDGES = [20, 50, 100, 200];

  function rowsOf(table, layer) {
    const rows = [];
    for (let row = 0; row < table.n; row++) if (table.columns.layer[row] === layer) rows.push(row);
    return rows;
  }

  function expertsOf(table, rows, order) {
    const { expert_a, expert_b, n_a, n_b } = table.columns;
    const used = new Map();
    for (const row of rows) {
      used.set(expert_a[row], n_a ? n_a[row] : 0);
      used.set(expert_b[row], n_b ? n_b[row] : 0);
    }
    const kept = new Set(Array.from(used.keys()).sort((a, b) => used.get(b) - used.get(a) || a - b).slice(0, MOST));
    const experts = (order || Array.from(used.keys()).sort((a, b) => a - b)).filter((expert) => kept.has(expert));
    return { experts, n: used.size, used };
  }

  function matrix(canvas, width, table, rows, experts, value, spec, layer) {
    const { expert_a, expert_b } = table.columns;
    const shown = new Set(experts);
    const cells = [];
    for (const row of rows) {
      if (!shown.has(expert_a[row]) || !shown.has(expert_b[row]) || moedb.isMissing(table.columns[value][row])) continue;
      cells.push([row, expert_a[row], expert_b[row]], [row, expert_b[row], expert_a[row]]);
    }
    const colour = moedb.colours(value, Array.from(table.columns[value]));
    const side = Math.min(width, 640);
    const drawn = Plot.plot({
      width: side,
      height: side,
      marginLeft: 40,
      marginBottom: 40,
      x: { type: "band", domain: experts, label: "expert", ticks: moedb.everyNth(experts, side - 40), padding: 0.03 },
      y: { type: "band", domain: experts, label: "expert", ticks: moedb.everyNth(experts, side - 40, 16), padding: 0.03 },
      color: { ...colour.scale, legend: true, width: Math.min(side, 280) },
      style: { background: "transparent", fontSize: "10px" },
      marks: [Plot.cell(cells, { x: (c) => c[1], y: (c) => c[2], fill: (c) => colour.fit(table.columns[value][c[0]]) })],
    });
    canvas.append(drawn);
    const place = new Map(experts.map((expert, at) => [expert, at]));
    return Array.from(drawn.querySelectorAll('g[aria-label="cell"] rect'), (node) => {
      const [row, across, down] = cells[node.__data__];
      return {
        node,
        column: place.get(across),
        row: place.get(down),
        title: `layer ${layer}, experts ${down} and ${across}`,
        lines: moedb.linesOf(table, row, value, spec.told),
        go: moedb.expertLink(layer, down),
      };
    });
  }

  moedb.figures.pairs = function (host, part, spec, table) {
    const values = spec.values.filter((name) => name in table.columns && table.columns[name].some((v) => !moedb.isMissing(v)));
    if (values.length === 0) return;
    const layers = moedb.distinct(table.columns.layer);
    const hasOrders = Boolean(spec.orders);
    let value = values[0];
    let layer = layers[0];
    let order = hasOrders ? "alike together" : "by number";
    let form = "matrix";
    let edges = EDGES[1];

    const frame = moedb.frame(host, part.caption, (canvas, width, below) => {
      const rows = rowsOf(table, layer);
      const found = hasOrders && order !== "by number" ? spec.orders.find((each) => each.layer === layer) : null;
      const { experts, n, used } = expertsOf(table, rows, found && found.experts);
      const left = n > experts.length ? `The ${experts.length} most used of ${n} experts. ` : "";
      const said = form === "matrix" ? "Pairs without a cell were never chosen together, or are not in the table." : `The ${edges} largest values; positions are by force, and mean nothing by themselves.`;
      below.replaceChildren(element("p", { class: "note" }, left + (hasOrders || form === "graph" ? said : "")));
      if (form === "matrix") return matrix(canvas, width, table, rows, experts, value, spec, layer);
      return moedb.graph(canvas, width, table, rows, used, value, edges, spec, layer);
    });
    const choose = (set) => (chosen) => {
      set(chosen);
      frame.redraw();
    };
    frame.controls.append(moedb.choice("as", ["matrix", "graph"], form, choose((v) => (form = v))));
    if (layers.length > 1) frame.controls.append(moedb.choice("layer", layers, layer, choose((v) => (layer = v))));
    if (values.length > 1) frame.controls.append(moedb.choice("value", values, value, choose((v) => (value = v))));
    if (hasOrders) frame.controls.append(moedb.choice("order", ["alike together", "by number"], order, choose((v) => (order = v))));
    frame.controls.append(moedb.choice("pairs of the graph", EDGES, edges, choose((v) => (edges = v))));
  };
})(window.moedb);
