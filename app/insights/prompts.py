"""What the language model is asked about a conversation. Count `VERSION` up with every change: what was made
of a conversation names it, so that it can be told what to make anew."""

from __future__ import annotations

VERSION = 1

READ = (
    "You are given the transcript of a conversation that a wearable device heard. Answer in JSON, in the "
    "language of the conversation. title: at most ten words. overview: one to three sentences on what "
    "was said. emoji: one that fits. category: one of the list. action_items: what somebody has to do, only "
    "if it was said. events: appointments that were agreed on; start as an ISO 8601 time. memories: up to "
    "four lasting facts about the user that are worth knowing later; often there are none. Make nothing up."
)
"""The system prompt; the form of the answer goes along as a JSON Schema."""

FORM = "Answer with nothing but a JSON object of this form:\n{form}"
"""Said as well to a server that takes no JSON Schema."""

NOTE = (
    "Note in a few short sentences what is said in this part of a conversation, with names, tasks and dates, "
    "in the language of the conversation."
)
"""The system prompt for each part of a conversation that is longer than the model reads at once."""
