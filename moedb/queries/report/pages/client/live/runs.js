// The choice of a run and of one beside it, and whether the store has more by now.
"use strict";
(function (moedb) {
  const { element } = moedb;
  const live = moedb.block("live");
  const LOOK = 60000;
  const NONE = "none";

  // a run's page, at the place of this one; layers and examples may be others there
  function open(run, run_b) {
    const asked = new URLSearchParams(run_b === null || run_b === run ? { run } : { run, run_b });
    location.href = `/?${asked}`;
  }

  const titles = live.runs.map(([, title]) => title);
  const idOf = (title) => live.runs[titles.indexOf(title)][0];
  const titleOf = (id) => (live.runs.find(([each]) => each === id) || [id, id])[1];
  const others = [NONE, ...titles.filter((title) => idOf(title) !== live.run)];
  const news = element("span", { role: "status" });
  const bar = element(
    "div", { class: "controls runs" },
    moedb.choice("run", titles, titleOf(live.run), (title) => open(idOf(title), live.run_b)),
    moedb.choice("beside it", others, live.run_b === null ? NONE : titleOf(live.run_b), (title) => open(live.run, title === NONE ? null : idOf(title))),
    news,
    moedb.busy,
  );
  document.querySelector("header.top").append(bar);

  async function look() {
    if (document.visibilityState !== "visible" || news.firstChild) return;
    try {
      if ((await moedb.get("news")).changed) {
        const again = new URLSearchParams({ ...moedb.shownRuns(), fresh: "1" });
        news.append(element("a", { href: `/?${again}` }, "The store has changed: read it again"));
      }
    } catch {
      clearInterval(looking);  // what is asked next says it
    }
  }
  const looking = setInterval(look, LOOK);
  document.addEventListener("visibilitychange", look);
})(window.moedb);
