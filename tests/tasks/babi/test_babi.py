"""bAbI: files as the spec reads them, what is refused, the split by story, and the way from a file to a table of controls."""

import json
import re
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looplm.cli import main
from looplm.draws import Draw
from looplm.errors import InputError
from looplm.models import build_model
from looplm.models.connection import Connection
from looplm.runs.checkpoint import Trained
from looplm.settings import as_table, parse
from looplm.spec import oracle
from looplm.stories.format import Question, latest_of_its_kind, part_of, questions_of, words_of
from looplm.stories.format import parse as read_stories
from looplm.stories.rows import PAD, parse_question, text_of
from looplm.stories.simulate import simulate
from looplm.tasks.babi import Babi
from looplm.tasks.babi.controls import readings
from looplm.train.recipe import load_recipe, read_recipe
from looplm.train.trainer import Trainer

spec = oracle("reasoning")
NAME = "qa16_simulated_train.txt"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("babi") / NAME
    path.write_text("\n".join(simulate(400, 0)) + "\n")
    return path


words = st.lists(st.text("abc,'XYZ9", min_size=1, max_size=4), min_size=1, max_size=4).map(" ".join)


@st.composite
def files(draw: st.DrawFn) -> str:
    """Stories of facts and questions, in the format."""
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        facts: list[int] = []
        for number in range(1, draw(st.integers(3, 7))):
            if number == 1 or (number > 2 and draw(st.booleans())):
                facts.append(number)
                lines.append(f"{number} {draw(words)}.")
            else:
                needed = draw(st.lists(st.sampled_from(facts), max_size=3))
                lines.append(f"{number} {draw(words)}?\t{draw(words)}\t{' '.join(map(str, needed))}")
    return "\n".join(lines)


@pytest.mark.spec("reasoning.format", "reasoning.words", "reasoning.supporting")
@given(files())
def test_a_file_is_read_as_the_spec_reads_it(text: str) -> None:
    ours = [
        [(list(map(list, q.facts)), list(q.words), q.answer, list(q.supporting)) for q in story.questions]
        for story in read_stories(text, "test")
    ]
    assert ours == [
        [([spec.words(f) for f in facts], spec.words(asked), answer.lower(), needed) for facts, asked, answer, needed in story]
        for story in spec.stories(text)
    ]


@pytest.mark.spec("reasoning.split")
@given(st.text(max_size=20))
def test_a_story_belongs_to_the_part_that_its_text_says(text: str) -> None:
    assert part_of(text) == spec.part(text)


@pytest.mark.spec("reasoning.split", "tasks.held-out")
def test_training_sees_no_question_of_a_held_out_story(file: Path) -> None:
    text = file.read_text()
    stories = read_stories(text, "test")
    whole = re.split(r"\n(?=1 )", text.strip())
    task = Babi(path=str(file))
    drawn = {tuple(row) for row in task.batch(range(3000), Draw(0, "problems")).tokens.tolist()}
    by_part = {part: [] for part in ("training", "test", "validation")}  # type: dict[str, list[Question]]
    for story, lines in zip(stories, whole, strict=True):
        by_part[spec.part(lines)] += story.questions
    rows = {part: {text_of(question) for question in questions} for part, questions in by_part.items()}
    width = max(map(len, drawn))
    ids = {part: {tuple(task.prompt(t).tokens + [PAD] * width)[:width] for t in texts} for part, texts in rows.items()}
    assert drawn == ids["training"]
    for part in ("test", "validation"):
        assert list(questions_of(stories, part)) == by_part[part]
        suite = replace(task, part=part).suite(part, 16, len(by_part[part]), 0)
        assert {tuple(row + [PAD] * width)[:width] for row in suite.tokens.tolist()} == ids[part]
        assert not ids[part] & drawn


@pytest.mark.spec("reasoning.text", "reasoning.answer")
def test_a_row_is_the_words_with_marks_and_its_answer_stands_at_the_end(file: Path) -> None:
    task = Babi(path=str(file))
    suite, symbols = task.suite("test", 16, 9, 3), task.vocabulary.symbols
    for row, question in enumerate(task.questions("test", 9, 3)):
        said = [symbols[id] for id in suite.tokens[row][suite.real[row]].tolist()]
        wanted = [word for sentence in question.facts for word in (*sentence, ".")] + [*question.words, "?"]
        assert said == wanted
        assert suite.scored[row].nonzero().tolist() == [[len(said) - 1]]
        assert symbols[int(suite.targets[row, len(said) - 1])] == question.answer
        assert task.right(text_of(question)) == question.answer
        again = parse_question(text_of(question))
        assert (again.facts, again.words) == (question.facts, question.words)


