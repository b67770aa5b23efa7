//! The database and the running programs of a whole run. Starting them for each
//! clause would take longer than the clauses.

use crate::contract::api::Api;
use crate::contract::program::{Implementation, Program, Service, Side, Unready};
use crate::until;
use std::collections::BTreeMap;
use std::time::Duration;
use telemetry::testing::TestDatabase;

/// Only a program that hangs, or never notices, takes so long.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

/// What a program stamps its rows with here.
pub fn stamp(implementation: Implementation) -> &'static str {
    match implementation {
        Implementation::Rust => "Rust",
        Implementation::Python => "Python",
        Implementation::Node => "NodeJS",
    }
}

/// One database, and each program at most once.
#[derive(Debug)]
pub struct Stage {
    pub database: TestDatabase,
    services: BTreeMap<(Side, Implementation), Service>,
}

impl Stage {
    /// Starts the database; `None` where there is none to be had.
    pub async fn open() -> Option<Self> {
        Some(Self {
            database: TestDatabase::alone().await?,
            services: BTreeMap::new(),
        })
    }

    /// Clears what an earlier clause left: a database that is down, rows, programs
    /// that ended.
    pub async fn clear(&mut self) {
        if !self.database.is_up().await {
            self.database.up().await;
        }
        for statement in ["TRUNCATE TABLE records", "TRUNCATE TABLE idempotency"] {
            sqlx::query(statement)
                .execute(&mut self.database.connect().await)
                .await
                .expect("the table is there");
        }
        self.services.retain(|_, service| service.is_running());
        // A table that was emptied is noticed at the next look, unless there are as
        // many rows again by then.
        for ((side, _), service) in &self.services {
            if *side == Side::Read {
                let empty = until(NOTICED_WITHIN, Duration::from_millis(50), async || {
                    let stats = service.api.get("/api3/stats").await;
                    (stats.status == 200 && stats.json()["total"] == 0).then_some(())
                });
                assert!(empty.await.is_some(), "the table is empty");
            }
        }
    }

    /// A program, started when it is first asked for.
    ///
    /// # Errors
    /// [`Unready`].
    pub async fn service(
        &mut self,
        implementation: Implementation,
        side: Side,
    ) -> Result<&Service, Unready> {
        let key = (side, implementation);
        if !self.services.contains_key(&key) {
            let program = Program::prepare(implementation, side).await?;
            let environment = [
                ("API_NAME", stamp(implementation)),
                ("CORS_ORIGIN", "*"),
                ("LOG_LEVEL", "info"),
            ];
            let service = program.start(&self.database, &environment).await;
            self.services.insert(key, service);
        }
        Ok(&self.services[&key])
    }

    /// The write side of an implementation that [`Self::service`] found ready.
    pub async fn write(&mut self, implementation: Implementation) -> Api {
        self.api(implementation, Side::Write).await
    }

    /// The read side, likewise.
    pub async fn read(&mut self, implementation: Implementation) -> Api {
        self.api(implementation, Side::Read).await
    }

    async fn api(&mut self, implementation: Implementation, side: Side) -> Api {
        match self.service(implementation, side).await {
            Ok(service) => service.api.clone(),
            Err(unready) => panic!("{implementation}: {unready:?}"),
        }
    }

    /// Another process of a program on the same database.
    pub async fn another(
        &mut self,
        implementation: Implementation,
        side: Side,
        environment: &[(&str, &str)],
    ) -> Service {
        let program = self.program(implementation, side).await;
        program.start(&self.database, environment).await
    }

    /// A program that [`Self::service`] found ready.
    pub async fn program(&self, implementation: Implementation, side: Side) -> Program {
        Program::prepare(implementation, side)
            .await
            .unwrap_or_else(|unready| panic!("{implementation}: {unready:?}"))
    }
}
