// What the tests ask of a page. Every function returns what is wrong, in words; nothing wrong is an empty list.

const inBody = (selector) => [...document.body.querySelectorAll(selector)];
const named = (element) =>
  `${element.tagName.toLowerCase()} ${JSON.stringify((element.id || element.textContent).trim().slice(0, 40))}`;
const shownBoxes = (elements) =>
  elements
    .map((element) => ({ element, box: element.getBoundingClientRect() }))
    .filter(({ box }) => box.width > 0 && box.height > 0);

// A picture's letters are outlines: matplotlib puts those of one text into a group of their own.
const lettering = (picture) => shownBoxes([...picture.querySelectorAll('[id*="text_"]')]);

function textBox(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  return range.getBoundingClientRect();
}

function outside(inner, outer) {
  const most = 1;
  return inner.left < outer.left - most || inner.right > outer.right + most || inner.top < outer.top - most ||
    inner.bottom > outer.bottom + most;
}

/** Content beside the window, and text or lettering beside what holds it. */
function cutOff() {
  const found = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) found.push(`the page is ${root.scrollWidth} pixels wide`);
  for (const { element, box } of shownBoxes(inBody("*"))) {
    if (element.closest(".scroll") && !element.matches(".scroll")) continue;
    if (box.left < 0 || box.right > root.clientWidth + 0.5) found.push(`${named(element)} leaves the window`);
  }
  for (const { element, box } of shownBoxes(inBody("h1, h2, p, dt, dd, li, th, td, figcaption, footer"))) {
    if (outside(textBox(element), box)) found.push(`${named(element)} overflows`);
  }
  for (const { element, box } of shownBoxes(inBody(".scroll > *"))) {
    const around = element.parentElement;
    const scrolls = getComputedStyle(around).overflowX !== "hidden" && !matchMedia("print").matches;
    if (box.right > around.getBoundingClientRect().right + 0.5 && !scrolls) found.push(`${named(element)} is cut`);
  }
  for (const picture of inBody("svg")) {
    const frame = picture.getBoundingClientRect();
    for (const { element, box } of lettering(picture)) {
      if (outside(box, frame)) found.push(`${named(element)} leaves its picture`);
    }
  }
  return found;
}

/** Blocks, cells of a table and lettering of a picture that lie on each other. */
function overlapping() {
  const blocks = shownBoxes(inBody("h1, h2, p, dt, dd, li, .scroll, figcaption, footer"));
  const groups = [blocks, ...inBody("table").map((table) => shownBoxes([...table.querySelectorAll("th, td")])),
    ...inBody("svg").map(lettering)];
  const found = [];
  for (const group of groups) {
    group.forEach(({ element: one, box: a }, i) => {
      for (const { element: other, box: b } of group.slice(i + 1)) {
        if (one.contains(other)) continue;
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 1 && high > 1) found.push(`${named(one)} lies on ${named(other)}`);
      }
    });
  }
  return found;
}

/** Letters of fewer pixels. */
function tiny(text, lettered) {
  const found = inBody("h1, h2, p, a, dt, dd, th, td, figcaption, footer")
    .filter((element) => parseFloat(getComputedStyle(element).fontSize) < text)
    .map((element) => `${named(element)}: ${getComputedStyle(element).fontSize}`);
  for (const glyph of inBody("svg use")) {
    if (!glyph.closest('[id*="text_"]')) continue;
    const { a, b } = glyph.getScreenCTM(); // outlines are drawn at 100 pixels and scaled
    if (100 * Math.hypot(a, b) < lettered) found.push(`${named(glyph.closest("g[id]"))}: ${100 * Math.hypot(a, b)}px`);
  }
  return found;
}

const colour = (text) => {
  const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
  return [r, g, b, a];
};
const over = ([r, g, b, a], under) => [r, g, b].map((value, i) => a * value + (1 - a) * under[i]);

function paper(element) {
  if (!element) return [255, 255, 255];
  return over(colour(getComputedStyle(element).backgroundColor), paper(element.parentElement));
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((value) => {
    const s = value / 255;
    return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function ratio(ink, under) {
  const [low, high] = [luminance(over(ink, under)), luminance(under)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

/** What a picture's letters stand on: the topmost filled shape under their middle, else the paper. */
function ground(element) {
  const box = element.getBoundingClientRect();
  const stack = document.elementsFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  const shape = stack.find(
    (other) => other.closest("svg") && !other.matches("svg, g") && !other.closest('[id*="text_"]') &&
      getComputedStyle(other).fill !== "none",
  );
  const under = paper(element.closest(".scroll"));
  return shape ? over(colour(getComputedStyle(shape).fill), under) : under;
}

/** Text and lettering whose contrast is lower (WCAG 2, 1.4.3). */
function faint(least) {
  const found = [];
  const judge = (element, ink, under) => {
    const contrast = ratio(ink, under);
    if (!(contrast >= least)) found.push(`${named(element)}: ${contrast.toFixed(2)}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let judged = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("svg") || !element.checkVisibility({ visibilityProperty: true })) continue;
    judge(element, colour(getComputedStyle(element).color), paper(element));
    judged += 1;
  }
  for (const { element } of inBody("svg").flatMap(lettering)) {
    const letter = element.querySelector("use");
    if (!letter) continue;
    judge(element, colour(getComputedStyle(letter).fill), ground(element));
    judged += 1;
  }
  if (judged < 30) found.push(`only ${judged} texts were found`);
  return found;
}

/** Figures that cannot be seen, or be told of. */
function unseen() {
  const found = [];
  for (const element of inBody("svg, table")) {
    const { width, height } = element.getBoundingClientRect();
    if (width < 50 || height < 30 || !element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) found.push(`${named(element)} is not there to see`);
    if (!element.closest("figure")?.querySelector("figcaption")?.textContent.trim()) found.push(`${named(element)} has no caption`);
  }
  for (const picture of inBody("svg")) {
    if (picture.getAttribute("role") !== "img" || !picture.getAttribute("aria-label")) found.push("a picture has no alternative text");
  }
  return found;
}

/** Names of rows that a table which was scrolled has taken along, or that its cells cover. */
function lostNames() {
  const names = inBody(".scroll th[scope=row]").filter((name) => name.closest(".scroll").scrollLeft > 0);
  const found = names.length ? [] : ["nothing was scrolled"];
  for (const { element, box } of shownBoxes(names)) {
    const middle = box.top + box.height / 2;
    if (middle < 0 || middle > innerHeight) continue;
    if (document.elementFromPoint(box.left + 5, middle) !== element) found.push(`${named(element)} is covered`);
    if (outside(box, { ...element.closest(".scroll").getBoundingClientRect().toJSON() })) found.push(`${named(element)} is gone`);
  }
  return found;
}
