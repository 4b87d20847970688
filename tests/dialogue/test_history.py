from __future__ import annotations

from scripted import ScriptedLlm

from app.dialogue.history import History


def test_two_things_said_in_a_row_are_one_message() -> None:
    history = History()
    history.user("what is the weather")
    history.assistant("")
    history.user("in Paris?")
    history.assistant("Sunny.")
    assert [(m.role, m.content) for m in history.messages] == [
        ("user", "what is the weather in Paris?"),
        ("assistant", "Sunny."),
    ]


def test_the_window_fits_and_keeps_its_beginning_for_many_turns() -> None:
    llm = ScriptedLlm()
    llm.context_tokens = 300
    history = History()
    firsts = set()
    for i in range(100):
        history.user(f"question {i} " + "word " * 8)
        window = history.window("be kind", llm, 100)
        assert window[0].role == "system" and window[1].role == "user"
        assert window[-1].content.startswith(f"question {i} ")
        assert sum(llm.count_tokens(m.content) for m in window) <= 200
        firsts.add(window[1].content)
        history.assistant("answer " * 5)
    assert len(firsts) < 20


def test_one_message_too_long_for_the_window_is_still_sent() -> None:
    llm = ScriptedLlm()
    llm.context_tokens = 50
    history = History()
    history.user("word " * 100)
    assert len(history.window("be kind", llm, 10)) == 2


def test_room_is_made_before_it_is_needed() -> None:
    llm = ScriptedLlm()
    llm.context_tokens = 300
    history = History()
    dropped = 0
    for i in range(60):
        history.user(f"question {i} " + "word " * 8)
        before = history.window("be kind", llm, 100)
        history.assistant("answer " * 5)
        dropped += history.make_room("be kind", llm, 100)
        if i:
            assert before[1].role == "user"
    assert 2 < dropped < 20
