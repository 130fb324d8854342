"""One run: train a preset, test it, and leave a folder that explains itself.

config.toml   the resolved preset          log.jsonl     one line a step, after a header
metrics.csv   the same numbers as a table  summary.json  every number that may be quoted
trace.json    one sum, loop by loop        *.svg, *.png  accuracy and trace
report.md     rendered from the summary    checkpoint/   the model: looplm.load(folder)
"""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any

import tomli_w
import torch

from looplm.runs.checkpoint import load, read_card, save
from looplm.config import Preset, as_table
from looplm.evaluate.scores import evaluate_adder
from looplm.evaluate.figures import accuracy_figure, save_figure, trace_figure
from looplm.think.trace import trace_sum
from looplm.runs.provenance import provenance
from looplm.runs.results import (
    Result,
    as_markdown,
    comparison_table,
    figure_lines,
    make_result,
    make_summary,
    others_by_digits,
    trained_range,
)
from looplm.files import new_folder, to_json, write_file
from looplm.train.execution import Execution
from looplm.models.looped import LoopLM
from looplm.models.static import build_model
from looplm.spec import citation
from looplm.train.gate import train_gate
from looplm.train.trainer import Step, train

LOG_SCHEMA = 1
"""Version of log.jsonl."""
TRACED_SUM = "68915+62898"
"""The sum of every run's trace: longer than any that the adders train on, with a carry through every place."""
TEST_SEED = 1
_LAST_STEPS = 100


def default_folder(preset: str) -> Path:
    """runs/<preset>/<UTC time>, in the current folder."""
    return Path("runs") / preset / datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")


def run_preset(
    preset: Preset,
    seed: int,
    folder: Path,
    device: torch.device,
    on_step: Callable[[Step], None] = lambda step: None,
    on_message: Callable[[str], None] = lambda message: None,
    execution: Execution | None = None,
    model_of: Path | None = None,
) -> Result:
    """Train and test a preset; `folder` appears when all is done, or not at all.

    Args:
        preset: what to train.
        seed: of weights and problems; the test sets have a seed of their own.
        folder: the run's; it must not exist.
        device: where to train.
        on_step: told of every training step.
        on_message: told what is being done after training.
        execution: how training is computed; by default the plainest way.
        model_of: a run of the same training without a gate, whose model this preset's gate is trained for.

    Spec: [training.nothing-half-written][], [training.log][].
    """
    with new_folder(folder) as draft:
        source = provenance(preset, seed, device)
        if execution:
            source |= {
                "execution": asdict(execution),
                "clauses": source["clauses"] + [citation(id) for id in execution.clauses()],
            }
        if model_of is None:
            model, steps = _train(preset, seed, device, source, draft, on_step, execution)
            source["training"] = _training_facts(steps)
        else:
            model, steps = _take(model_of, preset), []
            source["training"] = read_card(str(model_of))["provenance"]["training"]
            steps_log = (model_of / "log.jsonl").read_text(encoding="utf-8").partition("\n")[2]
            write_file(draft / "log.jsonl", (_log_header(source) + steps_log).encode())
        if preset.gate:
            on_message("training the gate")
            losses = list(train_gate(model, preset, seed))
            source["gate"] = {"steps": len(losses), "final_loss": round(fmean(losses[-_LAST_STEPS:]), 6)}
        tested = preset.evaluation
        cells = evaluate_adder(model, tested.digits, tested.problems_per_cell, preset.halting, TEST_SEED, on_message)
        result = make_result(model, source, cells, preset.halting, TEST_SEED)
        on_message("writing the run")
        write_file(draft / "config.toml", tomli_w.dumps(as_table(preset)).encode())
        write_file(draft / "metrics.csv", (model_of / "metrics.csv").read_bytes() if model_of else _csv(steps))
        write_file(draft / "summary.json", to_json(make_summary([result])))
        trace = trace_sum(model, TRACED_SUM).as_json()
        write_file(draft / "trace.json", to_json(trace))
        save_figure(trace_figure(trace), draft / "trace.svg")
        save_figure(accuracy_figure(figure_lines([result]), trained_range(result), others_by_digits()), draft / "accuracy.svg")
        write_file(draft / "report.md", _report(result).encode())
        save(model, preset, source, draft / "checkpoint")
    return result


def _train(
    preset: Preset,
    seed: int,
    device: torch.device,
    source: dict[str, Any],
    draft: Path,
    on_step: Callable[[Step], None],
    execution: Execution | None,
) -> tuple[LoopLM, list[Step]]:
    model, stepping = train(preset, seed, device, execution)
    done: list[Step] = []
    with (draft / "log.jsonl").open("w", encoding="utf-8") as log:
        log.write(_log_header(source))
        for step in stepping:
            log.write(json.dumps(asdict(step)) + "\n")
            done.append(step)
            on_step(step)
    return model.eval(), done


def _log_header(source: dict[str, Any]) -> str:
    return json.dumps({"schema": LOG_SCHEMA, **source}) + "\n"


def _take(run: Path, preset: Preset) -> LoopLM:
    """The model of a run without a gate, with a fresh gate."""
    taken, model = load(str(run)), build_model(preset.model)
    model.load_state_dict({**model.state_dict(), **taken.state_dict()})
    model.preset = preset
    return model.eval()


def _training_facts(steps: list[Step]) -> dict[str, Any]:
    last = steps[-_LAST_STEPS:]
    return {
        "steps": len(steps),
        "final_loss": round(sum(step.loss for step in last) / len(last), 6),
        "final_loss_is": f"mean over the last {len(last)} steps, nats per answer token",
        "tokens": steps[-1].tokens,
        "elapsed_s": round(steps[-1].elapsed_s, 1),
        "tokens_per_s": round(steps[-1].tokens / steps[-1].elapsed_s),
    }


def _csv(steps: list[Step]) -> bytes:
    text = StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Step)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(step) for step in steps)
    return text.getvalue().encode()


def _report(result: Result) -> str:
    training, source, tested = result["training"], result["provenance"], result["evaluation"]
    least, most = trained_range(result)
    table = as_markdown(*comparison_table([result], controls=[]))
    return f"""# {result["title"]}

Preset `{result["preset"]}`, seed {result["seed"]}, {result["parameters"]:,} parameters, trained on sums of {least} to {most}
digits: {training["steps"]:,} steps, {training["tokens"]:,} tokens, {training["elapsed_s"]} s on {source["device"]},
{source["threads"]} threads. Final loss {training["final_loss"]} ({training["final_loss_is"]}).

Sums solved exactly, in percent, with 95 % Wilson intervals; halting: {tested["halting"]}, at most {tested["max_loops"]} loops.
`loops`: mean over answer tokens, uniform sums. Target: the plan's; origin: the plan's origin, as measured there.

{table}

![accuracy by digits](accuracy.svg)

![thinking trace](trace.svg)

looplm {source["looplm"]}, commit {source["commit"]}, torch {source["torch"]}, Python {source["python"]}.
Clauses: {", ".join(source["clauses"])}.
"""
