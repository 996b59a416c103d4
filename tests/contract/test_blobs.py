"""Blobs: what is too large for an RPC, over HTTP, with the SDK's own upload and download."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import modal
import pytest
from modal._utils.async_utils import synchronizer
from modal._utils.blob_utils import blob_download, blob_upload
from modal.exception import NotFoundError
from modal_proto import api_pb2

from tests.sdk import rpc, stub


async def _round_trip(client: modal.Client, data: bytes) -> tuple[str, bytes]:
    blob_id = await blob_upload(data, stub(client))
    return blob_id, await blob_download(blob_id, stub(client))


@pytest.mark.parametrize("size", [0, 1, 3_000_000, 40_000_000])
def test_a_blob_comes_back_as_it_was(client: modal.Client, size: int) -> None:
    """What the SDK uploads, it downloads again, byte by byte; it checks the ETag on the way."""
    data = os.urandom(1000) * (size // 1000) + b"x" * (size % 1000)
    blob_id, back = synchronizer.create_blocking(_round_trip)(client, data)
    assert blob_id.startswith("bl-")
    assert back == data


@pytest.mark.local_only
def test_an_address_is_for_who_has_it(client: modal.Client) -> None:
    """Addresses are on the loopback and unguessable; a wrong one answers 403 and tells nothing."""
    created = rpc(client, "BlobCreate", api_pb2.BlobCreateRequest(content_length=3))
    url = created.upload_urls.items[0]
    assert urlsplit(url).hostname == "127.0.0.1"
    assert len(urlsplit(url).path.rpartition("/")[2]) >= 40
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.rpartition("/")[0].replace("upload", "download") + "/wrong", timeout=10)


@pytest.mark.local_only
def test_an_unknown_blob_is_not_found(client: modal.Client) -> None:
    """An id that nobody uploaded is NotFoundError, also one that looks like a path."""
    with pytest.raises(NotFoundError):
        rpc(client, "BlobGet", api_pb2.BlobGetRequest(blob_id="bl-" + 22 * "x"))
    with pytest.raises(modal.exception.InvalidError):
        rpc(client, "BlobGet", api_pb2.BlobGetRequest(blob_id="../../etc/hostname"))
