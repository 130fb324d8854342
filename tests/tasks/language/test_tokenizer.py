"""A tokenizer gives every text back, is the same for the same texts, and refuses what it cannot learn from."""

import itertools
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from korean_text import korean, tokenizer

from looplm.cli import main
from looplm.errors import InputError
from looplm.spec import oracle
from looplm.tasks.language.corpus import parted, read_text
from looplm.tasks.language.tokenizer import ESCAPE, SPACE, Tokenizer, escape, report_on, train_tokenizer, unescape

spec = oracle("korean")
SYLLABLES = st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3))
NASTY = st.text(
    st.sampled_from([" ", "\n", "\t", "\r", "\0", "\f", SPACE, ESCAPE, "e", "_", "가", "뷁", "\u1100", "\u2585", "\u0301"])
)


@pytest.mark.spec("korean.exact", "korean.escape")
@given(st.text() | SYLLABLES | NASTY)
@example(SPACE)
@example(f"{ESCAPE}_{SPACE}{ESCAPE}e{ESCAPE}{ESCAPE}")
@example("  앞뒤 빈칸  \n\n\t둘 가  나   다")
@example("\ufeff\u200b각\u1100\u1161 e\u0301 ①②Ａｆ　幅 漢字 뷁쀍 👨‍👩‍👧‍👦🇰🇷 ㅋㅋㅋ")
@example("<s></s><unk><0x0A>\u2047 \u2047  \u2581▁\u2585" + "x" * 300)
def test_every_text_comes_back_exactly(text: str) -> None:
    ids = tokenizer().encode(text)
    assert tokenizer().decode(ids) == text
    assert 0 not in ids and tokenizer().begin not in ids and tokenizer().end not in ids, "no text is a mark"


@pytest.mark.spec("korean.escape")
@given(st.text() | NASTY)
@example(f"{ESCAPE}{ESCAPE}e{ESCAPE}")
def test_escapes_are_as_the_spec_says(text: str) -> None:
    assert escape(text) == spec.escaped(text)
    assert SPACE not in escape(text)
    assert unescape(escape(text)) == text
    assert unescape(text) == spec.unescaped(text), "of what only a model writes, too"


@pytest.mark.spec("korean.exact")
def test_half_a_character_is_refused() -> None:
    with pytest.raises(InputError, match=r"'\\ud800' is half a character"):
        tokenizer().encode("가\ud800")


@pytest.mark.spec("korean.special-ids")
def test_marks_the_line_feed_and_bytes_have_their_ids() -> None:
    made = tokenizer()
    assert made.contents[:3] == (b"", b"", b"")
    assert (made.begin, made.end) == (1, 2)
    assert made.contents[3] == b"\n"
    assert made.contents[4:260] == tuple(bytes([byte]) for byte in range(256))
    assert made.symbols[:4] == ("<unk>", "<bos>", "<eos>", "⏎")
    assert made.symbols[4 + 0xEA] == "ea"
    assert len(made.symbols) == len(made.contents) == len(made) == 1500


@pytest.mark.spec("korean.deterministic")
def test_the_same_texts_give_the_same_file() -> None:
    texts = korean().split("\f")
    again = train_tokenizer(texts, 1500)
    assert again.model == train_tokenizer(texts, 1500).model
    assert again.sha256 != train_tokenizer(texts[1:], 1500).sha256


@pytest.mark.spec("korean.vocabulary-bounds")
def test_bounds_of_the_vocabulary_are_said_and_hold() -> None:
    import re

    texts = [korean()[:3000]]
    bounds = []
    for size, words in ((300, r"lacks room for all characters: set `--vocab` to (\d+) or more"), (90_000, r"at most (\d+)")):
        with pytest.raises(InputError, match=words) as raised:
            train_tokenizer(texts, size)
        found = re.search(words, str(raised.value))
        assert found
        bounds.append(int(found[1]))
    least, most = bounds
    assert [len(train_tokenizer(texts, size)) for size in (least, most)] == [least, most]
    for size in (least - 1, most + 1):
        with pytest.raises(InputError, match="vocabulary of"):
            train_tokenizer(texts, size)
    for size in (260, 256_001):
        with pytest.raises(InputError, match="from 261 to 256,000"):
            train_tokenizer(texts, size)


@pytest.mark.parametrize("texts", [[], [""], [" \n\t \0"], ["\u2585"]])
def test_there_has_to_be_something_to_learn_from(texts: list[str]) -> None:
    with pytest.raises(InputError, match="nothing to learn pieces from"):
        train_tokenizer(texts, 300)


