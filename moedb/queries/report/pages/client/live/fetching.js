// Where a served page's data is from: the server that gave it, asked for a view when it is to be shown.
"use strict";
(function (moedb) {
  const { element } = moedb;
  const live = moedb.block("live");
  moedb.busy = element("span", { class: "note", role: "status" });
  let waiting = 0;

  function wait(change) {
    waiting += change;
    moedb.busy.textContent = waiting > 0 ? "Working…" : "";
  }

  // the JSON at an address; what the server says of a failure is thrown
  async function answered(address, options) {
    let response;
    wait(1);
    try {
      response = await fetch(address, { cache: "no-store", ...options });
      const found = await response.json();
      if (response.ok) return found;
      const { message, hint } = found.error;
      throw new Error(hint ? `${message} (${hint})` : message);
    } catch (error) {
      if (response === undefined && error.name !== "AbortError") throw new Error("The server does not answer: it has ended.");
      throw error;
    } finally {
      wait(-1);
    }
  }

  moedb.get = (path, parameters = {}, signal = null) => answered(`${path}?${new URLSearchParams(parameters)}`, { signal });

  moedb.post = (path, sent, signal) =>
    answered(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(sent), signal });

  moedb.shownRuns = () => ({ run: live.run, ...(live.run_b === null ? {} : { run_b: live.run_b }) });

  moedb.fetchView = async function (name, signal) {
    const block = moedb.block(name);
    return block !== null ? block : moedb.get(`view/${encodeURIComponent(name)}`, { ...moedb.shownRuns(), snapshot: live.snapshot }, signal);
  };
  moedb.fetchView.isEmbedded = false;
})(window.moedb);
