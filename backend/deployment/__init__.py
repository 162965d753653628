"""What `make up` and the images share: credentials, environments, Airflow's set-up; and the images' entry point."""
