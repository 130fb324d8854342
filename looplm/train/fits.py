"""Whether the parts of a recipe fit each other: whatever can be refused before step 1 is refused here."""

import itertools
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from looplm.config import ModelConfig
from looplm.draws import Draw
from looplm.errors import InputError
from looplm.loop.halting.fixed import Fixed
from looplm.task import Batch, Task, Vocabulary
from looplm.think.trace import MAX_TRACED_TOKENS

if TYPE_CHECKING:
    from looplm.train.recipe import Recipe

TEST_SEED = 1
"""Of the held-out problems on which a run is tested."""
VALIDATION_ROWS, VALIDATION_SEED = 64, 7
"""Held-out problems that are looked at during training."""


def contradictions(recipe: "Recipe") -> Iterator[str]:
    """Everything in which the parts of a recipe contradict each other, as far as the parts alone say."""
    if isinstance(recipe.model, ModelConfig):
        yield from _of_task_and_body(recipe)
        yield from _of_training(recipe)
        yield from _of_halting(recipe)
    else:
        yield from _of_another_body(recipe)


def unusable(recipe: "Recipe") -> Iterator[str]:
    """Everything in which what the task makes, drawn for it, does not fit: batches, test sets, the traced example."""
    task, room = recipe.task, getattr(recipe.model, "max_positions", 0)
    try:
        task.vocabulary  # noqa: B018  a file may hold it
    except InputError as error:
        yield str(error).rstrip(".")
        return
    try:
        drawn = task.batch(range(recipe.training.batch_size), Draw(0, "problems"))
        yield from _of_batch(drawn, task.vocabulary, "a training batch")
    except InputError as error:
        yield f"a training batch cannot be drawn: {str(error).rstrip('.')}"
    yield from _too_much(recipe.model, task.longest)
    yield from _too_long(task.longest().tokens.shape[1], room, "training has texts", "`model.max_positions`")
    tested, smallest = recipe.evaluation, min(recipe.evaluation.sizes)
    wanted = []
    for name, size in itertools.product(task.suites, tested.sizes):
        # of small problems there may be too few, and some may be longer than others; of large ones a single one will do
        count = tested.problems_per_cell if room or size == smallest else 1
        wanted.append((name, size, count, TEST_SEED))
    if recipe.training.validate_every:
        wanted.append((next(iter(task.suites)), smallest, VALIDATION_ROWS, VALIDATION_SEED))
    longest = (0, "", 0)
    for name, size, count, seed in wanted:
        make: Any = _suite if _hashes(task) else _suite.__wrapped__
        mistakes, width = make(task, name, size, count, seed)
        yield from mistakes
        if not mistakes:
            yield from _too_much(recipe.model, partial(task.suite, name, size, count, seed))
        longest = max(longest, (width, name, size))
    width, name, size = longest
    yield from _too_long(width, room, f"the test set {name} of size {size} has texts", "`evaluation.sizes` to what fits")
    yield from _of_example(task, room)


def _too_much(model: Any, make: Callable[[], Batch]) -> Iterator[str]:
    """What another body than ours could not read."""
    if not isinstance(model, ModelConfig):
        try:
            model.check(make().tokens)
        except InputError as error:
            yield str(error).rstrip(".")


@lru_cache(maxsize=1024)
def _suite(task: Any, name: str, size: int, count: int, seed: int) -> tuple[tuple[str, ...], int]:
    """What is wrong with a test set, and how many tokens its texts have."""
    what = f"the test set {name} of size {size}"
    try:
        batch = task.suite(name, size, count, seed)
    except InputError as error:
        return (f"{what} cannot be made: {str(error).rstrip('.')}",), 0
    return tuple(_of_batch(batch, task.vocabulary, what)), batch.tokens.shape[1]


def _hashes(task: Task) -> bool:
    try:
        hash(task)
    except TypeError:  # a frozen dataclass that holds something mutable
        return False
    return True


def _of_batch(batch: Batch, vocabulary: Vocabulary, what: str) -> Iterator[str]:
    """What a model, or an objective, could not make sense of."""
    shapes = {tuple(tensor.shape) for tensor in (batch.tokens, batch.targets, batch.scored, batch.real)}
    if len(shapes) > 1 or batch.tokens.dim() != 2:
        yield f"{what} must have tokens, targets, scored and real of one shape [N, T], got {', '.join(map(str, shapes))}"
        return
    for name, ids in (("tokens", batch.tokens), ("scored targets", batch.targets[batch.scored])):
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(vocabulary):
            yield f"{what} has {name} of {int(ids.min())} to {int(ids.max())}, but the vocabulary ends at {len(vocabulary) - 1}"
    if not bool(batch.scored.any(1).all()):
        yield f"{what} has a row in which no token is scored"
    if bool((batch.scored & ~batch.real).any()):
        yield f"{what} scores padding"


def _too_long(tokens: int, room: int, what: str, remedy: str) -> Iterator[str]:
    """Learned positions are as many as the table has; other schemes have no limit."""
    if 0 < room < tokens:
        remedy = f"set {remedy}, or more positions" if remedy != "`model.max_positions`" else f"set it to {tokens} or more"
        yield f"`model.max_positions` is {room}, but {what} of {tokens} tokens; {remedy}"


