// Typesets the mathematics of the book, which is a page without the theme's scripts.
"use strict";
renderMathInElement(document.body, {
  delimiters: [
    { left: "\\(", right: "\\)", display: false },
    { left: "\\[", right: "\\]", display: true },
  ],
  throwOnError: false,
});
document.documentElement.dataset.ready = "true";
