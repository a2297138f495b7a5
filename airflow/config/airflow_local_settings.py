"""What every process of Airflow reads first: the servers of task logs have no setting for their address, so that it is set here."""
import uvicorn

run_server = uvicorn.run


def run_on_loopback(app, **options): run_server(app, **(options | dict(host='127.0.0.1')))


uvicorn.run = run_on_loopback
