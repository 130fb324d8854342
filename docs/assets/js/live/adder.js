// When a token halts, as looplm/loop/halting.py has it, and sums: decimal in, decimal out, with what every loop gave.
"use strict";

(() => {
  const { Model, Reading } = looplmLive;
  const EQUALS = 11, BOS = 12, EOS = 13, SLOT = 15; // addition.vocabulary
  const SYMBOLS = [..."0123456789+=", "^", "$", "·", "_"];
  const MAX_DIGITS = 24; // of both operands, as in `looplm trace`

  /** Rule → (seen, settings) → whether a token is ready; each is the clause of its name. */
  const READY = {
    "fixed": () => false,
    "confidence": (seen, { threshold }) => seen.confidence >= threshold,
    "two-equal-argmaxes": (seen) => seen.guess === seen.previousGuess,
    "state-change": (seen, { epsilon }) => seen.change < epsilon,
    "prefix-stability": (seen, { threshold, epsilon }) => {
      const sure = Math.min(seen.confidence, seen.previousConfidence) >= threshold;
      return seen.guess === seen.previousGuess && (sure || seen.change < epsilon) && seen.l >= seen.waitedFor;
    },
  };

  /** halting.bounds */
  function makeRule(settings) {
    const ready = READY[settings.rule];
    const { min_loops: min = 1, max_loops: max } = settings;
    return (seen) => seen.l >= max || (seen.l >= min && ready(seen, settings));
  }

  /** halting.roles: without a rule of its own, the prompt is fixed at the answer's most loops. */
  function makeRules(halting) {
    const prompt = halting.prompt ?? { rule: "fixed", max_loops: halting.max_loops };
    return { answer: makeRule(halting), prompt: makeRule(prompt) };
  }

  /** The operands of `a+b` without leading zeros, or null if the text is no sum or too long. */
  function parse(text) {
    const match = /^\s*(\d+)\s*\+\s*(\d+)\s*$/.exec(text);
    const operands = match && [match[1], match[2]].map((number) => number.replace(/^0+(?=\d)/, ""));
    return operands && operands.join("").length <= MAX_DIGITS ? operands : null;
  }

  /** addition.double-reversed: all numbers least-significant digit first */
  function prompt([a, b]) {
    const reversed = (number) => [...number].reverse().map(Number);
    return [BOS, ...reversed(a), SYMBOLS.indexOf("+"), ...reversed(b), EQUALS];
  }

  /** halting.block-evaluations */
  function blockEvaluations(loops, kvShare) {
    const published = loops.filter((s, t) => loops.slice(t + 1).some((later) => later > s));
    return loops.reduce((sum, s) => sum + s, 0) + kvShare * published.length;
  }

  /** An adder of the package. */
  class Adder {
    constructor(card) {
      this.model = new Model(card);
      this.halting = card.halting;
      this.parallel = card.mode === "parallel";
    }

    /**
     * Solve one sum.
     * @param halting settings, such as {rule: "confidence", threshold: 0.9, max_loops: 64}; by default the adder's own
     * @returns {answer, correct, work, tokens}: tokens as in a trace (spec/trace.schema.json)
     */
    solve(operands, halting = this.halting) {
      const rules = makeRules(halting);
      const reading = new Reading(this.model);
      const tokens = [];
      const read = (token, role) => {
        const thought = reading.think(token, rules[role], role === "answer");
        tokens.push({ text: SYMBOLS[token], role, ...thought });
        return thought.guesses.at(-1);
      };
      const places = Math.max(...operands.map((number) => number.length));
      const ids = prompt(operands);
      let written;
      if (this.parallel) {
        ids.forEach((id) => read(id, "prompt"));
        written = Array.from({ length: places + 2 }, () => read(SLOT, "answer")); // addition.slots
      } else {
        ids.slice(0, -1).forEach((id) => read(id, "prompt"));
        written = [read(EQUALS, "answer")];
        while (written.at(-1) !== EOS && written.length < places + 2) written.push(read(written.at(-1), "answer"));
      }
      const end = written.indexOf(EOS);
      const digits = written.slice(0, end < 0 ? written.length : end).map((id) => SYMBOLS[id]);
      const answer = digits.reverse().join("");
      for (const token of tokens) token.guesses = token.guesses.map((id) => SYMBOLS[id]);
      return {
        operands, answer, tokens,
        correct: answer === String(BigInt(operands[0]) + BigInt(operands[1])),
        work: blockEvaluations(tokens.map((token) => token.loops), this.model.kvShare),
      };
    }
  }

  Object.assign(looplmLive, { Adder, parse });
})();