@pytest.mark.spec("korean.whole-characters")
@given(st.lists(st.integers(0, 1499), max_size=12) | st.lists(st.integers(4, 259), max_size=12))
@example([4 + byte for byte in "가나".encode()[:-1]])
@example([4 + 0x1B, 4 + 0x1B])
@example([4 + 0x1B, 4 + ord("_"), 4 + 0xEA, 4 + 0xFF, 4 + 0xB0])
def test_what_is_shown_is_whole_and_stays(ids: list[int]) -> None:
    made = tokenizer()
    shown = [made.decode(ids[:count]) for count in range(len(ids) + 1)]
    for before, after in itertools.pairwise(shown):
        assert after.startswith(before)
    assert shown[-1] == spec.shown([made.contents[id] for id in ids])
    assert "\ufffd" not in shown[-1]


@pytest.mark.spec("korean.whole-characters")
def test_a_syllable_in_bytes_appears_with_its_last_byte() -> None:
    made = tokenizer()
    ids = made.encode("a뷁")
    assert [made.decode(ids[:count]) for count in range(len(ids) + 1)] == ["", "a", "a", "a", "a뷁"]


@pytest.mark.spec("korean.bits-per-character")
@given(st.text() | SYLLABLES | NASTY)
def test_characters_of_pieces_add_up(text: str) -> None:
    assert sum(tokenizer().characters[id] for id in tokenizer().encode(text)) == len(text)
    assert tokenizer().characters[tokenizer().end] == 1
    assert tokenizer().characters[tokenizer().begin] == 0


def test_the_report_counts() -> None:
    text = "가 나 뷁"
    told = report_on(tokenizer(), [text]).as_json()
    assert (told["characters"], told["bytes"], told["words"], told["vocabulary"]) == (5, 11, 3, 1500)
    assert told["tokens"] == len(tokenizer().encode(text))
    assert told["tokens_per_word"] == pytest.approx(told["tokens"] / 3, abs=1e-4)
    assert told["byte_token_share"] == pytest.approx(3 / told["tokens"], abs=1e-5)
    assert told["rare_pieces"] == 1500 - 3 - 256, "of a text so short all pieces are rare"


def test_a_file_is_loaded_or_refused(tmp_path: Path) -> None:
    import io

    from sentencepiece import SentencePieceTrainer

    (tmp_path / "good").write_bytes(tokenizer().model)
    assert Tokenizer.load(tmp_path / "good") == tokenizer()
    (tmp_path / "bad").write_bytes(b"not a model")
    lossy = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(korean().split("\n")), model_writer=lossy, vocab_size=1500, model_type="bpe", minloglevel=3
    )
    (tmp_path / "lossy").write_bytes(lossy.getvalue())
    for name, words in (
        ("bad", "is no SentencePiece model"),
        ("missing", "does not exist"),
        (".", "is a folder"),
        ("lossy", "does not give every text back"),
    ):
        with pytest.raises(InputError, match=f"{words}.*looplm tokenizer train"):
            Tokenizer.load(tmp_path / name)