def _of_example(task: Task, room: int) -> Iterator[str]:
    """The question of the run's trace is answered by the model, and has to be short enough to show."""
    try:
        prompt = task.prompt(task.example)
    except InputError as error:
        yield f"the task's example {task.example!r} is no question of it: {str(error).rstrip('.')}"
        return
    length = len(prompt.tokens)
    if length > MAX_TRACED_TOKENS:
        yield f"the task's example has {length} tokens, but a trace shows at most {MAX_TRACED_TOKENS}"
    if prompt.slots < 1 and prompt.max_new_tokens < 1:
        yield f"the task's example {task.example!r} asks for no answer: its prompt has neither slots nor new tokens"
    answered = length + max(0, prompt.max_new_tokens - 1)
    yield from _too_long(answered, room, "the example of the run's trace has a text", "`model.max_positions`")


def _of_task_and_body(recipe: "Recipe") -> Iterator[str]:
    model = recipe.model
    try:
        vocabulary = recipe.task.vocabulary
    except InputError:  # it is in a file that is not here; `unusable` says so
        return
    if model.vocab_size != len(vocabulary):
        yield f"`model.vocab_size` is {model.vocab_size}, but the task has {len(vocabulary)} tokens; leave it out, or set that"
    if model.positions == "place" and model.place_ids != vocabulary.places:
        if vocabulary.places:
            yield f"`model.place_ids` must be the task's, {list(vocabulary.places)}; leave it out"
        else:
            yield "`model.positions = 'place'` needs a task whose tokens have places, and this one's have none"


def _of_another_body(recipe: "Recipe") -> Iterator[str]:
    """Bodies that think about a whole row at once know one way of training and halting.

    Spec: [architecture.body][].
    """
    body, training, halting = f"the body {recipe.model.body!r}", recipe.training, recipe.halting
    if recipe.model.vocab_size != len(recipe.task.vocabulary):
        yield f"`model.vocab_size` is {recipe.model.vocab_size}, but the task has {len(recipe.task.vocabulary)} tokens"
    for name in ("restart_share", "state_noise", "dropout"):
        if given := getattr(training, name):
            yield f"{body} knows no `training.{name}`: leave it out (got {given})"
    if training.before_due != "scored":
        yield f"`training.before_due = '{training.before_due}'` needs a body whose reach is limited, and {body} has none"
    if recipe.gate is not None:
        yield f"{body} has no gate: leave the table `gate` out"
    for role, rule in (("halting", halting.answer), ("halting.prompt", halting.prompt)):
        if not isinstance(rule, Fixed):
            yield f"{body} halts after a fixed number of loops: set `{role}.rule = 'fixed'`"


def _of_training(recipe: "Recipe") -> Iterator[str]:
    model, training = recipe.model, recipe.training
    if model.body == "static" and (training.min_loops, training.max_loops) != (1, 1):
        yield "a static model is passed once: set `training.min_loops = 1` and `training.max_loops = 1`"
    if model.body == "static" and training.restart_share:
        yield "a static model has no loop to restart: set `training.restart_share = 0`"
    if model.gate != (recipe.gate is not None):
        yield "`model.gate = true` and the table `gate` go together: a gate has to be trained"
    if model.body == "static" and recipe.gate is not None and recipe.gate.max_loops != 1:
        yield f"a static model is passed once: set `gate.max_loops = 1` (got {recipe.gate.max_loops})"
    if training.before_due != "scored":
        yield from _of_before_due(recipe)
    if training.restart_share > 0 and training.stale_share > 0 and model.injection == "first":
        yield (
            "`training.restart_share` or `training.stale_share` must be 0 with `model.injection = 'first'`: a loop that never "
            "reads the input again cannot recover from another problem's state"
        )
    if training.restart_share > 0 and training.stale_share > 0 and training.batch_size < 2:
        yield "`training.batch_size` must be at least 2 for restarts from another problem's state"


def _of_before_due(recipe: "Recipe") -> Iterator[str]:
    """An answer can be early only where it is known how far its news has to travel, and how far it does in a loop."""
    model, task, rule = recipe.model, recipe.task, f"`training.before_due = '{recipe.training.before_due}'`"
    longest = task.longest()
    if longest.distance is None:
        yield f"{rule} needs a task that knows how far its answers' news travel"
    # a token outside runs that sees into them would carry news past all places between
    all_in_runs = set(longest.tokens[longest.real].tolist()) <= set(model.place_ids)
    if model.positions != "place" or not model.place_window or not (model.place_strict or all_in_runs):
        yield (
            f"{rule} needs a body whose reach is limited: set `model.positions = 'place'`, `model.place_window` to 1 or more, "
            "and `model.place_strict = true`"
        )
    if recipe.training.before_due == "unknown" and task.vocabulary.unknown is None:
        yield f'{rule} needs a task with a token that says "not known yet"'


def _of_halting(recipe: "Recipe") -> Iterator[str]:
    model, halting = recipe.model, recipe.halting
    if model.body == "static" and halting.max_loops != 1:
        yield f"a static model is passed once: set `halting.max_loops = 1` (got {halting.max_loops})"
    if halting.gate_readers and not model.gate:
        yield f"the halting rule {halting.gate_readers[0]!r} needs a model with a gate: set `model.gate = true`, and train it"
    for role, rule in (("halting", halting.answer), ("halting.prompt", halting.prompt)):
        unknown = getattr(rule, "unknown_id", None)
        if unknown is not None and unknown != recipe.task.vocabulary.unknown:
            yield f"`{role}.unknown_id` is {unknown}, but the task's token is {recipe.task.vocabulary.unknown}"
