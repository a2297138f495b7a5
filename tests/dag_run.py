"""Execute the DAG once, in Airflow's own environment: python dag_run.py FORM [TASKS taken as done, a pattern]; its last line is JSON, every task's state and number of tries."""
import importlib.util
import json
import re
import sys
from datetime import timedelta
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / 'airflow' / 'dags' / 'fvc_pipeline_dag.py'
spec = importlib.util.spec_from_file_location('fvc_pipeline_dag', FILE)
module = importlib.util.module_from_spec(spec)
sys.modules['fvc_pipeline_dag'] = module
spec.loader.exec_module(module)
dag = module.dag
for task in dag.tasks: task.retry_delay = timedelta(seconds=0)
done = re.compile(sys.argv[2]) if len(sys.argv) > 2 else None
run = dag.test(run_conf=json.loads(sys.argv[1]), mark_success_pattern=done)
print(json.dumps(dict(state=run.state, tasks={t.task_id: [t.state, t.try_number] for t in run.get_task_instances()})))
