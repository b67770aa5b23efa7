-- One row per telemetry record, stamped with the API that took it.
-- Valid on MySQL 8.0.13 to 9.x and on MariaDB 10.11 and newer.
-- IF NOT EXISTS: DDL is not transactional in MySQL, so a crash between this
-- statement and the entry in the migrations table must not block the next run.
CREATE TABLE IF NOT EXISTS records (
    id                   BIGINT       NOT NULL AUTO_INCREMENT,
    total_ram            DOUBLE       NOT NULL,
    ram_libre            DOUBLE       NOT NULL,
    uso_ram              DOUBLE       NOT NULL,
    porcentaje_ram       DOUBLE       NOT NULL,
    porcentaje_cpu_uso   DOUBLE       NOT NULL,
    porcentaje_cpu_libre DOUBLE       NOT NULL,
    procesos_corriendo   INT UNSIGNED NOT NULL,
    total_procesos       INT UNSIGNED NOT NULL,
    procesos_durmiendo   INT UNSIGNED NOT NULL,
    procesos_zombie      INT UNSIGNED NOT NULL,
    procesos_parados     INT UNSIGNED NOT NULL,
    hora                 DATETIME     NOT NULL,
    api                  VARCHAR(32)  NOT NULL,
    created_at           DATETIME(6)  NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    PRIMARY KEY (id),
    KEY records_created_at (created_at),
    KEY records_api_id (api, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
