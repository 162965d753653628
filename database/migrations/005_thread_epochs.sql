-- depends: 004_cancel
-- A try that runs in the triggerer may be taken over by another triggerer: the same try, a later epoch. What the one
-- before it still wants to write is refused, as that of an older try is.

ALTER TABLE visual_ai.workflow_threads ADD COLUMN epoch integer NOT NULL DEFAULT 0;
-- Airflow's id of the task instance, another one for each try and for a run that was deleted and made again.
ALTER TABLE visual_ai.workflow_threads ADD COLUMN instance text;

CREATE FUNCTION visual_ai.hold_thread(wanted_thread text, wanted_try integer, wanted_epoch integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    held record;
BEGIN
    SELECT try_number, epoch INTO held FROM visual_ai.workflow_threads WHERE thread_id = wanted_thread FOR SHARE;
    IF held.try_number IS DISTINCT FROM wanted_try OR held.epoch IS DISTINCT FROM wanted_epoch THEN
        RAISE EXCEPTION 'try % (epoch %) of % was superseded by try % (epoch %)',
            wanted_try, wanted_epoch, wanted_thread, held.try_number, held.epoch
            USING ERRCODE = 'serialization_failure';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION visual_ai.hold_thread(text, integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION visual_ai.hold_thread(text, integer, integer) TO visual_ai_backend, visual_ai_worker;
