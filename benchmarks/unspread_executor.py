"""ModalExecutor without the distances that it keeps between the tasks of a burst. Nothing else of it is changed."""

from __future__ import annotations

from modalflow.executor.modal_executor import ModalExecutor
from modalflow.executor.submission import bursts

bursts.SPACING = 0.0

__all__ = ["ModalExecutor"]