@pytest.mark.spec("korean.unseen", "korean.deterministic")
def test_the_command_learns_from_the_training_part_alone(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text").write_text(korean(), encoding="utf-8")
    command = ["tokenizer", "train", "text", "--vocab", "1500"]
    assert main([*command, "--out", "one.model"]) == 0
    assert "characters per token" in capsys.readouterr().out
    assert main([*command, "--out", "two.model", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Path("one.model").read_bytes() == Path("two.model").read_bytes()
    trained, held_out = parted(read_text(Path("text")), 0.1)
    assert told["characters"] == sum(map(len, trained)) < len(korean()) * 0.9
    assert told["sha256"] == train_tokenizer(trained, 1500).sha256
    assert main([*command, "--out", "all.model", "--held-out-share", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["characters"] == sum(map(len, [*trained, *held_out]))
    Path("other").write_text("뷁 가\n", encoding="utf-8")
    assert main(["tokenizer", "report", "one.model", "other", "text", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["characters"] == 4 + len(read_text(Path("text")).replace("\f", ""))


@pytest.mark.spec("korean.delimiter")
@given(st.lists(st.text("가나다| "), min_size=1, max_size=6).map("\f".join), st.sampled_from([0.1, 0.5]))
def test_a_delimiter_changes_no_side(text: str, share: float) -> None:
    plain = parted(text.replace("|", ""), share)
    marked = parted(text, share, "|")
    assert tuple([part.replace("|", "") for part in side if part.replace("|", "").strip()] for side in marked) == tuple(
        [part for part in side if part.strip()] for side in plain
    )


@pytest.mark.spec("korean.delimiter")
def test_no_piece_is_learned_across_a_delimiter(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    marked = "".join(
        f"{noun}|{particle} {verb}\n" for noun in ("사과", "하늘") for particle in ("에서", "만큼") for verb in "가나"
    )
    Path("marked").write_text(marked * 50, encoding="utf-8")
    train = ["tokenizer", "train", "marked", "--vocab", "277", "--held-out-share", "0", "--json", "--out"]
    assert main([*train, "made.model", "--delimiter", "|"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["characters"] == len(marked.replace("|", "")) * 50
    made = Tokenizer.load("made.model")
    assert {"사과", "하늘", "에서", "만큼"} <= set(made.symbols)
    assert not [piece for piece in made.symbols if "|" in piece]
    assert [made.symbols[id] for id in made.encode("사과에서")] == ["사과", "에서"]
    assert made.decode(made.encode("사과|에서")) == "사과|에서", "a text may hold the character all the same"
    for delimiter, told in (
        ("||", "one visible character"),
        (" ", "one visible character"),
        ("+", "no text holds the delimiter"),
    ):
        assert main([*train, "other.model", "--delimiter", delimiter]) == 2
        assert told in capsys.readouterr().err


def test_what_is_no_text_is_refused_in_one_line(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(*arguments: str) -> str:
        assert main(["tokenizer", "train", *arguments, "--out", "new.model"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert not Path("new.model").exists()
        return str(line)

    Path("empty").write_text(" \n")
    Path("text").write_text(korean(), encoding="utf-8")
    for name, encoding in (("cp949", "cp949"), ("utf16", "utf-16"), ("bare16", "utf-16-le"), ("utf32", "utf-32")):
        Path(name).write_text("옛날에 옛날에 한 나라에 12 사람이 살았다.\n" * 9, encoding=encoding)
    Path("noise").write_bytes(bytes(range(128, 256)))
    assert "cp949 is in CP949, not in UTF-8; convert it: iconv -f CP949 -t UTF-8 cp949 > NEW_FILE" in refused("cp949")
    assert "utf16 is in UTF-16, not in UTF-8; convert it: iconv -f UTF-16" in refused("utf16")
    assert "bare16 is in UTF-16LE, not in UTF-8; convert it" in refused("bare16")
    assert "utf32 is in UTF-32, not in UTF-8; convert it" in refused("utf32")
    assert "noise is no UTF-8 from its byte 0 on, and no encoding that is known" in refused("noise")
    assert "empty is empty" in refused("text", "empty")
    assert "nosuch does not exist" in refused("nosuch")
    assert ". is a folder; give a text file" in refused(".")
    assert "set `--vocab` to" in refused("text", "--vocab", "300")
    assert "`--held-out-share` must be from 0 to below 1" in refused("text", "--held-out-share", "1")
    Path("there").touch()
    assert main(["tokenizer", "train", "text", "--out", "there"]) == 2
    assert "there already exists" in capsys.readouterr().err


@pytest.mark.spec("korean.text")
@given(text=st.text(min_size=1).filter(str.strip), encoding=st.sampled_from(["utf-8", "utf-8-sig"]))
@example(text="각\u1100\u1161\r\n가\r", encoding="utf-8-sig")
def test_a_file_is_read_as_the_spec_says(text: str, encoding: str, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("text") / "any"
    path.write_bytes(text.encode(encoding))
    if not spec.text(path.read_bytes()).strip() or "\0" in text:
        return
    assert read_text(path) == spec.text(path.read_bytes())
    assert unicodedata.is_normalized("NFC", read_text(path))


@pytest.mark.spec("korean.held-out-documents")
@given(st.lists(st.text(st.sampled_from("가나 \f"), max_size=6), max_size=8), st.sampled_from([0.1, 0.3, 0.5]), st.randoms())
def test_documents_are_held_out_whole(documents: list[str], share: float, random: Any) -> None:
    text = "\f".join(documents)
    assert parted(text, share) == tuple(spec.parts(text, share))
    if "\f" in text:
        trained, held_out = parted(text, share)
        assert not set(trained) & set(held_out)
        whole = [document for document in text.split("\f") if document.strip()]
        random.shuffle(whole)
        assert not whole or set(parted("\f".join([*whole, ""]), share)[1]) == set(held_out), "in any order"
        assert set(held_out) <= set(parted(text, share + 0.2)[1]), "a smaller share is part of a larger one"
