from modalflow.config.task_options import modal_config as modal_config
from modalflow.worker.deploy.images import airflow_image as airflow_image
from modalflow.worker.deploy.profile import Profile as Profile
from modalflow.worker.deploy.worker import Worker as Worker

__version__: str
