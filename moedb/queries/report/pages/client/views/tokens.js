// The tokens of an example in a row, coloured by what a layer does with them; and of one of them everything.
"use strict";
(function (moedb) {
  const { element } = moedb;
  const UNMATCHED = 255;
  const NEIGHBOURS = 8;
  const MOST_FOUND = 20;
  const ALIKE = 4;  // tokens before one that make it the same place in another example

  // how tokens are coloured: value of a token at a layer, its colour, its text
  const hue = (expert) => d3.hsl((expert * 137.508) % 360, 0.55, 0.72).formatHex();
  const WAYS = moedb.ways = {
    expert: { value: (layer, at) => layer.expert[at * layer.top_k], colour: (value) => hue(value), said: (value) => "expert " + value },
    weight: { value: (layer, at) => layer.weight[at * layer.top_k], colour: (value, most) => moedb.shade(value / most), said: moedb.number },
    entropy: { value: (layer, at) => (layer.entropy === null ? NaN : layer.entropy[at]), colour: (value, most) => moedb.shade(value / most), said: (value) => moedb.number(value) + " bits" },
    agreement: {
      value: (layer, at) => (layer.shared === null || layer.shared[at] === UNMATCHED ? NaN : layer.shared[at]),
      colour: (value, _most, layer) => d3.interpolateRdYlBu(0.1 + 0.8 * (value / layer.top_k)),
      said: (value, layer) => `${value} of ${layer.top_k}`,
    },
  };

  const read = new Map();
  async function unpacked(name) {
    const view = await moedb.view(name);
    const [token_idx, example_id, token] = await Promise.all([view.token_idx, view.example_id, view.token].map(moedb.column));
    const labels = await Promise.all(view.labels.map(async (each) => ({ key: each.key, value: await moedb.column(each.value) })));
    const layers = await Promise.all(view.layers.map(async (each) => {
      const ifThere = (column) => (column === null ? null : moedb.column(column));
      const [expert, weight, entropy, shared, norm, probability] = await Promise.all(
        [each.expert, each.weight, each.entropy, each.shared, each.norm ?? null, each.probability ?? null].map(ifThere),
      );
      return { ...each, expert, weight, entropy, shared, norm, probability };
    }));
    const [pictures, answers] = await Promise.all([moedb.pictures(view.images), moedb.answersOf(view.answers)]);
    const starts = new Map();
    example_id.forEach((example, at) => { if (!starts.has(example)) starts.set(example, at); });
    return { token_idx, example_id, token, labels, layers, starts, pictures, answers, n: token.length, sql: view.sql };
  }
  moedb.tokensOf = function (name) {
    if (!read.has(name)) {
      read.set(name, unpacked(name));
      read.get(name).catch(() => read.delete(name));  // it is asked for again
    }
    return read.get(name);
  };

  let known = null;
  moedb.examples = function () {
    if (known === null) {
      known = examples();
      known.catch(() => { known = null; });
    }
    return known;
  };
  async function examples() {
    const view = await moedb.view("examples");
    const [example_id, split, n_tokens] = await Promise.all([view.example_id, view.split, view.n_tokens].map(moedb.column));
    const labels = await Promise.all(view.labels.map(async (each) => ({ key: each.key, value: await moedb.column(each.value) })));
    const twins = new Map();
    const twin = labels.find((each) => each.key === "twin_of");
    if (twin) {
      twin.value.forEach((other, at) => {
        if (other === null || !/^\d+$/.test(other)) return;
        twins.set(example_id[at], Number(other));
        twins.set(Number(other), example_id[at]);
      });
    }
    return { example_id, split, n_tokens, labels, twins, run_b: view.run_b, slices: view.slices };
  }

  function tokensOfExample(all, example) {
    const start = all.starts.get(example);
    if (start === undefined) return null;
    let end = start;
    while (end < all.n && all.example_id[end] === example) end += 1;
    return d3.range(start, end);
  }

  // what stands before a token, and the token
  const before = (all, at, n) => d3.range(Math.max(all.starts.get(all.example_id[at]), at - n), at + 1).map((i) => all.token[i]).join("");

  // tokens of this file that share most decisions with one, over all layers; after the same words one of them
  function neighbours(all, at) {
    const found = [];
    for (let other = 0; other < all.n; other++) {
      if (other === at) continue;
      let shared = 0;
      for (const { expert, top_k } of all.layers) {
        for (let i = at * top_k; i < (at + 1) * top_k; i++) {
          for (let j = other * top_k; j < (other + 1) * top_k; j++) if (expert[i] === expert[j]) shared += 1;
        }
      }
      found.push([shared, other]);
    }
    found.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
    const kept = [];
    const seen = new Set([before(all, at, ALIKE)]);
    for (const pair of found) {
      const words = before(all, pair[1], ALIKE);
      if (seen.has(words)) continue;
      seen.add(words);
      kept.push(pair);
      if (kept.length === NEIGHBOURS) break;
    }
    return kept;
  }

  const positionOf = (all, at) => at - all.starts.get(all.example_id[at]);

  function details(all, at) {
    const place = element("section", { "aria-live": "polite" });
    place.append(element("h2", null, "Token "), element("p", null, element("code", null, moedb.token(all.token[at] ?? "")), ` at position ${positionOf(all, at)} of example ${all.example_id[at]}, token_idx ${all.token_idx[at]}`));
    const facts = element("dl", { class: "facts" });
    for (const { key, value } of all.labels) if (value[at] !== null) facts.append(element("dt", null, moedb.visible(key)), element("dd", null, moedb.visible(value[at])));
    place.append(facts);
    const most = Math.max(...all.layers.map((layer) => layer.top_k));
    const head = element("tr", null, element("th", null, "layer"), element("th", null, "entropy"), ...d3.range(most).map((rank) => element("th", null, "rank " + rank)));
    const body = all.layers.map((layer) => {
      const cells = d3.range(layer.top_k).map((rank) => {
        const expert = layer.expert[at * layer.top_k + rank];
        const link = element("a", { href: "#" + moedb.expertLink(layer.layer, expert) }, "expert " + expert);
        return element("td", null, link, element("br"), "weight " + moedb.number(layer.weight[at * layer.top_k + rank]));
      });
      const shared = layer.shared === null || layer.shared[at] === UNMATCHED ? "" : `, ${layer.shared[at]} shared`;
      return element("tr", null, element("th", { scope: "row" }, String(layer.layer)), element("td", null, moedb.number(WAYS.entropy.value(layer, at)) + shared), ...cells);
    });
    place.append(element("div", { class: "scrolled", tabindex: 0, role: "region", "aria-label": "experts of the token" }, element("table", { class: "plain" }, element("thead", null, head), element("tbody", null, ...body))));
    const decisions = d3.sum(all.layers, (layer) => layer.top_k);
    const list = element("ol", { class: "contexts" });
    for (const [shared, other] of neighbours(all, at)) {
      const example = all.example_id[other];
      const own = tokensOfExample(all, example);
      const around = own.slice(Math.max(0, positionOf(all, other) - 6), positionOf(all, other) + 4);
      const text = around.map((i) => element("span", { class: i === other ? "piece chosen" : "piece" }, moedb.visible(all.token[i] ?? "")));
      list.append(element("li", null, element("a", { class: "of", href: `#example/${example}/${positionOf(all, other)}` }, `${shared} of ${decisions}`), ...text));
    }
    place.append(element("h3", null, "Tokens after other words that go to the most of its experts, over all layers"), list);
    return place;
  }

  function row(all, example, state, twin, choose) {
    const own = tokensOfExample(all, example);
    const line = element("div", { class: "tokens", role: "group", "aria-label": "tokens of example " + example });
    const layer = all.layers[state.layer];
    const way = WAYS[state.way];
    const values = own.map((at) => way.value(layer, at));
    const most = d3.max(all === state.all ? state.shownValues(all) : values) || 1;
    own.forEach((at, place) => {
      const value = values[place];
      const isKnown = !moedb.isMissing(value);
      const said = isKnown ? way.said(value, layer) : "";
      const made = element("button", { type: "button", class: "token", "aria-pressed": String(at === state.at), on: { click: () => choose(at) } }, moedb.token(all.token[at] ?? "image"), element("small", null, said));
      if (isKnown) {
        made.style.backgroundColor = way.colour(value, most, layer);
        made.style.color = d3.lab(d3.color(made.style.backgroundColor)).l > 55 ? "#111" : "#fff";
      }
      if (twin && all.token[twin[place]] !== all.token[at]) made.classList.add("differs");
      line.append(made);
    });
    return line;
  }

  // a box that finds examples of this file by a text in them
  function finder(all) {
    const found = element("ol", { class: "contexts", "aria-live": "polite" });
    const look = (text) => {
      found.replaceChildren();
      if (text === "") return;
      for (const example of all.starts.keys()) {
        if (found.children.length === MOST_FOUND) break;
        const whole = tokensOfExample(all, example).map((at) => all.token[at] ?? "").join("");
        const at = whole.indexOf(text);
        if (at < 0) continue;
        const near = whole.slice(Math.max(0, at - 40), at + text.length + 40);
        found.append(element("li", null, element("a", { class: "of", href: "#example/" + example }, "example " + example), moedb.visible(near)));
      }
      if (found.children.length === 0) found.append(element("li", null, `no example from ${all.example_id[0]} to ${all.example_id[all.n - 1]}`));
    };
    const box = element("input", { type: "search", placeholder: "a text", on: { change: (event) => look(event.target.value) } });
    return [element("label", null, "find", box), found];
  }

  moedb.pages.example = async function (main, example, position) {
    const index = moedb.block("index");
    const slice = index.slices.findIndex(([first, last]) => example >= first && example <= last);
    const list = await moedb.examples();
    const all = slice < 0 ? null : await moedb.tokensOf("tokens-" + slice);
    const own = all && tokensOfExample(all, example);
    if (!own) {
      main.append(element("p", { class: "missing" }, `The tokens of example ${example} are not here.`));
      return;
    }
    if (all.pictures) {
      moedb.showImage(main, all, list, own[0]);
      return;
    }
    const at = list.example_id.indexOf(example);
    const go = (other) => { if (other !== undefined) location.hash = "example/" + other; };
    const other = list.twins.get(example);
    const twin = other === undefined ? null : tokensOfExample(all, other);
    const hasAgreement = all.layers.some((layer) => layer.shared !== null);
    const hasEntropy = all.layers.some((layer) => layer.entropy !== null);
    const ways = Object.keys(WAYS).filter((way) => (way !== "agreement" || hasAgreement) && (way !== "entropy" || hasEntropy));
    const state = moedb.tokenState || (moedb.tokenState = { layer: 0, way: "expert" });
    state.all = all;
    state.at = position === undefined ? null : own[position];
    state.shownValues = (each) => {
      const layer = each.layers[state.layer];
      return [own, twin || []].flat().map((i) => WAYS[state.way].value(layer, i)).filter((value) => !moedb.isMissing(value));
    };
    const number = element("input", { type: "number", min: list.example_id[0], max: list.example_id[list.example_id.length - 1], value: example, "aria-label": "example", on: { change: (event) => go(Number(event.target.value)) } });
    const rows = element("div");
    const below = element("div");
    const draw = () => {
      const chosen = (i) => history.replaceState(null, "", `#example/${all.example_id[i]}/${positionOf(all, i)}`);
      const choose = (i) => {
        state.at = i;
        chosen(i);
        draw();
        below.replaceChildren(details(all, i));
      };
      const parts = [row(all, example, state, twin, choose)];
      if (twin) parts.unshift(element("h2", null, `Example ${example} (${list.split[at]})`));
      if (twin) parts.push(element("h2", null, `Its twin, example ${other}; tokens that differ have a dashed edge`), row(all, other, state, own, choose));
      rows.replaceChildren(...parts);
    };
    const layers = all.layers.map((layer) => layer.layer);
    const [find, found] = finder(all);
    main.append(
      element("h1", null, `Example ${example}`),
      element("div", { class: "controls" },
        element("button", { type: "button", on: { click: () => go(list.example_id[at - 1]) } }, "Previous"),
        element("label", null, "example", number),
        element("button", { type: "button", on: { click: () => go(list.example_id[at + 1]) } }, "Next"),
        moedb.choice("layer", layers, layers[state.layer], (layer) => { state.layer = layers.indexOf(layer); draw(); }),
        moedb.choice("colour by", ways, state.way, (way) => { state.way = way; draw(); }),
        find),
      found,
    );
    const facts = element("dl", { class: "facts" });
    for (const { key, value } of list.labels) if (value[at] !== null) facts.append(element("dt", null, moedb.visible(key)), element("dd", null, moedb.visible(value[at])));
    main.append(facts);
    if (hasAgreement) main.append(element("p", { class: "note" }, `Agreement: how many of a token's experts ${moedb.visible(list.run_b)} chose too.`));
    main.append(element("p", { class: "note" }, "The first-ranked expert, its weight, or the entropy of the router; click a token for its experts in all layers."), rows, below);
    draw();
    if (state.at !== null && state.at !== undefined) below.replaceChildren(details(all, state.at));
  };
})(window.moedb);
