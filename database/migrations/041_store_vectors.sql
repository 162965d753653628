-- Search by meaning in LangGraph's store, with the vectors of whoever wrote an item, and without an extension.
-- LangGraph creates the table of items itself, in its first migration, if it isn't there.
CREATE TABLE IF NOT EXISTS visual_ai.store (
    prefix     text NOT NULL,
    key        text NOT NULL,
    value      jsonb NOT NULL,
    created_at timestamptz DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (prefix, key)
);

-- `index_name` is the model and the number of dimensions: vectors of two of them can't be compared. `embedding` has
-- 32-bit floats, and `signs` a bit for each of them, which PostgreSQL compares a thousand times as fast.
CREATE TABLE visual_ai.store_vectors (
    prefix     text NOT NULL,
    key        text NOT NULL,
    index_name text NOT NULL,
    path       text NOT NULL,
    embedding  bytea NOT NULL,
    signs      varbit NOT NULL,
    PRIMARY KEY (prefix, key, index_name, path),
    FOREIGN KEY (prefix, key) REFERENCES visual_ai.store (prefix, key) ON DELETE CASCADE
);
-- Floats hardly compress; kept out of the rows, they are read for the nearest items only.
ALTER TABLE visual_ai.store_vectors ALTER COLUMN embedding SET STORAGE EXTERNAL;

-- Whoever changes an item, with whichever index or none: vectors of what it was lead nobody to it any more.
CREATE FUNCTION visual_ai.forget_vectors() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM visual_ai.store_vectors v WHERE v.prefix = NEW.prefix AND v.key = NEW.key;
    RETURN NULL;
END
$$;
CREATE TRIGGER forget_vectors AFTER UPDATE OF value ON visual_ai.store
    FOR EACH ROW EXECUTE FUNCTION visual_ai.forget_vectors();

REVOKE ALL ON visual_ai.store_vectors FROM visual_ai_backend, visual_ai_worker;
GRANT SELECT, INSERT, DELETE ON visual_ai.store_vectors TO visual_ai_backend, visual_ai_worker;
