// What can be computed inside of a page: functions on `window.audit`, each returns sentences about what is wrong.
(() => {
  const shown = el => el.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const named = el => {
    const text = (el.getAttribute("aria-label") || el.textContent || el.value || "").trim().replace(/\s+/g, " ");
    return `<${el.tagName.toLowerCase()}${el.id ? ` id=${el.id}` : ""}${el.type ? ` type=${el.type}` : ""}> "${text.slice(0, 40)}"`;
  };
  const unique = words => [...new Set(words)];

  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = css => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = css;
    pixel.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((x, i) => x * a + below[i] * (1 - a));
  const luminance = rgb => rgb.map(x => x / 255)
    .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  // The color below an element's text, null where a picture is; the share of the text's color that its ancestors leave.
  const ground = el => {
    const layers = [];
    let opacity = 1;
    for (let at = el; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.backgroundImage !== "none") return null;
      layers.push(rgba(style.backgroundColor));
      if (layers.at(-1)[3] === 1) break;
      opacity *= Number(style.opacity);
    }
    return { color: layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255]), opacity };
  };
  const faint = (el, style, words) => {
    const below = ground(el);
    const size = parseFloat(style.fontSize);
    if (!below || size === 0) return [];
    const [r, g, b, a] = rgba(el instanceof SVGElement ? style.fill : style.color);
    const found = ratio(over([r, g, b, a * below.opacity], below.color), below.color);
    const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    return found < needed - 0.005 ? [`contrast ${found.toFixed(2)} of "${words.slice(0, 40)}" in ${named(el)}`] : [];
  };

  const contrast = () => {
    const words = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const el = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(el.tagName)) continue;
      if (!shown(el) || el.closest(":disabled, [aria-disabled=true]") || el.getBoundingClientRect().width <= 1) continue;
      words.push(...faint(el, getComputedStyle(el), walker.currentNode.data.trim()));
    }
    for (const el of document.body.querySelectorAll("*")) {
      if (!shown(el) || el.closest(":disabled")) continue;
      if (el.matches("input:not([type=checkbox], [type=radio], [type=range]), textarea")) words.push(...faint(el, getComputedStyle(el), el.value || ""));
      if (el.placeholder && !el.value) words.push(...faint(el, getComputedStyle(el, "::placeholder"), el.placeholder));
      for (const pseudo of ["::before", "::after"]) {
        const style = getComputedStyle(el, pseudo);
        const text = style.content.match(/^"(.*)"$/s)?.[1].trim();
        if (text) words.push(...faint(el, style, text));
      }
    }
    return unique(words);
  };

  const document_ = () => {
    const words = [];
    if (!document.documentElement.lang) words.push("no lang");
    if (!document.title.trim()) words.push("no title");
    if (!document.querySelector("meta[name=viewport][content*='width=device-width']")) words.push("no viewport");
    const ids = [...document.querySelectorAll("[id]:not([id=''])")].map(el => el.id);
    words.push(...unique(ids.filter((id, i) => ids.indexOf(id) !== i)).map(id => `id ${id} twice`));
    for (const img of document.images) if (shown(img) && !img.hasAttribute("alt")) words.push(`no alt of ${img.src.slice(0, 60)}`);
    for (const svg of document.querySelectorAll("svg[role=img]:not([aria-label], [aria-hidden=true])")) words.push(`no label of ${named(svg)}`);
    return unique(words);
  };

  const stops = () => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")]
    .filter(el => el.tabIndex >= 0 && !el.disabled && shown(el));

  const wide = () => {
    const width = screen.width, scroll = document.documentElement.scrollWidth;
    const words = scroll > width ? [`${scroll} px wide on a screen of ${width}`] : [];
    const scrolls = el => el && (["auto", "scroll"].includes(getComputedStyle(el).overflowX) || scrolls(el.parentElement));
    for (const el of stops()) {
      const { left, right } = el.getBoundingClientRect();
      if ((left < -1 || right > width + 1) && right > left && !scrolls(el)) words.push(`out of the screen: ${named(el)}`);
    }
    return words;
  };

  const look = el => {
    const parts = [el, el.parentElement, el.parentElement?.parentElement, el.nextElementSibling].filter(Boolean);
    return parts.map(part => {
      const s = getComputedStyle(part);
      return [s.outlineStyle, s.outlineWidth, s.outlineColor, s.boxShadow, s.borderColor, s.backgroundColor].join();
    }).join("|");
  };
  // Before tabbing: what can be reached and how it looks. After it: what was never reached, is out of order or unseen.
  let before, seen;
  const watch = () => {
    for (const frame of document.querySelectorAll("iframe")) frame.inert = true; // keys of a driver stay in a sandbox
    document.activeElement.blur();
    before = new Map(stops().map(el => [el, look(el)]));
    seen = [];
    document.addEventListener("focusin", ({ target }) => seen.push([target, look(target)]));
    return before.size;
  };
  const walked = () => {
    const reached = new Set(seen.map(([el]) => el));
    const group = el => el.type === "radio" && [...reached].some(other => other.type === "radio" && other.name === el.name);
    const words = [...before.keys()].filter(el => !reached.has(el) && !group(el)).map(el => `Tab never reaches ${named(el)}`);
    const marked = new Set(seen.filter(([el, focused]) => before.get(el) !== focused).map(([el]) => el));
    words.push(...[...reached].filter(el => !marked.has(el)).map(el => `focus is not seen on ${named(el)}`));
    const backwards = seen.slice(1).filter(([el], i) => el.compareDocumentPosition(seen[i][0]) & Node.DOCUMENT_POSITION_FOLLOWING);
    if (backwards.length > 1) words.push(...backwards.map(([el]) => `Tab goes back to ${named(el)}`));
    return unique(words);
  };
  const still = document.createElement("style");
  still.textContent = "* { transition: none !important; animation: none !important; }";
  document.head.append(still);
  window.audit = { contrast, document: document_, wide, watch, walked };
})();
