"""onnxruntime as all models here use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.roles import EngineFailed


class OrtSession:
    """One model on the CPU, with `threads` per call. Loading and running block; a file that is
    missing or no model, and a failed run, are `EngineFailed`."""

    def __init__(self, model: Path | bytes, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # warnings are about the export's unused weights
        # Spinning threads would take the cores from the recogniser and the LLM.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise EngineFailed(f"the model did not load: {error}") from error
        self.inputs: list[str] = [i.name for i in self._session.get_inputs()]

    def run(self, **inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The first output for `inputs`."""
        return self.outputs(**inputs)[0]

    def outputs(self, **inputs: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
        """All outputs for `inputs`, in the model's order."""
        try:
            outputs: list[npt.NDArray[np.float32]] = self._session.run(None, inputs)
        except Exception as error:
            raise EngineFailed(f"the model failed: {error}") from error
        return outputs
