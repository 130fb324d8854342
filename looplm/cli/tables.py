"""Tables and traces for a terminal. No cell is ever cut: a narrow terminal gets fewer columns, and a pipe gets all of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from looplm.runs.results import (
    Result,
    bits_unit,
    comparison_table,
    legend,
    others,
    ran_out_notes,
    scored_by_loss,
    sets_of,
    work_note,
)

if TYPE_CHECKING:  # it imports torch, which most tables do without
    from looplm.think.flow import Flow


def print_comparison(console: Console, results: Sequence[Result], controls: Sequence[Result]) -> None:
    """Accuracy by size beside what others wanted and measured and the controls, with their sources below."""
    header, rows = comparison_table(results, controls)
    solved = "Problems solved exactly, %, with 95 % Wilson intervals"
    by_loss = scored_by_loss(results)
    console.print(f"{bits_unit(results[0]).capitalize()}, lower is better" if by_loss else solved, style="bold")
    own = header.index("loops") - len(sets_of(results))  # what stands before is of others; the controls last
    columns = [name.removesuffix(" control").replace(", ", ",\n") for name in header]
    cells = [[cell.replace(", ", ",") for cell in row] for row in rows]
    print_table(console, columns, cells, keep=[0, *range(own, len(header)), *reversed(range(1, own))])
    if note := work_note([*results, *controls]):
        console.print(note)
    for line in ran_out_notes([*results, *controls]):
        console.print(line)
    for name, numbers in others(results[0]["task"]).items():
        console.print(f"{name}: {numbers['source']}")
    for name, what in legend([*results, *controls]).items():
        console.print(f"{name}: {what}")


def print_table(
    console: Console, header: Sequence[str], rows: Sequence[Sequence[str]], *, keep: Sequence[int] = (), left: int = 0
) -> None:
    """Rows under a header, at their full width.

    Args:
        console: where to; a terminal that is too narrow gets the columns that fit, and a line that names the others.
        header: a name for each column; it may have several lines.
        rows: a cell for each column.
        keep: columns by number, the dearest first; by default as they stand. The first is always shown.
        left: how many columns, from the first on, are set to the left.
    """
    widths = [max(map(_width, column)) for column in zip(header, *rows, strict=True)]
    room = console.width if console.is_terminal else sum(widths) + len(widths)
    shown: list[int] = []
    for number in keep or range(len(header)):
        if not shown or sum(widths[n] + 1 for n in shown) + widths[number] < room:
            shown.append(number)
    shown.sort()
    made = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for number in shown:
        made.add_column(_aligned(header[number], number < left), no_wrap=True)
    for row in rows:
        made.add_row(*(_aligned(row[number], number < left) for number in shown))
    _print_whole(console, made, sum(widths[number] + 1 for number in shown))
    if missing := [" ".join(name.split()) for number, name in enumerate(header) if number not in shown]:
        console.print(f"Not shown in {console.width} columns: {'; '.join(missing)}. A wider terminal or a file gets all.")


def print_trace(console: Console, trace: Mapping[str, Any]) -> None:
    """One row a loop, one column a token: the guess, brighter where the model is surer; blank once halted."""
    verdict = {True: " (right)", False: " (wrong)", None: ""}[trace["correct"]]
    asked = "".join(sign if sign.isprintable() else " " for sign in f"{trace['problem']} → {trace['answer']}")
    console.print(Text(f"\n{asked}{verdict}", style="bold"))  # no markup: it may be any text
    for tokens in _blocks(console, trace["tokens"]):
        made = Table(box=None, padding=(0, 1), show_header=True, header_style="bold")
        made.add_column("", justify="right", no_wrap=True)
        for token in tokens:
            made.add_column(Text(_short(token["text"])), justify="center", no_wrap=True)
        for loop in range(max(token["loops_taken"] for token in tokens)):
            made.add_row(f"loop {loop + 1}", *(_thought(token, loop) for token in tokens))
        made.add_row("loops", *(str(token["loops_taken"]) for token in tokens), style="bold")
        _print_whole(console, made, sum(map(_column, tokens)) + _LABEL)
    console.print("Column: token read (^ begin, $ end, _ slot), as the model writes them. Cell: most likely token,")
    console.print("of a probability from 99 % (green), from 50 % (~, yellow) or below (?, red); blank once halted.")
    console.print(f"Tokens of the answer halt by {trace['rule']}, those of the prompt, dim, by {trace['prompt_rule']}.")
    console.print(f"Work: {trace['block_evaluations']:.1f} block evaluations.")


def print_flow(console: Console, flow: "Flow", depth: int, *, every: bool) -> None:
    """One row for each module call, or for each tensor; what it reads, gives and fills."""
    from looplm.think.flow import GIVEN

    asked = "".join(sign if sign.isprintable() else " " for sign in f"{flow.text} → {flow.answer}")
    console.print(Text(f"{asked}: {len(flow.tokens)} tokens through {flow.body}", style="bold"))

    def shape(sizes: Sequence[int]) -> str:
        return " x ".join(map(str, sizes)) or "one number"

    if every:
        of = {m.number: m.name if m.operation in GIVEN else str(m.number) for m in flow.made}
        cells = [
            [
                str(m.number),
                m.name,
                ", ".join(of[i] for i in m.inputs),
                shape(m.shape),
                m.dtype,
                "view" if m.view else f"{m.bytes:,}",
            ]
            for m in flow.made
            if m.operation not in GIVEN
        ]
        print_table(console, ["tensor", "made in / by", "made of", "shape", "dtype", "bytes"], cells, left=3)
        return
    rows = [
        [s.call, ", ".join(s.reads), shape(s.output), str(s.tensors), f"{s.bytes:,}", f"{s.parameters:,}"]
        for s in flow.steps(depth)
    ]
    print_table(console, ["call", "reads", "gives", "tensors", "bytes", "parameters"], rows, keep=[0, 2, 1, 5, 3, 4], left=2)
    console.print("Reads: the calls that made what it reads. Gives: the shape of the last tensor that others read.")
    console.print("Bytes: new memory that it fills.")


_LABEL = len(" loop 999 ")


def _print_whole(console: Console, table: Table, width: int) -> None:
    """A table as wide as it is; rich would cut its cells to the width of the terminal, which a pipe does not have."""
    room = console.width
    console.width = max(room, width)
    console.print(table)
    console.width = room


def _blocks(console: Console, tokens: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The tokens in order, as many at a time as the terminal has room for; all at once in a pipe."""
    blocks: list[list[Mapping[str, Any]]] = [[]]
    for token in tokens:
        if console.is_terminal and blocks[-1] and _LABEL + sum(map(_column, [*blocks[-1], token])) > console.width:
            blocks.append([])
        blocks[-1].append(token)
    return blocks


def _column(token: Mapping[str, Any]) -> int:
    cells = [Text(_short(token["text"])), *(_thought(token, loop) for loop in range(token["loops_taken"]))]
    return max(*(cell.cell_len for cell in cells), len(str(token["loops_taken"]))) + 2


def _aligned(text: str, left: bool) -> Text:
    return Text(text, justify="left" if left else "right")  # no markup: it may be any text


def _width(text: str) -> int:
    return max(map(cell_len, text.split("\n")))


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
