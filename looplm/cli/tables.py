"""Tables and traces for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from looplm.experiments.results import Result, comparison_table, others, parameters_by_preset, work_note


def print_comparison(console: Console, results: Sequence[Result], controls: Sequence[Result]) -> None:
    """Accuracy by digits beside the target, the origin and the controls, with their sources below."""
    header, rows = comparison_table(results, controls)
    console.print("Sums solved exactly, %, with 95 % Wilson intervals", style="bold")
    made = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")  # fits 80 columns
    for name in header:
        made.add_column(name.removesuffix(" control").replace(", ", ",\n"), justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*(cell.replace(", ", ",") for cell in row))
    console.print(made)
    if note := work_note([*results, *controls]):
        console.print(note)
    for name, numbers in others().items():
        console.print(f"{name}: {numbers['source']}")
    for name, parameters in parameters_by_preset([*results, *controls]).items():
        console.print(f"{name}: {parameters}")


def print_trace(console: Console, trace: Mapping[str, Any]) -> None:
    """One row a loop, one column a token: the guess, brighter where the model is surer; blank once halted."""
    console.print(f"\n{trace['problem']} = {trace['answer']} ({'right' if trace['correct'] else 'wrong'})", style="bold")
    made = Table(box=None, padding=(0, 1), show_header=True, header_style="bold")
    made.add_column("", justify="right")
    for token in trace["tokens"]:
        made.add_column(_short(token["text"]), justify="center")
    for loop in range(trace["max_loops"]):
        made.add_row(f"loop {loop + 1}", *(_thought(token, loop) for token in trace["tokens"]))
    made.add_row("loops", *(str(token["loops_taken"]) for token in trace["tokens"]), style="bold")
    console.print(made)
    console.print("Column: token read (^ begin, $ end, _ slot), digits least-significant first. Cell: most likely token,")
    console.print("of a probability from 99 % (green), from 50 % (~, yellow) or below (?, red); blank once halted.")
    console.print(f"Tokens of the answer halt by {trace['rule']}, those of the prompt, dim and not trained to")
    console.print(f"predict, by {trace['prompt_rule']}. Work: {trace['block_evaluations']:.1f} block evaluations.")


def _thought(token: Mapping[str, Any], loop: int) -> Text:
    if loop >= token["loops_taken"]:
        return Text("")
    confidence = token["confidences"][loop]
    guess = _short(token["guesses"][loop])
    if token["role"] == "prompt":
        return Text(guess, style="dim")
    mark, colour = ("", "green") if confidence >= 0.99 else ("~", "yellow") if confidence >= 0.5 else ("?", "red")
    return Text(guess + mark, style=f"bold {colour}")


def _short(symbol: str) -> str:
    return {"<bos>": "^", "<eos>": "$", "<pad>": ".", "<slot>": "_"}.get(symbol, symbol)