def test_an_answer_of_several_words_is_one_symbol(tmp_path: Path) -> None:
    lines = [f"1 Ann took the {thing}.\n2 What has Ann?\t{thing},pen\t1\n" for thing in ("cup", "hat", "key") * 20]
    (tmp_path / "qa8_lists_train.txt").write_text("".join(f"{line}3 Note {i}.\n" for i, line in enumerate(lines)))
    task = Babi(path=str(tmp_path), number=8)
    assert task.answers == ("cup,pen", "hat,pen", "key,pen")
    assert task.answer([task.vocabulary.symbols.index("hat,pen")]) == "hat,pen"


GOOD = "1 A is x.\n2 What is A?\tx\t1\n"


@pytest.mark.spec("reasoning.refused")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no story; lines `NUMBER SENTENCE`"),
        (GOOD + "A is x.\n", r"line 3: 'A is x.' is no line of a story; expected: lines `NUMBER SENTENCE`"),
        (GOOD + "4 A is x.\n", r"line 3: the line has the number 4, where 3 follows; expected: lines"),
        ("2 A is x.\n", r"line 1: the line has the number 2, where 1 follows"),
        (GOOD + "1 A is x.\n2 B is x.\n" + GOOD, r"line 4: the story that ends here has no question; expected: at least one"),
        ("1 What is A?\tx\t\n", r"line 1: a question stands before every fact; expected: at least one fact"),
        ("1 A is x.\n2 What is A?\t\t1\n", r"line 2: a question has 3 parts; expected: a question, its answer"),
        (
            "1 A is x.\n2 What is A?\tx\t2\n",
            r"line 2: the supporting fact 2 is none; expected: the number of one of the 1",
        ),
        ("1 A is x.\n2 What is A?\tx\ty\n", r"line 2: the supporting fact y is none"),
    ],
)
def test_a_file_of_another_format_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(InputError, match=message):
        Babi(path=str(tmp_path)).batch(range(1), Draw(0, "problems"))


@pytest.mark.spec("reasoning.refused")
def test_an_answer_outside_the_vocabulary_is_refused_with_its_line(file: Path, tmp_path: Path) -> None:
    odd = (f"1 Ada is a fox.\n2 What color is Ben?\tpink {i}\t1" for i in range(99))
    held_out = next(story for story in odd if part_of(story) == "test")
    (tmp_path / NAME).write_text(file.read_text() + held_out + "\n")
    line = len(file.read_text().splitlines()) + 2
    with pytest.raises(InputError, match=rf"line {line}: 'pink \d+' is not in the vocabulary; expected: a word of the stories"):
        Babi(path=str(tmp_path)).batch(range(1), Draw(0, "problems"))
    with pytest.raises(InputError, match="have no word 'zebra'"):
        Babi(path=str(file)).prompt("Mary is a zebra. What color is Mary?")
    with pytest.raises(InputError, match="is no story with a question; write facts"):
        Babi(path=str(file)).prompt("What color is Ada?")


@pytest.mark.spec("reasoning.refused")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"number": 21}, r"`number` must be that of a task of bAbI, 1 to 20: got 21"),
        ({"number": 0}, r"1 to 20: got 0"),
        ({"part": "training"}, r"`part`: Input should be 'test' or 'validation'"),
    ],
)
def test_a_task_that_is_none_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(Babi, settings, where="test")


@pytest.mark.spec("reasoning.refused")
def test_a_path_without_the_one_file_is_refused(file: Path, tmp_path: Path) -> None:
    def asked(path: Path, **settings: Any) -> str:
        with pytest.raises(InputError) as caught:
            Babi(path=str(path), **settings).batch(range(1), Draw(0, "problems"))
        return str(caught.value)

    assert "does not exist" in asked(tmp_path / "nowhere")
    assert "no file of that name" in asked(tmp_path)
    for edition in ("en", "hn"):
        (tmp_path / edition).mkdir()
        (tmp_path / edition / NAME).write_text(file.read_text())
    assert "in the folders en, hn: set `task.edition`" in asked(tmp_path)
    assert Babi(path=str(tmp_path), edition="hn").words
    (tmp_path / "noise.bin").write_bytes(b"\x00\x01")
    assert "is no folder, no .txt file and no tar archive" in asked(tmp_path / "noise.bin")
    with pytest.raises(InputError, match="give them with --data DIR"):
        Babi().batch(range(1), Draw(0, "problems"))


