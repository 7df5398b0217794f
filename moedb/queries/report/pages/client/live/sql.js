// A box for SQL: a statement, its rows, and an address that leads back to it. A link fills it in; it does not run it.
"use strict";
(function (moedb) {
  const { element } = moedb;
  const live = moedb.block("live");
  const EVERY = "every run";
  const THIS = "this run";
  const FIRST = "select layer, count(*) as n_decisions\nfrom routing\ngroup by layer\norder by layer";
  let held = FIRST;
  let over = EVERY;

  function begun(rest) {
    try {
      return rest.length && rest[0] !== "" ? decodeURIComponent(rest.join("/")) : held;
    } catch {
      return held;
    }
  }

  async function show(place, found) {
    place.replaceChildren();
    if (found.note) place.append(element("p", { class: "missing" }, moedb.visible(found.note)));
    if (found.table.columns.length) moedb.showTable(place, await moedb.table(found.table), "Rows of the statement");
    place.append(element("p", { class: "note" }, moedb.visible(found.footer)));
  }

  moedb.more.sql = async function (place, rest) {
    const answer = element("section", { "aria-live": "polite", "aria-label": "Answer" });
    const area = element("textarea", { class: "sql", rows: 8, spellcheck: "false", autocapitalize: "off", autocomplete: "off", "aria-label": "SQL", role: "combobox", "aria-controls": "offers", "aria-autocomplete": "list" });
    area.value = held = begun(rest);
    const { list, close } = moedb.completing(area);
    let running = null;
    const stop = element("button", { type: "button", disabled: true, on: { click: () => running && running.abort() } }, "Stop");

    async function run() {
      if (running) running.abort();
      const mine = (running = new AbortController());
      held = area.value;
      close();
      // what runs is in the address, so that it can be kept as a link
      history.replaceState(null, "", "#sql/" + encodeURIComponent(held));
      answer.replaceChildren(element("p", { class: "note" }, "Running…"));
      stop.disabled = false;
      try {
        const sent = { statement: held, run: over === THIS ? live.run : null, snapshot: live.snapshot };
        await show(answer, await moedb.post("sql", sent, mine.signal));
      } catch (error) {
        const text = error.name === "AbortError" ? "Stopped." : error.message;
        if (running === mine) answer.replaceChildren(element("pre", { class: "failed", role: "alert" }, moedb.visible(text).replaceAll("\\n", "\n")));
      } finally {
        if (running === mine) {
          running = null;
          stop.disabled = true;
        }
      }
    }

    area.addEventListener("input", () => { held = area.value; });
    area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        run();
      }
    });
    place.append(
      element("h1", null, "SQL"),
      element("p", { class: "note" }, "One statement that reads, over tables, views and named queries as macros. Ctrl+Enter runs it; Tab takes what is offered, Ctrl+Space asks for it, Escape closes it."),
      area,
      list,
      element("div", { class: "controls" },
        element("button", { type: "button", on: { click: run } }, "Run"),
        stop,
        moedb.choice("over", [EVERY, THIS], over, (chosen) => { over = chosen; })),
      answer,
    );
  };
})(window.moedb);
