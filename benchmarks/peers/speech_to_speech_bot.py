"""Starts speech-to-speech's own server with the options of the command line. It runs in
speech-to-speech's own environment and imports nothing of ours.

At its start the server looks for Silero among the checkouts of torch.hub and for tables that split
sentences among NLTK's data, and fetches what it misses. Both are in packages of its environment (the
model is the same file, `silero_vad.jit`): they are put where it looks, so that it starts without the
internet and with the same versions every time.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

_SILERO = """dependencies = ["torch", "silero_vad"]


def silero_vad():
    from silero_vad import load_silero_vad

    return load_silero_vad(), ()
"""


def provide(folder: Path) -> None:
    """Lay out what the server looks for in `folder`, and say so in the environment."""
    checkout = folder / "hub" / "snakers4_silero-vad_master"
    checkout.mkdir(parents=True)
    (checkout / "hubconf.py").write_text(_SILERO, encoding="utf-8")
    # A tagger that it asks for but does not use.
    (folder / "taggers" / "averaged_perceptron_tagger_eng").mkdir(parents=True)
    llama_index = find_spec("llama_index")
    if llama_index is None or not llama_index.submodule_search_locations:
        raise SystemExit("the package llama-index-core, which brings NLTK's punkt_tab, is not installed")
    punkt = Path(llama_index.submodule_search_locations[0]) / "core" / "_static" / "nltk_cache"
    os.environ["TORCH_HOME"] = str(folder)
    os.environ["NLTK_DATA"] = os.pathsep.join([str(punkt), str(folder)])
    os.environ["HF_HUB_OFFLINE"] = "1"


def main() -> None:
    """`speech-to-speech ARGUMENTS`, until this process is ended."""
    with tempfile.TemporaryDirectory(prefix="colloquy-peer-") as folder:
        provide(Path(folder))
        from speech_to_speech.cli import main as command  # type: ignore[import-not-found]

        sys.argv[0] = "speech-to-speech"
        command()


if __name__ == "__main__":
    main()
