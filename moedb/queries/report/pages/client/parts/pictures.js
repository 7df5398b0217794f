// Images of a run, which come in sheets, side by side: one of them is a piece of the sheet's picture.
"use strict";
(function (moedb) {
  const { element } = moedb;
  let made = 0;

  // the images of a view; null where it has none
  moedb.pictures = async function (given) {
    if (!given) return null;
    const { width, height, across, sheets } = given;
    const isThere = await moedb.column(given.is_there);
    const style = element("style");
    document.head.append(style);
    const first = made;
    made += sheets.length;
    sheets.forEach((sheet, at) => style.sheet.insertRule(`.sheet-${first + at} { background-image: url("data:image/jpeg;base64,${sheet}") }`));

    // one of them, so many times as large, with what is read in its place
    function picture(at, times, text) {
      const place = at % (across * across);
      const shown = element("span", { role: "img", "aria-label": text, class: "picture" });
      shown.style.width = width * times + "px";
      shown.style.height = height * times + "px";
      if (isThere[at]) {
        shown.classList.add("sheet-" + (first + Math.floor(at / (across * across))));
        shown.style.backgroundSize = `${across * width * times}px auto`;
        shown.style.backgroundPosition = `${-(place % across) * width * times}px ${-Math.floor(place / across) * height * times}px`;
      } else shown.append(element("small", null, "not kept"));
      return shown;
    }
    return { picture, isThere, n: isThere.length };
  };
})(window.moedb);
