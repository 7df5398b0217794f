// Where data is from. Here: blocks of JSON in the page. What serves pages may put another `fetchView` in place.
"use strict";
(function (moedb) {
  const ARRAYS = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, i32: Int32Array, f32: Float32Array, f64: Float64Array };
  const held = new Map();

  async function inflated(packed) {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // a column as written by moedb/queries/report/pages/columns.py: texts, or a typed array
  moedb.column = async function (given) {
    const type = given.type === "text" ? given.codes : given.type;
    const planes = await inflated(given.data);
    const size = ARRAYS[type].BYTES_PER_ELEMENT;
    const bytes = new Uint8Array(planes.length);
    for (let plane = 0; plane < size; plane++) {
      for (let at = 0; at < given.n; at++) bytes[at * size + plane] = planes[plane * given.n + at];
    }
    const numbers = new ARRAYS[type](bytes.buffer);
    return given.type === "text" ? Array.from(numbers, (at) => given.values[at]) : numbers;
  };

  // a table: its columns by name, what each is, and how many rows there are
  moedb.table = async function (given) {
    const columns = {};
    const about = {};
    const read = await Promise.all(given.columns.map(moedb.column));
    given.columns.forEach((column, at) => {
      columns[column.name] = read[at];
      about[column.name] = column.is || "";
    });
    return { n: given.n, names: Object.keys(columns), columns, about };
  };

  moedb.block = function (name) {
    const block = document.getElementById("view-" + name);
    return block === null ? null : JSON.parse(block.textContent);
  };

  moedb.fetchView = async (name, _signal) => moedb.block(name);

  // what a view gave, read once; null where this page does not have it
  const coming = new Map();
  moedb.view = function (name) {
    if (!held.has(name)) {
      const stop = new AbortController();
      const asked = moedb.fetchView(name, stop.signal);
      held.set(name, asked);
      coming.set(name, stop);
      const came = () => coming.get(name) === stop && coming.delete(name);
      // what failed is asked for again
      asked.then(came, () => came() && held.delete(name));
    }
    return held.get(name);
  };

  // the page is left: what has not come is not waited for any more
  moedb.leave = function () {
    for (const [name, stop] of coming) {
      held.delete(name);
      coming.delete(name);
      stop.abort();
    }
  };

  // the table of a part of a section, read once; null where there is none
  moedb.partTable = function (part) {
    if (!part || !part.table) return Promise.resolve(null);
    const key = "part " + part.id;
    if (!held.has(key)) held.set(key, moedb.table(part.table));
    return held.get(key);
  };

  moedb.part = async function (section, id) {
    const view = await moedb.view(section);
    return view && view.parts ? view.parts.find((part) => part.id === id) || null : null;
  };
})(window.moedb);
