"""``modalflow sync``: upload DAG files to the Volume of the worker.

Owns texts and exit codes. ``modalflow.operations.syncing`` uploads the files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modalflow.cli.terminal.common import (
    BundleType,
    answer,
    app_option,
    environment_option,
    errors_in_a_line,
    json_option,
    show,
)
from modalflow.cli.terminal.quiet_command import QuietCommand

if TYPE_CHECKING:
    from modalflow.bundles.prune import PruneResult
    from modalflow.bundles.shipping import Shipment

#: Number of paths to show for each bundle.
_SHOWN = 20


@click.command(cls=QuietCommand)
@app_option
@environment_option
@click.option(
    "--dags-bundle",
    "bundles",
    multiple=True,
    type=BundleType(),
    help="DAG bundle and its folder. You can repeat it. Default: all local bundles in Airflow's configuration.",
)
@click.option("--dry-run", is_flag=True, help="Show the changes, and make none.")
@click.option("--prune", is_flag=True, help="Also remove old versions, except those of unfinished DAG runs.")
@click.option(
    "--keep-newest",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="With --prune: how many versions of each bundle to keep.",
)
@click.option(
    "--keep-days",
    type=click.FloatRange(min=0),
    default=30,
    show_default=True,
    help="With --prune: keep the versions of this many days.",
)
@json_option
def sync(
    app: str,
    environment: str,
    bundles: tuple[tuple[str, Path], ...],
    dry_run: bool,
    prune: bool,
    keep_newest: int,
    keep_days: float,
    as_json: bool,
) -> None:
    """Upload the DAG files of this machine to the Volume of the worker.

    If you deployed the worker with `--dags-source volume`, run this command after every edit. It uploads changed files
    and removes deleted ones. A task sees a whole sync or none of it, and a running task keeps its files.
    """
    with errors_in_a_line():
        from modalflow.operations import syncing
        from modalflow.operations.site import airflow_conf, open_site, read_settings

        site = open_site(read_settings(app, environment))
        folders = dict(bundles) or syncing.local_folders(airflow_conf())
        shipments = list(syncing.sync(site, folders, dry_run=dry_run))
        unread = syncing.unread(site, folders)
        pruned = syncing.remove_old(site, newest=keep_newest, days=keep_days, dry_run=dry_run) if prune else None
    if as_json:
        answer(json.dumps(_as_data(site.names.dags, shipments, pruned, unread, dry_run), indent=1))
        return
    for shipment in shipments:
        _show_shipment(shipment, site.names.dags, dry_run)
    if pruned is not None:
        _show_pruned(pruned, dry_run)
    for name in unread:
        show(f"The deployed worker does not read {name} from this Volume. Run `modalflow deploy --dags-source volume`.")


def _show_shipment(shipment: Shipment, volume: str, dry_run: bool) -> None:
    changes, manifest = shipment.changes, shipment.manifest
    files = f"{len(manifest.files)} files, {_size(manifest.size)}"
    head = f"DAG bundle {shipment.bundle}"
    if not changes:
        show(f"{head}: no changes ({files}, version {manifest.version[:12]} on Volume {volume}).")
        return
    lists = {"new": changes.added, "changed": changes.changed, "deleted": changes.removed}
    counted = ", ".join(f"{len(paths)} {what}" for what, paths in lists.items() if paths)
    done = "would upload" if dry_run else "uploaded"
    took = "" if dry_run else f" in {shipment.seconds:.1f} s"
    show(f"{head}: {counted}; {done} {_size(shipment.uploaded)}{took}.")
    paths = [(sign, path) for sign, found in zip("+~-", lists.values(), strict=True) for path in found]
    for sign, path in paths[:_SHOWN]:
        show(f"  {sign} {path}")
    if len(paths) > _SHOWN:
        show(f"  … and {len(paths) - _SHOWN} more")
    if dry_run:
        show("  Nothing was uploaded. Without --dry-run, later tasks would get these files.")
    else:
        show(f"  Tasks that start from now on have version {manifest.version[:12]} ({files}, Volume {volume}).")


def _show_pruned(pruned: PruneResult, dry_run: bool) -> None:
    verb = "Would remove" if dry_run else "Removed"
    number = sum(map(len, pruned.versions.values()))
    files = f"{pruned.contents} files without a version ({_size(pruned.size)})"
    show(f"{verb} {number} old versions, and {files}.")


def _as_data(
    volume: str, shipments: list[Shipment], pruned: PruneResult | None, unread: list[str], dry_run: bool
) -> dict[str, Any]:
    return {
        "volume": volume,
        "dry_run": dry_run,
        "bundles": [
            {
                "bundle": each.bundle,
                "version": each.manifest.version,
                "files": len(each.manifest.files),
                "bytes": each.manifest.size,
                "uploaded_bytes": each.uploaded,
                "seconds": round(each.seconds, 3),
                "added": list(each.changes.added),
                "changed": list(each.changes.changed),
                "removed": list(each.changes.removed),
            }
            for each in shipments
        ],
        "not_read_by_the_worker": unread,
        "pruned": None
        if pruned is None
        else {
            "versions": {bundle: list(versions) for bundle, versions in pruned.versions.items()},
            "files": pruned.contents,
            "bytes": pruned.size,
        },
    }


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
