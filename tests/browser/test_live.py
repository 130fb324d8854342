"""The adders of the live page are those of the package, and its controls can be used by anyone."""

from typing import Any

import pytest
import torch
from built_site import SITE
from playwright.sync_api import Page, expect

import looplm
from looplm.loop.halting import ByRole, as_table, name_of, parse_halting
from looplm.tasks.addition.sets import test_set as draw_sums
from looplm.think.trace import trace_text

NEAR = 1e-4
"""Double sums in the page, single ones in the package: probabilities may differ by less than this."""
FOLDERS = {"en": SITE, "ko": SITE / "ko"}
CONFIDENT = {"rule": "confidence", "threshold": 0.95}
STABLE = {"rule": "prefix-stability", "threshold": 0.8, "epsilon": 0.03}


def open_page(tab: Page, language: str = "en") -> Page:
    tab.goto((FOLDERS[language] / "live.html").as_uri())
    expect(tab.locator(".live-picture svg")).to_be_visible()
    return tab


def sums() -> list[str]:
    """Drawn sums of 1 to 12 digits, of both kinds, and some with operands of different lengths."""
    kinds = ("uniform", "carry-heavy")
    drawn = [pair for kind in kinds for n in (1, 3, 8, 12) for pair in draw_sums(kind, n, 4, 11).numbers()]
    uneven = [(a[: 1 + i % 3], b) for i, (a, b) in enumerate(draw_sums("uniform", 9, 4, 12).numbers())]
    return ["+".join(pair) for pair in [*drawn, *uneven, ("99999999", "1"), ("0", "0")]]


def solved_in_page(tab: Page, adder: str, problems: list[str], halting: dict[str, Any] | None) -> list[Any]:
    run = """([name, problems, halting]) => {
      const adder = new looplmLive.Adder(looplmAdders[name]);
      return problems.map((problem) => adder.solve(looplmLive.parse(problem), halting ?? adder.halting));
    }"""
    found: list[Any] = tab.evaluate(run, [adder, problems, halting])
    return found


def settings(trained: looplm.Trained, changes: dict[str, Any] | None) -> ByRole:
    """The adder's own halting, with another rule for the answer."""
    own = trained.recipe.halting
    changed = {"max_loops": own.max_loops, "prompt": as_table(own.prompt), **(changes or {})}
    return own if changes is None else parse_halting(changed, where="this halting")


@pytest.mark.parametrize(
    ("adder", "changes"),
    [
        ("adder", None),
        ("adder", CONFIDENT),
        ("parallel-adder", None),
        ("parallel-adder", CONFIDENT),
        ("parallel-adder", STABLE),
    ],
    ids=["adder", "adder-confidence", "parallel", "parallel-confidence", "parallel-lower-threshold"],
)
def test_the_page_thinks_as_the_package_does(tab: Page, adder: str, changes: dict[str, Any] | None) -> None:
    """The same guesses, loops and work; probabilities and changes near.

    Sums in which a decision hung by less than the difference of both arithmetics are left out, and must be few.
    """
    torch.set_num_threads(1)
    trained = looplm.load(adder)
    config = settings(trained, changes)
    as_script = None if changes is None else as_table(config)
    problems = sums()
    left_out, farthest = 0, 0.0
    for problem, here in zip(problems, solved_in_page(open_page(tab), adder, problems, as_script), strict=True):
        there = trace_text(trained.model, trained.recipe.task, problem, config)
        same_loops = [token["loops"] for token in here["tokens"]] == [token.loops_taken for token in there.tokens]
        if not same_loops and is_close_call(there.tokens, config):
            left_out += 1
            continue
        assert same_loops, problem
        assert here["answer"] == there.answer
        assert here["correct"] == there.correct
        assert here["work"] == pytest.approx(there.block_evaluations, abs=1e-3)
        for mine, theirs in zip(here["tokens"], there.tokens, strict=True):
            assert mine["role"] == theirs.role
            if theirs.role == "answer":
                assert [shown(guess) for guess in theirs.guesses] == mine["guesses"]
            for a, b in ((mine["confidences"], theirs.confidences), (mine["changes"], theirs.changes)):
                farthest = max([farthest, *(abs(x - y) for x, y in zip(a, b, strict=True))])
    assert farthest < NEAR
    assert left_out <= len(problems) // 50
    print(f"{adder}, {name_of(config.answer)}: {len(problems) - left_out} sums, farthest {farthest:.1e}; left out: {left_out}")


