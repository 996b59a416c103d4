from modalflow.task_options import modal_config as modal_config
from modalflow.worker.definition import Worker as Worker
from modalflow.worker.images import airflow_image as airflow_image
from modalflow.worker.profile import Profile as Profile

__version__: str
