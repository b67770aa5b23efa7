-- The first answer to each Idempotency-Key, written in the transaction of the
-- rows it speaks of and shared by both APIs. Binary collation: keys that differ
-- in case are different keys.
CREATE TABLE IF NOT EXISTS idempotency (
    `key`       VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    body_sha256 CHAR(64)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    api         VARCHAR(32) NOT NULL,
    ids         JSON        NOT NULL,
    created_at  DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    PRIMARY KEY (`key`),
    KEY idempotency_created_at (created_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
