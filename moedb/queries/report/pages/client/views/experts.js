// The page of one expert: load, labels, scores, contexts, tokens, classes, companions, ablations.
"use strict";
(function (moedb) {
  const { element } = moedb;
  const MOST = 12;

  // rows of a table that are of an expert
  const ofExpert = (table, layer, expert) => moedb.rowsWhere(table, (row) => table.columns.layer[row] === layer && table.columns.expert[row] === expert);
  const byLargest = (table, name) => (a, b) => (table.columns[name][b] || 0) - (table.columns[name][a] || 0);

  function heading(layer, expert, n) {
    const layers = moedb.block("index").layers.map(([each]) => each);
    const go = (other) => (location.hash = moedb.expertLink(layer, (other + n) % n));
    const goToLayer = (other) => (location.hash = moedb.expertLink(other, expert));
    const number = element("input", { type: "number", min: 0, max: n - 1, value: expert, "aria-label": "expert", on: { change: (event) => go(Number(event.target.value)) } });
    return [
      element("h1", null, `Layer ${layer}, expert ${expert}`),
      element("div", { class: "controls" },
        layers.length > 1 ? moedb.choice("layer", layers, layer, goToLayer) : null,
        element("button", { type: "button", on: { click: () => go(expert - 1) } }, "Previous"),
        element("label", null, "expert", number),
        element("button", { type: "button", on: { click: () => go(expert + 1) } }, "Next")),
    ];
  }

  // a part of a view as a heading and what `show` makes of its rows; why not, where it has none
  async function block(host, title, part, show) {
    if (!part) return;
    const place = element("section", null, element("h2", null, title));
    host.append(place);
    if (part.missing) place.append(element("p", { class: "missing" }, moedb.visible(part.missing)));
    else {
      const table = await moedb.partTable(part);
      show(place, table);
      place.append(moedb.howAsked(part));
    }
  }

  const none = (place, text) => place.append(element("p", { class: "note" }, text));

  function showLoad(place, table, layer, expert) {
    const [row] = ofExpert(table, layer, expert);
    const facts = element("dl", { class: "facts" });
    for (const name of ["frequency", "share", "uniform", "n_decisions", "n_tokens"]) {
      facts.append(element("dt", { title: table.about[name] }, name), element("dd", null, moedb.estimate(table, name, row)));
    }
    place.append(facts);
  }

  function showScores(place, table, bins, expert) {
    const rows = moedb.rowsWhere(table, (row) => table.columns.expert[row] === expert);
    if (rows.length === 0) return none(place, "No token chose it.");
    const width = table.columns.most[rows[0]] / bins;
    const count = new Map(rows.map((row) => [table.columns.bin[row], table.columns.n_decisions[row]]));
    const bars = Array.from({ length: bins }, (_, bin) => ({ from: bin * width, to: (bin + 1) * width, n: count.get(bin) || 0 }));
    const part = { caption: "Scores: weight times the norm of the output" };
    moedb.frame(place, part.caption, (canvas, room) => {
      const drawn = Plot.plot({
        width: Math.min(room, 620), height: 180, marginLeft: 56,
        x: { label: "score" }, y: { label: "decisions", grid: true },
        style: { background: "transparent", fontSize: "11px" },
        marks: [Plot.rectY(bars, { x1: "from", x2: "to", y: "n", fill: "#4269d0" }), Plot.ruleY([0])],
      });
      canvas.append(drawn);
      return Array.from(drawn.querySelectorAll('g[aria-label="rect"] rect'), (node) => {
        const bar = bars[node.__data__];
        return { node, column: node.__data__, row: 0, title: `${moedb.number(bar.from)} to ${moedb.number(bar.to)}`, lines: [["decisions", moedb.number(bar.n)]] };
      });
    });
  }

  // the windows of a part, unpacked once
  const unpacked = new Map();
  function windowsOf(part, layer) {
    const key = part.id + " " + layer;
    const { lengths, at, tokens, scores } = part.windows;
    if (!unpacked.has(key)) unpacked.set(key, Promise.all([lengths, at, tokens, scores].map(moedb.column)));
    return unpacked.get(key);
  }

  const pictured = new Map();
  function picturesOf(part, layer) {
    const key = part.id + " " + layer;
    if (!pictured.has(key)) pictured.set(key, moedb.pictures(part.images));
    return pictured.get(key);
  }

  async function showContexts(host, part, layer, expert) {
    const place = element("section", null, element("h3", null, moedb.visible(part.caption)));
    host.append(place);
    if (part.missing) return place.append(element("p", { class: "missing" }, moedb.visible(part.missing)));
    const table = await moedb.table(part.table);
    const [lengths, at, tokens, scores] = await windowsOf(part, layer);
    const rows = ofExpert(table, layer, expert);
    if (rows.length === 0) return none(place, "No token chose it.");
    const starts = [0];
    for (const length of lengths) starts.push(starts[starts.length - 1] + length);
    let largest = 0;
    for (const row of rows) for (let i = starts[row]; i < starts[row + 1]; i++) if (scores[i] > largest) largest = scores[i];
    if (part.images) {
      const images = await picturesOf(part, layer);
      place.append(await moedb.imagesOfExpert(images, table, rows, expert), moedb.howAsked(part));
      return;
    }
    const list = element("ol", { class: "contexts" });
    for (const row of rows) {
      const line = element("li", null, element("a", { class: "of", href: `#example/${table.columns.example_id[row]}/${table.columns.position[row]}` }, moedb.number(table.columns.score[row])));
      for (let i = starts[row]; i < starts[row + 1]; i++) {
        const text = tokens[i] === "" ? `image of example ${table.columns.example_id[row]}` : moedb.visible(tokens[i]);
        const piece = element("span", { class: "piece" }, text);
        if (!moedb.isMissing(scores[i])) {
          piece.classList.add("shaded");
          piece.style.backgroundColor = moedb.shade(scores[i] / largest);
          piece.title = "score " + moedb.number(scores[i]);
        }
        if (i - starts[row] === at[row]) piece.classList.add("chosen");
        line.append(piece);
      }
      list.append(line);
    }
    place.append(list, moedb.howAsked(part));
  }

  function showPromoted(place, table, layer, expert) {
    const own = ofExpert(table, layer, expert);
    if (own.length === 0) return none(place, "Nothing is kept of it.");
    const both = element("div", { class: "columns" });
    for (const direction of ["promotes", "suppresses"]) {
      const rows = own.filter((row) => table.columns.direction[row] === direction);
      both.append(element("div", null, element("h3", null, direction), moedb.plainTable(table, rows, ["token", "logit", "share"], direction)));
    }
    place.append(both);
  }

  async function showClasses(host, layer, expert) {
    const view = await moedb.view("classes");
    if (!view || view.parts.length === 0) return;
    const place = element("section", null, element("h2", null, "Classes by lift"));
    const both = element("div", { class: "columns" });
    host.append(place);
    place.append(both);
    for (const part of view.parts) {
      const own = element("div", null, element("h3", null, moedb.visible(part.caption)));
      both.append(own);
      if (part.missing) {
        own.append(element("p", { class: "missing" }, moedb.visible(part.missing)));
        continue;
      }
      const table = await moedb.partTable(part);
      const rows = ofExpert(table, layer, expert).filter((row) => !moedb.isMissing(table.columns.lift[row]));
      rows.sort(byLargest(table, "lift"));
      if (rows.length === 0) none(own, "No token chose it.");
      else own.append(moedb.plainTable(table, rows.slice(0, MOST), ["value", "lift", "n_decisions", "n_tokens"], part.caption));
    }
  }

  function showTogether(place, table, layer, expert) {
    const { expert_a, expert_b } = table.columns;
    const rows = moedb.rowsWhere(table, (row) => table.columns.layer[row] === layer && (expert_a[row] === expert || expert_b[row] === expert));
    if (rows.length === 0) return none(place, "It is never chosen with another one.");
    rows.sort(byLargest(table, "jaccard"));
    const other = Array.from({ length: table.n }, (_, row) => (expert_a[row] === expert ? expert_b[row] : expert_a[row]));
    const seen = { ...table, columns: { ...table.columns, other }, about: { ...table.about, other: "the other expert" } };
    seen.columns.other = Uint32Array.from(other);
    place.append(moedb.plainTable(seen, rows.slice(0, MOST), ["other", "jaccard", "lift", "n_both", "expected"], "Experts that it goes with", { other: (row) => moedb.expertLink(layer, other[row]) }));
  }

  function showAcross(place, table, layer, expert) {
    const rows = ofExpert(table, layer, expert);
    if (rows.length === 0) return none(place, "Here are no pairs of it with an expert of a next layer.");
    rows.sort(byLargest(table, "p_next_given"));
    const { next_layer, next_expert } = table.columns;
    place.append(moedb.plainTable(table, rows.slice(0, MOST), ["next_expert", "p_next_given", "lift", "n_both", "expected"], "Experts of the next layer that its tokens choose", { next_expert: (row) => moedb.expertLink(next_layer[row], next_expert[row]) }));
  }

  function showRows(names, empty) {
    return (place, table, layer, expert) => {
      const rows = ofExpert(table, layer, expert);
      if (rows.length === 0) return none(place, empty);
      place.append(moedb.plainTable(table, rows, names.filter((name) => name in table.columns), "rows of the expert"));
    };
  }

  // a label with its scores: of each kind F1 with its interval, beside what yes to everything and another label give
  function showLabels(place, table, layer, expert) {
    const own = ofExpert(table, layer, expert);
    if (own.length === 0) return none(place, "It has no label.");
    for (const row of own) {
      const at = (name) => table.columns[name][row];
      place.append(element("p", { class: "label" }, at("label") === null ? `none: ${moedb.shown(at("status"))}` : moedb.shown(at("label"))));
      const facts = element("dl", { class: "facts" });
      for (const kind of ["detection", "fuzzing"]) {
        if (moedb.isMissing(at(kind + "_f1"))) continue;
        const ends = moedb.isMissing(at(kind + "_low")) ? "" : ` [${moedb.number(at(kind + "_low"))}, ${moedb.number(at(kind + "_high"))}]`;
        const beside = `; yes to everything ${moedb.number(at(kind + "_yes"))}, another expert's label ${moedb.number(at(kind + "_other")) || "n/a"}`;
        facts.append(element("dt", null, kind + ", F1"), element("dd", null, moedb.number(at(kind + "_f1")) + ends + beside));
      }
      facts.append(element("dt", null, "from"), element("dd", null, `${moedb.shown(at("model"))}, labels ${moedb.shown(at("label_set"))}`));
      place.append(facts);
    }
  }

  const EFFECTS = ["label", "fits", "other", "fits_less_other", "control_own", "n_fits", "n_other"];
  const ABLATIONS = ["params", "change_logit_diff", "attribution", "frequency", "n_prompts"];

  moedb.pages.expert = async function (main, layer, expert) {
    const view = await moedb.view("experts-" + layer);
    if (!view || expert < 0 || expert >= view.n_experts) {
      main.append(element("p", { class: "missing" }, `There is no expert ${expert} in layer ${layer}.`));
      return;
    }
    const of = (show) => (place, table) => show(place, table, layer, expert);
    main.append(...heading(layer, expert, view.n_experts));
    await block(main, "Load", await moedb.part("load", "frequency"), of(showLoad));
    await block(main, "Labels", await moedb.part("labels", "labelled"), of(showLabels));
    const scores = element("section", null, element("h2", null, "Scores"));
    main.append(scores);
    showScores(scores, await moedb.table(view.scores.table), view.scores.n_bins, expert);
    main.append(element("h2", null, "Contexts"));
    for (const part of view.contexts) await showContexts(main, part, layer, expert);
    await block(main, "Tokens promoted and suppressed", await moedb.part("labels", "promoted"), of(showPromoted));
    await showClasses(main, layer, expert);
    await block(main, "Experts that it goes with", await moedb.part("pairs", "together"), of(showTogether));
    await block(main, "Experts of the next layer that its tokens choose", await moedb.part("pairs", "across"), of(showAcross));
    await block(main, "What ablating it changes", await moedb.part("answers", "ablations"), of(showRows(ABLATIONS, "It was not ablated.")));
    await block(main, "What ablating it changes where its label fits", await moedb.part("labels", "effects"), of(showRows(EFFECTS, "It was not ablated.")));
  };
})(window.moedb);
