"""Tables and traces for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from looplm.runs.results import Result, bits_unit, comparison_table, others, parameters_by_preset, scored_by_loss, work_note


def print_comparison(console: Console, results: Sequence[Result], controls: Sequence[Result]) -> None:
    """Accuracy by size beside what others wanted and measured and the controls, with their sources below."""
    header, rows = comparison_table(results, controls)
    solved = "Problems solved exactly, %, with 95 % Wilson intervals"
    by_loss = scored_by_loss(results)
    console.print(f"{bits_unit(results[0]).capitalize()}, lower is better" if by_loss else solved, style="bold")
    made = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")  # fits 80 columns
    for name in header:
        made.add_column(name.removesuffix(" control").replace(", ", ",\n"), justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*(cell.replace(", ", ",") for cell in row))
    console.print(made)
    if note := work_note([*results, *controls]):
        console.print(note)
    for name, numbers in others(results[0]["task"]).items():
        console.print(f"{name}: {numbers['source']}")
    for name, parameters in parameters_by_preset([*results, *controls]).items():
        console.print(f"{name}: {parameters}")


def print_trace(console: Console, trace: Mapping[str, Any]) -> None:
    """One row a loop, one column a token: the guess, brighter where the model is surer; blank once halted."""
    verdict = {True: " (right)", False: " (wrong)", None: ""}[trace["correct"]]
    asked = "".join(sign if sign.isprintable() else " " for sign in f"{trace['problem']} → {trace['answer']}")
    console.print(Text(f"\n{asked}{verdict}", style="bold"))  # no markup: it may be any text
    made = Table(box=None, padding=(0, 1), show_header=True, header_style="bold")
    made.add_column("", justify="right")
    for token in trace["tokens"]:
        made.add_column(Text(_short(token["text"])), justify="center")
    for loop in range(trace["max_loops"]):
        made.add_row(f"loop {loop + 1}", *(_thought(token, loop) for token in trace["tokens"]))
    made.add_row("loops", *(str(token["loops_taken"]) for token in trace["tokens"]), style="bold")
    console.print(made)
    console.print("Column: token read (^ begin, $ end, _ slot), as the model writes them. Cell: most likely token,")
    console.print("of a probability from 99 % (green), from 50 % (~, yellow) or below (?, red); blank once halted.")
    console.print(f"Tokens of the answer halt by {trace['rule']}, those of the prompt, dim, by {trace['prompt_rule']}.")
    console.print(f"Work: {trace['block_evaluations']:.1f} block evaluations.")


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
