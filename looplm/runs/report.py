"""The report of one run, rendered from its summary alone."""

from typing import Any

from looplm.runs.results import as_markdown, bits_unit, comparison_table, scored_by_loss


def report_text(result: dict[str, Any]) -> str:
    """Markdown: what was trained on what, the table, the figures, and where it all comes from."""
    training, source, settings = result["training"], result["provenance"], result["evaluation"]["settings"]
    least, most = result["trained_sizes"]
    table = as_markdown(*comparison_table([result], controls=[]))
    by_loss = scored_by_loss([result])
    score = bits_unit(result) if by_loss else "accuracy"
    shown = (
        f"{score.capitalize()} of held-out text, read where each token halted; lower is better"
        if by_loss
        else "Problems solved exactly, in percent, with 95 % Wilson intervals"
    )
    return f"""# {result["title"]}

Recipe `{result["preset"]}`, task {result["task"]}, seed {result["seed"]}, {result["parameters"]:,} parameters, trained on
{least} to {most} {result["axis"]}: {training["steps"]:,} steps, {training["tokens"]:,} tokens, {training["elapsed_s"]} s on
{source["device"]}, {source["threads"]} threads. Final loss {training["final_loss"]} ({training["final_loss_is"]}).

{shown}; halting: {settings["rule"]}, at most
{settings["max_loops"]} loops. `loops`: mean over answer tokens of the first test set; `work`: block evaluations a problem.

{table}

![{score} by {result["axis"]}](accuracy.svg)

![thinking trace](trace.svg)

looplm {source["looplm"]}, commit {source["commit"]}, torch {source["torch"]}, Python {source["python"]}.
Clauses: {", ".join(source["clauses"])}.
"""
