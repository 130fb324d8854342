"""Figures follow from their data alone."""

from pathlib import Path

from looplm.evaluate.figures import accuracy_figure, save_figure, trace_figure
from looplm.evaluate.scores import Cell
from looplm.runs.checkpoint import Trained, load
from looplm.think.trace import Trace, trace_text


def traced(trained: Trained, text: str) -> Trace:
    return trace_text(trained.model, trained.recipe.task, text, trained.recipe.halting)


def test_figures_are_the_same_bytes_for_the_same_data(tmp_path: Path) -> None:
    cells = [Cell("uniform", digits, 200, 190, 2.0, 40.0, 0.1).as_json() for digits in (4, 12, 100)]
    trace = traced(load("adder"), "12+34").as_json()
    for name in ("one", "two"):
        figure = accuracy_figure({"ours": cells, "other": cells[:2]}, (1, 4), "digits", {"target": {8: 0.7}, "origin": {}})
        save_figure(figure, tmp_path / f"{name}-accuracy.svg")
        save_figure(trace_figure(trace), tmp_path / f"{name}-trace")
    for kind in ("accuracy.svg", "accuracy.png", "trace.svg", "trace.png"):
        assert (tmp_path / f"one-{kind}").read_bytes() == (tmp_path / f"two-{kind}").read_bytes()


def test_a_model_that_never_settles_is_drawn_in_a_figure_of_bounded_height() -> None:
    def height(loops: int) -> float:
        token = {"text": "1", "role": "answer", "loops_taken": loops, "guesses": ["2"] * loops, "confidences": [0.5] * loops}
        trace = {"problem": "1", "answer": "2", "mode": "parallel", "max_loops": loops, "tokens": [token]}
        figure = trace_figure(trace)
        assert ("the first 64 of 1,100 loops" in figure.axes[0].get_title()) == (loops > 64)
        return float(figure.get_figheight())

    assert height(1100) == height(64) > height(8)