def is_close_call(tokens: list[Any], config: ByRole) -> bool:
    """Whether a probability or a change came within NEAR of a bound of the rules."""
    tables = (as_table(config.answer), as_table(config.prompt))
    bounds = [table.get(name) for table in tables for name in ("threshold", "epsilon")]
    seen = [value for token in tokens for value in (*token.confidences, *token.changes)]
    return any(abs(value - bound) < NEAR for bound in bounds if bound is not None for value in seen)


def shown(symbol: str) -> str:
    return {"<bos>": "^", "<eos>": "$", "<pad>": "·", "<slot>": "_"}.get(symbol, symbol)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_sum_is_typed_and_answered(tab: Page, language: str) -> None:
    open_page(tab, language)
    box, result = tab.locator(".live-sum input"), tab.locator(".live-result")
    expect(result).to_contain_text("100000000")
    box.fill("978 + 0457")
    box.press("Enter")
    expect(result).to_contain_text("978 + 457 = 1435")
    assert tab.locator(".live-table table").first.locator("tbody tr").count() == len("^978+457=") + len("_____")
    for wrong in ("978", "1+2+3", "x+1", f"1+{'9' * 24}"):
        box.fill(wrong)
        box.press("Enter")
        expect(result).to_contain_text("978+457")  # the message shows how a sum looks
        expect(box).to_have_attribute("aria-invalid", "true")


def test_what_the_page_says_of_its_examples_holds(tab: Page) -> None:
    open_page(tab)

    def loops(adder: str, problem: str) -> list[int]:
        (solved,) = solved_in_page(tab, adder, [problem], None)
        return [token["loops"] for token in solved["tokens"] if token["role"] == "answer"]

    walking = loops("parallel-adder", "99999999+1")
    assert walking == sorted(walking)
    assert walking[0] <= 3 < 8 <= walking[-1]
    assert len(set(loops("parallel-adder", "22222222+33333333"))) == 1
    assert 3 < max(loops("parallel-adder", "12345678+7654321")) < walking[-1]
    for problem in tab.locator(".live-examples button").all_inner_texts():
        assert set(loops("adder", problem)) == {2}


def test_the_threshold_shows_loops_and_accuracy_together(tab: Page) -> None:
    """Confidence: a lower threshold gives wrong answers and less work, over the same sums."""
    open_page(tab)
    tab.locator("input[value=confidence]").check()
    rows = tab.locator("table:has(caption) tbody tr")
    slider = tab.locator("input[type=range]")
    slider.focus()
    seen = {}
    for key, threshold in (("End", "0.9999"), ("Home", "0.3")):
        slider.press(key)
        expect(slider).to_have_attribute("aria-valuetext", threshold)
        expect(rows.first).to_contain_text(f"≥ {threshold}")
        expect(rows.first).to_contain_text("of 60")
        cells = rows.first.locator("td").all_inner_texts()
        seen[threshold] = int(cells[2].split()[0]), float(cells[3]), int(cells[4])
        expect(tab.locator(".live-verdict")).to_contain_text(f"{seen[threshold][0]} of 60 right")
    assert all(few < many for few, many in zip(seen["0.3"], seen["0.9999"], strict=True))


FOCUSED = """() => {
  const e = document.activeElement, style = getComputedStyle(e);
  return {
    what: e.name || e.type || e.classList[0] || e.tagName,
    ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
    named: !!(e.labels?.length || e.ariaLabel || e.textContent.trim()),
  };
}"""


@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_control_is_reached_by_keyboard_and_has_a_name(tab: Page, language: str) -> None:
    open_page(tab, language)
    tab.locator("article h1").evaluate("h => { h.tabIndex = -1; h.focus() }")
    reached = []
    for _ in range(16):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate(FOCUSED))
    names = [at["what"] for at in reached]
    for wanted in ("text", "submit", "button", "model", "rule", "range", "live-picture", "live-table"):
        assert wanted in names, wanted
    until = names.index("live-table") + 1
    assert [at for at in reached[:until] if not (at["ring"] and at["named"])] == []
