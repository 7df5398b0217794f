// Colours: from nothing up, around 0, or around 1 for lifts.
"use strict";
(function (moedb) {
  const LIFTS = [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8];
  const FARTHEST = 8;  // lifts beyond it, and below 1/8, have the colours of the ends

  moedb.colours = function (name, values) {
    const there = values.filter((value) => !moedb.isMissing(value));
    if (name === "lift") {
      return {
        scale: { type: "diverging-log", scheme: "BuRd", pivot: 1, domain: [1 / FARTHEST, FARTHEST], clamp: true, label: name, ticks: LIFTS, tickFormat: (v) => (v < 1 ? `1/${Math.round(1 / v)}` : String(v)) },
        fit: (value) => Math.min(FARTHEST, Math.max(1 / FARTHEST, value)),
      };
    }
    const least = d3.min(there) ?? 0;
    const most = d3.max(there) ?? 1;
    if (least < 0) {
      const end = Math.max(-least, most);
      return { scale: { type: "diverging", scheme: "BuRd", pivot: 0, domain: [-end, end], label: name }, fit: (value) => value };
    }
    return { scale: { type: "linear", scheme: "viridis", domain: [0, most || 1], label: name }, fit: (value) => value };
  };

  // whether the interval of a lift holds 1, so that it is not told from chance
  moedb.isUnsure = function (table, name, row) {
    const low = table.columns[name + "_low"];
    const high = table.columns[name + "_high"];
    if (name !== "lift" || !low || !high) return false;
    return moedb.isMissing(low[row]) || moedb.isMissing(high[row]) || (low[row] <= 1 && high[row] >= 1);
  };

  // as many ticks as there is room for
  moedb.everyNth = function (values, width, room = 26) {
    const step = Math.max(1, Math.ceil((values.length * room) / width));
    return values.filter((_, at) => at % step === 0);
  };

  const SERIES = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"];
  moedb.seriesColour = (at) => SERIES[at % SERIES.length];

  moedb.shade = (share) => d3.interpolateYlOrRd(0.08 + 0.62 * Math.max(0, Math.min(1, share)));
})(window.moedb);
