// The picture of tokens thinking, drawn as looplm/evaluate/figures.py draws it: columns are tokens, rows are loops.
"use strict";

(() => {
  const CELL = { width: 26, height: 22, left: 44, top: 26 };
  // Cividis, which reads the same with any kind of colour vision, at tenths.
  const CIVIDIS = ["#00224e", "#083370", "#35456c", "#4f576c", "#666970", "#7d7c78", "#948e77", "#aea371", "#c8b866", "#e5cf52", "#fee838"];
  const DARK_BELOW = 0.55;

  const percent = (p) => (p > 0.99 && p < 1 ? `${Math.min(99.99, p * 100).toFixed(2)} %` : `${(p * 100).toFixed(0)} %`);

  function colour(p) {
    const at = Math.min(p, 1 - 1e-9) * (CIVIDIS.length - 1);
    const [low, high] = [CIVIDIS[Math.floor(at)], CIVIDIS[Math.floor(at) + 1]];
    const channel = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
    const mixed = [0, 1, 2].map((i) => channel(low, i) + (channel(high, i) - channel(low, i)) * (at % 1));
    return `rgb(${mixed.map(Math.round)})`;
  }

  function element(name, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  /** An SVG of a solved sum; its rows are those of the answer's tokens. */
  function draw(solved, words, spoken) {
    const { tokens } = solved;
    const rows = Math.max(...tokens.filter(({ role }) => role === "answer").map(({ loops }) => loops));
    const x = (column) => CELL.left + column * CELL.width;
    const y = (loop) => CELL.top + (loop - 1) * CELL.height;
    const [width, height] = [x(tokens.length) + 2, y(rows + 1) + CELL.height + 4];
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": spoken });
    const write = (text, column, middle, more = {}) =>
      element("text", { x: x(column) + CELL.width / 2, y: middle, "text-anchor": "middle", "dominant-baseline": "central", ...more }, text);
    for (let loop = 1; loop <= rows; loop++) {
      const row = element("g", { class: "live-row", style: `--loop: ${loop}` });
      row.append(write(`${loop}`, -0.9, y(loop) + CELL.height / 2, { class: "live-faint" }));
      tokens.forEach(({ text, role, loops, guesses, confidences }, column) => {
        const box = { x: x(column), y: y(loop), width: CELL.width - 1, height: CELL.height - 1, rx: 2 };
        if (loop > loops) {
          row.append(element("rect", { ...box, class: "live-halted" }));
          return;
        }
        const [guess, p] = [guesses[loop - 1], confidences[loop - 1]];
        const faded = role === "prompt"; // nothing trains these to predict
        const said = words.cell({ token: text, loop, guess, confidence: percent(p) });
        const ink = faded ? { class: "live-faint" } : { fill: p < DARK_BELOW ? "#fff" : "#000" };
        row.append(
          element("rect", { ...box, fill: colour(p), opacity: faded ? 0.3 : 1 }, element("title", {}, said)),
          write(guess, column, y(loop) + CELL.height / 2, { ...ink, "pointer-events": "none" }),
        );
      });
      svg.append(row);
    }
    const first = tokens.findIndex(({ role }) => role === "answer");
    svg.append(element("line", { x1: x(first) - 0.5, x2: x(first) - 0.5, y1: 4, y2: y(rows + 1), class: "live-border" }));
    tokens.forEach(({ text }, column) => svg.append(write(text, column, y(rows + 1) + CELL.height / 2)));
    svg.append(write(words.loop, -0.9, 12, { class: "live-faint" }));
    return svg;
  }

  /** What the colours mean. */
  function legend(words) {
    const bar = Object.assign(document.createElement("span"), { className: "live-bar" });
    bar.style.background = `linear-gradient(to right, ${CIVIDIS})`;
    const made = Object.assign(document.createElement("p"), { className: "caption live-legend" });
    made.append("0 %", bar, `100 % ${words.legend}`);
    return made;
  }

  /** The same as a table: a row for each token. */
  function tabulate(solved, words) {
    const cell = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    head.append(...words.head.map((text) => Object.assign(cell("th", text), { scope: "col" })));
    const body = table.createTBody();
    for (const { text, role, loops, guesses, confidences } of solved.tokens) {
      const thoughts = guesses.map((guess, i) => `${guess} (${percent(confidences[i])})`).join(" → ");
      body.insertRow().append(...[text, words[role], loops, thoughts].map((value) => cell("td", value)));
    }
    return table;
  }

  Object.assign(looplmLive, { draw, legend, tabulate });
})();
