"""A class whose containers load something once, and keep it from call to call.

modal run examples/modal/class_with_state.py
"""

import modal

app = modal.App("example-class-with-state")


@app.cls(max_containers=1)
class Greeter:
    language: str = modal.parameter(default="en")

    @modal.enter()
    def load(self) -> None:
        # Where a model would be loaded: once per container, before its first call.
        self.greeting = {"en": "Hello", "es": "Hola"}[self.language]
        self.calls = 0
        print(f"Loaded {self.language}")

    @modal.method()
    def greet(self, name: str) -> str:
        self.calls += 1
        return f"{self.greeting}, {name}! (call {self.calls} of this container)"


@app.local_entrypoint()
def main() -> None:
    english, spanish = Greeter(), Greeter(language="es")
    for name in ("Ada", "Grace"):
        print(english.greet.remote(name))
    print(spanish.greet.remote("Santiago"))
