// Runs in a page and gives what the tests want to know of it.
async () => {
  const shown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const still = document.createElement("style"); // colours as they are in the end, not on their way there
  still.textContent = "* { transition: none !important; animation: none !important }";
  document.head.append(still);

  // WCAG 2.2, relative luminance and contrast ratio; a translucent colour lies on what is behind it.
  const numbers = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const over = (top, below) => {
    const mix = (channel) => top[channel] * top.a + below[channel] * (1 - top.a);
    return { r: mix("r"), g: mix("g"), b: mix("b"), a: 1 };
  };
  const luminance = ({ r, g, b }) => {
    const [x, y, z] = [r, g, b].map((v) => (v <= 10.31475 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const backgrounds = new Map();
  const background = (element) => {
    if (!element) return { r: 255, g: 255, b: 255, a: 1 };
    if (!backgrounds.has(element)) {
      const own = numbers(getComputedStyle(element).backgroundColor);
      backgrounds.set(element, own.a === 1 ? own : over(own, background(element.parentElement)));
    }
    return backgrounds.get(element);
  };
  const faint = () => {
    backgrounds.clear();
    const found = new Map();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement;
      if (!node.data.trim() || element.closest("svg, script, style, .katex-mathml, [disabled]")) continue;
      const style = getComputedStyle(element);
      const size = parseFloat(style.fontSize);
      const key = `${style.color} ${style.fontWeight} ${size} ${JSON.stringify(background(element))}`;
      if (found.has(key) || !shown(element) || !element.getClientRects().length) continue;
      const behind = background(element);
      const [light, dark] = [luminance(over(numbers(style.color), behind)), luminance(behind)].sort((x, y) => y - x);
      const ratio = (light + 0.05) / (dark + 0.05);
      const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
      const where = `${element.tagName.toLowerCase()}.${element.className}`;
      found.set(key, ratio < (large ? 3 : 4.5) ? `${ratio.toFixed(2)} ${where} ${style.color}: ${node.data.trim().slice(0, 30)}` : "");
    }
    return [...found.values()].filter(Boolean);
  };
  const faintIn = (scheme) => {
    document.body.setAttribute("data-md-color-scheme", scheme);
    return faint();
  };

  await document.fonts.ready;
  const width = document.documentElement.clientWidth;
  const scrolls = (element) => {
    for (let e = element; e && e !== document.body; e = e.parentElement) {
      if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(e).overflowX)) return true;
    }
    return false;
  };
  const overflow = document.documentElement.scrollWidth - width;
  const wide = overflow <= 0 ? [] : [...document.querySelectorAll("main *")]
    .filter((e) => e.getBoundingClientRect().right > width + 1 && !scrolls(e))
    .map((e) => `${e.tagName.toLowerCase()}.${e.className} ${(e.textContent || "").trim().slice(0, 40)}`);
  return {
    language: document.documentElement.lang,
    title: document.title,
    headings: document.querySelectorAll("h1").length,
    levels: [...document.querySelectorAll("article :is(h1, h2, h3, h4, h5, h6)")].map((h) => Number(h.tagName[1])),
    links: [...document.querySelectorAll("a[href]")].map((a) => a.href),
    nameless: [...document.querySelectorAll("a[href], button, input, select, textarea, summary")]
      .filter((e) => shown(e) && e.getClientRects().length)
      .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.title || e.labels?.length || e.querySelector("[alt]")))
      .map((e) => e.outerHTML.slice(0, 80)),
    ids: [...document.querySelectorAll("[id]")].map((e) => e.id),
    images: [...document.querySelectorAll("img")].filter((i) => !(i.alt || "").trim()).map((i) => i.src),
    graphics: [...document.querySelectorAll("figure.plot svg")]
      .filter((s) => !(s.getAttribute("role") === "img" && (s.ariaLabel || s.querySelector("title")))).length,
    unloaded: [...document.querySelectorAll("img")].filter((i) => i.complete && !i.naturalWidth).map((i) => i.src),
    untypeset: document.querySelectorAll(".arithmatex:not(:has(.katex)), .katex-error").length,
    overflow,
    wide: wide.slice(0, 5),
    faint: { light: faintIn("default"), dark: faintIn("slate") },
  };
}
