// What may come next in a text area: a list below it, gone through with the arrow keys, taken with Tab.
"use strict";
(function (moedb) {
  const { element } = moedb;
  const PAUSE = 150;
  const MOST = 12;

  moedb.completing = function (area) {
    const list = element("ul", { class: "offers", role: "listbox", id: "offers", "aria-label": "what may come next" });
    let offers = [];
    let chosen = 0;
    let asked = null;
    let pause = null;

    function close() {
      offers = [];
      list.replaceChildren();
      area.setAttribute("aria-expanded", "false");
      area.removeAttribute("aria-activedescendant");
    }
    function mark() {
      Array.from(list.children).forEach((line, at) => line.setAttribute("aria-selected", String(at === chosen)));
      area.setAttribute("aria-activedescendant", "offer-" + chosen);
    }
    function take(at) {
      const [text, start] = offers[at];
      const cursor = area.selectionStart;
      area.setRangeText(text, cursor + start, cursor, "end");
      close();
      area.focus();
    }
    function show(found) {
      close();
      offers = found.slice(0, MOST);
      chosen = 0;
      offers.forEach(([text, , kind], at) => {
        const line = element("li", { role: "option", id: "offer-" + at, on: { mousedown: (event) => { event.preventDefault(); take(at); } } },
          moedb.visible(text), element("small", null, " " + kind));
        list.append(line);
      });
      if (offers.length === 0) return;
      area.setAttribute("aria-expanded", "true");
      mark();
    }
    async function ask() {
      if (asked) asked.abort();
      asked = new AbortController();
      const text = area.value.slice(0, area.selectionStart);
      try {
        const found = await moedb.post("complete", { text }, asked.signal);
        if (text === area.value.slice(0, area.selectionStart)) show(found.offers);
      } catch {
        close();  // it is offered nothing; what is run says why
      }
    }

    area.addEventListener("input", () => {
      clearTimeout(pause);
      if (/\w|\.|'$/.test(area.value.slice(0, area.selectionStart).slice(-1))) pause = setTimeout(ask, PAUSE);
      else close();
    });
    area.addEventListener("blur", close);
    area.addEventListener("keydown", (event) => {
      if (event.key === " " && event.ctrlKey) {
        event.preventDefault();
        ask();
      } else if (offers.length === 0) return;
      else if (event.key === "Tab") {
        event.preventDefault();
        take(chosen);
      } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        chosen = (chosen + (event.key === "ArrowDown" ? 1 : offers.length - 1)) % offers.length;
        mark();
      } else if (event.key === "Escape") close();
    });
    close();
    return { list, close };
  };
})(window.moedb);
