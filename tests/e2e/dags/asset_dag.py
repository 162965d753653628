"""A DAG that updates an asset which a schedule waits for."""

from airflow.sdk import DAG, Asset, task

with DAG(dag_id="invoice_source", schedule=None) as dag:

    @task(outlets=[Asset(name="invoices", uri="s3://example/invoices")])
    def arrive() -> None:
        """Nothing but the update of the asset."""

    arrive()
