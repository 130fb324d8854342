// The looped model of looplm/models/looped.py in plain JavaScript, for the adders that the package ships.
//
// A text is read one token at a time: each token thinks until it halts, and leaves its keys and values for those after it.
// That gives what reading the whole text at once gives (architecture.cache, halting.kv-publish), and is the shortest to
// write. Weights are float32, sums are double; a test in a browser compares both with the package.
"use strict";
globalThis.looplmLive = {};

(() => {
  const NORM_EPS = 1e-6;
  const PLACE_SCALE = 10; // architecture.place-bias
  const SIGNAL_SIZE = 0.3; // architecture.loop-signal

  /** Name → {shape, data} of a safetensors file. */
  function readTensors(bytes) {
    const view = new DataView(bytes.buffer);
    const start = 8 + Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
    delete header.__metadata__;
    return Object.fromEntries(
      Object.entries(header).map(([name, { dtype, shape, data_offsets: [from, to] }]) => {
        if (dtype !== "F32") throw new Error(`${name} is ${dtype}; this page reads F32.`);
        return [name, { shape, data: new Float32Array(bytes.slice(start + from, start + to).buffer) }];
      }),
    );
  }

  /** matrix · x, the matrix by rows. */
  function times({ shape: [rows, columns], data }, x) {
    const y = new Float64Array(rows);
    for (let row = 0, i = 0; row < rows; row++) {
      let sum = 0;
      for (let column = 0; column < columns; column++) sum += data[i++] * x[column];
      y[row] = sum;
    }
    return y;
  }

  const plus = (...vectors) => vectors[0].map((_, i) => vectors.reduce((sum, vector) => sum + vector[i], 0));
  const length = (x) => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0));

  /** architecture.rms-norm */
  function rmsNorm({ data }, x) {
    const scale = 1 / Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length + NORM_EPS);
    return x.map((v, i) => v * scale * data[i]);
  }

  /** By its series of positive terms, which loses no digits; beyond 6 it is 1 in double precision. */
  function erf(x) {
    if (Math.abs(x) > 6) return Math.sign(x);
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }

  /** architecture.gelu */
  const gelu = (x) => 0.5 * x * (1 + erf(x / Math.SQRT2));

  /** A looped model with digit places and one layer in its block. */
  class Model {
    /** @param card {model, weights}: the settings of model.json, and model.safetensors in base64 */
    constructor({ model: config, weights }) {
      const known = { body: "looped", layers: 1, mlp: "gelu", norm: "rms", positions: "place", injection: "every" };
      for (const [name, value] of Object.entries(known)) {
        if (config[name] !== value) throw new Error(`this page knows ${name} = ${value} only, not ${config[name]}.`);
      }
      this.config = config;
      this.digits = new Set(config.place_ids);
      const tensors = readTensors(Uint8Array.from(atob(weights), (c) => c.charCodeAt(0)));
      this.embedding = tensors["embedding.weight"];
      this.placeTable = tensors["positions.table"];
      this.stateNorm = tensors["state_norm.weight"];
      this.headNorm = tensors["head_norm.weight"];
      const layer = (name) => tensors[`block.layers.0.${name}.weight`];
      this.attentionNorm = layer("attention_norm");
      this.qkv = layer("attention.qkv");
      this.out = layer("attention.out");
      this.mlpNorm = layer("mlp_norm");
      this.up = layer("mlp.up");
      this.down = layer("mlp.down");
    }

    /** What a K/V-only pass counts, in block evaluations (halting.block-evaluations). */
    get kvShare() {
      const { width } = this.config;
      const weights = [this.qkv, this.out, this.up, this.down].reduce((sum, { data }) => sum + data.length, 0);
      return (this.qkv.data.length - width * width) / weights;
    }

    embed(token) {
      const { width } = this.config;
      return Float64Array.from(this.embedding.data.subarray(token * width, (token + 1) * width));
    }

    /** What is added before loop l: sines, then cosines (architecture.loop-signal). */
    signal(l) {
      const { width, loop_signal: kind, loop_signal_loops: loops } = this.config;
      const signal = new Float64Array(width);
      if (kind === "none") return signal;
      for (let pair = 0; pair < width / 2; pair++) {
        const angle = (Math.min(l, loops) - 1) * 10000 ** ((-2 * pair) / width);
        signal[pair] = Math.fround(SIGNAL_SIZE * Math.sin(angle));
        signal[pair + width / 2] = Math.fround(SIGNAL_SIZE * Math.cos(angle));
      }
      return signal;
    }

    /** Scores of each next token (architecture.tied-head). */
    read(h) {
      return times(this.embedding, rmsNorm(this.headNorm, h));
    }
  }

  /** A text that is being read, token by token. */
  class Reading {
    constructor(model) {
      this.model = model;
      this.tokens = [];
      /** Most loops that a token of the answer has taken; halting.prefix-stability asks for it. */
      this.waitedFor = 0;
    }

    /**
     * Let one more token think until its rule says stop.
     * @param rule asked after each loop: (seen) => whether the token halts
     * @param answer whether an answer token is read from this one
     * @returns {loops, guesses, confidences, changes}: of each loop
     */
    think(token, rule, answer) {
      const { model } = this;
      const self = this.place(token);
      this.tokens.push(self);
      const visible = this.visible(self);
      const x0 = model.embed(token);
      const thought = { loops: 0, guesses: [], confidences: [], changes: [] };
      let h = new Float64Array(x0.length);
      for (let halted = false; !halted; ) {
        const l = thought.loops + 1;
        const before = h;
        h = this.step(self, visible, plus(h, x0, model.signal(l)), l); // injection.every-loop
        const logits = model.read(h);
        const guess = logits.indexOf(Math.max(...logits));
        const confidence = 1 / logits.reduce((sum, z) => sum + Math.exp(z - logits[guess]), 0);
        const change = length(h.map((v, i) => v - before[i])) / length(h); // halting.state-change
        const seen = {
          l, guess, confidence, change, waitedFor: this.waitedFor,
          previousGuess: thought.guesses.at(-1) ?? -1,
          previousConfidence: thought.confidences.at(-1) ?? 0,
        };
        thought.guesses.push(guess);
        thought.confidences.push(confidence);
        thought.changes.push(change);
        thought.loops = l;
        halted = rule(seen);
      }
      this.offer(self, plus(h, x0, model.signal(thought.loops + 1))); // halting.kv-publish: entry s + 1, from the final state
      if (answer) this.waitedFor = Math.max(this.waitedFor, thought.loops);
      return thought;
    }

    /** Where the next token stands (architecture.place). A run is counted by the tokens before it that are no digits. */
    place(token) {
      const last = this.tokens.at(-1) ?? { place: 0, run: 0 };
      const digit = this.model.digits.has(token);
      return { digit, place: digit ? last.place + 1 : 0, run: last.run + !digit, keys: [], values: [] };
    }

    /** The tokens that this one sees, each with its row of the table (architecture.place-bias, -window, -strict). */
    visible(self) {
      const { place_reach: reach, place_window: window, place_strict: strict } = this.model.config;
      const differences = 2 * reach + 1;
      const seen = [];
      for (const other of this.tokens) {
        if (!other.digit) {
          seen.push({ other, bucket: 2 * differences });
          continue;
        }
        const apart = other.place - self.place;
        if ((strict && !self.digit) || (window !== undefined && Math.abs(apart) > window)) continue;
        const clipped = Math.max(-reach, Math.min(reach, apart));
        seen.push({ other, bucket: clipped + reach + (other.run === self.run ? differences : 0) });
      }
      return seen;
    }

    /** Keep the keys and values that this input of the block gives, as the token's next entry; give its queries. */
    offer(self, u) {
      const { width } = this.model.config;
      const projected = times(this.model.qkv, rmsNorm(this.model.attentionNorm, u));
      self.keys.push(projected.subarray(width, 2 * width));
      self.values.push(projected.subarray(2 * width));
      return projected.subarray(0, width);
    }

    /** One loop: the block and the norm on the state (architecture.loop). */
    step(self, visible, u, l) {
      const { model } = this;
      const queries = this.offer(self, u);
      const stream = plus(u, times(model.out, this.attend(queries, visible, l)));
      const hidden = times(model.up, rmsNorm(model.mlpNorm, stream)).map(gelu);
      return rmsNorm(model.stateNorm, plus(stream, times(model.down, hidden)));
    }

    /** architecture.attention, head by head */
    attend(queries, visible, l) {
      const { heads, width } = this.model.config;
      const size = width / heads;
      const table = this.model.placeTable.data;
      const read = new Float64Array(width);
      for (let head = 0; head < heads; head++) {
        const at = head * size;
        const scores = visible.map(({ other, bucket }) => {
          const keys = other.keys[Math.min(l, other.keys.length) - 1]; // halting.kv-publish: entry min(l, s + 1)
          let score = 0;
          for (let i = at; i < at + size; i++) score += queries[i] * keys[i];
          return score / Math.sqrt(size) + PLACE_SCALE * table[bucket * heads + head];
        });
        const most = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - most));
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        visible.forEach(({ other }, j) => {
          const values = other.values[Math.min(l, other.values.length) - 1];
          for (let i = at; i < at + size; i++) read[i] += (weights[j] / total) * values[i];
        });
      }
      return read;
    }
  }

  Object.assign(looplmLive, { Model, Reading });
})();
