// What all figures have: controls, a canvas as wide as the page, and items that mouse, finger and keys reach.
"use strict";
(function (moedb) {
  const { element } = moedb;

  // an item: {node, column, row, title, lines: [[name, value]], go: a link}
  function reach(canvas, told, items) {
    const places = new Map(items.map((item) => [item.column + "," + item.row, item]));
    const byNode = new Map(items.map((item) => [item.node, item]));
    const most = { column: Math.max(...items.map((i) => i.column)), row: Math.max(...items.map((i) => i.row)) };
    let current = null;

    function leave() {
      if (current) current.node.classList.remove("current");
      current = null;
      told.replaceChildren();
    }
    function tell(item) {
      leave();
      current = item;
      item.node.classList.add("current");
      const lines = item.lines.map(([name, value]) => element("div", null, `${name}: ${value}`));
      told.replaceChildren(element("b", null, moedb.visible(item.title)), ...lines);
      const box = item.node.getBoundingClientRect();
      const around = canvas.getBoundingClientRect();
      const left = box.left - around.left + box.width / 2 + 12;
      told.style.left = Math.max(0, Math.min(left, around.width - told.offsetWidth)) + "px";
      told.style.top = box.bottom - around.top + 8 + "px";
    }
    function next(dx, dy) {
      if (!current) return items[0];
      let { column, row } = current;
      for (;;) {
        column += dx;
        row += dy;
        if (column < 0 || row < 0 || column > most.column || row > most.row) return current;
        const found = places.get(column + "," + row);
        if (found) return found;
      }
    }
    const WAYS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    canvas.onkeydown = (event) => {
      if (event.key in WAYS && items.length) {
        event.preventDefault();
        tell(next(...WAYS[event.key]));
      } else if (event.key === "Enter" && current && current.go) location.hash = current.go;
      else if (event.key === "Escape") leave();
    };
    const isFinger = (event) => event.pointerType === "touch";
    let wasTold = false;
    canvas.onpointermove = canvas.onpointerdown = (event) => {
      const item = byNode.get(event.target);
      if (event.type === "pointerdown") wasTold = item !== undefined && item === current;
      if (item && item !== current) tell(item);
    };
    canvas.onpointerleave = (event) => isFinger(event) || leave();
    canvas.onblur = leave;
    // a finger has to come twice: first to see what is there
    canvas.onclick = (event) => {
      const item = byNode.get(event.target);
      if (item && item.go && (wasTold || !isFinger(event))) location.hash = item.go;
    };
    for (const item of items) item.node.setAttribute("data-item", "");
  }

  // `draw(canvas, width)` fills the canvas and returns its items; it is called again at another width
  moedb.frame = function (host, label, draw) {
    const controls = element("div", { class: "controls" });
    const told = element("div", { class: "told", role: "status", "aria-live": "polite" });
    const canvas = element("div", {
      class: "canvas waiting",
      tabindex: 0,
      role: "group",
      "aria-label": label + ". Arrow keys go from value to value; the table below has them all.",
    });
    const below = element("div");
    host.append(element("figure", null, controls, canvas, below));
    let width = 0;
    let isNear = false;
    function redraw() {
      if (width === 0 || !isNear) return;
      canvas.classList.remove("waiting");
      const drawing = element("div");
      canvas.replaceChildren(drawing, told);
      told.replaceChildren();
      reach(canvas, told, draw(drawing, Math.max(280, Math.floor(width)), below));
      // to a reader of the screen the figure is its label, what is told of an item, and the table
      for (const svg of drawing.querySelectorAll("svg")) svg.setAttribute("aria-hidden", "true");
    }
    // what is far down is drawn when it comes near, or is printed
    function come() {
      if (isNear) return;
      isNear = true;
      redraw();
    }
    new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && come(), { rootMargin: "800px" }).observe(canvas);
    window.addEventListener("beforeprint", come);
    new ResizeObserver(([entry]) => {
      if (Math.abs(entry.contentRect.width - width) < 2) return;
      width = entry.contentRect.width;
      redraw();
    }).observe(canvas);
    return { controls, redraw };
  };

  // the lines that tell of a row: its value with its interval, then what belongs to it
  moedb.linesOf = function (table, row, value, told) {
    const names = [value, ...(told || []).filter((name) => name !== value && name in table.columns)];
    return names.map((name) => [name, moedb.estimate(table, name, row)]);
  };

  moedb.expertLink = (layer, expert) => `expert/${layer}/${expert}`;

  moedb.distinct = (values) => Array.from(new Set(values));
})(window.moedb);
