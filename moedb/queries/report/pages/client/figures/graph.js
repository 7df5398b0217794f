// The strongest pairs of a layer as a graph: experts as discs, sized by use, pairs as lines.
"use strict";
(function (moedb) {
  const { drawn } = moedb;
  const TICKS = 300;

  moedb.graph = function (canvas, width, table, rows, used, value, n, spec, layer) {
    const { expert_a, expert_b } = table.columns;
    const size = (row) => table.columns[value][row];
    const strongest = rows.filter((row) => !moedb.isMissing(size(row))).sort((a, b) => size(b) - size(a) || a - b).slice(0, n);
    const links = strongest.map((row) => ({ row, source: expert_a[row], target: expert_b[row] }));
    const experts = moedb.distinct(links.flatMap((link) => [link.source, link.target])).sort((a, b) => a - b);
    const nodes = experts.map((expert) => ({ id: expert }));
    const side = Math.min(width, 720);
    const height = Math.min(side, 560);
    const most = d3.max(experts, (expert) => used.get(expert)) || 1;
    const radius = (expert) => 6 + 10 * Math.sqrt(used.get(expert) / most);
    const top = d3.max(strongest, size) || 1;
    d3.forceSimulation(nodes)
      .force("link", d3.forceLink(links).id((node) => node.id).distance(55).strength(0.3))
      .force("charge", d3.forceManyBody().strength(-90))
      .force("x", d3.forceX(side / 2).strength(0.07))
      .force("y", d3.forceY(height / 2).strength(0.09))
      .force("apart", d3.forceCollide((node) => radius(node.id) + 3))
      .stop()
      .tick(TICKS);
    const edge = 18;
    for (const node of nodes) {
      node.x = Math.max(edge, Math.min(side - edge, node.x));
      node.y = Math.max(edge, Math.min(height - edge, node.y));
    }
    const svg = drawn("svg", { width: side, height, viewBox: `0 0 ${side} ${height}` });
    const items = [];
    links.forEach((link, at) => {
      const node = drawn("line", {
        x1: link.source.x, y1: link.source.y, x2: link.target.x, y2: link.target.y,
        stroke: "currentColor", "stroke-opacity": 0.25 + 0.5 * (size(link.row) / top), "stroke-width": 1 + 4 * (size(link.row) / top),
      });
      svg.append(node);
      items.push({ node, column: at, row: 1, title: `layer ${layer}, experts ${link.source.id} and ${link.target.id}`, lines: moedb.linesOf(table, link.row, value, spec.told) });
    });
    nodes.forEach((each, at) => {
      const node = drawn("circle", { cx: each.x, cy: each.y, r: radius(each.id), fill: "#4269d0" });
      const text = drawn("text", { x: each.x, y: each.y, dy: "0.35em", "text-anchor": "middle", "font-size": 10, fill: "#fff", "pointer-events": "none" }, String(each.id));
      svg.append(node, text);
      items.unshift({ node, column: at, row: 0, title: `layer ${layer}, expert ${each.id}`, lines: used.get(each.id) ? [["tokens", moedb.number(used.get(each.id))]] : [], go: moedb.expertLink(layer, each.id) });
    });
    canvas.append(svg);
    return items;
  };
})(window.moedb);
