// Images of a run with their experts: all of them as a grid, one of them, and those of an expert.
"use strict";
(function (moedb) {
  const { element } = moedb;
  const MOST_VALUES = 40;  // of a label that images are chosen by
  const AT_ONCE = 200;
  const ALIKE = 12;
  const ALL = { value: null, toString: () => "all" };
  const VERDICTS = { 0: "wrong", 1: "right" };
  const ORDERS = ["by number", "largest weight first", "smallest weight first"];

  const hue = (expert) => moedb.ways.expert.colour(expert);
  const chosenFrom = (values) => [ALL, ...values.map((value) => ({ value, toString: () => String(value) }))];
  const linkOf = (example) => "example/" + example;

  // what the model answered, read off a view; null where nothing is kept
  moedb.answersOf = async function (given) {
    if (!given) return null;
    const [predicted, correct, logprob] = await Promise.all([given.predicted, given.correct, given.target_logprob].map(moedb.column));
    return { predicted, correct, logprob, sql: given.sql };
  };

  const labelsOf = (list, example) => {
    const at = list.example_id.indexOf(example);
    return list.labels.filter(({ value }) => value[at] !== null && value[at] !== undefined).map(({ key, value }) => [key, value[at]]);
  };

  // an image as a screen reader has it: image 17, class ship, expert 1, weight 0.93, predicted cat
  function told(example, labels, rest) {
    return [`image ${example}`, ...labels.map(([key, value]) => `${moedb.visible(key)} ${moedb.visible(value)}`), ...rest].join(", ");
  }

  // a picture in the colour of its expert, with its lines below; it leads to its page
  function framed(pictures, at, example, colour, text, lines) {
    const made = element("a", { class: "image", href: "#" + linkOf(example) }, pictures.picture(at, 2, text));
    if (colour !== null) made.style.borderColor = colour;
    for (const line of lines) if (line !== "") made.append(element("small", { "aria-hidden": "true" }, line));
    return made;
  }

  const expertsOf = (layer, at) => d3.range(layer.top_k).map((rank) => at * layer.top_k + rank);
  const isWrong = (all, at) => all.answers !== null && all.answers.correct[at] === 0;

  // the experts of an image at a layer, their weights and what was answered, for its alternative text
  function alternative(all, list, at, layer) {
    const decisions = expertsOf(layer, at).map((i) => `expert ${layer.expert[i]}, weight ${moedb.number(layer.weight[i])}`);
    const answer = all.answers && all.answers.predicted[at] !== null ? [`predicted ${moedb.visible(all.answers.predicted[at])}`] : [];
    const example = all.example_id[at];
    return told(example, labelsOf(list, example), [...decisions, ...answer]);
  }

  function cell(all, list, at, layer, way) {
    const value = way.value(layer, at);
    const most = d3.max(way.value === moedb.ways.entropy.value ? layer.entropy : layer.weight) || 1;
    const colour = moedb.isMissing(value) ? null : way.colour(value, most, layer);
    const lines = expertsOf(layer, at).map((i) => `expert ${layer.expert[i]}: ${moedb.number(layer.weight[i])}`);
    const of = choosable(list).map(({ value }) => moedb.visible(value[list.example_id.indexOf(all.example_id[at])] ?? ""));
    const answer = isWrong(all, at) ? `predicted ${moedb.visible(all.answers.predicted[at])}` : "";
    return framed(all.pictures, at, all.example_id[at], colour, alternative(all, list, at, layer), [...lines, ...of, answer]);
  }

  // labels of few values, by which images are chosen
  function choosable(list) {
    for (const label of list.labels.filter((each) => each.values === undefined)) {
      const values = moedb.distinct(label.value.filter((value) => value !== null)).sort();
      label.values = values.length > 1 && values.length <= MOST_VALUES ? values : null;
    }
    return list.labels.filter(({ values }) => values);
  }

  const state = { layer: 0, way: "expert", expert: ALL, verdict: ALL, order: ORDERS[0], labels: new Map() };

  moedb.pages.images = async function (main, slice) {
    const [list, all] = await Promise.all([moedb.examples(), moedb.tokensOf("tokens-" + slice)]);
    if (!all.pictures) {
      main.append(element("p", { class: "missing" }, "This run keeps no images."));
      return;
    }
    const index = moedb.block("index");
    const labels = choosable(list);
    const layers = all.layers.map((layer) => layer.layer);
    const placeOf = new Map(Array.from(list.example_id, (example, at) => [example, at]));
    const found = element("p", { class: "note", role: "status" });
    const legend = element("ul", { class: "legend" });
    const grid = element("div", { class: "images" });
    const more = element("button", { type: "button", on: { click: () => show(kept.slice(grid.children.length, grid.children.length + AT_ONCE)) } });
    const below = element("div", { class: "controls" }, more);
    let kept = [];

    const layerOf = () => all.layers[state.layer];
    const isKept = (at) => {
      const layer = layerOf();
      if (state.expert.value !== null && !expertsOf(layer, at).some((i) => layer.expert[i] === state.expert.value)) return false;
      if (state.verdict.value !== null && VERDICTS[all.answers.correct[at]] !== state.verdict.value) return false;
      return labels.every(({ key, value }) => {
        const wanted = (state.labels.get(key) || ALL).value;
        return wanted === null || value[placeOf.get(all.example_id[at])] === wanted;
      });
    };
    // of images that an expert was asked for, its own weight counts
    const weightOf = (at) => {
      const layer = layerOf();
      const own = expertsOf(layer, at).find((i) => layer.expert[i] === state.expert.value);
      return layer.weight[own === undefined ? at * layer.top_k : own];
    };
    function show(places) {
      const layer = layerOf();
      grid.append(...places.map((at) => cell(all, list, at, layer, moedb.ways[state.way])));
      const left = kept.length - grid.children.length;
      more.hidden = left === 0;
      more.textContent = `Show ${Math.min(left, AT_ONCE).toLocaleString("en-US")} more`;
    }
    function draw() {
      const layer = layerOf();
      kept = d3.range(all.n).filter(isKept);
      if (state.order !== ORDERS[0]) {
        const way = state.order === ORDERS[1] ? 1 : -1;
        kept.sort((a, b) => way * (weightOf(b) - weightOf(a)) || a - b);
      }
      const counts = d3.rollup(kept.flatMap((at) => expertsOf(layer, at).map((i) => layer.expert[i])), (each) => each.length, (expert) => expert);
      found.textContent = `${kept.length.toLocaleString("en-US")} of ${all.n.toLocaleString("en-US")} images`;
      legend.replaceChildren(...d3.range(layer.n_experts).map((expert) => {
        const swatch = element("span", { class: "swatch" });
        swatch.style.background = hue(expert);
        const n = (counts.get(expert) || 0).toLocaleString("en-US");
        return element("li", null, swatch, element("a", { href: "#" + moedb.expertLink(layer.layer, expert) }, `expert ${expert}`), `: ${n}`);
      }));
      grid.replaceChildren();
      show(kept.slice(0, AT_ONCE));
    }
    const experts = () => chosenFrom(d3.range(layerOf().n_experts));
    const choice = (label, options, chosen, choose) => {
      const same = options.find((option) => String(option) === String(chosen)) || options[0];
      return moedb.choice(label, options, same, (option) => {
        choose(option);
        draw();
      });
    };
    const ways = Object.keys(moedb.ways).filter((way) => all.layers.some((layer) => way in { expert: 1, weight: 1 } || (way === "entropy" ? layer.entropy !== null : layer.shared !== null)));
    if (!ways.includes(state.way)) state.way = "expert";
    if (state.layer >= layers.length) state.layer = 0;
    main.append(
      element("h1", null, "Images"),
      element("div", { class: "controls" },
        index.slices.length > 1 ? moedb.choice("images", index.slices.map(([first, last]) => `${first} to ${last}`), index.slices[slice].join(" to "), (text) => {
          location.hash = "images/" + index.slices.findIndex((each) => each.join(" to ") === text);
        }) : null,
        layers.length > 1 ? choice("layer", layers, layers[state.layer], (layer) => { state.layer = layers.indexOf(layer); }) : null,
        ...labels.map(({ key, values }) => choice(moedb.visible(key), chosenFrom(values), state.labels.get(key) || ALL, (option) => state.labels.set(key, option))),
        choice("expert", experts(), state.expert, (option) => { state.expert = option; }),
        all.answers ? choice("answer", chosenFrom(Object.values(VERDICTS)), state.verdict, (option) => { state.verdict = option; }) : null,
        choice("order", ORDERS, state.order, (order) => { state.order = order; }),
        choice("colour by", ways, state.way, (way) => { state.way = way; })),
      element("p", { class: "note" }, "Each image has a frame in the colour of its first-ranked expert, or of what is chosen; below it are its experts with their weights. A click leads to all that there is of it. Images are shown as JPEG; the run has each pixel."),
      found, legend, grid, below,
      moedb.folded("How it was asked", (place) => place.append(element("pre", null, all.sql), element("pre", null, all.answers ? all.answers.sql : ""))),
    );
    draw();
  };

  // the images of an expert's contexts, in the rows of their table
  moedb.imagesOfExpert = async function (pictures, table, rows, expert) {
    const list = await moedb.examples();
    const cells = rows.map((row) => {
      const example = table.columns.example_id[row];
      const labels = labelsOf(list, example);
      const score = moedb.number(table.columns.score[row]);
      const weight = moedb.number(table.columns.weight[row]);
      const text = told(example, labels, [`expert ${expert}`, `weight ${weight}`, `score ${score}`]);
      return framed(pictures, row, example, hue(expert), text, [`score ${score}`, `weight ${weight}`, ...labels.map(([, value]) => moedb.visible(value))]);
    });
    return element("div", { class: "images" }, ...cells);
  };

  // images that go to the most of the same experts; of those, such that the router scores most alike
  function alike(all, at) {
    const far = (layer, other) => {
      if (layer.probability === null) return 0;
      const n = layer.n_experts;
      return d3.sum(d3.range(n), (i) => Math.abs(layer.probability[at * n + i] - layer.probability[other * n + i]));
    };
    const found = d3.range(all.n).filter((other) => other !== at).map((other) => {
      const shared = d3.sum(all.layers, (layer) => {
        const own = new Set(expertsOf(layer, at).map((i) => layer.expert[i]));
        return expertsOf(layer, other).filter((i) => own.has(layer.expert[i])).length;
      });
      return [shared, d3.sum(all.layers, (layer) => far(layer, other)), other];
    });
    found.sort((a, b) => b[0] - a[0] || a[1] - b[1] || a[2] - b[2]);
    return found.slice(0, ALIKE).map((each) => each[2]);
  }

  function routed(all, at) {
    const most = d3.max(all.layers, (layer) => layer.top_k);
    const head = element("tr", null, ...["layer", "entropy", ...d3.range(most).map((rank) => "rank " + rank)].map((name) => element("th", { scope: "col" }, name)));
    const body = all.layers.map((layer) => {
      const cells = expertsOf(layer, at).map((i) => {
        const lines = [`weight ${moedb.number(layer.weight[i])}`];
        if (layer.norm) lines.push(`score ${moedb.number(layer.weight[i] * layer.norm[i])}`);
        return element("td", null, element("a", { href: "#" + moedb.expertLink(layer.layer, layer.expert[i]) }, "expert " + layer.expert[i]), ...lines.flatMap((line) => [element("br"), line]));
      });
      return element("tr", null, element("th", { scope: "row" }, String(layer.layer)), element("td", null, moedb.number(moedb.ways.entropy.value(layer, at))), ...cells);
    });
    return element("div", { class: "scrolled", tabindex: 0, role: "region", "aria-label": "experts of the image" }, element("table", { class: "plain" }, element("thead", null, head), element("tbody", null, ...body)));
  }

  function probabilities(all, at) {
    return all.layers.filter((layer) => layer.probability !== null).map((layer) => {
      const n = layer.n_experts;
      const rows = d3.range(n);
      const values = Float32Array.from(rows, (expert) => layer.probability[at * n + expert]);
      const table = { columns: { expert: Uint32Array.from(rows), probability: values }, about: { probability: "what the router gives the expert" } };
      const links = { expert: (row) => moedb.expertLink(layer.layer, row) };
      return element("div", null, element("h3", null, `What the router of layer ${layer.layer} gives each expert`), moedb.plainTable(table, rows, ["expert", "probability"], "probabilities of the router", links));
    });
  }

  // one image: itself, its labels, what was answered, its experts, and images like it
  moedb.showImage = function (main, all, list, at) {
    const example = all.example_id[at];
    const place = list.example_id.indexOf(example);
    const go = (other) => { if (other !== undefined) location.hash = linkOf(other); };
    const number = element("input", { type: "number", min: list.example_id[0], max: list.example_id[list.example_id.length - 1], value: example, "aria-label": "image", on: { change: (event) => go(Number(event.target.value)) } });
    const facts = element("dl", { class: "facts" });
    const fact = (name, value) => facts.append(element("dt", null, moedb.visible(name)), element("dd", null, moedb.visible(value)));
    for (const [key, value] of labelsOf(list, example)) fact(key, value);
    if (all.answers && all.answers.predicted[at] !== null) {
      fact("predicted", `${all.answers.predicted[at]} (${VERDICTS[all.answers.correct[at]] || "unknown"})`);
      fact("log-probability of its class", moedb.number(all.answers.logprob[at]));
    }
    main.append(
      element("h1", null, `Image ${example}`),
      element("div", { class: "controls" },
        element("button", { type: "button", on: { click: () => go(list.example_id[place - 1]) } }, "Previous"),
        element("label", null, "image", number),
        element("button", { type: "button", on: { click: () => go(list.example_id[place + 1]) } }, "Next"),
        element("a", { href: "#images" }, "All images")),
      all.pictures.picture(at, 6, alternative(all, list, at, all.layers[0])),
      facts,
      element("h2", null, "Its experts"),
      routed(all, at),
      ...probabilities(all, at),
      element("h2", null, "Images of the same experts, those that the router scores most alike first"),
      element("div", { class: "images" }, ...alike(all, at).map((other) => cell(all, list, other, all.layers[0], moedb.ways.expert))),
    );
  };
})(window.moedb);
