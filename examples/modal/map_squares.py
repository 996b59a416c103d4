"""A map over 1,000 inputs: results come in the order of the inputs, from as many containers as there are.

    modal run examples/modal/map_squares.py

Without an account: `modalflow local run -- modal run examples/modal/map_squares.py`.
"""

import modal

app = modal.App("example-map-squares")


@app.function(max_containers=4)
@modal.concurrent(max_inputs=50)
def square(x: int) -> int:
    return x * x


@app.local_entrypoint()
def main(inputs: int = 1000) -> None:
    squares = list(square.map(range(inputs)))
    print(f"{len(squares)} squares, the last one is {squares[-1]}, their sum is {sum(squares)}")
