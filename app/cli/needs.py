"""What the settings ask for: models of the manifest, and packages of the extras."""

from __future__ import annotations

from typing import Any, cast

from app.roles import ColloquyError
from app.runtime import PROVIDERS, Build, Role, chosen
from app.settings import Settings

_PACKAGES = {
    "silero": "onnxruntime",
    "smart_turn": "onnxruntime",
    "whisper": "faster_whisper",
    "moonshine": "onnxruntime",
    "llama": "xllamacpp",
    "openai": "openai",
    "piper": "onnxruntime onnx gruut gruut_lang_en",
    "kokoro": "onnxruntime gruut gruut_lang_en",
}
"""What each provider imports when it is loaded."""

CHINESE = ("jieba", "misaki")
"""What Kokoro needs besides to speak Chinese."""

_EXTRAS = {"openai": "openai", "jieba": "zh", "misaki": "zh", "sounddevice": "mic"}


class _Asked(Exception):
    """A provider has said which model it wants."""


async def needed_models(settings: Settings) -> dict[Role, str]:
    """The model of the manifest that each role will use; roles that use none are left out."""
    wanted: dict[Role, str] = {}

    async def fetch(model: str) -> Any:
        raise _Asked(model)

    build = Build(settings, cast(Any, None), cast(Any, None), fetch)
    for role, provider in chosen(settings).items():
        by_path = role == "llm" and (settings.llm_model_name or "").endswith(".gguf")
        if (role, provider) not in PROVIDERS or provider == "openai" or by_path:
            continue
        try:
            # The first thing that each of them does; nothing is loaded.
            await PROVIDERS[role, provider](build)
        except _Asked as asked:
            wanted[role] = str(asked)
        except (ColloquyError, ImportError):
            continue  # loading it will say so
    return wanted


def needed_packages(settings: Settings) -> list[str]:
    """The modules of extras that the chosen providers import."""
    names = [name for provider in chosen(settings).values() for name in _PACKAGES.get(provider, "").split()]
    if settings.language == "zh":
        names += CHINESE
    return list(dict.fromkeys(names))


def extra_of(package: str) -> str:
    """The extra of ours that brings `package`."""
    return _EXTRAS.get(package, "embedded")
