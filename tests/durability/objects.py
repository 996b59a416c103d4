"""The workloads of the objects that hold data: Dicts, Queues, Volumes, Secrets, and names."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
from typing import Any

import modal
from modal_proto import api_pb2

from tests.durability.workload import Lost, Workload
from tests.sdk import rpc

ABSENT = None

#: A partition holds 5,000 items, and a put into a full one waits for ever.
MOST_QUEUED = 1_000


class DictWorkload(Workload):
    """Puts, claims, pops and reads of a few keys: each key has one of the values that it may have."""

    name = "dict"

    def prepare(self) -> None:
        self.dict = modal.Dict.from_name("kills", create_if_missing=True, client=self.client).hydrate(self.client)
        self.may_be: dict[str, set[Any]] = {f"k{n}": {ABSENT} for n in range(12)}
        self.values = itertools.count(1)

    def step(self) -> None:
        key = self.rng.choice(list(self.may_be))
        self.rng.choice([self._put, self._put, self._claim, self._pop, self._read])(key)

    def check(self) -> None:
        for key in self.may_be:
            self._read(key)

    def _put(self, key: str) -> None:
        value = next(self.values)
        try:
            self.ask(self.dict.put, key, value)
        except Lost:
            self.may_be[key].add(value)
        else:
            self.may_be[key] = {value}

    def _claim(self, key: str) -> None:
        value, before = next(self.values), set(self.may_be[key])
        try:
            won = self.ask(self.dict.put, key, value, skip_if_exists=True)
        except Lost:
            if ABSENT in before:
                self.may_be[key].add(value)
            return
        if won and ABSENT not in before:
            self.tell(f"{key} was claimed although it was one of {before}")
        if not won and before == {ABSENT}:
            self.tell(f"{key} was refused to a claim although nothing stood there")
        self.may_be[key] = {value} if won else before - {ABSENT}

    def _pop(self, key: str) -> None:
        try:
            value = self.ask(self.dict.pop, key, default=ABSENT)
        except Lost:
            self.may_be[key].add(ABSENT)
        else:
            self._seen(key, value)
            self.may_be[key] = {ABSENT}

    def _read(self, key: str) -> None:
        with contextlib.suppress(Lost):
            self._seen(key, self.ask(self.dict.get, key, ABSENT))

    def _seen(self, key: str, value: Any) -> None:
        if value not in self.may_be[key]:
            self.tell(f"{key} is {value}; expected one of {self.may_be[key]}")
        self.may_be[key] = {value}


class QueueWorkload(Workload):
    """Puts and gets: nothing acknowledged is lost, nothing comes twice or out of order.

    A get without an answer may have taken what it asked for: a Queue delivers at most once.
    """

    name = "queue"

    def prepare(self) -> None:
        self.queue = modal.Queue.from_name("kills", create_if_missing=True, client=self.client).hydrate(self.client)
        self.numbers = itertools.count(1)
        self.put: set[int] = set()
        self.maybe_put: set[int] = set()
        self.got: list[int] = []
        self.may_be_taken = 0

    def step(self) -> None:
        if self.rng.random() < 0.55 and len(self.put) - len(self.got) < MOST_QUEUED:
            self._put(self.rng.choice([1, 1, 4]))
        else:
            self._get(self.rng.choice([1, 1, 3]))

    def check(self) -> None:
        """Nothing to compare before the end: reading would take."""

    def finish(self) -> None:
        while self._get(100):
            continue
        if sorted(self.got) != self.got:
            self.tell("items came out of order")
        if len(set(self.got)) != len(self.got):
            self.tell(f"items came twice: {sorted({n for n in self.got if self.got.count(n) > 1})}")
        if strange := set(self.got) - self.put - self.maybe_put:
            self.tell(f"items came that nobody put: {strange}")
        missing = self.put - set(self.got)
        if len(missing) > self.may_be_taken:
            self.tell(f"{len(missing)} items are missing, {self.may_be_taken} may be in lost answers: {missing}")

    def _put(self, count: int) -> None:
        items = [next(self.numbers) for _ in range(count)]
        try:
            self.ask(self.queue.put_many, items)
        except Lost:
            self.maybe_put.update(items)
        else:
            self.put.update(items)

    def _get(self, wanted: int) -> list[int]:
        try:
            items: list[int] = self.ask(self.queue.get_many, wanted, block=False)
        except Lost:
            self.may_be_taken += wanted
            return []
        self.got += items
        return items


class VolumeWorkload(Workload):
    """Uploads, removals and reads of a few files, in either version of Volumes."""

    name = "volume"
    version = 2

    def prepare(self) -> None:
        self.volume = modal.Volume.from_name(
            f"kills-{self.version}", create_if_missing=True, version=self.version, client=self.client
        ).hydrate(self.client)
        self.may_be: dict[str, set[bytes | None]] = {f"d{n % 2}/f{n}": {ABSENT} for n in range(5)}

    def step(self) -> None:
        self.rng.choice([self._upload, self._upload, self._remove, self._read])()

    def check(self) -> None:
        for path in self.may_be:
            self._read(path)

    def _upload(self) -> None:
        paths = self.rng.sample(list(self.may_be), self.rng.choice([1, 1, 2]))
        contents = {path: self.rng.randbytes(self.rng.choice([0, 10, 20_000])) for path in paths}

        def upload() -> None:
            with self.volume.batch_upload(force=True) as batch:
                for path, content in contents.items():
                    batch.put_file(io.BytesIO(content), path)

        try:
            self.ask(upload)
        except Lost:
            for path, content in contents.items():
                self.may_be[path].add(content)
        else:
            for path, content in contents.items():
                self.may_be[path] = {content}

    def _remove(self) -> None:
        path = self.rng.choice(list(self.may_be))
        try:
            self.ask(self._removed, path)
        except Lost:
            self.may_be[path].add(ABSENT)
        else:
            self.may_be[path] = {ABSENT}

    def _removed(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError, modal.exception.NotFoundError):
            self.volume.remove_file(path)

    def _read(self, path: str = "") -> None:
        path = path or self.rng.choice(list(self.may_be))
        with contextlib.suppress(Lost):
            content = self.ask(self._content, path)
            if content not in self.may_be[path]:
                self.tell(f"{path} is {_short(content)}; expected one of {[_short(c) for c in self.may_be[path]]}")
            self.may_be[path] = {content}

    def _content(self, path: str) -> bytes | None:
        try:
            return b"".join(self.volume.read_file(path))
        except (FileNotFoundError, modal.exception.NotFoundError):
            return ABSENT


class VolumeV1Workload(VolumeWorkload):
    """The same for version 1, whose files come another way."""

    name = "volume-v1"
    version = 1


class SecretWorkload(Workload):
    """Updates of a Secret: every key that was set is there, every one that was removed is not."""

    name = "secret"

    def prepare(self) -> None:
        modal.Secret.objects.create("kills", {"FIRST": "1"}, client=self.client)
        self.secret = modal.Secret.from_name("kills", client=self.client).hydrate(self.client)
        self.may_be: dict[str, set[bool]] = {f"K{n}": {False} for n in range(6)}

    def step(self) -> None:
        key, there = self.rng.choice(list(self.may_be)), self.rng.random() < 0.6
        update = api_pb2.SecretUpdateRequest.Update(key=key, value="v" if there else None)
        request = api_pb2.SecretUpdateRequest(secret_id=self.secret.object_id, updates=[update])
        try:
            self.ask(rpc, self.client, "SecretUpdate", request)
        except Lost:
            self.may_be[key].add(there)
        else:
            self.may_be[key] = {there}

    def check(self) -> None:
        request = api_pb2.SecretGetInfoRequest(secret_id=self.secret.object_id)
        with contextlib.suppress(Lost):
            keys = set(self.ask(rpc, self.client, "SecretGetInfo", request).metadata.keys)
            for key, may_be in self.may_be.items():
                if (key in keys) not in may_be:
                    self.tell(f"{key} is {'there' if key in keys else 'missing'}")
                self.may_be[key] = {key in keys}


class NameWorkload(Workload):
    """Objects made and deleted by name: each is listed once, or not at all."""

    name = "names"

    def prepare(self) -> None:
        self.may_be: dict[str, set[bool]] = {f"name-{n}": {False} for n in range(4)}

    def step(self) -> None:
        name = self.rng.choice(list(self.may_be))
        there = self.rng.random() < 0.5
        try:
            if there:
                self.ask(modal.Dict.objects.create, name, allow_existing=True, client=self.client)
            else:
                self.ask(modal.Dict.objects.delete, name, allow_missing=True, client=self.client)
        except Lost:
            self.may_be[name].add(there)
        else:
            self.may_be[name] = {there}

    def check(self) -> None:
        with contextlib.suppress(Lost):
            listed = [d.name for d in self.ask(modal.Dict.objects.list, client=self.client)]
            for name, may_be in self.may_be.items():
                if listed.count(name) not in {int(there) for there in may_be}:
                    self.tell(f"{name} is listed {listed.count(name)} times; it may be there: {may_be}")
                self.may_be[name] = {name in listed}


def _short(content: bytes | None) -> str:
    return "absent" if content is None else f"{len(content)} bytes {content[:4].hex()}…"


OBJECTS: tuple[type[Workload], ...] = (
    DictWorkload,
    QueueWorkload,
    VolumeWorkload,
    VolumeV1Workload,
    SecretWorkload,
    NameWorkload,
)


def seeded(seed: int, name: str) -> random.Random:
    """Return a workload's own random numbers: they do not depend on which others run beside it."""
    return random.Random(f"{seed}/{name}")
