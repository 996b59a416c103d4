from modalflow.config.task_options import modal_config as modal_config
from modalflow.worker.deploy.definition import Worker as Worker
from modalflow.worker.deploy.images import airflow_image as airflow_image
from modalflow.worker.deploy.profile import Profile as Profile

__version__: str
