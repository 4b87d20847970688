"""What the language model is told of the conversation so far."""

from __future__ import annotations

from app.roles import ChatMessage, LanguageModel


class History:
    """The conversation as it was heard: an interrupted reply stands with the words that reached
    the person, a reply nobody heard does not stand at all."""

    def __init__(self, messages: list[ChatMessage] | None = None) -> None:
        self.messages: list[ChatMessage] = list(messages or [])
        self._from = 0

    def user(self, text: str) -> None:
        """The person said `text`. Two in a row (the first was not answered) become one."""
        self._add("user", text)

    def assistant(self, heard: str) -> None:
        """The person heard `heard`; nothing is recorded for an empty one."""
        if heard.strip():
            self._add("assistant", heard)

    def _add(self, role: str, text: str) -> None:
        if self.messages and self.messages[-1].role == role and self._from < len(self.messages):
            text = f"{self.messages.pop().content} {text}"
        self.messages.append(ChatMessage(role, text))  # type: ignore[arg-type]

    def window(
        self, instructions: str, llm: LanguageModel, reply_tokens: int, *, asking: str = ""
    ) -> list[ChatMessage]:
        """The system prompt and as many of the last messages as fit beside a reply of
        `reply_tokens`; with `asking`, as if the person had just said that.

        When the window overflows, three quarters of it are dropped at once: the prompt then keeps
        its beginning for many turns, and with it the model's cache of it.
        """
        messages = list(self.messages)
        if asking:
            if messages and messages[-1].role == "user" and self._from < len(messages):
                asking = f"{messages.pop().content} {asking}"
            messages.append(ChatMessage("user", asking))
        room = llm.context_tokens - reply_tokens - llm.count_tokens(instructions)
        self._fit(messages, llm, room, room)
        return [ChatMessage("system", instructions), *messages[self._from :]]

    def make_room(self, instructions: str, llm: LanguageModel, reply_tokens: int) -> bool:
        """Drop old messages now if the window is nearly full, while nobody waits for an answer:
        what is left must be read anew. Whether anything was dropped."""
        room = llm.context_tokens - reply_tokens - llm.count_tokens(instructions)
        return self._fit(self.messages, llm, room * 3 // 4, room)

    def _fit(self, messages: list[ChatMessage], llm: LanguageModel, most: int, room: int) -> bool:
        sizes = [llm.count_tokens(m.content) for m in messages]
        if sum(sizes[self._from :]) <= most:
            return False
        before = self._from
        while self._from < len(sizes) - 1 and sum(sizes[self._from :]) > room // 4:
            self._from += 1
        while self._from < len(sizes) - 1 and messages[self._from].role != "user":
            self._from += 1
        return self._from != before
