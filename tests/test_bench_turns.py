"""bench.turns: the same questions behind more and more turns."""

from conftest import NANO

from bench import turns
from tests.checkpoints import tiny_checkpoint


def test_the_same_questions_stand_behind_more_turns():
    bare, two, three = (turns.problems_after(count, 20) for count in (0, 2, 3))
    for alone, short, long in zip(bare, two, three, strict=True):
        assert len(alone.messages) == 1
        assert short.messages[-1:] == long.messages[-1:] == alone.messages
        assert short.messages[:4] == long.messages[:4]
        assert [message.role for message in long.messages] == ["user", "assistant"] * 3 + ["user"]
        assert not alone.closed


def test_it_prints_a_table_and_the_key_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(turns, "TURNS", (0, 1))
    assert turns.main(["--model", str(tiny_checkpoint(tmp_path / "tiny")), "--questions", "3"]) == 0
    *_, last, figures = capsys.readouterr().out.splitlines()
    assert last.startswith("| free-choice accuracy | 0.")
    assert figures.split() == ["accuracy_0_turns=0.0000", "accuracy_1_turns=0.0000"]


def test_the_shipped_model_is_right_on_most_bare_questions(monkeypatch):
    monkeypatch.setattr(turns, "TURNS", (0,))
    assert turns.measure(NANO, 10)[0].accuracy > 0.7
