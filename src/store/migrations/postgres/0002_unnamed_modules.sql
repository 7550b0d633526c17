-- Since when no record has named the module, in seconds since 1970; NULL while one does, or as far as is known.
ALTER TABLE modules ADD COLUMN unnamed_since BIGINT;
