-- depends: 025_identity
-- The key with which the backend signs what it adds to a run's conf. Whoever may start runs in Airflow can write a conf,
-- but only who has this key can say in it for whom the run is. 244 random bits.
CREATE TABLE visual_ai.signing_keys (
    name       text PRIMARY KEY,
    key        bytea NOT NULL CHECK (length(key) >= 32),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO visual_ai.signing_keys (name, key)
VALUES ('run_conf', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));
REVOKE ALL ON visual_ai.signing_keys FROM visual_ai_backend, visual_ai_worker;
GRANT SELECT ON visual_ai.signing_keys TO visual_ai_backend, visual_ai_worker;
