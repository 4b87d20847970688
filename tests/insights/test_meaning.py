"""Which lines say the same, measured with the real encoder on pairs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from dialogue.scripted import WordEmbedding

from app.engines.minilm import MiniLm
from app.engines.workers import Workers
from app.insights import meaning as module
from app.insights.meaning import Meaning, alike, facts, fresh
from app.roles import Busy, Embeddings, EngineFailed, Job, NotFound

SAME = [
    ("Call the dentist", "Phone the dentist"),
    ("Buy milk and bread", "Get bread and milk"),
    ("Send the report to Anna", "Email Anna the report"),
    ("Book a flight to Berlin", "Book flights to Berlin"),
    ("Schedule a meeting with the design team", "Set up a meeting with the design team"),
    ("Finish the budget proposal by Friday", "Complete the budget proposal by Friday"),
    ("Pick up the kids from school", "Collect the children from school"),
    ("Pay the electricity bill", "Pay the bill for electricity"),
    ("Renew the passport", "Get the passport renewed"),
    ("Water the plants while Tom is away", "Water Tom's plants while he is away"),
    ("Fix the login bug", "Fix the bug in the login"),
    ("Review the contract before Monday", "Look over the contract before Monday"),
    ("Order a new laptop battery", "Buy a new battery for the laptop"),
    ("Clean the garage", "The garage has to be cleaned"),
    ("Reply to Mark's email", "Answer the email from Mark"),
    ("The user is allergic to peanuts", "The user has a peanut allergy"),
    ("The user has a dog named Rex", "The user's dog is called Rex"),
    ("The user works as a nurse", "The user is a nurse"),
    ("The user lives in Boston", "User lives in Boston"),
    ("The user likes hiking in the mountains", "The user enjoys mountain hiking"),
    ("The user is learning Spanish", "The user studies Spanish"),
    ("The user has two children", "The user has 2 kids"),
    ("The user does not drink coffee", "The user doesn't drink coffee"),
    ("The user plays the piano", "The user can play piano"),
    ("The user's wife is called Maria", "The user is married to Maria"),
    ("The user prefers working from home", "The user likes to work from home"),
    ("The user was born in Poland", "The user is originally from Poland"),
    ("The user runs every morning", "The user goes running every morning"),
    ("The user is a vegetarian", "The user does not eat meat"),
    ("The user drives an electric car", "The user has an electric car"),
    ("Cancel the gym membership", "End the gym membership"),
    ("Send the invoice to Novak", "Email the invoice to Novak"),
    ("Prepare slides for the board meeting", "Make slides for the board meeting"),
    ("Get the car washed", "Wash the car"),
    ("Ask Lena about the budget", "Talk to Lena about the budget"),
    ("Return the books to the library", "Bring the library books back"),
    ("Make a doctor's appointment", "Schedule an appointment with the doctor"),
    ("Update the project plan", "Bring the project plan up to date"),
    ("Buy a birthday present for Sara", "Get Sara a birthday present"),
    ("Back up the laptop", "Make a backup of the laptop"),
    ("Order pizza for 6 people", "Order pizza for six people"),
    ("Send the photos to Grandma", "Send Grandma the photos"),
    ("Write the minutes of the meeting", "Write up the meeting minutes"),
    ("Check the tyre pressure", "Check the pressure of the tyres"),
    ("The user is afraid of flying", "The user has a fear of flying"),
    ("The user speaks German", "User speaks German"),
    ("The user is a software engineer", "The user works as a software engineer"),
    ("The user loves Italian food", "The user really likes Italian food"),
    ("The user has a brother called Jan", "The user's brother is called Jan"),
    ("The user goes to the gym twice a week", "The user visits the gym two times a week"),
    ("The user never eats fish", "The user doesn't eat fish"),
    ("The user moved to Oslo last year", "Last year the user moved to Oslo"),
    ("The user wants to write a novel", "The user would like to write a novel"),
    ("The user gets up early", "The user is an early riser"),
]
DIFFERENT = [
    ("Call the dentist", "Call the plumber"),
    ("Call Bob", "Call Alice"),
    ("Buy milk and bread", "Buy eggs and butter"),
    ("Send the report to Anna", "Send the report to Peter"),
    ("Book a flight to Berlin", "Book a flight to Madrid"),
    ("Book a flight to Berlin", "Book a hotel in Berlin"),
    ("Call the bank at 3 pm", "Call the bank at 5 pm"),
    ("Schedule a meeting with the design team", "Cancel the meeting with the design team"),
    ("Finish the budget proposal by Friday", "Send the budget proposal to the board"),
    ("Pick up the kids from school", "Pick up the car from the garage"),
    ("Pay the electricity bill", "Pay the water bill"),
    ("Renew the passport", "Renew the library card"),
    ("Fix the login bug", "Fix the payment bug"),
    ("Review the contract before Monday", "Sign the contract before Monday"),
    ("Order a new laptop battery", "Order a new laptop"),
    ("Clean the garage", "Clean the kitchen"),
    ("Reply to Mark's email", "Reply to Lisa's email"),
    ("Write the minutes of Monday's meeting", "Write the minutes of Thursday's meeting"),
    ("The user is allergic to peanuts", "The user is allergic to cats"),
    ("The user has a dog named Rex", "The user has a cat named Rex"),
    ("The user works as a nurse", "The user works as a teacher"),
    ("The user lives in Boston", "The user lives in Denver"),
    ("The user likes hiking in the mountains", "The user likes swimming in the sea"),
    ("The user is learning Spanish", "The user is learning French"),
    ("The user has two children", "The user has two dogs"),
    ("The user drinks coffee", "The user does not drink coffee"),
    ("The user plays the piano", "The user plays the guitar"),
    ("The user's wife is called Maria", "The user's sister is called Maria"),
    ("The user was born in 1984", "The user was born in 1994"),
    ("The user was born in Poland", "The user has never been to Poland"),
    ("The user's son is five", "The user's daughter is five"),
    ("The user likes tea", "The user hates tea"),
    ("Cancel the gym membership", "Renew the gym membership"),
    ("Send the invoice to Novak", "Pay the invoice from Novak"),
    ("Prepare slides for the board meeting", "Book a room for the board meeting"),
    ("Wash the car", "Sell the car"),
    ("Ask Lena about the budget", "Ask Lena about the holiday"),
    ("Return the books to the library", "Order the books from the library"),
    ("Schedule an appointment with the doctor", "Cancel the appointment with the doctor"),
    ("Update the project plan", "Approve the project plan"),
    ("Buy a birthday present for Sara", "Buy a wedding present for Sara"),
    ("Back up the laptop", "Repair the laptop"),
    ("Order pizza for 6 people", "Order pizza for 16 people"),
    ("Send the photos to Grandma", "Print the photos for Grandma"),
    ("Write the minutes of the meeting", "Read the minutes of the meeting"),
    ("Check the tyre pressure", "Change the tyres"),
    ("The user is afraid of flying", "The user is afraid of heights"),
    ("The user speaks German", "The user speaks Danish"),
    ("The user is a software engineer", "The user is a mechanical engineer"),
    ("The user loves Italian food", "The user hates Italian food"),
    ("The user has a brother called Jan", "The user has a nephew called Jan"),
    ("The user goes to the gym twice a week", "The user goes to the office twice a week"),
    ("The user never eats fish", "The user eats fish"),
    ("The user moved to Oslo last year", "The user moved from Oslo last year"),
    ("The user wants to write a novel", "The user has written a novel"),
    ("The user gets up early", "The user gets up late"),
]


@pytest.fixture(scope="module")
def minilm(model_dir: Callable[[str], Path]) -> Iterator[MiniLm]:
    pool = Workers(1)
    yield MiniLm(model_dir("all-minilm-l6-v2-int8"), pool)
    pool.close()


def meaning_of(encoder: Any) -> Meaning:
    async def embedding() -> Any:
        if isinstance(encoder, Exception):
            raise encoder
        return encoder

    return Meaning(embedding)


async def taken_for_same(minilm: MiniLm, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    _, places = await meaning_of(minilm).places([line for pair in pairs for line in pair])
    ones, others = places[::2], places[1::2]
    return [p for p, one, other in zip(pairs, ones, others, strict=True) if alike(*p, one, other)]


async def test_what_says_the_same_is_mostly_found_and_little_else(minilm: MiniLm) -> None:
    """As of now 32 of 54 and 1 of 56."""
    assert len(await taken_for_same(minilm, SAME)) >= 27
    wrong = await taken_for_same(minilm, DIFFERENT)
    assert len(wrong) <= 3, wrong


async def test_names_numbers_and_denials_count(minilm: MiniLm) -> None:
    close = [
        ("Call the bank at 3 pm", "Call the bank at 5 pm"),
        ("Write the minutes of Monday's meeting", "Write the minutes of Thursday's meeting"),
        ("The user eats fish", "The user never eats fish"),
        ("The user moved to Oslo last year", "The user moved from Oslo last year"),
    ]
    assert await taken_for_same(minilm, close) == []
    assert facts("The user has two cats, Tom and Kit") == facts("The user's cats are Tom and Kit, all 2")


async def test_signs_that_the_encoder_does_not_know_are_compared_as_text(minilm: MiniLm) -> None:
    """To it, "buy milk" and "buy a plane ticket" are one in Chinese."""
    encoder, (milk, ticket, english) = await meaning_of(minilm).places(["买牛奶", "买机票", "Buy milk"])
    assert encoder == "minilm/all-minilm-l6-v2-int8"
    assert milk is None and ticket is None and english is not None
    lines = [("买牛奶", milk), ("买机票", ticket), ("买牛奶！", milk)]
    assert [line for line, _ in fresh(lines, [])] == ["买牛奶", "买机票"]


async def test_lines_are_new_once() -> None:
    _, places = await meaning_of(WordEmbedding()).places(
        ["Call Bob", "call bob!", "Buy milk and bread", "Buy bread and milk", "?!"]
    )
    lines = ["Call Bob", "call bob!", "Buy milk and bread", "Buy bread and milk", "?!"]
    assert [line for line, _ in fresh(zip(lines, places, strict=True), [("Call  BOB.", None)])] == [
        "Buy milk and bread"
    ]


@pytest.mark.parametrize("failure", [NotFound("none"), EngineFailed("broken")])
async def test_without_an_encoder_equal_lines_are_the_same(failure: Exception) -> None:
    assert await meaning_of(failure).places(["a", "b"]) == (None, [None, None])


async def test_it_waits_for_a_machine_that_is_busy_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shy(WordEmbedding):
        asked = 0

        async def embed(self, texts: Sequence[str], job: Job) -> Embeddings:
            self.asked += 1
            if self.asked < 4:
                raise Busy("later", retry_after=0.01)
            return await super().embed(texts, job)

    assert (await meaning_of(Shy()).places(["a"]))[0] == "words/crc32"

    async def never() -> Any:
        await asyncio.sleep(3600)

    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    assert await Meaning(never).places(["a"]) == (None, [None])