@pytest.mark.spec("reasoning.format")
def test_a_folder_an_archive_and_the_file_give_the_same(file: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "babi.tar.xz", "w:xz") as archive:
        archive.add(file, f"tasks/en-10k/{NAME}")
    one, two, three = (Babi(path=str(path)) for path in (file, file.parent, tmp_path / "babi.tar.xz"))
    drawn = [task.batch(range(20), Draw(0, "problems")).tokens for task in (one, two, three)]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


@pytest.mark.spec("reasoning.latest-animal", "reasoning.simulated")
@given(st.integers(0, 999))
def test_simulated_stories_are_answered_by_the_rule_and_say_what_it_needs(seed: int) -> None:
    text = "\n".join(simulate(3, seed))
    assert text == "\n".join(simulate(3, seed))
    for story in read_stories(text, "simulated"):
        (question,) = story.questions
        facts, asked = [list(fact) for fact in question.facts], question.words[-1]
        kinds = {fact[0]: fact[3] for fact in facts if fact[1:3] == ["is", "a"]}
        coloured = {fact[0] for fact in facts if len(fact) == 3}
        assert len(kinds) == 5
        assert coloured == set(kinds) - {asked}
        assert any(kinds[name] == kinds[asked] for name in coloured)
        assert question.answer == spec.latest_animal(facts, asked) == latest_of_its_kind(question)
        own, other, colour = (question.facts[i] for i in question.supporting)
        assert own == (asked, "is", "a", kinds[asked])
        assert other == (colour[0], "is", "a", kinds[asked])
        assert colour[2] == question.answer


@pytest.mark.spec("reasoning.latest-animal")
def test_where_nothing_is_known_the_rule_is_silent() -> None:
    question = Question((words_of("Ada is a fox."), words_of("Ben is red.")), words_of("What color is Ada?"), "red", (), 2)
    assert latest_of_its_kind(question) == spec.latest_animal([list(fact) for fact in question.facts], "ada") == ""


@pytest.mark.spec("architecture.body", "connection.ablations")
def test_from_stories_to_a_table_of_controls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["stories", NAME, "--count", "300"]) == 0
    few = ["--data", NAME, "--set", "evaluation.problems_per_cell=20", "--steps", "3"]
    for recipe in ("babi-16", "babi-16-pure"):
        assert main(["train", recipe, *few, "--out", recipe]) == 0
    assert main(["train", "babi-16", *few, "--seed", "1", "--out", "seed-1"]) == 0
    assert main(["eval", "babi-16", "--n", "5"]) == 0
    assert main(["trace", "Mary is a lion. John is a lion. John is gray. What color is Mary?", "--model", "babi-16"]) == 0
    assert main(["controls", "babi-16", "seed-1", "babi-16-pure", "--out", "all.json"]) == 0
    found = json.loads(Path("all.json").read_text())["results"]
    presets = [result["preset"] for result in found]
    cut = [f"babi-16-{name}-at-test" for name in ("no-connection", "shuffled-connection", "random-connection", "no-rereading")]
    assert presets == ["babi-16", *cut, "babi-16", *cut, "babi-16-pure", "babi-16-latest-animal"]
    assert found[-1]["cells"][0]["accuracy"] == 1
    assert all(result["cells"][0]["n"] == 20 for result in found)
    shares = torch.tensor([result["readings"] for result in found if result["preset"] == "babi-16"])
    assert shares.shape == (2, 3, 3)
    assert bool((shares >= 0).all()) and bool((shares.sum(2) <= 1.001).all())
    assert str(tmp_path) not in Path("all.json").read_text()
    assert main(["report", "all.json"]) == 0
    capsys.readouterr()
    for asked, said in (
        (["generate", "babi-16"], "was trained on the task babi"),
        (["controls", "gone", "--out", "none.json"], "gone does not exist"),
        (["stories", NAME], "exists"),
        (["stories", "other.csv"], "must end in .txt"),
        (["plan", "babi-16"], "the planner knows the bodies 'looped' and 'static': got 'connection'"),
        (
            ["train", "babi-16", *few, "--compile", "--out", "new"],
            "compiling needs a body 'looped' or 'static': got 'connection'",
        ),
    ):
        assert main(asked) == 2
        assert said in capsys.readouterr().err


