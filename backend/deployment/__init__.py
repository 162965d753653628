"""What the laptop and the images share: Airflow's set-up, credentials, environment and layout."""
