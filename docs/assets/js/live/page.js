// The controls of the live page: a sum, an adder, a rule and its threshold; then the picture, and what the rule costs and gives.
"use strict";

(() => {
  const { Adder, parse, draw, legend, tabulate, words: languages } = looplmLive;
  const THRESHOLDS = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999];
  const EXAMPLES = ["99999999+1", "22222222+33333333", "12345678+7654321", "4455445+5544555", "978+457"];
  const ROWS = 8; // settings that the table remembers
  const MOST_DIGITS = 24;

  /** An element with attributes, properties being set by the dot: html("input", {type: "text", ".value": "1+1"}). */
  function html(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith(".")) made[name.slice(1)] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  function choice(name, legend, options) {
    const made = html("fieldset", {}, html("legend", {}, legend));
    options.forEach(([value, text], i) => {
      const radio = html("input", { type: "radio", name, value, ".checked": i === 0 });
      made.append(html("label", {}, radio, html("span", {}, text)));
    });
    return made;
  }

  function start(root) {
    const words = languages[document.documentElement.lang] ?? languages.en;
    const adders = {};
    const adder = (name) => (adders[name] ??= new Adder(looplmAdders[name])); // made when first asked for
    const sums = looplmSums.map(parse);

    const problem = html("input", { type: "text", inputmode: "numeric", autocomplete: "off", spellcheck: "false", ".value": EXAMPLES[0] });
    const examples = EXAMPLES.map((text) => html("button", { type: "button" }, text));
    const models = choice("model", words.model, ["parallel-adder", "adder"].map((name) => [name, words[name]]));
    const rules = choice("rule", words.rule, [["own", ""], ["confidence", words.confidence]]);
    const slider = html("input", { id: "live-threshold", type: "range", min: 0, max: THRESHOLDS.length - 1, step: 1, ".value": THRESHOLDS.indexOf(0.99) });
    const shown = html("output");
    const form = html("form", { class: "live-form" },
      html("label", { class: "live-sum" }, html("span", {}, words.sum), problem),
      html("button", { class: "md-button md-button--primary", type: "submit" }, words.think),
      html("div", { class: "live-examples" }, html("span", {}, words.tryOne), ...examples),
      models, rules,
      html("label", { class: "live-threshold", for: "live-threshold" }, html("span", {}, words.threshold, " ", shown), slider),
    );
    const result = html("p", { class: "live-result", role: "status" });
    const picture = html("div", { class: "live-picture", tabindex: 0, role: "region", "aria-label": words.figure });
    const goesOn = html("p", { class: "caption" });
    const table = html("div", { class: "live-table", tabindex: 0, role: "region", "aria-label": words.table });
    const body = html("tbody");
    const measured = html("table", {},
      html("caption", {}, words.measured(sums.length, sums[0][0].length)),
      html("thead", {}, html("tr", {}, ...words.measuredHead.map((text) => html("th", { scope: "col" }, text)))),
      body,
    );
    const verdict = html("p", { class: "live-verdict", role: "status" });
    root.replaceChildren(form, result, legend(words), picture, goesOn, html("details", {}, html("summary", {}, words.table), table),
      html("div", { class: "live-table", tabindex: 0, role: "region", "aria-label": words.measured(sums.length, sums[0][0].length) }, measured),
      verdict);

    /** What the controls say: which adder, its halting settings, and words for these. */
    function settings() {
      const model = form.elements.model.value;
      const own = form.elements.rule.value === "own";
      const threshold = THRESHOLDS[slider.value];
      const { halting } = adder(model);
      rules.querySelector("span").textContent = words.own[model];
      shown.textContent = threshold;
      slider.setAttribute("aria-valuetext", shown.textContent);
      if (!own) {
        const { max_loops, prompt } = halting;
        return { model, halting: { rule: "confidence", max_loops, threshold, prompt }, told: words.atLeast(threshold) };
      }
      return { model, halting: { ...halting, threshold }, told: words.told[halting.rule](threshold) };
    }

    function think() {
      const operands = parse(problem.value);
      problem.setAttribute("aria-invalid", String(!operands));
      if (!operands) {
        result.textContent = words.invalid(MOST_DIGITS);
        return;
      }
      const { model, halting } = settings();
      const solved = adder(model).solve(operands, halting);
      const loops = loopsOfAnswer(solved);
      const [a, b] = operands;
      const spoken = words.result({
        a, b, answer: solved.answer || "?",
        verdict: solved.correct ? words.right : words.wrong(String(BigInt(a) + BigInt(b))),
        mean: (loops.reduce((sum, n) => sum + n, 0) / loops.length).toFixed(1),
        most: Math.max(...loops),
        work: solved.work.toFixed(0),
      });
      result.textContent = spoken;
      result.classList.toggle("live-wrong", !solved.correct);
      picture.replaceChildren(draw(solved, words, spoken));
      picture.scrollLeft = picture.scrollWidth; // where it is too wide, the answer is what to see first
      table.replaceChildren(tabulate(solved, words));
      const longer = solved.tokens.map(({ loops }) => loops).filter((n) => n > Math.max(...loops));
      goesOn.textContent = longer.length ? words.goesOn(longer.length, Math.max(...longer)) : "";
    }

    const loopsOfAnswer = ({ tokens }) => tokens.filter(({ role }) => role === "answer").map(({ loops }) => loops);

    const known = new Map(); // told → row and counts, so that a setting is measured once
    let running = 0;

    /** Solve the fixed sums under the present setting, a sum at a time, so that the page stays alive. */
    function measure() {
      const { model, halting, told } = settings();
      const key = `${model} ${told}`;
      const mine = ++running;
      if (!known.has(key)) known.set(key, { row: html("tr"), done: 0, right: 0, loops: 0, tokens: 0, work: 0 });
      const counts = known.get(key);
      for (const row of body.rows) row.removeAttribute("aria-current");
      counts.row.setAttribute("aria-current", "true");
      body.prepend(counts.row);
      while (body.rows.length > ROWS) body.lastChild.remove();
      const next = () => {
        if (mine !== running) return; // another setting was chosen
        if (counts.done < sums.length) {
          const solved = adder(model).solve(sums[counts.done], halting);
          const loops = loopsOfAnswer(solved);
          counts.done += 1;
          counts.right += solved.correct;
          counts.loops += loops.reduce((sum, n) => sum + n, 0);
          counts.tokens += loops.length;
          counts.work += solved.work;
          requestAnimationFrame(next);
        }
        const mean = (counts.loops / counts.tokens).toFixed(2);
        const cells = [words[model], told, words.of(counts.right, counts.done, sums.length), mean, (counts.work / counts.done).toFixed(0)];
        counts.row.replaceChildren(...cells.map((text) => html("td", {}, text)));
        if (counts.done === sums.length) verdict.textContent = words.done(counts.right, sums.length, mean);
      };
      requestAnimationFrame(next);
    }

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      think();
    });
    examples.forEach((button) => button.addEventListener("click", () => {
      problem.value = button.textContent;
      think();
    }));
    for (const control of [models, rules, slider]) {
      control.addEventListener("input", () => {
        think();
        measure();
      });
    }
    think();
    measure();
  }

  const root = document.querySelector("[data-live]");
  if (root) start(root);
})();