@pytest.mark.spec("reasoning.latest-animal", "architecture.body")
def test_another_body_stands_beside_the_most_frequent_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = []
    for number in (16, 1):
        assert main(["stories", f"qa{number}_train.txt", "--task", str(number), "--count", "300"]) == 0
        few = ["--data", f"qa{number}_train.txt", "--steps", "2", "--set", "training.batch_size=4", "--out", f"run-{number}"]
        few += ["--set", f"task.number={number}", "--set", f"evaluation.sizes=[{number}]"]
        assert main(["train", "babi-looped", *few, "--set", "evaluation.problems_per_cell=20"]) == 0
        runs.append(f"run-{number}")
    assert main(["controls", *runs, "--out", "all.json"]) == 0
    found = json.loads(Path("all.json").read_text())["results"]
    names = ["babi-looped", "babi-looped-most-frequent"] * 2 + ["babi-looped-latest-animal"]
    assert [result["preset"] for result in found] == names
    for number, result in zip((16, 1), found[1::2], strict=False):
        task = Babi(path=f"qa{number}_train.txt", number=number)
        counts = Counter(question.answer for question in task.training_questions())
        asked = task.questions("test", 20, 1)
        assert result["cells"][0]["correct"] == sum(counts[q.answer] == max(counts.values()) for q in asked)
    assert found[-1]["cells"][0]["accuracy"] == 1


@pytest.mark.spec("architecture.body")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"halting": {"rule": "confidence", "threshold": 0.9}}, "the body 'connection' halts after a fixed number of loops"),
        ({"training": {"restart_share": 0.5}}, "the body 'connection' knows no `training.restart_share`"),
        ({"training": {"state_noise": 0.5}}, "the body 'connection' knows no `training.state_noise`"),
        ({"model": {"max_facts": 3}}, "`model.max_facts` is 3, but a story has 9 facts"),
        ({"model": {"max_words": 3}}, "`model.max_words` is 3, but a sentence has 4 words"),
        ({"model": {"layers": 3}}, "`model.layers`: unknown .*; allowed|did you mean"),
        ({"model": {"body": "conection"}}, "there is no body 'conection'; did you mean connection"),
    ],
)
def test_what_the_body_does_not_know_is_refused_before_step_one(changes: dict[str, Any], message: str, file: Path) -> None:
    tested = {"evaluation": {"problems_per_cell": 5}, "task": {"path": str(file)}}
    with pytest.raises(InputError, match=message):
        load_recipe("babi-16", tested | changes)


def test_the_vocabulary_goes_with_the_recipe(file: Path) -> None:
    recipe = load_recipe("babi-16", {"task": {"path": str(file)}, "evaluation": {"problems_per_cell": 5}})
    table = as_table(recipe)
    assert table["task"]["words"] == list(Babi(path=str(file)).words)
    assert table["model"]["vocab_size"] == len(recipe.task.vocabulary)
    table["task"]["path"] = "gone.txt"
    from looplm.train.recipe import parse_recipe

    assert len(parse_recipe(table, "test", trained=True).task.vocabulary) == len(recipe.task.vocabulary)
    assert read_recipe("babi-16").task.vocabulary.symbols == ("<pad>", ".", "?")


@pytest.mark.spec("reasoning.supporting")
def test_readings_are_the_shares_of_the_needed_facts(file: Path) -> None:
    recipe = load_recipe("babi-16", {"task": {"path": str(file)}, "evaluation": {"problems_per_cell": 9}})
    model = build_model(recipe.model).eval()
    assert isinstance(model, Connection)
    task = recipe.task
    assert isinstance(task, Babi)
    asked = task.questions("test", 9, 1)
    wanted = torch.zeros(3, 3)
    for question in asked:
        for reading, slots in enumerate(model.steps(model.story(task.collate([question]).tokens), 2)):
            for place, fact in enumerate(question.supporting):
                wanted[reading, place] += slots.reading[0, :, fact].mean() / len(asked)
    torch.testing.assert_close(torch.tensor(readings(model, Trained(model, recipe))), wanted, atol=1e-5, rtol=0)


@pytest.mark.spec("training.rates", "training.resume")
def test_training_goes_on_to_the_same_bits_and_keeps_its_rates(file: Path) -> None:
    changes = {"task": {"path": str(file)}, "evaluation": {"problems_per_cell": 9}, "training": {"batch_size": 4, "steps": 6}}
    recipe = load_recipe("babi-16", changes)
    whole, begun, resumed = (Trainer(recipe, 3) for _ in range(3))
    for _ in range(4):
        done = whole.step()
    for _ in range(2):
        begun.step()
    resumed.load_state_dict(begun.state_dict())
    for _ in range(2):
        resumed.step()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    rates = {group["share"]: group["lr"] for group in whole.optimizer.param_groups}
    assert rates == {1.0: done.learning_rate, 0.03: done.learning_rate * 0.03}
