"""A pipeline without a scheduler: its functions hand on work over a Queue and meet in a Dict.

modal run examples/modal/pipeline.py
"""

import modal

app = modal.App("example-pipeline")
LINES = ["the quick brown fox", "jumps over the lazy dog", "the end"]


@app.function()
def extract(words: modal.Queue, readers: int) -> int:
    found = [word for line in LINES for word in line.split()]
    words.put_many(found)
    # One for each reader: there is nothing more to come.
    words.put_many([None] * readers)
    return len(found)


@app.function()
def count(words: modal.Queue, reader: int, counts: modal.Dict) -> None:
    mine: dict[str, int] = {}
    while (word := words.get()) is not None:
        mine[word] = mine.get(word, 0) + 1
    # An entry of its own for each reader: a Dict has no way to add to what others write.
    counts[reader] = mine


@app.function()
def report(counts: modal.Dict) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts.values():
        for word, n in part.items():
            total[word] = total.get(word, 0) + n
    return total


@app.local_entrypoint()
def main(readers: int = 2) -> None:
    with modal.Queue.ephemeral() as words, modal.Dict.ephemeral() as counts:
        readings = [count.spawn(words, reader, counts) for reader in range(readers)]
        print(f"{extract.remote(words, readers)} words extracted")
        modal.FunctionCall.gather(*readings)
        total = report.remote(counts)
    print(f"{len(total)} different ones; 'the' occurs {total['the']} times")
