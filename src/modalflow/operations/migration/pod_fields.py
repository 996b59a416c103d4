"""Fields of a pod and of its containers that have no option on Modal: what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping

from modalflow.operations.migration.findings import Kind

Rule = tuple[Kind, str]

_PLACEMENT = (Kind.DROP, "has no counterpart: Modal chooses the machine. Use region= or cloud= if the place matters.")
_SECURITY = (
    Kind.DECIDE,
    "has no counterpart: a container on Modal runs as root in gVisor. Check whether the task needs another user.",
)
_HEALTH = (Kind.DROP, "has no counterpart, and needs none: modalflow watches its containers.")
_NETWORK = (Kind.DECIDE, "has no counterpart: containers on Modal are outside of the cluster's network.")

#: Fields of ``V1PodSpec``. Those with options on Modal are read elsewhere.
SPEC: Mapping[str, Rule] = {
    "tolerations": _PLACEMENT,
    "affinity": _PLACEMENT,
    "node_name": _PLACEMENT,
    "scheduler_name": _PLACEMENT,
    "topology_spread_constraints": _PLACEMENT,
    "runtime_class_name": _PLACEMENT,
    "priority_class_name": (Kind.DROP, "has no counterpart. Airflow's pool and priority_weight still apply."),
    "priority": (Kind.DROP, "has no counterpart. Airflow's pool and priority_weight still apply."),
    "preemption_policy": (Kind.DROP, "has no counterpart. A profile can have nonpreemptible=True."),
    "restart_policy": (Kind.DROP, "has no counterpart, and needs none: Airflow's retries apply."),
    "termination_grace_period_seconds": (Kind.DROP, "has no counterpart: Modal's own grace period applies."),
    "service_account_name": (
        Kind.DECIDE,
        "has no counterpart. Put the credentials of the cloud into a Modal Secret, or use Modal's OIDC tokens.",
    ),
    "service_account": (
        Kind.DECIDE,
        "has no counterpart. Put the credentials of the cloud into a Modal Secret, or use Modal's OIDC tokens.",
    ),
    "automount_service_account_token": (Kind.DROP, "has no counterpart: containers on Modal have no such token."),
    "security_context": _SECURITY,
    "image_pull_secrets": (
        Kind.DECIDE,
        "becomes secret= of modal.Image.from_registry in the Worker file, with the registry's credentials.",
    ),
    "init_containers": (
        Kind.DECIDE,
        "have no counterpart. Do their work while the image is built, or at the beginning of the task.",
    ),
    "host_network": _NETWORK,
    "host_aliases": _NETWORK,
    "hostname": _NETWORK,
    "subdomain": _NETWORK,
    "dns_policy": _NETWORK,
    "dns_config": _NETWORK,
    "host_pid": _SECURITY,
    "host_ipc": _SECURITY,
    "share_process_namespace": _SECURITY,
    "enable_service_links": (Kind.DROP, "has no counterpart, and needs none."),
}

#: Fields of the task's container.
CONTAINER: Mapping[str, Rule] = {
    "name": (Kind.DROP, ""),
    "image_pull_policy": (Kind.DROP, "has no counterpart: Modal pulls the image when the profile is deployed."),
    "command": (Kind.DECIDE, "has no counterpart: modalflow starts the task. Do its work in the image or in the task."),
    "args": (Kind.DECIDE, "has no counterpart: modalflow starts the task. Do its work in the image or in the task."),
    "working_dir": (Kind.DECIDE, "has no counterpart. Use absolute paths, or WORKDIR in the image."),
    "lifecycle": (Kind.DECIDE, "has no counterpart. Use the task's callbacks, e.g. on_failure_callback."),
    "security_context": _SECURITY,
    "liveness_probe": _HEALTH,
    "readiness_probe": _HEALTH,
    "startup_probe": _HEALTH,
    "ports": (Kind.DECIDE, "have no counterpart: no other pod can reach the task. modal.forward opens a tunnel."),
    "volume_devices": (Kind.DECIDE, "have no counterpart on Modal."),
    "termination_message_path": (Kind.DROP, "has no counterpart. The task's log has the reason for its end."),
    "termination_message_policy": (Kind.DROP, "has no counterpart. The task's log has the reason for its end."),
    "stdin": (Kind.DROP, "has no counterpart, and needs none."),
    "tty": (Kind.DROP, "has no counterpart, and needs none."),
}

#: Fields of the pod's metadata.
METADATA: Mapping[str, Rule] = {
    "labels": (Kind.DROP, "have no counterpart. `modalflow cost` already sums by DAG, task and profile."),
    "annotations": (Kind.DROP, "have no counterpart."),
    "namespace": (Kind.DROP, "has no counterpart. [modal_executor] environment separates deployments."),
    "name": (Kind.DROP, "has no counterpart."),
}

#: Kinds of volumes: the field of ``V1Volume`` → what becomes of a mount of it.
VOLUMES: Mapping[str, Rule] = {
    "persistent_volume_claim": (
        Kind.DECIDE,
        "copy its data to a Modal Volume: modal volume put. A Volume has no locks, and shows changes after a commit.",
    ),
    "empty_dir": (Kind.DROP, "can go: every container has a disk of its own. Its size: ephemeral_disk of the profile."),
    "config_map": (Kind.DECIDE, "add the files to the profile's image, or pass their values with env=."),
    "secret": (
        Kind.DECIDE,
        "use a Modal Secret, whose values are environment variables, and write the file in the task.",
    ),
    "projected": (Kind.DECIDE, "use a Modal Secret, whose values are environment variables."),
    "host_path": (Kind.DECIDE, "has no counterpart. Add the files to the profile's image, or to a Modal Volume."),
    "nfs": (Kind.DECIDE, "has no counterpart. Copy its data to a Modal Volume or a bucket."),
    "csi": (Kind.DECIDE, "use modal.CloudBucketMount in the profile if it is a bucket, otherwise a Modal Volume."),
    "downward_api": (Kind.DECIDE, "has no counterpart. Airflow's context has the task's own names."),
}
