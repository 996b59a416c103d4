"""What becomes of a container's Volumes at its end."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest

from modalflow.emulator.containers.launch.launcher import detach_all
from modalflow.emulator.volumes.volumes import Volumes


async def test_a_volume_that_cannot_be_committed_keeps_no_other_one_from_that() -> None:
    """Each Volume of the container is committed and detached; the error of the one that fails is raised at the end."""
    volumes = create_autospec(Volumes, instance=True)
    detached: list[str] = []

    async def detach(volume_id: str, _container_id: str) -> None:
        if volume_id == "vo-2":
            raise OSError("damaged")
        detached.append(volume_id)

    volumes.detach.side_effect = detach
    with pytest.raises(OSError, match="damaged"):
        await detach_all(volumes, "ta-1", ["vo-1", "vo-2", "vo-3"])
    assert sorted(detached) == ["vo-1", "vo-3"]
