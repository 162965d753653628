"""`make up`: runs the whole product on one machine, with PostgreSQL, Airflow, the backend and the frontend."""
