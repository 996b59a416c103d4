"""``python -m modalflow.cli``: the ``modalflow`` command of exactly this interpreter."""

from modalflow.cli import main

if __name__ == "__main__":
    main(prog_name="modalflow")
