// Which page is shown: by the part of the address behind #, also from file to file of a folder.
"use strict";
(function (moedb) {
  const { element } = moedb;
  const main = document.getElementById("main");
  const places = moedb.block("places");
  const index = moedb.block("index");

  // the view that a page needs, and what shows it
  function routeOf(hash) {
    const [name, ...rest] = hash.replace(/^#/, "").split("/");
    const numbers = rest.map(Number);
    if (name === "expert" && numbers.length >= 2 && numbers.every(Number.isInteger)) {
      return { needs: "experts-" + numbers[0], show: (place) => moedb.pages.expert(place, numbers[0], numbers[1]) };
    }
    if (name === "example" && numbers.length >= 1 && numbers.every(Number.isInteger)) {
      const slice = index.slices.findIndex(([first, last]) => numbers[0] >= first && numbers[0] <= last);
      return { needs: "tokens-" + Math.max(slice, 0), show: (place) => moedb.pages.example(place, numbers[0], numbers[1]) };
    }
    if (name === "images" && index.slices.length > 0) {
      const slice = index.slices[numbers[0]] === undefined ? 0 : numbers[0];
      return { needs: "tokens-" + slice, show: (place) => moedb.pages.images(place, slice) };
    }
    if (name in moedb.more) return { needs: "index", show: (place) => moedb.more[name](place, rest) };
    return { needs: "about", show: moedb.pages.overview, section: name === "section" ? rest[0] : null };
  }

  let shown = null;
  async function follow() {
    const hash = location.hash;
    if (hash === "#main" && shown !== null) return;
    const route = routeOf(hash);
    if (document.getElementById("view-" + route.needs) === null && moedb.fetchView.isEmbedded !== false) {
      if (places[route.needs]) location.href = places[route.needs] + hash;
      else {
        main.replaceChildren(element("p", { class: "missing" }, `There is no ${route.needs} in this report.`));
        main.dataset.shown = shown = hash;
      }
      return;
    }
    const key = route.section !== undefined ? "overview" : hash;
    if (shown !== key) {
      shown = key;
      // what is slow goes on in a place of its own, which may be gone by then
      const place = element("div");
      moedb.leave();
      main.replaceChildren(place);
      window.scrollTo(0, 0);
      try {
        await route.show(place);
      } catch (error) {
        place.append(element("p", { class: "missing", role: "alert" }, moedb.visible(error.message)));
      }
      if (!place.isConnected) return;
      main.dataset.shown = key;
      if (hash !== "") main.focus({ preventScroll: true });
    }
    if (route.section) {
      const section = document.getElementById("section-" + route.section);
      if (section) section.scrollIntoView();
    }
  }

  function addNavigation() {
    const nav = document.getElementById("sections");
    for (const [title, hash] of index.links) nav.append(element("a", { href: "#" + hash }, title));
  }

  function addThemes() {
    const button = document.getElementById("theme");
    const root = document.documentElement;
    const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    const name = () => (button.textContent = isDark() ? "Light" : "Dark");
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      name();
    });
    name();
  }

  addNavigation();
  addThemes();
  window.addEventListener("hashchange", follow);
  follow();
})(window.moedb);
