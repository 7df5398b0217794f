// Elements of the page, made of texts: nothing that comes from a store is ever read as markup.
"use strict";
window.moedb = {};
(function (moedb) {
  const SVG = "http://www.w3.org/2000/svg";

  function filled(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "on") {
        for (const [event, does] of Object.entries(value)) made.addEventListener(event, does);
      } else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value != null) made.setAttribute(name, String(value));
    }
    for (const child of children) {
      if (child != null) made.append(child);  // append makes a text of what is no node
    }
    return made;
  }

  moedb.element = function (tag, attributes, ...children) {
    return filled(document.createElement(tag), attributes, children);
  };

  moedb.drawn = function (tag, attributes, ...children) {
    return filled(document.createElementNS(SVG, tag), attributes, children);
  };

  // a choice among texts; `choose` is called with the one that is chosen
  moedb.choice = function (label, options, chosen, choose) {
    const select = moedb.element("select", { on: { change: () => choose(options[select.selectedIndex]) } });
    for (const option of options) {
      const shown = moedb.element("option", { selected: option === chosen }, moedb.visible(String(option)));
      select.append(shown);
    }
    return moedb.element("label", null, label, select);
  };

  moedb.folded = function (title, fill) {
    const made = moedb.element("details", null, moedb.element("summary", null, title));
    made.addEventListener("toggle", () => {
      if (made.open && !made.dataset.filled) {
        made.dataset.filled = "yes";
        fill(made);
      }
    });
    return made;
  };
})(window.moedb);
