// The page of a run: its sections, each part with its figures, its table and how it was asked.
"use strict";
(function (moedb) {
  const { element } = moedb;
  moedb.pages = {};

  // how the rows of a part are had again
  moedb.howAsked = function (part) {
    const copied = element("button", { type: "button", on: { click: () => moedb.copy(part.command, copied) } }, "Copy the command");
    return moedb.folded("How it was asked", (host) => {
      host.append(
        element("p", { class: "asks" }, part.asks || ""),
        element("pre", null, moedb.visible(part.command)),
        element("div", { class: "controls" }, copied),
        element("pre", null, part.sql || ""),
        element("p", { class: "note" }, moedb.visible(part.footer || "")),
      );
    });
  };

  moedb.missingLine = (part) => element("p", { class: "missing" }, `Left out: ${moedb.visible(part.caption)}. ${moedb.visible(part.missing)}`);

  moedb.showPart = async function (host, part) {
    host.append(element("h3", null, moedb.visible(part.caption)));
    if (part.missing) {
      host.append(moedb.missingLine(part));
      return;
    }
    const table = await moedb.partTable(part);
    for (const spec of part.figures) moedb.figures[spec.kind](host, part, spec, table);
    const shown = moedb.folded(`Table: ${table.n.toLocaleString("en-US")} rows`, (place) => moedb.showTable(place, table, part.caption));
    host.append(shown, moedb.howAsked(part));
    if (part.figures.length === 0) shown.open = true;
  };

  async function showAbout(host, view) {
    const facts = element("dl", { class: "facts" });
    for (const [name, value] of view.items) facts.append(element("dt", null, moedb.visible(name)), element("dd", null, moedb.visible(value)));
    host.append(facts);
    host.append(
      moedb.folded("Settings, layers, tables and arrays", async (place) => {
        moedb.showTable(place, await moedb.table(view.table), "What the run is and holds");
        place.append(element("pre", null, view.command));
      }),
    );
  }

  moedb.pages.overview = async function (main) {
    const index = await moedb.view("index");
    main.append(element("h1", null, moedb.visible(index.title)));
    for (const name of index.sections) {
      const view = await moedb.view(name);
      const section = element("section", { id: "section-" + name }, element("h2", null, view.title));
      main.append(section);
      if (view.text) section.append(element("p", { class: "note" }, moedb.visible(view.text)));
      for (const note of view.notes || []) section.append(element("p", { class: "missing" }, moedb.visible(note)));
      if (view.items) await showAbout(section, view);
      for (const part of view.parts || []) await moedb.showPart(section, part);
    }
    if (index.notes.length) {
      main.append(element("h2", null, "What is not in this file"));
      for (const note of index.notes) main.append(element("p", { class: "missing" }, moedb.visible(note)));
    }
  };
})(window.moedb);
